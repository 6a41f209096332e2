//! In: clients that mean harm, as found by attack; out: everybody else is served as before.

use crate::support::backend::{backend, plain};
use crate::support::certs::Certs;
use crate::support::client::{Client, get, post};
use crate::support::edge::edge;
use crate::support::mcp;

const CALL: &str = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"add"}}"#;

#[test]
fn bodies_that_are_only_announced_cost_nobody_anything() {
    let backend = plain();
    let edge = edge().top("buffer_budget: 8MiB").to(&backend).start();
    let mut waiting: Vec<Client> = Vec::new();
    for _ in 0..8 {
        let mut client = edge.client();
        client.send("POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 4194304\r\n\r\n");
        assert_eq!(client.head().unwrap().status, 100, "the edge waits for the body");
        waiting.push(client);
    }
    assert_eq!(edge.ask(post("localhost", "/x", "", CALL)).status, 200);
}

#[test]
fn a_client_that_sends_far_ahead_and_leaves_is_noticed() {
    let backend = backend(|x| x.wait_closed());
    let edge = edge().to(&backend).start();
    let mut client = edge.client();
    client.send(get("localhost", "/x"));
    backend.wait_request(0);
    client.send("x".repeat(200_000));
    drop(client);
    backend.wait_closed(0);
}

#[test]
fn an_answer_that_is_under_way_at_the_stop_says_that_the_connection_ends() {
    let (feed, source) = crate::support::backend::feed();
    let backend = backend(move |x| {
        x.body();
        source.next();
        x.json("{}");
    });
    let mut edge = edge().to(&backend).start();
    let mut client = edge.client();
    client.send(post("localhost", "/x", "", CALL));
    backend.wait_request(0);
    let mut idle = edge.client();
    assert_eq!(idle.ask(get("evil.example.net", "/")).status, 421);
    edge.signal("TERM");
    edge.wait_line("stopping");
    assert!(idle.end().is_empty(), "the end of an idle connection shows that the edge is stopping");
    feed.push("");
    let answer = client.response();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(edge.exit().code(), Some(0));
}

#[test]
fn a_session_counts_on_its_own_route_only() {
    let replica = mcp::replica("one");
    let edge = edge()
        .upstream("one", &[replica.url()], "")
        .route("path: /a, upstream: one, rewrite: /mcp")
        .route("path: /b, upstream: one, rewrite: /mcp")
        .start();
    let session = mcp::session(&edge.ask(mcp::initialize("/a")));
    assert_eq!(edge.ask(mcp::call("/a", &session, 1)).status, 200);
    let served = replica.count();
    edge.ask(mcp::call("/b", &session, 2)).assert_refused(404);
    assert_eq!(replica.count(), served);
}

/// A burst like this is stopped by the `h2` crate; our own bound on what has been begun is behind it,
/// and this test stays green without it.
#[test]
fn resetting_streams_without_end_ends_the_connection() {
    let certs = Certs::new();
    let backend = backend(|x| x.wait_closed());
    let edge = edge().listener(&certs.listener()).to(&backend).start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = runtime.block_on(async {
        let tcp = tokio::net::TcpStream::connect(edge.address()).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(certs.client(&["h2"]));
        let tls = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
        let (send, connection) = h2::client::handshake(tls).await.unwrap();
        let driver = tokio::spawn(connection);
        let mut opened = 0;
        while opened < 20_000 {
            let Ok(mut ready) = send.clone().ready().await else { break };
            let request = http::Request::get("https://localhost/x").body(()).unwrap();
            let Ok((_, mut stream)) = ready.send_request(request, false) else { break };
            stream.send_reset(h2::Reason::CANCEL);
            opened += 1;
            tokio::task::yield_now().await;
        }
        drop(send);
        (opened, driver.await.unwrap())
    });
    assert!(ended.0 < 20_000 && ended.1.is_err(), "{ended:?}");
    assert!(backend.count() < 2_000, "{} requests reached the backend", backend.count());
}

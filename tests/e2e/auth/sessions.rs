//! In: sessions, and others who know their ids; out: nobody gets on with one but who began it.

use super::{Files, WORD, basic, guarded};
use crate::support::backend::{Backend, backend};
use crate::support::client::{get_events, post};
use crate::support::edge::Edge;
use crate::support::mcp::{call, initialize, modern, replica, session};

/// A request with header lines of a caller's.
fn by(lines: &str, request: &str) -> String {
    request.replacen("Host: localhost\r\n", &format!("Host: localhost\r\n{lines}"), 1)
}

fn start(files: &Files, backend: &Backend, more: &str) -> Edge {
    let auth = format!("{}{more}", files.basic("htpasswd", ", failures: 100000/s"));
    guarded(backend, &auth, "path: /mcp").start()
}

#[test]
fn someone_elses_session_is_not_there() {
    let (files, server) = (Files::new(), replica("a"));
    let value = files.write("key", "a-key-0123456789abcdef");
    let key =
        format!(", {{ api_key: {{ keys: [ {{ name: sha, value: \"${{file:{value}}}\" }} ] }} }}");
    let edge = start(&files, &server, &key);
    let (ann, bob) = (basic("sha", WORD), basic("apr1", WORD));
    // of the same name by another method
    let other = "X-API-Key: a-key-0123456789abcdef\r\n";
    let id = session(&edge.ask(by(&ann, &initialize("/mcp"))));
    assert_eq!(edge.ask(by(&ann, &call("/mcp", &id, 2))).status, 200);
    let before = server.count();
    for caller in [bob.as_str(), other] {
        let body = edge.ask(by(caller, &call("/mcp", &id, 42))).assert_refused(404);
        assert_eq!((&body["id"], &body["error"]["code"]), (&42.into(), &(-32001).into()));
        let lines = format!("Mcp-Session-Id: {id}\r\n{caller}");
        edge.ask(get_events("localhost", "/mcp", &lines)).assert_refused(404);
        let delete = format!("DELETE /mcp HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
        edge.ask(delete).assert_refused(404);
    }
    let nobody = edge.ask(call("/mcp", &id, 43));
    nobody.assert_refused(401);
    let wrong = edge.ask(by(&basic("sha", "wrong"), &call("/mcp", &id, 44)));
    wrong.assert_refused(401);
    assert_eq!(server.count(), before, "nothing of it reaches the server");
    assert_eq!(edge.ask(by(&ann, &call("/mcp", &id, 3))).status, 200, "it is still its own");
    let mine = session(&edge.ask(by(&bob, &initialize("/mcp"))));
    assert_eq!(edge.ask(by(&bob, &call("/mcp", &mine, 4))).status, 200);
    edge.ask(by(&ann, &call("/mcp", &mine, 5))).assert_refused(404);
}

#[test]
fn an_endpoint_of_the_old_transport_is_its_callers_too() {
    let files = Files::new();
    let server = backend(|x| {
        if x.request.method == "GET" {
            x.sse(&[]);
            x.chunk("event: endpoint\ndata: /mcp/messages?sessionId=5b2c8c0e\n\n");
            return x.wait_closed();
        }
        if x.body().is_some() {
            x.answer("202 Accepted", &[], b"");
        }
    });
    let edge = start(&files, &server, "");
    let (ann, bob) = (basic("sha", WORD), basic("apr1", WORD));
    let mut stream = edge.client();
    stream.send(get_events("localhost", "/mcp/sse", &ann));
    assert_eq!(stream.start().status, 200);
    let mut text = String::new();
    while !text.ends_with("\n\n") {
        text += &String::from_utf8(stream.chunk().unwrap()).unwrap();
    }
    let place = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    assert!(!place.contains("5b2c8c0e"), "the server's own id would do without the token");
    let body = r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#;
    let before = server.count();
    edge.ask(post("localhost", place, &bob, body)).assert_refused(404);
    edge.ask(post("localhost", place, "", body)).assert_refused(401);
    assert_eq!(server.count(), before);
    assert_eq!(edge.ask(post("localhost", place, &ann, body)).status, 202);
    assert_eq!(server.last().target, "/mcp/messages?sessionId=5b2c8c0e");
}

#[test]
fn the_log_says_who_it_was() {
    let (files, server) = (Files::new(), replica("a"));
    let edge = start(&files, &server, ", anonymous");
    let answer = edge.ask(by(&basic("jörg müller", WORD), &modern("/mcp", "", 1)));
    let line = edge.log_of(&answer);
    assert_eq!((&line["auth"], &line["principal"]), (&"basic".into(), &"jörg müller".into()));
    let answer = edge.ask(by(&basic("sha", "wrong"), &modern("/mcp", "", 1)));
    let line = edge.log_of(&answer);
    assert!(line["principal"].is_null(), "nobody yet: {line}");
    assert_eq!(line["detail"], "wrong password for `sha`");
    let answer = edge.ask(by(&basic("my-password", "x"), &modern("/mcp", "", 1)));
    assert_eq!(edge.log_of(&answer)["detail"], "no such user", "it may be a secret");
    let answer = edge.ask(modern("/mcp", "", 1));
    assert!(edge.log_of(&answer)["auth"].is_null(), "anonymous is not worth a word");
}

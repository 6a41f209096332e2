//! In: a table of malformed and hostile requests; out: the exact answer to each, and nothing of them at the backend.

mod cases;
mod http2;

use self::cases::After::{Any, Closes, Stays};
use self::cases::{Case, HOST};
use crate::support::backend::{Backend, plain};
use crate::support::certs::Certs;
use crate::support::client::{Client, Response, get};
use crate::support::edge::{Builder, Edge, edge};
use crate::support::wait::DEADLINE;

/// A connection that is ready for a request.
type Open<'a> = &'a dyn Fn() -> Client;

#[test]
fn malformed_requests_get_the_right_refusal_and_reach_nobody() {
    let backend = plain();
    let edge = world(edge(), &backend);
    check_all(&backend, &|| edge.client());
}

#[test]
fn over_tls_they_get_the_same() {
    let (backend, certs) = (plain(), Certs::new());
    let edge = world(edge().listener(&certs.listener()), &backend);
    check_all(&backend, &|| edge.tls(certs.client(&["http/1.1"])));
}

#[test]
fn behind_a_proxy_that_announces_its_clients_they_get_the_same() {
    let backend = plain();
    let announcing = edge().top("trusted_proxies: [ 127.0.0.0/8 ]");
    let edge = world(announcing.listener("proxy_protocol: required"), &backend);
    check_all(&backend, &|| {
        let mut client = edge.client();
        client.send("PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\n");
        client
    });
}

fn world(edge: Builder, backend: &Backend) -> Edge {
    edge.upstream("one", &[backend.url()], "")
        .route(&format!("host: {HOST}, upstream: one, body_limit: 64KiB"))
        .start()
}

fn check_all(backend: &Backend, open: Open<'_>) {
    let cases = cases::all();
    assert!(cases.len() >= 60, "the issue asks for 60");
    let mut wrong = Vec::new();
    for (n, case) in cases.iter().enumerate() {
        let before = backend.count();
        for result in [check(open, case), nothing_arrived(open, backend, n, before)] {
            if let Err(why) = result {
                wrong.push(format!(
                    "{} ({}): {why}\n    sent {}",
                    case.name,
                    case.rule,
                    shown(&case.bytes)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// One case on a connection of its own. A panic of the client (silence) is a finding like others.
fn check(open: Open<'_>, case: &Case) -> Result<(), String> {
    let run = || {
        let mut client = open();
        client.send(&case.bytes);
        let Some(answer) = client.try_response() else {
            return Err("closed without an answer".to_owned());
        };
        judge(case, &answer)?;
        match case.after {
            Closes => {
                let rest = client.end();
                if rest.is_empty() {
                    Ok(())
                } else {
                    Err(format!("more came after the refusal: {}", shown(&rest)))
                }
            }
            Stays => match client.ask(get("evil.example.net", "/")).status {
                421 => Ok(()),
                other => Err(format!("the next request got {other}")),
            },
            Any => Ok(()),
        }
    };
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run))
        .unwrap_or_else(|e| Err(e.downcast_ref::<String>().cloned().unwrap_or_default()))
}

fn judge(case: &Case, answer: &Response) -> Result<(), String> {
    if !case.status.contains(&answer.status) {
        return Err(format!(
            "got {} ({}), expected {:?}",
            answer.status,
            answer.text(),
            case.status
        ));
    }
    if let Some(why) = answer.not_a_refusal() {
        return Err(why);
    }
    if answer.json()["id"].is_null() { Ok(()) } else { Err("an id that nobody sent".to_owned()) }
}

/// Sends a good request, which comes later than all of the case's bytes could, and looks at what came before it.
fn nothing_arrived(
    open: Open<'_>,
    backend: &Backend,
    n: usize,
    before: usize,
) -> Result<(), String> {
    let probe = format!("/probe-{n}");
    let answer = open().ask(get(HOST, &probe));
    if answer.status != 200 {
        return Err(format!("the probe got {}", answer.status));
    }
    let seen: Vec<_> = backend.requests().into_iter().skip(before).collect();
    if let Some(stray) = seen.iter().find(|r| r.target != probe) {
        return Err(format!(
            "THE BACKEND GOT {} {} {:?}",
            stray.method, stray.target, stray.headers
        ));
    }
    let carrier = seen.last().map_or(0, |r| r.connection);
    let whole = backend.record().wait_for(DEADLINE, |r| {
        let mine = r.connections.get(carrier)?;
        (mine.parsed == mine.bytes.len()).then_some(())
    });
    whole.ok_or_else(|| "the probe's connection carried more than the probe".to_owned())
}

fn shown(bytes: &[u8]) -> String {
    let text = bytes.escape_ascii().to_string();
    if text.len() < 300 { text } else { format!("{}… ({} bytes)", &text[..300], bytes.len()) }
}

#[test]
fn a_truncated_json_body_has_no_effect() {
    let backend = plain();
    let edge = edge().to(&backend).start();
    for lines in [
        "Content-Length: 20\r\n\r\n{\"jsonrpc\"",
        "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"jso",
        "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    ] {
        let mut client = edge.client();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{lines}"
        ));
        client.half_close();
        // RFC 9112 §8: incomplete; whether anybody is left to read a refusal is not ours to know.
        if let Some(answer) = client.try_response() {
            answer.assert_refused(400);
        }
        assert_eq!(client.end(), b"");
    }
    assert_eq!(edge.get("/probe").status, 200);
    assert_eq!(backend.count(), 1, "{:?}", backend.requests());
}

#[test]
fn a_head_that_never_ends_is_not_forwarded() {
    let backend = plain();
    let edge = edge().to(&backend).start();
    for part in [
        "",
        "GET",
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r",
    ] {
        let mut client = edge.client();
        client.send(part);
        client.half_close();
        if let Some(answer) = client.try_response() {
            answer.assert_refused(400);
        }
        client.end();
    }
    assert_eq!(edge.get("/probe").status, 200);
    assert_eq!(backend.count(), 1, "{:?}", backend.requests());
}

#[test]
fn the_id_of_a_refused_request_is_echoed_where_it_is_known() {
    let backend = plain();
    let edge = edge().to(&backend).start();
    let body = r#"{"jsonrpc":"2.0","id":"seven","method":"tools/list"}"#;
    // A forged session is refused after the body was read, so the id is known.
    let answer = edge.ask(crate::support::client::post(
        "localhost",
        "/",
        "Mcp-Session-Id: forged\r\n",
        body,
    ));
    assert_eq!(answer.assert_refused(404)["id"], "seven");
    assert_eq!(backend.count(), 0);
}

#[test]
fn two_requests_in_one_packet_after_a_bad_one_are_not_served() {
    let backend = plain();
    let edge = edge().to(&backend).start();
    let mut client = edge.client();
    let bad =
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc";
    client.send(format!("{bad}{}", get("localhost", "/smuggled")));
    client.response().assert_refused(400);
    assert_eq!(client.end(), b"");
    assert_eq!(edge.get("/probe").status, 200);
    assert_eq!(backend.count(), 1);
}

#[test]
fn chunk_extensions_and_good_trailers_are_accepted() {
    let backend = plain();
    let edge = edge().to(&backend).start();
    let body = "4;name=value\r\n{\"a\"\r\n3;x\r\n:1}\r\n000\r\nX-Trailer: t\r\n\r\n";
    let head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: Chunked\r\n\r\n";
    let mut client = edge.client();
    assert_eq!(client.ask(format!("{head}{body}")).status, 200);
    assert_eq!(backend.last().body, b"{\"a\":1}");
    assert_eq!(client.ask(get("localhost", "/next")).status, 200, "framing is not lost");
}

#[test]
fn empty_lines_before_a_request_are_ignored() {
    // RFC 9112 §2.2: SHOULD ignore at least one.
    let backend = plain();
    let edge = edge().to(&backend).start();
    assert_eq!(edge.ask(format!("\r\n{}", get("localhost", "/"))).status, 200);
}

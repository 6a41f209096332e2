//! In: lists of tools, whichever way they come; out: the tools that their caller may call, and no other.

use serde_json::{Value, json};

use super::{Keys, call, guarded, verdict};
use crate::support::backend::{Backend, Exchange, backend, feed};
use crate::support::client::{Client, get_events, post};
use crate::support::edge::Edge;
use crate::support::mcp::initialize;

const RULES: &str = "tools: [ { allow: [ \"get_*\" ] } ]";
const CUT: &str = r#"{"jsonrpc":"2.0","id":7,"result":{"tools":[{"name":"get_a","title":"A"}],"nextCursor":"page 2","cacheScope":"private"}}"#;
const LIST: &str = r#"{"jsonrpc":"2.0","id":7,"result":{"tools":[{"name":"drop"},{"name":"get_a","title":"A"},{"name":"g"}],"nextCursor":"page 2","cacheScope":"public"}}"#;

fn ask_for_list(lines: &str) -> String {
    let body = r#"{"jsonrpc":"2.0","id":7,"method":"tools/list"}"#;
    post("localhost", "/mcp", lines, body)
}

fn modern() -> String {
    let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28" });
    let body =
        json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/list", "params": { "_meta": meta } });
    let lines = "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/list\r\n";
    post("localhost", "/mcp", lines, &body.to_string())
}

/// A server that gives each answer in one of these ways.
fn answering(script: impl Fn(&mut Exchange) + Send + Sync + 'static) -> Backend {
    backend(move |x| {
        if x.body().is_some() {
            script(x);
        }
    })
}

fn start(backend: &Backend, more: &str) -> Edge {
    guarded(backend, "anonymous", &format!("{RULES}, {more}")).start()
}

#[test]
fn a_json_answer_is_cut() {
    let server = answering(|x| {
        let headers = [
            ("content-type", "application/json"),
            ("etag", "\"of-all\""),
            ("x-kept", "yes"),
            ("content-digest", "sha-256=:AAAA:"),
        ];
        match x.header("x-how").as_deref() {
            Some("chunked") => {
                x.raw("HTTP/1.1 200 OK\r\ncontent-type: application/json; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n");
                for part in LIST.as_bytes().chunks(7) {
                    x.chunk(part);
                }
                x.end_chunks();
            }
            Some("close") => {
                x.close();
                x.raw(format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{LIST}"));
            }
            Some("text") => x.answer("200 OK", &[("content-type", "text/plain")], LIST.as_bytes()),
            Some("untyped") => x.answer("200 OK", &[], LIST.as_bytes()),
            Some("failure") => x.answer("500 Oops", &headers, LIST.as_bytes()),
            Some("clean") => x.answer("200 OK", &headers, CUT.as_bytes()),
            _ => x.answer("200 OK", &headers, LIST.as_bytes()),
        }
    });
    let edge = start(&server, "");
    let mut client = edge.client();
    for request in [
        ask_for_list(""),
        modern(),
        ask_for_list("X-How: chunked\r\n"),
        ask_for_list("X-How: close\r\n"),
        ask_for_list("X-How: text\r\n"),
        ask_for_list("X-How: untyped\r\n"),
        ask_for_list("X-How: failure\r\n"),
    ] {
        let answer = client.ask(&request);
        assert_eq!(answer.text(), CUT, "{request}");
        assert_eq!(answer.header("content-length"), Some(CUT.len().to_string().as_str()));
        assert_eq!((answer.count("etag"), answer.count("content-digest")), (0, 0));
    }
    let same = client.ask(ask_for_list("X-How: clean\r\n"));
    assert_eq!((same.text().as_str(), same.header("etag")), (CUT, Some("\"of-all\"")));
    assert_eq!(same.header("x-kept"), Some("yes"));
}

#[test]
fn a_get_is_cut_whatever_json_is_called() {
    let server = answering(|x| match x.header("x-type").as_deref() {
        Some("none") => x.answer("200 OK", &[], LIST.as_bytes()),
        kind => x.answer("200 OK", &[("content-type", kind.unwrap())], LIST.as_bytes()),
    });
    let edge = start(&server, "");
    for kind in ["none", "application/json", "text/json", "application/x-ndjson"] {
        let get = format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\nX-Type: {kind}\r\n\r\n");
        assert_eq!(edge.ask(get).text(), CUT, "{kind}");
    }
}

#[test]
fn each_caller_has_a_list_of_its_own() {
    let keys = Keys::new();
    let (a, of_a) = keys.key("a", "team: x");
    let (b, of_b) = keys.key("b", "team: y");
    let server = answering(|x| x.json(LIST));
    let auth = format!("{{ api_key: {{ keys: [ {a}, {b} ] }} }}, anonymous");
    let rules = "tools: [ { deny: [ drop ], when: { metadata.team: [ y ] } }, \
                 { allow: [ \"*\" ], when: { method: [ api_key ] } } ]";
    let edge = guarded(&server, &auth, rules).start();
    for (who, expected) in
        [(of_a.as_str(), &["drop", "get_a", "g"][..]), (&of_b, &["get_a", "g"]), ("", &[])]
    {
        let answer = edge.ask(ask_for_list(who)).json();
        let tools = answer["result"]["tools"].as_array().unwrap();
        let names: Vec<&Value> = tools.iter().map(|tool| &tool["name"]).collect();
        assert_eq!(names, expected, "{who}");
        assert_eq!(answer["result"]["cacheScope"], "private", "{who}");
        for (tool, allowed) in ["drop", "get_a", "g"].map(|t| (t, expected.contains(&t))) {
            let status = edge.ask(call(tool, who)).status;
            assert_eq!(status == 200, allowed, "{who}{tool}: what is listed can be called");
        }
    }
}

#[test]
fn a_short_stream_is_cut_whole() {
    let stream = format!(
        ": hi\r\n\r\nid: 1\r\ndata:\r\n\r\nevent: message\r\nid: 2\r\ndata: {LIST}\r\n\r\n"
    );
    let server = answering({
        let stream = stream.clone();
        move |x| x.answer("200 OK", &[("content-type", "text/event-stream")], stream.as_bytes())
    });
    let edge = start(&server, "");
    let mut client = edge.client();
    for _ in 0..2 {
        let answer = client.ask(ask_for_list(""));
        assert_eq!(answer.text(), stream.replace(LIST, CUT));
        assert_eq!(edge.log_of(&answer)["status"], 200);
    }
}

/// The next events of a stream, `n` bytes at least.
fn next(client: &mut Client, n: usize) -> String {
    String::from_utf8(client.chunks(n)).unwrap()
}

#[test]
fn events_leave_one_by_one_and_lists_are_cut() {
    let (feed, source) = feed();
    let server = answering(move |x| {
        x.sse(&[]);
        x.play(&source);
    });
    let edge = start(&server, "");
    let mut client = edge.client();
    client.send(call("get_a", ""));
    assert_eq!(client.start().status, 200);
    let progress = "event: message\ndata: {\"method\":\"notifications/progress\"}\n\n";
    let list = format!("id: 9\ndata: {LIST}\n\n");
    for _ in 0..3 {
        for event in [progress, ": ping\n\n", "data: x\r\n\r\n", "retry: 5\n\n", &list] {
            feed.push(event);
            let expected = event.replace(LIST, CUT);
            assert_eq!(next(&mut client, expected.len()), expected);
        }
    }
    // in pieces, and with the next event behind it
    for part in list.as_bytes().chunks(11) {
        feed.push(part);
    }
    feed.push(format!("{progress}data: en"));
    let expected = format!("{}{progress}", list.replace(LIST, CUT));
    assert_eq!(next(&mut client, expected.len()), expected);
    feed.push("d\n\n");
    assert_eq!(next(&mut client, 11), "data: end\n\n");
    drop(feed);
    assert_eq!(client.chunk(), Some(Vec::new()));
    assert_eq!(
        client.ask(get_events("localhost", "/mcp", "")).status,
        200,
        "the connection goes on"
    );
}

#[test]
fn a_replay_is_cut_too() {
    let server = backend(|x| {
        let Some(body) = x.body() else { return };
        if x.request.method == "GET" {
            let last = x.header("last-event-id").unwrap_or_default();
            x.sse(&[("mcp-session-id", "s-1")]);
            x.chunk(format!("id: {last}-1\ndata: {LIST}\n\nid: {last}-2\ndata: {{}}\n\n"));
            return x.wait_closed();
        }
        let headers = [("content-type", "application/json"), ("mcp-session-id", "s-1")];
        let call: Value = serde_json::from_slice(&body).unwrap();
        let result = json!({ "jsonrpc": "2.0", "id": call["id"], "result": {} });
        x.answer("200 OK", &headers, result.to_string().as_bytes());
    });
    let edge = start(&server, "");
    let session = crate::support::mcp::session(&edge.ask(initialize("/mcp")));
    let mut client = edge.client();
    let lines = format!("Mcp-Session-Id: {session}\r\nLast-Event-ID: e7\r\n");
    client.send(get_events("localhost", "/mcp", &lines));
    assert_eq!(client.start().status, 200);
    let expected = format!("id: e7-1\ndata: {CUT}\n\nid: e7-2\ndata: {{}}\n\n");
    assert_eq!(next(&mut client, expected.len()), expected);
}

#[test]
fn the_old_transport_answers_on_its_stream() {
    let (feed, source) = feed();
    let server = backend(move |x| {
        if x.request.method == "GET" {
            x.sse(&[]);
            return x.play(&source);
        }
        if x.body().is_some() {
            x.answer("202 Accepted", &[("content-type", "text/plain")], b"Accepted");
        }
    });
    let edge = start(&server, "");
    let mut stream = edge.client();
    stream.send(get_events("localhost", "/mcp/sse", ""));
    assert_eq!(stream.start().status, 200);
    feed.push("event: endpoint\ndata: /mcp/messages?sessionId=1\n\n");
    let mut endpoint = String::new();
    while !endpoint.ends_with("\n\n") {
        endpoint += &String::from_utf8(stream.chunk().unwrap()).unwrap();
    }
    let place = endpoint.lines().find_map(|line| line.strip_prefix("data: ")).unwrap().to_owned();
    let listed = post("localhost", &place, "", r#"{"jsonrpc":"2.0","id":7,"method":"tools/list"}"#);
    let answer = edge.ask(listed);
    assert_eq!((answer.status, answer.text().as_str()), (202, "Accepted"));
    feed.push(format!("event: message\ndata: {LIST}\n\n"));
    let expected = format!("event: message\ndata: {CUT}\n\n");
    assert_eq!(next(&mut stream, expected.len()), expected);
    let before = server.count();
    let forbidden = edge.ask(post("localhost", &place, "", &super::body("drop")));
    assert_eq!(verdict(&edge, &forbidden), (403, "authz.tool".to_owned()));
    assert_eq!(server.count(), before);
}

#[test]
fn what_cannot_be_read_whole_is_refused() {
    let large = LIST.replace("\"A\"", &format!("\"{}\"", "A".repeat(2000)));
    let server = answering({
        let large = large.clone();
        move |x| {
            let json = ("content-type", "application/json");
            match x.header("x-how").as_deref() {
                Some("large") => x.json(&large),
                Some("large, chunked") => {
                    x.close();
                    x.raw("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n");
                    x.chunk(&large);
                    x.end_chunks();
                }
                Some("large event") => x.answer(
                    "200 OK",
                    &[("content-type", "text/event-stream")],
                    format!("data: {large}\n\n").as_bytes(),
                ),
                Some("gzip") => {
                    x.answer("200 OK", &[json, ("content-encoding", "gzip")], b"\x1f\x8b")
                }
                Some("gzip event") => x.answer(
                    "200 OK",
                    &[("content-type", "text/event-stream"), ("content-encoding", "gzip")],
                    b"\x1f\x8b",
                ),
                Some("part") => x.answer("206 Partial Content", &[json], b"2}"),
                Some("two types") => {
                    x.answer(
                        "200 OK",
                        &[json, ("content-type", "text/event-stream")],
                        LIST.as_bytes(),
                    );
                }
                Some("event stream?") => {
                    let kind = ("content-type", "text/plain, text/event-stream");
                    x.answer("200 OK", &[kind], format!("data: {LIST}\n\n").as_bytes());
                }
                Some("utf-16") => {
                    let wide: Vec<u8> = LIST.encode_utf16().flat_map(u16::to_le_bytes).collect();
                    x.answer("200 OK", &[json], &wide);
                }
                Some("doubled") => {
                    x.json(r#"{"result":{"tools":[]},"result":{"tools":[{"name":"drop"}]}}"#)
                }
                Some("no json") => x.json(&LIST.replace("\"page 2\"", "NaN")),
                Some("broken off") => {
                    x.close();
                    x.raw(format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{LIST}"));
                }
                _ => x.json(LIST),
            }
        }
    });
    let edge = start(&server, "body_limit: 1KiB");
    for (how, code) in [
        ("large", "authz.list_too_large"),
        ("large, chunked", "authz.list_too_large"),
        ("large event", "authz.list_too_large"),
        ("gzip", "authz.list_coded"),
        ("gzip event", "authz.list_coded"),
        ("part", "authz.list_unreadable"),
        ("two types", "authz.list_unreadable"),
        ("event stream?", "authz.list_unreadable"),
        ("utf-16", "authz.list_unreadable"),
        ("doubled", "authz.list_unreadable"),
        ("no json", "authz.list_unreadable"),
        ("broken off", "forward.broke_off"),
    ] {
        let answer = edge.ask(ask_for_list(&format!("X-How: {how}\r\n")));
        assert_eq!(verdict(&edge, &answer), (502, code.to_owned()), "{how}");
        assert_eq!(answer.json()["id"], 7, "{how}");
    }
    assert_eq!(edge.ask(ask_for_list("")).text(), CUT);
}

#[test]
fn a_stream_ends_where_it_cannot_be_read() {
    let (feed, source) = feed();
    let server = backend(move |x| {
        x.sse(&[]);
        while let Some(part) = source.next() {
            if part == b"end" {
                return x.end_chunks();
            }
            x.chunk(part);
        }
    });
    let edge = start(&server, "body_limit: 1KiB");
    let large = format!("data: {}\n\n", "x".repeat(1100));
    for (bad, code) in [
        (large.as_str(), "authz.list_too_large"),
        ("data: {\"tools\": [{\"name\": \"drop\"}\n\n", "authz.list_unreadable"),
    ] {
        let mut client = edge.client();
        client.send(get_events("localhost", "/mcp", ""));
        let start = client.start();
        feed.push("data: good\n\n");
        assert_eq!(next(&mut client, 12), "data: good\n\n");
        feed.push(bad);
        assert_eq!(
            client.chunk(),
            None,
            "{code}: broken off, so that nobody takes it for complete"
        );
        feed.push("end");
        let id = start.header("x-request-id").unwrap();
        let end =
            edge.log("the stream's end", |v| v["event"] == "stream_end" && v["request_id"] == id);
        assert_eq!(end["end"], code, "{end}");
    }
    drop(feed);
}

#[test]
fn servers_are_asked_for_plain_answers_and_whole_ones() {
    let server = answering(|x| x.json(LIST));
    let open = "path: /open, upstream: one, auth: [ anonymous ]";
    let edge = guarded(&server, "anonymous", RULES).raw_route(open).start();
    let lines = "Accept-Encoding: gzip, br\r\nRange: bytes=9-\r\nIf-Range: \"x\"\r\n";
    for accept in ["application/json", "application/json, text/event-stream"] {
        let request = ask_for_list(lines).replace("application/json, text/event-stream", accept);
        edge.ask(&request);
        let seen = server.last();
        assert_eq!(seen.all("accept-encoding"), ["identity"]);
        assert_eq!((seen.header("range"), seen.header("if-range")), (None, None));
        let free = edge.ask(request.replacen("/mcp", "/open", 1));
        assert_eq!(free.text(), LIST);
        assert_eq!(server.last().header("range").as_deref(), Some("bytes=9-"));
    }
    let free = ask_for_list(lines).replace(", text/event-stream", "").replacen("/mcp", "/open", 1);
    edge.ask(free);
    assert_eq!(server.last().all("accept-encoding"), ["gzip, br"]);
}

#[test]
fn heads_say_nothing_of_the_list_that_is_not_shown() {
    let server = backend(|x| {
        let kind = x.header("x-kind").unwrap_or_default();
        let length = LIST.len();
        x.raw(format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\netag: \"of-all\"\r\ncontent-length: {length}\r\n\r\n"
        ));
    });
    let edge = start(&server, "");
    for (kind, told) in
        [("application/json", false), ("text/event-stream", false), ("image/png", true)]
    {
        let head = format!("HEAD /mcp HTTP/1.1\r\nHost: localhost\r\nX-Kind: {kind}\r\n\r\n");
        let answer = edge.ask(head);
        assert_eq!(answer.status, 200);
        assert_eq!(
            (answer.count("content-length"), answer.count("etag")),
            (told.into(), told.into()),
            "{kind}"
        );
    }
}

#[test]
fn other_answers_pass_unread() {
    let picture: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let result = format!("{{\"result\":{{\"content\":\"{}\"}}}}", "\\u00e9".repeat(1000));
    let server = backend({
        let (picture, result) = (picture.clone(), result.clone());
        move |x| {
            if x.request.method == "GET" {
                return x.answer(
                    "200 OK",
                    &[("content-type", "image/png"), ("content-encoding", "x")],
                    &picture,
                );
            }
            if x.body().is_some() {
                x.json(&result);
            }
        }
    });
    let edge = start(&server, "body_limit: 16KiB");
    let get = "GET /mcp/logo HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(edge.ask(get).body, picture, "larger than any list, and coded");
    assert_eq!(edge.ask(call("get_a", "")).text(), result);
}

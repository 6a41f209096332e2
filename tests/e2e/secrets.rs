//! In: marked secrets in every field that clients, servers and the config have; out: that none of them is in
//! anything that the edge tells.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::support::backend::{Exchange, backend};
use crate::support::client::{Client, get, get_events, post};
use crate::support::edge::{Edge, edge};
use crate::support::wait::eventually;

/// The mark: nothing else may be called so.
const MARK: &str = "SECRET";

/// A server that is as careless as one can be: secrets in every field, in sessions and in errors.
fn careless(x: &mut Exchange) {
    let Some(body) = x.body() else { return };
    let body = String::from_utf8_lossy(&body).into_owned();
    let fields = [
        ("Mcp-Session-Id", "SECRET-inner-session"),
        ("Set-Cookie", "a=SECRET-cookie"),
        ("Server", "SECRET-server"),
        ("X-Upstream", "SECRET-field"),
        ("Location", "http://h/SECRET-location?SECRET"),
    ];
    if x.request.method == "GET" && x.header("accept").is_some_and(|kind| kind.contains("event")) {
        x.sse(&fields);
        x.chunk("event: SECRET-event\nid: SECRET-event-id\ndata: SECRET-data\n\n");
        return x.end_chunks();
    }
    if body.contains("break") {
        x.raw("HTTP/1.1 200 SECRET-reason\r\nSECRET-head\r\n\r\nSECRET");
        return x.close();
    }
    let error = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"SECRET-message","data":"SECRET"}}"#;
    let (status, body) = match body.contains("fail") {
        true => ("500 SECRET-reason", error),
        false => ("200 OK", r#"{"jsonrpc":"2.0","id":1,"result":{"text":"SECRET-result"}}"#),
    };
    let mut all = vec![("content-type", "application/json")];
    all.extend(fields);
    x.answer(status, &all, body.as_bytes());
}

/// Header lines with a secret in each.
fn fields() -> String {
    [
        "Cookie: a=SECRET-cookie",
        "X-Api-Key: SECRET-key",
        "X-Whatever: SECRET-field",
        "User-Agent: SECRET-agent",
        "Referer: http://h/SECRET?SECRET",
        "Proxy-Authorization: Basic SECRET",
        "Tracestate: secret=SECRET-state",
        "Traceparent: SECRET",
        "Baggage: a=SECRET-baggage",
        "Last-Event-Id: SECRET-event-id",
        "X-Forwarded-User: SECRET-user",
        "X-Request-Id: SECRET-id",
        "Mcp-Param-Token: SECRET-param",
    ]
    .map(|line| format!("{line}\r\n"))
    .concat()
}

fn basic(user: &str, password: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{user}:{password}")))
}

fn call(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":"SECRET-rpc-id","method":"{method}","params":{{{params}}}}}"#)
}

/// Sends every kind of request with secrets wherever they fit; how many.
fn speak(edge: &Edge, password: &str, key: &str) -> usize {
    let arguments = r#""arguments":{"password":"SECRET","api_key":"SECRET","user":{"access_token":["SECRET"]},"shown":"x"}"#;
    let meta = r#""_meta":{"traceparent":"SECRET","tracestate":"a=SECRET","SECRET":"SECRET","progressToken":"SECRET"}"#;
    let bodies = [
        call("tools/call", &format!(r#""name":"add",{arguments},{meta}"#)),
        call("tools/call", &format!(r#""name":"fail",{arguments}"#)),
        call("tools/call", &format!(r#""name":"break",{arguments}"#)),
        call("tools/call", &format!(r#""name":"add","Name":"SECRET",{arguments}"#)),
        call("prompts/get", &format!(r#""name":"p",{arguments}"#)),
        call("resources/read", r#""uri":"https://u:SECRET@h/a?token=SECRET#SECRET""#),
        call("tasks/get", r#""taskId":"SECRET-task""#),
        call("initialize", r#""clientInfo":{"name":"SECRET","version":"SECRET"}"#),
        r#"{"jsonrpc":"2.0","id":1,"result":{"text":"SECRET"}}"#.to_owned(),
        r#"{"SECRET": SECRET"#.to_owned(),
        format!("[{}]", call("tools/call", arguments)),
        "SECRET".to_owned(),
    ];
    let logins = [
        basic("ann", password),
        basic("ann", "SECRET-wrong"),
        format!("X-Own-Key: {key}\r\n"),
        "X-Own-Key: mcpk_SECRETSECRETSECRET\r\n".to_owned(),
        "Authorization: Bearer SECRET.SECRET.SECRET\r\n".to_owned(),
        String::new(),
    ];
    let mut count = 0;
    for path in ["/open?q=SECRET-query", "/basic?SECRET", "/token?token=SECRET", "/nowhere?SECRET"]
    {
        for login in &logins {
            for body in &bodies {
                let extra = format!("{login}{}", fields());
                edge.ask(post("localhost", path, &extra, body));
                count += 1;
            }
        }
    }
    for request in [
        get_events(
            "localhost",
            "/open?SECRET",
            &format!("{}Mcp-Session-Id: e1.SECRET\r\n", fields()),
        ),
        get_events("localhost", "/open?mcp-edge=SECRET", &fields()),
        get_events("localhost", "/open?SECRET", &fields()),
        get("SECRET.example.net", "/open"),
        get("localhost", "/open\r\nSECRET"),
        format!("GET /open HTTP/1.1\r\nHost: localhost\r\nOrigin: https://u:{MARK}@h\r\n\r\n"),
        "POST /open HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: SECRET\r\n\r\nSECRET"
            .to_owned(),
        "SECRET /open HTTP/9.9\r\n\r\n".to_owned(),
        "GET /open HTTP/1.1\r\nHost: localhost\r\nContent-Length: SECRET\r\n\r\n".to_owned(),
    ] {
        let mut client = edge.client();
        client.send(request);
        if client.try_response().is_some() {
            count += 1;
        }
    }
    count
}

#[test]
fn nothing_that_is_told_holds_a_secret() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let users = file("users", "ann:{SHA}NMfTLf4kql4x98PMVl16orqGin0=\n");
    let (password, key) = ("pass:wörd", "mcpk_auiCNaxPi6whJCWfyngk3NTK0krD5A1zzFqWLBmCLd3hW2");
    let (session, shared) =
        ("SECRET session key, which is long enough", "SECRET that is shared with an issuer");
    let (keys, key_file) = (file("keys", session), file("key", key));
    let (shared, token) = (file("shared", shared), file("token", "SECRET-upstream-token"));
    let audit = dir.path().join("audit.log");
    let collector = backend(|x| {
        if x.body().is_some() {
            x.answer("200 OK", &[("X-Collector", MARK)], b"");
        }
    });
    let server = backend(careless);
    let edge = edge()
        .top("admin: { address: \"127.0.0.1:0\" }")
        .top(&format!("sessions: {{ keys: [ \"${{file:{keys}}}\" ] }}"))
        .top(&format!("audit: {{ to: \"{}\", arguments: all }}", audit.display()))
        .top(&format!(
            "traces: {{ endpoint: \"{}\", trust: anybody, headers: {{ X-Key: SECRET-collector }} }}",
            collector.url()
        ))
        .upstream("one", &[server.url()], &format!("credentials: {{ bearer: \"${{file:{token}}}\" }}"))
        .route("upstream: one, path: /open")
        .raw_route(&format!(
            "upstream: one, path: /basic, auth: [ basic: {{ file: \"{users}\", failures: 10000/m }}, \
             api_key: {{ header: X-Own-Key, keys: [ {{ name: a, value: \"${{file:{key_file}}}\" }} ] }} ]"
        ))
        .raw_route(&format!(
            "upstream: one, path: /token, auth: [ oauth: {{ resource: \"http://localhost:1/token\", \
             issuers: [ {{ issuer: internal, \
             secret: \"${{file:{shared}}}\", waive: [ iss, aud, exp ] }} ] }} ]"
        ))
        .start();
    let count = speak(&edge, password, key);
    eventually("all requests are in the access log", || {
        edge.stdout().iter().filter(|line| line.contains("\"event\":\"request\"")).count()
            >= count - 5
    });
    let pages = ["/metrics", "/status", "/", "/healthz", "/readyz"]
        .map(|page| Client::plain(edge.admin()).ask(get("localhost", page)).text());
    edge.signal("HUP");
    edge.wait_line("SIGHUP was taken");
    let (stdout, stderr) = stop(edge);
    let told = fs::read_to_string(&audit).unwrap();
    let spans: Vec<u8> = collector.requests().into_iter().flat_map(|seen| seen.body).collect();
    let spans = String::from_utf8_lossy(&spans).into_owned();

    // all of them have something to tell
    assert!(told.matches("\"tool\":\"add\"").count() > 2, "{told}");
    assert!(told.contains("\"shown\":\"x\"") && told.contains("\"password\":\"***\""), "{told}");
    assert!(spans.matches("tools/call").count() > 2 && stdout.contains("\"principal\":\"ann\""));
    let encoded = STANDARD.encode(format!("ann:{password}"));
    let wrong = STANDARD.encode("ann:SECRET-wrong");
    let coded = STANDARD.encode("SECRET");
    for (place, text) in
        [("stdout", &stdout), ("stderr", &stderr), ("audit log", &told), ("spans", &spans)]
            .into_iter()
            .chain(pages.iter().map(|page| ("a page", page)))
    {
        for secret in [MARK, password, key, &encoded, &wrong, &coded] {
            if let Some(at) = text.find(secret) {
                let around: String = text[..at]
                    .chars()
                    .rev()
                    .take(300)
                    .collect::<Vec<_>>()
                    .into_iter()
                    .rev()
                    .collect();
                panic!("{secret} in {place}, behind {around}");
            }
        }
    }
}

/// Ends it; all that it has said on both outputs.
fn stop(mut edge: Edge) -> (String, String) {
    edge.signal("TERM");
    assert_eq!(edge.exit().code(), Some(0));
    (edge.stdout().join("\n"), edge.stderr().join("\n"))
}

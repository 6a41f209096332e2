//! In: marked secrets in every field that clients, servers and the config have; out: that none of them is in
//! anything that the edge tells.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::support::backend::{Exchange, SWITCHING, backend};
use crate::support::certs::Certs;
use crate::support::client::{Client, get, get_events, post};
use crate::support::edge::{Edge, binary, edge};
use crate::support::h2::{H2, request};
use crate::support::provider::{CLIENT, Mood, provider};
use crate::support::signer::encoded;
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

/// Sends every kind of request with secrets wherever they fit; how many, and the session ids that were given out.
fn speak(edge: &Edge, password: &str, key: &str) -> (usize, BTreeSet<String>) {
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
        // who types the password where the name belongs
        basic("SECRET-name", "x"),
        "Authorization: Digest username=\"SECRET\", response=\"SECRET\"\r\n".to_owned(),
        format!("X-Own-Key: {key}\r\n"),
        "X-Own-Key: mcpk_SECRETSECRETSECRET\r\n".to_owned(),
        "Authorization: Bearer SECRET.SECRET.SECRET\r\n".to_owned(),
        String::new(),
    ];
    let (mut count, mut sessions) = (0, BTreeSet::new());
    for path in ["/open?q=SECRET-query", "/basic?SECRET", "/token?token=SECRET", "/nowhere?SECRET"]
    {
        for login in &logins {
            for body in &bodies {
                let extra = format!("{login}{}", fields());
                let answer = edge.ask(post("localhost", path, &extra, body));
                sessions.extend(answer.header("mcp-session-id").map(str::to_owned));
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
        "POST /open HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n2;x=SECRET-extension\r\n{}\r\n0\r\nX-Trailer: SECRET-trailer\r\n\r\n"
            .to_owned(),
        format!(
            "GET /open HTTP/1.1\r\nHost: localhost\r\nTraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\
             Tracestate: vendor={MARK}-state\r\nForwarded: for=\"_{MARK}\"\r\nX-Forwarded-For: {MARK}\r\n\r\n"
        ),
    ] {
        let mut client = edge.client();
        client.send(request);
        if client.try_response().is_some() {
            count += 1;
        }
    }
    (count, sessions)
}

/// None of these, nor the mark, may stand in any of these places.
fn holds_none<'a>(places: impl IntoIterator<Item = (&'a str, &'a String)>, secrets: &[&str]) {
    for (place, text) in places {
        for secret in secrets.iter().chain([&MARK]) {
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
    let (count, sessions) = speak(&edge, password, key);
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
    assert!(!sessions.is_empty(), "sessions have begun");
    let mut secrets = vec![password, key, &encoded, &wrong, &coded];
    secrets.extend(sessions.iter().map(String::as_str));
    let logs = [("stdout", &stdout), ("stderr", &stderr), ("audit log", &told), ("spans", &spans)];
    holds_none(logs.into_iter().chain(pages.iter().map(|page| ("a page", page))), &secrets);
}

/// Ends it; all that it has said on both outputs.
fn stop(mut edge: Edge) -> (String, String) {
    edge.signal("TERM");
    assert_eq!(edge.exit().code(), Some(0));
    (edge.stdout().join("\n"), edge.stderr().join("\n"))
}

/// What a command says on both outputs.
fn said(args: &[&str]) -> String {
    let out = Command::new(binary()).args(args).output().unwrap();
    String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
}

/// The rest: TLS, HTTP/2, WebSockets, a provider and a collector that answer with secrets, checks, files that break,
/// and the commands; with everything that logs can be asked for.
#[test]
fn nothing_that_is_told_on_request_holds_a_secret() {
    let certs = Certs::new();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let provider = provider(&[]);
    provider.set_token("SECRET-good", json!({ "active": true, "aud": "https://a.example/x", "sub": "ann", "exp": 4_000_000_000_u64, "SECRET": "SECRET" }));
    let users = file("users", "ann:{SHA}NMfTLf4kql4x98PMVl16orqGin0=\n");
    let client_secret = file("client-secret", CLIENT.1);
    let password = file("password", "SECRET-upstream-password");
    let header = file("header", "SECRET-upstream-header");
    let keys = file("keys", "SECRET session key, which is long enough");
    // answers as careless as can be to whatever is asked
    let server = backend(|x| match x.header("upgrade").is_some() {
        true => {
            x.raw(SWITCHING.replacen("Upgrade:", "X-A: SECRET\r\nUpgrade:", 1));
            x.echo();
        }
        false => careless(x),
    });
    let refusing = backend(|x| {
        if x.body().is_some() {
            x.answer("500 SECRET", &[("Retry-After", MARK), ("Location", "/SECRET")], b"SECRET");
        }
    });
    let tls = certs.listener();
    let url = refusing.url();
    let config = |broken: &str| {
        edge()
            .top("admin: { address: \"127.0.0.1:0\" }")
            .top(&format!("sessions: {{ keys: [ \"${{file:{keys}}}\" ] }}"))
            .top(&format!("traces: {{ endpoint: \"{url}\", trust: anybody, headers: {{ X-Key: \"${{file:{header}}}\" }} }}"))
            .top("trusted_proxies: [ 127.0.0.1 ]")
            .listener("")
            .listener(&format!("{}, unknown_names: refuse }}", tls.trim_end_matches(" }")))
            .upstream("one", &[server.url()], &format!(
                "credentials: {{ basic: {{ user: edge, password: \"${{file:{password}}}\" }} }}, health: {{ mcp: {{ path: /mcp, tools: [ add ] }}, every: 50ms }}"
            ))
            .upstream("two", &[refusing.url()], &format!(
                "credentials: {{ header: {{ name: X-Key, value: \"${{file:{header}}}\" }} }}, health: {{ http: {{ path: /well, body: x }}, every: 50ms }}"
            ))
            .route("upstream: one, path: /open")
            .route("upstream: two, path: /broken")
            .raw_route(&format!("upstream: one, path: /user, auth: [ basic: {{ file: \"{users}\", failures: 10000/m }} ]"))
            .raw_route(&format!(
                "upstream: one, path: /token, auth: [ oauth: {{ resource: \"https://a.example/x\", issuers: [ {{ issuer: \"{iss}\", allow_http: true, \
                 introspection: {{ url: \"{iss}/introspect\", client_id: \"{id}\", client_secret: \"${{file:{client_secret}}}\", cache: off, negative_cache: off }} }} ] }} ]{broken}",
                iss = provider.issuer(),
                id = CLIENT.0
            ))
    };
    let mut edge = config("").start_with(|command| {
        // at its `trace`, rustls tells what goes over the wire in the clear, names included
        command.env("RUST_LOG", "trace,rustls=debug");
    });
    let ask = |path: &str, lines: &str| {
        edge.ask(post(
            "localhost",
            path,
            &format!("{lines}{}", fields()),
            &call("tools/call", r#""name":"add","arguments":{"a":"SECRET"}"#),
        ))
    };
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    assert_eq!(ask("/token?SECRET", &bearer("SECRET-good")).status, 200);
    let jwt = format!(
        "{}.{}.SECRET",
        encoded(r#"{"alg":"ES512","kid":"SECRET"}"#),
        encoded(r#"{"sub":"SECRET"}"#)
    );
    for mood in [
        Mood::Says("500 SECRET", MARK.to_owned()),
        Mood::Says(
            "401 SECRET",
            r#"{"error":"invalid_client","error_description":"SECRET"}"#.to_owned(),
        ),
        Mood::Says("400 SECRET", r#"{"error":"SECRET","error_description":"SECRET"}"#.to_owned()),
        Mood::Says("200 OK", r#"{"active":"SECRET"}"#.to_owned()),
        Mood::Says("200 OK", r#"{"active":true,"aud":"SECRET","sub":["SECRET"]}"#.to_owned()),
        Mood::Says("200 OK", MARK.to_owned()),
        Mood::HangsUp,
    ] {
        provider.set_mood(mood);
        for token in ["SECRET-good", "SECRET-other", "SECRET.SECRET.SECRET", &jwt, "SECRET SECRET"]
        {
            ask("/token?access=SECRET", &bearer(token));
        }
        // what is said of an outage is said when it begins
        provider.set_mood(Mood::Well);
        assert_eq!(ask("/token", &bearer("SECRET-good")).status, 200);
    }
    for path in ["/open?SECRET", "/broken?SECRET", "/user?SECRET"] {
        for login in [
            basic("SECRET-name", "SECRET"),
            bearer("SECRET"),
            "X-Forwarded-For: SECRET\r\n".to_owned(),
        ] {
            ask(path, &login);
        }
    }
    // HTTP/2, and names of TLS
    let mut h2 = H2::connect(edge.listener(1), certs.client(&["h2"]));
    let secret = [
        ("authorization", "Bearer SECRET"),
        ("cookie", "a=SECRET"),
        ("x-a", "SECRET"),
        ("tracestate", "a=SECRET"),
    ];
    for (method, path, body) in [
        ("GET", "/open?SECRET", ""),
        ("POST", "/token?SECRET", "SECRET"),
        ("POST", "/user", "{\"SECRET\":1}"),
    ] {
        drop(h2.ask(request(method, path, &secret), body.as_bytes()));
    }
    let mut stranger = Client::tls(edge.listener(1), certs.client(&[]), "secret-SECRET.example");
    stranger.send(get("localhost", "/open"));
    stranger.end();
    // a WebSocket
    let mut socket = edge.client();
    socket.send(format!(
        "GET /open?SECRET HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: SECRET\r\n{}\r\n",
        fields()
    ));
    assert_eq!(socket.start().status, 101);
    socket.send("SECRET-frame");
    assert_eq!(socket.exact(12), b"SECRET-frame");
    drop(socket);
    // files that break
    fs::write(
        &users,
        "SECRET line without what belongs there\nann:SECRET-hash\nSECRET:$2y$99$SECRET\n",
    )
    .unwrap();
    ask("/user", &basic("ann", "SECRET"));
    edge.wait_line("line 1 is not of the form");
    edge.wait_line("is down: ");
    eventually("both have been looked at", || {
        edge.stderr().iter().filter(|line| line.contains(" is down: ")).count() >= 2
    });
    // commands
    let config_file = edge.config().display().to_string();
    let outputs = Mutex::new(Vec::new());
    let command = |args: &[&str]| {
        let text = said(args);
        assert!(!text.is_empty(), "{args:?}");
        outputs.lock().unwrap().push((args[0].to_owned(), text));
    };
    command(&["status", "--config", &config_file]);
    command(&["status", "--config", &config_file, "--json"]);
    command(&["health", &format!("http://{}/readyz", edge.admin())]);
    command(&["check", "--config", &config_file]);
    fs::write(&users, "ann:{SHA}NMfTLf4kql4x98PMVl16orqGin0=\n").unwrap();
    for login in [
        "Authorization: Bearer SECRET",
        "Authorization: Basic U0VDUkVUOlNFQ1JFVA==",
        "Mcp-Session-Id: SECRET",
        "SECRET",
        "X-A: SECRET\u{7f}",
    ] {
        for path in ["/open", "/user", "/token", "/nowhere"] {
            let url = format!("http://localhost{path}");
            command(&["explain", "GET", &url, "--config", &config_file, "-H", login]);
        }
    }
    let explained = |text: &&(String, String)| text.1.contains("\nanswer ");
    assert!(outputs.lock().unwrap().iter().filter(explained).count() >= 8, "they are explained");
    let reload = |broken: &str| {
        let done = edge.reload(&config(broken));
        let text = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
        assert_eq!(done.status.success(), broken.is_empty(), "{text}");
        assert!(broken.is_empty() || text.contains("${file:"), "its place is named: {text}");
        outputs.lock().unwrap().push(("reload".to_owned(), text));
        command(&["check", "--config", &config_file]);
    };
    // what was put in stands where it does not belong
    for broken in [
        format!(", body_limit: \"${{file:{password}}}\""),
        format!(", limits: [ {{ key: \"${{file:{header}}}\" }} ]"),
        format!(", host: \"${{file:{keys}}}\""),
        format!(" }}\n  - {{ path: /x, auth: [ anonymous ], upstream: \"${{file:{password}}}\""),
        format!(", identity: {{ \"${{file:{password}}}\": subject }}"),
        format!(", deny: [ {{ file: \"${{file:{password}}}\" }} ]"),
    ] {
        reload(&broken);
    }
    reload("");
    let pages = ["/metrics", "/status", "/", "/readyz"]
        .map(|page| Client::plain(edge.admin()).ask(get("localhost", page)).text());
    edge.signal("TERM");
    assert_eq!(edge.exit().code(), Some(0));
    let (stdout, stderr) = (edge.stdout().join("\n"), edge.stderr().join("\n"));
    assert!(stderr.contains("TRACE") || stderr.contains("DEBUG"), "everything was asked for");

    let form = "s%3A3cr%2Bet%2F%C3%A4";
    let coded = [
        STANDARD.encode(format!("edge+app:{form}")),
        STANDARD.encode(MARK),
        STANDARD.encode("edge:SECRET-upstream-password"),
    ];
    let mut secrets = vec![CLIENT.1, form];
    secrets.extend(coded.iter().map(String::as_str));
    let outputs = outputs.into_inner().unwrap();
    let commands = outputs.iter().map(|(name, text)| (name.as_str(), text));
    let logs = [("stdout", &stdout), ("stderr", &stderr)];
    holds_none(
        logs.into_iter().chain(commands).chain(pages.iter().map(|page| ("a page", page))),
        &secrets,
    );
}

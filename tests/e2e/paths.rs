//! In: hosts, targets and origins; out: which backend got exactly which target, or why nobody did.

use crate::support::backend::{Backend, plain};
use crate::support::certs::Certs;
use crate::support::client::{Client, get};
use crate::support::edge::{Edge, edge};
use crate::support::h2::{H2, request};
use crate::support::mcp::{by, call, initialize, replica, session};

/// Four routes that differ in nothing but their backend, so that a crossing shows.
struct World {
    edge: Edge,
    backends: Vec<(&'static str, Backend)>,
}

impl World {
    fn new() -> Self {
        let names = ["root", "a", "exact", "admin", "aws", "hosted", "rewritten", "torootpath"];
        let backends: Vec<_> = names.map(|n| (n, plain())).into();
        let mut config = edge();
        for (name, backend) in &backends {
            config = config.upstream(name, &[backend.url()], "");
        }
        let edge = config
            .route("path: /, upstream: root")
            .route("path: /a, upstream: a")
            .route("path: { exact: /a/b }, upstream: exact")
            .route("path: /admin, upstream: admin")
            .route("path: /aws, upstream: aws")
            .route("host: mcp.example.com, path: /, upstream: hosted")
            .route("path: /re, upstream: rewritten, rewrite: /mcp")
            .route("path: /strip, upstream: torootpath, rewrite: /")
            .start();
        Self { edge, backends }
    }

    /// Sends one request; who got it and with which target, or the status of the refusal.
    fn ask(&self, host: &str, target: &str) -> Result<(&'static str, String), u16> {
        let before: Vec<_> = self.backends.iter().map(|(_, b)| b.count()).collect();
        let answer = self.edge.ask(get(host, target));
        let mut got: Vec<_> = self
            .backends
            .iter()
            .zip(before)
            .flat_map(|((name, b), n)| b.requests().into_iter().skip(n).map(|r| (*name, r.target)))
            .collect();
        match (answer.status, got.pop()) {
            (200, Some(one)) => {
                assert!(got.is_empty(), "{target} reached two backends");
                Ok(one)
            }
            (status, None) => {
                answer.assert_refused(status);
                Err(status)
            }
            (status, Some(one)) => panic!("{target} got {status}, and yet {one:?} was asked"),
        }
    }
}

#[test]
fn each_target_reaches_the_one_route_that_its_path_names() {
    let world = World::new();
    // target as sent, backend, target as received
    let table = [
        ("/", "root", "/"),
        ("/x", "root", "/x"),
        ("/?q=1", "root", "/?q=1"),
        ("/x?a=/admin", "root", "/x?a=/admin"),
        // The query is not a path: nothing in it is refused or changed.
        ("/x?a=../b&c=%2f%2e%2e//&d=%00", "root", "/x?a=../b&c=%2f%2e%2e//&d=%00"),
        ("/x?", "root", "/x?"),
        ("/x??b", "root", "/x??b"),
        ("/a", "a", "/a"),
        ("/a/", "a", "/a/"),
        ("/a/c", "a", "/a/c"),
        ("/a?b", "a", "/a?b"),
        ("/a/b", "exact", "/a/b"),
        ("/a/b?x=y", "exact", "/a/b?x=y"),
        ("/a/b/", "a", "/a/b/"),
        ("/a/b/c", "a", "/a/b/c"),
        ("/a/bc", "a", "/a/bc"),
        ("/ab", "root", "/ab"),
        ("/admin", "admin", "/admin"),
        ("/admin/", "admin", "/admin/"),
        ("/admin/x/y", "admin", "/admin/x/y"),
        ("/administrator", "root", "/administrator"),
        ("/admin.", "root", "/admin."),
        ("/aws", "aws", "/aws"),
        ("/aws/x", "aws", "/aws/x"),
        ("/aws-pricing", "root", "/aws-pricing"),
        ("/aws-pricing/mcp", "root", "/aws-pricing/mcp"),
        ("/x/admin", "root", "/x/admin"),
        // Paths are case-sensitive (RFC 3986 §6.2.2.1).
        ("/Admin", "root", "/Admin"),
        // Harmless escapes go through as they were sent.
        ("/a/x%20y", "a", "/a/x%20y"),
        ("/a/%C3%A4", "a", "/a/%C3%A4"),
        ("/a/%c3%a4", "a", "/a/%c3%a4"),
        ("/a/x%3Fy", "a", "/a/x%3Fy"),
        ("/a/...", "a", "/a/..."),
        ("/a/.well-known", "a", "/a/.well-known"),
        ("/a/b..c", "a", "/a/b..c"),
        ("/a/x;v=1", "a", "/a/x;v=1"),
        ("/a/x:y@z!$&'()*+,=~_-.", "a", "/a/x:y@z!$&'()*+,=~_-."),
        ("/re", "rewritten", "/mcp"),
        ("/re/", "rewritten", "/mcp/"),
        ("/re?x=%2F&y", "rewritten", "/mcp?x=%2F&y"),
        ("/re/messages/?s=1", "rewritten", "/mcp/messages/?s=1"),
        ("/re/a%20b", "rewritten", "/mcp/a%20b"),
        ("/rex", "root", "/rex"),
        ("/strip", "torootpath", "/"),
        ("/strip/", "torootpath", "/"),
        ("/strip/x/y?z", "torootpath", "/x/y?z"),
        ("/strip?z", "torootpath", "/?z"),
    ];
    for (target, backend, received) in table {
        assert_eq!(world.ask("localhost", target), Ok((backend, received.to_owned())), "{target}");
    }
}

#[test]
fn no_spelling_of_a_path_crosses_from_one_route_into_another() {
    let world = World::new();
    // Each is read as `/admin` or `/a/b` by some server; none may arrive at a backend of another route.
    let refused = [
        "/x/../admin",
        "/./admin",
        "//admin",
        "/a/../admin",
        "/a/..//admin",
        "/x/%2e%2e/admin",
        "/x/%2E%2E/admin",
        "/x/.%2e/admin",
        "/%2e/admin",
        "/x%2f..%2fadmin",
        "/x/..%2fadmin",
        "/x\\..\\admin",
        "/x/..\\admin",
        "/x%5c..%5cadmin",
        "/admin%00",
        "/a%2fb",
        "/a//b",
        "/a/./b",
        "/a/x/../b",
        "/a/%2e/b",
        "/admin/..",
        "/admin/.",
        "/..;/admin",
        "/x/..;a=b/admin",
        "/%zz/admin",
        "/admin%",
        "/%2fadmin",
        "/admin%2f",
        "/admin%2Fx",
        "/re/../admin",
        "/strip/../admin",
        "/strip//admin",
        "/re/%2e%2e/admin",
    ];
    for target in refused {
        assert_eq!(world.ask("localhost", target), Err(400), "{target}");
    }
}

#[test]
fn an_escaped_unreserved_letter_never_reaches_the_route_it_hides() {
    let world = World::new();
    // RFC 3986 §6.2.2.2: `%61dmin` names the same resource as `admin`. A backend that decodes would serve
    // /admin for it, so either it is refused, or it is routed as what it means.
    for target in ["/%61dmin", "/adm%69n", "/%41", "/a/%62"] {
        match world.ask("localhost", target) {
            Err(400) => {}
            Ok((name, received)) => {
                let meant = match target {
                    "/%61dmin" | "/adm%69n" => "admin",
                    "/a/%62" => "exact",
                    _ => "root",
                };
                assert_eq!(name, meant, "{target} arrived as {received}");
            }
            other => panic!("{target}: {other:?}"),
        }
    }
}

#[test]
fn a_host_beats_no_host_and_is_compared_as_a_name() {
    let world = World::new();
    for host in [
        "mcp.example.com",
        "MCP.Example.COM",
        "mcp.example.com:443",
        "mcp.example.com:8080",
        "mcp.example.com.",
    ] {
        for path in ["/", "/a", "/admin"] {
            assert_eq!(world.ask(host, path), Ok(("hosted", path.to_owned())), "{host}{path}");
        }
    }
}

#[test]
fn absolute_form_is_routed_like_the_origin_form() {
    // RFC 9112 §3.2.2: a server MUST accept it; the backend gets the origin form.
    let world = World::new();
    assert_eq!(world.ask("localhost", "http://localhost/a/c?d"), Ok(("a", "/a/c?d".to_owned())));
    assert_eq!(world.ask("localhost", "http://LOCALHOST/a"), Ok(("a", "/a".to_owned())));
    assert_eq!(world.ask("localhost", "http://localhost"), Ok(("root", "/".to_owned())));
    assert_eq!(world.ask("localhost", "http://localhost?x"), Ok(("root", "/?x".to_owned())));
    assert_eq!(
        world.ask("mcp.example.com", "http://mcp.example.com/a"),
        Ok(("hosted", "/a".to_owned()))
    );
    for target in
        ["http://mcp.example.com/a", "http://localhost.evil.net/a", "http://localhost/x/../admin"]
    {
        assert!(world.ask("localhost", target).is_err(), "{target}");
    }
}

#[test]
fn a_loopback_route_without_host_takes_only_localhost_names() {
    let world = World::new();
    let port = world.edge.address().port();
    let local = ["localhost", "LocalHost", "127.0.0.1", "[::1]"];
    for host in local {
        for host in [host.to_owned(), format!("{host}:{port}")] {
            assert_eq!(world.ask(&host, "/a"), Ok(("a", "/a".to_owned())), "{host}");
        }
    }
    // DNS rebinding: the browser sends the attacker's name.
    for host in [
        "evil.example.net",
        "localhost.evil.net",
        "127.0.0.1.nip.io",
        "10.0.0.1",
        "[::2]",
        "notlocalhost",
        "0.0.0.0",
    ] {
        assert_eq!(world.ask(host, "/a"), Err(421), "{host}");
    }
}

#[test]
fn an_unknown_path_is_404() {
    let backend = plain();
    let edge = edge().upstream("a", &[backend.url()], "").route("path: /a, upstream: a").start();
    for target in ["/", "/b", "/A", "/ab"] {
        edge.get(target).assert_refused(404);
    }
    assert_eq!(backend.count(), 0);
}

fn with_origin(host: &str, path: &str, origin: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n\r\n")
}

#[test]
fn a_present_origin_must_be_the_public_url_or_listed() {
    let backend = plain();
    let edge = edge()
        .upstream("one", &[backend.url()], "")
        .route(
            "host: mcp.example.com, path: /mcp, public_url: \"https://mcp.example.com/mcp\", upstream: one, \
             origins: [ \"https://app.example.com\", \"http://dev.example.com:3000\" ]",
        )
        .start();
    let ask = |origin: &str| edge.ask(with_origin("mcp.example.com", "/mcp", origin));
    for good in
        ["https://mcp.example.com", "https://app.example.com", "http://dev.example.com:3000"]
    {
        assert_eq!(ask(good).status, 200, "{good}");
    }
    let served = backend.count();
    for bad in [
        "null",
        "",
        "https://evil.example.net",
        "http://mcp.example.com",
        "https://mcp.example.com:8443",
        "https://mcp.example.com.evil.net",
        "https://evilmcp.example.com",
        "http://dev.example.com",
        "http://dev.example.com:30000",
        "http://localhost",
        "https://app.example.com, https://evil.example.net",
        "https://app.example.com https://evil.example.net",
        "https://app.example.com/",
        "file://",
    ] {
        ask(bad).assert_refused(403);
    }
    let two = "GET /mcp HTTP/1.1\r\nHost: mcp.example.com\r\nOrigin: https://app.example.com\r\nOrigin: https://evil.example.net\r\n\r\n";
    let answer = edge.ask(two);
    assert!([400, 403].contains(&answer.status), "{}", answer.status);
    assert_eq!(backend.count(), served, "nothing of a refused request reaches the backend");
    assert_eq!(edge.ask(get("mcp.example.com", "/mcp")).status, 200, "no Origin, no check");
}

#[test]
fn a_loopback_route_without_host_takes_only_localhost_origins() {
    let backend = plain();
    let edge = edge().to(&backend).start();
    let port = edge.address().port();
    let host = format!("localhost:{port}");
    for good in [
        format!("http://localhost:{port}"),
        format!("http://127.0.0.1:{port}"),
        "http://localhost:5173".to_owned(),
        "http://localhost".to_owned(),
        "http://[::1]:6274".to_owned(),
    ] {
        assert_eq!(edge.ask(with_origin(&host, "/", &good)).status, 200, "{good}");
    }
    let served = backend.count();
    for bad in [
        "null",
        "https://evil.example.net",
        "http://localhost.evil.net",
        "http://127.0.0.1.nip.io",
        "http://10.0.0.1",
    ] {
        edge.ask(with_origin(&host, "/", bad)).assert_refused(403);
    }
    assert_eq!(backend.count(), served);
}

#[test]
fn the_health_path_answers_any_host_and_asks_nobody() {
    let backend = plain();
    let edge = edge().listener("health_path: /healthz").to(&backend).start();
    for request in [
        get("10.1.2.3:8080", "/healthz"),
        get("localhost", "/healthz"),
        get("localhost", "/healthz?probe=1"),
        "GET /healthz HTTP/1.0\r\n\r\n".to_owned(),
    ] {
        let answer = edge.ask(&request);
        assert_eq!(answer.status, 200, "{request}");
    }
    let head = edge.ask("HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(head.status, 200);
    assert_eq!(backend.count(), 0);
    assert_eq!(edge.get("/healthz/x").status, 200, "only that path is the edge's own");
    assert_eq!(backend.count(), 1);
}

/// Three listeners, one of them with TLS, and routes that belong to some of them.
#[test]
fn a_route_is_served_by_its_listeners_alone() {
    let certs = Certs::new();
    let path = |name: &str| certs.path(name).display().to_string();
    let pair = format!("{{ cert: {}, key: {} }}", path("server.pem"), path("server.key"));
    let (outer, inner, all) = (replica("outer"), replica("inner"), plain());
    let edge = edge()
        .raw_listener(&format!("address: \"127.0.0.2:0\", tls: {{ certificates: [ {pair} ] }}"))
        .raw_listener("address: \"127.0.0.1:0\"")
        .raw_listener("address: \"127.0.0.3:0\", redirect: https")
        .route("host: named.example, path: /mcp, upstream: inner, listeners: [ \"127.0.0.3:0\" ]")
        .upstream("outer", &[outer.url()], "")
        .upstream("inner", &[inner.url()], "")
        .upstream("all", &[all.url()], "")
        .route("host: localhost, path: /mcp, upstream: outer, listeners: [ \"127.0.0.2:0\" ]")
        .route("host: localhost, path: /mcp, upstream: inner, listeners: [ \"127.0.0.1:0\" ]")
        .route("host: inner.example, path: /, upstream: inner, listeners: [ \"127.0.0.1:0\" ]")
        .route("host: outer.example, path: /, upstream: outer, listeners: [ \"127.0.0.2:0\" ]")
        .route("host: localhost, path: /same, upstream: outer, listeners: [ \"127.0.0.1:0\" ]")
        .route("host: localhost, path: /same, upstream: outer, listeners: [ \"127.0.0.2:0\" ]")
        .route("host: localhost, path: /all, upstream: all")
        .start();
    let mut secure = edge.tls(certs.client(&["http/1.1"]));
    let mut h2 = H2::connect(edge.listener(0), certs.client(&["h2"]));
    let mut open = Client::plain(edge.listener(1));
    let mut redirecting = Client::plain(edge.listener(2));

    // the same host and path: each listener has its own
    let (first, second) = (secure.ask(initialize("/mcp")), open.ask(initialize("/mcp")));
    assert_eq!((by(&first), by(&second)), ("outer".to_owned(), "inner".to_owned()));
    assert_eq!(secure.ask(get("localhost", "/all")).status, 200);
    assert_eq!(open.ask(get("localhost", "/all")).status, 200);
    // and nobody else's, on any wire
    let before = (outer.count(), inner.count());
    secure.ask(get("inner.example", "/")).assert_refused(421);
    open.ask(get("outer.example", "/")).assert_refused(421);
    let mut foreign = request("GET", "/", &[]);
    *foreign.uri_mut() = "https://inner.example/".parse().unwrap();
    h2.ask(foreign, b"").unwrap().assert_refused(421);
    // a session is good at its own route only, though host, path and even the server are the same
    let id = session(&secure.ask(initialize("/same")));
    assert_eq!(by(&secure.ask(call("/same", &id, 2))), "outer");
    open.ask(call("/same", &id, 3)).assert_refused(404);
    assert_eq!((outer.count(), inner.count()), (before.0 + 2, before.1));
    // what is served in plain alone has nothing at https
    assert_eq!(redirecting.ask(get("outer.example", "/x")).status, 308);
    redirecting.ask(get("inner.example", "/x")).assert_refused(421);
    // but for a route that names the listener that redirects
    assert_eq!(redirecting.ask(get("named.example", "/mcp/x")).status, 200);
    redirecting.ask(get("named.example", "/x")).assert_refused(421);
    open.ask(get("named.example", "/mcp")).assert_refused(421);
    assert_eq!(redirecting.ask(get("localhost", "/all")).status, 308);
}

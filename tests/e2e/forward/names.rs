//! In: names that a real DNS server (dnsmasq) gives addresses to, and takes them away; out: replicas that come and go.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

use serde_json::Value;

use crate::support::backend::{Backend, plain};
use crate::support::certs::Certs;
use crate::support::client::{Client, get, post};
use crate::support::edge::{Builder, Edge, edge};
use crate::support::mcp::{by, call, initialize, replica_on, session};
use crate::support::wait::eventually;

/// dnsmasq with the names below `test` and `example.com`, each answer good for a second.
struct Dns {
    dir: tempfile::TempDir,
    address: SocketAddr,
    child: Child,
    said: BufReader<ChildStderr>,
}

impl Dns {
    fn start(hosts: &str, more: &[String]) -> Self {
        Self::start_at(free(), hosts, more)
    }

    fn start_at(address: SocketAddr, hosts: &str, more: &[String]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("hosts"), hosts).unwrap();
        let mut child = Command::new("dnsmasq")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .args(["--no-daemon", "--no-resolv", "--no-hosts", "--conf-file=/dev/null"])
            .args(["--bind-interfaces", &format!("--listen-address={}", address.ip())])
            .args(["--local=/test/", "--local=/example.com/"])
            .args(["--local-ttl=1", "--pid-file=", "--user="])
            .arg(format!("--port={}", address.port()))
            .arg(format!("--addn-hosts={}", dir.path().join("hosts").display()))
            .args(more)
            .stderr(Stdio::piped())
            .spawn()
            .expect("dnsmasq is needed: Debian's package dnsmasq-base");
        let said = BufReader::new(child.stderr.take().unwrap());
        let mut dns = Self { dir, address, child, said };
        dns.wait_read();
        dns
    }

    /// Waits until it has read its names.
    fn wait_read(&mut self) {
        let mut line = String::new();
        while self.said.read_line(&mut line).unwrap() > 0 {
            if line.contains("read ") && line.contains("hosts") {
                return;
            }
            line.clear();
        }
        panic!("dnsmasq has ended");
    }

    fn change(&mut self, hosts: &str) {
        fs::write(self.dir.path().join("hosts"), hosts).unwrap();
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
        self.wait_read();
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// An address where nobody answers, of this process and test alone: a server that was ended can begin there again.
fn free() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    // 127.0 is everybody's, and the port is none that the system gives away
    let ip = Ipv4Addr::new(127, high % 127 + 1, low, NEXT.fetch_add(1, Ordering::Relaxed));
    SocketAddr::new(ip.into(), 20_053)
}

/// One upstream on `/mcp`, asked for by this DNS server.
fn with(dns: SocketAddr, upstream: &str) -> Builder {
    edge()
        .top("admin: { address: \"127.0.0.1:0\" }")
        .top(&format!("dns: {{ servers: [ \"{dns}\" ], timeout: 200ms }}"))
        .raw_upstream(&format!("name: some, {upstream}"))
        .route("path: /mcp, upstream: some")
}

/// The same with one item in its list of servers.
fn with_server(dns: SocketAddr, server: &str) -> Builder {
    with(dns, &format!("servers: [ {server} ]"))
}

/// Replicas at those addresses, all on one port.
fn replicas(places: &[(&str, &'static str)]) -> (Vec<Backend>, u16) {
    loop {
        let first = TcpListener::bind((places[0].0, 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        let others = places[1..].iter().map(|(ip, _)| TcpListener::bind((*ip, port)));
        // another test may have that port at one of them
        let Ok(others) = others.collect::<Result<Vec<_>, _>>() else { continue };
        let all = std::iter::once(first).chain(others).zip(places);
        return (all.map(|(listener, (_, name))| replica_on(listener, name)).collect(), port);
    }
}

/// New sessions, with the replica that each is on.
fn begun(edge: &Edge, n: usize) -> Vec<(String, String)> {
    let one = |_| {
        let answer = edge.ask(initialize("/mcp"));
        (session(&answer), by(&answer))
    };
    (0..n).map(one).collect()
}

/// On whom new sessions are, in the order of their names.
fn spread(edge: &Edge, n: usize) -> Vec<String> {
    let mut names: Vec<String> = begun(edge, n).into_iter().map(|(_, by)| by).collect();
    names.sort();
    names
}

fn page(edge: &Edge, path: &str) -> (u16, String) {
    let answer = Client::plain(edge.admin()).ask(get("localhost", path));
    (answer.status, answer.text())
}

/// A sample of the metrics; absent where there is none.
fn metric(edge: &Edge, name: &str, label: &str) -> Option<u64> {
    let text = page(edge, "/metrics").1;
    let line = text.lines().find(|l| l.starts_with(name) && l.contains(label))?;
    line.rsplit(' ').next()?.parse().ok()
}

fn assert_code(edge: &Edge, request: String, status: u16, code: &str) {
    let answer = edge.ask(request);
    answer.assert_refused(status);
    assert_eq!(edge.log_of(&answer)["code"], code);
}

#[test]
fn addresses_come_and_go_when_their_time_is_over() {
    let places = [("127.0.0.2", "a"), ("127.0.0.3", "b"), ("127.0.0.4", "c")];
    let (backends, port) = replicas(&places);
    let mut dns = Dns::start("127.0.0.2 svc.test\n127.0.0.3 svc.test\n", &[]);
    // the time to live is a second, whatever `every` allows
    let server = format!("{{ dns: \"http://svc.test:{port}\", every: 1h }}");
    let edge = with_server(dns.address, &server).start();
    let sessions = begun(&edge, 4);
    let at = |name: &str| sessions.iter().filter(|(_, by)| by == name).count();
    assert_eq!((at("a"), at("b")), (2, 2), "each address is a replica");
    let host = backends[0].last().header("host");
    assert_eq!(host.as_deref(), Some(format!("svc.test:{port}").as_str()), "by its name");
    assert_eq!(metric(&edge, "mcp_edge_upstream_replicas", "upstream=\"some\""), Some(2));
    // a stream that is open
    let (id, _) = sessions.iter().find(|(_, by)| by == "a").unwrap();
    let mut stream = edge.client();
    stream.send(format!(
        "GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nMcp-Session-Id: {id}\r\n\r\n"
    ));
    assert_eq!(stream.start().status, 200);
    let in_flight = || metric(&edge, "mcp_edge_in_flight", "replica=\"127.0.0.2");
    assert_eq!(in_flight(), Some(1));

    dns.change("127.0.0.4 svc.test\n127.0.0.3 svc.test\n");
    edge.wait_line(&format!("127.0.0.4:{port} is there"));
    assert_eq!(spread(&edge, 4), ["b", "b", "c", "c"], "who is missing gets nothing new");
    edge.wait_line(&format!("127.0.0.2:{port} is gone"));
    for (id, name) in &sessions {
        match name.as_str() {
            "a" => assert_code(&edge, call("/mcp", id, 1), 404, "session.replica_gone"),
            other => assert_eq!(by(&edge.ask(call("/mcp", id, 1))), other, "who stays keeps his"),
        }
    }
    assert_eq!(spread(&edge, 4), ["b", "b", "c", "c"]);
    assert_eq!(in_flight(), None, "no series of who is gone");
    assert_eq!(metric(&edge, "mcp_edge_upstream_replicas", "upstream=\"some\""), Some(2));
    assert!(stream.chunk().is_some_and(|c| String::from_utf8_lossy(&c).contains("\"a\"")));
    let gone = backends[0].wait_request(2);
    let closed = backends[0].wait("", |r| Some(r.connections[gone.connection].closed));
    assert!(!closed, "what is under way goes on");
}

#[test]
fn a_and_aaaa_are_replicas_of_their_own() {
    let (_backends, port) = replicas(&[("127.0.0.2", "four"), ("::1", "six")]);
    let dns = Dns::start("127.0.0.2 two.test\n::1 two.test\n::1 six.test\n", &[]);
    let server = |name: &str| format!("{{ dns: \"http://{name}.test:{port}\" }}");
    let edge = with_server(dns.address, &server("two")).start();
    assert_eq!(spread(&edge, 4), ["four", "four", "six", "six"]);
    let edge = with_server(dns.address, &server("six")).start();
    let (id, name) = begun(&edge, 1).remove(0);
    assert_eq!((name.as_str(), by(&edge.ask(call("/mcp", &id, 1)))), ("six", "six".to_owned()));
}

#[test]
fn services_say_ports_weights_and_priorities() {
    let listener = || TcpListener::bind("127.0.0.1:0").unwrap();
    let [one, two, three] = [listener(), listener(), listener()];
    let port = |l: &TcpListener| l.local_addr().unwrap().port();
    let record = |l: &TcpListener, rest: &str| {
        format!("--srv-host=_mcp._tcp.svc.test,h.test,{},{rest}", port(l))
    };
    let records = [record(&three, "20,5"), record(&one, "10,3"), record(&two, "10,1")];
    let first = port(&one);
    let (one, two) = (replica_on(one, "one"), replica_on(two, "two"));
    let three = replica_on(three, "three");
    let dns = Dns::start("127.0.0.1 h.test\n", &records);
    let edge = with_server(dns.address, "{ srv: \"http://_mcp._tcp.svc.test\" }").start();
    assert_eq!(spread(&edge, 8), ["one", "one", "one", "one", "one", "one", "two", "two"]);
    assert_eq!(one.last().header("host"), Some(format!("svc.test:{first}")));
    one.shut();
    two.shut();
    // connections that are open go on
    let edge = with_server(dns.address, "{ srv: \"http://_mcp._tcp.svc.test\" }").start();
    assert_eq!(begun(&edge, 1)[0].1, "three", "the larger number is for then");
    assert_eq!(three.count(), 1);
}

#[test]
fn a_services_host_that_fails_keeps_its_own_replicas_and_nobody_else() {
    let (_backends, port) = replicas(&[("127.0.0.2", "a"), ("127.0.0.3", "b"), ("127.0.0.4", "c")]);
    let records = ["one.test", "two.elsewhere"]
        .map(|host| format!("--srv-host=_mcp._tcp.svc.test,{host},{port},1,1"));
    let all = "127.0.0.2 one.test\n127.0.0.4 one.test\n127.0.0.3 two.elsewhere\n";
    let mut dns = Dns::start(all, &records);
    let server = "{ srv: \"http://_mcp._tcp.svc.test\", every: 1s }";
    let edge = with_server(dns.address, server).start();
    let sessions = begun(&edge, 3);
    let failing = || metric(&edge, "mcp_edge_dns_failing", "http://_mcp._tcp.svc.test (srv)");
    assert_eq!(
        (spread(&edge, 3), failing()),
        (["a", "b", "c"].map(str::to_owned).to_vec(), Some(0))
    );
    // of what is not below its domains, dnsmasq says nothing; of `one.test`, one has left
    dns.change("127.0.0.2 one.test\n");
    edge.wait_line("; who was found there stays");
    edge.wait_line(&format!("127.0.0.4:{port} is gone"));
    assert_eq!(spread(&edge, 4), ["a", "a", "b", "b"]);
    for (id, name) in &sessions {
        match name.as_str() {
            "c" => assert_code(&edge, call("/mcp", id, 1), 404, "session.replica_gone"),
            other => assert_eq!(by(&edge.ask(call("/mcp", id, 1))), other),
        }
    }
    assert_eq!(failing(), Some(1));
    assert!(metric(&edge, "mcp_edge_dns_lookups_total", "result=\"failed\"") >= Some(3));
    let status: Value = serde_json::from_str(&page(&edge, "/status").1).unwrap();
    let problem = status["upstreams"][0]["names"][0]["problem"].as_str().unwrap();
    assert!(problem.starts_with("two.elsewhere: "), "{problem}");
    let is_told = |alarm: &Value| {
        alarm["level"] == "warning" && alarm["text"].as_str().unwrap().contains(problem)
    };
    assert!(status["alarms"].as_array().unwrap().iter().any(is_told), "{}", status["alarms"]);
    let told = edge.stderr().iter().filter(|l| l.contains("who was found there stays")).count();
    assert_eq!(told, 1, "it is said once");

    dns.change(all);
    edge.wait_line("found again");
    edge.wait_line(&format!("127.0.0.4:{port} is there"));
    assert_eq!(spread(&edge, 3), ["a", "b", "c"]);
    assert_eq!(failing(), Some(0));
}

#[test]
fn certificates_are_those_of_the_name_in_the_config() {
    let certs = Certs::new();
    let backend = plain();
    let front = certs.front(backend.address(), false);
    let port = front.url().rsplit(':').next().unwrap().to_owned();
    let records = ["mcp", "other"]
        .map(|name| format!("--srv-host=_mcp._tcp.{name}.example.com,h.test,{port},1,1"));
    let dns = Dns::start("127.0.0.1 mcp.example.com other.example.com h.test\n", &records);
    let status = |server: &str| {
        let tls = format!("tls: {{ ca: {} }}", certs.path("ca.pem").display());
        let edge = with(dns.address, &format!("servers: [ {server} ], {tls}")).start();
        let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        edge.ask(post("localhost", "/mcp", "", ping)).status
    };
    let dns_name = |name: &str| format!("{{ dns: \"https://{name}.example.com:{port}\" }}");
    let service = |name: &str| format!("{{ srv: \"https://_mcp._tcp.{name}.example.com\" }}");
    assert_eq!((status(&dns_name("mcp")), status(&service("mcp"))), (200, 200));
    for wrong in [dns_name("other"), service("other")] {
        let status = status(&wrong);
        assert!([502, 503].contains(&status), "{wrong}: {status}");
    }
    assert_eq!(backend.count(), 2, "nothing is sent to a server that is not the one");
}

#[test]
fn it_starts_without_dns_and_serves_when_there_is_some() {
    let (backends, port) = replicas(&[("127.0.0.2", "a")]);
    let hosts = "127.0.0.2 svc.test\n127.0.0.2 plain.test\n";
    let state = tempfile::tempdir().unwrap();
    for server in
        [format!("{{ dns: \"http://svc.test:{port}\" }}"), format!("\"http://plain.test:{port}\"")]
    {
        let dns = Dns::start(hosts, &[]);
        let config = || with_server(dns.address, &server).state(state.path());
        let before = config().start();
        let (id, _) = begun(&before, 1).remove(0);
        before.stop();
        let (at, config) = (dns.address, config());
        drop(dns);
        let edge = config.start();
        let (ready, text) = page(&edge, "/readyz");
        assert_eq!(ready, 503, "{text}");
        assert!(text.contains("upstream some: 0 of 0 replicas up\n  http://"), "{text}");
        assert_code(&edge, initialize("/mcp"), 503, "upstream.no_replica");
        assert_code(&edge, call("/mcp", &id, 1), 503, "session.replica_unknown");
        let status: Value = serde_json::from_str(&page(&edge, "/status").1).unwrap();
        let name = &status["upstreams"][0]["names"][0];
        assert!(name["problem"].is_string() && name["answered"].is_null(), "{name}");
        let _dns = Dns::start_at(at, hosts, &[]);
        edge.wait_line(" is there");
        assert_eq!(by(&edge.ask(call("/mcp", &id, 2))), "a", "its session was not lost");
        assert_eq!(page(&edge, "/readyz").0, 200);
    }
    assert_eq!(backends[0].count(), 4);
}

#[test]
fn while_nobody_answers_all_stays_and_is_told() {
    let (_backends, port) = replicas(&[("127.0.0.2", "a"), ("127.0.0.3", "b")]);
    let dns = Dns::start("127.0.0.2 svc.test\n", &[]);
    let at = dns.address;
    let edge = with_server(at, &format!("{{ dns: \"http://svc.test:{port}\" }}")).start();
    let (id, _) = begun(&edge, 1).remove(0);
    drop(dns);
    edge.wait_line("; who was found stays");
    assert_eq!(metric(&edge, "mcp_edge_dns_failing", "http://svc.test"), Some(1));
    // several questions long
    eventually("it asks again", || {
        metric(&edge, "mcp_edge_dns_lookups_total", "result=\"failed\"") >= Some(3)
    });
    assert_eq!(by(&edge.ask(call("/mcp", &id, 1))), "a");
    assert_eq!(spread(&edge, 1), ["a"]);
    let told = edge.stderr().iter().filter(|l| l.contains("who was found stays")).count();
    assert_eq!(told, 1, "it is said once");
    assert_eq!(page(&edge, "/readyz").0, 200);
    let _dns = Dns::start_at(at, "127.0.0.2 svc.test\n127.0.0.3 svc.test\n", &[]);
    edge.wait_line("found again");
    edge.wait_line(&format!("127.0.0.3:{port} is there"));
    assert_eq!(spread(&edge, 2), ["a", "b"]);
    assert_eq!(metric(&edge, "mcp_edge_dns_failing", "http://svc.test"), Some(0));
}

#[test]
fn where_dns_says_that_nobody_is_there_nobody_is() {
    let (_backends, port) = replicas(&[("127.0.0.2", "a")]);
    let mut dns = Dns::start("127.0.0.2 svc.test\n", &[]);
    // dnsmasq does not say how long nobody is there: it would be 5 s
    let server = format!("{{ dns: \"http://svc.test:{port}\", every: 1s }}");
    let edge = with_server(dns.address, &server).start();
    let (id, _) = begun(&edge, 1).remove(0);
    // a headless service without a pod that is ready: the name is not there at all
    dns.change("127.0.0.2 another.test\n");
    edge.wait_line("DNS says that nobody is there");
    assert_eq!(by(&edge.ask(call("/mcp", &id, 1))), "a", "once may be a mistake");
    edge.wait_line(&format!("127.0.0.2:{port} is gone"));
    assert_code(&edge, initialize("/mcp"), 503, "upstream.no_replica");
    assert_code(&edge, call("/mcp", &id, 2), 404, "session.replica_gone");
    assert_eq!(page(&edge, "/readyz").0, 503);
    dns.change("127.0.0.2 svc.test\n");
    edge.wait_line(&format!("127.0.0.2:{port} is there"));
    assert_eq!(spread(&edge, 1), ["a"]);
}

#[test]
fn a_plain_servers_name_is_followed_and_stays_where_it_may() {
    let (backends, port) = replicas(&[("127.0.0.2", "a"), ("127.0.0.3", "b")]);
    let mut dns = Dns::start("127.0.0.2 tools.test\n", &[]);
    let edge = with_server(dns.address, &format!("\"http://tools.test:{port}\"")).start();
    let found = || metric(&edge, "mcp_edge_dns_lookups_total", "result=\"found\"").unwrap();
    assert_eq!(spread(&edge, 2), ["a", "a"], "one replica");
    dns.change("127.0.0.3 tools.test\n127.0.0.2 tools.test\n");
    let before = found();
    // of which one was asked after the change
    eventually("it was asked for twice", || found() >= before + 2);
    assert_eq!(spread(&edge, 2), ["a", "a"], "it is still among them");
    dns.change("127.0.0.3 tools.test\n");
    edge.wait_line(&format!("tools.test:{port} is there, at 127.0.0.3:{port}"));
    assert_eq!(spread(&edge, 2), ["b", "b"], "also not by a connection that was left");
    assert_eq!(backends[1].last().header("host"), Some(format!("tools.test:{port}")));
    assert_eq!(metric(&edge, "mcp_edge_upstream_replicas", "upstream=\"some\""), Some(1));
}

#[test]
fn localhost_needs_no_dns() {
    let (_backends, port) = replicas(&[("127.0.0.1", "a")]);
    let edge = with_server(free(), &format!("\"http://localhost:{port}\"")).start();
    assert_eq!(spread(&edge, 1), ["a"]);
}

#[test]
fn who_joins_gets_work_after_a_good_check() {
    let (_backends, port) = replicas(&[("127.0.0.2", "a"), ("127.0.0.3", "b")]);
    let mut dns = Dns::start("127.0.0.2 svc.test\n", &[]);
    let server = format!("servers: [ {{ dns: \"http://svc.test:{port}\" }} ]");
    let edge = with(dns.address, &format!("{server}, health: {{ tcp: {{}}, every: 1s }}")).start();
    assert_eq!(spread(&edge, 2), ["a", "a"]);
    // nobody listens at 127.0.0.9
    dns.change("127.0.0.2 svc.test\n127.0.0.9 svc.test\n127.0.0.3 svc.test\n");
    edge.wait_line(&format!("127.0.0.9:{port} is there"));
    edge.wait_line(&format!("127.0.0.3:{port} is up"));
    let bad = || metric(&edge, "mcp_edge_probes_total", "replica=\"127.0.0.9");
    eventually("the other is checked, too", || bad().is_some());
    assert_eq!(spread(&edge, 4), ["a", "a", "b", "b"]);
    assert_eq!(metric(&edge, "mcp_edge_replica_up", "replica=\"127.0.0.9"), Some(0));
}

#[test]
fn a_reload_keeps_who_was_found() {
    let (_backends, port) = replicas(&[("127.0.0.2", "a"), ("127.0.0.3", "b")]);
    let dns = Dns::start("127.0.0.2 svc.test\n127.0.0.3 svc.test\n", &[]);
    let at = dns.address;
    let config = |server: &str, rest: &str| {
        let server = format!("{{ dns: \"http://svc.test:{port}\"{server} }}");
        with(at, &format!("servers: [ {server} ]{rest}"))
    };
    let edge = config("", "").start();
    let sessions = begun(&edge, 2);
    drop(dns);
    edge.wait_line("; who was found stays");
    let assert_kept = |change: &str| {
        for (id, name) in &sessions {
            assert_eq!(by(&edge.ask(call("/mcp", id, 1))), *name, "{change}");
        }
    };
    for (server, rest) in [
        ("", ", balance: least_requests"),
        ("", ", connect_timeout: 1s"),
        (", every: 2s", ""),
        (", weight: 3, priority: secondary", ""),
    ] {
        edge.take(&config(server, rest));
        assert_kept(&format!("{server}{rest}"));
        assert_eq!(spread(&edge, 6), ["a", "a", "a", "b", "b", "b"], "{server}{rest}");
    }
    let status: Value = serde_json::from_str(&page(&edge, "/status").1).unwrap();
    let replica = &status["upstreams"][0]["replicas"][1];
    assert_eq!((&replica["weight"], &replica["priority"]), (&3.into(), &1.into()), "{replica}");
    edge.take(&config(", drain: true", ""));
    assert_kept("drain");
    edge.ask(initialize("/mcp")).assert_refused(503);
    edge.take(&config(", every: 2s", ""));
    // the new generation goes on asking
    let _dns = Dns::start_at(at, "127.0.0.3 svc.test\n", &[]);
    edge.wait_line(&format!("127.0.0.2:{port} is gone"));
    assert_eq!(spread(&edge, 2), ["b", "b"]);
}

//! In: what happens to files and disks under a running edge; out, what its operator hears, and what goes on.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::support::backend::plain;
use crate::support::certs::Certs;
use crate::support::client::{Client, get};
use crate::support::edge::{Edge, binary, edge};
use crate::support::wait::eventually;

const ADMIN: &str = "admin: { address: \"127.0.0.1:0\" }";
const SHA: &str = "{SHA}NMfTLf4kql4x98PMVl16orqGin0=";
/// `ann:pass:wörd`.
const ANN: &str = "Authorization: Basic YW5uOnBhc3M6d8O2cmQ=\r\n";

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn metrics(edge: &Edge) -> String {
    Client::plain(edge.admin()).ask(get("localhost", "/metrics")).text()
}

/// The sum of all samples that begin with `part`.
fn total(edge: &Edge, part: &str) -> u64 {
    let page = metrics(edge);
    let samples = page.lines().filter(|l| l.starts_with(part));
    samples.filter_map(|l| l.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

fn said(edge: &Edge, part: &str) -> usize {
    edge.stderr().iter().filter(|line| line.contains(part)).count()
}

#[test]
fn a_pipe_in_the_place_of_a_file_holds_nobody_up() {
    let (dir, backend) = (tempfile::tempdir().unwrap(), plain());
    let (users, denied) = (dir.path().join("users"), dir.path().join("denied"));
    fs::write(&users, format!("ann:{SHA}\n")).unwrap();
    fs::write(&denied, "127.0.0.9\n").unwrap();
    let (file, deny) = (users.display(), denied.display());
    let edge = edge()
        .top("threads: 1")
        .top(ADMIN)
        .upstream("one", &[backend.url()], "")
        .raw_route(&format!(
            "upstream: one, path: /x, auth: [ {{ basic: {{ file: \"{file}\" }} }} ]"
        ))
        .route(&format!("upstream: one, path: /y, deny: [ {{ file: \"{deny}\" }} ]"))
        .start();
    let ann = || edge.ask(format!("GET /x HTTP/1.1\r\nHost: localhost\r\n{ANN}\r\n")).status;
    assert_eq!(ann(), 200);
    for path in [&users, &denied] {
        fs::remove_file(path).unwrap();
        pipe(path);
    }
    edge.wait_line("denied` is not a regular file; what was read before stays in force");
    assert_eq!(ann(), 401, "a file that cannot be read lets nobody in");
    assert_eq!(said(&edge, "users` is not a regular file"), 1);
    assert_eq!(edge.get("/y").status, 200);
    let from =
        Client::from("127.0.0.9".parse().unwrap(), edge.address()).ask(get("localhost", "/y"));
    assert_eq!(from.status, 403, "the last good list");
    eventually("both files are in the metric", || total(&edge, "mcp_edge_file_reload_failed") == 2);
    fs::remove_file(&users).unwrap();
    fs::write(&users, format!("ann:{SHA}\n")).unwrap();
    assert_eq!(ann(), 200);
    edge.wait_line("users is good again");
    edge.stop();
}

#[test]
fn check_does_not_wait_for_a_pipe() {
    let dir = tempfile::tempdir().unwrap();
    pipe(&dir.path().join("pipe"));
    let config = "listeners: [ { address: \"127.0.0.1:0\", allow: { file: pipe }, plaintext: true } ]\n\
         routes:\n  - upstream: \"http://127.0.0.1:1\"\n    auth: [ basic: { file: pipe } ]\n    path: /${file:pipe}\n";
    let file = dir.path().join("c.yaml");
    fs::write(&file, config).unwrap();
    let out = Command::new("timeout")
        .args([
            "10".into(),
            binary().into_os_string(),
            "check".into(),
            "--config".into(),
            file.into(),
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert_eq!(said.matches("pipe` is not a regular file").count(), 3, "{said}");
}

#[test]
fn the_access_log_is_rotated() {
    let (dir, backend) = (tempfile::tempdir().unwrap(), plain());
    let path = dir.path().join("access.log");
    let edge = edge().top(&format!("access_log: \"{}\"", path.display())).to(&backend).start();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o137, 0);
    let ask = || edge.get("/x").header("x-request-id").unwrap().to_owned();
    let holds = |file: &str, id: &str| {
        let text = fs::read_to_string(dir.path().join(file)).unwrap_or_default();
        text.lines().any(|line| line.contains(id)) && text.ends_with('\n')
    };
    for (n, signal) in ["USR1", "HUP"].into_iter().enumerate() {
        let old = format!("access.log.{n}");
        let before = ask();
        eventually("the line is there", || holds("access.log", &before));
        fs::rename(&path, dir.path().join(&old)).unwrap();
        let between = ask();
        eventually("lines go on in the old file", || holds(&old, &between));
        edge.signal(signal);
        edge.wait_line(&format!("SIG{signal} was taken"));
        eventually("there is a new file", || path.exists());
        let after = ask();
        eventually("lines go to the new file", || holds("access.log", &after));
        assert!(!holds(&old, &after));
    }
    // where nothing can be opened, the old one goes on
    fs::rename(&path, dir.path().join("last")).unwrap();
    fs::create_dir(&path).unwrap();
    edge.signal("USR1");
    edge.wait_line("the access log goes on in the file that was open");
    let kept = ask();
    eventually("lines go on", || holds("last", &kept));
    edge.stop();
}

#[test]
fn usr1_is_harmless_where_the_log_is_no_file() {
    let backend = plain();
    let edge = edge().to(&backend).start();
    edge.signal("USR1");
    edge.wait_line("SIGUSR1 was taken");
    edge.log_of(&edge.get("/x"));
    edge.stop();
}

#[test]
fn lines_that_cannot_be_written_are_counted() {
    let backend = plain();
    let edge = edge().top("access_log: /dev/full").top(ADMIN).to(&backend).start();
    for _ in 0..3 {
        assert_eq!(edge.get("/x").status, 200);
    }
    edge.wait_line("cannot write the access log");
    eventually("all are counted", || total(&edge, "mcp_edge_access_log_lost_total") == 3);
    assert_eq!(said(&edge, "cannot write the access log"), 1);
    edge.stop();
}

#[test]
fn a_pipe_for_the_access_log_waits_for_its_reader() {
    let (dir, backend) = (tempfile::tempdir().unwrap(), plain());
    let path = dir.path().join("log");
    pipe(&path);
    let edge = edge().top(&format!("access_log: \"{}\"", path.display())).to(&backend).start();
    let first = edge.get("/x").header("x-request-id").unwrap().to_owned();
    let mut lines = BufReader::new(File::open(&path).unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains(&first));
    drop(lines);
    let second = edge.get("/x").header("x-request-id").unwrap().to_owned();
    let mut lines = BufReader::new(File::open(&path).unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains(&second), "another reader");
    edge.stop();
}

#[test]
fn a_revocation_list_that_gets_old_is_told() {
    let certs = Certs::new();
    let soon = SystemTime::now() + Duration::from_secs(4);
    certs.crl("crl.pem", &[], soon);
    let backend = plain();
    let (ca, crl) = (certs.path("ca.pem"), certs.path("crl.pem"));
    let asked =
        format!("client_certificates: {{ ca: {}, crl: {} }} }}", ca.display(), crl.display());
    let tls = certs.listener();
    let tls = tls.strip_suffix('}').unwrap();
    let edge = edge().top(ADMIN).listener(&format!("{tls}, {asked}")).to(&backend).start();
    let due = soon.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(total(&edge, "mcp_edge_crl_expiry_timestamp_seconds{"), due);
    edge.wait_line("crl.pem` was not renewed: after ");
    edge.wait_line("; no client certificate is taken until it is renewed");
    assert_eq!(said(&edge, "crl.pem`"), 2, "{:?}", edge.stderr());
    edge.stop();
}

#[test]
fn failed_handshakes_are_counted_by_their_reason_and_not_logged() {
    let certs = Certs::new();
    certs.leaf(&[]).client("good", 1).write("good");
    certs.leaf(&[]).client("revoked", 2).write("revoked");
    certs.leaf(&[]).client("expired", 3).expired().write("expired");
    certs.crl("crl.pem", &[2], SystemTime::now() + Duration::from_secs(86_400 * 30));
    let tls = certs.listener();
    let tls = tls.strip_suffix('}').unwrap();
    let (ca, crl) = (certs.path("ca.pem"), certs.path("crl.pem"));
    let asked = format!("client_certificates: {{ ca: {}, crl: {} }}", ca.display(), crl.display());
    let backend = plain();
    let edge = edge()
        .top(ADMIN)
        .listener(&format!("{tls}, {asked} }}, header_timeout: 300ms"))
        .listener(&format!("{tls}, unknown_names: refuse }}"))
        .to(&backend)
        .start();
    let shake = |n: usize, config, name: &str| {
        let tcp = TcpStream::connect(edge.listener(n)).unwrap();
        let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let session = rustls::ClientConnection::new(config, name).unwrap();
        let mut tls = rustls::StreamOwned::new(session, tcp);
        // whatever comes of it
        let request = get("localhost", "/");
        drop(std::io::Write::write_all(&mut tls, request.as_bytes()));
        drop(tls.read(&mut [0; 64]));
    };
    let count = |reason: &str| {
        total(&edge, &format!("mcp_edge_tls_handshakes_failed_total{{reason=\"{reason}\"}}"))
    };
    shake(0, certs.client_as("good"), "localhost");
    assert_eq!(total(&edge, "mcp_edge_tls_handshakes_failed_total{"), 0);
    shake(0, certs.client(&[]), "localhost");
    shake(0, certs.client_as("revoked"), "localhost");
    shake(0, certs.client_as("expired"), "localhost");
    shake(1, certs.client(&[]), "unknown.example");
    // it does not trust the edge
    shake(1, Certs::new().client(&[]), "localhost");
    let mut plain = Client::plain(edge.listener(0));
    plain.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    plain.end();
    drop(TcpStream::connect(edge.listener(1)).unwrap());
    let mut silent = TcpStream::connect(edge.listener(0)).unwrap();
    silent.read_to_end(&mut Vec::new()).unwrap();
    for reason in [
        "no_certificate",
        "revoked",
        "bad_certificate",
        "unknown_name",
        "client_alert",
        "protocol",
        "closed",
        "timeout",
    ] {
        eventually(reason, || count(reason) == 1);
    }
    assert_eq!(total(&edge, "mcp_edge_tls_handshakes_failed_total{"), 8);
    assert_eq!(said(&edge, "handshake"), 0, "{:?}", edge.stderr());
    edge.stop();
}

#[test]
fn why_no_directory_answers_is_told_to_the_end() {
    let (certs, backend) = (Certs::new(), plain());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    drop(taken);
    let ca = certs.path("ca.pem");
    let acme = format!(
        "domains: [ localhost.example ], directory: \"https://{address}/dir\", ca: {}",
        ca.display()
    );
    let config = |tls: &str| {
        edge()
            .top("admin: { address: \"127.0.0.1:0\" }")
            .listener("redirect: https, redirect_port: 443")
            .listener(tls)
            .upstream("one", &[backend.url()], "")
            .route("upstream: one, host: localhost.example")
    };
    let edge = config(&format!("tls: {{ acme: {{ {acme} }} }}")).start();
    edge.wait_line("ACME: no certificate for localhost.example: ");
    let all = edge.stderr();
    let line = all.iter().find(|line| line.contains("ACME: no certificate")).unwrap();
    assert!(line.contains("Connection refused"), "{line}");
    let failed =
        || metrics(&edge).contains("mcp_edge_acme_failed{certificate=\"localhost.example\"} 1");
    eventually("it is an alarm", failed);
    edge.take(&config(&certs.listener()));
    assert!(!failed(), "nobody wants that certificate any more");
}

#[test]
fn what_the_edge_does_by_itself_is_told_and_requests_are_not() {
    let (dir, backend) = (tempfile::tempdir().unwrap(), plain());
    let denied = dir.path().join("denied");
    fs::write(&denied, "127.0.0.9\n").unwrap();
    let edge = edge()
        .upstream("one", &[backend.url()], "")
        .route(&format!("upstream: one, deny: [ {{ file: \"{}\" }} ]", denied.display()))
        .start();
    let before = edge.stderr();
    for path in ["/x", "/a/../b", "/y"] {
        edge.log_of(&edge.get(path));
    }
    edge.log_of(&edge.ask(get("evil.example.net", "/")));
    assert_eq!(edge.stderr(), before, "nothing for a request");
    fs::write(&denied, "127.0.0.8\n").unwrap();
    edge.wait_line("denied read again");
    edge.signal("HUP");
    edge.wait_line("SIGHUP was taken");
    edge.stop();
}

#[test]
fn what_the_log_is_set_to_by_hand_holds() {
    let dir = tempfile::tempdir().unwrap();
    let config = "listeners: [ { address: \"127.0.0.1:0\" } ]\nadmin: off\nstate_dir: state\n\
         routes: [ { upstream: \"http://127.0.0.1:1\", auth: [ anonymous ] } ]\n";
    fs::write(dir.path().join("c.yaml"), config).unwrap();
    let mut command = Command::new(binary());
    command.args(["run", "--config", "c.yaml"]).current_dir(dir.path()).env("RUST_LOG", "error");
    command.stdin(Stdio::null());
    let mut edge = Edge::spawn(command, None);
    edge.wait_ready(config);
    edge.signal("USR1");
    edge.get("/x");
    assert_eq!(said(&edge, "SIGUSR1"), 0);
    edge.stop();
}

#[test]
fn what_is_hardly_meant_is_said_at_the_start_and_at_a_reload() {
    let (one, two) = (plain(), plain());
    let config = || {
        let servers = [one.url(), two.url()];
        edge().upstream("one", &servers, "balance: least_requests").route("upstream: one")
    };
    let edge = config().start();
    let told =
        "upstreams[0].balance: `least_requests` does not count for clients of MCP 2026-07-28";
    assert_eq!(said(&edge, told), 1);
    let done = edge.reload(&config());
    let heard = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(heard.starts_with("warning: ") && heard.contains(told), "{heard}");
    assert_eq!(done.status.code(), Some(0));
    edge.stop();
}

/// Wherever the edge was started, and wherever it is asked.
#[test]
fn without_a_state_folder_the_one_beside_the_config_is_meant() {
    let (dir, away) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = "listeners: [ { address: \"127.0.0.1:0\" } ]\nadmin: off\n\
         routes: [ { upstream: \"http://127.0.0.1:1\", auth: [ anonymous ] } ]\n";
    let file = dir.path().join("c.yaml");
    fs::write(&file, config).unwrap();
    let command = |what: &str, from: &Path| {
        let mut command = Command::new(binary());
        command.args([what, "--config"]).arg(&file).current_dir(from);
        command.env_remove("XDG_STATE_HOME").stdin(Stdio::null());
        command
    };
    let mut edge = Edge::spawn(command("run", away.path()), None);
    edge.wait_ready(config);
    let done = command("reload", Path::new("/")).output().unwrap();
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(dir.path().join("state/session-key").exists());
    assert_eq!(fs::read_dir(away.path()).unwrap().count(), 0, "nothing is left where it began");
    edge.stop();
}

//! In: command lines and signals; out: exit codes and messages that an operator can use.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::backend::{backend, plain};
use crate::support::certs::Certs;
use crate::support::client::{Client, get};
use crate::support::edge::{Edge, binary, edge};
use crate::support::h2::{H2, request};
use crate::support::wait::Watched;

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(args).current_dir(dir).env("XDG_STATE_HOME", dir.join("xdg"));
    command
}

fn run(dir: &Path, args: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command(dir, args).output().unwrap();
    (
        status.code(),
        format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)),
    )
}

fn write(dir: &Path, text: &str) -> String {
    let file = dir.join("mcp-edge.yaml");
    fs::write(&file, text).unwrap();
    file.display().to_string()
}

/// nginx's `listen 80; listen [::]:80;`, which Linux takes for the same port unless it is told otherwise.
#[test]
fn one_port_may_be_listened_on_in_both_ip_versions() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let backend = plain();
    let edge = edge()
        .raw_listener(&format!("address: \"0.0.0.0:{port}\", plaintext: true"))
        .raw_listener(&format!("address: \"[::]:{port}\", plaintext: true"))
        .upstream("one", &[backend.url()], "")
        .route(&format!("upstream: one, host: four.example, listeners: [ \"0.0.0.0:{port}\" ]"))
        .route(&format!("upstream: one, host: six.example, listeners: [ \"[::]:{port}\" ]"))
        .start();
    for (ip, host, foreign) in
        [("127.0.0.1", "four.example", "six.example"), ("::1", "six.example", "four.example")]
    {
        let mut client = Client::plain((ip.parse::<IpAddr>().unwrap(), port).into());
        assert_eq!(client.ask(get(host, "/")).status, 200, "{ip}");
        client.ask(get(foreign, "/")).assert_refused(421);
    }
    drop(edge);
}

#[test]
fn as_many_files_may_be_open_as_the_administrator_allows() {
    let dir = tempfile::tempdir().unwrap();
    let config = "listeners: [ { address: \"127.0.0.1:0\" } ]\nadmin: off\n\
         routes: [ { upstream: \"http://127.0.0.1:1\", auth: [ anonymous ] } ]\n";
    let file = write(dir.path(), config);
    let mut edge = Command::new("sh")
        .args(["-c", "ulimit -Sn 256; ulimit -Hn 300; exec \"$0\" run --config \"$1\""])
        .args([binary().into_os_string(), file.into()])
        .env("XDG_STATE_HOME", dir.path().join("xdg"))
        .env("RUST_LOG", "mcp_edge=info")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(edge.stderr.take().unwrap()).lines().map(Result::unwrap);
    let said: Vec<String> = lines.take_while(|line| line != "mcp-edge: ready").collect();
    let limits = fs::read_to_string(format!("/proc/{}/limits", edge.id())).unwrap();
    edge.kill().unwrap();
    edge.wait().unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<&str> = files.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers, ["300", "300"]);
    let told = said.iter().filter(|line| line.ends_with("open files: 300 at most")).count();
    assert_eq!(told, 1, "{said:?}");
}

#[test]
fn a_port_in_use_is_exit_1_and_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let config = format!(
        "state_dir: state\nadmin: off\nlisteners: [ {{ address: \"{address}\" }} ]\n\
         routes: [ {{ upstream: \"http://127.0.0.1:9\", auth: [ anonymous ] }} ]\n"
    );
    let file = write(dir.path(), &config);
    let (code, said) = run(dir.path(), &["run", "--config", &file]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&address), "{said}");
    assert!(said.to_lowercase().contains("in use"), "{said}");
    assert!(!said.contains("panicked") && !said.contains("mcp-edge: ready"), "{said}");
}

#[test]
fn a_config_that_cannot_be_read_is_exit_2_and_named() {
    let dir = tempfile::tempdir().unwrap();
    for verb in ["run", "check"] {
        let (code, said) = run(dir.path(), &[verb, "--config", "no-such.yaml"]);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("no-such.yaml"), "{said}");
    }
}

#[test]
fn all_mistakes_are_told_at_once_with_their_lines() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(
        dir.path(),
        "admin: off\nlistners: []\nlisteners:\n  - address: \"127.0.0.1:0\"\n    header_timeout: soon\n\
         upstreams:\n  - name: a\n    servers: [ \"http://127.0.0.1:9\" ]\n    balance: magic\n\
         routes:\n  - upstream: b\n    auth: [ anonymous ]\nsessions:\n  keys: [ \"${file:/no/such/key}\" ]\n",
    );
    for verb in ["run", "check"] {
        let (code, said) = run(dir.path(), &[verb, "--config", &file]);
        assert_eq!(code, Some(2), "{said}");
        for part in ["listners", "listeners", "soon", "magic", "/no/such/key", "least_requests"] {
            assert!(said.contains(part), "{part} is not in:\n{said}");
        }
        for line in ["2", "5", "9", "14"] {
            assert!(
                said.contains(&format!(":{line}")) || said.contains(&format!("line {line}")),
                "line {line}:\n{said}"
            );
        }
    }
}

#[test]
fn check_says_what_would_run_and_runs_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let file = write(
        dir.path(),
        &format!(
            "state_dir: state\nadmin: off\nlisteners: [ {{ address: \"{address}\" }} ]\n\
             upstreams: [ {{ name: tools, servers: [ \"http://127.0.0.1:9\" ] }} ]\n\
             routes: [ {{ path: /mcp, upstream: tools, auth: [ anonymous ] }} ]\n\
             sessions: {{ keys: [ \"{}\" ] }}\n",
            "5".repeat(64)
        ),
    );
    let (code, said) = run(dir.path(), &["check", "--config", &file]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("tools") && said.contains("/mcp"), "{said}");
    assert!(!said.contains("5555"), "no secrets: {said}");
    assert!(!dir.path().join("state").exists(), "check leaves no traces");
}

/// As another user where the tests run as root, who may write everywhere.
#[test]
fn check_says_what_could_not_be_written_and_makes_nothing() {
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (folder, mode) in [("closed", 0o555), ("open", 0o777)] {
        fs::create_dir(at(folder)).unwrap();
        fs::set_permissions(at(folder), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(at("read-only"), "").unwrap();
    fs::set_permissions(at("read-only"), fs::Permissions::from_mode(0o444)).unwrap();
    // the built binary may lie where that user cannot go
    let copy = at("mcp-edge");
    fs::copy(binary(), &copy).unwrap();
    let check = |state: &str, keys: bool, log: &str, audit: &str| {
        let keys = if keys {
            format!("sessions: {{ keys: [ \"{}\" ] }}\n", "5".repeat(64))
        } else {
            String::new()
        };
        let config = format!(
            "state_dir: {state}\nadmin: off\naccess_log: {log}\naudit: {{ to: {audit} }}\n{keys}\
             listeners: [ {{ address: \"127.0.0.1:0\" }} ]\n\
             routes: [ {{ upstream: \"http://127.0.0.1:1\", auth: [ anonymous ] }} ]\n"
        );
        write(dir.path(), &config);
        let mut command = Command::new(&copy);
        command.args(["check", "--config", "mcp-edge.yaml"]).current_dir(dir.path());
        command.env("FOLDER", "closed");
        if root {
            command.uid(65534).gid(65534);
        }
        let out = command.output().unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let good = ("open/state", "open/a.log", "open/b.log");
    assert_eq!(check(good.0, false, good.1, good.2), (Some(0), String::new()));
    let (code, said) = check("closed/state", false, "closed/a.log", "read-only");
    assert_eq!(code, Some(2), "{said}");
    for part in ["state_dir: `closed`", "access_log: `closed`", "audit.to: `read-only`"] {
        assert!(said.contains(&format!("{part} cannot be written by user ")), "{part}: {said}");
    }
    assert_eq!(said.lines().count(), 3, "{said}");
    // what was put in is not shown
    let (hidden, log) = ("\"${env:FOLDER}/state\"", "\"${env:FOLDER}/a.log\"");
    let (code, said) = check(hidden, false, log, good.2);
    assert_eq!((code, said.lines().count()), (Some(2), 2), "{said}");
    assert!(said.contains("access_log: `${env:FOLDER}` cannot be written"), "{said}");
    assert!(!said.contains("closed"), "{said}");
    // nothing has to be kept there: the edge would start
    let (code, said) = check("closed/state", true, good.1, "stdout");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("warning: state_dir: `closed` cannot be written"), "{said}");
    let (_, said) = check(hidden, true, good.1, "stdout");
    assert!(said.starts_with("warning: state_dir: `${env:FOLDER}` cannot be written"), "{said}");
    for folder in ["closed", "open"] {
        assert_eq!(fs::read_dir(at(folder)).unwrap().count(), 0, "{folder}");
    }
}

#[test]
fn bad_usage_is_exit_2() {
    let dir = tempfile::tempdir().unwrap();
    let usages: [&[&str]; 9] = [
        &[],
        &["fly"],
        &["run"],
        &["run", "--to", "not a url"],
        &["run", "--to", "ftp://127.0.0.1:1"],
        &["run", "--nonsense"],
        &["run", "--to", "http://127.0.0.1:9", "--listen", "nowhere"],
        &["run", "--to", "http://127.0.0.1:9", "--config", "x.yaml"],
        // Off loopback somebody has to say that anybody may come in.
        &["run", "--to", "http://127.0.0.1:9", "--listen", "0.0.0.0:0", "--tls-self-signed"],
    ];
    for args in usages {
        let (code, said) = run(dir.path(), args);
        assert_eq!(code, Some(2), "{args:?}: {said}");
        assert!(!said.is_empty() && !said.contains("panicked"));
    }
    for args in [&["--help"][..], &["--version"], &["run", "--help"]] {
        assert_eq!(run(dir.path(), args).0, Some(0), "{args:?}");
    }
}

fn start(dir: tempfile::TempDir, args: &[&str]) -> Edge {
    let mut edge = Edge::spawn(command(dir.path(), args), Some(dir));
    edge.wait_ready(&args.join(" "));
    edge
}

#[test]
fn run_to_needs_nothing_but_a_url() {
    let (a, b) = (plain(), plain());
    let dir = tempfile::tempdir().unwrap();
    let edge = start(dir, &["run", "--to", &a.url(), "--to", &b.url(), "--listen", "127.0.0.1:0"]);
    for _ in 0..4 {
        assert_eq!(edge.get("/mcp").status, 200);
    }
    assert!(a.count() > 0 && b.count() > 0, "{} and {}", a.count(), b.count());
    assert_eq!(a.last().target, "/mcp");
    edge.ask(get("evil.example.net", "/")).assert_refused(421);
    edge.stop();
}

#[test]
fn run_to_serves_tls_of_its_own_off_loopback_when_told() {
    let backend = plain();
    let dir = tempfile::tempdir().unwrap();
    let args = [
        "run",
        "--to",
        &backend.url(),
        "--listen",
        "0.0.0.0:0",
        "--tls-self-signed",
        "--anonymous",
    ];
    let edge = start(dir, &args);
    assert!(
        edge.stderr().iter().any(|l| l.starts_with("mcp-edge: listening on https://")),
        "{:?}",
        edge.stderr()
    );
    edge.stop();
}

#[test]
fn a_path_in_the_url_of_run_to_is_kept_or_refused() {
    let backend = plain();
    let dir = tempfile::tempdir().unwrap();
    let url = format!("{}/mcp", backend.url());
    let mut edge = Edge::spawn(
        command(dir.path(), &["run", "--to", &url, "--listen", "127.0.0.1:0"]),
        Some(dir),
    );
    // Nobody may be left to wonder: it works as it reads, or it says why not.
    if edge.ready_or_exited() {
        assert_eq!(edge.get("/").status, 200);
        assert!(backend.last().target.starts_with("/mcp"), "{}", backend.last().target);
    } else {
        assert_eq!(edge.exit().code(), Some(2));
    }
}

#[test]
fn sigterm_with_idle_connections_is_exit_0() {
    let certs = Certs::new();
    let backend = plain();
    let mut edge = edge().listener("").listener(&certs.listener()).to(&backend).start();
    let mut idle = edge.client();
    assert_eq!(idle.ask(get("localhost", "/")).status, 200);
    let _silent = edge.client();
    let mut h2 = H2::connect(edge.listener(1), certs.client(&["h2"]));
    assert_eq!(h2.ask(request("GET", "/", &[]), b"").unwrap().status, 200);
    edge.signal("TERM");
    assert_eq!(edge.exit().code(), Some(0), "{:?}", edge.stderr());
    assert_eq!(idle.end(), b"", "closed without a word");
}

#[test]
fn sigint_ends_it_too() {
    let backend = plain();
    let mut edge = edge().to(&backend).start();
    assert_eq!(edge.get("/").status, 200);
    edge.signal("INT");
    assert_eq!(edge.exit().code(), Some(0), "{:?}", edge.stderr());
}

#[test]
fn a_request_in_flight_is_finished_after_sigterm() {
    let gate = std::sync::Arc::new(Watched::new(false));
    let opened = gate.clone();
    let backend = backend(move |x| {
        x.body();
        opened.wait("the gate opens", |o| o.then_some(()));
        x.json("{\"done\":true}");
    });
    let mut edge = edge().to(&backend).start();
    let mut client = edge.client();
    client.send(get("localhost", "/"));
    backend.wait_request(0);
    edge.signal("TERM");
    // It no longer accepts; that is how we see that the signal has arrived.
    let refused = (0..100_000).any(|_| std::net::TcpStream::connect(edge.address()).is_err());
    assert!(refused, "stops to accept");
    gate.update(|o| *o = true);
    let answer = client.response();
    assert_eq!((answer.status, answer.text().as_str()), (200, "{\"done\":true}"));
    assert_eq!(client.end(), b"");
    assert_eq!(edge.exit().code(), Some(0));
}

#[test]
fn a_restart_may_take_the_same_port_at_once() {
    let backend = plain();
    let edge_one = edge().to(&backend).start();
    let mut open = edge_one.client();
    assert_eq!(open.ask(get("localhost", "/")).status, 200);
    let address = edge_one.address();
    // The edge closes first, so its side of the connection stays in TIME_WAIT.
    edge_one.stop();
    open.end();
    let again = edge().raw_listener(&format!("address: \"{address}\"")).to(&backend).start();
    assert_eq!(again.get("/").status, 200);
}

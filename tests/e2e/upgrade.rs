//! In: a running edge, and the wish for another binary; out: the same sockets in a new process, and nothing lost.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use crate::support::backend::{backend, plain};
use crate::support::client::{Client, get, get_events};
use crate::support::edge::{Edge, binary, edge};
use crate::support::mcp::{by, call, initialize, replica, session};

#[test]
fn another_process_takes_over_what_is_listened_on_and_who_is_connected() {
    let (one, two) = (replica("one"), replica("two"));
    let mut edge = edge()
        .listener("health_path: /healthz")
        .listener("")
        .top("admin: { address: \"127.0.0.1:0\" }")
        .upstream("both", &[one.url(), two.url()], "")
        .route("upstream: both")
        .start();
    let opened = edge.ask(initialize("/"));
    let (id, name) = (session(&opened), by(&opened));
    let mut kept = edge.client();
    assert_eq!(kept.ask(get("localhost", "/healthz")).status, 200);
    for _ in 0..2 {
        let (code, said) = edge.upgrade();
        assert!(code == Some(0) && said.ends_with(" has taken over\n"), "{code:?} {said}");
        // by the sockets that there were: port 0 would have become another
        assert_eq!(edge.get("/healthz").status, 200);
        assert_eq!(Client::plain(edge.listener(1)).ask(get("localhost", "/healthz")).status, 200);
        assert_eq!(Client::plain(edge.admin()).ask(get("localhost", "/healthz")).status, 200);
        assert_eq!(by(&edge.ask(call("/", &id, 2))), name, "the session goes on");
    }
    assert_eq!(edge.first_exit(), Some(0));
    edge.stop();
}

#[test]
fn streams_of_the_old_process_end_between_events_and_its_health_stays_good() {
    let backend = backend(|x| {
        x.sse(&[]);
        x.chunk("data: 1\n\n");
        x.wait_closed();
    });
    let mut edge = edge().listener("health_path: /healthz").to(&backend).start();
    let (mut stream, mut asked) = (edge.client(), edge.client());
    stream.send(get_events("localhost", "/x", ""));
    stream.start();
    assert_eq!(stream.chunks(9), b"data: 1\n\n");
    asked.send("GET /healthz HTTP/1.1\r\n");
    assert_eq!(edge.upgrade().0, Some(0));
    assert_eq!(stream.chunks(12), b"retry: 500\n\n");
    assert!(stream.chunk().is_none_or(|piece| piece.is_empty()), "a whole answer");
    // begun before: it is the old process that answers
    asked.send("Host: localhost\r\n\r\n");
    let health = asked.response();
    assert_eq!((health.status, health.header("connection")), (200, Some("close")));
    assert_eq!(edge.first_exit(), Some(0));
    edge.stop();
}

#[test]
fn a_new_process_that_cannot_start_leaves_the_old_one_at_work() {
    let (backend, taken) = (plain(), TcpListener::bind("127.0.0.1:0").unwrap());
    let mut edge = edge().to(&backend).start();
    let good = fs::read_to_string(edge.config()).unwrap();
    let address = taken.local_addr().unwrap();
    let more = format!("listeners:\n  - {{ address: \"{address}\" }}");
    fs::write(edge.config(), good.replace("listeners:", &more)).unwrap();
    let (code, said) = edge.upgrade();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the new process has ended") && said.contains("old process goes on"));
    // whoever asked for it hears why, and so does the log
    assert!(said.contains(&format!("cannot listen on {address}")), "{said}");
    edge.wait_line(&format!("cannot listen on {address}"));
    assert_eq!(edge.get("/x").status, 200);
    // the same of a config that is wrong; of very many mistakes the first
    let wrong = |n: usize| good.clone() + &(0..n).map(|n| format!("x{n}: 1\n")).collect::<String>();
    for many in [1, 1000] {
        fs::write(edge.config(), wrong(many)).unwrap();
        let (code, said) = edge.upgrade();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("x0") && said.contains("exit status: 2"), "{said}");
        assert_eq!(many > 1, said.contains('…'), "{said}");
        assert!(said.len() < 5000, "{said}");
    }
    assert_eq!(edge.get("/x").status, 200);
    // as soon as it can, it may
    fs::write(edge.config(), good).unwrap();
    assert_eq!(edge.upgrade().0, Some(0));
    assert_eq!(edge.get("/x").status, 200);
    edge.stop();
}

#[test]
fn where_nobody_runs_there_is_nothing_to_upgrade_and_nothing_to_take_over() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.yaml");
    let config = "state_dir: state\nadmin: off\nlisteners: [ { address: \"127.0.0.1:0\" } ]\n\
         routes: [ { upstream: \"http://127.0.0.1:1\", auth: [ anonymous ] } ]\n";
    fs::write(&file, config).unwrap();
    let mut command = Command::new(binary());
    let out = command.arg("upgrade").arg("--config").arg(&file).output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("no edge can be reached"));
    let mut command = Command::new(binary());
    command.args(["run", "--upgrade", "--config"]).arg(&file).stdin(Stdio::null());
    let mut edge = Edge::spawn(command, None);
    edge.wait_ready(config);
    edge.wait_line("no edge is running to take over from");
    edge.stop();
}

#[test]
fn the_service_manager_hears_which_process_is_the_main_one() {
    let (dir, backend) = (tempfile::tempdir().unwrap(), plain());
    let heard = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    let mut edge = edge().to(&backend).start_with(|command| {
        command.env("NOTIFY_SOCKET", dir.path().join("notify"));
    });
    let (code, said) = edge.upgrade();
    assert_eq!(code, Some(0), "{said}");
    let pid = said.split(' ').nth(1).unwrap();
    let mut told = Vec::new();
    while told.last().is_none_or(|last: &String| !last.starts_with("MAINPID=")) {
        let mut bytes = [0; 200];
        let n = heard.recv(&mut bytes).unwrap();
        told.push(String::from_utf8_lossy(&bytes[..n]).into_owned());
    }
    assert_eq!(told.last().unwrap().lines().next(), Some(format!("MAINPID={pid}").as_str()));
    assert!(!told.iter().any(|line| line.contains("STOPPING=1")), "the service goes on: {told:?}");
    edge.stop();
}

#[test]
fn the_first_process_of_a_container_is_not_replaced() {
    // a PID namespace is what matters of a container; where none may be made, only the decision has a test
    let apart = ["--user", "--map-root-user", "--fork", "--pid", "--kill-child"];
    let may = Command::new("unshare").args(apart).arg("true").status();
    if !may.is_ok_and(|ended| ended.success()) {
        eprintln!("no PID namespace can be made here");
        return;
    }
    let (dir, backend) = (tempfile::tempdir().unwrap(), plain());
    let file = dir.path().join("mcp-edge.yaml");
    let config = edge().to(&backend).yaml(&dir.path().join("state"));
    fs::write(&file, &config).unwrap();
    let mut command = Command::new("unshare");
    command.args(apart).arg(binary()).arg("run").arg("--config").arg(&file);
    let mut edge = Edge::spawn(command, None);
    edge.wait_ready(&config);
    let mut ask = Command::new(binary());
    let out = ask.arg("upgrade").arg("--config").arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("first process of its container"), "{said}");
    edge.wait_line("no upgrade, this process goes on: it is the first process of its container");
    // nor by one that was started by hand
    let mut run = Command::new(binary());
    run.args(["run", "--upgrade", "--config"]).arg(&file);
    let mut heir = Edge::spawn(run, None);
    assert!(!heir.ready_or_exited(), "it has taken over");
    assert_eq!(heir.exit().code(), Some(1));
    heir.wait_line("does not pass its sockets on: it is the first process");
    assert_eq!(edge.get("/x").status, 200);
}

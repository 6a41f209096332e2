//! In: a service manager's socket, and commands of containers; out, what the edge tells them.

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output};
use std::time::Duration;

use crate::support::backend::{backend, feed};
use crate::support::client::get_events;
use crate::support::edge::{Edge, binary, edge};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn next(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

fn health(args: &[&str]) -> (Option<i32>, String) {
    let out = Command::new(binary()).arg("health").args(args).output().unwrap();
    let Output { status, stdout, stderr } = out;
    let both = [stdout, stderr].concat();
    (status.code(), String::from_utf8_lossy(&both).into_owned())
}

#[test]
fn the_service_manager_hears_when_the_edge_is_ready_and_when_it_stops() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = Command::new(binary());
    command.args(["run", "--to", "http://127.0.0.1:1", "--listen", "127.0.0.1:0"]);
    command.args(["--admin", "127.0.0.1:0"]).current_dir(dir.path());
    command.env("NOTIFY_SOCKET", &path).env("XDG_STATE_HOME", dir.path());
    let mut edge = Edge::spawn(command, None);
    // it works at once when it has said so
    assert_eq!(next(&manager), "READY=1");
    edge.wait_ready("a manager's");
    edge.signal("TERM");
    assert_eq!(next(&manager), "STOPPING=1");
    assert!(edge.exit().success());
}

#[test]
fn a_health_check_asks_the_edge_that_runs() {
    let (feed, source) = feed();
    let backend = backend(move |x| {
        x.sse(&[]);
        x.play(&source);
    });
    let edge = edge()
        .top("admin: { address: \"127.0.0.1:0\" }")
        .listener("health_path: /up")
        .to(&backend)
        .start();
    let admin = format!("http://{}/healthz", edge.admin());
    assert_eq!(health(&[&admin]), (Some(0), "ok\n".to_owned()));
    let up = format!("http://{}/up", edge.address());
    assert_eq!(health(&[&up]).0, Some(0));

    let missing = format!("http://{}/gone", edge.admin());
    let (code, said) = health(&[&missing]);
    assert_eq!(code, Some(1));
    assert!(said.contains("answered 404"), "{said}");
    let (code, said) = health(&["127.0.0.1"]);
    assert_eq!(code, Some(1));
    assert!(said.starts_with("mcp-edge health: "), "{said}");

    // while it stops, it is not well
    let mut stream = edge.client();
    stream.send(get_events("localhost", "/", ""));
    stream.start();
    edge.signal("TERM");
    edge.wait_line("mcp-edge: stopping");
    assert_eq!(health(&[&up]).0, Some(1));
    drop(feed);
}

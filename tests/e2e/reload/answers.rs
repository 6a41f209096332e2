//! In: reloads, good and bad; out: what an operator is told of each, and how often.

use super::{ADMIN, metric, told};
use crate::support::backend::{Backend, plain};
use crate::support::client::get;
use crate::support::edge::edge;
use crate::support::wait::eventually;

#[test]
fn a_broken_config_changes_nothing_and_says_where() {
    let backend = plain();
    let good = || edge().top(ADMIN).upstream("one", &[backend.url()], "").route("upstream: one");
    let edge = good().start();
    assert_eq!(metric(&edge, "mcp_edge_config_generation"), Some(1.0));
    let file = edge.config().display().to_string();
    let broken = [
        (good().route("upstream: two, path: /b"), "routes[1].upstream: there is no upstream `two`"),
        (good().top("thread: 3"), "unknown key `thread`"),
        (good().raw_listener("address: \"127.0.0.1:1\", tls: {}"), "listeners[0].tls"),
    ];
    for (config, problem) in broken {
        let config = config.yaml(&edge.config().with_file_name("state"));
        let line = 1 + config
            .lines()
            .position(|l| l.contains("two") || l.contains("thread: 3") || l.contains("tls: {}"))
            .unwrap();
        let done = edge.reload_text(&config);
        assert_eq!(done.status.code(), Some(2), "{}", told(&done));
        let place = format!("{file}:{line}:");
        assert!(told(&done).contains(&place) && told(&done).contains(problem), "{}", told(&done));
        assert!(told(&done).ends_with("nothing was changed: generation 1 of the config goes on\n"));
        edge.wait_line(&place);
        assert_eq!(edge.get("/x").status, 200);
    }
    let state = edge.config().with_file_name("state");
    let done = edge.reload_text(&format!("state_dir: \"{}\"\nroutes: [\n", state.display()));
    assert_eq!(done.status.code(), Some(2), "it is found all the same: {}", told(&done));
    assert_eq!(metric(&edge, "mcp_edge_config_generation"), Some(1.0));
    assert_eq!(metric(&edge, "mcp_edge_config_last_reload_failed"), Some(1.0));
    assert_eq!(metric(&edge, "mcp_edge_config_reloads_total{result=\"failed\"}"), Some(4.0));

    let done = edge.reload(&good().route("upstream: one, path: /b"));
    assert_eq!(done.status.code(), Some(0), "{}", told(&done));
    assert_eq!(String::from_utf8_lossy(&done.stdout), "generation 2 of the config is at work\n");
    edge.wait_line("generation 2 of the config is at work");
    assert_eq!(metric(&edge, "mcp_edge_config_last_reload_failed"), Some(0.0));
    assert_eq!(metric(&edge, "mcp_edge_config_reloads_total{result=\"ok\"}"), Some(1.0));
    edge.stop();
}

#[test]
fn what_needs_a_restart_is_said() {
    let backend = plain();
    let config = |top: &str| edge().top(top).to(&backend);
    let edge = config("threads: 2").start();
    let done = edge.reload(&config("threads: 1\naccess_log: off"));
    assert_eq!(done.status.code(), Some(0));
    for key in ["threads", "access_log"] {
        let words = format!("`{key}` was changed: that needs a restart");
        assert!(told(&done).contains(&words), "{}", told(&done));
        edge.wait_line(&words);
    }
    assert!(!told(&done).contains("state_dir"));
    for (key, said) in
        [("audit", "{ to: stdout }"), ("traces", "{ endpoint: 'http://127.0.0.1:1' }")]
    {
        let done = edge.reload(
            &config(&format!("threads: 2\n{key}: {said}")).route("upstream: one, path: /b"),
        );
        assert_eq!(done.status.code(), Some(2), "{}", told(&done));
        let words =
            format!("`{key}` was changed: that needs a restart, and the rest was not taken");
        assert!(told(&done).contains(&words), "{}", told(&done));
    }
    let answer = edge.get("/x");
    assert_eq!(edge.log_of(&answer)["status"], 200, "the log goes on");
}

#[test]
fn sighup_reloads_too_and_nobody_is_needed_who_answers() {
    let backend = plain();
    let config = || edge().top(ADMIN).to(&backend);
    let mut edge = config().start();
    let more = config().route("path: /deny, upstream: one, deny: [ 127.0.0.1 ]");
    let yaml = more.yaml(&edge.config().with_file_name("state"));
    std::fs::write(edge.config(), yaml).unwrap();
    assert_eq!(edge.get("/deny").status, 200);
    edge.signal("HUP");
    edge.wait_line("generation 2 of the config is at work");
    assert_eq!(edge.get("/deny").status, 403);
    std::fs::write(edge.config(), "nonsense: 1\n").unwrap();
    edge.signal("HUP");
    edge.wait_line("the config was not reloaded: generation 2 goes on");
    assert_eq!(edge.get("/deny").status, 403);
    edge.signal("TERM");
    assert_eq!(edge.exit().code(), Some(0));
    let done = edge.reload(&config());
    assert_eq!(done.status.code(), Some(1));
    assert!(told(&done).contains("no edge can be reached"), "{}", told(&done));
}

#[test]
fn a_pipe_in_the_place_of_the_config_holds_nothing_up() {
    let backend = plain();
    let edge = edge().to(&backend).start();
    let good = std::fs::read(edge.config()).unwrap();
    std::fs::remove_file(edge.config()).unwrap();
    let made = std::process::Command::new("mkfifo").arg(edge.config()).status().unwrap();
    assert!(made.success());
    edge.signal("HUP");
    edge.wait_line("is not a regular file");
    std::fs::remove_file(edge.config()).unwrap();
    std::fs::write(edge.config(), good).unwrap();
    edge.signal("HUP");
    edge.wait_line("generation 2 of the config is at work");
}

#[test]
fn a_reload_that_is_refused_has_written_nothing() {
    let backend = plain();
    let edge = edge().to(&backend).start();
    let other = edge.config().with_file_name("other");
    std::fs::write(edge.config(), edge_yaml(&backend, &other)).unwrap();
    edge.signal("HUP");
    edge.wait_line("`state_dir` was changed: that needs a restart, and the rest was not taken");
    assert!(!other.exists(), "a key of a state folder that is not taken");
}

fn edge_yaml(backend: &Backend, state: &std::path::Path) -> String {
    edge().to(backend).yaml(state)
}

#[test]
fn what_a_reload_takes_away_is_no_metric_any_more() {
    let backend = plain();
    let one = || edge().top(ADMIN).upstream("one", &[backend.url()], "").route("upstream: one");
    let old = one().upstream("old", &[backend.url()], "").route("path: /old, upstream: old");
    let edge = old.start();
    let up = |name: &str| {
        let label = format!(
            "mcp_edge_replica_up{{replica=\"{}\",upstream=\"{name}\"}}",
            backend.authority()
        );
        metric(&edge, &label)
    };
    assert_eq!((up("one"), up("old")), (Some(1.0), Some(1.0)));
    edge.take(&one());
    assert_eq!((up("one"), up("old")), (Some(1.0), None));
}

#[test]
fn whom_it_does_not_trust_any_more_names_nobody() {
    let backend = plain();
    let route = "upstream: one, allow: [ 10.0.0.0/8 ]";
    let config = |top: &str| edge().top(top).upstream("one", &[backend.url()], "").route(route);
    let edge = config("trusted_proxies: [ 127.0.0.1 ]").start();
    let mut open = edge.client();
    let ask = "GET / HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 10.1.1.1\r\n\r\n";
    assert_eq!(open.ask(ask).status, 200);
    edge.take(&config("trusted_proxies: [ 127.0.0.9 ]"));
    open.ask(ask).assert_refused(403);
}

#[test]
fn generations_do_not_pile_up() {
    let backend = plain();
    let config = |n: usize| {
        edge()
            .top(ADMIN)
            .upstream("one", &[backend.url()], "")
            .route(&format!("path: /{n}, upstream: one"))
            .route("upstream: one")
    };
    let edge = config(0).start();
    let mut open = edge.client();
    assert_eq!(open.ask(get("localhost", "/")).status, 200);
    for n in 1..=10 {
        edge.take(&config(n));
        assert_eq!(edge.get(&format!("/{n}")).status, 200);
    }
    eventually("nobody holds an old generation", || {
        metric(&edge, "mcp_edge_config_generations_alive") == Some(1.0)
    });
    assert_eq!(open.ask(get("localhost", "/10")).status, 200);
}

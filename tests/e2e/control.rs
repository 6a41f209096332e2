//! In: questions for a running edge by its state folder; out, an answer of the edge that is meant, and of no other.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::support::backend::plain;
use crate::support::edge::{Edge, binary, edge};

fn ask(args: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = Command::new(binary()).args(args).output().unwrap();
    let both = [stdout, stderr].concat();
    (status.code(), String::from_utf8_lossy(&both).into_owned())
}

#[test]
fn an_edge_that_runs_another_config_does_nothing() {
    let (dir, backend) = (tempfile::tempdir().unwrap(), plain());
    let edge = edge().to(&backend).start();
    let (own, other) = (edge.config(), dir.path().join("other.yaml"));
    let state = own.with_file_name("state");
    // the folder is a relative one of the first config no more
    fs::write(&other, fs::read_to_string(&own).unwrap()).unwrap();
    let names = [own.display().to_string(), other.display().to_string()];
    for verb in ["reload", "upgrade", "status"] {
        let (code, said) = ask(&[verb, "--config", &names[1]]);
        assert_eq!(code, Some(1), "{verb}: {said}");
        assert!(names.iter().all(|name| said.contains(name)), "{verb}: {said}");
    }
    assert!(
        edge.get("/x").status == 200 && !edge.stderr().iter().any(|l| l.contains("generation"))
    );
    // by another name, and by the folder alone
    let link = dir.path().join("link.yaml");
    std::os::unix::fs::symlink(&own, &link).unwrap();
    let (code, said) = ask(&["reload", "--config", &link.display().to_string()]);
    assert_eq!((code, said.as_str()), (Some(0), "generation 2 of the config is at work\n"));
    let (code, said) = ask(&["reload", "--state-dir", &state.display().to_string()]);
    assert_eq!((code, said.as_str()), (Some(0), "generation 3 of the config is at work\n"));
    edge.stop();
}

#[test]
fn a_second_edge_on_the_same_folder_is_asked_once_the_first_has_gone() {
    let (dir, backend) = (tempfile::tempdir().unwrap(), plain());
    let start = || edge().state(dir.path()).to(&backend).start();
    let (first, second) = (start(), start());
    second.wait_line(&format!("another edge (process {}) answers on", first.pid()));
    let reload = || ask(&["reload", "--config", &second.config().display().to_string()]);
    let (code, said) = reload();
    assert!(code == Some(1) && said.contains("runs with"), "{code:?} {said}");
    first.stop();
    second.wait_line("the control socket is open now");
    assert_eq!(reload().0, Some(0));
    second.stop();
}

/// Its keys are given, and nothing else has to be kept: nobody has made the folder.
#[test]
fn an_edge_without_anything_to_keep_can_be_asked() {
    let backend = plain();
    let keys = "sessions: { keys: [ \"a session key that is long enough for it\" ] }";
    let edge = edge().top(keys).to(&backend).start();
    let (code, said) = ask(&["reload", "--config", &edge.config().display().to_string()]);
    assert_eq!((code, said.as_str()), (Some(0), "generation 2 of the config is at work\n"));
    edge.stop();
}

#[test]
fn an_edge_whose_config_names_no_folder_is_found_from_another_environment() {
    let (dir, backend) = (tempfile::tempdir().unwrap(), plain());
    let (home, file) = (dir.path().join("home"), dir.path().join("mcp-edge.yaml"));
    fs::create_dir(&home).unwrap();
    let config = edge().to(&backend).yaml(&dir.path().join("none"));
    let config: String = config.lines().skip(1).map(|line| format!("{line}\n")).collect();
    fs::write(&file, &config).unwrap();
    // in the edge's environment nothing says where: it is beside the config
    let within = |args: &[&str]| {
        let mut command = Command::new(binary());
        command.args(args).arg("--config").arg(&file).current_dir(dir.path());
        command.env_remove("XDG_STATE_HOME");
        command
    };
    let ask = |verb: &str| {
        let mut command = within(&[verb]);
        let Output { status, stdout, stderr } =
            command.env("XDG_STATE_HOME", &home).output().unwrap();
        (status.code(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
    };
    let places = |said: &str| {
        let all = [home.join("mcp-edge"), "/var/lib/mcp-edge".into(), dir.path().join("state")];
        let at = |place: PathBuf| said.find(&format!("`{}/control.sock`", place.display()));
        all.map(at).into_iter().collect()
    };
    for verb in ["reload", "upgrade", "status"] {
        let (code, said) = ask(verb);
        let tried: Option<Vec<usize>> = places(&said);
        assert!(code == Some(1) && tried.is_some_and(|at| at.is_sorted()), "{verb}: {said}");
    }
    let mut edge = Edge::spawn(within(&["run"]), None);
    edge.wait_ready(&config);
    assert_eq!(ask("reload"), (Some(0), "generation 2 of the config is at work\n".to_owned()));
    let (code, said) = ask("status");
    assert!(code == Some(0) && said.contains("generation 2"), "{code:?} {said}");
    edge.stop();
}

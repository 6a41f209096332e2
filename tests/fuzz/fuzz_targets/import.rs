//! The importer. In: any nginx.conf; out: no panic and no hang, and nothing in one breaks out of its place in
//! the config.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use mcp_edge::config::{Mode, load_text};
use mcp_edge::import::{self, Options, nginx};

fuzz_target!(|text: &[u8]| {
    let Ok(tree) = nginx::read_text(text, "n.conf") else { return };
    // files of the machine are none of the fuzzer's business
    let options = Options { letsencrypt: Some("/nonexistent".into()), webroot: None };
    let Ok(imported) = import::from_tree(&tree, &options) else { return };
    let yaml: serde_yaml::Value = serde_yaml::from_str(&imported.yaml).expect("what is written is YAML");
    let known = [
        "threads",
        "access_log",
        "trusted_proxies",
        "forwarded_header",
        "listeners",
        "upstreams",
        "routes",
    ];
    for (key, _) in yaml.as_mapping().expect("a map") {
        assert!(known.contains(&key.as_str().expect("a text")), "{key:?}");
    }
    let routes = yaml["routes"].as_sequence().expect("routes");
    let closed = |route: &serde_yaml::Value| !route["auth"].is_null() && !route["upstream"].is_null();
    assert!(routes.iter().all(closed), "a route without its keys");
    // a route that refuses because of something is never silent
    assert!(!imported.yaml.contains("# refuses: ") || imported.refuses(), "a silent refusal");
    // what is written loads, but for files that are not there: no word of nginx's becomes a word of ours
    let load = load_text(&imported.yaml, Path::new("/nonexistent"), &|_| None, Mode::Check);
    for error in load.err().into_iter().flatten() {
        let words = ["unknown key", "unknown method", "stands already", "is not a", "did you mean"];
        assert!(!words.iter().any(|word| error.problem.contains(word)), "{error:?}");
    }
    for note in &imported.notes {
        assert!(!note.to_string().contains(['\n', '\r']));
    }
});

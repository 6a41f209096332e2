//! The config. In: any text; out: no panic and no hang of the loader, and for every mistake words and a line of
//! the text.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use mcp_edge::config::{Mode, load_text};

fuzz_target!(|text: &str| {
    // files of the machine are none of the fuzzer's business
    let opens = ["file", "cert", "key", "ca", "crl", "state_dir", "webroot", "access_log", "audit", "networks"];
    if opens.iter().any(|word| text.contains(word)) {
        return;
    }
    let env = |name: &str| (name.len() < 4).then(|| name.repeat(2));
    if let Err(errors) = load_text(text, Path::new("/nonexistent"), &env, Mode::Check) {
        assert!(!errors.is_empty());
        // a lone CR ends a line in YAML, too (YAML 1.2.2 §5.4)
        let lines = text.bytes().filter(|b| matches!(b, b'\n' | b'\r')).count() + 1;
        for error in errors {
            assert!(!error.problem.is_empty() && error.line <= lines);
        }
    }
});

//! The fuzz targets without the fuzzer. In: the targets and their corpora of `tests/fuzz`. Out: a test per
//! target that runs it on each input of its corpus and on some thousand changes of them, always the same:
//! a target that no longer compiles or holds is seen where no fuzzer is installed.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
// what a target makes for a fuzzer is public there; each file is the root of a program
#![allow(unreachable_pub, missing_docs, unused_attributes, unused_imports)]

// the targets' `use libfuzzer_sys::fuzz_target` finds the macro below
extern crate self as libfuzzer_sys;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use proptest::prelude::Rng as _;
use proptest::test_runner::{RngAlgorithm, TestRng};

/// How many changed inputs a target meets.
const CHANGED: usize = 4000;

/// Stands in for the fuzzer's macro: the same typed inputs are made of the same bytes.
#[macro_export]
macro_rules! fuzz_target {
    (|$input:ident: $kind:ty| $body:block) => {
        pub fn fuzz(bytes: &[u8]) {
            let bytes = arbitrary::Unstructured::new(bytes);
            let Ok($input) = <$kind as arbitrary::Arbitrary>::arbitrary_take_rest(bytes) else {
                return;
            };
            $body
        }
    };
}

macro_rules! targets {
    ($($name:ident in $path:literal,)*) => { $(
        #[path = $path]
        mod $name;

        #[test]
        fn $name() {
            replay(stringify!($name), $name::fuzz);
        }
    )* };
}

targets! {
    arguments in "fuzz/fuzz_targets/arguments.rs",
    challenge in "fuzz/fuzz_targets/challenge.rs",
    config in "fuzz/fuzz_targets/config.rs",
    endpoint in "fuzz/fuzz_targets/endpoint.rs",
    envelope in "fuzz/fuzz_targets/envelope.rs",
    forwarded in "fuzz/fuzz_targets/forwarded.rs",
    heads in "fuzz/fuzz_targets/heads.rs",
    htpasswd in "fuzz/fuzz_targets/htpasswd.rs",
    import in "fuzz/fuzz_targets/import.rs",
    introspection in "fuzz/fuzz_targets/introspection.rs",
    jwks in "fuzz/fuzz_targets/jwks.rs",
    proxy_protocol in "fuzz/fuzz_targets/proxy_protocol.rs",
    sealed_id in "fuzz/fuzz_targets/sealed_id.rs",
    sse in "fuzz/fuzz_targets/sse.rs",
    token in "fuzz/fuzz_targets/token.rs",
    tools in "fuzz/fuzz_targets/tools.rs",
    trace in "fuzz/fuzz_targets/trace.rs",
}

/// Runs a target on its corpus, and on changes of it; says which input it was that failed.
fn replay(name: &str, run: fn(&[u8])) {
    let corpus = corpus(name);
    for input in &corpus {
        attempt(name, run, input);
    }
    let mut random = TestRng::from_seed(RngAlgorithm::XorShift, &[7; 16]);
    for _ in 0..CHANGED {
        attempt(name, run, &changed(&corpus, &mut random));
    }
}

fn attempt(name: &str, run: fn(&[u8]), input: &[u8]) {
    let ran = catch_unwind(AssertUnwindSafe(|| run(input)));
    assert!(ran.is_ok(), "{name} fails on {:?}", input.escape_ascii().to_string());
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let files = std::fs::read_dir(&folder).expect("each target has a corpus");
    let mut paths: Vec<_> = files.map(|file| file.expect("an entry").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{name} has an empty corpus");
    paths.iter().map(|path| std::fs::read(path).expect("a file")).collect()
}

/// An input with a few bytes replaced, put in or taken out, or with the end of another one.
fn changed(corpus: &[Vec<u8>], random: &mut TestRng) -> Vec<u8> {
    let mut input = corpus[below(corpus.len(), random)].clone();
    for _ in 0..=below(4, random) {
        let at = below(input.len() + 1, random);
        match below(4, random) {
            0 => input.insert(at, random.next_u32() as u8),
            1 if at < input.len() => input[at] = random.next_u32() as u8,
            2 => drop(input.drain(at..(at + 1 + below(8, random)).min(input.len()).max(at))),
            _ => {
                let other = &corpus[below(corpus.len(), random)];
                input.truncate(at);
                input.extend_from_slice(&other[below(other.len() + 1, random)..]);
            }
        }
    }
    input
}

fn below(count: usize, random: &mut TestRng) -> usize {
    random.next_u64() as usize % count
}

/// A target that is not in the list above would be run by nobody.
#[test]
fn every_target_is_here() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/fuzz_targets");
    let here = include_str!("corpus.rs");
    for file in std::fs::read_dir(folder).expect("the targets") {
        let name = file.expect("an entry").file_name().into_string().expect("a plain name");
        assert!(here.contains(&format!("\"fuzz/fuzz_targets/{name}\"")), "{name} is not replayed");
    }
}

//! The hot pieces against the clock (`cargo bench`). In: nothing; out: the time that each takes. For comparing
//! two commits, count instructions instead: `benches/instructions.sh`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a measuring tool stops at what it did not expect"
)]

use criterion::Criterion;

#[path = "hot/work.rs"]
mod work;

/// As the edge itself.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for (name, mut once) in work::pieces() {
        criterion.bench_function(name, |bencher| bencher.iter(&mut once));
    }
    criterion.final_summary();
}

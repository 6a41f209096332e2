//! In: the number of a piece (or `list`), and how often; out: the piece, done that often, for a program
//! that counts instructions. `benches/instructions.sh` runs it twice and takes the difference.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a measuring tool stops at what it did not expect"
)]

mod work;

fn main() {
    let mut args = std::env::args().skip(1);
    let which = args.next().unwrap();
    if which == "list" {
        for (name, _) in work::pieces() {
            println!("{name}");
        }
        return;
    }
    let times: u64 = args.next().unwrap().parse().unwrap();
    let (_, mut once) = work::pieces().swap_remove(which.parse().unwrap());
    for _ in 0..times {
        once();
    }
}

//! Sealed ids. In: any text; out: nothing that was not sealed opens, and whatever is sealed opens as it was.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mcp_edge::balance::session::{Kind, Owner, SessionKeys, Ticket};
use mcp_edge::base::principal::Principal;

static KEYS: LazyLock<SessionKeys> = LazyLock::new(|| {
    SessionKeys::from_texts(&["a".repeat(32), "b".repeat(32)]).expect("the keys are long enough")
});

/// Never seal anything: the fuzzer learns texts that were sealed here from the comparisons below.
static OTHERS: LazyLock<SessionKeys> = LazyLock::new(|| {
    SessionKeys::from_texts(&["c".repeat(32), "d".repeat(32)]).expect("the keys are long enough")
});

fuzz_target!(|input: (&str, &str, &str, &str, u64)| {
    let (text, upstream, authority, inner, issued) = input;
    let principal = Principal::anonymous();
    let who = Owner { principal: &principal, route: "*/" };
    for kind in [Kind::Session, Kind::Endpoint] {
        assert!(OTHERS.open(kind, text, who, issued, None).is_err(), "forged");
        let (upstream, authority, inner) = (upstream.into(), authority.into(), inner.into());
        let ticket = Ticket { kind, upstream, authority, inner, issued };
        if let Some(sealed) = KEYS.seal(&ticket, who) {
            assert!(sealed.len() <= 2083 && sealed.bytes().all(|b| b.is_ascii_graphic()));
            assert_eq!(KEYS.open(kind, &sealed, who, issued, None), Ok(ticket));
            // Splicing foreign text in never opens.
            let half = sealed.get(..sealed.len() / 2).unwrap_or_default();
            let spliced = format!("{half}{text}");
            assert!(spliced == sealed || KEYS.open(kind, &spliced, who, issued, None).is_err());
        }
    }
});

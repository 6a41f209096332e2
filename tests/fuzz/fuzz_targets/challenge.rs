//! Challenges. In: any texts; out: printable ASCII, in which a simple reader finds the parameters that were
//! meant and no other.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_edge::auth::oauth::challenge::{Challenge, Error, with_error};

fuzz_target!(|text: &str| {
    let mut lines = text.lines();
    let (url, says) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let scopes: Vec<String> = lines.take(16).map(str::to_owned).collect();
    let challenge = Challenge { scopes: scopes.clone(), metadata_url: url.to_owned() };
    let scope = (!scopes.is_empty()).then(|| ("scope", scopes.join(" ")));
    let metadata = Some(("resource_metadata", url.to_owned()));
    let error = |code: &str| {
        [Some(("error", code.to_owned())), Some(("error_description", says.to_owned()))]
    };
    let plain = challenge.plain();
    check(&plain, &[scope.clone(), metadata.clone()]);
    let [code, words] = error("invalid_token");
    let wanted = [code, words, scope, metadata];
    check(&challenge.error(Error::InvalidToken, says), &wanted);
    check(&with_error(&plain, Error::InvalidToken, says), &wanted);
});

fn check(value: &http::HeaderValue, wanted: &[Option<(&str, String)>]) {
    let text = value.to_str().expect("ASCII");
    assert!(text.bytes().all(|b| matches!(b, b' '..=b'~')), "{text:?}");
    let found = parameters(text.strip_prefix("Bearer ").expect("the scheme"));
    let printable = |text: &str| -> String {
        text.chars().map(|c| if matches!(c, ' '..='~') { c } else { '?' }).collect()
    };
    let wanted: Vec<_> =
        wanted.iter().flatten().map(|(name, value)| ((*name).to_owned(), printable(value))).collect();
    assert_eq!(found, wanted);
}

/// RFC 9110 §11.2: `name="value"` with commas between them.
fn parameters(text: &str) -> Vec<(String, String)> {
    let (mut found, mut rest) = (Vec::new(), text);
    loop {
        let (name, after) = rest.split_once("=\"").expect("a quoted parameter");
        let (mut value, mut chars) = (String::new(), after.char_indices());
        let end = loop {
            match chars.next().expect("an end of the quotes") {
                (at, '"') => break at,
                (_, '\\') => value.push(chars.next().expect("something quoted").1),
                (_, c) => value.push(c),
            }
        };
        found.push((name.to_owned(), value));
        match after[end + 1..].strip_prefix(", ") {
            Some(next) => rest = next,
            None => {
                assert_eq!(&after[end + 1..], "");
                return found;
            }
        }
    }
}

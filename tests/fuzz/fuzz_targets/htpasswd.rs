//! htpasswd files and the credentials that are held against them. In: any bytes; out: no panic, for a mistake
//! the line that it is in, and the users that a simpler reading finds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_edge::auth::basic::credentials::Credentials;
use mcp_edge::auth::basic::file::Users;

fuzz_target!(|bytes: &[u8]| {
    if let Some(found) = Credentials::read(bytes) {
        assert!(!found.user.is_empty() && !found.user.contains(':'));
        let all = found.user.bytes().chain(found.password.iter().copied());
        assert!(all.clone().count() < 4096 && !all.clone().any(|b| b.is_ascii_control()));
    }
    let (users, problems) = Users::parse(bytes, "realm");
    let lines = || bytes.split(|&b| b == b'\n');
    let told = |problem: &String| -> Option<usize> {
        let digits = problem.strip_prefix("line ")?.bytes().take_while(u8::is_ascii_digit).count();
        Some(problem["line ".len()..][..digits].parse().expect("a number"))
    };
    let wrong: Vec<usize> = problems.iter().filter_map(told).collect();
    assert!(wrong.iter().all(|number| (1..=lines().count()).contains(number)), "{problems:?}");
    // all have a number but the last one, which may count those that are not told
    assert!(wrong.len() + 1 >= problems.len(), "{problems:?}");
    let plain = || lines().map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let named = || plain().filter(|line| !line.is_empty() && !line.starts_with(b"#"));
    let name = |line: &[u8]| line.split(|&b| b == b':').next().unwrap_or_default().to_vec();
    assert!(users.len() <= named().count());
    if problems.is_empty() {
        assert_eq!(users.len(), named().count());
    }
    for line in named() {
        let (name, alike) = (name(line), named().filter(|other| name(other) == name(line)).count());
        let known = std::str::from_utf8(&name).is_ok_and(|name| users.knows(name));
        assert!(!known || alike == 1, "of two lines for one user none counts");
        assert!(known || !problems.is_empty(), "who is left out is told of");
    }
});

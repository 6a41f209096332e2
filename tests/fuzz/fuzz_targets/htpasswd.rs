//! htpasswd files and the credentials that are held against them: nothing panics, a mistake has the line
//! that it is in, and a file that is taken has the users that a simpler reading finds.
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
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let lines = || text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    match Users::parse(text, "realm") {
        Err(problem) => {
            let number = problem.strip_prefix("line ").expect("a line");
            let digits = number.bytes().take_while(u8::is_ascii_digit).count();
            let number: usize = number[..digits].parse().expect("a number");
            assert!((1..=text.lines().count()).contains(&number), "{problem}");
        }
        Ok(users) => {
            assert_eq!(users.len(), lines().count());
            for line in lines() {
                let name = line.split(':').next().unwrap_or_default();
                assert!(users.knows(name), "{name}");
            }
        }
    }
});

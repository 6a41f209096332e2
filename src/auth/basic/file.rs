//! An htpasswd file: in, its text; out, its users, or the first line that is wrong.
//!
//! A line is `user:hash`, and nginx's `user:hash:comment`; empty lines and those that begin with `#`
//! are nothing. Everything else that is not a line of a user is an error, also a second line of the
//! same user: readers differ in which of them counts, and a password that was thought to be replaced
//! would go on.

use std::collections::HashMap;
use std::sync::Arc;

use super::hash::{Hash, Kind};
use crate::base::principal::Principal;
use crate::base::table::Table;

/// The name of the method, in configs and principals.
pub(super) const NAME: &str = "basic";
/// Longest name of a user, in bytes (`htpasswd` takes 255).
const MAX_USER: usize = 255;

/// All users of a file.
#[derive(Debug, Default)]
pub struct Users {
    users: Table<User>,
    /// What unknown users are verified against: a hash of the most common kind in the file, so that
    /// they cost what most others do. `None` in a file without users, which has nobody to hide.
    dummy: Option<User>,
}

/// One user.
#[derive(Debug, Clone)]
pub(super) struct User {
    /// Its hash.
    pub(super) hash: Hash,
    /// Its line without comment: a password that was right is right for this line only.
    pub(super) line: String,
    /// Whom it makes of a caller.
    pub(super) principal: Arc<Principal>,
}

impl Users {
    /// Reads a file's text. `realm` becomes the principals' issuer.
    ///
    /// # Errors
    /// The first line that is wrong, by its number alone: a name may be a password in the wrong place.
    pub fn parse(text: &str, realm: &str) -> Result<Self, String> {
        if text.starts_with('\u{feff}') {
            return Err("line 1: the file begins with a byte order mark".to_owned());
        }
        let mut users: Table<User> = Table::default();
        let mut first: HashMap<&str, usize> = HashMap::new();
        for (number, line) in text.lines().enumerate().map(|(i, line)| (i + 1, line)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, rest) = line
                .split_once(':')
                .ok_or_else(|| format!("line {number} is not of the form `user:hash`"))?;
            check_name(name).map_err(|problem| format!("line {number}: {problem}"))?;
            let hash = rest.split(':').next().unwrap_or_default();
            let user = User::new(name, hash, realm)
                .map_err(|problem| format!("line {number}: {problem}"))?;
            if let Some(before) = first.insert(name, number) {
                return Err(format!("line {number}: this user stands already in line {before}"));
            }
            users.insert(name.to_owned(), user);
        }
        let dummy = most_common(&users);
        Ok(Self { users, dummy })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Whether there is a user of this name.
    pub fn knows(&self, name: &str) -> bool {
        self.users.contains_key(name)
    }

    /// The user of this name.
    pub(super) fn get(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// Whom to verify unknown users against.
    pub(super) fn dummy(&self) -> Option<&User> {
        self.dummy.as_ref()
    }
}

impl User {
    fn new(name: &str, hash: &str, realm: &str) -> Result<Self, String> {
        let principal = Arc::new(Principal::new(NAME, realm, name));
        Ok(Self { hash: Hash::parse(hash)?, line: format!("{name}:{hash}"), principal })
    }
}

fn check_name(name: &str) -> Result<(), String> {
    match name.len() {
        0 => Err("there is no user's name before the colon".to_owned()),
        1..=MAX_USER if !name.chars().any(char::is_control) => Ok(()),
        1..=MAX_USER => Err("the user's name has a control character".to_owned()),
        _ => Err(format!("the user's name is longer than {MAX_USER} bytes")),
    }
}

/// A user whose hash is of the most common kind and cost; of two kinds, the dearer one.
fn most_common(users: &Table<User>) -> Option<User> {
    let mut kinds: HashMap<Kind, usize> = HashMap::new();
    for user in users.values() {
        *kinds.entry(user.hash.kind()).or_default() += 1;
    }
    let (kind, _) = kinds.into_iter().max_by_key(|(kind, count)| (*count, *kind))?;
    users.values().find(|user| user.hash.kind() == kind).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "{SHA}NMfTLf4kql4x98PMVl16orqGin0=";
    const MD5: &str = "$apr1$Zz./$OURUTsxIiswAvJ6UwKCuM.";

    fn problem(text: &str) -> String {
        Users::parse(text, "r").unwrap_err()
    }

    #[test]
    fn users_are_found_by_their_whole_name() {
        let text = format!("# a comment\r\nann:{SHA}\r\n\r\nbob:{MD5}:a comment\njörg m.:{SHA}");
        let users = Users::parse(&text, "r").unwrap();
        for (name, line) in [
            ("ann", format!("ann:{SHA}")),
            ("bob", format!("bob:{MD5}")),
            ("jörg m.", format!("jörg m.:{SHA}")),
        ] {
            let user = users.get(name).unwrap();
            assert_eq!(user.line, line);
            assert_eq!(*user.principal, Principal::new("basic", "r", name));
        }
        for name in ["", "an", "ann ", "Ann", "# a comment", "bob:"] {
            assert!(users.get(name).is_none(), "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_its_line_named(
            text in "(([ab#: \\t\u{feff}é]{0,3}(:|\n|\r\n)?([{]SHA[}]NMfTLf4kql4x98PMVl16orqGin0=|[$](2y|1|5|6|apr1)[$][$a-c0-9=./]{0,60}|.{0,9})(\r?\n|:)?)){0,8}"
        ) {
            match Users::parse(&text, "r") {
                Ok(users) => {
                    let lines = text.lines().filter(|l| !l.is_empty() && !l.starts_with('#'));
                    proptest::prop_assert_eq!(users.len(), lines.count());
                }
                Err(problem) => {
                    let number = problem.strip_prefix("line ").unwrap();
                    let number = number.split([':', ',', ' ']).next().unwrap().parse::<usize>().unwrap();
                    proptest::prop_assert!((1..=text.lines().count()).contains(&number), "{}", problem);
                }
            }
        }
    }

    #[test]
    fn mistakes_are_named_by_their_line() {
        assert_eq!(
            problem(&format!("a:{SHA}\n\nrubbish\n")),
            "line 3 is not of the form `user:hash`"
        );
        assert!(problem(&format!("\n:{SHA}")).starts_with("line 2: there is no user's name"));
        assert!(
            problem(&format!("a\tb:{SHA}")).starts_with("line 1: the user's name has a control")
        );
        assert!(problem(&format!("{}:{SHA}", "x".repeat(256))).contains("255 bytes"));
        assert!(problem("#\nann:hunter2").starts_with("line 2: the password stands"));
        assert!(!problem("ann:hunter2").contains("hunter2"));
        assert_eq!(
            problem(&format!("a:{SHA}\nb:{SHA}\na:{MD5}")),
            "line 3: this user stands already in line 1"
        );
        // a byte order mark is not part of a name that anybody could type
        assert!(problem(&format!("\u{feff}ann:{SHA}\n")).contains("byte order mark"));
    }

    #[test]
    fn unknown_users_cost_what_most_do() {
        let dummy = |text: &str| {
            let users = Users::parse(text, "r").unwrap();
            users.dummy().map(|user| user.hash.kind())
        };
        assert_eq!(dummy("# nobody\n"), None);
        assert_eq!(dummy(&format!("a:{MD5}\nb:{SHA}\nc:{SHA}")), Some(Kind::Sha1));
        assert_eq!(dummy(&format!("a:{SHA}\nb:{MD5}")), Some(Kind::Md5));
    }
}

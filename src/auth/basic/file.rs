//! An htpasswd file: in, its bytes; out, its users, and every line that is wrong.
//!
//! A line is `user:hash`, and nginx's `user:hash:comment`; empty lines and those that begin with `#`
//! are nothing. Everything else that is not a line of a user is wrong and lets nobody in, while the other
//! lines count: who was taken out of the file is out, whatever else is in it. A user who stands there
//! twice is not let in by either line: readers differ in which of them counts, and a password that was
//! thought to be replaced would go on.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::{Arc, LazyLock};

use super::hash::{Hash, Kind};
use crate::base::files;
use crate::base::principal::Principal;
use crate::base::table::Table;
use crate::base::text::BOM;
use crate::base::watch::Found;

/// The name of the method, in configs and principals.
pub(super) const NAME: &str = "basic";
/// Longest name of a user, in bytes (`htpasswd` takes 255).
const MAX_USER: usize = 255;

/// Most lines that are told apart when they are wrong: whoever names the wrong file has thousands.
const MOST_TOLD: usize = 20;
/// Most kinds of hash that a wrong password costs.
const MOST_KINDS: usize = 4;

/// All users of a file.
#[derive(Debug, Default)]
pub struct Users {
    users: Table<User>,
    /// One user of each kind of hash, the dearest kinds first: what a wrong password is verified against,
    /// so that time does not tell whose it was. Empty in a file without users, which has nobody to hide.
    stand_ins: Vec<User>,
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
    /// Reads a file. Where it cannot be read, there is nobody: who was removed with it must not stay.
    pub fn read(path: &Path, realm: &str) -> Found<Self> {
        let bytes = match files::read(path) {
            Ok(bytes) => bytes,
            Err(problem) => return Found::Meanwhile(Self::default(), problem),
        };
        let (users, problems) = Self::parse(&bytes, realm);
        if problems.is_empty() {
            return Found::Good(users);
        }
        let named = |problem| format!("`{}`: {problem}", path.display());
        Found::InPart(users, problems.into_iter().map(named).collect())
    }

    /// Reads a file's content: its good lines, and what is wrong with the others, by their numbers alone:
    /// a name may be a password in the wrong place. `realm` becomes the principals' issuer.
    pub fn parse(content: &[u8], realm: &str) -> (Self, Vec<String>) {
        let mut users: Table<User> = Table::default();
        let mut first: HashMap<&[u8], usize> = HashMap::new();
        let (mut problems, mut more) = (Vec::new(), 0);
        for (number, line) in content.split(|&b| b == b'\n').enumerate().map(|(i, l)| (i + 1, l)) {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            // whose line it is counts also where the line is wrong
            let name = line.split(|&b| b == b':').next().unwrap_or_default();
            let name = name.strip_prefix(&BOM).unwrap_or(name);
            let before = first.insert(name, number);
            let read = match before {
                Some(before) => Err(format!(": this user stands already in line {before}")),
                None => User::read(line, realm),
            };
            match read {
                Ok((name, user)) => {
                    users.insert(name, user);
                }
                Err(problem) if problems.len() < MOST_TOLD => {
                    problems.push(format!("line {number}{problem}"));
                }
                Err(_) => more += 1,
            }
            if before.is_some()
                && let Ok(name) = std::str::from_utf8(name)
            {
                users.remove(name);
            }
        }
        if more > 0 {
            problems.push(format!("{more} more lines are wrong"));
        }
        let stand_ins = stand_ins(&users);
        (Self { users, stand_ins }, problems)
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

    /// What a wrong password is verified against besides the line of whoever was named, if it was
    /// anybody: hashes of all other kinds.
    pub(super) fn besides(&self, known: Option<&User>) -> Vec<Hash> {
        let own = known.map(|user| user.hash.kind());
        let hashes = self.stand_ins.iter().map(|user| &user.hash);
        hashes.filter(|hash| Some(hash.kind()) != own).cloned().collect()
    }
}

impl User {
    /// Reads a line; what is wrong with it goes on from its number.
    fn read(line: &[u8], realm: &str) -> Result<(String, Self), String> {
        if line.starts_with(&BOM) {
            return Err(": the file begins with a byte order mark".to_owned());
        }
        let line = std::str::from_utf8(line).map_err(|_| " is not UTF-8 text".to_owned())?;
        let (name, rest) =
            line.split_once(':').ok_or_else(|| " is not of the form `user:hash`".to_owned())?;
        let hash = rest.split(':').next().unwrap_or_default();
        let user = check_name(name).and_then(|()| Self::new(name, hash, realm));
        Ok((name.to_owned(), user.map_err(|problem| format!(": {problem}"))?))
    }

    fn new(name: &str, hash: &str, realm: &str) -> Result<Self, String> {
        let line = format!("{name}:{hash}");
        let proof = Some(sum(&line));
        let principal = Arc::new(Principal { proof, ..Principal::new(NAME, realm, name) });
        Ok(Self { hash: Hash::parse(hash)?, line, principal })
    }
}

/// A sum of a line with a secret of the process: it tells lines apart and says nothing of them.
fn sum(line: &str) -> u64 {
    static KEYED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEYED.hash_one(line)
}

fn check_name(name: &str) -> Result<(), String> {
    match name.len() {
        0 => Err("there is no user's name before the colon".to_owned()),
        1..=MAX_USER if !name.chars().any(char::is_control) => Ok(()),
        1..=MAX_USER => Err("the user's name has a control character".to_owned()),
        _ => Err(format!("the user's name is longer than {MAX_USER} bytes")),
    }
}

/// A user of each kind, the dearest kinds first.
fn stand_ins(users: &Table<User>) -> Vec<User> {
    let mut kinds: HashMap<Kind, &User> = HashMap::new();
    for user in users.values() {
        kinds.entry(user.hash.kind()).or_insert(user);
    }
    let mut all: Vec<User> = kinds.into_values().cloned().collect();
    all.sort_by_key(|user| Reverse((user.hash.kind().cost(), user.hash.kind())));
    all.truncate(MOST_KINDS);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "{SHA}NMfTLf4kql4x98PMVl16orqGin0=";
    const MD5: &str = "$apr1$Zz./$OURUTsxIiswAvJ6UwKCuM.";

    fn problem(text: &str) -> String {
        Users::parse(text.as_bytes(), "r").1.join("; ")
    }

    /// The users of a file that is good.
    fn good(text: &str) -> Users {
        let (users, problems) = Users::parse(text.as_bytes(), "r");
        assert!(problems.is_empty(), "{problems:?}");
        users
    }

    #[test]
    fn users_are_found_by_their_whole_name() {
        let text = format!("# a comment\r\nann:{SHA}\r\n\r\nbob:{MD5}:a comment\njörg m.:{SHA}");
        let users = good(&text);
        for (name, line) in [
            ("ann", format!("ann:{SHA}")),
            ("bob", format!("bob:{MD5}")),
            ("jörg m.", format!("jörg m.:{SHA}")),
        ] {
            let user = users.get(name).unwrap();
            assert_eq!(user.line, line);
            let proof = Some(sum(&line));
            assert_eq!(*user.principal, Principal { proof, ..Principal::new("basic", "r", name) });
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
            let (users, problems) = Users::parse(text.as_bytes(), "r");
            let lines = text.split('\n').map(|l| l.strip_suffix('\r').unwrap_or(l));
            let lines = lines.filter(|l| !l.is_empty() && !l.starts_with('#')).count();
            proptest::prop_assert!(users.len() + problems.len() <= lines);
            proptest::prop_assert!(users.len() == lines || !problems.is_empty());
            for problem in problems {
                let Some(number) = problem.strip_prefix("line ") else {
                    proptest::prop_assert!(problem.ends_with(" more lines are wrong"), "{}", problem);
                    continue;
                };
                let number = number.split([':', ',', ' ']).next().unwrap().parse::<usize>().unwrap();
                proptest::prop_assert!((1..=text.split('\n').count()).contains(&number), "{}", problem);
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
    fn good_lines_count_and_bad_ones_let_nobody_in() {
        let text = format!(
            "\u{feff}bom:{SHA}\nann:{SHA}\nrubbish\nbob:hunter2\ncid:{SHA}\ncid:{MD5}\ndan:broken\ndan:{SHA}\nbom:{SHA}\n"
        );
        let mut bytes = text.into_bytes();
        bytes.extend(format!("j\u{f6}rg:{SHA}\n").chars().map(|c| c as u8));
        bytes.extend(format!("eve:{SHA}").bytes());
        let (users, problems) = Users::parse(&bytes, "r");
        let mut names: Vec<&str> = users.users.keys().map(AsRef::as_ref).collect();
        names.sort_unstable();
        assert_eq!(names, ["ann", "eve"]);
        let lines: Vec<_> = problems.iter().map(|p| p.split([' ', ':']).nth(1).unwrap()).collect();
        assert_eq!(lines, ["1", "3", "4", "6", "7", "8", "9", "10"], "{problems:?}");
    }

    #[test]
    fn a_wrong_file_is_not_told_line_by_line() {
        let (users, problems) = Users::parse("x\n".repeat(5000).as_bytes(), "r");
        assert!(users.is_empty());
        assert_eq!(problems.len(), 21);
        assert_eq!(problems[20], "4980 more lines are wrong");
    }

    #[test]
    fn what_cannot_be_read_has_nobody() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            Users::read(dir.path(), "r"),
            Found::Meanwhile(users, problem) if users.is_empty() && problem.ends_with("is not a regular file")
        ));
    }

    #[test]
    fn a_wrong_password_costs_every_kind_of_the_file_once() {
        let kinds = |text: &str, name: &str| {
            let users = good(text);
            let own = users.get(name);
            let mut kinds: Vec<Kind> = own.iter().map(|user| user.hash.kind()).collect();
            kinds.extend(users.besides(own).iter().map(Hash::kind));
            kinds.sort_unstable();
            kinds
        };
        const BCRYPT: &str = "$2y$05$cH7okCpaz5P18AYnxA/GWed6KNq./mE3KsT.7OWsCBUaiYYfu3/CC";
        assert_eq!(kinds("# nobody\n", "a"), []);
        let text = format!("a:{MD5}\nb:{SHA}\nc:{SHA}\nd:{BCRYPT}\n");
        for name in ["a", "b", "c", "d", "nobody"] {
            assert_eq!(kinds(&text, name), [Kind::Sha1, Kind::Md5, Kind::Bcrypt(5)], "{name}");
        }
        // however many kinds there are
        let many: String = (4..12)
            .map(|n| format!("u{n}:{}\n", BCRYPT.replace("05", &format!("{n:02}"))))
            .collect();
        let dearest = [8, 9, 10, 11].map(Kind::Bcrypt);
        assert_eq!(kinds(&many, "nobody"), dearest);
        assert_eq!(kinds(&many, "u9"), dearest);
        assert_eq!(kinds(&many, "u4"), [4, 8, 9, 10, 11].map(Kind::Bcrypt));
    }
}

//! The house rules that a compiler does not know: in, all sources; out, each place that breaks one.
//!
//! The checks are textual and light: comments and strings are blanked first, then words are looked for.
#![allow(clippy::unwrap_used, reason = "a source that cannot be read fails the test")]

use std::fs;
use std::path::{Path, PathBuf};

/// Folders (or files) of `src` in import order; those of one row do not see each other.
const ORDER: &[&[&str]] = &[
    &["base"],
    &["listen"],
    &["client"],
    &["route"],
    &["auth"],
    &["inspect"],
    &["authz"],
    &["limit"],
    &["balance"],
    &["forward"],
    &["stream"],
    &["observe"],
    &["acme", "control"],
    &["cli"],
    &["config"],
    &["import"],
    &["proxy"],
    // `explain` asks what the proxy would answer
    &["admin"],
    &["demo"],
    &["app"],
    &["lib", "main"],
];

/// Who may name Pingora.
const PINGORA: &[&str] = &["listen", "balance", "forward", "proxy", "app"];

/// Lines of a file, its tests aside.
const LONGEST: usize = 400;

/// Lines of a function, from its `fn` to its last brace.
const LONGEST_FUNCTION: usize = 60;

#[test]
fn the_house_rules_hold() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = files(&root.join("src"));
    let mut tests = files(&root.join("tests"));
    tests.extend(files(&root.join("benches")));
    assert!(sources.len() > 10 && !tests.is_empty(), "the sources were not found");

    let mut broken = Vec::new();
    for file in &sources {
        let name = file.strip_prefix(root.join("src")).unwrap().to_str().unwrap();
        broken.extend(check_source(name, &fs::read_to_string(file).unwrap()));
    }
    for file in &tests {
        let name = file.strip_prefix(root).unwrap().to_str().unwrap();
        broken.extend(check_any(name, &fs::read_to_string(file).unwrap()));
    }
    assert!(broken.is_empty(), "{} rule(s) broken:\n{}", broken.len(), broken.join("\n"));
}

/// All rules for a file of `src`; `name` is its path there.
fn check_source(name: &str, text: &str) -> Vec<String> {
    let mut broken = check_any(name, text);
    let code = blank(text);
    let (work, after) = if is_tests(name) { ("", "") } else { around_tests(&code) };

    broken.extend(imports(name, &code, work));
    if !PINGORA.contains(&stage(name)) && words(&code).any(|(_, word)| word.starts_with("pingora"))
    {
        broken.push(format!("{name}: names pingora, which is for {}", PINGORA.join(", ")));
    }
    if !after.trim().is_empty() {
        broken.push(format!("{name}: code after the tests, which stand last"));
    }
    let lines = work.lines().count();
    if lines > LONGEST {
        broken.push(format!("{name}: {lines} lines without tests, at most {LONGEST}"));
    }
    for (function, number, lines) in functions(work) {
        if lines > LONGEST_FUNCTION {
            broken.push(format!(
                "{name}:{number}: `{function}` has {lines} lines, at most {LONGEST_FUNCTION}"
            ));
        }
    }
    for (number, line) in work.lines().enumerate() {
        if line.contains(".unwrap()") || line.contains(".expect(") {
            broken.push(format!("{name}:{}: unwrap or expect outside tests", number + 1));
        }
    }
    broken
}

/// The rules for every Rust file, tests too.
fn check_any(name: &str, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    if !says_in_and_out(text) {
        broken.push(format!("{name}: its first `//!` says not: in, …; out, …"));
    }
    for (number, line) in blank(text).lines().enumerate() {
        if line.contains("#[ignore]") {
            broken.push(format!("{name}:{}: #[ignore] without a reason", number + 1));
        }
    }
    broken
}

/// Whether the first paragraph of a file's documentation says what comes in, and then what goes out.
fn says_in_and_out(text: &str) -> bool {
    let paragraph = text.lines().map_while(|line| line.strip_prefix("//!"));
    let paragraph: Vec<&str> = paragraph.take_while(|line| !line.trim().is_empty()).collect();
    let said = paragraph.join(" ").to_lowercase();
    let mut marks = words(&said)
        .filter_map(|(at, word)| said[at + word.len()..].starts_with([',', ':']).then_some(word));
    marks.any(|word| word == "in") && marks.any(|word| word == "out")
}

/// Each function with a body: its name, its first line, and how many lines it has.
fn functions(code: &str) -> Vec<(&str, usize, usize)> {
    let mut found = Vec::new();
    let mut all = words(code);
    while let Some((at, word)) = all.next() {
        // `fn(…)` is a type
        let rest = &code[at + word.len()..];
        if word != "fn" || !rest.trim_start().starts_with(|c: char| c.is_alphabetic() || c == '_') {
            continue;
        }
        let Some((_, name)) = all.next() else { break };
        let Some(body) = body_of(rest) else { continue };
        let end = code.len() - after_block(body).len();
        let first = code[..at].matches('\n').count();
        found.push((name, first + 1, code[..end].matches('\n').count() - first + 1));
    }
    found
}

/// What follows the `{` of a function's body; `None` where it has none.
fn body_of(signature: &str) -> Option<&str> {
    let mut depth = 0;
    for (at, c) in signature.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' if depth == 0 => return Some(&signature[at + 1..]),
            ';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// Modules of ours that `name` may not name: those after it in the order, or beside it.
fn imports(name: &str, code: &str, work: &str) -> Vec<String> {
    let own = stage(name);
    let Some(here) = place(own) else {
        return vec![format!("{name}: `{own}` has no place in the import order")];
    };
    let mut broken = Vec::new();
    for named in crate_paths(code) {
        let allowed = named == own
            || place(&named).is_some_and(|there| there < here)
            || ["lib", "main"].contains(&own);
        if !allowed {
            broken.push(format!("{name}: imports crate::{named}, which is not before `{own}`"));
        }
    }
    // `super::super::x` reaches the crate's root from `stage/file.rs`, `super::x` from `stage/mod.rs`.
    let depth = name.split('/').filter(|part| *part != "mod.rs").count();
    if work.contains(&"super::".repeat(depth)) {
        broken.push(format!("{name}: leaves its stage by `super`; write `crate::`"));
    }
    broken
}

/// What follows `crate::` in `code`; `crate::{a, b::c}` gives both.
fn crate_paths(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, word) in words(code).filter(|(_, word)| *word == "crate") {
        let Some(rest) = code[at + word.len()..].trim_start().strip_prefix("::") else { continue };
        let rest = rest.trim_start();
        match rest.strip_prefix('{') {
            Some(group) => found.extend(heads_of_group(group)),
            None => found.extend(words(rest).next().map(|(_, word)| word.to_owned())),
        }
    }
    found
}

/// The first word of each entry of a `{…}` group, nested groups skipped.
fn heads_of_group(group: &str) -> Vec<String> {
    let (mut depth, mut at_head, mut heads) = (1, true, Vec::new());
    for (at, c) in group.char_indices().filter(|(_, c)| !c.is_whitespace()) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => at_head = true,
            _ if at_head => {
                heads.extend(words(&group[at..]).next().map(|(_, word)| word.to_owned()));
                at_head = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

fn stage(name: &str) -> &str {
    name.split('/').next().unwrap_or(name).trim_end_matches(".rs")
}

fn place(stage: &str) -> Option<usize> {
    ORDER.iter().position(|row| row.contains(&stage))
}

fn is_tests(name: &str) -> bool {
    name.split('/').any(|part| part == "tests" || part == "tests.rs")
}

/// What stands before and after `#[cfg(test)] mod … {…}`.
fn around_tests(code: &str) -> (&str, &str) {
    let mut from = 0;
    while let Some(at) = code[from..].find("#[cfg(test)]").map(|at| at + from) {
        let rest = &code[at..];
        let head = rest.find(['{', ';']).map_or("", |end| &rest[..=end]);
        if head.ends_with('{') && words(head).any(|(_, word)| word == "mod") {
            return (&code[..at], after_block(&rest[head.len()..]));
        }
        from = at + 1;
    }
    (code, "")
}

/// What follows the `}` of a block that was opened before `code`.
fn after_block(code: &str) -> &str {
    let mut depth = 1;
    for (at, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &code[at + 1..];
        }
    }
    ""
}

/// Identifiers and where they start.
fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut from = 0;
    std::iter::from_fn(move || {
        let start = from + code[from..].find(is_word)?;
        let end = code[start..].find(|c| !is_word(c)).map_or(code.len(), |end| start + end);
        from = end;
        Some((start, &code[start..end]))
    })
}

/// `text` with comments, strings and characters blanked, line breaks kept.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skip = not_code(rest, out.chars().last());
        if skip == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            out.extend(rest[..skip].chars().map(|c| if c == '\n' { c } else { ' ' }));
            rest = &rest[skip..];
        }
    }
    out
}

/// How many bytes at the start of `rest` are a comment or a literal with text in it.
fn not_code(rest: &str, before: Option<char>) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return rest.find("*/").map_or(rest.len(), |end| end + 2);
    }
    if rest.starts_with('"') {
        return until_quote(rest, '"');
    }
    if rest.starts_with('r') && !before.is_some_and(|c| c.is_alphanumeric() && c != 'b') {
        let hashes = rest[1..].len() - rest[1..].trim_start_matches('#').len();
        if rest[1 + hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let body = 2 + hashes;
            return rest[body..].find(&close).map_or(rest.len(), |end| body + end + close.len());
        }
    }
    // 'x' and '\n' are characters, 'static is not
    let mut chars = rest.chars().skip(1);
    match (rest.starts_with('\''), chars.next(), chars.next()) {
        (true, Some('\\'), _) => until_quote(rest, '\''),
        (true, Some(c), Some('\'')) => 2 + c.len_utf8(),
        _ => 0,
    }
}

/// The length of a literal with escapes, both its quotes included.
fn until_quote(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Every `.rs` file below `folder`, build products aside; none where it is missing.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" && name != "node_modules" {
            found.extend(files(&path));
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
    found
}

/// What `check_source` says about a file with this code below a good first line.
fn says(name: &str, code: &str) -> String {
    check_source(name, &format!("//! In, a; out, b.\n{code}")).join("\n")
}

#[test]
fn a_good_file_passes() {
    let code = "use crate::base::head::Head;\nuse crate::client::Client;\n/// [`crate::app`]\nfn f<'a>() { \"crate::app\"; }\n";
    assert_eq!(says("auth/mod.rs", code), "");
}

#[test]
fn imports_against_the_order_are_found() {
    for code in [
        "use crate::balance::Pool;",
        "fn f() -> crate::balance::Pool { todo() }",
        "use crate::{base::head, balance};",
        "use crate::{base::{head, denial}, balance::Pool};",
        "use crate::{\n    balance,\n};",
        "fn g() { let c = '\"'; crate::balance::f(); }",
    ] {
        let said = says("auth/mod.rs", code);
        assert!(said.contains("imports crate::balance"), "{code}: {said:?}");
    }
    assert!(
        says("acme/mod.rs", "use crate::control::X;").contains("crate::control"),
        "a neighbour"
    );
    assert!(says("proxy/mod.rs", "use crate::admin::X;").contains("crate::admin"));
    assert!(says("route/mod.rs", "use crate::auth::X;").contains("crate::auth"));
    assert_eq!(says("config/mod.rs", "use crate::stream::X;"), "");
    assert_eq!(says("main.rs", "use crate::stream::X;"), "");
}

#[test]
fn super_out_of_the_stage_is_found() {
    assert!(says("auth/mod.rs", "use super::balance::X;").contains("super"));
    assert!(says("auth/jwt.rs", "use super::super::balance::X;").contains("super"));
    assert_eq!(says("auth/jwt.rs", "use super::Authenticate;"), "");
    assert_eq!(says("auth/mod.rs", "#[cfg(test)]\nmod tests {\n    use super::*;\n}"), "");
}

#[test]
fn a_new_folder_needs_a_place() {
    assert!(says("utils/mod.rs", "").contains("has no place"));
}

#[test]
fn pingora_has_its_places() {
    assert!(says("auth/mod.rs", "use pingora_core::X;").contains("pingora"));
    assert!(says("auth/mod.rs", "fn f(x: pingora::X) {}").contains("pingora"));
    assert_eq!(says("auth/mod.rs", "// as pingora does\n"), "");
    assert_eq!(says("forward/mod.rs", "use pingora_core::X;"), "");
}

#[test]
fn long_files_are_found() {
    assert!(says("auth/mod.rs", &"fn f() {}\n".repeat(400)).contains("401 lines"));
    assert_eq!(says("auth/mod.rs", &"fn f() {}\n".repeat(399)), "");
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}", "fn f() {}\n".repeat(400));
    assert_eq!(says("auth/mod.rs", &tests), "");
    let early = format!("#[cfg(test)]\nmod tests;\n{}", "fn f() {}\n".repeat(400));
    assert!(says("auth/mod.rs", &early).contains("lines"), "code below `mod tests;` counts");
    assert_eq!(says("auth/tests.rs", &"fn f() {}\n".repeat(500)), "");
}

#[test]
fn code_after_the_tests_is_found() {
    let tests = "#[cfg(test)]\nmod tests {\n    fn f() { '}'; }\n}\n";
    assert_eq!(says("auth/mod.rs", tests), "");
    assert!(says("auth/mod.rs", &format!("{tests}fn g() {{}}\n")).contains("after the tests"));
}

#[test]
fn missing_first_lines_are_found() {
    assert!(check_source("auth/mod.rs", "use std::fmt;\n").join("").contains("//!"));
    assert!(check_any("tests/e2e/main.rs", "mod support;\n").join("").contains("//!"));
    for good in [
        "//! A thing: in, this; out, that.\n//! More.",
        "//! In: this, with\n//! more; Out: that.\n\nfn f() {}",
        "//! Who? In, a\n//! head; as it came in; out, an answer.\n//!\n//! What else.",
    ] {
        assert_eq!(check_any("x.rs", good).join(""), "");
    }
    for bad in [
        "//! A thing that is good.",
        "//! A thing: in this, out that.",
        "//! Out, that; in, this.",
        "//! Within: this; without: that.",
        "//! A thing.\n//!\n//! In, this; out, that.",
        "//! In, this\nfn f() {} // out, that",
    ] {
        assert!(check_any("x.rs", bad).join("").contains("in, …; out, …"), "{bad}");
    }
}

#[test]
fn long_functions_are_found() {
    let of = |lines: usize| format!("fn long() {{\n{}}}\n", "    g();\n".repeat(lines - 2));
    assert_eq!(says("auth/mod.rs", &of(60)), "");
    assert!(says("auth/mod.rs", &of(61)).contains("auth/mod.rs:2: `long` has 61 lines"));
    let method = format!("struct S;\nimpl S {{\n    pub(super) async {}}}\n", of(61));
    assert!(says("auth/mod.rs", &method).contains(":4: `long`"));
    let signature = "fn f<T>(\n    a: [u8; 3],\n    b: fn(T) -> [T; 3],\n)\nwhere\n    T: Copy,\n";
    assert!(says("auth/mod.rs", &format!("{signature}{}", &of(55)[10..])).contains("`f` has 61"));
    // what has no body ends with its `;`
    let declared =
        format!("trait T {{\n    fn f(&self, a: [u8; 3]);\n{}}}", "    // x\n".repeat(90));
    assert_eq!(says("auth/mod.rs", &declared), "");
    assert_eq!(says("auth/mod.rs", &format!("const F: fn() = g;\n{}", of(60))), "");
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}", of(90));
    assert_eq!(says("auth/mod.rs", &tests), "");
    assert_eq!(says("auth/tests.rs", &of(90)), "");
}

#[test]
fn bare_ignores_are_found() {
    let bare = "#[cfg(test)]\nmod tests {\n#[ignore]\nfn f() {}\n}";
    assert!(says("auth/mod.rs", bare).contains(":4:"));
    assert_eq!(says("auth/mod.rs", "#[ignore = \"needs node\"]\nfn f() {}"), "");
}

#[test]
fn unwraps_outside_tests_are_found() {
    assert!(says("auth/mod.rs", "fn f() { g().unwrap(); }").contains(":2:"));
    assert!(says("auth/mod.rs", "fn f() { g().expect(\"never\"); }").contains("expect"));
    assert_eq!(says("auth/mod.rs", "#[cfg(test)]\nmod tests {\nfn f() { g().unwrap(); }\n}"), "");
    assert_eq!(says("auth/mod.rs", "// x.unwrap()\nfn f() { r#\"x.unwrap()\"#; }"), "");
}

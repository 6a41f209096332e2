//! Directives: in, a file; out, the tree of what it and its includes say, or the first line that is wrong.

use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::token::{Token, Tokens};
use crate::base::files;

/// Files in all; an include that comes twice counts twice.
const MOST_FILES: usize = 1000;
/// Directives in all.
const MOST_DIRECTIVES: usize = 100_000;
/// Blocks and includes within each other. Every level is a level of our own stack.
const DEEPEST: usize = 32;
/// Words of one directive; `server_name` may have many.
const MOST_WORDS: usize = 4096;

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    /// The order in which the file was read, so that places sort as a reader meets them.
    pub order: usize,
    /// The file as it is shown.
    pub file: Rc<str>,
    /// 1-based line.
    pub line: usize,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// One directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// Its first word.
    pub name: String,
    /// Its other words, quotes and escapes resolved.
    pub args: Vec<String>,
    /// Where it stands.
    pub at: At,
    /// What stands in its `{…}`; Lua is left out.
    pub block: Option<Vec<Self>>,
}

impl Directive {
    /// The word at this place, or nothing.
    pub fn arg(&self, index: usize) -> &str {
        self.args.get(index).map_or("", String::as_str)
    }

    /// What stands in its block.
    pub fn inner(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }
}

/// A whole configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    /// The main level.
    pub directives: Vec<Directive>,
    /// The folder that relative paths are relative to: the main file's.
    pub folder: PathBuf,
}

/// Reads a file and what it includes.
///
/// # Errors
/// The first place that cannot be read, as `file:line: what is wrong`.
pub fn read(path: &Path) -> Result<Tree, String> {
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let mut reader = Reader { folder: folder.clone(), ..Reader::default() };
    let directives = reader.file(path, 0).map_err(|problem| match problem {
        Problem::At(text) => text,
        Problem::Here(text) => format!("{}: {text}", path.display()),
    })?;
    Ok(Tree { directives, folder })
}

/// Reads a text; `include` is an error.
///
/// # Errors
/// As `read`.
pub fn read_text(text: &[u8], shown: &str) -> Result<Tree, String> {
    let mut reader = Reader { alone: true, ..Reader::default() };
    let directives = reader.text(text, shown, 0)?;
    Ok(Tree { directives, folder: PathBuf::new() })
}

#[derive(Default)]
struct Reader {
    folder: PathBuf,
    alone: bool,
    files: usize,
    directives: usize,
    /// The files that we are in the middle of, to find circles.
    open: Vec<PathBuf>,
}

/// What went wrong, with its place or still without one.
enum Problem {
    At(String),
    Here(String),
}

impl Reader {
    fn file(&mut self, path: &Path, depth: usize) -> Result<Vec<Directive>, Problem> {
        let real = path.canonicalize().map_err(|e| Problem::Here(format!("cannot read: {e}")))?;
        if self.open.contains(&real) {
            return Err(Problem::Here("the file includes itself".to_owned()));
        }
        let text = files::read(path).map_err(Problem::Here)?;
        self.open.push(real);
        let read = self.text(&text, &path.display().to_string(), depth).map_err(Problem::At);
        self.open.pop();
        read
    }

    fn text(&mut self, text: &[u8], shown: &str, depth: usize) -> Result<Vec<Directive>, String> {
        self.files += 1;
        let file: Rc<str> = shown.escape_debug().to_string().into();
        let mut tokens = Tokens::new(text);
        let at = At { order: self.files, file: file.clone(), line: 0 };
        self.block(&mut tokens, &at, depth, true).map_err(|problem| match problem {
            Problem::At(text) => text,
            Problem::Here(text) => format!("{file}:{}: {text}", tokens.line),
        })
    }

    /// Directives up to the `}`, or to the end of the file where `outer`.
    fn block(
        &mut self,
        tokens: &mut Tokens<'_>,
        file: &At,
        depth: usize,
        outer: bool,
    ) -> Result<Vec<Directive>, Problem> {
        if depth > DEEPEST {
            return here(format!("nested deeper than {DEEPEST} levels"));
        }
        let mut out = Vec::new();
        loop {
            let (name, line) = match tokens.next().map_err(Problem::Here)? {
                None if outer => return Ok(out),
                None => return here("a `}` is missing"),
                Some((Token::Close, _)) if !outer => return Ok(out),
                Some((Token::Close, _)) => return here("a `}` too many"),
                Some((Token::End | Token::Open, _)) => return here("a directive has no name"),
                Some((Token::Word(name), line)) => (name, line),
            };
            self.directives += 1;
            if self.directives > MOST_DIRECTIVES {
                return here(format!("more than {MOST_DIRECTIVES} directives"));
            }
            let at = At { line, ..file.clone() };
            let directive = self.directive(name, tokens, at, depth)?;
            if directive.name == "include" && directive.block.is_none() {
                out.extend(self.include(&directive, depth)?);
            } else {
                out.push(directive);
            }
        }
    }

    fn directive(
        &mut self,
        name: String,
        tokens: &mut Tokens<'_>,
        at: At,
        depth: usize,
    ) -> Result<Directive, Problem> {
        let mut args: Vec<String> = Vec::new();
        let block = loop {
            match tokens.next().map_err(Problem::Here)? {
                None => return here(format!("`{name}` ends with neither `;` nor `{{`")),
                Some((Token::Close, _)) => {
                    return here(format!("`{name}` needs a `;` before the `}}`"));
                }
                Some((Token::End, _)) => break None,
                Some((Token::Open, _)) if name.ends_with("_by_lua_block") => {
                    tokens.skip_lua().map_err(Problem::Here)?;
                    break Some(Vec::new());
                }
                Some((Token::Open, _)) => {
                    break Some(self.block(tokens, &at, depth + 1, false)?);
                }
                Some((Token::Word(word), _)) => args.push(word),
            }
            if args.len() > MOST_WORDS {
                return here(format!("`{name}` has more than {MOST_WORDS} words"));
            }
        };
        Ok(Directive { name, args, at, block })
    }

    /// What stands in the files that an `include` names: a path, or a pattern of them.
    fn include(&mut self, include: &Directive, depth: usize) -> Result<Vec<Directive>, Problem> {
        let bad = |problem: String| Problem::At(format!("{}: include: {problem}", include.at));
        let [pattern] = include.args.as_slice() else {
            return Err(bad("expected one path".to_owned()));
        };
        if self.alone {
            return Err(bad("there are no files here".to_owned()));
        }
        let mut out = Vec::new();
        for path in self.matches(pattern).map_err(bad)? {
            if self.files >= MOST_FILES {
                return Err(bad(format!("more than {MOST_FILES} files")));
            }
            let read = self.file(&path, depth + 1).map_err(|problem| match problem {
                Problem::Here(text) => bad(format!("{}: {text}", path.display())),
                at => at,
            })?;
            out.extend(read);
        }
        Ok(out)
    }

    /// In the order of their names, as glob(3) gives them. A pattern may match nothing, a path must exist.
    fn matches(&self, pattern: &str) -> Result<Vec<PathBuf>, String> {
        let path = self.folder.join(pattern);
        if !pattern.contains(['*', '?', '[']) {
            return Ok(vec![path]);
        }
        let folder = glob::Pattern::escape(&self.folder.display().to_string());
        let pattern = Path::new(&folder).join(pattern).display().to_string();
        // as glob(3): `*` neither crosses `/` nor finds hidden files
        let options = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: true,
        };
        let found = glob::glob_with(&pattern, options).map_err(|e| e.to_string())?;
        let mut paths = Vec::new();
        for path in found.take(MOST_FILES + 1) {
            paths.push(path.map_err(|e| e.to_string())?);
        }
        Ok(paths)
    }
}

fn here<T>(problem: impl Into<String>) -> Result<T, Problem> {
    Err(Problem::Here(problem.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn tree(text: &str) -> Result<Vec<Directive>, String> {
        read_text(text.as_bytes(), "n.conf").map(|tree| tree.directives)
    }

    #[test]
    fn directives_have_words_blocks_and_lines() {
        let all = tree("a 1;\n\nb {\n  c 'x y';\n  d;\n}\n").unwrap();
        assert_eq!((all[0].name.as_str(), all[0].arg(0), all[0].at.line), ("a", "1", 1));
        assert_eq!((all[1].at.line, all[1].inner().len()), (3, 2));
        assert_eq!(all[1].inner()[0].at.to_string(), "n.conf:4");
        assert_eq!(all[1].inner()[0].args, ["x y"]);
        let condition = tree("if ($a != \"b c\") { return 401; }").unwrap();
        assert_eq!(condition[0].args, ["($a", "!=", "b c", ")"]);
        let lua = tree("content_by_lua_block { say('}') } a;").unwrap();
        assert_eq!((lua.len(), lua[0].inner().len()), (2, 0));
    }

    #[test]
    fn mistakes_have_their_line() {
        for (text, problem) in [
            ("a;\n}", "n.conf:2: a `}` too many"),
            ("a {\nb;\n", "n.conf:3: a `}` is missing"),
            ("a\n", "n.conf:2: `a` ends with neither `;` nor `{`"),
            ("a { b }", "n.conf:1: `b` needs a `;` before the `}`"),
            (";", "n.conf:1: a directive has no name"),
            ("a \"", "n.conf:1: a quote is never closed"),
            ("\ninclude x;", "n.conf:2: include: there are no files here"),
        ] {
            assert_eq!(tree(text).unwrap_err(), problem);
        }
    }

    #[test]
    fn what_has_no_end_is_refused() {
        let deep = |n: usize| "a {".repeat(n) + &"}".repeat(n);
        assert!(tree(&deep(DEEPEST)).is_ok());
        assert!(tree(&deep(DEEPEST + 1)).unwrap_err().contains("deeper than"));
        assert!(tree(&"a {".repeat(200_000)).unwrap_err().contains("deeper than"));
        assert!(tree(&"a;".repeat(MOST_DIRECTIVES + 1)).unwrap_err().contains("directives"));
        assert!(
            tree(&format!("a {};", "b ".repeat(MOST_WORDS + 1))).unwrap_err().contains("words")
        );
    }

    #[test]
    fn includes_are_followed_with_patterns_and_without_circles() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        let main = dir.path().join("nginx.conf");
        fs::create_dir(dir.path().join("sites")).unwrap();
        file("sites/b.conf", "b;");
        file("sites/a.conf", "a { include one.inc; }");
        file("sites/.hidden.conf", "hidden;");
        file("one.inc", "one;");
        file("nginx.conf", "include sites/*.conf;\ninclude none/*.conf;\nlast;");
        let all = read(&main).unwrap().directives;
        let names: Vec<&str> = all.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "last"]);
        assert!(all[0].inner()[0].at.to_string().ends_with("/one.inc:1"));

        file("one.inc", "include sites/a.conf;");
        let problem = read(&main).unwrap_err();
        assert!(problem.contains("one.inc:1: include: "), "{problem}");
        assert!(problem.ends_with("the file includes itself"), "{problem}");

        file("one.inc", "x");
        assert!(read(&main).unwrap_err().contains("one.inc:1: `x` ends with neither"));
        file("nginx.conf", "\ninclude gone.conf;");
        assert!(read(&main).unwrap_err().contains("nginx.conf:2: include: "));
        assert!(read(&dir.path().join("gone")).is_err());
    }

    #[test]
    fn includes_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        for n in 0..DEEPEST + 2 {
            file(&format!("{n}"), &format!("include {};", n + 1));
        }
        assert!(read(&dir.path().join("0")).unwrap_err().contains("deeper than"));
        file("leaf", "a;");
        file("many", &"include leaf;".repeat(MOST_FILES + 1));
        assert!(read(&dir.path().join("many")).unwrap_err().contains("more than 1000 files"));
        file("large", &"#".repeat(files::MAX_FILE as usize + 1));
        assert!(read(&dir.path().join("large")).is_err());
    }
}

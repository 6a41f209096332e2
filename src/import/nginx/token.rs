//! Tokens: in, the bytes of a file; out, words and punctuation with lines, split where nginx splits them.

use crate::base::text::BOM;

/// Longer words are refused. nginx itself takes 4 KiB.
const LONGEST_WORD: usize = 16 << 10;

/// What a file is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A word, quotes and escapes resolved.
    Word(String),
    /// `;`
    End,
    /// `{`
    Open,
    /// `}`
    Close,
}

/// Reads tokens one by one.
pub(super) struct Tokens<'t> {
    rest: &'t [u8],
    /// 1-based line of what comes next.
    pub(super) line: usize,
}

impl<'t> Tokens<'t> {
    pub(super) fn new(text: &'t [u8]) -> Self {
        // a byte order mark is what nginx skips, too
        Self { rest: text.strip_prefix(&BOM).unwrap_or(text), line: 1 }
    }

    /// The next token and its line; `None` at the end.
    ///
    /// # Errors
    /// A sentence about the line that the reader stands on.
    pub(super) fn next(&mut self) -> Result<Option<(Token, usize)>, String> {
        self.skip_space();
        let line = self.line;
        let Some(&first) = self.rest.first() else { return Ok(None) };
        let token = match first {
            b';' => Token::End,
            b'{' => Token::Open,
            b'}' => Token::Close,
            b'"' | b'\'' => return Ok(Some((Token::Word(self.quoted(first)?), line))),
            _ => return Ok(Some((Token::Word(self.word()?), line))),
        };
        self.bump();
        Ok(Some((token, line)))
    }

    fn bump(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        self.line += usize::from(byte == b'\n');
        Some(byte)
    }

    fn skip_space(&mut self) {
        while let Some(&byte) = self.rest.first() {
            if byte == b'#' {
                let end = memchr::memchr(b'\n', self.rest).unwrap_or(self.rest.len());
                self.rest = self.rest.get(end..).unwrap_or_default();
            } else if is_space(byte) {
                self.bump();
            } else {
                return;
            }
        }
    }

    /// Up to the quote that closes; behind it nginx wants a space, `;`, `{` or `)`.
    fn quoted(&mut self, quote: u8) -> Result<String, String> {
        self.bump();
        let mut raw = Vec::new();
        loop {
            match self.bump() {
                None => return Err("a quote is never closed".to_owned()),
                Some(b'\\') => raw.extend([b'\\'].into_iter().chain(self.bump())),
                Some(byte) if byte == quote => break,
                Some(byte) => raw.push(byte),
            }
            bounded(&raw)?;
        }
        match self.rest.first() {
            // `if ($a = "b")`: the parenthesis is a word of its own
            Some(&byte) if !is_space(byte) && !matches!(byte, b';' | b'{' | b')') => {
                Err("unexpected text behind a quote".to_owned())
            }
            _ => resolve(&raw),
        }
    }

    fn word(&mut self) -> Result<String, String> {
        let mut raw = Vec::new();
        while let Some(&byte) = self.rest.first() {
            if is_space(byte) || matches!(byte, b';' | b'{') {
                break;
            }
            self.bump();
            raw.push(byte);
            let next = self.rest.first().copied();
            // `${name}` is part of the word
            if (byte == b'$' && next == Some(b'{')) || byte == b'\\' {
                raw.extend(self.bump());
            }
            bounded(&raw)?;
        }
        resolve(&raw)
    }

    /// Skips the Lua code of a `…_by_lua_block`, whose `{` has been read, and its `}`.
    pub(super) fn skip_lua(&mut self) -> Result<(), String> {
        let mut depth = 1_usize;
        loop {
            if let Some(end) = long_bracket(self.rest) {
                self.skip_past(&end)?;
                continue;
            }
            if self.rest.starts_with(b"--") {
                self.bump();
                self.bump();
                let until = long_bracket(self.rest).unwrap_or_else(|| b"\n".to_vec());
                self.skip_past(&until)?;
                continue;
            }
            match self.bump() {
                None => return Err("a block of Lua is never closed".to_owned()),
                Some(quote @ (b'"' | b'\'')) => self.skip_lua_text(quote)?,
                Some(b'{') => depth += 1,
                Some(b'}') => depth -= 1,
                Some(_) => {}
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    fn skip_lua_text(&mut self, quote: u8) -> Result<(), String> {
        loop {
            match self.bump() {
                None | Some(b'\n') => return Err("a text in Lua is never closed".to_owned()),
                Some(b'\\') => {
                    self.bump();
                }
                Some(byte) if byte == quote => return Ok(()),
                Some(_) => {}
            }
        }
    }

    fn skip_past(&mut self, end: &[u8]) -> Result<(), String> {
        while !self.rest.starts_with(end) {
            self.bump().ok_or("a comment or text in Lua is never closed")?;
        }
        for _ in end {
            self.bump();
        }
        Ok(())
    }
}

/// What closes the Lua long bracket (`[[`, `[=[` …) that starts here.
fn long_bracket(text: &[u8]) -> Option<Vec<u8>> {
    let inner = text.strip_prefix(b"[")?;
    let level = inner.iter().take_while(|&&b| b == b'=').count();
    if level > 16 || inner.get(level) != Some(&b'[') {
        return None;
    }
    Some([b"]".as_slice(), &vec![b'='; level], b"]"].concat())
}

fn bounded(raw: &[u8]) -> Result<(), String> {
    if raw.len() > LONGEST_WORD {
        return Err(format!("a word has more than {} KiB", LONGEST_WORD >> 10));
    }
    Ok(())
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// The escapes that nginx resolves: `\"`, `\'`, `\\`, `\t`, `\r`, `\n`; any other stays as it is.
fn resolve(raw: &[u8]) -> Result<String, String> {
    let mut out = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let escaped = match (byte, bytes.peek()) {
            (b'\\', Some(&same @ (b'"' | b'\'' | b'\\'))) => Some(same),
            (b'\\', Some(b't')) => Some(b'\t'),
            (b'\\', Some(b'r')) => Some(b'\r'),
            (b'\\', Some(b'n')) => Some(b'\n'),
            _ => None,
        };
        if escaped.is_some() {
            bytes.next();
        }
        out.push(escaped.unwrap_or(byte));
    }
    let text = String::from_utf8(out).map_err(|_| "a word is not UTF-8".to_owned())?;
    if text.contains(|c: char| c.is_control() && !matches!(c, '\t' | '\r' | '\n')) {
        return Err("a word has a control character".to_owned());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<Vec<String>, String> {
        let mut tokens = Tokens::new(text.as_bytes());
        let mut out = Vec::new();
        while let Some((token, _)) = tokens.next()? {
            out.push(match token {
                Token::Word(word) => word,
                Token::End => ";".into(),
                Token::Open => "{".into(),
                Token::Close => "}".into(),
            });
        }
        Ok(out)
    }

    #[test]
    fn words_end_where_nginx_ends_them() {
        for (text, expected) in [
            ("a b;c", &["a", "b", ";", "c"][..]),
            ("a{b;}", &["a", "{", "b", ";", "}"]),
            ("a # not ; this\nb#c;", &["a", "b#c", ";"]),
            ("\"a b\" 'c;{}#';", &["a b", "c;{}#", ";"]),
            (r#""a\"b" 'c\'d' e\ f g\.h \\i"#, &["a\"b", "c'd", "e\\ f", "g\\.h", "\\i"]),
            ("${a}b$c;", &["${a}b$c", ";"]),
            ("a}b;", &["a}b", ";"]),
            ("x\"y\";", &["x\"y\"", ";"]),
            ("\u{feff}a;", &["a", ";"]),
            ("if ($a = \"b\") {", &["if", "($a", "=", "b", ")", "{"]),
            ("if ($a = \"b)\" ) {", &["if", "($a", "=", "b)", ")", "{"]),
        ] {
            assert_eq!(words(text).unwrap(), expected, "{text}");
        }
        for bad in ["\"a", "'a", "\"a\"b;", "a\u{1}b;", "\"\u{1}\""] {
            assert!(words(bad).is_err(), "{bad:?}");
        }
        let mut long = Tokens::new(b"\xff;");
        assert!(long.next().is_err(), "not UTF-8");
        assert!(words(&"a".repeat(LONGEST_WORD)).is_ok());
        assert!(words(&"a".repeat(LONGEST_WORD + 1)).is_err());
        assert!(words(&format!("'{}'", "a".repeat(LONGEST_WORD + 1))).is_err());
    }

    #[test]
    fn lua_ends_at_its_own_brace() {
        for lua in [
            "x = { a = { } } } after;",
            "s = '}' t = \"\\\"}\" } after;",
            "-- a comment with }\n} after;",
            "--[[ } ]] --[==[ } ]] ]==] } after;",
            "s = [[ } ]] t = a[1] u = [=[ ]] } ]=] } after;",
        ] {
            let mut tokens = Tokens::new(lua.as_bytes());
            tokens.skip_lua().unwrap();
            assert_eq!(tokens.next().unwrap().unwrap().0, Token::Word("after".into()), "{lua}");
        }
        for bad in ["", "{", "'\n'}", "--[[ }", "[[ }"] {
            assert!(Tokens::new(bad.as_bytes()).skip_lua().is_err(), "{bad}");
        }
    }
}

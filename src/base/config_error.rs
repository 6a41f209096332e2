//! One mistake in a config: in, where it stands and a sentence; out, a line for people.

use std::fmt;

/// One mistake in a config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// 1-based line; 0 when no place can be named.
    pub line: usize,
    /// Such as `routes[2].auth[0]`.
    pub path: String,
    /// What is wrong and what is expected.
    pub problem: String,
}

/// `12: routes[2].auth: what is wrong`; what has no place is left out.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}: ", self.line)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.problem)
    }
}

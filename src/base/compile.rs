//! Config machinery shared by all stages: a YAML tree with lines, and a context that collects every error.

use std::path::PathBuf;

/// A value of the config with the place it stands at.
#[derive(Debug, Clone)]
pub struct Node {
    /// 1-based line.
    pub line: usize,
    /// What it is.
    pub kind: NodeKind,
}

/// The shapes of YAML that a config may have.
#[derive(Debug, Clone)]
pub enum NodeKind {
    /// `~`, `null` or nothing.
    Null,
    /// A scalar, `${…}` already substituted. `plain` when it stood without quotes.
    Scalar {
        /// Its text.
        text: String,
        /// Whether it stood without quotes.
        plain: bool,
    },
    /// A list.
    Seq(Vec<Node>),
    /// A map in the order of the file: key, the key's line, value.
    Map(Vec<(String, usize, Node)>),
}

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

/// Collects errors while a config is compiled; knows where we are.
#[derive(Debug, Default)]
pub struct Cx {
    /// All errors so far.
    pub errors: Vec<ConfigError>,
    /// The folder that relative paths are relative to: the config file's.
    pub base_dir: PathBuf,
    path: Vec<String>,
}

impl Cx {
    /// Notes a mistake at `node`.
    pub fn error(&mut self, node: &Node, problem: impl Into<String>) {
        let path = self.path.concat();
        self.errors.push(ConfigError { line: node.line, path, problem: problem.into() });
    }
}

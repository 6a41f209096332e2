//! nginx.conf as nginx reads it: in, a file and what it includes; out, a tree of directives with lines.
//!
//! Our own reader, and a small one. The crates there are were made to lint or to format: of the two
//! that take unknown directives and keep lines, one has had no release since 2018 and the other
//! recurses as deep as the file says, guesses on after mistakes and follows no includes. Here a wrong
//! guess opens a door, so tokens end where `ngx_conf_read_token` ends them, everything is bounded,
//! and what cannot be read ends the import.

mod parse;
mod token;

pub use parse::{At, Directive, Tree, read, read_text};

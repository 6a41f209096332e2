//! Shared types: in, nothing of ours; out, the words that every stage speaks.

pub mod alarm;
pub mod body;
pub mod caller;
pub mod chunked;
pub mod cidr;
pub mod compile;
pub mod defaults;
pub mod denial;
pub mod edits;
pub mod fields;
pub mod files;
pub mod head;
pub mod io;
pub mod keep;
pub mod limits;
pub mod memory;
pub mod names;
pub mod principal;
pub mod rate;
pub mod rules;
pub mod table;
pub mod text;
pub mod url;
pub mod value;
pub mod watch;

//! Shared types: in, nothing of ours; out, the words that every stage speaks.

pub mod alarm;
pub mod body;
pub mod caller;
pub mod chunked;
pub mod cidr;
pub mod denial;
pub mod head;
pub mod io;
pub mod limits;
pub mod names;
pub mod principal;
pub mod rate;
pub mod compile;
pub mod edits;
pub mod fields;
pub mod defaults;
pub mod files;
pub mod table;
pub mod text;
pub mod url;
pub mod value;
pub mod watch;

//! Which route? In: a head; out: the `Route` it belongs to and the path its backend gets, or a `Denial`.
//!
//! What two readers could take for different paths is refused before anything is matched, and the
//! backend gets exactly the bytes that were matched.

pub mod access;
pub mod compile;
pub mod cors;
pub mod dress;
pub mod listeners;
pub mod methods;
pub mod origin;
pub mod outgoing;
pub mod path;
pub mod settings;
pub mod table;

pub use table::{Routed, Routes};

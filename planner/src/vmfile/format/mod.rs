//! The canonical form of a VMFile: indentation, line ends and the order of nodes.
//!
//! ```text
//! text ─pieces─▶ tokens and comments ─tree─▶ nodes with their comments ─arrange─▶ in order ─print─▶ text
//! ```
//!
//! It works on the text at the spans of its tokens, so that every name, value and comment stays as it is written; the
//! kdl crate, which has a printer of its own, never sees a comment. What a file means plays no part: only `order` knows
//! nodes by their names, and a file with errors of meaning is formatted like any other. `text` is the door; it reads
//! what comes out and compares it with what went in.

mod arrange;
mod edit;
mod literal;
mod order;
mod pieces;
mod print;
#[cfg(test)]
mod properties;
mod text;
mod tree;

pub use edit::{describes_machines, machines, with_machine, with_name, with_power, without_machine};
pub use text::format;

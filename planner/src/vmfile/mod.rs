//! From source text to the desired state.
//!
//! ```text
//! text ─scan─▶ text without comments ─source─▶ tree ─decode─▶ ast::File ─resolve─▶ Desired
//! ```
//!
//! Each stage collects what is wrong and goes on as long as the next one can make sense of the rest, so that one
//! run tells everything. `scan`, `source` and `decode` are pure; only `load` and `resolve` touch the disk.
//!
//! `scan` is a recogniser of its own in front of the kdl crate, because that crate overflows the stack on deep
//! nesting and explains the usual mistakes poorly. `format` stands beside this: it rewrites the text, and asks `source`
//! whether it still says the same.

pub mod ast;
mod decode;
mod depend;
mod duration;
mod fields;
mod files;
mod format;
mod grammar;
mod lex;
mod lifecycle;
mod load;
mod login;
mod readiness;
mod renames;
mod report;
mod resolve;
mod scan;
mod source;
mod suggest;
mod words;

pub(crate) use files::content_digest;
pub use format::format;
pub use load::{FILE_NAME, Images, LoadOptions, Loaded, discover, load, parse, project, removed, text};
pub use report::{Place, Problem, Report, Severity};

//! From source text to the desired state, in two passes.
//!
//! ```text
//! 1. read      text ─scan─▶ text without comments ─source─▶ nodes ─shape─▶ ast: as written, includes followed
//! 2. resolve   ast ─expand─▶ machines without references ─decode─▶ typed ─resolve─▶ Desired
//! ```
//!
//! Each stage collects what is wrong and goes on as long as the next one can make sense of the rest, so that one
//! run tells everything. Nothing behind `source` knows KDL. `expand` and `decode` are pure; only `read`, `load` and
//! `resolve` touch the disk.
//!
//! `scan` is a recogniser of its own in front of the kdl crate, because that crate overflows the stack on deep
//! nesting and explains the usual mistakes poorly. `format` stands beside this: it rewrites the text, and asks `source`
//! whether it still says the same.

pub mod ast;
mod decode;
mod depend;
mod duration;
mod expand;
mod fields;
mod files;
mod format;
mod forward;
pub mod grammar;
mod hardware;
mod image;
mod interpolate;
mod lex;
mod lifecycle;
mod load;
mod login;
mod network;
mod output;
mod plain;
mod propolis;
mod provision;
mod read;
mod readiness;
mod renames;
mod report;
mod resolve;
mod scan;
mod secrets;
mod seed;
mod sensitive;
mod shape;
mod size;
mod source;
mod sources;
mod suggest;
pub mod typed;
mod users;
mod volume;
mod words;
mod write;

pub use duration::parse_duration;
pub use expand::Given;
pub(crate) use files::content_digest;
pub use format::{
    describes_machines, format, machines, with_machine, with_name, with_power, without_machine,
};
pub use load::{
    FILE_NAME, HIDDEN, Images, LoadOptions, Loaded, Pins, discover, load, parse, project, removed, text,
};
pub use report::{Place, Problem, Related, Report, Severity};
pub use scan::MAX_BYTES;
pub use size::{parse_disk, parse_memory};
pub(crate) use write::template;
pub use write::{NewMachine, NewNode, remembered, write, write_machine};

//! Graphs as pictures: what a plan does step by step, and what a VMFile is made of.
//!
//! ```text
//! StepGraph ┐            ┌─ dot ─────▶ Graphviz text
//!           ├─▶ Picture ─┼─ mermaid ─▶ a flowchart for Markdown
//! Desired ──┘            └─ svg ─────▶ a drawing, laid out here
//! ```
//!
//! A [`Picture`] is plain data; the printers are pure: same picture, same bytes. Labels may hold anything, text of a
//! guest included: each printer escapes them for its own format. See `docs/decisions/0009-pictures.md` for why the
//! layout is our own.

mod dot;
mod from;
mod label;
mod layout;
mod mermaid;
mod model;
mod svg;

pub use dot::dot;
pub use mermaid::mermaid;
pub use model::{Picture, PictureEdge, PictureNode, Tone};
pub use svg::{STYLE, svg};

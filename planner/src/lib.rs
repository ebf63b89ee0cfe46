//! From a VMFile to machines that run: desired state, plan, step graph, apply.
//!
//! ```text
//! VMFile.kdl ──vmfile──▶ ast ──resolve──▶ Desired ┐
//!                             state ──▶ recorded  ├─ diff ─▶ Plan (changes + step graph) ─ apply ─▶ events
//!                         providers ──▶ observed  ┘
//! ```

pub mod desired;
pub mod vmfile;

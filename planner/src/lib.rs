//! From a VMFile to machines that run: desired state, plan, step graph, apply.
//!
//! ```text
//! VMFile.kdl ──vmfile──▶ ast ──resolve──▶ Desired ┐
//!                             state ──▶ recorded  ├─ diff ─▶ Plan (changes + step graph) ─ apply ─▶ events
//!                         providers ──▶ observed  ┘
//! ```

pub mod apply;
pub mod change;
pub mod desired;
pub mod diff;
pub mod document;
pub mod fields;
pub mod graph;
pub mod observed;
pub mod plan;
pub mod recorded;
pub mod step;
pub mod vmfile;

pub use change::{Action, Change, FieldChange};
pub use desired::{Desired, DesiredVm, Power, Until};
pub use document::PlanDocument;
pub use graph::{StepGraph, StepId};
pub use observed::{Observed, Sight, refresh};
pub use plan::{Inputs, Plan, PlanError, Summary};
pub use recorded::{RecordedVm, other_vmfile};
pub use step::{Step, StepKind};

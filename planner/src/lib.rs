//! From a VMFile to machines that run: desired state, plan, step graph, apply.
//!
//! ```text
//! VMFile.kdl ──vmfile──▶ ast ──resolve──▶ Desired ┐
//!                             state ──▶ recorded  ├─ diff ─▶ decisions ─▶ Plan (changes + step graph) ─ apply ─▶ events
//!                         providers ──▶ observed  ┘                        │
//!                                                                          ├─ document ─▶ JSON, text, reports
//!                                                                          └─ saved ────▶ a file, planned again
//! ```

mod accept;
pub mod admission;
pub mod apply;
pub mod change;
pub mod checks;
mod decisions;
pub mod desired;
pub mod diff;
pub mod document;
pub mod drift;
pub mod failpoints;
pub mod fields;
mod found;
pub mod graph;
mod leaders;
mod moves;
pub mod not_yet;
pub mod observed;
mod obstacles;
pub mod outputs;
pub mod picture;
pub mod pins;
pub mod plan;
mod private;
mod provisioning;
pub mod recorded;
mod registry;
pub mod resolved;
pub mod saved;
pub mod scope;
mod sequence;
pub mod step;
mod target;
pub mod texts;
pub mod turn;
pub mod values;
pub mod vmfile;
mod volumes;
pub mod warm;

pub use admission::{AdmissionError, Shortage, ShortageKind, shortages};
pub use change::{
    Accepts, Action, Change, FieldChange, LeftAlone, LeftAloneKind, ProvisionRun, Refusal, RefusalKind,
    TextDiff,
};
pub use checks::{CheckResult, CheckStatus};
pub use desired::{Desired, DesiredVm, Power, Until};
pub use diff::brought_to;
pub use document::PlanDocument;
pub use drift::{Drift, DriftKind};
pub use found::record_of;
pub use graph::{StepGraph, StepId, Wait};
pub use observed::{Looked, Observed, Sight, refresh};
pub use plan::{Inputs, Plan, PlanError, Summary};
pub use provisioning::Asked;
pub use recorded::{RecordedVm, holds_sealed, other_vmfile};
pub use registry::{OldMachine, OldNetwork, RegistryProblem, parse_registry};
pub use saved::{Moved, SavedPlan, SavedPlanError};
pub use scope::{Mode, Options, UnknownMachine};
pub use step::{Step, StepKind};
pub use turn::Turn;
pub use values::{KeptValues, Values, VariableValue};
pub use volumes::KeptVolume;

//! What an apply tells while it runs and when it ends.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use vmctl_providers::image::FetchProgress;
use vmctl_providers::provision::OutputLine;
use vmctl_providers::{Error, Secrets};
use vmctl_state::{Address, Outcome, StoreError};

use crate::graph::{CycleError, StepId};
use crate::pins::Locked;
use crate::recorded::RecordError;
use crate::step::{Step, StepKind};

/// Something that happened during an apply.
#[derive(Debug, Clone)]
pub enum Event {
    /// A step began; it is journalled already.
    Started(StepId),
    /// A step ended well.
    Done {
        /// Which.
        id: StepId,
        /// How long it took.
        elapsed: Duration,
        /// What people should know of it, such as a stop that needed force.
        note: Option<String>,
    },
    /// A provisioning step need not run: its machine came provisioned from a template that was kept meanwhile.
    Spared(StepId),
    /// A step failed.
    Failed {
        /// Which.
        id: StepId,
        /// Why.
        failure: Failure,
    },
    /// A step will not run.
    Skipped {
        /// Which.
        id: StepId,
        /// The step whose failure is the reason.
        because: StepId,
    },
    /// An image comes from a server.
    Progress {
        /// By which step.
        id: StepId,
        /// How far it is.
        progress: FetchProgress,
    },
    /// A guest printed a line.
    Output {
        /// During which step.
        id: StepId,
        /// Which machine.
        address: Address,
        /// What it printed.
        line: OutputLine,
    },
    /// A step failed and is tried again after a pause.
    Retrying {
        /// Which.
        id: StepId,
        /// Why.
        failure: Failure,
        /// Which try it was, from 1.
        attempt: u8,
        /// How many tries there are.
        of: u8,
        /// How long the pause is.
        after: Duration,
    },
    /// A step only waited, or brought an image that it goes on with next time, and was ended because nothing that comes after it will begin.
    GivenUp(StepId),
    /// A start waits until there is memory for it; told once for each.
    Throttled {
        /// Which.
        id: StepId,
        /// What its machine may come to hold, in bytes.
        needed: u64,
        /// What is left when boots under way have taken all they may, in bytes.
        available: u64,
    },
    /// Lines that a guest printed here are left out, because whoever shows events was slower than the guest.
    Dropped {
        /// During which step.
        id: StepId,
        /// Which machine.
        address: Address,
        /// How many.
        lines: u64,
    },
    /// No new steps are started, because the user asked to stop.
    Draining {
        /// Steps that run and go on to their end.
        awaited: Vec<StepId>,
    },
}

/// Why a step failed, as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Machine-readable class.
    pub kind: String,
    /// What was attempted, with what.
    pub message: String,
    /// The causes below it, outermost first.
    pub chain: Vec<String>,
    /// What to do next.
    pub help: Option<String>,
    /// Last lines of the guest's output.
    pub tail: Vec<String>,
    /// Whether nobody knows how much of its work the step did.
    pub unknown: bool,
}

impl Failure {
    /// A step whose code panicked: a bug that is reported like any failure, so that other steps go on.
    pub(super) fn panicked(detail: String) -> Self {
        Self {
            kind: "bug".to_owned(),
            message: format!("the step panicked: {detail}"),
            chain: Vec::new(),
            help: Some(
                "this is a bug in vmctl; everything else went on, and the next plan looks again".to_owned(),
            ),
            tail: Vec::new(),
            unknown: true,
        }
    }

    /// Why the work of a step of this kind could not be taken for done, although it began.
    pub(super) fn of_begun(kind: StepKind, error: &Error) -> Self {
        Self { unknown: matches!(kind, StepKind::Provision(_)), ..Self::from(error) }
    }

    /// The same with every sensitive value hidden.
    pub(super) fn hidden(self, secrets: &Secrets) -> Self {
        let hide = |text: String| secrets.hide(&text);
        let hide_all = |texts: Vec<String>| texts.into_iter().map(hide).collect();
        Self {
            kind: self.kind,
            message: hide(self.message),
            chain: hide_all(self.chain),
            help: self.help.map(hide),
            tail: hide_all(self.tail),
            unknown: self.unknown,
        }
    }

    /// The form that is journalled.
    pub(super) fn outcome(&self) -> Outcome {
        Outcome::Failed { kind: self.kind.clone(), message: self.message.clone(), chain: self.chain.clone() }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let mut chain = Vec::new();
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            chain.push(error.to_string());
            cause = error.source();
        }
        Self {
            kind: error.kind().as_str().to_owned(),
            message: error.to_string(),
            chain,
            help: error.help(),
            tail: error.tail().to_vec(),
            unknown: matches!(error, Error::ProvisionCut { .. }),
        }
    }
}

/// What an apply did.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Steps that ended well.
    pub done: Vec<StepId>,
    /// Provisioning steps that needed not run, because their machine came provisioned from a template.
    pub spared: Vec<StepId>,
    /// Steps that failed, and why.
    pub failed: Vec<(StepId, Failure)>,
    /// Steps that were skipped, and the failed step that is the reason.
    pub skipped: Vec<(StepId, StepId)>,
    /// Steps that were cut off; what became of them is unknown.
    pub abandoned: Vec<StepId>,
    /// Steps that only waited, and whose waiting was ended, and downloads. They changed nothing of any machine; the next
    /// apply waits again, and goes on with what came already.
    pub given_up: Vec<StepId>,
    /// Steps that were not begun because the user asked to stop, or because of a failure where the first one ends the
    /// apply.
    pub not_begun: Vec<StepId>,
    /// The failure after which nothing new was begun.
    pub failed_fast: Option<StepId>,
    /// Whether the user asked to stop.
    pub interrupted: bool,
    /// The images that came from servers, by URL as it is shown.
    pub fetched: BTreeMap<String, Locked>,
}

impl Report {
    /// Whether everything that was planned was done.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty()
            && self.skipped.is_empty()
            && self.abandoned.is_empty()
            && self.given_up.is_empty()
            && self.not_begun.is_empty()
    }
}

/// An apply could not be carried on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The state could not be written. Steps that ran were waited for; the next plan looks at what they did.
    #[error("cannot record what was done")]
    Store(#[from] StoreError),
    /// A record is not understood.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The steps wait for each other.
    #[error(transparent)]
    Cycle(#[from] CycleError),
    /// The state moved since the plan was made.
    #[error("the plan was made for serial {planned} of the state, which is at serial {found} now")]
    Stale {
        /// Serial of the plan.
        planned: u64,
        /// Serial of the state.
        found: u64,
    },
    /// Something that the plan needs is not there; nothing was done.
    #[error("{} of the planned machines cannot be made on this host", .0.len())]
    Preflight(Vec<(Address, Failure)>),
    /// A step refers to a machine that neither the plan nor the state knows: a bug of the planner.
    #[error("`{0}` has nothing to act on; this is a bug in vmctl")]
    Unknown(Step),
}

//! Machines that are started, stopped, suspended or resumed by name, as they are recorded. Pure.

use serde::{Deserialize, Serialize};
use vmctl_providers::{BackendTag, VmState};
use vmctl_state::{Phase, Record};

use crate::change::{Action, Change, Refusal};
use crate::diff::{is_live, recorded_state, state_now};
use crate::observed::Sight;
use crate::obstacles::cannot_be_worked_on;
use crate::recorded::handle_of;
use crate::step::StepKind;

/// What is to become of machines that stay as they are otherwise. What the VMFile says of them changes nothing, and is
/// what the next plan is made towards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Turn {
    /// They run; those that are suspended go on.
    Start,
    /// They are off.
    Stop,
    /// They keep their memory, and their processors stand still. Those that are off cannot.
    Suspend,
    /// Those that are suspended run on. Those that are off cannot.
    Resume,
}

impl Turn {
    /// The word for it, as in the command's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
        }
    }
}

/// Decides what one recorded machine needs for it.
pub(crate) fn turned(change: &mut Change, record: &Record, sight: Option<&Sight>, turn: Turn) {
    let half_made = match record.phase {
        Phase::Preparing => Some("its creation did not end, and `vmctl apply` finishes it"),
        Phase::Destroying => Some("its destruction was begun, and `vmctl apply` finishes it"),
        Phase::Prepared | Phase::Running | Phase::Suspended | Phase::Stopped => None,
    };
    if let Some(why) = half_made {
        change.refused = Some(Refusal::state(why));
        return;
    }
    let state = state_now(record, sight).unwrap_or_else(|| recorded_state(record.phase));
    let is_recorded = match turn {
        Turn::Start | Turn::Resume => Phase::Running,
        Turn::Stop => Phase::Stopped,
        Turn::Suspend => Phase::Suspended,
    } == record.phase;
    match turn {
        Turn::Stop if is_live(state) || matches!(record.phase, Phase::Running | Phase::Suspended) => {
            change.down.push(StepKind::Stop);
            change.action = Action::Stop;
        }
        Turn::Start if !is_live(state) => up(change, StepKind::Start, Action::Start),
        Turn::Start | Turn::Resume if state == VmState::Suspended => {
            up(change, StepKind::Resume, Action::Resume);
        }
        Turn::Start if !is_recorded => up(change, StepKind::Start, Action::Start),
        Turn::Suspend if is_live(state) && cannot_pause(record) => {
            change.refused = Some(Refusal::state(
                "a machine of Propolis cannot be suspended: its server has no request for it; `vmctl stop` stops it",
            ));
        }
        Turn::Suspend if state == VmState::Running || (state == VmState::Suspended && !is_recorded) => {
            up(change, StepKind::Suspend, Action::Suspend);
        }
        Turn::Suspend | Turn::Resume if !is_live(state) => {
            change.refused = Some(Refusal::state("it does not run; `vmctl start` starts it"));
        }
        Turn::Start | Turn::Stop | Turn::Suspend | Turn::Resume => {}
    }
    if let Some((kind, reason)) = cannot_be_worked_on(change, sight) {
        change.leave_alone(kind, reason);
    }
}

/// Whether its backend cannot pause it.
fn cannot_pause(record: &Record) -> bool {
    matches!(handle_of(record), Ok(Some(handle)) if handle.backend == BackendTag::Propolis)
}

fn up(change: &mut Change, step: StepKind, action: Action) {
    change.up.push(step);
    change.action = action;
}

//! Which provisioning steps of a machine run, and which of them ran for good. Pure.
//!
//! ```text
//! on-change   it changed or never ran, or a step before it does for that reason
//! once        it never ran on this machine; afterwards nothing makes it run again
//! always      with every plan; by itself, it makes no other step run
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use vmctl_providers::provision::{ProvisionStep, Run};
use vmctl_state::{ProvisionRecord, RanOnce, Record};

use crate::change::{Change, Refusal};
use crate::desired::DesiredVm;
use crate::fields::{ALL, PROVISION};

/// What `vmctl provision` is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Asked {
    /// Only these steps, by number or by what they are called; all if empty.
    pub steps: BTreeSet<String>,
    /// Whether or not they ran.
    pub force: bool,
}

impl Asked {
    /// Whether it is about `step`.
    pub(crate) fn means(&self, step: &ProvisionStep) -> bool {
        self.steps.is_empty() || self.steps.iter().any(|named| is_called(step, named))
    }
}

/// Whether `named` is the number of the step or what it is called.
pub(crate) fn is_called(step: &ProvisionStep, named: &str) -> bool {
    *named == step.label || named.parse() == Ok(step.number)
}

/// The steps of a machine that run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// Their numbers, in order.
    pub(crate) numbers: Vec<usize>,
    /// Number of steps, from the first, that count as done whatever becomes of those that run. One of them may run all
    /// the same, by itself.
    pub(crate) kept: usize,
}

impl Due {
    /// All steps of a machine that is made.
    pub(crate) fn all(desired: &DesiredVm) -> Self {
        Self { numbers: desired.provision.iter().map(|step| step.number).collect(), kept: 0 }
    }

    /// The steps of a machine that is made from a template: those that run with every plan.
    pub(crate) fn cloned(desired: &DesiredVm) -> Self {
        let always = desired.provision.iter().filter(|step| step.options.run == Run::Always);
        Self { numbers: always.map(|step| step.number).collect(), kept: desired.provision.len() }
    }

    /// What a plan runs on a machine that is kept.
    pub(crate) fn of(desired: &DesiredVm, record: &Record) -> Self {
        Self::since(desired, record, false)
    }

    /// The same; with `anew`, as if none of the steps had run that may run more than once.
    fn since(desired: &DesiredVm, record: &Record, anew: bool) -> Self {
        let steps = &desired.provision;
        let ignored = &desired.lifecycle.ignore_changes;
        let is_ignored = ignored.contains(PROVISION) || ignored.contains(ALL);
        let is_as_it_ran = |step: &ProvisionStep| {
            let ran = record.provisioned.get(step.number - 1);
            ran.is_some_and(|ran| is_ignored || step.digest.as_str() == ran.digest)
        };
        let (once, _) = ran_once(steps, record);
        let (mut due, mut follows) = (Self { numbers: Vec::new(), kept: steps.len() }, false);
        for step in steps.iter().filter(|step| !once.contains_key(&step.number)) {
            if !follows && (anew || !is_as_it_ran(step)) {
                follows = true;
                due.kept = step.number - 1;
            }
            if follows || step.options.run == Run::Always {
                due.numbers.push(step.number);
            }
        }
        due
    }

    /// What `vmctl provision` runs: what is due, or what is asked for whether or not it is.
    pub(crate) fn asked(desired: &DesiredVm, record: &Record, asked: &Asked) -> Result<Self, Refusal> {
        let everything = asked.force && asked.steps.is_empty();
        let mut due = Self::since(desired, record, everything);
        if asked.steps.is_empty() {
            return Ok(due);
        }
        let mut numbers = Vec::new();
        for step in &desired.provision {
            let is_due = due.numbers.contains(&step.number);
            if !asked.means(step) {
                if is_due && step.number > due.kept && later_is_meant(desired, asked, step.number) {
                    return Err(Refusal::state(&format!(
                        "step {} (`{}`) comes first, and has to run: name it as well, or no step at all",
                        step.number, step.label
                    )));
                }
            } else if is_due || asked.force {
                numbers.push(step.number);
            }
        }
        due.numbers = numbers;
        Ok(due)
    }

    /// Leaves out every step, and keeps what is known of them.
    pub(crate) fn left_out(self) -> Self {
        Self { numbers: Vec::new(), ..self }
    }

    /// Whether a step has to run that the machine is not complete without.
    pub(crate) fn has_changes(&self) -> bool {
        self.numbers.iter().any(|number| *number > self.kept)
    }
}

fn later_is_meant(desired: &DesiredVm, asked: &Asked, number: usize) -> bool {
    desired.provision.iter().any(|step| step.number > number && asked.means(step))
}

/// The steps with `run "once"` that ran on this machine, by number: where they stand now, with what ran then. One that
/// was edited since, or that stands at another place, is known by its content, else by what it is called. And what ran
/// of which no step is left.
fn ran_once(steps: &[ProvisionStep], record: &Record) -> (BTreeMap<usize, RanOnce>, Vec<RanOnce>) {
    let mut left = record.ran_once.clone();
    // A step that was not for once when it ran, and is now.
    let mut listed: Vec<_> = record.provisioned.iter().zip(1..).collect();
    listed.retain(|(ran, number)| {
        let stands = steps.iter().any(|step| {
            step.number == *number && step.options.run != Run::Once && step.digest.as_str() == ran.digest
        });
        !stands && !left.iter().any(|former| former.digest == ran.digest)
    });
    let mut ran = BTreeMap::new();
    let once = || steps.iter().filter(|step| step.options.run == Run::Once);
    for (same_content, in_place) in [(true, true), (true, false), (false, true), (false, false)] {
        for step in once() {
            if ran.contains_key(&step.number) {
                continue;
            }
            let is_same = |digest: &str| digest == step.digest.as_str();
            let stands = |number: usize| !in_place || number == step.number;
            let is_it = |former: &RanOnce| {
                stands(former.number as usize)
                    && if same_content { is_same(&former.digest) } else { former.label == step.label }
            };
            let found =
                match left.iter().position(is_it) {
                    Some(at) => Some(left.remove(at)),
                    None if same_content => {
                        let is_it = |(ran, number): &(&ProvisionRecord, usize)| {
                            is_same(&ran.digest) && stands(*number)
                        };
                        let at = listed.iter().position(is_it);
                        at.map(|at| listed.remove(at).0.clone()).map(|ProvisionRecord { digest, at }| {
                            RanOnce { number: 0, label: String::new(), digest, at }
                        })
                    }
                    None => None,
                };
            if let Some(RanOnce { digest, at, .. }) = found {
                let number = u32::try_from(step.number).unwrap_or(u32::MAX);
                ran.insert(step.number, RanOnce { number, label: step.label.clone(), digest, at });
            }
        }
    }
    (ran, left)
}

/// Remembers, apart from the order of steps, those that are never to run again.
pub(crate) fn remember_once(record: &mut Record, steps: &[ProvisionStep]) {
    let (ran, left) = ran_once(steps, record);
    record.ran_once = ran.into_values().chain(left).collect();
}

/// Makes place for step `number` at its turn: what follows is to run again, and what was passed over before it is done.
pub(crate) fn truncate_for(record: &mut Record, steps: &[ProvisionStep], number: usize) {
    let (ran, _) = ran_once(steps, record);
    remember_once(record, steps);
    record.provisioned.truncate(number - 1);
    for missing in record.provisioned.len() + 1..number {
        // Whatever is not due and not in the list ran once.
        let Some(RanOnce { digest, at, .. }) = ran.get(&missing).cloned() else { return };
        record.provisioned.push(ProvisionRecord { digest, at });
    }
}

/// Why the first of the steps that run does so.
pub(crate) fn explain(change: &mut Change, desired: &DesiredVm, record: &Record, due: &Due, anew: bool) {
    let is_told = change.interrupted.is_none() || record.provisioned.len() > due.kept;
    let first = change.provision.iter().find(|run| run.number > due.kept).filter(|_| is_told);
    let mut reasons = Vec::new();
    if let Some(run) = first {
        let why = match record.provisioned.get(run.number - 1) {
            Some(_) if anew => "runs again, as asked for with `--force`",
            Some(_) => "changed",
            None => "has not succeeded yet",
        };
        reasons.push(format!("provisioning step {} (`{}`) {why}", run.number, run.label));
    }
    for run in change.provision.iter().filter(|run| run.number <= due.kept) {
        let step = desired.provision.iter().find(|step| step.number == run.number);
        let why = match step.map(|step| step.options.run) {
            Some(Run::Always) => "runs with every apply (`run \"always\"`)",
            _ => "runs again, as asked for with `--force`",
        };
        reasons.push(format!("provisioning step {} (`{}`) {why}", run.number, run.label));
    }
    change.reasons.extend(reasons);
}

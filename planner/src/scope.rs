//! Which machines a plan is about. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use vmctl_providers::Name;
use vmctl_state::Snapshot;

use crate::desired::Desired;
use crate::provisioning::{Asked, is_called};
use crate::recorded::{RecordError, spec_of};
use crate::turn::Turn;

/// What is planned towards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// What the VMFile asks for.
    #[default]
    Normal,
    /// No machine at all.
    Destroy,
    /// What is observed: only the record changes.
    RefreshOnly,
    /// What is recorded, with the provisioning steps of the VMFile.
    Provision,
    /// What is recorded, but started, stopped, suspended or resumed.
    #[serde(untagged)]
    Turn(Turn),
}

/// How to plan.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Options {
    /// What is planned towards.
    pub mode: Mode,
    /// Only these machines and what they need; all if empty.
    pub targets: BTreeSet<Name>,
    /// All but these machines and what needs them.
    pub excludes: BTreeSet<Name>,
    /// Machines that are made anew whether or not they changed.
    pub replace: BTreeSet<Name>,
    /// Machines whose provisioning step runs again if it was cut off, although nobody knows what it did.
    pub rerun: BTreeSet<Name>,
    /// Machines that are let go of where all others are removed; in the normal mode the VMFile names them.
    pub forget: BTreeSet<Name>,
    /// Volumes that no machine needs any more are removed, with all that is on them.
    #[serde(default)]
    pub volumes: bool,
    /// No provisioning step runs; what is due stays due.
    #[serde(default)]
    pub no_provision: bool,
    /// No machine is made from a template.
    #[serde(default)]
    pub cold: bool,
    /// Nobody waits until a guest is ready, unless something is to run in it: whoever started it looks after it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_wait: bool,
    /// Machines are started and stopped by command, and what they were brought to last is what was asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_hand: bool,
    /// What [`Mode::Provision`] runs.
    #[serde(default)]
    pub provision: Asked,
}

/// A machine was named that is neither desired nor recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no machine is called `{name}`: it is neither in the VMFile nor recorded")]
pub struct UnknownMachine {
    /// The machine.
    pub name: Name,
    /// The machines that there are.
    pub known: Vec<Name>,
}

/// An option that would have no effect beside another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`--{option} {name}` has no effect: {why}")]
pub struct Contradiction {
    /// The option.
    pub option: &'static str,
    /// The machine.
    pub name: Name,
    /// Why.
    pub why: &'static str,
}

/// The machines that a plan is about; `None` means all of them. `recorded` has every machine under its new name.
pub(crate) fn scope(
    options: &Options,
    desired: Option<&Desired>,
    recorded: &Snapshot,
) -> Result<Option<BTreeSet<Name>>, ScopeError> {
    let contradicts = |option, name: &Name, why| Contradiction { option, name: name.clone(), why };
    if let Some(name) = options.targets.intersection(&options.excludes).next() {
        return Err(contradicts("target", name, "`--exclude` names it as well").into());
    }
    let is_removed = |name: &&Name| desired.is_some_and(|desired| desired.removed.contains(*name));
    for (option, names) in [("replace", &options.replace), ("rerun", &options.rerun)] {
        if let Some(name) = names.iter().find(is_removed) {
            return Err(contradicts(option, name, "it is `removed` in the VMFile").into());
        }
    }
    let needs = needs(options.mode, desired, recorded)?;
    for names in [&options.targets, &options.excludes, &options.replace, &options.rerun] {
        if let Some(name) = names.iter().find(|name| !needs.contains_key(*name)) {
            let known = needs.keys().cloned().collect();
            return Err(UnknownMachine { name: name.clone(), known }.into());
        }
    }
    find_steps(options, desired, |name| options.targets.is_empty() || options.targets.contains(name))?;
    if options.targets.is_empty() && options.excludes.is_empty() {
        return Ok(None);
    }
    let mut included: BTreeSet<Name> = if options.targets.is_empty() {
        needs.keys().cloned().collect()
    } else {
        reach(&options.targets, &needs)
    };
    for name in reach(&options.excludes, &reversed(&needs)) {
        included.remove(&name);
    }
    for (option, names) in [("replace", &options.replace), ("rerun", &options.rerun)] {
        if let Some(name) = names.iter().find(|name| !included.contains(*name)) {
            return Err(contradicts(option, name, "the plan is not about it").into());
        }
    }
    Ok(Some(included))
}

/// Says of a step that no machine has, that there is none.
fn find_steps(
    options: &Options,
    desired: Option<&Desired>,
    is_meant: impl Fn(&Name) -> bool,
) -> Result<(), UnknownStep> {
    let vms = desired.iter().flat_map(|desired| desired.vms.values()).filter(|vm| is_meant(&vm.name));
    let steps: Vec<_> = vms.flat_map(|vm| vm.provision.iter().map(move |step| (vm, step))).collect();
    let Some(name) =
        options.provision.steps.iter().find(|name| !steps.iter().any(|(_, step)| is_called(step, name)))
    else {
        return Ok(());
    };
    let known = steps.iter().map(|(vm, step)| format!("{} (`{}`) of {}", step.number, step.label, vm.name));
    Err(UnknownStep { name: name.clone(), known: known.collect() })
}

/// An option names a provisioning step that there is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`--step` names `{name}`, which is no provisioning step of these machines")]
pub struct UnknownStep {
    /// The step.
    pub name: String,
    /// The steps that there are.
    pub known: Vec<String>,
}

/// A scope could not be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScopeError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Unknown(#[from] UnknownMachine),
    #[error(transparent)]
    Step(#[from] UnknownStep),
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
}

/// For each machine, those that must be worked on before it: its dependencies when machines come up, its dependants
/// when they go down.
fn needs(
    mode: Mode,
    desired: Option<&Desired>,
    recorded: &Snapshot,
) -> Result<BTreeMap<Name, BTreeSet<Name>>, RecordError> {
    let mut needs: BTreeMap<Name, BTreeSet<Name>> = BTreeMap::new();
    let mut recorded_needs = BTreeMap::new();
    for record in recorded.records.values() {
        let Ok(name) = record.address.name().parse::<Name>() else { continue };
        needs.entry(name.clone()).or_default();
        recorded_needs.insert(name, spec_of(record)?.depends_on.keys().cloned().collect());
    }
    for vm in desired.iter().flat_map(|desired| desired.vms.values()) {
        needs.insert(vm.name.clone(), vm.depends_on.keys().cloned().collect());
    }
    Ok(match mode {
        Mode::Normal => needs,
        Mode::Destroy => {
            let mut dependants = reversed(&recorded_needs);
            for name in needs.into_keys() {
                dependants.entry(name).or_default();
            }
            dependants
        }
        // Either nothing is started or stopped, or just what is named.
        Mode::RefreshOnly | Mode::Provision | Mode::Turn(_) => {
            needs.into_keys().map(|name| (name, BTreeSet::new())).collect()
        }
    })
}

fn reversed(needs: &BTreeMap<Name, BTreeSet<Name>>) -> BTreeMap<Name, BTreeSet<Name>> {
    let mut reversed: BTreeMap<Name, BTreeSet<Name>> =
        needs.keys().map(|name| (name.clone(), BTreeSet::new())).collect();
    for (name, needed) in needs {
        for needed in needed {
            reversed.entry(needed.clone()).or_default().insert(name.clone());
        }
    }
    reversed
}

/// `from` and everything that can be reached from it.
fn reach(from: &BTreeSet<Name>, edges: &BTreeMap<Name, BTreeSet<Name>>) -> BTreeSet<Name> {
    let mut reached = from.clone();
    let mut open: Vec<&Name> = from.iter().collect();
    while let Some(name) = open.pop() {
        for next in edges.get(name).into_iter().flatten() {
            if reached.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    reached
}

//! Machines that got another name: the state and what was observed, under the new one. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use vmctl_providers::Name;
use vmctl_state::{Address, Record, Snapshot};

use crate::desired::Move;
use crate::observed::Observed;
use crate::plan::{Inputs, PlanError};
use crate::scope::{Mode, Options};

/// The moves that have something to move, from the new address to the old one. A chain of moves is followed to its end.
pub(crate) fn moves(inputs: Inputs<'_>) -> Result<BTreeMap<Address, Address>, PlanError> {
    let Some(desired) = inputs.desired.filter(|_| inputs.options.mode == Mode::Normal) else {
        return Ok(BTreeMap::new());
    };
    let next: BTreeMap<&Name, &Name> = desired.moved.iter().map(|Move { from, to }| (from, to)).collect();
    let mut moves = BTreeMap::new();
    for first in next.keys() {
        let from = Address::vm(first.as_str());
        let mut last = *first;
        // As many moves as there are: a ring, which no VMFile may have, ends as well.
        for _ in 0..next.len() {
            last = next.get(last).copied().unwrap_or(last);
        }
        let to = Address::vm(last.as_str());
        let is_recorded = |address| inputs.recorded.records.contains_key(address);
        if !is_recorded(&from) || from == to {
            continue;
        }
        if is_recorded(&to) || moves.contains_key(&to) {
            return Err(PlanError::MoveOntoExisting { from, to });
        }
        moves.insert(to, from);
    }
    Ok(moves)
}

/// The state with every moved machine under its new address.
pub(crate) fn moved<'a>(recorded: &'a Snapshot, moves: &BTreeMap<Address, Address>) -> Cow<'a, Snapshot> {
    if moves.is_empty() {
        return Cow::Borrowed(recorded);
    }
    let mut recorded = recorded.clone();
    for (to, from) in moves {
        if let Some(record) = recorded.records.remove(from) {
            recorded.records.insert(to.clone(), Record { address: to.clone(), ..record });
        }
    }
    Cow::Owned(recorded)
}

/// What was observed, with every moved machine under its new address.
pub(crate) fn moved_sights<'a>(
    observed: &'a Observed,
    moves: &BTreeMap<Address, Address>,
) -> Cow<'a, Observed> {
    if moves.is_empty() {
        return Cow::Borrowed(observed);
    }
    let mut observed = observed.clone();
    for (to, from) in moves {
        if let Some(sight) = observed.vms.remove(from) {
            observed.vms.insert(to.clone(), sight);
        }
    }
    Cow::Owned(observed)
}

/// The options, with the new name of every machine that is named by its old one.
pub(crate) fn renamed<'a>(options: &'a Options, moves: &BTreeMap<Address, Address>) -> Cow<'a, Options> {
    if moves.is_empty() {
        return Cow::Borrowed(options);
    }
    let new_name = |name: &Name| {
        let old = Address::vm(name.as_str());
        let new = moves.iter().find(|(_, from)| **from == old).map(|(to, _)| to);
        new.and_then(|to| to.name().parse().ok()).unwrap_or_else(|| name.clone())
    };
    let renamed = |names: &BTreeSet<Name>| names.iter().map(new_name).collect();
    Cow::Owned(Options {
        targets: renamed(&options.targets),
        excludes: renamed(&options.excludes),
        replace: renamed(&options.replace),
        rerun: renamed(&options.rerun),
        ..options.clone()
    })
}

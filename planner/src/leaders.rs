//! Equal machines that are made at once: one of them, the leader, is kept, and the others follow it: they wait for its
//! template and are made from that. Pure.
//!
//! ```text
//! leader     prepare ─▶ start ─▶ ready ─▶ provision ─▶ keep
//!                                                        ┆ however that ends
//! follower                                               └▶ (stop ─▶ destroy ─▶) prepare ─▶ start ─▶ ready ─▶ provision
//! ```
//!
//! A follower's steps are those of a machine without a template, since nobody knows whether there will be one. What
//! they come to is seen once it is prepared: those that a template spares are passed over
//! ([`crate::target::Target::is_spared`]).

use std::collections::{BTreeMap, VecDeque};

use vmctl_providers::provision::Run;
use vmctl_providers::{Digest, Name, WarmLevel};
use vmctl_state::Address;

use crate::change::Change;
use crate::desired::Desired;
use crate::diff::Decision;
use crate::graph::StepId;
use crate::plan::Plan;
use crate::step::StepKind;
use crate::target::Target;

/// Lets one machine of each key be kept: those that are made beside it would be the same template. It is the one with
/// the fewest machines that come up one after another before it, so that it depends on none of the others; of several,
/// one that takes no other machine's place, so that those that do stand until there is a template; and then the first by
/// address.
pub(crate) fn keep_one_of_each(decisions: &mut BTreeMap<Address, Decision>, desired: Option<&Desired>) {
    let mut alike: BTreeMap<Digest, Vec<Address>> = BTreeMap::new();
    for (address, decision) in &*decisions {
        let is_kept = decision.change.up.contains(&StepKind::Keep);
        if let Some(warm) = decision.warm.as_ref().filter(|_| is_kept) {
            alike.entry(warm.key.clone()).or_default().push(address.clone());
        }
    }
    alike.retain(|_, alike| alike.len() > 1);
    if alike.is_empty() {
        return;
    }
    let depths = desired.map(depths).unwrap_or_default();
    for alike in alike.values() {
        let leader = alike.iter().min_by_key(|address| {
            let depth = depths.get(address.name()).copied().unwrap_or_default();
            let goes_down = decisions.get(*address).is_some_and(|made| !made.change.down.is_empty());
            (depth, goes_down)
        });
        for address in alike.iter().filter(|address| Some(*address) != leader) {
            if let Some(decision) = decisions.get_mut(address) {
                decision.change.up.retain(|step| *step != StepKind::Keep);
            }
        }
    }
}

/// How many machines come up one after another before each one does.
fn depths(desired: &Desired) -> BTreeMap<&str, usize> {
    let mut dependants: BTreeMap<&Name, Vec<&Name>> = BTreeMap::new();
    let mut open: BTreeMap<&Name, usize> = BTreeMap::new();
    for vm in desired.vms.values() {
        let needed = vm.depends_on.keys().filter(|name| desired.vms.contains_key(*name));
        open.insert(&vm.name, needed.clone().count());
        needed.for_each(|name| dependants.entry(name).or_default().push(&vm.name));
    }
    let mut next: VecDeque<_> =
        open.iter().filter(|(_, count)| **count == 0).map(|(name, _)| (*name, 0)).collect();
    let mut depths = BTreeMap::new();
    // The last of those that a machine depends on is the deepest one: they come in the order of their depth.
    while let Some((name, depth)) = next.pop_front() {
        depths.insert(name.as_str(), depth);
        for dependant in dependants.get(name).into_iter().flatten() {
            if let Some(count) = open.get_mut(dependant) {
                *count -= 1;
                if *count == 0 {
                    next.push_back((dependant, depth + 1));
                }
            }
        }
    }
    depths
}

/// The steps of a machine that is made, as far as they matter here.
#[derive(Debug, Clone, Copy)]
struct Way {
    /// The first one; of a machine that is made anew, it takes the old one down.
    first: StepId,
    prepare: StepId,
    keep: Option<StepId>,
}

impl Plan {
    /// Lets machines wait for the template of the one like them that is kept. Where that would wait for itself, a
    /// machine is taken down before it waits, or else is made without the template.
    pub(crate) fn follow_leaders(&mut self) {
        let ways = if self.options.cold { BTreeMap::new() } else { self.ways() };
        let mut alike: BTreeMap<&Digest, (Option<&Address>, Vec<&Address>)> = BTreeMap::new();
        for (address, way) in &ways {
            let Some(target) = self.targets.get(address).filter(|target| is_worth_waiting(target)) else {
                continue;
            };
            let Some(warm) = target.spec.warm.as_ref() else { continue };
            let (leader, followers) = alike.entry(&warm.key).or_default();
            if way.keep.is_some() { *leader = Some(address) } else { followers.push(address) }
        }
        let mut alike: Vec<_> = alike
            .into_values()
            .filter_map(|(leader, followers)| Some((leader?, followers)))
            .filter(|(_, followers)| !followers.is_empty())
            .map(|(leader, followers)| (leader.clone(), followers.into_iter().cloned().collect::<Vec<_>>()))
            .collect();
        if alike.is_empty() {
            return;
        }
        // By address, not by key: keys change with every byte.
        alike.sort();
        let mut changes: BTreeMap<Address, &mut Change> =
            self.changes.iter_mut().map(|change| (change.address.clone(), change)).collect();
        for (leader, followers) in alike {
            let Some(keep) = ways.get(&leader).and_then(|way| way.keep) else { continue };
            let before = self.graph.leading_to(keep);
            for follower in followers {
                let (Some(way), Some(change), Some(target)) =
                    (ways.get(&follower), changes.get_mut(&follower), self.targets.get_mut(&follower))
                else {
                    continue;
                };
                match [way.first, way.prepare].into_iter().find(|step| !before.contains(step)) {
                    Some(step) => {
                        self.graph.order_either_way(keep, step);
                        follow(change, target, &leader);
                    }
                    None => change.reasons.push(format!(
                        "made without a template: `{leader}`, which is kept as one, cannot come before it"
                    )),
                }
            }
        }
    }

    /// The steps of the machines that are made with a key, and without a template so far.
    fn ways(&self) -> BTreeMap<Address, Way> {
        let mut ways: BTreeMap<Address, Way> = BTreeMap::new();
        let mut firsts: BTreeMap<&Address, StepId> = BTreeMap::new();
        let is_meant = |address: &Address| {
            let target = self.targets.get(address);
            target.is_some_and(|target| target.is_made_from_its_image())
        };
        for (id, step) in self.graph.steps().filter(|(_, step)| is_meant(&step.address)) {
            let first = *firsts.entry(&step.address).or_insert(id);
            match step.kind {
                StepKind::Prepare => {
                    ways.insert(step.address.clone(), Way { first, prepare: id, keep: None });
                }
                StepKind::Keep => {
                    if let Some(way) = ways.get_mut(&step.address) {
                        way.keep = Some(id);
                    }
                }
                StepKind::FetchImage
                | StepKind::Update
                | StepKind::Start
                | StepKind::Resume
                | StepKind::Ready
                | StepKind::Provision(_)
                | StepKind::Suspend
                | StepKind::Stop
                | StepKind::Destroy
                | StepKind::Forget => {}
            }
        }
        ways
    }
}

/// Whether a template spares a machine anything: a boot, or a provisioning step.
fn is_worth_waiting(target: &Target) -> bool {
    let is_spared = target.provision.iter().any(|step| step.options.run != Run::Always);
    target.spec.warm.as_ref().is_some_and(|warm| warm.level == WarmLevel::Memory || is_spared)
}

/// Lets the machine be made from the template of `leader`, if there is one by then.
fn follow(change: &mut Change, target: &mut Target, leader: &Address) {
    target.follow(leader);
    change.reasons.push(format!("after `{leader}`, from the template that it is kept as"));
    change.template_after = Some(leader.clone());
    // What runs even so; the rest runs only if there is no template then.
    let runs = |number: usize| {
        let step = target.provision.get(number - 1);
        step.is_some_and(|step| step.options.run == Run::Always)
    };
    change.provision.retain(|run| runs(run.number));
}

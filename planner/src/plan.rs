//! A plan: every decision, the steps that carry them out, and what each step needs.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use vmctl_providers::image::ImageCache;
use vmctl_providers::provision::ProvisionStep;
use vmctl_providers::{Forward, InstanceId, MacAddr, Machine, Name, NetworkConfig, Nic, Stray, VmSpec};
use vmctl_state::{Address, Record, Snapshot};

use crate::accept::accepted;
use crate::change::{Action, Change, LeftAlone};
use crate::checks::CheckResult;
use crate::decisions::{Decisions, PortOrder};
use crate::desired::{Desired, DesiredImage, DesiredVm, InputFile, Move, Until};
use crate::diff::Decision;
use crate::drift::DriftKind;
use crate::fields::Class;
use crate::graph::{CycleError, StepGraph, StepId};
use crate::observed::Observed;
use crate::recorded::{RecordError, RecordedVm, spec_of};
use crate::scope::{Mode, Options, ScopeError, UnknownMachine, scope};
use crate::step::{Step, StepKind};

/// Version of the plan's JSON form.
pub const FORMAT_VERSION: u32 = 1;

/// Everything that a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The project.
    pub project: &'a Name,
    /// What the VMFile asks for; absent where none was read, which only other modes than the normal one allow.
    pub desired: Option<&'a Desired>,
    /// What is remembered.
    pub recorded: &'a Snapshot,
    /// What was found; empty if nobody looked.
    pub observed: &'a Observed,
    /// Where images are kept.
    pub images: &'a ImageCache,
    /// How to plan.
    pub options: &'a Options,
}

/// All changes and the order of their steps. `apply` carries it out and decides nothing new.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The project.
    pub project: Name,
    /// Lineage of the state it was made for.
    pub lineage: Uuid,
    /// Serial of the state it was made for.
    pub serial: u64,
    /// How it was made.
    pub options: Options,
    /// The decisions, by address, of all machines that it is about; those without a change included.
    pub changes: Vec<Change>,
    /// Machines that no record knows and that nobody let go of on purpose.
    pub strays: Vec<Stray>,
    /// What became of the checks that were asked.
    pub checks: Vec<CheckResult>,
    /// The steps and their order.
    pub graph: StepGraph,
    /// Files that decided the desired state.
    pub inputs: Vec<InputFile>,
    /// Image files and their digests, as the VMFile names them.
    pub image_files: Vec<InputFile>,
    /// What changes in the record before any step.
    pub(crate) bookkeeping: Vec<Bookkeeping>,
    /// What steps that make or change a machine need, by address.
    pub(crate) targets: BTreeMap<Address, Target>,
    /// The images that are fetched, by address.
    pub(crate) images: BTreeMap<Address, DesiredImage>,
}

/// A change of the record that no step is needed for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Bookkeeping {
    /// A machine is remembered under another address.
    Move { from: Address, to: Address },
    /// What is observed is remembered.
    Put(Box<Record>),
    /// A machine is remembered no longer.
    Remove(Address),
}

/// What the steps of one machine need.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The machine as it is to be.
    pub(crate) spec: VmSpec,
    /// What is remembered of it from then on.
    pub(crate) recorded: RecordedVm,
    /// Its provisioning steps.
    pub(crate) provision: Vec<ProvisionStep>,
    /// How many of them, from the first, need not run again.
    pub(crate) provisioned: usize,
    /// Whether an update changes nothing but what is remembered.
    pub(crate) only_remembered: bool,
}

/// A plan could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A record is not understood.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The steps wait for each other.
    #[error(transparent)]
    Cycle(#[from] CycleError),
    /// An option names a machine that there is not.
    #[error(transparent)]
    Unknown(#[from] UnknownMachine),
    /// A machine cannot get the name of another.
    #[error("`{from}` cannot be moved to `{to}`: both are recorded")]
    MoveOntoExisting {
        /// The machine that is to be renamed.
        from: Address,
        /// The name that is taken.
        to: Address,
    },
}

impl From<ScopeError> for PlanError {
    fn from(error: ScopeError) -> Self {
        match error {
            ScopeError::Record(error) => Self::Record(error),
            ScopeError::Unknown(error) => Self::Unknown(error),
        }
    }
}

/// How many machines each kind of change concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Summary {
    /// Machines that are made.
    pub create: usize,
    /// Machines that are changed in any other way.
    pub update: usize,
    /// Machines that are made anew.
    pub replace: usize,
    /// Machines that are removed.
    pub destroy: usize,
    /// Machines that are let go of.
    pub forget: usize,
    /// Machines that need nothing.
    pub unchanged: usize,
    /// Machines that would need something and are left as they are.
    pub left_alone: usize,
    /// Machines that differ from what is recorded.
    pub drifted: usize,
}

impl Plan {
    /// Makes the plan. Pure: the same inputs give the same plan.
    pub fn new(inputs: Inputs<'_>) -> Result<Self, PlanError> {
        let scope = scope(inputs.options, inputs.desired, inputs.recorded)?;
        let moves = moves(inputs, scope.as_ref())?;
        let recorded = moved(inputs.recorded, &moves);
        let observed = moved_sights(inputs.observed, &moves);
        let inputs = Inputs { recorded: &recorded, observed: &observed, ..inputs };
        let mut decisions = Decisions::new(inputs, scope.as_ref(), &moves)?;
        decisions.follow_triggers()?;
        let ports = decisions.order_ports()?;
        decisions.hold_back();

        let desired = inputs.desired.filter(|_| inputs.options.mode == Mode::Normal);
        let mut plan = Self {
            project: inputs.project.clone(),
            lineage: inputs.recorded.lineage,
            serial: inputs.recorded.serial,
            options: inputs.options.clone(),
            changes: Vec::new(),
            strays: inputs.observed.strays.iter().filter(|stray| !stray.released).cloned().collect(),
            checks: inputs.observed.checks.clone(),
            graph: StepGraph::default(),
            inputs: desired.map(|desired| desired.inputs.clone()).unwrap_or_default(),
            image_files: desired.map(image_files).unwrap_or_default(),
            bookkeeping: moves
                .iter()
                .map(|(to, from)| Bookkeeping::Move { from: from.clone(), to: to.clone() })
                .chain(accepted(inputs, scope.as_ref())?)
                .collect(),
            targets: BTreeMap::new(),
            images: BTreeMap::new(),
        };
        plan.take_over(decisions, inputs);
        plan.add_steps(inputs, &ports)?;
        plan.graph.sequence()?;
        Ok(plan)
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.graph.is_empty() && self.bookkeeping.is_empty()
    }

    /// Whether there is nothing to do and nothing that would have to be done.
    pub fn is_settled(&self) -> bool {
        self.is_empty() && self.left_alone().next().is_none()
    }

    /// The changes that would have to be made, and why they are not.
    pub fn left_alone(&self) -> impl Iterator<Item = (&Change, &LeftAlone)> {
        self.changes.iter().filter_map(|change| Some((change, change.left_alone.as_ref()?)))
    }

    /// The changes because of which the plan cannot be applied, and why.
    pub fn refused(&self) -> impl Iterator<Item = (&Change, &str)> {
        self.changes.iter().filter_map(|change| Some((change, change.refused.as_deref()?)))
    }

    /// The changes that do something.
    pub fn effective(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.is_effective())
    }

    /// Whether recorded and observed differ anywhere.
    pub fn has_drift(&self) -> bool {
        !self.strays.is_empty() || self.changes.iter().any(|change| !change.drift.is_empty())
    }

    /// Counts the changes.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        for change in &self.changes {
            summary.drifted += usize::from(!change.drift.is_empty());
            match change.action {
                Action::NoOp if change.left_alone.is_some() => summary.left_alone += 1,
                Action::NoOp => summary.unchanged += 1,
                Action::Forget => summary.forget += 1,
                Action::Create => summary.create += 1,
                Action::Replace => summary.replace += 1,
                Action::Destroy => summary.destroy += 1,
                Action::Update
                | Action::Restart
                | Action::Provision
                | Action::Start
                | Action::Stop
                | Action::Suspend
                | Action::Resume => summary.update += 1,
            }
        }
        summary
    }

    /// The machines that are prepared, changed or started, as they are to be.
    pub fn specs(&self) -> impl Iterator<Item = &VmSpec> {
        let binds = |step: &StepKind| matches!(step, StepKind::Prepare | StepKind::Update | StepKind::Start);
        self.changes
            .iter()
            .filter(move |change| change.up.iter().any(binds))
            .filter_map(|change| self.targets.get(&change.address))
            .map(|target| &target.spec)
    }

    /// Takes over the decisions, and what their steps need.
    fn take_over(&mut self, decisions: Decisions<'_>, inputs: Inputs<'_>) {
        for (address, Decision { change, after, provisioned }) in decisions.by_address {
            let desired = inputs.desired.and_then(|desired| desired_vm(desired, &address));
            if let (Some(vm), Some(after), false) = (desired, after, change.up.is_empty()) {
                if change.up.contains(&StepKind::Prepare) {
                    self.images.insert(image_address(&vm.image), vm.image.clone());
                }
                let vmfile = inputs.desired.and_then(|desired| Some(desired.inputs.first()?.path.clone()));
                let target = Target {
                    spec: spec(vm, &after, inputs.project, change.instance, inputs.images),
                    recorded: RecordedVm { vmfile, ..after },
                    provision: vm.provision.clone(),
                    provisioned,
                    only_remembered: is_only_remembered(&change),
                };
                self.targets.insert(address, target);
            }
            self.changes.push(change);
        }
    }

    fn add_steps(&mut self, inputs: Inputs<'_>, ports: &[PortOrder]) -> Result<(), RecordError> {
        let images: BTreeMap<_, _> = self
            .images
            .keys()
            .map(|address| {
                let instance = InstanceId(Uuid::nil());
                let step =
                    Step { kind: StepKind::FetchImage, address: address.clone(), instance, label: None };
                (address.clone(), self.graph.add(step))
            })
            .collect();
        let mut chains = BTreeMap::new();
        for change in &self.changes {
            let chain = Chain::add(&mut self.graph, change, inputs.recorded);
            if let (Some(prepare), Some(target)) = (chain.prepare(), self.targets.get(&change.address)) {
                let image = Address::image(target.spec.machine.image.digest.hex());
                self.graph.order(images[&image], prepare);
            }
            chains.insert(change.address.clone(), chain);
        }
        for PortOrder { releases, takes } in ports {
            let (released, taken) = (chains.get(releases), chains.get(takes));
            if let (Some(released), Some(taken)) =
                (released.and_then(Chain::releases), taken.and_then(Chain::binds))
            {
                self.graph.order(released, taken);
            }
        }
        if inputs.options.mode == Mode::Normal {
            self.order_up(inputs, &chains);
        }
        self.order_down(inputs, &chains)
    }

    /// Dependencies are up before their dependants.
    fn order_up(&mut self, inputs: Inputs<'_>, chains: &BTreeMap<Address, Chain>) {
        for vm in inputs.desired.iter().flat_map(|desired| desired.vms.values()) {
            let Some(gate) = chains.get(&Address::vm(vm.name.as_str())).and_then(Chain::gate) else {
                continue;
            };
            for (name, until) in &vm.depends_on {
                let dependency = chains.get(&Address::vm(name.as_str()));
                if let Some(reached) = dependency.and_then(|chain| chain.reached(*until)) {
                    self.graph.order(reached, gate);
                }
            }
        }
    }

    /// Dependencies go down after their dependants, by what was recorded when those came up.
    fn order_down(
        &mut self,
        inputs: Inputs<'_>,
        chains: &BTreeMap<Address, Chain>,
    ) -> Result<(), RecordError> {
        for record in inputs.recorded.records.values() {
            let Some(last) = chains.get(&record.address).and_then(|chain| chain.down.last()) else {
                continue;
            };
            for name in spec_of(record)?.depends_on.keys() {
                let dependency = chains.get(&Address::vm(name.as_str()));
                if let Some(first) = dependency.and_then(|chain| chain.down.first()) {
                    self.graph.order(last.1, first.1);
                }
            }
        }
        Ok(())
    }
}

/// The steps of one machine, in order.
#[derive(Debug, Default)]
struct Chain {
    down: Vec<(StepKind, StepId)>,
    up: Vec<(StepKind, StepId)>,
}

impl Chain {
    fn add(graph: &mut StepGraph, change: &Change, recorded: &Snapshot) -> Self {
        let old = recorded.records.get(&change.address).map(|record| InstanceId(record.instance));
        let mut chain = Self::default();
        let mut labels = change.provision.iter();
        let mut previous = None;
        let down = change.down.iter().map(|kind| (*kind, true));
        for (kind, is_down) in down.chain(change.up.iter().map(|kind| (*kind, false))) {
            let label = if matches!(kind, StepKind::Provision(_)) { labels.next().cloned() } else { None };
            let instance = if is_down { old.unwrap_or(change.instance) } else { change.instance };
            let id = graph.add(Step { kind, address: change.address.clone(), instance, label });
            if let Some(previous) = previous.replace(id) {
                graph.order(previous, id);
            }
            if is_down { chain.down.push((kind, id)) } else { chain.up.push((kind, id)) }
        }
        chain
    }

    fn prepare(&self) -> Option<StepId> {
        self.up.iter().find(|(kind, _)| *kind == StepKind::Prepare).map(|(_, id)| *id)
    }

    /// The step after which the machine's old forwards are not bound any more.
    fn releases(&self) -> Option<StepId> {
        let down = self.down.iter().find(|(kind, _)| matches!(kind, StepKind::Stop | StepKind::Destroy));
        down.or_else(|| self.up.iter().find(|(kind, _)| *kind == StepKind::Update)).map(|(_, id)| *id)
    }

    /// The step that binds the machine's new forwards.
    fn binds(&self) -> Option<StepId> {
        let start = self.up.iter().find(|(kind, _)| *kind == StepKind::Start);
        start.or_else(|| self.up.iter().find(|(kind, _)| *kind == StepKind::Update)).map(|(_, id)| *id)
    }

    /// The first step that needs the dependencies: allocating and changing settings do not.
    fn gate(&self) -> Option<StepId> {
        self.up.iter().find(|(kind, _)| kind.needs_dependencies()).map(|(_, id)| *id)
    }

    /// The step after which the machine is as far as `until` says, if it is not so already.
    fn reached(&self, until: Until) -> Option<StepId> {
        let far_enough = |kind: &StepKind| match kind {
            StepKind::Start | StepKind::Resume => true,
            StepKind::Ready => until >= Until::Ready,
            StepKind::Provision(_) => until >= Until::Provisioned,
            StepKind::FetchImage
            | StepKind::Prepare
            | StepKind::Update
            | StepKind::Suspend
            | StepKind::Stop
            | StepKind::Destroy
            | StepKind::Forget => false,
        };
        self.up.iter().rev().find(|(kind, _)| far_enough(kind)).map(|(_, id)| *id)
    }
}

fn desired_vm<'a>(desired: &'a Desired, address: &Address) -> Option<&'a DesiredVm> {
    desired.vms.get(address.name())
}

/// Whether carrying the change out touches nothing but the record.
fn is_only_remembered(change: &Change) -> bool {
    let repairs = change.drift.iter().any(|drift| {
        matches!(drift.kind, DriftKind::ForwardMissing | DriftKind::ForwardExtra | DriftKind::SeedMissing)
    });
    change.moved_from.is_none()
        && !repairs
        && change.fields.iter().all(|field| field.class == Class::RecordOnly)
}

fn image_files(desired: &Desired) -> Vec<InputFile> {
    let files: BTreeMap<_, _> =
        desired.vms.values().map(|vm| (&vm.image.source, &vm.image.identity.digest)).collect();
    files.into_iter().map(|(path, digest)| InputFile { path: path.clone(), digest: digest.clone() }).collect()
}

/// The moves that have something to move, from the new address to the old one. A chain of moves is followed to its end.
fn moves(
    inputs: Inputs<'_>,
    scope: Option<&BTreeSet<Name>>,
) -> Result<BTreeMap<Address, Address>, PlanError> {
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
        if !is_recorded(&from) || from == to || scope.is_some_and(|scope| !scope.contains(last)) {
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
fn moved<'a>(recorded: &'a Snapshot, moves: &BTreeMap<Address, Address>) -> Cow<'a, Snapshot> {
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

fn moved_sights<'a>(observed: &'a Observed, moves: &BTreeMap<Address, Address>) -> Cow<'a, Observed> {
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

/// The hardware address of an instance's card: QEMU's prefix, then bytes that follow from the instance.
fn mac(instance: InstanceId, card: usize) -> MacAddr {
    let mut hash = Sha256::new();
    hash.update(instance.0.as_bytes());
    hash.update(card.to_be_bytes());
    let tail = hash.finalize();
    MacAddr([0x52, 0x54, 0x00, tail[0], tail[1], tail[2]])
}

fn image_address(image: &DesiredImage) -> Address {
    Address::image(image.identity.digest.hex())
}

/// The provider's view of a machine: hardware and login as `after` says, the rest as `vm` does.
fn spec(
    vm: &DesiredVm,
    after: &RecordedVm,
    project: &Name,
    instance: InstanceId,
    images: &ImageCache,
) -> VmSpec {
    let mut forwards = after.forwards.clone();
    if after.ssh.is_some() {
        forwards.insert(0, Forward::SSH);
    }
    let cards = after.networks.iter().filter(|network| **network != NetworkConfig::None).enumerate();
    let nics = cards
        .map(|(card, network)| Nic {
            mac: mac(instance, card),
            network: network.clone(),
            forwards: if *network == NetworkConfig::User {
                std::mem::take(&mut forwards)
            } else {
                Vec::new()
            },
        })
        .collect();
    VmSpec {
        id: instance,
        project: project.clone(),
        name: vm.name.clone(),
        backend: after.backend,
        machine: Machine {
            vcpus: after.vcpus,
            memory_mib: after.memory_mib,
            disk_bytes: after.disk_bytes,
            image: images.cached(&after.image),
            nics,
        },
        cloud_init: vm.cloud_init.clone(),
        ssh: after.ssh.clone(),
    }
}

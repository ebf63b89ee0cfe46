//! A plan: every decision, the steps that carry them out, and what each step needs.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use vmctl_providers::image::ImageCache;
use vmctl_providers::provision::ProvisionStep;
use vmctl_providers::{Forward, InstanceId, MacAddr, Machine, Name, NetworkConfig, Nic, VmSpec};
use vmctl_state::{Address, Snapshot};

use crate::change::{Action, Change};
use crate::desired::{Desired, DesiredImage, DesiredVm, InputFile, Until};
use crate::diff::{Known, decide};
use crate::graph::{CycleError, StepGraph, StepId};
use crate::observed::{Observed, Sight};
use crate::recorded::{RecordError, RecordedVm, spec_of};
use crate::step::{Step, StepKind};

/// Version of the plan's JSON form.
pub const FORMAT_VERSION: u32 = 1;

/// Everything that a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The project.
    pub project: &'a Name,
    /// What the VMFile asks for; `None` plans to destroy everything.
    pub desired: Option<&'a Desired>,
    /// What is remembered.
    pub recorded: &'a Snapshot,
    /// What was found; empty if nobody looked.
    pub observed: &'a Observed,
    /// Where images are kept.
    pub images: &'a ImageCache,
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
    /// The decisions, by address; addresses without a change included.
    pub changes: Vec<Change>,
    /// Recorded machines that could not be asked: they are left alone, and so is what depends on them.
    pub unreachable: BTreeSet<Address>,
    /// The steps and their order.
    pub graph: StepGraph,
    /// Files that decided the desired state.
    pub inputs: Vec<InputFile>,
    /// What steps that make or change a machine need, by address.
    pub(crate) targets: BTreeMap<Address, Target>,
    /// The images that are fetched, by address.
    pub(crate) images: BTreeMap<Address, DesiredImage>,
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
}

/// How many machines each kind of change concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Summary {
    /// Machines that are made.
    pub create: usize,
    /// Machines that are changed in any other way.
    pub update: usize,
    /// Machines that are made anew.
    pub replace: usize,
    /// Machines that are removed.
    pub destroy: usize,
    /// Machines that are left alone.
    pub unchanged: usize,
}

impl Plan {
    /// Makes the plan. Pure: the same inputs give the same plan.
    pub fn new(inputs: Inputs<'_>) -> Result<Self, PlanError> {
        let mut changes = Vec::new();
        for address in addresses(inputs) {
            changes.push(decide(&address, known(inputs, &address))?);
        }
        let mut unreachable: BTreeSet<_> = unreachable(inputs).collect();
        hold_back(&mut changes, inputs, &unreachable);
        // Destroying asks nothing of the machine, so that it is not left alone then.
        for change in changes.iter().filter(|change| change.is_effective()) {
            unreachable.remove(&change.address);
        }
        let mut plan = Self {
            project: inputs.project.clone(),
            lineage: inputs.recorded.lineage,
            serial: inputs.recorded.serial,
            changes,
            unreachable,
            graph: StepGraph::default(),
            inputs: inputs.desired.map(|desired| desired.inputs.clone()).unwrap_or_default(),
            targets: BTreeMap::new(),
            images: BTreeMap::new(),
        };
        plan.add_targets(inputs);
        plan.add_steps(inputs)?;
        plan.graph.sequence()?;
        Ok(plan)
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.graph.is_empty()
    }

    /// The changes that do something.
    pub fn effective(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.is_effective())
    }

    /// Whether recorded and observed differ anywhere.
    pub fn has_drift(&self) -> bool {
        self.changes.iter().any(|change| !change.drift.is_empty())
    }

    /// Counts the changes.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        for change in &self.changes {
            match change.action {
                Action::NoOp => summary.unchanged += 1,
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

    /// The machines that are prepared or started, as they are to be.
    pub fn specs(&self) -> impl Iterator<Item = &VmSpec> {
        self.changes
            .iter()
            .filter(|change| change.up.iter().any(|step| matches!(step, StepKind::Prepare | StepKind::Start)))
            .filter_map(|change| self.targets.get(&change.address))
            .map(|target| &target.spec)
    }

    fn add_targets(&mut self, inputs: Inputs<'_>) {
        let Some(desired) = inputs.desired else { return };
        for change in self.changes.iter().filter(|change| !change.up.is_empty()) {
            let Some(vm) = desired_vm(desired, &change.address) else { continue };
            let vmfile = desired.inputs.first().map(|input| input.path.clone());
            let target = Target {
                spec: spec(vm, &desired.project, change.instance, inputs.images),
                recorded: RecordedVm { vmfile, ..RecordedVm::from(vm) },
                provision: vm.provision.clone(),
            };
            if change.up.contains(&StepKind::Prepare) {
                self.images.insert(image_address(&vm.image), vm.image.clone());
            }
            self.targets.insert(change.address.clone(), target);
        }
    }

    fn add_steps(&mut self, inputs: Inputs<'_>) -> Result<(), RecordError> {
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
        self.order_up(inputs, &chains);
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
            | StepKind::Destroy => false,
        };
        self.up.iter().rev().find(|(kind, _)| far_enough(kind)).map(|(_, id)| *id)
    }
}

fn addresses(inputs: Inputs<'_>) -> BTreeSet<Address> {
    let desired = inputs.desired.iter().flat_map(|desired| desired.vms.keys());
    desired.map(|name| Address::vm(name.as_str())).chain(inputs.recorded.records.keys().cloned()).collect()
}

fn desired_vm<'a>(desired: &'a Desired, address: &Address) -> Option<&'a DesiredVm> {
    desired.vms.get(address.name())
}

fn known<'a>(inputs: Inputs<'a>, address: &Address) -> Known<'a> {
    Known {
        desired: inputs.desired.and_then(|desired| desired_vm(desired, address)),
        record: inputs.recorded.records.get(address),
        sight: inputs.observed.vms.get(address),
        interrupted: inputs
            .recorded
            .open
            .iter()
            .find(|intent| intent.address == *address)
            .map(|intent| intent.step.as_str()),
        removing_all: inputs.desired.is_none(),
        fresh: fresh_instance(inputs.recorded, address),
    }
}

/// The identity of a machine made from this state: unique, since the serial only grows, and repeatable.
fn fresh_instance(recorded: &Snapshot, address: &Address) -> InstanceId {
    let mut hash = Sha256::new();
    hash.update(recorded.lineage.as_bytes());
    hash.update(recorded.serial.to_be_bytes());
    hash.update(address.as_str());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    InstanceId(uuid::Builder::from_random_bytes(bytes).into_uuid())
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

/// The provider's view of a desired machine.
fn spec(vm: &DesiredVm, project: &Name, instance: InstanceId, images: &ImageCache) -> VmSpec {
    let mut forwards = vm.forwards.clone();
    if vm.ssh.is_some() {
        forwards.insert(0, Forward::SSH);
    }
    let cards = vm.networks.iter().filter(|network| **network != NetworkConfig::None).enumerate();
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
        backend: vm.backend,
        machine: Machine {
            vcpus: vm.vcpus,
            memory_mib: vm.memory_mib,
            disk_bytes: vm.disk_bytes,
            image: images.cached(&vm.image.identity),
            nics,
        },
        cloud_init: vm.cloud_init.clone(),
        ssh: vm.ssh.clone(),
    }
}

/// Machines that could not be asked.
fn unreachable(inputs: Inputs<'_>) -> impl Iterator<Item = Address> {
    inputs
        .observed
        .vms
        .iter()
        .filter(|(_, sight)| matches!(sight, Sight::Unreachable { .. }))
        .map(|(address, _)| address.clone())
}

/// Takes the steps from every change that would bring a machine up whose dependency nobody can ask: whether that is
/// as far as it must be is unknown. What depends on a machine that is held back is held back as well.
fn hold_back(changes: &mut [Change], inputs: Inputs<'_>, unreachable: &BTreeSet<Address>) {
    let Some(desired) = inputs.desired else { return };
    let mut blocked = unreachable.clone();
    loop {
        let before = blocked.len();
        for change in changes.iter_mut().filter(|change| change.needs_dependencies()) {
            let Some(vm) = desired_vm(desired, &change.address) else { continue };
            let needed = vm.depends_on.keys().map(|name| Address::vm(name.as_str()));
            let Some(reason) = needed.into_iter().find(|address| blocked.contains(address)) else { continue };
            blocked.insert(change.address.clone());
            change.hold_back(format!("it needs `{reason}`, which cannot be asked how far it is"));
        }
        if blocked.len() == before {
            return;
        }
    }
}

//! The steps of a plan and their order: by need only. Pure.

use std::collections::BTreeMap;

use uuid::Uuid;
use vmctl_providers::InstanceId;
use vmctl_state::{Address, Snapshot};

use crate::change::Change;
use crate::decisions::{HandOver, Thing};
use crate::desired::Until;
use crate::graph::{StepGraph, StepId};
use crate::plan::{Inputs, Plan, PlannedImage};
use crate::recorded::{RecordError, spec_of};
use crate::scope::Mode;
use crate::step::{Step, StepKind};
use crate::volumes::Holders;

impl Plan {
    /// Adds the steps of every change, and what each waits for.
    pub(crate) fn add_steps(
        &mut self,
        inputs: Inputs<'_>,
        orders: &[HandOver],
        holders: &Holders,
    ) -> Result<(), RecordError> {
        let images: BTreeMap<_, _> = self
            .images
            .iter()
            .map(|(address, image)| {
                let instance = InstanceId(Uuid::nil());
                let label = match image {
                    PlannedImage::Local(_) => None,
                    PlannedImage::Remote(fetch) => Some(fetch.shown.clone()),
                };
                let step = Step { kind: StepKind::FetchImage, address: address.clone(), instance, label };
                (address.clone(), self.graph.add(step))
            })
            .collect();
        let mut chains = BTreeMap::new();
        for change in &self.changes {
            let chain = Chain::add(&mut self.graph, change, inputs.recorded);
            let target = self.targets.get(&change.address);
            let image = target.and_then(|target| target.image.as_ref());
            if let (Some(prepare), Some(image)) = (chain.prepare(), image) {
                let fetch = images[image];
                self.graph.order(fetch, prepare);
                // A machine is not taken down for an image that may never come.
                if let (PlannedImage::Remote(_), Some((_, down))) = (&self.images[image], chain.down.first())
                {
                    self.graph.order(fetch, *down);
                }
            }
            chains.insert(change.address.clone(), chain);
        }
        for HandOver { what, releases, takes } in orders {
            let (released, taken) = (chains.get(releases), chains.get(takes));
            let (released, taken) = match what {
                Thing::Port => (released.and_then(Chain::releases), taken.and_then(Chain::binds)),
                Thing::Volume => (released.and_then(Chain::is_off), taken.and_then(Chain::touches_disks)),
            };
            if let (Some(released), Some(taken)) = (released, taken) {
                self.graph.order(released, taken);
            }
        }
        // A volume goes after everything that may still have it.
        for address in self.volumes.keys() {
            let Ok(name) = address.name().parse() else { continue };
            let Some((_, removed)) = chains.get(address).and_then(|chain| chain.down.first()) else {
                continue;
            };
            for chain in holders.of(&name).filter_map(|holder| chains.get(holder)) {
                for step in chain.down.last().map(|(_, id)| *id).into_iter().chain(chain.touches_disks()) {
                    self.graph.order(step, *removed);
                }
            }
        }
        match inputs.options.mode {
            Mode::Normal | Mode::Provision => self.order_up(inputs, &chains),
            Mode::Turn(_) => self.order_up_again(inputs, &chains)?,
            Mode::Destroy | Mode::RefreshOnly => {}
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

    /// The same by what was recorded, of machines that come up as they were.
    fn order_up_again(
        &mut self,
        inputs: Inputs<'_>,
        chains: &BTreeMap<Address, Chain>,
    ) -> Result<(), RecordError> {
        for record in inputs.recorded.records.values() {
            let Some(gate) = chains.get(&record.address).and_then(Chain::gate) else { continue };
            for (name, until) in &spec_of(record)?.depends_on {
                let dependency = chains.get(&Address::vm(name.as_str()));
                if let Some(reached) = dependency.and_then(|chain| chain.reached(*until)) {
                    self.graph.order(reached, gate);
                }
            }
        }
        Ok(())
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
            let label = if matches!(kind, StepKind::Provision(_)) {
                labels.next().map(|run| run.label.clone())
            } else {
                None
            };
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

    /// The step after which no process works on the machine's disks.
    fn is_off(&self) -> Option<StepId> {
        let off = |kind: &StepKind| matches!(kind, StepKind::Stop | StepKind::Destroy);
        self.down.iter().find(|(kind, _)| off(kind)).map(|(_, id)| *id)
    }

    /// The first step that makes or changes the machine's disks.
    fn touches_disks(&self) -> Option<StepId> {
        let touches =
            |kind: &StepKind| matches!(kind, StepKind::Prepare | StepKind::Update | StepKind::Start);
        self.up.iter().find(|(kind, _)| touches(kind)).map(|(_, id)| *id)
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
            StepKind::Provision(_) | StepKind::Keep => until >= Until::Provisioned,
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

//! Decisions that depend on each other: machines that replace each other, ports that change hands, machines that
//! cannot be asked. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};
use vmctl_providers::{InstanceId, Name, Protocol, Secrets};
use vmctl_state::{Address, Snapshot};

use crate::change::{Action, Change, LeftAloneKind};
use crate::desired::{Desired, DesiredVm, Trigger};
use crate::diff::{Decision, Known, Wish, decide};
use crate::observed::Sight;
use crate::plan::Inputs;
use crate::recorded::{RecordError, RecordedVm, cut_off, spec_of, unknown_step};
use crate::scope::Mode;
use crate::step::StepKind;
use crate::volumes::{self, Holders};

/// One machine lets go of something before another takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HandOver {
    pub(crate) what: Thing,
    pub(crate) releases: Address,
    pub(crate) takes: Address,
}

/// What goes from one machine to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thing {
    /// A port of the host: taken by the start, or by an update while the machine runs.
    Port,
    /// A volume: its file is touched before the start.
    Volume,
}

/// The decisions of one plan, as they come to agree.
#[derive(Debug)]
pub(crate) struct Decisions<'a> {
    inputs: Inputs<'a>,
    moves: &'a BTreeMap<Address, Address>,
    secrets: Secrets,
    /// Volumes whose disks are not there any more.
    gone: BTreeMap<Name, Option<PathBuf>>,
    pub(crate) by_address: BTreeMap<Address, Decision>,
    /// Machines that are replaced only because another one is made or made anew.
    followers: BTreeSet<Address>,
}

impl<'a> Decisions<'a> {
    /// Decides about every machine in scope by itself.
    pub(crate) fn new(
        inputs: Inputs<'a>,
        scope: Option<&BTreeSet<Name>>,
        moves: &'a BTreeMap<Address, Address>,
    ) -> Result<Self, RecordError> {
        let mut decisions = Self {
            inputs,
            moves,
            secrets: inputs.secrets(),
            gone: volumes::gone(inputs)?,
            by_address: BTreeMap::new(),
            followers: BTreeSet::new(),
        };
        for address in addresses(inputs) {
            if scope.is_none_or(|scope| scope.contains(address.name())) {
                let wish = decisions.wish(&address);
                decisions.decide(&address, wish)?;
            }
        }
        Ok(decisions)
    }

    fn decide(&mut self, address: &Address, wish: Wish<'_>) -> Result<(), RecordError> {
        let inputs = self.inputs;
        let desired =
            inputs.desired.filter(|_| matches!(inputs.options.mode, Mode::Normal | Mode::Provision));
        let record = inputs.recorded.records.get(address);
        let known = Known {
            desired: desired.and_then(|desired| desired_vm(desired, address)),
            record,
            moved_from: self.moves.get(address),
            sight: inputs.observed.vms.get(address),
            interrupted: interrupted(inputs.recorded, address),
            unknown: record.and_then(|record| unknown_step(record, &inputs.recorded.open)),
            rerun: inputs.options.rerun.contains(address.name()),
            no_provision: inputs.options.no_provision,
            no_wait: inputs.options.no_wait,
            templates: &inputs.observed.templates,
            cold: inputs.options.cold,
            by_hand: inputs.options.by_hand,
            wish,
            secrets: &self.secrets,
            fresh: fresh_instance(inputs.recorded, address),
        };
        let mut decision = decide(address, known)?;
        if let Some(after) = decision.after.as_ref().filter(|_| inputs.options.mode == Mode::Normal) {
            volumes::miss(&mut decision.change, after, &self.gone);
        }
        if inputs.options.mode == Mode::RefreshOnly {
            decision.change = observed_only(decision.change);
        }
        self.by_address.insert(address.clone(), decision);
        Ok(())
    }

    /// What is wanted of a machine besides what the VMFile says of it.
    fn wish(&self, address: &Address) -> Wish<'a> {
        let options = self.inputs.options;
        let named = |names: &BTreeSet<Name>| names.contains(address.name());
        match options.mode {
            Mode::Destroy if named(&options.forget) => Wish::Forget,
            Mode::Destroy => Wish::RemoveAll,
            Mode::RefreshOnly => Wish::None,
            Mode::Turn(turn) => Wish::Turn(turn),
            Mode::Provision => Wish::Provision(&options.provision),
            // What is let go of is never destroyed, whatever else asks for it.
            Mode::Normal if self.inputs.desired.is_some_and(|desired| named(&desired.removed)) => {
                Wish::Forget
            }
            Mode::Normal if named(&options.replace) => Wish::Replace("asked for with `--replace`"),
            Mode::Normal => Wish::None,
        }
    }

    /// Replaces machines whose `replace-when` names a machine that is made or made anew.
    pub(crate) fn follow_triggers(&mut self) -> Result<(), RecordError> {
        let Some(desired) = self.inputs.desired else { return Ok(()) };
        loop {
            let triggered: Vec<_> = desired.vms.values().filter_map(|vm| self.trigger(vm)).collect();
            if triggered.is_empty() {
                return Ok(());
            }
            for (address, why) in triggered {
                self.decide(&address, Wish::Replace(&why))?;
                self.followers.insert(address);
            }
        }
    }

    /// Why a machine that would be kept is to be made anew, because another one is.
    fn trigger(&self, vm: &DesiredVm) -> Option<(Address, String)> {
        let cause = vm.lifecycle.replace_when.iter().find_map(|trigger| match trigger {
            Trigger::Machine(name) => self.is_made(name).then_some(name),
            Trigger::Field(_) => None,
        })?;
        let is_kept = self.by_address.contains_key(&Address::vm(vm.name.as_str())) && !self.is_made(&vm.name);
        is_kept.then(|| {
            let why = format!("`vm.{cause}` is made anew, and `replace-when` names it");
            (Address::vm(vm.name.as_str()), why)
        })
    }

    /// A machine that would be replaced because of another one, which is not made after all: replaced now, it would be
    /// replaced once more when that one is.
    fn in_vain(&self, desired: &Desired) -> Option<(Address, Address)> {
        self.followers.iter().find_map(|address| {
            let is_replaced = self.by_address.get(address)?.change.action == Action::Replace;
            let vm = desired_vm(desired, address).filter(|_| is_replaced)?;
            let causes = || {
                vm.lifecycle.replace_when.iter().filter_map(|trigger| match trigger {
                    Trigger::Machine(name) => Some(name),
                    Trigger::Field(_) => None,
                })
            };
            let cause = causes().next().filter(|_| !causes().any(|name| self.is_made(name)))?;
            Some((address.clone(), Address::vm(cause.as_str())))
        })
    }

    fn is_made(&self, name: &Name) -> bool {
        self.by_address
            .get(&Address::vm(name.as_str()))
            .is_some_and(|decision| matches!(decision.change.action, Action::Create | Action::Replace))
    }

    /// Who must let go of a fixed port before somebody else binds it.
    ///
    /// Machines that would exchange ports in place wait for each other: one of them is restarted, so that it lets go
    /// of its own before it waits.
    pub(crate) fn order_ports(&mut self) -> Result<Vec<HandOver>, RecordError> {
        loop {
            let orders = self.port_orders()?;
            let Some(address) = self.in_a_ring(&orders) else { return Ok(orders) };
            self.decide(&address, Wish::Restart("it exchanges ports of the host with another machine"))?;
        }
    }

    fn port_orders(&self) -> Result<Vec<HandOver>, RecordError> {
        let mut holders: BTreeMap<(Protocol, u16), Vec<&Address>> = BTreeMap::new();
        for record in self.inputs.recorded.records.values() {
            let spec = spec_of(record)?;
            for port in fixed_ports(&spec) {
                holders.entry(port).or_default().push(&record.address);
            }
        }
        let mut orders = Vec::new();
        for (address, decision) in &self.by_address {
            let binds =
                decision.change.up.iter().any(|step| matches!(step, StepKind::Start | StepKind::Update));
            for port in decision.after.iter().filter(|_| binds).flat_map(|after| fixed_ports(after)) {
                for holder in holders.get(&port).into_iter().flatten().filter(|holder| **holder != address) {
                    if self.lets_go(holder, port) {
                        orders.push(HandOver {
                            what: Thing::Port,
                            releases: (*holder).clone(),
                            takes: address.clone(),
                        });
                    }
                }
            }
        }
        Ok(orders)
    }

    fn lets_go(&self, address: &Address, port: (Protocol, u16)) -> bool {
        self.by_address.get(address).is_some_and(|decision| {
            decision.change.is_effective()
                && !decision.after.as_ref().is_some_and(|after| fixed_ports(after).any(|kept| kept == port))
        })
    }

    /// Who must be off before somebody else gets its volume.
    pub(crate) fn order_volumes(&self, holders: &Holders) -> Vec<HandOver> {
        let mut orders = Vec::new();
        for (takes, decision) in self.by_address.iter().filter(|(_, decision)| decision.change.is_effective())
        {
            for volume in decision.after.iter().flat_map(|after| &after.volumes) {
                for releases in holders.of(&volume.name).filter(|holder| *holder != takes) {
                    let (releases, takes) = (releases.clone(), takes.clone());
                    orders.push(HandOver { what: Thing::Volume, releases, takes });
                }
            }
        }
        orders
    }

    /// A machine that changes in place and waits, through others that do, for itself.
    fn in_a_ring(&self, orders: &[HandOver]) -> Option<Address> {
        let in_place = |address: &Address| {
            self.by_address.get(address).is_some_and(|Decision { change, .. }| {
                change.up.contains(&StepKind::Update)
                    && !change.down.contains(&StepKind::Stop)
                    && !change.up.contains(&StepKind::Start)
            })
        };
        let waits: Vec<(&Address, &Address)> = orders
            .iter()
            .filter(|order| in_place(&order.takes) && in_place(&order.releases))
            .map(|order| (&order.takes, &order.releases))
            .collect();
        waits
            .iter()
            .map(|(start, _)| *start)
            .find(|start| {
                let mut reached = BTreeSet::new();
                let mut open = vec![*start];
                while let Some(at) = open.pop() {
                    for (_, next) in waits.iter().filter(|(from, _)| *from == at) {
                        if next == start {
                            return true;
                        }
                        if reached.insert(*next) {
                            open.push(next);
                        }
                    }
                }
                false
            })
            .cloned()
    }

    /// Takes the steps from every change that would bring a machine up whose dependency nobody can ask: whether that
    /// is as far as it must be is unknown. What depends on a machine that is held back is held back as well, and so is
    /// what needs a volume that another machine keeps.
    pub(crate) fn hold_back(&mut self, holders: &Holders) {
        let Some(desired) = self.inputs.desired else { return };
        let observed = &self.inputs.observed.vms;
        let mut blocked: BTreeSet<Address> = observed
            .iter()
            .filter(|(_, sight)| matches!(sight, Sight::Unreachable { .. }))
            .map(|(address, _)| address.clone())
            .collect();
        let left_alone = self.by_address.values().filter(|decision| decision.change.left_alone.is_some());
        blocked.extend(left_alone.map(|decision| decision.change.address.clone()));
        loop {
            let before = blocked.len();
            for decision in self.by_address.values_mut() {
                let change = &mut decision.change;
                let Some(vm) = desired_vm(desired, &change.address).filter(|_| change.needs_dependencies())
                else {
                    continue;
                };
                let needed = vm.depends_on.keys().map(|name| Address::vm(name.as_str()));
                let Some(reason) = needed.into_iter().find(|address| blocked.contains(address)) else {
                    continue;
                };
                blocked.insert(change.address.clone());
                let reason = format!("it needs `{reason}`, which is left alone or cannot be asked");
                change.leave_alone(LeftAloneKind::Dependency, reason);
            }
            if let Some((address, cause)) = self.in_vain(desired) {
                let reason =
                    format!("`replace-when` names `{cause}`, which is to be made anew and is left alone");
                if let Some(decision) = self.by_address.get_mut(&address) {
                    decision.change.leave_alone(LeftAloneKind::Dependency, reason);
                }
                blocked.insert(address);
            }
            let held = self.by_address.iter().filter(|(address, _)| !blocked.contains(address)).find_map(
                |(address, decision)| {
                    let held = volumes::still_held(decision, &self.by_address, &blocked, holders)?;
                    Some((address.clone(), held))
                },
            );
            if let Some((address, (volume, holder))) = held {
                let reason = format!(
                    "its volume `{volume}` still belongs to `{holder}`, which this plan leaves as it is"
                );
                if let Some(decision) = self.by_address.get_mut(&address) {
                    decision.change.leave_alone(LeftAloneKind::Dependency, reason);
                }
                blocked.insert(address);
            }
            if blocked.len() == before {
                return;
            }
        }
    }
}

/// What a refresh shows of a decision: the drift, and nothing that would be done about it.
fn observed_only(change: Change) -> Change {
    Change { drift: change.drift, ..Change::none(change.address, change.instance) }
}

fn addresses(inputs: Inputs<'_>) -> BTreeSet<Address> {
    let desired = inputs.desired.filter(|_| matches!(inputs.options.mode, Mode::Normal | Mode::Provision));
    let desired = desired.iter().flat_map(|desired| desired.vms.keys());
    desired.map(|name| Address::vm(name.as_str())).chain(inputs.recorded.records.keys().cloned()).collect()
}

fn desired_vm<'a>(desired: &'a Desired, address: &Address) -> Option<&'a DesiredVm> {
    desired.vms.get(address.name())
}

fn fixed_ports(vm: &RecordedVm) -> impl Iterator<Item = (Protocol, u16)> {
    let fixed = vm.forwards.iter().filter(|forward| forward.host_port != 0);
    fixed.map(|forward| (forward.protocol, forward.host_port))
}

/// The step in which an earlier run died; provisioning, which can be told in more detail, is told elsewhere.
fn interrupted<'a>(recorded: &'a Snapshot, address: &Address) -> Option<&'a str> {
    let ours = recorded.open.iter().filter(|intent| intent.address == *address && cut_off(intent).is_none());
    ours.map(|intent| intent.step.as_str()).next()
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

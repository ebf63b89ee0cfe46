//! A plan: every decision, the steps that carry them out, and what each step needs.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};
use uuid::Uuid;
use vmctl_providers::image::{ImageCache, ImageIdentity, RemoteImage};
use vmctl_providers::provision::Rerun;
use vmctl_providers::{BackendTag, Digest, FoundVolume, Name, Secrets, Stray, VmSpec};
use vmctl_state::{Address, Record, Snapshot};

use crate::accept::accepted;
use crate::admission::Shortage;
use crate::change::{Accepts, Action, Change, LeftAlone, Refusal};
use crate::checks::CheckResult;
use crate::decisions::Decisions;
use crate::desired::{Desired, DesiredImage, InputFile, Subnet};
use crate::graph::{CycleError, StepGraph, StepId};
use crate::leaders::keep_one_of_each;
use crate::moves::{moved, moved_sights, moves, renamed};
use crate::observed::{Looked, Observed};
use crate::pins::{PlannedPin, RemoteUse, host_of, remote_images, shown_url, with_recorded_pins};
use crate::private::laid_out;
use crate::recorded::RecordError;
use crate::scope::{Contradiction, Mode, Options, ScopeError, UnknownMachine, UnknownStep, scope};
use crate::step::{Step, StepKind};
use crate::target::Target;
use crate::volumes::{Holders, KeptVolume, Spare, refuse_shrinking, spare};

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

impl Inputs<'_> {
    /// What nothing printed or kept may show.
    pub(crate) fn secrets(&self) -> Secrets {
        self.desired.map(|desired| desired.secrets.clone()).unwrap_or_default()
    }
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
    /// Volumes that stay although no machine needs them once it is carried out.
    pub kept: Vec<KeptVolume>,
    /// What became of the checks that were asked.
    pub checks: Vec<CheckResult>,
    /// The images from the network that the VMFile names, by URL, and what they are pinned to.
    pub pins: Vec<PlannedPin>,
    /// What was looked at when it was made.
    pub looked: Looked,
    /// What the VMFile's author may not have meant, as `validate --json` tells it; put there by whoever read the file.
    pub warnings: Vec<Value>,
    /// What the host has too little of for it; put there by whoever asked the host.
    pub shortages: Vec<Shortage>,
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
    /// The volumes that are removed, by address.
    pub(crate) volumes: BTreeMap<Address, FoundVolume>,
    /// The images that are fetched, by address.
    pub(crate) images: BTreeMap<Address, PlannedImage>,
    /// What nothing that is told of carrying it out may show.
    pub(crate) secrets: Secrets,
}

/// An image that machines wait for.
#[derive(Debug, Clone)]
pub(crate) enum PlannedImage {
    /// It is copied.
    Local(LocalImage),
    /// It is downloaded.
    Remote(RemoteFetch),
}

/// An image of a server, as it is fetched into the cache.
#[derive(Debug, Clone)]
pub(crate) struct RemoteFetch {
    /// What is asked for.
    pub(crate) remote: RemoteImage,
    /// The URL as it may be shown.
    pub(crate) shown: String,
    /// The server.
    pub(crate) host: String,
    /// How many bytes are downloaded, if that is known.
    pub(crate) size: Option<u64>,
}

/// An image of this host, as it is fetched into the cache.
#[derive(Debug, Clone)]
pub(crate) struct LocalImage {
    /// The file.
    pub(crate) source: PathBuf,
    /// What it was found to be.
    pub(crate) identity: ImageIdentity,
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
    /// An option names a provisioning step that there is not.
    #[error(transparent)]
    Step(#[from] UnknownStep),
    /// Options contradict each other.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
    /// A volume would lose its end.
    #[error("the volume `{name}` has {least} and cannot shrink to {asked}: what is on its end would be lost")]
    VolumeShrinks {
        /// The volume.
        name: Name,
        /// The size asked for, in words.
        asked: String,
        /// The size that it has, in words.
        least: String,
    },
    /// No subnet is left that could be chosen.
    #[error("no free subnet is found for the network `{name}`")]
    NoSubnet {
        /// The network.
        name: Name,
    },
    /// A network has no address left.
    #[error("the network `{name}` has no address left in {subnet}")]
    NetworkFull {
        /// The network.
        name: Name,
        /// Its addresses.
        subnet: Subnet,
    },
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
            ScopeError::Step(error) => Self::Step(error),
            ScopeError::Contradiction(error) => Self::Contradiction(error),
        }
    }
}

/// How many machines each kind of change concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
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
    /// Machines because of which the plan cannot be applied; counted besides, not instead.
    pub refused: usize,
    /// Machines that differ from what is recorded; counted besides, not instead.
    pub drifted: usize,
}

impl Plan {
    /// Makes the plan. Pure: the same inputs give the same plan.
    pub fn new(inputs: Inputs<'_>) -> Result<Self, PlanError> {
        // Renamed first, so that both names of a machine mean the one machine and no option tears them apart.
        let mut moves = moves(inputs)?;
        let recorded = moved(inputs.recorded, &moves);
        let observed = moved_sights(inputs.observed, &moves);
        let options = renamed(inputs.options, &moves);
        let scope = scope(&options, inputs.desired, &recorded)?;
        let desired = inputs.desired.map(|desired| with_recorded_pins(desired, &recorded)).transpose()?;
        let desired = match desired.as_deref() {
            Some(desired) if options.mode == Mode::Normal => Some(laid_out(desired, &recorded)?),
            desired => desired.map(Cow::Borrowed),
        };
        let inputs = Inputs {
            desired: desired.as_deref(),
            recorded: &recorded,
            observed: &observed,
            options: &options,
            ..inputs
        };
        moves.retain(|to, _| scope.as_ref().is_none_or(|scope| scope.contains(to.name())));
        let holders = Holders::new(inputs)?;
        let mut decisions = Decisions::new(inputs, scope.as_ref(), &moves)?;
        decisions.follow_triggers()?;
        let mut orders = decisions.order_ports()?;
        decisions.hold_back(&holders);
        orders.extend(decisions.order_volumes(&holders));
        keep_one_of_each(&mut decisions.by_address, inputs.desired);
        if inputs.options.mode == Mode::Normal {
            refuse_shrinking(inputs, decisions.by_address.values())?;
        }

        let desired =
            inputs.desired.filter(|_| matches!(inputs.options.mode, Mode::Normal | Mode::Provision));
        let mut plan = Self {
            project: inputs.project.clone(),
            lineage: inputs.recorded.lineage,
            serial: inputs.recorded.serial,
            options: inputs.options.clone(),
            changes: Vec::new(),
            strays: inputs.observed.strays.iter().filter(|stray| !stray.released).cloned().collect(),
            kept: Vec::new(),
            volumes: BTreeMap::new(),
            checks: inputs.observed.checks.clone(),
            pins: inputs.desired.map(|desired| planned_pins(desired, inputs.observed)).unwrap_or_default(),
            looked: inputs.observed.looked,
            warnings: Vec::new(),
            shortages: Vec::new(),
            graph: StepGraph::default(),
            inputs: desired.map(|desired| desired.inputs.clone()).unwrap_or_default(),
            image_files: desired.map(image_files).unwrap_or_default(),
            bookkeeping: moves
                .iter()
                .map(|(to, from)| Bookkeeping::Move { from: from.clone(), to: to.clone() })
                .collect(),
            targets: BTreeMap::new(),
            images: BTreeMap::new(),
            secrets: inputs.secrets(),
        };
        plan.take_over(decisions, inputs);
        let Spare { kept, removed } = spare(inputs, scope.is_some(), &plan.changes, &holders);
        plan.kept = kept;
        for (volume, change) in removed {
            plan.volumes.insert(change.address.clone(), volume);
            plan.changes.push(change);
        }
        plan.accept(accepted(inputs, scope.as_ref())?);
        plan.add_steps(inputs, &orders, &holders)?;
        plan.follow_leaders();
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
    pub fn refused(&self) -> impl Iterator<Item = (&Change, &Refusal)> {
        self.changes.iter().filter_map(|change| Some((change, change.refused.as_ref()?)))
    }

    /// The changes that do something.
    pub fn effective(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.is_effective())
    }

    /// The files of the keys that its steps log in to real guests with, besides those that vmctl makes.
    pub fn login_keys(&self) -> BTreeSet<&Path> {
        let logs_in = |step: &Step| matches!(step.kind, StepKind::Ready | StepKind::Provision(_));
        let steps = self.graph.steps().map(|(_, step)| step).filter(|step| logs_in(step));
        let specs = steps.filter_map(|step| Some(&self.targets.get(&step.address)?.spec));
        let specs = specs.filter(|spec| spec.backend != BackendTag::Noop);
        specs.filter_map(|spec| spec.ssh.as_ref()?.private_key.as_deref()).collect()
    }

    /// Whether the VMFile says of a provisioning step that it may run again where it was cut off.
    pub fn is_safe_to_rerun(&self, id: StepId) -> bool {
        let step = self.graph.step(id);
        let StepKind::Provision(number) = step.kind else { return false };
        let target = self.targets.get(&step.address);
        let planned = target.and_then(|target| target.provision.get(number - 1));
        planned.is_some_and(|planned| planned.options.rerun == Rerun::Safe)
    }

    /// Whether recorded and observed differ anywhere.
    pub fn has_drift(&self) -> bool {
        !self.strays.is_empty() || self.changes.iter().any(|change| !change.drift.is_empty())
    }

    /// Counts the changes.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        for change in &self.changes {
            summary.refused += usize::from(change.refused.is_some());
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

    /// Takes over what a refresh changes in the record.
    fn accept(&mut self, accepted: Vec<Bookkeeping>) {
        for entry in &accepted {
            let (address, accepts) = match entry {
                Bookkeeping::Put(record) => (&record.address, Accepts::Update),
                Bookkeeping::Remove(address) => (address, Accepts::Forget),
                Bookkeeping::Move { .. } => continue,
            };
            for change in self.changes.iter_mut().filter(|change| change.address == *address) {
                change.accepts = Some(accepts);
            }
        }
        self.bookkeeping.extend(accepted);
    }

    /// Whether the step brings an image from a server.
    pub fn is_download(&self, id: StepId) -> bool {
        self.server_of(id).is_some()
    }

    /// The server that the step brings an image from, if it does.
    pub(crate) fn server_of(&self, id: StepId) -> Option<String> {
        let step = self.graph.step(id);
        match self.images.get(&step.address).filter(|_| step.kind == StepKind::FetchImage)? {
            PlannedImage::Local(_) => None,
            PlannedImage::Remote(fetch) => Some(fetch.host.clone()),
        }
    }

    /// Plans to bring `image`. One that is on this host is not downloaded.
    fn wait_for(&mut self, image: &DesiredImage, inputs: Inputs<'_>) {
        let address = image_address(image);
        match image {
            DesiredImage::Local { source, identity } => {
                let local = LocalImage { source: source.clone(), identity: identity.clone() };
                self.images.insert(address, PlannedImage::Local(local));
            }
            DesiredImage::Remote { url, pin, .. } => {
                let size = pin.as_ref().and_then(|pin| pin.upstream.size);
                self.images.entry(address).or_insert_with(|| {
                    PlannedImage::Remote(RemoteFetch {
                        remote: RemoteImage { url: url.clone(), sha256: image.download().cloned() },
                        shown: shown_url(url, &inputs.secrets()),
                        host: host_of(url),
                        size,
                    })
                });
            }
        }
    }

    /// Takes over the decisions, and what their steps need.
    fn take_over(&mut self, decisions: Decisions<'_>, inputs: Inputs<'_>) {
        for (address, decision) in decisions.by_address {
            let desired = inputs.desired.filter(|_| !decision.change.up.is_empty());
            if let Some(desired) = desired
                && let Some(vm) = desired.vms.get(address.name())
                && let Some(target) = Target::new(vm, &decision, desired, inputs.images)
            {
                if decision.change.up.contains(&StepKind::Prepare)
                    && let Some(image) = &vm.image
                {
                    self.wait_for(image, inputs);
                }
                self.targets.insert(address, target);
            }
            self.changes.push(decision.change);
        }
    }
}

/// The address of the step that brings `image`: by its content, else by its download, else by its URL.
pub(crate) fn image_address(image: &DesiredImage) -> Address {
    let by_url = || Digest::of(image.source());
    Address::image(image.digest().cloned().unwrap_or_else(by_url).hex())
}

fn planned_pins(desired: &Desired, observed: &Observed) -> Vec<PlannedPin> {
    let planned = |image: RemoteUse<'_>| {
        let url = shown_url(image.url, &desired.secrets);
        PlannedPin {
            machines: image.machines.into_iter().cloned().collect(),
            sha256: image.pin.map(|pin| pin.sha256.clone()),
            image: image.pin.and_then(|pin| pin.image.clone()),
            by: image.pin.map(|pin| pin.by),
            upstream: image.pin.map(|pin| pin.upstream.clone()).unwrap_or_default(),
            seen: observed.upstream.get(&url).cloned(),
            url,
        }
    };
    remote_images(desired).into_iter().map(planned).collect()
}

fn image_files(desired: &Desired) -> Vec<InputFile> {
    let files: BTreeMap<_, _> = desired
        .vms
        .values()
        .filter_map(|vm| match &vm.image {
            Some(DesiredImage::Local { source, identity }) => Some((source, &identity.digest)),
            Some(DesiredImage::Remote { .. }) | None => None,
        })
        .collect();
    files.into_iter().map(|(path, digest)| InputFile { path: path.clone(), digest: digest.clone() }).collect()
}

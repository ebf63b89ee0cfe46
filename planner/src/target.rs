//! What the steps of one machine need. Pure.

use sha2::{Digest as _, Sha256};
use vmctl_providers::image::{Fetched, ImageCache};
use vmctl_providers::provision::{ProvisionStep, Run};
use vmctl_providers::{
    Forward, InstanceId, MacAddr, Machine, MadeFrom, Name, NetworkConfig, Nic, Readiness, VmSpec,
};
use vmctl_state::Address;

use crate::change::Change;
use crate::desired::{Desired, DesiredVm};
use crate::diff::Decision;
use crate::drift::DriftKind;
use crate::fields::Class;
use crate::plan::image_address;
use crate::recorded::RecordedVm;
use crate::warm::Unkeyed;

/// What the steps of one machine need.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The machine as it is to be.
    pub(crate) spec: VmSpec,
    /// What is remembered of it from then on.
    pub(crate) recorded: RecordedVm,
    /// Its provisioning steps.
    pub(crate) provision: Vec<ProvisionStep>,
    /// When it counts as ready.
    pub(crate) ready: Readiness,
    /// How many of them, from the first, need not run again.
    pub(crate) provisioned: usize,
    /// Whether an update changes nothing but what is remembered.
    pub(crate) only_remembered: bool,
    /// The image that its disk is made from, by the address of the step that brings it.
    pub(crate) image: Option<Address>,
    /// The machine whose template it is made from, if there is one by then.
    pub(crate) template_after: Option<Address>,
    /// What its key is made from once its image is known, if it has one and that is not known yet.
    unkeyed: Option<Unkeyed>,
}

impl Target {
    /// What the steps of `decision` need to make `vm`; `None` where nothing is desired.
    pub(crate) fn new(
        vm: &DesiredVm,
        decision: &Decision,
        desired: &Desired,
        images: &ImageCache,
    ) -> Option<Self> {
        let after = decision.after.as_ref()?;
        let is_unknown = vm.image.as_ref().is_some_and(|image| image.digest().is_none());
        let warm = decision.warm.as_ref().filter(|_| is_unknown);
        let unkeyed = warm.map(|warm| Unkeyed::of(vm, warm.level));
        let vmfile = desired.inputs.first().map(|input| input.path.clone());
        Some(Self {
            spec: VmSpec {
                warm: decision.warm.clone(),
                ..spec(vm, after, &desired.project, decision.change.instance, images)
            },
            recorded: RecordedVm { vmfile, ..RecordedVm::clone(after) },
            provision: vm.provision.clone(),
            ready: vm.ready.clone(),
            provisioned: decision.provisioned,
            only_remembered: is_only_remembered(&decision.change),
            image: vm.image.as_ref().map(image_address),
            template_after: None,
            unkeyed,
        })
    }

    /// Whether the machine is made from a template.
    fn is_cloned(&self) -> bool {
        self.spec.warm.as_ref().is_some_and(|warm| warm.made_from == MadeFrom::Template)
    }

    /// Whether the machine has a key and is made from its image.
    pub(crate) fn is_made_from_its_image(&self) -> bool {
        self.spec.warm.as_ref().is_some_and(|warm| warm.made_from == MadeFrom::Image)
    }

    /// Waits for the template of `leader`, and does without it if there is none.
    pub(crate) fn follow(&mut self, leader: &Address) {
        self.template_after = Some(leader.clone());
        if let Some(warm) = &mut self.spec.warm {
            warm.made_from = MadeFrom::TemplateOrImage;
        }
    }

    /// The same, once it is known that there was a template and that the machine was made from it.
    pub(crate) fn cloned(&self) -> Self {
        let mut target = self.clone();
        if let Some(warm) = &mut target.spec.warm {
            warm.made_from = MadeFrom::Template;
        }
        target.provisioned = target.provision.len();
        target
    }

    /// Whether provisioning step `number` need not run, because the machine came provisioned from a template.
    pub(crate) fn is_spared(&self, number: usize) -> bool {
        let step = self.provision.get(number - 1).filter(|_| self.is_cloned());
        step.is_some_and(|step| step.options.run != Run::Always)
    }

    /// The same, with the image from the network that came for it.
    pub(crate) fn with_image(&self, fetched: &Fetched) -> Self {
        let mut target = self.clone();
        target.spec.machine.image = Some(fetched.image.clone());
        target.recorded.image = Some(fetched.identity.clone());
        target.recorded.image_pin = Some(fetched.sha256.clone());
        if let (Some(warm), Some(unkeyed)) = (&mut target.spec.warm, target.unkeyed.take()) {
            warm.key = unkeyed.key(&fetched.sha256);
        }
        target
    }
}

/// Whether carrying the change out touches nothing but the record.
fn is_only_remembered(change: &Change) -> bool {
    let repairs = change.drift.iter().any(|drift| DriftKind::REPAIRED.contains(&drift.kind));
    change.moved_from.is_none()
        && !repairs
        && change.fields.iter().all(|field| field.class == Some(Class::RecordOnly))
}

/// The hardware address of an instance's card on `network`, which stays whatever other cards come and go: it follows
/// from the instance, and from what the card is connected to.
///
/// A user network has no other card, so that QEMU's prefix and three bytes do. Where many cards meet, four bytes of
/// a locally administered address make it unlikely enough that two are the same. `nth` counts cards on one bridge.
fn mac(instance: InstanceId, network: &NetworkConfig, nth: usize) -> MacAddr {
    let mut hash = Sha256::new();
    hash.update(instance.0.as_bytes());
    hash.update(nth.to_be_bytes());
    if let Some((kind, name)) = match network {
        NetworkConfig::User | NetworkConfig::Isolated | NetworkConfig::None => None,
        NetworkConfig::Private { name, .. } => Some(("private", name.as_str())),
        NetworkConfig::Tap { bridge } => Some(("tap", bridge.as_str())),
        NetworkConfig::Vnic { name } => Some(("vnic", name.as_str())),
    } {
        hash.update(kind);
        hash.update(name);
        let tail = hash.finalize();
        return MacAddr([0x52, 0x54, tail[0], tail[1], tail[2], tail[3]]);
    }
    let tail = hash.finalize();
    MacAddr([0x52, 0x54, 0x00, tail[0], tail[1], tail[2]])
}

/// The provider's view of a machine: hardware and login as `after` says, the rest as `vm` does. Without its image where
/// nobody knows yet what that is.
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
    let cards: Vec<_> = after.networks.iter().filter(|network| **network != NetworkConfig::None).collect();
    let nics = cards
        .iter()
        .enumerate()
        .map(|(index, network)| Nic {
            mac: mac(instance, network, cards[..index].iter().filter(|other| *other == network).count()),
            network: (*network).clone(),
            forwards: if network.is_user() { std::mem::take(&mut forwards) } else { Vec::new() },
        })
        .collect();
    let image = after.image.as_ref().map(|image| images.cached(image));
    VmSpec {
        id: instance,
        project: project.clone(),
        name: vm.name.clone(),
        backend: after.backend,
        machine: Machine {
            vcpus: after.vcpus,
            memory_mib: after.memory_mib,
            disk_bytes: after.disk_bytes,
            image,
            hardware: after.hardware.clone(),
            nics,
            volumes: after.volumes.clone(),
            shares: after.shares.clone(),
            media: after.media.clone(),
        },
        cloud_init: vm.cloud_init.clone(),
        ssh: after.ssh.clone(),
        warm: None,
    }
}

//! Which machines are kept as templates, and which are made from one. Pure; what a template is, see
//! [`vmctl_providers::template`].
//!
//! A template bears the key of everything that determines what a machine is once it is provisioned. Whatever the key
//! does not know of, such as a volume or a neighbour, keeps a machine from having one.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use vmctl_providers::provision::Run;
use vmctl_providers::template::{Template, Templates};
use vmctl_providers::{
    Arch, BackendTag, Digest, Error, Firmware, MadeFrom, Name, NetworkConfig, WarmLevel, WarmSpec,
};

use crate::change::Change;
use crate::desired::{Desired, DesiredImage, DesiredVm, Power, WarmChoice};
use crate::recorded::RecordedVm;

/// Version of what a key is made from: templates of another one are none of ours.
const VERSION: u32 = 1;

/// A template that was found, as far as a plan needs to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenTemplate {
    /// When it was kept.
    pub created: Timestamp,
    /// Whether a machine from it need not boot.
    pub level: WarmLevel,
    /// The machine that it was, as `project/name`.
    pub of: String,
}

impl From<&Template> for SeenTemplate {
    fn from(template: &Template) -> Self {
        Self {
            created: template.created,
            level: template.level(),
            of: format!("{}/{}", template.project, template.name),
        }
    }
}

/// The template that a machine is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedTemplate {
    /// Its key.
    pub key: Digest,
    /// What it is.
    #[serde(flatten)]
    pub seen: SeenTemplate,
}

/// How a machine that is about to be made stands to templates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Nothing is asked for.
    Nothing,
    /// It is made without, although it asks for one.
    Cold(&'static str),
    /// Its template is this one, if there is one.
    Template(Digest, WarmLevel),
}

/// How `vm` stands to templates.
pub(crate) fn wanted(vm: &DesiredVm) -> Wanted {
    if vm.warm == WarmChoice::Off {
        return Wanted::Nothing;
    }
    if let Some(why) = cannot_be_kept(vm) {
        return Wanted::Cold(why);
    }
    let level = if vm.warm == WarmChoice::Auto && memory_can_be_kept(vm) {
        WarmLevel::Memory
    } else {
        WarmLevel::Disk
    };
    match &vm.image {
        Some(image) => Wanted::Template(Unkeyed::of(vm, level).planned(image), level),
        None => Wanted::Cold("it has no image"),
    }
}

/// Why nothing of `vm` can be kept.
fn cannot_be_kept(vm: &DesiredVm) -> Option<&'static str> {
    let ours = |data: &vmctl_providers::CloudInitConfig| data.user_data.is_none() || data.more.merges;
    let alone = matches!(vm.networks[..], [NetworkConfig::User | NetworkConfig::Isolated]);
    [
        (vm.backend != BackendTag::Qemu, "only QEMU's machines have templates"),
        (vm.power != Power::Running, "it is not to run"),
        (vm.hardware.kernel.is_some(), "it boots a kernel directly"),
        (!vm.cloud_init.as_ref().is_some_and(ours), "its seed is not vmctl's"),
        (vm.ssh.is_none(), "vmctl does not log in to it"),
        (!vm.volumes.is_empty(), "it has a volume, which the next machine has not"),
        (!vm.shares.is_empty(), "it has a share, whose content may be another the next time"),
        (!vm.media.is_empty(), "it has media, whose content may be another the next time"),
        (!alone, "it is on a network with others"),
    ]
    .into_iter()
    .find_map(|(applies, why)| applies.then_some(why))
}

/// Whether the memory of `vm` means the same in another process.
fn memory_can_be_kept(vm: &DesiredVm) -> bool {
    let hardware = &vm.hardware;
    hardware.guest_arch() == Arch::X86_64
        && hardware.firmware == Firmware::Bios
        && !hardware.is_microvm()
        && hardware.vnc.is_none()
        && hardware.qemu_args.is_empty()
}

/// Everything that determines what a machine is once it is provisioned, but for its image, and for its name.
#[derive(Debug, Clone)]
pub(crate) struct Unkeyed(Value);

impl Unkeyed {
    /// What determines `vm`.
    pub(crate) fn of(vm: &DesiredVm, level: WarmLevel) -> Self {
        Self(parts(vm, level))
    }

    /// The key with this image, by the digest of its bytes: of those on the server, if that is where it comes from.
    pub(crate) fn key(&self, image: &Digest) -> Digest {
        self.with(json!(image))
    }

    /// The key as it is known while planning. An image that nobody knows yet stands for itself: no template has that
    /// key, and machines of the same image are alike.
    fn planned(&self, image: &DesiredImage) -> Digest {
        match image.download().or_else(|| image.digest()) {
            Some(digest) => self.key(digest),
            None => self.with(json!({ "source": image.source() })),
        }
    }

    fn with(&self, image: Value) -> Digest {
        let mut parts = self.0.clone();
        parts["image"] = image;
        Digest::of(parts.to_string())
    }
}

fn parts(vm: &DesiredVm, level: WarmLevel) -> Value {
    let recorded = RecordedVm::from(vm);
    let seed = recorded.cloud_init.as_ref().map(|seed| {
        // A host name is renewed.
        json!([
            seed.user,
            seed.authorized_keys,
            seed.user_data,
            seed.merges,
            seed.users,
            seed.packages,
            seed.files,
            seed.commands,
        ])
    });
    let steps: Vec<_> =
        vm.provision.iter().map(|step| (&step.digest, step.options.run == Run::Always)).collect();
    json!({
        "version": VERSION,
        "level": level,
        "vcpus": vm.vcpus,
        "memory_mib": vm.memory_mib,
        "disk_bytes": vm.disk_bytes,
        "hardware": vm.hardware,
        "networks": vm.networks,
        "seed": seed,
        "ssh_user": vm.ssh.as_ref().map(|ssh| &ssh.user),
        "provision": steps,
    })
}

/// The keys of the machines that have or will have a template, by name.
pub fn keys(desired: &Desired) -> BTreeMap<Name, Digest> {
    let key = |vm: &DesiredVm| match wanted(vm) {
        Wanted::Template(key, _) => Some((vm.name.clone(), key)),
        Wanted::Nothing | Wanted::Cold(_) => None,
    };
    desired.vms.values().filter_map(key).collect()
}

/// The templates that machines of `desired` would be made from, by key. One of no use is passed over and told to
/// whoever reads the log.
///
/// # Errors
///
/// None: what cannot be read is no template, and a machine boots without.
pub fn seen(templates: &Templates, desired: &Desired) -> BTreeMap<Digest, SeenTemplate> {
    let mut seen = BTreeMap::new();
    for key in keys(desired).into_values().collect::<BTreeSet<_>>() {
        match templates.find(&key) {
            Ok(Some(template)) => {
                seen.insert(key, SeenTemplate::from(&template));
            }
            Ok(None) => {}
            Err(error) => passed_over(&error),
        }
    }
    seen
}

fn passed_over(error: &Error) {
    tracing::warn!(%error, "a template is passed over");
}

/// How a machine is made, as its change tells it.
pub(crate) fn tell(change: &mut Change, wanted: &Wanted, used: Option<UsedTemplate>) -> Option<WarmSpec> {
    match wanted {
        Wanted::Nothing => None,
        Wanted::Cold(why) => {
            change.reasons.push(format!("made without a template: {why}"));
            None
        }
        Wanted::Template(key, level) => {
            let made_from = if used.is_some() { MadeFrom::Template } else { MadeFrom::Image };
            if let Some(UsedTemplate { seen: SeenTemplate { created, level, of }, .. }) = &used {
                let spared = match level {
                    WarmLevel::Memory => "it does not boot, and is provisioned already",
                    WarmLevel::Disk => "it is provisioned already",
                };
                let created = created.strftime("%Y-%m-%d %H:%M:%SZ");
                change.reasons.push(format!("from the template of `{of}`, kept {created}: {spared}"));
            }
            change.template = used;
            Some(WarmSpec { key: key.clone(), level: *level, made_from })
        }
    }
}

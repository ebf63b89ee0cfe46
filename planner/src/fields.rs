//! The one table that says what a change of each field needs.
//!
//! `docs/planning-behaviors.md` and the field reference are made from it.

use std::path::PathBuf;

use serde_json::Value;
use vmctl_providers::{NetworkConfig, Peer, PropolisOptions, SeedUser, ShareDriver, Sudo, ZoneOptions};

use crate::desired::{InputFile, VncTcp};
use crate::recorded::{RecordedCloudInit, RecordedFile, RecordedVm};

/// What a change of a field needs, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Only what vmctl remembers changes.
    RecordOnly,
    /// The machine is changed while it goes on running.
    InPlace,
    /// Steps run in the guest; nothing else happens to the machine.
    Provision,
    /// A graceful stop, the change, and a start on the same disk.
    Restart,
    /// A new machine; the disk is lost.
    Replace,
}

impl Class {
    /// All classes, from least to most.
    pub const ALL: [Self; 5] =
        [Self::RecordOnly, Self::InPlace, Self::Provision, Self::Restart, Self::Replace];

    /// The class as printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RecordOnly => "record only",
            Self::InPlace => "in place",
            Self::Provision => "provision",
            Self::Restart => "restart",
            Self::Replace => "replace",
        }
    }
}

/// What a change of one field needs.
#[derive(Debug)]
pub enum Needs {
    /// The same whatever the values are.
    Always(Class),
    /// It depends on the values before and after.
    Depends {
        /// The class, and when it is that one.
        cases: &'static [(Class, &'static str)],
        /// Which case it is; always one of the above.
        decide: fn(&RecordedVm, &RecordedVm) -> Class,
    },
}

/// One field of a machine.
#[derive(Debug)]
pub struct Field {
    /// Its name, as in the VMFile.
    pub name: &'static str,
    /// Unit that is shown behind a number.
    pub unit: &'static str,
    /// What a change needs.
    pub needs: Needs,
    /// What happens then, for people.
    pub effect: &'static str,
    /// Its value, for comparing and for showing.
    pub value: fn(&RecordedVm) -> Value,
    /// Gives the first machine the second one's value.
    pub keep: fn(&mut RecordedVm, &RecordedVm),
}

impl Field {
    /// What the change from one machine to the other needs.
    pub fn class(&self, before: &RecordedVm, after: &RecordedVm) -> Class {
        match &self.needs {
            Needs::Always(class) => *class,
            Needs::Depends { decide, .. } => decide(before, after),
        }
    }

    /// Whether it says how to plan rather than what a machine is; to ignore such a change would mean nothing.
    pub fn is_about_plans(&self) -> bool {
        matches!(self.name, "depends-on" | "lifecycle" | "ready" | "check")
    }

    /// Whether `name`, as written in `ignore-changes` or `replace-when`, means this field: its own name, that of the
    /// block it stands in, or `all`.
    pub fn is_meant_by(&self, name: &str) -> bool {
        let is_named = name == ALL || name == self.name || self.name.split('.').next() == Some(name);
        is_named && !self.is_about_plans()
    }
}

/// The word that stands for all fields.
pub const ALL: &str = "all";

/// The name under which the provisioning steps are ignored or replace a machine. They are no field: a record lists
/// the steps that really ran.
pub const PROVISION: &str = "provision";

/// Where a display is served besides its socket.
fn vnc_text(vnc: VncTcp) -> String {
    vnc.port.map_or_else(|| "tcp".to_owned(), |port| format!("tcp {port}"))
}

/// What a machine's propolis-server is, in words; nothing for other machines.
fn server(options: &PropolisOptions) -> Value {
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let parts = [
        ("server", options.server.map(|server| server.to_string())),
        ("binary", path(&options.binary)),
        ("bootrom", path(&options.bootrom)),
        ("api-version", options.api_version.clone()),
        ("vnic-link", options.vnic_link.clone()),
        ("zone", options.zone.as_ref().map(zone)),
    ];
    let said: Vec<_> =
        parts.into_iter().filter_map(|(name, value)| Some(format!("{name} {}", value?))).collect();
    if said.is_empty() { Value::Null } else { Value::String(said.join(", ")) }
}

/// A zone in the words of the VMFile.
fn zone(zone: &ZoneOptions) -> String {
    format!("{} over {} at {}/{}:{}", zone.template, zone.link, zone.address, zone.prefix, zone.port)
}

/// Steps that changed run again, and those after them.
pub const PROVISION_EFFECT: &str =
    "the first step whose content (text, script, file) changed runs again, and those after it";

/// All fields of a machine, in the order in which they are shown.
pub const FIELDS: &[Field] = &[
    Field {
        name: "backend",
        unit: "",
        needs: Needs::Always(Class::Replace),
        effect: "a hypervisor cannot take over another's machine",
        value: |vm| json(&vm.backend),
        keep: |vm, old| vm.backend = old.backend,
    },
    Field {
        name: "backend.pool",
        unit: "",
        needs: Needs::Always(Class::Replace),
        effect: "a disk is made where it is to stay",
        value: |vm| json(&vm.hardware.propolis.pool),
        keep: |vm, old| vm.hardware.propolis.pool.clone_from(&old.hardware.propolis.pool),
    },
    Field {
        name: "backend.server",
        unit: "",
        needs: Needs::Always(Class::Restart),
        effect: "with `binary`, `bootrom`, `api-version`, `vnic-link` and `zone`: the guest is off, and boots on the other server",
        value: |vm| server(&vm.hardware.propolis),
        keep: |vm, old| {
            let pool = vm.hardware.propolis.pool.take();
            vm.hardware.propolis = PropolisOptions { pool, ..old.hardware.propolis.clone() };
        },
    },
    Field {
        name: "image",
        unit: "",
        needs: Needs::Always(Class::Replace),
        effect: "compared by the digest of its content: another name of the same bytes is no change",
        value: image,
        keep: |vm, old| {
            vm.image.clone_from(&old.image);
            vm.image_pin.clone_from(&old.image_pin);
            vm.image_source.clone_from(&old.image_source);
        },
    },
    Field {
        name: "image.path",
        unit: "",
        needs: Needs::Always(Class::RecordOnly),
        effect: "the same content under another name",
        value: |vm| json(&vm.image_source),
        keep: |vm, old| vm.image_source.clone_from(&old.image_source),
    },
    Field {
        name: "arch",
        unit: "",
        needs: Needs::Always(Class::Replace),
        effect: "what is on a disk was made for one processor",
        value: |vm| json(&vm.hardware.arch),
        keep: |vm, old| vm.hardware.arch = old.hardware.arch,
    },
    Field {
        name: "firmware",
        unit: "",
        needs: Needs::Always(Class::Restart),
        effect: "the guest powers down and boots with the other firmware; variables of UEFI stay until the machine is destroyed",
        value: |vm| unless_default(&vm.hardware.firmware),
        keep: |vm, old| vm.hardware.firmware = old.hardware.firmware,
    },
    Field {
        name: "kernel",
        unit: "",
        needs: Needs::Always(Class::Restart),
        effect: "with `initrd` and `cmdline`, compared by the digest of their content; the guest powers down and boots the new one",
        value: |vm| vm.hardware.kernel.as_ref().map_or(Value::Null, kernel_words),
        keep: |vm, old| vm.hardware.kernel.clone_from(&old.hardware.kernel),
    },
    Field {
        name: "machine",
        unit: "",
        needs: Needs::Always(Class::Restart),
        effect: "the guest powers down and boots on other hardware",
        value: |vm| json(&vm.hardware.machine),
        keep: |vm, old| vm.hardware.machine.clone_from(&old.hardware.machine),
    },
    Field {
        name: "cpu",
        unit: "",
        needs: Needs::Always(Class::Restart),
        effect: "the guest powers down and boots on another processor",
        value: |vm| json(&vm.hardware.cpu),
        keep: |vm, old| vm.hardware.cpu.clone_from(&old.hardware.cpu),
    },
    Field {
        name: "accel",
        unit: "",
        needs: Needs::Always(Class::Restart),
        effect: "the guest powers down and boots under the other accelerator",
        value: |vm| unless_default(&vm.hardware.accel),
        keep: |vm, old| vm.hardware.accel = old.hardware.accel,
    },
    Field {
        name: "vnc",
        unit: "",
        needs: Needs::Always(Class::Restart),
        effect: "QEMU is started anew, with the display at another place",
        value: |vm| json(&vm.hardware.vnc.map(vnc_text)),
        keep: |vm, old| vm.hardware.vnc = old.hardware.vnc,
    },
    Field {
        name: "qemu-arg",
        unit: "",
        needs: Needs::Always(Class::Restart),
        effect: "QEMU is started anew with the other arguments",
        value: |vm| list(&vm.hardware.qemu_args),
        keep: |vm, old| vm.hardware.qemu_args.clone_from(&old.hardware.qemu_args),
    },
    Field {
        name: "vcpus",
        unit: "",
        needs: Needs::Always(Class::Restart),
        effect: "the guest powers down, gets its new processors and boots",
        value: |vm| json(&vm.vcpus),
        keep: |vm, old| vm.vcpus = old.vcpus,
    },
    Field {
        name: "memory",
        unit: "MiB",
        needs: Needs::Always(Class::Restart),
        effect: "the guest powers down, gets its new memory and boots",
        value: |vm| json(&vm.memory_mib),
        keep: |vm, old| vm.memory_mib = old.memory_mib,
    },
    Field {
        name: "disk",
        unit: "GiB",
        needs: Needs::Depends {
            cases: &[
                (Class::Restart, "it grows, or is named as it was"),
                (Class::Replace, "it shrinks: what is on it is lost"),
            ],
            decide: disk_class,
        },
        effect: "the data stays where the disk grows; the guest sees the new size when it boots",
        value: |vm| vm.disk_bytes.map_or(Value::Null, gibibytes),
        keep: |vm, old| vm.disk_bytes = old.disk_bytes,
    },
    Field {
        name: "volume",
        unit: "",
        needs: Needs::Depends {
            cases: &[
                (Class::InPlace, "one grows, or its `prevent-destroy` changes"),
                (Class::Restart, "one comes or goes, or their order changes"),
            ],
            decide: volume_class,
        },
        effect: "what is on a volume stays; one that grows is larger for the guest at once, one that comes or goes does so while the guest is off; to shrink one is refused",
        value: |vm| list(&vm.volumes.iter().map(volume_text).collect::<Vec<_>>()),
        keep: |vm, old| vm.volumes.clone_from(&old.volumes),
    },
    Field {
        name: "share",
        unit: "",
        needs: Needs::Always(Class::Restart),
        effect: "the guest powers down and boots with other folders",
        value: |vm| list(&vm.shares.iter().map(share_text).collect::<Vec<_>>()),
        keep: |vm, old| vm.shares.clone_from(&old.shares),
    },
    Field {
        name: "media",
        unit: "",
        needs: Needs::Always(Class::Restart),
        effect: "compared by their paths; the guest powers down and boots with the others",
        value: |vm| list(&vm.media),
        keep: |vm, old| vm.media.clone_from(&old.media),
    },
    Field {
        name: "network",
        unit: "",
        needs: Needs::Always(Class::Restart),
        effect: "the guest boots with other network cards, or with another address on one of them; an address that nobody wrote is chosen once and kept",
        value: |vm| json(&vm.networks.iter().map(network_words).collect::<Vec<_>>()),
        keep: |vm, old| vm.networks.clone_from(&old.networks),
    },
    Field {
        name: "network.names",
        unit: "",
        needs: Needs::Always(Class::InPlace),
        effect: "the guest learns which machines are in its private networks, and their addresses, while it runs",
        value: |vm| list(&peers(vm).map(ToString::to_string).collect::<Vec<_>>()),
        keep: keep_peers,
    },
    Field {
        name: "forward",
        unit: "",
        needs: Needs::Always(Class::InPlace),
        effect: "forwards are added and removed while the guest runs; open connections through others stay",
        value: |vm| json(&vm.forwards.iter().map(forward_text).collect::<Vec<_>>()),
        keep: |vm, old| vm.forwards.clone_from(&old.forwards),
    },
    Field {
        name: "cloud-init.hostname",
        unit: "",
        needs: Needs::Always(Class::Replace),
        effect: "cloud-init reads its seed once, on the first boot",
        value: |vm| seed(vm, |seed| json(&seed.hostname)),
        keep: |vm, old| keep_seed(vm, old, |vm, old| vm.hostname.clone_from(&old.hostname)),
    },
    Field {
        name: "cloud-init.user",
        unit: "",
        needs: Needs::Always(Class::Replace),
        effect: "cloud-init makes the login user once, on the first boot",
        value: |vm| seed(vm, |seed| json(&seed.user)),
        keep: |vm, old| keep_seed(vm, old, |vm, old| vm.user.clone_from(&old.user)),
    },
    Field {
        name: "cloud-init.users",
        unit: "",
        needs: Needs::Always(Class::Replace),
        effect: "cloud-init makes users once, on the first boot",
        value: |vm| seed(vm, |seed| list(&seed.users.iter().map(user_text).collect::<Vec<_>>())),
        keep: |vm, old| keep_seed(vm, old, |vm, old| vm.users.clone_from(&old.users)),
    },
    Field {
        name: "cloud-init.ssh-key",
        unit: "",
        needs: Needs::Always(Class::Replace),
        effect: "cloud-init installs keys once, on the first boot",
        value: |vm| seed(vm, |seed| json(&seed.authorized_keys)),
        keep: |vm, old| keep_seed(vm, old, |vm, old| vm.authorized_keys.clone_from(&old.authorized_keys)),
    },
    Field {
        name: "cloud-init.user-data",
        unit: "",
        needs: Needs::Always(Class::Replace),
        effect: "compared by the digest of the file's content; cloud-init reads it once, on the first boot",
        value: |vm| {
            seed(vm, |seed| match (&seed.user_data, seed.merges) {
                (Some(data), true) => json(&format!("{data} with our keys")),
                (data, _) => json(data),
            })
        },
        keep: |vm, old| {
            keep_seed(vm, old, |vm, old| {
                vm.user_data.clone_from(&old.user_data);
                vm.merges = old.merges;
            })
        },
    },
    Field {
        name: "cloud-init.packages",
        unit: "",
        needs: Needs::Always(Class::Replace),
        effect: "cloud-init installs packages once, on the first boot",
        value: |vm| seed(vm, |seed| list(&seed.packages)),
        keep: |vm, old| keep_seed(vm, old, |vm, old| vm.packages.clone_from(&old.packages)),
    },
    Field {
        name: "cloud-init.write-file",
        unit: "",
        needs: Needs::Always(Class::Replace),
        effect: "compared by the digests of their contents; cloud-init writes files once, on the first boot",
        value: |vm| seed(vm, |seed| list(&seed.files.iter().map(file_text).collect::<Vec<_>>())),
        keep: |vm, old| keep_seed(vm, old, |vm, old| vm.files.clone_from(&old.files)),
    },
    Field {
        name: "cloud-init.run",
        unit: "",
        needs: Needs::Always(Class::Replace),
        effect: "compared by the digests of the commands; cloud-init runs them once, on the first boot",
        value: |vm| seed(vm, |seed| list(&seed.commands)),
        keep: |vm, old| keep_seed(vm, old, |vm, old| vm.commands.clone_from(&old.commands)),
    },
    Field {
        name: "ssh",
        unit: "",
        needs: Needs::Always(Class::InPlace),
        effect: "vmctl logs in in another way; the forward to sshd comes and goes with the block; a user that the seed makes is `cloud-init.user`",
        value: |vm| json(&vm.ssh),
        keep: |vm, old| vm.ssh.clone_from(&old.ssh),
    },
    Field {
        name: "state",
        unit: "",
        needs: Needs::Always(Class::InPlace),
        effect: "the machine is started, stopped, suspended or resumed",
        value: |vm| json(&vm.power),
        keep: |vm, old| vm.power = old.power,
    },
    Field {
        name: "depends-on",
        unit: "",
        needs: Needs::Always(Class::RecordOnly),
        effect: "decides the order of the next start and of destruction",
        value: |vm| json(&vm.depends_on),
        keep: |vm, old| vm.depends_on.clone_from(&old.depends_on),
    },
    Field {
        name: "lifecycle",
        unit: "",
        needs: Needs::Always(Class::RecordOnly),
        effect: "decides about later plans; protection is remembered even if the machine's block is deleted",
        value: |vm| json(&vm.lifecycle),
        keep: |vm, old| vm.lifecycle.clone_from(&old.lifecycle),
    },
    Field {
        name: "ready",
        unit: "",
        needs: Needs::Always(Class::RecordOnly),
        effect: "asked at the next start, and by `plan` and `drift`",
        value: |vm| vm.ready.as_ref().map_or(Value::Null, readiness),
        keep: |vm, old| vm.ready.clone_from(&old.ready),
    },
    Field {
        name: "check",
        unit: "",
        needs: Needs::Always(Class::RecordOnly),
        effect: "asked by `plan` and `drift`",
        value: |vm| json(&vm.checks.iter().map(check_text).collect::<Vec<_>>()),
        keep: |vm, old| vm.checks.clone_from(&old.checks),
    },
    Field {
        name: "labels",
        unit: "",
        needs: Needs::Always(Class::RecordOnly),
        effect: "words for people and scripts; nothing in the machine changes",
        value: |vm| if vm.labels.is_empty() { Value::Null } else { json(&vm.labels) },
        keep: |vm, old| vm.labels.clone_from(&old.labels),
    },
];

/// The names that `ignore-changes` and `replace-when` take: fields, blocks of fields, the provisioning steps, `all`.
pub fn names() -> Vec<&'static str> {
    let mut names: Vec<&str> = Vec::new();
    for field in FIELDS.iter().filter(|field| !field.is_about_plans()) {
        if let Some((block, _)) = field.name.split_once('.')
            && !names.contains(&block)
        {
            names.push(block);
        }
        names.push(field.name);
    }
    names.extend([PROVISION, ALL]);
    names
}

/// A disk grows on the same machine; it never shrinks.
fn disk_class(before: &RecordedVm, after: &RecordedVm) -> Class {
    if disk_size(after) < disk_size(before) { Class::Replace } else { Class::Restart }
}

/// The same volumes in the same order grow while the guest runs.
fn volume_class(before: &RecordedVm, after: &RecordedVm) -> Class {
    let names = |vm: &RecordedVm| vm.volumes.iter().map(|volume| volume.name.clone()).collect::<Vec<_>>();
    if names(before) == names(after) { Class::InPlace } else { Class::Restart }
}

/// The size of the root disk that the guest sees, in bytes.
pub(crate) fn disk_size(vm: &RecordedVm) -> u64 {
    let least = vm.image.as_ref().map_or(0, |image| image.virtual_size);
    vm.disk_bytes.unwrap_or(least).max(least)
}

/// A size in GiB, as a whole number where it is one.
fn gibibytes(bytes: u64) -> Value {
    if bytes.is_multiple_of(1 << 30) { json(&(bytes >> 30)) } else { json(&((bytes >> 20) as f64 / 1024.0)) }
}

/// A value, as nothing where it is the default.
fn unless_default<T: serde::Serialize + Default + PartialEq>(value: &T) -> Value {
    if *value == T::default() { Value::Null } else { json(value) }
}

/// A list, as nothing where it is empty.
fn list(items: &[impl serde::Serialize]) -> Value {
    if items.is_empty() { Value::Null } else { json(&items) }
}

/// What stands for an image whose content is known when it is here.
pub const UNKNOWN_IMAGE: &str = "known after apply";

/// The content of the image; else the digest of its download, else that nobody knows it yet.
fn image(vm: &RecordedVm) -> Value {
    match (&vm.image, &vm.image_pin, &vm.image_source) {
        (Some(image), ..) => json(&image.digest),
        (None, Some(pin), _) => json(pin),
        (None, None, Some(_)) => Value::String(UNKNOWN_IMAGE.to_owned()),
        (None, None, None) => Value::Null,
    }
}

fn kernel_words(kernel: &crate::desired::Kernel) -> Value {
    let file = |what: &str, file: &InputFile| format!("{what} {}", file.digest);
    let mut words = vec![file("kernel", &kernel.kernel)];
    words.extend(kernel.initrd.as_ref().map(|initrd| file("initrd", initrd)));
    words.extend(kernel.cmdline.as_ref().map(|cmdline| format!("cmdline {cmdline}")));
    json(&words)
}

/// A volume as shown: `data (10 GiB, prevent-destroy)`.
fn volume_text(volume: &crate::desired::VmVolume) -> String {
    let protected = if volume.prevent_destroy { ", prevent-destroy" } else { "" };
    format!("{} ({}{protected})", volume.name, crate::admission::size(volume.size_bytes))
}

/// A network card as it is compared and shown: without the group that carries it and the machines that are in it.
fn network_words(network: &NetworkConfig) -> Value {
    let mut words = json(network);
    if let (Some(link), Value::Object(entries)) = (network.link(), &mut words) {
        entries.remove("link");
        entries.insert("prefix".to_owned(), Value::from(link.prefix));
    }
    words
}

fn peers(vm: &RecordedVm) -> impl Iterator<Item = &Peer> {
    vm.networks.iter().filter_map(NetworkConfig::link).flat_map(|link| &link.peers)
}

/// Each network of the first machine has the machines that the second one knows in it.
fn keep_peers(vm: &mut RecordedVm, old: &RecordedVm) {
    for card in &mut vm.networks {
        let NetworkConfig::Private { name, link: Some(link), .. } = card else { continue };
        let known = old.networks.iter().find_map(|card| match card {
            NetworkConfig::Private { name: other, link, .. } if other == name => link.as_ref(),
            _ => None,
        });
        if let Some(known) = known {
            link.peers.clone_from(&known.peers);
        }
    }
}

/// A share as shown: `/home/me/src -> /mnt/src, read only`.
fn share_text(share: &crate::desired::Share) -> String {
    let readonly = if share.readonly { ", read only" } else { "" };
    let driver = if share.driver == ShareDriver::Virtiofs { ", over virtiofs" } else { "" };
    format!("{} -> {}{readonly}{driver}", share.source.display(), share.target)
}

fn seed(vm: &RecordedVm, value: fn(&RecordedCloudInit) -> Value) -> Value {
    vm.cloud_init.as_ref().map_or(Value::Null, value)
}

/// A file of a seed as shown: `/etc/motd (sha256:…, mode 0644, owner root)`.
fn user_text(user: &SeedUser) -> String {
    let mut parts = Vec::new();
    if !user.groups.is_empty() {
        parts.push(format!("groups {}", user.groups.join(" ")));
    }
    parts.extend(user.sudo.as_ref().map(|sudo| match sudo {
        Sudo::Nothing => "no sudo".to_owned(),
        Sudo::Rule(rule) => format!("sudo {rule}"),
    }));
    parts.extend(user.shell.as_ref().map(|shell| format!("shell {shell}")));
    parts.extend(user.authorized_keys.iter().map(|key| format!("key {key}")));
    if parts.is_empty() { user.name.clone() } else { format!("{} ({})", user.name, parts.join(", ")) }
}

fn file_text(file: &RecordedFile) -> String {
    let mode = file.mode.map(|mode| format!(", mode {mode:04o}")).unwrap_or_default();
    let owner = file.owner.as_ref().map(|owner| format!(", owner {owner}")).unwrap_or_default();
    format!("{} ({}{mode}{owner})", file.path, file.content)
}

/// Keeps one thing that a seed says; where only one of both has a seed, it is kept or left out as a whole.
fn keep_seed(vm: &mut RecordedVm, old: &RecordedVm, keep: fn(&mut RecordedCloudInit, &RecordedCloudInit)) {
    match (&mut vm.cloud_init, &old.cloud_init) {
        (Some(seed), Some(old)) => keep(seed, old),
        (seed, old) => seed.clone_from(old),
    }
}

fn readiness(ready: &vmctl_providers::Readiness) -> Value {
    let mut words: Vec<_> = ready.probes.iter().map(ToString::to_string).collect();
    if words.is_empty() {
        return Value::Null;
    }
    words.push(format!("within {} s", ready.timeout.as_secs()));
    json(&words)
}

fn check_text(check: &crate::desired::Check) -> String {
    let probes: Vec<_> = check.probes.iter().map(ToString::to_string).collect();
    format!("{}: {}", check.name, probes.join(", "))
}

/// A forward as shown: `127.0.0.1:8080 -> 80/tcp`; a port that the kernel chooses at start is `auto`.
pub(crate) fn forward_text(forward: &vmctl_providers::Forward) -> String {
    let port = if forward.host_port == 0 { "auto".to_owned() } else { forward.host_port.to_string() };
    format!("{}:{port} -> {}/{}", forward.host_address, forward.guest_port, forward.protocol.as_str())
}

/// The JSON form of a plain value.
pub(crate) fn json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).expect("plain data with string keys always has a JSON form")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        for names in [FIELDS.iter().map(|field| field.name).collect::<Vec<_>>(), names()] {
            let mut unique = names.clone();
            unique.sort_unstable();
            unique.dedup();
            assert_eq!(unique.len(), names.len());
        }
    }

    #[test]
    fn classes_grow_in_the_order_of_harm() {
        assert!(Class::ALL.is_sorted());
    }

    #[test]
    fn field_is_meant_by_its_name_its_block_and_all() {
        let user_data = FIELDS.iter().find(|field| field.name == "cloud-init.user-data").unwrap();
        for (name, meant) in
            [("cloud-init", true), ("cloud-init.user-data", true), ("all", true), ("cloud", false)]
        {
            assert_eq!(user_data.is_meant_by(name), meant, "{name}");
        }
    }
}

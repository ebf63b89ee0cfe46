//! The planner's form of a recorded machine: what was asked for when it was made, with digests for contents.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use vmctl_providers::image::ImageIdentity;
use vmctl_providers::{
    BackendTag, Digest, Forward, Name, NetworkConfig, Probe, Readiness, Secrets, SeedFile, SeedUser,
    SshConfig, VmHandle, secrets,
};
use vmctl_state::{Address, Intent, Interrupted, Opaque, Record, Snapshot};

use crate::desired::{Check, DesiredImage, DesiredVm, Hardware, Lifecycle, Power, Share, Until, VmVolume};
use crate::fields::json;
use crate::step::StepKind;

/// What was asked for, as remembered. Compared field by field with what is asked for now.
///
/// Provisioning is not part of it: a record lists the steps that really ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedVm {
    /// The VMFile that last decided about it.
    #[serde(default)]
    pub vmfile: Option<PathBuf>,
    /// Backend that owns it.
    pub backend: BackendTag,
    /// Path or URL of the image, as the VMFile named it.
    #[serde(default)]
    pub image_source: Option<String>,
    /// What the image was; absent without an image, or where that is known when it is here.
    pub image: Option<ImageIdentity>,
    /// Of an image from the network, the digest of the bytes as they lay on the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pin: Option<Digest>,
    /// What it is besides its processors, memory and disks.
    #[serde(default, skip_serializing_if = "Hardware::is_default")]
    pub hardware: Hardware,
    /// Number of virtual CPUs.
    pub vcpus: u16,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Size of the root disk in bytes, if one was asked for.
    pub disk_bytes: Option<u64>,
    /// Volumes that belong to it, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VmVolume>,
    /// Folders of the host that the guest sees, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<Share>,
    /// Files of the host that the guest sees as disks and cannot write to, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub media: Vec<PathBuf>,
    /// Network cards, in order.
    pub networks: Vec<NetworkConfig>,
    /// Forwards asked for.
    pub forwards: Vec<Forward>,
    /// What the seed says.
    pub cloud_init: Option<RecordedCloudInit>,
    /// How vmctl logs in.
    pub ssh: Option<SshConfig>,
    /// Desired power state.
    pub power: Power,
    /// Machines that come first.
    pub depends_on: BTreeMap<Name, Until>,
    /// What may and may not become of it.
    #[serde(default)]
    pub lifecycle: Lifecycle,
    /// When it counts as ready.
    #[serde(default)]
    pub ready: Option<Readiness>,
    /// What must hold while it runs.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// Words about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// What the seed says, with a digest for the user's own user-data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedCloudInit {
    /// Host name.
    pub hostname: String,
    /// Login user.
    pub user: String,
    /// Public keys that may log in.
    pub authorized_keys: Vec<String>,
    /// Digest of the user's own user-data.
    pub user_data: Option<Digest>,
    /// Whether our part goes beside it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub merges: bool,
    /// Users that it makes, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<SeedUser>,
    /// Packages that the guest installs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<String>,
    /// Files that it writes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<RecordedFile>,
    /// Digests of the commands that it runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<Digest>,
}

/// A file that cloud-init writes, with a digest for its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedFile {
    /// Its path in the guest.
    pub path: String,
    /// Digest of its content.
    pub content: Digest,
    /// Its permission bits, if they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Its owner, if one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

impl From<&DesiredVm> for RecordedVm {
    fn from(vm: &DesiredVm) -> Self {
        Self {
            vmfile: None,
            backend: vm.backend,
            image_source: vm.image.as_ref().map(DesiredImage::source),
            image: vm.image.as_ref().and_then(DesiredImage::identity).cloned(),
            image_pin: vm.image.as_ref().and_then(DesiredImage::download).cloned(),
            hardware: vm.hardware.clone(),
            vcpus: vm.vcpus,
            memory_mib: vm.memory_mib,
            disk_bytes: vm.disk_bytes,
            volumes: vm.volumes.clone(),
            shares: vm.shares.clone(),
            media: vm.media.clone(),
            networks: vm.networks.clone(),
            forwards: vm.forwards.clone(),
            cloud_init: vm.cloud_init.as_ref().map(|config| RecordedCloudInit {
                hostname: config.hostname.clone(),
                user: config.user.clone(),
                authorized_keys: config.authorized_keys.clone(),
                user_data: config.user_data.as_ref().map(|data| Digest::of(data.expose())),
                merges: config.more.merges,
                users: config.more.users.clone(),
                packages: config.more.packages.clone(),
                files: config.more.files.iter().map(recorded_file).collect(),
                commands: config.more.commands.iter().map(|command| command.digest.clone()).collect(),
            }),
            ssh: vm.ssh.clone(),
            power: vm.power,
            depends_on: vm.depends_on.clone(),
            lifecycle: vm.lifecycle.clone(),
            ready: Some(Readiness { probes: masked(&vm.ready.probes), timeout: vm.ready.timeout }),
            checks: vm
                .checks
                .iter()
                .map(|check| Check { name: check.name.clone(), probes: masked(&check.probes) })
                .collect(),
            labels: vm.labels.clone(),
        }
    }
}

impl RecordedVm {
    /// The same with every sensitive value sealed. Names, users and paths hold none.
    pub(crate) fn sealed(mut self, secrets: &Secrets) -> Self {
        if secrets.is_empty() {
            return self;
        }
        let seal = |text: &mut String| *text = secrets.seal(text);
        let Hardware { arch: _, firmware: _, kernel, machine, cpu, accel: _, vnc: _, qemu_args, propolis: _ } =
            &mut self.hardware;
        let cmdline = kernel.iter_mut().filter_map(|kernel| kernel.cmdline.as_mut());
        let texts = self.image_source.iter_mut().chain(cmdline).chain(machine).chain(cpu).chain(qemu_args);
        texts.chain(self.shares.iter_mut().map(|share| &mut share.target)).for_each(seal);
        self.labels.values_mut().for_each(seal);
        if let Some(RecordedCloudInit { hostname, authorized_keys, packages, files, .. }) =
            &mut self.cloud_init
        {
            seal(hostname);
            authorized_keys.iter_mut().chain(packages).for_each(seal);
            files.iter_mut().for_each(|file| seal(&mut file.path));
        }
        let asked = self.checks.iter_mut().flat_map(|check| &mut check.probes);
        let asked = asked.chain(self.ready.iter_mut().flat_map(|ready| &mut ready.probes));
        asked.for_each(|probe| match probe {
            Probe::Exec(text) | Probe::Log(text) => seal(text),
            Probe::Login | Probe::Tcp(_) => {}
        });
        self
    }
}

/// A file of a seed as it is remembered.
fn recorded_file(file: &SeedFile) -> RecordedFile {
    RecordedFile {
        path: file.path.clone(),
        content: file.content.digest.clone(),
        mode: file.mode,
        owner: file.owner.clone(),
    }
}

/// Probes as they are remembered: commands may hold what looks like a secret.
fn masked(probes: &[Probe]) -> Vec<Probe> {
    probes.iter().map(Probe::masked).collect()
}

/// A record whose content this version does not understand.
#[derive(Debug, thiserror::Error)]
#[error(
    "the record of `{address}` cannot be understood; it may have been written by another version of vmctl"
)]
pub struct RecordError {
    /// Whose record.
    pub address: Address,
    /// What the decoder says.
    #[source]
    pub source: serde_json::Error,
}

/// The planner's part of a record. It is decoded once and shared by all who ask for it.
pub fn spec_of(record: &Record) -> Result<Arc<RecordedVm>, RecordError> {
    record.spec.decoded().map_err(|source| RecordError { address: record.address.clone(), source })
}

/// Whether the records hold sensitive values, which only the key that they were sealed with can compare.
pub fn holds_sealed(recorded: &Snapshot) -> bool {
    recorded.records.values().any(|record| secrets::is_sealed(record.spec.json()))
}

/// Another VMFile than `vmfile` that a recorded machine was made from, if there is one.
pub fn other_vmfile(recorded: &Snapshot, vmfile: &Path) -> Result<Option<PathBuf>, RecordError> {
    for record in recorded.records.values() {
        if let Some(other) = spec_of(record)?.vmfile.as_ref().filter(|path| *path != vmfile) {
            return Ok(Some(other.clone()));
        }
    }
    Ok(None)
}

/// The provider's part of a record, shared like [`spec_of`].
pub fn handle_of(record: &Record) -> Result<Option<Arc<VmHandle>>, RecordError> {
    let decoded = record.handle.as_ref().map(Opaque::decoded).transpose();
    decoded.map_err(|source| RecordError { address: record.address.clone(), source })
}

/// Plain data as a record keeps it.
pub(crate) fn opaque(value: &impl Serialize) -> Opaque {
    // A tree has its keys in order, as all records have them.
    json(value).into()
}

/// The provisioning step that `intent` announced, as one whose outcome is unknown; `None` for other steps.
pub fn cut_off(intent: &Intent) -> Option<Interrupted> {
    if intent.step != StepKind::Provision(0).name() {
        return None;
    }
    let detail = |name: &str| intent.detail.get(name);
    let text = |name| detail(name).and_then(Value::as_str).map(str::to_owned);
    Some(Interrupted {
        number: detail("number").and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok())?,
        label: text("label").unwrap_or_default(),
        at: intent.at,
        digest: text("digest"),
    })
}

/// The provisioning step of a machine whose outcome is unknown, if there is one: it was cut off, or a dead run left
/// it among the `open` steps. Where somebody is at work, what is open is under way and not to be given here.
pub fn unknown_step(record: &Record, open: &[Intent]) -> Option<Interrupted> {
    let ours = open.iter().filter(|intent| intent.instance == record.instance);
    // The instance and not the address: a machine that is renamed keeps it.
    ours.filter_map(cut_off).next_back().or_else(|| record.interrupted.clone())
}

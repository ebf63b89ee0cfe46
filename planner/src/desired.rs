//! What the VMFile asks for, with defaults filled, paths made absolute and files read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vmctl_providers::image::ImageIdentity;
use vmctl_providers::provision::ProvisionStep;
use vmctl_providers::{
    BackendTag, CloudInitConfig, Digest, Forward, Name, NetworkConfig, Probe, Readiness, SshConfig,
};

/// How long a guest may take from start to being ready, unless the VMFile says otherwise. Emulated guests need minutes.
pub const READY_TIMEOUT: Duration = Duration::from_secs(600);

/// The whole desired state of one project.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// The project's name.
    pub project: Name,
    /// Machines, by name.
    pub vms: BTreeMap<Name, DesiredVm>,
    /// Machines that got another name, in the order of the file.
    pub moved: Vec<Move>,
    /// Machines that are let go of without being touched.
    pub removed: BTreeSet<Name>,
    /// Every file that decided the result, the VMFile first.
    pub inputs: Vec<InputFile>,
}

/// A machine that got another name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Its name until now.
    pub from: Name,
    /// Its name from now on.
    pub to: Name,
}

/// A file that decided the desired state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFile {
    /// Its absolute path.
    pub path: PathBuf,
    /// Digest of its content.
    pub digest: Digest,
}

/// One machine as desired.
#[derive(Debug, Clone, PartialEq)]
pub struct DesiredVm {
    /// Its name.
    pub name: Name,
    /// Backend that is to own it.
    pub backend: BackendTag,
    /// What its root disk is made from.
    pub image: DesiredImage,
    /// Number of virtual CPUs.
    pub vcpus: u16,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Size of the root disk in bytes; the image's own if absent.
    pub disk_bytes: Option<u64>,
    /// Network cards, in order.
    pub networks: Vec<NetworkConfig>,
    /// Forwards asked for, sorted; the one for ssh is added by the planner.
    pub forwards: Vec<Forward>,
    /// What the seed says, if there is one.
    pub cloud_init: Option<CloudInitConfig>,
    /// How vmctl logs in, if it does.
    pub ssh: Option<SshConfig>,
    /// Provisioning steps, in order.
    pub provision: Vec<ProvisionStep>,
    /// Desired power state.
    pub power: Power,
    /// Machines that come first.
    pub depends_on: BTreeMap<Name, Until>,
    /// What may and may not become of it.
    pub lifecycle: Lifecycle,
    /// When it counts as ready; without a probe nothing is waited for.
    pub ready: Readiness,
    /// What must hold while it runs, asked by `plan` and `drift`.
    pub checks: Vec<Check>,
}

/// Ready as soon as a login works, within [`READY_TIMEOUT`]; at once where nobody logs in.
pub fn ready_at_login(ssh: Option<&SshConfig>) -> Readiness {
    Readiness { probes: ssh.iter().map(|_| Probe::Login).collect(), timeout: READY_TIMEOUT }
}

/// What may and may not become of a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifecycle {
    /// Nothing that loses its disk is planned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prevent_destroy: bool,
    /// Fields whose changes are passed over, as [`crate::fields`] names them; `all` stands for all of them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ignore_changes: BTreeSet<String>,
    /// What makes a new machine of it, besides what does so anyway.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub replace_when: BTreeSet<Trigger>,
}

/// Something whose change replaces a machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// A change of this field, as [`crate::fields`] names it, or of the provisioning steps.
    Field(String),
    /// The creation or replacement of this machine.
    Machine(Name),
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => f.write_str(name),
            Self::Machine(name) => write!(f, "vm.{name}"),
        }
    }
}

/// Something that must hold while a machine runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What it is called.
    pub name: String,
    /// What must hold, asked in this order.
    pub probes: Vec<Probe>,
}

/// A local image and what it was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredImage {
    /// Absolute path of the file as the VMFile names it.
    pub source: PathBuf,
    /// What it is.
    pub identity: ImageIdentity,
}

/// Desired power state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Power {
    /// The machine runs.
    Running,
    /// The machine exists and is off.
    Stopped,
    /// The machine is started, provisioned, and its vCPUs are paused.
    Suspended,
}

/// How far a dependency must be before its dependant starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Until {
    /// Its process runs.
    Started,
    /// A login works.
    Ready,
    /// All its provisioning steps are done. The default.
    Provisioned,
}

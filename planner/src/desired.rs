//! What the VMFile asks for, with defaults filled, paths made absolute and files read.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use vmctl_providers::image::ImageIdentity;
use vmctl_providers::provision::ProvisionStep;
use vmctl_providers::{BackendTag, CloudInitConfig, Digest, Forward, Name, NetworkConfig, SshConfig};

/// The whole desired state of one project.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// The project's name.
    pub project: Name,
    /// Machines, by name.
    pub vms: BTreeMap<Name, DesiredVm>,
    /// Every file that decided the result, the VMFile first.
    pub inputs: Vec<InputFile>,
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

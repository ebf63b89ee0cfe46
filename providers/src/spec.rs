//! What a machine is to be ([`VmSpec`]), what a backend made of it ([`VmHandle`]), what it does ([`VmState`]).

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::name::Name;
use crate::ssh;

mod hardware;
mod machine;
mod network;
mod propolis;
mod seed;
mod storage;
mod warm;

pub use hardware::{AccelChoice, Arch, Firmware, Hardware, InputFile, Kernel, Uefi, VncTcp};
pub use machine::Machine;
pub use network::{Forward, MacAddr, NetworkConfig, Nic, Peer, PrivateLink, Protocol};
pub use propolis::{PropolisOptions, ZoneOptions};
pub use seed::{SeedContent, SeedFile, SeedText, SeedUser, Sudo};
pub use storage::{Share, ShareDriver, Volume};
pub use warm::{CloneStage, Cloned, MadeFrom, Warm, WarmLevel, WarmSpec};

/// Names a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendTag {
    /// A remembering fake: no machine runs.
    Noop,
    /// QEMU processes on this host.
    Qemu,
    /// Propolis servers on illumos.
    Propolis,
}

impl BackendTag {
    /// All tags, in the order in which they are listed to people.
    pub const ALL: [Self; 3] = [Self::Qemu, Self::Propolis, Self::Noop];

    /// The tag as written in a VMFile.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Noop => "noop",
            Self::Qemu => "qemu",
            Self::Propolis => "propolis",
        }
    }
}

impl fmt::Display for BackendTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no backend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown backend `{0}`: expected qemu, propolis or noop")]
pub struct UnknownBackend(pub String);

impl FromStr for BackendTag {
    type Err = UnknownBackend;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|tag| tag.as_str() == text).ok_or_else(|| UnknownBackend(text.to_owned()))
    }
}

/// Identity of one machine from `prepare` to `destroy`; chosen at plan time, also its hypervisor UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(pub Uuid);

impl InstanceId {
    /// The first 16 hexadecimal digits: short enough for a socket path, unique within a host.
    pub fn short(&self) -> String {
        let mut hex = self.0.simple().to_string();
        hex.truncate(16);
        hex
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// A SHA-256 digest, printed as `sha256:` and 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        use sha2::Digest as _;
        Self::from_hash(&sha2::Sha256::digest(bytes.as_ref()))
    }

    /// Wraps a finished SHA-256 hash.
    pub fn from_hash(hash: &[u8]) -> Self {
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in hash {
            text.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
            text.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
        }
        Self(text)
    }

    /// The digest that `digits`, 64 hexadecimal ones in small letters, stand for.
    pub fn from_hex(digits: &str) -> Self {
        Self(format!("sha256:{digits}"))
    }

    /// The hexadecimal digits alone.
    pub fn hex(&self) -> &str {
        self.0.strip_prefix("sha256:").unwrap_or(&self.0)
    }

    /// The digest as printed.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Text that is never printed, logged or serialised.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that must hand it on.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Format of a disk image; decided once, then stated in every later call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// QEMU's copy-on-write format, version 2 or 3.
    Qcow2,
    /// The bytes of the disk as they are.
    Raw,
}

impl ImageFormat {
    /// The name that QEMU and qemu-img know it by.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The largest disk in bytes that an image makes where the VMFile asks for no size: an image of a megabyte may declare
/// terabytes.
pub const MOST_UNASKED: u64 = 64 << 30;

/// A disk image in the cache: immutable, named by its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskImage {
    /// Absolute path of the cached file.
    pub path: PathBuf,
    /// Its format.
    pub format: ImageFormat,
    /// Digest of the file's bytes.
    pub digest: Digest,
    /// Size of the disk that the guest sees, in bytes.
    pub virtual_size: u64,
}

/// What cloud-init is told through the seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudInitConfig {
    /// Host name of the guest.
    pub hostname: String,
    /// Login user that is made in the guest.
    pub user: String,
    /// Public keys, one line each, that may log in besides the machine's own generated key.
    pub authorized_keys: Vec<String>,
    /// The user's own user-data, passed on byte for byte in place of ours.
    pub user_data: Option<Secret>,
    /// What else the guest is told.
    pub more: SeedContent,
}

/// How vmctl logs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshConfig {
    /// Login user.
    pub user: String,
    /// The private key to log in with; the machine's own generated key if absent.
    pub private_key: Option<PathBuf>,
}

/// What a machine is to be; the input of [`crate::Hypervisor::prepare`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmSpec {
    /// Identity chosen at plan time.
    pub id: InstanceId,
    /// The project it belongs to.
    pub project: Name,
    /// Its name, unique within the project.
    pub name: Name,
    /// The backend that is to own it.
    pub backend: BackendTag,
    /// Its hardware.
    pub machine: Machine,
    /// What the seed says; no seed is attached if absent.
    pub cloud_init: Option<CloudInitConfig>,
    /// How vmctl logs in; it does not if absent.
    pub ssh: Option<SshConfig>,
    /// What is wanted of templates, if anything; see [`crate::template`].
    pub warm: Option<WarmSpec>,
}

/// What a machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VmState {
    /// `prepare` has begun and not ended.
    Preparing,
    /// Allocated; never started.
    Prepared,
    /// The vCPUs run.
    Running,
    /// The process is there, the vCPUs are paused.
    Suspended,
    /// Was started once; no process now.
    Stopped,
    /// The hypervisor reports an error that only a restart ends.
    Failed,
    /// Nothing of it is left.
    Destroyed,
}

impl VmState {
    /// The state as printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Prepared => "prepared",
            Self::Running => "running",
            Self::Suspended => "suspended",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Destroyed => "destroyed",
        }
    }
}

impl fmt::Display for VmState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Facts that hold only while the machine's process lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    /// Process id of the hypervisor; to be shown, never to be signalled without proof of identity.
    pub pid: u32,
    /// Accelerator in use, such as `tcg`, with the reason if it was a fallback.
    pub accel: String,
    /// VNC address, `unix:PATH` or `tcp:ADDRESS:PORT`.
    pub vnc: Option<String>,
    /// The forwards with the host ports that were really bound.
    pub forwards: Vec<Forward>,
    /// Where it is on the network of a bridge, as far as that was found when the machine was looked at. It is not
    /// remembered: it may be another guest's soon.
    #[serde(skip)]
    pub address: Option<Ipv4Addr>,
    /// The host's boot during which it was started (`/proc/sys/kernel/random/boot_id`), where that is known.
    #[serde(default)]
    pub boot: Option<String>,
    /// The host that it was started on, as a digest of its machine id (machine-id(5)), where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// A backend's data about one machine; serialisable, and all that later calls need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmHandle {
    /// The instance.
    pub id: InstanceId,
    /// The project it belongs to.
    pub project: Name,
    /// Its name.
    pub name: Name,
    /// The backend that owns it.
    pub backend: BackendTag,
    /// Folder that holds its files.
    pub work_dir: PathBuf,
    /// The hardware it was prepared with.
    pub machine: Machine,
    /// Whether a seed is attached.
    pub seed: bool,
    /// How vmctl logs in.
    pub ssh: Option<SshConfig>,
    /// What it boots with, if that is UEFI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uefi: Option<Uefi>,
    /// How it stands to templates, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm: Option<Box<Warm>>,
    /// State after the call that returned this handle.
    pub state: VmState,
    /// Facts of the running process.
    pub runtime: Option<Runtime>,
    /// What the last stop needed besides the power button: `guest agent`, or force (`quit`, `SIGTERM`, `SIGKILL`).
    pub forced_stop: Option<String>,
}

impl VmHandle {
    /// The handle of a machine that is about to be made in `work_dir`.
    pub fn of(spec: &VmSpec, work_dir: PathBuf) -> Self {
        Self {
            id: spec.id,
            project: spec.project.clone(),
            name: spec.name.clone(),
            backend: spec.backend,
            work_dir,
            machine: spec.machine.clone(),
            seed: spec.cloud_init.is_some(),
            ssh: spec.ssh.clone(),
            uefi: None,
            warm: None,
            state: VmState::Preparing,
            runtime: None,
            forced_stop: None,
        }
    }

    /// Whether the host reaches it on the network of a bridge or of a link alone, and not by forwards.
    pub fn is_reached_on_a_bridge(&self) -> bool {
        (self.machine.is_on_a_bridge() || self.machine.is_on_a_vnic())
            && !self.machine.nics.iter().any(|nic| nic.network.is_user())
    }

    /// Where this host reaches the guest's sshd, while the machine runs and as far as that is known.
    pub fn sshd(&self) -> Option<SocketAddr> {
        match self.ssh_port() {
            Some(port) => Some((Ipv4Addr::LOCALHOST, port).into()),
            None if self.is_reached_on_a_bridge() => {
                Some((self.runtime.as_ref()?.address?, ssh::PORT).into())
            }
            None => None,
        }
    }

    /// The host port that leads to the guest's sshd, while the machine runs.
    pub fn ssh_port(&self) -> Option<u16> {
        let forwards = &self.runtime.as_ref()?.forwards;
        forwards
            .iter()
            .find(|forward| forward.protocol == Protocol::Tcp && forward.guest_port == 22)
            .map(|forward| forward.host_port)
    }
}

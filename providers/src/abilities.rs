//! What only some backends can do, each a small trait of its own.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::error::Result;
use crate::mask;
use crate::name::Name;
use crate::provision::{OutputLine, ProvisionStep};
use crate::spec::{Forward, InstanceId, VmHandle, VmSpec, VmState};
use crate::ssh::ExitStatus;

/// Brings an existing machine to another spec on the same disk.
pub trait Reconfigure: Send + Sync {
    /// Takes over what `spec` says about hardware, network and login, and makes again what the machine needs besides
    /// its disk and is gone, such as its seed.
    ///
    /// The machine keeps its identity and disk; the disk grows if asked to. Of a running machine only forwards and
    /// login settings may differ ([`crate::Error::InvalidState`] otherwise): forwards are added and removed while it
    /// runs, and are as `spec` says afterwards, whatever somebody else made of them. Everything else is for the next
    /// start.
    fn reconfigure(&self, vm: &VmHandle, spec: &VmSpec) -> impl Future<Output = Result<VmHandle>> + Send;
}

/// What was found when a machine was looked at closely.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// What it does.
    pub state: VmState,
    /// The handle, brought up to date with what was found (pid, ports); shared with whoever has the same.
    pub handle: Arc<VmHandle>,
    /// vCPUs of the running machine, where the hypervisor tells.
    pub vcpus: Option<u16>,
    /// Memory of the running machine in MiB, where the hypervisor tells.
    pub memory_mib: Option<u64>,
    /// All forwards of the running machine with the ports that are bound, where the hypervisor tells.
    pub forwards: Option<Vec<Forward>>,
    /// How its process ended; absent while there is one, and for a machine that never ran.
    pub ending: Option<Ending>,
    /// What the machine needs and is gone or is not what it was.
    pub damage: Vec<Damage>,
    /// Why the hypervisor paused it by itself; such a machine is [`VmState::Failed`], and can go on.
    #[serde(default)]
    pub stall: Option<Stall>,
}

/// Why a hypervisor paused a machine by itself. What the guest was about to write is kept, and written when it goes on
/// ([`crate::Hypervisor::resume`]): nothing is lost as long as its process lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Stall {
    /// Its disk could not grow: the file system that it is on was full.
    DiskFull {
        /// The disk.
        path: PathBuf,
        /// Bytes that are free there now.
        free_bytes: u64,
    },
    /// Its disk could not be read or written for another reason.
    DiskFailed {
        /// The disk.
        path: PathBuf,
    },
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DiskFull { .. } => f.write_str("paused: disk full"),
            Self::DiskFailed { .. } => f.write_str("paused: disk failed"),
        }
    }
}

/// How a machine's process ended, as far as what it left tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// It ended in order: the guest powered off, or somebody told the hypervisor to quit.
    InOrder,
    /// It was killed or crashed.
    Cut,
    /// The host was restarted since.
    HostRestarted,
    /// Nothing is left that would tell.
    Unknown,
}

/// What is wrong with a machine's files, and with what else it needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Damage {
    /// Its disk is gone, and with it what was on it.
    DiskMissing {
        /// Where it was.
        path: PathBuf,
    },
    /// The disk of one of its volumes is gone, and with it what was on it.
    VolumeMissing {
        /// The volume.
        name: Name,
        /// Where its disk was.
        path: PathBuf,
    },
    /// Its seed is gone; it can be made again.
    SeedMissing {
        /// Where it was.
        path: PathBuf,
    },
    /// The firmware that it boots with, or its variables, are gone; it can get others.
    FirmwareMissing {
        /// Where it was.
        path: PathBuf,
    },
    /// The image under its disk is not what it was: the disk is torn, and the machine does not start.
    BaseChanged {
        /// The image file.
        path: PathBuf,
        /// What is different, in words.
        what: String,
    },
    /// One of its cards is not on its bridge any more; it can be put back.
    OffBridge {
        /// The host's end of the card: a tap device.
        tap: String,
        /// The bridge that it was on.
        bridge: String,
        /// Where it is instead, in words.
        found: String,
    },
    /// Its folder is gone; its process is not.
    FolderMissing {
        /// Where it was.
        path: PathBuf,
    },
    /// Its folder does not say whose it is, or says that it is another's.
    FolderForeign {
        /// The folder.
        path: PathBuf,
        /// What it says.
        found: String,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DiskMissing { path } => write!(f, "its disk `{}` is gone", path.display()),
            Self::VolumeMissing { name, path } => {
                write!(f, "its volume `{name}` is gone: there is no `{}`", path.display())
            }
            Self::SeedMissing { path } => write!(f, "its seed `{}` is gone", path.display()),
            Self::FirmwareMissing { path } => {
                write!(f, "`{}`, which it boots with, is gone", path.display())
            }
            Self::BaseChanged { path, what } => {
                write!(f, "the image `{}` under its disk changed: {what}", path.display())
            }
            Self::OffBridge { tap, bridge, found } => {
                write!(f, "its card on `{bridge}` is cut off: the device `{tap}` is {found}")
            }
            Self::FolderMissing { path } => {
                write!(f, "its folder `{}` is gone, its process is not", path.display())
            }
            Self::FolderForeign { path, found } => {
                write!(f, "its folder `{}` belongs to {found}", path.display())
            }
        }
    }
}

/// Looks at a machine in detail.
pub trait Inspect: Send + Sync {
    /// Compares nothing and changes nothing: tells what is there now.
    ///
    /// A machine that cannot be asked within its deadline is an error of kind
    /// [`crate::ErrorKind::Timeout`] or [`crate::ErrorKind::InUse`], never "stopped".
    fn inspect(&self, vm: &VmHandle) -> impl Future<Output = Result<Inspection>> + Send;
}

/// Keeps the console's log where the hypervisor does not write one by itself.
pub trait ConsoleHistory: Send + Sync {
    /// Brings the log in the machine's folder up to what its guest has printed. Nothing happens where the hypervisor
    /// writes it, and where nothing runs.
    fn fetch_console(&self, vm: &VmHandle) -> impl Future<Output = Result<()>> + Send;
}

/// Reaches into the guest.
pub trait GuestAccess: Send + Sync {
    /// Waits until all probes of `readiness` hold, at most its timeout.
    ///
    /// Ends early with the reason if waiting cannot help: the process ended, the key is refused, the host key
    /// is another machine's. A failure says which probe did not hold and what it said last.
    fn wait_ready(&self, vm: &VmHandle, readiness: &Readiness) -> impl Future<Output = Result<()>> + Send;

    /// Asks one question, once, within `patience`. An error means that it could not be asked.
    fn probe(
        &self,
        vm: &VmHandle,
        probe: &Probe,
        patience: Duration,
    ) -> impl Future<Output = Result<Verdict>> + Send;

    /// What the guest says of its network, the loopback left out; `None` if nobody there tells.
    ///
    /// Of a machine that does not run nobody tells anything: that is no error.
    fn interfaces(&self, vm: &VmHandle) -> impl Future<Output = Result<Option<Vec<GuestInterface>>>> + Send;

    /// Runs a line of the guest's shell by the guest agent, as whoever the agent is, without input, to its end or to the
    /// end of `patience`; `None` if no agent answers.
    ///
    /// One that has not ended by then goes on: that is [`Error::Timeout`](crate::Error::Timeout).
    fn run_by_agent(
        &self,
        vm: &VmHandle,
        line: &str,
        patience: Option<Duration>,
    ) -> impl Future<Output = Result<Option<RanByAgent>>> + Send;

    /// Runs one provisioning step to its end; every line of output goes to `output` as it comes.
    ///
    /// Not idempotent by itself: the caller decides whether a step runs again.
    fn provision(
        &self,
        vm: &VmHandle,
        step: &ProvisionStep,
        output: &mpsc::Sender<OutputLine>,
    ) -> impl Future<Output = Result<()>> + Send;
}

/// How a command ended that the guest agent ran, and what it printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RanByAgent {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: Vec<u8>,
    /// What it said besides.
    pub stderr: Vec<u8>,
    /// Whether the agent kept less than it printed.
    pub truncated: bool,
}

/// A network interface as the guest itself tells of it. Nothing of this is proven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestInterface {
    /// What the guest calls it.
    pub name: String,
    /// Its hardware address, as the guest writes it.
    pub mac: Option<String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// A question about a guest whose answer is yes or no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Probe {
    /// A login works, and a seeded guest is done with its first boot.
    Login,
    /// Something in the guest accepts TCP connections to this port of the guest's loopback. Needs a login.
    Tcp(u16),
    /// A shell command in the guest ends with 0. It runs over a login, or by the guest agent where there is none.
    Exec(String),
    /// A line of the console since the machine's last start matches this regular expression.
    Log(String),
}

impl Probe {
    /// The same probe to be shown: what looks like a secret in its text is hidden. It is not one to be asked.
    pub fn masked(&self) -> Self {
        match self {
            Self::Login => Self::Login,
            Self::Tcp(port) => Self::Tcp(*port),
            Self::Exec(command) => Self::Exec(mask::text(command)),
            Self::Log(pattern) => Self::Log(mask::text(pattern)),
        }
    }
}

/// Shows the probe [`masked`](Probe::masked).
impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.masked() {
            Self::Login => f.write_str("ssh"),
            Self::Tcp(port) => write!(f, "tcp {port}"),
            Self::Exec(command) => write!(f, "exec {command:?}"),
            Self::Log(pattern) => write!(f, "log {pattern:?}"),
        }
    }
}

/// When a guest counts as ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// What must hold, asked in this order.
    pub probes: Vec<Probe>,
    /// How long it may take, from the start of the wait. In JSON, as milliseconds.
    #[serde(rename = "timeout_ms", with = "milliseconds")]
    pub timeout: Duration,
}

/// A duration in whole milliseconds.
mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

/// The answer to a [`Probe`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "verdict", content = "detail")]
pub enum Verdict {
    /// It holds.
    Holds,
    /// It does not, and this is what was seen instead.
    Fails(String),
}

/// A machine that bears this tool's mark and that no record knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stray {
    /// Its name, as marked.
    pub name: String,
    /// The instance.
    pub id: InstanceId,
    /// Its process, if it runs.
    pub pid: Option<u32>,
    /// Its folder, if it has one.
    pub work_dir: Option<PathBuf>,
    /// Whether it was let go of on purpose.
    pub released: bool,
    /// What was [noted](Custody::note) about it, if that can be read. No part of what is shown.
    #[serde(skip)]
    pub note: Option<Value>,
    /// Its handle as far as its folder tells, at rest. No part of what is shown.
    #[serde(skip)]
    pub handle: Option<Box<VmHandle>>,
}

impl Stray {
    /// The order in which strays are listed.
    pub(crate) fn order(&self, other: &Self) -> Ordering {
        (&self.name, self.id).cmp(&(&other.name, other.id))
    }
}

/// Knows machines beyond the records, and lets go of recorded ones.
pub trait Custody: Send + Sync {
    /// Finds the machines of `project`, running or not, that are not among `known`, sorted. Changes nothing.
    fn strays(
        &self,
        project: &Name,
        known: &BTreeSet<InstanceId>,
    ) -> impl Future<Output = Result<Vec<Stray>>> + Send;

    /// Marks a machine as let go of on purpose and touches nothing else of it: it goes on as it is. Releasing
    /// what is released, or what is gone, succeeds and changes nothing.
    fn release(&self, vm: &VmHandle) -> impl Future<Output = Result<()>> + Send;

    /// Keeps what the caller wants to remember of a machine in the machine's own folder, in place of what was kept
    /// before; it appears whole. Its content means nothing to the backend.
    ///
    /// A machine without a folder is none to note anything about: that succeeds and changes nothing. A folder that is
    /// another machine's is refused.
    fn note(&self, vm: &VmHandle, note: &Value) -> impl Future<Output = Result<()>> + Send;
}

/// Checks and tells what can be known before anything is made.
pub trait Preflight: Send + Sync {
    /// The handle that names everything which `prepare` will make, in [`VmState::Preparing`]. Touches nothing.
    ///
    /// It is recorded before `prepare` begins, so that what a cut-off `prepare` left can be destroyed.
    fn handle(&self, spec: &VmSpec) -> Result<VmHandle>;

    /// Fails if `spec` cannot work on this host: a missing program, a fixed port that is taken, a network that
    /// this backend does not have. It makes and changes nothing.
    fn preflight(&self, spec: &VmSpec) -> impl Future<Output = Result<()>> + Send;
}

/// Keeps machines as templates; see [`crate::template`].
pub trait Keep: Send + Sync {
    /// Keeps the machine, which runs and was provisioned, as the template that its spec asked for. It pauses for as long as
    /// that takes, and goes on. A machine of which no template is wanted, or that came from one, is left as it is.
    ///
    /// # Errors
    ///
    /// After an error there is no new template, and the machine goes on as if nothing had been asked; but for
    /// [`crate::Error::NotUndone`]: then it stands still.
    fn keep(&self, vm: &VmHandle) -> impl Future<Output = Result<()>> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_probes_are_not_shown() {
        let exec = Probe::Exec("PGPASSWORD=x psql -c '\\q'".to_owned());
        assert_eq!(exec.to_string(), r#"exec "PGPASSWORD=(masked) psql -c '\\q'""#);
        assert_eq!(exec.masked(), Probe::Exec("PGPASSWORD=(masked) psql -c '\\q'".to_owned()));
        assert_eq!(Probe::Log("token: abc".to_owned()).to_string(), r#"log "token: (masked)""#);
        assert_eq!(Probe::Tcp(22).masked(), Probe::Tcp(22));
    }
}

//! One error type for all backends, with a class to decide by and a hint to act on.

use std::io::ErrorKind as ErrorKindOfIo;
use std::path::PathBuf;
use std::time::Duration;

use crate::abilities::Probe;
use crate::capacity::{size, size_needed};
use crate::image::ImageError;
use crate::name::Name;
use crate::packages;
use crate::pattern::PatternError;
use crate::process::CommandError;
use crate::propolis::PropolisError;
use crate::seed::SeedError;
use crate::spec::{Arch, BackendTag, VmState};
use crate::ssh::SshError;

/// Result of a provider's operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The way out where a volume is gone.
pub const VOLUME_GONE: &str = "put the file back; or, if what was on it is lost, take the volume out of the VMFile, \
                               `vmctl apply --volumes`, and add it again: it is empty then";

/// What a caller may decide by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The host lacks a program, a feature or a right.
    Unavailable,
    /// What was given cannot be used: an image, a key, a path.
    InvalidInput,
    /// Something is held by somebody else: a port, a monitor, a file.
    InUse,
    /// The machine is in a state that does not allow this.
    InvalidState,
    /// Nothing happened within the deadline.
    Timeout,
    /// The guest refused or failed.
    Guest,
    /// The host's operating system or the hypervisor failed.
    Host,
}

impl ErrorKind {
    /// The class as written to the journal and to JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::InvalidInput => "invalid-input",
            Self::InUse => "in-use",
            Self::InvalidState => "invalid-state",
            Self::Timeout => "timeout",
            Self::Guest => "guest",
            Self::Host => "host",
        }
    }
}

/// A failure of a backend or of something it used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The backend cannot run here.
    #[error("the `{backend}` backend cannot be used here: {reason}")]
    BackendUnavailable {
        /// Which backend.
        backend: BackendTag,
        /// Why.
        reason: String,
    },
    /// A program of the host is missing.
    #[error("`{program}` was not found in PATH")]
    ProgramMissing {
        /// Its name.
        program: String,
        /// Debian's package that holds it.
        package: &'static str,
    },
    /// The host has no firmware for a machine that boots by UEFI.
    #[error(
        "no UEFI firmware for {arch} machines of type `{machine}` was found by QEMU's firmware descriptors"
    )]
    FirmwareMissing {
        /// The machine's processor.
        arch: Arch,
        /// The machine's type.
        machine: String,
    },
    /// No card can be put on a bridge of the host.
    #[error("the bridge `{bridge}` cannot be used: {reason}")]
    Bridge {
        /// The bridge.
        bridge: String,
        /// Why, as a clause.
        reason: String,
        /// What to do next.
        help: String,
    },
    /// Where a guest is on the network of its bridge is not known.
    #[error("no address of the guest was found: {said}")]
    NoAddress {
        /// Who was asked, and what they said.
        said: String,
    },
    /// What was asked for is not supported by this backend.
    #[error("{what} is not supported by the `{backend}` backend")]
    Unsupported {
        /// Which backend.
        backend: BackendTag,
        /// What was asked for.
        what: String,
    },
    /// A helper program failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The operating system refused an operation on a file.
    #[error("cannot {action} `{path}`", path = path.display())]
    Io {
        /// What was attempted, as a verb phrase: "create folder".
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A disk is full.
    #[error(
        "no room is left: {} is needed to begin with, {} is free where `{folder}` is",
        size_needed(*needed),
        size(*free),
        folder = folder.display()
    )]
    DiskFull {
        /// A folder on the disk.
        folder: PathBuf,
        /// What the attempt may need, in bytes.
        needed: u64,
        /// What is free now, in bytes.
        free: u64,
        /// What failed.
        #[source]
        cause: Box<Error>,
    },
    /// The machine's state does not allow the operation.
    #[error("cannot {action} a machine that is {state}")]
    InvalidState {
        /// What was attempted.
        action: &'static str,
        /// What the machine does.
        state: VmState,
    },
    /// Files of another machine are where this one's belong.
    #[error("`{path}` belongs to another machine ({found})", path = path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// What was found there.
        found: String,
    },
    /// The machine's process is not one of this host, or works on another copy of the machine's files.
    #[error("it may run elsewhere: its process was last seen {place}")]
    Elsewhere {
        /// Where, as it reads behind "last seen".
        place: String,
    },
    /// A fixed port of the host is taken.
    #[error("port {address} is in use{}", holder.as_ref().map(|h| format!(" by {h}")).unwrap_or_default())]
    PortInUse {
        /// Address and port.
        address: String,
        /// Name and pid of the holder, where the host tells.
        holder: Option<String>,
    },
    /// A port of the host cannot be bound for another reason than being taken.
    #[error("cannot bind {address} on this host")]
    Bind {
        /// Address and port.
        address: String,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A path cannot serve its purpose.
    #[error("`{path}` cannot be used: {reason}", path = path.display())]
    Unusable {
        /// The path.
        path: PathBuf,
        /// Why, as a clause.
        reason: String,
    },
    /// A disk is asked to be smaller than what it holds.
    #[error("a disk of {asked} bytes is smaller than {least} bytes, the size of {what}")]
    DiskTooSmall {
        /// Size asked for.
        asked: u64,
        /// Smallest possible size.
        least: u64,
        /// What has that size: "its image", "the existing disk".
        what: &'static str,
    },
    /// An image makes a larger disk than one does by itself: what is small to download may fill a host.
    #[error("the image makes a disk of {size} bytes, and nobody asked for one so large")]
    DiskUnasked {
        /// The size.
        size: u64,
    },
    /// The disk of a volume is not there any more.
    #[error("the volume `{name}` is gone: there is no `{path}` any more", path = path.display())]
    VolumeGone {
        /// The volume.
        name: Name,
        /// Where its disk was.
        path: PathBuf,
    },
    /// A process works on the disk of a volume.
    #[error("the volume `{name}` is in use: another process works on `{path}`", path = path.display())]
    VolumeInUse {
        /// The volume.
        name: Name,
        /// Its disk.
        path: PathBuf,
    },
    /// The image under an overlay is not the one that the overlay was made on.
    #[error("the base image `{path}` changed: {what}", path = path.display())]
    BaseChanged {
        /// The image file.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// Another client holds the monitor.
    #[error("QEMU's monitor `{socket}` is busy: another program is connected to it", socket = socket.display())]
    MonitorBusy {
        /// The monitor's socket.
        socket: PathBuf,
    },
    /// Something did not happen within its deadline.
    #[error("{what} did not happen within {after:?}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
    },
    /// The monitor did not answer as it should.
    #[error("QEMU's monitor: {0}")]
    Monitor(String),
    /// A Propolis server did not do what it was asked.
    #[error(transparent)]
    Propolis(#[from] PropolisError),
    /// The guest agent did not answer as it should.
    #[error("the guest agent: {0}")]
    Agent(String),
    /// The machine's process ended by itself.
    #[error("the machine's process ended{}", detail.as_ref().map(|d| format!(": {d}")).unwrap_or_default())]
    ProcessEnded {
        /// What it left behind: the tail of its messages.
        detail: Option<String>,
    },
    /// Something failed half-way, and what was done before could not all be undone.
    #[error("{cause}; and not everything could be put back: {left}")]
    NotUndone {
        /// What failed.
        cause: Box<Error>,
        /// What is not as it was.
        left: String,
    },
    /// A machine from a template could not be given what must be its own.
    #[error("it cannot be told apart from its template: {said}")]
    NotRenewed {
        /// What the guest said, or what is in doubt.
        said: String,
    },
    /// A guest is not ready.
    #[error(
        "probe `{probe}` does not hold{}: {said}{}",
        after.map(|after| format!(" within {after:?}")).unwrap_or_default(),
        console.as_ref().map(|tail| format!("; its console ends with\n{tail}")).unwrap_or_default()
    )]
    NotReady {
        /// What was asked.
        probe: Probe,
        /// How long it was asked, unless `said` tells.
        after: Option<Duration>,
        /// What it said last.
        said: String,
        /// The last lines of the guest's console.
        console: Option<String>,
        /// The class of the failure.
        kind: ErrorKind,
        /// What to do next.
        help: Option<String>,
    },
    /// A pattern for the console cannot be used.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// An image could not be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The seed volume could not be made.
    #[error(transparent)]
    Seed(#[from] SeedError),
    /// The guest could not be reached or refused.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// The guest did not mount the folders of the host.
    #[error("the guest cannot mount what the host shares: {said}")]
    Mount {
        /// What it said.
        said: String,
        /// Whether it said so before the time was up.
        in_time: bool,
    },
    /// The guest did not take note of the machines of its private networks.
    #[error("the guest cannot note the names of the machines of its networks in `/etc/hosts`: {said}")]
    Names {
        /// What it said.
        said: String,
        /// Whether it said so before the time was up.
        in_time: bool,
    },
    /// cloud-init ended with a failure in the guest.
    #[error("cloud-init failed in the guest: {report}")]
    CloudInit {
        /// What `cloud-init status --long` says.
        report: String,
    },
    /// A provisioning step ended with a failure of its own.
    #[error("provisioning step {step} (`{label}`) failed with {status}")]
    Provision {
        /// Number of the step, from 1.
        step: usize,
        /// What it is called in messages.
        label: String,
        /// Exit code or signal, in words.
        status: String,
        /// Last lines of its output.
        tail: Vec<String>,
    },
    /// A provisioning step began and was cut off: whether it did its work, in part or at all, is unknown.
    #[error("provisioning step {step} (`{label}`) was cut off, and what became of it is unknown")]
    ProvisionCut {
        /// Number of the step, from 1.
        step: usize,
        /// What it is called in messages.
        label: String,
        /// Last lines of its output.
        tail: Vec<String>,
        /// What cut it off.
        #[source]
        cause: Box<Error>,
    },
    /// The fake world was told to fail.
    #[error("{0} (scripted failure of the noop backend)")]
    Scripted(String),
}

impl Error {
    /// Shorthand for [`Error::Io`], to be used with `map_err`.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// Whether it failed because a disk is full, or a quota used up.
    pub fn is_full(&self) -> bool {
        let is_full = |source: &std::io::Error| {
            matches!(source.kind(), ErrorKindOfIo::StorageFull | ErrorKindOfIo::QuotaExceeded)
        };
        match self {
            Self::DiskFull { .. } => true,
            Self::Io { source, .. } | Self::Image(ImageError::Cache { source, .. }) => is_full(source),
            Self::Seed(SeedError::Volume(source)) => is_full(source),
            // A helper tells it in the system's words only.
            Self::Command(error) => error.stderr.contains("No space left on device"),
            Self::NotUndone { cause, .. } => cause.is_full(),
            _ => false,
        }
    }

    /// The last lines of a provisioning step that failed or was cut off.
    pub fn tail(&self) -> &[String] {
        match self {
            Self::Provision { tail, .. } | Self::ProvisionCut { tail, .. } => tail,
            _ => &[],
        }
    }

    /// The class of the failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::BackendUnavailable { .. }
            | Self::ProgramMissing { .. }
            | Self::FirmwareMissing { .. }
            | Self::Bridge { .. }
            | Self::Unsupported { .. } => ErrorKind::Unavailable,
            Self::Command(_)
            | Self::Io { .. }
            | Self::DiskFull { .. }
            | Self::Monitor(_)
            | Self::ProcessEnded { .. } => ErrorKind::Host,
            Self::InvalidState { .. } => ErrorKind::InvalidState,
            Self::Foreign { .. }
            | Self::Elsewhere { .. }
            | Self::PortInUse { .. }
            | Self::VolumeInUse { .. }
            | Self::MonitorBusy { .. } => ErrorKind::InUse,
            Self::Bind { .. }
            | Self::Unusable { .. }
            | Self::DiskTooSmall { .. }
            | Self::DiskUnasked { .. }
            | Self::VolumeGone { .. }
            | Self::BaseChanged { .. } => ErrorKind::InvalidInput,
            Self::Timeout { .. } | Self::NoAddress { .. } => ErrorKind::Timeout,
            Self::NotUndone { cause, .. } | Self::ProvisionCut { cause, .. } => cause.kind(),
            Self::NotReady { kind, .. } => *kind,
            Self::Pattern(_) => ErrorKind::InvalidInput,
            Self::Image(error) => error.kind(),
            Self::Seed(_) => ErrorKind::InvalidInput,
            Self::Ssh(error) => error.kind(),
            Self::Propolis(error) => error.kind(),
            Self::Mount { in_time: false, .. } | Self::Names { in_time: false, .. } => ErrorKind::Timeout,
            Self::Names { .. }
            | Self::Agent(_)
            | Self::Mount { .. }
            | Self::CloudInit { .. }
            | Self::Provision { .. }
            | Self::NotRenewed { .. }
            | Self::Scripted(_) => ErrorKind::Guest,
        }
    }

    /// What to do next, where there is something to do.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::ProgramMissing { package, .. } => {
                Some(format!("{} (`vmctl doctor` checks everything)", packages::advice(package)))
            }
            Self::FirmwareMissing { arch, .. } => {
                let package = match arch {
                    Arch::X86_64 => "ovmf",
                    Arch::Aarch64 => "qemu-efi-aarch64",
                };
                Some(format!(
                    "{} (`vmctl doctor` checks everything); or choose a machine type that it is for, such as `q35` or \
                     `virt`",
                    packages::advice(package)
                ))
            }
            Self::Bridge { help, .. } => Some(help.clone()),
            Self::NoAddress { .. } => Some(
                "the guest must ask for an address on that network (DHCP): then a lease that vmctl can read tells it \
                 (VMCTL_LEASES names files of leases in other places), or the guest agent in it does (qemu-guest-agent); \
                 `vmctl console` reaches it without a network"
                    .to_owned(),
            ),
            Self::PortInUse { .. } => Some(
                "stop its holder, choose another host port, or use host=0 to let the kernel choose"
                    .to_owned(),
            ),
            Self::Foreign { .. } => Some(
                "two projects must not share one data folder entry; choose another project name".to_owned(),
            ),
            Self::Elsewhere { .. } => Some(
                "stop it there. If it is off for certain, because that host is gone for good, `--take-over` says so; a \
                 copy of a data folder must not be used beside its original"
                    .to_owned(),
            ),
            Self::BaseChanged { .. } => Some(
                "put the original image back, or replace the machine so that it is made from the new one"
                    .to_owned(),
            ),
            Self::VolumeGone { .. } => Some(VOLUME_GONE.to_owned()),
            Self::VolumeInUse { .. } => {
                Some("stop the machine that it is attached to; `fuser -v` names the process".to_owned())
            }
            Self::DiskUnasked { size } => {
                Some(format!("write `disk {}` if it is to be so large", size.div_ceil(1 << 30)))
            }
            Self::MonitorBusy { .. } => {
                Some("disconnect the other client, or connect it to the guest's console instead".to_owned())
            }
            Self::Mount { .. } => Some(
                "it needs the 9p file system in the guest's kernel (Debian's `cloud` kernel has none, the one of \
                 `linux-image-amd64` has; both have virtiofs: `share … driver=\"virtiofs\"`) and a login as root or \
                 with a sudo that asks for no password"
                    .to_owned(),
            ),
            Self::Names { .. } => Some(
                "it needs a login as root or with a sudo that asks for no password, and a file system that can be \
                 written to"
                    .to_owned(),
            ),
            Self::CloudInit { .. } => Some(
                "look into the guest (`/var/log/cloud-init-output.log`, `vmctl log NAME --console`), then correct the \
                 user-data: that replaces the machine"
                    .to_owned(),
            ),
            Self::NotRenewed { .. } => Some(
                "it needs a login as root or with a sudo that asks for no password; `vmctl apply --cold --replace NAME` makes \
                 the machine without a template"
                    .to_owned(),
            ),
            Self::DiskFull { .. } => Some("free some space there; then `vmctl apply` goes on".to_owned()),
            Self::NotUndone { cause, .. } | Self::ProvisionCut { cause, .. } => cause.help(),
            Self::NotReady { help, .. } => help.clone(),
            Self::Pattern(error) => Some(error.help().to_owned()),
            Self::Ssh(error) => error.help(),
            Self::Propolis(error) => error.help(),
            Self::Image(error) => error.help(),
            _ => None,
        }
    }
}

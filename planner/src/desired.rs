//! What the VMFile asks for, with defaults filled, paths made absolute and files read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vmctl_providers::image::ImageIdentity;
use vmctl_providers::provision::ProvisionStep;
pub use vmctl_providers::provision::Run;
pub use vmctl_providers::{
    AccelChoice, Arch, Firmware, Hardware, InputFile, Kernel, Share, VncTcp, Volume as VmVolume,
};
use vmctl_providers::{
    BackendTag, CloudInitConfig, Digest, Forward, Name, NetworkConfig, Probe, Readiness, SealKey, Secrets,
    SshConfig,
};

use crate::pins::Pin;

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
    /// Networks between machines, by name.
    pub networks: BTreeMap<Name, PrivateNetwork>,
    /// Disks that survive the machines that they belong to, by name.
    pub volumes: BTreeMap<Name, Volume>,
    /// Texts about the machines that run, by name.
    pub outputs: BTreeMap<Name, Output>,
    /// Values that nothing printed or kept may show.
    pub secrets: Secrets,
    /// Every file that decided the result, the VMFile first.
    pub inputs: Vec<InputFile>,
}

impl Desired {
    /// A project without anything.
    pub fn new(project: Name) -> Self {
        Self {
            project,
            vms: BTreeMap::new(),
            moved: Vec::new(),
            removed: BTreeSet::new(),
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
            outputs: BTreeMap::new(),
            secrets: Secrets::default(),
            inputs: Vec::new(),
        }
    }

    /// Gives the sensitive values the key of the project: what is kept of them can be compared from then on, and nobody
    /// without the key can try out what they are.
    pub fn seal(&mut self, key: SealKey) {
        self.secrets = std::mem::take(&mut self.secrets).with_key(key);
        for step in self.vms.values_mut().flat_map(|vm| &mut vm.provision) {
            step.digest = self.secrets.seal_digest(step.digest.clone(), step.texts());
        }
        for seed in self.vms.values_mut().filter_map(|vm| vm.cloud_init.as_mut()) {
            let files = seed.more.files.iter_mut().map(|file| &mut file.content);
            for text in files.chain(&mut seed.more.commands) {
                text.digest =
                    self.secrets.seal_digest(text.digest.clone(), std::iter::once(text.text.expose()));
            }
        }
    }

    /// Takes the sensitive values out of what is only there to be shown, and lets the output of steps be looked through.
    pub(crate) fn hide_secrets(&mut self) {
        for vm in self.vms.values_mut() {
            for step in &mut vm.provision {
                step.label = self.secrets.hide(&step.label);
                step.secrets = self.secrets.clone();
            }
            for check in &mut vm.checks {
                check.name = self.secrets.hide(&check.name);
            }
        }
    }
}

/// A network between machines of one project.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivateNetwork {
    /// Its addresses; chosen if absent.
    pub subnet: Option<Subnet>,
}

/// A range of IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Subnet {
    /// Its first address.
    pub network: Ipv4Addr,
    /// How many bits all of its addresses share.
    pub prefix: u8,
}

/// The addresses of every user network, which QEMU gives out.
pub const USER_NETWORK: Subnet = Subnet { network: Ipv4Addr::new(10, 0, 2, 0), prefix: 24 };

impl Subnet {
    /// Whether a machine can have `address` in it.
    pub fn is_for_machine(self, address: Ipv4Addr) -> bool {
        self.contains(address) && address != self.first() && address != self.broadcast()
    }

    /// How many machines it has addresses for.
    pub fn machines(self) -> u64 {
        u64::from(u32::from(self.broadcast()) - u32::from(self.first())).saturating_sub(1)
    }

    /// Whether `address` is in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        let head = |address: Ipv4Addr| u32::from(address) & self.mask();
        head(self.network) == head(address)
    }

    /// Whether both have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }

    /// The first address of it.
    pub fn first(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) & self.mask())
    }

    /// The address that reaches all machines of it.
    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) | !self.mask())
    }

    /// The bits that all of its addresses share.
    fn mask(self) -> u32 {
        !u32::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// A disk that survives the machine that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its size in bytes.
    pub size_bytes: u64,
    /// No plan may destroy it.
    pub prevent_destroy: bool,
}

/// A text about the machines that run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// What it is for.
    pub description: Option<String>,
    /// Its parts, in order; no text is empty or follows another.
    pub parts: Vec<OutputPart>,
}

impl Output {
    /// An output of `parts`, whose texts are joined where they meet.
    pub fn new(description: Option<String>, parts: impl IntoIterator<Item = OutputPart>) -> Self {
        let mut joined: Vec<OutputPart> = Vec::new();
        for part in parts {
            match (joined.last_mut(), part) {
                (_, OutputPart::Text(text)) if text.is_empty() => {}
                (Some(OutputPart::Text(last)), OutputPart::Text(text)) => last.push_str(&text),
                (_, part) => joined.push(part),
            }
        }
        Self { description, parts: joined }
    }
}

/// A part of an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputPart {
    /// A text as it is.
    Text(String),
    /// What is known of a machine when it runs.
    Attribute {
        /// The machine.
        vm: Name,
        /// What of it.
        attribute: Attribute,
    },
}

/// What an output can say of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribute {
    /// The address that the host reaches it at.
    Host,
    /// Its own address on the network of its bridge.
    Ip,
    /// The port of the host that leads to this TCP port of it.
    Port(u16),
    /// The port of the host that leads to its sshd.
    SshPort,
    /// Who logs in.
    User,
}

/// As it is written behind the machine's name.
impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Ip => f.write_str("ip"),
            Self::Port(port) => write!(f, "port.{port}"),
            Self::SshPort => f.write_str("ssh-port"),
            Self::User => f.write_str("user"),
        }
    }
}

/// A machine that got another name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Its name until now.
    pub from: Name,
    /// Its name from now on.
    pub to: Name,
}

/// One machine as desired.
#[derive(Debug, Clone, PartialEq)]
pub struct DesiredVm {
    /// Its name.
    pub name: Name,
    /// Backend that is to own it.
    pub backend: BackendTag,
    /// What its root disk is made from; without one it boots a kernel directly.
    pub image: Option<DesiredImage>,
    /// What it is besides its processors, memory and disks.
    pub hardware: Hardware,
    /// Number of virtual CPUs.
    pub vcpus: u16,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Size of the root disk in bytes; the image's own if absent.
    pub disk_bytes: Option<u64>,
    /// Volumes that belong to it, in order.
    pub volumes: Vec<VmVolume>,
    /// Folders of the host that the guest sees, in order.
    pub shares: Vec<Share>,
    /// Files of the host, absolute, that the guest sees as disks and cannot write to, in order.
    pub media: Vec<PathBuf>,
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
    /// Whether it is kept as a template, and made from one.
    pub warm: WarmChoice,
    /// Words about it.
    pub labels: BTreeMap<String, String>,
    /// Where its texts come from; decides nothing.
    pub text_files: TextFiles,
}

/// The files of this host that a machine's texts were read from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextFiles {
    /// `ssh-key`.
    pub ssh_key: Option<PathBuf>,
    /// `ssh-key` of the seed's users, in their order.
    pub user_keys: Vec<Vec<PathBuf>>,
    /// `user-data`.
    pub user_data: Option<PathBuf>,
    /// `script`, by the number of its step.
    pub scripts: BTreeMap<usize, PathBuf>,
}

impl DesiredVm {
    /// A machine with every default and nothing to boot from.
    pub fn new(name: Name) -> Self {
        Self {
            name,
            backend: BackendTag::Qemu,
            image: None,
            hardware: Hardware::default(),
            vcpus: 1,
            memory_mib: 1024,
            disk_bytes: None,
            volumes: Vec::new(),
            shares: Vec::new(),
            media: Vec::new(),
            networks: vec![NetworkConfig::User],
            forwards: Vec::new(),
            cloud_init: None,
            ssh: None,
            provision: Vec::new(),
            power: Power::Running,
            depends_on: BTreeMap::new(),
            lifecycle: Lifecycle::default(),
            ready: ready_at_login(None),
            checks: Vec::new(),
            warm: WarmChoice::default(),
            labels: BTreeMap::new(),
            text_files: TextFiles::default(),
        }
    }
}

/// Whether a machine is kept as a template once it is provisioned, and made from one where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WarmChoice {
    /// No.
    #[default]
    Off,
    /// Its disk.
    Disk,
    /// Its disk, and its memory where that is safe.
    Auto,
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

/// What a root disk is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DesiredImage {
    /// A file of this host.
    Local {
        /// Its absolute path, as the VMFile names it.
        source: PathBuf,
        /// What it was found to be.
        identity: ImageIdentity,
    },
    /// A file that has to be fetched first.
    Remote {
        /// Where it is.
        url: String,
        /// The name that the VMFile gives it, if it does.
        name: Option<String>,
        /// The digest that the VMFile asks for.
        sha256: Option<Digest>,
        /// What is known of it before it is here; with a digest in the VMFile, at least that.
        pin: Option<Pin>,
    },
}

impl DesiredImage {
    /// Its path or URL.
    pub fn source(&self) -> String {
        match self {
            Self::Local { source, .. } => source.display().to_string(),
            Self::Remote { url, .. } => url.clone(),
        }
    }

    /// What it was found to be, if that is known.
    pub fn identity(&self) -> Option<&ImageIdentity> {
        match self {
            Self::Local { identity, .. } => Some(identity),
            Self::Remote { pin, .. } => pin.as_ref()?.image.as_ref(),
        }
    }

    /// The digest of the bytes on the server, if they are known.
    pub fn download(&self) -> Option<&Digest> {
        match self {
            Self::Local { .. } => None,
            Self::Remote { pin, .. } => pin.as_ref().map(|pin| &pin.sha256),
        }
    }

    /// The digest of its content, where that is known before it is here.
    pub fn digest(&self) -> Option<&Digest> {
        match self {
            Self::Local { identity, .. } => Some(&identity.digest),
            Self::Remote { .. } => {
                self.identity().map(|identity| &identity.digest).or_else(|| self.download())
            }
        }
    }
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

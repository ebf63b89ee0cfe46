//! A VMFile with everything substituted, typed: what each machine says and where it says it. No file is read, nothing
//! is defaulted.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use miette::SourceSpan;
use vmctl_providers::provision::StepOptions;
use vmctl_providers::{BackendTag, Name, NetworkConfig, Probe, Protocol, ShareDriver, Sudo, ZoneOptions};

use super::ast::Spanned;
use crate::desired::{AccelChoice, Arch, Firmware, OutputPart, Power, Subnet, Until, VncTcp, WarmChoice};

/// A whole VMFile.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct File {
    /// `project "name"`.
    pub project: Option<Spanned<Name>>,
    /// The machines, in order; names are unique.
    pub vms: Vec<Vm>,
    /// The names of all machines as written, even of those that could not be decoded.
    pub declared: Vec<Spanned<String>>,
    /// `moved`, in order.
    pub moved: Vec<Moved>,
    /// `removed`, in order.
    pub removed: Vec<Spanned<Name>>,
    /// The machines that a `vm` with a count stands for, by its name.
    pub groups: BTreeMap<String, Vec<Name>>,
    /// Named images, in order; names are unique.
    pub images: Vec<NamedImage>,
    /// Networks between machines, in order; names are unique.
    pub networks: Vec<Network>,
    /// Volumes, in order; names are unique.
    pub volumes: Vec<Volume>,
    /// Outputs, in order; names are unique.
    pub outputs: Vec<Output>,
}

/// `image "name" { … }`.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedImage {
    /// Its name.
    pub name: Spanned<String>,
    /// Where it is; absent only where a fault was reported.
    pub image: Option<Spanned<Image>>,
    /// The digest that it must have.
    pub sha256: Option<Spanned<String>>,
}

/// `network "name" { … }` of the top level.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// Its name.
    pub name: Spanned<Name>,
    /// Its addresses.
    pub subnet: Option<Spanned<Subnet>>,
}

/// `volume "name" size=…` of the top level.
#[derive(Debug, Clone, PartialEq)]
pub struct Volume {
    /// Its name.
    pub name: Spanned<Name>,
    /// Its size in MiB; absent only where a fault was reported.
    pub size_mib: Option<u64>,
    /// `prevent-destroy`.
    pub prevent_destroy: bool,
}

/// `output "name" "…"`.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Its name.
    pub name: Spanned<Name>,
    /// `description`.
    pub description: Option<String>,
    /// Its parts, and where it is written.
    pub parts: Spanned<Vec<OutputPart>>,
}

/// `moved from=… to=…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The name until now.
    pub from: Spanned<Name>,
    /// The name from now on.
    pub to: Spanned<Name>,
}

/// `vm "name" { … }`.
#[derive(Debug, Clone, PartialEq)]
pub struct Vm {
    /// Its name.
    pub name: Spanned<Name>,
    /// What its disk is made from; absent where there is a kernel, or a fault was reported.
    pub image: Option<Spanned<Image>>,
    /// `sha256` of the image.
    pub sha256: Option<Spanned<String>>,
    /// `arch`.
    pub arch: Option<Spanned<Arch>>,
    /// `firmware`.
    pub firmware: Option<Spanned<Firmware>>,
    /// `kernel`: path of a kernel.
    pub kernel: Option<Spanned<String>>,
    /// `initrd`: path of a first root file system.
    pub initrd: Option<Spanned<String>>,
    /// `cmdline`.
    pub cmdline: Option<Spanned<String>>,
    /// `machine`; validated.
    pub machine: Option<Spanned<String>>,
    /// `cpu`; validated.
    pub cpu: Option<Spanned<String>>,
    /// `accel`.
    pub accel: Option<Spanned<AccelChoice>>,
    /// `vnc "tcp"`.
    pub vnc: Option<Spanned<VncTcp>>,
    /// `qemu-arg`, one entry for each value.
    pub qemu_args: Vec<Spanned<String>>,
    /// `vcpus`.
    pub vcpus: Option<Spanned<u16>>,
    /// `memory`, in MiB.
    pub memory_mib: Option<Spanned<u64>>,
    /// `disk`, in MiB.
    pub disk_mib: Option<Spanned<u64>>,
    /// `volume`, in order.
    pub volumes: Vec<Spanned<String>>,
    /// `share`, in order.
    pub shares: Vec<Share>,
    /// `media`, in order: paths as written.
    pub media: Vec<Spanned<String>>,
    /// `network`, in order; one that cannot be read is absent.
    pub networks: Vec<Spanned<NetworkConfig>>,
    /// Whether any `network` is written.
    pub has_network: bool,
    /// `cloud-init`.
    pub cloud_init: Option<CloudInit>,
    /// `ssh`.
    pub ssh: Option<Ssh>,
    /// `provision`, in order.
    pub provision: Vec<Provision>,
    /// `backend`.
    pub backend: Option<Spanned<BackendTag>>,
    /// The block of `backend`; absent where it is empty.
    pub propolis: Option<Propolis>,
    /// `state`.
    pub power: Option<Spanned<Power>>,
    /// `warm`.
    pub warm: Option<Spanned<WarmChoice>>,
    /// `depends-on`, one entry for each name.
    pub depends_on: Vec<Dependency>,
    /// `forward`.
    pub forwards: Vec<Spanned<Forward>>,
    /// `lifecycle`.
    pub lifecycle: Option<Lifecycle>,
    /// `ready`.
    pub ready: Option<Ready>,
    /// `check`, in order; names are unique.
    pub checks: Vec<Check>,
    /// `labels`, by name.
    pub labels: BTreeMap<String, String>,
}

/// `backend "propolis" { … }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Propolis {
    /// The first node of the block, for messages.
    pub span: SourceSpan,
    /// `server`.
    pub server: Option<Spanned<SocketAddr>>,
    /// `binary`: path of a program.
    pub binary: Option<Spanned<String>>,
    /// `bootrom`: path of a UEFI image.
    pub bootrom: Option<Spanned<String>>,
    /// `api-version`; validated.
    pub api_version: Option<Spanned<String>>,
    /// `pool`; validated.
    pub pool: Option<Spanned<String>>,
    /// `vnic-link`; validated.
    pub vnic_link: Option<Spanned<String>>,
    /// `zone`; validated.
    pub zone: Option<Spanned<ZoneOptions>>,
}

/// `share "source" "target" readonly`.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    /// Path of a folder of the host.
    pub source: Spanned<String>,
    /// Where the guest sees it; validated.
    pub target: Spanned<String>,
    /// `readonly`.
    pub readonly: bool,
    /// `driver`.
    pub driver: ShareDriver,
}

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Image {
    /// `image`: a path as written.
    Path(String),
    /// `image-url "file://…"`: the absolute path that the URL names.
    FileUrl(String),
    /// `image-url` of any other kind.
    Url(String),
    /// `image (ref)"name"`.
    Named(String),
}

/// `cloud-init { … }`.
#[derive(Debug, Clone, PartialEq)]
pub struct CloudInit {
    /// The node's name, for messages.
    pub span: SourceSpan,
    /// `hostname`; validated.
    pub hostname: Option<Spanned<String>>,
    /// `ssh-key`: path of a public key file.
    pub ssh_key: Option<Spanned<String>>,
    /// `user-data`: path of a file that is passed on as it is.
    pub user_data: Option<Spanned<String>>,
    /// `merge-keys` of `user-data`.
    pub merges: bool,
    /// `user`, in order; one that cannot be read is absent.
    pub users: Vec<SeedLogin>,
    /// `packages`, in order.
    pub packages: Vec<Spanned<String>>,
    /// `write-file`, in order; one that cannot be read is absent.
    pub files: Vec<WriteFile>,
    /// `run`, in order.
    pub commands: Vec<Spanned<String>>,
}

/// `user "…" { … }` of a seed.
#[derive(Debug, Clone, PartialEq)]
pub struct SeedLogin {
    /// Its name; validated.
    pub name: Spanned<String>,
    /// `ssh-key`: paths of public key files.
    pub keys: Vec<Spanned<String>>,
    /// `groups`; validated.
    pub groups: Vec<String>,
    /// `sudo`.
    pub sudo: Option<Sudo>,
    /// `shell`; validated.
    pub shell: Option<String>,
}

/// `write-file "…" { … }`.
#[derive(Debug, Clone, PartialEq)]
pub struct WriteFile {
    /// Its path in the guest; validated.
    pub path: Spanned<String>,
    /// `content`, or else the path of `source`.
    pub content: Result<String, Spanned<String>>,
    /// `mode`.
    pub mode: Option<u32>,
    /// `owner`; validated.
    pub owner: Option<String>,
}

/// `ssh { … }`.
#[derive(Debug, Clone, PartialEq)]
pub struct Ssh {
    /// The node's name, for messages.
    pub span: SourceSpan,
    /// `user`; validated.
    pub user: Option<Spanned<String>>,
    /// `private-key`: path of a private key file.
    pub private_key: Option<Spanned<String>>,
}

/// `provision … { … }`.
#[derive(Debug, Clone, PartialEq)]
pub struct Provision {
    /// The node's name, for messages.
    pub span: SourceSpan,
    /// What it does; absent only where a fault was reported.
    pub action: Option<Action>,
    /// How it runs, and when.
    pub options: StepOptions,
}

/// What a provisioning step does.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// `inline`: the text of a script.
    Inline(Spanned<String>),
    /// `script`: path of a script.
    Script(Spanned<String>),
    /// `source` and `destination`.
    File {
        /// Path on the host.
        source: Spanned<String>,
        /// Path in the guest.
        destination: Spanned<String>,
    },
}

/// One name of a `depends-on`.
#[derive(Debug, Clone, PartialEq)]
pub struct Dependency {
    /// The machine that comes first.
    pub name: Spanned<String>,
    /// How far it must be.
    pub until: Until,
}

/// `forward host=… guest=…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// Port of the host; 0 lets the kernel choose.
    pub host: u16,
    /// Port of the guest.
    pub guest: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Address of the host.
    pub address: IpAddr,
}

/// `lifecycle { … }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lifecycle {
    /// `prevent-destroy`.
    pub prevent_destroy: bool,
    /// `ignore-changes`, one entry for each name; each is one of [`crate::fields::names`].
    pub ignore_changes: Vec<Spanned<String>>,
    /// `replace-when`, one entry for each name as written.
    pub replace_when: Vec<Spanned<String>>,
}

/// `ready { … }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// `ssh`, where it is written.
    pub ssh: Option<SourceSpan>,
    /// All other probes, in order.
    pub probes: Vec<Spanned<Probe>>,
    /// `timeout`.
    pub timeout: Option<Spanned<Duration>>,
}

/// `check "name" { … }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What it is called; one line.
    pub name: Spanned<String>,
    /// What must hold, in order.
    pub probes: Vec<Spanned<Probe>>,
}

//! The backend itself: its places, and which file answers which call.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{OnceCell, mpsc};

use super::argv::marks;
use super::guest::Sessions;
use super::home::carries;
use super::placement::Placements;
use super::places::RuntimeDir;
use super::version::{suffices, version};
use super::virtiofs;
use crate::abilities::{
    Custody, GuestAccess, GuestInterface, Inspect, Inspection, Keep, Preflight, Probe, RanByAgent, Readiness,
    Reconfigure, Stray, Verdict,
};
use crate::error::Result;
use crate::hypervisor::{ConsoleEndpoint, Hypervisor};
use crate::process::{Holder, Process, Program};
use crate::provision::{OutputLine, ProvisionStep};
use crate::spec::{AccelChoice, Arch, InstanceId, VmHandle, VmSpec, VmState};
use crate::ssh::Keyring;
use crate::volume::{FoundVolume, Volumes};
use crate::{Error, Name};

/// The program that runs machines of 64-bit PCs.
pub const QEMU_X86: Program = Program { name: "qemu-system-x86_64", package: "qemu-system-x86" };

/// The program that runs machines of 64-bit ARM.
pub const QEMU_ARM: Program = Program { name: "qemu-system-aarch64", package: "qemu-system-arm" };

/// The program that runs machines of `arch`.
pub fn qemu(arch: Arch) -> &'static Program {
    match arch {
        Arch::X86_64 => &QEMU_X86,
        Arch::Aarch64 => &QEMU_ARM,
    }
}

/// The program that makes disks.
pub const QEMU_IMG: Program = Program { name: "qemu-img", package: "qemu-utils" };

/// Where a [`QemuBackend`] keeps its files and how it runs machines.
#[derive(Debug, Clone)]
pub struct QemuConfig {
    /// Folder that holds one folder per machine of one project.
    pub vms_dir: PathBuf,
    /// Folder of the image cache, where images are looked for whose recorded path is another.
    pub images_dir: PathBuf,
    /// Folder of templates; see [`crate::template`].
    pub templates_dir: PathBuf,
    /// Private folder on a short path for sockets; made with mode 0700, refused if somebody else owns it.
    pub runtime_dir: PathBuf,
    /// Which accelerator to use.
    pub accel: AccelChoice,
    /// Whether machines that were left running on another host are taken for stopped. Two hosts that run one machine
    /// on one shared disk destroy it, so only who knows that they do not may say this.
    pub take_over: bool,
    /// Folders with descriptors of firmware; those of earlier ones hide those of later ones.
    pub firmware_dirs: Vec<PathBuf>,
    /// What opens the keys of logins.
    pub keyring: Keyring,
    /// QEMU's bridge helper, to be used whoever we are; without one, ourselves or that of a usual place.
    pub bridge_helper: Option<PathBuf>,
    /// Files with leases of dnsmasq besides those of the usual places.
    pub lease_files: Vec<PathBuf>,
}

/// Runs machines as detached QEMU processes.
#[derive(Debug)]
pub struct QemuBackend {
    config: QemuConfig,
    /// Set once the version of the QEMU for 64-bit PCs was found to do.
    version_x86: OnceCell<()>,
    /// The same of the QEMU for 64-bit ARM.
    version_arm: OnceCell<()>,
    pub(super) sessions: Sessions,
    pub(super) placements: Placements,
}

impl QemuBackend {
    /// A backend with the given places. Nothing is touched until a machine is prepared.
    pub fn new(config: QemuConfig) -> Self {
        Self {
            config,
            version_x86: OnceCell::new(),
            version_arm: OnceCell::new(),
            sessions: Sessions::default(),
            placements: Placements::default(),
        }
    }

    /// The places it was made with.
    pub fn config(&self) -> &QemuConfig {
        &self.config
    }

    /// Refuses a QEMU for `arch` that is missing or too old. It is asked once.
    pub(super) async fn check_version(&self, arch: Arch) -> Result<()> {
        let known = match arch {
            Arch::X86_64 => &self.version_x86,
            Arch::Aarch64 => &self.version_arm,
        };
        known.get_or_try_init(|| async { suffices(&version(qemu(arch)).await?) }).await.copied()
    }

    /// The folder of sockets of one instance, whether it exists or not.
    pub fn runtime_dir(&self, id: InstanceId) -> RuntimeDir {
        RuntimeDir::new(&self.config.runtime_dir, id)
    }

    /// Finds the live process of an instance: the one that holds the lock on its pidfile and carries its UUID.
    pub(super) fn find(&self, id: InstanceId) -> Result<Option<Process>> {
        let run = self.runtime_dir(id);
        run.check_private()?;
        let mut found = None;
        let is_expected = |args: &[String]| {
            found = marks(args);
            carries(args, id)
        };
        match Process::holding(&run.pidfile(), is_expected).map_err(Error::io("examine", run.pidfile()))? {
            Holder::Nobody => Ok(None),
            Holder::Expected(process) => match found {
                // One that is ending has closed its files.
                Some(marks)
                    if !self.is_ours(&process, &marks)
                        && !process.arguments().map_err(Error::io("examine", run.pidfile()))?.is_empty() =>
                {
                    let folder = marks.work_dir.unwrap_or_default();
                    let place =
                        format!("as process {}, on the files in `{}`", process.pid(), folder.display());
                    Err(Error::Elsewhere { place })
                }
                _ => Ok(Some(process)),
            },
            Holder::Unexpected(process) => {
                Err(Error::Foreign { path: run.pidfile(), found: format!("process {}", process.pid()) })
            }
        }
    }

    /// Removes the sockets and the pidfile that a process left behind, unless one of the instance lives.
    pub(super) async fn clean_up(&self, id: InstanceId) -> Result<()> {
        if self.find(id)?.is_some() {
            return Ok(());
        }
        let run = self.runtime_dir(id);
        virtiofs::end_all(&run).await?;
        run.remove()
    }
}

impl Hypervisor for QemuBackend {
    async fn prepare(&self, spec: &VmSpec) -> Result<VmHandle> {
        self.make(spec).await
    }

    async fn start(&self, vm: &VmHandle) -> Result<VmHandle> {
        self.launch_or_adopt(&self.here(vm).await?).await
    }

    async fn stop(&self, vm: &VmHandle, timeout: Duration) -> Result<VmHandle> {
        self.power_down(&self.here(vm).await?, timeout).await
    }

    async fn suspend(&self, vm: &VmHandle) -> Result<VmHandle> {
        self.pause(&self.here(vm).await?).await
    }

    async fn resume(&self, vm: &VmHandle) -> Result<VmHandle> {
        self.unpause(&self.here(vm).await?).await
    }

    async fn destroy(&self, vm: VmHandle) -> Result<()> {
        self.remove(&self.here(&vm).await?).await
    }

    async fn state(&self, vm: &VmHandle) -> Result<VmState> {
        self.observe_state(&self.here(vm).await?).await
    }

    async fn guest_ip(&self, vm: &VmHandle) -> Result<String> {
        self.address(&self.here(vm).await?).await
    }

    fn console_endpoint(&self, vm: &VmHandle) -> Result<ConsoleEndpoint> {
        Ok(ConsoleEndpoint::UnixSocket(self.runtime_dir(vm.id).console()))
    }
}

impl Inspect for QemuBackend {
    async fn inspect(&self, vm: &VmHandle) -> Result<Inspection> {
        self.look_closely(&self.here(vm).await?).await
    }
}

impl Reconfigure for QemuBackend {
    async fn reconfigure(&self, vm: &VmHandle, spec: &VmSpec) -> Result<VmHandle> {
        self.take_over(&self.here(vm).await?, spec).await
    }
}

impl Keep for QemuBackend {
    async fn keep(&self, vm: &VmHandle) -> Result<()> {
        self.keep_template(&self.here(vm).await?).await
    }
}

impl Volumes for QemuBackend {
    async fn volumes(&self, project: &Name) -> Result<Vec<FoundVolume>> {
        self.find_volumes(project)
    }

    async fn remove_volume(&self, volume: &FoundVolume) -> Result<()> {
        self.give_volume_up(volume).await
    }
}

impl Preflight for QemuBackend {
    fn handle(&self, spec: &VmSpec) -> Result<VmHandle> {
        Ok(VmHandle::of(spec, self.place(spec)?.path().to_owned()))
    }

    async fn preflight(&self, spec: &VmSpec) -> Result<()> {
        self.check_feasible(spec).await
    }
}

impl GuestAccess for QemuBackend {
    async fn wait_ready(&self, vm: &VmHandle, readiness: &Readiness) -> Result<()> {
        self.be_ready(&self.here(vm).await?, readiness).await
    }

    async fn probe(&self, vm: &VmHandle, probe: &Probe, patience: Duration) -> Result<Verdict> {
        self.ask_once(&self.here(vm).await?, probe, patience).await
    }

    async fn interfaces(&self, vm: &VmHandle) -> Result<Option<Vec<GuestInterface>>> {
        self.ask_for_interfaces(&self.here(vm).await?).await
    }

    async fn run_by_agent(
        &self,
        vm: &VmHandle,
        line: &str,
        patience: Option<Duration>,
    ) -> Result<Option<RanByAgent>> {
        let vm = self.here(vm).await?;
        match self.agent_of(&vm).await? {
            Some(mut agent) => agent.run(line, patience).await.map(Some),
            None => Ok(None),
        }
    }

    async fn provision(
        &self,
        vm: &VmHandle,
        step: &ProvisionStep,
        output: &mpsc::Sender<OutputLine>,
    ) -> Result<()> {
        self.run_step(&self.here(vm).await?, step, output).await
    }
}

impl Custody for QemuBackend {
    async fn strays(&self, project: &Name, known: &BTreeSet<InstanceId>) -> Result<Vec<Stray>> {
        self.find_strays(project, known).await
    }

    async fn release(&self, vm: &VmHandle) -> Result<()> {
        self.let_go(&self.here(vm).await?)
    }

    async fn note(&self, vm: &VmHandle, note: &Value) -> Result<()> {
        self.keep_note(&self.with_paths(vm), note)
    }
}

//! The QEMU backend.

use std::path::PathBuf;

/// Where a [`QemuBackend`] keeps its files and how it runs machines.
#[derive(Debug, Clone)]
pub struct QemuConfig {
    /// Folder that holds one folder per machine of one project.
    pub vms_dir: PathBuf,
    /// Private folder on a short path for sockets; made with mode 0700, refused if somebody else owns it.
    pub runtime_dir: PathBuf,
    /// Which accelerator to use.
    pub accel: AccelChoice,
}

/// Which accelerator to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccelChoice {
    /// KVM where it really works, else TCG.
    #[default]
    Auto,
    /// KVM or an error.
    Kvm,
    /// Emulation.
    Tcg,
}

/// Runs machines as detached QEMU processes.
#[derive(Debug)]
pub struct QemuBackend {
    config: QemuConfig,
}

impl QemuBackend {
    /// A backend with the given places. Nothing is touched until a machine is prepared.
    pub fn new(config: QemuConfig) -> Self {
        Self { config }
    }

    /// The places it was made with.
    pub fn config(&self) -> &QemuConfig {
        &self.config
    }
}

use crate::abilities::{GuestAccess, Inspect, Inspection, Preflight, Reconfigure};
use crate::error::{Error, Result};
use crate::hypervisor::{ConsoleEndpoint, Hypervisor};
use crate::provision::{OutputLine, ProvisionStep};
use crate::spec::{BackendTag, VmHandle, VmSpec, VmState};
use std::time::Duration;
use tokio::sync::mpsc;

fn later<T>() -> Result<T> {
    Err(Error::BackendUnavailable { backend: BackendTag::Qemu, reason: "it is not built yet".to_owned() })
}

impl Hypervisor for QemuBackend {
    async fn prepare(&self, _: &VmSpec) -> Result<VmHandle> {
        later()
    }
    async fn start(&self, _: &VmHandle) -> Result<VmHandle> {
        later()
    }
    async fn stop(&self, _: &VmHandle, _: Duration) -> Result<VmHandle> {
        later()
    }
    async fn suspend(&self, _: &VmHandle) -> Result<VmHandle> {
        later()
    }
    async fn resume(&self, _: &VmHandle) -> Result<VmHandle> {
        later()
    }
    async fn destroy(&self, _: VmHandle) -> Result<()> {
        later()
    }
    async fn state(&self, _: &VmHandle) -> Result<VmState> {
        later()
    }
    async fn guest_ip(&self, _: &VmHandle) -> Result<String> {
        later()
    }
    fn console_endpoint(&self, _: &VmHandle) -> Result<ConsoleEndpoint> {
        later()
    }
}
impl Inspect for QemuBackend {
    async fn inspect(&self, _: &VmHandle) -> Result<Inspection> {
        later()
    }
}
impl Reconfigure for QemuBackend {
    async fn reconfigure(&self, _: &VmHandle, _: &VmSpec) -> Result<VmHandle> {
        later()
    }
}
impl Preflight for QemuBackend {
    fn handle(&self, _: &VmSpec) -> Result<VmHandle> {
        later()
    }
    async fn preflight(&self, _: &VmSpec) -> Result<()> {
        later()
    }
}
impl GuestAccess for QemuBackend {
    async fn wait_ready(&self, _: &VmHandle, _: Duration) -> Result<()> {
        later()
    }
    async fn provision(&self, _: &VmHandle, _: &ProvisionStep, _: &mpsc::Sender<OutputLine>) -> Result<()> {
        later()
    }
}

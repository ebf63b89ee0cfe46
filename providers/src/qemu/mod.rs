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

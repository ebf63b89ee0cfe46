//! What only some backends can do, each a small trait of its own.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::error::Result;
use crate::provision::{OutputLine, ProvisionStep};
use crate::spec::{VmHandle, VmSpec, VmState};

/// Brings an existing machine to another spec on the same disk.
pub trait Reconfigure: Send + Sync {
    /// Takes over what `spec` says about hardware, network and login, for the next start.
    ///
    /// The machine keeps its identity and disk; the disk grows if asked to. The machine must not run if hardware
    /// or network differ ([`crate::Error::InvalidState`] otherwise); login settings may change at any time.
    fn reconfigure(&self, vm: &VmHandle, spec: &VmSpec) -> impl Future<Output = Result<VmHandle>> + Send;
}

/// What was found when a machine was looked at closely.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// What it does.
    pub state: VmState,
    /// The handle, brought up to date with what was found (pid, ports).
    pub handle: VmHandle,
    /// vCPUs of the running machine, where the hypervisor tells.
    pub vcpus: Option<u16>,
    /// Memory of the running machine in MiB, where the hypervisor tells.
    pub memory_mib: Option<u64>,
    /// Files that the machine needs and that are gone.
    pub missing: Vec<PathBuf>,
    /// What else is wrong, in words, such as a base image that changed.
    pub problems: Vec<String>,
}

/// Looks at a machine in detail.
pub trait Inspect: Send + Sync {
    /// Compares nothing and changes nothing: tells what is there now.
    ///
    /// A machine that cannot be asked within its deadline is an error of kind
    /// [`crate::ErrorKind::Timeout`] or [`crate::ErrorKind::InUse`], never "stopped".
    fn inspect(&self, vm: &VmHandle) -> impl Future<Output = Result<Inspection>> + Send;
}

/// Reaches into the guest.
pub trait GuestAccess: Send + Sync {
    /// Waits until a login works, at most `timeout`.
    ///
    /// Ends early with the reason if waiting cannot help: the process ended, the key is refused, the host key
    /// is another machine's.
    fn wait_ready(&self, vm: &VmHandle, timeout: Duration) -> impl Future<Output = Result<()>> + Send;

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

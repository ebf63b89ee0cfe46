//! The trait that every backend implements.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::Result;
use crate::spec::{VmHandle, VmSpec, VmState};

/// A hypervisor backend.
///
/// Every method is idempotent: prepare on prepared, start on running, stop on stopped and destroy on missing
/// succeed and change nothing. A method that fails leaves the machine as it was or in a state that the same call
/// can go on from; it never leaves an unnamed resource behind.
pub trait Hypervisor: Send + Sync {
    /// Allocates everything the machine needs (work folder, overlay, seed, keys, networking).
    ///
    /// Returns a handle in [`VmState::Prepared`]. If files of the same instance exist already they are finished
    /// and kept; files of another instance are an error.
    fn prepare(&self, spec: &VmSpec) -> impl Future<Output = Result<VmHandle>> + Send;

    /// Boots the machine and returns the handle with its [`crate::Runtime`] facts.
    ///
    /// A machine of this instance that runs already is adopted, not started twice.
    fn start(&self, vm: &VmHandle) -> impl Future<Output = Result<VmHandle>> + Send;

    /// Asks the guest to power down, waits up to `timeout`, then forces it. Returns a handle in
    /// [`VmState::Stopped`] that says in [`VmHandle::forced_stop`] whether force was needed.
    fn stop(&self, vm: &VmHandle, timeout: Duration) -> impl Future<Output = Result<VmHandle>> + Send;

    /// Pauses the vCPUs.
    fn suspend(&self, vm: &VmHandle) -> impl Future<Output = Result<VmHandle>> + Send;

    /// Lets paused vCPUs run on.
    fn resume(&self, vm: &VmHandle) -> impl Future<Output = Result<VmHandle>> + Send;

    /// Stops the machine if it runs and removes everything `prepare` and `start` made, and nothing else.
    fn destroy(&self, vm: VmHandle) -> impl Future<Output = Result<()>> + Send;

    /// Asks what the machine does now.
    fn state(&self, vm: &VmHandle) -> impl Future<Output = Result<VmState>> + Send;

    /// The address at which the guest is reached from this host.
    fn guest_ip(&self, vm: &VmHandle) -> impl Future<Output = Result<String>> + Send;

    /// Where the serial console is found.
    fn console_endpoint(&self, vm: &VmHandle) -> Result<ConsoleEndpoint>;
}

/// Where a serial console is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsoleEndpoint {
    /// A stream socket that carries the raw bytes of the line.
    UnixSocket(PathBuf),
    /// A WebSocket URL.
    WebSocket(String),
    /// The backend has no console.
    None,
}

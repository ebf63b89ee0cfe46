//! Where guests are reached from this host.

use std::net::{AddrParseError, Ipv4Addr};
use std::time::{Duration, Instant};

use vmctl_providers::ssh::SshTarget;
use vmctl_providers::{Error, Hypervisor, RouterHypervisor, VmHandle};

use crate::context::{Context, small_runtime};
use crate::error::CliError;
use crate::machines::Machine;

/// How long a running guest may take to have an address on the network of its bridge; it may have been started a moment
/// ago.
const ADDRESS: Duration = Duration::from_secs(60);

/// Time from one search for it to the next.
const AGAIN: Duration = Duration::from_millis(500);

/// How to log in; `None` without ssh settings, or if nothing of this host is known to lead to the guest.
pub(crate) fn reachable(handle: &VmHandle) -> Option<SshTarget> {
    SshTarget::of(handle).filter(|target| target.address.port() != 0)
}

impl Machine {
    /// As [`Machine::live`], with the address of a guest that is reached on a bridge alone: waits until it has one.
    pub(crate) fn in_reach(&self, ctx: &Context) -> Result<VmHandle, CliError> {
        let mut handle = self.live()?.clone();
        if handle.is_reached_on_a_bridge() && handle.sshd().is_none() {
            let host = ctx.hypervisor(&ctx.project_dir(&self.project)?)?;
            let found = small_runtime()?.block_on(address(&host, &handle))?;
            if let Some(runtime) = &mut handle.runtime {
                runtime.address = Some(found);
            }
        }
        Ok(handle)
    }
}

/// Waits for the address of a guest on the network of its bridge.
async fn address(host: &RouterHypervisor, handle: &VmHandle) -> Result<Ipv4Addr, CliError> {
    let deadline = Instant::now() + ADDRESS;
    loop {
        match host.guest_ip(handle).await {
            Ok(address) => {
                return address.parse().map_err(|error: AddrParseError| CliError::of(&error));
            }
            Err(Error::NoAddress { .. }) if Instant::now() < deadline => tokio::time::sleep(AGAIN).await,
            Err(error) => return Err(error.into()),
        }
    }
}

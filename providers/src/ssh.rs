//! The ssh client: readiness, commands, files.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::ErrorKind;
use crate::spec::VmHandle;

/// Why a guest could not be reached, or what it refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SshError {
    /// No sshd answered within the deadline.
    #[error("no sshd answered on {address} within {after:?}")]
    NoAnswer {
        /// Host and port.
        address: String,
        /// How long it was tried.
        after: Duration,
    },
}

impl SshError {
    /// The class of the failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoAnswer { .. } => ErrorKind::Timeout,
        }
    }

    /// What to do next, where there is something to do.
    pub fn help(&self) -> Option<String> {
        None
    }
}

/// Where and how to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshTarget {
    /// Address of the host that leads to the guest's sshd.
    pub address: SocketAddr,
    /// Login user.
    pub user: String,
    /// Private key file.
    pub private_key: PathBuf,
    /// Known-hosts file of this machine alone; see [`crate::workdir::WorkDir::known_hosts`].
    pub known_hosts: PathBuf,
    /// The name under which `known_hosts` lists the guest (ssh's `HostKeyAlias`).
    pub host_alias: String,
}

impl SshTarget {
    /// The target of a running machine; `None` if it has no ssh settings or no forwarded port.
    pub fn of(vm: &VmHandle) -> Option<Self> {
        let _ = vm;
        None
    }
}

/// A logged-in connection to one guest; commands and uploads share it.
#[derive(Debug)]
pub struct Session;

impl Session {
    /// Tries until a login works, at most `timeout`; ends early where trying again cannot help.
    pub async fn wait_for(target: &SshTarget, timeout: Duration) -> Result<Self, SshError> {
        Err(SshError::NoAnswer { address: target.address.to_string(), after: timeout })
    }
}

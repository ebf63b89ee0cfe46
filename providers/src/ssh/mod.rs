//! The ssh client: readiness, commands, files.
//!
//! ```text
//! wait_for ── fresh connections until a banner comes ── key exchange, host key, login ── Session
//!                     ^                                            │
//!                     └──── not ready: refused, lost, stalled ─────┘
//! ```
//!
//! A [`Session`] is one connection; commands and uploads are channels on it and may run side by side. The guest's
//! host key is checked before anything of ours is shown to it. The `ssh` program of the host is not used.

mod connect;
mod download;
mod error;
mod folder;
mod keyring;
mod known_hosts;
mod session;

use std::net::SocketAddr;
use std::path::PathBuf;

pub use error::SshError;
pub use keyring::{AskPassphrase, Keyring, PASSPHRASE_VARIABLE};
pub use session::{CarriedOut, ExitStatus, Input, Running, Session, Terminal, TerminalSize};

use crate::spec::VmHandle;
use crate::workdir::WorkDir;

/// The port on which a guest's sshd listens.
pub const PORT: u16 = 22;

/// Where and how to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshTarget {
    /// Address of the host that leads to the guest's sshd.
    pub address: SocketAddr,
    /// Login user.
    pub user: String,
    /// File of the private key, or of its public half if the agent holds it; see [`Keyring`].
    pub private_key: PathBuf,
    /// Known-hosts file of this machine alone; see [`crate::workdir::WorkDir::known_hosts`].
    pub known_hosts: PathBuf,
    /// The name under which `known_hosts` lists the guest (ssh's `HostKeyAlias`).
    pub host_alias: String,
}

impl SshTarget {
    /// The target of a running machine; `None` if it has no ssh settings, or nobody knows where its sshd is.
    pub fn of(vm: &VmHandle) -> Option<Self> {
        Self::at(vm, vm.sshd()?)
    }

    /// The target of a machine whose sshd is reached at `address`; `None` if it has no ssh settings.
    pub fn at(vm: &VmHandle, address: SocketAddr) -> Option<Self> {
        let ssh = vm.ssh.as_ref()?;
        let work_dir = WorkDir::new(&vm.work_dir);
        Some(Self {
            address,
            user: ssh.user.clone(),
            private_key: ssh.private_key.clone().unwrap_or_else(|| work_dir.user_key()),
            known_hosts: work_dir.known_hosts(),
            host_alias: format!("vmctl-{}", vm.id.short()),
        })
    }

    /// The line of `known_hosts` that pins `public`, a line of a `.pub` file, as this guest's host key.
    pub fn known_hosts_line(host_alias: &str, public: &str) -> String {
        format!("{host_alias} {}\n", public.trim())
    }
}

/// `text` as one word of a POSIX shell.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

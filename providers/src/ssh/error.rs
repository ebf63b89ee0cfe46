//! Why a guest could not be reached, or what it refused.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::ErrorKind;
use crate::keys::KeyError;

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
    /// An sshd answered and then said too little to log in.
    #[error("the sshd on {address} answered, but no login came to an end within {after:?}")]
    Stalled {
        /// Host and port.
        address: String,
        /// How long it was tried.
        after: Duration,
    },
    /// The guest does not accept the key, again and again.
    #[error("the guest refuses user `{user}` with key `{key}`", key = key.display())]
    AuthRefused {
        /// Login user.
        user: String,
        /// The private key's file.
        key: PathBuf,
    },
    /// The agent of ssh holds the key and does not use it for us.
    #[error("the ssh agent does not sign with key `{key}`: {reason}", key = key.display())]
    AgentRefused {
        /// The key's file.
        key: PathBuf,
        /// What the agent said.
        reason: String,
    },
    /// Somebody else answers, or the guest's host key was changed. Nothing was sent to it.
    #[error("the sshd on {address} does not have the host key that `{known_hosts}` lists", known_hosts = known_hosts.display())]
    HostKeyMismatch {
        /// Host and port.
        address: String,
        /// Where the expected key is written.
        known_hosts: PathBuf,
    },
    /// The file with the expected host key cannot be used.
    #[error("cannot use `{path}`: {reason}", path = path.display())]
    KnownHosts {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The private key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A file of this host could not be read or written.
    #[error("cannot {action} `{path}`", path = path.display())]
    Io {
        /// What was attempted, as a verb phrase.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// Standard input of a command could not be read.
    #[error("cannot read the command's input")]
    Input(#[source] std::io::Error),
    /// The guest does not let this login run commands.
    #[error("the guest does not run commands for this login")]
    ExecRefused,
    /// The guest has no terminal for this login.
    #[error("the guest gives this login no terminal")]
    TerminalRefused,
    /// The guest's sshd does not make connections for this login.
    #[error("the guest's sshd forbids this login to forward connections")]
    ForwardRefused,
    /// The connection ended before the command did.
    #[error("the connection to the guest was lost")]
    Lost(#[source] Option<russh::Error>),
    /// An upload made no progress.
    #[error("upload to `{destination}` made no progress for {after:?}")]
    UploadStalled {
        /// Path in the guest.
        destination: String,
        /// How long nothing moved.
        after: Duration,
    },
    /// The guest did not hand out a file or folder.
    #[error("the guest did not send `{source_path}`: {reason}")]
    DownloadRefused {
        /// Path in the guest.
        source_path: String,
        /// What the guest said.
        reason: String,
    },
    /// The guest did not store an uploaded file.
    #[error("the guest did not store `{destination}`: {reason}")]
    UploadRefused {
        /// Path in the guest.
        destination: String,
        /// What the guest said.
        reason: String,
    },
}

impl SshError {
    /// The class of the failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoAnswer { .. } | Self::Stalled { .. } | Self::UploadStalled { .. } => ErrorKind::Timeout,
            Self::AuthRefused { .. }
            | Self::HostKeyMismatch { .. }
            | Self::ExecRefused
            | Self::TerminalRefused
            | Self::ForwardRefused
            | Self::Lost(_)
            | Self::DownloadRefused { .. }
            | Self::UploadRefused { .. } => ErrorKind::Guest,
            Self::KnownHosts { .. } | Self::Key(_) | Self::Input(_) => ErrorKind::InvalidInput,
            Self::AgentRefused { .. } => ErrorKind::Host,
            Self::Io { .. } => ErrorKind::Host,
        }
    }

    /// What to do next, where there is something to do.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::NoAnswer { .. } => Some(
                "the guest may still boot, have no network or no sshd: `vmctl log` shows its console".to_owned(),
            ),
            Self::Stalled { .. } => {
                Some("the guest may be overloaded or suspended: `vmctl status` and `vmctl log` tell".to_owned())
            }
            Self::AuthRefused { .. } => Some(
                "check the user, and that the key's public half is in cloud-init's `ssh-key`; a VM made with \
                 other settings must be replaced"
                    .to_owned(),
            ),
            Self::AgentRefused { .. } => Some(
                "it may be locked (`ssh-add -X`), or somebody declined to confirm; `ssh-add -l` lists its keys"
                    .to_owned(),
            ),
            Self::HostKeyMismatch { known_hosts, .. } => Some(format!(
                "if the guest's host key was changed on purpose, remove `{}`, and the next login learns it",
                known_hosts.display()
            )),
            Self::KnownHosts { path, .. } => {
                Some(format!("remove `{}`, and the next login learns the guest's key anew", path.display()))
            }
            Self::Key(error) => error.help(),
            Self::ExecRefused => Some("look for ForceCommand or a restricted shell in the guest".to_owned()),
            Self::TerminalRefused => Some(
                "go on without one (`--no-tty`), or look for `PermitTTY no` in the guest's sshd_config and whether \
                 /dev/pts is mounted there"
                    .to_owned(),
            ),
            Self::ForwardRefused => Some(
                "allow it (`AllowTcpForwarding local` in the guest's sshd_config), or ask with an exec probe".to_owned(),
            ),
            Self::Lost(_) => Some("the guest may have shut down or restarted: `vmctl status` tells".to_owned()),
            Self::UploadRefused { .. } => {
                Some("choose a path that the login user can write to, or allow it sudo without password".to_owned())
            }
            Self::Io { .. } | Self::Input(_) | Self::UploadStalled { .. } | Self::DownloadRefused { .. } => None,
        }
    }
}

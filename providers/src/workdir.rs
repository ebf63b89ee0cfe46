//! The folder that holds one machine's files, and what each file is called.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::spec::InstanceId;

/// Paths inside one machine's folder. It creates and checks nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkDir(PathBuf);

impl WorkDir {
    /// The folder at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Who the folder belongs to and what it was made for: the second copy of the truth.
    pub fn manifest(&self) -> PathBuf {
        self.0.join("manifest.json")
    }

    /// What the caller noted about the machine.
    pub fn note(&self) -> PathBuf {
        self.0.join("record.json")
    }

    /// The root disk, a QCOW2 overlay on a cached image.
    pub fn overlay(&self) -> PathBuf {
        self.0.join("overlay.qcow2")
    }

    /// The NoCloud seed volume.
    pub fn seed(&self) -> PathBuf {
        self.0.join("seed.img")
    }

    /// The variables of its UEFI.
    pub fn variables(&self) -> PathBuf {
        self.0.join("uefi-vars.fd")
    }

    /// The password of its display, where that is served over TCP.
    pub fn vnc_password(&self) -> PathBuf {
        self.0.join("vnc-password")
    }

    /// What the guest wrote to its serial line, raw.
    pub fn console_log(&self) -> PathBuf {
        self.0.join("console.log")
    }

    /// What provisioning printed.
    pub fn provision_log(&self) -> PathBuf {
        self.0.join("provision.log")
    }

    /// Private key generated for this machine's login user, OpenSSH format.
    pub fn user_key(&self) -> PathBuf {
        self.0.join("id_ed25519")
    }

    /// Private host key that the seed gives to the guest, OpenSSH format.
    pub fn host_key(&self) -> PathBuf {
        self.0.join("ssh_host_ed25519_key")
    }

    /// The guest's host key in known_hosts form; written by us where the
    /// seed carries the key, learned at first contact where it cannot.
    pub fn known_hosts(&self) -> PathBuf {
        self.0.join("known_hosts")
    }
}

/// What `recorded` names, in the folder `home`: things keep their names when the folder above them is moved.
pub fn among(home: &Path, recorded: &Path) -> PathBuf {
    match recorded.file_name() {
        Some(name) if recorded.parent() != Some(home) => home.join(name),
        Some(_) | None => recorded.to_owned(),
    }
}

/// The folder of `id` where `plain`, the one that bears its machine's name, is another's.
///
/// `~` is in no name, so that this is no machine's plain folder.
pub fn beside(plain: &Path, id: InstanceId) -> PathBuf {
    let mut name = plain.file_name().unwrap_or_default().to_owned();
    name.push(format!("~{}", id.short()));
    plain.with_file_name(name)
}

/// What was noted in a machine's folder; what cannot be read is told to whoever reads the log, and is nothing.
pub(crate) fn read_note(work: &WorkDir) -> Option<Value> {
    let path = work.note();
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "a note cannot be read");
            return None;
        }
    };
    match serde_json::from_slice(&text) {
        Ok(note) => Some(note),
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "a note cannot be understood");
            None
        }
    }
}

//! What a guest sees of the host's storage besides its root disk.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::name::Name;

/// A folder of the host that a guest sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The folder, absolute.
    pub source: PathBuf,
    /// Where the guest sees it: an absolute path.
    pub target: String,
    /// The guest cannot write to it.
    pub readonly: bool,
    /// How it reaches the guest.
    #[serde(default, skip_serializing_if = "ShareDriver::is_default")]
    pub driver: ShareDriver,
}

/// How a folder of the host reaches a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ShareDriver {
    /// Through QEMU itself: what the guest says of owners and kinds of files means nothing on the host.
    #[default]
    #[serde(rename = "9p")]
    NineP,
    /// Through a `virtiofsd` beside QEMU: quick, and a guest's files are as real as those of the user who runs it.
    #[serde(rename = "virtiofs")]
    Virtiofs,
}

impl ShareDriver {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A disk that outlives the machine that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its name, unique within the project.
    pub name: Name,
    /// Its size in bytes. It never shrinks.
    pub size_bytes: u64,
    /// No plan may remove it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prevent_destroy: bool,
}

//! The hardware of a machine.

use serde::{Deserialize, Serialize};

use super::{DiskImage, Nic};

/// The hardware of a machine. A change here needs a restart or a replacement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Number of virtual CPUs, at least 1.
    pub vcpus: u16,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Size of the root disk in bytes; the image's size if absent. Never smaller than the image.
    pub disk_bytes: Option<u64>,
    /// What the root disk is made from.
    pub image: DiskImage,
    /// Network cards, in the order in which the guest sees them.
    pub nics: Vec<Nic>,
}

impl Machine {
    /// What cannot change while a machine runs.
    pub(crate) fn without_forwards(&self) -> Self {
        let mut machine = self.clone();
        for nic in &mut machine.nics {
            nic.forwards.clear();
        }
        machine
    }
}

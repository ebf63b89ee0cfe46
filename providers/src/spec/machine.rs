//! The hardware of a machine.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{DiskImage, Hardware, NetworkConfig, Nic, Peer, Share, ShareDriver, Volume};

/// The hardware of a machine. A change here needs a restart or a replacement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Number of virtual CPUs, at least 1.
    pub vcpus: u16,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Size of the root disk in bytes; the image's size if absent. Never smaller than the image.
    pub disk_bytes: Option<u64>,
    /// What the root disk is made from. Without one the disk is empty, or there is none where no size is asked for.
    #[serde(default)]
    pub image: Option<DiskImage>,
    /// What it is besides processors, memory, disks and networks.
    #[serde(default, skip_serializing_if = "Hardware::is_default")]
    pub hardware: Hardware,
    /// Network cards, in the order in which the guest sees them.
    pub nics: Vec<Nic>,
    /// Disks that outlive it, in the order in which the guest sees them, behind its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Folders of the host, in the order in which the guest sees them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<Share>,
    /// Files of the host, absolute, that the guest sees as disks and cannot write to, in order, behind the volumes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub media: Vec<PathBuf>,
}

impl Machine {
    /// Whether a folder of the host is shared over virtiofs: then another process reads the guest's memory.
    pub(crate) fn has_virtiofs(&self) -> bool {
        self.shares.iter().any(|share| share.driver == ShareDriver::Virtiofs)
    }

    /// The size of the root disk that the guest sees, in bytes; `None` without such a disk.
    pub fn disk_size(&self) -> Option<u64> {
        self.disk_bytes.or(self.image.as_ref().map(|image| image.virtual_size))
    }

    /// The machines that the guest is to know by name: those of its private networks, in order of its cards.
    pub fn peers(&self) -> Vec<Peer> {
        let links = self.nics.iter().filter_map(|nic| nic.network.link());
        links.flat_map(|link| link.peers.iter().cloned()).collect()
    }

    /// Whether it has a card on a bridge of the host.
    pub fn is_on_a_bridge(&self) -> bool {
        self.nics.iter().any(|nic| matches!(nic.network, NetworkConfig::Tap { .. }))
    }

    /// Whether it has a card of illumos.
    pub fn is_on_a_vnic(&self) -> bool {
        self.nics.iter().any(|nic| matches!(nic.network, NetworkConfig::Vnic { .. }))
    }

    /// What cannot change while a machine runs.
    pub(crate) fn fixed_while_it_runs(&self) -> Self {
        let mut machine = self.clone();
        for volume in &mut machine.volumes {
            (volume.size_bytes, volume.prevent_destroy) = (0, false);
        }
        for nic in &mut machine.nics {
            nic.forwards.clear();
            if let NetworkConfig::Private { link: Some(link), .. } = &mut nic.network {
                link.peers.clear();
            }
        }
        machine
    }
}

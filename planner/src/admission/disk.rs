//! Disk: what is written at once, against what is free. Pure.
//!
//! Disks of machines grow as their guests write. How far is theirs to decide, so that it is no reason to refuse.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use vmctl_providers::Space;
use vmctl_state::Address;

use super::{Shortage, ShortageKind, names, size, size_needed};

/// What is to be written to one file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DiskUse {
    path: PathBuf,
    free: u64,
    /// Images that are copied, each once, in bytes.
    images: BTreeMap<Address, u64>,
    /// What folders of new machines take.
    folders: u64,
    machines: BTreeSet<Address>,
}

impl DiskUse {
    /// Nothing on this disk.
    pub(super) fn on(space: &Space) -> Self {
        Self {
            path: space.path.clone(),
            free: space.free,
            images: BTreeMap::new(),
            folders: 0,
            machines: BTreeSet::new(),
        }
    }

    /// A machine's folder is made. Of two figures for the same disk the lower one holds.
    pub(super) fn machine(&mut self, space: &Space, address: &Address, bytes: u64) {
        self.free = self.free.min(space.free);
        self.folders = self.folders.saturating_add(bytes);
        self.machines.insert(address.clone());
    }

    /// An image is copied for a machine; for several machines, once.
    pub(super) fn image(&mut self, space: &Space, image: Address, address: &Address, bytes: u64) {
        self.free = self.free.min(space.free);
        self.images.insert(image, bytes);
        self.machines.insert(address.clone());
    }

    /// What is lacking on it, if anything is.
    pub(super) fn shortage(self) -> Option<Shortage> {
        let copied = self.images.values().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
        let needed = self.folders.saturating_add(copied);
        if needed <= self.free {
            return None;
        }
        let machines: Vec<_> = self.machines.into_iter().collect();
        let subject = if machines.len() == 1 {
            format!("{} needs", names(&machines))
        } else {
            format!("{} machines ({}) need", machines.len(), names(&machines))
        };
        let copies = match self.images.len() {
            0 => String::new(),
            1 => format!(", {} of it to copy an image", size(copied)),
            count => format!(", {} of it to copy {count} images", size(copied)),
        };
        Some(Shortage {
            kind: ShortageKind::Disk,
            needed_bytes: needed,
            available_bytes: self.free,
            text: format!(
                "{subject} {} of disk to begin with{copies}, {} is free in `{}`",
                size_needed(needed),
                size(self.free),
                self.path.display()
            ),
            path: Some(self.path),
            machines,
            overcommitted: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn space(free: u64) -> Space {
        Space { path: "/data".into(), device: 1, free }
    }

    /// Two machines of 2 MiB each on one image of 30 MiB.
    fn two_machines(free: u64) -> Option<Shortage> {
        let space = space(free);
        let mut disk = DiskUse::on(&space);
        for name in ["a", "b"] {
            disk.machine(&space, &Address::vm(name), 2 * MIB);
            disk.image(&space, Address::image("00"), &Address::vm(name), 30 * MIB);
        }
        disk.shortage()
    }

    #[test]
    fn need_may_be_all_that_is_free_and_an_image_counts_once() {
        assert_eq!(two_machines(34 * MIB), None);
        let short = two_machines(34 * MIB - 1).unwrap();
        assert_eq!((short.needed_bytes, short.available_bytes), (34 * MIB, 34 * MIB - 1));
        assert_eq!(
            short.text,
            "2 machines (`a`, `b`) need 34 MiB of disk to begin with, 30 MiB of it to copy an image, 33 MiB is free in \
             `/data`"
        );
    }

    #[test]
    fn lower_figure_for_a_disk_holds() {
        let mut disk = DiskUse::on(&space(100 * MIB));
        disk.machine(&space(MIB), &Address::vm("a"), 2 * MIB);
        assert_eq!(disk.shortage().unwrap().available_bytes, MIB);
    }

    #[test]
    fn nothing_to_write_needs_nothing() {
        assert_eq!(DiskUse::on(&space(0)).shortage(), None);
    }
}

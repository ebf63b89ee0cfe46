//! Every command of illumos that the backend runs.

use super::Command;
use crate::process::Program;
use crate::spec::{InstanceId, MacAddr};

/// Volumes. What stands in the place of a package is what it is for.
const ZFS: Program = Program { name: "zfs", package: "disks in a `pool`" };

/// Network cards.
const DLADM: Program = Program { name: "dladm", package: "vnics" };

/// Neighbours on the network.
const ARP: Program = Program { name: "arp", package: "addresses of guests" };

/// VMs of the kernel.
const BHYVECTL: Program = Program { name: "bhyvectl", package: "VMs that a server left in the kernel" };

/// The property of a volume that says which instance it belongs to.
pub(in crate::propolis) const ID_MARK: &str = "vmctl:id";

/// The property of a volume that says which image it holds.
pub(in crate::propolis) const IMAGE_MARK: &str = "vmctl:image";

fn command<const N: usize>(program: Program, args: [&str; N]) -> Command {
    Command { program, args: args.map(str::to_owned).into() }
}

/// All volumes and snapshots under `pool`, one a line: name, size in bytes, and both marks, with tabs between.
pub(in crate::propolis) fn list_volumes(pool: &str) -> Command {
    let columns = format!("name,volsize,{ID_MARK},{IMAGE_MARK}");
    command(ZFS, ["list", "-H", "-p", "-r", "-t", "volume,snapshot", "-o", &columns, pool])
}

/// Makes a volume of `bytes` that bears a mark.
pub(in crate::propolis) fn create_volume(name: &str, bytes: u64, (mark, value): (&str, &str)) -> Command {
    command(ZFS, ["create", "-V", &bytes.to_string(), "-o", &format!("{mark}={value}"), name])
}

/// Keeps a volume as it is now.
pub(in crate::propolis) fn snapshot(snapshot: &str) -> Command {
    command(ZFS, ["snapshot", snapshot])
}

/// Makes a volume of a snapshot, marked as an instance's.
pub(in crate::propolis) fn clone(snapshot: &str, name: &str, id: InstanceId) -> Command {
    command(ZFS, ["clone", "-o", &format!("{ID_MARK}={id}"), snapshot, name])
}

/// Sets the size of a volume.
pub(in crate::propolis) fn resize(name: &str, bytes: u64) -> Command {
    command(ZFS, ["set", &format!("volsize={bytes}"), name])
}

/// Destroys a volume, and nothing that depends on it.
pub(in crate::propolis) fn destroy_volume(name: &str) -> Command {
    command(ZFS, ["destroy", name])
}

/// All vnics, one a line: name, link below, hardware address, with colons between.
pub(in crate::propolis) fn show_vnics() -> Command {
    command(DLADM, ["show-vnic", "-p", "-o", "link,over,macaddress"])
}

/// Makes a vnic that is gone when the host restarts.
pub(in crate::propolis) fn create_vnic(name: &str, link: &str, mac: MacAddr) -> Command {
    command(DLADM, ["create-vnic", "-t", "-l", link, "-m", &mac.to_string(), name])
}

/// Removes a vnic.
pub(in crate::propolis) fn delete_vnic(name: &str) -> Command {
    command(DLADM, ["delete-vnic", name])
}

/// The neighbours that the host knows.
pub(in crate::propolis) fn neighbours() -> Command {
    command(ARP, ["-an"])
}

/// Takes a VM out of the kernel that a killed server left there.
pub(in crate::propolis) fn destroy_vm(id: InstanceId) -> Command {
    command(BHYVECTL, ["--destroy", &format!("--vm={id}")])
}

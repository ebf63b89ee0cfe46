//! Every command of illumos that the backend runs.

use std::path::Path;
use std::time::Duration;

use super::Command;
use crate::process::{self, Program};
use crate::spec::{InstanceId, MacAddr};

/// Volumes. What stands in the place of a package is what it is for.
const ZFS: Program = Program { name: "zfs", package: "disks in a `pool`" };

/// Network cards.
const DLADM: Program = Program { name: "dladm", package: "vnics" };

/// Neighbours on the network.
const ARP: Program = Program { name: "arp", package: "addresses of guests" };

/// Zones: their states.
const ZONEADM: Program = Program { name: "zoneadm", package: "zones" };

/// Zones: what they consist of.
const ZONECFG: Program = Program { name: "zonecfg", package: "zones" };

/// Zones: what runs in them.
const ZLOGIN: Program = Program { name: "zlogin", package: "zones" };

/// VMs of the kernel.
const BHYVECTL: Program = Program { name: "bhyvectl", package: "VMs that a server left in the kernel" };

/// The property of a volume that says which instance it belongs to.
pub(in crate::propolis) const ID_MARK: &str = "vmctl:id";

/// The property of a volume that says which image it holds.
pub(in crate::propolis) const IMAGE_MARK: &str = "vmctl:image";

/// The attribute of a zone that says which instance it belongs to.
pub(in crate::propolis) const ZONE_MARK: &str = "vmctl-id";

/// The attribute of a zone by which two of its configurations are told apart.
pub(in crate::propolis) const ZONE_CONFIG: &str = "vmctl-config";

/// Where a server works in its zone.
const ZONE_FOLDER: &str = "/var/vmctl";

/// How long a command of the host may take. Destroying a large volume takes longest.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long it may take to make or remove a zone: where its template is not on ZFS, all its files are copied.
const ZONE_PATIENCE: Duration = Duration::from_secs(900);

/// How many lines of a server's log are told.
const LOG_LINES: &str = "40";

fn command<const N: usize>(program: Program, args: [&str; N]) -> Command {
    Command { program, args: args.map(str::to_owned).into(), patience: PATIENCE }
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

/// All zones that are configured, one a line: number, name, state, path, UUID, brand, kind of network, with colons between.
pub(in crate::propolis) fn list_zones() -> Command {
    command(ZONEADM, ["list", "-c", "-p"])
}

/// The attributes of a zone.
pub(in crate::propolis) fn zone_attributes(zone: &str) -> Command {
    command(ZONECFG, ["-z", zone, "info", "attr"])
}

/// Configures a zone by `script`, all of it or nothing.
pub(in crate::propolis) fn configure_zone(zone: &str, script: &str) -> Command {
    command(ZONECFG, ["-z", zone, script])
}

/// Installs a configured zone as a clone of another one.
pub(in crate::propolis) fn clone_zone(zone: &str, template: &str) -> Command {
    patient(command(ZONEADM, ["-z", zone, "clone", template]))
}

/// Boots an installed zone.
pub(in crate::propolis) fn boot_zone(zone: &str) -> Command {
    command(ZONEADM, ["-z", zone, "boot"])
}

/// Ends all that runs in a zone.
pub(in crate::propolis) fn halt_zone(zone: &str) -> Command {
    command(ZONEADM, ["-z", zone, "halt"])
}

/// Removes the files of a zone that is halted.
pub(in crate::propolis) fn uninstall_zone(zone: &str) -> Command {
    patient(command(ZONEADM, ["-z", zone, "uninstall", "-F"]))
}

/// Forgets a zone that has no files.
pub(in crate::propolis) fn delete_zone(zone: &str) -> Command {
    command(ZONECFG, ["-z", zone, "delete", "-F"])
}

/// Starts a server in a zone, which goes on there. It listens on all addresses of the zone: that is the control card's, and
/// need not be there yet.
pub(in crate::propolis) fn serve_in_zone(zone: &str, binary: &Path, bootrom: &Path, port: u16) -> Command {
    let (binary, bootrom) = (binary.to_string_lossy(), bootrom.to_string_lossy());
    let listen = format!("0.0.0.0:{port}");
    let server = process::quote(&binary, &["run", "--metric-addr", "disable", &bootrom, &listen]);
    let script = format!(
        "mkdir -p {ZONE_FOLDER} && cd {ZONE_FOLDER} && {{ nohup {server} </dev/null >server.log 2>&1 & }}"
    );
    command(ZLOGIN, [zone, &script])
}

/// The end of what the server in a zone said.
pub(in crate::propolis) fn zone_log(zone: &str) -> Command {
    command(ZLOGIN, [zone, &format!("tail -n {LOG_LINES} {ZONE_FOLDER}/server.log")])
}

fn patient(command: Command) -> Command {
    Command { patience: ZONE_PATIENCE, ..command }
}

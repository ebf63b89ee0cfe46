//! An illumos host for vmctl: its programs are a script that keeps volumes, vnics and zones as files.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use crate::{World, surroundings};

/// What the script is called as.
const PROGRAMS: [&str; 6] = ["zfs", "dladm", "arp", "zonecfg", "zoneadm", "zlogin"];

/// What a world has of illumos.
#[derive(Debug)]
pub struct Illumos {
    host: PathBuf,
}

impl Illumos {
    /// Lets `world` be on illumos, with an installed zone called `propolis`.
    pub fn of(world: &mut World) -> Self {
        let (bin, host) = (world.folder().join("bin"), world.folder().join("host"));
        for folder in [&bin, &host, &host.join("zfs"), &host.join("vnics"), &host.join("zones/propolis")] {
            fs::create_dir_all(folder).expect("a folder in the world's");
        }
        fs::write(host.join("zones/propolis/state"), "installed\n").expect("a file in the world's folder");
        fs::write(host.join("deeds"), "").expect("a file in the world's folder");
        let script = bin.join("illumos");
        fs::write(&script, include_str!("illumos.sh")).expect("a file in the world's folder");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("its mode");
        for program in PROGRAMS {
            symlink(&script, bin.join(program)).expect("a link in the world's folder");
        }
        let mut path = bin.into_os_string();
        if let Some(others) = surroundings::inherited("PATH") {
            path.push(":");
            path.push(others);
        }
        world.set("PATH", path);
        Self { host }
    }

    /// Where it has a device for each volume.
    pub fn zvols(&self) -> PathBuf {
        self.host.join("zvol")
    }

    /// The commands that changed something, oldest first.
    pub fn deeds(&self) -> Vec<String> {
        let text = fs::read_to_string(self.host.join("deeds")).expect("the list of deeds");
        text.lines().map(str::to_owned).collect()
    }

    /// Takes all images from the pool, as their owner may.
    pub fn forget_images(&self) {
        for entry in fs::read_dir(self.host.join("zfs")).expect("a folder of the host").flatten() {
            let name = entry.file_name().to_string_lossy().replace('%', "/");
            if !name.contains("vmctl-image-") {
                continue;
            }
            fs::remove_file(entry.path()).expect("a file of the host");
            if !name.contains('@') {
                fs::remove_file(self.zvols().join(name)).expect("a device of the host");
            }
        }
    }

    /// Volumes, snapshots, vnics and zones, but for images and the template, by name.
    pub fn left(&self) -> Vec<String> {
        let names = |folder: &str| {
            let entries = fs::read_dir(self.host.join(folder)).expect("a folder of the host");
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned())
        };
        let mut left: Vec<_> = ["zfs", "vnics", "zones"].into_iter().flat_map(names).collect();
        left.retain(|name| !name.contains("vmctl-image-") && name != "propolis");
        left.sort();
        left
    }
}

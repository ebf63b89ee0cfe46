//! What can be said about a spec before anything is made.

use super::accel::{decide_for, probe};
use super::argv::{text, unsupported};
use super::backend::{QEMU_IMG, QemuBackend, qemu};
use super::firmware;
use super::ports;
use super::shares::check_shares;
use crate::error::{Error, Result};
use crate::media;
use crate::spec::{Arch, BackendTag, Firmware, MOST_UNASKED, Machine, NetworkConfig, VmSpec};

impl QemuBackend {
    /// See [`crate::Preflight::preflight`].
    pub(super) async fn check_feasible(&self, spec: &VmSpec) -> Result<()> {
        let hardware = &spec.machine.hardware;
        qemu(hardware.guest_arch()).locate()?;
        QEMU_IMG.locate()?;
        self.check_version(hardware.guest_arch()).await?;
        self.check_expressible(spec)?;
        firmware::check(hardware, &self.config().firmware_dirs)?;
        check_shares(&spec.machine).await?;
        check_media(&spec.machine)?;
        self.check_bridges(&spec.machine).await?;
        let own_pid = self.find(spec.id)?.map(|process| process.pid());
        ports::check_all_free(&spec.machine, own_pid)
    }

    /// What no host could do: hardware or a network that this backend lacks, a disk below its image, an unusable path.
    pub(super) fn check_expressible(&self, spec: &VmSpec) -> Result<()> {
        check_hardware(&spec.machine)?;
        check_networks(&spec.machine)?;
        check_disk(&spec.machine)?;
        text(&self.config().vms_dir)?;
        if let Some(image) = &spec.machine.image {
            text(&image.path)?;
        }
        let run = self.runtime_dir(spec.id);
        text(run.path())?;
        run.check_length()
    }
}

/// Refuses media that are gone, and those that the guest would take for its seed.
pub(super) fn check_media(machine: &Machine) -> Result<()> {
    machine.media.iter().try_for_each(|path| {
        text(path)?;
        media::check(path)
    })
}

fn check_hardware(machine: &Machine) -> Result<()> {
    let hardware = &machine.hardware;
    if let Some(what) = beyond_its_kind(machine) {
        return Err(Error::Unsupported { backend: BackendTag::Qemu, what });
    }
    decide_for(hardware.guest_arch(), hardware.accel, &probe()).map(drop)
}

/// What a machine of its kind cannot have, and has.
fn beyond_its_kind(machine: &Machine) -> Option<String> {
    let hardware = &machine.hardware;
    let lacks_kernel = hardware.kernel.is_none();
    let what = match (hardware.guest_arch(), hardware.firmware) {
        (Arch::Aarch64, Firmware::Bios) if lacks_kernel => {
            "an aarch64 machine that boots neither by UEFI nor from a `kernel`: there is no BIOS for it,"
        }
        (Arch::Aarch64, _) if hardware.is_microvm() => "a `microvm` of aarch64",
        (_, Firmware::Uefi) if hardware.is_microvm() => "a `microvm` that boots by UEFI",
        _ if hardware.is_microvm() && lacks_kernel => "a `microvm` without a `kernel`, which boots no disk,",
        _ if hardware.is_microvm() && hardware.vnc.is_some() => {
            "a `microvm` with `vnc`: it has no display, which"
        }
        _ => return None,
    };
    Some(what.to_owned())
}

fn check_networks(machine: &Machine) -> Result<()> {
    for nic in &machine.nics {
        match nic.network {
            NetworkConfig::User | NetworkConfig::Isolated | NetworkConfig::None => {}
            NetworkConfig::Private { link: Some(_), .. } | NetworkConfig::Tap { .. } => {}
            NetworkConfig::Vnic { .. } | NetworkConfig::Private { .. } => {
                return Err(unsupported(&nic.network));
            }
        }
        if nic.forwards.iter().any(|forward| forward.host_address.is_ipv6()) {
            let what = "a forward from an IPv6 address of the host".to_owned();
            return Err(Error::Unsupported { backend: BackendTag::Qemu, what });
        }
    }
    Ok(())
}

fn check_disk(machine: &Machine) -> Result<()> {
    let least = machine.image.as_ref().map_or(0, |image| image.virtual_size);
    match machine.disk_bytes {
        Some(asked) if asked < least => Err(Error::DiskTooSmall { asked, least, what: "its image" }),
        None if least > MOST_UNASKED => Err(Error::DiskUnasked { size: least }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::manifest::tests::spec;
    use super::super::{AccelChoice, QemuConfig};
    use super::*;
    use crate::spec::Forward;
    use crate::ssh::Keyring;

    fn check(change: impl FnOnce(&mut VmSpec)) -> Result<(), String> {
        let config = QemuConfig {
            vms_dir: "/data/vms".into(),
            images_dir: "/data/images".into(),
            templates_dir: "/data/templates".into(),
            runtime_dir: "/run/vmctl".into(),
            accel: AccelChoice::Tcg,
            take_over: false,
            firmware_dirs: Vec::new(),
            keyring: Keyring::default(),
            bridge_helper: None,
            lease_files: Vec::new(),
        };
        let mut spec = spec(Path::new("/images/base"));
        change(&mut spec);
        QemuBackend::new(config).check_expressible(&spec).map_err(|error| error.to_string())
    }

    #[test]
    fn what_no_host_could_do_is_refused() {
        assert_eq!(check(|_| {}), Ok(()));
        assert_eq!(
            check(|spec| spec.machine.disk_bytes = Some(1 << 30)),
            Err("a disk of 1073741824 bytes is smaller than 3221225472 bytes, the size of its image"
                .to_owned())
        );
        let size = |bytes: u64, disk: Option<u64>| {
            check(|spec| {
                spec.machine.image.as_mut().unwrap().virtual_size = bytes;
                spec.machine.disk_bytes = disk;
            })
        };
        assert_eq!(size(MOST_UNASKED, None), Ok(()));
        assert!(size(MOST_UNASKED + 512, None).unwrap_err().contains("nobody asked for one so large"));
        assert_eq!(size(MOST_UNASKED + 512, Some(MOST_UNASKED + 512)), Ok(()));
        assert_eq!(
            check(|spec| spec.machine.nics[0].network = NetworkConfig::Vnic { name: "net0".to_owned() }),
            Err("a vnic network is not supported by the `qemu` backend".to_owned())
        );
        assert_eq!(
            check(|spec| spec.machine.nics[0]
                .forwards
                .push(Forward { host_address: [0, 0, 0, 0, 0, 0, 0, 1].into(), ..Forward::SSH })),
            Err("a forward from an IPv6 address of the host is not supported by the `qemu` backend"
                .to_owned())
        );
    }
}

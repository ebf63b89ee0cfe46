//! Volumes as QCOW2 files: made, grown at rest or while the machine runs, removed.

use std::ffi::OsString;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::argv::{list, text};
use super::backend::{QEMU_IMG, QemuBackend};
use super::places::{give_up, publish, unfinished};
use super::prepare::QEMU_IMG_DEADLINE;
use super::qmp::Monitor;
use crate::error::{Error, Result};
use crate::failpoints::failpoint;
use crate::name::Name;
use crate::process::helper;
use crate::spec::{BackendTag, Machine, VmHandle, Volume};
use crate::volume::{self, Claim, FoundVolume, VolumeDir, VolumeManifest, claim};

/// Where a QCOW2 file's header says how large the disk is (docs/interop/qcow2.txt of QEMU).
const VIRTUAL_SIZE: u64 = 24;

impl QemuBackend {
    /// Makes the volumes of a machine that does not run, and lets them grow, as far as that is not done.
    pub(super) async fn ensure_volumes(&self, machine: &Machine, project: &Name) -> Result<()> {
        for volume in &machine.volumes {
            let dir = VolumeDir::beside(&self.config().vms_dir, &volume.name);
            let manifest = match claim(&dir, volume, project, BackendTag::Qemu)? {
                Claim::ToMake(manifest) => {
                    make(&dir, volume).await?;
                    manifest
                }
                Claim::There(manifest) => {
                    if virtual_size(&dir.disk())? < volume.size_bytes {
                        grow(&dir, volume.size_bytes).await?;
                        failpoint!("update.qemu.volume-grown", dir.path());
                    }
                    manifest
                }
            };
            manifest.finish(&dir, volume)?;
        }
        Ok(())
    }

    /// Lets the volumes of a running machine grow to what `wanted` says; they are those that it has.
    pub(super) async fn grow_live(
        &self,
        monitor: &mut Monitor,
        now: &Machine,
        wanted: &Machine,
        project: &Name,
    ) -> Result<()> {
        for (index, (before, volume)) in now.volumes.iter().zip(&wanted.volumes).enumerate() {
            if before == volume {
                continue;
            }
            let dir = VolumeDir::beside(&self.config().vms_dir, &volume.name);
            let Claim::There(manifest) = claim(&dir, volume, project, BackendTag::Qemu)? else {
                return Err(Error::VolumeGone { name: volume.name.clone(), path: dir.disk() });
            };
            if before.size_bytes != volume.size_bytes {
                monitor.resize(node(index), volume.size_bytes).await?;
                failpoint!("update.qemu.volume-grown-live", dir.path());
            }
            VolumeManifest::finish(manifest, &dir, volume)?;
        }
        Ok(())
    }

    /// See [`crate::Volumes::volumes`].
    pub(super) fn find_volumes(&self, project: &Name) -> Result<Vec<FoundVolume>> {
        volume::list(&self.config().vms_dir, project, BackendTag::Qemu)
    }

    /// See [`crate::Volumes::remove_volume`].
    pub(super) async fn give_volume_up(&self, volume: &FoundVolume) -> Result<()> {
        let disk = VolumeDir::beside(&self.config().vms_dir, &volume.name).disk();
        if disk.exists() {
            check_unused(&volume.name, &disk).await?;
        }
        volume::remove(&self.config().vms_dir, volume)
    }
}

/// The volume that QEMU could not lock, by its messages; another process has it then.
pub(super) fn locked(vm: &VmHandle, messages: &str) -> Option<(Name, PathBuf)> {
    let disks = vm.machine.volumes.iter().map(|volume| {
        let disk = VolumeDir::of_machine(&vm.work_dir, &volume.name).disk();
        (volume.name.clone(), disk)
    });
    let is_named = |path: &Path| messages.contains(&format!("[{}]", path.display()));
    disks.into_iter().find(|(_, disk)| messages.contains("lock") && is_named(disk))
}

/// The name that QEMU knows volume number `index` by, from 0.
pub(super) fn node(index: usize) -> String {
    format!("volume{index}")
}

async fn make(dir: &VolumeDir, volume: &Volume) -> Result<()> {
    let disk = dir.disk();
    let mut args: Vec<OsString> = ["create", "-q", "-f", "qcow2"].map(Into::into).into();
    args.extend([unfinished(&disk).into(), volume.size_bytes.to_string().into()]);
    let made = helper(&QEMU_IMG, &args, QEMU_IMG_DEADLINE).await;
    made.inspect_err(|_| give_up(&unfinished(&disk)))?;
    failpoint!("prepare.qemu.volume-made", dir.path());
    publish(&disk).inspect_err(|_| give_up(&unfinished(&disk)))?;
    failpoint!("prepare.qemu.volume-renamed", dir.path());
    Ok(())
}

async fn grow(dir: &VolumeDir, bytes: u64) -> Result<()> {
    let disk = image_opts(&dir.disk())?;
    let args: [OsString; 5] =
        ["resize".into(), "-q".into(), "--image-opts".into(), disk.into(), bytes.to_string().into()];
    helper(&QEMU_IMG, &args, QEMU_IMG_DEADLINE).await.map(drop)
}

/// QEMU locks the disks that it writes to: who looks at one without `-U` is told.
async fn check_unused(name: &Name, path: &Path) -> Result<()> {
    let disk = image_opts(path)?;
    let args: [OsString; 3] = ["info".into(), "--image-opts".into(), disk.into()];
    match helper(&QEMU_IMG, &args, QEMU_IMG_DEADLINE).await {
        Err(Error::Command(error)) if error.stderr.contains("lock") => {
            Err(Error::VolumeInUse { name: name.clone(), path: path.to_owned() })
        }
        // A disk that cannot be read can be removed.
        _ => Ok(()),
    }
}

fn image_opts(path: &Path) -> Result<String> {
    Ok(list(&[("driver", "qcow2"), ("file.driver", "file"), ("file.filename", text(path)?)]))
}

/// How large the disk in a QCOW2 file is, in bytes.
fn virtual_size(path: &Path) -> Result<u64> {
    let mut bytes = [0; 8];
    std::fs::File::open(path)
        .and_then(|file| file.read_exact_at(&mut bytes, VIRTUAL_SIZE))
        .map_err(Error::io("read", path))?;
    Ok(u64::from_be_bytes(bytes))
}

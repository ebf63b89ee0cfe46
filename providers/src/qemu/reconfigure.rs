//! Bringing an existing machine to another spec on the same disk.

use std::ffi::OsString;

use super::argv::{list, text};
use super::backend::{QEMU_IMG, QemuBackend};
use super::forwards;
use super::manifest::Manifest;
use super::places::remove_file;
use super::prepare::{QEMU_IMG_DEADLINE, ensure_disk, ensure_seed};
use super::warm;
use crate::error::{Error, Result};
use crate::failpoints::failpoint;
use crate::process::{Process, helper};
use crate::seed;
use crate::spec::{BackendTag, DiskImage, Machine, VmHandle, VmSpec, VmState};
use crate::workdir::WorkDir;

impl QemuBackend {
    /// See [`crate::Reconfigure::reconfigure`].
    pub(super) async fn take_over(&self, vm: &VmHandle, spec: &VmSpec) -> Result<VmHandle> {
        self.check_expressible(spec)?;
        let work = WorkDir::new(&vm.work_dir);
        let manifest = Manifest::of_made(&work, vm.id, "reconfigure")?;
        let digest = |machine: &Machine| machine.image.as_ref().map(|image| image.digest.clone());
        if digest(&manifest.machine) != digest(&spec.machine) {
            let what = "changing the image of an existing machine".to_owned();
            return Err(Error::Unsupported { backend: BackendTag::Qemu, what });
        }
        // The overlay stays on the file that it was made on, wherever else there are copies of it.
        let mut wanted = Machine { image: manifest.machine.image.clone(), ..spec.machine.clone() };
        warm::keep_addresses(&manifest, &mut wanted);
        let live = self.live_state(vm.id).await?;
        if let Some((_, state)) = &live
            && manifest.machine.fixed_while_it_runs() != wanted.fixed_while_it_runs()
        {
            return Err(Error::InvalidState { action: "reconfigure", state: *state });
        }
        if manifest.seed
            && let Some(config) = &spec.cloud_init
        {
            if live.is_none() && !seed::same_network(&manifest.machine.nics, &wanted.nics)? {
                remove_file(&work.seed())?;
            }
            ensure_seed(&work, &manifest, &wanted, config).await?;
        }
        if live.is_none()
            && let Some(bytes) = disk_growth(&manifest.machine, &wanted)?
        {
            if work.overlay().exists() {
                grow(&work, vm.machine.image.as_ref(), bytes).await?;
            }
            ensure_disk(&work, &wanted).await?;
            failpoint!("update.qemu.grown", work.overlay());
        }
        if live.is_none() {
            self.ensure_volumes(&wanted, &spec.project).await?;
        }
        if manifest.ssh != spec.ssh {
            self.sessions.forget(vm.id);
        }
        let mut changed = manifest.clone();
        changed.name = spec.name.clone();
        if live.is_none() {
            changed.uefi = self.ensure_uefi(&work, &wanted, manifest.uefi.as_ref()).await?;
        }
        changed.machine = wanted;
        changed.ssh = spec.ssh.clone();
        let tells = live.as_ref().is_some_and(|(_, state)| *state == VmState::Running);
        let handle = match live {
            Some((process, _)) => self.take_over_live(vm, &process, &work, (&manifest, &changed)).await?,
            None => VmHandle {
                forced_stop: vm.forced_stop.clone(),
                ..changed.handle(&work, changed.state_at_rest(), None)
            },
        };
        failpoint!("update.qemu.brought", work.path());
        if changed != manifest {
            changed.store(&work)?;
        }
        // A guest that is paused learns it when it goes on, one that is off when it is waited for.
        if tells {
            self.tell_names(&handle).await?;
        }
        Ok(handle)
    }

    /// Brings forwards and volumes of a running machine from one manifest to the other; all else is as it was.
    async fn take_over_live(
        &self,
        vm: &VmHandle,
        process: &Process,
        work: &WorkDir,
        (now, changed): (&Manifest, &Manifest),
    ) -> Result<VmHandle> {
        let mut monitor = self.monitor(vm.id, process).await?;
        self.grow_live(&mut monitor, &now.machine, &changed.machine, &changed.project).await?;
        forwards::bring(&mut monitor, &changed.machine, process.pid()).await?;
        self.put_back(&changed.machine, process).await?;
        let handle = changed.handle(work, vm.state, vm.runtime.clone());
        self.handle_of_live(&handle, process, &mut monitor).await
    }
}

/// The size to which the disk must grow, if it must. It never shrinks: that needs another machine.
fn disk_growth(now: &Machine, wanted: &Machine) -> Result<Option<u64>> {
    let (least, asked) = (now.disk_size().unwrap_or(0), wanted.disk_size().unwrap_or(0));
    if asked < least {
        return Err(Error::DiskTooSmall { asked, least, what: "the existing disk" });
    }
    Ok((asked > least).then_some(asked))
}

/// The image below is stated where it is now: the overlay's header names where it was when the overlay was made.
async fn grow(work: &WorkDir, image: Option<&DiskImage>, bytes: u64) -> Result<()> {
    let overlay = work.overlay();
    let mut disk = vec![("driver", "qcow2"), ("file.driver", "file"), ("file.filename", text(&overlay)?)];
    if let Some(image) = image {
        disk.extend([
            ("backing.driver", image.format.as_str()),
            ("backing.file.driver", "file"),
            ("backing.file.filename", text(&image.path)?),
        ]);
    }
    let disk = list(&disk);
    let args: [OsString; 5] =
        ["resize".into(), "-q".into(), "--image-opts".into(), disk.into(), bytes.to_string().into()];
    helper(&QEMU_IMG, &args, QEMU_IMG_DEADLINE).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::manifest::tests::spec;
    use super::*;

    #[test]
    fn disk_grows_stays_or_is_refused() {
        let now = spec(Path::new("/image")).machine;
        let with = |disk_bytes| Machine { disk_bytes, ..now.clone() };
        assert_eq!(disk_growth(&now, &with(Some(4 << 30))).unwrap(), Some(4 << 30));
        assert_eq!(disk_growth(&now, &with(None)).unwrap(), None);
        let error = disk_growth(&with(Some(4 << 30)), &now).unwrap_err().to_string();
        assert!(
            error.ends_with("is smaller than 4294967296 bytes, the size of the existing disk"),
            "{error}"
        );
    }
}

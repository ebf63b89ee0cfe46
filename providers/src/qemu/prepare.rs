//! Making a machine: its folder, its disk, its keys and seed.
//!
//! The manifest comes first and durably, so that whatever a crash leaves behind has an owner. Every other file
//! appears whole under its final name, so that what exists is finished and the next attempt goes on behind it.

use std::ffi::OsString;
use std::io;
use std::time::Duration;

use super::backend::{QEMU_IMG, QemuBackend};
use super::manifest::{BaseFile, Manifest, Owner};
use super::places::{
    create_private_dir, publish, remove_file, require_private, sync_dir, unfinished, write_private,
};
use crate::error::{Error, Result};
use crate::process::helper;
use crate::spec::{CloudInitConfig, DiskImage, InstanceId, VmHandle, VmSpec, VmState};
use crate::ssh::SshTarget;
use crate::workdir::WorkDir;
use crate::{keys, seed};

/// How long qemu-img may take. It writes a few hundred kilobytes; a slow network disk may be slow.
pub(super) const QEMU_IMG_DEADLINE: Duration = Duration::from_secs(120);

impl QemuBackend {
    /// See [`crate::Hypervisor::prepare`].
    pub(super) async fn make(&self, spec: &VmSpec) -> Result<VmHandle> {
        self.check_expressible(spec)?;
        let work = self.work_dir(&spec.name);
        let mut manifest = claim(&work, spec)?;
        if !work.overlay().exists() {
            create_overlay(&work, &manifest.machine.image, manifest.machine.disk_bytes).await?;
        }
        if let Some(config) = &spec.cloud_init
            && !work.seed().exists()
        {
            let (work, id, config) = (work.clone(), spec.id, config.clone());
            // Syncing files may take as long as the disk likes; other machines' steps go on meanwhile.
            let written = tokio::task::spawn_blocking(move || write_seed(&work, id, &config)).await;
            written.map_err(|error| {
                Error::io("write the seed in", self.work_dir(&spec.name).path())(io::Error::other(error))
            })??;
        }
        if !manifest.prepared {
            manifest.prepared = true;
            sync_dir(work.path())?;
            manifest.store(&work)?;
        }
        let state = if self.find(spec.id)?.is_some() { VmState::Running } else { manifest.state_at_rest() };
        Ok(manifest.handle(&work, state, None))
    }
}

/// Takes the folder for this instance, or finds that it has it already.
fn claim(work: &WorkDir, spec: &VmSpec) -> Result<Manifest> {
    match Manifest::owner(work, spec.id)? {
        Owner::Ours(manifest) if manifest.prepared || manifest.machine == spec.machine => Ok(*manifest),
        Owner::Other(found) => Err(Error::Foreign { path: work.path().to_owned(), found }),
        // An attempt that was given up, with other hardware: nobody ever used its disk.
        Owner::Ours(_) => {
            remove_file(&work.overlay())?;
            found(work, spec)
        }
        Owner::Missing | Owner::Vacant => found(work, spec),
    }
}

fn found(work: &WorkDir, spec: &VmSpec) -> Result<Manifest> {
    let manifest = Manifest::new(spec, BaseFile::of(&spec.machine.image.path)?);
    create_private_dir(work.path())?;
    require_private(work.path())?;
    manifest.store(work)?;
    if let Some(parent) = work.path().parent() {
        sync_dir(parent)?;
    }
    Ok(manifest)
}

async fn create_overlay(work: &WorkDir, image: &DiskImage, size: Option<u64>) -> Result<()> {
    let mut args: Vec<OsString> = ["create", "-q", "-f", "qcow2", "-F", image.format.as_str(), "-b"]
        .into_iter()
        .map(Into::into)
        .collect();
    args.push(image.path.clone().into());
    args.push(unfinished(&work.overlay()).into());
    args.extend(size.map(|bytes| bytes.to_string().into()));
    helper(&QEMU_IMG, &args, QEMU_IMG_DEADLINE).await?;
    publish(&work.overlay())
}

/// Generates the machine's keys and writes them and the seed, the seed last: where it is, all of them are.
fn write_seed(work: &WorkDir, id: InstanceId, config: &CloudInitConfig) -> Result<()> {
    // The name by which ssh knows this guest, whatever its address and port.
    let alias = format!("vmctl-{}", id.short());
    let (user, host) = (keys::generate(&alias), keys::generate(&alias));
    let volume = seed::volume(id, config, &user, &host)?;
    write_private(&work.user_key(), user.private.expose().as_bytes())?;
    // The user's own user-data does not carry our host key: the guest makes one, learned at first contact.
    if config.user_data.is_none() {
        write_private(&work.host_key(), host.private.expose().as_bytes())?;
        let pinned = SshTarget::known_hosts_line(&alias, &host.public);
        write_private(&work.known_hosts(), pinned.as_bytes())?;
    }
    write_private(&work.seed(), &volume)
}

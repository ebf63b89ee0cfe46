//! Making a machine: its folder, its disk, its keys and seed.
//!
//! The manifest comes first and durably, so that whatever a crash leaves behind has an owner. Every other file
//! appears whole under its final name, so that what exists is finished and the next attempt goes on behind it.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::backend::QemuBackend;
use super::capacity::FOLDER;
use super::firmware;
use super::manifest::{BaseFile, Manifest, Owner};
use super::overlay;
use super::places::{
    create_private_dir, give_up, publish, remove_file, require_private, sync_dir, unfinished, write_private,
};
use super::warm;
use crate::capacity::tell_full;
use crate::error::{Error, Result};
use crate::failpoints::failpoint;
use crate::keys::{self, KeyPair};
use crate::seed;
use crate::spec::{
    BackendTag, CloudInitConfig, InstanceId, Machine, Nic, Uefi, VmHandle, VmSpec, VmState, Warm,
};
use crate::ssh::{SshError, SshTarget};
use crate::template::Template;
use crate::workdir::WorkDir;

/// How long qemu-img may take. It writes a few hundred kilobytes; a slow network disk may be slow.
pub(super) const QEMU_IMG_DEADLINE: Duration = Duration::from_secs(120);

impl QemuBackend {
    /// See [`crate::Hypervisor::prepare`].
    pub(super) async fn make(&self, spec: &VmSpec) -> Result<VmHandle> {
        let made = self.make_all(spec).await;
        made.map_err(|error| tell_full(error, &self.config().vms_dir, FOLDER))
    }

    async fn make_all(&self, spec: &VmSpec) -> Result<VmHandle> {
        self.check_expressible(spec)?;
        let work = self.place(spec)?;
        let template = self.template_of(spec).await?;
        let spec = &*warm::with_addresses(spec, template.as_deref());
        // Whether it runs, or did: then its disk is used, and stays as it is.
        let runs = self.find(spec.id)?.is_some();
        let mut manifest = claim(&work, spec, runs, template.as_deref())?;
        failpoint!("prepare.qemu.claimed", work.path());
        if let Some(image) = &mut manifest.machine.image {
            image.path = self.image_here(&image.path);
        }
        match &template {
            Some(template) if !(runs || manifest.started) => self.ensure_cloned(&work, template).await?,
            _ => ensure_disk(&work, &manifest.machine).await?,
        }
        self.ensure_volumes(&manifest.machine, &spec.project).await?;
        if !(runs || manifest.started) {
            // What stands there may be of an attempt for another content.
            remove_file(&work.seed())?;
        }
        if let Some(config) = &spec.cloud_init {
            ensure_seed(&work, &manifest, &manifest.machine, config).await?;
        }
        let uefi = self.ensure_uefi(&work, &manifest.machine, manifest.uefi.as_ref()).await?;
        let is_new = manifest.uefi != uefi;
        manifest.uefi = uefi;
        if !manifest.prepared {
            manifest.prepared = true;
            sync_dir(work.path())?;
            failpoint!("prepare.qemu.synced", work.path());
            manifest.store(&work)?;
            failpoint!("prepare.qemu.prepared", work.path());
        } else if is_new {
            manifest.store(&work)?;
        }
        let state = if runs { VmState::Running } else { manifest.state_at_rest() };
        Ok(manifest.handle(&work, state, None))
    }
}

impl QemuBackend {
    /// See [`firmware::ensure_variables`].
    pub(super) async fn ensure_uefi(
        &self,
        work: &WorkDir,
        machine: &Machine,
        known: Option<&Uefi>,
    ) -> Result<Option<Uefi>> {
        firmware::ensure_variables(work, machine, known, &self.config().firmware_dirs).await
    }
}

/// Takes the folder for this instance, or finds that it has it already.
fn claim(work: &WorkDir, spec: &VmSpec, runs: bool, template: Option<&Template>) -> Result<Manifest> {
    let warm = warm::founded(spec, template);
    match Manifest::owner(work, spec.id)? {
        Owner::Ours(manifest)
            if runs || manifest.started || manifest.machine == spec.machine && manifest.warm == warm =>
        {
            Ok(*manifest)
        }
        Owner::Other(found) => Err(Error::Foreign { path: work.path().to_owned(), found }),
        // An attempt for other hardware, of which nobody knows that it ended: nobody ever used its disk.
        Owner::Ours(_) => {
            remove_file(&work.overlay())?;
            remove_file(&work.variables())?;
            found(work, spec, warm)
        }
        Owner::Missing | Owner::Vacant => found(work, spec, warm),
    }
}

fn found(work: &WorkDir, spec: &VmSpec, warm: Option<Box<Warm>>) -> Result<Manifest> {
    let base = spec.machine.image.as_ref().map(|image| BaseFile::of(&image.path)).transpose()?;
    let mut manifest = Manifest::new(spec, base);
    manifest.warm = warm;
    create_private_dir(work.path())?;
    failpoint!("prepare.qemu.folder-made", work.path());
    require_private(work.path())?;
    manifest.store(work)?;
    if let Some(parent) = work.path().parent() {
        sync_dir(parent)?;
    }
    Ok(manifest)
}

/// Makes the root disk where it is missing: on the image, or an empty one, as the machine says; or none.
pub(super) async fn ensure_disk(work: &WorkDir, machine: &Machine) -> Result<()> {
    let Some(size) = machine.disk_size().filter(|_| !work.overlay().exists()) else { return Ok(()) };
    let (path, image) = (work.overlay(), machine.image.clone());
    let place = path.clone();
    let made = tokio::task::spawn_blocking(move || {
        let base = image.as_ref().map(|image| (&*image.path, image.format));
        let made = overlay::write(&unfinished(&path), size, base).and_then(|()| {
            failpoint!("prepare.qemu.overlay-made", &path);
            publish(&path)
        });
        made.inspect_err(|_| give_up(&unfinished(&path)))
    });
    made.await.map_err(|error| Error::io("write", &place)(io::Error::other(error)))??;
    failpoint!("prepare.qemu.overlay-renamed", &place);
    Ok(())
}

/// Makes the seed if it is not there, with the keys that the machine has; what is missing of them is made anew.
/// `machine` is what it is to be, which is not always what the manifest says yet.
pub(crate) async fn ensure_seed(
    work: &WorkDir,
    manifest: &Manifest,
    machine: &Machine,
    config: &CloudInitConfig,
) -> Result<()> {
    if work.seed().exists() {
        return Ok(());
    }
    let path = work.path().to_owned();
    let (work, guest, config) = (work.clone(), Guest::of(manifest), config.clone());
    let nics = machine.nics.clone();
    // Syncing files may take as long as the disk likes; other machines' steps go on meanwhile.
    let written = tokio::task::spawn_blocking(move || write_seed(&work, guest, &config, &nics)).await;
    written.map_err(|error| Error::io("write the seed in", path)(io::Error::other(error)))?
}

/// What the seed of a guest depends on besides what it says.
#[derive(Debug, Clone, Copy)]
struct Guest {
    id: InstanceId,
    /// It never ran.
    fresh: bool,
    /// The seed is sent to a server in a request, which has little room.
    small: bool,
}

impl Guest {
    fn of(manifest: &Manifest) -> Self {
        let small = manifest.backend == BackendTag::Propolis;
        Self { id: manifest.id, fresh: !manifest.started, small }
    }
}

/// Writes the keys and the seed, the seed last: where it is, all of them are.
fn write_seed(
    work: &WorkDir,
    Guest { id, fresh, small }: Guest,
    config: &CloudInitConfig,
    nics: &[Nic],
) -> Result<()> {
    // The name by which ssh knows this guest, whatever its address and port.
    let alias = format!("vmctl-{}", id.short());
    let user = ensure_key(&work.user_key(), &alias)?;
    let host = ensure_key(&work.host_key(), &alias)?;
    // The user's own user-data may give the guest another host key: that one is learned at first contact. A guest
    // that ran has its host key already, and what is known of it stands.
    if fresh && (config.user_data.is_none() || config.more.merges) {
        let pinned = SshTarget::known_hosts_line(&alias, &host.public);
        write_private(&work.known_hosts(), pinned.as_bytes())?;
    }
    failpoint!("prepare.qemu.keys-written", work.path());
    let volume = if small { seed::small_volume } else { seed::volume };
    write_private(&work.seed(), &volume(id, config, nics, &user, &host)?)?;
    failpoint!("prepare.qemu.seed-written", work.seed());
    Ok(())
}

/// The key in a file, which is made if it is missing.
fn ensure_key(path: &Path, comment: &str) -> Result<KeyPair> {
    if path.exists() {
        return Ok(keys::load_pair(path).map_err(SshError::from)?);
    }
    let pair = keys::generate(comment);
    write_private(path, pair.private.expose().as_bytes())?;
    Ok(pair)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Secret, SeedContent};

    const FRESH: Guest = Guest { id: InstanceId(uuid::Uuid::from_u128(7)), fresh: true, small: false };

    fn config(user_data: Option<&str>) -> CloudInitConfig {
        CloudInitConfig {
            hostname: "web".to_owned(),
            user: "vm".to_owned(),
            authorized_keys: Vec::new(),
            user_data: user_data.map(Secret::new),
            more: SeedContent::default(),
        }
    }

    #[test]
    fn seed_made_again_is_the_same_to_the_byte() {
        for user_data in [None, Some("#!/bin/sh\n")] {
            let folder = tempfile::tempdir().unwrap();
            let work = WorkDir::new(folder.path());
            write_seed(&work, FRESH, &config(user_data), &[]).unwrap();
            assert_eq!(work.known_hosts().exists(), user_data.is_none());
            let first = std::fs::read(work.seed()).unwrap();
            std::fs::remove_file(work.seed()).unwrap();
            write_seed(&work, Guest { fresh: false, ..FRESH }, &config(user_data), &[]).unwrap();
            assert!(std::fs::read(work.seed()).unwrap() == first);
        }
    }

    #[test]
    fn only_missing_keys_are_made_anew_and_a_known_guest_stays_known() {
        let folder = tempfile::tempdir().unwrap();
        let work = WorkDir::new(folder.path());
        let read = |path: &Path| std::fs::read(path).unwrap();
        write_seed(&work, FRESH, &config(None), &[]).unwrap();
        let (user, host, known) = (read(&work.user_key()), read(&work.host_key()), read(&work.known_hosts()));
        std::fs::remove_file(work.host_key()).unwrap();
        write_seed(&work, Guest { fresh: false, ..FRESH }, &config(None), &[]).unwrap();
        assert_eq!((read(&work.user_key()), read(&work.known_hosts())), (user, known));
        assert_ne!(read(&work.host_key()), host);

        std::fs::write(work.user_key(), "torn").unwrap();
        let error =
            write_seed(&work, Guest { fresh: false, ..FRESH }, &config(None), &[]).unwrap_err().to_string();
        assert!(error.contains("id_ed25519` is no private key"), "{error}");
    }
}

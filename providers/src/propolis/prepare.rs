//! What can be said about a spec beforehand, and making and changing a machine: its folder, disk, vnics, keys and seed.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::backend::{DISK, PROPOLIS_SERVER, PropolisBackend, unsupported};
use super::capacity::FOLDER;
use super::host::{commands, vnics};
use super::instance::{MOST_NICS, MOST_VCPUS};
use super::raw;
use super::server::{self, Places};
use crate::capacity::tell_full;
use crate::error::{Error, Result};
use crate::failpoints::failpoint;
use crate::qemu::QEMU_IMG;
use crate::qemu::manifest::{Manifest, Owner};
use crate::qemu::places::{create_private_dir, remove_file, require_private, sync_dir, unfinished};
use crate::qemu::prepare::ensure_seed;
use crate::seed;
use crate::spec::{
    AccelChoice, Arch, ImageFormat, InstanceId, MOST_UNASKED, Machine, NetworkConfig, PropolisOptions,
    VmHandle, VmSpec, VmState,
};
use crate::workdir::WorkDir;

/// The largest firmware that a server takes, in bytes.
const MOST_BOOTROM: u64 = 2 << 20;

/// Firmware consists of whole pages.
const PAGE: u64 = 4096;

/// The longest name of a link on illumos.
const LONGEST_LINK: usize = 31;

/// How long another vmctl may take to write an image to a volume.
const IMAGE_PATIENCE: Duration = Duration::from_secs(1800);

/// Pause between two looks at whether it is done.
const AGAIN: Duration = Duration::from_millis(200);

impl PropolisBackend {
    /// See [`crate::Preflight::preflight`].
    pub(super) async fn check_feasible(&self, spec: &VmSpec) -> Result<()> {
        check_expressible(spec)?;
        let options = &spec.machine.hardware.propolis;
        if let Some(zone) = self.zone(spec.id, &spec.machine) {
            // What is in the zone is not seen from here.
            self.host.check(&commands::list_zones())?;
            self.host.check(&commands::show_vnics())?;
            zone.check().await?;
        } else if options.server.is_none() {
            program(options)?;
            check_bootrom(&bootrom(options)?)?;
        }
        if spec.machine.image.as_ref().is_some_and(|image| image.format == ImageFormat::Qcow2) {
            QEMU_IMG.locate()?;
        }
        if let Some(pool) = &options.pool {
            self.host.check(&commands::list_volumes(pool))?;
        }
        if spec.machine.is_on_a_vnic() {
            self.host.check(&commands::show_vnics())?;
        }
        Ok(())
    }

    /// See [`crate::Hypervisor::prepare`].
    pub(super) async fn make(&self, spec: &VmSpec) -> Result<VmHandle> {
        let made = Box::pin(self.make_all(spec)).await;
        made.map_err(|error| tell_full(error, &self.config.vms_dir, FOLDER))
    }

    async fn make_all(&self, spec: &VmSpec) -> Result<VmHandle> {
        check_expressible(spec)?;
        let work = self.place(spec)?;
        let runs = server::find(&Places::of(&work))?.is_some();
        let mut manifest = claim(&work, spec, runs)?;
        failpoint!("prepare.propolis.claimed", work.path());
        self.ensure_parts(&manifest, &manifest.machine, &work).await?;
        if !(runs || manifest.started) {
            // What stands there may be of an attempt for another content.
            remove_file(&work.seed())?;
        }
        if let Some(config) = &spec.cloud_init {
            ensure_seed(&work, &manifest, &manifest.machine, config).await?;
        }
        if !manifest.prepared {
            manifest.prepared = true;
            sync_dir(work.path())?;
            manifest.store(&work)?;
            failpoint!("prepare.propolis.prepared", work.path());
        }
        let state = if runs { VmState::Running } else { manifest.state_at_rest() };
        Ok(manifest.handle(&work, state, None))
    }

    /// Makes what `machine` stands on, as far as it is missing: its vnics, its disk and its zone.
    pub(super) async fn ensure_parts(
        &self,
        manifest: &Manifest,
        machine: &Machine,
        work: &WorkDir,
    ) -> Result<()> {
        let link = machine.hardware.propolis.vnic_link.as_deref();
        vnics::ensure(&*self.host, &vnics::wanted(machine), link).await?;
        failpoint!("prepare.propolis.vnics-made", work.path());
        if let Some(bytes) = machine.disk_size() {
            self.ensure_disk(manifest.id, machine, bytes, work).await?;
        }
        self.ensure_zone(manifest.id, machine).await
    }

    async fn ensure_disk(&self, id: InstanceId, machine: &Machine, bytes: u64, work: &WorkDir) -> Result<()> {
        let mut image = machine.image.clone();
        if let Some(image) = &mut image {
            image.path = self.image_here(&image.path);
        }
        let disk = work.path().join(DISK);
        match self.disks(machine) {
            None => raw::ensure_file(&disk, image.as_ref(), bytes).await,
            Some(disks) => {
                let _turn = self.images.lock().await;
                let _lock = self.lock_images().await?;
                disks.ensure(id, image.as_ref(), bytes, &unfinished(&disk)).await
            }
        }
    }

    /// Keeps other processes from the images on volumes: a half-written one is not told from one that is being written.
    async fn lock_images(&self) -> Result<std::fs::File> {
        let path = self.config.images_dir.join("propolis.lock");
        create_private_dir(&self.config.images_dir)?;
        let file = std::fs::File::create(&path).map_err(Error::io("create", &path))?;
        let deadline = Instant::now() + IMAGE_PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(std::fs::TryLockError::Error(error)) => return Err(Error::io("lock", path)(error)),
                Err(std::fs::TryLockError::WouldBlock) if Instant::now() < deadline => sleep(AGAIN).await,
                Err(std::fs::TryLockError::WouldBlock) => {
                    let what = format!("the end of another vmctl's work on `{}`", path.display());
                    return Err(Error::Timeout { what, after: IMAGE_PATIENCE });
                }
            }
        }
    }

    /// See [`crate::Reconfigure::reconfigure`].
    pub(super) async fn take_over(&self, vm: &VmHandle, spec: &VmSpec) -> Result<VmHandle> {
        check_expressible(spec)?;
        let work = WorkDir::new(&vm.work_dir);
        let manifest = Manifest::of_made(&work, vm.id, "reconfigure")?;
        let digest = |machine: &Machine| machine.image.as_ref().map(|image| image.digest.clone());
        if digest(&manifest.machine) != digest(&spec.machine) {
            return Err(unsupported("changing the image of an existing machine"));
        }
        let (then, now) = (&manifest.machine.hardware.propolis, &spec.machine.hardware.propolis);
        if then.pool != now.pool {
            return Err(unsupported("moving the disk of an existing machine to another pool"));
        }
        let (least, asked) =
            (manifest.machine.disk_size().unwrap_or(0), spec.machine.disk_size().unwrap_or(0));
        if asked < least {
            return Err(Error::DiskTooSmall { asked, least, what: "the existing disk" });
        }
        let wanted = Machine { image: manifest.machine.image.clone(), ..spec.machine.clone() };
        let state = self.observe_state(vm).await?;
        let is_live = matches!(state, VmState::Running | VmState::Failed);
        if is_live && manifest.machine.fixed_while_it_runs() != wanted.fixed_while_it_runs() {
            return Err(Error::InvalidState { action: "reconfigure", state });
        }
        if !is_live {
            self.part_with_server(vm, &wanted, &work).await?;
            self.part_with_zone(vm.id, &manifest.machine, &wanted).await?;
            self.part_with_vnics(&manifest.machine, &wanted).await?;
            failpoint!("update.propolis.parted", work.path());
            self.ensure_parts(&manifest, &wanted, &work).await?;
        }
        if let (true, Some(config)) = (manifest.seed, &spec.cloud_init) {
            if !is_live && !seed::same_network(&manifest.machine.nics, &wanted.nics)? {
                remove_file(&work.seed())?;
            }
            ensure_seed(&work, &manifest, &wanted, config).await?;
        }
        if manifest.ssh != spec.ssh {
            self.sessions.forget(vm.id);
        }
        failpoint!("update.propolis.brought", work.path());
        let mut changed = manifest.clone();
        (changed.name, changed.machine, changed.ssh) = (spec.name.clone(), wanted, spec.ssh.clone());
        if changed != manifest {
            changed.store(&work)?;
        }
        let handle = changed.handle(&work, state, vm.runtime.clone().filter(|_| is_live));
        Ok(VmHandle { forced_stop: vm.forced_stop.clone(), ..handle })
    }

    /// Ends the process of a machine's own server, whose VM is at rest, if the machine is to have one elsewhere: nobody
    /// would look for it any more.
    async fn part_with_server(&self, vm: &VmHandle, now: &Machine, work: &WorkDir) -> Result<()> {
        let options = &now.hardware.propolis;
        if options.server.is_none() && options.zone.is_none() {
            return Ok(());
        }
        let places = Places::of(work);
        let Some((process, _)) = server::find(&places)? else { return Ok(()) };
        server::end(&process, &places).await?;
        self.clear_kernel(vm).await?;
        places.forget()
    }

    /// Removes the vnics that were made for a machine and that it does not have any more.
    async fn part_with_vnics(&self, then: &Machine, now: &Machine) -> Result<()> {
        let (link_then, link_now) = (&then.hardware.propolis.vnic_link, &now.hardware.propolis.vnic_link);
        let kept = vnics::wanted(now);
        let is_kept = |vnic: &vnics::Wanted<'_>| link_then == link_now && kept.contains(vnic);
        let unwanted: Vec<_> = vnics::wanted(then).into_iter().filter(|vnic| !is_kept(vnic)).collect();
        vnics::remove(&*self.host, &unwanted, link_then.as_deref()).await
    }
}

/// Takes the folder for this instance, or finds that it has it already.
fn claim(work: &WorkDir, spec: &VmSpec, runs: bool) -> Result<Manifest> {
    match Manifest::owner(work, spec.id)? {
        Owner::Ours(manifest) if runs || manifest.started || manifest.machine == spec.machine => {
            return Ok(*manifest);
        }
        Owner::Other(found) => return Err(Error::Foreign { path: work.path().to_owned(), found }),
        // An attempt for other hardware, of which nobody knows that it ended: nobody ever used its disk.
        Owner::Ours(_) => remove_file(&work.path().join(DISK))?,
        Owner::Missing | Owner::Vacant => {}
    }
    let manifest = Manifest::new(spec, None);
    create_private_dir(work.path())?;
    require_private(work.path())?;
    manifest.store(work)?;
    work.path().parent().map_or(Ok(()), sync_dir)?;
    Ok(manifest)
}

/// The program that is started as a machine's server.
pub(super) fn program(options: &PropolisOptions) -> Result<PathBuf> {
    let Some(path) = &options.binary else {
        return PROPOLIS_SERVER.locate().map_err(|_| Error::BackendUnavailable {
            backend: crate::spec::BackendTag::Propolis,
            reason: "`propolis-server` is not in PATH; `binary` in the `backend` block names one elsewhere, `server` one \
                     that runs already"
                .to_owned(),
        });
    };
    match rustix::fs::access(path, rustix::fs::Access::EXEC_OK) {
        Ok(()) if path.is_file() => Ok(path.clone()),
        Ok(()) => Err(Error::Unusable { path: path.clone(), reason: "it is no program".to_owned() }),
        Err(error) => Err(Error::io("run", path)(error.into())),
    }
}

/// The firmware of a server that is started.
pub(super) fn bootrom(options: &PropolisOptions) -> Result<PathBuf> {
    options.bootrom.clone().ok_or_else(|| Error::Unusable {
        path: PROPOLIS_SERVER.name.into(),
        reason: "it boots guests with a UEFI image, which `bootrom` in the `backend` block names".to_owned(),
    })
}

pub(super) fn check_bootrom(path: &std::path::Path) -> Result<()> {
    let found = std::fs::metadata(path).map_err(Error::io("read", path))?;
    let refuse = |reason: &str| Err(Error::Unusable { path: path.to_owned(), reason: reason.to_owned() });
    match found.len() {
        _ if !found.is_file() => refuse("it is no file"),
        0 => refuse("it is empty"),
        length if length > MOST_BOOTROM => refuse("firmware has at most 2 MiB"),
        length if length % PAGE != 0 => refuse("firmware consists of whole pages of 4 KiB"),
        _ => Ok(()),
    }
}

/// What no server could do.
pub(super) fn check_expressible(spec: &VmSpec) -> Result<()> {
    let machine = &spec.machine;
    let hardware = &machine.hardware;
    let refused = [
        (hardware.guest_arch() != Arch::X86_64, "a machine of another processor than x86_64"),
        (hardware.kernel.is_some(), "booting a `kernel` directly"),
        (hardware.machine.is_some(), "a `machine` type"),
        (hardware.cpu.is_some(), "a `cpu` model"),
        (hardware.accel != AccelChoice::Auto, "an `accel`: the host's processor runs every guest, which"),
        (hardware.vnc.is_some(), "`vnc`"),
        (!hardware.qemu_args.is_empty(), "`qemu-arg`"),
        (!machine.volumes.is_empty(), "a volume"),
        (!machine.shares.is_empty(), "a `share`"),
        (!machine.media.is_empty(), "a `media`"),
        (machine.vcpus > MOST_VCPUS, "a machine of more than 32 vCPUs"),
        (machine.nics.len() > MOST_NICS, "a machine of more than 8 network cards"),
    ];
    let options = &hardware.propolis;
    if options.zone.is_some() && options.pool.is_none() && machine.disk_size().is_some() {
        return Err(unsupported("a `zone` without a `pool`: files of this host are not seen in it, which"));
    }
    if let Some((_, what)) = refused.into_iter().find(|(is_asked, _)| *is_asked) {
        return Err(unsupported(what));
    }
    for nic in &machine.nics {
        match &nic.network {
            NetworkConfig::Vnic { name } if is_link(name) => {}
            NetworkConfig::Vnic { name } => {
                let reason = "a link of illumos is called by letters, digits and `_`, at most 31, the last one a digit";
                return Err(Error::Unusable { path: name.into(), reason: reason.to_owned() });
            }
            NetworkConfig::None => {}
            NetworkConfig::User
            | NetworkConfig::Isolated
            | NetworkConfig::Tap { .. }
            | NetworkConfig::Private { .. } => {
                return Err(unsupported("a network other than `vnic` and `none`"));
            }
        }
    }
    let least = machine.image.as_ref().map_or(0, |image| image.virtual_size);
    match machine.disk_bytes {
        Some(asked) if asked < least => Err(Error::DiskTooSmall { asked, least, what: "its image" }),
        None if least > MOST_UNASKED => Err(Error::DiskUnasked { size: least }),
        _ => Ok(()),
    }
}

fn is_link(name: &str) -> bool {
    name.len() <= LONGEST_LINK
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.ends_with(|last: char| last.is_ascii_digit())
        && name.chars().all(|sign| sign.is_ascii_alphanumeric() || sign == '_')
}

/// Whether a file is gone. One that cannot be examined is not taken for that.
pub(super) fn is_gone(path: &std::path::Path) -> Result<bool> {
    let there: io::Result<bool> = path.try_exists();
    there.map(|there| !there).map_err(Error::io("examine", path))
}

//! Disks that outlive the machines they belong to: one folder each, beside the machines' folders.
//!
//! ```text
//! projects/shop/volumes/data/manifest.json   whose it is, and whether it was ever whole
//!                            disk.qcow2      the disk
//! ```
//!
//! The manifest comes first and durably, so that whatever a crash leaves behind has an owner. Once it says that the
//! disk was whole, a disk that is not there is lost: it is never made again unasked.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::failpoints::failpoint;
use crate::name::Name;
use crate::qemu::places::{
    create_private_dir, remove_file, require_private, sync_dir, unfinished, write_private,
};
use crate::spec::{BackendTag, Machine, Volume};

/// Version of the manifest's format that this code reads and writes.
const VERSION: u32 = 1;

/// A volume that is there, whoever it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundVolume {
    /// Its name.
    pub name: Name,
    /// The backend that made it.
    pub backend: BackendTag,
    /// Its disk.
    pub path: PathBuf,
    /// Its size in bytes; what it takes of the host is less.
    pub size_bytes: u64,
    /// No plan may remove it.
    pub prevent_destroy: bool,
    /// What is there of it.
    pub state: VolumeState,
}

/// What is there of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeState {
    /// All of it.
    Whole,
    /// It was whole, and its disk is gone.
    Gone,
    /// It was begun, or its removal was; nothing was ever on it, or is any more.
    Unfinished,
}

/// Knows the disks that outlive machines.
///
/// They are made and grown with the machines that they belong to ([`crate::Hypervisor::prepare`],
/// [`crate::Reconfigure::reconfigure`]), and removed on request only.
pub trait Volumes: Send + Sync {
    /// The volumes of `project`, by name. Changes nothing; what cannot be read is passed over.
    fn volumes(&self, project: &Name) -> impl Future<Output = Result<Vec<FoundVolume>>> + Send;

    /// Removes a volume with all that is on it. Missing is fine; one that a process uses is refused.
    fn remove_volume(&self, volume: &FoundVolume) -> impl Future<Output = Result<()>> + Send;
}

/// Paths in the folder of one volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VolumeDir(PathBuf);

impl VolumeDir {
    /// The folder of the volume `name` of the project whose machines have their folders in `vms`.
    pub(crate) fn beside(vms: &Path, name: &Name) -> Self {
        Self(all_beside(vms).join(name.as_str()))
    }

    /// The same, of a machine whose own folder is `work_dir`.
    pub(crate) fn of_machine(work_dir: &Path, name: &Name) -> Self {
        Self::beside(work_dir.parent().unwrap_or(work_dir), name)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    fn manifest(&self) -> PathBuf {
        self.0.join("manifest.json")
    }

    pub(crate) fn disk(&self) -> PathBuf {
        self.0.join("disk.qcow2")
    }
}

/// The folder of all volumes of the project whose machines have their folders in `vms`.
fn all_beside(vms: &Path) -> PathBuf {
    vms.with_file_name("volumes")
}

/// The content of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VolumeManifest {
    version: u32,
    project: Name,
    name: Name,
    backend: BackendTag,
    /// What it is at least going to have.
    size_bytes: u64,
    #[serde(default)]
    prevent_destroy: bool,
    /// Whether the disk was whole.
    whole: bool,
}

/// What is to be done about a volume that a machine needs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Its disk is there; it has to grow where it is smaller than asked for.
    There(VolumeManifest),
    /// Its disk has to be made, and is whole only when it is [finished](VolumeManifest::finish).
    ToMake(VolumeManifest),
}

impl VolumeManifest {
    /// Remembers that the disk is whole, and what is asked for now.
    pub(crate) fn finish(self, dir: &VolumeDir, volume: &Volume) -> Result<()> {
        let finished = Self {
            size_bytes: volume.size_bytes,
            prevent_destroy: volume.prevent_destroy,
            whole: true,
            ..self.clone()
        };
        if finished != self {
            sync_dir(dir.path())?;
            finished.store(dir)?;
        }
        Ok(())
    }

    fn load(dir: &VolumeDir) -> Result<Option<Self>> {
        let path = dir.manifest();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        match serde_json::from_slice::<Self>(&text) {
            Ok(manifest) if manifest.version <= VERSION => Ok(Some(manifest)),
            Ok(newer) => {
                let reason = format!("it was written by a newer vmctl (format {})", newer.version);
                Err(Error::Unusable { path, reason })
            }
            Err(error) => {
                Err(Error::Unusable { path, reason: format!("it is no manifest of a volume: {error}") })
            }
        }
    }

    fn store(&self, dir: &VolumeDir) -> Result<()> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::io("write", dir.manifest())(io::Error::other(error)))?;
        write_private(&dir.manifest(), &text)?;
        sync_dir(dir.path())
    }
}

/// Takes the folder of a volume for a machine of `project`, or finds that the volume is there.
///
/// Refuses what is somebody else's, a disk that is gone, and one that is larger than asked for: it would lose data.
/// What it is to grow to is durable before it grows, so that nobody cuts it off by what was written down before.
pub(crate) fn claim(dir: &VolumeDir, volume: &Volume, project: &Name, backend: BackendTag) -> Result<Claim> {
    let foreign = |found| Err(Error::Foreign { path: dir.path().to_owned(), found });
    match VolumeManifest::load(dir)? {
        Some(other) if other.project != *project || other.backend != backend => {
            foreign(format!("a volume of `{}` on `{}`", other.project, other.backend))
        }
        Some(manifest) if manifest.whole => {
            if is_gone(&dir.disk())? {
                return Err(Error::VolumeGone { name: volume.name.clone(), path: dir.disk() });
            }
            if manifest.size_bytes > volume.size_bytes {
                let (asked, least) = (volume.size_bytes, manifest.size_bytes);
                return Err(Error::DiskTooSmall { asked, least, what: "the existing volume" });
            }
            let grown = VolumeManifest { size_bytes: volume.size_bytes, ..manifest.clone() };
            if grown != manifest {
                grown.store(dir)?;
            }
            Ok(Claim::There(grown))
        }
        None if !is_vacant(dir)? => foreign("files without a manifest".to_owned()),
        Some(_) | None => {
            let manifest = VolumeManifest {
                version: VERSION,
                project: project.clone(),
                name: volume.name.clone(),
                backend,
                size_bytes: volume.size_bytes,
                prevent_destroy: volume.prevent_destroy,
                whole: false,
            };
            create_private_dir(dir.path())?;
            require_private(dir.path())?;
            manifest.store(dir)?;
            dir.path().parent().map_or(Ok(()), sync_dir)?;
            Ok(Claim::ToMake(manifest))
        }
    }
}

/// The first volume of the machine in `work_dir` whose disk is not there.
pub(crate) fn gone(work_dir: &Path, machine: &Machine) -> Result<Option<(Name, PathBuf)>> {
    for volume in &machine.volumes {
        let disk = VolumeDir::of_machine(work_dir, &volume.name).disk();
        if is_gone(&disk)? {
            return Ok(Some((volume.name.clone(), disk)));
        }
    }
    Ok(None)
}

/// The volumes of `project` that `backend` made, by name. What cannot be read is passed over.
pub(crate) fn list(vms: &Path, project: &Name, backend: BackendTag) -> Result<Vec<FoundVolume>> {
    let folder = all_beside(vms);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list folder", folder)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io("list folder", &folder))?.path();
        let named =
            path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<Name>().ok());
        let Some(name) = named else { continue };
        let dir = VolumeDir(path);
        match VolumeManifest::load(&dir) {
            Ok(Some(manifest)) if manifest.project == *project && manifest.backend == backend => {
                let state = match (manifest.whole, is_gone(&dir.disk())?) {
                    (true, false) => VolumeState::Whole,
                    (true, true) => VolumeState::Gone,
                    (false, _) => VolumeState::Unfinished,
                };
                let VolumeManifest { size_bytes, prevent_destroy, .. } = manifest;
                found.push(FoundVolume {
                    name,
                    backend,
                    path: dir.disk(),
                    size_bytes,
                    prevent_destroy,
                    state,
                });
            }
            // An attempt to make or to remove it was cut off where nothing says whose it is; one backend is enough to
            // tell of it.
            Ok(None) if backend == BackendTag::Qemu && dir.path().is_dir() && is_vacant(&dir)? => {
                let (path, state) = (dir.disk(), VolumeState::Unfinished);
                found.push(FoundVolume { name, backend, path, size_bytes: 0, prevent_destroy: false, state });
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, folder = %dir.path().display(), "passed over"),
        }
    }
    found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Removes a volume that nobody uses: the disk first, and before it what says that there must be one.
pub(crate) fn remove(vms: &Path, volume: &FoundVolume) -> Result<()> {
    let dir = VolumeDir::beside(vms, &volume.name);
    match VolumeManifest::load(&dir)? {
        Some(manifest) if manifest.backend != volume.backend || manifest.name != volume.name => {
            let found = format!("a volume of `{}` on `{}`", manifest.project, manifest.backend);
            return Err(Error::Foreign { path: dir.path().to_owned(), found });
        }
        Some(manifest) if manifest.whole => VolumeManifest { whole: false, ..manifest }.store(&dir)?,
        Some(_) => {}
        None if is_vacant(&dir)? => {}
        None => {
            let found = "files without a manifest".to_owned();
            return Err(Error::Foreign { path: dir.path().to_owned(), found });
        }
    }
    failpoint!("destroy.volume.given-up", dir.path());
    let (disk, manifest) = (dir.disk(), dir.manifest());
    for path in [unfinished(&disk), disk, unfinished(&manifest), manifest] {
        remove_file(&path)?;
        failpoint!("destroy.volume.file-removed", &path);
    }
    match fs::remove_dir(dir.path()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::io("remove folder", dir.path())(error));
        }
        _ => {}
    }
    let folder = all_beside(vms);
    if folder.exists() { sync_dir(&folder) } else { Ok(()) }
}

/// A file that cannot be examined is not taken for one that is gone.
fn is_gone(path: &Path) -> Result<bool> {
    path.try_exists().map(|there| !there).map_err(Error::io("examine", path))
}

/// Whether a folder holds nothing, or no more than the beginning of a manifest; or there is none.
fn is_vacant(dir: &VolumeDir) -> Result<bool> {
    let beginning = unfinished(&dir.manifest());
    let entries = match fs::read_dir(dir.path()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(Error::io("list folder", dir.path())(error)),
    };
    for entry in entries {
        if entry.map_err(Error::io("list folder", dir.path()))?.path() != beginning {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn volume(size_bytes: u64) -> Volume {
        Volume { name: name("data"), size_bytes, prevent_destroy: true }
    }

    fn claimed(dir: &VolumeDir, size_bytes: u64) -> Result<Claim> {
        claim(dir, &volume(size_bytes), &name("shop"), BackendTag::Qemu)
    }

    fn made(vms: &Path) -> VolumeDir {
        let dir = VolumeDir::beside(vms, &name("data"));
        let Claim::ToMake(manifest) = claimed(&dir, 10).unwrap() else { panic!("nothing is there yet") };
        fs::write(dir.disk(), "disk").unwrap();
        manifest.finish(&dir, &volume(10)).unwrap();
        dir
    }

    #[test]
    fn a_volume_begun_is_finished_and_one_that_is_whole_is_kept_and_grows() {
        let folder = tempfile::tempdir().unwrap();
        let vms = folder.path().join("vms");
        let dir = VolumeDir::beside(&vms, &name("data"));
        assert!(matches!(claimed(&dir, 10).unwrap(), Claim::ToMake(_)));
        assert_eq!(list(&vms, &name("shop"), BackendTag::Qemu).unwrap()[0].state, VolumeState::Unfinished);
        let dir = made(&vms);
        assert!(matches!(claimed(&dir, 10).unwrap(), Claim::There(_)));
        assert!(matches!(claimed(&dir, 20).unwrap(), Claim::There(_)));
        let found = list(&vms, &name("shop"), BackendTag::Qemu).unwrap();
        assert_eq!((found[0].size_bytes, found[0].prevent_destroy, found.len()), (20, true, 1));
        // What it was to grow to is what it may have: it never shrinks below.
        let error = claimed(&dir, 10).unwrap_err().to_string();
        assert!(error.ends_with("is smaller than 20 bytes, the size of the existing volume"), "{error}");
        assert_eq!(list(&vms, &name("shop"), BackendTag::Noop).unwrap(), []);
    }

    #[test]
    fn a_disk_that_is_gone_is_never_made_again_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let vms = folder.path().join("vms");
        let dir = made(&vms);
        fs::remove_file(dir.disk()).unwrap();
        assert!(matches!(claimed(&dir, 10), Err(Error::VolumeGone { .. })));
        let found = list(&vms, &name("shop"), BackendTag::Qemu).unwrap();
        assert_eq!(found[0].state, VolumeState::Gone);
        remove(&vms, &found[0]).unwrap();
        remove(&vms, &found[0]).unwrap();
        assert!(matches!(claimed(&dir, 10).unwrap(), Claim::ToMake(_)));
    }

    #[test]
    fn what_is_somebody_elses_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let vms = folder.path().join("vms");
        let dir = made(&vms);
        let other = claim(&dir, &volume(10), &name("other"), BackendTag::Qemu).unwrap_err().to_string();
        assert!(other.contains("a volume of `shop` on `qemu`"), "{other}");
        let found = list(&vms, &name("shop"), BackendTag::Qemu).unwrap();
        fs::remove_file(dir.manifest()).unwrap();
        for error in [claimed(&dir, 10).map(drop), remove(&vms, &found[0])] {
            assert!(error.unwrap_err().to_string().contains("files without a manifest"));
        }
        assert!(dir.disk().exists());
    }
}

//! The second copy of the truth: a small file in each machine's folder that says whose it is.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::places::{sync_dir, unfinished, write_private, write_private_soon};
use crate::error::{Error, Result};
use crate::failpoints::failpoint;
use crate::name::Name;
use crate::spec::{
    BackendTag, InstanceId, Machine, Peer, Runtime, SshConfig, Uefi, VmHandle, VmSpec, VmState, Warm,
};
use crate::workdir::WorkDir;

/// Version of the manifest's format that this code reads and writes.
const VERSION: u32 = 1;

/// What is known of the image file under an overlay. If it changes, the overlay's disk is torn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseFile {
    /// Its length in bytes.
    pub size: u64,
    /// Time of its last change, in nanoseconds since 1970.
    pub modified_ns: i64,
    /// Its inode.
    pub inode: u64,
}

impl BaseFile {
    /// Looks at the file.
    pub fn of(path: &Path) -> Result<Self> {
        let found = std::fs::metadata(path).map_err(Error::io("read the base image", path))?;
        Ok(Self {
            size: found.size(),
            modified_ns: found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec()),
            inode: found.ino(),
        })
    }

    /// What differs in `now`, in words; `None` if nothing does.
    pub fn difference(&self, now: &Self) -> Option<String> {
        if self.size != now.size {
            Some(format!("it had {} bytes, now it has {}", self.size, now.size))
        } else if self.inode != now.inode {
            Some("another file took its place".to_owned())
        } else if self.modified_ns != now.modified_ns {
            Some("it was written to".to_owned())
        } else {
            None
        }
    }
}

/// The content of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    version: u32,
    /// The instance that the folder belongs to.
    pub id: InstanceId,
    /// Its project.
    pub project: Name,
    /// Its name.
    pub name: Name,
    /// Its backend.
    pub backend: BackendTag,
    /// Its hardware.
    pub machine: Machine,
    /// Whether a seed is attached.
    pub seed: bool,
    /// How vmctl logs in.
    pub ssh: Option<SshConfig>,
    /// The image file as it was when the overlay was made on it; absent without an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<BaseFile>,
    /// What it boots with, if that is UEFI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uefi: Option<Uefi>,
    /// How it stands to templates, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm: Option<Box<Warm>>,
    /// Whether `prepare` came to its end.
    pub prepared: bool,
    /// Whether it was ever started.
    pub started: bool,
    /// Whether it was let go of on purpose.
    #[serde(default)]
    pub released: bool,
    /// The machines of its private networks that the guest was told of last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<Peer>,
}

/// To whom a folder belongs, seen from one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// There is no folder.
    Missing,
    /// The folder holds nothing, or no more than the beginning of a manifest.
    Vacant,
    /// It is this instance's.
    Ours(Box<Manifest>),
    /// It is another's; the text says whose.
    Other(String),
}

impl Manifest {
    /// The manifest of a machine that is about to be prepared.
    pub fn new(spec: &VmSpec, base: Option<BaseFile>) -> Self {
        Self {
            version: VERSION,
            id: spec.id,
            project: spec.project.clone(),
            name: spec.name.clone(),
            backend: spec.backend,
            machine: spec.machine.clone(),
            seed: spec.cloud_init.is_some(),
            ssh: spec.ssh.clone(),
            base,
            uefi: None,
            warm: None,
            prepared: false,
            started: false,
            released: false,
            told: Vec::new(),
        }
    }

    /// Looks who owns a folder. A symbolic link in its place is refused.
    pub fn owner(work: &WorkDir, id: InstanceId) -> Result<Owner> {
        match std::fs::symlink_metadata(work.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Owner::Missing),
            Err(error) => return Err(Error::io("examine", work.path())(error)),
            Ok(found) if !found.is_dir() => {
                return Err(Error::Unusable {
                    path: work.path().to_owned(),
                    reason: "it is no folder".to_owned(),
                });
            }
            Ok(_) => {}
        }
        match Self::load(work)? {
            Some(manifest) if manifest.id == id => Ok(Owner::Ours(Box::new(manifest))),
            Some(other) => {
                Ok(Owner::Other(format!("`{}/{}`, instance {}", other.project, other.name, other.id)))
            }
            None if is_vacant(work)? => Ok(Owner::Vacant),
            None => Ok(Owner::Other("files without a manifest".to_owned())),
        }
    }

    /// The manifest of a machine that is wholly made, and this one; `action` is what was to be done to it.
    pub fn of_made(work: &WorkDir, id: InstanceId, action: &'static str) -> Result<Self> {
        let refuse = |state| Err(Error::InvalidState { action, state });
        match Self::owner(work, id)? {
            Owner::Ours(manifest) if manifest.prepared => Ok(*manifest),
            Owner::Ours(_) | Owner::Vacant => refuse(VmState::Preparing),
            Owner::Missing => refuse(VmState::Destroyed),
            Owner::Other(found) => Err(Error::Foreign { path: work.path().to_owned(), found }),
        }
    }

    /// Marks the machine `id` as let go of. See [`crate::Custody::release`].
    pub fn let_go(work: &WorkDir, id: InstanceId) -> Result<()> {
        match Self::owner(work, id)? {
            Owner::Ours(mut manifest) if !manifest.released => {
                manifest.released = true;
                manifest.store(work)?;
                failpoint!("forget.qemu.marked", work.path());
                Ok(())
            }
            Owner::Ours(_) | Owner::Missing | Owner::Vacant => Ok(()),
            Owner::Other(found) => Err(Error::Foreign { path: work.path().to_owned(), found }),
        }
    }

    /// Writes the planner's note about the machine `id` into its folder; where that is gone, nothing. See
    /// [`crate::Custody::note`].
    pub fn keep_note(work: &WorkDir, id: InstanceId, note: &serde_json::Value) -> Result<()> {
        match Self::owner(work, id)? {
            Owner::Ours(_) => {
                let text = serde_json::to_vec(note)
                    .map_err(|error| Error::io("write", work.note())(io::Error::other(error)))?;
                // The copy in the store counts; this one is for where that is lost as well.
                write_private_soon(&work.note(), &text)
            }
            Owner::Missing | Owner::Vacant => Ok(()),
            Owner::Other(found) => Err(Error::Foreign { path: work.path().to_owned(), found }),
        }
    }

    /// Reads the manifest of a folder; `None` if there is none.
    pub fn load(work: &WorkDir) -> Result<Option<Self>> {
        let path = work.manifest();
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        parse(&text).map(Some).map_err(|reason| Error::Unusable { path, reason })
    }

    /// Writes it durably.
    pub fn store(&self, work: &WorkDir) -> Result<()> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::io("write", work.manifest())(io::Error::other(error)))?;
        write_private(&work.manifest(), &text)?;
        sync_dir(work.path())
    }

    /// The handle of its machine.
    pub fn handle(&self, work: &WorkDir, state: VmState, runtime: Option<Runtime>) -> VmHandle {
        VmHandle {
            id: self.id,
            project: self.project.clone(),
            name: self.name.clone(),
            backend: self.backend,
            work_dir: work.path().to_owned(),
            machine: self.machine.clone(),
            seed: self.seed,
            ssh: self.ssh.clone(),
            uefi: self.uefi.clone(),
            warm: self.warm.clone(),
            state,
            runtime,
            forced_stop: None,
        }
    }

    /// What the machine does if no process of it lives.
    pub fn state_at_rest(&self) -> VmState {
        match (self.prepared, self.started) {
            (false, _) => VmState::Preparing,
            (true, false) => VmState::Prepared,
            (true, true) => VmState::Stopped,
        }
    }
}

fn parse(text: &[u8]) -> Result<Manifest, String> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let unreadable = |error: serde_json::Error| format!("it is no manifest of a machine: {error}");
    let Version { version } = serde_json::from_slice(text).map_err(unreadable)?;
    if version > VERSION {
        return Err(format!("it was written by a newer vmctl (format {version}, this one knows {VERSION})"));
    }
    serde_json::from_slice(text).map_err(unreadable)
}

fn is_vacant(work: &WorkDir) -> Result<bool> {
    let beginning = unfinished(&work.manifest());
    for entry in std::fs::read_dir(work.path()).map_err(Error::io("list folder", work.path()))? {
        if entry.map_err(Error::io("list folder", work.path()))?.path() != beginning {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::spec::{Digest, DiskImage, Forward, ImageFormat, MacAddr, NetworkConfig, Nic};

    /// A spec whose image is `image`; a 3 GiB disk of which that many bytes are in the image.
    pub(crate) fn spec(image: &Path) -> VmSpec {
        VmSpec {
            id: InstanceId(uuid::Uuid::from_u128(0x5f8b_1d2e_0000_4000_8000_0000_0000_0001)),
            project: "shop".parse().unwrap(),
            name: "web".parse().unwrap(),
            backend: BackendTag::Qemu,
            machine: Machine {
                vcpus: 2,
                memory_mib: 512,
                disk_bytes: Some(3 << 30),
                image: Some(DiskImage {
                    path: image.to_owned(),
                    format: ImageFormat::Qcow2,
                    digest: Digest::of(b"image"),
                    virtual_size: 3 << 30,
                }),
                hardware: Default::default(),
                volumes: Vec::new(),
                shares: Vec::new(),
                media: Vec::new(),
                nics: vec![Nic {
                    mac: MacAddr([0x52, 0x54, 0, 1, 2, 3]),
                    network: NetworkConfig::User,
                    forwards: vec![Forward::SSH],
                }],
            },
            cloud_init: None,
            ssh: None,
            warm: None,
        }
    }

    fn folder_with_image() -> (tempfile::TempDir, Manifest, WorkDir) {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        std::fs::write(&image, "base").unwrap();
        let manifest = Manifest::new(&spec(&image), Some(BaseFile::of(&image).unwrap()));
        let work = WorkDir::new(folder.path().join("web"));
        (folder, manifest, work)
    }

    #[test]
    fn stored_manifest_is_read_back_and_tells_its_owner() {
        let (_folder, manifest, work) = folder_with_image();
        assert_eq!(Manifest::owner(&work, manifest.id).unwrap(), Owner::Missing);
        std::fs::create_dir(work.path()).unwrap();
        std::fs::write(unfinished(&work.manifest()), "{").unwrap();
        assert_eq!(Manifest::owner(&work, manifest.id).unwrap(), Owner::Vacant);

        manifest.store(&work).unwrap();
        assert_eq!(Manifest::owner(&work, manifest.id).unwrap(), Owner::Ours(Box::new(manifest.clone())));
        let other = InstanceId(uuid::Uuid::nil());
        assert_eq!(
            Manifest::owner(&work, other).unwrap(),
            Owner::Other(format!("`shop/web`, instance {}", manifest.id))
        );
    }

    #[test]
    fn folder_that_is_not_ours_is_told_apart() {
        let (folder, manifest, work) = folder_with_image();
        std::fs::create_dir(work.path()).unwrap();
        std::fs::write(work.path().join("thesis.txt"), "").unwrap();
        assert_eq!(
            Manifest::owner(&work, manifest.id).unwrap(),
            Owner::Other("files without a manifest".to_owned())
        );
        let link = WorkDir::new(folder.path().join("link"));
        std::os::unix::fs::symlink(work.path(), link.path()).unwrap();
        assert!(Manifest::owner(&link, manifest.id).unwrap_err().to_string().ends_with("it is no folder"));
    }

    #[test]
    fn manifest_without_the_mark_of_release_is_not_released() {
        let (_folder, mut manifest, work) = folder_with_image();
        std::fs::create_dir(work.path()).unwrap();
        manifest.released = true;
        manifest.store(&work).unwrap();
        assert!(Manifest::load(&work).unwrap().unwrap().released);
        let text = std::fs::read_to_string(work.manifest()).unwrap();
        let older = text.replace(",\n  \"released\": true", "");
        assert_ne!(older, text);
        std::fs::write(work.manifest(), older).unwrap();
        assert!(!Manifest::load(&work).unwrap().unwrap().released);
    }

    #[test]
    fn manifest_of_a_machine_without_an_image_is_read_back() {
        let (_folder, mut manifest, work) = folder_with_image();
        std::fs::create_dir(work.path()).unwrap();
        // As one reads that was written before machines had hardware of their own.
        manifest.store(&work).unwrap();
        assert!(!std::fs::read_to_string(work.manifest()).unwrap().contains("hardware"));
        (manifest.machine.image, manifest.base) = (None, None);
        manifest.machine.hardware.cpu = Some("max".to_owned());
        manifest.store(&work).unwrap();
        assert_eq!(Manifest::load(&work).unwrap().unwrap(), manifest);
    }

    #[test]
    fn newer_or_damaged_manifest_is_refused_with_its_path() {
        let (_folder, manifest, work) = folder_with_image();
        std::fs::create_dir(work.path()).unwrap();
        for (text, reason) in [
            (r#"{"version":2,"shape":"unknown"}"#, "a newer vmctl (format 2, this one knows 1)"),
            (r#"{"version":1}"#, "no manifest of a machine: missing field"),
            ("", "no manifest of a machine: EOF"),
        ] {
            std::fs::write(work.manifest(), text).unwrap();
            let error = Manifest::owner(&work, manifest.id).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains("manifest.json"), "{error}");
        }
    }
}

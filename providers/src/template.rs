//! Templates: what machines were when they had been made, kept so that the next ones like them need not be made again.
//!
//! A template is a folder that bears the key of everything that determined it. It holds a copy of the root disk, and
//! where that is safe a copy of the memory and the state of the devices. It appears whole or not at all, and nothing
//! in it changes afterwards: machines are made from copies, or map the memory for themselves alone. So a template may
//! be removed at any time, whoever was made from it.
//!
//! What is inside was a machine's: among other things its private keys. The folder is its owner's alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::name::Name;
use crate::qemu::manifest::BaseFile;
use crate::qemu::places::{create_private_dir, remove_tree, sync_dir, unfinished, write_private};
use crate::spec::{Digest, InstanceId, MacAddr, WarmLevel};

/// Version of the description's format that this code reads and writes.
const VERSION: u32 = 1;

/// The folder of templates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Templates {
    folder: PathBuf,
}

/// What a template is, as its description says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    version: u32,
    /// Everything that determined it.
    pub key: Digest,
    /// When it was kept.
    pub created: Timestamp,
    /// The project of the machine that it was.
    pub project: Name,
    /// That machine's name.
    pub name: Name,
    /// That machine's instance.
    pub source: InstanceId,
    /// The public key that its guest lets vmctl in with.
    pub user_key: String,
    /// The hardware addresses of its cards, which its guest may know them by.
    pub macs: Vec<MacAddr>,
    /// Digest of the image below its disk.
    pub image: Digest,
    /// The disk's file as it was when it was kept.
    pub disk: BaseFile,
    /// The memory, where that was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<TemplateMemory>,
}

/// A kept memory, and what must be the same for it to go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateMemory {
    /// The version of the QEMU that ran it, as QEMU tells it.
    pub qemu: String,
    /// The accelerator, such as `tcg`.
    pub accel: String,
    /// The memory's file as it was when it was kept.
    pub memory: BaseFile,
    /// The same of the state of the devices.
    pub devices: BaseFile,
}

/// Something in the folder of templates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its folder.
    pub path: PathBuf,
    /// How much room it takes, in bytes.
    pub bytes: u64,
    /// What it is, or why it is of no use.
    pub content: Result<Box<Template>, String>,
}

impl Template {
    /// The description of what is kept of a machine.
    #[expect(clippy::too_many_arguments, reason = "each is a field, and the version is nobody's choice")]
    pub(crate) fn new(
        key: Digest,
        created: Timestamp,
        (project, name, source): (Name, Name, InstanceId),
        user_key: String,
        macs: Vec<MacAddr>,
        image: Digest,
        disk: BaseFile,
        memory: Option<TemplateMemory>,
    ) -> Self {
        Self { version: VERSION, key, created, project, name, source, user_key, macs, image, disk, memory }
    }

    /// How far a machine comes that is made from it.
    pub fn level(&self) -> WarmLevel {
        if self.memory.is_some() { WarmLevel::Memory } else { WarmLevel::Disk }
    }
}

/// Paths inside one template's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TemplateDir(PathBuf);

impl TemplateDir {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn description(&self) -> PathBuf {
        self.0.join("template.json")
    }

    pub(crate) fn disk(&self) -> PathBuf {
        self.0.join("disk.qcow2")
    }

    pub(crate) fn memory(&self) -> PathBuf {
        self.0.join("memory")
    }

    pub(crate) fn devices(&self) -> PathBuf {
        self.0.join("devices")
    }

    /// The private key that the machine's login user had.
    pub(crate) fn user_key(&self) -> PathBuf {
        self.0.join("id_ed25519")
    }

    /// The machine's host key, as it was known.
    pub(crate) fn known_hosts(&self) -> PathBuf {
        self.0.join("known_hosts")
    }
}

impl Templates {
    /// The folder at `folder`, whether it exists or not.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn dir(&self, key: &Digest) -> TemplateDir {
        TemplateDir(self.folder.join(key.hex()))
    }

    /// The template with this key, if there is one that is whole: its files are those that were kept, as far as their
    /// sizes and times tell. Of another the reason is told, as an error.
    pub fn find(&self, key: &Digest) -> Result<Option<Template>> {
        let dir = self.dir(key);
        match read(&dir)? {
            None => Ok(None),
            Some(template) if template.key == *key => Ok(Some(template)),
            Some(other) => Err(Error::Unusable {
                path: dir.path().to_owned(),
                reason: format!("it is the template of another key, {}", other.key),
            }),
        }
    }

    /// All that is in the folder, by path: templates, useless ones, and beginnings of some.
    pub fn list(&self) -> Result<Vec<Found>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("list folder", &self.folder)(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(Error::io("list folder", &self.folder))?.path();
            let content = match read(&TemplateDir(path.clone())) {
                Ok(Some(template)) => Ok(Box::new(template)),
                Ok(None) => Err("it was never finished".to_owned()),
                Err(error) => Err(error.to_string()),
            };
            found.push(Found { bytes: room(&path)?, path, content });
        }
        found.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(found)
    }

    /// Removes what [`Self::list`] found. Machines that were made from it go on.
    pub fn remove(&self, found: &Found) -> Result<()> {
        // What is not directly inside is not ours.
        if found.path.parent() != Some(&*self.folder) {
            return Err(Error::Unusable {
                path: found.path.clone(),
                reason: "it is no template of this folder".to_owned(),
            });
        }
        remove_tree(&found.path)
    }

    /// Begins a template: an empty folder under another name than its final one. It is this process's for as long as the
    /// file that is returned as well is open; beginnings that are nobody's any more are removed.
    pub(crate) fn begin(&self, key: &Digest, by: InstanceId) -> Result<(TemplateDir, fs::File)> {
        create_private_dir(&self.folder)?;
        let entries = fs::read_dir(&self.folder).map_err(Error::io("list folder", &self.folder))?;
        for entry in entries {
            let path = entry.map_err(Error::io("list folder", &self.folder))?.path();
            let is_begun = path.file_name().is_some_and(|name| name.as_encoded_bytes().contains(&b'~'));
            if is_begun && hold(&path)?.is_some() {
                remove_tree(&path)?;
            }
        }
        let path = self.folder.join(format!("{}~{}", key.hex(), by.short()));
        create_private_dir(&path)?;
        let held = hold(&path)?.ok_or_else(|| Error::Unusable {
            path: path.clone(),
            reason: "another vmctl makes this template now".to_owned(),
        })?;
        Ok((TemplateDir(path), held))
    }

    /// Gives a template its final name, its description last. It takes the place of an earlier one with its key.
    pub(crate) fn finish(&self, begun: &TemplateDir, template: &Template) -> Result<()> {
        let text = serde_json::to_vec_pretty(template)
            .map_err(|error| Error::io("write", begun.description())(io::Error::other(error)))?;
        write_private(&begun.description(), &text)?;
        sync_dir(begun.path())?;
        let dir = self.dir(&template.key);
        remove_tree(dir.path())?;
        fs::rename(begun.path(), dir.path()).map_err(Error::io("rename to", dir.path()))?;
        sync_dir(&self.folder)
    }
}

/// Takes the lock on a folder; `None` if another process has it, or the folder is gone.
fn hold(path: &Path) -> Result<Option<fs::File>> {
    use rustix::fs::{FlockOperation, flock};
    let folder = match fs::File::open(path) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", path)(error)),
    };
    match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(folder)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(Error::io("lock", path)(error.into())),
    }
}

/// The description in a folder, if its files are what it says; `None` where there is no description.
fn read(dir: &TemplateDir) -> Result<Option<Template>> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let path = dir.description();
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    let unusable = |reason: String| Error::Unusable { path: path.clone(), reason };
    let unreadable = |error: serde_json::Error| unusable(format!("it describes no template: {error}"));
    let Version { version } = serde_json::from_slice(&text).map_err(unreadable)?;
    if version > VERSION {
        return Err(unusable(format!(
            "it was written by a newer vmctl (format {version}, this one knows {VERSION})"
        )));
    }
    let template: Template = serde_json::from_slice(&text).map_err(unreadable)?;
    let memory = template
        .memory
        .iter()
        .flat_map(|kept| [(dir.memory(), &kept.memory), (dir.devices(), &kept.devices)]);
    for (path, kept) in [(dir.disk(), &template.disk)].into_iter().chain(memory) {
        if let Some(what) = kept.difference(&BaseFile::of(&path)?) {
            return Err(Error::Unusable { path, reason: format!("it is not what was kept: {what}") });
        }
    }
    Ok(Some(template))
}

/// How much room a folder of files takes, or a file, in bytes.
fn room(path: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let examine = |path: &Path| fs::symlink_metadata(path).map_err(Error::io("examine", path));
    let found = examine(path)?;
    let mut bytes = found.blocks() * 512;
    if found.is_dir() {
        for entry in fs::read_dir(path).map_err(Error::io("list folder", path))? {
            bytes += examine(&entry.map_err(Error::io("list folder", path))?.path())?.blocks() * 512;
        }
    }
    Ok(bytes)
}

/// Copies a file so that zeros take no room, durably, and gives it to its owner alone.
///
/// # Errors
///
/// A file that cannot be read, written or synced; what was written of `to` stays.
pub(crate) fn copy_sparsely(from: &Path, to: &Path) -> Result<()> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    const PIECE: usize = 1 << 20;
    let mut source = fs::File::open(from).map_err(Error::io("open", from))?;
    let length = source.metadata().map_err(Error::io("examine", from))?.len();
    let options = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(to);
    let copy = options.map_err(Error::io("create", to))?;
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while let Some((begin, end)) = next_data(&source, at, length).map_err(Error::io("read", from))? {
        at = begin;
        io::Seek::seek(&mut source, io::SeekFrom::Start(at)).map_err(Error::io("read", from))?;
        while at < end {
            let wanted = PIECE.min(usize::try_from(end - at).unwrap_or(PIECE));
            let read = source.read(&mut piece[..wanted]).map_err(Error::io("read", from))?;
            if read == 0 {
                break;
            }
            crate::image::sparse::write_at(&copy, at, &piece[..read]).map_err(Error::io("write", to))?;
            at += read as u64;
        }
    }
    copy.set_len(length).map_err(Error::io("write", to))
}

/// The next stretch of a file that is no hole, from `at`; `None` behind the last one.
fn next_data(file: &fs::File, at: u64, length: u64) -> io::Result<Option<(u64, u64)>> {
    use rustix::fs::{SeekFrom, seek};
    use rustix::io::Errno;
    if at >= length {
        return Ok(None);
    }
    let begin = match seek(file, SeekFrom::Data(at)) {
        Ok(begin) => begin,
        Err(Errno::NXIO) => return Ok(None),
        // A file system without holes.
        Err(Errno::INVAL) => return Ok(Some((at, length))),
        Err(error) => return Err(error.into()),
    };
    let end = seek(file, SeekFrom::Hole(begin))?;
    Ok(Some((begin, end.min(length))))
}

/// The name under which a machine's disk is made, from a template's.
pub(crate) fn clone_disk(dir: &TemplateDir, overlay: &Path) -> Result<()> {
    copy_sparsely(&dir.disk(), &unfinished(overlay))
}

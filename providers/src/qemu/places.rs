//! Where the backend keeps files: private folders, files that appear whole, and the folder of a running machine.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::failpoints::failpoint;
use crate::process::tail;
use crate::spec::InstanceId;
use crate::workdir::WorkDir;

/// Longest path of a unix socket: `sun_path` has 108 bytes with its final zero (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// Ends the names of files that are not finished.
const UNFINISHED: &str = ".tmp";

/// What QEMU said on standard error at the last launch, after its command line.
pub(crate) fn qemu_log(work: &WorkDir) -> PathBuf {
    work.path().join("qemu.log")
}

/// The name under which `path` is written until it is whole.
pub(crate) fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    name.into()
}

/// The folder of one running machine: its sockets and its pidfile. It exists only from start to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeDir {
    root: PathBuf,
    path: PathBuf,
}

impl RuntimeDir {
    /// What QEMU's pidfile is called.
    pub(crate) const PIDFILE: &str = "qemu.pid";

    /// The folder of instance `id` below `root`.
    pub fn new(root: &Path, id: InstanceId) -> Self {
        Self { root: root.to_owned(), path: root.join(id.short()) }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// QEMU's pidfile; QEMU holds a lock on it while it lives.
    pub fn pidfile(&self) -> PathBuf {
        self.path.join(Self::PIDFILE)
    }

    /// The monitor for everyday questions.
    pub fn monitor(&self) -> PathBuf {
        self.path.join("qmp.sock")
    }

    /// The monitor that is used for stopping only, so that a stop gets through when the other is held.
    pub fn reserved_monitor(&self) -> PathBuf {
        self.path.join("qmp-reserved.sock")
    }

    /// The serial console.
    pub fn console(&self) -> PathBuf {
        self.path.join("console.sock")
    }

    /// The display, for a VNC client.
    pub fn vnc(&self) -> PathBuf {
        self.path.join("vnc.sock")
    }

    /// The channel of the guest agent.
    pub fn guest_agent(&self) -> PathBuf {
        self.path.join("qga.sock")
    }

    /// The socket over which the state of the devices comes and goes.
    pub(crate) fn devices(&self) -> PathBuf {
        self.path.join("devices.sock")
    }

    /// The socket over which share number `index` is served.
    pub fn share(&self, index: usize) -> PathBuf {
        self.path.join(format!("share{index}.sock"))
    }

    /// What the process said that serves share number `index`.
    pub fn share_log(&self, index: usize) -> PathBuf {
        self.path.join(format!("share{index}.log"))
    }

    fn sockets(&self) -> [PathBuf; 5] {
        [self.monitor(), self.reserved_monitor(), self.console(), self.vnc(), self.guest_agent()]
    }

    /// Refuses a folder whose sockets could not be made.
    pub fn check_length(&self) -> Result<()> {
        match self.sockets().iter().map(|path| path.as_os_str().len()).max() {
            Some(longest) if longest > MAX_SOCKET_PATH => Err(Error::Unusable {
                path: self.root.clone(),
                reason: format!(
                    "sockets in it would have paths of {longest} bytes, and {MAX_SOCKET_PATH} is the most there can be"
                ),
            }),
            _ => Ok(()),
        }
    }

    /// Makes the folder and the one above it, or checks that they are private and ours.
    pub fn create(&self) -> Result<()> {
        self.check_length()?;
        create_private_dir(&self.root)?;
        require_private(&self.root)?;
        create_private_dir(&self.path)?;
        require_private(&self.path)
    }

    /// Refuses folders in which somebody else may have put things; missing ones are fine.
    pub fn check_private(&self) -> Result<()> {
        for folder in [&self.root, &self.path] {
            match require_private(folder) {
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// Takes the sockets from everybody else, in addition to the folder that does so already.
    pub fn close_sockets_to_others(&self) -> Result<()> {
        for socket in self.sockets() {
            std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o600))
                .map_err(Error::io("set the mode of", &socket))?;
        }
        Ok(())
    }

    /// Removes the folder of a machine that does not run. Missing is fine; a symbolic link is refused.
    pub fn remove(&self) -> Result<()> {
        remove_tree(&self.path)
    }
}

/// Makes a folder that only we can enter, and those above it; an existing one is left as it is.
pub(crate) fn create_private_dir(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::io("create folder", path))
}

/// Refuses what is no real folder, or somebody else's, or open to others.
pub(crate) fn require_private(path: &Path) -> Result<()> {
    let found = std::fs::symlink_metadata(path).map_err(Error::io("examine", path))?;
    let refuse = |reason: String| Err(Error::Unusable { path: path.to_owned(), reason });
    let ours = rustix::process::geteuid().as_raw();
    if !found.is_dir() {
        refuse("it is no folder".to_owned())
    } else if found.uid() != ours {
        refuse(format!("it belongs to user {}, not to user {ours}", found.uid()))
    } else if found.mode() & 0o077 != 0 {
        refuse(format!("others may enter it (mode {:o}, must be 700)", found.mode() & 0o7777))
    } else {
        Ok(())
    }
}

/// Writes a file that appears whole or not at all, mode 0600, its content on disk before its name.
///
/// A failure leaves what was there, and takes no room.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    written_private(path, content, Sync::Now)
}

/// The same for what may be lost in a cut of the power, and is read with that in mind.
pub(crate) fn write_private_soon(path: &Path, content: &[u8]) -> Result<()> {
    written_private(path, content, Sync::Soon)
}

/// When what is written is to be on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sync {
    /// Before it has its name.
    Now,
    /// When the system gets to it.
    Soon,
}

fn written_private(path: &Path, content: &[u8], sync: Sync) -> Result<()> {
    let temporary = unfinished(path);
    write_unfinished(&temporary, content, sync)
        .and_then(|()| std::fs::rename(&temporary, path).map_err(Error::io("rename to", path)))
        .inspect_err(|_| give_up(&temporary))
}

/// Removes what was written in vain. If that fails as well, the next attempt writes over it.
pub(crate) fn give_up(unfinished: &Path) {
    if let Err(error) = remove_file(unfinished) {
        tracing::debug!(%error, "an unfinished file stays");
    }
}

/// Writes `content` without its blocks of zeros, which take no room then: most of a seed is nothing else.
fn write_sparsely(file: &File, content: &[u8]) -> io::Result<()> {
    // The block of most file systems.
    const BLOCK: usize = 4096;
    file.set_len(content.len() as u64)?;
    for (index, block) in content.chunks(BLOCK).enumerate() {
        if block.iter().any(|byte| *byte != 0) {
            file.write_all_at(block, (index * BLOCK) as u64)?;
        }
    }
    Ok(())
}

/// Opens an empty file that only we can read, for writing; not through a symbolic link.
pub(super) fn create_private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
}

fn write_unfinished(temporary: &Path, content: &[u8], sync: Sync) -> Result<()> {
    let file = create_private_file(temporary).map_err(Error::io("create", temporary))?;
    file.set_permissions(PermissionsExt::from_mode(0o600))
        .and_then(|()| write_sparsely(&file, content))
        .and_then(|()| if sync == Sync::Now { file.sync_all() } else { Ok(()) })
        .map_err(Error::io("write", temporary))?;
    failpoint!("state.qemu.drafted", temporary);
    Ok(())
}

/// Gives a file that somebody else wrote under its unfinished name its mode and final name.
pub(crate) fn publish(path: &Path) -> Result<()> {
    let temporary = unfinished(path);
    let file = File::open(&temporary).map_err(Error::io("open", &temporary))?;
    file.set_permissions(PermissionsExt::from_mode(0o600))
        .and_then(|()| file.sync_all())
        .map_err(Error::io("write", &temporary))?;
    std::fs::rename(&temporary, path).map_err(Error::io("rename to", path))
}

/// Makes renames in a folder durable.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(Error::io("sync folder", path))
}

/// Makes sure that a file is there that only we can read, and keeps what it holds.
pub(crate) fn ensure_private_file(path: &Path) -> Result<()> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
        .and_then(|file| file.set_permissions(PermissionsExt::from_mode(0o600)))
        .map_err(Error::io("create", path))
}

/// Removes a file; missing is fine.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// The end of a file, at most `limit` bytes from the start of a line, fit for a message; empty if there is no file.
pub(crate) fn tail_of(path: &Path, limit: usize) -> Result<String> {
    let read = || -> io::Result<Vec<u8>> {
        // One byte more, by which `tail` knows that something precedes.
        let span = limit as u64 + 1;
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(span)))?;
        let mut bytes = Vec::new();
        file.take(span).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => Ok(tail(&bytes, limit)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// Removes a folder with all that is in it, following no link. Missing is fine; a link in its place is refused.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("examine", path)(error)),
        Ok(found) if !found.is_dir() => {
            Err(Error::Unusable { path: path.to_owned(), reason: "it is no folder".to_owned() })
        }
        Ok(_) => std::fs::remove_dir_all(path).map_err(Error::io("remove folder", path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn written_file_is_private_and_leaves_nothing_unfinished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(unfinished(&path), "left by a crash").unwrap();
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!((std::fs::read(&path).unwrap(), mode(&path)), (b"two".to_vec(), 0o600));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn runtime_folder_is_private_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("run/vmctl");
        let run = RuntimeDir::new(&root, InstanceId(uuid::Uuid::nil()));
        run.create().unwrap();
        run.create().unwrap();
        assert_eq!((mode(&root), mode(run.path())), (0o700, 0o700));

        std::fs::set_permissions(&root, PermissionsExt::from_mode(0o755)).unwrap();
        assert!(run.create().unwrap_err().to_string().contains("others may enter it (mode 755"));

        std::fs::remove_dir_all(&root).unwrap();
        std::os::unix::fs::symlink(folder.path(), &root).unwrap();
        assert!(run.create().unwrap_err().to_string().ends_with("it is no folder"));
    }

    #[test]
    fn runtime_folder_too_deep_for_sockets_is_refused() {
        let deep = PathBuf::from("/").join("x".repeat(80));
        let error = RuntimeDir::new(&deep, InstanceId(uuid::Uuid::nil())).check_length().unwrap_err();
        assert!(error.to_string().contains("paths of 116 bytes"), "{error}");
        let fits = PathBuf::from("/").join("x".repeat(71));
        RuntimeDir::new(&fits, InstanceId(uuid::Uuid::nil())).check_length().unwrap();
    }

    #[test]
    fn removing_follows_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        std::fs::create_dir(&victim).unwrap();
        std::fs::write(victim.join("precious"), "").unwrap();

        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        remove_tree(&link).unwrap_err();

        let tree = folder.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        std::os::unix::fs::symlink(&victim, tree.join("inner")).unwrap();
        remove_tree(&tree).unwrap();
        remove_tree(&tree).unwrap();
        assert!(victim.join("precious").exists() && !tree.exists());
    }
}

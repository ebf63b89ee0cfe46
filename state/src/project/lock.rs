//! The right to write one project's state.
//!
//! The right is the kernel's lock on a file (flock), so it ends with its holder, however that ends; the file itself
//! is never removed. Who holds it stands in `lock.json` beside it, for people only.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ProjectDir;
use crate::error::StoreError;
use crate::failpoints::failpoint;
use crate::files;

/// How long some hold the lock who are not writers: readers that finish what a dead writer left, and waiters that
/// gave up just before they got it. A writer waits at least this long, so that they never refuse it.
const MOMENT: Duration = Duration::from_millis(250);

/// Who holds a project's lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The command, as typed, without its options' values.
    pub command: String,
    /// User name or number.
    pub user: String,
    /// Host name.
    pub host: String,
    /// Process id.
    pub pid: u32,
    /// Since when.
    pub since: Timestamp,
    /// The running kernel's boot id, which tells a restarted host and another host apart from this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<Uuid>,
}

impl Holder {
    /// Whether it may live where this kernel's locks say nothing about it: another host that shares the disk.
    ///
    /// The same host after a restart is no other host, and a container of this kernel is none either.
    pub fn is_elsewhere(&self) -> bool {
        let is_same_kernel = self.boot.is_some() && self.boot == boot_id();
        !is_same_kernel && host_name().is_some_and(|host| host != self.host)
    }
}

/// The running kernel's boot id; `None` where the system has none.
pub fn boot_id() -> Option<Uuid> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().parse().ok()
}

/// What this host calls itself; `None` where the system does not tell in a file.
fn host_name() -> Option<String> {
    Some(fs::read_to_string("/proc/sys/kernel/hostname").ok()?.trim().to_owned())
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, user, host, pid, since, boot: _ } = self;
        write!(f, "`{command}` (process {pid} of {user} on {host}, since {since:.0})")
    }
}

/// A lock that is held. Dropping gives it back.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a child that is just being started holds a copy of the handle until it runs.
        if let Err(error) = self.0.unlock() {
            tracing::debug!(%error, "the lock is given back when the process ends");
        }
    }
}

impl Lock {
    /// Takes the project's lock for writing, waiting at most `wait` for another writer.
    pub(super) fn of_writer(dir: &ProjectDir, wait: Duration) -> Result<Self, StoreError> {
        let held = Self::acquire(&dir.lock(), wait.max(MOMENT))?;
        let held = held.ok_or_else(|| StoreError::Locked { path: dir.lock(), holder: holder(dir) })?;
        match elsewhere(dir) {
            Some(holder) => Err(StoreError::LockedElsewhere { path: dir.holder(), holder }),
            None => Ok(held),
        }
    }

    /// Takes the lock of a file that is there, without waiting and without making one; `None` if it is held or not there.
    pub(super) fn of_existing(path: &Path) -> Result<Option<Self>, StoreError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("open", path)(error)),
        };
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(StoreError::io("lock", path)(error)),
        }
    }

    /// Takes the lock of the file at `path`, waiting at most `wait`; `None` if it is still held then.
    ///
    /// There is no lock call with a deadline. Instead of asking again and again, a thread waits in the kernel and
    /// hands the lock over; if nobody takes it any more, it gives it back at once.
    pub(crate) fn acquire(path: &Path, wait: Duration) -> Result<Option<Self>, StoreError> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => return Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) if wait.is_zero() => return Ok(None),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", path)(error)),
        }
        let (hand_over, taken) = mpsc::sync_channel(0);
        thread::Builder::new()
            .name("vmctl-lock".into())
            .spawn(move || {
                let locked = lock_blocking(&file).map(|()| Self(file));
                // Refused when the other side no longer waits: then the lock is dropped, and with it given back.
                drop(hand_over.send(locked));
            })
            .map_err(StoreError::io("wait for the lock", path))?;
        match taken.recv_timeout(wait) {
            Ok(locked) => locked.map(Some).map_err(StoreError::io("lock", path)),
            Err(mpsc::RecvTimeoutError::Timeout | mpsc::RecvTimeoutError::Disconnected) => Ok(None),
        }
    }
}

/// Opens the lock file; where nothing can be written, a handle for reading locks as well.
fn open(path: &Path) -> Result<File, StoreError> {
    match files::open_or_create(path) {
        Err(refused) if refused.is_write_refused() => File::open(path).map_err(|_| refused),
        opened => opened,
    }
}

fn lock_blocking(file: &File) -> io::Result<()> {
    loop {
        match file.lock() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Writes down who holds the lock.
pub(super) fn announce(dir: &ProjectDir, holder: &Holder) -> Result<(), StoreError> {
    let path = dir.holder();
    let json = serde_json::to_vec(holder).map_err(|e| StoreError::io("encode", &path)(e.into()))?;
    files::replace(&path, &json)?;
    failpoint!("state.lock.announced", &path);
    Ok(())
}

/// Takes the name of a dead writer off the lock, which the caller holds. That machines' notes may be behind is marked
/// for the next one who can write them.
pub(super) fn sign_off_for_the_dead(dir: &ProjectDir) -> Result<(), StoreError> {
    if files::exists(&dir.holder())? {
        files::replace_soon(&dir.behind(), b"")?;
    }
    files::remove(&dir.holder()).map(drop)
}

/// Who announced itself on another host and did not sign off. The lock is free as far as this kernel knows, which says
/// nothing if the two hosts share the disk but not its locks.
pub(super) fn elsewhere(dir: &ProjectDir) -> Option<Box<Holder>> {
    holder(dir).filter(|holder| holder.is_elsewhere())
}

/// Who holds the lock, if that was written down; it names people and decides nothing.
pub(super) fn holder(dir: &ProjectDir) -> Option<Box<Holder>> {
    let json = files::read(&dir.holder()).ok().flatten()?;
    serde_json::from_slice(&json).ok()
}

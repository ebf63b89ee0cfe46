//! Reading the state without the right to write it.

use std::time::Duration;

use super::dir::Presence;
use super::lock::{self, Holder, Lock};
use super::{ProjectDir, Reserve, published, writer};
use crate::error::{StoreError, StoreErrorKind};
use crate::files;
use crate::record::Snapshot;
use crate::seal::Seal;

/// How long a reader waits for a writer that is just making the store to publish its first snapshot.
const FIRST_SNAPSHOT: Duration = Duration::from_secs(1);

/// Reads the state without taking the right to write.
///
/// `Ok(None)` means that the project has no state and no machine's folder: nothing was ever made. While a writer
/// works elsewhere, the answer is as old as what it published last. If a writer died, its last commits are read
/// from the store and published first; where that cannot be written, the answer is what it had published.
pub fn read(dir: &ProjectDir) -> Result<Option<Snapshot>, StoreError> {
    if dir.presence()? == Presence::Nothing {
        return Ok(None);
    }
    if !files::exists(&dir.holder())? {
        match published::load(dir) {
            // One whose data file was cut off, or written to without telling readers, is looked into.
            Ok(Some(exact)) if is_as_closed(dir)? => return Ok(Some(exact)),
            Ok(Some(_)) => {}
            // The store is there, so the copy can be made again.
            Ok(None) => {}
            Err(error) if error.kind() == StoreErrorKind::Damaged => {
                tracing::warn!(%error, "the published snapshot is made anew");
            }
            Err(error) => return Err(error),
        }
    }
    if let Some(holder) = lock::elsewhere(dir)
        && let Some(published) = published::load(dir)?
    {
        tracing::info!(%holder, "it works on another host: what it published last is shown");
        return Ok(Some(published));
    }
    match take_over(dir, Duration::ZERO) {
        Ok(Some(exact)) => Ok(Some(exact)),
        Ok(None) => from_writer(dir).map(Some),
        Err(refused) if refused.is_write_refused() || refused.is_full() => {
            let Some(behind) = published::load(dir)? else { return Err(refused) };
            tracing::warn!(error = %refused, "what was committed since the last publishing is not shown");
            Ok(Some(behind))
        }
        Err(error) => Err(error),
    }
}

/// Whether the store's data file has the length that it was closed with, as far as that was noted.
fn is_as_closed(dir: &ProjectDir) -> Result<bool, StoreError> {
    let folder = dir.state();
    Seal::of(&folder)?.map_or(Ok(true), |seal| seal.fits_length(&folder))
}

/// The writer that is at work on the project now, if there is one; one on another host counts as being at work.
pub fn at_work(dir: &ProjectDir) -> Result<Option<Box<Holder>>, StoreError> {
    if !files::exists(&dir.holder())? {
        return Ok(None);
    }
    // What a dead writer left says nothing about now.
    Ok(match Lock::acquire(&dir.lock(), Duration::ZERO)? {
        Some(_free) => lock::elsewhere(dir),
        None => lock::holder(dir),
    })
}

/// What [`unlock`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unlocked {
    /// Nobody holds the state, and nobody left anything open.
    WasFree,
    /// A writer did not sign off; it was named if it had said who it is. What it left is finished.
    Cleared(Option<Box<Holder>>),
}

/// Finishes what a dead writer left: publishes its last commits and takes its name off the lock.
///
/// A writer that lives is [`Locked`](StoreError::Locked), whatever `force` says: the kernel takes a lock from nobody.
/// One on another host is [`LockedElsewhere`](StoreError::LockedElsewhere) unless `force` says that it is dead.
pub fn unlock(dir: &ProjectDir, force: bool) -> Result<Unlocked, StoreError> {
    if !files::exists(dir.path())? {
        return Ok(Unlocked::WasFree);
    }
    let Some(_lock) = Lock::acquire(&dir.lock(), Duration::ZERO)? else {
        return Err(StoreError::Locked { path: dir.lock(), holder: lock::holder(dir) });
    };
    if !files::exists(&dir.holder())? {
        return Ok(Unlocked::WasFree);
    }
    if let Some(holder) = lock::elsewhere(dir).filter(|_| !force) {
        return Err(StoreError::LockedElsewhere { path: dir.holder(), holder });
    }
    let left = lock::holder(dir);
    if dir.presence()? == Presence::Store {
        writer::open_store(dir, Reserve::Spend)?.close()?;
    }
    lock::sign_off_for_the_dead(dir)?;
    Ok(Unlocked::Cleared(left))
}

/// Takes what the writer at work published.
fn from_writer(dir: &ProjectDir) -> Result<Snapshot, StoreError> {
    if let Some(published) = published::load(dir)? {
        return Ok(published);
    }
    // It has made the store and not published yet: a matter of milliseconds, unless somebody removed the file.
    if let Some(exact) = take_over(dir, FIRST_SNAPSHOT)? {
        return Ok(exact);
    }
    published::load(dir)?.ok_or_else(|| StoreError::Locked { path: dir.lock(), holder: lock::holder(dir) })
}

/// Finishes what a dead writer left; `None` if the lock is held, so that the writer lives.
fn take_over(dir: &ProjectDir, wait: Duration) -> Result<Option<Snapshot>, StoreError> {
    let Some(_lock) = Lock::acquire(&dir.lock(), wait)? else { return Ok(None) };
    let store = writer::open_store(dir, Reserve::Keep)?;
    let snapshot = store.current().clone();
    store.close()?;
    lock::sign_off_for_the_dead(dir)?;
    Ok(Some(snapshot))
}

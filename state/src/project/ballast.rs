//! A file that only takes room, so that there is some when it is needed most.
//!
//! The store cannot be opened on a full disk, not even to destroy the machines that fill it. Giving this file up
//! makes room for that one run.

use super::ProjectDir;
use crate::error::StoreError;
use crate::files;

/// Two segments of the store's log, which is more than opening it and a hundred small commits need.
const SIZE: usize = 1 << 20;

/// Free bytes from which on the ballast is taken while a run goes on: twice its size is left to others.
const AMPLE: u64 = 3 * SIZE as u64;

/// Does `act`; if there was no room for it, gives the ballast up and does it once more.
pub(super) fn with_room<T>(
    dir: &ProjectDir,
    mut act: impl FnMut() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    match act() {
        Err(full) if full.is_full() && release(dir)? => {
            tracing::warn!(error = %full, "the disk is full; gave up the reserve");
            act()
        }
        done => done,
    }
}

/// Gives the room back; returns whether there was any.
pub(super) fn release(dir: &ProjectDir) -> Result<bool, StoreError> {
    files::remove(&dir.ballast())
}

/// Takes the room, if it is not taken and there is enough of it.
///
/// Without it everything works but a run on a full disk, so that no room for it is not a failure.
pub(super) fn restore(dir: &ProjectDir) {
    let path = dir.ballast();
    let restored = files::size(&path).and_then(|size| match size {
        Some(size) if size == SIZE as u64 => Ok(()),
        Some(_) | None => files::replace(&path, &incompressible(SIZE)),
    });
    if let Err(error) = restored {
        tracing::debug!(%error, "no room for a reserve");
    }
}

/// Takes the room back while a run goes on, if it is not taken and there is much more.
pub(super) fn restore_amply(dir: &ProjectDir) {
    let is_there = files::exists(&dir.ballast()).unwrap_or(true);
    let is_ample = || {
        let free = rustix::fs::statvfs(dir.path()).map(|found| found.f_bavail.saturating_mul(found.f_frsize));
        free.is_ok_and(|free| free >= AMPLE)
    };
    if !is_there && is_ample() {
        restore(dir);
    }
}

/// Bytes that take as much room as their number says on file systems that compress as well (xorshift64).
fn incompressible(size: usize) -> Vec<u8> {
    let mut word = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(size);
    while bytes.len() < size {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes
}

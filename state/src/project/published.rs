//! The snapshot file that writers publish and readers take.
//!
//! It never runs ahead of the store: a commit is durable before it can be published. A snapshot that is ahead, or of
//! another lineage, therefore says that the store under it was exchanged.

use std::path::PathBuf;

use serde::Deserialize;
use uuid::Uuid;

use super::{ProjectDir, mark};
use crate::error::StoreError;
use crate::failpoints::failpoint;
use crate::files;
use crate::record::{FORMAT_VERSION, Snapshot};
use crate::seal;

/// The part of a snapshot that says which state it shows.
#[derive(Debug, Deserialize)]
struct Version {
    format: u32,
    lineage: Uuid,
    serial: u64,
}

/// The part of a snapshot that is there in every format.
#[derive(Debug, Deserialize)]
struct Format {
    format: u32,
}

/// Replaces the published snapshot.
pub(super) fn write(dir: &ProjectDir, snapshot: &Snapshot) -> Result<(), StoreError> {
    let path = dir.snapshot();
    failpoint!("state.publish.begun", &path);
    let mut json = serde_json::to_vec(snapshot).map_err(|e| StoreError::io("encode", &path)(e.into()))?;
    json.push(b'\n');
    files::replace(&path, &json)?;
    failpoint!("state.publish.replaced", &path);
    mark::put(dir, snapshot.lineage, snapshot.serial)
}

/// Reads the published snapshot; `None` if there is none. One that is older than what was published is refused.
pub(super) fn load(dir: &ProjectDir) -> Result<Option<Snapshot>, StoreError> {
    // The mark first: a writer sets it after the snapshot, so that one who reads them in turn never sees it ahead.
    let mark = mark::of(dir)?;
    let loaded = load_any(dir)?;
    if let (Some(snapshot), Some(mark)) = (&loaded, mark) {
        mark.check(dir, seal::Version::of(snapshot))?;
    }
    Ok(loaded)
}

/// Reads the published snapshot, however old it is; `None` if there is none.
pub(super) fn load_any(dir: &ProjectDir) -> Result<Option<Snapshot>, StoreError> {
    let path = dir.snapshot();
    let Some(json) = files::read(&path)? else { return Ok(None) };
    match serde_json::from_slice::<Snapshot>(&json) {
        Ok(snapshot) if snapshot.format <= FORMAT_VERSION => Ok(Some(snapshot)),
        Ok(snapshot) => Err(newer(path, snapshot.format)),
        Err(error) => Err(unreadable(path, &json, &error)),
    }
}

/// Whether the published snapshot shows what is in the store now.
///
/// Refuses a store that cannot be the one whose snapshot was published last.
pub(super) fn is_current(dir: &ProjectDir, store: seal::Version) -> Result<bool, StoreError> {
    if let Some(mark) = mark::of(dir)? {
        mark.check(dir, store)?;
    }
    let path = dir.snapshot();
    let Some(json) = files::read(&path)? else { return Ok(false) };
    let published = match serde_json::from_slice::<Version>(&json) {
        Ok(published) => published,
        Err(error) => match unreadable(path, &json, &error) {
            error @ StoreError::Damaged { .. } => {
                // It is a copy, and the store it was made of can be read: it is about to be made anew.
                tracing::warn!(%error, "the published snapshot is made anew");
                return Ok(false);
            }
            error => return Err(error),
        },
    };
    if published.format > FORMAT_VERSION {
        return Err(newer(path, published.format));
    }
    if published.lineage != store.lineage || published.serial > store.serial {
        return Err(StoreError::Replaced {
            path: dir.state(),
            lineage: store.lineage,
            serial: store.serial,
            published_lineage: published.lineage,
            published_serial: published.serial,
        });
    }
    Ok(published.serial == store.serial)
}

/// What is wrong with a snapshot that is not of our form.
fn unreadable(path: PathBuf, json: &[u8], error: &serde_json::Error) -> StoreError {
    // A newer form need not have our fields; only its version is sure to be there.
    match serde_json::from_slice(json) {
        Ok(Format { format }) if format > FORMAT_VERSION => newer(path, format),
        Ok(Format { .. }) | Err(_) => StoreError::Damaged { path, detail: error.to_string() },
    }
}

fn newer(path: PathBuf, found: u32) -> StoreError {
    StoreError::Newer { path, found, supported: FORMAT_VERSION }
}

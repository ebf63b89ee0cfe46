//! The highest serial that was ever published, in a file of its own.
//!
//! It stands beside the store and its snapshot, not in them: who puts an older copy of both back is told so.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ProjectDir;
use crate::error::StoreError;
use crate::files;

/// The content of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) lineage: Uuid,
    pub(super) serial: u64,
}

/// Notes that `serial` was published. It is not waited for: a mark that is behind allows more, never less.
pub(super) fn put(dir: &ProjectDir, lineage: Uuid, serial: u64) -> Result<(), StoreError> {
    let json = serde_json::to_vec(&Mark { lineage, serial })
        .map_err(|error| StoreError::io("encode", &dir.mark())(error.into()))?;
    files::replace_soon(&dir.mark(), &json)
}

/// The mark; `None` if there is none that can be read, as after a power cut.
pub(super) fn of(dir: &ProjectDir) -> Result<Option<Mark>, StoreError> {
    Ok(files::read(&dir.mark())?.and_then(|json| serde_json::from_slice(&json).ok()))
}

/// Refuses what is of another lineage than what was published, or older.
pub(super) fn check(dir: &ProjectDir, lineage: Uuid, serial: u64) -> Result<(), StoreError> {
    match of(dir)? {
        Some(mark) if mark.lineage != lineage || mark.serial > serial => Err(StoreError::Replaced {
            path: dir.state(),
            lineage,
            serial,
            published_lineage: mark.lineage,
            published_serial: mark.serial,
        }),
        Some(_) | None => Ok(()),
    }
}

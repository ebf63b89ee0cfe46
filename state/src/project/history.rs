//! Who changed the state, when, and what came of it.
//!
//! The journal is in the store, which only its writer may open. What the last writer found there when it closed stands in
//! a file as well, for those who ask while somebody writes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::dir::Presence;
use super::lock::{self, Holder, Lock};
use super::writer::{self, Reserve};
use super::{ProjectDir, reader};
use crate::error::{StoreError, StoreErrorKind};
use crate::files;
use crate::record::{Ended, Run};
use crate::sled_store::SledStore;

/// What the journal holds, oldest first, as far back as it goes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// The runs.
    pub runs: Vec<Run>,
    /// The steps that ended.
    pub steps: Vec<Ended>,
}

/// Reads the journal, and who is at work on the project now: what that one did is not in it yet.
///
/// Never waits for a writer. A state that is damaged is an error, as for every reader.
pub fn history(dir: &ProjectDir) -> Result<(History, Option<Box<Holder>>), StoreError> {
    if dir.presence()? == Presence::Nothing {
        return Ok((History::default(), None));
    }
    let at_work = match Lock::acquire(&dir.lock(), Duration::ZERO) {
        Ok(Some(_lock)) => match lock::elsewhere(dir) {
            Some(holder) => Some(holder),
            None => return in_store(dir).map(|history| (history, None)),
        },
        Ok(None) => lock::holder(dir),
        Err(refused) if refused.is_write_refused() => reader::at_work(dir).ok().flatten(),
        Err(error) => return Err(error),
    };
    Ok((kept(dir)?, at_work))
}

/// The journal as writers leave it, for who looks again and again: it takes no lock, and stands in nobody's way.
///
/// What a writer that died did is in it once another one closed.
#[derive(Debug, Default)]
pub struct LeftHistory(Option<(SystemTime, u64)>);

impl LeftHistory {
    /// The journal, if a writer left one since the last call, or at all.
    pub fn next(&mut self, dir: &ProjectDir) -> Result<Option<History>, StoreError> {
        let found = match fs::metadata(dir.history()) {
            Ok(found) => (found.modified().unwrap_or(SystemTime::UNIX_EPOCH), found.ino()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("read", &dir.history())(error)),
        };
        // A whole file takes the place of the last one, so that it has another number.
        if self.0 == Some(found) {
            return Ok(None);
        }
        self.0 = Some(found);
        kept(dir).map(Some)
    }
}

/// Reads the journal in the store, whose lock is held.
fn in_store(dir: &ProjectDir) -> Result<History, StoreError> {
    let store = match writer::open_store(dir, Reserve::Keep) {
        Ok(store) => store,
        Err(refused) if refused.is_write_refused() || refused.is_full() => return kept(dir),
        Err(error) => return Err(error),
    };
    let history = of_store(&store);
    store.close()?;
    // Whoever died is told by the journal: its run has no end.
    lock::sign_off_for_the_dead(dir)?;
    history
}

fn of_store(store: &SledStore) -> Result<History, StoreError> {
    Ok(History { runs: store.runs()?, steps: store.history()? })
}

/// Keeps the journal for those who ask while somebody writes. It is a copy: that it cannot be written stops nothing.
pub(super) fn keep(dir: &ProjectDir, store: &SledStore) {
    let kept = of_store(store).and_then(|history| {
        let json = serde_json::to_vec(&history)
            .map_err(|error| StoreError::io("encode", &dir.history())(error.into()))?;
        files::replace_soon(&dir.history(), &json)
    });
    if let Err(error) = kept {
        tracing::debug!(%error, "the journal is not kept for readers");
    }
}

/// The journal as it was kept last; empty if there is none that can be read.
pub(super) fn kept(dir: &ProjectDir) -> Result<History, StoreError> {
    match files::read(&dir.history()) {
        Ok(Some(json)) => Ok(serde_json::from_slice(&json).unwrap_or_else(|error| {
            tracing::warn!(%error, "the journal that was kept for readers is not understood");
            History::default()
        })),
        Ok(None) => Ok(History::default()),
        Err(error) if error.kind() == StoreErrorKind::Io => {
            tracing::warn!(%error, "the journal cannot be read");
            Ok(History::default())
        }
        Err(error) => Err(error),
    }
}

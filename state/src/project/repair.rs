//! Putting a state in place of one that is damaged, lost or not wanted any more. What was there is moved aside, never
//! removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::dir::Presence;
use super::lock::{self, Holder, Lock};
use super::writer::{self, Reserve};
use super::{ProjectDir, history, mark, published};
use crate::error::StoreError;
use crate::files;
use crate::record::{Run, Snapshot};
use crate::seal::Seal;
use crate::sled_store::{self, SledStore};

/// What a state is called that is moved aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// `state.damaged-TIME`.
    Damaged,
    /// `state.replaced-TIME`: it was whole, and another one was wanted.
    Replaced,
}

/// The right to put another state in place of a project's.
///
/// It is the lock that writers take. Dropping it changes nothing and gives the lock back.
#[derive(Debug)]
pub struct Repair {
    dir: ProjectDir,
    /// Whether somebody died before: then the next reader must look into the store, whatever becomes of this.
    writer_died: bool,
    run: Run,
    /// Given back last.
    _lock: Lock,
}

impl Repair {
    /// Takes the lock, waiting at most `wait` for another holder.
    pub fn begin(dir: &ProjectDir, holder: &Holder, wait: Duration) -> Result<Self, StoreError> {
        files::create_private_folder(dir.path())?;
        let lock = Lock::of_writer(dir, wait)?;
        let writer_died = files::exists(&dir.holder())?;
        lock::announce(dir, holder)?;
        Ok(Self { dir: dir.clone(), writer_died, run: Run::begin(holder), _lock: lock })
    }

    /// The folder it works on.
    pub fn dir(&self) -> &ProjectDir {
        &self.dir
    }

    /// What is in the store; `None` if nothing was ever made. The error is what a writer would get, and a store that
    /// gives one is left as it is.
    pub fn store(&self) -> Result<Option<Snapshot>, StoreError> {
        if self.dir.presence()? == Presence::Nothing {
            return Ok(None);
        }
        let store = writer::open_store(&self.dir, Reserve::Spend)?;
        let snapshot = store.current().clone();
        store.close()?;
        Ok(Some(snapshot))
    }

    /// The snapshot that was published last, whatever store it belongs to.
    pub fn published(&self) -> Result<Option<Snapshot>, StoreError> {
        published::load_any(&self.dir)
    }

    /// The highest serial that is known to have been reached, besides those in snapshots and notes.
    pub fn highest_serial(&self) -> Result<u64, StoreError> {
        let mark = mark::of(&self.dir)?.map_or(0, |mark| mark.serial);
        let sealed = Seal::of(&self.dir.state())?.map_or(0, |seal| seal.serial);
        Ok(mark.max(sealed))
    }

    /// The lineage that was published last; `None` if that was not noted.
    pub fn lineage(&self) -> Result<Option<Uuid>, StoreError> {
        Ok(mark::of(&self.dir)?.map(|mark| mark.lineage))
    }

    /// Puts a new store that holds `snapshot` in place, and publishes it. Returns where the old one is now, if there was
    /// one; its published snapshot is with it.
    ///
    /// The new store is whole and durable before the old one is moved. Cut off in between, the next reader finds the old
    /// state, the new one, or that the state is missing while all that it was made of is still there.
    ///
    /// The journal of runs goes on, with this one at its end; that of steps begins anew.
    pub fn replace(mut self, snapshot: &Snapshot, as_what: Kept) -> Result<Option<PathBuf>, StoreError> {
        let (dir, state) = (self.dir.clone(), self.dir.state());
        let mut runs = history::kept(&dir)?.runs;
        runs.push(self.run.clone().end("done", Timestamp::now()));
        let draft = SledStore::draft(&state, snapshot, &runs)?;
        let aside = free_name(&state, as_what, snapshot.taken)?;
        let had_store = files::exists(&state)?;
        let had_snapshot = files::exists(&dir.snapshot())?;
        if had_store {
            fs::rename(&state, &aside).map_err(StoreError::io("move aside", &state))?;
        } else if had_snapshot {
            files::create_private_folder(&aside)?;
        }
        if had_snapshot {
            let copy = aside.join("snapshot.json");
            fs::copy(dir.snapshot(), &copy).map_err(StoreError::io("copy", &dir.snapshot()))?;
        }
        sled_store::install(&draft, &state)?;
        published::write(&dir, snapshot)?;
        // Whoever puts a state in place notes all of it.
        files::remove(&dir.behind())?;
        self.writer_died = false;
        Ok((had_store || had_snapshot).then_some(aside))
    }
}

impl Drop for Repair {
    fn drop(&mut self) {
        if !self.writer_died
            && let Err(error) = files::remove(&self.dir.holder())
        {
            tracing::warn!(%error, "the next reader will look for a dead writer");
        }
    }
}

/// A name beside `state` that nothing has, with the time in it.
fn free_name(state: &Path, as_what: Kept, at: Timestamp) -> Result<PathBuf, StoreError> {
    let word = match as_what {
        Kept::Damaged => "damaged",
        Kept::Replaced => "replaced",
    };
    let plain = state.with_extension(format!("{word}-{}", at.strftime("%Y%m%dT%H%M%SZ")));
    let mut name = plain.clone();
    let mut number = 2;
    while files::exists(&name)? {
        let mut numbered = plain.clone().into_os_string();
        numbered.push(format!("-{number}"));
        name = numbered.into();
        number += 1;
    }
    Ok(name)
}

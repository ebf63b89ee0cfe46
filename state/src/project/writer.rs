//! Writing the state: one writer per project at a time.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::dir::Presence;
use super::lock::{self, Holder, Lock};
use super::{ProjectDir, ballast, history, published};
use crate::error::StoreError;
use crate::failpoints::failpoint;
use crate::files;
use crate::record::{Ended, Run, Snapshot};
use crate::seal::Version;
use crate::sled_store::SledStore;
use crate::store::{Entry, Store};

/// The right to write one project's state, and the store to write to.
///
/// It belongs to one process and one owner in it: a second writer of the same project is refused, in this process
/// as well. Hold it for a whole run.
#[derive(Debug)]
pub struct Writer {
    dir: ProjectDir,
    /// There until the writer is finished.
    store: Option<SledStore>,
    /// The serial that readers see.
    published: u64,
    /// Whether machines' notes may be behind because a writer died.
    notes_behind: bool,
    /// What this one is in the journal, from its first commit.
    run: Run,
    is_begun: bool,
    result: Option<&'static str>,
    /// Given back last.
    _lock: Lock,
}

/// What may become of the room that is kept free for a full disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserve {
    /// It stays. For everything that takes room, or that can wait until there is some.
    Keep,
    /// It is given up if nothing else helps. For what gives room back.
    Spend,
}

impl Writer {
    /// Takes the lock, waiting at most `wait` for another holder, and opens the store.
    ///
    /// A project without a state gets one with the given `lineage`; a project that only lost its state is
    /// [`Missing`](StoreError::Missing). What a dead writer committed is there, with the steps it left open in
    /// [`Snapshot::open`]. On success readers see the current serial. Blocks the calling thread while it waits.
    /// On a full disk it fails, unless it may spend the `reserve`. A store that is damaged, or that is not what was
    /// published, is refused and left as it is.
    pub fn open(
        dir: &ProjectDir,
        holder: Holder,
        lineage: Uuid,
        wait: Duration,
        reserve: Reserve,
    ) -> Result<Self, StoreError> {
        files::create_private_folder(dir.path())?;
        let lock = Lock::of_writer(dir, wait)?;
        let writer_died = files::exists(&dir.holder())?;
        let open = || {
            let presence = dir.presence()?;
            if writer_died {
                files::replace_soon(&dir.behind(), b"")?;
            }
            lock::announce(dir, &holder)?;
            if presence == Presence::Nothing {
                // Nothing is left of what it marks.
                files::remove(&dir.mark())?;
                SledStore::create(&dir.state(), lineage)?;
                ballast::restore(dir);
            }
            for replaced in [dir.snapshot(), dir.mark(), dir.history(), dir.behind()] {
                files::remove_draft(&replaced)?;
            }
            files::remove_drafts(&dir.lineage())?;
            files::remove_drafts(&dir.key())?;
            open_store(dir, Reserve::Keep)
        };
        let opened = match reserve {
            Reserve::Spend => ballast::with_room(dir, open),
            Reserve::Keep => open(),
        };
        match opened {
            Ok(store) => {
                let run = Run::begin(&holder);
                let notes_behind = files::exists(&dir.behind())?;
                let published = store.current().serial;
                Ok(Self {
                    dir: dir.clone(),
                    store: Some(store),
                    published,
                    notes_behind,
                    run,
                    is_begun: false,
                    result: None,
                    _lock: lock,
                })
            }
            Err(error) => {
                // Nothing was committed, so that a snapshot that was exact still is.
                if !writer_died && let Err(leftover) = files::remove(&dir.holder()) {
                    tracing::warn!(error = %leftover, "the next reader will look for a dead writer");
                }
                Err(error)
            }
        }
    }

    /// The folder it writes to.
    pub fn dir(&self) -> &ProjectDir {
        &self.dir
    }

    /// Returns the steps that ended, oldest first, as far back as the journal goes.
    pub fn history(&self) -> Result<Vec<Ended>, StoreError> {
        self.store().history()
    }

    /// Gives up the room that is kept for a run on a full disk; returns whether there was any.
    ///
    /// Opening does so by itself when it needs to and may. The room is taken again on close, if there is enough.
    pub fn release_ballast(&self) -> Result<bool, StoreError> {
        ballast::release(&self.dir)
    }

    /// Says what came of this run, in a word for the journal. Unless it is said, closing means `done`.
    pub fn set_result(&mut self, result: &'static str) {
        self.result = Some(result);
    }

    /// Publishes, closes the store and gives the lock back. Dropping does the same, but hides failures.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.finish("done")
    }

    fn finish(&mut self, result: &'static str) -> Result<(), StoreError> {
        let Some(mut store) = self.store.take() else { return Ok(()) };
        if self.is_begun && !store.is_broken() {
            let run = self.run.clone().end(self.result.unwrap_or(result), Timestamp::now());
            if let Err(error) = store.end_run(&run) {
                // The deeds are recorded; that this run ended well is all that is lost.
                tracing::warn!(%error, "the end of this run is not in the journal");
            }
            history::keep(&self.dir, &store);
        }
        let published = publish(&self.dir, &mut store, self.published);
        let in_doubt = store.is_broken();
        store.close()?;
        published?;
        failpoint!("state.close.published", self.dir.path());
        // After a failed commit only the store knows whether it took place: the next one to come shall look.
        if !in_doubt {
            ballast::restore(&self.dir);
            files::remove(&self.dir.holder())?;
        }
        Ok(())
    }

    fn store(&self) -> &SledStore {
        self.store.as_ref().expect("only `finish` takes it, and nothing comes after that")
    }

    fn store_mut(&mut self) -> &mut SledStore {
        self.store.as_mut().expect("only `finish` takes it, and nothing comes after that")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Err(error) = self.finish("failed") {
            tracing::warn!(%error, "the state was not closed in order; the next one to read it will do that");
        }
    }
}

impl Store for Writer {
    fn snapshot(&self) -> Result<Snapshot, StoreError> {
        Ok(Snapshot { taken: Timestamp::now(), ..self.store().current().clone() })
    }

    fn commit(&mut self, entries: &[Entry]) -> Result<u64, StoreError> {
        let run = (!self.is_begun).then(|| self.run.clone());
        let serial = self.store_mut().commit(entries, run.as_ref())?;
        self.is_begun |= !entries.is_empty();
        Ok(serial)
    }

    fn run(&self) -> Option<Uuid> {
        Some(self.run.id)
    }

    fn follows_a_crash(&self) -> bool {
        self.notes_behind
    }

    fn notes_left_behind(&mut self) -> Result<(), StoreError> {
        self.notes_behind = true;
        files::replace_soon(&self.dir.behind(), b"")
    }

    fn notes_caught_up(&mut self) -> Result<(), StoreError> {
        files::remove(&self.dir.behind())?;
        self.notes_behind = false;
        Ok(())
    }

    fn publish(&mut self) -> Result<(), StoreError> {
        let published = self.published;
        let dir = self.dir.clone();
        self.published = publish(&dir, self.store_mut(), published)?;
        // A run that frees room takes the reserve again at once: who knows how it ends.
        ballast::restore_amply(&dir);
        Ok(())
    }
}

/// Opens the store of a project that has one, and publishes what is in it. The caller holds the lock.
pub(super) fn open_store(dir: &ProjectDir, reserve: Reserve) -> Result<SledStore, StoreError> {
    let open = || {
        let expected = |found| published::is_current(dir, found).map(drop);
        let store = SledStore::open(&dir.state(), &expected)?;
        if !published::is_current(dir, Version::of(store.current()))? {
            published::write(dir, store.current())?;
        }
        Ok(store)
    };
    match reserve {
        Reserve::Spend => ballast::with_room(dir, open),
        Reserve::Keep => open(),
    }
}

fn publish(dir: &ProjectDir, store: &mut SledStore, published: u64) -> Result<u64, StoreError> {
    let serial = store.current().serial;
    if serial != published {
        published::write(dir, store.taken(Timestamp::now()))?;
    }
    Ok(serial)
}

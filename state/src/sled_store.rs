//! The durable store: a sled database, with everything around it that sled 0.34 leaves to its users.
//!
//! - sled's flush does not sync: every commit ends with fdatasync of its one data file, on a handle of our own.
//! - Values that do not fit into a quarter of a log segment go to files of their own, which nobody syncs. A page
//!   holds about 20 values, so values are cut into pieces small enough that no page ever gets there.
//! - A kill while it opens can leave a half-written index (`snap.*`), which it then takes for corruption. The index
//!   is made from the log: without it, sled makes it again.
//! - It panics on a damaged file, or takes it for an older one and writes it down as that: what is not byte for byte
//!   what was closed is tried on a copy first.
//!
//! Everything is read once, on opening; from then on the state is in memory and sled is only written to.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sled::transaction::{TransactionError, TransactionalTree, UnabortableTransactionError};
use sled::{Db, Transactional, Tree};
use uuid::Uuid;

use crate::error::StoreError;
use crate::failpoints::failpoint;
use crate::files;
use crate::guard;
use crate::ledger::{Head, Ledger, Row, Staged};
use crate::project::lock::Lock;
use crate::record::{Ended, FORMAT_VERSION, Intent, Record, Run, Snapshot};
use crate::seal::{Seal, Version};
use crate::store::Entry;

/// Everything is in our memory anyway, so sled's own cache only has to hold what is being written.
const CACHE: u64 = 16 << 20;
/// A page of 20 such pieces stays under 128 KiB, where sled would put it into a file of its own.
const PIECE: usize = 4 << 10;
/// How long it may take until a database that was dropped is closed.
const CLOSING: Duration = Duration::from_secs(5);

/// The tree of the format version and of the [`Head`].
const META: &str = "meta";
const RECORDS: &str = "records";
const INTENTS: &str = "intents";
const HISTORY: &str = "history";
/// Commands that changed something. A vmctl that knows no such tree leaves it alone.
const RUNS: &str = "runs";

/// How many runs are kept: some years of a busy project.
const RUNS_LIMIT: usize = 1_000;

const FORMAT_KEY: &[u8] = b"format";
const HEAD_KEY: &[u8] = b"head";

/// The file in a store's folder that holds the data; without it there is no store.
pub(crate) fn data_file(folder: &Path) -> PathBuf {
    folder.join("db")
}

/// A store in a folder. The caller holds the project's lock as long as it exists.
pub(crate) struct SledStore {
    folder: PathBuf,
    engine: Engine,
    /// Second handle on the data file, for syncing it.
    data: File,
    ledger: Ledger,
    /// Set when a commit failed: what is on the disk is then known only after opening again.
    broken: bool,
}

impl fmt::Debug for SledStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { folder, engine: _, data: _, ledger, broken } = self;
        f.debug_struct("SledStore")
            .field("folder", folder)
            .field("head", &ledger.head())
            .field("broken", broken)
            .finish()
    }
}

impl SledStore {
    /// Makes an empty store at `folder`, where there is none. It appears whole or not at all.
    pub(crate) fn create(folder: &Path, lineage: Uuid) -> Result<(), StoreError> {
        let draft = Self::draft(folder, &Snapshot::empty(lineage, Timestamp::now()), &[])?;
        // What is at the place now holds no data file, so that it is no store; usually there is nothing.
        if files::exists(folder)? {
            fs::remove_dir(folder).map_err(StoreError::io("replace folder", folder))?;
        }
        install(&draft, folder)
    }

    /// Makes a whole store that holds `snapshot`, durable, beside `folder`; returns where. [`install`] puts it in place.
    pub(crate) fn draft(folder: &Path, snapshot: &Snapshot, runs: &[Run]) -> Result<PathBuf, StoreError> {
        let draft = folder.with_extension("new");
        if files::exists(&draft)? {
            fs::remove_dir_all(&draft).map_err(StoreError::io("remove", &draft))?;
        }
        files::create_private_folder(&draft)?;
        let mut rows = Vec::with_capacity(snapshot.records.len() + snapshot.open.len());
        rows.extend(snapshot.records.values().map(|record| Row::PutRecord(Box::new(record.clone()))));
        rows.extend(snapshot.open.iter().cloned().map(Row::OpenIntent));
        let head = Ledger::of(snapshot.clone()).head();
        let mut writes = writes(&Staged { rows, head }, &draft)?;
        for run in runs {
            writes.push(run_row(run, &draft)?);
        }
        let version = Some(encode(&FORMAT_VERSION, &draft)?);
        writes.push(Write { tree: Place::Meta, key: FORMAT_KEY.to_vec(), value: version });
        contained(&draft, || {
            let engine = Engine::over(Engine::config(&draft).open()?)?;
            engine.transact(&writes)?;
            engine.db.flush().map(drop)
        })?;
        wait_until_closed(&draft)?;
        files::restrict_contents(&draft)?;
        for (path, is_folder) in files::entries(&draft)? {
            if !is_folder {
                File::open(&path).and_then(|file| file.sync_all()).map_err(StoreError::io("sync", &path))?;
            }
        }
        Seal::put(&draft, snapshot.lineage, snapshot.serial)?;
        files::sync_folder(&draft)?;
        failpoint!("state.create.drafted", folder);
        Ok(draft)
    }

    /// Opens the store at `folder`, provided that `expected` accepts what is in it.
    ///
    /// A store that is damaged, or is not what was expected, is left as it is, byte for byte.
    pub(crate) fn open(
        folder: &Path,
        expected: &dyn Fn(Version) -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        let seal = Seal::of(folder)?;
        let is_whole = match &seal {
            Some(seal) => seal.fits(folder)?,
            None => false,
        };
        let expected = |found: Version| {
            match &seal {
                Some(seal) if seal.lineage == found.lineage && seal.serial > found.serial => {
                    let detail = format!(
                        "it was closed at serial {}, but only serial {} is left in it",
                        seal.serial, found.serial
                    );
                    return Err(damaged(folder, detail));
                }
                Some(_) | None => {}
            }
            expected(found)
        };
        if let Some(seal) = seal.as_ref().filter(|_| is_whole) {
            // What was sealed is what is in it, so that it need not be opened to be refused.
            seal.check_format(folder)?;
            expected(seal.version())?;
        } else {
            match Self::rehearse(folder, &expected) {
                // Where nothing can be copied, opening is the only way to know: what is found is checked all the same.
                Err(error) if error.is_full() || error.is_write_refused() => {
                    tracing::warn!(%error, "the store is opened without trying a copy first");
                }
                tried => tried?,
            }
        }
        let store = Self::open_in_place(folder)?;
        expected(Version::of(store.current()))?;
        Ok(store)
    }

    /// Opens a copy of the store, which is removed again.
    fn rehearse(
        folder: &Path,
        expected: &dyn Fn(Version) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let copy = folder.with_extension("trial");
        let remove = || match fs::remove_dir_all(&copy) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("remove folder", &copy)(error))
            }
            _ => Ok(()),
        };
        remove()?;
        let tried = files::copy_folder(folder, &copy).and_then(|()| {
            let store = Self::open_in_place(&copy).map_err(|error| error.about(&copy, folder))?;
            let accepted = expected(Version::of(store.current()));
            drop(store);
            wait_until_closed(&copy)?;
            accepted
        });
        let removed = remove();
        tried.and(removed)
    }

    /// Opens the store at `folder`, mending what sled breaks by itself when it is killed.
    fn open_in_place(folder: &Path) -> Result<Self, StoreError> {
        let path = data_file(folder);
        let data = File::open(&path).map_err(StoreError::io("open", &path))?;
        wait_until_closed(folder)?;
        remove_index_files(folder, |name| name.ends_with(".generating"))?;
        let db = contained(folder, || match Engine::config(folder).open() {
            // Only this answer can mean a torn index. Without it, sled takes a torn log for a shorter one.
            Err(sled::Error::Corruption { .. }) => Ok(None),
            opened => opened.map(Some),
        })?;
        let db = match db {
            Some(db) => db,
            None => {
                tracing::warn!(path = %folder.display(), "the store's index is made anew");
                remove_index_files(folder, |_| true)?;
                contained(folder, || Engine::config(folder).open())?
            }
        };
        files::restrict_contents(folder)?;
        let (engine, ledger) =
            guard::contain(|| load(db, folder)).unwrap_or_else(|panic| Err(damaged(folder, panic)))?;
        Ok(Self { folder: folder.to_path_buf(), engine, data, ledger, broken: false })
    }

    /// The state after the last commit that succeeded.
    pub(crate) fn current(&self) -> &Snapshot {
        self.ledger.snapshot()
    }

    /// The same, marked as taken `at`.
    pub(crate) fn taken(&mut self, at: Timestamp) -> &Snapshot {
        self.ledger.snapshot_at(at)
    }

    /// Whether a commit failed in such a way that it may have taken place.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Commits as [`Store::commit`](crate::Store::commit) says, and with it that `run` began, if that is given.
    pub(crate) fn commit(&mut self, entries: &[Entry], run: Option<&Run>) -> Result<u64, StoreError> {
        if entries.is_empty() {
            return Ok(self.current().serial);
        }
        if self.broken {
            let why = io::Error::other("an earlier commit failed; the state must be opened again");
            return Err(StoreError::io("write", &self.folder)(why));
        }
        let staged = self.ledger.stage(entries, Timestamp::now())?;
        let mut writes = writes(&staged, &self.folder)?;
        if let Some(run) = run {
            writes.push(run_row(run, &self.folder)?);
            writes.extend(self.surplus_runs()?);
        }
        self.write(&writes).inspect_err(|_| self.broken = true)?;
        self.ledger.accept(staged);
        Ok(self.current().serial)
    }

    fn write(&self, writes: &[Write]) -> Result<(), StoreError> {
        failpoint!("state.commit.begun", &self.folder);
        contained(&self.folder, || {
            self.engine.transact(writes)?;
            self.engine.db.flush().map(drop)
        })?;
        failpoint!("state.commit.flushed", &data_file(&self.folder));
        self.data.sync_data().map_err(StoreError::io("sync", &data_file(&self.folder)))?;
        failpoint!("state.commit.synced", &data_file(&self.folder));
        Ok(())
    }

    /// Keeps how `run` ended. The serial stays: what is recorded did not change.
    pub(crate) fn end_run(&self, run: &Run) -> Result<(), StoreError> {
        self.write(&[run_row(run, &self.folder)?])
    }

    /// Reads the runs that are kept, oldest first.
    pub(crate) fn runs(&self) -> Result<Vec<Run>, StoreError> {
        let rows = contained(&self.folder, || rows(&self.engine.runs))?;
        rows.into_iter().map(|(key, pieces)| decode(&key, &pieces, &self.folder)).collect()
    }

    /// What removes the runs for which there is no room besides a new one.
    fn surplus_runs(&self) -> Result<Vec<Write>, StoreError> {
        let rows = contained(&self.folder, || rows(&self.engine.runs))?;
        let surplus = (rows.len() + 1).saturating_sub(RUNS_LIMIT);
        Ok(rows.into_keys().take(surplus).map(|key| Write { tree: Place::Runs, key, value: None }).collect())
    }

    /// Reads the steps that ended, oldest first.
    pub(crate) fn history(&self) -> Result<Vec<Ended>, StoreError> {
        let rows = contained(&self.folder, || rows(&self.engine.history))?;
        rows.into_iter().map(|(key, pieces)| decode(&key, &pieces, &self.folder)).collect()
    }

    /// Closes the database and seals it. Everything committed is on the disk already.
    pub(crate) fn close(self) -> Result<(), StoreError> {
        let Self { folder, engine, data: _, ledger, broken } = self;
        contained(&folder, || {
            drop(engine);
            Ok(())
        })?;
        if broken {
            return Ok(());
        }
        wait_until_closed(&folder)?;
        // Without a seal the next one to open it takes the longer way.
        let snapshot = ledger.snapshot();
        match Seal::put(&folder, snapshot.lineage, snapshot.serial) {
            Err(error) if error.is_full() || error.is_write_refused() => {
                tracing::debug!(%error, "the store is not sealed");
                Ok(())
            }
            sealed => sealed,
        }
    }
}

/// Puts a store that [`SledStore::draft`] made in its place, where nothing is.
pub(crate) fn install(draft: &Path, folder: &Path) -> Result<(), StoreError> {
    fs::rename(draft, folder).map_err(StoreError::io("rename folder", draft))?;
    folder.parent().map_or(Ok(()), files::sync_folder)
}

/// The open database.
struct Engine {
    db: Db,
    meta: Tree,
    records: Tree,
    intents: Tree,
    history: Tree,
    runs: Tree,
}

/// One row as bytes: what is to stand under a key of a tree, or nothing.
struct Write {
    tree: Place,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

#[derive(Clone, Copy)]
enum Place {
    Meta,
    Records,
    Intents,
    History,
    Runs,
}

impl Engine {
    fn config(folder: &Path) -> sled::Config {
        // Without a flusher in the background, nothing is written but by a commit.
        sled::Config::new().path(folder).cache_capacity(CACHE).flush_every_ms(None)
    }

    fn over(db: Db) -> sled::Result<Self> {
        Ok(Self {
            meta: db.open_tree(META)?,
            records: db.open_tree(RECORDS)?,
            intents: db.open_tree(INTENTS)?,
            history: db.open_tree(HISTORY)?,
            runs: db.open_tree(RUNS)?,
            db,
        })
    }

    /// Makes all writes or none.
    fn transact(&self, writes: &[Write]) -> sled::Result<()> {
        let done = (&self.meta, &self.records, &self.intents, &self.history, &self.runs).transaction(
            |(meta, records, intents, history, runs)| {
                for write in writes {
                    let tree = match write.tree {
                        Place::Meta => meta,
                        Place::Records => records,
                        Place::Intents => intents,
                        Place::History => history,
                        Place::Runs => runs,
                    };
                    put(tree, write)?;
                }
                Ok(())
            },
        );
        done.map_err(|failed: TransactionError<Infallible>| match failed {
            TransactionError::Storage(error) => error,
            TransactionError::Abort(never) => match never {},
        })
    }
}

/// Puts the pieces of a value in place of those of the value before it.
fn put(tree: &TransactionalTree, write: &Write) -> Result<(), UnabortableTransactionError> {
    let pieces = write.value.as_deref().map_or_else(Vec::new, |value| value.chunks(PIECE).collect());
    let mut number = 0;
    for piece in pieces {
        tree.insert(piece_key(&write.key, number), piece)?;
        number += 1;
    }
    while tree.get(piece_key(&write.key, number))?.is_some() {
        tree.remove(piece_key(&write.key, number))?;
        number += 1;
    }
    Ok(())
}

/// The key of one piece: the row's key, then the piece's number.
fn piece_key(key: &[u8], number: u32) -> Vec<u8> {
    [key, &number.to_be_bytes()].concat()
}

/// Reads a tree: the value of each key, put together from its pieces.
fn rows(tree: &Tree) -> sled::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut rows = BTreeMap::<Vec<u8>, Vec<u8>>::new();
    for entry in tree {
        let (key, piece) = entry?;
        let key = key.split_last_chunk::<4>().map_or(&key[..], |(key, _number)| key);
        rows.entry(key.to_vec()).or_default().extend_from_slice(&piece);
    }
    Ok(rows)
}

/// Reads the whole state, and checks that it is one.
fn load(db: Db, folder: &Path) -> Result<(Engine, Ledger), StoreError> {
    let failed = |error| engine_error(folder, error);
    if !db.tree_names().iter().any(|name| name == META.as_bytes()) {
        return Err(damaged(folder, "it is no state of vmctl"));
    }
    let engine = Engine::over(db).map_err(failed)?;
    let meta = rows(&engine.meta).map_err(failed)?;
    let stated = |key: &[u8], what| {
        meta.get(key).ok_or_else(|| damaged(folder, format!("it does not state its {what}")))
    };
    let format: u32 = decode(FORMAT_KEY, stated(FORMAT_KEY, "format")?, folder)?;
    if format > FORMAT_VERSION {
        return Err(StoreError::Newer {
            path: folder.to_path_buf(),
            found: format,
            supported: FORMAT_VERSION,
        });
    }
    let head: Head = decode(HEAD_KEY, stated(HEAD_KEY, "serial")?, folder)?;
    let mut records = BTreeMap::new();
    for (key, value) in rows(&engine.records).map_err(failed)? {
        let record: Record = decode(&key, &value, folder)?;
        records.insert(record.address.clone(), record);
    }
    let mut open = BTreeMap::new();
    for (key, value) in rows(&engine.intents).map_err(failed)? {
        let intent: Intent = decode(&key, &value, folder)?;
        open.insert(intent.op, intent);
    }
    let ledger =
        Ledger::from_parts(head, records, open, Timestamp::now()).map_err(|why| damaged(folder, why))?;
    Ok((engine, ledger))
}

/// A run as bytes. Its key sorts by time.
fn run_row(run: &Run, folder: &Path) -> Result<Write, StoreError> {
    // No time before 1970 is one of ours.
    let began = u64::try_from(run.began.as_microsecond()).unwrap_or(0);
    let key = [&began.to_be_bytes()[..], run.id.as_bytes()].concat();
    Ok(Write { tree: Place::Runs, key, value: Some(encode(run, folder)?) })
}

/// What a staged commit writes, as bytes.
fn writes(staged: &Staged, folder: &Path) -> Result<Vec<Write>, StoreError> {
    let number = |n: u64| n.to_be_bytes().to_vec();
    let mut writes = Vec::with_capacity(staged.rows.len() + 1);
    for row in &staged.rows {
        let (tree, key, value) = match row {
            Row::PutRecord(record) => {
                let key = record.address.as_str().as_bytes().to_vec();
                (Place::Records, key, Some(encode(record, folder)?))
            }
            Row::RemoveRecord(address) => (Place::Records, address.as_str().as_bytes().to_vec(), None),
            Row::OpenIntent(intent) => (Place::Intents, number(intent.op.0), Some(encode(intent, folder)?)),
            Row::CloseIntent(op) => (Place::Intents, number(op.0), None),
            Row::AddEnded(at, ended) => (Place::History, number(*at), Some(encode(ended, folder)?)),
            Row::DropEnded(at) => (Place::History, number(*at), None),
        };
        writes.push(Write { tree, key, value });
    }
    writes.push(Write {
        tree: Place::Meta,
        key: HEAD_KEY.to_vec(),
        value: Some(encode(&staged.head, folder)?),
    });
    Ok(writes)
}

fn encode(value: &impl Serialize, folder: &Path) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::io("encode for", folder)(error.into()))
}

fn decode<T: DeserializeOwned>(key: &[u8], json: &[u8], folder: &Path) -> Result<T, StoreError> {
    serde_json::from_slice(json)
        .map_err(|error| damaged(folder, format!("entry `{}`: {error}", key.escape_ascii())))
}

/// Runs something of sled's, with its errors and its panics turned into ours.
fn contained<T>(folder: &Path, act: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    match guard::contain(act) {
        Ok(done) => done.map_err(|error| engine_error(folder, error)),
        Err(panic) => Err(damaged(folder, panic)),
    }
}

fn engine_error(folder: &Path, error: sled::Error) -> StoreError {
    match error {
        // These are sled's answers to a file that is too short or makes no sense.
        sled::Error::Io(error)
            if matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
            ) =>
        {
            damaged(folder, error.to_string())
        }
        sled::Error::Io(source) => {
            StoreError::Io { action: "use the store", path: folder.to_path_buf(), source }
        }
        other => damaged(folder, other.to_string()),
    }
}

fn damaged(folder: &Path, detail: impl Into<String>) -> StoreError {
    StoreError::Damaged { path: folder.to_path_buf(), detail: detail.into() }
}

/// Waits until nobody has the database open any more.
///
/// With the project's lock in our hands nobody should, but sled's threads end after it was dropped, and a child that
/// is just being started holds a copy of every handle until it runs.
fn wait_until_closed(folder: &Path) -> Result<(), StoreError> {
    let path = data_file(folder);
    match Lock::acquire(&path, CLOSING)? {
        Some(_lock) => Ok(()),
        None => Err(StoreError::io("lock", &path)(io::ErrorKind::WouldBlock.into())),
    }
}

/// Removes those files of sled's index whose name is picked.
fn remove_index_files(folder: &Path, pick: impl Fn(&str) -> bool) -> Result<(), StoreError> {
    for (path, is_folder) in files::entries(folder)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !is_folder && name.starts_with("snap.") && pick(name) {
            files::remove(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

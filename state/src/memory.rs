//! A store that forgets everything when it is dropped.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use jiff::Timestamp;
use uuid::Uuid;

use crate::error::StoreError;
use crate::ledger::{Ledger, Row};
use crate::record::{Ended, Snapshot};
use crate::store::{Entry, Store};

/// Keeps the contract of [`Store`] in memory, for tests and for runs that must leave nothing behind.
///
/// It can be told to fail, so that whoever uses a store can be tested against a full disk.
#[derive(Debug)]
pub struct MemoryStore {
    ledger: Ledger,
    history: BTreeMap<u64, Ended>,
    fails_from: Option<u64>,
    broken: bool,
}

impl MemoryStore {
    /// An empty state of the given lineage.
    pub fn new(lineage: Uuid) -> Self {
        Self {
            ledger: Ledger::new(lineage, Timestamp::now()),
            history: BTreeMap::new(),
            fails_from: None,
            broken: false,
        }
    }

    /// Makes the commit that would reach `serial` fail as on a full disk, and every later one with it.
    pub fn fail_from(&mut self, serial: u64) {
        self.fails_from = Some(serial);
    }

    /// Returns the steps that ended, oldest first, as far back as the journal goes.
    pub fn history(&self) -> Vec<Ended> {
        self.history.values().cloned().collect()
    }
}

impl Store for MemoryStore {
    fn snapshot(&self) -> Result<Snapshot, StoreError> {
        Ok(Snapshot { taken: Timestamp::now(), ..self.ledger.snapshot().clone() })
    }

    fn commit(&mut self, entries: &[Entry]) -> Result<u64, StoreError> {
        if entries.is_empty() {
            return Ok(self.ledger.snapshot().serial);
        }
        let staged = self.ledger.stage(entries, Timestamp::now())?;
        self.broken |= self.fails_from.is_some_and(|serial| staged.head.serial >= serial);
        if self.broken {
            return Err(StoreError::io("write", Path::new("memory"))(io::ErrorKind::StorageFull.into()));
        }
        for row in &staged.rows {
            match row {
                Row::AddEnded(number, ended) => {
                    self.history.insert(*number, ended.as_ref().clone());
                }
                Row::DropEnded(number) => {
                    self.history.remove(number);
                }
                Row::PutRecord(_) | Row::RemoveRecord(_) | Row::OpenIntent(_) | Row::CloseIntent(_) => {}
            }
        }
        self.ledger.accept(staged);
        Ok(self.ledger.snapshot().serial)
    }

    fn publish(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

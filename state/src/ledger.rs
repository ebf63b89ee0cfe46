//! What a commit means, decided over plain values.
//!
//! A [`Ledger`] is the whole state in memory. [`stage`](Ledger::stage) turns the entries of a commit into the rows
//! to write, without changing anything; a store makes the rows durable in whatever way it has; only then
//! [`accept`](Ledger::accept) makes them part of the ledger. Both steps cost as much as the commit is large,
//! however many records there are.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::StoreError;
use crate::record::{Address, Ended, Intent, OpId, Record, Snapshot};
use crate::store::Entry;

/// How many ended steps the journal keeps: some hundred machines' last apply, and a few ms to read.
pub(crate) const HISTORY_LIMIT: u64 = 1_000;

/// The counters of a state. A store that lost rows no longer agrees with them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) lineage: Uuid,
    pub(crate) serial: u64,
    pub(crate) next_op: OpId,
    /// Number of records.
    pub(crate) records: usize,
    /// Number of open intents.
    pub(crate) open: usize,
    /// Numbers of the ended steps that are kept.
    pub(crate) history: Range<u64>,
}

/// One row to write or to remove.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Row {
    PutRecord(Box<Record>),
    RemoveRecord(Address),
    OpenIntent(Intent),
    CloseIntent(OpId),
    AddEnded(u64, Box<Ended>),
    DropEnded(u64),
}

/// A commit that was found right and is not made yet.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) rows: Vec<Row>,
    pub(crate) head: Head,
}

/// The state in memory.
#[derive(Debug)]
pub(crate) struct Ledger {
    snapshot: Snapshot,
    history: Range<u64>,
}

impl Ledger {
    /// A state in which nothing happened yet.
    pub(crate) fn new(lineage: Uuid, at: Timestamp) -> Self {
        Self::of(Snapshot::empty(lineage, at))
    }

    /// A state that begins with `snapshot` and has no journal.
    pub(crate) fn of(snapshot: Snapshot) -> Self {
        Self { snapshot, history: 0..0 }
    }

    /// Puts a stored state together; fails, for people, if `head` does not agree with what was found.
    pub(crate) fn from_parts(
        head: Head,
        records: BTreeMap<Address, Record>,
        open: BTreeMap<OpId, Intent>,
        at: Timestamp,
    ) -> Result<Self, String> {
        if (records.len(), open.len()) != (head.records, head.open) {
            return Err(format!(
                "it should hold {} records and {} open steps, but {} and {} were found",
                head.records,
                head.open,
                records.len(),
                open.len()
            ));
        }
        let snapshot = Snapshot {
            serial: head.serial,
            next_op: head.next_op,
            records,
            open: open.into_values().collect(),
            ..Snapshot::empty(head.lineage, at)
        };
        Ok(Self { snapshot, history: head.history })
    }

    /// The state as readers see it.
    pub(crate) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The state as readers see it, taken `at`.
    pub(crate) fn snapshot_at(&mut self, at: Timestamp) -> &Snapshot {
        self.snapshot.taken = at;
        &self.snapshot
    }

    /// The counters.
    pub(crate) fn head(&self) -> Head {
        Head {
            lineage: self.snapshot.lineage,
            serial: self.snapshot.serial,
            next_op: self.snapshot.next_op,
            records: self.snapshot.records.len(),
            open: self.snapshot.open.len(),
            history: self.history.clone(),
        }
    }

    /// Decides what committing `entries` at `at` writes.
    pub(crate) fn stage(&self, entries: &[Entry], at: Timestamp) -> Result<Staged, StoreError> {
        let mut head = self.head();
        head.serial += 1;
        let mut rows = Vec::with_capacity(2 * entries.len());
        let mut begun = BTreeMap::new();
        let mut ended = BTreeSet::new();
        let mut recorded = BTreeMap::new();

        for entry in entries {
            match entry {
                Entry::Begin(intent) => {
                    head.next_op = following(intent.op, head.next_op)?;
                    begun.insert(intent.op, intent);
                    rows.push(Row::OpenIntent(intent.clone()));
                }
                Entry::End { op, outcome } => {
                    let intent = begun.get(op).copied().or_else(|| self.open_intent(*op));
                    let Some(intent) = intent.filter(|_| ended.insert(*op)) else {
                        return Err(StoreError::Refused { op: *op, reason: "it is not open" });
                    };
                    let entry = Ended { intent: intent.clone(), at, outcome: outcome.clone() };
                    rows.push(Row::CloseIntent(*op));
                    rows.push(Row::AddEnded(head.history.end, Box::new(entry)));
                    head.history.end += 1;
                }
                Entry::Put(record) => {
                    recorded.insert(&record.address, true);
                    rows.push(Row::PutRecord(record.clone()));
                }
                Entry::Remove(address) => {
                    recorded.insert(address, false);
                    rows.push(Row::RemoveRecord(address.clone()));
                }
            }
        }

        let kept = head.history.end.saturating_sub(HISTORY_LIMIT).max(head.history.start);
        rows.extend((head.history.start..kept).map(Row::DropEnded));
        head.history.start = kept;
        head.open = head.open + begun.len() - ended.len();
        for (address, stays) in recorded {
            match (self.snapshot.records.contains_key(address), stays) {
                (false, true) => head.records += 1,
                (true, false) => head.records -= 1,
                (true, true) | (false, false) => {}
            }
        }
        Ok(Staged { rows, head })
    }

    /// Makes a staged commit part of the ledger. It must have been staged on the ledger as it is now.
    pub(crate) fn accept(&mut self, staged: Staged) {
        for row in staged.rows {
            match row {
                Row::PutRecord(record) => {
                    self.snapshot.records.insert(record.address.clone(), *record);
                }
                Row::RemoveRecord(address) => {
                    self.snapshot.records.remove(&address);
                }
                // Numbers grow, so the list stays sorted.
                Row::OpenIntent(intent) => self.snapshot.open.push(intent),
                Row::CloseIntent(op) => {
                    if let Ok(found) = self.snapshot.open.binary_search_by_key(&op, |intent| intent.op) {
                        self.snapshot.open.remove(found);
                    }
                }
                // The journal of ended steps is not kept in memory.
                Row::AddEnded(..) | Row::DropEnded(_) => {}
            }
        }
        self.snapshot.serial = staged.head.serial;
        self.snapshot.next_op = staged.head.next_op;
        self.history = staged.head.history;
    }

    fn open_intent(&self, op: OpId) -> Option<&Intent> {
        let open = &self.snapshot.open;
        open.binary_search_by_key(&op, |intent| intent.op).ok().map(|found| &open[found])
    }
}

/// The number after `op`, provided that `op` may be taken.
fn following(op: OpId, next: OpId) -> Result<OpId, StoreError> {
    if op < next {
        return Err(StoreError::Refused { op, reason: "its number was taken before" });
    }
    op.0.checked_add(1).map(OpId).ok_or(StoreError::Refused { op, reason: "no number would be left" })
}

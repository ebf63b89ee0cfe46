//! The second copy of the truth: each machine's record in its own folder.
//!
//! Notes are written when there is time, not with every commit: a machine whose record changed is remembered, and a
//! batch is written beside the apply while its steps go on. What is not noted yet when vmctl dies is in the store, and
//! the next writer, who knows that one died, notes everything once more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use tokio::task::JoinHandle;
use uuid::Uuid;
use vmctl_providers::{Custody, Error, VmHandle};
use vmctl_state::record::FORMAT_VERSION;
use vmctl_state::{Address, Note, Record};

use crate::recorded::{RecordError, handle_of};

/// Failures of one batch that are told one by one.
const TOLD: usize = 3;

/// A state's identity at the point that is noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotedAt {
    /// Its lineage.
    pub lineage: Uuid,
    /// Its serial.
    pub serial: u64,
}

/// Writes the notes of `records`, one after the other. A machine that has no handle yet has no folder to note it in.
///
/// A note that cannot be written is told in the log and stops nothing: it is a copy.
pub async fn note_down<'r, H: Custody>(
    host: &H,
    at: NotedAt,
    records: impl IntoIterator<Item = &'r Record>,
) -> Result<(), RecordError> {
    let mut notes = Vec::new();
    for record in records {
        notes.extend(noted(at, record)?);
    }
    write(host, notes).await;
    Ok(())
}

/// Which machines' notes are behind their records, and the batch that is being written.
#[derive(Debug, Default)]
pub(super) struct Notes {
    behind: BTreeSet<Address>,
    batch: Option<JoinHandle<()>>,
}

impl Notes {
    /// The record of `address` changed, or is gone.
    pub(super) fn behind(&mut self, address: &Address) {
        self.behind.insert(address.clone());
    }

    /// Writes what is behind, unless the batch before it is not done. Machines in `busy` wait: their records are about
    /// to change again.
    pub(super) fn catch_up<H: Custody + 'static>(
        &mut self,
        host: &Arc<H>,
        at: NotedAt,
        records: &BTreeMap<Address, Record>,
        busy: &BTreeSet<&Address>,
    ) {
        if self.batch.as_ref().is_some_and(|batch| !batch.is_finished()) {
            return;
        }
        let mut notes = Vec::new();
        self.behind.retain(|address| {
            if busy.contains(address) {
                return true;
            }
            if let Some(record) = records.get(address) {
                // The apply itself fails on a record that it cannot understand.
                notes.extend(noted(at, record).ok().flatten());
            }
            false
        });
        if !notes.is_empty() {
            let host = Arc::clone(host);
            self.batch = Some(tokio::spawn(async move { write(&*host, notes).await }));
        }
    }

    /// Writes all that is behind, and waits for it.
    pub(super) async fn finish<H: Custody + 'static>(
        mut self,
        host: &Arc<H>,
        at: NotedAt,
        records: &BTreeMap<Address, Record>,
    ) {
        self.await_batch().await;
        self.catch_up(host, at, records, &BTreeSet::new());
        self.await_batch().await;
    }

    async fn await_batch(&mut self) {
        if let Some(batch) = self.batch.take()
            && let Err(error) = batch.await
        {
            tracing::warn!(%error, "some machines' notes are behind their records");
        }
    }
}

/// A record as it is noted; `None` if its machine has no folder yet.
fn noted(at: NotedAt, record: &Record) -> Result<Option<(Arc<VmHandle>, Value)>, RecordError> {
    let Some(handle) = handle_of(record)? else { return Ok(None) };
    let NotedAt { lineage, serial } = at;
    let note = Note { format: FORMAT_VERSION, lineage, serial, record: record.clone() };
    let json = serde_json::to_value(note).expect("plain data with string keys always has a JSON form");
    Ok(Some((handle, json)))
}

async fn write<H: Custody>(host: &H, notes: Vec<(Arc<VmHandle>, Value)>) {
    let mut failed: Vec<(String, Error)> = Vec::new();
    for (handle, note) in notes {
        if let Err(error) = host.note(&handle, &note).await {
            failed.push((handle.name.to_string(), error));
        }
    }
    for (name, error) in failed.iter().take(TOLD) {
        tracing::warn!(%error, machine = %name, "the note in its folder is behind its record");
    }
    if failed.len() > TOLD {
        tracing::warn!(machines = failed.len(), "notes are behind their records");
    }
}

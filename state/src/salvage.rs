//! What a state comes to that is made again from its copies. Pure.
//!
//! There are two kinds of copies: the snapshot that was published last, which is whole but may be old, and a note in each
//! machine's folder, which is about one machine only. The newer one wins, machine by machine; what cannot be used is told.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use uuid::Uuid;

use crate::record::{Address, Note, OpId, Record, Snapshot};

/// Where a record was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The state itself, which is whole.
    State,
    /// The snapshot that was published last.
    Snapshot,
    /// The note in the machine's folder.
    Note,
    /// What else the machine's folder says; not all that a record holds.
    Folder,
}

/// Why a note was not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unused {
    /// It is of another state's history: the folder was copied from another project.
    Foreign,
    /// Another machine, with a newer record, has its address.
    Displaced,
}

/// What was put together.
#[derive(Debug, Clone, PartialEq)]
pub struct Salvaged {
    /// The state, at a serial above all that was seen.
    pub snapshot: Snapshot,
    /// Where each record is from.
    pub sources: BTreeMap<Address, Source>,
    /// Instances whose notes were not used, with the reason.
    pub unused: BTreeMap<Uuid, Unused>,
}

/// Puts a state together from `base`, which is whole, and the notes of machines.
///
/// `from` says what `base` is; without one, `lineage` is that of the result, or else the one that the newest note has.
/// `seen` is the highest serial known from elsewhere.
pub fn salvage(
    base: Option<(Source, Snapshot)>,
    notes: &[Note],
    lineage: Option<Uuid>,
    seen: u64,
    at: Timestamp,
) -> Salvaged {
    let newest = notes.iter().max_by_key(|note| note.serial).map(|note| note.lineage);
    let (from, mut snapshot) = base.unwrap_or_else(|| {
        let lineage = lineage.or(newest).unwrap_or_else(Uuid::new_v4);
        (Source::Snapshot, Snapshot::empty(lineage, at))
    });
    let mut sources: BTreeMap<_, _> =
        snapshot.records.keys().map(|address| (address.clone(), from)).collect();
    let mut serials: BTreeMap<Address, u64> =
        snapshot.records.keys().map(|address| (address.clone(), snapshot.serial)).collect();
    let mut unused = BTreeMap::new();
    let mut highest = seen.max(snapshot.serial);

    let mut notes: Vec<&Note> = notes.iter().collect();
    notes.sort_by_key(|note| note.serial);
    for note in notes {
        let Note { lineage, serial, record, .. } = note;
        if *lineage != snapshot.lineage {
            unused.insert(record.instance, Unused::Foreign);
            continue;
        }
        highest = highest.max(*serial);
        let known = snapshot.records.values().find(|known| known.instance == record.instance);
        let known = known.map(|known| known.address.clone());
        if known.as_ref().is_some_and(|known| serials[known] >= *serial) {
            continue;
        }
        if let Some(other) = snapshot.records.get(&record.address).filter(|o| o.instance != record.instance) {
            if serials[&record.address] >= *serial {
                unused.insert(record.instance, Unused::Displaced);
                continue;
            }
            unused.insert(other.instance, Unused::Displaced);
        }
        if let Some(known) = known {
            snapshot.records.remove(&known);
            sources.remove(&known);
        }
        sources.insert(record.address.clone(), Source::Note);
        serials.insert(record.address.clone(), *serial);
        snapshot.records.insert(record.address.clone(), record.clone());
    }

    if highest > snapshot.serial {
        snapshot.next_op = OpId(snapshot.next_op.0.max(above(highest)));
    }
    snapshot.serial = highest.saturating_add(1);
    snapshot.taken = at;
    let mut salvaged = Salvaged { snapshot, sources, unused };
    salvaged.drop_unfounded();
    salvaged
}

/// A number that no step of a state at `serial` had: each commit begins some steps, and there are not a million of them.
fn above(serial: u64) -> u64 {
    const STEPS_PER_COMMIT: u64 = 1 << 20;
    serial.saturating_mul(STEPS_PER_COMMIT)
}

impl Salvaged {
    /// Adds a record that was put together from what a folder says. It does not displace one that is there.
    pub fn add(&mut self, record: Record) -> bool {
        let is_free = !self.snapshot.records.contains_key(&record.address);
        if is_free {
            self.sources.insert(record.address.clone(), Source::Folder);
            self.snapshot.records.insert(record.address.clone(), record);
        }
        is_free
    }

    /// Steps of machines that are not there any more are open no longer.
    fn drop_unfounded(&mut self) {
        let instances: BTreeSet<_> = self.snapshot.records.values().map(|record| record.instance).collect();
        self.snapshot.open.retain(|intent| instances.contains(&intent.instance));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::record::{FORMAT_VERSION, Phase};

    const LINEAGE: Uuid = Uuid::from_u128(0xfeed);

    fn record(name: &str, instance: u128, taint: &str) -> Record {
        Record {
            address: Address::vm(name),
            instance: Uuid::from_u128(instance),
            backend: "noop".into(),
            spec: json!({}).into(),
            handle: None,
            phase: Phase::Running,
            ready: true,
            taint: Some(taint.to_owned()),
            provisioned: Vec::new(),
            ran_once: Vec::new(),
            interrupted: None,
            provision_failed: None,
            created: Timestamp::UNIX_EPOCH,
            updated: Timestamp::UNIX_EPOCH,
        }
    }

    fn note(serial: u64, record: Record) -> Note {
        Note { format: FORMAT_VERSION, lineage: LINEAGE, serial, record }
    }

    fn published(serial: u64, records: &[Record]) -> Option<(Source, Snapshot)> {
        let records = records.iter().map(|record| (record.address.clone(), record.clone())).collect();
        let empty = Snapshot::empty(LINEAGE, Timestamp::UNIX_EPOCH);
        Some((Source::Snapshot, Snapshot { serial, records, ..empty }))
    }

    /// Each record with its taint and source, and what was not used.
    fn told(salvaged: &Salvaged) -> Vec<(String, String, Source)> {
        let records = salvaged.snapshot.records.iter();
        records
            .map(|(address, record)| {
                (address.to_string(), record.taint.clone().unwrap(), salvaged.sources[address])
            })
            .collect()
    }

    #[test]
    fn newer_copy_wins_machine_by_machine() {
        let base = published(10, &[record("a", 1, "published"), record("b", 2, "published")]);
        let notes = [
            note(9, record("a", 1, "noted")),
            note(12, record("b", 2, "noted")),
            note(11, record("c", 3, "noted")),
        ];
        let found = salvage(base, &notes, None, 15, Timestamp::UNIX_EPOCH);
        let expected = [
            ("vm.a".into(), "published".into(), Source::Snapshot),
            ("vm.b".into(), "noted".into(), Source::Note),
            ("vm.c".into(), "noted".into(), Source::Note),
        ];
        assert_eq!(told(&found), expected);
        assert_eq!((found.snapshot.serial, found.snapshot.lineage), (16, LINEAGE));
        assert!(found.snapshot.next_op > OpId(12));
    }

    #[test]
    fn renamed_and_replaced_machines_are_found_once() {
        let base = published(5, &[record("old", 1, "published"), record("web", 2, "published")]);
        let notes = [note(7, record("new", 1, "noted")), note(8, record("web", 3, "noted"))];
        let found = salvage(base, &notes, None, 0, Timestamp::UNIX_EPOCH);
        let expected = [
            ("vm.new".into(), "noted".into(), Source::Note),
            ("vm.web".into(), "noted".into(), Source::Note),
        ];
        assert_eq!(told(&found), expected);
        assert_eq!(found.unused, BTreeMap::from([(Uuid::from_u128(2), Unused::Displaced)]));
    }

    #[test]
    fn notes_of_another_state_are_not_taken() {
        let foreign = Note { lineage: Uuid::nil(), ..note(99, record("a", 1, "noted")) };
        let found =
            salvage(published(5, &[]), std::slice::from_ref(&foreign), None, 0, Timestamp::UNIX_EPOCH);
        assert_eq!((told(&found), found.snapshot.serial), (vec![], 6));
        assert_eq!(found.unused, BTreeMap::from([(Uuid::from_u128(1), Unused::Foreign)]));
        let found = salvage(None, &[foreign], None, 0, Timestamp::UNIX_EPOCH);
        assert_eq!(found.snapshot.lineage, Uuid::nil(), "without anything else, it is the lineage");
        assert_eq!(found.snapshot.records.len(), 1);
    }
}

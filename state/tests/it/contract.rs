//! What every store promises, checked on each of them.

use std::collections::BTreeMap;

use serde_json::json;
use tempfile::TempDir;
use vmctl_state::{
    Address, Ended, Entry, Intent, MemoryStore, OpId, Outcome, ProjectDir, Record, Snapshot, Store,
    StoreErrorKind, Writer,
};

use crate::values::{Numbers, begin, end, intent, lineage, open, project, put, record};

/// A store to test, with what is not part of the contract but needed to see whether it is kept.
trait Subject {
    fn store(&mut self) -> &mut dyn Store;
    fn history(&self) -> Vec<Ended>;
    /// Closes the store and opens it again, if it is one that outlives its value.
    fn reopened(self) -> Self;
}

struct Memory(MemoryStore);

impl Subject for Memory {
    fn store(&mut self) -> &mut dyn Store {
        &mut self.0
    }

    fn history(&self) -> Vec<Ended> {
        self.0.history()
    }

    fn reopened(self) -> Self {
        self
    }
}

struct Durable {
    writer: Writer,
    dir: ProjectDir,
    data: TempDir,
}

impl Subject for Durable {
    fn store(&mut self) -> &mut dyn Store {
        &mut self.writer
    }

    fn history(&self) -> Vec<Ended> {
        self.writer.history().unwrap()
    }

    fn reopened(self) -> Self {
        let Self { writer, dir, data } = self;
        writer.close().unwrap();
        Self { writer: open(&dir), dir, data }
    }
}

fn memory() -> Memory {
    Memory(MemoryStore::new(lineage()))
}

fn durable() -> Durable {
    let (data, dir) = project();
    Durable { writer: open(&dir), dir, data }
}

/// Makes a test of each promise for each store.
macro_rules! promises {
    ($($promise:ident),* $(,)?) => {
        mod memory {
            $(#[test] fn $promise() { super::$promise(super::memory()); })*
        }
        mod durable {
            $(#[test] fn $promise() { super::$promise(super::durable()); })*
        }
    };
}

promises!(
    new_store_is_empty,
    commit_counts_the_serial,
    empty_commit_changes_nothing,
    put_replaces_and_remove_forgets,
    entries_take_effect_in_their_order,
    open_steps_are_those_begun_and_not_ended,
    journal_keeps_how_steps_ended,
    journal_is_bounded,
    contradiction_commits_nothing,
    numbers_are_never_taken_twice,
    large_records_are_kept_whole,
    random_commits_match_a_model,
);

fn seen(subject: &mut impl Subject) -> Snapshot {
    subject.store().snapshot().unwrap()
}

fn names(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.records.keys().map(Address::name).collect()
}

fn open_ops(snapshot: &Snapshot) -> Vec<u64> {
    snapshot.open.iter().map(|intent| intent.op.0).collect()
}

fn new_store_is_empty(mut subject: impl Subject) {
    let found = seen(&mut subject);
    assert_eq!(found, Snapshot::empty(lineage(), found.taken));
    assert_eq!(subject.history(), []);
}

fn commit_counts_the_serial(mut subject: impl Subject) {
    assert_eq!(subject.store().commit(&[put("a", json!(1)), put("b", json!(2))]).unwrap(), 1);
    assert_eq!(subject.store().commit(&[begin(1)]).unwrap(), 2);
    let mut subject = subject.reopened();
    assert_eq!(seen(&mut subject).serial, 2);
    assert_eq!(subject.store().commit(&[end(1)]).unwrap(), 3);
}

fn empty_commit_changes_nothing(mut subject: impl Subject) {
    subject.store().commit(&[put("a", json!(1))]).unwrap();
    let before = seen(&mut subject);
    assert_eq!(subject.store().commit(&[]).unwrap(), 1);
    let after = seen(&mut subject);
    assert_eq!(after, Snapshot { taken: after.taken, ..before });
}

fn put_replaces_and_remove_forgets(mut subject: impl Subject) {
    subject.store().commit(&[put("a", json!("old")), put("b", json!(2))]).unwrap();
    subject.store().commit(&[put("a", json!("new")), Entry::Remove(Address::vm("b"))]).unwrap();
    subject.store().commit(&[Entry::Remove(Address::vm("never"))]).unwrap();
    let found = seen(&mut subject.reopened());
    assert_eq!(found.records, BTreeMap::from([(Address::vm("a"), record("a", json!("new")))]));
}

fn entries_take_effect_in_their_order(mut subject: impl Subject) {
    let gone = Entry::Remove(Address::vm("a"));
    subject.store().commit(&[put("a", json!(1)), gone.clone(), begin(1), end(1)]).unwrap();
    assert_eq!(names(&seen(&mut subject)), [""; 0]);
    subject.store().commit(&[gone, put("a", json!(2)), put("a", json!(3))]).unwrap();
    let found = seen(&mut subject.reopened());
    assert_eq!(found.records[&Address::vm("a")].spec, json!(3).into());
    assert_eq!(found.open, []);
}

fn open_steps_are_those_begun_and_not_ended(mut subject: impl Subject) {
    subject.store().commit(&[begin(1), begin(2), begin(5)]).unwrap();
    subject.store().commit(&[end(2)]).unwrap();
    let mut subject = subject.reopened();
    assert_eq!(seen(&mut subject).open, [intent(1), intent(5)]);
    subject.store().commit(&[end(1), begin(6)]).unwrap();
    assert_eq!(open_ops(&seen(&mut subject.reopened())), [5, 6]);
}

fn journal_keeps_how_steps_ended(mut subject: impl Subject) {
    let failed =
        Outcome::Failed { kind: "disk".into(), message: "no room".into(), chain: vec!["write".into()] };
    let outcomes = [Outcome::Done, failed, Outcome::Abandoned];
    subject.store().commit(&[begin(1), begin(2), begin(3)]).unwrap();
    for (op, outcome) in (1..).zip(&outcomes) {
        subject.store().commit(&[Entry::End { op: OpId(op), outcome: outcome.clone() }]).unwrap();
    }
    let history = subject.reopened().history();
    let ended: Vec<(Intent, Outcome)> =
        history.iter().map(|e| (e.intent.clone(), e.outcome.clone())).collect();
    let expected: Vec<_> = (1..).map(intent).zip(outcomes).collect();
    assert_eq!(ended, expected);
    assert!(history.is_sorted_by_key(|entry| entry.at));
}

fn journal_is_bounded(mut subject: impl Subject) {
    for batch in 0..11 {
        let ops = batch * 100 + 1..=(batch + 1) * 100;
        let entries: Vec<Entry> = ops.clone().map(begin).chain(ops.map(end)).collect();
        subject.store().commit(&entries).unwrap();
    }
    let mut subject = subject.reopened();
    subject.store().commit(&[begin(2_000), end(2_000)]).unwrap();
    let kept: Vec<u64> = subject.reopened().history().iter().map(|entry| entry.intent.op.0).collect();
    let expected: Vec<u64> = (102..=1_100).chain([2_000]).collect();
    assert_eq!(kept, expected);
}

fn contradiction_commits_nothing(mut subject: impl Subject) {
    subject.store().commit(&[begin(1), begin(2), end(2)]).unwrap();
    let before = seen(&mut subject);
    let contradictions = [
        ("ends what never began", vec![end(7)]),
        ("ends twice", vec![end(2)]),
        ("ends twice in one commit", vec![end(1), end(1)]),
        ("begins what is open", vec![begin(1)]),
        ("begins what has ended", vec![begin(2)]),
        ("begins twice in one commit", vec![begin(3), begin(3)]),
        ("takes the last number", vec![begin(u64::MAX)]),
    ];
    for (what, wrong) in contradictions {
        let entries = [vec![put("a", json!(1))], wrong].concat();
        let refused = subject.store().commit(&entries).unwrap_err();
        assert_eq!(refused.kind(), StoreErrorKind::Refused, "{what}");
        let after = seen(&mut subject);
        assert_eq!(after, Snapshot { taken: after.taken, ..before.clone() }, "{what}");
    }
    assert_eq!(subject.store().commit(&[end(1)]).unwrap(), 2);
}

fn numbers_are_never_taken_twice(mut subject: impl Subject) {
    assert_eq!(seen(&mut subject).next_op, OpId(0));
    subject.store().commit(&[begin(0), begin(4), end(4)]).unwrap();
    let mut subject = subject.reopened();
    assert_eq!(seen(&mut subject).next_op, OpId(5));
    subject.store().commit(&[begin(4)]).unwrap_err();
    subject.store().commit(&[begin(5)]).unwrap();
}

fn large_records_are_kept_whole(mut subject: impl Subject) {
    let text = |size: usize| json!({"user-data": "é".repeat(size / 2)});
    for size in [4_000, 1 << 20, 100_000, 3] {
        for name in ["a", "b", "c"] {
            subject.store().commit(&[put(name, text(size))]).unwrap();
        }
        subject = subject.reopened();
        let found = seen(&mut subject);
        assert_eq!(names(&found), ["a", "b", "c"]);
        assert!(found.records.values().all(|record| record.spec == text(size).into()), "of {size} bytes");
    }
}

/// The state as a few lines of code, to compare with.
#[derive(Default)]
struct Model {
    serial: u64,
    next_op: u64,
    records: BTreeMap<Address, Record>,
    open: Vec<u64>,
    ended: Vec<u64>,
}

impl Model {
    /// Some entries that may be committed now; they count as committed.
    fn advance(&mut self, numbers: &mut Numbers) -> Vec<Entry> {
        self.serial += 1;
        (0..=numbers.below(4)).map(|_| self.entry(numbers)).collect()
    }

    fn entry(&mut self, numbers: &mut Numbers) -> Entry {
        let name = format!("vm-{}", numbers.below(40));
        match numbers.below(8) {
            0 | 1 => {
                self.records.remove(&Address::vm(&name));
                Entry::Remove(Address::vm(&name))
            }
            2 | 3 => {
                let op = self.next_op + numbers.below(3);
                self.next_op = op + 1;
                self.open.push(op);
                begin(op)
            }
            4 if !self.open.is_empty() => {
                let op = self.open.remove(numbers.below(self.open.len() as u64) as usize);
                self.ended.push(op);
                end(op)
            }
            _ => {
                let record = record(&name, json!("x".repeat(numbers.below(9_000) as usize)));
                self.records.insert(record.address.clone(), record.clone());
                Entry::Put(Box::new(record))
            }
        }
    }

    fn check(&self, subject: &mut impl Subject) {
        let found = seen(subject);
        assert_eq!((found.serial, found.next_op), (self.serial, OpId(self.next_op)));
        assert_eq!(found.records, self.records);
        assert_eq!(open_ops(&found), self.open);
        let ended: Vec<u64> = subject.history().iter().map(|entry| entry.intent.op.0).collect();
        assert_eq!(ended, self.ended);
    }
}

fn random_commits_match_a_model(mut subject: impl Subject) {
    let mut numbers = Numbers(42);
    let mut model = Model::default();
    for _ in 0..8 {
        for _ in 0..50 {
            let entries = model.advance(&mut numbers);
            assert_eq!(subject.store().commit(&entries).unwrap(), model.serial);
        }
        model.check(&mut subject);
        subject = subject.reopened();
        model.check(&mut subject);
    }
}

#[test]
fn memory_store_fails_when_told_to() {
    let mut store = MemoryStore::new(lineage());
    store.fail_from(2);
    assert_eq!(store.commit(&[begin(1)]).unwrap(), 1);
    assert_eq!(store.commit(&[end(1)]).unwrap_err().kind(), StoreErrorKind::Io);
    assert_eq!(store.commit(&[end(1)]).unwrap_err().kind(), StoreErrorKind::Io);
    assert_eq!(store.snapshot().unwrap().serial, 1);
}

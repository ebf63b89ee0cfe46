//! Writers that are killed: whatever they acknowledged is there.

use serde_json::json;
use vmctl_state::{Address, ProjectDir, Snapshot, Store, read};

use crate::child::{Process, RECORDS};
use crate::values::{Numbers, open, project};

/// Checks that a snapshot is what the child's commits up to its serial make, and returns the serial.
fn check(snapshot: &Snapshot) -> u64 {
    let last = snapshot.serial;
    let first = last.saturating_sub(RECORDS - 1).max(1);
    let mut expected: Vec<(Address, u64)> =
        (first..=last).map(|serial| (Address::vm(&format!("vm-{}", serial % RECORDS)), serial)).collect();
    expected.sort();
    let found: Vec<_> = snapshot
        .records
        .values()
        .map(|r| (r.address.clone(), r.spec.value().unwrap()["serial"].clone()))
        .collect();
    let expected: Vec<_> = expected.into_iter().map(|(address, serial)| (address, json!(serial))).collect();
    assert_eq!(found, expected);
    let open: Vec<u64> = snapshot.open.iter().map(|intent| intent.op.0).collect();
    let begun_last: Vec<u64> = last.checked_sub(1).into_iter().collect();
    assert_eq!(open, begun_last);
    last
}

fn read_some(dir: &ProjectDir) -> Snapshot {
    read(dir).unwrap().expect("a state")
}

#[test]
fn acknowledged_commits_survive_a_kill() {
    let (_data, dir) = project();
    let mut numbers = Numbers(1);
    let mut acknowledged = 0;
    for round in 0..30 {
        let mut child = Process::new(&dir);
        child.tell("open");
        child.hear("opened");
        child.tell("commit 1000");
        for _ in 0..numbers.below(40) {
            acknowledged = child.hear("committed").parse().unwrap();
        }
        acknowledged = child.kill().unwrap_or(acknowledged);
        // One more may have been durable and not acknowledged.
        let found = if round % 2 == 0 {
            check(&read_some(&dir))
        } else {
            let writer = open(&dir);
            let found = check(&writer.snapshot().unwrap());
            writer.close().unwrap();
            assert_eq!(check(&read_some(&dir)), found);
            found
        };
        assert!((acknowledged..=acknowledged + 1).contains(&found), "{found} after {acknowledged}");
        acknowledged = found;
    }
}

#[test]
fn kill_while_opening_leaves_a_state_that_opens() {
    let (_data, dir) = project();
    for _ in 0..30 {
        let mut child = Process::new(&dir);
        child.tell("open");
        child.kill();
        // The first kills come before anything was made.
        if let Some(snapshot) = read(&dir).unwrap() {
            assert_eq!(check(&snapshot), 0);
        }
    }
    open(&dir).close().unwrap();
    assert_eq!(check(&read_some(&dir)), 0);
}

#[test]
fn reader_finishes_what_a_killed_writer_left() {
    let (_data, dir) = project();
    let mut child = Process::new(&dir);
    child.tell("open");
    child.hear("opened");
    child.tell("commit 5");
    while child.hear("committed") != "5" {}
    assert_eq!(check(&read_some(&dir)), 0, "not published yet");
    child.kill();
    assert_eq!(check(&read_some(&dir)), 5);
    assert!(!dir.holder().exists());
    assert_eq!(check(&read_some(&dir)), 5, "taken from the snapshot now");
}

#[test]
fn writer_dropped_without_close_loses_nothing() {
    let (_data, dir) = project();
    let mut writer = open(&dir);
    writer.commit(&[crate::values::put("a", json!(1))]).unwrap();
    drop(writer);
    assert_eq!(read_some(&dir).serial, 1);
    assert!(!dir.holder().exists());
}

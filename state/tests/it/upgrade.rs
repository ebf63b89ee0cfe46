//! A state that an older vmctl wrote (F40): one of version 0.1, without seal, notes and journal of runs.
//!
//! `fixture-0.1` is the folder of a project with two machines of the fake backend; its data file is kept without the
//! zeros at its end.

use std::fs;
use std::path::Path;

use vmctl_state::project::history;
use vmctl_state::{Outcome, ProjectDir, Snapshot, Store, Writer, read};

use crate::values::{holder, project};

/// Length of the data file as it was.
const LENGTH: usize = 524_287;

/// Name that its index had.
const INDEX: &str = "snap.0000000000000257";

fn fixture() -> (tempfile::TempDir, ProjectDir, Snapshot) {
    let (data, dir) = project();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixture-0.1");
    fs::create_dir_all(dir.state()).unwrap();
    let mut db = fs::read(from.join("db")).unwrap();
    db.resize(LENGTH, 0);
    fs::write(dir.state().join("db"), db).unwrap();
    fs::copy(from.join("conf"), dir.state().join("conf")).unwrap();
    fs::copy(from.join("snap"), dir.state().join(INDEX)).unwrap();
    fs::copy(from.join("snapshot.json"), dir.snapshot()).unwrap();
    let text = fs::read(from.join("snapshot.json")).unwrap();
    (data, dir, serde_json::from_slice(&text).unwrap())
}

#[test]
fn state_of_an_older_version_opens_with_all_that_is_in_it() {
    let (_data, dir, expected) = fixture();
    assert_eq!(read(&dir).unwrap().unwrap(), expected);
    let (journal, at_work) = history(&dir).unwrap();
    assert_eq!((journal.runs, at_work), (vec![], None));
    assert_eq!(journal.steps.len(), 7);
    assert!(journal.steps.iter().all(|step| step.outcome == Outcome::Done));

    let wait = std::time::Duration::ZERO;
    let writer =
        Writer::open(&dir, holder("test"), expected.lineage, wait, vmctl_state::Reserve::Keep).unwrap();
    let found = writer.snapshot().unwrap();
    assert_eq!(Snapshot { taken: expected.taken, ..found }, expected);
    writer.close().unwrap();
    assert_eq!(read(&dir).unwrap().unwrap(), expected, "nothing was changed");
}

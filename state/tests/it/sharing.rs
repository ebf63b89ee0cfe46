//! Several processes, and several threads of one, that want the same project.

use std::fs;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::json;
use vmctl_state::{ProjectDir, Store, StoreError, StoreErrorKind, Writer, projects, read};

use crate::child::Process;
use crate::values::{PATIENCE, holder, lineage, open, project, put};

fn try_open(dir: &ProjectDir) -> Result<Writer, StoreError> {
    Writer::open(dir, holder("second"), lineage(), Duration::ZERO, vmctl_state::Reserve::Keep)
}

#[test]
fn project_without_anything_reads_as_nothing() {
    let (data, dir) = project();
    assert_eq!(read(&dir).unwrap(), None);
    fs::create_dir_all(dir.vms()).unwrap();
    assert_eq!(read(&dir).unwrap(), None);
    assert_eq!(projects(data.path()).unwrap(), [""; 0]);
}

#[test]
fn second_writer_is_told_who_holds_the_lock() {
    let (_data, dir) = project();
    let mut child = Process::new(&dir);
    child.tell("open");
    child.hear("opened");
    let locked = try_open(&dir).unwrap_err();
    assert_eq!(locked.kind(), StoreErrorKind::Locked);
    let StoreError::Locked { holder: Some(holder), path } = &locked else { panic!("{locked:?}") };
    assert_eq!((holder.pid, path), (child.pid(), &dir.lock()));
    assert_eq!(
        locked.to_string(),
        format!(
            "the state is locked: `{}` is held by `test` (process {} of ada on here, since 1970-01-01T00:00:00Z)",
            dir.lock().display(),
            child.pid()
        )
    );
    child.close();
    try_open(&dir).unwrap().close().unwrap();
}

#[test]
fn second_writer_in_one_process_is_refused() {
    let (_data, dir) = project();
    let first = open(&dir);
    assert_eq!(try_open(&dir).unwrap_err().kind(), StoreErrorKind::Locked);
    first.close().unwrap();
    assert!(dir.lock().exists());
    try_open(&dir).unwrap();
    try_open(&dir).unwrap();
}

#[test]
fn lock_of_a_killed_writer_is_free() {
    let (_data, dir) = project();
    let mut child = Process::new(&dir);
    child.tell("open");
    child.hear("opened");
    child.kill();
    assert!(dir.holder().exists());
    try_open(&dir).unwrap().close().unwrap();
    assert!(!dir.holder().exists());
}

#[test]
fn writers_wait_for_each_other() {
    let (_data, dir) = project();
    let first = open(&dir);
    let (waiting, all_wait) = mpsc::channel();
    thread::scope(|scope| {
        for name in ["a", "b", "c"] {
            let (waiting, dir) = (waiting.clone(), &dir);
            scope.spawn(move || {
                waiting.send(()).unwrap();
                let mut writer =
                    Writer::open(dir, holder(name), lineage(), PATIENCE, vmctl_state::Reserve::Keep).unwrap();
                writer.commit(&[put(name, json!(1))]).unwrap();
                writer.close().unwrap();
            });
        }
        for _ in 0..3 {
            all_wait.recv().unwrap();
        }
        first.close().unwrap();
    });
    let found = read(&dir).unwrap().unwrap();
    assert_eq!((found.serial, found.records.len()), (3, 3));
}

#[test]
fn reader_sees_what_a_writer_published_while_it_works() {
    let (data, dir) = project();
    let serial = || read(&dir).unwrap().map(|snapshot| snapshot.serial);
    let mut child = Process::new(&dir);
    child.tell("open");
    child.hear("opened");
    assert_eq!(serial(), Some(0));
    child.tell("commit 3");
    while child.hear("committed") != "3" {}
    child.tell("publish");
    child.hear("published");
    assert_eq!(serial(), Some(3));
    assert_eq!(projects(data.path()).unwrap(), ["shop"]);
    child.tell("commit 1");
    child.hear("committed");
    child.close();
    assert_eq!(serial(), Some(4));
}

#[test]
fn publishing_nothing_new_leaves_the_file_alone() {
    let (_data, dir) = project();
    let mut writer = open(&dir);
    fs::remove_file(dir.snapshot()).unwrap();
    writer.publish().unwrap();
    assert!(!dir.snapshot().exists());
    writer.commit(&[put("a", json!(1))]).unwrap();
    writer.publish().unwrap();
    assert!(dir.snapshot().exists());
}

#[test]
fn first_readers_and_first_writer_agree() {
    let (_data, dir) = project();
    thread::scope(|scope| {
        let readers: Vec<_> =
            (0..4).map(|_| scope.spawn(|| (0..50).map(|_| read(&dir)).collect::<Vec<_>>())).collect();
        for _ in 0..10 {
            try_open(&dir).unwrap().close().unwrap();
        }
        for answer in readers.into_iter().flat_map(|reader| reader.join().unwrap()) {
            assert!(
                answer.unwrap().is_none_or(|snapshot| snapshot.serial == 0 && snapshot.lineage == lineage())
            );
        }
    });
}

#[test]
fn projects_are_those_with_a_state_or_machines() {
    let (data, dir) = project();
    let all = data.path().join("projects");
    open(&dir).close().unwrap();
    fs::create_dir_all(all.join("lost/vms/web")).unwrap();
    fs::create_dir_all(all.join("empty/vms")).unwrap();
    fs::create_dir_all(all.join(".hidden/state")).unwrap();
    fs::write(all.join("file"), "").unwrap();
    assert_eq!(projects(data.path()).unwrap(), ["lost", "shop"]);
}

/// Snapshot and mark are two files: whoever reads both between two publishings must not take that for an older copy.
#[test]
fn reader_beside_a_writer_that_publishes_all_the_time_is_never_refused() {
    let (_data, dir) = project();
    let mut writer = open(&dir);
    let done = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..200 {
                writer.commit(&[put("a", json!(n))]).unwrap();
                writer.publish().unwrap();
            }
            done.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        let mut last = 0;
        while !done.load(std::sync::atomic::Ordering::SeqCst) {
            let serial = read(&dir).unwrap().unwrap().serial;
            assert!(serial >= last, "{serial} after {last}");
            last = serial;
        }
    });
    assert_eq!(read(&dir).unwrap().unwrap().serial, 200);
}

//! Stores that are torn, foreign, newer, exchanged or gone: refused with advice, never taken for empty.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::json;
use vmctl_state::{ProjectDir, Repair, Snapshot, Store, StoreError, StoreErrorKind, Writer, read};

use crate::values::{Numbers, holder, lineage, open, project, put};

/// A closed project with some records.
fn written() -> (tempfile::TempDir, ProjectDir, Snapshot) {
    let (data, dir) = project();
    let mut writer = open(&dir);
    for n in 0..60 {
        writer.commit(&[put(&format!("vm-{n}"), json!("x".repeat(4_000)))]).unwrap();
    }
    let snapshot = writer.snapshot().unwrap();
    writer.close().unwrap();
    (data, dir, snapshot)
}

fn db(dir: &ProjectDir) -> PathBuf {
    dir.state().join("db")
}

fn try_open(dir: &ProjectDir) -> Result<Writer, StoreError> {
    Writer::open(dir, holder("test"), lineage(), std::time::Duration::ZERO, vmctl_state::Reserve::Keep)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Opens a project whose store was tampered with: all is there, or it is said to be damaged.
fn whole_or_damaged(dir: &ProjectDir, expected: &Snapshot, what: &str) -> bool {
    match try_open(dir) {
        Ok(writer) => {
            let found = writer.snapshot().unwrap();
            assert_eq!(found, Snapshot { taken: found.taken, ..expected.clone() }, "{what}");
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), StoreErrorKind::Damaged, "{what}: {error:?}");
            assert!(error.help().is_some_and(|help| help.contains("state")), "{what}");
            false
        }
    }
}

#[test]
fn truncated_store_is_damaged_or_whole() {
    let (_data, dir, expected) = written();
    let size = fs::metadata(db(&dir)).unwrap().len();
    let mut numbers = Numbers(3);
    let mut damaged = 0;
    for _ in 0..40 {
        let (_copy, torn) = project();
        copy(dir.path(), torn.path());
        let left = 1 + numbers.below(size - 1);
        OpenOptions::new().write(true).open(db(&torn)).unwrap().set_len(left).unwrap();
        damaged += u32::from(!whole_or_damaged(&torn, &expected, &format!("{left} of {size} bytes")));
    }
    assert!(damaged > 20, "{damaged} of 40 were seen to be damaged");
}

#[test]
fn flipped_bit_is_damage_or_harmless() {
    let (_data, dir, expected) = written();
    let size = fs::metadata(db(&dir)).unwrap().len();
    let mut numbers = Numbers(4);
    for _ in 0..40 {
        let (_copy, torn) = project();
        copy(dir.path(), torn.path());
        let at = numbers.below(size);
        let file = OpenOptions::new().read(true).write(true).open(db(&torn)).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1 << numbers.below(8)], at).unwrap();
        whole_or_damaged(&torn, &expected, &format!("a bit of byte {at}"));
    }
}

#[test]
fn empty_store_is_damaged_and_not_new() {
    let (_data, dir, _) = written();
    fs::write(db(&dir), "").unwrap();
    assert_eq!(try_open(&dir).unwrap_err().kind(), StoreErrorKind::Damaged);
    assert_eq!(read(&dir).unwrap_err().kind(), StoreErrorKind::Damaged);
    assert_eq!(fs::metadata(db(&dir)).unwrap().len(), 0, "left as it was");
}

#[test]
fn foreign_file_is_refused() {
    let (_data, dir) = project();
    fs::create_dir_all(dir.state()).unwrap();
    fs::write(db(&dir), "not a database ".repeat(1_000)).unwrap();
    let refused = try_open(&dir).unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Damaged, "{refused:?}");
    assert_eq!(read(&dir).unwrap_err().kind(), StoreErrorKind::Damaged);
}

#[test]
fn torn_index_is_healed() {
    let (_data, dir, expected) = written();
    let index = |dir: &ProjectDir| {
        let names = fs::read_dir(dir.state()).unwrap().map(|entry| entry.unwrap().path());
        let mut found: Vec<_> =
            names.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("snap.")).collect();
        assert_eq!(found.len(), 1);
        found.remove(0)
    };
    fs::write(dir.state().join("snap.00000000000000ff.generating"), "torn").unwrap();
    assert!(whole_or_damaged(&dir, &expected, "half-written index"));
    fs::write(index(&dir), "").unwrap();
    assert!(whole_or_damaged(&dir, &expected, "empty index"));
    let bytes = fs::read(index(&dir)).unwrap();
    fs::write(index(&dir), &bytes[..bytes.len() / 2]).unwrap();
    assert!(whole_or_damaged(&dir, &expected, "half an index"));
    fs::remove_file(index(&dir)).unwrap();
    assert!(whole_or_damaged(&dir, &expected, "no index"));
}

#[test]
fn damaged_snapshot_is_made_anew_from_the_store() {
    for (what, content) in [("empty", ""), ("half", "{\"format\":1,\"lin"), ("foreign", "[]")] {
        let (_data, dir, expected) = written();
        fs::write(dir.snapshot(), content).unwrap();
        for _ in 0..2 {
            let found = read(&dir).unwrap().unwrap();
            assert_eq!(found, Snapshot { taken: found.taken, ..expected.clone() }, "{what}");
        }
        fs::write(dir.snapshot(), content).unwrap();
        assert!(whole_or_damaged(&dir, &expected, what));
    }
}

#[test]
fn lost_store_is_missing_and_not_empty() {
    let (_data, dir, _) = written();
    fs::create_dir_all(dir.vms().join("web")).unwrap();
    fs::create_dir_all(dir.vms().join("db")).unwrap();
    fs::remove_dir_all(dir.state()).unwrap();
    for with_snapshot in [true, false] {
        if !with_snapshot {
            fs::remove_file(dir.snapshot()).unwrap();
        }
        for error in [try_open(&dir).unwrap_err(), read(&dir).unwrap_err()] {
            let StoreError::Missing { path, machines } = &error else { panic!("{error:?}") };
            assert_eq!((path, machines.as_slice()), (&dir.state(), &["db".to_owned(), "web".to_owned()][..]));
            assert!(error.help().unwrap().contains("db, web"));
        }
    }
    assert!(!dir.state().exists());
    assert!(!dir.holder().exists());
    fs::remove_dir_all(dir.vms()).unwrap();
    assert_eq!(read(&dir).unwrap(), None);
    open(&dir).close().unwrap();
}

#[test]
fn published_snapshot_without_a_store_is_missing() {
    let (_data, dir, _) = written();
    fs::remove_dir_all(dir.state()).unwrap();
    assert_eq!(read(&dir).unwrap_err().kind(), StoreErrorKind::Missing);
    assert_eq!(try_open(&dir).unwrap_err().kind(), StoreErrorKind::Missing);
}

#[test]
fn unfinished_first_open_is_no_state() {
    let (_data, dir) = project();
    fs::create_dir_all(dir.path().join("state.new")).unwrap();
    fs::write(dir.path().join("state.new/db"), "half").unwrap();
    fs::write(dir.holder(), "{}").unwrap();
    assert_eq!(read(&dir).unwrap(), None);
    open(&dir).close().unwrap();
    assert_eq!(read(&dir).unwrap().unwrap().serial, 0);
    assert!(!dir.path().join("state.new").exists());
}

#[test]
fn older_or_other_store_is_refused_until_it_is_meant() {
    let (_data, dir) = project();
    let mut writer = open(&dir);
    writer.commit(&[put("a", json!(1))]).unwrap();
    writer.close().unwrap();
    let backup = tempfile::tempdir().unwrap();
    copy(&dir.state(), backup.path());
    let mut writer = open(&dir);
    writer.commit(&[put("b", json!(2))]).unwrap();
    writer.close().unwrap();

    fs::remove_dir_all(dir.state()).unwrap();
    copy(backup.path(), &dir.state());
    let refused = try_open(&dir).unwrap_err();
    assert!(matches!(refused, StoreError::Replaced { serial: 1, published_serial: 2, .. }), "{refused:?}");
    assert!(refused.help().unwrap().contains("vmctl state rebuild"));
    fs::remove_file(dir.snapshot()).unwrap();
    assert_eq!(read(&dir).unwrap_err().kind(), StoreErrorKind::Damaged, "without a snapshot as well");

    let repair = Repair::begin(&dir, &holder("rebuild"), std::time::Duration::ZERO).unwrap();
    assert_eq!(repair.store().unwrap_err().kind(), StoreErrorKind::Damaged);
    assert_eq!((repair.lineage().unwrap(), repair.highest_serial().unwrap()), (Some(lineage()), 2));
    let again = Snapshot { serial: 3, ..Snapshot::empty(lineage(), Timestamp::UNIX_EPOCH) };
    let kept = repair.replace(&again).unwrap().unwrap();
    assert!(kept.join("db").exists());
    assert_eq!(read(&dir).unwrap().unwrap().serial, 3);
    open(&dir).close().unwrap();
    assert!(!dir.holder().exists());
}

#[test]
fn newer_format_is_refused() {
    let (_data, dir, _) = written();
    fs::write(dir.snapshot(), r#"{"format":99,"machines":[]}"#).unwrap();
    for error in [read(&dir).unwrap_err(), try_open(&dir).unwrap_err()] {
        assert_eq!(error.kind(), StoreErrorKind::Newer, "{error:?}");
        assert_eq!(
            error.to_string(),
            format!(
                "the state in `{}` has format 99; this vmctl reads formats up to 1",
                dir.snapshot().display()
            )
        );
    }
}

#[test]
fn folders_and_files_are_private() {
    let (data, dir) = project();
    fs::create_dir_all(dir.path()).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut writer = open(&dir);
    writer.commit(&[put("a", json!(1))]).unwrap();
    let check = |path: &Path| {
        let found = fs::metadata(path).unwrap();
        let expected = if found.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(found.permissions().mode() & 0o777, expected, "{}", path.display());
    };
    let mut folders = vec![dir.path().to_path_buf()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        check(&folder);
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            check(&path);
            seen += 1;
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    assert!(seen >= 8, "{seen}");
    drop(data);
}

#[test]
fn place_that_cannot_be_a_folder_is_named() {
    let (data, _) = project();
    fs::write(data.path().join("projects"), "in the way").unwrap();
    let dir = ProjectDir::of_project(data.path(), "shop");
    let error = try_open(&dir).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Io);
    assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
}

//! What the store survives: bad bytes, other versions, cut-off writes.

use super::*;
use crate::error::StoreErrorKind;
use crate::record::{Address, OpId};

fn created() -> (tempfile::TempDir, PathBuf) {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("state");
    SledStore::create(&folder, Uuid::nil()).unwrap();
    (data, folder)
}

/// Opens the database by itself, once the threads of whoever had it before have ended.
fn engine(folder: &Path) -> Db {
    if data_file(folder).exists() {
        wait_until_closed(folder).unwrap();
    }
    Engine::config(folder).open().unwrap()
}

fn tamper(folder: &Path, key: &[u8], value: &[u8]) {
    let db = engine(folder);
    db.open_tree(META).unwrap().insert(piece_key(key, 0), value).unwrap();
    db.flush().unwrap();
}

#[test]
fn newer_store_is_refused_by_its_version() {
    let (_data, folder) = created();
    tamper(&folder, HEAD_KEY, b"whatever that will be");
    tamper(&folder, FORMAT_KEY, b"2");
    let error = SledStore::open(&folder, &|_| Ok(())).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 2, supported: FORMAT_VERSION, .. }), "{error:?}");
}

#[test]
fn database_of_something_else_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let db = engine(data.path());
    db.insert("theirs", "value").unwrap();
    drop(db);
    let error = SledStore::open(data.path(), &|_| Ok(())).unwrap_err();
    assert!(error.to_string().ends_with("is damaged: it is no state of vmctl"), "{error}");
}

#[test]
fn lost_rows_are_noticed() {
    let (_data, folder) = created();
    let mut head = SledStore::open(&folder, &|_| Ok(())).unwrap().ledger.head();
    head.records = 1;
    tamper(&folder, HEAD_KEY, &serde_json::to_vec(&head).unwrap());
    let error = SledStore::open(&folder, &|_| Ok(())).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Damaged);
    assert!(error.to_string().contains("it should hold 1 records"), "{error}");
}

#[test]
fn no_value_gets_a_file_of_its_own() {
    let (_data, folder) = created();
    let mut store = SledStore::open(&folder, &|_| Ok(())).unwrap();
    let blobs = || files::entries(&folder.join("blobs")).unwrap().len();
    for n in 0..60 {
        let at = Timestamp::UNIX_EPOCH;
        let intent = Intent {
            op: OpId(n + 1),
            run: Uuid::nil(),
            step: "prepare".into(),
            address: Address::vm("web"),
            instance: Uuid::nil(),
            at,
            detail: "x".repeat(150_000).into(),
        };
        store.commit(&[Entry::Begin(intent)], None).unwrap();
        assert_eq!(blobs(), 0, "after {n} commits");
    }
    store.close().unwrap();
    assert_eq!(SledStore::open(&folder, &|_| Ok(())).unwrap().current().open.len(), 60);
}

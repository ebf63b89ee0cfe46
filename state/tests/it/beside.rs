//! What stands beside the store: the lineage to come, and texts.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::sync::Barrier;

use uuid::Uuid;
use vmctl_state::project::{KEY_LENGTH, key, make_key, reserve_lineage};
use vmctl_state::{Snapshot, StoreErrorKind, read};

use crate::values::project;

#[test]
fn lineage_is_reserved_once_whoever_asks() {
    let (_data, dir) = project();
    let barrier = Barrier::new(8);
    let answers: BTreeSet<Uuid> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    reserve_lineage(&dir, Uuid::new_v4()).unwrap()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(answers.len(), 1);
    assert_eq!(read(&dir).unwrap(), None::<Snapshot>, "a reserved lineage is no state");
    let left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lineage"]);
}

#[test]
fn key_is_made_once_whoever_asks_and_only_its_owner_can_read_it() {
    let (_data, dir) = project();
    assert_eq!(key(&dir).unwrap(), None);
    let made: Vec<_> = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..8)
            .map(|number| {
                let dir = &dir;
                scope.spawn(move || make_key(dir, [number; KEY_LENGTH]).unwrap())
            })
            .collect();
        makers.into_iter().map(|maker| maker.join().unwrap()).collect()
    });
    assert!(made.iter().all(|one| Some(*one) == key(&dir).unwrap()), "{made:?}");
    assert_eq!(std::fs::metadata(dir.key()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
    std::fs::write(dir.key(), "nonsense").unwrap();
    assert_eq!(key(&dir).unwrap_err().kind(), StoreErrorKind::Damaged);
}

#[test]
fn damaged_lineage_is_told() {
    let (_data, dir) = project();
    std::fs::create_dir_all(dir.path()).unwrap();
    std::fs::write(dir.lineage(), "nonsense").unwrap();
    assert_eq!(reserve_lineage(&dir, Uuid::new_v4()).unwrap_err().kind(), StoreErrorKind::Damaged);
}

#[test]
fn texts_are_kept_privately_and_forgotten() {
    let (_data, dir) = project();
    assert_eq!(dir.text("sha256:aa"), None);
    dir.keep_texts([("sha256:aa", "one"), ("sha256:bb", "two"), ("../../evil", "no")]).unwrap();
    dir.keep_texts([("sha256:aa", "another text under the same digest is not taken")]).unwrap();
    assert_eq!(
        (dir.text("sha256:aa").as_deref(), dir.text("sha256:bb").as_deref()),
        (Some("one"), Some("two"))
    );
    assert_eq!(dir.text("../../evil"), None);
    for entry in std::fs::read_dir(dir.texts()).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    dir.forget_texts_but(&["sha256:bb".to_owned()].into()).unwrap();
    assert_eq!((dir.text("sha256:aa"), dir.text("sha256:bb").as_deref()), (None, Some("two")));
}

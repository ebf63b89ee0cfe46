//! Disks that are full or may not be written, in a mount namespace of our own.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use vmctl_state::{Address, Entry, ProjectDir, Reserve, Store, StoreError, Writer, read};

use crate::values::{holder, lineage, open, put};

#[expect(
    clippy::disallowed_methods,
    reason = "the programs make a place to test in, they are not of the product"
)]
fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    Command::new(program)
}

/// Runs one of the tests below with a small file system of its own, whose folder it gets on standard input.
fn confined(test: &str) {
    let namespaces = command("unshare").args(["-rm", "true"]).output();
    if !namespaces.is_ok_and(|tried| tried.status.success()) {
        eprintln!("skipped: making a small file system needs user namespaces");
        return;
    }
    let mount = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o size=8m none "$1" && exec "$2" --exact "$3" --ignored --nocapture"#;
    let mut child = command("unshare")
        .args(["-rm", "sh", "-c", script, "sh"])
        .arg(mount.path())
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{}", mount.path().display()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn full_disk() {
    confined("disk::confined_full_disk");
}

#[test]
fn disk_that_fills_during_a_run() {
    confined("disk::confined_disk_that_fills");
}

#[test]
fn read_only_disk() {
    confined("disk::confined_read_only_disk");
}

fn mounted() -> (PathBuf, ProjectDir) {
    let mount = PathBuf::from(io::stdin().lines().next().expect("a folder on standard input").unwrap());
    let dir = ProjectDir::of_project(&mount, "shop");
    (mount, dir)
}

/// Takes all the room that is left.
fn fill(mount: &Path) -> PathBuf {
    let path = mount.join("filler");
    let mut file = File::create(&path).unwrap();
    let full = loop {
        if let Err(error) = file.write_all(&[1; 4096]) {
            break error;
        }
    };
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    path
}

/// Opens it for what gives room back.
fn relieve(dir: &ProjectDir) -> Writer {
    Writer::open(dir, holder("destroy"), lineage(), Duration::ZERO, Reserve::Spend).unwrap()
}

fn is_full(error: &StoreError) -> bool {
    matches!(error, StoreError::Io { source, .. } if source.kind() == ErrorKind::StorageFull)
}

#[test]
#[ignore = "runs in the confinement that `full_disk` makes"]
fn confined_full_disk() {
    let (mount, dir) = mounted();
    let mut writer = open(&dir);
    for name in ["a", "b", "c"] {
        writer.commit(&[put(name, json!("x".repeat(1_000)))]).unwrap();
    }
    writer.close().unwrap();
    assert!(dir.ballast().exists());

    // As a writer that died leaves it, so that readers want to look into the store.
    fs::write(dir.holder(), "{}").unwrap();
    let filler = fill(&mount);
    let refused = Writer::open(&dir, holder("apply"), lineage(), Duration::ZERO, Reserve::Keep).unwrap_err();
    assert!(is_full(&refused), "{refused:?}");
    assert!(dir.ballast().exists(), "what makes machines does not spend it");
    assert_eq!(read(&dir).unwrap().unwrap().records.len(), 3, "readers do without");
    assert!(dir.ballast().exists(), "and do not spend it either");

    let mut writer = relieve(&dir);
    assert!(!dir.ballast().exists(), "it was needed");
    for name in ["a", "b"] {
        writer.commit(&[Entry::Remove(Address::vm(name))]).unwrap();
    }
    writer.close().unwrap();
    assert_eq!(read(&dir).unwrap().unwrap().records.len(), 1);

    fs::remove_file(filler).unwrap();
    open(&dir).close().unwrap();
    assert!(dir.ballast().exists());
    assert!(open(&dir).release_ballast().unwrap());
}

#[test]
#[ignore = "runs in the confinement that `disk_that_fills_during_a_run` makes"]
fn confined_disk_that_fills() {
    let (mount, dir) = mounted();
    let mut writer = open(&dir);
    let filler = fill(&mount);
    let failed = loop {
        let serial = writer.snapshot().unwrap().serial;
        if let Err(error) =
            writer.commit(&[put("a", json!({"serial": serial + 1, "text": "x".repeat(9_000)}))])
        {
            break error;
        }
    };
    assert!(is_full(&failed), "{failed:?}");
    assert!(failed.help().unwrap().contains("Free space"));
    let acknowledged = writer.snapshot().unwrap().serial;
    writer.commit(&[put("a", json!({}))]).unwrap_err();
    drop(writer);
    assert!(dir.holder().exists(), "the next one shall look into the store");

    // There is the ballast for this.
    let writer = relieve(&dir);
    let found = writer.snapshot().unwrap();
    assert!(
        (acknowledged..=acknowledged + 1).contains(&found.serial),
        "{} after {acknowledged}",
        found.serial
    );
    assert_eq!(found.records[&Address::vm("a")].spec.value().unwrap()["serial"], json!(found.serial));
    assert!(!dir.ballast().exists());
    fs::remove_file(filler).unwrap();
    writer.close().unwrap();
    assert_eq!(read(&dir).unwrap().unwrap().serial, found.serial);
}

#[test]
#[ignore = "runs in the confinement that `read_only_disk` makes"]
fn confined_read_only_disk() {
    let (mount, dir) = mounted();
    let mut writer = open(&dir);
    writer.commit(&[put("a", json!(1))]).unwrap();
    writer.close().unwrap();
    let dead = ProjectDir::of_project(&mount, "dead");
    open(&dead).close().unwrap();
    fs::write(dead.holder(), "{}").unwrap();
    let unlocked = ProjectDir::of_project(&mount, "unlocked");
    open(&unlocked).close().unwrap();
    fs::remove_file(unlocked.lock()).unwrap();
    fs::write(unlocked.holder(), "{}").unwrap();

    let remount = command("mount").args(["-o", "remount,ro"]).arg(&mount).status().unwrap();
    assert!(remount.success());
    assert_eq!(read(&dir).unwrap().unwrap().serial, 1);
    assert_eq!(read(&dead).unwrap().unwrap().serial, 0);
    assert_eq!(read(&unlocked).unwrap().unwrap().serial, 0);
    let new = ProjectDir::of_project(&mount, "new");
    assert_eq!(read(&new).unwrap(), None);
    for dir in [&dir, &new] {
        let refused =
            Writer::open(dir, holder("test"), lineage(), Duration::ZERO, Reserve::Keep).unwrap_err();
        let StoreError::Io { path, source, .. } = &refused else { panic!("{refused:?}") };
        assert_eq!(source.kind(), ErrorKind::ReadOnlyFilesystem);
        assert!(path.starts_with(dir.path()), "{}", path.display());
        assert!(refused.help().unwrap().contains("read-only"));
    }
}

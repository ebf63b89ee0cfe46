//! A state that is damaged, lost, foreign, newer or older (F16, F17): refused in plain words with the way out, never taken
//! for empty, left byte for byte as it was; and made again by `state rebuild`, after which nothing is to do.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use vmctl_tests::{Ended, World};

/// Three machines of the fake backend, applied.
fn applied() -> World {
    let world = World::new(0);
    world.blank_image();
    let vm = |name: &str, rest: &str| {
        format!("vm \"{name}\" {{ image \"blank.qcow2\"; backend \"noop\"; {rest} }}\n")
    };
    world.vmfile(&[vm("db", ""), vm("web", "depends-on \"db\""), vm("off", "state \"stopped\"")].concat());
    let applied = world.vmctl(&["apply", "--yes"]);
    assert_eq!(applied.code(), 0, "{}", applied.text());
    world
}

fn project(world: &World) -> PathBuf {
    world.data().join("projects/shop")
}

/// All files below a folder with their content.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    for (path, content) in files(from) {
        let target = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(target, content).unwrap();
    }
}

/// Leaves so many eighths of a data file; the room at its end that was never written to does not count.
fn truncate(db: &Path, eighths: usize) {
    let bytes = fs::read(db).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    fs::write(db, &bytes[..written * eighths / 8]).unwrap();
}

/// It says what is wrong and what to do, in words for people.
fn is_refused(run: &Ended) {
    assert_eq!(run.code(), 1, "{}", run.text());
    for word in ["panicked", "to create", "RUST_BACKTRACE"] {
        assert!(!run.text().contains(word), "{}", run.text());
    }
    assert!(run.stderr.contains("vmctl state rebuild"), "{}", run.text());
}

/// A damaged state is refused by whoever writes, and by readers if they notice; it is left as it was; it is made again.
fn refused_and_rebuilt(world: &World, readers_notice: bool, what: &str) {
    let (state, before) = (project(world).join("state"), files(&project(world).join("state")));
    let machines = files(&project(world).join("vms"));
    for write in [&["apply", "--yes"][..], &["taint", "web"], &["apply", "--destroy", "--yes"]] {
        is_refused(&world.vmctl(write));
    }
    let plan = world.vmctl(&["plan", "--detailed-exitcode"]);
    if readers_notice {
        is_refused(&plan);
        is_refused(&world.vmctl(&["list"]));
    } else {
        plan.expect(0).says("No changes");
    }
    assert!(files(&state) == before, "{what}: the damaged store is left as it was");

    world.vmctl(&["state", "rebuild"]).expect(0).says("is made again");
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    let after = files(&project(world).join("vms"));
    for (path, content) in machines.iter().filter(|(path, _)| path.ends_with("machine.json")) {
        assert!(after[path] == *content, "{what}: {} is touched", path.display());
    }
    if !before.is_empty() {
        let kept = fs::read_dir(project(world)).unwrap().map(|entry| entry.unwrap().path());
        let kept: Vec<_> = kept.filter(|path| path.to_string_lossy().contains("state.damaged-")).collect();
        assert!(kept.iter().any(|kept| files(kept).len() >= before.len()), "{what}: {kept:?}");
    }
    // It is a state like any other.
    world.vmctl(&["apply", "--yes"]).expect(0).says("No changes");
    world.vmctl(&["apply", "--yes", "--replace", "off"]).expect(0);
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
}

#[test]
fn truncated_store_is_refused_and_rebuilt() {
    for part in [0, 1, 7] {
        let world = applied();
        truncate(&project(&world).join("state/db"), part);
        refused_and_rebuilt(&world, true, &format!("{part} eighths of the data file"));
    }
}

#[test]
fn store_with_flipped_bits_is_refused_and_rebuilt() {
    let world = applied();
    let db = project(&world).join("state/db");
    let mut bytes = fs::read(&db).unwrap();
    // Everything that was written, so that this is no gap in the log.
    bytes.iter_mut().filter(|byte| **byte != 0).for_each(|byte| *byte ^= 0x10);
    fs::write(&db, bytes).unwrap();
    refused_and_rebuilt(&world, false, "flipped bits");
}

#[test]
fn lost_store_is_refused_and_rebuilt() {
    let world = applied();
    fs::remove_dir_all(project(&world).join("state")).unwrap();
    refused_and_rebuilt(&world, true, "no store, but a snapshot");
    fs::remove_dir_all(project(&world).join("state")).unwrap();
    fs::remove_file(project(&world).join("snapshot.json")).unwrap();
    refused_and_rebuilt(&world, true, "neither store nor snapshot, but machines");
    fs::remove_dir_all(project(&world).join("state")).unwrap();
    fs::write(project(&world).join("snapshot.json"), "{\"format\":1,").unwrap();
    refused_and_rebuilt(&world, true, "no store and half a snapshot");
}

#[test]
fn damaged_store_without_a_snapshot_does_not_come_back_older() {
    let world = applied();
    truncate(&project(&world).join("state/db"), 3);
    fs::remove_file(project(&world).join("snapshot.json")).unwrap();
    refused_and_rebuilt(&world, true, "three eighths of the data file and no snapshot");
}

#[test]
fn half_written_index_and_damaged_snapshot_heal_by_themselves() {
    let world = applied();
    fs::write(project(&world).join("state/snap.00000000000000ff.generating"), "half").unwrap();
    fs::write(project(&world).join("snapshot.json"), "{").unwrap();
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    world.vmctl(&["apply", "--yes"]).expect(0).says("No changes");
}

#[test]
fn older_backup_is_refused_and_rebuilt() {
    let world = applied();
    let backup = world.folder().join("backup");
    copy(&project(&world).join("state"), &backup.join("state"));
    fs::copy(project(&world).join("snapshot.json"), backup.join("snapshot.json")).unwrap();
    let text = fs::read_to_string(world.project().join("VMFile.kdl")).unwrap();
    world.vmfile(&format!("{text}vm \"late\" {{ image \"blank.qcow2\"; backend \"noop\" }}\n"));
    world.vmctl(&["apply", "--yes", "--replace", "web"]).expect(0);

    fs::remove_dir_all(project(&world).join("state")).unwrap();
    copy(&backup, &project(&world));
    world.vmctl(&["plan"]).expect(1).says("older than it was");
    refused_and_rebuilt(&world, true, "an older copy of store and snapshot");
}

#[test]
fn state_of_another_project_is_refused_and_rebuilt() {
    let (world, other) = (applied(), applied());
    fs::remove_dir_all(project(&world).join("state")).unwrap();
    copy(&project(&other).join("state"), &project(&world).join("state"));
    world.vmctl(&["apply", "--yes"]).expect(1).says("that of another project");
    refused_and_rebuilt(&world, false, "the store of another project");

    fs::remove_dir_all(project(&world).join("state")).unwrap();
    copy(&project(&other).join("state"), &project(&world).join("state"));
    fs::copy(project(&other).join("snapshot.json"), project(&world).join("snapshot.json")).unwrap();
    refused_and_rebuilt(&world, true, "store and snapshot of another project");
}

#[test]
fn newer_state_is_refused_and_not_rebuilt() {
    let world = applied();
    let snapshot = project(&world).join("snapshot.json");
    let text = fs::read_to_string(&snapshot).unwrap();
    fs::write(&snapshot, text.replacen("\"format\":1", "\"format\":2", 1)).unwrap();
    let before = files(&project(&world).join("state"));
    for command in [&["plan"][..], &["apply", "--yes"], &["state", "rebuild"]] {
        world.vmctl(command).expect(1).says("has format 2").says("a newer one");
    }
    assert!(files(&project(&world).join("state")) == before);
}

#[test]
fn machine_without_a_note_becomes_a_tainted_record_and_a_whole_state_takes_strays_back() {
    let world = applied();
    let note = project(&world).join("vms/web/record.json");
    let kept = fs::read(&note).unwrap();
    fs::remove_dir_all(project(&world).join("state")).unwrap();
    fs::remove_file(project(&world).join("snapshot.json")).unwrap();
    fs::remove_file(&note).unwrap();
    let rebuilt = world.vmctl(&["state", "rebuild", "--json"]).expect(0).json();
    assert_eq!(rebuilt["outcome"], "rebuilt");
    let web = rebuilt["machines"].as_array().unwrap().iter().find(|vm| vm["address"] == "vm.web").unwrap();
    assert_eq!((&web["source"], &web["state"]), (&"folder".into(), &"running".into()), "{rebuilt:#}");
    assert_eq!(world.decisions()["vm.web"], "replace");

    // What it was is noted again, and the state does not know it.
    world.vmctl(&["state", "rm", "web"]).expect(0);
    let machine = project(&world).join("vms/web/machine.json");
    let text = fs::read_to_string(&machine).unwrap();
    fs::write(&machine, text.replace("\"released\": true", "\"released\": false")).unwrap();
    fs::write(&note, kept).unwrap();
    world.vmctl(&["state", "rebuild"]).expect(0).says("taken back");
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    world.vmctl(&["state", "rebuild"]).expect(0).says("is whole");
}

#[test]
fn running_guests_survive_a_rebuild_with_their_processes() {
    let world = World::new(1);
    world.blank_image();
    world.vmfile("vm \"one\" { image \"blank.qcow2\"; memory 64 }");
    world.vmctl(&["apply", "--yes"]).expect(0);
    let pid = world.pid("one");
    fs::remove_dir_all(project(&world).join("state")).unwrap();
    fs::remove_file(project(&world).join("snapshot.json")).unwrap();
    is_refused(&world.vmctl(&["plan"]));
    world.vmctl(&["state", "rebuild"]).expect(0).says("from the note in its folder");
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    world.vmctl(&["apply", "--yes"]).expect(0).says("No changes");
    assert_eq!(world.pid("one"), pid);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}

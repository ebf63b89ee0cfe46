//! What a close look finds: how processes ended, and what is wrong with files.

use std::fs;

use rustix::process::{Signal, kill_process};
use tokio::sync::mpsc;
use vmctl_providers::{
    Damage, Ending, Error, GuestAccess, Hypervisor, Inspect, Reconfigure, SshConfig, VmHandle, VmState,
};

use crate::world::{NO_PATIENCE, World, ended, human, login, raw_pid, spec, step, with_login};

#[tokio::test]
async fn changed_base_image_is_noticed_before_start() {
    let world = World::new();
    let vm = world.backend.prepare(&world.spec().await).await.unwrap();
    let base = &vm.machine.image.as_ref().unwrap().path;
    fs::copy(base, base.with_extension("new")).unwrap();
    fs::rename(base.with_extension("new"), base).unwrap();
    let error = world.backend.start(&vm).await.unwrap_err();
    assert!(matches!(error, Error::BaseChanged { .. }), "{error}");
    let seen = world.backend.inspect(&vm).await.unwrap();
    assert!(matches!(&seen.damage[..], [Damage::BaseChanged { path, .. }] if path == base), "{seen:?}");
    world.backend.destroy(vm.clone()).await.unwrap();
    world.assert_nothing_left(&vm);
}

async fn ending(world: &World, vm: &VmHandle) -> Option<Ending> {
    world.another_backend().inspect(vm).await.unwrap().ending
}

#[tokio::test]
async fn end_of_a_process_is_told_from_what_it_left() {
    let world = World::new();
    let prepared = world.backend.prepare(&world.spec().await).await.unwrap();
    assert_eq!(ending(&world, &prepared).await, None);

    let vm = world.backend.start(&prepared).await.unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(vm.runtime.as_ref().unwrap().boot.as_deref(), Some(boot.trim()));
    assert_eq!(ending(&world, &vm).await, None);

    for (signal, expected) in [(Signal::KILL, Ending::Cut), (Signal::TERM, Ending::InOrder)] {
        let vm = world.backend.start(&prepared).await.unwrap();
        let process = world.live(vm.id).unwrap();
        kill_process(raw_pid(&vm), signal).unwrap();
        ended(process).await;
        assert_eq!(ending(&world, &vm).await, Some(expected));
    }

    let vm = world.backend.start(&prepared).await.unwrap();
    let process = world.live(vm.id).unwrap();
    assert_eq!(human(&world, &vm, "quit").await, "");
    ended(process).await;
    assert_eq!(ending(&world, &vm).await, Some(Ending::InOrder));
    let mut earlier = vm.clone();
    earlier.runtime.as_mut().unwrap().boot = Some("another".to_owned());
    assert_eq!(ending(&world, &earlier).await, Some(Ending::HostRestarted));

    let vm = world.backend.start(&prepared).await.unwrap();
    let stopped = world.backend.stop(&vm, NO_PATIENCE).await.unwrap();
    assert_eq!(ending(&world, &stopped).await, Some(Ending::Unknown));
    world.backend.destroy(stopped.clone()).await.unwrap();
    assert_eq!(ending(&world, &stopped).await, None);
}

#[tokio::test]
async fn missing_files_are_told_whether_it_runs_or_not() {
    let world = World::new();
    let vm = world.backend.prepare(&with_login(world.spec().await)).await.unwrap();
    let vm = world.backend.start(&vm).await.unwrap();
    let damage = async || world.backend.inspect(&vm).await.unwrap().damage;
    assert_eq!(damage().await, []);
    let [disk, seed] = ["overlay.qcow2", "seed.img"].map(|name| vm.work_dir.join(name));
    fs::remove_file(&disk).unwrap();
    fs::remove_file(&seed).unwrap();
    let gone = [Damage::DiskMissing { path: disk }, Damage::SeedMissing { path: seed }];
    assert_eq!(damage().await, gone);
    world.backend.stop(&vm, NO_PATIENCE).await.unwrap();
    assert_eq!(damage().await, gone);

    fs::remove_file(vm.work_dir.join("manifest.json")).unwrap();
    let seen = world.backend.inspect(&vm).await.unwrap();
    assert_eq!((seen.state, seen.damage), (VmState::Destroyed, vec![]));
    fs::remove_dir_all(&vm.work_dir).unwrap();
    let seen = world.backend.inspect(&vm).await.unwrap();
    assert_eq!((seen.state, seen.damage, seen.ending), (VmState::Destroyed, vec![], None));
}

#[tokio::test]
async fn folder_without_its_manifest_is_foreign_to_a_running_machine() {
    let world = World::new();
    let vm = world.started().await;
    let path = vm.work_dir.clone();
    fs::remove_file(path.join("manifest.json")).unwrap();
    let found = "files without a manifest".to_owned();
    let damage = world.backend.inspect(&vm).await.unwrap().damage;
    assert_eq!(damage, [Damage::FolderForeign { path: path.clone(), found }]);
    fs::remove_dir_all(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let damage = world.backend.inspect(&vm).await.unwrap().damage;
    assert!(matches!(&damage[..], [Damage::FolderForeign { found, .. }] if found.starts_with("nobody")));
}

#[tokio::test]
async fn what_is_not_made_yet_is_not_missing() {
    let world = World::new();
    let vm = world.backend.prepare(&with_login(world.spec().await)).await.unwrap();
    let manifest = vm.work_dir.join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("\"prepared\": true", "\"prepared\": false")).unwrap();
    fs::remove_file(vm.work_dir.join("overlay.qcow2")).unwrap();
    let seen = world.backend.inspect(&vm).await.unwrap();
    assert_eq!((seen.state, seen.damage), (VmState::Preparing, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn seed_is_made_again_with_the_same_keys() {
    let world = World::new();
    let spec = with_login(spec(world.tiny_image().await));
    let vm = world.backend.prepare(&spec).await.unwrap();
    let vm = world.backend.start(&vm).await.unwrap();
    world.backend.wait_ready(&vm, &login()).await.unwrap();
    let files = ["seed.img", "id_ed25519", "ssh_host_ed25519_key", "known_hosts"];
    let read = || files.map(|name| fs::read(vm.work_dir.join(name)).unwrap());
    let before = read();
    let seed = vm.work_dir.join("seed.img");

    fs::remove_file(&seed).unwrap();
    let same = world.backend.reconfigure(&vm, &spec).await.unwrap();
    assert_eq!((same.state, &same.runtime), (VmState::Running, &vm.runtime));
    assert!(read() == before);
    assert_eq!(world.backend.inspect(&vm).await.unwrap().damage, []);

    // The guest takes its keys from the seed at every boot.
    let stopped = world.backend.stop(&vm, NO_PATIENCE).await.unwrap();
    fs::remove_file(&seed).unwrap();
    assert!(world.backend.start(&stopped).await.is_err());
    let mut renamed = spec.clone();
    renamed.name = "other".parse().unwrap();
    renamed.ssh = Some(SshConfig { user: "admin".to_owned(), private_key: None });
    let stopped = world.backend.reconfigure(&stopped, &renamed).await.unwrap();
    assert_eq!((stopped.name.as_str(), &stopped.work_dir), ("other", &vm.work_dir));
    assert!(read() == before);
    let vm = world.backend.start(&stopped).await.unwrap();
    world.backend.wait_ready(&vm, &login()).await.unwrap();
    let (lines, _seen) = mpsc::channel(10);
    world.backend.provision(&vm, &step("true"), &lines).await.unwrap();
}

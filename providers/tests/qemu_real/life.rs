//! Whole lives, and what interrupts them.

use std::fs;

use rustix::process::{Signal, kill_process};
use vmctl_providers::contract::{Traits, keeps_the_contract};
use vmctl_providers::{Damage, Error, Hypervisor, Inspect, Preflight, Reconfigure, SshConfig, VmState};

use crate::world::{NO_PATIENCE, SOON, World, booted, ended, pid, raw_pid, spec, virtual_size};

#[tokio::test(flavor = "multi_thread")]
async fn contract_is_kept() {
    let world = World::new();
    let traits = Traits { pauses: true, has_console: true };
    let spec = world.spec().await;
    Box::pin(keeps_the_contract(&world.backend, &spec, traits)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_life_of_a_guest() {
    let world = World::new();
    let spec = spec(world.tiny_image().await);
    let backend = &world.backend;

    backend.preflight(&spec).await.unwrap();
    let prepared = backend.prepare(&spec).await.unwrap();
    assert_eq!(prepared.state, VmState::Prepared);
    assert_eq!(backend.prepare(&spec).await.unwrap(), prepared);
    assert_eq!(backend.state(&prepared).await.unwrap(), VmState::Prepared);
    assert_eq!(backend.stop(&prepared, SOON).await.unwrap().state, VmState::Prepared);

    let vm = backend.start(&prepared).await.unwrap();
    let console = backend.console_endpoint(&vm).unwrap();
    let boot = tokio::spawn(booted(console));
    assert_eq!(vm.state, VmState::Running);
    assert_ne!(vm.ssh_port().unwrap(), 0);
    assert_eq!(backend.guest_ip(&vm).await.unwrap(), "127.0.0.1");
    assert_eq!(backend.start(&vm).await.unwrap(), vm);
    assert_eq!(backend.prepare(&spec).await.unwrap().state, VmState::Running);

    let adopted = world.another_backend().start(&prepared).await.unwrap();
    assert_eq!((pid(&adopted), adopted.ssh_port()), (pid(&vm), vm.ssh_port()));

    let suspended = backend.suspend(&vm).await.unwrap();
    assert_eq!(suspended.state, VmState::Suspended);
    assert_eq!(backend.suspend(&vm).await.unwrap(), suspended);
    assert_eq!(backend.state(&vm).await.unwrap(), VmState::Suspended);
    assert_eq!(backend.resume(&vm).await.unwrap(), vm);
    assert_eq!(backend.resume(&vm).await.unwrap(), vm);

    let seen = backend.inspect(&prepared).await.unwrap();
    assert_eq!((seen.state, seen.vcpus, seen.memory_mib), (VmState::Running, Some(1), Some(256)));
    assert_eq!(seen.damage, []);
    assert_eq!(seen.handle.ssh_port(), vm.ssh_port());

    boot.await.unwrap();
    backend.suspend(&vm).await.unwrap();
    let stopped = backend.stop(&vm, SOON).await.unwrap();
    assert_eq!((stopped.state, stopped.forced_stop.as_deref()), (VmState::Stopped, None));
    assert_eq!(stopped.runtime, None);
    assert!(!backend.runtime_dir(vm.id).path().exists());
    assert_eq!(backend.stop(&stopped, SOON).await.unwrap(), stopped);
    assert_eq!(backend.inspect(&vm).await.unwrap().state, VmState::Stopped);
    for action in [backend.suspend(&vm).await, backend.resume(&vm).await] {
        assert!(matches!(action, Err(Error::InvalidState { state: VmState::Stopped, .. })), "{action:?}");
    }

    let again = backend.start(&stopped).await.unwrap();
    assert_ne!(pid(&again), pid(&vm));
    let log = fs::read_to_string(vm.work_dir.join("console.log")).unwrap();
    assert!(log.contains("TINY-GUEST READY"), "the console log of the first boot is kept");

    backend.destroy(again.clone()).await.unwrap();
    world.assert_nothing_left(&again);
    backend.destroy(again).await.unwrap();
    assert_eq!(backend.state(&vm).await.unwrap(), VmState::Destroyed);
    assert!(spec.machine.image.as_ref().unwrap().path.exists());
}

#[tokio::test]
async fn stop_says_which_force_it_took() {
    let world = World::new();
    let vm = world.started().await;
    let stopped = world.backend.stop(&vm, NO_PATIENCE).await.unwrap();
    assert_eq!((stopped.state, stopped.forced_stop.as_deref()), (VmState::Stopped, Some("quit")));

    let vm = world.backend.start(&stopped).await.unwrap();
    assert_eq!(vm.forced_stop, None);
    kill_process(raw_pid(&vm), Signal::STOP).unwrap();
    let stopped = world.backend.stop(&vm, NO_PATIENCE).await.unwrap();
    assert_eq!((stopped.state, stopped.forced_stop.as_deref()), (VmState::Stopped, Some("SIGKILL")));
    assert!(world.live(vm.id).is_none());
}

#[tokio::test]
async fn killed_machine_is_stopped_and_starts_again() {
    let world = World::new();
    let vm = world.started().await;
    let process = world.live(vm.id).unwrap();
    process.kill().unwrap();
    ended(process).await;
    assert_eq!(world.backend.state(&vm).await.unwrap(), VmState::Stopped);
    let seen = world.backend.inspect(&vm).await.unwrap();
    assert_eq!((seen.state, seen.handle.runtime.clone()), (VmState::Stopped, None));

    let again = world.backend.start(&vm).await.unwrap();
    assert_ne!(pid(&again), pid(&vm));
    assert_eq!(again.state, VmState::Running);
}

#[tokio::test]
async fn refusal_of_qemu_is_told_in_its_words() {
    let world = World::new();
    let mut spec = world.spec().await;
    spec.machine.vcpus = 5000;
    let vm = world.backend.prepare(&spec).await.unwrap();
    let error = world.backend.start(&vm).await.unwrap_err();
    assert!(error.to_string().contains("exit code 1: qemu-system-x86_64: Invalid SMP CPUs 5000"), "{error}");
    let log = fs::read_to_string(vm.work_dir.join("qemu.log")).unwrap();
    assert!(log.starts_with("qemu-system-x86_64 -no-user-config") && log.contains("Invalid SMP"), "{log}");
    assert_eq!(world.backend.state(&vm).await.unwrap(), VmState::Prepared);
    world.backend.destroy(vm.clone()).await.unwrap();
    world.assert_nothing_left(&vm);
}

#[tokio::test]
async fn machine_whose_folder_is_lost_is_still_found_and_ended() {
    let world = World::new();
    let vm = world.started().await;
    fs::remove_dir_all(&vm.work_dir).unwrap();
    let seen = world.backend.inspect(&vm).await.unwrap();
    assert_eq!(seen.state, VmState::Running);
    assert_eq!(seen.damage, [Damage::FolderMissing { path: vm.work_dir.clone() }]);
    world.backend.destroy(vm.clone()).await.unwrap();
    world.assert_nothing_left(&vm);
}

#[tokio::test]
async fn preparing_goes_on_where_it_was_interrupted() {
    let world = World::new();
    let spec = world.spec().await;
    let vm = world.backend.prepare(&spec).await.unwrap();
    let manifest = vm.work_dir.join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("\"prepared\": true", "\"prepared\": false")).unwrap();
    fs::rename(vm.work_dir.join("overlay.qcow2"), vm.work_dir.join("overlay.qcow2.tmp")).unwrap();
    assert_eq!(world.backend.state(&vm).await.unwrap(), VmState::Preparing);
    let error = world.backend.start(&vm).await.unwrap_err();
    assert!(matches!(error, Error::InvalidState { state: VmState::Preparing, .. }), "{error}");

    assert_eq!(world.backend.prepare(&spec).await.unwrap(), vm);
    assert_eq!(fs::read_to_string(&manifest).unwrap(), text);
    assert!(!vm.work_dir.join("overlay.qcow2.tmp").exists());
}

#[tokio::test]
async fn stopped_machine_takes_new_hardware_and_a_running_one_does_not() {
    let world = World::new();
    let vm = world.started().await;
    let mut wanted = spec(vm.machine.image.clone().unwrap());
    wanted.id = vm.id;
    wanted.machine = vm.machine.clone();
    wanted.ssh = Some(SshConfig { user: "admin".to_owned(), private_key: None });
    let vm = world.backend.reconfigure(&vm, &wanted).await.unwrap();
    assert_eq!((vm.state, vm.ssh.clone()), (VmState::Running, wanted.ssh.clone()));
    assert!(vm.runtime.is_some());

    wanted.machine.memory_mib = 320;
    wanted.machine.vcpus = 2;
    wanted.machine.disk_bytes = Some(16 << 20);
    let error = world.backend.reconfigure(&vm, &wanted).await.unwrap_err();
    assert!(matches!(error, Error::InvalidState { state: VmState::Running, .. }), "{error}");

    let vm = world.backend.stop(&vm, NO_PATIENCE).await.unwrap();
    let vm = world.backend.reconfigure(&vm, &wanted).await.unwrap();
    assert_eq!(world.backend.reconfigure(&vm, &wanted).await.unwrap(), vm);
    let overlay = vm.work_dir.join("overlay.qcow2");
    assert_eq!(virtual_size(&overlay).await, 16 << 20);

    let vm = world.backend.start(&vm).await.unwrap();
    let seen = world.backend.inspect(&vm).await.unwrap();
    assert_eq!((seen.vcpus, seen.memory_mib), (Some(2), Some(320)));
}

#[tokio::test]
async fn two_starts_at_once_make_one_machine() {
    let world = World::new();
    let vm = world.backend.prepare(&world.spec().await).await.unwrap();
    let other = world.another_backend();
    let (one, two) = tokio::join!(world.backend.start(&vm), other.start(&vm));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!((pid(&one), one.ssh_port()), (pid(&two), two.ssh_port()));
}

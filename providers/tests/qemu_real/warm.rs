//! Machines from templates: alike, and each its own.

use tokio::sync::mpsc;
use uuid::Uuid;
use vmctl_providers::{
    CloneStage, Digest, GuestAccess, Hypervisor, InstanceId, Keep, MadeFrom, VmHandle, VmSpec, WarmLevel,
    WarmSpec,
};

use crate::world::{World, login, spec, step, with_login};

/// What the guest prints, line by line.
async fn said(world: &World, vm: &VmHandle, command: &str) -> Vec<String> {
    let (lines, mut seen) = mpsc::channel(100);
    world.backend.provision(vm, &step(command), &lines).await.unwrap();
    drop(lines);
    let mut text = Vec::new();
    while let Some(line) = seen.recv().await {
        text.push(line.text);
    }
    text
}

async fn source(world: &World, level: WarmLevel) -> VmSpec {
    let mut spec = with_login(spec(world.roomy_image().await));
    spec.warm = Some(WarmSpec { key: Digest::of("a key"), level, made_from: MadeFrom::Image });
    spec
}

fn clone_of(spec: &VmSpec, name: &str) -> VmSpec {
    let mut spec = spec.clone();
    spec.id = InstanceId(Uuid::new_v4());
    spec.name = name.parse().unwrap();
    spec.cloud_init.as_mut().unwrap().hostname = name.to_owned();
    spec.warm.as_mut().unwrap().made_from = MadeFrom::Template;
    spec
}

const OWN: &str = "cat /proc/sys/kernel/random/boot_id; head -c 32 /dev/urandom | base64; cat /etc/machine-id; hostname; cat /mnt/made; id -un";

/// What a machine that takes a template if there is one is made from.
async fn is_cloned(world: &World, spec: &VmSpec, name: &str) -> bool {
    let mut either = clone_of(spec, name);
    either.warm.as_mut().unwrap().made_from = MadeFrom::TemplateOrImage;
    let vm = world.backend.prepare(&either).await.unwrap();
    assert_eq!(world.backend.prepare(&either).await.unwrap(), vm);
    vm.warm.unwrap().cloned.is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn machine_takes_a_template_that_is_there_and_whole_and_does_without() {
    let world = World::new();
    let spec = source(&world, WarmLevel::Disk).await;
    assert!(!is_cloned(&world, &spec, "before").await);
    let vm = world.backend.prepare(&spec).await.unwrap();
    let vm = world.backend.start(&vm).await.unwrap();
    world.backend.wait_ready(&vm, &login()).await.unwrap();
    world.backend.keep(&vm).await.unwrap();
    assert!(is_cloned(&world, &spec, "after").await);
    let template = std::fs::read_dir(world.data.join("templates")).unwrap().next().unwrap().unwrap().path();
    let disk = std::fs::OpenOptions::new().append(true).open(template.join("disk.qcow2")).unwrap();
    disk.set_len(disk.metadata().unwrap().len() + 1).unwrap();
    assert!(!is_cloned(&world, &spec, "changed").await);
    // Who is to be made from it is told.
    let error = world.backend.prepare(&clone_of(&spec, "sure")).await.unwrap_err();
    assert!(error.to_string().contains("it is not what was kept"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn machine_goes_on_from_memory_and_is_its_own() {
    let world = World::new();
    let spec = source(&world, WarmLevel::Memory).await;
    let vm = world.backend.prepare(&spec).await.unwrap();
    let vm = world.backend.start(&vm).await.unwrap();
    world.backend.wait_ready(&vm, &login()).await.unwrap();
    said(
        &world,
        &vm,
        "echo here | sudo tee /mnt/made; echo 0123456789abcdef0123456789abcdef | sudo tee /etc/machine-id",
    )
    .await;
    world.backend.keep(&vm).await.unwrap();
    let first = said(&world, &vm, OWN).await;

    let clone = clone_of(&spec, "second");
    let vm = world.backend.prepare(&clone).await.unwrap();
    let vm = world.backend.start(&vm).await.unwrap();
    let cloned = vm.warm.clone().unwrap().cloned.unwrap();
    assert_eq!((cloned.stage, cloned.cold), (CloneStage::Renewed, None));
    world.backend.wait_ready(&vm, &login()).await.unwrap();
    let second = said(&world, &vm, OWN).await;
    assert_ne!(first[0], second[0], "boot ids");
    assert_ne!(first[1], second[1], "random numbers");
    assert_ne!(first[2], second[2], "machine ids");
    assert_eq!(second[3..], ["second", "here", "admin"]);
}

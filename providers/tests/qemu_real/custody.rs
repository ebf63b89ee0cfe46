//! Machines that no record knows, machines that were let go of, and folders beside others.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use uuid::Uuid;
use vmctl_providers::qemu::{AccelChoice, QemuConfig, firmware};
use vmctl_providers::ssh::Keyring;
use vmctl_providers::{
    Custody, Error, Hypervisor, InstanceId, Name, Preflight, QemuBackend, Reconfigure, Stray, VmHandle,
    VmSpec, VmState,
};

use crate::world::{NO_PATIENCE, World, pid};

fn project() -> Name {
    "test".parse().unwrap()
}

async fn strays(backend: &QemuBackend, known: &[InstanceId]) -> Vec<Stray> {
    let mut found = backend.strays(&project(), &known.iter().copied().collect()).await.unwrap();
    found.iter_mut().for_each(|stray| stray.handle = None);
    found
}

fn named(spec: &VmSpec, name: &str) -> VmSpec {
    VmSpec { id: InstanceId(Uuid::new_v4()), name: name.parse().unwrap(), ..spec.clone() }
}

fn stray(vm: &VmHandle, pid: Option<u32>) -> Stray {
    let work_dir = vm.work_dir.exists().then(|| vm.work_dir.clone());
    Stray { name: vm.name.to_string(), id: vm.id, pid, work_dir, released: false, note: None, handle: None }
}

#[tokio::test]
async fn machines_without_a_record_are_found_by_folder_and_process() {
    let world = World::new();
    assert_eq!(strays(&world.backend, &[]).await, []);
    let spec = world.spec().await;
    let mut machines = Vec::new();
    for name in ["both", "folder", "process"] {
        machines.push(world.backend.prepare(&named(&spec, name)).await.unwrap());
    }
    for index in [0, 2] {
        machines[index] = world.backend.start(&machines[index]).await.unwrap();
    }
    let [both, folder, process] = &machines[..] else { unreachable!() };
    fs::remove_dir_all(&process.work_dir).unwrap();

    let expected = [stray(both, Some(pid(both))), stray(folder, None), stray(process, Some(pid(process)))];
    let other = world.another_backend();
    assert_eq!(strays(&other, &[]).await, expected);
    assert_eq!(strays(&other, &[both.id]).await, expected[1..]);
    assert_eq!(strays(&other, &[both.id, folder.id, process.id]).await, []);
    assert_eq!(other.strays(&"shop".parse().unwrap(), &BTreeSet::new()).await.unwrap(), []);

    // Another data folder whose machines have their sockets in the same place.
    let elsewhere = QemuBackend::new(QemuConfig {
        vms_dir: world.data.join("elsewhere"),
        images_dir: world.data.join("images"),
        templates_dir: world.data.join("templates"),
        runtime_dir: world.run.clone(),
        accel: AccelChoice::Auto,
        take_over: false,
        firmware_dirs: firmware::SYSTEM_FOLDERS.map(Into::into).into(),
        keyring: Keyring::default(),
        bridge_helper: None,
        lease_files: Vec::new(),
    });
    assert_eq!(strays(&elsewhere, &[]).await, []);
}

#[tokio::test]
async fn what_is_nobodys_machine_is_passed_over() {
    let world = World::new();
    let vm = world.started().await;
    let vms = vm.work_dir.parent().unwrap();
    let manifest = fs::read_to_string(vm.work_dir.join("manifest.json")).unwrap();
    let file_in = |folder: &str, text: &str| {
        fs::create_dir(vms.join(folder)).unwrap();
        fs::write(vms.join(folder).join("manifest.json"), text).unwrap();
    };
    file_in("torn", "{");
    file_in("newer", &manifest.replace("\"version\": 1", "\"version\": 2"));
    file_in("foreign", &manifest.replace("\"test\"", "\"shop\""));
    fs::create_dir(vms.join("empty")).unwrap();
    fs::write(vms.join("file"), "").unwrap();
    std::os::unix::fs::symlink(&vm.work_dir, vms.join("link")).unwrap();
    let dead = world.run.join("0123456789abcdef");
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join("qemu.pid"), format!("{}\n", std::process::id())).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", world.run.join("fedcba9876543210")).unwrap();
    assert_eq!(strays(&world.backend, &[]).await, [stray(&vm, Some(pid(&vm)))]);
    // A folder of sockets that others may enter is not believed.
    fs::set_permissions(&world.run, PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(strays(&world.backend, &[]).await, [stray(&vm, None)]);
}

#[tokio::test]
async fn many_known_machines_hide_no_stray() {
    let world = World::new();
    let vm = world.backend.prepare(&world.spec().await).await.unwrap();
    let text = fs::read_to_string(vm.work_dir.join("manifest.json")).unwrap();
    let mut known = BTreeSet::new();
    for number in 0..1000 {
        let id = InstanceId(Uuid::from_u128((0x8000 << 64) + (number << 80)));
        let folder = vm.work_dir.with_file_name(format!("m{number}"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("manifest.json"), text.replace(&vm.id.to_string(), &id.to_string())).unwrap();
        known.insert(id);
    }
    let lost = known.pop_last().unwrap();
    let begun = std::time::Instant::now();
    let found = world.backend.strays(&project(), &known).await.unwrap();
    println!("1001 folders in {:?}", begun.elapsed());
    let ids: BTreeSet<InstanceId> = found.into_iter().map(|stray| stray.id).collect();
    assert_eq!(ids, BTreeSet::from([vm.id, lost]));
}

#[tokio::test]
async fn released_machine_goes_on_and_says_so() {
    let world = World::new();
    let vm = world.started().await;
    world.backend.release(&vm).await.unwrap();
    let manifest = vm.work_dir.join("manifest.json");
    let text = fs::read(&manifest).unwrap();
    world.backend.release(&vm).await.unwrap();
    assert_eq!(fs::read(&manifest).unwrap(), text);
    let expected = Stray { released: true, ..stray(&vm, Some(pid(&vm))) };
    assert_eq!(strays(&world.backend, &[]).await, [expected]);
    assert_eq!(world.backend.state(&vm).await.unwrap(), VmState::Running);

    let other = VmHandle { id: InstanceId(Uuid::new_v4()), ..vm.clone() };
    assert!(matches!(world.backend.release(&other).await, Err(Error::Foreign { .. })));
    world.backend.destroy(vm.clone()).await.unwrap();
    world.backend.release(&vm).await.unwrap();
    world.assert_nothing_left(&vm);
}

#[tokio::test]
async fn folder_of_a_renamed_machine_is_kept_and_stepped_aside_from() {
    let world = World::new();
    let spec = world.spec().await;
    let first = world.started().await;
    let mut renamed = spec.clone();
    renamed.id = first.id;
    renamed.name = "api".parse().unwrap();
    let first = world.backend.reconfigure(&first, &renamed).await.unwrap();
    assert_eq!((first.name.as_str(), first.state), ("api", VmState::Running));
    assert!(first.work_dir.ends_with("vms/web"));
    assert_eq!(strays(&world.backend, &[]).await, [stray(&first, Some(pid(&first)))]);

    let second = named(&spec, "web");
    let recorded = world.backend.handle(&second).unwrap();
    let aside = format!("web~{}", second.id.short());
    assert!(recorded.work_dir.ends_with(&aside), "{recorded:?}");
    assert!(!recorded.work_dir.exists());
    // The first goes between the record and the making of the second.
    world.backend.stop(&first, NO_PATIENCE).await.unwrap();
    world.backend.destroy(first).await.unwrap();
    let prepared = world.backend.prepare(&second).await.unwrap();
    assert_eq!(prepared.work_dir, recorded.work_dir);
    let later = world.another_backend();
    assert_eq!(later.handle(&second).unwrap().work_dir, recorded.work_dir);
    assert_eq!(later.prepare(&second).await.unwrap(), prepared);
    let vm = later.start(&prepared).await.unwrap();
    assert_eq!(strays(&later, &[]).await, [stray(&vm, Some(pid(&vm)))]);
    assert_eq!(strays(&later, &[vm.id]).await, []);
    later.destroy(vm.clone()).await.unwrap();
    world.assert_nothing_left(&vm);
}

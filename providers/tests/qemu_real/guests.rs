//! Logins, and steps that run in a guest.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tokio::sync::mpsc;
use vmctl_providers::{Error, GuestAccess, Hypervisor, VmState};

use crate::world::{World, login, spec, step, with_login};

#[tokio::test(flavor = "multi_thread")]
async fn guest_is_logged_in_to_and_provisioned() {
    let world = World::new();
    let spec = with_login(spec(world.tiny_image().await));
    let vm = world.backend.prepare(&spec).await.unwrap();
    let seed = fs::read(vm.work_dir.join("seed.img")).unwrap();
    assert_eq!(world.backend.prepare(&spec).await.unwrap(), vm);
    assert_eq!(fs::read(vm.work_dir.join("seed.img")).unwrap(), seed, "keys are not made anew");

    let vm = world.backend.start(&vm).await.unwrap();
    world.backend.wait_ready(&vm, &login()).await.unwrap();
    let (lines, mut seen) = mpsc::channel(100);
    world.backend.provision(&vm, &step("echo on $(hostname); id -un"), &lines).await.unwrap();
    let error = world.backend.provision(&vm, &step("echo broken >&2; exit 7"), &lines).await.unwrap_err();
    assert!(matches!(&error, Error::Provision { status, .. } if status.contains('7')), "{error}");
    world.another_backend().provision(&vm, &step("echo again"), &lines).await.unwrap();
    drop(lines);
    let mut text = Vec::new();
    while let Some(line) = seen.recv().await {
        text.push(line.text);
    }
    assert_eq!(text, ["on web", "admin", "broken", "again"]);
    let log = vm.work_dir.join("provision.log");
    assert!(fs::read_to_string(&log).unwrap().contains("broken"));
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);

    // The process ends in the middle of a step: that is told at once and not after the step's time.
    let process = world.live(vm.id).unwrap();
    let (lines, mut seen) = mpsc::channel(100);
    let long_step = step("echo begun; sleep 600");
    let (result, ()) = tokio::join!(world.backend.provision(&vm, &long_step, &lines), async {
        seen.recv().await.unwrap();
        process.kill().unwrap();
    });
    let Error::ProvisionCut { cause, .. } = result.unwrap_err() else { panic!("its outcome is unknown") };
    assert!(matches!(*cause, Error::ProcessEnded { .. }), "{cause}");
    assert!(cause.to_string().contains("its console ends with"), "{cause}");
}

#[tokio::test]
async fn waiting_ends_with_the_process() {
    let world = World::new();
    let vm = world.backend.prepare(&with_login(world.spec().await)).await.unwrap();
    let vm = world.backend.start(&vm).await.unwrap();
    let process = world.live(vm.id).unwrap();
    let readiness = login();
    let (result, ()) = tokio::join!(world.backend.wait_ready(&vm, &readiness), async {
        process.kill().unwrap();
    });
    let error = result.unwrap_err();
    assert!(matches!(error, Error::ProcessEnded { .. }), "{error}");
    let error = world.backend.wait_ready(&vm, &login()).await.unwrap_err();
    assert!(matches!(error, Error::InvalidState { state: VmState::Stopped, .. }), "{error}");
}

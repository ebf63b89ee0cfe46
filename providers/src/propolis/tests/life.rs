//! Whole lives of machines.

use std::time::Duration;

use base64ct::{Base64, Encoding};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vmctl_tests::propolis::{Options, openapi};

use super::super::serial;
use super::{PATIENCE, World, nic, seed};
use crate::abilities::{
    ConsoleHistory, Custody, Damage, Ending, GuestAccess, Inspect, Preflight, Probe, Readiness, Reconfigure,
    Verdict,
};
use crate::contract::{Traits, keeps_the_contract};
use crate::error::Error;
use crate::hypervisor::{ConsoleEndpoint, Hypervisor};
use crate::spec::{InstanceId, MacAddr, NetworkConfig, VmState};

#[tokio::test]
async fn contract_is_kept_with_a_server_of_somebody_else() {
    for full in [false, true] {
        let world = World::new();
        let spec = if full { world.full_spec() } else { world.spec() };
        let traits = Traits { pauses: false, has_console: true };
        Box::pin(keeps_the_contract(&world.backend, &spec, traits)).await.unwrap();
        assert_eq!(world.server.state().unwrap(), "Destroyed");
        // All that is said bears a version, and one VM was made for each boot.
        let asked = world.server.asked();
        assert!(asked.iter().all(|asked| asked.headers.get("api-version").is_some_and(|it| it == "1.0.0")));
        assert_eq!(world.count("PUT", "/instance"), 2);
    }
}

#[tokio::test]
async fn full_machine_fits_every_document_at_hand() {
    if !openapi::are_at_hand() {
        eprintln!("skipped: VMCTL_PROPOLIS_OPENAPI names no folder with the official documents");
        return;
    }
    let world = World::new();
    let vm = world.backend.prepare(&world.full_spec()).await.unwrap();
    let vm = world.backend.start(&vm).await.unwrap();
    world.backend.inspect(&vm).await.unwrap();
    world.backend.destroy(vm).await.unwrap();
    for (method, path) in [
        ("PUT", "/instance"),
        ("GET", "/instance"),
        ("GET", "/instance/spec"),
        ("PUT", "/instance/state"),
        ("GET", "/instance/state-monitor"),
        ("GET", "/instance/serial/history"),
    ] {
        assert!(world.count(method, path) > 0, "{method} {path}");
    }
}

#[tokio::test]
async fn seed_goes_with_the_request_and_nowhere_else() {
    let world = World::new();
    let vm = world.backend.prepare(&world.full_spec()).await.unwrap();
    let vm = world.backend.start(&vm).await.unwrap();
    let told = world.server.told().unwrap();
    let components = &told["init"]["value"]["spec"]["components"];
    let sent = Base64::decode_vec(components["seed-be"]["component"]["base64"].as_str().unwrap()).unwrap();
    assert!(sent == std::fs::read(vm.work_dir.join("seed.img")).unwrap());
    assert_eq!(
        components["boot-be"]["component"]["path"],
        world.folder.path().join("zvol/rpool/vms/vmctl-5f8b1d2e00004000").to_str().unwrap()
    );
    assert!(sent.windows(7).any(|bytes| bytes == b"hunter2"));
    assert!(!format!("{:?} {:?}", world.host.deeds(), vm).contains("hunter2"));
    world.backend.destroy(vm).await.unwrap();

    // What does not fit into a request is a file that the server opens.
    let mut spec = world.spec();
    spec.cloud_init = Some(seed(&format!("#!/bin/sh\n# {}\n", "x".repeat(900 << 10))));
    let vm = world.backend.prepare(&spec).await.unwrap();
    let vm = world.backend.start(&vm).await.unwrap();
    let told = world.server.told().unwrap();
    let backend = &told["init"]["value"]["spec"]["components"]["seed-be"];
    assert_eq!(backend["component"]["path"], vm.work_dir.join("seed.img").to_str().unwrap());
    assert_eq!(backend["component"]["readonly"], true);
}

#[tokio::test]
async fn stop_without_a_way_to_ask_the_guest_is_told_as_forced() {
    let world = World::new();
    let vm = world.started().await;
    // Far below the patience that it was given: nothing is waited for that cannot come.
    let stop = tokio::time::timeout(PATIENCE / 2, world.backend.stop(&vm, PATIENCE));
    let stopped = stop.await.expect("it waits for nothing").unwrap();
    assert_eq!((stopped.state, stopped.forced_stop.as_deref()), (VmState::Stopped, Some("Stop")));
    assert_eq!(world.server.state().unwrap(), "Destroyed");
}

#[tokio::test]
async fn guest_that_powers_itself_off_is_stopped_in_order_and_starts_again() {
    let world = World::new();
    let vm = world.started().await;
    world.server.power_off();
    let seen = world.backend.inspect(&vm).await.unwrap();
    assert_eq!((seen.state, seen.ending), (VmState::Stopped, Some(Ending::InOrder)));
    let stopped = world.backend.stop(&vm, PATIENCE).await.unwrap();
    assert_eq!(stopped.forced_stop, None);
    let vm = world.backend.start(&stopped).await.unwrap();
    let seen = world.backend.inspect(&vm).await.unwrap();
    assert_eq!((seen.state, seen.vcpus, seen.memory_mib), (VmState::Running, Some(2), Some(512)));
}

#[tokio::test]
async fn server_that_forgets_its_vm_has_none() {
    let world = World::new();
    let vm = world.started().await;
    world.server.reset();
    assert_eq!(world.backend.state(&vm).await.unwrap(), VmState::Stopped);
    assert_eq!(world.backend.stop(&vm, PATIENCE).await.unwrap().forced_stop, None);
    world.backend.destroy(vm).await.unwrap();
}

#[tokio::test]
async fn vm_of_somebody_else_is_neither_taken_nor_ended() {
    let world = World::new();
    world.server.occupy("11111111-2222-4333-8444-555555555555");
    let vm = world.prepared().await;
    let error = world.backend.start(&vm).await.unwrap_err();
    assert!(
        error.to_string().ends_with("runs another VM: `other`, 11111111-2222-4333-8444-555555555555"),
        "{error}"
    );
    assert!(error.help().is_some());
    assert_eq!(world.backend.state(&vm).await.unwrap(), VmState::Prepared);
    world.backend.stop(&vm, PATIENCE).await.unwrap();
    world.backend.destroy(vm).await.unwrap();
    assert_eq!(
        (world.server.state().unwrap().as_str(), world.count("PUT", "/instance/state")),
        ("Running", 0)
    );
}

#[tokio::test]
async fn what_was_made_for_a_machine_goes_with_it_and_nothing_else() {
    let world = World::new();
    world.host.add_vnic("other0", "igb0", MacAddr([2, 0, 0, 0, 0, 9]));
    world.host.add_volume("rpool/vms/precious", 1 << 20, None);
    let vm = world.backend.prepare(&world.full_spec()).await.unwrap();
    let vm = world.backend.start(&vm).await.unwrap();
    let before = world.host.deeds().len();
    world.backend.destroy(vm).await.unwrap();
    assert_eq!(
        world.host.deeds()[before..],
        ["dladm delete-vnic web0", "zfs destroy rpool/vms/vmctl-5f8b1d2e00004000"]
    );
    assert!(std::fs::read_dir(world.folder.path().join("vms")).unwrap().next().is_none());
}

#[tokio::test]
async fn failed_destroy_keeps_the_command_and_goes_on_next_time() {
    let world = World::new();
    let vm = world.backend.prepare(&world.full_spec()).await.unwrap();
    world.host.fail("zfs destroy", "cannot destroy: volume has children");
    let error = world.backend.destroy(vm.clone()).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "`zfs destroy rpool/vms/vmctl-5f8b1d2e00004000` failed with exit code 1: cannot destroy: volume has children"
    );
    // Its folder still says whose all this is.
    assert_eq!(world.backend.state(&vm).await.unwrap(), VmState::Prepared);
    world.host.fail("zfs destroy", "");
    world.backend.destroy(vm.clone()).await.unwrap();
    assert_eq!(world.backend.state(&vm).await.unwrap(), VmState::Destroyed);
}

#[tokio::test]
async fn vnic_that_a_restart_of_the_host_took_is_made_again() {
    let world = World::new();
    let vm = world.backend.prepare(&world.full_spec()).await.unwrap();
    world.host.run_by_hand("dladm delete-vnic web0");
    world.backend.start(&vm).await.unwrap();
    assert_eq!(world.host.deeds().last().unwrap(), "dladm create-vnic -t -l igb0 -m 52:54:00:00:00:00 web0");
}

#[tokio::test]
async fn machine_at_rest_gets_other_cards_and_a_larger_disk() {
    let world = World::new();
    let vm = world.backend.prepare(&world.full_spec()).await.unwrap();
    let before = world.host.deeds().len();
    let mut spec = world.full_spec();
    spec.machine.nics = vec![nic(1)];
    spec.machine.disk_bytes = Some(2 << 20);
    let changed = world.backend.reconfigure(&vm, &spec).await.unwrap();
    assert_eq!(
        world.host.deeds()[before..],
        [
            "dladm delete-vnic web0",
            "dladm create-vnic -t -l igb0 -m 52:54:00:00:00:01 web1",
            "zfs set volsize=2097152 rpool/vms/vmctl-5f8b1d2e00004000",
        ]
    );
    assert_eq!((changed.state, changed.machine.nics.len()), (VmState::Prepared, 1));
    spec.machine.disk_bytes = Some(1 << 20);
    let error = world.backend.reconfigure(&changed, &spec).await.unwrap_err();
    assert!(matches!(error, Error::DiskTooSmall { .. }), "{error}");
    spec.machine.disk_bytes = Some(2 << 20);
    spec.machine.hardware.propolis.pool = None;
    let error = world.backend.reconfigure(&changed, &spec).await.unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
}

#[tokio::test]
async fn missing_disk_is_damage_and_does_not_start() {
    let world = World::new();
    let vm = world.prepared().await;
    let disk = vm.work_dir.join("disk.raw");
    assert_eq!(disk.metadata().unwrap().len(), 1 << 20);
    std::fs::remove_file(&disk).unwrap();
    let seen = world.backend.inspect(&vm).await.unwrap();
    assert_eq!(seen.damage, [Damage::DiskMissing { path: disk }]);
    let error = world.backend.start(&vm).await.unwrap_err().to_string();
    assert!(error.ends_with("the machine's disk is gone"), "{error}");
}

#[tokio::test]
async fn console_is_kept_in_a_file_and_a_line_of_it_is_awaited() {
    let world = World::new();
    let vm = world.started().await;
    let log = Probe::Log("^ready to serve".to_owned());
    let asked = world.backend.probe(&vm, &log, PATIENCE).await.unwrap();
    assert!(matches!(asked, Verdict::Fails(_)));
    assert_eq!(world.console_log(&vm), "kernel\r\nlogin: ");
    let readiness = Readiness { probes: vec![log], timeout: Duration::from_secs(60) };
    let waiting = world.backend.wait_ready(&vm, &readiness);
    let printing = async { world.server.print(b"\r\nready to serve\r\n") };
    let (waited, ()) = tokio::join!(waiting, printing);
    waited.unwrap();
    // Once, whoever looks.
    world.backend.fetch_console(&vm).await.unwrap();
    assert_eq!(world.console_log(&vm), "kernel\r\nlogin: \r\nready to serve\r\n");
    // What is printed last is kept, and the next boot counts from its own beginning.
    world.server.print(b"bye\r\n");
    let vm = world.backend.stop(&vm, PATIENCE).await.unwrap();
    assert!(world.console_log(&vm).ends_with("bye\r\n"));
    let vm = world.backend.start(&vm).await.unwrap();
    let again = world.backend.probe(&vm, &Probe::Log("^ready".to_owned()), PATIENCE).await.unwrap();
    assert!(matches!(again, Verdict::Fails(_)), "that line was printed before the machine's last start");
    assert!(world.console_log(&vm).ends_with("bye\r\nkernel\r\nlogin: "));
}

#[tokio::test]
async fn end_of_a_guest_that_is_waited_for_is_awaited_and_not_asked_for() {
    let world = World::new();
    let vm = world.started().await;
    let probes = vec![Probe::Log("^never printed".to_owned())];
    let readiness = Readiness { probes, timeout: Duration::from_secs(600) };
    let polls = || world.count("GET", "/instance/state-monitor");
    let before = polls();
    let powering_off = async {
        // Two polls: the state as it is, and the next change.
        while polls() < before + 2 {
            tokio::task::yield_now().await;
        }
        let asked = world.count("GET", "/instance");
        world.server.power_off();
        asked
    };
    let (waited, asked) = tokio::join!(world.backend.wait_ready(&vm, &readiness), powering_off);
    let error = waited.unwrap_err();
    assert!(
        matches!(&error, Error::ProcessEnded { detail: Some(detail) } if detail.starts_with("it is stopped")),
        "{error}"
    );
    assert_eq!(world.count("GET", "/instance"), asked + 1, "one look, once its end was told");
}

#[tokio::test]
async fn console_that_a_server_has_dropped_is_told_as_dropped() {
    let world = World::with(Options { history: Some(100), ..Options::default() });
    let vm = world.started().await;
    world.server.print(&[b'a'; 50]);
    world.backend.fetch_console(&vm).await.unwrap();
    world.server.print(&[b'b'; 500]);
    world.server.print(&[b'c'; 100]);
    world.backend.fetch_console(&vm).await.unwrap();
    let (a, b, c) = ("a".repeat(50), "b".repeat(50), "c".repeat(100));
    let note = crate::console_log::note(450);
    assert_eq!(world.console_log(&vm), format!("{a}{b}{note}{c}"));
}

#[tokio::test]
async fn console_is_a_stream_of_bytes_both_ways() {
    let world = World::new();
    let vm = world.started().await;
    let ConsoleEndpoint::WebSocket(url) = world.backend.console_endpoint(&vm).unwrap() else { panic!() };
    assert_eq!(url, format!("ws://{}/instance/serial", world.server.address()));
    let mut stream = serial::open(world.server.address(), "1.0.0", 7).await.unwrap();
    let mut seen = [0; 7];
    stream.read_exact(&mut seen).await.unwrap();
    assert_eq!(&seen, b"login: ");
    stream.write_all(b"root\r").await.unwrap();
    let mut echo = [0; 5];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!((&echo, world.server.typed()), (b"root\r", b"root\r".to_vec()));
    world.server.power_off();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn guest_is_found_by_the_address_of_its_vnic() {
    let world = World::new();
    let vm = world.backend.prepare(&world.full_spec()).await.unwrap();
    assert!(matches!(world.backend.guest_ip(&vm).await.unwrap_err(), Error::InvalidState { .. }));
    let vm = world.backend.start(&vm).await.unwrap();
    assert!(matches!(world.backend.guest_ip(&vm).await.unwrap_err(), Error::NoAddress { .. }));
    world.host.set_neighbours("net0 10.1.2.3 255.255.255.255 52:54:00:00:00:00\n");
    assert_eq!(world.backend.guest_ip(&vm).await.unwrap(), "10.1.2.3");
    let seen = world.backend.inspect(&vm).await.unwrap();
    assert_eq!(seen.handle.sshd().unwrap(), "10.1.2.3:22".parse().unwrap());
}

#[tokio::test]
async fn what_no_server_could_do_is_refused_beforehand() {
    let world = World::new();
    world.backend.preflight(&world.full_spec()).await.unwrap();
    let refused = async |change: fn(&mut crate::spec::VmSpec)| {
        let mut spec = world.spec();
        change(&mut spec);
        world.backend.preflight(&spec).await.unwrap_err().to_string()
    };
    let user = refused(|spec| {
        spec.machine.nics = vec![nic(0)];
        spec.machine.nics[0].network = NetworkConfig::User;
    });
    assert_eq!(
        user.await,
        "a network other than `vnic` and `none` is not supported by the `propolis` backend"
    );
    let odd = refused(|spec| {
        spec.machine.nics = vec![nic(0)];
        spec.machine.nics[0].network = NetworkConfig::Vnic { name: "web".to_owned() };
    });
    assert!(odd.await.contains("the last one a digit"));
    let cpu = refused(|spec| spec.machine.hardware.cpu = Some("max".to_owned()));
    assert!(cpu.await.starts_with("a `cpu` model is not supported"));
    let rom = refused(|spec| {
        spec.machine.hardware.propolis.server = None;
        spec.machine.hardware.propolis.binary = Some("/bin/sh".into());
    });
    assert!(rom.await.contains("`bootrom`"));
    let rom = refused(|spec| {
        spec.machine.hardware.propolis.server = None;
        spec.machine.hardware.propolis.binary = Some("/bin/sh".into());
        spec.machine.hardware.propolis.bootrom = Some("/dev/null".into());
    });
    assert!(rom.await.ends_with("it is no file"));
    let program = refused(|spec| {
        spec.machine.hardware.propolis.server = None;
        spec.machine.hardware.propolis.binary = Some("/no/such/propolis-server".into());
    });
    assert!(program.await.contains("/no/such/propolis-server"));
}

#[tokio::test]
async fn unrecorded_machine_is_found_by_its_manifest() {
    let world = World::new();
    let vm = world.prepared().await;
    let none = std::collections::BTreeSet::<InstanceId>::new();
    let strays = world.backend.strays(&vm.project, &none).await.unwrap();
    assert_eq!((strays.len(), strays[0].id, strays[0].released), (1, vm.id, false));
    world.backend.release(&vm).await.unwrap();
    assert!(world.backend.strays(&vm.project, &none).await.unwrap()[0].released);
    assert!(world.backend.strays(&"other".parse().unwrap(), &none).await.unwrap().is_empty());
    assert!(world.backend.strays(&vm.project, &[vm.id].into()).await.unwrap().is_empty());
}

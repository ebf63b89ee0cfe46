//! Ports of the host that lead into machines, at their start and while they run.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use vmctl_providers::{
    Error, Forward, GuestAccess, Hypervisor, Inspect, MacAddr, Nic, Preflight, Protocol, Reconfigure,
    SshConfig, VmHandle, VmState,
};

use crate::world::{SOON, World, forward, human, login, spec, with_login};

#[tokio::test]
async fn forwards_of_all_kinds_are_bound_where_they_say() {
    let world = World::new();
    let mut spec = world.spec().await;
    let own = TcpListener::bind("127.83.20.1:0").unwrap().local_addr().unwrap();
    let nics = &mut spec.machine.nics;
    nics[0].forwards.extend([
        forward(Protocol::Tcp, [127, 83, 20, 1], own.port(), 80),
        forward(Protocol::Udp, [127, 0, 0, 1], 0, 53),
        forward(Protocol::Udp, [0, 0, 0, 0], 0, 54),
    ]);
    nics.push(Nic { mac: MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x57]), ..nics[0].clone() });
    nics[1].forwards = vec![Forward::SSH];
    world.backend.preflight(&spec).await.unwrap();
    let vm = world.backend.prepare(&spec).await.unwrap();
    let vm = world.backend.start(&vm).await.unwrap();

    let bound = &vm.runtime.as_ref().unwrap().forwards;
    let asked: Vec<&Forward> = spec.machine.nics.iter().flat_map(|nic| &nic.forwards).collect();
    assert_eq!(bound.len(), asked.len());
    for (bound, asked) in bound.iter().zip(asked) {
        assert_ne!(bound.host_port, 0);
        let asked_port = if asked.host_port == 0 { bound.host_port } else { asked.host_port };
        assert_eq!(bound, &Forward { host_port: asked_port, ..asked.clone() });
    }
    world.backend.preflight(&spec).await.expect("ports that the machine holds itself are no obstacle");
}

#[tokio::test]
async fn taken_port_is_told_with_its_holder() {
    let world = World::new();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut spec = world.spec().await;
    spec.machine.nics[0].forwards.push(forward(Protocol::Tcp, [127, 0, 0, 1], port, 80));

    let before = world.backend.preflight(&spec).await.unwrap_err();
    assert!(!world.data.join("vms").exists());
    let vm = world.backend.prepare(&spec).await.unwrap();
    let at_start = world.backend.start(&vm).await.unwrap_err();
    for error in [before, at_start] {
        let own = format!("(pid {})", std::process::id());
        let Error::PortInUse { address, holder: Some(holder) } = &error else { panic!("{error}") };
        assert_eq!(address, &format!("127.0.0.1:{port}/tcp"));
        assert!(holder.ends_with(&own), "{holder}");
    }
    assert_eq!(world.backend.state(&vm).await.unwrap(), VmState::Prepared);
    assert!(!world.backend.runtime_dir(vm.id).path().exists());

    drop(taken);
    world.backend.start(&vm).await.unwrap();
}

/// The forwards of a running machine: those that are bound, and those of the handle.
async fn seen(world: &World, vm: &VmHandle) -> (Vec<Forward>, Vec<Forward>) {
    let seen = world.backend.inspect(vm).await.unwrap();
    (seen.forwards.unwrap(), seen.handle.runtime.clone().unwrap().forwards)
}

/// A port of `address` that nobody holds at the moment; the address is a test's own.
fn free_port(address: [u8; 4]) -> u16 {
    TcpListener::bind((Ipv4Addr::from(address), 0)).unwrap().local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread")]
async fn forwards_change_while_a_connection_stays_open() {
    const OWN: [u8; 4] = [127, 83, 21, 1];
    let world = World::new();
    let mut spec = with_login(spec(world.tiny_image().await));
    let vm = world.backend.prepare(&spec).await.unwrap();
    let vm = world.backend.start(&vm).await.unwrap();
    world.backend.wait_ready(&vm, &login()).await.unwrap();
    let ssh = vm.runtime.as_ref().unwrap().forwards.clone();
    let mut open = TcpStream::connect((Ipv4Addr::LOCALHOST, vm.ssh_port().unwrap())).unwrap();
    open.set_read_timeout(Some(SOON)).unwrap();
    open.read_exact(&mut [0; 8]).unwrap();

    let fixed = forward(Protocol::Tcp, OWN, free_port(OWN), 22);
    let udp = forward(Protocol::Udp, OWN, 0, 53);
    spec.machine.nics[0].forwards.extend([fixed.clone(), udp.clone()]);
    let vm = world.backend.reconfigure(&vm, &spec).await.unwrap();
    assert_eq!((vm.state, &vm.machine), (VmState::Running, &spec.machine));
    let (bound, asked_for) = seen(&world, &vm).await;
    assert_eq!(vm.runtime.as_ref().unwrap().forwards, asked_for);
    assert_eq!((&asked_for[..1], &asked_for[1]), (&ssh[..], &fixed));
    assert_eq!(Forward { host_port: 0, ..asked_for[2].clone() }, udp);
    assert_eq!(bound.len(), 3);
    let mut through = TcpStream::connect((Ipv4Addr::from(OWN), fixed.host_port)).unwrap();
    through.set_read_timeout(Some(SOON)).unwrap();
    let mut banner = [0; 4];
    through.read_exact(&mut banner).unwrap();
    assert_eq!(&banner, b"SSH-");
    let again = world.backend.reconfigure(&vm, &spec).await.unwrap();
    assert_eq!(again, vm, "ports of the kernel's choice stay");

    spec.machine.nics[0].forwards = vec![Forward::SSH];
    let vm = world.backend.reconfigure(&vm, &spec).await.unwrap();
    assert_eq!(seen(&world, &vm).await, (ssh.clone(), ssh));
    assert!(TcpStream::connect((Ipv4Addr::from(OWN), fixed.host_port)).is_err());

    // The far end of the first connection still reads, and answers nonsense by ending it.
    open.write_all(b"no ssh client at all\r\n\r\n").unwrap();
    let mut rest = Vec::new();
    open.read_to_end(&mut rest).unwrap();
    assert!(!rest.is_empty(), "it was served to its end");
    let stored = fs_manifest(&vm);
    assert_eq!(stored["machine"]["nics"][0]["forwards"].as_array().unwrap().len(), 1);
}

fn fs_manifest(vm: &VmHandle) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(vm.work_dir.join("manifest.json")).unwrap()).unwrap()
}

#[tokio::test]
async fn forwards_that_somebody_else_changed_are_repaired() {
    const OWN: [u8; 4] = [127, 83, 21, 2];
    let world = World::new();
    let mut spec = world.spec().await;
    let (mine, moved) = (free_port(OWN), free_port(OWN));
    let wanted = forward(Protocol::Tcp, OWN, mine, 80);
    spec.machine.nics[0].forwards = vec![wanted.clone()];
    let vm = world.backend.prepare(&spec).await.unwrap();
    let vm = world.backend.start(&vm).await.unwrap();

    let address = Ipv4Addr::from(OWN);
    for (command, answer) in [
        (format!("hostfwd_remove net0 tcp:{address}:{mine}"), "removed"),
        // The same port, and another machine of the network behind it.
        (format!("hostfwd_add net0 tcp:{address}:{mine}-10.0.2.99:80"), ""),
        (format!("hostfwd_add net0 tcp:{address}:{moved}-:80"), ""),
        ("netdev_add user,id=extra".to_owned(), ""),
        (format!("hostfwd_add extra udp:{address}:0-:53"), ""),
    ] {
        let said = human(&world, &vm, &command).await;
        assert!(
            said.trim_end().ends_with(answer) && (said.is_empty() == answer.is_empty()),
            "{command}: {said}"
        );
    }
    let (bound, asked_for) = seen(&world, &vm).await;
    assert_eq!((bound.len(), asked_for), (3, vec![]));

    let vm = world.backend.reconfigure(&vm, &spec).await.unwrap();
    assert_eq!(seen(&world, &vm).await, (vec![wanted.clone()], vec![wanted]));
    assert!(human(&world, &vm, "info usernet").await.contains("10.0.2.15"));
}

#[tokio::test]
async fn taken_port_leaves_a_running_machine_as_it_was() {
    const OWN: [u8; 4] = [127, 83, 21, 3];
    let world = World::new();
    let mut wanted = world.spec().await;
    let vm = world.backend.prepare(&wanted).await.unwrap();
    let vm = world.backend.start(&vm).await.unwrap();
    let before = seen(&world, &vm).await;
    let manifest = fs_manifest(&vm);

    let taken = TcpListener::bind((Ipv4Addr::from(OWN), 0)).unwrap();
    let datagrams = UdpSocket::bind((Ipv4Addr::from(OWN), 0)).unwrap();
    let (tcp, udp) = (taken.local_addr().unwrap().port(), datagrams.local_addr().unwrap().port());
    for busy in [forward(Protocol::Tcp, OWN, tcp, 80), forward(Protocol::Udp, OWN, udp, 53)] {
        wanted.machine.nics[0].forwards = vec![forward(Protocol::Tcp, OWN, 0, 22), busy.clone()];
        let error = world.backend.reconfigure(&vm, &wanted).await.unwrap_err();
        let Error::PortInUse { address, holder: Some(holder) } = &error else { panic!("{error}") };
        let address_of = SocketAddr::new(busy.host_address, busy.host_port);
        assert_eq!(address, &format!("{address_of}/{}", busy.protocol.as_str()));
        assert!(holder.ends_with(&format!("(pid {})", std::process::id())), "{holder}");
        assert_eq!(seen(&world, &vm).await, before);
    }

    // Free at first and taken by the first of the two: what was done until then is undone.
    let twice = free_port(OWN);
    wanted.machine.nics[0].forwards = [80, 81].map(|port| forward(Protocol::Tcp, OWN, twice, port)).to_vec();
    let error = world.backend.reconfigure(&vm, &wanted).await.unwrap_err();
    let pid = vm.runtime.as_ref().unwrap().pid;
    assert!(
        matches!(&error, Error::PortInUse { holder: Some(holder), .. } if holder.ends_with(&format!("(pid {pid})"))),
        "{error}"
    );
    assert_eq!(seen(&world, &vm).await, before, "the automatic port is the one that it was");
    assert_eq!(fs_manifest(&vm), manifest);
}

#[tokio::test]
async fn login_settings_bring_and_take_their_forward() {
    let world = World::new();
    let mut wanted = world.spec().await;
    wanted.machine.nics[0].forwards.clear();
    let vm = world.backend.prepare(&wanted).await.unwrap();
    let vm = world.backend.start(&vm).await.unwrap();
    assert_eq!(vm.ssh_port(), None);

    wanted.machine.nics[0].forwards = vec![Forward::SSH];
    wanted.ssh = Some(SshConfig { user: "admin".to_owned(), private_key: None });
    // Paused or not: the ports are QEMU's.
    let vm = world.backend.suspend(&vm).await.unwrap();
    let vm = world.backend.reconfigure(&vm, &wanted).await.unwrap();
    assert_eq!((vm.state, vm.ssh.clone()), (VmState::Suspended, wanted.ssh.clone()));
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, vm.ssh_port().unwrap())).is_ok());

    wanted.machine.nics[0].forwards.clear();
    wanted.ssh = None;
    let vm = world.backend.reconfigure(&vm, &wanted).await.unwrap();
    assert_eq!((vm.ssh_port(), seen(&world, &vm).await.0), (None, vec![]));
}

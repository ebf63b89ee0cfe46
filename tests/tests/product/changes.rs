//! What a change of the file does to a machine that runs: as little as it needs.

use std::io::Read;
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use vmctl_tests::world::free_port;
use vmctl_tests::{World, leaks};

fn vmfile(port: u16, disk: u32) -> String {
    format!(
        r#"
vm "one" {{
    image "TINY"
    memory 192
    disk {disk}
    ssh {{ user "vm" }}
    forward host={port} guest=22
    forward host=0 guest=81
}}
"#
    )
}

/// What the guest's sshd says first through a port of this host; nothing if nothing is there.
fn greeting(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a deadline");
    let mut text = [0; 4];
    stream.read_exact(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn forwards_change_while_the_guest_runs_and_a_disk_grows_with_its_data() {
    let world = World::new(1);
    let ports = [free_port(), free_port()];
    world.vmfile(&vmfile(ports[0], 1));
    world.vmctl(&["apply", "--yes"]).expect(0);
    let pid = world.pid("one");
    world.exec("one", "echo canary | sudo tee /srv/canary; sync");
    assert_eq!(greeting(ports[0]).as_deref(), Some("SSH-"));
    let automatic = |world: &World| {
        let forwards = world.vm("one")["forwards"].as_array().expect("forwards").clone();
        let found = forwards.iter().find(|forward| forward["guest_port"] == 81);
        found.expect("the forward to 81")["host_port"].clone()
    };
    let kept = automatic(&world);

    world.vmfile(&vmfile(ports[1], 1));
    assert_eq!(world.decisions()["vm.one"], "update");
    world.vmctl(&["apply", "--yes"]).expect(0);
    assert_eq!(world.pid("one"), pid, "the guest goes on running");
    assert_eq!((greeting(ports[0]), greeting(ports[1]).as_deref()), (None, Some("SSH-")));
    assert_eq!(automatic(&world), kept, "a port of the kernel's choice stays the same");
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");

    let sectors = |world: &World| -> u64 {
        world.exec("one", "cat /sys/block/vda/size").trim().parse().expect("a number of sectors")
    };
    assert_eq!(sectors(&world), 2 << 20);
    world.vmfile(&vmfile(ports[1], 2));
    assert_eq!(world.decisions()["vm.one"], "restart");
    world.vmctl(&["apply", "--yes"]).expect(0);
    assert_eq!((sectors(&world), world.exec("one", "cat /srv/canary")), (4 << 20, "canary\n".to_owned()));

    // Smaller again: nothing but a new machine has a smaller disk, and the plan says what that costs.
    world.vmfile(&vmfile(ports[1], 1));
    assert_eq!(world.decisions()["vm.one"], "replace");
    world
        .vmctl(&["plan"])
        .expect(0)
        .says("Data will be lost")
        .says("its disk of 2 GiB, with everything on it");

    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}

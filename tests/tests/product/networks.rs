//! Networks between machines, and the ways out of them.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use vmctl_tests::world::free_port;
use vmctl_tests::{World, await_condition, leaks};

/// A machine in the network `lan`, with what else its block says.
fn member(name: &str, rest: &str) -> String {
    let memory = if rest.contains("memory") { "" } else { "memory 192" };
    format!(
        r#"
vm "{name}" {{
    {memory}
    image "TINY"
    ssh
    network "private" name="lan"
    {rest}
}}
"#
    )
}

/// Whether the guest `from` has an answer of the machine that it calls `to`.
fn reaches(world: &World, from: &str, to: &str) -> bool {
    world.vmctl(&["exec", from, "--", "sudo", "ping", "-c", "1", "-W", "5", to]).code() == 0
}

/// The address of the guest's card in a private network.
fn address(world: &World, name: &str) -> String {
    let cards = world.vmctl(&["status", name, "--json"]).expect(0).json();
    let cards = cards["vm"]["networks"].as_array().unwrap().clone();
    let card = cards.iter().find(|card| card["network"]["kind"] == "private").unwrap();
    card["network"]["address"].as_str().unwrap().to_owned()
}

/// How many datagrams came to a port of the guest that nobody listens on.
fn unclaimed(world: &World, name: &str) -> u64 {
    let counts = world.exec(name, "awk '/^Udp:/ { n = $3 } END { print n }' /proc/net/snmp");
    counts.trim().parse().unwrap()
}

#[test]
fn machines_of_a_network_know_each_other_by_name_whoever_comes_and_goes() {
    let world = World::new(3);
    let port = free_port();
    let udp = format!("forward host={port} guest=5300 protocol=\"udp\"");
    let db = |rest: &str| member("db", &format!("network \"user\"; {rest}"));
    let web = |memory: &str| member("web", &format!("network \"user\" isolated; {memory}"));
    let vmfile = |machines: &[String]| world.vmfile(&format!("network \"lan\"\n{}", machines.concat()));
    vmfile(&[db(&udp), web("")]);
    world.vmctl(&["apply", "--yes"]).expect(0);
    leaks::leakcheck(&world);
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    assert!(reaches(&world, "db", "web") && reaches(&world, "web", "db.lan"));
    let (pid, before) = (world.pid("db"), [address(&world, "db"), address(&world, "web")]);

    // What listens on the loopback of the host is open to a guest, and closed to one that is isolated.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let host = listener.local_addr().unwrap().port().to_string();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"from the host\n").unwrap();
        listener
    });
    let fetch = |name: &str| world.vmctl(&["exec", name, "--", "nc", "-w", "5", "10.0.2.2", &host]);
    fetch("web").expect(1);
    fetch("db").expect(0).says("from the host");
    drop(serving.join().unwrap());

    // A forward of udp leads to the guest, and goes while the guest runs.
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let arrived = unclaimed(&world, "db");
    await_condition("a datagram reaches the guest", || {
        // An earlier one may have been refused.
        let _ = socket.send_to(b"knock", (Ipv4Addr::LOCALHOST, port));
        unclaimed(&world, "db") > arrived
    });

    // One that joins is known to those that run; one that is restarted keeps its address. A forward goes.
    vmfile(&[db(""), web("memory 208"), member("cache", "network \"user\"")]);
    let decided = world.decisions();
    assert_eq!(
        [&decided["vm.db"], &decided["vm.web"], &decided["vm.cache"]],
        ["update", "restart", "create"]
    );
    world.vmctl(&["apply", "--yes"]).expect(0);
    leaks::leakcheck(&world);
    assert_eq!(world.pid("db"), pid);
    assert_eq!([address(&world, "db"), address(&world, "web")], before);
    for (from, to) in [("db", "cache"), ("web", "cache"), ("cache", "db"), ("db", "web")] {
        assert!(reaches(&world, from, to), "{from} -> {to}");
    }
    assert!(UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok());

    // One that leaves is forgotten by the others.
    vmfile(&[db(""), web("memory 208")]);
    world.vmctl(&["apply", "--yes"]).expect(0);
    assert!(!world.exec("db", "cat /etc/hosts").contains("cache"));
    assert_eq!(world.pid("db"), pid);
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");

    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}

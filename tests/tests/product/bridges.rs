//! Cards on a bridge of the host.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use serde_json::Value;
use vmctl_tests::lan::Lan;
use vmctl_tests::{World, leaks, process};

/// Where Debian has QEMU's bridge helper.
const HELPER: &str = "/usr/lib/qemu/qemu-bridge-helper";

/// What tap devices are made through.
const TUN: &str = "/dev/net/tun";

/// Nobody in particular.
const SOMEBODY: u32 = 65534;

/// A machine that is reached on the bridge alone, with what else its block says.
fn guest(name: &str, rest: &str) -> String {
    format!("vm \"{name}\" {{ image \"TINY\"; memory 192; ssh; {rest} }}\n")
}

/// The first card of a machine: its hardware address, and where the guest is on its network.
fn card(world: &World, name: &str) -> (String, Value) {
    let vm = world.vmctl(&["status", name, "--json"]).expect(0).json()["vm"].clone();
    (vm["networks"][0]["mac"].as_str().unwrap().to_owned(), vm["ip"].clone())
}

/// The host's end of a card.
fn device(mac: &str) -> String {
    format!("vt{}", mac.replace(':', ""))
}

#[test]
fn guests_on_a_bridge_are_found_by_their_own_cards_whatever_others_say() {
    let mut world = World::new(3);
    let mut lan = Lan::of(&mut world);
    lan.lend_addresses(&world);
    world.set("VMCTL_LEASES", "forged:leases");
    let vmfile = |world: &World, b: &str| {
        world.vmfile(&format!(
            "{}{}{}output \"login\" (template)\"{{{{ vm.a.user }}}}@{{{{ vm.a.host }}}}:{{{{ vm.a.ssh-port }}}}\"\n\
             output \"addresses\" (template)\"{{{{ vm.a.ip }}}} {{{{ vm.b.ip }}}}\"\n",
            guest("a", "network \"tap\"; provision \"shell\" { inline \"hostname | tee who\" }"),
            guest("b", &format!("network \"tap\" {{ bridge \"br0\"; }}; {b}")),
            guest("c", "network \"user\"; network \"tap\""),
        ));
    };
    vmfile(&world, "");
    world.vmctl(&["apply", "--yes"]).expect(0).says("a | a");
    leaks::leakcheck(&world);
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    let ((mac_a, a), (mac_b, b)) = (card(&world, "a"), card(&world, "b"));
    let (ip_a, ip_b) = (a.as_str().unwrap(), b.as_str().unwrap());
    assert_ne!(ip_a, ip_b);
    // One that has a user network as well is reached by its forward, and known on the bridge all the same.
    let c = world.vm("c");
    assert_eq!(c["ssh"]["address"], "127.0.0.1");
    let mac_c = c["networks"][1]["mac"].as_str().unwrap();
    assert!(world.exec("c", "ip addr").contains(&format!(" {}/", c["ip"].as_str().unwrap())));
    let mut devices = [&mac_a, &mac_b, mac_c].map(device);
    devices.sort();
    assert_eq!(lan.members(), devices);
    assert_eq!(world.exec("a", "cat who; cat /sys/class/net/eth0/address"), format!("a\n{mac_a}\n"));
    assert_eq!(world.exec("b", "hostname"), "b\n");
    world.vmctl(&["ssh", "a", "--", "hostname"]).expect(0).says("a");
    let outputs = world.vmctl(&["output", "--json"]).expect(0).json();
    assert_eq!(outputs["outputs"]["login"]["value"], format!("vm@{ip_a}:22"));
    assert_eq!(outputs["outputs"]["addresses"]["value"], format!("{ip_a} {ip_b}"));

    // What others say: an address that is not there any more, the host's own, and that of another guest.
    lan.run(&format!("ip neigh add 10.9.0.99 lladdr {mac_a} dev br0 nud stale"));
    let forged = ["10.9.0.1", ip_b].map(|address| format!("0 {mac_a} {address} a *\n")).concat();
    world.write("forged", &forged);
    for known in ["", "ip neigh flush dev br0"] {
        lan.run(known);
        assert_eq!((card(&world, "a").1, card(&world, "b").1), (a.clone(), b.clone()));
        assert_eq!(world.exec("a", "hostname"), "a\n");
    }

    // Nobody but the guest itself says where it is.
    lan.run("ip neigh flush dev br0");
    world.set("VMCTL_LEASES", "forged");
    assert_eq!(card(&world, "a").1, a);
    world.set("VMCTL_LEASES", "leases");

    // A card that is taken off its bridge is drift, and put back.
    let device_b = device(&mac_b);
    lan.run(&format!("ip link set dev {device_b} nomaster"));
    assert_eq!(world.drift()["vm.b"], ["off-bridge"]);
    world.vmctl(&["plan"]).expect(0).says(&format!("the device `{device_b}` is on no bridge"));
    let pid = world.pid("b");
    world.vmctl(&["apply", "--yes"]).expect(0);
    assert_eq!((world.pid("b"), lan.members()), (pid, devices.to_vec()));
    assert_eq!(world.exec("b", "hostname"), "b\n");

    // A restart keeps card and address, another bridge needs one.
    vmfile(&world, "vcpus 2");
    assert_eq!(world.decisions()["vm.b"], "restart");
    world.vmctl(&["apply", "--yes"]).expect(0);
    assert_eq!(card(&world, "b"), (mac_b, b));
    assert_eq!(world.exec("b", "hostname"), "b\n");
    let text = fs::read_to_string(world.project().join("VMFile.kdl")).unwrap();
    world.write("VMFile.kdl", &text.replace("bridge \"br0\"", "bridge \"br1\""));
    assert_eq!(world.decisions()["vm.b"], "restart");
    world
        .vmctl(&["apply", "--yes"])
        .expect(1)
        .says("the bridge `br1` cannot be used: there is no such bridge");
    assert_eq!(world.states()["b"], "running", "it was refused before anything was touched");

    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
    assert_eq!(lan.taps(), [""; 0]);
}

#[test]
fn example_is_reached_at_its_own_address() {
    let mut world = World::new(1);
    let mut lan = Lan::of(&mut world);
    lan.lend_addresses(&world);
    world.copy_example("bridge", &[]);
    world.vmctl(&["apply", "--yes"]).expect(0).says("page = http://10.9.0.");
    let page = world.vmctl(&["output", "page"]).expect(0).stdout;
    let host = page.trim().strip_prefix("http://").unwrap().trim_end_matches('/');
    let asked = lan.run(&format!(
        r#"exec bash -c 'exec 3<>/dev/tcp/{host}/80; printf "GET / HTTP/1.0\r\n\r\n" >&3; cat <&3'"#
    ));
    assert!(asked.ends_with("hello from the bridge\n"), "{asked}");
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    assert_eq!(lan.taps(), [""; 0]);
}

/// The way of a user who is not root. Where the tests are not run by root they are root in a namespace only, and nobody
/// else is there: then the helper is named.
#[test]
fn ordinary_user_gets_cards_through_qemus_bridge_helper() {
    let mut world = World::new(0);
    let lan = Lan::of(&mut world);
    world.blank_image();
    world.vmfile(
        "vm \"a\" { image \"blank.qcow2\"; memory 32; network \"tap\"; network \"tap\"; network \"user\" }\n",
    );
    if rustix::process::geteuid().is_root() {
        become_somebody(&mut world, &lan);
        // It is open to all on a usual host, and not in every container.
        lan.run(&format!(
            "mknod -m 600 '{0}' c 10 200; mount --bind '{0}' {TUN}",
            world.folder().join("tun").display()
        ));
        refused(&world, "no right of its own (setuid)", "root root 4755");
        let helper = world.folder().join("helper");
        fs::copy(HELPER, &helper).unwrap();
        fs::set_permissions(&helper, fs::Permissions::from_mode(0o4755)).unwrap();
        lan.run(&format!("mount --bind '{}' {HELPER}", helper.display()));
        refused(&world, "cannot be opened: Permission denied", "sudo chmod 666 /dev/net/tun");
        lan.run(&format!("chmod 666 {TUN}"));
    } else {
        world.set("VMCTL_BRIDGE_HELPER", HELPER);
    }
    let list = world.folder().join("list");
    lan.allow(&list, "deny br0\\nallow all\\n");
    refused(&world, "does not let", "echo 'allow br0' | sudo tee -a /etc/qemu/bridge.conf");
    lan.run("echo 'allow br0' >/etc/qemu/bridge.conf");
    world.vmctl(&["doctor"]).expect(0).says("br0; cards are put there by");

    world.vmctl(&["apply", "--yes"]).expect(0);
    assert_eq!((lan.members().len(), lan.taps().len()), (2, 2));
    // Its firmware heeds no power button.
    process::kill(world.pid("a"));
    world.vmctl(&["apply", "--yes"]).expect(0);
    assert_eq!((lan.members().len(), lan.taps().len()), (2, 2));
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    process::kill(world.pid("a"));
    assert_eq!(lan.taps(), [""; 0]);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}

/// Lets later runs of `world` be those of a user without rights, to whom it belongs.
fn become_somebody(world: &mut World, lan: &Lan) {
    let lets_through = |folder: &Path| fs::metadata(folder).unwrap().permissions().mode() & 0o001 != 0;
    let closed = world.folder().ancestors().skip(1).find(|folder| !lets_through(folder));
    assert_eq!(closed, None, "other users must get through TMPDIR: chmod o+x");
    // The same program where everybody gets at it.
    let program = world.folder().join("vmctl");
    fs::write(&program, "").unwrap();
    give_away(world.folder());
    lan.run(&format!("mount --bind '{}' '{}'", world.binary().display(), program.display()));
    let user = SOMEBODY.to_string();
    let run = format!("shift; exec '{}' \"$@\"", program.display());
    let more = ["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups", "sh", "-c", &run, "sh"];
    world.through(lan.prefix(world, &more));
}

fn give_away(path: &Path) {
    chown(path, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    if path.is_dir() {
        fs::read_dir(path).unwrap().flatten().for_each(|entry| give_away(&entry.path()));
    }
}

/// Panics unless the machine is refused for the sake of a bridge before anything is made.
fn refused(world: &World, words: &str, help: &str) {
    world.vmctl(&["apply", "--yes"]).expect(1).says("cannot be used: ").says(words).says(help);
    let machines = fs::read_dir(world.data().join("projects/shop/vms"));
    assert_eq!(machines.map_or(0, Iterator::count), 0, "something was made");
}

#[test]
fn bridge_that_cannot_be_used_is_told_before_anything_is_made() {
    let mut world = World::new(0);
    let lan = Lan::of(&mut world);
    world.blank_image();
    let on = |bridge: &str| {
        let ready = "ssh; ready { ssh; timeout \"2s\" }";
        world.vmfile(&format!(
            "vm \"a\" {{ image \"blank.qcow2\"; memory 32; {ready}; network \"tap\" bridge=\"{bridge}\" }}\n"
        ));
    };
    on("br7");
    refused(&world, "there is no such bridge", "sudo ip link add br7 type bridge");
    refused(&world, "`br7`", "name one that is there: `br0`");
    on("lo");
    refused(&world, "it is no bridge", "name one that is there: `br0`");
    on("br0");
    lan.run("ip link set br0 down");
    refused(&world, "it is down", "sudo ip link set br0 up");
    lan.run("ip link set br0 up");

    // Nobody lends addresses: what was looked at is told.
    let waited = world.vmctl(&["apply", "--yes"]).expect(5).says("no address of the guest was found");
    let waited = waited.says("is no neighbour that this host knows").says("no guest agent answers");
    waited.says("VMCTL_LEASES names files");
    assert_eq!(world.vm("a")["ip"], Value::Null);
    process::kill(world.pid("a"));
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    assert_eq!(lan.taps(), [""; 0]);

    world.set("VMCTL_BRIDGE_HELPER", "/does/not/exist");
    refused(&world, "cannot be run: No such file", "unset it");
}

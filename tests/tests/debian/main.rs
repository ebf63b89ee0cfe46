//! A genuine Debian with cloud-init beside small guests, as people use machines: the example `shop`.
//!
//! A test of its own, so that nothing else takes the host's processors from an emulated Debian that boots.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use vmctl_tests::world::free_port;
use vmctl_tests::{World, await_condition, leaks};

/// What a page of the machine `web` says, asked through the forward of the host.
fn page(port: u16) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the forward");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a deadline");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("a question");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// Waits until what the machines serve is served: a machine that booted answers ssh before its services do.
fn await_services(world: &World) {
    await_condition("the checks hold", || world.vmctl(&["plan", "--checks", "fail"]).code() == 0);
}

/// A machine whose own user-data is merged with vmctl's, with users of both, beside the machines of the example.
const MERGED: &str = r#"
vm "merged" {
    image (ref)"debian"
    memory 512
    cloud-init {
        user "deploy" { groups "adm" "crew" }
        user "app" { ssh-key "app.pub"; sudo "ALL=(deploy) NOPASSWD:ALL"; shell "/bin/sh" }
        write-file "/etc/ours" { content "ours\n" }
        run "echo ours >> /var/said"
        user-data "user-data.yaml" merge-keys=#true
    }
    ssh
}
"#;

/// The user's own part: it makes users, too, and lets the guest ignore its power button.
const THEIRS: &str = r#"#cloud-config
users:
  - default
  - name: theirs
    shell: /bin/sh
write_files:
  - path: /etc/theirs
    content: "theirs\n"
  - path: /etc/systemd/logind.conf.d/button.conf
    content: "[Login]\nHandlePowerKey=ignore\n"
runcmd:
  - echo theirs >> /var/said
  - systemctl restart systemd-logind
"#;

/// What both parts asked for is there, and the login was checked by the host key that vmctl made.
fn check_merged(world: &World) {
    let asked = "id -un; id -nG; id -un app; id -un debian; id -un theirs; cat /var/said /etc/ours /etc/theirs; \
                 getent passwd app | cut -d: -f7; sudo -l -U app | tail -n 1";
    let said = world.exec("merged", asked);
    let said: Vec<_> = said.lines().map(str::trim).collect();
    let expected = [
        "deploy",
        "deploy adm crew",
        "app",
        "debian",
        "theirs",
        "theirs",
        "ours",
        "ours",
        "theirs",
        "/bin/sh",
        "(deploy) NOPASSWD: ALL",
    ];
    assert_eq!(said, expected);
    let folder = world.data().join("projects/shop/vms/merged");
    let made = fs::read_to_string(folder.join("known_hosts")).expect("the host key was known before");
    let host_key = world.exec("merged", "sudo cat /etc/ssh/ssh_host_ed25519_key.pub");
    let key = host_key.split(' ').nth(1).expect("a public key");
    assert!(made.contains(key), "{made} {host_key}");
    // It ignores its power button, and does what its agent is told.
    world.vmctl(&["stop", "merged"]).expect(0).says("guest agent");
}

#[test]
fn shop_is_applied_changed_replaced_and_destroyed() {
    // `merged` makes them four for a while; it does little while the last two boot.
    let mut world = World::new(3);
    // Three of them boot a whole Debian, emulated.
    world.set_patience(Duration::from_secs(1200));
    let port = free_port();
    world.copy_example("shop", &[("18088", port)]);
    // vmctl logs in to the Debian of the example with an RSA key, which its OpenSSH takes only with SHA-2.
    let mut keygen = world.beside_vmctl("ssh-keygen");
    let made = keygen.args(["-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", "rsa"]).status();
    assert!(made.is_ok_and(|status| status.success()), "ssh-keygen makes a key");
    let text = fs::read_to_string(world.project().join("VMFile.kdl")).expect("the VMFile");
    let text = text.replacen("    ssh\n", "    ssh {\n        private-key \"rsa\"\n    }\n", 1);
    let merged = text.clone() + MERGED;
    world.write("VMFile.kdl", &merged);
    world.write("user-data.yaml", THEIRS);
    world.write("app.pub", &format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{} app\n", "A".repeat(43)));
    world.vmctl(&["apply", "--yes"]).expect(0).says("3 apples for 6 coins");
    check_merged(&world);
    world.vmctl(&["destroy", "merged", "--yes"]).expect(0);
    world.write("VMFile.kdl", &text);
    assert!(page(port).ends_with("<h1>Fresh from the tree</h1>\n3 apples for 6 coins\n"), "{}", page(port));
    assert_eq!(world.exec("db", "cloud-init status"), "status: done\n");
    assert_eq!(world.exec("db", "hostname"), "db\n");
    let size = world.exec("db", "df --output=size -BM / | tail -1");
    assert!(
        size.trim().trim_end_matches('M').parse::<u32>().expect("a size") > 3500,
        "the disk grew: {size}"
    );
    world.vmctl(&["plan", "--checks", "fail", "--detailed-exitcode"]).expect(0).says("No changes");
    leaks::leakcheck(&world);

    // Edits: more memory is a restart, the disk keeps what is on it; another forward is made while `web` runs.
    let other = free_port();
    let text = fs::read_to_string(world.project().join("VMFile.kdl")).expect("the VMFile");
    let edited = text.replace("memory 512", "memory 640").replace(&port.to_string(), &other.to_string());
    world.exec("db", "echo canary > canary; sync");
    let pid = world.pid("web");
    world.write("VMFile.kdl", &edited);
    let decisions = world.decisions();
    assert_eq!((&*decisions["vm.db"], &*decisions["vm.web"]), ("restart", "update"));
    assert_eq!(decisions["vm.prices"], "no-op");
    world.vmctl(&["apply", "--yes"]).expect(0);
    assert_eq!(world.exec("db", "cat canary"), "canary\n");
    await_services(&world);
    assert_eq!(world.exec("prices", "timeout 30 wget -q -O - http://db:8000/apples"), "3\n");
    assert_eq!(world.pid("web"), pid);
    assert!(page(other).contains("Fresh from the tree"));

    // A new Debian: its disk is lost, the volume is not.
    world.exec("db", "echo 7 | sudo tee /srv/stock/apples; sync");
    world.vmctl(&["apply", "--yes", "--replace", "db"]).expect(0);
    world.vmctl(&["exec", "db", "--", "test", "-e", "canary"]).expect(1);
    await_services(&world);
    assert_eq!(world.exec("prices", "timeout 30 wget -q -O - http://db:8000/apples"), "7\n");
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    leaks::leakcheck(&world);

    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--volumes", "--yes"]).expect(0);
    leaks::check(&world, &held);
}

/// What a machine from a template must have of its own, a line each; then its host name, and what cloud-init and
/// provisioning left behind.
const OWN: &str = "cat /etc/machine-id /proc/sys/kernel/random/boot_id; echo $(cat /var/lib/cloud/data/instance-id); \
                   sudo cut -d ' ' -f 2 /etc/ssh/ssh_host_ed25519_key.pub; head -c 32 /dev/urandom | base64; \
                   hostname; ls /etc/ssh/ssh_host_*_key | wc -l; wc -l <.ssh/authorized_keys; cat /var/ran made";

/// A machine that is kept as a template.
fn warm(name: &str) -> String {
    format!(
        r#"vm "{name}" {{
    image "{}"
    memory 512
    warm "auto"
    cloud-init {{ run "hostname >>/var/ran" }}
    ssh
    provision "shell" {{ inline "hostname >>made; sync" }}
}}
"#,
        vmctl_tests::surroundings::debian_image().display()
    )
}

#[test]
fn debian_goes_on_from_its_template_and_is_its_own() {
    let mut world = World::new(2);
    world.set_patience(Duration::from_secs(1200));
    world.write("VMFile.kdl", &warm("one"));
    world.vmctl(&["apply", "--yes"]).expect(0);
    let one = world.exec("one", OWN);

    world.write("VMFile.kdl", &(warm("one") + &warm("two")));
    let applied =
        world.vmctl(&["apply", "--yes"]).expect(0).says("it does not boot, and is provisioned already");
    assert!(!applied.text().contains("it boots"), "{}", applied.text());
    let two = world.exec("two", OWN);
    let (first, second): (Vec<_>, Vec<_>) = (one.lines().collect(), two.lines().collect());
    for (first, second) in first.iter().zip(&second).take(5) {
        assert_ne!(first, second, "{one}\n{two}");
    }
    assert_eq!(first[5..], ["one", "1", "1", "one", "one"]);
    assert_eq!(second[5..], ["two", "1", "1", "one", "one"]);
    assert_eq!(world.exec("two", "cat /etc/hosts | grep -c '127.0.1.1 two'"), "1\n");
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");

    // cloud-init takes it for the instance that its seed names, and does nothing again when it boots.
    world.vmctl(&["stop", "two"]).expect(0);
    world.vmctl(&["apply", "--yes"]).expect(0);
    let again = world.exec("two", OWN);
    let again: Vec<_> = again.lines().collect();
    assert_eq!((again[0], again[2], again[3], &again[5..]), (second[0], second[2], second[3], &second[5..]));
    leaks::leakcheck(&world);

    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}

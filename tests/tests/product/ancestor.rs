//! What the tool before this one could do by command: the same words do the same, on real machines.

use std::fs;

use vmctl_tests::server::{Answer, Server};
use vmctl_tests::terminal::Terminal;
use vmctl_tests::{World, leaks};

fn image(world: &World, name: &str) {
    let (from, to) = (World::tiny_image(), world.project().join(name));
    fs::copy(from, to).expect("a copy of the tiny image");
}

fn key(world: &World) {
    let mut command = world.beside_vmctl("ssh-keygen");
    command.args(["-q", "-N", "", "-t", "ed25519", "-f", "key"]);
    assert!(command.status().is_ok_and(|status| status.success()), "ssh-keygen makes a key");
}

/// `create`, `start`, `stop`, `suspend`, `resume`, `status`, `list`, `ssh`, `console`, `log` and `destroy`, each by the words
/// of the ancestor.
#[test]
fn machine_made_by_command_lives_and_goes() {
    let world = World::new(1);
    image(&world, "base.qcow2");
    key(&world);
    let create = ["create", "--name", "demo", "--image", "./base.qcow2", "--vcpus", "1", "--memory", "192"];
    world.vmctl(&[&create[..], &["--disk", "1", "--ssh-key", "key.pub", "--start"]].concat()).expect(0);
    world.vmctl(&["wait", "demo"]).expect(0);
    world.vmctl(&["list"]).expect(0).says("demo").says("running");
    world.vmctl(&["status", "demo"]).expect(0).says("vCPUs: 1").says("192 MiB");

    world.vmctl(&["ssh", "demo", "--", "id -un"]).expect(0).says("vm");
    world.vmctl(&["ssh", "--", "true"]).expect(0);
    world.vmctl(&["ssh", "demo", "--user", "vm", "--key", "key", "--", "exit 7"]).expect(7);
    world.vmctl(&["ssh", "demo", "--user", "nobody-here", "--", "true"]).expect(255);
    world.vmctl(&["ssh", "demo", "--key", "missing", "--", "true"]).expect(1).says("no private key");

    typed_on_a_console(&world);
    let whole = world.vmctl(&["log", "demo", "--console"]).expect(0).stdout;
    let tail = world.vmctl(&["log", "demo", "--console", "-n", "2"]).expect(0).stdout;
    assert!(tail.lines().count() <= 2 && whole.contains(tail.trim_end()), "{tail}\nin\n{whole}");
    assert_eq!(world.vmctl(&["log", "demo", "--tail", "0", "--console"]).expect(0).stdout, whole);
    world.vmctl(&["log", "demo", "--provision"]).expect(0);
    world.vmctl(&["log", "demo"]).expect(0);

    world.vmctl(&["suspend", "demo"]).expect(0);
    world.vmctl(&["suspend", "demo"]).expect(0);
    assert_eq!(world.states()["demo"], "suspended");
    world.vmctl(&["resume", "demo"]).expect(0);
    world.vmctl(&["resume", "demo"]).expect(0);
    world.vmctl(&["start", "demo"]).expect(0);
    assert_eq!(world.exec("demo", "echo here"), "here\n");
    world.vmctl(&["stop", "demo", "--timeout", "60"]).expect(0);
    world.vmctl(&["stop", "demo"]).expect(0);
    world.vmctl(&["status", "demo"]).expect(0).says("stopped");
    world.vmctl(&["resume", "demo"]).expect(1).says("it does not run");
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0);
    leaks::leakcheck(&world);
    world.vmctl(&["destroy", "demo"]).expect(0);
    world.vmctl(&["destroy", "demo"]).expect(1);
    world.vmctl(&["list"]).expect(0).says("No VMs");
}

/// Ctrl-C goes to the guest, and Ctrl-] leaves at once.
fn typed_on_a_console(world: &World) {
    let mut terminal = Terminal::new(world, (24, 80), "vmctl console demo");
    terminal.await_text("Ctrl-] leaves");
    terminal.interrupt_a_guest();
    terminal.press("\u{1d}");
    let (code, shown) = terminal.end();
    assert!(code == 0 && shown.contains("Left the console"), "{code}: {shown}");
}

/// `up`, `down`, `reload` and `provision` with `--file`, `--name` and `--no-provision`; `ssh --file`.
#[test]
fn vmfile_is_brought_up_and_down_by_the_same_words() {
    let world = World::new(1);
    world.vmfile(
        "vm \"one\" { image \"TINY\"; memory 192; ssh; provision { inline \"echo ran-once-more; echo two\" } }
vm \"other\" { image \"TINY\"; backend \"noop\" }",
    );
    fs::rename(world.project().join("VMFile.kdl"), world.project().join("Lab.kdl")).expect("another name");
    for command in ["up", "down", "reload", "provision"] {
        world.vmctl(&["--file", "Lab.kdl", "up", "--name", "other"]).expect(0);
        let typo = world.vmctl(&[command, "--file", "Lab.kdl", "--name", "onne"]).expect(1);
        typo.says("`onne`").says("other");
    }
    world.vmctl(&["up", "--file", "Lab.kdl", "--name", "one", "--no-provision"]).expect(0);
    assert!(
        !world
            .vmctl(&["log", "one", "--file", "Lab.kdl", "--provision"])
            .expect(0)
            .stdout
            .contains("ran-once-more")
    );
    world.vmctl(&["provision", "--file", "Lab.kdl", "--name", "one"]).expect(0).says("ran-once-more");
    let log = world.vmctl(&["log", "one", "--file", "Lab.kdl", "--provision", "-n", "1"]).expect(0).stdout;
    assert_eq!(log.lines().count(), 1, "{log}");
    world.vmctl(&["ssh", "one", "--file", "Lab.kdl", "--", "true"]).expect(0);
    let id =
        world.vmctl(&["status", "one", "--file", "Lab.kdl", "--json"]).expect(0).json()["vm"]["id"].clone();
    world.vmctl(&["reload", "--file", "Lab.kdl", "--name", "one", "--no-provision"]).expect(0);
    let again =
        world.vmctl(&["status", "one", "--file", "Lab.kdl", "--json"]).expect(0).json()["vm"]["id"].clone();
    assert_ne!(id, again);
    world.vmctl(&["down", "--file", "Lab.kdl", "--name", "one"]).expect(0);
    world.vmctl(&["status", "one", "--file", "Lab.kdl"]).expect(0).says("stopped");
    world.vmctl(&["provision", "--file", "Lab.kdl", "--name", "one"]).expect(1).says("it does not run");
    world.vmctl(&["down", "--file", "Lab.kdl", "--destroy"]).expect(0);
    world.vmctl(&["down", "--file", "Lab.kdl", "--destroy"]).expect(0);
}

/// `image pull`, `image list` and `image inspect`, of the cache and of a file; `create --image-url`, which fetches once.
#[test]
fn images_are_pulled_listed_and_inspected() {
    let world = World::new(0);
    world.blank_image();
    let body = fs::read(world.project().join("blank.qcow2")).expect("an image");
    let server = Server::start(move |asked| Answer::file(asked, &body, "\"one\""));
    let url = server.url("/disk.qcow2");
    world.vmctl(&["image", "list"]).expect(0);
    let path = world.vmctl(&["image", "pull", "-q", &url]).expect(0).stdout;
    world.vmctl(&["image", "list"]).expect(0).says("qcow2");
    world.vmctl(&["image", "inspect", path.trim()]).expect(0).says("virtual size 8 MiB");
    let file = world.vmctl(&["image", "inspect", "blank.qcow2", "--json"]).expect(0).json();
    assert_eq!(file["image"]["image_format"], "qcow2");
    assert_eq!(file["image"]["origins"][0]["url"], url.as_str());
    world.vmctl(&["image", "inspect", "missing.qcow2"]).expect(1);
    for name in ["a", "b"] {
        world.vmctl(&["create", name, "--image-url", &url, "--backend", "noop", "--start"]).expect(0);
    }
    assert_eq!(server.whole(), 1, "one download serves all");
    let pinned = world.vmctl(&["import", "a"]).expect(0).stdout;
    assert!(pinned.contains("sha256=\""), "{pinned}");
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0);
    world.vmctl(&["down", "--destroy"]).expect(0);
    let left = world.data().join("projects/default");
    assert!(!left.join("VMFile.kdl").exists() && !left.join("VMFile.lock").exists());
    world.vmctl(&["image", "prune"]).expect(0);
    assert!(!std::path::Path::new(path.trim()).exists(), "nothing needs it any more");
}

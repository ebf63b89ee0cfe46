//! What is measured, case by case.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vmctl_tests::server::{Answer, Server};
use vmctl_tests::{World, process};

use crate::Sides;
use crate::script::{self, Script};

/// Boot to login (P8): `apply` against a script that is given everything that can be made beforehand (overlay, seed and
/// keys), starts QEMU, tries every 10 ms whether sshd answers, and logs in with the system's ssh.
pub(crate) fn login(machines: usize, runs: usize) -> Sides {
    let world = World::new(machines);
    let names: Vec<String> = (1..=machines).map(|number| format!("m{number}")).collect();
    let vm =
        |name: &String| format!("vm \"{name}\" {{ image \"TINY\"; memory 256; ssh {{ user \"vm\" }} }}\n");
    world.vmfile(&names.iter().map(vm).collect::<String>());

    // The first run fills the image cache, and shows how QEMU is run.
    world.vmctl(&["apply", "--yes"]).expect(0);
    let scripts: Vec<Script> = names.iter().map(|name| Script::learn(&world, name)).collect();
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);

    let ours = || {
        let elapsed = timed(|| drop(world.vmctl(&["apply", "--yes"]).expect(0)));
        world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
        elapsed
    };
    Sides::measure(runs, ours, || script::log_in(&scripts))
}

/// A genuine Debian from a template, against the same booted and provisioned (P12): each side is what `apply` takes to make
/// the machine anew, its old one already gone.
pub(crate) fn warm(runs: usize) -> Sides {
    let mut world = World::new(1);
    world.set_patience(PATIENCE);
    let debian = vmctl_tests::surroundings::debian_image();
    let file = format!(
        "vm \"m\" {{\n    image \"{}\"\n    vcpus 2\n    memory 512\n    warm \"auto\"\n    ssh\n    \
         provision \"shell\" {{ inline \"sudo touch /provisioned\" }}\n}}\n",
        debian.display()
    );
    world.write("VMFile.kdl", &file);
    let made = |how: &[&str]| {
        let elapsed = timed(|| drop(world.vmctl(&[&["apply", "--yes"], how].concat()).expect(0)));
        world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
        elapsed
    };
    made(&[]);
    Sides::measure(runs, || made(&[]), || made(&["--cold"]))
}

/// How long a run may take that boots a whole Debian, emulated.
const PATIENCE: Duration = Duration::from_secs(1200);

/// Preparing machines that are not started (P6): overlay, seed, key and records, against `qemu-img create` alone, as many
/// at once as there are processors.
pub(crate) fn prepare(runs: usize) -> Sides {
    const MACHINES: usize = 20;
    let world = World::new(1);
    world
        .vmfile("vm \"m\" count=20 { image \"TINY\"; memory 256; state \"stopped\"; ssh { user \"vm\" } }\n");
    world.vmctl(&["apply", "--yes"]).expect(0);
    let base = text(&world.vm("m-1")["image"]["path"]);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);

    let ours = || {
        let elapsed = timed(|| drop(world.vmctl(&["apply", "--yes"]).expect(0)));
        world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
        elapsed
    };
    let folder = world.folder().join("overlays");
    let theirs = || {
        fs::create_dir(&folder).expect("a folder for overlays");
        let elapsed = timed(|| overlays(&folder, &base, MACHINES));
        fs::remove_dir_all(&folder).expect("to remove the overlays");
        elapsed
    };
    Sides::measure(runs, ours, theirs)
}

/// Makes overlays over `base`, one process for each.
fn overlays(folder: &Path, base: &str, count: usize) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    let mut command = Command::new("qemu-img");
                    command.args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base]);
                    let status = command.arg(folder.join(number.to_string())).status().expect("qemu-img");
                    assert!(status.success(), "qemu-img create failed");
                }
            });
        }
    });
}

/// Starting prepared machines (P9): QEMUs on empty disks that somebody ended, against the same processes started all at
/// once by hand, until each monitor greets.
pub(crate) fn start(runs: usize) -> Sides {
    const MACHINES: usize = 48;
    let world = World::new(1);
    world.blank_image();
    world.vmfile(&format!(
        "vm \"m\" count={MACHINES} {{ image \"blank.qcow2\"; memory 32; network \"none\" }}\n"
    ));
    let names: Vec<String> = (1..=MACHINES).map(|number| format!("m-{number}")).collect();
    let apply = || drop(world.vmctl(&["apply", "--yes", "--overcommit", "--parallelism", "48"]).expect(0));
    let end = || names.iter().for_each(|name| process::kill(world.pid(name)));
    apply();
    let scripts: Vec<Script> = names.iter().map(|name| Script::learn(&world, name)).collect();
    end();
    let ours = || {
        let elapsed = timed(apply);
        end();
        elapsed
    };
    let sides = Sides::measure(runs, ours, || script::greet(&scripts));
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    sides
}

/// The dispatcher (P9): 200 fake machines whose preparation takes 0.1 s each, 64 at once, against the least time that
/// this can take.
pub(crate) fn dispatch(runs: usize) -> Sides {
    const MACHINES: u32 = 200;
    const AT_ONCE: u32 = 64;
    const EACH: Duration = Duration::from_millis(100);
    let world = World::new(1);
    let noop = world.data().join("projects/shop/noop");
    fs::create_dir_all(&noop).expect("a folder for the fake world");
    let rule = format!(r#"[{{ "op": "prepare", "delay-ms": {} }}]"#, EACH.as_millis());
    fs::write(noop.join("script.json"), rule).expect("a rule for the fake world");
    world.blank_image();
    world.vmfile(&format!(
        "vm \"m\" count={MACHINES} {{ backend \"noop\"; image \"blank.qcow2\"; state \"stopped\" }}\n"
    ));
    let ours = || {
        let at_once = AT_ONCE.to_string();
        let elapsed = timed(|| drop(world.vmctl(&["apply", "--yes", "--parallelism", &at_once]).expect(0)));
        world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
        elapsed
    };
    Sides::measure(runs, ours, || EACH * MACHINES.div_ceil(AT_ONCE))
}

/// How an image lies on its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Served {
    Plain,
    Packed,
}

/// Pulling an image from a server of this host (P10): downloaded, digested, unpacked and synced in one pass, against
/// programs that do the same behind one another in a pipe.
pub(crate) fn pull(runs: usize, served: Served) -> Sides {
    const SIZE: usize = 256 << 20;
    let world = World::new(1);
    let folder = world.folder().join("home");
    let mut bytes: Vec<u8> = (0..SIZE).map(|n| (n / 4096 + n % 251) as u8).collect();
    bytes[510..512].copy_from_slice(b"\x55\xaa");
    if served == Served::Packed {
        let plain = folder.join("plain");
        fs::write(&plain, &bytes).expect("room for an image");
        bytes = Command::new("gzip").arg("-1c").arg(plain).output().expect("gzip").stdout;
    }
    let server = Server::start(move |_| Answer::whole(bytes.clone()));
    let url = server.url("/disk.raw");
    let ours = || {
        let elapsed = timed(|| drop(world.vmctl(&["image", "pull", &url]).expect(0)));
        fs::remove_dir_all(world.data()).expect("to remove the image");
        elapsed
    };
    let unpack = if served == Served::Packed { "gzip -dc" } else { "cat" };
    let pipe = format!("set -e; curl -sf '{url}' | {unpack} | tee disk | sha256sum; sync disk; rm disk");
    let theirs = || {
        timed(|| {
            let done = Command::new("sh").args(["-c", &pipe]).current_dir(&folder).output().expect("a shell");
            assert!(done.status.success(), "{done:?}");
        })
    };
    Sides::measure(runs, ours, theirs)
}

/// Disk that a second machine with an image takes (P11), in KiB as `du` counts.
pub(crate) fn second_machine() -> u64 {
    let world = World::new(1);
    world.vmfile("vm \"m\" count=2 { image \"TINY\"; memory 256; state \"stopped\"; ssh { user \"vm\" } }\n");
    world.vmctl(&["apply", "--yes"]).expect(0);
    let folder = PathBuf::from(text(&world.vm("m-2")["work_dir"]));
    blocks(&folder) / 2
}

/// Blocks of 512 bytes that a folder takes, itself and what is in it.
fn blocks(path: &Path) -> u64 {
    let own = fs::symlink_metadata(path).expect("what a file takes");
    let inside = own.is_dir().then(|| fs::read_dir(path).expect("the machine's folder"));
    own.blocks() + inside.into_iter().flatten().flatten().map(|entry| blocks(&entry.path())).sum::<u64>()
}

pub(crate) fn timed(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().expect("text").to_owned()
}

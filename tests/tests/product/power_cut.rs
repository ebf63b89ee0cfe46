//! The host loses its power while vmctl applies (F18): every acknowledged step is in the state, and one more apply converges.
//!
//! The host is a tiny guest: its QEMU is killed at a random moment, and with it goes what the guest's kernel had not written to
//! its disk, which is what a power cut takes. vmctl runs in it as it is, with the libraries of this host, from an ext4 disk
//! without a journal of data; its machines are those of the noop backend. A hypervisor syncs what it makes before it says
//! so, and the fake one does not: its machines have a disk of their own that is mounted to do that for it (`sync`).
//!
//! `VMCTL_TEST_CUTS` sets the number of cuts, `VMCTL_TEST_SEED` repeats the moments of an earlier run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use vmctl_tests::{World, process, surroundings};

/// Cuts unless more are asked for: each takes a boot of the guest.
const CUTS: u32 = 3;

/// How long after the first acknowledgement the power goes, at most.
const LATEST: Duration = Duration::from_secs(6);

/// How long anything in the guest may take.
const PATIENCE: Duration = Duration::from_secs(240);

const APPLY: &str = r#"#!/bin/sh
cd /mnt/shop
round=0
while :; do
  round=$((round + 1))
  cp "$((round % 3)).kdl" VMFile.kdl
  vmctl apply --yes --json || exit
  echo "RIG-SERIAL $(vmctl show --json | tr -d ' ,"' | sed -n 's/^serial://p')"
done
"#;

/// What the state says, then one more apply and what is left to do after it.
const CHECK: &str = r#"#!/bin/sh
cd /mnt/shop
vmctl show --json | tr -d '\n' | sed 's/^/RIG-STATE /'
echo
vmctl apply --yes >/tmp/log 2>&1 || cat /tmp/log
vmctl plan --detailed-exitcode >/tmp/log 2>&1
code=$?
[ $code = 0 ] || cat /tmp/log
echo "RIG-CONVERGED $code"
sync
"#;

/// Machines that are made, changed, replaced and removed from one round to the next.
fn rounds() -> [String; 3] {
    let vm = |name: &str, rest: &str| {
        format!("vm \"{name}\" {{ backend \"noop\"; image \"disk.img\"; {rest} }}\n")
    };
    [
        vm("a", "memory 64") + &vm("b", "memory 64; depends-on \"a\"") + &vm("c", "vcpus 2"),
        vm("a", "memory 128")
            + &vm("c", "vcpus 2; depends-on \"a\"")
            + &vm("d", "cloud-init { hostname \"one\" }"),
        vm("b", "memory 64") + &vm("d", "cloud-init { hostname \"two\" }") + &vm("e", "state \"stopped\""),
    ]
}

/// The disks of the host that loses its power: its own, and that of its machines.
fn disks(world: &World) -> [PathBuf; 2] {
    let root = world.folder().join("root");
    for folder in ["bin", "lib", "shop"] {
        fs::create_dir_all(root.join(folder)).expect("a folder");
    }
    let script = |name: &str, text: &str| {
        let path = root.join("bin").join(name);
        fs::write(&path, text).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
    };
    let binary = root.join("lib/vmctl");
    run("strip", &["-o".as_ref(), binary.as_os_str(), surroundings::binary().as_os_str()]);
    let mut loader = None;
    for library in libraries(&surroundings::binary()) {
        let name = library.file_name().expect("a library has a name").to_owned();
        fs::copy(&library, root.join("lib").join(&name)).expect("a library");
        if name.to_string_lossy().starts_with("ld-linux") {
            loader = Some(name);
        }
    }
    let loader = loader.expect("a dynamic program has a loader");
    let loader = loader.to_string_lossy();
    script(
        "vmctl",
        &format!("#!/bin/sh\nexec /mnt/lib/{loader} --library-path /mnt/lib /mnt/lib/vmctl \"$@\"\n"),
    );
    script("rig-apply", APPLY);
    script("rig-check", CHECK);
    for (number, text) in rounds().iter().enumerate() {
        fs::write(root.join(format!("shop/{number}.kdl")), text).expect("a VMFile");
    }
    fs::write(root.join("shop/VMFile.kdl"), &rounds()[0]).expect("a VMFile");
    let mut sector = vec![0; 512];
    sector[510..].copy_from_slice(b"\x55\xaa");
    fs::write(root.join("shop/disk.img"), sector).expect("an image");
    let machines = world.folder().join("machines.img");
    run("mke2fs", &["-q".as_ref(), "-t".as_ref(), "ext4".as_ref(), machines.as_os_str(), "64M".as_ref()]);
    let disk = world.folder().join("disk.img");
    run(
        "mke2fs",
        &["-q", "-t", "ext4", "-d"]
            .map(AsRef::as_ref)
            .into_iter()
            .chain([root.as_os_str(), disk.as_os_str(), "256M".as_ref()])
            .collect::<Vec<_>>(),
    );
    [disk, machines]
}

#[expect(clippy::disallowed_methods, reason = "the rig is made by the host's programs")]
fn run(program: &str, arguments: &[&std::ffi::OsStr]) {
    let path = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(|folder| Path::new(folder).join(program));
    let path =
        path.iter().find(|path| path.exists()).unwrap_or_else(|| panic!("no {program}: run tests/setup"));
    let ended = Command::new(path).args(arguments).output().expect("it runs");
    assert!(ended.status.success(), "{program}: {}", String::from_utf8_lossy(&ended.stderr));
}

/// The libraries of a program, its loader included.
#[expect(clippy::disallowed_methods, reason = "the loader knows which libraries a program needs")]
fn libraries(program: &Path) -> BTreeSet<PathBuf> {
    let listed = Command::new("ldd").arg(program).output().expect("ldd runs");
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// The host, running.
struct Host {
    qemu: Child,
    keyboard: ChildStdin,
    lines: Receiver<String>,
    deadline: Instant,
}

impl Host {
    #[expect(clippy::disallowed_methods, reason = "the host is a QEMU of its own")]
    fn boot(disks: &[PathBuf; 2]) -> Self {
        let images = surroundings::tiny_image().parent().expect("the images' folder").to_owned();
        let file = |name: &str| images.join(name).display().to_string();
        let words = fs::read_to_string(images.join("tiny.cmdline")).expect("the kernel's arguments");
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args("-nodefaults -machine q35 -cpu max,la57=off -m 512 -display none -serial stdio".split(' '));
        command.args(["-accel", "tcg,tb-size=128", "-kernel", &file("tiny-vmlinuz")]);
        command.args([
            "-initrd",
            &file("tiny-initrd.img"),
            "-append",
            &format!("{} tiny.root=ram", words.trim()),
        ]);
        // Every write is on the host's disk before the guest is told so: only what the guest itself holds back is lost.
        for disk in disks {
            command.args([
                "-drive",
                &format!("file={},format=raw,if=virtio,cache=writethrough", disk.display()),
            ]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut qemu = command.spawn().expect("QEMU runs");
        let keyboard = qemu.stdin.take().expect("a pipe");
        let console = BufReader::new(qemu.stdout.take().expect("a pipe"));
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in console.split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                    return;
                }
            }
        });
        Self { qemu, keyboard, lines, deadline: Instant::now() + PATIENCE }
    }

    fn type_line(&mut self, line: &str) {
        writeln!(self.keyboard, "{line}").expect("the host reads");
    }

    /// The next line before `until`; `None` if there is none by then.
    fn line(&self, until: Instant) -> Option<String> {
        match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("the host ended by itself"),
        }
    }

    /// Waits for a line that begins so, and gives the rest of it.
    fn await_line(&self, beginning: &str) -> String {
        self.await_line_after(beginning).0
    }

    /// The same, with all the lines before it.
    fn await_line_after(&self, beginning: &str) -> (String, Vec<String>) {
        let mut seen = Vec::new();
        while let Some(line) = self.line(self.deadline) {
            if let Some(at) = line.find(beginning).filter(|at| !line[..*at].contains("echo")) {
                return (line[at + beginning.len()..].trim().to_owned(), seen);
            }
            seen.push(line);
        }
        panic!("the host never said {beginning:?}:\n{}", seen.join("\n"));
    }

    fn prepare(&mut self) {
        self.await_line("TINY-GUEST READY");
        self.type_line("export PATH=/mnt/bin:$PATH VMCTL_DATA_DIR=/mnt/data HOME=/mnt; stty -echo");
        self.type_line("mount -t ext4 /dev/vda /mnt; umask 077; mkdir -p /mnt/data/projects/shop/vms");
        self.type_line("mount -t ext4 -o sync /dev/vdb /mnt/data/projects/shop/vms && echo RIG-\"\"MOUNTED");
        self.type_line("rm -rf /mnt/data/projects/shop/vms/lost+found");
        self.await_line("RIG-MOUNTED");
    }

    /// Takes the power. What was printed before is on the console.
    fn cut(mut self) -> Vec<String> {
        process::kill(self.qemu.id());
        self.qemu.wait().expect("it ended");
        self.lines.iter().collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        process::kill(self.qemu.id());
        let _ = self.qemu.wait();
    }
}

/// What vmctl said to be done before the power went.
#[derive(Debug, Default)]
struct Acknowledged {
    serial: u64,
    /// The last step done of each machine with its instance, and whether another one began since.
    steps: BTreeMap<String, (String, String, bool)>,
}

impl Acknowledged {
    fn take(&mut self, line: &str) {
        if let Some(serial) = line.strip_prefix("RIG-SERIAL ") {
            self.serial = self.serial.max(serial.trim().parse().unwrap_or(0));
            return;
        }
        // A line that the cut broke off acknowledges nothing.
        let Ok(event) = serde_json::from_str::<Value>(line) else { return };
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let is_machine = text("address").starts_with("vm.");
        match event["event"].as_str() {
            Some("plan") => self.serial = self.serial.max(event["plan"]["serial"].as_u64().unwrap_or(0)),
            Some("done") if is_machine => {
                self.steps.insert(text("address"), (text("kind"), text("instance"), false));
            }
            Some("started") if is_machine => {
                if let Some(step) = self.steps.get_mut(&text("address")) {
                    step.2 = true;
                }
            }
            _ => {}
        }
    }

    /// Panics unless `state` holds all of it.
    fn check(&self, state: &Value) {
        let serial = state["serial"].as_u64().unwrap_or(0);
        assert!(serial >= self.serial, "serial {serial}, and {} was acknowledged", self.serial);
        for (address, (step, instance, more)) in &self.steps {
            let record = &state["records"][address];
            let phase = record["phase"].as_str().unwrap_or("none");
            let fits = match step.as_str() {
                // Another step may have begun that nobody acknowledged.
                _ if *more => true,
                "destroy" => phase == "none" || record["instance"] != *instance,
                "prepare" => phase != "none" && phase != "preparing",
                "start" => phase == "running",
                "stop" => phase == "stopped" || phase == "destroying" || phase == "running",
                _ => phase != "none",
            };
            assert!(fits, "{address}: `{step}` of {instance} was acknowledged, and the record is {record:#}");
        }
    }
}

/// Numbers that look random and are the same for the same seed (xorshift).
struct Moments(u64);

impl Moments {
    fn next(&mut self) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Duration::from_millis(self.0 % u64::try_from(LATEST.as_millis()).expect("a few seconds"))
    }
}

#[test]
fn power_cuts_lose_nothing_that_was_acknowledged() {
    let number =
        |name: &str| surroundings::inherited(name).and_then(|text| text.to_str()?.parse::<u64>().ok());
    let seed = number("VMCTL_TEST_SEED").unwrap_or_else(|| u64::from(std::process::id()) | 1);
    let cuts = number("VMCTL_TEST_CUTS").unwrap_or(u64::from(CUTS));
    eprintln!("VMCTL_TEST_SEED={seed}");
    let world = World::new(1);
    let disks = disks(&world);
    let mut moments = Moments(seed);
    let mut acknowledged = Acknowledged::default();
    // Each boot but the first looks at what the cut before left; each but the last is cut.
    for boot in 0..=cuts {
        let mut host = Host::boot(&disks);
        host.prepare();
        if boot > 0 {
            host.type_line("rig-check");
            let found: Value = serde_json::from_str(&host.await_line("RIG-STATE ")).expect("the state");
            eprintln!("cut {boot}: {acknowledged:?}");
            acknowledged.check(&found["state"]);
            let (converged, said) = host.await_line_after("RIG-CONVERGED ");
            assert_eq!(converged, "0", "one more apply converges: {}", said.join("\n"));
        }
        if boot == cuts {
            break;
        }
        acknowledged = Acknowledged::default();
        host.type_line("exec rig-apply");
        while acknowledged.serial == 0 && acknowledged.steps.is_empty() {
            acknowledged.take(&host.line(host.deadline).expect("an apply begins"));
        }
        let moment = Instant::now() + moments.next();
        while let Some(line) = host.line(moment) {
            acknowledged.take(&line);
        }
        for line in host.cut() {
            acknowledged.take(&line);
        }
    }
}

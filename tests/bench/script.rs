//! The other side: what a short script would do.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vmctl_tests::world::free_port;
use vmctl_tests::{World, process};

use crate::hand::Hand;

/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// How long one try waits for sshd's greeting: QEMU accepts at once, whether the guest listens or not.
const GREETING: Duration = Duration::from_millis(300);

/// After this a run is given up.
const PATIENCE: Duration = Duration::from_secs(300);

/// How to run one machine without vmctl.
#[derive(Debug)]
pub(crate) struct Script {
    folder: PathBuf,
    arguments: Vec<String>,
    base: PathBuf,
    base_format: String,
    restored: Option<Restored>,
    user: String,
    key: PathBuf,
}

/// What a machine goes on from that does not boot.
#[derive(Debug)]
struct Restored {
    disk: PathBuf,
    devices: PathBuf,
}

/// A machine that a script runs; killed when dropped.
#[derive(Debug)]
pub(crate) struct Machine(Child);

impl Machine {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill and it is only waited for.
        if self.0.kill().is_ok() {
            drop(self.0.wait());
        }
    }
}

impl Script {
    /// Learns from a running machine, and keeps copies of what `destroy` will remove.
    pub(crate) fn learn(world: &World, name: &str) -> Self {
        let vm = world.vm(name);
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let work = PathBuf::from(text(&vm["work_dir"]));
        let folder = world.folder().join("script").join(name);
        fs::create_dir_all(&folder).expect("a folder for the script");
        for entry in work.read_dir().expect("the machine's folder").flatten() {
            if entry.path().is_file() && entry.path() != Path::new(&text(&vm["overlay"])) {
                fs::copy(entry.path(), folder.join(entry.file_name())).expect("a copy");
            }
        }
        let arguments = process::arguments(world.pid(name)).expect("a running machine");
        let pidfile = arguments.iter().skip_while(|argument| *argument != "-pidfile").nth(1);
        let runtime =
            Path::new(pidfile.expect("QEMU is told a pidfile")).parent().expect("a folder").to_owned();
        let moved = |argument: &String| {
            let argument = argument.replace(&*work.to_string_lossy(), &folder.to_string_lossy());
            argument.replace(&*runtime.to_string_lossy(), &folder.to_string_lossy())
        };
        let key = vm["ssh"]["private_key"].as_str().map(PathBuf::from).unwrap_or_default();
        Self {
            arguments: arguments.iter().map(moved).collect(),
            base: PathBuf::from(text(&vm["image"]["path"])),
            base_format: text(&vm["image"]["format"]),
            restored: None,
            user: vm["ssh"]["user"].as_str().unwrap_or_default().to_owned(),
            key: key.strip_prefix(&work).map(|inside| folder.join(inside)).unwrap_or(key),
            folder,
        }
    }

    /// Learns from a machine that went on from the memory of a template.
    pub(crate) fn learn_restored(world: &World, name: &str) -> Self {
        let mut script = Self::learn(world, name);
        let memory = script.arguments.iter().find(|argument| argument.contains("\"memory-backend-file\""));
        let memory: Value = serde_json::from_str(memory.expect("it has a memory of a file")).expect("JSON");
        let template = Path::new(memory["mem-path"].as_str().expect("a path")).parent().expect("a folder");
        script.restored =
            Some(Restored { disk: template.join("disk.qcow2"), devices: template.join("devices") });
        script
    }

    /// Makes a fresh overlay and takes away what the run before left.
    fn prepare(&self) {
        for entry in self.folder.read_dir().expect("the script's folder").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".sock") || name.ends_with(".pid") || name.starts_with("overlay") {
                fs::remove_file(entry.path()).expect("to remove what the run before left");
            }
        }
        if let Some(restored) = &self.restored {
            fs::copy(&restored.disk, self.folder.join("overlay.qcow2")).expect("a copy of the disk");
            return;
        }
        let mut command = Command::new("qemu-img");
        command.args(["create", "-q", "-f", "qcow2", "-F", &self.base_format, "-b"]);
        let status =
            command.arg(&self.base).arg(self.folder.join("overlay.qcow2")).status().expect("qemu-img");
        assert!(status.success(), "qemu-img create failed");
    }

    /// Starts QEMU.
    fn spawn(&self, port: u16) -> Machine {
        let argument = |argument: &String| argument.replace("127.0.0.1:0-", &format!("127.0.0.1:{port}-"));
        let arguments: Vec<String> = self.arguments.iter().map(argument).collect();
        let mut command = Command::new(&arguments[0]);
        command.args(&arguments[1..]).stdin(Stdio::null()).stdout(Stdio::null());
        Machine(command.spawn().expect("QEMU starts"))
    }

    /// Starts QEMU and tries until a login works.
    fn boot(&self) -> Machine {
        let port = free_port();
        let machine = self.spawn(port);
        wait_until("login", || greets(port) && self.logs_in(port));
        machine
    }

    /// Starts QEMU and tries until its monitor says how it is.
    fn start(&self) -> Machine {
        let machine = self.spawn(0);
        let stands_still = self.arguments.iter().any(|argument| argument == "-S");
        let _hand = self.monitor(&json!(if stands_still { "prelaunch" } else { "running" }));
        machine
    }

    /// Starts QEMU, gives it the state of a machine's devices, and tries until the guest's sshd greets.
    fn restore(&self) -> Machine {
        let port = free_port();
        let machine = self.spawn(port);
        let mut hand = self.monitor(&json!("inmigrate"));
        let mut told = |command: &str, arguments: Value| hand.execute(command, &arguments).expect("it obeys");
        let capability = json!({ "capability": "x-ignore-shared", "state": true });
        told("migrate-set-capabilities", json!({ "capabilities": [capability] }));
        let socket = self.folder.join("devices.sock");
        told("migrate-incoming", json!({ "uri": format!("unix:{}", socket.display()) }));
        let devices = &self.restored.as_ref().expect("a machine that does not boot").devices;
        let state = fs::read(devices).expect("the state of its devices");
        let mut stream = UnixStream::connect(&socket).expect("it listens");
        stream.write_all(&state).expect("it takes the state");
        drop(stream);
        wait_until("restored machine", || told("query-migrate", json!({}))["status"] == "completed");
        told("cont", json!({}));
        wait_until("greeting of sshd", || greets(port));
        machine
    }

    /// Connects to the monitor once it is there, and has it say how the machine is.
    fn monitor(&self, status: &Value) -> Hand {
        let socket = self.folder.join("qmp.sock");
        let mut stream = None;
        wait_until("monitor", || {
            stream = UnixStream::connect(&socket).ok();
            stream.is_some()
        });
        let mut hand = Hand::over(stream.expect("it was waited for")).expect("a monitor");
        let found = hand.execute("query-status", &json!({})).expect("an answer");
        assert_eq!(&found["status"], status);
        hand
    }

    fn logs_in(&self, port: u16) -> bool {
        let mut command = Command::new("ssh");
        command.args(["-F", "/dev/null", "-q", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]);
        command.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes", "-i"]).arg(&self.key);
        command.args(["-p", &port.to_string(), &format!("{}@127.0.0.1", self.user), "true"]);
        command.stdin(Stdio::null()).status().expect("ssh").success()
    }
}

/// Whether sshd answers on the port now.
fn greets(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let Ok(mut stream) = TcpStream::connect_timeout(&address, GREETING) else { return false };
    let mut greeting = [0; 4];
    stream.set_read_timeout(Some(GREETING)).is_ok()
        && stream.read_exact(&mut greeting).is_ok()
        && &greeting == b"SSH-"
}

/// Tries until something is true.
fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_true() {
        assert!(begun.elapsed() < PATIENCE, "no {what} within {PATIENCE:?}");
        thread::sleep(PAUSE);
    }
}

/// Runs all scripts at once; the time until the last login worked.
pub(crate) fn log_in(scripts: &[Script]) -> Duration {
    run(scripts, Script::boot).0
}

/// Starts all machines at once; the time until the last monitor answered.
pub(crate) fn greet(scripts: &[Script]) -> Duration {
    run(scripts, Script::start).0
}

/// Starts all machines at once, and lets them go on for as long as they are kept.
pub(crate) fn started(scripts: &[Script]) -> Vec<Machine> {
    run(scripts, Script::start).1
}

/// Lets a machine go on from its template; the time until its sshd greeted.
pub(crate) fn restore(script: &Script) -> Duration {
    run(std::slice::from_ref(script), Script::restore).0
}

fn run(scripts: &[Script], work: fn(&Script) -> Machine) -> (Duration, Vec<Machine>) {
    scripts.iter().for_each(Script::prepare);
    let begun = Instant::now();
    let machines = thread::scope(|scope| {
        let runs: Vec<_> = scripts.iter().map(|script| scope.spawn(move || work(script))).collect();
        runs.into_iter().map(|run| run.join().expect("a script that works")).collect::<Vec<Machine>>()
    });
    (begun.elapsed(), machines)
}

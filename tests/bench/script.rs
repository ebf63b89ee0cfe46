//! The other side: what a short script would do.

use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use vmctl_tests::world::free_port;
use vmctl_tests::{World, process};

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
    user: String,
    key: PathBuf,
}

/// A machine that a script runs; killed when dropped.
struct Machine(Child);

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
        let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
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
            user: vm["ssh"]["user"].as_str().unwrap_or_default().to_owned(),
            key: key.strip_prefix(&work).map(|inside| folder.join(inside)).unwrap_or(key),
            folder,
        }
    }

    /// Makes a fresh overlay and takes away what the run before left.
    fn prepare(&self) {
        for entry in self.folder.read_dir().expect("the script's folder").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".sock") || name.ends_with(".pid") || name.starts_with("overlay") {
                fs::remove_file(entry.path()).expect("to remove what the run before left");
            }
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

    /// Starts QEMU and tries until its monitor greets.
    fn start(&self) -> Machine {
        let machine = self.spawn(0);
        let monitor = self.folder.join("qmp.sock");
        wait_until("greeting of the monitor", || {
            UnixStream::connect(&monitor).is_ok_and(|mut stream| stream.read_exact(&mut [0; 4]).is_ok())
        });
        machine
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
    run(scripts, Script::boot)
}

/// Starts all machines at once; the time until the last monitor greeted.
pub(crate) fn greet(scripts: &[Script]) -> Duration {
    run(scripts, Script::start)
}

fn run(scripts: &[Script], work: fn(&Script) -> Machine) -> Duration {
    scripts.iter().for_each(Script::prepare);
    let begun = Instant::now();
    let machines = thread::scope(|scope| {
        let runs: Vec<_> = scripts.iter().map(|script| scope.spawn(move || work(script))).collect();
        runs.into_iter().map(|run| run.join().expect("a script that works")).collect::<Vec<Machine>>()
    });
    let elapsed = begun.elapsed();
    drop(machines);
    elapsed
}

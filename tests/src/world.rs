//! A throwaway place to run vmctl in.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::slots::{self, Slots};
use crate::vmctl::{Ended, Running, Unread};
use crate::watchdog::{self, Watchdog};
use crate::{PATIENCE, process, surroundings};

/// Variables that a run inherits; everything else is decided by the world.
const INHERITED: [&str; 3] = ["PATH", "VMCTL_ACCEL", "RUST_BACKTRACE"];

/// Where the host keeps files in memory.
const MEMORY: &str = "/dev/shm";

/// A project folder, a data folder and a runtime folder of its own.
#[derive(Debug)]
pub struct World {
    folder: TempDir,
    binary: PathBuf,
    variables: BTreeMap<&'static str, OsString>,
    /// What runs vmctl: a program and its arguments; nothing where it is run as it is.
    prefix: Vec<String>,
    /// How long any run may take: a hang must not stop the whole suite.
    patience: Duration,
    _slots: Slots,
    _watchdog: Watchdog,
}

impl World {
    /// Makes an empty world in which at most `guests` guests run at once; waits until so many may.
    pub fn new(guests: usize) -> Self {
        let folder = tempfile::Builder::new().prefix("vmctl-").tempdir().expect("a temporary folder");
        Self::inside(folder, guests, surroundings::binary())
    }

    /// The same with the program that obeys failpoints. It is in memory where the host has room there: whoever kills
    /// vmctl and not the host needs no disk, and syncs cost nothing.
    pub fn with_failpoints(guests: usize) -> Self {
        let mut builder = tempfile::Builder::new();
        builder.prefix("vmctl-");
        let folder = builder.tempdir_in(MEMORY).or_else(|_| builder.tempdir()).expect("a temporary folder");
        Self::inside(folder, guests, surroundings::failpoints_binary())
    }

    fn inside(folder: TempDir, guests: usize, binary: PathBuf) -> Self {
        let slots = slots::take(guests);
        for name in ["home", "run", "shop"] {
            let path = folder.path().join(name);
            fs::create_dir(&path).expect("a folder in the temporary folder");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("its mode");
        }
        let mut variables = BTreeMap::new();
        for name in INHERITED {
            variables.extend(surroundings::inherited(name).map(|value| (name, value)));
        }
        variables.insert("HOME", folder.path().join("home").into());
        variables.insert("TMPDIR", folder.path().into());
        variables.insert("VMCTL_DATA_DIR", folder.path().join("data").into());
        variables.insert("VMCTL_RUNTIME_DIR", folder.path().join("run/vmctl").into());
        let (prefix, patience) = (Vec::new(), PATIENCE);
        Self { folder, binary, variables, prefix, patience, _slots: slots, _watchdog: watchdog::watch() }
    }

    /// Its folder. Everything that a run makes is inside, or names something inside on its command line.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.variables.get("VMCTL_DATA_DIR").map(PathBuf::from).unwrap_or_default()
    }

    /// The runtime folder.
    pub fn runtime(&self) -> PathBuf {
        self.folder().join("run")
    }

    /// The folder of the VMFile; also the working folder of every run.
    pub fn project(&self) -> PathBuf {
        self.folder().join("shop")
    }

    /// Sets a variable for later runs.
    pub fn set(&mut self, name: &'static str, value: impl Into<OsString>) {
        self.variables.insert(name, value.into());
    }

    /// Lets later runs of vmctl go through another program, which runs the rest of its arguments.
    pub fn through(&mut self, prefix: Vec<String>) {
        self.prefix = prefix;
    }

    /// Takes a variable from later runs.
    pub fn unset(&mut self, name: &str) {
        self.variables.remove(name);
    }

    /// Arms failpoints for later runs, as `VMCTL_FAILPOINT` says; nothing disarms them.
    pub fn arm(&mut self, faults: &str) {
        self.set("VMCTL_FAILPOINT", faults);
    }

    /// Runs vmctl to its end and tells which failpoints it passed, in order, beside how it ended.
    pub fn traced(&mut self, arguments: &[&str]) -> (Ended, Vec<String>) {
        let trace = self.folder().join("home/trace");
        self.set("VMCTL_FAILPOINT_TRACE", &trace);
        let ended = self.vmctl(arguments);
        self.unset("VMCTL_FAILPOINT_TRACE");
        let passed = fs::read_to_string(&trace).unwrap_or_default();
        // A run that passes nothing makes no file.
        let _ = fs::remove_file(&trace);
        (ended, passed.lines().map(str::to_owned).collect())
    }

    /// Keeps a copy of the data folder, to begin from there again. Nothing of the world may run.
    pub fn save(&self) -> Saved {
        let folder = tempfile::tempdir_in(self.folder().parent().expect("not the root")).expect("a folder");
        if self.data().exists() {
            copy(&self.data(), &folder.path().join("data"));
        }
        Saved(folder)
    }

    /// Puts the data folder back to what it was.
    pub fn restore(&self, saved: &Saved) {
        if self.data().exists() {
            fs::remove_dir_all(self.data()).expect("the data folder can be removed");
        }
        let data = saved.0.path().join("data");
        if data.exists() {
            copy(&data, &self.data());
        }
    }

    /// Writes a file of the project, folders included.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.project().join(name);
        fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder of the project");
        fs::write(&path, text).expect("a file of the project");
    }

    /// Writes the VMFile; `TINY` in it becomes the path of the tiny image, `GENERIC` that of the same with Debian's
    /// generic kernel.
    pub fn vmfile(&self, text: &str) {
        let mut text = text.to_owned();
        if text.contains("TINY") {
            text = text.replace("TINY", &surroundings::tiny_image().display().to_string());
        }
        if text.contains("GENERIC") {
            text = text.replace("GENERIC", &surroundings::generic_image().display().to_string());
        }
        self.write("VMFile.kdl", &text);
    }

    /// Copies an example into the project, with the images' folder and the ports of this run.
    pub fn copy_example(&self, name: &str, ports: &[(&str, u16)]) {
        let from = surroundings::repository().join("examples").join(name);
        let image = surroundings::tiny_image();
        let images = image.parent().expect("a file is in a folder").display().to_string();
        let mut folders = vec![from.clone()];
        while let Some(folder) = folders.pop() {
            for entry in folder.read_dir().expect("a folder of an example").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let mut text = fs::read_to_string(&path).expect("a file of an example");
                for (written, port) in ports {
                    text = text.replace(written, &port.to_string());
                }
                text = text.replace("../../.cache/images", &images);
                let place = path.strip_prefix(&from).expect("it is inside");
                self.write(&place.display().to_string(), &text);
            }
        }
    }

    /// The image of the tiny guest.
    pub fn tiny_image() -> PathBuf {
        surroundings::tiny_image()
    }

    /// Makes `blank.qcow2` in the project: an empty disk. A guest on it stays in its firmware and costs next to nothing.
    pub fn blank_image(&self) {
        self.blank_disk("blank.qcow2", "8M");
    }

    /// Makes an empty disk in the project.
    pub fn blank_disk(&self, name: &str, size: &str) {
        let path = self.project().join(name);
        let made =
            Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(path).arg(size).status();
        assert!(made.is_ok_and(|status| status.success()), "qemu-img makes a disk");
    }

    /// Lets any run take so long: guests that boot a whole distribution need more than others.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Runs vmctl to its end.
    pub fn vmctl(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).end()
    }

    /// Runs vmctl to its end with `input` on its standard input.
    pub fn vmctl_with_input(&self, arguments: &[&str], input: &str) -> Ended {
        let (child, what) = self.spawn(arguments);
        Running::new(child, what, input, self.patience).end()
    }

    /// Starts vmctl.
    pub fn start(&self, arguments: &[&str]) -> Running {
        let (child, what) = self.spawn(arguments);
        Running::new(child, what, "", self.patience)
    }

    /// Starts vmctl, and reads nothing of what it prints until told to.
    pub fn start_unread(&self, arguments: &[&str]) -> Unread {
        let (child, what) = self.spawn(arguments);
        Unread::new(child, what, self.patience)
    }

    /// vmctl as every run of this world starts it; for tests that look after its streams themselves.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match self.prefix.split_first() {
            Some((program, rest)) => {
                let mut command = self.beside_vmctl(program);
                command.args(rest).arg(&self.binary);
                command
            }
            None => self.beside_vmctl(&self.binary),
        };
        command.args(arguments);
        command
    }

    /// Another program with the surroundings that vmctl has in this world.
    pub fn beside_vmctl(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.project()).env_clear().envs(&self.variables);
        command
    }

    /// The vmctl under test.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    fn spawn(&self, arguments: &[&str]) -> (Child, String) {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot run vmctl: {error}"));
        (child, format!("vmctl {}", arguments.join(" ")))
    }

    /// What `plan --json` decides for each address, addresses that are left alone included.
    pub fn decisions(&self) -> BTreeMap<String, String> {
        let plan = self.vmctl(&["plan", "--json"]).expect(0).json();
        let changes = plan["changes"].as_array().expect("a plan lists its changes");
        changes.iter().map(|change| (text(&change["address"]), text(&change["action"]))).collect()
    }

    /// The VM called `name`, as `list --json` tells it.
    pub fn vm(&self, name: &str) -> Value {
        let list = self.vmctl(&["list", "--json"]).expect(0).json();
        let vms = list["vms"].as_array().expect("a list of VMs");
        let found = vms.iter().find(|vm| vm["name"] == name);
        found.unwrap_or_else(|| panic!("`{name}` is not in {list:#}")).clone()
    }

    /// What `drift --json` finds at each address, by kind; ends with 2 if it finds anything.
    pub fn drift(&self) -> BTreeMap<String, Vec<String>> {
        let run = self.vmctl(&["drift", "--json"]);
        let (code, found) = (run.code(), run.json());
        let changes = found["changes"].as_array().expect("drift lists its changes");
        let kinds = |change: &Value| {
            let drift = change["drift"].as_array().expect("a change lists its drift");
            drift.iter().map(|drift| text(&drift["kind"])).collect::<Vec<_>>()
        };
        let drift: BTreeMap<_, _> = changes
            .iter()
            .map(|change| (text(&change["address"]), kinds(change)))
            .filter(|(_, kinds)| !kinds.is_empty())
            .collect();
        let is_any = !drift.is_empty() || found["strays"] != serde_json::json!([]);
        assert_eq!(code, if is_any { 2 } else { 0 }, "{found:#}");
        drift
    }

    /// Names and states of all VMs, as `list --json` tells them.
    pub fn states(&self) -> BTreeMap<String, String> {
        let list = self.vmctl(&["list", "--json"]).expect(0).json();
        let vms = list["vms"].as_array().expect("a list of VMs");
        vms.iter().map(|vm| (text(&vm["name"]), text(&vm["state"]))).collect()
    }

    /// The process of a running VM.
    pub fn pid(&self, name: &str) -> u32 {
        let vm = self.vm(name);
        let pid = vm["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        pid.unwrap_or_else(|| panic!("`{name}` has no process: {vm:#}"))
    }

    /// What a command in a guest printed; it must succeed.
    pub fn exec(&self, name: &str, command: &str) -> String {
        self.vmctl(&["exec", name, "--", "sh", "-c", command]).expect(0).stdout
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let left = process::naming(self.folder());
        for process in &left {
            process::kill(process.pid);
        }
        if !std::thread::panicking() {
            assert!(left.is_empty(), "the test left processes behind: {left:#?}");
        }
    }
}

/// A copy of a world's data.
#[derive(Debug)]
pub struct Saved(TempDir);

/// Copies a folder of files and folders with their modes.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a folder of the copy");
    for entry in fs::read_dir(from).expect("a folder to copy").flatten() {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            copy(&source, &target);
        } else {
            fs::copy(&source, &target).expect("a copied file");
        }
    }
    let mode = fs::metadata(from).expect("a folder to copy").permissions();
    fs::set_permissions(to, mode).expect("its mode");
}

/// A port of the loopback that nothing listens on now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port of the kernel's choice");
    listener.local_addr().expect("a bound socket has an address").port()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

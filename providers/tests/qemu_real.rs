//! The QEMU backend with real QEMU processes.
//!
//! Most machines here have an empty disk and never get beyond their firmware: that is enough for everything but a
//! clean power-down. Each test has folders and addresses of its own; whatever it leaves running is ended on drop.

#![expect(clippy::unwrap_used, reason = "a test panics where the unexpected happens")]

use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use uuid::Uuid;
use vmctl_providers::process::{Holder, Process, Program, helper};
use vmctl_providers::provision::{ProvisionAction, ProvisionStep};
use vmctl_providers::qemu::{AccelChoice, QEMU_IMG, QemuConfig};
use vmctl_providers::{
    BackendTag, CloudInitConfig, ConsoleEndpoint, Digest, DiskImage, Error, Forward, GuestAccess, Hypervisor,
    ImageFormat, Inspect, InstanceId, MacAddr, Machine, NetworkConfig, Nic, Preflight, Protocol, QemuBackend,
    Reconfigure, SshConfig, VmHandle, VmSpec, VmState,
};

/// Bounds every wait for something that should come at once; generous, for crowded hosts.
const SOON: Duration = Duration::from_secs(120);

/// Too short for any guest to power down.
const NO_PATIENCE: Duration = Duration::from_millis(200);

struct World {
    data: PathBuf,
    run: PathBuf,
    backend: QemuBackend,
    _folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self::with_data_dir("data")
    }

    fn with_data_dir(name: &str) -> Self {
        test_images();
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join(name);
        let run = folder.path().join("run");
        let backend = backend(&data, &run);
        Self { data, run, backend, _folder: folder }
    }

    /// A backend that knows nothing of what the first one did, as in another run of vmctl.
    fn another_backend(&self) -> QemuBackend {
        backend(&self.data, &self.run)
    }

    /// An empty disk as base image.
    async fn empty_image(&self) -> DiskImage {
        fs::create_dir_all(&self.data).unwrap();
        let path = self.data.join("empty.qcow2");
        let args: [OsString; 6] =
            ["create".into(), "-q".into(), "-f".into(), "qcow2".into(), path.clone().into(), "8M".into()];
        helper(&QEMU_IMG, &args, SOON).await.unwrap();
        image(path, 8 << 20)
    }

    /// A copy of the tiny guest, which boots to a login within seconds.
    async fn tiny_image(&self) -> DiskImage {
        fs::create_dir_all(&self.data).unwrap();
        let path = self.data.join("tiny.qcow2");
        fs::copy(test_images().join("tiny.qcow2"), &path)
            .expect("VMCTL_TEST_IMAGES holds tiny.qcow2: run `make test`");
        let size = virtual_size(&path).await;
        image(path, size)
    }

    async fn spec(&self) -> VmSpec {
        spec(self.empty_image().await)
    }

    async fn started(&self) -> VmHandle {
        let spec = self.spec().await;
        let vm = self.backend.prepare(&spec).await.unwrap();
        self.backend.start(&vm).await.unwrap()
    }

    fn live(&self, id: InstanceId) -> Option<Process> {
        match Process::holding(&self.backend.runtime_dir(id).pidfile(), |_| true).unwrap() {
            Holder::Expected(process) => Some(process),
            Holder::Nobody | Holder::Stranger(_) => None,
        }
    }

    fn assert_nothing_left(&self, vm: &VmHandle) {
        assert!(self.live(vm.id).is_none(), "a process is left");
        assert!(!vm.work_dir.exists(), "the work folder is left");
        let sockets = fs::read_dir(&self.run).into_iter().flatten().count();
        assert_eq!(sockets, 0, "a runtime folder is left");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for entry in fs::read_dir(&self.run).into_iter().flatten().flatten() {
            if let Ok(Holder::Expected(process)) = Process::holding(&entry.path().join("qemu.pid"), |_| true)
            {
                process.kill().expect("a machine of this test can be killed");
            }
        }
    }
}

fn backend(data: &Path, run: &Path) -> QemuBackend {
    QemuBackend::new(QemuConfig {
        vms_dir: data.join("vms"),
        runtime_dir: run.to_owned(),
        accel: AccelChoice::Auto,
    })
}

#[expect(clippy::disallowed_methods, reason = "the folder of built guests comes through the environment")]
fn test_images() -> PathBuf {
    std::env::var_os("VMCTL_TEST_IMAGES")
        .expect("VMCTL_TEST_IMAGES is not set: run `make test`, which builds the guests")
        .into()
}

async fn virtual_size(path: &Path) -> u64 {
    let info = helper(&QEMU_IMG, &["info", "--output=json", path.to_str().unwrap()], SOON).await.unwrap();
    serde_json::from_slice::<serde_json::Value>(&info).unwrap()["virtual-size"].as_u64().unwrap()
}

fn image(path: PathBuf, virtual_size: u64) -> DiskImage {
    let digest = Digest::of(path.as_os_str().as_encoded_bytes());
    DiskImage { path, format: ImageFormat::Qcow2, digest, virtual_size }
}

fn spec(image: DiskImage) -> VmSpec {
    VmSpec {
        id: InstanceId(Uuid::new_v4()),
        project: "test".parse().unwrap(),
        name: "web".parse().unwrap(),
        backend: BackendTag::Qemu,
        machine: Machine {
            vcpus: 1,
            memory_mib: 256,
            disk_bytes: None,
            image,
            nics: vec![Nic {
                mac: MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]),
                network: NetworkConfig::User,
                forwards: vec![Forward::SSH],
            }],
        },
        cloud_init: None,
        ssh: None,
    }
}

fn forward(protocol: Protocol, address: [u8; 4], host_port: u16, guest_port: u16) -> Forward {
    Forward { protocol, host_address: IpAddr::from(address), host_port, guest_port }
}

fn pid(vm: &VmHandle) -> u32 {
    vm.runtime.as_ref().unwrap().pid
}

fn raw_pid(vm: &VmHandle) -> Pid {
    Pid::from_raw(pid(vm).cast_signed()).unwrap()
}

async fn ended(process: Process) {
    tokio::time::timeout(SOON, process.exited()).await.unwrap().unwrap();
}

/// Waits until the guest says on its console that it is up; takes part in the console from the start.
async fn booted(console: ConsoleEndpoint) {
    let ConsoleEndpoint::UnixSocket(path) = console else { unreachable!("{console:?}") };
    let mut console = BufReader::new(UnixStream::connect(path).await.unwrap());
    let mut line = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&line).contains("TINY-GUEST READY") {
            line.clear();
            assert!(console.read_until(b'\n', &mut line).await.unwrap() > 0, "the console was closed");
        }
    };
    tokio::time::timeout(SOON, reading).await.unwrap();
}

/// Connects to a monitor and takes its greeting, which keeps everybody else waiting.
async fn hold(monitor: &Path) -> BufReader<UnixStream> {
    let mut held = BufReader::new(UnixStream::connect(monitor).await.unwrap());
    let mut greeting = String::new();
    held.read_line(&mut greeting).await.unwrap();
    assert!(greeting.contains("QMP"), "{greeting}");
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_life_of_a_guest() {
    let world = World::new();
    let spec = spec(world.tiny_image().await);
    let backend = &world.backend;

    backend.preflight(&spec).await.unwrap();
    let prepared = backend.prepare(&spec).await.unwrap();
    assert_eq!(prepared.state, VmState::Prepared);
    assert_eq!(backend.prepare(&spec).await.unwrap(), prepared);
    assert_eq!(backend.state(&prepared).await.unwrap(), VmState::Prepared);
    assert_eq!(backend.stop(&prepared, SOON).await.unwrap().state, VmState::Prepared);

    let vm = backend.start(&prepared).await.unwrap();
    let console = backend.console_endpoint(&vm).unwrap();
    let boot = tokio::spawn(booted(console));
    assert_eq!(vm.state, VmState::Running);
    assert_ne!(vm.ssh_port().unwrap(), 0);
    assert_eq!(backend.guest_ip(&vm).await.unwrap(), "127.0.0.1");
    assert_eq!(backend.start(&vm).await.unwrap(), vm);
    assert_eq!(backend.prepare(&spec).await.unwrap().state, VmState::Running);

    let adopted = world.another_backend().start(&prepared).await.unwrap();
    assert_eq!((pid(&adopted), adopted.ssh_port()), (pid(&vm), vm.ssh_port()));

    let suspended = backend.suspend(&vm).await.unwrap();
    assert_eq!(suspended.state, VmState::Suspended);
    assert_eq!(backend.suspend(&vm).await.unwrap(), suspended);
    assert_eq!(backend.state(&vm).await.unwrap(), VmState::Suspended);
    assert_eq!(backend.resume(&vm).await.unwrap(), vm);
    assert_eq!(backend.resume(&vm).await.unwrap(), vm);

    let seen = backend.inspect(&prepared).await.unwrap();
    assert_eq!((seen.state, seen.vcpus, seen.memory_mib), (VmState::Running, Some(1), Some(256)));
    assert_eq!((seen.missing, seen.problems), (vec![], vec![]));
    assert_eq!(seen.handle.ssh_port(), vm.ssh_port());

    boot.await.unwrap();
    backend.suspend(&vm).await.unwrap();
    let stopped = backend.stop(&vm, SOON).await.unwrap();
    assert_eq!((stopped.state, stopped.forced_stop.as_deref()), (VmState::Stopped, None));
    assert_eq!(stopped.runtime, None);
    assert!(!backend.runtime_dir(vm.id).path().exists());
    assert_eq!(backend.stop(&stopped, SOON).await.unwrap(), stopped);
    assert_eq!(backend.inspect(&vm).await.unwrap().state, VmState::Stopped);
    for action in [backend.suspend(&vm).await, backend.resume(&vm).await] {
        assert!(matches!(action, Err(Error::InvalidState { state: VmState::Stopped, .. })), "{action:?}");
    }

    let again = backend.start(&stopped).await.unwrap();
    assert_ne!(pid(&again), pid(&vm));
    let log = fs::read_to_string(vm.work_dir.join("console.log")).unwrap();
    assert!(log.contains("TINY-GUEST READY"), "the console log of the first boot is kept");

    backend.destroy(again.clone()).await.unwrap();
    world.assert_nothing_left(&again);
    backend.destroy(again).await.unwrap();
    assert_eq!(backend.state(&vm).await.unwrap(), VmState::Destroyed);
    assert!(spec.machine.image.path.exists());
}

fn with_login(mut spec: VmSpec) -> VmSpec {
    spec.cloud_init = Some(CloudInitConfig {
        hostname: "web".to_owned(),
        user: "admin".to_owned(),
        authorized_keys: Vec::new(),
        user_data: None,
    });
    spec.ssh = Some(SshConfig { user: "admin".to_owned(), private_key: None });
    spec
}

fn step(script: &str) -> ProvisionStep {
    ProvisionStep {
        number: 1,
        label: "inline".to_owned(),
        action: ProvisionAction::Shell { script: script.to_owned() },
        digest: Digest::of(script),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guest_is_logged_in_to_and_provisioned() {
    let world = World::new();
    let spec = with_login(spec(world.tiny_image().await));
    let vm = world.backend.prepare(&spec).await.unwrap();
    let seed = fs::read(vm.work_dir.join("seed.img")).unwrap();
    assert_eq!(world.backend.prepare(&spec).await.unwrap(), vm);
    assert_eq!(fs::read(vm.work_dir.join("seed.img")).unwrap(), seed, "keys are not made anew");

    let vm = world.backend.start(&vm).await.unwrap();
    world.backend.wait_ready(&vm, SOON).await.unwrap();
    let (lines, mut seen) = mpsc::channel(100);
    world.backend.provision(&vm, &step("echo on $(hostname); id -un"), &lines).await.unwrap();
    let error = world.backend.provision(&vm, &step("echo broken >&2; exit 7"), &lines).await.unwrap_err();
    assert!(matches!(&error, Error::Provision { status, .. } if status.contains('7')), "{error}");
    world.another_backend().provision(&vm, &step("echo again"), &lines).await.unwrap();
    drop(lines);
    let mut text = Vec::new();
    while let Some(line) = seen.recv().await {
        text.push(line.text);
    }
    assert_eq!(text, ["on web", "admin", "broken", "again"]);
    let log = vm.work_dir.join("provision.log");
    assert!(fs::read_to_string(&log).unwrap().contains("broken"));
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);

    // The process ends in the middle of a step: that is told at once and not after the step's time.
    let process = world.live(vm.id).unwrap();
    let (lines, mut seen) = mpsc::channel(100);
    let long_step = step("echo begun; sleep 600");
    let (result, ()) = tokio::join!(world.backend.provision(&vm, &long_step, &lines), async {
        seen.recv().await.unwrap();
        process.kill().unwrap();
    });
    let error = result.unwrap_err();
    assert!(matches!(error, Error::ProcessEnded { .. }), "{error}");
    assert!(error.to_string().contains("its console ends with"), "{error}");
}

#[tokio::test]
async fn waiting_ends_with_the_process() {
    let world = World::new();
    let vm = world.backend.prepare(&with_login(world.spec().await)).await.unwrap();
    let vm = world.backend.start(&vm).await.unwrap();
    let process = world.live(vm.id).unwrap();
    let (result, ()) = tokio::join!(world.backend.wait_ready(&vm, SOON), async {
        process.kill().unwrap();
    });
    let error = result.unwrap_err();
    assert!(matches!(error, Error::ProcessEnded { .. }), "{error}");
    let error = world.backend.wait_ready(&vm, SOON).await.unwrap_err();
    assert!(matches!(error, Error::InvalidState { state: VmState::Stopped, .. }), "{error}");
}

#[tokio::test]
async fn everything_of_a_running_machine_is_private() {
    let world = World::new();
    let vm = world.started().await;
    let run = world.backend.runtime_dir(vm.id);
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&vm.work_dir), mode(run.path())), (0o700, 0o700));
    let mut sockets = 0;
    for folder in [&vm.work_dir, run.path()] {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
            sockets += usize::from(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
        }
    }
    assert_eq!(sockets, 5);

    // A session of its own: field 6 of stat (proc_pid_stat(5)), behind the name in parentheses.
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid(&vm))).unwrap();
    let session = stat.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap();
    assert_eq!(session, pid(&vm).to_string());
}

#[tokio::test]
async fn stop_says_which_force_it_took() {
    let world = World::new();
    let vm = world.started().await;
    let stopped = world.backend.stop(&vm, NO_PATIENCE).await.unwrap();
    assert_eq!((stopped.state, stopped.forced_stop.as_deref()), (VmState::Stopped, Some("quit")));

    let vm = world.backend.start(&stopped).await.unwrap();
    assert_eq!(vm.forced_stop, None);
    kill_process(raw_pid(&vm), Signal::STOP).unwrap();
    let stopped = world.backend.stop(&vm, NO_PATIENCE).await.unwrap();
    assert_eq!((stopped.state, stopped.forced_stop.as_deref()), (VmState::Stopped, Some("SIGKILL")));
    assert!(world.live(vm.id).is_none());
}

#[tokio::test]
async fn killed_machine_is_stopped_and_starts_again() {
    let world = World::new();
    let vm = world.started().await;
    let process = world.live(vm.id).unwrap();
    process.kill().unwrap();
    ended(process).await;
    assert_eq!(world.backend.state(&vm).await.unwrap(), VmState::Stopped);
    let seen = world.backend.inspect(&vm).await.unwrap();
    assert_eq!((seen.state, seen.handle.runtime), (VmState::Stopped, None));

    let again = world.backend.start(&vm).await.unwrap();
    assert_ne!(pid(&again), pid(&vm));
    assert_eq!(again.state, VmState::Running);
}

#[tokio::test]
async fn process_with_a_reused_pid_survives_everything() {
    let world = World::new();
    let log = tempfile::tempfile().unwrap();
    let mut vm = world.backend.prepare(&world.spec().await).await.unwrap();
    let run = world.backend.runtime_dir(vm.id);
    run.create().unwrap();

    // The victim even carries our UUID on its command line; what it lacks is the lock.
    let script = "echo $$; exec sleep 600".into();
    let sh = Program { name: "sh", package: "dash" };
    let args = ["-c".into(), script, "-uuid".into(), vm.id.to_string().into()];
    let mut victim = vmctl_providers::process::machine(&sh, &args, log).unwrap();
    let victim_pid: u32 = victim.first_line(100).await.unwrap().unwrap().parse().unwrap();

    fs::write(run.pidfile(), format!("{victim_pid}\n")).unwrap();
    vm.state = VmState::Running;
    vm.runtime = Some(vmctl_providers::Runtime {
        pid: victim_pid,
        accel: "tcg".to_owned(),
        vnc: None,
        forwards: Vec::new(),
    });
    assert_eq!(world.backend.state(&vm).await.unwrap(), VmState::Prepared);
    world.backend.stop(&vm, NO_PATIENCE).await.unwrap();
    fs::create_dir_all(run.path()).unwrap();
    fs::set_permissions(run.path(), PermissionsExt::from_mode(0o700)).unwrap();
    fs::write(run.pidfile(), format!("{victim_pid}\n")).unwrap();
    world.backend.destroy(vm.clone()).await.unwrap();
    world.assert_nothing_left(&vm);

    assert!(Path::new(&format!("/proc/{victim_pid}/exe")).exists(), "the victim lives");
    victim.kill().await.unwrap();
}

#[tokio::test]
async fn long_folder_names_with_commas_and_quotes_work() {
    let name = format!("a,b=c,,readonly=on \"q\" 'ü' {}", "x".repeat(170));
    let world = World::with_data_dir(&name);
    let vm = world.started().await;
    assert!(vm.work_dir.as_os_str().len() > 200);
    let seen = world.backend.inspect(&vm).await.unwrap();
    assert_eq!((seen.state, seen.missing), (VmState::Running, vec![]));
    assert!(vm.work_dir.join("console.log").exists());
    world.backend.destroy(vm.clone()).await.unwrap();
    world.assert_nothing_left(&vm);
}

#[tokio::test]
async fn held_monitor_is_told_and_does_not_hinder_a_stop() {
    let world = World::new();
    let vm = world.started().await;
    let held = hold(&world.backend.runtime_dir(vm.id).monitor()).await;
    let error = world.backend.state(&vm).await.unwrap_err();
    assert!(matches!(error, Error::MonitorBusy { .. }), "{error}");
    let stopped = world.backend.stop(&vm, NO_PATIENCE).await.unwrap();
    assert_eq!(stopped.forced_stop.as_deref(), Some("quit"));
    drop(held);
}

#[tokio::test]
async fn machine_that_does_not_answer_is_a_timeout_and_not_stopped() {
    let world = World::new();
    let vm = world.started().await;
    kill_process(raw_pid(&vm), Signal::STOP).unwrap();
    let error = world.backend.state(&vm).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    kill_process(raw_pid(&vm), Signal::CONT).unwrap();
    assert_eq!(world.backend.state(&vm).await.unwrap(), VmState::Running);
}

#[tokio::test]
async fn monitor_cannot_run_programs_on_the_host() {
    let world = World::new();
    let vm = world.started().await;
    let process = world.live(vm.id).unwrap();
    let touched = world.run.join("touched");
    let mut monitor = hold(&world.backend.runtime_dir(vm.id).monitor()).await;
    let uri = format!("exec:touch {}", touched.display());
    let commands = [
        serde_json::json!({"execute": "qmp_capabilities"}),
        serde_json::json!({"execute": "migrate", "arguments": {"uri": uri}}),
    ];
    for command in commands {
        monitor.write_all(format!("{command}\n").as_bytes()).await.unwrap();
    }
    ended(process).await;
    assert!(!touched.exists(), "the sandbox ends QEMU before it runs anything");
    let mut rest = Vec::new();
    // The connection of a killed process may end with an error.
    let _ = monitor.read_to_end(&mut rest).await;
    assert_eq!(world.backend.state(&vm).await.unwrap(), VmState::Stopped);
}

#[tokio::test]
async fn forwards_of_all_kinds_are_bound_where_they_say() {
    let world = World::new();
    let mut spec = world.spec().await;
    let own = TcpListener::bind("127.83.20.1:0").unwrap().local_addr().unwrap();
    let nics = &mut spec.machine.nics;
    nics[0].forwards.extend([
        forward(Protocol::Tcp, [127, 83, 20, 1], own.port(), 80),
        forward(Protocol::Udp, [127, 0, 0, 1], 0, 53),
        forward(Protocol::Udp, [0, 0, 0, 0], 0, 54),
    ]);
    nics.push(Nic { mac: MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x57]), ..nics[0].clone() });
    nics[1].forwards = vec![Forward::SSH];
    world.backend.preflight(&spec).await.unwrap();
    let vm = world.backend.prepare(&spec).await.unwrap();
    let vm = world.backend.start(&vm).await.unwrap();

    let bound = &vm.runtime.as_ref().unwrap().forwards;
    let asked: Vec<&Forward> = spec.machine.nics.iter().flat_map(|nic| &nic.forwards).collect();
    assert_eq!(bound.len(), asked.len());
    for (bound, asked) in bound.iter().zip(asked) {
        assert_ne!(bound.host_port, 0);
        let asked_port = if asked.host_port == 0 { bound.host_port } else { asked.host_port };
        assert_eq!(bound, &Forward { host_port: asked_port, ..asked.clone() });
    }
    world.backend.preflight(&spec).await.expect("ports that the machine holds itself are no obstacle");
}

#[tokio::test]
async fn taken_port_is_told_with_its_holder() {
    let world = World::new();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut spec = world.spec().await;
    spec.machine.nics[0].forwards.push(forward(Protocol::Tcp, [127, 0, 0, 1], port, 80));

    let before = world.backend.preflight(&spec).await.unwrap_err();
    assert!(!world.data.join("vms").exists());
    let vm = world.backend.prepare(&spec).await.unwrap();
    let at_start = world.backend.start(&vm).await.unwrap_err();
    for error in [before, at_start] {
        let own = format!("(pid {})", std::process::id());
        let Error::PortInUse { address, holder: Some(holder) } = &error else { panic!("{error}") };
        assert_eq!(address, &format!("127.0.0.1:{port}/tcp"));
        assert!(holder.ends_with(&own), "{holder}");
    }
    assert_eq!(world.backend.state(&vm).await.unwrap(), VmState::Prepared);
    assert!(!world.backend.runtime_dir(vm.id).path().exists());

    drop(taken);
    world.backend.start(&vm).await.unwrap();
}

#[tokio::test]
async fn refusal_of_qemu_is_told_in_its_words() {
    let world = World::new();
    let mut spec = world.spec().await;
    spec.machine.vcpus = 5000;
    let vm = world.backend.prepare(&spec).await.unwrap();
    let error = world.backend.start(&vm).await.unwrap_err();
    assert!(error.to_string().contains("exit code 1: qemu-system-x86_64: Invalid SMP CPUs 5000"), "{error}");
    let log = fs::read_to_string(vm.work_dir.join("qemu.log")).unwrap();
    assert!(log.starts_with("qemu-system-x86_64 -no-user-config") && log.contains("Invalid SMP"), "{log}");
    assert_eq!(world.backend.state(&vm).await.unwrap(), VmState::Prepared);
    world.backend.destroy(vm.clone()).await.unwrap();
    world.assert_nothing_left(&vm);
}

#[tokio::test]
async fn folder_of_another_machine_is_left_alone() {
    let world = World::new();
    let spec = world.spec().await;
    let first = world.backend.prepare(&spec).await.unwrap();
    let other = VmSpec { id: InstanceId(Uuid::new_v4()), ..spec.clone() };
    let error = world.backend.prepare(&other).await.unwrap_err();
    assert!(error.to_string().contains(&first.id.to_string()), "{error}");

    let impostor = VmHandle { id: other.id, ..first.clone() };
    assert!(matches!(world.backend.start(&impostor).await, Err(Error::Foreign { .. })));
    assert!(matches!(world.backend.destroy(impostor.clone()).await, Err(Error::Foreign { .. })));
    assert_eq!(world.backend.state(&impostor).await.unwrap(), VmState::Destroyed);
    assert!(first.work_dir.join("overlay.qcow2").exists());

    let precious = world.data.join("precious");
    fs::rename(&first.work_dir, &precious).unwrap();
    std::os::unix::fs::symlink(&precious, &first.work_dir).unwrap();
    assert!(matches!(world.backend.destroy(first.clone()).await, Err(Error::Unusable { .. })));
    assert!(precious.join("overlay.qcow2").exists());
    fs::remove_file(&first.work_dir).unwrap();
    fs::create_dir(&first.work_dir).unwrap();
    fs::write(first.work_dir.join("thesis.txt"), "").unwrap();
    assert!(matches!(world.backend.destroy(first.clone()).await, Err(Error::Foreign { .. })));
    assert!(matches!(world.backend.prepare(&spec).await, Err(Error::Foreign { .. })));
    assert!(first.work_dir.join("thesis.txt").exists());
}

#[tokio::test]
async fn machine_whose_folder_is_lost_is_still_found_and_ended() {
    let world = World::new();
    let vm = world.started().await;
    fs::remove_dir_all(&vm.work_dir).unwrap();
    let seen = world.backend.inspect(&vm).await.unwrap();
    assert_eq!(seen.state, VmState::Running);
    assert_eq!(seen.missing, [vm.work_dir.join("overlay.qcow2")]);
    assert_eq!(seen.problems, ["its folder is gone, its process is not"]);
    world.backend.destroy(vm.clone()).await.unwrap();
    world.assert_nothing_left(&vm);
}

#[tokio::test]
async fn changed_base_image_is_noticed_before_start() {
    let world = World::new();
    let vm = world.backend.prepare(&world.spec().await).await.unwrap();
    let base = &vm.machine.image.path;
    fs::copy(base, base.with_extension("new")).unwrap();
    fs::rename(base.with_extension("new"), base).unwrap();
    let error = world.backend.start(&vm).await.unwrap_err();
    assert!(matches!(error, Error::BaseChanged { .. }), "{error}");
    let seen = world.backend.inspect(&vm).await.unwrap();
    assert_eq!(seen.problems, [error.to_string()]);
    world.backend.destroy(vm.clone()).await.unwrap();
    world.assert_nothing_left(&vm);
}

#[tokio::test]
async fn preparing_goes_on_where_it_was_interrupted() {
    let world = World::new();
    let spec = world.spec().await;
    let vm = world.backend.prepare(&spec).await.unwrap();
    let manifest = vm.work_dir.join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("\"prepared\": true", "\"prepared\": false")).unwrap();
    fs::rename(vm.work_dir.join("overlay.qcow2"), vm.work_dir.join("overlay.qcow2.tmp")).unwrap();
    assert_eq!(world.backend.state(&vm).await.unwrap(), VmState::Preparing);
    let error = world.backend.start(&vm).await.unwrap_err();
    assert!(matches!(error, Error::InvalidState { state: VmState::Preparing, .. }), "{error}");

    assert_eq!(world.backend.prepare(&spec).await.unwrap(), vm);
    assert_eq!(fs::read_to_string(&manifest).unwrap(), text);
    assert!(!vm.work_dir.join("overlay.qcow2.tmp").exists());
}

#[tokio::test]
async fn stopped_machine_takes_new_hardware_and_a_running_one_does_not() {
    let world = World::new();
    let vm = world.started().await;
    let mut wanted = spec(vm.machine.image.clone());
    wanted.id = vm.id;
    wanted.machine = vm.machine.clone();
    wanted.ssh = Some(SshConfig { user: "admin".to_owned(), private_key: None });
    let vm = world.backend.reconfigure(&vm, &wanted).await.unwrap();
    assert_eq!((vm.state, vm.ssh.clone()), (VmState::Running, wanted.ssh.clone()));
    assert!(vm.runtime.is_some());

    wanted.machine.memory_mib = 320;
    wanted.machine.vcpus = 2;
    wanted.machine.disk_bytes = Some(16 << 20);
    let error = world.backend.reconfigure(&vm, &wanted).await.unwrap_err();
    assert!(matches!(error, Error::InvalidState { state: VmState::Running, .. }), "{error}");

    let vm = world.backend.stop(&vm, NO_PATIENCE).await.unwrap();
    let vm = world.backend.reconfigure(&vm, &wanted).await.unwrap();
    assert_eq!(world.backend.reconfigure(&vm, &wanted).await.unwrap(), vm);
    let overlay = vm.work_dir.join("overlay.qcow2");
    assert_eq!(virtual_size(&overlay).await, 16 << 20);

    let vm = world.backend.start(&vm).await.unwrap();
    let seen = world.backend.inspect(&vm).await.unwrap();
    assert_eq!((seen.vcpus, seen.memory_mib), (Some(2), Some(320)));
}

#[tokio::test]
async fn two_starts_at_once_make_one_machine() {
    let world = World::new();
    let vm = world.backend.prepare(&world.spec().await).await.unwrap();
    let other = world.another_backend();
    let (one, two) = tokio::join!(world.backend.start(&vm), other.start(&vm));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!((pid(&one), one.ssh_port()), (pid(&two), two.ssh_port()));
}

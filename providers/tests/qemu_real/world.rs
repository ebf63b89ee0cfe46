//! Folders, machines and what tests need of both.

use std::ffi::OsString;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Pid;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use uuid::Uuid;
use vmctl_providers::process::{Holder, Process, helper};
use vmctl_providers::provision::{ProvisionAction, ProvisionStep};
use vmctl_providers::qemu::{AccelChoice, QEMU_IMG, QemuConfig, firmware};
use vmctl_providers::ssh::Keyring;
use vmctl_providers::{
    BackendTag, CloudInitConfig, ConsoleEndpoint, Digest, DiskImage, Forward, Hypervisor, ImageFormat,
    InstanceId, MacAddr, Machine, NetworkConfig, Nic, Probe, Protocol, QemuBackend, Readiness, SshConfig,
    VmHandle, VmSpec,
};

/// Bounds every wait for something that should come at once; generous, for crowded hosts.
pub(crate) const SOON: Duration = Duration::from_secs(120);

/// Too short for any guest to power down.
pub(crate) const NO_PATIENCE: Duration = Duration::from_millis(200);

/// Ready as soon as a login works.
pub(crate) fn login() -> Readiness {
    Readiness { probes: vec![Probe::Login], timeout: SOON }
}

pub(crate) struct World {
    pub(crate) data: PathBuf,
    pub(crate) run: PathBuf,
    pub(crate) backend: QemuBackend,
    _folder: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_data_dir("data")
    }

    pub(crate) fn with_data_dir(name: &str) -> Self {
        test_images();
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join(name);
        let run = folder.path().join("run");
        let backend = backend(&data, &run);
        Self { data, run, backend, _folder: folder }
    }

    /// A backend that knows nothing of what the first one did, as in another run of vmctl.
    pub(crate) fn another_backend(&self) -> QemuBackend {
        backend(&self.data, &self.run)
    }

    /// An empty disk as base image.
    pub(crate) async fn empty_image(&self) -> DiskImage {
        fs::create_dir_all(&self.data).unwrap();
        let path = self.data.join("empty.qcow2");
        let args: [OsString; 6] =
            ["create".into(), "-q".into(), "-f".into(), "qcow2".into(), path.clone().into(), "8M".into()];
        helper(&QEMU_IMG, &args, SOON).await.unwrap();
        image(path, 8 << 20)
    }

    /// A copy of the tiny guest, which boots to a login within seconds.
    pub(crate) async fn tiny_image(&self) -> DiskImage {
        fs::create_dir_all(&self.data).unwrap();
        let path = self.data.join("tiny.qcow2");
        fs::copy(test_images().join("tiny.qcow2"), &path)
            .expect("VMCTL_TEST_IMAGES holds tiny.qcow2: run `make test`");
        let size = virtual_size(&path).await;
        image(path, size)
    }

    /// A copy of the tiny guest with the kernel for all hardware, which knows of generation ids.
    pub(crate) async fn roomy_image(&self) -> DiskImage {
        fs::create_dir_all(&self.data).unwrap();
        let path = self.data.join("roomy.qcow2");
        fs::copy(test_images().join("generic/tiny.qcow2"), &path)
            .expect("VMCTL_TEST_IMAGES holds generic/tiny.qcow2: run `make test`");
        let size = virtual_size(&path).await;
        image(path, size)
    }

    pub(crate) async fn spec(&self) -> VmSpec {
        spec(self.empty_image().await)
    }

    pub(crate) async fn started(&self) -> VmHandle {
        let spec = self.spec().await;
        let vm = self.backend.prepare(&spec).await.unwrap();
        self.backend.start(&vm).await.unwrap()
    }

    pub(crate) fn live(&self, id: InstanceId) -> Option<Process> {
        match Process::holding(&self.backend.runtime_dir(id).pidfile(), |_| true).unwrap() {
            Holder::Expected(process) => Some(process),
            Holder::Nobody | Holder::Unexpected(_) => None,
        }
    }

    pub(crate) fn assert_nothing_left(&self, vm: &VmHandle) {
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

pub(crate) fn backend(data: &Path, run: &Path) -> QemuBackend {
    QemuBackend::new(QemuConfig {
        vms_dir: data.join("vms"),
        images_dir: data.join("images"),
        templates_dir: data.join("templates"),
        runtime_dir: run.to_owned(),
        accel: AccelChoice::Auto,
        take_over: false,
        firmware_dirs: firmware::SYSTEM_FOLDERS.map(Into::into).into(),
        keyring: Keyring::default(),
        bridge_helper: None,
        lease_files: Vec::new(),
    })
}

#[expect(clippy::disallowed_methods, reason = "the folder of built guests comes through the environment")]
pub(crate) fn test_images() -> PathBuf {
    std::env::var_os("VMCTL_TEST_IMAGES")
        .expect("VMCTL_TEST_IMAGES is not set: run `make test`, which builds the guests")
        .into()
}

pub(crate) async fn virtual_size(path: &Path) -> u64 {
    let info = helper(&QEMU_IMG, &["info", "--output=json", path.to_str().unwrap()], SOON).await.unwrap();
    serde_json::from_slice::<serde_json::Value>(&info).unwrap()["virtual-size"].as_u64().unwrap()
}

pub(crate) fn image(path: PathBuf, virtual_size: u64) -> DiskImage {
    let digest = Digest::of(path.as_os_str().as_encoded_bytes());
    DiskImage { path, format: ImageFormat::Qcow2, digest, virtual_size }
}

pub(crate) fn spec(image: DiskImage) -> VmSpec {
    VmSpec {
        id: InstanceId(Uuid::new_v4()),
        project: "test".parse().unwrap(),
        name: "web".parse().unwrap(),
        backend: BackendTag::Qemu,
        machine: Machine {
            vcpus: 1,
            memory_mib: 256,
            disk_bytes: None,
            image: Some(image),
            hardware: Default::default(),
            volumes: Vec::new(),
            shares: Vec::new(),
            media: Vec::new(),
            nics: vec![Nic {
                mac: MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]),
                network: NetworkConfig::User,
                forwards: vec![Forward::SSH],
            }],
        },
        cloud_init: None,
        ssh: None,
        warm: None,
    }
}

pub(crate) fn forward(protocol: Protocol, address: [u8; 4], host_port: u16, guest_port: u16) -> Forward {
    Forward { protocol, host_address: IpAddr::from(address), host_port, guest_port }
}

pub(crate) fn pid(vm: &VmHandle) -> u32 {
    vm.runtime.as_ref().unwrap().pid
}

pub(crate) fn raw_pid(vm: &VmHandle) -> Pid {
    Pid::from_raw(pid(vm).cast_signed()).unwrap()
}

pub(crate) async fn ended(process: Process) {
    tokio::time::timeout(SOON, process.exited()).await.unwrap().unwrap();
}

/// Waits until the guest says on its console that it is up; takes part in the console from the start.
pub(crate) async fn booted(console: ConsoleEndpoint) {
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
pub(crate) async fn hold(monitor: &Path) -> BufReader<UnixStream> {
    let mut held = BufReader::new(UnixStream::connect(monitor).await.unwrap());
    let mut greeting = String::new();
    held.read_line(&mut greeting).await.unwrap();
    assert!(greeting.contains("QMP"), "{greeting}");
    held
}

pub(crate) fn with_login(mut spec: VmSpec) -> VmSpec {
    spec.cloud_init = Some(CloudInitConfig {
        hostname: "web".to_owned(),
        user: "admin".to_owned(),
        authorized_keys: Vec::new(),
        user_data: None,
        more: Default::default(),
    });
    spec.ssh = Some(SshConfig { user: "admin".to_owned(), private_key: None });
    spec
}

pub(crate) fn step(script: &str) -> ProvisionStep {
    ProvisionStep {
        number: 1,
        label: "inline".to_owned(),
        action: ProvisionAction::Shell { script: script.to_owned() },
        options: Default::default(),
        digest: Digest::of(script),
        secrets: Default::default(),
    }
}

/// Says something to the human monitor, behind the backend's back.
pub(crate) async fn human(world: &World, vm: &VmHandle, command: &str) -> String {
    let mut monitor = hold(&world.backend.runtime_dir(vm.id).monitor()).await;
    let commands = [
        serde_json::json!({"execute": "qmp_capabilities"}),
        serde_json::json!({
            "execute": "human-monitor-command", "arguments": {"command-line": command}, "id": "answer"
        }),
    ];
    for command in commands {
        monitor.get_mut().write_all(format!("{command}\n").as_bytes()).await.unwrap();
    }
    loop {
        let mut line = String::new();
        assert!(monitor.read_line(&mut line).await.unwrap() > 0, "the monitor was closed");
        let message: serde_json::Value = serde_json::from_str(&line).unwrap();
        if message["id"] == "answer" {
            return message["return"].as_str().unwrap().to_owned();
        }
    }
}

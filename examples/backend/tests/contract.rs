//! The example keeps the contract, as vmctl's own backends do.

#![expect(clippy::unwrap_used, reason = "a test fails by panic")]

use std::time::Duration;

use vmctl_example_backend::FolderBackend;
use vmctl_providers::contract::{Breach, Traits, keeps_the_contract};
use vmctl_providers::{
    BackendTag, ConsoleEndpoint, Hardware, Hypervisor, Inspect, Inspection, InstanceId, Machine, Preflight,
    Result, VmHandle, VmSpec, VmState,
};

const TRAITS: Traits = Traits { pauses: false, has_console: false };

fn spec() -> VmSpec {
    VmSpec {
        id: InstanceId(uuid::Uuid::from_u128(0x5f8b_1d2e_0000_4000_8000_0000_0000_0001)),
        project: "shop".parse().unwrap(),
        name: "web".parse().unwrap(),
        backend: BackendTag::Noop,
        machine: Machine {
            vcpus: 1,
            memory_mib: 64,
            disk_bytes: None,
            image: None,
            hardware: Hardware::default(),
            nics: Vec::new(),
            volumes: Vec::new(),
            shares: Vec::new(),
            media: Vec::new(),
        },
        cloud_init: None,
        ssh: None,
    }
}

#[tokio::test]
async fn example_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let backend = FolderBackend::new(folder.path());
    keeps_the_contract(&backend, &spec(), TRAITS).await.unwrap();
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}

/// The example with one mistake: it fails to stop what is stopped.
struct Impatient(FolderBackend);

impl Hypervisor for Impatient {
    async fn prepare(&self, spec: &VmSpec) -> Result<VmHandle> {
        self.0.prepare(spec).await
    }

    async fn start(&self, vm: &VmHandle) -> Result<VmHandle> {
        self.0.start(vm).await
    }

    async fn stop(&self, vm: &VmHandle, timeout: Duration) -> Result<VmHandle> {
        match self.0.state(vm).await? {
            state @ VmState::Stopped => Err(vmctl_providers::Error::InvalidState { action: "stop", state }),
            _ => self.0.stop(vm, timeout).await,
        }
    }

    async fn suspend(&self, vm: &VmHandle) -> Result<VmHandle> {
        self.0.suspend(vm).await
    }

    async fn resume(&self, vm: &VmHandle) -> Result<VmHandle> {
        self.0.resume(vm).await
    }

    async fn destroy(&self, vm: VmHandle) -> Result<()> {
        self.0.destroy(vm).await
    }

    async fn state(&self, vm: &VmHandle) -> Result<VmState> {
        self.0.state(vm).await
    }

    async fn guest_ip(&self, vm: &VmHandle) -> Result<String> {
        self.0.guest_ip(vm).await
    }

    fn console_endpoint(&self, vm: &VmHandle) -> Result<ConsoleEndpoint> {
        self.0.console_endpoint(vm)
    }
}

impl Inspect for Impatient {
    async fn inspect(&self, vm: &VmHandle) -> Result<Inspection> {
        self.0.inspect(vm).await
    }
}

impl Preflight for Impatient {
    fn handle(&self, spec: &VmSpec) -> Result<VmHandle> {
        self.0.handle(spec)
    }

    async fn preflight(&self, spec: &VmSpec) -> Result<()> {
        self.0.preflight(spec).await
    }
}

#[tokio::test]
async fn mistake_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let breach = keeps_the_contract(&Impatient(FolderBackend::new(folder.path())), &spec(), TRAITS).await;
    assert!(matches!(breach, Err(Breach::Failed { call: "stop of what is stopped", .. })), "{breach:?}");
}

//! The example keeps the contract, as vmctl's own backends do.

use std::time::Duration;

use vmctl_example_backend::FolderBackend;
use vmctl_providers::contract::{Breach, Traits, keeps_the_contract, plain_machine};
use vmctl_providers::{
    BackendTag, ConsoleEndpoint, Hypervisor, Inspect, Inspection, Preflight, Result, VmHandle, VmSpec,
    VmState,
};

const TRAITS: Traits = Traits { pauses: false, has_console: false };

fn spec() -> VmSpec {
    plain_machine(BackendTag::Noop)
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

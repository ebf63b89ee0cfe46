//! One hypervisor that hands every call to the backend that the tag names.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;

use crate::abilities::{
    ConsoleHistory, Custody, GuestAccess, GuestInterface, Inspect, Inspection, Keep, Preflight, Probe,
    RanByAgent, Readiness, Reconfigure, Stray, Verdict,
};
use crate::capacity::{Capacity, Footprint, Space};
use crate::error::Result;
use crate::hypervisor::{ConsoleEndpoint, Hypervisor};
use crate::name::Name;
use crate::noop::NoopBackend;
use crate::propolis::PropolisBackend;
use crate::provision::{OutputLine, ProvisionStep};
use crate::qemu::QemuBackend;
use crate::spec::{BackendTag, InstanceId, Machine, VmHandle, VmSpec, VmState};
use crate::volume::{FoundVolume, Volumes};

/// Dispatches on [`BackendTag`].
///
/// Adding a backend takes a struct with the traits, a tag, and an arm in this file.
#[derive(Debug)]
pub struct RouterHypervisor {
    noop: NoopBackend,
    qemu: QemuBackend,
    propolis: PropolisBackend,
}

impl RouterHypervisor {
    /// A router over the given backends.
    pub fn new(noop: NoopBackend, qemu: QemuBackend, propolis: PropolisBackend) -> Self {
        Self { noop, qemu, propolis }
    }
}

/// Calls the same method on the backend that `$tag` names.
macro_rules! dispatch {
    ($self:ident, $tag:expr, $backend:ident => $call:expr) => {
        match $tag {
            BackendTag::Noop => {
                let $backend = &$self.noop;
                $call
            }
            BackendTag::Qemu => {
                let $backend = &$self.qemu;
                $call
            }
            BackendTag::Propolis => {
                let $backend = &$self.propolis;
                $call
            }
        }
    };
}

impl Hypervisor for RouterHypervisor {
    async fn prepare(&self, spec: &VmSpec) -> Result<VmHandle> {
        dispatch!(self, spec.backend, backend => backend.prepare(spec).await)
    }

    async fn start(&self, vm: &VmHandle) -> Result<VmHandle> {
        dispatch!(self, vm.backend, backend => backend.start(vm).await)
    }

    async fn stop(&self, vm: &VmHandle, timeout: Duration) -> Result<VmHandle> {
        dispatch!(self, vm.backend, backend => backend.stop(vm, timeout).await)
    }

    async fn suspend(&self, vm: &VmHandle) -> Result<VmHandle> {
        dispatch!(self, vm.backend, backend => backend.suspend(vm).await)
    }

    async fn resume(&self, vm: &VmHandle) -> Result<VmHandle> {
        dispatch!(self, vm.backend, backend => backend.resume(vm).await)
    }

    async fn destroy(&self, vm: VmHandle) -> Result<()> {
        dispatch!(self, vm.backend, backend => backend.destroy(vm).await)
    }

    async fn state(&self, vm: &VmHandle) -> Result<VmState> {
        dispatch!(self, vm.backend, backend => backend.state(vm).await)
    }

    async fn guest_ip(&self, vm: &VmHandle) -> Result<String> {
        dispatch!(self, vm.backend, backend => backend.guest_ip(vm).await)
    }

    fn console_endpoint(&self, vm: &VmHandle) -> Result<ConsoleEndpoint> {
        dispatch!(self, vm.backend, backend => backend.console_endpoint(vm))
    }
}

impl Inspect for RouterHypervisor {
    async fn inspect(&self, vm: &VmHandle) -> Result<Inspection> {
        dispatch!(self, vm.backend, backend => backend.inspect(vm).await)
    }
}

impl Reconfigure for RouterHypervisor {
    async fn reconfigure(&self, vm: &VmHandle, spec: &VmSpec) -> Result<VmHandle> {
        dispatch!(self, vm.backend, backend => backend.reconfigure(vm, spec).await)
    }
}

impl Keep for RouterHypervisor {
    async fn keep(&self, vm: &VmHandle) -> Result<()> {
        match vm.backend {
            BackendTag::Qemu => self.qemu.keep(vm).await,
            BackendTag::Propolis | BackendTag::Noop => Ok(()),
        }
    }
}

/// Only Propolis's servers leave it to us.
impl ConsoleHistory for RouterHypervisor {
    async fn fetch_console(&self, vm: &VmHandle) -> Result<()> {
        match vm.backend {
            BackendTag::Propolis => self.propolis.fetch_console(vm).await,
            BackendTag::Qemu | BackendTag::Noop => Ok(()),
        }
    }
}

impl Preflight for RouterHypervisor {
    fn handle(&self, spec: &VmSpec) -> Result<VmHandle> {
        dispatch!(self, spec.backend, backend => backend.handle(spec))
    }

    async fn preflight(&self, spec: &VmSpec) -> Result<()> {
        dispatch!(self, spec.backend, backend => backend.preflight(spec).await)
    }
}

impl GuestAccess for RouterHypervisor {
    async fn wait_ready(&self, vm: &VmHandle, readiness: &Readiness) -> Result<()> {
        dispatch!(self, vm.backend, backend => backend.wait_ready(vm, readiness).await)
    }

    async fn probe(&self, vm: &VmHandle, probe: &Probe, patience: Duration) -> Result<Verdict> {
        dispatch!(self, vm.backend, backend => backend.probe(vm, probe, patience).await)
    }

    async fn interfaces(&self, vm: &VmHandle) -> Result<Option<Vec<GuestInterface>>> {
        dispatch!(self, vm.backend, backend => backend.interfaces(vm).await)
    }

    async fn run_by_agent(
        &self,
        vm: &VmHandle,
        line: &str,
        patience: Option<Duration>,
    ) -> Result<Option<RanByAgent>> {
        dispatch!(self, vm.backend, backend => backend.run_by_agent(vm, line, patience).await)
    }

    async fn provision(
        &self,
        vm: &VmHandle,
        step: &ProvisionStep,
        output: &mpsc::Sender<OutputLine>,
    ) -> Result<()> {
        dispatch!(self, vm.backend, backend => backend.provision(vm, step, output).await)
    }
}

impl Custody for RouterHypervisor {
    async fn strays(&self, project: &Name, known: &BTreeSet<InstanceId>) -> Result<Vec<Stray>> {
        let mut strays = self.noop.strays(project, known).await?;
        strays.extend(self.qemu.strays(project, known).await?);
        strays.extend(self.propolis.strays(project, known).await?);
        strays.sort_unstable_by(Stray::order);
        Ok(strays)
    }

    async fn release(&self, vm: &VmHandle) -> Result<()> {
        dispatch!(self, vm.backend, backend => backend.release(vm).await)
    }

    async fn note(&self, vm: &VmHandle, note: &Value) -> Result<()> {
        dispatch!(self, vm.backend, backend => backend.note(vm, note).await)
    }
}

impl Volumes for RouterHypervisor {
    async fn volumes(&self, project: &Name) -> Result<Vec<FoundVolume>> {
        let mut volumes = self.noop.volumes(project).await?;
        volumes.extend(self.qemu.volumes(project).await?);
        volumes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    async fn remove_volume(&self, volume: &FoundVolume) -> Result<()> {
        dispatch!(self, volume.backend, backend => backend.remove_volume(volume).await)
    }
}

impl Capacity for RouterHypervisor {
    fn footprint(&self, backend: BackendTag, machine: &Machine) -> Result<Footprint> {
        dispatch!(self, backend, host => host.footprint(backend, machine))
    }

    fn memory(&self, backend: BackendTag) -> Result<Option<u64>> {
        dispatch!(self, backend, host => host.memory(backend))
    }

    fn held(&self, vm: &VmHandle) -> Result<Option<u64>> {
        dispatch!(self, vm.backend, host => host.held(vm))
    }

    fn disk(&self, backend: BackendTag) -> Result<Option<Space>> {
        dispatch!(self, backend, host => host.disk(backend))
    }
}

//! A host whose machines are only counted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::yield_now;
use vmctl_providers::capacity::{Footprint, Space};
use vmctl_providers::provision::{OutputLine, OutputStream, ProvisionStep};
use vmctl_providers::{
    BackendTag, Capacity, CloneStage, Cloned, ConsoleEndpoint, Custody, Digest, Error, FoundVolume,
    GuestAccess, GuestInterface, Hypervisor, Inspect, Inspection, InstanceId, Keep, Machine, MadeFrom, Name,
    Preflight, Probe, RanByAgent, Readiness, Reconfigure, Result, Stray, Verdict, VmHandle, VmSpec, VmState,
    Volumes, Warm,
};

/// Counts what is done to machines that do not exist.
#[derive(Debug, Default)]
pub(crate) struct NumbersHost {
    /// Lines that each provisioning step prints, and how long they are.
    pub(crate) flood: (usize, usize),
    /// The machine in which every provisioning step fails.
    pub(crate) failing: Option<Name>,
    /// Whether there is no room for templates.
    pub(crate) is_full: bool,
    pub(crate) seen: Mutex<Seen>,
}

/// What was done.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    running: usize,
    booting: BTreeSet<Name>,
    /// The most that ran at once.
    pub(crate) most_running: usize,
    /// The most guests that booted at once, from the beginning of their start to the end of their wait.
    pub(crate) most_booting: usize,
    /// When each machine began to start, and when it was ready, counted in operations.
    pub(crate) started: BTreeMap<Name, usize>,
    pub(crate) ready: BTreeMap<Name, usize>,
    pub(crate) operations: usize,
    /// The provisioning steps that ran to their end, by machine.
    pub(crate) provisioned: BTreeMap<Name, Vec<usize>>,
    /// The machines that were kept.
    pub(crate) kept: Vec<Name>,
    /// When each machine was taken down, and prepared.
    pub(crate) destroyed: BTreeMap<Name, usize>,
    pub(crate) prepared: BTreeMap<Name, usize>,
    /// What was kept, by key.
    pub(crate) templates: BTreeMap<Digest, InstanceId>,
}

impl NumbersHost {
    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    fn note(&self, act: impl FnOnce(&mut Seen)) {
        let mut seen = self.seen.lock().unwrap();
        seen.operations += 1;
        act(&mut seen);
        seen.most_running = seen.most_running.max(seen.running);
        seen.most_booting = seen.most_booting.max(seen.booting.len());
    }

    /// Lets others run between beginning and end.
    async fn work(&self, begin: impl FnOnce(&mut Seen), end: impl FnOnce(&mut Seen)) {
        self.note(|seen| {
            seen.running += 1;
            begin(seen);
        });
        yield_now().await;
        self.note(|seen| {
            seen.running -= 1;
            end(seen);
        });
    }
}

impl Hypervisor for NumbersHost {
    async fn prepare(&self, spec: &VmSpec) -> Result<VmHandle> {
        let begin = |seen: &mut Seen| {
            seen.prepared.insert(spec.name.clone(), seen.operations);
        };
        self.work(begin, |_| {}).await;
        let warm = spec.warm.as_ref().map(|warm| {
            let template = self.seen.lock().unwrap().templates.get(&warm.key).copied();
            let source = template.filter(|_| warm.made_from != MadeFrom::Image);
            assert!(source.is_some() || warm.made_from != MadeFrom::Template, "there is no such template");
            let cloned = source.map(|source| Cloned {
                created: jiff::Timestamp::UNIX_EPOCH,
                source,
                user_key: String::new(),
                hostname: spec.name.to_string(),
                stage: CloneStage::Fresh,
                cold: None,
            });
            Box::new(Warm { key: warm.key.clone(), level: warm.level, cloned })
        });
        Ok(VmHandle { state: VmState::Prepared, warm, ..self.handle(spec)? })
    }

    async fn start(&self, vm: &VmHandle) -> Result<VmHandle> {
        let begin = |seen: &mut Seen| {
            seen.booting.insert(vm.name.clone());
            seen.started.insert(vm.name.clone(), seen.operations);
        };
        self.work(begin, |_| {}).await;
        Ok(VmHandle { state: VmState::Running, ..vm.clone() })
    }

    async fn stop(&self, vm: &VmHandle, _timeout: Duration) -> Result<VmHandle> {
        Ok(VmHandle { state: VmState::Stopped, ..vm.clone() })
    }

    async fn suspend(&self, vm: &VmHandle) -> Result<VmHandle> {
        Ok(VmHandle { state: VmState::Suspended, ..vm.clone() })
    }

    async fn resume(&self, vm: &VmHandle) -> Result<VmHandle> {
        Ok(VmHandle { state: VmState::Running, ..vm.clone() })
    }

    async fn destroy(&self, vm: VmHandle) -> Result<()> {
        self.note(|seen| {
            seen.destroyed.insert(vm.name, seen.operations);
        });
        Ok(())
    }

    async fn state(&self, vm: &VmHandle) -> Result<VmState> {
        Ok(vm.state)
    }

    async fn guest_ip(&self, _vm: &VmHandle) -> Result<String> {
        Ok("127.0.0.1".to_owned())
    }

    fn console_endpoint(&self, _vm: &VmHandle) -> Result<ConsoleEndpoint> {
        Ok(ConsoleEndpoint::None)
    }
}

impl GuestAccess for NumbersHost {
    async fn wait_ready(&self, vm: &VmHandle, _readiness: &Readiness) -> Result<()> {
        let end = |seen: &mut Seen| {
            seen.booting.remove(&vm.name);
            seen.ready.insert(vm.name.clone(), seen.operations);
        };
        self.work(|_| {}, end).await;
        Ok(())
    }

    async fn probe(&self, _vm: &VmHandle, _probe: &Probe, _patience: Duration) -> Result<Verdict> {
        Ok(Verdict::Holds)
    }

    async fn interfaces(&self, _vm: &VmHandle) -> Result<Option<Vec<GuestInterface>>> {
        Ok(None)
    }

    async fn run_by_agent(
        &self,
        _vm: &VmHandle,
        _line: &str,
        _patience: Option<Duration>,
    ) -> Result<Option<RanByAgent>> {
        Ok(None)
    }

    async fn provision(
        &self,
        vm: &VmHandle,
        step: &ProvisionStep,
        output: &mpsc::Sender<OutputLine>,
    ) -> Result<()> {
        let (lines, length) = self.flood;
        for _ in 0..lines {
            let line = OutputLine { stream: OutputStream::Stdout, text: "x".repeat(length) };
            output.send(line).await.unwrap();
        }
        if self.failing.as_ref() == Some(&vm.name) {
            return Err(Error::ProcessEnded { detail: None });
        }
        self.note(|seen| seen.provisioned.entry(vm.name.clone()).or_default().push(step.number));
        Ok(())
    }
}

impl Preflight for NumbersHost {
    fn handle(&self, spec: &VmSpec) -> Result<VmHandle> {
        Ok(VmHandle::of(spec, PathBuf::from("/nowhere").join(spec.name.as_str())))
    }

    async fn preflight(&self, _spec: &VmSpec) -> Result<()> {
        Ok(())
    }
}

impl Keep for NumbersHost {
    async fn keep(&self, vm: &VmHandle) -> Result<()> {
        if self.is_full {
            return Err(Error::ProcessEnded { detail: Some("no room".to_owned()) });
        }
        self.note(|seen| {
            seen.kept.push(vm.name.clone());
            if let Some(warm) = &vm.warm {
                seen.templates.insert(warm.key.clone(), vm.id);
            }
        });
        Ok(())
    }
}

impl Inspect for NumbersHost {
    async fn inspect(&self, vm: &VmHandle) -> Result<Inspection> {
        Ok(Inspection {
            state: vm.state,
            handle: Arc::new(vm.clone()),
            vcpus: None,
            memory_mib: None,
            forwards: None,
            ending: None,
            stall: None,
            damage: Vec::new(),
        })
    }
}

impl Reconfigure for NumbersHost {
    async fn reconfigure(&self, vm: &VmHandle, _spec: &VmSpec) -> Result<VmHandle> {
        Ok(vm.clone())
    }
}

impl Custody for NumbersHost {
    async fn strays(&self, _project: &Name, _known: &BTreeSet<InstanceId>) -> Result<Vec<Stray>> {
        Ok(Vec::new())
    }

    async fn release(&self, _vm: &VmHandle) -> Result<()> {
        Ok(())
    }

    async fn note(&self, _vm: &VmHandle, _note: &serde_json::Value) -> Result<()> {
        Ok(())
    }
}

impl Volumes for NumbersHost {
    async fn volumes(&self, _project: &Name) -> Result<Vec<FoundVolume>> {
        Ok(Vec::new())
    }

    async fn remove_volume(&self, _volume: &FoundVolume) -> Result<()> {
        Ok(())
    }
}

impl Capacity for NumbersHost {
    fn footprint(&self, _backend: BackendTag, _machine: &Machine) -> Result<Footprint> {
        Ok(Footprint { memory: 0, disk: 0 })
    }

    fn memory(&self, _backend: BackendTag) -> Result<Option<u64>> {
        Ok(None)
    }

    fn held(&self, _vm: &VmHandle) -> Result<Option<u64>> {
        Ok(None)
    }

    fn disk(&self, _backend: BackendTag) -> Result<Option<Space>> {
        Ok(None)
    }
}

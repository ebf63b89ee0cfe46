//! A fake host with its state, and machines to put in it.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use uuid::Uuid;
use vmctl_planner::apply::{
    CacheDownloads, Control, Downloads, EventReceiver, Executor, Limits, Report, events,
};
use vmctl_planner::checks::ask;
use vmctl_planner::desired::{Desired, DesiredImage, DesiredVm, ready_at_login};
use vmctl_planner::observed::strays;
use vmctl_planner::{
    Action, Change, Inputs, Mode, Observed, Options, Plan, PlanDocument, PlanError, StepKind, refresh,
};
use vmctl_providers::image::{FetchOptions, ImageCache};
use vmctl_providers::noop::Rule;
use vmctl_providers::propolis::PropolisConfig;
use vmctl_providers::provision::{ProvisionAction, ProvisionStep, Run};
use vmctl_providers::qemu::{AccelChoice, QemuConfig};
use vmctl_providers::ssh::Keyring;
use vmctl_providers::{
    BackendTag, Digest, Forward, Name, NoopBackend, PropolisBackend, Protocol, QemuBackend, RouterHypervisor,
    SshConfig,
};
use vmctl_state::{Address, MemoryStore, Store};

/// A fake host, an image cache and a state, all in one throwaway folder.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) images: ImageCache,
    pub(crate) noop: NoopBackend,
    pub(crate) host: Arc<RouterHypervisor>,
    pub(crate) store: MemoryStore,
    /// Where images come from that are not on this host.
    pub(crate) downloads: Arc<dyn Downloads>,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        for number in 0..2u8 {
            // The smallest thing that is a disk: one sector with a boot signature.
            let mut sector = vec![number; 512];
            sector[510..].copy_from_slice(&[0x55, 0xAA]);
            std::fs::write(image_path(path, number), sector).unwrap();
        }
        let noop = NoopBackend::new(path.join("vms"), path.join("world"));
        let propolis = PropolisBackend::new(PropolisConfig {
            vms_dir: path.join("vms"),
            images_dir: path.join("images"),
            take_over: false,
            keyring: Keyring::default(),
        });
        let qemu = QemuBackend::new(QemuConfig {
            vms_dir: path.join("vms"),
            images_dir: path.join("images"),
            templates_dir: path.join("templates"),
            runtime_dir: path.join("run"),
            accel: AccelChoice::Tcg,
            take_over: false,
            firmware_dirs: Vec::new(),
            keyring: Keyring::default(),
            bridge_helper: None,
            lease_files: Vec::new(),
        });
        Self {
            images: ImageCache::new(path.join("images")),
            host: Arc::new(RouterHypervisor::new(noop.clone(), qemu, propolis)),
            noop,
            store: MemoryStore::new(Uuid::from_u128(7)),
            downloads: Arc::new(CacheDownloads::new(
                ImageCache::new(path.join("images")),
                FetchOptions::default(),
            )),
            folder,
        }
    }

    pub(crate) fn vm(&self, name: &str) -> DesiredVm {
        let source = image_path(self.folder.path(), 0);
        let identity = self.images.identify(&source).unwrap();
        DesiredVm {
            backend: BackendTag::Noop,
            image: Some(DesiredImage::Local { source, identity }),
            memory_mib: 256,
            ssh: Some(login()),
            ready: ready_at_login(Some(&login())),
            ..DesiredVm::new(name.parse().unwrap())
        }
    }

    pub(crate) async fn plan(&self, desired: Option<&Desired>) -> Plan {
        let mode = if desired.is_some() { Mode::Normal } else { Mode::Destroy };
        self.try_plan(desired, &Options { mode, ..Options::default() }).await.unwrap()
    }

    /// Plans as told; without a goal, to remove everything.
    pub(crate) async fn try_plan(
        &self,
        desired: Option<&Desired>,
        options: &Options,
    ) -> Result<Plan, PlanError> {
        let observed = self.observe(desired).await;
        self.plan_from(desired, options, &observed)
    }

    pub(crate) async fn observe(&self, desired: Option<&Desired>) -> Observed {
        let recorded = self.store.snapshot().unwrap();
        let mut observed = refresh(&self.host, &recorded).await.unwrap();
        observed.strays = strays(&*self.host, &project(), &recorded, desired).await.unwrap();
        if let Some(desired) = desired {
            observed.checks = ask(&*self.host, desired, &observed).await;
        }
        observed
    }

    /// Plans from what was observed.
    pub(crate) fn plan_from(
        &self,
        desired: Option<&Desired>,
        options: &Options,
        observed: &Observed,
    ) -> Result<Plan, PlanError> {
        let recorded = self.store.snapshot().unwrap();
        Plan::new(Inputs {
            project: &project(),
            desired,
            recorded: &recorded,
            observed,
            images: &self.images,
            options,
        })
    }

    pub(crate) fn executor(&self, control: Control) -> (Executor<RouterHypervisor>, EventReceiver) {
        let (events, shown) = events();
        let limits = Limits { steps: 8, boots: 4, images: 2, downloads: 3, downloads_per_host: 2 };
        let downloads = Arc::clone(&self.downloads);
        let (host, images) = (Arc::clone(&self.host), self.images.clone());
        (Executor::new(host, images, downloads, limits, control, events), shown)
    }

    pub(crate) async fn apply(&mut self, desired: Option<&Desired>) -> Report {
        let plan = self.plan(desired).await;
        self.carry_out(&plan).await
    }

    pub(crate) async fn carry_out(&mut self, plan: &Plan) -> Report {
        let (executor, _events) = self.executor(Control::default());
        executor.apply(plan, &mut self.store).await.unwrap()
    }

    /// Applies and expects that nothing is left to do.
    pub(crate) async fn converge(&mut self, desired: Option<&Desired>) {
        let report = self.apply(desired).await;
        assert!(report.is_complete(), "{report:?}");
        let again = self.plan(desired).await;
        let is_settled = desired.map_or(again.is_empty(), |desired| is_settled(&again, desired));
        assert!(is_settled, "{:#?}", again.effective().collect::<Vec<_>>());
    }

    pub(crate) fn events(&self) -> Vec<String> {
        self.noop.events().unwrap()
    }

    /// What was logged since there were `before` events.
    pub(crate) fn events_since(&self, before: usize) -> Vec<String> {
        self.events().split_off(before)
    }

    pub(crate) fn action(plan: &Plan, name: &str) -> Action {
        change(plan, name).action
    }
}

/// Whether a plan does nothing but what every plan does: the steps that are always to run.
pub(crate) fn is_settled(plan: &Plan, goal: &Desired) -> bool {
    plan.graph.steps().all(|(_, step)| {
        let vm = goal.vms.get(step.address.name());
        vm.is_some_and(|vm| match step.kind {
            StepKind::Provision(number) => vm.provision[number - 1].options.run == Run::Always,
            _ => false,
        })
    })
}

pub(crate) fn login() -> SshConfig {
    SshConfig { user: "vm".to_owned(), private_key: None }
}

/// The decision about one machine.
pub(crate) fn change<'p>(plan: &'p Plan, name: &str) -> &'p Change {
    plan.changes.iter().find(|change| change.address == Address::vm(name)).unwrap()
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn project() -> Name {
    "test".parse().unwrap()
}

pub(crate) fn image_path(folder: &Path, number: u8) -> PathBuf {
    folder.join(format!("disk-{number}.raw"))
}

pub(crate) fn step(number: usize, script: &str) -> ProvisionStep {
    ProvisionStep {
        number,
        label: script.to_owned(),
        action: ProvisionAction::Shell { script: script.to_owned() },
        options: Default::default(),
        digest: Digest::of(script),
        secrets: Default::default(),
    }
}

pub(crate) fn desired(vms: impl IntoIterator<Item = DesiredVm>) -> Desired {
    Desired { vms: vms.into_iter().map(|vm| (vm.name.clone(), vm)).collect(), ..Desired::new(project()) }
}

/// A forward from the loopback; port 0 is one of the kernel's choice.
pub(crate) fn forward(host_port: u16, guest_port: u16) -> Forward {
    Forward { protocol: Protocol::Tcp, host_address: Ipv4Addr::LOCALHOST.into(), host_port, guest_port }
}

pub(crate) fn fail(op: &str, vm: &str, times: Option<u32>) -> Rule {
    let (op, vm, why) = (op.to_owned(), vm.to_owned(), "no luck".to_owned());
    Rule { op, vm: Some(vm), fail: Some(why), times, ..Rule::default() }
}

pub(crate) fn bytes(plan: &Plan) -> String {
    serde_json::to_string(&PlanDocument::from(plan)).unwrap()
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

//! The backend itself: its places, and which file answers which call.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;

use super::client::{API_VERSION, Client};
use super::host::disks::Disks;
use super::host::zones::Zone;
use super::host::{Runner, ThisHost};
use super::serial;
use super::server::Places;
use crate::abilities::{
    ConsoleHistory, Custody, GuestAccess, GuestInterface, Inspect, Inspection, Preflight, Probe, RanByAgent,
    Readiness, Reconfigure, Stray, Verdict,
};
use crate::error::{Error, Result};
use crate::hypervisor::{ConsoleEndpoint, Hypervisor};
use crate::name::Name;
use crate::process::Program;
use crate::provision::{OutputLine, ProvisionStep};
use crate::qemu::ending;
use crate::qemu::guest::Sessions;
use crate::qemu::placement::choose;
use crate::spec::{BackendTag, InstanceId, Machine, PropolisOptions, VmHandle, VmSpec, VmState};
use crate::ssh::{Keyring, PORT};
use crate::volume::{FoundVolume, Volumes};
use crate::workdir::{WorkDir, among};

/// The server's program, as PATH knows it.
pub const PROPOLIS_SERVER: Program = Program { name: "propolis-server", package: "propolis" };

/// Where illumos has a device for each ZFS volume; the raw ones, which are not cached twice.
const ZVOLS: &str = "/dev/zvol/rdsk";

/// Where a [`PropolisBackend`] keeps its files.
#[derive(Debug, Clone)]
pub struct PropolisConfig {
    /// Folder that holds one folder per machine of one project.
    pub vms_dir: PathBuf,
    /// Folder of the image cache, where images are looked for whose recorded path is another.
    pub images_dir: PathBuf,
    /// Whether machines that were left running on another host are taken for stopped.
    pub take_over: bool,
    /// What opens the keys of logins.
    pub keyring: Keyring,
}

/// Runs machines as VMs of propolis-servers.
#[derive(Debug)]
pub struct PropolisBackend {
    pub(super) config: PropolisConfig,
    pub(super) host: Box<dyn Runner>,
    pub(super) zvols: PathBuf,
    pub(super) sessions: Sessions,
    /// The port on which guests' sshd listens.
    pub(super) sshd: u16,
    /// Which folders were chosen, so that a handle and what is made name the same one.
    places: Mutex<HashMap<(InstanceId, Name), PathBuf>>,
    /// Images are written to volumes by one at a time.
    pub(super) images: tokio::sync::Mutex<()>,
}

impl PropolisBackend {
    /// A backend with the given places. Nothing is touched until a machine is prepared.
    pub fn new(config: PropolisConfig) -> Self {
        Self::on(config, Box::new(ThisHost), zvols())
    }

    /// The same on another host, whose volumes have their devices in `zvols`.
    pub(super) fn on(config: PropolisConfig, host: Box<dyn Runner>, zvols: PathBuf) -> Self {
        let (sessions, places, images) = Default::default();
        Self { config, host, zvols, sessions, sshd: PORT, places, images }
    }

    /// The folder of the machine that `spec` describes, whether it is made already or not.
    pub(super) fn place(&self, spec: &VmSpec) -> Result<WorkDir> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (spec.id, spec.name.clone());
        if let Some(path) = places.get(&key) {
            return Ok(WorkDir::new(path));
        }
        let path = choose(&self.config.vms_dir.join(spec.name.as_str()), spec.id)?;
        places.insert(key, path.clone());
        Ok(WorkDir::new(path))
    }

    /// The machine with the paths that hold now. Refused if it was left running on another host.
    pub(super) fn here(&self, vm: &VmHandle) -> Result<VmHandle> {
        if let Some(runtime) = &vm.runtime
            && let (Some(then), Some(now)) = (&runtime.host, ending::host())
            && *then != now
            && !self.config.take_over
        {
            return Err(Error::Elsewhere { place: "on another host".to_owned() });
        }
        let mut here = vm.clone();
        here.work_dir = among(&self.config.vms_dir, &vm.work_dir);
        if let Some(image) = &mut here.machine.image {
            image.path = self.image_here(&image.path);
        }
        Ok(here)
    }

    /// An image in this cache, if it is there; else where it was.
    pub(super) fn image_here(&self, recorded: &std::path::Path) -> PathBuf {
        let here = among(&self.config.images_dir, recorded);
        if here.exists() { here } else { recorded.to_owned() }
    }

    /// The volumes of a machine that has its disk on one.
    pub(super) fn disks<'a>(&'a self, machine: &'a Machine) -> Option<Disks<'a>> {
        let pool = machine.hardware.propolis.pool.as_deref()?;
        Some(Disks { host: &*self.host, pool, devices: &self.zvols })
    }

    /// The zone of a machine whose server has one.
    pub(super) fn zone<'a>(&'a self, id: InstanceId, machine: &'a Machine) -> Option<Zone<'a>> {
        let options = machine.hardware.propolis.zone.as_ref()?;
        Some(Zone { host: &*self.host, id, options })
    }

    /// What a machine boots from, whether it is there or not; `None` if it has no disk.
    pub(super) fn disk(&self, vm: &VmHandle) -> Option<PathBuf> {
        vm.machine.disk_size()?;
        Some(match self.disks(&vm.machine) {
            Some(disks) => disks.device(vm.id),
            None => vm.work_dir.join(DISK),
        })
    }

    /// A client of the server at `address`.
    pub(super) fn client(&self, address: SocketAddr, options: &PropolisOptions) -> Result<Client> {
        Ok(Client::new(address, version(options))?)
    }
}

/// [`ZVOLS`], unless a test has them elsewhere.
fn zvols() -> PathBuf {
    fail::fail_point!("host.zvols", |value| value.unwrap_or_default().into());
    ZVOLS.into()
}

/// The disk of a machine that has none on a volume.
pub(super) const DISK: &str = "disk.raw";

/// The version of the API that is spoken.
pub(super) fn version(options: &PropolisOptions) -> &str {
    options.api_version.as_deref().unwrap_or(API_VERSION)
}

/// Nothing can be run for this reason.
pub(super) fn unavailable(reason: String) -> Error {
    Error::BackendUnavailable { backend: BackendTag::Propolis, reason }
}

pub(super) fn unsupported(what: &str) -> Error {
    Error::Unsupported { backend: BackendTag::Propolis, what: what.to_owned() }
}

/// Why a VM of Propolis cannot be paused.
const NO_PAUSE: &str = "pausing a machine (a propolis-server has no request for it)";

impl Hypervisor for PropolisBackend {
    async fn prepare(&self, spec: &VmSpec) -> Result<VmHandle> {
        self.make(spec).await
    }

    async fn start(&self, vm: &VmHandle) -> Result<VmHandle> {
        Box::pin(self.bring_up(&self.here(vm)?)).await
    }

    async fn stop(&self, vm: &VmHandle, timeout: Duration) -> Result<VmHandle> {
        Box::pin(self.bring_down(&self.here(vm)?, Some(timeout))).await
    }

    async fn suspend(&self, _vm: &VmHandle) -> Result<VmHandle> {
        Err(unsupported(NO_PAUSE))
    }

    async fn resume(&self, vm: &VmHandle) -> Result<VmHandle> {
        match self.state(vm).await? {
            VmState::Running => {
                let seen = self.look_closely(&self.here(vm)?).await?;
                Ok(Arc::unwrap_or_clone(seen.handle))
            }
            _ => Err(unsupported(NO_PAUSE)),
        }
    }

    async fn destroy(&self, vm: VmHandle) -> Result<()> {
        Box::pin(self.remove(&self.here(&vm)?)).await
    }

    async fn state(&self, vm: &VmHandle) -> Result<VmState> {
        self.observe_state(&self.here(vm)?).await
    }

    async fn guest_ip(&self, vm: &VmHandle) -> Result<String> {
        self.address(&self.here(vm)?).await.map(|address| address.to_string())
    }

    /// A server of our own listens somewhere else at each start: where, is noted in the machine's folder.
    fn console_endpoint(&self, vm: &VmHandle) -> Result<ConsoleEndpoint> {
        let here = self.here(vm)?;
        let given = here.machine.hardware.propolis.server;
        let noted =
            || Places::of(&WorkDir::new(&here.work_dir)).load().map(|note| note.map(|note| note.address));
        Ok(match given.map_or_else(noted, |given| Ok(Some(given)))? {
            Some(address) => ConsoleEndpoint::WebSocket(serial::url(address)),
            None => ConsoleEndpoint::None,
        })
    }
}

impl Inspect for PropolisBackend {
    async fn inspect(&self, vm: &VmHandle) -> Result<Inspection> {
        self.look_closely(&self.here(vm)?).await
    }
}

impl Reconfigure for PropolisBackend {
    async fn reconfigure(&self, vm: &VmHandle, spec: &VmSpec) -> Result<VmHandle> {
        Box::pin(self.take_over(&self.here(vm)?, spec)).await
    }
}

impl ConsoleHistory for PropolisBackend {
    async fn fetch_console(&self, vm: &VmHandle) -> Result<()> {
        self.pull_console(&self.here(vm)?).await
    }
}

impl Volumes for PropolisBackend {
    /// It has none.
    async fn volumes(&self, _project: &Name) -> Result<Vec<FoundVolume>> {
        Ok(Vec::new())
    }

    async fn remove_volume(&self, _volume: &FoundVolume) -> Result<()> {
        Err(unsupported("a volume"))
    }
}

impl Preflight for PropolisBackend {
    fn handle(&self, spec: &VmSpec) -> Result<VmHandle> {
        Ok(VmHandle::of(spec, self.place(spec)?.path().to_owned()))
    }

    async fn preflight(&self, spec: &VmSpec) -> Result<()> {
        self.check_feasible(spec).await
    }
}

impl GuestAccess for PropolisBackend {
    async fn wait_ready(&self, vm: &VmHandle, readiness: &Readiness) -> Result<()> {
        Box::pin(self.be_ready(&self.here(vm)?, readiness)).await
    }

    async fn probe(&self, vm: &VmHandle, probe: &Probe, patience: Duration) -> Result<Verdict> {
        Box::pin(self.ask_once(&self.here(vm)?, probe, patience)).await
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
        Box::pin(self.run_step(&self.here(vm)?, step, output)).await
    }
}

impl Custody for PropolisBackend {
    async fn strays(&self, project: &Name, known: &BTreeSet<InstanceId>) -> Result<Vec<Stray>> {
        self.find_strays(project, known)
    }

    async fn release(&self, vm: &VmHandle) -> Result<()> {
        self.let_go(&self.here(vm)?)
    }

    async fn note(&self, vm: &VmHandle, note: &Value) -> Result<()> {
        self.keep_note(vm, note)
    }
}

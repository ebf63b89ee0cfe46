//! Questions about a machine, and the two small commands that pause it and let it go on.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::argv::ROOT;
use super::backend::QemuBackend;
use super::display;
use super::ending;
use super::firmware;
use super::manifest::{Manifest, Owner};
use super::qmp::Monitor;
use super::usernet::{self, Rule};
use super::volumes;
use crate::abilities::{Damage, Inspection};
use crate::console_log;
use crate::error::{Error, Result};
use crate::failpoints::failpoint;
use crate::process::Process;
use crate::spec::{BackendTag, InstanceId, Runtime, VmHandle, VmState};
use crate::volume::{self, VolumeDir};
use crate::workdir::WorkDir;

/// How long a monitor may take to greet. Other vmctl processes hold it for milliseconds at a time.
const GREETING: Duration = Duration::from_secs(3);

/// How long the reserved monitor may take to show that QEMU itself is well.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

impl QemuBackend {
    /// See [`crate::Hypervisor::state`].
    pub(super) async fn observe_state(&self, vm: &VmHandle) -> Result<VmState> {
        match self.live_state_of(vm).await? {
            Some((_, state, _)) => Ok(state),
            None => state_at_rest(vm),
        }
    }

    /// The same as [`Self::live`]; a process that never came to go on from a template's memory is none.
    async fn live_state_of(&self, vm: &VmHandle) -> Result<Option<(Process, VmState, Monitor)>> {
        let is_cloned = vm.warm.as_ref().is_some_and(|warm| warm.cloned.is_some());
        if is_cloned && self.is_half_awake(&WorkDir::new(&vm.work_dir), vm)? {
            return Ok(None);
        }
        self.live(vm.id).await
    }

    /// The live process of an instance and what it does; `None` if there is none, or none any more.
    pub(super) async fn live_state(&self, id: InstanceId) -> Result<Option<(Process, VmState)>> {
        Ok(self.live(id).await?.map(|(process, state, _)| (process, state)))
    }

    /// The same, with the monitor that was asked.
    async fn live(&self, id: InstanceId) -> Result<Option<(Process, VmState, Monitor)>> {
        let Some(process) = self.find(id)? else { return Ok(None) };
        let asked = async {
            let mut monitor = self.monitor(id, &process).await?;
            Ok((monitor.state().await?, monitor))
        };
        match asked.await {
            Ok((state, monitor)) => Ok(Some((process, state, monitor))),
            // It ended while it was asked.
            Err(_) if self.find(id)?.is_none() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Connects to the everyday monitor, and tells a busy one from a QEMU that does not answer at all.
    pub(super) async fn monitor(&self, id: InstanceId, process: &Process) -> Result<Monitor> {
        let run = self.runtime_dir(id);
        let connected = async {
            match Monitor::connect(&run.monitor(), GREETING).await {
                Err(Error::Timeout { .. })
                    if Monitor::connect(&run.reserved_monitor(), SIGN_OF_LIFE).await.is_ok() =>
                {
                    Err(Error::MonitorBusy { socket: run.monitor() })
                }
                result => result,
            }
        };
        tokio::select! {
            result = connected => result,
            ended = process.exited() => {
                ended.map_err(Error::io("wait for", run.pidfile()))?;
                Err(Error::ProcessEnded { detail: None })
            }
        }
    }

    /// See [`crate::Inspect::inspect`].
    pub(super) async fn look_closely(&self, vm: &VmHandle) -> Result<Inspection> {
        let mut seen = Inspection {
            state: VmState::Destroyed,
            handle: Arc::new(VmHandle { runtime: None, ..vm.clone() }),
            vcpus: None,
            memory_mib: None,
            forwards: None,
            ending: None,
            damage: Vec::new(),
            stall: None,
        };
        match self.live_state_of(vm).await? {
            None => seen.state = state_at_rest(vm)?,
            Some((process, state, mut monitor)) => {
                seen.state = state;
                curb(vm);
                seen.damage = self.cut_off(&vm.machine, &process).await?;
                if state == VmState::Failed {
                    seen.stall = monitor.stall(|node| disk_of(vm, node)).await?;
                }
                seen.vcpus = u16::try_from(monitor.vcpus().await?).ok();
                seen.memory_mib = Some(monitor.memory().await? >> 20);
                let bound = usernet::parse(&monitor.user_network().await?);
                let mut forwards: Vec<_> = bound.iter().map(|rule| rule.forward.clone()).collect();
                forwards.sort_unstable();
                seen.forwards = Some(forwards);
                let display = display::address(vm, &self.runtime_dir(vm.id), &mut monitor).await?;
                // A guest's agent is asked through the monitor, which takes one client at a time.
                drop(monitor);
                let mut runtime = self.runtime_facts(vm, &process, (bound, display))?;
                if state == VmState::Running {
                    runtime.address = self.known_address(vm).await?;
                }
                Arc::make_mut(&mut seen.handle).runtime = Some(runtime);
            }
        }
        Arc::make_mut(&mut seen.handle).state = seen.state;
        if seen.state == VmState::Stopped && seen.handle.runtime.is_none() {
            seen.ending = Some(self.ending(vm));
        }
        if seen.state != VmState::Destroyed {
            seen.damage.extend(self.damage(vm).await?);
        }
        Ok(seen)
    }

    /// What is wrong with the files of a machine that is there, by its process or its folder.
    async fn damage(&self, vm: &VmHandle) -> Result<Vec<Damage>> {
        let work = WorkDir::new(&vm.work_dir);
        let path = work.path().to_owned();
        Ok(match Manifest::owner(&work, vm.id)? {
            Owner::Ours(manifest) if manifest.prepared => self.damage_inside(vm, &work, &manifest).await?,
            // What is not there yet is not gone.
            Owner::Ours(_) => Vec::new(),
            Owner::Missing => vec![Damage::FolderMissing { path }],
            Owner::Vacant => {
                vec![Damage::FolderForeign { path, found: "nobody: it has no manifest".to_owned() }]
            }
            Owner::Other(found) => vec![Damage::FolderForeign { path, found }],
        })
    }

    async fn damage_inside(&self, vm: &VmHandle, work: &WorkDir, manifest: &Manifest) -> Result<Vec<Damage>> {
        let mut damage = Vec::new();
        if vm.machine.disk_size().is_some() && is_gone(&work.overlay())? {
            damage.push(Damage::DiskMissing { path: work.overlay() });
        }
        if let Some((name, path)) = volume::gone(work.path(), &vm.machine)? {
            damage.push(Damage::VolumeMissing { name, path });
        }
        if manifest.seed && is_gone(&work.seed())? {
            damage.push(Damage::SeedMissing { path: work.seed() });
        }
        if let Some(path) = firmware::gone(work, manifest) {
            damage.push(Damage::FirmwareMissing { path });
        }
        match self.check_base(manifest, vm.machine.image.as_ref()).await {
            Ok(_) => {}
            Err(Error::BaseChanged { path, what }) => damage.push(Damage::BaseChanged { path, what }),
            Err(error) => return Err(error),
        }
        Ok(damage)
    }

    /// The facts of a live process. What QEMU cannot tell (why it is emulated) is kept from the handle.
    fn runtime_facts(
        &self,
        vm: &VmHandle,
        process: &Process,
        (bound, display): (Vec<Rule>, Option<String>),
    ) -> Result<Runtime> {
        let run = self.runtime_dir(vm.id);
        let accel = match &vm.runtime {
            Some(known) if known.pid == process.pid() => known.accel.clone(),
            _ => accel_of(&process.arguments().map_err(Error::io("examine", run.pidfile()))?),
        };
        Ok(Runtime {
            pid: process.pid(),
            accel,
            vnc: display,
            forwards: usernet::compare(&usernet::wanted(&vm.machine), bound).met,
            address: None,
            boot: ending::boot(),
            host: ending::host(),
        })
    }

    /// See [`crate::Hypervisor::suspend`].
    pub(super) async fn pause(&self, vm: &VmHandle) -> Result<VmHandle> {
        let (process, state, mut monitor) = self.awake(vm, "suspend").await?;
        match state {
            VmState::Suspended => {}
            VmState::Running => monitor.pause().await?,
            state => return Err(Error::InvalidState { action: "suspend", state }),
        }
        failpoint!("suspend.qemu.paused", &vm.work_dir);
        self.handle_of_live(vm, &process, &mut monitor).await
    }

    /// See [`crate::Hypervisor::resume`]. A machine that QEMU stopped for want of disk space goes on, too.
    pub(super) async fn unpause(&self, vm: &VmHandle) -> Result<VmHandle> {
        let (process, state, mut monitor) = self.awake(vm, "resume").await?;
        match state {
            VmState::Running => {}
            VmState::Suspended | VmState::Failed => monitor.unpause().await?,
            state => return Err(Error::InvalidState { action: "resume", state }),
        }
        failpoint!("resume.qemu.unpaused", &vm.work_dir);
        let handle = self.handle_of_live(vm, &process, &mut monitor).await?;
        self.tell_names(&handle).await?;
        Ok(handle)
    }

    async fn awake(&self, vm: &VmHandle, action: &'static str) -> Result<(Process, VmState, Monitor)> {
        match self.live(vm.id).await? {
            Some(live) => Ok(live),
            None => Err(Error::InvalidState { action, state: state_at_rest(vm)? }),
        }
    }

    /// The handle of a live machine, brought up to date.
    pub(super) async fn handle_of_live(
        &self,
        vm: &VmHandle,
        process: &Process,
        monitor: &mut Monitor,
    ) -> Result<VmHandle> {
        let bound = usernet::parse(&monitor.user_network().await?);
        let display = display::address(vm, &self.runtime_dir(vm.id), monitor).await?;
        Ok(VmHandle {
            state: monitor.state().await?,
            runtime: Some(self.runtime_facts(vm, process, (bound, display))?),
            forced_stop: None,
            ..vm.clone()
        })
    }

    /// See [`crate::Hypervisor::guest_ip`]: through QEMU's user network a guest is reached by its forwards.
    pub(super) async fn address(&self, vm: &VmHandle) -> Result<String> {
        if vm.machine.nics.iter().any(|nic| nic.network.is_user()) {
            return Ok(Ipv4Addr::LOCALHOST.to_string());
        }
        if vm.machine.is_on_a_bridge() {
            self.process_of(vm, "ask for the address of")?;
            return self.find_address(vm).await.map(|address| address.to_string());
        }
        let what = "reaching a machine that is on no network of this host".to_owned();
        Err(Error::Unsupported { backend: BackendTag::Qemu, what })
    }

    /// The address of a guest that runs on the network of a bridge, if it can be found now.
    async fn known_address(&self, vm: &VmHandle) -> Result<Option<Ipv4Addr>> {
        if !vm.machine.is_on_a_bridge() {
            return Ok(None);
        }
        match self.find_address(vm).await {
            Ok(address) => Ok(Some(address)),
            Err(error @ Error::NoAddress { .. }) => {
                tracing::debug!(%error, "the guest is not found on its network");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// The file of one of the machine's disks, by the name of its block node.
fn disk_of(vm: &VmHandle, node: &str) -> Option<PathBuf> {
    if node == ROOT {
        return Some(WorkDir::new(&vm.work_dir).overlay());
    }
    let mut volumes = vm.machine.volumes.iter().enumerate();
    let (_, volume) = volumes.find(|(index, _)| volumes::node(*index) == node)?;
    Some(VolumeDir::of_machine(&vm.work_dir, &volume.name).disk())
}

/// Keeps the console's log of a running machine within its bounds. That is no reason for a look to fail.
pub(super) fn curb(vm: &VmHandle) {
    let log = WorkDir::new(&vm.work_dir).console_log();
    if let Err(error) = console_log::trim(&log) {
        tracing::warn!(%error, "the console's log may grow beyond its bounds");
    }
}

/// What a machine without a process is.
pub(super) fn state_at_rest(vm: &VmHandle) -> Result<VmState> {
    match Manifest::owner(&WorkDir::new(&vm.work_dir), vm.id)? {
        Owner::Ours(manifest) => Ok(manifest.state_at_rest()),
        Owner::Missing | Owner::Vacant | Owner::Other(_) => Ok(VmState::Destroyed),
    }
}

/// A file that cannot be examined is not taken for one that is gone.
fn is_gone(path: &Path) -> Result<bool> {
    path.try_exists().map(|there| !there).map_err(Error::io("examine", path))
}

/// The accelerator on a command line, without its options.
fn accel_of(args: &[String]) -> String {
    let value = args.windows(2).find(|pair| pair[0] == "-accel").map(|pair| pair[1].as_str());
    value.and_then(|value| value.split(',').next()).unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accelerator_is_read_from_the_command_line() {
        let args = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(accel_of(&args("qemu -accel tcg,thread=multi -cpu max")), "tcg");
        assert_eq!(accel_of(&args("qemu -accel kvm")), "kvm");
        assert_eq!(accel_of(&args("qemu -accel")), "unknown");
    }
}

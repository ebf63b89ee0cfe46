//! The remembering fake: machines that exist only as files, for tests, dry runs and learning.
//!
//! A world is a folder. Every machine is `vms/NAME/machine.json`; what was done is appended to `events.log`, one
//! `OPERATION NAME` a line; and `script.json`, if present, tells operations to fail or to take time:
//!
//! ```json
//! [{ "op": "start", "vm": "web", "fail": "no luck", "times": 1 }, { "op": "prepare", "delay-ms": 20 }]
//! ```
//!
//! `host.json` says what the fake host has; without it, there is no end of anything:
//!
//! ```json
//! { "memory-mib": 4096, "disk-mib": 100 }
//! ```
//!
//! Drift is made by editing or removing a machine's file, by hand or with [`NoopBackend::edit`].

mod world;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;

use crate::abilities::{
    Custody, Damage, Ending, GuestAccess, GuestInterface, Inspect, Inspection, Preflight, Probe, RanByAgent,
    Readiness, Reconfigure, Stray, Verdict,
};
use crate::capacity::{self, Capacity, Footprint, Space};
use crate::error::{Error, Result};
use crate::failpoints::failpoint;
use crate::hypervisor::{ConsoleEndpoint, Hypervisor};
use crate::name::Name;
use crate::provision::{OutputLine, OutputStream, ProvisionStep};
use crate::spec::{BackendTag, Forward, InstanceId, Machine, Runtime, VmHandle, VmSpec, VmState};
use crate::volume::{self, Claim, FoundVolume, VolumeDir, Volumes, claim};
use crate::workdir::{WorkDir, among, read_note};

pub use world::{FakeHost, FakeMachine, Rule};
use world::{Whose, load, write_json};

/// A world of fake machines, kept in a folder.
#[derive(Debug, Clone)]
pub struct NoopBackend {
    vms_dir: PathBuf,
    world: PathBuf,
}

/// What the folder of a fake machine takes; a round number.
const FAKE_FOLDER: u64 = 1 << 20;

impl NoopBackend {
    /// A world whose machines are in `vms_dir` and whose script and log are in `world`.
    ///
    /// Nothing is touched until a machine is prepared.
    pub fn new(vms_dir: impl Into<PathBuf>, world: impl Into<PathBuf>) -> Self {
        Self { vms_dir: vms_dir.into(), world: world.into() }
    }

    /// Replaces the script.
    pub fn script(&self, rules: &[Rule]) -> Result<()> {
        let path = self.world.join("script.json");
        fs::create_dir_all(&self.world).map_err(Error::io("create folder", &self.world))?;
        write_json(&path, &rules)
    }

    /// Says what the fake host has.
    pub fn furnish(&self, host: &FakeHost) -> Result<()> {
        fs::create_dir_all(&self.world).map_err(Error::io("create folder", &self.world))?;
        write_json(&self.world.join("host.json"), host)
    }

    fn host(&self) -> Result<FakeHost> {
        Ok(load(&self.world.join("host.json"))?.unwrap_or_default())
    }

    /// What all machines hold that are on now.
    fn held_by_all(&self) -> Result<u64> {
        let folders = match fs::read_dir(&self.vms_dir) {
            Ok(folders) => folders,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(Error::io("list folder", &self.vms_dir)(error)),
        };
        let mut held: u64 = 0;
        for folder in folders {
            let folder = folder.map_err(Error::io("list folder", &self.vms_dir))?;
            let found: Option<FakeMachine> = load(&folder.path().join("machine.json"))?;
            held = held.saturating_add(found.as_ref().and_then(holding).unwrap_or(0));
        }
        Ok(held)
    }

    /// The log of operations that took effect, oldest first.
    pub fn events(&self) -> Result<Vec<String>> {
        let path = self.world.join("events.log");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(Error::io("read", path)(error)),
        }
    }

    /// What the world remembers of the machine `name`, if it exists.
    pub fn machine(&self, name: &str) -> Result<Option<FakeMachine>> {
        load(&self.vms_dir.join(name).join("machine.json"))
    }

    /// Changes a machine behind the tool's back: drift. A machine that does not exist stays so.
    pub fn edit(&self, name: &str, change: impl FnOnce(&mut FakeMachine)) -> Result<()> {
        let path = self.vms_dir.join(name).join("machine.json");
        let Some(mut machine) = load(&path)? else { return Ok(()) };
        change(&mut machine);
        write_json(&path, &machine)
    }

    /// The machine with the folder that it has now: the world may have been moved since it was recorded.
    fn here(&self, vm: &VmHandle) -> VmHandle {
        VmHandle { work_dir: among(&self.vms_dir, &vm.work_dir), ..vm.clone() }
    }

    fn folder(&self, vm: &VmHandle) -> PathBuf {
        among(&self.vms_dir, &vm.work_dir)
    }

    fn file(&self, vm: &VmHandle) -> PathBuf {
        self.folder(vm).join("machine.json")
    }

    fn find(&self, vm: &VmHandle) -> Result<Option<FakeMachine>> {
        let found: Option<FakeMachine> = load(&self.file(vm))?;
        match found {
            Some(machine) if machine.id != vm.id => {
                Err(Error::Foreign { path: self.folder(vm), found: machine.id.to_string() })
            }
            found => Ok(found),
        }
    }

    /// Makes the fake volumes of a machine: files with nothing in them.
    fn ensure_volumes(&self, spec: &VmSpec) -> Result<()> {
        for volume in &spec.machine.volumes {
            let dir = VolumeDir::beside(&self.vms_dir, &volume.name);
            let manifest = match claim(&dir, volume, &spec.project, BackendTag::Noop)? {
                Claim::There(manifest) => manifest,
                Claim::ToMake(manifest) => {
                    fs::write(dir.disk(), "").map_err(Error::io("write", dir.disk()))?;
                    manifest
                }
            };
            manifest.finish(&dir, volume)?;
        }
        Ok(())
    }

    /// Waits and fails as the script says.
    async fn rehearse(&self, op: &str, vm: &str) -> Result<()> {
        let rules: Vec<Rule> = load(&self.world.join("script.json"))?.unwrap_or_default();
        for (index, rule) in rules.iter().enumerate() {
            let concerned = rule.op == op && rule.vm.as_deref().is_none_or(|name| name == vm);
            if !concerned || !self.take_turn(index, rule.times)? {
                continue;
            }
            if rule.delay_ms > 0 {
                tokio::time::sleep(Duration::from_millis(rule.delay_ms)).await;
            }
            if let Some(message) = &rule.fail {
                return Err(Error::Scripted(message.clone()));
            }
        }
        Ok(())
    }

    /// How many lines the operation prints besides its own, as the script says.
    fn lines(&self, op: &str, vm: &str) -> Result<u64> {
        let rules: Vec<Rule> = load(&self.world.join("script.json"))?.unwrap_or_default();
        let concerned = |rule: &&Rule| rule.op == op && rule.vm.as_deref().is_none_or(|name| name == vm);
        Ok(rules.iter().filter(concerned).map(|rule| rule.lines).sum())
    }

    /// Uses up one of a rule's turns. Creating a file is what makes a turn exclusive between processes.
    fn take_turn(&self, rule: usize, times: Option<u32>) -> Result<bool> {
        let Some(times) = times else { return Ok(true) };
        for turn in 0..times {
            let path = self.world.join(format!("used-{rule}-{turn}"));
            match fs::File::create_new(&path) {
                Ok(_) => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io("create", path)(error)),
            }
        }
        Ok(false)
    }

    fn log(&self, op: &str, vm: &str) -> Result<()> {
        let path = self.world.join("events.log");
        fs::create_dir_all(&self.world).map_err(Error::io("create folder", &self.world))?;
        let mut file =
            fs::OpenOptions::new().create(true).append(true).open(&path).map_err(Error::io("open", &path))?;
        file.write_all(format!("{op} {vm}\n").as_bytes()).map_err(Error::io("write", path))
    }

    /// Brings a machine from one power state to another; nothing happens if it is there already.
    async fn transition(
        &self,
        op: &'static str,
        vm: &VmHandle,
        from: &[VmState],
        to: VmState,
    ) -> Result<VmHandle> {
        let Some(mut machine) = self.find(vm)? else {
            return Err(Error::InvalidState { action: op, state: VmState::Destroyed });
        };
        if machine.state != to {
            if !from.contains(&machine.state) {
                return Err(Error::InvalidState { action: op, state: machine.state });
            }
            self.rehearse(op, vm.name.as_str()).await?;
            machine.state = to;
            if op == "start" {
                machine.machine = vm.machine.clone();
            }
            write_json(&self.file(vm), &machine)?;
            failpoint!(&format!("{op}.noop.written"), self.file(vm));
            self.log(op, vm.name.as_str())?;
        }
        Ok(handle_of(vm, &machine))
    }
}

impl Hypervisor for NoopBackend {
    async fn prepare(&self, spec: &VmSpec) -> Result<VmHandle> {
        let handle = VmHandle { state: VmState::Prepared, ..self.handle(spec)? };
        if let Some(mut machine) = self.find(&handle)? {
            // Made by an attempt of which nobody knows that it ended, and perhaps for something else.
            if machine.state == VmState::Prepared {
                machine.machine = spec.machine.clone();
                machine.seed = spec.cloud_init.is_some();
                write_json(&self.file(&handle), &machine)?;
            }
            return Ok(handle_of(&handle, &machine));
        }
        self.rehearse("prepare", spec.name.as_str()).await?;
        fs::create_dir_all(&handle.work_dir).map_err(Error::io("create folder", &handle.work_dir))?;
        failpoint!("prepare.noop.folder-made", &handle.work_dir);
        self.ensure_volumes(spec)?;
        let machine = FakeMachine {
            id: spec.id,
            name: Some(spec.name.clone()),
            state: VmState::Prepared,
            machine: spec.machine.clone(),
            seed: spec.cloud_init.is_some(),
            provisioned: Vec::new(),
            damage: Vec::new(),
            stall: None,
            released: false,
        };
        write_json(&self.file(&handle), &machine)?;
        failpoint!("prepare.noop.written", self.file(&handle));
        self.log("prepare", spec.name.as_str())?;
        Ok(handle)
    }

    async fn start(&self, vm: &VmHandle) -> Result<VmHandle> {
        let from = [VmState::Prepared, VmState::Stopped, VmState::Failed];
        if self.find(vm)?.is_some_and(|machine| machine.state == VmState::Suspended) {
            return self.state_of(vm);
        }
        self.transition("start", vm, &from, VmState::Running).await
    }

    async fn stop(&self, vm: &VmHandle, _timeout: Duration) -> Result<VmHandle> {
        match self.find(vm)? {
            Some(machine) if machine.state == VmState::Prepared => Ok(handle_of(vm, &machine)),
            _ => {
                let from = [VmState::Running, VmState::Suspended, VmState::Failed];
                self.transition("stop", vm, &from, VmState::Stopped).await
            }
        }
    }

    async fn suspend(&self, vm: &VmHandle) -> Result<VmHandle> {
        self.transition("suspend", vm, &[VmState::Running], VmState::Suspended).await
    }

    async fn resume(&self, vm: &VmHandle) -> Result<VmHandle> {
        let is_stalled = self.find(vm)?.is_some_and(|machine| machine.stall.is_some());
        let from = [VmState::Suspended, if is_stalled { VmState::Failed } else { VmState::Suspended }];
        self.transition("resume", vm, &from, VmState::Running).await
    }

    async fn destroy(&self, vm: VmHandle) -> Result<()> {
        if self.find(&vm)?.is_none() {
            // A folder without the machine is what an attempt to make or to destroy it left when it was killed.
            let note = WorkDir::new(self.folder(&vm)).note();
            for left in [note.with_extension("part"), note] {
                match fs::remove_file(&left) {
                    Err(error) if !is_absent_or_used(&error) => return Err(Error::io("remove", left)(error)),
                    _ => {}
                }
            }
            return match fs::remove_dir(self.folder(&vm)) {
                Err(error) if !is_absent_or_used(&error) => {
                    Err(Error::io("remove folder", &vm.work_dir)(error))
                }
                _ => Ok(()),
            };
        }
        self.rehearse("destroy", vm.name.as_str()).await?;
        let (file, folder) = (self.file(&vm), self.folder(&vm));
        // What says whose the folder is goes last.
        let note = WorkDir::new(&folder).note();
        if note.exists() {
            fs::remove_file(&note).map_err(Error::io("remove", &note))?;
        }
        failpoint!("destroy.noop.note-removed", &folder);
        fs::remove_file(&file).map_err(Error::io("remove", &file))?;
        failpoint!("destroy.noop.file-removed", &folder);
        fs::remove_dir_all(&folder).map_err(Error::io("remove folder", &folder))?;
        failpoint!("destroy.noop.removed", &folder);
        self.log("destroy", vm.name.as_str())
    }

    async fn state(&self, vm: &VmHandle) -> Result<VmState> {
        Ok(self.find(vm)?.map_or(VmState::Destroyed, |machine| machine.state))
    }

    async fn guest_ip(&self, vm: &VmHandle) -> Result<String> {
        if vm.is_reached_on_a_bridge() {
            // The host itself would answer.
            let what = "reaching a machine on a bridge".to_owned();
            return Err(Error::Unsupported { backend: BackendTag::Noop, what });
        }
        match self.find(vm)? {
            Some(machine) if machine.state == VmState::Running => Ok("127.0.0.1".to_owned()),
            found => Err(Error::InvalidState {
                action: "ask for the address of",
                state: found.map_or(VmState::Destroyed, |machine| machine.state),
            }),
        }
    }

    fn console_endpoint(&self, _vm: &VmHandle) -> Result<ConsoleEndpoint> {
        Ok(ConsoleEndpoint::None)
    }
}

impl NoopBackend {
    fn state_of(&self, vm: &VmHandle) -> Result<VmHandle> {
        let machine = self.find(vm)?;
        machine
            .map(|machine| handle_of(vm, &machine))
            .ok_or(Error::InvalidState { action: "look at", state: VmState::Destroyed })
    }
}

impl Inspect for NoopBackend {
    async fn inspect(&self, vm: &VmHandle) -> Result<Inspection> {
        let vm = &self.here(vm);
        self.rehearse("inspect", vm.name.as_str()).await?;
        let Some(machine) = self.find(vm)? else {
            let handle = VmHandle { state: VmState::Destroyed, runtime: None, ..vm.clone() };
            return Ok(Inspection {
                state: VmState::Destroyed,
                handle: Arc::new(handle),
                vcpus: None,
                memory_mib: None,
                forwards: None,
                ending: None,
                damage: Vec::new(),
                stall: None,
            });
        };
        let live = matches!(machine.state, VmState::Running | VmState::Suspended);
        Ok(Inspection {
            state: machine.state,
            handle: Arc::new(handle_of(vm, &machine)),
            vcpus: live.then_some(machine.machine.vcpus),
            memory_mib: live.then_some(machine.machine.memory_mib),
            forwards: live.then(|| forwards(&machine.machine)),
            ending: (machine.state == VmState::Stopped).then_some(Ending::InOrder),
            damage: [lost_volume(vm, &machine.machine)?, machine.damage].concat(),
            stall: machine.stall.filter(|_| machine.state == VmState::Failed),
        })
    }
}

impl Reconfigure for NoopBackend {
    async fn reconfigure(&self, vm: &VmHandle, spec: &VmSpec) -> Result<VmHandle> {
        let Some(mut machine) = self.find(vm)? else {
            return Err(Error::InvalidState { action: "change", state: VmState::Destroyed });
        };
        let live = matches!(machine.state, VmState::Running | VmState::Suspended);
        if live && machine.machine.fixed_while_it_runs() != spec.machine.fixed_while_it_runs() {
            return Err(Error::InvalidState { action: "change the hardware of", state: machine.state });
        }
        self.rehearse("update", vm.name.as_str()).await?;
        self.ensure_volumes(spec)?;
        machine.name = Some(spec.name.clone());
        machine.machine = spec.machine.clone();
        machine
            .damage
            .retain(|damage| !matches!(damage, Damage::SeedMissing { .. } | Damage::OffBridge { .. }));
        write_json(&self.file(vm), &machine)?;
        failpoint!("update.noop.written", self.file(vm));
        self.log("update", vm.name.as_str())?;
        let changed = VmHandle {
            name: spec.name.clone(),
            machine: spec.machine.clone(),
            ssh: spec.ssh.clone(),
            ..vm.clone()
        };
        Ok(handle_of(&changed, &machine))
    }
}

impl Volumes for NoopBackend {
    async fn volumes(&self, project: &Name) -> Result<Vec<FoundVolume>> {
        volume::list(&self.vms_dir, project, BackendTag::Noop)
    }

    async fn remove_volume(&self, found: &FoundVolume) -> Result<()> {
        self.rehearse("remove-volume", found.name.as_str()).await?;
        volume::remove(&self.vms_dir, found)?;
        self.log("remove-volume", found.name.as_str())
    }
}

impl Preflight for NoopBackend {
    fn handle(&self, spec: &VmSpec) -> Result<VmHandle> {
        let plain = self.vms_dir.join(spec.name.as_str());
        let beside = crate::workdir::beside(&plain, spec.id);
        // A machine that was renamed, or let go of, keeps its folder; one that was begun beside it stays there.
        let ours = load::<FakeMachine>(&beside.join("machine.json"))?.is_some();
        let found: Option<FakeMachine> = load(&plain.join("machine.json"))?;
        let aside = ours || found.is_some_and(|machine| machine.id != spec.id);
        Ok(VmHandle::of(spec, if aside { beside } else { plain }))
    }

    async fn preflight(&self, spec: &VmSpec) -> Result<()> {
        self.rehearse("preflight", spec.name.as_str()).await
    }
}

impl Capacity for NoopBackend {
    fn footprint(&self, _backend: BackendTag, machine: &Machine) -> Result<Footprint> {
        Ok(Footprint { memory: mib(machine.memory_mib), disk: FAKE_FOLDER })
    }

    fn memory(&self, _backend: BackendTag) -> Result<Option<u64>> {
        let Some(all) = self.host()?.memory_mib else { return Ok(None) };
        Ok(Some(mib(all).saturating_sub(self.held_by_all()?)))
    }

    fn held(&self, vm: &VmHandle) -> Result<Option<u64>> {
        Ok(self.find(vm)?.as_ref().and_then(holding))
    }

    fn disk(&self, _backend: BackendTag) -> Result<Option<Space>> {
        let Some(free) = self.host()?.disk_mib else { return Ok(None) };
        Ok(Some(Space { free: mib(free), ..capacity::space(&self.vms_dir)? }))
    }
}

impl GuestAccess for NoopBackend {
    async fn wait_ready(&self, vm: &VmHandle, _readiness: &Readiness) -> Result<()> {
        match self.state(vm).await? {
            VmState::Running => {
                self.rehearse("ready", vm.name.as_str()).await?;
                failpoint!("ready.noop.answered", &vm.work_dir);
                self.log("ready", vm.name.as_str())
            }
            state => Err(Error::InvalidState { action: "wait for", state }),
        }
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

    /// Holds unless the script fails `probe`; then the message is what was seen.
    async fn probe(&self, vm: &VmHandle, _probe: &Probe, _patience: Duration) -> Result<Verdict> {
        match self.state(vm).await? {
            VmState::Running => match self.rehearse("probe", vm.name.as_str()).await {
                Ok(()) => Ok(Verdict::Holds),
                Err(Error::Scripted(message)) => Ok(Verdict::Fails(message)),
                Err(error) => Err(error),
            },
            state => Err(Error::InvalidState { action: "probe", state }),
        }
    }

    async fn provision(
        &self,
        vm: &VmHandle,
        step: &ProvisionStep,
        output: &mpsc::Sender<OutputLine>,
    ) -> Result<()> {
        let Some(mut machine) = self.find(vm)?.filter(|machine| machine.state == VmState::Running) else {
            return Err(Error::InvalidState { action: "provision", state: self.state(vm).await? });
        };
        let op = format!("provision-{}", step.number);
        self.rehearse(&op, vm.name.as_str()).await?;
        let run = async {
            failpoint!("provision.noop.running", &vm.work_dir);
            let line = |text| OutputLine { stream: OutputStream::Stdout, text };
            // Nobody listening is no failure of the step.
            let _ = output.send(line(format!("noop: {}", step.label))).await;
            for number in 1..=self.lines(&op, vm.name.as_str())? {
                let _ = output.send(line(format!("line {number}"))).await;
            }
            machine.provisioned.push(step.label.clone());
            write_json(&self.file(vm), &machine)?;
            failpoint!("provision.noop.ran", &vm.work_dir);
            self.log(&op, vm.name.as_str())
        };
        // What the script of the world fails did not begin; what fails later did.
        run.await.map_err(|cause| Error::ProvisionCut {
            step: step.number,
            label: step.label.clone(),
            tail: Vec::new(),
            cause: Box::new(cause),
        })
    }
}

impl Custody for NoopBackend {
    async fn strays(&self, project: &Name, known: &BTreeSet<InstanceId>) -> Result<Vec<Stray>> {
        let mut strays = Vec::new();
        let entries = match fs::read_dir(&self.vms_dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(strays),
            Err(error) => return Err(Error::io("list folder", &self.vms_dir)(error)),
        };
        for entry in entries {
            let folder = entry.map_err(Error::io("list folder", &self.vms_dir))?.path();
            // Most machines are known, and more than whose it is need not be understood of those.
            let stray = || -> Result<Option<FakeMachine>> {
                let file = folder.join("machine.json");
                match load::<Whose>(&file)? {
                    Some(whose) if !known.contains(&whose.id) => load(&file),
                    Some(_) | None => Ok(None),
                }
            };
            let found = stray().unwrap_or_else(|error| {
                tracing::debug!(%error, "passed over");
                None
            });
            if let Some(machine) = found {
                let of_folder = || folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let name = machine.name.clone().map_or_else(of_folder, String::from);
                let handle = name.parse().ok().map(|name| VmHandle {
                    id: machine.id,
                    project: project.clone(),
                    name,
                    backend: BackendTag::Noop,
                    work_dir: folder.clone(),
                    machine: machine.machine.clone(),
                    seed: machine.seed,
                    ssh: None,
                    uefi: None,
                    warm: None,
                    state: machine.state,
                    runtime: None,
                    forced_stop: None,
                });
                strays.push(Stray {
                    name,
                    id: machine.id,
                    pid: None,
                    released: machine.released,
                    note: read_note(&WorkDir::new(&folder)),
                    handle: handle.map(|vm| Box::new(handle_of(&vm, &machine))),
                    work_dir: Some(folder),
                });
            }
        }
        strays.sort_unstable_by(Stray::order);
        Ok(strays)
    }

    async fn release(&self, vm: &VmHandle) -> Result<()> {
        let Some(mut machine) = self.find(vm)? else { return Ok(()) };
        if !machine.released {
            self.rehearse("release", vm.name.as_str()).await?;
            machine.released = true;
            write_json(&self.file(vm), &machine)?;
            failpoint!("forget.noop.marked", self.file(vm));
            self.log("release", vm.name.as_str())?;
        }
        Ok(())
    }

    async fn note(&self, vm: &VmHandle, note: &Value) -> Result<()> {
        // Whose folder it is was looked at when it was made; the fake is asked about ten thousand machines at once.
        // A folder that is half destroyed gets none: nothing would be left that says whose it is.
        if !self.file(vm).exists() {
            return Ok(());
        }
        match write_json(&WorkDir::new(self.folder(vm)).note(), note) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            written => written,
        }
    }
}

/// A volume whose file somebody removed.
fn lost_volume(vm: &VmHandle, machine: &Machine) -> Result<Vec<Damage>> {
    let gone = volume::gone(&vm.work_dir, machine)?;
    Ok(gone.map(|(name, path)| Damage::VolumeMissing { name, path }).into_iter().collect())
}

/// A fake machine that is on holds all the memory it has.
fn holding(machine: &FakeMachine) -> Option<u64> {
    let is_on = matches!(machine.state, VmState::Running | VmState::Suspended | VmState::Failed);
    is_on.then(|| mib(machine.machine.memory_mib))
}

fn mib(number: u64) -> u64 {
    number.saturating_mul(1 << 20)
}

/// Whether a folder could not be removed because it is not there, or because something is in it.
fn is_absent_or_used(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::DirectoryNotEmpty
    )
}

fn forwards(machine: &Machine) -> Vec<Forward> {
    machine.nics.iter().flat_map(|nic| nic.forwards.clone()).collect()
}

fn handle_of(vm: &VmHandle, machine: &FakeMachine) -> VmHandle {
    let runtime = matches!(machine.state, VmState::Running | VmState::Suspended).then(|| Runtime {
        pid: 0,
        accel: "none".to_owned(),
        vnc: None,
        forwards: forwards(&machine.machine),
        address: None,
        boot: None,
        host: None,
    });
    VmHandle { state: machine.state, runtime, seed: machine.seed, forced_stop: None, ..vm.clone() }
}

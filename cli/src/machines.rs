//! Recorded machines and what was seen of them: choosing one by name, and the facts that are shown.

use std::net::IpAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;
use vmctl_planner::observed::{self, Sight};
use vmctl_planner::recorded::handle_of;
use vmctl_providers::ssh::SshTarget;
use vmctl_providers::workdir::WorkDir;
use vmctl_providers::{DiskImage, Forward, Inspection, Name, Nic, VmHandle, VmState, process};
use vmctl_state::{Address, Phase, Record, Snapshot, project};

use crate::commands::ssh::arguments;
use crate::context::{Context, small_runtime};
use crate::error::CliError;

/// Letters of a name for which one slip of the finger is forgiven, as in a VMFile.
const LETTERS_PER_SLIP: usize = 3;

/// One recorded machine and what was seen of it.
#[derive(Debug)]
pub(crate) struct Machine {
    /// Its project.
    pub(crate) project: Name,
    /// Its record.
    pub(crate) record: Record,
    /// The provider's data, once the machine is prepared; brought up to date if the machine was seen.
    pub(crate) handle: Option<VmHandle>,
    /// What was seen; absent without a handle.
    pub(crate) sight: Option<Sight>,
}

/// Looks at all machines of a project at once. A project without a state has none.
pub(crate) fn all(ctx: &Context, project: &Name) -> Result<Vec<Machine>, CliError> {
    let Some(snapshot) = project::read(&ctx.project_dir(project)?)? else { return Ok(Vec::new()) };
    look(ctx, project, snapshot)
}

/// Looks at the machine that `wanted` names, as `web`, `vm.web` or `project/web`; without a name, at the
/// project's machine if there is exactly one.
pub(crate) fn one(ctx: &Context, wanted: Option<&str>) -> Result<Machine, CliError> {
    let (project, mut snapshot) = recorded(ctx, wanted)?;
    let address = match wanted {
        Some(wanted) => find(&snapshot, wanted.rsplit_once('/').map_or(wanted, |(_, name)| name))?,
        None => single(&project, &snapshot)?,
    };
    snapshot.records.retain(|known, _| *known == address);
    look(ctx, &project, snapshot)?
        .pop()
        .ok_or_else(|| CliError::new(format!("`{address}` is recorded no longer")))
}

/// The address and folder of the machine that `wanted` names, without looking at it.
pub(crate) fn work_dir(ctx: &Context, wanted: &str) -> Result<(Address, PathBuf), CliError> {
    let (project, snapshot) = recorded(ctx, Some(wanted))?;
    let address = find(&snapshot, wanted.rsplit_once('/').map_or(wanted, |(_, name)| name))?;
    let folder = ctx.project_dir(&project)?.vms().join(address.name());
    Ok((address, folder))
}

/// The only machine of a project.
fn single(project: &Name, snapshot: &Snapshot) -> Result<Address, CliError> {
    let names = names(snapshot);
    match names.as_slice() {
        [name] => Ok(Address::vm(name)),
        _ => Err(CliError::new(format!("project `{project}` has {} VMs, so one must be named", names.len()))
            .help(format!("name one of: {}", names.join(", ")))),
    }
}

/// The state of the project that `wanted` is in.
fn recorded(ctx: &Context, wanted: Option<&str>) -> Result<(Name, Snapshot), CliError> {
    let project = match wanted.and_then(|wanted| wanted.split_once('/')) {
        Some((project, _)) => Some(
            project
                .parse::<Name>()
                .map_err(|error| CliError::new(format!("`{project}` is no project name")).because(&error))?,
        ),
        None => ctx.project()?,
    };
    let nothing =
        || "make machines with `vmctl apply`, or look for them with `vmctl list --all-projects`".to_owned();
    let Some(project) = project else {
        return Err(
            CliError::new("there are no VMs: no VMFile.kdl was found and no project exists").help(nothing())
        );
    };
    match project::read(&ctx.project_dir(&project)?)? {
        Some(snapshot) if !names(&snapshot).is_empty() => Ok((project, snapshot)),
        _ => Err(CliError::new(format!("project `{project}` has no VMs")).help(nothing())),
    }
}

/// Names of all recorded machines, sorted.
fn names(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.records.keys().filter(|address| is_vm(address)).map(Address::name).collect()
}

fn is_vm(address: &Address) -> bool {
    *address == Address::vm(address.name())
}

/// The address that `wanted` stands for.
fn find(snapshot: &Snapshot, wanted: &str) -> Result<Address, CliError> {
    let bare = wanted.strip_prefix("vm.").unwrap_or(wanted);
    for name in [wanted, bare] {
        let address = Address::vm(name);
        if snapshot.records.contains_key(&address) {
            return Ok(address);
        }
    }
    let names = names(snapshot);
    let alike = closest(bare, &names).map(|name| format!("did you mean `{name}`? ")).unwrap_or_default();
    Err(CliError::new(format!("no VM is called `{wanted}`"))
        .help(format!("{alike}there are: {}", names.join(", "))))
}

/// The name that `wanted` is most likely a misspelling of: at most one slip for each three letters.
fn closest<'a>(wanted: &str, names: &[&'a str]) -> Option<&'a str> {
    let limit = (wanted.chars().count() / LETTERS_PER_SLIP).max(1);
    names
        .iter()
        .map(|name| (strsim::damerau_levenshtein(wanted, name), *name))
        .filter(|(slips, _)| *slips <= limit)
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, name)| name)
}

/// Asks the providers about every machine in `snapshot`.
fn look(ctx: &Context, project: &Name, snapshot: Snapshot) -> Result<Vec<Machine>, CliError> {
    let hypervisor = ctx.hypervisor(&ctx.project_dir(project)?)?;
    let mut seen = small_runtime()?
        .block_on(observed::refresh(&hypervisor, &snapshot))
        .map_err(|error| CliError::of(&error))?;
    let records = snapshot.records.into_iter().filter(|(address, _)| is_vm(address));
    records
        .map(|(address, record)| {
            let sight = seen.vms.remove(&address);
            let handle = match &sight {
                Some(Sight::Seen(inspection)) => Some(inspection.handle.clone()),
                Some(Sight::Unreachable { .. }) | None => {
                    handle_of(&record).map_err(|error| CliError::of(&error))?
                }
            };
            Ok(Machine { project: project.clone(), record, handle, sight })
        })
        .collect()
}

impl Machine {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.record.address.name()
    }

    /// What was found, if it could be asked.
    fn inspection(&self) -> Option<&Inspection> {
        match &self.sight {
            Some(Sight::Seen(inspection)) => Some(inspection),
            Some(Sight::Unreachable { .. }) | None => None,
        }
    }

    /// What it does now, in a word; the recorded phase if it is not made yet.
    pub(crate) fn state(&self) -> &'static str {
        match &self.sight {
            Some(Sight::Seen(inspection)) => inspection.state.as_str(),
            Some(Sight::Unreachable { .. }) => "unreachable",
            None => phase_word(self.record.phase),
        }
    }

    /// The state, with what people should know about it.
    pub(crate) fn state_and_remarks(&self) -> String {
        let mut remarks = Vec::new();
        let phase = self.record.phase;
        if self.inspection().is_some_and(|found| !agrees(phase, found.state)) {
            remarks.push(format!("recorded as {}", phase_word(phase)));
        }
        if self.record.taint.is_some() {
            remarks.push("tainted".to_owned());
        }
        if self.inspection().is_some_and(|found| !found.missing.is_empty() || !found.problems.is_empty()) {
            remarks.push("damaged".to_owned());
        }
        if remarks.is_empty() {
            self.state().to_owned()
        } else {
            format!("{} ({})", self.state(), remarks.join(", "))
        }
    }

    /// The handle of a machine whose process lives; an error that says what to do otherwise.
    pub(crate) fn live(&self) -> Result<&VmHandle, CliError> {
        let address = &self.record.address;
        let failed = match (&self.sight, &self.handle) {
            (Some(Sight::Seen(found)), Some(handle)) if is_live(found.state) => return Ok(handle),
            (Some(Sight::Unreachable { reason }), _) => {
                CliError::new(format!("`{address}` cannot be asked")).because(&Reason(reason.clone()))
            }
            _ => CliError::new(format!("`{address}` is not running, it is {}", self.state())).help(
                "`vmctl plan` shows what is to be done, `vmctl apply` starts what should run".to_owned(),
            ),
        };
        Err(failed)
    }

    /// Everything known, in the form in which it is shown.
    pub(crate) fn facts(&self) -> Facts {
        let found = self.inspection();
        let handle = self.handle.as_ref();
        let files = handle.map(|handle| WorkDir::new(&handle.work_dir));
        let runtime =
            found.filter(|found| is_live(found.state)).and_then(|found| found.handle.runtime.as_ref());
        let target = runtime.and(handle).and_then(reachable);
        Facts {
            name: self.name().to_owned(),
            address: self.record.address.to_string(),
            project: self.project.to_string(),
            id: self.record.instance.to_string(),
            backend: self.record.backend.clone(),
            state: self.state(),
            recorded: phase_word(self.record.phase),
            unreachable: match &self.sight {
                Some(Sight::Unreachable { reason }) => Some(reason.clone()),
                Some(Sight::Seen(_)) | None => None,
            },
            tainted: self.record.taint.clone(),
            ready: self.record.ready && runtime.is_some(),
            vcpus: handle.map(|handle| handle.machine.vcpus),
            memory_mib: handle.map(|handle| handle.machine.memory_mib),
            disk_bytes: handle
                .map(|handle| handle.machine.disk_bytes.unwrap_or(handle.machine.image.virtual_size)),
            image: handle.map(|handle| handle.machine.image.clone()),
            networks: handle.map(|handle| handle.machine.nics.clone()).unwrap_or_default(),
            forwards: runtime.map(|runtime| runtime.forwards.clone()).unwrap_or_default(),
            work_dir: files.as_ref().map(|files| files.path().to_owned()),
            overlay: files.as_ref().map(WorkDir::overlay),
            seed: files.as_ref().filter(|_| handle.is_some_and(|handle| handle.seed)).map(WorkDir::seed),
            // The fake backend has no process.
            pid: runtime.map(|runtime| runtime.pid).filter(|pid| *pid != 0),
            accel: runtime.map(|runtime| runtime.accel.clone()),
            vnc: runtime.and_then(|runtime| runtime.vnc.clone()),
            ssh: target.map(|target| SshFacts {
                command: process::quote("ssh", &arguments(&target, &[])),
                user: target.user,
                address: target.address.ip(),
                port: target.address.port(),
                private_key: target.private_key,
            }),
            provisioned: self
                .record
                .provisioned
                .iter()
                .zip(1..)
                .map(|(step, number)| StepFacts { step: number, digest: step.digest.clone(), at: step.at })
                .collect(),
            forced_stop: handle.and_then(|handle| handle.forced_stop.clone()),
            missing: found.map(|found| found.missing.clone()).unwrap_or_default(),
            problems: found.map(|found| found.problems.clone()).unwrap_or_default(),
            created: self.record.created,
            updated: self.record.updated,
        }
    }
}

/// Everything known about one machine: an element of `list --json`, and `vm` of `status --json`.
///
/// Names and meanings are a promise to scripts; fields may be added.
#[derive(Debug, Serialize)]
pub(crate) struct Facts {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) project: String,
    pub(crate) id: String,
    pub(crate) backend: String,
    pub(crate) state: &'static str,
    pub(crate) recorded: &'static str,
    pub(crate) unreachable: Option<String>,
    pub(crate) tainted: Option<String>,
    pub(crate) ready: bool,
    pub(crate) vcpus: Option<u16>,
    pub(crate) memory_mib: Option<u64>,
    pub(crate) disk_bytes: Option<u64>,
    pub(crate) image: Option<DiskImage>,
    pub(crate) networks: Vec<Nic>,
    pub(crate) forwards: Vec<Forward>,
    pub(crate) work_dir: Option<PathBuf>,
    pub(crate) overlay: Option<PathBuf>,
    pub(crate) seed: Option<PathBuf>,
    pub(crate) pid: Option<u32>,
    pub(crate) accel: Option<String>,
    pub(crate) vnc: Option<String>,
    pub(crate) ssh: Option<SshFacts>,
    pub(crate) provisioned: Vec<StepFacts>,
    pub(crate) forced_stop: Option<String>,
    pub(crate) missing: Vec<PathBuf>,
    pub(crate) problems: Vec<String>,
    pub(crate) created: Timestamp,
    pub(crate) updated: Timestamp,
}

/// How to log in to a running machine.
#[derive(Debug, Serialize)]
pub(crate) struct SshFacts {
    pub(crate) user: String,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) private_key: PathBuf,
    pub(crate) command: String,
}

/// A provisioning step that ran to its end.
#[derive(Debug, Serialize)]
pub(crate) struct StepFacts {
    pub(crate) step: usize,
    pub(crate) digest: String,
    pub(crate) at: Timestamp,
}

/// How to log in; `None` without ssh settings, or if no port of this host leads to the guest.
pub(crate) fn reachable(handle: &VmHandle) -> Option<SshTarget> {
    SshTarget::of(handle).filter(|target| target.address.port() != 0)
}

/// Whether a process stands behind the state.
fn is_live(state: VmState) -> bool {
    match state {
        VmState::Running | VmState::Suspended => true,
        VmState::Preparing | VmState::Prepared | VmState::Stopped | VmState::Failed | VmState::Destroyed => {
            false
        }
    }
}

/// Whether what was seen is what the record leads to expect.
fn agrees(phase: Phase, state: VmState) -> bool {
    match phase {
        Phase::Running => state == VmState::Running,
        Phase::Suspended => state == VmState::Suspended,
        // A machine that is off looks the same before its first start and after a stop.
        Phase::Prepared | Phase::Stopped => matches!(state, VmState::Prepared | VmState::Stopped),
        // In between, anything may be seen.
        Phase::Preparing | Phase::Destroying => true,
    }
}

/// A phase in a word, the same as the state it leads to.
fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Preparing => "preparing",
        Phase::Prepared => "prepared",
        Phase::Running => "running",
        Phase::Suspended => "suspended",
        Phase::Stopped => "stopped",
        Phase::Destroying => "destroying",
    }
}

/// A reason that is known as text only.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Reason(String);

#[cfg(test)]
pub(crate) mod samples {
    //! Machines as they may be recorded and seen.

    use serde_json::Value;
    use uuid::Uuid;
    use vmctl_providers::{
        BackendTag, Digest, ImageFormat, InstanceId, MacAddr, Machine as Hardware, NetworkConfig, Runtime,
        SshConfig,
    };
    use vmctl_state::ProvisionRecord;

    use super::*;

    /// The handle of a machine that runs.
    pub(crate) fn handle(name: &str) -> VmHandle {
        let image = DiskImage {
            path: "/data/images/base.qcow2".into(),
            format: ImageFormat::Qcow2,
            digest: Digest::of(b"base"),
            virtual_size: 1 << 30,
        };
        let nic = Nic {
            mac: MacAddr([0x52, 0x54, 0, 0xab, 0xcd, 1]),
            network: NetworkConfig::User,
            forwards: vec![Forward::SSH],
        };
        VmHandle {
            id: InstanceId(Uuid::from_u128(0x1234)),
            project: "shop".parse().unwrap(),
            name: name.parse().unwrap(),
            backend: BackendTag::Qemu,
            work_dir: PathBuf::from("/data/projects/shop/vms").join(name),
            machine: Hardware { vcpus: 2, memory_mib: 2048, disk_bytes: None, image, nics: vec![nic] },
            seed: true,
            ssh: Some(SshConfig { user: "vm".to_owned(), private_key: None }),
            state: VmState::Running,
            runtime: Some(Runtime {
                pid: 4711,
                accel: "kvm".to_owned(),
                vnc: Some("unix:/run/vmctl/0/vnc.sock".to_owned()),
                forwards: vec![Forward { host_port: 40022, ..Forward::SSH }],
            }),
            forced_stop: None,
        }
    }

    /// A machine recorded as running and seen in `state`.
    pub(crate) fn machine(name: &str, state: VmState) -> Machine {
        let handle = handle(name);
        let at = Timestamp::UNIX_EPOCH;
        let record = Record {
            address: Address::vm(name),
            instance: handle.id.0,
            backend: "qemu".to_owned(),
            spec: Value::Null,
            handle: Some(serde_json::to_value(&handle).unwrap()),
            phase: Phase::Running,
            ready: true,
            taint: None,
            provisioned: vec![ProvisionRecord { digest: "sha256:00".to_owned(), at }],
            created: at,
            updated: at,
        };
        let inspection = Inspection {
            state,
            handle: handle.clone(),
            vcpus: None,
            memory_mib: None,
            missing: Vec::new(),
            problems: Vec::new(),
        };
        Machine {
            project: "shop".parse().unwrap(),
            record,
            handle: Some(handle),
            sight: Some(Sight::Seen(Box::new(inspection))),
        }
    }

    /// A machine that does not answer.
    pub(crate) fn unreachable(name: &str) -> Machine {
        let reason = "no answer within 5s".to_owned();
        Machine { sight: Some(Sight::Unreachable { reason }), ..machine(name, VmState::Running) }
    }

    /// A machine whose making was cut short.
    pub(crate) fn half_made(name: &str) -> Machine {
        let mut machine = Machine { handle: None, sight: None, ..machine(name, VmState::Running) };
        machine.record.phase = Phase::Preparing;
        machine.record.taint = Some("the step `prepare` was cut short".to_owned());
        machine.record.provisioned.clear();
        machine
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn snapshot(names: &[&str]) -> Snapshot {
        let mut snapshot = Snapshot::empty(Uuid::nil(), Timestamp::UNIX_EPOCH);
        for name in names {
            let record = samples::machine(name, VmState::Running).record;
            snapshot.records.insert(record.address.clone(), record);
        }
        snapshot
    }

    #[test]
    fn machine_is_found_by_name_and_by_address() {
        let snapshot = snapshot(&["web", "vm.odd"]);
        for (wanted, found) in [("web", "web"), ("vm.web", "web"), ("vm.odd", "vm.odd")] {
            assert_eq!(find(&snapshot, wanted).unwrap(), Address::vm(found));
        }
    }

    #[test]
    fn unknown_name_is_answered_with_the_nearest_and_all() {
        let error = find(&snapshot(&["database", "web-1", "web-2"]), "databse").unwrap_err();
        insta::assert_snapshot!(anstream::adapter::strip_str(&error.to_string()), @r"
        error: no VM is called `databse`
          help: did you mean `database`? there are: database, web-1, web-2
        ");
        let error = find(&snapshot(&["db"]), "frontend").unwrap_err();
        assert!(!error.to_string().contains("did you mean"));
    }

    #[test]
    fn only_machine_needs_no_name() {
        let project = "shop".parse().unwrap();
        assert_eq!(single(&project, &snapshot(&["web"])).unwrap(), Address::vm("web"));
        assert!(single(&project, &snapshot(&["db", "web"])).is_err());
    }

    #[test]
    fn crashed_machine_is_told_apart_and_shows_no_process() {
        let machine = samples::machine("web", VmState::Stopped);
        assert_eq!(machine.state_and_remarks(), "stopped (recorded as running)");
        let facts = machine.facts();
        assert_eq!((facts.pid, facts.vnc, facts.ssh.is_some(), facts.ready), (None, None, false, false));
        assert!(machine.live().is_err());
    }

    #[test]
    fn unreachable_is_never_taken_for_stopped() {
        let machine = samples::unreachable("web");
        assert_eq!(machine.state_and_remarks(), "unreachable");
        let error = machine.live().unwrap_err();
        insta::assert_snapshot!(anstream::adapter::strip_str(&error.to_string()), @r"
        error: `vm.web` cannot be asked
          caused by: no answer within 5s
        ");
    }
}

//! Recorded machines and what was seen of them; choosing one by name.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use vmctl_planner::observed::{self, Sight};
use vmctl_planner::recorded::{handle_of, unknown_step};
use vmctl_providers::workdir::among;
use vmctl_providers::{
    BackendTag, ConsoleHistory, Inspection, Name, RouterHypervisor, Stall, VmHandle, VmState,
};
use vmctl_state::{Address, Interrupted, Phase, Record, Snapshot, project};

use crate::context::{Context, default_project, large_runtime, small_runtime};
use crate::error::CliError;
use crate::own;

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
    pub(crate) handle: Option<Arc<VmHandle>>,
    /// What was seen; absent without a handle.
    pub(crate) sight: Option<Sight>,
    /// The provisioning step that was cut off.
    pub(crate) interrupted: Option<Interrupted>,
}

/// Looks at all machines of a project at once. A project without a state has none.
pub(crate) fn all(ctx: &Context, project: &Name) -> Result<Vec<Machine>, CliError> {
    large_runtime()?.block_on(all_now(ctx, project))
}

/// The same, for who waits for other things as well.
pub(crate) async fn all_now(ctx: &Context, project: &Name) -> Result<Vec<Machine>, CliError> {
    let Some(snapshot) = project::read(&ctx.project_dir(project)?)? else { return Ok(Vec::new()) };
    look(ctx, project, snapshot).await
}

/// Looks at the machine that `wanted` names, as `web`, `vm.web` or `project/web`; without a name, at the
/// project's machine if there is exactly one.
pub(crate) fn one(ctx: &Context, wanted: Option<&str>) -> Result<Machine, CliError> {
    small_runtime()?.block_on(one_now(ctx, wanted))
}

/// The same, for who waits for other things as well.
pub(crate) async fn one_now(ctx: &Context, wanted: Option<&str>) -> Result<Machine, CliError> {
    let (project, mut snapshot) = recorded(ctx, wanted)?;
    let address = match wanted {
        Some(wanted) => place(ctx, &project, &snapshot, wanted)?,
        None => single(&project, &snapshot)?,
    };
    snapshot.records.retain(|known, _| *known == address);
    look(ctx, &project, snapshot)
        .await?
        .pop()
        .ok_or_else(|| CliError::new(format!("`{address}` is recorded no longer")))
}

/// The address and folder of the machine that `wanted` names, without looking at it.
pub(crate) fn work_dir(ctx: &Context, wanted: &str) -> Result<(Address, PathBuf), CliError> {
    let (project, snapshot) = recorded(ctx, Some(wanted))?;
    let address = place(ctx, &project, &snapshot, wanted)?;
    let handle = handle_of(&snapshot.records[&address]).map_err(|error| CliError::of(&error))?;
    let folder = match handle {
        Some(handle) => among(&ctx.project_dir(&project)?.vms(), &handle.work_dir),
        None => ctx.project_dir(&project)?.vms().join(address.name()),
    };
    Ok((address, folder))
}

/// The names of all machines of the project.
pub(crate) fn all_names(ctx: &Context) -> Result<Vec<String>, CliError> {
    let (_, snapshot) = recorded(ctx, None)?;
    Ok(names(&snapshot).into_iter().map(str::to_owned).collect())
}

/// The machine that `wanted` names with its backend, if its console's log is not written by its hypervisor.
pub(crate) fn to_fetch(ctx: &Context, wanted: &str) -> Result<Option<Fetched>, CliError> {
    let (project, snapshot) = recorded(ctx, Some(wanted))?;
    let address = find(&snapshot, wanted.rsplit_once('/').map_or(wanted, |(_, name)| name))?;
    let handle = handle_of(&snapshot.records[&address]).map_err(|error| CliError::of(&error))?;
    let Some(handle) = handle.filter(|handle| handle.backend == BackendTag::Propolis) else {
        return Ok(None);
    };
    Ok(Some(Fetched { host: ctx.hypervisor(&ctx.project_dir(&project)?)?, handle }))
}

/// A machine whose console's log is fetched.
#[derive(Debug)]
pub(crate) struct Fetched {
    host: RouterHypervisor,
    handle: Arc<VmHandle>,
}

impl Fetched {
    /// Brings the log up to what the guest has printed.
    pub(crate) async fn fetch(&self) -> Result<(), CliError> {
        Ok(Box::pin(self.host.fetch_console(&self.handle)).await?)
    }
}

/// The project and address of the machine that `wanted` names, without looking at it, for who only reads.
pub(crate) fn found(ctx: &Context, wanted: &str) -> Result<(Name, Address), CliError> {
    let (project, snapshot) = recorded(ctx, Some(wanted))?;
    let address = place(ctx, &project, &snapshot, wanted)?;
    Ok((project, address))
}

/// The project and address of the machine that `wanted` names, without looking at it, for who changes its record: a
/// copy of the VMFile that it does not belong to has no say in that.
pub(crate) fn named(ctx: &Context, wanted: &str) -> Result<(Name, Address), CliError> {
    let (project, snapshot) = recorded(ctx, Some(wanted))?;
    if !wanted.contains('/') {
        ctx.refuse_other_copy(&project, ctx.remembered_vmfile().as_deref(), &snapshot)?;
    }
    let address = place(ctx, &project, &snapshot, wanted)?;
    Ok((project, address))
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
        _ => Err(CliError::new(format!("project `{project}` has no VMs")).help(
            wanted.and_then(|wanted| made_by_command(ctx, &project, bare(wanted))).unwrap_or_else(nothing),
        )),
    }
}

/// Names of all recorded machines, sorted.
fn names(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.records.keys().filter(|address| is_vm(address)).map(Address::name).collect()
}

fn is_vm(address: &Address) -> bool {
    *address == Address::vm(address.name())
}

/// The address of the machine that `wanted`, with its project or without, names in `snapshot`.
fn place(ctx: &Context, project: &Name, snapshot: &Snapshot, wanted: &str) -> Result<Address, CliError> {
    let name = wanted.rsplit_once('/').map_or(wanted, |(_, name)| name);
    find(snapshot, name).map_err(|error| error.help(made_by_command(ctx, project, bare(name))))
}

/// The name alone, as it stands behind a project and `vm.`.
fn bare(wanted: &str) -> &str {
    let name = wanted.rsplit_once('/').map_or(wanted, |(_, name)| name);
    name.strip_prefix("vm.").unwrap_or(name)
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
    Err(CliError::new(format!("no VM is called `{wanted}`")).help(suggestion(bare, &names(snapshot))))
}

/// Says that a machine that `project` does not have is one that was made by command, if it is.
pub(crate) fn made_by_command(ctx: &Context, project: &Name, wanted: &str) -> Option<String> {
    let default = default_project();
    if *project == default {
        let unmade = own::unmade(ctx, project, &BTreeSet::new()).ok()?;
        return unmade
            .iter()
            .any(|name| name == wanted)
            .then(|| format!("`{wanted}` is described and was not made yet: `vmctl apply` makes it"));
    }
    let snapshot = project::read(&ctx.project_dir(&default).ok()?).ok()??;
    let is_there = snapshot.records.contains_key(&Address::vm(wanted));
    is_there.then(|| {
        format!("a machine that was made by `vmctl create` is called so: write `{default}/{wanted}`")
    })
}

/// Which of `names` was probably meant, and all of them.
pub(crate) fn suggestion(wanted: &str, names: &[&str]) -> String {
    let alike = closest(wanted, names).map(|name| format!("did you mean `{name}`? ")).unwrap_or_default();
    if names.is_empty() {
        "there are no machines".to_owned()
    } else {
        format!("{alike}there are: {}", names.join(", "))
    }
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

/// Looks at every machine in `snapshot`.
async fn look(ctx: &Context, project: &Name, mut snapshot: Snapshot) -> Result<Vec<Machine>, CliError> {
    let dir = ctx.project_dir(project)?;
    let hypervisor = Arc::new(ctx.hypervisor(&dir)?);
    if project::at_work(&dir)?.is_some() {
        // What is begun there is under way.
        snapshot.open.clear();
    }
    seen(&hypervisor, project, snapshot).await
}

/// Asks `host` about every machine in `snapshot`, which is of `project`.
pub(crate) async fn seen(
    host: &Arc<RouterHypervisor>,
    project: &Name,
    snapshot: Snapshot,
) -> Result<Vec<Machine>, CliError> {
    let mut seen = observed::refresh(host, &snapshot).await.map_err(|error| CliError::of(&error))?;
    let open = snapshot.open;
    let records = snapshot.records.into_iter().filter(|(address, _)| is_vm(address));
    records
        .map(|(address, record)| {
            let sight = seen.vms.remove(&address);
            let handle = match &sight {
                Some(Sight::Seen(inspection)) => Some(Arc::clone(&inspection.handle)),
                Some(Sight::Unreachable { .. }) | None => {
                    handle_of(&record).map_err(|error| CliError::of(&error))?
                }
            };
            let interrupted = unknown_step(&record, &open);
            Ok(Machine { project: project.clone(), record, handle, sight, interrupted })
        })
        .collect()
}

impl Machine {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.record.address.name()
    }

    /// What was found, if it could be asked.
    pub(crate) fn inspection(&self) -> Option<&Inspection> {
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
        let stall = self.inspection().and_then(|found| found.stall.as_ref());
        if let Some(stall) = stall {
            remarks.push(stall.to_string());
        } else if self.inspection().is_some_and(|found| !agrees(phase, found.state)) {
            remarks.push(format!("recorded as {}", phase_word(phase)));
        }
        let awaits_login =
            self.handle.as_ref().is_some_and(|handle| handle.ssh.is_some()) && !self.record.ready;
        if awaits_login && self.state() == "running" {
            remarks.push("not ready".to_owned());
        }
        if self.record.taint.is_some() {
            remarks.push("tainted".to_owned());
        }
        if let Some(step) = &self.interrupted {
            remarks.push(format!("provisioning interrupted at step {}", step.number));
        } else if let Some(step) = &self.record.provision_failed {
            remarks.push(format!("provisioning failed at step {}", step.number));
        }
        if self.inspection().is_some_and(|found| !found.damage.is_empty()) {
            remarks.push("damaged".to_owned());
        }
        if remarks.is_empty() {
            self.state().to_owned()
        } else {
            format!("{} ({})", self.state(), remarks.join(", "))
        }
    }

    /// The handle of a machine whose process lives; an error that says what to do otherwise.
    ///
    /// A machine that cannot be asked, because somebody else holds its monitor, is taken to be as recorded: whoever
    /// wants to reach the guest will notice if it is not.
    pub(crate) fn live(&self) -> Result<&VmHandle, CliError> {
        let address = &self.record.address;
        if let Some(stall) = self.inspection().and_then(|found| found.stall.as_ref()) {
            let (Stall::DiskFull { path, .. } | Stall::DiskFailed { path }) = stall;
            return Err(CliError::new(format!("`{address}` is {stall}, so nothing in it answers")).help(format!(
                "make room for `{}`, or mend what it is on; then `vmctl apply` lets it go on where it was",
                path.display()
            )));
        }
        Err(match (&self.sight, &self.handle) {
            (Some(Sight::Seen(found)), _) if found.state == VmState::Suspended => {
                CliError::new(format!("`{address}` is suspended, so nothing in it answers"))
                    .help("write `state \"running\"` in the VMFile and apply; that resumes it".to_owned())
            }
            (Some(Sight::Seen(found)), Some(handle)) if is_live(found.state) => return Ok(handle),
            (Some(Sight::Unreachable { elsewhere: false, .. }), Some(handle)) if handle.runtime.is_some() => {
                return Ok(handle);
            }
            (Some(Sight::Unreachable { reason, .. }), _) => {
                CliError::new(format!("`{address}` cannot be asked")).because(&Reason(reason.clone()))
            }
            _ => CliError::new(format!("`{address}` is not running, it is {}", self.state())).help(
                "`vmctl plan` shows what is to be done, `vmctl apply` starts what should run".to_owned(),
            ),
        })
    }
}

/// Whether a process stands behind the state.
pub(crate) fn is_live(state: VmState) -> bool {
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
pub(crate) fn phase_word(phase: Phase) -> &'static str {
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

    use jiff::Timestamp;
    use serde_json::Value;
    use uuid::Uuid;
    use vmctl_providers::{
        BackendTag, Digest, DiskImage, Forward, ImageFormat, InstanceId, MacAddr, Machine as Hardware,
        NetworkConfig, Nic, Runtime, SshConfig,
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
            machine: Hardware {
                vcpus: 2,
                memory_mib: 2048,
                disk_bytes: None,
                image: Some(image),
                hardware: Default::default(),
                nics: vec![nic],
                volumes: Vec::new(),
                shares: Vec::new(),
                media: Vec::new(),
            },
            seed: true,
            ssh: Some(SshConfig { user: "vm".to_owned(), private_key: None }),
            uefi: None,
            warm: None,
            state: VmState::Running,
            runtime: Some(Runtime {
                pid: 4711,
                accel: "kvm".to_owned(),
                vnc: Some("unix:/run/vmctl/0/vnc.sock".to_owned()),
                forwards: vec![Forward { host_port: 40022, ..Forward::SSH }],
                address: None,
                boot: None,
                host: None,
            }),
            forced_stop: None,
        }
    }

    /// A machine recorded as running and seen in `state`.
    pub(crate) fn machine(name: &str, state: VmState) -> Machine {
        let handle = Arc::new(handle(name));
        let at = Timestamp::UNIX_EPOCH;
        let record = Record {
            address: Address::vm(name),
            instance: handle.id.0,
            backend: "qemu".to_owned(),
            spec: Value::Null.into(),
            handle: Some(serde_json::to_value(&*handle).unwrap().into()),
            phase: Phase::Running,
            ready: true,
            taint: None,
            provisioned: vec![ProvisionRecord { digest: "sha256:00".to_owned(), at }],
            ran_once: Vec::new(),
            interrupted: None,
            provision_failed: None,
            created: at,
            updated: at,
        };
        let inspection = Inspection {
            state,
            handle: Arc::clone(&handle),
            vcpus: None,
            memory_mib: None,
            forwards: None,
            ending: None,
            damage: Vec::new(),
            stall: None,
        };
        Machine {
            project: "shop".parse().unwrap(),
            record,
            handle: Some(handle),
            sight: Some(Sight::Seen(Box::new(inspection))),
            interrupted: None,
        }
    }

    /// A machine that does not answer.
    pub(crate) fn unreachable(name: &str) -> Machine {
        let reason = "no answer within 5s".to_owned();
        Machine {
            sight: Some(Sight::Unreachable { reason, elsewhere: false }),
            ..machine(name, VmState::Running)
        }
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
    use jiff::Timestamp;
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
        let mut machine = samples::unreachable("web");
        assert_eq!(machine.state_and_remarks(), "unreachable");
        assert!(machine.live().is_ok());
        Arc::make_mut(machine.handle.as_mut().unwrap()).runtime = None;
        let error = machine.live().unwrap_err();
        insta::assert_snapshot!(anstream::adapter::strip_str(&error.to_string()), @r"
        error: `vm.web` cannot be asked
          caused by: no answer within 5s
        ");
    }
}

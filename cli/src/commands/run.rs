//! `run`: machines for as long as one command, which are removed whatever happens.
//!
//! They belong to a project of their own, so that any number of runs of one VMFile can go on side by side. While it lasts,
//! this process holds the lock on the project's mark; where that lock is free, its run was killed, and the next one
//! removes what it left.
//!
//! ```text
//! sweep ─▶ project with a mark ─▶ up ─▶ the command ─▶ destroy ─▶ nothing is left
//!                                 └─ failed ────────────▲
//! ```

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::num::NonZeroUsize;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;
use vmctl_planner::{Mode, Options, Values};
use vmctl_providers::process::Foreground;
use vmctl_providers::{MAX_NAME, Name, Protocol, VmHandle};
use vmctl_state::project::Temporary;

use super::apply::{self, Asks, Order, look_of};
use super::exec::{self, OUT_OF_TIME, Tty};
use super::plan::Goal;
use crate::args::{CarryingArgs, LockArgs, PlanningArgs, RecordsArgs, RunArgs};
use crate::context::{Context, small_runtime};
use crate::error::{CliError, Exit};
use crate::machines;
use crate::reach::reachable;
use crate::terminal::Signals;
use crate::{outputs, ui};

/// What ends a command that was asked to end and does not.
const GRACE: Duration = Duration::from_secs(10);

/// Runs the command.
pub(crate) fn run(ctx: &Context, args: &RunArgs) -> Result<Exit, CliError> {
    ctx.written_vmfile()?;
    sweep(ctx, args)?;
    let project = fresh(ctx)?;
    let temporary = Temporary::begin(&ctx.project_dir(&project)?)?;
    let own = ctx.of_project(project.clone());
    let used = use_it(&own, args);
    if args.keep {
        temporary.keep()?;
        ctx.note(&format!(
            "Kept as project `{project}`: `vmctl list --project {project}` shows its machines, `vmctl destroy` and \
             `vmctl apply --destroy --volumes --project {project}` remove them."
        ));
        return used;
    }
    if let Err(error) = remove(&own, &project, temporary, args.parallelism) {
        error.print();
        ui::warn(&format!(
            "something is left of project `{project}`: the next `vmctl run` removes it, or now \
             `vmctl apply --destroy --volumes --project {project}`"
        ));
        return match used {
            Ok(Exit::Fine | Exit::Passed(0)) => Ok(Exit::Partial),
            used => used,
        };
    }
    used
}

/// Removes what runs left that were killed.
fn sweep(ctx: &Context, args: &RunArgs) -> Result<(), CliError> {
    for project in ctx.projects()? {
        if let Some(left) = Temporary::abandoned(&ctx.project_dir(&project)?)? {
            ctx.note(&format!("Removing `{project}`, which a run left that was killed."));
            if let Err(error) = remove(&ctx.of_project(project.clone()), &project, left, args.parallelism) {
                error.print();
                ui::warn(&format!("something is left of project `{project}`; this run goes on all the same"));
            }
        }
    }
    Ok(())
}

/// A name that no project has: that of the VMFile's project, and something random.
fn fresh(ctx: &Context) -> Result<Name, CliError> {
    let base = ctx.named_project()?.map(|name| name.to_string()).unwrap_or_default();
    let suffix = format!("-run-{}", &Uuid::new_v4().simple().to_string()[..8]);
    let base: String = base.chars().take(MAX_NAME - suffix.len()).collect();
    format!("{base}{suffix}")
        .parse()
        .map_err(|error| CliError::new("cannot name the project").because(&error))
}

/// Brings the machines up and runs the command.
fn use_it(ctx: &Context, args: &RunArgs) -> Result<Exit, CliError> {
    // Caught before anybody else catches them: one that comes when the machines are up and the command does not run yet is
    // heard by nobody but these.
    let runtime = small_runtime()?;
    let mut caught = {
        let _guard = runtime.enter();
        Signals::catch()?
    };
    let planning = PlanningArgs {
        target: args.target.clone(),
        locked: args.locked,
        overcommit: args.overcommit,
        ..PlanningArgs::default()
    };
    let mut goal = Goal::of(ctx, &planning)?;
    refuse_stranger(&goal, args)?;
    unprotect(&mut goal);
    let order = Order {
        look: look_of(&planning),
        locked: args.locked,
        shows_results: false,
        ..Order::new("run", goal, Asks::Nothing)
    };
    // Nobody uses machines of which some are missing.
    let exit = apply::carry_out(ctx, &carrying(args.parallelism, true, args.records.clone()), order)?;
    if exit != Exit::Fine {
        ui::warn("not all machines came up, so the command was not run");
        return Ok(exit);
    }
    if runtime.block_on(caught.came()) {
        ui::warn("you asked to stop, so the command was not run");
        return Ok(Exit::Interrupted);
    }
    match &args.on {
        Some(vm) => exec::carried(ctx, vm.as_str(), &args.command, Tty::Never, args.timeout, Some(caught)),
        None => on_host(ctx, args, &runtime, &mut caught),
    }
}

/// Refuses to make machines for a command that is to run on one that there will not be.
fn refuse_stranger(goal: &Goal, args: &RunArgs) -> Result<(), CliError> {
    let (Some(on), Some(desired)) = (&args.on, &goal.desired) else { return Ok(()) };
    if desired.vms.contains_key(on) {
        return Ok(());
    }
    let names: Vec<_> = desired.vms.keys().map(Name::as_str).collect();
    Err(CliError::new(format!("no VM is called `{on}`"))
        .help(machines::suggestion(on.as_str(), &names))
        .exit(Exit::Usage))
}

/// What must never be lost is not made for one command.
fn unprotect(goal: &mut Goal) {
    let Some(desired) = &mut goal.desired else { return };
    for vm in desired.vms.values_mut() {
        vm.lifecycle.prevent_destroy = false;
        vm.volumes.iter_mut().for_each(|volume| volume.prevent_destroy = false);
    }
    desired.volumes.values_mut().for_each(|volume| volume.prevent_destroy = false);
}

/// Removes the machines of a project with all their disks, then the project.
fn remove(
    ctx: &Context,
    project: &Name,
    temporary: Temporary,
    parallelism: NonZeroUsize,
) -> Result<(), CliError> {
    let dir = ctx.project_dir(project)?;
    if vmctl_state::project::read(&dir)?.is_some() {
        let goal = Goal {
            project: project.clone(),
            desired: None,
            warnings: Vec::new(),
            values: Values::default(),
            options: Options { mode: Mode::Destroy, volumes: true, ..Options::default() },
        };
        // All that a guest could still save is about to go.
        let stop_timeout = Some(Duration::ZERO);
        let order = Order { shows_results: false, stop_timeout, ..Order::new("run", goal, Asks::Nothing) };
        let exit = apply::carry_out(ctx, &carrying(parallelism, false, RecordsArgs::default()), order)?;
        if exit != Exit::Fine {
            return Err(CliError::new(format!("not all of project `{project}` was removed")));
        }
    }
    Ok(temporary.remove()?)
}

fn carrying(parallelism: NonZeroUsize, fail_fast: bool, records: RecordsArgs) -> CarryingArgs {
    CarryingArgs { lock: LockArgs::default(), parallelism, fail_fast, json: false, records }
}

/// Runs the command here, and waits for its end whatever happens.
fn on_host(ctx: &Context, args: &RunArgs, runtime: &Runtime, caught: &mut Signals) -> Result<Exit, CliError> {
    let project = ctx.named_project()?.ok_or_else(|| CliError::new("the project has no name"))?;
    let variables = variables(ctx, &project)?;
    let no_signals = |error: io::Error| CliError::new("cannot wait for signals").because(&error);
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(no_signals)?;
        // What names the machines takes a moment, too.
        if caught.came().await {
            ui::warn("you asked to stop, so the command was not run");
            return Ok(Exit::Interrupted);
        }
        let mut child = match Foreground::start(&args.command, variables) {
            Ok(child) => child,
            Err(error) => return Ok(not_run(&args.command[0], &error)),
        };
        let far = Instant::now() + args.timeout.unwrap_or(Duration::from_secs(u32::MAX.into()));
        let mut is_late = false;
        loop {
            tokio::select! {
                ended = child.ended() => {
                    let code = ended.map_err(|error| CliError::new("cannot wait for the command").because(&error))?;
                    return Ok(if is_late { OUT_OF_TIME } else { Exit::Passed(code) });
                }
                // A terminal tells the command by itself.
                _ = interrupt.recv() => {}
                _ = terminate.recv() => child.terminate(),
                _ = hangup.recv() => child.terminate(),
                () = sleep_until(far), if !is_late => {
                    ui::warn(&format!("`{}` did not end in time", args.command[0]));
                    is_late = true;
                    child.terminate();
                    tokio::select! {
                        _ = child.ended() => {}
                        () = sleep(GRACE) => child.kill(),
                    }
                }
            }
        }
    })
}

/// What a shell would say of a program that it cannot run.
fn not_run(program: &str, error: &io::Error) -> Exit {
    CliError::new(format!("cannot run `{program}`")).because(error).print();
    Exit::Passed(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
}

/// What the command finds in its environment: how to reach the machines, and which project vmctl is to work in.
fn variables(ctx: &Context, project: &Name) -> Result<BTreeMap<String, OsString>, CliError> {
    let mut variables = BTreeMap::new();
    variables.insert("VMCTL_PROJECT".to_owned(), project.as_str().into());
    variables.insert("VMCTL_DATA_DIR".to_owned(), ctx.settings.data_dir()?.into());
    let machines = machines::all(ctx, project)?;
    for machine in &machines {
        if machine.live().is_ok() {
            variables.extend(of_machine(machine.name(), &machine.in_reach(ctx)?));
        }
    }
    let desired = ctx.load()?.desired;
    for (name, output) in outputs::of(&desired, &machines) {
        if let Ok(text) = output.text {
            variables.insert(format!("VMCTL_OUTPUT_{}", word(name.as_str())), text.into());
        }
    }
    Ok(variables)
}

/// How to reach one machine.
fn of_machine(name: &str, handle: &VmHandle) -> BTreeMap<String, OsString> {
    let mut variables = BTreeMap::new();
    let mut set = |what: &str, value: OsString| {
        variables.insert(format!("VMCTL_VM_{}_{what}", word(name)), value);
    };
    if let Some(target) = reachable(handle) {
        set("SSH_HOST", target.address.ip().to_string().into());
        set("SSH_PORT", target.address.port().to_string().into());
        set("SSH_USER", target.user.into());
        set("SSH_KEY", target.private_key.into());
        set("SSH_KNOWN_HOSTS", target.known_hosts.into());
        set("SSH_HOST_ALIAS", target.host_alias.into());
    }
    if let Some(address) = handle.runtime.as_ref().and_then(|runtime| runtime.address) {
        set("ADDRESS", address.to_string().into());
    }
    for forward in handle.runtime.iter().flat_map(|runtime| &runtime.forwards) {
        let kind = match forward.protocol {
            Protocol::Tcp => "PORT",
            Protocol::Udp => "UDP_PORT",
        };
        set(&format!("{kind}_{}", forward.guest_port), forward.host_port.to_string().into());
    }
    variables
}

/// A name as it stands in a variable's: `web-1` is `WEB_1`.
fn word(name: &str) -> String {
    name.to_uppercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_")
}

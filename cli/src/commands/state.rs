//! `state`: changes what is remembered, without touching machines.

use vmctl_planner::recorded::handle_of;
use vmctl_providers::{Custody, Name, VmHandle};
use vmctl_state::{Address, Entry, Reserve, Store, Unlocked, unlock};

use super::rebuild;
use crate::args::{LockArgs, StateArgs, StateCommand, StateRmArgs, StateUnlockArgs};
use crate::context::{Context, small_runtime};
use crate::error::{CliError, Exit};
use crate::machines;

/// Runs the command.
pub(crate) fn run(ctx: &Context, args: &StateArgs) -> Result<Exit, CliError> {
    match &args.command {
        StateCommand::Rm(args) => rm(ctx, args),
        StateCommand::Unlock(args) => give_back(ctx, args),
        StateCommand::Provisioned(args) => super::provisioned::run(ctx, args),
        StateCommand::Rebuild(args) => rebuild::run(ctx, args),
    }
}

/// Forgets machines. All names are looked up before anything is forgotten.
fn rm(ctx: &Context, args: &StateRmArgs) -> Result<Exit, CliError> {
    let mut chosen: Vec<(Name, Address)> = Vec::new();
    for name in &args.names {
        let machine = machines::named(ctx, name)?;
        if !chosen.contains(&machine) {
            chosen.push(machine);
        }
    }
    for (project, address) in chosen {
        forget(ctx, &args.lock, &project, &address)?;
    }
    Ok(Exit::Fine)
}

/// The machine is marked before it is forgotten: what is cut off in between is still recorded.
fn forget(ctx: &Context, lock: &LockArgs, project: &Name, address: &Address) -> Result<(), CliError> {
    let dir = ctx.project_dir(project)?;
    let mut writer = ctx.writer(&dir, "state rm", lock, Reserve::Spend)?;
    let record = writer.snapshot()?.records.remove(address);
    let record = record.ok_or_else(|| CliError::new(format!("`{address}` is recorded no longer")))?;
    let handle = handle_of(&record).map_err(|error| CliError::of(&error))?;
    if let Some(handle) = &handle {
        small_runtime()?.block_on(ctx.hypervisor(&dir)?.release(handle))?;
    }
    writer.commit(&[Entry::Remove(address.clone())])?;
    writer.close()?;
    ctx.note(&format!("`{address}` is forgotten and goes on as it is.{}", places(handle.as_ref())));
    Ok(())
}

/// Clears what a dead writer left of its lock.
fn give_back(ctx: &Context, args: &StateUnlockArgs) -> Result<Exit, CliError> {
    let Some(project) = ctx.project()? else {
        ctx.note("Nothing is locked: no VMFile.kdl was found and no project exists.");
        return Ok(Exit::Fine);
    };
    ctx.note(&match unlock(&ctx.project_dir(&project)?, args.force)? {
        Unlocked::WasFree => format!("Project `{project}` is not locked."),
        Unlocked::Cleared(Some(holder)) => {
            format!("Project `{project}` is free: {holder} did not sign off, and what it committed is kept.")
        }
        Unlocked::Cleared(None) => {
            format!(
                "Project `{project}` is free: its holder did not sign off, and what it committed is kept."
            )
        }
    });
    Ok(Exit::Fine)
}

/// Where a forgotten machine is, for those who want to remove it by hand later.
fn places(handle: Option<&VmHandle>) -> String {
    let Some(handle) = handle else { return String::new() };
    let process = handle.runtime.as_ref().filter(|runtime| runtime.pid != 0);
    let process = process.map(|runtime| format!("its process was {}, ", runtime.pid)).unwrap_or_default();
    format!(" To remove it one day: {process}its folder is `{}`.", handle.work_dir.display())
}

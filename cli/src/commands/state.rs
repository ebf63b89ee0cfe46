//! `state`: changes what is remembered, without touching machines.

use std::time::Duration;

use vmctl_planner::recorded::handle_of;
use vmctl_providers::{Custody, Name, VmHandle};
use vmctl_state::{Address, Entry, Store, Writer};

use super::plan::lineage;
use crate::args::{StateArgs, StateCommand, StateRmArgs};
use crate::context::{Context, holder, small_runtime};
use crate::error::{CliError, Exit};
use crate::machines;

/// Runs the command.
pub(crate) fn run(ctx: &Context, args: &StateArgs) -> Result<Exit, CliError> {
    match &args.command {
        StateCommand::Rm(args) => rm(ctx, args),
        StateCommand::Provisioned(args) => super::provisioned::run(ctx, args),
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
        forget(ctx, &project, &address)?;
    }
    Ok(Exit::Fine)
}

/// The machine is marked before it is forgotten: what is cut off in between is still recorded.
fn forget(ctx: &Context, project: &Name, address: &Address) -> Result<(), CliError> {
    let dir = ctx.project_dir(project)?;
    let mut writer = Writer::open(&dir, holder("state rm"), lineage(&dir), Duration::ZERO)?;
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

/// Where a forgotten machine is, for those who want to remove it by hand later.
fn places(handle: Option<&VmHandle>) -> String {
    let Some(handle) = handle else { return String::new() };
    let process = handle.runtime.as_ref().filter(|runtime| runtime.pid != 0);
    let process = process.map(|runtime| format!("its process was {}, ", runtime.pid)).unwrap_or_default();
    format!(" To remove it one day: {process}its folder is `{}`.", handle.work_dir.display())
}

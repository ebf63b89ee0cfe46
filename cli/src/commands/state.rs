//! `state`: changes what is remembered, without touching machines.

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;
use vmctl_planner::apply::NotedAt;
use vmctl_planner::recorded::handle_of;
use vmctl_providers::{Custody, Name, VmHandle};
use vmctl_state::{Address, Entry, Record, Reserve, Snapshot, Store, Unlocked, project, unlock};

use super::{JSON_FORMAT, history, rebuild, show, transfer};
use crate::args::{
    LockArgs, StateArgs, StateCommand, StateMvArgs, StateRmArgs, StateShowArgs, StateUnlockArgs,
};
use crate::context::{Context, small_runtime};
use crate::error::{CliError, Exit};
use crate::own::Own;
use crate::{machines, ui};

/// Runs the command.
pub(crate) fn run(ctx: &Context, args: &StateArgs) -> Result<Exit, CliError> {
    match &args.command {
        StateCommand::List => list(ctx),
        StateCommand::Show(args) => show_one(ctx, args),
        StateCommand::History(args) => history::run(ctx, args),
        StateCommand::Mv(args) => mv(ctx, args),
        StateCommand::Rm(args) => rm(ctx, args),
        StateCommand::Export => transfer::export(ctx),
        StateCommand::Import(args) => transfer::import(ctx, args),
        StateCommand::Unlock(args) => give_back(ctx, args),
        StateCommand::Provisioned(args) => super::provisioned::run(ctx, args),
        StateCommand::Rebuild(args) => rebuild::run(ctx, args),
    }
}

/// Prints the address of everything that is recorded.
fn list(ctx: &Context) -> Result<Exit, CliError> {
    let state = match ctx.project()? {
        Some(project) => project::read(&ctx.project_dir(&project)?)?,
        None => None,
    };
    let records = state.map(|state| state.records).unwrap_or_default();
    ui::print(&records.keys().map(|address| format!("{address}\n")).collect::<String>())?;
    Ok(Exit::Fine)
}

/// One record as a program reads it. Its form inside is that of the state.
#[derive(Serialize)]
struct Shown<'a> {
    format: u32,
    project: &'a Name,
    lineage: Uuid,
    serial: u64,
    record: &'a Record,
}

/// Shows one record.
fn show_one(ctx: &Context, args: &StateShowArgs) -> Result<Exit, CliError> {
    let (project, address) = machines::found(ctx, &args.name)?;
    let state = project::read(&ctx.project_dir(&project)?)?;
    let gone = || CliError::new(format!("`{address}` is recorded no longer"));
    let state = state.ok_or_else(gone)?;
    let record = state.records.get(&address).ok_or_else(gone)?;
    if args.json {
        let Snapshot { lineage, serial, .. } = state;
        ui::print_json(&Shown { format: JSON_FORMAT, project: &project, lineage, serial, record })?;
    } else {
        ui::print(show::machine(record)?.trim_start())?;
    }
    Ok(Exit::Fine)
}

/// Gives a record another name, as `moved` in the VMFile does.
fn mv(ctx: &Context, args: &StateMvArgs) -> Result<Exit, CliError> {
    let (project, from) = machines::named(ctx, &args.from)?;
    let to = Address::vm(args.to.as_str());
    let dir = ctx.project_dir(&project)?;
    let mut writer = ctx.writer(&dir, "state mv", &args.lock, Reserve::Keep)?;
    let Snapshot { lineage, mut records, .. } = writer.snapshot()?;
    if records.contains_key(&to) {
        return Err(CliError::new(format!("`{to}` is recorded already, so `{from}` cannot take its name"))
            .help("`vmctl state rm` forgets one of both, or choose another name".to_owned()));
    }
    let record = records.remove(&from);
    let record = record.ok_or_else(|| CliError::new(format!("`{from}` is recorded no longer")))?;
    let record = Record { address: to.clone(), updated: Timestamp::now(), ..record };
    let serial = writer.commit(&[Entry::Remove(from.clone()), Entry::Put(Box::new(record.clone()))])?;
    ctx.note_records(&dir, NotedAt { lineage, serial }, [&record])?;
    let is_renamed = Own::open(ctx, &project)?.rename(from.name(), to.name())?;
    writer.close()?;
    let more = if is_renamed {
        "Its block is called so as well."
    } else {
        "Give it that name in the VMFile too: `vmctl plan` shows what is left to do."
    };
    ctx.note(&format!("`{from}` is recorded as `{to}`. {more}"));
    Ok(Exit::Fine)
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
    Own::open(ctx, project)?.remove(&[address.name()])?;
    writer.close()?;
    ctx.note(&format!("`{address}` is forgotten and goes on as it is.{}", places(handle.as_deref())));
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

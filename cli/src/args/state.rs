//! Options of `state` and its commands.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use vmctl_providers::Name;

use super::{LockArgs, machine_name};
use crate::complete::machines;

/// Options of `state`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl state list
  vmctl state history
  vmctl state rm web
  vmctl state provisioned web
  vmctl state rebuild  # The state is damaged or gone")]
pub(crate) struct StateArgs {
    /// What to do
    #[command(subcommand)]
    pub(crate) command: StateCommand,
}

/// What to do with the state.
#[derive(Debug, Subcommand)]
pub(crate) enum StateCommand {
    /// List the addresses of what is recorded
    #[command(after_help = "\
Examples:
  vmctl state list
  vmctl state list --project shop")]
    List,
    /// Show one record
    Show(StateShowArgs),
    /// Show who changed the state, when, and what came of it
    History(StateHistoryArgs),
    /// Give a record another name
    Mv(StateMvArgs),
    /// Forget machines, and let them go on as they are
    Rm(StateRmArgs),
    /// Print the state as JSON, for `state import`
    #[command(after_help = "\
Examples:
  vmctl state export > state.json")]
    Export,
    /// Put an exported state in place of the recorded one
    Import(StateImportArgs),
    /// Make a damaged or lost state again from its copies
    Rebuild(StateRebuildArgs),
    /// Clear what a dead vmctl left of its lock
    Unlock(StateUnlockArgs),
    /// Take a provisioning step that was cut off for done
    Provisioned(StateProvisionedArgs),
}

/// Options of `state show`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl state show web
  vmctl state show web --json | jq .record.handle")]
pub(crate) struct StateShowArgs {
    /// Machine, as `web` or `project/web`
    #[arg(add = machines())]
    pub(crate) name: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `state history`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl state history
  vmctl state history web         # What was done to `web`
  vmctl state history --run 5f8b  # The steps of one run

The journal keeps the last 1000 runs that changed something, and the last 1000 steps.")]
pub(crate) struct StateHistoryArgs {
    /// Machine whose steps are shown
    #[arg(value_name = "VM", add = machines())]
    pub(crate) name: Option<String>,
    /// Show the steps of this run; its first digits are enough
    #[arg(long, value_name = "ID")]
    pub(crate) run: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `state mv`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl state mv web www

As `moved` in the VMFile does it, but at once. No machine is touched.")]
pub(crate) struct StateMvArgs {
    /// Machine, as `web` or `project/web`
    pub(crate) from: String,
    /// Its new name
    #[arg(value_parser = machine_name, add = machines())]
    pub(crate) to: Name,
    #[command(flatten)]
    pub(crate) lock: LockArgs,
}

/// Options of `state import`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl state export > state.json
  vmctl state import state.json
  vmctl state import --vms-json ~/.local/share/vmctl/vms.json

No machine is touched, and the state that was there is moved aside, never removed. A state of \
another project or lineage, and one that is older than what is recorded, needs --force.

--vms-json describes the machines of that registry in the project `default`, or that of \
--project, as `vmctl create` does, and makes none of them: `vmctl plan` shows them. The old \
machines, their processes and their disks stay as they are.")]
pub(crate) struct StateImportArgs {
    /// File that `state export` wrote
    #[arg(value_name = "FILE", required_unless_present = "vms_json")]
    pub(crate) exported: Option<PathBuf>,
    /// Registry of vm-manager's vmctl 0.1, from which machines are described instead
    #[arg(long, value_name = "FILE", conflicts_with_all = ["exported", "force"])]
    pub(crate) vms_json: Option<PathBuf>,
    /// Import it even if it is older, or another project's
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) lock: LockArgs,
}

/// Options of `state rebuild`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl state rebuild
  vmctl state rebuild --json

The copies are the snapshot that readers take and the notes in the machines' folders; the newer one \
wins, machine by machine. No machine is touched, and the old state is moved aside, never removed. Of \
a state that is whole nothing is changed, but machines that it does not know are taken back if their \
folders say what they are; those that `state rm` let go of are not.")]
pub(crate) struct StateRebuildArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) lock: LockArgs,
}

/// Options of `state unlock`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl state unlock
  vmctl state unlock --force  # The vmctl on the other host is dead

The lock is the kernel's: it ends with its holder, and every command clears what a dead holder of \
this host left. So this is needed only where hosts share a disk. A vmctl that lives keeps its lock, \
with --force as well: end its process, and the lock is free. Exits 3 if the holder lives or may \
live.")]
pub(crate) struct StateUnlockArgs {
    /// Take the word of whoever asks that the holder on another host is dead
    #[arg(long)]
    pub(crate) force: bool,
}

/// Options of `state rm`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl state rm web
  vmctl state rm web db

Nothing happens to the machines: they run on, and their folders stay. vmctl does not know them any \
more; where their processes and folders are is said once more.")]
pub(crate) struct StateRmArgs {
    /// Machines, as `web` or `project/web`
    #[arg(required = true, add = machines())]
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) lock: LockArgs,
}

/// Options of `state provisioned`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl state provisioned web
  vmctl state provisioned web --yes

For a step that was cut off, so that nobody knows whether it did its work: look into the guest \
first. The next apply goes on behind the step. `vmctl apply --rerun web` runs it again instead.")]
pub(crate) struct StateProvisionedArgs {
    /// Machine, as `web` or `project/web`
    #[arg(add = machines())]
    pub(crate) name: String,
    /// Do so without asking
    #[arg(short, long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) lock: LockArgs,
}

//! Options of the short ways: `up`, `down` and what works on machines by name.

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Args;
use vmctl_planner::vmfile::parse_duration;
use vmctl_providers::Name;

use super::{CarryingArgs, DEFAULT_PARALLELISM, MachineArg, RecordsArgs, machine_name};
use crate::complete::machines;

/// Machines, all of them unless some are named.
#[derive(Debug, Args)]
pub(crate) struct SomeArgs {
    /// Machines, as `web` or `project/web` [default: all of the project]
    #[arg(value_name = "VM", add = machines())]
    pub(crate) vms: Vec<MachineArg>,
    /// The same as naming it; may be repeated
    #[arg(long = "name", value_name = "VM", add = machines())]
    pub(crate) named: Vec<MachineArg>,
}

/// Options of `up`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl up
  vmctl up web    # Only `web` and what it needs
  vmctl up --yes  # Without a question, whatever is lost

`up` is `apply` without its question. Only where a machine's disk would be lost it asks, as `apply` \
does. Exit codes: as those of `vmctl apply`.")]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) some: SomeArgs,
    /// Ask nothing, even where a disk is lost
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Run no provisioning step; what is due stays due
    #[arg(long)]
    pub(crate) no_provision: bool,
    /// Make machines without templates, and keep new ones
    #[arg(long)]
    pub(crate) cold: bool,
    /// Go on even if the host has too little memory or disk for all of it
    #[arg(long)]
    pub(crate) overcommit: bool,
    #[command(flatten)]
    pub(crate) carrying: CarryingArgs,
}

/// Options of `down`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl down            # Stop all machines; `vmctl up` starts them again
  vmctl down web
  vmctl down --destroy  # Remove them, with their disks; volumes stay

What is recorded counts: machines that are no longer in the VMFile go down too. On a terminal, \
--destroy asks first, unless --yes is given. Exit codes: as those of `vmctl apply`.")]
pub(crate) struct DownArgs {
    #[command(flatten)]
    pub(crate) some: SomeArgs,
    /// Remove the machines, with their disks, and what needs them
    #[arg(long)]
    pub(crate) destroy: bool,
    /// Remove their volumes as well, with all that is on them
    #[arg(long, requires = "destroy")]
    pub(crate) volumes: bool,
    /// Ask nothing
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// How long a guest may take to power off before its process is ended [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = patience, conflicts_with = "destroy")]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) carrying: CarryingArgs,
}

/// Options of `reload`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl reload web
  vmctl reload --yes  # All machines of the VMFile

The disks are lost. On a terminal it asks first, unless --yes is given. `vmctl stop web && vmctl \
start web` keeps the disk. Exit codes: as those of `vmctl apply`.")]
pub(crate) struct ReloadArgs {
    #[command(flatten)]
    pub(crate) some: SomeArgs,
    /// Ask nothing
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Run no provisioning step; what is due stays due
    #[arg(long)]
    pub(crate) no_provision: bool,
    #[command(flatten)]
    pub(crate) carrying: CarryingArgs,
}

/// Options of `provision`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl provision                       # What is due, on all machines that run
  vmctl provision web --force           # All steps again, but those that run once
  vmctl provision web --step 3 --force  # This one, whether or not it ran
  vmctl provision --step setup.sh

Steps are those of the VMFile; nothing else that it says is applied. Machines must run. With --force \
on a terminal it asks first, unless --yes is given. Exit codes: as those of `vmctl apply`.")]
pub(crate) struct ProvisionArgs {
    #[command(flatten)]
    pub(crate) some: SomeArgs,
    /// Only this step, by its number or by what plans call it; may be repeated
    #[arg(long, value_name = "N|LABEL")]
    pub(crate) step: Vec<String>,
    /// Run steps that ran, too, and one that was cut off
    #[arg(long)]
    pub(crate) force: bool,
    /// Ask nothing
    #[arg(short, long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) carrying: CarryingArgs,
}

/// Options of `start`, `suspend` and `resume`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl start web
  vmctl suspend web db
  vmctl resume web

These work on machines as they are recorded, and change nothing else about them. The VMFile still \
says what the next `vmctl apply` makes of them. `start` returns when the machine runs; `vmctl up` \
waits until it is ready. Exit codes: as those of `vmctl apply`.")]
pub(crate) struct MachinesArgs {
    /// Machines, as `web` or `project/web`
    #[arg(value_name = "VM", add = machines(), required = true)]
    pub(crate) vms: Vec<MachineArg>,
    #[command(flatten)]
    pub(crate) carrying: CarryingArgs,
}

/// Options of `stop`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl stop web
  vmctl stop web db --timeout 5s

The guest is asked to power off; one that does not within the timeout is ended. Its disk stays, and \
`vmctl start` starts it again. The VMFile still says what the next `vmctl apply` makes of it. Exit \
codes: as those of `vmctl apply`.")]
pub(crate) struct StopArgs {
    /// Machines, as `web` or `project/web`
    #[arg(value_name = "VM", add = machines(), required = true)]
    pub(crate) vms: Vec<MachineArg>,
    /// How long a guest may take to power off before its process is ended, as `30s` or in seconds [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = patience)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) carrying: CarryingArgs,
}

/// Options of `destroy`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl destroy web
  vmctl destroy web --yes

Removes the machine, its disk, and the machines that need it; its volumes stay without --volumes. On \
a terminal it asks first, unless --yes is given. A machine that is still in the VMFile is made again \
by the next `vmctl apply`. Exit codes: as those of `vmctl apply`.")]
pub(crate) struct DestroyArgs {
    /// Machines, as `web` or `project/web`
    #[arg(value_name = "VM", add = machines(), required = true)]
    pub(crate) vms: Vec<MachineArg>,
    /// Remove their volumes as well, with all that is on them
    #[arg(long)]
    pub(crate) volumes: bool,
    /// Ask nothing
    #[arg(short, long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) carrying: CarryingArgs,
}

/// Options of `run`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl run -- ./test.sh
  vmctl run --on web -- make -C /srv check
  vmctl run --timeout 10m --locked -- pytest tests/vm
  vmctl run -- sh -c 'vmctl exec web -- uptime'

The machines belong to a project of their own, so that runs go on side by side. CMD finds in its \
environment VMCTL_PROJECT and VMCTL_DATA_DIR, so that vmctl works on these machines, \
VMCTL_OUTPUT_NAME for each output, and for each machine VMCTL_VM_NAME_SSH_HOST, _SSH_PORT, \
_SSH_USER, _SSH_KEY, _SSH_KNOWN_HOSTS, _SSH_HOST_ALIAS, _ADDRESS on a bridge, and _PORT_N (or \
_UDP_PORT_N): the port of this host that leads to port N of the guest.

Volumes are removed as well, and nothing is protected. What a run that was killed left, the next one \
removes. The exit code is the command's own; 124 if it did not end in time; that of `vmctl apply` if \
the machines did not come up; 5 if the command ended well and not all could be removed.")]
pub(crate) struct RunArgs {
    /// Run the command in this machine instead of on this host
    #[arg(long, value_name = "VM", value_parser = machine_name, add = machines())]
    pub(crate) on: Option<Name>,
    /// Make only this machine and what it needs; may be repeated
    #[arg(long, value_name = "VM", value_parser = machine_name, add = machines())]
    pub(crate) target: Vec<Name>,
    /// Leave the machines as they are in the end
    #[arg(long)]
    pub(crate) keep: bool,
    /// How long the command may take, as `10m` or in seconds; then it is asked to end, and after 10 s ended
    #[arg(long, value_name = "DURATION", value_parser = patience)]
    pub(crate) timeout: Option<Duration>,
    /// Take images only as VMFile.lock pins them, and leave it as it is
    #[arg(long)]
    pub(crate) locked: bool,
    /// Go on even if the host has too little memory or disk for all of it
    #[arg(long)]
    pub(crate) overcommit: bool,
    /// Steps to run at once
    #[arg(long, value_name = "N", default_value = DEFAULT_PARALLELISM)]
    pub(crate) parallelism: NonZeroUsize,
    #[command(flatten)]
    pub(crate) records: RecordsArgs,
    /// Command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

/// A duration with a unit, or a number of seconds.
pub(super) fn patience(text: &str) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(seconds) => Ok(Duration::from_secs(seconds.into())),
        Err(_) => parse_duration(text).map_err(|error| error.to_string()),
    }
}

//! Options of the commands that plan, apply, and mark machines for it.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use vmctl_providers::Name;

use super::{DEFAULT_PARALLELISM, LockArgs, machine_name};
use crate::complete::machines;
use crate::course::timeline_path;

/// What a plan is about, and what it is made from.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Planning")]
pub(crate) struct PlanningArgs {
    /// Plan to remove everything that the project has, but not its volumes
    #[arg(long)]
    pub(crate) destroy: bool,
    /// Change only the record, to what is observed; no machine is touched
    #[arg(long, conflicts_with_all = ["destroy", "no_refresh", "replace", "rerun"])]
    pub(crate) refresh_only: bool,
    /// Trust the record and do not look at what really runs
    #[arg(long)]
    pub(crate) no_refresh: bool,
    /// Plan only for this machine and what it needs; may be repeated
    #[arg(long, value_name = "VM", value_parser = machine_name, add = machines())]
    pub(crate) target: Vec<Name>,
    /// Leave this machine and what needs it out of the plan; may be repeated
    #[arg(long, value_name = "VM", value_parser = machine_name, add = machines())]
    pub(crate) exclude: Vec<Name>,
    /// Make this machine anew, whether or not it changed; may be repeated
    #[arg(long, value_name = "VM", value_parser = machine_name, add = machines(), conflicts_with = "destroy")]
    pub(crate) replace: Vec<Name>,
    /// Run the provisioning step of this machine again that was cut off, if one was; may be repeated
    #[arg(long, value_name = "VM", value_parser = machine_name, add = machines(), conflicts_with = "destroy")]
    pub(crate) rerun: Vec<Name>,
    /// Run no provisioning step; what is due stays due
    #[arg(long, conflicts_with_all = ["destroy", "refresh_only", "rerun"])]
    pub(crate) no_provision: bool,
    /// Make machines without templates, and keep new ones
    #[arg(long, conflicts_with_all = ["destroy", "refresh_only"])]
    pub(crate) cold: bool,
    /// Remove volumes as well that no machine needs any more, with all that is on them
    #[arg(long, conflicts_with = "refresh_only")]
    pub(crate) volumes: bool,
    /// Go on even if the host has too little memory or disk for all of it
    #[arg(long)]
    pub(crate) overcommit: bool,
    /// Take images from the network only as VMFile.lock pins them, and leave that file as it is
    #[arg(long, conflicts_with_all = ["destroy", "refresh_only"])]
    pub(crate) locked: bool,
}

/// How to show a plan.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// Print JSON
    #[arg(long, conflicts_with = "markdown")]
    pub(crate) json: bool,
    /// Print Markdown, fit for a pull request's comment
    #[arg(long)]
    pub(crate) markdown: bool,
    /// Write a report to FILE as well: one HTML page that needs nothing else
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

/// What to do with `check` and `ready` conditions while planning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum ChecksWhen {
    /// Do not ask them
    Skip,
    /// Ask them of running machines and show what fails
    #[default]
    Warn,
    /// Ask them, and exit 1 if one fails or cannot be asked
    Fail,
}

/// Options of `plan`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl plan
  vmctl plan --detailed-exitcode  # Exit 2 when there are changes
  vmctl plan --out today.plan     # Save the plan for `vmctl apply today.plan`
  vmctl plan --target web         # Only `web` and what it needs
  vmctl plan --replace web        # Make `web` anew
  vmctl plan --html plan.html     # A report for CI

Exit codes: 0 planned, 1 error, or a change that `prevent-destroy` forbids, 2 changes (with \
--detailed-exitcode).")]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) planning: PlanningArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Save the plan to FILE, for `apply FILE`
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// What to do with the conditions of `check` and `ready`
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    pub(crate) checks: ChecksWhen,
    /// Exit 0 without changes, 2 with changes, 1 on an error
    #[arg(long)]
    pub(crate) detailed_exitcode: bool,
}

/// Options of `drift`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl drift
  vmctl drift --json | jq -r '.changes[] | select(.drift != []) | .address'
  vmctl drift --project shop --checks fail  # On a host whose machines stay

`vmctl apply` repairs what drifted, `vmctl apply --refresh-only` accepts it. Exit codes: 0 nothing \
moved, 1 error or failed check (--checks fail), 2 something moved.")]
pub(crate) struct DriftArgs {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Look only at this machine; may be repeated
    #[arg(long, value_name = "VM", value_parser = machine_name, add = machines())]
    pub(crate) target: Vec<Name>,
    /// Do not look at this machine; may be repeated
    #[arg(long, value_name = "VM", value_parser = machine_name, add = machines())]
    pub(crate) exclude: Vec<Name>,
    /// What to do with the conditions of `check` and `ready`
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    pub(crate) checks: ChecksWhen,
}

/// Options of `apply`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl apply
  vmctl apply --yes            # Without a question, as in CI
  vmctl apply today.plan       # Do what a saved plan says, and nothing else
  vmctl apply --refresh-only   # Accept what is observed
  vmctl apply --destroy --yes  # Remove all machines; volumes stay

Exit codes: 0 applied, 1 nothing was done, 3 another vmctl works on the project, 4 the saved plan is \
stale, 5 partly applied, 130 interrupted.")]
pub(crate) struct ApplyArgs {
    /// Saved plan to carry out, as made by `plan --out`
    #[arg(value_name = "PLANFILE", conflicts_with_all = ["destroy", "refresh_only", "no_refresh", "target", "exclude", "replace", "rerun", "no_provision", "cold", "volumes", "file"])]
    pub(crate) plan: Option<PathBuf>,
    /// Apply without asking
    #[arg(short, long, visible_alias = "auto-approve")]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) planning: PlanningArgs,
    #[command(flatten)]
    pub(crate) carrying: CarryingArgs,
}

/// How to carry a plan out.
#[derive(Debug, Args)]
pub(crate) struct CarryingArgs {
    #[command(flatten)]
    pub(crate) lock: LockArgs,
    /// Steps to run at once
    #[arg(long, value_name = "N", default_value = DEFAULT_PARALLELISM)]
    pub(crate) parallelism: NonZeroUsize,
    /// Start nothing new after the first failure
    #[arg(long)]
    pub(crate) fail_fast: bool,
    /// Print events as JSON, one a line
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) records: RecordsArgs,
}

/// Files that tell afterwards what ran.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RecordsArgs {
    /// Write which step ran when to FILE: a page (.html) or a trace for Chrome (.json)
    #[arg(long, value_name = "FILE", value_parser = timeline_path)]
    pub(crate) timeline: Option<PathBuf>,
    /// Write what happens to FILE while it happens, as the lines of `apply --json`; a pipe will do, as /dev/fd/3
    #[arg(long, value_name = "FILE")]
    pub(crate) events: Option<PathBuf>,
    /// Append what was done, failed and took long to FILE, as Markdown [env: GITHUB_STEP_SUMMARY]
    #[arg(long, value_name = "FILE")]
    pub(crate) summary: Option<PathBuf>,
    /// Write what guests were asked and what ran in them to FILE as tests, in JUnit's XML
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
}

/// Options of `show`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl show             # What is recorded
  vmctl show --json
  vmctl show today.plan  # A saved plan, needing neither VMFile nor state
  vmctl show today.plan --html plan.html
  vmctl show --resolved  # The VMFile with everything put in its place")]
pub(crate) struct ShowArgs {
    /// Saved plan to show, as made by `plan --out`; without it, the recorded state
    #[arg(value_name = "PLANFILE")]
    pub(crate) plan: Option<PathBuf>,
    /// Show what the VMFile asks for after all substitution, as a VMFile again; no state is read
    #[arg(long, conflicts_with_all = ["plan", "markdown", "html"])]
    pub(crate) resolved: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Options of `output`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl output
  curl \"$(vmctl output url)\"
  vmctl output --json | jq -r '.outputs.url.value'

The list hides sensitive values; NAME and --json print them. Exits 1 if NAME is not known because a \
machine does not run.")]
pub(crate) struct OutputsArgs {
    /// Output whose value alone is printed; without it, all of them
    pub(crate) name: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `graph`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl graph --format svg > machines.svg
  vmctl graph --plan --format mermaid
  vmctl graph today.plan --format svg > plan.svg")]
pub(crate) struct GraphArgs {
    /// Saved plan whose steps are drawn
    #[arg(value_name = "PLANFILE", conflicts_with = "plan")]
    pub(crate) saved: Option<PathBuf>,
    /// Draw the steps of a plan made now, in place of the VMFile's machines
    #[arg(long)]
    pub(crate) plan: bool,
    /// Form of the picture
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: GraphFormat,
}

/// Form of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum GraphFormat {
    /// Text for Graphviz
    #[default]
    Dot,
    /// A picture that every browser shows
    Svg,
    /// Text that GitHub and GitLab draw in Markdown
    Mermaid,
}

/// Options of `taint`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl taint web
  vmctl taint web --reason 'its disk has errors'

The next `vmctl apply` makes the machine anew. Nothing happens to it until then.")]
pub(crate) struct TaintArgs {
    /// Machine, as `web` or `project/web`
    #[arg(add = machines())]
    pub(crate) name: String,
    /// Why, as shown in plans
    #[arg(long, value_name = "TEXT", default_value = "by hand")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) lock: LockArgs,
}

/// Options of `untaint`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl untaint web")]
pub(crate) struct UntaintArgs {
    /// Machine, as `web` or `project/web`
    #[arg(add = machines())]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) lock: LockArgs,
}

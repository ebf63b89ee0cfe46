//! The command line as data. The doc comments here are the help that users read.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use vmctl_planner::vmfile::parse_duration;
use vmctl_providers::Name;

/// Steps that one `apply` runs at once unless told otherwise; the number Terraform's users know.
const DEFAULT_PARALLELISM: &str = "10";

/// Plan and apply for virtual machines
///
/// vmctl reads a VMFile.kdl that describes virtual machines, compares it with what it made before and with what
/// really runs, shows a plan, and applies it.
#[derive(Debug, Parser)]
#[command(
    name = "vmctl",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = false,
    after_help = "Examples:\n  vmctl plan             Show what would change\n  vmctl apply            Make it so\n  vmctl ssh web          Log in to the VM `web`\n  vmctl apply --destroy  Remove all VMs of the project\n\nExit codes: 0 fine, 1 error, 2 changes (plan --detailed-exitcode) or drift, 3 locked, 4 stale plan,\n5 partly applied, 64 usage, 130 interrupted; `exec` and `ssh` pass on the command's own."
)]
pub(crate) struct Cli {
    /// Options that every command takes.
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every command takes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// VMFile to use [default: VMFile.kdl here or in the nearest parent folder]
    #[arg(short, long, global = true, value_name = "PATH")]
    pub(crate) file: Option<PathBuf>,
    /// Project to work in [env: VMCTL_PROJECT] [default: as the VMFile says, else its folder's name]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) project: Option<Name>,
    /// Folder for state, machines and images [env: VMCTL_DATA_DIR] [default: $XDG_DATA_HOME/vmctl, else ~/.local/share/vmctl]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Value of a variable of the VMFile; may be repeated [env: VMCTL_VAR_NAME]
    #[arg(long = "var", global = true, value_name = "NAME=VALUE", value_parser = named_value)]
    pub(crate) vars: Vec<(String, String)>,
    /// File of values for variables, `name value` on each line; may be repeated
    #[arg(long = "var-file", global = true, value_name = "PATH")]
    pub(crate) var_files: Vec<PathBuf>,
    /// Take machines for stopped that were left running on another host; only if they are off there for certain
    #[arg(long, global = true)]
    pub(crate) take_over: bool,
    /// When to use colour
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t)]
    pub(crate) color: ColorWhen,
    /// Say only what was asked for, and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Log what happens inside to stderr; twice for more (RUST_LOG chooses in detail)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// Options of every command that writes the state.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct LockArgs {
    /// How long to wait for another vmctl that works on the project [env: VMCTL_LOCK_TIMEOUT] [default: not at all]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) lock_timeout: Option<Duration>,
}

/// Splits `NAME=VALUE`.
fn named_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write a name, `=` and a value: --var size=4096".to_owned()),
    }
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum ColorWhen {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a VMFile to begin with
    Init(InitArgs),
    /// Show what `apply` would do
    Plan(PlanArgs),
    /// Bring the machines to what the VMFile asks for
    Apply(ApplyArgs),
    /// Show what moved since it was recorded, and exit 2 if something did
    Drift(DriftArgs),
    /// Show what is recorded, a saved plan, or the VMFile after all substitution
    Show(ShowArgs),
    /// Print the outputs of the VMFile
    Output(OutputsArgs),
    /// Draw the VMFile's machines, or a plan's steps
    Graph(GraphArgs),
    /// Mark a machine to be made anew by the next `apply`
    Taint(TaintArgs),
    /// Take the mark back
    Untaint(UntaintArgs),
    /// Change what is remembered, without touching machines
    State(StateArgs),
    /// List the machines of the project
    List(ListArgs),
    /// Show everything known about one machine
    Status(StatusArgs),
    /// Log in to a machine, or run a command there, with the system's ssh
    Ssh(SshArgs),
    /// Run a command in a machine and pass its exit code on
    Exec(ExecArgs),
    /// Connect to a machine's serial console
    Console(ConsoleArgs),
    /// Show what a machine wrote to its console and what provisioning printed
    Log(LogArgs),
    /// Check the VMFile without touching anything
    Validate(ValidateArgs),
    /// Rewrite the VMFile in its canonical form
    Fmt(FmtArgs),
    /// Check that this host can run machines, and say how to repair what is missing
    Doctor(DoctorArgs),
    /// List the places where tests let this program fail
    #[cfg(feature = "failpoints")]
    #[command(hide = true)]
    Failpoints,
}

/// Options of `init`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  vmctl init && vmctl validate\n  vmctl init --template cluster --file lab/VMFile.kdl\n\nWrites VMFile.kdl in the working folder, or what --file names. A file that is there already is\nkept, unless --force is given."
)]
pub(crate) struct InitArgs {
    /// What the VMFile describes
    #[arg(long, value_name = "NAME", value_enum, default_value_t)]
    pub(crate) template: Template,
    /// Replace a file that is there already
    #[arg(long)]
    pub(crate) force: bool,
}

/// What `init` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Template {
    /// One machine
    #[default]
    Minimal,
    /// A machine for one run of a test suite
    Ci,
    /// Several workers of one block, and a head that needs them
    Cluster,
}

/// What a plan is about, and what it is made from.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Planning")]
pub(crate) struct PlanningArgs {
    /// Plan to remove everything that the project has
    #[arg(long)]
    pub(crate) destroy: bool,
    /// Change only the record, to what is observed; no machine is touched
    #[arg(long, conflicts_with_all = ["destroy", "no_refresh", "replace", "rerun"])]
    pub(crate) refresh_only: bool,
    /// Trust the record and do not look at what really runs
    #[arg(long)]
    pub(crate) no_refresh: bool,
    /// Plan only for this machine and what it needs; may be repeated
    #[arg(long, value_name = "VM", value_parser = machine_name)]
    pub(crate) target: Vec<Name>,
    /// Leave this machine and what needs it out of the plan; may be repeated
    #[arg(long, value_name = "VM", value_parser = machine_name)]
    pub(crate) exclude: Vec<Name>,
    /// Make this machine anew, whether or not it changed; may be repeated
    #[arg(long, value_name = "VM", value_parser = machine_name, conflicts_with = "destroy")]
    pub(crate) replace: Vec<Name>,
    /// Run the provisioning step of this machine again that was cut off, if one was; may be repeated
    #[arg(long, value_name = "VM", value_parser = machine_name, conflicts_with = "destroy")]
    pub(crate) rerun: Vec<Name>,
    /// Go on even if the host has too little memory or disk for all of it
    #[arg(long)]
    pub(crate) overcommit: bool,
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
#[command(
    after_help = "Examples:\n  vmctl plan\n  vmctl plan --detailed-exitcode   Exit 2 when there are changes\n  vmctl plan --out today.plan      Save the plan; `vmctl apply today.plan` does just that\n  vmctl plan --target web          Only `web` and what it needs\n  vmctl plan --replace web         Make `web` anew\n  vmctl plan --html plan.html      A report for CI\n\nExit codes: 0 planned, 1 error, or a change that `prevent-destroy` forbids,\n2 changes (with --detailed-exitcode)."
)]
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
#[command(
    after_help = "Examples:\n  vmctl drift\n  vmctl drift --json | jq -r '.changes[] | select(.drift != []) | .address'\n  vmctl drift --project shop --checks fail   On a host whose machines stay\n\n`vmctl apply` repairs what drifted, `vmctl apply --refresh-only` accepts it.\nExit codes: 0 nothing moved, 1 error or failed check (--checks fail), 2 something moved."
)]
pub(crate) struct DriftArgs {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Look only at this machine; may be repeated
    #[arg(long, value_name = "VM", value_parser = machine_name)]
    pub(crate) target: Vec<Name>,
    /// Do not look at this machine; may be repeated
    #[arg(long, value_name = "VM", value_parser = machine_name)]
    pub(crate) exclude: Vec<Name>,
    /// What to do with the conditions of `check` and `ready`
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    pub(crate) checks: ChecksWhen,
}

/// Options of `apply`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  vmctl apply\n  vmctl apply --yes            Without a question, as in CI\n  vmctl apply today.plan       Do what a saved plan says, and nothing else\n  vmctl apply --refresh-only   Accept what is observed\n  vmctl apply --destroy --yes  Remove everything that the project has\n\nExit codes: 0 applied, 1 nothing was done, 3 another vmctl works on the project,\n4 the saved plan is stale, 5 partly applied, 130 interrupted."
)]
pub(crate) struct ApplyArgs {
    /// Saved plan to carry out, as made by `plan --out`
    #[arg(value_name = "PLANFILE", conflicts_with_all = ["destroy", "refresh_only", "no_refresh", "target", "exclude", "replace", "rerun", "file"])]
    pub(crate) plan: Option<PathBuf>,
    /// Apply without asking
    #[arg(short, long, visible_alias = "auto-approve")]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) planning: PlanningArgs,
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
}

/// Options of `show`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  vmctl show                 What is recorded\n  vmctl show --json\n  vmctl show today.plan      A saved plan, needing neither VMFile nor state\n  vmctl show today.plan --html plan.html\n  vmctl show --resolved      The VMFile with everything put in its place"
)]
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
#[command(
    after_help = "Examples:\n  vmctl output\n  curl \"$(vmctl output url)\"\n  vmctl output --json | jq -r '.outputs.url.value'\n\nThe list hides sensitive values; NAME and --json print them.\nExits 1 if NAME is not known because a machine does not run."
)]
pub(crate) struct OutputsArgs {
    /// Output whose value alone is printed; without it, all of them
    pub(crate) name: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `graph`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  vmctl graph --format svg > machines.svg\n  vmctl graph --plan --format mermaid\n  vmctl graph today.plan --format svg > plan.svg"
)]
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
#[command(
    after_help = "Examples:\n  vmctl taint web\n  vmctl taint web --reason 'its disk has errors'\n\nThe next `vmctl apply` makes the machine anew. Nothing happens to it until then."
)]
pub(crate) struct TaintArgs {
    /// Machine, as `web` or `project/web`
    pub(crate) name: String,
    /// Why, as shown in plans
    #[arg(long, value_name = "TEXT", default_value = "by hand")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) lock: LockArgs,
}

/// Options of `untaint`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  vmctl untaint web")]
pub(crate) struct UntaintArgs {
    /// Machine, as `web` or `project/web`
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) lock: LockArgs,
}

/// Options of `state`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  vmctl state rm web\n  vmctl state provisioned web")]
pub(crate) struct StateArgs {
    /// What to do
    #[command(subcommand)]
    pub(crate) command: StateCommand,
}

/// What to do with the state.
#[derive(Debug, Subcommand)]
pub(crate) enum StateCommand {
    /// Forget machines, and let them go on as they are
    Rm(StateRmArgs),
    /// Make a damaged or lost state again from its copies
    Rebuild(StateRebuildArgs),
    /// Clear what a dead vmctl left of its lock
    Unlock(StateUnlockArgs),
    /// Take a provisioning step that was cut off for done
    Provisioned(StateProvisionedArgs),
}

/// Options of `state rebuild`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  vmctl state rebuild\n  vmctl state rebuild --json\n\nThe copies are the snapshot that readers take and the notes in the machines' folders; the newer one\nwins, machine by machine. No machine is touched, and the old state is moved aside, never removed.\nOf a state that is whole nothing is changed, but machines that it does not know are taken back if\ntheir folders say what they are; those that `state rm` let go of are not."
)]
pub(crate) struct StateRebuildArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) lock: LockArgs,
}

/// Options of `state unlock`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  vmctl state unlock\n  vmctl state unlock --force   The vmctl on the other host is dead\n\nThe lock is the kernel's: it ends with its holder, and every command clears what a dead holder of\nthis host left. So this is needed only where hosts share a disk. A vmctl that lives keeps its lock,\nwith --force as well: end its process, and the lock is free.\nExits 3 if the holder lives or may live."
)]
pub(crate) struct StateUnlockArgs {
    /// Take the word of whoever asks that the holder on another host is dead
    #[arg(long)]
    pub(crate) force: bool,
}

/// Options of `state rm`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  vmctl state rm web\n  vmctl state rm web db\n\nNothing happens to the machines: they run on, and their folders stay. vmctl does not\nknow them any more; where their processes and folders are is said once more."
)]
pub(crate) struct StateRmArgs {
    /// Machines, as `web` or `project/web`
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) lock: LockArgs,
}

/// Options of `state provisioned`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  vmctl state provisioned web\n  vmctl state provisioned web --yes\n\nFor a step that was cut off, so that nobody knows whether it did its work: look into the guest\nfirst. The next apply goes on behind the step. `vmctl apply --rerun web` runs it again instead."
)]
pub(crate) struct StateProvisionedArgs {
    /// Machine, as `web` or `project/web`
    pub(crate) name: String,
    /// Do so without asking
    #[arg(short, long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) lock: LockArgs,
}

/// A machine's name, with or without `vm.` in front.
fn machine_name(text: &str) -> Result<Name, vmctl_providers::NameError> {
    text.strip_prefix("vm.").unwrap_or(text).parse()
}

/// Options of `list`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  vmctl list\n  vmctl list --all-projects\n  vmctl list --json | jq -r '.vms[].name'"
)]
pub(crate) struct ListArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// List the machines of every project in the data folder
    #[arg(long, conflicts_with_all = ["project", "file"])]
    pub(crate) all_projects: bool,
}

/// Options of `status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  vmctl status web\n  vmctl status shop/web --json")]
pub(crate) struct StatusArgs {
    /// Machine, as `web` or `project/web`
    pub(crate) name: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `ssh`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  vmctl ssh\n  vmctl ssh web\n  vmctl ssh web -- 'df -h / && uptime'\n\nThe command goes to the guest's shell as ssh sends it: joined by spaces.\n`vmctl exec` keeps arguments apart."
)]
pub(crate) struct SshArgs {
    /// Machine, as `web` or `project/web`; not needed if there is only one
    pub(crate) name: Option<String>,
    /// User to log in as [default: as the VMFile says]
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// Private key to log in with [default: as the VMFile says, else the machine's own key]
    #[arg(long, value_name = "PATH")]
    pub(crate) key: Option<PathBuf>,
    /// Command to run instead of a login shell
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

/// Options of `exec`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  vmctl exec web -- systemctl is-active nginx\n  vmctl exec web -- sh -c 'cat > /tmp/note' < note.txt\n  vmctl exec db -- pg_dump shop > shop.sql\n\nArguments reach the command as they are: the guest's shell does not take them apart.\nStandard input is passed when it is no terminal. The exit code is the command's own."
)]
pub(crate) struct ExecArgs {
    /// Machine, as `web` or `project/web`
    pub(crate) name: String,
    /// Command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

/// Options of `console`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  vmctl console web\n  printf 'root\\n' | vmctl console web\n\nOn entry the end of the console's log is shown. Ctrl-] leaves; every other key, Ctrl-C too,\ngoes to the guest. Input that is no terminal is sent to the guest, and the console is left\nonce that input has ended and the guest has been silent for a second. A machine serves one\nconsole client at a time: a second one waits until the first leaves."
)]
pub(crate) struct ConsoleArgs {
    /// Machine, as `web` or `project/web`
    pub(crate) name: String,
}

/// Options of `log`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  vmctl log web\n  vmctl log web --console -n 50\n  vmctl log web --provision\n  vmctl log web --console --raw > console.bin\n\nControl characters are made visible, so that a guest cannot play tricks on your terminal;\n--raw prints the bytes."
)]
pub(crate) struct LogArgs {
    /// Machine, as `web` or `project/web`
    pub(crate) name: String,
    /// Show only the console log
    #[arg(long)]
    pub(crate) console: bool,
    /// Show only the provisioning log
    #[arg(long)]
    pub(crate) provision: bool,
    /// Show only the last N lines of each log; 0 shows all
    #[arg(short = 'n', long, value_name = "N", default_value_t = 0)]
    pub(crate) tail: usize,
    /// Print the bytes as they are
    #[arg(long)]
    pub(crate) raw: bool,
}

/// Options of `validate`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  vmctl validate\n  vmctl validate --file ci/VMFile.kdl --json\n  vmctl validate --format sarif > vmctl.sarif   For code review tools\n\nExits 1 if the VMFile cannot be used, whatever the format."
)]
pub(crate) struct ValidateArgs {
    /// Form of the answer [default: human]
    #[arg(long, value_enum)]
    format: Option<ValidateFormat>,
    /// Print JSON, as `--format json` does
    #[arg(long)]
    json: bool,
}

impl ValidateArgs {
    /// The form that was asked for; none if two were.
    pub(crate) fn format(&self) -> Option<ValidateFormat> {
        match (self.format, self.json) {
            (Some(format), false) => Some(format),
            (None, false) => Some(ValidateFormat::Human),
            (None | Some(ValidateFormat::Json), true) => Some(ValidateFormat::Json),
            (Some(ValidateFormat::Human | ValidateFormat::Sarif), true) => None,
        }
    }
}

/// Form of what `validate` finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ValidateFormat {
    /// Text, with the places drawn
    Human,
    /// vmctl's own document
    Json,
    /// SARIF 2.1.0, for code review tools
    Sarif,
}

/// Options of `fmt`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  vmctl fmt\n  vmctl fmt --check             In CI: exit 1 if something is not formatted\n  vmctl fmt VMFile.kdl vms/*.kdl\n  vmctl fmt - < VMFile.kdl      For editors: the formatted text goes to stdout\n\nBlanks, line ends and the order of nodes change; names, values and comments stay as they\nare written. The names of files that changed are printed."
)]
pub(crate) struct FmtArgs {
    /// Files to format; `-` is standard input, formatted to standard output [default: the VMFile]
    #[arg(value_name = "FILE", conflicts_with = "file")]
    pub(crate) files: Vec<PathBuf>,
    /// Write nothing; show what would change, and exit 1 if anything would
    #[arg(long)]
    pub(crate) check: bool,
}

/// Options of `doctor`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  vmctl doctor\n  vmctl doctor --json\n\nExits 1 if something that machines need is missing."
)]
pub(crate) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&format!("vmctl {}", command.get_name())), "{}", command.get_name());
        }
    }

    #[test]
    fn global_options_may_follow_the_command() {
        let cli = parse("vmctl list --project pr-123 -f a.kdl --color never -vv").unwrap();
        assert_eq!(cli.global.project.unwrap().as_str(), "pr-123");
        assert_eq!(cli.global.file, Some(PathBuf::from("a.kdl")));
        assert_eq!(cli.global.color, ColorWhen::Never);
        assert_eq!(cli.global.verbose, 2);
    }

    #[test]
    fn command_of_exec_is_kept_apart_from_our_options() {
        let cli = parse("vmctl exec web -- ls --json -q").unwrap();
        let Command::Exec(args) = cli.command else { panic!("not exec") };
        assert_eq!(
            (args.name.as_str(), args.command),
            ("web", vec!["ls".into(), "--json".into(), "-q".into()])
        );
        assert!(!cli.global.quiet);
    }

    #[test]
    fn ssh_takes_a_command_without_a_name() {
        let cli = parse("vmctl ssh -- uptime").unwrap();
        let Command::Ssh(args) = cli.command else { panic!("not ssh") };
        assert_eq!((args.name, args.command), (None, vec!["uptime".to_owned()]));
    }

    #[test]
    fn apply_knows_terraforms_word_for_yes() {
        for line in ["vmctl apply -y", "vmctl apply --yes", "vmctl apply --auto-approve"] {
            let Command::Apply(args) = parse(line).unwrap().command else { panic!("not apply") };
            assert!(args.yes && args.parallelism.get() == 10);
        }
    }

    #[test]
    fn json_of_validate_is_one_of_its_formats() {
        let format = |line: &str| {
            let Command::Validate(args) = parse(line).unwrap().command else { panic!("not validate") };
            args.format()
        };
        assert_eq!(format("vmctl validate"), Some(ValidateFormat::Human));
        assert_eq!(format("vmctl validate --json"), Some(ValidateFormat::Json));
        assert_eq!(format("vmctl validate --json --format json"), Some(ValidateFormat::Json));
        assert_eq!(format("vmctl validate --format sarif"), Some(ValidateFormat::Sarif));
        assert_eq!(format("vmctl validate --format sarif --json"), None);
        assert_eq!(format("vmctl validate --format human --json"), None);
    }

    #[test]
    fn misuse_is_told_apart() {
        let cases = [
            ("vmctl", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
            ("vmctl exec web", ErrorKind::MissingRequiredArgument),
            ("vmctl apply --parallelism 0", ErrorKind::ValueValidation),
            ("vmctl list --project ../x", ErrorKind::ValueValidation),
            ("vmctl list -q -v", ErrorKind::ArgumentConflict),
            ("vmctl aply", ErrorKind::InvalidSubcommand),
        ];
        for (line, kind) in cases {
            assert_eq!(parse(line).unwrap_err().kind(), kind, "{line}");
        }
    }
}

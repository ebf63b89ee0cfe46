//! The command line as data. The doc comments here are the help that users read.

mod beside;
mod command;
mod create;
mod events;
mod everyday;
mod groups;
#[cfg(test)]
mod help;
mod image;
mod planning;
mod reach;
mod state;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgMatches, Args, FromArgMatches, ValueEnum};
use vmctl_planner::vmfile::parse_duration;
use vmctl_providers::Name;

use crate::complete::projects;

pub(crate) use beside::{CompletionsArgs, CpArgs, InventoryArgs, ManArgs, SshConfigArgs, WaitArgs, WaitFor};
pub(crate) use command::{Cli, Command};
pub(crate) use create::{CreateArgs, ImportArgs};
pub(crate) use events::EventsArgs;
pub(crate) use everyday::{
    DestroyArgs, DownArgs, MachinesArgs, ProvisionArgs, ReloadArgs, RunArgs, SomeArgs, StopArgs, UpArgs,
};
pub(crate) use image::{
    ImageArgs, ImageCommand, ImageInspectArgs, ImageListArgs, ImagePruneArgs, ImagePullArgs, ImageRmArgs,
    ImageUpdateArgs,
};
pub(crate) use planning::{
    ApplyArgs, CarryingArgs, ChecksWhen, DriftArgs, GraphArgs, GraphFormat, OutputArgs, OutputsArgs,
    PlanArgs, PlanningArgs, RecordsArgs, ShowArgs, TaintArgs, UntaintArgs,
};
pub(crate) use reach::{ConsoleArgs, ExecArgs, ListArgs, LogArgs, SshArgs, StatusArgs, VncArgs};
pub(crate) use state::{
    StateArgs, StateCommand, StateHistoryArgs, StateImportArgs, StateMvArgs, StateProvisionedArgs,
    StateRebuildArgs, StateRmArgs, StateShowArgs, StateUnlockArgs,
};

/// Steps that one `apply` runs at once unless told otherwise; the number Terraform's users know.
const DEFAULT_PARALLELISM: &str = "10";

/// Options that every command takes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// VMFile to use [default: VMFile.kdl here or in the nearest parent folder]
    #[arg(short, long, global = true, value_name = "PATH")]
    pub(crate) file: Option<PathBuf>,
    /// Project to work in [env: VMCTL_PROJECT] [default: as the VMFile says, else its folder's name]
    #[arg(long, global = true, value_name = "NAME", add = projects())]
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
    /// When to use colour: `auto` (on a terminal, unless NO_COLOR is set), `always` or `never`
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        value_enum,
        default_value_t,
        hide_possible_values = true
    )]
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

/// Reads the command line, and whether it asks for JSON.
pub(crate) fn parse() -> Result<(Cli, bool), clap::Error> {
    let arguments: Vec<_> = std::env::args_os().collect();
    let mut command = command::needed(arguments.get(1).and_then(|first| first.to_str()));
    let matches = command.try_get_matches_from_mut(arguments)?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    Ok((cli, asks_for_json(&matches)))
}

fn asks_for_json(matches: &ArgMatches) -> bool {
    if let Some((_, inner)) = matches.subcommand() {
        return asks_for_json(inner);
    }
    let flag = matches.try_get_one::<bool>("json").ok().flatten();
    let format = matches.try_get_one::<ValidateFormat>("format").ok().flatten();
    flag == Some(&true) || format == Some(&ValidateFormat::Json)
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

/// Options of `init`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl init && vmctl validate --var image=debian.qcow2
  vmctl init --template cluster --file lab/VMFile.kdl

Writes VMFile.kdl in the working folder, or what --file names. A file that is there already is kept, \
unless --force is given.")]
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

/// A machine as it is named on the command line: in the project that is meant anyway, or in another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MachineArg {
    /// The project that stands in front of it.
    pub(crate) project: Option<Name>,
    /// Its name.
    pub(crate) name: Name,
}

impl FromStr for MachineArg {
    type Err = vmctl_providers::NameError;

    /// Reads `web`, `vm.web` or `project/web`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((project, name)) => Ok(Self { project: Some(project.parse()?), name: machine_name(name)? }),
            None => Ok(Self { project: None, name: machine_name(text)? }),
        }
    }
}

impl fmt::Display for MachineArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.project {
            Some(project) => write!(f, "{project}/{}", self.name),
            None => write!(f, "{}", self.name),
        }
    }
}

/// A machine's name, with or without `vm.` in front.
fn machine_name(text: &str) -> Result<Name, vmctl_providers::NameError> {
    text.strip_prefix("vm.").unwrap_or(text).parse()
}

/// Options of `validate`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl validate
  vmctl validate --file ci/VMFile.kdl --json
  vmctl validate --format sarif > vmctl.sarif  # For code review tools

Exits 1 if the VMFile cannot be used, whatever the format.")]
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
#[command(after_help = "\
Examples:
  vmctl fmt
  vmctl fmt --check         # In CI: exit 1 if something is not formatted
  vmctl fmt VMFile.kdl vms/*.kdl
  vmctl fmt - < VMFile.kdl  # For editors: the formatted text goes to stdout

Blanks, line ends and the order of nodes change; names, values and comments stay as they are \
written. The names of files that changed are printed.")]
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
#[command(after_help = "\
Examples:
  vmctl doctor
  vmctl doctor --json

Exits 1 if something that machines need is missing.")]
pub(crate) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;
    use clap::{CommandFactory, Parser};

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
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
            assert!(args.yes && args.carrying.parallelism.get() == 10);
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
    fn whoever_asks_for_json_is_known() {
        let asks = |line: &str| asks_for_json(&Cli::command().try_get_matches_from(line.split(' ')).unwrap());
        for line in ["vmctl list --json", "vmctl state history --json", "vmctl validate --format json"] {
            assert!(asks(line), "{line}");
        }
        for line in ["vmctl list", "vmctl exec web -- ls --json", "vmctl graph --format svg", "vmctl ssh"] {
            assert!(!asks(line), "{line}");
        }
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

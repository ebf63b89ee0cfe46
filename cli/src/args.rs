//! The command line as data. The doc comments here are the help that users read.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
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
    after_help = "Examples:\n  vmctl plan             Show what would change\n  vmctl apply            Make it so\n  vmctl ssh web          Log in to the VM `web`\n  vmctl apply --destroy  Remove all VMs of the project\n\nExit codes: 0 fine, 1 error, 2 changes (plan --detailed-exitcode), 3 locked, 4 stale plan,\n5 partly applied, 64 usage, 130 interrupted; `exec` and `ssh` pass on the command's own."
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
    /// Show what `apply` would do
    Plan(PlanArgs),
    /// Bring the machines to what the VMFile asks for
    Apply(ApplyArgs),
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
    /// Check that this host can run machines, and say how to repair what is missing
    Doctor(DoctorArgs),
}

/// Options of `plan`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  vmctl plan\n  vmctl plan --destroy\n  vmctl plan --detailed-exitcode  Exit 2 when there are changes"
)]
pub(crate) struct PlanArgs {
    /// Print the plan as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Exit 0 without changes, 2 with changes, 1 on an error
    #[arg(long)]
    pub(crate) detailed_exitcode: bool,
    /// Plan to remove everything that the project has
    #[arg(long)]
    pub(crate) destroy: bool,
    /// Trust the record and do not look at what really runs
    #[arg(long)]
    pub(crate) no_refresh: bool,
}

/// Options of `apply`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  vmctl apply\n  vmctl apply --yes            Without a question, as in CI\n  vmctl apply --destroy --yes  Remove everything that the project has\n\nExit codes: 0 applied, 1 nothing was done, 3 another vmctl works on the project,\n5 partly applied, 130 interrupted."
)]
pub(crate) struct ApplyArgs {
    /// Apply without asking
    #[arg(short, long, visible_alias = "auto-approve")]
    pub(crate) yes: bool,
    /// Remove everything that the project has
    #[arg(long)]
    pub(crate) destroy: bool,
    /// Steps to run at once
    #[arg(long, value_name = "N", default_value = DEFAULT_PARALLELISM)]
    pub(crate) parallelism: NonZeroUsize,
    /// Trust the record and do not look at what really runs
    #[arg(long)]
    pub(crate) no_refresh: bool,
    /// Print events as JSON, one a line
    #[arg(long)]
    pub(crate) json: bool,
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
#[command(after_help = "Examples:\n  vmctl validate\n  vmctl validate --file ci/VMFile.kdl --json")]
pub(crate) struct ValidateArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
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

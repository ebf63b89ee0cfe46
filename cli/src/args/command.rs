//! vmctl and its commands, as clap knows them.
//!
//! Most of what clap costs is the definition of options, and one run needs those of one command. So the definition is
//! made in parts: [`needed`] makes the part that a command line asks for, and says nothing that the whole would not.

use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::{
    ApplyArgs, CompletionsArgs, ConsoleArgs, CpArgs, CreateArgs, DestroyArgs, DoctorArgs, DownArgs,
    DriftArgs, EventsArgs, ExecArgs, FmtArgs, GlobalArgs, GraphArgs, ImageArgs, ImportArgs, InitArgs,
    InventoryArgs, ListArgs, LogArgs, MachinesArgs, ManArgs, OutputsArgs, PlanArgs, ProvisionArgs,
    ReloadArgs, RunArgs, ShowArgs, SshArgs, SshConfigArgs, StateArgs, StatusArgs, StopArgs, TaintArgs,
    UntaintArgs, UpArgs, ValidateArgs, VncArgs, WaitArgs, groups,
};

/// The command line.
#[derive(Debug)]
pub(crate) struct Cli {
    /// Options that every command takes.
    pub(crate) global: GlobalArgs,
    /// What to do.
    pub(crate) command: Command,
}

/// What vmctl is for, as its help begins.
const PURPOSE: &str = "Plan and apply for virtual machines";

#[derive(Debug, Parser)]
#[command(
    name = "vmctl",
    about = PURPOSE,
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  vmctl plan             # Show what would change
  vmctl apply            # Make it so
  vmctl ssh web          # Log in to the VM `web`
  vmctl apply --destroy  # Remove all VMs of the project

Exit codes: 0 fine, 1 error, 2 changes (plan --detailed-exitcode) or drift, 3 locked, 4 stale plan, \
5 partly applied, 64 usage, 124 out of time (run), 130 interrupted; `run`, `exec` and `ssh` pass on \
the command's own."
)]
struct Root {
    #[command(flatten)]
    global: GlobalArgs,
}

/// Defines the commands, each by what it does, its name and its options.
macro_rules! commands {
    ($(#[doc = $about:literal] $name:literal => $variant:ident($options:ty),)*) => {
        /// What to do.
        #[derive(Debug, Subcommand)]
        pub(crate) enum Command {
            $(#[doc = $about] #[command(name = $name)] $variant($options),)*
            /// List the places where tests let this program fail
            #[cfg(feature = "failpoints")]
            #[command(hide = true)]
            Failpoints,
        }

        /// The commands that help shows, without their options.
        pub(super) fn listed() -> Vec<clap::Command> {
            vec![$(clap::Command::new($name).about($about.trim())),*]
        }

        /// One command, with its options.
        fn single(name: &str) -> Option<clap::Command> {
            Some(match name {
                $($name => <$options>::augment_args(clap::Command::new($name)).about($about.trim()).long_about(None),)*
                _ => return None,
            })
        }
    };
}

commands! {
    /// Write a VMFile to begin with
    "init" => Init(InitArgs),
    /// Show what `apply` would do
    "plan" => Plan(PlanArgs),
    /// Bring the machines to what the VMFile asks for
    "apply" => Apply(ApplyArgs),
    /// Apply, and ask only where a disk would be lost
    "up" => Up(UpArgs),
    /// Make a machine without a VMFile
    "create" => Create(Box<CreateArgs>),
    /// Print a machine as a block for a VMFile
    "import" => Import(ImportArgs),
    /// Stop the machines of the project, or remove them
    "down" => Down(DownArgs),
    /// Make machines anew: destroy, create, start and provision
    "reload" => Reload(ReloadArgs),
    /// Run provisioning steps, and change nothing else
    "provision" => Provision(ProvisionArgs),
    /// Make the machines for one command, and remove them after it
    "run" => Run(RunArgs),
    /// Start machines that are off, as they are
    "start" => Start(MachinesArgs),
    /// Stop machines, and keep them
    "stop" => Stop(StopArgs),
    /// Let machines stand still, with what is in their memory
    "suspend" => Suspend(MachinesArgs),
    /// Let suspended machines go on
    "resume" => Resume(MachinesArgs),
    /// Remove machines, with their disks
    "destroy" => Destroy(DestroyArgs),
    /// Show what moved since it was recorded; exit 2 if something did
    "drift" => Drift(DriftArgs),
    /// Show what is recorded, a saved plan, or the resolved VMFile
    "show" => Show(ShowArgs),
    /// Print the outputs of the VMFile
    "output" => Output(OutputsArgs),
    /// Draw the VMFile's machines, or a plan's steps
    "graph" => Graph(GraphArgs),
    /// Mark a machine to be made anew by the next `apply`
    "taint" => Taint(TaintArgs),
    /// Take the mark back
    "untaint" => Untaint(UntaintArgs),
    /// Change what is remembered, without touching machines
    "state" => State(StateArgs),
    /// List the machines of the project
    "list" => List(ListArgs),
    /// Show everything known about one machine
    "status" => Status(StatusArgs),
    /// Show what happened to machines, and what happens
    "events" => Events(EventsArgs),
    /// Log in to a machine with the system's ssh, or run a command
    "ssh" => Ssh(SshArgs),
    /// Run a command in a machine and pass its exit code on
    "exec" => Exec(ExecArgs),
    /// Copy a file or a folder to a machine, or from one
    "cp" => Cp(CpArgs),
    /// Wait until machines are ready, run or are off
    "wait" => Wait(WaitArgs),
    /// Print how other programs log in, in the words of ssh_config(5)
    "ssh-config" => SshConfig(SshConfigArgs),
    /// Print the machines as an inventory for Ansible
    "inventory" => Inventory(InventoryArgs),
    /// Connect to a machine's serial console
    "console" => Console(ConsoleArgs),
    /// Show where a machine's display is, and its password
    "vnc" => Vnc(VncArgs),
    /// Show what consoles and provisioning printed
    "log" => Log(LogArgs),
    /// Check the VMFile without touching anything
    "validate" => Validate(ValidateArgs),
    /// Rewrite the VMFile in its canonical form
    "fmt" => Fmt(FmtArgs),
    /// Fetch disk images, pin them, list them, and make room
    "image" => Image(ImageArgs),
    /// Check that this host can run machines
    "doctor" => Doctor(DoctorArgs),
    /// Print what makes a shell complete vmctl's words
    "completions" => Completions(CompletionsArgs),
    /// Print the manual page, or write all of them
    "man" => Man(ManArgs),
}

/// The definition, as far as it is needed for a command line that begins with `first`.
pub(super) fn needed(first: Option<&str>) -> clap::Command {
    match first {
        Some("--version" | "-V") => root(),
        // The template lists the commands; that there are some is all that clap has to know.
        None | Some("--help" | "-h") => with_commands(root().subcommands(listed().into_iter().take(1))),
        Some(name) => match single(name) {
            Some(command) => with_commands(root().subcommand(command)),
            None => Cli::command(),
        },
    }
}

fn root() -> clap::Command {
    Root::command()
}

/// What is to be said of a definition that has commands.
fn with_commands(definition: clap::Command) -> clap::Command {
    definition
        .about(PURPOSE)
        .help_template(groups::template())
        .subcommand_required(true)
        .arg_required_else_help(true)
}

impl CommandFactory for Cli {
    fn command() -> clap::Command {
        with_commands(Command::augment_subcommands(root()))
    }

    fn command_for_update() -> clap::Command {
        Self::command()
    }
}

impl FromArgMatches for Cli {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self {
            global: GlobalArgs::from_arg_matches(matches)?,
            command: Command::from_arg_matches(matches)?,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Parser for Cli {}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a definition answers to a command line; nothing to one that is right.
    fn answer(mut definition: clap::Command, line: &[&str]) -> Option<String> {
        let line = [&["vmctl"], line].concat();
        definition.try_get_matches_from_mut(line).err().map(|answer| answer.render().ansi().to_string())
    }

    #[test]
    fn part_that_is_needed_says_what_the_whole_says() {
        let whole = Cli::command();
        let names: Vec<_> = whole.get_subcommands().map(|command| command.get_name().to_owned()).collect();
        let mut lines: Vec<Vec<&str>> =
            vec![vec![], vec!["--help"], vec!["-h"], vec!["--version"], vec!["-V"], vec!["no"]];
        for name in &names {
            lines.extend([
                vec![name, "--help"],
                vec![name, "-h"],
                vec![name, "--no-such-option"],
                vec![name, "--project", "../x"],
            ]);
        }
        lines.extend([
            vec!["state", "mv", "--help"],
            vec!["image"],
            vec!["help", "plan"],
            vec!["--quiet", "--help"],
        ]);
        let mut answered = 0;
        for line in lines {
            let of_whole = answer(Cli::command(), &line);
            answered += usize::from(of_whole.is_some());
            assert_eq!(answer(needed(line.first().copied()), &line), of_whole, "{line:?}");
        }
        assert!(answered > 3 * names.len(), "{answered} of them");
    }

    #[test]
    fn every_command_can_be_had_alone() {
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            assert!(single(command.get_name()).is_some(), "{}", command.get_name());
        }
    }
}

//! Options of the commands that look at machines and that reach into them.

use std::path::PathBuf;

use clap::Args;

use crate::complete::machines;

/// Options of `list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl list
  vmctl list --all-projects
  vmctl list --json | jq -r '.vms[].name'
  vmctl list --watch

--watch looks every two seconds until Ctrl-C: on a terminal it draws the list anew, elsewhere it \
prints the list again, with --json as one line, when something changed.")]
pub(crate) struct ListArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Look again and again, until Ctrl-C
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// List the machines of every project in the data folder
    #[arg(long, conflicts_with_all = ["project", "file"])]
    pub(crate) all_projects: bool,
}

/// Options of `status`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl status web
  vmctl status shop/web --json
  vmctl status web --watch

--watch looks every two seconds until Ctrl-C, or until there is no such machine any more: on a \
terminal it draws what it knows anew, elsewhere it prints it again, with --json as one line, when \
something changed.")]
pub(crate) struct StatusArgs {
    /// Machine, as `web` or `project/web`
    #[arg(add = machines())]
    pub(crate) name: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Look again and again, until Ctrl-C
    #[arg(short, long)]
    pub(crate) watch: bool,
}

/// Options of `vnc`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl vnc web
  vmctl vnc web --json | jq -r .password

The display is on a private unix socket. With `vnc \"tcp\"` in the VMFile it is on the host's \
loopback as well, and a password opens it.")]
pub(crate) struct VncArgs {
    /// Machine, as `web` or `project/web`
    #[arg(add = machines())]
    pub(crate) name: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `ssh`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl ssh
  vmctl ssh web
  vmctl ssh web -- 'df -h / && uptime'

The command goes to the guest's shell as ssh sends it: joined by spaces. `vmctl exec` keeps \
arguments apart.")]
pub(crate) struct SshArgs {
    /// Machine, as `web` or `project/web`; not needed if there is only one
    #[arg(add = machines())]
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
#[command(after_help = "\
Examples:
  vmctl exec web -- systemctl is-active nginx
  vmctl exec web -- sh -c 'cat > /tmp/note' < note.txt
  vmctl exec db -- pg_dump shop > shop.sql
  vmctl exec web -- sh  # A shell, on a terminal

Arguments reach the command as they are: the guest's shell does not take them apart. Where standard \
input, output and error are a terminal, the command gets one as well, of the same size: it takes \
every key, Ctrl-C too. Else standard input is passed if it is no terminal. The exit code is the \
command's own.")]
pub(crate) struct ExecArgs {
    /// Give the command a terminal even if its output goes elsewhere; standard input must be one
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Give the command no terminal
    #[arg(short = 'T', long, conflicts_with = "tty")]
    pub(crate) no_tty: bool,
    /// Machine, as `web` or `project/web`
    #[arg(add = machines())]
    pub(crate) name: String,
    /// Command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

/// Options of `console`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl console web
  printf 'root\\n' | vmctl console web

On entry the end of the console's log is shown. Ctrl-] leaves; every other key, Ctrl-C too, goes to \
the guest. Input that is no terminal is sent to the guest, and the console is left once that input \
has ended and the guest has been silent for a second. A machine serves one console client at a time: \
a second one waits until the first leaves.")]
pub(crate) struct ConsoleArgs {
    /// Machine, as `web` or `project/web`
    #[arg(add = machines())]
    pub(crate) name: String,
}

/// Options of `log`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl log web
  vmctl log web --console -n 50
  vmctl log web --provision
  vmctl log --follow -n 10  # All machines of the project, as they go on
  vmctl log web --console --raw > console.bin

Lines of several machines, or of several logs that are followed, begin with where they are from. \
Control characters are made visible, so that a guest cannot play tricks on your terminal; --raw \
prints the bytes.")]
pub(crate) struct LogArgs {
    /// Machines, as `web` or `project/web` [default: all of the project]
    #[arg(value_name = "VM", add = machines())]
    pub(crate) names: Vec<String>,
    /// Show only what machines wrote to their consoles
    #[arg(long)]
    pub(crate) console: bool,
    /// Show only what provisioning printed
    #[arg(long)]
    pub(crate) provision: bool,
    /// Show only the last N lines of each log; 0 shows all
    #[arg(short = 'n', long, value_name = "N", default_value_t = 0)]
    pub(crate) tail: usize,
    /// Go on with what comes, until Ctrl-C
    #[arg(short = 'F', long)]
    pub(crate) follow: bool,
    /// Print the bytes as they are
    #[arg(long)]
    pub(crate) raw: bool,
}

//! Options of what other programs need: shells, ssh, Ansible, scripts that wait.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use vmctl_providers::Name;

use super::everyday::{SomeArgs, patience};
use super::machine_name;
use crate::complete::machines;

/// Options of `cp`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl cp app.conf web:/etc/app.conf
  vmctl cp src web:
  vmctl cp web:/var/log/app logs
  vmctl cp web:report.html .

Folders are copied with all that is in them. What is copied goes into the target if that is a \
folder, else it gets the target's name. A relative path in a machine begins at the login user's \
home. Permission bits, times and links are kept, owners are not; sudo is used where the login user \
may not, if it asks for no password. The guest needs `tar` for folders, and to send.")]
pub(crate) struct CpArgs {
    /// What to copy, as `PATH` or `VM:PATH`
    pub(crate) source: String,
    /// Where to, as `PATH` or `VM:PATH`
    pub(crate) target: String,
}

/// Options of `ssh-config`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl ssh-config > .ssh-config && ssh -F .ssh-config web
  vmctl ssh-config web >> ~/.ssh/config
  rsync -e 'ssh -F .ssh-config' -a src/ web:src/

Machines that do not run are left out, unless they are named: then it is an error. Ports change when \
a machine starts anew, unless its `forward` names one.")]
pub(crate) struct SshConfigArgs {
    #[command(flatten)]
    pub(crate) some: SomeArgs,
}

/// Options of `inventory`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl inventory > hosts.json && ansible-playbook -i hosts.json site.yml
  vmctl inventory --list | jq '.all.hosts'

Each label of a machine and its value make a group: `labels { role \"web\" }` is `role_web`. \
Machines that do not run are left out. A script with the line `exec vmctl inventory \"$@\"` is an \
inventory that Ansible asks by itself.")]
pub(crate) struct InventoryArgs {
    /// What an inventory script answers; without it, the content of an inventory file
    #[arg(long)]
    pub(crate) list: bool,
    /// Only the variables of this machine
    #[arg(long, value_name = "VM", value_parser = machine_name, add = machines(), conflicts_with = "list")]
    pub(crate) host: Option<Name>,
}

/// Options of `wait`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl wait
  vmctl wait web db --timeout 2m
  vmctl wait builder --for stopped --timeout 1h

`ready` asks what the VMFile's `ready` asks. Exits 1 if the time is up.")]
pub(crate) struct WaitArgs {
    #[command(flatten)]
    pub(crate) some: SomeArgs,
    /// What to wait for
    #[arg(long = "for", value_name = "WHAT", value_enum, default_value_t)]
    pub(crate) until: WaitFor,
    /// How long, for all of them together, as `2m` or in seconds
    #[arg(long, value_name = "DURATION", value_parser = patience, default_value = "10m")]
    pub(crate) timeout: Duration,
}

/// What `wait` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum WaitFor {
    /// It runs, and what its `ready` asks for holds
    #[default]
    Ready,
    /// It runs
    Running,
    /// It is off
    Stopped,
}

impl WaitFor {
    /// The word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Stopped => "stopped",
        }
    }
}

/// Options of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  source <(vmctl completions bash)
  vmctl completions bash > ~/.local/share/bash-completion/completions/vmctl
  vmctl completions zsh > \"${fpath[1]}/_vmctl\"
  vmctl completions fish > ~/.config/fish/completions/vmctl.fish

Machines are completed by what is recorded of the project here.")]
pub(crate) struct CompletionsArgs {
    /// Shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

/// Shells that complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// Bash
    Bash,
    /// Zsh
    Zsh,
    /// Fish
    Fish,
}

impl Shell {
    /// What it is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Zsh => "zsh",
            Self::Fish => "fish",
        }
    }
}

/// Options of `man`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl man | man -l -
  vmctl man --dir ~/.local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Write the page of each command into this folder, which is made if it is not there
    #[arg(long, value_name = "PATH")]
    pub(crate) dir: Option<PathBuf>,
}

//! Completion on the command line: of commands and options, and of what the state knows.
//!
//! The shell calls this program with `VMCTL_COMPLETE` set, and it answers in milliseconds: the state is only read, no
//! machine is asked.

use clap::CommandFactory;
use clap_complete::env::{CompleteEnv, EnvCompleter, Shells};
use clap_complete::{ArgValueCompleter, CompletionCandidate};
use std::ffi::OsStr;
use std::io::Write;

use crate::args::{Cli, GlobalArgs};
use crate::context::Context;
use crate::env::Settings;
use crate::error::CliError;

/// Says to the program that a shell asks, and which.
const VARIABLE: &str = "VMCTL_COMPLETE";

/// Answers a shell, and ends the process then; does nothing where none asks.
pub(crate) fn answer() {
    CompleteEnv::with_factory(Cli::command).var(VARIABLE).complete();
}

/// Writes what makes a shell ask; `None` if it is not known.
pub(crate) fn register(shell: &str, out: &mut dyn Write) -> Option<std::io::Result<()>> {
    let shells = Shells::builtins();
    let shell: &dyn EnvCompleter = shells.completer(shell)?;
    Some(shell.write_registration(VARIABLE, "vmctl", "vmctl", "vmctl", out))
}

/// Completes machines' names; behind `project/`, those of that project.
pub(crate) fn machines() -> ArgValueCompleter {
    ArgValueCompleter::new(|so_far: &OsStr| {
        let typed = so_far.to_string_lossy().into_owned();
        candidates(so_far, |ctx| match typed.split_once('/') {
            None => Ok(of_project(ctx)?.unwrap_or_default()),
            Some((project, _)) => {
                let Ok(name) = project.parse() else { return Ok(Vec::new()) };
                let names = of_project(&ctx.apart(&name))?.unwrap_or_default();
                Ok(names.into_iter().map(|name| format!("{project}/{name}")).collect())
            }
        })
    })
}

/// Completes projects' names.
pub(crate) fn projects() -> ArgValueCompleter {
    ArgValueCompleter::new(|so_far: &OsStr| {
        candidates(so_far, |ctx| Ok(ctx.projects()?.iter().map(ToString::to_string).collect()))
    })
}

/// What of `all` begins as what was typed. What cannot be found out is not offered, and nobody is disturbed by why.
fn candidates(
    so_far: &OsStr,
    all: impl Fn(&Context) -> Result<Vec<String>, CliError>,
) -> Vec<CompletionCandidate> {
    let so_far = so_far.to_string_lossy();
    let options = GlobalArgs::default();
    let Ok(settings) = Settings::read(&options) else { return Vec::new() };
    let found = all(&Context::new(settings, options)).unwrap_or_default();
    found.into_iter().filter(|name| name.starts_with(&*so_far)).map(CompletionCandidate::new).collect()
}

fn of_project(ctx: &Context) -> Result<Option<Vec<String>>, CliError> {
    let Some(project) = ctx.project()? else { return Ok(None) };
    let state = vmctl_state::project::read(&ctx.project_dir(&project)?)?;
    Ok(state.map(|state| state.records.keys().map(|address| address.name().to_owned()).collect()))
}

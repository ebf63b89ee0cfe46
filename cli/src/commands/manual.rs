//! `completions` and `man`: what makes a shell and a manual know vmctl.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_mangen::Man;

use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::complete;
use crate::context::Context;
use crate::error::{CliError, Exit};
use crate::ui;

/// Runs `completions`.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    let failed =
        |detail: &str| CliError::new(format!("cannot make completions for {}: {detail}", args.shell.name()));
    complete::register(args.shell.name(), &mut script)
        .ok_or_else(|| failed("the shell is not known"))?
        .map_err(|error| failed(&error.to_string()))?;
    ui::print_bytes(&script)?;
    Ok(Exit::Fine)
}

/// Runs `man`.
pub(crate) fn man(ctx: &Context, args: &ManArgs) -> Result<Exit, CliError> {
    let Some(dir) = &args.dir else {
        ui::print_bytes(&page(Cli::command().disable_help_subcommand(true))?)?;
        return Ok(Exit::Fine);
    };
    let dir = ctx.settings.cwd.join(dir);
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error: std::io::Error| CliError::new(format!("cannot write `{path}`")).because(&error)
    };
    fs::create_dir_all(&dir).map_err(failed(&dir))?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let pages = pages(&command)?;
    for (name, page) in &pages {
        let path = dir.join(format!("{name}.1"));
        fs::write(&path, page).map_err(failed(&path))?;
    }
    ctx.note(&format!("Wrote {} pages to `{}`.", pages.len(), dir.display()));
    Ok(Exit::Fine)
}

/// The pages of a command and of all below it, by name.
fn pages(command: &clap::Command) -> Result<Vec<(String, Vec<u8>)>, CliError> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let mut all = vec![(name.to_owned(), page(command.clone())?)];
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        all.append(&mut pages(below)?);
    }
    Ok(all)
}

fn page(command: clap::Command) -> Result<Vec<u8>, CliError> {
    let mut page = Vec::new();
    Man::new(command)
        .render(&mut page)
        .map_err(|error| CliError::new("cannot make the manual page").because(&error))?;
    Ok(page)
}

//! `validate`: checks the VMFile without touching anything.

use serde::Serialize;
use vmctl_planner::vmfile::{Loaded, Problem, Report};

use super::JSON_FORMAT;
use crate::args::{ValidateArgs, ValidateFormat};
use crate::context::Context;
use crate::error::{self, CliError, Exit};
use crate::{sarif, ui};

#[derive(Serialize)]
struct Document<'a> {
    format: u32,
    valid: bool,
    file: String,
    /// Absent if the file is not valid.
    project: Option<String>,
    vms: Vec<String>,
    /// Errors and warnings, in the order of the text.
    problems: &'a [Problem],
}

/// Runs the command; exit 1 if the VMFile cannot be used.
pub(crate) fn run(ctx: &Context, args: &ValidateArgs) -> Result<Exit, CliError> {
    let format = args.format().ok_or_else(|| {
        CliError::new("`--json` and `--format` ask for two formats")
            .help("leave one of them out".to_owned())
            .exit(Exit::Usage)
    })?;
    let file = ctx.vmfile()?.display().to_string();
    let found = ctx.examine()?;
    match format {
        ValidateFormat::Human => return tell(&file, found),
        ValidateFormat::Json => ui::print_json(&document(file, &found))?,
        ValidateFormat::Sarif => ui::print_json(&sarif::log(problems(&found), &ctx.settings.cwd))?,
    }
    match found {
        Ok(_) => Ok(Exit::Fine),
        Err(_) => Err(CliError::silent(Exit::Error)),
    }
}

fn tell(file: &str, found: Result<Loaded, Report>) -> Result<Exit, CliError> {
    let loaded = found?;
    error::warn_of(&loaded.warnings);
    let vms = match loaded.desired.vms.len() {
        1 => "1 VM".to_owned(),
        count => format!("{count} VMs"),
    };
    ui::print(&format!("{file} is valid: {vms}\n"))?;
    Ok(Exit::Fine)
}

fn document(file: String, found: &Result<Loaded, Report>) -> Document<'_> {
    let desired = found.as_ref().ok().map(|loaded| &loaded.desired);
    Document {
        format: JSON_FORMAT,
        valid: found.is_ok(),
        file,
        project: desired.map(|desired| desired.project.to_string()),
        vms: desired.into_iter().flat_map(|desired| desired.vms.keys()).map(ToString::to_string).collect(),
        problems: problems(found),
    }
}

fn problems(found: &Result<Loaded, Report>) -> &[Problem] {
    match found {
        Ok(loaded) => &loaded.warnings,
        Err(report) => report.problems(),
    }
}

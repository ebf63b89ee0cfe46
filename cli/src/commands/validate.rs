//! `validate`: checks the VMFile without touching anything.

use serde::Serialize;
use vmctl_planner::vmfile::Problem;

use super::JSON_FORMAT;
use crate::args::ValidateArgs;
use crate::context::Context;
use crate::error::{self, CliError, Exit};
use crate::ui;

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
    let file = ctx.vmfile()?.display().to_string();
    match ctx.examine()? {
        Ok(loaded) => {
            if !args.json {
                error::warn_of(&loaded.warnings);
            }
            let vms: Vec<String> = loaded.desired.vms.keys().map(ToString::to_string).collect();
            if args.json {
                let project = Some(loaded.desired.project.to_string());
                let problems = &loaded.warnings;
                ui::print_json(&Document { format: JSON_FORMAT, valid: true, file, project, vms, problems })?;
            } else {
                ui::print(&format!("{file} is valid: {}\n", count(vms.len())))?;
            }
            Ok(Exit::Fine)
        }
        Err(report) => {
            if args.json {
                let (project, vms, problems) = (None, Vec::new(), report.problems());
                ui::print_json(&Document {
                    format: JSON_FORMAT,
                    valid: false,
                    file,
                    project,
                    vms,
                    problems,
                })?;
                return Err(CliError::silent(Exit::Error));
            }
            Err(report.into())
        }
    }
}

fn count(vms: usize) -> String {
    if vms == 1 { "1 VM".to_owned() } else { format!("{vms} VMs") }
}

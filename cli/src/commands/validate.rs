//! `validate`: checks the VMFile without touching anything.

use serde::Serialize;

use super::JSON_FORMAT;
use crate::args::ValidateArgs;
use crate::context::Context;
use crate::error::{CliError, Exit};
use crate::ui;

#[derive(Serialize)]
struct Document {
    format: u32,
    valid: bool,
    project: String,
    vms: Vec<String>,
}

/// Runs the command; exit 1 if the VMFile cannot be used.
pub(crate) fn run(ctx: &Context, args: &ValidateArgs) -> Result<Exit, CliError> {
    let desired = ctx.load()?;
    if args.json {
        let vms = desired.vms.keys().map(ToString::to_string).collect();
        let project = desired.project.to_string();
        ui::print_json(&Document { format: JSON_FORMAT, valid: true, project, vms })?;
    } else {
        let file = ctx.vmfile()?;
        let n = desired.vms.len();
        ui::print(&format!("{} is valid: {n} {}\n", file.display(), if n == 1 { "VM" } else { "VMs" }))?;
    }
    Ok(Exit::Fine)
}

//! `vnc`: where a machine's display is, and what opens it.

use std::fs;

use serde::Serialize;
use vmctl_providers::workdir::WorkDir;

use super::JSON_FORMAT;
use crate::args::VncArgs;
use crate::context::Context;
use crate::error::{CliError, Exit};
use crate::{machines, ui};

#[derive(Serialize)]
struct Document {
    format: u32,
    address: String,
    /// Null where only this user can reach the display.
    password: Option<String>,
}

/// Runs the command. It is the one place that shows the password.
pub(crate) fn run(ctx: &Context, args: &VncArgs) -> Result<Exit, CliError> {
    let machine = machines::one(ctx, Some(&args.name))?;
    let handle = machine.live()?;
    let Some(address) = machine.facts().vnc else {
        return Err(CliError::new(format!("`{}` has no display", machine.record.address))
            .help(format!("its serial line is at `vmctl console {}`", args.name)));
    };
    let password = match handle.machine.hardware.vnc {
        None => None,
        Some(_) => {
            let path = WorkDir::new(&handle.work_dir).vnc_password();
            let text = fs::read_to_string(&path).map_err(|error| {
                CliError::new(format!("cannot read the password in `{}`", path.display()))
                    .because(&error)
                    .help("stop and start the machine: it gets a new one then".to_owned())
            })?;
            Some(text.trim().to_owned())
        }
    };
    if args.json {
        ui::print_json(&Document { format: JSON_FORMAT, address, password })?;
    } else {
        ui::print(&format!("{address}\n"))?;
        if let Some(password) = password {
            ui::print(&format!("password {password}\n"))?;
        }
    }
    Ok(Exit::Fine)
}

//! `output`: the outputs of the VMFile, with what is known of the machines now.

use std::collections::BTreeMap;

use serde_json::json;
use vmctl_planner::outputs::Evaluated;
use vmctl_providers::Name;

use super::JSON_FORMAT;
use crate::args::OutputsArgs;
use crate::context::Context;
use crate::error::{CliError, Exit};
use crate::machines::{self, suggestion};
use crate::{outputs, ui};

/// Runs the command. Warnings of the VMFile are left to others: what is printed here is for scripts.
pub(crate) fn run(ctx: &Context, args: &OutputsArgs) -> Result<Exit, CliError> {
    let desired = ctx.examine()??.desired;
    let mut all = outputs::of(&desired, &machines::all(ctx, &desired.project)?);
    if let Some(wanted) = &args.name {
        let (name, output) = find(&all, wanted)?;
        let text = match &output.text {
            Ok(text) => text,
            Err(unknown) => {
                let message = format!("the output `{name}` is not known: {unknown}");
                return Err(CliError::new(message).help(unknown.help()));
            }
        };
        if !args.json {
            ui::print_bytes(format!("{text}\n").as_bytes())?;
            return Ok(Exit::Fine);
        }
        all = [(name.clone(), output.clone())].into();
    }
    if args.json {
        ui::print_json(&json!({ "format": JSON_FORMAT, "outputs": outputs::data(&all, true) }))?;
    } else if all.is_empty() {
        ctx.note("No outputs: the VMFile has no `output`.");
    } else {
        ui::print(&outputs::text(&all))?;
    }
    Ok(Exit::Fine)
}

/// The output that `wanted` names.
fn find<'o>(all: &'o BTreeMap<Name, Evaluated>, wanted: &str) -> Result<(&'o Name, &'o Evaluated), CliError> {
    all.iter().find(|(name, _)| name.as_str() == wanted).ok_or_else(|| {
        let names: Vec<_> = all.keys().map(Name::as_str).collect();
        let help = match names.as_slice() {
            [] => "the VMFile has none; write `output \"url\" \"…\"`".to_owned(),
            names => suggestion(wanted, names),
        };
        CliError::new(format!("no output is called `{wanted}`")).help(help)
    })
}

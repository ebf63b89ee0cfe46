//! `show`: what is recorded, what a saved plan says, or what the VMFile asks for.

use serde::Serialize;
use serde_json::Value;
use vmctl_planner::fields::FIELDS;
use vmctl_planner::recorded::spec_of;
use vmctl_planner::{resolved, vmfile};
use vmctl_providers::Name;
use vmctl_state::{Record, Snapshot, project};

use super::JSON_FORMAT;
use crate::args::ShowArgs;
use crate::context::Context;
use crate::error::{CliError, Exit};
use crate::machines::phase_word;
use crate::ui::{self, LABEL};
use crate::{output, render, saved};

/// The recorded state as a program reads it. Its form inside is that of the state, with its own version.
#[derive(Serialize)]
struct Document<'a> {
    format: u32,
    project: Option<&'a str>,
    /// Null if nothing is recorded.
    state: Option<&'a Snapshot>,
}

/// Runs the command.
pub(crate) fn run(ctx: &Context, args: &ShowArgs) -> Result<Exit, CliError> {
    if let Some(path) = &args.plan {
        output::plan(&saved::read(path)?.plan, &args.output, None)?;
        return Ok(Exit::Fine);
    }
    if args.resolved {
        let desired = ctx.load()?.desired;
        if args.output.json {
            ui::print_json(&resolved::document(&desired))?;
        } else {
            ui::print(&vmfile::write(&desired))?;
        }
        return Ok(Exit::Fine);
    }
    if args.output.markdown || args.output.html.is_some() {
        return Err(CliError::new("only a plan can be shown as a report")
            .help("name a saved plan, or use `vmctl plan --html FILE` or `vmctl plan --markdown`".to_owned())
            .exit(Exit::Usage));
    }
    let name = ctx.project()?;
    let state = match &name {
        Some(name) => project::read(&ctx.project_dir(name)?)?,
        None => None,
    };
    if args.output.json {
        let project = name.as_ref().map(Name::as_str);
        print_state(project, state.as_ref())?;
        return Ok(Exit::Fine);
    }
    match (name, state) {
        (Some(name), Some(state)) => ui::print(&text(name.as_str(), &state)?)?,
        (Some(name), None) => ctx.note(&format!("Nothing is recorded in project `{name}`.")),
        (None, _) => ctx.note("Nothing is recorded: no VMFile.kdl was found and no project exists."),
    }
    Ok(Exit::Fine)
}

/// Prints the recorded state for programs.
pub(super) fn print_state(project: Option<&str>, state: Option<&Snapshot>) -> Result<(), CliError> {
    ui::print_json(&Document { format: JSON_FORMAT, project, state })
}

fn text(project: &str, state: &Snapshot) -> Result<String, CliError> {
    let mut text =
        format!("{LABEL}project{LABEL:#} {project}, serial {}, lineage {}\n", state.serial, state.lineage);
    for record in state.records.values() {
        text.push_str(&machine(record)?);
    }
    for intent in &state.open {
        text.push_str(&format!(
            "\ninterrupted: {} {} (begun {})\n",
            intent.address,
            ui::visible(&intent.step),
            intent.at
        ));
    }
    Ok(text)
}

/// One record, for people.
pub(super) fn machine(record: &Record) -> Result<String, CliError> {
    let spec = spec_of(record).map_err(|error| CliError::of(&error))?;
    let mut rows: Vec<(&str, String)> = vec![
        ("phase", phase_word(record.phase).to_owned()),
        ("instance", record.instance.to_string()),
        ("ready", if record.ready { "yes".to_owned() } else { "no".to_owned() }),
    ];
    rows.extend(record.taint.as_ref().map(|why| ("tainted", why.clone())));
    for field in FIELDS {
        let value = (field.value)(&spec);
        let says_nothing = match &value {
            Value::Null => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(items) => items.is_empty(),
            _ => false,
        };
        if !says_nothing {
            rows.push((field.name, render::value(&value, field.unit)));
        }
    }
    for (number, step) in record.provisioned.iter().enumerate() {
        let digest = render::value(&Value::String(step.digest.clone()), "");
        rows.push(("provisioned", format!("step {} at {} ({digest})", number + 1, step.at)));
    }
    rows.push(("created", record.created.to_string()));
    rows.push(("updated", record.updated.to_string()));
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = format!("\n{LABEL}{}{LABEL:#}\n", record.address);
    for (name, value) in rows {
        text.push_str(&format!("  {name:width$}  {}\n", ui::visible(&value).replace('\n', " ")));
    }
    Ok(text)
}

//! `state export` and `state import`: the recorded state as a file, and from one.

use std::fs;
use std::path::Path;

use jiff::Timestamp;
use serde::Deserialize;
use vmctl_planner::apply::NotedAt;
use vmctl_providers::Name;
use vmctl_state::project::{self, Kept};
use vmctl_state::record::FORMAT_VERSION;
use vmctl_state::{Snapshot, StoreErrorKind};

use super::show;
use crate::args::StateImportArgs;
use crate::context::Context;
use crate::error::{CliError, Exit};

/// What `state export` and `show --json` print.
#[derive(Deserialize)]
struct Exported {
    format: u32,
    project: Option<Name>,
    state: Option<Snapshot>,
}

/// Runs `state export`.
pub(crate) fn export(ctx: &Context) -> Result<Exit, CliError> {
    let Some(name) = ctx.project()? else {
        return Err(CliError::new(
            "there is nothing to export: no VMFile.kdl was found and no project exists",
        )
        .help("name a project with --project NAME".to_owned()));
    };
    let state = project::read(&ctx.project_dir(&name)?)?;
    if state.is_none() {
        return Err(CliError::new(format!("nothing is recorded in project `{name}`"))
            .help("`vmctl list --all-projects` shows what there is".to_owned()));
    }
    show::print_state(Some(name.as_str()), state.as_ref())?;
    Ok(Exit::Fine)
}

/// Runs `state import`.
pub(crate) fn import(ctx: &Context, args: &StateImportArgs) -> Result<Exit, CliError> {
    let Some(exported) = &args.exported else {
        return super::registry::run(ctx, args);
    };
    let path = ctx.settings.cwd.join(exported);
    let (from, imported) = read(&path)?;
    let Some(name) = ctx.named_project()? else {
        return Err(CliError::new(
            "no project is named, and there is no VMFile.kdl here or in a parent folder",
        )
        .help("name the one to import into with --project NAME".to_owned()));
    };
    let dir = ctx.project_dir(&name)?;
    let repair = ctx.repair(&dir, "state import", &args.lock)?;
    let current = match repair.store() {
        Ok(store) => store,
        // What is damaged may be replaced; how far it had come is known from beside it.
        Err(error) if matches!(error.kind(), StoreErrorKind::Damaged | StoreErrorKind::Missing) => None,
        Err(error) => return Err(error.into()),
    };
    let lineage = current.as_ref().map(|current| current.lineage).or(repair.lineage()?);
    let serial = current.as_ref().map_or(0, |current| current.serial).max(repair.highest_serial()?);
    let refused = if from.as_ref().is_some_and(|from| *from != name) {
        Some(format!("it is the state of project `{}`", from.as_ref().map_or("", Name::as_str)))
    } else if lineage.is_some_and(|lineage| lineage != imported.lineage) {
        Some(format!("it is of lineage {}, and this project has another history", imported.lineage))
    } else if imported.serial < serial {
        Some(format!("it is at serial {}, and the project was at {serial} already", imported.serial))
    } else {
        None
    };
    if let Some(why) = refused.filter(|_| !args.force) {
        return Err(CliError::new(format!(
            "`{}` is not imported into project `{name}`: {why}",
            path.display()
        ))
        .help(
            "with --force it is: machines that it does not know become strays, and what happened since is \
                 forgotten; the state that is there now is kept aside"
                .to_owned(),
        ));
    }
    // No step and no serial is ever counted twice.
    let next_op = current.as_ref().map_or(imported.next_op, |current| current.next_op.max(imported.next_op));
    let snapshot = Snapshot {
        format: FORMAT_VERSION,
        serial: serial.max(imported.serial) + 1,
        next_op,
        taken: Timestamp::now(),
        ..imported
    };
    let kept = repair.replace(&snapshot, Kept::Replaced)?;
    let at = NotedAt { lineage: snapshot.lineage, serial: snapshot.serial };
    ctx.note_records(&dir, at, snapshot.records.values())?;
    let kept = kept.map(|kept| format!(" What was there is kept in `{}`.", kept.display()));
    ctx.note(&format!(
        "Project `{name}` is at serial {} with {} records; no machine was touched.{}",
        snapshot.serial,
        snapshot.records.len(),
        kept.unwrap_or_default()
    ));
    Ok(Exit::Fine)
}

fn read(path: &Path) -> Result<(Option<Name>, Snapshot), CliError> {
    #[derive(Deserialize)]
    struct Formats {
        state: Format,
    }
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let cannot = || format!("cannot import `{}`", path.display());
    let text = fs::read(path).map_err(|error| CliError::new(cannot()).because(&error))?;
    // A newer form need not have our fields; only its version is sure to be there.
    if let Ok(Formats { state: Format { format } }) = serde_json::from_slice(&text)
        && format > FORMAT_VERSION
    {
        return Err(CliError::new(format!("{}: it has format {format}", cannot())).help(format!(
            "this vmctl reads formats up to {FORMAT_VERSION}; use the one that wrote it, or a newer one"
        )));
    }
    let exported: Exported = serde_json::from_slice(&text).map_err(|error| {
        CliError::new(cannot()).because(&error).help("`vmctl state export` writes such files".to_owned())
    })?;
    match exported {
        Exported { format, .. } if format != super::JSON_FORMAT => {
            Err(CliError::new(format!("{}: its form has version {format}", cannot())))
        }
        Exported { state: None, .. } => Err(CliError::new(format!("{}: it holds no state", cannot()))),
        Exported { project, state: Some(state), .. } => Ok((project, state)),
    }
}

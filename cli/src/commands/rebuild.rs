//! `state rebuild`: makes the state again from its copies, or takes back machines that it does not know.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;
use vmctl_planner::apply::{NotedAt, note_down};
use vmctl_planner::observed::Sight;
use vmctl_planner::{record_of, refresh};
use vmctl_providers::{Custody, InstanceId, Name, RouterHypervisor, Stray, VmState};
use vmctl_state::project::Kept;
use vmctl_state::salvage::{Salvaged, Source, Unused, salvage};
use vmctl_state::{Entry, Note, ProjectDir, Repair, Reserve, Snapshot, Store, StoreErrorKind};

use super::JSON_FORMAT;
use crate::args::StateRebuildArgs;
use crate::context::{Context, small_runtime};
use crate::error::{CliError, Exit};
use crate::ui::{self, LABEL};

/// What was done, as a program reads it.
#[derive(Serialize)]
struct Document<'a> {
    format: u32,
    project: &'a Name,
    outcome: Outcome,
    /// Why the state was made again; null if it was whole.
    reason: Option<String>,
    serial: u64,
    lineage: Uuid,
    /// Where what was there is kept; null if nothing was moved.
    kept: Option<PathBuf>,
    machines: Vec<Machine>,
    /// What was found and not taken.
    left: Vec<Left>,
}

/// What became of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    /// It was whole, and nothing was changed.
    Whole,
    /// It was whole, and machines that it did not know were taken back.
    Adopted,
    /// It was made again.
    Rebuilt,
}

/// One recorded machine.
#[derive(Serialize)]
struct Machine {
    address: String,
    instance: Uuid,
    source: Source,
    /// What it does now; null if it did not answer.
    state: Option<VmState>,
    taint: Option<String>,
}

/// A machine that was found and is not recorded.
#[derive(Serialize)]
struct Left {
    name: String,
    instance: Uuid,
    folder: Option<PathBuf>,
    pid: Option<u32>,
    reason: String,
}

/// Runs the command.
pub(crate) fn run(ctx: &Context, args: &StateRebuildArgs) -> Result<Exit, CliError> {
    let Some(project) = ctx.named_project()? else {
        return Err(CliError::new(
            "no project is named, and there is no VMFile.kdl here or in a parent folder",
        )
        .help("name the one to rebuild with --project NAME".to_owned()));
    };
    let dir = ctx.project_dir(&project)?;
    if !dir.path().exists() {
        return Err(CliError::new(format!(
            "project `{project}` has nothing that a state could be made from"
        ))
        .help(format!("`{}` is not there", dir.path().display())));
    }
    let repair = ctx.repair(&dir, "state rebuild", &args.lock)?;
    let host = Arc::new(ctx.hypervisor(&dir)?);
    let document = match repair.store() {
        Ok(store) => {
            drop(repair);
            adopt(ctx, args, &project, &dir, &host, store)?
        }
        Err(error) => match error.kind() {
            StoreErrorKind::Damaged | StoreErrorKind::Missing => {
                rebuild(&project, repair, &host, error.to_string())?
            }
            // A newer vmctl, another user or some room is what helps here.
            _ => return Err(error.into()),
        },
    };
    if args.json {
        ui::print_json(&document)?;
    } else {
        ui::print(&text(&document))?;
    }
    Ok(Exit::Fine)
}

/// Takes machines that a whole state does not know back, by their notes.
fn adopt<'a>(
    ctx: &Context,
    args: &StateRebuildArgs,
    project: &'a Name,
    dir: &ProjectDir,
    host: &Arc<RouterHypervisor>,
    store: Option<Snapshot>,
) -> Result<Document<'a>, CliError> {
    let Some(store) = store else {
        return Err(CliError::new(format!(
            "project `{project}` has nothing that a state could be made from"
        ))
        .help("`vmctl apply` makes its machines".to_owned()));
    };
    let runtime = small_runtime()?;
    let known = store.records.values().map(|record| InstanceId(record.instance)).collect();
    let strays = runtime.block_on(host.strays(project, &known))?;
    let found = Found::of(&strays);
    let before = store.serial;
    let salvaged = salvage(Some((Source::State, store)), &found.notes, None, 0, Timestamp::now());
    let mut left = found.left(&strays, &salvaged);
    let adopted: Vec<_> = salvaged
        .sources
        .iter()
        .filter(|(_, source)| **source == Source::Note)
        .filter_map(|(address, _)| salvaged.snapshot.records.get(address).cloned())
        .collect();
    let mut serial = before;
    if !adopted.is_empty() {
        let mut writer = ctx.writer(dir, "state rebuild", &args.lock, Reserve::Keep)?;
        if writer.snapshot()?.serial != before {
            return Err(CliError::new("somebody changed the state meanwhile").help("try again".to_owned()));
        }
        let entries: Vec<_> = adopted.iter().map(|record| Entry::Put(Box::new(record.clone()))).collect();
        serial = writer.commit(&entries)?;
        let at = NotedAt { lineage: salvaged.snapshot.lineage, serial };
        let noted = runtime.block_on(note_down(&**host, at, &adopted));
        noted.map_err(|error| CliError::of(&error))?;
        writer.close()?;
    }
    let machines = runtime.block_on(seen(host, &salvaged))?;
    left.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(Document {
        format: JSON_FORMAT,
        project,
        outcome: if adopted.is_empty() { Outcome::Whole } else { Outcome::Adopted },
        reason: None,
        serial,
        lineage: salvaged.snapshot.lineage,
        kept: None,
        machines,
        left,
    })
}

/// Makes the state again.
fn rebuild<'a>(
    project: &'a Name,
    repair: Repair,
    host: &Arc<RouterHypervisor>,
    reason: String,
) -> Result<Document<'a>, CliError> {
    let runtime = small_runtime()?;
    let lineage = repair.lineage()?;
    let published = match repair.published() {
        Ok(published) => published,
        Err(error) if error.kind() == StoreErrorKind::Damaged => {
            tracing::info!(%error, "it is made again without what was published");
            None
        }
        Err(error) => return Err(error.into()),
    };
    // One of another project was put there together with that project's store.
    let published = published.filter(|found| lineage.is_none_or(|lineage| lineage == found.lineage));
    let strays = runtime.block_on(host.strays(project, &BTreeSet::new()))?;
    let found = Found::of(&strays);
    let base = published.map(|snapshot| (Source::Snapshot, snapshot));
    let now = Timestamp::now();
    let mut salvaged = salvage(base, &found.notes, lineage, repair.highest_serial()?, now);
    for stray in &strays {
        let is_recorded = salvaged.snapshot.records.values().any(|record| record.instance == stray.id.0);
        let is_told = stray.released || salvaged.unused.contains_key(&stray.id.0);
        if !is_recorded
            && !is_told
            && let Some(record) = record_of(stray, now)
        {
            salvaged.add(record);
        }
    }
    let machines = runtime.block_on(seen(host, &salvaged))?;
    let left = found.left(&strays, &salvaged);
    let Salvaged { snapshot, .. } = salvaged;
    let kept = repair.replace(&snapshot, Kept::Damaged)?;
    let at = NotedAt { lineage: snapshot.lineage, serial: snapshot.serial };
    let noted = runtime.block_on(note_down(&**host, at, snapshot.records.values()));
    noted.map_err(|error| CliError::of(&error))?;
    Ok(Document {
        format: JSON_FORMAT,
        project,
        outcome: Outcome::Rebuilt,
        reason: Some(reason),
        serial: snapshot.serial,
        lineage: snapshot.lineage,
        kept,
        machines,
        left,
    })
}

/// What the machines' folders say.
struct Found {
    notes: Vec<Note>,
    /// Instances whose note cannot be used, with the reason.
    unreadable: Vec<(Uuid, String)>,
}

impl Found {
    fn of(strays: &[Stray]) -> Self {
        let mut found = Self { notes: Vec::new(), unreadable: Vec::new() };
        for stray in strays.iter().filter(|stray| !stray.released) {
            match stray.note.as_ref().map(Note::parse) {
                Some(Ok(note)) if note.record.instance == stray.id.0 => found.notes.push(note),
                Some(Ok(_)) => {
                    found.unreadable.push((stray.id.0, "its note is about another machine".to_owned()))
                }
                Some(Err(reason)) => {
                    found.unreadable.push((stray.id.0, format!("its note cannot be used: {reason}")))
                }
                None => {}
            }
        }
        found
    }

    /// The machines that were found and are not recorded, with the reason.
    fn left(&self, strays: &[Stray], salvaged: &Salvaged) -> Vec<Left> {
        let recorded: BTreeSet<_> =
            salvaged.snapshot.records.values().map(|record| record.instance).collect();
        let strays = strays.iter().filter(|stray| !recorded.contains(&stray.id.0));
        strays
            .map(|stray| {
                let reason = match salvaged.unused.get(&stray.id.0) {
                    _ if stray.released => "it was let go of with `state rm`".to_owned(),
                    Some(Unused::Foreign) => "its note is of another state's history".to_owned(),
                    Some(Unused::Displaced) => "another machine, recorded later, has its name".to_owned(),
                    None => {
                        let unreadable = self.unreadable.iter().find(|(id, _)| *id == stray.id.0);
                        unreadable
                            .map_or_else(|| "nothing was noted about it".to_owned(), |(_, why)| why.clone())
                    }
                };
                Left {
                    name: stray.name.clone(),
                    instance: stray.id.0,
                    folder: stray.work_dir.clone(),
                    pid: stray.pid,
                    reason,
                }
            })
            .collect()
    }
}

/// Looks at every machine.
async fn seen(host: &Arc<RouterHypervisor>, salvaged: &Salvaged) -> Result<Vec<Machine>, CliError> {
    let observed = refresh(host, &salvaged.snapshot).await.map_err(|error| CliError::of(&error))?;
    let machines = salvaged.snapshot.records.iter().map(|(address, record)| Machine {
        address: address.to_string(),
        instance: record.instance,
        source: salvaged.sources[address],
        state: match observed.vms.get(address) {
            Some(Sight::Seen(found)) => Some(found.state),
            Some(Sight::Unreachable { .. }) | None => None,
        },
        taint: record.taint.clone(),
    });
    Ok(machines.collect())
}

fn text(document: &Document<'_>) -> String {
    let Document { project, outcome, reason, serial, lineage, kept, machines, left, .. } = document;
    let mut text = match outcome {
        Outcome::Whole => format!("The state of project `{project}` is whole, and nothing was changed.\n"),
        Outcome::Adopted => {
            format!(
                "The state of project `{project}` is whole; machines that it did not know were taken back.\n"
            )
        }
        Outcome::Rebuilt => format!("The state of project `{project}` is made again.\n"),
    };
    if let Some(reason) = reason {
        text.push_str(&format!("{LABEL}reason{LABEL:#}: {}\n", ui::visible(reason)));
    }
    text.push_str(&format!("{LABEL}now{LABEL:#}: serial {serial}, lineage {lineage}\n"));
    for machine in machines {
        let source = match machine.source {
            Source::State => "in the state",
            Source::Snapshot => "from what was published",
            Source::Note => "from the note in its folder",
            Source::Folder => "from its folder",
        };
        let state = machine.state.map_or("does not answer", VmState::as_str);
        let taint = machine.taint.as_ref().map(|why| format!("; tainted: {}", ui::visible(why)));
        text.push_str(&format!("  {}: {state}, {source}{}\n", machine.address, taint.unwrap_or_default()));
    }
    for machine in left {
        let folder = machine.folder.as_deref().map(Path::display);
        let folder = folder.map(|folder| format!(", folder `{folder}`")).unwrap_or_default();
        let pid = machine.pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
        let (name, reason) = (ui::visible(&machine.name), ui::visible(&machine.reason));
        text.push_str(&format!("  not taken: `{name}` ({reason}{folder}{pid})\n"));
    }
    if let Some(kept) = kept {
        text.push_str(&format!("{LABEL}what was there is kept in{LABEL:#} `{}`\n", kept.display()));
    }
    if *outcome == Outcome::Rebuilt {
        text.push_str("`vmctl plan` shows what is left to do.\n");
    }
    text
}

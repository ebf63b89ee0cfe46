//! The VMFile that a project has of its own, of machines that were made by command: kept true to what commands do.
//!
//! ```text
//! lock ─▶ begin: the text says what was agreed to ─▶ steps ─▶ settle: the text says what is recorded now ─▶ unlock
//! ```
//!
//! What is agreed to is written first, so that a run that is killed is gone on with by the next `vmctl apply` and not
//! taken back.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use vmctl_planner::{Action, Mode, Plan, Power, Turn, brought_to, vmfile};
use vmctl_providers::Name;
use vmctl_state::{Address, Phase, ProjectDir, Reserve, Snapshot, Store, project};

use crate::args::LockArgs;
use crate::context::Context;
use crate::error::{CliError, Exit};

/// What is written above the machines.
const HEAD: &str = "// Machines that were made by command. `vmctl create` adds one here, and `vmctl destroy` takes it out.\n";

/// The own VMFile of a project whose lock is held.
#[derive(Debug)]
pub(crate) struct Own {
    dir: ProjectDir,
    /// What it said when the command began; `None` if it was not there.
    before: Option<String>,
    /// A machine that was added, and goes again if nothing comes of it.
    added: Option<String>,
    /// Something was begun that may be recorded.
    is_begun: AtomicBool,
}

impl Own {
    /// The own VMFile of `project`, which need not be there yet. The project's lock must be held.
    pub(crate) fn open(ctx: &Context, project: &Name) -> Result<Self, CliError> {
        let dir = ctx.project_dir(project)?;
        let before = text(&dir.vmfile())?;
        Ok(Self { dir, before, added: None, is_begun: AtomicBool::new(false) })
    }

    /// The same, if it is there.
    pub(crate) fn of(ctx: &Context, project: &Name) -> Result<Option<Self>, CliError> {
        let own = Self::open(ctx, project)?;
        Ok(own.before.is_some().then_some(own))
    }

    /// Its path, for messages.
    fn shown(&self) -> String {
        self.dir.vmfile().display().to_string()
    }

    /// Adds the block of a machine, in place of one that nothing came of.
    pub(crate) fn add(&mut self, name: &Name, block: &str) -> Result<(), CliError> {
        let text = self.before.clone().unwrap_or_else(|| HEAD.to_owned());
        let text = self.without(text, name.as_str())?;
        self.write(&vmfile::with_machine(&self.shown(), &text, block)?)?;
        self.added = Some(name.to_string());
        Ok(())
    }

    /// Adds the blocks of machines that it does not describe yet.
    pub(crate) fn extend<'b>(&self, blocks: impl IntoIterator<Item = &'b str>) -> Result<(), CliError> {
        let mut text = self.before.clone().unwrap_or_else(|| HEAD.to_owned());
        for block in blocks {
            text = vmfile::with_machine(&self.shown(), &text, block)?;
        }
        self.write(&text)
    }

    /// The machines that have a block of their own.
    pub(crate) fn machines(&self) -> Result<Vec<String>, CliError> {
        Ok(vmfile::machines(&self.shown(), self.before.as_deref().unwrap_or_default())?)
    }

    /// Puts back what it said when the command began.
    pub(crate) fn restore(&self) -> Result<(), CliError> {
        Ok(self.dir.write_vmfile(self.before.as_deref())?)
    }

    /// Takes machines out, and it with the last one.
    pub(crate) fn remove(&self, names: &[&str]) -> Result<(), CliError> {
        let Some(mut text) = self.before.clone() else { return Ok(()) };
        for name in names {
            text = self.without(text, name)?;
        }
        self.write(&text)
    }

    /// Gives a machine another name; false if it does not describe it.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<bool, CliError> {
        let Some(text) = &self.before else { return Ok(false) };
        // The guest keeps the name that it was given.
        let hostname = from.parse::<Name>().map_or_else(|_| from.to_owned(), |name| name.to_hostname());
        let renamed = vmfile::with_name(&self.shown(), text, from, to, &hostname)?;
        renamed.iter().try_for_each(|text| self.write(text))?;
        Ok(renamed.is_some())
    }

    /// Writes what was agreed to, before anything is done.
    pub(crate) fn begin(&self, plan: &Plan) -> Result<(), CliError> {
        self.is_begun.store(true, Ordering::Relaxed);
        let Some(mut text) = self.before.clone().filter(|_| self.added.is_none()) else { return Ok(()) };
        for change in plan.effective() {
            let name = change.address.name();
            text = match (plan.options.mode, change.action) {
                (Mode::Turn(turn), _) => self.in_power(text, name, power_of(turn))?,
                (Mode::Destroy, Action::Destroy) => self.without(text, name)?,
                _ => text,
            };
        }
        self.write(&text)
    }

    /// Whether what is recorded now is what it is to say. Where nobody can tell what is, what was agreed to counts; where
    /// nothing was agreed to, only a machine that was added goes again.
    pub(crate) fn is_to_settle(&self, ended: Option<&Exit>) -> bool {
        let is_begun = self.is_begun.load(Ordering::Relaxed);
        match ended {
            Some(Exit::Fine) => true,
            Some(_) => is_begun || self.added.is_some(),
            None => !is_begun && self.added.is_some(),
        }
    }

    /// Writes what is recorded of the machines that the command was about.
    pub(crate) fn settle(
        &self,
        mode: Mode,
        targets: &BTreeSet<Name>,
        now: &Snapshot,
    ) -> Result<(), CliError> {
        let record = |name: &str| now.records.get(&Address::vm(name));
        if let Some(name) = self.added.as_ref().filter(|name| record(name).is_none()) {
            tracing::debug!(%name, "nothing was made, so that its block goes again");
            return self.restore();
        }
        let Some(mut text) = self.before.clone().filter(|_| self.added.is_none()) else { return Ok(()) };
        match mode {
            Mode::Turn(_) => {
                for name in targets {
                    if let Some(power) = record(name.as_str()).and_then(|record| brought_to(record.phase)) {
                        text = self.in_power(text, name.as_str(), power)?;
                    }
                }
            }
            Mode::Destroy => {
                for name in vmfile::machines(&self.shown(), &text)? {
                    let is_meant = targets.is_empty() || targets.iter().any(|target| target.as_str() == name);
                    let is_going = record(&name).is_none_or(|record| record.phase == Phase::Destroying);
                    // What needs a machine goes with it, whether or not it was named.
                    let was_known = is_meant || self.is_taken_out(&name)?;
                    if was_known && is_going {
                        text = self.without(text, &name)?;
                    }
                }
            }
            Mode::Normal | Mode::RefreshOnly | Mode::Provision => {}
        }
        self.write(&text)
    }

    /// Whether [`Own::begin`] took it out.
    fn is_taken_out(&self, name: &str) -> Result<bool, CliError> {
        let now = text(&self.dir.vmfile())?.unwrap_or_default();
        Ok(!vmfile::machines(&self.shown(), &now)?.iter().any(|known| known == name))
    }

    fn without(&self, text: String, name: &str) -> Result<String, CliError> {
        Ok(vmfile::without_machine(&self.shown(), &text, name)?.unwrap_or(text))
    }

    fn in_power(&self, text: String, name: &str, power: Power) -> Result<String, CliError> {
        Ok(vmfile::with_power(&self.shown(), &text, name, power)?.unwrap_or(text))
    }

    /// Writes `new`, unless that is what it says. Where it describes no machine any more, it goes.
    fn write(&self, new: &str) -> Result<(), CliError> {
        let path = self.dir.vmfile();
        let new = Some(new).filter(|text| vmfile::describes_machines(&self.shown(), text).unwrap_or(true));
        if text(&path)?.as_deref() != new {
            self.dir.write_vmfile(new)?;
        }
        Ok(())
    }
}

/// The machines that the own VMFile of `project` describes by blocks of their own and that `recorded` does not hold.
pub(crate) fn unmade(
    ctx: &Context,
    project: &Name,
    recorded: &BTreeSet<&str>,
) -> Result<Vec<String>, CliError> {
    let Some(own) = Own::of(ctx, project)? else { return Ok(Vec::new()) };
    Ok(own.machines()?.into_iter().filter(|name| !recorded.contains(name.as_str())).collect())
}

/// Takes machines out that are described and were never made, and returns the other ones of `names`: there is nothing
/// else of them to remove.
pub(crate) fn leave_unmade(ctx: &Context, lock: &LockArgs, names: Vec<Name>) -> Result<Vec<Name>, CliError> {
    let Some(project) = ctx.named_project()? else { return Ok(names) };
    let dir = ctx.project_dir(&project)?;
    let recorded = project::read(&dir)?.map(|state| state.records).unwrap_or_default();
    let unmade = unmade(ctx, &project, &recorded.keys().map(Address::name).collect())?;
    let (gone, left): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|name| unmade.iter().any(|unmade| unmade == name.as_str()));
    if gone.is_empty() {
        return Ok(left);
    }
    let writer = ctx.writer(&dir, "destroy", lock, Reserve::Spend)?;
    // What is recorded meanwhile is there.
    let now = writer.snapshot()?.records;
    let (there, gone): (Vec<_>, Vec<_>) =
        gone.into_iter().partition(|name| now.contains_key(&Address::vm(name.as_str())));
    Own::open(ctx, &project)?.remove(&gone.iter().map(Name::as_str).collect::<Vec<_>>())?;
    writer.close()?;
    for name in gone {
        ctx.note(&format!("`vm.{name}` was never made; it is described no longer."));
    }
    Ok(left.into_iter().chain(there).collect())
}

fn text(path: &Path) -> Result<Option<String>, CliError> {
    match fs::metadata(path) {
        Ok(_) => Ok(Some(vmfile::text(path)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CliError::new(format!("cannot read `{}`", path.display())).because(&error)),
    }
}

fn power_of(turn: Turn) -> Power {
    match turn {
        Turn::Start | Turn::Resume => Power::Running,
        Turn::Stop => Power::Stopped,
        Turn::Suspend => Power::Suspended,
    }
}

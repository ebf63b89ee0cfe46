//! `plan`: shows what `apply` would do.

use std::path::Path;

use jiff::Timestamp;
use uuid::Uuid;
use vmctl_planner::{
    Desired, Inputs, Mode, Observed, Options, Plan, PlanDocument, PlanError, SavedPlan, checks, observed,
    other_vmfile, refresh,
};
use vmctl_providers::{Name, RouterHypervisor};
use vmctl_state::{ProjectDir, Snapshot, project};

use crate::args::{ChecksWhen, PlanArgs, PlanningArgs};
use crate::context::{Context, large_runtime};
use crate::error::{CliError, Exit};
use crate::{files, machines, output};

/// Runs the command.
pub(crate) fn run(ctx: &Context, args: &PlanArgs) -> Result<Exit, CliError> {
    let goal = Goal::of(ctx, &args.planning)?;
    let look = Look { refresh: !args.planning.no_refresh, checks: args.checks };
    let (plan, observed) = goal.plan_now(ctx, look)?;
    let document = PlanDocument::from(&plan);
    output::plan(&document, &args.output)?;
    refuse(&document)?;
    if let Some(path) = &args.out {
        save(path, &plan, &observed)?;
        let shown = path.display();
        ctx.note(&format!("Saved to `{shown}`. `vmctl apply {shown}` does just that."));
    }
    if args.checks == ChecksWhen::Fail {
        output::fail_on_checks(&plan.checks)?;
    }
    Ok(if args.detailed_exitcode && !plan.is_settled() { Exit::Changes } else { Exit::Fine })
}

/// What is planned towards.
#[derive(Debug)]
pub(super) struct Goal {
    pub(super) project: Name,
    /// What the VMFile asks for; absent where none is needed.
    pub(super) desired: Option<Desired>,
    pub(super) options: Options,
}

/// What is asked of the host while planning.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) refresh: bool,
    pub(super) checks: ChecksWhen,
}

impl Goal {
    /// The goal that the options name.
    ///
    /// To remove everything, the project must be told in one way or another; to refresh, a VMFile helps and is not
    /// needed.
    pub(super) fn of(ctx: &Context, planning: &PlanningArgs) -> Result<Self, CliError> {
        let mode = match planning {
            PlanningArgs { destroy: true, .. } => Mode::Destroy,
            PlanningArgs { refresh_only: true, .. } => Mode::RefreshOnly,
            PlanningArgs { .. } => Mode::Normal,
        };
        let options = Options {
            mode,
            targets: planning.target.iter().cloned().collect(),
            excludes: planning.exclude.iter().cloned().collect(),
            replace: planning.replace.iter().cloned().collect(),
        };
        match mode {
            Mode::Normal => {
                let desired = ctx.load()?;
                Ok(Self { project: desired.project.clone(), desired: Some(desired), options })
            }
            Mode::Destroy => match ctx.named_project()? {
                Some(project) => Ok(Self { project, desired: None, options }),
                None => Err(CliError::new("nothing says which project to destroy: no VMFile is here").help(
                    "change to the project's folder, or pass --file PATH or --project NAME".to_owned(),
                )),
            },
            Mode::RefreshOnly if ctx.has_vmfile() => {
                let desired = ctx.load()?;
                Ok(Self { project: desired.project.clone(), desired: Some(desired), options })
            }
            Mode::RefreshOnly => match ctx.project()? {
                Some(project) => Ok(Self { project, desired: None, options }),
                None => {
                    Err(CliError::new("there is nothing to look at: no VMFile is here and no project exists")
                        .help(
                            "change to the project's folder, or pass --file PATH or --project NAME"
                                .to_owned(),
                        ))
                }
            },
        }
    }

    /// Reads the state without the right to write it, looks, and plans.
    pub(super) fn plan_now(&self, ctx: &Context, look: Look) -> Result<(Plan, Observed), CliError> {
        let dir = ctx.project_dir(&self.project)?;
        let recorded = recorded(&dir)?;
        let host = ctx.hypervisor(&dir)?;
        large_runtime()?.block_on(self.plan(ctx, &dir, &recorded, &host, look))
    }

    /// Looks at what runs, unless told not to, and plans.
    pub(super) async fn plan(
        &self,
        ctx: &Context,
        dir: &ProjectDir,
        recorded: &Snapshot,
        host: &RouterHypervisor,
        look: Look,
    ) -> Result<(Plan, Observed), CliError> {
        if let Some(desired) = self.desired.as_ref().filter(|_| self.options.mode == Mode::Normal) {
            refuse_other_copy(ctx, desired, recorded)?;
        }
        let observed =
            if look.refresh { self.observe(recorded, host, look.checks).await? } else { Observed::default() };
        let plan = self.plan_from(ctx, dir, recorded, &observed)?;
        Ok((plan, observed))
    }

    async fn observe(
        &self,
        recorded: &Snapshot,
        host: &RouterHypervisor,
        asked: ChecksWhen,
    ) -> Result<Observed, CliError> {
        let desired = self.desired.as_ref();
        let mut observed = refresh(host, recorded).await.map_err(|error| CliError::of(&error))?;
        observed.strays = observed::strays(host, &self.project, recorded, desired).await?;
        if let Some(desired) = desired.filter(|_| asked != ChecksWhen::Skip) {
            observed.checks = checks::ask(host, desired, &observed).await;
        }
        Ok(observed)
    }

    /// Plans from what was observed.
    pub(super) fn plan_from(
        &self,
        ctx: &Context,
        dir: &ProjectDir,
        recorded: &Snapshot,
        observed: &Observed,
    ) -> Result<Plan, CliError> {
        let inputs = Inputs {
            project: &self.project,
            desired: self.desired.as_ref(),
            recorded,
            observed,
            images: &ctx.images()?,
            options: &self.options,
        };
        let mut plan = Plan::new(inputs).map_err(|error| explain(&error))?;
        if let Some(desired) = &self.desired {
            plan.show_texts(desired, recorded, |digest| dir.text(digest))
                .map_err(|error| CliError::of(&error))?;
        }
        Ok(plan)
    }
}

/// What is recorded; for a project without a state, an empty one under the lineage that it will have.
fn recorded(dir: &ProjectDir) -> Result<Snapshot, CliError> {
    Ok(match project::read(dir)? {
        Some(recorded) => recorded,
        None => Snapshot::empty(lineage(dir), Timestamp::now()),
    })
}

/// The lineage of a state that may not be there yet. Where none can be reserved, a plan stands for itself alone.
pub(super) fn lineage(dir: &ProjectDir) -> Uuid {
    let fresh = Uuid::new_v4();
    project::reserve_lineage(dir, fresh).unwrap_or_else(|error| {
        tracing::warn!(%error, "no lineage can be reserved; the next plan will have another");
        fresh
    })
}

fn explain(error: &PlanError) -> CliError {
    let this = CliError::of(error);
    match error {
        PlanError::Unknown(unknown) => {
            let names: Vec<_> = unknown.known.iter().map(Name::as_str).collect();
            this.help(machines::suggestion(unknown.name.as_str(), &names))
        }
        PlanError::MoveOntoExisting { from, to } => this.help(format!(
            "remove the `moved` node, or let go of one of them first: `vmctl state rm {}`, or destroy `{to}`",
            from.name()
        )),
        _ => this,
    }
}

/// Ends with what forbids the plan, if something does.
pub(super) fn refuse(plan: &PlanDocument<'_>) -> Result<(), CliError> {
    let refused: Vec<_> = plan
        .changes
        .iter()
        .filter(|change| change.refused.is_some())
        .map(|change| change.address.name())
        .collect();
    if refused.is_empty() {
        return Ok(());
    }
    let names = refused.join("`, `");
    let out = refused.iter().map(|name| format!("--exclude {name}")).collect::<Vec<_>>().join(" ");
    Err(CliError::new(format!("`prevent-destroy` protects `{names}`, so nothing can be applied")).help(format!(
        "to give the protection up, take `prevent-destroy` out of the machine's block and apply that first; to let go \
         of a machine without touching it, write `removed \"{}\"`; to go on without it, pass {out}",
        refused[0]
    )))
}

fn save(path: &Path, plan: &Plan, observed: &Observed) -> Result<(), CliError> {
    let bytes = SavedPlan::new(plan, observed, env!("CARGO_PKG_VERSION")).to_bytes();
    files::write_private(path, &bytes)
}

/// Refuses a second copy of a VMFile whose machines belong to the first: it would destroy and replace them.
///
/// A file that is gone was moved, and whoever names the project by an option knows what it holds.
fn refuse_other_copy(ctx: &Context, desired: &Desired, recorded: &Snapshot) -> Result<(), CliError> {
    let Some(own) = desired.inputs.first() else { return Ok(()) };
    let other = other_vmfile(recorded, &own.path).map_err(|error| CliError::of(&error))?;
    match other.filter(|path| path.exists() && ctx.settings.project.is_none()) {
        None => Ok(()),
        Some(other) => Err(CliError::new(format!(
            "project `{}` belongs to `{}`, and this is `{}`",
            desired.project,
            other.display(),
            own.path.display()
        ))
        .help(format!(
            "for machines of its own, write `project \"NAME\"` or pass --project NAME; to work on those of the other \
             file, pass --project {}",
            desired.project
        ))),
    }
}

/// Nothing was ever made, so there is nothing to remove.
pub(super) fn nothing_there(ctx: &Context) -> Exit {
    ctx.note("No project exists here, so there is nothing to destroy.");
    Exit::Fine
}

//! `plan`: shows what `apply` would do.

use jiff::Timestamp;
use uuid::Uuid;
use vmctl_planner::{Desired, Inputs, Observed, Plan, PlanDocument, other_vmfile, refresh};
use vmctl_providers::{Name, RouterHypervisor};
use vmctl_state::Snapshot;

use crate::args::PlanArgs;
use crate::context::{Context, large_runtime};
use crate::error::{CliError, Exit};
use crate::{render, ui};

/// Runs the command.
pub(crate) fn run(ctx: &Context, args: &PlanArgs) -> Result<Exit, CliError> {
    let goal = Goal::of(ctx, args.destroy)?;
    let dir = ctx.project_dir(&goal.project)?;
    let recorded = vmctl_state::project::read(&dir)?
        .unwrap_or_else(|| Snapshot::empty(Uuid::new_v4(), Timestamp::now()));
    let host = ctx.hypervisor(&dir)?;
    let plan = large_runtime()?.block_on(make(ctx, &goal, &recorded, &host, !args.no_refresh))?;
    if args.json {
        ui::print_json(&PlanDocument::from(&plan))?;
    } else {
        ui::print(&render::plan(&plan))?;
    }
    Ok(if args.detailed_exitcode && !plan.is_empty() { Exit::Changes } else { Exit::Fine })
}

/// What is planned towards.
#[derive(Debug)]
pub(super) struct Goal {
    pub(super) project: Name,
    /// `None` asks for everything to be removed.
    pub(super) desired: Option<Desired>,
}

impl Goal {
    /// The VMFile's goal, or nothing at all for `destroy`, which must be told the project in one way or another.
    pub(super) fn of(ctx: &Context, destroy: bool) -> Result<Self, CliError> {
        if !destroy {
            let desired = ctx.load()?;
            return Ok(Self { project: desired.project.clone(), desired: Some(desired) });
        }
        match ctx.named_project()? {
            Some(project) => Ok(Self { project, desired: None }),
            None => Err(CliError::new("nothing says which project to destroy: no VMFile is here")
                .help("change to the project's folder, or pass --file PATH or --project NAME".to_owned())),
        }
    }
}

/// Looks at what runs, unless told not to, and plans.
pub(super) async fn make(
    ctx: &Context,
    goal: &Goal,
    recorded: &Snapshot,
    host: &RouterHypervisor,
    look: bool,
) -> Result<Plan, CliError> {
    if let Some(desired) = &goal.desired {
        refuse_other_copy(ctx, desired, recorded)?;
    }
    let observed = if look {
        refresh(host, recorded).await.map_err(|error| CliError::of(&error))?
    } else {
        Observed::default()
    };
    let inputs = Inputs {
        project: &goal.project,
        desired: goal.desired.as_ref(),
        recorded,
        observed: &observed,
        images: &ctx.images()?,
    };
    Plan::new(inputs).map_err(|error| CliError::of(&error))
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

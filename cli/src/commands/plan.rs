//! `plan`: shows what `apply` would do.

use jiff::Timestamp;
use uuid::Uuid;
use vmctl_planner::{Desired, Inputs, Observed, Plan, PlanDocument, refresh};
use vmctl_providers::{Name, RouterHypervisor};
use vmctl_state::Snapshot;

use crate::args::PlanArgs;
use crate::context::{Context, large_runtime};
use crate::error::{CliError, Exit};
use crate::{render, ui};

/// Runs the command.
pub(crate) fn run(ctx: &Context, args: &PlanArgs) -> Result<Exit, CliError> {
    let Some(goal) = Goal::of(ctx, args.destroy)? else { return Ok(nothing_there(ctx)) };
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
    /// The VMFile's goal, or nothing at all for `destroy`; `None` if there is no project to destroy.
    pub(super) fn of(ctx: &Context, destroy: bool) -> Result<Option<Self>, CliError> {
        if destroy {
            return Ok(ctx.project()?.map(|project| Self { project, desired: None }));
        }
        let desired = ctx.load()?;
        Ok(Some(Self { project: desired.project.clone(), desired: Some(desired) }))
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

/// Nothing was ever made, so there is nothing to remove.
pub(super) fn nothing_there(ctx: &Context) -> Exit {
    ctx.note("No project exists here, so there is nothing to destroy.");
    Exit::Fine
}

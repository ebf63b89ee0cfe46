//! `drift`: shows where machines are not what was recorded.

use vmctl_planner::PlanDocument;

use super::plan::{Goal, Look};
use crate::args::{ChecksWhen, DriftArgs, PlanningArgs};
use crate::context::Context;
use crate::error::{CliError, Exit};
use crate::output;

/// Runs the command.
pub(crate) fn run(ctx: &Context, args: &DriftArgs) -> Result<Exit, CliError> {
    let planning = PlanningArgs {
        refresh_only: true,
        target: args.target.clone(),
        exclude: args.exclude.clone(),
        ..PlanningArgs::default()
    };
    let goal = Goal::of(ctx, &planning)?;
    let (plan, _) = goal.plan_now(
        ctx,
        Look { refresh: true, checks: args.checks, upstream: true, overcommit: false, ahead: false },
    )?;
    output::plan(&PlanDocument::from(&plan), &args.output, None)?;
    if args.checks == ChecksWhen::Fail {
        output::fail_on_checks(&plan.checks)?;
    }
    Ok(if plan.has_drift() { Exit::Changes } else { Exit::Fine })
}

//! `graph`: the VMFile's machines, or a plan's steps, as a picture.

use vmctl_planner::PlanDocument;
use vmctl_planner::picture::{Picture, dot, mermaid, svg};

use super::plan::{Goal, Look};
use crate::args::{ChecksWhen, GraphArgs, GraphFormat, PlanningArgs};
use crate::context::Context;
use crate::error::{CliError, Exit};
use crate::{saved, ui};

/// Runs the command.
pub(crate) fn run(ctx: &Context, args: &GraphArgs) -> Result<Exit, CliError> {
    let picture = match &args.saved {
        Some(path) => Picture::from(&saved::read(path)?.plan.graph()),
        None if args.plan => {
            let goal = Goal::of(ctx, &PlanningArgs::default())?;
            let (plan, _) = goal.plan_now(
                ctx,
                Look {
                    refresh: true,
                    checks: ChecksWhen::Skip,
                    upstream: false,
                    overcommit: false,
                    ahead: false,
                },
            )?;
            Picture::from(&PlanDocument::from(&plan).graph())
        }
        None => Picture::from(&ctx.load()?.desired),
    };
    let text = match args.format {
        GraphFormat::Dot => dot(&picture),
        GraphFormat::Svg => svg(&picture),
        GraphFormat::Mermaid => mermaid(&picture),
    };
    ui::print_bytes(text.as_bytes())?;
    Ok(Exit::Fine)
}

//! The JSON form of a plan; documented in `docs/json.md`.

use serde::Serialize;
use uuid::Uuid;
use vmctl_providers::Name;

use crate::change::Change;
use crate::desired::InputFile;
use crate::graph::StepId;
use crate::plan::{FORMAT_VERSION, Plan, Summary};
use crate::step::Step;

/// A plan as printed with `--json`.
#[derive(Debug, Serialize)]
pub struct PlanDocument<'a> {
    format: u32,
    project: &'a Name,
    lineage: Uuid,
    serial: u64,
    summary: Summary,
    changes: &'a [Change],
    steps: Vec<StepDocument<'a>>,
    inputs: &'a [InputFile],
}

/// A step and what it waits for.
#[derive(Debug, Serialize)]
struct StepDocument<'a> {
    id: StepId,
    #[serde(flatten)]
    step: &'a Step,
    after: Vec<StepId>,
}

impl<'a> From<&'a Plan> for PlanDocument<'a> {
    fn from(plan: &'a Plan) -> Self {
        let steps =
            plan.graph.steps().map(|(id, step)| StepDocument { id, step, after: plan.graph.before(id) });
        Self {
            format: FORMAT_VERSION,
            project: &plan.project,
            lineage: plan.lineage,
            serial: plan.serial,
            summary: plan.summary(),
            changes: &plan.changes,
            steps: steps.collect(),
            inputs: &plan.inputs,
        }
    }
}

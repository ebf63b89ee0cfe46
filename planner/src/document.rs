//! The JSON form of a plan, which is also what every printer works on; documented in `docs/json.md`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;
use vmctl_providers::{Name, Stray};

use crate::admission::Shortage;
use crate::change::Change;
use crate::checks::CheckResult;
use crate::desired::InputFile;
use crate::graph::{StepGraph, StepId};
use crate::observed::Looked;
use crate::pins::PlannedPin;
use crate::plan::{FORMAT_VERSION, Plan, Summary};
use crate::scope::Options;
use crate::step::Step;
use crate::volumes::KeptVolume;

/// A plan as printed with `--json`, and as it stands in a saved plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanDocument<'a> {
    /// [`FORMAT_VERSION`] of the writer.
    pub format: u32,
    /// The project.
    pub project: Cow<'a, Name>,
    /// Lineage of the state it was made for.
    pub lineage: Uuid,
    /// Serial of the state it was made for.
    pub serial: u64,
    /// How it was made.
    #[serde(flatten)]
    pub options: Cow<'a, Options>,
    /// Whether there is anything to do.
    pub empty: bool,
    /// How many machines each kind of change concerns.
    pub summary: Summary,
    /// The decisions, by address; addresses without a change included.
    pub changes: Cow<'a, [Change]>,
    /// The steps and their order.
    pub steps: Vec<StepDocument<'a>>,
    /// What was looked at when it was made.
    #[serde(flatten)]
    pub looked: Looked,
    /// What the VMFile's author may not have meant.
    pub warnings: Cow<'a, [Value]>,
    /// What the host has too little of for it.
    pub shortages: Cow<'a, [Shortage]>,
    /// Machines with our mark that no record knows.
    pub strays: Cow<'a, [Stray]>,
    /// Volumes that stay although no machine needs them once the plan is carried out.
    #[serde(default)]
    pub kept: Cow<'a, [KeptVolume]>,
    /// What became of the checks that were asked.
    pub checks: Cow<'a, [CheckResult]>,
    /// Files that decided the desired state, the VMFile first.
    pub inputs: Cow<'a, [InputFile]>,
    /// Image files, as the VMFile names them.
    pub images: Cow<'a, [InputFile]>,
    /// Images from the network, and what they are pinned to.
    #[serde(default)]
    pub pins: Cow<'a, [PlannedPin]>,
}

/// A step and what it waits for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepDocument<'a> {
    /// Its number.
    pub id: StepId,
    /// What it does to what.
    #[serde(flatten)]
    pub step: Cow<'a, Step>,
    /// The steps that it waits for.
    pub after: Vec<StepId>,
    /// Those of them that it does not need: it begins once they have ended, well or not.
    #[serde(default)]
    pub either_way: Vec<StepId>,
}

impl<'a> From<&'a Plan> for PlanDocument<'a> {
    fn from(plan: &'a Plan) -> Self {
        let steps = plan.graph.steps().map(|(id, step)| StepDocument {
            id,
            step: Cow::Borrowed(step),
            after: plan.graph.before(id),
            either_way: plan.graph.before_either_way(id),
        });
        Self {
            format: FORMAT_VERSION,
            project: Cow::Borrowed(&plan.project),
            lineage: plan.lineage,
            serial: plan.serial,
            options: Cow::Borrowed(&plan.options),
            empty: plan.is_empty(),
            summary: plan.summary(),
            changes: Cow::Borrowed(&plan.changes),
            steps: steps.collect(),
            looked: plan.looked,
            warnings: Cow::Borrowed(&plan.warnings),
            shortages: Cow::Borrowed(&plan.shortages),
            strays: Cow::Borrowed(&plan.strays),
            kept: Cow::Borrowed(&plan.kept),
            checks: Cow::Borrowed(&plan.checks),
            inputs: Cow::Borrowed(&plan.inputs),
            images: Cow::Borrowed(&plan.image_files),
            pins: Cow::Borrowed(&plan.pins),
        }
    }
}

impl PlanDocument<'_> {
    /// The steps as a graph again.
    pub fn graph(&self) -> StepGraph {
        let mut graph = StepGraph::default();
        for step in &self.steps {
            graph.add(step.step.clone().into_owned());
        }
        let count = graph.len();
        for step in self.steps.iter().filter(|step| step.id.0 < count) {
            for before in step.after.iter().filter(|before| before.0 < count) {
                if step.either_way.contains(before) {
                    graph.order_either_way(*before, step.id);
                } else {
                    graph.order(*before, step.id);
                }
            }
        }
        graph
    }

    /// The changes that do something.
    pub fn effective(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.is_effective())
    }

    /// Whether recorded and observed differ anywhere.
    pub fn has_drift(&self) -> bool {
        !self.strays.is_empty() || self.changes.iter().any(|change| !change.drift.is_empty())
    }
}

//! What is seen to happen to machines while somebody follows.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use vmctl_planner::drift::drift;
use vmctl_providers::Name;
use vmctl_state::{Address, project};

use super::line::{Differs, Line, What};
use crate::context::Context;
use crate::error::CliError;
use crate::machines::{self, Machine};

/// What was seen last.
#[derive(Debug, Default)]
pub(super) struct Watch {
    seen: Option<BTreeMap<Address, Seen>>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Seen {
    state: String,
    drift: Vec<Differs>,
}

impl Watch {
    /// Looks at the machines called `vms`, all if there are none, and tells what changed since the last look. The first
    /// one tells what differs from what is recorded.
    pub(super) async fn look(
        &mut self,
        ctx: &Context,
        project: &Name,
        vms: &[Name],
    ) -> Result<Vec<Line>, CliError> {
        let dir = ctx.project_dir(project)?;
        let now = || -> Result<_, CliError> {
            let serial = project::read(&dir)?.map(|recorded| (recorded.lineage, recorded.serial));
            Ok((serial, project::at_work(&dir)?.is_some()))
        };
        let before = now()?;
        let machines = machines::all_now(ctx, project).await?;
        let after = now()?;
        // Who is at work is behind, or ahead of, what it recorded: that is no drift.
        let is_settled = before == after && !after.1;
        let asked =
            |machine: &&Machine| vms.is_empty() || vms.iter().any(|name| name.as_str() == machine.name());
        let mut seen = BTreeMap::new();
        for machine in machines.iter().filter(asked) {
            let differs = if is_settled {
                let drift = drift(&machine.record, machine.sight.as_ref());
                Some(drift.map_err(|error| CliError::of(&error))?.into_iter().map(Differs::from).collect())
            } else {
                None
            };
            seen.insert(machine.record.address.clone(), (machine.state().to_owned(), differs));
        }
        let time = Timestamp::now();
        Ok(self.changes(seen).into_iter().map(|what| Line::new(project, time, what)).collect())
    }

    /// What changed; `None` in place of drift where nobody can tell.
    fn changes(&mut self, now: BTreeMap<Address, (String, Option<Vec<Differs>>)>) -> Vec<What> {
        let is_first = self.seen.is_none();
        let mut known = self.seen.take().unwrap_or_default();
        let mut changes = Vec::new();
        let mut seen = BTreeMap::new();
        for (address, (state, differs)) in now {
            let before = known.remove(&address);
            let last = before.clone().unwrap_or_default();
            let drift = differs.unwrap_or_else(|| last.drift.clone());
            let kinds = |drift: &[Differs]| drift.iter().map(|one| one.kind as u8).collect::<BTreeSet<_>>();
            let drifted = kinds(&drift) != kinds(&last.drift);
            if drifted || (!is_first && before.as_ref().is_none_or(|before| before.state != state)) {
                changes.push(What::Observed {
                    address: address.clone(),
                    state: Some(state.clone()),
                    before: before.map(|before| before.state),
                    drift: drift.clone(),
                });
            }
            seen.insert(address, Seen { state, drift });
        }
        changes.extend(known.into_iter().map(|(address, gone)| What::Observed {
            address,
            state: None,
            before: Some(gone.state),
            drift: Vec::new(),
        }));
        self.seen = Some(seen);
        changes
    }
}

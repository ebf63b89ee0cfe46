//! `events`: what happened to machines: what vmctl did, from the journal, and what it sees happen.
//!
//! ```text
//! journal ── steps and runs that ended ──┐
//!                                        ├─▶ lines, in the order in which they are learned
//! looks ── state, drift (--follow) ──────┘
//! ```

mod line;
mod observed;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;
use vmctl_planner::vmfile;
use vmctl_providers::Name;
use vmctl_state::project::{History, LeftHistory, history};
use vmctl_state::{Address, Run};

use self::line::{Line, What};
use self::observed::Watch;
use crate::args::EventsArgs;
use crate::context::{Context, small_runtime};
use crate::error::{CliError, Exit};
use crate::terminal::Signals;
use crate::ui;
use crate::watch::LOOK;

/// Runs the command. With `--follow` it ends as interrupted.
pub(crate) fn run(ctx: &Context, args: &EventsArgs) -> Result<Exit, CliError> {
    let Some(project) = ctx.project()? else {
        ctx.note(&format!("Nothing happened yet: no {} was found and no project exists.", vmfile::FILE_NAME));
        return Ok(Exit::Fine);
    };
    let mut told = Told::new(args, &project);
    if !args.follow {
        let (found, at_work) = history(&ctx.project_dir(&project)?)?;
        let lines = told.news(&found);
        print(args, &lines)?;
        if lines.is_empty() {
            ctx.note("Nothing that the journal knows of happened.");
        }
        if let Some(holder) = at_work {
            ctx.note(&format!("{holder} is at work; what it did is shown when it is done."));
        }
        return Ok(Exit::Fine);
    }
    small_runtime()?.block_on(async {
        let mut signals = Signals::catch()?;
        tokio::select! {
            ended = follow(ctx, args, &project, &mut told) => ended,
            () = signals.any() => Ok(Exit::Interrupted),
        }
    })
}

/// Tells what comes, for ever.
async fn follow(
    ctx: &Context,
    args: &EventsArgs,
    project: &Name,
    told: &mut Told<'_>,
) -> Result<Exit, CliError> {
    let dir = ctx.project_dir(project)?;
    // Noted before: what is written meanwhile is news then.
    let mut left = LeftHistory::default();
    left.next(&dir)?;
    print(args, &told.news(&history(&dir)?.0))?;
    let mut watch = Watch::default();
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let mut lines = watch.look(ctx, project, &args.vms).await?;
        if let Some(found) = left.next(&dir)? {
            lines.splice(0..0, told.news(&found)).for_each(drop);
        }
        print(args, &lines)?;
    }
}

fn print(args: &EventsArgs, lines: &[Line]) -> Result<(), CliError> {
    for line in lines {
        let text = if args.json { ui::json_line(line)? } else { line.text() };
        ui::print(&text)?;
    }
    Ok(())
}

/// What of the journal was told.
struct Told<'a> {
    project: &'a Name,
    /// The machines that are asked about; all if empty.
    vms: BTreeSet<Address>,
    since: Option<Timestamp>,
    steps: BTreeSet<(Uuid, u64)>,
    runs: BTreeSet<Uuid>,
}

impl<'a> Told<'a> {
    fn new(args: &EventsArgs, project: &'a Name) -> Self {
        let vms = args.vms.iter().map(|name| Address::vm(name.as_str())).collect();
        Self { project, vms, since: args.since, steps: BTreeSet::new(), runs: BTreeSet::new() }
    }

    /// What is in the journal and was not told, by time.
    fn news(&mut self, found: &History) -> Vec<Line> {
        let runs: BTreeMap<Uuid, &Run> = found.runs.iter().map(|run| (run.id, run)).collect();
        let mut lines = Vec::new();
        for step in &found.steps {
            let asked = self.vms.is_empty() || self.vms.contains(&step.intent.address);
            if asked && self.steps.insert((step.intent.run, step.intent.op.0)) {
                let run = runs.get(&step.intent.run).copied();
                lines.push(Line::new(self.project, step.at, What::step(step, run)));
            }
        }
        // Who asks about some machines is told who did what to them by their steps.
        for run in found.runs.iter().filter(|_| self.vms.is_empty()) {
            if self.runs.insert(run.id) {
                lines.push(Line::new(self.project, run.ended.unwrap_or(run.began), What::run(run)));
            }
        }
        lines.retain(|line| self.since.is_none_or(|since| line.time >= since));
        // What ends a run was done by it.
        lines.sort_by_key(|line| (line.time, matches!(line.what, What::Run { .. })));
        lines
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use vmctl_state::{Ended, Intent, OpId, Outcome};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn step(op: u64, run: Uuid, name: &str, outcome: Outcome) -> Ended {
        let intent = Intent {
            op: OpId(op),
            run,
            step: "start".to_owned(),
            address: Address::vm(name),
            instance: Uuid::from_u128(7),
            at: at(10),
            detail: Value::Null,
        };
        Ended { intent, at: at(12), outcome }
    }

    fn journal() -> History {
        let run = Uuid::from_u128(1 << 96);
        let failed =
            Outcome::Failed { kind: "host".to_owned(), message: "no luck".to_owned(), chain: Vec::new() };
        let of = |id, ended, result: Option<&str>| Run {
            id,
            command: "vmctl apply".to_owned(),
            user: "uid 1000".to_owned(),
            host: "forge".to_owned(),
            pid: 17,
            began: at(9),
            ended,
            result: result.map(str::to_owned),
        };
        History {
            runs: vec![of(Uuid::nil(), None, None), of(run, Some(at(12)), Some("partly done"))],
            steps: vec![step(0, run, "web", Outcome::Done), step(1, run, "db", failed)],
        }
    }

    fn told<'a>(project: &'a Name, vms: &[&str], since: Option<Timestamp>) -> Told<'a> {
        let vms = vms.iter().map(|name| Address::vm(name)).collect();
        Told { project, vms, since, steps: BTreeSet::new(), runs: BTreeSet::new() }
    }

    fn texts(lines: &[Line]) -> String {
        anstream::adapter::strip_str(&lines.iter().map(Line::text).collect::<String>()).to_string()
    }

    #[test]
    fn journal_is_told_once_and_in_order() {
        let project = "shop".parse().unwrap();
        let mut told = told(&project, &[], None);
        insta::assert_snapshot!(texts(&told.news(&journal())), @r"
        1970-01-01T00:00:09Z  vmctl apply by uid 1000 on forge: died (run 00000000)
        1970-01-01T00:00:12Z  vm.web  start done in 2.0 s (vmctl apply by uid 1000)
        1970-01-01T00:00:12Z  vm.db  start failed after 2.0 s: no luck (vmctl apply by uid 1000)
        1970-01-01T00:00:12Z  vmctl apply by uid 1000 on forge: partly done (run 00000001)
        ");
        assert!(told.news(&journal()).is_empty());
    }

    #[test]
    fn some_machines_and_a_time_leave_the_rest_out() {
        let project = "shop".parse().unwrap();
        let shown = texts(&told(&project, &["db"], None).news(&journal()));
        assert_eq!(shown.lines().count(), 1, "{shown}");
        assert_eq!(told(&project, &[], Some(at(10))).news(&journal()).len(), 3);
        assert!(told(&project, &[], Some(at(13))).news(&journal()).is_empty());
    }
}

//! One event, for people and for programs.

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;
use vmctl_planner::{Drift, DriftKind};
use vmctl_providers::Name;
use vmctl_state::{Address, Ended, Outcome, Run};

use crate::commands::JSON_FORMAT;
use crate::ui::{self, BAD, DOUBTFUL, LABEL};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Line {
    format: u32,
    /// When it happened; of what was observed, when that was seen.
    pub(super) time: Timestamp,
    project: Name,
    #[serde(flatten)]
    pub(super) what: What,
}

/// What it was.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(super) enum What {
    /// A step ended.
    Step {
        address: Address,
        instance: Uuid,
        step: String,
        outcome: &'static str,
        message: Option<String>,
        seconds: f64,
        run: Uuid,
        /// Who did it; null where the journal has forgotten the run.
        command: Option<String>,
        user: Option<String>,
        host: Option<String>,
    },
    /// A command that changed the state ended, or died.
    Run {
        run: Uuid,
        command: String,
        user: String,
        host: String,
        pid: u32,
        began: Timestamp,
        /// Null if it died.
        result: Option<String>,
    },
    /// A machine was seen to be otherwise than before.
    Observed {
        address: Address,
        /// What it does; null if it is recorded no longer.
        state: Option<String>,
        /// What it did at the look before; null if there was none.
        before: Option<String>,
        /// Where it differs from what is recorded, unless somebody is at work on it.
        drift: Vec<Differs>,
    },
}

/// One difference from what is recorded.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Differs {
    pub(super) kind: DriftKind,
    text: String,
}

impl From<Drift> for Differs {
    fn from(Drift { kind, text, .. }: Drift) -> Self {
        Self { kind, text }
    }
}

impl What {
    /// A step of the journal, with the run that it belongs to.
    pub(super) fn step(step: &Ended, run: Option<&Run>) -> Self {
        let Ended { intent, at, outcome } = step;
        let (outcome, message) = match outcome {
            Outcome::Done => ("done", None),
            Outcome::Failed { message, .. } => ("failed", Some(message.clone())),
            Outcome::Abandoned => ("abandoned", None),
        };
        Self::Step {
            address: intent.address.clone(),
            instance: intent.instance,
            step: intent.step.clone(),
            outcome,
            message,
            // A clock that was set back makes no step end before it began.
            seconds: at.duration_since(intent.at).as_secs_f64().max(0.0),
            run: intent.run,
            command: run.map(|run| run.command.clone()),
            user: run.map(|run| run.user.clone()),
            host: run.map(|run| run.host.clone()),
        }
    }

    /// A run of the journal.
    pub(super) fn run(run: &Run) -> Self {
        let Run { id, command, user, host, pid, began, ended: _, result } = run.clone();
        Self::Run { run: id, command, user, host, pid, began, result }
    }
}

impl Line {
    pub(super) fn new(project: &Name, time: Timestamp, what: What) -> Self {
        Self { format: JSON_FORMAT, time, project: project.clone(), what }
    }

    /// The event as a line.
    pub(super) fn text(&self) -> String {
        let text = match &self.what {
            What::Step { address, step, outcome, message, seconds, command, user, .. } => {
                let result = match (*outcome, message) {
                    ("done", _) => format!("done in {seconds:.1} s"),
                    ("failed", message) => {
                        let message =
                            message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
                        format!("{BAD}failed{BAD:#} after {seconds:.1} s{}", ui::visible(&message))
                    }
                    _ => format!("{DOUBTFUL}cut off{DOUBTFUL:#} after {seconds:.1} s"),
                };
                let who = match command.as_ref().zip(user.as_ref()) {
                    Some((command, user)) => {
                        format!(" ({} by {})", ui::visible(command), ui::visible(user))
                    }
                    None => String::new(),
                };
                // An image's address is its whole digest; its beginning is enough for people.
                let address = match address.as_str() {
                    image if image.starts_with("image.") => format!("{image:.18}…"),
                    other => other.to_owned(),
                };
                format!("{LABEL}{address}{LABEL:#}  {} {result}{who}", ui::visible(step))
            }
            What::Run { run, command, user, host, result, .. } => {
                let result = result
                    .as_deref()
                    .map_or_else(|| format!("{BAD}died{BAD:#}"), |result| ui::visible(result).clone());
                let short: String = run.simple().to_string().chars().take(8).collect();
                let [command, user, host] = [command, user, host].map(|text| ui::visible(text));
                format!("{command} by {user} on {host}: {result} (run {short})")
            }
            What::Observed { address, state, before, drift } => {
                let now = state.as_deref().unwrap_or("no longer recorded");
                let was = match before {
                    Some(before) if Some(before) != state.as_ref() => format!(", was {before}"),
                    _ => String::new(),
                };
                let drift: Vec<_> = drift.iter().map(|differs| ui::visible(&differs.text)).collect();
                let drift = if drift.is_empty() { String::new() } else { format!(": {}", drift.join("; ")) };
                format!("{LABEL}{address}{LABEL:#}  observed {now}{was}{drift}")
            }
        };
        format!("{:.0}  {}\n", self.time, text.replace('\n', " "))
    }
}

//! What an apply shows while it runs: live lines on a terminal, plain lines elsewhere, JSON lines on request.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use vmctl_planner::admission::{size, size_needed};
use vmctl_planner::apply::{Event, Failure};
use vmctl_planner::{Plan, Step, StepId};

use crate::download::{Rates, progress_data};
use crate::env;
use crate::error::CliError;
use crate::terminal;
use crate::ui::{self, BAD, DOUBTFUL, GOOD};

/// How often a live line is drawn anew; twice the rate at which a spinner looks alive.
const REDRAW: Duration = Duration::from_millis(100);

/// Columns of a live line besides what it says: blanks, the sign that turns, and the time, with one more to be sure that the
/// terminal goes to no new line.
const BESIDE: usize = 13;

/// Steps that are named when what runs is awaited.
const AWAITED: usize = 3;

/// Version of the event lines.
const EVENT_FORMAT: u32 = 1;

/// Shows events.
#[derive(Debug)]
pub(crate) enum Progress {
    /// A live line per running step, and what is finished above them.
    Live(MultiProgress, BTreeMap<StepId, ProgressBar>, Rates),
    /// One line per event on stderr, with the time of day.
    Plain(Rates),
    /// One JSON object per event on stdout.
    Json,
    /// Failures only.
    Quiet,
}

impl Progress {
    /// The form that fits the options and the terminal.
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        if json {
            Self::Json
        } else if quiet {
            Self::Quiet
        } else if io::stderr().is_terminal() && env::has_smart_terminal() {
            terminal::hush();
            Self::Live(MultiProgress::new(), BTreeMap::new(), Rates::default())
        } else {
            Self::Plain(Rates::default())
        }
    }

    /// Shows one event. A closed stdout is an error; people who look away are not.
    pub(crate) fn show(&mut self, plan: &Plan, event: &Event) -> Result<(), CliError> {
        match self {
            Self::Json => json_line(plan, event),
            Self::Live(lines, bars, rates) => {
                if let Event::Progress { id, progress } = event {
                    if let Some(bar) = bars.get(id) {
                        let text = rates.text(*id, progress, Instant::now());
                        bar.set_message(message(&format!("{}  {text}", plan.graph.step(*id))));
                    }
                    return Ok(());
                }
                live(lines, bars, plan, event);
                Ok(())
            }
            Self::Plain(rates) => {
                if let Event::Progress { id, progress } = event {
                    let now = Instant::now();
                    if rates.is_due(*id, progress, now) {
                        let time = jiff::Zoned::now().strftime("%H:%M:%S").to_string();
                        let text = rates.text(*id, progress, now);
                        tell(&ui::visible(&format!("{time} {} … {text}", plan.graph.step(*id))));
                    }
                    return Ok(());
                }
                if let Some(text) = plain(plan, event) {
                    let time = jiff::Zoned::now().strftime("%H:%M:%S").to_string();
                    tell(&format!("{time} {text}"));
                }
                Ok(())
            }
            Self::Quiet => {
                if let (Event::Failed { .. } | Event::Draining { .. }, Some(text)) =
                    (event, plain(plan, event))
                {
                    tell(&text);
                }
                Ok(())
            }
        }
    }

    /// Removes what is still drawn.
    pub(crate) fn finish(&mut self) {
        if let Self::Live(_, bars, _) = self {
            for bar in std::mem::take(bars).into_values() {
                bar.finish_and_clear();
            }
            terminal::unhush();
        }
    }
}

/// Something to say outside the stream of events.
#[derive(Debug)]
pub(crate) enum Words {
    /// To people, on stderr.
    Err(String),
    /// A result, on stdout.
    Out(String),
    /// To programs, an event that is about no single step.
    Event(&'static str, serde_json::Value),
}

impl Words {
    /// Says it; only stdout has somebody who must hear.
    pub(crate) fn say(self) -> Result<(), CliError> {
        match self {
            Self::Err(text) => {
                tell(&text);
                Ok(())
            }
            Self::Out(text) => ui::print(&text),
            Self::Event(event, more) => write_event(event, more),
        }
    }
}

/// Writes a line to stderr; styles are kept where the stream takes them.
pub(crate) fn tell(text: &str) {
    // A stderr that cannot be written to leaves nobody to tell.
    let _ = writeln!(ui::stderr(), "{text}");
}

/// What a live line says, as far as one line of the terminal has room for it.
fn message(text: &str) -> String {
    ui::clipped(&ui::visible(text), ui::stderr_width().saturating_sub(BESIDE))
}

fn live(lines: &MultiProgress, bars: &mut BTreeMap<StepId, ProgressBar>, plan: &Plan, event: &Event) {
    match event {
        Event::Started(id) => {
            let bar = lines.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("  {spinner} {elapsed:>4.dim}  {msg}") {
                bar.set_style(style);
            }
            bar.set_message(message(&plan.graph.step(*id).to_string()));
            bar.enable_steady_tick(REDRAW);
            bars.insert(*id, bar);
        }
        Event::Done { id, .. }
        | Event::Failed { id, .. }
        | Event::Retrying { id, .. }
        | Event::GivenUp(id) => {
            if let Some(bar) = bars.remove(id) {
                bar.finish_and_clear();
            }
        }
        Event::Spared(_)
        | Event::Skipped { .. }
        | Event::Progress { .. }
        | Event::Output { .. }
        | Event::Dropped { .. }
        | Event::Throttled { .. }
        | Event::Draining { .. } => {}
    }
    if let Some(text) = plain(plan, event).filter(|_| !matches!(event, Event::Started(_))) {
        // Drawn through the same hand as the live lines, so that they stay below it. A terminal that is gone is nobody
        // to tell.
        let shown =
            if ui::stderr_has_color() { text } else { anstream::adapter::strip_str(&text).to_string() };
        let _ = lines.println(shown);
    }
}

/// The event as a line for people; lines of a failure follow it indented.
fn plain(plan: &Plan, event: &Event) -> Option<String> {
    let name = |id: &StepId| ui::visible(&plan.graph.step(*id).to_string());
    Some(match event {
        Event::Started(id) => format!("{} …", name(id)),
        Event::Done { id, elapsed, note } => {
            let note = note.as_ref().map(|note| format!(" ({})", ui::visible(note))).unwrap_or_default();
            format!("{} {GOOD}done{GOOD:#} in {}{note}", name(id), seconds(*elapsed))
        }
        Event::Spared(id) => {
            format!("{} {GOOD}spared{GOOD:#}: its machine is made from a template", name(id))
        }
        Event::Failed { id, failure } => {
            format!("{} {BAD}failed{BAD:#}: {}", name(id), failure_text(failure))
        }
        Event::Skipped { id, because } => {
            format!("{} {DOUBTFUL}skipped{DOUBTFUL:#}: `{}` failed", name(id), name(because))
        }
        Event::Progress { .. } => return None,
        Event::Output { address, line, .. } => format!("{} | {}", address.name(), ui::visible(&line.text)),
        Event::Dropped { address, lines, .. } => {
            let name = address.name();
            format!("{name} | … lines not shown: {lines}; `vmctl log --provision {name}` has them")
        }
        Event::Throttled { id, needed, available } => format!(
            "{} {DOUBTFUL}waits{DOUBTFUL:#}: it may take {} of memory, and {} is left while others boot or stop",
            name(id),
            size_needed(*needed),
            size(*available)
        ),
        Event::Retrying { id, failure, attempt, of, after } => format!(
            "{} {BAD}failed{BAD:#} (try {attempt} of {of}, the next one in {} s): {}",
            name(id),
            after.as_secs(),
            failure_text(failure)
        ),
        Event::GivenUp(id) => {
            let next = if plan.is_download(*id) { "goes on with it" } else { "waits again" };
            format!("{} {DOUBTFUL}given up{DOUBTFUL:#}: the next apply {next}", name(id))
        }
        Event::Draining { awaited } => {
            let head = format!("{DOUBTFUL}interrupted{DOUBTFUL:#}: nothing new is started");
            let names: Vec<_> = awaited.iter().take(AWAITED).map(name).collect();
            match awaited.len().saturating_sub(AWAITED) {
                0 if names.is_empty() => head,
                0 => format!("{head}; waiting for {}. Again (Ctrl-C) stops at once", names.join(", ")),
                more => {
                    format!(
                        "{head}; waiting for {} and {more} more. Again (Ctrl-C) stops at once",
                        names.join(", ")
                    )
                }
            }
        }
    })
}

/// Message, causes, tail and hint, one a line.
pub(crate) fn failure_text(failure: &Failure) -> String {
    let mut text = ui::visible(&failure.message);
    for cause in &failure.chain {
        text.push_str(&format!("\n    caused by: {}", ui::visible(cause)));
    }
    for line in &failure.tail {
        text.push_str(&format!("\n    | {}", ui::visible(line)));
    }
    if let Some(help) = &failure.help {
        text.push_str(&format!("\n    help: {}", ui::visible(help)));
    }
    text
}

/// A duration with one decimal: steps take from milliseconds to minutes.
pub(crate) fn seconds(elapsed: Duration) -> String {
    format!("{:.1} s", elapsed.as_secs_f64())
}

/// The head of every line that a program reads.
#[derive(Serialize)]
struct EventLine<'a> {
    format: u32,
    time: Timestamp,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<StepId>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    step: Option<&'a Step>,
    /// What the event says besides.
    #[serde(flatten)]
    more: serde_json::Value,
}

fn json_line(plan: &Plan, event: &Event) -> Result<(), CliError> {
    write_line(&line_of(plan, event)?)
}

/// An event as programs read it, with its line end.
pub(crate) fn line_of(plan: &Plan, event: &Event) -> Result<String, CliError> {
    let (name, id, more) = match event {
        Event::Started(id) => ("started", Some(*id), json!({})),
        Event::Done { id, elapsed, note } => {
            ("done", Some(*id), json!({ "seconds": elapsed.as_secs_f64(), "note": note }))
        }
        Event::Spared(id) => ("spared", Some(*id), json!({})),
        Event::Failed { id, failure } => ("failed", Some(*id), json!({ "failure": failure })),
        Event::Skipped { id, because } => ("skipped", Some(*id), json!({ "because": because })),
        Event::Progress { id, progress } => ("progress", Some(*id), progress_data(progress)),
        Event::Output { id, line, .. } => {
            ("output", Some(*id), json!({ "stream": line.stream, "text": line.text }))
        }
        Event::Dropped { id, lines, .. } => ("dropped", Some(*id), json!({ "lines": lines })),
        Event::Throttled { id, needed, available } => {
            ("throttled", Some(*id), json!({ "needed_bytes": needed, "available_bytes": available }))
        }
        Event::Retrying { id, failure, attempt, of, after } => (
            "retrying",
            Some(*id),
            json!({ "failure": failure, "attempt": attempt, "of": of, "seconds": after.as_secs_f64() }),
        ),
        Event::GivenUp(id) => ("given-up", Some(*id), json!({})),
        Event::Draining { awaited } => ("draining", None, json!({ "awaited": awaited })),
    };
    let step = id.map(|id| plan.graph.step(id));
    ui::json_line(&EventLine { format: EVENT_FORMAT, time: Timestamp::now(), event: name, id, step, more })
}

/// Writes an event that is about no single step.
pub(crate) fn write_event(event: &'static str, more: serde_json::Value) -> Result<(), CliError> {
    write_line(&line_of_word(event, more)?)
}

/// An event that is about no single step, as programs read it, with its line end.
pub(crate) fn line_of_word(event: &'static str, more: serde_json::Value) -> Result<String, CliError> {
    let time = Timestamp::now();
    ui::json_line(&EventLine { format: EVENT_FORMAT, time, event, id: None, step: None, more })
}

/// Writes one line at once.
fn write_line(line: &str) -> Result<(), CliError> {
    ui::print_bytes(line.as_bytes())
}

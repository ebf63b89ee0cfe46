//! What ran when during an apply, for the files that tell of it.

mod junit;
mod markdown;
mod page;
mod stream;
mod trace;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use vmctl_planner::apply::{Event, Failure};
use vmctl_planner::{Plan, PlanDocument, StepId};

use crate::error::CliError;
use crate::files::Destination;

use junit::junit;
pub(crate) use markdown::markdown;
pub(crate) use stream::Stream;

/// What people notice that they wait for.
const SLOW: Duration = Duration::from_secs(5);

/// Steps that are named for having taken long.
const SLOWEST: usize = 3;

/// Everything that ran, in the order in which it began.
#[derive(Debug, Clone)]
pub(crate) struct Course {
    began: Instant,
    at: Timestamp,
    ended: Option<Duration>,
    steps: BTreeMap<StepId, Ran>,
}

/// One step.
#[derive(Debug, Clone, Default)]
struct Ran {
    /// From the begin of the apply; a step that was skipped or spared never began.
    from: Option<Duration>,
    to: Option<Duration>,
    end: End,
}

/// How a step ended.
#[derive(Debug, Clone, Default)]
enum End {
    /// It did not, as far as anybody was told.
    #[default]
    Open,
    Done {
        note: Option<String>,
    },
    /// It needed not run.
    Spared,
    Failed(Box<Failure>),
    Skipped {
        because: StepId,
    },
}

impl End {
    /// The word for it.
    fn word(&self) -> &'static str {
        match self {
            Self::Open => "unfinished",
            Self::Done { .. } => "done",
            Self::Spared => "spared",
            Self::Failed(_) => "failed",
            Self::Skipped { .. } => "skipped",
        }
    }
}

impl Course {
    /// Begins now.
    pub(crate) fn begin() -> Self {
        Self { began: Instant::now(), at: Timestamp::now(), ended: None, steps: BTreeMap::new() }
    }

    /// Takes note of what happened just now.
    pub(crate) fn note(&mut self, event: &Event) {
        let now = self.began.elapsed();
        match event {
            Event::Started(id) => self.step(*id).from = Some(now),
            Event::Done { id, elapsed, note } => {
                let step = self.step(*id);
                // What is told is told late where nobody reads; how long it took is told right.
                let to = step.from.get_or_insert(now.saturating_sub(*elapsed)).saturating_add(*elapsed);
                step.to = Some(to.min(now));
                step.end = End::Done { note: note.clone() };
            }
            Event::Spared(id) => self.step(*id).end = End::Spared,
            Event::Failed { id, failure } => {
                let step = self.step(*id);
                step.to = Some(now);
                step.end = End::Failed(Box::new(failure.clone()));
            }
            Event::Skipped { id, because } => self.step(*id).end = End::Skipped { because: *because },
            Event::GivenUp(id) => self.step(*id).to = Some(now),
            Event::Progress { .. }
            | Event::Output { .. }
            | Event::Retrying { .. }
            | Event::Throttled { .. }
            | Event::Dropped { .. }
            | Event::Draining { .. } => {}
        }
    }

    fn step(&mut self, id: StepId) -> &mut Ran {
        self.steps.entry(id).or_default()
    }

    /// Nothing more comes.
    pub(crate) fn end(&mut self) {
        self.ended = Some(self.began.elapsed());
    }

    /// The steps that took longest, longest first, if more than one took so long that people may want to know.
    pub(crate) fn slowest(&self) -> Vec<(StepId, Duration)> {
        let mut slow: Vec<_> = self
            .steps
            .iter()
            .map(|(id, ran)| (*id, ran.length()))
            .filter(|(_, length)| *length >= SLOW)
            .collect();
        slow.sort_by_key(|(id, length)| (Reverse(*length), *id));
        slow.truncate(SLOWEST);
        if slow.len() > 1 { slow } else { Vec::new() }
    }

    /// How long all of it took.
    fn length(&self) -> Duration {
        let last = self.steps.values().filter_map(|step| step.to).max();
        self.ended.or(last).unwrap_or_default()
    }

    /// The steps that began, by their begin, with the place that each has in time.
    fn ran(&self) -> Vec<(StepId, &Ran, Duration, Duration)> {
        let length = self.length();
        let began = self.steps.iter().filter_map(|(id, ran)| {
            let from = ran.from?;
            Some((*id, ran, from, ran.to.unwrap_or(length).max(from)))
        });
        let mut ran: Vec<_> = began.collect();
        ran.sort_by_key(|(id, _, from, _)| (*from, *id));
        ran
    }
}

/// The files that were asked for; nothing is written to them before the apply has ended.
#[derive(Debug)]
pub(crate) struct Files {
    timeline: Option<(Destination, Form)>,
    junit: Option<Destination>,
}

/// The form of a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Page,
    Trace,
}

impl Files {
    /// Refuses files that are not to be written.
    pub(crate) fn open(
        timeline: Option<&PathBuf>,
        junit: Option<&PathBuf>,
        plan: &PlanDocument<'_>,
    ) -> Result<Self, CliError> {
        let timeline = timeline.map(|path| {
            let is_trace = path.extension().is_some_and(|extension| extension == "json");
            let (form, place) = if is_trace {
                (Form::Trace, Destination::of_trace(path, plan)?)
            } else {
                (Form::Page, Destination::of_report(path, plan)?)
            };
            Ok::<_, CliError>((place, form))
        });
        let junit = junit.map(|path| Destination::of_junit(path, plan));
        Ok(Self { timeline: timeline.transpose()?, junit: junit.transpose()? })
    }

    /// Writes them. All are tried; the first that failed is told.
    pub(crate) fn write(&self, plan: &Plan, course: &Course) -> Result<(), CliError> {
        let timeline = self.timeline.as_ref().map_or(Ok(()), |(place, form)| {
            let text = match form {
                Form::Page => page::page(plan, course),
                Form::Trace => trace::trace(plan, course),
            };
            place.write(text.as_bytes())
        });
        let junit = self.junit.as_ref().map_or(Ok(()), |place| place.write(junit(plan, course)?.as_bytes()));
        timeline.and(junit)
    }
}

/// Whether the name of a timeline says what it is to be.
pub(crate) fn timeline_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("html" | "json") => Ok(path),
        _ => Err("its name ends in .html (a page) or .json (a trace for Chrome's tracing view)".to_owned()),
    }
}

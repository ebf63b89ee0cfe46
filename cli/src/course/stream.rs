//! Events for a program beside what people are shown: the lines of `--json`, in a file, while they happen.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use vmctl_planner::apply::Event;
use vmctl_planner::{Plan, PlanDocument};

use crate::error::CliError;
use crate::files::Destination;
use crate::progress;
use crate::ui;

/// The file, as long as it can be written to.
#[derive(Debug)]
pub(crate) struct Stream {
    path: PathBuf,
    file: Mutex<Option<File>>,
}

impl Stream {
    /// Opens the file, or what is no file, such as a pipe, and replaces nothing but its like.
    pub(crate) fn open(path: &Path, plan: &PlanDocument<'_>) -> Result<Self, CliError> {
        let place = Destination::of_events(path, plan)?;
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(place.path());
        let file = file.map_err(|error| {
            CliError::new(format!("cannot write events to `{}`", path.display()))
                .because(&error)
                .help("name a file in a folder that exists and that you may write to".to_owned())
        })?;
        Ok(Self { path: path.to_owned(), file: Mutex::new(Some(file)) })
    }

    /// Writes an event of a step.
    pub(crate) fn event(&self, plan: &Plan, event: &Event) {
        self.write(progress::line_of(plan, event));
    }

    /// Writes an event that is about no single step.
    pub(crate) fn word(&self, event: &'static str, more: Value) {
        self.write(progress::line_of_word(event, more));
    }

    /// The first line that cannot be written is the last that is tried: what is applied is applied all the same.
    fn write(&self, line: Result<String, CliError>) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = file.as_mut() else { return };
        let written: Result<(), CliError> = line.and_then(|line| {
            open.write_all(line.as_bytes()).map_err(|error: io::Error| CliError::new(error.to_string()))
        });
        if let Err(error) = written {
            *file = None;
            ui::warn(&format!("`{}` gets no more events: {}", self.path.display(), error.message()));
        }
    }
}

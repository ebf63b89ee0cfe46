//! What a fetch shows while it runs: a bar with rate and time left on a terminal, plain lines elsewhere.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use vmctl_providers::image::{FetchPhase, FetchProgress, shown_url};

use crate::ui;

/// Time between two plain lines about the same download.
const BETWEEN_LINES: Duration = Duration::from_secs(5);

/// Shows one fetch.
#[derive(Debug)]
pub(crate) struct Fetching {
    url: String,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Bar(ProgressBar),
    Lines(Option<Instant>),
    Nothing,
}

impl Fetching {
    /// The form that fits the terminal.
    pub(crate) fn new(url: &str, quiet: bool) -> Self {
        let form = if quiet {
            Form::Nothing
        } else if io::stderr().is_terminal() {
            Form::Bar(ProgressBar::new_spinner())
        } else {
            Form::Lines(None)
        };
        Self { url: shown_url(url), form }
    }

    /// Shows how far it is.
    pub(crate) fn show(&mut self, state: FetchProgress) {
        let words = words(&state);
        match (&mut self.form, words) {
            (Form::Nothing, _) => {}
            (Form::Bar(bar), Some(words)) => bar.set_message(format!("{}: {words}", self.url)),
            (Form::Bar(bar), None) => {
                if let Some(total) = state.total
                    && bar.length() != Some(total)
                {
                    bar.set_length(total);
                    let style = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
                    if let Ok(style) = ProgressStyle::with_template(style) {
                        bar.set_style(style);
                    }
                    // What an earlier try brought says nothing about the rate.
                    bar.set_position(state.received);
                    bar.reset_eta();
                }
                bar.set_message(self.url.clone());
                bar.set_position(state.received);
            }
            (Form::Lines(_), Some(words)) => ui::note(false, &format!("{}: {words}", self.url)),
            (Form::Lines(last), None) => {
                let is_due = last.is_none_or(|last| last.elapsed() >= BETWEEN_LINES);
                if is_due {
                    *last = Some(Instant::now());
                    let of = state.total.map(|total| format!(" of {}", ui::bytes(total))).unwrap_or_default();
                    ui::note(false, &format!("{}: {}{of}", self.url, ui::bytes(state.received)));
                }
            }
        }
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        if let Form::Bar(bar) = &self.form {
            bar.finish_and_clear();
        }
    }
}

/// What is worth a line of its own; nothing while bytes come.
fn words(state: &FetchProgress) -> Option<String> {
    Some(match &state.phase {
        FetchPhase::Downloading => return None,
        FetchPhase::Waiting => "another vmctl fetches it, waiting for that".to_owned(),
        FetchPhase::Retrying { attempt, of, after, why } => {
            format!("{why}; try {} of {of} in {:.1} s", attempt + 1, after.as_secs_f64())
        }
        FetchPhase::Finishing => "all is here, it is checked and written down".to_owned(),
        FetchPhase::Converting => "converting to qcow2".to_owned(),
    })
}

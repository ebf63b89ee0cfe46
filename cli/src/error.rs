//! Turns every failure into text on stderr and an exit code.

use std::error::Error as StdError;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};
use serde::Serialize;
use vmctl_planner::vmfile;
use vmctl_providers::image::ImageError;
use vmctl_providers::ssh::SshError;
use vmctl_state::error::{StoreError, StoreErrorKind};

use crate::commands::JSON_FORMAT;
use crate::env::SettingsError;
use crate::ui;

/// How vmctl ends; the numbers are a promise to scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All went well.
    Fine,
    /// Something failed, and nothing was changed.
    Error,
    /// There are changes; only where a command documents it.
    Changes,
    /// Another process works on the project.
    Locked,
    /// A saved plan no longer fits.
    Stale,
    /// Some steps were carried out and some were not.
    Partial,
    /// The command line is wrong.
    Usage,
    /// The user interrupted.
    Interrupted,
    /// A command in a guest ended with this code.
    Passed(u8),
}

impl Exit {
    /// The number that the shell sees.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Error => 1,
            Self::Changes => 2,
            Self::Locked => 3,
            Self::Stale => 4,
            Self::Partial => 5,
            Self::Usage => 64,
            Self::Interrupted => 130,
            Self::Passed(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// A failure on its way to the user.
#[derive(Debug)]
pub(crate) struct CliError {
    exit: Exit,
    body: Body,
}

#[derive(Debug)]
enum Body {
    /// What was attempted, why it failed (outermost cause first), what to do next.
    Text { message: String, causes: Vec<String>, help: Option<String> },
    /// Faults of a VMFile, each with its place.
    Faults(Box<vmfile::Report>),
    /// Nobody listens any more, or everything has been said.
    Silent,
}

impl CliError {
    /// A failure that says what was attempted, with exit code 1.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Error,
            body: Body::Text { message: message.into(), causes: Vec::new(), help: None },
        }
    }

    /// What was attempted, without anything else; empty where a report says it.
    pub(crate) fn message(&self) -> &str {
        match &self.body {
            Body::Text { message, .. } => message,
            Body::Faults(_) | Body::Silent => "",
        }
    }

    /// A panic outside of any step: everything that ran was let go of.
    pub(crate) fn panicked() -> Self {
        Self::new("vmctl panicked; this is a bug in vmctl")
            .help("the next plan looks at what is there, and the next apply goes on from it".to_owned())
    }

    /// A failure told by `error` and its sources.
    pub(crate) fn of(error: &dyn StdError) -> Self {
        let mut this = Self::new(error.to_string());
        if let Some(source) = error.source() {
            this = this.because(source);
        }
        this
    }

    /// A failure about which everything has been said already.
    pub(crate) fn silent(exit: Exit) -> Self {
        Self { exit, body: Body::Silent }
    }

    /// Whether nothing is left to say, as where a reader went away.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self.body, Body::Silent)
    }

    /// Adds `error` and its sources as causes.
    #[must_use]
    pub(crate) fn because(mut self, error: &dyn StdError) -> Self {
        if let Body::Text { message, causes, .. } = &mut self.body {
            let mut next = Some(error);
            while let Some(error) = next {
                let text = error.to_string();
                // A wrapper that only passes its source on says the same twice.
                if causes.last().unwrap_or(message) != &text {
                    causes.push(text);
                }
                next = error.source();
            }
        }
        self
    }

    /// Says what to do next; a later hint replaces an earlier one.
    #[must_use]
    pub(crate) fn help(mut self, hint: impl Into<Option<String>>) -> Self {
        if let Body::Text { help, .. } = &mut self.body
            && let Some(hint) = hint.into()
        {
            *help = Some(hint);
        }
        self
    }

    /// Sets the exit code.
    #[must_use]
    pub(crate) fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The exit code it ends with.
    pub(crate) fn exit_code(&self) -> Exit {
        self.exit
    }

    /// Writes it to stderr. A stderr that cannot be written to leaves nobody to tell.
    pub(crate) fn print(&self) {
        let mut stderr = ui::stderr();
        let _ = match &self.body {
            Body::Text { .. } => write!(stderr, "{self}"),
            Body::Faults(report) => write!(stderr, "{}", drawn(report.as_ref())),
            Body::Silent => Ok(()),
        };
        let _ = stderr.flush();
    }
}

/// A failure as programs read it, where a document would have been.
#[derive(Serialize)]
struct Document<'a> {
    format: u32,
    error: Told<'a>,
}

#[derive(Serialize)]
struct Told<'a> {
    /// What was attempted.
    message: String,
    /// Why it failed, outermost first.
    causes: &'a [String],
    /// What to do next.
    help: Option<&'a str>,
    /// What the process ends with.
    exit_code: u8,
    /// Where a VMFile is at fault.
    problems: &'a [vmfile::Problem],
}

impl CliError {
    /// Prints it on stdout as one line, for who asked for JSON and got none; nothing where everything has been said.
    pub(crate) fn print_json(&self) -> Result<(), Self> {
        let exit_code = self.exit.code();
        let error = match &self.body {
            Body::Silent => return Ok(()),
            Body::Text { message, causes, help } => {
                Told { message: message.clone(), causes, help: help.as_deref(), exit_code, problems: &[] }
            }
            Body::Faults(report) => Told {
                message: report.to_string(),
                causes: &[],
                help: None,
                exit_code,
                problems: report.problems(),
            },
        };
        ui::print(&ui::json_line(&Document { format: JSON_FORMAT, error })?)
    }
}

/// The text form, with style codes that [`ui::stderr`] strips where colour is off.
impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.body {
            Body::Text { message, causes, help } => {
                let (bad, dim) = (ui::BAD, ui::LABEL);
                writeln!(f, "{bad}error{bad:#}: {}", ui::visible(message))?;
                for cause in causes {
                    writeln!(f, "  {dim}caused by{dim:#}: {}", indented(cause))?;
                }
                if let Some(help) = help {
                    writeln!(f, "  {dim}help{dim:#}: {}", indented(help))?;
                }
                Ok(())
            }
            Body::Faults(report) => writeln!(f, "{report}"),
            Body::Silent => Ok(()),
        }
    }
}

/// Keeps the lines of a longer text together under their label.
fn indented(text: &str) -> String {
    ui::visible(text.trim_end()).replace('\n', "\n    ")
}

/// A report as drawn for people: what was attempted, then each problem with source, span, label and help.
fn drawn(report: &dyn Diagnostic) -> String {
    let mut text = format!("{BAD}error{BAD:#}: {}\n", ui::visible(&report.to_string()), BAD = ui::BAD);
    for problem in report.related().into_iter().flatten() {
        text.push_str(&graphical(problem));
    }
    text
}

/// One diagnostic as drawn for people.
fn graphical(problem: &dyn Diagnostic) -> String {
    let theme =
        if ui::stderr_has_color() { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let mut text = String::from("\n");
    let handler = GraphicalReportHandler::new_themed(theme).with_links(false).with_width(ui::stderr_width());
    match handler.render_report(&mut text, problem) {
        // The source is a file that others may have written.
        Ok(()) => ui::visible_but_colored(&text),
        // A source that cannot be shown must not hide the message.
        Err(fmt::Error) => format!("\n{}\n", ui::visible(&problem.to_string())),
    }
}

/// Draws warnings about a VMFile on stderr. A stderr that cannot be written to leaves nobody to tell.
pub(crate) fn warn_of(warnings: &[vmfile::Problem]) {
    let mut stderr = ui::stderr();
    for warning in warnings {
        let _ = write!(stderr, "{}", graphical(warning));
    }
}

/// What became of writing to stdout: a reader that went away is no failure of ours.
pub(crate) fn stdout_failed(error: &io::Error) -> CliError {
    if error.kind() == io::ErrorKind::BrokenPipe {
        CliError::silent(Exit::Fine)
    } else {
        CliError::new("cannot write to standard output").because(error)
    }
}

/// Prints what clap has to say and returns the exit code: help and version are no misuse.
pub(crate) fn usage(error: &clap::Error) -> Exit {
    match error.print() {
        _ if error.use_stderr() => Exit::Usage,
        Ok(()) => Exit::Fine,
        Err(failure) => {
            let failure = stdout_failed(&failure);
            failure.print();
            failure.exit_code()
        }
    }
}

/// Whether a question can be asked and answered.
pub(crate) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

impl From<SettingsError> for CliError {
    fn from(error: SettingsError) -> Self {
        Self::of(&error).help(error.help()).exit(error.exit())
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        let exit = if error.kind() == StoreErrorKind::Locked { Exit::Locked } else { Exit::Error };
        Self::of(&error).help(error.help()).exit(exit)
    }
}

impl From<vmctl_providers::Error> for CliError {
    fn from(error: vmctl_providers::Error) -> Self {
        let this = Self::of(&error).help(error.help());
        match error.tail() {
            [] => this,
            tail => this.because(&Lines(tail.join("\n"))),
        }
    }
}

impl From<SshError> for CliError {
    fn from(error: SshError) -> Self {
        Self::of(&error).help(error.help())
    }
}

impl From<ImageError> for CliError {
    fn from(error: ImageError) -> Self {
        Self::of(&error).help(error.help())
    }
}

impl From<vmfile::Report> for CliError {
    fn from(report: vmfile::Report) -> Self {
        Self { exit: Exit::Error, body: Body::Faults(Box::new(report)) }
    }
}

/// Output of a failed command, shown as a cause.
#[derive(Debug)]
struct Lines(String);

impl fmt::Display for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its last output:\n{}", self.0)
    }
}

impl StdError for Lines {}

/// An error and its causes in one line, for a place in a sentence.
pub(crate) fn in_words(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause: &&dyn std::error::Error| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(error: &CliError) -> String {
        anstream::adapter::strip_str(&error.to_string()).to_string()
    }

    #[test]
    fn text_names_attempt_causes_and_help() {
        let cause = io::Error::new(io::ErrorKind::PermissionDenied, "permission denied");
        let error = CliError::new("cannot read `/x`").because(&cause).help("look at\nit".to_owned());
        insta::assert_snapshot!(plain(&error), @r"
        error: cannot read `/x`
          caused by: permission denied
          help: look at
            it
        ");
    }

    #[test]
    fn repeated_causes_are_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("disk is full")]
        struct Inner;
        #[derive(Debug, thiserror::Error)]
        #[error("disk is full")]
        struct Outer(#[source] Inner);
        assert_eq!(plain(&CliError::of(&Outer(Inner))), "error: disk is full\n");
    }

    #[test]
    fn guest_text_cannot_reach_the_terminal_raw() {
        assert_eq!(plain(&CliError::new("it said \u{1b}[2J")), "error: it said ^[[2J\n");
    }

    #[test]
    fn closed_pipe_is_no_error() {
        let error = stdout_failed(&io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((error.exit_code().code(), plain(&error)), (0, String::new()));
        assert_eq!(stdout_failed(&io::Error::from(io::ErrorKind::StorageFull)).exit_code(), Exit::Error);
    }
}

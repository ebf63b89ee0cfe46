//! What is wrong with a VMFile: for people through miette, for programs through serde.

use std::fmt;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode, SourceSpan};
use serde::Serialize;

use super::lex::is_forbidden;

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The VMFile cannot be used.
    Error,
    /// The VMFile can be used; its author may not have meant this.
    Warning,
}

/// A place in the VMFile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// First byte.
    pub offset: usize,
    /// Number of bytes.
    pub length: usize,
    /// What to see there.
    pub label: String,
}

/// One thing that is wrong, or may be. Renders alone through miette.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Stable name of the kind of problem, such as `vmfile::unknown-node`.
    pub code: &'static str,
    /// What is wrong, in one sentence fragment.
    pub message: String,
    /// The VMFile, as it was named by the caller.
    pub file: String,
    /// Where it is; absent if the file could not be read at all.
    #[serde(flatten)]
    pub place: Option<Place>,
    /// Other places that belong to it.
    pub related: Vec<Place>,
    /// What to do next.
    pub help: Option<String>,
    #[serde(skip)]
    source: Option<Arc<NamedSource<String>>>,
}

impl Problem {
    fn places(&self) -> impl Iterator<Item = &Place> {
        self.place.iter().chain(&self.related)
    }
}

impl PartialEq for Problem {
    fn eq(&self, other: &Self) -> bool {
        (self.severity, self.code, &self.message, &self.file, &self.place, &self.related, &self.help)
            == (
                other.severity,
                other.code,
                &other.message,
                &other.file,
                &other.place,
                &other.related,
                &other.help,
            )
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn code(&self) -> Option<Box<dyn fmt::Display + '_>> {
        Some(Box::new(self.code))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help(&self) -> Option<Box<dyn fmt::Display + '_>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_deref().map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let first = self.place.as_ref()?;
        let label = move |place: &Place| {
            let (text, span) = (Some(place.label.clone()), (place.offset, place.length));
            // The primary label decides the line and column that are printed.
            if std::ptr::eq(place, first) {
                LabeledSpan::new_primary_with_span(text, span)
            } else {
                LabeledSpan::new_with_span(text, span)
            }
        };
        Some(Box::new(self.places().map(label)))
    }
}

/// Everything that is wrong with a VMFile, each problem with its place; renders through miette.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    file: String,
    problems: Vec<Problem>,
    /// Errors, those left out included.
    errors: usize,
}

/// Problems that one report holds; nobody reads more, and a generated file may have thousands.
const MAX_PROBLEMS: usize = 100;

impl Report {
    /// The problems in the order of the text, warnings included; of very many the first.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// A report of `faults` in `text`, of which there are at most [`MAX_PROBLEMS`], errors first chosen.
    pub(super) fn new(file: &str, text: &str, mut faults: Vec<Fault>) -> Self {
        let errors = faults.iter().filter(|fault| fault.is_error()).count();
        faults.sort_by_key(|fault| (!fault.is_error(), fault.offset()));
        faults.truncate(MAX_PROBLEMS);
        Self { file: file.to_owned(), problems: locate(file, text, faults), errors }
    }

    /// A report of one problem with a file that could not be read.
    pub(super) fn unreadable(file: &str, fault: Fault) -> Self {
        Self { file: file.to_owned(), problems: vec![fault.into_problem(file, None)], errors: 1 }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot use `{}`: {} error{}",
            self.file,
            self.errors,
            if self.errors == 1 { "" } else { "s" }
        )?;
        if self.errors > MAX_PROBLEMS { write!(f, ", the first {MAX_PROBLEMS} are shown") } else { Ok(()) }
    }
}

impl std::error::Error for Report {}

impl Diagnostic for Report {
    fn related(&self) -> Option<Box<dyn Iterator<Item = &dyn Diagnostic> + '_>> {
        Some(Box::new(self.problems.iter().map(|problem| problem as &dyn Diagnostic)))
    }
}

/// A problem as a stage finds it: with byte spans only. The first label is the main one.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    severity: Severity,
    pub(super) code: &'static str,
    message: String,
    labels: Vec<(SourceSpan, String)>,
    help: Option<String>,
}

impl Fault {
    pub(super) fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, code, message: message.into(), labels: Vec::new(), help: None }
    }

    pub(super) fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message) }
    }

    pub(super) fn at(mut self, span: SourceSpan, label: impl Into<String>) -> Self {
        self.add_label(span, label);
        self
    }

    pub(super) fn add_label(&mut self, span: SourceSpan, label: impl Into<String>) {
        self.labels.push((span, label.into()));
    }

    pub(super) fn help(self, help: impl Into<String>) -> Self {
        self.maybe_help(Some(help.into()))
    }

    pub(super) fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help;
        self
    }

    pub(super) fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    fn offset(&self) -> usize {
        self.labels.first().map_or(0, |(span, _)| span.offset())
    }

    fn into_problem(self, file: &str, source: Option<(&Arc<NamedSource<String>>, &Lines<'_>)>) -> Problem {
        let mut places = self.labels.into_iter().filter_map(|(span, label)| {
            let (line, column) = source?.1.position(span.offset());
            Some(Place { line, column, offset: span.offset(), length: span.len(), label })
        });
        Problem {
            severity: self.severity,
            code: self.code,
            message: self.message,
            file: file.to_owned(),
            place: places.next(),
            related: places.collect(),
            help: self.help,
            source: source.map(|(source, _)| Arc::clone(source)),
        }
    }
}

/// Locates `faults` in `text`, in the order of the text.
pub(super) fn locate(file: &str, text: &str, mut faults: Vec<Fault>) -> Vec<Problem> {
    faults.sort_by_key(Fault::offset);
    let source = Arc::new(NamedSource::new(file, printable(text)));
    let lines = Lines::of(text);
    faults.into_iter().map(|fault| fault.into_problem(file, Some((&source, &lines)))).collect()
}

/// `text` with everything that could steer a terminal replaced, character by character, at the same offsets.
fn printable(text: &str) -> String {
    let mut characters = text.chars().peekable();
    let mut printable = String::with_capacity(text.len());
    while let Some(c) = characters.next() {
        let line_end = c == '\n' || (c == '\r' && characters.peek() == Some(&'\n'));
        printable.push(match c.len_utf8() {
            _ if line_end || c == '\t' || !(c.is_control() || is_forbidden(c)) => c,
            1 => '?',
            2 => '\u{b7}',
            _ => '\u{fffd}',
        });
    }
    printable
}

/// Where the lines of a text begin.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn of(text: &'t str) -> Self {
        let after_breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(after_breaks).collect() }
    }

    fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let before = self.text.get(start..offset).unwrap_or("");
        (line, before.chars().count() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_from_one_and_in_characters() {
        let lines = Lines::of("ä b\nc\n");
        assert_eq!(lines.position(0), (1, 1));
        assert_eq!(lines.position(3), (1, 3));
        assert_eq!(lines.position(5), (2, 1));
        assert_eq!(lines.position(7), (3, 1));
    }

    #[test]
    fn nothing_printed_steers_a_terminal_and_offsets_stay() {
        let text = "a\u{1b}[2J\u{9b}m\rb\r\n\u{202e}\tä";
        let shown = printable(text);
        assert_eq!(shown, "a?[2J\u{b7}m?b\r\n\u{fffd}\tä");
        assert_eq!(shown.len(), text.len());
    }

    #[test]
    fn json_carries_the_place() {
        let fault = Fault::error("vmfile::x", "bad").at((4, 1).into(), "here").help("do");
        let problems = locate("f.kdl", "abc\nd", vec![fault]);
        assert_eq!(
            serde_json::to_value(&problems[0]).unwrap(),
            serde_json::json!({
                "severity": "error", "code": "vmfile::x", "message": "bad", "file": "f.kdl",
                "line": 2, "column": 1, "offset": 4, "length": 1, "label": "here",
                "related": [], "help": "do",
            })
        );
    }
}

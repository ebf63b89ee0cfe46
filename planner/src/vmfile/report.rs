//! What is wrong with a VMFile: for people through miette, for programs through serde.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode, SourceSpan};
use serde::Serialize;

use super::sources::Sources;

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
    /// The file that it is in: the VMFile as it was named by the caller, or one that it includes.
    pub file: String,
    /// Where it is; absent if it stands in no file.
    #[serde(flatten)]
    pub place: Option<Place>,
    /// Other places that belong to it.
    pub related: Vec<Related>,
    /// What to do next.
    pub help: Option<String>,
    /// Absent where it is in no file, or its lines are too long to be shown.
    #[serde(skip)]
    source: Option<Arc<NamedSource<String>>>,
}

/// Another place that belongs to a problem.
#[derive(Debug, Clone, Serialize)]
pub struct Related {
    /// The file that it is in.
    pub file: String,
    /// Where it is.
    #[serde(flatten)]
    pub place: Place,
    /// Absent where its lines are too long to be shown.
    #[serde(skip)]
    source: Option<Arc<NamedSource<String>>>,
}

impl PartialEq for Related {
    fn eq(&self, other: &Self) -> bool {
        (&self.file, &self.place) == (&other.file, &other.place)
    }
}

impl Problem {
    /// The places that are shown within the problem's own file.
    fn places(&self) -> impl Iterator<Item = &Place> {
        self.place
            .iter()
            .chain(self.related.iter().filter(|related| self.shows(related)).map(|related| &related.place))
    }

    /// Whether `related` is shown among its own lines.
    fn shows(&self, related: &Related) -> bool {
        self.source.is_some() && related.source.is_some() && related.file == self.file
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
        f.write_str(&self.message)?;
        match &self.place {
            Some(place) if self.source.is_none() => {
                write!(f, " (`{}`, line {}, column {})", self.file, place.line, place.column)
            }
            _ => Ok(()),
        }
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

    fn related(&self) -> Option<Box<dyn Iterator<Item = &dyn Diagnostic> + '_>> {
        let elsewhere = self.related.iter().filter(|related| !self.shows(related));
        Some(Box::new(elsewhere.map(|related| related as &dyn Diagnostic)))
    }
}

/// A place in another file is shown as a diagnostic of its own, since each shows one source.
impl fmt::Display for Related {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { line, column, label, .. } = &self.place;
        match &self.source {
            Some(_) => write!(f, "{label} in `{}`", self.file),
            None => write!(f, "{label} (`{}`, line {line}, column {column})", self.file),
        }
    }
}

impl std::error::Error for Related {}

impl Diagnostic for Related {
    fn severity(&self) -> Option<miette::Severity> {
        Some(miette::Severity::Advice)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_deref().map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = (self.place.offset, self.place.length);
        Some(Box::new(std::iter::once(LabeledSpan::new_primary_with_span(
            Some(self.place.label.clone()),
            span,
        ))))
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

    /// A report of `faults`, of which there are at most [`MAX_PROBLEMS`], errors first chosen.
    pub(super) fn new(file: &str, sources: &Sources, mut faults: Vec<Fault>) -> Self {
        let errors = once(&mut faults);
        faults.sort_by_key(|fault| (!fault.is_error(), fault.offset()));
        faults.truncate(MAX_PROBLEMS);
        Self { file: file.to_owned(), problems: locate(file, sources, faults), errors }
    }

    /// A report of one problem with a file that could not be read.
    pub(super) fn unreadable(file: &str, fault: Fault) -> Self {
        let sources = Sources::default();
        Self { file: file.to_owned(), problems: locate(file, &sources, vec![fault]), errors: 1 }
    }
}

/// Leaves each fault once: what is wrong with a template is wrong with each machine made of it, and the machines of one
/// `vm` differ in their numbers alone. Warnings that an error may have caused are left out beside errors. Returns the
/// number of errors.
fn once(faults: &mut Vec<Fault>) -> usize {
    let mut seen = HashSet::new();
    faults.retain(|fault| {
        let message = fault.message.replace(|c: char| c.is_ascii_digit(), "");
        seen.insert((fault.code, message, fault.labels.first().map(|(span, _)| *span)))
    });
    let errors = faults.iter().filter(|fault| fault.is_error()).count();
    if errors > 0 {
        faults.retain(|fault| !fault.is_doubtful);
    }
    errors
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
    /// Beside errors it may be one of their consequences.
    is_doubtful: bool,
}

impl Fault {
    pub(super) fn error(code: &'static str, message: impl Into<String>) -> Self {
        let (severity, message) = (Severity::Error, message.into());
        Self { severity, code, message, labels: Vec::new(), help: None, is_doubtful: false }
    }

    pub(super) fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message) }
    }

    /// Not told beside errors, which may be its cause.
    pub(super) fn unless_wrong(mut self) -> Self {
        self.is_doubtful = true;
        self
    }

    pub(super) fn at(mut self, span: SourceSpan, label: impl Into<String>) -> Self {
        self.add_label(span, label);
        self
    }

    /// Adds a place, unless there is a label at it already: what several machines share stands only once.
    pub(super) fn add_label(&mut self, span: SourceSpan, label: impl Into<String>) {
        if self.labels.iter().all(|(known, _)| *known != span) {
            self.labels.push((span, label.into()));
        }
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

    /// Whether the text is no KDL that can be read.
    pub(super) fn is_syntax(&self) -> bool {
        self.is_error()
            && matches!(self.code, "vmfile::syntax" | "vmfile::kdl1" | "vmfile::too-big" | "vmfile::too-deep")
    }

    fn offset(&self) -> usize {
        self.labels.first().map_or(0, |(span, _)| span.offset())
    }

    /// Where it is moved to by `base`, as part of a greater whole.
    pub(super) fn shifted(mut self, base: usize) -> Self {
        for (span, _) in &mut self.labels {
            *span = (span.offset() + base, span.len()).into();
        }
        self
    }

    /// With everything that it says changed by `mask`.
    pub(super) fn masked(mut self, mask: impl Fn(&str) -> String) -> Self {
        self.message = mask(&self.message);
        self.help = self.help.map(|help| mask(&help));
        for (_, label) in &mut self.labels {
            *label = mask(label);
        }
        self
    }
}

/// Locates `faults`, each told once, in the order of the text; `file` is where those are that have no place.
pub(super) fn locate(file: &str, sources: &Sources, mut faults: Vec<Fault>) -> Vec<Problem> {
    if faults.is_empty() {
        // Nothing of the texts is to be shown.
        return Vec::new();
    }
    once(&mut faults);
    faults.sort_by_key(Fault::offset);
    let shown = sources.printable();
    let problem = |fault: Fault| {
        let mut places = fault.labels.into_iter().filter_map(|(span, label)| {
            let (index, file) = sources.at(span.offset())?;
            let place = file.place(span, label);
            let source = shown.get(index).filter(|_| file.is_showable(&place)).map(Arc::clone);
            Some(Related { file: file.shown.clone(), place, source })
        });
        let first = places.next();
        Problem {
            severity: fault.severity,
            code: fault.code,
            message: fault.message,
            file: first.as_ref().map_or_else(|| file.to_owned(), |first| first.file.clone()),
            source: first.as_ref().and_then(|first| first.source.clone()),
            place: first.map(|first| first.place),
            related: places.collect(),
            help: fault.help,
        }
    };
    faults.into_iter().map(problem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_carries_the_place() {
        let fault = Fault::error("vmfile::x", "bad").at((4, 1).into(), "here").help("do");
        let problems = locate("f.kdl", &Sources::of("f.kdl", "abc\nd".to_owned()), vec![fault]);
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

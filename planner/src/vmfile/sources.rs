//! The files that a VMFile consists of. Their texts stand behind one another in one space of offsets, so that a span
//! alone says which file it means.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use miette::{NamedSource, SourceSpan};

use super::lex::is_forbidden;
use super::report::Place;
use super::secrets::Censor;

/// All files of a run, the VMFile first.
#[derive(Debug, Default)]
pub(super) struct Sources {
    files: Vec<SourceFile>,
}

/// One file.
#[derive(Debug)]
pub(super) struct SourceFile {
    /// Its name in messages.
    pub(super) shown: String,
    /// The folder that relative paths in it are relative to, absolute.
    pub(super) folder: PathBuf,
    text: String,
    /// Where it begins among all files.
    base: usize,
    /// Where its lines begin.
    lines: Vec<usize>,
    /// Bytes of it that no message shows.
    hidden: Vec<Range<usize>>,
}

impl Sources {
    /// A run of one text.
    pub(super) fn of(shown: &str, text: String) -> Self {
        let mut sources = Self::default();
        sources.add(shown.to_owned(), PathBuf::new(), text);
        sources
    }

    /// Adds a file; returns where it begins.
    pub(super) fn add(&mut self, shown: String, folder: PathBuf, text: String) -> usize {
        // One byte lies between files, so that the end of one is not the beginning of the next.
        let base = self.files.last().map_or(0, |last| last.base + last.text.len() + 1);
        let after_breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(after_breaks).collect();
        self.files.push(SourceFile { shown, folder, text, base, lines, hidden: Vec::new() });
        base
    }

    /// `below`, a path relative to the first file's folder, in the manner in which the first file is named.
    pub(super) fn beside_first(&self, below: &Path) -> PathBuf {
        let first = self.files.first().map_or("", |file| &file.shown);
        Path::new(first).parent().map_or_else(|| below.to_owned(), |folder| folder.join(below))
    }

    /// The number of files.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// The text that begins at `base`.
    pub(super) fn text(&self, base: usize) -> &str {
        self.at(base).map_or("", |(_, file)| &file.text)
    }

    /// The folder that a path written at `span` is relative to.
    pub(super) fn folder(&self, span: SourceSpan) -> &Path {
        self.at(span.offset()).map_or(Path::new(""), |(_, file)| &file.folder)
    }

    /// The number of the file that `offset` lies in, and the file.
    pub(super) fn at(&self, offset: usize) -> Option<(usize, &SourceFile)> {
        let index = self.files.partition_point(|file| file.base <= offset).checked_sub(1)?;
        Some((index, self.files.get(index)?))
    }

    /// Lets no message show what stands at `span`; quotation marks around it stay.
    pub(super) fn hide(&mut self, span: SourceSpan) {
        let index = self.files.partition_point(|file| file.base <= span.offset());
        let Some(file) = index.checked_sub(1).and_then(|index| self.files.get_mut(index)) else { return };
        let start = span.offset() - file.base;
        let whole = start..start + span.len();
        let written = file.text.get(whole.clone()).unwrap_or_default();
        let is_quoted = written.len() > 1 && written.starts_with('"') && written.ends_with('"');
        file.hidden.push(if is_quoted { whole.start + 1..whole.end - 1 } else { whole });
    }

    /// Blots out what `censor` knows in all texts.
    pub(super) fn blot(&mut self, censor: &Censor) {
        for file in &mut self.files {
            file.text = censor.blot(&file.text);
        }
    }

    /// The texts as messages show them, in the order of the files.
    pub(super) fn printable(&self) -> Vec<Arc<NamedSource<String>>> {
        let printed =
            |file: &SourceFile| Arc::new(NamedSource::new(&file.shown, printable(&file.text, &file.hidden)));
        self.files.iter().map(printed).collect()
    }
}

impl SourceFile {
    /// Where `span` is in this file.
    pub(super) fn place(&self, span: SourceSpan, label: String) -> Place {
        let offset = span.offset() - self.base;
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = self.lines.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let before = self.text.get(start..offset).unwrap_or("");
        Place { line, column: before.chars().count() + 1, offset, length: span.len(), label }
    }

    /// Whether `place` and the lines around it are short enough for a terminal: a file that is one line of many
    /// megabytes would be printed whole for each problem.
    pub(super) fn is_showable(&self, place: &Place) -> bool {
        const LONGEST_LINE: usize = 1_000;
        const LONGEST_PLACE: usize = 10_000;
        let last = self.lines.partition_point(|start| *start <= place.offset + place.length);
        let begins = |line: usize| self.lines.get(line).copied().unwrap_or(self.text.len());
        let around = place.line.saturating_sub(2)..=last;
        place.length <= LONGEST_PLACE
            && around.into_iter().all(|line| begins(line + 1).saturating_sub(begins(line)) <= LONGEST_LINE)
    }
}

/// `text` with everything that is hidden or could steer a terminal replaced, character by character, at the same offsets.
fn printable(text: &str, hidden: &[Range<usize>]) -> String {
    let mut characters = text.char_indices().peekable();
    let mut printable = String::with_capacity(text.len());
    while let Some((at, c)) = characters.next() {
        let line_end = c == '\n' || (c == '\r' && characters.peek().is_some_and(|(_, next)| *next == '\n'));
        if !line_end && hidden.iter().any(|range| range.contains(&at)) {
            printable.extend(std::iter::repeat_n('*', c.len_utf8()));
            continue;
        }
        printable.push(match c.len_utf8() {
            _ if line_end || c == '\t' || !(c.is_control() || is_forbidden(c)) => c,
            1 => '?',
            2 => '\u{b7}',
            _ => '\u{fffd}',
        });
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_from_one_and_in_characters() {
        let mut sources = Sources::of("a.kdl", "x".to_owned());
        let base = sources.add("b.kdl".to_owned(), PathBuf::new(), "ä b\nc\n".to_owned());
        let place = |offset: usize| {
            let (index, file) = sources.at(base + offset).unwrap();
            let place = file.place((base + offset, 0).into(), String::new());
            (index, place.line, place.column)
        };
        assert_eq!(place(0), (1, 1, 1));
        assert_eq!(place(3), (1, 1, 3));
        assert_eq!(place(5), (1, 2, 1));
        assert_eq!(place(7), (1, 3, 1));
        assert_eq!(sources.at(1).map(|(index, _)| index), Some(0), "the end of a file belongs to it");
    }

    #[test]
    fn nothing_printed_steers_a_terminal_and_offsets_stay() {
        let text = "a\u{1b}[2J\u{9b}m\rb\r\n\u{202e}\tä";
        let shown = printable(text, &[]);
        assert_eq!(shown, "a?[2J\u{b7}m?b\r\n\u{fffd}\tä");
        assert_eq!(shown.len(), text.len());
        assert_eq!(printable("a \"ä\nb\" c", &[2..5, 5..8]), "a ***\n** c");
    }
}

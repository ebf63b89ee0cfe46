//! Writing for people and for programs: streams, tables, text that a terminal cannot misread.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, StderrLock, StdoutLock, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::args::ColorWhen;
use crate::error::{CliError, stdout_failed};

pub(crate) use vmctl_providers::text::{visible, visible_bytes};

/// Style of the word that announces a failure.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// Style of the word that announces something doubtful.
pub(crate) const DOUBTFUL: Style = AnsiColor::Yellow.on_default().bold();
/// Style of the word that announces success.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default().bold();
/// Style of labels and headings.
pub(crate) const LABEL: Style = Style::new().bold();

/// Width assumed where the terminal does not tell.
const DEFAULT_WIDTH: usize = 100;

/// Blanks between two columns of a table.
const GAP: usize = 2;

/// Width of a line that is not broken: more than any line has.
const UNBROKEN: usize = 1 << 20;

/// Decides about colour for this process; [`stdout`] and [`stderr`] follow it.
pub(crate) fn choose_color(when: ColorWhen) {
    match when {
        ColorWhen::Auto => anstream::ColorChoice::Auto,
        ColorWhen::Always => anstream::ColorChoice::Always,
        ColorWhen::Never => anstream::ColorChoice::Never,
    }
    .write_global();
}

/// Locked stdout that strips style codes where colour is off.
pub(crate) fn stdout() -> AutoStream<StdoutLock<'static>> {
    AutoStream::auto(io::stdout().lock())
}

/// Locked stderr that strips style codes where colour is off.
pub(crate) fn stderr() -> AutoStream<StderrLock<'static>> {
    AutoStream::auto(io::stderr().lock())
}

/// Whether style codes reach stderr.
pub(crate) fn stderr_has_color() -> bool {
    AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never
}

/// Columns of the terminal behind stderr.
pub(crate) fn stderr_width() -> usize {
    width(&io::stderr())
}

/// Columns of the terminal behind stdout. What goes to a file or a program is not broken into lines.
pub(crate) fn stdout_width() -> usize {
    let stdout = io::stdout();
    if stdout.is_terminal() { width(&stdout) } else { UNBROKEN }
}

fn width(stream: &(impl IsTerminal + std::os::fd::AsFd)) -> usize {
    if !stream.is_terminal() {
        return DEFAULT_WIDTH;
    }
    match rustix::termios::tcgetwinsize(stream) {
        Ok(size) if size.ws_col >= 40 => usize::from(size.ws_col),
        _ => DEFAULT_WIDTH,
    }
}

/// Whether anything was printed to stdout.
static HAS_PRINTED: AtomicBool = AtomicBool::new(false);

/// Whether this process printed anything to stdout, or tried to.
pub(crate) fn has_printed() -> bool {
    HAS_PRINTED.load(Ordering::Relaxed)
}

/// Notes that something is printed to stdout.
pub(crate) fn prints() {
    HAS_PRINTED.store(true, Ordering::Relaxed);
}

/// Writes `text` to stdout at once.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    prints();
    let mut out = stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| stdout_failed(&error))
}

/// Writes bytes to stdout as they are.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), CliError> {
    prints();
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| stdout_failed(&error))
}

/// Writes `value` to stdout as JSON with a final line end.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let text =
        serde_json::to_string(value).map_err(|error| CliError::new("cannot write JSON").because(&error))?;
    let text = indented(&text);
    prints();
    // Bytes of JSON are data: no colour filter between them and the reader.
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| stdout_failed(&error))
}

/// JSON as people read it. Unlike serde_json's own form, it goes into what was kept as text (`vmctl_state::Opaque`).
fn indented(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_text, mut is_escaped, mut is_fresh) = (0_usize, false, false, false);
    let new_line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    for letter in json.chars() {
        if in_text {
            in_text = is_escaped || letter != '"';
            is_escaped = !is_escaped && letter == '\\';
            out.push(letter);
            continue;
        }
        let closes = matches!(letter, '}' | ']');
        if letter.is_ascii_whitespace() {
            continue;
        }
        depth -= usize::from(closes && depth > 0);
        // An empty list or object stays on its line.
        if is_fresh != closes {
            new_line(&mut out, depth);
        }
        out.push(letter);
        is_fresh = matches!(letter, '{' | '[');
        depth += usize::from(is_fresh);
        match letter {
            ',' => new_line(&mut out, depth),
            ':' => out.push(' '),
            '"' => in_text = true,
            _ => {}
        }
    }
    out
}

/// Tells people something that is no result: on stderr, unless `quiet`.
///
/// A stderr that cannot be written to leaves nobody to tell.
pub(crate) fn note(quiet: bool, text: &str) {
    if !quiet {
        let _ = writeln!(stderr(), "{}", visible(text));
    }
}

/// Warns on stderr, quiet or not.
pub(crate) fn warn(text: &str) {
    let _ = writeln!(stderr(), "{DOUBTFUL}warning{DOUBTFUL:#}: {}", visible(text));
}

/// `value` as JSON in one line, with its end.
pub(crate) fn json_line(value: &impl Serialize) -> Result<String, CliError> {
    let text =
        serde_json::to_string(value).map_err(|error| CliError::new("cannot write JSON").because(&error))?;
    Ok(text + "\n")
}

/// Columns that `text` takes on a terminal, styles left out.
pub(crate) fn columns_of(text: &str) -> usize {
    textwrap::core::display_width(text)
}

/// As much of one line as fits into `width` columns, with a sign where it was cut; all of it if that is 0. Styles stay.
pub(crate) fn clipped(line: &str, width: usize) -> String {
    if width == 0 || columns_of(line) <= width {
        return line.to_owned();
    }
    let (mut shown, mut taken, mut cut) = (String::new(), 0, false);
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            // A style, up to its `m`: also behind the cut, so that none is left open.
            shown.push(c);
            for c in rest.by_ref() {
                shown.push(c);
                if c == 'm' {
                    break;
                }
            }
            continue;
        }
        let wide = columns_of(c.encode_utf8(&mut [0; 4]));
        if !cut && taken + wide < width {
            shown.push(c);
            taken += wide;
        } else if !cut {
            shown.push('…');
            cut = true;
        }
    }
    shown
}

/// A line of a diff in its colour.
pub(crate) fn diff_line(line: &str) -> String {
    let style = match line.chars().next() {
        Some('+') => AnsiColor::Green.on_default(),
        Some('-') => AnsiColor::Red.on_default(),
        Some('@') => AnsiColor::Cyan.on_default(),
        _ => Style::new(),
    };
    format!("{style}{}{style:#}", visible(line))
}

/// Rows of left-aligned cells under headings.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings and no rows.
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|&heading| heading.to_owned()).collect()] }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| visible(&cell).replace('\n', " ")).collect());
    }

    /// Leaves columns out, in the order in which `sacrifices` names their headings, until no line is wider than `width`.
    /// Returns the headings of those that are left out.
    pub(crate) fn fit<'a>(&mut self, width: usize, sacrifices: &[&'a str]) -> Vec<&'a str> {
        let mut left_out = Vec::new();
        for heading in sacrifices {
            if self.widths().iter().map(|width| width + GAP).sum::<usize>() <= width + GAP {
                break;
            }
            if let Some(at) = self.rows[0].iter().position(|name| name == heading) {
                self.rows.iter_mut().for_each(|row| drop(row.remove(at)));
                left_out.push(*heading);
            }
        }
        left_out
    }

    /// The width of each column.
    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cells = |column| self.rows.iter().filter_map(move |row: &Vec<String>| row.get(column));
        (0..columns).map(|column| cells(column).map(|cell| columns_of(cell)).max().unwrap_or(0)).collect()
    }

    /// The table as text; columns stand two spaces apart, and no line ends in a space.
    pub(crate) fn render(&self) -> String {
        let widths = self.widths();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, &width) in row.iter().zip(&widths) {
                let blanks = width.saturating_sub(columns_of(cell)) + GAP;
                // Writing to a String cannot fail.
                let _ = write!(line, "{cell}{:blanks$}", "");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Like [`visible`], for text in which our own colours may be mixed with what a file holds: colours stay.
pub(crate) fn visible_but_colored(text: &str) -> String {
    let mut pieces = text.split('\u{1b}');
    let mut shown = visible(pieces.next().unwrap_or_default());
    for piece in pieces {
        // `[`, numbers, `m`: the one kind of sequence that sets nothing but the look of text (ECMA-48, SGR).
        let numbers = piece
            .strip_prefix('[')
            .map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';'));
        match numbers.and_then(|rest| rest.strip_prefix('m')) {
            Some(rest) => {
                shown.push('\u{1b}');
                shown.push_str(&piece[..piece.len() - rest.len()]);
                shown.push_str(&visible(rest));
            }
            None => {
                shown.push_str("^[");
                shown.push_str(&visible(piece));
            }
        }
    }
    shown
}

/// An amount of memory or disk in the largest binary unit that shows it in full.
pub(crate) fn mebibytes(mib: u64) -> String {
    if mib != 0 && mib.is_multiple_of(1024) { format!("{} GiB", mib / 1024) } else { format!("{mib} MiB") }
}

/// A number of bytes, rounded down to one decimal of a binary unit.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match UNITS.iter().find(|(_, shift)| n >> shift > 0) {
        Some((unit, shift)) => {
            let tenths = (u128::from(n) * 10) >> shift;
            if tenths.is_multiple_of(10) {
                format!("{} {unit}", tenths / 10)
            } else {
                format!("{}.{} {unit}", tenths / 10, tenths % 10)
            }
        }
        None => format!("{n} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "STATE", "PID"]);
        table.row(["web".into(), "running".into(), "17".into()]);
        table.row(["a-longer-name".into(), "stopped".into(), "-".into()]);
        insta::assert_snapshot!(table.render(), @r"
        NAME           STATE    PID
        web            running  17
        a-longer-name  stopped  -
        ");
    }

    #[test]
    fn wide_letters_take_two_columns() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(["日本".into(), "running".into()]);
        table.row(["cafe\u{301}-1".into(), "stopped".into()]);
        assert_eq!(table.render(), "NAME    STATE\n日本    running\ncafe\u{301}-1  stopped\n");
    }

    #[test]
    fn columns_are_left_out_where_there_is_no_room() {
        let table = || {
            let mut table = Table::new(&["NAME", "STATE", "PID"]);
            table.row(["web".into(), "running".into(), "17".into()]);
            table
        };
        let fitted = |width| {
            let mut table = table();
            (table.fit(width, &["PID", "STATE"]), table.render())
        };
        assert_eq!(fitted(18), (vec![], "NAME  STATE    PID\nweb   running  17\n".to_owned()));
        assert_eq!(fitted(17), (vec!["PID"], "NAME  STATE\nweb   running\n".to_owned()));
        assert_eq!(fitted(2), (vec!["PID", "STATE"], "NAME\nweb\n".to_owned()));
    }

    #[test]
    fn json_is_indented_as_serde_json_does_it_down_into_what_was_kept_as_text() {
        let value = serde_json::json!({
            "a": [], "b": {}, "c": [1, -2.5e10, null, true, [[]], {"d": {"e": []}}], "é \" \\": "{\"x\": [1,\n2]} \\",
        });
        assert_eq!(indented(&value.to_string()), serde_json::to_string_pretty(&value).unwrap());
        assert_eq!(indented("\"\\\\\""), "\"\\\\\"");
        let kept: vmctl_state::Opaque = serde_json::from_str("{\"b\":[ 1 ],\"a\" : 2}").unwrap();
        assert_eq!(
            indented(&serde_json::to_string(&[kept]).unwrap()),
            "[\n  {\n    \"b\": [\n      1\n    ],\n    \"a\": 2\n  }\n]"
        );
    }

    #[test]
    fn line_is_cut_where_the_terminal_ends() {
        assert_eq!([0, 4, 5, 9].map(|width| clipped("abcde", width)), ["abcde", "abc…", "abcde", "abcde"]);
        assert_eq!(clipped("日本語", 4), "日…");
        assert_eq!(clipped("\u{1b}[1mabcde\u{1b}[0m", 3), "\u{1b}[1mab…\u{1b}[0m");
    }

    #[test]
    fn rows_keep_their_line_whatever_a_cell_holds() {
        let mut table = Table::new(&["A"]);
        table.row(["x\ny\u{1b}[31m".into()]);
        assert_eq!(table.render(), "A\nx y^[[31m\n");
    }

    #[test]
    fn colors_pass_where_other_sequences_do_not() {
        let text = "\u{1b}[1;31mred\u{1b}[0m \u{1b}[2J \u{1b}]0;x\u{7} \u{1b}";
        assert_eq!(visible_but_colored(text), "\u{1b}[1;31mred\u{1b}[0m ^[[2J ^[]0;x^G ^[");
    }

    #[test]
    fn sizes_are_exact_or_rounded_down() {
        assert_eq!([512, 1024, 1536, 2048].map(mebibytes), ["512 MiB", "1 GiB", "1536 MiB", "2 GiB"]);
        assert_eq!(
            [0, 1023, 1024, 1_572_864, u64::MAX].map(bytes),
            ["0 B", "1023 B", "1 KiB", "1.5 MiB", "16777215.9 TiB"]
        );
    }
}

//! A report as a comment on a pull request: Markdown as GitHub reads it.

use vmctl_planner::picture::{Picture, mermaid};

use super::{Report, ReportChange, ReportCheck, ReportDiff, ReportField};
use crate::ui::visible;

/// Longest comment that GitHub takes, in characters. Counted in bytes here, which are never fewer.
pub(crate) const MAX_LENGTH: usize = 65_536;

/// What is kept free for the line that says where the report was cut.
const CUT_NOTE: usize = 512;

/// Bytes of one sentence or value that are shown, and of one text's differences: one long text must not push out all
/// others.
const MAX_TEXT: usize = 600;
const MAX_DIFF: usize = 12_000;

/// Boxes up to which the steps are drawn; a comment is no place for more.
const MAX_BOXES: usize = 60;

/// One piece that is shown whole or not at all, and what it is.
struct Piece {
    what: String,
    text: String,
}

/// The report as Markdown of at most [`MAX_LENGTH`] bytes; where it was cut, its last line says so.
///
/// No text of the report can begin an element, end a code block, break a table or notify anybody.
pub(crate) fn markdown(report: &Report) -> String {
    let mut text = String::new();
    let pieces = pieces(report);
    for (number, piece) in pieces.iter().enumerate() {
        if text.len() + piece.text.len() > MAX_LENGTH - CUT_NOTE {
            let left = pieces.len() - number;
            text.push_str(&format!(
                "\n\n---\n\n**Cut here**, before {}: {left} of {} parts do not fit into a comment.\n",
                piece.what,
                pieces.len()
            ));
            break;
        }
        text.push_str(&piece.text);
    }
    text
}

fn pieces(report: &Report) -> Vec<Piece> {
    let mut pieces = vec![Piece { what: "the heading".to_owned(), text: head(report) }];
    alarm("Data loss", report.losses(), &mut pieces);
    alarm("Refused", report.refusals(), &mut pieces);
    alarm("Too little room", report.shortages(), &mut pieces);
    table(report, &mut pieces);
    for change in report.ordered().into_iter().filter(|change| has_details(change)) {
        pieces
            .push(Piece { what: format!("the details of {}", code(&change.address)), text: details(change) });
    }
    for (heading, entries) in report.lists() {
        let text = format!("\n#### {heading}\n\n{}", list(entries));
        pieces.push(Piece { what: format!("the list `{heading}`"), text });
    }
    if !report.checks.is_empty() {
        pieces.push(Piece { what: "the checks".to_owned(), text: checks(&report.checks) });
    }
    if let Some(steps) = report.steps.as_ref().filter(|steps| (1..=MAX_BOXES).contains(&steps.nodes.len())) {
        pieces.push(Piece { what: "the steps".to_owned(), text: drawing(steps) });
    }
    pieces.push(Piece { what: "the inputs".to_owned(), text: foot(report) });
    pieces
}

fn head(report: &Report) -> String {
    let mode = if report.mode.is_empty() { String::new() } else { format!(", {}", plain(&report.mode)) };
    format!(
        "### {}\n\nProject {}{mode}: **{}**.\n",
        plain(&report.title),
        code(&report.project),
        plain(&report.summary())
    )
}

/// A list that stands before everything else; each entry is a piece, since there may be any number.
fn alarm<'a>(heading: &str, entries: impl Iterator<Item = (&'a str, &'a str)>, pieces: &mut Vec<Piece>) {
    for (number, (address, text)) in entries.enumerate() {
        let heading = if number == 0 { format!("\n#### ⚠ {heading}\n\n") } else { String::new() };
        let text = format!("{heading}- {}: {}\n", code(address), plain(text));
        pieces.push(Piece { what: format!("what is said of {}", code(address)), text });
    }
}

fn table(report: &Report, pieces: &mut Vec<Piece>) {
    for (number, change) in report.ordered().into_iter().enumerate() {
        let heading =
            if number == 0 { "\n| | Machine | Action | Why |\n| --- | --- | --- | --- |\n" } else { "" };
        let row = [code(&change.symbol), code(&change.address), plain(&change.action), why(change)];
        let text = format!("{heading}| {} |\n", row.join(" | "));
        pieces.push(Piece { what: format!("the row of {}", code(&change.address)), text });
    }
}

fn why(change: &ReportChange) -> String {
    let refused = change.refused.iter().map(|reason| format!("refused: {reason}"));
    plain(&refused.chain(change.reasons.iter().cloned()).collect::<Vec<_>>().join("; "))
}

/// Whether there is more to tell than the table does.
fn has_details(change: &ReportChange) -> bool {
    let ReportChange { losses, drift, fields, diffs, provision, .. } = change;
    !(losses.is_empty() && drift.is_empty() && fields.is_empty() && diffs.is_empty() && provision.is_empty())
}

fn details(change: &ReportChange) -> String {
    let mut text = format!(
        "\n<details><summary>{} {}: {}</summary>\n",
        code(&change.symbol),
        code(&change.address),
        plain(&change.action)
    );
    for (heading, entries) in change.lists() {
        text.push_str(&format!("\n**{heading}**\n\n{}", list(entries)));
    }
    if !change.fields.is_empty() {
        text.push_str("\n| Field | Before | After |\n| --- | --- | --- |\n");
        change.fields.iter().for_each(|field| text.push_str(&row(field)));
    }
    change.diffs.iter().for_each(|diff| text.push_str(&fenced(diff)));
    text.push_str("\n</details>\n");
    text
}

fn row(field: &ReportField) -> String {
    format!("| {} | {} | {} |\n", plain(&field.name), code(&field.before), code(&field.after))
}

/// A code block whose fence no line of it can be.
fn fenced(diff: &ReportDiff) -> String {
    let text = visible(&diff.text);
    let shown = beginning(&text, MAX_DIFF);
    // A line is shown whole or not at all.
    let shown =
        if shown.len() < text.len() { shown.rfind('\n').map_or("", |end| &shown[..end]) } else { shown };
    let left = text[shown.len()..].lines().filter(|line| !line.is_empty()).count();
    let fence = "`".repeat(longest_run(shown, '`').max(2) + 1);
    let note = if left == 0 { String::new() } else { format!("\n{left} more lines.\n") };
    format!("\n{}\n\n{fence}diff\n{}\n{fence}\n{note}", plain(&diff.title), shown.trim_end_matches('\n'))
}

fn checks(checks: &[ReportCheck]) -> String {
    let row = |check: &ReportCheck| {
        let cells = [code(&check.address), plain(&check.name), plain(&check.verdict), plain(&check.detail)];
        format!("| {} |\n", cells.join(" | "))
    };
    let rows: String = checks.iter().map(row).collect();
    format!("\n#### Checks\n\n| Machine | Check | Answer | Detail |\n| --- | --- | --- | --- |\n{rows}")
}

/// Labels of Mermaid hold no backtick, so that the common fence is enough.
fn drawing(steps: &Picture) -> String {
    format!("\n<details><summary>Steps</summary>\n\n```mermaid\n{}```\n\n</details>\n", mermaid(steps))
}

fn foot(report: &Report) -> String {
    let inputs =
        report.inputs.iter().map(|input| format!("- {} {}\n", code(&input.path), code(&input.digest)));
    let facts = report.facts.iter().map(|(name, value)| format!("- {}: {}\n", plain(name), plain(value)));
    let lines: String = inputs.chain(facts).collect();
    if lines.is_empty() {
        return lines;
    }
    format!("\n<details><summary>About this report</summary>\n\n{lines}\n</details>\n")
}

fn list(entries: &[String]) -> String {
    entries.iter().map(|entry| format!("- {}\n", plain(entry))).collect()
}

/// Lines as they are, in a block whose fence none of them can be.
pub(crate) fn verbatim(lines: &[String]) -> String {
    let text = visible(&lines.join("\n"));
    let shown = beginning(&text, MAX_DIFF);
    let fence = "`".repeat(longest_run(shown, '`').max(2) + 1);
    format!("\n{fence}text\n{}\n{fence}\n", shown.trim_end_matches('\n'))
}

/// Text as code: GitHub looks for nobody's name in it.
pub(crate) fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("<code>{}</code>", escaped(text)) }
}

/// Text that is nothing but text. A name after `@` and a number after `#` are kept apart from their marks by a space
/// without width, or GitHub would notify the people and things that are called so.
pub(crate) fn plain(text: &str) -> String {
    escaped(text).replace("&#64;", "&#64;&#8203;").replace("&#35;", "&#35;&#8203;")
}

/// One line, cut if it is long, in which all that could mean something to Markdown, HTML or a table is written as an
/// entity: those are characters and never marks.
fn escaped(text: &str) -> String {
    let text = visible(text);
    let shown = beginning(&text, MAX_TEXT);
    let mut line = String::with_capacity(shown.len());
    for c in shown.trim().chars() {
        match c {
            '\n' | '\t' => line.push(' '),
            c if c.is_ascii_punctuation() && is_mark(c, &line) => {
                line.push_str(&format!("&#{};", u32::from(c)))
            }
            c => line.push(c),
        }
    }
    if shown.len() < text.len() {
        line.push('…');
    }
    line
}

/// Whether a punctuation character means something after what is before it on its line.
fn is_mark(c: char, before: &str) -> bool {
    match c {
        ',' | '/' | '(' | '\'' | ';' | '?' | '%' | '-' | '+' | '=' | '!' => before.is_empty(),
        // `1.` and `1)` begin a list; `www.` and `https:` a link.
        '.' | ')' | ':' => {
            let word = before.rsplit(|c: char| !c.is_alphanumeric()).next().unwrap_or(before);
            let begins_link = ["www", "http", "https", "ftp"].iter().any(|it| word.eq_ignore_ascii_case(it));
            begins_link || before.bytes().all(|byte| byte.is_ascii_digit())
        }
        _ => true,
    }
}

/// The longest beginning of `text` of at most `length` bytes.
fn beginning(text: &str, length: usize) -> &str {
    &text[..text.floor_char_boundary(length)]
}

/// Length of the longest run of `mark`.
fn longest_run(text: &str, mark: char) -> usize {
    text.split(|c| c != mark).map(str::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use pulldown_cmark::{Event, Options, Parser, Tag};

    use super::*;
    use crate::report::markdown;
    use crate::report::sample::{HOSTILE, filled, sample};

    /// What Markdown finds in a report: the names of its elements, and all HTML, without the text between.
    fn structure(markdown: &str) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
            match event {
                // Texts come in pieces.
                Event::Text(_) => {}
                Event::Html(html) | Event::InlineHtml(html) => found.push(html.trim().to_owned()),
                Event::Start(Tag::CodeBlock(kind)) => found.push(format!("{kind:?}")),
                event => found.push(format!("{event:?}")),
            }
        }
        found
    }

    #[test]
    fn report_is_a_comment() {
        insta::assert_snapshot!(markdown(&sample()));
    }

    #[test]
    fn empty_report_says_that_nothing_changes() {
        let empty = Report { title: "Plan".to_owned(), project: "shop".to_owned(), ..Report::default() };
        assert_eq!(markdown(&empty), "### Plan\n\nProject <code>shop</code>: **no changes**.\n");
    }

    #[test]
    fn no_text_becomes_an_element() {
        let expected = structure(&markdown(&filled("x")));
        for text in HOSTILE {
            let found = markdown(&filled(text));
            // Summaries are blocks of HTML, whose text is part of them.
            let found = structure(&found).join("\n").replace(&escaped(text), "x").replace(&plain(text), "x");
            assert_eq!(found, expected.join("\n"), "{text:?}");
        }
    }

    #[test]
    fn nobody_is_notified() {
        let text =
            markdown(&filled("@team mends #12, see www.example.org, https://example.org and a@example.org"));
        let outside: String = text.split("```").step_by(2).collect();
        assert!(
            !outside.contains('@') && !outside.contains("www.") && !outside.contains("https:"),
            "{outside}"
        );
        assert!(plain("@team #12").contains("&#64;&#8203;team &#35;&#8203;12"));
    }

    #[test]
    fn fence_is_longer_than_any_within() {
        let diff = ReportDiff { title: "notes".to_owned(), text: "+````\n+```x\n".to_owned() };
        assert_eq!(fenced(&diff), "\nnotes\n\n`````diff\n+````\n+```x\n`````\n");
    }

    #[test]
    fn long_differences_end_at_a_line_and_say_so() {
        let diff = ReportDiff { title: "long".to_owned(), text: "+0123456789\n".repeat(2_000) };
        let text = fenced(&diff);
        assert!(
            text.len() < MAX_DIFF + 100 && text.ends_with("+0123456789\n```\n\n1000 more lines.\n"),
            "{text}"
        );
    }

    #[test]
    fn long_report_fits_into_a_comment_and_says_where_it_was_cut() {
        let mut report = sample();
        let change = report.changes[0].clone();
        let numbered = |number| ReportChange { address: format!("vm.n{number}"), ..change.clone() };
        report.changes = (0..300).map(numbered).collect();
        let text = markdown(&report);
        assert!(text.len() <= MAX_LENGTH && text.len() > MAX_LENGTH / 2, "{}", text.len());
        let end = text.lines().last().unwrap();
        assert!(
            end.starts_with("**Cut here**, before ") && end.ends_with(" parts do not fit into a comment."),
            "{end}"
        );
        assert_eq!(text.matches("<details>").count(), text.matches("</details>").count());
    }
}

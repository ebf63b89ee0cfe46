//! A report as one HTML file that needs nothing else, and is allowed nothing else.

use base64ct::{Base64, Encoding};
use maud::{DOCTYPE, Markup, PreEscaped, html as markup};
use sha2::{Digest, Sha256};
use vmctl_planner::picture::{self, Picture};

use super::{Report, ReportChange, ReportCheck, ReportDiff, ReportField};
use crate::ui::visible;

/// How the page looks.
pub(crate) const STYLE: &str = include_str!("page.css");

/// What makes it searchable. Without it all of the page is there, and the search is not shown.
const SCRIPT: &str = include_str!("page.js");

/// The report as an HTML file: no other resource, bright or dark as the reader's surroundings are, readable without
/// scripts and on paper. `#q=WORDS` in its address shows only the changes that hold all of the words.
///
/// Every text is escaped; a policy in the page forbids any script and style but its own, and any connection.
pub(crate) fn html(report: &Report) -> String {
    markup! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy(&[SCRIPT], &[STYLE, picture::STYLE]));
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="referrer" content="no-referrer";
                title { (visible(&report.title)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (head(report))
                main {
                    (alarms(report))
                    (changes(report))
                    @for (heading, entries) in report.lists() { section { h2 { (heading) } (list(entries)) } }
                    (checks(&report.checks))
                    @if let Some(steps) = &report.steps { (drawing(steps)) }
                }
                (foot(report))
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
    .into_string()
}

/// What lets no page load anything, nor run any script or style but these.
pub(crate) fn policy(scripts: &[&str], styles: &[&str]) -> String {
    let digest = |text: &&str| format!("'sha256-{}'", Base64::encode_string(&Sha256::digest(text)));
    let all = |texts: &[&str]| match texts.iter().map(digest).collect::<Vec<_>>().join(" ") {
        none if none.is_empty() => "'none'".to_owned(),
        digests => digests,
    };
    format!(
        "default-src 'none'; script-src {}; style-src {}; base-uri 'none'; form-action 'none'",
        all(scripts),
        all(styles)
    )
}

fn head(report: &Report) -> Markup {
    markup! {
        header {
            h1 { (visible(&report.title)) }
            p.soft {
                "Project " code { (visible(&report.project)) }
                @if !report.mode.is_empty() { ", " (visible(&report.mode)) }
                ": " (visible(&report.summary())) "."
            }
            @if report.told_counts().next().is_some() {
                ul.counts {
                    @for count in report.told_counts() {
                        li class=(count.tone.name()) { (count.number) " " (visible(&count.name)) }
                    }
                }
            }
        }
    }
}

/// What must not be overlooked, before everything else.
fn alarms(report: &Report) -> Markup {
    let alarms: [(&str, Vec<(&str, &str)>); 3] = [
        ("Data loss", report.losses().collect()),
        ("Refused", report.refusals().collect()),
        ("Too little room", report.shortages().collect()),
    ];
    markup! {
        @for (heading, entries) in alarms.iter().filter(|(_, entries)| !entries.is_empty()) {
            section.alarm {
                h2 { (heading) }
                ul { @for (address, text) in entries {
                    li { code { (visible(address)) } ": " (visible(text)) }
                } }
            }
        }
    }
}

fn changes(report: &Report) -> Markup {
    if report.changes.is_empty() {
        return markup! {};
    }
    markup! {
        section {
            h2 { "Changes" }
            div #search role="search" hidden {
                label for="q" { "Filter" }
                input #q type="search" autocomplete="off" spellcheck="false"
                    placeholder="address, action or text ( / )";
                span #found.soft role="status" aria-live="polite" {}
                button #open type="button" { "Open all" }
                button #close type="button" { "Close all" }
            }
            @for change in report.ordered() { (entry(change)) }
        }
    }
}

fn entry(change: &ReportChange) -> Markup {
    let is_open = change.refused.is_some() || !change.losses.is_empty();
    markup! {
        details class={ "entry " (change.tone.name()) } open[is_open] {
            summary {
                span.symbol { (visible(&change.symbol)) } " "
                span.address { (visible(&change.address)) } ": " (visible(&change.action))
                @if !change.reasons.is_empty() {
                    " " span.soft { "(" (visible(&change.reasons.join("; "))) ")" }
                }
            }
            div.body {
                @if let Some(refused) = &change.refused {
                    h3 { "Refused" }
                    p { (visible(refused)) }
                }
                @for (heading, entries) in change.lists() { h3 { (heading) } (list(entries)) }
                (fields(&change.fields))
                @for diff in &change.diffs { (lines(diff)) }
            }
        }
    }
}

fn fields(fields: &[ReportField]) -> Markup {
    if fields.is_empty() {
        return markup! {};
    }
    markup! {
        h3 { "Fields" }
        table {
            thead { tr { th scope="col" { "Field" } th scope="col" { "Before" } th scope="col" { "After" } } }
            tbody { @for field in fields {
                tr {
                    th scope="row" { (visible(&field.name)) }
                    td { (visible(&field.before)) }
                    td { (visible(&field.after)) }
                }
            } }
        }
    }
}

fn lines(diff: &ReportDiff) -> Markup {
    let mut is_in_hunk = false;
    let text = visible(&diff.text);
    markup! {
        h3 { (visible(&diff.title)) }
        div.scroll role="region" tabindex="0" aria-label=(visible(&diff.title)) {
            pre { @for line in text.lines() {
                span class=(line_kind(line, &mut is_in_hunk)) { (line) "\n" }
            } }
        }
    }
}

/// What a line of a unified diff is. File names stand before the first hunk only: after it, `---` is a line that began
/// with `--` and was removed.
fn line_kind(line: &str, is_in_hunk: &mut bool) -> &'static str {
    if line.starts_with("@@") {
        *is_in_hunk = true;
        return "hunk";
    }
    let is_name = line.starts_with("---") || line.starts_with("+++");
    match line.as_bytes().first() {
        _ if is_name && !*is_in_hunk => "head",
        Some(b'+') => "added",
        Some(b'-') => "removed",
        _ => "same",
    }
}

fn checks(checks: &[ReportCheck]) -> Markup {
    if checks.is_empty() {
        return markup! {};
    }
    markup! {
        section {
            h2 { "Checks" }
            table {
                thead { tr {
                    @for heading in ["Machine", "Check", "Answer", "Detail"] { th scope="col" { (heading) } }
                } }
                tbody { @for check in checks {
                    tr class=(check.tone.name()) {
                        td { code { (visible(&check.address)) } }
                        td { (visible(&check.name)) }
                        td.verdict { (visible(&check.verdict)) }
                        td { (visible(&check.detail)) }
                    }
                } }
            }
        }
    }
}

fn drawing(steps: &Picture) -> Markup {
    markup! {
        section {
            h2 { "Steps" }
            div.scroll role="region" tabindex="0" aria-label="steps and their order" {
                // The drawing escapes its labels itself.
                (PreEscaped(picture::svg(steps)))
            }
        }
    }
}

fn foot(report: &Report) -> Markup {
    markup! {
        footer {
            @if !report.inputs.is_empty() {
                h2 { "Inputs" }
                dl { @for input in &report.inputs {
                    dt { code { (visible(&input.path)) } }
                    dd { code { (visible(&input.digest)) } }
                } }
            }
            @if !report.facts.is_empty() {
                h2 { "About this report" }
                dl { @for (name, value) in &report.facts { dt { (visible(name)) } dd { (visible(value)) } } }
            }
        }
    }
}

fn list(entries: &[String]) -> Markup {
    markup! { ul { @for entry in entries { li { (visible(entry)) } } } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::html;
    use crate::report::sample::{HOSTILE, filled, sample};

    /// The page with the texts that are files of their own named instead of shown, one element a line.
    fn readable(page: &str) -> String {
        let mut page = page.to_owned();
        for (text, name) in [(STYLE, "page.css"), (SCRIPT, "page.js"), (picture::STYLE, "picture::STYLE")] {
            assert!(page.contains(text), "{name} is not in the page as it is");
            page = page.replace(text, &format!("({name})"));
        }
        page.replace("><", ">\n<")
    }

    #[test]
    fn report_is_a_page() {
        let page = readable(&html(&sample()));
        // Digests of files that change belong into no text that people read.
        let (before, policy) = page.split_once("default-src").unwrap();
        let (_, after) = policy.split_once("base-uri").unwrap();
        insta::assert_snapshot!(format!("{before}default-src (policy) base-uri{after}"));
    }

    #[test]
    fn no_text_becomes_an_element_or_attribute() {
        let marks = |page: &str| ['<', '>', '"'].map(|mark| page.matches(mark).count());
        // Line breaks are kept, and begin a line of a diff as they should.
        let expected = html(&filled("x"));
        for text in HOSTILE {
            let page = html(&filled(&text.replace('\n', " ")));
            assert_eq!(marks(&page), marks(&expected), "{text:?}\n{page}");
        }
    }

    #[test]
    fn no_element_says_an_attribute_twice() {
        for tag in html(&sample()).split('<').filter_map(|piece| piece.split_once('>')).map(|(tag, _)| tag) {
            for name in [" class=", " id=", " role="] {
                assert!(tag.matches(name).count() <= 1, "<{tag}>");
            }
        }
    }

    #[test]
    fn page_names_nothing_outside_itself() {
        let page = html(&sample()).replace("http://www.w3.org/2000/svg", "");
        for word in ["http:", "https:", "//", "src=", "href=", "url(", "@import"] {
            let found = page.lines().find(|line| line.contains(word) && !line.trim_start().starts_with("//"));
            assert_eq!(found, None, "{word}");
        }
    }

    #[test]
    fn policy_names_the_digest_of_each_text() {
        // Base64 of the SHA-256 of nothing, from RFC 6234's test vectors, for the form of it.
        assert_eq!(
            Base64::encode_string(&Sha256::digest("")),
            "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
        );
        let policy = policy(&[SCRIPT], &[STYLE, picture::STYLE]);
        assert_eq!(policy.matches("'sha256-").count(), 3);
        assert!(!policy.contains("unsafe"));
    }

    #[test]
    fn minus_signs_after_the_first_hunk_are_removed_lines() {
        let mut is_in_hunk = false;
        let kinds = ["--- a", "+++ b", "@@ -1 +1 @@", "--- c", "+++ d", " e", ""]
            .map(|line| line_kind(line, &mut is_in_hunk));
        assert_eq!(kinds, ["head", "head", "hunk", "removed", "added", "same", "same"]);
    }
}

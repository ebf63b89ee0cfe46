//! Line diffs of texts: of those behind digests, user-data and scripts, and others. What looks like a secret is masked.

use std::collections::{BTreeMap, BTreeSet};

use similar::{Change as Line, ChangeTag, TextDiff as LineDiff};
use vmctl_providers::provision::{ProvisionAction, ProvisionStep, Run};
use vmctl_providers::{Digest, Mask, Secrets};
use vmctl_state::{Record, Snapshot};

use crate::change::{Action, Change, TextDiff};
use crate::desired::{Desired, DesiredVm};
use crate::fields::{ALL, PROVISION};
use crate::plan::Plan;
use crate::recorded::{RecordError, spec_of};

/// Unchanged lines around a change; as many as `diff -u` and git show.
const CONTEXT: usize = 3;

/// Bytes of one text beyond which lines are not compared: comparing is quadratic at worst.
const LONGEST: usize = 256 << 10;

/// Digest of a text, as records name it.
pub type TextId = String;

impl Plan {
    /// Adds line diffs to the changes whose text is known: `known` gives the text that a digest stands for.
    ///
    /// Only what people see changes, nothing of what is done.
    pub fn show_texts(
        &mut self,
        desired: &Desired,
        recorded: &Snapshot,
        known: impl Fn(&str) -> Option<String>,
    ) -> Result<(), RecordError> {
        for change in &mut self.changes {
            let was = change.moved_from.as_ref().unwrap_or(&change.address);
            let vm = desired.vms.get(change.address.name());
            if let (Some(vm), Some(record)) = (vm, recorded.records.get(was)) {
                // What was kept before it was said to be sensitive is sealed now.
                let known = |digest: &str| known(digest).map(|text| desired.secrets.seal(&text));
                change.diffs = diffs(change, vm, record, &desired.secrets, known)?;
            }
        }
        Ok(())
    }
}

/// The texts that a desired state is made of, by digest. Kept, they show later what changed; sensitive values are sealed.
pub fn texts(desired: &Desired) -> BTreeMap<TextId, String> {
    let seal = |text| desired.secrets.seal(text);
    let mut texts = BTreeMap::new();
    for vm in desired.vms.values() {
        if let Some(data) = vm.cloud_init.as_ref().and_then(|seed| seed.user_data.as_ref()) {
            texts.insert(Digest::of(data.expose()).to_string(), seal(data.expose()));
        }
        for (digest, script) in vm.provision.iter().filter_map(script) {
            texts.insert(digest.to_string(), seal(script));
        }
    }
    texts
}

/// The digests that the records name: texts that are worth keeping.
pub fn remembered(recorded: &Snapshot) -> Result<BTreeSet<TextId>, RecordError> {
    let mut remembered = BTreeSet::new();
    for record in recorded.records.values() {
        remembered.extend(record.provisioned.iter().map(|step| step.digest.clone()));
        let spec = spec_of(record)?;
        let seed = spec.cloud_init.as_ref();
        remembered.extend(seed.and_then(|seed| seed.user_data.as_ref()).map(ToString::to_string));
    }
    Ok(remembered)
}

fn diffs(
    change: &Change,
    vm: &DesiredVm,
    record: &Record,
    secrets: &Secrets,
    known: impl Fn(&str) -> Option<String>,
) -> Result<Vec<TextDiff>, RecordError> {
    let mut diffs = Vec::new();
    if change.fields.iter().any(|field| field.field == "cloud-init.user-data") {
        let spec = spec_of(record)?;
        let before = spec.cloud_init.as_ref().and_then(|seed| seed.user_data.as_ref());
        let before = before.and_then(|digest| known(digest.as_str()));
        let after = vm.cloud_init.as_ref().and_then(|seed| seed.user_data.as_ref());
        if let (Some(before), Some(after)) = (before, after) {
            diffs.push(diff("cloud-init.user-data", &before, &secrets.seal(after.expose())));
        }
    }
    let ignored = &vm.lifecycle.ignore_changes;
    let is_ignored = ignored.contains(PROVISION) || ignored.contains(ALL);
    let compares = !is_ignored || change.action == Action::Replace;
    for (step, ran) in vm.provision.iter().zip(&record.provisioned).filter(|(step, _)| {
        // What is never to run again is not compared either.
        compares && (step.options.run != Run::Once || change.action == Action::Replace)
    }) {
        if let Some((digest, after)) = script(step)
            && digest.as_str() != ran.digest
            && let Some(before) = known(&ran.digest)
        {
            diffs.push(diff(
                &format!("provision {} ({})", step.number, step.label),
                &before,
                &secrets.seal(after),
            ));
        }
    }
    Ok(diffs)
}

fn script(step: &ProvisionStep) -> Option<(&Digest, &str)> {
    match &step.action {
        ProvisionAction::Shell { script } => Some((&step.digest, script)),
        ProvisionAction::File { .. } | ProvisionAction::Folder { .. } => None,
    }
}

/// The lines that differ, in the form of `diff -u` without its head; a word in their place if they are too long.
pub fn diff(what: &str, before: &str, after: &str) -> TextDiff {
    let what = what.to_owned();
    if before.len().max(after.len()) > LONGEST {
        let lines = |text: &str| text.lines().count();
        let diff = format!("(too long to compare: {} and {} lines)", lines(before), lines(after));
        return TextDiff { what, diff };
    }
    let lines = LineDiff::from_lines(before, after);
    let old = masked((0..lines.old_len()).filter_map(|at| lines.old_slice(at)));
    let new = masked((0..lines.new_len()).filter_map(|at| lines.new_slice(at)));
    let mut diff = Vec::new();
    for hunk in lines.unified_diff().context_radius(CONTEXT).iter_hunks() {
        diff.push(hunk.header().to_string());
        diff.extend(hunk.iter_changes().map(|line| format!("{}{}", line.tag(), shown(&line, &old, &new))));
    }
    if before.ends_with('\n') != after.ends_with('\n') {
        let which = if after.ends_with('\n') { "before" } else { "after" };
        diff.push(format!("\\ no line break at the end {which}"));
    }
    TextDiff { what, diff: diff.join("\n") }
}

/// All lines of one side without their ends, masked: a secret may begin long before the lines that are shown.
fn masked<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut mask = Mask::default();
    // A carriage return would be a difference that nobody sees.
    lines.map(|line| mask.line(without_end(line)).replace('\r', "\u{240d}")).collect()
}

/// A line as its side shows it; one of both sides is shown masked if it is secret on either.
fn shown<'a>(line: &Line<&str>, old: &'a [String], new: &'a [String]) -> &'a str {
    let old = line.old_index().and_then(|at| old.get(at));
    let new = line.new_index().and_then(|at| new.get(at));
    let shown = match line.tag() {
        ChangeTag::Delete => old,
        ChangeTag::Insert => new,
        ChangeTag::Equal => old.filter(|old| *old != without_end(line.value_ref())).or(new),
    };
    shown.map_or("", String::as_str)
}

fn without_end(line: &str) -> &str {
    line.strip_suffix('\n').unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_differ_are_shown_with_their_surroundings() {
        let diff = diff("x", "a\nb\nc\n", "a\nB\nc\n");
        assert_eq!(diff.diff, "@@ -1,3 +1,3 @@\n a\n-b\n+B\n c");
        let long = super::diff("x", &"a\n".repeat(LONGEST), "b");
        assert_eq!(long.diff, "(too long to compare: 262144 and 1 lines)");
        assert_eq!(super::diff("x", "a\r\n", "a\n").diff, "@@ -1 +1 @@\n-a\u{240d}\n+a");
    }

    #[test]
    fn secrets_are_masked_even_if_they_begin_before_the_lines_shown() {
        let key = |line: &str| {
            format!("-----BEGIN PRIVATE KEY-----\n1\n2\n3\n4\n{line}\n-----END PRIVATE KEY-----\n")
        };
        let diff = diff("x", &key("5"), &key("6"));
        let lines = " (masked)\n (masked)\n (masked)\n-(masked)\n+(masked)\n -----END PRIVATE KEY-----";
        assert_eq!(diff.diff, format!("@@ -3,5 +3,5 @@\n{lines}"));
    }

    #[test]
    fn removed_lines_do_not_tell_what_is_secret_among_added_ones() {
        let diff = diff("x", "a\npass: |\n  x\nb\n", "a\ntext: |\n  y\nb\npw=z");
        assert_eq!(
            diff.diff,
            "@@ -1,4 +1,5 @@\n a\n-pass: |\n-  (masked)\n+text: |\n+  y\n b\n+pw=(masked)\n\\ no line break at the end after"
        );
    }

    #[test]
    fn line_that_is_secret_on_one_side_is_shown_on_none() {
        for (before, after) in [("pass: |\n  x\n", "text: |\n  x\n"), ("text: |\n  x\n", "pass: |\n  x\n")] {
            let diff = diff("x", before, after);
            assert!(diff.diff.ends_with("\n   (masked)"), "{}", diff.diff);
        }
    }
}

//! Line diffs of the texts behind digests: user-data and scripts. What looks like a secret is masked.

use std::collections::{BTreeMap, BTreeSet};

use similar::TextDiff as LineDiff;
use vmctl_providers::Digest;
use vmctl_providers::provision::{ProvisionAction, ProvisionStep};
use vmctl_state::{Record, Snapshot};

use crate::change::{Change, TextDiff};
use crate::desired::{Desired, DesiredVm};
use crate::plan::Plan;
use crate::recorded::{RecordError, spec_of};

/// Unchanged lines around a change; as many as `diff -u` and git show.
const CONTEXT: usize = 3;

/// Bytes of one text beyond which lines are not compared: comparing is quadratic at worst.
const LONGEST: usize = 256 << 10;

/// What stands in place of a masked value.
const MASK: &str = "(masked)";

/// Words in the name of a setting that tell that its value is a secret.
const SECRET_WORDS: [&str; 9] =
    ["password", "passwd", "secret", "token", "api_key", "apikey", "api-key", "credential", "private_key"];

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
                change.diffs = diffs(change, vm, record, &known)?;
            }
        }
        Ok(())
    }
}

/// The texts that a desired state is made of, by digest. Kept, they show later what changed.
pub fn texts(desired: &Desired) -> BTreeMap<TextId, &str> {
    let mut texts = BTreeMap::new();
    for vm in desired.vms.values() {
        if let Some(data) = vm.cloud_init.as_ref().and_then(|seed| seed.user_data.as_ref()) {
            texts.insert(Digest::of(data.expose()).to_string(), data.expose());
        }
        for (digest, script) in vm.provision.iter().filter_map(script) {
            texts.insert(digest.to_string(), script);
        }
    }
    texts
}

/// The digests that the records name: texts that are worth keeping.
pub fn remembered(recorded: &Snapshot) -> Result<BTreeSet<TextId>, RecordError> {
    let mut remembered = BTreeSet::new();
    for record in recorded.records.values() {
        remembered.extend(record.provisioned.iter().map(|step| step.digest.clone()));
        let seed = spec_of(record)?.cloud_init;
        remembered.extend(seed.and_then(|seed| seed.user_data).map(|digest| digest.to_string()));
    }
    Ok(remembered)
}

fn diffs(
    change: &Change,
    vm: &DesiredVm,
    record: &Record,
    known: impl Fn(&str) -> Option<String>,
) -> Result<Vec<TextDiff>, RecordError> {
    let mut diffs = Vec::new();
    if change.fields.iter().any(|field| field.field == "cloud-init.user-data") {
        let before = spec_of(record)?.cloud_init.and_then(|seed| seed.user_data);
        let before = before.and_then(|digest| known(digest.as_str()));
        let after = vm.cloud_init.as_ref().and_then(|seed| seed.user_data.as_ref());
        if let (Some(before), Some(after)) = (before, after) {
            diffs.extend(diff("cloud-init.user-data", &before, after.expose()));
        }
    }
    for (step, ran) in vm.provision.iter().zip(&record.provisioned) {
        if let Some((digest, after)) = script(step)
            && digest.as_str() != ran.digest
            && let Some(before) = known(&ran.digest)
        {
            diffs.extend(diff(&format!("provision {} ({})", step.number, step.label), &before, after));
        }
    }
    Ok(diffs)
}

fn script(step: &ProvisionStep) -> Option<(&Digest, &str)> {
    match &step.action {
        ProvisionAction::Shell { script } => Some((&step.digest, script)),
        ProvisionAction::File { .. } => None,
    }
}

/// The lines that differ, in the form of `diff -u` without its head; `None` if they are too long to compare.
fn diff(what: &str, before: &str, after: &str) -> Option<TextDiff> {
    if before.len().max(after.len()) > LONGEST {
        return None;
    }
    let lines = LineDiff::from_lines(before, after);
    let mut mask = Mask::default();
    let diff = lines.unified_diff().context_radius(CONTEXT).missing_newline_hint(false).to_string();
    let masked: Vec<_> = diff.lines().map(|line| mask.line(line)).collect();
    Some(TextDiff { what: what.to_owned(), diff: masked.join("\n") })
}

/// Hides the values of what looks like a secret, line by line.
#[derive(Debug, Default)]
struct Mask {
    in_key: bool,
}

impl Mask {
    fn line(&mut self, line: &str) -> String {
        let (sign, text) = line.split_at(line.chars().next().map_or(0, char::len_utf8));
        if text.contains("PRIVATE KEY-----") {
            self.in_key = text.contains("-----BEGIN");
            return line.to_owned();
        }
        if self.in_key && !text.trim().is_empty() {
            return format!("{sign}{MASK}");
        }
        match value_of_secret(text) {
            Some(at) => format!("{sign}{} {MASK}", text[..at].trim_end()),
            None => line.to_owned(),
        }
    }
}

/// Where the value begins, if the line sets something whose name tells that it is a secret: `name: value`,
/// `NAME=value`, `--name value`.
fn value_of_secret(line: &str) -> Option<usize> {
    let lower = line.to_ascii_lowercase();
    let word_end = SECRET_WORDS.iter().filter_map(|word| Some(lower.find(word)? + word.len())).min()?;
    let rest = &line[word_end..];
    let name_end = rest
        .find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '"' | '\'')))
        .map_or(line.len(), |end| word_end + end);
    let separator = line[name_end..].trim_start();
    let begins = |c: char| separator.starts_with(c);
    let skipped = line.len() - separator.len();
    if begins(':') || begins('=') {
        (!separator[1..].trim().is_empty()).then_some(skipped + 1)
    } else {
        let is_option = line[..word_end].rsplit(char::is_whitespace).next()?.starts_with("--");
        (is_option && !separator.is_empty()).then_some(skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_differ_are_shown_with_their_surroundings() {
        let diff = diff("x", "a\nb\nc\n", "a\nB\nc\n").unwrap();
        assert_eq!(diff.diff, "@@ -1,3 +1,3 @@\n a\n-b\n+B\n c");
        assert!(super::diff("x", &"a".repeat(LONGEST + 1), "").is_none());
    }

    #[test]
    fn what_looks_like_a_secret_is_masked() {
        for (line, shown) in [
            ("+password: hunter2", "+password: (masked)"),
            ("-    hashed_passwd: $6$abc", "-    hashed_passwd: (masked)"),
            ("+export DB_PASSWORD=\"a b\"", "+export DB_PASSWORD= (masked)"),
            (" curl --token abc https://x", " curl --token (masked)"),
            ("+\"api_key\": \"k\",", "+\"api_key\": (masked)"),
            ("+# the password is set elsewhere", "+# the password is set elsewhere"),
            ("+lock_passwd:", "+lock_passwd:"),
            ("+echo tokens are fine", "+echo tokens are fine"),
            ("", ""),
            ("+ü", "+ü"),
        ] {
            assert_eq!(Mask::default().line(line), shown);
        }
    }

    #[test]
    fn private_keys_are_masked_between_their_marks() {
        let mut mask = Mask::default();
        let lines =
            ["+-----BEGIN OPENSSH PRIVATE KEY-----", "+b3Blb", "+-----END OPENSSH PRIVATE KEY-----", "+x"];
        let shown = lines.map(|line| mask.line(line));
        assert_eq!(shown[1], "+(masked)");
        assert_eq!(shown[3], "+x");
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_the_mask(line in ".*") {
            Mask::default().line(&line);
        }
    }
}

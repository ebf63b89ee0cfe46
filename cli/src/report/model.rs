//! What a report tells.

use vmctl_planner::picture::{Picture, Tone};

/// Everything that is told of one plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// Its heading.
    pub(crate) title: String,
    /// The project.
    pub(crate) project: String,
    /// What was planned towards, such as `plan` or `destroy`.
    pub(crate) mode: String,
    /// How many machines each kind of change concerns, in the order in which it is told; zeros are passed over.
    pub(crate) counts: Vec<ReportCount>,
    /// The changes. Those that lose data are shown first, and else the order is kept.
    pub(crate) changes: Vec<ReportChange>,
    /// What was found to differ from what was recorded and belongs to no change.
    pub(crate) drift: Vec<String>,
    /// Whatever else the reader should know.
    pub(crate) notes: Vec<String>,
    /// What the host has too little of: what it is, and in words.
    pub(crate) shortages: Vec<(String, String)>,
    /// What was found on the host and belongs to nobody.
    pub(crate) strays: Vec<String>,
    /// What was asked of the machines.
    pub(crate) checks: Vec<ReportCheck>,
    /// The steps and their order.
    pub(crate) steps: Option<Picture>,
    /// The files that decided.
    pub(crate) inputs: Vec<ReportInput>,
    /// When and with what the report was made: names and values.
    pub(crate) facts: Vec<(String, String)>,
}

/// How many machines one kind of change concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReportCount {
    /// The number.
    pub(crate) number: usize,
    /// What follows the number, such as `to create`.
    pub(crate) name: String,
    /// How it looks.
    pub(crate) tone: Tone,
}

/// What happens to one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReportChange {
    /// The address.
    pub(crate) address: String,
    /// The action's name.
    pub(crate) action: String,
    /// The action's symbol, such as `-/+`; may be empty.
    pub(crate) symbol: String,
    /// How it looks.
    pub(crate) tone: Tone,
    /// Why.
    pub(crate) reasons: Vec<String>,
    /// What is lost for good.
    pub(crate) losses: Vec<String>,
    /// What was found to differ from what was recorded.
    pub(crate) drift: Vec<String>,
    /// What becomes another.
    pub(crate) fields: Vec<ReportField>,
    /// Texts whose lines differ.
    pub(crate) diffs: Vec<ReportDiff>,
    /// What runs in the guest.
    pub(crate) provision: Vec<String>,
    /// Why it may not be done, if so.
    pub(crate) refused: Option<String>,
}

/// A field that becomes another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReportField {
    /// Its name.
    pub(crate) name: String,
    /// Its value until now; empty if there is none.
    pub(crate) before: String,
    /// Its value from now on.
    pub(crate) after: String,
}

/// A text whose lines differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReportDiff {
    /// What it is, such as a file's name.
    pub(crate) title: String,
    /// The differences as a unified diff.
    pub(crate) text: String,
}

/// What was asked of a machine, and the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReportCheck {
    /// What the check is called.
    pub(crate) name: String,
    /// The machine's address.
    pub(crate) address: String,
    /// The answer in a word.
    pub(crate) verdict: String,
    /// How the answer looks.
    pub(crate) tone: Tone,
    /// The answer in full; may be empty.
    pub(crate) detail: String,
}

/// A file that decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReportInput {
    /// Its path.
    pub(crate) path: String,
    /// Digest of its content.
    pub(crate) digest: String,
}

impl Report {
    /// The summary in one sentence, without its full stop.
    pub(crate) fn summary(&self) -> String {
        let told = self.told_counts().map(|count| format!("{} {}", count.number, count.name));
        let told = told.collect::<Vec<_>>().join(", ");
        if told.is_empty() { "no changes".to_owned() } else { told }
    }

    /// The counts that say something.
    pub(crate) fn told_counts(&self) -> impl Iterator<Item = &ReportCount> {
        self.counts.iter().filter(|count| count.number > 0)
    }

    /// The changes in the order in which they are shown: refused ones, then those that lose data, then the others.
    pub(crate) fn ordered(&self) -> Vec<&ReportChange> {
        let mut changes: Vec<_> = self.changes.iter().collect();
        changes.sort_by_key(|change| (change.refused.is_none(), change.losses.is_empty()));
        changes
    }

    /// Every loss with the address it concerns.
    pub(crate) fn losses(&self) -> impl Iterator<Item = (&str, &str)> {
        self.changes
            .iter()
            .flat_map(|change| change.losses.iter().map(|loss| (change.address.as_str(), loss.as_str())))
    }

    /// Every refusal with the address it concerns.
    pub(crate) fn refusals(&self) -> impl Iterator<Item = (&str, &str)> {
        self.changes.iter().filter_map(|change| Some((change.address.as_str(), change.refused.as_deref()?)))
    }

    /// Every shortage with what it is of.
    pub(crate) fn shortages(&self) -> impl Iterator<Item = (&str, &str)> {
        self.shortages.iter().map(|(kind, text)| (kind.as_str(), text.as_str()))
    }

    /// The lists that stand for themselves: heading and entries; empty ones are passed over.
    pub(crate) fn lists(&self) -> impl Iterator<Item = (&'static str, &[String])> {
        let lists = [
            ("Drift", self.drift.as_slice()),
            ("Notes", self.notes.as_slice()),
            ("Strays", self.strays.as_slice()),
        ];
        lists.into_iter().filter(|(_, entries)| !entries.is_empty())
    }
}

impl ReportChange {
    /// The lists within a change: heading and entries; empty ones are passed over.
    pub(crate) fn lists(&self) -> impl Iterator<Item = (&'static str, &[String])> {
        let lists = [
            ("Lost for good", self.losses.as_slice()),
            ("Why", self.reasons.as_slice()),
            ("Drift", self.drift.as_slice()),
            ("Runs in the guest", self.provision.as_slice()),
        ];
        lists.into_iter().filter(|(_, entries)| !entries.is_empty())
    }
}

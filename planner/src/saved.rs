//! A plan in a file: what was shown, and all that is needed to make the very same plan again.
//!
//! A saved plan does not carry what steps need, such as user-data and scripts. It carries what the plan was made
//! from: the digests of every file, the serial of the state, and what was observed. Planning is pure, so that the same
//! inputs give the same plan; whoever applies it makes it again and compares. Whatever moved, in the files, in the
//! state or in the plan's own file, shows as a difference, and nothing is done.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vmctl_providers::{Digest, Name};
use vmctl_state::Address;

use crate::desired::InputFile;
use crate::document::PlanDocument;
use crate::observed::Observed;
use crate::pins::PlannedPin;
use crate::plan::Plan;
use crate::values::KeptValues;
use crate::vmfile::{Images, content_digest};

/// What a file says that it is.
const KIND: &str = "vmctl-plan";

/// Version of the file's format. A reader takes its own version only: plans are short-lived.
const VERSION: u32 = 5;

/// A plan as it stands in a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedPlan {
    kind: String,
    version: u32,
    /// Version of the vmctl that planned.
    pub made_by: String,
    /// What was shown.
    pub plan: PlanDocument<'static>,
    /// What was observed.
    pub observed: Observed,
    /// What was given from outside.
    pub values: KeptValues,
    /// Digest of everything above.
    seal: Digest,
}

/// A file that is no plan, or not as it was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SavedPlanError {
    /// It is something else.
    #[error("this is no saved plan")]
    NotAPlan(#[source] serde_json::Error),
    /// It was written by another version.
    #[error(
        "this plan has format {found}, and this vmctl reads format {VERSION}; it was made by vmctl {made_by}"
    )]
    Version {
        /// Its format.
        found: u64,
        /// Who wrote it.
        made_by: String,
    },
    /// It was edited or cut off.
    #[error("this plan was edited or is damaged")]
    Broken,
}

/// Something that a saved plan was made from and that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Moved {
    /// The state belongs to another history.
    #[error("the state is another one: it has lineage {found}, the plan was made for {planned}")]
    Lineage {
        /// Lineage of the plan.
        planned: uuid::Uuid,
        /// Lineage of the state.
        found: uuid::Uuid,
    },
    /// Something was applied since.
    #[error("the state was changed: it has serial {found}, the plan was made for {planned}")]
    Serial {
        /// Serial of the plan.
        planned: u64,
        /// Serial of the state.
        found: u64,
    },
    /// A file has another content.
    #[error("`{}` was changed", .0.display())]
    Changed(PathBuf),
    /// A file cannot be read any more.
    #[error("`{}` cannot be read any more: {reason}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A variable is given another value.
    #[error("the variable `{name}` is `{planned}` in the plan, and `{found}` is given now")]
    Variable {
        /// Its name.
        name: String,
        /// Its value in the plan.
        planned: String,
        /// The value that is given.
        found: String,
    },
    /// A sensitive variable is given another value.
    #[error("the sensitive variable `{0}` has another value than the plan was made with")]
    Sensitive(String),
    /// A variable of the environment that the VMFile names has another value.
    #[error("the environment variable `{0}` has another value than the plan was made with")]
    Environment(String),
    /// An image from the network is pinned to something else.
    #[error("`{0}` is pinned to something else than in the plan")]
    Pin(String),
    /// All inputs are the same, and yet another plan comes of them.
    #[error(
        "another plan comes of the same files and values: vmctl itself differs, or what it found in your home folder"
    )]
    Plan,
}

impl SavedPlan {
    /// The file's content for a plan that was made from what was `observed` and from `values`.
    pub fn new(plan: &Plan, observed: &Observed, values: KeptValues, made_by: &str) -> Self {
        let mut saved = Self {
            kind: KIND.to_owned(),
            version: VERSION,
            made_by: made_by.to_owned(),
            plan: owned(PlanDocument::from(plan)),
            observed: observed.clone(),
            values,
            seal: Digest::of([]),
        };
        saved.seal = saved.digest();
        saved
    }

    /// The bytes to write.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("plain data with string keys always has a JSON form");
        bytes.push(b'\n');
        bytes
    }

    /// Reads what [`SavedPlan::to_bytes`] gave.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SavedPlanError> {
        #[derive(Deserialize)]
        struct Head {
            kind: String,
            version: u64,
            #[serde(default)]
            made_by: String,
        }
        let head: Head = serde_json::from_slice(bytes).map_err(SavedPlanError::NotAPlan)?;
        if head.kind != KIND {
            return Err(SavedPlanError::Broken);
        }
        if head.version != u64::from(VERSION) {
            return Err(SavedPlanError::Version { found: head.version, made_by: head.made_by });
        }
        let saved: Self = serde_json::from_slice(bytes).map_err(|_| SavedPlanError::Broken)?;
        // What is read and written again is what was written, unless something was added. Names are looked at even so:
        // whoever makes a seal can make a name.
        if saved.digest() == saved.seal && saved.to_bytes() == bytes && saved.names_are_sound() {
            Ok(saved)
        } else {
            Err(SavedPlanError::Broken)
        }
    }

    /// What has become of the files that the plan was made from. Reads all of them.
    pub fn moved_files(&self, images: &dyn Images) -> Vec<Moved> {
        let text = |path: &Path| content_digest(path).map_err(|error| error.to_string());
        let image =
            |path: &Path| images.identify(path).map(|found| found.digest).map_err(|error| error.to_string());
        let mut moved: Vec<_> = self.plan.inputs.iter().filter_map(|input| moved(input, text)).collect();
        moved.extend(self.plan.images.iter().filter_map(|input| self::moved(input, image)));
        moved
    }

    /// What tells the values that the plan was made with from those of `now`.
    pub fn moved_values(&self, now: &KeptValues) -> Vec<Moved> {
        self.values.moved(now)
    }

    /// What tells the state that the plan was made for from one with this lineage and serial.
    pub fn moved_state(&self, lineage: uuid::Uuid, serial: u64) -> Option<Moved> {
        if lineage != self.plan.lineage {
            Some(Moved::Lineage { planned: self.plan.lineage, found: lineage })
        } else if serial != self.plan.serial {
            Some(Moved::Serial { planned: self.plan.serial, found: serial })
        } else {
            None
        }
    }

    /// What tells this plan from `again`, which was made now; `None` if they are the same.
    pub fn difference(&self, again: &Plan) -> Option<Moved> {
        if let Some(moved) = self.moved_state(again.lineage, again.serial) {
            return Some(moved);
        }
        let pin_of = |url: &str| again.pins.iter().find(|pin| pin.url == url);
        let moved = |pin: &&PlannedPin| pin_of(&pin.url).is_some_and(|now| now != *pin);
        if let Some(pin) = self.plan.pins.iter().find(moved) {
            return Some(Moved::Pin(pin.url.clone()));
        }
        let bare = |plan: PlanDocument<'_>| {
            let mut plan = owned(plan);
            // The text that a digest stands for decides nothing, and is forgotten at times; nor does a warning, and
            // what a host has room for is asked anew.
            plan.warnings = Cow::Borrowed(&[]);
            plan.shortages = Cow::Borrowed(&[]);
            plan.changes.to_mut().iter_mut().for_each(|change| change.diffs.clear());
            plan
        };
        (bare(self.plan.clone()) != bare(PlanDocument::from(again))).then_some(Moved::Plan)
    }

    fn names_are_sound(&self) -> bool {
        let is_one = |address: &Address, of: fn(&str) -> Address| {
            address.name().parse::<Name>().is_ok_and(|name| *address == of(name.as_str()))
        };
        let is_vm = |address: &Address| is_one(address, Address::vm);
        let is_volume = |address: &Address| is_one(address, Address::volume);
        let is_image = |address: &Address| {
            let hex = address.name();
            *address == Address::image(hex) && hex.bytes().all(|digit| digit.is_ascii_hexdigit())
        };
        let mut changes = self.plan.changes.iter().map(|change| &change.address);
        let moved = self.plan.changes.iter().filter_map(|change| change.moved_from.as_ref());
        let checks = self.plan.checks.iter().map(|check| &check.address);
        let mut steps = self.plan.steps.iter().map(|step| &step.step.address);
        let mut kept = self.plan.kept.iter().map(|volume| &volume.address);
        moved.chain(checks).all(is_vm)
            && kept.all(is_volume)
            && changes.all(|change| is_vm(change) || is_volume(change))
            && steps.all(|step| is_vm(step) || is_volume(step) || is_image(step))
    }

    fn digest(&self) -> Digest {
        let sealed = (&self.kind, self.version, &self.made_by, &self.plan, &self.observed, &self.values);
        Digest::of(serde_json::to_vec(&sealed).expect("plain data with string keys always has a JSON form"))
    }
}

fn moved(input: &InputFile, digest: impl Fn(&Path) -> Result<Digest, String>) -> Option<Moved> {
    match digest(&input.path) {
        Ok(found) if found == input.digest => None,
        Ok(_) => Some(Moved::Changed(input.path.clone())),
        Err(reason) => Some(Moved::Unreadable { path: input.path.clone(), reason }),
    }
}

/// The same document, with all it holds, as it comes out of a file.
fn owned(plan: PlanDocument<'_>) -> PlanDocument<'static> {
    let PlanDocument {
        format,
        project,
        lineage,
        serial,
        options,
        empty,
        summary,
        changes,
        steps,
        looked,
        warnings,
        shortages,
        strays,
        kept,
        checks,
        inputs,
        images,
        pins,
    } = plan;
    let mut changes = changes.into_owned();
    for change in &mut changes {
        // Steps of a machine stand in the graph; on a change they are no more than its making.
        change.down.clear();
        change.up.clear();
    }
    PlanDocument {
        format,
        project: Cow::Owned(project.into_owned()),
        lineage,
        serial,
        options: Cow::Owned(options.into_owned()),
        empty,
        summary,
        changes: Cow::Owned(changes),
        steps: steps
            .into_iter()
            .map(|step| crate::document::StepDocument {
                id: step.id,
                step: Cow::Owned(step.step.into_owned()),
                after: step.after,
                either_way: step.either_way,
            })
            .collect(),
        looked,
        warnings: Cow::Owned(warnings.into_owned()),
        shortages: Cow::Owned(shortages.into_owned()),
        strays: Cow::Owned(strays.into_owned()),
        kept: Cow::Owned(kept.into_owned()),
        checks: Cow::Owned(checks.into_owned()),
        inputs: Cow::Owned(inputs.into_owned()),
        images: Cow::Owned(images.into_owned()),
        pins: Cow::Owned(pins.into_owned()),
    }
}

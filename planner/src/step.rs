//! Units of execution.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vmctl_providers::InstanceId;
use vmctl_state::Address;

/// How long a guest may take to power down before it is forced. The same as Vagrant's and libvirt-guests' order
/// of magnitude; a stop that needs force says so.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepKind {
    /// Brings an image into the cache; one step per image, shared.
    FetchImage,
    /// Allocates a machine.
    Prepare,
    /// Takes over changed settings.
    Update,
    /// Boots a machine.
    Start,
    /// Lets paused vCPUs run on.
    Resume,
    /// Waits for a working login.
    Ready,
    /// Runs one provisioning step, by number from 1.
    Provision(usize),
    /// Keeps a machine as a template.
    Keep,
    /// Pauses the vCPUs.
    Suspend,
    /// Powers a machine down.
    Stop,
    /// Removes a machine and all its files.
    Destroy,
    /// Lets go of a machine, which goes on as it is.
    Forget,
}

impl StepKind {
    /// Every kind; provisioning with the number of its first step.
    pub fn all() -> [Self; 12] {
        [
            Self::FetchImage,
            Self::Prepare,
            Self::Update,
            Self::Start,
            Self::Resume,
            Self::Ready,
            Self::Provision(1),
            Self::Keep,
            Self::Suspend,
            Self::Stop,
            Self::Destroy,
            Self::Forget,
        ]
    }

    /// The kind's name in journal, JSON and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::FetchImage => "fetch-image",
            Self::Prepare => "prepare",
            Self::Update => "update",
            Self::Start => "start",
            Self::Resume => "resume",
            Self::Ready => "ready",
            Self::Provision(_) => "provision",
            Self::Keep => "keep",
            Self::Suspend => "suspend",
            Self::Stop => "stop",
            Self::Destroy => "destroy",
            Self::Forget => "forget",
        }
    }

    /// Whether a machine's dependencies must be there before the step: allocating and changing settings need none.
    pub fn needs_dependencies(self) -> bool {
        self.is_boot() || matches!(self, Self::Provision(_))
    }

    /// Whether the host is busy booting a guest while the step runs.
    pub fn is_boot(self) -> bool {
        matches!(self, Self::Start | Self::Resume | Self::Ready)
    }
}

/// One step: what is done to what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "StepForm", try_from = "StepForm")]
pub struct Step {
    /// What it does.
    pub kind: StepKind,
    /// What it is done to.
    pub address: Address,
    /// The instance it is done to; nil for an image.
    pub instance: InstanceId,
    /// For a provisioning step, what it is called; for an image from the network, its URL.
    pub label: Option<String>,
}

/// The JSON form of a step: the kind is always a word.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct StepForm {
    kind: Cow<'static, str>,
    /// Number of a provisioning step, from 1.
    number: Option<usize>,
    address: Address,
    /// None for an image.
    instance: Option<InstanceId>,
    label: Option<String>,
}

impl From<Step> for StepForm {
    fn from(step: Step) -> Self {
        let number = if let StepKind::Provision(number) = step.kind { Some(number) } else { None };
        Self {
            kind: Cow::Borrowed(step.kind.name()),
            number,
            address: step.address,
            instance: Some(step.instance).filter(|instance| !instance.0.is_nil()),
            label: step.label,
        }
    }
}

impl TryFrom<StepForm> for Step {
    type Error = String;

    fn try_from(form: StepForm) -> Result<Self, Self::Error> {
        let kind = StepKind::all().into_iter().find(|kind| kind.name() == form.kind);
        let kind = match kind.ok_or_else(|| format!("unknown kind of step `{}`", form.kind))? {
            StepKind::Provision(_) => StepKind::Provision(form.number.unwrap_or_default()),
            kind => kind,
        };
        Ok(Self {
            kind,
            address: form.address,
            instance: form.instance.unwrap_or(InstanceId(Uuid::nil())),
            label: form.label,
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, &self.label) {
            (StepKind::Provision(number), Some(label)) => {
                write!(f, "{}: provision {number} ({label})", self.address)
            }
            // An image's address is its whole digest; its beginning is enough for people, and a URL says more.
            (kind @ StepKind::FetchImage, Some(url)) => write!(f, "{}: {url}", kind.name()),
            (kind @ StepKind::FetchImage, _) => write!(f, "{:.18}…: {}", self.address.as_str(), kind.name()),
            (kind, _) => write!(f, "{}: {}", self.address, kind.name()),
        }
    }
}

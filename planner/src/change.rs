//! Decisions: what becomes of each machine, and why.

use serde::Serialize;
use serde_json::Value;
use vmctl_providers::InstanceId;
use vmctl_state::Address;

use crate::fields::Class;
use crate::step::StepKind;

/// The decision for one address, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Nothing is done.
    NoOp,
    /// A machine is made.
    Create,
    /// Settings change while it goes on running, or while it stays off.
    Update,
    /// It is stopped, changed and started on the same disk.
    Restart,
    /// It is destroyed and made anew.
    Replace,
    /// Readiness is awaited and provisioning steps run.
    Provision,
    /// It is started.
    Start,
    /// It is stopped.
    Stop,
    /// Its vCPUs are paused.
    Suspend,
    /// Its vCPUs run on.
    Resume,
    /// It is removed.
    Destroy,
}

impl Action {
    /// The action as printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoOp => "no-op",
            Self::Create => "create",
            Self::Update => "update",
            Self::Restart => "restart",
            Self::Replace => "replace",
            Self::Provision => "provision",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Destroy => "destroy",
        }
    }
}

/// One field before and after.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldChange {
    /// Its name, as in the VMFile.
    pub field: &'static str,
    /// Its recorded value; null if there was none.
    pub before: Value,
    /// Its desired value; null if there is none.
    pub after: Value,
    /// Unit of a number.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub unit: &'static str,
    /// What the change needs by itself.
    #[serde(skip)]
    pub class: Class,
}

/// The decision for one address.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// What it is about.
    pub address: Address,
    /// What is done.
    pub action: Action,
    /// Why, for people.
    pub reasons: Vec<String>,
    /// Where recorded and observed differ.
    pub drift: Vec<String>,
    /// Where recorded and desired differ.
    pub fields: Vec<FieldChange>,
    /// Provisioning steps that run, by label.
    pub provision: Vec<String>,
    /// The instance that is acted on; for a replacement, the new one.
    pub instance: InstanceId,
    /// Steps that take the machine down, in order.
    #[serde(skip)]
    pub down: Vec<StepKind>,
    /// Steps that bring it up, in order.
    #[serde(skip)]
    pub up: Vec<StepKind>,
}

impl Change {
    /// Whether it brings a machine up, so that its dependencies must be there.
    pub(crate) fn needs_dependencies(&self) -> bool {
        self.up.iter().any(|step| step.needs_dependencies())
    }

    /// Leaves the machine as it is, for a reason.
    pub(crate) fn hold_back(&mut self, reason: String) {
        self.action = Action::NoOp;
        self.reasons = vec![reason];
        self.provision.clear();
        self.down.clear();
        self.up.clear();
    }

    /// Whether anything is done.
    pub fn is_effective(&self) -> bool {
        self.action != Action::NoOp
    }
}

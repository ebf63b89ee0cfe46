//! Decisions: what becomes of each machine, and why.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use vmctl_providers::InstanceId;
use vmctl_state::{Address, Interrupted};

use crate::drift::Drift;
use crate::fields::Class;
use crate::step::StepKind;
use crate::warm::UsedTemplate;

/// The decision for one address, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    /// It is remembered no longer, and nothing is done to it.
    Forget,
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
            Self::Forget => "forget",
        }
    }

    /// The symbol that stands for it in front of an address.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::NoOp => " ",
            Self::Create => "+",
            Self::Update | Self::Start | Self::Stop | Self::Suspend | Self::Resume => "~",
            Self::Restart => "!",
            Self::Replace => "-/+",
            Self::Provision => ">",
            Self::Destroy => "-",
            Self::Forget => ".",
        }
    }
}

/// One field before and after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FieldChange {
    /// Its name, as in the VMFile.
    pub field: Cow<'static, str>,
    /// Its recorded value; null if there was none.
    pub before: Value,
    /// Its desired value; null if there is none.
    pub after: Value,
    /// Unit of a number.
    pub unit: Option<Cow<'static, str>>,
    /// What the change needs by itself; absent for a new machine, which is made with all its fields.
    pub class: Option<Class>,
}

/// A text before and after, as a unified diff of its lines; what looks like a secret is masked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextDiff {
    /// What the text is, such as `cloud-init.user-data`.
    pub what: String,
    /// The diff.
    pub diff: String,
}

/// A provisioning step that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvisionRun {
    /// Its number, from 1.
    pub number: usize,
    /// What it is called.
    pub label: String,
}

/// What a refresh makes of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accepts {
    /// It says what was observed.
    Update,
    /// It is removed: there is no machine any more.
    Forget,
}

/// Why a change that is called for is not carried out, although the rest of the plan is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftAlone {
    /// What stands in the way.
    pub kind: LeftAloneKind,
    /// Why.
    pub reason: String,
    /// What would be done otherwise; `no-op` where that cannot be told.
    pub instead_of: Action,
}

/// What stands in the way of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeftAloneKind {
    /// It cannot be asked what it does.
    Unreachable,
    /// It may run on another host, or from another folder.
    Elsewhere,
    /// Something is wrong with its files.
    Damaged,
    /// Its disk cannot grow, and there still is no room for it.
    DiskFull,
    /// A provisioning step was cut off, and nobody said whether it may run again.
    Interrupted,
    /// A machine that it needs is left alone.
    Dependency,
}

/// Why a whole plan cannot be applied because of one change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What refuses it.
    pub kind: RefusalKind,
    /// Why, for people.
    pub text: String,
}

/// What refuses a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalKind {
    /// `prevent-destroy` protects the machine.
    Protected,
    /// The machine asks for what no backend carries out yet.
    NotYet,
    /// What the machine does now does not allow it.
    State,
}

impl Refusal {
    pub(crate) fn protected(text: &str) -> Self {
        Self { kind: RefusalKind::Protected, text: text.to_owned() }
    }

    pub(crate) fn state(text: &str) -> Self {
        Self { kind: RefusalKind::State, text: text.to_owned() }
    }

    pub(crate) fn not_yet(text: String) -> Self {
        Self { kind: RefusalKind::NotYet, text }
    }
}

/// The decision for one address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// What it is about.
    pub address: Address,
    /// What is done.
    pub action: Action,
    /// Why, for people.
    pub reasons: Vec<String>,
    /// What is lost for good.
    pub losses: Vec<String>,
    /// Why the whole plan cannot be applied because of this change.
    pub refused: Option<Refusal>,
    /// Why nothing is done although something would have to be.
    pub left_alone: Option<LeftAlone>,
    /// The provisioning step whose outcome is unknown.
    pub interrupted: Option<Interrupted>,
    /// The address that it had until now.
    pub moved_from: Option<Address>,
    /// Where recorded and observed differ.
    pub drift: Vec<Drift>,
    /// Where recorded and desired differ.
    pub fields: Vec<FieldChange>,
    /// Texts that differ, line by line.
    pub diffs: Vec<TextDiff>,
    /// Provisioning steps that run.
    pub provision: Vec<ProvisionRun>,
    /// What is known only once it is applied.
    pub known_after_apply: Vec<Cow<'static, str>>,
    /// The instance that is acted on; for a replacement, the new one.
    pub instance: InstanceId,
    /// The instance that a replacement removes.
    pub replaces: Option<InstanceId>,
    /// The template that the machine is made from.
    pub template: Option<UsedTemplate>,
    /// The machine of the same plan that is kept first, as the template that this one is made from.
    pub template_after: Option<Address>,
    /// What becomes of the record where only the record changes.
    pub accepts: Option<Accepts>,
    /// Steps that take the machine down, in order.
    #[serde(skip)]
    pub down: Vec<StepKind>,
    /// Steps that bring it up, in order.
    #[serde(skip)]
    pub up: Vec<StepKind>,
}

impl Change {
    /// A decision to do nothing.
    pub(crate) fn none(address: Address, instance: InstanceId) -> Self {
        Self {
            address,
            action: Action::NoOp,
            reasons: Vec::new(),
            losses: Vec::new(),
            refused: None,
            left_alone: None,
            interrupted: None,
            moved_from: None,
            drift: Vec::new(),
            fields: Vec::new(),
            diffs: Vec::new(),
            provision: Vec::new(),
            known_after_apply: Vec::new(),
            instance,
            replaces: None,
            template: None,
            template_after: None,
            accepts: None,
            down: Vec::new(),
            up: Vec::new(),
        }
    }

    /// Whether it brings a machine up, so that its dependencies must be there.
    pub(crate) fn needs_dependencies(&self) -> bool {
        self.up.iter().any(|step| step.needs_dependencies())
    }

    /// Leaves the machine as it is, for a reason.
    pub(crate) fn leave_alone(&mut self, kind: LeftAloneKind, reason: String) {
        self.left_alone = Some(LeftAlone { kind, reason, instead_of: self.action });
        self.action = Action::NoOp;
        self.losses.clear();
        self.refused = None;
        self.provision.clear();
        self.replaces = None;
        self.known_after_apply.clear();
        self.down.clear();
        self.up.clear();
    }

    /// Whether anything is done.
    pub fn is_effective(&self) -> bool {
        self.action != Action::NoOp
    }
}

//! What a VMFile may ask for and no backend carries out yet. Such machines are planned and shown, and not applied.

use vmctl_providers::{BackendTag, NetworkConfig};

use crate::desired::DesiredVm;

/// Something that a VMFile may ask for and no backend carries out yet.
#[derive(Debug)]
pub struct NotYet {
    /// The nodes that ask for it, by their paths in the grammar, such as `vm/provision/run`.
    pub nodes: &'static [&'static str],
    /// What it is, in Markdown.
    pub what: &'static str,
    is_asked_by: fn(&DesiredVm) -> bool,
}

/// All of it, in the order in which it is told.
pub const NOT_YET: &[NotYet] = &[NotYet {
    nodes: &["vm/network"],
    what: "a vnic network with the backend `noop`",
    is_asked_by: |vm| {
        vm.backend == BackendTag::Noop && has_card(vm, |card| matches!(card, NetworkConfig::Vnic { .. }))
    },
}];

/// Why `vm` cannot be made yet, if it cannot.
pub(crate) fn refusal(vm: &DesiredVm) -> Option<String> {
    let missing: Vec<_> =
        NOT_YET.iter().filter(|missing| (missing.is_asked_by)(vm)).map(|missing| missing.what).collect();
    (!missing.is_empty()).then(|| format!("this version cannot carry out yet: {}", missing.join(", ")))
}

fn has_card(vm: &DesiredVm, is_meant: fn(&NetworkConfig) -> bool) -> bool {
    vm.networks.iter().any(is_meant)
}

//! What a VMFile may ask for and no backend carries out yet. Such machines are planned and shown, and not applied.

use vmctl_providers::provision::{ProvisionAction, ProvisionStep, Run};
use vmctl_providers::{BackendTag, NetworkConfig};

use crate::desired::{Accel, DesiredImage, DesiredVm, Firmware};

/// Why `vm` cannot be made yet, if it cannot.
pub(crate) fn refusal(vm: &DesiredVm) -> Option<String> {
    let missing = missing(vm);
    if missing.is_empty() {
        return None;
    }
    Some(format!("this version cannot carry out yet: {}", missing.join(", ")))
}

/// What of `vm` no backend carries out yet, each thing once.
fn missing(vm: &DesiredVm) -> Vec<&'static str> {
    let hardware = &vm.hardware;
    let mut missing = Vec::new();
    let mut add = |is_missing: bool, what| {
        if is_missing && !missing.contains(&what) {
            missing.push(what);
        }
    };
    add(vm.backend == BackendTag::Propolis, "the backend `propolis`");
    add(matches!(vm.image, Some(DesiredImage::Remote { .. })), "an image from the network");
    add(hardware.firmware == Firmware::Uefi, "`firmware \"uefi\"`");
    add(hardware.kernel.is_some(), "`kernel`");
    add(hardware.machine.is_some(), "`machine`");
    add(hardware.cpu.is_some(), "`cpu`");
    add(hardware.accel != Accel::Auto, "`accel`");
    add(!hardware.qemu_args.is_empty(), "`qemu-arg`");
    add(!vm.volumes.is_empty(), "`volume`");
    add(!vm.shares.is_empty(), "`share`");
    for network in &vm.networks {
        let what = match network {
            NetworkConfig::User | NetworkConfig::None => continue,
            NetworkConfig::Private { .. } => "a private network",
            NetworkConfig::Tap { .. } => "a tap network",
            NetworkConfig::Vnic { .. } => "a vnic network",
        };
        add(true, what);
    }
    add(vm.networks.len() > 1, "several networks");
    for step in &vm.provision {
        let ProvisionStep { options, action, .. } = step;
        add(options.run != Run::OnChange, "`run` of a step");
        add(!options.env.is_empty(), "`env` of a step");
        add(options.user.is_some(), "`user` of a step");
        add(options.timeout.is_some(), "`timeout` of a step");
        add(options.mode.is_some(), "`mode` of a step");
        add(options.owner.is_some(), "`owner` of a step");
        let is_folder = matches!(action, ProvisionAction::Folder { .. });
        add(is_folder, "a folder in `provision \"file\"`");
    }
    missing
}

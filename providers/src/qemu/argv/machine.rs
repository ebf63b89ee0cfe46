//! The machine itself: its identity, processors, memory and sandbox.

use super::super::accel::Accel;
use super::{Args, list};
use crate::spec::VmHandle;

/// Memory for translated code, in MiB. The default, a quarter of guest memory up to 1 GiB, makes several emulated
/// machines crowd a small host.
const TCG_BUFFER_MIB: u32 = 256;

pub(super) fn machine(args: &mut Args, vm: &VmHandle, accel: &Accel) {
    args.flag("-no-user-config").flag("-nodefaults");
    args.pair(
        "-name",
        list(&[("guest", &format!("{}/{}", vm.project, vm.name)), ("process", &process_name(vm))]),
    );
    args.pair("-uuid", vm.id.to_string());
    args.pair("-machine", "q35");
    match accel {
        Accel::Kvm => args.pair("-accel", "kvm").pair("-cpu", "host"),
        // Five-level paging only makes the guest's page walks longer under emulation.
        Accel::Tcg(_) => args
            .pair("-accel", format!("tcg,thread=multi,tb-size={TCG_BUFFER_MIB}"))
            .pair("-cpu", "max,la57=off"),
    };
    args.pair("-smp", vm.machine.vcpus.to_string());
    args.pair("-m", vm.machine.memory_mib.to_string());
    args.pair("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
}

/// Linux keeps 15 bytes of a process name; the rest is cut.
fn process_name(vm: &VmHandle) -> String {
    format!("vmctl-{}", vm.name)
}

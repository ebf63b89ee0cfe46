//! The machine itself: its identity, processors, memory and sandbox.

use super::super::accel::Accel;
use super::{Args, doubled, list, text};
use crate::error::Result;
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
    let hardware = &vm.machine.hardware;
    args.pair("-machine", doubled(hardware.machine.as_deref().unwrap_or("q35")));
    let cpu = hardware.cpu.as_deref();
    match accel {
        Accel::Kvm => args.pair("-accel", "kvm").pair("-cpu", cpu.unwrap_or("host")),
        // Five-level paging only makes the guest's page walks longer under emulation.
        Accel::Tcg(_) => args
            .pair("-accel", format!("tcg,thread=multi,tb-size={TCG_BUFFER_MIB}"))
            .pair("-cpu", cpu.unwrap_or("max,la57=off")),
    };
    args.pair("-smp", vm.machine.vcpus.to_string());
    args.pair("-m", vm.machine.memory_mib.to_string());
    args.pair("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
}

/// A kernel that is booted directly.
pub(super) fn kernel(args: &mut Args, vm: &VmHandle) -> Result<()> {
    let Some(kernel) = &vm.machine.hardware.kernel else { return Ok(()) };
    args.pair("-kernel", text(&kernel.kernel.path)?);
    if let Some(initrd) = &kernel.initrd {
        args.pair("-initrd", text(&initrd.path)?);
    }
    if let Some(cmdline) = &kernel.cmdline {
        args.pair("-append", cmdline);
    }
    Ok(())
}

/// Linux keeps 15 bytes of a process name; the rest is cut.
fn process_name(vm: &VmHandle) -> String {
    format!("vmctl-{}", vm.name)
}

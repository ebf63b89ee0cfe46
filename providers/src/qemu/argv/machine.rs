//! The machine itself: its identity, processors, memory and sandbox.

use serde_json::json;

use super::super::accel::Accel;
use super::{Args, Memory, doubled, list, text};
use crate::error::{Error, Result};
use crate::spec::{Arch, Firmware, VmHandle, VmState};
use crate::workdir::WorkDir;

/// Memory for translated code, in MiB. The default, a quarter of guest memory up to 1 GiB, makes several emulated
/// machines crowd a small host.
const TCG_BUFFER_MIB: u32 = 256;

/// What a `microvm` needs to boot under emulation (a timer, an interrupt controller, a clock), and to be powered down
/// (ACPI).
const MICROVM: &str = ",pit=on,pic=on,rtc=on,acpi=on";

pub(super) fn machine(args: &mut Args, vm: &VmHandle, accel: &Accel, memory: Memory<'_>) -> Result<()> {
    args.flag("-no-user-config").flag("-nodefaults");
    args.pair(
        "-name",
        list(&[("guest", &format!("{}/{}", vm.project, vm.name)), ("process", &process_name(vm))]),
    );
    args.pair("-uuid", vm.id.to_string());
    let hardware = &vm.machine.hardware;
    let mut board = doubled(hardware.machine_type());
    if hardware.is_microvm() {
        board.push_str(MICROVM);
    }
    if hardware.firmware == Firmware::Uefi {
        board.push_str(",pflash0=uefi-code,pflash1=uefi-variables");
    }
    let size = vm.machine.memory_mib << 20;
    let backend = match memory {
        Memory::Plain if !vm.machine.has_virtiofs() => None,
        Memory::Plain | Memory::Kept => {
            Some(json!({"qom-type": "memory-backend-memfd", "id": "memory", "size": size, "share": true}))
        }
        Memory::Of(file) => Some(json!({
            "qom-type": "memory-backend-file",
            "id": "memory",
            "size": size,
            "mem-path": text(file)?,
            "share": false,
        })),
    };
    if let Some(backend) = backend {
        board.push_str(",memory-backend=memory");
        args.json("-object", &backend);
    }
    args.pair("-machine", board);
    let cpu = hardware.cpu.as_deref();
    match accel {
        Accel::Kvm => args.pair("-accel", "kvm").pair("-cpu", cpu.unwrap_or("host")),
        Accel::Tcg(_) => args
            .pair("-accel", format!("tcg,thread=multi,tb-size={TCG_BUFFER_MIB}"))
            .pair("-cpu", cpu.unwrap_or(emulated_cpu(hardware.guest_arch()))),
    };
    args.pair("-smp", vm.machine.vcpus.to_string());
    args.pair("-m", vm.machine.memory_mib.to_string());
    args.pair("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    if vm.warm.is_some() && hardware.guest_arch() == Arch::X86_64 && !hardware.is_microvm() {
        // Tells a guest that it is another one than a moment ago: its kernel's random numbers begin anew.
        args.device(&json!({"driver": "vmgenid", "guid": "auto"}));
    }
    if let Memory::Of(_) = memory {
        args.pair("-incoming", "defer");
    }
    Ok(())
}

/// The fastest of the processors that can do everything.
fn emulated_cpu(arch: Arch) -> &'static str {
    match arch {
        // Five-level paging only makes the guest's page walks longer under emulation.
        Arch::X86_64 => "max,la57=off",
        // Signing pointers by the book takes half of an emulated processor's time.
        Arch::Aarch64 => "max,pauth-impdef=on",
    }
}

/// The firmware, which nobody writes to, and the machine's own variables. What was not prepared is an error: another
/// firmware in its place would boot something else, or nothing.
pub(super) fn uefi(args: &mut Args, vm: &VmHandle) -> Result<()> {
    if vm.machine.hardware.firmware != Firmware::Uefi {
        return Ok(());
    }
    let Some(uefi) = &vm.uefi else {
        return Err(Error::InvalidState { action: "boot by UEFI", state: VmState::Preparing });
    };
    let variables = WorkDir::new(&vm.work_dir).variables();
    args.json(
        "-blockdev",
        &json!({
            "node-name": "uefi-code",
            "driver": uefi.code_format.as_str(),
            "read-only": true,
            "file": {"driver": "file", "filename": text(&uefi.code)?, "read-only": true},
        }),
    );
    args.json(
        "-blockdev",
        &json!({
            "node-name": "uefi-variables",
            "driver": uefi.variables_format.as_str(),
            "file": {"driver": "file", "filename": text(&variables)?},
        }),
    );
    Ok(())
}

/// A kernel that is booted directly, and what it is told besides its user's words.
pub(super) fn kernel(args: &mut Args, vm: &VmHandle, tsc_khz: Option<u32>) -> Result<()> {
    let Some(kernel) = &vm.machine.hardware.kernel else { return Ok(()) };
    args.pair("-kernel", text(&kernel.kernel.path)?);
    if let Some(initrd) = &kernel.initrd {
        args.pair("-initrd", text(&initrd.path)?);
    }
    let frequency = tsc_khz.map(|khz| format!("tsc_early_khz={khz}"));
    let words: Vec<_> = kernel.cmdline.iter().chain(&frequency).map(String::as_str).collect();
    if !words.is_empty() {
        args.pair("-append", words.join(" "));
    }
    Ok(())
}

/// Linux keeps 15 bytes of a process name; the rest is cut.
fn process_name(vm: &VmHandle) -> String {
    format!("vmctl-{}", vm.name)
}

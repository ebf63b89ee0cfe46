//! What a machine is besides its disks and networks: firmware, kernel, and words for QEMU.

use miette::SourceSpan;
use vmctl_providers::BackendTag;

use super::ast::{Node, Spanned};
use super::fields::{Fields, Parts, shorten};
use super::grammar::{Shape, VNC};
use super::report::Fault;
use super::resolve::Resolver;
use super::typed::Vm;
use super::words::is_qemu_word;
use crate::desired::{Arch, Firmware, Hardware, InputFile, Kernel, VncTcp};

impl Fields {
    pub(super) fn qemu_word(&mut self, node: &Node, shape: &Shape, signs: &str) -> Option<Spanned<String>> {
        let text = self.leaf_text(node, shape)?;
        if is_qemu_word(&text.value, signs) {
            return Some(text);
        }
        let message = format!("`{}` cannot be a `{}`", shorten(&text.value), shape.name);
        let help = format!("it has letters, digits and {}, such as {}", quoted(signs), shape.usage);
        self.tell(Fault::error("vmfile::bad-name", message).at(text.span, "not a name").help(help));
        None
    }

    pub(super) fn vnc(&mut self, node: &Node) -> Option<Spanned<VncTcp>> {
        let parts = Parts::of(node);
        self.leaf_text(node, &VNC)
            .and_then(|text| self.choice("way to serve a display", &text, &[("tcp", ())]))?;
        let port = match (parts.prop("port"), VNC.prop("port")) {
            (Some(value), Some(prop)) => {
                let port = self.whole("port", value, prop.kind, VNC.usage)?;
                Some(u16::try_from(port.value).ok()?)
            }
            _ => None,
        };
        Some(Spanned { value: VncTcp { port }, span: node.name.span })
    }

    pub(super) fn is_one_line(&mut self, text: &Spanned<String>, what: &str) -> bool {
        let is_one = !text.value.chars().any(char::is_control);
        if !is_one {
            self.tell(
                Fault::error("vmfile::bad-value", format!("`{what}` contains a control character"))
                    .at(text.span, "line break or the like")
                    .help("write it in one line"),
            );
        }
        is_one
    }
}

impl Resolver<'_> {
    pub(super) fn hardware(&mut self, vm: &Vm, backend: BackendTag) -> Option<Hardware> {
        let text = |written: &Option<Spanned<String>>| written.as_ref().map(|text| text.value.clone());
        let arch = vm.arch.as_ref().map_or(Arch::HOST, |arch| arch.value);
        // ARM has no BIOS.
        let usual = match arch {
            Arch::Aarch64 if vm.kernel.is_none() => Firmware::Uefi,
            // Its servers boot nothing else.
            Arch::X86_64 | Arch::Aarch64 if backend == BackendTag::Propolis => Firmware::Uefi,
            Arch::X86_64 | Arch::Aarch64 => Firmware::Bios,
        };
        let firmware = vm.firmware.as_ref().map_or(usual, |firmware| firmware.value);
        self.fits_together(vm, arch);
        for (written, name) in [(&vm.initrd, "initrd"), (&vm.cmdline, "cmdline")] {
            if let Some(written) = written.as_ref().filter(|_| vm.kernel.is_none()) {
                self.tell(
                    Fault::error("vmfile::kernel", format!("`{name}` needs a `kernel`"))
                        .at(written.span, "nothing boots with it")
                        .help(format!("add `kernel \"vmlinuz\"`, or remove `{name}`")),
                );
            }
        }
        if let (Some(kernel), Some(written), Firmware::Uefi) = (&vm.kernel, &vm.firmware, firmware) {
            self.tell(
                Fault::error("vmfile::kernel", "a kernel that is booted directly needs no UEFI")
                    .at(kernel.span, "booted directly")
                    .at(written.span, "boots from the disk")
                    .help("keep one of them"),
            );
        }
        if let Some(arg) = vm.qemu_args.first() {
            if backend == BackendTag::Qemu {
                self.tell(
                    Fault::warning("vmfile::qemu-arg", "arguments of QEMU are passed on as they are")
                        .at(arg.span, "vmctl knows nothing of what it does")
                        .help("they can break what vmctl relies on; see whether a node of the VMFile does the same"),
                );
            } else {
                self.tell(
                    Fault::error(
                        "vmfile::qemu-arg",
                        format!("`qemu-arg` means nothing to the backend `{backend}`"),
                    )
                    .at(arg.span, "cannot work")
                    .help("remove it, or use `backend \"qemu\"`"),
                );
            }
        }
        let propolis = self.propolis(vm, backend);
        let kernel = match &vm.kernel {
            None => None,
            Some(kernel) => {
                let kernel = self.boot_file("kernel", kernel);
                let initrd = vm.initrd.as_ref().map(|initrd| self.boot_file("initrd", initrd));
                let initrd = match initrd {
                    None => None,
                    Some(found) => Some(found?),
                };
                Some(Kernel { kernel: kernel?, initrd, cmdline: text(&vm.cmdline) })
            }
        };
        Some(Hardware {
            // That of the host is none that was chosen: the same file says the same on each host.
            arch: Some(arch).filter(|arch| *arch != Arch::HOST),
            firmware,
            kernel,
            machine: text(&vm.machine),
            cpu: text(&vm.cpu),
            accel: vm.accel.as_ref().map(|accel| accel.value).unwrap_or_default(),
            vnc: vm.vnc.as_ref().map(|vnc| vnc.value),
            qemu_args: vm.qemu_args.iter().map(|arg| arg.value.clone()).collect(),
            propolis: propolis?,
        })
    }

    /// Tells what machines of the kind that was asked for cannot have.
    fn fits_together(&mut self, vm: &Vm, arch: Arch) {
        let mut tell = |message: &str, places: [(SourceSpan, &str); 2], help: &str| {
            let fault = Fault::error("vmfile::hardware", message);
            let fault = places.into_iter().fold(fault, |fault, (span, label)| fault.at(span, label));
            self.tell(fault.help(help));
        };
        let written = vm.firmware.as_ref();
        if let (Some(asked), Arch::Aarch64, Some(bios)) = (
            &vm.arch,
            arch,
            written.filter(|firmware| firmware.value == Firmware::Bios && vm.kernel.is_none()),
        ) {
            tell(
                "there is no BIOS for aarch64",
                [(bios.span, "asked for here"), (asked.span, "of this processor")],
                "remove `firmware`: UEFI is what such machines boot with; or name a `kernel`",
            );
        }
        let Some(machine) = vm.machine.as_ref().filter(|machine| machine.value.starts_with("microvm")) else {
            return;
        };
        let microvm = (machine.span, "this machine type");
        if let Some(asked) = vm.arch.as_ref().filter(|asked| asked.value != Arch::X86_64) {
            let places = [microvm, (asked.span, "of this processor")];
            tell("a `microvm` is an x86_64 machine", places, "use `machine \"virt\"`, or remove `machine`");
        } else if let Some(uefi) = written.filter(|firmware| firmware.value == Firmware::Uefi) {
            let places = [microvm, (uefi.span, "asked for here")];
            tell("a `microvm` does not boot by UEFI", places, "use `machine \"q35\"`, or remove `firmware`");
        } else if vm.kernel.is_none() {
            self.tell(
                Fault::error("vmfile::hardware", "a `microvm` boots a `kernel` only")
                    .at(machine.span, "this machine type boots no disk")
                    .help("name a `kernel`, with the `initrd` and the `cmdline` that it needs, or remove `machine`"),
            );
        } else if let Some(vnc) = &vm.vnc {
            let places = [microvm, (vnc.span, "asked for here")];
            tell(
                "a `microvm` has no display",
                places,
                "remove `vnc`: the guest is at its serial `vmctl console`",
            );
        }
    }

    fn boot_file(&mut self, what: &str, written: &Spanned<String>) -> Option<InputFile> {
        let path = self.path(written);
        match path.and_then(|path| {
            self.files.content(&path).map(|content| InputFile { path, digest: content.digest })
        }) {
            Ok(file) => Some(file),
            Err(error) => {
                self.unreadable(what, written, &error);
                None
            }
        }
    }
}

/// Signs in backticks, for a message.
fn quoted(signs: &str) -> String {
    signs.chars().map(|sign| format!("`{sign}`")).collect::<Vec<_>>().join(" ")
}

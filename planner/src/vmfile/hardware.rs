//! What a machine is besides its disks and networks: firmware, kernel, and words for QEMU.

use vmctl_providers::BackendTag;

use super::ast::{Node, Spanned};
use super::fields::{Fields, shorten};
use super::grammar::Shape;
use super::report::Fault;
use super::resolve::Resolver;
use super::typed::Vm;
use super::words::is_qemu_word;
use crate::desired::{Firmware, Hardware, InputFile, Kernel};

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
        let firmware = vm.firmware.as_ref().map(|firmware| firmware.value).unwrap_or_default();
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
            firmware,
            kernel,
            machine: text(&vm.machine),
            cpu: text(&vm.cpu),
            accel: vm.accel.as_ref().map(|accel| accel.value).unwrap_or_default(),
            qemu_args: vm.qemu_args.iter().map(|arg| arg.value.clone()).collect(),
        })
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

//! From the tree to the typed AST. Nothing here touches the disk.

use std::collections::{BTreeMap, HashMap};

use miette::SourceSpan;
use vmctl_providers::{Name, NameError};

use super::ast::{Node, Scalar, Spanned};
use super::expand::Expanded;
use super::fields::{Fields, Parts, shorten};
use super::grammar::{
    ACCEL, ACCELS, ARCH, ARCHS, ATTACHED, BACKEND, BACKENDS, CMDLINE, CPU, DISK, FIRMWARE, FIRMWARES, INITRD,
    KERNEL, LABEL, LABELS, MACHINE, MEDIA, MEMORY, MOVED, NAME_HELP, NAMED_IMAGE, POWERS, PRIVATE_NETWORK,
    PROJECT, QEMU_ARG, REMOVED, STATE, Shape, VCPUS, VM, VOLUME, WARM, WARMS,
};
use super::report::Fault;
use super::suggest::article;
use super::typed::{File, Network, Vm, Volume};

/// Reads everything. The file holds what could be read, the faults tell the rest.
pub(super) fn decode(expanded: &Expanded) -> (File, Vec<Fault>) {
    let mut fields = Fields::default();
    let mut file = File::default();
    let mut machines = Names::new("machine", "give each machine a name of its own");
    let mut images = Names::new("image", "give each image a name of its own");
    let mut networks = Names::new("network", "give each network a name of its own");
    let mut volumes = Names::new("volume", "give each volume a name of its own");
    for node in &expanded.nodes {
        match node.name.value.as_str() {
            name if name == PROJECT.name => file.project = fields.project(node),
            name if name == MOVED.name => file.moved.extend(fields.moved(node)),
            name if name == REMOVED.name => file.removed.extend(fields.removed(node)),
            name if name == NAMED_IMAGE.name => {
                let image = fields.named_image(node);
                file.images.extend(image.filter(|image| images.is_new(&image.name, &mut fields)));
            }
            name if name == PRIVATE_NETWORK.name => {
                let network = fields.private_network(node);
                let is_new = |network: &Network| networks.is_new(&plain(&network.name), &mut fields);
                file.networks.extend(network.filter(is_new));
            }
            name if name == VOLUME.name => {
                let volume = fields.volume(node);
                let is_new = |volume: &Volume| volumes.is_new(&plain(&volume.name), &mut fields);
                file.volumes.extend(volume.filter(is_new));
            }
            name if name == VM.name => {
                let (written, vm) = fields.vm(node);
                let Some(written) = written else { continue };
                file.declared.push(written.clone());
                if machines.is_new(&written, &mut fields) {
                    file.vms.extend(vm);
                }
            }
            _ => {}
        }
    }
    for (name, members) in &expanded.groups {
        if let Some(machine) = machines.first.get(name) {
            fields.tell(
                Fault::error(
                    "vmfile::duplicate",
                    format!("`{}` is a machine and stands for several", shorten(name)),
                )
                .at(*machine, "this machine")
                .help("another `vm` of this name has a `count`: give one of them another name"),
            );
        }
        file.groups.insert(name.clone(), members.iter().filter_map(|name| name.parse().ok()).collect());
    }
    for sample in &expanded.samples {
        // Only its faults are wanted: no machine is made of it alone.
        drop(fields.vm_body(&Parts::of(sample)));
    }
    file.outputs.clone_from(&expanded.outputs);
    (file, fields.faults)
}

/// What a file says that describes nothing.
pub(super) fn nothing_described() -> Fault {
    Fault::error("vmfile::missing", "no machine is described")
        .at((0, 0).into(), "a `vm` node must be here")
        .help(format!("write {}", VM.usage))
}

fn plain(name: &Spanned<Name>) -> Spanned<String> {
    Spanned { value: name.value.to_string(), span: name.span }
}

/// Names of one kind, each of which may be given once.
struct Names {
    what: &'static str,
    help: &'static str,
    first: HashMap<String, SourceSpan>,
}

impl Names {
    fn new(what: &'static str, help: &'static str) -> Self {
        Self { what, help, first: HashMap::new() }
    }

    fn is_new(&mut self, name: &Spanned<String>, fields: &mut Fields) -> bool {
        let Some(earlier) = self.first.get(&name.value) else {
            self.first.insert(name.value.clone(), name.span);
            return true;
        };
        let message = format!("the {} `{}` is written twice", self.what, shorten(&name.value));
        fields.tell(
            Fault::error("vmfile::duplicate", message)
                .at(name.span, "again here")
                .at(*earlier, "first here")
                .help(self.help),
        );
        false
    }
}

/// The two nodes, the one that stands first in the text first.
pub(super) fn in_text_order<'n>(one: &'n Node, other: &'n Node) -> (&'n Node, &'n Node) {
    if one.name.span.offset() < other.name.span.offset() { (one, other) } else { (other, one) }
}

impl Fields {
    /// A name by the grammar of names; told if `text` is none.
    pub(super) fn name(&mut self, what: &str, text: Spanned<String>) -> Option<Spanned<Name>> {
        match text.value.parse::<Name>() {
            Ok(value) => Some(Spanned { value, span: text.span }),
            Err(error) => {
                let message = match error {
                    NameError::Empty => error.to_string(),
                    _ => format!("`{}` cannot name {}: {error}", shorten(&text.value), article(what)),
                };
                let label = match error {
                    NameError::Empty => "empty",
                    NameError::TooLong(_) => "too long",
                    NameError::Forbidden(_) | NameError::Edge | NameError::Dots => "not a name",
                };
                self.tell(Fault::error("vmfile::bad-name", message).at(text.span, label).help(NAME_HELP));
                None
            }
        }
    }

    /// The project that `project` names.
    pub(super) fn project(&mut self, node: &Node) -> Option<Spanned<Name>> {
        let text = self.leaf_text(node, &PROJECT)?;
        self.name("project", text)
    }

    /// Whether a flag is set: by being there, or by what it says.
    pub(super) fn flag(&mut self, node: &Node, shape: &Shape) -> bool {
        // One that cannot be read is told, and counts until it can be.
        node.args.first().is_none_or(|value| self.truth(shape.name, value, shape.usage).unwrap_or(true))
    }

    /// The name of a definition; told if it is missing or no text.
    pub(super) fn definition_name(&mut self, parts: &Parts<'_>, shape: &Shape) -> Option<Spanned<String>> {
        match parts.args.first() {
            Some(value) => self.text(shape.name, value, shape.usage),
            None => {
                if parts.sound {
                    self.tell(
                        Fault::error("vmfile::missing", format!("`{}` has no name", shape.name))
                            .at(parts.node.name.span, "a name must follow")
                            .help(format!("write {}", shape.usage)),
                    );
                }
                None
            }
        }
    }

    /// The machine's name as written, and the machine if the name is valid.
    fn vm(&mut self, node: &Node) -> (Option<Spanned<String>>, Option<Vm>) {
        let parts = Parts::of(node);
        let written = match parts.args.first() {
            Some(value) => match &value.scalar {
                // An empty name has its own words in the grammar of names.
                Scalar::Text(text) => Some(Spanned { value: text.clone(), span: value.span }),
                _ => self.text("vm", value, VM.usage),
            },
            None if !parts.sound && !node.args.is_empty() => None,
            None => {
                if parts.sound {
                    self.tell(
                        Fault::error("vmfile::missing", "a machine has no name")
                            .at(node.name.span, "a name must follow")
                            .help(format!("write {}", VM.usage)),
                    );
                }
                None
            }
        };
        let name = written.clone().and_then(|text| self.name("machine", text));
        self.needs_an_image(&parts);
        let machine = self.vm_body(&parts);
        (written, name.map(machine))
    }

    /// Decodes the block even if there is no valid name, so that its faults are told too. Returns what a name makes a
    /// machine of.
    fn vm_body(&mut self, parts: &Parts<'_>) -> impl FnOnce(Spanned<Name>) -> Vm + use<> {
        let (image, sha256) = self.image(parts);
        let labels = parts.child("labels").map_or_else(BTreeMap::new, |node| self.labels(node));
        let backend = self.leaf_choice(parts, &BACKEND, "backend", &BACKENDS);
        let propolis = parts.child(BACKEND.name).and_then(|node| self.propolis(node));
        let arch = self.leaf_choice(parts, &ARCH, "architecture", &ARCHS);
        let firmware = self.leaf_choice(parts, &FIRMWARE, "firmware", &FIRMWARES);
        let kernel = parts.child("kernel").and_then(|node| self.leaf_text(node, &KERNEL));
        let initrd = parts.child("initrd").and_then(|node| self.leaf_text(node, &INITRD));
        let cmdline = parts
            .child("cmdline")
            .and_then(|node| self.leaf_text(node, &CMDLINE))
            .filter(|text| self.is_one_line(text, "cmdline"));
        let machine = parts.child("machine").and_then(|node| self.qemu_word(node, &MACHINE, "-._"));
        let cpu = parts.child("cpu").and_then(|node| self.qemu_word(node, &CPU, "-._,+="));
        let accel = self.leaf_choice(parts, &ACCEL, "accelerator", &ACCELS);
        let vnc = parts.child("vnc").and_then(|node| self.vnc(node));
        let qemu_args = parts.children("qemu-arg").flat_map(|node| self.texts(node, &QEMU_ARG)).collect();
        let vcpus = parts.child("vcpus").and_then(|node| self.leaf_whole(node, &VCPUS)).and_then(narrow);
        let memory_mib = parts.child("memory").and_then(|node| self.leaf_size(node, &MEMORY));
        let disk_mib = parts.child("disk").and_then(|node| self.leaf_size(node, &DISK));
        let volumes = parts.children("volume").filter_map(|node| self.leaf_text(node, &ATTACHED)).collect();
        let shares = parts.children("share").filter_map(|node| self.share(node)).collect();
        let media = parts.children("media").filter_map(|node| self.leaf_text(node, &MEDIA)).collect();
        let networks = parts.children("network").filter_map(|node| self.network(node)).collect();
        let has_network = parts.child("network").is_some();
        let forwards = parts.children("forward").filter_map(|node| self.forward(node)).collect();
        let cloud_init = parts.child("cloud-init").map(|node| self.cloud_init(node));
        let ssh = parts.child("ssh").map(|node| self.ssh(node));
        let depends_on = parts.children("depends-on").flat_map(|node| self.depends_on(node)).collect();
        let ready = parts.child("ready").map(|node| self.ready(node));
        let provision = parts.children("provision").map(|node| self.provision(node)).collect();
        let checks = self.checks(parts);
        let power = self.leaf_choice(parts, &STATE, "state", &POWERS);
        let warm = self.leaf_choice(parts, &WARM, "kind of template", &WARMS);
        let lifecycle = parts.child("lifecycle").map(|node| self.lifecycle(node));
        move |name| Vm {
            name,
            image,
            sha256,
            backend,
            propolis,
            arch,
            firmware,
            kernel,
            initrd,
            cmdline,
            machine,
            cpu,
            accel,
            vnc,
            qemu_args,
            vcpus,
            memory_mib,
            disk_mib,
            volumes,
            shares,
            media,
            networks,
            has_network,
            forwards,
            cloud_init,
            ssh,
            depends_on,
            ready,
            provision,
            checks,
            power,
            warm,
            lifecycle,
            labels,
        }
    }

    pub(super) fn leaf_choice<T: Copy>(
        &mut self,
        parts: &Parts<'_>,
        shape: &Shape,
        what: &str,
        table: &[(&'static str, T)],
    ) -> Option<Spanned<T>> {
        let text = self.leaf_text(parts.child(shape.name)?, shape)?;
        self.choice(what, &text, table)
    }

    /// All values of a node that takes several.
    pub(super) fn texts(&mut self, node: &Node, shape: &Shape) -> Vec<Spanned<String>> {
        self.only_value(&Parts::of(node), shape);
        node.args.iter().filter_map(|value| self.text(shape.name, value, shape.usage)).collect()
    }

    fn labels(&mut self, node: &Node) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        for label in Parts::of(node).block() {
            let name = &label.name;
            if name.value.chars().any(char::is_control) || name.value.trim().is_empty() {
                self.tell(
                    Fault::error("vmfile::bad-name", "a label's name is one line of text")
                        .at(name.span, "not a name")
                        .help(format!("write {}", LABELS.usage)),
                );
                continue;
            }
            let value = self.only_value(&Parts::of(label), &LABEL);
            if let Some(text) = value.and_then(|value| self.scalar_text(&name.value, value, "`role \"web\"`"))
            {
                labels.insert(name.value.clone(), text.value);
            }
        }
        labels
    }
}

fn narrow(number: Spanned<u64>) -> Option<Spanned<u16>> {
    Some(Spanned { value: u16::try_from(number.value).ok()?, span: number.span })
}

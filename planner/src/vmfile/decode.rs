//! From the tree to the typed AST. Nothing here touches the disk.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use miette::SourceSpan;
use vmctl_providers::provision::StepOptions;
use vmctl_providers::{Name, NameError, NetworkConfig, Secret};

use super::ast::{Node, Scalar, Spanned, Value};
use super::expand::Expanded;
use super::fields::{Fields, Parts, at, shorten};
use super::grammar::{
    ACCEL, ACCELS, ATTACHED, BACKEND, BACKENDS, BRIDGE, CMDLINE, CPU, DEPENDS_ON, DESTINATION, DISK, ENV,
    FILE_USAGE, FIRMWARE, FIRMWARES, FORWARD, HOSTNAME, IMAGE, IMAGE_PATH, IMAGE_URL, INITRD, INLINE, KERNEL,
    LABELS, MACHINE, MEMORY, MODE, MOVED, NAME_HELP, NAMED_IMAGE, NETWORK, NETWORKS, NetworkKind, OWNER,
    POWERS, PREVENT_DESTROY, PRIVATE_KEY, PRIVATE_NETWORK, PROJECT, PROTOCOLS, PROVISION, PROVISIONS,
    QEMU_ARG, REMOVED, RUN, RUNS, SCRIPT, SHA256, SHARE, SHELL_USAGE, SOURCE, SSH_KEY, STATE, STEP_TIMEOUT,
    STEP_USER, SUBNET, Shape, UNTIL, URL, USER, USER_DATA, VCPUS, VM, VOLUME,
};
use super::report::Fault;
use super::shape::REF;
use super::suggest::nearest;
use super::typed::{
    Action, CloudInit, Dependency, File, Forward, Image, NamedImage, Network, Provision, Share, Ssh, Vm,
    Volume,
};
use super::words::{
    MAX_INTERFACE, file_url_path, hostname_fault, is_environment, is_guest_path, is_interface, is_owner,
    is_qemu_word, is_user, mode, subnet,
};
use crate::desired::{Subnet, Until};

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
        if let Some(machine) = file.declared.iter().find(|declared| declared.value == *name) {
            fields.tell(
                Fault::error(
                    "vmfile::duplicate",
                    format!("`{}` is a machine and stands for several", shorten(name)),
                )
                .at(machine.span, "this machine")
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
fn in_text_order<'n>(one: &'n Node, other: &'n Node) -> (&'n Node, &'n Node) {
    if one.name.span.offset() < other.name.span.offset() { (one, other) } else { (other, one) }
}

/// A node that was already told to be a misspelling of `image`.
fn is_misspelt_image(node: &Node) -> bool {
    nearest(&node.name.value, VM.names()).is_some_and(|near| near.starts_with("image"))
}

impl Fields {
    /// A name by the grammar of names; told if `text` is none.
    pub(super) fn name(&mut self, what: &str, text: Spanned<String>) -> Option<Spanned<Name>> {
        match text.value.parse::<Name>() {
            Ok(value) => Some(Spanned { value, span: text.span }),
            Err(error) => {
                let message = match error {
                    NameError::Empty => error.to_string(),
                    _ => format!("`{}` cannot name a {what}: {error}", shorten(&text.value)),
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

    fn named_image(&mut self, node: &Node) -> Option<NamedImage> {
        let parts = Parts::of(node);
        let name = self.definition_name(&parts, &NAMED_IMAGE)?;
        let path = parts.child("path").and_then(|node| self.leaf_text(node, &IMAGE_PATH));
        let url = parts.child("url").and_then(|node| self.leaf_text(node, &URL));
        let image = match (parts.child("path"), parts.child("url")) {
            (Some(one), Some(other)) => {
                let (first, second) = in_text_order(one, other);
                self.tell(
                    Fault::error("vmfile::duplicate", format!("the image `{}` is in two places", name.value))
                        .at(second.name.span, "again here")
                        .at(first.name.span, "first here")
                        .help("keep either `path` or `url`"),
                );
                None
            }
            (None, None) if parts.sound => {
                self.tell(
                    Fault::error("vmfile::missing", format!("the image `{}` is nowhere", name.value))
                        .at(name.span, "needs `path` or `url`")
                        .help(format!("write {}", NAMED_IMAGE.usage)),
                );
                None
            }
            _ => match (path, url) {
                (Some(path), _) => Some(Spanned { value: Image::Path(path.value), span: path.span }),
                (_, Some(url)) => self.image_url(url),
                (None, None) => None,
            },
        };
        let sha256 = parts.child("sha256").and_then(|node| {
            let value = self.only_value(&Parts::of(node), &SHA256)?;
            self.sha256(value)
        });
        Some(NamedImage { name, image, sha256 })
    }

    fn private_network(&mut self, node: &Node) -> Option<Network> {
        let parts = Parts::of(node);
        let name = self.definition_name(&parts, &PRIVATE_NETWORK)?;
        let subnet = parts.child("subnet").and_then(|node| {
            let text = self.leaf_text(node, &SUBNET)?;
            self.subnet(text)
        });
        Some(Network { name: self.name("network", name)?, subnet })
    }

    fn subnet(&mut self, text: Spanned<String>) -> Option<Spanned<Subnet>> {
        match subnet(&text.value) {
            Ok(value) => Some(Spanned { value, span: text.span }),
            Err(wrong) => {
                let message = format!("`{}` cannot be a private network: {wrong}", shorten(&text.value));
                self.tell(
                    Fault::error("vmfile::network", message)
                        .at(text.span, "this subnet")
                        .help("write a range such as `subnet \"10.77.0.0/24\"`"),
                );
                None
            }
        }
    }

    fn volume(&mut self, node: &Node) -> Option<Volume> {
        let parts = Parts::of(node);
        let name = self.definition_name(&parts, &VOLUME)?;
        let size_mib = match (parts.prop("size"), VOLUME.prop("size")) {
            (Some(value), Some(prop)) => {
                self.size("size", value, prop.kind, "`size=\"10G\"`").map(|size| size.value)
            }
            _ => {
                if parts.sound {
                    self.tell(
                        Fault::error(
                            "vmfile::missing",
                            format!("the volume `{}` has no size", shorten(&name.value)),
                        )
                        .at(name.span, "needs `size`")
                        .help(format!("write {}", VOLUME.usage)),
                    );
                }
                None
            }
        };
        let prevent_destroy =
            parts.child(PREVENT_DESTROY.name).is_some_and(|node| self.flag(node, &PREVENT_DESTROY));
        Some(Volume { name: self.name("volume", name)?, size_mib, prevent_destroy })
    }

    /// The name of a definition; told if it is missing or no text.
    fn definition_name(&mut self, parts: &Parts<'_>, shape: &Shape) -> Option<Spanned<String>> {
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
        let qemu_args = parts.children("qemu-arg").flat_map(|node| self.texts(node, &QEMU_ARG)).collect();
        let vcpus = parts.child("vcpus").and_then(|node| self.leaf_whole(node, &VCPUS)).and_then(narrow);
        let memory_mib = parts.child("memory").and_then(|node| self.leaf_size(node, &MEMORY));
        let disk_mib = parts.child("disk").and_then(|node| self.leaf_size(node, &DISK));
        let volumes = parts.children("volume").filter_map(|node| self.leaf_text(node, &ATTACHED)).collect();
        let shares = parts.children("share").filter_map(|node| self.share(node)).collect();
        let networks = parts.children("network").filter_map(|node| self.network(node)).collect();
        let forwards = parts.children("forward").filter_map(|node| self.forward(node)).collect();
        let cloud_init = parts.child("cloud-init").map(|node| self.cloud_init(node));
        let ssh = parts.child("ssh").map(|node| self.ssh(node));
        let depends_on = parts.children("depends-on").flat_map(|node| self.depends_on(node)).collect();
        let ready = parts.child("ready").map(|node| self.ready(node));
        let provision = parts.children("provision").map(|node| self.provision(node)).collect();
        let checks = self.checks(parts);
        let power = self.leaf_choice(parts, &STATE, "state", &POWERS);
        let lifecycle = parts.child("lifecycle").map(|node| self.lifecycle(node));
        move |name| Vm {
            name,
            image,
            sha256,
            backend,
            firmware,
            kernel,
            initrd,
            cmdline,
            machine,
            cpu,
            accel,
            qemu_args,
            vcpus,
            memory_mib,
            disk_mib,
            volumes,
            shares,
            networks,
            forwards,
            cloud_init,
            ssh,
            depends_on,
            ready,
            provision,
            checks,
            power,
            lifecycle,
            labels,
        }
    }

    fn leaf_choice<T: Copy>(
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
    fn texts(&mut self, node: &Node, shape: &Shape) -> Vec<Spanned<String>> {
        self.only_value(&Parts::of(node), shape);
        node.args.iter().filter_map(|value| self.text(shape.name, value, shape.usage)).collect()
    }

    fn qemu_word(&mut self, node: &Node, shape: &Shape, signs: &str) -> Option<Spanned<String>> {
        let text = self.leaf_text(node, shape)?;
        if is_qemu_word(&text.value, signs) {
            return Some(text);
        }
        let message = format!("`{}` cannot be a `{}`", shorten(&text.value), shape.name);
        let help = format!("it has letters, digits and {}, such as {}", quoted(signs), shape.usage);
        self.tell(Fault::error("vmfile::bad-name", message).at(text.span, "not a name").help(help));
        None
    }

    fn is_one_line(&mut self, text: &Spanned<String>, what: &str) -> bool {
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

    fn share(&mut self, node: &Node) -> Option<Share> {
        let parts = Parts::of(node);
        if parts.args.len() < SHARE.args.least() {
            if parts.sound {
                let missing = if parts.args.is_empty() {
                    "a folder and a path must follow"
                } else {
                    "the path in the guest must follow"
                };
                self.tell(
                    Fault::error(
                        "vmfile::missing",
                        "`share` names a folder of the host and a path in the guest",
                    )
                    .at(node.name.span, missing)
                    .help(format!("write {}", SHARE.usage)),
                );
            }
            return None;
        }
        let source = self.text("share", parts.args.first()?, SHARE.usage);
        let target = self.text("share", parts.args.get(1)?, SHARE.usage).filter(|target| {
            let is_path = is_guest_path(&target.value);
            if !is_path {
                let message = format!("`{}` is no path in the guest", shorten(&target.value));
                self.tell(
                    Fault::error("vmfile::bad-value", message)
                        .at(target.span, "not absolute")
                        .help("write an absolute path without `..`, such as `/mnt/src`"),
                );
            }
            is_path
        });
        let readonly = match parts.args.get(2) {
            None => Some(false),
            Some(value) => self
                .text("share", value, SHARE.usage)
                .and_then(|text| self.choice("option of `share`", &text, &[("readonly", true)]))
                .map(|readonly| readonly.value),
        };
        Some(Share { source: source?, target: target?, readonly: readonly? })
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
            let value = self.only_value(&Parts::of(label), &super::grammar::LABEL);
            if let Some(text) = value.and_then(|value| self.scalar_text(&name.value, value, "`role \"web\"`"))
            {
                labels.insert(name.value.clone(), text.value);
            }
        }
        labels
    }

    fn sha256(&mut self, value: &Value) -> Option<Spanned<String>> {
        let text = self.text("sha256", value, SHA256.usage)?;
        let digits = text.value.strip_prefix("sha256:").unwrap_or(&text.value).to_ascii_lowercase();
        if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Some(Spanned { value: digits, span: text.span });
        }
        let message = format!(
            "a SHA-256 digest has 64 hexadecimal digits, this has {} characters",
            digits.chars().count()
        );
        self.tell(
            at(Fault::error("vmfile::bad-value", message), value, "not a digest")
                .help("`sha256sum FILE` prints it"),
        );
        None
    }

    /// Tells a machine that has nothing to boot from.
    fn needs_an_image(&mut self, parts: &Parts<'_>) {
        let boots = ["image", "image-url", "kernel"];
        let is_told = parts.block().iter().any(is_misspelt_image) || !parts.sound;
        if is_told || boots.iter().any(|name| parts.child(name).is_some()) {
            return;
        }
        let name = &parts.node.name;
        self.tell(
            Fault::error("vmfile::missing", "a machine has no image")
                .at(name.span, "its block has no `image`")
                .help("write `image \"debian.qcow2\"` in its block, with the path of a disk image"),
        );
    }

    /// The image, and the digest that it must have.
    fn image(&mut self, parts: &Parts<'_>) -> (Option<Spanned<Image>>, Option<Spanned<String>>) {
        let (path, url) = (parts.child("image"), parts.child("image-url"));
        let node = match (path, url) {
            (Some(path), Some(url)) => {
                let (first, second) = in_text_order(path, url);
                self.tell(
                    Fault::error("vmfile::duplicate", "a machine has one image")
                        .at(second.name.span, "again here")
                        .at(first.name.span, "first here")
                        .help("keep either `image` or `image-url`"),
                );
                return (None, None);
            }
            (Some(node), None) | (None, Some(node)) => node,
            (None, None) => return (None, None),
        };
        let pin = Parts::of(node).prop("sha256");
        let sha256 = pin.and_then(|value| self.sha256(value));
        if url.is_some() {
            let text = self.leaf_text(node, &IMAGE_URL);
            return (text.and_then(|text| self.image_url(text)), sha256);
        }
        let is_reference = node
            .args
            .first()
            .and_then(|value| value.annotation.as_ref())
            .is_some_and(|word| word.value == REF);
        let text = self.leaf_text(node, &IMAGE);
        if let Some(pin) = pin.filter(|_| is_reference) {
            self.tell(
                Fault::error("vmfile::image", "the digest of a named image stands where it is named")
                    .at(pin.span, "not here")
                    .help("write `sha256` in the block of the image at the top level"),
            );
        }
        let image = text.map(|text| {
            let value = if is_reference { Image::Named(text.value) } else { Image::Path(text.value) };
            Spanned { value, span: text.span }
        });
        (image, sha256)
    }

    fn image_url(&mut self, text: Spanned<String>) -> Option<Spanned<Image>> {
        let (scheme, rest) = text.value.split_once("://").unwrap_or(("", &text.value));
        let (message, help) = match scheme.to_ascii_lowercase().as_str() {
            "file" => match file_url_path(rest) {
                Ok(path) => return Some(Spanned { value: Image::FileUrl(path), span: text.span }),
                Err(help) => ("this file URL cannot be used".to_owned(), help),
            },
            "http" | "https" | "oci" if is_remote(rest) => {
                return Some(Spanned { value: Image::Url(text.value), span: text.span });
            }
            known @ ("http" | "https" | "oci") => (
                format!("this {known} URL names no file of a server"),
                "write `https://server/path/debian.qcow2` or `oci://server/name:tag`, without blanks",
            ),
            "" => (
                "a URL has a `://`, this has none".to_owned(),
                "write `image`, or `path` in a named image, for a path",
            ),
            other => (
                format!("`{}` is not a known kind of URL", shorten(other)),
                "write `image-url \"file:///images/debian.qcow2\"`, or `image` with a path",
            ),
        };
        self.tell(Fault::error("vmfile::bad-value", message).at(text.span, "this URL").help(help));
        None
    }

    fn network(&mut self, node: &Node) -> Option<Spanned<NetworkConfig>> {
        let parts = Parts::of(node);
        let kind = match parts.args.first() {
            None => Spanned { value: NetworkKind::User, span: node.name.span },
            Some(value) => {
                let text = self.text("network", value, NETWORK.usage)?;
                self.choice("kind of network", &text, &NETWORKS)?
            }
        };
        let told = self.faults.len();
        let option = |name| written(&parts, name);
        let (bridge, name, address) = (option("bridge"), option("name"), option("address"));
        for (given, owners) in [
            (&bridge, &[NetworkKind::Tap][..]),
            (&name, &[NetworkKind::Vnic, NetworkKind::Private]),
            (&address, &[NetworkKind::Private]),
        ] {
            for option in given.iter().filter(|_| !owners.contains(&kind.value)) {
                let words: Vec<_> = NETWORKS
                    .iter()
                    .filter(|(_, kind)| owners.contains(kind))
                    .map(|(word, _)| format!("`network \"{word}\"`"))
                    .collect();
                self.tell(
                    Fault::error(
                        "vmfile::network",
                        format!("`{}` belongs to {}", option.name, words.join(" and ")),
                    )
                    .at(option.span, "has no meaning here")
                    .help(format!("remove it, or write {}", NETWORK.usage)),
                );
            }
            if let [first, second, ..] = given.as_slice() {
                self.tell(
                    Fault::error("vmfile::duplicate", format!("`{}` is written twice", first.name))
                        .at(second.span, "again here")
                        .at(first.span, "first here")
                        .help("keep either the property or the node"),
                );
            }
        }
        let bridge = bridge.first().and_then(|given| self.interface(given, &BRIDGE));
        let vnic = name.first().filter(|_| kind.value == NetworkKind::Vnic);
        let vnic = vnic.and_then(|given| self.interface(given, &super::grammar::NETWORK_NAME));
        let private =
            name.first().filter(|_| kind.value == NetworkKind::Private).and_then(|given| given.value);
        let private = private.and_then(|value| self.text("name", value, "`name=\"lan\"`"));
        let private = private.and_then(|text| self.name("network", text));
        let address = address.first().and_then(|given| given.value);
        let address = address.and_then(|value| self.text("address", value, "`address=\"10.77.0.10\"`"));
        let address = address.and_then(|text| self.guest_address(&text));
        if name.is_empty() && matches!(kind.value, NetworkKind::Vnic | NetworkKind::Private) && parts.sound {
            let (what, example) =
                if kind.value == NetworkKind::Vnic { ("vnic", "vnic0") } else { ("private", "lan") };
            self.tell(
                Fault::error("vmfile::missing", format!("a {what} network has no name"))
                    .at(kind.span, "needs `name`")
                    .help(format!("write `network \"{what}\" name=\"{example}\"`")),
            );
        }
        if self.faults.len() > told {
            return None;
        }
        let value = match kind.value {
            NetworkKind::User => NetworkConfig::User,
            NetworkKind::None => NetworkConfig::None,
            NetworkKind::Tap => NetworkConfig::Tap { bridge: bridge.unwrap_or_else(|| "br0".to_owned()) },
            NetworkKind::Vnic => NetworkConfig::Vnic { name: vnic? },
            NetworkKind::Private => NetworkConfig::Private { name: private?.value, address },
        };
        Some(Spanned { value, span: kind.span })
    }

    /// The name of an interface.
    fn interface(&mut self, given: &Given<'_>, shape: &Shape) -> Option<String> {
        let text = match given.value {
            Some(value) => self.text(given.name, value, shape.usage)?,
            None => {
                self.only_value(&Parts::of(given.node?), shape);
                return None;
            }
        };
        if is_interface(&text.value) {
            return Some(text.value);
        }
        let message = format!("`{}` is not the name of a network interface", shorten(&text.value));
        let help = format!(
            "letters, digits, `-`, `_` and `.`, at most {MAX_INTERFACE} characters, first a letter or digit"
        );
        self.tell(Fault::error("vmfile::bad-name", message).at(text.span, "not a name").help(help));
        None
    }

    fn guest_address(&mut self, text: &Spanned<String>) -> Option<Ipv4Addr> {
        let address = text.value.parse().ok();
        if address.is_none() {
            let message = format!("`{}` is not an IPv4 address", shorten(&text.value));
            self.tell(
                Fault::error("vmfile::bad-value", message).at(text.span, "not an address").help(
                    "write an address of the network, such as `address=\"10.77.0.10\"`, or leave it out",
                ),
            );
        }
        address
    }

    fn cloud_init(&mut self, node: &Node) -> CloudInit {
        let parts = Parts::of(node);
        let hostname = parts.child("hostname").and_then(|node| self.leaf_text(node, &HOSTNAME)).filter(|text| {
            let wrong = hostname_fault(&text.value);
            if let Some(label) = wrong {
                self.tell(
                    Fault::error("vmfile::bad-name", format!("`{}` is not a host name", shorten(&text.value)))
                        .at(text.span, label)
                        .help("letters, digits and `-`, with dots between labels; a label has at most 63 characters"),
                );
            }
            wrong.is_none()
        });
        CloudInit {
            span: node.name.span,
            hostname,
            ssh_key: parts.child("ssh-key").and_then(|node| self.leaf_text(node, &SSH_KEY)),
            user_data: parts.child("user-data").and_then(|node| self.leaf_text(node, &USER_DATA)),
        }
    }

    fn ssh(&mut self, node: &Node) -> Ssh {
        let parts = Parts::of(node);
        let user = parts.child("user").and_then(|node| self.user(node, &USER));
        let private_key = parts.child("private-key").and_then(|node| self.leaf_text(node, &PRIVATE_KEY));
        Ssh { span: node.name.span, user, private_key }
    }

    fn user(&mut self, node: &Node, shape: &Shape) -> Option<Spanned<String>> {
        let text = self.leaf_text(node, shape)?;
        if is_user(&text.value) {
            return Some(text);
        }
        self.tell(
            Fault::error("vmfile::bad-name", format!("`{}` is not a user name", shorten(&text.value)))
                .at(text.span, "not a user name")
                .help("small letters, digits, `_` and `-`, at most 32, first a letter or `_`"),
        );
        None
    }

    fn provision(&mut self, node: &Node) -> Provision {
        let parts = Parts::of(node);
        let kind = match parts.args.first() {
            None => Some(false),
            Some(value) => self
                .text("provision", value, PROVISION.usage)
                .and_then(|text| self.choice("kind of provisioning", &text, &PROVISIONS))
                .map(|kind| kind.value),
        };
        let action =
            kind.and_then(|is_file| if is_file { self.file_step(&parts) } else { self.shell_step(&parts) });
        Provision { span: node.name.span, action, options: self.step_options(&parts) }
    }

    fn step_options(&mut self, parts: &Parts<'_>) -> StepOptions {
        let timeout = parts.child("timeout").and_then(|node| {
            let value = self.only_value(&Parts::of(node), &STEP_TIMEOUT)?;
            self.duration(&STEP_TIMEOUT, value)
        });
        let mode = parts
            .child("mode")
            .and_then(|node| self.leaf_text(node, &MODE))
            .and_then(|text| self.mode(&text));
        let owner = parts.child("owner").and_then(|node| self.leaf_text(node, &OWNER)).filter(|text| {
            let is_owner = is_owner(&text.value);
            if !is_owner {
                self.tell(
                    Fault::error("vmfile::bad-name", format!("`{}` is no owner", shorten(&text.value)))
                        .at(text.span, "not an owner")
                        .help("write a user, or a user and a group: `owner \"www-data:www-data\"`"),
                );
            }
            is_owner
        });
        StepOptions {
            run: self
                .leaf_choice(parts, &RUN, "word for `run`", &RUNS)
                .map_or_else(Default::default, |run| run.value),
            env: parts.child("env").map_or_else(BTreeMap::new, |node| self.environment(node)),
            user: parts.child("user").and_then(|node| self.user(node, &STEP_USER)).map(|user| user.value),
            timeout: timeout.map(|timeout| timeout.value),
            mode,
            owner: owner.map(|owner| owner.value),
        }
    }

    fn mode(&mut self, text: &Spanned<String>) -> Option<u32> {
        let mode = mode(&text.value);
        if mode.is_none() {
            let message = format!("`{}` is no file mode", shorten(&text.value));
            self.tell(
                Fault::error("vmfile::bad-value", message)
                    .at(text.span, "not a mode")
                    .help("write octal digits in quotation marks: `mode \"0644\"`"),
            );
        }
        mode
    }

    fn environment(&mut self, node: &Node) -> BTreeMap<String, Secret> {
        let mut environment = BTreeMap::new();
        for entry in Parts::of(node).block() {
            let name = &entry.name;
            if !is_environment(&name.value) {
                let message = format!("`{}` cannot name an environment variable", shorten(&name.value));
                self.tell(
                    Fault::error("vmfile::bad-name", message)
                        .at(name.span, "not a name")
                        .help(format!("letters, digits and `_`, first no digit: {}", ENV.usage)),
                );
                continue;
            }
            let value = self.only_value(&Parts::of(entry), &super::grammar::ENV_ENTRY);
            if let Some(text) =
                value.and_then(|value| self.scalar_text(&name.value, value, "`MODE \"fast\"`"))
            {
                environment.insert(name.value.clone(), Secret::new(text.value));
            }
        }
        environment
    }

    fn shell_step(&mut self, parts: &Parts<'_>) -> Option<Action> {
        self.foreign_children(parts, &["source", "destination", "mode", "owner"], "shell", SHELL_USAGE);
        match (parts.child("inline"), parts.child("script")) {
            (Some(node), None) => self.leaf_text(node, &INLINE).map(Action::Inline),
            (None, Some(node)) => self.leaf_text(node, &SCRIPT).map(Action::Script),
            (Some(inline), Some(script)) => {
                let (first, second) = in_text_order(inline, script);
                self.tell(
                    Fault::error("vmfile::duplicate", "a shell step has either `inline` or `script`")
                        .at(second.name.span, "and this")
                        .at(first.name.span, "this")
                        .help("make two steps of it"),
                );
                None
            }
            (None, None) if !parts.sound => None,
            (None, None) => {
                self.tell(
                    Fault::error("vmfile::missing", "a shell step has nothing to run")
                        .at(parts.node.name.span, "needs `inline` or `script`")
                        .help(format!("write {SHELL_USAGE}")),
                );
                None
            }
        }
    }

    fn file_step(&mut self, parts: &Parts<'_>) -> Option<Action> {
        self.foreign_children(parts, &["inline", "script", "env", "user"], "file", FILE_USAGE);
        let mut needed = |name: &str, shape: &Shape| match parts.child(name) {
            Some(node) => self.leaf_text(node, shape),
            None => {
                self.tell(
                    Fault::error("vmfile::missing", format!("a file step has no `{name}`"))
                        .at(parts.node.name.span, format!("needs `{name}`"))
                        .help(format!("write {FILE_USAGE}")),
                );
                None
            }
        };
        let (source, destination) = (needed("source", &SOURCE), needed("destination", &DESTINATION));
        let destination = destination.filter(|text| {
            let valid = !text.value.chars().any(char::is_control);
            if !valid {
                self.tell(
                    Fault::error("vmfile::bad-value", "a path in the guest contains a control character")
                        .at(text.span, "line break or the like")
                        .help("remove it"),
                );
            }
            valid
        });
        Some(Action::File { source: source?, destination: destination? })
    }

    fn foreign_children(&mut self, parts: &Parts<'_>, names: &[&str], kind: &str, usage: &str) {
        for node in names.iter().filter_map(|name| parts.child(name)) {
            self.tell(
                Fault::error("vmfile::unknown-node", format!("a {kind} step has no `{}`", node.name.value))
                    .at(node.name.span, "not known here")
                    .help(format!("write {usage}")),
            );
        }
    }

    fn depends_on(&mut self, node: &Node) -> Vec<Dependency> {
        let parts = Parts::of(node);
        let until = parts
            .prop("until")
            .and_then(|value| self.text("until", value, DEPENDS_ON.usage))
            .and_then(|text| self.choice("condition", &text, &UNTIL))
            .map_or(Until::Provisioned, |until| until.value);
        let names = self.texts(node, &DEPENDS_ON).into_iter();
        names.map(|name| Dependency { name, until }).collect()
    }

    fn forward(&mut self, node: &Node) -> Option<Spanned<Forward>> {
        let parts = Parts::of(node);
        let mut port = |name: &str| {
            let value = parts.prop(name)?;
            let kind = FORWARD.prop(name)?.kind;
            Some(self.whole(name, value, kind, FORWARD.usage).and_then(|n| u16::try_from(n.value).ok()))
        };
        let host = port("host");
        let guest = port("guest");
        if guest.is_none() && parts.sound {
            self.tell(
                Fault::error("vmfile::missing", "a forward has no guest port")
                    .at(node.name.span, "needs `guest`")
                    .help(format!("write {}", FORWARD.usage)),
            );
        }
        let protocol = match parts.prop("protocol") {
            None => Some(vmctl_providers::Protocol::Tcp),
            Some(value) => self
                .text("protocol", value, "`protocol=\"tcp\"`")
                .and_then(|text| self.choice("protocol", &text, &PROTOCOLS))
                .map(|protocol| protocol.value),
        };
        let address = match parts.prop("address") {
            None => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            Some(value) => {
                self.text("address", value, "`address=\"127.0.0.1\"`").and_then(|text| self.address(&text))
            }
        };
        let value = Forward {
            host: host.unwrap_or(Some(0))?,
            guest: guest??,
            protocol: protocol?,
            address: address?,
        };
        Some(Spanned { value, span: node.name.span })
    }

    fn address(&mut self, text: &Spanned<String>) -> Option<IpAddr> {
        let (message, help) = match text.value.parse() {
            Ok(address @ IpAddr::V4(_)) => return Some(address),
            Ok(IpAddr::V6(_)) => {
                ("forwards from IPv6 addresses are not yet supported", "use an IPv4 address")
            }
            Err(_) => (
                "this is not an IP address",
                "write an address of this host, such as `address=\"127.0.0.1\"`",
            ),
        };
        self.tell(Fault::error("vmfile::bad-value", message).at(text.span, "this address").help(help));
        None
    }
}

/// An option of a network, as a property or as a child node; both mean the same.
struct Given<'n> {
    name: &'n str,
    span: SourceSpan,
    /// Absent where a child node has none.
    value: Option<&'n Value>,
    node: Option<&'n Node>,
}

/// All places in which the option `name` of a network is written.
fn written<'n>(parts: &Parts<'n>, name: &'n str) -> Vec<Given<'n>> {
    let prop = parts.prop(name).map(|value| Given { name, span: value.span, value: Some(value), node: None });
    let child = parts.child(name).map(|node| {
        let value = node.args.first();
        Given { name, span: node.name.span, value, node: Some(node) }
    });
    prop.into_iter().chain(child).collect()
}

fn narrow(number: Spanned<u64>) -> Option<Spanned<u16>> {
    Some(Spanned { value: u16::try_from(number.value).ok()?, span: number.span })
}

/// Signs in backticks, for a message.
fn quoted(signs: &str) -> String {
    signs.chars().map(|sign| format!("`{sign}`")).collect::<Vec<_>>().join(" ")
}

/// Whether what follows `://` names a server and something on it.
fn is_remote(rest: &str) -> bool {
    let (server, path) = rest.split_once('/').unwrap_or((rest, ""));
    let is_clean = !rest.chars().any(|c| c.is_whitespace() || c.is_control());
    is_clean && !server.is_empty() && !path.is_empty()
}

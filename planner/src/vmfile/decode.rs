//! From the tree to the typed AST. Nothing here touches the disk.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use miette::SourceSpan;
use vmctl_providers::{BackendTag, Name, NameError, NetworkConfig, Protocol};

use super::ast::{Action, CloudInit, Dependency, File, Forward, Image, Provision, Spanned, Ssh, Vm};
use super::fields::{Fields, Parts, Shape, Unit, shorten};
use super::grammar::{
    BACKEND, BRIDGE, CLOUD_INIT, DEPENDS_ON, DESTINATION, DISK, DISK_UNIT, FILE_USAGE, FORWARD, HOSTNAME,
    IMAGE, IMAGE_URL, INLINE, MAX_DISK, MAX_MEMORY, MAX_VCPUS, MEMORY, MEMORY_UNIT, NAME_HELP, NETWORK,
    PORT_UNIT, PRIVATE_KEY, PROJECT, PROVISION, SCRIPT, SHELL_USAGE, SOURCE, SSH, SSH_KEY, STATE, TOP, USER,
    USER_DATA, VCPUS, VCPUS_UNIT, VM, VNIC_NAME,
};
use super::report::Fault;
use super::source::Node;
use super::suggest::nearest;
use super::words::{MAX_INTERFACE, file_url_path, hostname_fault, is_interface, is_user};
use crate::desired::{Power, Until};

/// Name of the node that names the project.
pub(super) const PROJECT_NODE: &str = "project";

/// Reads the whole tree. The file holds what could be read, the faults tell the rest.
pub(super) fn decode(nodes: &[Node]) -> (File, Vec<Fault>) {
    let mut fields = Fields::default();
    let mut file = File::default();
    let mut names: HashMap<String, SourceSpan> = HashMap::new();
    for node in fields.known(nodes, "at the top level", &TOP) {
        match node.name.value.as_str() {
            PROJECT_NODE => {
                let text = fields.leaf_text(node, &PROJECT);
                file.project = text.and_then(|text| fields.name("project", text));
                continue;
            }
            "moved" => {
                file.moved.extend(fields.moved(node));
                continue;
            }
            "removed" => {
                file.removed.extend(fields.removed(node));
                continue;
            }
            _ => {}
        }
        let (written, vm) = fields.vm(node);
        let Some(written) = written else { continue };
        file.declared.push(written.clone());
        match names.get(&written.value) {
            Some(first) => fields.tell(
                Fault::error(
                    "vmfile::duplicate",
                    format!("the machine `{}` is written twice", shorten(&written.value)),
                )
                .at(written.span, "again here")
                .at(*first, "first here")
                .help("give each machine a name of its own"),
            ),
            None => {
                names.insert(written.value, written.span);
                file.vms.extend(vm);
            }
        }
    }
    if fields.faults.is_empty() && file.declared.is_empty() && file.removed.is_empty() {
        fields.tell(
            Fault::error("vmfile::missing", "no machine is described")
                .at((0, 0).into(), "a `vm` node must be here")
                .help(format!("write {}", VM.usage)),
        );
    }
    (file, fields.faults)
}

/// The two nodes, the one that stands first in the text first.
fn in_text_order<'n>(one: &'n Node, other: &'n Node) -> (&'n Node, &'n Node) {
    if one.name.span.offset() < other.name.span.offset() { (one, other) } else { (other, one) }
}

/// A node that was already told to be a misspelling of `image`.
fn is_misspelt_image(node: &Node) -> bool {
    nearest(&node.name.value, VM.block.iter().copied()).is_some_and(|near| near.starts_with("image"))
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

    /// The machine's name as written, and the machine if the name is valid.
    fn vm(&mut self, node: &Node) -> (Option<Spanned<String>>, Option<Vm>) {
        let parts = self.open(node, &VM);
        let written = match parts.args.first() {
            Some(value) => match &value.scalar {
                // An empty name has its own words in the grammar of names.
                super::source::Scalar::Text(text) => Some(Spanned { value: text.clone(), span: value.span }),
                _ => self.text("vm", value, VM.usage),
            },
            None => {
                self.tell(
                    Fault::error("vmfile::missing", "a machine has no name")
                        .at(node.name.span, "a name must follow")
                        .help(format!("write {}", VM.usage)),
                );
                None
            }
        };
        let name = written.clone().and_then(|text| self.name("machine", text));
        let vm = self.vm_body(&parts, name);
        (written, vm)
    }

    /// Decodes the block even if there is no valid name, so that its faults are told too.
    fn vm_body(&mut self, parts: &Parts<'_>, name: Option<Spanned<Name>>) -> Option<Vm> {
        let image = self.image(parts);
        let vcpus = self.leaf_whole(parts, "vcpus", &VCPUS, 1..=MAX_VCPUS, VCPUS_UNIT);
        let memory_mib = self.leaf_whole(parts, "memory", &MEMORY, 16..=MAX_MEMORY, MEMORY_UNIT);
        let disk_gib = self.leaf_whole(parts, "disk", &DISK, 1..=MAX_DISK, DISK_UNIT);
        let network = parts.child("network").and_then(|node| self.network(node));
        let cloud_init = parts.child("cloud-init").map(|node| self.cloud_init(node));
        let ssh = parts.child("ssh").map(|node| self.ssh(node));
        let provision = parts.children("provision").map(|node| self.provision(node)).collect();
        let backend = parts.child("backend").and_then(|node| self.backend(node));
        let power = parts.child("state").and_then(|node| self.power(node));
        let depends_on = parts.children("depends-on").flat_map(|node| self.depends_on(node)).collect();
        let forwards = parts.children("forward").filter_map(|node| self.forward(node)).collect();
        let lifecycle = parts.child("lifecycle").map(|node| self.lifecycle(node));
        let ready = parts.child("ready").map(|node| self.ready(node));
        let checks = self.checks(parts);
        Some(Vm {
            name: name?,
            image,
            vcpus: vcpus.and_then(|n| Some(Spanned { value: u16::try_from(n.value).ok()?, span: n.span })),
            memory_mib,
            disk_gib,
            network,
            cloud_init,
            ssh,
            provision,
            backend,
            power,
            depends_on,
            forwards,
            lifecycle,
            ready,
            checks,
        })
    }

    fn leaf_whole(
        &mut self,
        parts: &Parts<'_>,
        name: &str,
        shape: &Shape,
        range: std::ops::RangeInclusive<u64>,
        unit: Unit,
    ) -> Option<Spanned<u64>> {
        let leaf = self.open(parts.child(name)?, shape);
        let value = self.only_value(&leaf, shape)?;
        self.whole(name, value, range, unit)
    }

    fn image(&mut self, parts: &Parts<'_>) -> Option<Spanned<Image>> {
        match (parts.child("image"), parts.child("image-url")) {
            (Some(path), Some(url)) => {
                let (first, second) = in_text_order(path, url);
                self.tell(
                    Fault::error("vmfile::duplicate", "a machine has one image")
                        .at(second.name.span, "again here")
                        .at(first.name.span, "first here")
                        .help("keep either `image` or `image-url`"),
                );
                None
            }
            (Some(node), None) => {
                let text = self.leaf_text(node, &IMAGE)?;
                Some(Spanned { value: Image::Path(text.value), span: text.span })
            }
            (None, Some(node)) => {
                let text = self.leaf_text(node, &IMAGE_URL)?;
                self.image_url(text)
            }
            (None, None) if parts.node.children.iter().flatten().any(is_misspelt_image) => None,
            (None, None) => {
                let name = &parts.node.name;
                self.tell(
                    Fault::error("vmfile::missing", "a machine has no image")
                        .at(name.span, "its block has no `image`")
                        .help("write `image \"debian.qcow2\"` in its block, with the path of a disk image"),
                );
                None
            }
        }
    }

    fn image_url(&mut self, text: Spanned<String>) -> Option<Spanned<Image>> {
        let (scheme, rest) = text.value.split_once("://").unwrap_or(("", &text.value));
        let (code, message, help) = match scheme.to_ascii_lowercase().as_str() {
            "file" => match file_url_path(rest) {
                Ok(path) => return Some(Spanned { value: Image::FileUrl(path), span: text.span }),
                Err(help) => ("vmfile::bad-value", "this file URL cannot be used".to_owned(), help),
            },
            known @ ("http" | "https" | "oci") => (
                "vmfile::unsupported",
                format!("images from {known}:// are not yet supported"),
                "download the image and use a local image path: `image \"debian.qcow2\"`",
            ),
            "" => (
                "vmfile::bad-value",
                "`image-url` takes a URL, this has no `://`".to_owned(),
                "write `image` instead of `image-url` for a path",
            ),
            other => (
                "vmfile::bad-value",
                format!("`{}` is not a known kind of URL", shorten(other)),
                "write `image-url \"file:///images/debian.qcow2\"`, or `image` with a path",
            ),
        };
        self.tell(Fault::error(code, message).at(text.span, "this URL").help(help));
        None
    }

    fn backend(&mut self, node: &Node) -> Option<Spanned<BackendTag>> {
        let text = self.leaf_text(node, &BACKEND)?;
        self.choice("backend", &text, &BackendTag::ALL.map(|tag| (tag.as_str(), tag)))
    }

    fn power(&mut self, node: &Node) -> Option<Spanned<Power>> {
        let text = self.leaf_text(node, &STATE)?;
        let table =
            [("running", Power::Running), ("stopped", Power::Stopped), ("suspended", Power::Suspended)];
        self.choice("state", &text, &table)
    }

    fn network(&mut self, node: &Node) -> Option<Spanned<NetworkConfig>> {
        #[derive(Clone, Copy, PartialEq)]
        enum Kind {
            User,
            Tap,
            Vnic,
            None,
        }
        let parts = self.open(node, &NETWORK);
        let kind = match parts.args.first() {
            None => Spanned { value: Kind::User, span: node.name.span },
            Some(value) => {
                let text = self.text("network", value, NETWORK.usage)?;
                let table =
                    [("user", Kind::User), ("tap", Kind::Tap), ("vnic", Kind::Vnic), ("none", Kind::None)];
                self.choice("kind of network", &text, &table)?
            }
        };
        let bridge = self.interface(&parts, "bridge", &BRIDGE);
        let name = self.interface(&parts, "name", &VNIC_NAME);
        let misused = [("bridge", &bridge, Kind::Tap, "tap"), ("name", &name, Kind::Vnic, "vnic")];
        for (option, given, owner, word) in misused {
            if let Some(given) = given.as_ref().filter(|_| kind.value != owner) {
                self.tell(
                    Fault::error("vmfile::network", format!("`{option}` belongs to `network \"{word}\"`"))
                        .at(given.span, "has no meaning here")
                        .help(format!("remove it, or write {}", NETWORK.usage)),
                );
            }
        }
        let given_text = |given: Option<Given>| given.map(|given| given.text);
        let value = match kind.value {
            Kind::User => NetworkConfig::User,
            Kind::None => NetworkConfig::None,
            Kind::Tap => match given_text(bridge) {
                None => NetworkConfig::Tap { bridge: "br0".to_owned() },
                Some(bridge) => NetworkConfig::Tap { bridge: bridge? },
            },
            Kind::Vnic => match given_text(name) {
                Some(name) => NetworkConfig::Vnic { name: name? },
                None => {
                    self.tell(
                        Fault::error("vmfile::missing", "a vnic network has no name")
                            .at(kind.span, "needs `name`")
                            .help("write `network \"vnic\" name=\"vnic0\"`"),
                    );
                    return None;
                }
            },
        };
        Some(Spanned { value, span: kind.span })
    }

    /// The name of an interface, as a property or as a child node; both mean the same.
    fn interface(&mut self, parts: &Parts<'_>, option: &str, shape: &Shape) -> Option<Given> {
        let from_prop = parts.prop(option).map(|value| (value.span, self.text(option, value, shape.usage)));
        let from_child = parts.child(option).map(|node| (node.name.span, self.leaf_text(node, shape)));
        if let (Some((prop, _)), Some((child, _))) = (&from_prop, &from_child) {
            self.tell(
                Fault::error("vmfile::duplicate", format!("`{option}` is written twice"))
                    .at(*child, "again here")
                    .at(*prop, "first here")
                    .help("keep either the property or the node"),
            );
        }
        let (span, text) = from_prop.or(from_child)?;
        let text = text.filter(|text| {
            let valid = is_interface(&text.value);
            if !valid {
                let message = format!("`{}` is not the name of a network interface", shorten(&text.value));
                let help = format!(
                    "letters, digits, `-`, `_` and `.`, at most {MAX_INTERFACE} characters, first a letter or digit"
                );
                self.tell(Fault::error("vmfile::bad-name", message).at(text.span, "not a name").help(help));
            }
            valid
        });
        Some(Given { span, text: text.map(|text| text.value) })
    }

    fn cloud_init(&mut self, node: &Node) -> CloudInit {
        let parts = self.open(node, &CLOUD_INIT);
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
        let parts = self.open(node, &SSH);
        let user = parts.child("user").and_then(|node| self.leaf_text(node, &USER)).filter(|text| {
            let valid = is_user(&text.value);
            if !valid {
                self.tell(
                    Fault::error(
                        "vmfile::bad-name",
                        format!("`{}` is not a user name", shorten(&text.value)),
                    )
                    .at(text.span, "not a user name")
                    .help("small letters, digits, `_` and `-`, at most 32, first a letter or `_`"),
                );
            }
            valid
        });
        let private_key = parts.child("private-key").and_then(|node| self.leaf_text(node, &PRIVATE_KEY));
        Ssh { span: node.name.span, user, private_key }
    }

    fn provision(&mut self, node: &Node) -> Provision {
        let parts = self.open(node, &PROVISION);
        let kind = match parts.args.first() {
            None => Some(false),
            Some(value) => self
                .text("provision", value, PROVISION.usage)
                .and_then(|text| {
                    self.choice("kind of provisioning", &text, &[("shell", false), ("file", true)])
                })
                .map(|kind| kind.value),
        };
        let action =
            kind.and_then(|is_file| if is_file { self.file_step(&parts) } else { self.shell_step(&parts) });
        Provision { span: node.name.span, action }
    }

    fn shell_step(&mut self, parts: &Parts<'_>) -> Option<Action> {
        self.foreign_children(parts, &["source", "destination"], "shell", SHELL_USAGE);
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
        self.foreign_children(parts, &["inline", "script"], "file", FILE_USAGE);
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
        let parts = self.open(node, &DEPENDS_ON);
        self.only_value(&parts, &DEPENDS_ON);
        let table =
            [("started", Until::Started), ("ready", Until::Ready), ("provisioned", Until::Provisioned)];
        let until = parts
            .prop("until")
            .and_then(|value| self.text("until", value, DEPENDS_ON.usage))
            .and_then(|text| self.choice("condition", &text, &table))
            .map_or(Until::Provisioned, |until| until.value);
        let names = parts.args.iter().filter_map(|value| self.text("depends-on", value, DEPENDS_ON.usage));
        names.map(|name| Dependency { name, until }).collect()
    }

    fn forward(&mut self, node: &Node) -> Option<Spanned<Forward>> {
        let parts = self.open(node, &FORWARD);
        let mut port = |name: &str, low: u64| {
            let value = parts.prop(name)?;
            Some(self.whole(name, value, low..=65_535, PORT_UNIT).and_then(|n| u16::try_from(n.value).ok()))
        };
        let host = port("host", 0);
        let guest = port("guest", 1);
        if guest.is_none() && parts.sound {
            self.tell(
                Fault::error("vmfile::missing", "a forward has no guest port")
                    .at(node.name.span, "needs `guest`")
                    .help(format!("write {}", FORWARD.usage)),
            );
        }
        let protocol = match parts.prop("protocol") {
            None => Some(Protocol::Tcp),
            Some(value) => self
                .text("protocol", value, "`protocol=\"tcp\"`")
                .and_then(|text| {
                    self.choice("protocol", &text, &[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)])
                })
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

/// An option of a network that was written, valid or not.
struct Given {
    span: SourceSpan,
    text: Option<String>,
}

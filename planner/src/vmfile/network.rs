//! Networks: what a machine is connected to, and the networks between machines.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;

use miette::SourceSpan;
use vmctl_providers::{BackendTag, Name, NetworkConfig};

use super::ast::{Node, Spanned, Value};
use super::expand::unused;
use super::fields::{Fields, Parts, shorten};
use super::grammar::{
    BRIDGE, ISOLATED, NETWORK, NETWORK_NAME, NETWORKS, NetworkKind, PRIVATE_NETWORK, SUBNET, Shape,
};
use super::readiness;
use super::report::Fault;
use super::resolve::{Resolver, unknown};
use super::typed::{File, Network, Vm};
use super::words::{MAX_INTERFACE, is_interface, subnet};
use crate::desired::{PrivateNetwork, Subnet, USER_NETWORK};

impl Fields {
    pub(super) fn private_network(&mut self, node: &Node) -> Option<Network> {
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

    pub(super) fn network(&mut self, node: &Node) -> Option<Spanned<NetworkConfig>> {
        let parts = Parts::of(node);
        let kind = match parts.args.first() {
            None => Spanned { value: NetworkKind::User, span: node.name.span },
            Some(value) => {
                let text = self.text("network", value, NETWORK.usage)?;
                self.choice("kind of network", &text, &NETWORKS)?
            }
        };
        let told = self.faults.len();
        let isolated = self.isolated(&parts, &kind);
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
        let vnic = vnic.and_then(|given| self.interface(given, &NETWORK_NAME));
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
            NetworkKind::User if isolated => NetworkConfig::Isolated,
            NetworkKind::User => NetworkConfig::User,
            NetworkKind::None => NetworkConfig::None,
            NetworkKind::Tap => NetworkConfig::Tap { bridge: bridge.unwrap_or_else(|| "br0".to_owned()) },
            NetworkKind::Vnic => NetworkConfig::Vnic { name: vnic? },
            NetworkKind::Private => NetworkConfig::Private { name: private?.value, address, link: None },
        };
        Some(Spanned { value, span: kind.span })
    }

    /// Whether a network is `isolated`, which only a user network can be.
    fn isolated(&mut self, parts: &Parts<'_>, kind: &Spanned<NetworkKind>) -> bool {
        let Some(value) = parts.args.get(1) else { return false };
        let word = self.text("network", value, NETWORK.usage);
        let Some(word) = word.and_then(|text| self.choice("option of `network`", &text, &[(ISOLATED, ())]))
        else {
            return false;
        };
        if kind.value != NetworkKind::User {
            self.tell(
                Fault::error("vmfile::network", "`isolated` belongs to `network \"user\"`")
                    .at(word.span, "has no meaning here")
                    .help("remove it: only a user network has a way out that could be closed"),
            );
        }
        true
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
}

impl Resolver<'_> {
    /// The network cards of `vm`.
    pub(super) fn cards(&mut self, vm: &Vm, backend: BackendTag) -> Vec<NetworkConfig> {
        let written = &vm.networks;
        let none = written.iter().find(|network| network.value == NetworkConfig::None);
        if let Some(none) = none
            && let Some(other) = written.iter().find(|network| !std::ptr::eq(*network, none))
        {
            self.tell(
                Fault::error("vmfile::network", "`network \"none\"` stands beside another network")
                    .at(none.span, "no network")
                    .at(other.span, "a network")
                    .help("keep one of them"),
            );
        }
        let mut users = written.iter().filter(|network| network.value.is_user());
        if let (Some(first), Some(second)) = (users.next(), users.next()) {
            self.tell(
                Fault::error("vmfile::duplicate", "a machine has one user network")
                    .at(second.span, "again here")
                    .at(first.span, "first here")
                    .help("keep one of them"),
            );
        }
        let vnic = written.iter().find(|network| matches!(network.value, NetworkConfig::Vnic { .. }));
        if let Some(vnic) = vnic.filter(|_| backend == BackendTag::Qemu) {
            self.tell(
                Fault::error("vmfile::network", "QEMU has no vnic networks: they belong to illumos")
                    .at(vnic.span, "cannot work")
                    .help("use another network, or `backend \"propolis\"`"),
            );
        }
        let is_user = written.is_empty() || written.iter().any(|network| network.value.is_user());
        if let Some(forward) = vm.forwards.first().filter(|_| !is_user)
            && let Some(network) = written.first()
        {
            let message = format!("a forward needs a user network, this one is `{}`", kind(&network.value));
            self.tell(
                Fault::error("vmfile::network", message)
                    .at(forward.span, "cannot work")
                    .at(network.span, "this network")
                    .help("use `network \"user\"`, or remove the forward"),
            );
        }
        let first = written.first().filter(|_| !written.iter().any(|network| network.value.reaches_guest()));
        if let Some(out_of_reach) = first {
            let ssh = vm.ssh.as_ref().map(|ssh| (ssh.span, "ssh"));
            let steps = vm.provision.first().map(|step| (step.span, "provisioning"));
            let probes = readiness::first_in_need_of_a_login(vm).map(|probe| (probe.span, probe.value));
            for (span, what) in ssh.into_iter().chain(steps).chain(probes) {
                self.tell(if none.is_some() {
                    Fault::error("vmfile::network", format!("{what} needs a network, and there is none"))
                        .at(span, "cannot work")
                        .at(out_of_reach.span, "no network")
                        .help("use `network \"user\"`, or remove it")
                } else {
                    let message = format!(
                        "{what} needs a network through which this host reaches the machine; a private one leads to \
                         other machines only"
                    );
                    Fault::error("vmfile::network", message)
                        .at(span, "cannot work")
                        .at(out_of_reach.span, "this host is not part of it")
                        .help("add `network \"user\"`, or `network \"user\" isolated` to give it no way out")
                });
            }
        }
        if written.is_empty() {
            vec![NetworkConfig::User]
        } else {
            written.iter().map(|network| network.value.clone()).collect()
        }
    }

    /// The private networks, and everything that is wrong with them and with who is in them.
    pub(super) fn networks(&mut self, file: &File) -> BTreeMap<Name, PrivateNetwork> {
        self.overlaps(file);
        let known: HashMap<&Name, &Network> =
            file.networks.iter().map(|network| (&network.name.value, network)).collect();
        let mut members: HashMap<(&Name, &Name), SourceSpan> = HashMap::new();
        let mut taken: HashMap<(&Name, Ipv4Addr), SourceSpan> = HashMap::new();
        let mut used: HashSet<&Name> = HashSet::new();
        let mut unstated: HashMap<&Name, (Ipv4Addr, SourceSpan)> = HashMap::new();
        let mut sizes: HashMap<&Name, u64> = HashMap::new();
        for (vm, card) in file.vms.iter().flat_map(|vm| vm.networks.iter().map(move |card| (vm, card))) {
            let NetworkConfig::Private { name, address, .. } = &card.value else { continue };
            let Some(network) = known.get(name) else {
                let names = file.networks.iter().map(|network| network.name.value.as_str());
                self.tell(unknown("network", name.as_str(), card.span, names, "`network \"lan\"`"));
                continue;
            };
            used.insert(name);
            self.faults.extend(beside_user_network(vm, network, card.span));
            *sizes.entry(name).or_insert(0_u64) += 1;
            if let Some(first) = members.insert((name, &vm.name.value), card.span) {
                let message = format!("`{}` is in the network `{name}` twice", vm.name.value);
                self.tell(
                    Fault::error("vmfile::duplicate", message)
                        .at(card.span, "again here")
                        .at(first, "first here")
                        .help("keep one of them"),
                );
            }
            let Some(address) = *address else { continue };
            self.faults.extend(unfit(address, network, card.span));
            if network.subnet.is_none() {
                let first = *unstated.entry(name).or_insert((address, card.span));
                self.faults.extend(adrift(address, card.span, first, network));
            }
            if let Some(first) = taken.insert((name, address), card.span) {
                let message = format!("the address {address} is given twice in the network `{name}`");
                self.tell(
                    Fault::error("vmfile::duplicate", message)
                        .at(card.span, "again here")
                        .at(first, "first here")
                        .help("give each machine an address of its own, or leave them out"),
                );
            }
        }
        for network in file.networks.iter().filter(|network| !used.contains(&network.name.value)) {
            let name = Spanned { value: network.name.value.as_str(), span: network.name.span };
            self.tell(unused("network", &name, &format!("`network \"private\" name=\"{}\"`", name.value)));
        }
        for network in &file.networks {
            let (members, subnet) = (sizes.get(&network.name.value), network.subnet.as_ref());
            if let (Some(members), Some(subnet)) = (members, subnet)
                && *members > subnet.value.machines()
            {
                let (most, name) = (subnet.value.machines(), &network.name.value);
                let message = format!("the network `{name}` has {members} machines and addresses for {most}");
                self.tell(
                    Fault::error("vmfile::network", message)
                        .at(subnet.span, "too small")
                        .help("write a smaller number behind the `/`: one less doubles the addresses"),
                );
            }
        }
        let network = |network: &Network| {
            let subnet = network.subnet.as_ref().map(|subnet| subnet.value);
            (network.name.value.clone(), PrivateNetwork { subnet })
        };
        file.networks.iter().map(network).collect()
    }

    fn overlaps(&mut self, file: &File) {
        let mut earlier: Vec<&Spanned<Subnet>> = Vec::new();
        for subnet in file.networks.iter().filter_map(|network| network.subnet.as_ref()) {
            if let Some(other) = earlier.iter().find(|other| other.value.overlaps(subnet.value)) {
                let message = format!("the networks {} and {} overlap", subnet.value, other.value);
                self.tell(
                    Fault::error("vmfile::network", message)
                        .at(subnet.span, "overlaps")
                        .at(other.span, "with this one")
                        .help("give each network addresses of its own"),
                );
            }
            earlier.push(subnet);
        }
    }
}

/// A guest cannot tell apart two of its networks that have the same addresses.
fn beside_user_network(vm: &Vm, network: &Network, card: SourceSpan) -> Option<Fault> {
    let subnet = network.subnet.as_ref().filter(|subnet| subnet.value.overlaps(USER_NETWORK))?;
    let user = vm.networks.iter().find(|network| network.value.is_user())?;
    let message = format!(
        "the network `{}`, {}, overlaps {USER_NETWORK}, the user network of `{}`",
        network.name.value, subnet.value, vm.name.value
    );
    Some(
        Fault::error("vmfile::network", message)
            .at(card, "in this one")
            .at(user.span, "and in a user network")
            .at(subnet.span, "overlaps")
            .help("choose another subnet, such as `10.77.0.0/24`, or leave it out"),
    )
}

/// An address that no machine of `network` can have.
fn unfit(address: Ipv4Addr, network: &Network, card: SourceSpan) -> Option<Fault> {
    let subnet = network.subnet.as_ref()?;
    let wrong = match address {
        _ if !subnet.value.contains(address) => "is not in",
        _ if address == subnet.value.network => "is the first address of",
        _ if address == subnet.value.broadcast() => "is the broadcast address of",
        _ => return None,
    };
    let message =
        format!("the address {address} {wrong} the network `{}`, {}", network.name.value, subnet.value);
    Some(
        Fault::error("vmfile::network", message)
            .at(card, "this card")
            .at(subnet.span, "its network")
            .help("choose another address, or leave it out"),
    )
}

/// An address that cannot be in the network around the `first` one that is written for it.
fn adrift(
    address: Ipv4Addr,
    card: SourceSpan,
    first: (Ipv4Addr, SourceSpan),
    network: &Network,
) -> Option<Fault> {
    let around = Subnet { network: first.0, prefix: 24 };
    if address.is_private() && around.is_for_machine(address) {
        return None;
    }
    let name = &network.name.value;
    let message = format!("which addresses the network `{name}` has does not follow from {address}");
    let mut fault = Fault::error("vmfile::network", message).at(card, "this card");
    if first.1 != card {
        fault = fault.at(first.1, format!("{} is in another range", first.0));
    }
    Some(fault.at(network.name.span, "its network says nothing").help(format!(
        "give it a subnet, such as `network \"{name}\" {{ subnet \"10.77.0.0/24\"; }}`, and the machine an address in it"
    )))
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

/// The kind of a network as written.
fn kind(network: &NetworkConfig) -> &'static str {
    match network {
        NetworkConfig::User | NetworkConfig::Isolated => "user",
        NetworkConfig::Private { .. } => "private",
        NetworkConfig::Tap { .. } => "tap",
        NetworkConfig::Vnic { .. } => "vnic",
        NetworkConfig::None => "none",
    }
}

//! `forward`: ports of the host that lead to guests.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use miette::SourceSpan;
use vmctl_providers::Protocol;

use super::ast::{Node, Spanned};
use super::fields::{Fields, Parts};
use super::grammar::{FORWARD, PROTOCOLS};
use super::report::Fault;
use super::resolve::Resolver;
use super::typed::{File, Forward};

impl Fields {
    pub(super) fn forward(&mut self, node: &Node) -> Option<Spanned<Forward>> {
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
            None => Some(Protocol::Tcp),
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

impl Resolver<'_> {
    /// Fixed host ports are bound by one forward each; a forward on all addresses takes the port everywhere.
    pub(super) fn host_ports(&mut self, file: &File) {
        let mut taken: HashMap<(Protocol, u16), Vec<(IpAddr, SourceSpan)>> = HashMap::new();
        for written in file.vms.iter().flat_map(|vm| &vm.forwards) {
            let forward = &written.value;
            if !forward.address.is_loopback() {
                let what = if forward.address.is_unspecified() {
                    "all networks of this host".to_owned()
                } else {
                    format!("the network of {}", forward.address)
                };
                self.tell(
                    Fault::warning("vmfile::exposed", format!("a port of the guest is exposed to {what}"))
                        .at(written.span, "reachable from other hosts")
                        .help("leave `address` out to reach it from this host only"),
                );
            }
            if forward.host == 0 {
                continue;
            }
            let holders = taken.entry((forward.protocol, forward.host)).or_default();
            let clash = holders.iter().find(|(address, _)| {
                *address == forward.address || address.is_unspecified() || forward.address.is_unspecified()
            });
            if let Some((_, earlier)) = clash {
                let (port, protocol) = (forward.host, forward.protocol.as_str());
                self.faults.push(
                    Fault::error(
                        "vmfile::duplicate",
                        format!("port {port}/{protocol} of this host is forwarded twice"),
                    )
                    .at(written.span, "again here")
                    .at(*earlier, "first here")
                    .help("use another host port, or leave `host` out: a free port is then chosen at start"),
                );
            } else {
                holders.push((forward.address, written.span));
            }
        }
    }
}

pub(super) fn forward_of(written: &Forward) -> vmctl_providers::Forward {
    vmctl_providers::Forward {
        protocol: written.protocol,
        host_address: written.address,
        host_port: written.host,
        guest_port: written.guest,
    }
}

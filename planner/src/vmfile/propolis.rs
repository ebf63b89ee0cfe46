//! `backend "propolis" { … }`: what only that backend needs to know, and what it cannot do.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};

use miette::SourceSpan;
use vmctl_providers::propolis::{MOST_NICS, MOST_VCPUS};
use vmctl_providers::{BackendTag, NetworkConfig, PropolisOptions, ZoneOptions};

use super::ast::{Node, Spanned};
use super::fields::{Fields, Parts, shorten};
use super::grammar::{API_VERSION, BINARY, BOOTROM, POOL, SERVER, Shape, Type, VNIC_LINK, ZONE};
use super::report::Fault;
use super::resolve::Resolver;
use super::typed::{Propolis, Vm};
use crate::desired::{AccelChoice, Firmware, Power};

/// The longest name of a link on illumos.
const LONGEST_LINK: usize = 31;

impl Fields {
    /// The block of a `backend` node.
    pub(super) fn propolis(&mut self, node: &Node) -> Option<Propolis> {
        let parts = Parts::of(node);
        let first = parts.block().first()?;
        let server = parts.child(SERVER.name).and_then(|node| self.server(node));
        let mut text = |shape: &Shape| parts.child(shape.name).and_then(|node| self.leaf_text(node, shape));
        let (binary, bootrom) = (text(&BINARY), text(&BOOTROM));
        let (api_version, pool, link) = (text(&API_VERSION), text(&POOL), text(&VNIC_LINK));
        let api_version = api_version
            .filter(|text| self.fits(text, &API_VERSION, is_version, "three numbers with dots between"));
        let pool = pool.filter(|text| {
            self.fits(text, &POOL, is_dataset, "letters, digits and `-_.:`, with `/` between the parts")
        });
        let vnic_link = link.filter(|text| {
            self.fits(text, &VNIC_LINK, is_link, "letters, digits and `_`, at most 31, the last one a digit")
        });
        let zone = parts.child(ZONE.name).and_then(|node| self.zone(node));
        Some(Propolis { span: first.name.span, server, binary, bootrom, api_version, pool, vnic_link, zone })
    }

    /// A zone: its template, and how the server is reached in it.
    fn zone(&mut self, node: &Node) -> Option<Spanned<ZoneOptions>> {
        let parts = Parts::of(node);
        let template = self.leaf_text(node, &ZONE).filter(|text| {
            self.fits(text, &ZONE, is_zone, "letters, digits and `-_.`, at most 63, the first one no sign")
        });
        let [link, address] = ["link", "address"].map(|name| {
            let value = parts.prop(name);
            if value.is_none() && parts.sound {
                let message = format!("a `zone` has no `{name}`");
                let fault = Fault::error("vmfile::missing", message);
                self.tell(fault.at(node.name.span, "needs it").help(format!("write {}", ZONE.usage)));
            }
            self.text(name, value?, ZONE.usage)
        });
        let link = link.filter(|text| {
            self.fits(text, &VNIC_LINK, is_link, "letters, digits and `_`, at most 31, the last one a digit")
        });
        let network = address.and_then(|text| {
            let network = card_address(&text.value);
            if network.is_none() {
                let message = format!("`{}` is no address with its network's bits", shorten(&text.value));
                let fault = Fault::error("vmfile::bad-value", message).at(text.span, "cannot be one");
                self.tell(fault.help(format!("write {}", ZONE.usage)));
            }
            network
        });
        const PORTS: Type = Type::Whole { low: 1, high: 65_535 };
        let port = match parts.prop("port") {
            None => ZoneOptions::PORT,
            Some(value) => {
                let port = self.whole("port", value, PORTS, "`port=12400`")?;
                u16::try_from(port.value).ok()?
            }
        };
        let (template, (address, prefix)) = (template?, network?);
        let value = ZoneOptions { template: template.value, link: link?.value, address, prefix, port };
        Some(Spanned { value, span: template.span })
    }

    fn server(&mut self, node: &Node) -> Option<Spanned<SocketAddr>> {
        let text = self.leaf_text(node, &SERVER)?;
        if let Ok(value) = text.value.parse() {
            return Some(Spanned { value, span: text.span });
        }
        self.tell(
            Fault::error(
                "vmfile::bad-value",
                format!("`{}` is no address with a port", shorten(&text.value)),
            )
            .at(text.span, "not an address with a port")
            .help(format!("write {}; a name is not looked up", SERVER.usage)),
        );
        None
    }

    fn fits(&mut self, text: &Spanned<String>, shape: &Shape, is_fit: fn(&str) -> bool, rule: &str) -> bool {
        let fits = is_fit(&text.value);
        if !fits {
            let message = format!("`{}` cannot be a `{}`", shorten(&text.value), shape.name);
            let help = format!("it consists of {rule}, such as {}", shape.usage);
            self.tell(Fault::error("vmfile::bad-value", message).at(text.span, "cannot be one").help(help));
        }
        fits
    }
}

fn is_version(text: &str) -> bool {
    let parts: Vec<_> = text.split('.').collect();
    parts.len() == 3 && parts.iter().all(|part| part.len() <= 9 && part.parse::<u32>().is_ok())
}

fn is_dataset(text: &str) -> bool {
    // zfs(8) allows 255 characters, and names of volumes follow.
    let is_part = |part: &str| {
        !part.is_empty()
            && part.starts_with(|sign: char| sign.is_ascii_alphanumeric())
            && part.chars().all(|sign| sign.is_ascii_alphanumeric() || "-_.:".contains(sign))
    };
    text.len() <= 200 && text.split('/').all(is_part)
}

/// Whether illumos can call a link so.
fn is_link(text: &str) -> bool {
    text.len() <= LONGEST_LINK
        && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.ends_with(|last: char| last.is_ascii_digit())
        && text.chars().all(|sign| sign.is_ascii_alphanumeric() || sign == '_')
}

/// Whether illumos can call a zone so.
fn is_zone(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|sign| sign.is_ascii_alphanumeric() || "-_.".contains(sign))
}

/// An address that a card can have, and the bits of its network.
fn card_address(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let (address, prefix): (Ipv4Addr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
    let is_card = !(address.is_unspecified() || address.is_multicast() || address.is_broadcast());
    (is_card && (1..=32).contains(&prefix)).then_some((address, prefix))
}

impl Resolver<'_> {
    /// What `vm` says about its propolis-server. Tells what Propolis cannot do and the machine asks for; of the networks
    /// `network` tells.
    pub(super) fn propolis(&mut self, vm: &Vm, backend: BackendTag) -> Option<PropolisOptions> {
        if backend != BackendTag::Propolis {
            if let Some(block) = &vm.propolis {
                let message = format!("the block of `backend` means nothing to `{backend}`");
                self.refuse(block.span, message, "remove the block, or write `backend \"propolis\"`");
            }
            return Some(PropolisOptions::default());
        }
        self.beyond(vm);
        let Some(block) = &vm.propolis else {
            if let Some(backend) = &vm.backend {
                self.refuse(
                    backend.span,
                    "a machine of `propolis` has neither a server nor what starts one".to_owned(),
                    "add a block: `backend \"propolis\" { bootrom \"OVMF_CODE.fd\"; }` lets vmctl start a server, `{ server \
                     \"127.0.0.1:12400\"; }` names one that runs",
                );
            }
            return None;
        };
        match (&block.server, &block.bootrom) {
            (None, None) => self.refuse(
                block.span,
                "a propolis-server that vmctl starts needs a `bootrom`".to_owned(),
                "name the UEFI image that guests boot with, `bootrom \"OVMF_CODE.fd\"`, or a `server` that runs",
            ),
            (Some(_), bootrom) => {
                let span = |written: &Option<Spanned<String>>| written.as_ref().map(|written| written.span);
                let zone = block.zone.as_ref().map(|zone| zone.span);
                let started =
                    [(span(bootrom), BOOTROM.name), (span(&block.binary), BINARY.name), (zone, ZONE.name)];
                for (span, name) in started {
                    if let Some(span) = span {
                        let message = format!("`{name}` means nothing where a `server` runs already");
                        self.refuse(span, message, "keep one of them");
                    }
                }
            }
            (None, Some(_)) => {}
        }
        if let Some(zone) = &block.zone {
            self.within_zone(block, zone);
        }
        let text = |written: &Option<Spanned<String>>| written.as_ref().map(|text| text.value.clone());
        let mut path = |what, written: &Option<Spanned<String>>| match written {
            None => Some(None),
            Some(written) => match self.path(written) {
                Ok(path) => Some(Some(path)),
                Err(error) => {
                    self.unreadable(what, written, &error);
                    None
                }
            },
        };
        Some(PropolisOptions {
            server: block.server.as_ref().map(|server| server.value),
            binary: path("program", &block.binary)?,
            bootrom: path("bootrom", &block.bootrom)?,
            api_version: text(&block.api_version),
            pool: text(&block.pool),
            vnic_link: text(&block.vnic_link),
            zone: block.zone.as_ref().map(|zone| zone.value.clone()),
        })
    }

    /// What a server in a zone cannot see.
    fn within_zone(&mut self, block: &Propolis, zone: &Spanned<ZoneOptions>) {
        if block.pool.is_none() {
            self.refuse(
                zone.span,
                "a server in a zone sees no files of the host, and this machine's disk would be one"
                    .to_owned(),
                "name the dataset of its disk: `pool \"rpool/vms\"`",
            );
        }
        for (written, name) in [(&block.bootrom, BOOTROM.name), (&block.binary, BINARY.name)] {
            if let Some(written) = written.as_ref().filter(|written| !written.value.starts_with('/')) {
                let message = format!("`{name}` is a path in the zone, and does not begin at its root");
                self.refuse(written.span, message, "write it from `/` on, as it is in the zone");
            }
        }
    }

    /// Machines that say that their servers are at the same place: one server has one machine.
    pub(super) fn distinct_servers<'v>(&mut self, vms: impl Iterator<Item = &'v Vm>) {
        let mut taken: HashMap<SocketAddr, SourceSpan> = HashMap::new();
        for vm in vms {
            let Some(block) = &vm.propolis else { continue };
            let zone = block.zone.as_ref().map(|zone| (zone.value.server(), zone.span));
            let server = block.server.as_ref().map(|server| (server.value, server.span));
            let Some((address, span)) = server.or(zone) else { continue };
            if let Some(first) = taken.insert(address, span) {
                let message =
                    format!("two machines have their server at {address}, and one server has one machine");
                let fault = Fault::error("vmfile::propolis", message).at(span, "this machine's");
                let fault = if first == span { fault } else { fault.at(first, "and that of another one") };
                self.tell(fault.help("give each its own; `{{ index }}` tells machines of one `vm` apart"));
            }
        }
    }

    /// What no propolis-server has.
    fn beyond(&mut self, vm: &Vm) {
        const REMOVE: &str = "remove it, or use `backend \"qemu\"`";
        let of = |written: &Option<Spanned<String>>| written.as_ref().map(|written| written.span);
        let bios = vm.firmware.as_ref().filter(|firmware| firmware.value == Firmware::Bios);
        let accel = vm.accel.as_ref().filter(|accel| accel.value != AccelChoice::Auto);
        let lacking: [(&str, Option<SourceSpan>); 11] = [
            (
                "arch",
                vm.arch
                    .as_ref()
                    .filter(|arch| arch.value != crate::desired::Arch::X86_64)
                    .map(|arch| arch.span),
            ),
            ("firmware \"bios\"", bios.map(|bios| bios.span)),
            ("kernel", of(&vm.kernel)),
            ("machine", of(&vm.machine)),
            ("cpu", of(&vm.cpu)),
            ("accel", accel.map(|accel| accel.span)),
            ("vnc", vm.vnc.as_ref().map(|vnc| vnc.span)),
            ("volume", vm.volumes.first().map(|volume| volume.span)),
            ("share", vm.shares.first().map(|share| share.source.span)),
            ("media", vm.media.first().map(|media| media.span)),
            ("forward", vm.forwards.first().map(|forward| forward.span)),
        ];
        for (name, span) in lacking {
            if let Some(span) = span {
                self.refuse(span, format!("Propolis has no `{name}` in this version of vmctl"), REMOVE);
            }
        }
        if let Some(power) = vm.power.as_ref().filter(|power| power.value == Power::Suspended) {
            let message =
                "a machine of Propolis cannot be suspended: its server has no request for it".to_owned();
            self.refuse(power.span, message, "use `state \"stopped\"`");
        }
        if let Some(vcpus) = vm.vcpus.as_ref().filter(|vcpus| vcpus.value > MOST_VCPUS) {
            self.refuse(
                vcpus.span,
                format!("a machine of Propolis has at most {MOST_VCPUS} vCPUs"),
                "these are the most on illumos as it is; Oxide's own may have more",
            );
        }
        if let Some(network) = vm.networks.get(MOST_NICS) {
            let message = format!("a machine of Propolis has at most {MOST_NICS} network cards");
            self.refuse(network.span, message, "remove those beyond");
        }
        for network in &vm.networks {
            match &network.value {
                NetworkConfig::None => {}
                NetworkConfig::Vnic { name } if is_link(name) => {}
                NetworkConfig::Vnic { name } => {
                    let message = format!("`{}` cannot be a vnic of illumos", shorten(name));
                    self.refuse(
                        network.span,
                        message,
                        "letters, digits and `_`, at most 31, the last one a digit, such as `web0`",
                    );
                }
                NetworkConfig::User
                | NetworkConfig::Isolated
                | NetworkConfig::Tap { .. }
                | NetworkConfig::Private { .. } => self.refuse(
                    network.span,
                    "Propolis has vnics, and no other networks".to_owned(),
                    "write `network \"vnic\" name=\"web0\"`, or `network \"none\"`",
                ),
            }
        }
        if let (Some(backend), true) = (&vm.backend, !vm.has_network) {
            self.refuse(
                backend.span,
                "a machine has a user network where it names none, and Propolis has no such".to_owned(),
                "add `network \"vnic\" name=\"web0\"`, or `network \"none\"`",
            );
        }
    }

    fn refuse(&mut self, span: SourceSpan, message: String, help: &str) {
        self.tell(Fault::error("vmfile::propolis", message).at(span, "cannot work").help(help));
    }
}

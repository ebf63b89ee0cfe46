//! The tap devices of one machine: before they are made, when they are made, and while QEMU has them.

use std::fmt::Display;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

use serde_json::Value;

use super::links::{Link, join, links, rejoin};
use super::maker::{Maker, Obstacle};
use super::{helper, tun};
use crate::abilities::Damage;
use crate::error::{Error, Result};
use crate::process::Process;
use crate::qemu::QemuBackend;
use crate::qemu::argv::netdev_id;
use crate::spec::{MacAddr, Machine, NetworkConfig};

/// A card that is on a bridge.
#[derive(Debug, Clone, Copy)]
pub(super) struct Card<'m> {
    /// Its place among all cards of its machine.
    index: usize,
    pub(super) mac: MacAddr,
    pub(super) bridge: &'m str,
}

/// The cards of `machine` that are on bridges, in their order.
pub(super) fn cards(machine: &Machine) -> Vec<Card<'_>> {
    let mut cards = Vec::new();
    for (index, nic) in machine.nics.iter().enumerate() {
        if let NetworkConfig::Tap { bridge } = &nic.network {
            cards.push(Card { index, mac: nic.mac, bridge });
        }
    }
    cards
}

impl QemuBackend {
    /// Refuses bridges that are not there or not up, and those that nobody here may give cards on. Makes nothing.
    pub(in crate::qemu) async fn check_bridges(&self, machine: &Machine) -> Result<()> {
        let cards = cards(machine);
        let links = if cards.is_empty() { return Ok(()) } else { links().await? };
        cards.into_iter().try_for_each(|card| self.maker(&links, card.bridge).map(drop))
    }

    /// Makes the tap devices of `machine`, in the order of its cards, each up and on its bridge. They are gone when the
    /// last process that has these files open ends.
    pub(in crate::qemu) async fn make_taps(&self, machine: &Machine) -> Result<Vec<OwnedFd>> {
        let mut taps = Vec::new();
        for card in cards(machine) {
            taps.push(self.make_tap(card).await?);
        }
        Ok(taps)
    }

    async fn make_tap(&self, Card { mac, bridge, .. }: Card<'_>) -> Result<OwnedFd> {
        let before = links().await?;
        let tap = match self.maker(&before, bridge)? {
            (Maker::Us, found) => {
                let name = device(mac);
                let tap = tun::make(&name)?;
                let joined = join(&name, &outer(mac).to_string(), found).await;
                joined.map_err(|error| lost(bridge, error))?;
                tap
            }
            (Maker::Helper(path), _) => helper::tap(&path, bridge).await?,
        };
        // A guest whose card leads nowhere would be noticed late.
        let Some(name) = device_of("self", tap.as_raw_fd()) else {
            return Err(lost(bridge, "the file that was opened for it is no tap device"));
        };
        match links().await?.iter().find(|link| link.name == name).map(|link| link.is_off(bridge)) {
            Some(None) => Ok(tap),
            Some(Some(place)) => Err(lost(bridge, format!("the tap device `{name}` of its card is {place}"))),
            None => Err(lost(
                bridge,
                format!("the tap device `{name}` of its card is in another network namespace"),
            )),
        }
    }

    /// Who makes devices for `bridge`, and what is known of it.
    fn maker<'l>(&self, links: &'l [Link], bridge: &str) -> Result<(Maker, &'l Link)> {
        let chosen = || {
            let found = usable(links, bridge)?;
            let maker = Maker::choose(self.config().bridge_helper.as_deref())?;
            maker.serves(bridge)?;
            Ok((maker, found))
        };
        chosen().map_err(|obstacle: Obstacle| obstacle.on(bridge))
    }

    /// The cards of a running machine that are not on their bridges any more.
    pub(in crate::qemu) async fn cut_off(&self, machine: &Machine, process: &Process) -> Result<Vec<Damage>> {
        let cards = cards(machine);
        let links = if cards.is_empty() { return Ok(Vec::new()) } else { links().await? };
        let args = process.arguments().map_err(Error::io("read", format!("/proc/{}", process.pid())))?;
        let place = |Card { index, bridge, .. }: Card<'_>| {
            let tap = device_of(process.pid(), tap_of(&args, index)?)?;
            // One that cannot be seen from here is in another network namespace, and may be well there.
            let found = links.iter().find(|link| link.name == tap)?.is_off(bridge)?;
            Some(Damage::OffBridge { tap, bridge: bridge.to_owned(), found })
        };
        Ok(cards.into_iter().filter_map(place).collect())
    }

    /// Puts cards of a running machine back on their bridges.
    pub(in crate::qemu) async fn put_back(&self, machine: &Machine, process: &Process) -> Result<()> {
        for damage in self.cut_off(machine, process).await? {
            if let Damage::OffBridge { tap, bridge, .. } = damage {
                rejoin(&tap, &bridge).await.map_err(|error| lost(&bridge, error))?;
            }
        }
        Ok(())
    }
}

/// The bridge of this name, if a card can be on it.
fn usable<'l>(links: &'l [Link], name: &str) -> Result<&'l Link, Obstacle> {
    let (reason, help) = match links.iter().find(|link| link.name == name) {
        Some(link) if link.is_bridge() && link.is_up() => return Ok(link),
        Some(link) if link.is_bridge() => {
            ("it is down".to_owned(), format!("bring it up: sudo ip link set {name} up"))
        }
        Some(_) => ("it is no bridge but another kind of network device".to_owned(), choice(links)),
        None => {
            let make = format!("make it: sudo ip link add {name} type bridge && sudo ip link set {name} up");
            ("there is no such bridge".to_owned(), format!("{make}; or {}", choice(links)))
        }
    };
    Err(Obstacle { reason, help })
}

fn choice(links: &[Link]) -> String {
    let bridges: Vec<_> =
        links.iter().filter(|link| link.is_bridge()).map(|link| format!("`{}`", link.name)).collect();
    match &bridges[..] {
        [] => "use `network \"user\"`: this host has no bridge at all".to_owned(),
        bridges => format!("name one that is there: {}", bridges.join(", ")),
    }
}

fn lost(bridge: &str, why: impl Display) -> Error {
    let help = "putting devices on a bridge takes root, or QEMU's bridge helper; `vmctl doctor` tells what is there. A \
                machine that runs gets on its bridge again when it is stopped and started";
    Obstacle { reason: why.to_string(), help: help.to_owned() }.on(bridge)
}

/// The device of the card with this address: no other card has it, so that no other device has this name.
fn device(mac: MacAddr) -> String {
    format!("vt{}", mac.to_string().replace(':', ""))
}

/// The address of the host's end of a card.
fn outer(mac: MacAddr) -> MacAddr {
    let MacAddr([_, rest @ ..]) = mac;
    let [b, c, d, e, f] = rest;
    MacAddr([0xfe, b, c, d, e, f])
}

/// The name of the tap device that a process has open as file number `fd` (proc_pid_fdinfo(5)).
fn device_of(pid: impl Display, fd: i32) -> Option<String> {
    let told = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
    told.lines().find_map(|line| line.strip_prefix("iff:")).map(|name| name.trim().to_owned())
}

/// The number of the file by which QEMU, started with `args`, has the tap device of card number `index`.
fn tap_of(args: &[String], index: usize) -> Option<i32> {
    let netdevs = args.windows(2).filter(|pair| pair[0] == "-netdev");
    let mut options = netdevs.filter_map(|pair| serde_json::from_str::<Value>(&pair[1]).ok());
    options.find(|options| options["type"] == "tap" && options["id"] == netdev_id(index))?["fd"]
        .as_str()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::super::links::tests::told;
    use super::*;

    const MAC: MacAddr = MacAddr([0x52, 0x54, 0xab, 0xcd, 0xef, 0x01]);

    #[test]
    fn devices_have_names_and_addresses_of_their_own() {
        assert_eq!(device(MAC), "vt5254abcdef01");
        assert!(device(MAC).len() < 16, "the kernel takes 15 bytes");
        assert_eq!(outer(MAC).to_string(), "fe:54:ab:cd:ef:01");
    }

    #[test]
    fn bridge_that_no_card_can_be_on_is_told_with_a_way_out() {
        let links = told();
        assert_eq!(usable(&links, "br0").unwrap().name, "br0");
        for (name, reason, help) in [
            ("br1", "it is down", "sudo ip link set br1 up"),
            (
                "tap0",
                "it is no bridge but another kind of network device",
                "name one that is there: `br0`, `br1`",
            ),
            ("br7", "there is no such bridge", "sudo ip link add br7 type bridge"),
        ] {
            let obstacle = usable(&links, name).unwrap_err();
            assert_eq!(obstacle.reason, reason);
            assert!(obstacle.help.contains(help), "{}", obstacle.help);
        }
        assert!(usable(&[], "br0").unwrap_err().help.contains("no bridge at all"));
    }

    #[test]
    fn file_of_a_card_is_read_from_the_command_line() {
        let args = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let args = args(
            r#"qemu -netdev {"type":"user","id":"net0"} -netdev {"fd":"37","id":"net1","type":"tap"} -netdev x"#,
        );
        assert_eq!((tap_of(&args, 0), tap_of(&args, 1), tap_of(&args, 2)), (None, Some(37), None));
    }
}

//! Network cards, and what stands behind them.

use std::net::Ipv4Addr;
use std::os::fd::RawFd;

use serde_json::{Value, json};

use super::Args;
use crate::error::{Error, Result};
use crate::spec::{BackendTag, Forward, NetworkConfig, Nic};

/// Adds a card; one on a bridge takes the next of `taps`.
pub(super) fn network_card(
    args: &mut Args,
    index: usize,
    nic: &Nic,
    taps: &mut impl Iterator<Item = RawFd>,
) -> Result<()> {
    let netdev = netdev_id(index);
    let forwards =
        || -> Vec<Value> { nic.forwards.iter().map(|forward| json!({"str": rule(forward)})).collect() };
    let options = match &nic.network {
        NetworkConfig::None => return Ok(()),
        NetworkConfig::User => json!({"type": "user", "id": netdev, "hostfwd": forwards()}),
        NetworkConfig::Isolated => {
            json!({"type": "user", "id": netdev, "hostfwd": forwards(), "restrict": true})
        }
        // The address of the loopback interface is what keeps the frames on it.
        NetworkConfig::Private { link: Some(link), .. } => json!({
            "type": "socket",
            "id": netdev,
            "mcast": link.hub.to_string(),
            "localaddr": Ipv4Addr::LOCALHOST.to_string(),
        }),
        NetworkConfig::Tap { .. } => match taps.next() {
            Some(tap) => json!({"type": "tap", "id": netdev, "fd": tap.to_string()}),
            None => return Err(unsupported(&nic.network)),
        },
        NetworkConfig::Private { link: None, .. } | NetworkConfig::Vnic { .. } => {
            return Err(unsupported(&nic.network));
        }
    };
    args.json("-netdev", &options);
    // Without a boot ROM: nothing boots from the network, and the ROM file is a package of its own.
    args.device(&json!({
        "driver": "virtio-net-pci",
        "id": format!("nic{index}"),
        "netdev": netdev,
        "mac": nic.mac.to_string(),
        "romfile": "",
    }));
    Ok(())
}

/// The error for a network that this backend does not have.
pub(crate) fn unsupported(network: &NetworkConfig) -> Error {
    let what = match network {
        NetworkConfig::User => "a user network",
        NetworkConfig::Isolated => "an isolated user network",
        NetworkConfig::Tap { .. } => "a tap network that was given no device",
        NetworkConfig::Vnic { .. } => "a vnic network",
        NetworkConfig::Private { link: Some(_), .. } => "a private network",
        NetworkConfig::Private { link: None, .. } => "a private network that was given no group",
        NetworkConfig::None => "no network",
    };
    Error::Unsupported { backend: BackendTag::Qemu, what: what.to_owned() }
}

/// The name of the netdev behind card number `index`.
pub(crate) fn netdev_id(index: usize) -> String {
    format!("net{index}")
}

/// A forward as QEMU's user network writes it.
pub(crate) fn rule(forward: &Forward) -> String {
    let Forward { protocol, host_address, host_port, guest_port } = forward;
    format!("{}:{host_address}:{host_port}-:{guest_port}", protocol.as_str())
}

//! Network cards, and what stands behind them.

use serde_json::{Value, json};

use super::Args;
use crate::error::{Error, Result};
use crate::spec::{BackendTag, Forward, NetworkConfig, Nic};

pub(super) fn network_card(args: &mut Args, index: usize, nic: &Nic) -> Result<()> {
    match nic.network {
        NetworkConfig::None => return Ok(()),
        NetworkConfig::User => {}
        NetworkConfig::Tap { .. } | NetworkConfig::Vnic { .. } | NetworkConfig::Private { .. } => {
            return Err(unsupported(&nic.network));
        }
    }
    let netdev = netdev_id(index);
    let forwards: Vec<Value> = nic.forwards.iter().map(|forward| json!({"str": rule(forward)})).collect();
    args.json("-netdev", &json!({"type": "user", "id": netdev, "hostfwd": forwards}));
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
        NetworkConfig::Tap { .. } => "a tap network",
        NetworkConfig::Vnic { .. } => "a vnic network",
        NetworkConfig::Private { .. } => "a private network",
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

//! `network-config`, version 2: which card has which addresses.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{SeedError, yaml};
use crate::spec::{NetworkConfig, Nic};

#[derive(Serialize)]
struct NetworkData {
    version: u8,
    ethernets: BTreeMap<String, Ethernet>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Ethernet {
    r#match: Match,
    /// Some of cloud-init's renderers know a card by its name only.
    set_name: String,
    dhcp4: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<String>,
    /// Nobody waits for it at boot.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    optional: bool,
}

#[derive(Serialize)]
struct Match {
    macaddress: String,
}

/// What the guest is told of its cards; `None` where it needs not be told: it asks for an address on its one card
/// anyway.
pub(super) fn network_config(nics: &[Nic]) -> Result<Option<String>, SeedError> {
    let cards: Vec<&Nic> = nics.iter().filter(|nic| nic.network != NetworkConfig::None).collect();
    match cards[..] {
        [] => return Ok(None),
        [
            Nic {
                network: NetworkConfig::User | NetworkConfig::Isolated | NetworkConfig::Tap { .. }, ..
            },
        ] => {
            return Ok(None);
        }
        _ => {}
    }
    let cards = cards.iter().enumerate().map(|(index, nic)| {
        let name = format!("net{index}");
        let addresses: Vec<String> = match &nic.network {
            NetworkConfig::Private { address: Some(address), link: Some(link), .. } => {
                vec![format!("{address}/{}", link.prefix)]
            }
            NetworkConfig::Private { .. }
            | NetworkConfig::User
            | NetworkConfig::Isolated
            | NetworkConfig::Tap { .. }
            | NetworkConfig::Vnic { .. }
            | NetworkConfig::None => Vec::new(),
        };
        let is_private = nic.is_private();
        let ethernet = Ethernet {
            r#match: Match { macaddress: nic.mac.to_string() },
            set_name: name.clone(),
            dhcp4: !is_private,
            addresses,
            optional: is_private,
        };
        (name, ethernet)
    });
    yaml("network-config", &NetworkData { version: 2, ethernets: cards.collect() }).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{MacAddr, PrivateLink};

    fn nic(last: u8, network: NetworkConfig) -> Nic {
        Nic { mac: MacAddr([0x52, 0x54, 0, 0, 0, last]), network, forwards: Vec::new() }
    }

    fn private() -> NetworkConfig {
        let hub = "239.192.0.1:50000".parse().unwrap();
        NetworkConfig::Private {
            name: "lan".parse().unwrap(),
            address: Some([10, 77, 0, 10].into()),
            link: Some(PrivateLink { prefix: 24, hub, peers: Vec::new() }),
        }
    }

    #[test]
    fn one_card_that_asks_for_its_address_needs_no_words() {
        for network in
            [NetworkConfig::User, NetworkConfig::Isolated, NetworkConfig::Tap { bridge: "br0".into() }]
        {
            assert_eq!(network_config(&[nic(1, network)]).unwrap(), None);
        }
        assert_eq!(network_config(&[]).unwrap(), None);
        assert_eq!(network_config(&[nic(1, NetworkConfig::None)]).unwrap(), None);
        assert!(network_config(&[nic(1, private())]).unwrap().is_some());
    }

    #[test]
    fn cards_are_known_by_their_hardware_addresses() {
        let text = network_config(&[nic(1, NetworkConfig::User), nic(2, private())]).unwrap().unwrap();
        insta::assert_snapshot!(text);
    }
}

//! Private networks: what is chosen for them at plan time, and kept. Pure.
//!
//! Nothing about a network is remembered by itself: each machine's record says what was chosen for its cards, and a
//! network is what the records of its machines agree on. What is not remembered follows from the state's lineage and
//! the names in the VMFile, so that the same plan is made again from the same inputs.
//!
//! | what | stated | remembered | else |
//! |---|---|---|---|
//! | subnet | `subnet` of the network | as its machines have it | a free /24 of 10.64.0.0/10 |
//! | address | `address` of the card | as the machine has it, if it is in the subnet | the lowest free one from the tenth on |
//! | group | | as its machines have it | follows from lineage and name |
//!
//! Two data folders have two lineages, so that their networks are two even if their projects are one.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use vmctl_providers::{Name, NetworkConfig, Peer, PrivateLink};
use vmctl_state::Snapshot;

use crate::desired::{Desired, DesiredVm, Subnet, USER_NETWORK};
use crate::plan::PlanError;
use crate::recorded::spec_of;

/// What subnets are chosen from: a quarter of 10.0.0.0/8 that holds neither the user network nor what routers at home and
/// virtual machines of other programs use.
const RANGE: Subnet = Subnet { network: Ipv4Addr::new(10, 64, 0, 0), prefix: 10 };

/// The number of bits of a subnet that is chosen for few machines. A larger one is chosen where they need it.
const PREFIX: u8 = 24;

/// The first address that is given out: those before it stay free for who writes addresses by hand.
const FIRST: u32 = 10;

/// The desired state, with everything chosen that its private networks need; as it was where there are none.
pub(crate) fn laid_out<'d>(desired: &'d Desired, recorded: &Snapshot) -> Result<Cow<'d, Desired>, PlanError> {
    let mut networks: BTreeMap<Name, Network> = BTreeMap::new();
    for (vm, name, address) in cards(desired.vms.values()) {
        let network = networks.entry(name.clone()).or_default();
        network.members.insert(vm.name.clone(), Chosen { address, is_stated: address.is_some() });
    }
    if networks.is_empty() {
        return Ok(Cow::Borrowed(desired));
    }
    for record in recorded.records.values() {
        for card in &spec_of(record)?.networks {
            let NetworkConfig::Private { name, address: Some(address), link: Some(link) } = card else {
                continue;
            };
            if let (Some(network), Ok(vm)) = (networks.get_mut(name), record.address.name().parse()) {
                network.remembered.insert(vm, (*address, link.prefix, link.hub));
            }
        }
    }
    choose_subnets(&mut networks, desired)?;
    let mut hubs: BTreeSet<SocketAddrV4> = BTreeSet::new();
    for (name, network) in &mut networks {
        network.choose_addresses(name)?;
        network.choose_hub(recorded.lineage, name, &hubs);
        hubs.extend(network.hub);
    }
    let mut desired = desired.clone();
    for vm in desired.vms.values_mut() {
        let own = vm.name.clone();
        for card in &mut vm.networks {
            if let NetworkConfig::Private { name, address, link } = card
                && let Some(network) = networks.get(name)
            {
                *address = network.members.get(&own).and_then(|chosen| chosen.address);
                *link = network.link(&own, name);
            }
        }
    }
    Ok(Cow::Owned(desired))
}

/// All cards in private networks, with the addresses that the VMFile states.
fn cards<'d>(
    vms: impl Iterator<Item = &'d DesiredVm>,
) -> impl Iterator<Item = (&'d DesiredVm, &'d Name, Option<Ipv4Addr>)> {
    vms.flat_map(|vm| {
        vm.networks.iter().filter_map(move |card| match card {
            NetworkConfig::Private { name, address, .. } => Some((vm, name, *address)),
            NetworkConfig::User
            | NetworkConfig::Isolated
            | NetworkConfig::Tap { .. }
            | NetworkConfig::Vnic { .. }
            | NetworkConfig::None => None,
        })
    })
}

/// One network, as it is being chosen.
#[derive(Debug, Default)]
struct Network {
    members: BTreeMap<Name, Chosen>,
    /// What the records of its machines say, also of those that are about to go.
    remembered: BTreeMap<Name, (Ipv4Addr, u8, SocketAddrV4)>,
    subnet: Option<Subnet>,
    hub: Option<SocketAddrV4>,
}

/// The address of one machine.
#[derive(Debug, Clone, Copy)]
struct Chosen {
    address: Option<Ipv4Addr>,
    is_stated: bool,
}

impl Network {
    /// The subnet that its machines are in.
    fn remembered_subnet(&self) -> Option<Subnet> {
        let subnet = |(address, prefix, _): &(Ipv4Addr, u8, SocketAddrV4)| {
            let network = Subnet { network: *address, prefix: *prefix }.first();
            Subnet { network, prefix: *prefix }
        };
        self.remembered.values().map(subnet).next()
    }

    /// Stated ones first, then those that are remembered, then new ones: no machine takes another's.
    fn choose_addresses(&mut self, name: &Name) -> Result<(), PlanError> {
        let Some(subnet) = self.subnet else { return Ok(()) };
        let mut taken: BTreeSet<Ipv4Addr> =
            self.members.values().filter_map(|chosen| chosen.address).collect();
        for (vm, chosen) in self.members.iter_mut().filter(|(_, chosen)| !chosen.is_stated) {
            let kept = self.remembered.get(vm).map(|(address, ..)| *address);
            chosen.address = kept.filter(|address| subnet.is_for_machine(*address) && taken.insert(*address));
        }
        // A machine that is about to go may still answer to its address: it is given to another only in need.
        let leaving = self.remembered.iter().filter(|(vm, _)| !self.members.contains_key(*vm));
        let leaving: BTreeSet<Ipv4Addr> = leaving.map(|(_, (address, ..))| *address).collect();
        for chosen in self.members.values_mut().filter(|chosen| chosen.address.is_none()) {
            let free = |avoided: &BTreeSet<Ipv4Addr>| {
                hosts(subnet).find(|address| !taken.contains(address) && !avoided.contains(address))
            };
            let address = free(&leaving).or_else(|| free(&BTreeSet::new()));
            let address = address.ok_or_else(|| PlanError::NetworkFull { name: name.clone(), subnet })?;
            taken.insert(address);
            chosen.address = Some(address);
        }
        Ok(())
    }

    fn choose_hub(&mut self, lineage: Uuid, name: &Name, taken: &BTreeSet<SocketAddrV4>) {
        let remembered = self.remembered.values().map(|(.., hub)| *hub).find(|hub| !taken.contains(hub));
        self.hub = remembered
            .or_else(|| (0..).map(|turn| hub(lineage, name, turn)).find(|hub| !taken.contains(hub)));
    }

    /// How the machine `own` takes part.
    fn link(&self, own: &Name, network: &Name) -> Option<PrivateLink> {
        let others = self.members.iter().filter(|(vm, _)| *vm != own);
        let peers = others.filter_map(|(vm, chosen)| {
            let (name, hostname) = (vm.to_string(), vm.to_hostname());
            let mut names = vec![name.clone(), format!("{name}.{network}")];
            if hostname != name {
                names.push(hostname);
            }
            Some(Peer { address: chosen.address?, names })
        });
        Some(PrivateLink { prefix: self.subnet?.prefix, hub: self.hub?, peers: peers.collect() })
    }
}

/// Stated subnets first, then those that are remembered, then new ones, none of which overlaps another or a user network.
fn choose_subnets(networks: &mut BTreeMap<Name, Network>, desired: &Desired) -> Result<(), PlanError> {
    let mut taken = vec![USER_NETWORK];
    for (name, network) in networks.iter_mut() {
        network.subnet = desired.networks.get(name).and_then(|network| network.subnet);
        taken.extend(network.subnet);
    }
    for network in networks.values_mut().filter(|network| network.subnet.is_none()) {
        let stated = |subnet: &Subnet| {
            network
                .members
                .values()
                .filter(|chosen| chosen.is_stated)
                .all(|chosen| chosen.address.is_none_or(|address| subnet.contains(address)))
        };
        let kept = network.remembered_subnet();
        network.subnet =
            kept.filter(|subnet| !taken.iter().any(|other| other.overlaps(*subnet))).filter(stated);
        taken.extend(network.subnet);
    }
    for (name, network) in networks.iter_mut().filter(|(_, network)| network.subnet.is_none()) {
        let count = network.members.len() as u64;
        let stated =
            network.members.values().filter(|chosen| chosen.is_stated).find_map(|chosen| chosen.address);
        let subnet = candidates(name, count, stated)
            .find(|subnet| !taken.iter().any(|other| other.overlaps(*subnet)))
            .ok_or_else(|| PlanError::NoSubnet { name: name.clone() })?;
        network.subnet = Some(subnet);
        taken.push(subnet);
    }
    Ok(())
}

/// Subnets with room for `machines`, twice over, in the order in which they are tried: that around the address that
/// the VMFile states, if it states one, or all of the range from one on that follows from the name.
fn candidates(name: &Name, machines: u64, stated: Option<Ipv4Addr>) -> impl Iterator<Item = Subnet> {
    let fits = |prefix: &u8| {
        let room = Subnet { network: RANGE.network, prefix: *prefix }.machines();
        room >= machines * 2 + u64::from(FIRST)
    };
    let prefix = (RANGE.prefix..=PREFIX).rev().find(fits).unwrap_or(RANGE.prefix);
    let around =
        stated.map(|address| Subnet { network: Subnet { network: address, prefix }.first(), prefix });
    let count = if around.is_some() { 0 } else { 1_u32 << (prefix - RANGE.prefix) };
    let start = u32::from_be_bytes(head(&Sha256::digest(name.as_str())));
    let all = (0..count).map(move |turn| {
        let index = start.wrapping_add(turn) % count;
        let network = u32::from(RANGE.network) + (index << (32 - u32::from(prefix)));
        Subnet { network: Ipv4Addr::from(network), prefix }
    });
    around.into_iter().chain(all)
}

/// The addresses of machines in the order in which they are given out.
fn hosts(subnet: Subnet) -> impl Iterator<Item = Ipv4Addr> {
    let (low, high) = (u32::from(subnet.first()) + 1, u32::from(subnet.broadcast()));
    let first = (u32::from(subnet.first()) + FIRST).clamp(low, high);
    (first..high).chain(low..first).map(Ipv4Addr::from)
}

/// The group of a network: an address of the organisation-local scope (RFC 2365) and a port of the dynamic range. No
/// router forwards it, and it never leaves the loopback interface anyway.
fn hub(lineage: Uuid, name: &Name, turn: u32) -> SocketAddrV4 {
    let mut hash = Sha256::new();
    hash.update(lineage.as_bytes());
    hash.update(name.as_str());
    hash.update(turn.to_be_bytes());
    let hash = hash.finalize();
    let group = Ipv4Addr::new(239, 192 | (hash[0] & 3), hash[1], hash[2]);
    let port = 0xc000 | u16::from_be_bytes([hash[3], hash[4]]);
    SocketAddrV4::new(group, port)
}

fn head(hash: &[u8]) -> [u8; 4] {
    let mut head = [0; 4];
    head.copy_from_slice(&hash[..4]);
    head
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use vmctl_state::{Address, Phase, Record};

    use super::*;
    use crate::desired::PrivateNetwork;
    use crate::recorded::RecordedVm;

    const LINEAGE: Uuid = Uuid::from_u128(1);

    /// Networks, each with the address that is stated.
    type Cards<'c> = &'c [(&'c str, Option<&'c str>)];

    fn nothing(lineage: Uuid) -> Snapshot {
        Snapshot::empty(lineage, Timestamp::UNIX_EPOCH)
    }

    /// Machines, each with its networks and the addresses that are stated.
    fn desired(subnet: Option<(&str, u8)>, vms: &[(&str, Cards)]) -> Desired {
        let mut desired = Desired::new("shop".parse().unwrap());
        for (name, cards) in vms {
            let mut vm = DesiredVm::new(name.parse().unwrap());
            for (network, address) in *cards {
                let subnet =
                    subnet.map(|(network, prefix)| Subnet { network: network.parse().unwrap(), prefix });
                desired.networks.insert(network.parse().unwrap(), PrivateNetwork { subnet });
                vm.networks.push(NetworkConfig::Private {
                    name: network.parse().unwrap(),
                    address: address.map(|address| address.parse().unwrap()),
                    link: None,
                });
            }
            desired.vms.insert(vm.name.clone(), vm);
        }
        desired
    }

    /// The state after all of it was applied.
    fn applied(desired: &Desired) -> Snapshot {
        let mut snapshot = nothing(LINEAGE);
        for vm in desired.vms.values() {
            let address = Address::vm(vm.name.as_str());
            let record = Record {
                address: address.clone(),
                instance: Uuid::nil(),
                backend: "qemu".to_owned(),
                spec: serde_json::to_value(RecordedVm::from(vm)).unwrap().into(),
                handle: None,
                phase: Phase::Running,
                ready: true,
                taint: None,
                provisioned: Vec::new(),
                interrupted: None,
                ran_once: Vec::new(),
                provision_failed: None,
                created: Timestamp::UNIX_EPOCH,
                updated: Timestamp::UNIX_EPOCH,
            };
            snapshot.records.insert(address, record);
        }
        snapshot
    }

    fn places(desired: &Desired) -> Vec<(String, Ipv4Addr, u8, SocketAddrV4)> {
        let cards = desired.vms.values().flat_map(|vm| vm.networks.iter().map(move |card| (vm, card)));
        cards
            .filter_map(|(vm, card)| match card {
                NetworkConfig::Private { address: Some(address), link: Some(link), .. } => {
                    Some((vm.name.to_string(), *address, link.prefix, link.hub))
                }
                _ => None,
            })
            .collect()
    }

    fn addresses(desired: &Desired) -> Vec<String> {
        places(desired).into_iter().map(|(name, address, ..)| format!("{name} {address}")).collect()
    }

    #[test]
    fn addresses_stay_whoever_comes_and_goes() {
        let lan: &[(&str, Option<&str>)] = &[("lan", None)];
        let subnet = Some(("10.77.0.0", 24));
        let first = desired(subnet, &[("b", lan), ("c", lan)]);
        let first = laid_out(&first, &nothing(LINEAGE)).unwrap();
        assert_eq!(addresses(&first), ["b 10.77.0.10", "c 10.77.0.11"]);
        let state = applied(&first);
        // One joins before the others by name, one leaves: its address is not given away while it may still have it.
        let second = desired(subnet, &[("a", lan), ("c", lan)]);
        let second = laid_out(&second, &state).unwrap();
        assert_eq!(addresses(&second), ["a 10.77.0.12", "c 10.77.0.11"]);
        // An address that is stated is taken from who was given it.
        let third = desired(subnet, &[("a", &[("lan", Some("10.77.0.11"))]), ("c", lan)]);
        assert_eq!(addresses(&laid_out(&third, &state).unwrap()), ["a 10.77.0.11", "c 10.77.0.12"]);
        // Another subnet has other addresses.
        let fourth = desired(Some(("10.78.0.0", 29)), &[("b", lan), ("c", lan)]);
        assert_eq!(addresses(&laid_out(&fourth, &state).unwrap()), ["b 10.78.0.1", "c 10.78.0.2"]);
    }

    #[test]
    fn subnet_and_group_are_chosen_once_and_no_two_are_the_same() {
        let both: &[(&str, Option<&str>)] = &[("lan", None), ("back", None)];
        let asked = desired(None, &[("a", both), ("b", both)]);
        let chosen = laid_out(&asked, &nothing(LINEAGE)).unwrap().into_owned();
        let found = places(&chosen);
        let (lan, back) = (&found[0], &found[1]);
        let subnet = |place: &(String, Ipv4Addr, u8, SocketAddrV4)| Subnet {
            network: Subnet { network: place.1, prefix: place.2 }.first(),
            prefix: place.2,
        };
        assert!(!subnet(lan).overlaps(subnet(back)) && RANGE.contains(lan.1) && lan.3 != back.3);
        assert!(lan.3.ip().is_multicast() && lan.3.port() >= 0xc000);
        // The lineage of another data folder gives other groups; a state that has them keeps them.
        let elsewhere = laid_out(&asked, &nothing(Uuid::from_u128(2))).unwrap();
        assert_ne!(places(&elsewhere)[0].3, lan.3);
        let mut state = applied(&chosen);
        state.lineage = Uuid::from_u128(2);
        assert_eq!(places(&laid_out(&asked, &state).unwrap()), found);
    }

    #[test]
    fn each_knows_the_others_by_all_their_names() {
        let lan: &[(&str, Option<&str>)] = &[("lan", None)];
        let asked = desired(Some(("10.77.0.0", 24)), &[("a", lan), ("Db_1", lan), ("alone", &[])]);
        let chosen = laid_out(&asked, &nothing(LINEAGE)).unwrap();
        let known = |name: &str| {
            let links = chosen.vms[name].networks.iter().filter_map(NetworkConfig::link);
            links.flat_map(|link| &link.peers).map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(known("a"), ["10.77.0.10 Db_1 Db_1.lan db-1"]);
        assert_eq!(known("Db_1"), ["10.77.0.11 a a.lan"]);
        assert_eq!(known("alone"), [""; 0]);
    }

    #[test]
    fn network_without_room_is_an_error() {
        let lan: &[(&str, Option<&str>)] = &[("lan", None)];
        let names: Vec<String> = (0..7).map(|number| format!("vm{number}")).collect();
        let vms: Vec<_> = names.iter().map(|name| (name.as_str(), lan)).collect();
        let error = laid_out(&desired(Some(("10.77.0.0", 29)), &vms), &nothing(LINEAGE)).unwrap_err();
        assert_eq!(error.to_string(), "the network `lan` has no address left in 10.77.0.0/29");
        // One whose size nobody wrote is large enough.
        let names: Vec<String> = (0..300).map(|number| format!("vm{number}")).collect();
        let vms: Vec<_> = names.iter().map(|name| (name.as_str(), lan)).collect();
        let chosen = desired(None, &vms);
        let chosen = laid_out(&chosen, &nothing(LINEAGE)).unwrap();
        let different: BTreeSet<Ipv4Addr> = places(&chosen).into_iter().map(|place| place.1).collect();
        assert_eq!((different.len(), places(&chosen)[0].2), (300, 22));
    }
}

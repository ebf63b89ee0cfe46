//! Which ports of the host QEMU's user network really bound: reads the text of `info usernet`.
//!
//! QEMU tells it in no other form. A port that was left to the kernel's choice is known only from here.

use std::net::IpAddr;

use super::argv::netdev_id;
use crate::spec::{Forward, Machine, Protocol};

/// One forward as the user network lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bound {
    netdev: String,
    protocol: Protocol,
    address: IpAddr,
    port: u16,
    guest_port: u16,
}

/// Reads the table; lines that are no forward of the host are passed over.
pub(crate) fn parse(text: &str) -> Vec<Bound> {
    let mut bound = Vec::new();
    let mut netdev = "";
    for line in text.lines() {
        if let Some(name) = line.trim().strip_suffix("):").and_then(|head| head.rsplit_once('(')) {
            netdev = name.1;
        } else if let Some(entry) = parse_entry(netdev, line) {
            bound.push(entry);
        }
    }
    bound
}

/// Columns: protocol and state, descriptor, source address and port, destination address and port, queues.
fn parse_entry(netdev: &str, line: &str) -> Option<Bound> {
    let columns: Vec<&str> = line.split_ascii_whitespace().collect();
    let [kind, _descriptor, address, port, _guest_address, guest_port, ..] = columns[..] else { return None };
    let protocol = match kind {
        "TCP[HOST_FORWARD]" => Protocol::Tcp,
        "UDP[HOST_FORWARD]" => Protocol::Udp,
        _ => return None,
    };
    let address = if address == "*" { IpAddr::from([0, 0, 0, 0]) } else { address.parse().ok()? };
    Some(Bound {
        netdev: netdev.to_owned(),
        protocol,
        address,
        port: port.parse().ok()?,
        guest_port: guest_port.parse().ok()?,
    })
}

/// The machine's forwards with the ports that were really bound, in the machine's order; a forward that QEMU does
/// not list is left out.
pub(crate) fn resolve(machine: &Machine, mut bound: Vec<Bound>) -> Vec<Forward> {
    let mut forwards = Vec::new();
    for (index, nic) in machine.nics.iter().enumerate() {
        let netdev = netdev_id(index);
        let mut take = |wanted: &Forward| {
            let found = bound.iter().position(|entry| {
                entry.netdev == netdev
                    && entry.protocol == wanted.protocol
                    && entry.address == wanted.host_address
                    && entry.guest_port == wanted.guest_port
                    && (wanted.host_port == 0 || wanted.host_port == entry.port)
            })?;
            Some(Forward { host_port: bound.remove(found).port, ..wanted.clone() })
        };
        // Fixed ports first, so that none of them is taken for one of the kernel's choice.
        let mut by_choice: Vec<_> = nic.forwards.iter().enumerate().collect();
        by_choice.sort_by_key(|(_, wanted)| wanted.host_port == 0);
        let mut found: Vec<_> =
            by_choice.into_iter().filter_map(|(place, wanted)| Some((place, take(wanted)?))).collect();
        found.sort_by_key(|(place, _)| *place);
        forwards.extend(found.into_iter().map(|(_, forward)| forward));
    }
    forwards
}

#[cfg(test)]
mod tests {
    use super::super::manifest::tests::spec;
    use super::*;
    use crate::spec::{MacAddr, NetworkConfig, Nic};

    /// The form in which QEMU 7.2 prints it, for two cards, with one ssh connection and a name look-up under way.
    const CAPTURED: &str = "Hub -1 (net0):\r
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r
  TCP[ESTABLISHED]   25       127.0.0.1 41289       10.0.2.15    22     0     0\r
  TCP[HOST_FORWARD]  18       127.0.0.1 34487       10.0.2.15    22     0     0\r
  TCP[HOST_FORWARD]  17       127.0.0.1  8080       10.0.2.15    80     0     0\r
  TCP[HOST_FORWARD]  16       127.0.0.1 40001       10.0.2.15    80     0     0\r
  UDP[236 sec]       26       10.0.2.15 48813        10.0.2.3    53     0     0\r
  UDP[HOST_FORWARD]  15               * 34885       10.0.2.15    53     0     0\r
  ICMP[10 sec]       27       10.0.2.15  1234        10.0.2.2     -     0     0\r
Hub -1 (net1):\r
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r
  TCP[HOST_FORWARD]  19       127.0.0.2 45555       10.0.2.15    22     0     0\r
";

    fn forward(protocol: Protocol, address: [u8; 4], host_port: u16, guest_port: u16) -> Forward {
        Forward { protocol, host_address: IpAddr::from(address), host_port, guest_port }
    }

    #[test]
    fn forwards_of_the_host_are_read_and_nothing_else() {
        let bound = parse(CAPTURED);
        let ports: Vec<_> = bound.iter().map(|entry| (entry.netdev.as_str(), entry.port)).collect();
        assert_eq!(
            ports,
            [("net0", 34487), ("net0", 8080), ("net0", 40001), ("net0", 34885), ("net1", 45555)]
        );
        assert_eq!(parse("unknown command: 'info usernet'\r\n"), []);
    }

    #[test]
    fn each_forward_gets_the_port_that_was_bound_for_it() {
        let any = [0, 0, 0, 0];
        let local = [127, 0, 0, 1];
        let mut machine = spec("/image".as_ref()).machine;
        machine.nics = [
            vec![
                forward(Protocol::Tcp, local, 0, 22),
                forward(Protocol::Tcp, local, 0, 80),
                forward(Protocol::Tcp, local, 8080, 80),
                forward(Protocol::Udp, any, 0, 53),
                forward(Protocol::Udp, any, 0, 54),
            ],
            vec![forward(Protocol::Tcp, [127, 0, 0, 2], 0, 22)],
        ]
        .map(|forwards| Nic { mac: MacAddr([0; 6]), network: NetworkConfig::User, forwards })
        .to_vec();
        assert_eq!(
            resolve(&machine, parse(CAPTURED)),
            [
                forward(Protocol::Tcp, local, 34487, 22),
                forward(Protocol::Tcp, local, 40001, 80),
                forward(Protocol::Tcp, local, 8080, 80),
                forward(Protocol::Udp, any, 34885, 53),
                forward(Protocol::Tcp, [127, 0, 0, 2], 45555, 22),
            ]
        );
    }
}

//! The forwards of QEMU's user networks, as its human monitor writes them: reads the text of `info usernet`, writes
//! `hostfwd_add` and `hostfwd_remove`, and compares what is bound with what is asked for.
//!
//! QEMU tells and takes them in no other form. A port that was left to the kernel's choice is known only from here.

use std::net::{IpAddr, Ipv4Addr};

use super::argv::netdev_id;
use crate::spec::{Forward, Machine, Protocol};

/// The guest's address in a user network whose addresses are QEMU's own choice: the first that its DHCP server gives.
/// A forward without an address of the guest leads there.
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

/// One forward of one user network. Port 0 of the host stands for any port, if the forward is one to be made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rule {
    netdev: String,
    guest: Ipv4Addr,
    pub(crate) forward: Forward,
}

impl Rule {
    /// The command that makes it.
    pub(crate) fn add_command(&self) -> String {
        let Forward { protocol, host_address, host_port, guest_port } = &self.forward;
        let protocol = protocol.as_str();
        format!(
            "hostfwd_add {} {protocol}:{host_address}:{host_port}-{}:{guest_port}",
            self.netdev, self.guest
        )
    }

    /// The command that takes it away.
    pub(crate) fn remove_command(&self) -> String {
        let Forward { protocol, host_address, host_port, .. } = &self.forward;
        format!("hostfwd_remove {} {}:{host_address}:{host_port}", self.netdev, protocol.as_str())
    }

    fn is_met_by(&self, bound: &Self) -> bool {
        let port = if self.forward.host_port == 0 { bound.forward.host_port } else { self.forward.host_port };
        let forward = Forward { host_port: port, ..self.forward.clone() };
        *bound == Self { forward, netdev: self.netdev.clone(), guest: self.guest }
    }
}

/// Whether `hostfwd_add` did what it was told: then it prints nothing.
pub(crate) fn was_added(text: &str) -> bool {
    text.trim().is_empty()
}

/// Whether what `hostfwd_remove` was told to take away is gone: by it, or already.
pub(crate) fn is_gone(text: &str) -> bool {
    let text = text.trim();
    text.starts_with("host forwarding rule for ")
        && (text.ends_with(" removed") || text.ends_with(" not found"))
}

/// The forwards that `machine` asks for, in its order.
pub(crate) fn wanted(machine: &Machine) -> Vec<Rule> {
    let user = machine.nics.iter().enumerate().filter(|(_, nic)| nic.network.is_user());
    user.flat_map(|(index, nic)| {
        nic.forwards.iter().map(move |forward| Rule {
            netdev: netdev_id(index),
            guest: GUEST,
            forward: forward.clone(),
        })
    })
    .collect()
}

/// Reads the table; lines that are no forward of the host are passed over.
pub(crate) fn parse(text: &str) -> Vec<Rule> {
    let mut bound = Vec::new();
    let mut netdev = "";
    for line in text.lines() {
        if let Some(name) = line.trim().strip_suffix("):").and_then(|head| head.rsplit_once('(')) {
            netdev = name.1;
        } else if is_netdev_id(netdev)
            && let Some(entry) = parse_entry(netdev, line)
        {
            bound.push(entry);
        }
    }
    bound
}

/// What QEMU accepts as a name (its `id_wellformed`). Nothing else is ever written into a command.
fn is_netdev_id(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
}

/// Columns: protocol and state, descriptor, source address and port, destination address and port, queues.
fn parse_entry(netdev: &str, line: &str) -> Option<Rule> {
    let columns: Vec<&str> = line.split_ascii_whitespace().collect();
    let [kind, _descriptor, address, port, guest, guest_port, ..] = columns[..] else { return None };
    let protocol = match kind {
        "TCP[HOST_FORWARD]" => Protocol::Tcp,
        "UDP[HOST_FORWARD]" => Protocol::Udp,
        _ => return None,
    };
    let host_address = if address == "*" { IpAddr::from([0, 0, 0, 0]) } else { address.parse().ok()? };
    let forward = Forward {
        protocol,
        host_address,
        host_port: port.parse().ok()?,
        guest_port: guest_port.parse().ok()?,
    };
    Some(Rule { netdev: netdev.to_owned(), guest: guest.parse().ok()?, forward })
}

/// Which of the forwards that are bound are those asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Comparison {
    /// What is asked for and bound, with the ports that were really bound, in the order of asking.
    pub(crate) met: Vec<Forward>,
    /// What is asked for and not bound, in the order of asking.
    pub(crate) missing: Vec<Rule>,
    /// What is bound and not asked for.
    pub(crate) surplus: Vec<Rule>,
}

/// Compares what is asked for with what is bound. Each bound forward serves one that is asked for.
pub(crate) fn compare(wanted: &[Rule], mut bound: Vec<Rule>) -> Comparison {
    // Fixed ports first, so that none of them is taken for one of the kernel's choice.
    let mut by_choice: Vec<(usize, &Rule)> = wanted.iter().enumerate().collect();
    by_choice.sort_by_key(|(_, rule)| rule.forward.host_port == 0);
    let mut serves: Vec<(usize, Option<Rule>)> = by_choice
        .into_iter()
        .map(|(place, rule)| {
            let found = bound.iter().position(|entry| rule.is_met_by(entry));
            (place, found.map(|found| bound.remove(found)))
        })
        .collect();
    serves.sort_by_key(|(place, _)| *place);

    let mut comparison = Comparison { surplus: bound, ..Comparison::default() };
    for (rule, (_, served)) in wanted.iter().zip(serves) {
        match served {
            Some(bound) => comparison.met.push(bound.forward),
            None => comparison.missing.push(rule.clone()),
        }
    }
    comparison
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
        let ports: Vec<_> =
            bound.iter().map(|entry| (entry.netdev.as_str(), entry.forward.host_port)).collect();
        assert_eq!(
            ports,
            [("net0", 34487), ("net0", 8080), ("net0", 40001), ("net0", 34885), ("net1", 45555)]
        );
        assert_eq!(parse("unknown command: 'info usernet'\r\n"), []);
    }

    #[test]
    fn network_with_an_impossible_name_is_passed_over() {
        for name in ["net0 x", "0net", "", "net\u{e9}"] {
            assert_eq!(parse(&CAPTURED.replace("net0", name)).len(), 1, "{name:?}");
        }
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
        let compared = compare(&wanted(&machine), parse(CAPTURED));
        assert_eq!(
            compared.met,
            [
                forward(Protocol::Tcp, local, 34487, 22),
                forward(Protocol::Tcp, local, 40001, 80),
                forward(Protocol::Tcp, local, 8080, 80),
                forward(Protocol::Udp, any, 34885, 53),
                forward(Protocol::Tcp, [127, 0, 0, 2], 45555, 22),
            ]
        );
        assert_eq!(compared.missing, [rule("net0", forward(Protocol::Udp, any, 0, 54))]);
        assert_eq!(compared.surplus, []);
    }

    fn rule(netdev: &str, forward: Forward) -> Rule {
        Rule { netdev: netdev.to_owned(), guest: GUEST, forward }
    }

    #[test]
    fn what_differs_in_anything_is_replaced() {
        let local = [127, 0, 0, 1];
        let bound = rule("net0", forward(Protocol::Tcp, local, 8080, 80));
        let met = |rule: Rule| compare(&[rule], vec![bound.clone()]).missing.is_empty();
        assert!(met(bound.clone()));
        assert!(met(rule("net0", forward(Protocol::Tcp, local, 0, 80))));
        for other in [
            rule("net1", bound.forward.clone()),
            rule("net0", forward(Protocol::Udp, local, 8080, 80)),
            rule("net0", forward(Protocol::Tcp, [0, 0, 0, 0], 8080, 80)),
            rule("net0", forward(Protocol::Tcp, local, 8081, 80)),
            rule("net0", forward(Protocol::Tcp, local, 8080, 81)),
            Rule { guest: Ipv4Addr::new(10, 0, 2, 99), ..bound.clone() },
        ] {
            let compared = compare(std::slice::from_ref(&other), vec![bound.clone()]);
            assert_eq!(
                compared,
                Comparison { met: vec![], missing: vec![other], surplus: vec![bound.clone()] }
            );
        }
    }

    #[test]
    fn one_bound_forward_serves_one_only() {
        let automatic = rule("net0", forward(Protocol::Tcp, [127, 0, 0, 1], 0, 80));
        let bound = rule("net0", forward(Protocol::Tcp, [127, 0, 0, 1], 4000, 80));
        let compared = compare(&[automatic.clone(), automatic.clone()], vec![bound.clone()]);
        assert_eq!((compared.met, compared.missing), (vec![bound.forward], vec![automatic]));
    }

    #[test]
    fn commands_and_their_answers_are_those_of_the_human_monitor() {
        let rule = rule("net0", forward(Protocol::Udp, [0, 0, 0, 0], 5353, 53));
        assert_eq!(rule.add_command(), "hostfwd_add net0 udp:0.0.0.0:5353-10.0.2.15:53");
        assert_eq!(rule.remove_command(), "hostfwd_remove net0 udp:0.0.0.0:5353");
        assert!(was_added(""));
        for text in [
            "Could not set up host forwarding rule 'tcp:127.0.0.1:40173-:80'\r\n",
            "unrecognized netdev id 'net7'\r\n",
            "Invalid host forwarding rule 'nonsense' (No : separators)\r\n",
        ] {
            assert!(!was_added(text), "{text}");
        }
        assert!(is_gone("host forwarding rule for tcp:127.0.0.1:45671 removed\r\n"));
        assert!(is_gone("host forwarding rule for tcp:127.0.0.1:45671 not found\r\n"));
        assert!(!is_gone("invalid format\r\n"));
        assert!(!is_gone(""));
    }
}

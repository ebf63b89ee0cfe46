//! Ports of the host: whether they are free, and who holds them if not.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use crate::error::{Error, Result};
use crate::spec::{Forward, Machine, Protocol};

/// State of a listening TCP socket in the kernel's tables.
const LISTENING: &str = "0A";

/// A process that holds a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) pid: u32,
    pub(crate) name: String,
}

/// Checks that every fixed port of `machine` can be bound now. `own_pid` is the machine's own process, if it runs:
/// what that one holds is no obstacle.
pub(crate) fn check_all_free(machine: &Machine, own_pid: Option<u32>) -> Result<()> {
    machine.nics.iter().flat_map(|nic| &nic.forwards).try_for_each(|forward| check_free(forward, own_pid))
}

/// Checks that the port of one forward can be bound now, as [`check_all_free`] does. One of the kernel's choice can.
pub(crate) fn check_free(forward: &Forward, own_pid: Option<u32>) -> Result<()> {
    if forward.host_port == 0 {
        return Ok(());
    }
    let address = SocketAddr::new(forward.host_address, forward.host_port);
    let bound = match forward.protocol {
        Protocol::Tcp => TcpListener::bind(address).map(drop),
        Protocol::Udp => UdpSocket::bind(address).map(drop),
    };
    match bound {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let holder = holder(forward);
            if own_pid.is_some() && holder.as_ref().map(|holder| holder.pid) == own_pid {
                return Ok(());
            }
            Err(in_use(forward, holder))
        }
        Err(source) => Err(Error::Bind { address: describe(forward), source }),
    }
}

/// The forward whose port QEMU could not bind, if its messages say that this ended it.
///
/// The rule is compared as we wrote it; QEMU gives no other sign than this text.
pub(crate) fn refused<'a>(machine: &'a Machine, messages: &str) -> Option<&'a Forward> {
    machine.nics.iter().flat_map(|nic| &nic.forwards).filter(|forward| forward.host_port != 0).find(
        |forward| {
            messages
                .contains(&format!("Could not set up host forwarding rule '{}'", super::argv::rule(forward)))
        },
    )
}

/// The error for a fixed port that is taken.
pub(crate) fn in_use(forward: &Forward, holder: Option<Holder>) -> Error {
    Error::PortInUse {
        address: describe(forward),
        holder: holder.map(|Holder { pid, name }| format!("`{name}` (pid {pid})")),
    }
}

/// Finds the process that holds the port of `forward`; `None` if it is free or the holder is not ours to see.
pub(crate) fn holder(forward: &Forward) -> Option<Holder> {
    let tables = match forward.protocol {
        Protocol::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Protocol::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    // A host without IPv6 has no second table.
    let inodes: HashSet<String> = tables
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| holding_inodes(&table, forward))
        .collect();
    if inodes.is_empty() { None } else { process_with_socket(&inodes) }
}

/// Address, port and protocol, as messages name them.
pub(crate) fn describe(forward: &Forward) -> String {
    format!("{}/{}", SocketAddr::new(forward.host_address, forward.host_port), forward.protocol.as_str())
}

/// Inodes of the sockets in one kernel table (proc_pid_net(5)) that keep others from binding the port.
fn holding_inodes(table: &str, forward: &Forward) -> Vec<String> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_ascii_whitespace().collect();
            let (local, state, inode) = (columns.get(1)?, columns.get(3)?, columns.get(9)?);
            let (address, port) = local.split_once(':')?;
            let in_the_way = u16::from_str_radix(port, 16).ok()? == forward.host_port
                && overlap(parse_address(address)?, forward.host_address)
                && (forward.protocol == Protocol::Udp || *state == LISTENING);
            in_the_way.then(|| (*inode).to_owned())
        })
        .collect()
}

/// Addresses stand there as hexadecimal words of 32 bits in the host's byte order.
fn parse_address(text: &str) -> Option<IpAddr> {
    let words: Vec<[u8; 4]> = (0..text.len())
        .step_by(8)
        .map(|at| Some(u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?.to_ne_bytes()))
        .collect::<Option<_>>()?;
    match <[u8; 4]>::try_from(words.concat()) {
        Ok(v4) => Some(Ipv4Addr::from(v4).into()),
        Err(bytes) => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical()),
    }
}

fn overlap(one: IpAddr, other: IpAddr) -> bool {
    one == other || one.is_unspecified() || other.is_unspecified()
}

/// Looks through the descriptors of all processes that we may see.
fn process_with_socket(inodes: &HashSet<String>) -> Option<Holder> {
    let holds = |pid: u32| {
        fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|descriptors| {
            descriptors.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()).any(|link| {
                link.to_str()
                    .and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']'))
                    .is_some_and(|inode| inodes.contains(inode))
            })
        })
    };
    let pid = fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find(|pid| holds(*pid))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(Holder { pid, name: name.trim_end().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::super::manifest::tests::spec;
    use super::*;

    fn machine(forward: Forward) -> Machine {
        let mut machine = spec("/image".as_ref()).machine;
        machine.nics[0].forwards = vec![Forward::SSH, forward];
        machine
    }

    fn local(protocol: Protocol, host_port: u16) -> Forward {
        Forward { protocol, host_address: Ipv4Addr::LOCALHOST.into(), host_port, guest_port: 80 }
    }

    #[test]
    fn taken_port_is_told_with_its_holder_unless_it_is_our_own() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
        let own = std::process::id();
        for (protocol, port) in [
            (Protocol::Tcp, tcp.local_addr().unwrap().port()),
            (Protocol::Udp, udp.local_addr().unwrap().port()),
        ] {
            let machine = machine(local(protocol, port));
            let error = check_all_free(&machine, None).unwrap_err().to_string();
            let name = protocol.as_str();
            assert!(error.starts_with(&format!("port 127.0.0.1:{port}/{name} is in use by `")), "{error}");
            assert!(error.ends_with(&format!("` (pid {own})")), "{error}");
            assert!(check_all_free(&machine, Some(own + 1)).is_err());
            check_all_free(&machine, Some(own)).unwrap();
        }
    }

    #[test]
    fn free_port_passes_and_foreign_address_is_told() {
        // A loopback address of its own: no other test can take its ports.
        let own = TcpListener::bind("127.83.19.5:0").unwrap().local_addr().unwrap();
        let free = Forward { host_address: own.ip(), ..local(Protocol::Tcp, own.port()) };
        check_all_free(&machine(free), None).unwrap();
        let elsewhere = Forward { host_address: [192, 0, 2, 1].into(), ..local(Protocol::Tcp, 8080) };
        let error = check_all_free(&machine(elsewhere), None).unwrap_err();
        assert_eq!(error.to_string(), "cannot bind 192.0.2.1:8080/tcp on this host");
    }

    #[test]
    fn refused_rule_is_found_in_the_messages() {
        let machine = machine(local(Protocol::Tcp, 8080));
        let messages =
            "qemu-system-x86_64: -netdev {}: Could not set up host forwarding rule 'tcp:127.0.0.1:8080-:80'";
        assert_eq!(refused(&machine, messages), Some(&local(Protocol::Tcp, 8080)));
        assert_eq!(refused(&machine, "qemu-system-x86_64: cannot allocate memory"), None);
    }

    #[test]
    fn addresses_of_the_kernel_tables_are_read() {
        let loopback = format!("{:08X}", u32::from_ne_bytes([127, 0, 0, 1]));
        assert_eq!(parse_address(&loopback), Some(Ipv4Addr::LOCALHOST.into()));
        let mapped = format!("0000000000000000{:08X}{loopback}", u32::from_ne_bytes([0, 0, 255, 255]));
        assert_eq!(parse_address(&mapped), Some(Ipv4Addr::LOCALHOST.into()));
        for nonsense in ["", "0", "XYZ", "0100007", "é"] {
            assert_eq!(parse_address(nonsense), None);
        }
    }
}

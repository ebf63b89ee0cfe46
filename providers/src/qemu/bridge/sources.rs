//! Who may know a guest's address: the host's neighbours, and the leases of those who give addresses.
//!
//! All is looked up by hardware addresses. Whether what is told there holds is another question.

use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::spec::MacAddr;

/// The kernel's table of neighbours (proc_pid_net(5)), that of this process's network namespace.
const NEIGHBOURS: &str = "/proc/net/arp";

/// A neighbour that answered, or answered once.
const COMPLETE: u32 = 0x2;

/// A host with an address on one of our networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Neighbour {
    pub(super) address: Ipv4Addr,
    pub(super) mac: MacAddr,
}

/// The neighbours that the host knows the hardware addresses of.
pub(super) fn neighbours() -> Result<Vec<Neighbour>> {
    fs::read_to_string(NEIGHBOURS)
        .map(|table| parse_neighbours(&table))
        .map_err(Error::io("read", NEIGHBOURS))
}

/// Columns: address, kind of hardware, flags, hardware address, mask, device.
fn parse_neighbours(table: &str) -> Vec<Neighbour> {
    let neighbour = |line: &str| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let [address, _, flags, mac, ..] = columns[..] else { return None };
        let flags = u32::from_str_radix(flags.strip_prefix("0x")?, 16).ok()?;
        let (address, mac) = (address.parse().ok()?, mac.to_owned().try_into().ok()?);
        (flags & COMPLETE != 0).then_some(Neighbour { address, mac })
    };
    table.lines().skip(1).filter_map(neighbour).collect()
}

/// Where leases of `bridge` are usually kept: by dnsmasq itself, and by who runs one.
fn places(bridge: &str) -> [String; 8] {
    [
        "/var/lib/misc/dnsmasq.leases".to_owned(),
        "/var/lib/dnsmasq/dnsmasq.leases".to_owned(),
        format!("/var/lib/misc/dnsmasq.{bridge}.leases"),
        format!("/var/lib/libvirt/dnsmasq/{bridge}.status"),
        format!("/var/lib/NetworkManager/dnsmasq-{bridge}.leases"),
        format!("/var/lib/lxd/networks/{bridge}/dnsmasq.leases"),
        format!("/var/snap/lxd/common/lxd/networks/{bridge}/dnsmasq.leases"),
        format!("/var/lib/incus/networks/{bridge}/dnsmasq.leases"),
    ]
}

/// What files of leases say.
#[derive(Debug, Default)]
pub(super) struct Leases {
    /// Addresses that are lent to the hardware address, each once.
    pub(super) addresses: Vec<Ipv4Addr>,
    /// The files that were read.
    pub(super) read: Vec<PathBuf>,
    /// Those that could not be, and why.
    pub(super) unread: Vec<(PathBuf, std::io::Error)>,
}

impl Leases {
    /// Reads the files that were `named`, and those of the usual places, at the time `now` in seconds since 1970.
    pub(super) fn of(mac: MacAddr, bridge: &str, named: &[PathBuf], now: u64) -> Self {
        let mut leases = Self::default();
        for path in named {
            leases.read(path, mac, now, true);
        }
        for path in places(bridge) {
            leases.read(Path::new(&path), mac, now, false);
        }
        leases
    }

    fn read(&mut self, path: &Path, mac: MacAddr, now: u64, is_named: bool) {
        match fs::read_to_string(path) {
            Ok(text) => {
                let is_libvirts = path.extension().is_some_and(|extension| extension == "status");
                let found =
                    if is_libvirts { parse_status(&text, mac, now) } else { parse_leases(&text, mac, now) };
                for address in found {
                    if !self.addresses.contains(&address) {
                        self.addresses.push(address);
                    }
                }
                self.read.push(path.to_owned());
            }
            Err(error) if error.kind() == ErrorKind::NotFound && !is_named => {}
            Err(error) => self.unread.push((path.to_owned(), error)),
        }
    }
}

/// dnsmasq's own: the end of the lease in seconds since 1970, or 0; hardware address, address, name, client.
fn parse_leases(text: &str, mac: MacAddr, now: u64) -> Vec<Ipv4Addr> {
    let lent = |line: &str| {
        let mut columns = line.split_ascii_whitespace();
        let end: u64 = columns.next()?.parse().ok()?;
        let is_its = columns.next()?.eq_ignore_ascii_case(&mac.to_string());
        let address = columns.next()?.parse().ok()?;
        (is_its && is_valid(end, now)).then_some(address)
    };
    text.lines().filter_map(lent).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Status {
    ip_address: String,
    mac_address: String,
    #[serde(default)]
    expiry_time: u64,
}

/// What libvirt writes for the dnsmasq of its networks. An empty file is an empty list.
fn parse_status(text: &str, mac: MacAddr, now: u64) -> Vec<Ipv4Addr> {
    let all: Vec<Status> = serde_json::from_str(text).unwrap_or_default();
    let its = all.into_iter().filter(|lease| lease.mac_address.eq_ignore_ascii_case(&mac.to_string()));
    its.filter(|lease| is_valid(lease.expiry_time, now))
        .filter_map(|lease| lease.ip_address.parse().ok())
        .collect()
}

fn is_valid(end: u64, now: u64) -> bool {
    end == 0 || end > now
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([0x52, 0x54, 0xab, 0xcd, 0xef, 0x01]);

    fn address(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 9, 0, last)
    }

    #[test]
    fn neighbours_that_never_answered_are_passed_over() {
        let table = "IP address       HW type     Flags       HW address            Mask     Device\n\
                     10.9.0.11        0x1         0x2         52:54:ab:cd:ef:01     *        br0\n\
                     10.9.0.12        0x1         0x0         00:00:00:00:00:00     *        br0\n\
                     10.9.0.13        0x1         0x0         52:54:ab:cd:ef:01     *        br0\n\
                     10.9.0.14        0x1         0x6         52:54:ab:cd:ef:02     *        br1\n\
                     nonsense\n";
        let other = MacAddr([0x52, 0x54, 0xab, 0xcd, 0xef, 0x02]);
        let expected = [(address(11), MAC), (address(14), other)];
        assert_eq!(parse_neighbours(table), expected.map(|(address, mac)| Neighbour { address, mac }));
    }

    #[test]
    fn leases_are_those_of_the_card_that_have_not_ended() {
        let text = "1000 52:54:ab:cd:ef:01 10.9.0.11 old *\n\
                    2000 52:54:AB:CD:EF:01 10.9.0.12 web ff:00:01\n\
                    2000 52:54:ab:cd:ef:02 10.9.0.13 other *\n\
                    0 52:54:ab:cd:ef:01 10.9.0.14 * *\n\
                    duid 00:01:00:01\n";
        assert_eq!(parse_leases(text, MAC, 1000), [address(12), address(14)]);
        let status = r#"[{"ip-address": "10.9.0.11", "mac-address": "52:54:ab:cd:ef:01", "expiry-time": 1000},
            {"ip-address": "10.9.0.12", "mac-address": "52:54:ab:cd:ef:01", "hostname": "web", "expiry-time": 2000},
            {"ip-address": "10.9.0.13", "mac-address": "52:54:ab:cd:ef:02", "expiry-time": 2000}]"#;
        assert_eq!(parse_status(status, MAC, 1000), [address(12)]);
        assert!(parse_status("", MAC, 1000).is_empty());
    }

    #[test]
    fn file_that_was_named_must_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let (named, missing) = (folder.path().join("leases"), folder.path().join("none"));
        fs::write(&named, "0 52:54:ab:cd:ef:01 10.9.0.14 * *\n").unwrap();
        let leases = Leases::of(MAC, "no-such-bridge0", &[named.clone(), named.clone(), missing.clone()], 0);
        assert_eq!(leases.addresses, [address(14)], "once");
        assert!(leases.read.starts_with(&[named.clone(), named]));
        assert_eq!(leases.unread[0].0, missing);
    }
}

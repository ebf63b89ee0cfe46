//! Finding a guest on its network, by the hardware address of its card.
//!
//! Whoever may know where it is is asked, and nobody is believed: tables and leases outlive machines, and a guest may say
//! what it likes. An address is the guest's when something answers at it and the kernel knows it at the guest's own card
//! then. Where the host reaches that network through a router only, the kernel cannot know; then a lease has to do.

use std::io::ErrorKind as IoErrorKind;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::sources::{Leases, neighbours};
use super::taps::{Card, cards};
use crate::error::{Error, Result};
use crate::qemu::QemuBackend;
use crate::spec::{MacAddr, VmHandle};
use crate::ssh::PORT;

/// How long a guest may take to answer or refuse a connection. It is on this host; an emulated one takes its time.
const KNOCK: Duration = Duration::from_secs(1);

/// Time from one search to the next while a guest boots.
const AGAIN: Duration = Duration::from_millis(500);

/// How often it is asked whether a guest that is being logged in to got another address.
const MOVES: Duration = Duration::from_secs(3);

/// What is known of one address.
enum Finding {
    /// The guest is there.
    Guest,
    /// Nothing answers.
    Silence,
    /// It is the host's own.
    Host,
    /// It is at another card now.
    Stranger(MacAddr),
}

impl QemuBackend {
    /// Where the guest is on the network of one of its bridges now; [`Error::NoAddress`] says who was asked.
    pub(in crate::qemu) async fn find_address(&self, vm: &VmHandle) -> Result<Ipv4Addr> {
        let mut said = Vec::new();
        for (mac, told) in self.told(vm, &mut said)? {
            if is_found(mac, told, &mut said).await? {
                return Ok(told.0);
            }
        }
        for (mac, told) in self.told_by_agent(vm, &mut said).await {
            if is_found(mac, told, &mut said).await? {
                return Ok(told.0);
            }
        }
        Err(Error::NoAddress { said: said.join("; ") })
    }

    /// The same, as soon as the guest is there, before `deadline`.
    pub(in crate::qemu) async fn await_address(&self, vm: &VmHandle, deadline: Instant) -> Result<Ipv4Addr> {
        loop {
            let next = Instant::now() + AGAIN;
            match self.find_address(vm).await {
                Err(Error::NoAddress { .. }) if next < deadline => sleep_until(next).await,
                found => return found,
            }
        }
    }

    /// Waits until the guest is at another address than `known`.
    pub(in crate::qemu) async fn moves_from(&self, vm: &VmHandle, known: Ipv4Addr) -> Result<()> {
        loop {
            sleep_until(Instant::now() + MOVES).await;
            match self.find_address(vm).await {
                Ok(found) if found != known => return Ok(()),
                Ok(_) | Err(Error::NoAddress { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// What neighbours and leases tell, with who tells it.
    fn told(&self, vm: &VmHandle, said: &mut Vec<String>) -> Result<Vec<(MacAddr, Told)>> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let neighbours = neighbours()?;
        let mut all = Vec::new();
        for Card { mac, bridge, .. } in cards(&vm.machine) {
            let near = neighbours.iter().filter(|neighbour| neighbour.mac == mac);
            let mut told: Vec<Told> = near.map(|neighbour| (neighbour.address, "a neighbour")).collect();
            let leases = Leases::of(mac, bridge, &self.config().lease_files, now);
            let lent = leases.addresses.iter().map(|address| (*address, "a lease"));
            let is_new = |(address, _): &Told| told.iter().all(|(known, _)| known != address);
            let lent: Vec<_> = lent.filter(is_new).collect();
            told.extend(lent);
            if told.is_empty() {
                said.push(unknown(mac, bridge, &leases));
            }
            all.extend(told.into_iter().map(|told| (mac, told)));
        }
        Ok(all)
    }

    /// What the guest's agent tells of its cards, if there is one.
    async fn told_by_agent(&self, vm: &VmHandle, said: &mut Vec<String>) -> Vec<(MacAddr, Told)> {
        let interfaces = match self.ask_for_interfaces(vm).await {
            Ok(Some(interfaces)) => interfaces,
            Ok(None) => {
                said.push("no guest agent answers".to_owned());
                return Vec::new();
            }
            Err(error) => {
                said.push(format!("the guest agent cannot be asked: {error}"));
                return Vec::new();
            }
        };
        let mut told = Vec::new();
        for Card { mac, .. } in cards(&vm.machine) {
            let is_its = |told: &String| told.eq_ignore_ascii_case(&mac.to_string());
            let its = interfaces.iter().filter(|interface| interface.mac.as_ref().is_some_and(is_its));
            let addresses =
                its.flat_map(|interface| &interface.addresses).filter_map(|address| match address {
                    IpAddr::V4(address) => Some((mac, (*address, "the guest agent"))),
                    IpAddr::V6(_) => None,
                });
            told.extend(addresses);
        }
        if told.is_empty() {
            said.push("the guest agent tells of no IPv4 address of it".to_owned());
        }
        told
    }
}

/// An address, and who tells of it.
type Told = (Ipv4Addr, &'static str);

fn unknown(mac: MacAddr, bridge: &str, leases: &Leases) -> String {
    let quoted = |path: &PathBuf| format!("`{}`", path.display());
    let read = match &leases.read[..] {
        [] => "there is no file of leases in any usual place".to_owned(),
        read => format!("no lease in {} is its", read.iter().map(quoted).collect::<Vec<_>>().join(", ")),
    };
    let unread =
        leases.unread.iter().map(|(path, error)| format!(", {} cannot be read: {error}", quoted(path)));
    format!(
        "its card {mac} on `{bridge}` is no neighbour that this host knows, {read}{}",
        unread.collect::<String>()
    )
}

/// Whether the guest with this card is at an address; if not, `said` says why.
async fn is_found(mac: MacAddr, (address, teller): Told, said: &mut Vec<String>) -> Result<bool> {
    let what = match look_at(address, mac).await? {
        Finding::Guest => return Ok(true),
        Finding::Silence => format!("nothing answers at it, port {PORT}"),
        Finding::Host => "it is an address of this host".to_owned(),
        Finding::Stranger(other) => format!("it is at the card {other} now"),
    };
    said.push(format!("{teller} says {address} of its card {mac}, but {what}"));
    Ok(false)
}

async fn look_at(address: Ipv4Addr, mac: MacAddr) -> Result<Finding> {
    if is_own(address) {
        return Ok(Finding::Host);
    }
    if !answers(address).await {
        return Ok(Finding::Silence);
    }
    // Known since it answered, if it is on a network of this host at all.
    let holders = neighbours()?.into_iter().filter(|neighbour| neighbour.address == address);
    let stranger = holders.map(|neighbour| neighbour.mac).find(|found| *found != mac);
    Ok(stranger.map_or(Finding::Guest, Finding::Stranger))
}

/// Whether what is sent to `address` stays on this host.
fn is_own(address: Ipv4Addr) -> bool {
    let from = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        // Nothing is sent by this.
        socket.connect((address, PORT))?;
        socket.local_addr()
    });
    from.is_ok_and(|from| from.ip() == address)
}

/// Whether something at `address` takes or refuses a connection.
async fn answers(address: Ipv4Addr) -> bool {
    match timeout(KNOCK, TcpStream::connect((address, PORT))).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => error.kind() == IoErrorKind::ConnectionRefused,
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([0x52, 0x54, 0xab, 0xcd, 0xef, 0x01]);

    #[tokio::test]
    async fn address_of_the_host_is_never_a_guests() {
        let mut said = Vec::new();
        assert!(!is_found(MAC, (Ipv4Addr::LOCALHOST, "a lease"), &mut said).await.unwrap());
        let told = "a lease says 127.0.0.1 of its card 52:54:ab:cd:ef:01, but it is an address of this host";
        assert_eq!(said, [told]);
    }

    #[test]
    fn who_was_asked_is_told() {
        let mut leases = Leases::default();
        assert_eq!(
            unknown(MAC, "br0", &leases),
            "its card 52:54:ab:cd:ef:01 on `br0` is no neighbour that this host knows, there is no file of leases in any \
             usual place"
        );
        leases.read = vec!["/a".into(), "/b".into()];
        leases.unread = vec![("/c".into(), IoErrorKind::PermissionDenied.into())];
        let told = unknown(MAC, "br0", &leases);
        assert!(
            told.ends_with("no lease in `/a`, `/b` is its, `/c` cannot be read: permission denied"),
            "{told}"
        );
    }
}

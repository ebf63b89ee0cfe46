//! Network cards: how they are connected, and what leads to them from the host.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use serde::{Deserialize, Serialize};

use crate::name::Name;

/// A network card's hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MacAddr(pub [u8; 6]);

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> Self {
        mac.to_string()
    }
}

impl TryFrom<String> for MacAddr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            *byte = parts
                .next()
                .filter(|part| part.len() == 2)
                .and_then(|part| u8::from_str_radix(part, 16).ok())
                .ok_or_else(|| format!("`{text}` is not a MAC address"))?;
        }
        if parts.next().is_some() { Err(format!("`{text}` is not a MAC address")) } else { Ok(Self(bytes)) }
    }
}

/// How a network card is connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum NetworkConfig {
    /// QEMU's user-mode network: outgoing connections, and forwards from the host.
    User,
    /// A user network without the way out: forwards from the host, and nothing else.
    Isolated,
    /// A tap device on a bridge of the host.
    Tap {
        /// The bridge's name.
        bridge: String,
    },
    /// An illumos virtual network card.
    Vnic {
        /// The card's name.
        name: String,
    },
    /// A network between machines of one project.
    Private {
        /// The network's name.
        name: Name,
        /// The machine's address in it; chosen at plan time if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<Ipv4Addr>,
        /// What else was chosen for it at plan time; absent before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        link: Option<PrivateLink>,
    },
    /// No network card.
    None,
}

impl NetworkConfig {
    /// Whether it is QEMU's user-mode network, with or without a way out: then forwards lead to it.
    pub fn is_user(&self) -> bool {
        matches!(self, Self::User | Self::Isolated)
    }

    /// Whether this host reaches the guest through it.
    pub fn reaches_guest(&self) -> bool {
        self.is_user() || matches!(self, Self::Tap { .. } | Self::Vnic { .. })
    }

    /// What was chosen for a private network; `None` for others, and before it is chosen.
    pub fn link(&self) -> Option<&PrivateLink> {
        if let Self::Private { link, .. } = self { link.as_ref() } else { None }
    }
}

/// How a machine takes part in a private network: chosen at plan time and kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivateLink {
    /// How many bits all addresses of the network share.
    pub prefix: u8,
    /// The multicast group, on the loopback interface of the host, that carries the network's frames.
    pub hub: SocketAddrV4,
    /// The other machines of the network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Peer>,
}

/// Another machine of a private network, as a guest knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Peer {
    /// Its address.
    pub address: Ipv4Addr,
    /// What it is called; letters, digits, `-`, `_` and `.` only.
    pub names: Vec<String>,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.address, self.names.join(" "))
    }
}

/// Transport protocol of a forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The name as written in a VMFile and in QEMU's options.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A port of the host that leads to a port of the guest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Forward {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Address of the host that is bound; loopback unless the VMFile says otherwise.
    pub host_address: IpAddr,
    /// Port of the host; 0 asks the kernel to choose at start.
    pub host_port: u16,
    /// Port of the guest.
    pub guest_port: u16,
}

impl Forward {
    /// The forward that leads to the guest's sshd, on a loopback port of the kernel's choice.
    pub const SSH: Self = Self {
        protocol: Protocol::Tcp,
        host_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        host_port: 0,
        guest_port: 22,
    };
}

/// One network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// Its hardware address, chosen at plan time and kept.
    pub mac: MacAddr,
    /// How it is connected.
    pub network: NetworkConfig,
    /// Forwards to it; only a user network has any.
    pub forwards: Vec<Forward>,
}

impl Nic {
    /// Whether it is connected to a network between machines.
    pub fn is_private(&self) -> bool {
        matches!(self.network, NetworkConfig::Private { .. })
    }
}

//! What a machine of the `propolis` backend needs to know of its server and of illumos.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How a machine's propolis-server is reached or started, and what it stands on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PropolisOptions {
    /// A server that somebody else runs. Without one, vmctl starts a server of the machine's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<SocketAddr>,
    /// The program that vmctl starts; `propolis-server` of PATH if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary: Option<PathBuf>,
    /// The UEFI image that guests boot with; a server that vmctl starts needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootrom: Option<PathBuf>,
    /// The version of the server's API that is spoken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// The ZFS dataset under which disks are volumes; without one they are files in the machine's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The link over which vmctl makes the machine's vnics; without one they are there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vnic_link: Option<String>,
    /// The zone of the machine's own in which its server runs; without one it runs beside vmctl.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<ZoneOptions>,
}

/// The zone that a machine's server has, and how it is reached there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneOptions {
    /// The installed zone that it is a clone of.
    pub template: String,
    /// The link over which the zone's control card is made.
    pub link: String,
    /// The address of that card: where the server is reached.
    pub address: Ipv4Addr,
    /// How many bits of the address name its network.
    pub prefix: u8,
    /// The port on which the server listens.
    pub port: u16,
}

impl ZoneOptions {
    /// The port on which Propolis servers listen by custom.
    pub const PORT: u16 = 12400;

    /// Where the server is reached.
    pub fn server(&self) -> SocketAddr {
        (self.address, self.port).into()
    }
}

impl PropolisOptions {
    /// Whether nothing is said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

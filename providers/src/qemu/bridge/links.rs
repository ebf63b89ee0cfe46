//! The network devices of the host, as iproute2 tells of them.
//!
//! `/sys/class/net` may show another network namespace than the one that this process is in; this does not.

use std::time::Duration;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::process::{Program, helper};

/// Tells of network devices, and puts them on bridges.
pub(super) const IP: Program = Program { name: "ip", package: "iproute2" };

/// How long it may take. It takes milliseconds, but for hosts with thousands of devices.
const DEADLINE: Duration = Duration::from_secs(10);

/// A network device of the host.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Link {
    /// Its name.
    #[serde(rename = "ifname")]
    pub name: String,
    flags: Vec<String>,
    pub(super) mtu: u32,
    /// The bridge that it is on.
    pub(super) master: Option<String>,
    #[serde(default)]
    linkinfo: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
struct Kind {
    #[serde(rename = "info_kind")]
    name: Option<String>,
}

impl Link {
    /// Whether it is a bridge of the kernel's.
    pub fn is_bridge(&self) -> bool {
        self.linkinfo.name.as_deref() == Some("bridge")
    }

    /// Whether it was brought up.
    pub fn is_up(&self) -> bool {
        self.flags.iter().any(|flag| flag == "UP")
    }

    /// Where it is in words, unless it is up and on `bridge`.
    pub(super) fn is_off(&self, bridge: &str) -> Option<String> {
        match self.master.as_deref() {
            Some(master) if master != bridge => Some(format!("on `{master}`")),
            Some(_) if self.is_up() => None,
            Some(_) => Some("down".to_owned()),
            None => Some("on no bridge".to_owned()),
        }
    }
}

/// All network devices of the host.
pub async fn links() -> Result<Vec<Link>> {
    parse(&helper(&IP, &["-json", "-details", "link", "show"], DEADLINE).await?)
}

/// Puts the device `name` on `bridge` and brings it up.
///
/// A bridge without an address of its own takes over the lowest of its devices': the first byte keeps this one out of
/// that, as libvirt and QEMU's helper do.
pub(super) async fn join(name: &str, address: &str, bridge: &Link) -> Result<()> {
    let mtu = bridge.mtu.to_string();
    let args = ["link", "set", "dev", name, "address", address, "mtu", &mtu, "master", &bridge.name, "up"];
    helper(&IP, &args, DEADLINE).await.map(drop)
}

/// Puts a device that is up back on `bridge`.
pub(super) async fn rejoin(name: &str, bridge: &str) -> Result<()> {
    helper(&IP, &["link", "set", "dev", name, "master", bridge, "up"], DEADLINE).await.map(drop)
}

fn parse(text: &[u8]) -> Result<Vec<Link>> {
    serde_json::from_slice(text).map_err(|error| Error::Unusable {
        path: IP.name.into(),
        reason: format!("what it says of the network devices of the host cannot be read: {error}"),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// As iproute2 6.1 tells of two bridges, one of them down, and of three devices.
    pub(in super::super) const TOLD: &str = r#"[
        {"ifindex":1,"ifname":"lo","flags":["LOOPBACK","UP","LOWER_UP"],"mtu":65536,"link_type":"loopback"},
        {"ifname":"br0","flags":["BROADCAST","MULTICAST","UP","LOWER_UP"],"mtu":9000,"linkinfo":{"info_kind":"bridge"}},
        {"ifname":"br1","flags":["BROADCAST","MULTICAST"],"mtu":1500,"linkinfo":{"info_kind":"bridge"}},
        {"ifname":"tap0","flags":["UP"],"mtu":1500,"master":"br0","linkinfo":{"info_kind":"tun","info_slave_kind":"bridge"}},
        {"ifname":"tap1","flags":["BROADCAST"],"mtu":1500,"master":"br0","linkinfo":{"info_kind":"tun"}}]"#;

    pub(in super::super) fn told() -> Vec<Link> {
        parse(TOLD.as_bytes()).unwrap()
    }

    #[test]
    fn bridges_and_what_is_on_them_are_told_apart() {
        let links = told();
        let bridges: Vec<_> = links.iter().filter(|link| link.is_bridge()).collect();
        assert_eq!(
            bridges.iter().map(|link| (&*link.name, link.is_up())).collect::<Vec<_>>(),
            [("br0", true), ("br1", false)]
        );
        let off = |name: &str, bridge| links.iter().find(|link| link.name == name).unwrap().is_off(bridge);
        assert_eq!(off("tap0", "br0"), None);
        assert_eq!(off("tap0", "br1").as_deref(), Some("on `br0`"));
        assert_eq!(off("tap1", "br0").as_deref(), Some("down"));
        assert_eq!(off("lo", "br0").as_deref(), Some("on no bridge"));
        assert!(parse(b"nonsense").is_err());
    }
}

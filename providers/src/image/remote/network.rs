//! Which addresses are inside, and a resolver that gives only others.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::options::FetchOptions;
use crate::spec::Secret;

/// Addresses of this host, of its own network, and of nobody: what a server of the internet has no business to send on
/// to (RFC 6890, RFC 4291).
pub(super) fn is_inside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(it) => {
            let [a, b, ..] = it.octets();
            it.is_loopback()
                || it.is_private()
                || it.is_link_local()
                || it.is_unspecified()
                || it.is_broadcast()
                || it.is_multicast()
                || a == 0
                || (a == 100 && (64..128).contains(&b))
                || (a == 198 && (18..20).contains(&b))
                || a >= 240
        }
        IpAddr::V6(it) => {
            embedded(it).is_some_and(|it| is_inside(IpAddr::V4(it))) || {
                it.is_loopback()
                    || it.is_unspecified()
                    || it.is_multicast()
                    || it.is_unique_local()
                    || it.is_unicast_link_local()
            }
        }
    }
}

/// The IPv4 address that an IPv6 one leads to: mapped, or by NAT64 (RFC 6052) or 6to4 (RFC 3056).
fn embedded(address: Ipv6Addr) -> Option<std::net::Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let of = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        std::net::Ipv4Addr::new(a, b, c, d)
    };
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => Some(of(g, h)),
        [0x2002, high, low, ..] => Some(of(high, low)),
        _ => None,
    }
}

/// Resolves names by the system.
#[derive(Debug, Clone)]
pub(super) struct Resolver {
    hosts: BTreeMap<String, IpAddr>,
    public: Vec<IpAddr>,
    /// Names of proxies: they are inside as a rule, and chosen by whoever runs vmctl.
    proxies: Vec<String>,
    /// Whether addresses inside are left out.
    only_outside: bool,
}

impl Resolver {
    pub(super) fn new(options: &FetchOptions, only_outside: bool) -> Self {
        let proxies = [&options.proxies.http, &options.proxies.https].into_iter().flatten();
        let host = |proxy: &Secret| Url::parse(proxy.expose()).ok()?.host_str().map(str::to_ascii_lowercase);
        Self {
            hosts: options.hosts.clone(),
            public: options.public.clone(),
            proxies: proxies.filter_map(host).collect(),
            only_outside,
        }
    }

    /// Whether `address` may not be connected to by a redirect from outside.
    pub(super) fn is_inside(&self, address: IpAddr) -> bool {
        is_inside(address) && !self.public.contains(&address)
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let this = self.clone();
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let mut found: Vec<SocketAddr> = match this.hosts.get(&host) {
                Some(address) => vec![SocketAddr::new(*address, 0)],
                None => tokio::net::lookup_host((host.as_str(), 0)).await?.collect(),
            };
            if this.only_outside && !this.proxies.contains(&host) {
                let inside = found.iter().map(SocketAddr::ip).find(|address| this.is_inside(*address));
                found.retain(|address| !this.is_inside(address.ip()));
                if let (true, Some(address)) = (found.is_empty(), inside) {
                    return Err(Box::new(OnlyInside { host, address }) as Box<dyn StdError + Send + Sync>);
                }
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// A name that leads nowhere but inside.
#[derive(Debug, Clone)]
pub(super) struct OnlyInside {
    pub(super) host: String,
    pub(super) address: IpAddr,
}

impl fmt::Display for OnlyInside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is {} here", self.host, self.address)
    }
}

impl StdError for OnlyInside {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_inside_are_told_however_they_are_written() {
        for text in [
            "127.0.0.1",
            "127.9.9.9",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "0.1.2.3",
            "100.64.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
        ] {
            assert!(is_inside(text.parse().unwrap()), "{text}");
        }
        for text in
            ["1.1.1.1", "172.32.0.1", "100.128.0.1", "198.20.0.1", "2606:4700::1111", "::ffff:1.1.1.1"]
        {
            assert!(!is_inside(text.parse().unwrap()), "{text}");
        }
    }
}

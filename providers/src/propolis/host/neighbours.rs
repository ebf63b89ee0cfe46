//! Guests on the network, by the hardware addresses of their cards.

use std::net::Ipv4Addr;

use super::vnics::mac_of;
use super::{Runner, commands};
use crate::error::Result;
use crate::spec::MacAddr;

/// The addresses at which the host knows a card, each once.
pub(in crate::propolis) async fn addresses_of(host: &dyn Runner, mac: MacAddr) -> Result<Vec<Ipv4Addr>> {
    Ok(parse(&host.run(&commands::neighbours()).await?, mac))
}

/// Tables differ in their columns: a line that has the hardware address tells the address that it has as well. The first
/// one, for a mask may follow.
fn parse(table: &str, mac: MacAddr) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    for line in table.lines() {
        let words = || line.split_ascii_whitespace().map(|word| word.trim_matches(['(', ')']));
        if !words().any(|word| mac_of(word) == Some(mac)) {
            continue;
        }
        if let Some(address) = words().find_map(|word| word.parse().ok())
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn card_is_found_in_the_tables_of_illumos_and_linux() {
        let mac = MacAddr([0x52, 0x54, 0, 1, 2, 0x30]);
        let illumos = "Net to Media Table: IPv4\n\
                       Device   IP Address               Mask      Flags      Phys Addr\n\
                       ------ -------------------- --------------- -------- ---------------\n\
                       net0   10.0.0.7             255.255.255.255          52:54:00:01:02:30\n\
                       net0   10.0.0.8             255.255.255.255          52:54:00:01:02:31\n";
        assert_eq!(parse(illumos, mac), [Ipv4Addr::new(10, 0, 0, 7)]);
        let linux = "? (10.0.0.9) at 52:54:00:01:02:30 [ether] on br0\n? (10.0.0.1) at <incomplete> on br0\n";
        assert_eq!(parse(linux, mac), [Ipv4Addr::new(10, 0, 0, 9)]);
        assert_eq!(parse("", mac), [Ipv4Addr::UNSPECIFIED; 0]);
    }
}

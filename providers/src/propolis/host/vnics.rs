//! Vnics: those that are found, and those that are made for a machine.
//!
//! A vnic has no room for a mark of ours. What is made for an instance bears the hardware address that was chosen for
//! it, over the link that it was made on: that is the mark. One of the same name with another address is somebody else's.

use super::{Runner, commands};
use crate::error::{Error, Result};
use crate::spec::{MacAddr, Machine, NetworkConfig};

/// A vnic of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::propolis) struct Vnic {
    /// Its name.
    pub(in crate::propolis) name: String,
    /// The link that it is on.
    pub(in crate::propolis) over: String,
    /// Its hardware address, and so the guest's.
    pub(in crate::propolis) mac: Option<MacAddr>,
}

/// A vnic as a machine wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::propolis) struct Wanted<'a> {
    /// Its name.
    pub(in crate::propolis) name: &'a str,
    /// Its address, if it is made by us.
    pub(in crate::propolis) mac: MacAddr,
}

/// The vnics of a machine, in order.
pub(in crate::propolis) fn wanted(machine: &Machine) -> Vec<Wanted<'_>> {
    let vnic = |nic: &'_ crate::spec::Nic| nic.mac;
    machine
        .nics
        .iter()
        .filter_map(|nic| match &nic.network {
            NetworkConfig::Vnic { name } => Some(Wanted { name, mac: vnic(nic) }),
            NetworkConfig::User
            | NetworkConfig::Isolated
            | NetworkConfig::Tap { .. }
            | NetworkConfig::Private { .. }
            | NetworkConfig::None => None,
        })
        .collect()
}

/// The vnics that are there.
pub(in crate::propolis) async fn found(host: &dyn Runner) -> Result<Vec<Vnic>> {
    Ok(parse(&host.run(&commands::show_vnics()).await?))
}

/// Makes those of `wanted` over `link` that are missing; without a `link`, all must be there. Idempotent.
pub(in crate::propolis) async fn ensure(
    host: &dyn Runner,
    wanted: &[Wanted<'_>],
    link: Option<&str>,
) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let found = found(host).await?;
    for vnic in wanted {
        match (found.iter().find(|there| there.name == vnic.name), link) {
            (Some(there), Some(link)) if is_ours(there, *vnic, link) => {}
            (Some(there), Some(_)) => {
                let found = format!("somebody else: it is over `{}`, at {}", there.over, address(there));
                return Err(Error::Foreign { path: vnic.name.into(), found });
            }
            (Some(_), None) => {}
            (None, Some(link)) => {
                host.run(&commands::create_vnic(vnic.name, link, vnic.mac)).await?;
            }
            (None, None) => {
                let reason = "there is no such vnic. Make it (`dladm create-vnic`), or let vmctl make it over a link: \
                              `vnic-link` in the `backend` block";
                return Err(Error::Unusable { path: vnic.name.into(), reason: reason.to_owned() });
            }
        }
    }
    Ok(())
}

/// Removes those of `unwanted` that were made by us over `link`, and no others. Missing is fine.
pub(in crate::propolis) async fn remove(
    host: &dyn Runner,
    unwanted: &[Wanted<'_>],
    link: Option<&str>,
) -> Result<()> {
    let (Some(link), false) = (link, unwanted.is_empty()) else { return Ok(()) };
    let found = found(host).await?;
    for vnic in unwanted {
        match found.iter().find(|there| there.name == vnic.name) {
            Some(there) if is_ours(there, *vnic, link) => {
                host.run(&commands::delete_vnic(vnic.name)).await?;
            }
            Some(there) => tracing::warn!(vnic = vnic.name, ?there, "not ours: it stays"),
            None => {}
        }
    }
    Ok(())
}

/// Makes a card whose hardware address nobody else has, so that it alone is its mark, or makes it over another link.
/// Idempotent. It must not be in use where its link changes.
pub(in crate::propolis) async fn ensure_own(host: &dyn Runner, wanted: Wanted<'_>, link: &str) -> Result<()> {
    let found = found(host).await?;
    match found.iter().find(|there| there.name == wanted.name) {
        Some(there) if is_ours(there, wanted, link) => return Ok(()),
        Some(there) if there.mac == Some(wanted.mac) => {
            host.run(&commands::delete_vnic(wanted.name)).await?;
        }
        Some(there) => {
            let found = format!("somebody else: it is at {}", address(there));
            return Err(Error::Foreign { path: wanted.name.into(), found });
        }
        None => {}
    }
    host.run(&commands::create_vnic(wanted.name, link, wanted.mac)).await.map(drop)
}

/// Removes such a card, over whatever link. Missing is fine.
pub(in crate::propolis) async fn remove_own(host: &dyn Runner, wanted: Wanted<'_>) -> Result<()> {
    let found = found(host).await?;
    match found.iter().find(|there| there.name == wanted.name) {
        Some(there) if there.mac == Some(wanted.mac) => {
            host.run(&commands::delete_vnic(wanted.name)).await.map(drop)
        }
        Some(there) => {
            tracing::warn!(vnic = wanted.name, ?there, "not ours: it stays");
            Ok(())
        }
        None => Ok(()),
    }
}

fn is_ours(there: &Vnic, wanted: Wanted<'_>, link: &str) -> bool {
    there.over == link && there.mac == Some(wanted.mac)
}

fn address(vnic: &Vnic) -> String {
    vnic.mac.map_or_else(|| "an unknown address".to_owned(), |mac| mac.to_string())
}

/// Reads what `dladm show-vnic -p` prints: colons between fields, and a backslash before those inside of one.
fn parse(text: &str) -> Vec<Vnic> {
    let vnic = |line: &str| {
        let [name, over, mac] = <[String; 3]>::try_from(fields(line)).ok()?;
        Some(Vnic { name, over, mac: mac_of(&mac) })
    };
    text.lines().filter_map(vnic).collect()
}

/// The fields of a line, with colons between.
pub(super) fn fields(line: &str) -> Vec<String> {
    let (mut all, mut field, mut escaped) = (Vec::new(), String::new(), false);
    for sign in line.chars() {
        match sign {
            '\\' if !escaped => escaped = true,
            ':' if !escaped => all.push(std::mem::take(&mut field)),
            sign => {
                field.push(sign);
                escaped = false;
            }
        }
    }
    all.push(field);
    all
}

/// illumos leaves out leading zeros.
pub(in crate::propolis) fn mac_of(text: &str) -> Option<MacAddr> {
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|part| (1..=2).contains(&part.len()).then(|| u8::from_str_radix(part, 16).ok()).flatten())
        .collect();
    bytes?.try_into().ok().map(MacAddr)
}

#[cfg(test)]
mod tests {
    use super::super::fake::FakeHost;
    use super::*;

    const OURS: MacAddr = MacAddr([0x52, 0x54, 0, 0xa, 0xb, 0xc]);
    const WEB: Wanted<'static> = Wanted { name: "web0", mac: OURS };

    #[test]
    fn addresses_are_read_as_illumos_writes_them() {
        let text = "web0:igb0:52\\:54\\:0\\:a\\:b\\:c\nodd:vlan\\:7:?\n\nbroken\n";
        let found = parse(text);
        assert_eq!(
            found,
            [
                Vnic { name: "web0".to_owned(), over: "igb0".to_owned(), mac: Some(OURS) },
                Vnic { name: "odd".to_owned(), over: "vlan:7".to_owned(), mac: None },
            ]
        );
        assert_eq!(
            (mac_of("52:54:00:0a:0b:0c"), mac_of("1:2:3"), mac_of("1:2:3:4:5:678")),
            (Some(OURS), None, None)
        );
    }

    #[tokio::test]
    async fn vnics_are_made_once_and_removed_if_they_are_ours() {
        let host = FakeHost::default();
        ensure(&host, &[WEB], Some("igb0")).await.unwrap();
        ensure(&host, &[WEB], Some("igb0")).await.unwrap();
        assert_eq!(host.deeds(), ["dladm create-vnic -t -l igb0 -m 52:54:00:0a:0b:0c web0"]);
        remove(&host, &[WEB], Some("igb0")).await.unwrap();
        remove(&host, &[WEB], Some("igb0")).await.unwrap();
        assert_eq!(host.deeds()[1..], ["dladm delete-vnic web0"]);
    }

    #[tokio::test]
    async fn vnic_of_somebody_else_is_refused_and_never_removed() {
        let host = FakeHost::default();
        host.add_vnic("web0", "igb0", MacAddr([2, 8, 0x20, 1, 2, 3]));
        let error = ensure(&host, &[WEB], Some("igb0")).await.unwrap_err().to_string();
        assert!(error.contains("02:08:20:01:02:03"), "{error}");
        remove(&host, &[WEB], Some("igb0")).await.unwrap();
        // Of the right address, and over another link.
        host.add_vnic("web0", "igb1", OURS);
        ensure(&host, &[WEB], Some("igb0")).await.unwrap_err();
        remove(&host, &[WEB], Some("igb0")).await.unwrap();
        // Without a link nothing was made by us.
        ensure(&host, &[WEB], None).await.unwrap();
        remove(&host, &[WEB], None).await.unwrap();
        assert_eq!(host.deeds(), [""; 0]);
    }

    #[tokio::test]
    async fn missing_vnic_says_what_to_do_and_a_failed_command_what_it_said() {
        let host = FakeHost::default();
        let error = ensure(&host, &[WEB], None).await.unwrap_err().to_string();
        assert!(error.contains("vnic-link"), "{error}");
        host.fail("dladm create-vnic", "dladm: invalid link name");
        let error = ensure(&host, &[WEB], Some("nope")).await.unwrap_err().to_string();
        let command = "`dladm create-vnic -t -l nope -m 52:54:00:0a:0b:0c web0` failed with exit code 1";
        assert!(error.starts_with(command) && error.ends_with("dladm: invalid link name"), "{error}");
    }
}

//! Words with a grammar of their own: host names, users, interfaces, file URLs.

use std::net::Ipv4Addr;

use crate::desired::Subnet;

/// Longest name of a network interface (`IFNAMSIZ` less its end mark).
pub(super) const MAX_INTERFACE: usize = 15;

/// What is wrong with a hostname, if anything: labels of letters, digits and dashes, joined by dots.
pub(super) fn hostname_fault(text: &str) -> Option<&'static str> {
    const MAX_LABEL: usize = 63;
    const MAX_HOSTNAME: usize = 253;
    let label_is_fine = |label: &str| {
        !label.is_empty()
            && label.len() <= MAX_LABEL
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if text.len() > MAX_HOSTNAME {
        Some("too long")
    } else if !text.split('.').all(label_is_fine) {
        Some("not a host name")
    } else {
        None
    }
}

/// Whether `text` can name a login user: what `useradd` takes by default.
pub(super) fn is_user(text: &str) -> bool {
    const MAX_USER: usize = 32;
    text.len() <= MAX_USER
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'))
}

/// Whether `text` can name a network interface or bridge.
pub(super) fn is_interface(text: &str) -> bool {
    text.len() <= MAX_INTERFACE
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Whether `text` can name an environment variable.
pub(super) fn is_environment(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether `text` is an absolute path without `..` and control characters.
pub(super) fn is_guest_path(text: &str) -> bool {
    text.starts_with('/') && !text.chars().any(char::is_control) && !text.split('/').any(|part| part == "..")
}

/// Whether `text` has letters, digits and `signs` only, and begins with a letter or digit: no option of QEMU can be
/// slipped in by it.
pub(super) fn is_qemu_word(text: &str, signs: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || signs.contains(c))
}

/// The permission bits that `text` writes in octal digits.
pub(super) fn mode(text: &str) -> Option<u32> {
    const MAX_MODE: u32 = 0o7777;
    let is_octal = !text.is_empty() && text.len() <= 5 && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
    u32::from_str_radix(text, 8).ok().filter(|mode| is_octal && *mode <= MAX_MODE)
}

/// Whether `text` is a user, or a user and a group.
pub(super) fn is_owner(text: &str) -> bool {
    match text.split_once(':') {
        Some((user, group)) => is_user(user) && is_user(group),
        None => is_user(text),
    }
}

/// The private IPv4 network that `text` writes, or what is wrong with it.
pub(super) fn subnet(text: &str) -> Result<Subnet, &'static str> {
    let (address, prefix) =
        text.split_once('/').ok_or("it has no `/` and number of bits behind its address")?;
    let network: Ipv4Addr = address.parse().map_err(|_| "it begins with no IPv4 address")?;
    let is_number = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
    let prefix: u8 = prefix.parse().ok().filter(|_| is_number).ok_or("no number follows its `/`")?;
    if !(8..=29).contains(&prefix) {
        return Err("its number of bits must be 8 to 29");
    }
    let subnet = Subnet { network, prefix };
    let is_within = PRIVATE.iter().any(|range| range.contains(network) && prefix >= range.prefix);
    if !is_within {
        return Err("it is not within 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16");
    }
    if subnet.first() != network {
        return Err("its address is not the first of the range");
    }
    Ok(subnet)
}

/// The networks that are free for private use, by RFC 1918.
const PRIVATE: [Subnet; 3] = [
    Subnet { network: Ipv4Addr::new(10, 0, 0, 0), prefix: 8 },
    Subnet { network: Ipv4Addr::new(172, 16, 0, 0), prefix: 12 },
    Subnet { network: Ipv4Addr::new(192, 168, 0, 0), prefix: 16 },
];

/// The path of a `file` URL: `file:///abs` or `file://localhost/abs`, percent-decoded.
pub(super) fn file_url_path(rest: &str) -> Result<String, &'static str> {
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    if !path.starts_with('/') {
        return Err("a file URL names an absolute path on this host: `file:///images/debian.qcow2`");
    }
    if path.contains(['?', '#']) {
        return Err("a file URL has no `?` or `#`; write `%3F` and `%23` if they belong to the file's name");
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit =
            || rest.next().and_then(|b| char::from(b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        match (digit(), digit()) {
            (Some(high), Some(low)) if high | low != 0 => bytes.push(high << 4 | low),
            _ => return Err("`%` begins two hexadecimal digits (not 00); write `%25` for a percent sign"),
        }
    }
    String::from_utf8(bytes).map_err(|_| "the decoded path is not UTF-8; use `image` with a path")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_labels_joined_by_dots() {
        for good in ["web", "WEB-1", "a.b.c", "0"] {
            assert_eq!(hostname_fault(good), None, "{good}");
        }
        for bad in
            ["", ".", "a..b", "-a", "a-", "a_b", "a b", "a\nb", "bür", &"a".repeat(64), &"a.".repeat(127)]
        {
            assert!(hostname_fault(bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn users_and_interfaces_hold_nothing_that_could_end_a_word() {
        for good in ["vm", "_apt", "user-1", "www_data"] {
            assert!(is_user(good), "{good}");
        }
        for bad in ["", "Vm", "1a", "-a", "a b", "a:b", "a\n", "a.b", &"a".repeat(33)] {
            assert!(!is_user(bad), "{bad:?}");
        }
        for good in ["br0", "br-lan.7", "Eth_0"] {
            assert!(is_interface(good), "{good}");
        }
        for bad in ["", "br,0", "br/0", "-br", ".", "..", "br 0", &"a".repeat(16)] {
            assert!(!is_interface(bad), "{bad:?}");
        }
    }

    #[test]
    fn subnets_are_ranges_for_private_use() {
        for good in ["10.77.0.0/24", "172.16.0.0/12", "192.168.1.8/29", "10.0.0.0/8"] {
            assert_eq!(subnet(good).map(|subnet| subnet.to_string()).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "10.77.0.0",
            "10.77.0.1/24",
            "10.77.0.0/30",
            "10.77.0.0/7",
            "172.0.0.0/8",
            "8.8.8.0/24",
            "10.0.0.0/+8",
            "a/8",
            "10.0.0.0/256",
        ] {
            assert!(subnet(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn modes_are_octal_digits() {
        assert_eq!(mode("0644"), Some(0o644));
        assert_eq!(mode("7777"), Some(0o7777));
        for bad in ["", "0o644", "888", "10000", "+644", "-1", "u+x"] {
            assert_eq!(mode(bad), None, "{bad}");
        }
    }

    #[test]
    fn file_urls_name_absolute_paths_of_this_host() {
        assert_eq!(file_url_path("/a/b").as_deref(), Ok("/a/b"));
        assert_eq!(file_url_path("localhost/a%20%C3%A4%25").as_deref(), Ok("/a ä%"));
        for bad in
            ["", "a/b", "server/a", "localhosts/a", "/a%", "/a%2", "/a%zz", "/a%00", "/a?x", "/a#x", "/%ff"]
        {
            assert!(file_url_path(bad).is_err(), "{bad}");
        }
    }
}

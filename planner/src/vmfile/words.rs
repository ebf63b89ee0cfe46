//! Words with a grammar of their own: host names, users, interfaces, file URLs.

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

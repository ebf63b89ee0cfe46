//! Where an image is: URLs taken apart, and shown without what is secret in them.

use reqwest::Url;

use super::error::FetchError;
use crate::spec::Digest;

/// Where an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A file of a web server.
    Web(Url),
    /// An artifact in a registry.
    Registry(Reference),
}

/// An artifact in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    /// Host, and port if it is not the usual one.
    pub(super) host: String,
    /// Name of the repository.
    pub(super) name: String,
    /// What is asked for.
    pub(super) version: Version,
}

/// Which manifest of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Version {
    /// What the tag stands for now.
    Tag(String),
    /// This one and no other.
    Digest(Digest),
}

impl Version {
    /// As it stands in a registry's paths.
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Tag(tag) => tag,
            Self::Digest(digest) => digest.as_str(),
        }
    }
}

impl Place {
    pub(super) fn parse(url: &str) -> Result<Self, FetchError> {
        let (scheme, rest) = url.split_once("://").ok_or(FetchError::Url("it has no `://`"))?;
        match scheme.to_ascii_lowercase().as_str() {
            // A browser would pass over the third stroke and take the path for a server.
            "http" | "https" if rest.starts_with('/') => Err(FetchError::Url("it names no server")),
            "http" | "https" => {
                let url = Url::parse(url).map_err(|_| FetchError::Url("it cannot be taken apart"))?;
                match url.host_str() {
                    Some(host) if !host.is_empty() => Ok(Self::Web(url)),
                    _ => Err(FetchError::Url("it names no server")),
                }
            }
            "oci" => Reference::parse(rest).map(Self::Registry),
            _ => Err(FetchError::Url("its kind is neither http, https nor oci")),
        }
    }
}

impl Reference {
    /// The grammar is that of distribution-spec: <https://github.com/opencontainers/distribution-spec>.
    fn parse(text: &str) -> Result<Self, FetchError> {
        let (host, rest) = text.split_once('/').ok_or(FetchError::Url("it names no repository"))?;
        let (name, version) = match (rest.split_once('@'), rest.rsplit_once(':')) {
            (Some((name, digest)), _) => {
                let hex = digest.strip_prefix("sha256:").filter(|hex| is_hex(hex));
                let hex = hex.ok_or(FetchError::Url("behind its `@` is no `sha256:` with 64 digits"))?;
                // A tag in front of a digest is for people only.
                let name = name.split_once(':').map_or(name, |(name, _)| name);
                (name, Version::Digest(Digest::from_hex(hex)))
            }
            (None, Some((name, tag))) => (name, Version::Tag(tag.to_owned())),
            (None, None) => (rest, Version::Tag("latest".to_owned())),
        };
        // Only what makes a host and a port: the rest would be understood by a URL in ways of its own.
        let is_host = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
        if host.is_empty() || !host.chars().all(is_host) {
            return Err(FetchError::Url("its server is no host with a port"));
        }
        let is_part = |part: &str| {
            let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
            part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.chars().all(inner)
        };
        if name.len() > 255 || !name.split('/').all(is_part) {
            return Err(FetchError::Url(
                "its repository is not written in small letters, digits, `.`, `_`, `-` and `/`",
            ));
        }
        let is_tag = |tag: &str| {
            let inner = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            (1..=128).contains(&tag.len()) && tag.chars().all(inner) && !tag.starts_with(['.', '-'])
        };
        match &version {
            Version::Tag(tag) if !is_tag(tag) => Err(FetchError::Url("its tag is none")),
            _ => Ok(Self { host: host.to_owned(), name: name.to_owned(), version }),
        }
    }
}

fn is_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// A URL without login and query: both may hold what nobody shall read in a message or a file.
pub fn shown(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (server, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let server = server.rsplit_once('@').map_or(server, |(_, server)| server);
    let (path, query) = path.split_at(path.find(['?', '#']).unwrap_or(path.len()));
    format!("{scheme}://{server}{path}{}", if query.is_empty() { "" } else { "?…" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(text: &str) -> Option<(String, String, String)> {
        match Place::parse(text) {
            Ok(Place::Registry(it)) => Some((it.host, it.name, it.version.as_str().to_owned())),
            Ok(Place::Web(_)) => panic!("{text} is no web server's"),
            Err(_) => None,
        }
    }

    #[test]
    fn references_are_taken_apart() {
        let of = |host: &str, name: &str, version: &str| Some((host.into(), name.into(), version.into()));
        let digest = format!("sha256:{}", "a1".repeat(32));
        assert_eq!(reference("oci://ghcr.io/team/debian:12"), of("ghcr.io", "team/debian", "12"));
        assert_eq!(reference("oci://localhost:5000/debian"), of("localhost:5000", "debian", "latest"));
        assert_eq!(reference("OCI://[::1]:5000/a/b-c:x_1.2"), of("[::1]:5000", "a/b-c", "x_1.2"));
        for tag in ["", ":12"] {
            assert_eq!(reference(&format!("oci://h/a{tag}@{digest}")), of("h", "a", &digest));
        }
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for text in [
            "oci://host",
            "oci:///a",
            "oci://h/",
            "oci://h/A",
            "oci://h/../x",
            "oci://h/a/../../x",
            "oci://h/a:",
            "oci://h/a:-x",
            "oci://u:p@h/a",
            "oci://h/a?b",
            "oci://h/a@sha256:12",
            "oci://h/a@md5:00",
            "oci://h /a",
            "oci://h/a//b",
            "oci://h/a:b/c",
            "oci://h/a\0:x",
        ] {
            assert_eq!(reference(text), None, "{text:?}");
        }
        for text in ["debian", "ftp://h/a", "https://", "https:///x", "file:///x", "http://[::1/x"] {
            assert!(Place::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn shown_url_holds_nothing_secret() {
        for (url, expected) in [
            ("https://me:pw@h:8/a/b.qcow2?X-Sig=1#f", "https://h:8/a/b.qcow2?…"),
            ("https://h?a@b", "https://h?…"),
            ("oci://h/a:1", "oci://h/a:1"),
            ("https://h/a@b", "https://h/a@b"),
            ("x", "x"),
        ] {
            assert_eq!(shown(url), expected);
        }
    }
}

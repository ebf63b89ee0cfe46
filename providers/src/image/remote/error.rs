//! Why an image could not be fetched.

use std::net::IpAddr;

use crate::capacity::{size, size_needed};
use crate::error::{Error, ErrorKind};
use crate::image::header::HeaderError;
use crate::spec::Digest;

/// Why an image could not be fetched. No text holds a login or the query of a URL.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The URL names no image.
    #[error("it is no URL of an image: {0}")]
    Url(&'static str),
    /// Whoever is on the way may change it.
    #[error("it comes by plain http, and no digest says what it must be")]
    Unverified,
    /// The server sends on to where vmctl does not go.
    #[error("the server sends on to `{to}`, {why}")]
    Redirect {
        /// Where to.
        to: String,
        /// Why that is refused, as a clause.
        why: &'static str,
    },
    /// A server of the internet sends on to this host or its network.
    #[error(
        "the server sends on to `{host}`, which is {address} here: an address of this host or its own network"
    )]
    Inside {
        /// The name that was sent on to.
        host: String,
        /// What it means here.
        address: IpAddr,
    },
    /// The name is not known.
    #[error("the name `{host}` cannot be resolved{}", why(said))]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        said: String,
    },
    /// The server could not prove who it is.
    #[error("no trusted connection to `{host}`{}", why(said))]
    Tls {
        /// The server.
        host: String,
        /// What failed.
        said: String,
    },
    /// Nobody answers.
    #[error("no connection to `{host}`{}", why(said))]
    Connect {
        /// The server.
        host: String,
        /// What failed.
        said: String,
    },
    /// The connection broke.
    #[error("the connection to `{host}` broke{}", why(said))]
    Broken {
        /// The server.
        host: String,
        /// What failed.
        said: String,
    },
    /// The server refuses or fails.
    #[error("`{host}` answered {status}{}", why(said))]
    Status {
        /// The server.
        host: String,
        /// Its code.
        status: u16,
        /// What it says besides.
        said: String,
        /// How long it asks to wait.
        wait: Option<std::time::Duration>,
    },
    /// Almost nothing comes.
    #[error("the download stalled: {bytes} bytes came in {within:?}")]
    Stalled {
        /// What came.
        bytes: u64,
        /// In this time.
        within: std::time::Duration,
    },
    /// It ended early.
    #[error("the download ended after {received} of {total} bytes")]
    Short {
        /// What came.
        received: u64,
        /// What there is.
        total: u64,
    },
    /// It has more bytes than an image may have.
    #[error("it has more than {}", size(*limit))]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// The disk has no room for it.
    #[error(
        "no room is left: it has {}, {} besides stay free for others, and {} is free",
        size_needed(*needed), size(*spare), size(*free)
    )]
    NoRoom {
        /// Its bytes.
        needed: u64,
        /// What is left to others.
        spare: u64,
        /// Free bytes.
        free: u64,
    },
    /// It is another image, or damaged.
    #[error("it is not the image that is asked for: its digest is {found}, not {expected}")]
    Digest {
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// A page for people, as a login page of a network sends it in place of anything.
    #[error("the server sent a web page in place of an image")]
    Page,
    /// Its packing is damaged.
    #[error("it cannot be unpacked: it is {packing}-compressed{}", why(said))]
    Unpack {
        /// How it is packed.
        packing: &'static str,
        /// What failed.
        said: String,
    },
    /// It is no image that may be used.
    #[error("it cannot be used as a disk image: {0}")]
    Refused(HeaderError),
    /// It could not be made a qcow2 image.
    #[error("it cannot be converted")]
    Convert(#[source] Box<Error>),
    /// A registry's answer is not understood.
    #[error("the registry `{host}` sent no manifest that can be used: {said}")]
    Manifest {
        /// The registry.
        host: String,
        /// What is wrong with it.
        said: String,
    },
    /// An artifact without an image in it.
    #[error("the artifact holds no one disk image: {0}")]
    NoLayer(String),
    /// A login could not be found out.
    #[error("the login for `{host}` cannot be read{}", why(said))]
    Login {
        /// The registry.
        host: String,
        /// What failed.
        said: String,
    },
    /// The client could not be set up.
    #[error("cannot set up an HTTP client{}", why(.0))]
    Client(String),
    /// Whoever asked for it changed his mind.
    #[error("it was asked to stop")]
    Cancelled,
}

/// A reason behind a colon, where there is one.
fn why(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

impl FetchError {
    /// The class of the failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Url(_)
            | Self::Unverified
            | Self::Redirect { .. }
            | Self::Inside { .. }
            | Self::TooLarge { .. }
            | Self::Digest { .. }
            | Self::Page
            | Self::Unpack { .. }
            | Self::Refused(_)
            | Self::NoLayer(_)
            | Self::Login { .. } => ErrorKind::InvalidInput,
            Self::Stalled { .. } => ErrorKind::Timeout,
            Self::Resolve { .. }
            | Self::Tls { .. }
            | Self::Connect { .. }
            | Self::Broken { .. }
            | Self::Status { .. }
            | Self::Short { .. }
            | Self::Manifest { .. }
            | Self::NoRoom { .. }
            | Self::Client(_)
            | Self::Cancelled => ErrorKind::Host,
            Self::Convert(error) => error.kind(),
        }
    }

    /// Whether another try may bring more.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::Broken { .. }
            | Self::Short { .. }
            | Self::Stalled { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// Whether the bytes themselves are of no use, so that there is no going on behind them.
    pub(super) fn is_about_content(&self) -> bool {
        matches!(
            self,
            Self::TooLarge { .. }
                | Self::Digest { .. }
                | Self::Page
                | Self::Unpack { .. }
                | Self::Refused(_)
                | Self::Convert(_)
        )
    }

    /// What to do next, where there is something to do.
    pub fn help(&self) -> Option<String> {
        let text = match self {
            Self::Url(_) => "write `https://server/path/debian.qcow2` or `oci://server/name:tag`",
            Self::Unverified => "use https, or say what it must be: its sha256",
            Self::Redirect { .. } | Self::Inside { .. } => {
                "name the URL that it is really to come from, if you trust it"
            }
            Self::Resolve { .. } => {
                "look for a misspelt name, and whether this host has a network (or needs a proxy: HTTPS_PROXY)"
            }
            Self::Tls { .. } => {
                "the certificates that are trusted are the system's (Debian: ca-certificates) and those in the file that \
                 VMCTL_CA_FILE names; a wrong clock makes any of them invalid"
            }
            Self::Connect { .. } | Self::Broken { .. } | Self::Short { .. } | Self::Stalled { .. } => {
                "try again: what came so far is kept, and the download goes on behind it"
            }
            Self::Status { status: 401 | 403, .. } => {
                "log in: `docker login` for a registry, GITHUB_TOKEN for ghcr.io, `https://user:password@server/…` for \
                 a web server"
            }
            Self::Status { status: 407, .. } => {
                "give the proxy's login with its URL: https_proxy=http://user:password@proxy:port"
            }
            Self::Status { status: 404 | 410, .. } => "the image is not there (any more): correct its URL",
            Self::Status { .. } => "try again later: what came so far is kept",
            Self::TooLarge { .. } => "is it the right file? An image has at most 64 GiB, packed and unpacked",
            Self::NoRoom { .. } => {
                "free some space (`vmctl image prune`), or choose another data folder with --data-dir"
            }
            Self::Digest { .. } => {
                "it moved or was changed on the server: check where it comes from, and write the new digest only if you \
                 trust it"
            }
            Self::Page => {
                "open the URL in a browser: the network may ask for a login first, or the URL is one of a page"
            }
            Self::Unpack { .. } => {
                "the file on the server is damaged, or needs more memory to be unpacked than is sound"
            }
            Self::Refused(problem) => problem.help(),
            Self::Convert(error) => return error.help(),
            Self::Manifest { .. } | Self::NoLayer(_) => {
                "push the image as an artifact of one layer: oras push server/name:tag disk.qcow2:application/octet-stream"
            }
            Self::Login { .. } => "`docker login` writes it anew",
            Self::Client(_) | Self::Cancelled => return None,
        };
        Some(text.to_owned())
    }
}

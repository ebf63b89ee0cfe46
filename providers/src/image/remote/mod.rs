//! Images from the network: what is asked for, what a server says, and how it is fetched.

mod challenge;
mod client;
mod docker;
mod download;
mod error;
mod fetch;
mod network;
mod options;
pub(super) mod part;
mod place;
mod registry;

use serde::{Deserialize, Serialize};

pub use error::FetchError;
pub use options::{FetchOptions, Proxies, Stall};

pub(crate) use place::shown;

use super::ImageIdentity;
use crate::spec::{Digest, DiskImage};

/// An image on a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RemoteImage {
    /// `https://…`, `http://…`, `oci://host/name:tag` or `oci://host/name@sha256:…`.
    pub url: String,
    /// Digest of the bytes as they lie on the server, if it is asked for or pinned; of an OCI artifact, of its layer.
    pub sha256: Option<Digest>,
}

/// What a server says about an image: enough to tell later whether it moved there.
///
/// Two of them are equal where nothing tells them apart; what a server does not say is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// How many bytes it has on the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The server's mark of this version of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// When it was changed there, in the server's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<String>,
    /// Digest of the OCI manifest that names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// Digest of the image's bytes, where the server names it: of an OCI artifact, of its layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
}

/// An image that was fetched, or had been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Digest of the bytes as they lie on the server.
    pub sha256: Digest,
    /// What the server said about them.
    pub upstream: Upstream,
    /// What lies in the cache: unpacked, and converted where it came in a format of other programs.
    pub identity: ImageIdentity,
    /// The file in the cache.
    pub image: DiskImage,
    /// Whether nothing had to be downloaded.
    pub from_cache: bool,
}

/// How far a fetch is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchProgress {
    /// Bytes that are here, those of an earlier try included.
    pub received: u64,
    /// Bytes that there are, where the server tells.
    pub total: Option<u64>,
    /// What goes on.
    pub phase: FetchPhase,
}

/// What goes on in a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchPhase {
    /// Another process fetches the same image, and is waited for.
    Waiting,
    /// Bytes come.
    Downloading,
    /// A try failed; the next one follows after a pause, and goes on where this one ended.
    Retrying {
        /// Tries without progress so far.
        attempt: u32,
        /// Tries without progress after which it is given up.
        of: u32,
        /// The pause.
        after: std::time::Duration,
        /// Why it failed.
        why: String,
    },
    /// All bytes are here and are what they should be; the rest is unpacked, checked and made durable.
    Finishing,
    /// The image is made a qcow2 image.
    Converting,
}

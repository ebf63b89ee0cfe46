//! What a fetch needs from its surroundings, as values.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::spec::Secret;

/// Largest image unless told otherwise, unpacked: more than any cloud image has, less than what fills a disk unseen.
const MAX_BYTES: u64 = 64 << 30;

/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(15);

/// Less than this in so long is no download (S16).
const STALL: Stall = Stall { bytes: 64 << 10, within: Duration::from_secs(30) };

/// Tries in a row that may bring nothing.
const TRIES: u32 = 5;

/// Pause after the first failed try; it doubles with each further one.
const PAUSE: Duration = Duration::from_millis(500);

/// Longest pause, also where a server asks for a longer one.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Everything that a fetch needs from its surroundings, and its limits.
///
/// The default has no proxies, no credentials and the system's certificates.
#[derive(Debug, Clone)]
pub struct FetchOptions {
    /// Ways around.
    pub proxies: Proxies,
    /// File of certificates (PEM) that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Folder of Docker's `config.json`, which may know logins for registries.
    pub docker_config: Option<PathBuf>,
    /// Token for ghcr.io, where Docker's configuration knows none.
    pub github_token: Option<Secret>,
    /// Most bytes that an image may have, as downloaded and unpacked.
    pub max_bytes: u64,
    /// How long a server may take to accept a connection.
    pub connect_timeout: Duration,
    /// What counts as a stalled download.
    pub stall: Stall,
    /// Tries in a row without progress after which it is given up; at least 1.
    pub tries: u32,
    /// Pause after the first failed try; it doubles with each further one.
    pub pause: Duration,
    /// Longest pause, also where a server asks for a longer one.
    pub longest_pause: Duration,
    /// Addresses of names, in place of what the system's resolver says; for tests.
    pub hosts: BTreeMap<String, IpAddr>,
    /// Addresses to be taken for public ones; for tests, whose servers are all on the loopback.
    pub public: Vec<IpAddr>,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            proxies: Proxies::default(),
            ca_file: None,
            docker_config: None,
            github_token: None,
            max_bytes: MAX_BYTES,
            connect_timeout: CONNECT,
            stall: STALL,
            tries: TRIES,
            pause: PAUSE,
            longest_pause: LONGEST_PAUSE,
            hosts: BTreeMap::new(),
            public: Vec::new(),
        }
    }
}

/// Proxies, each a URL that may hold a login.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// For `http://`.
    pub http: Option<Secret>,
    /// For `https://`.
    pub https: Option<Secret>,
    /// Hosts that are reached without one: names, domains and address ranges, separated by commas.
    pub except: Option<String>,
}

/// A bound below which a download does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stall {
    /// So many bytes must come …
    pub bytes: u64,
    /// … in this time.
    pub within: Duration,
}

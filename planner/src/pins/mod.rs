//! Pins: which bytes an image from the network is, before and after it is here.
//!
//! ```text
//! VMFile's sha256 ┐
//! VMFile.lock     ├─▶ pin ─▶ compared by content, like an image of this host
//! machines' records ┘    └─▶ none: known after apply, and written to the lock file then
//! ```
//!
//! A URL names a place, and what lies there may change; a pin names bytes. `lockfile` is the file beside the VMFile that
//! keeps them, `recorded` takes over what machines were made from, and `upstream` tells whether a server moved on.

mod lockfile;
mod recorded;
mod upstream;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use vmctl_providers::image::{ImageIdentity, RemoteImage, Upstream};
use vmctl_providers::{Digest, Name, Secrets};

pub use lockfile::{Lock, LockFile, LockFileError, Locked};
pub(crate) use recorded::with_recorded_pins;
pub use upstream::{Ask, UpstreamSight, UpstreamState, ask_upstream};

use crate::desired::{Desired, DesiredImage, DesiredVm};

/// What is known of an image from the network before it is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Digest of the bytes as they lie on the server.
    pub sha256: Digest,
    /// What comes out of them, where that is known.
    pub image: Option<ImageIdentity>,
    /// What the server said when they were fetched.
    pub upstream: Upstream,
    /// Who says so.
    pub by: PinnedBy,
}

/// Who names the bytes that an image has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PinnedBy {
    /// `sha256` in the VMFile, and no lock file.
    Vmfile,
    /// The lock file.
    Lock,
    /// The record of a machine that was made from it.
    Record,
}

/// An image from the network that machines of a plan are made from, as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedPin {
    /// Its URL, without what nothing may show.
    pub url: String,
    /// The machines that are made from it.
    pub machines: Vec<Name>,
    /// Digest of the bytes on the server, if it is known.
    pub sha256: Option<Digest>,
    /// What comes out of them, if it is known.
    pub image: Option<ImageIdentity>,
    /// Who says so; absent where nobody does.
    pub by: Option<PinnedBy>,
    /// What the server said when they were fetched.
    pub upstream: Upstream,
    /// Whether the server has something else by now, if it was asked.
    pub seen: Option<UpstreamSight>,
}

/// An image from the network, with the machines that are made from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteUse<'a> {
    /// Its URL as it is asked for; it may hold what nothing may show.
    pub url: &'a str,
    /// The name that the VMFile gives it, if it does.
    pub name: Option<&'a str>,
    /// The digest that the VMFile asks for.
    pub sha256: Option<&'a Digest>,
    /// What is known of it.
    pub pin: Option<&'a Pin>,
    /// The machines.
    pub machines: Vec<&'a Name>,
}

impl RemoteUse<'_> {
    /// What is asked of the network to get it as it is pinned.
    pub fn remote(&self) -> RemoteImage {
        let pinned = self.pin.map(|pin| &pin.sha256).or(self.sha256);
        RemoteImage { url: self.url.to_owned(), sha256: pinned.cloned() }
    }
}

/// The images from the network that `desired` names, by URL and digest.
pub fn remote_images(desired: &Desired) -> Vec<RemoteUse<'_>> {
    let mut uses: Vec<RemoteUse<'_>> = Vec::new();
    for vm in desired.vms.values() {
        let Some(found) = remote_use(vm) else { continue };
        let same = |known: &&mut RemoteUse<'_>| {
            (known.url, known.sha256) == (found.url, found.sha256) && known.pin == found.pin
        };
        match uses.iter_mut().find(same) {
            Some(known) => {
                known.machines.push(&vm.name);
                known.name = known.name.or(found.name);
            }
            None => uses.push(found),
        }
    }
    uses.sort_by(|a, b| (a.url, a.sha256).cmp(&(b.url, b.sha256)));
    uses
}

fn remote_use(vm: &DesiredVm) -> Option<RemoteUse<'_>> {
    match &vm.image {
        Some(DesiredImage::Remote { url, name, sha256, pin }) => Some(RemoteUse {
            url,
            name: name.as_deref(),
            sha256: sha256.as_ref(),
            pin: pin.as_ref(),
            machines: vec![&vm.name],
        }),
        Some(DesiredImage::Local { .. }) | None => None,
    }
}

/// The URL as it may be shown and kept: without a login in it, and without sensitive values.
pub fn shown_url(url: &str, secrets: &Secrets) -> String {
    secrets.hide(&without_login(url))
}

/// `https://user:password@server/…` without the login. What stands behind the server's name stays: an `@` there is part
/// of a path or a reference.
fn without_login(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (server, path) = rest.split_at(end);
    let server = server.rsplit_once('@').map_or(server, |(_, server)| server);
    format!("{scheme}://{server}{path}")
}

/// The server that a URL names, with its port, in small letters: what limits and errors are about.
pub fn host_of(url: &str) -> String {
    let bare = without_login(url);
    let rest = bare.split_once("://").map_or(&*bare, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or(rest).to_ascii_lowercase()
}

/// The URLs of `desired` as the lock file names them.
pub fn named_urls(desired: &Desired) -> BTreeSet<String> {
    remote_images(desired).iter().map(|image| shown_url(image.url, &desired.secrets)).collect()
}

/// What a lock file that lacks something is to hold once `pins` were planned with and `fetched` came, by URL: what came
/// itself, the same bytes under other URLs, and what was known without asking.
pub fn to_lock(pins: &[PlannedPin], fetched: &BTreeMap<String, Locked>) -> BTreeMap<String, Locked> {
    let missing = pins.iter().filter(|pin| pin.by != Some(PinnedBy::Lock));
    missing
        .filter_map(|pin| {
            let came = fetched.get(&pin.url).cloned();
            // The server that said something of them is another one.
            let other = || fetched.values().find(|other| Some(&other.sha256) == pin.sha256.as_ref());
            let elsewhere = || other().map(|other| Locked { upstream: Upstream::default(), ..other.clone() });
            let known = || {
                let (sha256, image) = pin.sha256.clone().zip(pin.image.clone())?;
                Some(Locked { sha256, upstream: pin.upstream.clone(), image })
            };
            Some((pin.url.clone(), came.or_else(elsewhere).or_else(known)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use vmctl_providers::Secret;

    use super::*;

    #[test]
    fn url_is_shown_without_what_opens_doors() {
        let secrets = Secrets::new([Secret::new("s3cret-token")]);
        let shown = |url| shown_url(url, &secrets);
        assert_eq!(shown("https://me:pw@h.example:8443/a@b.img"), "https://h.example:8443/a@b.img");
        assert_eq!(shown("https://h/a?t=s3cret-token"), "https://h/a?t=(sensitive)");
        assert_eq!(shown("oci://h/n@sha256:00"), "oci://h/n@sha256:00");
    }

    #[test]
    fn servers_are_told_apart_by_name_and_port() {
        assert_eq!(host_of("https://u@Mirror.Example:8443/x"), "mirror.example:8443");
        assert_eq!(host_of("oci://ghcr.io/org/debian:12"), "ghcr.io");
        assert_eq!(host_of("http://h?x"), "h");
    }
}

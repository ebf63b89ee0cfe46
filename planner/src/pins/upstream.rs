//! Whether servers have something else by now than what is pinned: for a note, never for a decision.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};
use vmctl_providers::Digest;
use vmctl_providers::image::Upstream;

use super::{RemoteUse, shown_url};
use crate::desired::Desired;
use crate::pins::remote_images;

/// Servers asked side by side; each question is one small request.
const CONCURRENT_QUESTIONS: usize = 8;

/// How long one server may take to answer. Longer than a slow one needs, shorter than people wait for a plan.
const PATIENCE: Duration = Duration::from_secs(4);

/// What was found of one image on its server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamSight {
    /// What it comes to.
    pub state: UpstreamState,
    /// What differs, or why nobody knows.
    pub detail: Option<String>,
}

/// Whether a server still has what is pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpstreamState {
    /// It has.
    Same,
    /// It has something else.
    Moved,
    /// It did not say, or did not answer.
    Unknown,
}

/// Asks one server about one URL.
pub trait Ask: Sync {
    /// What the server says; else why it could not be asked.
    fn ask(&self, url: &str) -> impl Future<Output = Result<Upstream, String>> + Send;
}

/// Asks the servers of all pinned images of `desired`, by the URL as it is shown. A server that does not answer is
/// nothing but unknown.
pub async fn ask_upstream<A: Ask>(ask: &A, desired: &Desired) -> BTreeMap<String, UpstreamSight> {
    // One that was pinned without asking a server, by a digest or from a record, has nothing to compare with.
    let pinned = remote_images(desired).into_iter().filter_map(|image| {
        let pin = image.pin.filter(|pin| pin.upstream != Upstream::default())?;
        Some((image, pin.upstream.clone(), pin.sha256.clone()))
    });
    let asked = pinned.map(|(image, upstream, sha256)| async move {
        let RemoteUse { url, .. } = image;
        let sight = match tokio::time::timeout(PATIENCE, ask.ask(url)).await {
            Ok(Ok(found)) => compare(&upstream, &sha256, &found),
            Ok(Err(reason)) => unknown(desired.secrets.hide(&reason)),
            Err(_) => unknown(format!("no answer within {PATIENCE:?}")),
        };
        (shown_url(url, &desired.secrets), sight)
    });
    stream::iter(asked.collect::<Vec<_>>()).buffered(CONCURRENT_QUESTIONS).collect().await
}

fn unknown(detail: String) -> UpstreamSight {
    UpstreamSight { state: UpstreamState::Unknown, detail: Some(detail) }
}

/// What tells the bytes that were pinned from those that the server has now. The surest mark decides: digests, then
/// size, then the server's mark of the version, then the time. A mark alone that differs says nothing where size and
/// time are the same: each server of a mirror gives its own.
fn compare(pinned: &Upstream, sha256: &Digest, found: &Upstream) -> UpstreamSight {
    let same = UpstreamSight { state: UpstreamState::Same, detail: None };
    let moved = |detail| UpstreamSight { state: UpstreamState::Moved, detail: Some(detail) };
    let short = |digest: &Digest| digest.hex().chars().take(12).collect::<String>();
    if let Some(now) = &found.sha256 {
        return match now == sha256 {
            true => same,
            false => moved(format!("its digest was {}, and is {}", short(sha256), short(now))),
        };
    }
    if let (Some(before), Some(now)) = (&pinned.manifest, &found.manifest) {
        return match before == now {
            true => same,
            false => moved(format!("its manifest was {}, and is {}", short(before), short(now))),
        };
    }
    if let (Some(before), Some(now)) = (pinned.size, found.size)
        && before != now
    {
        return moved(format!("it had {before} bytes, and has {now}"));
    }
    if pinned.etag.is_some() && pinned.etag == found.etag {
        return same;
    }
    if let (Some(before), Some(now)) = (&pinned.last_modified, &found.last_modified) {
        return match before == now {
            true => same,
            false => moved(format!("it was changed there: {now}, before {before}")),
        };
    }
    match (&pinned.etag, &found.etag) {
        (Some(_), Some(_)) => moved("the server marks it as another version".to_owned()),
        _ => unknown("the server does not say enough to tell".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(size: u64, etag: &str, time: &str) -> Upstream {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Upstream { size: Some(size), etag: text(etag), last_modified: text(time), ..Upstream::default() }
    }

    #[test]
    fn surest_mark_decides() {
        use UpstreamState::{Moved, Same, Unknown};
        let sha = Digest::of("bytes");
        let manifest = |word: &str| Upstream { manifest: Some(Digest::of(word)), ..Upstream::default() };
        let named = |word: &str| Upstream { sha256: Some(Digest::of(word)), ..manifest("other") };
        let cases = [
            (facts(1, "a", "t"), facts(1, "a", "t"), Same),
            (facts(1, "a", "t"), facts(2, "a", "t"), Moved),
            (facts(1, "a", "t"), facts(1, "a", "u"), Same),
            (facts(1, "a", "t"), facts(1, "b", "t"), Same),
            (facts(1, "a", "t"), facts(1, "b", "u"), Moved),
            (facts(1, "a", ""), facts(1, "b", ""), Moved),
            (facts(1, "", "t"), facts(1, "", "u"), Moved),
            (facts(1, "", ""), facts(1, "", ""), Unknown),
            (manifest("a"), manifest("a"), Same),
            (manifest("a"), manifest("b"), Moved),
            (manifest("a"), named("bytes"), Same),
            (manifest("a"), named("others"), Moved),
        ];
        for (pinned, found, state) in cases {
            let sight = compare(&pinned, &sha, &found);
            assert_eq!(sight.state, state, "{pinned:?} {found:?}");
            assert_eq!(sight.detail.is_some(), state != Same);
        }
    }
}

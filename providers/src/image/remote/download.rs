//! The conversation with a server until all bytes are here: tries, pauses, going on where the last try ended.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    LAST_MODIFIED, RANGE,
};
use reqwest::{Response, StatusCode};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::client::{Client, Request, failure, refusal};
use super::error::FetchError;
use super::options::FetchOptions;
use super::{FetchPhase, FetchProgress, Upstream};

/// What is sent to whoever takes the bytes.
#[derive(Debug)]
pub(super) enum Piece {
    Bytes(Bytes),
    End,
}

/// How a conversation ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// All bytes were sent on.
    Whole(Upstream),
    /// What came before is of another version of the image: begin again.
    Other,
    /// The server has nothing newer than what is known.
    Unchanged,
    /// Nobody takes the bytes any more; whoever took them knows why.
    Unwanted,
}

/// A download.
pub(super) struct Download<'a> {
    pub(super) client: &'a Client,
    pub(super) options: &'a FetchOptions,
    pub(super) request: &'a Request,
    /// What is known of the bytes that are here, or was of those that were here once.
    pub(super) upstream: Option<Upstream>,
    /// How many bytes are here.
    pub(super) received: u64,
    /// Whether the bytes that are here may be wrong without harm: a digest tells in the end.
    pub(super) is_verified: bool,
    /// What the cache has: nothing is sent if the server has the same.
    pub(super) cached: Option<Upstream>,
    pub(super) progress: &'a (dyn Fn(FetchProgress) + Send + Sync),
    pub(super) cancel: &'a CancellationToken,
}

impl Download<'_> {
    /// Gets the rest. `begun` is told what the server says before its first byte is sent on.
    pub(super) async fn run(
        &mut self,
        pieces: &mpsc::Sender<Piece>,
        begun: &(dyn Fn(&Upstream) -> Result<(), FetchError> + Send + Sync),
    ) -> Result<Ended, FetchError> {
        let mut fruitless = 0;
        loop {
            let before = self.received;
            let tried = tokio::select! {
                () = self.cancel.cancelled() => return Err(FetchError::Cancelled),
                tried = self.attempt(pieces, begun) => tried,
            };
            let error = match tried {
                Ok(ended) => return Ok(ended),
                Err(error) if error.is_passing() => error,
                Err(error) => return Err(error),
            };
            fruitless = if self.received >= before + self.options.stall.bytes { 1 } else { fruitless + 1 };
            let is_dead = matches!(&error, FetchError::Stalled { .. })
                && self.received < before + self.options.stall.bytes;
            if fruitless >= self.options.tries || is_dead {
                return Err(error);
            }
            let asked = match &error {
                FetchError::Status { wait, .. } => *wait,
                _ => None,
            };
            let own = self.options.pause.saturating_mul(1 << (fruitless - 1).min(16));
            let after = asked.unwrap_or(own).min(self.options.longest_pause);
            let retrying = FetchPhase::Retrying {
                attempt: fruitless,
                of: self.options.tries,
                after,
                why: error.to_string(),
            };
            self.tell(retrying);
            tokio::select! {
                () = self.cancel.cancelled() => return Err(FetchError::Cancelled),
                () = pieces.closed() => return Ok(Ended::Unwanted),
                () = sleep(after) => {}
            }
        }
    }

    fn tell(&self, phase: FetchPhase) {
        let total = self.upstream.as_ref().and_then(|upstream| upstream.size);
        (self.progress)(FetchProgress { received: self.received, total, phase });
    }

    /// One try.
    async fn attempt(
        &mut self,
        pieces: &mpsc::Sender<Piece>,
        begun: &(dyn Fn(&Upstream) -> Result<(), FetchError> + Send + Sync),
    ) -> Result<Ended, FetchError> {
        let request = self.asking();
        let answer = self.client.send(&request).await?;
        let said = said(&answer, self.request);
        match answer.status() {
            StatusCode::NOT_MODIFIED if self.cached.is_some() => return Ok(Ended::Unchanged),
            StatusCode::PARTIAL_CONTENT if self.received > 0 => {
                let Some((from, total)) = content_range(answer.headers()) else {
                    return Ok(Ended::Other);
                };
                if from != self.received
                    || self.upstream.as_ref().is_some_and(|before| is_other(before, &said))
                {
                    return Ok(Ended::Other);
                }
                let size = total.or(self.upstream.as_ref().and_then(|before| before.size));
                self.upstream = Some(Upstream { size, ..said });
            }
            // It was asked for nothing else, or does not know how to go on.
            StatusCode::OK if self.received == 0 => self.upstream = Some(said),
            StatusCode::OK => return Ok(Ended::Other),
            StatusCode::RANGE_NOT_SATISFIABLE if self.received > 0 => {
                return match content_range(answer.headers()) {
                    // There is nothing behind what is here: it came to its end before.
                    Some((_, Some(total))) if total == self.received => self.finish(pieces).await,
                    _ => Ok(Ended::Other),
                };
            }
            _ => return Err(refusal(&request.url, answer).await),
        }
        let upstream = self.upstream.clone().unwrap_or_default();
        if let Some(size) = upstream.size.filter(|size| *size > self.options.max_bytes) {
            tracing::debug!(size, "the server says that it is too large");
            return Err(FetchError::TooLarge { limit: self.options.max_bytes });
        }
        begun(&upstream)?;
        self.tell(FetchPhase::Downloading);
        self.receive(&request, answer, pieces).await
    }

    /// The request for what is not here.
    fn asking(&self) -> Request {
        let mut request = self.request.clone().header(ACCEPT_ENCODING, "identity");
        if self.received > 0 {
            request = request.header(RANGE, &format!("bytes={}-", self.received));
            let mark = self.upstream.as_ref().and_then(|upstream| {
                let strong = upstream.etag.as_ref().filter(|etag| !etag.starts_with("W/"));
                strong.or(upstream.last_modified.as_ref())
            });
            if let Some(mark) = mark {
                request = request.header(IF_RANGE, mark);
            }
        } else if let Some(cached) = &self.cached {
            if let Some(etag) = &cached.etag {
                request = request.header(IF_NONE_MATCH, etag);
            } else if let Some(date) = &cached.last_modified {
                request = request.header(IF_MODIFIED_SINCE, date);
            }
        }
        request
    }

    async fn receive(
        &mut self,
        request: &Request,
        mut answer: Response,
        pieces: &mpsc::Sender<Piece>,
    ) -> Result<Ended, FetchError> {
        let stall = self.options.stall;
        let (mut window, mut deadline) = (0, Instant::now() + stall.within);
        loop {
            let piece = match timeout_at(deadline, answer.chunk()).await {
                Ok(piece) => piece.map_err(|error| failure(&request.url, &error))?,
                Err(_) if window < stall.bytes => {
                    return Err(FetchError::Stalled { bytes: window, within: stall.within });
                }
                Err(_) => {
                    (window, deadline) = (0, Instant::now() + stall.within);
                    continue;
                }
            };
            let Some(piece) = piece else { break };
            let length = piece.len() as u64;
            window += length;
            if self.received + length > self.options.max_bytes {
                return Err(FetchError::TooLarge { limit: self.options.max_bytes });
            }
            let now = Instant::now();
            if now >= deadline {
                if window < stall.bytes {
                    return Err(FetchError::Stalled { bytes: window, within: stall.within });
                }
                (window, deadline) = (0, now + stall.within);
            }
            if pieces.send(Piece::Bytes(piece)).await.is_err() {
                return Ok(Ended::Unwanted);
            }
            // A disk that is slow is no stalled server.
            let waited = now.elapsed();
            deadline += waited;
            self.received += length;
            self.tell(FetchPhase::Downloading);
        }
        match self.upstream.as_ref().and_then(|upstream| upstream.size) {
            Some(total) if total != self.received => {
                Err(FetchError::Short { received: self.received, total })
            }
            _ => self.finish(pieces).await,
        }
    }

    async fn finish(&mut self, pieces: &mpsc::Sender<Piece>) -> Result<Ended, FetchError> {
        if pieces.send(Piece::End).await.is_err() {
            return Ok(Ended::Unwanted);
        }
        let size = Some(self.received);
        Ok(Ended::Whole(Upstream { size, ..self.upstream.clone().unwrap_or_default() }))
    }

    /// Whether bytes that were kept may be gone on with.
    pub(super) fn can_go_on(&self) -> bool {
        let has_mark =
            self.upstream.as_ref().is_some_and(|it| it.etag.is_some() || it.last_modified.is_some());
        self.is_verified || has_mark
    }
}

/// What an answer says about the image; what the request knows of it from elsewhere is kept.
pub(super) fn said(answer: &Response, request: &Request) -> Upstream {
    let text = |name| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let is_head = request.method == reqwest::Method::HEAD;
    let length = || text(reqwest::header::CONTENT_LENGTH).and_then(|text| text.parse().ok());
    Upstream {
        size: if is_head { length() } else { answer.content_length().or_else(length) },
        etag: text(ETAG),
        last_modified: text(LAST_MODIFIED),
        ..Upstream::default()
    }
}

/// Whether two answers are of different versions.
fn is_other(before: &Upstream, now: &Upstream) -> bool {
    let differ = |one: &Option<String>, other: &Option<String>| matches!((one, other), (Some(one), Some(other)) if one != other);
    differ(&before.etag, &now.etag)
        || before.etag.is_none() && differ(&before.last_modified, &now.last_modified)
}

/// Where a part begins, and how much there is in all.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    let (range, total) = text.split_once('/')?;
    let from = range.split_once('-').and_then(|(from, _)| from.parse().ok()).unwrap_or(0);
    Some((from, total.parse().ok()))
}

/// Longest wait for a lock between two looks.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(100);

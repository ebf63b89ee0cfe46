//! Fetching: from a server into the cache.

use std::path::PathBuf;

use reqwest::{Method, StatusCode, Url};
use tokio::sync::mpsc;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::client::{Client, Request, refusal};
use super::docker::basic;
use super::download::{Download, Ended, LOOK_AGAIN, Piece, said};
use super::part::{Note, Part};
use super::place::{Place, shown};
use super::registry::Registry;
use super::{FetchError, FetchOptions, FetchPhase, FetchProgress, Fetched, RemoteImage, Upstream};
use crate::capacity::space;
use crate::failpoints::image_failpoint;
use crate::image::adopt::{self, Looked};
use crate::image::convert::convert;
use crate::image::intake::{FromFile, Source, Stop, Taken, Targets, take_in};
use crate::image::{ImageCache, ImageError};
use crate::spec::Digest;

/// Pieces of a download that may wait for the disk.
const QUEUE: usize = 16;

/// How often one fetch begins again because the image on the server changes under it.
const BEGINNINGS: u32 = 4;

/// Free bytes that are left to others on the disk.
const SPARE: u64 = 64 << 20;

/// What a fetch is about, once the URL has been understood.
struct Wanted {
    request: Request,
    /// What the bytes must be.
    expected: Option<Digest>,
    /// What a registry's manifest says.
    manifest: Option<Upstream>,
}

/// Who is told how a fetch goes, and who may stop it.
#[derive(Clone, Copy)]
struct Audience<'a> {
    progress: &'a (dyn Fn(FetchProgress) + Send + Sync),
    cancel: &'a CancellationToken,
}

impl ImageCache {
    /// Makes sure that the image is in the cache, and downloads it if it is not. Idempotent; of several processes that
    /// want the same image one downloads it, and the others wait. What a try brought is kept for the next one.
    ///
    /// Without a digest the server is asked whether it has another version than the one in the cache.
    pub async fn fetch(
        &self,
        remote: &RemoteImage,
        options: &FetchOptions,
        progress: &(dyn Fn(FetchProgress) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<Fetched, ImageError> {
        let audience = Audience { progress, cancel };
        self.fetch_now(remote, options, audience).await.map_err(|error| error.of(&remote.url))
    }

    /// Asks the server about the image at `url`, without downloading it.
    pub async fn upstream(&self, url: &str, options: &FetchOptions) -> Result<Upstream, ImageError> {
        let asked = async {
            let place = Place::parse(url)?;
            let client = Client::new(options)?;
            match place {
                Place::Registry(reference) => {
                    Registry::new(&client, options, &reference)?.layer().await.map(|layer| layer.upstream)
                }
                Place::Web(url) => {
                    let mut request = web(url);
                    // Nothing of what it says is used but to compare.
                    request.is_verified = true;
                    ask_web(&client, request).await
                }
            }
        };
        asked.await.map_err(|error| Failure::from(error).of(url))
    }

    async fn fetch_now(
        &self,
        remote: &RemoteImage,
        options: &FetchOptions,
        audience: Audience<'_>,
    ) -> Result<Fetched, Failure> {
        if let Some(sha256) = &remote.sha256
            && let Some(fetched) = self.in_cache(sha256).await?
        {
            self.forget_tries(sha256, &remote.url);
            return Ok(fetched);
        }
        let client = Client::new(options)?;
        let wanted = tokio::select! {
            () = audience.cancel.cancelled() => return Err(FetchError::Cancelled.into()),
            wanted = wanted(&client, remote, options) => wanted?,
        };
        if let Some(sha256) = &wanted.expected
            && let Some(mut fetched) = self.in_cache(sha256).await?
        {
            fetched.upstream = wanted.manifest.unwrap_or(fetched.upstream);
            self.forget_tries(sha256, &remote.url);
            return Ok(fetched);
        }
        let key = wanted.expected.clone().unwrap_or_else(|| Digest::of(&remote.url));
        let (part, has_waited) = self.part(&key, audience).await?;
        image_failpoint!("fetch-image.download.opened", part.path());
        // Whoever was waited for may have brought it.
        if has_waited && let Some(fetched) = self.brought(&wanted, &remote.url).await? {
            part.discard();
            return Ok(fetched);
        }
        let fetched = self.download(&part, &wanted, remote, &client, options, audience).await;
        match &fetched {
            Ok(_) => part.discard(),
            // What came is of no use to anybody.
            Err(Failure::Fetch(error)) if error.is_about_content() => part.discard(),
            Err(_) if part.length().is_ok_and(|length| length > 0) => part.tidy(),
            Err(_) => part.discard(),
        }
        fetched
    }

    /// Removes what earlier tries left whose processes died when the image had its place already.
    fn forget_tries(&self, sha256: &Digest, url: &str) {
        self.sweep();
        for key in [sha256.clone(), Digest::of(url)] {
            match Part::left(&self.downloads(), key.hex()) {
                Ok(Some(part)) => part.discard(),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "a left-over of a download stays"),
            }
        }
    }

    /// Takes the part of a download for this process alone.
    async fn part(&self, key: &Digest, audience: Audience<'_>) -> Result<(Part, bool), Failure> {
        let mut has_waited = false;
        loop {
            if let Some(part) = Part::open(&self.downloads(), key.hex())? {
                return Ok((part, has_waited));
            }
            if !has_waited {
                (audience.progress)(FetchProgress { received: 0, total: None, phase: FetchPhase::Waiting });
            }
            has_waited = true;
            // The kernel tells nobody who waits beside other things.
            tokio::select! {
                () = audience.cancel.cancelled() => return Err(FetchError::Cancelled.into()),
                () = sleep(LOOK_AGAIN) => {}
            }
        }
    }

    async fn brought(&self, wanted: &Wanted, url: &str) -> Result<Option<Fetched>, Failure> {
        let sha256 = wanted.expected.clone().or_else(|| self.last(url).map(|last| last.sha256));
        match sha256 {
            Some(sha256) => self.in_cache(&sha256).await,
            None => Ok(None),
        }
    }

    /// The image in the cache, if it is there and sound.
    async fn in_cache(&self, sha256: &Digest) -> Result<Option<Fetched>, Failure> {
        let (cache, sha256) = (self.clone(), sha256.clone());
        blocking(move || {
            let upstream = cache.entry(&sha256).map(|entry| entry.upstream).unwrap_or_default();
            let found = cache.known(&sha256).or_else(|| cache.as_it_is(&sha256));
            let Some((identity, image)) = found else { return Ok(None) };
            match cache.identify(&image.path) {
                Ok(there) if there == identity => {
                    Ok(Some(Fetched { sha256, upstream, identity, image, from_cache: true }))
                }
                _ => {
                    tracing::warn!(path = %image.path.display(), "a cached image is damaged, it is fetched again");
                    Ok(None)
                }
            }
        })
        .await
    }

    async fn download(
        &self,
        part: &Part,
        wanted: &Wanted,
        remote: &RemoteImage,
        client: &Client,
        options: &FetchOptions,
        audience: Audience<'_>,
    ) -> Result<Fetched, Failure> {
        let cached = match &wanted.expected {
            Some(_) => None,
            None => match self.last(&remote.url) {
                Some(last) => self.in_cache(&last.sha256).await?.map(|fetched| (fetched, last.upstream)),
                None => None,
            },
        };
        for _ in 0..BEGINNINGS {
            let note = part.note();
            let mut download = Download {
                client,
                options,
                request: &wanted.request,
                upstream: note.as_ref().map(|note| note.upstream.clone()),
                received: part.length()?,
                is_verified: wanted.expected.is_some(),
                cached: cached.as_ref().map(|(_, upstream)| upstream.clone()),
                progress: audience.progress,
                cancel: audience.cancel,
            };
            let is_sound = wanted.expected.is_some() || note.is_some_and(|note| note.is_of_this_boot());
            if download.received > 0 && !(is_sound && download.can_go_on()) {
                part.clear()?;
                (download.received, download.upstream) = (0, None);
            }
            let has_gone_on = download.received > 0;
            let (ended, taken) = self.run(part, &mut download, options).await?;
            match (ended, taken) {
                (Ok(Ended::Unchanged), _) => match cached {
                    Some((fetched, upstream)) => return Ok(Fetched { upstream, ..fetched }),
                    None => {
                        return Err(unexpected(
                            &wanted.request.url,
                            "nothing new, although nothing is known",
                        ));
                    }
                },
                (Ok(Ended::Other), _) => part.clear()?,
                (_, Err(Stop::Cache(error))) => return Err(error.into()),
                // What was kept of an earlier try may be to blame.
                (_, Err(Stop::Useless(error))) if has_gone_on && error.is_about_content() => part.clear()?,
                (_, Err(Stop::Useless(error))) => return Err(error.into()),
                (Err(error), _) => return Err(error.into()),
                (Ok(Ended::Unwanted), _) | (_, Err(Stop::Aborted)) => {
                    return Err(unexpected(&wanted.request.url, "bytes that nobody took"));
                }
                (Ok(Ended::Whole(upstream)), Ok(taken)) => {
                    match wanted.expected.as_ref().filter(|expected| **expected != taken.sha256) {
                        Some(_) if has_gone_on => part.clear()?,
                        Some(expected) => {
                            let (expected, found) = (expected.clone(), taken.sha256);
                            return Err(FetchError::Digest { expected, found }.into());
                        }
                        None => {
                            let upstream = wanted.manifest.clone().unwrap_or(upstream);
                            return self.keep(part, taken, upstream, remote, options, audience).await;
                        }
                    }
                }
            }
        }
        Err(unexpected(&wanted.request.url, "another version at every try"))
    }

    /// Downloads what is missing of `part`, and takes in all of it.
    async fn run(
        &self,
        part: &Part,
        download: &mut Download<'_>,
        options: &FetchOptions,
    ) -> Result<(Result<Ended, FetchError>, Result<Taken, Stop>), Failure> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let file = part.file().try_clone().map_err(part.failed("open"))?;
        let (path, content, kept) = (part.path(), part.content(), download.received);
        let limit = options.max_bytes;
        let taking = spawn_blocking(move || {
            let mut source = Coming {
                kept: FromFile { file: &file, at: 0, end: kept, path: &path },
                receiver,
                is_ended: false,
            };
            let targets = Targets { packed: Some((&file, &path)), kept, unpacked: &content, limit };
            take_in(&mut source, &targets)
        });
        let folder = self.downloads();
        let begun = |upstream: &Upstream| {
            if let Err(error) = part.set_note(&Note::new(upstream.clone())) {
                // It only costs the next process a beginning.
                tracing::warn!(%error, "a download is not noted down");
            }
            match (upstream.size, space(&folder)) {
                (Some(size), Ok(space)) if size.saturating_sub(kept).saturating_add(SPARE) > space.free => {
                    Err(FetchError::NoRoom { needed: size, free: space.free })
                }
                _ => Ok(()),
            }
        };
        let ended = download.run(&sender, &begun).await;
        drop(sender);
        let taken = match taking.await {
            Ok(taken) => taken,
            Err(error) => resume(error).await,
        };
        Ok((ended, taken))
    }

    /// Gives what was taken in its place in the cache.
    async fn keep(
        &self,
        part: &Part,
        taken: Taken,
        upstream: Upstream,
        remote: &RemoteImage,
        options: &FetchOptions,
        audience: Audience<'_>,
    ) -> Result<Fetched, Failure> {
        let total = Some(taken.size);
        let tell = |phase| (audience.progress)(FetchProgress { received: taken.size, total, phase });
        tell(FetchPhase::Finishing);
        image_failpoint!("fetch-image.download.verified", part.path());
        let (digest, size, path) = match &taken.unpacked {
            Some((digest, size)) => (digest.clone(), *size, part.content()),
            None => (taken.sha256.clone(), taken.size, part.path()),
        };
        let looked = path.clone();
        let found = blocking(move || adopt::look(&looked, size)).await?;
        let (from, identity, length) = match found {
            Looked::Image(header) => (path, header.identity(digest), size),
            Looked::Foreign(format) => {
                tell(FetchPhase::Converting);
                let target = part.converted();
                tokio::select! {
                    () = audience.cancel.cancelled() => return Err(FetchError::Cancelled.into()),
                    converted = convert(format, &path, &target, options.max_bytes) => {
                        converted.map_err(|error| FetchError::Convert(Box::new(error)))?;
                    }
                }
                image_failpoint!("fetch-image.download.converted", target.clone());
                blocking(move || {
                    let (identity, length) = adopt::made(&target)?;
                    Ok((target, identity, length))
                })
                .await?
            }
        };
        let (cache, sha256, url) = (self.clone(), taken.sha256.clone(), remote.url.clone());
        let said = upstream.clone();
        let (image, identity) = blocking(move || {
            // First the notes: with them, an image that has its place is found whatever happens then, and without it
            // they say nothing.
            let failed = |source| ImageError::Cache { action: "write", path: cache.fetched(), source };
            cache.set_entry(&sha256, &url, &said, &identity, length).map_err(failed)?;
            cache.set_last(&url, &sha256, &said).map_err(failed)?;
            image_failpoint!("fetch-image.download.noted", cache.fetched());
            Ok((cache.place(&from, &identity, length)?, identity))
        })
        .await?;
        Ok(Fetched { sha256: taken.sha256, upstream, identity, image, from_cache: false })
    }

    /// The folder of downloads on their way.
    pub(in crate::image) fn downloads(&self) -> PathBuf {
        self.folder().join(".downloads")
    }
}

/// What is to be had, and how.
async fn wanted(client: &Client, remote: &RemoteImage, options: &FetchOptions) -> Result<Wanted, FetchError> {
    match Place::parse(&remote.url)? {
        Place::Web(url) => {
            let mut request = web(url);
            request.is_verified = remote.sha256.is_some();
            Ok(Wanted { request, expected: remote.sha256.clone(), manifest: None })
        }
        Place::Registry(reference) => {
            let layer = Registry::new(client, options, &reference)?.layer().await?;
            match &remote.sha256 {
                Some(expected) if *expected != layer.digest => {
                    Err(FetchError::Digest { expected: expected.clone(), found: layer.digest })
                }
                _ => Ok(Wanted {
                    request: layer.request,
                    expected: Some(layer.digest),
                    manifest: Some(layer.upstream),
                }),
            }
        }
    }
}

/// A request for a file of a web server. The login of the URL is for that server alone.
fn web(mut url: Url) -> Request {
    let login = basic(&url);
    // Neither can fail: the URL has a host.
    let _ = url.set_username("").and_then(|()| url.set_password(None));
    url.set_fragment(None);
    Request { login, ..Request::get(url) }
}

/// Asks a web server about a file; one that does not know HEAD is asked for the file, and nothing of it is read.
async fn ask_web(client: &Client, mut request: Request) -> Result<Upstream, FetchError> {
    request.method = Method::HEAD;
    let answer = client.send(&request).await?;
    if answer.status().is_success() {
        return Ok(said(&answer, &request));
    }
    if ![StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_IMPLEMENTED, StatusCode::FORBIDDEN]
        .contains(&answer.status())
    {
        return Err(refusal(&request.url, answer).await);
    }
    request.method = Method::GET;
    let answer = client.send(&request).await?;
    if answer.status().is_success() {
        Ok(said(&answer, &request))
    } else {
        Err(refusal(&request.url, answer).await)
    }
}

/// Bytes that are here, and then those that come.
struct Coming<'a> {
    kept: FromFile<'a>,
    receiver: mpsc::Receiver<Piece>,
    is_ended: bool,
}

/// How much is gathered before it is written: the pieces of a network are small.
const GATHERED: usize = 256 << 10;

impl Source for Coming<'_> {
    fn next(&mut self) -> Result<Option<Vec<u8>>, Stop> {
        if let Some(bytes) = self.kept.next()? {
            return Ok(Some(bytes));
        }
        if self.is_ended {
            return Ok(None);
        }
        let mut gathered = Vec::new();
        while gathered.len() < GATHERED {
            // What is here is written before anything is waited for, so that it is not lost with the process.
            let piece = match self.receiver.try_recv() {
                Ok(piece) => Some(piece),
                Err(_) if !gathered.is_empty() => break,
                Err(_) => self.receiver.blocking_recv(),
            };
            match piece {
                Some(Piece::Bytes(bytes)) => gathered.extend_from_slice(&bytes),
                Some(Piece::End) => {
                    self.is_ended = true;
                    break;
                }
                None => return Err(Stop::Aborted),
            }
        }
        // An end that is asked for once more stays the end.
        Ok((!gathered.is_empty()).then_some(gathered))
    }
}

/// A fetch that failed: by itself, or because of the cache.
#[derive(Debug)]
enum Failure {
    Fetch(FetchError),
    Cache(ImageError),
}

impl Failure {
    /// With what was to be fetched.
    fn of(self, url: &str) -> ImageError {
        match self {
            Self::Fetch(source) => ImageError::Fetch { url: shown(url), source: Box::new(source) },
            Self::Cache(error) => error,
        }
    }
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        Self::Fetch(error)
    }
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        match error {
            // What was wrong with the file that was made of it, is wrong with it.
            ImageError::Refused { problem, .. } => Self::Fetch(FetchError::Refused(problem)),
            error => Self::Cache(error),
        }
    }
}

fn unexpected(url: &Url, said: &str) -> Failure {
    FetchError::Broken { host: super::client::host_of(url), said: format!("the server sends {said}") }.into()
}

/// Runs what waits for the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, Failure> {
    match spawn_blocking(work).await {
        Ok(done) => done.map_err(Failure::from),
        Err(error) => resume(error).await,
    }
}

/// Goes on with a panic of a thread.
async fn resume<T>(error: JoinError) -> T {
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        // It never began, because the program is about to end: nobody waits for this any more.
        Err(_cancelled) => std::future::pending().await,
    }
}

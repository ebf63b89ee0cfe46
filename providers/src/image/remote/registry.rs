//! Registries (OCI distribution-spec): from a reference to the one layer that is the image.

use reqwest::header::{ACCEPT, CONTENT_TYPE, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;

use super::Upstream;
use super::challenge::{Challenge, token};
use super::client::{Client, Request, refusal, text};
use super::docker::{Login, login};
use super::error::FetchError;
use super::options::FetchOptions;
use super::place::{Reference, Version};
use crate::spec::{Digest, Secret};

/// Media types of layers that are disk images.
const DISK_LAYERS: [&str; 2] = ["application/vnd.cloudnebula.qcow2.layer.v1", "application/octet-stream"];

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// What vmctl takes for an answer, all manifests that it knows.
const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// Where the image of an artifact lies.
#[derive(Debug)]
pub(super) struct Layer {
    /// How to get it.
    pub(super) request: Request,
    /// Digest of its bytes.
    pub(super) digest: Digest,
    /// What the registry says of it.
    pub(super) upstream: Upstream,
}

/// One conversation with a registry.
pub(super) struct Registry<'a> {
    client: &'a Client,
    options: &'a FetchOptions,
    reference: &'a Reference,
    base: Url,
    /// What the registry wants to see, once it has said so.
    authorization: Option<Secret>,
}

impl<'a> Registry<'a> {
    pub(super) fn new(
        client: &'a Client,
        options: &'a FetchOptions,
        reference: &'a Reference,
    ) -> Result<Self, FetchError> {
        // The name of Docker's registry is not that of its server.
        let host = if reference.host == "docker.io" { "registry-1.docker.io" } else { &reference.host };
        let parse = |scheme: &str| Url::parse(&format!("{scheme}://{host}/v2/"));
        let base = parse("http").ok().filter(super::client::is_loopback).map_or_else(|| parse("https"), Ok);
        let base = base.map_err(|_| FetchError::Url("its server is no host with a port"))?;
        Ok(Self { client, options, reference, base, authorization: None })
    }

    /// Finds the layer that is the disk image.
    pub(super) async fn layer(&mut self) -> Result<Layer, FetchError> {
        let mut top = None;
        let mut version = self.reference.version.as_str().to_owned();
        let mut expected = match &self.reference.version {
            Version::Digest(digest) => Some(digest.clone()),
            Version::Tag(_) => None,
        };
        // An index, and what it names. A deeper one is nobody's.
        for _ in 0..2 {
            let (digest, manifest) = self.manifest(&version, expected.as_ref()).await?;
            top.get_or_insert(digest);
            match manifest {
                Manifest::Image { layers } => {
                    let layer = self.disk(layers)?;
                    let upstream = Upstream {
                        size: Some(layer.size),
                        manifest: top,
                        sha256: Some(layer.digest.clone()),
                        ..Upstream::default()
                    };
                    let url = self.url(&format!("blobs/{}", layer.digest))?;
                    let mut request = Request::get(url);
                    request.login = self.authorization.clone();
                    request.is_verified = true;
                    return Ok(Layer { request, digest: layer.digest, upstream });
                }
                Manifest::Index { manifests } => {
                    let chosen = self.choose(manifests)?;
                    version = chosen.to_string();
                    expected = Some(chosen);
                }
            }
        }
        Err(self.unusable("an index of indexes"))
    }

    /// Reads a manifest; its digest is that of its bytes.
    async fn manifest(
        &mut self,
        version: &str,
        expected: Option<&Digest>,
    ) -> Result<(Digest, Manifest), FetchError> {
        let url = self.url(&format!("manifests/{version}"))?;
        let answer = self.ask(Request::get(url.clone()).header(ACCEPT, ACCEPTED)).await?;
        let kind = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let kind = kind.map(|kind| kind.split(';').next().unwrap_or(kind).trim().to_owned());
        let told = answer.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        let told = told.and_then(digest_of);
        let body = text(&url, answer).await?;
        let found = Digest::of(&body);
        for expected in expected.cloned().into_iter().chain(told) {
            if found != expected {
                return Err(FetchError::Digest { expected, found });
            }
        }
        let raw: RawManifest =
            serde_json::from_slice(&body).map_err(|error| self.unusable(&format!("no manifest: {error}")))?;
        // What the manifest says of itself wins over what the server says of it (image-spec, "mediaType").
        let kind = raw.media_type.or(kind).unwrap_or_default();
        let manifest = match kind.as_str() {
            MANIFEST | DOCKER_MANIFEST => Manifest::Image { layers: raw.layers },
            INDEX | DOCKER_LIST => Manifest::Index { manifests: raw.manifests },
            other => return Err(self.unusable(&format!("its kind is `{}`", brief(other)))),
        };
        Ok((found, manifest))
    }

    /// The one layer of an artifact that is a disk image.
    fn disk(&self, layers: Vec<Descriptor>) -> Result<Found, FetchError> {
        let kinds: Vec<String> =
            layers.iter().map(|layer| format!("`{}`", brief(&layer.media_type))).collect();
        let mut disks = layers.into_iter().filter(|layer| DISK_LAYERS.contains(&layer.media_type.as_str()));
        match (disks.next(), disks.next()) {
            (Some(layer), None) => Ok(Found { digest: self.digest(&layer.digest)?, size: layer.size }),
            (Some(_), Some(_)) => {
                Err(FetchError::NoLayer(format!("several of its {} layers may be one", kinds.len())))
            }
            (None, _) if kinds.is_empty() => Err(FetchError::NoLayer("it has no layers".to_owned())),
            (None, _) => Err(FetchError::NoLayer(format!("its layers are {}", kinds.join(", ")))),
        }
    }

    /// The manifest of an index that is for this host, or the only one.
    fn choose(&self, manifests: Vec<Descriptor>) -> Result<Digest, FetchError> {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let is_ours = |it: &&Descriptor| {
            let platform = it.platform.as_ref();
            platform.is_some_and(|it| it.architecture == architecture && ["", "linux"].contains(&&*it.os))
        };
        let chosen = match &manifests[..] {
            [only] => Some(only),
            several => several.iter().find(is_ours),
        };
        match chosen {
            Some(chosen) => self.digest(&chosen.digest),
            None => {
                let others = manifests.iter().filter_map(|it| it.platform.as_ref());
                let others: Vec<_> = others.map(|it| format!("{}/{}", it.os, it.architecture)).collect();
                Err(FetchError::NoLayer(format!(
                    "none of its {} manifests is for linux/{architecture} (but {})",
                    manifests.len(),
                    brief(&others.join(", "))
                )))
            }
        }
    }

    /// Asks, and once more with a login if the registry wants one.
    async fn ask(&mut self, mut request: Request) -> Result<Response, FetchError> {
        request.login = self.authorization.clone();
        let answer = self.client.send(&request).await?;
        if answer.status() != StatusCode::UNAUTHORIZED || self.authorization.is_some() {
            return self.expect(&request.url, answer).await;
        }
        let challenges = answer.headers().get_all(WWW_AUTHENTICATE);
        let challenges = challenges.iter().filter_map(|value| value.to_str().ok());
        let challenge = challenges.filter_map(Challenge::parse).next();
        let Some(challenge) = challenge else { return self.expect(&request.url, answer).await };
        self.authorization = self.authorize(&challenge).await?;
        request.login = self.authorization.clone();
        let answer = self.client.send(&request).await?;
        self.expect(&request.url, answer).await
    }

    async fn expect(&self, url: &Url, answer: Response) -> Result<Response, FetchError> {
        if answer.status().is_success() { Ok(answer) } else { Err(refusal(url, answer).await) }
    }

    /// What to send for `challenge`; a registry that gives tokens gives them without a login as well.
    async fn authorize(&self, challenge: &Challenge) -> Result<Option<Secret>, FetchError> {
        let login = login(&self.reference.host, self.options).await?;
        match challenge {
            Challenge::Basic => Ok(login.as_ref().map(Login::basic)),
            Challenge::Bearer(bearer) => {
                let scope = format!("repository:{}:pull", self.reference.name);
                token(self.client, bearer, &scope, login.as_ref(), &self.base).await.map(Some)
            }
        }
    }

    fn url(&self, rest: &str) -> Result<Url, FetchError> {
        let path = format!("{}/{rest}", self.reference.name);
        self.base.join(&path).map_err(|_| FetchError::Url("its repository cannot be asked for"))
    }

    fn digest(&self, text: &str) -> Result<Digest, FetchError> {
        digest_of(text).ok_or_else(|| self.unusable(&format!("`{}` is no SHA-256 digest", brief(text))))
    }

    fn unusable(&self, said: &str) -> FetchError {
        FetchError::Manifest { host: self.reference.host.clone(), said: said.to_owned() }
    }
}

/// The layer as its manifest describes it.
struct Found {
    digest: Digest,
    size: u64,
}

enum Manifest {
    Image { layers: Vec<Descriptor> },
    Index { manifests: Vec<Descriptor> },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawManifest {
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

/// Part of a manifest that names a blob. Its titles are for people, and no part of any path (S14).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Debug, Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

fn digest_of(text: &str) -> Option<Digest> {
    let hex = text.strip_prefix("sha256:")?;
    let is_hex =
        hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    is_hex.then(|| Digest::from_hex(hex))
}

/// A server's text, short enough for a message.
fn brief(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

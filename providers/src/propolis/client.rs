//! The HTTP client of one Propolis server. Every call has a deadline, and every answer a limit.

use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::api::{Board, ErrorBody, History, Instance, InstanceBody, Monitored, Request, board};
use crate::error::ErrorKind;

/// The header by which a client says which version of the API it speaks.
pub const VERSION_HEADER: &str = "api-version";

/// The version that is spoken where nothing is said: what we send is the same in all up to 5, and newer servers take it.
pub const API_VERSION: &str = "1.0.0";

/// How long a server may take for a question that it answers from memory.
const ANSWER: Duration = Duration::from_secs(10);

/// How long it may take to build a VM: it opens disks, and takes memory from the host.
const ENSURE: Duration = Duration::from_secs(120);

/// How long one long poll is held; a server lets it wait for ever.
pub(super) const POLL: Duration = Duration::from_secs(30);

/// More than any answer has: a piece of history is the longest.
const MOST: usize = 4 << 20;

/// How much of the history is asked for at once, in bytes. In JSON it is about four times as much.
const PIECE: u64 = 64 << 10;

/// The longest body that a server takes, in bytes.
pub const MOST_BODY: usize = 1 << 20;

/// A Propolis server that did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PropolisError {
    /// Nobody listens there.
    #[error("no propolis-server listens at {address}")]
    Nobody {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The connection broke, or carried something else than HTTP.
    #[error("the connection to the propolis-server at {address} broke while it was asked to {what}: {said}")]
    Broken {
        /// Where.
        address: SocketAddr,
        /// What was asked, such as `tell its state`.
        what: &'static str,
        /// What the client said.
        said: String,
    },
    /// It did not answer in time.
    #[error("the propolis-server at {address} did not {what} within {after:?}")]
    Silent {
        /// Where.
        address: SocketAddr,
        /// What was asked.
        what: &'static str,
        /// How long it had.
        after: Duration,
    },
    /// It refused (a status of 4xx).
    #[error("the propolis-server at {address} refused to {what}: {said}")]
    Refused {
        /// Where.
        address: SocketAddr,
        /// What was asked.
        what: &'static str,
        /// The status.
        status: u16,
        /// Its word for the reason, where it gives one.
        code: Option<String>,
        /// Status and message.
        said: String,
    },
    /// It failed (a status of 5xx): the reason is in its own log only.
    #[error(
        "the propolis-server at {address} failed to {what}: {said}{}",
        log.as_ref().map(|log| format!("; its log ends with\n{log}")).unwrap_or_default()
    )]
    Failed {
        /// Where.
        address: SocketAddr,
        /// What was asked.
        what: &'static str,
        /// The status.
        status: u16,
        /// Status and message.
        said: String,
        /// The end of its log, where that can be read.
        log: Option<String>,
    },
    /// It answered something that means nothing.
    #[error(
        "the propolis-server at {address} was asked to {what} and answered what cannot be understood: {said}"
    )]
    Garbled {
        /// Where.
        address: SocketAddr,
        /// What was asked.
        what: &'static str,
        /// Why not.
        said: String,
    },
    /// It serves another machine's VM.
    #[error("the propolis-server at {address} runs another VM: `{name}`, {id}")]
    Other {
        /// Where.
        address: SocketAddr,
        /// What that is called.
        name: String,
        /// Its identity.
        id: String,
    },
    /// Its VM is in a state from which it does not come up.
    #[error(
        "the VM came to the state `{state}` instead of `Running`{}",
        log.as_ref().map(|log| format!("; the log of its propolis-server ends with\n{log}")).unwrap_or_default()
    )]
    NotUp {
        /// The state.
        state: String,
        /// The end of the server's log, where that can be read.
        log: Option<String>,
    },
    /// A spec is larger than any server takes.
    #[error("what the server must be told of the machine has {size} bytes, and it takes {MOST_BODY} at most")]
    TooLarge {
        /// How large it is.
        size: usize,
    },
}

impl PropolisError {
    /// The class of the failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Nobody { .. } => ErrorKind::Unavailable,
            Self::Silent { .. } => ErrorKind::Timeout,
            Self::Refused { status: 400, .. } | Self::TooLarge { .. } => ErrorKind::InvalidInput,
            Self::Refused { status: 403, .. } => ErrorKind::InvalidState,
            Self::Refused { status: 409, .. } | Self::Other { .. } => ErrorKind::InUse,
            Self::Broken { .. }
            | Self::Refused { .. }
            | Self::Failed { .. }
            | Self::Garbled { .. }
            | Self::NotUp { .. } => ErrorKind::Host,
        }
    }

    /// What to do next, where there is something to do.
    pub fn help(&self) -> Option<String> {
        let text = match self {
            Self::Nobody { .. } => {
                "start it, or let vmctl start one: take `server` out of the `backend` block"
            }
            Self::Other { .. } => {
                "one server has one VM: name another `server`, or let vmctl start one of its own"
            }
            Self::Refused { said, .. } if said.contains(VERSION_HEADER) => {
                "the server does not speak this version of the API: set `api-version` in the `backend` block"
            }
            Self::Failed { log: None, .. } => "the reason is in the log of that propolis-server",
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// The same with the end of the server's log, where that says more.
    pub(super) fn with_log(self, tail: String) -> Self {
        if tail.is_empty() {
            return self;
        }
        match self {
            Self::Failed { address, what, status, said, .. } => {
                Self::Failed { address, what, status, said, log: Some(tail) }
            }
            Self::NotUp { state, .. } => Self::NotUp { state, log: Some(tail) },
            other => other,
        }
    }

    /// Whether it says that there is no VM, or none any more.
    pub(super) fn is_no_instance(&self) -> bool {
        matches!(self, Self::Refused { status: 424 | 410, .. })
    }

    /// Whether nobody was there to ask.
    pub(super) fn is_nobody(&self) -> bool {
        matches!(self, Self::Nobody { .. })
    }

    /// Whether the same question may be answered a moment later: the server is still at the beginning.
    pub(super) fn is_too_early(&self) -> bool {
        matches!(self, Self::Failed { status: 503, .. })
    }
}

/// How an `ensure` ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ensured {
    /// The VM is there, and does not run yet.
    Made,
    /// There was a VM already, whosesoever.
    Occupied,
}

/// The way to one server.
#[derive(Debug, Clone)]
pub struct Client {
    address: SocketAddr,
    version: String,
    http: reqwest::Client,
}

impl Client {
    /// A client of the server at `address`, which is spoken to in `version` of its API. Nothing is sent.
    pub fn new(address: SocketAddr, version: &str) -> Result<Self, PropolisError> {
        // The TLS of this client is never used, and it insists on one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let built = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let http = built
            // A connection that was kept may be one to a server that is gone.
            .pool_max_idle_per_host(0)
            .tls_certs_only(std::iter::empty::<reqwest::Certificate>())
            .build()
            .map_err(|error| PropolisError::Broken {
                address,
                what: "be asked anything",
                said: causes(&error),
            })?;
        Ok(Self { address, version: version.to_owned(), http })
    }

    /// Where the server is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the server has; `None` if it has no VM.
    pub async fn instance(&self) -> Result<Option<Instance>, PropolisError> {
        let answer: Result<InstanceBody, _> =
            self.ask("tell its state", Method::GET, "/instance", None, ANSWER).await;
        match answer {
            Ok(body) => Ok(Some(body.into())),
            Err(error) if error.is_no_instance() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the VM that `request` describes. Not idempotent: whoever is told [`Ensured::Occupied`] looks whose it is.
    pub async fn ensure(&self, request: &Value) -> Result<Ensured, PropolisError> {
        let made: Result<Value, _> =
            self.ask("make the VM", Method::PUT, "/instance", Some(request), ENSURE).await;
        match made {
            Ok(_) => Ok(Ensured::Made),
            Err(PropolisError::Refused { status: 409, .. }) => Ok(Ensured::Occupied),
            Err(error) => Err(error),
        }
    }

    /// Asks for a state. It is only queued.
    pub async fn request(&self, state: Request) -> Result<(), PropolisError> {
        let what = match state {
            Request::Run => "run the VM",
            Request::Stop => "stop the VM",
        };
        self.send(what, Method::PUT, "/instance/state", Some(&json!(state)), ANSWER).await.map(drop)
    }

    /// Waits for the change number `generation` or a later one, at most for a while: `None` then.
    pub async fn monitor(&self, generation: u64) -> Result<Option<Monitored>, PropolisError> {
        let body = json!({ "gen": generation });
        match self.ask("tell its changes", Method::GET, "/instance/state-monitor", Some(&body), POLL).await {
            Ok(change) => Ok(Some(change)),
            Err(PropolisError::Silent { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The processors and the memory of the VM, where the server tells them.
    pub async fn board(&self) -> Result<Option<Board>, PropolisError> {
        let answer: Value = self.ask("tell its spec", Method::GET, "/instance/spec", None, ANSWER).await?;
        Ok(board(&answer))
    }

    /// What the serial line printed from the byte `from` on, a piece of it.
    pub async fn history(&self, from: u64) -> Result<History, PropolisError> {
        let path = format!("/instance/serial/history?from_start={from}&max_bytes={PIECE}");
        self.ask("tell what its console printed", Method::GET, &path, None, ANSWER).await
    }

    /// What the serial line printed last, at most `most` bytes.
    pub async fn recent(&self, most: u64) -> Result<History, PropolisError> {
        let path = format!("/instance/serial/history?most_recent={most}&max_bytes={most}");
        self.ask("tell what its console printed", Method::GET, &path, None, ANSWER).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        what: &'static str,
        method: Method,
        path: &str,
        body: Option<&Value>,
        patience: Duration,
    ) -> Result<T, PropolisError> {
        let answer = self.send(what, method, path, body, patience).await?;
        serde_json::from_slice(&answer).map_err(|error| self.garbled(what, error.to_string()))
    }

    async fn send(
        &self,
        what: &'static str,
        method: Method,
        path: &str,
        body: Option<&Value>,
        patience: Duration,
    ) -> Result<Vec<u8>, PropolisError> {
        let mut request = self
            .http
            .request(method, format!("http://{}{path}", self.address))
            .header(VERSION_HEADER, &self.version);
        if let Some(body) = body {
            let text = serde_json::to_vec(body).map_err(|error| self.garbled(what, error.to_string()))?;
            if text.len() > MOST_BODY {
                return Err(PropolisError::TooLarge { size: text.len() });
            }
            request = request.header(reqwest::header::CONTENT_TYPE, "application/json").body(text);
        }
        let whole = async {
            let answer = request.send().await.map_err(|error| self.broken(what, &error))?;
            let status = answer.status();
            let body = self.read(what, answer).await?;
            self.judge(what, status, body)
        };
        match timeout(patience, whole).await {
            Ok(answered) => answered,
            Err(_) => Err(PropolisError::Silent { address: self.address, what, after: patience }),
        }
    }

    async fn read(
        &self,
        what: &'static str,
        mut answer: reqwest::Response,
    ) -> Result<Vec<u8>, PropolisError> {
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|error| self.broken(what, &error))? {
            if body.len() + piece.len() > MOST {
                return Err(self.garbled(what, format!("it has more than {MOST} bytes")));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    fn judge(&self, what: &'static str, status: StatusCode, body: Vec<u8>) -> Result<Vec<u8>, PropolisError> {
        if status.is_success() {
            return Ok(body);
        }
        let address = self.address;
        let told: ErrorBody = serde_json::from_slice(&body).unwrap_or_default();
        let said = match told.message.as_str() {
            "" => status.to_string(),
            message => format!("{} ({message})", status.as_u16()),
        };
        let status = status.as_u16();
        match status {
            400..500 => Err(PropolisError::Refused { address, what, status, code: told.error_code, said }),
            500.. => Err(PropolisError::Failed { address, what, status, said, log: None }),
            _ => Err(self.garbled(what, said)),
        }
    }

    fn broken(&self, what: &'static str, error: &reqwest::Error) -> PropolisError {
        let mut cause = error.source();
        while let Some(inner) = cause {
            if let Some(io) = inner.downcast_ref::<io::Error>()
                && io.kind() == io::ErrorKind::ConnectionRefused
            {
                return PropolisError::Nobody { address: self.address, source: io.kind().into() };
            }
            cause = inner.source();
        }
        PropolisError::Broken { address: self.address, what, said: causes(error) }
    }

    fn garbled(&self, what: &'static str, said: String) -> PropolisError {
        PropolisError::Garbled { address: self.address, what, said }
    }
}

/// The innermost cause: what is around it repeats where the server is.
fn causes(error: &reqwest::Error) -> String {
    let mut innermost: &dyn StdError = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

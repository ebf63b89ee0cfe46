//! One HTTP client under one set of rules for everything that is fetched: where redirects may lead, who sees a login,
//! and what a failure means.

use std::error::Error as StdError;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Method, NoProxy, Proxy, Response, StatusCode, Url};

use super::error::FetchError;
use super::network::{OnlyInside, Resolver};
use super::options::{FetchOptions, Proxies};
use super::place::shown;
use crate::spec::Secret;

/// How often a server may send on.
const MAX_REDIRECTS: usize = 5;

/// How long a server may take from a request to the head of its answer.
const ANSWER: Duration = Duration::from_secs(60);

/// How much of a text answer is read.
const MAX_TEXT: usize = 4 << 20;

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    /// Value of `Authorization`; for the URL's own server only.
    pub(super) login: Option<Secret>,
    /// Whether plain http is fine beyond the loopback, because what comes is verified.
    pub(super) is_verified: bool,
}

impl Request {
    pub(super) fn get(url: Url) -> Self {
        Self { method: Method::GET, url, headers: HeaderMap::new(), login: None, is_verified: false }
    }

    /// Adds a header; a value that is none is left out.
    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }
}

/// HTTP clients; made when first needed, since reading the system's certificates takes a while.
#[derive(Debug)]
pub(super) struct Client {
    /// Goes wherever it is told.
    anywhere: reqwest::Client,
    /// Connects to no address inside.
    outside: reqwest::Client,
    resolver: Resolver,
    proxies: Proxies,
    answer: Duration,
}

impl Client {
    pub(super) fn new(options: &FetchOptions) -> Result<Self, FetchError> {
        // Another part of the program may have chosen one before; either is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let resolver = Resolver::new(options, true);
        Ok(Self {
            anywhere: build(options, Resolver::new(options, false))?,
            outside: build(options, resolver.clone())?,
            resolver,
            proxies: options.proxies.clone(),
            answer: ANSWER.max(options.connect_timeout),
        })
    }

    /// Sends a request and follows redirects. The answer may be of any status but a redirect.
    pub(super) async fn send(&self, request: &Request) -> Result<Response, FetchError> {
        let mut url = request.url.clone();
        let mut from_outside = false;
        for _ in 0..=MAX_REDIRECTS {
            check_scheme(&url, request.is_verified)?;
            let client = if from_outside { &self.outside } else { &self.anywhere };
            if let (true, Some(address)) = (from_outside, literal(&url))
                && self.resolver.is_inside(address)
            {
                return Err(FetchError::Inside { host: host_of(&url), address });
            }
            let mut builder =
                client.request(request.method.clone(), url.clone()).headers(request.headers.clone());
            if let Some(login) = &request.login
                && is_same_server(&url, &request.url)
            {
                builder = builder.header(reqwest::header::AUTHORIZATION, sensitive(login)?);
            }
            let sent = tokio::time::timeout(self.answer, builder.send()).await;
            let answer = match sent {
                Ok(answer) => answer.map_err(|error| self.by_proxy(&url, failure(&url, &error)))?,
                Err(_) => {
                    let said = format!("no answer within {:?}", self.answer);
                    return Err(FetchError::Broken { host: host_of(&url), said });
                }
            };
            if !is_redirect(answer.status()) {
                return Ok(answer);
            }
            from_outside |= self.is_outside(&url, &answer);
            url = next(&url, answer.headers().get(LOCATION))?;
        }
        let why = "and that is one time too many";
        Err(FetchError::Redirect { to: shown(url.as_str()), why })
    }

    /// The same failure with the proxy that may be to blame: no login of it, and nothing where there is none.
    fn by_proxy(&self, url: &Url, mut failure: FetchError) -> FetchError {
        let proxy = match url.scheme() {
            "https" => &self.proxies.https,
            _ => &self.proxies.http,
        };
        let proxy = proxy.as_ref().and_then(|proxy| Url::parse(proxy.expose()).ok());
        if let (Some(proxy), FetchError::Connect { said, .. } | FetchError::Tls { said, .. }) =
            (proxy, &mut failure)
        {
            let port = proxy.port_or_known_default().map(|port| format!(":{port}")).unwrap_or_default();
            let way =
                format!("the way there is the proxy `{}{port}`, unless no_proxy names it", host_of(&proxy));
            *said = format!("{said}; {way}");
        }
        failure
    }

    /// Whether the server that answered is one of the internet. Behind a proxy only its name can tell.
    fn is_outside(&self, url: &Url, answer: &Response) -> bool {
        let has_proxy = self.proxies.http.is_some() || self.proxies.https.is_some();
        match (has_proxy, answer.remote_addr()) {
            (false, Some(address)) => !self.resolver.is_inside(address.ip()),
            _ => match literal(url) {
                Some(address) => !self.resolver.is_inside(address),
                None => host_of(url) != "localhost",
            },
        }
    }
}

fn build(options: &FetchOptions, resolver: Resolver) -> Result<reqwest::Client, FetchError> {
    let certificates = match &options.ca_file {
        None => Vec::new(),
        Some(path) => {
            let bad = |said: String| FetchError::Client(format!("`{}` {said}", path.display()));
            let pem = std::fs::read(path).map_err(|error| bad(format!("cannot be read: {error}")))?;
            let found = Certificate::from_pem_bundle(&pem)
                .map_err(|error| bad(format!("holds no certificates: {}", chain(&error))))?;
            if found.is_empty() {
                return Err(bad("holds no certificates".to_owned()));
            }
            found
        }
    };
    let builder = || -> Result<_, FetchError> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("vmctl/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(options.connect_timeout)
            .no_proxy()
            .dns_resolver(resolver.clone());
        let except = || options.proxies.except.as_deref().and_then(NoProxy::from_string);
        let bad = |error: reqwest::Error| {
            FetchError::Client(format!("a proxy's URL: {}", chain(&error.without_url())))
        };
        if let Some(proxy) = &options.proxies.http {
            builder = builder.proxy(Proxy::http(proxy.expose()).map_err(bad)?.no_proxy(except()));
        }
        if let Some(proxy) = &options.proxies.https {
            builder = builder.proxy(Proxy::https(proxy.expose()).map_err(bad)?.no_proxy(except()));
        }
        Ok(builder)
    };
    match builder()?.tls_certs_merge(certificates.clone()).build() {
        Ok(client) => Ok(client),
        Err(error) => {
            // A system without any certificates still reaches servers by plain http, or by the file's.
            tracing::debug!(error = %chain(&error), "the system's certificates cannot be used");
            let built = builder()?.tls_certs_only(certificates).build();
            built.map_err(|error| FetchError::Client(chain(&error)))
        }
    }
}

/// Whether vmctl speaks to `url` at all.
fn check_scheme(url: &Url, is_verified: bool) -> Result<(), FetchError> {
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_verified || is_loopback(url) => Ok(()),
        "http" => Err(FetchError::Unverified),
        _ => Err(FetchError::Url("its kind is neither http nor https")),
    }
}

/// Whether the server is this host by its very name.
pub(super) fn is_loopback(url: &Url) -> bool {
    literal(url).map_or_else(|| host_of(url) == "localhost", |address| address.is_loopback())
}

/// The address that stands in place of a name.
fn literal(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// The server in words.
pub(super) fn host_of(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_ascii_lowercase()
}

fn is_same_server(one: &Url, other: &Url) -> bool {
    (one.scheme(), one.host_str(), one.port_or_known_default())
        == (other.scheme(), other.host_str(), other.port_or_known_default())
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where a redirect from `url` leads.
fn next(url: &Url, location: Option<&HeaderValue>) -> Result<Url, FetchError> {
    let refused = |to: &str, why| FetchError::Redirect { to: shown(to), why };
    let text = location.and_then(|value| value.to_str().ok());
    let Some(text) = text else { return Err(refused("", "which is nowhere")) };
    let mut to = url.join(text).map_err(|_| refused(text, "which is no URL"))?;
    match (url.scheme(), to.scheme()) {
        (_, "https") | ("http", "http") => {}
        ("https", "http") => return Err(refused(to.as_str(), "from https to http")),
        _ => return Err(refused(to.as_str(), "which is neither http nor https")),
    }
    if to.host_str().is_none_or(str::is_empty) {
        return Err(refused(to.as_str(), "which names no server"));
    }
    if !is_same_server(url, &to) {
        // A login in it would be the server's choice, and is of no use to us.
        let _ = to.set_username("").and_then(|()| to.set_password(None));
    }
    Ok(to)
}

fn sensitive(login: &Secret) -> Result<HeaderValue, FetchError> {
    let mut value = HeaderValue::from_str(login.expose())
        .map_err(|_| FetchError::Client("a login has characters that HTTP does not allow".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// What a failed request means.
pub(super) fn failure(url: &Url, error: &reqwest::Error) -> FetchError {
    let host = host_of(url);
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(inside) = cause.downcast_ref::<OnlyInside>() {
            return FetchError::Inside { host: inside.host.clone(), address: inside.address };
        }
        let mut held = cause;
        // An I/O error holds what it was made of, often another one, without naming it as its source.
        while let Some(inner) = held.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            held = inner;
        }
        if let Some(error) = held.downcast_ref::<rustls::Error>() {
            return FetchError::Tls { host, said: error.to_string() };
        }
        next = cause.source();
    }
    let said = innermost(error);
    if error.is_dns() {
        FetchError::Resolve { host, said }
    } else if error.is_connect() || error.is_timeout() && error.is_request() {
        FetchError::Connect { host, said }
    } else {
        FetchError::Broken { host, said }
    }
}

/// An answer that is no success, as a failure.
pub(super) async fn refusal(url: &Url, answer: Response) -> FetchError {
    let status = answer.status();
    let wait = answer.headers().get(RETRY_AFTER).and_then(|value| retry_after(value, Timestamp::now()));
    let said = status.canonical_reason().unwrap_or_default().to_owned();
    FetchError::Status { host: host_of(url), status: status.as_u16(), said, wait }
}

/// The pause that a server asks for: seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(value: &HeaderValue, now: Timestamp) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(until.duration_since(now)).unwrap_or_default())
}

/// The body of an answer that must be short.
pub(super) async fn text(url: &Url, mut answer: Response) -> Result<Vec<u8>, FetchError> {
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(|error| failure(url, &error))? {
        body.extend_from_slice(&piece);
        if body.len() > MAX_TEXT {
            return Err(FetchError::TooLarge { limit: MAX_TEXT as u64 });
        }
    }
    Ok(body)
}

/// The causes of an error, without the URL that its outermost part may name.
fn chain(error: &dyn StdError) -> String {
    let mut said = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        said = format!("{said}: {cause}");
        next = cause.source();
    }
    said
}

/// The innermost cause: the system's own words.
fn innermost(error: &dyn StdError) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    // The outermost text names the URL, with its query.
    if std::ptr::addr_eq(last, error) { String::new() } else { last.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leads(from: &str, to: &str) -> Result<String, String> {
        let to = HeaderValue::from_str(to).unwrap();
        let next = next(&from.parse().unwrap(), Some(&to));
        next.map(|url| url.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn redirects_lead_to_http_servers_only_and_never_down() {
        assert_eq!(leads("https://a/b/c", "d?e").unwrap(), "https://a/b/d?e");
        assert_eq!(leads("http://a/b", "https://c/d").unwrap(), "https://c/d");
        assert_eq!(leads("http://a/b", "http://u:p@c/d").unwrap(), "http://c/d");
        let down = leads("https://a/b", "http://a/b?secret=1").unwrap_err();
        assert_eq!(down, "the server sends on to `http://a/b?…`, from https to http");
        for to in ["file:///etc/passwd", "ftp://h/x", "data:,x", "http://", "gopher://h/x"] {
            assert!(leads("http://a/b", to).is_err(), "{to}");
        }
        assert!(next(&"http://a".parse().unwrap(), None).is_err());
    }

    #[test]
    fn plain_http_needs_a_digest_or_the_loopback() {
        for (url, is_fine) in [
            ("https://a/x", true),
            ("http://127.0.0.1:5000/x", true),
            ("http://[::1]/x", true),
            ("http://localhost/x", true),
            ("http://localhost.example/x", false),
            ("http://10.0.0.1/x", false),
        ] {
            let url = url.parse().unwrap();
            assert_eq!(check_scheme(&url, false).is_ok(), is_fine, "{url}");
            assert!(check_scheme(&url, true).is_ok());
        }
    }

    #[test]
    fn pauses_are_read_in_both_forms() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let read = |text| retry_after(&HeaderValue::from_static(text), now);
        assert_eq!(read("120"), Some(Duration::from_secs(120)));
        assert_eq!(read("Thu, 01 Jan 2026 00:00:30 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(read("Wed, 31 Dec 2025 00:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(read("soon"), None);
    }
}

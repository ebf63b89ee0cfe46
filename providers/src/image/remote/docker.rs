//! Logins for registries: Docker's configuration and its credential helpers, and GitHub's token.
//!
//! Format: <https://docs.docker.com/reference/cli/docker/login/#credential-stores>.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use base64ct::{Base64, Encoding};
use reqwest::Url;
use serde::Deserialize;

use super::error::FetchError;
use super::options::FetchOptions;
use crate::process;
use crate::spec::Secret;

/// How long a credential helper may take; it may ask a key ring that asks its owner.
const HELPER_DEADLINE: Duration = Duration::from_secs(30);

/// Whose packages GITHUB_TOKEN opens.
const GITHUB: &str = "ghcr.io";

/// By what name Docker knows its own registry.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// A user and a password, or a token in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Login {
    user: String,
    password: Secret,
}

impl Login {
    /// The value of `Authorization` for it.
    pub(super) fn basic(&self) -> Secret {
        let text = format!("{}:{}", self.user, self.password.expose());
        Secret::new(format!("Basic {}", Base64::encode_string(text.as_bytes())))
    }
}

/// The value of `Authorization` for the login in a URL, if there is one.
pub(super) fn basic(url: &Url) -> Option<Secret> {
    let is_none = url.username().is_empty() && url.password().is_none();
    let plain = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let password = Secret::new(plain(url.password().unwrap_or_default()));
    (!is_none).then(|| Login { user: plain(url.username()), password }.basic())
}

/// The login for the registry at `host`, if there is one.
pub(super) async fn login(host: &str, options: &FetchOptions) -> Result<Option<Login>, FetchError> {
    let found = match &options.docker_config {
        Some(folder) => of_docker(host, folder).await?,
        None => None,
    };
    let github = || options.github_token.clone().filter(|_| host == GITHUB);
    Ok(found.or_else(|| github().map(|password| Login { user: "_token".to_owned(), password })))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default)]
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    auth: Option<Secret64>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<Secret64>,
    #[serde(default)]
    identitytoken: Option<Secret64>,
}

/// Text that is not shown, whatever happens to what holds it.
#[derive(Deserialize)]
struct Secret64(String);

impl std::fmt::Debug for Secret64 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

async fn of_docker(host: &str, folder: &Path) -> Result<Option<Login>, FetchError> {
    let path = folder.join("config.json");
    let bad = |said: String| FetchError::Login { host: host.to_owned(), said };
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(bad(format!("`{}`: {error}", path.display()))),
    };
    // The parser's own words would show a piece of what is written there.
    let config: Config = serde_json::from_slice(&text)
        .map_err(|_| bad(format!("`{}` is no configuration of Docker's", path.display())))?;
    let keys = keys_of(host);
    if let Some(store) =
        keys.iter().find_map(|key| config.cred_helpers.get(key)).or(config.creds_store.as_ref())
    {
        // A helper that knows nothing of the registry leaves it to what is written down.
        for key in &keys {
            if let Some(login) = ask_helper(store, key).await.map_err(&bad)? {
                return Ok(Some(login));
            }
        }
    }
    match keys.iter().find_map(|key| config.auths.get(key)) {
        Some(entry) => of_entry(entry).map_err(|said| bad(format!("`{}`: {said}", path.display()))),
        None => Ok(None),
    }
}

/// The names by which Docker may know a registry.
fn keys_of(host: &str) -> Vec<String> {
    let mut keys = vec![
        host.to_owned(),
        format!("https://{host}"),
        format!("https://{host}/"),
        format!("http://{host}"),
    ];
    if matches!(host, "docker.io" | "registry-1.docker.io" | "index.docker.io") {
        keys.insert(0, DOCKER_HUB.to_owned());
    }
    keys
}

fn of_entry(entry: &Entry) -> Result<Option<Login>, String> {
    if entry.identitytoken.as_ref().is_some_and(|token| !token.0.is_empty()) {
        return Err(
            "an identity token, which vmctl cannot use; log in with a password or an access token".to_owned()
        );
    }
    if let (Some(user), Some(password)) = (&entry.username, &entry.password) {
        return Ok(Some(Login { user: user.clone(), password: Secret::new(&*password.0) }));
    }
    let Some(auth) = entry.auth.as_ref().filter(|auth| !auth.0.is_empty()) else { return Ok(None) };
    let text = Base64::decode_vec(auth.0.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.as_deref().map(|text| text.trim_end_matches('\0'));
    match text.and_then(|text| text.split_once(':')) {
        Some((user, password)) => Ok(Some(Login { user: user.to_owned(), password: Secret::new(password) })),
        None => Err("its `auth` holds no user and password".to_owned()),
    }
}

/// Asks Docker's credential helper `store` about the registry `key`.
async fn ask_helper(store: &str, key: &str) -> Result<Option<Login>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: Secret64,
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if store.is_empty() || !store.chars().all(is_plain) {
        return Err("the name of its credential helper is none".to_owned());
    }
    let name = format!("docker-credential-{store}");
    let answered = process::answer(&name, &["get"], key.as_bytes(), HELPER_DEADLINE).await;
    let answer = answered.map_err(|error| format!("`{name}` cannot be asked: {error}"))?;
    if !answer.is_success {
        let said = String::from_utf8_lossy(&answer.stdout).to_lowercase();
        return match said.contains("credentials not found") {
            true => Ok(None),
            false => Err(format!("`{name}` failed")),
        };
    }
    let answer: Answer =
        serde_json::from_slice(&answer.stdout).map_err(|_| format!("`{name}` answers no login"))?;
    if answer.username == "<token>" {
        return Err(
            "an identity token, which vmctl cannot use; log in with a password or an access token".to_owned()
        );
    }
    Ok(Some(Login { user: answer.username, password: Secret::new(answer.secret.0) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn found(host: &str, config: &str, token: Option<&str>) -> Result<Option<Login>, FetchError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        let options = FetchOptions {
            docker_config: Some(folder.path().to_owned()),
            github_token: token.map(Secret::new),
            ..FetchOptions::default()
        };
        login(host, &options).await
    }

    fn of(user: &str, password: &str) -> Option<Login> {
        Some(Login { user: user.to_owned(), password: Secret::new(password) })
    }

    #[tokio::test]
    async fn logins_are_found_by_the_names_that_docker_uses() {
        let config = r#"{"auths": {
            "reg.example:5000": {"auth": "bWU6cGFzczp3b3Jk"},
            "https://other.example": {"username": "u", "password": "p"},
            "https://index.docker.io/v1/": {"auth": "aHViOng="},
            "empty.example": {}
        }}"#;
        assert_eq!(found("reg.example:5000", config, None).await.unwrap(), of("me", "pass:word"));
        assert_eq!(found("other.example", config, None).await.unwrap(), of("u", "p"));
        assert_eq!(found("docker.io", config, None).await.unwrap(), of("hub", "x"));
        for host in ["empty.example", "reg.example", "evil.reg.example:5000"] {
            assert_eq!(found(host, config, None).await.unwrap(), None, "{host}");
        }
    }

    #[tokio::test]
    async fn token_of_github_is_for_its_registry_alone_and_comes_last() {
        assert_eq!(found("ghcr.io", "{}", Some("t0")).await.unwrap(), of("_token", "t0"));
        assert_eq!(found("ghcr.io.example", "{}", Some("t0")).await.unwrap(), None);
        let config = r#"{"auths": {"ghcr.io": {"auth": "bWU6cHc="}}}"#;
        assert_eq!(found("ghcr.io", config, Some("t0")).await.unwrap(), of("me", "pw"));
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_told_without_its_content() {
        for config in [
            r#"{"auths": {"h": {"auth": "c2VjcmV0"}}}"#,
            r#"{"auths": {"h": {"auth": "secret"}}}"#,
            r#"{"auths": {"h": "secret"}}"#,
            r#"{"auths": {"h": {"identitytoken": "secret"}}}"#,
            r#"{"credsStore": "../secret"}"#,
            r#"{"credHelpers": {"h": "no-such-helper"}}"#,
        ] {
            let error = found("h", config, None).await.unwrap_err();
            assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        }
    }
}

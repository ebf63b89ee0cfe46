//! What a registry wants to see before it answers: `WWW-Authenticate`, and the tokens of token servers
//! (<https://distribution.github.io/distribution/spec/auth/token/>).

use reqwest::Url;
use serde::Deserialize;

use super::client::{Client, Request, is_loopback, refusal, text};
use super::docker::Login;
use super::error::FetchError;
use crate::spec::Secret;

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password.
    Basic,
    /// A token of a token server.
    Bearer(Bearer),
}

/// Where a token is to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bearer {
    realm: String,
    service: Option<String>,
    scope: Option<String>,
}

impl Challenge {
    /// Reads a value of `WWW-Authenticate`; none if it is of another scheme.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        match scheme.to_ascii_lowercase().as_str() {
            "basic" => Some(Self::Basic),
            "bearer" => {
                let mut bearer = Bearer { realm: String::new(), service: None, scope: None };
                for (name, value) in parameters(rest) {
                    match name.to_ascii_lowercase().as_str() {
                        "realm" => bearer.realm = value,
                        "service" => bearer.service = Some(value),
                        "scope" => bearer.scope = Some(value),
                        _ => {}
                    }
                }
                (!bearer.realm.is_empty()).then_some(Self::Bearer(bearer))
            }
            _ => None,
        }
    }
}

/// Names and values, separated by commas; a quoted value may hold some (RFC 9110, 5.6.4).
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some((name, behind)) = rest.split_once('=') {
        let mut value = String::new();
        let behind = behind.trim_start();
        rest = match behind.strip_prefix('"') {
            Some(quoted) => {
                let mut chars = quoted.char_indices();
                let mut end = quoted.len();
                while let Some((at, c)) = chars.next() {
                    match c {
                        '"' => {
                            end = at + 1;
                            break;
                        }
                        '\\' => value.extend(chars.next().map(|(_, c)| c)),
                        c => value.push(c),
                    }
                }
                &quoted[end..]
            }
            None => {
                let end = behind.find(',').unwrap_or(behind.len());
                value.push_str(behind[..end].trim());
                &behind[end..]
            }
        };
        found.push((name.trim().to_owned(), value));
        rest = rest.trim_start_matches([',', ' ', '\t']);
    }
    found
}

/// Gets a token: the value of `Authorization`. The token server is spoken to by https, or is on the loopback as the
/// registry at `registry` is; the login is for it.
pub(super) async fn token(
    client: &Client,
    bearer: &Bearer,
    scope: &str,
    login: Option<&Login>,
    registry: &Url,
) -> Result<Secret, FetchError> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(alias = "access_token")]
        token: Option<String>,
    }
    let host = super::client::host_of(registry);
    let bad = |said: &str| FetchError::Login { host: host.clone(), said: said.to_owned() };
    let mut url = Url::parse(&bearer.realm).map_err(|_| bad("its token server has no URL"))?;
    if url.scheme() != "https" && !(is_loopback(registry) && is_loopback(&url)) {
        return Err(bad("its token server is not spoken to by https"));
    }
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = &bearer.service {
            query.append_pair("service", service);
        }
        query.append_pair("scope", bearer.scope.as_deref().unwrap_or(scope));
    }
    let mut request = Request::get(url.clone());
    request.login = login.map(Login::basic);
    let answer = client.send(&request).await?;
    if !answer.status().is_success() {
        return Err(refusal(&url, answer).await);
    }
    let body = text(&url, answer).await?;
    // What cannot be read may be half a token: the parser's own words would show it.
    let answer: Answer =
        serde_json::from_slice(&body).map_err(|_| bad("its token server answers no JSON"))?;
    let token = answer.token.filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| bad("its token server gives no token"))?;
    Ok(Secret::new(format!("Bearer {token}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let text = r#"Bearer realm="https://auth.example/token?a=b,c", service=reg.example , scope="repository:a/b:pull,push""#;
        let bearer = Bearer {
            realm: "https://auth.example/token?a=b,c".to_owned(),
            service: Some("reg.example".to_owned()),
            scope: Some("repository:a/b:pull,push".to_owned()),
        };
        assert_eq!(Challenge::parse(text), Some(Challenge::Bearer(bearer)));
        assert_eq!(Challenge::parse(r#"basic realm="x""#), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Basic"), Some(Challenge::Basic));
        for text in ["Negotiate", "Bearer", "Bearer service=\"x\"", "", "Bearer realm=\""] {
            assert_eq!(Challenge::parse(text), None, "{text:?}");
        }
    }
}

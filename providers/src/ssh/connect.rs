//! From "the machine was started" to a logged-in connection.
//!
//! QEMU's user network accepts a connection at once, whether the guest listens or not, and repeats the first packet
//! to the guest only after seconds. A connection that was made too early is therefore lost, and says so by silence.
//! So fresh connections are made at a steady pace while earlier ones wait on for a slow guest; the first one that
//! brings a banner is used.
//!
//! A guest that is known to answer is not asked so often: each connection costs an emulated guest a process, and OpenSSH
//! turns away whoever comes while too many others have not logged in yet (`MaxStartups`). Such a guest is given time.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use russh::client::{self, AuthResult};
use russh::keys::{Algorithm, HashAlg, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{AgentAuthError, AlgorithmKind, Preferred};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::keyring::{self, Identity};
use super::known_hosts::{self, Pins};
use super::{Keyring, Session, SshError, SshTarget};

/// Time after which a connection that ended without a word is made again: the far end is up and not listening yet.
const AFTER_CLOSE: Duration = Duration::from_millis(20);

/// Shortest and longest time between two connections while the far end is silent. Between them it is a
/// [`PACE`]th of the time waited so far, so that readiness is seen late by little.
const GAP: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(500));

/// See [`GAP`].
const PACE: u32 = 50;

/// How long one connection waits for its banner while nobody knows whether the far end answers at all. Later than this the
/// first packet was lost: it is repeated after 5.6 s.
const BANNER: Duration = Duration::from_secs(2);

/// The same where the far end is known to answer.
const SLOW_BANNER: Duration = Duration::from_secs(20);

/// Time between two connections where the far end is known to answer.
const SLOW_GAP: Duration = Duration::from_secs(2);

/// How OpenSSH begins what it says, in place of its banner, to whoever is one too many.
const CROWDED: &[u8; 4] = b"Exce";

/// From banner to login. An emulated guest needs seconds for its cryptography while it still boots. Each attempt that
/// took longer gives the next one twice the time: a connection may be stuck, or the guest just busy.
const HANDSHAKE: Duration = Duration::from_secs(20);

/// Time between two logins after a refusal. OpenSSH (PerSourcePenalties) locks out whoever fails more often.
const AFTER_REFUSAL: Duration = Duration::from_millis(2500);

/// A refusal is final when it came this often in a row …
const FINAL_COUNT: u32 = 3;

/// … over this time: sshd may run before cloud-init has installed keys and host keys.
const FINAL_SPAN: Duration = Duration::from_millis(2 * 2500);

/// Time without a word from the guest after which it is asked for a sign of life; the third question unanswered
/// ends the connection.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// See [`Session::wait_for`] and [`Session::reach`]; `answers` says whether the far end is known to answer.
pub(super) async fn wait_for(
    target: &SshTarget,
    keyring: &Keyring,
    timeout: Duration,
    answers: bool,
) -> Result<Session, SshError> {
    let identity = keyring.identity(&target.private_key).await?;
    let pins = known_hosts::read(target)?;
    let started = Instant::now();
    let deadline = started + timeout;
    let mut refusals = Refusals::default();
    let mut handshake = HANDSHAKE;
    let mut last = NotYet::NoAnswer;
    let mut pace = if answers { Pace::Slow } else { Pace::Since(started) };
    while let Ok(stream) = timeout_at(deadline, first_banner(target.address, &mut pace)).await {
        let login = login(stream, target, &identity, &pins);
        let mut pause = AFTER_CLOSE;
        match timeout_at(deadline.min(Instant::now() + handshake), login).await {
            Ok(Ok((session, host_key))) => {
                if pins == Pins::Unknown {
                    known_hosts::learn(target, &host_key)?;
                }
                tracing::debug!(address = %target.address, waited = ?started.elapsed(), "logged in");
                return Ok(session);
            }
            Ok(Err(Failure::Refused(refusal))) => {
                last = NotYet::Refused(refusal);
                if refusals.are_final(refusal, started.elapsed()) {
                    break;
                }
                pause = AFTER_REFUSAL;
            }
            Ok(Err(Failure::Agent(reason))) => {
                return Err(SshError::AgentRefused { key: target.private_key.clone(), reason });
            }
            Ok(Err(Failure::Ssh(error))) => {
                tracing::debug!(address = %target.address, %error, "login broke off");
                last = NotYet::Stalled;
                pace = Pace::Slow;
            }
            Err(_) => {
                last = NotYet::Stalled;
                pace = Pace::Slow;
                handshake = handshake.saturating_mul(2);
            }
        }
        sleep_until(deadline.min(Instant::now() + pause)).await;
    }
    Err(last.into_error(target, timeout))
}

/// Why the last attempt was not enough.
#[derive(Debug, Clone, Copy)]
enum NotYet {
    NoAnswer,
    Stalled,
    Refused(Refusal),
}

impl NotYet {
    fn into_error(self, target: &SshTarget, after: Duration) -> SshError {
        let address = target.address.to_string();
        match self {
            Self::NoAnswer => SshError::NoAnswer { address, after },
            Self::Stalled => SshError::Stalled { address, after },
            Self::Refused(Refusal::HostKey) => {
                SshError::HostKeyMismatch { address, known_hosts: target.known_hosts.clone() }
            }
            Self::Refused(Refusal::Login) => {
                SshError::AuthRefused { user: target.user.clone(), key: target.private_key.clone() }
            }
        }
    }
}

/// A plain no, by us or by the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    HostKey,
    Login,
}

/// Counts refusals in a row.
#[derive(Debug, Default)]
struct Refusals {
    run: Option<(Refusal, Duration, u32)>,
}

impl Refusals {
    /// Takes note of a refusal at the time `at`, and tells whether waiting on cannot help.
    fn are_final(&mut self, refusal: Refusal, at: Duration) -> bool {
        let (since, count) = match self.run {
            Some((same, since, count)) if same == refusal => (since, count + 1),
            _ => (at, 1),
        };
        self.run = Some((refusal, since, count));
        count >= FINAL_COUNT && at.saturating_sub(since) >= FINAL_SPAN
    }
}

/// How often the far end is asked.
#[derive(Debug, Clone, Copy)]
enum Pace {
    /// Nobody knows whether it answers; it has been asked since then.
    Since(Instant),
    /// It answers, and needs time.
    Slow,
}

impl Pace {
    /// Time between two connections.
    fn gap(self) -> Duration {
        match self {
            Self::Since(started) => gap(started.elapsed()),
            Self::Slow => SLOW_GAP,
        }
    }

    /// How long one connection waits for its banner.
    fn banner(self) -> Duration {
        match self {
            Self::Since(_) => BANNER,
            Self::Slow => SLOW_BANNER,
        }
    }
}

/// The first connection on which the far end says something; cancel-safe, never gives up by itself.
async fn first_banner(address: SocketAddr, pace: &mut Pace) -> TcpStream {
    let mut tries = JoinSet::new();
    let mut next = Instant::now();
    loop {
        tokio::select! {
            Some(tried) = tries.join_next(), if !tries.is_empty() => match tried {
                Ok(Tried::Speaks(stream)) => return stream,
                Ok(Tried::Crowded) => {
                    // Those that wait there are ours.
                    tries.shutdown().await;
                    *pace = Pace::Slow;
                    next = Instant::now() + SLOW_GAP;
                }
                Ok(Tried::Nothing) | Err(_) => next = next.min(Instant::now() + AFTER_CLOSE),
            },
            () = sleep_until(next) => {
                tries.spawn(banner(address, pace.banner()));
                next = Instant::now() + pace.gap();
            }
        }
    }
}

fn gap(waited: Duration) -> Duration {
    (waited / PACE).clamp(GAP.0, GAP.1)
}

/// What became of one connection.
enum Tried {
    /// The far end says something.
    Speaks(TcpStream),
    /// It is there, and turns us away.
    Crowded,
    /// It was refused, ended, or stayed silent.
    Nothing,
}

async fn banner(address: SocketAddr, patience: Duration) -> Tried {
    let deadline = Instant::now() + patience;
    let Ok(Ok(stream)) = timeout_at(deadline, TcpStream::connect(address)).await else {
        return Tried::Nothing;
    };
    let mut begin = [0; CROWDED.len()];
    match timeout_at(deadline, stream.peek(&mut begin)).await {
        Ok(Ok(0) | Err(_)) | Err(_) => Tried::Nothing,
        Ok(Ok(_)) if begin == *CROWDED => Tried::Crowded,
        Ok(Ok(_)) => Tried::Speaks(stream),
    }
}

/// Why a login did not come about.
#[derive(Debug)]
pub(super) enum Failure {
    Refused(Refusal),
    /// The agent does not sign.
    Agent(String),
    Ssh(russh::Error),
}

impl From<AgentAuthError> for Failure {
    fn from(error: AgentAuthError) -> Self {
        match error {
            AgentAuthError::Key(error) => Self::Agent(error.to_string()),
            AgentAuthError::Send(_) => Self::Ssh(russh::Error::SendError),
        }
    }
}

impl From<russh::Error> for Failure {
    fn from(error: russh::Error) -> Self {
        match error {
            // We ask for pinned types alone; a guest that has none of them does not have the pinned key.
            russh::Error::NoCommonAlgo { kind: AlgorithmKind::Key, .. } => Self::Refused(Refusal::HostKey),
            other => Self::Ssh(other),
        }
    }
}

/// Checks the host key, before anything is said about user or key.
#[derive(Debug)]
pub(super) struct HostKeyCheck {
    pins: Pins,
    shown: Arc<OnceLock<PublicKey>>,
}

impl client::Handler for HostKeyCheck {
    type Error = Failure;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Failure> {
        match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } if self.pins.accept(key) => {
                // It is shown once a connection, and again only with the same key.
                let _ = self.shown.set(key.clone());
                Ok(true)
            }
            _ => Err(Failure::Refused(Refusal::HostKey)),
        }
    }
}

async fn login(
    stream: TcpStream,
    target: &SshTarget,
    identity: &Identity,
    pins: &Pins,
) -> Result<(Session, PublicKey), Failure> {
    stream.set_nodelay(true).map_err(russh::Error::from)?;
    let mut preferred = Preferred::DEFAULT;
    if let Some(algorithms) = pins.algorithms() {
        preferred.key = Cow::Owned(algorithms);
    }
    let config =
        client::Config { preferred, keepalive_interval: Some(KEEPALIVE), ..client::Config::default() };
    let shown = Arc::new(OnceLock::new());
    let check = HostKeyCheck { pins: pins.clone(), shown: shown.clone() };
    let mut handle = client::connect_stream(Arc::new(config), stream, check).await?;
    match prove(&mut handle, &target.user, identity).await? {
        AuthResult::Success => {}
        AuthResult::Failure { .. } => return Err(Failure::Refused(Refusal::Login)),
    }
    let host_key = shown.get().cloned().ok_or(russh::Error::UnknownKey)?;
    Ok((Session::new(handle), host_key))
}

/// Shows the guest that `identity` is ours.
async fn prove(
    handle: &mut client::Handle<HostKeyCheck>,
    user: &str,
    identity: &Identity,
) -> Result<AuthResult, Failure> {
    match identity {
        Identity::Key(key) => {
            let hash = hash_for(handle, &key.algorithm()).await?;
            let key = PrivateKeyWithHashAlg::new(key.clone(), hash);
            Ok(handle.authenticate_publickey(user, key).await?)
        }
        Identity::Agent(socket, public) => {
            let hash = hash_for(handle, &public.algorithm()).await?;
            let mut agent = keyring::connect(socket).await.map_err(Failure::Agent)?;
            Ok(handle.authenticate_publickey_with(user, public.clone(), hash, &mut agent).await?)
        }
    }
}

/// The digest that an RSA key signs: what the guest says it takes, else what every sshd of the last ten years takes.
async fn hash_for(
    handle: &client::Handle<HostKeyCheck>,
    algorithm: &Algorithm,
) -> Result<Option<HashAlg>, Failure> {
    match algorithm {
        Algorithm::Rsa { .. } => {
            Ok(handle.best_supported_rsa_hash().await?.flatten().or(Some(HashAlg::Sha256)))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_is_final_after_three_in_a_row_over_the_span() {
        let at = |ms| Duration::from_millis(ms);
        let mut quick = Refusals::default();
        let verdicts = [0, 10, 20, 30, 5000].map(|ms| quick.are_final(Refusal::Login, at(ms)));
        assert_eq!(verdicts, [false, false, false, false, true]);
        let mut slow = Refusals::default();
        assert_eq!([0, 9000, 9001].map(|ms| slow.are_final(Refusal::Login, at(ms))), [false, false, true]);
        let mut mixed = Refusals::default();
        assert!(!mixed.are_final(Refusal::HostKey, at(0)));
        assert!(!mixed.are_final(Refusal::HostKey, at(2500)));
        assert!(!mixed.are_final(Refusal::Login, at(6000)));
        assert!(!mixed.are_final(Refusal::Login, at(9000)));
        assert!(mixed.are_final(Refusal::Login, at(11000)));
    }

    #[test]
    fn pace_follows_the_time_waited_within_its_bounds() {
        let gaps = [0, 1000, 4000, 10_000, 60_000].map(|ms| gap(Duration::from_millis(ms)).as_millis());
        assert_eq!(gaps, [100, 100, 100, 200, 500]);
    }
}

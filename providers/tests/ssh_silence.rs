//! What is told when no guest answers as it should.

#![expect(clippy::unwrap_used, reason = "a test fails by panic")]

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use vmctl_providers::keys::{self, KeyError};
use vmctl_providers::ssh::{Keyring, Session, SshError, SshTarget};

const SHORT: Duration = Duration::from_millis(700);

/// A target at `listener` with a usable key.
fn target(folder: &tempfile::TempDir, listener: &TcpListener) -> SshTarget {
    let target = SshTarget {
        address: listener.local_addr().unwrap(),
        user: "vm".to_owned(),
        private_key: folder.path().join("id"),
        known_hosts: folder.path().join("known_hosts"),
        host_alias: "vmctl-test".to_owned(),
    };
    std::fs::write(&target.private_key, keys::generate("x").private.expose()).unwrap();
    target
}

#[tokio::test]
async fn listener_without_a_word_is_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = target(&folder, &listener);
    let error = Session::wait_for(&target, &Keyring::default(), SHORT).await.unwrap_err();
    assert!(matches!(error, SshError::NoAnswer { after: SHORT, .. }), "{error:?}");
    assert!(!target.known_hosts.exists());
}

#[tokio::test]
async fn closed_port_and_closing_listener_are_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = target(&folder, &listener);
    let closing = async {
        loop {
            drop(listener.accept().await.unwrap());
        }
    };
    let keyring = Keyring::default();
    tokio::select! {
        () = closing => {}
        ended = Session::wait_for(&target, &keyring, SHORT) => {
            assert!(matches!(ended, Err(SshError::NoAnswer { .. })), "{ended:?}");
        }
    }
    drop(listener);
    let error = Session::wait_for(&target, &Keyring::default(), SHORT).await.unwrap_err();
    assert!(matches!(error, SshError::NoAnswer { .. }), "{error:?}");
}

#[tokio::test]
async fn banner_and_then_silence_is_stalled() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = target(&folder, &listener);
    let stalling = async {
        let mut streams = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            // The client may have left for another connection.
            let _ = stream.write_all(b"SSH-2.0-test\r\n").await;
            streams.push(stream);
        }
    };
    let keyring = Keyring::default();
    tokio::select! {
        () = stalling => {}
        ended = Session::wait_for(&target, &keyring, SHORT) => {
            assert!(matches!(ended, Err(SshError::Stalled { .. })), "{ended:?}");
        }
    }
}

#[tokio::test]
async fn unusable_key_is_told_before_anything_is_tried() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = target(&folder, &listener);
    std::fs::write(&target.private_key, keys::generate("x").public).unwrap();
    let forever = Duration::from_secs(3600);
    let error = Session::wait_for(&target, &Keyring::default(), forever).await.unwrap_err();
    assert!(matches!(error, SshError::Key(KeyError::NotHeld { .. })), "{error:?}");
    std::fs::remove_file(&target.private_key).unwrap();
    let error = Session::wait_for(&target, &Keyring::default(), forever).await.unwrap_err();
    assert!(matches!(error, SshError::Key(KeyError::Io { .. })), "{error:?}");
}

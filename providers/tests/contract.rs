//! The fake backend keeps the contract. The others are led through it where they have what they need: QEMU in
//! `qemu_real`, Propolis beside its own tests.

use vmctl_providers::contract::{Breach, Traits, keeps_the_contract, plain_machine};
use vmctl_providers::noop::Rule;
use vmctl_providers::{BackendTag, NoopBackend, VmSpec};

const TRAITS: Traits = Traits { pauses: true, has_console: false };

fn spec() -> VmSpec {
    plain_machine(BackendTag::Noop)
}

#[tokio::test]
async fn noop_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let noop = NoopBackend::new(folder.path().join("vms"), folder.path().join("world"));
    keeps_the_contract(&noop, &spec(), TRAITS).await.unwrap();
}

#[tokio::test]
async fn breaches_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let noop = NoopBackend::new(folder.path().join("vms"), folder.path().join("world"));
    // It does pause, and has no console.
    let wrong = Traits { pauses: false, ..TRAITS };
    let breach = keeps_the_contract(&noop, &spec(), wrong).await.unwrap_err();
    assert_eq!(
        breach.to_string(),
        "suspend must fail with `Unsupported`, and it ended with a handle in state suspended"
    );
    let folder = tempfile::tempdir().unwrap();
    let noop = NoopBackend::new(folder.path().join("vms"), folder.path().join("world"));
    let rule = Rule { op: "start".to_owned(), fail: Some("no luck".to_owned()), ..Rule::default() };
    noop.script(&[rule]).unwrap();
    let breach = keeps_the_contract(&noop, &spec(), TRAITS).await.unwrap_err();
    assert!(matches!(breach, Breach::Failed { call: "start", .. }), "{breach}");
}

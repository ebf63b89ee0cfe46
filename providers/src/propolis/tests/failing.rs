//! Servers that are stricter, laxer, or broken.

use serde_json::json;
use vmctl_tests::propolis::{Fault, Options};

use super::super::{Client, Ensured, PropolisError};
use super::{PATIENCE, World};
use crate::abilities::Inspect;
use crate::error::{Error, ErrorKind};
use crate::hypervisor::Hypervisor;
use crate::spec::VmState;

fn error_body(message: &str) -> String {
    json!({"request_id": "", "message": message}).to_string()
}

#[tokio::test]
async fn server_at_its_beginning_is_asked_again() {
    let world = World::new();
    for what in ["GET /instance", "PUT /instance/state"] {
        world.server.fault(what, Fault::Answer(503, error_body("Service Unavailable")));
    }
    let vm = world.started().await;
    assert_eq!(vm.state, VmState::Running);
    assert_eq!(world.count("PUT", "/instance/state"), 2);
}

#[tokio::test]
async fn failure_without_a_reason_says_where_the_reason_is() {
    let world = World::new();
    let vm = world.prepared().await;
    for (status, body) in [(500, error_body("Internal Server Error")), (502, "<html>".to_owned())] {
        world.server.fault("PUT /instance", Fault::Answer(status, body));
        let error = world.backend.start(&vm).await.unwrap_err();
        assert!(error.to_string().contains("failed to make the VM: 50"), "{error}");
        assert_eq!(error.help().unwrap(), "the reason is in the log of that propolis-server");
    }
    // Nothing of it stands in the way of the next start.
    assert_eq!(world.backend.start(&vm).await.unwrap().state, VmState::Running);
}

#[tokio::test]
async fn refusal_tells_what_the_server_said() {
    let world = World::with(Options { vnics: Some(Vec::new()), ..Options::default() });
    let mut spec = world.spec();
    spec.machine.nics = vec![super::nic(0)];
    spec.machine.hardware.propolis.vnic_link = Some("igb0".to_owned());
    let vm = world.backend.prepare(&spec).await.unwrap();
    let error = world.backend.start(&vm).await.unwrap_err();
    assert!(error.to_string().ends_with("refused to make the VM: 400 (net0-be: no vnic `web0`)"), "{error}");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn version_that_a_server_does_not_speak_is_told() {
    let world = World::new();
    let mut spec = world.spec();
    spec.machine.hardware.propolis.api_version = Some("99.0.0".to_owned());
    let vm = world.backend.prepare(&spec).await.unwrap();
    let error = world.backend.start(&vm).await.unwrap_err();
    assert!(error.help().unwrap().contains("set `api-version`"), "{error}");
}

#[tokio::test]
async fn broken_connections_are_errors_and_never_an_end() {
    let world = World::new();
    let vm = world.started().await;
    for fault in [Fault::Close, Fault::Garbage, Fault::Answer(200, "not json".to_owned())] {
        world.server.fault("GET /instance", fault.clone());
        let error = world.backend.state(&vm).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Host, "{fault:?}: {error}");
    }
    assert_eq!(world.backend.state(&vm).await.unwrap(), VmState::Running);
}

#[tokio::test]
async fn silence_ends_at_its_deadline() {
    let world = World::new();
    let vm = world.started().await;
    world.server.fault("GET /instance", Fault::Hang);
    let error = world.backend.state(&vm).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    // Whoever loses patience may go at any time, and ask anew.
    world.server.fault("GET /instance", Fault::Hang);
    assert!(
        tokio::time::timeout(std::time::Duration::from_millis(50), world.backend.state(&vm)).await.is_err()
    );
    assert_eq!(world.backend.state(&vm).await.unwrap(), VmState::Running);
}

#[tokio::test]
async fn state_that_nobody_knows_is_a_failure() {
    let world = World::with(Options { stuck: Some("Dreaming".to_owned()), ..Options::default() });
    let vm = world.prepared().await;
    let error = world.backend.start(&vm).await.unwrap_err().to_string();
    assert_eq!(error, "the VM came to the state `Dreaming` instead of `Running`");
    assert_eq!(world.backend.state(&vm).await.unwrap(), VmState::Failed);
    assert_eq!(world.backend.inspect(&vm).await.unwrap().state, VmState::Failed);
    // It is ended like any other.
    world.backend.destroy(vm).await.unwrap();
    assert_eq!(world.server.state().unwrap(), "Destroyed");
}

#[tokio::test]
async fn vm_that_fails_to_start_is_told_and_can_be_stopped() {
    let world = World::with(Options { stuck: Some("Failed".to_owned()), ..Options::default() });
    let vm = world.prepared().await;
    let error = world.backend.start(&vm).await.unwrap_err();
    assert!(error.to_string().contains("`Failed`"), "{error}");
    let stopped = world.backend.stop(&vm, PATIENCE).await.unwrap();
    assert_eq!((stopped.state, world.server.state().unwrap().as_str()), (VmState::Prepared, "Destroyed"));
}

#[tokio::test]
async fn second_ensure_in_between_is_looked_at_and_not_trusted() {
    let world = World::new();
    let vm = world.prepared().await;
    // As if somebody had been quicker, and then as if that one were gone.
    world.server.fault("PUT /instance", Fault::Answer(409, error_body("AlreadyInitialized")));
    assert_eq!(world.backend.start(&vm).await.unwrap().state, VmState::Running);
    assert_eq!(world.count("PUT", "/instance"), 2);
    let client = Client::new(world.server.address(), "1.0.0").unwrap();
    assert_eq!(client.ensure(&world.server.told().unwrap()).await.unwrap(), Ensured::Occupied);
}

#[tokio::test]
async fn forbidden_change_is_an_error_of_state() {
    let world = World::new();
    let vm = world.prepared().await;
    world.server.fault("PUT /instance/state", Fault::Answer(403, error_body("not now")));
    let error = world.backend.start(&vm).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidState, "{error}");
}

#[tokio::test]
async fn server_that_is_not_there_is_told_with_its_address() {
    let world = World::new();
    let mut spec = world.spec();
    spec.machine.hardware.propolis.server = Some("127.0.0.1:1".parse().unwrap());
    let vm = world.backend.prepare(&spec).await.unwrap();
    let error = world.backend.start(&vm).await.unwrap_err();
    assert_eq!(error.to_string(), "no propolis-server listens at 127.0.0.1:1");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    // Without a server there is no VM.
    assert_eq!(world.backend.state(&vm).await.unwrap(), VmState::Prepared);
    world.backend.destroy(vm).await.unwrap();
}

#[tokio::test]
async fn request_beyond_what_a_server_takes_is_not_sent() {
    let world = World::new();
    let client = Client::new(world.server.address(), "1.0.0").unwrap();
    let error = client.ensure(&json!({"x": "y".repeat(1 << 20)})).await.unwrap_err();
    assert!(matches!(error, PropolisError::TooLarge { size } if size > 1 << 20), "{error}");
    assert_eq!(world.server.asked(), []);
    // Not even by a machine's seed: that goes by a file then.
    let _ = Error::from(error);
}

//! Machines whose servers have zones.

use super::{PATIENCE, World, nic};
use crate::abilities::{Ending, Inspect, Preflight, Reconfigure};
use crate::contract::{Traits, keeps_the_contract};
use crate::error::{Error, ErrorKind};
use crate::hypervisor::Hypervisor;
use crate::spec::{VmSpec, VmState, ZoneOptions};

const ZONE: &str = "vmctl-5f8b1d2e00004000";
const CONTROL: &str = "vmctl5f8b1d2e00004000c0";

/// A world with a template, and the machine whose server is in a zone: it answers at the address of the world's server.
fn world() -> (World, VmSpec) {
    let world = World::new();
    world.host.add_zone("propolis", "installed", "create");
    let server = world.server.clone();
    world.host.at_halt(move || server.reset());
    let mut spec = world.full_spec();
    let propolis = &mut spec.machine.hardware.propolis;
    propolis.server = None;
    propolis.bootrom = Some("/opt/OVMF CODE.fd".into());
    propolis.zone = Some(ZoneOptions {
        template: "propolis".to_owned(),
        link: "stub0".to_owned(),
        address: std::net::Ipv4Addr::LOCALHOST,
        prefix: 24,
        port: world.server.address().port(),
    });
    (world, spec)
}

/// What was done to zones and what is in them.
fn deeds(world: &World) -> Vec<String> {
    let of_zones = |deed: &String| deed.starts_with('z') && !deed.starts_with("zfs");
    world.host.deeds().into_iter().filter(of_zones).collect()
}

#[tokio::test]
async fn contract_is_kept_with_a_server_in_a_zone() {
    let (world, spec) = world();
    let traits = Traits { pauses: false, has_console: true };
    Box::pin(keeps_the_contract(&world.backend, &spec, traits)).await.unwrap();
    assert_eq!(world.host.zone(ZONE), None);
    assert_eq!(world.host.zone("propolis").unwrap().0, "installed");
    let all = world.host.deeds().join("\n");
    let count = |word: &str| all.matches(word).count();
    assert_eq!((count("create-vnic"), count("delete-vnic")), (2, 2), "{all}");
}

#[tokio::test]
async fn zone_is_made_booted_halted_and_removed_by_these_commands() {
    let (world, spec) = world();
    world.backend.preflight(&spec).await.unwrap();
    let vm = world.backend.prepare(&spec).await.unwrap();
    let vm =
        world.backend.prepare(&spec).await.map(|again| assert_eq!(again.id, vm.id)).map(|()| vm).unwrap();
    let vm = world.backend.start(&vm).await.unwrap();
    assert_eq!(world.backend.inspect(&vm).await.unwrap().state, VmState::Running);
    let vm = world.backend.start(&vm).await.unwrap();
    let vm = world.backend.stop(&vm, PATIENCE).await.unwrap();
    assert_eq!((vm.state, vm.forced_stop.as_deref()), (VmState::Stopped, Some("Stop")));
    world.backend.destroy(vm.clone()).await.unwrap();
    world.backend.destroy(vm).await.unwrap();
    let (port, here) = (world.server.address().port().to_string(), world.folder.path().to_str().unwrap());
    let told = deeds(&world).join("\n").replace(&port, "PORT").replace(here, "HERE");
    // The digest is of what stands before it, and that of a path of this run.
    let (before, after) = told.split_once("name=vmctl-config; set type=string; set value=\"").unwrap();
    let told = format!("{before}name=vmctl-config; set type=string; set value=\"DIGEST{}", &after[16..]);
    insta::assert_snapshot!(told);
}

#[tokio::test]
async fn zone_without_the_mark_is_neither_used_nor_removed() {
    for script in ["create", "add attr; set name=vmctl-id; set type=string; set value=\"another\"; end; "] {
        for state in ["configured", "installed", "running"] {
            let (world, spec) = world();
            world.host.add_zone(ZONE, state, script);
            let error = world.backend.prepare(&spec).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InUse, "{error}");
            let vm = world.backend.handle(&spec).unwrap();
            let error = world.backend.destroy(vm).await.unwrap_err();
            assert!(matches!(error, Error::Foreign { .. }), "{error}");
            assert_eq!(world.host.zone(ZONE).unwrap().0, state);
            assert_eq!(deeds(&world), [""; 0]);
        }
    }
}

#[tokio::test]
async fn template_that_cannot_be_cloned_is_told_beforehand() {
    for (state, told) in [("running", "only a zone that is halted"), ("configured", "not installed")] {
        let (world, spec) = world();
        world.host.add_zone("propolis", state, "create");
        let error = world.backend.preflight(&spec).await.unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
    let (world, mut spec) = world();
    spec.machine.hardware.propolis.zone.as_mut().unwrap().template = "other".to_owned();
    let error = world.backend.preflight(&spec).await.unwrap_err().to_string();
    assert!(error.contains("there is no such zone"), "{error}");
    spec.machine.hardware.propolis.pool = None;
    let error = world.backend.preflight(&spec).await.unwrap_err().to_string();
    assert!(error.starts_with("a `zone` without a `pool`"), "{error}");
}

#[tokio::test]
async fn failed_command_is_told_whole_and_the_rest_done_next_time() {
    let (world, spec) = world();
    for command in [format!("zonecfg -z {ZONE}"), format!("zoneadm -z {ZONE} clone")] {
        world.host.fail(&command, "zone: something is wrong");
        let error = world.backend.prepare(&spec).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("`{command}")), "{error}");
        assert!(error.ends_with("failed with exit code 1: zone: something is wrong"), "{error}");
        world.host.fail(&command, "");
    }
    let vm = world.backend.prepare(&spec).await.unwrap();
    let command = format!("zoneadm -z {ZONE} boot");
    world.host.fail(&command, "no such interface");
    let error = world.backend.start(&vm).await.unwrap_err().to_string();
    assert!(error.contains("no such interface"), "{error}");
    world.host.fail(&command, "");
    let vm = world.backend.start(&vm).await.unwrap();
    for verb in ["halt", "uninstall"] {
        let command = format!("zoneadm -z {ZONE} {verb}");
        world.host.fail(&command, "busy");
        assert!(world.backend.destroy(vm.clone()).await.unwrap_err().to_string().contains("busy"));
        world.host.fail(&command, "");
    }
    world.backend.destroy(vm).await.unwrap();
    assert_eq!(world.host.zone(ZONE), None);
}

#[tokio::test]
async fn server_that_cannot_make_its_vm_goes_with_its_zone_and_its_log_is_told() {
    let (world, spec) = world();
    let vm = world.backend.prepare(&spec).await.unwrap();
    let failure = vmctl_tests::propolis::Fault::Answer(500, "{}".to_owned());
    world.server.fault("PUT /instance", failure);
    let error = world.backend.start(&vm).await.unwrap_err().to_string();
    assert!(error.contains("failed to make the VM"), "{error}");
    assert!(deeds(&world).iter().any(|deed| deed.contains("tail -n 40 /var/vmctl/server.log")));
    assert_eq!(world.host.zone(ZONE).unwrap().0, "installed");
    // Whose server lost its VM, or is gone itself, was cut off.
    let up = world.backend.start(&vm).await.unwrap();
    world.server.reset();
    assert_eq!(world.backend.inspect(&up).await.unwrap().ending, Some(Ending::Cut));
    world.backend.stop(&up, PATIENCE).await.unwrap();
    // A zone that runs without a server, as one whose boot was cut off, is booted again.
    world.host.add_zone(ZONE, "running", &world.host.zone(ZONE).unwrap().1);
    world.server.set_state("Destroyed");
    assert_eq!(world.backend.start(&vm).await.unwrap().state, VmState::Running);
}

#[tokio::test]
async fn zone_of_another_configuration_is_made_anew_at_rest() {
    let (world, spec) = world();
    let vm = world.backend.prepare(&spec).await.unwrap();
    let vm = world.backend.start(&vm).await.unwrap();
    let mut wanted = spec.clone();
    wanted.machine.nics.push(nic(1));
    let error = world.backend.reconfigure(&vm, &wanted).await.unwrap_err();
    assert!(matches!(error, Error::InvalidState { .. }), "{error}");
    // A guest that powered itself off leaves its zone running, and its server there.
    world.server.power_off();
    assert_eq!(world.backend.inspect(&vm).await.unwrap().ending, Some(Ending::InOrder));
    let vm = world.backend.reconfigure(&vm, &wanted).await.unwrap();
    let (state, script) = world.host.zone(ZONE).unwrap();
    assert!(script.contains("set physical=web0") && script.contains("set physical=web1"), "{script}");
    assert_eq!(state, "installed");
    // Over another link, the control card moves; without a zone, both go.
    wanted.machine.hardware.propolis.zone.as_mut().unwrap().link = "stub1".to_owned();
    let vm = world.backend.reconfigure(&vm, &wanted).await.unwrap();
    assert!(
        world.host.deeds().iter().any(|deed| deed.contains("-l stub1 -m 02:") && deed.ends_with(CONTROL))
    );
    wanted.machine.hardware.propolis.zone = None;
    wanted.machine.hardware.propolis.server = Some(world.server.address());
    world.backend.reconfigure(&vm, &wanted).await.unwrap();
    assert_eq!(world.host.zone(ZONE), None);
    assert!(world.host.deeds().contains(&format!("dladm delete-vnic {CONTROL}")));
}

//! The list of places is complete, and so are the scenarios that pass them.

use std::collections::BTreeSet;

use vmctl_tests::World;
use vmctl_tests::surroundings::{repository, sources};

use super::scenario::{Scenario, Stage};

/// Every place that the program lists.
pub(super) fn listed() -> BTreeSet<String> {
    let list = World::with_failpoints(0).vmctl(&["failpoints"]).expect(0).stdout;
    list.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
}

/// Places that only a machine of Propolis passes; its tests say which.
pub(super) fn is_of_propolis(point: &str) -> bool {
    point.contains(".propolis.")
}

/// Places that only a real machine passes; the tests with QEMU say which they pass.
pub(super) fn is_of_qemu(point: &str) -> bool {
    point.contains(".qemu.")
}

/// Places that are passed only where an image comes from a server.
pub(super) fn is_of_a_download(point: &str) -> bool {
    point.contains(".download.") || point.contains(".pins.")
}

/// Places that are passed only where a template is kept.
fn is_of_a_template(point: &str) -> bool {
    point.starts_with("keep.")
}

/// The place that is passed only where a machine is made by command; `by_hand.rs` disturbs it.
const BY_HAND: &str = "state.own.written";

#[test]
fn scenarios_of_fake_machines_pass_every_place_but_those_of_others_and_downloads() {
    let passed: BTreeSet<String> = Scenario::ALL
        .into_iter()
        .flat_map(|scenario| Stage::new(scenario).passed)
        .map(|(name, _)| name)
        .collect();
    let is_elsewhere = |point: &String| {
        is_of_qemu(point)
            || is_of_propolis(point)
            || is_of_a_download(point)
            || is_of_a_template(point)
            || point == BY_HAND
    };
    let wanted: BTreeSet<String> = listed().into_iter().filter(|point| !is_elsewhere(point)).collect();
    let missed: Vec<_> = wanted.difference(&passed).collect();
    assert!(missed.is_empty(), "no scenario passes {missed:?}");
}

/// A place that is not listed can be neither armed nor traced.
#[test]
fn every_place_in_the_sources_is_listed() {
    let listed = listed();
    let mut found = 0;
    for krate in ["planner", "providers", "state"] {
        for path in sources(&repository().join(krate).join("src")) {
            let text = std::fs::read_to_string(&path).unwrap();
            for rest in text.split("fail").skip(1) {
                let call = rest.strip_prefix("point!(").or_else(|| rest.strip_prefix("::fail_point!("));
                let Some(name) = call.and_then(|call| call.trim_start().strip_prefix('"')) else { continue };
                let name = name.split('"').next().unwrap();
                found += 1;
                assert!(
                    listed.contains(name) || ["stop.patience", "host.zvols"].contains(&name),
                    "`{name}` in {} is not listed",
                    path.display()
                );
            }
        }
    }
    assert!(found > 30, "only {found} places found: is this test out of date?");
}

#[test]
fn vmctl_for_people_has_no_failpoints() {
    let mut world = World::new(0);
    world.arm("state.lock.announced=kill");
    world.vmctl(&["failpoints"]).expect(64).says("unrecognized subcommand");
    world.blank_image();
    world.vmfile("vm \"web\" { image \"blank.qcow2\"; backend \"noop\" }");
    world.vmctl(&["apply", "--yes"]).expect(0);
}

/// A test that arms nothing would pass for the wrong reason.
#[test]
fn faults_that_cannot_be_armed_are_told() {
    let mut world = World::with_failpoints(0);
    for (fault, why) in [
        ("prepare.intent.before", "no POINT=FAULT"),
        ("prepare.intent.betwixt=kill", "there is no `prepare.intent.betwixt`"),
        ("prepare.intent.before@0=kill", "begins at 1"),
        ("prepare.intent.before=explode", "faults are"),
        ("prepare.intent.before=delay:soon", "faults are"),
        ("stop.patience=kill", "takes `value:V`"),
    ] {
        world.arm(fault);
        world.vmctl(&["failpoints"]).expect(1).says(why);
    }
    world.arm("prepare.intent.before@2=delay:1; stop.patience=value:500;start.intent.after=eio");
    world.vmctl(&["failpoints"]).expect(0);
}

//! Hosts that have too little room for what is asked of them (F30 of the fault matrix).

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};
use vmctl_tests::{World, process};

use crate::schema::furnish;

fn many(world: &World, count: usize, memory: usize) {
    world.vmfile(&format!(
        "vm \"m\" count={count} {{ image \"blank.qcow2\"; backend \"noop\"; memory {memory}; ready {{ log \"up\" }} }}\n"
    ));
}

fn events(world: &World) -> String {
    fs::read_to_string(world.data().join("projects/shop/noop/events.log")).unwrap_or_default()
}

/// F30: 200 machines on a host for 16 of them.
#[test]
fn two_hundred_machines_on_a_small_host_are_refused_and_throttled_when_told_to_go_on() {
    let world = World::new(0);
    world.blank_image();
    many(&world, 200, 256);
    furnish(&world, &json!({ "memory-mib": 4096 }));

    let plan = world.vmctl(&["plan"]).expect(0);
    let plan = plan.says("Too little room").says("200 machines").says("need 50.0 GiB of memory");
    plan.says("4.0 GiB is available").says("without --overcommit");
    let document = world.vmctl(&["plan", "--json"]).expect(0).json();
    let shortage = &document["shortages"][0];
    assert_eq!(shortage["kind"], "memory");
    assert_eq!(shortage["needed_bytes"], (200_u64 * 256) << 20);
    assert_eq!(shortage["available_bytes"], 4096_u64 << 20);
    assert_eq!(shortage["machines"].as_array().map(Vec::len), Some(200));
    assert_eq!(shortage["overcommitted"], false);
    world.vmctl(&["plan", "--markdown"]).expect(0).says("Too little room").says("50.0 GiB");
    world.vmctl(&["plan", "--overcommit"]).expect(0).says("goes on all the same");

    let refused = world.vmctl(&["apply", "--yes"]).expect(1);
    let refused = refused.says("nothing was begun").says("need 50.0 GiB").says("4.0 GiB is available");
    refused.says("--overcommit").says("--exclude m-");
    assert_eq!(events(&world), "", "nothing was done");
    assert_eq!(world.states().len(), 0);

    let applied = world.vmctl(&["apply", "--yes", "--json", "--overcommit"]).expect(0);
    // Where memory is short, one boot at a time: no machine starts beside another that boots unless it leaves the reserve.
    let (mut started, mut booting) = (0, BTreeSet::new());
    let mut throttled = false;
    for line in applied.stdout.lines() {
        let event: Value = serde_json::from_str(line).expect("a line of JSON");
        let address = event["address"].as_str().unwrap_or_default().to_owned();
        match (event["event"].as_str(), event["kind"].as_str()) {
            (Some("throttled"), _) => throttled = true,
            (Some("started"), Some("start")) => {
                started += 1;
                let has_room = started * 256 + 256 <= 4096;
                assert!(
                    has_room || booting.is_empty(),
                    "{address}, the {started}., starts beside {booting:?}"
                );
                booting.insert(address);
            }
            (Some("done"), Some("ready")) => {
                booting.remove(&address);
            }
            _ => {}
        }
    }
    assert!(throttled, "nothing was ever held back");
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}

#[test]
fn what_fits_exactly_is_applied_and_a_saved_plan_is_held_to_the_room_of_its_hour() {
    let world = World::new(0);
    world.blank_image();
    many(&world, 4, 1024);
    furnish(&world, &json!({ "memory-mib": 4095 }));
    world.vmctl(&["plan", "--out", "p.plan"]).expect(0).says("Too little room");
    world.vmctl(&["apply", "p.plan"]).expect(1).says("--overcommit");
    furnish(&world, &json!({ "memory-mib": 4096 }));
    world.vmctl(&["apply", "p.plan"]).expect(0);
    // What runs is counted: there is no room for one more, but to change or remove what is there needs none.
    many(&world, 5, 1024);
    world.vmctl(&["apply", "--yes"]).expect(1).says("`m-5` needs 1.0 GiB").says("0 KiB is available");
    world.vmctl(&["apply", "--yes", "--exclude", "m-5"]).expect(0);
    many(&world, 4, 1000);
    world.vmctl(&["apply", "--yes"]).expect(0);
    world.vmctl(&["apply", "--yes", "--replace", "m-1"]).expect(0);
    // Machines that go make room for others in the same plan.
    world.vmfile("vm \"big\" { image \"blank.qcow2\"; backend \"noop\"; memory 4096 }");
    world.vmctl(&["apply", "--yes"]).expect(0);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}

#[test]
fn disk_for_folders_of_machines_is_asked_for_as_well() {
    let world = World::new(0);
    world.blank_image();
    many(&world, 8, 64);
    furnish(&world, &json!({ "disk-mib": 5 }));
    let document = world.vmctl(&["plan", "--json"]).expect(0).json();
    assert_eq!(document["shortages"][0]["kind"], "disk");
    world.vmctl(&["apply", "--yes"]).expect(1).says("of disk to begin with").says("5 MiB is free in");
    assert_eq!(events(&world), "");
    world.vmctl(&["apply", "--yes", "--overcommit"]).expect(0);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}

/// A real machine that is larger than this very host: no fake is asked.
#[test]
fn machine_larger_than_this_host_is_refused_before_anything_is_made() {
    let world = World::new(0);
    world.blank_image();
    let meminfo = fs::read_to_string("/proc/meminfo").expect("the kernel tells");
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).expect("MemTotal");
    let total: u64 = total.trim().trim_end_matches("kB").trim().parse().expect("a number");
    let memory = total / 1024 + 1024;
    world.vmfile(&format!("vm \"huge\" {{ image \"blank.qcow2\"; memory {memory} }}"));
    world.vmctl(&["plan"]).expect(0).says("`huge` needs").says("Too little room");
    world.vmctl(&["apply", "--yes"]).expect(1).says("`huge` needs").says("--overcommit");
    let project = world.data().join("projects/shop");
    assert!(!project.join("vms").exists(), "nothing was prepared");
    let images = fs::read_dir(world.data().join("images")).map(|list| list.flatten().collect::<Vec<_>>());
    let copied = images.unwrap_or_default().into_iter().filter(|entry| entry.path().is_file()).count();
    assert_eq!(copied, 0, "no image was copied");
}

/// F30: few file descriptors. Neither 200 fake machines nor 20 real ones run out of them.
#[test]
fn two_hundred_and_fifty_six_descriptors_are_enough() {
    let limited = |world: &mut World| {
        let prefix = ["sh", "-c", "ulimit -n 256 && exec \"$@\"", "sh"];
        world.through(prefix.map(str::to_owned).into());
    };
    let mut fake = World::new(0);
    fake.blank_image();
    limited(&mut fake);
    many(&fake, 200, 64);
    fake.vmctl(&["apply", "--yes", "--parallelism", "64"]).expect(0).says("only 16 steps run at once");
    assert_eq!(fake.states().len(), 200);
    fake.vmctl(&["apply", "--destroy", "--yes", "--parallelism", "64"]).expect(0);

    let mut real = World::new(0);
    real.blank_image();
    limited(&mut real);
    real.vmfile("vm \"m\" count=20 { image \"blank.qcow2\"; memory 32; network \"none\" }\n");
    real.vmctl(&["apply", "--yes", "--parallelism", "64", "--overcommit"]).expect(0);
    let states = real.states();
    assert_eq!(states.values().filter(|state| *state == "running").count(), 20, "{states:?}");
    real.vmctl(&["plan", "--detailed-exitcode"]).expect(0);
    let machines = process::naming(real.folder());
    assert_eq!(machines.len(), 20);
    machines.iter().for_each(|machine| process::kill(machine.pid));
    real.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}

/// F30: a low limit that may be raised is raised.
#[test]
fn soft_limit_of_descriptors_is_raised() {
    let mut world = World::new(0);
    world.blank_image();
    world.through(["sh", "-c", "ulimit -Sn 64 && exec \"$@\"", "sh"].map(str::to_owned).into());
    many(&world, 50, 64);
    let applied = world.vmctl(&["apply", "--yes", "--parallelism", "32"]).expect(0);
    assert!(!applied.stderr.contains("steps run at once"), "{}", applied.text());
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}

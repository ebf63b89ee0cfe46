//! Machines that are not what was recorded.

use vmctl_planner::desired::{DesiredVm, Power, Until};
use vmctl_planner::{Action, DriftKind, Mode, Options, Plan};
use vmctl_providers::{Damage, VmState};
use vmctl_state::Address;

use crate::world::{World, change, desired, fail, forward};

#[tokio::test(flavor = "multi_thread")]
async fn drift_is_named_and_repaired() {
    let mut world = World::new();
    let goal = desired(["stopped", "paused", "gone", "bigger", "fine"].map(|name| world.vm(name)));
    world.converge(Some(&goal)).await;
    world.noop.edit("stopped", |machine| machine.state = VmState::Stopped).unwrap();
    world.noop.edit("paused", |machine| machine.state = VmState::Suspended).unwrap();
    world.noop.edit("bigger", |machine| machine.machine.vcpus = 7).unwrap();
    std::fs::remove_dir_all(world.folder.path().join("vms/gone")).unwrap();

    let plan = world.plan(Some(&goal)).await;
    let expected = [
        ("stopped", Action::Start),
        ("paused", Action::Resume),
        ("gone", Action::Replace),
        ("bigger", Action::Restart),
        ("fine", Action::NoOp),
    ];
    for (name, action) in expected {
        let change = plan.changes.iter().find(|change| change.address == Address::vm(name)).unwrap();
        assert_eq!(change.action, action, "{name}");
        assert_eq!(change.drift.is_empty(), name == "fine", "{name}");
        assert!(change.fields.is_empty(), "drift is no edit: {name}");
    }
    let before = world.events().len();
    world.converge(Some(&goal)).await;
    assert!(!world.events_since(before).iter().any(|event| event.ends_with(" fine")));
}

#[tokio::test(flavor = "multi_thread")]
async fn machine_resumed_by_hand_and_by_file_is_taken_up_as_it_is() {
    let mut world = World::new();
    let suspended = desired([DesiredVm { power: Power::Suspended, ..world.vm("db") }]);
    world.converge(Some(&suspended)).await;
    world.noop.edit("db", |machine| machine.state = VmState::Running).unwrap();
    let before = world.events().len();
    let running = desired([world.vm("db")]);
    world.converge(Some(&running)).await;
    assert!(!world.events_since(before).iter().any(|event| event == "start db"));
}

#[tokio::test(flavor = "multi_thread")]
async fn machine_that_cannot_be_asked_is_left_alone_and_said() {
    let mut world = World::new();
    let goal = desired([world.vm("silent")]);
    world.converge(Some(&goal)).await;
    world.noop.script(&[fail("inspect", "silent", None)]).unwrap();
    let plan = world.plan(Some(&desired([DesiredVm { memory_mib: 512, ..world.vm("silent") }]))).await;
    let change = &plan.changes[0];
    assert_eq!(change.action, Action::NoOp);
    assert!(change.drift[0].text.contains("cannot be reached"), "{:?}", change.drift);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_depends_on_a_machine_that_cannot_be_asked_is_held_back() {
    let mut world = World::new();
    let needs = |name: &str| [(name.parse().unwrap(), Until::Provisioned)].into();
    let goal = desired([
        world.vm("silent"),
        DesiredVm { depends_on: needs("silent"), ..world.vm("web") },
        DesiredVm { depends_on: needs("web"), ..world.vm("proxy") },
        world.vm("other"),
    ]);
    world.converge(Some(&desired([world.vm("silent")]))).await;
    world.noop.script(&[fail("inspect", "silent", None)]).unwrap();
    let plan = world.plan(Some(&goal)).await;
    let actions = ["silent", "web", "proxy", "other"].map(|name| World::action(&plan, name));
    assert_eq!(actions, [Action::NoOp, Action::NoOp, Action::NoOp, Action::Create]);
    let alone: Vec<_> = plan.left_alone().map(|(change, _)| change.address.name()).collect();
    assert_eq!(alone, ["proxy", "silent", "web"]);
    let removal = world.plan(None).await;
    assert_eq!(World::action(&removal, "silent"), Action::Destroy);
    assert!(removal.left_alone().next().is_none(), "what is destroyed is not left alone");
}

fn kinds(plan: &Plan, name: &str) -> Vec<DriftKind> {
    change(plan, name).drift.iter().map(|drift| drift.kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_drift_is_told_apart_and_repaired_or_left_alone() {
    let mut world = World::new();
    let names =
        ["off", "paused", "gone", "cpus", "memory", "forward", "extra", "disk", "seed", "base", "torn"];
    let goal = desired(names.map(|name| DesiredVm { forwards: vec![forward(0, 80)], ..world.vm(name) }));
    world.converge(Some(&goal)).await;
    let image = world.folder.path().join("image");
    let broken = Damage::BaseChanged { path: image, what: "it was written to".to_owned() };
    for name in names {
        let file = world.folder.path().join(name);
        world
            .noop
            .edit(name, |machine| match name {
                "off" => machine.state = VmState::Stopped,
                "paused" => machine.state = VmState::Suspended,
                "cpus" => machine.machine.vcpus = 7,
                "memory" => machine.machine.memory_mib = 7,
                "forward" => machine.machine.nics[0].forwards.clear(),
                "extra" => machine.machine.nics[0].forwards.push(forward(9999, 99)),
                "disk" => machine.damage.push(Damage::DiskMissing { path: file }),
                "seed" => machine.damage.push(Damage::SeedMissing { path: file }),
                "base" => machine.damage.push(broken.clone()),
                "torn" => {
                    machine.state = VmState::Stopped;
                    machine.damage.push(broken.clone());
                }
                _ => {}
            })
            .unwrap();
    }
    std::fs::remove_dir_all(world.folder.path().join("vms/gone")).unwrap();
    let plan = world.plan(Some(&goal)).await;
    use DriftKind::*;
    let expected: [(&str, &[DriftKind], Action); 11] = [
        ("off", &[PoweredOff], Action::Start),
        ("paused", &[Paused], Action::Resume),
        ("gone", &[Gone], Action::Replace),
        ("cpus", &[Vcpus], Action::Restart),
        ("memory", &[Memory], Action::Restart),
        ("forward", &[ForwardMissing, ForwardMissing], Action::Update),
        ("extra", &[ForwardExtra], Action::Update),
        ("disk", &[DiskMissing], Action::NoOp),
        ("seed", &[SeedMissing], Action::Update),
        ("base", &[BaseChanged], Action::NoOp),
        ("torn", &[PoweredOff, BaseChanged], Action::NoOp),
    ];
    for (name, drift, action) in expected {
        assert_eq!((&*kinds(&plan, name), change(&plan, name).action), (drift, action), "{name}");
        assert!(change(&plan, name).fields.is_empty(), "drift is no edit: {name}");
    }
    let alone: Vec<_> =
        plan.left_alone().map(|(change, alone)| (change.address.name(), alone.instead_of)).collect();
    let expected = [("disk", Action::Replace), ("torn", Action::Start)];
    assert_eq!(alone, expected, "what holds a lost disk is not ended, what would not start is not started");
    assert!(world.carry_out(&plan).await.is_complete());
    let again = world.plan(Some(&goal)).await;
    assert!(again.is_empty(), "{:#?}", again.effective().collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn accepting_what_is_observed_changes_the_record_and_no_machine() {
    let mut world = World::new();
    let goal = desired(["off", "gone", "cpus", "extra", "disk", "fine"].map(|name| world.vm(name)));
    world.converge(Some(&goal)).await;
    world.noop.edit("off", |machine| machine.state = VmState::Stopped).unwrap();
    world.noop.edit("cpus", |machine| machine.machine.vcpus = 7).unwrap();
    world.noop.edit("extra", |machine| machine.machine.nics[0].forwards.push(forward(9999, 99))).unwrap();
    let file = world.folder.path().join("disk");
    world.noop.edit("disk", |machine| machine.damage.push(Damage::DiskMissing { path: file })).unwrap();
    std::fs::remove_dir_all(world.folder.path().join("vms/gone")).unwrap();

    let refresh = Options { mode: Mode::RefreshOnly, ..Options::default() };
    let plan = world.try_plan(Some(&goal), &refresh).await.unwrap();
    assert!(plan.graph.is_empty() && !plan.is_empty());
    assert_eq!(plan.summary().drifted, 5);
    let before = world.events().len();
    assert!(world.carry_out(&plan).await.is_complete());
    assert_eq!(world.events_since(before), Vec::<String>::new(), "no machine was touched");

    let again = world.try_plan(Some(&goal), &refresh).await.unwrap();
    let left: Vec<_> = again.changes.iter().filter(|change| !change.drift.is_empty()).collect();
    assert_eq!(left.len(), 1, "a disk that is gone cannot be accepted: {left:#?}");
    let plan = world.plan(Some(&goal)).await;
    for (name, action, field) in [
        ("off", Action::Start, None),
        ("gone", Action::Create, Some("image")),
        ("cpus", Action::Restart, Some("vcpus")),
        ("extra", Action::Update, Some("forward")),
        ("disk", Action::NoOp, None),
        ("fine", Action::NoOp, None),
    ] {
        let change = change(&plan, name);
        assert_eq!(change.action, action, "{name}");
        let has = |field: &str| change.fields.iter().any(|change| change.field == field);
        assert!(field.is_none_or(has), "what differs from the file is an edit now: {name}");
    }
    assert!(world.carry_out(&plan).await.is_complete());
    assert!(world.plan(Some(&goal)).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn forwards_change_in_place_and_ports_change_hands_in_order() {
    let mut world = World::new();
    let with = |world: &World, name: &str, port: u16| DesiredVm {
        forwards: Vec::from_iter((port != 0).then(|| forward(port, 80))),
        ..world.vm(name)
    };
    world.converge(Some(&desired([with(&world, "a", 8080), with(&world, "b", 0)]))).await;
    let before = world.events().len();
    let plan = world.plan(Some(&desired([with(&world, "a", 0), with(&world, "b", 8080)]))).await;
    assert_eq!((World::action(&plan, "a"), World::action(&plan, "b")), (Action::Update, Action::Update));
    assert!(world.carry_out(&plan).await.is_complete());
    assert_eq!(world.events_since(before), ["update a", "update b"]);

    // An exchange cannot be done in place on both sides.
    world.converge(Some(&desired([with(&world, "a", 8081), with(&world, "b", 8080)]))).await;
    let goal = desired([with(&world, "a", 8080), with(&world, "b", 8081)]);
    let plan = world.plan(Some(&goal)).await;
    assert_eq!((World::action(&plan, "a"), World::action(&plan, "b")), (Action::Restart, Action::Update));
    let before = world.events().len();
    world.converge(Some(&goal)).await;
    let events = world.events_since(before);
    let at = |event: &str| events.iter().position(|line| line == event).unwrap();
    assert!(at("stop a") < at("update b") && at("update b") < at("start a"), "{events:?}");

    // From a machine that goes to one that comes.
    let before = world.events().len();
    world.converge(Some(&desired([with(&world, "b", 8081), with(&world, "c", 8080)]))).await;
    let events = world.events_since(before);
    let at = |event: &str| events.iter().position(|line| line == event).unwrap();
    assert!(at("stop a") < at("start c"), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_of_a_machine_that_cannot_be_asked_are_shown() {
    let mut world = World::new();
    world.converge(Some(&desired([world.vm("silent")]))).await;
    world.noop.script(&[fail("inspect", "silent", None)]).unwrap();
    let plan = world.plan(Some(&desired([DesiredVm { memory_mib: 512, ..world.vm("silent") }]))).await;
    let change = change(&plan, "silent");
    assert_eq!(change.left_alone.as_ref().map(|alone| alone.instead_of), Some(Action::Restart));
    assert_eq!(change.fields[0].field, "memory");
    assert!(plan.is_empty() && !plan.is_settled());
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_checks_are_told_and_change_nothing() {
    use vmctl_planner::desired::Check;
    use vmctl_planner::{CheckStatus, desired::Desired};
    use vmctl_providers::Probe;
    let mut world = World::new();
    let check = |name: &str| Check { name: name.to_owned(), probes: vec![Probe::Tcp(80)] };
    let goal: Desired = desired([
        DesiredVm { checks: vec![check("answers")], ..world.vm("good") },
        DesiredVm { checks: vec![check("answers"), check("more")], ..world.vm("bad") },
        DesiredVm { checks: vec![check("answers")], power: Power::Stopped, ..world.vm("off") },
    ]);
    world.converge(Some(&goal)).await;
    world.noop.script(&[fail("probe", "bad", Some(1))]).unwrap();
    let plan = world.plan(Some(&goal)).await;
    assert!(plan.is_settled());
    let told: Vec<_> =
        plan.checks.iter().map(|check| (check.address.name(), check.name.as_str(), check.status)).collect();
    assert_eq!(
        told,
        [
            ("bad", "answers", CheckStatus::Fail),
            ("bad", "more", CheckStatus::Pass),
            ("good", "answers", CheckStatus::Pass),
        ],
        "a machine that is to be off is not asked"
    );
    assert_eq!(plan.checks[0].detail.as_deref(), Some("tcp 80: no luck"));
}

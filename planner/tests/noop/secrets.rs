//! Sensitive values: what is planned, recorded and told does not hold them, and their changes are seen all the same.

use vmctl_planner::desired::{Check, Desired, DesiredVm, Lifecycle};
use vmctl_planner::fields::Class;
use vmctl_planner::{Action, holds_sealed, texts};
use vmctl_providers::noop::Rule;
use vmctl_providers::{CloudInitConfig, Digest, Probe, SealKey, Secret, Secrets};
use vmctl_state::Store;

use crate::world::{World, bytes, change, desired, fail, step};

/// A machine that holds `secret` wherever it may.
fn vm(world: &World, secret: &str) -> DesiredVm {
    DesiredVm {
        cloud_init: Some(CloudInitConfig {
            hostname: format!("db-{secret}"),
            user: "vm".to_owned(),
            authorized_keys: Vec::new(),
            user_data: None,
            more: Default::default(),
        }),
        provision: vec![step(1, "one"), step(2, &format!("echo {secret}"))],
        checks: vec![Check { name: "it".to_owned(), probes: vec![Probe::Exec(format!("ask {secret}"))] }],
        labels: [("token".to_owned(), format!("a {secret} b"))].into(),
        ..world.vm("db")
    }
}

fn sealed(vm: DesiredVm, secret: &str) -> Desired {
    let mut goal = Desired { secrets: Secrets::new([Secret::new(secret)]), ..desired([vm]) };
    for step in goal.vms.values_mut().flat_map(|vm| &mut vm.provision) {
        step.label = "inline".to_owned();
    }
    goal.seal(SealKey::new([7; SealKey::LENGTH]));
    goal
}

/// Everything that is remembered.
fn state(world: &World) -> String {
    let history = world.store.history();
    format!("{} {history:?}", serde_json::to_string(&world.store.snapshot().unwrap()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn records_plans_and_texts_hold_no_sensitive_value_and_show_its_change() {
    let mut world = World::new();
    let goal = sealed(vm(&world, "hunter2"), "hunter2");
    assert!(!bytes(&world.plan(Some(&goal)).await).contains("hunter2"));
    world.converge(Some(&goal)).await;
    assert!(!state(&world).contains("hunter2") && holds_sealed(&world.store.snapshot().unwrap()));

    let kept = texts::texts(&goal);
    let text = &kept[goal.vms["db"].provision[1].digest.as_str()];
    assert!(text.starts_with("echo (sensitive:"), "{text}");
    let bare = Digest::of("echo hunter2");
    assert!(!kept.contains_key(bare.as_str()), "a digest that anybody can make tells what it is of");
    assert!(kept.contains_key(Digest::of("one").as_str()), "others are as ever");

    let other = sealed(vm(&world, "hunter3"), "hunter3");
    let mut plan = world.plan(Some(&other)).await;
    let recorded = world.store.snapshot().unwrap();
    plan.show_texts(&other, &recorded, |digest| kept.get(digest).cloned()).unwrap();
    let decision = change(&plan, "db");
    assert_eq!(decision.action, Action::Replace);
    let fields: Vec<_> = decision.fields.iter().map(|field| &*field.field).collect();
    assert_eq!(fields, ["cloud-init.hostname", "check", "labels"]);
    let [diff] = &*decision.diffs else { panic!("{:?}", decision.diffs) };
    assert!(diff.diff.contains("-echo (sensitive:") && diff.diff.contains("+echo (sensitive:"), "{diff:?}");
    assert!(!bytes(&plan).contains("hunter"), "neither the old value nor the new one");
}

#[tokio::test(flavor = "multi_thread")]
async fn step_with_another_sensitive_value_runs_again_and_nothing_else_happens() {
    let mut world = World::new();
    let with = |world: &World, secret: &str| {
        let provision = vec![step(1, "one"), step(2, &format!("echo {secret}"))];
        sealed(DesiredVm { provision, ..world.vm("db") }, secret)
    };
    let goal = with(&world, "hunter2");
    world.converge(Some(&goal)).await;
    let plan = world.plan(Some(&with(&world, "hunter3"))).await;
    let decision = change(&plan, "db");
    assert_eq!((decision.action, decision.provision.len()), (Action::Provision, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn value_that_becomes_sensitive_leaves_the_record_and_the_machine_alone() {
    let mut world = World::new();
    let machine = DesiredVm { provision: Vec::new(), ..vm(&world, "hunter2") };
    world.converge(Some(&desired([machine.clone()]))).await;
    assert!(state(&world).contains("hunter2"));
    let goal = sealed(machine, "hunter2");
    let plan = world.plan(Some(&goal)).await;
    let decision = change(&plan, "db");
    assert_eq!(decision.action, Action::Update);
    assert!(decision.fields.iter().all(|field| field.class == Some(Class::RecordOnly)), "{decision:#?}");
    assert!(!bytes(&plan).contains("hunter2"));
    let before = world.events().len();
    world.converge(Some(&goal)).await;
    assert_eq!(world.events_since(before), [""; 0]);
    let now = serde_json::to_string(&world.store.snapshot().unwrap()).unwrap();
    assert!(!now.contains("hunter2"), "{now}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_of_a_failure_is_hidden() {
    let mut world = World::new();
    let goal = sealed(vm(&world, "hunter2"), "hunter2");
    let rule = Rule { fail: Some("the guest said hunter2".to_owned()), ..fail("provision-2", "db", Some(1)) };
    world.noop.script(&[rule]).unwrap();
    let report = world.apply(Some(&goal)).await;
    let [(_, failure)] = &*report.failed else { panic!("{report:?}") };
    assert!(failure.message.contains("the guest said (sensitive)"), "{failure:?}");
    assert!(!state(&world).contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn ignored_change_of_a_sensitive_value_stays_sealed() {
    let mut world = World::new();
    let ignoring = |world: &World, secret: &str| {
        let ignore_changes = ["all".to_owned()].into();
        let lifecycle = Lifecycle { ignore_changes, ..Lifecycle::default() };
        sealed(DesiredVm { lifecycle, ..vm(world, secret) }, secret)
    };
    let goal = ignoring(&world, "hunter2");
    world.converge(Some(&goal)).await;
    let before = state(&world);
    let other = ignoring(&world, "hunter3");
    world.converge(Some(&other)).await;
    assert!(before.contains("(sensitive:") && !state(&world).contains("hunter"));
}

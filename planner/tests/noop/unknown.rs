//! Provisioning steps that were cut off: what became of them is unknown, and nobody guesses (F6, I4).

use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;
use vmctl_planner::apply::{Control, Event};
use vmctl_planner::desired::{Desired, DesiredImage, DesiredVm, Power, Trigger, Until};
use vmctl_planner::{Action, LeftAloneKind, Mode, Options, Plan, StepKind};
use vmctl_providers::noop::Rule;
use vmctl_providers::provision::Rerun;
use vmctl_state::{Address, Entry, Intent, OpId, Record, Store};

use crate::world::{World, change, desired, fail, image_path, name, step};

/// A machine with three steps, of which the second one has `rerun`, one that needs it, and one that does not.
fn goal(world: &World, rerun: Rerun) -> Desired {
    let mut second = step(2, "two");
    second.options.rerun = rerun;
    let db = DesiredVm { provision: vec![step(1, "one"), second, step(3, "three")], ..world.vm("db") };
    let depends_on = [("db".parse().unwrap(), Until::Provisioned)].into();
    desired([db, DesiredVm { depends_on, ..world.vm("web") }, world.vm("other")])
}

fn record(world: &World) -> Record {
    world.store.snapshot().unwrap().records[&Address::vm("db")].clone()
}

/// Brings `db` to the point where its second step runs, and dies there: the step is open in the journal.
async fn die_in_the_second_step(world: &mut World, goal: &Desired) {
    world.noop.script(&[fail("provision-2", "db", Some(1))]).unwrap();
    world.apply(Some(goal)).await;
    world.noop.script(&[]).unwrap();
    let snapshot = world.store.snapshot().unwrap();
    let record = record(world);
    assert_eq!(record.provisioned.len(), 1);
    assert_eq!(record.provision_failed.as_ref().map(|step| step.number), Some(2));
    let digest = goal.vms[&name("db")].provision[1].digest.to_string();
    let intent = Intent {
        op: snapshot.next_op,
        run: Uuid::from_u128(1),
        step: "provision".to_owned(),
        address: record.address.clone(),
        instance: record.instance,
        at: Timestamp::UNIX_EPOCH,
        detail: json!({ "number": 2, "label": "two", "digest": digest }),
    };
    world.store.commit(&[Entry::Begin(intent)]).unwrap();
}

fn left_alone(plan: &Plan) -> Vec<(&str, LeftAloneKind)> {
    plan.left_alone().map(|(change, alone)| (change.address.name(), alone.kind)).collect()
}

async fn plan_with(world: &World, goal: &Desired, options: Options) -> Plan {
    world.try_plan(Some(goal), &options).await.unwrap()
}

fn rerun_db() -> Options {
    Options { rerun: [name("db")].into(), ..Options::default() }
}

/// Otherwise it would be made anew with every apply, until somebody says what became of the step.
#[tokio::test(flavor = "multi_thread")]
async fn machine_that_follows_one_which_waits_is_not_made_anew_before_it() {
    let mut world = World::new();
    let mut goal = goal(&world, Rerun::Ask);
    die_in_the_second_step(&mut world, &goal).await;
    let source = image_path(world.folder.path(), 1);
    let identity = world.images.identify(&source).unwrap();
    let web = goal.vms.get_mut(&name("web")).unwrap();
    web.image = Some(DesiredImage::Local { source, identity });
    let other = goal.vms.get_mut(&name("other")).unwrap();
    other.lifecycle.replace_when = [Trigger::Machine(name("web"))].into();
    let waits = [
        ("db", LeftAloneKind::Interrupted),
        ("other", LeftAloneKind::Dependency),
        ("web", LeftAloneKind::Dependency),
    ];
    assert_eq!(left_alone(&world.plan(Some(&goal)).await), waits);
    let plan = plan_with(&world, &goal, rerun_db()).await;
    assert_eq!(change(&plan, "other").action, Action::Replace);
}

#[tokio::test(flavor = "multi_thread")]
async fn step_that_a_dead_run_left_open_waits_for_a_choice_and_so_does_who_needs_it() {
    let mut world = World::new();
    let goal = goal(&world, Rerun::Ask);
    die_in_the_second_step(&mut world, &goal).await;
    let before = world.events().len();
    for round in 0..3 {
        let plan = world.plan(Some(&goal)).await;
        let waits = [("db", LeftAloneKind::Interrupted), ("web", LeftAloneKind::Dependency)];
        assert_eq!(left_alone(&plan), waits, "round {round}");
        let reason = &change(&plan, "db").left_alone.as_ref().unwrap().reason;
        for way in ["vmctl apply --rerun db", "vmctl state provisioned db", "vmctl apply --replace db"] {
            assert!(reason.contains(way), "{reason}");
        }
        // The first apply closes the step in the journal; the mark takes its place.
        world.carry_out(&plan).await;
        assert_eq!(world.store.snapshot().unwrap().open, []);
        assert_eq!(record(&world).interrupted.unwrap().number, 2);
    }
    assert_eq!(world.events_since(before), [""; 0], "nothing ran");

    let plan = plan_with(&world, &goal, rerun_db()).await;
    assert!(change(&plan, "db").reasons.iter().any(|why| why.contains("--rerun")), "{plan:#?}");
    assert!(world.carry_out(&plan).await.is_complete());
    let ran: Vec<_> = world.events_since(before).into_iter().filter(|event| event.ends_with(" db")).collect();
    assert_eq!(ran, ["provision-2 db", "provision-3 db"]);
    assert_eq!(record(&world).interrupted, None);
    assert!(world.plan(Some(&goal)).await.is_settled());
}

#[tokio::test(flavor = "multi_thread")]
async fn step_that_is_safe_to_run_again_does_so_and_says_why() {
    let mut world = World::new();
    let goal = goal(&world, Rerun::Safe);
    die_in_the_second_step(&mut world, &goal).await;
    let plan = world.plan(Some(&goal)).await;
    assert_eq!(left_alone(&plan), []);
    let reasons = &change(&plan, "db").reasons;
    assert!(
        reasons.iter().any(|why| why.contains("cut off") && why.contains("rerun \"safe\"")),
        "{reasons:?}"
    );
    world.converge(Some(&goal)).await;
    assert_eq!(record(&world).interrupted, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn mark_survives_applies_that_are_not_about_the_machine() {
    let mut world = World::new();
    let goal = goal(&world, Rerun::Ask);
    die_in_the_second_step(&mut world, &goal).await;
    let other =
        Options { targets: [name("other")].into(), replace: [name("other")].into(), ..Options::default() };
    let plan = plan_with(&world, &goal, other).await;
    assert!(!plan.graph.is_empty());
    assert!(world.carry_out(&plan).await.is_complete());
    assert_eq!(world.store.snapshot().unwrap().open, [], "the journal is closed");
    assert_eq!(left_alone(&world.plan(Some(&goal)).await)[0], ("db", LeftAloneKind::Interrupted));
}

#[tokio::test(flavor = "multi_thread")]
async fn mark_survives_a_restart_of_the_host_and_a_stop() {
    let mut world = World::new();
    let goal = goal(&world, Rerun::Ask);
    die_in_the_second_step(&mut world, &goal).await;
    world.noop.edit("db", |machine| machine.state = vmctl_providers::VmState::Stopped).unwrap();
    assert_eq!(left_alone(&world.plan(Some(&goal)).await)[0], ("db", LeftAloneKind::Interrupted));

    // Stopped on request it runs nothing, so that nothing must be asked; started again it does.
    let mut off = goal.clone();
    off.vms.get_mut(&name("db")).unwrap().power = Power::Stopped;
    off.vms.remove(&name("web"));
    world.converge(Some(&off)).await;
    assert_eq!(record(&world).interrupted.unwrap().number, 2);
    assert_eq!(left_alone(&world.plan(Some(&goal)).await)[0], ("db", LeftAloneKind::Interrupted));
}

#[tokio::test(flavor = "multi_thread")]
async fn edit_of_a_step_that_was_cut_off_decides_by_what_it_says_now() {
    let mut world = World::new();
    let before = goal(&world, Rerun::Ask);
    die_in_the_second_step(&mut world, &before).await;
    let edited = |rerun, earlier: &str| {
        let mut goal = before.clone();
        let steps = &mut goal.vms.get_mut(&name("db")).unwrap().provision;
        steps[0] = step(1, earlier);
        steps[1] = step(2, "changed");
        steps[1].options.rerun = rerun;
        goal
    };
    assert_eq!(left_alone(&world.plan(Some(&edited(Rerun::Ask, "one"))).await).len(), 2);
    // An earlier step that changed comes first, and is no way around the question.
    assert_eq!(left_alone(&world.plan(Some(&edited(Rerun::Ask, "changed too"))).await).len(), 2);
    assert_eq!(left_alone(&world.plan(Some(&edited(Rerun::Safe, "one"))).await), []);
    world.converge(Some(&edited(Rerun::Safe, "changed too"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn step_that_was_cut_off_and_is_not_asked_for_any_more_is_forgotten() {
    let mut world = World::new();
    let mut goal = goal(&world, Rerun::Ask);
    die_in_the_second_step(&mut world, &goal).await;
    goal.vms.get_mut(&name("db")).unwrap().provision.truncate(1);
    let plan = world.plan(Some(&goal)).await;
    assert_eq!(World::action(&plan, "db"), Action::Update, "{:#?}", change(&plan, "db"));
    world.converge(Some(&goal)).await;
    assert_eq!(record(&world).interrupted, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn replacement_and_removal_need_no_choice() {
    let mut world = World::new();
    let goal = goal(&world, Rerun::Ask);
    die_in_the_second_step(&mut world, &goal).await;
    let destroy = Options { mode: Mode::Destroy, ..Options::default() };
    let plan = world.try_plan(None, &destroy).await.unwrap();
    assert_eq!(left_alone(&plan), []);
    let plan = plan_with(&world, &goal, Options { replace: [name("db")].into(), ..Options::default() }).await;
    assert!(world.carry_out(&plan).await.is_complete());
    assert_eq!(record(&world).interrupted, None);
    world.converge(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn machine_that_is_renamed_keeps_the_mark() {
    let mut world = World::new();
    let mut goal = goal(&world, Rerun::Ask);
    die_in_the_second_step(&mut world, &goal).await;
    let db = goal.vms.remove(&name("db")).unwrap();
    goal.vms.remove(&name("web"));
    goal.vms.insert(name("store"), DesiredVm { name: name("store"), ..db });
    goal.moved.push(vmctl_planner::desired::Move { from: name("db"), to: name("store") });
    for _ in 0..2 {
        let plan = world.plan(Some(&goal)).await;
        assert_eq!(left_alone(&plan), [("store", LeftAloneKind::Interrupted)]);
        world.carry_out(&plan).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn second_interrupt_in_a_step_leaves_its_outcome_unknown() {
    let mut world = World::new();
    let goal = goal(&world, Rerun::Ask);
    let hour = Rule { op: "provision-2".to_owned(), delay_ms: 3_600_000, times: Some(1), ..Rule::default() };
    world.noop.script(&[hour]).unwrap();
    let plan = world.plan(Some(&goal)).await;
    let control = Control::default();
    let (executor, mut events) = world.executor(control.clone());
    let graph = plan.graph.clone();
    let watch = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let Event::Started(id) = event
                && graph.step(id).kind == StepKind::Provision(2)
            {
                control.abort.cancel();
            }
        }
    });
    let report = executor.apply(&plan, &mut world.store).await.unwrap();
    drop(executor);
    watch.await.unwrap();
    assert!(!report.abandoned.is_empty());
    let cut_off = record(&world).interrupted.unwrap();
    assert_eq!((cut_off.number, cut_off.label.as_str()), (2, "two"));
    assert_eq!(left_alone(&world.plan(Some(&goal)).await)[0], ("db", LeftAloneKind::Interrupted));
    assert!(world.store.snapshot().unwrap().next_op > OpId(0));
}

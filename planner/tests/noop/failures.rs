//! Order, failures and interruptions.

use vmctl_planner::apply::{Control, Event};
use vmctl_planner::desired::{DesiredVm, Until};
use vmctl_planner::{Action, StepKind};
use vmctl_providers::noop::Rule;
use vmctl_state::{Address, Entry, Store};

use crate::world::{World, desired, fail, step};

#[tokio::test(flavor = "multi_thread")]
async fn dependency_is_provisioned_before_its_dependant_starts_and_goes_down_after_it() {
    let mut world = World::new();
    let db = DesiredVm { provision: vec![step(1, "setup")], ..world.vm("db") };
    let web =
        DesiredVm { depends_on: [("db".parse().unwrap(), Until::Provisioned)].into(), ..world.vm("web") };
    let goal = desired([db, web]);
    world.converge(Some(&goal)).await;
    let up = world.events();
    let at = |events: &[String], event: &str| events.iter().position(|line| line == event).unwrap();
    assert!(at(&up, "provision-1 db") < at(&up, "start web"), "{up:?}");

    world.converge(None).await;
    let down = world.events_since(up.len());
    assert!(at(&down, "destroy web") < at(&down, "stop db"), "{down:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_step_keeps_the_machine_and_the_next_apply_goes_on_there() {
    let mut world = World::new();
    let scripts = || vec![step(1, "one"), step(2, "two"), step(3, "three")];
    let db = DesiredVm { provision: scripts(), ..world.vm("db") };
    let web =
        DesiredVm { depends_on: [("db".parse().unwrap(), Until::Provisioned)].into(), ..world.vm("web") };
    let goal = desired([db, web, world.vm("other")]);
    world.noop.script(&[fail("provision-2", "db", Some(1))]).unwrap();
    let report = world.apply(Some(&goal)).await;
    assert_eq!(report.failed.len(), 1);
    assert!(world.events().contains(&"ready other".to_owned()), "what does not depend on it goes on");
    assert!(!world.events().contains(&"start web".to_owned()), "what depends on it does not start");
    let id = world.noop.machine("db").unwrap().unwrap().id;

    let before = world.events().len();
    world.converge(Some(&goal)).await;
    let since: Vec<_> =
        world.events_since(before).into_iter().filter(|event| event.ends_with(" db")).collect();
    assert_eq!(since, ["provision-2 db", "provision-3 db"]);
    let machine = world.noop.machine("db").unwrap().unwrap();
    assert_eq!(machine.id, id, "a machine whose provisioning failed is kept");
    assert_eq!(machine.provisioned, ["one", "two", "three"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_step_runs_again_with_those_after_it_and_nothing_else_happens() {
    let mut world = World::new();
    let with = |world: &World, middle: &str| {
        let provision = vec![step(1, "one"), step(2, middle), step(3, "three")];
        desired([DesiredVm { provision, ..world.vm("db") }])
    };
    world.converge(Some(&with(&world, "two"))).await;
    let before = world.events().len();
    let goal = with(&world, "other");
    let plan = world.plan(Some(&goal)).await;
    assert_eq!(World::action(&plan, "db"), Action::Provision);
    world.converge(Some(&goal)).await;
    assert_eq!(world.events_since(before), ["provision-2 db", "provision-3 db"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupt_starts_nothing_new_and_the_next_apply_finishes() {
    let mut world = World::new();
    let db = world.vm("db");
    let web = DesiredVm { depends_on: [("db".parse().unwrap(), Until::Ready)].into(), ..world.vm("web") };
    let goal = desired([db, web]);
    let plan = world.plan(Some(&goal)).await;
    let control = Control::default();
    let (executor, mut events) = world.executor(control.clone());
    let watch = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if matches!(event, Event::Done { .. }) {
                control.drain.cancel();
            }
        }
    });
    let report = executor.apply(&plan, &mut world.store).await.unwrap();
    drop(executor);
    watch.await.unwrap();
    assert!(report.interrupted && report.failed.is_empty() && report.abandoned.is_empty());
    assert!(!report.not_begun.is_empty());
    world.converge(Some(&goal)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn second_interrupt_records_what_is_abandoned() {
    let mut world = World::new();
    let goal = desired([world.vm("slow")]);
    let hour = Rule { op: "start".to_owned(), delay_ms: 3_600_000, times: Some(1), ..Rule::default() };
    world.noop.script(&[hour]).unwrap();
    let plan = world.plan(Some(&goal)).await;
    let control = Control::default();
    let (executor, mut events) = world.executor(control.clone());
    let graph = plan.graph.clone();
    let watch = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let Event::Started(id) = event
                && graph.step(id).kind == StepKind::Start
            {
                control.abort.cancel();
            }
        }
    });
    let report = executor.apply(&plan, &mut world.store).await.unwrap();
    drop(executor);
    watch.await.unwrap();
    assert_eq!(report.abandoned.len(), 1);
    // The step may have been abandoned before it came to the rule.
    world.noop.script(&[]).unwrap();
    world.converge(Some(&goal)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plan_for_an_older_state_is_refused() {
    let mut world = World::new();
    let goal = desired([world.vm("db")]);
    let plan = world.plan(Some(&goal)).await;
    world.store.commit(&[Entry::Remove(Address::vm("nobody"))]).unwrap();
    let (executor, _events) = world.executor(Control::default());
    let error = executor.apply(&plan, &mut world.store).await.unwrap_err();
    assert!(matches!(error, vmctl_planner::apply::ApplyError::Stale { planned: 0, found: 1 }), "{error:?}");
    assert!(world.events().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn half_made_machine_can_be_destroyed() {
    let mut world = World::new();
    let goal = desired([world.vm("db")]);
    world.noop.script(&[fail("prepare", "db", Some(1))]).unwrap();
    assert_eq!(world.apply(Some(&goal)).await.failed.len(), 1);
    assert_eq!(world.store.snapshot().unwrap().records.len(), 1, "what was begun is recorded");
    world.converge(None).await;
    assert!(world.store.snapshot().unwrap().records.is_empty());
}

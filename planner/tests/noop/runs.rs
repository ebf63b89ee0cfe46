//! When steps run again: `run "once"`, `run "always"`, `vmctl provision`, `--no-provision`.

use vmctl_planner::desired::{Desired, DesiredVm, Power};
use vmctl_planner::{Action, Asked, Mode, Options, Plan, StepKind};
use vmctl_providers::provision::{ProvisionStep, Rerun, Run};

use crate::world::{World, change, desired, fail, is_settled, step};

/// Steps by their texts, such as `once:a`.
fn steps(texts: &[&str]) -> Vec<ProvisionStep> {
    let parsed = texts.iter().enumerate().map(|(at, text)| {
        let (run, script) = match text.split_once(':') {
            Some(("once", script)) => (Run::Once, script),
            Some(("always", script)) => (Run::Always, script),
            _ => (Run::OnChange, *text),
        };
        let mut step = step(at + 1, script);
        // As inline scripts are called.
        step.label = "inline".to_owned();
        step.options.run = run;
        step
    });
    parsed.collect()
}

fn goal(world: &World, texts: &[&str]) -> Desired {
    desired([DesiredVm { provision: steps(texts), ..world.vm("web") }])
}

/// The numbers of the steps that a plan runs.
fn numbers(plan: &Plan) -> Vec<usize> {
    change(plan, "web").provision.iter().map(|run| run.number).collect()
}

async fn due(world: &World, texts: &[&str]) -> Vec<usize> {
    numbers(&world.plan(Some(&goal(world, texts))).await)
}

async fn provision(world: &World, texts: &[&str], steps: &[&str], force: bool) -> Plan {
    let steps = steps.iter().map(ToString::to_string).collect();
    let options = Options { mode: Mode::Provision, provision: Asked { steps, force }, ..Options::default() };
    world.try_plan(Some(&goal(world, texts)), &options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn step_that_runs_once_never_runs_again_whatever_becomes_of_it() {
    let mut world = World::new();
    world.converge(Some(&goal(&world, &["a", "once:b", "c"]))).await;
    for (texts, expected) in [
        (&["a", "once:other", "c"][..], &[][..]),
        (&["a2", "once:b", "c"], &[1, 3]),
        (&["once:b", "a", "c"], &[2, 3]),
        (&["once:new", "a", "once:b", "c"], &[1, 2, 4]),
        (&["a", "once:b", "c", "once:d"], &[4]),
    ] {
        assert_eq!(due(&world, texts).await, expected, "{texts:?}");
    }
    // Not even if what ran before it runs anew and breaks off on the way.
    world.noop.script(&[fail("provision-3", "web", Some(1))]).unwrap();
    assert!(!world.apply(Some(&goal(&world, &["a2", "once:b", "c"]))).await.failed.is_empty());
    assert_eq!(due(&world, &["a2", "once:b2", "c"]).await, [3]);
    world.converge(Some(&goal(&world, &["a2", "once:b2", "c"]))).await;
    world.converge(Some(&goal(&world, &["x", "a3"]))).await;
    assert_eq!(
        due(&world, &["x", "a3", "once:b2"]).await,
        [0; 0],
        "it is remembered even where it is left out"
    );
    let again = Options { replace: ["web".parse().unwrap()].into(), ..Options::default() };
    let plan = world.try_plan(Some(&goal(&world, &["a", "once:b2"])), &again).await.unwrap();
    assert_eq!(numbers(&plan), [1, 2], "a new machine is another one");
}

#[tokio::test(flavor = "multi_thread")]
async fn step_that_always_runs_is_in_every_plan_and_moves_no_other_step() {
    let mut world = World::new();
    let texts = ["a", "always:b", "c"];
    let goal = goal(&world, &texts);
    world.converge(Some(&goal)).await;
    for _ in 0..2 {
        let plan = world.plan(Some(&goal)).await;
        assert!(is_settled(&plan, &goal) && !plan.is_empty());
        assert_eq!((numbers(&plan), World::action(&plan, "web")), (vec![2], Action::Provision));
        assert_eq!(
            change(&plan, "web").reasons,
            ["provisioning step 2 (`inline`) runs with every apply (`run \"always\"`)"]
        );
        assert!(world.carry_out(&plan).await.is_complete());
    }
    // If it fails, that is told, and nothing else has to run again.
    world.noop.script(&[fail("provision-2", "web", Some(1))]).unwrap();
    assert!(!world.apply(Some(&goal)).await.failed.is_empty());
    assert_eq!(due(&world, &texts).await, [2]);
    assert_eq!(due(&world, &["a", "always:b2", "c"]).await, [2, 3], "its change is a change");
    assert_eq!(due(&world, &["a2", "always:b", "c"]).await, [1, 2, 3]);
    world.converge(Some(&goal)).await;

    // A machine that sleeps or is off is not woken for it.
    for power in [Power::Suspended, Power::Stopped] {
        let vm = DesiredVm { power, ..goal.vms.values().next().unwrap().clone() };
        world.converge(Some(&desired([vm]))).await;
    }
    assert_eq!(due(&world, &texts).await, [2], "it runs when the machine is started");
}

#[tokio::test(flavor = "multi_thread")]
async fn provision_runs_what_is_due_and_by_force_what_is_not_and_changes_nothing_else() {
    let mut world = World::new();
    let texts = ["a", "once:b", "always:c", "d"];
    let refused = provision(&world, &texts, &[], false).await;
    assert!(change(&refused, "web").refused.as_ref().unwrap().text.contains("vmctl up"));
    world.converge(Some(&goal(&world, &texts))).await;

    assert_eq!(numbers(&provision(&world, &texts, &[], false).await), [3]);
    assert_eq!(numbers(&provision(&world, &texts, &[], true).await), [1, 3, 4], "what runs once stays done");
    assert_eq!(numbers(&provision(&world, &texts, &["2"], true).await), [2], "unless it is named");
    assert!(provision(&world, &texts, &["4"], false).await.is_empty(), "it ran");
    let unknown = Options {
        mode: Mode::Provision,
        provision: Asked { steps: ["5".to_owned()].into(), force: false },
        ..Options::default()
    };
    let error = world.try_plan(Some(&goal(&world, &texts)), &unknown).await.unwrap_err();
    assert!(error.to_string().contains("`5`"), "{error}");

    // A change before a step that is asked for comes first; what follows a step that ran anew is still to do.
    let changed = ["a2", "once:b", "always:c", "d"];
    let refused = provision(&world, &changed, &["4"], true).await;
    assert!(change(&refused, "web").refused.as_ref().unwrap().text.contains("step 1 (`inline`) comes first"));
    let first = provision(&world, &changed, &["1"], false).await;
    assert_eq!(first.graph.steps().map(|(_, step)| step.kind).collect::<Vec<_>>(), [StepKind::Provision(1)]);
    assert!(world.carry_out(&first).await.is_complete());
    assert_eq!(due(&world, &changed).await, [3, 4]);
    world.converge(Some(&goal(&world, &changed))).await;

    // By force, and broken off: what did not run again is due.
    world.noop.script(&[fail("provision-3", "web", Some(1))]).unwrap();
    let plan = provision(&world, &changed, &[], true).await;
    assert!(!world.carry_out(&plan).await.failed.is_empty());
    assert_eq!(due(&world, &changed).await, [3, 4]);
    world.converge(Some(&goal(&world, &changed))).await;

    // Nothing else happens to the machine, whatever the VMFile says of it now.
    let mut more = goal(&world, &["z", "once:b"]);
    more.vms.values_mut().for_each(|vm| vm.memory_mib *= 2);
    let options = Options { mode: Mode::Provision, ..Options::default() };
    let plan = world.try_plan(Some(&more), &options).await.unwrap();
    assert!(plan.graph.steps().all(|(_, step)| step.kind == StepKind::Provision(1)));
    assert!(world.carry_out(&plan).await.is_complete());
    assert_eq!(World::action(&world.plan(Some(&more)).await, "web"), Action::Restart);
    world.converge(Some(&more)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_that_are_left_out_stay_due() {
    let mut world = World::new();
    let goal = goal(&world, &["a", "always:b"]);
    let options = Options { no_provision: true, ..Options::default() };
    let plan = world.try_plan(Some(&goal), &options).await.unwrap();
    assert!(plan.graph.steps().all(|(_, step)| !matches!(step.kind, StepKind::Provision(_))));
    assert!(change(&plan, "web").reasons.iter().any(|reason| reason.contains("--no-provision")));
    assert!(world.carry_out(&plan).await.is_complete());
    assert!(world.try_plan(Some(&goal), &options).await.unwrap().is_empty());
    assert_eq!(numbers(&world.plan(Some(&goal)).await), [1, 2]);
    world.converge(Some(&goal)).await;
    assert!(world.try_plan(Some(&goal), &options).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn step_that_was_cut_off_runs_again_by_force_or_if_it_is_safe() {
    let mut world = World::new();
    let texts = ["a", "always:b", "c"];
    world.converge(Some(&goal(&world, &texts))).await;
    let snapshot = vmctl_state::Store::snapshot(&world.store).unwrap();
    let record = snapshot.records.values().next().unwrap().clone();
    let cut_off = vmctl_state::Interrupted {
        number: 2,
        label: "inline".to_owned(),
        at: jiff::Timestamp::UNIX_EPOCH,
        digest: None,
    };
    let record = vmctl_state::Record { interrupted: Some(cut_off), ..record };
    vmctl_state::Store::commit(&mut world.store, &[vmctl_state::Entry::Put(Box::new(record))]).unwrap();
    let alone = |plan: &Plan| change(plan, "web").left_alone.is_some();
    assert!(alone(&world.plan(Some(&goal(&world, &texts))).await));
    assert!(alone(&provision(&world, &texts, &[], false).await));
    assert!(!alone(&provision(&world, &texts, &["2"], true).await));
    let mut safe = goal(&world, &texts);
    safe.vms.values_mut().for_each(|vm| vm.provision[1].options.rerun = Rerun::Safe);
    world.converge(Some(&safe)).await;
}

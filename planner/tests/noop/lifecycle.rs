//! What a VMFile says about what may become of a machine.

use vmctl_planner::desired::{Desired, DesiredVm, Lifecycle, Move, Power, Trigger, Until};
use vmctl_planner::{Action, Mode, Options, PlanError};
use vmctl_providers::{CloudInitConfig, Damage, VmState};
use vmctl_state::{Address, Entry, Record, Store};

use crate::world::{World, change, desired, image_path, name, step};

fn protected(vm: DesiredVm) -> DesiredVm {
    DesiredVm { lifecycle: Lifecycle { prevent_destroy: true, ..vm.lifecycle }, ..vm }
}

fn ignoring(fields: &[&str], vm: DesiredVm) -> DesiredVm {
    let ignore_changes = fields.iter().map(ToString::to_string).collect();
    DesiredVm { lifecycle: Lifecycle { ignore_changes, ..vm.lifecycle }, ..vm }
}

fn replaced_when(trigger: Trigger, vm: DesiredVm) -> DesiredVm {
    let replace_when = [trigger].into();
    DesiredVm { lifecycle: Lifecycle { replace_when, ..vm.lifecycle }, ..vm }
}

fn with_other_image(world: &World, vm: DesiredVm) -> DesiredVm {
    let source = image_path(world.folder.path(), 1);
    let identity = world.images.identify(&source).unwrap();
    DesiredVm { image: Some(vmctl_planner::desired::DesiredImage::Local { source, identity }), ..vm }
}

#[tokio::test(flavor = "multi_thread")]
async fn protection_refuses_replacing_destroying_and_removing_all_even_without_its_block() {
    let mut world = World::new();
    let goal = desired([protected(world.vm("db")), world.vm("web")]);
    world.converge(Some(&goal)).await;

    let other = protected(with_other_image(&world, world.vm("db")));
    let without_block = desired([world.vm("web")]);
    let plans = [
        world.plan(Some(&desired([other, world.vm("web")]))).await,
        world.plan(Some(&without_block)).await,
        world.plan(None).await,
    ];
    for plan in &plans {
        let refused: Vec<_> = plan.refused().map(|(change, _)| change.address.name()).collect();
        assert_eq!(refused, ["db"]);
        assert!(!change(plan, "db").losses.is_empty(), "what would be lost is named");
    }
    // Said to be protected no longer, and applied: then it may go.
    world.converge(Some(&desired([world.vm("db"), world.vm("web")]))).await;
    assert_eq!(world.plan(Some(&without_block)).await.refused().count(), 0);
    world.converge(Some(&without_block)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn protected_machine_whose_files_are_gone_is_not_made_anew_until_it_is_forgotten() {
    let mut world = World::new();
    let goal = desired([protected(world.vm("db"))]);
    world.converge(Some(&goal)).await;
    let (folder, away) = (world.folder.path().join("vms/db"), world.folder.path().join("away"));
    std::fs::rename(&folder, &away).unwrap();
    let plan = world.plan(Some(&goal)).await;
    assert_eq!((change(&plan, "db").action, plan.refused().count()), (Action::Replace, 1));
    // Put back, nothing was lost.
    std::fs::rename(&away, &folder).unwrap();
    assert!(world.plan(Some(&goal)).await.is_settled());
    std::fs::remove_dir_all(&folder).unwrap();
    world.store.commit(&[Entry::Remove(Address::vm("db"))]).unwrap();
    world.converge(Some(&goal)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn running_machine_whose_disk_file_is_gone_is_left_alone_until_replacing_is_asked_for() {
    let mut world = World::new();
    let goal = desired([world.vm("db")]);
    world.converge(Some(&goal)).await;
    let path = world.folder.path().join("disk");
    world.noop.edit("db", |machine| machine.damage.push(Damage::DiskMissing { path })).unwrap();
    let plan = world.plan(Some(&goal)).await;
    let (_, alone) = plan.left_alone().next().unwrap();
    assert_eq!((alone.instead_of, plan.is_empty()), (Action::Replace, true));
    let options = Options { replace: [name("db")].into(), ..Options::default() };
    let plan = world.try_plan(Some(&goal), &options).await.unwrap();
    assert_eq!(World::action(&plan, "db"), Action::Replace);
    assert!(world.carry_out(&plan).await.is_complete());
    assert!(world.plan(Some(&goal)).await.is_settled());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_option_destroys_what_is_renamed_or_let_go_of() {
    let mut world = World::new();
    world.converge(Some(&desired([world.vm("a"), world.vm("b")]))).await;
    let renamed = Desired {
        moved: vec![Move { from: name("b"), to: name("bb") }],
        ..desired([world.vm("a"), world.vm("bb")])
    };
    let only = |names: [&str; 1]| names.map(name).into();
    for options in [
        Options { excludes: only(["bb"]), ..Options::default() },
        Options { excludes: only(["b"]), ..Options::default() },
        Options { targets: only(["b"]), ..Options::default() },
        Options { targets: only(["a"]), ..Options::default() },
    ] {
        let plan = world.try_plan(Some(&renamed), &options).await.unwrap();
        assert!(plan.effective().all(|change| change.action == Action::Update), "{options:?}");
    }
    let options = Options { replace: only(["b"]), ..Options::default() };
    let plan = world.try_plan(Some(&renamed), &options).await.unwrap();
    assert_eq!(World::action(&plan, "bb"), Action::Replace, "both names mean the one machine");

    let removed = Desired { removed: [name("b")].into(), ..desired([world.vm("a")]) };
    let error = world.try_plan(Some(&removed), &options).await.unwrap_err();
    assert!(matches!(error, PlanError::Contradiction(_)), "{error}");
    let options = Options { mode: Mode::Destroy, forget: only(["b"]), ..Options::default() };
    let plan = world.try_plan(None, &options).await.unwrap();
    assert_eq!((World::action(&plan, "a"), World::action(&plan, "b")), (Action::Destroy, Action::Forget));
}

#[tokio::test(flavor = "multi_thread")]
async fn replacing_shows_the_changes_that_were_ignored() {
    let mut world = World::new();
    let fields = ["memory", "image"];
    world.converge(Some(&desired([ignoring(&fields, world.vm("db"))]))).await;
    let changed = with_other_image(&world, DesiredVm { memory_mib: 999, ..world.vm("db") });
    let goal = desired([ignoring(&fields, changed)]);
    assert!(world.plan(Some(&goal)).await.is_settled());
    let options = Options { replace: [name("db")].into(), ..Options::default() };
    let plan = world.try_plan(Some(&goal), &options).await.unwrap();
    let shown: Vec<_> = change(&plan, "db").fields.iter().map(|field| &*field.field).collect();
    assert!(shown.contains(&"memory") && shown.contains(&"image"), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ignored_fields_are_kept_while_others_change() {
    let mut world = World::new();
    let fields = ["memory", "cloud-init", "provision"];
    let vm = |memory_mib, vcpus, script| DesiredVm {
        memory_mib,
        vcpus,
        provision: vec![step(1, script)],
        ..ignoring(&fields, world.vm("db"))
    };
    let (first, second, third) =
        (desired([vm(256, 1, "a")]), desired([vm(512, 1, "b")]), desired([vm(512, 2, "b")]));
    let anew = desired([DesiredVm {
        memory_mib: 512,
        ..ignoring(&fields, with_other_image(&world, vm(512, 2, "b")))
    }]);
    world.converge(Some(&first)).await;
    assert!(world.plan(Some(&second)).await.is_settled());
    world.converge(Some(&third)).await;
    let machine = world.noop.machine("db").unwrap().unwrap();
    assert_eq!((machine.machine.vcpus, machine.machine.memory_mib), (2, 256));
    assert_eq!(machine.provisioned, ["a"]);
    // A machine that is made anew is made as the file says.
    world.converge(Some(&anew)).await;
    let machine = world.noop.machine("db").unwrap().unwrap();
    assert_eq!((machine.machine.memory_mib, machine.provisioned), (512, vec!["b".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn ignored_power_state_leaves_a_machine_as_somebody_put_it() {
    let mut world = World::new();
    let goal = desired([ignoring(&["state"], world.vm("db"))]);
    world.converge(Some(&goal)).await;
    world.noop.edit("db", |machine| machine.state = VmState::Stopped).unwrap();
    world.converge(Some(&goal)).await;
    assert_eq!(world.noop.machine("db").unwrap().unwrap().state, VmState::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_can_be_ignored() {
    let mut world = World::new();
    world.converge(Some(&desired([ignoring(&["all"], world.vm("db"))]))).await;
    let changed = with_other_image(&world, DesiredVm { vcpus: 8, memory_mib: 999, ..world.vm("db") });
    assert!(world.plan(Some(&desired([ignoring(&["all"], changed)]))).await.is_settled());
}

#[tokio::test(flavor = "multi_thread")]
async fn named_fields_and_machines_replace() {
    let mut world = World::new();
    let on_memory = Trigger::Field("memory".to_owned());
    let on_steps = Trigger::Field("provision".to_owned());
    let on_db = Trigger::Machine(name("db"));
    let files = |world: &World, memory_mib, script| {
        [
            replaced_when(on_memory.clone(), DesiredVm { memory_mib, ..world.vm("db") }),
            replaced_when(on_db.clone(), world.vm("follows")),
            replaced_when(Trigger::Machine(name("follows")), world.vm("follows-too")),
            replaced_when(
                on_steps.clone(),
                DesiredVm { provision: vec![step(1, script)], ..world.vm("steps") },
            ),
            world.vm("other"),
        ]
    };
    world.converge(Some(&desired(files(&world, 256, "a")))).await;
    let plan = world.plan(Some(&desired(files(&world, 512, "b")))).await;
    for (name, action) in [
        ("db", Action::Replace),
        ("follows", Action::Replace),
        ("follows-too", Action::Replace),
        ("steps", Action::Replace),
        ("other", Action::NoOp),
    ] {
        assert_eq!(change(&plan, name).action, action, "{name}: {:?}", change(&plan, name).reasons);
    }
    assert_eq!(world.carry_out(&plan).await.failed, []);
    assert!(world.plan(Some(&desired(files(&world, 512, "b")))).await.is_settled());
}

#[tokio::test(flavor = "multi_thread")]
async fn taint_replaces_and_so_does_the_option() {
    let mut world = World::new();
    let goal = desired([world.vm("db"), world.vm("web")]);
    world.converge(Some(&goal)).await;
    let record = world.store.snapshot().unwrap().records[&Address::vm("db")].clone();
    let tainted = Record { taint: Some("by hand".to_owned()), ..record };
    world.store.commit(&[Entry::Put(Box::new(tainted))]).unwrap();
    let options = Options { replace: [name("web")].into(), ..Options::default() };
    let plan = world.try_plan(Some(&goal), &options).await.unwrap();
    assert_eq!(change(&plan, "db").reasons, ["it is tainted: by hand"]);
    assert_eq!(change(&plan, "web").reasons, ["asked for with `--replace`"]);
    assert_eq!((World::action(&plan, "db"), World::action(&plan, "web")), (Action::Replace, Action::Replace));
    assert!(world.carry_out(&plan).await.is_complete());
    assert!(world.plan(Some(&goal)).await.is_settled());
}

#[tokio::test(flavor = "multi_thread")]
async fn renamed_machine_goes_on_and_its_old_name_is_free() {
    let mut world = World::new();
    let seeded = |world: &World, vm: &str| {
        let hostname = name(vm).to_hostname();
        let user = "vm".to_owned();
        let seed = CloudInitConfig {
            hostname,
            user,
            authorized_keys: Vec::new(),
            user_data: None,
            more: Default::default(),
        };
        DesiredVm { cloud_init: Some(seed), ..world.vm(vm) }
    };
    world.converge(Some(&desired([seeded(&world, "a")]))).await;
    let id = world.noop.machine("a").unwrap().unwrap().id;
    let before = world.events().len();
    let moved = vec![Move { from: name("a"), to: name("b") }, Move { from: name("b"), to: name("c") }];
    let renamed = Desired { moved, ..desired([seeded(&world, "c")]) };
    let plan = world.plan(Some(&renamed)).await;
    assert_eq!(change(&plan, "c").moved_from, Some(Address::vm("a")));
    assert_eq!(plan.changes.len(), 1, "the old name is no machine any more");
    world.converge(Some(&renamed)).await;
    assert_eq!(world.events_since(before), ["update a"], "nothing else happens to it");

    // A new machine may take the old name, beside it.
    let both = desired([seeded(&world, "c"), seeded(&world, "a")]);
    world.converge(Some(&both)).await;
    let handle = world.store.snapshot().unwrap().records[&Address::vm("c")].instance;
    assert_eq!(handle, id.0);
    assert_eq!(world.store.snapshot().unwrap().records.len(), 2);
    world.converge(None).await;
    assert_eq!(std::fs::read_dir(world.folder.path().join("vms")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rename_onto_a_recorded_machine_is_refused() {
    let mut world = World::new();
    world.converge(Some(&desired([world.vm("a"), world.vm("b")]))).await;
    let goal = Desired { moved: vec![Move { from: name("a"), to: name("b") }], ..desired([world.vm("b")]) };
    let error = world.try_plan(Some(&goal), &Options::default()).await.unwrap_err();
    assert!(matches!(error, PlanError::MoveOntoExisting { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_machine_is_forgotten_and_goes_on() {
    let mut world = World::new();
    world.converge(Some(&desired([protected(world.vm("old")), world.vm("web")]))).await;
    let before = world.events().len();
    let goal = Desired { removed: [name("old")].into(), ..desired([world.vm("web")]) };
    let plan = world.plan(Some(&goal)).await;
    assert_eq!((World::action(&plan, "old"), plan.refused().count()), (Action::Forget, 0));
    assert!(change(&plan, "old").losses.is_empty());
    world.converge(Some(&goal)).await;
    assert_eq!(world.events_since(before), ["release old"]);
    assert_eq!(world.noop.machine("old").unwrap().unwrap().state, VmState::Running);
    assert!(!world.plan(Some(&goal)).await.has_drift(), "what was let go of is no drift");
    assert!(!world.plan(Some(&desired([world.vm("web")]))).await.has_drift());
}

#[tokio::test(flavor = "multi_thread")]
async fn machine_with_our_mark_that_nothing_knows_is_told_and_left_alone() {
    let mut world = World::new();
    world.converge(Some(&desired([world.vm("lost")]))).await;
    world.store.commit(&[Entry::Remove(Address::vm("lost"))]).unwrap();
    let plan = world.plan(Some(&desired([]))).await;
    assert_eq!(plan.strays.iter().map(|stray| stray.name.as_str()).collect::<Vec<_>>(), ["lost"]);
    assert!(plan.has_drift() && plan.is_empty());
    // The name is free for a machine of its own.
    world.converge(Some(&desired([world.vm("lost")]))).await;
    assert_eq!(std::fs::read_dir(world.folder.path().join("vms")).unwrap().count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn power_state_converges_from_each_to_each() {
    let mut world = World::new();
    let powers = [Power::Running, Power::Stopped, Power::Suspended];
    for from in powers {
        for to in powers {
            for power in [from, to] {
                world.converge(Some(&desired([DesiredVm { power, ..world.vm("db") }]))).await;
            }
            let found = world.noop.machine("db").unwrap().unwrap().state;
            let wanted = match to {
                Power::Running => VmState::Running,
                Power::Stopped => VmState::Stopped,
                Power::Suspended => VmState::Suspended,
            };
            assert_eq!(found, wanted, "from {from:?} to {to:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_bring_what_they_need_and_excludes_take_what_needs_them() {
    let mut world = World::new();
    let needs = |on: &str| [(name(on), Until::Started)].into();
    let goal = desired([
        world.vm("db"),
        DesiredVm { depends_on: needs("db"), ..world.vm("web") },
        DesiredVm { depends_on: needs("web"), ..world.vm("proxy") },
        world.vm("other"),
    ]);
    let names = |plan: &vmctl_planner::Plan| {
        plan.changes.iter().map(|change| change.address.name().to_owned()).collect::<Vec<_>>()
    };
    let target = |vm: &str, mode| Options { mode, targets: [name(vm)].into(), ..Options::default() };
    let exclude = |vm: &str, mode| Options { mode, excludes: [name(vm)].into(), ..Options::default() };
    let plan = world.try_plan(Some(&goal), &target("web", Mode::Normal)).await.unwrap();
    assert_eq!(names(&plan), ["db", "web"]);
    let plan = world.try_plan(Some(&goal), &exclude("web", Mode::Normal)).await.unwrap();
    assert_eq!(names(&plan), ["db", "other"]);

    world.converge(Some(&goal)).await;
    let plan = world.try_plan(None, &target("web", Mode::Destroy)).await.unwrap();
    assert_eq!(names(&plan), ["proxy", "web"], "what needs it goes with it");
    let plan = world.try_plan(None, &exclude("web", Mode::Destroy)).await.unwrap();
    assert_eq!(names(&plan), ["other", "proxy"], "what it needs stays with it");
    let error = world.try_plan(Some(&goal), &target("nobody", Mode::Normal)).await.unwrap_err();
    assert!(error.to_string().contains("no machine is called `nobody`"), "{error}");
}

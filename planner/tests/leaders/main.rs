//! Equal machines that are made at once: one is kept, and the others are made from it; or by themselves, where there is
//! nothing to be made from.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../common/disk.rs"]
mod disk;
#[path = "../scale/host.rs"]
mod host;
mod properties;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use vmctl_planner::apply::{Control, Downloads, Event, Executor, Limits, Report, events};
use vmctl_planner::desired::{Desired, DesiredImage, DesiredVm, Until, WarmChoice, ready_at_login};
use vmctl_planner::pins::{Pin, PinnedBy};
use vmctl_planner::warm::{SeenTemplate, keys};
use vmctl_planner::{Action, Change, Inputs, Observed, Options, Plan, StepId, StepKind, refresh};
use vmctl_providers::image::{FetchProgress, Fetched, ImageCache, ImageError, RemoteImage, Upstream};
use vmctl_providers::provision::{ProvisionAction, ProvisionStep, Run};
use vmctl_providers::{CloudInitConfig, Digest, Name, SeedContent, SshConfig, WarmLevel};
use vmctl_state::{Address, MemoryStore, Phase, ProvisionRecord, Record, Store};

use host::NumbersHost;

const LIMITS: Limits = Limits { steps: 10, boots: 4, images: 2, downloads: 3, downloads_per_host: 2 };

/// A state, a host, and an image for all machines.
struct World {
    _folder: TempDir,
    images: ImageCache,
    file: PathBuf,
    image: DesiredImage,
    store: MemoryStore,
    host: Arc<NumbersHost>,
}

/// A server that has the world's image, whatever it is asked for.
#[derive(Debug)]
struct Server {
    images: ImageCache,
    file: PathBuf,
}

impl Downloads for Server {
    fn fetch<'a>(
        &'a self,
        _image: &'a RemoteImage,
        _progress: &'a (dyn Fn(FetchProgress) + Send + Sync),
        _cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Fetched, ImageError>> {
        let fetched = || {
            let identity = self.images.identify(&self.file)?;
            let image = self.images.import(&self.file, &identity)?;
            // What comes packed has other bytes than what is in the cache.
            let sha256 = Digest::of("packed");
            Ok(Fetched { sha256, upstream: Upstream::default(), identity, image, from_cache: false })
        };
        async move { fetched() }.boxed()
    }
}

impl World {
    fn new(host: NumbersHost) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = disk::write_smallest(folder.path());
        let images = ImageCache::new(folder.path().join("images"));
        let identity = images.identify(&source).unwrap();
        let image = DesiredImage::Local { identity, source: source.clone() };
        let store = MemoryStore::new(Uuid::from_u128(7));
        Self { _folder: folder, images, file: source, image, store, host: Arc::new(host) }
    }

    /// A machine that is kept: its first step runs on change, the second always, the third once.
    fn vm(&self, name: &str) -> DesiredVm {
        let login = SshConfig { user: "vm".to_owned(), private_key: None };
        let runs = [Run::OnChange, Run::Always, Run::Once];
        DesiredVm {
            image: Some(self.image.clone()),
            cloud_init: Some(CloudInitConfig {
                hostname: name.to_owned(),
                user: "vm".to_owned(),
                authorized_keys: Vec::new(),
                user_data: None,
                more: SeedContent::default(),
            }),
            ready: ready_at_login(Some(&login)),
            ssh: Some(login),
            provision: runs.into_iter().zip(1..).map(|(run, number)| step(number, run)).collect(),
            warm: WarmChoice::Auto,
            ..DesiredVm::new(name.parse().unwrap())
        }
    }

    /// Equal machines.
    fn vms<const N: usize>(&self, names: [&str; N]) -> Desired {
        desired(names.map(|name| self.vm(name)))
    }

    async fn plan(&self, desired: &Desired, options: &Options) -> Plan {
        let recorded = self.store.snapshot().unwrap();
        let mut observed = refresh(&self.host, &recorded).await.unwrap();
        observed.templates = self.host.seen().templates.into_keys().map(|key| (key, seen())).collect();
        self.plan_from(desired, options, &observed)
    }

    fn plan_from(&self, desired: &Desired, options: &Options, observed: &Observed) -> Plan {
        Plan::new(Inputs {
            project: &desired.project,
            desired: Some(desired),
            recorded: &self.store.snapshot().unwrap(),
            observed,
            images: &self.images,
            options,
        })
        .unwrap()
    }

    /// Carries the plan out; with what was told.
    async fn apply(&mut self, plan: &Plan) -> (Report, Vec<Event>) {
        let (sender, mut receiver) = events();
        let host = Arc::clone(&self.host);
        let images = self.images.clone();
        let downloads = Arc::new(Server { images: images.clone(), file: self.file.clone() });
        let executor = Executor::new(host, images, downloads, LIMITS, Control::default(), sender);
        let report = executor.apply(plan, &mut self.store).await.unwrap();
        drop(executor);
        let mut told = Vec::new();
        while let Some(event) = receiver.recv().await {
            told.push(event);
        }
        (report, told)
    }

    async fn made(&mut self, desired: &Desired) -> (Plan, Report, Vec<Event>) {
        let plan = self.plan(desired, &Options::default()).await;
        let (report, told) = self.apply(&plan).await;
        (plan, report, told)
    }

    /// What is remembered of a machine, without times and what is its own.
    fn record(&self, name: &str) -> Record {
        let record = self.store.snapshot().unwrap().records[&Address::vm(name)].clone();
        let blank = Timestamp::UNIX_EPOCH;
        let provisioned = record.provisioned.iter();
        Record {
            provisioned: provisioned.map(|ran| ProvisionRecord { at: blank, ..ran.clone() }).collect(),
            ran_once: record
                .ran_once
                .iter()
                .map(|ran| vmctl_state::RanOnce { at: blank, ..ran.clone() })
                .collect(),
            created: blank,
            updated: blank,
            instance: Uuid::nil(),
            handle: None,
            ..record
        }
    }

    fn provisioned(&self) -> BTreeMap<String, Vec<usize>> {
        self.host.seen().provisioned.into_iter().map(|(name, steps)| (name.to_string(), steps)).collect()
    }
}

fn seen() -> SeenTemplate {
    SeenTemplate { created: Timestamp::UNIX_EPOCH, level: WarmLevel::Memory, of: "shop/other".to_owned() }
}

fn step(number: usize, run: Run) -> ProvisionStep {
    let script = format!("echo {number} {run:?}");
    let mut step = ProvisionStep {
        number,
        label: script.clone(),
        digest: Digest::of(&script),
        action: ProvisionAction::Shell { script },
        options: Default::default(),
        secrets: Default::default(),
    };
    step.options.run = run;
    step
}

fn desired(vms: impl IntoIterator<Item = DesiredVm>) -> Desired {
    let vms = vms.into_iter().map(|vm| (vm.name.clone(), vm)).collect();
    Desired { vms, ..Desired::new("shop".parse().unwrap()) }
}

fn change<'a>(plan: &'a Plan, name: &str) -> &'a Change {
    plan.changes.iter().find(|change| change.address == Address::vm(name)).unwrap()
}

/// The leader of each machine that follows one.
fn leaders(plan: &Plan) -> BTreeMap<&str, &str> {
    plan.changes
        .iter()
        .filter_map(|change| Some((change.address.name(), change.template_after.as_ref()?.name())))
        .collect()
}

fn find(plan: &Plan, name: &str, kind: StepKind) -> Option<StepId> {
    let mut steps = plan.graph.steps();
    steps.find(|(_, step)| step.address == Address::vm(name) && step.kind == kind).map(|(id, _)| id)
}

/// The notes of steps that are done, by step.
fn notes(plan: &Plan, told: &[Event]) -> BTreeMap<String, String> {
    let note = |event: &Event| match event {
        Event::Done { id, note: Some(note), .. } => Some((plan.graph.step(*id).to_string(), note.clone())),
        _ => None,
    };
    told.iter().filter_map(note).collect()
}

#[test]
fn plan_says_who_is_kept_and_who_follows() {
    let world = World::new(NumbersHost::default());
    let goal = world.vms(["a", "b", "c"]);
    let plan = world.plan_from(&goal, &Options::default(), &Observed::default());
    assert_eq!(leaders(&plan), [("b", "a"), ("c", "a")].into());
    assert_eq!(change(&plan, "a").reasons, [""; 0]);
    let told = "after `vm.a`, from the template that it is kept as";
    assert_eq!(
        (&*change(&plan, "b").reasons, change(&plan, "b").action),
        (&[told.to_owned()][..], Action::Create)
    );
    assert_eq!(plan.summary().create, 3);
    // What runs in any case.
    let runs = |name: &str| change(&plan, name).provision.iter().map(|run| run.number).collect::<Vec<_>>();
    assert_eq!((runs("a"), runs("b")), (vec![1, 2, 3], vec![2]));

    let (keep, prepare) =
        (find(&plan, "a", StepKind::Keep).unwrap(), find(&plan, "b", StepKind::Prepare).unwrap());
    assert_eq!(plan.graph.before_either_way(prepare), [keep]);
    assert_eq!(find(&plan, "b", StepKind::Keep), None);
    // Who is waited for has the longest way before it.
    let remaining = plan.graph.remaining(|_, _| 1).unwrap();
    assert!(remaining[find(&plan, "a", StepKind::Prepare).unwrap().0] > remaining[prepare.0]);
}

#[test]
fn nobody_waits_for_nothing() {
    let world = World::new(NumbersHost::default());
    let goal = world.vms(["a", "b"]);
    let plan = |goal: &Desired, options: &Options| world.plan_from(goal, options, &Observed::default());
    let cold = plan(&goal, &Options { cold: true, ..Options::default() });
    assert_eq!((leaders(&cold), find(&cold, "a", StepKind::Keep).is_some()), ([].into(), true));
    assert_eq!(change(&cold, "b").provision.len(), 3);

    // A template of a disk spares the steps; where there are none, it spares nothing.
    let disk = |steps: &[Run]| {
        desired(["a", "b"].map(|name| DesiredVm {
            warm: WarmChoice::Disk,
            provision: steps.iter().zip(1..).map(|(run, number)| step(number, *run)).collect(),
            ..world.vm(name)
        }))
    };
    for (steps, waits) in [(&[][..], false), (&[Run::Always], false), (&[Run::Always, Run::Once], true)] {
        let plan = plan(&disk(steps), &Options::default());
        assert_eq!(leaders(&plan).contains_key("b"), waits, "{steps:?}");
        assert!(find(&plan, "a", StepKind::Keep).is_some() && find(&plan, "b", StepKind::Keep).is_none());
    }

    // Whoever is left out leads nobody.
    let excludes = ["a".parse().unwrap()].into();
    let goal = world.vms(["a", "b", "c"]);
    let rest = plan(&goal, &Options { excludes, ..Options::default() });
    assert_eq!(leaders(&rest), [("c", "b")].into());
    // Where there is a template, all are made from it.
    let templates = keys(&goal).into_values().map(|key| (key, seen())).collect();
    let rest = world.plan_from(&goal, &Options::default(), &Observed { templates, ..Observed::default() });
    assert_eq!(leaders(&rest), [].into());
}

#[test]
fn leader_is_who_comes_up_first() {
    let world = World::new(NumbersHost::default());
    let mut goal = world.vms(["a", "b", "c"]);
    let mut needs = |name: &str, needed: &str, until| {
        let vm = goal.vms.get_mut(&name.parse::<Name>().unwrap()).unwrap();
        vm.depends_on.insert(needed.parse().unwrap(), until);
    };
    needs("a", "c", Until::Started);
    needs("b", "a", Until::Provisioned);
    let plan = world.plan_from(&goal, &Options::default(), &Observed::default());
    assert_eq!(leaders(&plan), [("a", "c"), ("b", "c")].into());
}

#[test]
fn leaders_that_need_each_others_followers_do_not_wait_for_themselves() {
    let world = World::new(NumbersHost::default());
    let vm = |name: &str, memory_mib, needed: &str| DesiredVm {
        memory_mib,
        depends_on: needed.parse().iter().map(|name: &Name| (name.clone(), Until::Provisioned)).collect(),
        ..world.vm(name)
    };
    let plain = |name: &str| DesiredVm { warm: WarmChoice::Off, ..world.vm(name) };
    // By name, `a` and `x` would be kept; each needs the other one of the other kind.
    let goal = desired([
        vm("a", 256, "y"),
        vm("b", 256, "m"),
        vm("x", 512, "b"),
        vm("y", 512, "n"),
        plain("m"),
        plain("n"),
    ]);
    let plan = world.plan_from(&goal, &Options::default(), &Observed::default());
    assert_eq!(leaders(&plan), [("a", "b"), ("x", "y")].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_would_wait_for_itself_is_made_without_a_template() {
    let mut world = World::new(NumbersHost::default());
    let vm = |name: &str, memory_mib, needed: Option<&str>| DesiredVm {
        memory_mib,
        depends_on: needed.into_iter().map(|name| (name.parse().unwrap(), Until::Provisioned)).collect(),
        ..world.vm(name)
    };
    // `g` waits for `a`, which needs `m`, and goes down before `l`, for which `m` would wait.
    let goal =
        desired([vm("l", 256, None), vm("m", 256, None), vm("a", 512, Some("m")), vm("g", 512, Some("l"))]);
    world.made(&goal).await;
    let next = desired(goal.vms.into_values().map(|vm| DesiredVm { vcpus: 2, ..vm }));
    let replace = next.vms.keys().cloned().collect();
    let plan = world.plan(&next, &Options { replace, ..Options::default() }).await;
    assert_eq!(leaders(&plan), [("g", "a")].into());
    let told = "made without a template: `vm.l`, which is kept as one, cannot come before it";
    assert!(
        change(&plan, "m").reasons.iter().any(|reason| reason == told),
        "{:?}",
        change(&plan, "m").reasons
    );
    assert_eq!(change(&plan, "m").provision.len(), 3);
    let (report, _) = world.apply(&plan).await;
    assert!(report.is_complete());
}

#[tokio::test(flavor = "multi_thread")]
async fn machine_is_provisioned_once_and_all_are_made_of_it() {
    let mut world = World::new(NumbersHost::default());
    let goal = world.vms(["a", "b", "c"]);
    let (plan, report, told) = world.made(&goal).await;
    assert!(report.is_complete());
    assert_eq!(
        world.provisioned(),
        [("a", vec![1, 2, 3]), ("b", vec![2]), ("c", vec![2])]
            .map(|(name, steps)| (name.to_owned(), steps))
            .into()
    );
    assert_eq!(report.spared.len(), 4);
    assert_eq!(report.spared.len() + report.done.len(), plan.graph.len());
    let spared: BTreeSet<_> = told
        .iter()
        .filter_map(|event| if let Event::Spared(id) = event { Some(*id) } else { None })
        .collect();
    assert_eq!(spared, report.spared.iter().copied().collect());
    assert_eq!(notes(&plan, &told), [].into());
    let seen = world.host.seen();
    assert_eq!(seen.kept.iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["a"]);
    // Nothing began that was not needed, and nothing is to be done again but what runs with every plan.
    assert!(!world.store.history().iter().any(|step| {
        step.intent.step == "provision"
            && step.intent.address == Address::vm("b")
            && step.intent.detail["number"] != 2
    }));
    let next = world.plan(&goal, &Options::default()).await;
    let steps: Vec<_> = next.graph.steps().map(|(_, step)| step.kind).collect();
    assert_eq!(steps, [StepKind::Provision(2); 3]);

    // The record is that of a machine which is made from a template that was there before.
    let more = world.vms(["a", "b", "c", "d"]);
    let (plan, ..) = world.made(&more).await;
    assert!(change(&plan, "d").template.is_some());
    let blank = |name: &str| Record {
        address: Address::vm("x"),
        spec: vmctl_state::Opaque::from(serde_json::Value::Null),
        ..world.record(name)
    };
    assert_eq!(blank("b"), blank("d"));
    assert_eq!((blank("b").ran_once.len(), blank("b").provisioned.len()), (1, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_template_each_is_made_by_itself() {
    let all = |name: &str| (name.to_owned(), vec![1, 2, 3]);
    let no_room = NumbersHost { is_full: true, ..NumbersHost::default() };
    let failing = NumbersHost { failing: Some("a".parse().unwrap()), ..NumbersHost::default() };
    for (host, made) in [(no_room, vec!["a", "b", "c"]), (failing, vec!["b", "c"])] {
        let mut world = World::new(host);
        let goal = world.vms(["a", "b", "c"]);
        let (plan, report, told) = world.made(&goal).await;
        assert_eq!(world.provisioned(), made.iter().map(|name| all(name)).collect());
        let expected = "there is no template of `vm.a`: it boots, and is provisioned itself";
        let notes = notes(&plan, &told);
        for name in ["b", "c"] {
            assert_eq!(notes[&format!("vm.{name}: prepare")], expected);
            let record = world.record(name);
            assert_eq!((record.phase, record.ready, record.provisioned.len()), (Phase::Running, true, 3));
        }
        assert_eq!(report.is_complete(), made.len() == 3);
        // Only what needs the leader is skipped with it.
        assert!(report.skipped.iter().all(|(id, _)| plan.graph.step(*id).address == Address::vm("a")));
        assert_eq!(report.spared, []);
        let next = world.plan(&goal, &Options::default()).await;
        let again = next.graph.steps().filter(|(_, step)| step.address != Address::vm("a"));
        assert_eq!(again.map(|(_, step)| step.kind).collect::<Vec<_>>(), [StepKind::Provision(2); 2]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn image_that_nobody_knows_before_it_is_here_is_kept_under_its_name_from_then_on() {
    let mut world = World::new(NumbersHost::default());
    let remote = |pin: Option<Pin>| DesiredImage::Remote {
        url: "https://one.example/disk.img".to_owned(),
        name: None,
        sha256: None,
        pin,
    };
    let of = |world: &World, names: &[&str], pin: Option<Pin>| {
        desired(names.iter().map(|name| DesiredVm { image: Some(remote(pin.clone())), ..world.vm(name) }))
    };
    let unknown = of(&world, &["a", "b"], None);
    let (plan, report, _) = world.made(&unknown).await;
    assert!(report.is_complete());
    assert_eq!(leaders(&plan), [("b", "a")].into());
    assert_eq!(world.provisioned()["b"], [2]);

    let locked = report.fetched.values().next().unwrap();
    let pin = Pin {
        sha256: locked.sha256.clone(),
        image: Some(locked.image.clone()),
        upstream: Upstream::default(),
        by: PinnedBy::Lock,
    };
    let known = of(&world, &["a", "b", "c"], Some(pin));
    let kept = world.host.seen().templates.into_keys().collect::<BTreeSet<_>>();
    assert_eq!(keys(&known).into_values().collect::<BTreeSet<_>>(), kept);
    assert!(keys(&unknown).into_values().all(|key| !kept.contains(&key)));
    let (plan, ..) = world.made(&known).await;
    assert!(change(&plan, "c").template.is_some());
    assert_eq!(world.provisioned()["c"], [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn machine_that_is_made_anew_stands_until_its_template_is_there() {
    let mut world = World::new(NumbersHost::default());
    world.made(&world.vms(["a", "b"])).await;
    let next = desired(["a", "b"].map(|name| DesiredVm { vcpus: 2, ..world.vm(name) }));
    let replace = ["a", "b"].map(|name| name.parse().unwrap()).into();
    let options = Options { replace, ..Options::default() };
    let plan = world.plan(&next, &options).await;
    assert_eq!(leaders(&plan), [("b", "a")].into());
    assert_eq!(change(&plan, "b").action, Action::Replace);
    let (keep, stop) = (find(&plan, "a", StepKind::Keep).unwrap(), find(&plan, "b", StepKind::Stop).unwrap());
    assert_eq!(plan.graph.before_either_way(stop), [keep]);
    let (report, _) = world.apply(&plan).await;
    assert!(report.is_complete());
    // A new one leads, so that those that are there stand longer.
    let more = desired(["a", "b", "c"].map(|name| DesiredVm { vcpus: 3, ..world.vm(name) }));
    assert_eq!(leaders(&world.plan(&more, &options).await), [("a", "c"), ("b", "c")].into());
    let seen = world.host.seen();
    let [a, b] = ["a", "b"].map(|name| name.parse::<Name>().unwrap());
    assert!(seen.ready[&a] < seen.destroyed[&b] && seen.destroyed[&b] < seen.prepared[&b]);

    // A leader that cannot go down before its follower takes that down first, and lets it wait with its making.
    let mut tied = world.vms(["a", "b"]);
    tied.vms.get_mut(&b).unwrap().depends_on.insert(a, Until::Ready);
    let mut world = World::new(NumbersHost::default());
    world.made(&tied).await;
    let next =
        tied.vms.values().map(|vm| DesiredVm { vcpus: 2, image: Some(world.image.clone()), ..vm.clone() });
    let plan = world.plan(&desired(next), &options).await;
    let (keep, prepare) =
        (find(&plan, "a", StepKind::Keep).unwrap(), find(&plan, "b", StepKind::Prepare).unwrap());
    assert_eq!(plan.graph.before_either_way(prepare), [keep]);
    assert_eq!(leaders(&plan), [("b", "a")].into());
    let (report, _) = world.apply(&plan).await;
    assert!(report.is_complete());
}

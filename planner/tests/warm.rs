//! Which machines have templates, and what a plan makes of one that is there.

#![expect(clippy::unwrap_used, reason = "a test panics where the unexpected happens")]

mod common;
#[path = "common/site.rs"]
#[expect(dead_code, reason = "no values are given here")]
mod site;

use std::collections::{BTreeMap, BTreeSet};

use common::FakeImages;
use jiff::Timestamp;
use site::Site;
use uuid::Uuid;
use vmctl_planner::warm::{SeenTemplate, keys};
use vmctl_planner::{Desired, Inputs, Observed, Options, Plan};
use vmctl_providers::image::ImageCache;
use vmctl_providers::{Digest, WarmLevel};
use vmctl_state::{MemoryStore, Store};

/// The key of a machine of which `rest` is the block, besides what all have.
fn key(rest: &str) -> Option<Digest> {
    let site = Site::new(&format!("vm \"web\" {{\n    image \"disk.img\"\n{rest}\n}}\n"));
    keys(&site.desired()).into_values().next()
}

const WARM: &str = "warm \"auto\"; ssh; cloud-init { packages \"jq\" }; provision { inline \"true\" }";

#[test]
fn whatever_determines_a_machine_is_in_its_key() {
    let all: BTreeSet<_> = [
        WARM.to_owned(),
        WARM.replace("auto", "disk"),
        WARM.replace("jq", "yq"),
        WARM.replace("true", "false"),
        WARM.replace("ssh;", "ssh { user \"other\" };"),
        WARM.replace("inline \"true\"", "inline \"true\"; env { A 1 }"),
        WARM.replace("inline \"true\"", "inline \"true\"; run \"always\""),
        format!("{WARM}; provision {{ inline \"true\" }}"),
        format!("{WARM}; memory 512"),
        format!("{WARM}; vcpus 2"),
        format!("{WARM}; disk 9"),
        format!("{WARM}; cpu \"max\""),
        format!("{WARM}; network \"user\" isolated"),
    ]
    .iter()
    .map(|rest| key(rest).unwrap_or_else(|| panic!("{rest} has no key")))
    .collect();
    assert_eq!(all.len(), 13);
}

#[test]
fn names_forwards_and_checks_are_not() {
    let plain = key(WARM).unwrap();
    for more in [
        "forward host=0 guest=80",
        "check \"c\" { tcp 80 }",
        "labels { a \"b\" }",
        "lifecycle { prevent-destroy }",
    ] {
        assert_eq!(key(&format!("{WARM}; {more}")).unwrap(), plain, "{more}");
    }
    assert_eq!(key(&WARM.replace("packages", "hostname \"other\"; packages")).unwrap(), plain);
    let counted = Site::new(&format!("vm \"web\" count=3 {{ image \"disk.img\"; {WARM} }}"));
    assert_eq!(keys(&counted.desired()).into_values().collect::<BTreeSet<_>>(), [plain].into());
}

#[test]
fn what_a_key_knows_nothing_of_keeps_a_machine_from_having_one() {
    let volume = "volume \"rows\" size=1\n";
    for (rest, why) in [
        (format!("{WARM}; share \".\" \"/mnt\""), "it has a share"),
        (format!("{WARM}; media \"disk.img\""), "it has media"),
        (format!("{WARM}; state \"stopped\""), "it is not to run"),
        (format!("{WARM}; backend \"noop\""), "only QEMU's machines have templates"),
        (format!("{WARM}; volume \"rows\""), "it has a volume"),
        (
            format!("{WARM}; network \"user\"; network \"tap\" bridge=\"br0\""),
            "it is on a network with others",
        ),
    ] {
        let head = if rest.contains("rows") { volume } else { "" };
        let site = Site::new(&format!("{head}vm \"web\" {{ image \"disk.img\"; {rest} }}"));
        let desired = match site.load() {
            Ok(loaded) => loaded.desired,
            Err(report) => panic!("{rest}: {report:?}"),
        };
        assert!(keys(&desired).is_empty(), "{rest}");
        let plan = plan(&desired, BTreeMap::new(), Options::default());
        let reasons = &plan.changes.iter().find(|change| change.address.name() == "web").unwrap().reasons;
        assert!(reasons.iter().any(|reason| reason.contains(why)), "{rest}: {reasons:?}");
        assert!(!steps(&plan).iter().any(|step| step.ends_with("keep")), "{rest}");
    }
}

fn plan(desired: &Desired, templates: BTreeMap<Digest, SeenTemplate>, options: Options) -> Plan {
    let store = MemoryStore::new(Uuid::from_u128(7));
    Plan::new(Inputs {
        project: &desired.project,
        desired: Some(desired),
        recorded: &store.snapshot().unwrap(),
        observed: &Observed { templates, ..Observed::default() },
        images: &ImageCache::new("/cache"),
        options: &options,
    })
    .unwrap()
}

/// The plan's steps with machines, by machine and then in order.
fn steps(plan: &Plan) -> Vec<String> {
    let steps = plan.graph.steps().map(|(_, step)| step.to_string());
    steps.filter(|step| step.starts_with("vm.")).collect()
}

#[test]
fn one_machine_of_a_kind_is_kept_and_the_next_ones_are_made_from_it() {
    let always = format!("{WARM}; provision {{ inline \"date\"; run \"always\" }}");
    let site = Site::new(&format!("vm \"web\" count=2 {{ image \"disk.img\"; {always} }}"));
    let desired = site.desired();
    let first = steps(&plan(&desired, BTreeMap::new(), Options::default()));
    let of = |steps: &[String], name: &str| -> Vec<String> {
        steps
            .iter()
            .filter_map(|step| step.strip_prefix(&format!("vm.{name}: ")))
            .map(str::to_owned)
            .collect()
    };
    let whole = ["prepare", "start", "ready", "provision 1 (inline)", "provision 2 (inline)"];
    assert_eq!(of(&first, "web-1"), [&whole[..], &["keep"]].concat());
    assert_eq!(of(&first, "web-2"), whole);

    let key = keys(&desired).into_values().next().unwrap();
    let seen = SeenTemplate {
        created: Timestamp::UNIX_EPOCH,
        level: WarmLevel::Memory,
        of: "shop/web-1".to_owned(),
    };
    let templates: BTreeMap<_, _> = [(key.clone(), seen)].into();
    let made = plan(&desired, templates.clone(), Options::default());
    for name in ["web-1", "web-2"] {
        assert_eq!(of(&steps(&made), name), ["prepare", "start", "ready", "provision 2 (inline)"]);
    }
    assert!(made.changes.iter().all(|change| change.template.as_ref().is_some_and(|used| used.key == key)));

    let cold = plan(&desired, templates.clone(), Options { cold: true, ..Options::default() });
    assert_eq!(steps(&cold), first);
    let bare = plan(&desired, templates, Options { no_provision: true, ..Options::default() });
    assert_eq!(of(&steps(&bare), "web-1"), ["prepare", "start", "ready"]);
    assert!(bare.changes.iter().all(|change| change.template.is_none()));
}

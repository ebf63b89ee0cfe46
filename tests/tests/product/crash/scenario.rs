//! Applies of fake machines that together take every kind of step, to be disturbed.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

use serde_json::Value;
use vmctl_tests::leaks::{self, Goal};
use vmctl_tests::{Ended, Saved, World};

/// Machines as they are made: one that others need, one that is suspended, one that will be let go of.
const MADE: &str = r#"
volume "pages" size="1G"
volume "rows" size="1G"
vm "db" {
    image "blank.qcow2"
    backend "noop"
    volume "rows"
    ssh { user "vm" }
    provision "shell" { script "one.sh"RERUN }
    provision "shell" { script "two.sh"RERUN }
}
vm "web" {
    image "blank.qcow2"
    backend "noop"
    memory 256
    depends-on "db"
    volume "pages"
    ssh { user "vm" }
    provision "shell" { script "one.sh"RERUN }
}
vm "cache" { image "blank.qcow2"; backend "noop" }
vm "asleep" { image "blank.qcow2"; backend "noop"; state "suspended" }
vm "old" { image "blank.qcow2"; backend "noop" }
"#;

/// The same after many edits: update in place, restart, replace, resume, suspend, let go, provision further.
const CHANGED: &str = r#"
volume "pages" size="2G"
volume "rows" size="2G"
vm "db" {
    image "blank.qcow2"
    backend "noop"
    volume "rows"
    ssh { user "vm" }
    forward host=5432 guest=5432
    provision "shell" { script "one.sh"RERUN }
    provision "shell" { script "two.sh"RERUN }
    provision "shell" { script "three.sh"RERUN }
}
vm "web" {
    image "blank.qcow2"
    backend "noop"
    memory 512
    depends-on "db"
    ssh { user "vm" }
    provision "shell" { script "one.sh"RERUN }
}
vm "cache" { image "other.qcow2"; backend "noop"; ssh { user "vm" }; provision "shell" { script "one.sh"RERUN } }
vm "asleep" { image "blank.qcow2"; backend "noop" }
vm "new" { image "blank.qcow2"; backend "noop"; volume "pages"; state "suspended" }
removed "old"
"#;

/// Names of all machines that any of the files names.
const NAMES: [&str; 6] = ["db", "web", "cache", "asleep", "old", "new"];

/// An apply to disturb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scenario {
    /// Of an empty world.
    Create,
    /// Of what [`Scenario::Create`] made.
    Change,
    /// Of what [`Scenario::Change`] made.
    Destroy,
}

impl Scenario {
    pub(super) const ALL: [Self; 3] = [Self::Create, Self::Change, Self::Destroy];

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Create | Self::Change => &["apply", "--yes"],
            Self::Destroy => &["apply", "--yes", "--destroy", "--volumes"],
        }
    }

    fn goal(self) -> Goal {
        match self {
            Self::Create | Self::Change => Goal::Desired,
            Self::Destroy => Goal::Destroyed,
        }
    }

    fn vmfile(self) -> &'static str {
        match self {
            Self::Create => MADE,
            Self::Change | Self::Destroy => CHANGED,
        }
    }
}

/// What becomes of a provisioning step that was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rerun {
    /// It runs again.
    Safe,
    /// Somebody has to say.
    Ask,
}

/// A world in front of one of the applies, and what comes of it when nothing disturbs it.
pub(super) struct Stage {
    world: World,
    scenario: Scenario,
    before: Saved,
    good_end: End,
    /// Every place that the undisturbed apply passes, in order of the first passage, and how often.
    pub(super) passed: Vec<(String, usize)>,
}

/// What a world has come to.
#[derive(Debug, PartialEq, Eq)]
struct End {
    /// What each machine is recorded to do, by address.
    phases: BTreeMap<String, Value>,
    /// What ran in each machine, in order.
    ran: BTreeMap<&'static str, Vec<String>>,
    /// What each volume says of itself.
    volumes: BTreeMap<PathBuf, String>,
}

impl Stage {
    pub(super) fn new(scenario: Scenario) -> Self {
        Self::with(scenario, Rerun::Safe)
    }

    /// The same with provisioning steps that say something else of being run again.
    pub(super) fn with(scenario: Scenario, rerun: Rerun) -> Self {
        let mut world = World::with_failpoints(0);
        world.blank_image();
        world.blank_disk("other.qcow2", "16M");
        for script in ["one.sh", "two.sh", "three.sh"] {
            world.write(script, &format!("echo {script}\n"));
        }
        for earlier in Scenario::ALL.into_iter().take_while(|earlier| *earlier != scenario) {
            write_vmfile(&world, earlier, rerun);
            world.vmctl(earlier.arguments()).expect(0);
        }
        write_vmfile(&world, scenario, rerun);
        let before = world.save();
        let (ended, trace) = world.traced(scenario.arguments());
        ended.expect(0);
        let mut passed: Vec<(String, usize)> = Vec::new();
        for point in trace {
            match passed.iter_mut().find(|(name, _)| *name == point) {
                Some((_, times)) => *times += 1,
                None => passed.push((point, 1)),
            }
        }
        let good_end = End::of(&world);
        Self { world, scenario, before, good_end, passed }
    }

    /// Puts the world back in front of the apply.
    pub(super) fn rewind(&mut self) {
        self.world.restore(&self.before);
    }

    /// Keeps the world as it is now.
    pub(super) fn save(&self) -> Saved {
        self.world.save()
    }

    /// Puts the world to where it was kept.
    pub(super) fn restore(&mut self, saved: &Saved) {
        self.world.restore(saved);
    }

    /// States of all machines by name.
    pub(super) fn states(&self) -> BTreeMap<String, String> {
        self.world.states()
    }

    /// Runs vmctl undisturbed.
    pub(super) fn vmctl(&self, arguments: &[&str]) -> Ended {
        self.world.vmctl(arguments)
    }

    /// Applies with a fault. A kill that was met ended it.
    pub(super) fn disturbed(&mut self, fault: &str) -> Ended {
        self.world.arm(fault);
        let ended = self.world.vmctl(self.scenario.arguments());
        self.world.unset("VMCTL_FAILPOINT");
        ended
    }

    /// One more apply, undisturbed: all is as if nothing had ever been wrong, and what may have run twice is told.
    pub(super) fn converges(&self, armed: &str, disturbed: &[Ended]) {
        let what: Vec<_> = disturbed.iter().map(Ended::text).collect();
        let what = format!("{armed}\n{}", what.join("----\n"));
        let ended = self.world.vmctl(self.scenario.arguments());
        assert_eq!(ended.status.code(), Some(0), "one more apply after\n{what}----\n{}", ended.text());
        let is_told = ["is unknown", "was cut off", "failed", "panicked"]
            .iter()
            .any(|word| what.contains(word) || ended.text().contains(word));
        let leaks = leaks::leaks(&self.world, self.scenario.goal());
        assert!(leaks.is_empty(), "{}\nafter\n{what}----\n{}", leaks.join("\n"), ended.text());
        let end = End::of(&self.world);
        assert_eq!(end.phases, self.good_end.phases, "after\n{what}");
        assert_eq!(end.volumes, self.good_end.volumes, "after\n{what}");
        for (name, ran) in &self.good_end.ran {
            let found = &end.ran[name];
            let twice = found.len() > ran.len();
            assert!(
                !twice || is_told,
                "I4: steps of `{name}` ran again and nobody said so: {found:?}\n{what}"
            );
            assert_eq!(once(found), once(ran), "I4: steps of `{name}`, after\n{what}");
        }
    }
}

impl End {
    fn of(world: &World) -> Self {
        let ran = NAMES.into_iter().map(|name| (name, leaks::ran(world, "shop", name))).collect();
        // The check for leaks asks whether these are true.
        let snapshot = std::fs::read(world.data().join("projects/shop/snapshot.json")).unwrap();
        let snapshot: Value = serde_json::from_slice(&snapshot).unwrap();
        let records = snapshot["records"].as_object().unwrap().iter();
        let phases = records.map(|(address, record)| (address.clone(), record["phase"].clone())).collect();
        let volumes = std::fs::read_dir(world.data().join("projects/shop/volumes")).unwrap();
        let volumes = volumes.map(|volume| volume.unwrap().path().join("manifest.json"));
        let volumes = volumes.map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect();
        Self { phases, ran, volumes }
    }
}

/// Whether a kill ended it.
pub(super) fn was_killed(ended: &Ended) -> bool {
    ended.status.signal() == Some(9)
}

fn once(ran: &[String]) -> BTreeSet<&String> {
    ran.iter().collect()
}

fn write_vmfile(world: &World, scenario: Scenario, rerun: Rerun) {
    let word = match rerun {
        Rerun::Safe => "; rerun \"safe\"",
        Rerun::Ask => "",
    };
    world.vmfile(&scenario.vmfile().replace("RERUN", word));
}

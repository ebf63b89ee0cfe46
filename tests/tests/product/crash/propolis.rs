//! The same on machines of Propolis, whose server is a fake one, on an illumos that is a script.
//!
//! What is made for a machine is made once, whatever was cut off: a clone, a vnic, a zone, a server. Nothing of it is left
//! when the machine is gone.

use std::collections::BTreeSet;

use vmctl_tests::illumos::Illumos;
use vmctl_tests::leaks::{self, Goal};
use vmctl_tests::world::free_port;
use vmctl_tests::{World, process};

use super::points::{is_of_propolis, listed};
use super::scenario::was_killed;
use crate::propolis::{SERVER, assert_nothing_left, hand_on_documents};

/// A machine's server, and what it stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A file, and no network.
    Plain,
    /// A volume and a vnic.
    Full,
    /// The same in a zone.
    Zoned,
}

const MAKING_PLAIN: [&str; 1] = ["prepare.propolis.disk-drafted"];
const MAKING: [&str; 8] = [
    "prepare.propolis.claimed",
    "prepare.propolis.vnics-made",
    "prepare.propolis.image-made",
    "prepare.propolis.image-written",
    "prepare.propolis.image-kept",
    "prepare.propolis.disk-cloned",
    "prepare.propolis.disk-grown",
    "prepare.propolis.prepared",
];
/// Behind the configuration, and behind the clone.
const MAKING_ZONED: [&str; 2] = ["prepare.propolis.zone-changed", "prepare.propolis.zone-changed@2"];
const LAUNCHING: [&str; 3] = ["start.propolis.noted", "start.propolis.spawned", "start.propolis.answered"];
const LAUNCHING_ZONED: [&str; 2] = ["start.propolis.zone-booted", "start.propolis.zone-serving"];
const RISING: [&str; 6] = [
    "start.propolis.ensured",
    "start.propolis.asked",
    "start.propolis.up",
    "start.propolis.remembered",
    "start.effect.after",
    "ready.propolis.answered",
];
const CHANGING: [&str; 6] = [
    "stop.propolis.fell",
    "stop.propolis.ended",
    "stop.propolis.forgotten",
    "update.propolis.parted",
    "update.propolis.brought",
    "update.effect.after",
];
const DESTROYING: [&str; 3] =
    ["destroy.propolis.vnics-removed", "destroy.propolis.disk-destroyed", "destroy.qemu.disowned"];
/// Behind the halt was no change: the stop did that.
const DESTROYING_ZONED: [&str; 2] = ["destroy.propolis.zone-changed", "destroy.propolis.zone-changed@2"];
const LETTING_GO: [&str; 1] = ["forget.qemu.marked"];

#[test]
fn every_place_of_propolis_is_disturbed() {
    let disturbed: BTreeSet<&str> = [
        &MAKING_PLAIN[..],
        &MAKING,
        &MAKING_ZONED,
        &LAUNCHING,
        &LAUNCHING_ZONED,
        &RISING,
        &CHANGING,
        &DESTROYING,
        &DESTROYING_ZONED,
        &LETTING_GO,
    ]
    .concat()
    .into_iter()
    .collect();
    let missed: Vec<_> = listed()
        .into_iter()
        .filter(|point| is_of_propolis(point) && !disturbed.contains(point.as_str()))
        .collect();
    assert!(missed.is_empty(), "no test disturbs {missed:?}");
}

/// A world on illumos with one machine.
struct Stage {
    world: World,
    host: Illumos,
    kind: Kind,
    port: u16,
}

impl Stage {
    fn new(kind: Kind) -> Self {
        let mut world = World::with_failpoints(0);
        hand_on_documents(&mut world);
        let host = Illumos::of(&mut world);
        let mut sector = vec![7; 512];
        sector[510..].copy_from_slice(&[0x55, 0xAA]);
        std::fs::write(world.project().join("disk.img"), sector).unwrap();
        std::fs::write(world.project().join("rom.fd"), vec![0; 8192]).unwrap();
        let mut stage = Self { world, host, kind, port: free_port() };
        stage.arm("");
        stage.ask(64, "web0");
        stage
    }

    fn arm(&mut self, fault: &str) {
        let zvols = self.host.zvols();
        self.world.arm(&format!("host.zvols=value:{};{fault}", zvols.display()));
    }

    /// Asks for the machine with this memory and this card.
    fn ask(&self, memory: usize, card: &str) {
        let rom = self.world.project().join("rom.fd");
        let server = format!("binary \"{SERVER}\"; bootrom \"{}\"", rom.display());
        let stands_on = match self.kind {
            Kind::Plain => String::new(),
            Kind::Full | Kind::Zoned => "; pool \"rpool/vms\"; vnic-link \"igb0\"".to_owned(),
        };
        let zone = match self.kind {
            Kind::Plain | Kind::Full => String::new(),
            Kind::Zoned => {
                format!("; zone \"propolis\" link=\"stub0\" address=\"127.0.0.1/8\" port={}", self.port)
            }
        };
        let network = match self.kind {
            Kind::Plain => "\"none\"".to_owned(),
            Kind::Full | Kind::Zoned => format!("\"vnic\" name=\"{card}\""),
        };
        self.world.vmfile(&format!(
            "vm \"web\" {{\n image \"disk.img\"; disk \"2M\"; memory {memory}; network {network}\n \
             backend \"propolis\" {{ {server}{stands_on}{zone} }}\n ready {{ log \"login:\" }}\n}}\n"
        ));
    }

    /// Applies, and is killed at `point`.
    fn kill_at(&mut self, arguments: &[&str], point: &str) {
        self.disturb(arguments, point, "kill");
    }

    /// Applies with a fault, which must be met.
    fn disturb(&mut self, arguments: &[&str], point: &str, fault: &str) {
        let armed = if point.contains('@') { point.to_owned() } else { format!("{point}@1") };
        self.arm(&format!("{armed}={fault}"));
        let ended = self.world.vmctl(arguments);
        self.arm("");
        let is_met = if fault == "kill" { was_killed(&ended) } else { ended.status.code() == Some(5) };
        assert!(is_met, "{point}={fault}: {}\n{}", ended.status, ended.text());
    }

    /// One more apply: it goes well, and the world is whole.
    fn converges(&self, after: &str) {
        let ended = self.world.vmctl(&["apply", "--yes"]);
        assert_eq!(ended.status.code(), Some(0), "one more apply after {after}\n{}", ended.text());
        let leaks = leaks::leaks(&self.world, Goal::Desired);
        assert!(leaks.is_empty(), "after {after}:\n{}", leaks.join("\n"));
        assert_eq!(self.servers().len(), 1, "after {after}");
        assert_eq!(self.world.vm("web")["damage"], serde_json::json!([]), "after {after}");
    }

    fn destroy(&self, after: &str) {
        self.world.vmctl(&["apply", "--yes", "--destroy"]).expect(0);
        assert_eq!(leaks::leaks(&self.world, Goal::Destroyed), [""; 0], "after {after}");
        assert_nothing_left(&self.world);
        assert_eq!(self.host.left(), [""; 0], "after {after}");
    }

    /// The servers that run.
    fn servers(&self) -> Vec<u32> {
        let all = process::naming(self.world.folder()).into_iter();
        all.filter(|process| process.command.contains("rom.fd")).map(|process| process.pid).collect()
    }

    /// How often a command was carried out since `from`.
    fn count(&self, from: usize, word: &str) -> usize {
        self.host.deeds()[from..].iter().filter(|deed| deed.contains(word)).count()
    }

    /// What was made for one machine since `from`, each thing once.
    fn made_once(&self, from: usize, after: &str) {
        let made = |word| self.count(from, word);
        let zones = usize::from(self.kind == Kind::Zoned);
        let parts = usize::from(self.kind != Kind::Plain);
        assert_eq!(made("zfs clone"), parts, "after {after}");
        assert_eq!(made("dladm create-vnic"), parts + zones, "after {after}");
        assert_eq!((made("zonecfg"), made(" clone propolis")), (zones, zones), "after {after}");
    }
}

fn disturb_making(kind: Kind, points: &[&str]) {
    let mut stage = Stage::new(kind);
    for point in points {
        let from = stage.host.deeds().len();
        // An image that is there is not written again.
        if point.contains("image-") {
            stage.host.forget_images();
        }
        stage.kill_at(&["apply", "--yes"], point);
        let launched = stage.servers();
        assert!(launched.len() <= 1, "{point}: {launched:?}");
        stage.converges(point);
        stage.made_once(from, point);
        // A server that was launched is taken up; the one in a zone that nobody saw answer goes with its boot.
        let taken_up = kind != Kind::Zoned || !point.contains("zone-serving");
        assert!(!taken_up || launched.is_empty() || launched == stage.servers(), "{point}: started again");
        stage.destroy(point);
    }
}

#[test]
fn machine_on_a_file_is_finished() {
    disturb_making(Kind::Plain, &MAKING_PLAIN);
}

#[test]
fn machine_on_a_volume_and_a_vnic_is_finished() {
    disturb_making(Kind::Full, &[&MAKING[..], &LAUNCHING, &RISING].concat());
}

#[test]
fn machine_in_a_zone_is_finished() {
    disturb_making(Kind::Zoned, &[&MAKING_ZONED[..], &LAUNCHING_ZONED, &RISING].concat());
}

/// A step that fails leaves nothing behind that the next one stumbles over.
#[test]
fn machine_whose_start_fails_is_started() {
    for (kind, launching) in [(Kind::Full, &LAUNCHING[..]), (Kind::Zoned, &LAUNCHING_ZONED)] {
        let mut stage = Stage::new(kind);
        for point in [launching, &RISING[..4]].concat() {
            let from = stage.host.deeds().len();
            stage.disturb(&["apply", "--yes"], point, "enospc");
            assert!(stage.servers().len() <= 1, "{point}");
            stage.converges(point);
            stage.made_once(from, point);
            stage.destroy(point);
        }
    }
}

#[test]
fn machine_half_changed_is_changed() {
    for kind in [Kind::Full, Kind::Zoned] {
        let mut stage = Stage::new(kind);
        stage.world.vmctl(&["apply", "--yes"]).expect(0);
        for (number, point) in CHANGING.iter().enumerate() {
            let card = format!("web{}", number + 1);
            stage.ask(72 + number, &card);
            stage.kill_at(&["apply", "--yes"], point);
            stage.converges(point);
            let vnics: Vec<_> =
                stage.host.left().into_iter().filter(|name| name.starts_with("web")).collect();
            assert_eq!(vnics, [card], "{point}");
        }
        stage.destroy("changes");
    }
}

#[test]
fn machine_half_destroyed_is_destroyed() {
    for (kind, points) in [
        (Kind::Full, [&["stop.propolis.fell", "stop.propolis.ended"][..], &DESTROYING].concat()),
        (Kind::Zoned, [&["stop.propolis.fell"][..], &DESTROYING, &DESTROYING_ZONED].concat()),
    ] {
        let mut stage = Stage::new(kind);
        for point in points {
            stage.world.vmctl(&["apply", "--yes"]).expect(0);
            stage.kill_at(&["apply", "--yes", "--destroy"], point);
            stage.destroy(point);
        }
    }
}

#[test]
fn machine_half_let_go_of_is_let_go_of_and_runs_on() {
    let mut stage = Stage::new(Kind::Full);
    stage.world.vmctl(&["apply", "--yes"]).expect(0);
    let servers = stage.servers();
    stage.world.vmfile("removed \"web\"");
    for point in LETTING_GO {
        stage.kill_at(&["apply", "--yes"], point);
    }
    stage.world.vmctl(&["apply", "--yes"]).expect(0);
    assert_eq!(stage.servers(), servers);
    servers.into_iter().for_each(process::kill);
}

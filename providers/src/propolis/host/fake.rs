//! A host that keeps volumes and vnics as illumos does, in memory, and can be told to fail.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use super::{Command, Runner};
use crate::error::{Error, Result};
use crate::process;
use crate::spec::MacAddr;

#[derive(Debug, Default)]
struct World {
    /// Size and marks, by name; snapshots as well.
    volumes: BTreeMap<String, (u64, BTreeMap<String, String>)>,
    vnics: Vec<(String, String, MacAddr)>,
    neighbours: String,
    failures: BTreeMap<String, String>,
    deeds: Vec<String>,
    /// State and what zonecfg was told, by name.
    zones: BTreeMap<String, (String, String)>,
}

/// What is done when a zone halts: its server goes, and what that had.
type AtHalt = Arc<Mutex<Option<Box<dyn Fn() + Send>>>>;

/// The host; clones are the same one.
#[derive(Clone, Default)]
pub(in crate::propolis) struct FakeHost {
    devices: Option<PathBuf>,
    world: Arc<Mutex<World>>,
    at_halt: AtHalt,
}

impl std::fmt::Debug for FakeHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.world.fmt(f)
    }
}

impl FakeHost {
    /// One that has a file for each volume in `devices`.
    pub(in crate::propolis) fn with_devices(devices: PathBuf) -> Self {
        Self { devices: Some(devices), ..Self::default() }
    }

    fn world<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        look(&mut self.world.lock().unwrap())
    }

    /// The commands that changed something, oldest first.
    pub(in crate::propolis) fn deeds(&self) -> Vec<String> {
        self.world(|world| world.deeds.clone())
    }

    pub(in crate::propolis) fn clear(&self) {
        self.world(|world| *world = World::default());
    }

    /// Adds a vnic, in place of one of that name.
    pub(in crate::propolis) fn add_vnic(&self, name: &str, over: &str, mac: MacAddr) {
        self.world(|world| {
            world.vnics.retain(|vnic| vnic.0 != name);
            world.vnics.push((name.to_owned(), over.to_owned(), mac));
        });
    }

    pub(in crate::propolis) fn add_volume(&self, name: &str, bytes: u64, mark: Option<&str>) {
        let marks = mark.into_iter().filter_map(|mark| mark.split_once('=')).map(owned).collect();
        self.world(|world| world.volumes.insert(name.to_owned(), (bytes, marks)));
    }

    /// Adds a zone, in place of one of that name; `script` is what zonecfg was told.
    pub(in crate::propolis) fn add_zone(&self, name: &str, state: &str, script: &str) {
        let zone = (state.to_owned(), script.to_owned());
        self.world(|world| world.zones.insert(name.to_owned(), zone));
    }

    /// The state of a zone, and what zonecfg was told.
    pub(in crate::propolis) fn zone(&self, name: &str) -> Option<(String, String)> {
        self.world(|world| world.zones.get(name).cloned())
    }

    /// Does something whenever a zone halts.
    pub(in crate::propolis) fn at_halt(&self, deed: impl Fn() + Send + 'static) {
        *self.at_halt.lock().unwrap() = Some(Box::new(deed));
    }

    pub(in crate::propolis) fn set_neighbours(&self, table: &str) {
        self.world(|world| world.neighbours = table.to_owned());
    }

    /// Lets commands that begin with `beginning` fail with `stderr`; an empty one heals them.
    pub(in crate::propolis) fn fail(&self, beginning: &str, stderr: &str) {
        self.world(|world| world.failures.insert(beginning.to_owned(), stderr.to_owned()));
    }

    /// What somebody does beside vmctl; `dladm delete-vnic NAME` is all that is known of that.
    pub(in crate::propolis) fn run_by_hand(&self, line: &str) {
        let name = line.strip_prefix("dladm delete-vnic ").unwrap();
        self.world(|world| world.vnics.retain(|vnic| vnic.0 != name));
    }

    fn make_device(&self, name: &str, bytes: u64) {
        if let Some(devices) = &self.devices {
            let path = devices.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::File::create(path).unwrap().set_len(bytes).unwrap();
        }
    }

    fn answer(&self, command: &Command) -> Result<String> {
        let line = process::quote(command.program.name, &command.args);
        let failed = |stderr: &str| {
            let (command, stderr) = (line.clone(), stderr.to_owned());
            Err(Error::Command(process::CommandError { command, status: "exit code 1".to_owned(), stderr }))
        };
        let mut world = self.world.lock().unwrap();
        let failure = world
            .failures
            .iter()
            .find(|(beginning, stderr)| line.starts_with(*beginning) && !stderr.is_empty());
        if let Some((_, stderr)) = failure {
            return failed(stderr);
        }
        let args: Vec<&str> = command.args.iter().map(String::as_str).collect();
        let mut output = String::new();
        match (command.program.name, &args[..]) {
            ("zfs", ["list", .., pool]) => {
                for (name, (bytes, marks)) in &world.volumes {
                    // A snapshot has what its volume has.
                    let owner = name.split('@').next().unwrap_or_default();
                    let marks = world.volumes.get(owner).map_or(marks, |(_, marks)| marks);
                    let mark = |name: &str| marks.get(name).map_or("-", String::as_str);
                    if name.starts_with(&format!("{pool}/")) {
                        output +=
                            &format!("{name}\t{bytes}\t{}\t{}\n", mark("vmctl:id"), mark("vmctl:image"));
                    }
                }
                return Ok(output);
            }
            ("dladm", ["show-vnic", ..]) => {
                for (name, over, mac) in &world.vnics {
                    let mac = mac.0.map(|byte| format!("{byte:x}")).join("\\:");
                    output += &format!("{name}:{over}:{mac}\n");
                }
                return Ok(output);
            }
            ("zoneadm", ["list", ..]) => {
                output = "0:global:running:/::ipkg:shared\n".to_owned();
                for (name, (state, _)) in &world.zones {
                    output += &format!("-:{name}:{state}:/zones/{name}::lipkg:excl\n");
                }
                return Ok(output);
            }
            ("zonecfg", ["-z", name, "info", "attr"]) => {
                let Some((_, script)) = world.zones.get(*name) else {
                    return failed("No such zone configured");
                };
                for attribute in script.split("add attr; set name=").skip(1) {
                    let (key, rest) = attribute.split_once(';').unwrap();
                    let value = rest.split('"').nth(1).unwrap();
                    output += &format!("attr:\n\tname: {key}\n\ttype: string\n\tvalue: \"{value}\"\n");
                }
                return Ok(output);
            }
            ("zonecfg", ["-z", name, "delete", "-F"]) => match world.zones.get(*name) {
                Some((state, _)) if state == "configured" => drop(world.zones.remove(*name)),
                _ => return failed("the zone is installed, or not configured"),
            },
            ("zonecfg", ["-z", name, script]) => {
                if world
                    .zones
                    .insert((*name).to_owned(), ("configured".to_owned(), (*script).to_owned()))
                    .is_some()
                {
                    return failed("zone already configured");
                }
            }
            ("zoneadm", ["-z", name, verb, ..]) => {
                let (from, to) = match *verb {
                    "clone" => ("configured", "installed"),
                    "boot" => ("installed", "running"),
                    "halt" => ("running", "installed"),
                    "uninstall" => ("installed incomplete", "configured"),
                    other => panic!("zoneadm has no {other}"),
                };
                match world.zones.get_mut(*name) {
                    Some((state, _)) if from.contains(state.as_str()) => to.clone_into(state),
                    _ => return failed("the zone is in another state"),
                }
                if let ("halt", Some(deed)) = (*verb, &*self.at_halt.lock().unwrap()) {
                    deed();
                }
            }
            ("zlogin", [name, _]) => match world.zones.get(*name) {
                Some((state, _)) if state == "running" => {}
                _ => return failed("zone is not running"),
            },
            ("arp", _) => return Ok(world.neighbours.clone()),
            ("zfs", ["create", "-V", bytes, "-o", mark, name]) => {
                let bytes = bytes.parse().unwrap();
                let marks = mark.split_once('=').into_iter().map(owned).collect();
                if world.volumes.insert((*name).to_owned(), (bytes, marks)).is_some() {
                    return failed("dataset already exists");
                }
                self.make_device(name, bytes);
            }
            ("zfs", ["snapshot", name]) => {
                let of = name.split('@').next().unwrap_or_default();
                let Some(volume) = world.volumes.get(of).cloned() else { return failed("no such dataset") };
                world.volumes.insert((*name).to_owned(), volume);
            }
            ("zfs", ["clone", "-o", mark, snapshot, name]) => {
                let Some((bytes, _)) = world.volumes.get(*snapshot).cloned() else {
                    return failed("no such dataset");
                };
                let marks = mark.split_once('=').into_iter().map(owned).collect();
                world.volumes.insert((*name).to_owned(), (bytes, marks));
                self.make_device(name, bytes);
            }
            ("zfs", ["set", size, name]) => {
                let bytes = size.strip_prefix("volsize=").unwrap().parse().unwrap();
                match world.volumes.get_mut(*name) {
                    Some(volume) => volume.0 = bytes,
                    None => return failed("no such dataset"),
                }
            }
            ("zfs", ["destroy", name]) => {
                if world.volumes.remove(*name).is_none() {
                    return failed("dataset does not exist");
                }
            }
            ("dladm", ["create-vnic", "-t", "-l", over, "-m", mac, name]) => {
                let mac = super::vnics::mac_of(mac).unwrap();
                if world.vnics.iter().any(|vnic| vnic.0 == *name) {
                    return failed("object already exists");
                }
                world.vnics.push(((*name).to_owned(), (*over).to_owned(), mac));
            }
            ("dladm", ["delete-vnic", name]) => world.vnics.retain(|vnic| vnic.0 != *name),
            ("bhyvectl", _) => {}
            other => panic!("the fake host does not know {other:?}"),
        }
        world.deeds.push(line.clone());
        Ok(output)
    }
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

impl Runner for FakeHost {
    fn run<'a>(&'a self, command: &'a Command) -> Pin<Box<dyn Future<Output = Result<String>> + Send + 'a>> {
        let answer = self.answer(command);
        Box::pin(std::future::ready(answer))
    }

    fn check(&self, _command: &Command) -> Result<()> {
        Ok(())
    }
}

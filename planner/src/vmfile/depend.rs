//! `depends-on`: which machines come first, checked between the machines of one file.

use std::collections::{BTreeMap, HashMap};

use vmctl_providers::Name;

use super::ast::{Node, Spanned};
use super::fields::{Fields, Parts, shorten};
use super::grammar::{DEPENDS_ON, UNTIL};
use super::report::Fault;
use super::suggest::nearest;
use super::typed::{Dependency, File, Vm};
use crate::desired::{Power, Until};

/// Pairs of machines of which one waits for the other. A thousand that wait for a thousand each are as many.
const MAX_DEPENDENCIES: usize = 1_000_000;

/// Edges of a cycle that get a label of their own; the message always shows the whole cycle.
const LABELLED_EDGES: usize = 12;

impl Fields {
    pub(super) fn depends_on(&mut self, node: &Node) -> Vec<Dependency> {
        let parts = Parts::of(node);
        let until = parts
            .prop("until")
            .and_then(|value| self.text("until", value, DEPENDS_ON.usage))
            .and_then(|text| self.choice("condition", &text, &UNTIL))
            .map_or(Until::Provisioned, |until| until.value);
        let names = self.texts(node, &DEPENDS_ON).into_iter();
        names.map(|name| Dependency { name, until }).collect()
    }
}

/// The dependencies of each machine of `file`, in its order, and everything that is wrong with them.
pub(super) fn resolve(file: &File) -> (Vec<BTreeMap<Name, Until>>, Vec<Fault>) {
    let by_name: HashMap<&str, usize> =
        file.vms.iter().enumerate().map(|(index, vm)| (vm.name.value.as_str(), index)).collect();
    let mut faults = Vec::new();
    let mut resolved = Vec::new();
    let mut edges = Vec::new();
    let mut total = 0;
    for vm in &file.vms {
        let mut names = BTreeMap::new();
        let mut targets = Vec::new();
        let mut first: HashMap<&str, &Dependency> = HashMap::new();
        for dependency in &vm.depends_on {
            let name = dependency.name.value.as_str();
            if let Some(earlier) = first.insert(name, dependency) {
                faults.push(
                    Fault::error(
                        "vmfile::duplicate",
                        format!("`{}` depends on `{name}` twice", vm.name.value),
                    )
                    .at(dependency.name.span, "again here")
                    .at(earlier.name.span, "first here")
                    .help("keep one of them"),
                );
                continue;
            }
            let meant = meant(file, name);
            total += meant.len();
            if total > MAX_DEPENDENCIES {
                faults.push(
                    Fault::error(
                        "vmfile::too-big",
                        format!("machines wait for each other in more than {MAX_DEPENDENCIES} ways"),
                    )
                    .at(dependency.name.span, "each waits for all of these")
                    .help("let them wait for one machine that waits for all of these"),
                );
                return (Vec::new(), faults);
            }
            if meant.contains(&vm.name.value.as_str()) {
                faults.push(itself(dependency));
                continue;
            }
            for name in meant {
                match by_name.get(name) {
                    Some(&target) => {
                        faults.extend(never_up(&file.vms[target], dependency));
                        names.insert(file.vms[target].name.value.clone(), dependency.until);
                        targets.push((target, &dependency.name));
                    }
                    // A machine that is written but could not be decoded has faults of its own already.
                    None if file.declared.iter().any(|declared| declared.value == name) => {}
                    None => faults.push(unknown(file, &dependency.name)),
                }
            }
        }
        resolved.push(names);
        edges.push(targets);
    }
    faults.extend(cycle(file, &edges));
    (resolved, faults)
}

/// A machine that waits for itself, or for all machines of its own `vm`.
fn itself(dependency: &Dependency) -> Fault {
    let name = &dependency.name.value;
    Fault::error("vmfile::cycle", format!("`{name}` depends on itself"))
        .at(dependency.name.span, "this machine")
        .help("remove it")
}

/// The machines that `name` means: itself, or all that a `vm` with a count stands for.
fn meant<'f>(file: &'f File, name: &'f str) -> Vec<&'f str> {
    match file.groups.get(name) {
        Some(members) => members.iter().map(Name::as_str).collect(),
        None => vec![name],
    }
}

fn unknown(file: &File, name: &Spanned<String>) -> Fault {
    let known = file.declared.iter().map(|declared| declared.value.as_str());
    let help = match nearest(&name.value, known.chain(file.groups.keys().map(String::as_str))) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "name a machine of this file".to_owned(),
    };
    Fault::error("vmfile::dependency", format!("there is no machine `{}`", shorten(&name.value)))
        .at(name.span, "not known")
        .help(help)
}

fn never_up(target: &Vm, dependency: &Dependency) -> Option<Fault> {
    let power = target.power.as_ref().filter(|power| power.value == Power::Stopped)?;
    let name = &target.name.value;
    Some(
        Fault::error("vmfile::dependency", format!("`{name}` is to be stopped, so nothing can wait for it"))
            .at(dependency.name.span, "waits for it")
            .at(power.span, "it never starts")
            .help(format!("remove the dependency, or let `{name}` run")),
    )
}

/// The first cycle, whole. One is enough: each edit of the edges changes all others.
fn cycle(file: &File, edges: &[Vec<(usize, &Spanned<String>)>]) -> Option<Fault> {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        No,
        OnPath,
        Done,
    }
    let mut seen = vec![Seen::No; edges.len()];
    for root in 0..edges.len() {
        if seen[root] != Seen::No {
            continue;
        }
        // The path from the root, each with the number of its next edge. A loop, as chains may be long.
        let mut path = vec![(root, 0)];
        seen[root] = Seen::OnPath;
        while let Some((node, next)) = path.last_mut() {
            let node = *node;
            let Some((target, _)) = edges[node].get(*next).copied() else {
                seen[node] = Seen::Done;
                path.pop();
                continue;
            };
            *next += 1;
            match seen[target] {
                Seen::Done => {}
                Seen::No => {
                    seen[target] = Seen::OnPath;
                    path.push((target, 0));
                }
                Seen::OnPath => {
                    let start = path.iter().position(|(node, _)| *node == target).unwrap_or(0);
                    let members = &path[start..];
                    let names: Vec<_> =
                        members.iter().map(|(node, _)| file.vms[*node].name.value.as_str()).collect();
                    let message =
                        format!("machines wait for each other: {} -> {}", names.join(" -> "), names[0]);
                    let mut fault = Fault::error("vmfile::cycle", message)
                        .help("remove one of these `depends-on`, so that one machine can start first");
                    for (node, next) in members.iter().take(LABELLED_EDGES) {
                        let (target, name) = edges[*node][*next - 1];
                        let (from, to) = (&file.vms[*node].name.value, &file.vms[target].name.value);
                        fault.add_label(name.span, format!("{from} waits for {to}"));
                    }
                    return Some(fault);
                }
            }
        }
    }
    None
}

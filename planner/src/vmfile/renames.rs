//! `moved` and `removed`: machines that get another name, and machines that are let go of.

use std::collections::{BTreeSet, HashMap, HashSet};

use miette::SourceSpan;
use vmctl_providers::Name;

use super::ast::{Node, Spanned};
use super::fields::{Fields, Parts};
use super::grammar::{MOVED, REMOVED};
use super::report::Fault;
use super::suggest::nearest;
use super::typed::{File, Moved};
use crate::desired::Move;

/// Renames of a cycle that get a label of their own; the message always shows the whole cycle.
const LABELLED_MOVES: usize = 12;

/// How plans begin the address of a machine; names hardly ever do.
const ADDRESS: &str = "vm.";

impl Fields {
    /// Reads a `removed` node.
    pub(super) fn removed(&mut self, node: &Node) -> Option<Spanned<Name>> {
        let text = self.leaf_text(node, &REMOVED)?;
        self.name("machine", text)
    }

    /// Reads a `moved` node.
    pub(super) fn moved(&mut self, node: &Node) -> Option<Moved> {
        let parts = Parts::of(node);
        let mut end = |which: &str| match parts.prop(which) {
            Some(value) => {
                let text = self.text(which, value, MOVED.usage)?;
                self.name("machine", text)
            }
            None if !parts.sound => None,
            None => {
                self.tell(
                    Fault::error("vmfile::missing", format!("`moved` has no `{which}`"))
                        .at(node.name.span, format!("needs `{which}`"))
                        .help(format!("write {}", MOVED.usage)),
                );
                None
            }
        };
        let (from, to) = (end("from"), end("to"));
        Some(Moved { from: from?, to: to? })
    }
}

/// The renames of `file` in its order, the machines that it lets go of, and everything that is wrong with them.
pub(super) fn resolve(file: &File) -> (Vec<Move>, BTreeSet<Name>, Vec<Fault>) {
    let mut checker = Checker::of(file);
    checker.removed();
    let in_cycles = checker.cycles();
    checker.moved(&in_cycles);
    let moved =
        file.moved.iter().map(|moved| Move { from: moved.from.value.clone(), to: moved.to.value.clone() });
    let removed = file.removed.iter().map(|name| name.value.clone());
    (moved.collect(), removed.collect(), checker.faults)
}

/// Looks for contradictions between `vm`, `moved` and `removed`.
struct Checker<'f> {
    file: &'f File,
    described: HashMap<&'f str, SourceSpan>,
    /// The first rename of each name.
    from: HashMap<&'f str, &'f Moved>,
    /// The first rename to each name.
    to: HashMap<&'f str, &'f Moved>,
    faults: Vec<Fault>,
}

impl<'f> Checker<'f> {
    fn of(file: &'f File) -> Self {
        // Collected backwards, so that the first of several remains.
        let described = file.declared.iter().rev().map(|name| (name.value.as_str(), name.span)).collect();
        let from = file.moved.iter().rev().map(|moved| (moved.from.value.as_str(), moved)).collect();
        let to = file.moved.iter().rev().map(|moved| (moved.to.value.as_str(), moved)).collect();
        Self { file, described, from, to, faults: Vec::new() }
    }

    fn removed(&mut self) {
        let mut first: HashMap<&str, SourceSpan> = HashMap::new();
        for name in &self.file.removed {
            let (text, span) = (name.value.as_str(), name.span);
            if let Some(earlier) = first.get(text) {
                self.faults.push(twice(
                    format!("`{text}` is removed twice"),
                    span,
                    *earlier,
                    "keep one of them",
                ));
                continue;
            }
            first.insert(text, span);
            if let Some(described) = self.described.get(text) {
                self.faults.push(
                    Fault::error("vmfile::removed", format!("`{text}` is removed and still described"))
                        .at(span, "let go of here")
                        .at(*described, "described here")
                        .help("take the `vm` block out to let the machine go, or this node to keep it"),
                );
            }
            if let Some(moved) = self.from.get(text) {
                self.faults.push(
                    Fault::error("vmfile::removed", format!("`{text}` is removed and renamed"))
                        .at(span, "let go of here")
                        .at(moved.from.span, "renamed here")
                        .help("keep one of them"),
                );
            }
            self.faults.extend(address(name));
        }
    }

    /// Tells the cycles; returns the names in them.
    fn cycles(&mut self) -> HashSet<&'f str> {
        let mut seen: HashSet<&str> = HashSet::new();
        let mut members = HashSet::new();
        for start in &self.file.moved {
            let mut path: Vec<&Moved> = Vec::new();
            let mut next = self.from.get(start.from.value.as_str());
            while let Some(moved) = next {
                if !seen.insert(moved.from.value.as_str()) {
                    if let Some(at) = path.iter().position(|earlier| earlier.from == moved.from) {
                        members.extend(path[at..].iter().map(|moved| moved.from.value.as_str()));
                        self.faults.push(cycle(&path[at..]));
                    }
                    break;
                }
                path.push(moved);
                next = self.from.get(moved.to.value.as_str());
            }
        }
        members
    }

    fn moved(&mut self, in_cycles: &HashSet<&str>) {
        for moved in &self.file.moved {
            let (from, to) = (moved.from.value.as_str(), moved.to.value.as_str());
            let other = |first: &&'f Moved| !std::ptr::eq(*first, moved);
            if let Some(first) = self.from.get(from).copied().filter(other) {
                let help = "a machine has one new name; keep one of them";
                let message = format!("`{from}` is renamed twice");
                self.faults.push(twice(message, moved.from.span, first.from.span, help));
                continue;
            }
            if let Some(first) = self.to.get(to).copied().filter(other) {
                let help = "two machines cannot have one name; keep one of them";
                let message = format!("two machines are renamed to `{to}`");
                self.faults.push(twice(message, moved.to.span, first.to.span, help));
            }
            if !in_cycles.contains(from) {
                let fault = self.ends(moved);
                self.faults.extend(fault);
            }
            self.faults.extend(address(&moved.from));
        }
    }

    /// What is wrong with the two names of a rename, if anything: the new one is described, the old one is not.
    fn ends(&self, moved: &Moved) -> Option<Fault> {
        let (from, to) = (moved.from.value.as_str(), moved.to.value.as_str());
        let known = self.described.contains_key(to) || self.from.contains_key(to);
        if let Some(described) = self.described.get(from) {
            let help = if known {
                format!("take the block `vm \"{from}\"` out, or this node")
            } else {
                format!("name its block `vm \"{to}\"`; `from` is the old name, `to` the new one")
            };
            return Some(
                Fault::error("vmfile::moved", format!("`{from}` is renamed and still described"))
                    .at(moved.from.span, "renamed here")
                    .at(*described, "described here")
                    .help(help),
            );
        }
        if known {
            return None;
        }
        let meant = to.strip_prefix(ADDRESS).filter(|name| self.described.contains_key(name));
        let help = match meant.or_else(|| nearest(to, self.described.keys().copied())) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("`to` names a machine of this file: describe `vm \"{to}\"`"),
        };
        Some(
            Fault::error("vmfile::moved", format!("`{from}` is renamed to `{to}`, which is not described"))
                .at(moved.to.span, "not known")
                .help(help),
        )
    }
}

/// A warning where a name looks like an address, as plans show it.
fn address(name: &Spanned<Name>) -> Option<Fault> {
    let text = name.value.as_str();
    let bare = text.strip_prefix(ADDRESS).filter(|bare| !bare.is_empty())?;
    Some(
        Fault::warning(
            "vmfile::bad-name",
            format!("this means a machine of the name `{text}`, not `{bare}`"),
        )
        .at(name.span, "looks like an address")
        .help(format!("write the name alone: `{bare}`")),
    )
}

fn twice(message: String, again: SourceSpan, first: SourceSpan, help: &str) -> Fault {
    Fault::error("vmfile::duplicate", message).at(again, "again here").at(first, "first here").help(help)
}

/// `members` rename each other in turn.
fn cycle(members: &[&Moved]) -> Fault {
    if let [own] = members {
        return Fault::error("vmfile::cycle", format!("`{}` is renamed to itself", own.from.value))
            .at(own.to.span, "the same name")
            .help("`from` is the old name, `to` the new one; remove the node if nothing is renamed");
    }
    let names: Vec<_> = members.iter().map(|moved| moved.from.value.as_str()).collect();
    let message = format!("machines take each other's names: {} -> {}", names.join(" -> "), names[0]);
    let mut fault = Fault::error("vmfile::cycle", message)
        .help("rename one of them to a name that is free, apply, and rename it again then");
    for moved in members.iter().take(LABELLED_MOVES) {
        fault.add_label(moved.to.span, format!("{} becomes {}", moved.from.value, moved.to.value));
    }
    fault
}

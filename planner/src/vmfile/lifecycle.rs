//! `lifecycle`: what may and may not become of a machine.

use std::collections::{BTreeMap, HashMap, HashSet};

use miette::SourceSpan;
use vmctl_providers::Name;

use super::ast::{Node, Spanned};
use super::fields::{Fields, Parts, shorten};
use super::grammar::{IGNORE_CHANGES, PREVENT_DESTROY, REPLACE_WHEN, Shape};
use super::report::Fault;
use super::suggest::{list, nearest};
use super::typed::{File, Lifecycle, Vm};
use crate::desired::{self, Trigger};
use crate::fields::{ALL, PROVISION, names};

/// How another machine is written in `replace-when`.
const MACHINE: &str = "vm.";

impl Fields {
    /// Reads a `lifecycle` block.
    pub(super) fn lifecycle(&mut self, node: &Node) -> Lifecycle {
        let parts = Parts::of(node);
        let prevent_destroy =
            parts.child("prevent-destroy").is_some_and(|node| self.flag(node, &PREVENT_DESTROY));
        let mut ignore_changes = self.words(&parts, "ignore-changes", &IGNORE_CHANGES);
        let known = names();
        ignore_changes.retain(|word| {
            let found = known.contains(&word.value.as_str());
            if !found {
                self.tell(not_a_field(word, &known));
            }
            found
        });
        let replace_when = self.words(&parts, "replace-when", &REPLACE_WHEN);
        Lifecycle { prevent_destroy, ignore_changes, replace_when }
    }

    /// All values of all nodes `name`, each once.
    fn words(&mut self, parts: &Parts<'_>, name: &str, shape: &Shape) -> Vec<Spanned<String>> {
        let mut first: HashMap<String, SourceSpan> = HashMap::new();
        let mut words = Vec::new();
        for node in parts.children(name) {
            let parts = Parts::of(node);
            self.only_value(&parts, shape);
            for value in parts.args {
                let Some(word) = self.text(name, value, shape.usage) else { continue };
                match first.get(&word.value) {
                    Some(earlier) => self.tell(
                        Fault::error(
                            "vmfile::duplicate",
                            format!("`{name}` names `{}` twice", shorten(&word.value)),
                        )
                        .at(word.span, "again here")
                        .at(*earlier, "first here")
                        .help("keep one of them"),
                    ),
                    None => {
                        first.insert(word.value.clone(), word.span);
                        words.push(word);
                    }
                }
            }
        }
        words
    }
}

/// What `ignore-changes` says of a word that is no field.
fn not_a_field(word: &Spanned<String>, known: &[&'static str]) -> Fault {
    let help = if word.value.starts_with(MACHINE) {
        "`ignore-changes` names fields of this machine; another machine can stand in `replace-when`"
            .to_owned()
    } else {
        field_help(&word.value, known)
    };
    unknown_field(word, help)
}

fn unknown_field(word: &Spanned<String>, help: String) -> Fault {
    Fault::error("vmfile::bad-value", format!("there is no field `{}`", shorten(&word.value)))
        .at(word.span, "not known")
        .help(help)
}

/// Help for a word that is no field: the field it belongs to, the nearest one, else all.
fn field_help(word: &str, known: &[&'static str]) -> String {
    match meant(word, known) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("known here: {}", list(known, "and")),
    }
}

/// The field that `word` belongs to, or is most likely a misspelling of.
fn meant(word: &str, known: &[&'static str]) -> Option<&'static str> {
    match word {
        "image-url" => Some("image"),
        "hostname" => Some("cloud-init.hostname"),
        "ssh-key" => Some("cloud-init.ssh-key"),
        "user-data" => Some("cloud-init.user-data"),
        "user" => Some("cloud-init.user"),
        "private-key" => Some("ssh"),
        "inline" | "script" | "source" | "destination" => Some(PROVISION),
        "lifecycle" | "ready" | "check" => None,
        _ => nearest(word, known.iter().copied()),
    }
}

/// What is asked of each machine of `file`, in its order, and everything that is wrong with it.
pub(super) fn resolve(file: &File) -> (Vec<desired::Lifecycle>, Vec<Fault>) {
    let triggers = Triggers::of(file);
    let mut faults = Vec::new();
    let resolved = file.vms.iter().map(|vm| {
        let Some(written) = &vm.lifecycle else { return desired::Lifecycle::default() };
        faults.extend(contradictions(written));
        let replace_when = written.replace_when.iter().flat_map(|word| {
            triggers.read(vm, word).unwrap_or_else(|fault| {
                faults.push(fault);
                Vec::new()
            })
        });
        desired::Lifecycle {
            prevent_destroy: written.prevent_destroy,
            replace_when: replace_when.collect(),
            ignore_changes: written.ignore_changes.iter().map(|word| word.value.clone()).collect(),
        }
    });
    (resolved.collect(), faults)
}

/// What can stand in `replace-when`.
struct Triggers<'f> {
    fields: Vec<&'static str>,
    machines: HashSet<&'f str>,
    groups: &'f BTreeMap<String, Vec<Name>>,
}

impl<'f> Triggers<'f> {
    fn of(file: &'f File) -> Self {
        let machines = file.declared.iter().map(|declared| declared.value.as_str()).collect();
        Self { fields: names(), machines, groups: &file.groups }
    }

    /// What `word` means; nothing for a machine that could not be decoded, as it has a fault of its own.
    fn read(&self, vm: &Vm, word: &Spanned<String>) -> Result<Vec<Trigger>, Fault> {
        let text = word.value.as_str();
        if self.fields.contains(&text) {
            return Ok(vec![Trigger::Field(text.to_owned())]);
        }
        if let Some(members) = text.strip_prefix(MACHINE).and_then(|name| self.groups.get(name)) {
            let others = members.iter().filter(|name| **name != vm.name.value);
            return Ok(others.cloned().map(Trigger::Machine).collect());
        }
        match text.strip_prefix(MACHINE).filter(|name| !name.is_empty()) {
            Some(name) if name == vm.name.value.as_str() => {
                Err(Fault::error("vmfile::cycle", format!("`{name}` names itself in `replace-when`"))
                    .at(word.span, "this machine")
                    .help("remove it, or name another machine"))
            }
            Some(name) if self.machines.contains(name) => {
                Ok(name.parse().ok().map(Trigger::Machine).into_iter().collect())
            }
            Some(name) => Err(self.unknown_machine(name, word.span)),
            None if self.machines.contains(text) => {
                Err(unknown_field(word, format!("write `{MACHINE}{text}` for the machine")))
            }
            None => match nearest(text, self.machines.iter().copied()) {
                Some(near) if meant(text, &self.fields).is_none() => {
                    Err(unknown_field(word, format!("did you mean `{MACHINE}{near}`?")))
                }
                _ => Err(unknown_field(word, field_help(text, &self.fields))),
            },
        }
    }

    fn unknown_machine(&self, name: &str, span: SourceSpan) -> Fault {
        let known = self.machines.iter().copied().chain(self.groups.keys().map(String::as_str));
        let help = match nearest(name, known) {
            Some(near) => format!("did you mean `{MACHINE}{near}`?"),
            None => "name another machine of this file".to_owned(),
        };
        Fault::error("vmfile::dependency", format!("there is no machine `{}`", shorten(name)))
            .at(span, "not known")
            .help(help)
    }
}

/// Fields whose changes are to be passed over and to replace the machine as well.
fn contradictions(lifecycle: &Lifecycle) -> Vec<Fault> {
    let covers = |ignored: &str, trigger: &str| {
        let block = trigger.split_once('.').map(|(block, _)| block);
        ignored == trigger || ignored == ALL || block == Some(ignored)
    };
    let mut faults = Vec::new();
    for trigger in lifecycle.replace_when.iter().filter(|trigger| !trigger.value.starts_with(MACHINE)) {
        let ignored = lifecycle.ignore_changes.iter().find(|word| covers(&word.value, &trigger.value));
        faults.extend(ignored.map(|ignored| {
            let message = format!(
                "`ignore-changes \"{}\"` and `replace-when \"{}\"` contradict each other",
                ignored.value,
                shorten(&trigger.value)
            );
            Fault::warning("vmfile::contradiction", message)
                .at(trigger.span, "a change replaces the machine")
                .at(ignored.span, "a change is passed over")
                .help("keep one of them")
        }));
    }
    faults
}

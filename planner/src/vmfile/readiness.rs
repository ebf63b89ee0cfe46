//! `ready` and `check`: what is asked of a guest, and who can be asked at all.

use miette::SourceSpan;
use std::collections::HashMap;
use vmctl_providers::{Pattern, Probe, Readiness, SshConfig};

use super::ast::{Node, Spanned};
use super::fields::{Fields, Parts, shorten};
use super::grammar::{CHECK, EXEC, LOG, MAX_CHECK_NAME, TCP, TIMEOUT};
use super::lex::is_forbidden;
use super::report::Fault;
use super::resolve::Resolver;
use super::typed::{Check, Ready, Vm};
use crate::desired::{self, ready_at_login};

impl Fields {
    /// Reads a `ready` block.
    pub(super) fn ready(&mut self, node: &Node) -> Ready {
        let parts = Parts::of(node);
        let ssh = parts.child("ssh").map(|node| node.name.span);
        let timeout = parts.child("timeout").and_then(|node| {
            let value = self.only_value(&Parts::of(node), &TIMEOUT)?;
            self.duration(&TIMEOUT, value)
        });
        Ready { ssh, probes: self.probes(&parts), timeout }
    }

    /// Reads all checks of a machine.
    pub(super) fn checks(&mut self, machine: &Parts<'_>) -> Vec<Check> {
        let mut first: HashMap<String, SourceSpan> = HashMap::new();
        let mut checks: Vec<Check> = Vec::new();
        for node in machine.children("check") {
            let Some(check) = self.check(node) else { continue };
            match first.get(&check.name.value) {
                Some(earlier) => self.tell(
                    Fault::error(
                        "vmfile::duplicate",
                        format!("the check `{}` is written twice", shorten(&check.name.value)),
                    )
                    .at(check.name.span, "again here")
                    .at(*earlier, "first here")
                    .help("give each check of a machine a name of its own"),
                ),
                None => {
                    first.insert(check.name.value.clone(), check.name.span);
                    checks.push(check);
                }
            }
        }
        checks
    }

    fn check(&mut self, node: &Node) -> Option<Check> {
        let parts = Parts::of(node);
        let name = match parts.args.first() {
            Some(value) => self.text("check", value, CHECK.usage).and_then(|text| self.check_name(text)),
            None => {
                self.tell(
                    Fault::error("vmfile::missing", "a check has no name")
                        .at(node.name.span, "a name must follow")
                        .help(format!("write {}", CHECK.usage)),
                );
                None
            }
        };
        if parts.sound && parts.block().is_empty() {
            self.tell(
                Fault::error("vmfile::missing", "a check asks nothing")
                    .at(node.name.span, "needs `tcp`, `exec` or `log`")
                    .help(format!("write {}", CHECK.usage)),
            );
        }
        let probes = self.probes(&parts);
        Some(Check { name: name?, probes })
    }

    fn check_name(&mut self, text: Spanned<String>) -> Option<Spanned<String>> {
        let (label, help) = if text.value.chars().any(|c| c.is_control() || is_forbidden(c)) {
            ("line break or the like", "a check's name is one line of plain text".to_owned())
        } else if text.value.chars().count() > MAX_CHECK_NAME {
            ("too long", format!("a check's name has at most {MAX_CHECK_NAME} characters"))
        } else {
            return Some(text);
        };
        let message = format!("`{}` cannot name a check", shorten(&text.value));
        self.tell(Fault::error("vmfile::bad-name", message).at(text.span, label).help(help));
        None
    }

    /// The probes of a block, in the order of the text.
    fn probes(&mut self, parts: &Parts<'_>) -> Vec<Spanned<Probe>> {
        let read = parts.block().iter().filter_map(|node| {
            let probe = match node.name.value.as_str() {
                "tcp" => self.tcp(node).map(Probe::Tcp),
                "exec" => self.leaf_text(node, &EXEC).map(|text| Probe::Exec(text.value)),
                "log" => self.log(node).map(Probe::Log),
                _ => None,
            };
            probe.map(|value| Spanned { value, span: node.name.span })
        });
        read.collect()
    }

    fn tcp(&mut self, node: &Node) -> Option<u16> {
        u16::try_from(self.leaf_whole(node, &TCP)?.value).ok()
    }

    fn log(&mut self, node: &Node) -> Option<String> {
        let text = self.leaf_text(node, &LOG)?;
        let known = self.patterns.get(&text.value).cloned();
        let fault = known.unwrap_or_else(|| {
            let fault = pattern_fault(&text.value);
            self.patterns.insert(text.value.clone(), fault.clone());
            fault
        });
        let Some(PatternFault { message, label, help }) = fault else { return Some(text.value) };
        self.tell(Fault::error("vmfile::pattern", message).at(text.span, label).help(help));
        None
    }
}

/// Why a pattern cannot be used.
#[derive(Debug, Clone)]
pub(super) struct PatternFault {
    message: String,
    label: String,
    help: &'static str,
}

fn pattern_fault(pattern: &str) -> Option<PatternFault> {
    let error = Pattern::new(pattern).err()?;
    Some(PatternFault {
        message: format!("`{}` is no usable regular expression", shorten(pattern)),
        label: error.reason,
        help: "write `\\\\(` for a bracket itself, or `\\(` in a raw text, #\"…\"#; where it takes too much, write fewer or smaller repetitions",
    })
}

/// The first of what is asked of the guest of `vm` and can be asked after a login only.
pub(super) fn first_in_need_of_a_login(vm: &Vm) -> Option<Spanned<&'static str>> {
    let ready = vm.ready.iter();
    let ssh = ready.clone().filter_map(|ready| Some(Spanned { value: "`ssh` in `ready`", span: ready.ssh? }));
    let probes =
        ready.flat_map(|ready| &ready.probes).chain(vm.checks.iter().flat_map(|check| &check.probes));
    let probes = probes.filter_map(|probe| {
        let value = match probe.value {
            Probe::Tcp(_) => "`tcp`",
            // Without a login it is asked of the guest agent.
            Probe::Exec(_) | Probe::Login | Probe::Log(_) => return None,
        };
        Some(Spanned { value, span: probe.span })
    });
    ssh.chain(probes).min_by_key(|need| need.span.offset())
}

impl Resolver<'_> {
    /// When `vm` counts as ready, if vmctl logs in by `ssh`.
    pub(super) fn readiness(&mut self, vm: &Vm, ssh: Option<&SshConfig>) -> Readiness {
        let mut readiness = ready_at_login(ssh);
        let Some(written) = &vm.ready else { return readiness };
        readiness.probes.extend(written.probes.iter().map(|probe| probe.value.clone()));
        if let Some(timeout) = &written.timeout {
            readiness.timeout = timeout.value;
            if readiness.probes.is_empty() {
                self.tell(
                    Fault::warning("vmfile::unused", "`timeout` has no effect: nothing is waited for")
                        .at(timeout.span, "not used")
                        .help("add `ssh` to the machine, or `log \"…\"` beside `timeout`"),
                );
            }
        }
        readiness
    }
}

/// The checks of `vm`.
pub(super) fn checks(vm: &Vm) -> Vec<desired::Check> {
    let probes = |check: &Check| check.probes.iter().map(|probe| probe.value.clone()).collect();
    vm.checks
        .iter()
        .map(|check| desired::Check { name: check.name.value.clone(), probes: probes(check) })
        .collect()
}

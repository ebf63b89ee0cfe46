//! Provisioning steps: what they do, how they run, and what makes them run again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use vmctl_providers::provision::{ProvisionAction, ProvisionStep, Rerun, StepOptions};
use vmctl_providers::{Digest, Secret, Secrets};

use super::ast::{Node, Spanned};
use super::decode::in_text_order;
use super::fields::{Fields, Parts, shorten};
use super::grammar::{
    DESTINATION, ENV, ENV_ENTRY, FILE_USAGE, INLINE, MODE, OWNER, PROVISION, PROVISIONS, RERUN, RERUNS,
    RETRIES, RUN, RUNS, SCRIPT, SHELL_USAGE, SOURCE, STEP_TIMEOUT, STEP_USER, Shape,
};
use super::report::Fault;
use super::resolve::Resolver;
use super::typed::{Action, Provision};
use super::words::{is_environment, is_owner, mode};

impl Fields {
    pub(super) fn provision(&mut self, node: &Node) -> Provision {
        let parts = Parts::of(node);
        let kind = match parts.args.first() {
            None => Some(false),
            Some(value) => self
                .text("provision", value, PROVISION.usage)
                .and_then(|text| self.choice("kind of provisioning", &text, &PROVISIONS))
                .map(|kind| kind.value),
        };
        let action =
            kind.and_then(|is_file| if is_file { self.file_step(&parts) } else { self.shell_step(&parts) });
        // A file appears in the guest whole, so that copying it once more is harmless.
        let usual = if kind == Some(true) { Rerun::Safe } else { Rerun::Ask };
        Provision { span: node.name.span, action, options: self.step_options(&parts, usual) }
    }

    fn step_options(&mut self, parts: &Parts<'_>, usual: Rerun) -> StepOptions {
        let timeout = parts.child("timeout").and_then(|node| {
            let value = self.only_value(&Parts::of(node), &STEP_TIMEOUT)?;
            self.duration(&STEP_TIMEOUT, value)
        });
        let mode = parts
            .child("mode")
            .and_then(|node| self.leaf_text(node, &MODE))
            .and_then(|text| self.mode(&text));
        let owner = self.owner(parts);
        let rerun =
            self.leaf_choice(parts, &RERUN, "word for `rerun`", &RERUNS).map_or(usual, |rerun| rerun.value);
        StepOptions {
            rerun,
            retries: self.retries(parts, rerun),
            run: self
                .leaf_choice(parts, &RUN, "word for `run`", &RUNS)
                .map_or_else(Default::default, |run| run.value),
            env: parts.child("env").map_or_else(BTreeMap::new, |node| self.environment(node)),
            user: parts.child("user").and_then(|node| self.user(node, &STEP_USER)).map(|user| user.value),
            timeout: timeout.map(|timeout| timeout.value),
            mode,
            owner,
        }
    }

    /// The owner that a node names.
    pub(super) fn owner(&mut self, parts: &Parts<'_>) -> Option<String> {
        let owner = parts.child("owner").and_then(|node| self.leaf_text(node, &OWNER)).filter(|text| {
            let is_owner = is_owner(&text.value);
            if !is_owner {
                self.tell(
                    Fault::error("vmfile::bad-name", format!("`{}` is no owner", shorten(&text.value)))
                        .at(text.span, "not an owner")
                        .help("write a user, or a user and a group: `owner \"www-data:www-data\"`"),
                );
            }
            is_owner
        });
        owner.map(|owner| owner.value)
    }

    /// Trying a step again is running it again after it did part of its work.
    fn retries(&mut self, parts: &Parts<'_>, rerun: Rerun) -> u8 {
        let Some(retries) = parts.child("retries").and_then(|node| self.leaf_whole(node, &RETRIES)) else {
            return 0;
        };
        if retries.value > 0 && rerun != Rerun::Safe {
            self.tell(
                Fault::error("vmfile::retries", "a step that is tried again must be safe to run again")
                    .at(retries.span, "needs `rerun \"safe\"`")
                    .help(
                        "write `rerun \"safe\"` beside it if the step may run twice, or take `retries` out",
                    ),
            );
            return 0;
        }
        u8::try_from(retries.value).unwrap_or(0)
    }

    pub(super) fn mode(&mut self, text: &Spanned<String>) -> Option<u32> {
        let mode = mode(&text.value);
        if mode.is_none() {
            let message = format!("`{}` is no file mode", shorten(&text.value));
            self.tell(
                Fault::error("vmfile::bad-value", message)
                    .at(text.span, "not a mode")
                    .help("write octal digits in quotation marks: `mode \"0644\"`"),
            );
        }
        mode
    }

    fn environment(&mut self, node: &Node) -> BTreeMap<String, Secret> {
        let mut environment = BTreeMap::new();
        for entry in Parts::of(node).block() {
            let name = &entry.name;
            if !is_environment(&name.value) {
                let message = format!("`{}` cannot name an environment variable", shorten(&name.value));
                self.tell(
                    Fault::error("vmfile::bad-name", message)
                        .at(name.span, "not a name")
                        .help(format!("letters, digits and `_`, first no digit: {}", ENV.usage)),
                );
                continue;
            }
            let value = self.only_value(&Parts::of(entry), &ENV_ENTRY);
            if let Some(text) =
                value.and_then(|value| self.scalar_text(&name.value, value, "`MODE \"fast\"`"))
            {
                environment.insert(name.value.clone(), Secret::new(text.value));
            }
        }
        environment
    }

    fn shell_step(&mut self, parts: &Parts<'_>) -> Option<Action> {
        self.foreign_children(parts, &["source", "destination", "mode", "owner"], "shell", SHELL_USAGE);
        match (parts.child("inline"), parts.child("script")) {
            (Some(node), None) => self.leaf_text(node, &INLINE).map(Action::Inline),
            (None, Some(node)) => self.leaf_text(node, &SCRIPT).map(Action::Script),
            (Some(inline), Some(script)) => {
                let (first, second) = in_text_order(inline, script);
                self.tell(
                    Fault::error("vmfile::duplicate", "a shell step has either `inline` or `script`")
                        .at(second.name.span, "and this")
                        .at(first.name.span, "this")
                        .help("make two steps of it"),
                );
                None
            }
            (None, None) if !parts.sound => None,
            (None, None) => {
                self.tell(
                    Fault::error("vmfile::missing", "a shell step has nothing to run")
                        .at(parts.node.name.span, "needs `inline` or `script`")
                        .help(format!("write {SHELL_USAGE}")),
                );
                None
            }
        }
    }

    fn file_step(&mut self, parts: &Parts<'_>) -> Option<Action> {
        self.foreign_children(parts, &["inline", "script", "env", "user"], "file", FILE_USAGE);
        let mut needed = |name: &str, shape: &Shape| match parts.child(name) {
            Some(node) => self.leaf_text(node, shape),
            None => {
                self.tell(
                    Fault::error("vmfile::missing", format!("a file step has no `{name}`"))
                        .at(parts.node.name.span, format!("needs `{name}`"))
                        .help(format!("write {FILE_USAGE}")),
                );
                None
            }
        };
        let (source, destination) = (needed("source", &SOURCE), needed("destination", &DESTINATION));
        let destination = destination.filter(|text| {
            let valid = !text.value.chars().any(char::is_control);
            if !valid {
                self.tell(
                    Fault::error("vmfile::bad-value", "a path in the guest contains a control character")
                        .at(text.span, "line break or the like")
                        .help("remove it"),
                );
            }
            valid
        });
        Some(Action::File { source: source?, destination: destination? })
    }

    fn foreign_children(&mut self, parts: &Parts<'_>, names: &[&str], kind: &str, usage: &str) {
        for node in names.iter().filter_map(|name| parts.child(name)) {
            self.tell(
                Fault::error("vmfile::unknown-node", format!("a {kind} step has no `{}`", node.name.value))
                    .at(node.name.span, "not known here")
                    .help(format!("write {usage}")),
            );
        }
    }
}

impl Resolver<'_> {
    pub(super) fn step(&mut self, number: usize, step: &Provision) -> Option<ProvisionStep> {
        let options = step.options.clone();
        match step.action.as_ref()? {
            Action::Inline(text) => Some(shell(number, "inline".to_owned(), text.value.clone(), options)),
            Action::Script(script) => {
                let text = self.read("script", script)?;
                Some(shell(number, script.value.clone(), text, options))
            }
            Action::File { source, destination } => {
                let path = self.path(source);
                let found =
                    path.and_then(|path| self.files.content_of_any(&path).map(|content| (path, content)));
                let (path, content) = match found {
                    Ok(found) => found,
                    Err(error) => {
                        self.unreadable("file", source, &error);
                        return None;
                    }
                };
                if path.is_dir() && options.mode.is_some() {
                    let fault = Fault::error(
                        "vmfile::contradiction",
                        "a folder keeps the permission bits of its files",
                    );
                    self.tell(
                        fault
                            .at(source.span, "a folder")
                            .help("take `mode` out, and set the bits on the files themselves"),
                    );
                    return None;
                }
                let mode = format!("{:o}", content.mode);
                let digest = digest(&["file", content.digest.as_str(), &mode, &destination.value], &options);
                Some(ProvisionStep {
                    number,
                    label: destination.value.clone(),
                    action: copying(path, destination.value.clone()),
                    options,
                    digest,
                    secrets: Secrets::default(),
                })
            }
        }
    }
}

/// What a file step does.
fn copying(source: PathBuf, destination: String) -> ProvisionAction {
    if source.is_dir() {
        ProvisionAction::Folder { source, destination }
    } else {
        ProvisionAction::File { source, destination }
    }
}

fn shell(number: usize, label: String, script: String, options: StepOptions) -> ProvisionStep {
    let digest = digest(&["shell", &script], &options);
    let action = ProvisionAction::Shell { script };
    ProvisionStep { number, label, action, options, digest, secrets: Secrets::default() }
}

/// The digest of what a step does, with what its options add to that; when it runs and how long it may take add nothing.
fn digest(parts: &[&str], options: &StepOptions) -> Digest {
    let mut parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
    parts.extend(options.env.iter().map(|(name, value)| format!("env {name}={}", value.expose())));
    parts.extend(options.user.iter().map(|user| format!("user {user}")));
    parts.extend(options.mode.iter().map(|mode| format!("mode {mode:o}")));
    parts.extend(options.owner.iter().map(|owner| format!("owner {owner}")));
    Digest::of(parts.join("\0"))
}

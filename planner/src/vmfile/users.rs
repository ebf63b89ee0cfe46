//! Users that a seed makes: who they are, and what they may do.

use std::collections::HashMap;

use vmctl_providers::{SeedUser, Sudo};

use super::ast::{Node, Scalar, Spanned};
use super::fields::{Fields, Parts, shorten};
use super::grammar::{GROUPS, SEED_USER, SHELL, SSH_KEY, SUDO};
use super::report::Fault;
use super::resolve::Resolver;
use super::typed::{SeedLogin, Vm};
use super::words::{is_guest_path, is_user};

impl Fields {
    /// The users of a `cloud-init` block, each named once.
    pub(super) fn seed_users(&mut self, parts: &Parts<'_>) -> Vec<SeedLogin> {
        let mut first = HashMap::new();
        let mut users = Vec::new();
        for node in parts.children("user") {
            let Some(user) = self.seed_user(node) else { continue };
            if let Some(earlier) = first.insert(user.name.value.clone(), user.name.span) {
                self.tell(
                    Fault::error("vmfile::duplicate", format!("there are two users `{}`", user.name.value))
                        .at(user.name.span, "again here")
                        .at(earlier, "first here")
                        .help("write what both blocks say into one of them"),
                );
                continue;
            }
            users.push(user);
        }
        users
    }

    fn seed_user(&mut self, node: &Node) -> Option<SeedLogin> {
        let parts = Parts::of(node);
        let name = self.user(node, &SEED_USER);
        let keys = parts.children("ssh-key").filter_map(|node| self.leaf_text(node, &SSH_KEY)).collect();
        let groups = parts.children("groups").flat_map(|node| &node.args);
        let groups: Vec<_> = groups.filter_map(|value| self.text("groups", value, GROUPS.usage)).collect();
        let groups =
            groups.into_iter().filter(|group| self.is_group(group)).map(|group| group.value).collect();
        let shell = parts.child("shell").and_then(|node| self.leaf_text(node, &SHELL));
        let shell = shell.filter(|shell| self.is_shell(shell)).map(|shell| shell.value);
        let sudo = parts.child("sudo").and_then(|node| self.sudo(node));
        Some(SeedLogin { name: name?, keys, groups, sudo, shell })
    }

    fn is_group(&mut self, group: &Spanned<String>) -> bool {
        let is_group = is_user(&group.value);
        if !is_group {
            self.tell(
                Fault::error("vmfile::bad-name", format!("`{}` is not a group", shorten(&group.value)))
                    .at(group.span, "not a group")
                    .help("small letters, digits, `_` and `-`, at most 32, first a letter or `_`"),
            );
        }
        is_group
    }

    fn is_shell(&mut self, shell: &Spanned<String>) -> bool {
        let is_shell = is_guest_path(&shell.value);
        if !is_shell {
            self.tell(
                Fault::error(
                    "vmfile::bad-value",
                    format!("`{}` is no program of the guest", shorten(&shell.value)),
                )
                .at(shell.span, "not an absolute path")
                .help(format!("write {}", SHELL.usage)),
            );
        }
        is_shell
    }

    /// A truth stands for everything or nothing, a text for a rule.
    fn sudo(&mut self, node: &Node) -> Option<Sudo> {
        let value = self.only_value(&Parts::of(node), &SUDO)?;
        if let Scalar::Bool(may) = value.scalar {
            return Some(if may { Sudo::Rule(Sudo::EVERYTHING.to_owned()) } else { Sudo::Nothing });
        }
        let rule = self.text("sudo", value, SUDO.usage)?;
        self.is_plain("rule", &rule).then_some(Sudo::Rule(rule.value))
    }
}

impl Resolver<'_> {
    /// The users of `vm`'s seed with their keys; `None` where a fault was told.
    pub(super) fn seed_users(&mut self, vm: &Vm) -> Option<Vec<SeedUser>> {
        let written = vm.cloud_init.as_ref().map(|seed| seed.users.as_slice()).unwrap_or_default();
        let mut users = Vec::new();
        for SeedLogin { name, keys, groups, sudo, shell } in written {
            let mut authorized_keys = Vec::new();
            for file in keys {
                authorized_keys.extend(self.public_keys(file)?);
            }
            users.push(SeedUser {
                name: name.value.clone(),
                authorized_keys,
                groups: groups.clone(),
                sudo: sudo.clone(),
                shell: shell.clone(),
            });
        }
        Some(users)
    }
}

//! Who logs in to a machine, with which key, and what its seed says.
//!
//! | VMFile | seed | login |
//! |---|---|---|
//! | neither block | none | none |
//! | `ssh` | ours | user, generated key |
//! | `ssh { private-key }` | none | user, that key |
//! | `cloud-init` | ours | user `vm`, generated key |
//! | `cloud-init`, `ssh { private-key }` | ours, with the public half of the key | user, that key |
//! | `cloud-init { user-data }` | the user's own | none |
//! | `cloud-init { user-data … merge-keys=#true }` | both, as one MIME document | user, generated key |
//! | a private network, whatever else | as above; ours where that is none | as above |
//! | `cloud-init { user-data }`, `ssh` | the user's own | user, that key or a key of the home folder |

use std::path::PathBuf;

use vmctl_providers::{CloudInitConfig, Digest, NetworkConfig, Secret, SshConfig, keys};

use super::ast::{Node, Spanned};
use super::fields::{Fields, Parts, shorten};
use super::files::{MAX_TEXT, read_text};
use super::grammar::{HOSTNAME, PRIVATE_KEY, SSH_KEY, Shape, USER, USER_DATA};
use super::readiness::first_in_need_of_a_login;
use super::report::Fault;
use super::resolve::{Resolver, with_causes};
use super::typed::{CloudInit, Ssh, Vm};
use super::words::{hostname_fault, is_user};

/// The user that cloud-init makes and vmctl logs in as if the VMFile names none.
pub(super) const DEFAULT_USER: &str = "vm";

/// Keys of the home folder that are tried where a generated key cannot work, in this order; those that lie open come
/// before those with a passphrase.
const HOME_KEYS: [&str; 3] = [".ssh/id_ed25519", ".ssh/id_ecdsa", ".ssh/id_rsa"];

/// How a machine is entered.
pub(super) struct Login {
    pub(super) cloud_init: Option<CloudInitConfig>,
    pub(super) ssh: Option<SshConfig>,
}

impl Fields {
    pub(super) fn cloud_init(&mut self, node: &Node) -> CloudInit {
        let parts = Parts::of(node);
        let hostname = parts.child("hostname").and_then(|node| self.leaf_text(node, &HOSTNAME)).filter(|text| {
            let wrong = hostname_fault(&text.value);
            if let Some(label) = wrong {
                self.tell(
                    Fault::error("vmfile::bad-name", format!("`{}` is not a host name", shorten(&text.value)))
                        .at(text.span, label)
                        .help("letters, digits and `-`, with dots between labels; a label has at most 63 characters"),
                );
            }
            wrong.is_none()
        });
        CloudInit {
            span: node.name.span,
            hostname,
            ssh_key: parts.child("ssh-key").and_then(|node| self.leaf_text(node, &SSH_KEY)),
            user_data: parts.child("user-data").and_then(|node| self.leaf_text(node, &USER_DATA)),
            merges: self.merges_keys(&parts),
            users: self.seed_users(&parts),
            packages: self.packages(&parts),
            files: self.written_files(&parts),
            commands: self.seed_commands(&parts),
        }
    }

    pub(super) fn ssh(&mut self, node: &Node) -> Ssh {
        let parts = Parts::of(node);
        let user = parts.child("user").and_then(|node| self.user(node, &USER));
        let private_key = parts.child("private-key").and_then(|node| self.leaf_text(node, &PRIVATE_KEY));
        Ssh { span: node.name.span, user, private_key }
    }

    pub(super) fn user(&mut self, node: &Node, shape: &Shape) -> Option<Spanned<String>> {
        let text = self.leaf_text(node, shape)?;
        if is_user(&text.value) {
            return Some(text);
        }
        self.tell(
            Fault::error("vmfile::bad-name", format!("`{}` is not a user name", shorten(&text.value)))
                .at(text.span, "not a user name")
                .help("small letters, digits, `_` and `-`, at most 32, first a letter or `_`"),
        );
        None
    }
}

impl Resolver<'_> {
    /// `None` where a fault was told.
    pub(super) fn login(&mut self, vm: &Vm, networks: &[NetworkConfig]) -> Option<Login> {
        let in_reach = networks.iter().any(NetworkConfig::reaches_guest);
        // Its addresses are told by the seed.
        let is_private = networks.iter().any(|network| matches!(network, NetworkConfig::Private { .. }));
        let faults = self.faults.len();
        let named = vm.ssh.as_ref().and_then(|ssh| ssh.user.as_ref());
        let first = vm.cloud_init.as_ref().and_then(|seed| Some(&seed.users.first()?.name));
        let user = named.or(first).map_or_else(|| DEFAULT_USER.to_owned(), |user| user.value.clone());
        let written_key = vm.ssh.as_ref().and_then(|ssh| ssh.private_key.as_ref());
        let key = written_key.and_then(|written| self.private_key(written));
        // Merged with ours, the user's own user-data takes nothing away.
        let raw = vm.cloud_init.as_ref().filter(|seed| !seed.merges).and_then(|seed| seed.user_data.as_ref());

        let seeded = vm.cloud_init.is_some() || (vm.ssh.is_some() && written_key.is_none()) || is_private;
        let public_half = key.as_ref().map(|key| key.public.clone());
        let cloud_init = seeded.then(|| self.cloud_init(vm, &user, public_half)).flatten();
        let step = vm.provision.first().map(|step| Spanned { value: "provisioning", span: step.span });
        for need in step.into_iter().chain(first_in_need_of_a_login(vm)) {
            self.needs_a_login(vm, &need, raw.is_some());
        }

        let logs_in = in_reach && (vm.ssh.is_some() || (vm.cloud_init.is_some() && raw.is_none()));
        let private_key = match key {
            Some(key) => Some(key.path),
            None if raw.is_some() && vm.ssh.is_some() && written_key.is_none() => self.home_key(vm),
            None => None,
        };
        let ssh = logs_in.then_some(SshConfig { user, private_key });
        let failed = self.faults[faults..].iter().any(Fault::is_error);
        (!failed).then_some(Login { cloud_init, ssh })
    }

    fn cloud_init(&mut self, vm: &Vm, user: &str, public_half: Option<String>) -> Option<CloudInitConfig> {
        let seed = vm.cloud_init.as_ref();
        let hostname = seed.and_then(|seed| seed.hostname.as_ref());
        let user_data = match seed.and_then(|seed| seed.user_data.as_ref()) {
            Some(written) => Some(self.user_data(vm, written)?),
            None => None,
        };
        let mut authorized_keys = match seed.and_then(|seed| seed.ssh_key.as_ref()) {
            Some(written) => self.public_keys(written)?,
            None => Vec::new(),
        };
        let more = self.seed_content(vm)?;
        if user_data.is_none() || more.merges {
            authorized_keys.extend(public_half.filter(|key| !authorized_keys.contains(key)));
        }
        Some(CloudInitConfig {
            hostname: hostname.map_or_else(|| vm.name.value.to_hostname(), |hostname| hostname.value.clone()),
            user: user.to_owned(),
            authorized_keys,
            user_data,
            more,
        })
    }

    /// The user's own user-data replaces ours, and with it what only ours would say.
    fn user_data(&mut self, vm: &Vm, written: &Spanned<String>) -> Option<Secret> {
        let seed = vm.cloud_init.as_ref().filter(|seed| !seed.merges);
        if let Some(key) = seed.and_then(|seed| seed.ssh_key.as_ref()) {
            self.tell(
                Fault::warning("vmfile::unused", "`ssh-key` has no effect beside `user-data`")
                    .at(key.span, "not used")
                    .at(written.span, "passed on as it is")
                    .help("write the key into the user-data, or add `merge-keys=#true` to `user-data`"),
            );
        }
        self.read("user-data", written).map(Secret::new)
    }

    pub(super) fn public_keys(&mut self, written: &Spanned<String>) -> Option<Vec<String>> {
        let text = self.read("public key", written)?;
        match keys::check_public(&text) {
            Ok(lines) => Some(lines),
            Err(error) => {
                self.bad_key(written, &error);
                None
            }
        }
    }

    fn private_key(&mut self, written: &Spanned<String>) -> Option<Key> {
        // Read here first: missing files, folders and pipes are then told as for any other file.
        let path = self.path(written);
        let found = path.and_then(|path| read_text(&path, MAX_TEXT).map(|text| (path, Digest::of(text))));
        let (path, digest) = match found {
            Ok(found) => found,
            Err(error) => {
                self.unreadable("private key", written, &error);
                return None;
            }
        };
        self.files.note(&path, digest);
        match keys::public_of(&path) {
            Ok(public) => Some(Key { path, public }),
            Err(error) => {
                self.bad_key(written, &error);
                None
            }
        }
    }

    fn bad_key(&mut self, written: &Spanned<String>, error: &keys::KeyError) {
        let message = format!("this key cannot be used: {}", with_causes(error));
        self.tell(
            Fault::error("vmfile::key", message).at(written.span, "this file").maybe_help(error.help()),
        );
    }

    fn needs_a_login(&mut self, vm: &Vm, need: &Spanned<&str>, raw: bool) {
        let what = need.value;
        if vm.ssh.is_some() {
            return;
        }
        let (message, help) = if vm.cloud_init.is_none() {
            (
                format!("{what} needs a login, and this machine has none"),
                "add an `ssh` block: `ssh` alone makes a user `vm` with a key of its own",
            )
        } else if raw {
            (
                format!("{what} needs a login, and your own user-data decides who can log in"),
                "add `ssh { user \"…\"; private-key \"…\" }` that fits your user-data",
            )
        } else {
            return;
        };
        self.tell(Fault::error("vmfile::ssh", message).at(need.span, "runs over ssh").help(help));
    }

    /// With the user's own user-data a generated key is not known to the guest: one of the user's may be.
    fn home_key(&mut self, vm: &Vm) -> Option<PathBuf> {
        let paths = HOME_KEYS.iter().filter_map(|name| self.files.in_home(name));
        let usable: Vec<_> = paths
            .filter_map(|path| {
                let text = read_text(&path, MAX_TEXT).ok().filter(|_| keys::public_of(&path).is_ok())?;
                Some((path, Digest::of(text)))
            })
            .collect();
        let found = usable.iter().find(|(path, _)| keys::is_open(path)).or(usable.first());
        let found = found.map(|(path, digest)| {
            self.files.note(path, digest.clone());
            path.clone()
        });
        if found.is_none() {
            let ssh = vm.ssh.as_ref()?;
            let message = "no key is known that fits your own user-data";
            let help =
                "add `private-key \"…\"` to the `ssh` block, with a key that your user-data authorises";
            let fault = if vm.provision.is_empty() && first_in_need_of_a_login(vm).is_none() {
                Fault::warning("vmfile::ssh", message)
            } else {
                Fault::error("vmfile::ssh", message)
            };
            self.tell(fault.at(ssh.span, "no `private-key`, and no usable one in ~/.ssh").help(help));
        }
        found
    }
}

/// A key file that can be used.
struct Key {
    path: PathBuf,
    public: String,
}

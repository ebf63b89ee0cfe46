//! What a seed says, as nodes.

use std::path::PathBuf;

use vmctl_providers::{SeedFile, SeedUser, Sudo};

use super::{Author, Node, Value, word};
use crate::desired::DesiredVm;

impl Author<'_> {
    pub(super) fn cloud_init(&mut self, vm: &DesiredVm) -> Option<Node> {
        let seed = vm.cloud_init.as_ref()?;
        let files = &vm.text_files;
        Some(
            Node::new("cloud-init")
                .with([self.leaf("hostname", &seed.hostname)])
                .with(files.ssh_key.as_ref().map(|path| self.path_leaf("ssh-key", path)))
                .with(
                    seed.more
                        .users
                        .iter()
                        .zip(&files.user_keys)
                        .map(|(user, keys)| self.seed_user(user, keys))
                        .collect::<Vec<_>>(),
                )
                .with(self.words("packages", &seed.more.packages))
                .with(seed.more.files.iter().map(|file| self.written_file(file)).collect::<Vec<_>>())
                .with(
                    seed.more
                        .commands
                        .iter()
                        .map(|command| self.leaf("run", command.text.expose()))
                        .collect::<Vec<_>>(),
                )
                .with(files.user_data.as_ref().map(|path| {
                    let node = self.path_leaf("user-data", path);
                    if seed.more.merges {
                        node.prop("merge-keys", Value::Word("#true".to_owned()))
                    } else {
                        node
                    }
                })),
        )
    }

    fn seed_user(&mut self, user: &SeedUser, keys: &[PathBuf]) -> Node {
        let sudo = user.sudo.as_ref().map(|sudo| match sudo {
            Sudo::Nothing => Node::new("sudo").value(Value::Word("#false".to_owned())),
            Sudo::Rule(rule) => self.leaf("sudo", rule),
        });
        Node::new("user")
            .value(self.text(&user.name))
            .with(keys.iter().map(|path| self.path_leaf("ssh-key", path)).collect::<Vec<_>>())
            .with(self.words("groups", &user.groups))
            .with(sudo)
            .with(user.shell.as_ref().map(|shell| self.leaf("shell", shell)))
    }

    fn written_file(&mut self, file: &SeedFile) -> Node {
        let node = Node::new("write-file").value(self.text(&file.path));
        node.with([self.leaf("content", file.content.text.expose())])
            .with(file.mode.map(|mode| Node::new("mode").value(word(format!("{mode:04o}")))))
            .with(file.owner.as_ref().map(|owner| self.leaf("owner", owner)))
    }
}

//! What a seed says besides host name and login: packages, files, commands.

use vmctl_providers::{SeedContent, SeedFile, SeedText};

use super::ast::{Node, Spanned};
use super::fields::{Fields, Parts, shorten};
use super::grammar::{FILE_CONTENT, FILE_SOURCE, MODE, PACKAGES, SEED_RUN, USER_DATA, WRITE_FILE};
use super::report::Fault;
use super::resolve::Resolver;
use super::typed::{CloudInit, Vm, WriteFile};
use super::words::is_guest_path;

impl Fields {
    /// The packages that the nodes of a block name.
    pub(super) fn packages(&mut self, parts: &Parts<'_>) -> Vec<Spanned<String>> {
        let values: Vec<_> = parts.children("packages").flat_map(|node| &node.args).collect();
        let texts = values.into_iter().filter_map(|value| self.text("packages", value, PACKAGES.usage));
        let texts: Vec<_> = texts.collect();
        texts.into_iter().filter(|text| self.is_plain("package", text)).collect()
    }

    /// Its commands.
    pub(super) fn seed_commands(&mut self, parts: &Parts<'_>) -> Vec<Spanned<String>> {
        parts.children("run").filter_map(|node| self.leaf_text(node, &SEED_RUN)).collect()
    }

    /// Its files.
    pub(super) fn written_files(&mut self, parts: &Parts<'_>) -> Vec<WriteFile> {
        parts.children("write-file").filter_map(|node| self.written_file(node)).collect()
    }

    fn written_file(&mut self, node: &Node) -> Option<WriteFile> {
        let parts = Parts::of(node);
        let path = self.leaf_text(node, &WRITE_FILE).filter(|path| {
            let is_path = is_guest_path(&path.value) && self.is_plain("path", path);
            if !is_guest_path(&path.value) {
                let message = format!("`{}` is no path in the guest", shorten(&path.value));
                self.tell(
                    Fault::error("vmfile::bad-value", message)
                        .at(path.span, "not an absolute path")
                        .help(format!("write {}", WRITE_FILE.usage)),
                );
            }
            is_path
        });
        let mode = parts.child("mode").and_then(|node| self.leaf_text(node, &MODE));
        let mode = mode.and_then(|text| self.mode(&text));
        let owner = self.owner(&parts);
        let content = match (parts.child("content"), parts.child("source")) {
            (Some(node), None) => {
                let value = self.only_value(&Parts::of(node), &FILE_CONTENT);
                let text = value.and_then(|value| self.scalar_text("content", value, FILE_CONTENT.usage));
                text.map(|text| Ok(text.value))
            }
            (None, Some(node)) => self.leaf_text(node, &FILE_SOURCE).map(Err),
            (Some(_), Some(other)) => {
                let fault = Fault::error("vmfile::contradiction", "a file has either `content` or `source`");
                self.tell(fault.at(other.name.span, "one too many").help("take one of them out"));
                None
            }
            (None, None) if parts.sound => {
                let fault = Fault::error("vmfile::missing", "nothing says what is in this file");
                self.tell(
                    fault
                        .at(node.name.span, "needs `content` or `source`")
                        .help(format!("write {}", WRITE_FILE.usage)),
                );
                None
            }
            (None, None) => None,
        };
        Some(WriteFile { path: path?, content: content?, mode, owner })
    }

    /// Whether the user's own user-data and ours become one document.
    pub(super) fn merges_keys(&mut self, parts: &Parts<'_>) -> bool {
        let node = parts.child("user-data").map(Parts::of);
        let value = node.as_ref().and_then(|node| node.prop("merge-keys"));
        value.and_then(|value| self.truth("merge-keys", value, USER_DATA.usage)).unwrap_or(false)
    }

    pub(super) fn is_plain(&mut self, what: &str, text: &Spanned<String>) -> bool {
        let is_plain = !text.value.chars().any(char::is_control);
        if !is_plain {
            let fault =
                Fault::error("vmfile::bad-value", format!("this {what} contains a control character"));
            self.tell(fault.at(text.span, "line break or the like").help("remove it"));
        }
        is_plain
    }
}

impl Resolver<'_> {
    /// What the seed of `vm` says besides its login; what has no effect is told.
    pub(super) fn seed_content(&mut self, vm: &Vm) -> Option<SeedContent> {
        let Some(seed) = vm.cloud_init.as_ref() else { return Some(SeedContent::default()) };
        let CloudInit { user_data, merges, users, packages, files, commands, .. } = seed;
        let spans = users.iter().map(|user| user.name.span).chain(packages.iter().map(|text| text.span));
        let spans = spans.chain(files.iter().map(|file| file.path.span));
        let first = spans.chain(commands.iter().map(|text| text.span)).next();
        if let (Some(written), Some(span), false) = (user_data, first, *merges) {
            let fault = Fault::error(
                "vmfile::contradiction",
                "your own user-data is passed on as it is, without this",
            );
            self.tell(
                fault
                    .at(span, "would have no effect")
                    .at(written.span, "takes its place")
                    .help("add `merge-keys=#true` to `user-data`, or write it into that file"),
            );
            return None;
        }
        let mut content = SeedContent {
            merges: *merges && user_data.is_some(),
            users: self.seed_users(vm)?,
            packages: packages.iter().map(|package| package.value.clone()).collect(),
            files: Vec::new(),
            commands: commands.iter().map(|command| SeedText::new(&command.value)).collect(),
        };
        for file in files {
            let text = match &file.content {
                Ok(text) => text.clone(),
                Err(source) => self.read("source", source)?,
            };
            content.files.push(SeedFile {
                path: file.path.value.clone(),
                content: SeedText::new(text),
                mode: file.mode,
                owner: file.owner.clone(),
            });
        }
        Some(content)
    }
}

//! One machine as a block that stands for itself in any VMFile.

use vmctl_providers::{Name, NetworkConfig, Secrets, SshConfig};

use super::{Author, HIDES, Node, Value, print};
use crate::desired::{Desired, DesiredImage, DesiredVm, ready_at_login};
use crate::vmfile::grammar::{
    ACCEL, BACKEND, CLOUD_INIT, FIRMWARE, HOSTNAME, NETWORK, READY, SSH, USER, VM, WARM, top,
};
use crate::vmfile::lex::is_forbidden;
use crate::vmfile::login::DEFAULT_USER;

/// Nodes that say what holds anyway.
const IMPLIED: [(&str, &str); 4] =
    [(BACKEND.name, "qemu"), (FIRMWARE.name, "bios"), (ACCEL.name, "auto"), (WARM.name, "off")];

/// The block of one machine in canonical form, without what belongs to other parts of its VMFile: that stands above it
/// as comments, and so does each of `remarks`.
pub fn write_machine(vm: &DesiredVm, secrets: &Secrets, project: &Name, remarks: &[String]) -> String {
    let mut around = Desired::new(project.clone());
    around.secrets = secrets.clone();
    let (alone, mut said) = apart(vm, project);
    said.extend(remarks.iter().cloned());
    let mut author = Author { desired: &around, hides: false };
    let mut node = author.vm(&alone);
    let is_usual = alone.ready == ready_at_login(alone.ssh.as_ref());
    node.block.retain(|node| !(is_implied(node) || is_usual && node.name == READY.name));
    shorten(&mut node, &alone);
    let mut text = String::new();
    if author.hides {
        text.push_str(HIDES.trim_end());
        text.push('\n');
    }
    text.extend(said.iter().map(|remark| comment(remark)));
    print(&mut text, vec![node], top(), 0);
    text
}

/// `text` as one line of a comment: nothing in it can end the line.
fn comment(text: &str) -> String {
    let ends = |c: char| c.is_control() || is_forbidden(c) || matches!(c, '\u{2028}' | '\u{2029}');
    format!("// {}\n", text.replace(ends, "?").trim_end())
}

/// The machine without what other nodes of its VMFile must say, and what that was.
fn apart(vm: &DesiredVm, project: &Name) -> (DesiredVm, Vec<String>) {
    let mut alone = vm.clone();
    let mut said = Vec::new();
    for volume in std::mem::take(&mut alone.volumes) {
        said.push(format!(
            "volume \"{}\": its disk belongs to project `{project}`, and stays there.",
            volume.name
        ));
    }
    alone.networks.retain(|network| match network {
        NetworkConfig::Private { name, .. } => {
            said.push(format!(
                "network \"private\" name=\"{name}\": a network of project `{project}`; write one of your own."
            ));
            false
        }
        NetworkConfig::User
        | NetworkConfig::Isolated
        | NetworkConfig::Tap { .. }
        | NetworkConfig::Vnic { .. }
        | NetworkConfig::None => true,
    });
    for name in std::mem::take(&mut alone.depends_on).into_keys() {
        said.push(format!("depends-on \"{name}\": a machine of project `{project}`."));
    }
    if let Some(DesiredImage::Remote { sha256: sha256 @ None, pin: Some(pin), .. }) = &mut alone.image {
        // What is pinned beside one VMFile is not beside another.
        *sha256 = Some(pin.sha256.clone());
    }
    (alone, said)
}

/// Lets `ssh` alone say what it implies: a seed with the machine's name, and a user with a key of its own.
fn shorten(node: &mut Node, vm: &DesiredVm) {
    let Some(SshConfig { user, private_key: None }) = &vm.ssh else { return };
    let hostname = vm.name.to_hostname();
    let says = |node: &Node, name: &str, text: &str| match node.block.as_slice() {
        [Node { name: known, values, block }] => {
            let is_it = matches!(values.as_slice(), [(None, Value::Text(word))] if word == text);
            known == name && is_it && block.is_empty()
        }
        _ => false,
    };
    node.block.retain(|node| node.name != CLOUD_INIT.name || !says(node, HOSTNAME.name, &hostname));
    for ssh in node.block.iter_mut().filter(|node| node.name == SSH.name && user == DEFAULT_USER) {
        if says(ssh, USER.name, DEFAULT_USER) {
            ssh.block.clear();
        }
    }
}

fn is_implied(node: &Node) -> bool {
    let word = match node.values.as_slice() {
        [(None, Value::Text(word) | Value::Word(word))] => word.as_str(),
        _ => return false,
    };
    IMPLIED.contains(&(node.name.as_str(), word)) || (node.name == NETWORK.name && word == "user")
}

/// What `create` was asked to make.
#[derive(Debug, Clone, Default)]
pub struct NewMachine {
    /// Its name.
    pub name: String,
    /// Words that stand above it, a line each.
    pub remarks: Vec<String>,
    /// What its nodes say, in any order.
    pub nodes: Vec<NewNode>,
}

/// A node of a new machine's block.
#[derive(Debug, Clone)]
pub struct NewNode {
    name: &'static str,
    values: Vec<(Option<&'static str>, String, bool)>,
    block: Vec<Self>,
}

impl NewNode {
    /// A node of the grammar without a value.
    pub fn new(name: &'static str) -> Self {
        Self { name, values: Vec::new(), block: Vec::new() }
    }

    /// With a text of the user.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.values.push((None, text.into(), true));
        self
    }

    /// With a number, or `#true`.
    #[must_use]
    pub fn word(mut self, word: impl ToString) -> Self {
        self.values.push((None, word.to_string(), false));
        self
    }

    /// With a property that is a text.
    #[must_use]
    pub fn prop(mut self, name: &'static str, text: impl Into<String>) -> Self {
        self.values.push((Some(name), text.into(), true));
        self
    }

    /// With a property that is a number, or `#true`.
    #[must_use]
    pub fn prop_word(mut self, name: &'static str, word: impl ToString) -> Self {
        self.values.push((Some(name), word.to_string(), false));
        self
    }

    /// With another node in its block.
    #[must_use]
    pub fn with(mut self, node: Self) -> Self {
        self.block.push(node);
        self
    }

    fn node(&self) -> Node {
        let value = |text: &String, is_text| {
            if is_text { Value::Text(text.clone()) } else { Value::Word(text.clone()) }
        };
        Node {
            name: self.name.to_owned(),
            values: self.values.iter().map(|(name, text, is_text)| (*name, value(text, *is_text))).collect(),
            block: self.block.iter().map(Self::node).collect(),
        }
    }
}

impl NewMachine {
    /// Its block in canonical form.
    pub fn write(&self) -> String {
        let vm = Node {
            name: VM.name.to_owned(),
            values: vec![(None, Value::Text(self.name.clone()))],
            block: self.nodes.iter().map(NewNode::node).collect(),
        };
        let mut text: String = self.remarks.iter().map(|line| comment(line)).collect();
        print(&mut text, vec![vm], top(), 0);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_machine_is_written_as_fmt_would() {
        let machine = NewMachine {
            name: "demo".to_owned(),
            remarks: vec!["Made by hand.".to_owned(), "a\nvm \"b\"\u{2028}vm \"c\"".to_owned()],
            nodes: vec![
                NewNode::new("state").text("stopped"),
                NewNode::new("image-url").text("https://example.org/a \"b\".qcow2").prop("sha256", "00"),
                NewNode::new("memory").word(512),
                NewNode::new("forward").prop_word("host", 8080).prop_word("guest", 80),
                NewNode::new("cloud-init").with(NewNode::new("ssh-key").text("/k.pub")),
                NewNode::new("ssh"),
            ],
        };
        let text = machine.write();
        insta::assert_snapshot!(text, @r#"
        // Made by hand.
        // a?vm "b"?vm "c"
        vm "demo" {
            image-url "https://example.org/a \"b\".qcow2" sha256="00"
            memory 512
            forward host=8080 guest=80
            cloud-init {
                ssh-key "/k.pub"
            }
            ssh
            state "stopped"
        }
        "#);
        assert_eq!(crate::vmfile::format("f", &text).unwrap(), text);
    }
}

//! From the desired state back to the text of a VMFile: nothing is left to substitute or to fill in, every machine
//! stands for itself.
//!
//! Read again, the text gives the same desired state but for three things: the list of files that were read, the label
//! of a step whose script is a file, which is the path as written, and values that are sensitive, which are not shown.

mod machine;
mod remembered;
mod seed;

use std::path::Path;

use vmctl_providers::provision::{ProvisionAction, ProvisionStep};
use vmctl_providers::{Forward, Name, NetworkConfig, Probe, PropolisOptions, ShareDriver};

pub use machine::{NewMachine, NewNode, write_machine};
pub use remembered::remembered;

use super::duration;
use super::grammar::{
    ACCELS, ARCHS, FIRMWARES, FORWARD, NETWORK, POWERS, PROVISION, READY, RERUNS, RUNS, SHARE_DRIVERS, Shape,
    UNTIL, WARMS, shown, top,
};
use super::lex::is_forbidden;
use crate::desired::{
    Desired, DesiredImage, DesiredVm, Kernel, Lifecycle, Output, OutputPart, READY_TIMEOUT,
};

/// What stands at the head where something is hidden.
const HIDES: &str = "// Sensitive values are not shown, so that this text means something else than the VMFile it was made from.\n\n";

const INDENT: &str = "    ";

/// The VMFile that asks for `desired` and refers to nothing: canonical order, absolute paths, defaults written out where
/// they decide something. Paths that are no UTF-8 text cannot be written, and are shown as well as can be.
pub fn write(desired: &Desired) -> String {
    let mut author = Author { desired, hides: false };
    let nodes = author.file();
    let mut text = String::new();
    print(&mut text, nodes, top(), 0);
    if author.hides { format!("{HIDES}{text}") } else { text }
}

/// The text of a template that means `output`.
pub(crate) fn template(output: &Output) -> String {
    let mut text = String::new();
    for part in &output.parts {
        match part {
            OutputPart::Text(part) => text.push_str(&braces_kept(part)),
            OutputPart::Attribute { vm, attribute } => {
                text.push_str(&format!("{{{{ vm.{vm}.{attribute} }}}}"))
            }
        }
    }
    text
}

/// `text` within a template: braces that would begin a name are quoted, and so is one that ends the text, as others may
/// follow.
fn braces_kept(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        kept.push_str(&rest[..at]);
        let tail = rest[at..].trim_start_matches('{');
        let braces = &rest[at..rest.len() - tail.len()];
        if braces.len() > 1 || tail.is_empty() {
            kept.push_str(&format!("{{{{ '{braces}' }}}}"));
        } else {
            kept.push_str(braces);
        }
        rest = tail;
    }
    kept + rest
}

/// A node to be written.
struct Node {
    name: String,
    /// Arguments, and properties by their names.
    values: Vec<(Option<&'static str>, Value)>,
    block: Vec<Self>,
}

/// A value to be written.
enum Value {
    /// A number or a word of the grammar.
    Word(String),
    /// A text of the user.
    Text(String),
    /// A text with names between braces.
    Template(String),
}

impl Node {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), values: Vec::new(), block: Vec::new() }
    }

    fn value(mut self, value: Value) -> Self {
        self.values.push((None, value));
        self
    }

    fn prop(mut self, name: &'static str, value: Value) -> Self {
        self.values.push((Some(name), value));
        self
    }

    fn with(mut self, block: impl IntoIterator<Item = Self>) -> Self {
        self.block.extend(block);
        self
    }
}

fn number(number: impl ToString) -> Value {
    Value::Word(number.to_string())
}

/// A word of the grammar, or a name: nothing that could have to be hidden.
fn word(word: impl ToString) -> Value {
    Value::Text(word.to_string())
}

/// The word that stands for `value` in a table of the grammar.
fn word_of<T: PartialEq>(table: &[(&'static str, T)], value: &T) -> Value {
    word(table.iter().find(|(_, known)| known == value).map_or("", |(word, _)| word))
}

/// Makes nodes of the desired state.
struct Author<'d> {
    desired: &'d Desired,
    /// Something was hidden.
    hides: bool,
}

impl Author<'_> {
    fn hidden(&mut self, text: &str) -> String {
        let hidden = self.desired.secrets.hide(text);
        self.hides |= hidden != text;
        hidden
    }

    fn text(&mut self, text: &str) -> Value {
        Value::Text(self.hidden(text))
    }

    fn path(&mut self, path: &Path) -> Value {
        self.text(&path.to_string_lossy())
    }

    fn leaf(&mut self, name: &str, text: &str) -> Node {
        Node::new(name).value(self.text(text))
    }

    fn path_leaf(&mut self, name: &str, path: &Path) -> Node {
        Node::new(name).value(self.path(path))
    }

    fn file(&mut self) -> Vec<Node> {
        let desired = self.desired;
        let mut nodes = vec![Node::new("project").value(word(&desired.project))];
        nodes.extend(desired.networks.iter().map(|(name, network)| {
            let subnet = network.subnet.iter().map(|subnet| Node::new("subnet").value(word(subnet)));
            Node::new("network").value(word(name)).with(subnet)
        }));
        nodes.extend(desired.volumes.iter().map(|(name, volume)| {
            let protected = volume.prevent_destroy.then(|| Node::new("prevent-destroy"));
            let size = word(shown(volume.size_bytes >> 20));
            Node::new("volume").value(word(name)).prop("size", size).with(protected)
        }));
        nodes.extend(desired.vms.values().map(|vm| self.vm(vm)));
        nodes.extend(desired.outputs.iter().map(|(name, output)| self.output(name, output)));
        nodes.extend(
            desired
                .moved
                .iter()
                .map(|moved| Node::new("moved").prop("from", word(&moved.from)).prop("to", word(&moved.to))),
        );
        nodes.extend(desired.removed.iter().map(|name| Node::new("removed").value(word(name))));
        nodes
    }

    fn output(&mut self, name: &Name, output: &Output) -> Node {
        let parts = output.parts.iter().map(|part| match part {
            OutputPart::Text(text) => OutputPart::Text(self.hidden(text)),
            part @ OutputPart::Attribute { .. } => part.clone(),
        });
        let parts: Vec<_> = parts.collect();
        let value = match parts.as_slice() {
            [] => word(""),
            [OutputPart::Text(text)] => word(text),
            _ => Value::Template(template(&Output::new(None, parts))),
        };
        let description = output.description.as_ref().map(|text| self.leaf("description", text));
        Node::new("output").value(word(name)).value(value).with(description)
    }

    fn propolis(&mut self, options: &PropolisOptions) -> Vec<Node> {
        let mut block = Vec::new();
        block.extend(options.server.map(|server| Node::new("server").value(word(server))));
        block.extend(options.binary.as_ref().map(|path| self.path_leaf("binary", path)));
        block.extend(options.bootrom.as_ref().map(|path| self.path_leaf("bootrom", path)));
        block.extend(options.api_version.as_ref().map(|text| self.leaf("api-version", text)));
        block.extend(options.pool.as_ref().map(|text| self.leaf("pool", text)));
        block.extend(options.vnic_link.as_ref().map(|text| self.leaf("vnic-link", text)));
        block.extend(options.zone.as_ref().map(|zone| {
            let address = format!("{}/{}", zone.address, zone.prefix);
            let node = self.leaf("zone", &zone.template).prop("link", word(&zone.link));
            node.prop("address", word(address)).prop("port", number(zone.port))
        }));
        block
    }

    fn vm(&mut self, vm: &DesiredVm) -> Node {
        let hardware = &vm.hardware;
        let options = self.propolis(&hardware.propolis);
        let mut block = vec![Node::new("backend").value(word(vm.backend)).with(options)];
        block.extend(vm.image.as_ref().map(|image| self.image(image)));
        block.extend(hardware.arch.map(|arch| Node::new("arch").value(word_of(&ARCHS, &arch))));
        block.push(Node::new("firmware").value(word_of(&FIRMWARES, &hardware.firmware)));
        block.extend(hardware.kernel.iter().flat_map(|kernel| self.kernel(kernel)));
        block.extend(hardware.machine.as_ref().map(|machine| self.leaf("machine", machine)));
        block.extend(hardware.cpu.as_ref().map(|cpu| self.leaf("cpu", cpu)));
        block.push(Node::new("accel").value(word_of(&ACCELS, &hardware.accel)));
        block.extend(hardware.vnc.map(|vnc| {
            let node = Node::new("vnc").value(word("tcp"));
            match vnc.port {
                Some(port) => node.prop("port", number(port)),
                None => node,
            }
        }));
        block.extend(self.words("qemu-arg", &hardware.qemu_args));
        block.push(Node::new("vcpus").value(number(vm.vcpus)));
        block.push(Node::new("memory").value(word(shown(vm.memory_mib))));
        block.extend(vm.disk_bytes.map(|bytes| Node::new("disk").value(word(shown(bytes >> 20)))));
        block.extend(vm.volumes.iter().map(|volume| Node::new("volume").value(word(&volume.name))));
        block.extend(vm.shares.iter().map(|share| {
            let readonly = share.readonly.then(|| (None, Value::Word("readonly".to_owned())));
            let mut node = self.path_leaf("share", &share.source).value(self.text(&share.target));
            node.values.extend(readonly);
            if share.driver != ShareDriver::default() {
                node = node.prop("driver", word_of(&SHARE_DRIVERS, &share.driver));
            }
            node
        }));
        block.extend(vm.media.iter().map(|path| self.path_leaf("media", path)));
        block.extend(vm.networks.iter().map(network));
        block.extend(vm.forwards.iter().map(forward));
        block.extend(self.cloud_init(vm));
        block.extend(vm.ssh.as_ref().map(|ssh| {
            let key = ssh.private_key.as_ref().map(|path| self.path_leaf("private-key", path));
            Node::new("ssh").with([self.leaf("user", &ssh.user)]).with(key)
        }));
        block.extend(vm.depends_on.iter().map(|(name, until)| {
            Node::new("depends-on").value(word(name)).prop("until", word_of(&UNTIL, until))
        }));
        block.extend(self.ready(vm));
        block.extend(vm.provision.iter().map(|step| self.step(vm, step)));
        block.extend(vm.checks.iter().map(|check| {
            let probes: Vec<_> = check.probes.iter().map(|probe| self.probe(probe)).collect();
            self.leaf("check", &check.name).with(probes)
        }));
        block.push(Node::new("state").value(word_of(&POWERS, &vm.power)));
        block.push(Node::new("warm").value(word_of(&WARMS, &vm.warm)));
        block.extend(lifecycle(&vm.lifecycle));
        if !vm.labels.is_empty() {
            let labels: Vec<_> = vm.labels.iter().map(|(name, value)| self.leaf(name, value)).collect();
            block.push(Node::new("labels").with(labels));
        }
        Node::new("vm").value(word(&vm.name)).with(block)
    }

    /// All of `values` in one node, if there are any.
    fn words(&mut self, name: &str, values: &[String]) -> Option<Node> {
        let node = Node::new(name);
        (!values.is_empty()).then(|| values.iter().fold(node, |node, value| node.value(self.text(value))))
    }

    fn image(&mut self, image: &DesiredImage) -> Node {
        match image {
            DesiredImage::Local { source, .. } => self.path_leaf("image", source),
            DesiredImage::Remote { url, sha256, .. } => {
                let node = self.leaf("image-url", url);
                match sha256 {
                    Some(digest) => node.prop("sha256", word(digest.hex())),
                    None => node,
                }
            }
        }
    }

    fn kernel(&mut self, kernel: &Kernel) -> Vec<Node> {
        let mut nodes = vec![self.path_leaf("kernel", &kernel.kernel.path)];
        nodes.extend(kernel.initrd.as_ref().map(|initrd| self.path_leaf("initrd", &initrd.path)));
        nodes.extend(kernel.cmdline.as_ref().map(|cmdline| self.leaf("cmdline", cmdline)));
        nodes
    }

    fn ready(&mut self, vm: &DesiredVm) -> Option<Node> {
        let ready = &vm.ready;
        if ready.probes.is_empty() && ready.timeout == READY_TIMEOUT {
            return None;
        }
        let mut block: Vec<_> = ready.probes.iter().map(|probe| self.probe(probe)).collect();
        block.push(Node::new("timeout").value(word(duration::shown(ready.timeout))));
        Some(Node::new(READY.name).with(block))
    }

    fn probe(&mut self, probe: &Probe) -> Node {
        match probe {
            Probe::Login => Node::new("ssh"),
            Probe::Tcp(port) => Node::new("tcp").value(number(port)),
            Probe::Exec(command) => self.leaf("exec", command),
            Probe::Log(pattern) => self.leaf("log", pattern),
        }
    }

    fn step(&mut self, vm: &DesiredVm, step: &ProvisionStep) -> Node {
        let node = Node::new(PROVISION.name);
        let options = &step.options;
        let node = match &step.action {
            ProvisionAction::Shell { script } => {
                let script = match vm.text_files.scripts.get(&step.number) {
                    Some(path) => self.path_leaf("script", path),
                    None => self.leaf("inline", script),
                };
                node.value(word("shell")).with([script])
            }
            ProvisionAction::File { source, destination }
            | ProvisionAction::Folder { source, destination } => {
                let block = [self.path_leaf("source", source), self.leaf("destination", destination)];
                node.value(word("file")).with(block)
            }
        };
        let env: Vec<_> = options.env.iter().map(|(name, value)| self.leaf(name, value.expose())).collect();
        node.with(options.mode.map(|mode| Node::new("mode").value(word(format!("{mode:04o}")))))
            .with(options.owner.as_ref().map(|owner| self.leaf("owner", owner)))
            .with([Node::new("run").value(word_of(&RUNS, &options.run))])
            .with([Node::new("rerun").value(word_of(&RERUNS, &options.rerun))])
            .with((options.retries > 0).then(|| Node::new("retries").value(number(options.retries))))
            .with((!env.is_empty()).then(|| Node::new("env").with(env)))
            .with(options.user.as_ref().map(|user| self.leaf("user", user)))
            .with(options.timeout.map(|limit| Node::new("timeout").value(word(duration::shown(limit)))))
    }
}

fn network(network: &NetworkConfig) -> Node {
    let node = Node::new(NETWORK.name);
    match network {
        NetworkConfig::User => node.value(word("user")),
        NetworkConfig::Isolated => node.value(word("user")).value(word("isolated")),
        NetworkConfig::None => node.value(word("none")),
        NetworkConfig::Tap { bridge } => node.value(word("tap")).prop("bridge", word(bridge)),
        NetworkConfig::Vnic { name } => node.value(word("vnic")).prop("name", word(name)),
        NetworkConfig::Private { name, address, link: _ } => {
            let node = node.value(word("private")).prop("name", word(name));
            match address {
                Some(address) => node.prop("address", word(address)),
                None => node,
            }
        }
    }
}

fn forward(forward: &Forward) -> Node {
    Node::new(FORWARD.name)
        .prop("host", number(forward.host_port))
        .prop("guest", number(forward.guest_port))
        .prop("protocol", word(forward.protocol.as_str()))
        .prop("address", word(forward.host_address))
}

fn lifecycle(lifecycle: &Lifecycle) -> Option<Node> {
    let words = |name: &str, words: Vec<String>| {
        let node = Node::new(name);
        (!words.is_empty()).then(|| words.iter().fold(node, |node, text| node.value(word(text))))
    };
    let triggers = lifecycle.replace_when.iter().map(ToString::to_string).collect();
    (*lifecycle != Lifecycle::default()).then(|| {
        Node::new("lifecycle")
            .with(lifecycle.prevent_destroy.then(|| Node::new("prevent-destroy")))
            .with(words("ignore-changes", lifecycle.ignore_changes.iter().cloned().collect()))
            .with(words("replace-when", triggers))
    })
}

/// Prints the nodes of a block of `shape`, in the canonical order where order has no meaning.
fn print(text: &mut String, mut nodes: Vec<Node>, shape: &Shape, depth: usize) {
    if !shape.is_ordered {
        let place = |node: &Node| shape.block.iter().position(|known| known.name == node.name);
        nodes.sort_by_key(place);
    }
    let mut after_block = false;
    for (index, node) in nodes.into_iter().enumerate() {
        let has_block = !node.block.is_empty();
        if depth == 0 && index > 0 && (has_block || after_block) {
            text.push('\n');
        }
        after_block = has_block;
        let indent = INDENT.repeat(depth);
        text.push_str(&format!("{indent}{}", identifier(&node.name)));
        match node.values.as_slice() {
            [(None, Value::Text(words))] if words.contains('\n') => {
                text.push_str(&format!(" {}", lines(words, &INDENT.repeat(depth + 1))));
            }
            values => {
                for (property, value) in values {
                    let name = property.map(|name| format!("{name}=")).unwrap_or_default();
                    text.push_str(&format!(" {name}{}", literal(value)));
                }
            }
        }
        if let Some(own) = shape.child(&node.name).filter(|_| has_block) {
            text.push_str(" {\n");
            print(text, node.block, own, depth + 1);
            text.push_str(&format!("{indent}}}"));
        }
        text.push('\n');
    }
}

/// A node's name, in quotation marks where it is no plain word.
fn identifier(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        && !["true", "false", "null", "inf", "nan"].contains(&name);
    if is_plain { name.to_owned() } else { quoted(name) }
}

fn literal(value: &Value) -> String {
    match value {
        Value::Word(word) => word.clone(),
        Value::Text(text) => quoted(text),
        Value::Template(text) => format!("(template){}", quoted(text)),
    }
}

/// `text` on one line.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c => push_escaped(&mut quoted, c),
        }
    }
    quoted + "\""
}

/// `text` on lines of its own, each of which begins with `indent`.
fn lines(text: &str, indent: &str) -> String {
    let mut block = String::from("\"\"\"\n");
    for line in text.split('\n') {
        // A line of blanks alone would be taken for an empty one.
        let (line, last) = match line.chars().next_back().filter(|_| line.chars().all(char::is_whitespace)) {
            Some(last) => (&line[..line.len() - last.len_utf8()], format!("\\u{{{:x}}}", u32::from(last))),
            None => (line, String::new()),
        };
        let is_empty = line.is_empty() && last.is_empty();
        block.push_str(if is_empty { "" } else { indent });
        for (index, piece) in line.split("\"\"\"").enumerate() {
            block.push_str(if index > 0 { "\\\"\\\"\\\"" } else { "" });
            for c in piece.chars() {
                if c == '\t' { block.push(c) } else { push_escaped(&mut block, c) }
            }
        }
        block.push_str(&last);
        block.push('\n');
    }
    block + indent + "\"\"\""
}

/// `c` within quotation marks, as itself where KDL allows it.
fn push_escaped(text: &mut String, c: char) {
    match c {
        '\\' => text.push_str("\\\\"),
        '\r' => text.push_str("\\r"),
        c if c.is_control() || is_forbidden(c) || matches!(c, '\u{2028}' | '\u{2029}') => {
            text.push_str(&format!("\\u{{{:x}}}", u32::from(c)));
        }
        c => text.push(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Attribute;

    #[test]
    fn texts_are_quoted_as_kdl_reads_them() {
        for (text, written) in [
            ("plain", "\"plain\""),
            (r#"a "b" \c"#, r#""a \"b\" \\c""#),
            ("tab\tend\r", r#""tab\tend\r""#),
            ("\u{202e}\u{2028}\u{7f}", r#""\u{202e}\u{2028}\u{7f}""#),
        ] {
            assert_eq!(quoted(text), written);
        }
        let text = "set -e\n\n \n\techo \"\"\"\\\"\"\"\"\n";
        let written = "\"\"\"\n  set -e\n\n  \\u{20}\n  \techo \\\"\\\"\\\"\\\\\\\"\\\"\\\"\"\n\n  \"\"\"";
        assert_eq!(lines(text, "  "), written);
    }

    #[test]
    fn words_of_users_are_names_of_nodes_only_where_they_look_like_it() {
        for plain in ["role", "_x", "a-b_2"] {
            assert_eq!(identifier(plain), plain);
        }
        for odd in ["true", "", "2nd", "-1", "two words", "größe", "a.b"] {
            assert_eq!(identifier(odd), format!("\"{odd}\""));
        }
    }

    #[test]
    fn braces_of_texts_are_no_names() {
        let text = |text: &str| OutputPart::Text(text.to_owned());
        let host =
            || OutputPart::Attribute { vm: "web".parse().expect("a name"), attribute: Attribute::Port(80) };
        let template = |parts: Vec<OutputPart>| template(&Output::new(None, parts));
        assert_eq!(template(vec![text("http://"), host(), text("/")]), "http://{{ vm.web.port.80 }}/");
        assert_eq!(template(vec![text("{"), host(), text("}")]), "{{ '{' }}{{ vm.web.port.80 }}}");
        assert_eq!(template(vec![text("{a{{{b"), host()]), "{a{{ '{{{' }}b{{ vm.web.port.80 }}");
    }
}

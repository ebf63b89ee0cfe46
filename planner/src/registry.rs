//! The registry of vm-manager's vmctl 0.1, `vms.json`: machines that another program made. Pure.
//!
//! A name stands for a machine there. Fields that older files do not have mean what they meant to that program. What is
//! said of processes and sockets is not even kept: a number proves nothing.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use vmctl_providers::Name;

/// A machine of the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldMachine {
    /// Its name.
    pub name: Name,
    /// What ran it: `qemu`, `propolis` or `noop`.
    pub backend: String,
    /// Its folder.
    pub work_dir: Option<String>,
    /// Its disk.
    pub overlay: Option<String>,
    /// Number of processors.
    pub vcpus: u16,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Size of its disk in GiB, if one was asked for.
    pub disk_gib: Option<u64>,
    /// How it was connected.
    pub network: OldNetwork,
    /// Port of the host that leads to its sshd.
    pub ssh_port: Option<u16>,
    /// The address of its network card.
    pub mac: Option<String>,
    /// Whether it boots with UEFI.
    pub uefi: bool,
}

/// How a machine of the registry was connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OldNetwork {
    /// Behind the host.
    User,
    /// On this bridge.
    Tap(String),
    /// By this VNIC, which only Propolis had.
    Vnic(String),
    /// Not at all.
    None,
}

/// Something of a registry that cannot be used, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryProblem {
    /// A line and a column, or the names that lead to it.
    pub place: String,
    /// What is wrong.
    pub text: String,
}

impl fmt::Display for RegistryProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

/// Reads a registry; or all that is wrong with it.
pub fn parse_registry(text: &str) -> Result<Vec<OldMachine>, Vec<RegistryProblem>> {
    let tree: Tree = serde_json::from_str(text).map_err(|error| {
        let text = error.to_string();
        let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
        vec![RegistryProblem {
            place: format!("line {}, column {}", error.line(), error.column()),
            text: text.to_owned(),
        }]
    })?;
    let mut problems = Vec::new();
    let mut machines = Vec::new();
    match tree {
        Tree::Map(entries) => {
            let mut seen = BTreeSet::new();
            for (name, tree) in &entries {
                if !seen.insert(name) {
                    problems
                        .push(RegistryProblem { place: quoted(name), text: "stands there twice".to_owned() });
                }
                machines.extend(Reader { name, problems: &mut problems }.machine(tree));
            }
        }
        Tree::Leaf(other) => problems.push(RegistryProblem {
            place: "line 1".to_owned(),
            text: format!("the whole is {}, and not an object with a machine for each name", kind(&other)),
        }),
    }
    if problems.is_empty() { Ok(machines) } else { Err(problems) }
}

/// A value with the names of its objects in order, twice if they are there twice.
enum Tree {
    Map(Vec<(String, Self)>),
    Leaf(Value),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Anything)
    }
}

struct Anything;

impl<'de> Visitor<'de> for Anything {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_unit<E: Error>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        while seq.next_element::<Tree>()?.is_some() {}
        Ok(Tree::Leaf(Value::Array(Vec::new())))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Tree::Map(entries))
    }
}

/// Reads one machine, and notes what is wrong with it.
struct Reader<'a> {
    name: &'a str,
    problems: &'a mut Vec<RegistryProblem>,
}

impl Reader<'_> {
    fn tell(&mut self, field: &str, text: impl Into<String>) {
        let field = if field.is_empty() { String::new() } else { format!(".{field}") };
        self.problems
            .push(RegistryProblem { place: format!("{}{field}", quoted(self.name)), text: text.into() });
    }

    fn machine(&mut self, tree: &Tree) -> Option<OldMachine> {
        let name = self
            .name
            .parse::<Name>()
            .map_err(|error| self.tell("", format!("cannot be a name: {error}")))
            .ok();
        let Tree::Map(fields) = tree else {
            self.tell("", "is no object");
            return None;
        };
        let mut seen = BTreeSet::new();
        for (field, _) in fields {
            if !seen.insert(field) {
                self.tell(field, "stands there twice");
            }
        }
        if self.text(fields, "name").is_some_and(|written| written != self.name) {
            self.tell("name", "is another name than that before the machine");
        }
        let backend = self.text(fields, "backend").unwrap_or_else(|| "qemu".to_owned());
        if !["qemu", "propolis", "noop"].contains(&backend.as_str()) {
            self.tell("backend", "is none of qemu, propolis, noop");
        }
        let network = self.network(fields);
        Some(OldMachine {
            backend,
            work_dir: self.path(fields, "work_dir"),
            overlay: self.path(fields, "overlay_path"),
            vcpus: self
                .number(fields, "vcpus", 1, 255)
                .map_or(1, |number| u16::try_from(number).unwrap_or(1)),
            memory_mib: self.number(fields, "memory_mb", 16, 16 << 20).unwrap_or(1024),
            disk_gib: self.number(fields, "disk_gb", 1, 64 << 10),
            network,
            ssh_port: self
                .number(fields, "ssh_host_port", 1, 65_535)
                .and_then(|port| u16::try_from(port).ok()),
            mac: self.text(fields, "mac_addr"),
            uefi: self.truth(fields, "uefi"),
            name: name?,
        })
    }

    fn network(&mut self, fields: &[(String, Tree)]) -> OldNetwork {
        let Some(tree) = find(fields, "network") else { return OldNetwork::User };
        let Tree::Map(inner) = tree else {
            self.tell("network", "is no object with a `type`");
            return OldNetwork::User;
        };
        let word = |name: &str| match find(inner, name) {
            Some(Tree::Leaf(Value::String(text))) => Some(text.clone()),
            _ => None,
        };
        match word("type").map(|kind| kind.to_lowercase()).as_deref() {
            Some("user") => OldNetwork::User,
            Some("none") => OldNetwork::None,
            Some("tap") => OldNetwork::Tap(word("bridge").unwrap_or_else(|| "br0".to_owned())),
            Some("vnic") => OldNetwork::Vnic(word("name").unwrap_or_default()),
            _ => {
                self.tell("network.type", "is none of user, tap, vnic, none");
                OldNetwork::User
            }
        }
    }

    fn leaf<'t>(&mut self, fields: &'t [(String, Tree)], field: &str) -> Option<&'t Value> {
        match find(fields, field)? {
            Tree::Leaf(value) => Some(value),
            Tree::Map(_) => {
                self.tell(field, "is an object");
                None
            }
        }
    }

    fn text(&mut self, fields: &[(String, Tree)], field: &str) -> Option<String> {
        match self.leaf(fields, field)? {
            Value::String(text) if text.chars().any(char::is_control) => {
                self.tell(field, "has control characters");
                None
            }
            Value::String(text) => Some(text.clone()),
            other => {
                self.tell(field, format!("is {}, and not a text", kind(other)));
                None
            }
        }
    }

    /// A path of the host: whole, as that program wrote them.
    fn path(&mut self, fields: &[(String, Tree)], field: &str) -> Option<String> {
        let path = self.text(fields, field)?;
        if !path.starts_with('/') {
            self.tell(field, "is no whole path");
            return None;
        }
        Some(path)
    }

    fn number(&mut self, fields: &[(String, Tree)], field: &str, low: u64, high: u64) -> Option<u64> {
        let value = self.leaf(fields, field)?;
        let number = value.as_u64().filter(|number| (low..=high).contains(number));
        if number.is_none() {
            self.tell(field, format!("`{value}` is no whole number from {low} to {high}"));
        }
        number
    }

    fn truth(&mut self, fields: &[(String, Tree)], field: &str) -> bool {
        match self.leaf(fields, field) {
            Some(Value::Bool(truth)) => *truth,
            None => false,
            Some(other) => {
                let text = format!("is {}, and neither true nor false", kind(other));
                self.tell(field, text);
                false
            }
        }
    }
}

/// The value of a field; one that is null is not there.
fn find<'t>(fields: &'t [(String, Tree)], field: &str) -> Option<&'t Tree> {
    let found = fields.iter().find(|(name, _)| name == field).map(|(_, tree)| tree);
    found.filter(|tree| !matches!(tree, Tree::Leaf(Value::Null)))
}

fn quoted(name: &str) -> String {
    let shown: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    format!("\"{shown}\"")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        parse_registry(text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn machines_are_read_with_the_defaults_of_older_files() {
        let text = r#"{
            "demo": {"id": "0001", "name": "demo", "backend": "qemu", "work_dir": "/d/vms/demo",
                "overlay_path": "/d/vms/demo/overlay.qcow2", "seed_iso_path": null, "pid": 4711,
                "qmp_socket": "/d/q", "console_socket": "/d/c", "vnc_addr": "127.0.0.1:5900", "vcpus": 2,
                "memory_mb": 2048, "disk_gb": 20, "network": {"type": "tap", "bridge": "br7"},
                "ssh_host_port": 10022, "mac_addr": "52:54:00:00:00:01", "uefi": true},
            "old": {"network": {"type": "User"}}
        }"#;
        let old = OldMachine {
            name: "old".parse().unwrap(),
            backend: "qemu".to_owned(),
            work_dir: None,
            overlay: None,
            vcpus: 1,
            memory_mib: 1024,
            disk_gib: None,
            network: OldNetwork::User,
            ssh_port: None,
            mac: None,
            uefi: false,
        };
        let demo = OldMachine {
            name: "demo".parse().unwrap(),
            backend: "qemu".to_owned(),
            work_dir: Some("/d/vms/demo".to_owned()),
            overlay: Some("/d/vms/demo/overlay.qcow2".to_owned()),
            vcpus: 2,
            memory_mib: 2048,
            disk_gib: Some(20),
            network: OldNetwork::Tap("br7".to_owned()),
            ssh_port: Some(10022),
            mac: Some("52:54:00:00:00:01".to_owned()),
            uefi: true,
        };
        assert_eq!(parse_registry(text), Ok(vec![demo, old]));
        assert_eq!(parse_registry("{}"), Ok(Vec::new()));
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once_with_its_place() {
        let text = r#"{"": {}, "..": {}, "/abs": {}, "a": 7, "b": {"name": "c", "vcpus": 0, "memory_mb": -5,
            "disk_gb": 1e400000, "uefi": "yes"}}"#;
        assert!(problems(text)[0].contains("column"), "a number beyond all bounds: {:?}", problems(text));
        let text = r#"{"": {}, "..": {}, "/abs": {}, "a": 7, "b": {"name": "c", "vcpus": 0, "memory_mb": -5,
            "disk_gb": 18446744073709551616, "uefi": "yes", "network": {"type": "bridge"}, "overlay_path": "x",
            "ssh_host_port": 65536, "backend": "xen", "mac_addr": 1, "vcpus": 1}, "a": {}}"#;
        insta::assert_snapshot!(problems(text).join("\n"), @r#"
        "": cannot be a name: a name cannot be empty
        "..": cannot be a name: a name begins and ends with a letter or digit
        "/abs": cannot be a name: a name cannot contain '/'
        "a": is no object
        "b".vcpus: stands there twice
        "b".name: is another name than that before the machine
        "b".backend: is none of qemu, propolis, noop
        "b".network.type: is none of user, tap, vnic, none
        "b".overlay_path: is no whole path
        "b".vcpus: `0` is no whole number from 1 to 255
        "b".memory_mb: `-5` is no whole number from 16 to 16777216
        "b".disk_gb: `1.8446744073709552e+19` is no whole number from 1 to 65536
        "b".ssh_host_port: `65536` is no whole number from 1 to 65535
        "b".mac_addr: is a number, and not a text
        "b".uefi: is a text, and neither true nor false
        "a": stands there twice
        "#);
    }

    #[test]
    fn text_that_is_cut_off_is_told_with_line_and_column() {
        for text in ["", "{", "{\"a\": {\"vcpus\": 1", "{\"a\": {}} x", "nonsense"] {
            let told = problems(text);
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].starts_with("line 1, column "), "{told:?}");
        }
        assert!(problems("[]")[0].contains("a list"));
        assert!(problems(&"[".repeat(10_000))[0].contains("recursion"));
    }
}

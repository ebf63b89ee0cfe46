//! The one table that says what a change of each field needs.

use serde_json::Value;

use crate::recorded::RecordedVm;

/// What a change of a field needs, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// The machine goes on running; only what vmctl remembers changes.
    InPlace,
    /// A graceful stop, the change, and a start on the same disk.
    Restart,
    /// A new machine; the disk is lost.
    Replace,
}

/// One field of a machine.
#[derive(Debug)]
pub struct Field {
    /// Its name, as in the VMFile.
    pub name: &'static str,
    /// What a change needs, given the values before and after.
    pub class: fn(&RecordedVm, &RecordedVm) -> Class,
    /// Its value, for comparing and for showing.
    pub value: fn(&RecordedVm) -> Value,
    /// Unit that is shown behind a number.
    pub unit: &'static str,
}

/// All fields of a machine, in the order in which they are shown.
pub const FIELDS: &[Field] = &[
    field("backend", |_, _| Class::Replace, |vm| json(&vm.backend)),
    field("image", |_, _| Class::Replace, |vm| json(&vm.image.digest)),
    field("image path", |_, _| Class::InPlace, |vm| json(&vm.image_source)),
    field("vcpus", |_, _| Class::Restart, |vm| json(&vm.vcpus)),
    with_unit("memory", "MiB", |_, _| Class::Restart, |vm| json(&vm.memory_mib)),
    with_unit("disk", "GiB", disk_class, |vm| json(&vm.disk_bytes.map(|bytes| bytes >> 30))),
    field("network", |_, _| Class::Restart, |vm| json(&vm.networks)),
    field(
        "forward",
        |_, _| Class::Restart,
        |vm| json(&vm.forwards.iter().map(forward_text).collect::<Vec<_>>()),
    ),
    field("cloud-init.hostname", |_, _| Class::Replace, |vm| seed(vm, |seed| json(&seed.hostname))),
    field("cloud-init.user", |_, _| Class::Replace, |vm| seed(vm, |seed| json(&seed.user))),
    field("cloud-init.ssh-key", |_, _| Class::Replace, |vm| seed(vm, |seed| json(&seed.authorized_keys))),
    field("cloud-init.user-data", |_, _| Class::Replace, |vm| seed(vm, |seed| json(&seed.user_data))),
    field("ssh", ssh_class, |vm| json(&vm.ssh)),
    field("state", |_, _| Class::InPlace, |vm| json(&vm.power)),
    field("depends-on", |_, _| Class::InPlace, |vm| json(&vm.depends_on)),
];

const fn field(
    name: &'static str,
    class: fn(&RecordedVm, &RecordedVm) -> Class,
    value: fn(&RecordedVm) -> Value,
) -> Field {
    Field { name, class, value, unit: "" }
}

const fn with_unit(
    name: &'static str,
    unit: &'static str,
    class: fn(&RecordedVm, &RecordedVm) -> Class,
    value: fn(&RecordedVm) -> Value,
) -> Field {
    Field { name, class, value, unit }
}

/// A disk grows on the same machine; it never shrinks.
fn disk_class(before: &RecordedVm, after: &RecordedVm) -> Class {
    let size = |vm: &RecordedVm| vm.disk_bytes.unwrap_or(vm.image.virtual_size).max(vm.image.virtual_size);
    if size(after) < size(before) { Class::Replace } else { Class::Restart }
}

/// Login settings change in place; gaining or losing them adds or removes the forward to sshd.
fn ssh_class(before: &RecordedVm, after: &RecordedVm) -> Class {
    if before.ssh.is_some() == after.ssh.is_some() { Class::InPlace } else { Class::Restart }
}

fn seed(vm: &RecordedVm, value: fn(&crate::recorded::RecordedCloudInit) -> Value) -> Value {
    vm.cloud_init.as_ref().map_or(Value::Null, value)
}

fn forward_text(forward: &vmctl_providers::Forward) -> String {
    let port = if forward.host_port == 0 { "auto".to_owned() } else { forward.host_port.to_string() };
    format!("{}:{port} -> {}/{}", forward.host_address, forward.guest_port, forward.protocol.as_str())
}

/// The JSON form of a plain value.
fn json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).expect("plain data with string keys always has a JSON form")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = FIELDS.iter().map(|field| field.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FIELDS.len());
    }

    #[test]
    fn classes_grow_in_the_order_of_harm() {
        assert!(Class::InPlace < Class::Restart && Class::Restart < Class::Replace);
    }
}

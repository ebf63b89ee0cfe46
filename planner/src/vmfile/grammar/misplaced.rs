//! What to say of words that are known elsewhere.

use super::{LIFECYCLE, READY, VM};

fn is_in(shape: &super::Shape, name: &str) -> bool {
    shape.block.iter().any(|child| child.name == name)
}

pub(super) fn in_file(name: &str) -> Option<String> {
    let with_dashes = name.replace('_', "-");
    if is_in(&LIFECYCLE, &with_dashes) {
        return Some(format!("`{with_dashes}` belongs in a machine's `lifecycle {{ {with_dashes} … }}`"));
    }
    if is_in(&VM, name) {
        return Some(format!("`{name}` belongs in a machine: `vm \"web\" {{ {name} … }}`"));
    }
    match name {
        "locals" | "variables" | "vars" | "var" => {
            return Some("write a node for each variable: `variable \"size\" { default 2048 }`".to_owned());
        }
        "resource" | "machine" | "service" | "vms" => {
            return Some("a machine is written as `vm \"web\" { … }`".to_owned());
        }
        "subnet" => {
            return Some(
                "`subnet` belongs in a network: `network \"lan\" { subnet \"10.77.0.0/24\" }`".to_owned(),
            );
        }
        "import" => return Some("another file is read by `include \"other.kdl\"`".to_owned()),
        _ => {}
    }
    is_in(&READY, name).then(|| format!("`{name}` belongs in a machine's `ready {{ {name} … }}`"))
}

pub(super) fn in_vm(name: &str) -> Option<String> {
    let with_dashes = name.replace('_', "-");
    let owner = match with_dashes.as_str() {
        "hostname" | "ssh-key" | "user-data" => "cloud-init",
        "user" | "private-key" => "ssh",
        "inline" | "script" | "run" | "env" => "provision \"shell\"",
        "source" | "destination" | "mode" | "owner" => "provision \"file\"",
        "bridge" => "network \"tap\"",
        "prevent-destroy" | "ignore-changes" | "replace-when" => "lifecycle",
        "tcp" | "exec" | "log" => {
            return Some(format!("`{name}` belongs in `ready {{ … }}` or in `check \"answers\" {{ … }}`"));
        }
        "timeout" => "ready",
        "vm" => return Some("a machine stands at the top level: is a `}` missing before it?".to_owned()),
        "project" | "moved" | "removed" | "include" | "variable" | "defaults" | "output" => {
            return Some(format!("`{name}` stands at the top level, outside of any `vm`"));
        }
        "template" | "count" => {
            return Some(format!("`{name}` is a property: `vm \"web\" {name}=…`"));
        }
        "sha256" => {
            return Some("`sha256` is a property of the image: `image \"…\" sha256=\"…\"`".to_owned());
        }
        "cpus" | "cpu-count" => return Some("did you mean `vcpus`?".to_owned()),
        "ram" | "mem" => return Some("did you mean `memory`?".to_owned()),
        "subnet" => return Some(
            "`subnet` belongs to a network of the top level: `network \"lan\" { subnet \"10.77.0.0/24\" }`"
                .to_owned(),
        ),
        _ => return None,
    };
    Some(format!("`{with_dashes}` belongs in a block of its own: `{owner} {{ {with_dashes} … }}`"))
}

pub(super) fn in_network(name: &str) -> Option<String> {
    (name == "subnet").then(|| {
        "`subnet` belongs to a network of the top level: `network \"lan\" { subnet \"10.77.0.0/24\" }`"
            .to_owned()
    })
}

/// Words of a machine's nodes of the same names.
pub(super) fn in_definition(name: &str) -> Option<String> {
    match name {
        "name" | "bridge" | "address" => Some(format!(
            "at the top level stands a network between machines; in a machine: `network \"…\" {name}=\"…\"`"
        )),
        "size" => Some("`size` is a property: `volume \"data\" size=\"10G\"`".to_owned()),
        "lifecycle" => Some("write `prevent-destroy` without a block around it".to_owned()),
        "value" => Some("the value is the second argument: `output \"url\" \"http://…\"`".to_owned()),
        "image-url" => Some("did you mean `url`?".to_owned()),
        _ => None,
    }
}

/// Words of Terraform that have another name or no place here.
pub(super) fn in_variable(name: &str) -> Option<String> {
    match name {
        "validation" | "values" | "enum" => {
            Some("the values that are allowed: `one-of 1024 2048`".to_owned())
        }
        "nullable" | "ephemeral" => Some("remove it: there is nothing like it here".to_owned()),
        "value" => Some("did you mean `default`?".to_owned()),
        _ => None,
    }
}

/// Words of Terraform that have another name or no place here.
pub(super) fn in_lifecycle(name: &str) -> Option<String> {
    let help = match name.replace('_', "-").as_str() {
        "replace-triggered-by" => "did you mean `replace-when`?",
        "create-before-destroy" => "remove it: a machine is destroyed before its replacement is made",
        "precondition" | "postcondition" => {
            "what must hold is written beside `lifecycle`: `check \"answers\" { tcp 80 }`"
        }
        _ => return None,
    };
    Some(help.to_owned())
}

pub(super) fn in_check(name: &str) -> Option<String> {
    let help = match name {
        "ssh" => "write `exec \"true\"` to ask for a working login",
        "timeout" => "`timeout` stands in `ready`; a check has none",
        _ => return None,
    };
    Some(help.to_owned())
}

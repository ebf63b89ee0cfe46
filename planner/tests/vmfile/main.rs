//! VMFiles that are right, and what they ask for.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/site.rs"]
mod site;

mod files;
mod guest;
mod include;
mod layers;
mod lifecycle;
mod limits;
mod machine;
mod properties;
mod propolis;
mod values;

use common::{FakeImages, identity};
use site::Site;
use vmctl_planner::desired::{DesiredImage, DesiredVm};
use vmctl_providers::provision::{ProvisionAction, ProvisionStep};
use vmctl_providers::{Digest, Name};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn names(site: &Site) -> Vec<String> {
    site.vms().keys().map(ToString::to_string).collect()
}

/// The machine `web` of layers written as blocks: `defaults`, `base`, `middle` made of `base`, and `web` made of it.
fn layered(defaults: &str, base: &str, middle: &str, own: &str) -> DesiredVm {
    let site = Site::new(&format!(
        "vm \"web\" template=\"middle\" {{\nimage \"disk.img\"\n{own}\n}}
        vm \"db\" {{ image \"disk.img\" }}
        template \"middle\" template=\"base\" {{\n{middle}\n}}
        template \"base\" {{\n{base}\n}}
        defaults {{\n{defaults}\n}}"
    ));
    site.vm("web")
}

/// A machine with all defaults, in the folder of `site`.
fn default_vm(site: &Site, vm: &str) -> DesiredVm {
    DesiredVm {
        image: Some(DesiredImage::Local { source: site.path("disk.img"), identity: identity() }),
        ..DesiredVm::new(name(vm))
    }
}

fn shell(number: usize, label: &str, script: &str) -> ProvisionStep {
    ProvisionStep {
        number,
        label: label.to_owned(),
        action: ProvisionAction::Shell { script: script.to_owned() },
        options: Default::default(),
        digest: Digest::of(format!("shell\0{script}")),
        secrets: Default::default(),
    }
}

//! A machine as its record describes it, for where the VMFile that asked for it is gone.

use vmctl_providers::{CloudInitConfig, Name, SeedContent, secrets};
use vmctl_state::Record;

use crate::desired::{DesiredImage, DesiredVm, ready_at_login};
use crate::recorded::{RecordError, RecordedCloudInit, RecordedVm, spec_of};

/// What a record says of its machine, and in words what it does not hold: texts are remembered by their digests alone.
pub fn remembered(record: &Record, name: &Name) -> Result<(DesiredVm, Vec<String>), RecordError> {
    let spec = RecordedVm::clone(&*spec_of(record)?);
    let mut missing = Vec::new();
    let ready = spec.ready.clone().unwrap_or_else(|| ready_at_login(spec.ssh.as_ref()));
    let cloud_init = spec.cloud_init.as_ref().map(|seed| seed_of(seed, &mut missing));
    match record.provisioned.len() {
        0 => {}
        ran => missing.push(format!("provision: {ran} steps ran; what they did is not remembered.")),
    }
    if secrets::is_sealed(record.spec.json()) {
        missing.push("Values of sensitive variables stand here as `(sensitive…)`: put them in.".to_owned());
    }
    let vm = DesiredVm {
        backend: spec.backend,
        image: image(&spec),
        hardware: spec.hardware,
        vcpus: spec.vcpus,
        memory_mib: spec.memory_mib,
        disk_bytes: spec.disk_bytes,
        volumes: spec.volumes,
        shares: spec.shares,
        media: spec.media,
        networks: spec.networks,
        forwards: spec.forwards,
        cloud_init,
        ssh: spec.ssh,
        power: spec.power,
        depends_on: spec.depends_on,
        lifecycle: spec.lifecycle,
        ready,
        checks: spec.checks,
        labels: spec.labels,
        ..DesiredVm::new(name.clone())
    };
    Ok((vm, missing))
}

fn image(spec: &RecordedVm) -> Option<DesiredImage> {
    let source = spec.image_source.clone()?;
    match &spec.image {
        Some(identity) if spec.image_pin.is_none() => {
            Some(DesiredImage::Local { source: source.into(), identity: identity.clone() })
        }
        Some(_) | None => {
            Some(DesiredImage::Remote { url: source, name: None, sha256: spec.image_pin.clone(), pin: None })
        }
    }
}

fn seed_of(seed: &RecordedCloudInit, missing: &mut Vec<String>) -> CloudInitConfig {
    if seed.user_data.is_some() {
        missing.push("cloud-init { user-data }: its text is not remembered; name the file again.".to_owned());
    }
    for key in &seed.authorized_keys {
        missing.push(format!("cloud-init {{ ssh-key }}: name the file of `{key}` again."));
    }
    for user in seed.users.iter().filter(|user| !user.authorized_keys.is_empty()) {
        missing.push(format!("cloud-init {{ user \"{}\" {{ ssh-key }} }}: name the files again.", user.name));
    }
    for file in &seed.files {
        missing
            .push(format!("cloud-init {{ write-file \"{}\" }}: its content is not remembered.", file.path));
    }
    match seed.commands.len() {
        0 => {}
        commands => missing.push(format!("cloud-init {{ run }}: {commands} commands are not remembered.")),
    }
    CloudInitConfig {
        hostname: seed.hostname.clone(),
        user: seed.user.clone(),
        authorized_keys: Vec::new(),
        user_data: None,
        more: SeedContent {
            merges: false,
            users: seed.users.clone(),
            packages: seed.packages.clone(),
            ..SeedContent::default()
        },
    }
}

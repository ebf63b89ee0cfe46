//! The desired state as data, after all substitution; documented in `docs/json.md`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use vmctl_providers::provision::{ProvisionAction, ProvisionStep, Rerun, Run};
use vmctl_providers::{Probe, PropolisOptions, Sudo};

use crate::desired::{Desired, DesiredImage, DesiredVm, InputFile, Output};
use crate::vmfile::template;

/// Version of the document's form.
const FORMAT_VERSION: u32 = 1;

/// What `desired` asks for, as one JSON document. Sensitive values are replaced by [`crate::vmfile::HIDDEN`].
pub fn document(desired: &Desired) -> Value {
    let form = Form { desired };
    let networks: BTreeMap<_, _> = desired
        .networks
        .iter()
        .map(|(name, network)| (name, json!({ "subnet": network.subnet.map(|subnet| subnet.to_string()) })))
        .collect();
    let vms: BTreeMap<_, _> = desired.vms.iter().map(|(name, vm)| (name, form.vm(vm))).collect();
    let outputs: BTreeMap<_, _> =
        desired.outputs.iter().map(|(name, output)| (name, form.output(output))).collect();
    json!({
        "format": FORMAT_VERSION,
        "project": desired.project,
        "networks": networks,
        "volumes": desired.volumes,
        "vms": vms,
        "outputs": outputs,
        "moved": desired.moved,
        "removed": desired.removed,
        "inputs": desired.inputs.iter().map(|input| form.input(input)).collect::<Vec<_>>(),
    })
}

/// Gives each part its form. All fields are always there: null, or empty, where nothing holds.
struct Form<'d> {
    desired: &'d Desired,
}

impl Form<'_> {
    fn text(&self, text: &str) -> String {
        self.desired.secrets.hide(text)
    }

    fn maybe(&self, text: Option<&String>) -> Option<String> {
        text.map(|text| self.text(text))
    }

    fn path(&self, path: &Path) -> String {
        self.text(&path.to_string_lossy())
    }

    fn input(&self, input: &InputFile) -> Value {
        json!({ "path": self.path(&input.path), "digest": input.digest })
    }

    fn output(&self, output: &Output) -> Value {
        json!({
            "template": self.text(&template(output)),
            "description": self.maybe(output.description.as_ref()),
        })
    }

    fn propolis(&self, options: &PropolisOptions) -> Option<Value> {
        (!options.is_default()).then(|| {
            json!({
                "server": options.server,
                "binary": options.binary.as_ref().map(|path| self.path(path)),
                "bootrom": options.bootrom.as_ref().map(|path| self.path(path)),
                "api_version": self.maybe(options.api_version.as_ref()),
                "pool": self.maybe(options.pool.as_ref()),
                "vnic_link": self.maybe(options.vnic_link.as_ref()),
                "zone": options.zone,
            })
        })
    }

    fn vm(&self, vm: &DesiredVm) -> Value {
        let hardware = &vm.hardware;
        let kernel = hardware.kernel.as_ref().map(|kernel| {
            json!({
                "kernel": self.input(&kernel.kernel),
                "initrd": kernel.initrd.as_ref().map(|initrd| self.input(initrd)),
                "cmdline": self.maybe(kernel.cmdline.as_ref()),
            })
        });
        let share = |share: &crate::desired::Share| {
            json!({
                "source": self.path(&share.source),
                "target": self.text(&share.target),
                "readonly": share.readonly,
                "driver": share.driver,
            })
        };
        let ssh = vm.ssh.as_ref().map(|ssh| {
            json!({
                "user": self.text(&ssh.user),
                "private_key": ssh.private_key.as_ref().map(|path| self.path(path)),
            })
        });
        let labels: BTreeMap<_, _> = vm.labels.iter().map(|(name, value)| (name, self.text(value))).collect();
        let check = |check: &crate::desired::Check| json!({ "name": self.text(&check.name), "probes": self.probes(&check.probes) });
        json!({
            "backend": vm.backend,
            "image": vm.image.as_ref().map(|image| self.image(image)),
            "arch": hardware.guest_arch(),
            "firmware": hardware.firmware,
            "kernel": kernel,
            "machine": self.maybe(hardware.machine.as_ref()),
            "cpu": self.maybe(hardware.cpu.as_ref()),
            "accel": hardware.accel,
            "vnc": hardware.vnc,
            "propolis": self.propolis(&hardware.propolis),
            "qemu_args": hardware.qemu_args.iter().map(|arg| self.text(arg)).collect::<Vec<_>>(),
            "vcpus": vm.vcpus,
            "memory_mib": vm.memory_mib,
            "disk_bytes": vm.disk_bytes,
            "volumes": vm.volumes.iter().map(|volume| &volume.name).collect::<Vec<_>>(),
            "shares": vm.shares.iter().map(share).collect::<Vec<_>>(),
            "media": vm.media.iter().map(|path| self.path(path)).collect::<Vec<_>>(),
            "networks": vm.networks,
            "forwards": vm.forwards,
            "cloud_init": self.cloud_init(vm),
            "ssh": ssh,
            "depends_on": vm.depends_on,
            "ready": {
                "probes": self.probes(&vm.ready.probes),
                "timeout_ms": u64::try_from(vm.ready.timeout.as_millis()).unwrap_or(u64::MAX),
            },
            "provision": vm.provision.iter().map(|step| self.step(vm, step)).collect::<Vec<_>>(),
            "checks": vm.checks.iter().map(check).collect::<Vec<_>>(),
            "state": vm.power,
            "warm": vm.warm,
            "lifecycle": {
                "prevent_destroy": vm.lifecycle.prevent_destroy,
                "ignore_changes": vm.lifecycle.ignore_changes,
                "replace_when": vm.lifecycle.replace_when.iter().map(ToString::to_string).collect::<Vec<_>>(),
            },
            "labels": labels,
        })
    }

    fn image(&self, image: &DesiredImage) -> Value {
        match image {
            DesiredImage::Local { source, identity } => json!({
                "path": self.path(source),
                "url": null,
                "digest": identity.digest,
                "format": identity.format,
                "virtual_size": identity.virtual_size,
            }),
            DesiredImage::Remote { url, .. } => json!({
                "path": null,
                "url": self.text(url),
                "digest": image.digest(),
                "format": image.identity().map(|identity| identity.format),
                "virtual_size": image.identity().map(|identity| identity.virtual_size),
            }),
        }
    }

    fn cloud_init(&self, vm: &DesiredVm) -> Option<Value> {
        let seed = vm.cloud_init.as_ref()?;
        let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| self.path(path));
        Some(json!({
            "hostname": self.text(&seed.hostname),
            "user": self.text(&seed.user),
            "authorized_keys": seed.authorized_keys,
            "ssh_key": path(&vm.text_files.ssh_key),
            "users": seed.more.users.iter().zip(&vm.text_files.user_keys).map(|(user, keys)| json!({
                "name": user.name,
                "authorized_keys": user.authorized_keys,
                "ssh_keys": keys.iter().map(|path| self.path(path)).collect::<Vec<_>>(),
                "groups": user.groups,
                "sudo": user.sudo.as_ref().map(|sudo| match sudo {
                    Sudo::Nothing => json!(false),
                    Sudo::Rule(rule) => json!(rule),
                }),
                "shell": user.shell,
            })).collect::<Vec<_>>(),
            "user_data": path(&vm.text_files.user_data),
            "merge_keys": seed.more.merges,
            "packages": seed.more.packages.iter().map(|package| self.text(package)).collect::<Vec<_>>(),
            "write_files": seed.more.files.iter().map(|file| json!({
                "path": self.text(&file.path),
                "content": self.text(file.content.text.expose()),
                "mode": file.mode.map(|mode| format!("{mode:04o}")),
                "owner": file.owner,
            })).collect::<Vec<_>>(),
            "run": seed.more.commands.iter().map(|command| self.text(command.text.expose())).collect::<Vec<_>>(),
        }))
    }

    fn probes(&self, probes: &[Probe]) -> Vec<Value> {
        let form = |probe: &Probe| match probe {
            Probe::Login => json!("login"),
            Probe::Tcp(port) => json!({ "tcp": port }),
            Probe::Exec(command) => json!({ "exec": self.text(command) }),
            Probe::Log(pattern) => json!({ "log": self.text(pattern) }),
        };
        probes.iter().map(form).collect()
    }

    fn step(&self, vm: &DesiredVm, step: &ProvisionStep) -> Value {
        let options = &step.options;
        let script = vm.text_files.scripts.get(&step.number).map(|path| self.path(path));
        let (kind, inline, source, destination) = match &step.action {
            ProvisionAction::Shell { script: text } => {
                ("shell", script.is_none().then(|| self.text(text)), None, None)
            }
            ProvisionAction::File { source, destination }
            | ProvisionAction::Folder { source, destination } => {
                ("file", None, Some(self.path(source)), Some(self.text(destination)))
            }
        };
        let env: BTreeMap<_, _> =
            options.env.iter().map(|(name, value)| (name, self.text(value.expose()))).collect();
        let run = match options.run {
            Run::OnChange => "on-change",
            Run::Once => "once",
            Run::Always => "always",
        };
        let rerun = match options.rerun {
            Rerun::Ask => "ask",
            Rerun::Safe => "safe",
        };
        json!({
            "number": step.number,
            "kind": kind,
            "inline": inline,
            "script": script,
            "source": source,
            "destination": destination,
            "digest": step.digest,
            "run": run,
            "rerun": rerun,
            "retries": options.retries,
            "env": env,
            "user": self.maybe(options.user.as_ref()),
            "timeout_ms": options.timeout.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
            "mode": options.mode.map(|mode| format!("{mode:04o}")),
            "owner": self.maybe(options.owner.as_ref()),
        })
    }
}

//! `status`: everything known about one machine.

use serde::Serialize;
use vmctl_providers::{Forward, GuestAccess, GuestInterface, NetworkConfig, Nic, VmState};

use super::JSON_FORMAT;
use crate::args::StatusArgs;
use crate::context::{Context, small_runtime};
use crate::error::{CliError, Exit};
use crate::facts::Facts;
use crate::machines::{self, Machine};
use crate::ui::{self, LABEL};
use crate::watch::watch;

#[derive(Serialize)]
struct Document {
    format: u32,
    vm: Facts,
    /// What the guest says of itself; null if nobody there tells.
    guest: Option<GuestFacts>,
}

/// What the guest's agent says. Nothing of it is proven.
#[derive(Serialize)]
struct GuestFacts {
    interfaces: Vec<GuestInterface>,
}

/// Runs the command. It succeeds whatever the machine does.
pub(crate) fn run(ctx: &Context, args: &StatusArgs) -> Result<Exit, CliError> {
    if args.watch {
        return watch(args.json, async || {
            let (machine, document) = look(ctx, &args.name).await?;
            if args.json { ui::json_line(&document) } else { Ok(document.text(&machine)) }
        });
    }
    let (machine, document) = small_runtime()?.block_on(look(ctx, &args.name))?;
    if args.json {
        ui::print_json(&document)?;
    } else {
        ui::print(&document.text(&machine))?;
    }
    Ok(Exit::Fine)
}

async fn look(ctx: &Context, name: &str) -> Result<(Machine, Document), CliError> {
    let machine = machines::one_now(ctx, Some(name)).await?;
    let guest = guest(ctx, &machine).await?;
    let vm = machine.facts();
    Ok((machine, Document { format: JSON_FORMAT, vm, guest }))
}

impl Document {
    fn text(&self, machine: &Machine) -> String {
        text(&self.vm, self.guest.as_ref(), machine.state_and_remarks())
    }
}

/// Asks a guest that runs. One that does not answer as it should is one that tells nothing: the rest is worth showing.
async fn guest(ctx: &Context, machine: &Machine) -> Result<Option<GuestFacts>, CliError> {
    let Some(found) = machine.inspection().filter(|found| found.state == VmState::Running) else {
        return Ok(None);
    };
    let hypervisor = ctx.hypervisor(&ctx.project_dir(&machine.project)?)?;
    Ok(match hypervisor.interfaces(&found.handle).await {
        Ok(interfaces) => interfaces.map(|interfaces| GuestFacts { interfaces }),
        Err(error) => {
            tracing::warn!(%error, "the guest cannot be asked for its addresses");
            None
        }
    })
}

/// The facts, one a line; what is not known has no line.
fn text(facts: &Facts, guest: Option<&GuestFacts>, state: String) -> String {
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let mut rows: Vec<(&str, Option<String>)> = vec![
        ("Name", Some(facts.name.clone())),
        ("Project", Some(facts.project.clone())),
        ("ID", Some(facts.id.clone())),
        ("Backend", Some(facts.backend.clone())),
        ("State", Some(state)),
        ("Recorded", Some(facts.recorded.to_owned())),
        ("Unreachable", facts.unreachable.clone()),
        ("Tainted", facts.tainted.clone()),
        ("vCPUs", facts.vcpus.map(|n| n.to_string())),
        ("Memory", facts.memory_mib.map(ui::mebibytes)),
        ("Disk", facts.disk_bytes.map(ui::bytes)),
        ("Image", facts.image.as_ref().map(|image| image.digest.to_string())),
    ];
    rows.extend(facts.networks.iter().map(|nic| ("Network", Some(network(nic)))));
    rows.extend(facts.forwards.iter().map(|forward| ("Forward", Some(port(forward)))));
    rows.push(("IP", facts.ip.map(|ip| ip.to_string())));
    let interfaces = guest.iter().flat_map(|guest| &guest.interfaces);
    rows.extend(interfaces.map(|interface| ("Guest says", Some(of_the_guest(interface)))));
    rows.extend([
        ("Work folder", path(&facts.work_dir)),
        ("Overlay", path(&facts.overlay)),
        ("Seed", path(&facts.seed)),
        ("Variables", path(&facts.uefi_variables)),
        ("PID", facts.pid.map(|pid| pid.to_string())),
        ("Accelerator", facts.accel.clone()),
        ("VNC", facts.vnc.clone()),
        ("SSH", facts.ssh.as_ref().map(|ssh| ssh.command.clone())),
    ]);
    rows.extend(facts.provisioned.iter().map(|step| {
        ("Provisioned", Some(format!("step {} at {:.0} ({})", step.step, step.at, step.digest)))
    }));
    rows.extend(provisioning(facts).map(|text| ("Provisioning", Some(text))));
    rows.push(("Forced stop", facts.forced_stop.clone()));
    rows.extend(facts.damage.iter().map(|damage| ("Damage", Some(damage.to_string()))));
    rows.push(("Created", Some(format!("{:.0}", facts.created))));
    rows.push(("Updated", Some(format!("{:.0}", facts.updated))));

    let width = rows.iter().map(|(label, _)| label.len() + 1).max().unwrap_or(0);
    let mut text = String::new();
    for (label, value) in rows {
        if let Some(value) = value {
            let label = format!("{label}:");
            text.push_str(&format!("{LABEL}{label:width$}{LABEL:#}  {}\n", ui::visible(&value)));
        }
    }
    text
}

/// Where provisioning stands if it did not come to its end, and how to go on.
fn provisioning(facts: &Facts) -> Option<String> {
    let name = &facts.name;
    if let Some(step) = &facts.provision_interrupted {
        return Some(format!(
            "interrupted at step {} `{}` at {:.0}: what became of it is unknown. `vmctl apply --rerun {name}` runs it \
             again, `vmctl state provisioned {name}` takes it for done",
            step.number, step.label, step.at
        ));
    }
    facts.provision_failed.as_ref().map(|step| {
        format!(
            "failed at step {} `{}` at {:.0}: {}. `vmctl apply` tries it again, `vmctl log {name} --provision` shows \
             what it printed",
            step.number, step.label, step.at, step.message
        )
    })
}

fn network(nic: &Nic) -> String {
    let kind = match &nic.network {
        NetworkConfig::User => "user".to_owned(),
        NetworkConfig::Isolated => "user, isolated".to_owned(),
        NetworkConfig::Tap { bridge } => format!("tap on bridge {bridge}"),
        NetworkConfig::Vnic { name } => format!("vnic {name}"),
        NetworkConfig::Private { name, address: None, .. } => format!("private {name}"),
        NetworkConfig::Private { name, address: Some(address), .. } => format!("private {name}, {address}"),
        NetworkConfig::None => "none".to_owned(),
    };
    format!("{kind}, MAC {}", nic.mac)
}

fn of_the_guest(interface: &GuestInterface) -> String {
    let addresses: Vec<_> = interface.addresses.iter().map(ToString::to_string).collect();
    let addresses = if addresses.is_empty() { "no address".to_owned() } else { addresses.join(" ") };
    format!("{}: {addresses}", interface.name)
}

fn port(forward: &Forward) -> String {
    format!(
        "{}/{} -> guest port {}",
        std::net::SocketAddr::new(forward.host_address, forward.host_port),
        forward.protocol.as_str(),
        forward.guest_port
    )
}

#[cfg(test)]
mod tests {
    use vmctl_state::{FailedProvision, Interrupted};

    use super::*;
    use crate::machines::samples;

    fn shown(machine: &Machine) -> String {
        let text = text(&machine.facts(), None, machine.state_and_remarks());
        anstream::adapter::strip_str(&text).to_string()
    }

    #[test]
    fn running_machine_shows_everything() {
        insta::assert_snapshot!(shown(&samples::machine("web", VmState::Running)), @r"
        Name:         web
        Project:      shop
        ID:           00000000-0000-0000-0000-000000001234
        Backend:      qemu
        State:        running
        Recorded:     running
        vCPUs:        2
        Memory:       2 GiB
        Disk:         1 GiB
        Image:        sha256:cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2
        Network:      user, MAC 52:54:00:ab:cd:01
        Forward:      127.0.0.1:40022/tcp -> guest port 22
        Work folder:  /data/projects/shop/vms/web
        Overlay:      /data/projects/shop/vms/web/overlay.qcow2
        Seed:         /data/projects/shop/vms/web/seed.img
        PID:          4711
        Accelerator:  kvm
        VNC:          unix:/run/vmctl/0/vnc.sock
        SSH:          ssh -F none -o IdentitiesOnly=yes -o IdentityFile=/data/projects/shop/vms/web/id_ed25519 -o UserKnownHostsFile=/data/projects/shop/vms/web/known_hosts -o GlobalKnownHostsFile=none -o HostKeyAlias=vmctl-0000000000000000 -o StrictHostKeyChecking=accept-new -o ConnectTimeout=60 -o CheckHostIP=no -p 40022 -l vm -- 127.0.0.1
        Provisioned:  step 1 at 1970-01-01T00:00:00Z (sha256:00)
        Created:      1970-01-01T00:00:00Z
        Updated:      1970-01-01T00:00:00Z
        ");
    }

    #[test]
    fn unknown_facts_have_no_line() {
        insta::assert_snapshot!(shown(&samples::half_made("web")), @r"
        Name:         web
        Project:      shop
        ID:           00000000-0000-0000-0000-000000001234
        Backend:      qemu
        State:        preparing (tainted)
        Recorded:     preparing
        Tainted:      the step `prepare` was cut short
        Created:      1970-01-01T00:00:00Z
        Updated:      1970-01-01T00:00:00Z
        ");
    }

    #[test]
    fn provisioning_that_stands_still_says_where_and_how_to_go_on() {
        let mut machine = samples::machine("web", VmState::Running);
        let at = machine.record.created;
        let (number, label) = (2, "setup.sh".to_owned());
        machine.record.provision_failed =
            Some(FailedProvision { number, label: label.clone(), at, message: "it ended with 9".to_owned() });
        assert_eq!(machine.state_and_remarks(), "running (provisioning failed at step 2)");
        let told = shown(&machine);
        let line = told.lines().find(|line| line.starts_with("Provisioning:")).unwrap();
        insta::assert_snapshot!(line, @"Provisioning:  failed at step 2 `setup.sh` at 1970-01-01T00:00:00Z: it ended with 9. `vmctl apply` tries it again, `vmctl log web --provision` shows what it printed");

        machine.interrupted = Some(Interrupted { number, label, at, digest: None });
        assert_eq!(machine.state_and_remarks(), "running (provisioning interrupted at step 2)");
        let told = shown(&machine);
        let line = told.lines().find(|line| line.starts_with("Provisioning:")).unwrap();
        insta::assert_snapshot!(line, @"Provisioning:  interrupted at step 2 `setup.sh` at 1970-01-01T00:00:00Z: what became of it is unknown. `vmctl apply --rerun web` runs it again, `vmctl state provisioned web` takes it for done");
    }

    #[test]
    fn json_has_stable_names() {
        let vm = samples::machine("web", VmState::Running).facts();
        insta::assert_snapshot!(serde_json::to_string_pretty(&Document { format: JSON_FORMAT, vm, guest: None }).unwrap(), @r#"
        {
          "format": 1,
          "vm": {
            "name": "web",
            "address": "vm.web",
            "project": "shop",
            "id": "00000000-0000-0000-0000-000000001234",
            "backend": "qemu",
            "state": "running",
            "recorded": "running",
            "unreachable": null,
            "tainted": null,
            "ready": true,
            "vcpus": 2,
            "memory_mib": 2048,
            "disk_bytes": 1073741824,
            "image": {
              "path": "/data/images/base.qcow2",
              "format": "qcow2",
              "digest": "sha256:cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2",
              "virtual_size": 1073741824
            },
            "networks": [
              {
                "mac": "52:54:00:ab:cd:01",
                "network": {
                  "kind": "user"
                },
                "forwards": [
                  {
                    "protocol": "tcp",
                    "host_address": "127.0.0.1",
                    "host_port": 0,
                    "guest_port": 22
                  }
                ]
              }
            ],
            "forwards": [
              {
                "protocol": "tcp",
                "host_address": "127.0.0.1",
                "host_port": 40022,
                "guest_port": 22
              }
            ],
            "ip": null,
            "work_dir": "/data/projects/shop/vms/web",
            "overlay": "/data/projects/shop/vms/web/overlay.qcow2",
            "seed": "/data/projects/shop/vms/web/seed.img",
            "uefi_variables": null,
            "pid": 4711,
            "accel": "kvm",
            "vnc": "unix:/run/vmctl/0/vnc.sock",
            "ssh": {
              "user": "vm",
              "address": "127.0.0.1",
              "port": 40022,
              "private_key": "/data/projects/shop/vms/web/id_ed25519",
              "command": "ssh -F none -o IdentitiesOnly=yes -o IdentityFile=/data/projects/shop/vms/web/id_ed25519 -o UserKnownHostsFile=/data/projects/shop/vms/web/known_hosts -o GlobalKnownHostsFile=none -o HostKeyAlias=vmctl-0000000000000000 -o StrictHostKeyChecking=accept-new -o ConnectTimeout=60 -o CheckHostIP=no -p 40022 -l vm -- 127.0.0.1"
            },
            "provisioned": [
              {
                "step": 1,
                "digest": "sha256:00",
                "at": "1970-01-01T00:00:00Z"
              }
            ],
            "provision_interrupted": null,
            "provision_failed": null,
            "forced_stop": null,
            "damage": [],
            "stall": null,
            "created": "1970-01-01T00:00:00Z",
            "updated": "1970-01-01T00:00:00Z"
          },
          "guest": null
        }
        "#);
    }
}

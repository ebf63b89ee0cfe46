//! `status`: everything known about one machine.

use serde::Serialize;
use vmctl_providers::{Forward, NetworkConfig, Nic};

use super::JSON_FORMAT;
use crate::args::StatusArgs;
use crate::context::Context;
use crate::error::{CliError, Exit};
use crate::machines::{self, Facts};
use crate::ui::{self, LABEL};

#[derive(Serialize)]
struct Document {
    format: u32,
    vm: Facts,
}

/// Runs the command. It succeeds whatever the machine does.
pub(crate) fn run(ctx: &Context, args: &StatusArgs) -> Result<Exit, CliError> {
    let machine = machines::one(ctx, Some(&args.name))?;
    let facts = machine.facts();
    if args.json {
        ui::print_json(&Document { format: JSON_FORMAT, vm: facts })?;
    } else {
        ui::print(&text(&facts, machine.state_and_remarks()))?;
    }
    Ok(Exit::Fine)
}

/// The facts, one a line; what is not known has no line.
fn text(facts: &Facts, state: String) -> String {
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
    rows.extend([
        ("Work folder", path(&facts.work_dir)),
        ("Overlay", path(&facts.overlay)),
        ("Seed", path(&facts.seed)),
        ("PID", facts.pid.map(|pid| pid.to_string())),
        ("Accelerator", facts.accel.clone()),
        ("VNC", facts.vnc.clone()),
        ("SSH", facts.ssh.as_ref().map(|ssh| format!("{}@{}:{}", ssh.user, ssh.address, ssh.port))),
    ]);
    rows.extend(
        facts.provisioned.iter().map(|step| {
            ("Provisioned", Some(format!("step {} at {} ({})", step.step, step.at, step.digest)))
        }),
    );
    rows.push(("Forced stop", facts.forced_stop.clone()));
    rows.extend(facts.missing.iter().map(|gone| ("Missing", Some(gone.display().to_string()))));
    rows.extend(facts.problems.iter().map(|problem| ("Problem", Some(problem.clone()))));
    rows.push(("Created", Some(facts.created.to_string())));
    rows.push(("Updated", Some(facts.updated.to_string())));

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

fn network(nic: &Nic) -> String {
    let kind = match &nic.network {
        NetworkConfig::User => "user".to_owned(),
        NetworkConfig::Tap { bridge } => format!("tap on bridge {bridge}"),
        NetworkConfig::Vnic { name } => format!("vnic {name}"),
        NetworkConfig::None => "none".to_owned(),
    };
    format!("{kind}, MAC {}", nic.mac)
}

fn port(forward: &Forward) -> String {
    format!(
        "{}/{} -> guest port {}",
        std::net::SocketAddr::new(forward.host_address, forward.host_port),
        forward.protocol.as_str(),
        forward.guest_port
    )
}

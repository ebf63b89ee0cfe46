//! `list`: the machines of a project, as they are now.

use serde::Serialize;
use vmctl_providers::Forward;

use super::JSON_FORMAT;
use crate::args::ListArgs;
use crate::context::Context;
use crate::error::{CliError, Exit};
use crate::facts::Facts;
use crate::machines::{self, Machine};
use crate::own;
use crate::ui::{self, Table};

#[derive(Serialize)]
struct Document {
    format: u32,
    /// The project that was asked about; absent if all were.
    project: Option<String>,
    vms: Vec<Facts>,
    /// Machines that are described by command and were not made yet, as `project/name`.
    unmade: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(ctx: &Context, args: &ListArgs) -> Result<Exit, CliError> {
    let asked = if args.all_projects { None } else { ctx.project()? };
    let projects = match &asked {
        Some(project) => vec![project.clone()],
        None => ctx.projects()?.into_iter().collect(),
    };
    let (mut found, mut unmade) = (Vec::new(), Vec::new());
    for project in &projects {
        let machines = machines::all(ctx, project)?;
        let described = own::unmade(ctx, project, &machines.iter().map(Machine::name).collect())?;
        unmade.extend(described.iter().map(|name| format!("{project}/{name}")));
        found.extend(machines);
    }
    if args.json {
        let vms = found.iter().map(Machine::facts).collect();
        let project = asked.map(|project| project.to_string());
        ui::print_json(&Document { format: JSON_FORMAT, project, vms, unmade })?;
        return Ok(Exit::Fine);
    }
    if found.is_empty() {
        let place = asked.map(|project| format!(" in project `{project}`")).unwrap_or_default();
        ctx.note(&format!("No VMs{place}. `vmctl apply` makes those that the VMFile describes."));
    } else {
        ui::print(&table(&found, args.all_projects))?;
    }
    if !unmade.is_empty() {
        ctx.note(&format!("Described and not made yet: {}. `vmctl apply` makes them.", unmade.join(", ")));
    }
    Ok(Exit::Fine)
}

/// The machines as a table; several projects get a column of their own.
fn table(machines: &[Machine], with_project: bool) -> String {
    let headings = ["PROJECT", "NAME", "STATE", "BACKEND", "VCPUS", "MEM", "SSH", "FORWARDS", "PID"];
    let from = usize::from(!with_project);
    let mut table = Table::new(&headings[from..]);
    for machine in machines {
        let facts = machine.facts();
        let ssh = facts.ssh.as_ref().map(|ssh| format!("{}@{}:{}", ssh.user, ssh.address, ssh.port));
        let cells = [
            facts.project,
            facts.name,
            machine.state_and_remarks(),
            facts.backend,
            or_dash(facts.vcpus),
            or_dash(facts.memory_mib.map(ui::mebibytes)),
            or_dash(ssh),
            or_dash(forwards(&facts.forwards)),
            or_dash(facts.pid),
        ];
        table.row(cells.into_iter().skip(from));
    }
    table.render()
}

/// The forwards but the one to sshd, which has a column of its own.
fn forwards(forwards: &[Forward]) -> Option<String> {
    let told: Vec<_> = forwards
        .iter()
        .filter(|forward| forward.guest_port != Forward::SSH.guest_port)
        .map(|forward| format!("{}->{}/{}", forward.host_port, forward.guest_port, forward.protocol.as_str()))
        .collect();
    (!told.is_empty()).then(|| told.join(" "))
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use vmctl_providers::VmState;

    use super::*;
    use crate::machines::samples;

    #[test]
    fn table_shows_what_is_seen_beside_what_is_recorded() {
        let machines = [
            samples::half_made("cache"),
            samples::machine("db", VmState::Failed),
            samples::unreachable("queue"),
            samples::machine("web", VmState::Running),
        ];
        insta::assert_snapshot!(table(&machines, false), @r"
        NAME   STATE                         BACKEND  VCPUS  MEM    SSH                 FORWARDS  PID
        cache  preparing (tainted)           qemu     -      -      -                   -         -
        db     failed (recorded as running)  qemu     2      2 GiB  -                   -         -
        queue  unreachable                   qemu     2      2 GiB  -                   -         -
        web    running                       qemu     2      2 GiB  vm@127.0.0.1:40022  -         4711
        ");
        assert!(table(&machines, true).starts_with("PROJECT  NAME "));
    }
}

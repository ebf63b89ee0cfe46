//! `list`: the machines of a project, as they are now.

use serde::Serialize;
use vmctl_providers::{Forward, Name};

use super::JSON_FORMAT;
use crate::args::ListArgs;
use crate::context::{Context, small_runtime};
use crate::error::{CliError, Exit};
use crate::facts::Facts;
use crate::machines::{self, Machine};
use crate::own;
use crate::ui::{self, Table};
use crate::watch::watch;

/// Columns that a narrow terminal does without, what is missed least first.
const SACRIFICES: [&str; 6] = ["PID", "BACKEND", "VCPUS", "MEM", "FORWARDS", "SSH"];

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
    if args.watch {
        let shown = async || {
            let found = look(ctx, asked.as_ref()).await?;
            if args.json {
                return ui::json_line(&found.document());
            }
            let none = found.machines.is_empty();
            let mut text = if none { found.none() + "\n" } else { found.fitted(args.all_projects) };
            text.extend(found.described().map(|note| note + "\n"));
            Ok(text)
        };
        return watch(args.json, shown);
    }
    let found = small_runtime()?.block_on(look(ctx, asked.as_ref()))?;
    if args.json {
        ui::print_json(&found.document())?;
        return Ok(Exit::Fine);
    }
    if found.machines.is_empty() {
        ctx.note(&format!("{} `vmctl apply` makes those that the VMFile describes.", found.none()));
    } else {
        let mut table = table(&found.machines, args.all_projects);
        let left_out = table.fit(ui::stdout_width(), &SACRIFICES);
        ui::print(&table.render())?;
        if !left_out.is_empty() {
            let left_out = left_out.join(", ");
            ctx.note(&format!("Not shown for want of room: {left_out}; `vmctl status NAME` has all of it."));
        }
    }
    found.described().iter().for_each(|note| ctx.note(note));
    Ok(Exit::Fine)
}

/// What there is.
struct Found {
    asked: Option<Name>,
    machines: Vec<Machine>,
    /// Machines that are described by command and were not made yet, as `project/name`.
    unmade: Vec<String>,
}

/// The machines of one project, or of all.
async fn look(ctx: &Context, asked: Option<&Name>) -> Result<Found, CliError> {
    let projects = match asked {
        Some(project) => vec![project.clone()],
        None => ctx.projects()?.into_iter().collect(),
    };
    let (mut found, mut unmade) = (Vec::new(), Vec::new());
    for project in &projects {
        let machines = machines::all_now(ctx, project).await?;
        let described = own::unmade(ctx, project, &machines.iter().map(Machine::name).collect())?;
        unmade.extend(described.iter().map(|name| format!("{project}/{name}")));
        found.extend(machines);
    }
    Ok(Found { asked: asked.cloned(), machines: found, unmade })
}

impl Found {
    fn document(&self) -> Document {
        Document {
            format: JSON_FORMAT,
            project: self.asked.as_ref().map(Name::to_string),
            vms: self.machines.iter().map(Machine::facts).collect(),
            unmade: self.unmade.clone(),
        }
    }

    fn none(&self) -> String {
        let place = self.asked.as_ref().map(|project| format!(" in project `{project}`")).unwrap_or_default();
        format!("No VMs{place}.")
    }

    /// What is described only, in a sentence.
    fn described(&self) -> Option<String> {
        let text =
            || format!("Described and not made yet: {}. `vmctl apply` makes them.", self.unmade.join(", "));
        (!self.unmade.is_empty()).then(text)
    }

    /// As much of the table as fits.
    fn fitted(&self, with_project: bool) -> String {
        let mut table = table(&self.machines, with_project);
        table.fit(ui::stdout_width(), &SACRIFICES);
        table.render()
    }
}

/// The machines as a table; several projects get a column of their own.
fn table(machines: &[Machine], with_project: bool) -> Table {
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
    table
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
        insta::assert_snapshot!(table(&machines, false).render(), @r"
        NAME   STATE                         BACKEND  VCPUS  MEM    SSH                 FORWARDS  PID
        cache  preparing (tainted)           qemu     -      -      -                   -         -
        db     failed (recorded as running)  qemu     2      2 GiB  -                   -         -
        queue  unreachable                   qemu     2      2 GiB  -                   -         -
        web    running                       qemu     2      2 GiB  vm@127.0.0.1:40022  -         4711
        ");
        assert!(table(&machines, true).render().starts_with("PROJECT  NAME "));
    }
}

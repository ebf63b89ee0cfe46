//! `state import --vms-json`: machines of vm-manager's vmctl 0.1 are described as `create` describes machines. None is
//! made, and nothing of the old ones is touched: they were started by another program and bear no mark of ours, so that
//! nobody can prove whose a process is.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use vmctl_planner::vmfile::{NewMachine, NewNode};
use vmctl_planner::{OldMachine, OldNetwork, parse_registry};
use vmctl_providers::Name;
use vmctl_providers::image::backing_name;
use vmctl_state::{Address, Reserve, Store};

use crate::args::StateImportArgs;
use crate::context::{Context, default_project};
use crate::error::{CliError, Exit};
use crate::own::Own;
use crate::ui;

/// Largest registry that is read: tens of thousands of machines.
const LARGEST: u64 = 16 << 20;

/// Runs the command; exit 5 if some machines were left out.
pub(super) fn run(ctx: &Context, args: &StateImportArgs) -> Result<Exit, CliError> {
    let path = ctx.settings.cwd.join(args.vms_json.as_deref().unwrap_or_else(|| Path::new("")));
    let cannot = || CliError::new(format!("cannot take machines over from `{}`", path.display()));
    let text = read(&path).map_err(|error| cannot().because(&error))?;
    let machines = parse_registry(&text).map_err(|problems| {
        let lines: Vec<_> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
        CliError::new(format!("cannot take machines over from `{}`{}", path.display(), lines.concat())).help(
            "nothing was written; the registry of vmctl 0.1 is `vms.json` in its data folder".to_owned(),
        )
    })?;
    let (usable, left_out): (Vec<_>, Vec<_>) =
        machines.iter().map(|old| (old, base(old))).partition(|(_, base)| base.is_ok());
    for (old, why) in &left_out {
        if let Err(why) = why {
            ui::warn(&format!("`{}` is left out: {why}", old.name));
        }
    }
    if usable.is_empty() {
        return Err(cannot().help("no machine in it can be described; nothing was written".to_owned()));
    }
    let project = ctx.settings.project.clone().unwrap_or_else(default_project);
    let blocks: Vec<_> = usable
        .iter()
        .filter_map(|(old, base)| Some((&old.name, block(old, base.as_ref().ok()?).write())))
        .collect();
    describe(&ctx.apart(&project), &project, args, &blocks)?;
    let names: Vec<_> = blocks.iter().map(|(name, _)| name.as_str()).collect();
    ctx.note(&format!(
        "Described in project `{project}`: {}. None was made and none was touched: `vmctl plan --project {project}` shows \
         what `apply` would make, from the images that they began with. What is on the old disks stays there, and the \
         comments say how to take it along.",
        names.join(", ")
    ));
    Ok(if left_out.is_empty() { Exit::Fine } else { Exit::Partial })
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(std::io::Error::other("it is larger than 16 MiB, and no registry"));
    }
    Ok(text)
}

/// Adds all blocks to the project's own VMFile, or none.
fn describe(
    ctx: &Context,
    project: &Name,
    args: &StateImportArgs,
    blocks: &[(&Name, String)],
) -> Result<(), CliError> {
    let dir = ctx.project_dir(project)?;
    let writer = ctx.writer(&dir, "state import", &args.lock, Reserve::Keep)?;
    let recorded = writer.snapshot()?;
    let own = Own::open(ctx, project)?;
    let described = own.machines()?;
    let is_taken = |name: &Name| {
        recorded.records.contains_key(&Address::vm(name.as_str()))
            || described.iter().any(|known| known == name.as_str())
    };
    let taken: Vec<_> =
        blocks.iter().filter(|(name, _)| is_taken(name)).map(|(name, _)| name.as_str()).collect();
    let added = if taken.is_empty() {
        super::create::refuse_described(ctx, project, &recorded).and_then(|()| {
            own.extend(blocks.iter().map(|(_, block)| block.as_str()))?;
            ctx.load().map(drop).inspect_err(|_| {
                if let Err(error) = own.restore() {
                    error.print();
                }
            })
        })
    } else {
        Err(CliError::new(format!(
            "project `{project}` has machines of these names already: {}",
            taken.join(", ")
        ))
        .help("nothing was written; choose another project with --project NAME".to_owned()))
    };
    writer.close()?;
    added
}

/// The image that the machine's disk lies on; else why nobody can say.
fn base(old: &OldMachine) -> Result<String, String> {
    let overlay = old.overlay.as_ref().ok_or("the registry names no disk of it")?;
    let name = backing_name(Path::new(overlay))
        .map_err(|error| format!("its disk `{overlay}` cannot be read: {error}"))?;
    match name {
        None => Err(format!("its disk `{overlay}` does not say which image it was made from")),
        Some(base) if base.starts_with('/') && Path::new(&base).is_file() => Ok(base),
        Some(base) => Err(format!("the image that its disk was made from is not there: `{base}`")),
    }
}

fn block(old: &OldMachine, base: &str) -> NewMachine {
    let mut nodes = vec![
        NewNode::new("image").text(base),
        NewNode::new("vcpus").word(old.vcpus),
        NewNode::new("memory").word(old.memory_mib),
        NewNode::new("state").text("stopped"),
    ];
    if old.backend == "noop" {
        nodes.push(NewNode::new("backend").text("noop"));
    }
    if old.uefi {
        nodes.push(NewNode::new("firmware").text("uefi"));
    }
    nodes.extend(old.disk_gib.map(|size| NewNode::new("disk").word(size)));
    match &old.network {
        OldNetwork::User => nodes.push(NewNode::new("ssh")),
        OldNetwork::Tap(bridge) => {
            nodes.push(NewNode::new("network").text("tap").prop("bridge", bridge));
            nodes.push(NewNode::new("ssh"));
        }
        OldNetwork::Vnic(_) | OldNetwork::None => nodes.push(NewNode::new("network").text("none")),
    }
    NewMachine { name: old.name.to_string(), remarks: remarks(old), nodes }
}

/// What the block does not say.
fn remarks(old: &OldMachine) -> Vec<String> {
    let mut remarks = vec![format!(
        "Described from the registry of vmctl 0.1. The machine there{} goes on as it is.",
        old.work_dir.as_ref().map(|folder| format!(", in {folder},")).unwrap_or_default()
    )];
    if let Some(overlay) = &old.overlay {
        remarks
            .push(format!("Its disk is {overlay}. To take along what is on it, with the old machine off:"));
        remarks.push("  qemu-img convert -O qcow2 DISK COPY.qcow2, and name the copy as `image`.".to_owned());
    }
    if let OldNetwork::Vnic(name) = &old.network {
        remarks.push(format!("network \"vnic\" name=\"{name}\": QEMU has none."));
    }
    if let Some(mac) = &old.mac {
        remarks.push(format!("Its card was {mac}; the new one gets an address of its own."));
    }
    if let Some(port) = old.ssh_port {
        remarks.push(format!(
            "Its sshd was at port {port} of the host: `forward host={port} guest=22` once that is free."
        ));
    }
    remarks
}

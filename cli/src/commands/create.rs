//! `create`: a machine without a VMFile of the user's. It is described in its project's own VMFile, and made by the same
//! plan and apply as any other.

use std::fs;
use std::path::{Path, PathBuf};

use vmctl_planner::other_vmfile;
use vmctl_planner::vmfile::{NewMachine, NewNode};
use vmctl_providers::{BackendTag, Name};
use vmctl_state::{Address, Reserve, Snapshot, Store};

use super::apply::{self, Asks, Order};
use super::plan::Goal;
use crate::args::{CreateArgs, PlanningArgs};
use crate::context::{Context, default_project};
use crate::error::{CliError, Exit};
use crate::own::Own;

/// Runs the command.
pub(crate) fn run(ctx: &Context, args: &CreateArgs) -> Result<Exit, CliError> {
    if ctx.options.file.is_some() {
        return Err(CliError::new("`create` writes into no VMFile of yours, and --file names one")
            .help("leave --file out, or write a `vm` block there and `vmctl apply`".to_owned())
            .exit(Exit::Usage));
    }
    let name =
        args.name.as_ref().or(args.named.as_ref()).ok_or_else(|| CliError::new("the machine has no name"))?;
    let project = ctx.settings.project.clone().unwrap_or_else(default_project);
    let block = machine(ctx, args, name)?.write();
    let within = ctx.apart(&project);
    let dir = within.project_dir(&project)?;
    let mut writer = within.writer(&dir, "create", &args.carrying.lock, Reserve::Keep)?;
    let opened = refuse(&within, &project, name, &writer.snapshot()?)
        .and_then(|()| described(&within, &project, name, args, &block));
    let order = match opened {
        Ok(order) => order,
        Err(error) => {
            writer.set_result("failed");
            writer.close()?;
            return Err(error);
        }
    };
    let exit = apply::with_writer(&within, &args.carrying, &order, writer)?;
    if exit == Exit::Fine && !args.carrying.json {
        ctx.note(&next(&called(ctx, &project, name), args));
    }
    Ok(exit)
}

/// Adds the block to the project's own VMFile and reads it; on failure that says what it said before.
fn described(
    ctx: &Context,
    project: &Name,
    name: &Name,
    args: &CreateArgs,
    block: &str,
) -> Result<Order, CliError> {
    let mut own = Own::open(ctx, project)?;
    let planning = PlanningArgs { target: vec![name.clone()], ..PlanningArgs::default() };
    let goal = own.add(name, block).and_then(|()| Goal::of(ctx, &planning));
    let goal = match goal {
        Ok(goal) => goal,
        Err(error) => {
            own.restore()?;
            return Err(error);
        }
    };
    let look = apply::look_of(&PlanningArgs { overcommit: args.overcommit, ..PlanningArgs::default() });
    Ok(Order { look, own: Some(own), ..Order::new("create", goal, Asks::Nothing) })
}

/// Refuses a name that is taken, as well.
fn refuse(ctx: &Context, project: &Name, name: &Name, recorded: &Snapshot) -> Result<(), CliError> {
    if recorded.records.contains_key(&Address::vm(name.as_str())) {
        return Err(CliError::new(format!("project `{project}` has a machine `{name}` already")).help(
            format!(
                "choose another name; or `vmctl destroy {project}/{name}` removes that one, with its disk"
            ),
        ));
    }
    refuse_described(ctx, project, recorded)
}

/// Refuses a project that a VMFile of the user's describes.
pub(super) fn refuse_described(ctx: &Context, project: &Name, recorded: &Snapshot) -> Result<(), CliError> {
    let own = ctx.project_dir(project)?.vmfile();
    let own = fs::canonicalize(&own).unwrap_or(own);
    let other = other_vmfile(recorded, &own).map_err(|error| CliError::of(&error))?;
    match other.filter(|path| path.exists()) {
        None => Ok(()),
        Some(other) => Err(CliError::new(format!(
            "project `{project}` is described by `{}`, and vmctl writes into no VMFile of yours",
            other.display()
        ))
        .help(
            "write a `vm` block there and `vmctl apply`, or choose another project with --project NAME"
                .to_owned(),
        )),
    }
}

/// What is asked for, as a block with whole paths.
fn machine(ctx: &Context, args: &CreateArgs, name: &Name) -> Result<NewMachine, CliError> {
    let mut nodes = Vec::new();
    if args.backend != BackendTag::Qemu {
        nodes.push(NewNode::new("backend").text(args.backend.to_string()));
    }
    let image = match (&args.image, &args.image_url) {
        (Some(path), _) => NewNode::new("image").text(file(ctx, path, "image")?),
        (None, url) => NewNode::new("image-url").text(url.clone().unwrap_or_default()),
    };
    nodes.push(match &args.sha256 {
        Some(digest) => image.prop("sha256", digest),
        None => image,
    });
    if args.uefi {
        nodes.push(NewNode::new("firmware").text("uefi"));
    }
    nodes.push(NewNode::new("vcpus").word(args.vcpus));
    nodes.push(NewNode::new("memory").word(args.memory));
    if let Some(disk) = args.disk {
        nodes.push(match disk % (1 << 10) {
            0 => NewNode::new("disk").word(disk >> 10),
            _ => NewNode::new("disk").text(format!("{disk}M")),
        });
    }
    if let Some(bridge) = &args.bridge {
        nodes.push(NewNode::new("network").text("tap").prop("bridge", bridge));
    }
    for forward in &args.forward {
        let node = NewNode::new("forward");
        let node = forward.host.iter().fold(node, |node, host| node.prop_word("host", host));
        let node = node.prop_word("guest", forward.guest);
        nodes.push(if forward.is_udp { node.prop("protocol", "udp") } else { node });
    }
    if let Some(path) = &args.cloud_init {
        let data =
            NewNode::new("user-data").text(file(ctx, path, "user-data")?).prop_word("merge-keys", "#true");
        nodes.push(NewNode::new("cloud-init").with(data));
    }
    if let Some(path) = &args.ssh_key {
        let key = NewNode::new("ssh-key").text(file(ctx, path, "public key")?);
        nodes.push(NewNode::new("cloud-init").with(key));
    }
    nodes.push(NewNode::new("ssh"));
    nodes.push(NewNode::new("state").text(if args.start { "running" } else { "stopped" }));
    Ok(NewMachine { name: name.to_string(), remarks: Vec::new(), nodes })
}

/// The whole path of a file that must be there. A VMFile is text, and so is what it names.
fn file(ctx: &Context, path: &Path, what: &str) -> Result<String, CliError> {
    let whole: PathBuf = ctx.settings.cwd.join(path);
    let shown = path.display();
    let whole = fs::canonicalize(&whole).map_err(|error| {
        CliError::new(format!("there is no {what} that could be used at `{shown}`"))
            .because(&error)
            .help("paths are relative to the working folder".to_owned())
    })?;
    if whole.is_dir() {
        return Err(
            CliError::new(format!("the {what} `{shown}` is a folder")).help("name the file in it".to_owned())
        );
    }
    match whole.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(CliError::new(format!("the path of the {what} `{shown}` is no UTF-8 text"))
            .help("give it another name".to_owned())),
    }
}

/// How the machine is called from here.
fn called(ctx: &Context, project: &Name, name: &Name) -> String {
    match ctx.named_project() {
        Ok(Some(here)) if here == *project => name.to_string(),
        _ => format!("{project}/{name}"),
    }
}

/// What to do next.
fn next(called: &str, args: &CreateArgs) -> String {
    if args.start {
        format!("`{called}` runs: `vmctl wait {called}` waits for its guest, `vmctl ssh {called}` logs in.")
    } else {
        format!("`{called}` is made and off: `vmctl start {called}` starts it.")
    }
}

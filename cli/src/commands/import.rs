//! `import`: a machine as a block that can be pasted into any VMFile.

use std::path::PathBuf;

use vmctl_planner::recorded::spec_of;
use vmctl_planner::vmfile::{self, Loaded};
use vmctl_planner::{Desired, brought_to};
use vmctl_providers::{Name, Secrets};
use vmctl_state::{Address, Record, project};

use crate::args::ImportArgs;
use crate::context::Context;
use crate::error::{CliError, Exit};
use crate::{machines, ui};

/// Runs the command. No machine and no state is touched.
pub(crate) fn run(ctx: &Context, args: &ImportArgs) -> Result<Exit, CliError> {
    let name = &args.name.name;
    let ctx = &match &args.name.project {
        Some(project) => ctx.within(project)?,
        None => ctx.clone(),
    };
    let Some(project) = ctx.project()? else {
        return Err(CliError::new("there are no machines: no VMFile.kdl was found and no project exists")
            .help("`vmctl create` makes a machine without a VMFile".to_owned()));
    };
    let state = project::read(&ctx.project_dir(&project)?)?;
    let record = state.as_ref().and_then(|state| state.records.get(&Address::vm(name.as_str())));
    let block = match (described(ctx, &project, name, record), record) {
        (Ok(Some(block)), _) => block,
        (Ok(None), Some(record)) => from_record(record, &project, name, None)?,
        (Err(error), Some(record)) => from_record(record, &project, name, Some(&error))?,
        (Err(error), None) => return Err(error),
        (Ok(None), None) => {
            let known: Vec<_> =
                state.iter().flat_map(|state| state.records.keys()).map(Address::name).collect();
            return Err(CliError::new(format!("no VM is called `{name}`")).help(
                machines::made_by_command(ctx, &project, name.as_str())
                    .unwrap_or_else(|| machines::suggestion(name.as_str(), &known)),
            ));
        }
    };
    ui::print(&vmfile::format("the block", &block)?)?;
    if record.is_some() {
        ctx.note(&format!(
            "`{project}/{name}` stays where it is. In a VMFile of another project this block makes a new machine from \
             the image; the disk is not taken along."
        ));
    }
    Ok(Exit::Fine)
}

/// The machine as the VMFile describes it that it was made from; `None` if that does not.
fn described(
    ctx: &Context,
    project: &Name,
    name: &Name,
    record: Option<&Record>,
) -> Result<Option<String>, CliError> {
    let Some(loaded) = vmfile_of(ctx, project, record)? else { return Ok(None) };
    let Desired { vms, secrets, .. } = &loaded.desired;
    let Some(vm) = vms.get(name) else { return Ok(None) };
    let mut vm = vm.clone();
    if let Some(power) = record.and_then(|record| brought_to(record.phase)) {
        vm.power = power;
    }
    Ok(Some(vmfile::write_machine(&vm, secrets, project, &[])))
}

/// Reads the VMFile of the project: the one that counts here, else the one that the record remembers.
fn vmfile_of(ctx: &Context, project: &Name, record: Option<&Record>) -> Result<Option<Loaded>, CliError> {
    if ctx.has_vmfile() && ctx.named_project()?.as_ref() == Some(project) {
        return Ok(Some(ctx.load()?));
    }
    let remembered = match record {
        Some(record) => spec_of(record).map_err(|error| CliError::of(&error))?.vmfile.clone(),
        None => None,
    };
    let Some(path) = remembered.filter(|path: &PathBuf| path.is_file()) else { return Ok(None) };
    let mut there = ctx.of_project(project.clone());
    there.options.file = Some(path);
    Ok(Some(there.load()?))
}

/// What is known without any VMFile.
fn from_record(
    record: &Record,
    project: &Name,
    name: &Name,
    unreadable: Option<&CliError>,
) -> Result<String, CliError> {
    let (mut vm, missing) = vmfile::remembered(record, name).map_err(|error| CliError::of(&error))?;
    if let Some(power) = brought_to(record.phase) {
        vm.power = power;
    }
    let why = match unreadable {
        Some(_) => "The VMFile that it was made from cannot be used; this is what is recorded.",
        None => "No VMFile describes it; this is what is recorded.",
    };
    let remarks: Vec<String> = std::iter::once(why.to_owned()).chain(missing).collect();
    Ok(vmfile::write_machine(&vm, &Secrets::default(), project, &remarks))
}

//! The short ways: `up`, `down`, `reload`, `provision`, `start`, `stop`, `suspend`, `resume`, `destroy`. Each is an apply of a plan.

use std::collections::BTreeSet;
use std::time::Duration;

use vmctl_planner::{Asked, Mode, Options, Turn, Values};
use vmctl_providers::Name;

use super::apply::{self, Asks, Order, look_of};
use super::plan::Goal;
use crate::args::{
    CarryingArgs, DestroyArgs, DownArgs, MachineArg, MachinesArgs, PlanningArgs, ProvisionArgs, ReloadArgs,
    StopArgs, UpArgs,
};
use crate::context::Context;
use crate::error::{CliError, Exit, can_ask};
use crate::own;

/// The command that `up` takes back.
const DOWN: &str = "down";

/// Runs `up`.
pub(crate) fn up(ctx: &Context, args: UpArgs) -> Result<Exit, CliError> {
    let UpArgs { some, yes, no_provision, cold, overcommit, carrying } = args;
    let (ctx, target) = &chosen(ctx, &[some.vms, some.named].concat())?;
    let target = target.clone();
    let planning = PlanningArgs { target, no_provision, cold, overcommit, ..PlanningArgs::default() };
    let asks = if yes { Asks::Nothing } else { Asks::ForLosses };
    let mut goal = Goal::of(ctx, &planning)?;
    goal.options.no_wait = false;
    let order = Order::new("up", goal, asks);
    apply::carry_out(ctx, &carrying, Order { look: look_of(&planning), ..order })
}

/// Runs `down`.
pub(crate) fn down(ctx: &Context, args: DownArgs) -> Result<Exit, CliError> {
    let DownArgs { some, destroy, volumes, yes, timeout, carrying } = args;
    let (ctx, vms) = chosen(ctx, &[some.vms, some.named].concat())?;
    let ctx = &ctx;
    if destroy {
        remove(ctx, "down --destroy", vms, volumes, yes, carrying)
    } else {
        turned(ctx, DOWN, vms, Turn::Stop, timeout, carrying)
    }
}

/// Runs `reload`.
pub(crate) fn reload(ctx: &Context, args: ReloadArgs) -> Result<Exit, CliError> {
    let ReloadArgs { some, yes, no_provision, carrying } = args;
    let (ctx, mut replace) = chosen(ctx, &[some.vms, some.named].concat())?;
    let ctx = &ctx;
    let everything = Goal::of(ctx, &PlanningArgs::default())?;
    if replace.is_empty() {
        replace.extend(everything.desired.iter().flat_map(|desired| desired.vms.keys().cloned()));
    }
    let planning = PlanningArgs { target: replace.clone(), replace, no_provision, ..PlanningArgs::default() };
    apply::carry_out(ctx, &carrying, Order::new("reload", Goal::of(ctx, &planning)?, on_a_terminal(yes)))
}

/// Runs `provision`.
pub(crate) fn provision(ctx: &Context, args: ProvisionArgs) -> Result<Exit, CliError> {
    let ProvisionArgs { some, step, force, yes, carrying } = args;
    let (ctx, targets) = chosen(ctx, &[some.vms, some.named].concat())?;
    let ctx = &ctx;
    let options = Options {
        mode: Mode::Provision,
        targets: targets.into_iter().collect(),
        provision: Asked { steps: step.into_iter().collect(), force },
        ..Options::default()
    };
    let asks = if force { on_a_terminal(yes) } else { Asks::Nothing };
    apply::carry_out(ctx, &carrying, Order::new("provision", Goal::of_vmfile(ctx, options)?, asks))
}

/// Runs `start`, `suspend` and `resume`.
pub(crate) fn turn(ctx: &Context, args: MachinesArgs, turn: Turn) -> Result<Exit, CliError> {
    let (ctx, vms) = chosen(ctx, &args.vms)?;
    turned(&ctx, turn.as_str(), vms, turn, None, args.carrying)
}

/// Runs `stop`.
pub(crate) fn stop(ctx: &Context, args: StopArgs) -> Result<Exit, CliError> {
    let (ctx, vms) = chosen(ctx, &args.vms)?;
    turned(&ctx, "stop", vms, Turn::Stop, args.timeout, args.carrying)
}

/// Runs `destroy`.
pub(crate) fn destroy(ctx: &Context, args: DestroyArgs) -> Result<Exit, CliError> {
    let (ctx, vms) = chosen(ctx, &args.vms)?;
    let (ctx, vms) = (&ctx, own::leave_unmade(&ctx, &args.carrying.lock, vms)?);
    if vms.is_empty() {
        return Ok(Exit::Fine);
    }
    remove(ctx, "destroy", vms, args.volumes, args.yes, args.carrying)
}

/// The machines that were named, and the context of the one project that they belong to.
fn chosen(ctx: &Context, named: &[MachineArg]) -> Result<(Context, Vec<Name>), CliError> {
    let names = named.iter().map(|machine| machine.name.clone()).collect();
    let Some(project) = named.iter().find_map(|machine| machine.project.clone()) else {
        return Ok((ctx.clone(), names));
    };
    let here =
        if named.iter().any(|machine| machine.project.is_none()) { ctx.named_project()? } else { None };
    let of = |machine: &MachineArg| machine.project.clone().or_else(|| here.clone());
    if let Some(other) = named.iter().find(|machine| of(machine).as_ref() != Some(&project)) {
        return Err(CliError::new(format!(
            "`{other}` is not of project `{project}`, and one command works on one project"
        ))
        .help("give the command once for each project".to_owned())
        .exit(Exit::Usage));
    }
    Ok((ctx.within(&project)?, names))
}

fn remove(
    ctx: &Context,
    command: &'static str,
    target: Vec<Name>,
    volumes: bool,
    yes: bool,
    carrying: CarryingArgs,
) -> Result<Exit, CliError> {
    let planning = PlanningArgs { destroy: true, target, volumes, ..PlanningArgs::default() };
    apply::carry_out(ctx, &carrying, Order::new(command, Goal::of(ctx, &planning)?, on_a_terminal(yes)))
}

/// Who wrote the command said already what is to go; a person gets a second chance.
fn on_a_terminal(yes: bool) -> Asks {
    if yes || !can_ask() { Asks::Nothing } else { Asks::Always }
}

fn turned(
    ctx: &Context,
    command: &'static str,
    vms: Vec<Name>,
    turn: Turn,
    timeout: Option<Duration>,
    carrying: CarryingArgs,
) -> Result<Exit, CliError> {
    let Some(project) = ctx.named_project()? else {
        return Err(CliError::new("nothing says which project is meant: no VMFile is here").help(
            "change to the project's folder, or pass --file PATH or --project NAME; `vmctl create` makes \
                 machines without a VMFile"
                .to_owned(),
        ));
    };
    let targets: BTreeSet<Name> = vms.iter().cloned().collect();
    let goal = Goal {
        project,
        desired: None,
        warnings: Vec::new(),
        values: Values::default(),
        options: Options { mode: Mode::Turn(turn), targets, ..Options::default() },
    };
    let passes = command == DOWN;
    let order = Order { stop_timeout: timeout, passes, ..Order::new(command, goal, Asks::Nothing) };
    apply::carry_out(ctx, &carrying, order)
}

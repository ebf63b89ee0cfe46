//! `wait`: until machines are what somebody waits for. Nothing is changed, and nobody is kept from changing anything.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use vmctl_planner::recorded::spec_of;
use vmctl_providers::{GuestAccess, Readiness, VmHandle};

use crate::args::{WaitArgs, WaitFor};
use crate::context::{Context, small_runtime};
use crate::error::{CliError, Exit};
use crate::machines::{self, Machine};

/// How often machines are looked at that are not yet what is waited for.
const AGAIN: Duration = Duration::from_millis(500);

/// Runs the command; exit 1 if the time is up.
pub(crate) fn run(ctx: &Context, args: &WaitArgs) -> Result<Exit, CliError> {
    let deadline = Instant::now() + args.timeout;
    let named: Vec<String> = args.some.vms.iter().chain(&args.some.named).map(ToString::to_string).collect();
    let names = if named.is_empty() { all(ctx)? } else { named };
    let mut late = Vec::new();
    for name in names {
        if !is_reached(ctx, &name, args.until, deadline)? {
            late.push(name);
        }
    }
    let Some(first) = late.first() else { return Ok(Exit::Fine) };
    Err(CliError::new(format!("not {} within {:?}: {}", args.until.as_str(), args.timeout, late.join(", ")))
        .help(format!("`vmctl status {first}` shows what it is, `vmctl log {first}` what it wrote")))
}

/// The machines of the project, all of them.
fn all(ctx: &Context) -> Result<Vec<String>, CliError> {
    let found = match ctx.project()? {
        Some(project) => machines::all(ctx, &project)?,
        None => Vec::new(),
    };
    if found.is_empty() {
        return Err(CliError::new("there is no machine to wait for").help(
            "`vmctl up` makes and starts what the VMFile asks for, and waits until it is ready".to_owned(),
        ));
    }
    Ok(found.iter().map(|machine| machine.name().to_owned()).collect())
}

/// Waits for one machine; false if the time is up.
fn is_reached(ctx: &Context, name: &str, until: WaitFor, deadline: Instant) -> Result<bool, CliError> {
    loop {
        let machine = machines::one(ctx, Some(name))?;
        let lives = machine.live().is_ok();
        let reached = match until {
            WaitFor::Running => lives,
            WaitFor::Stopped => !lives,
            WaitFor::Ready if lives => return is_ready(ctx, &machine, deadline),
            WaitFor::Ready => false,
        };
        if reached || Instant::now() >= deadline {
            return Ok(reached);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        small_runtime()?.block_on(async { sleep(AGAIN.min(left)).await });
    }
}

/// Asks a machine that lives what `ready` asks, in the time that is left. A machine that is asked for nothing is ready.
fn is_ready(ctx: &Context, machine: &Machine, deadline: Instant) -> Result<bool, CliError> {
    let recorded = spec_of(&machine.record).map_err(|error| CliError::of(&error))?;
    let Some(readiness) = &recorded.ready else { return Ok(true) };
    let patience = deadline.saturating_duration_since(Instant::now());
    let readiness = Readiness { timeout: patience, ..readiness.clone() };
    let host = ctx.hypervisor(&ctx.project_dir(&machine.project)?)?;
    let handle: &VmHandle = machine.live()?;
    let asking = async { timeout(patience, host.wait_ready(handle, &readiness)).await };
    match small_runtime()?.block_on(asking) {
        Err(_) => Ok(false),
        Ok(Ok(())) => Ok(true),
        Ok(Err(error)) if Instant::now() >= deadline => {
            tracing::debug!(%error, "not ready in time");
            Ok(false)
        }
        Ok(Err(error)) => Err(error.into()),
    }
}

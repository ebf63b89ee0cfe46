//! `taint` and `untaint`: whether the next apply makes a machine anew.

use jiff::Timestamp;
use vmctl_planner::apply::{NotedAt, note_down};
use vmctl_planner::recorded::spec_of;
use vmctl_state::{Address, Entry, Record, Reserve, Store};

use crate::args::{LockArgs, TaintArgs, UntaintArgs};
use crate::context::{Context, small_runtime};
use crate::error::{CliError, Exit};
use crate::machines;

/// Runs `taint`.
pub(crate) fn taint(ctx: &Context, args: &TaintArgs) -> Result<Exit, CliError> {
    let reason = args.reason.trim();
    if reason.is_empty() {
        return Err(CliError::new("a taint needs a reason")
            .help("leave --reason out, or say why the machine is to be made anew".to_owned())
            .exit(Exit::Usage));
    }
    let Marked { address, was, is_protected } = mark(ctx, "taint", &args.lock, &args.name, Some(reason))?;
    ctx.note(&match was {
        Some(was) => format!("`{address}` was tainted already ({was}); the reason is now: {reason}."),
        None if is_protected => format!(
            "`{address}` is tainted, and `prevent-destroy` protects it: `vmctl apply` is refused until one of both is \
             taken back."
        ),
        None => format!(
            "`{address}` is tainted: the next `vmctl apply` makes it anew, and its disk is lost then."
        ),
    });
    Ok(Exit::Fine)
}

/// Runs `untaint`.
pub(crate) fn untaint(ctx: &Context, args: &UntaintArgs) -> Result<Exit, CliError> {
    let Marked { address, was, .. } = mark(ctx, "untaint", &args.lock, &args.name, None)?;
    ctx.note(&match was {
        Some(was) => format!("`{address}` is not tainted any more (it was: {was})."),
        None => format!("`{address}` was not tainted."),
    });
    Ok(Exit::Fine)
}

/// A machine whose mark was set or taken back.
struct Marked {
    address: Address,
    /// The mark that was there.
    was: Option<String>,
    /// Whether the machine may not be destroyed.
    is_protected: bool,
}

/// Sets or takes back the mark.
fn mark(
    ctx: &Context,
    command: &str,
    lock: &LockArgs,
    name: &str,
    taint: Option<&str>,
) -> Result<Marked, CliError> {
    let (project, address) = machines::named(ctx, name)?;
    let dir = ctx.project_dir(&project)?;
    let mut writer = ctx.writer(&dir, command, lock, Reserve::Keep)?;
    let record = writer.snapshot()?.records.remove(&address);
    let record = record.ok_or_else(|| CliError::new(format!("`{address}` is recorded no longer")))?;
    let was = record.taint.clone();
    let is_protected = spec_of(&record).map_err(|error| CliError::of(&error))?.lifecycle.prevent_destroy;
    let taint = taint.map(str::to_owned);
    if was != taint {
        let record = Record { taint, updated: Timestamp::now(), ..record };
        let serial = writer.commit(&[Entry::Put(Box::new(record.clone()))])?;
        let at = NotedAt { lineage: writer.snapshot()?.lineage, serial };
        let noted = small_runtime()?.block_on(note_down(&ctx.hypervisor(&dir)?, at, [&record]));
        noted.map_err(|error| CliError::of(&error))?;
    }
    writer.close()?;
    Ok(Marked { address, was, is_protected })
}

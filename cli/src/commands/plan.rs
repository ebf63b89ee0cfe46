//! `plan`: shows what `apply` would do.

use crate::args::PlanArgs;
use crate::context::Context;
use crate::error::{CliError, Exit};

/// Runs the command.
pub(crate) fn run(_ctx: &Context, _args: &PlanArgs) -> Result<Exit, CliError> {
    Err(CliError::new("`plan` is not built yet"))
}

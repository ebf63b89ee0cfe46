//! `apply`: brings the machines to what the VMFile asks for.

use crate::args::ApplyArgs;
use crate::context::Context;
use crate::error::{CliError, Exit};

/// Runs the command.
pub(crate) fn run(_ctx: &Context, _args: &ApplyArgs) -> Result<Exit, CliError> {
    Err(CliError::new("`apply` is not built yet"))
}

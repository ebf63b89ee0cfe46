//! `exec`.

use crate::args::ExecArgs;
use crate::context::Context;
use crate::error::{CliError, Exit};

/// Runs the command.
pub(crate) fn run(_ctx: &Context, _args: &ExecArgs) -> Result<Exit, CliError> {
    Err(CliError::new("`exec` is not built yet"))
}

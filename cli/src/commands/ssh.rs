//! `ssh`.

use crate::args::SshArgs;
use crate::context::Context;
use crate::error::{CliError, Exit};

/// Runs the command.
pub(crate) fn run(_ctx: &Context, _args: &SshArgs) -> Result<Exit, CliError> {
    Err(CliError::new("`ssh` is not built yet"))
}

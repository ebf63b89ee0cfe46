//! `doctor`.

use crate::args::DoctorArgs;
use crate::context::Context;
use crate::error::{CliError, Exit};

/// Runs the command.
pub(crate) fn run(_ctx: &Context, _args: &DoctorArgs) -> Result<Exit, CliError> {
    Err(CliError::new("`doctor` is not built yet"))
}

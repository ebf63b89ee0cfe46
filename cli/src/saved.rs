//! Saved plans on the command line: reading them, and saying what moved since.

use std::fs;
use std::path::Path;

use vmctl_planner::{Moved, SavedPlan, SavedPlanError};

use crate::error::{CliError, Exit};

/// Largest file that is read as a plan; one of 10,000 machines has a tenth of that.
const LARGEST: u64 = 256 << 20;

/// Reads a saved plan.
pub(crate) fn read(path: &Path) -> Result<SavedPlan, CliError> {
    let failed = |error: std::io::Error| {
        CliError::new(format!("cannot read the plan `{}`", path.display()))
            .because(&error)
            .help(how_to_make())
    };
    let found = fs::metadata(path).map_err(failed)?;
    if !found.is_file() || found.len() > LARGEST {
        return Err(CliError::new(format!("`{}` is no saved plan", path.display())).help(how_to_make()));
    }
    let bytes = fs::read(path).map_err(failed)?;
    SavedPlan::from_bytes(&bytes).map_err(|error| {
        let help = match &error {
            SavedPlanError::NotAPlan(_) => how_to_make(),
            _ => "make it anew with `vmctl plan --out FILE`".to_owned(),
        };
        CliError::new(format!("cannot use the plan `{}`", path.display())).because(&error).help(help)
    })
}

fn how_to_make() -> String {
    "a plan is made with `vmctl plan --out FILE`; it is cut off or something else if it is no JSON".to_owned()
}

/// The refusal of a plan from which something moved away.
pub(crate) fn stale(moved: &[Moved]) -> CliError {
    let mut text = "the saved plan is stale, and nothing was done".to_owned();
    for moved in moved {
        text.push_str(&format!("\n  {moved}"));
    }
    CliError::new(text)
        .help("make it anew with `vmctl plan --out FILE`, and look at it again".to_owned())
        .exit(Exit::Stale)
}

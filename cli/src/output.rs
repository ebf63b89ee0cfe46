//! A plan in the form that was asked for: text, JSON, Markdown, and a report in a file.

use vmctl_planner::{CheckResult, CheckStatus, PlanDocument};

use crate::args::OutputArgs;
use crate::error::CliError;
use crate::{files, render, ui};

/// Prints the plan, and writes the report if one was asked for.
pub(crate) fn plan(plan: &PlanDocument<'_>, output: &OutputArgs) -> Result<(), CliError> {
    if let Some(path) = &output.html {
        files::write(path, crate::report::html(&crate::report::of(plan)).as_bytes())?;
    }
    if output.json {
        ui::print_json(plan)
    } else if output.markdown {
        ui::print_bytes(crate::report::markdown(&crate::report::of(plan)).as_bytes())
    } else {
        ui::print(&render::plan(plan, ui::stdout_width()))
    }
}

/// Ends with the checks that did not pass, if there are any.
pub(crate) fn fail_on_checks(checks: &[CheckResult]) -> Result<(), CliError> {
    let failed: Vec<_> = checks
        .iter()
        .filter(|check| check.status != CheckStatus::Pass)
        .map(|check| format!("{} `{}`", check.address, check.name))
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(CliError::new(format!(
        "{} of {} checks did not pass: {}",
        failed.len(),
        checks.len(),
        failed.join(", ")
    )))
}

//! A plan in the form that was asked for: text, JSON, Markdown, and a report in a file.

use vmctl_planner::{CheckResult, CheckStatus, PlanDocument};

use crate::args::OutputArgs;
use crate::error::{CliError, Exit};
use crate::files::Destination;
use crate::{render, report, ui};

/// Prints the plan, and writes the report if one was asked for. `other` is a file that is written as well.
pub(crate) fn plan(
    plan: &PlanDocument<'_>,
    output: &OutputArgs,
    other: Option<&Destination>,
) -> Result<(), CliError> {
    if let Some(path) = &output.html {
        let page = Destination::of_report(path, plan)?;
        if other.is_some_and(|other| other.is_same(&page)) {
            return Err(CliError::new(format!("`{}` cannot be the plan and its report", path.display()))
                .help("name two files".to_owned())
                .exit(Exit::Usage));
        }
        page.write(report::html(&report::of(plan)).as_bytes())?;
    }
    if output.json {
        ui::print_json(plan)
    } else if output.markdown {
        ui::print_bytes(report::markdown(&report::of(plan)).as_bytes())
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

//! The course as JUnit's XML, which CI systems show as tests: each wait for a guest and each provisioning step is one,
//! and whatever else failed.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use vmctl_planner::{Plan, Step, StepKind};

use super::{Course, End, Ran};
use crate::error::CliError;
use crate::ui::visible;

/// The course as a document.
pub(crate) fn junit(plan: &Plan, course: &Course) -> Result<String, CliError> {
    let mut suite = TestSuite::new("vmctl");
    for (id, ran) in &course.steps {
        let step = plan.graph.step(*id);
        if is_test(step, ran) {
            suite.add_test_case(case(plan, step, ran));
        }
    }
    suite.set_time(course.length());
    let mut report = Report::new("vmctl");
    report.set_time(course.length());
    report.add_test_suite(suite);
    report.to_string().map_err(|error| CliError::new("cannot write JUnit's XML").because(&error))
}

/// Whether people who look for tests look for this step.
fn is_test(step: &Step, ran: &Ran) -> bool {
    matches!(step.kind, StepKind::Ready | StepKind::Provision(_)) || matches!(ran.end, End::Failed(_))
}

fn case(plan: &Plan, step: &Step, ran: &Ran) -> TestCase {
    let mut status = match &ran.end {
        End::Done { .. } => TestCaseStatus::success(),
        End::Failed(_) | End::Open => TestCaseStatus::non_success(NonSuccessKind::Failure),
        End::Skipped { .. } | End::Spared => TestCaseStatus::skipped(),
    };
    match &ran.end {
        End::Done { .. } => {}
        End::Open => {
            status.set_message("it was not brought to its end");
        }
        End::Spared => {
            status.set_message("its machine is made from a template");
        }
        End::Skipped { because } => {
            status.set_message(visible(&format!("because of {}", plan.graph.step(*because))));
        }
        End::Failed(failure) => {
            status.set_message(visible(&failure.message)).set_type(failure.kind.clone());
            let told = failure.chain.iter().chain(&failure.help).chain(&failure.tail);
            status.set_description(told.map(|line| visible(line)).collect::<Vec<_>>().join("\n"));
        }
    }
    let name = step.to_string();
    let name = name.split_once(": ").map_or(name.as_str(), |(_, name)| name);
    let mut case = TestCase::new(visible(name), status);
    // Without the project, which is another one with each run.
    case.set_classname(step.address.as_str());
    case.set_time(ran.length());
    case
}

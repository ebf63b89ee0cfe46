//! The course as a page: a row for each step, a bar for its time.

use std::time::Duration;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use vmctl_planner::Plan;

use super::{Course, End};
use crate::report::{STYLE, policy};
use crate::ui::visible;

/// How the bars look; colours are those of the reports.
const BARS: &str = "table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.1rem .5rem;\
border-bottom:1px solid var(--rule)}td.time{text-align:right;white-space:nowrap}td.verdict{white-space:nowrap}td.bar{width:60%}svg{display:block;\
width:100%;height:1rem}rect{fill:var(--tone)}";

/// Width of the drawing, in units of its own.
const WIDTH: f64 = 1000.0;

/// Least width of a bar, so that the shortest step is seen.
const LEAST: f64 = 2.0;

pub(super) fn page(plan: &Plan, course: &Course) -> String {
    let title = format!("Timeline of {}", plan.project);
    let length = course.length();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy(&[], &[STYLE, BARS]));
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="referrer" content="no-referrer";
                title { (visible(&title)) }
                style { (PreEscaped(STYLE)) }
                style { (PreEscaped(BARS)) }
            }
            body {
                header {
                    h1 { (visible(&title)) }
                    p.soft { "Began " (course.at.to_string()) ", took " (seconds(length)) "." }
                }
                main {
                    table {
                        thead { tr { th { "Step" } th { "End" } th { "From" } th { "Took" } th { "" } } }
                        tbody { @for row in rows(plan, course, length) { (row) } }
                    }
                }
            }
        }
    }
    .into_string()
}

fn rows(plan: &Plan, course: &Course, length: Duration) -> Vec<Markup> {
    let ran = course.ran().into_iter().map(|(id, ran, from, to)| {
        let step = plan.graph.step(id).to_string();
        let (x, width) = (place(from, length), place(to - from, length).max(LEAST));
        let why = match &ran.end {
            End::Failed(failure) => Some(failure.message.clone()),
            End::Done { note } => note.clone(),
            End::Open | End::Spared | End::Skipped { .. } => None,
        };
        html! {
            tr class=(tone(&ran.end)) {
                td { (visible(&step)) @if let Some(why) = why { br; span.soft { (visible(&why)) } } }
                td.verdict { (ran.end.word()) }
                td.time { (seconds(from)) }
                td.time { (seconds(to - from)) }
                td.bar {
                    svg viewBox=(format!("0 0 {WIDTH} 10")) preserveAspectRatio="none" role="img"
                        aria-label=(format!("from {} to {}", seconds(from), seconds(to))) {
                        rect x=(format!("{:.1}", x.min(WIDTH - LEAST))) y="1" height="8" width=(format!("{width:.1}")) {}
                    }
                }
            }
        }
    });
    let never_began = course.steps.iter().filter_map(|(id, ran)| {
        let why = match &ran.end {
            End::Skipped { because } => format!("because of {}", plan.graph.step(*because)),
            End::Spared => "its machine is made from a template".to_owned(),
            End::Open | End::Done { .. } | End::Failed(_) => return None,
        };
        let step = plan.graph.step(*id).to_string();
        Some(html! {
            tr.muted {
                td { (visible(&step)) br; span.soft { (visible(&why)) } }
                td.verdict { (ran.end.word()) }
                td {} td {} td {}
            }
        })
    });
    ran.chain(never_began).collect()
}

/// Where a time is in the drawing.
fn place(time: Duration, length: Duration) -> f64 {
    if length.is_zero() { 0.0 } else { time.as_secs_f64() / length.as_secs_f64() * WIDTH }
}

fn tone(end: &End) -> &'static str {
    match end {
        End::Open => "change",
        End::Done { .. } => "good",
        End::Failed(_) => "bad",
        End::Spared | End::Skipped { .. } => "muted",
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

//! The course as a trace that Chrome's `about:tracing` and Perfetto show.
//!
//! The form is the "JSON Object Format" of the Trace Event Format
//! (<https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>): complete events with times in
//! microseconds, and a thread for each machine.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use vmctl_planner::Plan;

use super::Course;

pub(super) fn trace(plan: &Plan, course: &Course) -> String {
    let mut lanes: BTreeMap<&str, usize> = BTreeMap::new();
    let mut events: Vec<Value> = Vec::new();
    for (id, ran, from, to) in course.ran() {
        let step = plan.graph.step(id);
        let next = lanes.len() + 1;
        let lane = *lanes.entry(step.address.as_str()).or_insert(next);
        events.push(json!({
            "name": step.to_string(),
            "cat": step.kind.name(),
            "ph": "X",
            "ts": microseconds(from),
            "dur": microseconds(to - from),
            "pid": 1,
            "tid": lane,
            "args": { "end": ran.end.word() },
        }));
    }
    let names = lanes.iter().map(|(address, lane)| {
        json!({ "name": "thread_name", "ph": "M", "pid": 1, "tid": lane, "args": { "name": address } })
    });
    let project =
        json!({ "name": "process_name", "ph": "M", "pid": 1, "args": { "name": plan.project.as_str() } });
    let all: Vec<Value> = std::iter::once(project).chain(names).chain(events).collect();
    let began = json!({ "began": course.at.to_string() });
    format!("{}\n", json!({ "traceEvents": all, "displayTimeUnit": "ms", "otherData": began }))
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

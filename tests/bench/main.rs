//! Figures of vmctl beside references that are measured in the same run, in turns, so that a busy host slows both.
//!
//! vmctl is measured whole, from its start to its end, unless a row says otherwise. A reference is what a person would
//! write by hand for the same end (a bare script with the same QEMU arguments, `qemu-img` alone), another program that
//! does the same, the least time that the work can take, or a fixed bound. A row belongs to a goal, P1 to P18 of
//! docs/performance.md.
//!
//! Usage: `vmctl-bench [RUNS] [GOAL…]`; `make bench BENCH="5 P8 P12"` passes them on.
#![expect(
    clippy::disallowed_methods,
    reason = "the other side of each row runs QEMU, ssh and others by itself, and pauses between tries"
)]
#![expect(clippy::print_stdout, reason = "a table is what it makes")]

mod boot;
mod calm;
mod durable;
mod fake;
mod hand;
mod image;
mod machines;
mod running;
mod scale;
mod script;
mod session;
mod table;
mod terraform;
mod usage;

use std::process::ExitCode;

use table::Case;

/// Runs of each side, unless told otherwise.
const RUNS: usize = 5;

/// All cases, in the order in which they are measured: the short ones first.
const CASES: [&[Case]; 9] = [
    scale::CASES,
    fake::CASES,
    terraform::CASES,
    durable::CASES,
    image::CASES,
    machines::CASES,
    running::CASES,
    session::CASES,
    boot::CASES,
];

fn main() -> ExitCode {
    let Some((runs, goals)) = wanted(std::env::args().skip(1)) else {
        println!("usage: vmctl-bench [RUNS] [GOAL…], as `vmctl-bench 5 P8 P12`; the goals are P1 to P18");
        return ExitCode::from(64);
    };
    table::head(runs);
    let failed = CASES.iter().copied().flatten().filter(|case| !case.run(runs, &goals)).count();
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How many runs, and of which goals, none meaning all; `None` for words that mean nothing.
fn wanted(words: impl Iterator<Item = String>) -> Option<(usize, Vec<String>)> {
    let mut words = words.peekable();
    let runs = match words.peek().map(|word| word.parse()) {
        Some(Ok(runs)) if runs > 0 => {
            words.next();
            runs
        }
        _ => RUNS,
    };
    let goals: Vec<String> = words.collect();
    let known = |goal: &String| CASES.iter().copied().flatten().any(|case| case.has(goal));
    goals.iter().all(known).then_some((runs, goals))
}

//! Figures of vmctl beside references that are measured in the same run, in turns, so that a busy host slows both.
//!
//! vmctl is measured whole, from its start to its end. A reference is what a person would write by hand for the same end:
//! a bare script with the same QEMU arguments, `qemu-img` alone, or the least time that the work can take.
//!
//! Usage: `vmctl-bench [RUNS]`; `make bench BENCH=9` passes the number on.
#![expect(
    clippy::disallowed_methods,
    reason = "the bare script runs QEMU and ssh by itself, and pauses between tries"
)]
#![expect(clippy::print_stdout, reason = "a table is what it makes")]

mod cases;
mod scale;
mod script;

use std::time::Duration;

use cases::Served;

/// Runs of each side, unless told otherwise.
const RUNS: usize = 5;

/// The times of both sides, run for run.
#[derive(Debug, Default)]
struct Sides {
    vmctl: Vec<Duration>,
    reference: Vec<Duration>,
}

impl Sides {
    /// Runs both sides in turns. Whoever goes first finds colder caches, so they take turns at that too.
    fn measure(
        runs: usize,
        mut vmctl: impl FnMut() -> Duration,
        mut reference: impl FnMut() -> Duration,
    ) -> Self {
        let mut sides = Self::default();
        for run in 0..runs {
            if run % 2 == 0 {
                sides.vmctl.push(vmctl());
                sides.reference.push(reference());
            } else {
                sides.reference.push(reference());
                sides.vmctl.push(vmctl());
            }
        }
        sides
    }
}

fn main() {
    let runs = std::env::args().nth(1).map_or(RUNS, |text| text.parse().expect("RUNS is a number"));
    println!("medians of {runs} runs of each side, in turns\n");
    println!("{:<50} {:>10} {:>10} {:>7} {:>6}", "", "vmctl", "reference", "ratio", "aim");
    row("one machine, apply to login", 1.05, cases::login(1, runs));
    row("three machines at once, apply to login", 1.15, cases::login(3, runs));
    row("Debian from a template, apply to login; cold is 1", 0.1, cases::warm(runs));
    row("20 machines prepared, against qemu-img", 1.0, cases::prepare(runs));
    row("48 QEMUs started, against bare QEMUs", 1.2, cases::start(runs));
    row("200 fake machines of 0.1 s, 64 at once", 1.15, cases::dispatch(runs));
    row("256 MiB pulled, against curl and sha256sum", 1.1, cases::pull(runs, Served::Plain));
    row("the same packed, against gzip besides", 1.1, cases::pull(runs, Served::Packed));
    row("50 times --version, against /bin/true", 3.0, scale::floor(runs));
    row("10,000 planned, against 10 times 1,000", 1.2, scale::plan(1_000, runs));
    row("10,000 listed, against 10 times 1,000", 1.2, scale::list(1_000, runs));
    row("10,000 fake machines made, against 100 times 100", 1.5, scale::apply(100, runs));
    println!("\nmemory of a plan of 10,000 machines: {} MiB (aim: at most 150)", scale::plan_memory());
    println!("disk of a second machine with an image: {} KiB (aim: at most 256)", cases::second_machine());
}

/// Prints one line of the table.
fn row(what: &str, aim: f64, sides: Sides) {
    let (vmctl, reference) = (median(sides.vmctl), median(sides.reference));
    println!("{what:<50} {vmctl:>8.3} s {reference:>8.3} s {:>7.3} {aim:>6.2}", vmctl / reference);
}

/// The median, in seconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default().as_secs_f64()
}

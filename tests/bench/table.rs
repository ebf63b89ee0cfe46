//! The table: cases, their rows, and what came of both sides.

use std::panic::catch_unwind;
use std::path::PathBuf;
use std::time::Duration;

use crate::calm;

/// Runs of cases whose runs take minutes, at most: worlds are given up after a time.
pub(crate) const LONG: usize = 9;

/// What is measured together: one or more rows that stand on the same runs.
pub(crate) struct Case {
    pub(crate) rows: &'static [Row],
    /// What the host must have.
    pub(crate) needs: &'static [Need],
    /// Measures so many runs; gives both sides of each row, in their order.
    pub(crate) measure: fn(usize) -> Vec<Sides>,
}

/// One line of the table.
pub(crate) struct Row {
    /// The goal of docs/performance.md that it belongs to.
    goal: &'static str,
    name: &'static str,
    /// What vmctl's median may be at most, as a multiple of the reference's.
    aim: f64,
}

/// What a case cannot be measured without.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Need {
    /// A program that is not everywhere.
    Program(&'static str),
    /// So many GiB of memory that nobody uses.
    Memory(u64),
}

/// What the numbers of a row count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Bytes,
    Count,
}

/// The numbers of both sides, run for run.
#[derive(Debug)]
pub(crate) struct Sides {
    unit: Unit,
    vmctl: Vec<f64>,
    reference: Vec<f64>,
}

impl Row {
    pub(crate) const fn new(goal: &'static str, name: &'static str, aim: f64) -> Self {
        Self { goal, name, aim }
    }
}

impl Sides {
    /// Runs both sides in turns.
    pub(crate) fn measure(
        runs: usize,
        vmctl: impl FnMut() -> Duration,
        reference: impl FnMut() -> Duration,
    ) -> Self {
        let (vmctl, reference) = turns(runs, vmctl, reference);
        Self::times(vmctl, reference)
    }

    pub(crate) fn times(vmctl: Vec<Duration>, reference: Vec<Duration>) -> Self {
        let seconds = |times: Vec<Duration>| times.iter().map(Duration::as_secs_f64).collect();
        Self { unit: Unit::Seconds, vmctl: seconds(vmctl), reference: seconds(reference) }
    }

    /// Times against one that is not measured.
    pub(crate) fn bounded(vmctl: Vec<Duration>, bound: Duration) -> Self {
        Self::times(vmctl, vec![bound])
    }

    pub(crate) fn bytes(vmctl: &[u64], reference: &[u64]) -> Self {
        Self::numbers(Unit::Bytes, vmctl, reference)
    }

    pub(crate) fn counts(vmctl: &[u64], reference: &[u64]) -> Self {
        Self::numbers(Unit::Count, vmctl, reference)
    }

    fn numbers(unit: Unit, vmctl: &[u64], reference: &[u64]) -> Self {
        let plain = |numbers: &[u64]| numbers.iter().map(|&number| number as f64).collect();
        Self { unit, vmctl: plain(vmctl), reference: plain(reference) }
    }
}

/// Runs both sides in turns. Whoever goes first finds colder caches, so they take turns at that too.
pub(crate) fn turns<O, R>(
    runs: usize,
    mut vmctl: impl FnMut() -> O,
    mut reference: impl FnMut() -> R,
) -> (Vec<O>, Vec<R>) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for run in 0..runs {
        if run % 2 == 0 {
            ours.push(vmctl());
            theirs.push(reference());
        } else {
            theirs.push(reference());
            ours.push(vmctl());
        }
    }
    (ours, theirs)
}

impl Case {
    /// Whether a row of it belongs to the goal.
    pub(crate) fn has(&self, goal: &str) -> bool {
        self.rows.iter().any(|row| row.goal.eq_ignore_ascii_case(goal))
    }

    /// Measures it and prints its rows, if any is of one of the goals; of none means all. Whether that went well: one that
    /// does not leaves the others to be measured.
    pub(crate) fn run(&self, runs: usize, goals: &[String]) -> bool {
        let is_wanted =
            |row: &Row| goals.is_empty() || goals.iter().any(|goal| row.goal.eq_ignore_ascii_case(goal));
        if !self.rows.iter().any(is_wanted) {
            return true;
        }
        let not_measured = |why: &str| {
            for row in self.rows.iter().filter(|row| is_wanted(row)) {
                println!("{:<4} {:<60} not measured: {why}", row.goal, row.name);
            }
        };
        if let Some(lack) = self.needs.iter().find_map(|need| need.lack()) {
            not_measured(&lack);
            return true;
        }
        if let Some(busy) = calm::wait() {
            println!("     {busy}");
        }
        let Ok(sides) = catch_unwind(|| (self.measure)(runs)) else {
            not_measured("it failed, as told above");
            return false;
        };
        assert_eq!(sides.len(), self.rows.len(), "both sides of each row");
        for (row, sides) in self.rows.iter().zip(&sides).filter(|(row, _)| is_wanted(row)) {
            print(row, sides);
        }
        true
    }
}

impl Need {
    /// Why it cannot be; `None` where it can.
    fn lack(self) -> Option<String> {
        match self {
            Self::Program(name) => {
                let path = std::env::var_os("PATH").unwrap_or_default();
                let is_there =
                    std::env::split_paths(&path).any(|folder: PathBuf| folder.join(name).is_file());
                (!is_there).then(|| format!("{name} is not installed"))
            }
            Self::Memory(gib) => {
                let free = calm::free_memory() >> 30;
                (free < gib).then(|| format!("it takes {gib} GiB of memory, and {free} are free"))
            }
        }
    }
}

/// Prints what stands above the rows.
pub(crate) fn head(runs: usize) {
    println!(
        "median and least of {runs} runs of each side ({LONG} at most of what takes minutes), in turns;\n\
         the ratio is that of the medians, and the aim is what it may be at most\n"
    );
    println!(
        "{:<4} {:<60} {:>10} {:>10} {:>10} {:>10} {:>7} {:>6}",
        "", "", "vmctl", "least", "reference", "least", "ratio", "aim"
    );
}

fn print(row: &Row, sides: &Sides) {
    let ratio = median(&sides.vmctl) / median(&sides.reference);
    let shown = |number: f64| show(sides.unit, number);
    println!(
        "{:<4} {:<60} {:>10} {:>10} {:>10} {:>10} {ratio:>7.3} {:>6} {}",
        row.goal,
        row.name,
        shown(median(&sides.vmctl)),
        shown(least(&sides.vmctl)),
        shown(median(&sides.reference)),
        shown(least(&sides.reference)),
        row.aim,
        if ratio <= row.aim { "met" } else { "missed" }
    );
}

fn show(unit: Unit, number: f64) -> String {
    match unit {
        Unit::Seconds if number < 1e-3 => format!("{:.1} µs", number * 1e6),
        Unit::Seconds if number < 1.0 => format!("{:.2} ms", number * 1e3),
        Unit::Seconds => format!("{number:.3} s"),
        Unit::Bytes if number < 1_048_576.0 => format!("{:.0} KiB", number / 1024.0),
        Unit::Bytes => format!("{:.1} MiB", number / 1_048_576.0),
        Unit::Count => format!("{number}"),
    }
}

fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { at(middle) } else { f64::midpoint(at(middle.wrapping_sub(1)), at(middle)) }
}

fn least(numbers: &[f64]) -> f64 {
    numbers.iter().copied().fold(f64::NAN, f64::min)
}

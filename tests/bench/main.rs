//! Time from nothing to a working login: `vmctl apply` against a bare script with the same QEMU arguments.
//!
//! Both sides run in turns in one process, so that a busy host slows both. The script is given everything that can be
//! made beforehand: overlay, seed and keys. It starts QEMU, tries every 10 ms whether sshd answers, and logs in with
//! the system's ssh. vmctl is measured whole, from its start to its end, with the image in its cache.
//!
//! Usage: `vmctl-bench [RUNS]`; `make bench BENCH=9` passes the number on.
#![expect(
    clippy::disallowed_methods,
    reason = "the bare script runs QEMU and ssh by itself, and pauses between tries"
)]
#![expect(clippy::print_stdout, reason = "a table is what it makes")]

mod script;

use std::time::{Duration, Instant};

use script::Script;
use vmctl_tests::World;

/// Runs of each side, unless told otherwise.
const RUNS: usize = 5;

/// Machines at once, what is aimed at, and what it is called.
const CASES: [(usize, f64, &str); 2] =
    [(1, 1.10, "one machine, apply to login"), (3, 1.15, "three machines at once")];

fn main() {
    let runs = std::env::args().nth(1).map_or(RUNS, |text| text.parse().expect("RUNS is a number"));
    println!("medians of {runs} runs of each side, in turns\n");
    println!("{:<28} {:>9} {:>9} {:>7} {:>6}", "", "vmctl", "script", "ratio", "aim");
    for (machines, aim, what) in CASES {
        let (vmctl, script) = compare(machines, runs);
        let ratio = vmctl.as_secs_f64() / script.as_secs_f64();
        let (vmctl, script) = (vmctl.as_secs_f64(), script.as_secs_f64());
        println!("{what:<28} {vmctl:>7.2} s {script:>7.2} s {ratio:>7.3} {aim:>6.2}");
    }
}

/// Medians of both sides.
fn compare(machines: usize, runs: usize) -> (Duration, Duration) {
    let world = World::new(machines);
    let names: Vec<String> = (1..=machines).map(|number| format!("m{number}")).collect();
    let vm =
        |name: &String| format!("vm \"{name}\" {{ image \"TINY\"; memory 256; ssh {{ user \"vm\" }} }}\n");
    world.vmfile(&names.iter().map(vm).collect::<String>());

    // The first run fills the image cache, and shows how QEMU is run.
    world.vmctl(&["apply", "--yes"]).expect(0);
    let scripts: Vec<Script> = names.iter().map(|name| Script::learn(&world, name)).collect();
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for run in 0..runs {
        // Whoever goes first finds colder caches, so they take turns at that too.
        for vmctl in [run % 2 == 0, run % 2 != 0] {
            if vmctl {
                let begun = Instant::now();
                world.vmctl(&["apply", "--yes"]).expect(0);
                ours.push(begun.elapsed());
                world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
            } else {
                theirs.push(script::run(&scripts));
            }
        }
    }
    (median(ours), median(theirs))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

//! What vmctl takes by itself, and how that grows: commands on many fake machines, against bounds and against the same on
//! few as often as it takes to come to as many.

use std::process::Stdio;
use std::time::Duration;

use vmctl_tests::World;

use crate::table::{Case, Row, Sides, turns};
use crate::usage::{self, timed};

/// Machines of the large side.
const MANY: u32 = 10_000;

pub(crate) const CASES: &[Case] = &[
    Case {
        rows: &[
            Row::new("P1", "50 times --version, against /bin/true", 3.0),
            Row::new("P1", "50 times --help, against /bin/true", 3.0),
            Row::new("P1", "50 times completions bash, against /bin/true", 3.0),
        ],
        needs: &[],
        measure: floor,
    },
    Case {
        rows: &[
            Row::new("P3", "reading 10,000 machines, each, against a bound; CPU", 1.0),
            Row::new("P2", "planning 10,000 without a look, each, against a bound; CPU", 1.0),
        ],
        needs: &[],
        measure: engine,
    },
    Case {
        rows: &[
            Row::new("P4", "plan of 100 without changes, against a bound", 1.0),
            Row::new("P4", "plan of 1,000 without changes, against a bound", 1.0),
            Row::new("P4", "plan of 10,000 without changes, against a bound", 1.0),
            Row::new("P2", "plan of 10,000, against 10 times 1,000", 1.2),
            Row::new("P14", "memory of a plan of 100, against a bound", 1.0),
            Row::new("P14", "memory of a plan of 10,000, against a bound", 1.0),
        ],
        needs: &[],
        measure: plan,
    },
    Case {
        rows: &[Row::new("P2", "list of 10,000, against 10 times 1,000", 1.2)],
        needs: &[],
        measure: list,
    },
];

/// Programs that do next to nothing (P1).
fn floor(runs: usize) -> Vec<Sides> {
    const TIMES: usize = 50;
    let world = World::new(0);
    let times = |program: &std::path::Path, arguments: &[&str]| {
        timed(|| {
            for _ in 0..TIMES {
                let mut command = world.beside_vmctl(program);
                let status = command.args(arguments).stdout(Stdio::null()).status().expect("it runs");
                assert!(status.success());
            }
        })
    };
    let against = |arguments: &[&str]| {
        let theirs = || times("/bin/true".as_ref(), &[]);
        Sides::measure(runs, || times(world.binary(), arguments), theirs)
    };
    vec![against(&["--version"]), against(&["--help"]), against(&["completions", "bash"])]
}

/// Reading the VMFile (P3), and deciding (P2), in processors' time for each machine.
fn engine(runs: usize) -> Vec<Sides> {
    const READ: Duration = Duration::from_micros(60);
    const PLANNED: Duration = Duration::from_micros(25);
    let world = applied(MANY);
    let cpu = |arguments: &[&str]| usage::of(&mut world.command(arguments)).processors;
    let (mut read, mut planned) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let reading = cpu(&["validate"]);
        let both = cpu(&["plan", "--no-refresh"]);
        read.push(reading / MANY);
        planned.push(both.saturating_sub(reading) / MANY);
    }
    vec![Sides::bounded(read, READ), Sides::bounded(planned, PLANNED)]
}

/// A plan without changes (P4), of machines that are written one by one.
fn plan(runs: usize) -> Vec<Sides> {
    const BOUNDS: [(u32, Duration); 3] = [
        (100, Duration::from_millis(20)),
        (1_000, Duration::from_millis(100)),
        (MANY, Duration::from_millis(900)),
    ];
    const MEMORY: [u64; 2] = [30 << 20, 150 << 20];
    let worlds = BOUNDS.map(|(count, _)| applied(count));
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    let mut memory = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..runs {
        for ((world, times), memory) in worlds.iter().zip(&mut times).zip(&mut memory) {
            let took = usage::of(&mut world.command(&["plan", "--detailed-exitcode"]));
            times.push(took.wall);
            memory.push(took.memory);
        }
    }
    let [least, _, most] = memory;
    let [hundred, thousand, many] = times;
    let tenfold: Vec<_> = thousand.iter().map(|&time| time * (MANY / 1_000)).collect();
    let growth = Sides::times(many.clone(), tenfold);
    let mut sides: Vec<Sides> = [hundred, thousand, many]
        .into_iter()
        .zip(BOUNDS)
        .map(|(times, (_, bound))| Sides::bounded(times, bound))
        .collect();
    sides.extend([growth, Sides::bytes(&least, &MEMORY[..1]), Sides::bytes(&most, &MEMORY[1..])]);
    sides
}

/// A list of all machines.
fn list(runs: usize) -> Vec<Sides> {
    const FEW: u32 = 1_000;
    let (many, few) = (applied(MANY), applied(FEW));
    let list = |world: &World| usage::of(&mut world.command(&["list", "--json"])).wall;
    let (many, few) = turns(runs, || list(&many), || list(&few) * (MANY / FEW));
    vec![Sides::times(many, few)]
}

/// A world with so many fake machines in its file.
pub(crate) fn written(count: u32) -> World {
    layered(count, count)
}

/// The same in layers of so many machines: each depends on the one in its place of the layer before.
pub(crate) fn layered(count: u32, layer: u32) -> World {
    let world = World::new(0);
    world.blank_image();
    let block = |number: u32| {
        let before = number.checked_sub(layer).filter(|&before| before > 0);
        let depends = before.map(|before| format!("    depends-on \"m{before}\"\n")).unwrap_or_default();
        format!(
            "vm \"m{number}\" {{\n    backend \"noop\"\n    image \"blank.qcow2\"\n    vcpus 2\n    memory \"2GiB\"\n{depends}}}\n"
        )
    };
    world.vmfile(&(1..=count).map(block).collect::<String>());
    world
}

/// A world with so many fake machines that run.
pub(crate) fn applied(count: u32) -> World {
    let world = written(count);
    apply(&world);
    world
}

/// Makes all machines of a world of fake ones.
pub(crate) fn apply(world: &World) {
    world.vmctl(&["apply", "--yes", "--quiet"]).expect(0);
}

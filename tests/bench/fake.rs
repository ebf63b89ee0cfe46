//! How steps are carried out, on fake machines: none of the time is a guest's.
//!
//! What was made is removed when all runs are over. ext4 passes over inodes that were freed a moment ago, one by one, so
//! that whoever makes files right after thousands were removed measures that.

use std::cell::RefCell;
use std::fs;
use std::time::Duration;

use vmctl_tests::World;

use crate::scale::written;
use crate::table::{Case, Row, Sides, turns};
use crate::usage::{self, timed};

pub(crate) const CASES: &[Case] = &[
    Case {
        rows: &[Row::new("P9", "200 fake machines of 0.1 s, 64 at once, to the least time", 1.15)],
        needs: &[],
        measure: dispatch,
    },
    Case {
        rows: &[Row::new("P9", "10,000 fake machines made, against 100 times 100", 1.5)],
        needs: &[],
        measure: growth,
    },
    Case {
        rows: &[Row::new("P14", "memory of an apply of 100, against a bound", 1.0)],
        needs: &[],
        measure: memory,
    },
];

/// The dispatcher (P9): 200 fake machines whose preparation takes 0.1 s each, 64 at once, against the least time that
/// this can take.
fn dispatch(runs: usize) -> Vec<Sides> {
    const MACHINES: u32 = 200;
    const AT_ONCE: u32 = 64;
    const EACH: Duration = Duration::from_millis(100);
    let mut made = Vec::new();
    let ours = || {
        let world = World::new(1);
        let noop = world.data().join("projects/shop/noop");
        fs::create_dir_all(&noop).expect("a folder for the fake world");
        let rule = format!(r#"[{{ "op": "prepare", "delay-ms": {} }}]"#, EACH.as_millis());
        fs::write(noop.join("script.json"), rule).expect("a rule for the fake world");
        world.blank_image();
        world.vmfile(&format!(
            "vm \"m\" count={MACHINES} {{ backend \"noop\"; image \"blank.qcow2\"; state \"stopped\" }}\n"
        ));
        let at_once = AT_ONCE.to_string();
        let elapsed = timed(|| drop(world.vmctl(&["apply", "--yes", "--parallelism", &at_once]).expect(0)));
        made.push(world);
        elapsed
    };
    vec![Sides::measure(runs, ours, || EACH * MACHINES.div_ceil(AT_ONCE))]
}

/// An apply that makes all machines, with every step in the journal.
fn growth(runs: usize) -> Vec<Sides> {
    const MANY: u32 = 10_000;
    const FEW: u32 = 100;
    let made = RefCell::new(Vec::new());
    let make = |count: u32| {
        let world = written(count);
        let took = usage::of(&mut world.command(&["apply", "--yes", "--quiet"])).wall;
        made.borrow_mut().push(world);
        took
    };
    let (many, few) = turns(runs, || make(MANY), || make(FEW) * (MANY / FEW));
    vec![Sides::times(many, few)]
}

/// Most memory that an apply takes (P14).
fn memory(runs: usize) -> Vec<Sides> {
    const MACHINES: u32 = 100;
    const MOST: u64 = 30 << 20;
    let made = |_| {
        let world = written(MACHINES);
        usage::of(&mut world.command(&["apply", "--yes", "--quiet"])).memory
    };
    vec![Sides::bytes(&(0..runs).map(made).collect::<Vec<_>>(), &[MOST])]
}

//! Guests that boot, and guests that need not.

use std::time::Duration;

use vmctl_tests::slots::GUESTS;
use vmctl_tests::{World, surroundings};

use crate::script::{self, Script};
use crate::table::{Case, LONG, Need, Row, Sides, turns};
use crate::usage::timed;

pub(crate) const CASES: &[Case] = &[
    Case {
        rows: &[Row::new("P8", "one machine, apply to login, against a script", 1.05)],
        needs: &[],
        measure: |runs| login(1, runs),
    },
    Case {
        rows: &[Row::new("P8", "three machines at once, apply to login, against scripts", 1.15)],
        needs: &[],
        measure: |runs| login(3, runs),
    },
    Case {
        rows: &[Row::new("P8", "ten machines at once, apply to login, against scripts", 1.15)],
        needs: &[Need::Memory(5)],
        measure: |runs| login(10, runs),
    },
    Case {
        rows: &[Row::new("P12", "tiny guest from a template to login, against a bare restore", 2.0)],
        needs: &[],
        measure: tiny,
    },
    Case {
        rows: &[
            Row::new("P12", "Debian from a template to login, against its boot", 0.1),
            Row::new("P12", "Debian from a template to login, against a bare restore", 2.0),
        ],
        needs: &[],
        measure: |runs| debian(runs.min(LONG)),
    },
];

/// Boot to login (P8): `apply` against a script that is given everything that can be made beforehand (overlay, seed and
/// keys), starts QEMU, tries every 10 ms whether sshd answers, and logs in with the system's ssh.
fn login(machines: usize, runs: usize) -> Vec<Sides> {
    // Nothing else runs beside a benchmark, so that more guests than tests may run do no harm.
    let world = World::new(machines.min(GUESTS));
    let names: Vec<String> = (1..=machines).map(|number| format!("m{number}")).collect();
    let vm =
        |name: &String| format!("vm \"{name}\" {{ image \"TINY\"; memory 256; ssh {{ user \"vm\" }} }}\n");
    world.vmfile(&names.iter().map(vm).collect::<String>());

    // The first run fills the image cache, and shows how QEMU is run.
    world.vmctl(&["apply", "--yes"]).expect(0);
    let scripts: Vec<Script> = names.iter().map(|name| Script::learn(&world, name)).collect();
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    vec![Sides::measure(runs, || made(&world, &[]), || script::log_in(&scripts))]
}

/// A guest that boots in seconds, from a template (P12): `apply` until the machine has all of its own and is logged in to,
/// against the same QEMU with the same files of the template started by hand until its sshd greets.
fn tiny(runs: usize) -> Vec<Sides> {
    let world = World::new(1);
    world.vmfile(
        "vm \"m\" { image \"GENERIC\"; memory 160; warm \"auto\"; ssh; provision \"shell\" { inline \"hostname\" } }\n",
    );
    made(&world, &[]);
    let script = restored(&world);
    vec![Sides::measure(runs, || made(&world, &[]), || script::restore(&script))]
}

/// A genuine Debian from a template (P12), against the same booted and provisioned, and against a bare restore: each is
/// made anew, its old one already gone.
fn debian(runs: usize) -> Vec<Sides> {
    /// How long a run may take that boots a whole Debian, emulated.
    const PATIENCE: Duration = Duration::from_secs(1200);
    let mut world = World::new(1);
    world.set_patience(PATIENCE);
    let file = format!(
        "vm \"m\" {{\n    image \"{}\"\n    vcpus 2\n    memory 512\n    warm \"auto\"\n    ssh\n    \
         provision \"shell\" {{ inline \"sudo touch /provisioned\" }}\n}}\n",
        surroundings::debian_image().display()
    );
    world.write("VMFile.kdl", &file);
    made(&world, &[]);
    let (warm, others) = turns(
        runs,
        || made(&world, &[]),
        || {
            // A cold start keeps a new template in place of the old one.
            let cold = made(&world, &["--cold"]);
            (cold, script::restore(&restored(&world)))
        },
    );
    let (cold, bare) = others.into_iter().unzip();
    vec![Sides::times(warm.clone(), cold), Sides::times(warm, bare)]
}

/// How long `apply` takes to make the world's machines, which are removed again.
fn made(world: &World, how: &[&str]) -> Duration {
    let elapsed = timed(|| drop(world.vmctl(&[&["apply", "--yes"], how].concat()).expect(0)));
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    elapsed
}

/// How a machine from a template is run without vmctl. There is a template.
fn restored(world: &World) -> Script {
    let applied = world.vmctl(&["apply", "--yes"]).expect(0);
    assert!(!applied.text().contains("it boots"), "{}", applied.text());
    let script = Script::learn_restored(world, "m");
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    script
}

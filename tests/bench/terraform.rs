//! Terraform, on as many things that take no time to look at, in as many layers.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use vmctl_tests::World;

use crate::scale;
use crate::table::{Case, LONG, Need, Row, Sides, turns};
use crate::usage::{self, Usage};

/// Layers of things that depend on each other.
const LAYERS: u32 = 10;

pub(crate) const CASES: &[Case] = &[
    Case {
        rows: &[
            Row::new("P4", "plan of 1,000 in 10 layers, against terraform", 0.04),
            Row::new("P4", "CPU of a plan of 1,000, against terraform", 0.04),
            Row::new("P14", "memory of a plan of 1,000, against terraform", 0.1),
        ],
        needs: &[Need::Program("terraform")],
        measure: |runs| plan(1_000, runs),
    },
    Case {
        rows: &[
            Row::new("P4", "plan of 10,000 in 10 layers, against terraform", 0.02),
            Row::new("P4", "CPU of a plan of 10,000, against terraform", 0.02),
            Row::new("P14", "memory of a plan of 10,000, against terraform", 0.1),
        ],
        needs: &[Need::Program("terraform")],
        measure: |runs| plan(10_000, runs.min(LONG)),
    },
    Case {
        rows: &[
            Row::new("P9", "1,000 made in 10 layers, against terraform", 0.04),
            Row::new("P9", "CPU of making 1,000, against terraform", 0.04),
            Row::new("P14", "memory of making 1,000, against terraform", 0.1),
        ],
        needs: &[Need::Program("terraform")],
        measure: apply,
    },
];

/// A plan without changes: fake machines, and resources of terraform's own that are nothing but values.
fn plan(count: u32, runs: usize) -> Vec<Sides> {
    let world = scale::layered(count, count / LAYERS);
    scale::apply(&world);
    let folder = world.folder().join("terraform");
    configure(&folder, count);
    fs::write(folder.join("terraform.tfstate"), state(count).to_string()).expect("a state");
    let detailed = ["plan", "-detailed-exitcode", "-lock=false"];
    let ours = || usage::of(&mut world.command(&["plan", "--detailed-exitcode"]));
    let (ours, theirs) = turns(runs, ours, || usage::of(&mut terraform(&world, &folder, &detailed)));
    sides(&ours, &theirs)
}

/// An apply that makes all of them.
fn apply(runs: usize) -> Vec<Sides> {
    const COUNT: u32 = 1_000;
    let ours = || {
        let world = scale::layered(COUNT, COUNT / LAYERS);
        usage::of(&mut world.command(&["apply", "--yes"]))
    };
    let theirs = || {
        let world = World::new(0);
        let folder = world.folder().join("terraform");
        configure(&folder, COUNT);
        usage::of(&mut terraform(&world, &folder, &["apply", "-auto-approve"]))
    };
    let (ours, theirs) = turns(runs, ours, theirs);
    sides(&ours, &theirs)
}

fn sides(ours: &[Usage], theirs: &[Usage]) -> Vec<Sides> {
    let times = |of: fn(&Usage) -> std::time::Duration| {
        Sides::times(ours.iter().map(of).collect(), theirs.iter().map(of).collect())
    };
    let memory = |usages: &[Usage]| usages.iter().map(|usage| usage.memory).collect::<Vec<_>>();
    vec![
        times(|usage| usage.wall),
        times(|usage| usage.processors),
        Sides::bytes(&memory(ours), &memory(theirs)),
    ]
}

/// terraform in a folder; it asks nobody for news and needs no provider but its own.
fn terraform(world: &World, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = world.beside_vmctl("terraform");
    command.env("CHECKPOINT_DISABLE", "1").env("TF_CLI_CONFIG_FILE", folder.join("terraformrc"));
    command.args(arguments).args(["-input=false", "-no-color"]).current_dir(folder);
    command
}

fn configure(folder: &Path, count: u32) {
    fs::create_dir(folder).expect("a folder for terraform");
    fs::write(folder.join("terraformrc"), "").expect("its settings");
    let block = |number: u32| {
        let before = before(number, count);
        let depends = before.map(|before| format!("  depends_on = [terraform_data.m{before}]\n"));
        format!(
            "resource \"terraform_data\" \"m{number}\" {{\n  input = {{ name = \"m{number}\", vcpus = 2, memory = \"2GiB\" }}\n{}}}\n",
            depends.unwrap_or_default()
        )
    };
    fs::write(folder.join("main.tf"), (1..=count).map(block).collect::<String>()).expect("a configuration");
}

/// What a resource depends on: the one in its place of the layer before.
fn before(number: u32, count: u32) -> Option<u32> {
    number.checked_sub(count / LAYERS).filter(|&before| before > 0)
}

/// The state that an apply of all leaves, in its version 4. terraform writes it anew after each resource, so that an
/// apply of many takes very long.
fn state(count: u32) -> Value {
    let resource = |number: u32| {
        let value = json!({ "name": format!("m{number}"), "vcpus": 2, "memory": "2GiB" });
        let kind = json!(["object", { "name": "string", "vcpus": "number", "memory": "string" }]);
        let held = json!({ "value": value, "type": kind });
        let chain = std::iter::successors(before(number, count), |&number| before(number, count));
        let depends: Vec<String> = chain.map(|before| format!("terraform_data.m{before}")).collect();
        json!({
            "mode": "managed",
            "type": "terraform_data",
            "name": format!("m{number}"),
            "provider": "provider[\"terraform.io/builtin/terraform\"]",
            "instances": [{
                "schema_version": 0,
                "attributes": {
                    "id": format!("00000000-0000-4000-8000-{number:012}"),
                    "input": held,
                    "output": held,
                    "triggers_replace": null,
                },
                "sensitive_attributes": [],
                "dependencies": depends,
            }],
        })
    };
    json!({
        "version": 4,
        "terraform_version": "1.11.4",
        "serial": 1,
        "lineage": "00000000-0000-4000-8000-000000000000",
        "outputs": {},
        "resources": (1..=count).map(resource).collect::<Vec<_>>(),
        "check_results": null,
    })
}

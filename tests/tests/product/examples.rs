//! The examples do what their READMEs say.

use vmctl_tests::world::free_port;
use vmctl_tests::{World, leaks, surroundings};

/// Copies an example into the world's project, with the image's path and the ports of this run.
fn copy(world: &World, name: &str, ports: &[(&str, u16)]) {
    let from = surroundings::repository().join("examples").join(name);
    let mut folders = vec![from.clone()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let mut text = std::fs::read_to_string(&path).unwrap();
            for (written, port) in ports {
                text = text.replace(written, &port.to_string());
            }
            text = text.replace("../../.cache/images/tiny.qcow2", "TINY");
            let file = path.strip_prefix(&from).unwrap().display().to_string();
            if file == "VMFile.kdl" { world.vmfile(&text) } else { world.write(&file, &text) }
        }
    }
}

#[test]
fn two_tier_web_reads_what_db_published() {
    let world = World::new(2);
    let (db, web) = (free_port(), free_port());
    copy(&world, "two-tier", &[("18080", db), ("18081", web)]);
    world.vmctl(&["validate"]).expect(0);
    world.vmctl(&["apply", "--yes"]).expect(0).says("fetched what db published");
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    let page = world.exec("web", "wget -q -O - http://127.0.0.1/");
    assert_eq!(page, "web read this from db:\nThe quick brown fox was here.\n");
    let url = format!("http://127.0.0.1:{web}/\n");
    assert_eq!(world.vmctl(&["output", "url"]).expect(0).stdout, url);

    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}

#[test]
fn database_is_protected_checked_and_edited_while_it_runs() {
    let world = World::new(1);
    let (port, other) = (free_port(), free_port());
    copy(&world, "database", &[("18090", port)]);
    world.vmctl(&["apply", "--yes"]).expect(0).says("serving");
    world.vmctl(&["drift", "--checks", "fail"]).expect(0).says("2 passed");
    let pid = world.pid("db");
    let text = std::fs::read_to_string(world.project().join("VMFile.kdl")).unwrap();
    let edited = text.replace(&port.to_string(), &other.to_string()).replace("memory 256", "memory 512");
    world.write("VMFile.kdl", &edited);
    assert_eq!(world.decisions()["vm.db"], "update");
    world.vmctl(&["apply", "--yes"]).expect(0);
    assert_eq!(world.pid("db"), pid);
    world.exec("db", "sudo rm /srv/www/index.html");
    world.vmctl(&["drift", "--checks", "fail"]).expect(1).says("vm.db `serves`");
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(1).says("`prevent-destroy` protects `db`");

    world.write("VMFile.kdl", &edited.replace("        prevent-destroy\n", ""));
    world.vmctl(&["apply", "--yes"]).expect(0);
    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}

#[test]
fn every_example_is_valid() {
    let examples = surroundings::repository().join("examples");
    for entry in examples.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let world = World::new(0);
            copy(&world, path.file_name().unwrap().to_str().unwrap(), &[]);
            world.vmctl(&["validate"]).expect(0);
        }
    }
}

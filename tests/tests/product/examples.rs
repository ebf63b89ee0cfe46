//! The examples do what their READMEs say.

use std::net::{Ipv4Addr, TcpListener};

use vmctl_tests::markdown::Page;
use vmctl_tests::server::{Answer, Server};
use vmctl_tests::shell::{Mode, Shell};
use vmctl_tests::world::free_port;
use vmctl_tests::{World, leaks, process, surroundings};

/// Types the command lines of the example's README, but for those that remove its machines: each test does that, and looks
/// for what is left.
fn follow_readme(world: &World) {
    let text = std::fs::read_to_string(world.project().join("README.md")).unwrap();
    let page = Page { name: "README.md".to_owned(), text };
    let mut shell = Shell::new(world, Mode::Runs);
    let commands = page.commands();
    let kept: Vec<_> = commands.iter().filter(|shown| !shown.command.contains("--destroy")).collect();
    assert!(!kept.is_empty());
    for shown in kept {
        shell.follow(shown).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
}

#[test]
fn minimal_is_made_as_its_readme_says() {
    let world = World::new(1);
    world.copy_example("minimal", &[]);
    follow_readme(&world);

    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}

#[test]
fn warm_worker_is_made_once() {
    let world = World::new(1);
    world.copy_example("warm", &[]);
    follow_readme(&world);
    assert_eq!(world.exec("worker", "cat installed"), "installed\n");
    world
        .vmctl(&["plan", "--replace", "worker"])
        .expect(0)
        .says("it does not boot, and is provisioned already");
    let ran = world.vmctl(&["run", "--on", "worker", "--", "cat", "installed"]).expect(0);
    assert_eq!(ran.stdout, "installed\n");
    assert!(ran.stderr.contains("start done") && !ran.stderr.contains("provision"), "{}", ran.stderr);

    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}

#[test]
fn two_tier_web_reads_what_db_published() {
    let world = World::new(2);
    let (db, web) = (free_port(), free_port());
    world.copy_example("two-tier", &[("18080", db), ("18081", web)]);
    world.vmctl(&["validate"]).expect(0);
    world.vmctl(&["apply", "--yes"]).expect(0).says("fetched what db published");
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    let page = world.exec("web", "wget -q -O - http://127.0.0.1/");
    assert_eq!(page, "web read this from db:\nThe quick brown fox was here.\n");
    let url = format!("http://127.0.0.1:{web}/\n");
    assert_eq!(world.vmctl(&["output", "url"]).expect(0).stdout, url);
    follow_readme(&world);

    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}

#[test]
fn database_is_protected_checked_and_edited_while_it_runs() {
    let world = World::new(1);
    let (port, other) = (free_port(), free_port());
    world.copy_example("database", &[("18090", port)]);
    world.vmctl(&["apply", "--yes"]).expect(0).says("serving");
    follow_readme(&world);
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
fn cluster_workers_are_numbered_and_heard_by_the_head() {
    let world = World::new(3);
    // The first digits of two ports that are free: each worker's number follows.
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let ports = (1000..3000).find(|ports| (1..=2).all(|number| is_free(ports * 10 + number))).unwrap();
    let ports = format!("ports={ports}");
    world.copy_example("cluster", &[]);
    world.vmctl(&["apply", "--yes", "--var", &ports]).expect(0).says("the head heard 2 workers");
    let heard = world.exec("head", "cat answers.txt");
    assert_eq!(heard, "I am worker-1, number 1\nI am worker-2, number 2\n");
    world.vmctl(&["plan", "--detailed-exitcode", "--var", &ports]).expect(0).says("No changes");
    let fewer = world.vmctl(&["plan", "--json", "--var", &ports, "--var", "workers=1"]).expect(0).json();
    let destroyed = fewer["changes"].as_array().unwrap().iter().find(|change| change["action"] == "destroy");
    assert_eq!(destroyed.unwrap()["address"], "vm.worker-2");

    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}

#[test]
fn ci_runner_is_made_for_one_commit_and_removed() {
    let mut world = World::new(1);
    world.copy_example("ci", &[]);
    world.vmctl(&["validate"]).expect(1).says("`CI_COMMIT` is not set");
    world.set("CI_COMMIT", "4711");
    world.vmctl(&["validate", "--var", "suite=quik"]).expect(1).says("did you mean `quick`?");
    let script = |suite: &str| {
        let mut command = world.beside_vmctl("sh");
        command.args(["-c", "PATH=$0:$PATH exec bash ./run --var suite=$1"]);
        command.arg(world.binary().parent().expect("a folder")).arg(suite);
        command.output().expect("the script runs")
    };
    let ended = script("full");
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert_eq!(ended.status.code(), Some(0), "{out}{err}");
    assert!(out.starts_with("ok: full tests") && err.contains("ok: full tests"), "{out}{err}");
    world.write("tests/run.sh", "echo it fails; exit 1\n");
    assert_eq!(script("quick").status.code(), Some(5));
    assert!(process::naming(world.folder()).is_empty());
}

#[test]
fn layers_of_several_files_make_each_machine() {
    let world = World::new(2);
    world.copy_example("templates-and-includes", &[]);
    let applied = world.vmctl(&["apply", "--yes"]).expect(0);
    applied.says("db of layers, test: 2 CPUs").says("web of layers, test: 1 CPUs");
    world.vmctl(&["validate", "--var", "memory=300"]).expect(1).says("it is one of `256`, `512` or `1024`");
    let live = world.vmctl(&["plan", "--json", "--var-file", "live.kdl"]).expect(0).json();
    for change in live["changes"].as_array().unwrap() {
        assert_eq!(change["action"], "restart", "{change:#}");
    }

    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}

#[test]
fn machines_of_a_private_network_call_each_other_by_name() {
    let world = World::new(2);
    let port = free_port();
    world.copy_example("private-network", &[("18200", port)]);
    world.vmctl(&["apply", "--yes"]).expect(0).says("db answers");
    follow_readme(&world);
    assert!(world.exec("db", "cat /etc/hosts").contains("10.77.0.11 web"));

    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}

#[test]
fn volumes_keep_records_while_their_machine_is_made_anew() {
    let world = World::new(1);
    world.copy_example("volumes", &[]);
    world.vmctl(&["apply", "--yes"]).expect(0);
    let line = world.exec("db", "cat /srv/records/log");
    assert_eq!(line, std::fs::read_to_string(world.project().join("src/hello.txt")).unwrap());
    follow_readme(&world);
    world.vmctl(&["apply", "--yes", "--replace", "db"]).expect(0);
    assert_eq!(world.exec("db", "cat /srv/records/log"), line.repeat(2));
    let text = std::fs::read_to_string(world.project().join("VMFile.kdl")).unwrap();
    world.write("VMFile.kdl", &text.replace("1G", "2G"));
    assert_eq!(world.decisions()["vm.db"], "update");
    world.write("VMFile.kdl", &text.replace("1G", "512M"));
    world.vmctl(&["plan"]).expect(1).says("cannot shrink");

    let plain = text.replace(" {\n    prevent-destroy\n}", "");
    for (vmfile, code) in [(&text, 1), (&plain, 0)] {
        world.write("VMFile.kdl", vmfile);
        world.vmctl(&["apply", "--yes"]).expect(0);
        let held = leaks::held(&world);
        world.vmctl(&["apply", "--destroy", "--volumes", "--yes"]).expect(code);
        if code == 0 {
            leaks::check(&world, &held);
        }
    }
}

#[test]
fn image_of_a_server_is_downloaded_pinned_and_kept() {
    let world = World::new(1);
    let image = std::fs::read(World::tiny_image()).unwrap();
    let server = Server::start(move |asked| match &*asked.path {
        "/tiny.qcow2" => Answer::file(asked, &image, "\"a\""),
        _ => Answer::status(404),
    });
    let address = server.host();
    let (_, port) = address.split_once(':').unwrap();
    world.copy_example("remote-image", &[("18300", port.parse().unwrap())]);
    world.vmctl(&["plan"]).expect(0).says("known after apply: image");
    world.vmctl(&["apply", "--yes"]).expect(0);
    assert_eq!(world.exec("far", "hostname"), "far\n");
    world.vmctl(&["plan", "--locked", "--detailed-exitcode"]).expect(0).says("No changes");
    world.vmctl(&["image", "update"]).expect(0).says("unchanged");
    // The digest of the file changes nothing, and another one is refused.
    let pinned = world.vmctl(&["image", "list", "--json"]).expect(0).json();
    let sha256 = pinned["images"][0]["origins"][0]["sha256"].as_str().unwrap().to_owned();
    let text = std::fs::read_to_string(world.project().join("VMFile.kdl")).unwrap();
    for (digest, code) in [(sha256, 0), ("0".repeat(64), 1)] {
        world.write("VMFile.kdl", &text.replace("// sha256 \"…\"", &format!("sha256 {digest:?}")));
        world.vmctl(&["plan", "--detailed-exitcode"]).expect(code);
    }
    world.write("VMFile.kdl", &text);

    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
    assert_eq!(world.vmctl(&["image", "prune", "--json"]).expect(0).json()["freed_bytes"], 0);
}

/// The example that does without a VMFile; what it says is done in `ancestor.rs`.
const BY_HAND: &str = "by-hand";

/// The example that is a crate, which is tested as one.
const BACKEND: &str = "backend";

#[test]
fn every_example_is_valid_planned_and_listed() {
    let examples = surroundings::repository().join("examples");
    let listed = std::fs::read_to_string(examples.join("README.md")).unwrap();
    for entry in examples.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if !path.is_dir() {
            continue;
        }
        assert!(path.join("README.md").is_file(), "{name}");
        assert!(listed.contains(&format!("| [{name}]({name}) |")), "{name}");
        if [BACKEND, BY_HAND].contains(&name) {
            continue;
        }
        let mut world = World::new(0);
        world.set("CI_COMMIT", "4711");
        world.copy_example(name, &[]);
        world.vmctl(&["validate"]).expect(0);
        world.vmctl(&["plan"]).expect(0);
        if name == "propolis" {
            // No host of these tests is illumos.
            world.vmctl(&["apply", "--yes"]).expect(1).says("/opt/propolis/propolis-server");
            assert!(!world.data().join("projects/propolis/vms").exists());
        }
    }
}

#[test]
fn kernel_boots_without_a_disk() {
    let world = World::new(1);
    world.copy_example("direct-kernel", &[]);
    world.vmctl(&["apply", "--yes"]).expect(0);
    world.vmctl(&["log", "bare", "--console"]).expect(0).says("GUEST READY");
    follow_readme(&world);
    leaks::leakcheck(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}

//! Sensitive variables from the command line, a file and the environment: nothing that is printed or kept shows them.

use std::fs;
use std::path::{Path, PathBuf};

use vmctl_tests::{Ended, World, leaks, process};

/// Given by `--var`, `--var-file` and the environment.
const SECRETS: [&str; 3] = ["opensesame-71", "tell \"no\\body\" 72", "hush73hush"];

/// What has to hold the values: the seed, the guest's own disk, and what the guest itself wrote to its console.
const MUST_HOLD: [&str; 3] = ["seed.img", "overlay.qcow2", "console.log"];

/// One machine that uses all three; its last step ends with `status`, and its check asks for `asked`.
fn vmfile(world: &World, status: u8, asked: &str) {
    world.vmfile(
        &r#"
variable "word" { sensitive }
variable "phrase" { sensitive }
variable "host" { sensitive }
vm "one" {
    image "TINY"
    memory 192
    cloud-init { hostname (template)"one-{{ var.host }}" }
    ssh { user "vm" }
    labels { word (var)"word"; phrase (template)"it is {{ var.phrase }}" }
    provision "shell" { inline (template)"echo out {{ var.word }}; echo err {{ var.host }} >&2; echo {{ var.word }} > word" }
    provision "shell" { inline (template)"echo '{{ var.phrase }}'; hostname; exit STATUS" }
    provision "file" { source "note.txt"; destination (template)"/home/vm/{{ var.host }}.txt" }
    check "word" { exec (template)"grep -qx {{ var.word }}ASKED word" }
}
"#
        .replace("STATUS", &status.to_string())
        .replace("ASKED", asked),
    );
}

/// Panics if one of the secrets, as it is or quoted, is in `text`.
fn clean(what: &str, text: &[u8]) {
    let quoted = SECRETS.map(|secret| serde_json::Value::from(secret).to_string());
    let quoted = quoted.iter().map(|secret| secret.trim_matches('"').trim_end_matches('\\'));
    for secret in SECRETS.into_iter().chain(quoted) {
        let is_there = text.windows(secret.len()).any(|part| part == secret.as_bytes());
        assert!(!is_there, "`{secret}` is in {what}:\n{}", String::from_utf8_lossy(text));
    }
}

/// Every file below `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let inside = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flatten().map(|entry| entry.path()).flat_map(inside).collect()
}

/// Panics if a secret is in a file of the data folder, or on the command line of a machine.
fn kept_nowhere(world: &World) {
    for path in files(&world.data()) {
        let name = path.file_name().expect("a name").to_string_lossy();
        let is_image = path.starts_with(world.data().join("images"));
        if !is_image && !MUST_HOLD.contains(&&*name) && path.is_file() {
            clean(&path.display().to_string(), &fs::read(&path).expect("a file"));
        }
    }
    for process in process::naming(world.folder()) {
        clean("a command line", process.command.as_bytes());
    }
}

/// Runs vmctl with the values, and looks through all that it says and leaves.
fn run(world: &World, arguments: &[&str], code: i32) -> Ended {
    let word = format!("word={}", SECRETS[0]);
    let given = ["--var", &word, "--var-file", "values.kdl"];
    let ended = world.vmctl(&[arguments, &given].concat()).expect(code);
    clean(&arguments.join(" "), ended.text().as_bytes());
    for path in ["x.plan", "x.html"] {
        clean(path, &fs::read(world.project().join(path)).unwrap_or_default());
    }
    kept_nowhere(world);
    ended
}

#[test]
fn sensitive_values_reach_the_guest_and_nothing_else() {
    let mut world = World::new(1);
    world.set("VMCTL_VAR_host", SECRETS[2]);
    world.write("note.txt", "a note\n");
    world.write("values.kdl", &format!("phrase {}\n", serde_json::Value::from(SECRETS[1])));
    vmfile(&world, 7, "");

    run(&world, &["validate", "--json"], 0);
    run(&world, &["plan", "--out", "x.plan", "--html", "x.html"], 0).says("(sensitive:");
    for arguments in [
        ["plan", "--json"].as_slice(),
        &["plan", "--markdown"],
        &["show", "x.plan", "--json"],
        &["graph", "x.plan"],
        &["graph"],
    ] {
        run(&world, arguments, 0);
    }
    fs::remove_file(world.project().join("x.plan")).expect("the plan");

    // Fails, as an event and as text.
    let failed = run(&world, &["-vv", "apply", "--yes", "--json"], 5).stdout;
    assert!(failed.contains("out (sensitive)") && failed.contains("err (sensitive)"), "{failed}");
    run(&world, &["-vv", "apply", "--yes"], 5).says("(sensitive)").says("one-(sensitive)");
    run(&world, &["log", "one", "--provision"], 0).says("out (sensitive)");

    // Works.
    vmfile(&world, 0, "");
    run(&world, &["apply", "--yes"], 0).says("/home/vm/(sensitive).txt");
    let guest = world.exec("one", "cat word; hostname; ls");
    assert!(guest.starts_with(&format!("{}\none-{}\n", SECRETS[0], SECRETS[2])), "{guest}");
    assert!(guest.contains(&format!("{}.txt", SECRETS[2])), "{guest}");
    run(&world, &["plan", "--detailed-exitcode"], 0).says("No changes");
    for arguments in
        [["show"].as_slice(), &["show", "--json"], &["status", "one", "--json"], &["list", "--json"]]
    {
        run(&world, arguments, 0);
    }

    // A check that does not hold, and drift.
    vmfile(&world, 0, "x");
    run(&world, &["plan", "--checks", "fail"], 1).says("(sensitive)x");
    run(&world, &["drift", "--json"], 0);
    process::kill(world.pid("one"));
    run(&world, &["drift"], 2);
    run(&world, &["apply", "--yes"], 0);

    // Other values are changes, and are told apart without being shown.
    let pid = world.pid("one");
    world.write("values.kdl", "phrase \"another one\"\n");
    run(&world, &["plan"], 0).says("provision").says("+echo '(sensitive:").says("-echo '(sensitive:");
    run(&world, &["apply", "--yes"], 0);
    assert_eq!(world.pid("one"), pid);

    // Without its key, what is recorded cannot be compared; to remove it, nothing has to be.
    let key = world.data().join("projects/shop/key");
    let kept = fs::read(&key).expect("the key");
    fs::remove_file(&key).expect("the key");
    run(&world, &["plan"], 1).says("is gone, and without it nobody can tell");
    fs::write(&key, kept).expect("the key");
    run(&world, &["plan"], 0);

    let held = leaks::held(&world);
    run(&world, &["apply", "--destroy", "--yes", "--json"], 0);
    leaks::check(&world, &held);
}

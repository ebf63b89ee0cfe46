//! What other programs are told: shells, ssh, Ansible, scripts that wait.

use vmctl_tests::{World, process};

/// Runs a script of bash that finds vmctl in its PATH.
fn bash(world: &World, script: &str) -> String {
    let mut command = world.beside_vmctl("bash");
    command.args(["-c", &format!("PATH=$0:$PATH\n{script}")]);
    command.arg(world.binary().parent().expect("a folder"));
    let ended = command.output().expect("bash runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(ended.status.success(), "{}{}", text(&ended.stdout), text(&ended.stderr));
    text(&ended.stdout)
}

/// What bash offers for a line, whose last word is not finished.
fn offered(world: &World, line: &str) -> Vec<String> {
    let script = format!(
        "source <(vmctl completions bash)\nCOMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_TYPE=9\n\
         _clap_complete_vmctl vmctl \"${{COMP_WORDS[-1]}}\" x\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    bash(world, &script).lines().map(str::to_owned).collect()
}

#[test]
fn ssh_ansible_and_shells_are_told_of_machines_that_run() {
    let world = World::new(1);
    world.vmfile(
        r#"
project "shop"
vm "web" { image "TINY"; memory 192; ssh { user "vm" }; labels { role "front end" } }
vm "web-off" { image "TINY"; memory 192; ssh { user "vm" }; state "stopped" }
"#,
    );
    world.vmctl(&["wait"]).expect(1).says("no machine to wait for");
    world.vmctl(&["inventory"]).expect(0);
    world.vmctl(&["apply", "--yes"]).expect(0);

    // The system's ssh logs in by the printed file, with the host checked.
    let hosts = world.vmctl(&["ssh-config"]).expect(0).says("Left out: `vm.web-off`");
    std::fs::write(world.project().join("ssh config"), &hosts.stdout).unwrap();
    assert_eq!(bash(&world, "ssh -F 'ssh config' -o BatchMode=yes web hostname"), "web\n");
    world.vmctl(&["ssh-config", "web-off"]).expect(1);

    let inventory = world.vmctl(&["inventory", "--list"]).expect(0).json();
    assert_eq!(inventory["all"]["hosts"], serde_json::json!(["web"]));
    assert_eq!(inventory["role_front_end"]["hosts"], serde_json::json!(["web"]));
    let variables = &inventory["_meta"]["hostvars"]["web"];
    let file = world.vmctl(&["inventory"]).expect(0).json();
    assert_eq!(file["all"]["hosts"]["web"], *variables);
    assert_eq!(file["all"]["children"]["role_front_end"]["hosts"], serde_json::json!({ "web": {} }));
    assert_eq!(world.vmctl(&["inventory", "--host", "web"]).expect(0).json(), *variables);
    let word =
        |name: &str| variables[name].as_str().unwrap_or_else(|| panic!("{name} in {variables}")).to_owned();
    let by_ansible = format!(
        "ssh {} -p {} -i '{}' -o BatchMode=yes {}@{} id -un",
        word("ansible_ssh_common_args"),
        variables["ansible_port"],
        word("ansible_ssh_private_key_file"),
        word("ansible_user"),
        word("ansible_host"),
    );
    assert_eq!(bash(&world, &by_ansible), "vm\n");

    world.vmctl(&["wait", "web", "--timeout", "1m"]).expect(0);
    world.vmctl(&["wait", "web-off", "--for", "stopped", "--timeout", "0"]).expect(0);
    world
        .vmctl(&["wait", "--for", "running", "--timeout", "0"])
        .expect(1)
        .says("not running within")
        .says("web-off");
    world.vmctl(&["wait", "wbe"]).expect(1).says("did you mean `web`?");
    let waiting = world.start(&["wait", "web", "--for", "stopped"]);
    process::kill(world.pid("web"));
    waiting.end().expect(0);

    assert_eq!(offered(&world, "vmctl ssh w"), ["web", "web-off"]);
    assert_eq!(offered(&world, "vmctl apply --target web-"), ["web-off"]);
    assert_eq!(offered(&world, "vmctl list --project s"), ["shop"]);
    assert_eq!(offered(&world, "vmctl tai"), ["taint"]);

    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    assert!(process::naming(world.folder()).is_empty());
}

#[test]
fn each_command_has_a_manual_page_and_each_shell_a_script() {
    let world = World::new(0);
    world.vmctl(&["man", "--dir", "man pages"]).expect(0);
    let page = |name: &str| std::fs::read_to_string(world.project().join("man pages").join(name)).unwrap();
    assert!(
        page("vmctl.1").contains("vmctl\\-apply(1)") && page("vmctl-state-mv.1").contains(".SH SYNOPSIS")
    );
    assert_eq!(world.vmctl(&["man"]).expect(0).stdout, page("vmctl.1"));
    for (shell, word) in
        [("bash", "complete -o"), ("zsh", "#compdef vmctl"), ("fish", "complete --keep-order")]
    {
        world.vmctl(&["completions", shell]).expect(0).says(word);
    }
    world.vmctl(&["completions", "tcsh"]).expect(64);
}

//! Logging in with the keys that people have: of every kind, behind a passphrase, in the agent.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use vmctl_tests::{PATIENCE, World, await_condition, process};

const PASSPHRASE: &str = "kept-by-nobody-9317";

/// A key made by `ssh-keygen` in the project's folder; its comment is its name.
fn keygen(world: &World, name: &str, kind: &[&str], passphrase: &str) -> PathBuf {
    let path = world.project().join(name);
    let mut command = world.beside_vmctl("ssh-keygen");
    command.args(["-q", "-C", name, "-N", passphrase, "-t"]).args(kind).arg("-f").arg(&path);
    assert!(command.status().is_ok_and(|status| status.success()), "ssh-keygen makes {name}");
    path
}

/// A genuine agent; it goes with this value.
struct Agent {
    socket: PathBuf,
    child: Child,
}

impl Agent {
    fn start(world: &World) -> Self {
        let socket = world.folder().join("home/agent.sock");
        let mut command = world.beside_vmctl("ssh-agent");
        let child =
            command.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().expect("ssh-agent");
        let agent = Self { socket, child };
        // It answers once its socket is there, and says with 1 that it holds nothing.
        let answers = || agent.tool(world).arg("-l").status().expect("ssh-add").code() == Some(1);
        await_condition("the agent answers", answers);
        agent
    }

    fn tool(&self, world: &World) -> Command {
        let mut command = world.beside_vmctl("ssh-add");
        command.env("SSH_AUTH_SOCK", &self.socket).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn add(&self, world: &World, key: &Path) {
        let answer = world.folder().join("answer");
        fs::write(&answer, format!("#!/bin/sh\necho {PASSPHRASE}\n")).expect("a script");
        fs::set_permissions(&answer, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("its mode");
        let mut tool = self.tool(world);
        tool.arg("-q").arg(key).env("SSH_ASKPASS", &answer).env("SSH_ASKPASS_REQUIRE", "force");
        assert!(tool.status().is_ok_and(|status| status.success()), "the agent takes {}", key.display());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().expect("the agent can be killed");
        self.child.wait().expect("it can be waited for");
    }
}

/// Runs vmctl on a terminal of its own and answers its question; returns all that the terminal showed.
fn on_a_terminal(world: &World, arguments: &str, answers: &[&str]) -> (i32, String) {
    let line = format!("{} {arguments}", world.binary().display());
    let mut command = world.beside_vmctl("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script");
    process::bound(child.id(), PATIENCE);
    let (mut keys, mut screen) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
    let mut shown = Vec::new();
    for (index, answer) in answers.iter().enumerate() {
        let mut byte = [0];
        let asked = |shown: &[u8]| String::from_utf8_lossy(shown).matches("`: ").count() > index;
        while !asked(&shown) && screen.read(&mut byte).is_ok_and(|length| length == 1) {
            shown.push(byte[0]);
        }
        keys.write_all(answer.as_bytes()).expect("a key is pressed");
    }
    screen.read_to_end(&mut shown).expect("the rest");
    let code = child.wait().expect("script ends").code();
    let shown = String::from_utf8_lossy(&shown).into_owned();
    (code.unwrap_or_else(|| panic!("it waits for ever: {shown}")), shown)
}

/// Whether a file below `folder` contains `text`.
fn is_kept(folder: &Path, text: &str) -> bool {
    folder.read_dir().expect("a folder").flatten().any(|entry| {
        let path = entry.path();
        match entry.file_type().expect("its type") {
            kind if kind.is_dir() => is_kept(&path, text),
            kind if kind.is_file() => {
                let bytes = fs::read(&path).expect("a file");
                bytes.windows(text.len()).any(|window| window == text.as_bytes())
            }
            _ => false,
        }
    })
}

#[test]
fn keys_of_every_kind_log_in_by_themselves_by_passphrase_and_by_agent() {
    let mut world = World::new(3);
    keygen(&world, "rsa", &["rsa", "-b", "2048"], "");
    let sealed = keygen(&world, "sealed", &["ed25519"], PASSPHRASE);
    let held = keygen(&world, "held", &["ecdsa"], "");
    let elsewhere = world.folder().join("home/held");
    fs::rename(&held, &elsewhere).expect("the private half goes elsewhere");
    world.vmfile(
        r#"
vm "rsa" { image "TINY"; memory 192; cloud-init; ssh { private-key "rsa" } }
vm "sealed" { image "TINY"; memory 192; cloud-init; ssh { private-key "sealed" } }
vm "held" { image "TINY"; memory 192; cloud-init; ssh { private-key "held.pub" } }
"#,
    );
    // A plan needs none of them; an apply that could not log in makes nothing.
    world.vmctl(&["plan"]).expect(0);
    world.set("SSH_AUTH_SOCK", world.folder().join("home/nothing"));
    world.vmctl(&["apply", "--yes"]).expect(1).says("held.pub` is a public key").says("cannot be asked");
    let agent = Agent::start(&world);
    world.set("SSH_AUTH_SOCK", &agent.socket);
    world.vmctl(&["apply", "--yes"]).expect(1).says("held.pub").says("does not hold it").says("ssh-add");
    agent.add(&world, &elsewhere);
    world.vmctl(&["apply", "--yes"]).expect(1).says("by a passphrase").says("VMCTL_SSH_PASSPHRASE");
    world.set("VMCTL_SSH_PASSPHRASE", "mistyped");
    world.vmctl(&["apply", "--yes"]).expect(1).says("the passphrase does not open private key");
    assert!(world.states().is_empty());

    world.set("VMCTL_SSH_PASSPHRASE", PASSPHRASE);
    world.vmctl(&["apply", "--yes"]).expect(0);
    for name in ["rsa", "sealed", "held"] {
        assert_eq!(world.exec(name, "echo in"), "in\n");
        let environment = fs::read(format!("/proc/{}/environ", world.pid(name))).expect("its environment");
        assert!(!String::from_utf8_lossy(&environment).contains(PASSPHRASE));
    }
    // The system's ssh is given the same keys, and the agent.
    for name in ["rsa", "held"] {
        world.vmctl(&["ssh", name, "--", "true"]).expect(0);
    }

    // Somebody at a terminal is asked, is forgiven one mistake, and sees nothing of the answer.
    world.unset("VMCTL_SSH_PASSPHRASE");
    world.vmctl(&["exec", "sealed", "--", "true"]).expect(1).says("by a passphrase").says("does not hold it");
    let typed = format!("{PASSPHRASE}\n");
    let (code, shown) = on_a_terminal(&world, "exec sealed -- echo in", &["wrong\n", &typed]);
    assert!(code == 0 && shown.ends_with("in\r\n"), "{code}: {shown}");
    assert!(!shown.contains(PASSPHRASE) && !shown.contains("wrong"), "{shown}");
    let (code, shown) = on_a_terminal(&world, "exec sealed -- echo in", &["half\u{3}"]);
    assert!(code == 1 && shown.contains("protected by a passphrase"), "{code}: {shown}");

    agent.add(&world, &sealed);
    assert_eq!(world.exec("sealed", "echo in"), "in\n");
    world.vmctl(&["ssh", "sealed", "--", "true"]).expect(0);
    assert!(agent.tool(&world).arg("-D").status().is_ok_and(|status| status.success()));
    world.vmctl(&["exec", "held", "--", "true"]).expect(1).says("does not hold it");

    assert!(!is_kept(&world.data(), PASSPHRASE), "a passphrase was written down");
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}

//! Provisioning that fails, and how it goes on.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use vmctl_tests::{World, leaks, process};

/// Three steps; each leaves a line in `ran`. The second one ends with `status`.
fn vmfile(world: &World, status: u8) {
    world.vmfile(
        r#"
vm "one" {
    image "TINY"
    memory 192
    ssh { user "vm" }
    provision "shell" { inline "echo first >> ran; sync" }
    provision "shell" { script "second.sh" }
    provision "shell" { inline "echo third >> ran; sync" }
}
vm "after" { image "TINY"; memory 192; depends-on "one" }
"#,
    );
    world.write(
        "second.sh",
        &format!("#!/bin/sh\necho second >> ran\nsync\necho 'the reason is this' >&2\nexit {status}\n"),
    );
}

#[test]
fn failed_provisioning_keeps_the_machine_and_goes_on_there() {
    let world = World::new(2);
    vmfile(&world, 9);
    let failed = world.vmctl(&["apply", "--yes"]).expect(5);
    let failed = failed.says("the reason is this").says("second.sh").says("9").says("vm.after");
    assert!(!failed.text().contains("panicked"), "{}", failed.text());
    assert_eq!(world.exec("one", "cat ran"), "first\nsecond\n");
    let pid = world.pid("one");

    // Unchanged, it is tried again at the same step. The step ran in part, so that something was done.
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(2);
    world.vmctl(&["apply", "--yes"]).expect(5).says("the reason is this");
    assert_eq!(world.pid("one"), pid);
    assert_eq!(world.exec("one", "cat ran"), "first\nsecond\nsecond\n");

    // Repaired, it goes on there, and what waited for it is made.
    vmfile(&world, 0);
    world.vmctl(&["apply", "--yes"]).expect(0);
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    assert_eq!(world.pid("one"), pid);
    assert_eq!(world.exec("one", "cat ran"), "first\nsecond\nsecond\nsecond\nthird\n");
    assert_eq!(world.vm("after")["state"], "running");

    // One step again, by its name, and the others stay done.
    world.vmctl(&["provision", "one", "--step", "second.sh", "--force", "--yes"]).expect(0).says("> vm.one");
    assert_eq!(world.exec("one", "tail -n 2 ran"), "third\nsecond\n");
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");

    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}

/// The most memory that a process had so far, in KiB.
fn peak_memory(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// One guest with a second user, whose steps use every option.
const OPTIONS: &str = r#"
variable "token" { type "text"; sensitive }
vm "box" {
    image "TINY"
    memory 192
    ssh { user "vm" }
    cloud-init {
        write-file "/etc/seeded.conf" { content "a: 'b'\n- c\nruncmd: [x]\n"; mode "0640"; owner "vm:vm" }
        run "echo it is $(id -u): 'yes' > /var/seeded"
    }
    provision "shell" { script "add-user.sh"; user "root" }
    provision "shell" {
        inline "printf '%s|' \"$GREETING\" \"$TOKEN\" \"$(id -un)\" \"$HOME\" \"$PWD\" > /home/app/said"
        user "app"
        env {
            GREETING "it's\n\"two\" lines; $(date) `id`"
            TOKEN (var)"token"
            folder "a name of the wrapper's own"
        }
    }
    provision "file" { source "app.conf"; destination "/etc/app.conf"; mode "0640"; owner "app" }
    provision "file" { source "site"; destination "/srv/site"; owner "app:vm" }
    provision "file" { source "site"; destination "mine" }
    provision "shell" { inline "sleep 98765 & echo begun; wait"; user "app"; timeout "2s" }
}
"#;

#[test]
fn options_of_steps_are_carried_out_and_a_step_out_of_time_leaves_nothing() {
    let mut world = World::new(1);
    world.set("VMCTL_VAR_token", "s3cret-token-value");
    world.vmfile(OPTIONS);
    world.write(
        "add-user.sh",
        "#!/bin/sh -e
echo 'app:x:1500:1500::/home/app:/bin/sh' >> /etc/passwd
echo 'app:x:1500:' >> /etc/group
[ ! -e /etc/shadow ] || echo 'app:*:19000:0:99999:7:::' >> /etc/shadow
mkdir /home/app
chown app:app /home/app
",
    );
    world.write("app.conf", "port 80\n");
    world.write("site/index.html", "<p>hello\n");
    world.write("site/with space/-rf *\n$(id)", "odd\n");
    let site = world.project().join("site");
    std::os::unix::fs::symlink("index.html", site.join("link")).unwrap();
    std::fs::set_permissions(site.join("index.html"), PermissionsExt::from_mode(0o600)).unwrap();

    let ended = world.vmctl(&["apply", "--yes"]).expect(5);
    let ended = ended.says("step 6").says("timeout after 2s");
    assert!(!ended.text().contains("s3cret"), "{}", ended.text());
    assert_eq!(world.exec("box", "cat /etc/seeded.conf"), "a: 'b'\n- c\nruncmd: [x]\n");
    assert_eq!(
        world.exec("box", "stat -c '%a %U' /etc/seeded.conf; cat /var/seeded"),
        "640 vm\nit is 0: yes\n"
    );
    let said = world.exec("box", "sudo cat /home/app/said");
    assert_eq!(said, "it's\n\"two\" lines; $(date) `id`|s3cret-token-value|app|/home/app|/home/app|");
    assert_eq!(world.exec("box", "stat -c '%a %U %G' /etc/app.conf"), "640 app app\n");
    assert_eq!(world.exec("box", "stat -c '%a %U %G' /srv/site/index.html"), "600 app vm\n");
    assert_eq!(world.exec("box", "readlink /srv/site/link"), "index.html\n");
    assert_eq!(world.exec("box", "cd /srv/site && cat 'with space'/*"), "odd\n");
    assert_eq!(world.exec("box", "stat -c '%a %U' mine/index.html"), "600 vm\n");
    assert_eq!(world.exec("box", "ls -A /tmp; ls -A /srv; ps | grep '[9]8765' || true"), "site\n");

    // What changes inside a folder runs its step again, and those after it, and no other one.
    world.write("site/more", "new\n");
    let more = OPTIONS.replace("timeout \"2s\"", "").replace("sleep 98765 & echo begun; wait", "echo done");
    world.vmfile(&more);
    let plan = world.vmctl(&["plan", "--json"]).expect(0).json();
    let steps = plan["changes"][0]["provision"].as_array().unwrap();
    assert_eq!(steps.iter().map(|step| step["number"].as_u64().unwrap()).collect::<Vec<_>>(), [4, 5, 6]);
    world.vmctl(&["apply", "--yes"]).expect(0);
    assert_eq!(world.exec("box", "cat mine/more"), "new\n");
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0);

    // A guest that floods costs no memory, its log is capped, and the end of it is shown all the same.
    world.vmfile(&more.replace(
        "echo done",
        "head -c 100000000 /dev/zero | tr '\\\\0' x; echo; echo 'the flood is over'; exit 7",
    ));
    let mut command = world.command(&["apply", "--yes"]);
    let flooded = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut flooded = flooded.expect("vmctl starts");
    let mut peak = 0;
    while !process::await_end(flooded.id(), Duration::from_millis(20)) {
        peak = peak.max(peak_memory(flooded.id()).unwrap_or(0));
    }
    let ended = flooded.wait().expect("a child can be waited for");
    assert_eq!(ended.code(), Some(5));
    assert!((1..128 << 10).contains(&peak), "{peak} KiB for a flood of 100 MB");
    let log = world.vmctl(&["log", "box", "--provision", "-n", "3"]).expect(0);
    log.says("bytes dropped, this log is full").says("ended with exit code 7");
    let log = world.data().join("projects/shop/vms/box/provision.log");
    assert!(std::fs::metadata(log).expect("a log").len() < 65 << 20);

    // A user that there is not is told, and nothing runs as somebody else.
    world.vmfile(
        &more.replace("inline \"echo done\"; user \"app\"", "inline \"id -un > who\"; user \"nobody-here\""),
    );
    world.vmctl(&["apply", "--yes"]).expect(5).says("the guest has no user nobody-here");
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}

//! Asked to stop once, twice, by a terminal that goes away; and readers that go away (F9, F10, F11, I4).
//!
//! The fake host takes its time, so that there is always a step to be stopped in.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use vmctl_tests::{Ended, World, await_condition, leaks, process};

/// Longer than any test takes: what has to wait for it never ends by itself.
const HOUR: u64 = 3_600_000;

/// How long a run may take that was asked to end. It is far more than is promised, and far less than [`HOUR`].
const PATIENCE: Duration = Duration::from_secs(120);

/// Machines that need each other, on the fake host, which does what `rules` say.
fn fake_world(rules: &Value) -> World {
    let world = World::new(0);
    world.blank_image();
    let step = |name: &str| format!("provision {{ inline \"{name}\" }}");
    let mut text = "defaults { backend \"noop\"; image \"blank.qcow2\"; ssh }\n".to_owned();
    for (name, needs) in [("a", ""), ("b", "depends-on \"a\""), ("c", "depends-on \"a\""), ("d", "")] {
        text.push_str(&format!("vm \"{name}\" {{\n{needs}\n{}\n{}\n}}\n", step("one"), step("two")));
    }
    world.vmfile(&text);
    script(&world, rules);
    world
}

/// Changes what the fake host does.
fn script(world: &World, rules: &Value) {
    let folder = world.data().join("projects/shop/noop");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("script.json"), rules.to_string()).unwrap();
}

/// Waits until the first rule of the fake host's script met its first turn: something is under way that takes its time.
fn await_turn(world: &World) {
    let turn = world.data().join("projects/shop/noop/used-0-0");
    await_condition("the fake host is at work", || turn.exists());
}

/// How often each provisioning step of each machine took effect.
fn ran(world: &World) -> BTreeMap<String, usize> {
    let log = fs::read_to_string(world.data().join("projects/shop/noop/events.log")).unwrap_or_default();
    let mut ran = BTreeMap::new();
    for line in log.lines().filter(|line| line.starts_with("provision-")) {
        *ran.entry(line.to_owned()).or_default() += 1;
    }
    ran
}

fn end(mut child: Child) -> i32 {
    assert!(process::await_end(child.id(), PATIENCE), "it goes on although it was asked to stop");
    let status = child.wait().unwrap();
    status.code().unwrap_or_else(|| panic!("ended by a signal: {:?}", status.signal()))
}

/// Everything comes to its end: each step ran once, and nothing is left to do.
fn converges(world: &World) {
    script(world, &json!([]));
    world.vmctl(&["apply", "--yes"]).expect(0);
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    let ran = ran(world);
    assert_eq!(ran.len(), 8, "{ran:?}");
    assert!(ran.values().all(|times| *times == 1), "a step ran twice: {ran:?}");
    assert!(!world.data().join("projects/shop/lock.json").exists(), "the lock is released");
}

/// Numbers that look random and are the same for the same seed; a failed test prints the seed.
struct Dice(u64);

impl Dice {
    #[expect(clippy::print_stderr, reason = "a failed test shows what it was thrown with")]
    fn new() -> Self {
        let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
        let seed = u64::try_from(seed % (1 << 48)).unwrap();
        eprintln!("seed: {seed}");
        Self(seed)
    }

    /// A number below `bound` (Knuth's MMIX generator, its upper half).
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Each step takes a moment, so that there are moments between and within all of them.
fn slow() -> Value {
    let ops = ["inspect", "prepare", "start", "ready", "provision-1", "provision-2"];
    let rules = ops.iter().map(|op| json!({ "op": op, "delay-ms": 10 }));
    rules.collect()
}

/// An apply that is asked to stop so many times at once, before, between or within its steps.
fn stopped_at_some_moment(world: &World, dice: &mut Dice, times: u32) -> Ended {
    let mut apply = world.start(&["apply", "--yes"]);
    // The first lines are those of the plan.
    let mut left = 20 + dice.below(60);
    let alive = apply.await_any_line(|_| {
        left -= 1;
        left == 0
    });
    for _ in (0..times).filter(|_| alive) {
        process::interrupt_if_alive(apply.pid());
    }
    apply.end()
}

/// F9: at 20 moments.
#[test]
fn asked_once_at_any_moment_it_ends_in_order_and_the_next_apply_finishes() {
    let mut dice = Dice::new();
    for _ in 0..20 {
        let world = fake_world(&slow());
        let ended = stopped_at_some_moment(&world, &mut dice, 1);
        match ended.code() {
            130 => assert!(ended.text().contains("Interrupted"), "{}", ended.text()),
            code => assert_eq!(code, 0, "it was done before it was asked\n{}", ended.text()),
        }
        assert!(!ended.text().contains("panicked"), "{}", ended.text());
        converges(&world);
    }
}

/// F10, I4: what is cut off in a step is unknown, and said to be; nothing runs twice.
#[test]
fn asked_twice_at_any_moment_nothing_is_lost_or_repeated() {
    let mut dice = Dice::new();
    for _ in 0..20 {
        let world = fake_world(&slow());
        let ended = stopped_at_some_moment(&world, &mut dice, 2);
        assert!([0, 130].contains(&ended.code()), "{}", ended.text());
        assert!(!ended.text().contains("panicked"), "{}", ended.text());
        settle_what_is_unknown(&world);
        converges(&world);
    }
}

/// Answers for each step that was cut off as the fake host knows it: it ran, or it did not. A second question may come
/// up behind the first one.
fn settle_what_is_unknown(world: &World) {
    script(world, &json!([]));
    let list = world.vmctl(&["list", "--json"]).expect(0).json();
    for vm in list["vms"].as_array().unwrap() {
        let (name, cut_off) = (vm["name"].as_str().unwrap(), &vm["provision_interrupted"]);
        let Some(number) = cut_off["number"].as_u64() else { continue };
        world.vmctl(&["plan"]).expect(0).says("cut off");
        match ran(world).get(&format!("provision-{number} {name}")) {
            Some(1) => world.vmctl(&["state", "provisioned", name, "--yes"]).expect(0),
            None => world.vmctl(&["apply", "--yes", "--rerun", name, "--target", name]).expect(0),
            times => panic!("step {number} of `{name}` ran {times:?} times"),
        };
    }
}

#[test]
fn second_interrupt_ends_a_step_that_never_ends() {
    let world = fake_world(&json!([{ "op": "provision-2", "vm": "a", "delay-ms": HOUR, "times": 1 }]));
    // Of `a` alone: another machine in a step would be unknown as well.
    let mut apply = world.start(&["apply", "--yes", "--target", "a"]);
    apply.await_line(|line| line.contains("vm.a: provision 2"));
    await_turn(&world);
    process::interrupt(apply.pid());
    let line = apply.await_line(|line| line.contains("interrupted"));
    assert!(line.contains("vm.a: provision 2") && line.contains("stops at once"), "{line}");
    process::interrupt(apply.pid());
    let ended = apply.end().expect(130).says("vm.a: provision 2 (inline): what became of it is unknown");
    ended.says("vmctl apply --rerun a").says("vmctl state provisioned a");
    world.vmctl(&["list"]).expect(0).says("provisioning interrupted at step 2");
    world.vmctl(&["apply", "--yes"]).expect(5).says("vmctl apply --rerun a");
    assert_eq!(ran(&world).get("provision-2 a"), None, "nothing ran unasked");
    world.vmctl(&["apply", "--yes", "--rerun", "a"]).expect(0);
    converges(&world);
}

/// F10: CI runners send SIGTERM, and SIGKILL when they lose patience.
#[test]
fn terminated_and_then_killed_the_next_apply_finishes() {
    let world = fake_world(&json!([{ "op": "start", "vm": "a", "delay-ms": HOUR, "times": 1 }]));
    let mut apply = world.start(&["apply", "--yes"]);
    await_turn(&world);
    process::terminate(apply.pid());
    apply.await_line(|line| line.contains("interrupted"));
    apply.kill();
    // Another machine may have been in a step.
    settle_what_is_unknown(&world);
    converges(&world);
}

/// F9: what only waits ends at once, and nothing was done to the machine.
#[test]
fn wait_for_a_guest_ends_with_the_first_interrupt() {
    let world = fake_world(&json!([{ "op": "ready", "vm": "a", "delay-ms": HOUR, "times": 2 }]));
    for turn in 0..2 {
        let mut apply = world.start(&["apply", "--yes", "--json"]);
        let used = world.data().join(format!("projects/shop/noop/used-0-{turn}"));
        await_condition("the guest is waited for", || used.exists());
        process::interrupt(apply.pid());
        apply.await_line(|line| line.contains("\"event\":\"given-up\""));
        let ended = apply.end().expect(130);
        let summary: Value = serde_json::from_str(ended.stdout.lines().last().unwrap()).unwrap();
        assert_eq!(summary["given_up"].as_array().map(Vec::len), Some(1), "{summary:#}");
        assert_eq!(summary["abandoned"], json!([]), "{summary:#}");
        assert_ne!(summary["next"], json!([]), "{summary:#}");
    }
    converges(&world);
}

/// Signals are obeyed from the moment the project is ours: also before there is a plan.
#[test]
fn interrupt_while_looking_ends_before_anything_was_done() {
    let world = fake_world(&json!([]));
    world.vmctl(&["apply", "--yes", "--target", "d"]).expect(0);
    script(&world, &json!([{ "op": "inspect", "delay-ms": HOUR, "times": 1 }]));
    let apply = world.start(&["apply", "--yes"]);
    await_turn(&world);
    process::interrupt(apply.pid());
    apply.end().expect(130).says("nothing was done");
    converges(&world);
}

/// F11: without a terminal, nobody sat there who went away.
#[test]
fn hangup_without_a_terminal_changes_nothing() {
    let world = fake_world(&json!([{ "op": "start", "vm": "a", "delay-ms": 300, "times": 1 }]));
    let apply = world.start(&["apply", "--yes"]);
    await_turn(&world);
    process::hang_up(apply.pid());
    apply.end().expect(0);
    converges(&world);
}

/// Runs vmctl in a terminal of its own, with somebody at the keyboard who says nothing.
fn in_a_terminal(world: &World, arguments: &str) -> Child {
    let line = format!("'{}' --data-dir '{}' {arguments}", world.binary().display(), world.data().display());
    let mut command = world.beside_vmctl("script");
    command.args(["-qefc", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let child = command.spawn().expect("`script` of util-linux makes a terminal");
    process::bound(child.id(), PATIENCE);
    child
}

/// The vmctl that works in a terminal.
fn in_there(world: &World) -> u32 {
    let is_vmctl = |process: &process::Process| {
        process.command.contains(" apply") && {
            let arguments = process::arguments(process.pid).unwrap_or_default();
            arguments.first().is_some_and(|program| program.ends_with("/vmctl"))
        }
    };
    let found = process::naming(world.folder()).into_iter().find(is_vmctl);
    found.expect("vmctl runs").pid
}

/// F11: a terminal that goes away asks to stop.
#[test]
fn terminal_that_goes_away_is_like_the_first_interrupt() {
    let world = fake_world(&json!([{ "op": "ready", "vm": "a", "delay-ms": HOUR, "times": 1 }]));
    let mut terminal = in_a_terminal(&world, "apply --yes");
    await_turn(&world);
    let vmctl = in_there(&world);
    process::kill(terminal.id());
    terminal.wait().unwrap();
    assert!(process::await_end(vmctl, PATIENCE), "vmctl goes on for an hour");
    world.vmctl(&["list"]).expect(0).says("not ready");
    converges(&world);
}

#[test]
fn interrupt_at_the_question_ends_before_anything_was_done() {
    let world = fake_world(&json!([]));
    let mut terminal = in_a_terminal(&world, "apply");
    let mut shown = terminal.stdout.take().unwrap();
    let mut text = String::new();
    let mut piece = [0; 256];
    while !text.contains("Only `yes` is accepted") {
        let length = shown.read(&mut piece).unwrap();
        assert!(length > 0, "it ended without a question: {text}");
        text.push_str(&String::from_utf8_lossy(&piece[..length]));
    }
    process::interrupt(in_there(&world));
    assert_eq!(end(terminal), 130);
    assert!(ran(&world).is_empty());
    converges(&world);
}

/// F11: who reads goes away, and what was asked for is done all the same.
#[test]
fn closed_stdout_and_stderr_stop_nothing() {
    for json in [false, true] {
        let world = fake_world(&json!([]));
        let mut arguments = vec!["apply", "--yes"];
        arguments.extend(json.then_some("--json"));
        let mut command = world.command(&arguments);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop((child.stdout.take(), child.stderr.take()));
        assert_eq!(end(child), 0);
        converges(&world);
    }
}

/// F10, F11: a full pipe that nobody reads holds up the printing and nothing else.
#[test]
fn pipe_that_nobody_reads_neither_holds_up_an_apply_nor_its_end() {
    let flood = json!([{ "op": "provision-1", "vm": "a", "lines": 20_000 }]);
    let world = fake_world(&flood);
    let mut command = world.command(&["apply", "--yes", "--json"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    await_condition("every step ran", || ran(&world).len() == 8);
    process::interrupt(child.id());
    assert!([0, 130].contains(&end(child)), "it ends although nobody reads");
    converges(&world);

    // The same with a step that never ends: the second one gets through.
    let never = json!([
        { "op": "provision-2", "vm": "a", "delay-ms": HOUR, "times": 1 },
        { "op": "provision-1", "vm": "a", "lines": 20_000 }
    ]);
    let world = fake_world(&never);
    let mut command = world.command(&["apply", "--yes", "--json"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    await_turn(&world);
    process::interrupt(child.id());
    process::terminate(child.id());
    assert_eq!(end(child), 130);
    settle_what_is_unknown(&world);
    converges(&world);
}

/// The process of a machine once readers see it: they may be a second behind.
fn running(world: &World, name: &str) -> u32 {
    await_condition("the machine runs", || world.states().get(name).is_some_and(|state| state == "running"));
    world.pid(name)
}

/// F9: a real guest whose sshd never comes.
#[test]
fn guest_that_never_comes_up_is_waited_for_until_the_first_interrupt_and_again_by_the_next_apply() {
    let world = World::new(1);
    world.blank_image();
    world.vmfile("vm \"one\" { image \"blank.qcow2\"; memory 64; ssh }");
    let mut pid = None;
    for _ in 0..2 {
        let mut apply = world.start(&["apply", "--yes"]);
        apply.await_line(|line| line.contains("vm.one: ready"));
        let now = running(&world, "one");
        assert_eq!(*pid.get_or_insert(now), now, "the machine stays");
        process::interrupt(apply.pid());
        apply.end().expect(130).says("given up");
    }
    world.vmctl(&["list"]).expect(0).says("running (not ready)");
    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}

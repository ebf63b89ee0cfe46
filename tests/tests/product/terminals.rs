//! Commands that take a terminal over: what they pass on, and that it is as before once they end, however they do.

use vmctl_tests::terminal::Terminal;
use vmctl_tests::{World, process};

/// Ctrl-C and Ctrl-].
const INTERRUPT: &str = "\u{3}";
const LEAVE: &str = "\u{1d}";

/// Runs `line`, and says whether the terminal is afterwards as it was before, and how the line ended.
fn watched(line: &str) -> String {
    format!("b=$(stty -g); {line}; c=$?; test \"$b\" = \"$(stty -g)\" && echo restored; exit $c")
}

/// The vmctl that works with a guest on a terminal.
fn vmctl_on(world: &World, word: &str) -> u32 {
    let words = |pid| process::arguments(pid).unwrap_or_default();
    let ours = process::naming(world.folder()).into_iter().map(|process| process.pid);
    let mut found = ours.filter(|pid| {
        let words = words(*pid);
        words.first().is_some_and(|program| program.ends_with("/vmctl"))
            && words.get(1).is_some_and(|first| first == word)
    });
    found.next_back().unwrap_or_else(|| panic!("no `vmctl {word}` runs"))
}

fn run(world: &World, line: &str) -> (i32, String) {
    Terminal::new(world, (24, 80), &watched(line)).end()
}

#[test]
fn terminal_is_passed_on_and_given_back() {
    let mut world = World::new(1);
    world.set("TERM", "xterm-256color");
    // The binary is told apart by its path: it must name the world.
    let binary = world.folder().join("home/vmctl");
    std::os::unix::fs::symlink(world.binary(), &binary).unwrap();
    world.vmfile("vm \"web\" { image \"TINY\"; memory 192; cloud-init; ssh }\n");
    world.vmctl(&["apply", "--yes"]).expect(0);

    // Size, name, exit code; whoever wants none gets none, as where a stream leads elsewhere.
    let (code, shown) = run(&world, "vmctl exec web -- sh -c 'stty size; echo $TERM; exit 7'");
    assert_eq!((code, shown.as_str()), (7, "24 80\r\nxterm-256color\r\nrestored\r\n"));
    let without = "sh -c 'test -t 0 || echo no terminal'";
    for line in [
        format!("vmctl exec -T web {without}"),
        format!("vmctl exec web {without} | cat"),
        format!("vmctl exec web {without} 2>err"),
    ] {
        let (code, shown) = run(&world, &line);
        assert!(code == 0 && shown.contains("no terminal"), "{line}: {shown}");
    }
    let (_, shown) = run(&world, "vmctl exec -t web -- sh -c 'test -t 0 && echo yes' | cat");
    assert!(shown.contains("yes"), "{shown}");
    world.vmctl(&["exec", "--tty", "web", "--", "true"]).expect(64).says("standard input is no terminal");

    // Keys reach the guest, Ctrl-C too, and it is told of a new size.
    let mut terminal = Terminal::new(
        &world,
        (24, 80),
        &watched(&format!("tty > tty; {} exec web -- sh -c \"{}\"", binary.display(), GUEST)),
    );
    terminal.await_text("waits");
    terminal.press(INTERRUPT);
    terminal.await_text("interrupted");
    let place = std::fs::read_to_string(world.project().join("tty")).unwrap();
    let resized = world.beside_vmctl("stty").args(["-F", place.trim(), "rows", "30", "cols", "90"]).status();
    assert!(resized.is_ok_and(|status| status.success()));
    terminal.await_text("30 90");
    terminal.press("said\r");
    terminal.await_text("heard said");
    let (code, shown) = terminal.end();
    assert!(code == 3 && shown.ends_with("restored\r\n"), "{code}: {shown}");

    // A signal ends it in order.
    let line = watched(&format!("{} exec web -- sh -c 'echo waits; sleep 1000'", binary.display()));
    let mut terminal = Terminal::new(&world, (24, 80), &line);
    terminal.await_text("waits\r\n");
    process::terminate(vmctl_on(&world, "exec"));
    let (code, shown) = terminal.end();
    assert!(code == 130 && shown.ends_with("restored\r\n"), "{code}: {shown}");

    // The console: Ctrl-C goes to the guest, the leaving key does not, and a signal ends it in order.
    let line = watched(&format!("{} console web", binary.display()));
    let mut terminal = Terminal::new(&world, (24, 80), &line);
    terminal.await_text("leaves");
    terminal.interrupt_a_guest();
    terminal.press(LEAVE);
    let (code, shown) = terminal.end();
    assert!(
        code == 0 && shown.contains("Left the console") && shown.ends_with("restored\r\n"),
        "{code}: {shown}"
    );
    let mut terminal = Terminal::new(&world, (24, 80), &line);
    terminal.await_text("leaves");
    terminal.press("\r");
    terminal.await_text("# ");
    process::terminate(vmctl_on(&world, "console"));
    let (code, shown) = terminal.end();
    assert!(code == 130 && shown.ends_with("restored\r\n"), "{code}: {shown}");

    // A guest that goes away ends both.
    let mut console = Terminal::new(&world, (24, 80), &line);
    console.await_text("leaves");
    let mut exec =
        Terminal::new(&world, (24, 80), &watched("vmctl exec web -- sh -c 'echo waits; sleep 1000'"));
    exec.await_text("waits\r\n");
    process::kill(world.pid("web"));
    let (code, shown) = console.end();
    assert!(code == 0 && shown.contains("was closed") && shown.ends_with("restored\r\n"), "{code}: {shown}");
    let (code, shown) = exec.end();
    assert!(code == 1 && shown.contains("was lost") && shown.ends_with("restored\r\n"), "{code}: {shown}");
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}

/// What the guest runs: tells of Ctrl-C and of its terminal's size, and repeats a line. A signal that comes between two
/// commands is heard at the end of the second one, so that none may last.
const GUEST: &str = "trap 'echo interrupted' INT; trap 'stty size' WINCH; echo waits; \
                     while [ -z \\$line ]; do read -t 1 line; done; echo heard \\$line; exit 3";

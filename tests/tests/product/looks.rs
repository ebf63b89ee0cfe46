//! What people see: on wide and narrow terminals, in a pipe, without colour; and that nothing is left garbled.

use std::fs;

use vmctl_tests::World;
use vmctl_tests::terminal::{Terminal, seen};

/// Signs of a live line that turns.
const SPINNER: [char; 10] = ['⠁', '⠂', '⠄', '⡀', '⢀', '⠠', '⠐', '⠈', '⠙', '⠋'];

fn thirty(rules: &str) -> World {
    let mut world = World::new(0);
    world.blank_image();
    world.vmfile(
        "vm \"machine-with-a-rather-long-name\" count=30 { image \"blank.qcow2\"; backend \"noop\" }\n",
    );
    let noop = world.data().join("projects/shop/noop");
    fs::create_dir_all(&noop).unwrap();
    fs::write(noop.join("script.json"), rules).unwrap();
    world.set("TERM", "xterm");
    world
}

#[test]
fn thirty_machines_are_told_on_a_small_terminal_and_nothing_is_left_of_the_live_lines() {
    for size in [(24, 80), (10, 40)] {
        let world = thirty(r#"[{ "op": "prepare", "times": 30, "delay-ms": 400 }]"#);
        let line = "vmctl apply --yes --parallelism 30 2>&1 >/dev/null; echo ended with $?";
        let (_, shown) = Terminal::new(&world, size, line).end();
        assert!(shown.contains(SPINNER), "something was drawn");
        let left = seen(&shown, size);
        assert!(!left.contains(SPINNER), "{left}");
        // A name may be broken at the edge.
        let flowing = left.replace('\n', "");
        assert_eq!(flowing.matches(": prepare done in ").count(), 30, "{left}");
        assert!(flowing.contains("Applied: 61 steps in ") && left.ends_with("ended with 0\n"), "{left}");
    }
}

#[test]
fn nothing_is_left_garbled_after_ctrl_c() {
    let world = thirty(r#"[{ "op": "prepare", "times": 30, "delay-ms": 3600000 }]"#);
    let line = "b=$(stty -g); trap : INT; vmctl apply --yes --parallelism 30 >/dev/null; echo ended with $?; \
                test \"$b\" = \"$(stty -g)\" && echo restored";
    let size = (24, 80);
    let mut terminal = Terminal::new(&world, size, line);
    terminal.await_text("-12: prepare");
    terminal.press("\u{3}");
    terminal.await_text("stops at once");
    terminal.press("\u{3}");
    let (_, shown) = terminal.end();
    let left = seen(&shown, size);
    assert!(!left.contains(SPINNER) && left.ends_with("ended with 130\nrestored\n"), "{left}");
    assert!(left.contains("nothing new is started") && left.contains("cut off"), "{left}");
}

/// Long names, wide letters, and something to do that shows no path.
const BEFORE: &str = r#"
project "shop"
vm "a-machine-with-quite-a-long-name-for-a-small-terminal" {
    image "blank.qcow2"; backend "noop"; memory 2048
    forward host=18080 guest=80; forward host=18081 guest=443
}
vm "gone" { image "blank.qcow2"; backend "noop" }
vm "web" {
    image "blank.qcow2"; backend "noop"; ssh { user "vm" }
    labels { role "日本語"; note "short" }
    provision "shell" { inline "true" }
}
"#;

const AFTER: [(&str, &str); 4] = [
    ("memory 2048", "memory 4096"),
    ("vm \"gone\" { image \"blank.qcow2\"; backend \"noop\" }\n", ""),
    (
        "note \"short\"",
        "note \"日本語 a text that goes on and on until no line of any terminal that people have holds all of it\"",
    ),
    ("inline \"true\"", "inline \"true # 日本語\""),
];

fn world_with_changes() -> World {
    let mut world = World::new(0);
    world.blank_image();
    world.vmfile(BEFORE);
    world.vmctl(&["apply", "--yes"]).expect(0);
    let after = AFTER.iter().fold(BEFORE.to_owned(), |text, (old, new)| text.replace(old, new));
    world.vmfile(&after);
    world.set("TERM", "xterm");
    world
}

/// What a command shows on a terminal, or in a pipe if no size is given, without what differs from run to run.
fn shown(world: &World, size: Option<(u16, u16)>, arguments: &str) -> String {
    let text = match size {
        Some(size) => {
            let (_, text) = Terminal::new(world, size, &format!("vmctl {arguments}")).end();
            seen(&text, size)
        }
        None => {
            let run = world.vmctl(&arguments.split(' ').collect::<Vec<_>>());
            assert!(!run.text().contains('\u{1b}'), "styles in a pipe: {}", run.text());
            format!("{}--- stderr\n{}", run.stdout, run.stderr)
        }
    };
    let folder = world.folder().display().to_string();
    text.lines().map(|line| steady(&line.replace(&folder, "[WORLD]")) + "\n").collect()
}

/// A line without times, durations, ids, digests and addresses of cards.
fn steady(line: &str) -> String {
    let clock = |word: &str| {
        word.len() == 8
            && word
                .bytes()
                .enumerate()
                .all(|(at, byte)| if at % 3 == 2 { byte == b':' } else { byte.is_ascii_digit() })
    };
    let words = line.split(' ').map(|word| {
        let bare = word.trim_end_matches(['.', ',', ')', ':']);
        let rest = &word[bare.len()..];
        if clock(bare) || bare.parse::<f64>().is_ok_and(|_| bare.contains('.')) {
            format!("[N]{rest}")
        } else if bare.len() == 20 && bare.starts_with("20") && bare.ends_with('Z') {
            format!("[TIME]{rest}")
        } else if bare.len() == 36 && bare.matches('-').count() == 4 {
            format!("[ID]{rest}")
        } else if bare.contains("sha256:") || (bare.starts_with("image.") && bare.ends_with('…')) {
            format!("[DIGEST]{rest}")
        } else if bare.starts_with("52:54:00:") {
            format!("[MAC]{rest}")
        } else {
            word.to_owned()
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn plans_lists_and_errors_fit_wide_and_narrow_terminals_and_pipes() {
    let world = world_with_changes();
    let sizes = [("wide", Some((50, 120))), ("narrow", Some((50, 60))), ("pipe", None)];
    for (name, size) in sizes {
        let mut text = String::new();
        for command in ["plan", "list", "status wob", "exec wob true", "plan --target wob"] {
            text.push_str(&format!("$ vmctl {command}\n{}\n", shown(&world, size, command)));
        }
        let widest = text.lines().filter(|line| line.chars().count() > 60).count();
        assert!(name != "narrow" || widest == 0, "{text}");
        insta::assert_snapshot!(format!("looks_{name}"), text);
    }
    insta::assert_snapshot!("looks_apply", shown(&world, None, "apply --yes --parallelism 1"));
    insta::assert_snapshot!("looks_status", shown(&world, None, "status web"));
}

#[test]
fn nothing_is_coloured_or_drawn_over_where_that_is_not_wanted() {
    let mut world = world_with_changes();
    world.set("NO_COLOR", "1");
    let (code, shown) = Terminal::new(&world, (24, 80), "vmctl plan && vmctl status wob").end();
    assert!(code == 1 && !shown.contains('\u{1b}'), "{shown}");
    world.unset("NO_COLOR");
    world.set("TERM", "dumb");
    let (code, shown) = Terminal::new(&world, (24, 80), "vmctl apply --yes").end();
    assert!(code == 0 && !shown.contains('\u{1b}') && shown.contains(" vm.gone: destroy …"), "{shown}");
}

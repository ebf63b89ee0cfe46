//! Every command line that a page shows is run, or at least read by vmctl as it stands there.
//!
//! Blocks of the kind `sh` hold one command a line, those of the kind `console` commands behind `$ ` and what they print. In
//! the first kind only what names vmctl, or works on what vmctl printed, is typed: the rest may be meant for a guest, or for
//! root.

use std::fs;

use serde_json::Value;
use vmctl_tests::markdown::{Page, Shown};
use vmctl_tests::shell::{Mode, Shell};
use vmctl_tests::world::free_port;
use vmctl_tests::{World, surroundings};

/// How the commands of a page are followed.
#[derive(Debug, Clone, Copy)]
enum Followed {
    /// One after the other on fake machines, which were applied and of which a plan was saved.
    Fake,
    /// Each by itself on such machines, as they were before the others.
    Apart,
    /// One after the other, with so many real guests, beginning with nothing but the page's VMFile.
    Guests(usize),
    /// Only read by vmctl: another test does what the page shows.
    Elsewhere,
}

/// Every page with command lines, but for the examples, and how it is followed.
const PAGES: [(&str, Followed); 11] = [
    ("README.md", Followed::Guests(2)),
    // `product/by_hand.rs` and `product/ancestor.rs` do it.
    ("docs/by-hand.md", Followed::Elsewhere),
    ("docs/ci.md", Followed::Fake),
    ("docs/cli-reference.md", Followed::Apart),
    ("docs/cli.md", Followed::Fake),
    ("docs/getting-started.md", Followed::Guests(1)),
    ("docs/json.md", Followed::Fake),
    ("docs/packages.md", Followed::Fake),
    ("docs/state.md", Followed::Apart),
    ("docs/tutorial-machine-that-stays.md", Followed::Guests(1)),
    ("docs/tutorial-two-machines.md", Followed::Guests(2)),
];

/// Commands that fake machines cannot run, and why not. vmctl reads them, so that a wrong word in them is found.
const READ: [(&str, &str); 17] = [
    ("vmctl import", "needs a machine of `create`; product/by_hand.rs does it"),
    ("--vms-json", "needs the registry of an old vmctl; product/by_hand.rs has one"),
    ("vmctl create", "needs images, guests and bridges; product/by_hand.rs does it"),
    ("--watch", "goes on until Ctrl-C; product tests of looking do it"),
    ("vmctl events", "may go on until Ctrl-C; product tests of looking do it"),
    ("vmctl ssh", "needs a guest; getting-started.md does it"),
    ("vmctl exec", "needs a guest; tutorial-two-machines.md does it"),
    ("vmctl cp", "needs a guest; product/beside.rs does it"),
    ("vmctl run --on", "needs a guest; product/run.rs does it"),
    ("vmctl console", "needs a guest; product/access.rs does it"),
    ("vmctl vnc", "needs a guest; product/hardware.rs does it"),
    ("vmctl log --follow", "goes on until Ctrl-C; product/logs.rs does it"),
    ("vmctl wait", "a fake machine is never ready"),
    ("vmctl inventory", "needs a guest; product/beside.rs does it"),
    ("//example.org", "there is no such server; product/downloads.rs pulls from one"),
    ("oci://", "there is no such registry; product/downloads.rs pulls from one"),
    ("curl", "nothing listens behind a fake machine's forward"),
];

/// Commands that end in another way than well on the machines here, how, and why.
const ENDS: [(&str, i32, &str); 6] = [
    ("vmctl state provisioned web", 1, "no step was cut off"),
    ("vmctl state history --run 5f8b", 1, "there is no such run"),
    ("vmctl image inspect 3fa9", 1, "there is no such image"),
    ("vmctl image inspect sha256:3fa9", 1, "there is no such image"),
    ("vmctl image rm 3fa9", 1, "there is no such image"),
    ("vmctl image update debian", 1, "no image is from the network"),
];

/// Pieces of code in texts that are no whole command.
const UNREAD: [&str; 1] = ["vmctl COMMAND --help"];

/// Words that a command of the kind `sh` begins with that is typed although it does not name vmctl.
const HARMLESS: [&str; 2] = ["export ", "jq "];

/// The machines of pages that speak of `web` and `db`.
const FAKE: &str = r#"project "shop"

defaults {
    backend "noop"
    image "debian.qcow2"
    ssh
}

vm "db"

vm "web" {
    forward host=HTTP guest=80
    depends-on "db"
    provision "shell" {
        inline "echo one"
    }
    provision "shell" {
        inline "echo two"
    }
    provision "shell" {
        script "setup.sh"
    }
    labels {
        role "web"
    }
}

output "url" (template)"http://{{ vm.web.host }}:{{ vm.web.port.80 }}/"
"#;

/// Files that commands name.
const FILES: [(&str, &str); 9] = [
    ("setup.sh", "echo three\n"),
    ("test.sh", "#!/bin/sh\necho tested\n"),
    ("app.conf", "a = 1\n"),
    ("note.txt", "a note\n"),
    ("site.yml", "[]\n"),
    ("src/main.c", "int main(void) { return 0; }\n"),
    ("vms/worker.kdl", "vm \"worker\"\n"),
    ("ci/VMFile.kdl", "vm \"one\" {\n    image \"../debian.qcow2\"\n}\n"),
    ("lab/README", "a folder\n"),
];

/// Folders of the home that commands write to.
const HOMES: [&str; 4] =
    [".ssh", ".local/share/bash-completion/completions", ".config/fish/completions", ".local/share/man"];

fn read_only(command: &str) -> Option<&'static str> {
    READ.iter().find(|(words, _)| command.contains(words)).map(|(_, reason)| *reason)
}

/// A world of fake machines that were applied.
fn fake_world() -> World {
    let world = World::new(0);
    world.blank_disk("debian.qcow2", "8M");
    write(&world, FILES);
    for folder in HOMES {
        fs::create_dir_all(world.folder().join("home").join(folder)).unwrap();
    }
    world.vmfile(&FAKE.replace("HTTP", &free_port().to_string()));
    world.vmctl(&["apply", "--yes"]).expect(0);
    world.vmctl(&["plan", "--out", "today.plan", "--replace", "web"]).expect(0);
    world
}

fn write<const N: usize>(world: &World, files: [(&str, &str); N]) {
    for (name, text) in files {
        world.write(name, text);
        if text.starts_with("#!") {
            let path = world.project().join(name);
            fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
    }
}

/// The commands of a page that are typed.
fn typed(page: &Page) -> Vec<Shown> {
    let consoles: Vec<_> = page.fences().into_iter().filter(|fence| fence.kind == "console").collect();
    let is_console = |line| {
        consoles.iter().any(|fence| (fence.line..fence.line + fence.text.lines().count()).contains(&line))
    };
    let is_typed = |shown: &Shown| {
        is_console(shown.line)
            || shown.command.contains("vmctl ")
            || HARMLESS.iter().any(|word| shown.command.starts_with(word))
    };
    page.commands().into_iter().filter(is_typed).collect()
}

/// What was wrong on a page; nothing if all of it did what it says.
fn wrong(page: &str, followed: Followed) -> Vec<String> {
    let page = Page::named(page);
    let commands = typed(&page);
    let found = match followed {
        Followed::Guests(guests) => with_guests(&page, &commands, guests),
        Followed::Fake => one_after_the_other(&fake_world(), &commands),
        Followed::Apart => apart(&commands),
        Followed::Elsewhere => {
            let world = World::new(0);
            let mut shell = Shell::new(&world, Mode::Reads);
            commands.iter().filter_map(|shown| shell.follow(shown).err()).collect()
        }
    };
    found.into_iter().map(|wrong| format!("{}: {wrong}", page.name)).collect()
}

fn follow(shells: &mut [Shell<'_>; 2], shown: &Shown) -> Result<(), String> {
    let [runs, reads] = shells;
    if read_only(&shown.command).is_some() {
        return reads.follow(shown);
    }
    let Some((_, code, _)) = ENDS.iter().find(|(command, _, _)| shown.command.starts_with(command)) else {
        return runs.follow(shown);
    };
    let ended = runs.types(&shown.command);
    if ended.code == Some(*code) { Ok(()) } else { Err(format!("{}: {ended:#?}", shown.command)) }
}

fn shells(world: &World) -> [Shell<'_>; 2] {
    [Shell::new(world, Mode::Runs), Shell::new(world, Mode::Reads)]
}

fn one_after_the_other(world: &World, commands: &[Shown]) -> Vec<String> {
    let mut shells = shells(world);
    commands.iter().filter_map(|shown| follow(&mut shells, shown).err()).collect()
}

fn apart(commands: &[Shown]) -> Vec<String> {
    let world = fake_world();
    let saved = world.save();
    let vmfile = fs::read_to_string(world.project().join("VMFile.kdl")).unwrap();
    let mut wrong = Vec::new();
    for shown in commands {
        world.restore(&saved);
        if shown.command.starts_with("vmctl init") {
            fs::remove_file(world.project().join("VMFile.kdl")).unwrap();
        } else {
            world.write("VMFile.kdl", &vmfile);
        }
        wrong.extend(follow(&mut shells(&world), shown).err());
    }
    wrong
}

fn with_guests(page: &Page, commands: &[Shown], guests: usize) -> Vec<String> {
    let world = World::new(guests);
    fs::copy(World::tiny_image(), world.project().join("debian-12.qcow2")).unwrap();
    write(&world, FILES);
    if let Some(vmfile) = page.fences().iter().find(|fence| fence.kind == "kdl") {
        world.write("VMFile.kdl", &vmfile.text);
    }
    let mut shell = Shell::new(&world, Mode::Runs);
    for shown in commands {
        if let Err(wrong) = shell.follow(shown) {
            let _ = world.vmctl(&["apply", "--destroy", "--yes"]);
            return vec![wrong];
        }
    }
    assert!(world.states().is_empty(), "{} leaves machines behind", page.name);
    Vec::new()
}

#[test]
fn fake_machines_do_what_pages_say() {
    let followed = PAGES.iter().filter(|(_, followed)| !matches!(followed, Followed::Guests(_)));
    let wrong: Vec<_> = followed.flat_map(|(page, followed)| wrong(page, *followed)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn guests_do_what_pages_say() {
    let followed = PAGES.iter().filter(|(_, followed)| matches!(followed, Followed::Guests(_)));
    let wrong: Vec<_> = followed.flat_map(|(page, followed)| wrong(page, *followed)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Panics unless vmctl understands those of the commands that call it.
pub(crate) fn understood(name: &str, commands: &[String]) {
    let world = World::new(0);
    let mut shell = Shell::new(&world, Mode::Reads);
    for command in commands.iter().filter(|command| command.starts_with("vmctl ")) {
        let typed = shell.types(command);
        assert_eq!(typed.code, Some(0), "{name}: {command}\n{}", typed.output);
    }
}

/// Every example, in a world of its own that has its files: what its page shows is understood. What it does is shown by
/// `product/examples.rs`.
#[test]
fn commands_of_examples_are_understood() {
    let mut wrong = Vec::new();
    for page in Page::all().into_iter().filter(|page| page.name.starts_with("examples/")) {
        let world = World::new(0);
        let mut shell = Shell::new(&world, Mode::Reads);
        let named = typed(&page).into_iter().filter(|shown| shown.command.contains("vmctl "));
        wrong.extend(
            named.filter_map(|shown| shell.follow(&shown).err()).map(|error| (page.name.clone(), error)),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Signs of the usual notation for command lines, and what stands for them here.
const NOTATION: [(&str, &str); 14] = [
    ("[", ""),
    ("]", ""),
    ("…", ""),
    ("DURATION", "10s"),
    ("SHELL", "bash"),
    ("WHEN", "auto"),
    ("SOURCE TARGET", "a web:b"),
    ("--parallelism N", "--parallelism 1"),
    ("-- CMD", "-- true"),
    ("NAME=VALUE", "a=b"),
    ("NAME|URL", "debian"),
    ("DIGEST", "3fa9"),
    (" > FILE", ""),
    ("FILE", "some.plan"),
];

#[test]
fn commands_in_the_midst_of_text_are_understood() {
    let world = World::new(0);
    let mut shell = Shell::new(&world, Mode::Reads);
    let mut wrong = Vec::new();
    for page in Page::all().into_iter().filter(|page| page.name != "CHANGELOG.md") {
        for code in page.codes().into_iter().filter(|code| code.starts_with("vmctl ")) {
            if UNREAD.contains(&code.as_str()) {
                continue;
            }
            let command = NOTATION.iter().fold(code.clone(), |text, (sign, means)| text.replace(sign, means));
            let shown = Shown { command, output: Vec::new(), line: 0 };
            wrong.extend(shell.follow(&shown).err().map(|error| format!("{}: `{code}`: {error}", page.name)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn recording_shows_commands_that_exist_and_nothing_of_a_host() {
    let text = fs::read_to_string(surroundings::repository().join("docs/demo.cast")).unwrap();
    assert!(text.len() < 100_000, "{} bytes", text.len());
    let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let head = lines.next().unwrap();
    assert!(head["version"] == 2 && head["width"] == 100, "{head}");
    let (mut shown, mut at) = (String::new(), 0.0);
    for event in lines {
        let now = event[0].as_f64().unwrap();
        assert!(now >= at && event[1] == "o", "{event}");
        at = now;
        shown += event[2].as_str().unwrap();
    }
    for place in ["/tmp", "/root", "/work", "/var", "error:"] {
        assert!(!shown.contains(place), "the recording has `{place}` in it: `make record` makes it anew");
    }
    let world = World::new(0);
    world.write("VMFile.kdl", "");
    let mut shell = Shell::new(&world, Mode::Reads);
    let prompt = "\u{1b}[1;32m$\u{1b}[0m ";
    let commands: Vec<_> = shown
        .split(prompt)
        .skip(1)
        .filter_map(|rest| rest.split_once("\r\n"))
        .map(|(line, _)| line)
        .collect();
    assert!(commands.len() > 5, "{commands:?}");
    for command in commands {
        let typed = shell.types(command);
        assert_eq!(typed.code, Some(0), "{command}: {}", typed.output);
    }
}

#[test]
fn wrong_words_are_found_without_doing_anything() {
    let world = World::new(0);
    let mut shell = Shell::new(&world, Mode::Reads);
    let right = [
        "vmctl plan --out x",
        "vmctl ssh web -- ls -l",
        "vmctl exec web -- ls -l",
        "vmctl run --on a -- make",
    ];
    let wrong = [
        "vmctl paln",
        "vmctl plan --outt x",
        "vmctl ssh web --usr x -- ls",
        "vmctl exec --jso web -- ls",
        "vmctl run --no a -- make",
    ];
    for command in right {
        assert_eq!(shell.types(command).code, Some(0), "{command}");
    }
    for command in wrong {
        assert_ne!(shell.types(command).code, Some(0), "{command}");
    }
    assert!(!world.data().exists());
}

/// Every target of make that a page names is there.
#[test]
fn targets_of_make_are_there() {
    let makefile = fs::read_to_string(surroundings::repository().join("Makefile")).unwrap();
    for page in Page::all() {
        let shown = page.commands().into_iter().map(|shown| shown.command).chain(page.codes());
        for line in shown.filter(|line| line.starts_with("make ")) {
            let words = line.split_whitespace().skip(1).take_while(|word| !word.starts_with('#'));
            for target in words.filter(|word| !word.contains('=') && !word.starts_with('-')) {
                assert!(makefile.contains(&format!("\n{target}:")), "{}: `{line}`", page.name);
            }
        }
    }
}

#[test]
fn every_page_with_commands_is_followed() {
    let pages = Page::all();
    let shows = |page: &&Page| page.name.starts_with("docs/") || page.name == "README.md";
    for page in pages.iter().filter(shows).filter(|page| !typed(page).is_empty()) {
        let is_known = PAGES.iter().any(|(name, _)| *name == page.name);
        assert!(
            is_known,
            "add `{}` to PAGES in tests/tests/docs/commands.rs, with how it is followed",
            page.name
        );
    }
}

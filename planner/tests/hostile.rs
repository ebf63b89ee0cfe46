//! Text that is made to break the parser: it is an error with a place, or a file, and never a crash.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::FakeImages;
use proptest::prelude::*;
use vmctl_planner::vmfile::{FILE_NAME, Given, LoadOptions, format, load, parse};

const SIZES: [usize; 4] = [100, 1_000, 10_000, 100_000];

/// One text of each size, by a name for messages.
type Generator = (&'static str, fn(usize) -> String);

const GENERATORS: &[Generator] = &[
    ("open blocks", |n| "a {".repeat(n)),
    ("open blocks on lines", |n| "a {\n".repeat(n)),
    ("nested blocks", |n| "a {".repeat(n) + &"}".repeat(n)),
    ("closing braces", |n| "}".repeat(n)),
    ("opening braces", |n| "{".repeat(n)),
    ("open comments", |n| "/*".repeat(n)),
    ("nested comments", |n| "/*".repeat(n) + &"*/".repeat(n)),
    ("stars in a comment", |n| format!("/*{}*/", " *".repeat(n))),
    ("slashes in a comment", |n| format!("/*{}*/", "/ ".repeat(n))),
    ("comment lines", |n| "// x\n".repeat(n)),
    ("comments in a row", |n| "/**/".repeat(n)),
    ("removed nodes", |n| "/- a\n".repeat(n)),
    ("removals", |n| "/-".repeat(n)),
    ("removed values", |n| format!("a {}", "/-1 ".repeat(n))),
    ("removed blocks", |n| "a /-{\n".repeat(n) + &"}\n".repeat(n)),
    ("removed blocks in a row", |n| format!("a {}", "/-{} ".repeat(n / 10))),
    ("blocks on one line", |n| format!("vm a {{ {} }}", "ssh { user vm }; ".repeat(n / 10))),
    ("removed nodes with blocks", |n| "a; /- b {\n".repeat(n) + &"}\n".repeat(n)),
    ("arguments", |n| format!("a {}", "1 ".repeat(n))),
    ("properties", |n| format!("a {}", "k=1 ".repeat(n))),
    ("equals signs", |n| "= ".repeat(n)),
    ("equals signs behind a node", |n| format!("a {}", "= ".repeat(n))),
    ("parentheses", |n| "(".repeat(n)),
    ("closing parentheses", |n| ")".repeat(n)),
    ("types", |n| "(a)".repeat(n)),
    ("brackets", |n| "[".repeat(n)),
    ("semicolons", |n| ";".repeat(n)),
    ("escaped lines", |n| "\\\n".repeat(n)),
    ("backslashes", |n| "\\".repeat(n)),
    ("one long text", |n| format!("a \"{}\"", "x".repeat(n))),
    ("one long name", |n| format!("vm \"{}\" {{ image \"x\" }}", "x".repeat(n))),
    ("one long word", |n| "x".repeat(n)),
    ("one long number", |n| format!("a {}", "1".repeat(n))),
    ("a long exponent", |n| format!("a 1e{}", "9".repeat(n))),
    ("digits apart", |n| format!("a {}1", "1_".repeat(n))),
    ("an open text", |n| format!("a \"{}", "x".repeat(n))),
    ("quotation marks", |n| "\"".repeat(n)),
    ("open raw text", |n| format!("a {}\"", "#".repeat(n))),
    ("raw text", |n| format!("a {0}\"x\"{0}", "#".repeat(n))),
    ("hashes", |n| "#".repeat(n)),
    ("text of many lines", |n| format!("a \"\"\"\n{}\"\"\"", "line\n".repeat(n))),
    ("open text of many lines", |n| format!("a \"\"\"\n{}", "line\n".repeat(n))),
    ("escapes", |n| format!("a \"{}\"", "\\n".repeat(n))),
    ("wrong escapes", |n| format!("a \"{}\"", "\\q".repeat(n))),
    ("wide letters", |n| format!("a \"{}\"", "\u{1f578}".repeat(n))),
    ("old keywords", |n| "a true\n".repeat(n)),
    ("misspelt nodes", |n| "mv \"x\"\n".repeat(n)),
    ("renames in a row", |n| (0..n).map(|i| format!("moved from=a{i} to=a{}\n", i + 1)).collect()),
    ("checks of one name", |n| format!("vm a {{ image x\n{} }}", "check a { tcp 1; }\n".repeat(n))),
    ("patterns", |n| {
        format!("vm a {{ image x; ready {{\n{} }}; }}", "log #\"\\w{9}{9}{9}{9}\"#\n".repeat(n / 100))
    }),
    ("brackets in a pattern", |n| format!("vm a {{ image x; ready {{ log \"{}\"; }}; }}", "(".repeat(n))),
    ("NUL", |n| "\0".repeat(n)),
];

#[test]
fn hostile_text_is_an_error_or_a_file_at_every_size() {
    for (name, generate) in GENERATORS {
        for size in SIZES {
            let text = generate(size);
            if let Err(report) = parse("VMFile.kdl", &text) {
                let problems = report.problems();
                assert!(!problems.is_empty(), "{name} {size}");
                for problem in problems {
                    let place = problem.place.as_ref().expect("a problem of the text has a place");
                    assert!(place.offset + place.length <= text.len(), "{name} {size}: {problem:?}");
                }
            }
        }
    }
}

#[test]
fn hostile_text_is_formatted_once_or_refused() {
    for (name, generate) in GENERATORS {
        // Each text is parsed four times: the longest would say no more.
        for size in &SIZES[..3] {
            if let Ok(formatted) = format("VMFile.kdl", &generate(*size)) {
                assert!(format("VMFile.kdl", &formatted).as_ref() == Ok(&formatted), "{name} {size}");
            }
        }
    }
}

#[test]
fn many_nodes_are_refused_before_they_are_parsed() {
    let report = parse("VMFile.kdl", &"a\n".repeat(200_001)).unwrap_err();
    assert_eq!(report.problems()[0].code, "vmfile::too-big");
    let report = parse("VMFile.kdl", &" ".repeat((16 << 20) + 1)).unwrap_err();
    assert_eq!(report.problems()[0].code, "vmfile::too-big");
}

#[test]
fn every_short_slip_is_an_error_or_a_file() {
    const PIECES: [&str; 20] = [
        "a", "\"", "\"\"\"", "#", "r#", "{", "}", "(", ")", "=", "/", "*", "-", "\\", "[", "1", "\n", " ",
        "ä", "\\u{",
    ];
    for (first, second, third) in
        PIECES.iter().flat_map(|a| PIECES.iter().flat_map(move |b| PIECES.iter().map(move |c| (a, b, c))))
    {
        let text = format!("{first}{second}{third}");
        // None of them describes a machine.
        assert!(parse("VMFile.kdl", &text).is_err(), "{text:?}");
    }
}

/// Pieces of KDL in any order: gets further into the parser than plain noise.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "vm",
        "\"a\"",
        "image",
        "ssh",
        "{",
        "}",
        " ",
        " ",
        "\n",
        ";",
        "=",
        "(",
        ")",
        "/-",
        "//",
        "/*",
        "*/",
        "\\",
        "\"",
        "\"\"\"",
        "#\"",
        "\"#",
        "#",
        "#true",
        "true",
        "1",
        "-1",
        "1.5",
        "0x",
        "r",
        "[",
        "]",
        ",",
        ":",
        "ä",
        "forward",
        "host",
        "guest",
        "network",
        "provision",
        "inline",
        "depends-on",
        "ready",
        "tcp",
        "log",
        "check",
        "lifecycle",
        "replace-when",
        "timeout",
        "moved",
        "from",
        "removed",
        "variable",
        "default",
        "sensitive",
        "defaults",
        "template",
        "template=",
        "count=",
        "output",
        "include",
        "(var)",
        "(env)",
        "(ref)",
        "(template)",
        "\"{{ var.a }}\"",
        "{{",
        "}}",
        "'",
        "\u{feff}",
        "\r",
        "\t",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

/// A VMFile with something of everything, to be spoilt.
const EVERYTHING: &str = r#"
include "more.kdl"
project "shop"
variable "size" { type "number"; default 2048; one-of 1024 2048; description "how big" }
variable "token" { default "hunter2"; sensitive }
image "debian" { path "disk.img" }
network "lan" { subnet "10.77.0.0/24" }
volume "data-1" size="10G" { prevent-destroy }
defaults { memory (var)"size"; labels { made "by hand" } }
template "base" { vcpus 2; ssh { user "vm" } }
template "web" template="base" { ready { tcp 80; timeout "2m" } }
vm (template)"web-{{ index }}" template="web" count=2 {
    image (ref)"debian"
    network "user"
    network "private" name="lan"
    forward guest=80
    share "." "/mnt" readonly
    provision { inline (template)"echo {{ name }} {{ var.token }}"; env { TOKEN (var)"token" }; run "once" }
    check "answers" { exec "true" }
}
vm "db" template="base" {
    image "disk.img"
    volume (template)"data-{{ '1' }}"
    depends-on "web-1" until="started"
    lifecycle { replace-when "memory" "vm.web-1"; ignore-changes "vcpus" }
    machine "q35"; cpu "host"; accel "tcg"; qemu-arg "-x"
}
output "url" (template)"http://{{ vm.web-1.host }}:{{ vm.web-1.port.80 }}" { description "where" }
moved from="old" to="db"
removed "gone"
"#;

/// [`EVERYTHING`] with pieces of it at other places.
fn spoilt() -> impl Strategy<Value = String> {
    let place = 0..EVERYTHING.len();
    prop::collection::vec((place.clone(), place, 0_usize..12), 0..6).prop_map(|moves| {
        let mut text = EVERYTHING.as_bytes().to_vec();
        for (from, to, length) in moves {
            let (from, to) = (from.min(text.len()), to.min(text.len()));
            let piece: Vec<u8> = text.drain(from..(from + length).min(text.len())).collect();
            let to = to.min(text.len());
            text.splice(to..to, piece.iter().chain(&piece).copied());
        }
        String::from_utf8(text).unwrap()
    })
}

#[test]
fn the_file_that_is_spoilt_is_right_at_first() {
    parse("VMFile.kdl", EVERYTHING).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_spoilt_file_is_loaded_without_panic(main in spoilt(), more in spoilt(), is_value in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (name, text) in [(FILE_NAME, main.as_str()), ("more.kdl", &more), ("disk.img", "disk")] {
            std::fs::write(path(name), text).unwrap();
        }
        let files = if is_value { vec![path("more.kdl")] } else { Vec::new() };
        let given = Given { files, ..Given::default() };
        let images = FakeImages::default();
        let options = LoadOptions { project: None, home: None, images: &images, given };
        if let Err(report) = load(&path(FILE_NAME), &options) {
            prop_assert!(!report.problems().is_empty());
            let mut told = String::new();
            miette::GraphicalReportHandler::new().render_report(&mut told, &report).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_parsed_without_panic(text in any::<String>()) {
        let _: Result<_, _> = parse("VMFile.kdl", &text);
    }

    #[test]
    fn any_kdl_like_text_is_parsed_without_panic(text in pieces()) {
        if let Err(report) = parse("VMFile.kdl", &text) {
            for problem in report.problems() {
                prop_assert!(problem.place.is_some());
                prop_assert!(!problem.message.contains("the KDL parser failed"), "{}", problem.message);
            }
        }
    }

    #[test]
    fn any_kdl_like_text_is_formatted_once_or_refused(text in pieces()) {
        match format("VMFile.kdl", &text) {
            Ok(formatted) => prop_assert_eq!(format("VMFile.kdl", &formatted), Ok(formatted.clone())),
            Err(report) => prop_assert_ne!(report.problems()[0].code, "vmfile::format"),
        }
    }
}

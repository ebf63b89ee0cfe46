//! Text that is made to break the parser: it is an error with a place, or a file, and never a crash.

use proptest::prelude::*;
use vmctl_planner::vmfile::{format, parse};

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
        "\u{feff}",
        "\r",
        "\t",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
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

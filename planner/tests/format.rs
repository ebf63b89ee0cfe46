//! The canonical form of VMFiles, as people meet it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::{Path, PathBuf};

use common::FakeImages;
use proptest::prelude::*;
use proptest::sample::subsequence;
use vmctl_planner::desired::Desired;
use vmctl_planner::vmfile::{Given, LoadOptions, format, load};

fn formatted(text: &str) -> String {
    let formatted = format("VMFile.kdl", text).unwrap();
    assert_eq!(format("VMFile.kdl", &formatted).unwrap(), formatted, "formatting is done once");
    formatted
}

fn files(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.collect();
    files.sort();
    files
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn indentation_blanks_and_line_ends_are_the_same_everywhere() {
    let text = "\u{feff}\r\n\r\nvm  \"web\"{\r\n\r\n\timage   \"x\" ;memory 256\r\n\r\n\r\n\r\n  ssh\t{\r\n\tuser \"vm\"}\r\n\r\n}\r\nvm db\r\n\r\n\r\n";
    let expected = r#"vm "web" {
    image "x"
    memory 256

    ssh {
        user "vm"
    }
}

vm db
"#;
    assert_eq!(formatted(text), expected);
    assert_eq!(formatted(""), "");
    assert_eq!(formatted("\n \r\n"), "");
    assert_eq!(formatted("// nothing  "), "// nothing\n");
}

#[test]
fn block_on_one_line_stays_there_if_it_fits() {
    assert_eq!(formatted("vm a {image x;ssh{user vm};}"), "vm a { image x; ssh { user vm } }\n");
    assert_eq!(formatted("vm a {}\nvm b {\n}"), "vm a {}\n\nvm b {}\n");
    let long = format!("vm a {{ image \"{}\"; ssh {{ user vm }} }}", "x".repeat(67));
    assert_eq!(long.len(), 101);
    let opened = format!("vm a {{\n    image \"{}\"\n    ssh {{ user vm }}\n}}\n", "x".repeat(67));
    assert_eq!(formatted(&long), opened);
    assert_eq!(formatted(&long.replacen('x', "", 1)), long.replacen('x', "", 1) + "\n");
    assert_eq!(formatted("vm a { image x /* why */ }"), "vm a {\n    image x /* why */\n}\n");
    assert_eq!(formatted("vm a { /-image x }"), "vm a {\n    /-image x\n}\n");
}

#[test]
fn nodes_and_properties_stand_in_their_order() {
    let text = r#"
vm "web" count=2 template="base" {
    provision "shell" {
        timeout "5m"
        inline "one"
    }
    lifecycle { ignore-changes "memory"; prevent-destroy }
    memory 256
    provision "file" { destination "b"; source "a" }
    forward guest=80 host=8080
    image "x"
    ready { timeout "1m"; tcp 80; log "b"; tcp 79 }
    forward guest=81 address="::1" host=8081
    labels { b 1; a 2 }
}
removed "old"
variable "size" { default 1; type "number" }
moved to="web" from="www"
project "shop"
"#;
    insta::assert_snapshot!(formatted(text), @r#"
    project "shop"
    variable "size" { type "number"; default 1 }

    vm "web" template="base" count=2 {
        image "x"
        memory 256
        forward host=8080 guest=80
        forward host=8081 guest=81 address="::1"
        ready { timeout "1m"; tcp 80; log "b"; tcp 79 }
        provision "shell" {
            inline "one"
            timeout "5m"
        }
        provision "file" { source "a"; destination "b" }
        lifecycle { prevent-destroy; ignore-changes "memory" }
        labels { b 1; a 2 }
    }

    moved from="www" to="web"
    removed "old"
    "#);
}

#[test]
fn comments_go_with_their_nodes() {
    let text = r#"
vm "web" { // the first
    /* small */ memory 256 // enough
    // From the office.
    /* of
       two lines */
    image "x" /* for now */ // TODO
    ssh {
        // Nobody else.
    } // later
    /-vcpus 2 /-4
} /* end */
"#;
    insta::assert_snapshot!(formatted(text), @r#"
    vm "web" { // the first
        // From the office.
        /* of
           two lines */
        image "x" /* for now */ // TODO
        /-vcpus 2 /-4
        /* small */ memory 256 // enough
        ssh {
            // Nobody else.
        } // later
    } /* end */
    "#);
}

#[test]
fn nothing_moves_across_a_comment_that_stands_alone() {
    let text = r#"
vm "web" {
    memory 256
    image "x"
    // --- logins ---

    ssh
    backend "noop"

    /-vmware "no node of ours"
    state "stopped"
    disk 4
    // the end
}
"#;
    insta::assert_snapshot!(formatted(text), @r#"
    vm "web" {
        image "x"
        memory 256
        // --- logins ---

        backend "noop"
        ssh

        /-vmware "no node of ours"
        disk 4
        state "stopped"
        // the end
    }
    "#);
}

#[test]
fn blocks_with_unknown_parts_keep_their_order() {
    let text = "vm a {\n    memory 1\n    memry 2\n    image x\n    forward guest=80 hots=1 host=2 5\n}\nproject b\n";
    let expected = "project b\n\nvm a {\n    memory 1\n    memry 2\n    image x\n    forward 5 guest=80 hots=1 host=2\n}\n";
    assert_eq!(formatted(text), expected);
}

#[test]
fn blank_lines_part_the_same_nodes_after_sorting() {
    let text = "vm a {\n    ssh\n    provision b\n\n    // Why.\n    ready { tcp 1 }\n\n    check c\n\n    image x\n    memory 1\n}\n";
    insta::assert_snapshot!(formatted(text), @r"
    vm a {
        image x
        memory 1
        ssh

        // Why.
        ready { tcp 1 }

        provision b

        check c
    }
    ");
}

#[test]
fn node_over_several_lines_keeps_its_line_ends() {
    let text = "vm a {\n  depends-on \\ // in this order\n  db \\\n\\\n   cache\\\n  until=ready\n  forward guest=1 \\\n host=2\n}";
    insta::assert_snapshot!(formatted(text), @r"
    vm a {
        forward host=2 \
            guest=1
        depends-on \ // in this order
            db \
            cache \
            until=ready
    }
    ");
}

#[test]
fn texts_of_several_lines_move_as_a_whole() {
    let text = "vm a {\n  provision shell {\ninline \"\"\"\n  set -e\n\n    echo \\\"\"\"\n  \"\"\"\n   inline #\"\"\"\n\techo \\\n\t\"\"\"# // raw\ninline \"\"\"\n  folded \\\n  here\n  \"\"\"\n}\n}";
    let expected = r##"vm a {
    provision shell {
        inline """
            set -e

              echo \"""
            """
        inline #"""
            echo \
            """# // raw
        inline """
  folded \
  here
  """
    }
}
"##;
    assert_eq!(formatted(text), expected);
}

#[test]
fn only_syntax_errors_are_errors() {
    assert_eq!(formatted("nonsense x = 1 { vm }"), "nonsense x=1 { vm }\n");
    let report = format("VMFile.kdl", "vm a {").unwrap_err();
    assert_eq!(report.problems()[0].code, "vmfile::syntax");
}

#[test]
fn wrong_files_are_refused_or_formatted_once() {
    let kdl =
        files("tests/corpus").into_iter().filter(|path| path.extension().is_some_and(|end| end == "kdl"));
    let mut done = 0;
    for path in kdl {
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        match format("VMFile.kdl", &text) {
            Ok(once) => {
                assert_eq!(format("VMFile.kdl", &once).as_ref(), Ok(&once), "{}", path.display());
                done += 1;
            }
            Err(report) => {
                let codes = ["vmfile::syntax", "vmfile::kdl1", "vmfile::too-deep", "vmfile::too-big"];
                let is_syntax = report.problems().iter().all(|problem| codes.contains(&problem.code));
                assert!(is_syntax, "{}: {report:?}", path.display());
            }
        }
    }
    assert!(done >= 50);
}

#[test]
fn examples_are_formatted() {
    let vmfiles =
        files("../examples").into_iter().map(|path| path.join("VMFile.kdl")).filter(|path| path.is_file());
    for path in vmfiles {
        let text = read(&path);
        assert!(formatted(&text) == text, "run `vmctl fmt {}`", path.display());
    }
}

/// What a machine may say, in no order of anybody's.
const SAYINGS: &[&str] = &[
    "memory (var)\"size\"",
    "memory \"1.5G\"",
    "vcpus 2 // two",
    "image (ref)\"tiny\"",
    "disk 20",
    "ssh { user \"me\" }",
    "cloud-init {\n  /* of old */\n  hostname (template)\"{{ name }}.{{ var.domain }}\"\n}",
    "network \"user\"",
    "network name=\"lan\" \"private\" address=\"10.77.0.9\"",
    "forward guest=80 /- protocol=\"udp\" host=0",
    "forward protocol=\"udp\" guest=53",
    "provision { inline \"echo one\" }",
    "provision { inline \"\"\"\n  echo two\n    deep\n  \"\"\"\n  run \"once\"; env { B 2; A 1 } }",
    "ready { exec \"b\"; tcp 1; exec \"a\"; timeout \"2m\" }",
    "check \"two\" { tcp 2 }",
    "check \"one\" { log \"x\" }",
    "labels { z \"1\"; a \"2\" }",
    "volume \"data\"",
    "lifecycle { replace-when \"memory\"; prevent-destroy }",
    "/- memory 1",
    "state stopped",
];

/// What else a file may say.
const DEFINITIONS: &[&str] = &[
    "variable \"size\" { default 2048 }",
    "variable domain { default \"example.org\" }",
    "image tiny { path \"disk.img\" }",
    "network \"lan\" { subnet \"10.77.0.0/24\" }",
    "volume data size=\"10G\"",
    "defaults { ssh; labels { a 1; b 2 } }",
    "template base { provision { inline first }; vcpus 4 }",
    "vm other template=base count=2 { image \"disk.img\" }",
    "output url \"x\"",
];

fn desired(site: &Path, text: &str) -> Option<Desired> {
    let path = site.join("VMFile.kdl");
    std::fs::write(&path, text).unwrap();
    let images = FakeImages::default();
    let options = LoadOptions { project: None, home: None, images: &images, given: Given::default() };
    let desired = load(&path, &options).ok()?.desired;
    Some(Desired { inputs: Vec::new(), ..desired })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn formatted_file_asks_for_the_same(
        sayings in subsequence(SAYINGS, 0..SAYINGS.len()).prop_shuffle(),
        definitions in Just(DEFINITIONS.to_vec()).prop_shuffle(),
        before in 0..DEFINITIONS.len(),
    ) {
        let site = tempfile::tempdir().unwrap();
        std::fs::write(site.path().join("disk.img"), "disk").unwrap();
        let machine = format!("vm web template=base {{\n{}\nimage-url \"https://example.org/x\"\n}}", sayings.join("\n"));
        let mut parts: Vec<&str> = definitions;
        parts.insert(before, &machine);
        // An image of its own takes the place of the URL only where it is the only one.
        let text = if sayings.iter().any(|saying| saying.starts_with("image")) {
            parts.join("\n").replace("image-url \"https://example.org/x\"", "")
        } else {
            parts.join("\n")
        };
        let asked = desired(site.path(), &text);
        prop_assert_eq!(desired(site.path(), &formatted(&text)), asked);
    }
}

#[test]
fn files_of_the_property_are_mostly_right() {
    let site = tempfile::tempdir().unwrap();
    std::fs::write(site.path().join("disk.img"), "disk").unwrap();
    let sayings: Vec<_> = SAYINGS.iter().filter(|saying| !saying.starts_with("memory \"")).copied().collect();
    let text = format!("{}\nvm web template=base {{\n{}\n}}", DEFINITIONS.join("\n"), sayings.join("\n"));
    assert!(desired(site.path(), &text).is_some(), "{text}");
}

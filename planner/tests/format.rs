//! The canonical form of VMFiles, as people meet it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use vmctl_planner::vmfile::format;

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

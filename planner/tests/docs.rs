//! The pages that are made from the table of fields.
//!
//! `cargo test -p vmctl-planner --test docs -- --ignored` writes them anew.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use vmctl_planner::fields::{Class, FIELDS, Field, Needs, PROVISION, PROVISION_EFFECT};

const BEGIN: &str = "<!-- made from planner/src/fields.rs; planner/tests/docs.rs writes it -->\n";
const END: &str = "<!-- end of what is made -->\n";

fn page(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)
}

/// The table of `planning-behaviors.md`.
fn table() -> String {
    let mut table = String::from("\n| field | a change needs | what happens |\n| --- | --- | --- |\n");
    for field in FIELDS {
        let needs = match &field.needs {
            Needs::Always(class) => class.as_str().to_owned(),
            Needs::Depends { cases, .. } => {
                let cases: Vec<_> =
                    cases.iter().map(|(class, when)| format!("{} where {when}", class.as_str())).collect();
                cases.join("; ")
            }
        };
        writeln!(table, "| `{}` | {needs} | {} |", field.name, field.effect).unwrap();
    }
    writeln!(table, "| `{PROVISION}` | {} | {PROVISION_EFFECT} |\n", Class::Provision.as_str()).unwrap();
    table
}

fn behaviors(text: &str) -> String {
    let (head, rest) = text.split_once(BEGIN).expect("the beginning is marked");
    let (_, tail) = rest.split_once(END).expect("the end is marked");
    format!("{head}{BEGIN}{}{END}{tail}", table())
}

/// The classes of everything that the node `name` says.
fn classes(name: &str) -> Option<String> {
    if name == PROVISION {
        return Some(Class::Provision.as_str().to_owned());
    }
    let name = if name == "image-url" { "image" } else { name };
    let fields = FIELDS.iter().filter(|field| field.name.split('.').next() == Some(name));
    let mut classes: Vec<Class> = fields
        .flat_map(|field: &Field| match &field.needs {
            Needs::Always(class) => vec![*class],
            Needs::Depends { cases, .. } => cases.iter().map(|(class, _)| *class).collect(),
        })
        .collect();
    classes.sort();
    classes.dedup();
    let words: Vec<_> = classes.iter().map(|class| class.as_str()).collect();
    (!words.is_empty()).then(|| words.join(" or "))
}

/// The reference of nodes, with the last column of the table of machines made anew.
fn reference(text: &str) -> String {
    let (head, rest) = text.split_once("## In `vm`\n").expect("the section of machines");
    let (section, tail) =
        rest.split_once("\n## ").map_or((rest, None), |(section, tail)| (section, Some(tail)));
    let rows: Vec<_> = section.split('\n').map(row).collect();
    let mut page = format!("{head}## In `vm`\n{}", rows.join("\n"));
    if let Some(tail) = tail {
        write!(page, "\n## {tail}").unwrap();
    }
    page
}

fn row(line: &str) -> String {
    let node = line.strip_prefix("| `").and_then(|row| row.split(['`', ' ']).next());
    match node.and_then(classes) {
        Some(classes) if line.matches(" | ").count() == 3 => {
            let (kept, _) = line.trim_end_matches(" |").rsplit_once(" | ").unwrap();
            format!("{kept} | {classes} |")
        }
        _ => line.to_owned(),
    }
}

fn made() -> [(PathBuf, String, String); 2] {
    [("planning-behaviors.md", behaviors as fn(&str) -> String), ("vmfile.md", reference)].map(
        |(name, make)| {
            let text = fs::read_to_string(page(name)).unwrap();
            let made = make(&text);
            (page(name), text, made)
        },
    )
}

#[test]
fn pages_say_what_the_table_of_fields_says() {
    for (path, text, made) in made() {
        assert!(
            text == made,
            "`{}` is behind: run `cargo test -p vmctl-planner --test docs -- --ignored`",
            path.display()
        );
    }
}

#[test]
fn every_node_of_a_machine_has_a_row_in_the_reference() {
    let text = fs::read_to_string(page("vmfile.md")).unwrap();
    for field in FIELDS.iter().filter(|field| !field.name.contains(' ')) {
        let node = field.name.split('.').next().unwrap();
        assert!(text.contains(&format!("\n| `{node} ")) || text.contains(&format!("\n| `{node}`")), "{node}");
    }
}

#[test]
#[ignore = "writes the pages"]
fn write_pages() {
    for (path, _, made) in made() {
        fs::write(path, made).unwrap();
    }
}

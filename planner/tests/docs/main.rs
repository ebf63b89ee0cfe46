//! Pages and the schema that are made from the tables of the planner, and the texts in them that must be valid.
//!
//! `cargo test -p vmctl-planner --test docs -- --ignored` writes them anew.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod behaviors;
#[path = "../common/mod.rs"]
mod common;
mod grammar;
mod reference;
mod schema;
mod snippets;

use std::fs;
use std::path::PathBuf;

/// The end of a part that is made.
const END: &str = "<!-- end of what is made -->\n";

/// Makes the parts of a page that are made anew.
type Make = fn(&str) -> String;

/// What is made from tables, by its name in `docs`.
const PAGES: [(&str, Make); 3] = [
    ("planning-behaviors.md", behaviors::page),
    ("vmfile.md", reference::page),
    ("schemas/vmfile.kdl-schema", |_| schema::text()),
];

/// The file `name` of the repository.
fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

/// `text` with `made` between the mark `begin` and the next end.
fn between(text: &str, begin: &str, made: &str) -> String {
    let (head, rest) = text.split_once(begin).expect("the beginning is marked");
    let (_, tail) = rest.split_once(END).expect("the end is marked");
    format!("{head}{begin}\n{made}\n{END}{tail}")
}

fn made() -> Vec<(PathBuf, String, String)> {
    let pages = PAGES.iter().map(|(name, make)| {
        let path = path("docs").join(name);
        let text = fs::read_to_string(&path).unwrap_or_default();
        let made = make(&text);
        (path, text, made)
    });
    pages.collect()
}

#[test]
fn pages_say_what_the_tables_say() {
    for (path, text, made) in made() {
        assert!(
            text == made,
            "`{}` is behind: run `cargo test -p vmctl-planner --test docs -- --ignored`",
            path.display()
        );
    }
}

#[test]
#[ignore = "writes the pages"]
fn write_pages() {
    for (path, _, made) in made() {
        fs::write(path, made).unwrap();
    }
}

//! The help as a whole, and `docs/cli-reference.md`, which is made from it.
//!
//! `cargo test -p vmctl --bin vmctl -- --ignored` writes the page anew.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use clap::builder::PossibleValue;
use clap::{Arg, Command as Definition, CommandFactory};

use super::Cli;

/// Columns of the narrowest terminal that help is written for.
const COLUMNS: usize = 80;

/// What stands in front of the examples of a command.
const EXAMPLES: &str = "Examples:\n";

const HEAD: &str = "\
# Command reference

<!-- Made from the definition of the command line: `cargo test -p vmctl --bin vmctl -- --ignored` writes it. -->

What `vmctl COMMAND --help` says, of all commands. [Commands](cli.md) says what they are for and what happens then.
";

/// vmctl as clap knows it, with all that it adds by itself.
fn built() -> Definition {
    let mut command = Cli::command().disable_help_subcommand(true).term_width(COLUMNS);
    command.build();
    command
}

/// A command and all below it, as people call them, in the order of the definition.
fn all(command: &Definition) -> Vec<Definition> {
    let shown = command.get_subcommands().filter(|below| !below.is_hide_set());
    let mut found = vec![command.clone()];
    found.extend(shown.flat_map(all));
    found
}

fn title(command: &Definition) -> String {
    command.get_bin_name().unwrap_or(command.get_name()).to_owned()
}

fn after_help(command: &Definition) -> String {
    command.get_after_help().map(ToString::to_string).unwrap_or_default()
}

/// What `COMMAND --help` prints.
fn shown(title: &str) -> String {
    let cli = Cli::command().disable_help_subcommand(true).term_width(COLUMNS);
    let words = title.split(' ').chain(["--help"]);
    cli.try_get_matches_from(words).expect_err("help ends the reading").to_string()
}

#[test]
fn help_of_all_commands() {
    let mut text = String::new();
    for command in all(&built()) {
        let title = title(&command);
        let help = shown(&title);
        let lines: Vec<_> = help.lines().map(str::trim_end).collect();
        write!(text, "===== {title} --help =====\n\n{}\n\n", lines.join("\n")).unwrap();
    }
    let wide: Vec<_> = text.lines().filter(|line| line.chars().count() > COLUMNS).collect();
    assert!(wide.is_empty(), "lines that a terminal of {COLUMNS} columns breaks: {wide:#?}");
    insta::assert_snapshot!(text);
}

#[test]
fn every_help_has_examples_of_its_command() {
    for command in all(&built()) {
        let (title, help) = (title(&command), after_help(&command));
        let examples = help.strip_prefix(EXAMPLES).unwrap_or_default().split("\n\n").next();
        let is_one = examples.is_some_and(|lines| lines.contains(&title));
        assert!(is_one, "the help of `{title}` begins with no example of it:\n{help}");
    }
}

/// Text in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// A row for an option or an argument.
fn row(arg: &Arg) -> String {
    let short = arg.get_short().map(|short| format!("`-{short}`, ")).unwrap_or_default();
    let values: Vec<_> = if arg.is_hide_possible_values_set() || !arg.get_action().takes_values() {
        Vec::new()
    } else {
        arg.get_possible_values().iter().map(value).collect()
    };
    let mut about = arg.get_help().map(ToString::to_string).unwrap_or_default();
    if !values.is_empty() {
        write!(about, ": {}", values.join(", ")).unwrap();
    }
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if arg.get_action().takes_values() && !defaults.is_empty() {
        write!(about, " [default: {}]", defaults.join(" ")).unwrap();
    }
    format!("| {short}`{}` | {} |\n", cell(&arg.to_string()), cell(&about))
}

fn value(value: &PossibleValue) -> String {
    let about = value.get_help().map(|about| format!(" ({about})")).unwrap_or_default();
    format!("`{}`{about}", value.get_name())
}

/// A table of those options and arguments that `takes` says.
fn table(command: &Definition, takes: impl Fn(&Arg) -> bool) -> String {
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let named = shown.filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version"));
    let rows: String = named.filter(|arg| takes(arg)).map(row).collect();
    if rows.is_empty() { rows } else { format!("\n| option | meaning |\n| --- | --- |\n{rows}") }
}

/// The part of the page about one command.
fn part(command: &Definition) -> String {
    let mut command = command.clone();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    let mut text = format!("\n## {}\n\n{about}.\n\n```text\n{usage}\n```\n", title(&command));
    text += &table(&command, |arg| !arg.is_global_set());
    let help = after_help(&command);
    let (examples, rest) = help.split_once("\n\n").unwrap_or((&help, ""));
    let lines = examples.trim_start_matches(EXAMPLES).lines().map(|line| line.trim_start().to_owned() + "\n");
    write!(text, "\n```sh\n{}```\n", lines.collect::<String>()).unwrap();
    if !rest.is_empty() {
        writeln!(text, "\n{rest}").unwrap();
    }
    text
}

fn page() -> String {
    let root = built();
    let mut text = HEAD.to_owned();
    for command in all(&root) {
        text += &part(&command);
        if title(&command) == title(&root) {
            text += "\nOptions of all commands:\n";
            text += &table(&root, Arg::is_global_set);
        }
    }
    text
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli-reference.md")
}

#[test]
fn reference_says_what_help_says() {
    let is_same = fs::read_to_string(path()).is_ok_and(|text| text == page());
    assert!(is_same, "docs/cli-reference.md is behind: run `cargo test -p vmctl --bin vmctl -- --ignored`");
}

#[test]
#[ignore = "writes the page"]
fn write_reference() {
    fs::write(path(), page()).unwrap();
}

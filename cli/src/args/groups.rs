//! The headings of `vmctl --help`. clap lists commands under one heading only, so the list is made here and put into
//! the template of the help.

use std::fmt::Write;

use clap::Command as Definition;
use clap::builder::{StyledStr, Styles};

use super::command::listed;

/// A heading, and the commands below it in the order in which they are shown.
type Group = (&'static str, &'static [&'static str]);

/// Every command stands in one group; one that is forgotten is shown below [`REST`], and a test names it.
const GROUPS: [Group; 7] = [
    ("The VMFile", &["init", "validate", "fmt", "graph"]),
    ("Plan and apply", &["plan", "apply", "drift", "show", "output"]),
    ("Every day", &["up", "down", "reload", "provision", "run"]),
    (
        "Some machines",
        &["create", "import", "start", "stop", "suspend", "resume", "destroy", "taint", "untaint"],
    ),
    ("Look and reach", &["list", "status", "events", "log", "wait", "ssh", "exec", "cp", "console", "vnc"]),
    ("Beside vmctl", &["ssh-config", "inventory", "completions", "man"]),
    ("State, images, host", &["state", "image", "doctor"]),
];

/// The heading of commands that stand in no group.
const REST: &str = "More";

/// What stands between the usage and the groups.
const ABOUT: &str = "\
vmctl reads a VMFile.kdl that describes virtual machines, compares it with what
it made before and with what really runs, shows a plan, and applies it.
`vmctl COMMAND --help` has the options and examples of a command.";

/// The template of `vmctl --help`.
pub(super) fn template() -> StyledStr {
    let styles = Styles::styled();
    let (heading, name) = (styles.get_header(), styles.get_literal());
    let mut text = format!("{{about}}\n\n{{usage-heading}} {{usage}}\n\n{ABOUT}\n");
    let shown = listed();
    let width = shown.iter().map(|command| command.get_name().len()).max().unwrap_or_default();
    // Writing to a text cannot fail.
    let mut list = |title: &str, commands: &[&Definition]| {
        if commands.is_empty() {
            return;
        }
        let _ = write!(text, "\n{heading}{title}:{heading:#}\n");
        for command in commands {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "  {name}{:width$}{name:#}  {about}", command.get_name());
        }
    };
    for (title, names) in GROUPS {
        let find = |name: &&str| shown.iter().find(|command| command.get_name() == *name);
        list(title, &names.iter().filter_map(find).collect::<Vec<_>>());
    }
    list(REST, &shown.iter().filter(|command| !is_grouped(command.get_name())).collect::<Vec<_>>());
    let _ = write!(text, "\n{heading}Options:{heading:#}\n{{options}}{{after-help}}");
    StyledStr::from(text)
}

fn is_grouped(name: &str) -> bool {
    GROUPS.iter().any(|(_, names)| names.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_in_one_group() {
        let mut grouped: Vec<_> = GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
        grouped.sort_unstable();
        let mut known: Vec<_> = listed().iter().map(|command| command.get_name().to_owned()).collect();
        known.sort_unstable();
        assert_eq!(grouped, known, "GROUPS in cli/src/args/groups.rs has each command once");
    }
}

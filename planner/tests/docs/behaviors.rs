//! The table of `docs/planning-behaviors.md`.

use std::fmt::Write as _;

use vmctl_planner::fields::{Class, FIELDS, Needs, PROVISION, PROVISION_EFFECT};

const BEGIN: &str = "<!-- made from planner/src/fields.rs; planner/tests/docs writes it -->\n";

/// The page with its table made anew.
pub(crate) fn page(text: &str) -> String {
    crate::between(text, BEGIN, &table())
}

fn table() -> String {
    let mut table = String::from("| field | a change needs | what happens |\n| --- | --- | --- |\n");
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
    writeln!(table, "| `{PROVISION}` | {} | {PROVISION_EFFECT} |", Class::Provision.as_str()).unwrap();
    table
}

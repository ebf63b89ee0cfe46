//! What becomes of machines over time: what is protected, renamed, let go of, and waited for.

use vmctl_planner::desired::{Lifecycle, Move, Trigger};
use vmctl_planner::vmfile::{FILE_NAME, Severity, project};

use super::name;
use super::site::Site;

#[test]
fn a_lifecycle_says_what_may_become_of_a_machine() {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let field = |name: &str| Trigger::Field(name.to_owned());
    for (text, expected) in [
        ("lifecycle", Lifecycle::default()),
        ("lifecycle { }", Lifecycle::default()),
        ("lifecycle { prevent-destroy; }", Lifecycle { prevent_destroy: true, ..Lifecycle::default() }),
        ("lifecycle { prevent-destroy #true; }", Lifecycle { prevent_destroy: true, ..Lifecycle::default() }),
        ("lifecycle { prevent-destroy #false; }", Lifecycle::default()),
        (
            "lifecycle { ignore-changes memory cloud-init.user; ignore-changes \"provision\"; }",
            Lifecycle {
                ignore_changes: words(&["memory", "cloud-init.user", "provision"]),
                ..Lifecycle::default()
            },
        ),
        (
            "lifecycle { ignore-changes all; }",
            Lifecycle { ignore_changes: words(&["all"]), ..Lifecycle::default() },
        ),
        (
            "lifecycle { replace-when provision \"vm.db\"; replace-when all cloud-init; }",
            Lifecycle {
                replace_when: [
                    field("provision"),
                    Trigger::Machine(name("db")),
                    field("all"),
                    field("cloud-init"),
                ]
                .into(),
                ..Lifecycle::default()
            },
        ),
    ] {
        let site = Site::new(&format!(
            "vm \"web\" {{\n image \"disk.img\"\n {text}\n}}\nvm \"db\" {{ image \"disk.img\"; }}"
        ));
        let loaded = site.load().unwrap();
        assert_eq!(loaded.desired.vms[&name("web")].lifecycle, expected, "{text}");
        assert_eq!(loaded.desired.vms[&name("db")].lifecycle, Lifecycle::default());
        assert_eq!(loaded.warnings, [], "{text}");
    }
}

#[test]
fn every_field_name_is_taken_by_both_lists() {
    for field in vmctl_planner::fields::names() {
        for list in ["ignore-changes", "replace-when"] {
            let site = Site::new(&format!(
                "vm \"web\" {{ image \"disk.img\"; lifecycle {{ {list} \"{field}\"; }}; }}"
            ));
            assert_eq!(site.load().map(|loaded| loaded.warnings), Ok(vec![]), "{list} {field}");
        }
    }
}

#[test]
fn fields_that_are_passed_over_and_replace_the_machine_are_warned_about() {
    for (ignored, trigger, contradicts) in [
        ("memory", "memory", true),
        ("all", "disk", true),
        ("all", "all", true),
        ("cloud-init", "cloud-init.user", true),
        ("cloud-init.user", "cloud-init", false),
        ("memory", "all", false),
        ("memory", "disk", false),
        ("all", "vm.db", false),
    ] {
        let site = Site::new(&format!(
            "vm \"web\" {{\n image \"disk.img\"\n lifecycle {{\n ignore-changes \"{ignored}\"\n replace-when \"{trigger}\"\n }}\n}}\nvm \"db\" {{ image \"disk.img\"; }}"
        ));
        let warnings = site.load().unwrap().warnings;
        let codes: Vec<_> = warnings.iter().map(|warning| (warning.severity, warning.code)).collect();
        let expected: &[_] = if contradicts { &[(Severity::Warning, "vmfile::contradiction")] } else { &[] };
        assert_eq!(codes, expected, "{ignored} {trigger}");
    }
}

#[test]
fn machines_are_renamed_and_let_go_of() {
    let site = Site::new(
        r#"
        moved from="b" to="c"
        removed "old"
        vm "c" { image "disk.img"; }
        moved from="a" to="b"
        removed "cache"
        "#,
    );
    let rename = |from: &str, to: &str| Move { from: name(from), to: name(to) };
    let loaded = site.load().unwrap();
    assert_eq!(loaded.desired.moved, [rename("b", "c"), rename("a", "b")]);
    assert_eq!(loaded.desired.removed, [name("cache"), name("old")].into());
    assert_eq!(loaded.warnings, []);
}

#[test]
fn a_file_that_only_lets_go_of_machines_describes_none() {
    let site = Site::new("project \"store\"\nremoved \"web\"");
    let desired = site.desired();
    assert!(desired.vms.is_empty());
    assert_eq!(desired.removed, [name("web")].into());
    assert_eq!(project(&site.path(FILE_NAME)).unwrap(), name("store"));
}

#[test]
fn a_name_that_looks_like_an_address_is_warned_about() {
    let site = Site::new(
        "vm \"web\" { image \"disk.img\"; }\nremoved \"vm.old\"\nmoved from=\"vm.www\" to=\"web\"\nremoved \"vm\"",
    );
    let warnings = site.load().unwrap().warnings;
    let told: Vec<_> =
        warnings.iter().map(|warning| (warning.code, warning.place.as_ref().unwrap().line)).collect();
    assert_eq!(told, [("vmfile::bad-name", 2), ("vmfile::bad-name", 3)]);
}

#[test]
fn long_chains_of_renames_are_no_trouble_and_long_cycles_are_found() {
    const LENGTH: usize = 3_000;
    let chain = |last: usize| {
        let renames: String = (0..LENGTH)
            .map(|number| format!("moved from=\"vm{number}\" to=\"vm{}\"\n", (number + 1) % last))
            .collect();
        format!("vm \"vm{LENGTH}\" {{ image \"disk.img\"; }}\n{renames}")
    };
    assert_eq!(Site::new(&chain(LENGTH + 1)).desired().moved.len(), LENGTH);
    let report = Site::new(&chain(LENGTH)).load().unwrap_err();
    assert_eq!(report.problems().len(), 1);
    assert_eq!(report.problems()[0].message.matches(" -> ").count(), LENGTH);
}

#[test]
fn long_chains_of_dependencies_are_no_trouble_and_long_cycles_are_found() {
    const LENGTH: usize = 3_000;
    let chain = |first: &str| {
        let mut text = format!("vm \"vm0\" {{\n image \"disk.img\"\n {first}\n}}\n");
        for number in 1..LENGTH {
            let before = number - 1;
            text += &format!("vm \"vm{number}\" {{\n image \"disk.img\"\n depends-on \"vm{before}\"\n}}\n");
        }
        text
    };
    assert_eq!(Site::new(&chain("")).desired().vms.len(), LENGTH);
    let report = Site::new(&chain(&format!("depends-on \"vm{}\"", LENGTH - 1))).load().unwrap_err();
    assert_eq!(report.problems().len(), 1);
    assert_eq!(report.problems()[0].message.matches(" -> ").count(), LENGTH);
}

#[test]
fn machines_that_all_wait_for_all_are_too_many() {
    let text = |count: u32| {
        format!(
            "vm \"a\" count={count} {{ image \"disk.img\" }}\nvm \"b\" count={count} {{ image \"disk.img\"; depends-on \"a\" }}"
        )
    };
    assert_eq!(Site::new(&text(100)).desired().vms.len(), 200);
    let report = Site::new(&text(1_001)).load().unwrap_err();
    assert_eq!(report.problems().iter().map(|problem| problem.code).collect::<Vec<_>>(), ["vmfile::too-big"]);
}

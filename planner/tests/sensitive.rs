//! Sensitive variables: what a VMFile may do with them, and that no message shows them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;

use common::FakeImages;
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};
use vmctl_planner::vmfile::{FILE_NAME, Given, LoadOptions, Loaded, load};

const SECRET: &str = "hunter2-and-more";

/// Loads a VMFile of one sensitive variable and `rest`, with a file of values; what is told otherwise is drawn.
fn loaded(rest: &str, values: Option<&str>) -> Result<Loaded, String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("disk.img"), "disk").unwrap();
    let path = folder.path().join(FILE_NAME);
    fs::write(&path, format!("project \"shop\"\nvariable \"token\" {{ sensitive }}\n{rest}")).unwrap();
    let mut given = Given::default();
    match values {
        Some(values) => {
            let file = folder.path().join("values.kdl");
            fs::write(&file, values).unwrap();
            given.files.push(file);
        }
        None => given.values.push(("token".to_owned(), SECRET.to_owned())),
    }
    let images = FakeImages::default();
    let options = LoadOptions { project: None, home: None, images: &images, given };
    load(&path, &options).map_err(|report| {
        let mut text = report.to_string();
        let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor());
        for problem in report.related().into_iter().flatten() {
            handler.render_report(&mut text, problem).unwrap();
        }
        text
    })
}

fn vm(rest: &str) -> String {
    format!("vm \"web\" {{ image \"disk.img\"; ssh; {rest} }}")
}

#[test]
fn values_are_taken_where_texts_go_and_labels_do_not_show_them() {
    let file = r#"provision "file" { source "disk.img"; destination (template)"/srv/{{ var.token }}" }"#;
    let rest =
        vm(&format!(r#"labels {{ user (var)"token" }}; check (var)"token" {{ exec "true" }}; {file}"#));
    let desired = loaded(&rest, None).unwrap().desired;
    let web = &desired.vms["web"];
    assert_eq!(web.labels["user"], SECRET);
    assert_eq!((&*web.checks[0].name, &*web.provision[0].label), ("(sensitive)", "/srv/(sensitive)"));
    assert!(web.provision[0].secrets.are_in(SECRET));
}

#[test]
fn names_users_and_paths_hold_none() {
    for (node, rest) in [
        ("vm", r#"vm (var)"token" { image "disk.img" }"#.to_owned()),
        ("vm", r#"vm (template)"{{ var.token }}-{{ index }}" count=2 { image "disk.img" }"#.to_owned()),
        ("user", r#"vm "web" { image "disk.img"; ssh { user (var)"token" } }"#.to_owned()),
        ("image", r#"vm "web" { image (template)"{{ var.token }}.img" }"#.to_owned()),
        ("path", "image \"one\" { path (var)\"token\" }\nvm \"web\" { image (ref)\"one\" }".to_owned()),
        ("network", r#"vm "web" { image "disk.img"; network "tap" bridge=(var)"token" }"#.to_owned()),
        ("cmdline", vm(r#"kernel "disk.img"; cmdline (template)"key={{ var.token }}""#)),
        ("share", vm(r#"share "." (template)"/srv/{{ var.token }}""#)),
        ("source", vm(r#"provision "file" { source (var)"token"; destination "/x" }"#)),
    ] {
        let told = loaded(&rest, None).unwrap_err();
        assert!(told.contains(&format!("`{node}` cannot hold a sensitive value")), "{node}: {told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}

#[test]
fn no_message_shows_what_stands_in_a_file_of_values() {
    let uses = vm(r#"labels { a (var)"token" }"#);
    for (values, rest) in [
        // Good, too short, of another type, unreadable.
        ("token \"hunter2-and-more\"\nother 1", vm("memory \"much\"; labels { a (var)\"token\" }")),
        ("token \"hun\"", uses.clone()),
        ("token 73467", uses.clone()),
        ("token \"hunter2-and-more\nother 1", uses.clone()),
        ("token hunter2=and=more", uses.clone()),
        ("token {\n  hunter2\n", uses),
    ] {
        let told = loaded(&rest, Some(values)).unwrap_err();
        for secret in ["hun", "73467"] {
            assert!(!told.contains(secret), "{values}: {told}");
        }
    }
}

#[test]
fn default_is_not_shown_with_its_warning() {
    let rest = format!("variable \"key\" {{ sensitive; default \"{SECRET}\" }}\n{}", vm("memroy 1"));
    let told = loaded(&rest, None).unwrap_err();
    assert!(told.contains("its value stands here") && !told.contains("hunter2"), "{told}");
}

//! `vmctl image`: pulled once, listed, kept while a machine needs it, removed when none does.

use std::fs;

use crate::schema::promised;
use vmctl_tests::World;
use vmctl_tests::server::{Answer, Server};

/// A raw disk with a boot record's mark.
fn disk() -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..2_u32 << 20).map(|n| (n / 3) as u8).collect();
    bytes[510..512].copy_from_slice(b"\x55\xaa");
    bytes
}

#[test]
fn image_is_pulled_once_listed_kept_while_needed_and_pruned() {
    let server = Server::start(|asked| Answer::file(asked, &disk(), "\"a\""));
    let world = World::new(0);
    let url = server.url("/disk.raw?secret=1");
    let (first, second) =
        (world.start(&["image", "pull", &url, "--json"]), world.start(&["image", "pull", &url, "--json"]));
    let (first, second) = (first.end().expect(0).json(), second.end().expect(0).json());
    promised("image", &first);
    assert_eq!(first["images"][0]["digest"], second["images"][0]["digest"]);
    // The other one waited for it, or came later and was told that there is nothing newer.
    let whole =
        server.asked().into_iter().filter(|asked| !asked.headers.contains_key("if-none-match")).count();
    assert_eq!(whole, 1);
    let path = first["images"][0]["path"].as_str().expect("a path").to_owned();
    assert_eq!(fs::read(&path).expect("an image"), disk());

    let list = world.vmctl(&["image", "list", "--json"]).expect(0);
    assert!(!list.text().contains("secret"), "{}", list.text());
    let list = list.json();
    promised("image", &list);
    assert_eq!(list["images"].as_array().map(Vec::len), Some(1));
    let digest = list["images"][0]["digest"].as_str().expect("a digest").to_owned();
    promised("image", &world.vmctl(&["image", "inspect", &digest[..20], "--json"]).expect(0).json());

    world.write("VMFile.kdl", &format!("vm \"web\" {{\n  backend \"noop\"\n  image \"{path}\"\n}}\n"));
    world.vmctl(&["apply", "--yes"]).expect(0);
    world.vmctl(&["image", "rm", &digest]).expect(1).says("is needed by shop/web");
    let kept = world.vmctl(&["image", "prune", "--json"]).expect(0).json();
    assert_eq!((kept["removed"].as_array().map(Vec::len), fs::exists(&path).ok()), (Some(0), Some(true)));

    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    let dry = world.vmctl(&["image", "prune", "--dry-run", "--json"]).expect(0).json();
    assert_eq!((dry["removed"].as_array().map(Vec::len), fs::exists(&path).ok()), (Some(1), Some(true)));
    let gone = world.vmctl(&["image", "prune", "--json"]).expect(0).json();
    promised("image", &gone);
    assert_eq!((&gone["freed_bytes"], fs::exists(&path).ok()), (&dry["freed_bytes"], Some(false)));
}

#[test]
fn pull_that_failed_says_why_and_leaves_no_image() {
    let server = Server::start(|asked| match asked.path.as_str() {
        "/page" => Answer::whole("<html><body>Log in</body></html>"),
        _ => Answer::status(404),
    });
    let world = World::new(0);
    world.vmctl(&["image", "pull", &server.url("/page")]).expect(1).says("a web page in place of an image");
    world.vmctl(&["image", "pull", &server.url("/none")]).expect(1).says("answered 404");
    world.vmctl(&["image", "pull", "http://example.org/x"]).expect(1).says("plain http");
    let list = world.vmctl(&["image", "list", "--json"]).expect(0).json();
    assert_eq!(list["images"], serde_json::json!([]));
}

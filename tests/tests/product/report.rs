//! A plan as a page: what a reader's browser makes of it.

use std::fs;
use std::path::PathBuf;

use vmctl_tests::World;
use vmctl_tests::browser::{Browser, Scheme};

/// Two machines that were made, and a VMFile in which one is gone, one has a new script and one is new.
fn changed() -> World {
    let world = World::new(0);
    world.write("setup.sh", "echo one\n");
    world.vmfile(&[GONE, WEB].join("\n"));
    world.vmctl(&["apply", "--yes"]).expect(0);
    world.write("setup.sh", "echo \"</script><b id=injected>two</b>\"\n");
    world.vmfile(&[WEB, NEW].join("\n"));
    world
}

const GONE: &str = r#"vm "gone" { image "TINY"; backend "noop" }"#;
const WEB: &str = r#"vm "web" { image "TINY"; backend "noop"; ssh { user "vm" }; provision "shell" { script "setup.sh" } }"#;
const NEW: &str = r#"vm "new" { image "TINY"; backend "noop"; depends-on "web" }"#;

/// Has the plan written as a page.
fn page(world: &World) -> PathBuf {
    let file = world.project().join("plan.html");
    world.vmctl(&["plan", "--html", "plan.html"]).expect(0);
    file
}

/// The beginning of each change's element, in the order of the page: whether it is hidden, and its address.
fn entries(dom: &str) -> Vec<(bool, String)> {
    let entry = |piece: &str| {
        let (tag, rest) = piece.split_once('>').unwrap();
        let address = rest.split_once("class=\"address\">").unwrap().1.split_once('<').unwrap().0;
        (tag.contains("hidden"), address.to_owned())
    };
    dom.split("<details class=\"entry").skip(1).map(entry).collect()
}

fn shown(dom: &str) -> Vec<String> {
    entries(dom).into_iter().filter(|(is_hidden, _)| !is_hidden).map(|(_, address)| address).collect()
}

#[test]
fn page_shows_what_is_searched_for() {
    let world = changed();
    let (browser, file) = (Browser::new(), page(&world));
    let dom = browser.dom(&file, "");
    let all = shown(&dom);
    assert_eq!(all.first().map(String::as_str), Some("vm.gone"), "data loss comes first: {all:?}");
    assert_eq!(all.len(), 3, "{all:?}");
    assert_eq!(shown(&browser.dom(&file, "q=VM.WEB%20provision")), ["vm.web"]);
    assert_eq!(shown(&browser.dom(&file, "q=nothing%20has%20this")), [""; 0]);
    // What is badly encoded is searched for as it is.
    assert_eq!(shown(&browser.dom(&file, "q=%zz")), [""; 0]);
}

#[test]
fn page_is_whole_without_scripts() {
    let world = changed();
    let dom = Browser::new().dom_without_scripts(&page(&world), "q=vm.web");
    assert_eq!(shown(&dom).len(), 3, "all changes are there, whatever is searched for");
    let (_, search) = dom.split_once("<div id=\"search\"").expect("the page has a search");
    assert!(search.split_once('>').unwrap().0.contains("hidden"), "a search that does nothing is shown");
}

#[test]
fn page_draws_the_steps_and_keeps_scripts_of_guests_as_text() {
    let world = changed();
    let dom = Browser::new().dom(&page(&world), "");
    assert!(dom.contains("<svg") && dom.contains(">vm.gone: destroy<"), "the steps are not drawn");
    assert!(!dom.contains("<b id=\"injected\""), "a script became a part of the page");
}

#[test]
fn page_follows_the_readers_choice_of_dark_or_bright() {
    let world = changed();
    let (browser, file) = (Browser::new(), page(&world));
    let [dark, light] =
        [Scheme::Dark, Scheme::Light].map(|scheme| browser.screenshot(&file, "", [800, 600], scheme));
    assert_ne!(dark, light);
}

#[test]
fn page_is_written_whole() {
    let world = changed();
    let text = fs::read_to_string(page(&world)).unwrap();
    assert!(text.starts_with("<!DOCTYPE html>") && text.trim_end().ends_with("</html>"));
}

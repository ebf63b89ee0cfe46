//! Which files are read, and which project they are of.

use std::fs;
use std::path::PathBuf;

use vmctl_planner::vmfile::{FILE_NAME, Given, LoadOptions, discover, load, project, removed};

use super::name;
use super::site::Site;

#[test]
fn paths_and_file_urls_lead_to_the_same_image() {
    let site = Site::new("");
    site.file("home/my disk.img", "disk");
    let (absolute, url) = (site.path("home/my disk.img"), site.path("home/my%20disk.img"));
    for image in [
        "image \"home/my disk.img\"".to_owned(),
        "image \"./home/../home/my disk.img\"".to_owned(),
        "image \"~/my disk.img\"".to_owned(),
        format!("image {absolute:?}"),
        format!("image-url \"file://{}\"", url.display()),
        format!("image-url \"FILE://localhost{}\"", url.display()),
    ] {
        site.file(FILE_NAME, &format!("vm \"web\" {{ {image}; }}"));
        let source = PathBuf::from(site.only().image.unwrap().source());
        assert_eq!(fs::canonicalize(source).unwrap(), absolute, "{image}");
    }
}

#[test]
fn the_project_is_named_by_option_then_node_then_folder() {
    let site = Site::new("vm \"web\" { image \"disk.img\"; }");
    let folder = site.path("").file_name().unwrap().to_str().unwrap().trim_matches('.').to_owned();
    assert_eq!(site.desired().project.as_str(), folder);
    site.file(FILE_NAME, "project \"store\"\nvm \"web\" { image \"disk.img\"; }");
    assert_eq!(site.desired().project.as_str(), "store");
    let options = LoadOptions {
        project: Some(name("pr-123")),
        home: None,
        images: &site.images,
        given: Given::default(),
    };
    let loaded = load(&site.path(FILE_NAME), &options).unwrap();
    assert_eq!(loaded.desired.project.as_str(), "pr-123");
}

#[test]
fn the_project_is_known_even_where_the_rest_cannot_be_resolved() {
    let site = Site::new("project \"store\"\nvm \"web\" { image \"nowhere.img\"; vcpus 0; }");
    assert_eq!(project(&site.path(FILE_NAME)).unwrap(), name("store"));
    site.file("box/VMFile.kdl", "");
    assert_eq!(project(&site.path("box/VMFile.kdl")).unwrap(), name("box"));
    site.file("box/VMFile.kdl", "project \"a/b\"");
    assert!(project(&site.path("box/VMFile.kdl")).is_err());
}

#[test]
fn a_project_is_asked_for_where_the_folder_cannot_name_one() {
    let site = Site::new("");
    site.file("家/VMFile.kdl", "vm \"web\" { image \"../disk.img\"; }");
    let options = LoadOptions { project: None, home: None, images: &site.images, given: Given::default() };
    let report = load(&site.path("家/VMFile.kdl"), &options).unwrap_err();
    assert_eq!(report.problems().len(), 1);
    assert_eq!(report.problems()[0].code, "vmfile::bad-name");
}

#[test]
fn files_that_cannot_be_read_are_told() {
    let site = Site::new("vm \"web\" { image \"disk.img\"; ssh; provision { script \"s\"; }; }");
    assert_eq!(site.codes(), ["vmfile::file"]);
    fs::write(site.path("s"), [b'a', 0xff]).unwrap();
    assert!(site.load().unwrap_err().problems()[0].message.contains("not UTF-8 text (byte 1)"));
    fs::write(site.path("s"), vec![b'a'; (1 << 20) + 1]).unwrap();
    assert!(site.load().unwrap_err().problems()[0].message.contains("1048577 bytes, at most 1048576"));
    fs::remove_file(site.path("s")).unwrap();
    make_special(&site.path("s"));
    assert!(site.load().unwrap_err().problems()[0].message.contains("not a regular file"));
}

/// A socket stands for all special files: it can be made without a helper and must not be opened.
fn make_special(path: &std::path::Path) {
    drop(std::os::unix::net::UnixListener::bind(path).unwrap());
}

#[test]
fn home_paths_need_a_home() {
    let site = Site::new("vm \"web\" { image \"~/disk.img\"; }");
    let options = LoadOptions { project: None, home: None, images: &site.images, given: Given::default() };
    let report = load(&site.path(FILE_NAME), &options).unwrap_err();
    assert!(report.problems()[0].message.contains("`~` stands for the home folder"), "{report:?}");
}

#[test]
fn a_vmfile_that_cannot_be_read_is_a_report_too() {
    let site = Site::new("");
    let told = |path: PathBuf| {
        let options =
            LoadOptions { project: None, home: None, images: &site.images, given: Given::default() };
        let report = load(&path, &options).unwrap_err();
        let problem = &report.problems()[0];
        let help = problem.help.clone().unwrap();
        (problem.code, problem.message.replace(site.path("").to_str().unwrap(), "/"), help)
    };
    let (code, message, help) = told(site.path("nowhere.kdl"));
    assert_eq!((code, message.as_str()), ("vmfile::unreadable", "cannot read `/nowhere.kdl`: no such file"));
    assert!(help.starts_with("vmctl looks for VMFile.kdl here and in each parent folder"));
    let (code, message, _) = told(site.path("nested/.."));
    assert_eq!((code, message.as_str()), ("vmfile::unreadable", "cannot read `/nested/..`: no such file"));
    fs::create_dir(site.path("nested")).unwrap();
    let (_, message, _) = told(site.path("nested"));
    assert_eq!(message, "cannot read `/nested`: it is a folder");
    fs::write(site.path("latin1.kdl"), b"vm \"b\xfcro\" {\n}").unwrap();
    let (code, _, help) = told(site.path("latin1.kdl"));
    assert_eq!((code, help.as_str()), ("vmfile::not-text", "save it as UTF-8"));
    fs::write(site.path("utf16.kdl"), b"\xff\xfev\0m\0").unwrap();
    assert!(told(site.path("utf16.kdl")).2.contains("UTF-16"));
}

#[test]
fn the_nearest_vmfile_upwards_is_found() {
    let site = Site::new("");
    fs::create_dir_all(site.path("a/b")).unwrap();
    assert_eq!(discover(&site.path("a/b")), Some(site.path(FILE_NAME)));
    site.file("a/VMFile.kdl", "");
    assert_eq!(discover(&site.path("a/b")), Some(site.path("a/VMFile.kdl")));
}

#[test]
fn a_project_and_what_is_let_go_of_are_known_without_values_and_images() {
    let site = Site::new(
        "include \"more.kdl\"\nproject \"store\"\nvariable \"size\"\nremoved \"old\"
        vm \"web\" { image \"nowhere.img\"; memory (var)\"size\"; vcpus 0 }",
    );
    site.file("more.kdl", "removed \"older\"\nvm \"db\" { image (ref)\"nothing\" }");
    assert_eq!(project(&site.vmfile()).unwrap(), name("store"));
    assert_eq!(removed(&site.vmfile()).unwrap(), [name("old"), name("older")].into());
}

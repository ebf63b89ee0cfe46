//! Included files.

use std::os::unix::fs::symlink;

use vmctl_planner::desired::DesiredVm;
use vmctl_planner::vmfile::project;

use super::name;
use super::site::Site;

#[test]
fn paths_of_an_included_file_are_relative_to_it() {
    let site = Site::new("include \"vms/web.kdl\"\ninclude \"../shop-shared.kdl\"");
    site.file("vms/web.kdl", "include \"deeper/db.kdl\"\nvm \"web\" { image \"web.img\"; ssh; provision { script \"../run.sh\" } }");
    site.file("vms/web.img", "disk");
    site.file("run.sh", "true");
    site.file("vms/deeper/db.kdl", "vm \"db\" { image \"../../disk.img\" }");
    site.file("inner/VMFile.kdl", "include \"../vms/web.kdl\"");
    let told = site.told();
    assert!(told[0].starts_with("vmfile::include: cannot include `../shop-shared.kdl`"), "{told:?}");
    site.file("VMFile.kdl", "include \"vms/web.kdl\"");
    let source = |vm: DesiredVm| vm.image.unwrap().source();
    assert_eq!(source(site.vm("web")), site.path("vms/web.img").display().to_string());
    assert_eq!(source(site.vm("db")), site.path("disk.img").display().to_string());
    let inputs: Vec<_> = site.desired().inputs.into_iter().map(|input| input.path).collect();
    let expected = ["VMFile.kdl", "vms/web.kdl", "vms/deeper/db.kdl", "run.sh"].map(|name| site.path(name));
    assert_eq!(inputs, expected);
}

#[test]
fn an_included_link_means_the_file_that_it_leads_to() {
    let site = Site::new("include \"link.kdl\"");
    site.file("vms/web.kdl", "vm \"web\" { image \"web.img\" }");
    site.file("vms/web.img", "disk");
    symlink(site.path("vms/web.kdl"), site.path("link.kdl")).unwrap();
    assert_eq!(site.vm("web").image.unwrap().source(), site.path("vms/web.img").display().to_string());
    site.file("VMFile.kdl", "include \"link.kdl\"\ninclude \"vms/web.kdl\"");
    assert_eq!(site.told(), ["vmfile::duplicate: this file is included twice"]);
}

#[test]
fn problems_of_included_files_name_them() {
    let site = Site::new("// ä\ninclude \"vms/web.kdl\"\nvm \"web\" { image \"disk.img\" }");
    site.file("vms/web.kdl", "// ä\n  vm \"web\" { image \"../disk.img\" }\n  memroy 1\n");
    let report = site.load().unwrap_err();
    let json = serde_json::to_value(report.problems()).unwrap();
    let (main, included) =
        (site.vmfile().display().to_string(), site.path("vms/web.kdl").display().to_string());
    assert_eq!(json[0]["file"], main);
    assert_eq!(
        (&json[0]["line"], &json[0]["column"], &json[0]["offset"]),
        (&3.into(), &4.into(), &31.into())
    );
    let related = &json[0]["related"][0];
    assert_eq!(related["file"], included);
    assert_eq!(
        (&related["line"], &related["column"], &related["offset"]),
        (&2.into(), &6.into(), &11.into())
    );
    assert_eq!(
        (&json[1]["file"], &json[1]["line"], &json[1]["column"]),
        (&included.into(), &3.into(), &3.into())
    );
}

#[test]
fn a_project_in_an_included_file_is_never_used() {
    let site = Site::new("include \"more.kdl\"\nvm \"web\" { image \"disk.img\" }");
    site.file("more.kdl", "project \"inner\"");
    assert_eq!(site.told(), ["vmfile::project: `project` stands in an included file"]);
    project(&site.vmfile()).unwrap_err();
    site.file("VMFile.kdl", "include \"more.kdl\"\nproject \"outer\"\nvm \"web\" { image \"disk.img\" }");
    assert_eq!(project(&site.vmfile()).unwrap(), name("outer"));
}

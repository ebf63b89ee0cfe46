//! What is not meant, and what is too much.

use super::site::Site;

#[test]
fn what_may_not_be_meant_is_warned_about() {
    let site = Site::new(
        r#"
        variable "size" { default 1 }
        variable "secret" { default "hunter2"; sensitive }
        template "base" { memory 64 }
        image "debian" { path "disk.img" }
        network "lan"
        volume "data" size="1G"
        vm "web" { image "disk.img"; qemu-arg "-x"; labels { secret (var)"secret"; size "{{ var.size }}" } }
        "#,
    );
    assert_eq!(
        site.told(),
        [
            "vmfile::unused: the variable `size` is never used",
            "vmfile::variable: the variable `secret` is sensitive, and its value stands here",
            "vmfile::unused: the template `base` is never used",
            "vmfile::unused: the image `debian` is never used",
            "vmfile::unused: the network `lan` is never used",
            "vmfile::unused: the volume `data` is never used",
            "vmfile::qemu-arg: arguments of QEMU are passed on as they are",
            "vmfile::template: what stands between `{{` and `}}` is not replaced here",
        ]
    );
}

#[test]
fn nodes_with_too_many_values_are_refused_before_they_are_parsed() {
    let told =
        Site::new(&format!("vm \"web\" {{ image \"disk.img\"; depends-on{} }}", " \"a\"".repeat(1_001)))
            .told();
    assert_eq!(told, ["vmfile::too-big: a node has more than 1000 values"]);
    let told = Site::new(&format!("a{}\n", " 1".repeat(1_000)).repeat(501)).told();
    assert_eq!(told, ["vmfile::too-big: the file has more than 500000 values"]);
}

#[test]
fn a_line_that_is_far_too_long_is_not_shown() {
    let long = "x".repeat(100_000);
    let site = Site::new(&format!(
        "vm \"web\" {{ image \"disk.img\"; machine \"q35,{long}\"; memory 512; memory 1024 }}"
    ));
    let report = site.load().unwrap_err();
    let mut told = String::new();
    miette::GraphicalReportHandler::new().with_width(500).render_report(&mut told, &report).unwrap();
    assert!(told.len() < 2_000, "{}", told.len());
    for place in [38, 100_046, 100_058] {
        assert!(told.contains(&format!("line 1, column {place})")), "{place}: {told}");
    }
}

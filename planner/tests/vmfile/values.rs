//! Values from outside, and what is put together from them.

use vmctl_planner::desired::{Attribute, OutputPart};

use super::name;
use super::site::Site;

#[test]
fn values_come_from_the_option_then_the_file_then_the_environment_then_the_default() {
    let text = "variable \"the-size\" { default 100 }
        vm \"web\" { image \"disk.img\"; memory (var)\"the-size\" }";
    let memory = |site: Site| site.vm("web").memory_mib;
    assert_eq!(memory(Site::new(text)), 100);
    let environment = [("VMCTL_VAR_the_size", "200"), ("VMCTL_VAR_unknown", "x")];
    assert_eq!(memory(Site::new(text).environment(&environment)), 200);
    let exact = [("VMCTL_VAR_the_size", "200"), ("VMCTL_VAR_the-size", "250")];
    assert_eq!(memory(Site::new(text).environment(&exact)), 250);
    let file = Site::new(text).environment(&environment).values("a.kdl", "the-size 300");
    assert_eq!(memory(file.values("b.kdl", "the-size 350")), 350);
    let all = Site::new(text).environment(&environment).values("a.kdl", "the-size 300");
    assert_eq!(memory(all.given(&[("the-size", "400"), ("the-size", "450")])), 450);
}

#[test]
fn texts_from_outside_stand_for_numbers_sizes_and_truth() {
    let text = r#"
        variable "size" { default "2GiB" }
        variable "cpus" { default "4" }
        variable "number" { type "number" }
        variable "safe" { type "bool"; default #false }
        vm "web" {
            image "disk.img"
            memory (var)"size"
            vcpus (var)"cpus"
            disk (template)"{{ var.number }}"
            forward guest=(env)"PORT"
            lifecycle { prevent-destroy (var)"safe" }
            labels { number (var)"number"; safe (var)"safe" }
        }
    "#;
    let site = Site::new(text).given(&[("number", " 20 "), ("safe", "true")]).environment(&[("PORT", "80")]);
    let vm = site.vm("web");
    assert_eq!((vm.memory_mib, vm.vcpus, vm.disk_bytes), (2048, 4, Some(20 << 30)));
    assert_eq!((vm.forwards[0].guest_port, vm.lifecycle.prevent_destroy), (80, true));
    assert_eq!((vm.labels["number"].as_str(), vm.labels["safe"].as_str()), ("20", "true"));
}

#[test]
fn a_text_that_is_written_is_no_number() {
    let told = Site::new("vm \"web\" { image \"disk.img\"; vcpus \"2\" }").told();
    assert_eq!(told, ["vmfile::wrong-type: `vcpus` takes a whole number, not the text \"2\""]);
}

#[test]
fn templates_put_names_together() {
    let site = Site::new(
        r#"
        project "shop"
        variable "domain" { default "example.org" }
        vm (template)"{{ var.stage }}-{{index}}" count=2 {
            image "disk.img"
            cloud-init { hostname (template)"{{ name }}.{{ project }}.{{var.domain}}" }
            labels {
                braces (template)"{{ '{{' }} {{ \"}}\" }} { } }}"
                plain "{{ name }}"
                home (template)"{{ env.HOME_OF_TEST }}/{{ index }}"
            }
        }
        variable "stage" { default "dev"; one-of "dev" "prod" }
        "#,
    )
    .environment(&[("HOME_OF_TEST", "/root")]);
    let vm = site.vm("dev-2");
    assert_eq!(vm.cloud_init.unwrap().hostname, "dev-2.shop.example.org");
    let labels: Vec<_> = vm.labels.values().map(String::as_str).collect();
    assert_eq!(labels, ["{{ }} { } }}", "/root/2", "{{ name }}"]);
}

#[test]
fn files_of_values_are_no_inputs() {
    let site = Site::new(
        "variable \"size\"\nvm \"web\" { image \"disk.img\"; memory \"1G\"; labels { size (var)\"size\" } }",
    )
    .values("values.kdl", "size \"big\"");
    // Whatever else stands in such a file, secrets perhaps, has no place in a plan, not even as a digest.
    let inputs = site.desired().inputs;
    assert_eq!(inputs.iter().map(|input| &input.path).collect::<Vec<_>>(), [&site.path("VMFile.kdl")]);
}

#[test]
fn values_that_cannot_be_used_are_told() {
    let text = "variable \"size\" { default 1 }\nvariable \"word\" { default \"a\"; one-of \"a\" \"b\" }
        vm \"web\" { image \"disk.img\"; vcpus (var)\"size\"; labels { word (var)\"word\" } }";
    let options = Site::new(text).given(&[("siez", "2"), ("size", "two"), ("word", "c")]);
    assert_eq!(
        options.told(),
        [
            "vmfile::variable: `--var` names `siez`, which the VMFile does not know",
            "vmfile::variable: the variable `size` takes a whole number, not `two` (given by `--var`)",
            "vmfile::variable: the variable `word` cannot be `c` (given by `--var`)",
        ]
    );
    let file = Site::new(text).values("values.kdl", "size \"2\"\nwrod \"b\"\n");
    let problems = file.load().unwrap_err();
    let told: Vec<_> =
        problems.problems().iter().map(|problem| (problem.file.as_str(), problem.message.as_str())).collect();
    let values = file.path("values.kdl").display().to_string();
    assert_eq!(
        told,
        [
            (values.as_str(), "the variable `size` takes a whole number, not the text \"2\""),
            (values.as_str(), "the VMFile knows no variable `wrod`"),
        ]
    );
    let mut missing = Site::new(text);
    missing.given.files.push(missing.path("nowhere.kdl"));
    assert!(
        missing.told()[0].starts_with("vmfile::variable: cannot read the values in"),
        "{:?}",
        missing.told()
    );
}

#[test]
fn outputs_speak_of_machines() {
    let site = Site::new(
        r#"
        variable "path" { default "x" }
        output "url" (template)"http://{{ vm.web.host }}:{{ vm.web.port.80 }}/{{ var.path }}" { description "where" }
        output "plain" "{ }"
        vm "web" { image "disk.img"; forward guest=80 }
        "#,
    );
    let outputs = site.desired().outputs;
    let text = |text: &str| OutputPart::Text(text.to_owned());
    let attribute = |attribute| OutputPart::Attribute { vm: name("web"), attribute };
    assert_eq!(
        outputs[&name("url")].parts,
        [text("http://"), attribute(Attribute::Host), text(":"), attribute(Attribute::Port(80)), text("/x")]
    );
    assert_eq!(outputs[&name("url")].description.as_deref(), Some("where"));
    assert_eq!(outputs[&name("plain")].parts, [text("{ }")]);
}

#[test]
fn a_sensitive_value_is_never_told() {
    let secret = "correct-horse battery/staple that goes on and on, far beyond what one line shows\nand more";
    let text = "variable \"token\" { sensitive }
        vm \"web\" {
            image \"disk.img\"
            memory (var)\"token\"
            state (template)\"x {{ var.token }}\"
            cloud-init { hostname (var)\"token\" }
            depends-on (var)\"token\"
            vcpus (var)\"token\"
        }";
    let file = Site::new(text).values("values.kdl", &format!("token \"{}\"", secret.replace('\n', "\\n")));
    let option = Site::new(text).given(&[("token", secret)]);
    let number = Site::new(text).values("values.kdl", "token 4711");
    assert!(number.told()[0].ends_with("takes a text, not what stands here"), "{:?}", number.told());
    assert!(!format!("{:?}", miette::Report::from(number.load().unwrap_err())).contains("4711"));
    for site in [file, option] {
        let report = site.load().unwrap_err();
        assert!(report.problems().len() >= 4);
        let mut told = format!("{:?}", serde_json::to_value(report.problems()).unwrap());
        miette::GraphicalReportHandler::new().render_report(&mut told, &report).unwrap();
        assert!(!told.contains("correct-") && !told.contains("staple"), "{told}");
    }
}

//! The same machine, however it is put together.

use proptest::prelude::*;

use super::site::Site;

/// A machine as its nodes, in the order in which they are written.
fn machine() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    (
        prop::option::of(16_u32..100_000),
        prop::option::of(1_u32..255),
        prop::option::of(2_u32..1_000),
        prop::option::of("[a-z]{1,10}"),
        prop::option::of("[a-z]{1,10}"),
        prop::option::of(prop::sample::select(vec!["running", "stopped", "suspended"])),
        prop::option::of(1_u16..65_535),
    )
        .prop_map(|(memory, vcpus, disk, hostname, label, state, port)| {
            let text = |text: String| format!("\"{text}\"");
            [
                memory.map(|size| ("memory {}", size.to_string())),
                vcpus.map(|count| ("vcpus {}", count.to_string())),
                disk.map(|size| ("disk {}", size.to_string())),
                hostname.map(|name| ("cloud-init { hostname {} }", text(name))),
                label.map(|label| ("labels { role {} }", text(label))),
                state.map(|state| ("state {}", text(state.to_owned()))),
                port.map(|port| ("forward guest={}", port.to_string())),
            ]
            .into_iter()
            .flatten()
            .collect()
        })
}

/// The nodes of a machine, the value of each being `value(number, written)`.
fn written(nodes: &[(&str, String)], value: impl Fn(usize, &str) -> String) -> Vec<String> {
    let line =
        |(number, (form, written)): (usize, &(&str, String))| form.replacen("{}", &value(number, written), 1);
    nodes.iter().enumerate().map(line).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_machine_means_the_same_however_it_is_put_together(nodes in machine(), cut in 0_usize..8, other in 0_usize..8) {
        let plain = written(&nodes, |_, value| value.to_owned());
        let by_hand = Site::new(&format!("vm \"web\" {{\nimage \"disk.img\"\n{}\n}}", plain.join("\n")));
        let image = |site: &Site| {
            let mut vm = site.vm("web");
            vm.image = None;
            vm
        };
        let expected = image(&by_hand);

        let (low, high) = (cut.min(other).min(plain.len()), cut.max(other).min(plain.len()));
        let layers = Site::new(&format!(
            "defaults {{\nimage \"disk.img\"\n{}\n}}\ntemplate \"t\" {{\n{}\n}}\nvm \"web\" template=\"t\" {{\n{}\n}}",
            plain[..low].join("\n"), plain[low..high].join("\n"), plain[high..].join("\n"),
        ));
        prop_assert_eq!(&image(&layers), &expected);

        let variables: Vec<_> = nodes.iter().enumerate()
            .map(|(number, (_, value))| format!("variable \"v{number}\" {{ default {value} }}")).collect();
        let referring = written(&nodes, |number, _| format!("(var)\"v{number}\""));
        let interpolating = written(&nodes, |number, _| format!("(template)\"{{{{ var.v{number} }}}}\""));
        for lines in [referring, interpolating] {
            let site = Site::new(&format!(
                "{}\nvm \"web\" {{\nimage \"disk.img\"\n{}\n}}", variables.join("\n"), lines.join("\n"),
            ));
            prop_assert_eq!(&image(&site), &expected);
        }
    }

    #[test]
    fn the_order_of_nodes_and_files_does_not_matter(
        order in Just((0..8).collect::<Vec<usize>>()).prop_shuffle(),
        apart in prop::collection::vec(any::<bool>(), 8),
    ) {
        let nodes = [
            "variable \"size\" { default 2048 }",
            "defaults { memory (var)\"size\" }",
            "template \"base\" { vcpus 2 }",
            "template \"big\" template=\"base\" { disk 20 }",
            "image \"debian\" { path \"disk.img\" }",
            "network \"lan\" { subnet \"10.0.0.0/24\" }",
            "vm \"web\" template=\"big\" count=2 { image (ref)\"debian\"; depends-on \"db\" }",
            "vm \"db\" template=\"base\" { image (ref)\"debian\"; network \"private\" name=\"lan\" }",
        ];
        let in_order = Site::new(&nodes.join("\n"));
        let (mut main, mut included) = (String::from("include \"more.kdl\"\n"), String::new());
        for number in order {
            let file = if apart[number] { &mut included } else { &mut main };
            file.push_str(nodes[number]);
            file.push('\n');
        }
        let shuffled = Site::new(&main);
        shuffled.file("more.kdl", &included);
        let vms = |site: &Site| {
            let mut vms = site.vms();
            for vm in vms.values_mut() {
                vm.image = None;
            }
            vms
        };
        prop_assert_eq!(vms(&shuffled), vms(&in_order));
        prop_assert_eq!(shuffled.desired().networks, in_order.desired().networks);
    }
}

//! What the planner knows, as pictures.

use std::collections::BTreeMap;

use vmctl_providers::Name;

use super::{Picture, PictureEdge, PictureNode, Tone};
use crate::desired::{Desired, DesiredImage, DesiredVm, Power, Until};
use crate::graph::StepGraph;
use crate::step::{Step, StepKind};

/// Hexadecimal digits of a digest that are shown: enough to tell two images apart.
const SHOWN_DIGITS: usize = 12;

/// The steps of a plan, each with an arrow from every step it waits for.
impl From<&StepGraph> for Picture {
    fn from(graph: &StepGraph) -> Self {
        let edges = graph.steps().flat_map(|(id, _)| {
            let either_way = graph.before_either_way(id);
            graph.before(id).into_iter().map(move |earlier| {
                let label = if either_way.contains(&earlier) { "either way" } else { "" };
                PictureEdge { from: earlier.0, to: id.0, label: label.to_owned() }
            })
        });
        Self {
            title: "steps of the plan".to_owned(),
            nodes: graph.steps().map(|(_, step)| step_node(step)).collect(),
            edges: edges.collect(),
        }
    }
}

/// The machines of a VMFile, each with an arrow from its image and from every machine that comes first.
impl From<&Desired> for Picture {
    fn from(desired: &Desired) -> Self {
        let mut picture = Self { title: format!("machines of {}", desired.project), ..Self::default() };
        let mut images = BTreeMap::new();
        for vm in desired.vms.values() {
            let Some(image) = &vm.image else { continue };
            images.entry(image_key(image)).or_insert_with(|| {
                let node = image_node(image);
                picture.nodes.push(PictureNode { title: desired.secrets.hide(&node.title), ..node });
                picture.nodes.len() - 1
            });
        }
        let first = picture.nodes.len();
        let numbers: BTreeMap<&Name, usize> = desired.vms.keys().zip(first..).collect();
        for (vm, to) in desired.vms.values().zip(first..) {
            picture.nodes.push(vm_node(vm));
            let image = vm.image.as_ref().and_then(|image| images.get(&image_key(image)));
            let image = image.map(|image| (*image, String::new()));
            let dependencies = vm.depends_on.iter().filter_map(|(name, until)| {
                numbers.get(name).map(|number| (*number, until_name(*until).to_owned()))
            });
            let edges = image.into_iter().chain(dependencies);
            picture.edges.extend(edges.map(|(from, label)| PictureEdge { from, to, label }));
        }
        picture
    }
}

fn step_node(step: &Step) -> PictureNode {
    let title = match step.kind {
        StepKind::Provision(number) => format!("{}: provision {number}", step.address),
        StepKind::FetchImage
        | StepKind::Prepare
        | StepKind::Update
        | StepKind::Start
        | StepKind::Resume
        | StepKind::Ready
        | StepKind::Keep
        | StepKind::Suspend
        | StepKind::Stop
        | StepKind::Destroy
        | StepKind::Forget => Step { label: None, ..step.clone() }.to_string(),
    };
    PictureNode { title, subtitle: step.label.clone().unwrap_or_default(), tone: step_tone(step.kind) }
}

fn step_tone(kind: StepKind) -> Tone {
    match kind {
        StepKind::FetchImage | StepKind::Forget => Tone::Muted,
        StepKind::Prepare | StepKind::Start => Tone::Good,
        StepKind::Update
        | StepKind::Ready
        | StepKind::Provision(_)
        | StepKind::Keep
        | StepKind::Suspend
        | StepKind::Resume
        | StepKind::Stop => Tone::Change,
        StepKind::Destroy => Tone::Bad,
    }
}

fn image_node(image: &DesiredImage) -> PictureNode {
    let source = image.source();
    let name = source.rsplit('/').find(|part| !part.is_empty()).unwrap_or(&source);
    let digits = image.digest().map(|digest| digest.hex().get(..SHOWN_DIGITS).unwrap_or(digest.hex()));
    let subtitle = digits.map_or_else(|| "image".to_owned(), |digits| format!("image sha256:{digits}…"));
    PictureNode { title: name.to_owned(), subtitle, tone: Tone::Muted }
}

/// What tells one image from another: its content where that is known, else where it is.
fn image_key(image: &DesiredImage) -> String {
    image.digest().map_or_else(|| image.source(), |digest| digest.hex().to_owned())
}

fn vm_node(vm: &DesiredVm) -> PictureNode {
    let power = match vm.power {
        Power::Running => "",
        Power::Stopped => ", stopped",
        Power::Suspended => ", suspended",
    };
    let plural = if vm.vcpus == 1 { "" } else { "s" };
    PictureNode {
        title: format!("vm.{}", vm.name),
        subtitle: format!("{} vcpu{plural}, {} MiB{power}", vm.vcpus, vm.memory_mib),
        tone: Tone::Neutral,
    }
}

fn until_name(until: Until) -> &'static str {
    match until {
        Until::Started => "started",
        Until::Ready => "ready",
        Until::Provisioned => "provisioned",
    }
}

#[cfg(test)]
mod tests {
    use vmctl_providers::image::ImageIdentity;
    use vmctl_providers::{Digest, ImageFormat};

    use super::*;

    fn vm(name: &str, depends_on: &[(&str, Until)]) -> DesiredVm {
        let identity =
            ImageIdentity { digest: Digest::of("disk"), format: ImageFormat::Qcow2, virtual_size: 1 << 30 };
        let depends_on = depends_on.iter().map(|(name, until)| (name.parse().unwrap(), *until)).collect();
        DesiredVm {
            image: Some(DesiredImage::Local { source: "/images/debian.qcow2".into(), identity }),
            vcpus: 2,
            memory_mib: 512,
            power: if name == "web" { Power::Stopped } else { Power::Running },
            depends_on,
            ..DesiredVm::new(name.parse().unwrap())
        }
    }

    #[test]
    fn arrow_says_where_a_step_begins_either_way() {
        let mut graph = StepGraph::default();
        let [a, b, c] = ["a", "b", "c"].map(|name| {
            let instance = vmctl_providers::InstanceId(uuid::Uuid::nil());
            let address = vmctl_state::Address::vm(name);
            graph.add(Step { kind: StepKind::Prepare, address, instance, label: None })
        });
        graph.order(a, b);
        graph.order_either_way(b, c);
        let edges: Vec<_> =
            Picture::from(&graph).edges.into_iter().map(|edge| (edge.from, edge.to, edge.label)).collect();
        assert_eq!(edges, [(0, 1, String::new()), (1, 2, "either way".to_owned())]);
    }

    #[test]
    fn machines_follow_their_image_and_what_comes_first() {
        let vms = [vm("db", &[]), vm("web", &[("db", Until::Ready)])];
        let desired = Desired {
            vms: vms.map(|vm| (vm.name.clone(), vm)).into(),
            ..Desired::new("shop".parse().unwrap())
        };
        let picture = Picture::from(&desired);
        let lines: Vec<_> =
            picture.nodes.iter().map(|node| (node.title.as_str(), node.subtitle.as_str())).collect();
        let image = format!("image sha256:{}…", &Digest::of("disk").hex()[..SHOWN_DIGITS]);
        let expected = [
            ("debian.qcow2", image.as_str()),
            ("vm.db", "2 vcpus, 512 MiB"),
            ("vm.web", "2 vcpus, 512 MiB, stopped"),
        ];
        assert_eq!(lines, expected);
        let edges: BTreeMap<_, _> =
            picture.edges.iter().map(|edge| ((edge.from, edge.to), edge.label.as_str())).collect();
        assert_eq!(edges, [((0, 1), ""), ((0, 2), ""), ((1, 2), "ready")].into());
    }
}

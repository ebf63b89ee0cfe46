//! The second pass, its first half: what is written once and meant for several machines is put in its place, until
//! nothing is left but machines whose values stand where they are used.

mod evaluate;
mod layers;
mod variables;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use miette::SourceSpan;

use super::ast::{Node, Scalar, Spanned, Value};
use super::fields::{Fields, shorten};
use super::grammar::{
    DEFAULTS, DESCRIPTION, NAMED_IMAGE, OUTPUT, PRIVATE_NETWORK, TEMPLATE, VARIABLE, VM, VM_BLOCK, VOLUME,
};
use super::report::Fault;
use super::suggest::{article, nearest};
use super::typed::Output;
use crate::values::Values;
use evaluate::{Instance, Scope};
use layers::merge;

/// What is given from outside for the variables of a VMFile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given {
    /// `--var`: names and values, the later ones win.
    pub values: Vec<(String, String)>,
    /// `--var-file`: files of names and values, the later ones win.
    pub files: Vec<std::path::PathBuf>,
    /// Values that a saved plan was made with; only `--var` and `--var-file` win over them.
    pub saved: BTreeMap<String, String>,
    /// The environment, as far as it is text.
    pub environment: BTreeMap<String, String>,
    /// What the lock file is good for.
    pub pins: crate::vmfile::Pins,
}

/// A VMFile with nothing left to substitute.
#[derive(Debug, Default)]
pub(super) struct Expanded {
    /// Machines, and all nodes that are no definitions.
    pub(super) nodes: Vec<Node>,
    /// What is made only to be checked: templates and defaults, as if a machine were made of them alone.
    pub(super) samples: Vec<Node>,
    /// The machines that a `vm` with a count stands for, by its name.
    pub(super) groups: BTreeMap<String, Vec<String>>,
    pub(super) outputs: Vec<Output>,
    /// Values that nothing printed or kept may show.
    pub(super) secrets: Vec<String>,
    /// Where such values are written.
    pub(super) hidden: Vec<SourceSpan>,
    /// What was given from outside.
    pub(super) values: Values,
    pub(super) faults: Vec<Fault>,
}

/// Expands the nodes of a whole VMFile. `values` are the nodes of the files of values, `project` is the project's name.
pub(super) fn expand(nodes: &[Node], values: &[Vec<Node>], given: &Given, project: &str) -> Expanded {
    let mut fields = Fields::default();
    let variables = variables::read(nodes, values, given, &mut fields);
    let secrets = variables.values().filter_map(variables::Variable::secret).collect();
    let hidden = variables::written_secrets(nodes, values, &variables);
    let mut expander = Expander {
        templates: templates(nodes, &mut fields),
        used: BTreeSet::new(),
        defaults: nodes.iter().find(|node| node.name.value == DEFAULTS.name).map_or(&[], block),
        scope: Scope::new(variables, &given.environment, project),
        fields,
        expanded: Expanded { secrets, hidden, ..Expanded::default() },
    };
    expander.run(nodes);
    let Expander { mut expanded, fields, scope, .. } = expander;
    expanded.values = scope.values();
    expanded.faults = fields.faults;
    expanded.faults.extend(scope.into_faults());
    expanded
}

fn block(node: &Node) -> &[Node] {
    node.children.as_deref().unwrap_or_default()
}

/// The name that a definition has by its first argument.
pub(super) fn name_of(node: &Node) -> Option<Spanned<&str>> {
    let value = node.args.first()?;
    match &value.scalar {
        Scalar::Text(text) if value.annotation.is_none() => Some(Spanned { value: text, span: value.span }),
        _ => None,
    }
}

/// The definitions of one kind by name; one of several of a name is told and left out.
fn definitions<'n>(
    nodes: &'n [Node],
    kind: &str,
    what: &str,
    usage: &str,
    fields: &mut Fields,
) -> Vec<(Spanned<&'n str>, &'n Node)> {
    let mut first: HashMap<&str, Spanned<&str>> = HashMap::new();
    let mut kept = Vec::new();
    for node in nodes.iter().filter(|node| node.name.value == kind) {
        let Some(name) = name_of(node) else {
            // Where only plain values can stand, an annotation was told already.
            let is_told = kind != OUTPUT.name && node.args.iter().any(|value| value.annotation.is_some());
            if !is_told {
                fields.tell(unnamed(node, what, usage));
            }
            continue;
        };
        let text = Spanned { value: name.value.to_owned(), span: name.span };
        if fields.name(what, text).is_none() {
            continue;
        }
        if let Some(earlier) = first.get(name.value) {
            fields.tell(
                Fault::error("vmfile::duplicate", format!("the {what} `{}` is written twice", name.value))
                    .at(name.span, "again here")
                    .at(earlier.span, "first here")
                    .help(format!("give each {what} a name of its own")),
            );
            continue;
        }
        first.insert(name.value, name.clone());
        kept.push((name, node));
    }
    kept
}

/// A definition whose name is missing, or no plain text.
fn unnamed(node: &Node, what: &str, usage: &str) -> Fault {
    let fault = match node.args.first() {
        Some(value) => {
            Fault::error("vmfile::bad-name", format!("the name of {} is a plain text", article(what)))
                .at(value.span, "not a plain text")
        }
        None => Fault::error("vmfile::missing", format!("{} has no name", article(what)))
            .at(node.name.span, "a name must follow"),
    };
    fault.help(format!("write {usage}"))
}

fn templates<'n>(nodes: &'n [Node], fields: &mut Fields) -> BTreeMap<&'n str, &'n Node> {
    let found = definitions(nodes, TEMPLATE.name, "template", TEMPLATE.usage, fields);
    found.into_iter().map(|(name, node)| (name.value, node)).collect()
}

struct Expander<'n> {
    templates: BTreeMap<&'n str, &'n Node>,
    /// Templates that a machine is made of, directly or not.
    used: BTreeSet<&'n str>,
    defaults: &'n [Node],
    scope: Scope<'n>,
    fields: Fields,
    expanded: Expanded,
}

impl<'n> Expander<'n> {
    fn run(&mut self, nodes: &'n [Node]) {
        for node in nodes {
            match node.name.value.as_str() {
                name if name == VM.name => self.vm(node),
                name if [NAMED_IMAGE.name, PRIVATE_NETWORK.name, VOLUME.name].contains(&name) => {
                    let whole = self.scope.node(node, &Instance::default());
                    self.expanded.nodes.push(whole);
                }
                name if [TEMPLATE.name, DEFAULTS.name, VARIABLE.name, OUTPUT.name].contains(&name) => {}
                _ => self.expanded.nodes.push(node.clone()),
            }
        }
        for (name, node) in definitions(nodes, OUTPUT.name, "output", OUTPUT.usage, &mut self.fields) {
            self.output(&name, node);
        }
        self.samples(nodes);
        self.unused();
    }

    fn vm(&mut self, node: &'n Node) {
        let chain = self.chain(node, None);
        let mut layers = vec![self.defaults];
        layers.extend(chain.iter().rev().map(|template| block(template)));
        layers.push(block(node));
        let children = merge(VM_BLOCK, &layers);
        let merged = Node {
            name: node.name.clone(),
            annotation: None,
            args: node.args.clone(),
            props: Vec::new(),
            children: (node.children.is_some() || !children.is_empty()).then_some(children),
            sound: node.sound && chain.iter().all(|template| template.sound),
        };
        let Some(count) = node.props.iter().find(|(key, _)| key.value == "count").map(|(_, value)| value)
        else {
            let machine = self.instance(&merged, &Instance::default(), false);
            return self.expanded.nodes.push(machine);
        };
        let Some(count) = self.count(count) else { return };
        if count == 0 {
            // What is wrong with its block is told all the same.
            let instance = Instance { index: Some(1), name: Some("name".to_owned()) };
            let block = self.scope.node(&Node { args: Vec::new(), ..merged.clone() }, &instance);
            self.expanded.samples.push(block);
        }
        let has_own_names = node.args.first().is_some_and(evaluate::mentions_index);
        let mut names = Vec::new();
        for index in 1..=count {
            let instance = Instance { index: Some(index), ..Instance::default() };
            let machine = self.instance(&merged, &instance, !has_own_names);
            names.extend(name_of(&machine).map(|name| name.value.to_owned()));
            self.expanded.nodes.push(machine);
        }
        let written = node.args.first().and_then(|name| self.scope.quietly(name));
        if let Some(Scalar::Text(name)) = written.filter(|_| !has_own_names).map(|name| name.scalar) {
            self.expanded.groups.entry(name).or_default().extend(names);
        }
    }

    fn count(&mut self, written: &Value) -> Option<u64> {
        let value = self.scope.value(written, &Instance::default())?;
        let prop = VM.prop("count")?;
        self.fields.whole("count", &value, prop.kind, "`vm \"web\" count=3 { … }`").map(|count| count.value)
    }

    /// One machine of `merged`, with everything evaluated.
    fn instance(&mut self, merged: &Node, instance: &Instance, is_numbered: bool) -> Node {
        let mut name = merged.args.first().map(|name| self.scope.value(name, instance));
        if let (Some(Some(name)), Some(index)) = (&mut name, instance.index.filter(|_| is_numbered))
            && let Scalar::Text(text) = &mut name.scalar
        {
            *text = format!("{text}-{index}");
        }
        let text = name.as_ref().and_then(Option::as_ref).and_then(|name| match &name.scalar {
            Scalar::Text(text) => Some(text.clone()),
            _ => None,
        });
        let instance = Instance { name: text, ..instance.clone() };
        let children = merged
            .children
            .as_ref()
            .map(|children| children.iter().map(|child| self.scope.node(child, &instance)).collect());
        let sound = merged.sound && !matches!(name, Some(None));
        Node {
            name: merged.name.clone(),
            annotation: None,
            args: name.flatten().into_iter().collect(),
            props: Vec::new(),
            children,
            sound,
        }
    }

    /// The templates that `node` is made of, the nearest first. A circle is told by the first of its templates alone,
    /// `owner` being the template that `node` is.
    fn chain(&mut self, node: &'n Node, owner: Option<&str>) -> Vec<&'n Node> {
        let mut chain: Vec<(&'n str, &'n Node)> = Vec::new();
        let mut next = self.base(node);
        while let Some((name, value)) = next {
            let known = self.templates.get_key_value(name).map(|(name, node)| (*name, *node));
            let Some((name, template)) = known else {
                self.unknown_template(name, value);
                break;
            };
            self.used.insert(name);
            if let Some(start) = chain.iter().position(|(earlier, _)| *earlier == name) {
                let names: Vec<_> = chain[start..].iter().map(|(name, _)| *name).collect();
                if owner.is_some() && names.iter().min().copied() == owner {
                    let message =
                        format!("templates are made of each other: {} -> {name}", names.join(" -> "));
                    self.fields.tell(
                        Fault::error("vmfile::cycle", message)
                            .at(value.span, "closes the circle")
                            .help("remove one of these `template=`"),
                    );
                }
                break;
            }
            chain.push((name, template));
            next = self.base(template);
        }
        chain.into_iter().map(|(_, node)| node).collect()
    }

    /// The template that `node` names.
    fn base(&mut self, node: &'n Node) -> Option<(&'n str, &'n Value)> {
        let value = node.props.iter().find(|(key, _)| key.value == "template").map(|(_, value)| value)?;
        match &value.scalar {
            Scalar::Text(_) if value.annotation.is_some() => None,
            Scalar::Text(text) => Some((text, value)),
            _ => {
                self.fields.text("template", value, "`vm \"web\" template=\"base\"`");
                None
            }
        }
    }

    fn unknown_template(&mut self, name: &str, value: &Value) {
        let help = match nearest(name, self.templates.keys().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write it at the top level: `template \"{}\" {{ … }}`", shorten(name)),
        };
        self.fields.tell(
            Fault::error("vmfile::unknown-reference", format!("there is no template `{}`", shorten(name)))
                .at(value.span, "not known")
                .help(help),
        );
    }

    fn output(&mut self, name: &Spanned<&str>, node: &'n Node) {
        let Some(written) = node.args.get(1) else {
            self.fields.tell(
                Fault::error("vmfile::missing", format!("the output `{}` says nothing", name.value))
                    .at(name.span, "a text must follow")
                    .help(format!("write {}", OUTPUT.usage)),
            );
            return;
        };
        let parts = self.scope.output(written);
        let Some(name) = name.value.parse().ok().map(|value| Spanned { value, span: name.span }) else {
            return;
        };
        let description = block(node).iter().find(|node| node.name.value == DESCRIPTION.name);
        let description = description.map(|node| self.scope.node(node, &Instance::default()));
        let description = description.and_then(|node| self.fields.leaf_text(&node, &DESCRIPTION));
        let Some(parts) = parts else { return };
        let parts = Spanned { value: parts, span: written.span };
        self.expanded.outputs.push(Output { name, description: description.map(|text| text.value), parts });
    }

    /// Templates and defaults alone: what is wrong with them is told even where no machine shows it.
    fn samples(&mut self, nodes: &'n [Node]) {
        let instance = Instance { index: Some(1), name: Some("name".to_owned()) };
        for node in
            nodes.iter().filter(|node| [TEMPLATE.name, DEFAULTS.name].contains(&node.name.value.as_str()))
        {
            let sample =
                self.scope.node(&Node { props: Vec::new(), args: Vec::new(), ..node.clone() }, &instance);
            self.expanded.samples.push(sample);
            let owner = name_of(node).map(|name| name.value.to_owned());
            self.chain(node, owner.as_deref());
        }
    }

    /// Warns of what nothing refers to.
    fn unused(&mut self) {
        for (name, node) in &self.templates {
            if !self.used.contains(name)
                && let Some(name) = name_of(node)
            {
                self.fields.tell(unused(
                    "template",
                    &name,
                    &format!("`vm \"…\" template=\"{}\"`", name.value),
                ));
            }
        }
        for name in self.scope.unused() {
            let name = Spanned { value: name.value.as_str(), span: name.span };
            self.fields.tell(unused("variable", &name, &format!("`(var)\"{}\"`", name.value)));
        }
    }
}

/// A warning of a definition that nothing refers to; `use_it` is how it would be referred to.
pub(super) fn unused(what: &str, name: &Spanned<&str>, use_it: &str) -> Fault {
    Fault::warning("vmfile::unused", format!("the {what} `{}` is never used", name.value))
        .at(name.span, "not used")
        .help(format!("remove it, or use it: {use_it}"))
        .unless_wrong()
}

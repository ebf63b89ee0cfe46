//! Values in the place of what refers to them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use miette::SourceSpan;
use vmctl_providers::{Name, Secret};

use super::variables::Variable;
use crate::desired::{Attribute, OutputPart};
use crate::values::Values;
use crate::vmfile::ast::{Node, Origin, Scalar, Spanned, Value};
use crate::vmfile::fields::shorten;
use crate::vmfile::interpolate::{Piece, split};
use crate::vmfile::report::Fault;
use crate::vmfile::shape::{ENV, REF, TEMPLATE, VAR};
use crate::vmfile::suggest::nearest;

/// What one machine adds to what can be referred to.
#[derive(Debug, Clone, Default)]
pub(super) struct Instance {
    /// Its number among the machines of one `vm`, from 1.
    pub(super) index: Option<u64>,
    /// Its name.
    pub(super) name: Option<String>,
}

/// Everything that can be referred to.
pub(super) struct Scope<'n> {
    variables: BTreeMap<String, Variable>,
    used: HashSet<String>,
    environment: &'n BTreeMap<String, String>,
    used_environment: BTreeMap<String, Secret>,
    project: &'n str,
    faults: Vec<Fault>,
}

impl<'n> Scope<'n> {
    pub(super) fn new(
        variables: BTreeMap<String, Variable>,
        environment: &'n BTreeMap<String, String>,
        project: &'n str,
    ) -> Self {
        let (used, used_environment) = (HashSet::new(), BTreeMap::new());
        Self { variables, used, environment, used_environment, project, faults: Vec::new() }
    }

    pub(super) fn into_faults(self) -> Vec<Fault> {
        self.faults
    }

    /// What was given from outside: all variables, and what was referred to of the environment.
    pub(super) fn values(&self) -> Values {
        let variables =
            self.variables.iter().filter_map(|(name, variable)| Some((name.clone(), variable.given()?)));
        Values { variables: variables.collect(), environment: self.used_environment.clone() }
    }

    /// The variables that nothing referred to so far.
    pub(super) fn unused(&self) -> Vec<Spanned<String>> {
        let variables = self.variables.iter().filter(|(name, _)| !self.used.contains(*name));
        variables.map(|(name, variable)| Spanned { value: name.clone(), span: variable.span }).collect()
    }

    /// `node` with all its values evaluated. What cannot be is told and left out.
    pub(super) fn node(&mut self, node: &Node, instance: &Instance) -> Node {
        let mut sound = node.sound;
        let mut args = Vec::with_capacity(node.args.len());
        for value in &node.args {
            match self.value(value, instance) {
                Some(value) => args.push(value),
                None => sound = false,
            }
        }
        let mut props = Vec::with_capacity(node.props.len());
        for (key, value) in &node.props {
            match self.value(value, instance) {
                Some(value) => props.push((key.clone(), value)),
                None => sound = false,
            }
        }
        let block = |children: &Vec<Node>| children.iter().map(|child| self.node(child, instance)).collect();
        let children = node.children.as_ref().map(block);
        Node { name: node.name.clone(), annotation: None, args, props, children, sound }
    }

    /// What `value` means; `None` if that was told to be nothing.
    pub(super) fn value(&mut self, value: &Value, instance: &Instance) -> Option<Value> {
        let Some(annotation) = &value.annotation else {
            self.plain(value);
            return Some(value.clone());
        };
        let Scalar::Text(text) = &value.scalar else { return None };
        if text.trim().is_empty() {
            // Told where it is written.
            return None;
        }
        match annotation.value.as_str() {
            VAR => {
                let variable = self.variable(text, value.span)?;
                let (scalar, origin) = (variable.value.clone()?, variable.origin(text));
                Some(Value { scalar, span: value.span, annotation: None, origin: Some(Arc::new(origin)) })
            }
            ENV => {
                let text = self.env(text, value.span)?;
                Some(loose(text.0, value.span, text.1))
            }
            TEMPLATE => {
                let text = self.interpolate(text, value.span, instance)?;
                Some(loose(text, value.span, "the template's text".to_owned()))
            }
            // References are followed by those who know what they refer to.
            REF => Some(value.clone()),
            // Told where it is written.
            _ => None,
        }
    }

    /// Warns of a text that looks like a template and is none.
    fn plain(&mut self, value: &Value) {
        let Scalar::Text(text) = &value.scalar else { return };
        if !text.contains("{{") {
            return;
        }
        let is_meant = |piece: &Piece| match piece {
            Piece::Text(_) => false,
            Piece::Name(name) => {
                name.strip_prefix("var.").is_some_and(|name| self.variables.contains_key(name))
                    || name.starts_with("vm.")
            }
        };
        if split(text).is_ok_and(|pieces| pieces.iter().any(is_meant)) {
            self.faults.push(
                Fault::warning("vmfile::template", "what stands between `{{` and `}}` is not replaced here")
                    .at(value.span, "a plain text")
                    .help("write `(template)` in front of it"),
            );
        }
    }

    /// What `value` means for all machines alike; faults were told, or will be.
    pub(super) fn quietly(&mut self, value: &Value) -> Option<Value> {
        let told = self.faults.len();
        let value = self.value(value, &Instance::default());
        self.faults.truncate(told);
        value
    }

    /// The parts of an output.
    pub(super) fn output(&mut self, value: &Value) -> Option<Vec<OutputPart>> {
        let is_template = value.annotation.as_ref().is_some_and(|annotation| annotation.value == TEMPLATE);
        if !is_template {
            let text = match self.value(value, &Instance::default())?.scalar {
                Scalar::Text(text) => text,
                Scalar::Integer(number) => number.to_string(),
                Scalar::Bool(truth) => truth.to_string(),
                Scalar::Float(_) | Scalar::Null => {
                    let fault = Fault::error("vmfile::wrong-type", "an output is a text");
                    self.faults.push(fault.at(value.span, "not a text").help("write it in quotation marks"));
                    return None;
                }
            };
            return Some(vec![OutputPart::Text(text)]);
        }
        let Scalar::Text(text) = &value.scalar else { return None };
        let pieces = self.pieces(text, value.span)?;
        let parts = pieces.into_iter().map(|piece| match piece {
            Piece::Text(text) => Some(OutputPart::Text(text)),
            Piece::Name(name) => match name.strip_prefix("vm.") {
                Some(rest) => self.attribute(&name, rest, value.span),
                None => self.name(&name, value.span, &Instance::default(), true).map(OutputPart::Text),
            },
        });
        // Each part is looked at, even after one that failed.
        parts.collect::<Vec<_>>().into_iter().collect()
    }

    fn attribute(&mut self, name: &str, rest: &str, span: SourceSpan) -> Option<OutputPart> {
        let (machine, attribute) = match rest.rsplit_once('.') {
            Some((machine, "host")) => (machine, Some(Attribute::Host)),
            Some((machine, "ip")) => (machine, Some(Attribute::Ip)),
            Some((machine, "user")) => (machine, Some(Attribute::User)),
            Some((machine, "ssh-port")) => (machine, Some(Attribute::SshPort)),
            Some((rest, port)) => match (rest.rsplit_once('.'), port.parse()) {
                (Some((machine, "port")), Ok(port)) if port > 0 => (machine, Some(Attribute::Port(port))),
                _ => (rest, None),
            },
            None => (rest, None),
        };
        let machine = machine.parse::<Name>().ok();
        let Some((vm, attribute)) = machine.zip(attribute) else {
            self.faults.push(
                Fault::error("vmfile::template", format!("`{}` says nothing about a machine", shorten(name)))
                    .at(span, "in this text")
                    .help("write `vm.web.host`, `vm.web.port.80`, `vm.web.ssh-port`, `vm.web.user` or `vm.web.ip`"),
            );
            return None;
        };
        Some(OutputPart::Attribute { vm, attribute })
    }

    fn interpolate(&mut self, text: &str, span: SourceSpan, instance: &Instance) -> Option<String> {
        let pieces = self.pieces(text, span)?;
        let parts = pieces.into_iter().map(|piece| match piece {
            Piece::Text(text) => Some(text),
            Piece::Name(name) => self.name(&name, span, instance, false),
        });
        parts.collect::<Vec<_>>().into_iter().collect()
    }

    fn pieces(&mut self, text: &str, span: SourceSpan) -> Option<Vec<Piece>> {
        split(text)
            .map_err(|wrong| {
                let help = "write `{{ index }}`, `{{ name }}`, `{{ var.size }}` or the like; `{{ '{{' }}` stands for two braces";
                self.faults.push(Fault::error("vmfile::template", wrong).at(span, "this text").help(help));
            })
            .ok()
    }

    /// What a name within a template means.
    fn name(&mut self, name: &str, span: SourceSpan, instance: &Instance, is_output: bool) -> Option<String> {
        let fault = |message: String, help: String| {
            Fault::error("vmfile::template", message).at(span, "in this text").help(help)
        };
        let fault = match (name, name.split_once('.')) {
            (_, Some(("var", variable))) if !variable.is_empty() => {
                let variable = self.variable(variable, span)?;
                return match variable.value.clone()? {
                    Scalar::Text(text) => Some(text),
                    Scalar::Integer(number) => Some(number.to_string()),
                    Scalar::Bool(truth) => Some(truth.to_string()),
                    Scalar::Float(_) | Scalar::Null => None,
                };
            }
            (_, Some(("env", variable))) if !variable.is_empty() => {
                return self.env(variable, span).map(|(text, _)| text);
            }
            ("project", _) => return Some(self.project.to_owned()),
            ("index", _) if instance.index.is_some() => return instance.index.map(|index| index.to_string()),
            ("name", _) if instance.name.is_some() => return instance.name.clone(),
            ("index", _) => fault(
                "`index` has no value here".to_owned(),
                "only the machines of a `vm` with a `count` have one: `vm \"web\" count=3 { … }`".to_owned(),
            ),
            ("name", _) => fault(
                "`name` has no value here".to_owned(),
                "it is the machine's name, within its block".to_owned(),
            ),
            (_, Some(("vm", _))) => fault(
                format!("`{}` is known only when the machine runs", shorten(name)),
                "it can stand in an `output`".to_owned(),
            ),
            _ => {
                let known = ["index", "name", "project"];
                let is_variable = self.variables.contains_key(name);
                let help = match nearest(name, known) {
                    _ if is_variable => format!("write `{{{{ var.{name} }}}}` for the variable"),
                    Some(near) => format!("did you mean `{near}`?"),
                    None if is_output => {
                        "known here: `project`, `var.NAME`, `env.NAME`, `vm.NAME.host` and the like"
                            .to_owned()
                    }
                    None => "known here: `index`, `name`, `project`, `var.NAME` and `env.NAME`".to_owned(),
                };
                fault(format!("there is nothing of the name `{}`", shorten(name)), help)
            }
        };
        self.faults.push(fault);
        None
    }

    fn variable(&mut self, name: &str, span: SourceSpan) -> Option<&Variable> {
        if !self.variables.contains_key(name) {
            let help = match nearest(name, self.variables.keys().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    format!("write it at the top level: `variable \"{}\" {{ default … }}`", shorten(name))
                }
            };
            self.faults.push(
                Fault::error(
                    "vmfile::unknown-reference",
                    format!("there is no variable `{}`", shorten(name)),
                )
                .at(span, "not known")
                .help(help),
            );
            return None;
        }
        self.used.insert(name.to_owned());
        self.variables.get(name)
    }

    /// The value of an environment variable, and what it is in words.
    fn env(&mut self, name: &str, span: SourceSpan) -> Option<(String, String)> {
        let what = format!("the environment variable `{}`", shorten(name));
        if let Some(text) = self.environment.get(name) {
            self.used_environment.insert(name.to_owned(), Secret::new(text));
            return Some((text.clone(), what));
        }
        let help = match nearest(name, self.environment.keys().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`? Else set it: {}=…", shorten(name)),
            None => format!("set it, `{}=… vmctl plan`; a `variable` can have a default", shorten(name)),
        };
        self.faults.push(
            Fault::error("vmfile::variable", format!("{what} is not set"))
                .at(span, "has no value")
                .help(help),
        );
        None
    }
}

fn loose(text: String, span: SourceSpan, what: String) -> Value {
    let origin = Origin { what, span: None, is_loose: true };
    Value { scalar: Scalar::Text(text), span, annotation: None, origin: Some(Arc::new(origin)) }
}

/// Whether `value` is a template that differs from machine to machine by their numbers.
pub(super) fn mentions_index(value: &Value) -> bool {
    let is_template = value.annotation.as_ref().is_some_and(|annotation| annotation.value == TEMPLATE);
    let Scalar::Text(text) = &value.scalar else { return false };
    is_template && split(text).is_ok_and(|pieces| pieces.contains(&Piece::Name("index".to_owned())))
}

//! Variables: what they may hold, and what they hold in this run.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use miette::SourceSpan;
use vmctl_providers::Secret;

use super::{Given, definitions};
use crate::values::VariableValue;
use crate::vmfile::ast::{Node, Origin, Scalar, Spanned, Value};
use crate::vmfile::fields::{Fields, Parts, describe, shorten};
use crate::vmfile::grammar::{
    DESCRIPTION, ONE_OF, SENSITIVE, VARIABLE, VARIABLE_DEFAULT, VARIABLE_TYPE, VARIABLE_TYPES, VariableType,
};
use crate::vmfile::report::Fault;
use crate::vmfile::suggest::nearest;

/// Environment variables that give values begin so.
const PREFIX: &str = "VMCTL_VAR_";

/// Shorter texts occur everywhere, so that they cannot be hidden.
const SHORTEST_SECRET: usize = 4;

/// A variable and what it holds.
#[derive(Debug)]
pub(super) struct Variable {
    /// Its name in its definition.
    pub(super) span: SourceSpan,
    /// What it holds; `None` where a fault was told.
    pub(super) value: Option<Scalar>,
    /// Where that comes from.
    source: Source,
    is_sensitive: bool,
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Default(SourceSpan),
    Option,
    File(SourceSpan),
    Saved,
    Environment,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default(_) => "its default",
            Self::Option => "given by `--var`",
            Self::File(_) => "given by `--var-file`",
            Self::Saved => "of the saved plan",
            Self::Environment => "given by the environment",
        })
    }
}

impl Variable {
    /// Where its value was taken from, for messages.
    pub(super) fn origin(&self, name: &str) -> Origin {
        let (what, span) = match self.source {
            Source::Default(span) | Source::File(span) => {
                (format!("the variable `{name}`"), Some(span).filter(|_| !self.is_sensitive))
            }
            Source::Option | Source::Saved | Source::Environment => {
                (format!("the variable `{name}`, {}", self.source), None)
            }
        };
        Origin { what, span, is_loose: matches!(self.value, Some(Scalar::Text(_))) }
    }

    /// Its value as it is given from outside.
    pub(super) fn given(&self) -> Option<VariableValue> {
        let text = shown(self.value.as_ref()?);
        Some(if self.is_sensitive {
            VariableValue::Sensitive(Secret::new(text))
        } else {
            VariableValue::Plain(text)
        })
    }

    /// Its value, if nothing printed may show it.
    pub(super) fn secret(&self) -> Option<String> {
        match &self.value {
            Some(Scalar::Text(text)) if self.is_sensitive => Some(text.clone()),
            _ => None,
        }
    }
}

/// The variables that `nodes` define, with the values that are given for them.
pub(super) fn read(
    nodes: &[Node],
    files: &[Vec<Node>],
    given: &Given,
    fields: &mut Fields,
) -> BTreeMap<String, Variable> {
    let defined = definitions(nodes, VARIABLE.name, "variable", VARIABLE.usage, fields);
    let known: Vec<&str> = defined.iter().map(|(name, _)| name.value).collect();
    // Later files take the place of earlier ones.
    let in_files: HashMap<&str, &Node> =
        files.iter().flatten().map(|node| (node.name.value.as_str(), node)).collect();
    for (name, _) in given.values.iter().filter(|(name, _)| !known.contains(&name.as_str())) {
        let fault = Fault::error(
            "vmfile::variable",
            format!("`--var` names `{}`, which the VMFile does not know", shorten(name)),
        );
        fields.tell(fault.help(unknown(name, &known)));
    }
    for node in files.iter().flatten().filter(|node| !known.contains(&node.name.value.as_str())) {
        let name = &node.name;
        fields.tell(
            Fault::warning(
                "vmfile::variable",
                format!("the VMFile knows no variable `{}`", shorten(&name.value)),
            )
            .at(name.span, "not used")
            .help(unknown(&name.value, &known)),
        );
    }
    let variables = defined.iter().map(|(name, node)| {
        let definition = Definition::read(name, node, fields);
        (name.value.to_owned(), definition.variable(&in_files, given, fields))
    });
    variables.collect()
}

/// Where values of sensitive variables are written, whether or not they can be used.
pub(super) fn written_secrets(
    nodes: &[Node],
    files: &[Vec<Node>],
    variables: &BTreeMap<String, Variable>,
) -> Vec<SourceSpan> {
    let is_sensitive = |name: &str| variables.get(name).is_some_and(|variable| variable.is_sensitive);
    let defined = nodes.iter().filter(|node| node.name.value == VARIABLE.name);
    let defined = defined.filter(|node| super::name_of(node).is_some_and(|name| is_sensitive(name.value)));
    let defaults = defined.flat_map(super::block).filter(|node| node.name.value == VARIABLE_DEFAULT.name);
    let given = files.iter().flatten().filter(|node| is_sensitive(&node.name.value));
    defaults.chain(given).flat_map(|node| &node.args).map(|value| value.span).collect()
}

fn unknown(name: &str, known: &[&str]) -> String {
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "it has no `variable` at all".to_owned(),
        None => format!("known here: {}", crate::vmfile::suggest::list(known, "and")),
    }
}

/// A variable as it is defined.
struct Definition<'n> {
    name: &'n Spanned<&'n str>,
    kind: VariableType,
    default: Option<Value>,
    one_of: Vec<Scalar>,
    description: Option<String>,
    is_sensitive: bool,
    /// Something was wrong with the definition itself, so that no value is worth judging.
    is_sound: bool,
}

impl<'n> Definition<'n> {
    fn read(name: &'n Spanned<&'n str>, node: &'n Node, fields: &mut Fields) -> Self {
        let told = fields.faults.len();
        let parts = Parts::of(node);
        let written = parts.child(VARIABLE_TYPE.name).and_then(|node| fields.leaf_text(node, &VARIABLE_TYPE));
        let written =
            written.and_then(|text| fields.choice("type", &text, &VARIABLE_TYPES)).map(|kind| kind.value);
        let default = parts.child(VARIABLE_DEFAULT.name);
        let default =
            default.and_then(|node| fields.only_value(&Parts::of(node), &VARIABLE_DEFAULT)).cloned();
        let one_of: Vec<Value> = parts.child(ONE_OF.name).map_or_else(Vec::new, |node| {
            fields.only_value(&Parts::of(node), &ONE_OF);
            node.args.clone()
        });
        let guessed = default.iter().chain(&one_of).find_map(|value| kind_of(&value.scalar));
        let kind = written.or(guessed).unwrap_or(VariableType::Text);
        let description = parts.child(DESCRIPTION.name).and_then(|node| fields.leaf_text(node, &DESCRIPTION));
        let sensitive = parts.child(SENSITIVE.name);
        let is_sensitive = sensitive.is_some_and(|node| fields.flag(node, &SENSITIVE));
        for value in default.iter().chain(&one_of).filter(|value| kind_of(&value.scalar) != Some(kind)) {
            let (message, help) = match kind_of(&value.scalar) {
                None => (
                    format!("the variable `{}` cannot hold {}", name.value, describe(value)),
                    "a variable holds a text, a whole number, or #true or #false: write it in quotation marks",
                ),
                Some(_) => (
                    format!(
                        "the variable `{}` holds {}, not {}",
                        name.value,
                        in_words(kind),
                        describe(value)
                    ),
                    "all values of a variable have one type: text, number or bool",
                ),
            };
            fields.tell(
                Fault::error("vmfile::wrong-type", message).at(value.span, "of another type").help(help),
            );
        }
        if let Some(sensitive) = sensitive.filter(|_| is_sensitive && kind != VariableType::Text) {
            let message = format!("the variable `{}` is sensitive and holds {}", name.value, in_words(kind));
            fields.tell(
                Fault::error("vmfile::variable", message)
                    .at(sensitive.name.span, "only texts can be hidden")
                    .help("make it a text, `type \"text\"`; it can stand for a number all the same"),
            );
        }
        if let Some(default) = default.as_ref().filter(|_| is_sensitive) {
            fields.tell(
                Fault::warning(
                    "vmfile::variable",
                    format!("the variable `{}` is sensitive, and its value stands here", name.value),
                )
                .at(default.span, "readable for everybody who reads this file")
                .help(format!(
                    "take the default out, and give the value by {PREFIX}{}",
                    in_environment(name.value)
                )),
            );
        }
        Self {
            name,
            kind,
            default,
            one_of: one_of.into_iter().map(|value| value.scalar).collect(),
            description: description.map(|text| text.value),
            is_sensitive,
            is_sound: node.sound && !fields.faults[told..].iter().any(Fault::is_error),
        }
    }

    /// The variable with its value of this run.
    fn variable(&self, files: &HashMap<&str, &Node>, given: &Given, fields: &mut Fields) -> Variable {
        let (value, source) = self.found(files, given, fields).unwrap_or((None, Source::Option));
        let value = value.filter(|_| self.is_sound).filter(|value| self.is_allowed(value, source, fields));
        Variable { span: self.name.span, value, source, is_sensitive: self.is_sensitive }
    }

    /// The value of the first place that gives one, `None` within where it cannot be read.
    fn found(
        &self,
        files: &HashMap<&str, &Node>,
        given: &Given,
        fields: &mut Fields,
    ) -> Option<(Option<Scalar>, Source)> {
        let name = self.name.value;
        if let Some((_, text)) = given.values.iter().rev().find(|(given, _)| given == name) {
            return Some((self.parsed(text, Source::Option, fields), Source::Option));
        }
        if let Some(node) = files.get(name) {
            let source = Source::File(node.args.first().map_or(node.name.span, |value| value.span));
            let value = fields.only_value(&Parts::of(node), &crate::vmfile::grammar::VALUE)?;
            if kind_of(&value.scalar) == Some(self.kind) {
                return Some((Some(value.scalar.clone()), source));
            }
            let message =
                format!("the variable `{name}` takes {}, not {}", in_words(self.kind), self.described(value));
            let help = if self.kind == VariableType::Text {
                "write it in quotation marks"
            } else {
                "write it without quotation marks"
            };
            let fault = Fault::error("vmfile::variable", message).help(help);
            let fault = if self.is_sensitive { fault } else { fault.at(value.span, "of another type") };
            fields.tell(fault.at(self.name.span, "defined here"));
            return Some((None, source));
        }
        if let Some(text) = given.saved.get(name) {
            return Some((self.parsed(text, Source::Saved, fields), Source::Saved));
        }
        let in_environment = [name.to_owned(), in_environment(name)];
        let text = in_environment.iter().find_map(|name| given.environment.get(&format!("{PREFIX}{name}")));
        if let Some(text) = text {
            return Some((self.parsed(text, Source::Environment, fields), Source::Environment));
        }
        if let Some(default) = &self.default {
            return Some((Some(default.scalar.clone()), Source::Default(default.span)));
        }
        if self.is_sound {
            let what =
                self.description.as_ref().map_or_else(String::new, |text| format!(" ({})", shorten(text)));
            let by_default = match self.is_sensitive {
                true if !given.saved.is_empty() => ": a saved plan keeps no sensitive value",
                true => "",
                false => "; a `default` would do as well",
            };
            fields.tell(
                Fault::error("vmfile::variable", format!("the variable `{name}`{what} has no value"))
                    .at(self.name.span, "needs a value")
                    .help(format!("pass `--var {name}=…` or set {PREFIX}{}{by_default}", in_environment[1])),
            );
        }
        None
    }

    /// What a text from outside means.
    fn parsed(&self, text: &str, source: Source, fields: &mut Fields) -> Option<Scalar> {
        let scalar = match self.kind {
            VariableType::Text => Some(Scalar::Text(text.to_owned())),
            VariableType::Number => text.trim().parse().ok().map(Scalar::Integer),
            VariableType::Bool => text.trim().parse().ok().map(Scalar::Bool),
        };
        if scalar.is_none() {
            let message = format!(
                "the variable `{}` takes {}, not `{}` ({source})",
                self.name.value,
                in_words(self.kind),
                shorten(text)
            );
            let help = if self.kind == VariableType::Bool { "give `true` or `false`" } else { "give digits" };
            fields.tell(
                Fault::error("vmfile::variable", message).at(self.name.span, "defined here").help(help),
            );
        }
        scalar
    }

    /// Tells a value that the variable may not have.
    fn is_allowed(&self, value: &Scalar, source: Source, fields: &mut Fields) -> bool {
        let name = self.name.value;
        let fault = if !self.one_of.is_empty() && !self.one_of.contains(value) {
            let words: Vec<_> = self.one_of.iter().map(shown).collect();
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            let given = shown(value);
            let message = if self.is_sensitive {
                format!("the variable `{name}` cannot have this value ({source})")
            } else {
                format!("the variable `{name}` cannot be `{}` ({source})", shorten(&given))
            };
            let all = crate::vmfile::suggest::list(&words, "or");
            Fault::error("vmfile::variable", message).help(match nearest(&given, words.iter().copied()) {
                _ if self.is_sensitive => "its `one-of` lists the values that it may have".to_owned(),
                Some(near) => format!("did you mean `{near}`? It is one of {all}"),
                None => format!("it is one of {all}"),
            })
        } else if self.is_sensitive && shown(value).chars().count() < SHORTEST_SECRET {
            Fault::error(
                "vmfile::variable",
                format!("the variable `{name}` is sensitive and too short ({source})"),
            )
            .help(format!("to be hidden, a value has at least {SHORTEST_SECRET} characters"))
        } else {
            return true;
        };
        let fault = match source {
            Source::Default(span) | Source::File(span) if !self.is_sensitive => {
                fault.at(span, "this value").at(self.name.span, "defined here")
            }
            _ => fault.at(self.name.span, "defined here"),
        };
        fields.tell(fault);
        false
    }

    fn described(&self, value: &Value) -> String {
        if self.is_sensitive { "what stands here".to_owned() } else { describe(value) }
    }
}

/// `name` as it can stand in the name of an environment variable.
fn in_environment(name: &str) -> String {
    name.replace(['-', '.'], "_")
}

fn kind_of(scalar: &Scalar) -> Option<VariableType> {
    match scalar {
        Scalar::Text(_) => Some(VariableType::Text),
        Scalar::Integer(_) => Some(VariableType::Number),
        Scalar::Bool(_) => Some(VariableType::Bool),
        Scalar::Float(_) | Scalar::Null => None,
    }
}

fn in_words(kind: VariableType) -> &'static str {
    match kind {
        VariableType::Text => "a text",
        VariableType::Number => "a whole number",
        VariableType::Bool => "#true or #false",
    }
}

fn shown(scalar: &Scalar) -> String {
    match scalar {
        Scalar::Text(text) => text.clone(),
        Scalar::Integer(number) => number.to_string(),
        Scalar::Bool(truth) => truth.to_string(),
        Scalar::Float(number) => format!("{number:?}"),
        Scalar::Null => "#null".to_owned(),
    }
}

//! What is given from outside and decides what a VMFile asks for: as it is in a run, and as a saved plan keeps it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vmctl_providers::{Digest, SealKey, Secret};

use crate::saved::Moved;

/// The values that a desired state was made with.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Values {
    /// All variables, by name.
    pub variables: BTreeMap<String, VariableValue>,
    /// The environment variables that the VMFile names, by name.
    pub environment: BTreeMap<String, Secret>,
}

/// The value of a variable, as a text.
#[derive(Debug, Clone, PartialEq)]
pub enum VariableValue {
    /// One that may be shown.
    Plain(String),
    /// One that nothing printed or kept may show.
    Sensitive(Secret),
}

/// The same in a saved plan.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct KeptValues {
    variables: BTreeMap<String, KeptValue>,
    /// Keyed digests: nobody says of the environment what in it is sensitive.
    environment: BTreeMap<String, Digest>,
}

/// The value of a variable in a saved plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum KeptValue {
    /// It is given again from here.
    Plain(String),
    /// It has to be given again, and to have this keyed digest.
    Sensitive(Digest),
}

impl Values {
    /// What is kept of them. The project's key is asked for only if it is needed.
    pub fn keep<E>(&self, key: impl FnOnce() -> Result<SealKey, E>) -> Result<KeptValues, E> {
        let is_plain = |value: &VariableValue| matches!(value, VariableValue::Plain(_));
        let key = if self.environment.is_empty() && self.variables.values().all(is_plain) {
            None
        } else {
            Some(key()?)
        };
        let digest = |name: &str, secret: &Secret| {
            key.as_ref().map(|key| key.digest(format!("{name}={}", secret.expose())))
        };
        let kept = |(name, value): (&String, &VariableValue)| {
            let value = match value {
                VariableValue::Plain(text) => KeptValue::Plain(text.clone()),
                VariableValue::Sensitive(secret) => KeptValue::Sensitive(digest(name, secret)?),
            };
            Some((name.clone(), value))
        };
        Ok(KeptValues {
            variables: self.variables.iter().filter_map(kept).collect(),
            environment: self
                .environment
                .iter()
                .filter_map(|(name, value)| Some((name.clone(), digest(name, value)?)))
                .collect(),
        })
    }
}

impl KeptValues {
    /// The values of variables that need not be given again.
    pub fn plain(&self) -> BTreeMap<String, String> {
        let plain = self.variables.iter().filter_map(|(name, value)| match value {
            KeptValue::Plain(text) => Some((name.clone(), text.clone())),
            KeptValue::Sensitive(_) => None,
        });
        plain.collect()
    }

    /// What is not as it was, where `now` is what the same files were read with.
    pub(crate) fn moved(&self, now: &Self) -> Vec<Moved> {
        let variables = self.variables.iter().filter_map(|(name, planned)| {
            let name = name.clone();
            match (planned, now.variables.get(&name)?) {
                (planned, found) if planned == found => None,
                (KeptValue::Plain(planned), KeptValue::Plain(found)) => {
                    Some(Moved::Variable { name, planned: planned.clone(), found: found.clone() })
                }
                _ => Some(Moved::Sensitive(name)),
            }
        });
        let environment = self.environment.iter();
        let environment = environment.filter(|(name, planned)| now.environment.get(*name) != Some(planned));
        variables.chain(environment.map(|(name, _)| Moved::Environment(name.clone()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn kept(variables: &[(&str, VariableValue)], environment: &[(&str, &str)]) -> KeptValues {
        let values = Values {
            variables: variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
            environment: environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), Secret::new(*value)))
                .collect(),
        };
        let key = || Ok::<_, Infallible>(SealKey::new([7; SealKey::LENGTH]));
        values.keep(key).unwrap()
    }

    fn plain(text: &str) -> VariableValue {
        VariableValue::Plain(text.to_owned())
    }

    fn sensitive(text: &str) -> VariableValue {
        VariableValue::Sensitive(Secret::new(text))
    }

    #[test]
    fn key_is_not_asked_for_where_there_is_nothing_to_hide() {
        let values = Values { variables: [("size".to_owned(), plain("1"))].into(), ..Values::default() };
        let kept = values.keep(|| Err("no key")).unwrap();
        assert_eq!(kept.plain(), [("size".to_owned(), "1".to_owned())].into());
    }

    #[test]
    fn what_moved_is_named_and_what_is_sensitive_is_not_shown() {
        let planned =
            kept(&[("size", plain("1")), ("token", sensitive("hunter2"))], &[("A", "x"), ("B", "y")]);
        assert_eq!(planned.moved(&planned), []);
        assert!(!serde_json::to_string(&planned).unwrap().contains("hunter2"));
        let now = kept(&[("size", plain("2")), ("token", sensitive("hunter3"))], &[("A", "x"), ("B", "z")]);
        let told: Vec<_> = planned.moved(&now).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "the variable `size` is `1` in the plan, and `2` is given now",
                "the sensitive variable `token` has another value than the plan was made with",
                "the environment variable `B` has another value than the plan was made with",
            ]
        );
    }
}

//! Sensitive values: hidden in everything that is printed, told apart in everything that is kept.
//!
//! What looks like a secret is the business of [`crate::mask`]; this is about values that are known to be one.

use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::spec::{Digest, Secret};

/// What stands in the place of a sensitive value.
pub const HIDDEN: &str = "(sensitive)";

/// How a value that is told apart from others begins; a digest and a bracket follow.
const SEALED: &str = "(sensitive:";

/// Hexadecimal digits of a value's digest that are kept: 64 bits, so that no change is missed.
const DIGITS: usize = 16;

/// Shorter parts of a value occur everywhere, so that they cannot be hidden by themselves: what is left without spaces
/// around it, and lines of several.
const SHORTEST_CORE: usize = 4;
const SHORTEST_LINE: usize = 8;

/// What digests of sensitive values are made with. Who does not have it cannot try out which value a digest is of.
#[derive(Clone, PartialEq, Eq)]
pub struct SealKey([u8; Self::LENGTH]);

impl SealKey {
    /// Its length in bytes.
    pub const LENGTH: usize = 32;

    /// Wraps random bytes.
    pub fn new(bytes: [u8; Self::LENGTH]) -> Self {
        Self(bytes)
    }

    /// The keyed digest of `bytes`.
    pub fn digest(&self, bytes: impl AsRef<[u8]>) -> Digest {
        let mut hash = Hmac::<Sha256>::new_from_slice(&self.0).expect("any length serves as a key");
        hash.update(bytes.as_ref());
        Digest::from_hash(&hash.finalize().into_bytes())
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(…)")
    }
}

/// The sensitive values of a run. Cheap to clone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    /// What is looked for, the longest first.
    forms: Arc<[Form]>,
    key: Option<SealKey>,
}

/// One way in which a value may appear.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Form {
    text: Secret,
    value: Secret,
}

impl Secrets {
    /// The given values; empty ones are left out.
    pub fn new(values: impl IntoIterator<Item = Secret>) -> Self {
        let mut forms: Vec<_> = values.into_iter().flat_map(forms).collect();
        forms.sort_by(|a, b| {
            let (a, b) = (a.text.expose(), b.text.expose());
            b.len().cmp(&a.len()).then_with(|| a.cmp(b))
        });
        forms.dedup_by(|a, b| a.text == b.text);
        Self { forms: forms.into(), key: None }
    }

    /// The same values, to be sealed with `key`.
    #[must_use]
    pub fn with_key(self, key: SealKey) -> Self {
        Self { key: Some(key), ..self }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.forms.is_empty()
    }

    /// Whether one of them is in `text`.
    pub fn are_in(&self, text: &str) -> bool {
        self.forms.iter().any(|form| text.contains(form.text.expose()))
    }

    /// `text` with [`HIDDEN`] in the place of each: to be printed.
    pub fn hide(&self, text: &str) -> String {
        self.replaced(text, |_| HIDDEN.to_owned())
    }

    /// `text` with a keyed digest in the place of each: to be kept, and compared with others that were sealed with the
    /// same key. Without a key, values are hidden and cannot be compared.
    pub fn seal(&self, text: &str) -> String {
        self.replaced(text, |value| match &self.key {
            Some(key) => format!("{SEALED}{})", &key.digest(value.expose()).hex()[..DIGITS]),
            None => HIDDEN.to_owned(),
        })
    }

    /// `digest`, which was made of `texts` among others, in a form that does not help to find out what is in them.
    pub fn seal_digest<'t>(&self, digest: Digest, texts: impl IntoIterator<Item = &'t str>) -> Digest {
        match &self.key {
            Some(key) if texts.into_iter().any(|text| self.are_in(text)) => key.digest(digest.as_str()),
            _ => digest,
        }
    }

    /// Takes the leftmost form again and again, of several at one place the longest, in time linear in `text`.
    fn replaced(&self, text: &str, by: impl Fn(&Secret) -> String) -> String {
        let find = |form: &Form, from: usize| text[from..].find(form.text.expose()).map(|at| at + from);
        let mut next: Vec<_> = self.forms.iter().map(|form| find(form, 0)).collect();
        let (mut replaced, mut copied) = (String::with_capacity(text.len()), 0);
        let leftmost = |next: &[Option<usize>]| {
            let found = next.iter().zip(self.forms.iter()).filter_map(|(at, form)| Some(((*at)?, form)));
            found.min_by_key(|(at, _)| *at)
        };
        while let Some((at, form)) = leftmost(&next) {
            replaced.push_str(&text[copied..at]);
            replaced.push_str(&by(&form.value));
            copied = at + form.text.expose().len();
            for (next, form) in next.iter_mut().zip(self.forms.iter()) {
                if next.is_some_and(|at| at < copied) {
                    *next = find(form, copied);
                }
            }
        }
        replaced + &text[copied..]
    }
}

/// Says how many there are, and nothing else.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.forms.len())
    }
}

/// Whether `text` holds a value that was sealed with a key.
pub fn is_sealed(text: &str) -> bool {
    text.contains(SEALED)
}

/// A value as it is; as it is quoted in messages and in JSON; and, since guests and differences are told line by line,
/// its lines.
fn forms(value: Secret) -> Vec<Form> {
    let text = value.expose();
    let json = serde_json::Value::from(text).to_string();
    let mut forms =
        vec![text.to_owned(), text.escape_debug().to_string(), json[1..json.len() - 1].to_owned()];
    let mut add = |part: &str, shortest| {
        if part.chars().count() >= shortest {
            forms.push(part.to_owned());
        }
    };
    add(text.trim(), SHORTEST_CORE);
    if text.contains('\n') {
        text.lines().for_each(|line| add(line.trim(), SHORTEST_LINE));
    }
    forms.retain(|form| !form.is_empty());
    forms.into_iter().map(|text| Form { text: Secret::new(text), value: value.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(values: &[&str]) -> Secrets {
        Secrets::new(values.iter().map(|value| Secret::new((*value).to_owned())))
    }

    fn key(byte: u8) -> SealKey {
        SealKey::new([byte; SealKey::LENGTH])
    }

    #[test]
    fn values_are_hidden_wherever_they_stand() {
        let secrets = secrets(&["hunter2", "hunter2-long", "tock", ""]);
        for (text, hidden) in [
            ("a hunter2-long b", "a (sensitive) b"),
            ("hunter2hunter2", "(sensitive)(sensitive)"),
            ("ticktock hunter2-lon", "tick(sensitive) (sensitive)-lon"),
            ("none", "none"),
            ("", ""),
        ] {
            assert_eq!(secrets.hide(text), hidden);
            assert_eq!(secrets.are_in(text), text != hidden);
        }
        assert!(!Secrets::default().are_in("") && Secrets::default().is_empty());
        assert_eq!(format!("{secrets:?} {:?}", key(1)), "Secrets(3) SealKey(…)");
    }

    #[test]
    fn quoted_values_and_lines_of_long_ones_are_hidden_as_well() {
        let quoted = secrets(&["say \"x\"\t\\"]);
        let text = "say \"x\"\t\\";
        assert_eq!(quoted.hide(&format!("exec {text:?}")), "exec \"(sensitive)\"");
        assert_eq!(quoted.hide(&serde_json::to_string(text).unwrap()), "\"(sensitive)\"");
        let lines = secrets(&["-----BEGIN KEY-----\n  MIIEowIBAAK\nend\n"]);
        assert_eq!(lines.hide("    MIIEowIBAAK\r"), "    (sensitive)\r");
        assert_eq!(lines.hide("the end"), "the end");
        assert_eq!(secrets(&["  a "]).hide("a  a "), "a(sensitive)");
    }

    #[test]
    fn sealed_values_can_be_compared_and_not_be_read() {
        let one = secrets(&["hunter2"]).with_key(key(1)).seal("web-hunter2");
        assert_eq!(one, "web-(sensitive:f26b540759235a9d)");
        assert_eq!(one, secrets(&["hunter2", "other"]).with_key(key(1)).seal("web-hunter2"));
        assert_ne!(one, secrets(&["hunter3"]).with_key(key(1)).seal("web-hunter3"));
        assert_ne!(one, secrets(&["hunter2"]).with_key(key(2)).seal("web-hunter2"));
        assert!(is_sealed(&one) && !is_sealed(HIDDEN));
        assert_eq!(secrets(&["hunter2"]).seal("web-hunter2"), "web-(sensitive)");
    }

    /// RFC 4231, test case 2, with the key as its definition extends it.
    #[test]
    fn digests_are_of_the_standard() {
        let mut bytes = [0; SealKey::LENGTH];
        bytes[..4].copy_from_slice(b"Jefe");
        let digest = SealKey::new(bytes).digest("what do ya want for nothing?");
        assert_eq!(digest.hex(), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn digests_of_texts_without_a_value_stay() {
        let (secrets, digest) = (secrets(&["hunter2"]).with_key(key(1)), Digest::of("x"));
        assert_eq!(secrets.seal_digest(digest.clone(), ["echo"]), digest);
        assert_ne!(secrets.seal_digest(digest.clone(), ["echo", "echo hunter2"]), digest);
    }
}

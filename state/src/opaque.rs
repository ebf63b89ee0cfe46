//! What another part of vmctl keeps in a record for itself.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// JSON whose meaning only its owner knows.
///
/// It is kept as the text that it was written as: thousands of records are read and written again without anybody
/// looking into most of them. What it means is found out when it is asked for first, and shared by all copies from
/// then on.
#[derive(Clone)]
pub struct Opaque(Arc<Kept>);

struct Kept {
    json: Box<RawValue>,
    /// What it was first decoded to.
    decoded: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Opaque {
    /// The text.
    pub fn json(&self) -> &str {
        self.0.json.get()
    }

    /// What it says, as a tree. Fails where it has a number beyond all ranges, which is well-formed nevertheless.
    pub fn value(&self) -> Result<Value, serde_json::Error> {
        serde_json::from_str(self.json())
    }

    /// What it means to its owner. Decoded once, as long as it is always asked for as the same type.
    pub fn decoded<T: DeserializeOwned + Send + Sync + 'static>(&self) -> Result<Arc<T>, serde_json::Error> {
        if let Some(decoded) = self.0.decoded.get()
            && let Ok(decoded) = Arc::clone(decoded).downcast()
        {
            return Ok(decoded);
        }
        let decoded = Arc::new(serde_json::from_str::<T>(self.json())?);
        // Whoever came first is kept; both say the same.
        let _ = self.0.decoded.set(decoded.clone());
        Ok(decoded)
    }
}

impl From<&Value> for Opaque {
    fn from(value: &Value) -> Self {
        let json =
            serde_json::value::to_raw_value(value).expect("a tree has string keys, and so a JSON form");
        Self::from(json)
    }
}

impl From<Value> for Opaque {
    fn from(value: Value) -> Self {
        Self::from(&value)
    }
}

impl From<Box<RawValue>> for Opaque {
    fn from(json: Box<RawValue>) -> Self {
        Self(Arc::new(Kept { json, decoded: OnceLock::new() }))
    }
}

impl PartialEq for Opaque {
    /// Whether both say the same, in whatever order.
    fn eq(&self, other: &Self) -> bool {
        let is_same = || self.value().is_ok_and(|value| other.value().is_ok_and(|other| value == other));
        Arc::ptr_eq(&self.0, &other.0) || self.json() == other.json() || is_same()
    }
}

impl fmt::Debug for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.json())
    }
}

impl Serialize for Opaque {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.json.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Opaque {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Meaning {
        size: u8,
    }

    #[test]
    fn what_is_written_is_what_was_read() {
        let text = r#"{"b":1.50,"a":[ ]}"#;
        let opaque: Opaque = serde_json::from_str(text).unwrap();
        assert_eq!((opaque.json(), serde_json::to_string(&opaque).unwrap().as_str()), (text, text));
        assert_eq!(opaque, Opaque::from(json!({ "a": [], "b": 1.5 })));
        assert_ne!(opaque, Opaque::from(json!({ "a": [], "b": 2 })));
        // From a tree, and into one.
        assert_eq!(Opaque::deserialize(json!({ "size": 1 })).unwrap().json(), r#"{"size":1}"#);
        assert_eq!(serde_json::to_value(&opaque).unwrap(), opaque.value().unwrap());
    }

    #[test]
    fn meaning_is_found_out_once_and_shared_by_copies() {
        let opaque = Opaque::from(json!({ "size": 7 }));
        let copy = opaque.clone();
        let meaning = opaque.decoded::<Meaning>().unwrap();
        assert_eq!(*meaning, Meaning { size: 7 });
        assert!(Arc::ptr_eq(&meaning, &copy.decoded().unwrap()));
        // Whoever takes it for something else gets that, or is told that it is not.
        assert_eq!(*copy.decoded::<Value>().unwrap(), json!({ "size": 7 }));
        assert!(Opaque::from(json!({ "size": 700 })).decoded::<Meaning>().is_err());
    }
}

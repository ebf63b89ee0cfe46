//! Requests and answers against the official OpenAPI documents, where these are at hand.
//!
//! They are no part of this repository (their licence is another). `VMCTL_PROPOLIS_OPENAPI` names a folder with files as
//! upstream calls them, `propolis-server-VERSION-DIGEST.json`; each of them must accept what is said.

use std::path::PathBuf;
use std::sync::OnceLock;

use jsonschema::Validator;
use serde_json::{Map, Value, json};

use super::http::Asked;
use crate::surroundings;

/// Where the documents are.
const FOLDER: &str = "VMCTL_PROPOLIS_OPENAPI";

/// The documents that are at hand, with their names.
fn documents() -> &'static [(String, Value)] {
    static DOCUMENTS: OnceLock<Vec<(String, Value)>> = OnceLock::new();
    DOCUMENTS.get_or_init(|| {
        let Some(folder) = surroundings::inherited(FOLDER).map(PathBuf::from) else { return Vec::new() };
        let list = folder.read_dir().unwrap_or_else(|error| panic!("{FOLDER}: {error}"));
        let mut found = Vec::new();
        for path in list.flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|extension| extension == "json") {
                let text = std::fs::read_to_string(&path).expect("a document is text");
                let mut document: Value = serde_json::from_str(&text).expect("a document is JSON");
                translate(&mut document);
                found.push((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), document));
            }
        }
        assert!(!found.is_empty(), "{FOLDER}: there is no document in it");
        found
    })
}

/// Whether there are any.
pub fn are_at_hand() -> bool {
    !documents().is_empty()
}

/// OpenAPI 3.0 is no JSON Schema in two places that matter: `nullable`, and a key that is both a UUID and a text.
fn translate(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(translate);
            if map.remove("nullable") == Some(Value::Bool(true)) {
                let inner = Value::Object(std::mem::take(map));
                map.insert("anyOf".to_owned(), json!([inner, {"type": "null"}]));
            }
            if let Some(Value::Object(key)) = map.get_mut("SpecKey")
                && let Some(arms) = key.remove("oneOf")
            {
                key.insert("anyOf".to_owned(), arms);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(translate),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The schema of a body: that of the request, or that of the answer with `status`.
fn schema(document: &Value, asked: &Asked, status: Option<u16>) -> Option<Value> {
    let operation = document["paths"].get(&asked.path)?.get(asked.method.to_ascii_lowercase())?;
    let body = match status {
        None => operation.get("requestBody")?,
        Some(status) if status >= 400 => return Some(json!({"$ref": "#/components/schemas/Error"})),
        Some(status) => operation["responses"].get(status.to_string())?,
    };
    body["content"]["application/json"].get("schema").cloned()
}

fn faults(document: &Value, schema: Value, body: &Value) -> Vec<String> {
    let mut whole = match schema {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    whole.insert("components".to_owned(), document["components"].clone());
    let validator: Validator = jsonschema::options()
        .should_validate_formats(true)
        .build(&Value::Object(whole))
        .unwrap_or_else(|error| panic!("a document that is no schema: {error}"));
    validator.iter_errors(body).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// Refuses a request that one of the documents does not allow.
pub(super) fn check_request(asked: &Asked) -> Result<(), String> {
    for (name, document) in documents() {
        let known =
            document["paths"].get(&asked.path).and_then(|path| path.get(asked.method.to_ascii_lowercase()));
        if known.is_none() {
            return Err(format!("{name} has no {} {}", asked.method, asked.path));
        }
        if let Some(schema) = schema(document, asked, None) {
            let faults = faults(document, schema, &asked.json());
            if !faults.is_empty() {
                return Err(format!("{name} does not allow this {}: {}", asked.path, faults.join("; ")));
            }
        }
    }
    Ok(())
}

/// Ends the server that answers what a document does not allow. Documents differ in their answers; one must allow it.
pub(super) fn check_answer(asked: &Asked, status: u16, body: &[u8]) {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let mut refused = Vec::new();
    for (name, document) in documents() {
        let Some(schema) = schema(document, asked, Some(status)) else { return };
        let faults = faults(document, schema, &body);
        if faults.is_empty() {
            return;
        }
        refused.push(format!("{name}: {}", faults.join("; ")));
    }
    assert!(refused.is_empty(), "the fake answers {} {status} as no server does: {refused:#?}", asked.path);
}

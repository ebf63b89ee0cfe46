//! Schemas of `docs/schemas`, and outputs held against them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use jsonschema::{Registry, Validator};
use serde_json::Value;
use vmctl_tests::surroundings::repository;
use vmctl_tests::{Ended, World};

/// A schema as it stands in its file, and ready to be used.
pub(super) struct Schema {
    pub(super) text: Value,
    pub(super) validator: Validator,
}

/// The schemas by name, such as `plan`.
pub(super) static SCHEMAS: LazyLock<BTreeMap<String, Schema>> = LazyLock::new(|| {
    let texts: BTreeMap<String, Value> = fs::read_dir(repository().join("docs/schemas"))
        .expect("the schemas")
        .map(|entry| entry.expect("a schema").path())
        // The schema of VMFiles is no JSON.
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, read_json(&path))
        })
        .collect();
    let registry = texts.iter().fold(Registry::new(), |registry, (file, text)| {
        registry.add(format!("json-schema:///{file}"), text).expect("a schema has a name of its own")
    });
    let registry = registry.prepare().expect("schemas name only each other");
    let ready = |(file, text): (&String, &Value)| {
        let options = jsonschema::options().with_registry(&registry).offline();
        let validator = options.should_validate_formats(true).build(text);
        let validator = validator.unwrap_or_else(|error| panic!("{file}: {error}"));
        let name = file.strip_suffix("-v1.json").expect("a schema's file has its version").to_owned();
        (name, Schema { text: text.clone(), validator })
    };
    texts.iter().map(ready).collect()
});

/// The JSON in a file.
pub(super) fn read_json(path: &Path) -> Value {
    let text = fs::read_to_string(path).expect("a file that is there");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("`{}`: {error}", path.display()))
}

/// Panics, naming every fault, unless `document` is as the schema `name` says.
pub(crate) fn promised(name: &str, document: &Value) {
    let faults: Vec<_> = SCHEMAS[name]
        .validator
        .iter_errors(document)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(faults.is_empty(), "this is not what {name} promises: {faults:#?}\n{document:#}");
}

/// Runs a command that prints a document, which must be as promised and end with `code`.
pub(super) fn document(world: &World, schema: &str, arguments: &[&str], code: i32) -> Value {
    let document = world.vmctl(arguments).expect(code).json();
    promised(schema, &document);
    document
}

/// The lines of an `apply --json`, each of which must be as promised.
pub(super) fn events(run: &Ended) -> Vec<Value> {
    let line = |line: &str| {
        let event = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        promised("event", &event);
        event
    };
    run.stdout.lines().map(line).collect()
}

/// Runs `apply --json`, which must end with `code`. Returns its lines, each as promised.
pub(super) fn apply(world: &World, options: &[&str], code: i32) -> Vec<Value> {
    events(&world.vmctl(&[&["apply", "--yes", "--json"], options].concat()).expect(code))
}

/// The words that a schema allows at `pointer`.
pub(super) fn allowed(schema: &str, pointer: &str) -> BTreeSet<String> {
    let words = SCHEMAS[schema].text.pointer(pointer).and_then(Value::as_array).expect("a list of words");
    words.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

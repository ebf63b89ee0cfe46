//! `validate --format sarif` prints what code review tools read.

use std::fs;
use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::{Value, json};
use vmctl_tests::World;
use vmctl_tests::surroundings::repository;

/// The schema of SARIF 2.1.0.
static SARIF: LazyLock<Validator> = LazyLock::new(|| {
    let path = repository().join("tests/schemas/sarif-2.1.0-rtm.5.json");
    let text = fs::read_to_string(path).expect("the schema");
    // A pattern for languages has a bracket too many, which not every engine takes; vmctl names no language.
    let text = text.replace("[a-zA-Z]{2}]?$", "[a-zA-Z]{2}?$");
    let schema = serde_json::from_str(&text).expect("a schema is JSON");
    jsonschema::options().offline().should_validate_formats(true).build(&schema).expect("a schema")
});

/// The run in what `validate --format sarif` prints, which is valid SARIF and ends with `code`.
fn sarif(world: &World, options: &[&str], code: i32) -> Value {
    let ended = world.vmctl(&[&["validate", "--format", "sarif"], options].concat()).expect(code);
    assert_eq!(ended.stderr, "", "all is said on stdout");
    let document = ended.json();
    let faults: Vec<_> =
        SARIF.iter_errors(&document).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(faults.is_empty(), "this is no SARIF: {faults:#?}\n{document:#}");
    assert_eq!(document["runs"].as_array().map(Vec::len), Some(1));
    document["runs"][0].clone()
}

/// Rule, level, file and start of each result.
fn results(run: &Value) -> Vec<Value> {
    let results = run["results"].as_array().expect("a list of results");
    let of = |result: &Value| {
        let at = &result["locations"][0]["physicalLocation"];
        let index = result["ruleIndex"].as_u64().and_then(|index| usize::try_from(index).ok());
        assert_eq!(run["tool"]["driver"]["rules"][index.expect("an index")]["id"], result["ruleId"]);
        let region = &at["region"];
        let start = json!([region["startLine"], region["startColumn"]]);
        json!([result["ruleId"], result["level"], at["artifactLocation"]["uri"], start])
    };
    results.iter().map(of).collect()
}

#[test]
fn problems_are_told_as_sarif() {
    let world = World::new(0);
    world.blank_image();
    let vm = r#"vm "one" { image "blank.qcow2"; forward host=8080 guest=80 address="0.0.0.0" }"#;
    world.vmfile(vm);
    let valid = sarif(&world, &[], 0);
    assert_eq!(results(&valid), [json!(["vmfile::exposed", "warning", "VMFile.kdl", [1, 33]])]);
    assert_eq!(
        (&valid["tool"]["driver"]["name"], &valid["columnKind"]),
        (&json!("vmctl"), &json!("unicodeCodePoints"))
    );

    world.write("ci/a file.kdl", "vm \"one\" {\n  image \"../blank.qcow2\"\n  labl \"ö\"; labl }\n");
    let invalid = sarif(&world, &["--file", "ci/../ci/a file.kdl"], 1);
    let unknown = |column: u32| json!(["vmfile::unknown-node", "error", "ci/a%20file.kdl", [3, column]]);
    assert_eq!(results(&invalid), [unknown(3), unknown(13)]);

    world.vmfile("");
    let above = fs::canonicalize(world.folder()).unwrap().join("VMFile.kdl");
    fs::write(&above, "vm").unwrap();
    let outside = sarif(&world, &["--file", "../VMFile.kdl"], 1);
    assert_eq!(results(&outside)[0][2], format!("file://{}", above.display()));
}

#[test]
fn file_that_cannot_be_read_is_told_as_sarif() {
    let world = World::new(0);
    let unread = sarif(&world, &["--file", "nowhere.kdl"], 1);
    assert_eq!(results(&unread), [json!(["vmfile::unreadable", "error", "nowhere.kdl", [null, null]])]);
    fs::write(world.project().join("VMFile.kdl"), b"vm \"a\" {\n  image \"\xff\"\n}\n").unwrap();
    assert_eq!(
        results(&sarif(&world, &[], 1)),
        [json!(["vmfile::not-text", "error", "VMFile.kdl", [2, 10]])]
    );
}

#[test]
fn formats_that_contradict_each_other_are_misuse() {
    let world = World::new(0);
    world.vmfile("vm \"one\" { image \"nowhere\" }");
    world.vmctl(&["validate", "--json", "--format", "sarif"]).expect(64).says("two formats");
    let told = world.vmctl(&["validate", "--json"]).expect(1).json();
    assert_eq!(world.vmctl(&["validate", "--format", "json"]).expect(1).json(), told);
    assert_eq!(world.vmctl(&["validate", "--format", "json", "--json"]).expect(1).json(), told);
    world.vmctl(&["validate", "--format", "human"]).expect(1).says("1 error");
}

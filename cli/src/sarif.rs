//! Problems of a VMFile in SARIF 2.1.0, the format that code review tools read.
//!
//! Only the part of the format that says something here; §-numbers are those of the OASIS standard.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use miette::{Diagnostic, SourceCode};
use serde::Serialize;
use vmctl_planner::vmfile::{Place, Problem, Severity};

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";
const VERSION: &str = "2.1.0";

/// A whole document.
#[derive(Debug, Serialize)]
pub(crate) struct Log {
    #[serde(rename = "$schema")]
    schema: &'static str,
    version: &'static str,
    runs: [Run; 1],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    tool: Tool,
    column_kind: &'static str,
    results: Vec<Finding>,
}

#[derive(Debug, Serialize)]
struct Tool {
    driver: Driver,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Driver {
    name: &'static str,
    version: &'static str,
    information_uri: &'static str,
    rules: Vec<Rule>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    id: &'static str,
    short_description: Message,
}

/// A `result` of the standard.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Finding {
    rule_id: &'static str,
    rule_index: usize,
    level: &'static str,
    message: Message,
    locations: [Location; 1],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    related_locations: Vec<Location>,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Location {
    physical_location: PhysicalLocation,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message>,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct PhysicalLocation {
    artifact_location: ArtifactLocation,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<Region>,
}

#[derive(Debug, PartialEq, Serialize)]
struct ArtifactLocation {
    uri: String,
}

/// Lines and columns from 1; the end is the first column behind it.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Region {
    start_line: usize,
    start_column: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_column: Option<usize>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Message {
    text: String,
}

impl Message {
    /// A message that shows `text` as it is: braces would be placeholders (§3.11.5).
    fn literal(text: &str) -> Self {
        Self { text: text.replace('{', "{{").replace('}', "}}") }
    }
}

/// The document of one run that found `problems`. Files below `folder`, which is absolute, are named relative to it.
pub(crate) fn log(problems: &[Problem], folder: &Path) -> Log {
    let mut codes: Vec<&'static str> = Vec::new();
    let results = problems
        .iter()
        .map(|problem| {
            let known = codes.iter().position(|code| *code == problem.code);
            let rule_index = known.unwrap_or_else(|| {
                codes.push(problem.code);
                codes.len() - 1
            });
            finding(problem, rule_index, folder)
        })
        .collect();
    let rules = codes
        .into_iter()
        .map(|id| Rule { id, short_description: Message::literal(description(id)) })
        .collect();
    let driver = Driver {
        name: "vmctl",
        version: env!("CARGO_PKG_VERSION"),
        information_uri: env!("CARGO_PKG_REPOSITORY"),
        rules,
    };
    let run = Run { tool: Tool { driver }, column_kind: "unicodeCodePoints", results };
    Log { schema: SCHEMA, version: VERSION, runs: [run] }
}

fn finding(problem: &Problem, rule_index: usize, folder: &Path) -> Finding {
    let mut text = problem.message.clone();
    if let Some(help) = &problem.help {
        // Writing to a String cannot fail.
        let _ = write!(text, "\nhelp: {help}");
    }
    let mut related_locations = Vec::new();
    for related in &problem.related {
        let location = location(&related.file, Some(&related.place), related.source_code(), folder);
        // The standard wants them to differ.
        if !related_locations.contains(&location) {
            related_locations.push(location);
        }
    }
    Finding {
        rule_id: problem.code,
        rule_index,
        level: match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        message: Message::literal(&text),
        locations: [location(&problem.file, problem.place.as_ref(), problem.source_code(), folder)],
        related_locations,
    }
}

/// Where `place` is in `file`, whose text is `text`; without one, the file as a whole.
fn location(file: &str, place: Option<&Place>, text: Option<&dyn SourceCode>, folder: &Path) -> Location {
    let artifact_location = ArtifactLocation { uri: uri(Path::new(file), folder) };
    let region = place.map(|place| region(place, text));
    let label = place.map(|place| place.label.as_str()).filter(|label| !label.is_empty());
    Location {
        physical_location: PhysicalLocation { artifact_location, region },
        message: label.map(Message::literal),
    }
}

fn region(place: &Place, text: Option<&dyn SourceCode>) -> Region {
    let (end_line, end_column) = text.and_then(|text| end(place, text)).unzip();
    Region { start_line: place.line, start_column: place.column, end_line, end_column }
}

/// Line and column of the first character behind `place`.
fn end(place: &Place, text: &dyn SourceCode) -> Option<(usize, usize)> {
    let span = text.read_span(&(place.offset, place.length).into(), 0, 0).ok()?;
    let spanned = str::from_utf8(span.data().get(..place.length)?).ok()?;
    let column = match spanned.rsplit_once('\n') {
        Some((_, last)) => 1 + last.chars().count(),
        None => place.column + spanned.chars().count(),
    };
    Some((place.line + spanned.matches('\n').count(), column))
}

/// `file` as a URI: relative if it is below `folder`, else absolute.
fn uri(file: &Path, folder: &Path) -> String {
    let file = normal(&folder.join(file));
    match file.strip_prefix(normal(folder)) {
        Ok(below) => percent_encoded(below),
        Err(_) => format!("file://{}", percent_encoded(&file)),
    }
}

/// `path` without `.` and `..`, as whoever resolves a URI takes them out.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

/// A path with everything encoded that a URI does not take at any place of a path (RFC 3986, section 2.3).
fn percent_encoded(path: &Path) -> String {
    let mut encoded = String::new();
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// What every problem with this code is about.
fn description(code: &str) -> &'static str {
    match code {
        "vmfile::annotation" => "A type annotation is not known, or not where it stands",
        "vmfile::bad-name" => "A name has characters or a length that names cannot have",
        "vmfile::bad-value" => "A value is not one that the node takes",
        "vmfile::contradiction" => "Two nodes contradict each other",
        "vmfile::cycle" => "Machines wait for each other, or names lead back to themselves",
        "vmfile::dependency" => "A machine refers to one that is not there or never starts",
        "vmfile::disk" => "The disk is smaller than the image",
        "vmfile::duplicate" => "Something is given twice",
        "vmfile::exposed" => "A port is open to other hosts",
        "vmfile::file" => "A file cannot be used",
        "vmfile::format" => "The file cannot be formatted",
        "vmfile::hardware" => "A machine of this kind cannot have what is asked for",
        "vmfile::image" => "An image cannot be used",
        "vmfile::lock" => "The lock file cannot be used",
        "vmfile::include" => "Another file cannot be included",
        "vmfile::kdl1" => "The file is written in KDL 1",
        "vmfile::kernel" => "A kernel cannot be booted as it is asked for",
        "vmfile::key" => "An ssh key cannot be used",
        "vmfile::retries" => "A step is to be tried again that is not said to be safe to run again",
        "vmfile::missing" => "Something that is needed is missing",
        "vmfile::moved" => "A rename does not fit the rest of the file",
        "vmfile::network" => "The network cannot do what is asked of it",
        "vmfile::not-text" => "The file is not UTF-8 text",
        "vmfile::out-of-range" => "A number is too small or too big",
        "vmfile::pattern" => "A pattern cannot be used",
        "vmfile::project" => "`project` stands in an included file",
        "vmfile::propolis" => "A machine of Propolis cannot have what is asked for",
        "vmfile::qemu-arg" => "Arguments are passed on to QEMU as they are",
        "vmfile::removed" => "What is let go of does not fit the rest of the file",
        "vmfile::sensitive" => "A sensitive value stands where it cannot be hidden",
        "vmfile::ssh" => "Something needs a way to log in to the machine",
        "vmfile::surplus" => "A node has more values than it takes",
        "vmfile::syntax" => "The file is not valid KDL 2",
        "vmfile::template" => "A text with names in it says something that is not known",
        "vmfile::too-big" => "The file is too big",
        "vmfile::too-deep" => "Blocks are nested too deep",
        "vmfile::unknown-node" => "A node is not known here",
        "vmfile::unknown-property" => "A property is not known here",
        "vmfile::unknown-reference" => "Something is referred to that is not defined",
        "vmfile::unreadable" => "The file cannot be read",
        "vmfile::unused" => "Something has no effect",
        "vmfile::variable" => "A variable has no value, or one that it cannot have",
        "vmfile::volume" => "A volume cannot belong to a machine as it is asked for",
        "vmfile::wrong-type" => "A value has the wrong type",
        _ => "The VMFile has to be changed",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use serde_json::{Value, json};
    use vmctl_planner::vmfile::{self, Given, Images, LoadOptions};
    use vmctl_providers::image::{ImageError, ImageIdentity};

    use super::*;

    /// The problems of `text`, which is wrong, under the name `file`.
    fn problems(file: &str, text: &str) -> Vec<Problem> {
        vmfile::parse(file, text).unwrap_err().problems().to_vec()
    }

    /// The run that the document of `problems` is about.
    fn run(problems: &[Problem]) -> Value {
        serde_json::to_value(log(problems, Path::new("/shop"))).unwrap()["runs"][0].clone()
    }

    #[test]
    fn problems_become_results_of_rules() {
        let text = "vm \"a\" {\n  image \"ö\"; memroy 1\n  memory 512; memory 1024\n  memroy 2\n}\n";
        let document =
            serde_json::to_string_pretty(&log(&problems("a b.kdl", text), Path::new("/shop"))).unwrap();
        let document = document.replace(env!("CARGO_PKG_VERSION"), "[version]");
        insta::assert_snapshot!(document);
    }

    #[test]
    fn places_end_behind_their_last_character() {
        let text = "vm \"x\" { image \"üü\" \"é\"; ssh \"\"\"\n  a\n  \"\"\" 1 }\n";
        let told = run(&problems("f", text));
        let regions: Vec<_> = told["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|result| &result["locations"][0]["physicalLocation"]["region"])
            .map(|at| json!([at["startLine"], at["startColumn"], at["endLine"], at["endColumn"]]))
            .collect();
        assert_eq!(regions, [json!([1, 21, 1, 24]), json!([1, 30, 3, 6])]);
    }

    #[test]
    fn every_place_that_belongs_to_a_problem_is_told_once() {
        let text = "vm \"x\" { image \"a\" }\nvm \"x\" { image \"a\" }\n";
        let mut problem = problems("f", text).remove(0);
        problem.related.extend(problem.related.clone());
        let told = run(&[problem]);
        assert_eq!(told["results"][0]["relatedLocations"].as_array().map(Vec::len), Some(1), "{told:#}");
    }

    #[test]
    fn braces_are_no_placeholders() {
        assert_eq!(Message::literal("write `{{ name }}`, not {0}").text, "write `{{{{ name }}}}`, not {{0}}");
    }

    #[test]
    fn files_below_the_folder_are_relative_and_others_are_absolute() {
        let cases = [
            ("/shop/VMFile.kdl", "VMFile.kdl"),
            ("VMFile.kdl", "VMFile.kdl"),
            ("/shop/./vms/../ci/a b.kdl", "ci/a%20b.kdl"),
            ("/shop/100%/ä:1.kdl", "100%25/%C3%A4%3A1.kdl"),
            ("/shopshop/VMFile.kdl", "file:///shopshop/VMFile.kdl"),
            ("/shop/../VMFile.kdl", "file:///VMFile.kdl"),
            ("/over there/VMFile.kdl", "file:///over%20there/VMFile.kdl"),
        ];
        for (file, expected) in cases {
            assert_eq!(uri(Path::new(file), Path::new("/shop")), expected, "{file}");
        }
    }

    #[derive(Debug)]
    struct NoImages;

    impl Images for NoImages {
        fn identify(&self, _source: &Path) -> Result<ImageIdentity, ImageError> {
            unreachable!("nothing names an image")
        }
    }

    #[test]
    fn file_that_cannot_be_read_is_a_result_without_a_region() {
        let options = LoadOptions { project: None, home: None, images: &NoImages, given: Given::default() };
        let report = vmfile::load(Path::new("/shop/nowhere/VMFile.kdl"), &options).unwrap_err();
        let location = run(report.problems())["results"][0]["locations"][0].clone();
        assert_eq!(
            location,
            json!({"physicalLocation": {"artifactLocation": {"uri": "nowhere/VMFile.kdl"}}})
        );
    }

    #[test]
    fn every_code_of_the_planner_has_a_description() {
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../planner/src/vmfile")];
        let mut sources = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path)
                } else {
                    sources.push(fs::read_to_string(path).unwrap())
                }
            }
        }
        let codes: BTreeSet<String> = sources
            .iter()
            .flat_map(|source| {
                let code = source.split('"').filter(|piece| piece.starts_with("vmfile::"));
                code.map(str::to_owned).collect::<Vec<_>>()
            })
            .filter(|code| code != "vmfile::x")
            .collect();
        assert!(codes.len() > 20, "{codes:?}");
        let other = description("");
        let silent: Vec<_> = codes.iter().filter(|code| description(code) == other).collect();
        assert!(silent.is_empty(), "say in `description` what these are about: {silent:?}");
    }
}

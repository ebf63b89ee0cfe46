//! The first pass: source → AST as written. Follows includes, and leaves out what does not fit the grammar.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use miette::SourceSpan;
use vmctl_providers::Digest;

use super::ast::{Node, Scalar, Value};
use super::fields::shorten;
use super::files::{FileError, Files, read_text};
use super::grammar::{INCLUDE, PROJECT, TOP, VALUES};
use super::report::Fault;
use super::scan::MAX_BYTES;
use super::shape::Checker;
use super::source;
use super::sources::Sources;

/// Files that one VMFile may consist of.
const MAX_FILES: usize = 1_000;

/// A project that is named where no project can be named.
pub(super) const MISPLACED_PROJECT: &str = "vmfile::project";

/// A VMFile as written, with everything that it includes.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) sources: Sources,
    /// The nodes that fit the grammar, in the order of the text.
    pub(super) nodes: Vec<Node>,
    /// The files of values for variables, in the order in which they were given.
    pub(super) values: Vec<Vec<Node>>,
    pub(super) faults: Vec<Fault>,
    /// Some text could not be read at all, so that what depends on the whole cannot be judged.
    pub(super) is_partial: bool,
}

impl Document {
    /// A document of one text, without the files that it includes.
    pub(super) fn of_text(file: &str, text: &str) -> Self {
        let mut document = Self { sources: Sources::of(file, text.to_owned()), ..Self::default() };
        let nodes = document.parse(0);
        document.check(nodes);
        document
    }

    /// Reads the text of `path`, and of all files that it includes; each is noted in `files`.
    pub(super) fn read(path: &Path, shown: &str, folder: PathBuf, text: String, files: &mut Files) -> Self {
        let mut document = Self::default();
        let base = document.sources.add(shown.to_owned(), folder, text);
        let written = document.parse(base);
        let mut trail = vec![identity(path)];
        let mut included = HashMap::from([(trail[0].clone(), None)]);
        let nodes = document.follow(written, files, &mut trail, &mut included);
        document.check(nodes);
        document
    }

    /// Reads a file of values for variables.
    pub(super) fn read_values(&mut self, path: &Path) {
        let shown = path.display().to_string();
        match read_text(path, MAX_BYTES as u64) {
            Ok(text) => {
                let length = text.len();
                let base = self.sources.add(shown, PathBuf::new(), text);
                let read = self.faults.len();
                let nodes = self.parse(base);
                if self.faults.len() > read {
                    // Nobody can tell yet which of its values are sensitive.
                    self.sources.hide((base, length).into());
                }
                let mut checker = Checker::default();
                self.values.push(checker.block(nodes, "in a file of values", &VALUES));
                self.faults.extend(checker.faults);
            }
            Err(error) => self.faults.push(
                Fault::error("vmfile::variable", format!("cannot read the values in `{shown}`: {error}"))
                    .help(match error {
                        FileError::Missing => "the path is relative to the working folder",
                        error => error.help(),
                    }),
            ),
        }
    }

    fn parse(&mut self, base: usize) -> Vec<Node> {
        match source::read(self.sources.text(base), base) {
            Ok(nodes) => nodes,
            Err(faults) => {
                self.is_partial = true;
                self.faults.extend(faults);
                Vec::new()
            }
        }
    }

    fn check(&mut self, nodes: Vec<Node>) {
        let elsewhere = |span: SourceSpan| self.sources.at(span.offset()).is_some_and(|(file, _)| file > 0);
        let (misplaced, nodes): (Vec<_>, Vec<_>) =
            nodes.into_iter().partition(|node| node.name.value == PROJECT.name && elsewhere(node.name.span));
        let mut checker = Checker::default();
        self.nodes = checker.block(nodes, "at the top level", &TOP);
        self.faults.extend(checker.faults);
        self.faults.extend(misplaced.iter().map(|node| {
            Fault::error(MISPLACED_PROJECT, "`project` stands in an included file")
                .at(node.name.span, "not here")
                .help("write it in the VMFile itself, so that the project does not depend on other files")
        }));
    }

    /// `nodes` with the content of the files that they include in their place. `trail` leads from the VMFile to the
    /// file that they stand in.
    fn follow(
        &mut self,
        nodes: Vec<Node>,
        files: &mut Files,
        trail: &mut Vec<PathBuf>,
        included: &mut HashMap<PathBuf, Option<SourceSpan>>,
    ) -> Vec<Node> {
        let mut all = Vec::with_capacity(nodes.len());
        for node in nodes {
            if node.name.value != INCLUDE.name {
                all.push(node);
                continue;
            }
            // Its shape is checked with that of all others.
            if let Some((path, value)) = self.included(&node, files) {
                all.extend(self.include(&path, &value, files, trail, included));
            }
            all.push(node);
        }
        all
    }

    /// The path that an `include` names, if it names one.
    fn included(&mut self, node: &Node, files: &Files) -> Option<(PathBuf, Value)> {
        let value = node.args.first();
        let Some((value, Scalar::Text(text))) = value.map(|value| (value, &value.scalar)) else {
            self.faults.push(
                Fault::error("vmfile::include", "`include` names a file")
                    .at(value.map_or(node.name.span, |value| value.span), "no path")
                    .help(format!("write {}", INCLUDE.usage)),
            );
            self.is_partial = true;
            return None;
        };
        if value.annotation.is_some() {
            // Told when its shape is checked.
            self.is_partial = true;
            return None;
        }
        match files.path_in(self.sources.folder(value.span), text) {
            Ok(path) => Some((path, value.clone())),
            Err(error) => {
                self.unreadable(value, &error);
                None
            }
        }
    }

    fn include(
        &mut self,
        path: &Path,
        written: &Value,
        files: &mut Files,
        trail: &mut Vec<PathBuf>,
        included: &mut HashMap<PathBuf, Option<SourceSpan>>,
    ) -> Vec<Node> {
        let real = identity(path);
        if let Some(start) = trail.iter().position(|file| *file == real) {
            let shown: Vec<_> = trail[start..].iter().chain([&real]).map(|file| self.shown(file)).collect();
            self.faults.push(
                Fault::error("vmfile::cycle", format!("files include each other: {}", shown.join(" -> ")))
                    .at(written.span, "includes what includes it")
                    .help("remove one of these `include`, and put what both need into a file of its own"),
            );
            return Vec::new();
        }
        if let Some(earlier) = included.get(&real).copied().flatten() {
            self.faults.push(
                Fault::error("vmfile::duplicate", "this file is included twice")
                    .at(written.span, "again here")
                    .at(earlier, "first here")
                    .help("keep one of them: everything in it counts for all files"),
            );
            return Vec::new();
        }
        if self.sources.len() >= MAX_FILES {
            let message = format!("a VMFile consists of at most {MAX_FILES} files");
            self.faults.push(
                Fault::error("vmfile::too-big", message)
                    .at(written.span, "one too many")
                    .help("put several machines into one file"),
            );
            return Vec::new();
        }
        included.insert(real.clone(), Some(written.span));
        let text = match read_text(path, MAX_BYTES as u64) {
            Ok(text) => text,
            Err(error) => {
                self.unreadable(written, &error);
                return Vec::new();
            }
        };
        files.note(path, Digest::of(&text));
        let folder = real.parent().map(Path::to_owned).unwrap_or_default();
        let base = self.sources.add(self.shown(path), folder, text);
        let nodes = self.parse(base);
        trail.push(real);
        let nodes = self.follow(nodes, files, trail, included);
        trail.pop();
        nodes
    }

    fn unreadable(&mut self, written: &Value, error: &FileError) {
        self.is_partial = true;
        let Scalar::Text(text) = &written.scalar else { return };
        let message = format!("cannot include `{}`: {error}", shorten(text));
        self.faults
            .push(Fault::error("vmfile::include", message).at(written.span, "this path").help(error.help()));
    }

    /// An included file as messages name it: relative to the VMFile's folder where it is below it.
    fn shown(&self, path: &Path) -> String {
        let folder = self.sources.folder((0, 0).into());
        match path.strip_prefix(folder) {
            Ok(below) => self.sources.beside_first(below).display().to_string(),
            Err(_) => path.display().to_string(),
        }
    }
}

/// What tells one file from another, whatever it is called.
fn identity(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

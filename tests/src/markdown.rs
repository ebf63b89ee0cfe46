//! What the tests of the documentation ask of a page of Markdown: its links, its headings, its commands.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use crate::surroundings::repository;

/// Folders of the repository in which no page stands that people read there.
const PASSED_OVER: [&str; 3] = ["target", ".cache", ".git"];

/// A page of the repository.
#[derive(Debug)]
pub struct Page {
    /// Its path from the root of the repository, with `/` between folders.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// A fenced block.
#[derive(Debug, PartialEq, Eq)]
pub struct Fence {
    /// What stands behind the three backquotes.
    pub kind: String,
    /// What stands in the block.
    pub text: String,
    /// The line of its first line, counted from 1.
    pub line: usize,
}

/// A command line that a page shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The command, with all lines that it goes over.
    pub command: String,
    /// What the page says that it prints, line by line.
    pub output: Vec<String>,
    /// The line of the page, counted from 1.
    pub line: usize,
}

impl Page {
    /// All pages of the repository, in the order of their names.
    pub fn all() -> Vec<Self> {
        let root = repository();
        let mut pages = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in folder.read_dir().expect("a folder of the repository").flatten() {
                let path = entry.path();
                let name = path.strip_prefix(&root).expect("it is inside").display().to_string();
                if path.is_dir() && !PASSED_OVER.contains(&&*name) && !name.ends_with("/target") {
                    folders.push(path);
                } else if name.ends_with(".md") {
                    let text = std::fs::read_to_string(&path).expect("a page is text");
                    pages.push(Self { name, text });
                }
            }
        }
        pages.sort_by(|one, other| one.name.cmp(&other.name));
        pages
    }

    /// The page called `name`.
    pub fn named(name: &str) -> Self {
        let path = repository().join(name);
        let text = std::fs::read_to_string(&path);
        let text = text.unwrap_or_else(|error| panic!("cannot read `{}`: {error}", path.display()));
        Self { name: name.to_owned(), text }
    }

    /// Where its links and pictures lead, as written.
    pub fn links(&self) -> BTreeSet<String> {
        events(&self.text)
            .filter_map(|event| match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    Some(dest_url.to_string())
                }
                _ => None,
            })
            .collect()
    }

    /// The anchors of its headings, as GitHub and mdBook make them.
    pub fn anchors(&self) -> BTreeSet<String> {
        let mut anchors = BTreeSet::new();
        let mut heading = None;
        for event in events(&self.text) {
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    let anchor = anchor(&heading.take().unwrap_or_default());
                    let numbered = (1..).map(|number| format!("{anchor}-{number}"));
                    let mut all = std::iter::once(anchor.clone()).chain(numbered);
                    anchors.extend(all.find(|one| !anchors.contains(one)));
                }
                Event::Text(text) | Event::Code(text) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&text);
                    }
                }
                _ => {}
            }
        }
        anchors
    }

    /// Its fenced blocks, in order.
    pub fn fences(&self) -> Vec<Fence> {
        let parser = Parser::new_ext(&self.text, Options::ENABLE_TABLES).into_offset_iter();
        let mut found = Vec::new();
        let mut open: Option<Fence> = None;
        for (event, range) in parser {
            match event {
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(kind))) => {
                    let line = self.text[..range.start].matches('\n').count() + 2;
                    open = Some(Fence { kind: kind.to_string(), text: String::new(), line });
                }
                Event::Text(text) => {
                    if let Some(fence) = &mut open {
                        fence.text += &text;
                    }
                }
                Event::End(TagEnd::CodeBlock) => found.extend(open.take()),
                _ => {}
            }
        }
        found
    }

    /// The command lines in its blocks of the kinds `sh` (each line is one) and `console` (each line behind `$ ` is one,
    /// and what follows is printed by it).
    pub fn commands(&self) -> Vec<Shown> {
        self.fences().iter().flat_map(Fence::commands).collect()
    }

    /// Its pieces of code within lines.
    pub fn codes(&self) -> Vec<String> {
        let code = |event| match event {
            Event::Code(text) => Some(text.to_string()),
            _ => None,
        };
        events(&self.text).filter_map(code).collect()
    }

    /// The file or folder of the repository that `link` leads to, from the root, and the anchor in it; nothing for
    /// links to other places.
    pub fn target(&self, link: &str) -> Option<(PathBuf, Option<String>)> {
        if link.contains("://") || link.starts_with("mailto:") {
            return None;
        }
        let (path, anchor) = match link.split_once('#') {
            Some((path, anchor)) => (path, Some(anchor.to_owned())),
            None => (link, None),
        };
        if path.is_empty() {
            return Some((PathBuf::from(&self.name), anchor));
        }
        let folder = Path::new(&self.name).parent().unwrap_or(Path::new(""));
        Some((flat(&folder.join(path)), anchor))
    }
}

impl Fence {
    fn commands(&self) -> Vec<Shown> {
        let is_console = match self.kind.as_str() {
            "sh" => false,
            "console" => true,
            _ => return Vec::new(),
        };
        let mut found: Vec<Shown> = Vec::new();
        for (line, text) in (self.line..).zip(self.text.lines()) {
            if let Some(last) = found.last_mut().filter(|last| goes_on(&last.command)) {
                last.command += &format!("\n{text}");
                continue;
            }
            match (is_console, text.strip_prefix("$ ")) {
                (true, Some(command)) => {
                    found.push(Shown { command: command.to_owned(), output: Vec::new(), line });
                }
                (true, None) => {
                    let last = found.last_mut();
                    last.expect("a block of the kind `console` begins with a command")
                        .output
                        .push(text.into());
                }
                (false, _) if text.is_empty() || text.starts_with('#') => {}
                (false, _) => found.push(Shown { command: text.to_owned(), output: Vec::new(), line }),
            }
        }
        found
    }
}

/// Whether a command is not at its end: it is within quotes, or its last sign says so.
fn goes_on(command: &str) -> bool {
    let mut quote = None;
    let mut before = ' ';
    for char in command.chars() {
        let is_escaped = before == '\\' && quote != Some('\'');
        match quote {
            None if char == '#' && before.is_whitespace() => return false,
            None if matches!(char, '\'' | '"') && !is_escaped => quote = Some(char),
            Some(open) if char == open && !is_escaped => quote = None,
            _ => {}
        }
        before = if is_escaped { ' ' } else { char };
    }
    quote.is_some() || before == '\\'
}

fn events(text: &str) -> impl Iterator<Item = Event<'_>> {
    Parser::new_ext(text, Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH)
}

/// The anchor of a heading: letters, digits, `-` and `_` in lower case, and `-` for blanks.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter_map(|char| match char {
        ' ' => Some('-'),
        '-' | '_' => Some(char),
        _ if char.is_alphanumeric() => Some(char),
        _ => None,
    });
    kept.flat_map(char::to_lowercase).collect()
}

/// A path without `.` and `..` in it.
fn flat(path: &Path) -> PathBuf {
    let mut flat = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                assert!(flat.pop(), "`{}` leads out of the repository", path.display());
            }
            std::path::Component::CurDir => {}
            other => flat.push(other),
        }
    }
    flat
}

#[test]
fn commands_go_over_several_lines() {
    let text =
        "```sh\nvmctl plan # it's\njq 'a\n  b' x\nvmctl \\\n  list\n```\n```console\n$ vmctl up\ndone\n```\n";
    let page = Page { name: String::new(), text: text.to_owned() };
    let commands = page.commands();
    let told: Vec<_> = commands.iter().map(|shown| (shown.line, shown.command.as_str())).collect();
    assert_eq!(
        told,
        [(2, "vmctl plan # it's"), (3, "jq 'a\n  b' x"), (5, "vmctl \\\n  list"), (9, "vmctl up")]
    );
    assert_eq!(commands[3].output, ["done"]);
}

//! The door to the kdl crate: text in, our own nodes out. No other file names that crate.

use std::io;
use std::num::NonZero;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use miette::SourceSpan;

use super::ast::{Node, Scalar, Spanned, Value};
use super::report::Fault;
use super::scan::{self, Scanned};

/// Stack of the parser's thread. The crate recurses for each level of nesting, with up to 20 KiB a level in debug
/// builds; `scan` allows 64 levels, the rest is reserve for recovery paths.
const STACK: usize = 64 << 20;

/// Bytes that are parsed at once. The crate's tree takes close to 1 KiB for each value, so that pieces keep memory
/// small; and they are parsed side by side.
const PIECE: usize = 64 << 10;

/// Threads that parse. More gain nothing: 16 MiB, the longest text, are 256 pieces.
const MAX_THREADS: usize = 8;

/// Syntax errors that are shown; the crate's recovery adds follow-up errors that only confuse.
const SHOWN_ERRORS: usize = 5;

/// Reads `text`, which begins at `base` among all sources; on failure tells at most a few syntax errors, the first ones.
pub(super) fn read(text: &str, base: usize) -> Result<Vec<Node>, Vec<Fault>> {
    parse(text, base).map_err(|faults| faults.into_iter().map(|fault| fault.shifted(base)).collect())
}

fn parse(text: &str, base: usize) -> Result<Vec<Node>, Vec<Fault>> {
    let scanned = scan::scan(text)?;
    let pieces = pieces(&scanned, PIECE);
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS).min(pieces.len());
    let next = AtomicUsize::new(0);
    let work = || {
        let mut parsed = Vec::new();
        while let Some(range) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            parsed.push((range.start, piece(&scanned.clean, range.clone(), base)));
        }
        parsed
    };
    let parsed: Result<Vec<_>, _> = thread::scope(|scope| {
        let start = |_| {
            let thread = thread::Builder::new().name("vmfile-parser".to_owned()).stack_size(STACK);
            thread.spawn_scoped(scope, work).map_err(|error| vec![no_thread(&error)])
        };
        let started: Vec<_> = (0..threads).map(start).collect();
        // All are waited for, whatever became of the others.
        let ended = started.into_iter().map(|thread| thread?.join().map_err(|_| vec![panicked()]));
        ended.collect::<Vec<_>>().into_iter().collect()
    });
    let mut parsed: Vec<_> = parsed?.into_iter().flatten().collect();
    parsed.sort_unstable_by_key(|(start, _)| *start);
    let (mut nodes, mut faults) = (Vec::new(), Vec::new());
    for (_, result) in parsed {
        match result {
            Ok(read) => nodes.extend(read),
            Err(told) => faults.extend(told),
        }
    }
    faults.truncate(SHOWN_ERRORS);
    if faults.is_empty() { Ok(nodes) } else { Err(faults) }
}

/// Cuts a text between nodes of its top level into pieces of `size` bytes or a node more.
fn pieces(scanned: &Scanned, size: usize) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let mut start = 0;
    for end in &scanned.ends {
        if end - start >= size {
            pieces.push(start..*end);
            start = *end;
        }
    }
    pieces.push(start..scanned.clean.len());
    pieces
}

/// Parses the nodes of a piece of a text that begins at `base` among all sources.
fn piece(clean: &str, range: Range<usize>, base: usize) -> Result<Vec<Node>, Vec<Fault>> {
    let start = range.start;
    match kdl::KdlDocument::parse_v2(&clean[range]) {
        Ok(document) => Ok(Reader { base: base + start }.nodes(&document)),
        Err(error) => Err(faults_of(error).into_iter().map(|fault| fault.shifted(start)).collect()),
    }
}

fn panicked() -> Fault {
    Fault::error("vmfile::syntax", "the KDL parser failed on this file")
        .at((0, 0).into(), "somewhere in this file")
        .help("this is a fault of vmctl: report it, with the file")
}

fn no_thread(error: &io::Error) -> Fault {
    Fault::error("vmfile::syntax", format!("cannot start a thread to parse the file: {error}"))
        .at((0, 0).into(), "not parsed")
        .help("the host has no threads or memory left: end something else and try again")
}

/// Turns the crate's tree into ours.
struct Reader {
    base: usize,
}

impl Reader {
    fn nodes(&self, document: &kdl::KdlDocument) -> Vec<Node> {
        document.nodes().iter().map(|node| self.node(node)).collect()
    }

    fn node(&self, node: &kdl::KdlNode) -> Node {
        let mut args = Vec::new();
        let mut props = Vec::new();
        for entry in node.entries() {
            match entry.name() {
                None => args.push(self.value(entry)),
                Some(name) => props.push((self.identifier(name), self.value(entry))),
            }
        }
        Node {
            name: self.identifier(node.name()),
            annotation: node.ty().map(|name| self.identifier(name)),
            args,
            props,
            children: node.children().map(|block| self.nodes(block)),
            sound: true,
        }
    }

    fn identifier(&self, identifier: &kdl::KdlIdentifier) -> Spanned<String> {
        Spanned { value: identifier.value().to_owned(), span: self.span(identifier.span()) }
    }

    fn value(&self, entry: &kdl::KdlEntry) -> Value {
        let scalar = match entry.value() {
            kdl::KdlValue::String(text) => Scalar::Text(text.clone()),
            kdl::KdlValue::Integer(number) => Scalar::Integer(*number),
            kdl::KdlValue::Float(number) => Scalar::Float(*number),
            kdl::KdlValue::Bool(truth) => Scalar::Bool(*truth),
            kdl::KdlValue::Null => Scalar::Null,
        };
        // The crate knows no span of a property's value alone; the value is the tail of its entry.
        let whole = entry.span();
        let length = entry.format().map_or(whole.len(), |format| format.value_repr.len()).min(whole.len());
        let start = whole.offset() + whole.len() - length;
        Value {
            scalar,
            span: self.span((start, length).into()),
            annotation: entry.ty().map(|name| self.identifier(name)),
            origin: None,
        }
    }

    fn span(&self, span: SourceSpan) -> SourceSpan {
        (span.offset() + self.base, span.len()).into()
    }
}

fn faults_of(error: kdl::KdlError) -> Vec<Fault> {
    let mut diagnostics = error.diagnostics;
    diagnostics.sort_by_key(|diagnostic| diagnostic.span.offset());
    diagnostics.dedup_by_key(|diagnostic| diagnostic.span.offset());
    diagnostics
        .into_iter()
        .take(SHOWN_ERRORS)
        .map(|diagnostic| {
            let message = diagnostic.message.unwrap_or_else(|| "unexpected text".to_owned());
            Fault::error("vmfile::syntax", format!("not valid KDL: {}", lower_first(&message)))
                .at(diagnostic.span, diagnostic.label.unwrap_or_else(|| "here".to_owned()))
                .help(diagnostic.help.unwrap_or_else(|| {
                    "a node is a name, then its values, then perhaps a block: `vm \"web\" { … }`".to_owned()
                }))
        })
        .collect()
}

fn lower_first(text: &str) -> String {
    let mut rest = text.trim_end_matches('.').chars();
    rest.next().map_or_else(String::new, |first| first.to_lowercase().chain(rest).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(text: &str, span: SourceSpan) -> &str {
        &text[span.offset()..span.offset() + span.len()]
    }

    #[test]
    fn pieces_say_what_the_whole_says() {
        let text = "/- gone { a; b }\na 1; b { c { d } } // e\n/- \n f 2 \\\n 3\ng \"\"\"\n x\n \"\"\"; /* ; */ h\r\n\ni key=1 /-{ j\n }\n";
        let scanned = scan::scan(text).unwrap();
        let read = |size| -> Vec<Node> {
            let pieces = pieces(&scanned, size);
            assert_eq!(
                pieces.iter().map(|range| &scanned.clean[range.clone()]).collect::<String>(),
                scanned.clean
            );
            pieces.into_iter().flat_map(|range| piece(&scanned.clean, range, 7).unwrap()).collect()
        };
        let whole = read(usize::MAX);
        assert_eq!(
            whole.iter().map(|node| node.name.value.as_str()).collect::<Vec<_>>(),
            ["a", "b", "g", "h", "i"]
        );
        assert_eq!(read(1), whole);
        assert_eq!(scanned.ends.len(), 7);
    }

    #[test]
    fn pieces_of_any_file_say_what_the_whole_says() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/vmfile");
        let mut read = 0;
        for entry in folder.read_dir().unwrap() {
            let Ok(text) = std::fs::read_to_string(entry.unwrap().path()) else { continue };
            let Ok(scanned) = scan::scan(&text) else { continue };
            let whole = piece(&scanned.clean, 0..text.len(), 0);
            let parts: Result<Vec<_>, _> =
                pieces(&scanned, 1).into_iter().map(|range| piece(&scanned.clean, range, 0)).collect();
            assert_eq!(parts.ok().map(|parts| parts.concat()), whole.ok(), "{text}");
            read += 1;
        }
        assert!(read > 10, "only {read} texts");
    }

    #[test]
    fn long_text_is_read_in_order() {
        let line = |index: usize| format!("vm \"{index}\" {{ memory {index} }}\n");
        let text: String = (0..20_000).map(line).collect();
        let nodes = read(&text, 0).unwrap();
        assert_eq!(nodes.len(), 20_000);
        for (index, node) in nodes.iter().enumerate() {
            assert_eq!(slice(&text, node.args[0].span), format!("\"{index}\""));
        }
    }

    #[test]
    fn spans_point_at_values_alone_even_after_comments_and_wide_letters() {
        let text = "/* ä */ vm \"ü\" /* x\n y */ size=0x10 key=(t)#\"r\"# // end\n  /- gone 1\n  tail";
        let nodes = read(text, 0).unwrap();
        assert_eq!(nodes.len(), 2);
        assert_eq!(slice(text, nodes[0].name.span), "vm");
        assert_eq!(slice(text, nodes[0].args[0].span), "\"ü\"");
        assert_eq!(nodes[0].args[0].scalar, Scalar::Text("ü".to_owned()));
        assert_eq!(slice(text, nodes[0].props[0].0.span), "size");
        assert_eq!(slice(text, nodes[0].props[0].1.span), "0x10");
        assert_eq!(nodes[0].props[0].1.scalar, Scalar::Integer(16));
        assert_eq!(slice(text, nodes[0].props[1].1.span), "#\"r\"#");
        assert_eq!(slice(text, nodes[1].name.span), "tail");
    }
}

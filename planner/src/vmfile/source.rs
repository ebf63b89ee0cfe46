//! Text in, nodes out: what is plain is read by [`plain`], the rest by the kdl crate, which no other file names.

use std::io;
use std::num::NonZero;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use miette::SourceSpan;

use super::ast::{Node, Scalar, Spanned, Value};
use super::plain;
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
    let (mut parsed, pieces) = plain_parts(&scanned, base);
    parsed.extend(by_crate(&scanned.clean, &pieces, base)?);
    parsed.sort_unstable_by_key(|part| part.start);
    let (mut nodes, mut faults) = (Vec::new(), Vec::new());
    for part in parsed {
        match part.read {
            Ok(read) if nodes.is_empty() => nodes = read,
            Ok(read) => nodes.extend(read),
            Err(told) => faults.extend(told),
        }
    }
    faults.truncate(SHOWN_ERRORS);
    if faults.is_empty() { Ok(nodes) } else { Err(faults) }
}

/// What came of a part of a text.
struct Part {
    start: usize,
    read: Result<Vec<Node>, Vec<Fault>>,
}

/// Reads what is plain, and tells what is not, in pieces.
fn plain_parts(scanned: &Scanned, base: usize) -> (Vec<Part>, Vec<Range<usize>>) {
    let (mut parts, mut rest) = (Vec::<Part>::new(), Vec::new());
    let mut follows = false;
    for top in tops(scanned) {
        let read = plain::read(&scanned.clean, top.clone(), base);
        match (read, parts.last_mut()) {
            (None, _) => {
                join(&mut rest, top, PIECE);
                follows = false;
                continue;
            }
            (Some(read), Some(Part { read: Ok(nodes), .. })) if follows => nodes.extend(read),
            (Some(read), _) => parts.push(Part { start: top.start, read: Ok(read) }),
        }
        follows = true;
    }
    (parts, rest)
}

/// Parses pieces of a text, side by side.
fn by_crate(clean: &str, pieces: &[Range<usize>], base: usize) -> Result<Vec<Part>, Vec<Fault>> {
    if pieces.is_empty() {
        return Ok(Vec::new());
    }
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS).min(pieces.len());
    let next = AtomicUsize::new(0);
    let work = || {
        let mut parsed = Vec::new();
        while let Some(range) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            parsed.push(Part { start: range.start, read: piece(clean, range.clone(), base) });
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
    Ok(parsed?.into_iter().flatten().collect())
}

/// Where the nodes of the top level stand, with what stands between them.
fn tops(scanned: &Scanned) -> impl Iterator<Item = Range<usize>> {
    let ends = scanned.ends.iter().copied();
    let starts = std::iter::once(0).chain(ends.clone());
    starts.zip(ends.chain([scanned.clean.len()])).map(|(start, end)| start..end)
}

/// Adds `range` to the last of `pieces` if it follows that, and that has less than `size` bytes.
fn join(pieces: &mut Vec<Range<usize>>, range: Range<usize>, size: usize) {
    match pieces.last_mut().filter(|last| last.end == range.start && last.len() < size) {
        Some(last) => last.end = range.end,
        None => pieces.push(range),
    }
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

    fn pieces(scanned: &Scanned, size: usize) -> Vec<Range<usize>> {
        let mut pieces = Vec::new();
        tops(scanned).for_each(|top| join(&mut pieces, top, size));
        pieces
    }

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

    /// Holds what is read as plain in `text` to what the crate reads; returns how many nodes of the top level that are.
    fn hold_to_the_crate(text: &str) -> usize {
        let Ok(scanned) = scan::scan(text) else { return 0 };
        let mut plain = 0;
        for top in tops(&scanned) {
            if let Some(read) = plain::read(&scanned.clean, top.clone(), 7) {
                plain += read.len();
                let whole = piece(&scanned.clean, top.clone(), 7);
                assert_eq!(whole.ok(), Some(read), "{:?}", &scanned.clean[top]);
            }
        }
        plain
    }

    #[test]
    fn plain_nodes_of_any_file_are_what_the_crate_reads() {
        let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let (mut plain, mut files) = (0, 0);
        for folder in ["../tests/fuzz/corpus/vmfile", "tests/corpus"] {
            for entry in here.join(folder).read_dir().unwrap() {
                if let Ok(text) = std::fs::read_to_string(entry.unwrap().path()) {
                    plain += hold_to_the_crate(&text);
                    files += 1;
                }
            }
        }
        assert!(plain > files / 2, "{plain} nodes in {files} files");
    }

    #[test]
    fn usual_machine_is_plain() {
        let text = "vm \"web\" count=3 {\n    // here\n    image (ref)\"debian\"\n    vcpus 2; memory \"2GiB\"\r\n    \
                    network \"user\" {\n        forward host=8080 guest=80\n    }\n    state running\n    cloud-init {}\n}\n";
        assert_eq!(hold_to_the_crate(text), 1);
    }

    proptest::proptest! {
        #[test]
        fn plain_nodes_are_what_the_crate_reads(
            tokens in proptest::collection::vec((0..TOKENS.len(), 0..JOINTS.len()), 1..24),
        ) {
            let text: String = tokens.into_iter().flat_map(|(token, joint)| [TOKENS[token], JOINTS[joint]]).collect();
            // So that most of them are right.
            let open = text.matches('{').count().saturating_sub(text.matches('}').count());
            hold_to_the_crate(&format!("{text}{}", "\n}".repeat(open)));
        }
    }

    const TOKENS: &[&str] = &[
        "vm",
        "a-b",
        "_x",
        "é",
        "x.y",
        "1",
        "0",
        "007",
        "1234567890123456789",
        "-1",
        "1.5",
        "0x1f",
        "1_000",
        "1e3",
        "\"\"",
        "\"ä // b\"",
        "\"a\\n\"",
        "#\"raw\"#",
        "\"\"\"\nx\n\"\"\"",
        "#true",
        "#false",
        "#null",
        "#inf",
        "true",
        "false",
        "null",
        "inf",
        "nan",
        "true=1",
        "(true)1",
        "(var)\"x\"",
        "(var)x",
        "( t )1",
        "(t)#true",
        "key=1",
        "key=word",
        "key=\"v\"",
        "key=(t)\"v\"",
        "\"key\"=1",
        "a {",
        "vm \"b\" {",
        "{",
        "}",
        "}\n",
        "/-",
        "/- x\n",
    ];
    const JOINTS: &[&str] = &[
        " ", " ", " ", "\t", "\n", "\n", "\n", "\r\n", ";", "", "  ", " // c\n", "/* c */", " \\\n", "\u{a0}",
    ];

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

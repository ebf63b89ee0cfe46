//! The door to the kdl crate: text in, our own nodes out. No other file names that crate.

use miette::SourceSpan;

use super::ast::{Node, Scalar, Spanned, Value};
use super::report::Fault;
use super::scan;

/// Stack of the parser's thread. The crate recurses for each level of nesting, with up to 20 KiB a level in debug
/// builds; `scan` allows 64 levels, the rest is reserve for recovery paths.
const STACK: usize = 64 << 20;

/// Syntax errors that are shown; the crate's recovery adds follow-up errors that only confuse.
const SHOWN_ERRORS: usize = 5;

/// Reads `text`, which begins at `base` among all sources; on failure tells at most a few syntax errors, the first ones.
pub(super) fn read(text: &str, base: usize) -> Result<Vec<Node>, Vec<Fault>> {
    parse(text, base).map_err(|faults| faults.into_iter().map(|fault| fault.shifted(base)).collect())
}

fn parse(text: &str, base: usize) -> Result<Vec<Node>, Vec<Fault>> {
    let clean = scan::scan(text)?;
    let parsed = std::thread::scope(|scope| {
        let parser = std::thread::Builder::new()
            .name("vmfile-parser".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, || match kdl::KdlDocument::parse_v2(&clean) {
                Ok(document) => Ok(Reader { base }.nodes(&document)),
                Err(error) => Err(faults_of(error)),
            });
        parser.map(|thread| thread.join())
    });
    match parsed {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(vec![
            Fault::error("vmfile::syntax", "the KDL parser failed on this file")
                .at((0, 0).into(), "somewhere in this file")
                .help("this is a fault of vmctl: report it, with the file"),
        ]),
        Err(error) => Err(vec![
            Fault::error("vmfile::syntax", format!("cannot start a thread to parse the file: {error}"))
                .at((0, 0).into(), "not parsed")
                .help("the host has no threads or memory left: end something else and try again"),
        ]),
    }
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

//! Pictures as SVG that needs nothing else: a file of its own, or a part of an HTML page.

use std::fmt::Write as _;

use maud::{Markup, PreEscaped, html};

use super::label::label;
use super::layout::{Layout, MARGIN, Point, Rect};
use super::{Picture, PictureEdge, PictureNode};

/// Half of an arrow head's breadth, and its length.
const HEAD: (i64, i64) = (4, 8);

/// The style sheet that each drawing carries, bright or dark as its reader's surroundings are.
///
/// A page that embeds a drawing under a content security policy allows this text by its digest.
pub const STYLE: &str = "
.vmctl-picture{--paper:#fff;--ink:#1f2328;--line:#6e7781;--neutral:#f6f8fa;--neutral-line:#8c959f;
--good:#dafbe1;--good-line:#1a7f37;--change:#fff8c5;--change-line:#9a6700;--bad:#ffebe9;--bad-line:#cf222e;
--muted:#fff;--muted-line:#afb8c1;--soft:#59636e;font-family:ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace}
@media (prefers-color-scheme:dark){.vmctl-picture{--paper:#0d1117;--ink:#e6edf3;--line:#8b949e;
--neutral:#161b22;--neutral-line:#6e7681;--good:#12261e;--good-line:#3fb950;--change:#272115;--change-line:#d29922;
--bad:#25171c;--bad-line:#f85149;--muted:#0d1117;--muted-line:#484f58;--soft:#9198a1}}
.vmctl-picture .paper{fill:var(--paper)}
.vmctl-picture text{fill:var(--ink);font-size:12px}
.vmctl-picture .subtitle{fill:var(--soft);font-size:10.5px}
.vmctl-picture .label{fill:var(--soft);font-size:10.5px;text-anchor:middle;
paint-order:stroke;stroke:var(--paper);stroke-width:4px}
.vmctl-picture .line{fill:none;stroke:var(--line);stroke-width:1.3}
.vmctl-picture .head{fill:var(--line)}
.vmctl-picture .neutral rect{fill:var(--neutral);stroke:var(--neutral-line)}
.vmctl-picture .good rect{fill:var(--good);stroke:var(--good-line)}
.vmctl-picture .change rect{fill:var(--change);stroke:var(--change-line)}
.vmctl-picture .bad rect{fill:var(--bad);stroke:var(--bad-line)}
.vmctl-picture .muted rect{fill:var(--muted);stroke:var(--muted-line);stroke-dasharray:4 3}
.vmctl-picture .muted text{fill:var(--soft)}
";

/// The picture as one `<svg>` element, well-formed XML and of its natural size in pixels. Labels are cut.
pub fn svg(picture: &Picture) -> String {
    let layout = Layout::of(picture);
    let size = format!("0 0 {} {}", layout.width, layout.height);
    html! {
        svg xmlns="http://www.w3.org/2000/svg" class="vmctl-picture" role="img" viewBox=(size)
            width=(layout.width) height=(layout.height) {
            title { (label(&picture.title)) }
            style { (PreEscaped(STYLE)) }
            rect.paper width=(layout.width) height=(layout.height) {}
            @for (edge, points) in picture.arrows().zip(&layout.arrows) { (arrow(edge, points)) }
            @for (node, rect) in picture.nodes.iter().zip(&layout.boxes) { (node_box(node, rect)) }
        }
    }
    .into_string()
}

fn node_box(node: &PictureNode, rect: &Rect) -> Markup {
    let middle = rect.y + rect.height / 2;
    let (title, subtitle) = (label(&node.title), label(&node.subtitle));
    let first = if subtitle.is_empty() { middle + 4 } else { middle - 4 };
    html! {
        g class=(node.tone.name()) {
            rect x=(rect.x) y=(rect.y) width=(rect.width) height=(rect.height) rx="6" {}
            text x=(rect.x + MARGIN) y=(first) { (title) }
            @if !subtitle.is_empty() {
                text.subtitle x=(rect.x + MARGIN) y=(middle + 12) { (subtitle) }
            }
        }
    }
}

fn arrow(edge: &PictureEdge, points: &[Point]) -> Markup {
    let label = label(&edge.label);
    html! {
        path.line d=(line(points)) {}
        @if let Some(head) = head(points) { path.head d=(head) {} }
        @if let ([first, second, ..], false) = (points, label.is_empty()) {
            text.label x=((first.x + second.x) / 2) y=((first.y + second.y) / 2 + 4) { (label) }
        }
    }
}

/// Level lines, and rounded ones where the arrow rises or falls. It ends where its head begins.
fn line(points: &[Point]) -> String {
    let mut path = String::new();
    let Some((first, rest)) = points.split_first() else { return path };
    // Writing to a String cannot fail.
    let _ = write!(path, "M{} {}", first.x, first.y);
    let mut from = *first;
    for (index, to) in rest.iter().enumerate() {
        let back = if index + 1 == rest.len() { HEAD.1 * (to.x - from.x).signum() } else { 0 };
        let (x, middle) = (to.x - back, (from.x + to.x) / 2);
        let _ = if from.y == to.y {
            write!(path, "H{x}")
        } else {
            write!(path, "C{middle} {} {middle} {} {x} {}", from.y, to.y, to.y)
        };
        from = *to;
    }
    path
}

fn head(points: &[Point]) -> Option<String> {
    let [.., before, tip] = points else { return None };
    let x = tip.x - HEAD.1 * (tip.x - before.x).signum();
    Some(format!("M{x} {}L{} {}L{x} {}z", tip.y - HEAD.0, tip.x, tip.y, tip.y + HEAD.0))
}

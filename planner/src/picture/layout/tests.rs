//! What holds for the layout of any picture.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::picture::{PictureEdge, PictureNode, Tone};

fn picture(nodes: usize, arrows: &[(usize, usize)]) -> Picture {
    let node = |number| PictureNode {
        title: format!("vm.n{number}: start"),
        subtitle: String::new(),
        tone: Tone::Neutral,
    };
    let edge = |&(from, to): &(usize, usize)| PictureEdge { from, to, label: String::new() };
    Picture {
        title: String::new(),
        nodes: (0..nodes).map(node).collect(),
        edges: arrows.iter().map(edge).collect(),
    }
}

/// A graph without circles: each arrow leads to a higher number.
fn acyclic() -> impl Strategy<Value = Picture> {
    (2usize..40).prop_flat_map(|nodes| {
        let arrow = (0..nodes - 1).prop_flat_map(move |from| (Just(from), from + 1..nodes));
        proptest::collection::btree_set(arrow, 0..2 * nodes)
            .prop_map(move |arrows| picture(nodes, &Vec::from_iter(arrows)))
    })
}

/// Any graph, with circles, loops and ends that do not exist.
fn anything() -> impl Strategy<Value = Picture> {
    proptest::collection::vec((0usize..12, 0usize..12), 0..30).prop_map(|arrows| picture(10, &arrows))
}

fn overlap(one: &Rect, other: &Rect) -> bool {
    one.x < other.x + other.width
        && other.x < one.x + one.width
        && one.y < other.y + other.height
        && other.y < one.y + one.height
}

/// Whether an arrow between two of its points runs through a box: it stays between their heights and sides.
fn crosses(rect: &Rect, pair: &[Point]) -> bool {
    let (left, right) = (pair[0].x.min(pair[1].x), pair[0].x.max(pair[1].x));
    let (top, bottom) = (pair[0].y.min(pair[1].y), pair[0].y.max(pair[1].y));
    left < rect.x + rect.width && rect.x < right && top < rect.y + rect.height && rect.y < bottom
}

fn assert_sound(picture: &Picture) {
    let layout = Layout::of(picture);
    assert_eq!(layout.boxes.len(), picture.nodes.len());
    for (number, rect) in layout.boxes.iter().enumerate() {
        assert!(rect.x >= 0 && rect.y >= 0, "{rect:?}");
        assert!(rect.x + rect.width <= layout.width && rect.y + rect.height <= layout.height, "{rect:?}");
        let clash = layout.boxes[..number].iter().find(|other| overlap(rect, other));
        assert_eq!(clash, None, "{rect:?} is covered");
    }
    for (edge, points) in picture.arrows().zip(&layout.arrows) {
        let (from, to) = (layout.boxes[edge.from], layout.boxes[edge.to]);
        let ends = [points[0], points[points.len() - 1]];
        assert_eq!(ends.map(|end| end.y), [from, to].map(|rect| rect.y + rect.height / 2));
        for pair in points.windows(2) {
            let hit = layout.boxes.iter().find(|rect| crosses(rect, pair));
            assert_eq!(hit, None, "{edge:?} runs through a box");
        }
    }
    assert_eq!(Layout::of(picture), layout);
}

proptest! {
    #[test]
    fn arrows_lead_forward_and_around_the_boxes(picture in acyclic()) {
        assert_sound(&picture);
        for points in Layout::of(&picture).arrows {
            prop_assert!(points.windows(2).all(|pair| pair[0].x < pair[1].x), "{points:?}");
        }
    }

    #[test]
    fn circles_and_ends_that_do_not_exist_are_drawn_as_well_as_can_be(picture in anything()) {
        assert_sound(&picture);
    }
}

#[test]
fn chain_of_ten_thousand_is_one_level_line() {
    let chain: Vec<_> = (1..10_000).map(|number| (number - 1, number)).collect();
    let layout = Layout::of(&picture(10_000, &chain));
    let heights: BTreeSet<i64> = layout.boxes.iter().map(|rect| rect.y).collect();
    assert_eq!(heights.len(), 1);
}

#[test]
fn picture_of_nothing_has_a_size() {
    let empty = Layout { width: 2 * MARGIN, height: 2 * MARGIN, boxes: Vec::new(), arrows: Vec::new() };
    assert_eq!(Layout::of(&Picture::default()), empty);
}

#[test]
fn two_tiers_cross_no_arrows() {
    // Three chains, listed so that a drawing in that order would cross: 0→5→7, 1→4→6, 2→3→8.
    let layout = Layout::of(&picture(9, &[(0, 5), (5, 7), (1, 4), (4, 6), (2, 3), (3, 8)]));
    for chain in [[0, 5, 7], [1, 4, 6], [2, 3, 8]] {
        assert_eq!(BTreeSet::from(chain.map(|number| layout.boxes[number].y)).len(), 1, "{chain:?}");
    }
}

//! Where boxes and arrows of a picture stand: columns from left to right, each arrow to a later column.
//!
//! The ways are those of Sugiyama: columns by longest way ([`grid`]), few crossings by barycentres ([`order`]), level
//! arrows ([`place`]). An arrow over several columns has a place reserved in each, so that none runs through a box.

mod grid;
mod order;
mod place;

use grid::Grid;

use super::Picture;
use super::label::{columns, label};

/// Above so many boxes crossings are not reduced, so that time grows with size and not faster. Nobody follows the
/// arrows of such a picture anyhow.
pub(super) const MAX_SWEPT: usize = 600;

/// Columns of text to pixels, at the sizes that the drawing uses; monospaced fonts are 0.6 em wide.
const TITLE_PIXELS: f64 = 7.4;
const SUBTITLE_PIXELS: f64 = 6.5;

/// Space at the left and right of a box's text.
const PADDING: i64 = 12;
const BOX_HEIGHT: i64 = 28;
const TALL_BOX_HEIGHT: i64 = 44;
/// Free space between boxes of a column.
const BETWEEN_BOXES: f64 = 14.0;
/// What a bend needs between its neighbours.
const BEND_HEIGHT: f64 = 12.0;
/// Free space between columns, for arrows to rise and fall in.
const BETWEEN_COLUMNS: i64 = 56;
/// Space around the whole.
pub(super) const MARGIN: i64 = 12;

/// Where everything stands, in pixels from the upper left corner.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Width of the whole.
    pub(super) width: i64,
    /// Height of the whole.
    pub(super) height: i64,
    /// The boxes, in the picture's order.
    pub(super) boxes: Vec<Rect>,
    /// The arrows that can be drawn, in the picture's order.
    pub(super) arrows: Vec<Vec<Point>>,
}

/// A box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rect {
    pub(super) x: i64,
    pub(super) y: i64,
    pub(super) width: i64,
    pub(super) height: i64,
}

/// A point that an arrow passes in level direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) x: i64,
    pub(super) y: i64,
}

impl Layout {
    /// Lays a picture out. Same picture, same layout; boxes do not overlap.
    pub(super) fn of(picture: &Picture) -> Self {
        let arrows: Vec<_> = picture.arrows().map(|edge| (edge.from, edge.to)).collect();
        let mut grid = Grid::new(picture.nodes.len(), &arrows);
        if picture.nodes.len() <= MAX_SWEPT {
            order::reduce_crossings(&mut grid);
        }
        let is_tall = picture.nodes.iter().any(|node| !node.subtitle.is_empty());
        let box_height = if is_tall { TALL_BOX_HEIGHT } else { BOX_HEIGHT };
        let half = |cell| {
            if grid.is_bend(cell) { BEND_HEIGHT / 2.0 } else { (box_height as f64 + BETWEEN_BOXES) / 2.0 }
        };
        let middles: Vec<i64> =
            place::rows(&grid, half).into_iter().map(|middle| middle.round() as i64 + MARGIN).collect();
        let strips = strips(picture, &grid);
        let boxes: Vec<_> = (0..grid.boxes)
            .map(|cell| {
                let (x, width) = strips[grid.column_of[cell]];
                Rect { x, y: middles[cell] - box_height / 2, width, height: box_height }
            })
            .collect();
        let right = strips.last().map_or(MARGIN, |(x, width)| x + width);
        let bottom = middles.iter().max().map_or(MARGIN, |lowest| lowest + box_height / 2);
        Self {
            width: right + MARGIN,
            height: bottom + MARGIN,
            arrows: grid.routes.iter().map(|route| points(&grid, route, &strips, &middles)).collect(),
            boxes,
        }
    }
}

/// Left edge and width of each column, wide enough for the text of its boxes.
fn strips(picture: &Picture, grid: &Grid) -> Vec<(i64, i64)> {
    let mut widths = vec![0; grid.columns.len()];
    for (node, column) in picture.nodes.iter().zip(&grid.column_of) {
        let title = pixels(&node.title, TITLE_PIXELS);
        let subtitle = pixels(&node.subtitle, SUBTITLE_PIXELS);
        widths[*column] = widths[*column].max(title.max(subtitle) + 2 * PADDING);
    }
    let labels = picture.arrows().map(|edge| pixels(&edge.label, SUBTITLE_PIXELS)).max().unwrap_or(0);
    let gap = if labels == 0 { BETWEEN_COLUMNS } else { BETWEEN_COLUMNS + labels };
    let mut left = MARGIN;
    widths
        .into_iter()
        .map(|width| {
            let x = left;
            left += width + gap;
            (x, width)
        })
        .collect()
}

fn pixels(text: &str, per_column: f64) -> i64 {
    (columns(&label(text)) as f64 * per_column).ceil() as i64
}

/// What an arrow passes: out of its box, level through the columns on its way, into the other box.
fn points(grid: &Grid, route: &[usize], strips: &[(i64, i64)], middles: &[i64]) -> Vec<Point> {
    let is_forward =
        route.first().map(|cell| grid.column_of[*cell]) < route.last().map(|cell| grid.column_of[*cell]);
    let mut points = Vec::with_capacity(2 * route.len());
    for &cell in route {
        let (x, width) = strips[grid.column_of[cell]];
        let sides = if is_forward { [x, x + width] } else { [x + width, x] };
        points.extend(sides.map(|x| Point { x, y: middles[cell] }));
    }
    // The first point is the far side of the box it leaves, the last one that of the box it enters.
    points.pop();
    points.drain(..1);
    points
}

#[cfg(test)]
mod tests;

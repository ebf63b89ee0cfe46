//! Boxes in columns, by the longest way that leads to each.

use std::collections::VecDeque;

/// Bends that are reserved for arrows over several columns, in all. A graph of a thousand machines stays below; one
/// that would need millions is drawn all the same, with its longest arrows led straight.
const MAX_BENDS: usize = 50_000;

/// Columns of cells: first one per box, by its number, then one per bend of an arrow that passes a column.
#[derive(Debug)]
pub(super) struct Grid {
    /// How many cells are boxes.
    pub(super) boxes: usize,
    /// The cells of each column, from top to bottom.
    pub(super) columns: Vec<Vec<usize>>,
    /// The column of each cell.
    pub(super) column_of: Vec<usize>,
    /// For each cell, the cells of the next column that it is bound to.
    pub(super) ahead: Vec<Vec<usize>>,
    /// For each cell, the cells of the previous column that it is bound to.
    pub(super) behind: Vec<Vec<usize>>,
    /// For each arrow, the cells it passes, from its first box to its last.
    pub(super) routes: Vec<Vec<usize>>,
}

impl Grid {
    /// Lays out `boxes` boxes and the arrows between them, whose ends are below `boxes` and differ.
    ///
    /// Every arrow leads to a later column. Where arrows run in a circle, one of each circle is led backwards.
    pub(super) fn new(boxes: usize, arrows: &[(usize, usize)]) -> Self {
        let (sequence, turn) = sequence(boxes, arrows);
        let oriented: Vec<_> = arrows
            .iter()
            .map(|&(from, to)| if turn[from] < turn[to] { (from, to) } else { (to, from) })
            .collect();
        let column_of = longest_ways(&sequence, &oriented);
        let mut grid = Self {
            boxes,
            columns: Vec::new(),
            ahead: vec![Vec::new(); boxes],
            behind: vec![Vec::new(); boxes],
            routes: vec![Vec::new(); arrows.len()],
            column_of,
        };
        grid.lead(arrows, &oriented);
        grid.fill_columns(&sequence);
        grid
    }

    /// Whether a cell is a bend.
    pub(super) fn is_bend(&self, cell: usize) -> bool {
        cell >= self.boxes
    }

    /// Gives each arrow its cells; the shortest first, for as long as there are bends left.
    fn lead(&mut self, arrows: &[(usize, usize)], oriented: &[(usize, usize)]) {
        let span = |&(from, to): &(usize, usize)| self.column_of[to] - self.column_of[from];
        let spans: Vec<_> = oriented.iter().map(span).collect();
        let mut order: Vec<_> = (0..oriented.len()).collect();
        order.sort_by_key(|arrow| spans[*arrow]);
        for arrow in order {
            let (first, last) = oriented[arrow];
            let bends = spans[arrow] - 1;
            let mut route = vec![first];
            if self.column_of.len() - self.boxes + bends <= MAX_BENDS {
                route.extend((1..=bends).map(|step| self.add_bend(self.column_of[first] + step)));
            }
            route.push(last);
            for pair in route.windows(2) {
                if self.column_of[pair[0]] + 1 == self.column_of[pair[1]] {
                    self.ahead[pair[0]].push(pair[1]);
                    self.behind[pair[1]].push(pair[0]);
                }
            }
            if arrows[arrow].0 != first {
                route.reverse();
            }
            self.routes[arrow] = route;
        }
    }

    fn add_bend(&mut self, column: usize) -> usize {
        self.column_of.push(column);
        self.ahead.push(Vec::new());
        self.behind.push(Vec::new());
        self.column_of.len() - 1
    }

    /// Puts the cells into their columns in the order in which a walk from the first boxes, each way to its end,
    /// comes by them: what hangs together stands together.
    fn fill_columns(&mut self, sequence: &[usize]) {
        let count = self.column_of.iter().max().map_or(0, |last| last + 1);
        self.columns = vec![Vec::new(); count];
        let mut is_seen = vec![false; self.column_of.len()];
        let mut stack: Vec<usize> = sequence.iter().rev().copied().collect();
        while let Some(cell) = stack.pop() {
            if std::mem::replace(&mut is_seen[cell], true) {
                continue;
            }
            self.columns[self.column_of[cell]].push(cell);
            stack.extend(self.ahead[cell].iter().rev());
        }
    }
}

/// The boxes in an order in which arrows lead forward, and each box's turn in it. A circle is entered at its box with
/// the lowest number.
fn sequence(boxes: usize, arrows: &[(usize, usize)]) -> (Vec<usize>, Vec<usize>) {
    let mut waits_for = vec![0usize; boxes];
    let mut leads_to = vec![Vec::new(); boxes];
    for &(from, to) in arrows {
        waits_for[to] += 1;
        leads_to[from].push(to);
    }
    let mut sequence = Vec::with_capacity(boxes);
    let mut turn = vec![usize::MAX; boxes];
    let mut ready: VecDeque<_> = (0..boxes).filter(|number| waits_for[*number] == 0).collect();
    let mut entrances = 0..boxes;
    while let Some(number) =
        ready.pop_front().or_else(|| entrances.find(|number| turn[*number] == usize::MAX))
    {
        turn[number] = sequence.len();
        sequence.push(number);
        for &next in &leads_to[number] {
            waits_for[next] -= 1;
            if waits_for[next] == 0 && turn[next] == usize::MAX {
                ready.push_back(next);
            }
        }
    }
    (sequence, turn)
}

/// For each box, how many arrows the longest way to it has.
fn longest_ways(sequence: &[usize], oriented: &[(usize, usize)]) -> Vec<usize> {
    let mut leads_to = vec![Vec::new(); sequence.len()];
    for &(from, to) in oriented {
        leads_to[from].push(to);
    }
    let mut longest = vec![0; sequence.len()];
    for &number in sequence {
        for &next in &leads_to[number] {
            longest[next] = longest[next].max(longest[number] + 1);
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn column_is_the_longest_way_and_long_arrows_bend() {
        let grid = Grid::new(4, &[(0, 1), (1, 2), (0, 2), (3, 2)]);
        assert_eq!(grid.columns, [vec![0, 3], vec![1, 4, 5], vec![2]]);
        assert_eq!(grid.routes, [vec![0, 1], vec![1, 2], vec![0, 4, 2], vec![3, 5, 2]]);
    }

    #[test]
    fn circle_is_led_backwards_once() {
        let grid = Grid::new(3, &[(0, 1), (1, 2), (2, 0)]);
        assert_eq!(grid.columns, [vec![0], vec![1, 3], vec![2]]);
        assert_eq!(grid.routes[2], [2, 3, 0]);
    }

    #[test]
    fn bends_run_out_without_harm() {
        let chain = (1..2_000).map(|number| (number - 1, number));
        let far = (2..2_000).map(|number| (0, number));
        let grid = Grid::new(2_000, &chain.chain(far).collect::<Vec<_>>());
        assert!(grid.column_of.len() <= 2_000 + MAX_BENDS);
        assert_eq!(grid.routes.last(), Some(&vec![0, 1_999]));
    }
}

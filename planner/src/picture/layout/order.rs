//! The order of the cells within their columns, so that few arrows cross.

use super::grid::Grid;

/// Times that all columns are sorted to and fro. Barycentres settle within a few; the best of all is kept.
const SWEEPS: usize = 12;

/// Which neighbours a column is sorted by.
#[derive(Debug, Clone, Copy)]
enum Side {
    Behind,
    Ahead,
}

/// Sorts each column by the barycentres of its neighbours, to and fro, and keeps what crossed least.
pub(super) fn reduce_crossings(grid: &mut Grid) {
    let mut ranks = vec![0; grid.column_of.len()];
    (0..grid.columns.len()).for_each(|column| number(grid, column, &mut ranks));
    let mut best = grid.columns.clone();
    let mut fewest = crossings(grid, &ranks);
    for _ in 0..SWEEPS {
        if fewest == 0 {
            break;
        }
        (0..grid.columns.len()).for_each(|column| sort(grid, column, Side::Behind, &mut ranks));
        (0..grid.columns.len()).rev().for_each(|column| sort(grid, column, Side::Ahead, &mut ranks));
        let found = crossings(grid, &ranks);
        if found < fewest {
            fewest = found;
            best.clone_from(&grid.columns);
        }
    }
    grid.columns = best;
}

/// Notes where each cell of a column stands.
fn number(grid: &Grid, column: usize, ranks: &mut [usize]) {
    for (rank, cell) in grid.columns[column].iter().enumerate() {
        ranks[*cell] = rank;
    }
}

fn sort(grid: &mut Grid, column: usize, side: Side, ranks: &mut [usize]) {
    let mut keyed: Vec<(f64, usize)> = grid.columns[column]
        .iter()
        .map(|&cell| {
            let neighbours = match side {
                Side::Behind => &grid.behind[cell],
                Side::Ahead => &grid.ahead[cell],
            };
            (barycentre(neighbours, ranks).unwrap_or(ranks[cell] as f64), cell)
        })
        .collect();
    keyed.sort_by(|one, other| one.0.total_cmp(&other.0));
    grid.columns[column] = keyed.into_iter().map(|(_, cell)| cell).collect();
    number(grid, column, ranks);
}

fn barycentre(neighbours: &[usize], ranks: &[usize]) -> Option<f64> {
    let sum: usize = neighbours.iter().map(|cell| ranks[*cell]).sum();
    (!neighbours.is_empty()).then(|| sum as f64 / neighbours.len() as f64)
}

/// How many pairs of arrows cross between neighbouring columns.
fn crossings(grid: &Grid, ranks: &[usize]) -> usize {
    let between = |column: &Vec<usize>| {
        let mut targets = Vec::new();
        for cell in column {
            let begin = targets.len();
            targets.extend(grid.ahead[*cell].iter().map(|next| ranks[*next]));
            targets[begin..].sort_unstable();
        }
        inversions(&targets)
    };
    grid.columns.iter().map(between).sum()
}

/// How many pairs stand in the wrong order, counted with a Fenwick tree over the values.
fn inversions(values: &[usize]) -> usize {
    let size = values.iter().max().map_or(0, |largest| largest + 1);
    let mut tree = vec![0usize; size + 1];
    let mut count = 0;
    for (seen, &value) in values.iter().enumerate() {
        let mut at = value + 1;
        let mut not_above = 0;
        while at > 0 {
            not_above += tree[at];
            at -= at & at.wrapping_neg();
        }
        count += seen - not_above;
        at = value + 1;
        while at <= size {
            tree[at] += 1;
            at += at & at.wrapping_neg();
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inversions_are_pairs_in_the_wrong_order() {
        let cases: [(&[usize], usize); 4] = [(&[], 0), (&[0, 0, 1], 0), (&[2, 1, 0], 3), (&[1, 3, 0, 2], 3)];
        for (values, count) in cases {
            assert_eq!(inversions(values), count, "{values:?}");
        }
    }

    #[test]
    fn crossed_arrows_are_uncrossed() {
        let mut grid = Grid::new(6, &[(0, 5), (1, 4), (2, 3)]);
        grid.columns[1] = vec![3, 4, 5];
        reduce_crossings(&mut grid);
        assert_eq!(grid.columns, [vec![0, 1, 2], vec![5, 4, 3]]);
    }
}

//! How far down each cell stands, so that arrows run as level as they can.

use super::grid::Grid;

/// Times that all columns are placed to and fro.
const ROUNDS: usize = 8;

/// How much a cell without neighbours on one side clings to where it is, against an arrow's pull of 1.
const INERTIA: f64 = 0.01;

/// The pull of an arrow between two bends: a long arrow is level on its way, and turns at its ends.
const BEND_PULL: f64 = 8.0;

/// The middle of each cell, from the top of the picture, in pixels; `half` is half of what a cell needs.
///
/// Cells of a column keep their order and do not overlap.
pub(super) fn rows(grid: &Grid, half: impl Fn(usize) -> f64) -> Vec<f64> {
    let mut middles = vec![0.0; grid.column_of.len()];
    // Distance from the first cell's middle when all stand as close as they may.
    let mut packed = vec![0.0; middles.len()];
    for column in &grid.columns {
        for pair in column.windows(2) {
            packed[pair[1]] = packed[pair[0]] + half(pair[0]) + half(pair[1]);
            middles[pair[1]] = packed[pair[1]];
        }
    }
    for _ in 0..ROUNDS {
        for column in grid.columns.iter().rev() {
            settle(grid, column, &grid.ahead, &packed, &mut middles);
        }
        for column in &grid.columns {
            settle(grid, column, &grid.behind, &packed, &mut middles);
        }
    }
    let top = (0..middles.len()).map(|cell| middles[cell] - half(cell)).min_by(f64::total_cmp);
    middles.into_iter().map(|middle| middle - top.unwrap_or(0.0)).collect()
}

/// Moves the cells of a column towards their neighbours.
fn settle(grid: &Grid, column: &[usize], neighbours: &[Vec<usize>], packed: &[f64], middles: &mut [f64]) {
    let wishes: Vec<(f64, f64)> = column
        .iter()
        .map(|&cell| {
            let (mut sum, mut weight) = (0.0, 0.0);
            for &neighbour in &neighbours[cell] {
                let is_long = grid.is_bend(cell) && grid.is_bend(neighbour);
                let pull = if is_long { BEND_PULL } else { 1.0 };
                sum += middles[neighbour] * pull;
                weight += pull;
            }
            if weight == 0.0 {
                (middles[cell] - packed[cell], INERTIA)
            } else {
                (sum / weight - packed[cell], weight)
            }
        })
        .collect();
    for (cell, moved) in column.iter().zip(nearest_rising(&wishes)) {
        middles[*cell] = packed[*cell] + moved;
    }
}

/// The values that never fall from one to the next and are, by weighted squares, nearest to those wished for: where
/// wishes clash, neighbours are pooled at their mean (isotonic regression by pool adjacent violators).
fn nearest_rising(wishes: &[(f64, f64)]) -> Vec<f64> {
    struct Pool {
        mean: f64,
        weight: f64,
        size: usize,
    }
    let mut pools: Vec<Pool> = Vec::new();
    for &(mean, weight) in wishes {
        let mut pool = Pool { mean, weight, size: 1 };
        while let Some(last) = pools.pop_if(|last| last.mean > pool.mean) {
            let sum = last.weight + pool.weight;
            pool.mean = (last.mean * last.weight + pool.mean * pool.weight) / sum;
            pool.weight = sum;
            pool.size += last.size;
        }
        pools.push(pool);
    }
    pools.into_iter().flat_map(|pool| std::iter::repeat_n(pool.mean, pool.size)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clashing_wishes_meet_at_their_mean() {
        let equal = |wishes: &[f64]| wishes.iter().map(|wish| (*wish, 1.0)).collect::<Vec<_>>();
        assert_eq!(nearest_rising(&equal(&[1.0, 2.0, 3.0])), [1.0, 2.0, 3.0]);
        assert_eq!(nearest_rising(&equal(&[3.0, 1.0, 5.0])), [2.0, 2.0, 5.0]);
        assert_eq!(nearest_rising(&[(4.0, 3.0), (0.0, 1.0)]), [3.0, 3.0]);
    }

    #[test]
    fn chain_is_level_and_a_fan_is_even() {
        let level = Grid::new(4, &[(0, 1), (1, 2), (2, 3)]);
        assert_eq!(rows(&level, |_| 10.0), [10.0; 4]);
        let fan = Grid::new(4, &[(0, 1), (0, 2), (0, 3)]);
        assert_eq!(rows(&fan, |_| 10.0), [30.0, 10.0, 30.0, 50.0]);
    }
}

//! Who is popular, and how long people stay.
//!
//! Knows: two distributions fitted to real shops. Must not know: what an item or a session is.

use super::rng::Rng;

/// Popularity by rank, Zipf-Mandelbrot: weight (rank + q)^-s.
///
/// Plain Zipf has too heavy a head: with any s that gives the top tenth 35 to 50 % of the events,
/// the top hundredth gets more than real shops show (9 to 11 %). The shift q flattens the head.
#[derive(Debug)]
pub(crate) struct Popularity {
    /// Running sums of the weights, the last one 1.
    cumulative: Vec<f64>,
}

const EXPONENT: f64 = 0.75;
/// q as a share of the number of ranks.
const SHIFT: f64 = 0.004;

impl Popularity {
    /// The popularity of `count` ranks.
    ///
    /// # Panics
    ///
    /// When there are none.
    pub(crate) fn new(count: usize) -> Self {
        assert!(count > 0, "popularity is spread over at least one rank");
        let shift = SHIFT * count as f64;
        let mut total = 0.0;
        let mut cumulative: Vec<f64> = (1..=count)
            .map(|rank| {
                total += (rank as f64 + shift).powf(-EXPONENT);
                total
            })
            .collect();
        for sum in &mut cumulative {
            *sum /= total;
        }
        Self { cumulative }
    }

    /// A rank, from 0, drawn by popularity.
    pub(crate) fn draw(&self, rng: &mut Rng) -> usize {
        let at = rng.unit();
        self.cumulative.partition_point(|&sum| sum <= at).min(self.cumulative.len() - 1)
    }
}

/// Quantiles of the number of views in a session: (share of sessions, views at most), as measured
/// on the click log of a large shop: mean 4.8, median 3, 90 % within 9, 99 % within 22.
const SESSION_QUANTILES: [(f64, f64); 8] = [
    (0.0, 2.0),
    (0.3, 2.0),
    (0.48, 3.0),
    (0.75, 5.5),
    (0.9, 9.0),
    (0.99, 22.0),
    (0.999, 60.0),
    (1.0, 200.0),
];

/// How many items somebody looks at in one session.
pub(crate) fn session_views(rng: &mut Rng) -> u64 {
    let share = rng.unit();
    let above = SESSION_QUANTILES.partition_point(|&(quantile, _)| quantile <= share);
    let (from, to) = (SESSION_QUANTILES[above - 1], SESSION_QUANTILES[above]);
    let along = (share - from.0) / (to.0 - from.0);
    (from.1 + along * (to.1 - from.1)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_as_long_as_real_ones() {
        let mut rng = Rng::new(7);
        let mut lengths: Vec<u64> = (0..100_000).map(|_| session_views(&mut rng)).collect();
        lengths.sort_unstable();
        let mean = lengths.iter().sum::<u64>() as f64 / lengths.len() as f64;
        assert!((mean - 5.0).abs() < 1.0, "mean {mean}");
        assert_eq!(lengths[50_000], 3);
        assert!((18..=26).contains(&lengths[99_000]), "p99 {}", lengths[99_000]);
    }

    #[test]
    fn every_rank_can_be_drawn_and_the_first_is_drawn_most() {
        let popularity = Popularity::new(10);
        let mut rng = Rng::new(3);
        let mut counts = [0u32; 10];
        for _ in 0..10_000 {
            counts[popularity.draw(&mut rng)] += 1;
        }
        assert!(counts.iter().all(|&count| count > 0), "{counts:?}");
        assert_eq!(counts.iter().max(), Some(&counts[0]));
    }
}

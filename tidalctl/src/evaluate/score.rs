//! How good answers are: hit rate, mean reciprocal rank, time.
//!
//! Knows: ranks and times. Must not know: where answers come from.

use std::time::Duration;

/// The scores of many answers.
#[derive(Debug, Default)]
pub(crate) struct Scores {
    pub(crate) predictions: u64,
    hits: u64,
    reciprocal_ranks: f64,
    times: Vec<Duration>,
}

impl Scores {
    /// Counts one answer: where the next item was in it, from 1, and how long it took.
    pub(crate) fn add(&mut self, rank: Option<usize>, took: Duration) {
        self.predictions += 1;
        if let Some(rank) = rank {
            self.hits += 1;
            self.reciprocal_ranks += 1.0 / rank as f64;
        }
        self.times.push(took);
    }

    /// The share of answers with the next item.
    pub(crate) fn hit_rate(&self) -> f64 {
        self.hits as f64 / self.predictions.max(1) as f64
    }

    /// The mean of 1/rank; an answer without the next item counts as 0.
    pub(crate) fn mean_reciprocal_rank(&self) -> f64 {
        self.reciprocal_ranks / self.predictions.max(1) as f64
    }

    /// The times below which these shares of the answers lie, in microseconds.
    pub(crate) fn percentiles_us<const N: usize>(&self, shares: [f64; N]) -> [f64; N] {
        let mut times = self.times.clone();
        times.sort_unstable();
        shares.map(|share| {
            let last = times.len().saturating_sub(1);
            let time = times.get((last as f64 * share) as usize).copied();
            time.unwrap_or_default().as_nanos() as f64 / 1e3
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_miss_counts_as_zero_and_a_hit_by_its_rank() {
        let mut scores = Scores::default();
        for (rank, us) in [(Some(1), 10), (None, 30), (Some(4), 20), (None, 40)] {
            scores.add(rank, Duration::from_micros(us));
        }
        assert_eq!((scores.predictions, scores.hit_rate()), (4, 0.5));
        assert_eq!(scores.mean_reciprocal_rank(), 1.25 / 4.0);
        assert_eq!(scores.percentiles_us([0.0, 0.5, 1.0]), [10.0, 20.0, 40.0]);
    }
}

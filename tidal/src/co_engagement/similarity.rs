//! How alike two items are.
//!
//! Knows: the formulas. Must not know: tables, hidden items.

use super::weight::Weight;
use crate::decay::Decay;

/// What neighbours are ranked by: how often two items occur together, set against how often each
/// occurs.
///
/// With w the decayed weight of the pairs of x and y, each 1 by the distance of the two in their trail, s the decayed number of trails that an item came
/// in, and N that of all trails:
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Similarity {
    /// w. What is popular is near to everything.
    CoOccurrence,
    /// w / (√(s(x) · s(y)) + λ): the cosine of the items' trails, shrunk towards 0 for pairs of which
    /// little is known (Deshpande and Karypis, "Item-based top-N recommendation algorithms", ACM TOIS
    /// 22(1), 2004, for the cosine; Bell and Koren, "Improved neighborhood-based collaborative filtering",
    /// KDD Cup 2007, for the shrinkage).
    Cosine {
        /// λ: from 0; about as many trails as a pair needs to be believed.
        shrinkage: f64,
    },
    /// w / (s(x) + s(y) − w): the share of the trails with either that have both (Jaccard, "The
    /// distribution of the flora in the alpine zone", New Phytologist 11, 1912).
    Jaccard,
    /// w · N / (s(x) · s(y)): how much more often than by chance (Brin, Motwani, Ullman and Tsur,
    /// "Dynamic itemset counting and implication rules for market basket data", SIGMOD 1997, there
    /// called interest). Rare pairs rank high: for discovery, and with a minimum of support.
    Lift,
}

impl Default for Similarity {
    /// Cosine with a shrinkage of 20.
    fn default() -> Self {
        Self::Cosine { shrinkage: 20.0 }
    }
}

impl Similarity {
    /// Whether the formula has the numbers that it needs.
    pub(crate) fn is_valid(self) -> bool {
        match self {
            Self::Cosine { shrinkage } => shrinkage.is_finite() && shrinkage >= 0.0,
            Self::CoOccurrence | Self::Jaccard | Self::Lift => true,
        }
    }

    /// The similarity of x and y: `pair` is w, `x` and `y` are s, `trails` is N; all decayed to one
    /// moment, and `pair`, `x` and `y` above zero.
    #[inline]
    pub(super) fn of(self, pair: f64, x: f64, y: f64, trails: f64) -> f64 {
        match self {
            Self::CoOccurrence => pair,
            // x · y would underflow where x and y do not.
            Self::Cosine { shrinkage } => pair / (x.sqrt() * y.sqrt() + shrinkage),
            Self::Jaccard => {
                // A pair is as old as its later half, so it may weigh a little more than the other.
                let pair = pair.min(x).min(y);
                pair / (x + y - pair)
            }
            Self::Lift => (pair / x) * (trails / y),
        }
    }
}

/// A similarity at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    similarity: Similarity,
    now: Decay,
    trails: f64,
}

impl Scale {
    /// `started` is the decayed number of trails.
    pub(crate) fn new(similarity: Similarity, now: Decay, started: Weight) -> Self {
        Self { similarity, now, trails: started.at(&now) }
    }

    #[inline]
    pub(super) fn weight(&self, weight: Weight) -> f64 {
        weight.at(&self.now)
    }

    /// Of an item that weighs `x` with one of self weight `other`. What has decayed below the range of
    /// a double is like nothing.
    #[inline]
    pub(super) fn of(&self, x: f64, pair: Weight, other: Weight) -> f64 {
        let (pair, y) = (self.weight(pair), self.weight(other));
        // An index alone knows of pairs, and not how often an item came.
        let is_known = self.similarity == Similarity::CoOccurrence || (x > 0.0 && y > 0.0);
        if pair > 0.0 && is_known { self.similarity.of(pair, x, y, self.trails) } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_give_what_is_computed_by_hand() {
        let of = |similarity: Similarity| similarity.of(6.0, 9.0, 16.0, 100.0);
        assert_eq!(of(Similarity::CoOccurrence), 6.0);
        assert_eq!(of(Similarity::Cosine { shrinkage: 0.0 }), 0.5);
        assert_eq!(of(Similarity::Cosine { shrinkage: 12.0 }), 0.25);
        assert_eq!(of(Similarity::Jaccard), 6.0 / 19.0);
        assert!((of(Similarity::Lift) - 600.0 / 144.0).abs() < 1e-12);
        assert_eq!(Similarity::default(), Similarity::Cosine { shrinkage: 20.0 });
    }

    #[test]
    fn pairs_that_have_nearly_decayed_away_stay_finite() {
        for similarity in
            [Similarity::Cosine { shrinkage: 0.0 }, Similarity::Jaccard, Similarity::Lift]
        {
            let near = similarity.of(1e-300, 1e-300, 1e-300, 1e-299);
            assert!((0.1..=20.0).contains(&near), "{similarity:?}: {near}");
        }
    }

    #[test]
    fn a_shrinkage_below_zero_or_none_at_all_is_invalid() {
        for shrinkage in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(!Similarity::Cosine { shrinkage }.is_valid(), "{shrinkage}");
        }
        assert!(Similarity::Cosine { shrinkage: 0.0 }.is_valid() && Similarity::Lift.is_valid());
    }
}

//! How to recommend, and what the answer looks like.

use crate::co_engagement::{Method, SEEDS_MAX, Similarity};
use crate::error::{Error, Result};
use crate::ids::{EntityId, Timestamp};
use crate::schema::Window;
use crate::seq::Seq;

/// Which items of the session, or of the user's trails, are kept out of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExcludeSeeds {
    /// None: the current item may come again.
    None,
    /// The last one, which is on the screen now. Earlier ones are answered as often as sessions return
    /// to theirs.
    Current,
    /// All.
    All,
}

/// How to recommend.
///
/// ```
/// use tidaldb::{ExcludeSeeds, RecommendOptions, co_engagement::Method};
///
/// let options = RecommendOptions::new()
///     .method(Method::Sessions)
///     .exclude_seeds(ExcludeSeeds::All)
///     .at_most_per("creator_id", 2);
/// ```
#[derive(Debug, Clone)]
pub struct RecommendOptions {
    pub(super) method: Method,
    pub(super) similarity: Similarity,
    pub(super) min_support: u32,
    pub(super) seeds_max: usize,
    pub(super) exclude_seeds: Option<ExcludeSeeds>,
    pub(super) cohort: Option<String>,
    pub(super) per_group: Option<(String, usize)>,
    pub(super) filler: Option<Filler>,
    pub(super) now: Option<Timestamp>,
}

/// What stands in where seeds lead to too little.
#[derive(Debug, Clone)]
pub(super) enum Filler {
    Hot { signal: String },
    Trending { signal: String, window: Window },
}

impl Filler {
    pub(super) fn signal(&self) -> &str {
        match self {
            Self::Hot { signal } | Self::Trending { signal, .. } => signal,
        }
    }
}

impl Default for RecommendOptions {
    fn default() -> Self {
        Self {
            method: Method::default(),
            similarity: Similarity::default(),
            min_support: 0,
            seeds_max: 10,
            exclude_seeds: None,
            cohort: None,
            per_group: None,
            filler: None,
            now: None,
        }
    }
}

impl RecommendOptions {
    /// By edges, cosine, the last ten items, without the current one; what measures best, see
    /// `docs/quality.md`.
    pub fn new() -> Self {
        Self::default()
    }

    /// How candidates are found.
    #[must_use]
    pub const fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// What makes two items neighbours.
    #[must_use]
    pub const fn similarity(mut self, similarity: Similarity) -> Self {
        self.similarity = similarity;
        self
    }

    /// Leaves out edges that fewer pairs than this speak for. Trails vote all the same.
    #[must_use]
    pub const fn min_support(mut self, pairs: u32) -> Self {
        self.min_support = pairs;
        self
    }

    /// So many of the last items give candidates: 1 to 32, 10 by default.
    #[must_use]
    pub const fn seeds_max(mut self, seeds: usize) -> Self {
        self.seeds_max = seeds;
        self
    }

    /// Which seeds are kept out of the answer. Without this, [`recommend`](crate::TidalDb::recommend)
    /// leaves out the current item, and [`for_user`](crate::TidalDb::for_user) all that the user's
    /// trails have.
    #[must_use]
    pub const fn exclude_seeds(mut self, exclude: ExcludeSeeds) -> Self {
        self.exclude_seeds = Some(exclude);
        self
    }

    /// Only items that an engaging signal counted for in this cohort. What stands in is that of the
    /// cohort too.
    #[must_use]
    pub fn cohort(mut self, cohort: impl Into<String>) -> Self {
        self.cohort = Some(cohort.into());
        self
    }

    /// At most this many items with the same value under a key of their metadata, such as a creator or
    /// a category. Items without the key are not limited. Metadata may have to be read from disk.
    #[must_use]
    pub fn at_most_per(mut self, key: impl Into<String>, items: usize) -> Self {
        self.per_group = Some((key.into(), items));
        self
    }

    /// Where seeds lead to too little, what is [hot](crate::TidalDb::hot) under a signal stands in.
    #[must_use]
    pub fn fill_with_hot(mut self, signal: impl Into<String>) -> Self {
        self.filler = Some(Filler::Hot { signal: signal.into() });
        self
    }

    /// Where seeds lead to too little, what is [trending](crate::TidalDb::trending) under a signal
    /// stands in. That is a scan of the signal's items.
    #[must_use]
    pub fn fill_with_trending(mut self, signal: impl Into<String>, window: Window) -> Self {
        self.filler = Some(Filler::Trending { signal: signal.into(), window });
        self
    }

    /// As of this moment: at most 5 min before engine time, or later.
    #[must_use]
    pub const fn now(mut self, now: Timestamp) -> Self {
        self.now = Some(now);
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        if !self.similarity.is_valid() {
            let reason = format!("{:?} has no valid number", self.similarity);
            return Err(Error::invalid("similarity", reason));
        }
        if !(1..=SEEDS_MAX).contains(&self.seeds_max) {
            let reason = format!("{} seeds, accepted are 1 to {SEEDS_MAX}", self.seeds_max);
            return Err(Error::invalid("seeds_max", reason));
        }
        match &self.per_group {
            Some((key, 0)) => {
                Err(Error::invalid("at_most_per", format!("0 items per {key:?} leave nothing")))
            }
            _ => Ok(()),
        }
    }
}

/// An answer: items, best first, all as of one position of the log.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Recommendations {
    /// The position: everything up to it is in the answer, and nothing behind it.
    pub seq: Seq,
    /// The moment that weights are decayed to.
    pub now: Timestamp,
    /// At most as many as were asked for, none twice.
    pub items: Vec<Recommended>,
}

/// One item of an answer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Recommended {
    /// The item.
    pub item: EntityId,
    /// Comparable within one answer, among items of the same kind of reason.
    pub score: f64,
    /// Why it is there.
    pub reason: Reason,
}

/// Why an item is in an answer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Reason {
    /// These items of the session lead to it, the last touched first. Hidden ones are not named.
    Seeds(Vec<EntityId>),
    /// It is an item of the session, and sessions return to their items; seeds may lead to it too.
    Return,
    /// It is hot in a cohort (`None` is everyone).
    Hot {
        /// The cohort.
        cohort: Option<String>,
    },
    /// It is trending in a cohort (`None` is everyone).
    Trending {
        /// The cohort.
        cohort: Option<String>,
    },
}

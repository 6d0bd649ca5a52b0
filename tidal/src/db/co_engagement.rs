//! Reading co-engagement.

use super::TidalDb;
use crate::co_engagement::{Neighbour, Scale, Similarity};
use crate::decay::Decay;
use crate::error::{Error, Result};
use crate::ids::{EntityId, Timestamp};

/// Which items are engaged with together; from [`TidalDb::co_engagement`].
///
/// Without an [engaging](crate::schema::SignalBuilder::engaging) signal in the schema it is empty.
///
/// ```
/// use std::time::Duration;
/// use tidaldb::co_engagement::Similarity;
/// use tidaldb::schema::{DecaySpec, EntityId, EntityKind, SchemaBuilder, Timestamp};
/// use tidaldb::{Batch, Event, TidalDb};
///
/// let mut schema = SchemaBuilder::new();
/// let half_life = Duration::from_secs(86_400);
/// let _ = schema
///     .signal("view", EntityKind::Item, DecaySpec::Exponential { half_life })
///     .engaging()
///     .add();
/// let db = TidalDb::builder().ephemeral().with_schema(schema.build()?).open()?;
///
/// let [tea, mug] = [EntityId::new(1), EntityId::new(2)];
/// let mut batch = Batch::new();
/// batch.push(Event::new("view", tea, Timestamp::now()).user(7));
/// batch.push(Event::new("view", mug, Timestamp::now()).user(7));
/// db.write(batch)?;
///
/// assert_eq!(db.co_engagement().edge_count(), 2);
/// let near = db.co_engagement().neighbours(tea, 20, Similarity::default())?;
/// assert_eq!((near[0].item, near[0].support), (mug, 1));
/// # Ok::<(), tidaldb::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct CoEngagementReader<'a> {
    pub(super) db: &'a TidalDb,
    now: Option<Timestamp>,
    min_support: u32,
}

impl TidalDb {
    /// Which items are engaged with together.
    pub const fn co_engagement(&self) -> CoEngagementReader<'_> {
        CoEngagementReader { db: self, now: None, min_support: 0 }
    }
}

impl CoEngagementReader<'_> {
    /// As of this moment: at most 5 min before engine time, or later.
    #[must_use]
    pub const fn now(mut self, now: Timestamp) -> Self {
        self.now = Some(now);
        self
    }

    /// Leaves out what fewer pairs than this speak for.
    #[must_use]
    pub const fn min_support(mut self, pairs: u32) -> Self {
        self.min_support = pairs;
        self
    }

    /// The `k` nearest neighbours of an item, the nearest first, ties by item. Hidden items are left
    /// out. Costs a pass over the item's edges under a read lock.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](Error::InvalidArgument) for a shrinkage below zero or none at all;
    /// [`NowTooOld`](Error::NowTooOld).
    pub fn neighbours(
        &self,
        item: EntityId,
        k: usize,
        similarity: Similarity,
    ) -> Result<Vec<Neighbour>> {
        if !similarity.is_valid() {
            return Err(Error::invalid("similarity", format!("{similarity:?} is no similarity")));
        }
        let moment = self.db.moment(self.now)?;
        let state = &self.db.state;
        let declared = state.declared();
        let Some(rules) = declared.schema.co_engagement() else { return Ok(Vec::new()) };
        let now = Decay::at(moment, rules.decay());
        let started = state.co_engagement.trails().started();
        let scale = Scale::new(similarity, now, started);
        let hidden = state.hidden.held();
        let edges = state.co_engagement.edges();
        Ok(edges.nearest(item, k, scale, self.min_support, |item| !hidden.contains(item)))
    }

    /// How many edges there are, each direction counted.
    pub fn edge_count(&self) -> u64 {
        self.db.state.co_engagement.edges().count()
    }

    /// How many trails are kept, ended ones too.
    pub fn trail_count(&self) -> u64 {
        self.db.state.co_engagement.trails().len() as u64
    }

    /// Memory of all of it, and of what answers are computed in, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.db.state.co_engagement.size_bytes()
    }
}

//! Reading several things at one position of the log.

use std::collections::HashMap;

use super::{Ranked, ReadOptions, TidalDb};
use crate::error::Result;
use crate::ids::{EntityId, Timestamp, UserId};
use crate::schema::Window;
use crate::seq::Seq;

/// All tables at one position of the log, and one moment; see [`TidalDb::consistent`].
///
/// It has the reads of [`TidalDb`], with the same errors. Reads whose options name no moment are as of
/// the moment at which the view was taken.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    db: &'a TidalDb,
    seq: Seq,
    now: Timestamp,
}

impl TidalDb {
    /// Reads any number of things at one position of the log: the writer waits while `read` runs, so
    /// keep it short. Do not write from it, nor wait for one who writes: both would wait for ever.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tidaldb::{ReadOptions, TidalDb};
    /// # use tidaldb::schema::{DecaySpec, EntityId, EntityKind, SchemaBuilder, Timestamp};
    /// # let mut schema = SchemaBuilder::new();
    /// # let half_life = Duration::from_secs(86_400);
    /// # let _ = schema.signal("view", EntityKind::Item, DecaySpec::Exponential { half_life }).add();
    /// # let db = TidalDb::builder().ephemeral().with_schema(schema.build()?).open()?;
    /// # db.signal("view", EntityId::new(7), 1.0, Timestamp::now())?;
    /// let (seq, hot) = db.consistent(|view| (view.seq(), view.hot("view", 20, &ReadOptions::new())));
    /// assert_eq!(hot?.len(), 1);
    /// # Ok::<(), tidaldb::Error>(())
    /// ```
    pub fn consistent<T>(&self, read: impl FnOnce(&View<'_>) -> T) -> T {
        // Recursive, so that a view within a view does not wait for a writer that waits for it.
        let _held = self.positions.gate.read_recursive();
        read(&View { db: self, seq: self.applied(), now: self.default_now() })
    }
}

impl View<'_> {
    /// The position.
    pub const fn seq(&self) -> Seq {
        self.seq
    }

    /// The moment.
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// See [`TidalDb::scores`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn scores(
        &self,
        items: &[EntityId],
        signal: &str,
        options: &ReadOptions,
        out: &mut [f64],
    ) -> Result<()> {
        self.db.scores(items, signal, &options.pinned_to(self.now), out)
    }

    /// See [`TidalDb::windowed_counts`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn windowed_counts(
        &self,
        items: &[EntityId],
        signal: &str,
        window: Window,
        options: &ReadOptions,
        out: &mut [u64],
    ) -> Result<()> {
        self.db.windowed_counts(items, signal, window, &options.pinned_to(self.now), out)
    }

    /// See [`TidalDb::velocity`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn velocity(
        &self,
        item: EntityId,
        signal: &str,
        window: Window,
        options: &ReadOptions,
    ) -> Result<f64> {
        self.db.velocity(item, signal, window, &options.pinned_to(self.now))
    }

    /// See [`TidalDb::hot`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn hot(&self, signal: &str, k: usize, options: &ReadOptions) -> Result<Vec<Ranked>> {
        self.db.hot(signal, k, &options.pinned_to(self.now))
    }

    /// See [`TidalDb::top`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn top(
        &self,
        signal: &str,
        window: Window,
        k: usize,
        options: &ReadOptions,
    ) -> Result<Vec<Ranked>> {
        self.db.top(signal, window, k, &options.pinned_to(self.now))
    }

    /// See [`TidalDb::trending`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn trending(
        &self,
        signal: &str,
        window: Window,
        k: usize,
        options: &ReadOptions,
    ) -> Result<Vec<Ranked>> {
        self.db.trending(signal, window, k, &options.pinned_to(self.now))
    }

    /// See [`TidalDb::get_item_metadata`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn get_item_metadata(&self, item: EntityId) -> Result<Option<HashMap<String, String>>> {
        self.db.get_item_metadata(item)
    }

    /// See [`TidalDb::is_hidden`].
    pub fn is_hidden(&self, item: EntityId) -> bool {
        self.db.is_hidden(item)
    }

    /// See [`TidalDb::user_cohorts`].
    pub fn user_cohorts(&self, user: impl Into<UserId>) -> Vec<String> {
        self.db.user_cohorts(user)
    }

    /// See [`TidalDb::source_offset`].
    pub fn source_offset(&self, source: &str) -> Option<u64> {
        self.db.source_offset(source)
    }
}

//! Reading several things at one position of the log.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use super::{CoEngagementReader, Ranked, ReadOptions, TidalDb};
use crate::collections::{CollectionInfo, CollectionPage};
use crate::engine::Positions;
use crate::error::{Error, Result};
use crate::ids::{CollectionId, EntityId, Timestamp, UserId};
use crate::schema::Window;
use crate::seq::Seq;
use crate::sync::{RwLockReadGuard, thread_local};

/// All tables at one position of the log, and one moment; see [`TidalDb::consistent`].
///
/// It has reads of [`TidalDb`] under the same names, with the same errors. Reads whose options name no moment are as of
/// the moment at which the view was taken.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    db: &'a TidalDb,
    seq: Seq,
    now: Timestamp,
}

impl TidalDb {
    /// Reads any number of things at one position of the log: the writer waits while `read` runs, so
    /// keep it short. A call from within it that would have to wait for the writer (a write, flush,
    /// checkpoint, verify or digest of the same database) is refused with
    /// [`InvalidArgument`](crate::Error::InvalidArgument). Do not wait in it for another thread that
    /// writes, or that takes a view of its own, as [`recommend`](TidalDb::recommend) and
    /// [`for_user`](TidalDb::for_user) do: it would wait behind a writer that waits for this view. Give
    /// such a thread this view, which is `Send` and `Sync`.
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
        let _held = HeldView::take(self);
        read(&View { db: self, seq: self.applied(), now: self.default_now() })
    }

    /// Refuses what would wait for the writer while this thread makes the writer wait.
    pub(super) fn expect_no_view(&self) -> Result<()> {
        DatabaseAddress::of(&self.positions).expect_no_view()
    }
}

/// Which database, for as long as it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DatabaseAddress(usize);

impl DatabaseAddress {
    pub(super) fn of(positions: &Arc<Positions>) -> Self {
        Self(Arc::as_ptr(positions) as usize)
    }

    /// Refuses what would wait for the writer while this thread makes the writer wait.
    pub(super) fn expect_no_view(self) -> Result<()> {
        if !self.is_viewed() {
            return Ok(());
        }
        let reason = "this call waits for the writer, which waits for the view to end";
        Err(Error::invalid("consistent", reason))
    }

    /// Whether this thread holds a view of it.
    fn is_viewed(self) -> bool {
        HELD.with(|held| held.borrow().contains(&self))
    }
}

thread_local! {
    /// The databases that this thread holds a view of, by their addresses.
    static HELD: RefCell<Vec<DatabaseAddress>> = const { RefCell::new(Vec::new()) };
}

/// The writer is held off while this lives.
struct HeldView<'a> {
    _gate: RwLockReadGuard<'a, ()>,
}

impl<'a> HeldView<'a> {
    /// A view of a thread that has none waits behind a writer that waits, so views cannot starve it.
    /// A view within a view goes ahead, since that writer waits for the outer one.
    fn take(db: &'a TidalDb) -> Self {
        let gate = &db.positions.gate;
        let address = DatabaseAddress::of(&db.positions);
        let gate = if address.is_viewed() { gate.read_recursive() } else { gate.read() };
        HELD.with(|held| held.borrow_mut().push(address));
        Self { _gate: gate }
    }
}

impl Drop for HeldView<'_> {
    fn drop(&mut self) {
        // Views of a thread end in the reverse order of their beginnings.
        HELD.with(|held| held.borrow_mut().pop());
    }
}

impl<'a> View<'a> {
    pub(super) const fn database(&self) -> &'a TidalDb {
        self.db
    }

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

    /// See [`TidalDb::scores_and_counts`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn scores_and_counts(
        &self,
        items: &[EntityId],
        signal: &str,
        window: Window,
        options: &ReadOptions,
        scores: &mut [f64],
        counts: &mut [u64],
    ) -> Result<()> {
        let options = options.pinned_to(self.now);
        self.db.scores_and_counts(items, signal, window, &options, scores, counts)
    }

    /// See [`TidalDb::score`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn score(&self, item: EntityId, signal: &str, options: &ReadOptions) -> Result<f64> {
        self.db.score(item, signal, &options.pinned_to(self.now))
    }

    /// See [`TidalDb::windowed_count`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn windowed_count(
        &self,
        item: EntityId,
        signal: &str,
        window: Window,
        options: &ReadOptions,
    ) -> Result<u64> {
        self.db.windowed_count(item, signal, window, &options.pinned_to(self.now))
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

    /// See [`TidalDb::co_engagement`].
    pub const fn co_engagement(&self) -> CoEngagementReader<'_> {
        self.db.co_engagement().now(self.now)
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

    /// See [`TidalDb::list_collections`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn list_collections(&self, user: impl Into<UserId>) -> Result<Vec<CollectionInfo>> {
        self.db.list_collections(user)
    }

    /// See [`TidalDb::collections_of`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn collections_of(
        &self,
        owner: impl Into<UserId>,
        viewer: Option<UserId>,
        after: Option<CollectionId>,
        limit: usize,
    ) -> Result<Vec<CollectionInfo>> {
        self.db.collections_of(owner, viewer, after, limit)
    }

    /// See [`TidalDb::collection`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn collection(&self, id: CollectionId, viewer: Option<UserId>) -> Result<CollectionInfo> {
        self.db.collection(id, viewer)
    }

    /// See [`TidalDb::collection_items`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn collection_items(
        &self,
        id: CollectionId,
        viewer: Option<UserId>,
        from: u64,
        limit: usize,
    ) -> Result<CollectionPage> {
        self.db.collection_items(id, viewer, from, limit)
    }

    /// See [`TidalDb::is_in_collection`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn is_in_collection(
        &self,
        id: CollectionId,
        viewer: Option<UserId>,
        item: EntityId,
    ) -> Result<bool> {
        self.db.is_in_collection(id, viewer, item)
    }
}

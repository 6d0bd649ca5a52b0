//! Collections: favourites, playlists, lists for later.
//!
//! Knows: the calls, and what of them needs no state to be refused. Must not know: how items lie.

use std::ops::Range;

use super::{Ack, Batch, Event, TidalDb, check_size};
use crate::collections::{CollectionInfo, CollectionPage};
use crate::error::{Error, Result};
use crate::ids::{CollectionId, EntityId, UserId};
use crate::options::{Durability, Options};
use crate::record::{CollectionEdit, Edit, NewCollection, Record, RecordKind, Visibility};
use crate::seq::Seq;
use crate::state::Reply;
use crate::wal::FrameBody;

/// One change of one collection: what changes, which version is expected, and which signals go with
/// it.
///
/// ```
/// use tidaldb::{CollectionChange, Event, schema::{EntityId, Timestamp}};
///
/// let song = EntityId::new(7);
/// let saved = Event::new("saved", song, Timestamp::now()).user(42);
/// let change = CollectionChange::insert(song, 0).expect_version(3).with_signal(saved);
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing happens before TidalDb::change_collection"]
pub struct CollectionChange {
    what: What,
    expected_version: Option<u64>,
    signals: Batch,
    durability: Option<Durability>,
}

#[derive(Debug, Clone)]
enum What {
    Rename(String),
    SetVisibility(Visibility),
    Append(EntityId),
    Insert(EntityId, u64),
    Remove(EntityId),
    Move(Range<u64>, u64),
    Replace(Vec<EntityId>),
}

impl CollectionChange {
    fn of(what: What) -> Self {
        Self { what, expected_version: None, signals: Batch::new(), durability: None }
    }

    /// Gives it another name.
    pub fn rename(name: impl Into<String>) -> Self {
        Self::of(What::Rename(name.into()))
    }

    /// Says anew who may read it.
    pub fn set_visibility(visibility: Visibility) -> Self {
        Self::of(What::SetVisibility(visibility))
    }

    /// Adds an item at the end. One that is there stays where it is.
    pub fn add(item: EntityId) -> Self {
        Self::of(What::Append(item))
    }

    /// Adds an item so that `position`, counted from 0, is its position. One that is there stays where
    /// it is.
    pub fn insert(item: EntityId, position: u64) -> Self {
        Self::of(What::Insert(item, position))
    }

    /// Takes an item out.
    pub fn remove(item: EntityId) -> Self {
        Self::of(What::Remove(item))
    }

    /// Takes the items at these positions, counted from 0, and puts them back in their order, so that
    /// the first of them is at position `to`. What a position means depends on the version: expect
    /// one.
    pub fn move_range(positions: Range<u64>, to: u64) -> Self {
        Self::of(What::Move(positions, to))
    }

    /// Puts these items, in this order, in the place of all that were there.
    pub fn replace(items: impl IntoIterator<Item = EntityId>) -> Self {
        Self::of(What::Replace(items.into_iter().collect()))
    }

    /// Refuses the change unless the collection is at this version.
    pub const fn expect_version(mut self, version: u64) -> Self {
        self.expected_version = Some(version);
        self
    }

    /// Counts a signal with the change, in the same frame of the log: after a crash both are there, or
    /// neither. It does not count where the change changes nothing. May be called again for more.
    pub fn with_signal(mut self, event: Event<'_>) -> Self {
        self.signals.push(event);
        self
    }

    /// Chooses when the change is acknowledged, whatever the options of the database say.
    pub const fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// Checks what needs no state, and says it in the log's words.
    fn edit(&self, options: &Options) -> Result<Edit<'_>> {
        let items_max = options.collection_items_max as u64;
        Ok(match &self.what {
            What::Rename(name) => {
                check_collection_name(name, options)?;
                Edit::Rename(name)
            }
            What::SetVisibility(visibility) => Edit::SetVisibility(*visibility),
            What::Append(item) => Edit::Append { item: *item, items_max },
            What::Insert(item, at) => Edit::Insert { item: *item, at: *at, items_max },
            What::Remove(item) => Edit::Remove(*item),
            What::Move(positions, to) => {
                let Some(count) = positions.end.checked_sub(positions.start) else {
                    return Err(Error::invalid("positions", "the range ends before it begins"));
                };
                Edit::Move { from: positions.start, count, to: *to }
            }
            What::Replace(items) => {
                if !crate::record::are_distinct(items) {
                    return Err(Error::invalid("items", "an item is there twice"));
                }
                Edit::Replace { items: items.clone(), items_max }
            }
        })
    }

    /// How much there is to apply, as the writer counts it.
    const fn weight(&self) -> usize {
        let items = match &self.what {
            What::Replace(items) => items.len(),
            _ => 1,
        };
        items + self.signals.len()
    }
}

/// The acknowledgement of a change of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CollectionAck {
    /// Its position in the log.
    pub seq: Seq,
    /// Whether anything changed: adding what is there, or removing what is not, changes nothing, and
    /// is no error.
    pub changed: bool,
    /// The version that the collection has now.
    pub version: u64,
    /// How many items it has now.
    pub item_count: u64,
    /// Signals of the change that were left out, because their ids had been seen before.
    pub duplicates: u32,
}

impl TidalDb {
    /// Creates an empty collection of a user's. Its id is unique in the database, and is never given
    /// again.
    ///
    /// Calls that change a collection are the application's own, and ask for no user: whoever may read
    /// a collection is told its [`owner`](CollectionInfo::owner), who never changes.
    ///
    /// ```
    /// # use tidaldb::{CollectionChange, TidalDb, Visibility};
    /// # use tidaldb::schema::{DecaySpec, EntityId, EntityKind, SchemaBuilder};
    /// # let mut schema = SchemaBuilder::new();
    /// # let _ = schema.signal("saved", EntityKind::Item, DecaySpec::None).add();
    /// # let db = TidalDb::builder().ephemeral().with_schema(schema.build()?).open()?;
    /// let favourites = db.create_collection(42, "favourites", Visibility::Private)?;
    /// db.add_to_collection(favourites, EntityId::new(7))?;
    /// db.change_collection(favourites, CollectionChange::insert(EntityId::new(8), 0))?;
    ///
    /// let page = db.collection_items(favourites, Some(42.into()), 0, 20)?;
    /// assert_eq!(page.items, [EntityId::new(8), EntityId::new(7)]);
    /// assert!(db.collection_items(favourites, Some(43.into()), 0, 20).is_err());
    /// # Ok::<(), tidaldb::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// - [`InvalidArgument`](Error::InvalidArgument): an empty name.
    /// - [`TooLarge`](Error::TooLarge): the name is too long, or the user has as many collections as
    ///   [`collections_per_owner_max`](Options::collections_per_owner_max).
    /// - Those of [`Ticket::wait`](crate::Ticket::wait).
    pub fn create_collection(
        &self,
        user: impl Into<UserId>,
        name: &str,
        visibility: Visibility,
    ) -> Result<CollectionId> {
        check_collection_name(name, &self.options)?;
        let owned_max = self.options.collections_per_owner_max as u64;
        let new = NewCollection { owner: user.into(), name, visibility, owned_max };
        let body = crate::engine::encoded(&Record::CreateCollection(new))?;
        match self.send(body, 1, None, None, false)?.wait_for_reply()? {
            (_, Reply::Created(id)) => Ok(id),
            (_, other) => unreachable!("a creation is answered with an id, not with {other:?}"),
        }
    }

    /// Deletes a collection and all its items. The items themselves, their signals and metadata, stay
    /// as they are.
    ///
    /// # Errors
    ///
    /// - [`CollectionNotFound`](Error::CollectionNotFound).
    /// - Those of [`Ticket::wait`](crate::Ticket::wait).
    pub fn delete_collection(&self, id: CollectionId) -> Result<Ack> {
        self.write_record(&Record::DeleteCollection(id))
    }

    /// Gives a collection another name.
    ///
    /// # Errors
    ///
    /// As [`change_collection`](Self::change_collection).
    pub fn rename_collection(&self, id: CollectionId, name: &str) -> Result<CollectionAck> {
        self.change_collection(id, CollectionChange::rename(name))
    }

    /// Says anew who may read a collection.
    ///
    /// # Errors
    ///
    /// As [`change_collection`](Self::change_collection).
    pub fn set_collection_visibility(
        &self,
        id: CollectionId,
        visibility: Visibility,
    ) -> Result<CollectionAck> {
        self.change_collection(id, CollectionChange::set_visibility(visibility))
    }

    /// Adds an item at the end of a collection, if it is not there.
    ///
    /// Items that were never written are accepted. An item that is hidden or deleted stays in the
    /// collections that it is in: what becomes of such an entry is the application's to say.
    ///
    /// # Errors
    ///
    /// As [`change_collection`](Self::change_collection).
    pub fn add_to_collection(&self, id: CollectionId, item: EntityId) -> Result<CollectionAck> {
        self.change_collection(id, CollectionChange::add(item))
    }

    /// Takes an item out of a collection, if it is there.
    ///
    /// # Errors
    ///
    /// As [`change_collection`](Self::change_collection).
    pub fn remove_from_collection(
        &self,
        id: CollectionId,
        item: EntityId,
    ) -> Result<CollectionAck> {
        self.change_collection(id, CollectionChange::remove(item))
    }

    /// Changes a collection, and counts the signals that go with the change, as one: after a crash all
    /// of it is there, or nothing.
    ///
    /// What is written does not grow with the collection: a record of some bytes in the log, and for
    /// the next checkpoint one page of collections and one or two of items, each of which has 64 rows.
    /// A replacement writes the whole list.
    ///
    /// # Errors
    ///
    /// Nothing was changed, and no signal counted, in any of these cases:
    ///
    /// - [`CollectionNotFound`](Error::CollectionNotFound).
    /// - [`StaleVersion`](Error::StaleVersion): the collection is not at the version that was
    ///   expected.
    /// - [`PositionOutOfRange`](Error::PositionOutOfRange): a position beyond the end.
    /// - [`TooLarge`](Error::TooLarge): the name is too long, or more items than
    ///   [`collection_items_max`](Options::collection_items_max).
    /// - [`InvalidArgument`](Error::InvalidArgument): an empty name, a range that ends before it
    ///   begins, an item twice in a replacement.
    /// - Those of [`submit`](Self::submit) and [`Ticket::wait`](crate::Ticket::wait), for the signals.
    pub fn change_collection(
        &self,
        id: CollectionId,
        change: CollectionChange,
    ) -> Result<CollectionAck> {
        let edit = change.edit(&self.options)?;
        let signals = if change.signals.is_empty() {
            None
        } else {
            Some(change.signals.to_bytes(&self.state.declared().schema, &self.options)?)
        };
        let record = Record::ChangeCollection(CollectionEdit {
            collection: id,
            expected_version: change.expected_version,
            edit,
            signals: signals.as_deref(),
        });
        let count = u32::try_from(1 + change.signals.len()).unwrap_or(u32::MAX);
        let body = FrameBody::new(RecordKind::ChangeCollection as u8, count, record.encode())?;
        let latest = change.signals.latest();
        let ticket = self.send(body, change.weight(), latest, change.durability, false)?;
        match ticket.wait_for_reply()? {
            (seq, Reply::Changed { standing, changed, duplicates }) => Ok(CollectionAck {
                seq,
                changed,
                version: standing.version,
                item_count: standing.item_count,
                duplicates,
            }),
            (_, other) => unreachable!("a change is answered with a version, not with {other:?}"),
        }
    }

    /// All collections of a user, in the order in which they were created, as the user sees them.
    ///
    /// # Errors
    ///
    /// Nothing today. As item metadata is, what is known of a collection may come to be read from a store.
    pub fn list_collections(&self, user: impl Into<UserId>) -> Result<Vec<CollectionInfo>> {
        let user = user.into();
        self.collections_of(user, Some(user), None, usize::MAX)
    }

    /// Collections of an owner as a viewer finds them in a list, in the order in which they were
    /// created: all of them for the owner, the public ones for everyone else. They begin after `after`,
    /// the last one of the page before, and are `limit` at most.
    ///
    /// # Errors
    ///
    /// Nothing today. As item metadata is, what is known of a collection may come to be read from a store.
    pub fn collections_of(
        &self,
        owner: impl Into<UserId>,
        viewer: Option<UserId>,
        after: Option<CollectionId>,
        limit: usize,
    ) -> Result<Vec<CollectionInfo>> {
        Ok(self.state.collections.of_owner(owner.into(), viewer, after, limit))
    }

    /// What is known of a collection.
    ///
    /// # Errors
    ///
    /// [`CollectionNotFound`](Error::CollectionNotFound), also where it is private and not the
    /// viewer's.
    pub fn collection(&self, id: CollectionId, viewer: Option<UserId>) -> Result<CollectionInfo> {
        self.state.collections.info(id, viewer)
    }

    /// Up to `limit` items of a collection, in order, from a position on, counted from 0. The page says
    /// where the next one begins, and of which version it is: when that is another than the page
    /// before had, the collection was changed in between, and positions may have shifted. A
    /// position beyond the end is that of an empty page. With a limit of 0 a page says only that: the
    /// next one begins where it does.
    ///
    /// # Errors
    ///
    /// As [`collection`](Self::collection).
    pub fn collection_items(
        &self,
        id: CollectionId,
        viewer: Option<UserId>,
        from: u64,
        limit: usize,
    ) -> Result<CollectionPage> {
        self.state.collections.items(id, viewer, from, limit)
    }

    /// Whether an item is in a collection. One look-up, however large the collection is.
    ///
    /// # Errors
    ///
    /// As [`collection`](Self::collection).
    pub fn is_in_collection(
        &self,
        id: CollectionId,
        viewer: Option<UserId>,
        item: EntityId,
    ) -> Result<bool> {
        self.state.collections.contains(id, viewer, item)
    }
}

/// A collection's name must have 1 to `collection_name_size_bytes_max` bytes.
fn check_collection_name(name: &str, options: &Options) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid("the name of a collection", "it is empty"));
    }
    let limit = options.collection_name_size_bytes_max;
    check_size("the name of a collection", name.len(), limit)
}

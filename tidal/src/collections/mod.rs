//! Collections: ordered lists of items that users keep.
//!
//! Knows: owners, names, visibilities, versions, items in order, and what a change does to them. Must
//! not know: signals, the log, clocks.
//!
//! Two tables: what is known of each collection (`row.rs`), and its items in chunks (`chunk.rs`), so
//! that a change of a large collection writes one row and one or two chunks. Where both are read, the
//! lock of the rows is taken first: a version and the items that go with it are seen together.

mod change;
mod chunk;
mod list;
mod members;
mod row;
#[cfg(test)]
mod tests;

pub(crate) use change::Standing;

use std::sync::Arc;

use crate::codec::DecodeError;
use crate::error::{Error, Result};
use crate::ids::{CollectionId, EntityId, Timestamp, UserId};
use crate::record::Visibility;
use crate::table::{Slab, StateTable, Table, TableId};
use chunk::Chunks;
use row::{CollectionRow, Owners};

/// What is known of a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CollectionInfo {
    /// The collection.
    pub id: CollectionId,
    /// Whose it is; it never changes hands.
    pub owner: UserId,
    /// What its owner calls it. Two of an owner's may have the same name.
    pub name: String,
    /// Who else may read it.
    pub visibility: Visibility,
    /// 1 when it is created, and one more with every change that changed something.
    pub version: u64,
    /// How many items it has.
    pub item_count: u64,
    /// The engine time at which it was created.
    pub created: Timestamp,
    /// The engine time of its last change.
    pub changed: Timestamp,
}

/// Some items of a collection, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CollectionPage {
    /// The version that they are of: pages of different versions do not go together.
    pub version: u64,
    /// How many items the collection has.
    pub item_count: u64,
    /// The items.
    pub items: Vec<EntityId>,
    /// The position of the item after the last one; `None` when there is none.
    pub next: Option<u64>,
}

/// All collections.
pub(crate) struct Collections {
    rows: Arc<Table<CollectionRow>>,
    chunks: Arc<Chunks>,
}

impl Collections {
    /// The kinds of the two tables on disk.
    pub(crate) const ROWS: u8 = 8;
    pub(crate) const CHUNKS: u8 = 9;

    pub(crate) fn new() -> Self {
        let table = |kind| TableId { kind, part: 0 };
        Self {
            rows: Arc::new(Table::new(table(Self::ROWS), Owners::default())),
            chunks: Arc::new(Chunks::new(table(Self::CHUNKS))),
        }
    }

    /// What is known of a collection.
    ///
    /// # Errors
    ///
    /// [`Error::CollectionNotFound`], also where the viewer may not know of it.
    pub(crate) fn info(&self, id: CollectionId, viewer: Option<UserId>) -> Result<CollectionInfo> {
        visible(&self.rows.read(), id, viewer).map(info_of)
    }

    /// The collections of an owner that a viewer finds in a list, by ascending number: those after
    /// `after`, `limit` at most.
    pub(crate) fn of_owner(
        &self,
        owner: UserId,
        viewer: Option<UserId>,
        after: Option<CollectionId>,
        limit: usize,
    ) -> Vec<CollectionInfo> {
        let rows = self.rows.read();
        let all = rows.side().of(owner, after).map(|id| rows.get(&id).expect("owners own rows"));
        let is_listed =
            |row: &&CollectionRow| viewer == Some(owner) || row.visibility == Visibility::Public;
        all.filter(is_listed).take(limit).map(info_of).collect()
    }

    /// All collections, whoever may see them, by ascending number: those after `after`, `limit` at most.
    pub(crate) fn all(&self, after: Option<CollectionId>, limit: usize) -> Vec<CollectionInfo> {
        let rows = self.rows.read();
        let wanted = |row: &&CollectionRow| after.is_none_or(|after| row.id > after);
        let mut found: Vec<_> = rows.iter().map(|(_, row)| row).filter(wanted).collect();
        found.sort_unstable_by_key(|row| row.id);
        found.into_iter().take(limit).map(info_of).collect()
    }

    /// Up to `limit` items from a position on.
    ///
    /// # Errors
    ///
    /// As [`info`](Self::info).
    pub(crate) fn items(
        &self,
        id: CollectionId,
        viewer: Option<UserId>,
        from: u64,
        limit: usize,
    ) -> Result<CollectionPage> {
        let rows = self.rows.read();
        let row = visible(&rows, id, viewer)?;
        let chunks = self.chunks.read();
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let items = match chunks.side().get(id) {
            Some(list) => list.items(&chunks, from, limit),
            None => Vec::new(),
        };
        let next = from.saturating_add(items.len()) as u64;
        Ok(CollectionPage {
            version: row.version,
            item_count: row.item_count,
            items,
            next: (next < row.item_count).then_some(next),
        })
    }

    /// Whether an item is in a collection.
    ///
    /// # Errors
    ///
    /// As [`info`](Self::info).
    pub(crate) fn contains(
        &self,
        id: CollectionId,
        viewer: Option<UserId>,
        item: EntityId,
    ) -> Result<bool> {
        let rows = self.rows.read();
        visible(&rows, id, viewer)?;
        Ok(self.has(id, item))
    }

    /// Both tables.
    pub(crate) fn tables(&self) -> [Arc<dyn StateTable>; 2] {
        [self.rows(), self.chunks()]
    }

    /// The table of what is known of each.
    pub(crate) fn rows(&self) -> Arc<dyn StateTable> {
        Arc::clone(&self.rows) as Arc<dyn StateTable>
    }

    /// The table of items.
    pub(crate) fn chunks(&self) -> Arc<dyn StateTable> {
        Arc::clone(&self.chunks) as Arc<dyn StateTable>
    }

    /// Refuses restored tables that contradict each other, or the number of operations so far: ids and
    /// versions grow by one an operation at most, and are never given twice.
    pub(crate) fn check_restored(&self, operations: u64) -> Result<(), DecodeError> {
        let rows = self.rows.read();
        let ahead = |row: &CollectionRow| row.id.get().max(row.version) > operations;
        if rows.iter().any(|(_, row)| ahead(row) || row.version == 0) {
            return Err(DecodeError::Malformed("a collection from operations that never were"));
        }
        let sound = self.check_counts(&rows);
        sound.map_err(|_| DecodeError::Malformed("a collection with other items than it counts"))
    }

    /// Checks what is derived, and both tables against each other; the sentence says what is broken.
    /// Each table checks itself.
    pub(crate) fn check(&self) -> Result<(), String> {
        let rows = self.rows.read();
        if *rows.side() != Owners::of_rows(&rows) {
            return Err("an owner has other collections than name that owner".to_owned());
        }
        self.check_counts(&rows)
    }

    fn check_counts(&self, rows: &Slab<CollectionRow>) -> Result<(), String> {
        let chunks = self.chunks.read();
        let lists = chunks.side();
        for id in lists.collections() {
            if rows.find(&id).is_none() {
                return Err(format!("there are items of collection {id}, which does not exist"));
            }
        }
        for (_, row) in rows.iter() {
            let found = lists.get(row.id).map_or(0, chunk::List::len) as u64;
            if found != row.item_count {
                let (id, counted) = (row.id, row.item_count);
                return Err(format!("collection {id} counts {counted} items and has {found}"));
            }
        }
        Ok(())
    }

    fn has(&self, id: CollectionId, item: EntityId) -> bool {
        let chunks = self.chunks.read();
        chunks.side().get(id).is_some_and(|list| list.find(&chunks, item).is_some())
    }
}

/// The row of a collection that a viewer may know of.
fn visible(
    rows: &Slab<CollectionRow>,
    id: CollectionId,
    viewer: Option<UserId>,
) -> Result<&CollectionRow> {
    let row = rows.get(&id).filter(|row| row.is_visible_to(viewer));
    row.ok_or(Error::CollectionNotFound(id))
}

fn info_of(row: &CollectionRow) -> CollectionInfo {
    CollectionInfo {
        id: row.id,
        owner: row.owner,
        name: row.name.to_string(),
        visibility: row.visibility,
        version: row.version,
        item_count: row.item_count,
        created: row.created,
        changed: row.changed,
    }
}

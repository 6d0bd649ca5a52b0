//! What a record does to a collection.
//!
//! Knows: what is refused, what changes nothing, what a change writes. Must not know: who may change
//! what, which is the application's to say; how the items lie.
//!
//! A change is decided first and carried out afterwards, because what comes with it may still be
//! refused: then nothing of it happens.

use super::row::CollectionRow;
use super::{Collections, list};
use crate::error::{Error, Result};
use crate::ids::{CollectionId, Timestamp};
use crate::record::{CollectionEdit, Edit, NewCollection};

/// Where a collection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) version: u64,
    pub(crate) item_count: u64,
}

impl Standing {
    const fn of(row: &CollectionRow) -> Self {
        Self { version: row.version, item_count: row.item_count }
    }
}

impl Collections {
    /// A collection comes to be.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] when its owner has as many as may be; nothing is changed.
    pub(crate) fn create(
        &self,
        id: CollectionId,
        new: &NewCollection<'_>,
        now: Timestamp,
    ) -> Result<()> {
        let mut rows = self.rows.write();
        let owned = rows.side().of(new.owner, None).count() as u64;
        within("the collections of an owner", owned + 1, new.owned_max, "collections")?;
        rows.side_mut().insert(new.owner, id);
        rows.insert_new(CollectionRow {
            id,
            owner: new.owner,
            visibility: new.visibility,
            version: 1,
            created: now,
            changed: now,
            item_count: 0,
            name: new.name.into(),
        });
        Ok(())
    }

    /// A collection goes, with all its items.
    ///
    /// # Errors
    ///
    /// [`Error::CollectionNotFound`]; nothing is changed.
    pub(crate) fn delete(&self, id: CollectionId) -> Result<()> {
        let mut rows = self.rows.write();
        let (_, row) = rows.remove(&id).ok_or(Error::CollectionNotFound(id))?;
        rows.side_mut().remove(row.owner, id);
        list::edit(&mut self.chunks.write(), id, |items| items.clear());
        Ok(())
    }

    /// Whether a change would change anything; if not, where the collection stands. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::CollectionNotFound`], [`Error::StaleVersion`], [`Error::PositionOutOfRange`],
    /// [`Error::TooLarge`].
    pub(crate) fn decide(&self, change: &CollectionEdit<'_>) -> Result<Option<Standing>> {
        let id = change.collection;
        let rows = self.rows.read();
        let row = rows.get(&id).ok_or(Error::CollectionNotFound(id))?;
        if let Some(expected) = change.expected_version.filter(|&expected| expected != row.version)
        {
            return Err(Error::StaleVersion { collection: id, expected, current: row.version });
        }
        let changes = match &change.edit {
            Edit::Rename(name) => *row.name != **name,
            Edit::SetVisibility(visibility) => row.visibility != *visibility,
            Edit::Append { item, .. } | Edit::Insert { item, .. } if self.has(id, *item) => false,
            Edit::Append { items_max, .. } => {
                within("a collection", row.item_count + 1, *items_max, "items")?;
                true
            }
            Edit::Insert { at, items_max, .. } => {
                check_position(row, *at)?;
                within("a collection", row.item_count + 1, *items_max, "items")?;
                true
            }
            Edit::Remove(item) => self.has(id, *item),
            Edit::Move { from, count, to } => {
                check_position(row, from.saturating_add(*count))?;
                check_position(row, to.saturating_add(*count))?;
                *count > 0 && from != to
            }
            Edit::Replace { items, items_max } => {
                within("a collection", items.len() as u64, *items_max, "items")?;
                !self.has_exactly(id, items)
            }
        };
        Ok(if changes { None } else { Some(Standing::of(row)) })
    }

    /// Makes a change that [`decide`](Self::decide) found to change something, before anything else
    /// changed. Where the collection stands then.
    pub(crate) fn carry_out(&self, change: &CollectionEdit<'_>, now: Timestamp) -> Standing {
        let mut rows = self.rows.write();
        let slot = rows.find(&change.collection).expect("it was decided that it exists");
        let (row, _) = rows.row_mut(slot);
        row.version += 1;
        row.changed = now;
        match &change.edit {
            Edit::Rename(name) => row.name = (*name).into(),
            Edit::SetVisibility(visibility) => row.visibility = *visibility,
            Edit::Append { .. } | Edit::Insert { .. } => row.item_count += 1,
            Edit::Remove(_) => row.item_count -= 1,
            Edit::Move { .. } => {}
            Edit::Replace { items, .. } => row.item_count = items.len() as u64,
        }
        let standing = Standing::of(row);
        self.edit_items(change, standing.item_count);
        standing
    }

    /// Does to the items what a change says; there are `item_count` of them afterwards.
    fn edit_items(&self, change: &CollectionEdit<'_>, item_count: u64) {
        if matches!(change.edit, Edit::Rename(_) | Edit::SetVisibility(_)) {
            return;
        }
        let mut chunks = self.chunks.write();
        list::edit(&mut chunks, change.collection, |list| match &change.edit {
            Edit::Rename(_) | Edit::SetVisibility(_) => {}
            Edit::Append { item, .. } => list.insert(item_count as usize - 1, *item),
            Edit::Insert { item, at, .. } => list.insert(*at as usize, *item),
            Edit::Remove(item) => list.remove(*item),
            Edit::Move { from, count, to } => {
                list.move_range(*from as usize, *count as usize, *to as usize);
            }
            Edit::Replace { items, .. } => {
                list.clear();
                list.fill(items);
            }
        });
    }

    fn has_exactly(&self, id: CollectionId, items: &[crate::ids::EntityId]) -> bool {
        let chunks = self.chunks.read();
        let list = chunks.side().get(id);
        let there = list.map(|list| list.items(&chunks, 0, usize::MAX));
        there.unwrap_or_default() == items
    }
}

/// A position that the end of a list may have is not beyond it.
fn check_position(row: &CollectionRow, position: u64) -> Result<()> {
    let (collection, item_count) = (row.id, row.item_count);
    if position <= item_count {
        return Ok(());
    }
    Err(Error::PositionOutOfRange { collection, position, item_count })
}

fn within(what: &'static str, size: u64, limit: u64, unit: &'static str) -> Result<()> {
    if size <= limit {
        return Ok(());
    }
    Err(Error::TooLarge { what, size, limit, unit })
}

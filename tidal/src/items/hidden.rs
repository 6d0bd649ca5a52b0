//! Hidden items: they count on, but never appear in a ranking.
//!
//! A row in a page: item u64.

use std::sync::Arc;

use crate::codec::{DecodeError, Put, Reader};
use crate::ids::EntityId;
use crate::sync::RwLockReadGuard;
use crate::table::{Row, Slab, Slot, StateTable, Table, TableId, hash_u64};

#[derive(Debug)]
struct HiddenRow(EntityId);

impl Row for HiddenRow {
    type Key = EntityId;
    type Side = ();

    fn key(&self) -> &EntityId {
        &self.0
    }

    fn hash(key: &EntityId) -> u64 {
        hash_u64(key.get())
    }

    fn encode(&self, _: Slot, (): &(), out: &mut Vec<u8>) {
        out.put_u64(self.0.get());
    }

    fn decode(_: Slot, reader: &mut Reader<'_>, (): &mut ()) -> Result<Self, DecodeError> {
        reader.u64().map(EntityId::new).map(Self)
    }

    fn side_size_bytes((): &()) -> usize {
        0
    }
}

/// The hidden items, under a read lock.
pub(crate) struct HeldHidden<'a>(RwLockReadGuard<'a, Slab<HiddenRow>>);

impl HeldHidden<'_> {
    #[inline]
    pub(crate) fn contains(&self, item: EntityId) -> bool {
        self.0.len() > 0 && self.0.find(&item).is_some()
    }
}

/// The items that are hidden.
pub(crate) struct Hidden {
    table: Arc<Table<HiddenRow>>,
}

impl Hidden {
    /// The kind of table on disk.
    pub(crate) const KIND: u8 = 4;

    pub(crate) fn new() -> Self {
        Self { table: Arc::new(Table::new(TableId { kind: Self::KIND, part: 0 }, ())) }
    }

    pub(crate) fn contains(&self, item: EntityId) -> bool {
        self.held().contains(item)
    }

    /// The set as it is now; it cannot change while this is held.
    pub(crate) fn held(&self) -> HeldHidden<'_> {
        HeldHidden(self.table.read())
    }

    /// Hides or shows; false when it already was so.
    pub(crate) fn set(&self, item: EntityId, hidden: bool) -> bool {
        if self.contains(item) == hidden {
            return false;
        }
        let mut slab = self.table.write();
        if hidden {
            slab.insert_new(HiddenRow(item));
        } else {
            slab.remove(&item);
        }
        true
    }

    pub(crate) fn table(&self) -> Arc<dyn StateTable> {
        Arc::clone(&self.table) as Arc<dyn StateTable>
    }
}

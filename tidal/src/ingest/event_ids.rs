//! Event ids that were seen, within a horizon of engine time.
//!
//! Knows: ids and when they came. Must not know: events.
//!
//! Engine time never runs backwards (a reset aside), so ids leave in the order in which they came: a
//! queue beside the rows, derived from them, says which are due.
//!
//! A row in a page: id u128 | engine time u64 (ns).

use std::collections::VecDeque;
use std::sync::Arc;

use crate::codec::{DecodeError, Put, Reader};
use crate::ids::Timestamp;
use crate::table::{Row, Slab, Slot, StateTable, Table, TableId, hash_u128};

#[derive(Debug)]
struct EventIdRow {
    id: u128,
    seen_ns: u64,
}

/// (seen, id) in ascending order.
type Queue = VecDeque<(u64, u128)>;

impl Row for EventIdRow {
    type Key = u128;
    type Side = Queue;

    fn key(&self) -> &u128 {
        &self.id
    }

    fn hash(key: &u128) -> u64 {
        hash_u128(*key)
    }

    fn encode(&self, _: Slot, _: &Queue, out: &mut Vec<u8>) {
        out.put_u128(self.id);
        out.put_u64(self.seen_ns);
    }

    fn decode(_: Slot, reader: &mut Reader<'_>, _: &mut Queue) -> Result<Self, DecodeError> {
        Ok(Self { id: reader.u128()?, seen_ns: reader.u64()? })
    }

    fn rebuild(slab: &mut Slab<Self>) -> Result<(), DecodeError> {
        let mut rows: Vec<_> = slab.iter().map(|(_, row)| (row.seen_ns, row.id)).collect();
        rows.sort_unstable();
        *slab.side_mut() = rows.into();
        Ok(())
    }

    fn side_size_bytes(side: &Queue) -> usize {
        side.capacity() * size_of::<(u64, u128)>()
    }
}

/// The event ids seen within the horizon.
pub(crate) struct EventIds {
    table: Arc<Table<EventIdRow>>,
}

impl EventIds {
    /// The kind of table on disk.
    pub(crate) const KIND: u8 = 7;

    pub(crate) fn new() -> Self {
        Self { table: Arc::new(Table::new(TableId { kind: Self::KIND, part: 0 }, VecDeque::new())) }
    }

    /// Remembers an id; false when it is remembered already.
    pub(crate) fn insert(&self, id: u128, now: Timestamp) -> bool {
        let mut slab = self.table.write();
        let seen_ns = now.as_nanos();
        let (_, new) = slab.find_or_insert(EventIdRow { id, seen_ns });
        if new {
            slab.side_mut().push_back((seen_ns, id));
        }
        new
    }

    /// Whether an id came within the last `horizon_ns`.
    pub(crate) fn contains(&self, id: u128, now: Timestamp, horizon_ns: u64) -> bool {
        let since = now.as_nanos().saturating_sub(horizon_ns);
        self.table.read().get(&id).is_some_and(|row| row.seen_ns >= since)
    }

    /// Forgets what came more than `horizon_ns` before `now`.
    pub(crate) fn expire(&self, now: Timestamp, horizon_ns: u64) {
        let before = now.as_nanos().saturating_sub(horizon_ns);
        let is_due = |queue: &Queue| queue.front().is_some_and(|&(seen, _)| seen < before);
        if !is_due(self.table.read().side()) {
            return;
        }
        let mut slab = self.table.write();
        while is_due(slab.side()) {
            let (_, id) = slab.side_mut().pop_front().expect("one is due");
            slab.remove(&id);
        }
    }

    /// Engine time was set back to `now`: what came later came now, so that order is kept.
    pub(crate) fn clamp(&self, now: Timestamp) {
        let mut slab = self.table.write();
        let ahead: Vec<Slot> = slab
            .iter()
            .filter(|(_, row)| row.seen_ns > now.as_nanos())
            .map(|(slot, _)| slot)
            .collect();
        for slot in ahead {
            slab.row_mut(slot).0.seen_ns = now.as_nanos();
        }
        EventIdRow::rebuild(&mut slab).expect("any rows make a queue");
    }

    pub(crate) fn table(&self) -> Arc<dyn StateTable> {
        Arc::clone(&self.table) as Arc<dyn StateTable>
    }
}

//! Event ids that were seen, within a horizon of engine time.
//!
//! Knows: ids and when they came. Must not know: events.
//!
//! Engine time never runs backwards (a reset aside), so ids leave in the order in which they came: a
//! queue beside the rows, derived from them, says which are due.
//!
//! An id that came before the horizon counts as one that never came, whether its row is still there or not:
//! rows are forgotten some at a time, and which of them are left depends on how often something came, and on
//! the order in which they were restored. No answer depends on that, nor does a digest. Whatever would let the
//! horizon reach further back (an earlier time, a longer horizon) must forget what lies before it first.
//!
//! A row in a page: id u128 | engine time u64 (ns).

use std::collections::VecDeque;
use std::sync::Arc;

use crate::codec::{DecodeError, Hasher, Put, Reader};
use crate::ids::Timestamp;
use crate::table::{Row, Slab, Slot, StateTable, Table, TableId, hash_u128};

#[derive(Debug)]
struct EventIdRow {
    id: u128,
    seen_ns: u64,
}

/// What came before this is not remembered.
fn since(now: Timestamp, horizon_ns: u64) -> u64 {
    now.as_nanos().saturating_sub(horizon_ns)
}

/// (seen, id) in ascending order of the first. An id that was forgotten, or came again, may be in it for
/// what it was.
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

    /// Remembers an id; false when it came within the last `horizon_ns` already.
    pub(crate) fn insert(&self, id: u128, now: Timestamp, horizon_ns: u64) -> bool {
        let mut slab = self.table.write();
        let seen_ns = now.as_nanos();
        let (slot, new) = slab.find_or_insert(EventIdRow { id, seen_ns });
        if !new {
            if slab.row(slot).seen_ns >= since(now, horizon_ns) {
                return false;
            }
            slab.row_mut(slot).0.seen_ns = seen_ns;
        }
        slab.side_mut().push_back((seen_ns, id));
        true
    }

    /// Whether an id came within the last `horizon_ns`.
    pub(crate) fn contains(&self, id: u128, now: Timestamp, horizon_ns: u64) -> bool {
        self.table.read().get(&id).is_some_and(|row| row.seen_ns >= since(now, horizon_ns))
    }

    /// Forgets what came more than `horizon_ns` before `now`, at most so many ids.
    pub(crate) fn expire(&self, now: Timestamp, horizon_ns: u64, count_max: usize) {
        let before = since(now, horizon_ns);
        let is_due = |queue: &Queue| queue.front().is_some_and(|&(seen, _)| seen < before);
        if !is_due(self.table.read().side()) {
            return;
        }
        let mut slab = self.table.write();
        for _ in 0..count_max {
            if !is_due(slab.side()) {
                break;
            }
            let (seen_ns, id) = slab.side_mut().pop_front().expect("one is due");
            if slab.get(&id).is_some_and(|row| row.seen_ns == seen_ns) {
                slab.remove(&id);
            }
        }
    }

    /// Feeds what came within the last `horizon_ns` to `digest`, in the order of ids, behind `head`; nothing
    /// if nothing did.
    pub(crate) fn digest(
        &self,
        (now, horizon_ns): (Timestamp, u64),
        head: &[u8],
        digest: &mut Hasher,
    ) {
        let slab = self.table.read();
        let is_known = |row: &EventIdRow| row.seen_ns >= since(now, horizon_ns);
        if slab.iter().any(|(_, row)| is_known(row)) {
            slab.digest_those(is_known, now, digest.update(head));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Purpose;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const HORIZON_NS: u64 = 100;

    fn digest(ids: &EventIds, now: Timestamp) -> [u8; 32] {
        let mut digest = Hasher::new(Purpose::Digest);
        ids.digest((now, HORIZON_NS), &[7, 0], &mut digest);
        digest.finish()
    }

    proptest! {
        #[test]
        fn what_is_forgotten_a_little_at_a_time_answers_like_what_is_forgotten_at_once(
            steps in prop::collection::vec(
                (0u64..60, 0u128..40, 0usize..3, prop::option::weighted(0.05, 0u64..300)), 1..300,
            ),
        ) {
            let (slow, prompt) = (EventIds::new(), EventIds::new());
            let mut plain: BTreeMap<u128, u64> = BTreeMap::new();
            let mut now = 1_000;
            for (passed, id, count_max, back) in steps {
                now += passed;
                if let Some(back) = back {
                    let last = Timestamp::from_nanos(now);
                    plain.retain(|_, seen| *seen >= now - HORIZON_NS);
                    now -= back;
                    plain.values_mut().for_each(|seen| *seen = (*seen).min(now));
                    for ids in [&slow, &prompt] {
                        ids.expire(last, HORIZON_NS, usize::MAX);
                        ids.clamp(Timestamp::from_nanos(now));
                    }
                }
                let time = Timestamp::from_nanos(now);
                slow.expire(time, HORIZON_NS, count_max);
                prompt.expire(time, HORIZON_NS, usize::MAX);
                plain.retain(|_, seen| *seen >= now - HORIZON_NS);
                let is_new = !plain.contains_key(&id);
                prop_assert_eq!(slow.contains(id, time, HORIZON_NS), !is_new);
                prop_assert_eq!(slow.insert(id, time, HORIZON_NS), is_new);
                prop_assert_eq!(prompt.insert(id, time, HORIZON_NS), is_new);
                plain.entry(id).or_insert(now);
                prop_assert_eq!(digest(&slow, time), digest(&prompt, time));
            }
        }
    }

    #[test]
    fn no_more_is_forgotten_at_once_than_was_said_and_all_of_it_in_the_end() {
        let ids = EventIds::new();
        let first = Timestamp::from_nanos(1_000);
        assert!((0..1_000).all(|id| ids.insert(id, first, HORIZON_NS)));
        let later = Timestamp::from_nanos(2_000);
        for left in [700, 400, 100, 0, 0] {
            ids.expire(later, HORIZON_NS, 300);
            assert_eq!(ids.table().size().rows, left);
            assert_eq!(digest(&ids, later), digest(&EventIds::new(), later));
        }
    }
}

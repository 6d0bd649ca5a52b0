//! How often people go back to what they engaged with a little before.
//!
//! Knows: counts by position. Must not know: whose trail, which item.
//!
//! Position j of a trail is the item that was touched j items before the last one; 0 is the last itself.
//! Each engagement that joins a trail looks at every position that there is, and goes back to one of
//! them or to none. A log on which people go back says so here, and answers can follow it.
//!
//! A row in a page: position u8 | seen u64 | returned u64.

use std::sync::Arc;

use crate::codec::{DecodeError, Put, Reader};
use crate::table::{Row, Slab, Slot, StateTable, Table, TableId, hash_u64};

/// Positions that are counted.
pub(crate) const POSITIONS: usize = 20;

/// What became of one position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Revisits {
    /// How many engagements could have gone back to it.
    pub(crate) seen: u64,
    /// How many did.
    pub(crate) returned: u64,
}

/// A share is believed as if so many engagements had not gone back.
const PRIOR: f64 = 20.0;

impl Revisits {
    /// The share of engagements that go back to the position, shrunk towards none where few were seen.
    pub(crate) fn share(&self) -> f64 {
        self.returned as f64 / (self.seen as f64 + PRIOR)
    }
}

#[derive(Debug)]
struct RevisitsRow {
    position: u8,
    counts: Revisits,
}

/// Counts that are read have room to count on.
const RESTORED_COUNT_MAX: u64 = u64::MAX / 2;

impl Row for RevisitsRow {
    type Key = u8;
    type Side = ();

    fn key(&self) -> &u8 {
        &self.position
    }

    fn hash(key: &u8) -> u64 {
        hash_u64(u64::from(*key))
    }

    fn encode(&self, _: Slot, (): &(), out: &mut Vec<u8>) {
        out.put_u8(self.position);
        out.put_u64(self.counts.seen);
        out.put_u64(self.counts.returned);
    }

    fn decode(_: Slot, reader: &mut Reader<'_>, (): &mut ()) -> Result<Self, DecodeError> {
        let position = reader.u8()?;
        let counts = Revisits { seen: reader.u64()?, returned: reader.u64()? };
        let is_counted = usize::from(position) < POSITIONS;
        if !is_counted || counts.returned > counts.seen || counts.seen > RESTORED_COUNT_MAX {
            return Err(DecodeError::Malformed("revisits that no writer counts"));
        }
        Ok(Self { position, counts })
    }

    fn side_size_bytes((): &()) -> usize {
        0
    }
}

/// What engagements did, to be added to the counts.
#[derive(Debug, Default)]
pub(super) struct Tally([Revisits; POSITIONS]);

impl Tally {
    /// An engagement joined a trail of so many items, and went back to the one at this position, if
    /// it was in the trail.
    pub(super) fn count(&mut self, len: usize, back_to: Option<usize>) {
        self.0.iter_mut().take(len).for_each(|position| position.seen += 1);
        if let Some(position) = back_to.and_then(|position| self.0.get_mut(position)) {
            position.returned += 1;
        }
    }
}

/// The counts of all positions.
pub(super) struct RevisitCounts {
    table: Arc<Table<RevisitsRow>>,
}

impl RevisitCounts {
    pub(super) fn new(id: TableId) -> Self {
        Self { table: Arc::new(Table::new(id, ())) }
    }

    /// Adds what engagements did.
    pub(super) fn add(&self, tally: &Tally) {
        let counted = |counts: &Revisits| counts.seen > 0;
        if !tally.0.iter().any(counted) {
            return;
        }
        let mut slab = self.table.write();
        for (position, more) in tally.0.iter().enumerate().filter(|(_, more)| counted(more)) {
            let position = position as u8;
            let counts = Revisits::default();
            let (slot, _) = slab.find_or_insert(RevisitsRow { position, counts });
            let counts = &mut slab.row_mut(slot).0.counts;
            counts.seen += more.seen;
            counts.returned += more.returned;
        }
    }

    /// The counts, by position.
    pub(super) fn all(&self) -> [Revisits; POSITIONS] {
        let slab: &Slab<RevisitsRow> = &self.table.read();
        std::array::from_fn(|at| slab.get(&(at as u8)).map(|row| row.counts).unwrap_or_default())
    }

    pub(super) fn table(&self) -> Arc<dyn StateTable> {
        Arc::clone(&self.table) as Arc<dyn StateTable>
    }
}

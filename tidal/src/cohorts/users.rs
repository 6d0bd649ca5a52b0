//! Users: their attributes, and the cohorts that follow from them.
//!
//! A row in a page: user u64 | cohorts: count varint, number u32 each | attributes: length varint,
//! bytes as the record has them.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::codec::{DecodeError, Put, Reader};
use crate::ids::{CohortId, UserId};
use crate::record::{Attributes, decode_attributes, encode_attributes};
use crate::table::{Row, Slot, StateTable, Table, TableId, hash_u64};

#[derive(Debug)]
struct UserRow {
    user: UserId,
    cohorts: SmallVec<[CohortId; 4]>,
    attributes: Box<[u8]>,
}

impl Row for UserRow {
    type Key = UserId;
    type Side = ();

    fn key(&self) -> &UserId {
        &self.user
    }

    fn hash(key: &UserId) -> u64 {
        hash_u64(key.get())
    }

    fn encode(&self, _: Slot, (): &(), out: &mut Vec<u8>) {
        out.put_u64(self.user.get());
        out.put_varint(self.cohorts.len() as u64);
        self.cohorts.iter().for_each(|cohort| out.put_u32(cohort.get()));
        out.put_bytes(&self.attributes);
    }

    fn decode(_: Slot, reader: &mut Reader<'_>, (): &mut ()) -> Result<Self, DecodeError> {
        let user = UserId::new(reader.u64()?);
        let count = reader.count(4)?;
        let cohorts: SmallVec<[CohortId; 4]> =
            (0..count).map(|_| reader.u32().map(CohortId::new)).collect::<Result<_, _>>()?;
        let mut ascending = cohorts.clone();
        ascending.push(CohortId::EVERYONE);
        ascending.sort_unstable();
        if !ascending.is_sorted_by(|left, right| left < right) {
            return Err(DecodeError::Malformed("a user who is in a cohort twice"));
        }
        let attributes = reader.bytes()?;
        decode_attributes(attributes)?;
        Ok(Self { user, cohorts, attributes: attributes.into() })
    }

    fn heap_size_bytes(&self) -> usize {
        let spilled = if self.cohorts.spilled() { self.cohorts.capacity() * 4 } else { 0 };
        self.attributes.len() + spilled
    }

    fn side_size_bytes((): &()) -> usize {
        0
    }
}

/// The users that were written.
pub(crate) struct Users {
    table: Arc<Table<UserRow>>,
}

impl Users {
    /// The kind of table on disk.
    pub(crate) const KIND: u8 = 3;

    pub(crate) fn new() -> Self {
        Self { table: Arc::new(Table::new(TableId { kind: Self::KIND, part: 0 }, ())) }
    }

    /// The cohorts of a user; none for one that was never written.
    pub(crate) fn cohorts(&self, user: UserId) -> SmallVec<[CohortId; 4]> {
        self.table.read().get(&user).map(|row| row.cohorts.clone()).unwrap_or_default()
    }

    /// The attributes of a user.
    pub(crate) fn attributes(&self, user: UserId) -> Option<Attributes> {
        let bytes = self.table.read().get(&user)?.attributes.clone();
        Some(decode_attributes(&bytes).expect("attributes were checked when they came in"))
    }

    /// Replaces a user.
    pub(crate) fn write(&self, user: UserId, attributes: &Attributes, cohorts: &[CohortId]) {
        self.table.write().put(UserRow {
            user,
            cohorts: cohorts.into(),
            attributes: encode_attributes(attributes).into(),
        });
    }

    /// The last cohort that any user is in; everyone when nobody is in one.
    pub(crate) fn last_cohort(&self) -> CohortId {
        let slab = self.table.read();
        let all = slab.iter().flat_map(|(_, row)| row.cohorts.iter().copied());
        all.max().unwrap_or(CohortId::EVERYONE)
    }

    /// Every user, in ascending order: cohorts that are added to a schema find their members so.
    pub(crate) fn all(&self) -> Vec<UserId> {
        let mut users: Vec<UserId> = self.table.read().iter().map(|(_, row)| row.user).collect();
        users.sort_unstable();
        users
    }

    pub(crate) fn table(&self) -> Arc<dyn StateTable> {
        Arc::clone(&self.table) as Arc<dyn StateTable>
    }
}

//! What is known of a collection apart from its items.
//!
//! A row in a page: collection u64 | owner u64 | visibility u8 | version varint | created u64 (ns) |
//! changed u64 (ns) | items varint | name (length varint, UTF-8).

use std::collections::BTreeSet;
use std::ops::Bound;

use crate::codec::{DecodeError, Put, Reader};
use crate::ids::{CollectionId, Timestamp, UserId};
use crate::record::Visibility;
use crate::table::{Row, Slab, Slot, hash_u64};

#[derive(Debug)]
pub(super) struct CollectionRow {
    pub(super) id: CollectionId,
    pub(super) owner: UserId,
    pub(super) visibility: Visibility,
    /// 1 at first, and one more with every change.
    pub(super) version: u64,
    pub(super) created: Timestamp,
    /// When its version became what it is.
    pub(super) changed: Timestamp,
    pub(super) item_count: u64,
    pub(super) name: Box<str>,
}

impl CollectionRow {
    pub(super) fn is_visible_to(&self, viewer: Option<UserId>) -> bool {
        self.visibility != Visibility::Private || viewer == Some(self.owner)
    }
}

/// Which collections an owner has, in the order in which they were created; derived from the rows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Owners(BTreeSet<(UserId, CollectionId)>);

impl Owners {
    pub(super) fn insert(&mut self, owner: UserId, id: CollectionId) {
        self.0.insert((owner, id));
    }

    pub(super) fn remove(&mut self, owner: UserId, id: CollectionId) {
        self.0.remove(&(owner, id));
    }

    /// The collections of an owner, those up to and with `after` left out.
    pub(super) fn of(
        &self,
        owner: UserId,
        after: Option<CollectionId>,
    ) -> impl Iterator<Item = CollectionId> {
        let first = (owner, CollectionId::new(0));
        let from = after.map_or(Bound::Included(first), |after| Bound::Excluded((owner, after)));
        let last = Bound::Included((owner, CollectionId::new(u64::MAX)));
        // The last number comes after itself: then nothing is left, and no range begins so.
        let is_over = after == Some(CollectionId::new(u64::MAX));
        let range = (!is_over).then(|| self.0.range((from, last)));
        range.into_iter().flatten().map(|&(_, id)| id)
    }

    pub(super) fn of_rows(slab: &Slab<CollectionRow>) -> Self {
        Self(slab.iter().map(|(_, row)| (row.owner, row.id)).collect())
    }
}

impl Row for CollectionRow {
    type Key = CollectionId;
    type Side = Owners;

    fn key(&self) -> &CollectionId {
        &self.id
    }

    fn hash(key: &CollectionId) -> u64 {
        hash_u64(key.get())
    }

    fn encode(&self, _: Slot, _: &Owners, out: &mut Vec<u8>) {
        out.put_u64(self.id.get());
        out.put_u64(self.owner.get());
        out.put_u8(self.visibility.byte());
        out.put_varint(self.version);
        out.put_u64(self.created.as_nanos());
        out.put_u64(self.changed.as_nanos());
        out.put_varint(self.item_count);
        out.put_bytes(self.name.as_bytes());
    }

    fn decode(_: Slot, reader: &mut Reader<'_>, _: &mut Owners) -> Result<Self, DecodeError> {
        Ok(Self {
            id: CollectionId::new(reader.u64()?),
            owner: UserId::new(reader.u64()?),
            visibility: Visibility::read(reader)?,
            version: reader.varint()?,
            created: Timestamp::from_nanos(reader.u64()?),
            changed: Timestamp::from_nanos(reader.u64()?),
            item_count: reader.varint()?,
            name: reader.str()?.into(),
        })
    }

    fn rebuild(slab: &mut Slab<Self>) -> Result<(), DecodeError> {
        *slab.side_mut() = Owners::of_rows(slab);
        Ok(())
    }

    fn heap_size_bytes(&self) -> usize {
        self.name.len()
    }

    fn side_size_bytes(side: &Owners) -> usize {
        // A node of a B-tree has room for eleven keys and is two thirds full as a rule.
        side.0.len() * size_of::<(UserId, CollectionId)>() * 3 / 2
    }
}

//! What the log says of collections.
//!
//! Knows: records and their bytes. Must not know: what a collection holds.
//!
//! ```text
//! create: owner u64 | visibility u8 | collections that an owner may have varint | name: length varint, UTF-8
//! change: tag u8: the edit in the low four bits, 16 a version is expected, 32 signals follow
//!         | collection varint | [version varint] | edit | [signals: a batch, to the end]
//!
//! edit 1 rename:     name: length varint, UTF-8
//!      2 visibility: u8
//!      3 append:     item u64 | items that a collection may have varint
//!      4 insert:     item u64 | position varint | items that a collection may have varint
//!      5 remove:     item u64
//!      6 move:       from varint | count varint | to varint
//!      7 replace:    items | items that a collection may have varint
//!
//! visibility: 0 private, 1 unlisted, 2 public
//! items: count varint | each as a zig-zag varint, after the one before it
//! ```
//!
//! Limits are options of a process, and another one must replay the same log to the same state: what
//! a limit was when the record was queued is in the record.

use crate::codec::{DecodeError, Put, Reader};
use crate::ids::{CollectionId, EntityId, UserId};

/// Who may read a collection besides its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Visibility {
    /// Nobody. To everyone else it does not exist.
    Private,
    /// Whoever knows its id. Lists of others' collections leave it out. Ids are small numbers, which can
    /// be tried: what must stay secret is private.
    Unlisted,
    /// Anyone.
    Public,
}

impl Visibility {
    const ALL: [Self; 3] = [Self::Private, Self::Unlisted, Self::Public];

    pub(crate) const fn byte(self) -> u8 {
        match self {
            Self::Private => 0,
            Self::Unlisted => 1,
            Self::Public => 2,
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let byte = reader.u8()?;
        let known = Self::ALL.into_iter().find(|visibility| visibility.byte() == byte);
        known.ok_or(DecodeError::Malformed("an unknown visibility"))
    }
}

/// A collection that comes to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NewCollection<'a> {
    pub(crate) owner: UserId,
    pub(crate) name: &'a str,
    pub(crate) visibility: Visibility,
    /// How many collections its owner may have, with this one.
    pub(crate) owned_max: u64,
}

impl<'a> NewCollection<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.owner.get());
        out.put_u8(self.visibility.byte());
        out.put_varint(self.owned_max);
        out.put_bytes(self.name.as_bytes());
    }

    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            owner: UserId::new(reader.u64()?),
            visibility: Visibility::read(reader)?,
            owned_max: reader.varint()?,
            name: reader.str()?,
        })
    }
}

/// One change of one collection, and the signals that count if it changes anything.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CollectionEdit<'a> {
    pub(crate) collection: CollectionId,
    /// It is refused at any other version.
    pub(crate) expected_version: Option<u64>,
    pub(crate) edit: Edit<'a>,
    /// A batch, as [`SignalBatchWriter`](super::SignalBatchWriter) wrote it.
    pub(crate) signals: Option<&'a [u8]>,
}

/// What changes. `items_max` is how many items the collection may have afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Edit<'a> {
    Rename(&'a str),
    SetVisibility(Visibility),
    /// Adds an item at the end.
    Append {
        item: EntityId,
        items_max: u64,
    },
    /// Adds an item, so that this is its position.
    Insert {
        item: EntityId,
        at: u64,
        items_max: u64,
    },
    Remove(EntityId),
    /// Takes `count` items from position `from` on, and puts them back so that the first of them is
    /// at position `to`.
    Move {
        from: u64,
        count: u64,
        to: u64,
    },
    /// These items, in this order, instead of all that were there. No item is there twice.
    Replace {
        items: Vec<EntityId>,
        items_max: u64,
    },
}

const EDIT_MASK: u8 = 0x0f;
const EXPECTS_VERSION: u8 = 16;
const WITH_SIGNALS: u8 = 32;

impl Edit<'_> {
    const fn tag(&self) -> u8 {
        match self {
            Self::Rename(_) => 1,
            Self::SetVisibility(_) => 2,
            Self::Append { .. } => 3,
            Self::Insert { .. } => 4,
            Self::Remove(_) => 5,
            Self::Move { .. } => 6,
            Self::Replace { .. } => 7,
        }
    }
}

impl<'a> CollectionEdit<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let mut tag = self.edit.tag();
        tag |= if self.expected_version.is_some() { EXPECTS_VERSION } else { 0 };
        tag |= if self.signals.is_some() { WITH_SIGNALS } else { 0 };
        out.put_u8(tag);
        out.put_varint(self.collection.get());
        if let Some(version) = self.expected_version {
            out.put_varint(version);
        }
        self.edit.encode(out);
        out.extend_from_slice(self.signals.unwrap_or_default());
    }

    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let tag = reader.u8()?;
        if tag & !(EDIT_MASK | EXPECTS_VERSION | WITH_SIGNALS) != 0 {
            return Err(DecodeError::Malformed("unknown flags of a change"));
        }
        let collection = CollectionId::new(reader.varint()?);
        let expected_version =
            if tag & EXPECTS_VERSION != 0 { Some(reader.varint()?) } else { None };
        let edit = Edit::decode(tag & EDIT_MASK, reader)?;
        let signals =
            if tag & WITH_SIGNALS != 0 { Some(reader.take(reader.remaining())?) } else { None };
        Ok(Self { collection, expected_version, edit, signals })
    }
}

impl<'a> Edit<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Rename(name) => out.put_bytes(name.as_bytes()),
            Self::SetVisibility(visibility) => out.put_u8(visibility.byte()),
            Self::Append { item, items_max } => {
                out.put_u64(item.get());
                out.put_varint(*items_max);
            }
            Self::Insert { item, at, items_max } => {
                out.put_u64(item.get());
                out.put_varint(*at);
                out.put_varint(*items_max);
            }
            Self::Remove(item) => out.put_u64(item.get()),
            Self::Move { from, count, to } => {
                [*from, *count, *to].into_iter().for_each(|number| out.put_varint(number));
            }
            Self::Replace { items, items_max } => {
                put_items(out, items);
                out.put_varint(*items_max);
            }
        }
    }

    fn decode(tag: u8, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match tag {
            1 => Self::Rename(reader.str()?),
            2 => Self::SetVisibility(Visibility::read(reader)?),
            3 => Self::Append { item: EntityId::new(reader.u64()?), items_max: reader.varint()? },
            4 => Self::Insert {
                item: EntityId::new(reader.u64()?),
                at: reader.varint()?,
                items_max: reader.varint()?,
            },
            5 => Self::Remove(EntityId::new(reader.u64()?)),
            6 => {
                Self::Move { from: reader.varint()?, count: reader.varint()?, to: reader.varint()? }
            }
            7 => {
                let items = read_items(reader)?;
                if !are_distinct(&items) {
                    return Err(DecodeError::Malformed("an item twice in a list"));
                }
                Self::Replace { items, items_max: reader.varint()? }
            }
            _ => return Err(DecodeError::Malformed("an unknown edit of a collection")),
        })
    }
}

/// Appends items in their order: neighbours are often close to each other, and then short.
pub(crate) fn put_items(out: &mut Vec<u8>, items: &[EntityId]) {
    out.put_varint(items.len() as u64);
    let mut previous = 0u64;
    for item in items {
        // Wrapping on both sides: any two numbers differ by some i64, modulo 2^64.
        out.put_zigzag(item.get().wrapping_sub(previous) as i64);
        previous = item.get();
    }
}

/// What [`put_items`] wrote.
pub(crate) fn read_items(reader: &mut Reader<'_>) -> Result<Vec<EntityId>, DecodeError> {
    let count = reader.count(1)?;
    let mut previous = 0u64;
    let mut next = || {
        previous = previous.wrapping_add(reader.zigzag()? as u64);
        Ok(EntityId::new(previous))
    };
    (0..count).map(|_| next()).collect()
}

/// Whether no item is there twice.
pub(crate) fn are_distinct(items: &[EntityId]) -> bool {
    let mut sorted = items.to_vec();
    sorted.sort_unstable();
    sorted.is_sorted_by(|left, right| left < right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;
    use proptest::prelude::*;

    fn edit() -> impl Strategy<Value = Edit<'static>> {
        let item = || any::<u64>().prop_map(EntityId::new);
        let visibility = prop::sample::select(Visibility::ALL.to_vec());
        prop_oneof![
            prop::sample::select(vec!["", "watch later", "à écouter"]).prop_map(Edit::Rename),
            visibility.prop_map(Edit::SetVisibility),
            (item(), any::<u64>()).prop_map(|(item, items_max)| Edit::Append { item, items_max }),
            (item(), any::<u64>(), any::<u64>()).prop_map(|(item, at, items_max)| Edit::Insert {
                item,
                at,
                items_max
            }),
            item().prop_map(Edit::Remove),
            any::<(u64, u64, u64)>().prop_map(|(from, count, to)| Edit::Move { from, count, to }),
            (prop::collection::hash_set(item(), 0..50), any::<u64>()).prop_map(
                |(items, items_max)| Edit::Replace {
                    items: items.into_iter().collect(),
                    items_max
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn a_change_comes_back(id: u64, expected_version: Option<u64>, edit in edit(), signals: Option<Vec<u8>>) {
            let collection = CollectionId::new(id);
            let signals = signals.as_deref();
            let record =
                Record::ChangeCollection(CollectionEdit { collection, expected_version, edit, signals });
            let bytes = record.encode();
            prop_assert_eq!(Record::decode(record.kind() as u8, &bytes), Ok(record));
        }

        #[test]
        fn a_creation_comes_back(owner: u64, name: String, owned_max: u64) {
            for visibility in Visibility::ALL {
                let owner = UserId::new(owner);
                let new = NewCollection { owner, name: &name, visibility, owned_max };
                let record = Record::CreateCollection(new);
                let bytes = record.encode();
                prop_assert_eq!(Record::decode(record.kind() as u8, &bytes), Ok(record));
            }
        }
    }

    #[test]
    fn a_list_with_an_item_twice_is_malformed() {
        let items = vec![EntityId::new(3), EntityId::new(1), EntityId::new(3)];
        let edit = Edit::Replace { items, items_max: 9 };
        let collection = CollectionId::new(1);
        let edit = CollectionEdit { collection, expected_version: None, edit, signals: None };
        let record = Record::ChangeCollection(edit);
        assert!(Record::decode(record.kind() as u8, &record.encode()).is_err());
    }

    #[test]
    fn adding_an_item_takes_a_few_bytes() {
        let edit = Edit::Append { item: EntityId::new(u64::MAX), items_max: 100_000 };
        let collection = CollectionId::new(1_000_000);
        let edit = CollectionEdit { collection, expected_version: Some(9), edit, signals: None };
        assert_eq!(Record::ChangeCollection(edit).encode().len(), 16);
    }
}

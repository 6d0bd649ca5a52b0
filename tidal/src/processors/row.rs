//! A processor.
//!
//! Knows: how it lies in a page. Must not know: what a registration does.
//!
//! A row in a page:
//!
//! ```text
//! number u8 | flags u8: 1 required, 2 removed | version varint | registered u64 (ns) | registered operation varint
//! | operation of the version varint | backfilled varint | observed u64 (ns) | name: length varint, UTF-8
//! ```

use crate::codec::{DecodeError, Put, Reader};
use crate::ids::{ProcessorId, Timestamp};
use crate::record::{RegisterProcessor, read_u32};
use crate::table::{Row, Slot, hash_u64};

/// A processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcessorRow {
    pub(crate) number: ProcessorId,
    pub(crate) name: Box<str>,
    pub(crate) version: u32,
    /// Sessions wait for it before they settle.
    pub(crate) required: bool,
    /// It is not there any more; its number and its outcomes are.
    pub(crate) removed: bool,
    /// When it was registered, as it is now: before that no session waited for it.
    pub(crate) registered_at: Timestamp,
    /// The operation that registered it.
    pub(crate) registered_op: u64,
    /// The operation with which it last began anew.
    pub(crate) bumped_op: u64,
    /// Through which session it has walked of those that had left before this version came: they have
    /// numbers below that operation's.
    pub(crate) backfilled: u64,
    /// When it saw the newest of what it has put down outcomes of; the epoch before the first.
    pub(crate) observed_at: Timestamp,
}

const REQUIRED: u8 = 1;
const REMOVED: u8 = 2;

/// So many names there may be, those of removed ones among them.
pub(super) const PROCESSORS_MAX: u8 = 64;

impl Row for ProcessorRow {
    type Key = ProcessorId;
    type Side = ();

    fn key(&self) -> &ProcessorId {
        &self.number
    }

    fn hash(key: &ProcessorId) -> u64 {
        hash_u64(u64::from(key.get()))
    }

    fn encode(&self, _: Slot, (): &(), out: &mut Vec<u8>) {
        out.put_u8(self.number.get());
        let flag = |bit, set| if set { bit } else { 0 };
        out.put_u8(flag(REQUIRED, self.required) | flag(REMOVED, self.removed));
        out.put_varint(u64::from(self.version));
        out.put_u64(self.registered_at.as_nanos());
        out.put_varint(self.registered_op);
        out.put_varint(self.bumped_op);
        out.put_varint(self.backfilled);
        out.put_u64(self.observed_at.as_nanos());
        out.put_bytes(self.name.as_bytes());
    }

    fn decode(_: Slot, reader: &mut Reader<'_>, (): &mut ()) -> Result<Self, DecodeError> {
        let (number, flags) = (reader.u8()?, reader.u8()?);
        if !(1..=PROCESSORS_MAX).contains(&number) || flags & !(REQUIRED | REMOVED) != 0 {
            return Err(DecodeError::Malformed("a processor of no known kind"));
        }
        let row = Self {
            number: ProcessorId::new(number),
            required: flags & REQUIRED != 0,
            removed: flags & REMOVED != 0,
            version: read_u32(reader)?,
            registered_at: Timestamp::from_nanos(reader.u64()?),
            registered_op: reader.varint()?,
            bumped_op: reader.varint()?,
            backfilled: reader.varint()?,
            observed_at: Timestamp::from_nanos(reader.u64()?),
            name: reader.str()?.into(),
        };
        if row.name.is_empty() || row.name.len() > RegisterProcessor::NAME_SIZE_BYTES_MAX {
            return Err(DecodeError::Malformed("a processor without a name, or with a long one"));
        }
        Ok(row)
    }

    fn heap_size_bytes(&self) -> usize {
        self.name.len()
    }

    fn side_size_bytes((): &()) -> usize {
        0
    }
}

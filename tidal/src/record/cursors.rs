//! What the log says of those who are told of sessions.
//!
//! Knows: names, filters, numbers of events. Must not know: what an event is.
//!
//! ```text
//! register (21)   name: length varint, UTF-8 | filter
//! acknowledge (22) name | through varint
//! remove (23)     name
//!
//! filter: kinds u8 (bit i set: the kind of number i; none in both bytes: all)
//!         | of u8 (1 user, 2 session, 4 more kinds) | [more kinds u8: the kinds from 8 on]
//!         | [user u64] | [session varint]
//! ```

use crate::codec::{DecodeError, Put, Reader};
use crate::ids::{SessionId, UserId};

/// What may happen to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum EventKind {
    /// It began.
    Started = 0,
    /// It was open when the database was opened.
    Restored = 1,
    /// Somebody else holds it.
    Resumed = 2,
    /// It ended.
    Ended = 3,
    /// It takes no late records any more.
    Settled = 4,
    /// Its records are gone.
    Pruned = 5,
    /// Its processing was given up.
    Failed = 6,
    /// It is processed anew.
    Requeued = 7,
    /// An attempt to process it failed, and there will be another one.
    ProcessorFailed = 8,
    /// The last attempt to process it failed.
    Quarantined = 9,
    /// Processors have been busy with it for long.
    Warned = 10,
}

impl EventKind {
    const ALL: [Self; 11] = [
        Self::Started,
        Self::Restored,
        Self::Resumed,
        Self::Ended,
        Self::Settled,
        Self::Pruned,
        Self::Failed,
        Self::Requeued,
        Self::ProcessorFailed,
        Self::Quarantined,
        Self::Warned,
    ];

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// Which events someone wants to be told of; everything unless it says otherwise.
///
/// ```
/// use tidaldb::{EventFilter, EventKind};
///
/// let ends_of_one_user = EventFilter::all().kinds([EventKind::Ended]).user(42);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct EventFilter {
    /// A bit for each kind; 0 for all.
    kinds: u16,
    user: Option<UserId>,
    session: Option<SessionId>,
}

impl EventFilter {
    /// Everything.
    pub const fn all() -> Self {
        Self { kinds: 0, user: None, session: None }
    }

    /// These kinds alone; all where none is named.
    #[must_use]
    pub fn kinds(mut self, kinds: impl IntoIterator<Item = EventKind>) -> Self {
        self.kinds = kinds.into_iter().fold(0, |bits, kind| bits | kind.bit());
        self
    }

    /// The sessions of this user alone.
    #[must_use]
    pub fn user(mut self, user: impl Into<UserId>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// This session alone.
    #[must_use]
    pub const fn session(mut self, session: SessionId) -> Self {
        self.session = Some(session);
        self
    }

    /// Whether it lets an event of a user's session through.
    pub(crate) fn lets(&self, kind: EventKind, user: UserId, session: SessionId) -> bool {
        (self.kinds == 0 || self.kinds & kind.bit() != 0)
            && self.user.is_none_or(|wanted| wanted == user)
            && self.session.is_none_or(|wanted| wanted == session)
    }

    /// Appends it.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let [kinds, more] = self.kinds.to_le_bytes();
        out.put_u8(kinds);
        let (user, session) = (self.user.is_some(), self.session.is_some());
        out.put_u8(
            (u8::from(user) * OF_USER)
                | (u8::from(session) * OF_SESSION)
                | (u8::from(more != 0) * MORE_KINDS),
        );
        if more != 0 {
            out.put_u8(more);
        }
        self.user.iter().for_each(|user| out.put_u64(user.get()));
        self.session.iter().for_each(|session| out.put_varint(session.get()));
    }

    /// The filter that [`encode`](Self::encode) appended.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (kinds, of) = (reader.u8()?, reader.u8()?);
        let more = if of & MORE_KINDS != 0 { reader.u8()? } else { 0 };
        let kinds = u16::from_le_bytes([kinds, more]);
        let known = EventKind::ALL.iter().fold(0, |bits, kind| bits | kind.bit());
        let is_needed = (of & MORE_KINDS != 0) == (more != 0);
        if kinds & !known != 0 || of & !(OF_USER | OF_SESSION | MORE_KINDS) != 0 || !is_needed {
            return Err(DecodeError::Malformed("an unknown filter of events"));
        }
        let user = if of & OF_USER != 0 { Some(UserId::new(reader.u64()?)) } else { None };
        let session =
            if of & OF_SESSION != 0 { Some(SessionId::new(reader.varint()?)) } else { None };
        Ok(Self { kinds, user, session })
    }
}

const OF_USER: u8 = 1;
const OF_SESSION: u8 = 2;
const MORE_KINDS: u8 = 4;

/// Somebody is to be told of events from here on, and says how far it has got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RegisterCursor<'a> {
    pub(crate) name: &'a str,
    pub(crate) filter: EventFilter,
}

impl<'a> RegisterCursor<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_bytes(self.name.as_bytes());
        self.filter.encode(out);
    }

    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let name = reader.str()?;
        if name.is_empty() {
            return Err(DecodeError::Malformed("a cursor without a name"));
        }
        Ok(Self { name, filter: EventFilter::decode(reader)? })
    }
}

/// Somebody is done with all events up to a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AckCursor<'a> {
    pub(crate) name: &'a str,
    pub(crate) through: u64,
}

impl<'a> AckCursor<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_bytes(self.name.as_bytes());
        out.put_varint(self.through);
    }

    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { name: reader.str()?, through: reader.varint()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Record, RecordKind};

    #[test]
    fn a_filter_lets_through_what_it_says_and_comes_back_from_its_bytes() {
        let (user, session) = (UserId::new(7), SessionId::new(9));
        let all = EventFilter::all();
        let ended = all.clone().kinds([EventKind::Ended, EventKind::Settled]);
        let of_both = ended.clone().user(user).session(session);
        let late = all.clone().kinds([EventKind::Quarantined, EventKind::Ended]).session(session);
        let filters =
            [&all, &ended, &of_both, &late, &all.clone().user(user), &all.clone().kinds([])];
        for filter in filters {
            let mut bytes = Vec::new();
            filter.encode(&mut bytes);
            let mut reader = Reader::new(&bytes);
            assert_eq!(EventFilter::decode(&mut reader).as_ref(), Ok(filter));
            assert_eq!(reader.remaining(), 0);
            assert!(filter.lets(EventKind::Ended, user, session));
        }
        assert!(!ended.lets(EventKind::Started, user, session));
        assert!(!of_both.lets(EventKind::Ended, UserId::new(8), session));
        assert!(!of_both.lets(EventKind::Ended, user, SessionId::new(8)));
        assert!(all.lets(EventKind::Pruned, UserId::new(8), session));
        assert!(late.lets(EventKind::Quarantined, user, session));
        assert!(!late.lets(EventKind::ProcessorFailed, user, session));
    }

    #[test]
    fn records_come_back_from_their_bytes_and_from_nothing_less() {
        let filter = EventFilter::all().kinds([EventKind::Started]).user(7);
        let records = [
            Record::RegisterCursor(RegisterCursor { name: "hook", filter }),
            Record::AckCursor(AckCursor { name: "hook", through: 300 }),
            Record::RemoveCursor("hook"),
        ];
        for record in records {
            let (kind, bytes) = (record.kind() as u8, record.encode());
            assert_eq!(Record::decode(kind, &bytes), Ok(record));
            for len in 0..bytes.len() {
                assert!(Record::decode(kind, &bytes[..len]).is_err(), "{len} bytes of kind {kind}");
            }
            assert!(Record::decode(kind, &[&bytes[..], &[0]].concat()).is_err());
        }
        let nameless = RegisterCursor { name: "", filter: EventFilter::all() };
        let bytes = Record::RegisterCursor(nameless).encode();
        assert!(Record::decode(RecordKind::RegisterCursor as u8, &bytes).is_err());
    }

    #[test]
    fn bits_that_mean_nothing_are_refused() {
        for bytes in [&[0, 8][..], &[0, 4], &[0, 4, 8], &[0, 4, 0]] {
            assert!(EventFilter::decode(&mut Reader::new(bytes)).is_err());
        }
    }
}

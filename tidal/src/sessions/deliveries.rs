//! Events that are kept until those who asked for them have taken them.
//!
//! Knows: cursors, how far each has got, and the numbers of events. Must not know: who reads, the
//! stores.
//!
//! Events get numbers without holes, beginning with 1, as long as a cursor exists that wants them; no
//! number is given twice. They are kept until every cursor has passed them. All this is decided by
//! records alone, so a replay keeps the same events; but it is about deliveries, not about what
//! happened, and is in no digest.
//!
//! A row of table 15 in a page: name (length varint, UTF-8) | filter | through varint. The row without
//! a name has no filter and two numbers: last varint | forgotten varint.
//!
//! A row of cold table 4, by its number:
//!
//! ```text
//! seq u64 | user u64 | kind u8 (0 started, 1 restored, 2 resumed, 3 ended, 4 settled, 5 pruned, 6 failed,
//!         7 requeued, 8 an attempt failed, 9 quarantined, 10 warned)
//! | session varint
//! | ended: end | failed: cause | 8: processor, attempt varint, error | 9: processor, error
//! | warned: level u8, busy for varint (ns)
//!
//! end, cause: as in the row of a session    processor, error: length varint, UTF-8
//! ```

use std::sync::Arc;
use std::time::Duration;

use super::event::{Happened, SessionEvent};
use super::processing::{put_cause, read_cause};
use super::row::{put_end, read_end};
use crate::codec::{DecodeError, Put, Reader};
use crate::error::{Error, Result};
use crate::ids::{SessionId, UserId, duration_nanos};
use crate::record::{AckCursor, EventFilter, RegisterCursor, read_u32};
use crate::seq::Seq;
use crate::table::{ColdTable, Row, Slab, Slot, StateTable, Table, TableId, hash_text};

/// Cursors of a database: each costs a look at every event.
const CURSORS_MAX: u64 = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
struct CursorRow {
    name: Box<str>,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// The last number given, and the last that was forgotten.
    Numbers { last: u64, forgotten: u64 },
    /// Which events it wants, and the last that it is done with.
    Cursor { filter: EventFilter, through: u64 },
}

/// The name of the row that has the numbers: no cursor has it.
const NUMBERS: &str = "";

impl Row for CursorRow {
    type Key = str;
    type Side = ();

    fn key(&self) -> &str {
        &self.name
    }

    fn hash(key: &str) -> u64 {
        hash_text(key)
    }

    fn encode(&self, _: Slot, (): &(), out: &mut Vec<u8>) {
        out.put_bytes(self.name.as_bytes());
        match &self.what {
            What::Numbers { last, forgotten } => {
                out.put_varint(*last);
                out.put_varint(*forgotten);
            }
            What::Cursor { filter, through } => {
                filter.encode(out);
                out.put_varint(*through);
            }
        }
    }

    fn decode(_: Slot, reader: &mut Reader<'_>, (): &mut ()) -> Result<Self, DecodeError> {
        let name: Box<str> = reader.str()?.into();
        let what = if *name == *NUMBERS {
            What::Numbers { last: reader.varint()?, forgotten: reader.varint()? }
        } else {
            What::Cursor { filter: EventFilter::decode(reader)?, through: reader.varint()? }
        };
        Ok(Self { name, what })
    }

    fn heap_size_bytes(&self) -> usize {
        self.name.len()
    }

    fn side_size_bytes((): &()) -> usize {
        0
    }
}

fn numbers(rows: &Slab<CursorRow>) -> (u64, u64) {
    match rows.get(NUMBERS).map(|row| &row.what) {
        Some(&What::Numbers { last, forgotten }) => (last, forgotten),
        _ => (0, 0),
    }
}

fn cursors(rows: &Slab<CursorRow>) -> impl Iterator<Item = (&str, &EventFilter, u64)> {
    rows.iter().filter_map(|(_, row)| match &row.what {
        What::Cursor { filter, through } => Some((&*row.name, filter, *through)),
        What::Numbers { .. } => None,
    })
}

/// The cursors, and the events that wait for them.
pub(crate) struct Deliveries {
    cursors: Arc<Table<CursorRow>>,
    events: Arc<ColdTable>,
}

impl Deliveries {
    /// The kind of the table of cursors on disk.
    pub(crate) const CURSORS: u8 = 15;
    /// The number of the cold table of events on disk.
    pub(crate) const EVENTS: u8 = 4;

    pub(crate) fn new() -> Self {
        Self {
            cursors: Arc::new(Table::new(TableId { kind: Self::CURSORS, part: 0 }, ())),
            events: Arc::new(ColdTable::new(Self::EVENTS)),
        }
    }

    pub(crate) fn table(&self) -> Arc<dyn StateTable> {
        Arc::clone(&self.cursors) as Arc<dyn StateTable>
    }

    /// The events that are kept, by number.
    pub(crate) const fn events(&self) -> &Arc<ColdTable> {
        &self.events
    }

    /// What a cursor wants, and the last event that it is done with.
    pub(crate) fn cursor(&self, name: &str) -> Option<(EventFilter, u64)> {
        match self.cursors.read().get(name).map(|row| &row.what) {
            Some(What::Cursor { filter, through }) => Some((filter.clone(), *through)),
            _ => None,
        }
    }

    /// What every cursor wants, and the last event that it is done with.
    pub(crate) fn wanted(&self) -> Vec<(EventFilter, u64)> {
        let rows = self.cursors.read();
        cursors(&rows).map(|(_, filter, through)| (filter.clone(), through)).collect()
    }

    /// Every cursor, and how many events wait for it, those that its filter leaves out included.
    pub(crate) fn waiting(&self) -> Vec<(String, u64)> {
        let rows = self.cursors.read();
        let last = numbers(&rows).0;
        cursors(&rows).map(|(name, _, through)| (name.to_owned(), last - through)).collect()
    }

    /// The number of the last event.
    pub(crate) fn last(&self) -> u64 {
        numbers(&self.cursors.read()).0
    }

    /// Keeps what happened in a frame, the last of those that happened lately, for the cursors that want
    /// it. By whoever applies, frame by frame.
    pub(crate) fn keep(&self, seq: Seq, happened: &[Happened]) {
        let happened = &happened[happened.partition_point(|before| before.seq < seq)..];
        if happened.is_empty() || self.cursors.read().len() == 0 {
            return;
        }
        let mut rows = self.cursors.write();
        let (before, forgotten) = numbers(&rows);
        let mut last = before;
        for happened in happened {
            if cursors(&rows).any(|(_, filter, _)| happened.passes(filter)) {
                last += 1;
                self.events.put(last, Some(encode(happened)));
            }
        }
        if last > before {
            put_numbers(&mut rows, last, forgotten);
        }
        self.forget_passed(&mut rows);
    }

    /// Registers a cursor: it wants what happens from here on. One that is there stays where it is.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](Error::InvalidArgument) when it is there with another filter;
    /// [`TooLarge`](Error::TooLarge) when there are too many.
    pub(crate) fn register(&self, new: &RegisterCursor<'_>) -> Result<()> {
        let mut rows = self.cursors.write();
        let existing = cursors(&rows).find(|(name, ..)| *name == new.name);
        if let Some((_, filter, _)) = existing {
            return if *filter == new.filter { Ok(()) } else { Err(other_filter(new.name)) };
        }
        let len = cursors(&rows).count() as u64;
        if len >= CURSORS_MAX {
            let what = "the database with this one";
            return Err(Error::TooLarge {
                what,
                size: len + 1,
                limit: CURSORS_MAX,
                unit: "cursors",
            });
        }
        let (last, forgotten) = numbers(&rows);
        put_numbers(&mut rows, last, forgotten);
        let what = What::Cursor { filter: new.filter.clone(), through: last };
        rows.put(CursorRow { name: new.name.into(), what });
        Ok(())
    }

    /// A cursor is done with all events through a number. One that it was done with before changes
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`UnknownName`](Error::UnknownName); [`InvalidArgument`](Error::InvalidArgument) for an event
    /// that there has not been yet.
    pub(crate) fn acknowledge(&self, ack: AckCursor<'_>) -> Result<()> {
        let mut rows = self.cursors.write();
        let found = rows.get(ack.name).map(|row| row.what.clone());
        let Some(What::Cursor { filter, through }) = found else {
            return Err(unknown(&rows, ack.name));
        };
        if ack.through > numbers(&rows).0 {
            let reason = format!("there has been no event {} yet", ack.through);
            return Err(Error::invalid("through", reason));
        }
        if ack.through > through {
            let what = What::Cursor { filter, through: ack.through };
            rows.put(CursorRow { name: ack.name.into(), what });
            self.forget_passed(&mut rows);
        }
        Ok(())
    }

    /// A cursor wants nothing any more.
    ///
    /// # Errors
    ///
    /// [`UnknownName`](Error::UnknownName).
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let mut rows = self.cursors.write();
        if name == NUMBERS || rows.remove(name).is_none() {
            return Err(unknown(&rows, name));
        }
        self.forget_passed(&mut rows);
        Ok(())
    }

    /// Forgets the oldest events that every cursor is done with, a bounded number at a time; the rest
    /// go when more happens or is acknowledged.
    fn forget_passed(&self, rows: &mut Slab<CursorRow>) {
        let (last, forgotten) = numbers(rows);
        let passed = passed(rows).min(forgotten + FORGOTTEN_AT_ONCE);
        for number in forgotten + 1..=passed {
            self.events.put(number, None);
        }
        if passed > forgotten {
            put_numbers(rows, last, passed);
        }
    }

    /// Checks the invariants; the sentence says which one is broken.
    pub(crate) fn check(&self) -> Result<(), String> {
        let rows = self.cursors.read();
        let (last, forgotten) = numbers(&rows);
        let passed = passed(&rows);
        if passed < forgotten {
            return Err(format!(
                "events are forgotten through {forgotten}, passed through {passed}"
            ));
        }
        match cursors(&rows).find(|&(_, _, through)| through > last) {
            Some((name, ..)) => Err(format!("cursor {name:?} is done with more than there was")),
            None => Ok(()),
        }
    }

    /// Refuses restored rows that contradict each other.
    pub(crate) fn check_restored(&self) -> Result<(), DecodeError> {
        if numbers(&self.cursors.read()).0 > LAST_MAX {
            return Err(DecodeError::Malformed("an event that no log reaches"));
        }
        self.check().map_err(|_| DecodeError::Malformed("cursors that contradict each other"))
    }
}

/// How many events are forgotten at once, at most: more than come with a frame of a sweep.
const FORGOTTEN_AT_ONCE: u64 = 4_096;

/// No event that is read has a greater number: there are more to come.
const LAST_MAX: u64 = u64::MAX / 2;

/// Through where every cursor is done with events.
fn passed(rows: &Slab<CursorRow>) -> u64 {
    cursors(rows).map(|(_, _, through)| through).min().unwrap_or(numbers(rows).0)
}

fn put_numbers(rows: &mut Slab<CursorRow>, last: u64, forgotten: u64) {
    rows.put(CursorRow { name: NUMBERS.into(), what: What::Numbers { last, forgotten } });
}

fn unknown(rows: &Slab<CursorRow>, name: &str) -> Error {
    Error::unknown("cursor", name, cursors(rows).map(|(name, ..)| name))
}

fn other_filter(name: &str) -> Error {
    let reason = format!("{name:?} has another filter: remove it first, or take another name");
    Error::invalid("cursor", reason)
}

fn encode(happened: &Happened) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u64(happened.seq.get());
    out.put_u64(happened.user.get());
    let (kind, id) = match &happened.event {
        SessionEvent::Started { id } => (0, id),
        SessionEvent::Restored { id } => (1, id),
        SessionEvent::Resumed { id } => (2, id),
        SessionEvent::Ended { id, .. } => (3, id),
        SessionEvent::Settled { id } => (4, id),
        SessionEvent::Pruned { id } => (5, id),
        SessionEvent::Failed { id, .. } => (6, id),
        SessionEvent::Requeued { id } => (7, id),
        SessionEvent::ProcessorFailed { id, .. } => (8, id),
        SessionEvent::Quarantined { id, .. } => (9, id),
        SessionEvent::Warned { id, .. } => (10, id),
        SessionEvent::Lagged { .. } => unreachable!("that is said by a queue, not by the log"),
    };
    out.put_u8(kind);
    out.put_varint(id.get());
    match &happened.event {
        SessionEvent::Ended { end, .. } => put_end(&mut out, end),
        SessionEvent::Failed { cause, .. } => put_cause(&mut out, cause),
        SessionEvent::ProcessorFailed { processor, attempt, error, .. } => {
            out.put_bytes(processor.as_bytes());
            out.put_varint(u64::from(*attempt));
            out.put_bytes(error.as_bytes());
        }
        SessionEvent::Quarantined { processor, error, .. } => {
            out.put_bytes(processor.as_bytes());
            out.put_bytes(error.as_bytes());
        }
        SessionEvent::Warned { level, busy_for, .. } => {
            out.put_u8(*level);
            out.put_varint(duration_nanos(*busy_for));
        }
        _ => {}
    }
    out
}

/// The event in a row of the table of events.
pub(crate) fn decode_event(row: &[u8]) -> Result<Happened, DecodeError> {
    let mut reader = Reader::new(row);
    let (seq, user) = (Seq::new(reader.u64()?), UserId::new(reader.u64()?));
    let kind = reader.u8()?;
    let id = SessionId::new(reader.varint()?);
    let event = match kind {
        0 => SessionEvent::Started { id },
        1 => SessionEvent::Restored { id },
        2 => SessionEvent::Resumed { id },
        3 => SessionEvent::Ended { id, end: read_end(&mut reader)? },
        4 => SessionEvent::Settled { id },
        5 => SessionEvent::Pruned { id },
        6 => SessionEvent::Failed { id, cause: read_cause(&mut reader)? },
        7 => SessionEvent::Requeued { id },
        8 => SessionEvent::ProcessorFailed {
            id,
            processor: reader.str()?.to_owned(),
            attempt: read_u32(&mut reader)?,
            error: reader.str()?.to_owned(),
        },
        9 => SessionEvent::Quarantined {
            id,
            processor: reader.str()?.to_owned(),
            error: reader.str()?.to_owned(),
        },
        10 => SessionEvent::Warned {
            id,
            level: reader.u8()?,
            busy_for: Duration::from_nanos(reader.varint()?),
        },
        _ => return Err(DecodeError::Malformed("an event of no known kind")),
    };
    reader.end()?;
    Ok(Happened { seq, user, event })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::end::{End, EndCause, EndEvidence};
    use crate::ids::Timestamp;
    use crate::record::EventKind;
    use crate::sessions::FailCause;

    fn happened(number: u64) -> Happened {
        let id = SessionId::new(number);
        let at = Timestamp::from_secs(number);
        let end = End {
            at,
            cause: EndCause::Forced { reason: "test".to_owned() },
            evidence: EndEvidence::Record { record: 7 },
        };
        let (processor, error) = ("usage".to_owned(), "no reason".to_owned());
        let event = match number % 11 {
            0 => SessionEvent::Started { id },
            1 => SessionEvent::Restored { id },
            2 => SessionEvent::Resumed { id },
            3 => SessionEvent::Ended { id, end },
            4 => SessionEvent::Settled { id },
            5 => SessionEvent::Pruned { id },
            6 => SessionEvent::Failed { id, cause: FailCause::Quarantined { processor } },
            7 => SessionEvent::Requeued { id },
            8 => SessionEvent::ProcessorFailed { id, processor, attempt: 3, error },
            9 => SessionEvent::Quarantined { id, processor, error },
            _ => SessionEvent::Warned { id, level: 2, busy_for: Duration::from_secs(number) },
        };
        Happened { seq: Seq::new(number + 1), user: UserId::new(number % 2), event }
    }

    fn register(deliveries: &Deliveries, name: &str, filter: EventFilter) -> Result<()> {
        deliveries.register(&RegisterCursor { name, filter })
    }

    fn ack(deliveries: &Deliveries, name: &str, through: u64) -> Result<()> {
        let acked = deliveries.acknowledge(AckCursor { name, through });
        assert_eq!(deliveries.check(), Ok(()));
        acked
    }

    fn keep(deliveries: &Deliveries, numbers: &[u64]) {
        let seq = Seq::new(10);
        let in_frame = numbers.iter().map(|&number| Happened { seq, ..happened(number) });
        // What happened in a frame before is kept already.
        let all: Vec<_> = std::iter::once(happened(0)).chain(in_frame).collect();
        deliveries.keep(seq, &all);
    }

    fn kept(deliveries: &Deliveries) -> Vec<u64> {
        let rows = deliveries.events().pending_from(0, usize::MAX).rows;
        rows.into_iter().filter_map(|(number, row)| row.map(|_| number)).collect()
    }

    #[test]
    fn an_event_comes_back_from_its_row() {
        for number in 0..13 {
            let happened = happened(number);
            let row = encode(&happened);
            assert_eq!(decode_event(&row), Ok(happened));
            for len in 0..row.len() {
                assert!(decode_event(&row[..len]).is_err(), "{len} bytes of event {number}");
            }
            assert!(decode_event(&[row, vec![0]].concat()).is_err());
        }
    }

    #[test]
    fn events_are_kept_only_while_a_cursor_wants_them_and_until_all_have_passed_them() {
        let deliveries = Deliveries::new();
        keep(&deliveries, &[0]);
        assert_eq!(deliveries.last(), 0, "nobody wants anything");
        register(&deliveries, "all", EventFilter::all()).unwrap();
        keep(&deliveries, &[1, 2]);
        let ended = EventFilter::all().kinds([EventKind::Ended]);
        register(&deliveries, "ended", ended).unwrap();
        assert_eq!(deliveries.cursor("ended").map(|(_, through)| through), Some(2));
        keep(&deliveries, &[3]);
        assert_eq!(kept(&deliveries), [1, 2, 3]);
        ack(&deliveries, "ended", 3).unwrap();
        assert_eq!(kept(&deliveries), [1, 2, 3], "one has not passed any");
        ack(&deliveries, "all", 2).unwrap();
        ack(&deliveries, "all", 1).unwrap();
        assert_eq!(kept(&deliveries), [3], "an earlier number takes nothing back");
        deliveries.remove("all").unwrap();
        assert_eq!(kept(&deliveries), []);
        keep(&deliveries, &[4]);
        assert_eq!(deliveries.last(), 3, "nobody wants this kind any more");
        deliveries.remove("ended").unwrap();
        assert_eq!(deliveries.check(), Ok(()));
        register(&deliveries, "all", EventFilter::all()).unwrap();
        keep(&deliveries, &[5]);
        assert_eq!(kept(&deliveries), [4], "no number is given twice");
    }

    #[test]
    fn what_a_cursor_cannot_be_is_refused_and_changes_nothing() {
        let deliveries = Deliveries::new();
        register(&deliveries, "a", EventFilter::all()).unwrap();
        keep(&deliveries, &[1]);
        let other = register(&deliveries, "a", EventFilter::all().user(1));
        assert!(matches!(other, Err(Error::InvalidArgument { what: "cursor", .. })));
        register(&deliveries, "a", EventFilter::all()).unwrap();
        assert_eq!(deliveries.cursor("a").map(|(_, through)| through), Some(0), "it stays there");
        assert!(matches!(ack(&deliveries, "a", 2), Err(Error::InvalidArgument { .. })));
        assert!(matches!(ack(&deliveries, "b", 1), Err(Error::UnknownName { .. })));
        for nobody in ["b", NUMBERS] {
            assert!(matches!(deliveries.remove(nobody), Err(Error::UnknownName { .. })));
            assert!(deliveries.cursor(nobody).is_none());
        }
        for number in 1..CURSORS_MAX {
            register(&deliveries, &number.to_string(), EventFilter::all()).unwrap();
        }
        let one_more = register(&deliveries, "more", EventFilter::all());
        assert!(matches!(one_more, Err(Error::TooLarge { .. })));
        assert_eq!(kept(&deliveries), [1]);
    }
}

//! Being told of sessions: at once, or for sure.

use super::Sessions;
use crate::db::{TidalDb, check_name};
use crate::engine::{EventStream, SessionSubscriber, SubscriptionGuard, encoded};
use crate::error::{Error, Result};
use crate::fault::CrashPoint;
use crate::options::Durability;
use crate::record::{AckCursor, EventFilter, Record, RegisterCursor};
use crate::seq::Seq;
use crate::sessions::{Happened, SessionEvent, decode_event};

/// Events that a cursor passes over, because its filter does, before it says so in the log.
const PASSED_OVER_MAX: u64 = 1_024;

/// Events that are read at once.
const EVENTS_PER_READ: usize = 256;

/// An event that waits for a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeliveredEvent {
    /// Its number, for [`EventCursor::ack`]: later events have larger ones, and none is given twice.
    pub number: u64,
    /// Where in the log it happened.
    pub seq: Seq,
    /// What happened.
    pub event: SessionEvent,
}

impl<'db> Sessions<'db> {
    /// What happens to sessions from here on, to be taken by the caller.
    ///
    /// Events of one frame of the log have one [`Seq`](crate::Seq) and are published together, such as those of all
    /// sessions that one pass of the sweeper gives up: whoever alerts somebody groups by it.
    ///
    /// ```
    /// # use tidaldb::schema::{DecaySpec, EntityKind, SchemaBuilder};
    /// # use tidaldb::{EventFilter, SessionEvent, TidalDb};
    /// # let mut schema = SchemaBuilder::new();
    /// # let _ = schema.signal("view", EntityKind::Item, DecaySpec::None).add();
    /// # let db = TidalDb::builder().ephemeral().with_schema(schema.build()?).open()?;
    /// let events = db.sessions().subscribe(EventFilter::all())?;
    /// let session = db.start_session(42, "app", "default")?;
    /// let id = session.session_id();
    /// assert_eq!(events.try_recv().map(|(_, event)| event), Some(SessionEvent::Started { id }));
    /// # Ok::<(), tidaldb::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Closed`](Error::Closed).
    pub fn subscribe(&self, filter: EventFilter) -> Result<EventStream> {
        self.db.hub.subscribe(filter)
    }

    /// Calls `subscriber` with what happens to sessions from here on, on a thread of its own, until the
    /// guard is dropped or the database is closed.
    ///
    /// # Errors
    ///
    /// [`Closed`](Error::Closed); [`Io`](Error::Io) when there can be no further thread.
    pub fn add_subscriber(
        &self,
        filter: EventFilter,
        subscriber: impl SessionSubscriber,
    ) -> Result<SubscriptionGuard> {
        self.db.hub.add_subscriber(filter, subscriber)
    }

    /// What happens to sessions from the first call with this name on, in order and without holes,
    /// crashes and restarts included: events are kept until the cursor has acknowledged them.
    ///
    /// One that is there goes on after what it acknowledged last. It is delivered at least once: what
    /// was handed out and not acknowledged comes again. Nothing is handed out before it is safe from a
    /// power cut. A cursor that nobody reads any more holds events back for ever:
    /// [remove](Self::remove_cursor) it.
    ///
    /// # Errors
    ///
    /// - [`InvalidArgument`](Error::InvalidArgument): the name is empty, or the cursor is there with
    ///   another filter.
    /// - [`TooLarge`](Error::TooLarge): the name is too long, or there are 64 cursors.
    /// - Those of [`Ticket::wait`](crate::Ticket::wait).
    pub fn cursor(&self, name: &str, filter: EventFilter) -> Result<EventCursor<'db>> {
        check_name("cursor", name, &self.db.options)?;
        let is_there = self.db.state.deliveries.cursor(name).is_some_and(|(its, _)| its == filter);
        if !is_there {
            let new = RegisterCursor { name, filter: filter.clone() };
            self.db.write_durably(&Record::RegisterCursor(new))?;
        }
        let through = self.db.through(name)?;
        let (read, handed_out) = (through, through);
        Ok(EventCursor { db: self.db, name: name.to_owned(), filter, read, handed_out })
    }

    /// Keeps nothing for a cursor any more, and forgets that there was one.
    ///
    /// # Errors
    ///
    /// [`UnknownName`](Error::UnknownName); those of [`Ticket::wait`](crate::Ticket::wait).
    pub fn remove_cursor(&self, name: &str) -> Result<()> {
        self.db.write_durably(&Record::RemoveCursor(name))
    }
}

impl TidalDb {
    fn write_durably(&self, record: &Record<'_>) -> Result<()> {
        self.send(encoded(record)?, 1, None, Some(Durability::Sync), false)?.wait().map(drop)
    }

    /// The last event that a cursor is done with.
    fn through(&self, cursor: &str) -> Result<u64> {
        let found = self.state.deliveries.cursor(cursor);
        found.map(|(_, through)| through).ok_or_else(|| Error::unknown("cursor", cursor, []))
    }
}

/// What happens to sessions, kept until it is acknowledged; from [`Sessions::cursor`].
#[derive(Debug)]
pub struct EventCursor<'db> {
    db: &'db TidalDb,
    name: String,
    filter: EventFilter,
    /// The last event that was looked at, and the last that was handed out.
    read: u64,
    handed_out: u64,
}

impl EventCursor<'_> {
    /// The next events, at most `max`, that this cursor has not handed out yet; none when there is none.
    /// Does not wait for any.
    ///
    /// # Errors
    ///
    /// [`UnknownName`](Error::UnknownName) when the cursor was removed. [`Corrupt`](Error::Corrupt) when
    /// an event is missing; [`Store`](Error::Store) when neither store can be read. Those of
    /// [`Ticket::wait`](crate::Ticket::wait) where many events that the filter leaves out were passed
    /// over: that is acknowledged.
    pub fn next_batch(&mut self, max: usize) -> Result<Vec<DeliveredEvent>> {
        let through = self.db.through(&self.name)?;
        // Another cursor of this name may have got further.
        self.read = self.read.max(through);
        // Where reading fails nothing was handed out.
        let before = (self.read, self.handed_out);
        let batch = self.read_batch(max).inspect_err(|_| (self.read, self.handed_out) = before)?;
        // Nobody acknowledges what nobody was given: it would be kept for ever.
        if self.handed_out <= through && self.read - through >= PASSED_OVER_MAX {
            self.acknowledge(self.read)?;
        }
        Ok(batch)
    }

    fn read_batch(&mut self, max: usize) -> Result<Vec<DeliveredEvent>> {
        let durable = self.db.durable();
        let last = self.db.state.deliveries.last();
        let mut batch = Vec::new();
        'read: while batch.len() < max && self.read < last {
            let from = self.read + 1;
            let rows = self.db.door.look(|inside| {
                inside.rows_from(inside.state.deliveries.events(), from, EVENTS_PER_READ)
            })?;
            if rows.is_empty() {
                self.expect_passed(last)?;
                break;
            }
            for (number, row) in rows {
                if number > self.read + 1 {
                    self.expect_passed(number - 1)?;
                }
                let happened = decode_event(&row).map_err(|e| e.of(format!("event {number}")))?;
                // What a power cut would take back has not happened yet.
                if happened.seq > durable || batch.len() == max {
                    break 'read;
                }
                self.read = number;
                if happened.passes(&self.filter) {
                    self.handed_out = number;
                    let Happened { seq, event, .. } = happened;
                    batch.push(DeliveredEvent { number, seq, event });
                }
            }
        }
        Ok(batch)
    }

    /// Is done with all events up to this [`number`](DeliveredEvent::number), for good: they are not
    /// handed out again, by this cursor or after a restart. Returns when that survives a power cut.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](Error::InvalidArgument) for a number that no event has yet;
    /// [`UnknownName`](Error::UnknownName) when the cursor was removed; those of
    /// [`Ticket::wait`](crate::Ticket::wait).
    pub fn ack(&mut self, upto: u64) -> Result<()> {
        // What was passed over behind the last one that was handed out is done with as well.
        self.acknowledge(if upto == self.handed_out { self.read } else { upto })
    }

    /// Goes back to the first event that was not acknowledged.
    ///
    /// # Errors
    ///
    /// [`UnknownName`](Error::UnknownName) when the cursor was removed.
    pub fn rewind(&mut self) -> Result<()> {
        self.read = self.db.through(&self.name)?;
        self.handed_out = self.read;
        Ok(())
    }

    fn acknowledge(&self, through: u64) -> Result<()> {
        self.db.faults.reach(CrashPoint::CursorBeforeAck);
        self.db.write_durably(&Record::AckCursor(AckCursor { name: &self.name, through }))
    }

    /// Events up to `number` are not there: that is right only where this cursor is done with them.
    fn expect_passed(&self, number: u64) -> Result<()> {
        if self.db.through(&self.name)? >= number {
            return Ok(());
        }
        let what = format!("event {number} of cursor {:?}, or one before it,", self.name);
        Err(Error::corrupt(what, "it is missing"))
    }
}

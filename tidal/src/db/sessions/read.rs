//! What is known of sessions, and what an operator does about them.
//!
//! Knows: the calls, and where a session may lie. Must not know: when a session ends.

use std::time::Duration;

use super::Sessions;
use super::look::{ended, explained, find};
use super::signal::SessionSignal;
use crate::db::door::Inside;
use crate::db::{Ack, check_size};
use crate::end::End;
use crate::engine::encoded;
use crate::error::{Error, Result};
use crate::ids::SessionId;
use crate::options::Durability;
use crate::record::{EndSession, EndedBy, Record};
use crate::schema::Schema;
use crate::sessions::{Content, Found, SessionContent, SessionInfo, SessionRecord, What};
use crate::state::Reply;

impl Sessions<'_> {
    /// What is known of a session, as of now: one whose time is over has ended, whether or not anyone has
    /// noticed.
    ///
    /// # Errors
    ///
    /// [`Store`](Error::Store) or [`Corrupt`](Error::Corrupt) when it has ended for good, and neither
    /// checkpoint store can give what is known of it.
    pub fn get(&self, id: SessionId) -> Result<Option<SessionInfo>> {
        Ok(self.find(id)?.map(|found| found.info))
    }

    /// The records of a session, in the order in which they came. Of one that is not there, or was pruned,
    /// there are none.
    ///
    /// # Errors
    ///
    /// [`Store`](Error::Store) or [`Corrupt`](Error::Corrupt) when a record cannot be read.
    pub fn records(&self, id: SessionId) -> Result<Vec<SessionRecord>> {
        let Some(found) = self.find(id)? else { return Ok(Vec::new()) };
        self.db.door.look(|inside| {
            let records = records(inside, id, found.head)?;
            // A session that was pruned meanwhile has lost some of them, and has none.
            let lost = records.len() as u64 != found.info.records && found.head != 0;
            match lost && ended(inside, id)?.is_some_and(|found| found.head == 0) {
                true => Ok(Vec::new()),
                false if lost => {
                    let what = format!("the records of session {id}");
                    Err(Error::corrupt(what, "some are missing"))
                }
                false => Ok(records),
            }
        })
    }

    /// Appends a signal to a session that has ended, as long as its policy's
    /// [`late_grace`](crate::schema::SessionPolicy::late_grace) lasts. It counts as any signal of the user
    /// does; where the session ended does not change.
    ///
    /// # Errors
    ///
    /// Nothing was changed in any of these cases:
    ///
    /// - [`SessionNotFound`](Error::SessionNotFound), [`TooLate`](Error::TooLate);
    ///   [`SessionOpen`](Error::SessionOpen): resume it and write to it.
    /// - Those of [`SessionHandle::signal_with`](crate::SessionHandle::signal_with) that are about the
    ///   signal.
    pub fn append_late(&self, id: SessionId, signal: SessionSignal<'_>) -> Result<Ack> {
        let found = self.find(id)?.ok_or(Error::SessionNotFound(id))?;
        let door = &self.db.door;
        let user = found.info.user;
        let body = door.look(|inside| signal.encode(door, inside, (id, None, user)))?;
        let durability = signal.chosen_durability();
        let ticket = door.send(body, 1, Some(signal.at()), durability, false)?;
        ticket.wait().map_err(|refusal| self.too_late(refusal))
    }

    /// Ends an open session, whoever holds it, at the last of what is known to be in it. The end is
    /// durable when this returns.
    ///
    /// # Errors
    ///
    /// [`SessionNotFound`](Error::SessionNotFound); [`SessionEnded`](Error::SessionEnded);
    /// [`TooLarge`](Error::TooLarge): the reason is longer than an annotation may be; those of
    /// [`Ticket::wait`](crate::Ticket::wait).
    pub fn end(&self, id: SessionId, reason: &str) -> Result<End> {
        let door = &self.db.door;
        check_size("a reason", reason.len(), door.sessions.annotation_size_bytes_max)?;
        let end = Record::EndSession(EndSession { session: id, by: EndedBy::Operator { reason } });
        let ticket = door.send(encoded(&end)?, 1, None, Some(Durability::Sync), false)?;
        match ticket.wait_for_reply() {
            Ok((_, Reply::Ended(end))) => Ok(*end),
            Ok((_, other)) => unreachable!("an end is answered with how, not with {other:?}"),
            Err(refusal) => Err(explained(door, refusal)),
        }
    }

    /// A session, wherever it lies.
    pub(in crate::db) fn find(&self, id: SessionId) -> Result<Option<Found>> {
        let now = self.db.default_now();
        self.db.door.look(|inside| find(inside, id, now))
    }

    /// Why a late record is refused, in the words of who knows the stores.
    fn too_late(&self, refusal: Error) -> Error {
        let Error::SessionNotFound(id) = refusal else { return refusal };
        match self.find(id) {
            Err(error) => error,
            Ok(None) => Error::SessionNotFound(id),
            Ok(Some(found)) => {
                let settled = found.settles_at.unwrap_or_default();
                let by = self.db.default_now().as_nanos().saturating_sub(settled.as_nanos());
                let by_ms = Duration::from_nanos(by).as_millis();
                Error::TooLate { id, by_ms: u64::try_from(by_ms).unwrap_or(u64::MAX) }
            }
        }
    }
}

/// The records of a session that are there, from the newest back to the first, turned round.
pub(in crate::db) fn records(
    inside: &Inside,
    id: SessionId,
    head: u64,
) -> Result<Vec<SessionRecord>> {
    let schema = &inside.state.declared().schema;
    let mut records = Vec::new();
    let mut next = head;
    while next != 0 {
        let what = || format!("record {next} of session {id}");
        let Some(row) = inside.row(inside.state.sessions.records(), next)? else { break };
        let content = Content::decode(&row).map_err(|e| e.of(what()))?;
        if content.previous >= next {
            return Err(Error::corrupt(what(), "it comes after a later one"));
        }
        records.push(record_of(next, &content, schema).ok_or_else(|| {
            Error::corrupt(what(), "it is of a signal that the schema does not have")
        })?);
        next = content.previous;
    }
    records.reverse();
    Ok(records)
}

fn record_of(number: u64, content: &Content<'_>, schema: &Schema) -> Option<SessionRecord> {
    let said = match content.what {
        What::Signal { signal, weight, span_ns, annotation, is_late } => SessionContent::Signal {
            signal: schema.signal(signal)?.name().to_owned(),
            weight,
            span: Duration::from_nanos(span_ns),
            annotation: annotation.map(str::to_owned),
            late: is_late,
        },
        What::Annotation(text) => SessionContent::Annotation(text.to_owned()),
    };
    let Content { at, arrival, entity, .. } = *content;
    Some(SessionRecord { number, at, arrived_at: arrival, entity, content: said })
}

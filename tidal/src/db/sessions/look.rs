//! Where a session is that is not hot.
//!
//! Knows: in which table it would lie. Must not know: who asks.

use crate::db::door::{Door, Inside};
use crate::error::{Error, Result};
use crate::ids::{SessionId, Timestamp};
use crate::schema::Schema;
use crate::sessions::{Found, Sessions};

/// A session, wherever it lies. It moves one way only, so the first look is at where it comes from.
pub(in crate::db) fn find(inside: &Inside, id: SessionId, now: Timestamp) -> Result<Option<Found>> {
    let state = &inside.state;
    let (declared, incarnation) = (state.declared(), state.header().incarnation);
    match state.sessions.find(id, &declared.schema, incarnation, now) {
        Some(found) => Ok(Some(found)),
        None => ended(inside, id),
    }
}

/// What is known of a session that has ended for good.
pub(in crate::db) fn ended(inside: &Inside, id: SessionId) -> Result<Option<Found>> {
    let Some(row) = inside.row(inside.state.sessions.ended(), id.get())? else { return Ok(None) };
    found_in(&row, id, &inside.state.declared().schema).map(Some)
}

/// What the row of a session that has ended for good says.
pub(in crate::db) fn found_in(row: &[u8], id: SessionId, schema: &Schema) -> Result<Found> {
    Sessions::found_ended(id, row, schema).map_err(|e| e.of(format!("the row of session {id}")))
}

/// A refusal, in the words of who knows the stores: a session that is not hot has ended for good, or never
/// was.
pub(in crate::db) fn explained(door: &Door, refusal: Error) -> Error {
    let Error::SessionNotFound(id) = refusal else { return refusal };
    let found = match door.look(|inside| ended(inside, id)) {
        Ok(found) => found,
        Err(error) => return error,
    };
    match found.and_then(|found| found.info.state.end().cloned()) {
        Some(end) => Error::SessionEnded { id, end: Box::new(end) },
        None => Error::SessionNotFound(id),
    }
}

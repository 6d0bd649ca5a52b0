//! A signal of a session, as a caller says it.
//!
//! Knows: what may be said, and what of it needs no state to be refused. Must not know: sessions.

use std::time::Duration;

use crate::db::door::{Door, Inside};
use crate::db::{Batch, Event, check_size};
use crate::error::{Error, Result};
use crate::ids::{EntityId, Fence, SessionId, Timestamp, UserId, duration_nanos};
use crate::options::Durability;
use crate::record::{self, Record};
use crate::wal::FrameBody;

/// A signal of a session: it counts as one of the session's user does, and is kept in the session.
///
/// ```
/// use std::time::Duration;
/// use tidaldb::SessionSignal;
/// use tidaldb::schema::{EntityId, Timestamp};
///
/// let watched = SessionSignal::new("watch", EntityId::new(7), Timestamp::now())
///     .span(Duration::from_secs(95))
///     .retry_key(b"upload 12, line 4")
///     .annotation("with subtitles");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct SessionSignal<'a> {
    signal: &'a str,
    entity: EntityId,
    at: Timestamp,
    weight: f64,
    span: Duration,
    retry_key: Option<&'a [u8]>,
    annotation: Option<&'a str>,
    durability: Option<Durability>,
}

impl<'a> SessionSignal<'a> {
    /// A signal of this type on this item at this time, of weight 1.
    pub const fn new(signal: &'a str, entity: EntityId, at: Timestamp) -> Self {
        Self {
            signal,
            entity,
            at,
            weight: 1.0,
            span: Duration::ZERO,
            retry_key: None,
            annotation: None,
            durability: None,
        }
    }

    /// What it adds to decayed scores. May be negative or zero; counts count events all the same.
    #[must_use]
    pub const fn weight(mut self, weight: f64) -> Self {
        self.weight = weight;
        self
    }

    /// For how long after its time it went on: a session that nobody closes ends with the last of what was
    /// in it. What lies after the arrival of the signal is not believed.
    #[must_use]
    pub const fn span(mut self, span: Duration) -> Self {
        self.span = span;
        self
    }

    /// A name of the signal within its session that makes it count once within
    /// [`event_id_horizon`](crate::Options::event_id_horizon), however often it is sent. Not empty. Who may
    /// write is asked first: a signal that is sent again after its session has ended, or has another
    /// holder, is refused, counted or not; [`append_late`](crate::Sessions::append_late) knows the key too.
    #[must_use]
    pub const fn retry_key(mut self, key: &'a [u8]) -> Self {
        self.retry_key = Some(key);
        self
    }

    /// A note that is kept with it.
    #[must_use]
    pub const fn annotation(mut self, text: &'a str) -> Self {
        self.annotation = Some(text);
        self
    }

    /// Chooses when it is acknowledged, whatever the options of the database say.
    #[must_use]
    pub const fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    pub(super) const fn at(&self) -> Timestamp {
        self.at
    }

    pub(super) const fn chosen_durability(&self) -> Option<Durability> {
        self.durability
    }

    /// Checks what needs no state, and says it in the log's words: of who holds the session, or, without
    /// a fence, as a late one.
    pub(super) fn encode(
        &self,
        door: &Door,
        inside: &Inside,
        (session, fence, user): (SessionId, Option<Fence>, UserId),
    ) -> Result<FrameBody> {
        let limit = door.sessions.annotation_size_bytes_max;
        check_size("an annotation", self.annotation.map_or(0, str::len), limit)?;
        let key = self.retry_key.map(|key| scoped(session, key)).transpose()?;
        let mut event =
            Event::new(self.signal, self.entity, self.at).weight(self.weight).user(user);
        if let Some(key) = &key {
            event = event.id(key);
        }
        let mut batch = Batch::new();
        batch.push(event);
        let signals = batch.to_bytes(&inside.state.declared().schema, &door.options)?;
        let record = Record::SessionSignal(record::SessionSignal {
            session,
            fence,
            span_ns: duration_nanos(self.span),
            annotation: self.annotation,
            signals: &signals,
        });
        FrameBody::new(record.kind() as u8, 1, record.encode())
    }
}

/// The name of an event that has this name in this session. No event of another session has it.
fn scoped(session: SessionId, key: &[u8]) -> Result<Vec<u8>> {
    if key.is_empty() {
        return Err(Error::invalid("retry key", "it must not be empty"));
    }
    Ok([b"session ", &session.get().to_le_bytes()[..], key].concat())
}

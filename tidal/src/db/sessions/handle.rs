//! Starting and resuming sessions, and what their holders do.
//!
//! Knows: the calls. Must not know: when a session ends.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::look::explained;
use super::signal::SessionSignal;
use crate::db::door::Door;
use crate::db::{Ack, TidalDb, check_size};
use crate::end::End;
use crate::engine::encoded;
use crate::error::{Error, Result};
use crate::ids::{EntityId, Fence, SessionId, Timestamp, UserId, duration_nanos};
use crate::options::{Durability, OnConflict};
use crate::record::{Annotate, Conflict, EndSession, EndedBy, Record, StartSession, Touch};
use crate::seq::Seq;
use crate::sessions::Started;
use crate::state::Reply;

/// An open session, and the right to write to it.
///
/// Whoever starts or resumes a session gets a handle with a fence of its own, and handles that were given
/// out before write no more. A handle may be shared among threads. Dropping it leaves the session open:
/// it ends when it is closed, when its time is over, or when another one takes its place.
///
/// ```
/// # use tidaldb::TidalDb;
/// # use tidaldb::schema::{DecaySpec, EntityId, EntityKind, SchemaBuilder, Timestamp};
/// # let mut schema = SchemaBuilder::new();
/// # let _ = schema.signal("view", EntityKind::Item, DecaySpec::None).add();
/// # let db = TidalDb::builder().ephemeral().with_schema(schema.build()?).open()?;
/// let session = db.start_session(42, "phone", "default")?;
/// session.signal("view", EntityId::new(7), 1.0, Timestamp::now())?;
/// session.annotate(EntityId::new(7), "asked for more like it")?;
///
/// let id = session.detach();
/// let session = db.resume_session(id)?;
/// session.signal("view", EntityId::new(8), 1.0, Timestamp::now())?;
/// let end = session.close()?;
///
/// let info = db.sessions().get(id)?.expect("it was there");
/// assert_eq!((info.records, info.state.end()), (3, Some(&end)));
/// # Ok::<(), tidaldb::Error>(())
/// ```
#[must_use = "a session that nobody writes to ends by itself"]
pub struct SessionHandle {
    door: Arc<Door>,
    /// Boxed, so that an error that gives a handle back is small.
    held: Box<Started>,
}

impl fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Started { id, user, fence, .. } = *self.held;
        f.debug_struct("SessionHandle")
            .field("id", &id)
            .field("user", &user)
            .field("fence", &fence)
            .finish_non_exhaustive()
    }
}

/// A session that could not be closed, and its handle.
#[derive(Debug)]
pub struct CloseError {
    /// The handle, to try again with.
    pub handle: SessionHandle,
    /// Why.
    pub error: Error,
}

impl fmt::Display for CloseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {} was not closed: {}", self.handle.session_id(), self.error)
    }
}

impl std::error::Error for CloseError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<CloseError> for Error {
    fn from(error: CloseError) -> Self {
        error.error
    }
}

impl TidalDb {
    /// Starts a session of a user with an agent (a device, an application, a tab) under a policy of the
    /// schema.
    ///
    /// Where the lane is taken the other session ends in the same frame, or the start is refused, as
    /// [`on_conflict`](crate::SessionConfig::on_conflict) says; one whose time is over ends by its
    /// time-out in either case. The start is durable when this returns.
    ///
    /// # Errors
    ///
    /// Nothing was changed in any of these cases:
    ///
    /// - [`UnknownName`](Error::UnknownName): the schema has no such policy.
    /// - [`InvalidArgument`](Error::InvalidArgument), [`TooLarge`](Error::TooLarge): the agent's name is
    ///   empty or too long.
    /// - [`LaneBusy`](Error::LaneBusy).
    /// - Those of [`Ticket::wait`](crate::Ticket::wait).
    pub fn start_session(
        &self,
        user: impl Into<UserId>,
        agent: &str,
        policy: &str,
    ) -> Result<SessionHandle> {
        let conflict = match self.sessions.on_conflict {
            OnConflict::EndPrevious => Conflict::EndPrevious,
            OnConflict::Reject => Conflict::Reject,
        };
        self.start(user.into(), agent, policy, conflict)
    }

    /// The open session of the lane that a user has with an agent, with a new handle; where there is none,
    /// a new one. One that is open keeps the policy that it was started with, and with
    /// [`Lane::User`](crate::schema::Lane::User) the agent: [`Sessions::get`](crate::Sessions::get)
    /// says which.
    ///
    /// # Errors
    ///
    /// Those of [`start_session`](Self::start_session) but the conflict.
    pub fn current_or_start(
        &self,
        user: impl Into<UserId>,
        agent: &str,
        policy: &str,
    ) -> Result<SessionHandle> {
        self.start(user.into(), agent, policy, Conflict::Join)
    }

    /// A new handle on an open session, be it of this process or of one before. The time that the session
    /// may be idle does not begin anew.
    ///
    /// # Errors
    ///
    /// [`SessionNotFound`](Error::SessionNotFound); [`SessionEnded`](Error::SessionEnded); those of
    /// [`Ticket::wait`](crate::Ticket::wait).
    pub fn resume_session(&self, id: SessionId) -> Result<SessionHandle> {
        self.take_hold(&Record::ResumeSession(id))
    }

    fn start(
        &self,
        user: UserId,
        agent: &str,
        policy: &str,
        conflict: Conflict,
    ) -> Result<SessionHandle> {
        if agent.is_empty() {
            return Err(Error::invalid("agent", "the name is empty"));
        }
        check_size("an agent's name", agent.len(), self.sessions.agent_size_bytes_max)?;
        let (policy, _) =
            self.state.declared().schema.session_policy(policy).map(|(n, _)| (n, ()))?;
        self.take_hold(&Record::StartSession(StartSession { user, agent, policy, conflict }))
    }

    fn take_hold(&self, record: &Record<'_>) -> Result<SessionHandle> {
        let ticket = self.door.send(encoded(record)?, 1, None, Some(Durability::Sync), false)?;
        match ticket.wait_for_reply() {
            Ok((_, Reply::Started(held))) => {
                Ok(SessionHandle { door: Arc::clone(&self.door), held: Box::new(held) })
            }
            Ok((_, other)) => {
                unreachable!("a start is answered with a session, not with {other:?}")
            }
            Err(refusal) => Err(explained(&self.door, refusal)),
        }
    }
}

impl SessionHandle {
    /// The session.
    pub fn session_id(&self) -> SessionId {
        self.held.id
    }

    /// Whose it is.
    pub fn user(&self) -> UserId {
        self.held.user
    }

    /// The fence that this handle writes with.
    pub fn fence(&self) -> Fence {
        self.held.fence
    }

    /// The engine time at which the session began.
    pub fn started_at(&self) -> Timestamp {
        self.held.started
    }

    /// Counts one signal of the session's user, and keeps it in the session.
    ///
    /// # Errors
    ///
    /// As [`signal_with`](Self::signal_with).
    pub fn signal(&self, signal: &str, item: EntityId, weight: f64, at: Timestamp) -> Result<Ack> {
        self.signal_with(SessionSignal::new(signal, item, at).weight(weight))
    }

    /// Counts one signal of the session's user, for the user's cohorts too, connects its item with those
    /// of the session before, and keeps it in the session, as one: after a crash all of it is there, or
    /// nothing.
    ///
    /// A signal with a retry key that came before changes nothing, and is no error:
    /// [`duplicates`](Ack::duplicates) is 1 then.
    ///
    /// # Errors
    ///
    /// Nothing was changed in any of these cases:
    ///
    /// - [`SessionEnded`](Error::SessionEnded), [`Fenced`](Error::Fenced).
    /// - [`SignalForbidden`](Error::SignalForbidden), [`RateLimited`](Error::RateLimited): the session's
    ///   policy is against it.
    /// - [`UnknownName`](Error::UnknownName), [`InvalidArgument`](Error::InvalidArgument),
    ///   [`TooLarge`](Error::TooLarge): the signal, its weight, its retry key or its annotation.
    /// - [`Closed`](Error::Closed), once the database is; those of
    ///   [`Ticket::wait`](crate::Ticket::wait).
    pub fn signal_with(&self, signal: SessionSignal<'_>) -> Result<Ack> {
        let Started { id, user, fence, .. } = *self.held;
        let body =
            self.door.look(|inside| signal.encode(&self.door, inside, (id, Some(fence), user)))?;
        let durability = signal.chosen_durability();
        let ticket = self.door.send(body, 1, Some(signal.at()), durability, false)?;
        ticket.wait().map_err(|refusal| explained(&self.door, refusal))
    }

    /// Notes something of an item in the session.
    ///
    /// # Errors
    ///
    /// [`TooLarge`](Error::TooLarge): the text is longer than
    /// [`annotation_size_bytes_max`](crate::SessionConfig::annotation_size_bytes_max). Otherwise as
    /// [`heartbeat`](Self::heartbeat).
    pub fn annotate(&self, item: EntityId, text: &str) -> Result<Ack> {
        check_size("an annotation", text.len(), self.door.sessions.annotation_size_bytes_max)?;
        let Started { id, fence, .. } = *self.held;
        let note = Record::Annotate(Annotate { session: id, fence, entity: item, text });
        let ticket = self.door.send(encoded(&note)?, 1, None, None, false)?;
        ticket.wait().map_err(|refusal| explained(&self.door, refusal))
    }

    /// Says that the session goes on, though nothing happens in it; until when, if nothing more comes.
    ///
    /// # Errors
    ///
    /// Nothing was changed in any of these cases: [`SessionEnded`](Error::SessionEnded),
    /// [`Fenced`](Error::Fenced), [`Closed`](Error::Closed), those of
    /// [`Ticket::wait`](crate::Ticket::wait).
    pub fn heartbeat(&self) -> Result<Timestamp> {
        self.touch(None)
    }

    /// Says that the session goes on for so long, though nothing may happen in it, but never beyond its
    /// maximum duration; until when, if nothing more comes.
    ///
    /// # Errors
    ///
    /// As [`heartbeat`](Self::heartbeat).
    pub fn extend(&self, by: Duration) -> Result<Timestamp> {
        self.touch(Some(duration_nanos(by)))
    }

    /// Makes everything written so far survive a power cut; returns through where.
    ///
    /// # Errors
    ///
    /// [`Stopped`](Error::Stopped) or [`Closed`](Error::Closed); then nothing is promised.
    /// [`InvalidArgument`](Error::InvalidArgument) within [`consistent`](TidalDb::consistent).
    pub fn flush(&self) -> Result<Seq> {
        self.door.flush()
    }

    /// Lets go of the session and leaves it open, as dropping the handle does; its id is what
    /// [`resume_session`](TidalDb::resume_session) asks for.
    pub fn detach(self) -> SessionId {
        self.held.id
    }

    /// Ends the session now. The end is durable when this returns.
    ///
    /// # Errors
    ///
    /// Those of [`heartbeat`](Self::heartbeat), with the handle: also that the session has ended before,
    /// which says how.
    pub fn close(self) -> Result<End, CloseError> {
        self.end().map_err(|error| CloseError { handle: self, error })
    }

    fn end(&self) -> Result<End> {
        let Started { id, fence, .. } = *self.held;
        let end = Record::EndSession(EndSession { session: id, by: EndedBy::Holder(fence) });
        match self.ask(&end, Some(Durability::Sync))? {
            Reply::Ended(end) => Ok(*end),
            other => unreachable!("an end is answered with how, not with {other:?}"),
        }
    }

    fn touch(&self, extend_ns: Option<u64>) -> Result<Timestamp> {
        let Started { id, fence, .. } = *self.held;
        match self.ask(&Record::Touch(Touch { session: id, fence, extend_ns }), None)? {
            Reply::Touched { deadline } => Ok(deadline),
            other => unreachable!("a heartbeat is answered with a deadline, not with {other:?}"),
        }
    }

    fn ask(&self, record: &Record<'_>, durability: Option<Durability>) -> Result<Reply> {
        let ticket = self.door.send(encoded(record)?, 1, None, durability, false)?;
        let answer = ticket.wait_for_reply().map(|(_, reply)| reply);
        answer.map_err(|refusal| explained(&self.door, refusal))
    }
}

//! Single operations of those who process sessions, for suites that count operations.
//!
//! Knows: which record is one operation that does the same in a database that has crashed as in one that
//! has not. Must not know: what a processor does. Not for use by anyone else.
//!
//! Nothing is committed here: an attempt ends with its process, so whether a commit counts depends on
//! whether there was a crash before it.

use std::time::Duration;

use super::TidalDb;
use crate::engine::encoded;
use crate::error::Result;
use crate::ids::{AttemptId, ProcessorId, SessionId, UserId};
use crate::options::Durability;
use crate::processors::ProcessorRow;
use crate::record::{
    BeginAttempt, BeginAttempts, CommitAttempts, FailAttempt, FailAttempts, FailSession, FailedBy,
    Record, RegisterProcessor,
};
use crate::sessions::Failed;

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub enum ProcessingStep<'a> {
    /// A processor is there, as it says.
    Register {
        /// Its name.
        name: &'a str,
        /// Its version.
        version: u32,
        /// Sessions wait for it.
        required: bool,
    },
    /// A processor is there no more.
    Remove {
        /// Its name.
        name: &'a str,
    },
    /// A processor begins an attempt at a session, or fails at the one that has begun.
    Try {
        /// Its name.
        name: &'a str,
        /// The session.
        session: SessionId,
        /// There is to be no other attempt.
        is_last: bool,
    },
    /// A processor has walked through all sessions that had left when it came.
    Walk {
        /// Its name.
        name: &'a str,
    },
    /// An operator gives a session up.
    Fail {
        /// The session.
        session: SessionId,
    },
    /// A session is tried anew.
    Requeue {
        /// The session.
        session: SessionId,
    },
}

const RETRY: Duration = Duration::from_secs(1_200);

/// Performs a step, as exactly one operation. What has to be there is made in its stead where it is not.
///
/// # Errors
///
/// [`UnknownName`](crate::Error::UnknownName) when a processor is to be removed that is not there; those of
/// [`Ticket::wait`](super::Ticket::wait).
pub fn process(db: &TidalDb, step: ProcessingStep<'_>) -> Result<()> {
    // What is on its way is decided on first.
    db.flush()?;
    let state = &db.state;
    match step {
        ProcessingStep::Register { name, version, required } => {
            register(db, name, version, required)
        }
        ProcessingStep::Remove { name } => send(db, &Record::RemoveProcessor(name)),
        ProcessingStep::Try { name, session, is_last } => match state.processors.find(name) {
            None => register(db, name, 1, false),
            Some(row) => attempt(db, &row, session, is_last),
        },
        ProcessingStep::Walk { name } => match state.processors.find(name) {
            None => register(db, name, 1, false),
            Some(row) => walk(db, &row),
        },
        ProcessingStep::Fail { session } => {
            let by = FailedBy::Operator { by: "a test", reason: "there is one" };
            send(db, &Record::FailSessions(vec![FailSession { session, busy_since: None, by }]))
        }
        ProcessingStep::Requeue { session } => requeue(db, session),
    }
}

fn send(db: &TidalDb, record: &Record<'_>) -> Result<()> {
    db.send(encoded(record)?, 1, None, Some(Durability::Sync), false)?.wait().map(drop)
}

fn register(db: &TidalDb, name: &str, version: u32, required: bool) -> Result<()> {
    send(db, &Record::RegisterProcessor(RegisterProcessor { name, version, required }))
}

fn attempt(db: &TidalDb, row: &ProcessorRow, session: SessionId, is_last: bool) -> Result<()> {
    let attempt = db.state.processors.attempt(session, row.number);
    if let Some(begun) = attempt.as_ref().and_then(|attempt| attempt.begun()) {
        return fail(db, row.number, session, (begun, is_last));
    }
    let count = attempt.map_or(0, |attempt| attempt.count);
    let found = db.sessions().get(session)?;
    let user = found.map_or(UserId::new(0), |info| info.user);
    let retry_ns = RETRY.as_nanos() as u64;
    let items = vec![BeginAttempt { session, user, count, retry_ns, is_last }];
    send(db, &Record::BeginAttempts(BeginAttempts { processor: row.number, items }))
}

fn fail(
    db: &TidalDb,
    processor: ProcessorId,
    session: SessionId,
    (attempt, is_last): (AttemptId, bool),
) -> Result<()> {
    let next = db.state.header().engine_time.saturating_add(RETRY);
    let items = vec![FailAttempt { session, attempt, next, is_last, error: "a test" }];
    send(db, &Record::FailAttempts(FailAttempts { processor, items }))
}

fn walk(db: &TidalDb, row: &ProcessorRow) -> Result<()> {
    send(
        db,
        &Record::CommitAttempts(CommitAttempts {
            processor: row.number,
            version: row.version,
            through: row.bumped_op,
            items: Vec::new(),
            signals: None,
        }),
    )
}

/// An attempt that is running is left alone by a requeue, and one that has ended with its process is not:
/// unless the session has failed, it fails first.
fn requeue(db: &TidalDb, session: SessionId) -> Result<()> {
    let has_failed = db.state.sessions.failed().iter().any(|(id, _): &(_, Failed)| *id == session);
    let attempts = db.state.processors.attempts_at(session);
    let mut begun = attempts.iter().filter_map(|(by, attempt)| Some((*by, attempt.begun()?)));
    match begun.next().filter(|_| !has_failed) {
        Some((processor, attempt)) => fail(db, processor, session, (attempt, false)),
        None => send(db, &Record::RequeueSessions(vec![session])),
    }
}

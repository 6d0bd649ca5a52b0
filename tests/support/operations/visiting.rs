//! Operations on sessions that follow from a seed.
//!
//! A session is named by the number of the operation that started it, and the schema is the first: so
//! operation `i` starts number `i + 2`, whoever applies it, unless it joins one that is open. Nobody keeps
//! a handle over operations, because a database that crashed has none: a write resumes its session first,
//! which is no operation.

use std::time::Duration;

use tidaldb::schema::{EntityId, RateLimit, SchemaBuilder, SessionPolicy};
use tidaldb::{
    Durability, Error, EventFilter, Result, SessionHandle, SessionId, SessionSignal, TidalDb,
};

use super::{is_batch, time_of};
use crate::random::Random;

const MINUTE: Duration = Duration::from_secs(60);

/// Declares a policy whose limits are reached: an operation takes two minutes.
pub(super) fn declare(b: &mut SchemaBuilder) {
    let mut brisk = SessionPolicy::new("brisk");
    (brisk.idle_timeout, brisk.max_duration) = (MINUTE * 25, MINUTE * 60);
    brisk.late_grace = MINUTE * 40;
    brisk.rate_limit = Some(RateLimit { signals: 2, per: MINUTE * 30 });
    b.session_policy(brisk);
}

/// What happens to a session.
pub(super) enum Visiting {
    Start { user: u64, agent: &'static str, policy: &'static str, joins: bool },
    Write { session: SessionId, what: What, is_swept: bool },
    Listen(Listening),
}

/// What those do who are told of sessions, by cursors that are named after operations.
pub(super) enum Listening {
    Register { i: u64 },
    Acknowledge { i: u64, through: u64 },
    Remove { i: u64 },
}

/// What its holder, or an operator, does.
pub(super) enum What {
    Signal { i: u64, item: EntityId, weight: f64, key: Option<u64> },
    Late { i: u64, item: EntityId },
    Annotate(EntityId, String),
    Heartbeat,
    Extend(Duration),
    Close,
    End,
}

fn is_listening(i: u64) -> bool {
    !is_batch(i) && i % 24 == 13
}

fn is_start(i: u64) -> bool {
    !is_batch(i) && i % 12 == 4
}

fn random_of(seed: u64, i: u64) -> Random {
    Random::new(seed.rotate_left(41) ^ i.wrapping_mul(0x9e37_79b9))
}

/// One of the sessions that were started last; some have ended, or never began.
pub(super) fn recent(random: &mut Random, i: u64) -> SessionId {
    let started: Vec<u64> = (0..i).rev().filter(|&i| is_start(i)).take(3).collect();
    let chosen = started.get(random.below(3) as usize).or(started.first());
    SessionId::new(chosen.map_or(1, |started| started + 2))
}

impl Visiting {
    /// Operation `i` of a seed, if it is one of those that something is named after.
    pub(super) fn start_or_cursor(seed: u64, i: u64) -> Option<Self> {
        let mut random = random_of(seed, i);
        if is_start(i) {
            return Some(Self::Start {
                user: random.below(3),
                agent: ["app", "web"][random.below(2) as usize],
                policy: ["default", "brisk"][random.below(2) as usize],
                joins: random.one_in(3),
            });
        }
        is_listening(i).then(|| Self::Listen(Listening::operation(&mut random, i)))
    }

    /// Operation `i` of a seed, where it is one on a session that may be there.
    pub(super) fn write(seed: u64, i: u64) -> Self {
        let mut random = random_of(seed, i);
        let (session, item) = (recent(&mut random, i), EntityId::new(random.below(200)));
        let what = match random.below(12) {
            0..5 => What::Signal {
                i,
                item,
                weight: [1.0, 0.3, -1.0][random.below(3) as usize],
                key: random.one_in(2).then(|| random.below(3)),
            },
            5 | 6 => What::Late { i, item },
            7 => What::Annotate(item, format!("note {i}")),
            8 => What::Heartbeat,
            9 => What::Extend(MINUTE * random.below(90) as u32),
            10 => What::Close,
            _ => What::End,
        };
        Self::Write { session, what, is_swept: random.one_in(4) }
    }

    /// Does it; a refusal by the state is as good as an acceptance, and as much in the log.
    pub(super) fn perform(self, db: &TidalDb) -> Result<()> {
        let done = match self {
            Self::Start { user, agent, policy, joins: true } => {
                db.current_or_start(user, agent, policy).map(drop)
            }
            Self::Start { user, agent, policy, joins: false } => {
                db.start_session(user, agent, policy).map(drop)
            }
            Self::Write { session, what, is_swept } => {
                if is_swept {
                    db.sessions().sweep()?;
                }
                what.perform(db, session)
            }
            Self::Listen(listening) => listening.perform(db),
        };
        match done {
            Err(
                Error::SessionNotFound(_)
                | Error::SessionEnded { .. }
                | Error::SessionOpen(_)
                | Error::TooLate { .. }
                | Error::RateLimited { .. },
            ) => Ok(()),
            done => done,
        }
    }
}

impl Listening {
    fn operation(random: &mut Random, i: u64) -> Self {
        let earlier: Vec<u64> = (0..i).rev().filter(|&i| is_listening(i)).take(3).collect();
        let chosen = earlier.get(random.below(3) as usize).copied();
        match (chosen, random.below(3)) {
            (Some(i), 0) => Self::Acknowledge { i, through: random.below(20) },
            (Some(i), 1) => Self::Remove { i },
            _ => Self::Register { i },
        }
    }

    fn perform(self, db: &TidalDb) -> Result<()> {
        let of = |i: u64| -> Result<_> {
            let wanted = EventFilter::all();
            let filter = if i.is_multiple_of(2) { wanted } else { wanted.user(i % 3) };
            db.sessions().cursor(&format!("cursor {i}"), filter)
        };
        let done = match self {
            Self::Register { i } => of(i).map(drop),
            Self::Remove { i } => db.sessions().remove_cursor(&format!("cursor {i}")),
            Self::Acknowledge { i, through } => {
                // What is on its way would be counted as well.
                db.flush()?;
                let before = db.status().operations;
                of(i).and_then(|mut cursor| {
                    // One that was not there is there now: that was the operation.
                    let is_new = db.status().operations > before;
                    if is_new { Ok(()) } else { cursor.ack(through) }
                })
            }
        };
        match done {
            // Of cursors there may be so many.
            Err(
                Error::InvalidArgument { .. } | Error::UnknownName { .. } | Error::TooLarge { .. },
            ) => Ok(()),
            done => done,
        }
    }
}

impl What {
    fn perform(self, db: &TidalDb, session: SessionId) -> Result<()> {
        let in_its_stead = || db.sessions().end(session, "there is nothing to be done").map(drop);
        match self {
            Self::End => db.sessions().end(session, "a test").map(drop),
            Self::Late { i, item } => {
                let signal = SessionSignal::new("view", item, time_of(i));
                match db.sessions().append_late(session, signal.durability(Durability::Sync)) {
                    // It is not known that it ever began: nothing was sent.
                    Err(Error::SessionNotFound(_)) => in_its_stead(),
                    done => done.map(drop),
                }
            }
            other => match db.resume_session(session) {
                Ok(handle) => other.perform_with(handle),
                Err(Error::SessionNotFound(_) | Error::SessionEnded { .. }) => in_its_stead(),
                Err(error) => Err(error),
            },
        }
    }

    fn perform_with(self, handle: SessionHandle) -> Result<()> {
        match self {
            Self::Signal { i, item, weight, key } => {
                let key = key.map(u64::to_le_bytes);
                let mut signal =
                    SessionSignal::new("like", item, time_of(i).saturating_sub(MINUTE))
                        .weight(weight)
                        .span(MINUTE)
                        .durability(Durability::Sync);
                if let Some(key) = &key {
                    signal = signal.retry_key(key).annotation("with a key");
                }
                handle.signal_with(signal).map(drop)
            }
            Self::Annotate(item, text) => handle.annotate(item, &text).map(drop),
            Self::Heartbeat => handle.heartbeat().map(drop),
            Self::Extend(by) => handle.extend(by).map(drop),
            Self::Close => handle.close().map(drop).map_err(Error::from),
            Self::Late { .. } | Self::End => unreachable!("nobody holds it"),
        }
    }
}

//! Sessions: operations on them, and how each is said in public calls.
//!
//! Knows: who holds what in which process. Must not know: what an operation means (`courses`).
//!
//! Resuming and sweeping are no operations: they are in the log, and leave no trace in the digest.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use tidaldb::schema::{EntityId, RateLimit, SessionPolicy, Timestamp};
use tidaldb::{
    End, EndCause, EndEvidence, Error, OnConflict, Runtime, SessionConfig, SessionHandle,
    SessionId, SessionSignal, TidalDb,
};

use crate::operation::{Answer, HOUR, ITEMS, SIGNALS, Signal};

/// Users of sessions are numbered below this; they are users of signals as well.
pub(crate) const USERS: u8 = 3;
/// The agents.
pub(crate) const AGENTS: [&str; 2] = ["phone", "watch"];

const MINUTE: Duration = Duration::from_secs(60);

/// The policies, by their numbers: the default one, and one that allows little and takes late signals.
pub(crate) fn policies() -> [SessionPolicy; 2] {
    let [mut default, mut brief] = ["default", "brief"].map(SessionPolicy::new);
    default.max_duration = MINUTE * 45;
    (brief.idle_timeout, brief.max_duration) = (MINUTE * 10, MINUTE * 25);
    (brief.empty_fallback, brief.late_grace) = (MINUTE * 5, HOUR);
    brief.signals = Some(vec![SIGNALS[1].to_owned()]);
    brief.rate_limit = Some(RateLimit { signals: 2, per: MINUTE * 30 });
    [default, brief]
}

/// Nothing happens by itself.
pub(crate) fn config(rejects: bool) -> SessionConfig {
    let mut config = SessionConfig::default();
    config.runtime = Runtime::Manual;
    config.on_conflict = if rejects { OnConflict::Reject } else { OnConflict::EndPrevious };
    config
}

/// An operation on sessions. Holders are counted from the one that was given a session last.
#[derive(Debug, Clone)]
pub(crate) enum Sessioning {
    Start { user: u8, agent: usize, policy: usize, joins: bool },
    Signal { holder: usize, said: Said },
    Annotate { holder: usize, item: u64, text: u8 },
    Touch { holder: usize, extend_s: Option<u32> },
    Close { holder: usize },
    Force { of: usize },
    Late { of: usize, said: Said },
}

/// A signal of a session.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) signal: Signal,
    pub(crate) span_s: u32,
    pub(crate) text: Option<u8>,
}

impl Said {
    pub(crate) fn span(&self) -> Duration {
        Duration::from_secs(self.span_s.into())
    }
}

/// What is noted.
pub(crate) fn text(text: u8) -> String {
    "note ".repeat(text.into())
}

/// Which session an operation is about, and who acts, once it is known what there is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Aim {
    pub(crate) session: u64,
    /// Numbers are given once in a story.
    pub(crate) grant: u64,
    /// The process that gave it is gone, or nobody was given anything.
    pub(crate) is_dead: bool,
}

impl Aim {
    /// What holds nothing.
    pub(crate) const NONE: Self = Self { session: u64::MAX, grant: u64::MAX, is_dead: true };
}

/// How a session ended, as it is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) at: Timestamp,
    pub(crate) why: Why,
    pub(crate) from: From,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    Closed,
    Idle,
    TooLong,
    Superseded(u64),
    Forced,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    Word,
    Record { number: u64 },
    Nothing { clamped: bool },
}

/// An end that the engine tells.
pub(crate) fn told(end: &End) -> Ended {
    let why = match &end.cause {
        EndCause::Closed => Why::Closed,
        EndCause::IdleTimeout => Why::Idle,
        EndCause::MaxDuration => Why::TooLong,
        EndCause::Superseded { by } => Why::Superseded(by.as_u64()),
        EndCause::Forced { reason } if reason == REASON => Why::Forced,
        other => panic!("no operation of a story ends a session so: {other:?}"),
    };
    let from = match end.evidence {
        EndEvidence::Explicit => From::Word,
        EndEvidence::Record { record: number } => From::Record { number },
        EndEvidence::Fallback { clamped } => From::Nothing { clamped },
        other => panic!("nothing of a story is told so: {other:?}"),
    };
    Ended { at: end.at, why, from }
}

const REASON: &str = "it was time";

/// The handles that were given out, those of processes that are gone among them.
#[derive(Debug, Default)]
pub(crate) struct Hands(RefCell<BTreeMap<u64, SessionHandle>>);

impl Hands {
    fn give(&self, grant: u64, handle: SessionHandle) {
        self.0.borrow_mut().insert(grant, handle);
    }

    fn with<T>(
        &self,
        grant: u64,
        act: impl FnOnce(&SessionHandle) -> tidaldb::Result<T>,
    ) -> tidaldb::Result<T> {
        match self.0.borrow().get(&grant) {
            Some(handle) => act(handle),
            // The answer to the one who gave it was lost, with its process.
            None => Err(Error::Closed),
        }
    }

    fn close(&self, grant: u64) -> tidaldb::Result<End> {
        let Some(handle) = self.0.borrow_mut().remove(&grant) else { return Err(Error::Closed) };
        handle.close().map_err(|refused| {
            self.give(grant, refused.handle);
            refused.error
        })
    }

    /// Gives a session to someone else, as an answer; or what failed beneath the engine.
    pub(crate) fn resume(&self, db: &TidalDb, aim: Aim) -> tidaldb::Result<Answer> {
        db.resume_session(SessionId::new(aim.session))
            .map(|handle| self.started(aim.grant, handle))
            .or_else(refusal)
    }

    fn started(&self, grant: u64, handle: SessionHandle) -> Answer {
        let (id, at) = (handle.session_id().as_u64(), handle.started_at());
        self.give(grant, handle);
        Answer::Started { id, at }
    }
}

/// What a refusal says of sessions; others are left to who knows them.
pub(crate) fn refusal(error: Error) -> tidaldb::Result<Answer> {
    match error {
        Error::SessionNotFound(_) => Ok(Answer::NoSession),
        Error::SessionEnded { end, .. } => Ok(Answer::HasEnded(told(&end))),
        Error::Fenced { .. } => Ok(Answer::Fenced),
        Error::LaneBusy { by } => Ok(Answer::LaneBusy(by.as_u64())),
        Error::SessionOpen(_) => Ok(Answer::IsOpen),
        Error::TooLate { .. } => Ok(Answer::TooLate),
        Error::RateLimited { retry_after_ms, .. } => Ok(Answer::Limited { retry_after_ms }),
        Error::SignalForbidden { .. } => Ok(Answer::Forbidden),
        error => Err(error),
    }
}

impl Sessioning {
    /// Whether it is durable when it is answered, whatever the options say.
    pub(crate) const fn is_durable(&self) -> bool {
        matches!(self, Self::Start { .. } | Self::Close { .. } | Self::Force { .. })
    }

    /// Does it, and waits for the answer.
    pub(crate) fn perform(
        &self,
        db: &TidalDb,
        hands: &Hands,
        aim: Aim,
        base: Timestamp,
    ) -> tidaldb::Result<Answer> {
        let session = SessionId::new(aim.session);
        let done = match self {
            Self::Start { user, agent, policy, joins } => {
                let (user, agent) = (u64::from(*user), AGENTS[*agent]);
                let policy = &policies()[*policy].name;
                let started = match joins {
                    true => db.current_or_start(user, agent, policy),
                    false => db.start_session(user, agent, policy),
                };
                started.map(|handle| hands.started(aim.grant, handle))
            }
            Self::Signal { said, .. } => said.with(base, |signal| {
                let ack = hands.with(aim.grant, |handle| handle.signal_with(signal));
                ack.map(|ack| Answer::Applied { duplicates: ack.duplicates })
            }),
            Self::Annotate { item, text: said, .. } => {
                let note =
                    |handle: &SessionHandle| handle.annotate(EntityId::new(*item), &text(*said));
                let ack = hands.with(aim.grant, note);
                ack.map(|ack| Answer::Applied { duplicates: ack.duplicates })
            }
            Self::Touch { extend_s: None, .. } => {
                hands.with(aim.grant, SessionHandle::heartbeat).map(Answer::Touched)
            }
            Self::Touch { extend_s: Some(by), .. } => {
                let by = Duration::from_secs((*by).into());
                hands.with(aim.grant, |handle| handle.extend(by)).map(Answer::Touched)
            }
            Self::Close { .. } => hands.close(aim.grant).map(|end| Answer::Ended(told(&end))),
            Self::Force { .. } => {
                db.sessions().end(session, REASON).map(|end| Answer::Ended(told(&end)))
            }
            Self::Late { said, .. } => said.with(base, |signal| {
                let ack = db.sessions().append_late(session, signal);
                ack.map(|ack| Answer::Applied { duplicates: ack.duplicates })
            }),
        };
        match done {
            Err(Error::Closed | Error::Stopped { .. }) if aim.is_dead => Ok(Answer::Closed),
            done => done.or_else(refusal),
        }
    }
}

impl Said {
    /// Says it.
    fn with<T>(&self, base: Timestamp, say: impl FnOnce(SessionSignal<'_>) -> T) -> T {
        let (key, note) = ([self.signal.id.unwrap_or_default()], self.text.map(text));
        let item = EntityId::new(self.signal.item);
        let signal = SessionSignal::new(SIGNALS[self.signal.signal], item, self.signal.at(base));
        let mut signal = signal.weight(self.signal.weight()).span(self.span());
        if self.signal.id.is_some() {
            signal = signal.retry_key(&key);
        }
        if let Some(note) = &note {
            signal = signal.annotation(note);
        }
        say(signal)
    }
}

fn said(signal: impl Strategy<Value = Signal>) -> impl Strategy<Value = Said> {
    let soon_s = prop_oneof![4 => -200..400i64, 1 => -900..-200i64];
    let span_s = prop_oneof![3 => 0..300u32, 1 => 0..10_000u32];
    let soon_s = proptest::option::weighted(0.8, soon_s);
    // Mostly what both policies allow.
    let kind = prop_oneof![1 => Just(0), 4 => Just(1)];
    let text = proptest::option::of(0..4u8);
    (signal, kind, soon_s, span_s, text).prop_map(|(signal, kind, soon_s, span_s, text)| {
        let late_s = soon_s.unwrap_or(signal.late_s);
        Said { signal: signal.other(kind, late_s), span_s, text }
    })
}

/// Operations on sessions.
pub(crate) fn sessioning(
    signal: impl Strategy<Value = Signal> + 'static,
) -> impl Strategy<Value = Sessioning> {
    let holder = || prop_oneof![5 => Just(0), 3 => 1..4usize];
    let of = || prop_oneof![3 => 0..2usize, 1 => 2..5usize];
    let said = said(signal).boxed();
    let extend_s = proptest::option::of(0..4_000u32);
    prop_oneof![
        6 => (0..USERS, 0..AGENTS.len(), 0..2usize, proptest::bool::weighted(0.3)).prop_map(
            |(user, agent, policy, joins)| Sessioning::Start { user, agent, policy, joins }
        ),
        12 => (holder(), said.clone()).prop_map(|(holder, said)| Sessioning::Signal { holder, said }),
        2 => (holder(), 0..ITEMS, 0..4u8)
            .prop_map(|(holder, item, text)| Sessioning::Annotate { holder, item, text }),
        3 => (holder(), extend_s)
            .prop_map(|(holder, extend_s)| Sessioning::Touch { holder, extend_s }),
        1 => holder().prop_map(|holder| Sessioning::Close { holder }),
        1 => of().prop_map(|of| Sessioning::Force { of }),
        3 => (of(), said).prop_map(|(of, said)| Sessioning::Late { of, said }),
    ]
}

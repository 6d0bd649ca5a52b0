//! What operations on sessions mean, by one plain list.
//!
//! Knows: every rule, written out. Shares no code with the engine: an end is worked out from all records
//! each time that it is asked for, and nothing is ever noted down about time having ended something.

use std::collections::BTreeMap;
use std::time::Duration;

use tidaldb::schema::{EntityId, SessionPolicy, Timestamp};
use tidaldb::{
    SessionContent, SessionFilter, SessionId, SessionInfo, SessionRecord, SessionState, TidalDb,
};

use crate::operation::{Answer, SIGNALS};
use crate::sessions::{AGENTS, Aim, Ended, From, Said, Sessioning, USERS, Why, policies, text};

/// What a record says.
#[derive(Debug, Clone, PartialEq)]
enum Content {
    Signal { signal: usize, weight: f64, span: Duration, text: Option<String>, is_late: bool },
    Note(String),
}

#[derive(Debug, Clone, PartialEq)]
struct Kept {
    number: u64,
    at: Timestamp,
    arrival: Timestamp,
    item: u64,
    content: Content,
    /// How far it shows that the session went on.
    reach: Option<Timestamp>,
}

#[derive(Debug, Clone)]
struct Session {
    id: u64,
    user: u8,
    agent: usize,
    policy: usize,
    started: Timestamp,
    last_activity: Timestamp,
    extended: Timestamp,
    records: Vec<Kept>,
    /// Who was given it last by the process that is there.
    holder: Option<u64>,
    /// Its end, if someone ended it, or engine time was set back after time had.
    end: Option<Ended>,
    /// When someone decided it.
    decided: Option<Timestamp>,
    /// It had settled when engine time was set back.
    is_settled: bool,
}

/// All sessions, in the order of their starts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Courses {
    sessions: Vec<Session>,
    /// Whom what was given to, the last one last: grant, session, and whether its process is gone.
    grants: Vec<(u64, u64, bool)>,
    /// When all that was sent is paid for, by user, agent and policy.
    paid: BTreeMap<(u8, usize, usize), Timestamp>,
    rejects: bool,
}

/// Where an operation stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) time: Timestamp,
    /// The number that the operation has, if it is in the log.
    pub(crate) number: u64,
}

impl Session {
    fn policy(&self) -> SessionPolicy {
        policies()[self.policy].clone()
    }

    /// No session is longer.
    fn longest(&self) -> Timestamp {
        self.started.saturating_add(self.policy().max_duration)
    }

    fn deadline(&self) -> Timestamp {
        let idle = self.last_activity.saturating_add(self.policy().idle_timeout);
        idle.max(self.extended).min(self.longest())
    }

    /// Where it ends if nobody says so, and not after `bound`.
    fn inferred(&self, why: Why, bound: Timestamp) -> Ended {
        let Some((reach, number)) = self.furthest() else {
            let reach = self.started.saturating_add(self.policy().empty_fallback);
            let from = From::Nothing { clamped: reach > bound };
            return Ended { at: reach.min(bound), why, from };
        };
        assert!(reach <= bound, "what a record reaches is known when it arrives");
        Ended { at: reach, why, from: From::Record { number } }
    }

    /// The record that reaches furthest; of two that reach as far, the first one.
    fn furthest(&self) -> Option<(Timestamp, u64)> {
        let reaches = self.records.iter().filter_map(|kept| Some((kept.reach?, kept.number)));
        reaches.max_by(|(reach, number), (other, other_number)| {
            reach.cmp(other).then(other_number.cmp(number))
        })
    }

    fn end_at(&self, now: Timestamp) -> Option<Ended> {
        if self.end.is_some() || now <= self.deadline() {
            return self.end.clone();
        }
        let why = if self.deadline() == self.longest() { Why::TooLong } else { Why::Idle };
        Some(self.inferred(why, self.longest()))
    }

    fn settles(&self) -> Timestamp {
        let over = self.decided.unwrap_or_else(|| self.deadline());
        over.saturating_add(self.policy().late_grace)
    }

    fn has_settled(&self, now: Timestamp) -> bool {
        self.is_settled || self.settles() <= now
    }

    fn keep(&mut self, kept: Kept, is_late: bool) {
        let is_within = (self.started..self.longest()).contains(&kept.at);
        let span = match kept.content {
            Content::Signal { span, .. } => span,
            Content::Note(_) => Duration::ZERO,
        };
        let reach = kept.at.saturating_add(span).min(kept.arrival);
        if !is_late {
            self.last_activity = kept.arrival;
        }
        let reach = (is_within && !is_late).then_some(reach);
        self.records.push(Kept { reach, ..kept });
    }
}

/// What becomes of a signal, before it is counted.
#[derive(Debug)]
pub(crate) enum Verdict {
    Refused(Answer),
    /// Refused because time has gone on, which it has as far as the signal says.
    Over(Answer),
    /// It may be a repetition; if not, it is to be counted and kept.
    Heard {
        user: u8,
    },
}

impl Courses {
    pub(crate) fn new(rejects: bool) -> Self {
        Self { rejects, ..Self::default() }
    }

    fn find(&self, id: u64) -> Option<&Session> {
        self.sessions.iter().find(|session| session.id == id)
    }

    fn find_mut(&mut self, id: u64) -> &mut Session {
        let found = self.sessions.iter_mut().find(|session| session.id == id);
        found.expect("it was found before")
    }

    /// What an operation is about; `next` is the grant that it may give.
    pub(crate) fn aim(&self, sessioning: &Sessioning, next: u64) -> Aim {
        match sessioning {
            Sessioning::Start { .. } => Aim { session: u64::MAX, grant: next, is_dead: false },
            Sessioning::Force { of } | Sessioning::Late { of, .. } => self.aim_of(*of, next),
            Sessioning::Signal { holder, .. }
            | Sessioning::Annotate { holder, .. }
            | Sessioning::Touch { holder, .. }
            | Sessioning::Close { holder } => {
                // Those of the process that is there come first.
                let (live, dead): (Vec<_>, Vec<_>) =
                    self.grants.iter().rev().partition(|(_, _, is_dead)| !is_dead);
                let given = live.into_iter().chain(dead).nth(*holder);
                given.map_or(Aim::NONE, |&(grant, session, is_dead)| Aim {
                    session,
                    grant,
                    is_dead,
                })
            }
        }
    }

    /// One of the sessions, the newest first; or one that there never was.
    pub(crate) fn aim_of(&self, of: usize, grant: u64) -> Aim {
        let session = self.sessions.iter().rev().nth(of).map_or(u64::MAX, |session| session.id);
        Aim { session, grant, is_dead: false }
    }

    /// Whether an operation reaches the log at all.
    pub(crate) fn is_logged(&self, sessioning: &Sessioning, aim: Aim) -> bool {
        match sessioning {
            Sessioning::Late { .. } => self.find(aim.session).is_some(),
            _ => !aim.is_dead,
        }
    }

    /// The process that gave out the handles is gone.
    pub(crate) fn reopen(&mut self) {
        self.sessions.iter_mut().for_each(|session| session.holder = None);
        self.grants.iter_mut().for_each(|(_, _, is_dead)| *is_dead = true);
    }

    fn give(&mut self, grant: u64, id: u64) -> Answer {
        self.grants.push((grant, id, false));
        let session = self.find_mut(id);
        session.holder = Some(grant);
        Answer::Started { id, at: session.started }
    }

    fn start(
        &mut self,
        (user, agent, policy): (u8, usize, usize),
        joins: bool,
        grant: u64,
        now: Now,
    ) -> Answer {
        let is_there = |session: &&Session| {
            session.user == user && session.agent == agent && session.end_at(now.time).is_none()
        };
        let current = self.sessions.iter().find(is_there).map(|session| session.id);
        match current {
            Some(id) if joins => return self.give(grant, id),
            Some(id) if self.rejects => return Answer::LaneBusy(id),
            Some(id) => drop(self.end_by(id, Why::Superseded(now.number), now.time)),
            None => {}
        }
        self.sessions.push(Session {
            id: now.number,
            user,
            agent,
            policy,
            started: now.time,
            last_activity: now.time,
            extended: Timestamp::EPOCH,
            records: Vec::new(),
            holder: None,
            end: None,
            decided: None,
            is_settled: false,
        });
        self.give(grant, now.number)
    }

    fn end_by(&mut self, id: u64, why: Why, now: Timestamp) -> Ended {
        let session = self.find_mut(id);
        let end = session.inferred(why, session.longest().min(now));
        (session.end, session.decided) = (Some(end.clone()), Some(now));
        end
    }

    /// Refuses what is not open.
    fn open(&self, id: u64, now: Timestamp) -> Result<(), Answer> {
        match self.find(id).ok_or(Answer::NoSession)?.end_at(now) {
            Some(end) => Err(Answer::HasEnded(end)),
            None => Ok(()),
        }
    }

    fn held(&self, aim: Aim, now: Timestamp) -> Result<(), Answer> {
        self.open(aim.session, now)?;
        let holder = self.find(aim.session).and_then(|session| session.holder);
        if holder == Some(aim.grant) { Ok(()) } else { Err(Answer::Fenced) }
    }

    /// Somebody else holds a session.
    pub(crate) fn resume(&mut self, aim: Aim, now: Timestamp) -> Answer {
        match self.open(aim.session, now) {
            Ok(()) => self.give(aim.grant, aim.session),
            Err(refusal) => refusal,
        }
    }

    /// What an operation without a signal does.
    pub(crate) fn apply(&mut self, sessioning: &Sessioning, aim: Aim, now: Now) -> Answer {
        match sessioning {
            Sessioning::Start { user, agent, policy, joins } => {
                self.start((*user, *agent, *policy), *joins, aim.grant, now)
            }
            Sessioning::Annotate { item, text: said, .. } => match self.held(aim, now.time) {
                Err(refusal) => refusal,
                Ok(()) => {
                    self.keep(aim, now, now.time, *item, Content::Note(text(*said)), false);
                    Answer::Applied { duplicates: 0 }
                }
            },
            Sessioning::Touch { extend_s, .. } => match self.held(aim, now.time) {
                Err(refusal) => refusal,
                Ok(()) => {
                    let by = extend_s.map(|seconds| Duration::from_secs(seconds.into()));
                    let session = self.find_mut(aim.session);
                    session.last_activity = now.time;
                    if let Some(by) = by {
                        session.extended = session.extended.max(now.time.saturating_add(by));
                    }
                    Answer::Touched(session.deadline())
                }
            },
            Sessioning::Close { .. } => match self.held(aim, now.time) {
                Err(refusal) => refusal,
                Ok(()) => {
                    let session = self.find_mut(aim.session);
                    let at = now.time.min(session.longest());
                    let end = Ended { at, why: Why::Closed, from: From::Word };
                    (session.end, session.decided) = (Some(end.clone()), Some(now.time));
                    // The handle went with it.
                    self.grants.retain(|&(grant, ..)| grant != aim.grant);
                    Answer::Ended(end)
                }
            },
            Sessioning::Force { .. } => match self.open(aim.session, now.time) {
                Err(refusal) => refusal,
                Ok(()) => Answer::Ended(self.end_by(aim.session, Why::Forced, now.time)),
            },
            Sessioning::Signal { .. } | Sessioning::Late { .. } => unreachable!("it has a signal"),
        }
    }

    fn keep(
        &mut self,
        aim: Aim,
        now: Now,
        at: Timestamp,
        item: u64,
        content: Content,
        is_late: bool,
    ) {
        let kept = Kept { number: now.number, at, arrival: now.time, item, content, reach: None };
        self.find_mut(aim.session).keep(kept, is_late);
    }

    /// Whether a signal that comes at `now` is one of the session's.
    pub(crate) fn hear(&self, aim: Aim, is_late: bool, now: Timestamp) -> Verdict {
        let Some(session) = self.find(aim.session) else { return Verdict::Over(Answer::NoSession) };
        let heard = Verdict::Heard { user: session.user };
        if !is_late {
            return match self.held(aim, now) {
                Ok(()) => heard,
                Err(ended @ Answer::HasEnded(_)) => Verdict::Over(ended),
                Err(refusal) => Verdict::Refused(refusal),
            };
        }
        match session.end_at(now) {
            None => Verdict::Refused(Answer::IsOpen),
            Some(_) if session.has_settled(now) => Verdict::Over(Answer::TooLate),
            Some(_) => heard,
        }
    }

    /// Whether the policy lets a signal through; then it is paid for.
    pub(crate) fn permit(&mut self, aim: Aim, said: &Said, now: Timestamp) -> Result<(), Answer> {
        let session = self.find(aim.session).expect("it was heard");
        let policy = session.policy();
        if policy
            .signals
            .is_some_and(|names| !names.contains(&SIGNALS[said.signal.signal].to_owned()))
        {
            return Err(Answer::Forbidden);
        }
        let Some(limit) = policy.rate_limit else { return Ok(()) };
        let key = (session.user, session.agent, session.policy);
        let each = limit.per / limit.signals;
        let paid = self.paid.get(&key).copied().unwrap_or(now).max(now).saturating_add(each);
        let latest = now.saturating_add(limit.per);
        if paid > latest {
            let wait_ns = paid.as_nanos() - latest.as_nanos();
            return Err(Answer::Limited { retry_after_ms: wait_ns.div_ceil(1_000_000) });
        }
        self.paid.insert(key, paid);
        Ok(())
    }

    /// A signal was counted: it is kept.
    pub(crate) fn keep_signal(
        &mut self,
        aim: Aim,
        said: &Said,
        is_late: bool,
        at: Timestamp,
        now: Now,
    ) {
        let content = Content::Signal {
            signal: said.signal.signal,
            weight: said.signal.weight(),
            span: said.span(),
            text: said.text.map(text),
            is_late,
        };
        self.keep(aim, now, at, said.signal.item, content, is_late);
    }

    /// Engine time is set back, from that of the last operation to another.
    pub(crate) fn set_back(&mut self, from: Timestamp, to: Timestamp) {
        for session in &mut self.sessions {
            if let Some(end) = session.end_at(from) {
                session.is_settled = session.has_settled(from);
                session.end = Some(end);
                continue;
            }
            session.started = session.started.min(to);
            session.last_activity = session.last_activity.min(to);
            session.extended = session.extended.min(to);
            // Which record reaches furthest stays as it was, though others reach as far now.
            let furthest = session.furthest().map(|(_, number)| number);
            for kept in &mut session.records {
                let reach = kept.reach.filter(|_| Some(kept.number) == furthest);
                kept.reach = reach.map(|reach| reach.min(to));
            }
        }
        self.paid.retain(|_, paid| *paid > from);
        for ((_, _, policy), paid) in &mut self.paid {
            let per = policies()[*policy].rate_limit.expect("only limits are paid").per;
            *paid = (*paid).min(to.saturating_add(per));
        }
    }

    /// Compares a database, opened at a time, with the list.
    pub(crate) fn check(&self, db: &TidalDb, (opened, now): (Timestamp, Timestamp), what: &str) {
        for session in &self.sessions {
            let id = SessionId::new(session.id);
            let info = db.sessions().get(id).expect("a row is read").expect("it is there");
            session.check(&info, (opened, now), what);
            let found = db.sessions().records(id).expect("records are read");
            let found: Vec<Kept> = found.iter().map(kept).collect();
            let expected: Vec<Kept> =
                session.records.iter().map(|kept| Kept { reach: None, ..kept.clone() }).collect();
            assert_eq!(found, expected, "the records of session {id}: {what}");
        }
        let never = SessionId::new(u64::MAX);
        assert_eq!(db.sessions().get(never).expect("looked up"), None, "{what}");
        for user in 0..USERS {
            let listed = db.sessions().list(&SessionFilter::new().user(u64::from(user)));
            let listed: Vec<u64> =
                listed.expect("listed").iter().map(|info| info.id.as_u64()).collect();
            let of_user = self.sessions.iter().filter(|session| session.user == user);
            let of_user: Vec<u64> = of_user.map(|session| session.id).collect();
            assert_eq!(listed, of_user, "the sessions of {user}: {what}");
        }
    }
}

/// A record that the engine tells.
fn kept(record: &SessionRecord) -> Kept {
    let content = match &record.content {
        SessionContent::Signal { signal, weight, span, annotation, late } => Content::Signal {
            signal: SIGNALS.iter().position(|name| name == signal).expect("declared"),
            weight: *weight,
            span: *span,
            text: annotation.clone(),
            is_late: *late,
        },
        SessionContent::Annotation(text) => Content::Note(text.clone()),
        other => panic!("no operation of a story writes {other:?}"),
    };
    let SessionRecord { number, at, arrived_at, entity, .. } = *record;
    Kept { number, at, arrival: arrived_at, item: EntityId::get(entity), content, reach: None }
}

impl Session {
    fn check(&self, info: &SessionInfo, (opened, now): (Timestamp, Timestamp), what: &str) {
        let what = format!("session {} at {now:?}: {what}", self.id);
        let end = self.end_at(now);
        let state = match (&info.state, &end) {
            (SessionState::Active, None) => self.holder.is_some(),
            (SessionState::Restored { since }, None) => self.holder.is_none() && *since == opened,
            (SessionState::Ended(found), Some(end)) => {
                crate::sessions::told(found) == *end && !self.has_settled(now)
            }
            (SessionState::Settled(found), Some(end)) => {
                crate::sessions::told(found) == *end && self.has_settled(now)
            }
            _ => false,
        };
        assert!(state, "{:?}, not {end:?}, {self:?}: {what}", info.state);
        let is_held = end.is_none() && self.holder.is_some();
        assert_eq!(info.fence.grant > 0, is_held, "who holds {:?}: {what}", info.fence);
        assert_eq!(info.deadline, end.is_none().then(|| self.deadline()), "{what}");
        let times = (info.started_at, info.last_activity_at);
        assert_eq!(times, (self.started, self.last_activity), "{what}");
        let names = (info.user.get(), info.agent.as_str(), info.policy.as_str());
        let policy = self.policy().name;
        assert_eq!(names, (self.user.into(), AGENTS[self.agent], policy.as_str()), "{what}");
        let count = |is: fn(&Content) -> bool| {
            self.records.iter().filter(|kept| is(&kept.content)).count() as u64
        };
        let signals = count(|of| matches!(of, Content::Signal { is_late: false, .. }));
        let late = count(|of| matches!(of, Content::Signal { is_late: true, .. }));
        let notes =
            count(|of| matches!(of, Content::Note(_) | Content::Signal { text: Some(_), .. }));
        let counts = (info.records, info.signals, info.late, info.annotations);
        assert_eq!(counts, (self.records.len() as u64, signals, late, notes), "{what}");
    }
}

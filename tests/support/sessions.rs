//! A plain model of sessions: one list, every rule written out, every end worked out anew each time
//! it is asked for.
//!
//! Knows: what sessions mean. Shares no code with the engine: times are nanoseconds since the epoch,
//! sessions and records are the numbers that they were given by whoever asks. A method that returns a
//! [`Refusal`] has changed nothing.

#![expect(missing_docs, reason = "the words are the engine's, where they are explained")]

use std::collections::BTreeSet;

/// The durations of a policy, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub idle: u64,
    pub max: u64,
    pub fallback: u64,
    /// How long after its end records are still taken.
    pub grace: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    User,
    UserAgent,
    Overlapping,
}

/// What a start does in a lane that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    EndPrevious,
    Reject,
    Join,
}

/// What becomes of open sessions when a database opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtOpen {
    RestoreThenExpire,
    EndAll,
    /// Their idle time begins anew.
    RestoreAll,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    Closed,
    Idle,
    Max,
    Superseded(u64),
    Orphan,
    Shutdown,
    Forced,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    Explicit,
    Record { record: u64 },
    Fallback { clamped: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ended {
    pub at: u64,
    pub cause: Cause,
    pub evidence: Evidence,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Signal,
    Annotation(String),
    Late,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub number: u64,
    pub kind: Kind,
    pub item: u64,
    pub at: u64,
    pub arrival: u64,
    /// How far it proves that the session went on, if it proves anything.
    reach: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub id: u64,
    pub user: u64,
    pub agent: u64,
    pub policy: usize,
    pub start: u64,
    pub last_activity: u64,
    pub records: Vec<Record>,
    extended: u64,
    keys: BTreeSet<u64>,
    /// Who may write: what was granted last, if this process granted it.
    holder: Option<u64>,
    /// An end that somebody decided, or that a record has put down.
    end: Option<Ended>,
    /// When somebody decided it.
    decided: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    NotFound,
    Ended(Ended),
    Fenced,
    LaneBusy(u64),
    Open,
    TooLate,
}

/// A session that was started, joined or resumed: its id, whether it had begun before, and its start.
pub type Started = (u64, bool, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal {
    pub item: u64,
    pub at: u64,
    pub span: u64,
    pub key: Option<u64>,
}

#[derive(Debug, Clone)]
pub struct Model {
    lane: Lane,
    policies: Vec<Policy>,
    sessions: Vec<Session>,
    /// Engine time. Whoever asks sets it.
    pub now: u64,
}

impl Model {
    pub fn new(lane: Lane, policies: &[Policy], now: u64) -> Self {
        Self { lane, policies: policies.to_vec(), sessions: Vec::new(), now }
    }

    pub fn sessions(&self) -> &[Session] {
        &self.sessions
    }

    pub fn find(&self, id: u64) -> Option<&Session> {
        self.sessions.iter().find(|session| session.id == id)
    }

    fn find_mut(&mut self, id: u64) -> Result<&mut Session, Refusal> {
        self.sessions.iter_mut().find(|session| session.id == id).ok_or(Refusal::NotFound)
    }

    fn policy(&self, session: &Session) -> Policy {
        self.policies[session.policy]
    }

    /// The last moment at which it is not timed out.
    pub fn deadline(&self, session: &Session) -> u64 {
        let policy = self.policy(session);
        let wanted = (session.last_activity + policy.idle).max(session.extended);
        wanted.min(session.start + policy.max)
    }

    /// How a session ends that nobody closes: where its evidence ends, or some time after its start
    /// when it has none; never after `upper`.
    fn infer(&self, session: &Session, upper: u64) -> (u64, Evidence) {
        let policy = self.policy(session);
        let upper = upper.min(session.start + policy.max);
        let mut best: Option<(u64, u64)> = None;
        for record in &session.records {
            let Some(reach) = record.reach else { continue };
            if best.is_none_or(|(most, _)| reach > most) {
                best = Some((reach, record.number));
            }
        }
        match best {
            Some((reach, record)) => {
                assert!(reach <= upper, "what a record reaches is known when it arrives");
                (reach, Evidence::Record { record })
            }
            None => {
                let at = session.start + policy.fallback;
                (at.min(upper), Evidence::Fallback { clamped: at > upper })
            }
        }
    }

    /// The end of a session as of now, if it has one.
    pub fn end_of(&self, session: &Session) -> Option<Ended> {
        if session.end.is_some() {
            return session.end;
        }
        let deadline = self.deadline(session);
        if self.now <= deadline {
            return None;
        }
        let is_max = deadline == session.start + self.policy(session).max;
        let (at, evidence) = self.infer(session, u64::MAX);
        Some(Ended { at, cause: if is_max { Cause::Max } else { Cause::Idle }, evidence })
    }

    pub fn open(&self) -> impl Iterator<Item = &Session> {
        self.sessions.iter().filter(|session| self.end_of(session).is_none())
    }

    /// Time-outs that were noticed are put down: they are not decided again.
    pub fn sweep(&mut self) {
        for i in 0..self.sessions.len() {
            let end = self.end_of(&self.sessions[i]);
            self.sessions[i].end = end;
        }
    }

    fn end_inferred(&mut self, id: u64, cause: Cause) -> Ended {
        let session = self.find(id).expect("it is asked for by who has found it");
        let (at, evidence) = self.infer(session, self.now);
        let (end, now) = (Ended { at, cause, evidence }, self.now);
        let session = self.find_mut(id).expect("as above");
        (session.end, session.decided) = (Some(end), Some(now));
        end
    }

    fn grant(&mut self, id: u64, grant: u64, joined: bool) -> Started {
        let session = self.find_mut(id).expect("it was found or made");
        session.holder = Some(grant);
        (id, joined, session.start)
    }

    pub fn start(
        &mut self,
        (id, grant): (u64, u64),
        (user, agent): (u64, u64),
        policy: usize,
        conflict: Conflict,
    ) -> Result<Started, Refusal> {
        let is_same =
            |s: &&Session| s.user == user && (s.agent == agent || self.lane == Lane::User);
        let current = self.open().filter(is_same).last().map(|session| session.id);
        let excluded = current.filter(|_| self.lane != Lane::Overlapping);
        if let (Some(current), Conflict::Join) = (current, conflict) {
            return Ok(self.grant(current, grant, true));
        }
        if let (Some(other), Conflict::Reject) = (excluded, conflict) {
            return Err(Refusal::LaneBusy(other));
        }
        if let Some(other) = excluded {
            self.end_inferred(other, Cause::Superseded(id));
        }
        self.sessions.push(Session {
            id,
            user,
            agent,
            policy,
            start: self.now,
            last_activity: self.now,
            records: Vec::new(),
            extended: 0,
            keys: BTreeSet::new(),
            holder: None,
            end: None,
            decided: None,
        });
        Ok(self.grant(id, grant, false))
    }

    /// Whether it is open; that it is not is put down.
    fn admit(&mut self, id: u64) -> Result<(), Refusal> {
        let end = self.end_of(self.find(id).ok_or(Refusal::NotFound)?);
        self.find_mut(id)?.end = end;
        end.map_or(Ok(()), |end| Err(Refusal::Ended(end)))
    }

    pub fn resume(&mut self, id: u64, grant: u64) -> Result<Started, Refusal> {
        self.admit(id)?;
        Ok(self.grant(id, grant, true))
    }

    fn check(&mut self, id: u64, grant: u64) -> Result<(), Refusal> {
        self.admit(id)?;
        if self.may_write(id, grant) { Ok(()) } else { Err(Refusal::Fenced) }
    }

    /// Whether this grant may write to it now.
    pub fn may_write(&self, id: u64, grant: u64) -> bool {
        let is_holder = |s: &Session| s.holder == Some(grant) && self.end_of(s).is_none();
        self.find(id).is_some_and(is_holder)
    }

    pub fn signal(&mut self, number: u64, by: (u64, u64), what: Signal) -> Result<bool, Refusal> {
        self.check(by.0, by.1)?;
        Ok(self.add(number, by.0, what, Kind::Signal))
    }

    pub fn annotate(
        &mut self,
        number: u64,
        by: (u64, u64),
        item: u64,
        text: &str,
    ) -> Result<(), Refusal> {
        self.check(by.0, by.1)?;
        let what = Signal { item, at: self.now, span: 0, key: None };
        self.add(number, by.0, what, Kind::Annotation(text.to_owned()));
        Ok(())
    }

    fn add(&mut self, number: u64, id: u64, what: Signal, kind: Kind) -> bool {
        let now = self.now;
        let max = self.policy(self.find(id).expect("it was checked")).max;
        let session = self.find_mut(id).expect("it was checked");
        if what.key.is_some_and(|key| !session.keys.insert(key)) {
            return false;
        }
        let counts = kind != Kind::Late && (session.start..session.start + max).contains(&what.at);
        let reach = counts.then_some((what.at + what.span).min(now));
        if kind != Kind::Late {
            session.last_activity = now;
        }
        let Signal { item, at, .. } = what;
        session.records.push(Record { number, kind, item, at, arrival: now, reach });
        true
    }

    /// A sign of life, or a wish to live so much longer; the deadline that follows.
    pub fn touch(&mut self, by: (u64, u64), extend: Option<u64>) -> Result<u64, Refusal> {
        self.check(by.0, by.1)?;
        let now = self.now;
        let session = self.find_mut(by.0)?;
        session.last_activity = now;
        session.extended = session.extended.max(extend.map_or(0, |by| now + by));
        Ok(self.deadline(self.find(by.0).expect("as above")))
    }

    pub fn close(&mut self, by: (u64, u64)) -> Result<Ended, Refusal> {
        self.check(by.0, by.1)?;
        let session = self.find(by.0).expect("it was checked");
        let at = self.now.min(session.start + self.policy(session).max);
        let end = Ended { at, cause: Cause::Closed, evidence: Evidence::Explicit };
        let now = self.now;
        let session = self.find_mut(by.0)?;
        (session.end, session.decided) = (Some(end), Some(now));
        Ok(end)
    }

    pub fn force(&mut self, id: u64) -> Result<Ended, Refusal> {
        self.admit(id)?;
        Ok(self.end_inferred(id, Cause::Forced))
    }

    /// All that are open end, as the database does.
    pub fn shut_down(&mut self) {
        self.end_all(Cause::Shutdown);
    }

    fn end_all(&mut self, cause: Cause) {
        self.sweep();
        let open: Vec<u64> = self.open().map(|session| session.id).collect();
        for id in open {
            self.end_inferred(id, cause);
        }
    }

    /// A record of a session that has ended; false for one that was there.
    pub fn late(&mut self, number: u64, id: u64, what: Signal) -> Result<bool, Refusal> {
        let session = self.find(id).ok_or(Refusal::NotFound)?;
        let end = self.end_of(session).ok_or(Refusal::Open)?;
        let over = session.decided.unwrap_or_else(|| self.deadline(session));
        let settles = over + self.policy(session).grace;
        self.find_mut(id)?.end = Some(end);
        if self.now >= settles {
            return Err(Refusal::TooLate);
        }
        Ok(self.add(number, id, what, Kind::Late))
    }

    /// The process that held the grants is gone, and another opens. What was over when the log ended
    /// has ended.
    pub fn reopen(&mut self, policy: AtOpen, last: u64) {
        let now = std::mem::replace(&mut self.now, last);
        self.sweep();
        self.now = now;
        for session in &mut self.sessions {
            session.holder = None;
        }
        match policy {
            AtOpen::RestoreThenExpire => self.sweep(),
            AtOpen::EndAll => self.end_all(Cause::Orphan),
            AtOpen::RestoreAll => {
                let (now, policies) = (self.now, self.policies.clone());
                for session in self.sessions.iter_mut().filter(|session| session.end.is_none()) {
                    if now <= session.start + policies[session.policy].max {
                        session.last_activity = now;
                    }
                }
                self.sweep();
            }
        }
    }
}

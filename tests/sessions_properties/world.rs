//! A database and the plain model of it, step by step side by side.
//!
//! Knows: both. Must not know: scripts of one property.

use tidal_support::sessions::{AtOpen, Conflict, Ended, Kind, Lane, Model, Session, Signal};
use tidal_support::sim::Survives;
use tidaldb::schema::{EntityId, Window};
use tidaldb::{SessionId, SessionInfo};

use crate::actor::{Actor, Did, Done, POLICIES, Refused, START, Scene, agent_name, end_of, ended};
use crate::script::{Said, Step};

/// What is compared of a session.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    id: u64,
    user: u64,
    agent: String,
    policy: String,
    start: u64,
    last_activity: u64,
    deadline: Option<u64>,
    end: Option<Ended>,
    /// Signals, annotations, late signals, and all of them.
    counts: [u64; 4],
}

impl Seen {
    fn of(info: &SessionInfo) -> Self {
        let end = end_of(info).map(ended);
        Self {
            id: info.id.as_u64(),
            user: info.user.get(),
            agent: info.agent.clone(),
            policy: info.policy.clone(),
            start: info.started_at.as_nanos(),
            last_activity: info.last_activity_at.as_nanos(),
            deadline: info.deadline.filter(|_| end.is_none()).map(|at| at.as_nanos()),
            end,
            counts: [info.signals, info.annotations, info.late, info.records],
        }
    }

    fn expected(model: &Model, session: &Session) -> Self {
        let end = model.end_of(session);
        let count = |is: fn(&Kind) -> bool| {
            session.records.iter().filter(|record| is(&record.kind)).count() as u64
        };
        Self {
            id: session.id,
            user: session.user,
            agent: agent_name(session.agent),
            policy: POLICIES[session.policy].0.to_owned(),
            start: session.start,
            last_activity: session.last_activity,
            deadline: end.is_none().then(|| model.deadline(session)),
            end,
            counts: [
                count(|kind| *kind == Kind::Signal),
                count(|kind| matches!(kind, Kind::Annotation(_))),
                count(|kind| *kind == Kind::Late),
                session.records.len() as u64,
            ],
        }
    }
}

/// Both.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) actor: Actor,
    pub(crate) model: Model,
    /// The model after each number of operations, and engine time.
    history: Vec<(u64, Model, u64)>,
    /// Operations that are safe from a power cut.
    synced: u64,
}

impl World {
    pub(crate) fn new(scene: Scene) -> Self {
        let model = Model::new(scene.lane, &POLICIES.map(|(_, policy)| policy), START.as_nanos());
        let actor = Actor::new(scene);
        let history = vec![(actor.operations(), model.clone(), START.as_nanos())];
        let synced = actor.operations();
        Self { actor, model, history, synced }
    }

    /// Lives a script, and looks at everything after each step.
    pub(crate) fn live(scene: Scene, script: &[Step], mut look: impl FnMut(&mut Self)) -> Self {
        let mut world = Self::new(scene);
        for step in script {
            world.step(step);
            world.check();
            look(&mut world);
        }
        world.check_contents();
        world
    }

    fn conflict(&self, joins: bool) -> Conflict {
        match (joins, self.actor.scene.rejects) {
            (true, _) => Conflict::Join,
            (false, true) => Conflict::Reject,
            (false, false) => Conflict::EndPrevious,
        }
    }

    /// A step of both.
    pub(crate) fn step(&mut self, step: &Step) {
        let now = self.actor.now();
        let heard = match step {
            Step::Signal { said, .. } | Step::Late { said, .. } => Some(self.actor.resolve(said).0),
            _ => None,
        };
        let did = self.actor.step(step);
        self.model.now = now;
        if let Some(did) = did {
            let at = heard.map_or(0, |at| at.as_nanos());
            let expected = self.mirror(step, at, &did);
            assert_eq!(did.answer, expected, "{step:?} at {now}: {did:?}");
        }
        match step {
            Step::Sweep => self.model.sweep(),
            Step::Crash(crash) => self.reopened(crash.survives, crash.at_open, None),
            // The last thing in the log is that it was closed.
            Step::Reopen(at_open) => {
                if self.actor.scene.ends_at_close {
                    self.close();
                }
                self.reopened(Survives::Everything, *at_open, Some(now));
            }
            _ => {}
        }
        self.remember(step);
    }

    fn remember(&mut self, step: &Step) {
        let operations = self.actor.operations();
        let engine_time = self.actor.db().engine_time().as_nanos();
        self.history.push((operations, self.model.clone(), engine_time));
        let is_synced = !matches!(
            step,
            Step::Signal { .. }
                | Step::Annotate { .. }
                | Step::Heartbeat { .. }
                | Step::Pass(_)
                | Step::UntilDeadline { .. }
                | Step::SetBack(_)
        );
        if is_synced || self.actor.scene.durability == tidaldb::Durability::Sync {
            self.synced = operations;
        }
    }

    /// Closing ends what is open, as one more operation.
    fn close(&mut self) {
        self.model.shut_down();
        let (operations, ..) = self.history.last().expect("the beginning is always there");
        if *operations < self.actor.operations() {
            self.history.push((operations + 1, self.model.clone(), self.model.now));
        }
    }

    /// The answer that the model gives.
    fn mirror(&mut self, step: &Step, at: u64, did: &Did) -> Result<Done, Refused> {
        if did.is_outlived {
            return Err(Refused::Closed);
        }
        let (by, number) = (did.target.unwrap_or_default(), did.number);
        let given = match &did.answer {
            Ok(Done::Started { grant, .. }) => *grant,
            _ => 0,
        };
        let said = |said: &Said| Signal { item: said.item, at, span: said.span, key: said.key };
        let started = |(id, joined, start)| Done::Started { id, grant: given, joined, start };
        let conflict = match step {
            Step::Start { joins, .. } => self.conflict(*joins),
            _ => Conflict::Join,
        };
        let model = &mut self.model;
        let answer = match step {
            Step::Start { user, agent, policy, .. } => {
                model.start((number, given), (*user, *agent), *policy, conflict).map(started)
            }
            Step::Resume { .. } => model.resume(by.0, given).map(started),
            Step::Signal { said: what, .. } => {
                model.signal(number, by, said(what)).map(|is_new| Done::Applied { is_new })
            }
            Step::Annotate { item, .. } => model
                .annotate(number, by, *item, &did.text)
                .map(|()| Done::Applied { is_new: true }),
            Step::Heartbeat { .. } => model.touch(by, None).map(Done::Deadline),
            Step::Extend { by: longer, .. } => model.touch(by, Some(*longer)).map(Done::Deadline),
            Step::Close { .. } => model.close(by).map(Done::Ended),
            Step::Force { .. } => model.force(by.0).map(Done::Ended),
            Step::Late { said: what, .. } => {
                model.late(number, by.0, said(what)).map(|is_new| Done::Applied { is_new })
            }
            other => panic!("{other:?} is not about a session"),
        };
        answer.map_err(Refused::As)
    }

    /// The database was opened, after it was closed or not: the model becomes that of the operations that are there.
    fn reopened(&mut self, survives: Survives, at_open: AtOpen, closed: Option<u64>) {
        let there = self.actor.operations();
        let most = self.history.last().map_or(0, |(operations, ..)| *operations);
        let least = if survives == Survives::Everything { most } else { self.synced };
        assert!((least..=most).contains(&there), "{there} operations of {least} to {most}");
        self.history.retain(|(operations, ..)| *operations <= there);
        let (_, model, last) = self.history.last().expect("the beginning is always there");
        let last = closed.unwrap_or(*last);
        self.model = model.clone();
        self.actor.forget_lost();
        self.synced = there;
        self.model.now = self.actor.now();
        self.model.reopen(at_open, last);
    }

    /// The database says of every session what the model says.
    pub(crate) fn check(&mut self) {
        self.model.now = self.actor.now();
        let (infos, sessions) = (self.actor.infos(), self.model.sessions());
        assert_eq!(infos.len(), sessions.len());
        for (info, session) in infos.iter().zip(sessions) {
            let (seen, expected) = (Seen::of(info), Seen::expected(&self.model, session));
            assert_eq!(seen, expected, "it is {}", self.model.now);
        }
    }

    /// Every record can be read, every signal was counted, and the database verifies.
    pub(crate) fn check_contents(&self) {
        let mut views = [0u64; 8];
        for session in self.model.sessions() {
            let id = SessionId::new(session.id);
            let records = self.actor.db().sessions().records(id).expect("read");
            assert_eq!(records.len(), session.records.len(), "of session {id}");
            for (found, record) in records.iter().zip(&session.records) {
                assert_eq!(found.number, record.number);
                assert_eq!(found.at.as_nanos(), record.at);
                assert_eq!(found.arrived_at.as_nanos(), record.arrival);
                let is_signal = !matches!(record.kind, Kind::Annotation(_));
                views[record.item as usize] += u64::from(is_signal);
            }
        }
        for (item, views) in views.iter().enumerate() {
            let item = EntityId::new(item as u64);
            let count = self.actor.db().read_windowed_count(item, "view", Window::AllTime);
            assert_eq!(count.expect("read"), *views, "views of {item} in all sessions");
        }
        let report = self.actor.db().verify().expect("verified");
        assert!(report.is_sound(), "{report}");
    }

    /// Whether two sessions exclude each other.
    pub(crate) fn excludes(lane: Lane, one: &SessionInfo, other: &SessionInfo) -> bool {
        match lane {
            Lane::User => one.user == other.user,
            Lane::UserAgent => one.user == other.user && one.agent == other.agent,
            Lane::Overlapping => false,
        }
    }
}

//! Someone who lives scripts on a database: the only place of this suite that writes sessions.
//!
//! Knows: the public interface, and how its answers are called in the plain model. Must not know: what
//! must hold.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidal_support::sessions::{AtOpen, Cause, Ended, Evidence, Lane, Policy, Refusal};
use tidal_support::sim::{SimDisk, SimStores, Survives};
use tidaldb::fault::Faults;
use tidaldb::schema::{
    DecaySpec, EntityId, EntityKind, Predicate, Schema, SchemaBuilder, SessionPolicy, Timestamp,
    Window,
};
use tidaldb::storage::Machine;
use tidaldb::{
    Clock, ClosePolicy, Durability, End, EndCause, EndEvidence, Error, ManualClock, OnConflict,
    OpenPolicy, Options, Runtime, SessionConfig, SessionHandle, SessionId, SessionInfo,
    SessionSignal, TidalDb,
};

use crate::script::{Crash, HOUR, MINUTE, SECOND, Said, Step};

/// Where the database lies.
pub(crate) const PLACE: &str = "/db";
/// When everything begins.
pub(crate) const START: Timestamp = Timestamp::from_secs(1_700_000_000);

/// The policies of the schema.
pub(crate) const POLICIES: [(&str, Policy); crate::script::POLICIES] = [
    ("default", Policy { idle: 30 * MINUTE, max: 2 * HOUR, fallback: MINUTE, grace: 0 }),
    ("brief", Policy { idle: SECOND, max: 3 * SECOND, fallback: SECOND / 2, grace: 5 * SECOND }),
    ("patient", Policy { idle: 10 * MINUTE, max: HOUR, fallback: MINUTE, grace: 2 * HOUR }),
    ("level", Policy { idle: 20 * MINUTE, max: 20 * MINUTE, fallback: 20 * MINUTE, grace: MINUTE }),
];

/// What a database is opened with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene {
    pub(crate) lane: Lane,
    /// Starts in a lane that is taken are refused.
    pub(crate) rejects: bool,
    /// Sessions that are open when the database is closed end with it.
    pub(crate) ends_at_close: bool,
    pub(crate) durability: Durability,
}

impl Default for Scene {
    fn default() -> Self {
        Self {
            lane: Lane::UserAgent,
            rejects: false,
            ends_at_close: false,
            durability: Durability::Sync,
        }
    }
}

/// Acknowledged when the operating system has it, synced when somebody asks.
pub(crate) const OS: Durability = Durability::Os { sync_every: Duration::from_secs(86_400) };

impl Scene {
    pub(crate) fn schema(self) -> Schema {
        let mut b = SchemaBuilder::new();
        let half_life = Duration::from_secs(86_400);
        let _ = b
            .signal("view", EntityKind::Item, DecaySpec::Exponential { half_life })
            .windows(&[Window::AllTime])
            .velocity(false)
            .engaging()
            .add();
        b.cohort("adults", Predicate::range("age", 18.0..200.0));
        for (name, policy) in POLICIES {
            let mut declared = SessionPolicy::new(name);
            declared.idle_timeout = Duration::from_nanos(policy.idle);
            declared.max_duration = Duration::from_nanos(policy.max);
            declared.empty_fallback = Duration::from_nanos(policy.fallback);
            declared.late_grace = Duration::from_nanos(policy.grace);
            b.session_policy(declared);
        }
        b.session_lane(match self.lane {
            Lane::User => tidaldb::schema::Lane::User,
            Lane::UserAgent => tidaldb::schema::Lane::UserAgent,
            Lane::Overlapping => tidaldb::schema::Lane::Overlapping,
        });
        b.build().expect("a sound schema")
    }

    /// Opens the database of a disk; nothing is written that was not asked for.
    pub(crate) fn try_open(
        self,
        disk: &SimDisk,
        clock: &ManualClock,
        at_open: AtOpen,
    ) -> tidaldb::Result<TidalDb> {
        let mut options = Options::default();
        let never = Duration::from_secs(365 * 86_400);
        (options.mark_after, options.checkpoint_interval) = (never, never);
        options.checkpoint_bytes_per_s = 0;
        options.durability = self.durability;
        let mut sessions = SessionConfig::default();
        sessions.runtime = Runtime::Manual;
        sessions.on_open = match at_open {
            AtOpen::RestoreThenExpire => OpenPolicy::RestoreThenExpire,
            AtOpen::EndAll => OpenPolicy::EndAll,
            AtOpen::RestoreAll => OpenPolicy::RestoreAll,
        };
        sessions.on_conflict =
            if self.rejects { OnConflict::Reject } else { OnConflict::EndPrevious };
        if self.ends_at_close {
            sessions.on_close = ClosePolicy::EndAll;
        }
        let stores = Arc::new(SimStores::on(disk.clone()));
        let machine = Machine { disk: disk.shared(), stores, faults: Faults::NONE };
        TidalDb::builder()
            .with_data_dir(PLACE)
            .with_schema(self.schema())
            .with_options(options)
            .with_sessions(sessions)
            .with_clock(Arc::new(clock.clone()))
            .with_machine(machine)
            .open()
    }

    /// As [`try_open`](Self::try_open), where it must open.
    pub(crate) fn open(self, disk: &SimDisk, clock: &ManualClock, at_open: AtOpen) -> TidalDb {
        self.try_open(disk, clock, at_open).expect("the database opens")
    }
}

/// A handle, and the session that it is for.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) handle: SessionHandle,
    pub(crate) id: u64,
    /// The grant that it writes under.
    pub(crate) grant: u64,
    /// Which of the opens of the database it is from.
    pub(crate) opened: u32,
}

/// What an accepted step leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Done {
    Started { id: u64, grant: u64, joined: bool, start: u64 },
    Applied { is_new: bool },
    Deadline(u64),
    Ended(Ended),
}

/// What a step was about, once its numbers were looked up, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Did {
    /// The session and grant that wrote, or the session that was named.
    pub(crate) target: Option<(u64, u64)>,
    /// Whether the handle is of an earlier open.
    pub(crate) is_outlived: bool,
    /// What was said of it.
    pub(crate) answer: Result<Done, Refused>,
    /// The number of operations after it.
    pub(crate) number: u64,
    /// What an annotation said.
    pub(crate) text: String,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    As(Refusal),
    /// The database that the handle is of is closed.
    Closed,
}

/// A database on a simulated machine, its clock, and the handles that are held.
#[derive(Debug)]
pub(crate) struct Actor {
    pub(crate) scene: Scene,
    pub(crate) disk: SimDisk,
    pub(crate) clock: ManualClock,
    pub(crate) held: Vec<Held>,
    /// Every session that was ever started, in order.
    pub(crate) ids: Vec<u64>,
    db: Option<TidalDb>,
    opened: u32,
    notes: u64,
}

impl Actor {
    pub(crate) fn new(scene: Scene) -> Self {
        let disk = SimDisk::new();
        disk.make_dirs(Path::new("/"));
        let clock = ManualClock::at(START);
        let db = Some(scene.open(&disk, &clock, AtOpen::RestoreThenExpire));
        let (held, ids) = (Vec::new(), Vec::new());
        Self { scene, disk, clock, held, ids, db, opened: 0, notes: 0 }
    }

    pub(crate) const fn db(&self) -> &TidalDb {
        self.db.as_ref().expect("one is open between steps")
    }

    /// Engine time as it would be stamped now.
    pub(crate) fn now(&self) -> u64 {
        self.db().engine_time().max(self.clock.now()).as_nanos()
    }

    pub(crate) fn operations(&self) -> u64 {
        self.db().status().operations
    }

    pub(crate) fn pass(&self, by: u64) {
        self.clock.advance(Duration::from_nanos(by));
    }

    /// Everything that is known of all sessions.
    pub(crate) fn infos(&self) -> Vec<SessionInfo> {
        self.ids.iter().map(|&id| self.info(id)).collect()
    }

    pub(crate) fn info(&self, id: u64) -> SessionInfo {
        let found = self.db().sessions().get(SessionId::new(id)).expect("read");
        found.expect("a session that was started")
    }

    /// Does a step. `None` for one that is not about a session.
    pub(crate) fn step(&mut self, step: &Step) -> Option<Did> {
        match step {
            Step::Pass(by) => self.pass(*by),
            Step::UntilDeadline { session, beyond } => {
                let open: Vec<u64> = self.infos().iter().filter_map(deadline_of).collect();
                let now = self.clock.now().as_nanos();
                if let Some(nth) = session.checked_rem(open.len())
                    && let Some(left) = open[nth].checked_sub(now)
                {
                    self.pass(left + beyond);
                }
            }
            Step::SetBack(by) => {
                self.clock.set(self.clock.now().saturating_sub(Duration::from_nanos(*by)));
            }
            Step::Sweep => drop(self.db().sessions().sweep().expect("swept")),
            Step::Checkpoint => drop(self.db().checkpoint().expect("a checkpoint")),
            Step::Crash(crash) => self.crash(*crash),
            Step::Reopen(at_open) => {
                self.db.take().expect("one is open").close().expect("closed");
                self.open(*at_open);
            }
            Step::Start { user, agent, policy, joins } => {
                return Some(self.start(*user, *agent, *policy, *joins));
            }
            Step::Resume { session } => {
                let id = self.nth_id(*session)?;
                let resumed = self.db().resume_session(SessionId::new(id));
                return Some(self.hold(Some((id, 0)), resumed, true));
            }
            Step::Force { session } => {
                let id = self.nth_id(*session)?;
                let answer = self.db().sessions().end(SessionId::new(id), "by hand");
                return Some(self.did((id, 0), false, answer.map(|end| Done::Ended(ended(&end)))));
            }
            Step::Late { session, said } => {
                let id = self.nth_id(*session)?;
                let (at, key) = self.resolve(said);
                let signal = signal(said, at, &key);
                let ack = self.db().sessions().append_late(SessionId::new(id), signal);
                return Some(self.did((id, 0), false, ack.map(applied)));
            }
            Step::Signal { handle, .. }
            | Step::Annotate { handle, .. }
            | Step::Heartbeat { handle }
            | Step::Extend { handle, .. }
            | Step::Close { handle } => {
                let nth = handle.checked_rem(self.held.len())?;
                return Some(self.write(nth, step));
            }
        }
        None
    }

    fn nth_id(&self, session: usize) -> Option<u64> {
        session.checked_rem(self.ids.len()).map(|nth| self.ids[nth])
    }

    /// When a signal happened, and the bytes of its key.
    pub(crate) fn resolve(&self, said: &Said) -> (Timestamp, [u8; 8]) {
        let at = self.now().saturating_add_signed(said.ahead);
        (Timestamp::from_nanos(at), said.key.unwrap_or_default().to_le_bytes())
    }

    /// A write through one of the handles.
    pub(crate) fn write(&mut self, nth: usize, step: &Step) -> Did {
        let held = &self.held[nth];
        let (target, is_outlived) = ((held.id, held.grant), held.opened != self.opened);
        let handle = &held.handle;
        let answer = match step {
            Step::Signal { said, .. } => {
                let (at, key) = self.resolve(said);
                handle.signal_with(signal(said, at, &key)).map(applied)
            }
            Step::Annotate { item, .. } => {
                self.notes += 1;
                let text = format!("note {}", self.notes);
                handle.annotate(EntityId::new(*item), &text).map(applied)
            }
            Step::Heartbeat { .. } => handle.heartbeat().map(deadline),
            Step::Extend { by, .. } => handle.extend(Duration::from_nanos(*by)).map(deadline),
            Step::Close { .. } => {
                let Held { handle, id, grant, opened } = self.held.remove(nth);
                match handle.close() {
                    Ok(end) => Ok(Done::Ended(ended(&end))),
                    Err(refused) => {
                        let handle = refused.handle;
                        self.held.insert(nth, Held { handle, id, grant, opened });
                        Err(refused.error)
                    }
                }
            }
            other => panic!("{other:?} is not written through a handle"),
        };
        let mut did = self.did(target, is_outlived, answer);
        did.text = format!("note {}", self.notes);
        did
    }

    pub(crate) fn start(&mut self, user: u64, agent: u64, policy: usize, joins: bool) -> Did {
        let (agent, policy) = (agent_name(agent), POLICIES[policy].0);
        let started = if joins {
            self.db().current_or_start(user, &agent, policy)
        } else {
            self.db().start_session(user, &agent, policy)
        };
        self.hold(None, started, joins)
    }

    fn hold(
        &mut self,
        target: Option<(u64, u64)>,
        handle: tidaldb::Result<SessionHandle>,
        may_join: bool,
    ) -> Did {
        let answer = handle.map(|handle| {
            let (id, grant) = (handle.session_id().as_u64(), handle.fence().grant);
            let joined = may_join && self.ids.contains(&id);
            if !joined {
                self.ids.push(id);
            }
            let start = handle.started_at().as_nanos();
            if self.held.len() == HELD_MAX {
                self.held.remove(0);
            }
            self.held.push(Held { handle, id, grant, opened: self.opened });
            Done::Started { id, grant, joined, start }
        });
        let mut did = self.did(target.unwrap_or_default(), false, answer);
        did.target = target;
        did
    }

    fn did(&self, target: (u64, u64), is_outlived: bool, answer: tidaldb::Result<Done>) -> Did {
        let answer = answer.map_err(|error| refused(&error));
        let (number, text) = (self.operations(), String::new());
        Did { target: Some(target), is_outlived, answer, number, text }
    }

    /// The process dies, or the power goes, and a while later the database is opened.
    pub(crate) fn crash(&mut self, crash: Crash) {
        self.die(crash.survives);
        self.pass(crash.down);
        self.open(crash.at_open);
    }

    /// Only the first half of a crash.
    pub(crate) fn die(&mut self, survives: Survives) {
        self.disk.stop();
        drop(self.db.take());
        self.disk = self.disk.reboot(survives);
    }

    /// And the other half.
    pub(crate) fn open(&mut self, at_open: AtOpen) {
        self.opened += 1;
        self.db = Some(self.scene.open(&self.disk, &self.clock, at_open));
    }

    /// Sessions that a power cut has taken never were.
    pub(crate) fn forget_lost(&mut self) {
        let operations = self.operations();
        self.ids.retain(|&id| id <= operations);
    }

    /// Takes over every session of which a handle of an earlier open is held that could write: the
    /// handle is replaced.
    pub(crate) fn resume_held(&mut self) {
        let opened = self.opened;
        for nth in 0..self.held.len() {
            let (id, grant) = (self.held[nth].id, self.held[nth].grant);
            let is_last = self.held.iter().all(|other| other.id != id || other.grant <= grant);
            if self.held[nth].opened == opened || !is_last {
                continue;
            }
            if let Ok(handle) = self.db().resume_session(SessionId::new(id)) {
                let grant = handle.fence().grant;
                self.held[nth] = Held { handle, id, grant, opened };
            }
        }
    }
}

/// Handles that are held at once.
const HELD_MAX: usize = 10;

pub(crate) fn agent_name(agent: u64) -> String {
    format!("agent {agent}")
}

fn signal<'a>(said: &Said, at: Timestamp, key: &'a [u8; 8]) -> SessionSignal<'a> {
    let signal = SessionSignal::new("view", EntityId::new(said.item), at);
    let signal = signal.span(Duration::from_nanos(said.span));
    if said.key.is_some() { signal.retry_key(key) } else { signal }
}

fn applied(ack: tidaldb::Ack) -> Done {
    Done::Applied { is_new: ack.duplicates == 0 }
}

fn deadline(at: Timestamp) -> Done {
    Done::Deadline(at.as_nanos())
}

fn refused(error: &Error) -> Refused {
    Refused::As(match error {
        Error::SessionNotFound(_) => Refusal::NotFound,
        Error::SessionEnded { end, .. } => Refusal::Ended(ended(end)),
        Error::Fenced { .. } => Refusal::Fenced,
        Error::LaneBusy { by } => Refusal::LaneBusy(by.as_u64()),
        Error::SessionOpen(_) => Refusal::Open,
        Error::TooLate { .. } => Refusal::TooLate,
        Error::Closed | Error::Stopped { .. } => return Refused::Closed,
        other => panic!("an unexpected refusal: {other}"),
    })
}

/// An end in the words of the plain model.
pub(crate) fn ended(end: &End) -> Ended {
    let cause = match &end.cause {
        EndCause::Closed => Cause::Closed,
        EndCause::IdleTimeout => Cause::Idle,
        EndCause::MaxDuration => Cause::Max,
        EndCause::Superseded { by } => Cause::Superseded(by.as_u64()),
        EndCause::OrphanRecovered => Cause::Orphan,
        EndCause::Shutdown => Cause::Shutdown,
        EndCause::Forced { reason } => {
            assert_eq!(reason, "by hand");
            Cause::Forced
        }
        other => panic!("a cause that nothing here leads to: {other:?}"),
    };
    let evidence = match end.evidence {
        EndEvidence::Explicit => Evidence::Explicit,
        EndEvidence::Record { record } => Evidence::Record { record },
        EndEvidence::Fallback { clamped } => Evidence::Fallback { clamped },
        other => panic!("evidence of an unknown kind: {other:?}"),
    };
    Ended { at: end.at.as_nanos(), cause, evidence }
}

/// The end of a session that has one.
pub(crate) fn end_of(info: &SessionInfo) -> Option<&End> {
    info.state.end()
}

fn deadline_of(info: &SessionInfo) -> Option<u64> {
    end_of(info).map_or_else(|| info.deadline.map(|at| at.as_nanos()), |_| None)
}

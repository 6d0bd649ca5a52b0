//! What processors do to sessions and to the ledger, through the log alone.

use std::time::Duration;

use crate::codec::Hash;
use crate::error::Error;
use crate::ids::{
    AttemptId, EntityId, Fence, ProcessorId, SessionId, SignalTypeId, Timestamp, UserId,
};
use crate::options::OpenPolicy;
use crate::processors::{Due, Outcome as Made};
use crate::record::{
    BeginAttempt, BeginAttempts, CommitAttempt, CommitAttempts, Conflict, EndSession, EndedBy,
    FailAttempt, FailAttempts, FailSession, FailedBy, Opened, Record, RecordKind,
    RegisterProcessor, ReprocessSessions, SessionSignal, SignalBatchWriter, SignalEvent,
    StartSession, WarnSession,
};
use crate::schema::{DecaySpec, EntityKind, SchemaBuilder, SessionPolicy};
use crate::seq::Seq;
use crate::sessions::{FailCause, SessionEvent, Standing};
use crate::state::laws::restored;
use crate::state::{Applier, Frame, Outcome, Reply, State};

const USER: UserId = UserId::new(42);
const START: u64 = 1_700_000_000;
const GRACE: u64 = 100;
const USAGE: ProcessorId = ProcessorId::new(1);
const CLAIMS: ProcessorId = ProcessorId::new(2);

/// A state with two processors, one of which is required, and a log that only counts.
struct World {
    state: State,
    applier: Applier,
    now: u64,
    told: Vec<SessionEvent>,
    incarnation: u64,
    /// The attempt that was begun last.
    last: AttemptId,
}

impl World {
    fn new() -> Self {
        let (state, applier) = (State::new(), Applier::default());
        let (told, last) = (Vec::new(), AttemptId::new(0));
        let mut world = Self { state, applier, now: START, told, incarnation: 0, last };
        world.open();
        let mut b = SchemaBuilder::new();
        let _ = b.signal("view", EntityKind::Item, DecaySpec::None).add();
        let _ = b.signal("usage", EntityKind::Item, DecaySpec::None).add();
        b.cohort_family("country", 1);
        let mut policy = SessionPolicy::new("a");
        policy.late_grace = Duration::from_secs(GRACE);
        b.session_policy(policy);
        world.apply(&Record::Schema(&b.build().expect("sound").to_bytes())).expect("a schema");
        world.register("usage", 1, true);
        world.register("claims", 1, false);
        world
    }

    fn open(&mut self) {
        self.incarnation += 1;
        let opened = Opened {
            incarnation: self.incarnation,
            event_id_horizon_ns: 3_600_000_000_000,
            event_time: false,
            sessions: OpenPolicy::default(),
        };
        self.apply(&Record::Opened(opened)).expect("an open");
    }

    fn apply(&mut self, record: &Record<'_>) -> Outcome {
        let seq: Seq = self.state.header().applied.next();
        let (time, body) = (Timestamp::from_secs(self.now), record.encode());
        let frame = Frame { seq, time, kind: record.kind() as u8, body: &body };
        let outcomes = self.applier.apply(&self.state, std::iter::once(frame));
        let mut outcomes = outcomes.expect("a record");
        self.told.extend(self.applier.take_happened().into_iter().map(|it| it.event));
        assert_eq!(self.state.check(), Vec::<String>::new());
        outcomes.remove(0)
    }

    fn decided(&mut self, record: &Record<'_>) -> Vec<bool> {
        match self.apply(record) {
            Ok(Reply::Begun { begun: it, .. } | Reply::Committed(it) | Reply::Decided(it)) => it,
            other => panic!("no decisions: {other:?}"),
        }
    }

    fn register(&mut self, name: &str, version: u32, required: bool) -> ProcessorId {
        let new = RegisterProcessor { name, version, required };
        match self.apply(&Record::RegisterProcessor(new)) {
            Ok(Reply::Registered { processor }) => processor,
            other => panic!("not registered: {other:?}"),
        }
    }

    fn later(&mut self, by: u64) -> &mut Self {
        self.now += by;
        self
    }

    /// A session with a signal, which has ended.
    fn ended(&mut self, policy: u16) -> SessionId {
        let conflict = Conflict::EndPrevious;
        let new = StartSession { user: USER, agent: "app", policy, conflict };
        let Ok(Reply::Started(held)) = self.apply(&Record::StartSession(new)) else {
            panic!("no start")
        };
        self.signal(held.id, Some(held.fence));
        let by = EndedBy::Holder(held.fence);
        self.apply(&Record::EndSession(EndSession { session: held.id, by })).expect("it is open");
        held.id
    }

    fn signal(&mut self, session: SessionId, fence: Option<Fence>) {
        let signals = signals(0, Some(USER), None);
        let (span_ns, annotation, signals) = (0, None, &signals[..]);
        let signal = SessionSignal { session, fence, span_ns, annotation, signals };
        self.apply(&Record::SessionSignal(signal)).expect("it may be written to");
    }

    fn begin(&mut self, processor: ProcessorId, session: SessionId, count: u32) -> bool {
        let retry_ns = 60_000_000_000;
        let item = BeginAttempt { session, user: USER, count, retry_ns, is_last: count == 1 };
        let record = Record::BeginAttempts(BeginAttempts { processor, items: vec![item] });
        let Ok(Reply::Begun { attempt, begun }) = self.apply(&record) else { panic!("no answer") };
        assert_eq!(attempt.get(), self.state.header().operations);
        if begun[0] {
            self.last = attempt;
        }
        begun[0]
    }

    fn head_and_hash(&self, id: SessionId) -> (u64, Hash) {
        let (declared, now) = (self.state.declared(), Timestamp::from_secs(self.now));
        let found = self.state.sessions.find(id, &declared.schema, self.incarnation, now);
        found.map_or((0, [0; 32]), |found| (found.head, found.info.content_hash))
    }

    /// Commits the attempt that was begun last, as if it were at this session.
    fn commit(&mut self, processor: ProcessorId, session: SessionId) -> bool {
        self.commit_of(processor, session, self.last)
    }

    fn commit_of(
        &mut self,
        processor: ProcessorId,
        session: SessionId,
        attempt: AttemptId,
    ) -> bool {
        self.commit_with(processor, 1, &[(session, attempt)], None).expect("decided")[0]
    }

    fn commit_with(
        &mut self,
        processor: ProcessorId,
        version: u32,
        items: &[(SessionId, AttemptId)],
        signals: Option<&[u8]>,
    ) -> Result<Vec<bool>, Error> {
        let observed_at = Timestamp::from_secs(self.now);
        let of = |&(session, attempt): &(SessionId, AttemptId)| {
            let (head, hash) = self.head_and_hash(session);
            let outputs = vec![(&b"key"[..], &b"value"[..])];
            CommitAttempt { session, attempt, head, hash, items: 1, observed_at, outputs }
        };
        let items = items.iter().map(of).collect();
        let record = CommitAttempts { version, through: 3, signals, ..commits(processor, items) };
        match self.apply(&Record::CommitAttempts(record))? {
            Reply::Committed(committed) => Ok(committed),
            other => panic!("no commit: {other:?}"),
        }
    }

    /// Fails the attempt that was begun last, as if it were at this session.
    fn fail(&mut self, processor: ProcessorId, session: SessionId, is_last: bool) -> bool {
        self.fail_of(processor, session, self.last, is_last)
    }

    fn fail_of(
        &mut self,
        processor: ProcessorId,
        session: SessionId,
        attempt: AttemptId,
        is_last: bool,
    ) -> bool {
        let next = Timestamp::from_secs(self.now + 300);
        let items = vec![FailAttempt { session, attempt, next, is_last, error: "no luck" }];
        self.decided(&Record::FailAttempts(FailAttempts { processor, items }))[0]
    }

    fn give_up(&mut self, session: SessionId, busy_since: Option<u64>) -> bool {
        let by = FailedBy::Timeout { after_ns: 9, automatic: true };
        let busy_since = busy_since.map(Timestamp::from_secs);
        self.decided(&Record::FailSessions(vec![FailSession { session, busy_since, by }]))[0]
    }

    fn warn(&mut self, session: SessionId, busy_since: u64, level: u8) -> bool {
        let busy_since = Timestamp::from_secs(busy_since);
        let busy_for_ns = 1_000 * u64::from(level);
        self.decided(&Record::WarnSessions(vec![WarnSession {
            session,
            busy_since,
            level,
            busy_for_ns,
        }]))[0]
    }

    fn requeue(&mut self, session: SessionId) -> bool {
        self.decided(&Record::RequeueSessions(vec![session]))[0]
    }

    fn reprocess(&mut self, processor: ProcessorId, session: SessionId) -> bool {
        let record = ReprocessSessions { processor, items: vec![(session, USER)] };
        self.decided(&Record::ReprocessSessions(record))[0]
    }

    fn pending(&self, processor: ProcessorId) -> Vec<(u32, SessionId)> {
        let due = self.state.pending(processor, Timestamp::from_secs(self.now), 10);
        due.into_iter().map(|Due { count, session }| (count, session)).collect()
    }

    fn standing(&self, id: SessionId) -> Standing {
        let (declared, now) = (self.state.declared(), Timestamp::from_secs(self.now));
        self.state.sessions.standing(id, &declared.schema, now)
    }

    fn has_outcome(&self, id: SessionId, processor: ProcessorId) -> bool {
        self.state.processors.outcomes().pending(Made::key(id, processor)).flatten().is_some()
    }

    fn count(&self, signal: u16) -> u64 {
        let declared = self.state.declared();
        let (signal, now) = (SignalTypeId::new(signal), Timestamp::from_secs(self.now));
        let view = self.state.signal(&declared, Some(crate::ids::CohortId::EVERYONE), signal, now);
        view.column.map_or(0, |column| column.table().size().rows)
    }

    /// The digest of what is hot.
    fn digest(&self) -> Hash {
        self.state.digest(&[])
    }
}

/// A batch of one event, in a cohort if one is named.
fn signals(signal: u16, user: Option<UserId>, cohort: Option<&str>) -> Vec<u8> {
    let (signal, entity, at) =
        (SignalTypeId::new(signal), EntityId::new(1), Timestamp::from_secs(START));
    let cohorts = cohort.iter().map(|_| 0).collect();
    let event = SignalEvent { signal, entity, weight: 1.0, at, user, cohorts, id: None };
    let names: Vec<&str> = cohort.into_iter().collect();
    let mut writer = SignalBatchWriter::new(None, &names, at, 1);
    writer.push(signal, &event);
    writer.finish()
}

/// Items of the first version of a processor, and nothing else.
fn commits(processor: ProcessorId, items: Vec<CommitAttempt<'_>>) -> CommitAttempts<'_> {
    CommitAttempts { processor, version: 1, through: 0, items, signals: None }
}

#[test]
fn a_session_is_pending_until_its_attempt_is_committed_and_settles_then() {
    let mut world = World::new();
    let id = world.ended(0);
    assert_eq!((world.pending(USAGE), world.pending(CLAIMS)), (vec![(0, id)], vec![(0, id)]));
    assert!(world.begin(USAGE, id, 0));
    assert_eq!(world.pending(USAGE), [], "it is running");
    assert!(!world.begin(USAGE, id, 0), "once");
    assert!(!world.commit_of(USAGE, id, AttemptId::new(1)), "another attempt");
    assert!(world.commit(USAGE, id));
    assert_eq!((world.standing(id), world.pending(USAGE)), (Standing::Away, vec![]));
    assert_eq!(world.told.last(), Some(&SessionEvent::Settled { id }));
    assert!(world.has_outcome(id, USAGE) && !world.commit(USAGE, id));
}

#[test]
fn items_of_one_frame_are_decided_one_by_one_and_each_session_once() {
    let mut world = World::new();
    let [one, two] = [world.ended(0), world.ended(0)];
    assert!(world.begin(USAGE, one, 0));
    let items = [two, one, one].map(|session| (session, world.last));
    let committed = world.commit_with(USAGE, 1, &items, None).expect("decided");
    assert_eq!(committed, [false, true, false]);
    assert_eq!(world.pending(USAGE), [(0, two)]);
}

#[test]
fn a_refused_item_changes_nothing() {
    let mut world = World::new();
    let id = world.ended(0);
    assert!(world.begin(USAGE, id, 0));
    let before = world.digest();
    assert!(!world.begin(USAGE, id, 1) && !world.begin(CLAIMS, id, 1));
    let attempt = AttemptId::new(world.last.get() + 1);
    assert!(!world.fail_of(USAGE, id, attempt, false) && !world.fail(CLAIMS, id, false));
    assert!(!world.requeue(id) && !world.give_up(id, Some(START + 1)));
    let other_version = world.commit_with(USAGE, 2, &[(id, world.last)], None).expect("decided");
    assert_eq!((other_version, world.digest()), (vec![false], before));
    assert!(!world.commit_of(USAGE, id, attempt));
    assert_eq!((world.digest(), world.has_outcome(id, USAGE)), (before, false));
}

#[test]
fn a_walk_moves_on_with_a_commit_of_which_nothing_is_fenced() {
    let mut world = World::new();
    let [one, two] = [world.ended(0), world.ended(0)];
    let walked = |world: &World| {
        let row = world.state.processors.get(CLAIMS).expect("it is there");
        (row.backfilled, row.bumped_op)
    };
    assert!(world.begin(CLAIMS, one, 0));
    let stale = world.last;
    // It comes back under its number and version, and has yet to walk.
    world.apply(&Record::RemoveProcessor("claims")).expect("it is there");
    assert_eq!(world.register("claims", 1, false), CLAIMS);
    assert!(!world.commit_of(CLAIMS, one, stale));
    assert_eq!(walked(&world).0, 0);
    assert!(world.begin(CLAIMS, two, 0));
    let items = [(one, stale), (two, world.last)];
    let committed = world.commit_with(CLAIMS, 1, &items, None).expect("decided");
    assert_eq!((committed, walked(&world).0), (vec![false, true], 0));
    assert!(world.begin(CLAIMS, one, 0) && world.commit(CLAIMS, one));
    assert_eq!(walked(&world).0, 3.min(walked(&world).1));
    assert!(walked(&world).0 > 0);
}

#[test]
fn what_a_processor_gave_up_it_is_offered_again_when_it_comes_back_or_begins_anew() {
    for is_removed in [true, false] {
        let mut world = World::new();
        let id = world.ended(0);
        assert!(world.begin(CLAIMS, id, 0) && world.fail(CLAIMS, id, true));
        // The other one has yet to see it, so that it stays in memory, where no walk comes by.
        assert_eq!((world.pending(CLAIMS), world.pending(USAGE)), (vec![], vec![(0, id)]));
        if is_removed {
            world.apply(&Record::RemoveProcessor("claims")).expect("it is there");
        } else {
            world.register("claims", 2, false);
        }
        world.register("claims", 1, false);
        assert_eq!(world.pending(CLAIMS), [(0, id)]);
        world.state = restored(&world.state);
        assert_eq!(world.pending(CLAIMS), [(0, id)]);
        assert!(world.begin(USAGE, id, 0) && world.commit(USAGE, id));
        assert_eq!(world.pending(CLAIMS), [(0, id)], "it stays until it was seen");
        assert!(world.begin(CLAIMS, id, 0) && world.commit(CLAIMS, id));
        assert_eq!(world.state.sessions.first_hot(), None);
    }
}

#[test]
fn what_was_seen_is_not_offered_again_to_the_same_version_that_comes_back() {
    let mut world = World::new();
    let id = world.ended(0);
    assert!(world.begin(CLAIMS, id, 0) && world.commit(CLAIMS, id));
    world.apply(&Record::RemoveProcessor("claims")).expect("it is there");
    world.register("claims", 1, false);
    assert_eq!((world.pending(CLAIMS), world.has_outcome(id, CLAIMS)), (vec![], true));
}

#[test]
fn signals_count_with_all_of_their_items_or_not_at_all() {
    let mut world = World::new();
    let [one, two] = [world.ended(0), world.ended(0)];
    assert!(world.begin(USAGE, one, 0));
    let derived = signals(1, None, None);
    let both = world.commit_with(USAGE, 1, &[(one, world.last), (two, world.last)], Some(&derived));
    assert_eq!(both.expect("decided"), [false, false]);
    assert_eq!((world.count(1), world.has_outcome(one, USAGE)), (0, false));
    // The family has room for one cohort.
    for (country, is_room) in [("country=FR", true), ("country=DE", false)] {
        let derived = signals(1, None, Some(country));
        let count = world.count(1);
        let committed = world.commit_with(USAGE, 1, &[(one, world.last)], Some(&derived));
        assert_eq!(committed.is_ok(), is_room, "{committed:?}");
        assert_eq!((count, world.count(1)), (u64::from(!is_room), 1));
        assert_eq!(world.begin(USAGE, one, 0), is_room, "it is still running else");
    }
}

#[test]
fn a_record_that_comes_during_an_attempt_is_processed_again() {
    let mut world = World::new();
    let id = world.ended(1);
    assert!(world.begin(USAGE, id, 0));
    let (head, hash) = world.head_and_hash(id);
    world.later(5).signal(id, None);
    let (attempt, observed_at) = (world.last, Timestamp::from_secs(START));
    let outputs = Vec::new();
    let item = CommitAttempt { session: id, attempt, head, hash, items: 1, observed_at, outputs };
    assert_eq!(world.decided(&Record::CommitAttempts(commits(USAGE, vec![item]))), [true]);
    assert!(world.has_outcome(id, USAGE));
    assert_eq!(world.pending(USAGE), [(0, id)], "it has not seen all of it");
    world.later(GRACE);
    assert!(world.begin(USAGE, id, 0) && world.commit(USAGE, id));
    assert_eq!(world.standing(id), Standing::Away);
}

#[test]
fn a_failed_attempt_is_tried_again_when_it_is_time_and_the_last_one_fails_the_session() {
    let mut world = World::new();
    let id = world.ended(0);
    let processor = "usage".to_owned();
    assert!(world.begin(USAGE, id, 0) && world.fail(USAGE, id, false));
    let error = "no luck".to_owned();
    let failed = SessionEvent::ProcessorFailed { id, processor, attempt: 1, error };
    assert_eq!(world.told.last(), Some(&failed));
    assert_eq!(world.pending(USAGE), []);
    assert_eq!(world.later(300).pending(USAGE), [(1, id)]);
    assert!(world.begin(USAGE, id, 1) && world.fail(USAGE, id, true));
    let [processor, error] = ["usage", "no luck"].map(str::to_owned);
    let cause = FailCause::Quarantined { processor: processor.clone() };
    let quarantined = SessionEvent::Quarantined { id, processor, error };
    let told = &world.told[world.told.len() - 2..];
    assert_eq!(told, [quarantined, SessionEvent::Failed { id, cause }]);
    assert_eq!(
        (world.standing(id), world.pending(USAGE)),
        (Standing::Failed { user: USER }, vec![])
    );
    assert!(world.requeue(id) && !world.requeue(id));
    assert_eq!(world.told.last(), Some(&SessionEvent::Requeued { id }));
    assert_eq!(world.pending(USAGE), [(0, id)]);
    assert!(world.begin(USAGE, id, 0) && world.commit(USAGE, id));
}

#[test]
fn what_only_others_fail_at_settles_and_is_requeued_all_the_same() {
    let mut world = World::new();
    let id = world.ended(0);
    assert!(world.begin(USAGE, id, 0) && world.commit(USAGE, id));
    assert!(world.begin(CLAIMS, id, 0) && world.fail(CLAIMS, id, true));
    assert_eq!((world.standing(id), world.pending(CLAIMS)), (Standing::Away, vec![]));
    assert!(matches!(world.told.last(), Some(SessionEvent::Quarantined { .. })));
    assert!(world.requeue(id));
    assert_eq!(world.told.last(), Some(&SessionEvent::Requeued { id }));
    assert_eq!(world.pending(CLAIMS), [(0, id)]);
}

#[test]
fn a_session_is_given_up_only_while_it_is_as_busy_as_its_sender_knows() {
    let mut world = World::new();
    let id = world.ended(0);
    assert!(world.later(10).begin(USAGE, id, 0));
    let began = world.now;
    assert!(!world.later(90).give_up(id, Some(began - 1)));
    assert!(world.give_up(id, Some(began)));
    let cause = FailCause::TimedOut { after: Duration::from_nanos(9), automatic: true };
    assert_eq!(world.told.last(), Some(&SessionEvent::Failed { id, cause }));
    assert!(!world.commit(USAGE, id) && !world.fail(USAGE, id, false), "it is fenced");
    assert!(!world.begin(USAGE, id, 1) && !world.has_outcome(id, USAGE));
    assert!(world.requeue(id));
    assert!(!world.commit(USAGE, id), "whoever was at it is fenced for good");
    assert_eq!(world.pending(USAGE), [(0, id)]);
    // The next one is the first one again, and still another one.
    let earlier = world.last;
    assert!(world.begin(USAGE, id, 0));
    assert!(!world.commit_of(USAGE, id, earlier) && !world.fail_of(USAGE, id, earlier, false));
    assert!(world.commit(USAGE, id));
}

#[test]
fn a_warning_is_told_only_of_the_work_that_it_means_and_changes_nothing() {
    let mut world = World::new();
    let id = world.ended(0);
    assert!(world.later(10).begin(CLAIMS, id, 0));
    let began = world.now;
    assert!(world.later(5).begin(USAGE, id, 0));
    let told = world.told.len();
    assert!(!world.warn(id, began + 4, 1), "no attempt began then");
    assert!(!world.warn(SessionId::new(99), began, 1));
    assert_eq!(world.told.len(), told);
    assert!(world.later(5).warn(id, began, 3));
    let warned = SessionEvent::Warned { id, level: 3, busy_for: Duration::from_nanos(3_000) };
    assert_eq!(world.told.last(), Some(&warned));
    let refused_or_not = |busy_since| {
        let mut world = World::new();
        let id = world.ended(0);
        assert!(world.begin(USAGE, id, 0));
        (world.warn(id, busy_since, 1), world.digest())
    };
    let (told, not_told) = (refused_or_not(START), refused_or_not(START + 1));
    assert_eq!((told.0, not_told.0, told.1), (true, false, not_told.1));
    // With the older attempt that piece of work is over, and the next one has begun long ago.
    assert!(world.commit_of(CLAIMS, id, AttemptId::new(world.last.get() - 1)));
    assert!(!world.warn(id, began, 4) && world.warn(id, began + 5, 1));
    // What was given up, and what ended with its process, is not warned of.
    assert!(world.give_up(id, Some(began + 5)) && !world.warn(id, began + 5, 2));
    let other = world.ended(1);
    assert!(world.begin(USAGE, other, 0));
    let began = world.now;
    world.open();
    assert!(!world.warn(other, began, 1));
}

#[test]
fn time_gives_up_a_session_only_for_work_that_it_waits_for() {
    let mut world = World::new();
    let id = world.ended(0);
    assert!(world.later(10).begin(CLAIMS, id, 0));
    let began = world.now;
    assert!(!world.give_up(id, Some(began)), "it does not wait for this one");
    assert!(world.later(5).begin(USAGE, id, 0));
    assert!(!world.give_up(id, Some(began)), "it has not waited for that long");
    assert!(world.give_up(id, Some(began + 5)));
    // Once it has settled it waits for nobody.
    let id = world.ended(0);
    assert!(world.begin(USAGE, id, 0) && world.commit(USAGE, id));
    assert!(world.begin(CLAIMS, id, 0));
    assert!(!world.give_up(id, Some(world.now)));
    assert!(world.fail(CLAIMS, id, false), "the attempt is ended by itself");
}

#[test]
fn those_that_failed_lately_are_counted_by_when_and_until_they_are_requeued() {
    let mut world = World::new();
    let ids = [0, 1, 2].map(|_| world.ended(0));
    let failed = |world: &World, since| {
        let lately = world.state.sessions.failed_since(Timestamp::from_secs(since), 2);
        (lately.len, lately.last.map(|(id, _)| id))
    };
    let first = world.later(10).now;
    assert!(world.give_up(ids[1], None));
    assert_eq!((failed(&world, first), failed(&world, first + 1)), ((1, Some(ids[1])), (0, None)));
    assert!(world.later(10).give_up(ids[0], None));
    assert_eq!(failed(&world, first), (2, Some(ids[0])), "by when, not by number");
    assert_eq!(failed(&world, first + 1), (1, Some(ids[0])));
    assert!(world.give_up(ids[2], None));
    assert_eq!(failed(&world, first).0, 3, "one more than was asked for");
    assert!(world.requeue(ids[2]) && world.requeue(ids[0]));
    assert_eq!(failed(&world, first), (1, Some(ids[1])));
}

#[test]
fn an_attempt_that_ended_with_its_process_is_tried_again_and_an_open_writes_nothing() {
    let mut world = World::new();
    let id = world.ended(0);
    assert!(world.begin(USAGE, id, 0));
    let before = world.digest();
    world.later(59).open();
    assert_eq!(world.digest(), before);
    assert!(!world.commit(USAGE, id), "it is another process");
    assert_eq!((world.pending(USAGE), world.later(1).pending(USAGE)), (vec![], vec![(1, id)]));
    assert!(world.begin(USAGE, id, 1));
    let attempt = world.state.processors.attempt(id, USAGE).expect("it is running");
    assert_eq!(attempt.count, 2, "the one before is counted");
    world.later(900).open();
    assert_eq!(world.pending(USAGE), [], "that was the last one");
    assert!(!world.begin(USAGE, id, 2));
    assert!(world.fail(USAGE, id, true), "and somebody writes it down");
    assert_eq!(world.standing(id), Standing::Failed { user: USER });
}

#[test]
fn a_processor_that_is_removed_lets_go_of_what_waited_for_it() {
    let mut world = World::new();
    let id = world.ended(0);
    assert!(world.begin(USAGE, id, 0));
    world.apply(&Record::RemoveProcessor("usage")).expect("it is there");
    assert_eq!(world.standing(id), Standing::Away);
    assert_eq!(world.told.last(), Some(&SessionEvent::Settled { id }));
    assert!(!world.commit(USAGE, id) && !world.begin(USAGE, id, 0));
    assert_eq!(world.register("usage", 1, true), USAGE);
    assert_eq!(world.pending(USAGE), [(0, id)], "it is there still, for the other one");
    assert!(world.begin(USAGE, id, 0) && world.commit(USAGE, id));
    assert!(world.begin(CLAIMS, id, 0) && world.commit(CLAIMS, id));
    let settled = SessionEvent::Settled { id };
    assert_eq!(world.told.iter().filter(|event| **event == settled).count(), 1);
}

#[test]
fn whoever_is_not_required_is_offered_what_is_hot_until_it_has_seen_it_after_a_restore_too() {
    let mut world = World::new();
    let [seen, settled, open] = [world.ended(0), world.ended(0), world.ended(0)];
    assert_eq!(world.pending(CLAIMS), [(0, seen), (0, settled), (0, open)]);
    assert!(world.begin(CLAIMS, seen, 0) && world.commit(CLAIMS, seen));
    for id in [seen, settled] {
        assert!(world.begin(USAGE, id, 0) && world.commit(USAGE, id));
        assert_eq!(world.standing(id), Standing::Away);
    }
    world.state = restored(&world.state);
    assert_eq!(world.state.check(), Vec::<String>::new());
    assert_eq!(world.pending(CLAIMS), [(0, settled), (0, open)]);
    assert!(world.begin(CLAIMS, settled, 0) && world.commit(CLAIMS, settled));
    assert_eq!(world.pending(CLAIMS), [(0, open)]);
}

#[test]
fn what_left_before_a_version_came_is_found_by_its_walk_alone() {
    let mut world = World::new();
    let id = world.ended(0);
    for processor in [USAGE, CLAIMS] {
        assert!(world.begin(processor, id, 0) && world.commit(processor, id));
    }
    world.register("claims", 2, false);
    assert_eq!(world.pending(CLAIMS), [], "it has left");
    let row = world.state.processors.get(CLAIMS).expect("it is there");
    assert!(row.backfilled < id.get() && id.get() < row.bumped_op, "its walk comes by");
    assert!(world.begin(CLAIMS, id, 0));
    let committed = world.commit_with(CLAIMS, 2, &[(id, world.last)], None);
    assert_eq!(committed.expect("decided"), [true]);
}

#[test]
fn a_session_that_has_failed_keeps_nobody_from_the_others_and_is_not_lost() {
    let mut world = World::new();
    let [failed, other] = [world.ended(0), world.ended(0)];
    assert!(world.give_up(failed, None));
    assert_eq!((world.pending(USAGE), world.pending(CLAIMS)), (vec![(0, other)], vec![(0, other)]));
    assert!(world.requeue(failed));
    assert_eq!(world.pending(CLAIMS), [(0, failed), (0, other)]);
}

#[test]
fn a_new_version_gives_what_was_given_up_another_chance() {
    let mut world = World::new();
    let [gone, reset] = [world.ended(0), world.ended(0)];
    assert!(world.begin(USAGE, gone, 0) && world.fail(USAGE, gone, true));
    assert!(world.give_up(reset, None));
    world.register("usage", 1, true);
    assert_eq!(world.standing(gone), Standing::Failed { user: USER }, "that is no other version");
    world.register("usage", 2, true);
    assert_eq!(world.told.last(), Some(&SessionEvent::Requeued { id: gone }));
    assert_eq!(world.pending(USAGE), [(0, gone)]);
    assert_eq!(world.standing(reset), Standing::Failed { user: USER }, "that was not its doing");
    assert!(world.begin(USAGE, gone, 0));
    let committed = world.commit_with(USAGE, 2, &[(gone, world.last)], None);
    assert_eq!(committed.expect("decided"), [true]);
}

#[test]
fn what_failed_because_of_a_processor_does_not_wait_for_it_once_nobody_does() {
    for is_removed in [true, false] {
        let mut world = World::new();
        let id = world.ended(0);
        assert!(world.begin(USAGE, id, 0) && world.fail(USAGE, id, true));
        if is_removed {
            world.apply(&Record::RemoveProcessor("usage")).expect("it is there");
        } else {
            world.register("usage", 1, false);
            assert_eq!(world.pending(USAGE), [(0, id)], "and it may try again");
        }
        let told = &world.told[world.told.len() - 2..];
        assert_eq!(told, [SessionEvent::Requeued { id }, SessionEvent::Settled { id }]);
        assert_eq!(world.state.processors.attempt(id, USAGE), None);
    }
}

#[test]
fn a_reprocess_hands_over_what_was_seen_or_given_up_once_and_nothing_that_is_being_tried() {
    let mut world = World::new();
    let [seen, tried] = [0, 1].map(|policy| world.ended(policy));
    assert!(world.begin(USAGE, seen, 0) && world.commit(USAGE, seen));
    assert!(world.begin(CLAIMS, seen, 0) && world.commit(CLAIMS, seen));
    world.later(1).apply(&Record::Sweep { count_max: 9 }).expect("a sweep");
    assert_eq!(
        (world.standing(seen), world.pending(USAGE).contains(&(0, seen))),
        (Standing::Away, false)
    );
    // It has left, and it is there for one of the two: once, however often that is asked for.
    assert!(world.reprocess(USAGE, seen) && world.reprocess(USAGE, seen));
    assert!(world.has_outcome(seen, USAGE), "what it made stays");
    world.state = restored(&world.state);
    assert!(
        world.pending(USAGE).contains(&(0, seen)) && !world.pending(CLAIMS).contains(&(0, seen))
    );
    assert!(world.begin(USAGE, seen, 0) && world.commit(USAGE, seen));
    assert!(!world.pending(USAGE).contains(&(0, seen)));

    assert!(world.begin(USAGE, tried, 0));
    assert!(!world.reprocess(USAGE, tried), "it is looking at it");
    assert!(world.fail(USAGE, tried, false) && world.reprocess(USAGE, tried));
    assert!(world.begin(USAGE, tried, 0), "as if for the first time, and at once");
    assert!(world.fail(USAGE, tried, true));
    assert!(!world.reprocess(USAGE, tried), "the session has failed, and is to be requeued");
    let open = world.state.header().operations;
    let never =
        ReprocessSessions { processor: USAGE, items: vec![(SessionId::new(open + 9), USER)] };
    let (seq, body) =
        (world.state.header().applied.next(), Record::ReprocessSessions(never).encode());
    let time = Timestamp::from_secs(world.now);
    let frame = Frame { seq, time, kind: RecordKind::ReprocessSessions as u8, body: &body };
    assert!(world.applier.apply(&world.state, std::iter::once(frame)).is_err());
}

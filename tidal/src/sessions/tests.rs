//! Sessions through their room alone: when they end, who may write, what an open and a reset do.

mod bytes;
mod processing;

use std::time::Duration;

use super::{At, Change, Happened, Recovery, SessionEvent, SessionState, Sessions, Started};
use crate::end::{End, EndCause, EndEvidence};
use crate::error::{Error, Result};
use crate::ids::{EntityId, Fence, SessionId, SignalTypeId, Timestamp, UserId};
use crate::options::OpenPolicy;
use crate::record::{
    Annotate, Conflict, EndSession, EndedBy, PruneSession, SessionSignal, SignalEvent,
    StartSession, Touch,
};
use crate::schema::{DecaySpec, EntityKind, Lane, RateLimit, Schema, SchemaBuilder, SessionPolicy};
use crate::seq::Seq;

const USER: UserId = UserId::new(42);
const START: u64 = 1_700_000_000;
const IDLE: u64 = 600;
const MAX: u64 = 3_600;
const FALLBACK: u64 = 60;
const GRACE: u64 = 100;

/// The policies: 0 is the default one, 1 has the durations above, 2 a grace besides, 3 a limit of two
/// views in 100 s.
fn schema(lane: Lane) -> Schema {
    let mut b = SchemaBuilder::new();
    for signal in ["like", "view"] {
        let _ = b.signal(signal, EntityKind::Item, DecaySpec::None).add();
    }
    let policy = |name: &str| {
        let mut policy = SessionPolicy::new(name);
        policy.idle_timeout = Duration::from_secs(IDLE);
        policy.max_duration = Duration::from_secs(MAX);
        policy.empty_fallback = Duration::from_secs(FALLBACK);
        policy
    };
    let mut graceful = policy("b");
    graceful.late_grace = Duration::from_secs(GRACE);
    let mut limited = policy("c");
    limited.signals = Some(vec!["view".to_owned()]);
    limited.rate_limit = Some(RateLimit { signals: 2, per: Duration::from_secs(100) });
    b.session_policy(policy("a")).session_policy(graceful).session_policy(limited);
    b.session_lane(lane);
    b.build().expect("sound")
}

/// Sessions, and a log that only counts.
struct World {
    sessions: Sessions,
    schema: Schema,
    now: u64,
    /// The time of the last frame.
    last: u64,
    seq: u64,
    operations: u64,
    operation_time: u64,
    incarnation: u64,
    happened: Vec<Happened>,
}

impl World {
    fn new() -> Self {
        Self::with(Lane::UserAgent)
    }

    fn with(lane: Lane) -> Self {
        let (sessions, schema, happened) = (Sessions::new(), schema(lane), Vec::new());
        let (seq, operations, incarnation) = (0, 1, 1);
        let (now, last, operation_time) = (START, START, START);
        Self { sessions, schema, now, last, seq, operations, operation_time, incarnation, happened }
    }

    fn change<T>(&mut self, is_operation: bool, change: impl FnOnce(&mut Change<'_>) -> T) -> T {
        self.seq += 1;
        self.last = self.now;
        if is_operation {
            self.operations += 1;
            self.operation_time = self.now;
        }
        let at = At {
            seq: Seq::new(self.seq),
            now: secs(self.now),
            operation: self.operations,
            operation_time: secs(self.operation_time),
            incarnation: self.incarnation,
            schema: &self.schema,
        };
        let done = change(&mut self.sessions.change(at, &mut self.happened));
        assert_eq!(self.sessions.check(&self.schema), Ok(()));
        done
    }

    fn later(&mut self, by: u64) -> &mut Self {
        self.now += by;
        self
    }

    fn start(&mut self, agent: &str, policy: u16, conflict: Conflict) -> Result<Started> {
        let new = StartSession { user: USER, agent, policy, conflict };
        self.change(true, |change| change.start(&new))
    }

    fn begin(&mut self, policy: u16) -> Started {
        self.start("app", policy, Conflict::EndPrevious).expect("a start")
    }

    fn view(&mut self, held: Started, at: u64, span: u64) -> Result<()> {
        self.signal(held.id, Some(held.fence), 1, at, span)
    }

    fn late(&mut self, id: SessionId) -> Result<()> {
        let at = self.now;
        self.signal(id, None, 1, at, 0)
    }

    fn signal(
        &mut self,
        session: SessionId,
        fence: Option<Fence>,
        signal: u16,
        at: u64,
        span: u64,
    ) -> Result<()> {
        let event = SignalEvent {
            signal: SignalTypeId::new(signal),
            entity: EntityId::new(7),
            weight: 1.0,
            at: secs(at),
            user: Some(USER),
            cohorts: Default::default(),
            id: None,
        };
        let span_ns = span * 1_000_000_000;
        let record = SessionSignal { session, fence, span_ns, annotation: None, signals: &[] };
        self.change(true, |change| {
            let admitted = change.admit(&record)?;
            let permit = change.permit(&admitted, event.signal)?;
            change.signal(permit, &record, &event);
            Ok(())
        })
    }

    fn touch(&mut self, held: Started, extend: Option<u64>) -> Result<Timestamp> {
        let extend_ns = extend.map(|secs| secs * 1_000_000_000);
        let touch = Touch { session: held.id, fence: held.fence, extend_ns };
        self.change(true, |change| change.touch(&touch))
    }

    fn close(&mut self, held: Started) -> Result<End> {
        let end = EndSession { session: held.id, by: EndedBy::Holder(held.fence) };
        self.change(true, |change| change.end(&end))
    }

    fn sweep(&mut self) {
        self.change(false, |change| change.sweep(usize::MAX));
    }

    fn resume(&mut self, id: SessionId) -> Result<Started> {
        self.change(false, |change| change.resume(id))
    }

    fn open(&mut self, policy: OpenPolicy) {
        self.incarnation += 1;
        let times = (secs(self.last), secs(self.now));
        let plan = self.sessions.plan_recovery(&self.schema, times, policy);
        let before = self.happened.len();
        let planned = plan.clone();
        self.change(false, |change| change.open_all(plan, policy));
        for (id, recovery) in planned {
            let told = self.happened[before..].iter().map(|happened| &happened.event);
            let kept = match recovery {
                Recovery::Restore => SessionEvent::Restored { id },
                Recovery::End(end) => SessionEvent::Ended { id, end },
            };
            assert_eq!(told.filter(|told| **told == kept).count(), 1, "{kept:?}");
        }
    }

    fn reset(&mut self, to: u64) {
        self.now = to;
        self.change(false, |change| change.set_back(secs(to)));
        self.operations += 1;
        self.operation_time = to;
    }

    /// How a session is, wherever it lies.
    fn state(&self, id: SessionId) -> SessionState {
        let now = secs(self.now);
        match self.sessions.find(id, &self.schema, self.incarnation, now) {
            Some(found) => found.info.state,
            None => {
                let row = self.sessions.ended().pending(id.get()).flatten().expect("it has left");
                let found = Sessions::found_ended(id, &row, &self.schema);
                found.expect("a canonical row").info.state
            }
        }
    }

    fn is_hot(&self, id: SessionId) -> bool {
        self.sessions.find(id, &self.schema, self.incarnation, secs(self.now)).is_some()
    }

    fn end(&self, id: SessionId) -> End {
        self.state(id).end().expect("it has ended").clone()
    }

    /// All canonical rows, wherever they lie.
    fn canonical(&self) -> Vec<(u64, Vec<u8>)> {
        let ended = self.sessions.ended().pending_rows(None).into_iter();
        let ended = ended.filter_map(|(id, row)| Some((id, row?.to_vec())));
        let mut rows: Vec<_> = self.sessions.canonical_rows().into_iter().chain(ended).collect();
        rows.sort_unstable();
        rows
    }
}

fn secs(secs: u64) -> Timestamp {
    Timestamp::from_secs(secs)
}

fn by_time(at: u64, cause: EndCause, evidence: EndEvidence) -> End {
    End { at: secs(at), cause, evidence }
}

#[test]
fn a_session_is_open_at_its_deadline_and_over_a_second_later() {
    let mut world = World::new();
    let held = world.begin(1);
    world.later(IDLE);
    assert_eq!(world.state(held.id), SessionState::Active);
    world.later(1);
    let fallback = EndEvidence::Fallback { clamped: false };
    let end = by_time(START + FALLBACK, EndCause::IdleTimeout, fallback);
    assert_eq!(world.state(held.id), SessionState::Settled(end.clone()), "nobody has noticed yet");
    let refused = world.touch(held, None).expect_err("it is over");
    assert!(
        matches!(refused, Error::SessionEnded { id, end: told } if id == held.id && *told == end)
    );
}

#[test]
fn an_end_rests_on_the_record_that_reaches_furthest_within_what_was_known() {
    let mut world = World::new();
    let held = world.begin(1);
    world.later(100).view(held, START + 20, 50).expect("it reaches to 70");
    world.later(100).view(held, START + 10, 9_000).expect("it reaches to its arrival");
    let furthest = world.operations;
    world.later(100).view(held, START - 1, 200).expect("it began before the session");
    world.later(10).touch(held, None).expect("activity, and no evidence");
    world.later(IDLE + 1);
    let evidence = EndEvidence::Record { record: furthest };
    assert_eq!(world.end(held.id), by_time(START + 200, EndCause::IdleTimeout, evidence));
}

#[test]
fn no_session_is_longer_than_its_policy_allows_however_active() {
    let mut world = World::new();
    let held = world.begin(1);
    let deadline = world.touch(held, Some(10 * MAX)).expect("an extension");
    assert_eq!(deadline, secs(START + MAX));
    world.later(MAX);
    assert!(world.state(held.id).is_open());
    world.later(1);
    let fallback = EndEvidence::Fallback { clamped: false };
    assert_eq!(world.end(held.id), by_time(START + FALLBACK, EndCause::MaxDuration, fallback));
}

#[test]
fn a_start_ends_the_session_in_its_lane_no_later_than_itself_begins() {
    let mut world = World::new();
    let first = world.begin(1);
    world.later(10);
    let second = world.begin(1);
    let superseded = EndCause::Superseded { by: second.id };
    let clamped = EndEvidence::Fallback { clamped: true };
    assert_eq!(world.end(first.id), by_time(START + 10, superseded, clamped));
    world.later(IDLE + 1);
    let third = world.begin(1);
    assert_eq!(world.end(second.id).cause, EndCause::IdleTimeout, "its time was over before");
    let other = world.start("web", 1, Conflict::Reject).expect("another lane");
    assert!([third.id, other.id].iter().all(|&id| world.state(id).is_open()));
}

#[test]
fn a_lane_that_is_taken_refuses_or_is_joined_or_does_not_matter() {
    let mut world = World::with(Lane::User);
    let first = world.begin(1);
    let refused = world.start("web", 1, Conflict::Reject).expect_err("one session of a user");
    assert!(matches!(refused, Error::LaneBusy { by } if by == first.id));
    let joined = world.start("web", 0, Conflict::Join).expect("the one that is open");
    assert_eq!((joined.id, joined.joined), (first.id, true));
    assert!(matches!(world.touch(first, None), Err(Error::Fenced { .. })), "it was given away");

    let mut world = World::with(Lane::Overlapping);
    let [first, second] = [world.begin(1), world.begin(1)];
    assert!([first.id, second.id].iter().all(|&id| world.state(id).is_open()));
    assert_eq!(world.start("app", 1, Conflict::Join).expect("the newer one").id, second.id);
    world.start("app", 1, Conflict::Reject).expect("nothing is in the way");
}

#[test]
fn a_fence_of_before_a_resume_or_an_open_writes_nothing() {
    let mut world = World::new();
    let held = world.begin(1);
    let resumed = world.resume(held.id).expect("it is open");
    assert!(resumed.fence > held.fence && resumed.joined);
    let before = world.canonical();
    let refused = world.view(held, START, 0).expect_err("it was given away");
    assert!(matches!(refused, Error::Fenced { current, .. } if current == resumed.fence));
    world.open(OpenPolicy::RestoreThenExpire);
    let nobody = Fence { incarnation: 2, grant: 0 };
    for held in [resumed, Started { fence: nobody, ..resumed }] {
        assert!(
            matches!(world.close(held), Err(Error::Fenced { current, .. }) if current == nobody)
        );
    }
    assert_eq!(world.canonical(), before);
    assert_eq!(world.state(held.id), SessionState::Restored { since: secs(START) });
    let held = world.resume(held.id).expect("it was restored");
    world.view(held, START, 0).expect("it is held again");
}

#[test]
fn a_resume_is_no_activity() {
    let mut world = World::new();
    let held = world.begin(1);
    let held = world.later(IDLE).resume(held.id).expect("it is open");
    world.later(1);
    assert!(matches!(world.touch(held, None), Err(Error::SessionEnded { .. })));
}

#[test]
fn a_session_that_was_closed_settles_at_once_or_after_its_grace() {
    let mut world = World::new();
    let held = world.begin(1);
    let end = world.later(5).close(held).expect("it is open");
    assert_eq!(end, by_time(START + 5, EndCause::Closed, EndEvidence::Explicit));
    assert_eq!(world.state(held.id), SessionState::Settled(end));
    assert!(!world.is_hot(held.id));
    assert!(matches!(world.late(held.id), Err(Error::SessionNotFound(_))), "no table has it");

    let held = world.begin(2);
    assert!(matches!(world.late(held.id), Err(Error::SessionOpen(_))));
    let end = world.close(held).expect("it is open");
    let before = world.canonical();
    world.later(GRACE - 1).late(held.id).expect("within its grace");
    assert_ne!(world.canonical(), before, "it is content");
    assert_eq!(world.state(held.id), SessionState::Ended(end.clone()), "and no evidence");
    let refused = world.later(1).late(held.id).expect_err("its grace is over");
    assert!(matches!(refused, Error::TooLate { by_ms: 0, .. }));
    assert_eq!(world.state(held.id), SessionState::Settled(end));
    assert!(!world.is_hot(held.id));
}

#[test]
fn the_grace_of_a_session_that_another_one_ended_begins_then() {
    let mut world = World::new();
    let held = world.begin(2);
    // It ended a minute after its start, which is more than its grace ago.
    let next = world.later(IDLE - 1).begin(2);
    assert!(next.id > held.id);
    world.later(GRACE - 1).late(held.id).expect("within its grace");
    let refused = world.later(1).late(held.id).expect_err("its grace is over");
    assert!(matches!(refused, Error::TooLate { by_ms: 0, .. }));
}

#[test]
fn late_records_of_a_session_that_time_ended_are_taken_whether_or_not_it_was_noticed() {
    let mut worlds = [World::new(), World::new()];
    for (world, is_swept) in worlds.iter_mut().zip([false, true]) {
        let held = world.begin(2);
        world.later(IDLE).view(held, START + IDLE, 0).expect("it is open");
        world.later(IDLE + 1);
        if is_swept {
            world.sweep();
        }
        // It ended at its last record, and its grace began at its deadline.
        world.late(held.id).expect("within its grace");
        world.later(GRACE - 1);
        assert!(matches!(world.late(held.id), Err(Error::TooLate { by_ms: 0, .. })));
        let next = world.begin(2);
        world.later(30).touch(next, Some(IDLE)).expect("it is open");
        let now = world.later(IDLE - 30).now;
        world.view(next, now, 0).expect("it is open");
    }
    assert_eq!(worlds[0].canonical(), worlds[1].canonical());
}

#[test]
fn the_limit_of_a_policy_outlives_its_sessions() {
    let mut world = World::new();
    let held = world.begin(3);
    let forbidden = world.signal(held.id, Some(held.fence), 0, START, 0).expect_err("views only");
    assert!(matches!(forbidden, Error::SignalForbidden { signal, .. } if signal == "like"));
    world.view(held, START, 0).expect("the first");
    world.view(held, START, 0).expect("the second");
    let retry_in = |refused: Result<()>| match refused {
        Err(Error::RateLimited { retry_after_ms, .. }) => retry_after_ms,
        other => panic!("not limited: {other:?}"),
    };
    assert_eq!(retry_in(world.view(held, START, 0)), 50_000);
    let held = world.later(20).begin(3);
    assert_eq!(retry_in(world.view(held, START, 0)), 30_000, "a new session resets nothing");
    let other = world.start("web", 3, Conflict::EndPrevious).expect("another agent");
    world.view(other, START, 0).expect("it has a limit of its own");
    world.later(30).view(held, START, 0).expect("one more is paid for");
    assert_eq!(retry_in(world.view(held, START, 0)), 50_000);
}

#[test]
fn noticing_an_end_changes_nothing_that_counts_and_a_row_leaves_after_an_operation() {
    let mut world = World::new();
    let held = world.begin(1);
    let before = world.canonical();
    world.later(IDLE + 1).sweep();
    assert_eq!(world.canonical(), before);
    assert!(world.is_hot(held.id), "time may be set back to the last operation");
    let told: Vec<_> = world.happened.iter().map(|happened| &happened.event).collect();
    let end = world.end(held.id);
    let id = held.id;
    let expected = [
        SessionEvent::Started { id },
        SessionEvent::Ended { id, end },
        SessionEvent::Settled { id },
    ];
    assert_eq!(told, expected.iter().collect::<Vec<_>>());
    assert_eq!(
        world.sessions.first_due(secs(world.operation_time)),
        None,
        "there is nothing to sweep"
    );
    world.start("web", 1, Conflict::Reject).expect("a start");
    assert!(!world.is_hot(held.id));
    assert_eq!(world.happened.len(), 4, "nothing is told twice");
}

#[test]
fn a_clock_that_is_set_back_opens_again_what_only_a_sweep_has_ended() {
    let mut world = World::new();
    let held = world.begin(1);
    world.later(IDLE + 1).sweep();
    world.reset(START + 10);
    assert_eq!(world.state(held.id), SessionState::Active);
    world.view(held, START + 5, 0).expect("it is open");
}

#[test]
fn a_clock_that_is_set_back_leaves_ended_what_had_ended_by_the_last_operation() {
    let mut worlds = [World::new(), World::new()];
    for (world, is_swept) in worlds.iter_mut().zip([false, true]) {
        let [held, graceful] = ["app", "web"].map(|agent| {
            let policy = if agent == "app" { 1 } else { 2 };
            world.start(agent, policy, Conflict::EndPrevious).expect("a start")
        });
        world.later(IDLE).view(graceful, START + IDLE - 50, 0).expect("it is open");
        world.later(1);
        if is_swept {
            world.sweep();
        }
        // An operation comes: whatever it is, the first one is over for good.
        let other = world.start("tv", 1, Conflict::EndPrevious).expect("a start");
        world.reset(START + 100);
        assert_eq!(world.end(held.id).cause, EndCause::IdleTimeout);
        assert_eq!(world.state(graceful.id), SessionState::Active);
        let touched = world.touch(other, None).expect("it is open");
        assert_eq!(touched, secs(START + 100 + IDLE), "it began when time was set back to");
    }
    assert_eq!(worlds[0].canonical(), worlds[1].canonical());
}

#[test]
fn an_open_restores_ends_or_prolongs_as_its_policy_says() {
    let fallback = EndEvidence::Fallback { clamped: false };
    let over = by_time(START + FALLBACK, EndCause::IdleTimeout, fallback);
    for policy in [OpenPolicy::RestoreThenExpire, OpenPolicy::EndAll, OpenPolicy::RestoreAll] {
        let mut world = World::new();
        let idle = world.start("app", 1, Conflict::Reject).expect("a start");
        world.later(IDLE);
        let busy = world.start("web", 1, Conflict::Reject).expect("a start");
        let before = world.later(1).canonical();
        world.open(policy);
        let restored = SessionState::Restored { since: secs(world.now) };
        let states = [world.state(idle.id), world.state(busy.id)];
        match policy {
            OpenPolicy::RestoreThenExpire => {
                assert_eq!(states, [SessionState::Settled(over.clone()), restored]);
                assert_eq!(world.canonical(), before);
            }
            OpenPolicy::EndAll => {
                let clamped = EndEvidence::Fallback { clamped: true };
                let orphan = by_time(world.now, EndCause::OrphanRecovered, clamped);
                let ended = [over.clone(), orphan].map(SessionState::Settled);
                assert_eq!(states, ended);
            }
            OpenPolicy::RestoreAll => {
                assert_eq!(states, [restored.clone(), restored]);
                world.later(IDLE);
                assert!(world.state(idle.id).is_open(), "its idle time began anew");
            }
        }
        let after = world.canonical();
        world.open(policy);
        if policy != OpenPolicy::RestoreAll {
            assert_eq!(world.canonical(), after, "a second open changes nothing");
        }
    }
}

#[test]
fn what_is_older_than_its_maximum_duration_is_not_restored_by_any_policy() {
    for policy in [OpenPolicy::RestoreThenExpire, OpenPolicy::EndAll, OpenPolicy::RestoreAll] {
        let mut world = World::new();
        let held = world.begin(1);
        world.later(MAX + 1).open(policy);
        assert!(world.end(held.id).cause.is_time_driven());
    }
}

#[test]
fn what_was_over_before_the_open_is_not_restored_by_any_policy() {
    for is_noticed in [false, true] {
        let mut world = World::new();
        let held = world.start("app", 2, Conflict::Reject).expect("a start");
        world.later(IDLE).view(held, START + IDLE, 0).expect("it is open");
        world.later(IDLE + 1);
        if is_noticed {
            world.sweep();
        } else {
            world.start("web", 1, Conflict::Reject).expect("a frame of another lane");
        }
        world.later(1).open(OpenPolicy::RestoreAll);
        assert_eq!(world.end(held.id).cause, EndCause::IdleTimeout);
    }
}

#[test]
fn pruning_keeps_what_is_known_of_a_session_and_forgets_its_records() {
    let mut world = World::new();
    let held = world.begin(1);
    world.view(held, START, 0).expect("it is open");
    let record = world.operations;
    let prune = |world: &mut World, row: &[u8]| {
        let prune = PruneSession { session: held.id, records: vec![record], row };
        world.change(true, |change| change.prune(&prune))
    };
    let canonical = |world: &World| world.canonical().remove(0).1;
    let early = Sessions::pruned_row(&canonical(&world)).expect("a row");
    assert!(matches!(prune(&mut world, &early), Ok(Err(Error::SessionOpen(_)))));
    let end = world.close(held).expect("it is open");
    let row = canonical(&world);
    assert!(prune(&mut world, &row).is_err(), "that is no pruned row");
    let pruned = Sessions::pruned_row(&row).expect("a row");
    prune(&mut world, &pruned).expect("a pruned row").expect("it has settled");
    assert_eq!(world.state(held.id), SessionState::Pruned(end));
    assert_eq!(world.sessions.records().pending(record), Some(None));
    let found = Sessions::found_ended(held.id, &canonical(&world), &world.schema).expect("a row");
    let before = Sessions::found_ended(held.id, &row, &world.schema).expect("a row");
    assert_eq!((found.info.content_hash, found.info.records), (before.info.content_hash, 1));
}

#[test]
fn a_session_that_is_ended_by_someone_else_ends_at_its_evidence() {
    let mut world = World::new();
    let held = world.begin(1);
    world.later(30).view(held, START + 20, 0).expect("it is open");
    let evidence = EndEvidence::Record { record: world.operations };
    let by = EndedBy::Operator { reason: "a test" };
    let end = EndSession { session: held.id, by };
    let end = world.later(30).change(true, |change| change.end(&end)).expect("it is open");
    let forced = EndCause::Forced { reason: "a test".to_owned() };
    assert_eq!(end, by_time(START + 20, forced, evidence));
    let held = world.begin(1);
    world.later(70).change(true, |change| change.end_all());
    let fallback = EndEvidence::Fallback { clamped: false };
    let at = START + 60 + FALLBACK;
    assert_eq!(world.end(held.id), by_time(at, EndCause::Shutdown, fallback));
}

#[test]
fn the_content_hash_tells_contents_apart_and_nothing_else_changes_it() {
    let mut world = World::new();
    let hash = |world: &World, id| {
        let now = secs(world.now);
        world.sessions.find(id, &world.schema, 1, now).expect("it is hot").info.content_hash
    };
    let held = world.begin(1);
    let empty = hash(&world, held.id);
    world.touch(held, None).expect("it is open");
    world.resume(held.id).expect("it is open");
    assert_eq!(hash(&world, held.id), empty);
    let held = world.resume(held.id).expect("it is open");
    let mut seen = vec![empty];
    for text in ["a", "b", "a"] {
        let (session, fence, entity) = (held.id, held.fence, EntityId::new(1));
        let note = Annotate { session, fence, entity, text };
        world.change(true, |change| change.annotate(&note)).expect("it is open");
        let hash = hash(&world, held.id);
        assert!(!seen.contains(&hash));
        seen.push(hash);
    }
}

//! Sessions that a crash left open, and where they end: the cases by which a recovery of orphans is
//! known, each with a real reopen.

use tidal_support::sessions::{AtOpen, Cause, Ended, Evidence};
use tidal_support::sim::Survives;
use tidaldb::schema::{EntityId, Timestamp};
use tidaldb::{Error, SessionSignal, SessionState};

use crate::actor::{Actor, Scene, end_of, ended};
use crate::recovery::{boundaries, digest};
use crate::script::{Crash, HOUR, MINUTE, SECOND, Step};

fn actor() -> Actor {
    Actor::new(Scene::default())
}

/// Starts a session of the one lane that these cases need; returns its id.
fn begin(actor: &mut Actor) -> u64 {
    actor.start(42, 0, 0, false).answer.expect("started");
    *actor.ids.last().expect("it was started")
}

/// Time passes, and what was done in it is said when it is over: a block, with its start and length.
fn block(actor: &Actor, minutes: u64) {
    let (at, length) = (actor.now(), minutes * MINUTE);
    actor.pass(length);
    let signal = SessionSignal::new("view", EntityId::new(1), Timestamp::from_nanos(at));
    let signal = signal.span(std::time::Duration::from_nanos(length));
    actor.held.last().expect("held").handle.signal_with(signal).expect("written");
}

fn crash_and_end(actor: &mut Actor, down: u64) -> usize {
    actor.crash(Crash { survives: Survives::Nothing, at_open: AtOpen::EndAll, down });
    actor.db().open_report().sessions_ended.len()
}

fn crash_and_restore(actor: &mut Actor, down: u64) {
    let at_open = AtOpen::RestoreThenExpire;
    actor.crash(Crash { survives: Survives::Nothing, at_open, down });
}

fn end(actor: &Actor, id: u64) -> Ended {
    let info = actor.info(id);
    ended(end_of(&info).unwrap_or_else(|| panic!("{info:?} is open")))
}

fn start_of(actor: &Actor, id: u64) -> u64 {
    actor.info(id).started_at.as_nanos()
}

#[test]
fn test_recover_no_orphans_is_noop() {
    let mut actor = actor();
    let before = digest(&actor);
    assert_eq!(crash_and_end(&mut actor, HOUR), 0);
    assert_eq!(actor.db().open_report().sessions_restored, []);
    assert_eq!(actor.infos(), []);
    assert_eq!(digest(&actor), before);
}

#[test]
fn test_recover_orphan_with_blocks_uses_latest_block_end() {
    let mut actor = actor();
    let id = begin(&mut actor);
    (0..3).for_each(|_| block(&actor, 5));
    let latest = actor.now();
    actor.pass(10 * MINUTE);
    assert_eq!(crash_and_end(&mut actor, 5 * MINUTE), 1);
    let end = end(&actor, id);
    assert_eq!((end.at, end.cause), (latest, Cause::Orphan));
    assert!(matches!(end.evidence, Evidence::Record { .. }));
    assert_eq!(latest, start_of(&actor, id) + 15 * MINUTE);
}

#[test]
fn test_recover_orphan_with_no_blocks_uses_one_minute_fallback() {
    let mut actor = actor();
    let id = begin(&mut actor);
    assert_eq!(crash_and_end(&mut actor, 20 * MINUTE), 1);
    let expected = Ended {
        at: start_of(&actor, id) + MINUTE,
        cause: Cause::Orphan,
        evidence: Evidence::Fallback { clamped: false },
    };
    assert_eq!(end(&actor, id), expected);
}

#[test]
fn test_recover_two_orphans_dont_pollute_each_other() {
    let mut actor = actor();
    let a = begin(&mut actor);
    block(&actor, 5);
    let a_end = actor.now();
    // Restored and not resumed: whoever comes back begins anew.
    crash_and_restore(&mut actor, 10 * MINUTE);
    let b = begin(&mut actor);
    block(&actor, 5);
    block(&actor, 5);
    let b_end = actor.now();
    assert_eq!(crash_and_end(&mut actor, MINUTE), 1);
    assert_eq!((end(&actor, a).at, end(&actor, a).cause), (a_end, Cause::Superseded(b)));
    assert_eq!((end(&actor, b).at, end(&actor, b).cause), (b_end, Cause::Orphan));
    assert!(end(&actor, a).at <= start_of(&actor, b));
}

#[test]
fn test_recover_caps_at_max_session_hours() {
    let mut actor = actor();
    let id = begin(&mut actor);
    let start = start_of(&actor, id);
    // As busy as can be until right before two hours are over.
    (0..11).for_each(|_| block(&actor, 10));
    actor.pass(9 * MINUTE);
    // What is said of the time after them is no evidence; of the time far after them, refused.
    let held = actor.held.last().expect("held");
    let ahead = |by| Timestamp::from_nanos(actor.now() + by);
    held.handle.signal("view", EntityId::new(1), 1.0, ahead(2 * MINUTE)).expect("written");
    let stray = held.handle.signal("view", EntityId::new(1), 1.0, ahead(5 * HOUR));
    assert!(matches!(stray, Err(Error::TooFarAhead { .. })), "{stray:?}");
    assert_eq!(crash_and_end(&mut actor, 12 * HOUR), 1);
    let end = end(&actor, id);
    assert_eq!((end.at, end.cause), (start + 110 * MINUTE, Cause::Max));
    assert!(end.at <= start + 2 * HOUR);
}

#[test]
fn test_recover_is_idempotent() {
    let mut actor = actor();
    begin(&mut actor);
    block(&actor, 5);
    actor.start(43, 0, 0, false).answer.expect("started");
    assert_eq!(crash_and_end(&mut actor, MINUTE), 2);
    let first = (boundaries(&actor), digest(&actor));
    assert_eq!(crash_and_end(&mut actor, HOUR), 0);
    assert_eq!((boundaries(&actor), digest(&actor)), first);
}

#[test]
fn test_recovered_session_visible_to_reduce_all_pending_query() {
    recovered_session_visible(AtOpen::EndAll, MINUTE);
}

#[test]
fn recovered_session_visible_to_reduce_all_pending_query() {
    recovered_session_visible(AtOpen::RestoreThenExpire, 3 * HOUR);
}

/// A session that a recovery ended is found by whoever works through the ended ones, in the list and in
/// the events of a cursor that was there before.
fn recovered_session_visible(at_open: AtOpen, down: u64) {
    let mut actor = actor();
    crate::events::register(&actor, "reducer");
    let id = begin(&mut actor);
    block(&actor, 5);
    actor.crash(Crash { survives: Survives::Everything, at_open, down });
    let is_pending =
        |state: &SessionState| matches!(state, SessionState::Ended(_) | SessionState::Settled(_));
    let listed = crate::events::ended_sessions(&actor);
    assert_eq!(listed.len(), 1);
    assert!(is_pending(&listed[0].state), "{listed:?}");
    let (reported, end) = &actor.db().open_report().sessions_ended[0];
    assert_eq!((reported.as_u64(), Some(end)), (id, end_of(&listed[0])));
    let announced = crate::events::ends_of(&actor, "reducer");
    assert_eq!(announced, [(id, ended(end))]);
}

#[test]
fn test_recover_blockless_orphan_clamps_fallback_to_next_session_start() {
    let mut actor = actor();
    let a = begin(&mut actor);
    crash_and_restore(&mut actor, 30 * SECOND);
    let b = begin(&mut actor);
    let expected = Ended {
        at: start_of(&actor, b),
        cause: Cause::Superseded(b),
        evidence: Evidence::Fallback { clamped: true },
    };
    assert_eq!(end(&actor, a), expected);
    assert_eq!(start_of(&actor, b), start_of(&actor, a) + 30 * SECOND);
}

#[test]
fn a_good_session_between_two_crashes_still_bounds_the_older_orphan() {
    let mut actor = actor();
    let orphan = begin(&mut actor);
    crash_and_restore(&mut actor, 20 * SECOND);
    let good = begin(&mut actor);
    actor.pass(10 * SECOND);
    actor.step(&Step::Close { handle: actor.held.len() - 1 });
    crash_and_restore(&mut actor, 10 * SECOND);
    let last = begin(&mut actor);
    crash_and_end(&mut actor, HOUR);
    assert_eq!(end(&actor, orphan).at, start_of(&actor, good));
    assert_eq!(end(&actor, good).at, start_of(&actor, good) + 10 * SECOND);
    assert_eq!(end(&actor, last).at, start_of(&actor, last) + MINUTE);
}

#[test]
fn quick_restart_then_new_session_does_not_overlap() {
    let mut actor = actor();
    let a = begin(&mut actor);
    assert_eq!(crash_and_end(&mut actor, 10 * SECOND), 1);
    let restarted = actor.now();
    let clamped = Ended {
        at: restarted,
        cause: Cause::Orphan,
        evidence: Evidence::Fallback { clamped: true },
    };
    assert_eq!(end(&actor, a), clamped, "it does not reach into the future");
    let b = begin(&mut actor);
    assert!(end(&actor, a).at <= start_of(&actor, b));
}

#[test]
fn a_year_old_orphan_is_ended_like_any_other() {
    for at_open in [AtOpen::RestoreThenExpire, AtOpen::EndAll, AtOpen::RestoreAll] {
        let mut actor = actor();
        let id = begin(&mut actor);
        block(&actor, 5);
        let latest = actor.now();
        actor.crash(Crash { survives: Survives::Nothing, at_open, down: 365 * 24 * HOUR });
        let end = end(&actor, id);
        assert_eq!(end.at, latest);
        assert!(matches!(end.cause, Cause::Idle | Cause::Max), "{end:?}");
        let ended = &actor.db().open_report().sessions_ended;
        assert_eq!(ended.len(), 1, "and it is reported");
    }
}

#[test]
fn restored_sessions_are_reported_and_wait_for_their_deadline() {
    let mut actor = actor();
    let id = begin(&mut actor);
    block(&actor, 5);
    let deadline = actor.info(id).deadline;
    crash_and_restore(&mut actor, 20 * MINUTE);
    let report = actor.db().open_report();
    assert_eq!(report.sessions_restored.iter().map(|id| id.as_u64()).collect::<Vec<_>>(), [id]);
    assert_eq!(report.sessions_ended, []);
    assert!(!report.clean);
    let info = actor.info(id);
    assert!(matches!(info.state, SessionState::Restored { .. }), "{info:?}");
    assert_eq!(info.deadline, deadline);
    actor.step(&Step::Resume { session: 0 });
    assert!(matches!(actor.info(id).state, SessionState::Active));
}

//! The sweeper, whoever does its work, and what closing does.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidal_support::{files, hex};
use tidaldb::builtin::Usage;
use tidaldb::schema::{EntityId, Timestamp};
use tidaldb::{
    Clock, ClosePolicy, Durability, EndCause, Error, EventFilter, EventKind, ManualClock,
    PlannedSweep, ProcessorOptions, SessionConfig, SessionEvent, SessionFilter, SessionId,
    SessionInfo, SessionState, SkipReason, SweepChange, TidalDb,
};

use crate::{
    HOUR, IDLE, MINUTE, PATIENCE, START, builder, ephemeral, manual, open, options, schema, start,
    told,
};

/// How often a run of the script lets the sweeper work.
#[derive(Debug, Clone, Copy)]
enum Sweeps {
    Never,
    AtTheEnd,
    AllTheTime,
}

/// Three users who come and go on a clock that moves in steps; the sessions at the end, and the digest.
fn run(sweeps: Sweeps) -> (Vec<SessionInfo>, [u8; 32]) {
    let (db, clock) = ephemeral(manual());
    let mut open: Vec<Option<SessionId>> = vec![None; 3];
    for step in 0..200_u64 {
        clock.advance(MINUTE * (step * step % 13) as u32);
        if matches!(sweeps, Sweeps::AllTheTime) {
            db.drive().expect("swept");
        }
        let user = (step * 7 % 3) as usize;
        let held = open[user].and_then(|id| db.resume_session(id).ok());
        let held = held
            .unwrap_or_else(|| db.start_session(user as u64, "phone", "default").expect("started"));
        open[user] = Some(held.session_id());
        let at = START.saturating_add(MINUTE);
        match step % 5 {
            0 => held.signal("view", EntityId::new(step), 1.0, at).map(drop).expect("written"),
            1 => held.heartbeat().map(drop).expect("it goes on"),
            2 => held.extend(HOUR).map(drop).expect("it goes on"),
            3 => held.annotate(EntityId::new(step), "noted").map(drop).expect("written"),
            _ => open[user] = held.close().map(|_| None).expect("it ends"),
        }
    }
    clock.advance(HOUR * 3);
    // An operation of everybody: what time has ended before it has ended for good.
    db.hide_item(EntityId::new(1)).expect("written");
    if matches!(sweeps, Sweeps::AtTheEnd | Sweeps::AllTheTime) {
        db.drive().expect("swept");
    }
    let all = db.sessions().list(&SessionFilter::new().limit(1_000)).expect("listed");
    assert!(db.verify().expect("verified").is_sound());
    (all, db.state_digest().expect("in memory"))
}

#[test]
fn sessions_end_where_they_end_whether_the_sweeper_is_early_late_or_away() {
    let (never, digest_never) = run(Sweeps::Never);
    let (late, digest_late) = run(Sweeps::AtTheEnd);
    let (early, digest_early) = run(Sweeps::AllTheTime);
    assert!(never.len() > 20, "{} sessions prove little", never.len());
    let idle =
        |info: &SessionInfo| info.state.end().is_some_and(|end| end.cause == EndCause::IdleTimeout);
    assert!(never.iter().any(idle) && !never.iter().all(idle));
    let bounds = |infos: &[SessionInfo]| {
        let bounds = infos.iter().map(|info| (info.id, info.started_at, info.state.clone()));
        bounds.collect::<Vec<_>>()
    };
    assert_eq!(bounds(&never), bounds(&late));
    assert_eq!(bounds(&never), bounds(&early));
    assert_eq!(hex(&digest_never), hex(&digest_late));
    assert_eq!(hex(&digest_never), hex(&digest_early));
}

#[test]
fn a_sweep_ends_so_many_at_once_and_the_rest_in_the_next_frame() {
    let (db, clock) = ephemeral(manual());
    for user in 0..2_500 {
        clock.advance(Duration::from_nanos(1));
        start(&db, user);
    }
    clock.advance(IDLE + HOUR);
    let before = db.applied();
    let swept = db.drive().expect("swept").swept;
    assert_eq!((swept.ended, swept.settled), (2_500, 2_500));
    assert_eq!(db.applied().get() - before.get(), 3, "a thousand in a frame");
    let before = db.applied();
    assert_eq!(db.drive().expect("nothing is due").swept.ended, 0);
    assert_eq!(db.applied(), before, "nothing due, nothing written");
}

#[test]
fn nobody_is_told_before_the_deadline_has_passed() {
    let (db, clock) = ephemeral(manual());
    let id = start(&db, 1);
    clock.advance(IDLE);
    assert_eq!(db.drive().expect("driven").swept.ended, 0, "30:00 is not too late");
    let info = db.sessions().get(id).expect("read").expect("there");
    assert_eq!(info.deadline, Some(START.saturating_add(IDLE)));
    clock.advance(Duration::from_nanos(1));
    assert!(db.sessions().overdue().expect("listed").is_empty(), "not for long yet");
    clock.advance(MINUTE);
    let stuck = db.sessions().overdue().expect("listed");
    assert_eq!(stuck.iter().map(|info| info.id).collect::<Vec<_>>(), [id]);
    assert!(matches!(stuck[0].state, SessionState::Settled(_)), "it has ended all the same");
    assert_eq!(db.sessions().sweep().expect("swept").ended, 1);
    assert!(db.sessions().overdue().expect("listed").is_empty());
}

fn every(sweep_interval: Duration) -> SessionConfig {
    let mut sessions = SessionConfig::default();
    sessions.sweep_interval = sweep_interval;
    sessions
}

#[test]
fn the_thread_notices_by_itself_and_closing_does_not_wait_for_it() {
    let (db, clock) = ephemeral(every(Duration::from_millis(10)));
    let ends = EventFilter::all().kinds([EventKind::Ended]);
    let events = db.sessions().subscribe(ends).expect("subscribed");
    let id = start(&db, 1);
    clock.advance(IDLE + Duration::from_nanos(1));
    match events.recv_timeout(PATIENCE) {
        Some((_, SessionEvent::Ended { id: ended, end })) => {
            assert_eq!((ended, end.cause), (id, EndCause::IdleTimeout));
        }
        other => panic!("{other:?}"),
    }
    db.close().expect("closed");
    let (db, _) = ephemeral(every(Duration::from_secs(86_400)));
    start(&db, 1);
    let closing = Instant::now();
    db.close().expect("closed");
    assert!(closing.elapsed() < PATIENCE, "it sleeps for a day");
}

#[test]
fn a_sweeper_that_is_refused_tries_again() {
    let mut sessions = every(Duration::from_millis(10));
    sessions.background_retry = Duration::from_millis(10);
    let (db, clock) = ephemeral(sessions);
    let ends = EventFilter::all().kinds([EventKind::Ended]);
    let events = db.sessions().subscribe(ends).expect("subscribed");
    let id = start(&db, 1);
    // The clock jumps, and every write is refused until somebody says that it is right.
    clock.set(START.saturating_add(HOUR * 3));
    assert!(matches!(db.drive(), Err(Error::ClockJumped { .. })));
    assert_eq!(events.recv_timeout(Duration::from_millis(100)), None);
    db.reset_clock().expect("it is right");
    let told = events.recv_timeout(PATIENCE).map(|(_, event)| event);
    assert!(matches!(told, Some(SessionEvent::Ended { id: ended, .. }) if ended == id), "{told:?}");
}

#[test]
fn a_sweeper_that_sleeps_for_long_is_woken_for_what_is_due_before() {
    let db = TidalDb::builder()
        .ephemeral()
        .with_schema(schema())
        .with_options(options())
        .with_sessions(every(HOUR))
        .open()
        .expect("opens");
    let ends = EventFilter::all().kinds([EventKind::Ended]);
    let events = db.sessions().subscribe(ends).expect("subscribed");
    // By now it has seen that nothing is due, or will not see anything else.
    std::thread::sleep(Duration::from_millis(50));
    let id = db.start_session(1, "phone", "brief").expect("started").detach();
    let told = events.recv_timeout(PATIENCE).map(|(_, event)| event);
    assert!(matches!(told, Some(SessionEvent::Ended { id: ended, .. }) if ended == id), "{told:?}");
}

#[test]
fn an_idle_database_writes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::at(START);
    let sessions = every(Duration::from_millis(10));
    let db = builder(&clock, sessions).with_data_dir(dir.path()).open().expect("opens");
    start(&db, 1);
    let log = dir.path().join("log");
    let (before, applied) = (files(&log), db.applied());
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(db.applied(), applied);
    assert!(files(&log) == before, "the log changed though nothing was due");
}

fn reopened_states(dir: &Path, clock: &ManualClock) -> Vec<SessionState> {
    let db = open(dir, clock);
    let all = db.sessions().list(&SessionFilter::new()).expect("listed");
    all.into_iter().map(|info| info.state).collect()
}

#[test]
fn closing_leaves_sessions_open_or_ends_them_as_it_is_told() {
    for on_close in [ClosePolicy::LeaveOpen, ClosePolicy::EndAll] {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = ManualClock::at(START);
        let mut sessions = SessionConfig::default();
        sessions.on_close = on_close;
        let db = builder(&clock, sessions).with_data_dir(dir.path()).open().expect("opens");
        let handle = db.start_session(1, "phone", "default").expect("started");
        clock.advance(MINUTE * 5);
        db.close().expect("closed");
        assert!(handle.heartbeat().is_err(), "handles do not outlive it");
        match (on_close, &reopened_states(dir.path(), &clock)[..]) {
            (ClosePolicy::LeaveOpen, [SessionState::Restored { .. }]) => {}
            (ClosePolicy::EndAll, [SessionState::Settled(end)]) => {
                assert_eq!(end.cause, EndCause::Shutdown);
                assert_eq!(end.at, START.saturating_add(MINUTE), "nothing tells of more");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_events_carry_time_to_is_due_where_events_advance_time() {
    let mut options = options();
    (options.durability, options.max_event_jump) = (Durability::Sync, HOUR * 24);
    let clock = ManualClock::at(Timestamp::from_secs(1));
    let db = builder(&clock, manual())
        .ephemeral()
        .with_options(options)
        .with_time_source(tidaldb::TimeSource::Events)
        .open()
        .expect("opens");
    let view = |at| db.signal("view", EntityId::new(1), 1.0, at).map(drop).expect("counted");
    view(START);
    let id = start(&db, 1);
    view(START.saturating_add(IDLE));
    assert_eq!(db.drive().expect("driven").swept.ended, 0);
    view(START.saturating_add(IDLE + MINUTE));
    assert_eq!(db.drive().expect("driven").swept.ended, 1);
    let info = db.sessions().get(id).expect("read").expect("there");
    assert_eq!(info.state.end().map(|end| end.at), Some(START.saturating_add(MINUTE)));
}

#[test]
fn a_plan_says_what_a_sweep_would_do_writes_nothing_and_is_compared_when_it_is_carried_out() {
    let (db, clock) = ephemeral(manual());
    let [idle, extended] = [1, 2].map(|user| start(&db, user));
    assert!(db.sessions().plan_sweep().expect("planned").is_empty());
    clock.advance(IDLE);
    assert!(
        db.sessions().plan_sweep().expect("planned").is_empty(),
        "30 minutes are not more than 30"
    );
    clock.advance(Duration::from_nanos(1));
    let (before, digest) = (db.applied(), db.state_digest().expect("read"));
    let plan = db.sessions().plan_sweep().expect("planned");
    assert_eq!((db.applied(), db.state_digest().expect("read")), (before, digest));
    assert_eq!(plan.to_string(), "ends 2 sessions, settles 2, gives up the processing of 0");
    let end = db.sessions().get(idle).expect("read").expect("there").state.end().cloned();
    let change = SweepChange::End { end: end.expect("it is over"), settles: true };
    assert_eq!(plan.items()[0], PlannedSweep { session: idle, change });
    let events = db.sessions().subscribe(EventFilter::all()).expect("subscribed");
    assert!(told(&events).is_empty());
    let again = plan.clone();
    let applied = db.sessions().apply(plan).expect("applied");
    assert_eq!((applied.done, applied.skipped), (vec![idle, extended], vec![]));
    assert_eq!(told(&events).len(), 4, "both ended, and settled");
    let applied = db.sessions().apply(again).expect("applied");
    let moved = [idle, extended].map(|id| (id, SkipReason::StateMoved));
    assert_eq!((applied.done, applied.skipped), (vec![], moved.to_vec()));
}

#[test]
fn a_database_that_is_dropped_leaves_no_thread_behind() {
    let clock = Arc::new(ManualClock::at(START));
    let mut config = every(Duration::from_secs(3_600));
    config.prune_after = Some(HOUR);
    let builder = builder(&clock, config).with_clock(Arc::clone(&clock) as Arc<dyn Clock>);
    let db = builder.ephemeral().open().expect("opens");
    db.sessions().register(Usage::new(), ProcessorOptions::default()).expect("registered");
    assert!(Arc::strong_count(&clock) > 1);
    drop(db);
    assert_eq!(Arc::strong_count(&clock), 1, "each thread would hold the clock");
}

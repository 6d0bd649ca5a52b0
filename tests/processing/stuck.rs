//! What is processed for too long, and what an operator does about it.

use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, Sender};

use super::*;
use tidaldb::{
    EventFilter, FailCause, PlannedReprocess, PlannedRequeue, PlannedReset, ReprocessPlan,
    RequeuePlan, ResetFilter, ResetPlan, SessionEvent, SessionFilter, SessionId, SkipReason,
};

/// A processor that hangs until it is let go.
pub(super) struct Hanging {
    pub(super) probe: Probe,
    pub(super) entered: Receiver<SessionId>,
    pub(super) let_go: Sender<()>,
}

pub(super) fn hanging(name: &'static str) -> Hanging {
    let (enter, entered) = mpsc::channel();
    let (let_go, gone) = mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    let probe = probe(name, move |session, out| {
        enter.send(session.id()).expect("heard");
        gone.lock().expect("alone").recv_timeout(PATIENCE).expect("it is let go");
        put_pure(session, out)
    });
    Hanging { probe, entered, let_go }
}

fn without_auto_timeout() -> (TidalDb, ManualClock) {
    let clock = ManualClock::at(START);
    let mut sessions = manual();
    sessions.auto_timeout = false;
    (builder(&clock, sessions).ephemeral().open().expect("opens"), clock)
}

/// Lets a hanging processor begin with a session, does something, and lets it go; what the run says.
pub(super) fn while_busy(
    db: &TidalDb,
    it: &Hanging,
    id: SessionId,
    then: impl FnOnce(),
) -> RunStats {
    std::thread::scope(|scope| {
        let only = RunOptions::new().only(id);
        let name = it.probe.name;
        let run = scope.spawn(move || db.sessions().run_processor(name, only));
        assert_eq!(it.entered.recv_timeout(PATIENCE), Ok(id));
        then();
        it.let_go.send(()).expect("it hangs");
        run.join().expect("no panic").expect("it runs")
    })
}

#[test]
fn test_timeout_stuck_session() {
    let (db, clock) = ephemeral();
    let it = hanging("it");
    register(&db, &it.probe, minutely());
    let id = ended(&db, 1, 1);
    let events = db.sessions().subscribe(EventFilter::all()).expect("subscribed");
    let stats = while_busy(&db, &it, id, || {
        clock.advance(30 * MINUTE);
        assert_eq!(db.drive().expect("drives").swept.failed, 0, "30 minutes are not more than 30");
        clock.advance(90 * MINUTE);
        let before = db.applied().get();
        assert_eq!(db.drive().expect("drives").swept.failed, 1);
        assert_eq!(db.applied().get(), before + 1, "one commit");
        assert_eq!(db.drive().expect("drives").swept.failed, 0, "once");
        assert_eq!(db.applied().get(), before + 1);
        let cause = failure(&db, id).expect("it has failed");
        let timed_out = FailCause::TimedOut { after: 30 * MINUTE, automatic: true };
        assert_eq!(cause, timed_out);
        assert!(db.sessions().stuck().expect("listed").is_empty());
    });
    assert_eq!((stats.fenced, stats.processed), (1, 0), "what comes too late does not count");
    assert_eq!(db.sessions().outputs("it", id).expect("read"), []);
    let failed = std::iter::from_fn(|| events.try_recv())
        .filter(|(_, event)| matches!(event, SessionEvent::Failed { .. }));
    assert_eq!(failed.count(), 1);
    let records = db.sessions().records(id).expect("read");
    assert_eq!(records.len(), 1, "what is in it stays");
}

#[test]
fn test_emergency_session_reset() {
    let (db, clock) = without_auto_timeout();
    let it = hanging("it");
    register(&db, &it.probe, minutely());
    let (stuck, fresh) = (ended(&db, 1, 2), ended(&db, 2, 2));
    let stats = while_busy(&db, &it, stuck, || {
        clock.advance(2 * HOUR);
        assert_eq!(db.drive().expect("drives").swept.failed, 0, "it is switched off");
        let mut filter = ResetFilter::default();
        (filter.by, filter.reason) = ("ann".to_owned(), "incident 7".to_owned());
        let before = (db.applied(), db.state_digest().expect("read"));
        let plan = db.sessions().plan_reset(&filter).expect("planned");
        assert_eq!(before, (db.applied(), db.state_digest().expect("read")), "a plan is pure");
        assert_eq!(plan.to_string(), "gives up the processing of 1 session");
        let (by, reason) = plan.words();
        let kept = ResetPlan::new(by.to_owned(), reason.to_owned(), plan.items().to_vec());
        assert_eq!(kept, plan, "it can be written down");
        assert_eq!(db.sessions().apply(kept).expect("applied").done, [stuck]);
        assert!(db.sessions().stuck().expect("listed").is_empty());
        let again = db.sessions().apply(plan).expect("applied");
        assert_eq!((again.done, again.skipped), (vec![], vec![(stuck, SkipReason::StateMoved)]));
    });
    assert_eq!(stats.fenced, 1);
    let cause = failure(&db, stuck).expect("it has failed");
    let reset = FailCause::Reset { by: "ann".to_owned(), reason: "incident 7".to_owned() };
    assert_eq!(cause, reset);
    assert!(failure(&db, fresh).is_none());
    // And it can be brought back.
    let plan = db.sessions().plan_requeue(&SessionFilter::new()).expect("planned");
    assert_eq!(plan.items().iter().map(|item| item.session).collect::<Vec<_>>(), [stuck]);
    db.sessions().apply(plan).expect("applied");
    it.let_go.send(()).expect("it hangs");
    it.let_go.send(()).expect("it hangs");
    assert_eq!(run(&db, "it").processed, 2);
    assert!(is_settled(&db, stuck) && is_settled(&db, fresh));
    assert_eq!(db.sessions().outputs("it", stuck).expect("read"), pure_outputs(&db, stuck));
}

/// The five sessions of the incident, in minutes.
const AGES: [u64; 5] = [9_856, 9_656, 9_375, 8_186, 1_178];

#[test]
fn five_stuck_sessions() {
    let (db, clock) = without_auto_timeout();
    let names = ["p0", "p1", "p2", "p3", "p4"];
    let all = names.map(hanging);
    all.iter().for_each(|it| register(&db, &it.probe, minutely()));
    let ids = [0, 1, 2, 3, 4].map(|user| ended(&db, user, 1));
    std::thread::scope(|scope| {
        let mut runs = Vec::new();
        for (i, it) in all.iter().enumerate() {
            let only = RunOptions::new().only(ids[i]);
            let db = &db;
            let name = it.probe.name;
            runs.push(scope.spawn(move || db.sessions().run_processor(name, only)));
            assert_eq!(it.entered.recv_timeout(PATIENCE), Ok(ids[i]));
            let next = AGES.get(i + 1).copied().unwrap_or_default();
            clock.advance(Duration::from_secs(60 * (AGES[i] - next)));
        }
        let stuck = db.sessions().stuck().expect("listed");
        let ages: Vec<u64> = stuck.iter().map(|it| it.processing_for.as_secs() / 60).collect();
        assert_eq!(ages, AGES, "the longest first");
        assert_eq!(stuck.iter().map(|it| it.id).collect::<Vec<_>>(), ids);
        assert_eq!(stuck[2].waiting_on, ["p2"]);
        let plan = db.sessions().plan_reset(&ResetFilter::default()).expect("planned");
        let for_so_long: Vec<u64> =
            plan.items().iter().map(|item| item.for_so_long.as_secs() / 60).collect();
        assert_eq!(for_so_long, AGES);
        let before = db.applied().get();
        assert_eq!(db.sessions().apply(plan).expect("applied").done, ids);
        assert_eq!(db.applied().get(), before + 1, "one commit for all of them");
        assert!(db.sessions().stuck().expect("listed").is_empty(), "none is left");
        all.iter().for_each(|it| it.let_go.send(()).expect("it hangs"));
        for run in runs {
            assert_eq!(run.join().expect("no panic").expect("runs").fenced, 1);
        }
    });
    let plan = db.sessions().plan_requeue(&SessionFilter::new()).expect("planned");
    assert_eq!(db.sessions().apply(plan).expect("applied").done, ids);
    for it in &all {
        ids.iter().for_each(|_| it.let_go.send(()).expect("it hangs"));
        run(&db, it.probe.name);
    }
    assert!(ids.iter().all(|&id| is_settled(&db, id)));
}

/// P41.
#[test]
fn processing_timeout_counts_busy_time_only() {
    let (db, clock) = ephemeral();
    let it = probe("it", |session, _| match session.attempt() {
        1 => Err(ProcessError::retry_after(5 * HOUR, "not yet")),
        _ => Ok(Processed::default()),
    });
    register(&db, &it, minutely());
    let session = db.start_session(1, "phone", "default").expect("started");
    session.extend(2 * HOUR).expect("extended");
    clock.advance(HOUR);
    db.sessions().sweep().expect("swept");
    let id = session.session_id();
    session.close().expect("closed");
    // A backlog, then a repetition that waits.
    clock.advance(4 * HOUR);
    assert_eq!(db.sessions().sweep().expect("swept").failed, 0);
    assert_eq!(run(&db, "it").errors, 1);
    clock.advance(4 * HOUR);
    assert_eq!(db.sessions().sweep().expect("swept").failed, 0);
    clock.advance(HOUR);
    assert_eq!(run(&db, "it").processed, 1);
    assert!(is_settled(&db, id) && failure(&db, id).is_none());
}

/// P40.
#[test]
fn apply_is_compare_and_set() {
    let (db, clock) = without_auto_timeout();
    let (one, two) = (hanging("one"), hanging("two"));
    register(&db, &one.probe, minutely());
    register(&db, &two.probe, minutely());
    let ids = [1, 2].map(|user| ended(&db, user, 1));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| {
            db.sessions().run_processor("one", RunOptions::new().only(ids[0])).expect("runs")
        });
        assert_eq!(one.entered.recv_timeout(PATIENCE), Ok(ids[0]));
        let second = scope.spawn(|| {
            db.sessions().run_processor("two", RunOptions::new().only(ids[1])).expect("runs")
        });
        assert_eq!(two.entered.recv_timeout(PATIENCE), Ok(ids[1]));
        clock.advance(HOUR);
        let plan = db.sessions().plan_reset(&ResetFilter::default()).expect("planned");
        assert_eq!(plan.items().len(), 2);
        // The first one comes to an end before the plan is carried out.
        one.let_go.send(()).expect("it hangs");
        assert_eq!(first.join().expect("no panic").processed, 1);
        let applied = db.sessions().apply(plan).expect("applied");
        assert_eq!(
            (applied.done, applied.skipped),
            (vec![ids[1]], vec![(ids[0], SkipReason::StateMoved)])
        );
        // A requeue begins anew: what the old attempt makes does not count, though nobody has begun.
        let plan = RequeuePlan::new(
            ids.map(|session| PlannedRequeue {
                session,
                has_failed: true,
                quarantined_by: Vec::new(),
            })
            .to_vec(),
        );
        let applied = db.sessions().apply(plan).expect("applied");
        assert_eq!(
            (applied.done, applied.skipped),
            (vec![ids[1]], vec![(ids[0], SkipReason::StateMoved)])
        );
        two.let_go.send(()).expect("it hangs");
        assert_eq!(second.join().expect("no panic").fenced, 1);
        assert_eq!(db.sessions().outputs("two", ids[1]).expect("read"), []);
    });
    assert_eq!(db.sessions().outputs("one", ids[0]).expect("read"), pure_outputs(&db, ids[0]));
    let unknown = PlannedReset {
        session: SessionId::new(u64::MAX),
        busy_since: None,
        for_so_long: Duration::ZERO,
    };
    let plan = ResetPlan::new("ann".to_owned(), String::new(), vec![unknown]);
    assert_eq!(db.sessions().apply(plan).expect("applied").skipped.len(), 1);
}

#[test]
fn sessions_that_nobody_is_busy_with_are_given_up_only_when_that_is_asked_for() {
    let (db, clock) = ephemeral();
    register(&db, &pure("it"), minutely());
    let id = ended(&db, 1, 1);
    let open = db.start_session(2, "phone", "default").expect("started");
    clock.advance(29 * MINUTE);
    open.heartbeat().expect("touched");
    clock.advance(2 * MINUTE);
    let mut filter = ResetFilter::default();
    assert!(db.sessions().plan_reset(&filter).expect("planned").is_empty());
    filter.include_waiting = true;
    let plan = db.sessions().plan_reset(&filter).expect("planned");
    let items: Vec<_> = plan.items().iter().map(|item| (item.session, item.busy_since)).collect();
    assert_eq!(items, [(id, None)], "not the open one");
    assert_eq!(db.sessions().apply(plan).expect("applied").done, [id]);
    assert_eq!(run(&db, "it").scanned, 0, "one that was given up is not handed out");
}

#[test]
fn a_reset_goes_by_the_time_out_of_each_session_unless_it_is_told_another() {
    let clock = ManualClock::at(START);
    let mut sessions = manual();
    (sessions.auto_timeout, sessions.warn_after) = (false, Vec::new());
    sessions.processing_timeout = tidaldb::ProcessingTimeout::Scaled {
        base: 5 * MINUTE,
        per_1k_records: 1_000 * MINUTE,
        max: HOUR,
    };
    let db = builder(&clock, sessions).ephemeral().open().expect("opens");
    let it = hanging("it");
    register(&db, &it.probe, minutely());
    let (small, large) = (ended(&db, 1, 0), ended(&db, 2, 10));
    let planned = |filter: &ResetFilter| -> Vec<(SessionId, bool)> {
        let plan = db.sessions().plan_reset(filter).expect("planned");
        plan.items().iter().map(|item| (item.session, item.busy_since.is_some())).collect()
    };
    let mut filter = ResetFilter::default();
    filter.include_waiting = true;
    while_busy(&db, &it, small, || {
        clock.advance(5 * MINUTE);
        assert_eq!(planned(&filter), []);
        clock.advance(SECOND);
        assert_eq!(planned(&filter), [(small, true)]);
        assert_eq!(db.sessions().stuck().expect("listed").len(), 1);
        clock.advance(10 * MINUTE);
        assert_eq!(planned(&filter), [(small, true), (large, false)], "that of 10 records");
        assert_eq!(planned(&ResetFilter::default()), [(small, true)]);
        filter.timeout = Some(20 * MINUTE);
        assert_eq!(planned(&filter), []);
        filter.timeout = Some(MINUTE);
        assert_eq!(planned(&filter), [(small, true), (large, false)]);
    });
}

#[test]
fn a_call_is_asked_to_stop_when_it_takes_too_long_or_counts_no_more() {
    let (db, clock) = ephemeral();
    let (enter, entered) = mpsc::channel();
    let (tell, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let it = probe("it", move |session, _| {
        while told.lock().expect("alone").recv_timeout(PATIENCE).is_ok() {
            enter.send(session.should_stop()).expect("heard");
        }
        Ok(Processed::default())
    });
    let mut unbounded = minutely();
    unbounded.time_budget = None;
    register(&db, &it, unbounded);
    let ids = [1, 2].map(|user| ended(&db, user, 1));
    std::thread::scope(|scope| {
        let run = scope.spawn(|| run(&db, "it"));
        let asks = || {
            tell.send(()).expect("it listens");
            entered.recv_timeout(PATIENCE).expect("it answers")
        };
        assert!(!asks());
        clock.advance(15 * MINUTE);
        assert!(!asks(), "15 minutes are not more than 15");
        clock.advance(SECOND);
        assert!(asks());
        drop(tell);
        assert_eq!(run.join().expect("no panic").processed, 2);
    });
    assert!(ids.iter().all(|&id| is_settled(&db, id)));
}

#[test]
fn a_reprocess_is_left_to_the_next_run_also_of_another_open() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::at(START);
    let db = open(dir.path(), &clock);
    let it = probe("it", put_pure);
    register(&db, &it, minutely());
    let ids = [1, 2, 3].map(|user| ended(&db, user, 1));
    assert_eq!(run(&db, "it").processed, 3);
    let wants = SessionFilter::new().limit(2);
    let plan = db.sessions().plan_reprocess("it", &wants).expect("planned");
    assert_eq!((plan.items().len(), plan.processor()), (2, "it"));
    let applied = db.sessions().apply(plan).expect("applied");
    assert_eq!((applied.done, applied.skipped), (ids[..2].to_vec(), vec![]));
    assert_eq!(it.calls(), 3, "nobody is called by a plan");
    assert!(ids.iter().all(|&id| is_settled(&db, id)), "and nothing is unsettled by it");
    let outputs = db.sessions().outputs("it", ids[0]).expect("read");
    assert!(!outputs.is_empty(), "what was made stays until there is something new");
    // Nor does it need the processor, and it outlives the process.
    drop(db);
    let db = open(dir.path(), &clock);
    let again = db.sessions().plan_reprocess("it", &wants).expect("planned");
    assert_eq!(db.sessions().apply(again.clone()).expect("applied").done, ids[..2]);
    clock.advance(SECOND);
    register(&db, &it, minutely());
    assert_eq!((run(&db, "it").processed, run(&db, "it").processed, it.calls()), (2, 0, 5));
    assert_eq!(db.sessions().outputs("it", ids[0]).expect("read"), outputs);
    // It has seen them since: applied again the plan does nothing.
    let applied = db.sessions().apply(again).expect("applied");
    let moved = [ids[0], ids[1]].map(|id| (id, SkipReason::StateMoved));
    assert_eq!((applied.done, applied.skipped), (vec![], moved.to_vec()));
}

#[test]
fn a_reprocess_gives_what_was_given_up_another_chance_and_leaves_the_rest_alone() {
    let (db, _clock) = ephemeral();
    let it = probe("it", |session, out| match session.info().user.get() {
        2 if session.info().signals == 2 => Err(ProcessError::Permanent("no".into())),
        _ => put_pure(session, out),
    });
    register(&db, &it, observing());
    let ids = [ended(&db, 1, 1), ended(&db, 2, 2)];
    run(&db, "it");
    let open = db.start_session(3, "phone", "default").expect("started").detach();
    let committed_at = |id| {
        let row = db.sessions().processor_row("it", id).expect("read");
        row.and_then(|row| Some(row.outcome?.committed_at))
    };
    let items = [ids[0], ids[1], open, SessionId::new(999)]
        .map(|session| PlannedReprocess { session, committed_at: committed_at(session) });
    let plan = ReprocessPlan::new("it".to_owned(), items.to_vec());
    let applied = db.sessions().apply(plan).expect("applied");
    assert_eq!(applied.done, ids);
    let moved = [(open, SkipReason::StateMoved), (SessionId::new(999), SkipReason::Gone)];
    assert_eq!(applied.skipped, moved);
    let stats = run(&db, "it");
    assert_eq!((stats.processed, stats.quarantined, it.calls()), (1, 1, 4), "it failed once more");
    let nobody = ReprocessPlan::new("nobody".to_owned(), Vec::new());
    let refused = db.sessions().apply(nobody).expect_err("there is no such processor");
    assert_eq!(refused.kind(), tidaldb::ErrorKind::Invalid);
}

/// P41: attempts begin together, and what waits for its turn behind a call that hangs is not processed.
#[test]
fn a_call_that_hangs_costs_no_session_beside_it_anything() {
    let (db, clock) = ephemeral();
    let (tell, told) = mpsc::channel::<()>();
    let (here, is_here) = mpsc::channel::<()>();
    let (told, here) = (Mutex::new(told), Mutex::new(here));
    let it = probe("it", move |session, out| {
        if session.info().user.get() == 4 && session.attempt() == 1 {
            here.lock().expect("alone").send(()).expect("somebody looks");
            let _ = told.lock().expect("alone").recv();
        }
        put_pure(session, out)
    });
    register(&db, &it, minutely());
    let ids: Vec<SessionId> = (1..=8).map(|user| ended(&db, user, 1)).collect();
    let stats = std::thread::scope(|scope| {
        let run = scope.spawn(|| run(&db, "it"));
        is_here.recv().expect("it hangs");
        clock.advance(31 * MINUTE);
        let stuck = db.sessions().stuck().expect("read");
        assert_eq!(stuck.iter().map(|it| it.id).collect::<Vec<_>>(), [ids[3]]);
        assert_eq!(stuck[0].waiting_on, ["it"]);
        let plan = db.sessions().plan_reset(&ResetFilter::default()).expect("planned");
        assert_eq!(plan.items().len(), 1);
        assert_eq!(db.sessions().sweep().expect("swept").failed, 1);
        // It hangs on, whatever became of its session.
        let health = db.health();
        let overrun = health.checks.iter().find(|check| check.rule == "processors.overrun");
        assert_eq!(overrun.expect("there").severity, tidaldb::Severity::Warning);
        assert_eq!(health.processors[0].running_for, Some(31 * MINUTE));
        assert!(db.sessions().stuck().expect("read").is_empty());
        drop(tell);
        run.join().expect("no panic")
    });
    // The run has spent its time; what was given back is there for the next one.
    assert_eq!((stats.processed, stats.fenced, stats.errors), (3, 1, 0));
    assert_eq!(run(&db, "it").processed, 4);
    let row = db.sessions().processor_row("it", ids[3]).expect("read").expect("it was tried");
    assert!(
        matches!(&row.status, ProcessorStatus::Quarantined { error, .. } if error.contains("timed out")),
        "{row:?}"
    );
    assert_eq!(db.health().processors[0].running_for, None);
    for (at, &id) in ids.iter().enumerate() {
        assert_eq!(is_settled(&db, id), at != 3, "session {at}");
    }
}

#[test]
fn what_is_given_back_is_no_error_and_is_processed_by_the_same_run() {
    let (db, clock) = ephemeral();
    let it = probe("it", move |session, out| {
        // The second of four that begin together.
        if session.info().user.get() == 5 {
            clock.advance(2 * SECOND);
        }
        put_pure(session, out)
    });
    register(&db, &it, minutely());
    let ids: Vec<SessionId> = (1..=7).map(|user| ended(&db, user, 1)).collect();
    let stats = run(&db, "it");
    assert_eq!((stats.scanned, stats.processed, stats.errors, stats.deferred), (7, 7, 0, 0));
    assert!(ids.iter().all(|&id| is_settled(&db, id)));
}

#[test]
fn a_plan_of_reset_is_not_believed_when_it_is_carried_out() {
    let (db, clock) = ephemeral();
    register(&db, &probe("it", put_pure), minutely());
    let id = ended(&db, 1, 1);
    clock.advance(HOUR);
    let item = PlannedReset { session: id, busy_since: None, for_so_long: HOUR };
    let long = ResetPlan::new("x".repeat(9_000), String::new(), vec![item]);
    let refused = db.sessions().apply(long).expect_err("too long");
    assert_eq!(refused.kind(), tidaldb::ErrorKind::Invalid);
    let unknown = PlannedReset { session: SessionId::new(999), ..item };
    let plan = ResetPlan::new("me".to_owned(), String::new(), vec![unknown]);
    let applied = db.sessions().apply(plan).expect("applied");
    assert_eq!(applied.skipped, [(SessionId::new(999), SkipReason::Gone)]);
}

#[test]
fn a_session_that_takes_late_records_waits_for_nobody() {
    let (db, clock) = ephemeral();
    register(&db, &probe("it", put_pure), minutely());
    let id = ended_under(&db, 1, 1, "lenient");
    let mut filter = ResetFilter::default();
    filter.include_waiting = true;
    clock.advance(31 * MINUTE);
    assert_eq!(db.sessions().plan_reset(&filter).expect("planned").items(), []);
    clock.advance(24 * HOUR);
    let plan = db.sessions().plan_reset(&filter).expect("planned");
    assert_eq!(plan.items().iter().map(|item| item.session).collect::<Vec<_>>(), [id]);
}

//! Properties of processing that no other file holds as a whole; docs/properties.md lists all of them.

use std::sync::Mutex;
use std::time::Instant;

use super::*;
use tidal_support::files;
use tidaldb::{
    JobOutcome, PlannedReset, ResetFilter, ResetPlan, Retention, SessionFilter, SessionSignal,
};

fn late(db: &TidalDb, id: SessionId) {
    let signal = SessionSignal::new("view", EntityId::new(99), db.engine_time());
    db.sessions().append_late(id, signal).expect("it takes late records");
}

/// P20: what a run passes over has the content that was seen, whether it got more while the processor was
/// there, or while nobody had registered it.
#[test]
fn precheck_is_sound() {
    let (db, clock) = ephemeral();
    let it = pure("it");
    register(&db, &it, observing());
    let ids: Vec<SessionId> =
        (0..12).map(|user| ended_under(&db, user, user % 3, "lenient")).collect();
    assert_eq!(run(&db, "it").processed, 12);
    let grow = |from: usize| ids.iter().skip(from).step_by(4).for_each(|&id| late(&db, id));
    grow(0);
    let stats = run(&db, "it");
    assert_eq!((stats.scanned, stats.processed), (3, 3), "those that have grown, and no other");
    grow(0);
    db.sessions().unregister("it").expect("removed");
    grow(1);
    clock.advance(2 * HOUR);
    assert_eq!(db.sessions().sweep().expect("swept").settled, 12);
    register(&db, &it, observing());
    let stats = run(&db, "it");
    assert_eq!((stats.unchanged, stats.processed), (6, 6));
    for id in ids {
        assert_eq!(db.sessions().outputs("it", id).expect("read"), pure_outputs(&db, id));
    }
    assert_eq!(it.calls(), 12 + 3 + 6);
}

/// P24: outputs are there if and only if there is an outcome, and are those of its content.
#[test]
fn outputs_iff_row() {
    let (db, _clock) = ephemeral();
    let db = Arc::new(db);
    let resets = Arc::downgrade(&db);
    let it = probe("it", move |session, out| {
        put_pure(session, out)?;
        match (session.info().late, session.attempt()) {
            (0, 1) => Err("not at once".into()),
            // Somebody gives it up while it is being worked on.
            (1, 1) => {
                let planned = PlannedReset {
                    session: session.id(),
                    busy_since: None,
                    for_so_long: Duration::ZERO,
                };
                let plan = ResetPlan::new("ann".to_owned(), String::new(), vec![planned]);
                resets.upgrade().ok_or("it is closed")?.sessions().apply(plan)?;
                Ok(Processed::default())
            }
            _ => Ok(Processed::default()),
        }
    });
    register(&db, &it, minutely());
    let id = ended_under(&db, 1, 3, "lenient");
    let hash = || db.sessions().get(id).expect("read").expect("there").content_hash;
    let seen = || {
        let row = db.sessions().processor_row("it", id).expect("read");
        let outcome = row.and_then(|row| row.outcome);
        let outputs = db.sessions().outputs("it", id).expect("read");
        assert_eq!(outcome.is_some(), !outputs.is_empty(), "{outcome:?}");
        outcome.map(|outcome| {
            assert_eq!(outcome.outputs, outputs);
            assert!(outputs.contains(&(b"hash".to_vec(), outcome.content_hash.to_vec())));
            outcome.content_hash
        })
    };
    let again = RunOptions::new().ignoring_backoff();
    let run = || db.sessions().run_processor("it", again.clone()).expect("runs");
    assert_eq!(seen(), None);
    assert_eq!((run().errors, seen()), (1, None), "what failed has put down nothing");
    let first = hash();
    assert_eq!((run().processed, seen()), (1, Some(first)));
    late(&db, id);
    assert_eq!(seen(), Some(first), "that of the earlier content stays");
    assert_eq!((run().fenced, seen()), (1, Some(first)), "what counts no more puts down nothing");
    let plan = db.sessions().plan_requeue(&SessionFilter::new()).expect("planned");
    assert_eq!(db.sessions().apply(plan).expect("applied").done, [id]);
    late(&db, id);
    assert_eq!((run().processed, seen()), (1, Some(hash())));
    assert_ne!(hash(), first);
}

/// P39: to ask, and to plan, leaves every byte of the log as it is.
#[test]
fn dry_run_is_pure() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::at(START);
    let db = open(dir.path(), &clock);
    register(&db, &pure("works"), minutely());
    let settled = ended(&db, 2, 2);
    run(&db, "works");
    let fails = probe("fails", |_, _| Err(ProcessError::permanent("no")));
    register(&db, &fails, minutely());
    let failed = ended(&db, 1, 1);
    db.sessions().run_processor("fails", RunOptions::new().only(failed)).expect("runs");
    let waiting = ended(&db, 3, 1);
    let overdue = db.start_session(4, "phone", "default").expect("started").detach();
    clock.advance(3 * HOUR);
    let state = || {
        let log = files(&dir.path().join("log"));
        (db.applied(), db.durable(), db.state_digest().expect("read"), log)
    };
    let before = state();
    let sessions = db.sessions();
    let prune = sessions.plan_prune(&Retention::settled_for(HOUR)).expect("planned");
    assert_eq!(prune.sessions().collect::<Vec<_>>(), [settled]);
    let mut filter = ResetFilter::default();
    filter.include_waiting = true;
    let reset = sessions.plan_reset(&filter).expect("planned");
    assert!(reset.items().iter().any(|item| item.session == waiting));
    let requeue = sessions.plan_requeue(&SessionFilter::new()).expect("planned");
    assert!(requeue.items().iter().any(|item| item.session == failed));
    let reprocess = sessions.plan_reprocess("works", &SessionFilter::new()).expect("planned");
    assert!(reprocess.items().iter().any(|item| item.session == settled));
    let late = sessions.overdue().expect("listed");
    assert_eq!(late.iter().map(|info| info.id).collect::<Vec<_>>(), [overdue]);
    assert_eq!(sessions.list(&SessionFilter::new()).expect("listed").len(), 4);
    assert_eq!(sessions.stuck().expect("listed"), []);
    assert!(!sessions.jobs().is_empty());
    assert!(!db.health().checks.is_empty());
    assert!(before == state(), "something was written");
}

/// P49.
#[test]
fn failed_session_keeps_data_and_requeues() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::at(START);
    let mut db = open(dir.path(), &clock);
    register(&db, &probe("it", |_, _| Err(ProcessError::permanent("no"))), minutely());
    let id = ended(&db, 1, 3);
    let kept = |db: &TidalDb| {
        let info = db.sessions().get(id).expect("read").expect("there");
        let end = info.state.end().cloned();
        (end, info.content_hash, info.records, db.sessions().records(id).expect("read"))
    };
    let before = kept(&db);
    assert_eq!(before.3.len(), 3);
    run(&db, "it");
    for _ in 0..2 {
        assert_eq!(failure(&db, id), Some(FailCause::Quarantined { processor: "it".to_owned() }));
        assert_eq!(kept(&db), before, "what is in it stays");
        clock.advance(24 * HOUR);
        let prune = db.sessions().plan_prune(&Retention::settled_for(HOUR)).expect("planned");
        assert!(prune.is_empty(), "nobody forgets it");
        db.checkpoint().expect("written");
        db.close().expect("closes");
        db = open(dir.path(), &clock);
    }
    register(&db, &pure("it"), minutely());
    assert_eq!(run(&db, "it").scanned, 0, "it is given up, whoever comes");
    let plan = db.sessions().plan_requeue(&SessionFilter::new()).expect("planned");
    assert_eq!(db.sessions().apply(plan).expect("applied").done, [id]);
    assert_eq!(run(&db, "it").processed, 1);
    assert!(is_settled(&db, id) && failure(&db, id).is_none());
    assert_eq!(kept(&db), before);
    assert_eq!(db.sessions().outputs("it", id).expect("read"), pure_outputs(&db, id));
}

/// P53: the thread of a processor goes on after errors and panics, after a clock for which every write is
/// refused, and after it was set back.
#[test]
fn background_loop_survives_errors() {
    let clock = ManualClock::at(START);
    let db = builder(&clock, SessionConfig::default()).ephemeral().open().expect("opens");
    let mood = Arc::new(Mutex::new("fails"));
    let moods = Arc::clone(&mood);
    let it = probe("it", move |session, out| {
        let mood = *moods.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match mood {
            "fails" => Err(ProcessError::retry_after(Duration::ZERO, "not yet")),
            "panics" => panic!("a panic of this test's own"),
            _ => put_pure(session, out),
        }
    });
    let mut options = minutely();
    options.cadence = Duration::from_millis(10);
    options.retry.delays = vec![Duration::from_millis(10)];
    options.retry.max_attempts = std::num::NonZeroU32::MAX;
    register(&db, &it, options);
    let id = ended(&db, 1, 1);
    let wait_until = |what: &str, is_so: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !is_so() {
            assert!(began.elapsed() < PATIENCE, "{what}");
            clock.advance(Duration::from_millis(20));
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    let change = |to: &'static str| *mood.lock().expect("nobody panics with it") = to;
    for turn in ["fails", "panics"] {
        change(turn);
        let before = it.calls();
        wait_until("it is called again and again", &|| it.calls() > before + 2);
    }
    let at = tidaldb::Clock::now(&clock);
    clock.set(at.saturating_add(400 * 24 * HOUR));
    let has_failed = || {
        let job = db.sessions().jobs().into_iter().find(|job| job.name == "processor:it");
        let outcome = job.and_then(|job| job.last_outcome);
        matches!(outcome, Some(JobOutcome::Failed(why)) if why.contains("jump"))
    };
    wait_until("a run is refused", &has_failed);
    clock.set(at);
    change("works");
    wait_until("it is processed", &|| is_settled(&db, id));
    db.close().expect("closes");
}

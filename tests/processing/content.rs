//! When a session is processed again, and what is there then.

use std::collections::BTreeMap;
use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use tidaldb::{SessionFilter, SessionSignal};

fn late(db: &TidalDb, id: SessionId, item: u64) {
    let signal = SessionSignal::new("view", EntityId::new(item), db.engine_time());
    db.sessions().append_late(id, signal).expect("it takes late records");
}

/// P21.
#[test]
fn append_during_processing_is_reprocessed() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::at(START);
    let db = Arc::new(open(dir.path(), &clock));
    let appending = Arc::downgrade(&db);
    let it = probe("it", move |session, out| {
        let seen = session.records()?.len();
        if session.info().late == 0 {
            let db = appending.upgrade().ok_or("it is closed")?;
            late(&db, session.id(), 77);
        }
        assert_eq!(session.records()?.len(), seen, "a view does not move");
        put_pure(session, out)
    });
    register(&db, &it, minutely());
    let id = ended_under(&db, 1, 2, "lenient");
    let stats = run(&db, "it");
    assert_eq!((stats.processed, stats.items), (1, 2));
    assert_ne!(db.sessions().outputs("it", id).expect("read"), pure_outputs(&db, id));
    clock.advance(2 * HOUR);
    db.drive().expect("drives");
    let info = db.sessions().get(id).expect("read").expect("there");
    assert_eq!((info.late, it.calls()), (1, 2), "it was processed with what came meanwhile");
    assert_eq!(db.sessions().outputs("it", id).expect("read"), pure_outputs(&db, id));
    assert!(is_settled(&db, id));
}

/// P22.
#[test]
fn touch_without_change_is_not_reprocessed() {
    let (db, _clock) = ephemeral();
    let it = pure("it");
    register(&db, &it, observing());
    let session = db.start_session(1, "phone", "default").expect("started");
    session.signal("view", EntityId::new(1), 1.0, START).expect("written");
    session.heartbeat().expect("touched");
    session.extend(HOUR).expect("extended");
    let session = db.resume_session(session.detach()).expect("resumed");
    session.close().expect("closed");
    assert_eq!(run(&db, "it").processed, 1);
    db.sessions().unregister("it").expect("removed");
    register(&db, &it, observing());
    assert_eq!(run(&db, "it").unchanged, 1);
    assert_eq!((run(&db, "it").unchanged, it.calls()), (0, 1), "it is not even looked at");
}

/// P23.
#[test]
fn version_bump_invalidates() {
    for options in [minutely(), observing()] {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = ManualClock::at(START);
        let db = open(dir.path(), &clock);
        register(&db, &pure("it"), options.clone());
        let ids: Vec<SessionId> = (0..300).map(|user| ended(&db, user, 0)).collect();
        assert_eq!(run(&db, "it").processed, 300);
        db.close().expect("closes");
        let db = open(dir.path(), &clock);
        let second = pure("it").version(2);
        register(&db, &second, options);
        assert_eq!((run(&db, "it").processed, second.calls()), (300, 300));
        let row = db.sessions().processor_row("it", ids[9]).expect("read").expect("there");
        assert_eq!(row.outcome.expect("done").version, 2);
        assert_eq!(run(&db, "it").scanned, 0);
    }
}

/// P24, P26.
#[test]
fn rerun_replaces_outputs() {
    let (db, _clock) = ephemeral();
    let turn = Arc::new(AtomicU64::new(0));
    let turns = Arc::clone(&turn);
    let it = probe("it", move |_, out| {
        let turn = turns.fetch_add(1, Ordering::SeqCst);
        out.put(format!("only of turn {turn}").as_bytes(), b"x")?;
        out.put(b"of every turn", &turn.to_be_bytes())?;
        out.put(b"of every turn", &turn.to_be_bytes())?;
        Ok(Processed::default())
    });
    register(&db, &it, minutely());
    let id = ended(&db, 1, 1);
    run(&db, "it");
    let filter = SessionFilter::new();
    let plan = db.sessions().plan_reprocess("it", &filter).expect("planned");
    let before = db.applied();
    assert_eq!((plan.items().len(), turn.load(Ordering::SeqCst), db.applied()), (1, 1, before));
    let applied = db.sessions().apply(plan).expect("applied");
    assert_eq!((applied.done, applied.skipped), (vec![id], vec![]));
    assert_eq!((run(&db, "it").processed, run(&db, "it").processed), (1, 0), "once");
    let expected = [
        (b"of every turn".to_vec(), 1_u64.to_be_bytes().to_vec()),
        (b"only of turn 1".to_vec(), b"x".to_vec()),
    ];
    assert_eq!(db.sessions().outputs("it", id).expect("read"), expected);
}

/// P25, and P14 as far as processors are concerned: what is made follows from content alone, through any
/// mix of late records, runs, versions, failures and reopens.
#[test]
fn outputs_equal_function_of_seen_content() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: tidal_support::setting("TIDAL_CASES", 24),
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let steps = prop::collection::vec((0..10_u8, 0..8_u64), 1..60);
    runner
        .run(&steps, |steps| {
            live(&steps);
            Ok(())
        })
        .expect("it holds");
}

fn live(steps: &[(u8, u64)]) {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::at(START);
    let registered = |db: &TidalDb, version| {
        for (name, options) in [("all", minutely()), ("some", observing())] {
            let flaky = probe(name, |session, out| {
                let done = put_pure(session, out)?;
                // It fails, errs or panics as it wants, but not for ever.
                match (session.id().get() + u64::from(session.attempt())) % 5 {
                    0 if session.attempt() < 3 => Err("not now".into()),
                    1 if session.attempt() < 3 => panic!("a panic of this test's own"),
                    _ => Ok(done),
                }
            });
            register(db, &flaky.version(version), options);
        }
    };
    let mut db = open(dir.path(), &clock);
    let (mut ids, mut version) = (Vec::new(), 1);
    registered(&db, version);
    for &(step, number) in steps {
        match step {
            0 | 1 => ids.push(ended_under(&db, number, number, "lenient")),
            2 => ids.push(ended(&db, number, number)),
            3 => {
                let signal = SessionSignal::new("view", EntityId::new(number), db.engine_time());
                if let Some(&id) = ids.get(number as usize) {
                    let _ = db.sessions().append_late(id, signal);
                }
            }
            4 => drop(db.start_session(number, "phone", "default").expect("started")),
            5 => drop(run(&db, "all")),
            6 => drop(run(&db, "some")),
            7 => clock.advance(number as u32 * MINUTE),
            8 => {
                db.checkpoint().expect("written");
            }
            _ => {
                drop(db);
                db = open(dir.path(), &clock);
                version += u32::from(number == 0);
                registered(&db, version);
            }
        }
    }
    // Time enough for late records, idle sessions and every repetition.
    for _ in 0..8 {
        clock.advance(HOUR);
        db.drive().expect("drives");
    }
    let all = db.sessions().list(&SessionFilter::new().limit(1_000)).expect("listed");
    for info in all {
        assert!(is_settled(&db, info.id), "{:?}", info.state);
        for name in ["all", "some"] {
            let row = db.sessions().processor_row(name, info.id).expect("read").expect("seen");
            let outcome = row.outcome.expect("done");
            assert_eq!((row.status, outcome.version), (ProcessorStatus::Done, version));
            assert_eq!(outcome.outputs, pure_outputs(&db, info.id), "{name} of {}", info.id);
        }
    }
    let report = db.verify().expect("read");
    assert!(report.is_sound(), "{report:?}");
}

/// Sessions that had settled before there was a processor, in one process or over many, with ones among them
/// that settle late.
#[test]
fn what_had_settled_before_a_processor_came_is_handed_to_it_once() {
    for options in [minutely(), observing()] {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = ManualClock::at(START);
        let db = open(dir.path(), &clock);
        let lingering = ended_under(&db, 1_000, 1, "lenient");
        let open_one = db.start_session(1_001, "phone", "default").expect("started");
        (0..700).for_each(|user| {
            ended(&db, user, 0);
        });
        db.checkpoint().expect("written");
        let seen = Arc::new(Mutex::new(BTreeMap::<SessionId, u64>::new()));
        let seeing = Arc::clone(&seen);
        let it = probe("it", move |session, out| {
            *seeing.lock().expect("alone").entry(session.id()).or_default() += 1;
            put_pure(session, out)
        });
        register(&db, &it, options.clone());
        let hundred =
            RunOptions::new().max_sessions(std::num::NonZeroU32::new(100).expect("not 0"));
        let stats = db.sessions().run_processor("it", hundred).expect("runs");
        assert_eq!(stats.processed, 100);
        let open_id = open_one.session_id();
        drop((open_one, db));
        let db = open(dir.path(), &clock);
        register(&db, &it, options);
        run(&db, "it");
        clock.advance(3 * HOUR);
        run(&db, "it");
        run(&db, "it");
        let seen = seen.lock().expect("alone").clone();
        assert!(seen.values().all(|&times| times == 1), "once each");
        assert_eq!(seen.len(), 702, "those that settled late too");
        assert!(seen.contains_key(&lingering) && seen.contains_key(&open_id));
        let stats = run(&db, "it");
        assert_eq!((stats.scanned, stats.unchanged), (0, 0), "nothing is even looked at");
    }
}

#[test]
fn a_session_that_was_pruned_is_handed_to_nobody() {
    let (db, clock) = ephemeral();
    let id = ended(&db, 1, 3);
    clock.advance(HOUR);
    db.drive().expect("drives");
    let plan = db.sessions().plan_prune(&tidaldb::Retention::settled_for(MINUTE)).expect("planned");
    assert_eq!(db.sessions().apply(plan).expect("applied").done, [id]);
    let it = pure("it");
    register(&db, &it, observing());
    assert_eq!((run(&db, "it").scanned, it.calls()), (0, 0));
}

#[test]
fn equal_content_has_an_equal_idempotency_key_and_other_content_another() {
    let (db, clock) = ephemeral();
    let keys = Arc::new(Mutex::new(Vec::new()));
    let noting = Arc::clone(&keys);
    let it = probe("it", move |session, _| {
        noting.lock().expect("alone").push(session.idempotency_key());
        match session.attempt() {
            1 => Err("once more".into()),
            _ => Ok(Processed::default()),
        }
    });
    register(&db, &it, minutely());
    let id = ended_under(&db, 1, 1, "lenient");
    run(&db, "it");
    clock.advance(2 * MINUTE);
    run(&db, "it");
    late(&db, id, 5);
    run(&db, "it");
    ended(&db, 2, 1);
    run(&db, "it");
    let keys = keys.lock().expect("alone").clone();
    assert_eq!(keys[0], keys[1], "the second attempt at one content");
    assert!(keys[1] != keys[2] && keys[2] != keys[3] && keys[1] != keys[3]);
}

#[test]
fn outputs_beyond_their_limits_are_refused_at_the_call() {
    let (db, _clock) = ephemeral();
    let it = probe("it", |_, out| {
        let big = vec![0; (64 << 10) - 1];
        out.put(b"k", &big)?;
        out.put(b"k", &big)?;
        assert!(out.put(b"l", b"").is_err(), "one byte too many");
        assert!(out.put(b"", b"").is_err() && out.put(&[7; 257], b"").is_err());
        out.put(b"k", b"small")?;
        out.put(&[7; 256], b"")?;
        Ok(Processed::default())
    });
    register(&db, &it, minutely());
    let id = ended(&db, 1, 0);
    assert_eq!(run(&db, "it").processed, 1);
    let outputs = db.sessions().outputs("it", id).expect("read");
    assert_eq!(outputs, [(vec![7; 256], vec![]), (b"k".to_vec(), b"small".to_vec())]);
}

#[test]
fn outputs_of_many_sessions_do_not_make_a_frame_too_large() {
    let (db, _clock) = ephemeral();
    let it = probe("it", |_, out| {
        out.put(b"k", &vec![1; 60 << 10])?;
        Ok(Processed::default())
    });
    register(&db, &it, minutely());
    (0..300).for_each(|user| {
        ended(&db, user, 0);
    });
    assert_eq!(run(&db, "it").processed, 300);
}

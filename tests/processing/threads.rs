//! Processors on threads of their own, and closing.

use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Instant;

use super::*;

fn threaded() -> TidalDb {
    let mut sessions = SessionConfig::default();
    sessions.sweep_interval = Duration::from_millis(10);
    let builder = TidalDb::builder().with_schema(schema()).with_sessions(sessions);
    builder.ephemeral().open().expect("opens")
}

fn often() -> ProcessorOptions {
    let mut options = minutely();
    options.cadence = Duration::from_millis(20);
    options
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn sessions_are_processed_without_anyone_asking() {
    let db = threaded();
    register(&db, &pure("it"), often());
    for user in 0..3 {
        let id = ended(&db, user, 2);
        wait_until("it is settled", || is_settled(&db, id));
        assert_eq!(db.sessions().outputs("it", id).expect("read"), pure_outputs(&db, id));
    }
    db.close().expect("closes");
}

/// P36.
#[test]
fn slow_job_does_not_delay_others() {
    let db = threaded();
    let (let_go, gone) = mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    let slow = probe("slow", move |_, _| {
        let _ = gone.lock().expect("alone").recv_timeout(PATIENCE);
        Ok(Processed::default())
    });
    let quick = pure("quick");
    register(&db, &slow, often());
    register(&db, &quick, often());
    for user in 0..10 {
        let id = ended(&db, user, 1);
        wait_until("the quick one is done", || {
            status(&db, "quick", id) == Some(ProcessorStatus::Done)
        });
    }
    assert_eq!(slow.calls(), 1, "it is in its first call still");
    drop(let_go);
    db.close().expect("closes");
}

/// P35.
#[test]
fn in_flight_skip_prevents_duplicate_launches() {
    let db = threaded();
    let at_once = Arc::new(AtomicU64::new(0));
    let entered = Arc::clone(&at_once);
    let slow = probe("slow", move |_, _| {
        assert_eq!(entered.fetch_add(1, Ordering::SeqCst), 0, "a second one at once");
        std::thread::sleep(Duration::from_millis(100));
        entered.fetch_sub(1, Ordering::SeqCst);
        Ok(Processed::default())
    });
    register(&db, &slow, often());
    let ids: Vec<SessionId> = (0..5).map(|user| ended(&db, user, 0)).collect();
    // Its own thread, and everybody else who wants it to run.
    wait_until("all are done", || {
        let _ = db.sessions().run_processor("slow", RunOptions::new());
        ids.iter().all(|&id| is_settled(&db, id))
    });
    assert_eq!(slow.calls(), 5);
}

/// P34: a run that fails at once is followed by the next one a cadence later.
#[test]
fn no_hot_loop() {
    let db = threaded();
    let broken = probe("broken", |_, _| Err(ProcessError::retry_after(Duration::ZERO, "no")));
    let mut options = often();
    options.cadence = Duration::from_millis(200);
    options.retry.max_attempts = std::num::NonZeroU32::MAX;
    register(&db, &broken, options);
    ended(&db, 1, 0);
    let began = Instant::now();
    std::thread::sleep(Duration::from_millis(900));
    let most = began.elapsed().as_millis() as u64 / 200 + 2;
    assert!((2..=most).contains(&broken.calls()), "{} calls, at most {most}", broken.calls());
}

#[test]
fn closing_asks_calls_to_stop_and_keeps_what_they_have_made() {
    for drops in [false, true] {
        let dir = tempfile::tempdir().expect("a directory");
        let opened = || {
            let builder = TidalDb::builder().with_schema(schema()).with_data_dir(dir.path());
            builder.open().expect("opens")
        };
        let db = opened();
        let (enter, entered) = mpsc::channel();
        let it = probe("it", move |session, out| {
            enter.send(session.id()).expect("heard");
            let began = Instant::now();
            while !session.should_stop() {
                assert!(began.elapsed() < PATIENCE, "it is asked to stop");
                std::thread::sleep(Duration::from_millis(1));
            }
            put_pure(session, out)
        });
        let ids = [1, 2].map(|user| ended(&db, user, 1));
        register(&db, &it, minutely());
        assert_eq!(entered.recv_timeout(PATIENCE), Ok(ids[0]));
        match drops {
            true => drop(db),
            false => db.close().expect("closes"),
        }
        assert_eq!(it.calls(), 1, "no other call begins");
        let db = opened();
        assert_eq!(status(&db, "it", ids[0]), Some(ProcessorStatus::Done));
        assert_eq!(db.sessions().outputs("it", ids[0]).expect("read"), pure_outputs(&db, ids[0]));
        assert_eq!(status(&db, "it", ids[1]), None);
    }
}

#[test]
fn a_processor_that_is_unregistered_is_called_no_more() {
    let db = threaded();
    let it = pure("it");
    register(&db, &it, often());
    let id = ended(&db, 1, 1);
    wait_until("it is settled", || is_settled(&db, id));
    db.sessions().unregister("it").expect("removed");
    let calls = it.calls();
    let later = ended(&db, 2, 1);
    wait_until("nobody is waited for", || is_settled(&db, later));
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(it.calls(), calls);
    register(&db, &it, often());
    wait_until("it is there again", || status(&db, "it", later) == Some(ProcessorStatus::Done));
}

#[test]
fn a_database_that_a_processor_drops_is_closed_all_the_same() {
    let db = Arc::new(threaded());
    let held = Arc::new(Mutex::new(None));
    let holding = Arc::clone(&held);
    let (done, is_done) = mpsc::channel();
    let it = probe("it", move |_, _| {
        let last: Option<Arc<TidalDb>> = holding.lock().expect("alone").take();
        drop(last);
        done.send(()).expect("heard");
        Ok(Processed::default())
    });
    let id = ended(&db, 1, 1);
    *held.lock().expect("alone") = Some(Arc::clone(&db));
    let weak = Arc::downgrade(&db);
    {
        let db = db;
        register(&db, &it, often());
        let _ = id;
    }
    is_done.recv_timeout(PATIENCE).expect("it returns");
    wait_until("it is gone", || weak.upgrade().is_none());
}

#[test]
fn a_session_that_hangs_is_given_up_by_the_sweeper() {
    let mut sessions = SessionConfig::default();
    sessions.processing_timeout = Duration::from_millis(50).into();
    sessions.warn_after = Vec::new();
    sessions.sweep_interval = Duration::from_millis(20);
    let builder = TidalDb::builder().with_schema(schema()).with_sessions(sessions).ephemeral();
    let db = builder.open().expect("opens");
    let hangs = probe("hangs", |session, out| {
        while !session.should_stop() {
            std::thread::sleep(Duration::from_millis(1));
        }
        put_pure(session, out)
    });
    // The call is asked to stop by then, and does; what it makes is in time or is not.
    register(&db, &hangs, often());
    let id = ended(&db, 1, 0);
    wait_until("it has failed, or is done", || is_settled(&db, id) || failure(&db, id).is_some());
}

#[test]
fn a_processor_that_is_registered_again_while_the_old_one_is_called_is_run() {
    let db = threaded();
    let (enter, entered) = mpsc::channel();
    let slow = probe("it", move |_, _| {
        enter.send(()).expect("the test listens");
        std::thread::sleep(Duration::from_millis(200));
        Ok(Processed::default())
    });
    register(&db, &slow, often());
    let id = ended(&db, 1, 2);
    entered.recv_timeout(PATIENCE).expect("it is called");
    std::thread::scope(|scope| {
        scope.spawn(|| db.sessions().unregister("it").expect("it is there"));
        wait_until("it is registered", || db.sessions().register(pure("it"), often()).is_ok());
    });
    wait_until("the new one has seen it", || {
        db.sessions().outputs("it", id).expect("read") == pure_outputs(&db, id)
    });
    db.sessions().unregister("it").expect("it is there");
    db.close().expect("closes");
}

#[test]
fn processors_that_unregister_each_other_wait_for_nobody() {
    let db = Arc::new(threaded());
    let (done, both) = mpsc::channel();
    for (name, other) in [("one", "other"), ("other", "one")] {
        let (weak, done) = (Arc::downgrade(&db), done.clone());
        let it = probe(name, move |_, _| {
            std::thread::sleep(Duration::from_millis(50));
            if let Some(db) = weak.upgrade() {
                let _ = db.sessions().unregister(other);
            }
            done.send(()).expect("the test listens");
            Ok(Processed::default())
        });
        register(&db, &it, often());
    }
    ended(&db, 1, 0);
    both.recv_timeout(PATIENCE).expect("one returns");
    drop(db);
}

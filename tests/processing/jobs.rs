//! What is known of runs: in memory, and over restarts.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::sync::{Mutex, Weak};
use std::time::Instant;

use super::*;
use tidal_support::sim::{Op, SimDisk, SimStores, Survives};
use tidaldb::fault::{CrashPoint, Faults};
use tidaldb::storage::Machine;
use tidaldb::{Check, Clock, JobOutcome, JobStatus, RunError, Runtime, Severity, TimeSource};

fn jobs(db: &TidalDb) -> Vec<JobStatus> {
    db.sessions().jobs()
}

fn find(db: &TidalDb, name: &str) -> Option<JobStatus> {
    jobs(db).into_iter().find(|job| job.name == name)
}

/// The job of a processor.
fn job(db: &TidalDb, processor: &str) -> JobStatus {
    find(db, &format!("processor:{processor}")).expect("it is there")
}

/// When its last run began and ended, and how.
fn last(db: &TidalDb, processor: &str) -> (Option<Timestamp>, Option<Timestamp>, JobOutcome, u32) {
    let it = job(db, processor);
    let outcome = it.last_outcome.expect("it has run");
    (it.last_started, it.last_finished, outcome, it.consecutive_failures)
}

fn failed(error: &str) -> JobOutcome {
    JobOutcome::Failed(error.to_owned())
}

/// A disk that forgets nothing until it is rebooted.
fn machine() -> SimDisk {
    let disk = SimDisk::new();
    disk.make_dirs(Path::new("/"));
    disk
}

fn open_on(disk: &SimDisk, clock: &ManualClock, faults: Faults) -> TidalDb {
    let machine =
        Machine { disk: disk.shared(), stores: Arc::new(SimStores::on(disk.clone())), faults };
    let builder = builder(clock, manual()).with_data_dir("/db").with_machine(machine);
    builder.open().expect("opens")
}

/// The same after the process is killed: nothing is closed, and all that was written is there.
fn killed(disk: &SimDisk, clock: &ManualClock) -> (SimDisk, TidalDb) {
    let disk = disk.reboot(Survives::Everything);
    let db = open_on(&disk, clock, Faults::NONE);
    (disk, db)
}

fn runs(db: &TidalDb) -> u64 {
    db.drive().expect("drives").runs
}

/// P33.
#[test]
fn last_run_advances_on_any_terminal_state() {
    let (disk, clock) = (machine(), ManualClock::at(START));
    let panics = Arc::new(AtomicU64::new(0));
    let left = Arc::clone(&panics);
    let faults = Faults::new(move |point| {
        let is_armed = || left.swap(0, Ordering::SeqCst) == 1;
        if point == CrashPoint::ProcessorBeforeCommit && is_armed() {
            panic!("a panic of this test's own");
        }
    });
    let db = open_on(&disk, &clock, faults);
    let (ticking, fails) = (clock.clone(), Arc::new(AtomicU64::new(1)));
    let failing = Arc::clone(&fails);
    let it = probe("it", move |session, out| {
        ticking.advance(SECOND);
        match failing.load(Ordering::SeqCst) {
            1 => Err(format!("no answer for {}", session.info().user.get()).as_str().into()),
            2 => panic!("a panic of this test's own"),
            _ => put_pure(session, out),
        }
    });
    register(&db, &it, minutely());
    let never = job(&db, "it");
    assert_eq!((never.last_started, never.last_finished, never.last_outcome), (None, None, None));
    assert_eq!((never.next_due, never.cadence), (Some(START), 15 * MINUTE));

    (0..3).for_each(|user| {
        ended(&db, user, 1);
    });
    let after = |seconds| Some(START.saturating_add(seconds * SECOND));
    run(&db, "it");
    let all = failed("3 of 3 sessions failed: no answer for 2");
    assert_eq!(last(&db, "it"), (after(0), after(3), all, 1));
    assert_eq!(job(&db, "it").next_due, after(15 * 60), "a cadence after it began");

    clock.advance(HOUR);
    fails.store(2, Ordering::SeqCst);
    run(&db, "it");
    let contained = failed("3 of 3 sessions failed: panicked: a panic of this test's own");
    assert_eq!(last(&db, "it"), (after(3_603), after(3_606), contained, 2));

    clock.advance(HOUR);
    fails.store(0, Ordering::SeqCst);
    panics.store(1, Ordering::SeqCst);
    let run_it = || db.sessions().run_processor("it", RunOptions::new());
    assert!(catch_unwind(AssertUnwindSafe(run_it)).is_err(), "it is the caller's to contain");
    let panicked = JobOutcome::Panicked("a panic of this test's own".to_owned());
    assert_eq!(last(&db, "it"), (after(7_206), after(7_207), panicked, 3));

    clock.advance(HOUR);
    let ignoring = RunOptions::new().ignoring_backoff();
    db.sessions().run_processor("it", ignoring).expect("it runs");
    assert_eq!(last(&db, "it").2, JobOutcome::Success, "what panicked was given to it again");
    assert_eq!(job(&db, "it").consecutive_failures, 0);

    clock.advance(HOUR);
    ended(&db, 9, 1);
    disk.fail_next(Op::Write, std::io::ErrorKind::Other);
    let began = clock.now();
    let error = run_it().expect_err("the log cannot be written");
    assert!(matches!(error, RunError::Storage(_)), "{error:?}");
    let (started, finished, outcome, failures) = last(&db, "it");
    assert_eq!((started, finished, failures), (Some(began), Some(began), 1));
    assert_eq!(outcome, failed(&error.to_string()));
}

#[test]
fn a_run_with_any_success_has_succeeded_and_one_that_attempted_nothing_has_not_failed() {
    let (db, clock) = ephemeral();
    let picky = probe("it", |session, out| match session.info().user.get() {
        0 => Err("no".into()),
        _ => put_pure(session, out),
    });
    register(&db, &picky, minutely());
    (0..2).for_each(|user| {
        ended(&db, user, 1);
    });
    assert_eq!(run(&db, "it").errors, 1);
    assert_eq!(last(&db, "it").2, JobOutcome::Success);
    assert_eq!(run(&db, "it").deferred, 1);
    assert_eq!(last(&db, "it").2, JobOutcome::Success, "it waits");
    clock.advance(MINUTE);
    run(&db, "it");
    assert_eq!(last(&db, "it").2, failed("1 of 1 session failed: no"));
}

/// P38.
#[test]
fn last_run_survives_restart() {
    for kills in [false, true] {
        let (disk, clock) = (machine(), ManualClock::at(START));
        let db = open_on(&disk, &clock, Faults::NONE);
        let it = pure("it");
        register(&db, &it, minutely());
        ended(&db, 1, 1);
        assert_eq!(runs(&db), 1);
        let before = job(&db, "it");
        clock.advance(5 * MINUTE);
        let (disk, db) = match kills {
            true => killed(&disk, &clock),
            false => {
                db.close().expect("closes");
                (disk.clone(), open_on(&disk, &clock, Faults::NONE))
            }
        };
        let mut unregistered = before.clone();
        unregistered.next_due = None;
        assert_eq!(unregistered.in_flight_since, None);
        assert_eq!(jobs(&db)[0], unregistered, "killed: {kills}");
        register(&db, &it, minutely());
        assert_eq!(job(&db, "it"), before, "it is due a cadence after its last run");
        assert_eq!(runs(&db), 0);
        clock.advance(10 * MINUTE);
        assert_eq!(runs(&db), 1);
        // Another version runs at once, and its predecessor's failures are none of its own.
        db.close().expect("closes");
        let db = open_on(&disk, &clock, Faults::NONE);
        register(&db, &it.clone().version(2), minutely());
        let (disk, db) = killed(&disk, &clock);
        drop(disk);
        register(&db, &it.clone().version(2), minutely());
        assert_eq!(job(&db, "it").last_started, None, "this version has not run");
        assert_eq!(runs(&db), 1);
        // And so does one that comes back.
        db.sessions().unregister("it").expect("removed");
        register(&db, &it.version(2), minutely());
        assert_eq!(runs(&db), 1);
    }
}

#[test]
fn a_new_processor_runs_at_once_and_each_does_where_events_advance_time() {
    let clock = ManualClock::at(START);
    let dir = tempfile::tempdir().expect("a directory");
    let opened = || {
        let builder = builder(&clock, manual()).with_time_source(TimeSource::Events);
        builder.with_data_dir(dir.path()).open().expect("opens")
    };
    let db = opened();
    register(&db, &pure("it"), minutely());
    assert_eq!(job(&db, "it").next_due, None, "events advance time");
    assert_eq!((runs(&db), runs(&db)), (1, 0));
    db.close().expect("closes");
    let db = opened();
    register(&db, &pure("it"), minutely());
    assert!(job(&db, "it").last_started.is_some());
    assert_eq!(runs(&db), 1);
}

#[test]
fn a_run_of_before_the_clock_was_set_back_is_one_of_now() {
    let (disk, clock) = (machine(), ManualClock::at(START));
    let db = open_on(&disk, &clock, Faults::NONE);
    register(&db, &pure("it"), minutely());
    ended(&db, 1, 1);
    assert_eq!(runs(&db), 1);
    clock.set(START.saturating_sub(HOUR));
    db.reset_clock().expect("reset");
    assert!(db.verify().expect("read").is_sound(), "no run is yet to come");
    let now = db.engine_time();
    let (_disk, db) = killed(&disk, &clock);
    register(&db, &pure("it"), minutely());
    let it = job(&db, "it");
    assert_eq!((it.last_started, it.last_finished), (Some(now), Some(now)));
    assert_eq!(runs(&db), 0);
    clock.advance(15 * MINUTE);
    assert_eq!(runs(&db), 1, "it is due a cadence after now, not after then");
}

#[test]
fn consecutive_failures_survive_restart() {
    let (disk, clock) = (machine(), ManualClock::at(START));
    let (broken, failures) = (probe("it", |_, _| Err("no".into())), [1, 2]);
    let db = open_on(&disk, &clock, Faults::NONE);
    register(&db, &broken, minutely());
    ended(&db, 1, 1);
    for expected in failures {
        run(&db, "it");
        assert_eq!(job(&db, "it").consecutive_failures, expected);
        clock.advance(MINUTE);
    }
    let (disk, db) = killed(&disk, &clock);
    assert_eq!(job(&db, "it").consecutive_failures, 2, "before anyone has registered it");
    register(&db, &broken, minutely());
    run(&db, "it");
    assert_eq!(job(&db, "it").consecutive_failures, 3);
    db.checkpoint().expect("written");
    clock.advance(MINUTE);
    let (_disk, db) = killed(&disk, &clock);
    register(&db, &pure("it"), minutely());
    assert_eq!(job(&db, "it").consecutive_failures, 3, "from a checkpoint as from the log");
    assert_eq!(db.health().processors[0].consecutive_failures, 3);
    run(&db, "it");
    assert_eq!(job(&db, "it").consecutive_failures, 0);
}

fn log_of(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    tidal_support::files(&dir.join("log"))
}

#[test]
fn quiet_runs_write_nothing_and_ride_with_the_next_frame() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::at(START);
    let db = open(dir.path(), &clock);
    let names = ["a", "b", "c"];
    names.iter().for_each(|name| register(&db, &pure(name), observing()));
    let (before, applied) = (log_of(dir.path()), db.applied());
    assert!(!before.is_empty());
    let ran_at = names.map(|name| {
        clock.advance(MINUTE);
        assert_eq!(run(&db, name).scanned, 0);
        clock.now()
    });
    assert_eq!((log_of(dir.path()), db.applied()), (before, applied));
    assert_eq!(job(&db, "a").last_started, Some(ran_at[0]), "it is known all the same");

    let copy = tempfile::tempdir().expect("a directory");
    let snapshot = |name: &str| {
        let to = copy.path().join(name);
        tidal_support::copy_dir(dir.path(), &to);
        to
    };
    let lost = snapshot("lost");
    clock.advance(MINUTE);
    ended(&db, 1, 1);
    let applied = db.applied();
    assert_eq!(run(&db, "b").processed, 1);
    assert_eq!(db.applied().get() - applied.get(), 3, "it began, ended, and all have run");
    let written = snapshot("written");
    let reopened = open(&lost, &clock);
    assert!(names.iter().all(|name| job(&reopened, name).last_started.is_none()), "a kill");
    register(&reopened, &pure("a"), observing());
    assert_eq!(runs(&reopened), 1, "once earlier than it had to, and it finds nothing to do");
    let reopened = open(&written, &clock);
    for (name, at) in [("a", ran_at[0]), ("b", clock.now()), ("c", ran_at[2])] {
        assert_eq!(job(&reopened, name).last_started, Some(at));
    }

    clock.advance(MINUTE);
    let applied = db.applied();
    assert_eq!(run(&db, "b").scanned, 0);
    assert_eq!(db.applied(), applied);
    db.close().expect("closes");
    let db = open(dir.path(), &clock);
    assert_eq!(job(&db, "b").last_started, Some(clock.now()), "closing writes what is unwritten");
    // That, the mark of the close, and the next open.
    assert_eq!(db.applied().get() - applied.get(), 3);
    let applied = db.applied();
    db.close().expect("closes");
    let db = open(dir.path(), &clock);
    // The mark of the close, and the next open.
    assert_eq!(db.applied().get() - applied.get(), 2, "and nothing where all is written");
}

#[test]
fn a_job_is_in_flight_until_its_call_really_returns() {
    let (db, clock) = ephemeral();
    let (enter, entered) = mpsc::channel();
    let (let_go, gone) = mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    let it = probe("it", move |_, _| {
        enter.send(()).expect("heard");
        gone.lock().expect("alone").recv_timeout(PATIENCE).expect("it is let go");
        Ok(Processed::default())
    });
    register(&db, &it, minutely());
    let id = ended(&db, 1, 1);
    std::thread::scope(|scope| {
        let run = scope.spawn(|| run(&db, "it"));
        entered.recv_timeout(PATIENCE).expect("it is called");
        // The session is given up: what the call makes does not count, and it goes on.
        clock.advance(31 * MINUTE);
        assert_eq!(db.drive().expect("drives").swept.failed, 1);
        assert!(failure(&db, id).is_some());
        let status = job(&db, "it");
        assert_eq!(status.in_flight_since, Some(START));
        assert_eq!((status.last_started, status.last_finished), (Some(START), None));
        let again = db.sessions().run_processor("it", RunOptions::new());
        assert!(matches!(again, Err(RunError::AlreadyRunning { since: START, .. })), "{again:?}");
        let_go.send(()).expect("it hangs");
        assert_eq!(run.join().expect("no panic").fenced, 1);
    });
    let status = job(&db, "it");
    assert_eq!((status.in_flight_since, status.last_finished), (None, Some(clock.now())));
    assert_eq!(it.calls(), 1);
}

#[test]
fn a_removed_processor_has_no_job() {
    let (disk, clock) = (machine(), ManualClock::at(START));
    let db = open_on(&disk, &clock, Faults::NONE);
    for name in ["one", "two"] {
        register(&db, &pure(name), observing());
    }
    ended(&db, 1, 1);
    assert_eq!(runs(&db), 2);
    db.sessions().unregister("one").expect("removed");
    assert!(find(&db, "processor:one").is_none() && find(&db, "processor:two").is_some());
    let (_disk, db) = killed(&disk, &clock);
    assert!(find(&db, "processor:one").is_none());
    register(&db, &pure("one"), observing());
    assert_eq!(job(&db, "one").last_outcome, None, "it comes back, and has not run");
    assert!(db.verify().expect("read").is_sound());
}

#[test]
fn bookkeeping_leaves_no_trace_in_the_digest() {
    let clock = ManualClock::at(START);
    let holder: Arc<Mutex<Weak<TidalDb>>> = Arc::default();
    let (seen, held) = (Arc::new(Mutex::new(Vec::new())), Arc::clone(&holder));
    let seeing = Arc::clone(&seen);
    let faults = Faults::new(move |point| {
        if point == CrashPoint::JobAfterRunBeforeFinished {
            let db = held.lock().expect("alone").upgrade().expect("it is open");
            let digest = db.state_digest().expect("read");
            seeing.lock().expect("alone").push((db.applied(), digest));
        }
    });
    let machine = Machine { faults, ..Machine::default() };
    let db = builder(&clock, manual()).ephemeral().with_machine(machine).open().expect("opens");
    let db = Arc::new(db);
    *holder.lock().expect("alone") = Arc::downgrade(&db);
    register(&db, &pure("good"), observing());
    register(&db, &probe("bad", |_, _| Err("no".into())), observing());
    ended(&db, 1, 1);
    for (at, name) in ["good", "bad"].into_iter().enumerate() {
        clock.advance(SECOND);
        run(&db, name);
        let (applied, digest) = seen.lock().expect("alone")[at];
        assert_eq!(db.applied().get(), applied.get() + 1, "one frame says that {name} ran");
        assert_eq!(db.state_digest().expect("read"), digest);
    }
}

#[test]
fn a_death_before_a_run_is_written_down_makes_it_due_again_with_nothing_to_do() {
    let (disk, clock) = (machine(), ManualClock::at(START));
    let cut = Arc::new(Mutex::new(None));
    let (cutting, live) = (Arc::clone(&cut), disk.clone());
    let faults = Faults::new(move |point| {
        if point == CrashPoint::JobAfterRunBeforeFinished {
            let image = live.reboot(Survives::Everything);
            *cutting.lock().expect("alone") = Some(image);
        }
    });
    let db = open_on(&disk, &clock, faults);
    register(&db, &pure("it"), minutely());
    let id = ended(&db, 1, 2);
    assert_eq!(runs(&db), 1);
    let image = cut.lock().expect("alone").take().expect("the point was reached");
    let db = open_on(&image, &clock, Faults::NONE);
    let it = pure("it");
    register(&db, &it, minutely());
    assert_eq!(job(&db, "it").last_started, None);
    let report = db.drive().expect("drives");
    assert_eq!((report.runs, report.processed, it.calls()), (1, 0, 0));
    assert_eq!(db.sessions().outputs("it", id).expect("read"), pure_outputs(&db, id));
}

fn threaded(clock: &ManualClock, faults: Faults) -> TidalDb {
    let mut sessions = SessionConfig::default();
    assert_eq!(sessions.runtime, Runtime::Threads);
    sessions.sweep_interval = Duration::from_millis(10);
    let machine = Machine { faults, ..Machine::default() };
    builder(clock, sessions).ephemeral().with_machine(machine).open().expect("opens")
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// P34, of runs that fail and that panic, by a clock that is set back again and again.
#[test]
fn no_hot_loop_by_a_clock_that_is_set_back() {
    for panics in [false, true] {
        let clock = ManualClock::at(START);
        let launches = Arc::new(AtomicU64::new(0));
        let counting = Arc::clone(&launches);
        let faults = Faults::new(move |point| {
            if point == CrashPoint::ProcessorAfterStarted {
                counting.fetch_add(1, Ordering::SeqCst);
                assert!(!panics, "a panic of this test's own");
            }
        });
        let db = threaded(&clock, faults);
        let mut options = minutely();
        let cadence = Duration::from_millis(20);
        options.cadence = cadence;
        options.retry.max_attempts = std::num::NonZeroU32::MAX;
        options.retry.delays = vec![Duration::ZERO];
        let broken = probe("it", |_, _| Err(ProcessError::retry_after(Duration::ZERO, "not yet")));
        ended(&db, 1, 0);
        register(&db, &broken, options);
        let launched = || launches.load(Ordering::SeqCst);
        wait_until("it is launched at once", || launched() == 1);
        let (mut elapsed, step) = (Duration::ZERO, Duration::from_millis(15));
        let most = |elapsed: Duration| elapsed.as_millis() as u64 / 20 + 1;
        for _ in 0..20 {
            clock.advance(step);
            elapsed += step;
            std::thread::sleep(Duration::from_millis(3));
            clock.set(clock.now().saturating_sub(HOUR));
            db.reset_clock().expect("reset");
            std::thread::sleep(Duration::from_millis(3));
            let count = launched();
            assert!(count <= most(elapsed), "{count} launches in {elapsed:?}");
        }
        // And it is not forgotten either.
        for _ in 0..3 {
            let (count, now) = (launched(), clock.now());
            // Whoever looks after the clock was set back finds a last run that is not later than now.
            assert!(job(&db, "it").next_due <= Some(now.saturating_add(cadence)));
            clock.advance(cadence);
            wait_until("it is launched a cadence later", || launched() == count + 1);
            wait_until("its run ends", || job(&db, "it").in_flight_since.is_none());
        }
        let outcome = job(&db, "it").last_outcome.expect("it has run");
        assert_eq!(matches!(outcome, JobOutcome::Panicked(_)), panics, "{outcome:?}");
        assert!(job(&db, "it").consecutive_failures >= 4);
    }
}

fn thread_check(db: &TidalDb) -> Option<Check> {
    let is_it = |check: &Check| {
        check.rule == "background" && check.subject.as_deref() == Some("processor:it")
    };
    db.health().checks.into_iter().find(is_it)
}

#[test]
fn health_knows_the_thread_of_a_processor_and_whether_it_panicked() {
    let clock = ManualClock::at(START);
    let panics = Arc::new(AtomicU64::new(1));
    let left = Arc::clone(&panics);
    let faults = Faults::new(move |point| {
        let is_it = point == CrashPoint::ProcessorAfterStarted;
        assert!(!is_it || left.swap(0, Ordering::SeqCst) == 0, "a panic of this test's own");
    });
    let db = threaded(&clock, faults);
    let mut options = minutely();
    options.cadence = Duration::from_millis(20);
    ended(&db, 1, 0);
    register(&db, &pure("it"), options.clone());
    let severity = || thread_check(&db).expect("its thread is there").severity;
    wait_until("it has panicked", || severity() == Severity::Warning);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(severity(), Severity::Warning, "until it goes on");
    clock.advance(Duration::from_millis(20));
    wait_until("it goes on", || severity() == Severity::Ok);
    db.sessions().unregister("it").expect("removed");
    assert_eq!(thread_check(&db), None);
    let (db, _clock) = ephemeral();
    register(&db, &pure("it"), options);
    assert_eq!(thread_check(&db), None, "there is no thread where the caller drives");
}

#[test]
fn what_the_database_does_itself_is_among_the_jobs() {
    let (disk, clock) = (machine(), ManualClock::at(START));
    let db = open_on(&disk, &clock, Faults::NONE);
    let names = |db: &TidalDb| jobs(db).into_iter().map(|job| job.name).collect::<Vec<_>>();
    assert_eq!(names(&db), ["sweep", "checkpoint"]);
    let of = |name: &str| find(&db, name).expect("it is there");
    assert_eq!((of("sweep").last_outcome, of("checkpoint").last_outcome), (None, None));
    clock.advance(MINUTE);
    db.sessions().sweep().expect("swept");
    let swept = of("sweep");
    assert_eq!((swept.last_started, swept.last_finished), (Some(clock.now()), Some(clock.now())));
    assert_eq!(swept.last_outcome, Some(JobOutcome::Success));
    assert_eq!(swept.next_due, None, "whoever drives knows when");
    let id = ended(&db, 1, 1);
    wait_until("a checkpoint is due", || of("checkpoint").next_due.is_some());
    assert_eq!(of("checkpoint").next_due, Some(START.saturating_add(HOUR)));
    db.checkpoint().expect("written");
    assert_eq!(of("checkpoint").last_started, Some(clock.now()));
    disk.fail_next(Op::StoreWrite, std::io::ErrorKind::Other);
    assert!(db.checkpoint().is_err());
    let JobStatus { last_outcome, consecutive_failures, .. } = of("checkpoint");
    assert!(matches!(last_outcome, Some(JobOutcome::Failed(_))), "{last_outcome:?}, {id}");
    assert_eq!(consecutive_failures, 1);

    let (db, clock) = ephemeral();
    let (tell, told) = mpsc::channel();
    let watch = db.watch_health(Duration::from_millis(10), move |_| {
        tell.send(()).expect("the test listens");
        panic!("a panic of this test's own");
    });
    let watch = watch.expect("a thread");
    assert_eq!(names(&db), ["sweep", "health"], "there are no checkpoints in memory");
    register(&db, &pure("it"), minutely());
    ended(&db, 1, 1);
    clock.advance(31 * MINUTE);
    told.recv_timeout(PATIENCE).expect("it is late");
    let finds = |is_it: fn(&JobOutcome) -> bool| {
        find(&db, "health").and_then(|job| job.last_outcome).is_some_and(|it| is_it(&it))
    };
    wait_until("it has looked again", || finds(|it| *it == JobOutcome::Success));
    assert_eq!(names(&db), ["processor:it", "sweep", "health"]);
    drop(watch);
    assert_eq!(names(&db), ["processor:it", "sweep"]);
}

#[test]
fn failures_in_a_row_are_counted_on_while_nothing_succeeds() {
    let (db, clock) = ephemeral();
    let it = probe("it", |_, _| Err("no".into()));
    register(&db, &it, minutely());
    ended(&db, 1, 1);
    let failures = || {
        let jobs = db.sessions().jobs();
        let job = jobs.into_iter().find(|job| job.name == "processor:it").expect("there");
        (job.consecutive_failures, matches!(job.last_outcome, Some(JobOutcome::Failed(_))))
    };
    run(&db, "it");
    assert_eq!(failures(), (1, true));
    run(&db, "it");
    assert_eq!(failures(), (1, true), "it only waited for the next attempt");
    clock.advance(MINUTE + SECOND);
    run(&db, "it");
    assert_eq!(failures(), (2, true));
}

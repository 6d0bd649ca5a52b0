//! A process that dies at every crash point of a run, and in the code of a processor; with the real disk and
//! store beneath.
//!
//! A child aborts: nothing is flushed, nothing is dropped. The parent opens what it left, lets time pass,
//! runs what is there to be run, and demands that every session was processed exactly once.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

use super::*;
use tidal_support::child::{self, Victim};
use tidaldb::SessionFilter;
use tidaldb::fault::{CrashPoint, Faults};
use tidaldb::schema::Window as W;
use tidaldb::storage::Machine;

const SESSIONS: u64 = 40;

/// A processor whose outputs and signals follow from the content alone.
fn liker(name: &'static str) -> Probe {
    probe(name, |session, out| {
        out.signal("like", EntityId::new(session.id().get()), 1.0, session.info().started_at)?;
        put_pure(session, out)
    })
}

fn open_at(dir: &Path, at: Timestamp, faults: Faults) -> (TidalDb, ManualClock) {
    let clock = ManualClock::at(at);
    let machine = Machine { faults, ..Machine::default() };
    let db = builder(&clock, manual()).with_data_dir(dir).with_machine(machine).open();
    (db.expect("opens"), clock)
}

/// What a process does that dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Workload {
    /// Everything ends, then everything is run.
    Steady,
    /// There are checkpoints between ends, and between runs; and an open after half of it.
    Checkpointed,
    /// A third of the sessions fail at first.
    Failing,
}

const WORKLOADS: [Workload; 3] = [Workload::Steady, Workload::Checkpointed, Workload::Failing];
const PROCESSORS: [&str; 3] = ["batches", "signals", "afterwards"];

impl Workload {
    fn named(name: &str) -> Self {
        let is_it = |it: &Self| format!("{it:?}") == name;
        WORKLOADS.into_iter().find(is_it).expect("a workload")
    }

    fn register_all(self, db: &TidalDb) {
        let processors = [
            (pure("batches"), minutely()),
            (pure("afterwards"), observing()),
            (liker("signals"), minutely()),
        ];
        for (it, options) in processors {
            let work = Arc::clone(&it.work);
            let it = probe(it.name, move |session, out| {
                let fails = session.attempt() == 1 && session.info().user.get() % 3 == 0;
                if self == Self::Failing && fails {
                    return Err(ProcessError::retry_after(MINUTE, "it fails at first"));
                }
                work(session, out)
            });
            register(db, &it, options);
        }
    }

    fn run(self, dir: &Path, at: Timestamp, faults: &Faults) {
        let halves = [0..SESSIONS / 2, SESSIONS / 2..SESSIONS];
        for (half, users) in halves.into_iter().enumerate() {
            let (db, clock) = open_at(dir, at.saturating_add(half as u32 * MINUTE), faults.clone());
            self.register_all(&db);
            for user in if self == Self::Checkpointed { users } else { 0..SESSIONS } {
                ended(&db, user, user % 4);
                if self == Self::Checkpointed && user % 7 == 0 {
                    db.checkpoint().expect("a checkpoint");
                }
            }
            for name in PROCESSORS {
                run(&db, name);
                if self == Self::Checkpointed {
                    db.checkpoint().expect("a checkpoint");
                }
            }
            if self == Self::Failing {
                clock.advance(2 * MINUTE);
                for name in PROCESSORS {
                    run(&db, name);
                }
            }
            if self != Self::Checkpointed {
                return;
            }
        }
    }
}

/// Not a test by itself: what a child process does.
#[test]
fn child() {
    let Some(role) = child::role() else { return };
    let dir = PathBuf::from(child::told("TIDAL_DIR"));
    let number = |key: &str| -> u64 { child::told(key).parse().expect("a number") };
    let at = Timestamp::from_nanos(number("TIDAL_AT"));
    if role == "poisoned" {
        return run_poisoned(&dir, at);
    }
    let (point, left) = (number("TIDAL_POINT"), AtomicU64::new(number("TIDAL_REACH")));
    let faults = Faults::new(move |reached: CrashPoint| {
        if u64::from(reached.number()) == point && left.fetch_sub(1, Ordering::SeqCst) == 1 {
            std::process::abort();
        }
    });
    Workload::named(&role).run(&dir, at, &faults);
}

#[test]
fn outputs_and_signals_are_there_exactly_once_after_a_death_at_every_crash_point_of_a_run() {
    for (workload, point) in WORKLOADS.into_iter().flat_map(|it| points().map(move |p| (it, p))) {
        let reaches: &[u64] =
            if workload == Workload::Steady { &[1, 3, 8, 15, 30, 90] } else { &[1, 8, 30] };
        for &reach in reaches {
            let dir = tempfile::tempdir().expect("a directory");
            let says = [
                ("TIDAL_DIR", dir.path().display().to_string()),
                ("TIDAL_AT", START.as_nanos().to_string()),
                ("TIDAL_POINT", point.number().to_string()),
                ("TIDAL_REACH", reach.to_string()),
            ];
            let role = format!("{workload:?}");
            let (_, status) = Victim::spawn("deaths::child", &role, &says).finish();
            let died = status.signal() == Some(6);
            assert!(died || status.success(), "{status}");
            // Forty sessions go in six batches, and there are three runs.
            let least = if point == CrashPoint::JobAfterRunBeforeFinished { 3 } else { 15 };
            assert!(died || reach > least, "{point:?} was not reached {reach} times");
            check(workload, dir.path(), &format!("{workload:?}, {point:?} at reach {reach}"));
            if !died {
                break;
            }
        }
    }
}

fn points() -> impl Iterator<Item = CrashPoint> {
    CrashPoint::OF_PROCESSORS.iter().copied()
}

#[test]
fn a_panic_at_every_crash_point_of_a_run_is_the_callers_and_nothing_is_lost_or_done_twice() {
    for point in points() {
        let dir = tempfile::tempdir().expect("a directory");
        let left = AtomicU64::new(2);
        let faults = Faults::new(move |reached| {
            if reached == point && left.fetch_sub(1, Ordering::SeqCst) == 1 {
                panic!("a bug at {point:?}");
            }
        });
        let work = || Workload::Steady.run(dir.path(), START, &faults);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        assert!(outcome.is_err(), "{point:?}: nobody noticed");
        check(Workload::Steady, dir.path(), &format!("a panic at {point:?}"));
    }
}

fn check(workload: Workload, dir: &Path, what: &str) {
    let (db, clock) = open_at(dir, START.saturating_add(5 * MINUTE), Faults::NONE);
    workload.register_all(&db);
    let there = db.sessions().list(&SessionFilter::new()).expect("listed").len() as u64;
    assert!(there == SESSIONS || there == SESSIONS / 2, "{what}: {there} sessions");
    (there..SESSIONS).for_each(|user| {
        ended(&db, user, user % 4);
    });
    for _ in 0..3 {
        clock.advance(15 * MINUTE);
        db.drive().expect("drives");
    }
    let all = db.sessions().list(&SessionFilter::new()).expect("listed");
    assert_eq!(all.len() as u64, SESSIONS, "{what}");
    for info in all {
        for name in PROCESSORS {
            let row = db.sessions().processor_row(name, info.id).expect("read").expect("there");
            let outcome = row.outcome.expect("done");
            assert_eq!(row.status, ProcessorStatus::Done, "{what}: {name}");
            let most = if workload == Workload::Failing { 3 } else { 2 };
            let attempts = outcome.attempts;
            assert!((1..=most).contains(&attempts), "{what}: {attempts} attempts");
            assert_eq!(outcome.outputs, pure_outputs(&db, info.id), "{what}: {name}");
        }
        let likes = db.read_windowed_count(EntityId::new(info.id.get()), "like", W::AllTime);
        assert_eq!(likes.expect("read"), 1, "{what}: its signal counts once");
        assert!(is_settled(&db, info.id));
    }
    assert!(db.verify().expect("read").is_sound(), "{what}");
}

/// The one whose processing ends the process.
const POISON: u64 = 20;

fn run_poisoned(dir: &Path, at: Timestamp) {
    let (db, _clock) = open_at(dir, at, Faults::NONE);
    let it = probe("it", |session, out| {
        child::report(&format!("{} {}", session.info().user.get(), session.attempt()));
        if session.info().user.get() == POISON {
            std::process::abort();
        }
        put_pure(session, out)
    });
    register(&db, &it, minutely());
    if db.sessions().list(&SessionFilter::new()).expect("listed").is_empty() {
        (0..SESSIONS).for_each(|user| {
            ended(&db, user, 1);
        });
    }
    run(&db, "it");
}

/// P32, and P31 with a poison that takes the process with it.
#[test]
fn crashed_attempt_is_counted() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut deaths, mut attempts) = (0, Vec::new());
    for minute in 0..20 {
        let at = START.saturating_add(minute * MINUTE);
        let says = [
            ("TIDAL_DIR", dir.path().display().to_string()),
            ("TIDAL_AT", at.as_nanos().to_string()),
        ];
        let (reports, status) = Victim::spawn("deaths::child", "poisoned", &says).finish();
        assert!(status.signal() == Some(6) || status.success(), "{status}");
        deaths += u64::from(status.signal() == Some(6));
        for report in reports {
            let (user, attempt) = report.split_once(' ').expect("two numbers");
            let [user, attempt]: [u64; 2] = [user, attempt].map(|it| it.parse().expect("a number"));
            match user {
                POISON => attempts.push(attempt),
                _ => assert!(attempt <= 2, "a neighbour has {attempt} attempts"),
            }
        }
    }
    assert_eq!((deaths, attempts), (5, vec![1, 2, 3, 4, 5]));
    let (db, clock) = open_at(dir.path(), START.saturating_add(HOUR), Faults::NONE);
    let it = pure("it");
    register(&db, &it, minutely());
    clock.advance(HOUR);
    run(&db, "it");
    assert_eq!(it.calls(), 0, "it is given up, and everyone else is done");
    for info in db.sessions().list(&SessionFilter::new()).expect("listed") {
        let is_poison = info.user.get() == POISON;
        let status = status(&db, "it", info.id).expect("attempted");
        assert_eq!(matches!(status, ProcessorStatus::Quarantined { .. }), is_poison, "{status:?}");
        assert_eq!(is_settled(&db, info.id), !is_poison);
        let cause = failure(&db, info.id);
        assert_eq!(cause.is_some(), is_poison, "who waits is told that it was given up");
    }
}

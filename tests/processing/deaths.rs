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

fn register_all(db: &TidalDb) {
    register(db, &pure("batches"), minutely());
    register(db, &pure("afterwards"), observing());
    register(db, &liker("signals"), minutely());
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
    let (db, _clock) = open_at(&dir, at, faults);
    register_all(&db);
    (0..SESSIONS).for_each(|user| {
        ended(&db, user, user % 4);
    });
    for name in ["batches", "signals", "afterwards"] {
        run(&db, name);
    }
}

#[test]
fn outputs_and_signals_are_there_exactly_once_after_a_death_at_every_crash_point_of_a_run() {
    for point in CrashPoint::OF_PROCESSORS {
        for reach in [1, 3, 8, 15, 30, 90] {
            let dir = tempfile::tempdir().expect("a directory");
            let says = [
                ("TIDAL_DIR", dir.path().display().to_string()),
                ("TIDAL_AT", START.as_nanos().to_string()),
                ("TIDAL_POINT", point.number().to_string()),
                ("TIDAL_REACH", reach.to_string()),
            ];
            let (_, status) = Victim::spawn("deaths::child", "dying", &says).finish();
            let died = status.signal() == Some(6);
            assert!(died || status.success(), "{status}");
            // Forty sessions go in six batches, and there are three runs.
            let least = if *point == CrashPoint::JobAfterRunBeforeFinished { 3 } else { 15 };
            assert!(died || reach > least, "{point:?} was not reached {reach} times");
            check(dir.path(), &format!("{point:?} at reach {reach}"));
        }
    }
}

fn check(dir: &Path, what: &str) {
    let (db, clock) = open_at(dir, START.saturating_add(MINUTE), Faults::NONE);
    register_all(&db);
    for _ in 0..3 {
        clock.advance(15 * MINUTE);
        db.drive().expect("drives");
    }
    let all = db.sessions().list(&SessionFilter::new()).expect("listed");
    assert_eq!(all.len() as u64, SESSIONS, "{what}");
    for info in all {
        for name in ["batches", "signals", "afterwards"] {
            let row = db.sessions().processor_row(name, info.id).expect("read").expect("there");
            let outcome = row.outcome.expect("done");
            assert_eq!(row.status, ProcessorStatus::Done, "{what}: {name}");
            assert!((1..=2).contains(&outcome.attempts), "{what}: {} attempts", outcome.attempts);
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

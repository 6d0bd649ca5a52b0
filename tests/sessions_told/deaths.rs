//! A process that dies between two steps of a host's call about sessions that have ended, with the real disk
//! and store beneath.
//!
//! A child aborts at a crash point: nothing is flushed, nothing is dropped. The parent opens what it left.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use tidal_support::child::{self, Victim};
use tidal_support::copy_dir;
use tidaldb::fault::{CrashPoint, Faults};
use tidaldb::schema::{EntityId, Window};
use tidaldb::storage::Machine;
use tidaldb::{EventFilter, PrunePlan, Retention, SessionFilter, SessionInfo, SessionState};

use crate::*;

const SESSIONS: u64 = 10;
const RECORDS: u64 = 3;
const ITEM: EntityId = EntityId::new(7);
const RETENTION: Retention = Retention::settled_for(HOUR);
/// When the calls are made: all that was written is old by then.
const LATER: Timestamp = Timestamp::from_secs(1_700_007_200);

/// Ten sessions that have ended, and the one whose start has made that known.
fn write_sessions(dir: &Path) {
    let clock = ManualClock::at(START);
    let db = open(dir, &clock);
    for user in 0..SESSIONS {
        let session = db.start_session(user, "phone", "default").expect("started");
        for _ in 0..RECORDS {
            session.signal("view", ITEM, 1.0, START).expect("written");
        }
        session.close().expect("closed");
    }
    clock.advance(2 * HOUR);
    start(&db, SESSIONS);
    db.close().expect("closes");
}

/// Not a test by itself: makes a call, and aborts at a crash point when it is reached for the n-th time.
#[test]
fn child() {
    let Some(role) = child::role() else { return };
    let number = |key: &str| -> u64 { child::told(key).parse().expect("a number") };
    let (point, left) = (number("TIDAL_POINT"), AtomicU64::new(number("TIDAL_REACH")));
    let faults = Faults::new(move |reached: CrashPoint| {
        if u64::from(reached.number()) == point && left.fetch_sub(1, Ordering::SeqCst) == 1 {
            std::process::abort();
        }
    });
    let machine = Machine { faults, ..Machine::default() };
    let dir = PathBuf::from(child::told("TIDAL_DIR"));
    let clock = ManualClock::at(LATER);
    let db = builder(&clock, manual()).with_data_dir(dir).with_machine(machine).open();
    let db = db.expect("opens");
    match &*role {
        "prune" => {
            let plan = db.sessions().plan_prune(&RETENTION).expect("planned");
            db.sessions().apply(plan).map(drop).expect("applied");
        }
        _ => {
            let mut cursor = db.sessions().cursor("hook", EventFilter::all()).expect("there");
            (0..SESSIONS).for_each(|user| {
                start(&db, user);
            });
            loop {
                let batch = cursor.next_batch(2).expect("read");
                let Some(last) = batch.last() else { break };
                batch.iter().for_each(|it| child::report(&it.number.to_string()));
                cursor.ack(last.number).expect("acknowledged");
            }
        }
    }
}

/// What a child reported that died where it was told to.
fn die(dir: &Path, role: &str, point: CrashPoint, reach: u64) -> Vec<String> {
    let says = [
        ("TIDAL_DIR", dir.display().to_string()),
        ("TIDAL_POINT", point.number().to_string()),
        ("TIDAL_REACH", reach.to_string()),
    ];
    let (reports, status) = Victim::spawn("deaths::child", role, &says).finish();
    assert_eq!(status.signal(), Some(6), "{point:?} was not reached {reach} times: {status}");
    reports
}

fn all(db: &TidalDb) -> Vec<SessionInfo> {
    db.sessions().list(&SessionFilter::new()).expect("listed")
}

/// What pruning keeps of a session.
fn kept(info: &SessionInfo) -> impl PartialEq + std::fmt::Debug {
    let bounds = (info.started_at, info.state.end().cloned());
    (info.id, info.user, bounds, info.content_hash, (info.records, info.signals))
}

fn count(db: &TidalDb) -> u64 {
    db.read_windowed_count(ITEM, "view", Window::AllTime).expect("read")
}

#[test]
fn a_prune_that_is_killed_in_the_middle_leaves_each_session_whole_or_pruned() {
    let pristine = tempfile::tempdir().expect("a directory");
    write_sessions(pristine.path());
    for reach in [1, 2, 5, SESSIONS - 1] {
        let dir = tempfile::tempdir().expect("a directory");
        copy_dir(pristine.path(), dir.path());
        let clock = ManualClock::at(LATER);
        let db = open(dir.path(), &clock);
        let (before, plan) = (all(&db), db.sessions().plan_prune(&RETENTION).expect("planned"));
        assert_eq!((plan.items().len() as u64, count(&db)), (SESSIONS, SESSIONS * RECORDS));
        drop(db);
        die(dir.path(), "prune", CrashPoint::PruneMid, reach);
        let db = open(dir.path(), &clock);
        let mut pruned = 0;
        for (info, before) in all(&db).iter().zip(&before) {
            assert_eq!(kept(info), kept(before));
            let is_pruned = matches!(info.state, SessionState::Pruned(_));
            pruned += u64::from(is_pruned);
            let records = db.sessions().records(info.id).expect("read").len() as u64;
            assert_eq!(records, if is_pruned { 0 } else { info.records }, "whole or pruned");
        }
        assert_eq!(pruned, reach, "those whose turn had come, since the kernel lives on");
        assert_eq!(count(&db), SESSIONS * RECORDS, "what its signals counted for stays counted");
        // The plan that was carried out by half does the other half.
        let again = PrunePlan::new(plan.retention(), plan.items().to_vec());
        let applied = db.sessions().apply(again).expect("applied");
        let numbers = (applied.done.len() as u64, applied.skipped.len() as u64);
        assert_eq!(numbers, (SESSIONS - reach, reach));
        let left = all(&db).iter().filter(|it| matches!(it.state, SessionState::Pruned(_))).count();
        assert_eq!((left as u64, count(&db)), (SESSIONS, SESSIONS * RECORDS));
        assert!(db.verify().expect("verified").is_sound());
    }
}

#[test]
fn a_cursor_that_is_killed_before_its_acknowledgement_tells_again_and_skips_nothing() {
    for reach in [1, 2, 5] {
        let dir = tempfile::tempdir().expect("a directory");
        write_sessions(dir.path());
        let reports = die(dir.path(), "listen", CrashPoint::CursorBeforeAck, reach);
        let heard: Vec<u64> = reports.iter().map(|it| it.parse().expect("a number")).collect();
        assert_eq!(heard, (1..=2 * reach).collect::<Vec<_>>());
        let db = open(dir.path(), &ManualClock::at(LATER));
        let mut cursor = db.sessions().cursor("hook", EventFilter::all()).expect("there");
        let told = cursor.next_batch(100).expect("read");
        let numbers: Vec<u64> = told.iter().map(|it| it.number).collect();
        let first = 2 * reach - 1;
        assert_eq!(numbers[0], first, "what was told and not acknowledged is told again");
        let last = first + numbers.len() as u64 - 1;
        assert_eq!(numbers, (first..=last).collect::<Vec<_>>(), "and nothing is skipped");
        let started = told.iter().filter(|it| matches!(it.event, SessionEvent::Started { .. }));
        assert_eq!(started.count() as u64, SESSIONS + 1 - first, "one for each that began");
        assert!(db.verify().expect("verified").is_sound());
    }
}

#[test]
fn each_crash_point_of_a_call_of_a_host_is_died_at_in_this_suite() {
    assert_eq!(CrashPoint::OF_HOSTS, [CrashPoint::PruneMid, CrashPoint::CursorBeforeAck]);
}

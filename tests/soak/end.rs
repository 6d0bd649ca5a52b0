//! What must be true when all that is wrong has gone by.

use std::collections::BTreeMap;
use std::path::Path;

use tidal_support::files;
use tidaldb::fault::Faults;
use tidaldb::schema::{EntityId, Timestamp, Window};
use tidaldb::{
    Clock, FailCause, ManualClock, ProcessorStatus, SessionFilter, SessionId, SessionInfo,
    SessionState, TidalDb,
};

use crate::book::Book;
use crate::setup::{self, Calm, HOUR, KINDS, Kind};

/// Lets the processors succeed, and holds what is there to the book.
pub(crate) fn check(dir: &Path, book: &mut Book) {
    let (db, _) = let_it_settle(dir, book);
    check_sessions(&db, book);
    check_processing(&db, book, Kinds::AsTheyAre);
    // What was given up is given another chance, and whoever can, takes it.
    let all = SessionFilter::new().limit(1 << 20);
    let plan = db.sessions().plan_requeue(&all).expect("planned");
    plan.items().iter().for_each(|item| book.note(&format!("requeue {}", item.session)));
    drop(db.sessions().apply(plan).expect("applied"));
    // A close writes down the last of what is known of runs.
    db.close().expect("closes");
    let (db, clock) = let_it_settle(dir, book);
    check_processing(&db, book, Kinds::Requeued);
    check_idle((&db, &clock), dir, book);
    let report = db.verify().expect("read");
    assert!(report.is_sound(), "{}: {report}", book.what());
    db.close().expect("closes");
    book.check_runs();
}

/// What is expected of a session that is healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kinds {
    /// It is done, or it is known why not.
    AsTheyAre,
    /// It is done.
    Requeued,
}

/// When each processor has begun to run last.
fn last_runs(db: &TidalDb) -> BTreeMap<&'static str, Timestamp> {
    let jobs = db.sessions().jobs();
    let of = |kind: Kind| {
        let name = format!("processor:{}", kind.name);
        let job = jobs.iter().find(|job| job.name == name)?;
        Some((kind.name, job.last_started?))
    };
    KINDS.into_iter().filter_map(of).collect()
}

fn drive(db: &TidalDb, book: &mut Book) -> u64 {
    let before = last_runs(db);
    let driven = db.drive().expect("drives");
    for (name, at) in last_runs(db) {
        if before.get(name) != Some(&at) {
            book.note(&format!("RUN {name} {}", at.as_nanos()));
        }
    }
    driven.processed
}

/// Time passes, processors succeed, all that is open ends.
fn let_it_settle(dir: &Path, book: &mut Book) -> (TidalDb, ManualClock) {
    let (db, clock) = setup::open(dir, book.at(), Faults::NONE);
    for kind in KINDS {
        let version = kind.version(book.version());
        db.sessions().register(Calm { kind, version }, kind.options()).expect("registered");
    }
    let until = clock.now().saturating_add(Book::LONG);
    while clock.now() < until {
        clock.advance(Book::STEP);
        drive(&db, book);
        note_time(&clock, book);
    }
    (db, clock)
}

fn note_time(clock: &ManualClock, book: &mut Book) {
    book.note(&format!("t {}", clock.now().as_nanos()));
}

fn all(db: &TidalDb) -> Vec<SessionInfo> {
    db.sessions().list(&SessionFilter::new().limit(1 << 20)).expect("listed")
}

/// What was acknowledged is there, and nothing that nobody has written.
fn check_sessions(db: &TidalDb, book: &Book) {
    let says = book.what();
    let there: BTreeMap<u64, SessionInfo> =
        all(db).into_iter().map(|info| (info.id.get(), info)).collect();
    let unknown = there.keys().filter(|id| !book.sessions.contains_key(id)).count() as u64;
    assert!(unknown <= book.unanswered_starts, "{says}: {unknown} sessions that nobody has begun");
    for (id, known) in &book.sessions {
        let info = there.get(id).unwrap_or_else(|| panic!("{says}: session {id} is lost"));
        assert!(!info.state.is_open(), "{says}: nobody goes on with {info:?}");
        let is_pruned = matches!(info.state, SessionState::Pruned(_));
        assert!(is_pruned || !known.is_pruned, "{says}: {info:?} was pruned");
        assert!(!is_pruned || known.may_be_pruned, "{says}: nobody has pruned {info:?}");
        let records = db.sessions().records(SessionId::new(*id)).expect("read");
        let items: Vec<u64> = records.iter().map(|record| record.entity.get()).collect();
        if is_pruned {
            assert_eq!(items, [], "{says}: {info:?}");
            continue;
        }
        assert_eq!(items.len() as u64, info.records, "{says}: {info:?}");
        let is_there = |item: &u64| items.contains(item);
        assert!(known.acknowledged.iter().all(is_there), "{says}: {known:?} has {items:?}");
        assert!(items.iter().all(|item| known.meant.contains(item)), "{says}: {known:?} {items:?}");
        assert!(items.is_sorted(), "{says}: {items:?}");
    }
}

fn check_processing(db: &TidalDb, book: &Book, expected: Kinds) {
    let mut done = 0;
    for info in all(db) {
        let is_healthy = setup::is_healthy(info.user.get());
        if is_healthy {
            check_state(&info, book, expected);
        }
        for kind in KINDS {
            done += u64::from(check_row(db, &info, kind, book, expected));
        }
    }
    assert!(done > 0, "{}: nothing was done", book.what());
}

/// How a session is that all processors get on with.
fn check_state(info: &SessionInfo, book: &Book, expected: Kinds) {
    let says = book.what();
    let SessionState::Failed { cause, .. } = &info.state else {
        let is_over = matches!(info.state, SessionState::Settled(_) | SessionState::Pruned(_));
        return assert!(is_over, "{says}: nobody has failed with {info:?}");
    };
    let id = info.id.get();
    assert_eq!(expected, Kinds::AsTheyAre, "{says}: {info:?}");
    let known = book.sessions.get(&id);
    let is_known = match cause {
        FailCause::Quarantined { processor } => book.may_have_given_up(Kind::of(processor), id),
        FailCause::TimedOut { .. } => known.is_some_and(|known| known.has_hung),
        FailCause::Reset { .. } => known.is_some_and(|known| known.may_be_reset),
        _ => false,
    };
    assert!(is_known, "{says}: nobody knows why {info:?}; {known:?}");
}

/// How far a processor is with a session; whether it is done.
fn check_row(db: &TidalDb, info: &SessionInfo, kind: Kind, book: &Book, expected: Kinds) -> bool {
    let says = format!("{}: {} with {info:?}", book.what(), kind.name);
    let id = info.id.get();
    let is_cursed = kind.curse(info.user.get()).is_some();
    let is_pruned = matches!(info.state, SessionState::Pruned(_));
    let has_failed = matches!(info.state, SessionState::Failed { .. });
    let row = db.sessions().processor_row(kind.name, info.id).expect("read");
    let outcome = row.as_ref().and_then(|row| row.outcome.as_ref());
    if let Some(outcome) = outcome {
        assert!(!is_cursed, "{says}: {outcome:?}");
        let pairs: BTreeMap<_, _> = outcome.outputs.iter().cloned().collect();
        assert_eq!(pairs[&b"hash"[..]], outcome.content_hash, "{says}");
        assert_eq!(pairs[&b"v"[..]], outcome.version.to_be_bytes(), "{says}");
        if outcome.content_hash == info.content_hash && !is_pruned {
            let records = db.sessions().records(info.id).expect("read");
            let pure = setup::outputs(&info.content_hash, outcome.version, &records);
            assert_eq!(outcome.outputs, pure, "{says}");
        }
    }
    check_likes(db, info, kind, book, outcome.is_some());
    let status = row.as_ref().map(|row| &row.status);
    match status {
        Some(ProcessorStatus::Done) => {
            let outcome = outcome.expect("who is done has an outcome");
            let is_current = outcome.content_hash == info.content_hash
                && outcome.version == kind.version(book.version());
            assert!(is_current || is_pruned || has_failed, "{says}: {outcome:?}");
            return true;
        }
        // It was given up with its session, whoever did that.
        Some(ProcessorStatus::Quarantined { error, .. })
            if has_failed && error.starts_with("the session failed") => {}
        Some(ProcessorStatus::Quarantined { .. }) => {
            let is_known = is_cursed || book.may_have_given_up(kind, id);
            assert!(is_known, "{says}: {status:?}; {:?}", book.tried(kind, id));
            assert!(is_cursed || is_pruned || expected == Kinds::AsTheyAre, "{says}: {status:?}");
        }
        // Nobody goes on with what was given up, or has nothing to see.
        _ => assert!(is_pruned || has_failed, "{says}: {status:?}"),
    }
    false
}

/// A derived signal counts once for what may be a content of its own.
fn check_likes(db: &TidalDb, info: &SessionInfo, kind: Kind, book: &Book, is_done: bool) {
    if kind.name != "signals" {
        return;
    }
    let likes = db.read_windowed_count(EntityId::new(info.id.get()), "like", Window::AllTime);
    let (likes, most) = (likes.expect("read"), 1 + book.tried(kind, info.id.get()).begun_anew);
    assert!(likes <= most, "{}: {info:?} has {likes} likes of {most}", book.what());
    assert!(likes > 0 || !is_done, "{}: {info:?} has no like", book.what());
}

/// Where nothing happens nothing is written.
fn check_idle((db, clock): (&TidalDb, &ManualClock), dir: &Path, book: &mut Book) {
    let log = || (db.applied(), files(&dir.join("log")));
    let before = log();
    for _ in 0..5 {
        clock.advance(HOUR);
        assert_eq!(drive(db, book), 0, "{}: there was nothing to do", book.what());
        note_time(clock, book);
    }
    assert!(before == log(), "{}: an idle database writes", book.what());
}

//! Events for sure: at least once, in order, without holes, over kills and restarts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidal_support::child::{self, Victim};
use tidal_support::hex;
use tidal_support::random::Random;
use tidaldb::{
    DeliveredEvent, Durability, Error, EventFilter, EventKind, ManualClock, SessionConfig,
    SessionFilter, TidalDb,
};

use crate::{HOUR, IDLE, START, builder, ephemeral, manual, names, open, options, schema, start};

fn events(batch: &[DeliveredEvent]) -> Vec<(&'static str, u64)> {
    names(batch.iter().map(|delivered| &delivered.event))
}

/// A database that syncs nothing by itself for an hour.
fn unsynced(dir: &Path, clock: &ManualClock) -> TidalDb {
    let mut options = options();
    options.durability = Durability::Os { sync_every: HOUR };
    let builder = builder(clock, manual()).with_options(options).with_data_dir(dir);
    builder.open().expect("opens")
}

#[test]
fn a_cursor_goes_on_after_what_it_acknowledged_and_repeats_the_rest() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::at(START);
    let db = open(dir.path(), &clock);
    start(&db, 9);
    let mut cursor = db.sessions().cursor("hook", EventFilter::all()).expect("registered");
    assert!(cursor.next_batch(10).expect("read").is_empty(), "it begins here");
    let ids = [1, 2, 3].map(|user| start(&db, user).as_u64());
    let batch = cursor.next_batch(2).expect("read");
    assert_eq!(events(&batch), [("started", ids[0]), ("started", ids[1])]);
    assert_eq!(batch.iter().map(|event| event.number).collect::<Vec<_>>(), [1, 2]);
    cursor.ack(1).expect("acknowledged");
    assert_eq!(events(&cursor.next_batch(9).expect("read")), [("started", ids[2])]);
    cursor.rewind().expect("it is there");
    assert_eq!(events(&cursor.next_batch(9).expect("read"))[0], ("started", ids[1]));
    db.checkpoint().expect("written");
    db.checkpoint().expect("written");
    drop(cursor);
    drop(db);
    let db = open(dir.path(), &clock);
    let mut cursor = db.sessions().cursor("hook", EventFilter::all()).expect("it is there");
    let batch = cursor.next_batch(9).expect("read");
    assert_eq!(events(&batch)[..2], [("started", ids[1]), ("started", ids[2])]);
    assert_eq!(events(&batch)[2..].len(), 4, "and then four are restored: {batch:?}");
    cursor.ack(batch.last().expect("six").number).expect("acknowledged");
    assert!(cursor.next_batch(9).expect("read").is_empty());
    assert!(db.verify().expect("verified").is_sound());
}

#[test]
fn cursors_are_told_apart_refused_and_removed() {
    let (db, _) = ephemeral(manual());
    let ends = EventFilter::all().kinds([EventKind::Ended]);
    let mut cursor = db.sessions().cursor("ends", ends.clone()).expect("registered");
    let before = db.applied();
    db.sessions().cursor("ends", ends).expect("it is there");
    assert_eq!(db.applied(), before, "what is there is not written again");
    let other = db.sessions().cursor("ends", EventFilter::all());
    assert!(matches!(other, Err(Error::InvalidArgument { what: "cursor", .. })));
    assert!(db.sessions().cursor("", EventFilter::all()).is_err());
    let id = start(&db, 1);
    db.sessions().end(id, "test").expect("ended");
    let batch = cursor.next_batch(10).expect("read");
    assert_eq!(events(&batch), [("ended", id.as_u64())]);
    assert!(matches!(cursor.ack(99), Err(Error::InvalidArgument { .. })));
    db.sessions().remove_cursor("ends").expect("removed");
    assert!(matches!(cursor.next_batch(1), Err(Error::UnknownName { .. })));
    assert!(matches!(cursor.ack(1), Err(Error::UnknownName { .. })));
    assert!(matches!(db.sessions().remove_cursor("ends"), Err(Error::UnknownName { .. })));
}

#[test]
fn who_listens_leaves_no_trace_in_the_digest_of_what_happened() {
    let digest_of = |acks: Option<u64>| {
        let (db, _) = ephemeral(manual());
        let cursor = acks.map(|through| {
            let cursor = db.sessions().cursor("hook", EventFilter::all()).expect("registered");
            (cursor, through)
        });
        // Sessions are named by the numbers of operations, and a registration is one.
        if acks.is_none() {
            db.hide_item(tidaldb::schema::EntityId::new(1)).expect("hidden");
            db.show_item(tidaldb::schema::EntityId::new(1)).expect("shown");
        } else {
            db.sessions().cursor("another", EventFilter::all()).expect("registered");
        }
        (1..4).for_each(|user| {
            start(&db, user);
        });
        if let Some((mut cursor, through)) = cursor {
            cursor.ack(through).expect("acknowledged");
        }
        hex(&db.state_digest().expect("in memory"))
    };
    assert_eq!(digest_of(None), digest_of(Some(1)));
    assert_eq!(digest_of(None), digest_of(Some(3)));
}

#[test]
fn nothing_is_handed_out_before_it_is_safe_from_a_power_cut() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::at(START);
    let db = unsynced(dir.path(), &clock);
    let ends = EventFilter::all().kinds([EventKind::Ended]);
    let mut cursor = db.sessions().cursor("hook", ends).expect("registered");
    let id = start(&db, 1);
    clock.advance(IDLE * 2);
    assert_eq!(db.drive().expect("swept").swept.ended, 1);
    assert!(cursor.next_batch(9).expect("read").is_empty(), "it is only written");
    db.flush().expect("synced");
    assert_eq!(events(&cursor.next_batch(9).expect("read")), [("ended", id.as_u64())]);
}

#[test]
fn a_cursor_whose_filter_passes_everything_over_holds_nothing_back() {
    let (db, _) = ephemeral(manual());
    let nobody = EventFilter::all().user(9_999);
    let mut idle = db.sessions().cursor("idle", nobody).expect("registered");
    let mut busy = db.sessions().cursor("busy", EventFilter::all()).expect("registered");
    for user in 0..1_100 {
        start(&db, user);
    }
    let batch = busy.next_batch(2_000).expect("read");
    assert_eq!(batch.len(), 1_100);
    busy.ack(1_100).expect("acknowledged");
    let (before, held) = (db.applied(), db.status().cold_pending_size_bytes);
    assert!(idle.next_batch(10).expect("read").is_empty());
    assert_eq!(db.applied().get(), before.get() + 1, "it says that it has passed them");
    assert!(db.status().cold_pending_size_bytes < held, "what all have passed is forgotten");
    assert!(idle.next_batch(10).expect("read").is_empty());
    assert_eq!(db.applied().get(), before.get() + 1, "and says it once");
    assert!(db.verify().expect("verified").is_sound());
}

/// Not a test by itself: starts sessions, reports each, and lets the sweeper of its own end some.
#[test]
fn child() {
    if child::role().is_none() {
        return;
    }
    let mut sessions = SessionConfig::default();
    sessions.sweep_interval = Duration::from_millis(10);
    let db = TidalDb::builder()
        .with_schema(schema())
        .with_sessions(sessions)
        .with_data_dir(PathBuf::from(child::told("TIDAL_DIR")))
        .open()
        .expect("opens");
    let mut cursor = db.sessions().cursor("hook", EventFilter::all()).expect("registered");
    for user in 0.. {
        let policy = if user % 2 == 0 { "brief" } else { "default" };
        let handle = db.start_session(user, "phone", policy).expect("started");
        if user % 3 == 0 {
            handle.close().expect("closed");
        }
        for delivered in cursor.next_batch(4).expect("read") {
            let (name, id) = crate::name_of(&delivered.event);
            child::report(&format!("{} {name} {id}", delivered.number));
            // Every second one is acknowledged after it was told, as a consumer does.
            if delivered.number % 2 == 0 {
                cursor.ack(delivered.number).expect("acknowledged");
            }
        }
    }
}

#[test]
fn no_event_is_skipped_whenever_the_process_is_killed() {
    let mut random = Random::new(Random::seed_from("TIDAL_SEED"));
    let dir = tempfile::tempdir().expect("a directory");
    let says = [("TIDAL_DIR", dir.path().display().to_string())];
    let mut heard: Vec<(u64, String)> = Vec::new();
    for _ in 0..6 {
        let mut victim = Victim::spawn("cursors::child", "consume", &says);
        let first = victim.next_report();
        std::thread::sleep(Duration::from_micros(200_000 + random.below(500_000)));
        let mut last = heard.last().map_or(0, |(number, _)| *number);
        for line in first.into_iter().chain(victim.kill()) {
            let (number, what) = line.split_once(' ').expect("a number and an event");
            let number: u64 = number.parse().expect("a number");
            assert!(number <= last + 1, "{number} follows {last}: events were skipped");
            last = last.max(number);
            heard.push((number, what.to_owned()));
        }
    }
    let db = TidalDb::builder().with_schema(schema()).with_data_dir(dir.path()).open();
    let db = db.expect("opens");
    // Time goes on: what has ended by now is told of by now.
    let all = db.sessions().list(&SessionFilter::new().limit(1 << 20)).expect("listed");
    db.sessions().sweep().expect("swept");
    db.flush().expect("synced");
    let mut cursor = db.sessions().cursor("hook", EventFilter::all()).expect("it is there");
    while let Some(delivered) = cursor.next_batch(1).expect("read").pop() {
        let (name, id) = crate::name_of(&delivered.event);
        heard.push((delivered.number, format!("{name} {id}")));
        cursor.ack(delivered.number).expect("acknowledged");
    }
    heard.sort_unstable();
    heard.dedup();
    let numbers = heard.iter().map(|(number, _)| *number);
    assert!(numbers.eq(1..=heard.len() as u64), "each number is one event, and none is missing");
    let started: BTreeSet<&str> =
        heard.iter().filter_map(|(_, what)| what.strip_prefix("started ")).collect();
    let there: BTreeSet<String> = all.iter().map(|info| info.id.to_string()).collect();
    assert!(there.iter().map(String::as_str).eq(started.iter().copied().collect::<BTreeSet<_>>()));
    assert!(there.len() > 20, "{} sessions prove little", there.len());
    assert!(db.verify().expect("verified").is_sound());
    // A session that ended was told to have ended.
    let ended: BTreeSet<&str> =
        heard.iter().filter_map(|(_, what)| what.strip_prefix("ended ")).collect();
    for info in all.iter().filter(|info| info.state.end().is_some()) {
        assert!(ended.contains(info.id.to_string().as_str()), "{info:?}");
    }
}

#[test]
fn what_a_power_cut_would_take_back_is_handed_out_once_it_is_synced() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::at(START);
    let db = unsynced(dir.path(), &clock);
    let mut cursor = db.sessions().cursor("hook", EventFilter::all()).expect("registered");
    let id = start(&db, 1);
    assert_eq!(events(&cursor.next_batch(10).expect("read")), [("started", id.as_u64())]);
    clock.advance(IDLE + HOUR);
    db.sessions().sweep().expect("swept");
    assert_eq!(cursor.next_batch(10).expect("read"), [], "nothing of it is synced");
    db.flush().expect("flushed");
    let told = cursor.next_batch(10).expect("read");
    assert_eq!(events(&told)[0], ("ended", id.as_u64()));
}

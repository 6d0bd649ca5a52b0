//! Events as they happen.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tidaldb::{Error, EventFilter, EventKind, Seq, SessionEvent};

use crate::{IDLE, PATIENCE, ephemeral, manual, name_of, names, start, told};

#[test]
fn events_come_in_log_order_each_with_its_position_and_none_for_what_was_refused() {
    let (db, clock) = ephemeral(manual());
    let events = db.sessions().subscribe(EventFilter::all()).expect("subscribed");
    let first = start(&db, 1);
    let second = db.start_session(1, "phone", "default").expect("it takes the lane");
    let id = second.session_id();
    assert!(db.start_session(2, "phone", "no such").is_err());
    assert!(db.resume_session(first).is_err());
    second.heartbeat().expect("it is open");
    db.resume_session(id).expect("it is open").detach();
    assert!(matches!(second.heartbeat(), Err(Error::Fenced { .. })));
    clock.advance(IDLE + Duration::from_nanos(1));
    db.drive().expect("swept");
    let told = told(&events);
    let (first, second) = (first.as_u64(), id.as_u64());
    let expected = [
        ("started", first),
        ("ended", first),
        ("settled", first),
        ("started", second),
        ("resumed", second),
        ("ended", second),
        ("settled", second),
    ];
    assert_eq!(names(told.iter().map(|(_, event)| event)), expected);
    assert!(told.is_sorted_by_key(|(seq, _)| *seq), "{told:?}");
    let seqs: Vec<Seq> = told.iter().map(|(seq, _)| *seq).collect();
    assert!(seqs[1] == seqs[3] && seqs[0] < seqs[1], "one frame ends one and starts the other");
    assert_eq!(seqs[6], db.applied(), "the sweep is the last frame");
}

#[test]
fn a_filter_lets_through_what_it_says() {
    let (db, _) = ephemeral(manual());
    let of_user = db.sessions().subscribe(EventFilter::all().user(2)).expect("subscribed");
    let starts = EventFilter::all().kinds([EventKind::Started]);
    let starts = db.sessions().subscribe(starts).expect("subscribed");
    let sessions = [1, 2].map(|user| start(&db, user));
    let one = EventFilter::all().session(sessions[0]);
    let one = db.sessions().subscribe(one).expect("subscribed");
    for id in sessions {
        db.sessions().end(id, "test").expect("ended");
    }
    let [first, second] = sessions.map(|id| id.as_u64());
    let names_of = |stream| names(told(stream).iter().map(|(_, event)| event));
    assert_eq!(names_of(&of_user), [("started", second), ("ended", second), ("settled", second)]);
    assert_eq!(names_of(&starts), [("started", first), ("started", second)]);
    assert_eq!(names_of(&one), [("ended", first), ("settled", first)]);
}

#[test]
fn who_does_not_keep_up_is_told_how_much_is_missing_and_holds_up_nobody() {
    let mut sessions = manual();
    sessions.event_queue_len = 3;
    let (db, _) = ephemeral(sessions);
    let slow = db.sessions().subscribe(EventFilter::all()).expect("subscribed");
    let last = (1..=10).map(|user| start(&db, user)).last().expect("ten").as_u64();
    let told = told(&slow);
    let expected = [("lagged", 7), ("started", last - 2), ("started", last - 1), ("started", last)];
    assert_eq!(names(told.iter().map(|(_, event)| event)), expected);
    assert!(told.is_sorted_by_key(|(seq, _)| *seq), "{told:?}");
}

#[test]
fn a_subscriber_that_panics_is_called_again_and_the_database_goes_on() {
    let (db, _) = ephemeral(manual());
    let calls = Arc::new(AtomicU64::new(0));
    let (tell, hear) = mpsc::channel();
    let counting = Arc::clone(&calls);
    let subscriber = move |_: Seq, event: &SessionEvent| {
        let call = counting.fetch_add(1, Ordering::SeqCst);
        tell.send(name_of(event)).expect("it is heard");
        assert!(call != 0, "a panic of this test's own");
    };
    let guard = db.sessions().add_subscriber(EventFilter::all(), subscriber).expect("added");
    let ids = [1, 2].map(|user| start(&db, user).as_u64());
    for id in ids {
        assert_eq!(hear.recv_timeout(PATIENCE), Ok(("started", id)));
    }
    drop(guard);
    // Its thread ends, and lets go of what it held.
    assert!(hear.recv_timeout(PATIENCE).is_err());
    start(&db, 3);
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[test]
fn streams_end_with_the_database_after_what_it_still_had_to_say() {
    let mut sessions = manual();
    sessions.on_close = tidaldb::ClosePolicy::EndAll;
    let (db, _) = ephemeral(sessions);
    let events = db.sessions().subscribe(EventFilter::all()).expect("subscribed");
    let id = start(&db, 1).as_u64();
    db.close().expect("closed");
    let told: Vec<_> = std::iter::from_fn(|| events.recv_timeout(PATIENCE)).collect();
    let expected = [("started", id), ("ended", id), ("settled", id)];
    assert_eq!(names(told.iter().map(|(_, event)| event)), expected);
    assert!(events.is_ended());
}

//! Lists, exports and plans.

use std::time::{Duration, Instant};

use tidal_support::{files, hex};
use tidaldb::schema::EntityId;
use tidaldb::{
    EndCause, Error, EventFilter, JobOutcome, ManualClock, OpenPolicy, PrunePlan, Retention,
    Runtime, SessionConfig, SessionFilter, SessionId, SessionInfo, SessionSignal, SessionState,
    SessionStateKind, SkipReason, TidalDb,
};

use crate::{HOUR, IDLE, MINUTE, PATIENCE, START, builder, ephemeral, manual, open, start};

fn ids(infos: &[SessionInfo]) -> Vec<u64> {
    infos.iter().map(|info| info.id.as_u64()).collect()
}

fn list(db: &TidalDb, filter: SessionFilter) -> Vec<SessionInfo> {
    db.sessions().list(&filter).expect("listed")
}

/// All sessions, page by page.
fn paged(db: &TidalDb, filter: &SessionFilter, limit: usize) -> Vec<SessionInfo> {
    let mut all = Vec::new();
    let mut filter = filter.clone().limit(limit);
    loop {
        let page = list(db, filter.clone());
        all.extend_from_slice(&page);
        match page.last() {
            Some(last) if page.len() == limit => filter = filter.after(last.id),
            _ => return all,
        }
    }
}

#[test]
fn pages_have_every_session_once_in_order_wherever_it_lies() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::at(START);
    let mut db = open(dir.path(), &clock);
    let mut expected = Vec::new();
    for round in 0..4 {
        for user in 0..7 {
            expected.push(start(&db, user).as_u64());
        }
        // Every second one of a user ends; some rows are in a store, some wait, some are open.
        for &id in expected.iter().rev().take(7).step_by(2) {
            db.sessions().end(SessionId::new(id), "test").expect("ended");
        }
        clock.advance(MINUTE * 10);
        match round {
            0 => drop(db.checkpoint().expect("written")),
            1 => {
                db.close().expect("closed");
                db = open(dir.path(), &clock);
            }
            _ => {}
        }
        for limit in [1, 2, 5, 100] {
            assert_eq!(ids(&paged(&db, &SessionFilter::new(), limit)), expected, "by {limit}");
        }
    }
    let all = paged(&db, &SessionFilter::new(), 100);
    let expect = |filter: SessionFilter, wanted: &dyn Fn(&SessionInfo) -> bool| {
        let expected: Vec<_> = all.iter().filter(|info| wanted(info)).cloned().collect();
        assert!(!expected.is_empty() && expected.len() < all.len(), "{filter:?}");
        for limit in [1, 3, 100] {
            assert_eq!(paged(&db, &filter, limit), expected, "{filter:?} by {limit}");
        }
    };
    let filter = SessionFilter::new;
    expect(filter().user(3), &|info| info.user.get() == 3);
    let open = [SessionStateKind::Active, SessionStateKind::Restored];
    expect(filter().states(open), &|info| info.state.is_open());
    let settled = filter().states([SessionStateKind::Settled]);
    expect(settled, &|info| matches!(info.state, SessionState::Settled(_)));
    let before = START.saturating_add(MINUTE * 20);
    expect(filter().older_than(MINUTE * 20), &|info| info.started_at < before);
    expect(filter().user(3).states(open), &|i| i.user.get() == 3 && i.state.is_open());
    assert!(list(&db, filter().limit(0)).is_empty());
    assert!(list(&db, filter().after(SessionId::new(u64::MAX))).is_empty());
}

fn exported(db: &TidalDb, id: SessionId) -> String {
    let mut out = Vec::new();
    db.sessions().export(id, &mut out).expect("exported");
    String::from_utf8(out).expect("text")
}

#[test]
fn an_export_has_a_line_for_the_session_and_one_for_each_record() {
    let (db, clock) = ephemeral(manual());
    let handle = db.start_session(42, "a \"phone\"", "default").expect("started");
    let id = handle.session_id();
    let signal = SessionSignal::new("view", EntityId::new(7), START).weight(0.5);
    let signal = signal.span(Duration::from_nanos(9)).annotation("seen\nto the end");
    handle.signal_with(signal).expect("written");
    clock.advance(MINUTE);
    handle.annotate(EntityId::new(8), "müde").expect("written");
    handle.close().expect("closed");
    let info = db.sessions().get(id).expect("read").expect("there");
    let end = START.as_nanos() + 60_000_000_000;
    let expected = [
        format!(
            "{{\"type\":\"session\",\"id\":\"{id}\",\"user\":\"42\",\"agent\":\"a \\\"phone\\\"\",\
             \"policy\":\"default\",\"state\":\"settled\",\"started_at_ns\":\"1700000000000000000\",\
             \"last_activity_at_ns\":\"{end}\",\"end\":{{\"at_ns\":\"{end}\",\"cause\":\"closed\",\
             \"evidence\":\"explicit\"}},\"records\":2,\"signals\":1,\"annotations\":2,\"late\":0,\
             \"content_hash\":\"{}\"}}",
            hex(&info.content_hash)
        ),
        format!(
            "{{\"type\":\"signal\",\"number\":\"{}\",\"at_ns\":\"1700000000000000000\",\
             \"arrived_at_ns\":\"1700000000000000000\",\"entity\":\"7\",\"signal\":\"view\",\
             \"weight\":0.5,\"span_ns\":9,\"late\":false,\"annotation\":\"seen\\nto the end\"}}",
            id.as_u64() + 1
        ),
        format!(
            "{{\"type\":\"annotation\",\"number\":\"{}\",\"at_ns\":\"{end}\",\
             \"arrived_at_ns\":\"{end}\",\"entity\":\"8\",\"text\":\"müde\"}}",
            id.as_u64() + 2
        ),
    ];
    assert_eq!(exported(&db, id).lines().collect::<Vec<_>>(), expected);
    let nowhere = db.sessions().export(SessionId::new(999), &mut Vec::new());
    assert!(matches!(nowhere, Err(Error::SessionNotFound(_))));
    let mut full: &mut [u8] = &mut [0; 10];
    let full = db.sessions().export(id, &mut full);
    assert!(matches!(full, Err(Error::Io { .. })), "{full:?}");
}

#[test]
fn a_plan_changes_nothing_and_what_it_prunes_keeps_its_interval_and_hash() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::at(START);
    let db = open(dir.path(), &clock);
    let handles =
        [1, 2, 3].map(|user| db.start_session(user, "phone", "default").expect("started"));
    let [old, other, young] = handles.each_ref().map(|handle| handle.session_id());
    for handle in handles {
        handle.signal("view", EntityId::new(7), 1.0, START).expect("written");
        handle.annotate(EntityId::new(7), "noted").expect("written");
        if handle.session_id() == young {
            clock.advance(IDLE);
        }
        handle.close().expect("closed");
    }
    clock.advance(HOUR * 24);
    let (before, digest) = (db.applied(), db.state_digest().expect("read"));
    let retention = Retention::settled_for(HOUR * 24);
    let plan = db.sessions().plan_prune(&retention).expect("planned");
    assert_eq!(plan.sessions().collect::<Vec<_>>(), [old, other]);
    assert_eq!(plan.to_string(), "forgets 4 records of 2 sessions");
    assert_eq!((db.applied(), db.state_digest().expect("read")), (before, digest));
    let kept = db.sessions().get(old).expect("read").expect("there");
    // Somebody else is faster with one of them.
    let one = db.sessions().plan_prune(&retention).expect("planned");
    let applied = db.sessions().apply(one).expect("applied");
    assert_eq!((applied.done, applied.skipped), (vec![old, other], vec![]));
    let applied = db.sessions().apply(plan).expect("applied");
    let moved = [old, other].map(|id| (id, SkipReason::StateMoved));
    assert_eq!((applied.done, applied.skipped), (vec![], moved.to_vec()));
    let check = |db: &TidalDb| {
        let pruned = db.sessions().get(old).expect("read").expect("its bounds stay");
        assert!(matches!(pruned.state, SessionState::Pruned(_)), "{pruned:?}");
        assert_eq!(pruned.state.end(), kept.state.end());
        assert_eq!(pruned.content_hash, kept.content_hash);
        assert_eq!((pruned.started_at, pruned.records), (kept.started_at, kept.records));
        assert!(db.sessions().records(old).expect("read").is_empty());
        assert_eq!(db.sessions().records(young).expect("read").len(), 2);
        assert_eq!(exported(db, old).lines().count(), 1);
        assert!(db.sessions().plan_prune(&retention).expect("planned").is_empty());
    };
    check(&db);
    db.close().expect("closed");
    let db = open(dir.path(), &clock);
    check(&db);
    assert!(db.verify().expect("verified").is_sound());
}

#[test]
fn a_plan_that_was_written_down_and_put_together_again_does_the_same() {
    let (db, clock) = ephemeral(manual());
    let id = start(&db, 1);
    db.sessions().end(id, "test").expect("ended");
    clock.advance(HOUR * 24);
    start(&db, 2);
    let retention = Retention::settled_for(HOUR);
    let plan = db.sessions().plan_prune(&retention).expect("planned");
    let items = plan.items().to_vec();
    assert_eq!((items.len(), items[0].session, items[0].records), (1, id, 0));
    assert_eq!(PrunePlan::new(plan.retention(), items.clone()), plan);
    // Nothing that was written down is believed.
    let mut other = items.clone();
    other[0].content_hash[0] ^= 1;
    let applied = db.sessions().apply(PrunePlan::new(retention, other)).expect("applied");
    assert_eq!(applied.skipped, [(id, SkipReason::ContentMoved)]);
    let later = Retention::settled_for(HOUR * 24 * 365);
    let applied = db.sessions().apply(PrunePlan::new(later, items.clone())).expect("applied");
    assert_eq!(applied.skipped, [(id, SkipReason::TooYoung)]);
    let applied = db.sessions().apply(PrunePlan::new(retention, items)).expect("applied");
    assert_eq!((applied.done, applied.skipped), (vec![id], vec![]));
}

/// The records of sessions are kept for a day.
fn forgetful(runtime: Runtime) -> SessionConfig {
    let mut config = manual();
    (config.runtime, config.prune_after) = (runtime, Some(HOUR * 24));
    config
}

fn has_records(db: &TidalDb, id: SessionId) -> bool {
    let info = db.sessions().get(id).expect("read").expect("its bounds stay");
    let is_pruned = matches!(info.state, SessionState::Pruned(_));
    assert_eq!(is_pruned, db.sessions().records(id).expect("read").is_empty());
    !is_pruned
}

fn ended_with_a_record(db: &TidalDb, user: u64) -> SessionId {
    let session = db.start_session(user, "phone", "default").expect("started");
    session.annotate(EntityId::new(1), "a record").expect("written");
    let id = session.session_id();
    session.close().expect("closed");
    id
}

#[test]
fn what_is_kept_for_too_long_is_pruned_by_itself_once_an_hour() {
    let (db, clock) = ephemeral(forgetful(Runtime::Manual));
    let job = || db.sessions().jobs().into_iter().find(|job| job.name == "prune").expect("there");
    assert_eq!((job().last_started, job().next_due), (None, None));
    let old = [1, 2].map(|user| ended_with_a_record(&db, user));
    let open = start(&db, 3);
    assert_eq!(db.drive().expect("driven").pruned, 0);
    assert_eq!(
        (job().last_started, job().next_due),
        (Some(START), Some(START.saturating_add(HOUR)))
    );
    clock.advance(MINUTE * (23 * 60 + 30));
    let young = ended_with_a_record(&db, 4);
    assert_eq!(db.drive().expect("driven").pruned, 0, "they are not a day old");
    clock.advance(MINUTE * 59);
    assert_eq!(db.drive().expect("driven").pruned, 0, "it is not time to look");
    clock.advance(MINUTE * 2);
    assert_eq!(db.drive().expect("driven").pruned, 3, "with the one that nobody ended");
    assert!(old.iter().chain([&open]).all(|&id| !has_records(&db, id)));
    assert!(has_records(&db, young));
    let before = db.applied();
    clock.advance(HOUR * 2);
    assert_eq!((db.drive().expect("driven").pruned, db.applied()), (0, before));
    clock.advance(HOUR * 24);
    assert_eq!(db.drive().expect("driven").pruned, 1, "what was left alone is looked at again");
    assert_eq!((job().consecutive_failures, job().last_outcome), (0, Some(JobOutcome::Success)));
    let late = ended_with_a_record(&db, 5);
    clock.advance(HOUR * 30);
    assert_eq!(db.drive().expect("driven").pruned, 1);
    assert!(!has_records(&db, late));
}

#[test]
fn what_a_cursor_wants_is_pruned_by_itself_once_it_has_heard_of_it() {
    let (db, clock) = ephemeral(forgetful(Runtime::Manual));
    let mut cursor = db.sessions().cursor("reader", EventFilter::all()).expect("registered");
    let [first, second] = [1, 2].map(|user| ended_with_a_record(&db, user));
    clock.advance(HOUR * 25);
    assert_eq!(db.drive().expect("driven").pruned, 0);
    assert!(has_records(&db, first) && has_records(&db, second));
    let heard = cursor.next_batch(100).expect("read");
    cursor.ack(heard.last().expect("some").number).expect("acknowledged");
    clock.advance(HOUR);
    assert_eq!(db.drive().expect("driven").pruned, 2);
}

#[test]
fn a_session_that_outlasts_younger_ones_is_pruned_by_itself_all_the_same() {
    let mut config = forgetful(Runtime::Manual);
    config.prune_after = Some(MINUTE * 10);
    let (db, clock) = ephemeral(config);
    let long = db.start_session(1, "phone", "default").expect("started");
    let short = ended_with_a_record(&db, 2);
    for _ in 0..4 {
        clock.advance(MINUTE * 20);
        long.heartbeat().expect("it is open");
    }
    assert_eq!(db.drive().expect("driven").pruned, 1);
    assert!(!has_records(&db, short));
    let id = long.session_id();
    long.annotate(EntityId::new(1), "late").expect("written");
    long.close().expect("closed");
    db.drive().expect("driven");
    clock.advance(HOUR * 2);
    start(&db, 3);
    assert_eq!(db.drive().expect("driven").pruned, 1);
    assert!(!has_records(&db, id));
}

#[test]
fn sessions_of_a_clock_that_was_ahead_keep_nobody_else_from_being_pruned() {
    let (db, clock) = ephemeral(forgetful(Runtime::Manual));
    clock.advance(HOUR * 24 * 365);
    db.reset_clock().expect("believed");
    (0..1_100).for_each(|user| {
        ended_with_a_record(&db, user);
    });
    clock.set(START);
    db.reset_clock().expect("believed");
    let right = ended_with_a_record(&db, 1);
    assert_eq!(db.drive().expect("driven").pruned, 0);
    clock.advance(HOUR * 25);
    start(&db, 2);
    assert_eq!(db.drive().expect("driven").pruned, 1);
    assert!(!has_records(&db, right));
}

#[test]
fn a_thread_prunes_where_nobody_drives_and_ends_with_the_database() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::at(START);
    let db = open(dir.path(), &clock);
    let id = ended_with_a_record(&db, 1);
    db.close().expect("closed");
    clock.advance(HOUR * 25);
    let db = builder(&clock, forgetful(Runtime::Threads)).with_data_dir(dir.path());
    let db = db.open().expect("opens");
    let began = Instant::now();
    while has_records(&db, id) {
        assert!(began.elapsed() < PATIENCE, "nobody prunes it");
        std::thread::sleep(Duration::from_millis(1));
    }
    db.close().expect("the thread does not sleep on");
}

#[test]
fn a_copy_at_the_epoch_has_the_sessions_that_were_left_and_leaves_the_database_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, clock) = (dir.path().join("db"), ManualClock::at(START));
    let db = open(&path, &clock);
    let id = start(&db, 1);
    let scratch = |name: &str| dir.path().join(name);
    let copy = |name: &str, clock: &ManualClock| {
        builder(clock, manual()).with_data_dir(&path).open_copy(&scratch(name))
    };
    assert!(matches!(copy("held", &clock), Err(Error::Locked { .. })));
    drop(db);
    let before = files(&path);
    clock.advance(IDLE * 2);
    let standing = ManualClock::at(tidaldb::schema::Timestamp::EPOCH);
    let left = copy("left", &standing).expect("opened");
    assert_eq!(left.open_report().sessions_restored, [id]);
    assert_eq!(left.engine_time(), START);
    // The database is free, although the copy is open; and an open of now would end it.
    let opened = copy("opened", &clock).expect("opened");
    assert_eq!(opened.open_report().sessions_ended[0].0, id);
    assert!(matches!(copy("left", &clock), Err(Error::InvalidArgument { .. })), "it is taken");
    start(&left, 2);
    assert!(files(&path) == before, "what is written to a copy is written to no other place");
}

#[test]
fn an_inspection_says_what_an_open_would_do_to_sessions_and_does_none_of_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, clock) = (dir.path().join("db"), ManualClock::at(START));
    let db = open(&path, &clock);
    let early = start(&db, 1);
    clock.advance(MINUTE * 20);
    let late = start(&db, 2);
    drop(db);
    let before = files(&path);
    clock.advance(MINUTE * 20);
    let inspected = |name: &str, on_open| {
        let mut sessions = manual();
        sessions.on_open = on_open;
        let builder = builder(&clock, sessions).with_data_dir(&path);
        let inspection = builder.inspect(&dir.path().join(name)).expect("inspected");
        assert!(inspection.verified.is_sound());
        let ended = inspection.opened.sessions_ended.into_iter().map(|(id, end)| (id, end.cause));
        (inspection.opened.sessions_restored, ended.collect::<Vec<_>>())
    };
    let expected = (vec![late], vec![(early, EndCause::IdleTimeout)]);
    assert_eq!(inspected("default", OpenPolicy::RestoreThenExpire), expected);
    let expected = [(early, EndCause::IdleTimeout), (late, EndCause::OrphanRecovered)];
    assert_eq!(inspected("end", OpenPolicy::EndAll), (vec![], expected.to_vec()));
    assert_eq!(inspected("restore", OpenPolicy::RestoreAll), (vec![early, late], vec![]));
    assert!(files(&path) == before, "only copies were opened");
}

#[test]
fn what_a_cursor_still_has_to_hear_of_is_not_pruned() {
    let (db, clock) = ephemeral(manual());
    let mut cursor = db.sessions().cursor("archive", EventFilter::all()).expect("registered");
    let early = db.sessions().plan_prune(&Retention::settled_for(HOUR)).expect("planned");
    assert!(early.is_empty());
    let id = start(&db, 1);
    db.sessions().end(id, "test").expect("ended");
    clock.advance(HOUR * 2);
    let retention = Retention::settled_for(HOUR);
    assert!(db.sessions().plan_prune(&retention).expect("planned").is_empty());
    let last = cursor.next_batch(10).expect("read").last().map(|event| event.number);
    cursor.ack(last.expect("it started and ended")).expect("acknowledged");
    let plan = db.sessions().plan_prune(&retention).expect("planned");
    assert_eq!(plan.sessions().collect::<Vec<_>>(), [id]);
    assert_eq!(db.sessions().apply(plan).expect("applied").done, [id]);
    assert_eq!(cursor.next_batch(10).expect("read").len(), 1, "of that it hears too");
}

#[test]
fn only_what_some_cursor_wants_is_kept_from_pruning() {
    let (db, clock) = ephemeral(manual());
    let sessions = db.sessions();
    let of_one = EventFilter::all().user(1);
    let _registered = sessions.cursor("one", of_one).expect("registered");
    let mut all = sessions.cursor("all", EventFilter::all()).expect("registered");
    let ids = [1, 2].map(|user| start(&db, user));
    for id in ids {
        sessions.end(id, "test").expect("ended");
    }
    clock.advance(HOUR);
    start(&db, 3);
    let planned = || {
        let plan = sessions.plan_prune(&Retention::settled_for(Duration::ZERO)).expect("planned");
        plan.sessions().collect::<Vec<_>>()
    };
    assert_eq!(planned(), []);
    let last = all.next_batch(100).expect("read").last().map(|event| event.number);
    all.ack(last.expect("there were some")).expect("acknowledged");
    assert_eq!(planned(), ids[1..], "the other cursor wants nothing of it");
    sessions.remove_cursor("one").expect("it was there");
    assert_eq!(planned(), ids);
}

#[test]
fn a_plan_of_a_clock_that_was_ahead_prunes_nothing_that_is_young() {
    let (db, clock) = ephemeral(manual());
    let id = start(&db, 1);
    db.sessions().end(id, "test").expect("ended");
    start(&db, 2);
    clock.advance(HOUR * 24 * 365);
    let plan = db.sessions().plan_prune(&Retention::settled_for(HOUR)).expect("planned");
    assert_eq!(plan.sessions().collect::<Vec<_>>(), [id]);
    clock.set(START);
    let applied = db.sessions().apply(plan).expect("applied");
    assert_eq!((applied.done, applied.skipped), (vec![], vec![(id, SkipReason::TooYoung)]));
}

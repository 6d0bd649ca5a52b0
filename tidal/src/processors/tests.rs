//! Processors through their room alone: who is there, which attempt counts, what is kept.

use proptest::prelude::*;

use super::attempt::{AttemptRow, State};
use super::{AttemptStatus, Due, Outcome, Processors, Verdict};
use crate::error::Error;
use crate::ids::{AttemptId, ProcessorId, SessionId, Timestamp, UserId};
use crate::record::{BeginAttempt, CommitAttempt, FailAttempt, RegisterProcessor};
use crate::table::Row;

const USER: UserId = UserId::new(42);
const SESSION: SessionId = SessionId::new(7);
const USAGE: ProcessorId = ProcessorId::new(1);
const INCARNATION: u64 = 3;

fn secs(secs: u64) -> Timestamp {
    Timestamp::from_secs(secs)
}

fn register(all: &Processors, name: &str, version: u32, required: bool, at: u64) -> ProcessorId {
    let new = RegisterProcessor { name, version, required };
    let (number, _) = all.register(&new, (at, secs(at))).expect("there is room");
    assert_eq!(all.check(), Ok(()));
    number
}

fn with_usage() -> Processors {
    let all = Processors::new();
    assert_eq!(register(&all, "usage", 1, true, 10), USAGE);
    all
}

/// An attempt is named by its time here.
fn begun(at: u64) -> AttemptId {
    AttemptId::new(at)
}

fn begin(all: &Processors, session: SessionId, count: u32, is_last: bool, at: u64) -> bool {
    let item = BeginAttempt { session, user: USER, count, retry_ns: 60_000_000_000, is_last };
    let did_begin = all.begin(USAGE, &item, (begun(at), INCARNATION, secs(at)));
    assert_eq!(all.check(), Ok(()));
    did_begin
}

fn fail(all: &Processors, attempt: u64, next: u64, is_last: bool, at: u64) -> Verdict {
    let next = secs(next);
    let attempt = begun(attempt);
    let item = FailAttempt { session: SESSION, attempt, next, is_last, error: "no luck" };
    let verdict = all.fail(USAGE, &item, secs(at));
    assert_eq!(all.check(), Ok(()));
    verdict
}

fn commit(all: &Processors, attempt: u64, outputs: Vec<(&[u8], &[u8])>) {
    let (session, attempt, head, items) = (SESSION, begun(attempt), 9, 3);
    let (hash, observed_at) = ([5; 32], secs(90));
    let item = CommitAttempt { session, attempt, head, hash, items, observed_at, outputs };
    assert!(all.is_running(USAGE, SESSION, (attempt, INCARNATION)));
    all.commit((USAGE, 1), &item, secs(100));
    assert_eq!(all.check(), Ok(()));
}

fn status(all: &Processors, incarnation: u64) -> AttemptStatus {
    all.attempt(SESSION, USAGE).expect("there was an attempt").status(incarnation)
}

fn due(all: &Processors, incarnation: u64, now: u64) -> Vec<Due> {
    all.due(USAGE, (incarnation, secs(now)))
}

#[test]
fn a_registration_that_says_nothing_new_changes_nothing() {
    let all = with_usage();
    all.advance(USAGE, 8, None);
    let before = all.all();
    register(&all, "usage", 1, true, 20);
    assert_eq!(all.all(), before);
}

#[test]
fn another_version_walks_through_all_sessions_anew_and_is_required_of_no_other_ones() {
    let all = with_usage();
    all.advance(USAGE, 8, None);
    assert!(begin(&all, SESSION, 0, true, 15));
    register(&all, "usage", 2, true, 20);
    let row = all.get(USAGE).expect("it is there");
    assert_eq!((row.registered_op, row.registered_at, row.bumped_op), (10, secs(10), 20));
    assert_eq!((row.backfilled, row.version), (0, 2));
    assert_eq!(all.attempt(SESSION, USAGE), None, "what another version tried does not count");
}

#[test]
fn a_walk_ends_with_what_had_left_before_the_version_came() {
    let all = with_usage();
    let walked = |through| {
        all.advance(USAGE, through, None);
        all.get(USAGE).expect("it is there").backfilled
    };
    assert_eq!([walked(4), walked(3), walked(9_000)], [4, 4, 10]);
}

#[test]
fn whoever_becomes_required_is_required_from_then_on() {
    let all = with_usage();
    register(&all, "usage", 1, false, 20);
    assert_eq!(all.get(USAGE).expect("it is there").registered_op, 10);
    register(&all, "usage", 1, true, 30);
    let row = all.get(USAGE).expect("it is there");
    assert_eq!((row.registered_op, row.registered_at, row.bumped_op), (30, secs(30), 20));
}

#[test]
fn a_number_is_given_once_and_comes_back_with_its_name() {
    let all = with_usage();
    assert_eq!(register(&all, "claims", 1, false, 11), ProcessorId::new(2));
    assert!(begin(&all, SESSION, 0, false, 50));
    all.remove("usage").expect("it is there");
    assert_eq!(all.attempt(SESSION, USAGE), None, "what it was trying is forgotten");
    assert!(all.find("usage").is_none() && all.get(USAGE).expect("its number is").removed);
    assert_eq!(all.live(USAGE), Ok(None));
    assert!(all.live(ProcessorId::new(3)).is_err(), "there never was such a one");
    let unknown = all.remove("usage").expect_err("it is gone");
    assert!(matches!(unknown, Error::UnknownName { what: "processor", .. }));
    assert_eq!(register(&all, "third", 1, false, 12), ProcessorId::new(3));
    assert_eq!(register(&all, "usage", 1, true, 30), USAGE);
    let row = all.get(USAGE).expect("it is there");
    assert_eq!((row.registered_op, row.bumped_op, row.removed), (30, 30, false));
}

#[test]
fn there_are_no_more_than_64_names() {
    let all = Processors::new();
    for number in 1..=64 {
        register(&all, &number.to_string(), 1, false, number);
    }
    all.remove("7").expect("it is there");
    let new = RegisterProcessor { name: "more", version: 1, required: false };
    let refused = all.register(&new, (65, secs(65))).expect_err("removed ones are counted");
    assert!(matches!(refused, Error::TooLarge { size: 65, limit: 64, .. }));
}

#[test]
fn an_attempt_begins_once_and_only_after_as_many_as_its_sender_knows() {
    let all = with_usage();
    assert!(!begin(&all, SESSION, 1, false, 50), "there was none");
    assert!(begin(&all, SESSION, 0, false, 50));
    assert_eq!(status(&all, INCARNATION), AttemptStatus::Running { since: secs(50) });
    assert!(!begin(&all, SESSION, 0, false, 51) && !begin(&all, SESSION, 1, false, 51));
    assert_eq!(fail(&all, 50, 70, false, 60), Verdict::Again { user: USER, count: 1 });
    assert!(!begin(&all, SESSION, 0, false, 61));
    assert!(begin(&all, SESSION, 1, true, 61), "whoever asks knows whether it is time");
    assert_eq!(fail(&all, 61, 0, true, 62), Verdict::Quarantined { user: USER });
    assert!(!begin(&all, SESSION, 2, true, 63));
    let error = "no luck".to_owned();
    assert_eq!(status(&all, INCARNATION), AttemptStatus::Quarantined { at: secs(62), error });
}

#[test]
fn only_the_attempt_that_is_running_counts() {
    let all = with_usage();
    assert!(!all.is_running(USAGE, SESSION, (begun(50), INCARNATION)));
    assert_eq!(fail(&all, 50, 0, false, 50), Verdict::Fenced);
    assert!(begin(&all, SESSION, 0, false, 50));
    assert!(all.is_running(USAGE, SESSION, (begun(50), INCARNATION)));
    assert!(!all.is_running(USAGE, SESSION, (begun(51), INCARNATION)));
    assert!(!all.is_running(USAGE, SESSION, (begun(50), INCARNATION + 1)));
    assert_eq!(fail(&all, 51, 0, false, 51), Verdict::Fenced);
    fail(&all, 50, 60, false, 51);
    assert_eq!(fail(&all, 50, 60, false, 52), Verdict::Fenced, "it has failed already");
    assert!(!all.is_running(USAGE, SESSION, (begun(50), INCARNATION)));
}

#[test]
fn an_attempt_of_an_earlier_incarnation_has_failed_and_may_be_written_down_as_such() {
    let all = with_usage();
    assert!(begin(&all, SESSION, 0, false, 50));
    let [now, later] = [INCARNATION, INCARNATION + 1];
    assert_eq!((due(&all, now, 500), due(&all, later, 109)), (vec![], vec![]));
    assert_eq!(due(&all, later, 110), [Due { count: 1, session: SESSION }]);
    assert_eq!((all.running(now).len(), all.running(later)), (1, vec![]));
    let next = secs(110);
    assert!(matches!(status(&all, later), AttemptStatus::Waiting { next: it, .. } if it == next));
    let retry = BeginAttempt { session: SESSION, user: USER, count: 1, retry_ns: 5, is_last: true };
    assert!(all.begin(USAGE, &retry, (begun(120), later, secs(120))));
    // The last one is the last one, whoever notices that it has crashed.
    let latest = later + 1;
    assert!(matches!(status(&all, latest), AttemptStatus::Quarantined { .. }));
    assert_eq!(due(&all, latest, u64::MAX >> 32), []);
    let again = BeginAttempt { count: 2, ..retry };
    assert!(!all.begin(USAGE, &again, (begun(900), latest, secs(900))));
    assert_eq!(fail(&all, 120, 0, true, 130), Verdict::Quarantined { user: USER });
}

#[test]
fn sessions_are_due_with_the_fewest_attempts_first() {
    let all = with_usage();
    let [one, two, three] = [1, 2, 3].map(SessionId::new);
    let fail = |session, attempt, next| {
        let attempt = begun(attempt);
        let item =
            FailAttempt { session, attempt, next: secs(next), is_last: false, error: "again" };
        assert_ne!(all.fail(USAGE, &item, secs(60)), Verdict::Fenced);
    };
    for session in [one, two, three] {
        assert!(begin(&all, session, 0, false, 50));
        fail(session, 50, 100);
    }
    assert!(begin(&all, one, 1, false, 110));
    fail(one, 110, 120);
    let expected = [(1, two), (1, three), (2, one)];
    let expected = expected.map(|(count, session)| Due { count, session });
    assert_eq!(due(&all, INCARNATION, 119), expected[..2]);
    assert_eq!(due(&all, INCARNATION, 120), expected);
}

#[test]
fn a_commit_takes_the_place_of_what_was_there_and_nothing_else_of_it_is_left() {
    let all = with_usage();
    let key = Outcome::key(SESSION, USAGE);
    assert_eq!(Outcome::of_key(key), (SESSION, USAGE));
    for outputs in [vec![(&b"a"[..], &b"1"[..]), (b"b", b"2")], vec![(&b"c"[..], &b"3"[..])]] {
        assert!(begin(&all, SESSION, 0, false, 50));
        commit(&all, 50, outputs.clone());
        assert_eq!(all.attempt(SESSION, USAGE), None);
        let row = all.outcomes().pending(key).flatten().expect("an outcome");
        let outcome = Outcome::decode(&row).expect("an outcome");
        assert_eq!((outcome.outputs, outcome.attempts, outcome.head), (outputs, 1, 9));
        assert_eq!((outcome.observed_at, outcome.committed_at), (secs(90), secs(100)));
    }
}

#[test]
fn a_requeued_session_is_tried_as_if_nobody_had_tried_before() {
    let all = with_usage();
    assert_eq!(all.requeue(SESSION, INCARNATION, true), None, "nobody has tried");
    assert!(begin(&all, SESSION, 0, true, 50));
    assert_eq!(all.requeue(SESSION, INCARNATION, false), None, "somebody is trying");
    fail(&all, 50, 0, true, 60);
    assert_eq!(all.requeue(SESSION, INCARNATION, false), Some(USER));
    assert_eq!(all.requeue(SESSION, INCARNATION, true), None, "that was done");
    assert_eq!(status(&all, INCARNATION), AttemptStatus::Requeued);
    assert_eq!(due(&all, INCARNATION, 0), [Due { count: 0, session: SESSION }], "at once");
    assert_eq!(all.check(), Ok(()));
    assert!(begin(&all, SESSION, 0, false, 71));
    assert_eq!(all.requeue(SESSION, INCARNATION, true), Some(USER), "whoever is trying is stopped");
    assert!(!all.is_running(USAGE, SESSION, (begun(71), INCARNATION)));
    all.forget(SESSION);
    assert_eq!(all.attempts_at(SESSION), []);
    assert_eq!(all.check(), Ok(()));
}

#[test]
fn attempts_are_running_since_they_began_until_they_failed_or_their_process_ended() {
    let all = with_usage();
    register(&all, "claims", 1, true, 11);
    let running = |incarnation| {
        let mut running = all.running(incarnation);
        running.sort_unstable();
        running.into_iter().map(|(since, processor, _)| (since, processor)).collect::<Vec<_>>()
    };
    assert_eq!(running(INCARNATION), []);
    assert!(begin(&all, SESSION, 0, false, 50));
    let item = BeginAttempt { session: SESSION, user: USER, count: 0, retry_ns: 1, is_last: false };
    let claims = ProcessorId::new(2);
    assert!(all.begin(claims, &item, (begun(55), INCARNATION, secs(55))));
    assert_eq!(running(INCARNATION), [(secs(50), USAGE), (secs(55), claims)]);
    fail(&all, 50, 60, false, 58);
    assert_eq!(running(INCARNATION), [(secs(55), claims)], "back-off is not busy");
    assert_eq!(running(INCARNATION + 1), []);
    assert_eq!(all.attempts_at(SESSION).len(), 2);
}

#[test]
fn a_clock_that_is_set_back_makes_nobody_wait_for_longer_than_before() {
    let all = with_usage();
    assert!(begin(&all, SESSION, 0, false, 50));
    fail(&all, 50, 160, false, 100);
    register(&all, "late", 1, true, 101);
    all.set_back(secs(30), secs(101));
    assert_eq!(all.check(), Ok(()));
    let next = secs(30 + 59);
    assert!(
        matches!(status(&all, INCARNATION), AttemptStatus::Waiting { next: it, .. } if it == next)
    );
    let row = all.find("late").expect("it is there");
    assert_eq!((row.registered_at, row.registered_op), (secs(30), 101));
    assert_eq!(all.get(USAGE).expect("it is there").registered_at, secs(10));
}

#[test]
fn the_incarnation_of_an_attempt_is_in_a_page_and_not_in_the_digest() {
    let row = |incarnation| {
        let id = begun(5);
        let state = State::Started { id, at: secs(5), incarnation, retry_ns: 9, is_last: false };
        AttemptRow { key: (SESSION, USAGE), user: USER, count: 1, state }
    };
    let bytes = |row: &AttemptRow, canonical: bool| {
        let (mut out, side) = (Vec::new(), Default::default());
        match canonical {
            true => row.canonical(0, &side, secs(9), &mut out),
            false => row.encode(0, &side, &mut out),
        }
        out
    };
    assert_eq!(bytes(&row(1), true), bytes(&row(2), true));
    assert_ne!(bytes(&row(1), false), bytes(&row(2), false));
}

proptest! {
    #[test]
    fn an_outcome_comes_back_and_a_part_of_it_does_not(
        numbers: [u64; 4], small: [u32; 2], hash: [u8; 32], cut in 0.0..1.0f64,
        rows in prop::collection::btree_map(prop::collection::vec(any::<u8>(), 1..9), any::<Vec<u8>>(), 0..5),
    ) {
        let [head, items, observed_at, committed_at] = numbers;
        let [observed_at, committed_at] = [observed_at, committed_at].map(Timestamp::from_nanos);
        let [version, attempts] = small;
        let outputs = rows.iter().map(|(key, value)| (&key[..], &value[..])).collect();
        let outcome = Outcome { head, hash, version, observed_at, committed_at, items, attempts, outputs };
        let bytes = outcome.encode();
        let back = Outcome::decode(&bytes);
        prop_assert_eq!(back.as_ref(), Ok(&outcome));
        prop_assert!(Outcome::decode(&bytes[..(bytes.len() as f64 * cut) as usize]).is_err());
    }

    #[test]
    fn garbage_is_no_outcome_and_never_a_panic(bytes: Vec<u8>) {
        let _ = Outcome::decode(&bytes);
    }
}

//! Of all handles of a session only the last one writes.

use std::time::Duration;

use proptest::prelude::*;
use tidal_support::sessions::{AtOpen, Refusal};
use tidal_support::sim::Survives;
use tidaldb::schema::{EntityId, Timestamp};
use tidaldb::{Error, SessionId};

use crate::actor::{Actor, Held, Refused, Scene};
use crate::recovery::{boundaries, digest};
use crate::script::{ALL, Crash, HOUR, MINUTE, Step, for_all};
use crate::world::World;

/// Every call that writes, through a handle that must not: what each is told.
fn refusals(held: Held, now: u64) -> [Error; 6] {
    let handle = held.handle;
    let (item, at) = (EntityId::new(1), Timestamp::from_nanos(now));
    let told = [
        handle.signal("view", item, 1.0, at).expect_err("a signal"),
        handle.annotate(item, "too late").expect_err("an annotation"),
        handle.heartbeat().expect_err("a heartbeat"),
        handle.extend(Duration::from_secs(1)).expect_err("an extension"),
        handle.extend(Duration::from_secs(9_999)).expect_err("another extension"),
    ];
    let closed = handle.close().map(drop).map_err(|refused| refused.error);
    let [a, b, c, d, e] = told;
    [a, b, c, d, e, closed.expect_err("a close")]
}

/// A session with a signal in it, and its only handle.
fn with_a_session() -> Actor {
    let mut actor = Actor::new(Scene::default());
    actor.start(1, 1, 0, false);
    let at = Timestamp::from_nanos(actor.now());
    actor.held[0].handle.signal("view", EntityId::new(7), 1.0, at).expect("written");
    actor
}

#[test]
fn stale_fence_never_writes() {
    type Take = fn(&mut Actor);
    type Expected = fn(&Error) -> bool;
    let ways: [(&str, Take, Expected); 7] = [
        ("resumed", |actor| drop(actor.step(&Step::Resume { session: 0 })), is_fenced),
        ("joined", |actor| drop(actor.start(1, 1, 0, true)), is_fenced),
        ("superseded", |actor| drop(actor.start(1, 1, 0, false)), is_ended),
        ("forced", |actor| drop(actor.step(&Step::Force { session: 0 })), is_ended),
        ("expired", |actor| actor.pass(31 * MINUTE), is_ended),
        (
            "swept",
            |actor| {
                actor.pass(31 * MINUTE);
                actor.step(&Step::Sweep);
            },
            is_ended,
        ),
        (
            "outlived",
            |actor| {
                let survives = Survives::Everything;
                let at_open = AtOpen::RestoreThenExpire;
                actor.crash(Crash { survives, at_open, down: 0 });
            },
            |error| matches!(error, Error::Closed | Error::Stopped { .. }),
        ),
    ];
    for (way, take, is_expected) in ways {
        let mut actor = with_a_session();
        take(&mut actor);
        let before = (boundaries(&actor), actor.infos(), digest(&actor));
        let held = actor.held.remove(0);
        for error in refusals(held, actor.now()) {
            assert!(is_expected(&error), "{way}: {error}");
        }
        // What was refused is counted as operations, and leaves nothing else.
        let after = (boundaries(&actor), actor.infos());
        assert_eq!((before.0, before.1), after, "{way}");
    }
}

fn is_fenced(error: &Error) -> bool {
    matches!(error, Error::Fenced { held, current, .. } if held < current)
}

fn is_ended(error: &Error) -> bool {
    matches!(error, Error::SessionEnded { .. })
}

#[test]
fn of_many_handles_the_last_one_writes() {
    // Resumes are what this is about.
    let resume = (0..64usize).prop_map(|session| Step::Resume { session });
    let steps =
        prop::collection::vec(prop_oneof![2 => resume, 5 => crate::script::step(ALL)], 1..60);
    for_all(50, steps, |script| {
        let mut world = World::new(Scene::default());
        for step in &script {
            let before = boundaries(&world.actor);
            world.model.now = world.actor.now();
            let lost: Vec<(u64, u64)> = world
                .actor
                .held
                .iter()
                .filter(|held| !world.model.may_write(held.id, held.grant))
                .map(|held| (held.id, held.grant))
                .collect();
            let writer = match step {
                Step::Signal { handle, .. }
                | Step::Annotate { handle, .. }
                | Step::Heartbeat { handle }
                | Step::Extend { handle, .. }
                | Step::Close { handle } => handle.checked_rem(world.actor.held.len()),
                _ => None,
            };
            let writer = writer.map(|nth| &world.actor.held[nth]).map(|held| (held.id, held.grant));
            world.step(step);
            if writer.is_some_and(|writer| lost.contains(&writer)) {
                assert_eq!(boundaries(&world.actor), before, "{step:?} wrote");
            }
        }
        world.check();
        world.check_contents();
    });
}

#[test]
fn a_handle_that_was_lost_over_a_crash_is_replaced_by_a_resume() {
    let mut actor = with_a_session();
    let survives = Survives::Everything;
    actor.crash(Crash { survives, at_open: AtOpen::RestoreThenExpire, down: 5 * MINUTE });
    let info = actor.info(actor.ids[0]);
    assert_eq!(info.fence.grant, 0, "nobody holds it");
    let before = digest(&actor);
    let handle = actor.db().resume_session(SessionId::new(actor.ids[0])).expect("resumed");
    assert_eq!(digest(&actor), before, "who holds a session is no part of what it is");
    assert!(handle.fence() > info.fence);
    let at = Timestamp::from_nanos(actor.now());
    handle.signal("view", EntityId::new(7), 1.0, at).expect("written");
    assert_eq!(actor.info(actor.ids[0]).signals, 2);
}

#[test]
fn a_resume_is_no_activity() {
    let mut actor = with_a_session();
    actor.pass(29 * MINUTE);
    let deadline = actor.info(actor.ids[0]).deadline;
    actor.step(&Step::Resume { session: 0 });
    assert_eq!(actor.info(actor.ids[0]).deadline, deadline);
    actor.pass(2 * MINUTE);
    let did = actor.step(&Step::Resume { session: 0 }).expect("a resume");
    assert!(matches!(did.answer, Err(Refused::As(Refusal::Ended(_)))), "{did:?}");
}

#[test]
fn a_database_that_is_dropped_is_free_although_handles_are_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let builder = || tidaldb::TidalDb::builder().with_schema(Scene::default().schema());
    let open = || builder().with_data_dir(dir.path()).open();
    let db = open().expect("opens");
    let handle = db.start_session(1, "agent", "default").expect("started");
    drop(db);
    let db = open().expect("no handle keeps it locked");
    let refused = handle.heartbeat().expect_err("its database is gone");
    assert!(matches!(refused, Error::Closed), "{refused}");
    let id = handle.detach();
    assert_eq!(db.resume_session(id).expect("it was left open").session_id(), id);
}

#[test]
fn a_handle_that_is_dropped_leaves_its_session_open() {
    let mut actor = with_a_session();
    actor.held.clear();
    let info = actor.info(actor.ids[0]);
    assert!(crate::actor::end_of(&info).is_none());
    actor.pass(2 * HOUR);
    assert!(crate::actor::end_of(&actor.info(actor.ids[0])).is_some());
}

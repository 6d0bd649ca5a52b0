//! Clocks that are set back.

use std::time::Duration;

use proptest::prelude::*;
use tidaldb::Clock;
use tidaldb::schema::{EntityId, Timestamp};

use crate::actor::{Actor, Scene, end_of};
use crate::recovery::boundaries;
use crate::script::{ALL, HOUR, MINUTE, SECOND, Step, for_all, script};

/// Writes something else: engine time is that of the clock, and no session was looked at.
fn stamp(actor: &Actor) {
    actor.db().show_item(EntityId::new(99)).expect("written");
}

#[test]
fn clock_regression_is_safe() {
    let set_back = prop_oneof![Just(1u64), 0..HOUR, 0..48 * HOUR];
    for_all(80, (script(ALL, 50), set_back, any::<bool>()), |(script, set_back, reopens)| {
        let mut actor = Actor::new(Scene::default());
        for step in &script {
            if !matches!(step, Step::SetBack(_)) {
                actor.step(step);
                continue;
            }
            // What is told is as of the clock, until something is written at its time.
            stamp(&actor);
            let before = boundaries(&actor);
            actor.step(step);
            assert_eq!(boundaries(&actor), before, "no session ends or begins again");
        }
        // Whoever asks is told the same after as before, in the same process and in the next.
        stamp(&actor);
        let before = boundaries(&actor);
        actor.step(&Step::SetBack(set_back));
        if reopens {
            actor.step(&Step::Reopen(tidal_support::sessions::AtOpen::RestoreThenExpire));
        }
        assert_eq!(boundaries(&actor), before);
    });
}

#[test]
fn a_session_goes_on_where_the_clock_was_set_back() {
    let mut actor = Actor::new(Scene::default());
    actor.start(1, 1, 0, false);
    actor.pass(10 * MINUTE);
    let view = |actor: &Actor| {
        let at = Timestamp::from_nanos(actor.now());
        actor.held[0].handle.signal("view", EntityId::new(1), 1.0, at).expect("written");
    };
    view(&actor);
    let now = actor.now();
    actor.step(&Step::SetBack(8 * HOUR));
    view(&actor);
    assert_eq!(actor.now(), now, "time stands still until the clock is where it was");
    // The monotonic clock has gone on, the wall clock is still behind: no time-out is due.
    actor.pass(7 * HOUR);
    actor.step(&Step::Sweep);
    view(&actor);
    assert!(end_of(&actor.infos()[0]).is_none());
}

#[test]
fn a_reset_of_the_clock_takes_open_sessions_along() {
    let mut actor = Actor::new(Scene::default());
    actor.start(1, 1, 0, false);
    actor.pass(10 * MINUTE);
    actor.step(&Step::Extend { handle: 0, by: HOUR });
    actor.clock.set(actor.clock.now().saturating_sub(Duration::from_secs(6 * 3_600)));
    actor.db().reset_clock().expect("reset");
    let now = actor.db().engine_time();
    let info = &actor.infos()[0];
    assert!(info.started_at <= now && info.last_activity_at <= now, "{info:?}");
    assert!(info.deadline.is_some_and(|deadline| deadline.as_nanos() <= now.as_nanos() + 2 * HOUR));
    actor.pass(2 * HOUR + SECOND);
    actor.step(&Step::Sweep);
    let infos = actor.infos();
    let end = end_of(&infos[0]).expect("it is not kept alive by times that are gone");
    assert!(end.at >= infos[0].started_at);
    assert!(end.at.as_nanos() <= actor.now());
}

//! What may still come to a session that has ended: late records, and the end of its records.

use std::time::Duration;

use proptest::prelude::*;
use tidal_support::sessions::{AtOpen, Refusal};
use tidal_support::sim::Survives;
use tidaldb::schema::{EntityId, Timestamp, Window};
use tidaldb::{Error, Retention, SessionId, SessionSignal, SessionState};

use crate::actor::{Actor, Done, Refused, Scene, end_of};
use crate::recovery::{boundaries, digest};
use crate::script::{ALL, Crash, HOUR, MINUTE, Said, Step, for_all, script};

/// A policy that grants two hours.
const PATIENT: usize = 2;
const GRACE: u64 = 2 * HOUR;

const LATE: Said = Said { item: 3, ahead: 0, span: 0, key: None };

/// A session of ten minutes with one signal, closed; returns its id and when its grace began, which is
/// its end.
fn closed() -> (Actor, u64, u64) {
    let mut actor = Actor::new(Scene::default());
    actor.start(1, 1, PATIENT, false);
    actor.step(&Step::Signal { handle: 0, said: LATE });
    actor.pass(9 * MINUTE);
    let did = actor.step(&Step::Close { handle: 0 }).expect("a close");
    let Ok(Done::Ended(end)) = did.answer else { panic!("{did:?}") };
    let id = actor.ids[0];
    (actor, id, end.at)
}

fn late(actor: &mut Actor, said: Said) -> Result<Done, Refused> {
    actor.step(&Step::Late { session: 0, said }).expect("a late record").answer
}

/// As [`closed`], but nobody closes it: its grace begins at its deadline.
fn timed_out() -> (Actor, u64, u64) {
    let mut actor = Actor::new(Scene::default());
    actor.start(1, 1, PATIENT, false);
    actor.step(&Step::Signal { handle: 0, said: LATE });
    let deadline = actor.now() + 10 * MINUTE;
    actor.pass(10 * MINUTE + 1);
    let id = actor.ids[0];
    (actor, id, deadline)
}

#[test]
fn late_record_bounded_and_counted() {
    // Up to the last nanosecond of what is granted.
    let ago = prop_oneof![Just(0), Just(GRACE), 0..GRACE];
    let ahead = -(3 * HOUR as i64)..MINUTE as i64;
    for_all(40, (any::<bool>(), ago, ahead, any::<bool>()), |(closes, ago, ahead, crashes)| {
        let (mut actor, id, over) = if closes { closed() } else { timed_out() };
        let before = actor.info(id);
        actor.pass(ago.min(over + GRACE - 1 - actor.now()));
        let said = Said { ahead, span: HOUR, key: Some(1), ..LATE };
        assert_eq!(late(&mut actor, said), Ok(Done::Applied { is_new: true }));
        assert_eq!(late(&mut actor, said), Ok(Done::Applied { is_new: false }), "said twice");
        if crashes {
            let at_open = AtOpen::RestoreThenExpire;
            actor.crash(Crash { survives: Survives::Everything, at_open, down: 0 });
        }
        let after = actor.info(id);
        assert_eq!((after.late, after.records, after.signals), (1, before.records + 1, 1));
        assert_eq!(end_of(&after), end_of(&before), "it is no evidence: the end was told");
        assert_ne!(after.content_hash, before.content_hash, "what is in it has changed");
        let views = actor.db().read_windowed_count(EntityId::new(3), "view", Window::AllTime);
        assert_eq!(views.expect("read"), 2, "it counts as any other");

        actor.pass(over + GRACE - actor.now());
        let all = (actor.infos(), boundaries(&actor));
        let refused = late(&mut actor, Said { key: None, ..LATE });
        assert_eq!(refused, Err(Refused::As(Refusal::TooLate)));
        assert_eq!((actor.infos(), boundaries(&actor)), all);
        assert!(matches!(actor.info(id).state, SessionState::Settled(_)));
    });
}

#[test]
fn a_late_record_says_how_late_it_is_and_of_an_open_session_that_it_is_open() {
    let (mut actor, id, end) = closed();
    let append = |actor: &Actor, id| {
        let signal = SessionSignal::new("view", EntityId::new(1), Timestamp::from_nanos(end));
        actor.db().sessions().append_late(SessionId::new(id), signal)
    };
    actor.pass(GRACE + MINUTE);
    match append(&actor, id) {
        Err(Error::TooLate { by_ms, .. }) => assert_eq!(by_ms, 60_000),
        other => panic!("{other:?}"),
    }
    actor.start(1, 1, PATIENT, false);
    assert!(matches!(append(&actor, actor.ids[1]), Err(Error::SessionOpen(_))));
    assert!(matches!(append(&actor, 999_999), Err(Error::SessionNotFound(_))));
    // One that time has ended, and nobody has noticed: its grace began at its deadline.
    actor.pass(10 * MINUTE + GRACE - 1);
    append(&actor, actor.ids[1]).expect("within its grace");
    assert_eq!(actor.info(actor.ids[1]).late, 1);
    actor.pass(1);
    assert!(matches!(append(&actor, actor.ids[1]), Err(Error::TooLate { by_ms: 0, .. })));
}

#[test]
fn a_late_record_is_kept_over_a_sweep_that_comes_first() {
    let (mut actor, id, _) = closed();
    let [mut swept, mut unswept] = [true, false].map(|sweeps| {
        let (mut actor, ..) = closed();
        actor.pass(HOUR);
        if sweeps {
            actor.step(&Step::Sweep);
        }
        assert_eq!(late(&mut actor, LATE), Ok(Done::Applied { is_new: true }));
        actor
    });
    for actor in [&mut swept, &mut unswept] {
        actor.pass(GRACE);
        actor.step(&Step::Sweep);
    }
    assert_eq!(digest(&swept), digest(&unswept));
    assert_eq!(swept.info(id).late, 1);
    actor.pass(GRACE);
    assert_eq!(late(&mut actor, LATE), Err(Refused::As(Refusal::TooLate)));
}

#[test]
fn a_span_of_a_late_record_is_a_length_like_any_other() {
    let (actor, id, end) = closed();
    let longest = Duration::MAX;
    let signal = SessionSignal::new("view", EntityId::new(1), Timestamp::from_nanos(end));
    // Longer than time: refused or cut, and never a panic.
    let before = boundaries(&actor);
    drop(actor.db().sessions().append_late(SessionId::new(id), signal.span(longest)));
    assert_eq!(boundaries(&actor)[0].2, before[0].2);
}

fn retention(hours: u64) -> Retention {
    Retention::settled_for(Duration::from_nanos(hours * HOUR))
}

#[test]
fn prune_keeps_bounds() {
    for_all(40, (script(ALL, 60), 0..3u64, any::<bool>()), |(script, hours, crashes)| {
        let mut actor = Actor::new(Scene::default());
        for step in &script {
            actor.step(step);
        }
        let sessions = actor.db().sessions();
        let plan = sessions.plan_prune(&retention(hours)).expect("planned");
        let (before, told) = (boundaries(&actor), actor.infos());
        assert_eq!(sessions.plan_prune(&retention(hours)).expect("planned"), plan, "it is pure");
        let planned: Vec<u64> = plan.sessions().map(|id| id.as_u64()).collect();
        let applied = sessions.apply(plan).expect("applied");
        let done: Vec<u64> = applied.done.iter().map(|id| id.as_u64()).collect();
        assert_eq!((done, applied.skipped), (planned.clone(), vec![]));
        if crashes {
            let at_open = AtOpen::RestoreThenExpire;
            actor.crash(Crash { survives: Survives::Everything, at_open, down: 0 });
        }
        // Interval, cause, content hash and counts stay; so a pruned session still bounds the others.
        assert_eq!(boundaries(&actor), before);
        for (info, told) in actor.infos().iter().zip(&told) {
            let was_pruned = planned.contains(&info.id.as_u64());
            assert_eq!(matches!(info.state, SessionState::Pruned(_)), was_pruned, "{info:?}");
            assert_eq!((info.records, info.signals), (told.records, told.signals));
            let records = actor.db().sessions().records(info.id).expect("read");
            let expected = if was_pruned { 0 } else { info.records };
            assert_eq!(records.len() as u64, expected);
        }
        let again = actor.db().sessions().plan_prune(&retention(hours)).expect("planned");
        assert!(again.sessions().all(|id| !planned.contains(&id.as_u64())));
        let report = actor.db().verify().expect("verified");
        assert!(report.is_sound(), "{report}");
    });
}

#[test]
fn an_interrupted_prune_forgets_all_of_a_session_or_nothing() {
    let mut actor = Actor::new(Scene::default());
    for user in 0..4 {
        actor.start(user, 1, 1, false);
        for _ in 0..3 {
            let handle = actor.held.len() - 1;
            actor.step(&Step::Signal { handle, said: LATE });
        }
    }
    actor.pass(HOUR);
    // An operation comes after them: they have ended for good.
    actor.start(9, 9, 0, false);
    actor.step(&Step::Sweep);
    let before = boundaries(&actor);
    actor.disk.record();
    let sessions = actor.db().sessions();
    let plan = sessions.plan_prune(&retention(0)).expect("planned");
    assert_eq!((plan.sessions().count(), plan.records()), (4, 12));
    sessions.apply(plan).expect("applied");
    actor.db().checkpoint().expect("a checkpoint");
    for (step, image) in actor.disk.images().iter().enumerate() {
        for survives in [Survives::Everything, Survives::Nothing, Survives::Some(step as u64 + 1)] {
            actor.disk = image.reboot(survives);
            actor.open(AtOpen::RestoreThenExpire);
            assert_eq!(boundaries(&actor), before, "step {step}, {survives:?}");
            for info in &actor.infos()[..4] {
                let records = actor.db().sessions().records(info.id).expect("read").len();
                let is_pruned = matches!(info.state, SessionState::Pruned(_));
                assert_eq!(records, if is_pruned { 0 } else { 3 }, "step {step}, {survives:?}");
            }
        }
    }
}

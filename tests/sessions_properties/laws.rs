//! What holds of the list of sessions at any moment, by that list alone: the plain model is not asked.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tidal_support::sessions::{Lane, Policy};
use tidaldb::{
    EndCause, EndEvidence, SessionContent, SessionFilter, SessionInfo, SessionRecord,
    SessionStateKind,
};

use crate::actor::{Actor, POLICIES, Scene, end_of};
use crate::script::{ALL, Also, HOUR, Step, for_all, restless, script};
use crate::world::World;

const CASES: u32 = 60;
const STEPS_MAX: usize = 60;

fn scene() -> impl Strategy<Value = Scene> {
    let lane = prop_oneof![3 => Just(Lane::UserAgent), 2 => Just(Lane::User)];
    (lane, prop::bool::weighted(0.2)).prop_map(|(lane, rejects)| Scene {
        lane,
        rejects,
        ..Scene::default()
    })
}

/// Lives scripts, and looks at all sessions after each step.
fn always(law: impl Fn(&Actor, &[SessionInfo])) {
    let scripts = prop_oneof![2 => script(ALL, STEPS_MAX), 1 => restless(STEPS_MAX)];
    for_all(CASES, (scene(), scripts), |(scene, script)| {
        let mut actor = Actor::new(scene);
        for step in &script {
            actor.step(step);
            law(&actor, &actor.infos());
        }
    });
}

fn policy_of(info: &SessionInfo) -> Policy {
    let found = POLICIES.iter().find(|(name, _)| *name == info.policy);
    found.expect("a policy of the schema").1
}

fn max_of(info: &SessionInfo) -> u64 {
    info.started_at.as_nanos() + policy_of(info).max
}

/// The start of the session that came after it in its lane.
fn next_start(lane: Lane, infos: &[SessionInfo], nth: usize) -> Option<u64> {
    let later = infos[nth + 1..].iter().find(|later| World::excludes(lane, later, &infos[nth]));
    later.map(|later| later.started_at.as_nanos())
}

#[test]
fn disjoint_sessions_per_lane() {
    always(|actor, infos| {
        for (nth, info) in infos.iter().enumerate() {
            let Some(next) = next_start(actor.scene.lane, infos, nth) else { continue };
            let end = end_of(info).expect("one that another came after has ended");
            assert!(end.at.as_nanos() <= next, "session {} overlaps the next: {end}", info.id);
        }
    });
}

#[test]
fn end_within_window() {
    always(|actor, infos| {
        for (nth, info) in infos.iter().enumerate() {
            let Some(end) = end_of(info) else { continue };
            let next = next_start(actor.scene.lane, infos, nth).unwrap_or(u64::MAX);
            let window = info.started_at.as_nanos()..=next.min(max_of(info));
            assert!(window.contains(&end.at.as_nanos()), "{window:?}: {}: {end}", info.id);
        }
    });
}

/// Where a session's records say that it ends, if they say so.
fn evidence_of(actor: &Actor, info: &SessionInfo) -> Option<u64> {
    let records = actor.db().sessions().records(info.id).expect("read");
    let window = info.started_at.as_nanos()..max_of(info);
    let reach = |record: &SessionRecord| {
        let span = match &record.content {
            SessionContent::Signal { late: true, .. } => return None,
            SessionContent::Signal { span, .. } => span.as_nanos() as u64,
            _ => 0,
        };
        let at = record.at.as_nanos();
        window.contains(&at).then(|| (at + span).min(record.arrived_at.as_nanos()))
    };
    records.iter().filter_map(reach).max()
}

#[test]
fn end_is_last_evidence_never_now() {
    always(|actor, infos| {
        for (nth, info) in infos.iter().enumerate() {
            let Some(end) = end_of(info).filter(|end| end.evidence != EndEvidence::Explicit) else {
                continue;
            };
            let said = evidence_of(actor, info);
            let fallback = info.started_at.as_nanos() + policy_of(info).fallback;
            let wanted = said.unwrap_or(fallback).min(max_of(info));
            let at = end.at.as_nanos();
            let is_record = matches!(end.evidence, EndEvidence::Record { .. });
            assert_eq!(is_record, said.is_some(), "{end}");
            match end.cause {
                EndCause::Superseded { .. } => {
                    let next = next_start(actor.scene.lane, infos, nth).expect("it says so");
                    assert_eq!(at, wanted.min(next), "{end}");
                }
                // Cut at the moment of the decision: after the fallback has passed there is no trace
                // of that moment.
                EndCause::OrphanRecovered | EndCause::Shutdown | EndCause::Forced { .. } => {
                    assert!(at == wanted || (at < wanted && said.is_none()), "{end}");
                }
                _ => assert_eq!(at, wanted, "{end}"),
            }
        }
    });
}

#[test]
fn an_end_that_was_told_never_changes() {
    // What is told is as of the clock: one that is set back takes it back. See `clocks`.
    let scripts = script(Also { set_backs: false, ..ALL }, STEPS_MAX);
    for_all(CASES, (scene(), scripts), |(scene, script)| {
        let mut actor = Actor::new(scene);
        let mut seen = BTreeMap::new();
        for step in &script {
            if matches!(step, Step::Crash(_)) {
                // Nor does a process that dies leave more behind than it wrote.
                actor.step(&Step::Sweep);
            }
            actor.step(step);
            for info in actor.infos() {
                let end = end_of(&info);
                if let Some(before) = seen.get(&info.id) {
                    assert_eq!(end, Some(before), "session {} after {step:?}", info.id);
                } else if let Some(end) = end {
                    seen.insert(info.id, end.clone());
                }
            }
        }
    });
}

#[test]
fn no_end_lies_in_the_future() {
    always(|actor, infos| {
        for end in infos.iter().filter_map(end_of) {
            assert!(end.at.as_nanos() <= actor.now(), "it is {}: {end}", actor.now());
        }
    });
}

#[test]
fn evidence_never_reaches_past_what_was_known() {
    always(|actor, infos| {
        for info in infos {
            let Some(end) = end_of(info) else { continue };
            let EndEvidence::Record { record, .. } = end.evidence else { continue };
            let records = actor.db().sessions().records(info.id).expect("read");
            let named = records.iter().find(|found| found.number == record);
            let arrival = named.expect("evidence names a record of its session").arrived_at;
            assert!(end.at <= arrival, "known at {} ns: {end}", arrival.as_nanos());
        }
    });
}

#[test]
fn at_most_one_open_session_per_lane() {
    always(|actor, infos| {
        let open: Vec<_> = infos.iter().filter(|info| end_of(info).is_none()).collect();
        for (nth, one) in open.iter().enumerate() {
            for other in &open[..nth] {
                assert!(!World::excludes(actor.scene.lane, one, other), "{one:?} {other:?}");
            }
        }
    });
}

#[test]
fn sessions_in_overlapping_lanes_leave_each_other_alone() {
    let scene = Scene { lane: Lane::Overlapping, ..Scene::default() };
    for_all(CASES / 2, script(ALL, STEPS_MAX), |script| {
        let world = World::live(scene, &script, |_| ());
        for info in world.actor.infos() {
            let end = end_of(&info);
            assert!(!end.is_some_and(|end| matches!(end.cause, EndCause::Superseded { .. })));
        }
    });
}

#[test]
fn no_orphan_left_after_deadline() {
    let sweeps = any::<bool>();
    for_all(CASES, (scene(), script(ALL, STEPS_MAX), sweeps), |(scene, script, sweeps)| {
        let mut actor = Actor::new(scene);
        for step in &script {
            actor.step(step);
        }
        // Longer than any session may last, counted from any time that a clock showed.
        actor.pass(20 * HOUR);
        if sweeps {
            actor.step(&Step::Sweep);
        }
        assert!(actor.infos().iter().all(|info| end_of(info).is_some()));
        let report = actor.db().sessions().sweep().expect("swept");
        assert!(!sweeps || report.ended == 0, "a second sweep finds nothing: {report:?}");
        assert_eq!(actor.db().sessions().overdue().expect("listed"), []);
    });
}

#[test]
fn the_engine_agrees_with_the_plain_model() {
    let lane = prop_oneof![Just(Lane::UserAgent), Just(Lane::User), Just(Lane::Overlapping)];
    let scene = (lane, any::<bool>(), any::<bool>()).prop_map(|(lane, rejects, ends_at_close)| {
        Scene { lane, rejects, ends_at_close, ..Scene::default() }
    });
    for_all(2 * CASES, (scene, script(ALL, 2 * STEPS_MAX)), |(scene, script)| {
        World::live(scene, &script, |_| ());
    });
}

#[test]
fn a_list_is_read_in_pages_and_by_user() {
    for_all(CASES / 4, script(ALL, STEPS_MAX), |script| {
        let mut actor = Actor::new(Scene::default());
        for step in &script {
            actor.step(step);
        }
        let (all, sessions) = (actor.infos(), actor.db().sessions());
        let mut paged = Vec::new();
        loop {
            let filter = SessionFilter::new().limit(3);
            let filter = match paged.last() {
                None => filter,
                Some(SessionInfo { id, .. }) => filter.after(*id),
            };
            let page = sessions.list(&filter).expect("listed");
            assert!(page.len() <= 3);
            if page.is_empty() {
                break;
            }
            paged.extend(page);
        }
        assert_eq!(paged, all);
        for user in 0..2 {
            let filter = SessionFilter::new().user(user);
            let of: Vec<_> = all.iter().filter(|info| info.user.get() == user).cloned().collect();
            assert_eq!(sessions.list(&filter).expect("listed"), of);
        }
        let open = [SessionStateKind::Active, SessionStateKind::Restored];
        let listed = sessions.list(&SessionFilter::new().states(open)).expect("listed");
        let expected = all.iter().filter(|info| info.state.is_open()).cloned();
        assert_eq!(listed, expected.collect::<Vec<_>>());
    });
}

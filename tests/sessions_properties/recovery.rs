//! Crashes and sweeps leave no trace in where sessions begin and end.

use proptest::prelude::*;
use tidal_support::sessions::{AtOpen, Ended};
use tidal_support::sim::Survives;

use crate::actor::{Actor, Did, Done, Scene, end_of, ended};
use crate::script::{ALL, Also, Crash, Step, at_open, for_all, script};

const CASES: u32 = 50;
const STEPS_MAX: usize = 50;

/// Where each session begins and ends, and what it holds.
type Boundaries = Vec<(u64, u64, Option<Ended>, [u8; 32])>;

pub(crate) fn boundaries(actor: &Actor) -> Boundaries {
    let infos = actor.infos();
    let of = infos.iter().map(|info| {
        let start = info.started_at.as_nanos();
        (info.id.as_u64(), start, end_of(info).map(ended), info.content_hash)
    });
    of.collect()
}

pub(crate) fn digest(actor: &Actor) -> [u8; 32] {
    actor.db().state_digest().expect("a digest")
}

/// The answer to a step without what control frames change: positions in the log.
fn answer(did: Option<Did>) -> Option<String> {
    did.map(|did| match did.answer {
        Ok(Done::Started { id, joined, start, .. }) => format!("{id} {joined} {start}"),
        answer => format!("{answer:?}"),
    })
}

/// An idle time that begins anew with an open depends on whether somebody noticed the end before.
fn never_revives(step: &Step) -> bool {
    let policy = match step {
        Step::Crash(crash) => crash.at_open,
        Step::Reopen(at_open) => *at_open,
        _ => return true,
    };
    policy != AtOpen::RestoreAll
}

#[test]
fn sweeper_timing_independence() {
    // A sweep carries engine time along, so a clock that is set back shows something else after it.
    let scripts = script(Also { sweeps: false, set_backs: false, ..ALL }, STEPS_MAX);
    for_all(CASES, (scripts, 2..6usize), |(script, rhythm)| {
        let script: Vec<_> = script.into_iter().filter(never_revives).collect();
        // Never, after every step, and now and then.
        let mut actors = [usize::MAX, 1, rhythm].map(|every| (every, Actor::new(Scene::default())));
        for (nth, step) in script.iter().enumerate() {
            let answers = actors.each_mut().map(|(every, actor)| {
                let answer = answer(actor.step(step));
                if (nth + 1).is_multiple_of(*every) {
                    actor.step(&Step::Sweep);
                }
                answer
            });
            assert!(answers.iter().all(|other| *other == answers[0]), "{step:?}: {answers:?}");
        }
        let [never, always, sometimes] = actors.map(|(_, actor)| actor);
        let told = |actor: &Actor| {
            let mut infos = actor.infos();
            // Positions in the log are others.
            infos.iter_mut().for_each(|info| info.fence.grant = info.fence.grant.min(1));
            infos
        };
        for swept in [always, sometimes] {
            assert_eq!(told(&swept), told(&never));
            assert_eq!(boundaries(&swept), boundaries(&never));
            assert_eq!(digest(&swept), digest(&never));
        }
    });
}

#[test]
fn crash_transparency_when_client_resumes() {
    // So does an open.
    const CALM: Also = Also { crashes: false, set_backs: false, sweeps: true, resumes: true };
    let scripts = script(CALM, STEPS_MAX);
    let crashes = prop::collection::vec(any::<bool>(), STEPS_MAX);
    for_all(CASES, (scripts, crashes), |(script, crashes)| {
        let [mut calm, mut unlucky] = [(); 2].map(|()| Actor::new(Scene::default()));
        let crash =
            Crash { survives: Survives::Everything, at_open: AtOpen::RestoreThenExpire, down: 0 };
        for (step, crashes) in script.iter().zip(&crashes) {
            let is_alive = |actor: &Actor, handle: usize| {
                let nth = handle.checked_rem(actor.held.len())?;
                let held = &actor.held[nth];
                let info = actor.info(held.id);
                Some(end_of(&info).is_none() && info.fence.grant == held.grant)
            };
            // A client that lost its handle is told something else, and both change nothing.
            let writes = match step {
                Step::Signal { handle, .. }
                | Step::Annotate { handle, .. }
                | Step::Heartbeat { handle }
                | Step::Extend { handle, .. }
                | Step::Close { handle } => is_alive(&calm, *handle),
                _ => Some(true),
            };
            if writes != Some(true) {
                continue;
            }
            let (told, expected) = (answer(unlucky.step(step)), answer(calm.step(step)));
            assert_eq!(told, expected, "{step:?}");
            if *crashes {
                unlucky.crash(crash);
                unlucky.resume_held();
            }
        }
        assert_eq!(boundaries(&unlucky), boundaries(&calm));
        assert_eq!(digest(&unlucky), digest(&calm));
    });
}

/// What the report of an open says of sessions, and all that follows from it.
fn outcome(actor: &Actor) -> (String, String, [u8; 32]) {
    let report = actor.db().open_report();
    let said = format!("{:?} {:?}", report.sessions_restored, report.sessions_ended);
    (said, format!("{:?}", actor.infos()), digest(actor))
}

#[test]
fn recovery_is_deterministic() {
    for_all(CASES, (script(ALL, STEPS_MAX), 0..3u64), |(script, hours)| {
        let mut actor = Actor::new(Scene::default());
        for step in &script {
            actor.step(step);
        }
        actor.die(Survives::Everything);
        actor.pass(hours * crate::script::HOUR);
        let image = actor.disk.clone();
        for at_open in [AtOpen::RestoreThenExpire, AtOpen::EndAll, AtOpen::RestoreAll] {
            let outcomes = [(); 2].map(|()| {
                actor.disk = image.reboot(Survives::Everything);
                actor.open(at_open);
                (outcome(&actor), actor.disk.fingerprint())
            });
            assert_eq!(outcomes[0], outcomes[1], "{at_open:?}");
        }
    });
}

#[test]
fn recovery_is_idempotent() {
    for_all(CASES, (script(ALL, STEPS_MAX), at_open(), 0..3u64), |(script, at_open, hours)| {
        let mut actor = Actor::new(Scene::default());
        for step in &script {
            actor.step(step);
        }
        let down = hours * crate::script::HOUR;
        actor.crash(Crash { survives: Survives::Everything, at_open, down });
        let first = (boundaries(&actor), digest(&actor));
        actor.crash(Crash { survives: Survives::Everything, at_open, down: 0 });
        let report = actor.db().open_report();
        assert_eq!(report.sessions_ended, [], "the first one has ended them");
        let open = first.0.iter().filter(|(.., end, _)| end.is_none());
        let open: Vec<u64> = open.map(|(id, ..)| *id).collect();
        let restored = report.sessions_restored.iter().map(|id| id.as_u64());
        assert_eq!(restored.collect::<Vec<_>>(), open);
        assert_eq!((boundaries(&actor), digest(&actor)), first);
    });
}

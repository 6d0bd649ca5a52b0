//! Logs that end anywhere, and machines that stop at any operation of the disk.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use tidal_support::damage::segments;
use tidal_support::pairs;
use tidal_support::random::Random;
use tidal_support::sessions::{AtOpen, Model};
use tidal_support::sim::{Image, SimDisk, Survives};
use tidaldb::schema::{EntityId, Timestamp};
use tidaldb::{Batch, CollectionChange, Event, TidalDb, Visibility};

use crate::actor::{Actor, OS, Scene, end_of};
use crate::recovery::{boundaries, digest};
use crate::script::{Also, Crash, HOUR, MINUTE, SECOND, Said, Step, for_all, script};
use crate::world::World;

const POLICIES: [AtOpen; 3] = [AtOpen::RestoreThenExpire, AtOpen::EndAll, AtOpen::RestoreAll];

const NOW: Said = Said { item: 1, ahead: 0, span: 0, key: None };

/// Sessions in every condition: written to, empty, closed, superseded, timed out without notice.
fn story() -> Vec<Step> {
    let start = |user, agent, policy| Step::Start { user, agent, policy, joins: false };
    let signal = |handle, ahead| {
        let said = Said { ahead, span: 20 * SECOND, ..NOW };
        Step::Signal { handle, said }
    };
    vec![
        start(0, 0, 0),
        signal(0, 0),
        start(0, 1, 1),
        signal(1, -(SECOND as i64)),
        Step::Pass(MINUTE),
        start(1, 0, 2),
        Step::Annotate { handle: 2, item: 3 },
        start(1, 1, 0),
        signal(0, -(30 * SECOND as i64)),
        Step::Close { handle: 3 },
        start(1, 1, 0),
        Step::Pass(30 * SECOND),
        start(1, 0, 0),
        Step::Extend { handle: 0, by: HOUR },
        Step::Pass(10 * SECOND),
    ]
}

/// The one segment of the log that holds something, and what it holds.
fn log(disk: &SimDisk) -> (PathBuf, Vec<u8>) {
    let segments = disk
        .paths()
        .into_iter()
        .filter(|path| path.parent().is_some_and(|dir| dir.ends_with("log")));
    let segments: Vec<_> = segments.map(|path| (path.clone(), disk.content(&path))).collect();
    segments.into_iter().next_back().expect("there is a log")
}

/// The frames of a segment: where each begins and ends.
fn frames(content: &[u8]) -> Vec<Range<usize>> {
    let segment = segments::parse("the last one", content.to_vec());
    let range = |frame: &segments::Frame| {
        let begin = frame.offset as usize;
        begin..begin + frame.size_bytes as usize
    };
    segment.frames.iter().map(range).collect()
}

fn end(content: &[u8]) -> usize {
    frames(content).last().map_or(segments::FRAMES_AT as usize, |frame| frame.end)
}

#[test]
fn recovery_is_atomic_at_every_step_of_the_disk() {
    for at_open in POLICIES {
        let mut world = World::live(Scene::default(), &story(), |_| ());
        let before = digest(&world.actor);
        world.actor.die(Survives::Everything);
        let image = world.actor.disk.clone();
        world.actor.disk = image.reboot(Survives::Everything);
        world.actor.disk.record();
        world.actor.open(at_open);
        let (expected, after) = (boundaries(&world.actor), digest(&world.actor));
        let images = world.actor.disk.images();
        assert!(images.len() > 2, "an open has {} steps", images.len());
        for (step, image) in images.iter().enumerate() {
            for survives in
                [Survives::Everything, Survives::Nothing, Survives::Some(step as u64 + 1)]
            {
                // Whatever is found is found whole: nothing was ended, or all that was due.
                world.actor.disk = image.reboot(survives);
                world.actor.open(AtOpen::RestoreThenExpire);
                let found = digest(&world.actor);
                assert!(found == before || found == after, "step {step}, {survives:?}");
                // And the next open finishes what the first one began.
                world.actor.disk = image.reboot(survives);
                world.actor.open(at_open);
                assert_eq!(boundaries(&world.actor), expected, "step {step}, {survives:?}");
                assert_eq!(digest(&world.actor), after, "step {step}, {survives:?}");
            }
        }
    }
}

#[test]
fn recovery_is_atomic_at_every_byte_of_its_frame() {
    for at_open in POLICIES {
        let mut world = World::live(Scene::default(), &story(), |_| ());
        let before = digest(&world.actor);
        world.actor.die(Survives::Everything);
        world.actor.open(at_open);
        let (expected, after) = (boundaries(&world.actor), digest(&world.actor));
        world.actor.die(Survives::Everything);
        let (path, new) = log(&world.actor.disk);
        let image = world.actor.disk.clone();
        // A mark may follow it, and has no body.
        let mut frames = frames(&new).into_iter().rev();
        let frame = frames.find(|frame| frame.len() > 88).expect("an open has a frame");
        for cut in frame {
            for zeros in [false, true] {
                let mut content = new[..cut].to_vec();
                content.resize(if zeros { new.len() } else { cut }, 0);
                if content == new {
                    continue;
                }
                let disk = image.reboot(Survives::Everything);
                disk.put(&path, content);
                world.actor.disk = disk.reboot(Survives::Everything);
                world.actor.open(AtOpen::RestoreThenExpire);
                assert_eq!(digest(&world.actor), before, "cut at {cut}");
                world.actor.disk = disk.reboot(Survives::Everything);
                world.actor.open(at_open);
                assert_eq!(boundaries(&world.actor), expected, "cut at {cut}");
                assert_eq!(digest(&world.actor), after, "cut at {cut}");
            }
        }
    }
}

#[test]
fn every_journal_prefix_recovers() {
    let mut world = World::new(Scene::default());
    let mut models: BTreeMap<u64, (Model, [u8; 32])> = BTreeMap::new();
    let mut first = 0;
    for step in [Step::Pass(0)].iter().chain(&story()) {
        world.step(step);
        world.check();
        first = first.max(if models.is_empty() { end(&log(&world.actor.disk).1) } else { 0 });
        let state = (world.model.clone(), digest(&world.actor));
        models.insert(world.actor.operations(), state);
    }
    world.actor.die(Survives::Everything);
    let (path, whole) = log(&world.actor.disk);
    let image = world.actor.disk.clone();
    let mut found = BTreeMap::<u64, u64>::new();
    for cut in first..=end(&whole) {
        let disk = image.reboot(Survives::Everything);
        disk.put(&path, whole[..cut].to_vec());
        world.actor.disk = disk.reboot(Survives::Everything);
        world.actor.open(AtOpen::RestoreThenExpire);
        let there = world.actor.operations();
        *found.entry(there).or_default() += 1;
        let (model, expected) = models.get(&there).expect("whole operations").clone();
        assert_eq!(digest(&world.actor), expected, "cut at {cut}: {there} operations");
        let ids = world.actor.ids.clone();
        world.actor.ids.retain(|&id| id <= there);
        (world.model, world.model.now) = (model, world.actor.now());
        world.model.reopen(AtOpen::RestoreThenExpire, 0);
        world.check();
        world.actor.ids = ids;
    }
    assert_eq!(found.len(), models.len(), "every prefix was seen");
}

#[test]
fn torn_tail_is_cut_before_append() {
    for keep in [1usize, 40, 87, 88, 89, usize::MAX] {
        let mut actor = Actor::new(Scene::default());
        actor.start(1, 1, 0, false);
        let said = |actor: &Actor, item| {
            let at = Timestamp::from_nanos(actor.now());
            actor.held.last().expect("held").handle.signal("view", EntityId::new(item), 1.0, at)
        };
        said(&actor, 1).expect("A");
        let before = frames(&log(&actor.disk).1).len();
        said(&actor, 2).expect("B");
        actor.die(Survives::Everything);
        let (path, content) = log(&actor.disk);
        let frame = frames(&content)[before].clone();
        let mut torn = content[..frame.start + keep.min(frame.len() - 1)].to_vec();
        // What was there before, zeros or not.
        torn.resize(frame.end, 0x5a);
        torn.resize(content.len(), 0);
        actor.disk.put(&path, torn);
        actor.disk = actor.disk.reboot(Survives::Everything);
        actor.open(AtOpen::RestoreThenExpire);
        actor.resume_held();
        said(&actor, 3).expect("C");
        let at_open = AtOpen::RestoreThenExpire;
        actor.crash(Crash { survives: Survives::Nothing, at_open, down: 0 });
        let id = tidaldb::SessionId::new(actor.ids[0]);
        let records = actor.db().sessions().records(id).expect("read");
        let items: Vec<u64> = records.iter().map(|record| record.entity.get()).collect();
        assert_eq!(items, [1, 3], "{keep} bytes of B were there");
    }
}

#[test]
fn interrupted_checkpoint_falls_back() {
    let mut world = World::live(Scene::default(), &story(), |_| ());
    world.actor.db().checkpoint().expect("a checkpoint");
    // Some of it settles, some changes, some is new.
    let start = Step::Start { user: 5, agent: 5, policy: 2, joins: false };
    for step in [Step::Pass(10 * SECOND), start, Step::Sweep] {
        world.step(&step);
    }
    let expected = (boundaries(&world.actor), digest(&world.actor));
    world.actor.disk.record();
    world.actor.db().checkpoint().expect("a checkpoint");
    let images = world.actor.disk.images();
    assert!(images.len() > 3, "a checkpoint has {} steps", images.len());
    for (step, image) in images.iter().enumerate() {
        for survives in [Survives::Everything, Survives::Nothing, Survives::Some(step as u64 + 1)] {
            world.actor.disk = image.reboot(survives);
            world.actor.open(AtOpen::RestoreThenExpire);
            let found = (boundaries(&world.actor), digest(&world.actor));
            assert_eq!(found, expected, "step {step}, {survives:?}");
            world.check_contents();
        }
    }
}

/// How many operations must be there, for the image of a disk: after a death, and after a power cut.
fn note(written: u64, synced: u64) -> u64 {
    written << 32 | synced
}

fn least(image: &Image, survives: Survives) -> u64 {
    if survives == Survives::Everything { image.note >> 32 } else { image.note & 0xffff_ffff }
}

/// Reboots some of the images, and holds each to the promise: all that was acknowledged is there, and
/// the state is that after some number of operations. Returns how many were looked at.
fn hold_to_the_promise(
    actor: &mut Actor,
    images: &[Image],
    digests: &BTreeMap<u64, [u8; 32]>,
    random: &mut Random,
    looks: usize,
) {
    for _ in 0..looks.min(images.len()) {
        let nth = random.below(images.len() as u64) as usize;
        let survives = tidal_support::contract::any_survival(random);
        actor.disk = images[nth].reboot(survives);
        actor.open(AtOpen::RestoreThenExpire);
        let there = actor.operations();
        let least = least(&images[nth], survives);
        assert!(there >= least, "{there} of {least} operations: image {nth}, {survives:?}");
        let expected = digests.get(&there).expect("no more than there ever were");
        assert_eq!(&digest(actor), expected, "{there} operations: image {nth}, {survives:?}");
        let report = actor.db().verify().expect("verified");
        assert!(report.is_sound(), "{report}");
    }
}

#[test]
fn no_acked_write_lost_and_no_phantom() {
    const UNINTERRUPTED: Also =
        Also { crashes: false, set_backs: true, sweeps: true, resumes: true };
    let scene = Scene { durability: OS, ..Scene::default() };
    for_all(25, (script(UNINTERRUPTED, 50), proptest::prelude::any::<u64>()), |(script, seed)| {
        let mut actor = Actor::new(scene);
        actor.disk.record();
        let mut digests = BTreeMap::from([(actor.operations(), digest(&actor))]);
        let mut synced = actor.operations();
        for step in &script {
            let before = actor.operations();
            actor.step(step);
            let written = actor.operations();
            assert!(written <= before + 1, "one step is one operation");
            match step {
                // These return when they are durable, and so is what was written before.
                Step::Start { .. } | Step::Close { .. } | Step::Resume { .. } => synced = written,
                _ => {}
            }
            actor.disk.note(note(written, synced));
            digests.insert(written, digest(&actor));
        }
        let images = actor.disk.images();
        hold_to_the_promise(&mut actor, &images, &digests, &mut Random::new(seed), 25);
    });
}

/// Something on another surface than sessions; one operation.
fn elsewhere(db: &TidalDb, random: &mut Random, now: u64) {
    let item = EntityId::new(random.below(8));
    let owner = random.below(2);
    match random.below(5) {
        0 => drop(db.write_item(item, &pairs(&[("title", "an item")])).expect("written")),
        1 => drop(db.write_user(owner, &pairs(&[("age", "30")])).expect("written")),
        2 => {
            db.create_collection(owner, "list", Visibility::Public).expect("created");
        }
        3 => {
            let listed = db.list_collections(owner).expect("listed");
            if let Some(list) = listed.first() {
                let change = CollectionChange::add(item);
                db.change_collection(list.id, change).expect("changed");
            }
        }
        _ => {
            let mut batch = Batch::new();
            let at = Timestamp::from_nanos(now);
            batch.push(Event::new("view", item, at).user(owner));
            db.write(batch).expect("written");
        }
    }
}

#[test]
fn mixed_workload_crash_recovery() {
    const CALM: Also = Also { crashes: false, set_backs: false, sweeps: true, resumes: true };
    for_all(25, (script(CALM, 40), proptest::prelude::any::<u64>()), |(script, seed)| {
        let mut random = Random::new(seed);
        let mut actor = Actor::new(Scene::default());
        actor.disk.record();
        let mut digests = BTreeMap::from([(actor.operations(), digest(&actor))]);
        let mut look = |actor: &Actor| {
            let written = actor.operations();
            actor.disk.note(note(written, written));
            digests.insert(written, digest(actor));
        };
        for step in &script {
            actor.step(step);
            look(&actor);
            elsewhere(actor.db(), &mut random, actor.now());
            look(&actor);
        }
        let images = actor.disk.images();
        hold_to_the_promise(&mut actor, &images, &digests, &mut random, 25);
        actor.db().health_check().expect("healthy");
    });
}

#[test]
fn a_power_cut_in_the_middle_of_a_recovery_that_ends_sessions_is_made_good() {
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let mut world = World::live(Scene::default(), &story(), |_| ());
        world.actor.die(Survives::Everything);
        world.actor.pass(31 * MINUTE);
        let whole = world.actor.disk.reboot(Survives::Everything);
        world.actor.open(AtOpen::EndAll);
        let expected = boundaries(&world.actor);
        world.actor.disk = whole;
        for _ in 0..4 {
            world.actor.disk.stop_after(random.below(12) as usize);
            let (scene, clock) = (world.actor.scene, world.actor.clock.clone());
            drop(scene.try_open(&world.actor.disk, &clock, AtOpen::EndAll));
            let survives = tidal_support::contract::any_survival(&mut random);
            world.actor.disk.stop();
            world.actor.disk = world.actor.disk.reboot(survives);
        }
        world.actor.open(AtOpen::EndAll);
        assert_eq!(boundaries(&world.actor), expected);
        assert!(world.actor.infos().iter().all(|info| end_of(info).is_some()));
    }
}

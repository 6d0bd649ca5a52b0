//! The process or the power ends between any two batches.

use std::sync::Arc;

use super::fakes::{Pairs, TestEngine, apply};
use super::world::{DB, Random, World, copies, settled};
use crate::checkpoint::read::read_store;
use crate::table::StoreSlot;

/// The stores that a crash during the checkpoint that ran last may leave: each prefix of its batches.
fn prefixes(before: Pairs, engine: &TestEngine, from: usize) -> Vec<Pairs> {
    let batches = engine.batches.lock();
    let mut pairs = before;
    let mut prefixes = vec![pairs.clone()];
    for batch in &batches[from..] {
        apply(&mut pairs, batch);
        prefixes.push(pairs.clone());
    }
    prefixes
}

fn crash_everywhere(world: &World) -> usize {
    let target: StoreSlot = world.pair.target().unwrap();
    let engine = Arc::clone(&world.engines[target as usize]);
    let (before, from) = (engine.snapshot(), engine.batches.lock().len());
    let had_one = read_store(engine.as_ref(), &DB).unwrap().is_some();
    world.checkpoint();
    let crashed = prefixes(before, &engine, from);
    for store in &crashed {
        let mut engines = copies(world);
        engines[target as usize] = TestEngine::with(store.clone());
        // It holds by itself: the other one may be lost in the same moment.
        let has_one = read_store(engines[target as usize].as_ref(), &DB).unwrap().is_some();
        assert!(has_one || !had_one, "a checkpoint is gone before the next one is there");
        world.check_reopen(engines);
    }
    crashed.len()
}

#[test]
fn any_prefix_of_a_checkpoints_batches_leaves_a_checkpoint_that_holds() {
    let mut prefixes = 0;
    for seed in 1..12 {
        let mut world = settled(seed);
        world.apply_random(&mut Random(seed + 100), 300);
        prefixes += crash_everywhere(&world);
    }
    assert!(prefixes > 11 * 3, "{prefixes} prefixes");
}

#[test]
fn the_first_checkpoints_of_all_can_be_interrupted_too() {
    for checkpoints in 0..2 {
        let mut world = World::new();
        (0..100).for_each(|page| world.set_page(0, page, "a page"));
        (0..16).for_each(|key| world.put(0, key, "a row"));
        for _ in 0..checkpoints {
            world.checkpoint();
        }
        assert!(crash_everywhere(&world) > 4);
    }
}

#[test]
fn a_rebuild_can_be_interrupted() {
    for slot in super::world::BOTH {
        let mut world = settled(9);
        (0..16).for_each(|key| world.put(1, key, "a row"));
        world.checkpoint();
        world.checkpoint();
        world.put(1, 3, "changed");
        (0..100).for_each(|page| world.set_page(0, page, "a page"));
        world.replace(slot);
        world.check();
        assert_eq!(world.pair.target(), Some(slot));
        assert!(crash_everywhere(&world) > 2);
    }
}

#[test]
fn crashes_in_a_row_end_well() {
    for seed in 1..40 {
        let mut random = Random(seed);
        let mut world = settled(seed);
        for _ in 0..6 {
            let count = random.below(200) as usize;
            world.apply_random(&mut random, count);
            let target = world.pair.target().unwrap();
            let engine = Arc::clone(&world.engines[target as usize]);
            let (before, from) = (engine.snapshot(), engine.batches.lock().len());
            world.checkpoint();
            let crashed = prefixes(before, &engine, from);
            let survivor = &crashed[random.below(crashed.len() as u64) as usize];
            let mut engines = copies(&world);
            engines[target as usize] = TestEngine::with(survivor.clone());
            world = world.reopen(engines);
            world.check();
        }
        world.check_reopen(copies(&world));
    }
}

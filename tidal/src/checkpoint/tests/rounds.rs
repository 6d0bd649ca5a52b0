//! Nothing goes wrong.

use super::world::{Random, World, copies, epochs, settled};
use crate::checkpoint::SlotState;
use crate::checkpoint::keys::Epoch;
use crate::seq::Seq;
use crate::table::StoreSlot::{A, B};

#[test]
fn what_was_written_comes_back_whatever_happened_between_checkpoints() {
    for seed in 1..60 {
        let mut random = Random(seed);
        let mut world = World::new();
        for round in 0..8 {
            let count = random.below(30) as usize;
            world.apply_random(&mut random, count);
            if random.below(4) > 0 {
                world.checkpoint();
            }
            world.check();
            if random.below(3) == 0 {
                world = world.reopen(copies(&world));
                world.check();
            }
            if round == 4 {
                world.check_reopen(copies(&world));
            }
        }
        world.check_reopen(copies(&world));
    }
}

#[test]
fn the_stores_take_turns_and_the_older_one_holds_the_log_back() {
    let mut world = World::new();
    assert_eq!(world.pair.target(), Some(A));
    world.put(0, 1, "x");
    assert_eq!(world.checkpoint().store, A);
    assert_eq!(world.pair.truncatable(), Seq::ZERO, "a store without a checkpoint counts as 0");
    for (turn, store) in [B, A, B, A].into_iter().enumerate() {
        world.put(0, 1, "x");
        let written = world.checkpoint();
        assert_eq!(written.store, store);
        assert_eq!(written.seq, Seq::new(turn as u64 + 2));
        assert_eq!(written.epoch, Epoch::new(turn as u64 + 2), "both stores count together");
        assert_eq!(world.pair.truncatable(), Seq::new(turn as u64 + 1));
    }
}

#[test]
fn a_store_is_synced_before_what_was_found_in_it_counts() {
    let world = settled(3);
    let engines = copies(&world);
    let reopened = world.reopen(engines.clone());
    assert_eq!(reopened.pair.truncatable(), world.pair.truncatable());
    for engine in engines {
        assert_eq!(engine.syncs.load(std::sync::atomic::Ordering::Relaxed), 1);
    }
}

#[test]
fn only_what_changed_is_written() {
    let mut world = World::new();
    for page in 0..40 {
        world.set_page(0, page, "page");
        world.set_page(1, page, "page");
        world.put(0, page as u64 % 16, "row");
    }
    let (first, second) = (world.checkpoint(), world.checkpoint());
    assert_eq!((first.pages, first.rows), (80, 16));
    assert_eq!((second.pages, second.rows), (80, 16), "a new store takes all");
    for _ in 0..2 {
        let idle = world.checkpoint();
        assert_eq!((idle.pages, idle.rows), (0, 0));
    }
    world.set_page(1, 7, "changed");
    world.put(0, 3, "changed");
    for _ in 0..2 {
        let written = world.checkpoint();
        assert_eq!((written.pages, written.rows), (1, 1));
    }
    let idle = world.checkpoint();
    assert_eq!((idle.pages, idle.rows), (0, 0));
    world.check_no_leftovers();
    assert_eq!(world.state.cold[0].pending_size_bytes(), 0);
}

#[test]
fn stores_at_the_same_sequence_are_owed_nothing_after_reopening() {
    let world = settled(5);
    world.checkpoint();
    world.checkpoint();
    let reopened = world.reopen(copies(&world));
    reopened.check();
    for _ in 0..2 {
        let written = reopened.checkpoint();
        assert_eq!((written.pages, written.rows), (0, 0));
    }
}

#[test]
fn an_older_store_is_owed_after_reopening_only_the_cold_rows_it_lacks() {
    let mut world = World::new();
    (0..16).for_each(|key| world.put(0, key, "row"));
    world.checkpoint();
    world.checkpoint();
    world.put(0, 1, "changed");
    world.delete(0, 2);
    world.checkpoint();
    let reopened = world.reopen(copies(&world));
    assert_eq!(reopened.pair.target(), Some(B));
    assert_eq!(reopened.checkpoint().rows, 2);
    reopened.check();
    reopened.checkpoint();
    reopened.checkpoint();
    reopened.check_no_leftovers();
}

#[test]
fn a_deletion_is_remembered_until_the_other_store_knows_of_it() {
    let mut world = World::new();
    world.put(0, 1, "x");
    world.checkpoint();
    world.checkpoint();
    world.delete(0, 1);
    world.checkpoint();
    let rows = |world: &World, slot| {
        let engine: &super::fakes::TestEngine = &world.engines[slot as usize];
        engine.snapshot().keys().filter(|key| key[0] == 3).count()
    };
    assert_eq!((rows(&world, A), rows(&world, B)), (1, 1), "the deletion, and the row");
    world.checkpoint();
    assert_eq!((rows(&world, A), rows(&world, B)), (1, 1), "the deletion in both");
    world.checkpoint();
    world.checkpoint();
    assert_eq!((rows(&world, A), rows(&world, B)), (0, 0));
    world.check();
}

#[test]
fn tables_and_rows_that_shrink_leave_nothing_behind() {
    let mut world = World::new();
    for page in 0..6 {
        world.set_page(0, page, "page");
        world.put(1, page as u64, "row");
    }
    world.checkpoint();
    world.checkpoint();
    world.apply(super::world::Op::Shrink { table: 0, pages: 2 });
    (0..6).for_each(|key| world.delete(1, key));
    for _ in 0..4 {
        world.checkpoint();
    }
    world.check();
    world.check_no_leftovers();
    for engine in &world.engines {
        assert_eq!(engine.snapshot().len(), 1 + 2, "the manifest and two pages");
    }
}

#[test]
fn a_report_says_where_each_store_stands() {
    let world = World::new();
    assert!(matches!(world.pair.state(), [SlotState::Empty, SlotState::Empty]));
    world.checkpoint();
    assert!(matches!(world.pair.state(), [SlotState::Healthy { .. }, SlotState::Empty]));
    assert_eq!(epochs(&world), [Epoch::new(1), Epoch::ZERO]);
}

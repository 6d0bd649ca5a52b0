//! A store refuses a batch.

use super::fakes::{Pairs, TestEngine};
use super::world::{Random, World, copies, dynamic, lost, settled};
use crate::checkpoint::SlotState;
use crate::error::Error;
use crate::table::StoreSlot::{A, B};

/// A world with a checkpoint due that has several batches.
fn busy(seed: u64) -> World {
    let mut world = settled(seed);
    world.apply_random(&mut Random(seed + 7), 100);
    (0..100).for_each(|page| world.set_page(0, page, "a page"));
    world
}

#[test]
fn any_batch_may_fail_and_what_it_had_is_owed_again() {
    for is_applied in [false, true] {
        for batch in 0.. {
            let mut world = busy(1);
            let target = world.pair.target().unwrap();
            world.engines[target as usize].fail_after(batch, is_applied);
            let Err(error) = world.try_checkpoint() else {
                assert!(batch > 4, "{batch} batches");
                break;
            };
            assert!(matches!(error, Error::Store(_)));
            let state = &world.pair.state()[target as usize];
            assert!(matches!(state, SlotState::Failed { .. }));
            assert_eq!(world.pair.target(), None);
            world.check();
            // The process may end before the store has been moved aside …
            world.check_reopen(copies(&world));
            // … or it goes on with a new one.
            world.replace(target);
            world.check();
            world.apply_random(&mut Random(3), 10);
            world.checkpoint();
            world.check();
            world.check_reopen(copies(&world));
        }
    }
}

#[test]
fn a_first_checkpoint_that_fails_costs_nothing() {
    let mut world = World::new();
    world.put(0, 1, "x");
    world.engines[A as usize].fail_after(0, false);
    world.try_checkpoint().unwrap_err();
    world.check();
    world.replace(A);
    world.check();
    world.checkpoint();
    world.checkpoint();
    world.check_reopen(copies(&world));
}

#[test]
fn the_last_copy_of_cold_rows_is_not_replaced() {
    let mut world = World::new();
    world.put(0, 1, "x");
    world.checkpoint();
    world.checkpoint();
    world.replace(B);
    world.pair.fail(A, Error::Store("broken".to_owned()));
    assert_eq!(world.pair.target(), None, "a checkpoint without the row would not be whole");
    world.pair.row(&world.state.cold[0], 1).unwrap_err();
    world.pair.cold_sum(&world.state.cold[0]).unwrap_err();
    let engine = TestEngine::with(Pairs::new());
    world.pair.replace(A, dynamic(&engine)).unwrap_err();
}

#[test]
fn a_cut_whose_turn_has_passed_is_refused_and_owed_again() {
    let mut world = settled(2);
    world.put(0, 1, "x");
    let target = world.pair.target().unwrap();
    let cut = world.cut(target);
    world.pair.fail(target.other(), Error::Store("broken".to_owned()));
    let turn = world.pair.begin_checkpoint(&mut || ());
    world.pair.checkpoint(&turn, cut, &mut |_| ()).unwrap_err();
    drop(turn);
    assert!(matches!(world.pair.state()[target as usize], SlotState::Healthy { .. }));
    world.replace(target.other());
    world.checkpoint();
    world.checkpoint();
    world.check_reopen(copies(&world));
}

#[test]
fn a_store_that_cannot_be_opened_is_no_reason_to_refuse_the_database() {
    let world = settled(3);
    let reopened = world.reopen_with([lost(), lost()], copies(&world));
    reopened.check();
    reopened.checkpoint();
    reopened.check_reopen(copies(&reopened));
}

//! A store refuses a batch.

use super::fakes::{Pairs, TestEngine};
use super::world::{Random, World, copies, dynamic, lost, settled};
use crate::checkpoint::SlotState;
use crate::error::Error;
use crate::table::StoreSlot::{self, A, B};

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

fn full() -> Error {
    Error::DiskFull { action: "write to", path: "a".into() }
}

/// Closes the store that failed and opens it again as it is.
fn readmit(world: &mut World, slot: StoreSlot) -> bool {
    assert!(world.pair.may_readmit(slot));
    let [a, b] = copies(world);
    let engine = if slot == A { a } else { b };
    world.engines[slot as usize] = engine;
    let engine = dynamic(&world.engines[slot as usize]);
    world.pair.readmit(slot, engine, &mut || ()).unwrap()
}

#[test]
fn a_store_that_met_a_full_disk_at_any_batch_goes_on_as_it_was() {
    for is_applied in [false, true] {
        for batch in 0.. {
            let mut world = busy(4);
            let target = world.pair.target().unwrap();
            world.engines[target as usize].fail_after_with(batch, is_applied, full());
            let Err(error) = world.try_checkpoint() else {
                assert!(batch > 4, "{batch} batches");
                break;
            };
            assert!(matches!(error, Error::DiskFull { .. }));
            // Operations go on while it is out of use.
            world.apply_random(&mut Random(8), 20);
            world.check();
            world.check_reopen(copies(&world));
            assert!(readmit(&mut world, target), "it holds");
            assert!(matches!(world.pair.state()[target as usize], SlotState::Healthy { .. }));
            world.check();
            world.check_reopen(copies(&world));
            world.apply_random(&mut Random(3), 10);
            world.checkpoint();
            world.check();
            world.check_reopen(copies(&world));
        }
    }
}

#[test]
fn a_new_store_that_met_a_full_disk_at_any_batch_is_begun_again() {
    for batch in 0.. {
        let mut world = busy(5);
        let target = world.pair.target().unwrap();
        world.replace(target);
        world.engines[target as usize].fail_after_with(batch, batch % 2 == 0, full());
        let Err(error) = world.try_checkpoint() else {
            assert!(batch > 4, "{batch} batches");
            break;
        };
        assert!(matches!(error, Error::DiskFull { .. }));
        assert!(readmit(&mut world, target), "nothing is missing of nothing");
        world.check();
        world.checkpoint();
        world.check();
        world.check_reopen(copies(&world));
    }
}

#[test]
fn a_store_that_does_not_hold_any_more_is_not_readmitted() {
    let emptied = |_: Pairs| Pairs::new();
    let flipped = |mut pairs: Pairs| {
        let (_, value) = pairs.iter_mut().next_back().unwrap();
        *value.last_mut().unwrap() ^= 1;
        pairs
    };
    let damages: [&dyn Fn(Pairs) -> Pairs; 2] = [&emptied, &flipped];
    for damage in damages {
        let mut world = busy(6);
        let target = world.pair.target().unwrap();
        world.engines[target as usize].fail_after_with(2, false, full());
        world.try_checkpoint().unwrap_err();
        let engine = TestEngine::with(damage(world.engines[target as usize].snapshot()));
        assert!(!world.pair.readmit(target, dynamic(&engine), &mut || ()).unwrap());
        assert!(matches!(world.pair.state()[target as usize], SlotState::Failed { .. }));
        assert!(!world.pair.may_readmit(target), "it is not tried again");
        world.replace(target);
        world.checkpoint();
        world.check();
        world.check_reopen(copies(&world));
    }
}

#[test]
fn a_store_that_fell_back_is_not_readmitted() {
    let mut world = busy(7);
    let target = world.pair.target().unwrap();
    let before = TestEngine::with(world.engines[target as usize].snapshot());
    world.checkpoint();
    world.checkpoint();
    world.put(0, 1, "x");
    assert_eq!(world.pair.target(), Some(target));
    world.engines[target as usize].fail_after_with(0, false, full());
    world.try_checkpoint().unwrap_err();
    assert!(!world.pair.readmit(target, dynamic(&before), &mut || ()).unwrap());
    assert!(!world.pair.may_readmit(target));
}

#[test]
fn a_read_that_fails_for_what_is_around_a_store_condemns_none() {
    let too_many = || Error::io("read from", "a".as_ref(), std::io::Error::from_raw_os_error(24));
    let damaged = || Error::corrupt("row 1 of cold table 1", "hash mismatch");
    for (error, is_condemned) in [(too_many(), false), (full(), false), (damaged(), true)] {
        let mut world = World::new();
        world.put(0, 1, "x");
        world.checkpoint();
        world.checkpoint();
        let newest = world.pair.target().unwrap().other();
        world.engines[newest as usize].fail_next_scan(error);
        let row = world.pair.row(&world.state.cold[0], 1).unwrap();
        assert_eq!(row.as_deref(), Some(&b"x"[..]), "the other store has it");
        let is_failed = matches!(world.pair.state()[newest as usize], SlotState::Failed { .. });
        assert_eq!(is_failed, is_condemned);
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

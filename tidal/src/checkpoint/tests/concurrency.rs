//! Readers run beside checkpoints.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use super::world::World;
use crate::checkpoint::ColdSum;
use crate::table::StoreSlot::B;

/// A world whose newest store is B, and the moment in which a reader has looked at B's slot but not
/// yet into the store: then the row becomes "new", and both stores take it.
fn overtaken(is_waiting_before: bool) -> Arc<World> {
    let mut world = World::new();
    world.put(0, 1, "old");
    world.checkpoint();
    world.checkpoint();
    if is_waiting_before {
        world.put(0, 1, "new");
    }
    let world = Arc::new(world);
    let meanwhile = Arc::clone(&world);
    world.engines[B as usize].before_next_scan(move || {
        if !is_waiting_before {
            meanwhile.state.cold[0].put(1, Some(b"new".to_vec()));
        }
        assert_eq!(meanwhile.checkpoint().rows, 1);
        assert_eq!(meanwhile.checkpoint().rows, 1);
    });
    world
}

#[test]
fn a_reader_that_a_checkpoint_overtakes_finds_the_row_that_superseded_the_one_it_looked_for() {
    let world = overtaken(false);
    assert_eq!(world.pair.row(&world.state.cold[0], 1).unwrap().unwrap(), b"new");
}

#[test]
fn a_range_that_a_checkpoint_overtakes_lacks_no_row() {
    for is_waiting_before in [false, true] {
        let world = overtaken(is_waiting_before);
        let found = world.pair.rows_from(&world.state.cold[0], 0, 9).unwrap();
        assert_eq!(found, [(1, b"new".to_vec())]);
    }
}

#[test]
fn a_sum_that_a_checkpoint_overtakes_is_right() {
    let world = overtaken(true);
    let mut expected = ColdSum::default();
    expected.add(1, 1, b"new");
    assert_eq!(world.pair.cold_sum(&world.state.cold[0]).unwrap(), expected);
}

#[test]
fn a_reader_that_looks_between_any_two_batches_of_a_checkpoint_finds_a_row() {
    for stop in 1.. {
        let mut world = World::new();
        world.put(0, 1, "old");
        world.checkpoint();
        world.checkpoint();
        let world = Arc::new(world);
        let meanwhile = Arc::clone(&world);
        let (go_on, wait) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        // The reader has looked at B's slot. Before it looks into the store, A takes a newer row, and
        // then B, up to some batch.
        world.engines[B as usize].before_next_scan(move || {
            meanwhile.state.cold[0].put(1, Some(b"new".to_vec()));
            meanwhile.checkpoint();
            let (stopped, has_stopped) = mpsc::channel();
            let checkpoint = std::thread::spawn(move || {
                let mut batches = 0;
                let mut pace = |_| {
                    batches += 1;
                    if batches == stop {
                        stopped.send(()).expect("the reader waits for it");
                        // Nothing is ever sent: the channel closes when the reader is done.
                        let _ = wait.recv();
                    }
                };
                let turn = meanwhile.pair.begin_checkpoint(&mut || ());
                meanwhile.pair.checkpoint(&turn, meanwhile.cut(B), &mut pace).unwrap();
            });
            tell.send((checkpoint, has_stopped.recv().is_ok())).expect("it is received");
        });
        let found = world.pair.row(&world.state.cold[0], 1).unwrap();
        assert!(found.is_some(), "the row is gone after batch {stop}");
        drop(go_on);
        let (checkpoint, has_stopped) = told.try_recv().expect("the reader has looked into B");
        checkpoint.join().unwrap();
        if !has_stopped {
            assert!(stop > 3, "the row, the manifest, and what they supersede");
            break;
        }
    }
}

#[test]
fn a_reader_never_misses_a_row_while_it_moves_to_the_stores() {
    const KEYS: u64 = 8;
    let world = World::new();
    let table = &world.state.cold[0];
    let newest = AtomicU64::new(0);
    let is_done = AtomicBool::new(false);
    let write = |number: u64| {
        (0..KEYS).for_each(|key| table.put(key, Some(number.to_be_bytes().to_vec())));
        newest.store(number, Ordering::SeqCst);
    };
    write(1);
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (world, newest, is_done) = (&world, &newest, &is_done);
            scope.spawn(move || {
                let mut key = reader;
                while !is_done.load(Ordering::Relaxed) {
                    key = (key + 1) % KEYS;
                    let at_least = newest.load(Ordering::SeqCst);
                    let row = world.pair.row(&world.state.cold[0], key).unwrap();
                    let row = row.unwrap_or_else(|| panic!("row {key} is gone at {at_least}"));
                    let found = u64::from_be_bytes(row.try_into().unwrap());
                    assert!(found >= at_least, "row {key} is {found}, was {at_least} before");
                    let rows = world.pair.rows_from(&world.state.cold[0], 0, 9).unwrap();
                    assert!(rows.iter().map(|&(key, _)| key).eq(0..KEYS), "none is gone");
                    for (key, row) in rows {
                        let now = u64::from_be_bytes(row.try_into().unwrap());
                        assert!(now >= at_least, "row {key} is {now}, was {at_least} before");
                    }
                }
            });
        }
        for number in 2..400 {
            world.checkpoint();
            if number % 3 > 0 {
                world.checkpoint();
            }
            write(number);
        }
        is_done.store(true, Ordering::Relaxed);
    });
}

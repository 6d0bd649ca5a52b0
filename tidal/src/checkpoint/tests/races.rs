//! Readers of cold rows beside checkpoints, under every schedule that shuttle finds.

use std::sync::Arc;

use super::world::World;
use crate::checkpoint::ColdSum;
use crate::sync::{AtomicU64, Ordering, explore, thread};
use crate::table::StoreSlot::{A, B};

const KEY: u64 = 1;

fn bytes_of(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

/// Two checkpoints have the row; the reader starts when it waits for no store.
fn settled() -> Arc<World> {
    let mut world = World::new();
    world.put(0, 0, "another");
    world.checkpoint();
    world.checkpoint();
    world.state.cold[0].put(KEY, Some(bytes_of(1)));
    world.checkpoint();
    world.checkpoint();
    Arc::new(world)
}

#[test]
fn a_reader_finds_every_row_at_every_step_of_a_checkpoint() {
    explore(2_000, || {
        let world = settled();
        let newest = Arc::new(AtomicU64::new(1));
        let (reading, known) = (Arc::clone(&world), Arc::clone(&newest));
        let reader = thread::spawn(move || {
            for _ in 0..3 {
                let at_least = known.load(Ordering::SeqCst);
                let row = reading.pair.row(&reading.state.cold[0], KEY).expect("stores are sound");
                let row = row.unwrap_or_else(|| panic!("the row is gone at {at_least}"));
                let found = u64::from_be_bytes(row.try_into().expect("a number was put"));
                assert!(found >= at_least, "the row is {found}, and was {at_least} before");
            }
        });
        for number in 2..4 {
            world.state.cold[0].put(KEY, Some(bytes_of(number)));
            newest.store(number, Ordering::SeqCst);
            world.checkpoint();
            world.checkpoint();
        }
        reader.join().expect("the reader ends well");
    });
}

#[test]
fn a_sum_of_cold_rows_is_right_at_every_step_of_a_checkpoint() {
    explore(2_000, || {
        let world = settled();
        world.state.cold[0].put(KEY, Some(bytes_of(2)));
        let mut expected = ColdSum::default();
        expected.add(1, 0, b"another");
        expected.add(1, KEY, &bytes_of(2));
        let reading = Arc::clone(&world);
        let reader = thread::spawn(move || {
            // The writer is held off: nothing is put meanwhile.
            for _ in 0..2 {
                let sum = reading.pair.cold_sum(&reading.state.cold[0]).expect("stores are sound");
                assert_eq!(sum, expected);
            }
        });
        world.checkpoint();
        world.checkpoint();
        reader.join().expect("the reader ends well");
    });
}

#[test]
fn who_verifies_and_who_checkpoints_take_turns_and_nobody_waits_for_ever() {
    explore(1_000, || {
        let world = settled();
        let readers = [A, B].map(|slot| {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let found = world.pair.verify(slot).expect("nothing is removed meanwhile");
                assert!(found.is_some(), "both have a checkpoint");
            })
        });
        world.state.cold[0].put(KEY, Some(bytes_of(2)));
        world.checkpoint();
        world.checkpoint();
        readers.into_iter().for_each(|reader| reader.join().expect("the reader ends well"));
    });
}

//! Readers run beside checkpoints.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::world::World;

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

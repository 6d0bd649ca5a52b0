//! Something on disk is not what was written.

use std::sync::Arc;

use super::fakes::{Pairs, TestEngine};
use super::world::{BOTH, DB, Loading, Random, World, copies, dynamic, lost, settled};
use crate::checkpoint::read::read_store;
use crate::checkpoint::{Loader, Manifest, SlotState, StorePair};
use crate::codec;
use crate::error::{Error, Result};
use crate::ids::DatabaseId;
use crate::table::StoreSlot::{self, A, B};
use crate::table::TableId;

/// A store with these pairs must be refused, and the database be whole without it.
fn expect_refused(world: &World, slot: StoreSlot, pairs: Pairs, what: &str) {
    let mut engines = copies(world);
    engines[slot as usize] = TestEngine::with(pairs);
    let found = engines.each_ref().map(|engine| Ok(dynamic(engine)));
    let (pair, loaded) = StorePair::open(DB, found, &mut Loading::default()).unwrap();
    let state = &pair.state()[slot as usize];
    assert!(
        matches!(state, SlotState::Failed { reason: Error::Corrupt { .. } }),
        "{what}: {state:?}"
    );
    assert_eq!(loaded.expect("the other store holds").slot, slot.other(), "{what}");
    assert!(!matches!(pair.state()[slot.other() as usize], SlotState::Failed { .. }), "{what}");
    world.reopen(engines).check();
}

#[test]
fn every_flipped_bit_of_every_value_is_found() {
    let world = settled(1);
    for slot in BOTH {
        let intact = world.engines[slot as usize].snapshot();
        for (key, value) in &intact {
            for bit in 0..value.len() * 8 {
                let mut pairs = intact.clone();
                pairs.get_mut(key).unwrap()[bit / 8] ^= 1 << (bit % 8);
                let error = read_store(TestEngine::with(pairs).as_ref(), &DB).unwrap_err();
                assert!(matches!(error, Error::Corrupt { .. }), "{key:?} bit {bit}: {error}");
            }
            let mut pairs = intact.clone();
            pairs.get_mut(key).unwrap()[9] ^= 4;
            expect_refused(&world, slot, pairs, &format!("a flipped bit under {key:?}"));
        }
    }
}

#[test]
fn every_truncation_removal_and_swap_of_values_is_found() {
    let world = settled(2);
    for slot in BOTH {
        let intact = world.engines[slot as usize].snapshot();
        for (key, value) in &intact {
            for len in 0..value.len() {
                let mut pairs = intact.clone();
                pairs.get_mut(key).unwrap().truncate(len);
                read_store(TestEngine::with(pairs).as_ref(), &DB).unwrap_err();
            }
            for (other, other_value) in intact.iter().filter(|(other, _)| *other != key) {
                let mut pairs = intact.clone();
                pairs.insert(key.clone(), other_value.clone());
                pairs.insert(other.clone(), value.clone());
                read_store(TestEngine::with(pairs).as_ref(), &DB).unwrap_err();
            }
        }
    }
}

#[test]
fn every_pair_that_is_gone_is_missed() {
    let mut deletions = 0;
    for seed in 1..6 {
        let world = settled(seed);
        for slot in BOTH {
            let intact = world.engines[slot as usize].snapshot();
            let image = read_store(&*world.engines[slot as usize], &DB).unwrap().unwrap();
            deletions += image.tombstones.len();
            for key in intact.keys() {
                let mut pairs = intact.clone();
                pairs.remove(key);
                match key[0] {
                    // Without its manifest a store is a new one.
                    1 => assert!(
                        read_store(TestEngine::with(pairs).as_ref(), &DB).unwrap().is_none()
                    ),
                    _ => expect_refused(&world, slot, pairs, &format!("{key:?} removed")),
                }
            }
        }
    }
    assert!(deletions > 0, "a deletion that is still remembered was among them");
}

/// Both stores' pairs before and after one more checkpoint of each, after each of these changed.
fn before_and_after(change: impl Fn(&mut World)) -> (World, [Pairs; 2]) {
    let mut world = World::new();
    for page in 0..3 {
        world.set_page(0, page, "old page");
        world.put(0, page as u64, "old row");
    }
    world.checkpoint();
    world.checkpoint();
    let before = world.engines.each_ref().map(|engine| engine.snapshot());
    change(&mut world);
    world.checkpoint();
    world.checkpoint();
    (world, before)
}

#[test]
fn a_stale_page_or_row_in_the_place_of_the_current_one_is_found() {
    let (world, before) = before_and_after(|world| {
        world.set_page(0, 1, "new page");
        world.put(0, 1, "new row");
    });
    for slot in BOTH {
        let after = world.engines[slot as usize].snapshot();
        for tag in [2, 3] {
            let fresh: Vec<_> = after
                .keys()
                .filter(|key| key[0] == tag && !before[slot as usize].contains_key(*key))
                .collect();
            let stale: Vec<_> = before[slot as usize]
                .iter()
                .filter(|(key, _)| key[0] == tag && !after.contains_key(*key))
                .collect();
            assert_eq!((fresh.len(), stale.len()), (1, 1));
            let mut pairs = after.clone();
            pairs.remove(fresh[0]);
            pairs.insert(stale[0].0.clone(), stale[0].1.clone());
            expect_refused(&world, slot, pairs, "the old version instead of the new one");
        }
    }
}

#[test]
fn a_deleted_row_that_is_back_is_found() {
    let (world, before) = before_and_after(|world| world.delete(0, 1));
    world.checkpoint();
    world.checkpoint();
    for slot in BOTH {
        let mut pairs = world.engines[slot as usize].snapshot();
        let gone = before[slot as usize]
            .iter()
            .find(|(key, _)| key[0] == 3 && !pairs.contains_key(*key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .unwrap();
        pairs.insert(gone.0, gone.1);
        expect_refused(&world, slot, pairs, "a deleted row is back");
    }
}

#[test]
fn pages_of_another_database_are_refused() {
    let world = settled(4);
    let engines = copies(&world).map(|engine| Ok(dynamic(&engine)));
    let other = DatabaseId::new([8; 16]);
    let (pair, loaded) = StorePair::open(other, engines, &mut Loading::default()).unwrap();
    assert!(loaded.is_none());
    assert!(pair.state().iter().all(|state| matches!(state, SlotState::Failed { .. })));
    assert_eq!(pair.target(), None);
}

#[test]
fn a_store_that_went_back_in_time_is_refused_though_it_holds() {
    let mut world = settled(6);
    let mut random = Random(66);
    for _ in 0..2 {
        let old = world.engines.each_ref().map(|engine| engine.snapshot());
        for _ in 0..2 {
            world.apply_random(&mut random, 10);
            world.checkpoint();
        }
        let newest = world.pair.target().unwrap().other();
        let older = newest.other();
        let back = old[older as usize].clone();
        read_store(TestEngine::with(back.clone()).as_ref(), &DB).unwrap().unwrap();
        expect_refused(&world, older, back, "an old copy");
        world.apply_random(&mut random, 10);
        world.checkpoint();
    }
}

#[test]
fn either_store_can_be_lost_whole() {
    for seed in 1..20 {
        for slot in BOTH {
            let world = settled(seed);
            let kept = copies(&world);
            let mut found = kept.each_ref().map(|engine| Ok(dynamic(engine)));
            found[slot as usize] = lost();
            let reopened = world.reopen_with(found, kept);
            reopened.check();
            assert_eq!(reopened.pair.target(), Some(slot));
            assert_eq!(reopened.pair.truncatable().get(), 0);
            reopened.checkpoint();
            assert!(reopened.pair.truncatable().get() > 0);
            reopened.check_reopen(copies(&reopened));
            let mut emptied = copies(&world);
            emptied[slot as usize] = TestEngine::with(Pairs::new());
            world.check_reopen(emptied);
        }
    }
}

#[test]
fn a_row_that_rots_while_the_database_runs_is_read_from_the_other_store() {
    let mut world = World::new();
    world.put(0, 1, "x");
    world.put(0, 2, "y");
    world.checkpoint();
    world.checkpoint();
    let engine = Arc::clone(&world.engines[B as usize]);
    let mut pairs = engine.snapshot();
    pairs.iter_mut().filter(|(key, _)| key[0] == 3).for_each(|(_, value)| value[13] ^= 1);
    *engine.pairs.lock() = Arc::new(pairs);
    world.check();
    assert!(matches!(world.pair.state(), [SlotState::Healthy { .. }, SlotState::Failed { .. }]));
    assert_eq!(world.pair.target(), None, "the failed one is replaced first");
    world.replace(B);
    assert_eq!(world.checkpoint().rows, 2);
    world.check_reopen(copies(&world));
}

#[test]
fn a_row_that_rots_in_the_only_store_is_an_error_and_the_store_stays() {
    let mut world = World::new();
    world.put(0, 1, "x");
    world.put(0, 2, "y");
    world.checkpoint();
    world.checkpoint();
    world.replace(B);
    let engine = Arc::clone(&world.engines[A as usize]);
    let mut pairs = engine.snapshot();
    pairs.iter_mut().find(|(key, _)| key[0] == 3).unwrap().1[13] ^= 1;
    *engine.pairs.lock() = Arc::new(pairs);
    world.pair.row(&world.state.cold[0], 1).unwrap_err();
    assert_eq!(world.pair.row(&world.state.cold[0], 2).unwrap().unwrap(), b"y");
    assert!(matches!(world.try_checkpoint(), Err(Error::Corrupt { .. })));
    assert!(matches!(world.pair.state(), [SlotState::Healthy { .. }, SlotState::Empty]));
}

#[test]
fn a_later_format_is_refused_and_no_store_is_blamed() {
    let world = settled(7);
    let engines = copies(&world);
    let mut pairs = engines[A as usize].snapshot();
    let (key, value) = pairs.iter_mut().find(|(key, _)| key[0] == 1).unwrap();
    *value = codec::seal(codec::Kind::Manifest, 2, &[DB.as_bytes(), key], b"later").0;
    let found = [TestEngine::with(pairs), Arc::clone(&engines[B as usize])];
    let found = found.map(|engine| Ok(dynamic(&engine)));
    let refused = StorePair::open(DB, found, &mut Loading::default());
    assert!(matches!(refused, Err(Error::FormatTooNew { .. })));
}

/// A state that does not want what it is given.
struct Refusing(Error);

impl Loader for Refusing {
    fn begin(&mut self, _: &Manifest) -> Result<()> {
        Err(self.0.clone())
    }

    fn page(&mut self, _: TableId, _: u32, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn owed_row(&mut self, _: u8, _: u64, _: Option<&[u8]>) -> Result<()> {
        Ok(())
    }
}

#[test]
fn what_the_state_refuses_is_a_stores_fault_only_if_it_is_damage() {
    let world = settled(7);
    let open = |error| {
        let found = copies(&world).map(|engine| Ok(dynamic(&engine)));
        StorePair::open(DB, found, &mut Refusing(error))
    };
    assert!(matches!(
        open(Error::invalid("schema", "differs")),
        Err(Error::InvalidArgument { .. })
    ));
    let (pair, loaded) = open(Error::corrupt("a page", "is malformed")).unwrap();
    assert!(loaded.is_none());
    assert!(pair.state().iter().all(|state| matches!(state, SlotState::Failed { .. })));
}

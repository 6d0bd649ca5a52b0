//! Lists against plain vectors, through splits, merges and restores; and pages that contradict
//! themselves.

use proptest::prelude::*;

use super::chunk::{CHUNK_LEN_MAX, ChunkKey, ChunkRow};
use super::{Collections, Standing};
use crate::codec::{DecodeError, Hash, Hasher, Purpose, Put};
use crate::error::Error;
use crate::ids::{CollectionId, EntityId, Timestamp, UserId};
use crate::record::{CollectionEdit, Edit, NewCollection, Visibility, put_items};
use crate::table::{PageImage, StateTable, StoreSlot, TableCut};

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const ID: CollectionId = CollectionId::new(2);
const OTHER: CollectionId = CollectionId::new(3);
const OWNER: UserId = UserId::new(42);
const ITEMS_MAX: u64 = 600;

fn items(numbers: impl IntoIterator<Item = u64>) -> Vec<EntityId> {
    numbers.into_iter().map(EntityId::new).collect()
}

/// Two collections of one owner.
fn two() -> Collections {
    let collections = Collections::new();
    for (id, visibility) in [(ID, Visibility::Private), (OTHER, Visibility::Public)] {
        let new = NewCollection { owner: OWNER, name: "songs", visibility, owned_max: 2 };
        collections.create(id, &new, NOW).expect("there is room");
    }
    collections
}

fn apply(collections: &Collections, edit: Edit<'_>) -> Result<Option<Standing>, Error> {
    let edit = CollectionEdit { collection: ID, expected_version: None, edit, signals: None };
    Ok(match collections.decide(&edit)? {
        Some(_) => None,
        None => Some(collections.carry_out(&edit, NOW)),
    })
}

fn all(collections: &Collections, id: CollectionId) -> Vec<EntityId> {
    collections.items(id, Some(OWNER), 0, usize::MAX).expect("it is there").items
}

fn assert_sound(collections: &Collections) {
    let tables = collections.tables();
    assert_eq!(collections.check(), Ok(()));
    tables.iter().for_each(|table| assert_eq!(table.check(), Ok(())));
    collections.check_restored(1_000_000).expect("both tables go together");
}

fn digest(collections: &Collections) -> Hash {
    let mut digest = Hasher::new(Purpose::Digest);
    collections.tables().iter().for_each(|table| table.digest(NOW, &mut digest));
    digest.finish()
}

/// What a checkpoint holds of a table.
type Image = (TableCut, Vec<PageImage>);

fn image_of(table: &dyn StateTable, store: StoreSlot) -> Image {
    let cut = table.begin_cut(store);
    let mut pages = Vec::new();
    while table.take_pages(5, &mut pages) {}
    table.end_cut(store, true);
    (cut, pages)
}

fn restored(images: &[Image]) -> Result<Collections, DecodeError> {
    let collections = Collections::new();
    for (table, (cut, pages)) in collections.tables().iter().zip(images) {
        table.begin_restore(*cut)?;
        pages.iter().try_for_each(|image| table.restore_page(image.page, &image.bytes))?;
        table.end_restore(cut.rows, [false; 2])?;
    }
    collections.check_restored(1_000_000)?;
    Ok(collections)
}

/// An edit in parts of what there is, so that all of them hit something.
fn edit() -> impl Strategy<Value = Edit<'static>> {
    let item = || (0u64..700).prop_map(EntityId::new);
    prop_oneof![
        4 => item().prop_map(|item| Edit::Append { item, items_max: ITEMS_MAX }),
        4 => (item(), 0u64..500)
            .prop_map(|(item, at)| Edit::Insert { item, at, items_max: ITEMS_MAX }),
        8 => item().prop_map(Edit::Remove),
        4 => (0u64..400, 0u64..200, 0u64..400)
            .prop_map(|(from, count, to)| Edit::Move { from, count, to }),
        1 => (0u64..700, 0u64..700).prop_map(|(first, len)| Edit::Replace {
            // A stride that is coprime to their number, so that neighbours are no neighbours.
            items: items((0..len).map(|n| (first + n * 271) % 700)),
            items_max: ITEMS_MAX,
        }),
    ]
}

/// What an edit does to a vector; `None` when it is refused.
fn apply_plainly(list: &mut Vec<EntityId>, edit: &Edit<'_>) -> Option<()> {
    let len = list.len();
    match edit {
        Edit::Append { item, .. } | Edit::Insert { item, .. } if list.contains(item) => {}
        Edit::Append { item, .. } => {
            (len < ITEMS_MAX as usize).then(|| list.push(*item))?;
        }
        Edit::Insert { item, at, .. } => {
            let at = *at as usize;
            (at <= len && len < ITEMS_MAX as usize).then(|| list.insert(at, *item))?;
        }
        Edit::Remove(item) => list.retain(|other| other != item),
        Edit::Move { from, count, to } => {
            let [from, count, to] = [*from, *count, *to].map(|number| number as usize);
            if from + count > len || to + count > len {
                return None;
            }
            let moved: Vec<EntityId> = list.drain(from..from + count).collect();
            list.splice(to..to, moved);
        }
        Edit::Replace { items, .. } => {
            (items.len() <= ITEMS_MAX as usize).then(|| list.clone_from(items))?;
        }
        Edit::Rename(_) | Edit::SetVisibility(_) => {}
    }
    Some(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_collection_is_a_list_without_repetitions(edits in prop::collection::vec(edit(), 1..120), first in 0u64..600) {
        let collections = two();
        let mut plain = items(0..first);
        let begun = Edit::Replace { items: plain.clone(), items_max: ITEMS_MAX };
        apply(&collections, begun).expect("it fits");
        for edit in edits {
            let before = (plain.clone(), collections.info(ID, Some(OWNER)).expect("it is there"));
            let accepted = apply_plainly(&mut plain, &edit);
            let outcome = apply(&collections, edit.clone());
            prop_assert_eq!(outcome.is_ok(), accepted.is_some(), "{:?}", edit);
            let info = collections.info(ID, Some(OWNER)).expect("it is there");
            let has_changed = before.0 != plain;
            prop_assert_eq!(info.version, before.1.version + u64::from(has_changed));
            prop_assert_eq!(info.item_count, plain.len() as u64);
            if let Ok(standing) = outcome {
                prop_assert_eq!(standing.is_some(), has_changed);
            }
            prop_assert_eq!(all(&collections, ID), plain.clone());
            assert_sound(&collections);
        }
        for item in items(0..700) {
            let has = collections.contains(ID, Some(OWNER), item).expect("it is there");
            prop_assert_eq!(has, plain.contains(&item));
        }
    }

    #[test]
    fn a_checkpoint_is_what_was_there_and_how_it_was_reached_does_not_show(edits in prop::collection::vec(edit(), 1..60), first in 0u64..600) {
        let collections = two();
        let begun = Edit::Replace { items: items(0..first), items_max: ITEMS_MAX };
        apply(&collections, begun).expect("it fits");
        edits.into_iter().for_each(|edit| drop(apply(&collections, edit)));
        let images = collections.tables().map(|table| image_of(&*table, StoreSlot::A));
        let restored = restored(&images).expect("sound pages");
        assert_sound(&restored);
        prop_assert_eq!(digest(&restored), digest(&collections));
        prop_assert_eq!(all(&restored, ID), all(&collections, ID));
        // The same items, put there at once, lie in other chunks.
        let anew = two();
        let there = all(&collections, ID);
        apply(&anew, Edit::Replace { items: there, items_max: ITEMS_MAX }).expect("it fits");
        let of_items = |collections: &Collections| {
            let mut digest = Hasher::new(Purpose::Digest);
            collections.chunks().digest(NOW, &mut digest);
            digest.finish()
        };
        prop_assert_eq!(of_items(&anew), of_items(&collections));
    }

    #[test]
    fn pages_of_a_list_are_the_list(count in 0u64..400, limit in 1usize..90) {
        let collections = two();
        let whole = items((0..count).map(|number| number * 3));
        let begun = Edit::Replace { items: whole.clone(), items_max: ITEMS_MAX };
        apply(&collections, begun).expect("it fits");
        let (mut read, mut from) = (Vec::new(), Some(0));
        while let Some(position) = from {
            let page = collections.items(ID, Some(OWNER), position, limit).expect("it is there");
            prop_assert!(page.items.len() == limit || page.next.is_none());
            prop_assert_eq!(page.item_count, count);
            read.extend(page.items);
            from = page.next;
        }
        prop_assert_eq!(read, whole);
        let beyond = collections.items(ID, Some(OWNER), u64::MAX, 9).expect("it is there");
        prop_assert!(beyond.items.is_empty() && beyond.next.is_none());
    }
}

#[test]
fn a_change_of_a_large_collection_dirties_one_row_and_two_pages_of_chunks_at_the_most() {
    const LARGE: u64 = 100_000;
    let collections = two();
    let whole = items((0..LARGE).map(|number| number * 7));
    let begun = Edit::Replace { items: whole, items_max: u64::MAX };
    apply(&collections, begun).expect("it fits");
    let drain = || collections.tables().map(|table| image_of(&*table, StoreSlot::A).0.owed);
    let [_, chunks] = drain();
    assert_eq!(u64::from(chunks), LARGE.div_ceil(CHUNK_LEN_MAX as u64 * 64));
    let edits = |n: u64| {
        let item = EntityId::new(n * 7 + 1);
        [
            Edit::Append { item, items_max: u64::MAX },
            Edit::Insert { item: EntityId::new(n * 7 + 2), at: n * 731, items_max: u64::MAX },
            Edit::Remove(EntityId::new(n * 7 * 600)),
        ]
    };
    for edit in (0..130).flat_map(edits) {
        assert!(apply(&collections, edit.clone()).expect("accepted").is_some(), "{edit:?}");
        let [rows, chunks] = drain();
        assert!(rows == 1 && chunks <= 2, "{rows} and {chunks} pages for {edit:?}");
    }
    for n in 1..60 {
        let edit = Edit::Move { from: 90_000 - n * 11, count: 5_000, to: n * 701 };
        assert!(apply(&collections, edit).expect("accepted").is_some());
        let [rows, chunks] = drain();
        assert!(rows == 1 && chunks <= 9, "{rows} and {chunks} pages for a range");
    }
    assert_sound(&collections);
}

#[test]
fn an_index_takes_little_memory_beside_the_items() {
    const LARGE: u64 = 100_000;
    let collections = two();
    let begun = Edit::Replace { items: items(0..LARGE), items_max: u64::MAX };
    apply(&collections, begun).expect("it fits");
    let each = collections.chunks().size().size_bytes as f64 / LARGE as f64;
    assert!(each < 24.0, "{each} bytes an item");
}

#[test]
fn owners_have_as_many_collections_as_the_record_says_and_find_them_in_order() {
    let collections = two();
    let new = NewCollection {
        owner: OWNER,
        name: "one more",
        visibility: Visibility::Unlisted,
        owned_max: 2,
    };
    let id = CollectionId::new(9);
    let refused = collections.create(id, &new, NOW);
    assert!(matches!(refused, Err(Error::TooLarge { size: 3, limit: 2, .. })), "{refused:?}");
    collections.create(id, &NewCollection { owned_max: 3, ..new }, NOW).expect("there is room");
    let ids = |viewer, after, limit| -> Vec<CollectionId> {
        let infos = collections.of_owner(OWNER, viewer, after, limit);
        infos.into_iter().map(|info| info.id).collect()
    };
    assert_eq!(ids(Some(OWNER), None, 9), [ID, OTHER, id]);
    assert_eq!(ids(Some(OWNER), Some(ID), 1), [OTHER]);
    assert_eq!(ids(Some(OWNER), Some(CollectionId::new(u64::MAX)), 9), []);
    assert_eq!(ids(Some(UserId::new(7)), None, 9), [OTHER]);
    assert_eq!(ids(None, None, 9), [OTHER]);
    collections.delete(OTHER).expect("it is there");
    assert_eq!(ids(Some(OWNER), None, 9), [ID, id]);
    assert!(matches!(collections.delete(OTHER), Err(Error::CollectionNotFound(OTHER))));
    assert_sound(&collections);
}

#[test]
fn a_private_collection_and_one_that_does_not_exist_are_the_same_to_others() {
    let collections = two();
    let stranger = Some(UserId::new(7));
    for viewer in [stranger, None] {
        let private = collections.info(ID, viewer).expect_err("it is private").to_string();
        collections.delete(CollectionId::new(8)).expect_err("there is none");
        let missing = collections.info(CollectionId::new(8), viewer).expect_err("there is none");
        assert_eq!(private, missing.to_string().replace('8', "2"));
        collections.items(ID, viewer, 0, 1).expect_err("it is private");
        collections.contains(ID, viewer, EntityId::new(1)).expect_err("it is private");
        collections.info(OTHER, viewer).expect("it is public");
    }
}

/// A chunk of a page: number, next, items.
type Chunk<'a> = (u32, u32, &'a [u64]);

fn chunks_page(chunks: &[Chunk<'_>]) -> Vec<u8> {
    let mut page = Vec::new();
    page.put_u64((1 << chunks.len()) - 1);
    for &(number, next, numbers) in chunks {
        page.put_varint(ID.get());
        page.put_varint(u64::from(number));
        page.put_varint(u64::from(next));
        put_items(&mut page, &items(numbers.iter().copied()));
    }
    page
}

fn restore_chunks(counted: u64, chunks: &[Chunk<'_>]) -> Result<(), DecodeError> {
    let donor = two();
    let slot = donor.rows.read().find(&ID).expect("it is there");
    donor.rows.write().row_mut(slot).0.item_count = counted;
    let rows = image_of(&*donor.rows(), StoreSlot::A);
    let cut = TableCut { rows: chunks.len() as u64, pages: 1, owed: 1 };
    let pages = vec![PageImage { page: 0, bytes: chunks_page(chunks) }];
    restored(&[rows, (cut, pages)]).map(|collections| assert_sound(&collections))
}

#[test]
fn chunks_that_make_no_list_are_refused() {
    let many: Vec<u64> = (100..130).collect();
    let too_many: Vec<u64> = (100..165).collect();
    assert_eq!(restore_chunks(33, &[(4, 0, &[1, 2, 3]), (7, 4, &many)]), Ok(()));
    assert_eq!(restore_chunks(3, &[(u32::MAX, 0, &[1, 2, 3])]), Ok(()));
    let bad: [(&str, u64, &[Chunk<'_>]); 11] = [
        ("an empty chunk", 0, &[(1, 0, &[])]),
        ("one that is too long", 65, &[(1, 0, &too_many)]),
        ("the number of the end", 1, &[(0, 0, &[1])]),
        ("a next that is nowhere", 33, &[(1, 3, &[1, 2, 3]), (2, 0, &many)]),
        ("two ends", 33, &[(1, 0, &[1, 2, 3]), (2, 0, &many)]),
        ("a ring", 33, &[(1, 2, &[1, 2, 3]), (2, 1, &many)]),
        ("one that follows itself", 33, &[(1, 1, &[1, 2, 3]), (2, 0, &many)]),
        ("an item twice in a chunk", 3, &[(1, 0, &[1, 2, 1])]),
        ("an item in two chunks", 33, &[(1, 2, &[1, 2, 100]), (2, 0, &many)]),
        ("neighbours that should be one", 2, &[(1, 2, &[1]), (2, 0, &[2])]),
        ("another count than its row says", 4, &[(1, 0, &[1, 2, 3])]),
    ];
    for (what, counted, chunks) in bad {
        assert!(restore_chunks(counted, chunks).is_err(), "{what}");
    }
    let nobodys = two();
    let key = ChunkKey { collection: CollectionId::new(77), number: 1 };
    nobodys.chunks.write().insert_new(ChunkRow { key, next: 0, items: items([1]) });
    let images = nobodys.tables().map(|table| image_of(&*table, StoreSlot::A));
    assert!(restored(&images).is_err(), "chunks of a collection that does not exist");
}

#[test]
fn collections_from_operations_that_never_were_are_refused() {
    let collections = two();
    collections.check_restored(3).expect("the third operation made the last one");
    assert!(collections.check_restored(2).is_err());
    let rename = |n: u64| {
        let name = n.to_string();
        let edit = Edit::Rename(&name);
        apply(&collections, edit).map(drop)
    };
    (0..3).try_for_each(rename).expect("it is there");
    assert!(collections.check_restored(3).is_err(), "four versions of three operations");
    collections.check_restored(4).expect("sound");
}

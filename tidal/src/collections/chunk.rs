//! The items of collections, in chunks.
//!
//! Knows: which chunks a collection has, in which order, and that they come back so. Must not know:
//! owners, names, versions; how a list is changed (`list.rs`).
//!
//! A chunk is up to 64 consecutive items of one collection. Each names the one that follows it, so a
//! chunk is put between two others, or taken away, by changing one neighbour, and no other chunk is
//! ever renumbered. A row in a page:
//!
//! ```text
//! collection varint | number varint, from 1 | number of the next chunk varint, 0 at the end
//! | items: count varint | each as a zig-zag varint, after the one before it
//! ```
//!
//! Invariants: the chunks of a collection make one line; none is empty; two neighbours have more than
//! half of what one can hold; no item is in a collection twice.

use std::collections::HashMap;

use smallvec::SmallVec;

use super::members::Members;
use crate::codec::{DecodeError, Hasher, Put, Reader};
use crate::ids::{CollectionId, EntityId, Timestamp};
use crate::record::{are_distinct, put_items, read_items};
use crate::sync::{RwLockReadGuard, RwLockWriteGuard};
use crate::table::{
    DurableTable, PageImage, Row, Slab, Slot, StateTable, StoreSlot, Table, TableCut, TableId,
    TableSize, hash_u64,
};

/// Items of a chunk. A change writes one or two chunks: fewer items make it cheaper, and a list of
/// so many chunks dearer to walk.
pub(super) const CHUNK_LEN_MAX: usize = 64;

/// Neighbours that have so many items together, or fewer, become one chunk.
pub(super) const MERGED_LEN_MAX: usize = CHUNK_LEN_MAX / 2;

/// No chunk follows.
pub(super) const END: u32 = 0;

/// A chunk, by its collection and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ChunkKey {
    pub(super) collection: CollectionId,
    /// From 1; says nothing of the order.
    pub(super) number: u32,
}

#[derive(Debug)]
pub(super) struct ChunkRow {
    pub(super) key: ChunkKey,
    /// The number of the chunk that follows, or [`END`].
    pub(super) next: u32,
    /// Never empty.
    pub(super) items: Vec<EntityId>,
}

impl Row for ChunkRow {
    type Key = ChunkKey;
    type Side = Lists;

    fn key(&self) -> &ChunkKey {
        &self.key
    }

    fn hash(key: &ChunkKey) -> u64 {
        hash_u64(key.collection.get() ^ u64::from(key.number).rotate_left(32))
    }

    fn encode(&self, _: Slot, _: &Lists, out: &mut Vec<u8>) {
        out.put_varint(self.key.collection.get());
        out.put_varint(u64::from(self.key.number));
        out.put_varint(u64::from(self.next));
        put_items(out, &self.items);
    }

    fn decode(_: Slot, reader: &mut Reader<'_>, _: &mut Lists) -> Result<Self, DecodeError> {
        let collection = CollectionId::new(reader.varint()?);
        let mut number = || {
            let number = reader.varint()?;
            u32::try_from(number).map_err(|_| DecodeError::Malformed("a chunk beyond 32 bits"))
        };
        let (number, next) = (number()?, number()?);
        let items = read_items(reader)?;
        if number == END || items.is_empty() || items.len() > CHUNK_LEN_MAX {
            return Err(DecodeError::Malformed("a chunk that no list has"));
        }
        Ok(Self { key: ChunkKey { collection, number }, next, items })
    }

    fn rebuild(slab: &mut Slab<Self>) -> Result<(), DecodeError> {
        let lists = Lists::of_rows(slab)?;
        *slab.side_mut() = lists;
        Ok(())
    }

    fn heap_size_bytes(&self) -> usize {
        self.items.capacity() * size_of::<EntityId>()
    }

    fn side_size_bytes(side: &Lists) -> usize {
        let lists: usize = side.0.values().map(List::heap_size_bytes).sum();
        // The map has a byte beside each entry, and is seven eighths full at the most.
        side.0.capacity() * 8 / 7 * (size_of::<(CollectionId, List)>() + 1) + lists
    }
}

/// A chunk in the order of its collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) slot: Slot,
    pub(super) number: u32,
    pub(super) len: u32,
}

/// The chunks of a collection in their order, and where each item is; derived from the rows.
#[derive(Debug, Default)]
pub(super) struct List {
    pub(super) links: SmallVec<[Link; 1]>,
    /// Only where there are several chunks: a single one is searched.
    pub(super) members: Option<Box<Members>>,
}

impl List {
    pub(super) fn len(&self) -> usize {
        self.links.iter().map(|link| link.len as usize).sum()
    }

    /// The chunk that an item is in.
    pub(super) fn find(&self, slab: &Slab<ChunkRow>, item: EntityId) -> Option<Slot> {
        let has = |slot: Slot| slab.row(slot).items.contains(&item);
        match &self.members {
            Some(members) => members.find(item, has),
            None => self.links.iter().map(|link| link.slot).find(|&slot| has(slot)),
        }
    }

    /// Up to `limit` items from a position on.
    pub(super) fn items(&self, slab: &Slab<ChunkRow>, from: usize, limit: usize) -> Vec<EntityId> {
        let mut items = Vec::with_capacity(limit.min(self.links.len() * CHUNK_LEN_MAX));
        let mut left_out = from;
        for link in &self.links {
            let (len, wanted) = (link.len as usize, limit - items.len());
            if wanted == 0 {
                break;
            }
            // Chunks before the first item are passed by their lengths alone.
            if left_out >= len {
                left_out -= len;
                continue;
            }
            let chunk = &slab.row(link.slot).items[left_out..];
            items.extend_from_slice(&chunk[..wanted.min(chunk.len())]);
            left_out = 0;
        }
        items
    }

    /// Makes or drops the index of items, as the number of chunks asks for it.
    pub(super) fn index(&mut self, slab: &Slab<ChunkRow>) {
        if self.links.len() <= 1 {
            self.members = None;
        } else if self.members.is_none() {
            let mut members = Members::with_capacity(self.len());
            for link in &self.links {
                let items = slab.row(link.slot).items.iter();
                items.for_each(|&item| members.insert(item, link.slot));
            }
            self.members = Some(Box::new(members));
        }
    }

    /// Whether no two neighbours should be one chunk.
    fn is_dense(&self) -> bool {
        let mut pairs = self.links.windows(2);
        pairs.all(|pair| (pair[0].len + pair[1].len) as usize > MERGED_LEN_MAX)
    }

    fn heap_size_bytes(&self) -> usize {
        let links = if self.links.spilled() { self.links.capacity() } else { 0 };
        let members = self.members.as_ref().map_or(0, |members| members.size_bytes());
        links * size_of::<Link>() + members
    }
}

/// The lists of all collections that have items.
#[derive(Debug, Default)]
pub(super) struct Lists(HashMap<CollectionId, List>);

impl Lists {
    pub(super) fn get(&self, collection: CollectionId) -> Option<&List> {
        self.0.get(&collection)
    }

    /// Takes a list out, to be changed and put back; an empty one where there is none.
    pub(super) fn take(&mut self, collection: CollectionId) -> List {
        self.0.remove(&collection).unwrap_or_default()
    }

    pub(super) fn put(&mut self, collection: CollectionId, list: List) {
        if !list.links.is_empty() {
            self.0.insert(collection, list);
        }
    }

    /// Every collection that has items, in ascending order.
    pub(super) fn collections(&self) -> Vec<CollectionId> {
        let mut collections: Vec<CollectionId> = self.0.keys().copied().collect();
        collections.sort_unstable();
        collections
    }

    fn of_rows(slab: &Slab<ChunkRow>) -> Result<Self, DecodeError> {
        let mut chunks: Vec<(ChunkKey, u32, Link)> = slab
            .iter()
            .map(|(slot, row)| {
                let link = Link { slot, number: row.key.number, len: row.items.len() as u32 };
                (row.key, row.next, link)
            })
            .collect();
        chunks.sort_unstable_by_key(|&(key, ..)| key);
        let mut lists = HashMap::new();
        for chunks in chunks.chunk_by(|(left, ..), (right, ..)| left.collection == right.collection)
        {
            let links = in_order(chunks)
                .ok_or(DecodeError::Malformed("chunks of a collection that are in no order"))?;
            let mut list = List { links, members: None };
            if !list.is_dense() {
                return Err(DecodeError::Malformed("chunks that should be one"));
            }
            if !are_distinct(&list.items(slab, 0, usize::MAX)) {
                return Err(DecodeError::Malformed("an item twice in a collection"));
            }
            list.index(slab);
            lists.insert(chunks[0].0.collection, list);
        }
        Ok(Self(lists))
    }

    /// Compares with what follows from the rows.
    pub(super) fn check(slab: &Slab<ChunkRow>) -> Result<(), String> {
        let rebuilt = Self::of_rows(slab).map_err(|broken| broken.to_string())?;
        let kept = slab.side();
        if rebuilt.0.len() != kept.0.len() {
            return Err("a list without chunks, or chunks without a list".to_owned());
        }
        for (collection, expected) in &rebuilt.0 {
            let list = kept.get(*collection);
            let Some(list) = list.filter(|list| list.links == expected.links) else {
                return Err(format!("the chunks of collection {collection} are in another order"));
            };
            let has_all = expected.links.iter().all(|link| {
                let items = &slab.row(link.slot).items;
                items.iter().all(|&item| list.find(slab, item) == Some(link.slot))
            });
            let count = |list: &List| list.members.as_ref().map(|members| members.len());
            if !has_all || count(list) != count(expected) {
                return Err(format!("collection {collection} does not find its items"));
            }
        }
        Ok(())
    }
}

/// The chunks of one collection, given by ascending number, in the order in which they name each
/// other; `None` when they do not make one line.
fn in_order(chunks: &[(ChunkKey, u32, Link)]) -> Option<SmallVec<[Link; 1]>> {
    let find = |number: u32| chunks.binary_search_by_key(&number, |(key, ..)| key.number).ok();
    let mut is_named = vec![false; chunks.len()];
    for &(_, next, _) in chunks.iter().filter(|&&(_, next, _)| next != END) {
        if std::mem::replace(&mut is_named[find(next)?], true) {
            return None;
        }
    }
    // Where no chunk is named twice and each name is one of theirs, a walk from a chunk that nobody
    // names comes to an end, and has seen all of them unless others go round in a ring.
    let mut at = is_named.iter().position(|is_named| !is_named)?;
    let mut links = SmallVec::with_capacity(chunks.len());
    loop {
        let (_, next, link) = chunks[at];
        links.push(link);
        if next == END {
            break;
        }
        at = find(next)?;
    }
    (links.len() == chunks.len()).then_some(links)
}

/// The table of chunks. What it adds to a table of rows is its digest: where chunks begin and end is
/// layout, and only the items in their order are state.
pub(super) struct Chunks {
    table: Table<ChunkRow>,
}

impl Chunks {
    pub(super) fn new(id: TableId) -> Self {
        Self { table: Table::new(id, Lists::default()) }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Slab<ChunkRow>> {
        self.table.read()
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Slab<ChunkRow>> {
        self.table.write()
    }
}

impl StateTable for Chunks {
    fn digest(&self, _: Timestamp, digest: &mut Hasher) {
        let slab = self.read();
        for collection in slab.side().collections() {
            let list = slab.side().get(collection).expect("it was just listed");
            digest.update(&collection.get().to_le_bytes());
            digest.update(&(list.len() as u64).to_le_bytes());
            for link in &list.links {
                for item in &slab.row(link.slot).items {
                    digest.update(&item.get().to_le_bytes());
                }
            }
        }
    }

    fn size(&self) -> TableSize {
        self.table.size()
    }

    fn check(&self) -> Result<(), String> {
        self.table.check()?;
        Lists::check(&self.read())
    }
}

impl DurableTable for Chunks {
    fn id(&self) -> TableId {
        self.table.id()
    }

    fn begin_cut(&self, store: StoreSlot) -> TableCut {
        self.table.begin_cut(store)
    }

    fn take_pages(&self, pages_max: usize, out: &mut Vec<PageImage>) -> bool {
        self.table.take_pages(pages_max, out)
    }

    fn end_cut(&self, store: StoreSlot, committed: bool) {
        self.table.end_cut(store, committed);
    }

    fn owe_all(&self, store: StoreSlot) {
        self.table.owe_all(store);
    }

    fn begin_restore(&self, cut: TableCut) -> Result<(), DecodeError> {
        self.table.begin_restore(cut)
    }

    fn restore_page(&self, page: u32, bytes: &[u8]) -> Result<(), DecodeError> {
        self.table.restore_page(page, bytes)
    }

    fn end_restore(&self, rows: u64, owed: [bool; 2]) -> Result<(), DecodeError> {
        self.table.end_restore(rows, owed)
    }
}

//! How the items of one collection are changed.
//!
//! Knows: positions, chunks, when they are split and merged. Must not know: whether a change is
//! allowed.
//!
//! Chunks that are few are merged, so that a list is never spread thin. A change writes the chunks that it touches and at most one
//! neighbour of each: moving a range turns the order of whole chunks, and writes those at its ends.

use super::chunk::{CHUNK_LEN_MAX, ChunkKey, ChunkRow, END, Link, List, MERGED_LEN_MAX};
use crate::ids::{CollectionId, EntityId};
use crate::table::{Slab, Slot};

/// The items of a collection, to be changed.
pub(super) struct ListEditor<'a> {
    slab: &'a mut Slab<ChunkRow>,
    collection: CollectionId,
    list: List,
}

/// Changes the items of a collection.
pub(super) fn edit(
    slab: &mut Slab<ChunkRow>,
    collection: CollectionId,
    change: impl FnOnce(&mut ListEditor<'_>),
) {
    let list = slab.side_mut().take(collection);
    let mut editor = ListEditor { slab, collection, list };
    change(&mut editor);
    let ListEditor { slab, mut list, .. } = editor;
    list.index(slab);
    slab.side_mut().put(collection, list);
}

impl ListEditor<'_> {
    /// Adds an item that is not there, so that `at` is its position.
    pub(super) fn insert(&mut self, at: usize, item: EntityId) {
        let Some((index, offset)) = self.place_for(at) else {
            self.add_chunk(0, vec![item]);
            return;
        };
        let len = self.list.links[index].len as usize;
        if len < CHUNK_LEN_MAX {
            let slot = self.list.links[index].slot;
            self.slab.row_mut(slot).0.items.insert(offset, item);
            self.list.links[index].len += 1;
            self.index_items(&[item], None, slot);
        } else if offset == len && index + 1 == self.list.links.len() {
            // Whoever adds at the end goes on there: chunks that are left behind are full.
            let slot = self.add_chunk(index + 1, vec![item]);
            self.index_items(&[item], None, slot);
        } else {
            self.split(index, CHUNK_LEN_MAX / 2);
            self.insert(at, item);
        }
    }

    /// Takes an item out that is there.
    pub(super) fn remove(&mut self, item: EntityId) {
        let slot = self.list.find(self.slab, item).expect("it was decided that the item is there");
        let index = self.list.links.iter().position(|link| link.slot == slot);
        let index = index.expect("every chunk is in the order of its collection");
        let items = &mut self.slab.row_mut(slot).0.items;
        items.retain(|&other| other != item);
        let len = items.len();
        self.list.links[index].len = len as u32;
        if let Some(members) = &mut self.list.members {
            members.remove(item, slot);
        }
        if len == 0 {
            self.remove_chunk(index);
        }
        self.heal();
    }

    /// Takes `count` items from `from` on, and puts them back so that the first is at `to`.
    pub(super) fn move_range(&mut self, from: usize, count: usize, to: usize) {
        // Two neighbouring ranges change places: the one that moves, and what it moves past.
        let (start, middle, end) =
            if to < from { (to, from, from + count) } else { (from, from + count, to + count) };
        let [start, middle, end] = [start, middle, end].map(|at| self.cut(at));
        self.list.links[start..end].rotate_left(middle - start);
        let seam = start + (end - middle);
        if start > 0 {
            self.relink(start - 1);
        }
        self.relink(seam - 1);
        self.relink(end - 1);
        self.heal();
    }

    /// Takes all items out.
    pub(super) fn clear(&mut self) {
        for link in std::mem::take(&mut self.list.links) {
            self.slab.remove(&ChunkKey { collection: self.collection, number: link.number });
        }
        self.list.members = None;
    }

    /// Puts items into a list that has none.
    pub(super) fn fill(&mut self, items: &[EntityId]) {
        assert!(self.list.links.is_empty(), "a list is filled when it is empty");
        let chunks = items.chunks(CHUNK_LEN_MAX);
        let last = chunks.len() as u32;
        for (number, items) in (1..).zip(chunks) {
            let key = ChunkKey { collection: self.collection, number };
            let next = if number == last { END } else { number + 1 };
            let slot = self.slab.insert_new(ChunkRow { key, next, items: items.to_vec() });
            self.list.links.push(Link { slot, number, len: items.len() as u32 });
        }
    }

    /// The chunk that takes an item at a position, and where in it; `None` when there is no chunk.
    fn place_for(&self, at: usize) -> Option<(usize, usize)> {
        let mut offset = at;
        for (index, link) in self.list.links.iter().enumerate() {
            let len = link.len as usize;
            if offset <= len {
                return Some((index, offset));
            }
            offset -= len;
        }
        assert!(self.list.links.is_empty(), "it was decided that the position is there");
        None
    }

    /// Lets a chunk begin at a position; which one it is, or how many there are for the end.
    fn cut(&mut self, at: usize) -> usize {
        let mut offset = at;
        for index in 0..self.list.links.len() {
            let len = self.list.links[index].len as usize;
            if offset == 0 {
                return index;
            }
            if offset < len {
                self.split(index, offset);
                return index + 1;
            }
            offset -= len;
        }
        assert!(offset == 0, "it was decided that the position is there");
        self.list.links.len()
    }

    /// Makes two chunks of one; the first keeps `len` items.
    fn split(&mut self, index: usize, len: usize) {
        let Link { slot, .. } = self.list.links[index];
        let tail = self.slab.row_mut(slot).0.items.split_off(len);
        assert!(len > 0 && !tail.is_empty(), "no chunk is empty");
        self.list.links[index].len = len as u32;
        let new = self.add_chunk(index + 1, tail);
        self.reindex(new, slot);
    }

    /// Puts a chunk so that `index` is its place. Where its items are is for the caller to say.
    fn add_chunk(&mut self, index: usize, items: Vec<EntityId>) -> Slot {
        let (number, len) = (self.vacant_number(), items.len() as u32);
        let key = ChunkKey { collection: self.collection, number };
        let next = self.list.links.get(index).map_or(END, |link| link.number);
        let slot = self.slab.insert_new(ChunkRow { key, next, items });
        self.list.links.insert(index, Link { slot, number, len });
        if index > 0 {
            self.relink(index - 1);
        }
        slot
    }

    /// Takes a chunk out of the order and of the table.
    fn remove_chunk(&mut self, index: usize) -> ChunkRow {
        let Link { number, .. } = self.list.links.remove(index);
        if index > 0 {
            self.relink(index - 1);
        }
        let key = ChunkKey { collection: self.collection, number };
        let (_, row) = self.slab.remove(&key).expect("every link is that of a chunk");
        row
    }

    /// The least number that no chunk of the collection has.
    fn vacant_number(&self) -> u32 {
        let links = &self.list.links;
        let mut is_taken = vec![false; links.len()];
        for link in links {
            if let Some(is_taken) = is_taken.get_mut(link.number as usize - 1) {
                *is_taken = true;
            }
        }
        let vacant = is_taken.iter().position(|is_taken| !is_taken);
        vacant.unwrap_or(links.len()) as u32 + 1
    }

    /// Lets a chunk name the one that follows it; it is written only if that is news.
    fn relink(&mut self, index: usize) {
        let next = self.list.links.get(index + 1).map_or(END, |link| link.number);
        let slot = self.list.links[index].slot;
        if self.slab.row(slot).next != next {
            self.slab.row_mut(slot).0.next = next;
        }
    }

    /// Merges neighbours that have few items together, all along: a walk over lengths in memory.
    fn heal(&mut self) {
        let mut index = 0;
        while index + 1 < self.list.links.len() {
            let [left, right] = [index, index + 1].map(|at| self.list.links[at].len as usize);
            if left + right <= MERGED_LEN_MAX {
                self.merge(index);
            } else {
                index += 1;
            }
        }
    }

    /// Makes one chunk of two.
    fn merge(&mut self, index: usize) {
        let [left, right] = [index, index + 1].map(|at| self.list.links[at].slot);
        let row = self.remove_chunk(index + 1);
        self.slab.row_mut(left).0.items.extend_from_slice(&row.items);
        self.list.links[index].len += row.items.len() as u32;
        self.index_items(&row.items, Some(right), left);
    }

    /// All items of a chunk were in another one.
    fn reindex(&mut self, slot: Slot, from: Slot) {
        let Some(members) = &mut self.list.members else { return };
        let items = self.slab.row(slot).items.iter();
        items.for_each(|&item| members.relocate(item, from, slot));
    }

    /// Items are in a chunk now, and were in another, or nowhere.
    fn index_items(&mut self, items: &[EntityId], from: Option<Slot>, to: Slot) {
        let Some(members) = &mut self.list.members else { return };
        for &item in items {
            match from {
                Some(from) => members.relocate(item, from, to),
                None => members.insert(item, to),
            }
        }
    }
}

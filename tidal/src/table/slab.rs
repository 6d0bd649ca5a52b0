//! Rows in slots in pages, found by key.
//!
//! Knows: slots, pages, the index, which page each checkpoint store lacks, capture before modify.
//! Must not know: what a row means; see [`Row`] for all that it asks.
//!
//! A page is 64 consecutive slots. Encoded:
//!
//! ```text
//! u64: bit i set when slot i holds a row | the rows, in slot order, as `Row::encode` wrote them
//! ```
//!
//! Invariants: `index` holds exactly the live slots; `free` exactly the vacant ones below the end;
//! a page whose `OWED` bit is set is as it was at the cut.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::{DurableTable, PageImage, StateTable, StoreSlot, TableCut, TableId, TableSize};
use crate::codec::{DecodeError, Hasher, Put, Reader};
use crate::ids::Timestamp;
use crate::sync::{
    AtomicU8, AtomicU32, Mutex, Ordering, RwLock, RwLockReadGuard, RwLockWriteGuard,
};

/// Slots of a page: as many as a `u64` has bits.
const PAGE_ROWS: usize = 64;

/// Slots are numbered in 32 bits.
const PAGES_MAX: u32 = u32::MAX / PAGE_ROWS as u32;

/// A restore reserves room for this many rows, or as many as are announced, before it has seen any.
const RESERVED_ROWS_MIN: usize = 1 << 13;

/// Page flags. One byte a page: a cut is a pass over these bytes.
const DIRTY: [u8; 2] = [1, 2];
const DIRTY_BOTH: u8 = DIRTY[0] | DIRTY[1];
/// In the current cut and not handed out yet.
const OWED: u8 = 4;
/// In the current cut.
const IN_CUT: u8 = 8;

/// The position of a row in its table; stable while the row lives.
pub(crate) type Slot = u32;

/// What a table asks of its rows.
pub(crate) trait Row: Sized + Send + Sync + 'static {
    /// What a row is found by.
    type Key: ?Sized + Eq + Ord;
    /// What a table keeps beside its rows: their variable parts, and lists derived from them.
    type Side: Send + Sync;

    fn key(&self) -> &Self::Key;

    /// A hash of the key. It may differ between machines: nothing on disk, no order and no sum
    /// depends on it.
    fn hash(key: &Self::Key) -> u64;

    /// Appends the row, so that `decode` gives an equal one.
    fn encode(&self, slot: Slot, side: &Self::Side, out: &mut Vec<u8>);

    fn decode(
        slot: Slot,
        reader: &mut Reader<'_>,
        side: &mut Self::Side,
    ) -> Result<Self, DecodeError>;

    /// Appends the row's logical content as of `now`: equal for equal states, whatever the layout.
    /// Nothing is appended for a row that counts for nothing at `now`.
    fn canonical(&self, slot: Slot, side: &Self::Side, now: Timestamp, out: &mut Vec<u8>) {
        let _ = now;
        self.encode(slot, side, out);
    }

    /// Rebuilds what `side` derives from the rows, after all of them were decoded.
    fn rebuild(slab: &mut Slab<Self>) -> Result<(), DecodeError> {
        let _ = slab;
        Ok(())
    }

    /// Heap bytes that this row owns outside its slot.
    fn heap_size_bytes(&self) -> usize {
        0
    }

    /// Heap bytes of the side.
    fn side_size_bytes(side: &Self::Side) -> usize;
}

/// The rows of one table.
pub(crate) struct Slab<R: Row> {
    pages: Vec<Box<[Option<R>]>>,
    /// Written by the checkpointer under the read lock (it only clears `OWED`), by the writer under
    /// the write lock.
    flags: Vec<AtomicU8>,
    free: Vec<Slot>,
    index: HashTable<Slot>,
    side: R::Side,
    cut: Option<Cut>,
    /// What a manifest announced of the table that is being restored.
    announced: Option<TableCut>,
}

struct Cut {
    store: StoreSlot,
    pages: u32,
    /// Pages below this have been handed out.
    next: AtomicU32,
    /// Pages that the writer encoded because it had to change them.
    captured: Mutex<Vec<PageImage>>,
}

impl<R: Row> Slab<R> {
    pub(crate) fn new(side: R::Side) -> Self {
        Self {
            pages: Vec::new(),
            flags: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            side,
            cut: None,
            announced: None,
        }
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn find(&self, key: &R::Key) -> Option<Slot> {
        self.index.find(R::hash(key), |&slot| self.row(slot).key() == key).copied()
    }

    pub(crate) fn get(&self, key: &R::Key) -> Option<&R> {
        self.find(key).map(|slot| self.row(slot))
    }

    /// The row in `slot`, or `None` when it is vacant or beyond the end.
    #[inline]
    pub(crate) fn peek(&self, slot: Slot) -> Option<&R> {
        let (page, at) = split(slot);
        self.pages.get(page)?[at].as_ref()
    }

    /// The row in a slot that holds one.
    #[inline]
    pub(crate) fn row(&self, slot: Slot) -> &R {
        self.peek(slot).expect("the index names live slots only")
    }

    /// The row in a slot that holds one, to be changed: its page is captured first if a checkpoint
    /// still needs it as it is, and is owed to both stores from now on.
    #[inline]
    pub(crate) fn row_mut(&mut self, slot: Slot) -> (&mut R, &mut R::Side) {
        let (page, at) = split(slot);
        self.touch(page);
        let row = self.pages[page][at].as_mut().expect("the index names live slots only");
        (row, &mut self.side)
    }

    pub(crate) const fn side(&self) -> &R::Side {
        &self.side
    }

    /// The side, for changes that no page encodes (derived lists).
    pub(crate) const fn side_mut(&mut self) -> &mut R::Side {
        &mut self.side
    }

    /// Changes the side in a way that may change what every page encodes.
    pub(crate) fn change_side(&mut self, change: impl FnOnce(&mut R::Side)) {
        for page in 0..self.pages.len() {
            self.touch(page);
        }
        change(&mut self.side);
    }

    /// The slot of the row with `row`'s key; `row` is inserted if there is none. The flag says
    /// whether it was.
    pub(crate) fn find_or_insert(&mut self, row: R) -> (Slot, bool) {
        match self.find(row.key()) {
            Some(slot) => (slot, false),
            None => (self.insert_new(row), true),
        }
    }

    /// Inserts a row, or replaces the one with the same key.
    pub(crate) fn put(&mut self, row: R) {
        match self.find(row.key()) {
            Some(slot) => *self.row_mut(slot).0 = row,
            None => {
                self.insert_new(row);
            }
        }
    }

    /// Inserts a row whose key is known to be absent.
    pub(crate) fn insert_new(&mut self, row: R) -> Slot {
        let slot = self.vacant_slot();
        let (page, at) = split(slot);
        self.touch(page);
        let hash = R::hash(row.key());
        self.pages[page][at] = Some(row);
        let pages = &self.pages;
        self.index.insert_unique(hash, slot, |&slot| rehash(pages, slot));
        slot
    }

    /// Takes a row out and vacates its slot.
    pub(crate) fn remove(&mut self, key: &R::Key) -> Option<(Slot, R)> {
        let slot = self.find(key)?;
        let (page, at) = split(slot);
        self.touch(page);
        let Ok(entry) = self.index.find_entry(R::hash(key), |&other| other == slot) else {
            unreachable!("a slot that was found is in the index");
        };
        entry.remove();
        self.free.push(slot);
        let row = self.pages[page][at].take().expect("the index names live slots only");
        Some((slot, row))
    }

    /// Every live row, in slot order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, &R)> {
        self.pages.iter().enumerate().flat_map(|(page, rows)| {
            rows.iter()
                .enumerate()
                .filter_map(move |(at, row)| row.as_ref().map(|row| (join(page, at), row)))
        })
    }

    /// Bytes of memory held, the index and the side included.
    pub(crate) fn size_bytes(&self) -> usize {
        let page = PAGE_ROWS * size_of::<Option<R>>() + size_of::<Box<[Option<R>]>>() + 1;
        // hashbrown keeps 8 buckets for every 7 entries of capacity, a control byte for each.
        let index = self.index.capacity() * 8 / 7 * (size_of::<Slot>() + 1);
        let rows: usize = self.iter().map(|(_, row)| row.heap_size_bytes()).sum();
        self.pages.len() * page
            + index
            + self.free.capacity() * size_of::<Slot>()
            + rows
            + R::side_size_bytes(&self.side)
    }

    /// Feeds the rows to `digest`, in key order, as of `now`.
    pub(crate) fn digest(&self, now: Timestamp, digest: &mut Hasher) {
        self.digest_those(|_| true, now, digest);
    }

    /// Feeds some of the rows to `digest`, in key order, as of `now`.
    pub(crate) fn digest_those(
        &self,
        is_meant: impl Fn(&R) -> bool,
        now: Timestamp,
        digest: &mut Hasher,
    ) {
        let mut rows: Vec<(Slot, &R)> = self.iter().filter(|(_, row)| is_meant(row)).collect();
        rows.sort_unstable_by(|(_, left), (_, right)| left.key().cmp(right.key()));
        let mut bytes = Vec::new();
        for (slot, row) in rows {
            bytes.clear();
            row.canonical(slot, &self.side, now, &mut bytes);
            if !bytes.is_empty() {
                digest.update(&(bytes.len() as u64).to_le_bytes()).update(&bytes);
            }
        }
    }

    /// Checks the invariants of the index and the free list; the sentence says which one is broken.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut live = 0;
        for (slot, row) in self.iter() {
            live += 1;
            if self.find(row.key()) != Some(slot) {
                return Err(format!("the row in slot {slot} is not found by its key"));
            }
        }
        let vacant = self.pages.len() * PAGE_ROWS - live;
        if live != self.index.len() || vacant != self.free.len() {
            return Err(format!(
                "{live} rows and {vacant} vacancies, but {} indexed and {} free",
                self.index.len(),
                self.free.len()
            ));
        }
        Ok(())
    }

    fn vacant_slot(&mut self) -> Slot {
        if self.free.is_empty() {
            self.add_page();
        }
        self.free.pop().expect("a new page has vacant slots")
    }

    fn add_page(&mut self) {
        let page = self.pages.len();
        assert!(page < PAGES_MAX as usize, "a table holds at most 2^32 rows");
        self.pages.push((0..PAGE_ROWS).map(|_| None).collect());
        self.flags.push(AtomicU8::new(DIRTY_BOTH));
        self.free.extend((0..PAGE_ROWS).rev().map(|at| join(page, at)));
    }

    #[inline]
    fn touch(&mut self, page: usize) {
        if *self.flags[page].get_mut() & OWED != 0 {
            self.capture(page);
        }
        let flags = self.flags[page].get_mut();
        *flags = (*flags & !OWED) | DIRTY_BOTH;
    }

    #[cold]
    fn capture(&mut self, page: usize) {
        let image = self.image(page);
        let cut = self.cut.as_mut().expect("a page is owed only during a cut");
        cut.captured.get_mut().push(image);
    }

    fn image(&self, page: usize) -> PageImage {
        let mut bytes = Vec::with_capacity(PAGE_ROWS * 48);
        let mut live = 0u64;
        bytes.put_u64(live);
        for (at, row) in self.pages[page].iter().enumerate() {
            if let Some(row) = row {
                live |= 1 << at;
                row.encode(join(page, at), &self.side, &mut bytes);
            }
        }
        bytes[..8].copy_from_slice(&live.to_le_bytes());
        PageImage { page: page as u32, bytes }
    }

    fn begin_cut(&mut self, store: StoreSlot) -> TableCut {
        assert!(self.cut.is_none(), "one cut at a time");
        let mut owed = 0;
        for flags in &mut self.flags {
            let flags = flags.get_mut();
            if *flags & DIRTY[store as usize] != 0 {
                *flags = (*flags & !DIRTY[store as usize]) | OWED | IN_CUT;
                owed += 1;
            }
        }
        let pages = self.pages.len() as u32;
        self.cut =
            Some(Cut { store, pages, next: AtomicU32::new(0), captured: Mutex::new(Vec::new()) });
        TableCut { rows: self.len() as u64, pages, owed }
    }

    fn take_pages(&self, pages_max: usize, out: &mut Vec<PageImage>) -> bool {
        let cut = self.cut.as_ref().expect("pages are taken during a cut");
        out.append(&mut cut.captured.lock());
        let mut taken = 0;
        let mut page = cut.next.load(Ordering::Relaxed);
        while page < cut.pages && taken < pages_max {
            let flags = &self.flags[page as usize];
            if flags.load(Ordering::Relaxed) & OWED != 0 {
                out.push(self.image(page as usize));
                flags.fetch_and(!OWED, Ordering::Relaxed);
                taken += 1;
            }
            page += 1;
        }
        cut.next.store(page, Ordering::Relaxed);
        page < cut.pages
    }

    fn end_cut(&mut self, store: StoreSlot, committed: bool) {
        let cut = self.cut.take().expect("a cut is ended once");
        assert_eq!(cut.store, store, "the cut that ends is the one that began");
        for flags in &mut self.flags {
            let flags = flags.get_mut();
            if *flags & IN_CUT != 0 {
                assert!(!committed || *flags & OWED == 0, "a committed cut leaves no page behind");
                let owed_again = if committed { 0 } else { DIRTY[store as usize] };
                *flags = (*flags & !(IN_CUT | OWED)) | owed_again;
            }
        }
        assert!(!committed || cut.captured.lock().is_empty(), "every captured page was taken");
    }

    fn begin_restore(&mut self, cut: TableCut) -> Result<(), DecodeError> {
        assert!(self.pages.is_empty(), "a table is restored once, when it is empty");
        if cut.rows > u64::from(cut.pages) * PAGE_ROWS as u64 {
            return Err(DecodeError::Malformed("more rows than its pages can hold"));
        }
        if cut.pages > PAGES_MAX {
            return Err(DecodeError::Malformed("more pages than a table has"));
        }
        self.announced = Some(cut);
        Ok(())
    }

    /// Makes room for one more page of rows. What was announced is not taken at its word: memory
    /// grows with what is there, eightfold at most.
    fn reserve_page(&mut self, page: u32) -> Result<(), DecodeError> {
        let announced = self.announced.filter(|announced| page < announced.pages);
        let announced = announced.ok_or(DecodeError::Malformed("a page beyond the table's end"))?;
        while self.pages.len() <= page as usize {
            self.add_page();
        }
        self.free.clear();
        let len = self.index.len();
        if self.index.capacity() - len < PAGE_ROWS {
            let wanted = (announced.rows as usize).min(8 * len.max(RESERVED_ROWS_MIN));
            let pages = &self.pages;
            self.index.reserve(wanted.saturating_sub(len), |&slot| rehash(pages, slot));
        }
        Ok(())
    }

    fn restore_page(&mut self, page: u32, bytes: &[u8]) -> Result<(), DecodeError> {
        let mut reader = Reader::new(bytes);
        let live = reader.u64()?;
        self.reserve_page(page)?;
        let rows = &mut self.pages[page as usize];
        if rows.iter().any(Option::is_some) {
            return Err(DecodeError::Malformed("a page restored twice"));
        }
        for (at, row) in rows.iter_mut().enumerate() {
            if live & (1 << at) != 0 {
                let slot = join(page as usize, at);
                *row = Some(R::decode(slot, &mut reader, &mut self.side)?);
            }
        }
        reader.end()?;
        self.index_page(page as usize)
    }

    fn index_page(&mut self, page: usize) -> Result<(), DecodeError> {
        let pages = &self.pages;
        for (at, row) in pages[page].iter().enumerate() {
            let Some(row) = row else { continue };
            let same = |&slot: &Slot| {
                let (page, at) = split(slot);
                pages[page][at].as_ref().is_some_and(|other| other.key() == row.key())
            };
            match self.index.entry(R::hash(row.key()), same, |&slot| rehash(pages, slot)) {
                Entry::Vacant(vacant) => vacant.insert(join(page, at)),
                Entry::Occupied(_) => return Err(DecodeError::Malformed("a key in two slots")),
            };
        }
        Ok(())
    }

    fn end_restore(&mut self, rows: u64, owed: [bool; 2]) -> Result<(), DecodeError> {
        let announced = self.announced.take().map_or(0, |announced| announced.pages);
        if self.pages.len() != announced as usize {
            return Err(DecodeError::Malformed("another number of pages than announced"));
        }
        if self.len() as u64 != rows {
            return Err(DecodeError::Malformed("another number of rows than announced"));
        }
        let flags = (0..2).filter(|&store| owed[store]).map(|store| DIRTY[store]).sum();
        for page in self.flags.iter_mut() {
            *page.get_mut() = flags;
        }
        let vacant = |slot: &Slot| self.peek(*slot).is_none();
        self.free = (0..(self.pages.len() * PAGE_ROWS) as Slot).rev().filter(vacant).collect();
        R::rebuild(self)
    }
}

#[inline]
const fn split(slot: Slot) -> (usize, usize) {
    (slot as usize / PAGE_ROWS, slot as usize % PAGE_ROWS)
}

const fn join(page: usize, at: usize) -> Slot {
    (page * PAGE_ROWS + at) as Slot
}

fn rehash<R: Row>(pages: &[Box<[Option<R>]>], slot: Slot) -> u64 {
    let (page, at) = split(slot);
    let row = pages[page][at].as_ref().expect("the index names live slots only");
    R::hash(row.key())
}

/// A slab under its lock, with its name on disk.
pub(crate) struct Table<R: Row> {
    id: TableId,
    slab: RwLock<Slab<R>>,
}

impl<R: Row> Table<R> {
    pub(crate) fn new(id: TableId, side: R::Side) -> Self {
        Self { id, slab: RwLock::new(Slab::new(side)) }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Slab<R>> {
        self.slab.read()
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Slab<R>> {
        self.slab.write()
    }
}

impl<R: Row> StateTable for Table<R> {
    fn digest(&self, now: Timestamp, digest: &mut Hasher) {
        self.read().digest(now, digest);
    }

    fn size(&self) -> TableSize {
        let slab = self.read();
        TableSize { rows: slab.len() as u64, size_bytes: slab.size_bytes() as u64 }
    }

    fn check(&self) -> Result<(), String> {
        self.read().check()
    }
}

impl<R: Row> DurableTable for Table<R> {
    fn id(&self) -> TableId {
        self.id
    }

    fn begin_cut(&self, store: StoreSlot) -> TableCut {
        self.write().begin_cut(store)
    }

    fn take_pages(&self, pages_max: usize, out: &mut Vec<PageImage>) -> bool {
        self.read().take_pages(pages_max, out)
    }

    fn end_cut(&self, store: StoreSlot, committed: bool) {
        self.write().end_cut(store, committed);
    }

    fn owe_all(&self, store: StoreSlot) {
        for flags in &mut self.write().flags {
            *flags.get_mut() |= DIRTY[store as usize];
        }
    }

    fn begin_restore(&self, cut: TableCut) -> Result<(), DecodeError> {
        self.write().begin_restore(cut)
    }

    fn restore_page(&self, page: u32, bytes: &[u8]) -> Result<(), DecodeError> {
        self.write().restore_page(page, bytes)
    }

    fn end_restore(&self, rows: u64, owed: [bool; 2]) -> Result<(), DecodeError> {
        self.write().end_restore(rows, owed)
    }
}

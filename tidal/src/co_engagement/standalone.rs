//! The index on its own: weighted edges, checkpointed into any storage engine.
//!
//! Knows: edges, keys of its own. Must not know: the log, trails, the database.
//!
//! In a storage engine, everything in an envelope under its key:
//!
//! ```text
//! tidal/co-engagement/meta      bincode: root hash, rows u64, pages u32
//! tidal/co-engagement/page/     page u32 BE
//! ```
//!
//! A checkpoint is one atomic batch: after a crash the storage has the one before, or this one. The
//! root hash is BLAKE3 over the hashes of all pages, in order.

use super::Neighbour;
use super::edges::{self, Bounds, Edges};
use super::similarity::{Scale, Similarity};
use super::weight::Weight;
use crate::codec::{self, Decode, Encode, Hash, Hasher, Kind, Purpose};
use crate::decay::{Decay, Factor};
use crate::error::{Error, Result};
use crate::ids::{EntityId, Timestamp};
use crate::schema::HalfLife;
use crate::storage::{StorageEngine, WriteOp};
use crate::sync::RwLock;
use crate::table::{TableCut, TableId, put_pages, restore_pages};

const PREFIX: &[u8] = b"tidal/co-engagement/";
const META: &[u8] = b"tidal/co-engagement/meta";
const PAGES: &[u8] = b"tidal/co-engagement/page/";
const VERSION: u16 = 1;

/// Edges that leave one item: finding one is a pass over them.
const NEIGHBOURS_MAX: usize = 10_000;

/// Weighted edges between items, at most so many of them, without a database around them: the index
/// that a [`TidalDb`](crate::TidalDb) keeps of what is engaged with together, for callers who find
/// their pairs themselves.
///
/// Nothing decays: a weight is the sum of what was inserted, within 2^-41 for each insertion. A new edge
/// always comes in; where there is no room the lightest leaves. At most 10,000 edges leave one item.
/// All methods take `&self`.
///
/// ```
/// use tidaldb::co_engagement::CoEngagementIndex;
/// use tidaldb::schema::EntityId;
/// use tidaldb::storage::InMemoryBackend;
///
/// let index = CoEngagementIndex::with_capacity(2);
/// index.insert_edge(1, 2, 0.5)?;
/// index.insert_edge(1, 3, 2.0)?;
/// index.insert_edge(1, 3, 1.0)?;
/// index.insert_edge(1, 4, 1.0)?;
/// assert_eq!(index.edge_count(), 2);
///
/// let storage = InMemoryBackend::new();
/// index.checkpoint(&storage)?;
/// let restored = CoEngagementIndex::with_capacity(2);
/// assert!(restored.restore(&storage)?);
/// let near = restored.neighbours(1, 20);
/// assert_eq!((near[0].item, near[0].weight), (EntityId::new(3), 3.0));
/// assert_eq!(near[1].item, EntityId::new(4));
/// # Ok::<(), tidaldb::Error>(())
/// ```
pub struct CoEngagementIndex {
    bounds: Bounds,
    edges: RwLock<Edges>,
}

/// The meta record on disk.
#[derive(Encode, Decode)]
struct MetaV1 {
    payload_hash: Hash,
    rows: u64,
    pages: u32,
}

impl std::fmt::Debug for CoEngagementIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CoEngagementIndex")
            .field("edges", &self.edge_count())
            .field("capacity", &self.bounds.capacity)
            .finish()
    }
}

impl CoEngagementIndex {
    /// An empty index that will have at most so many edges.
    pub fn with_capacity(capacity: usize) -> Self {
        let bounds = Bounds { neighbours_max: NEIGHBOURS_MAX, capacity: capacity as u64 };
        Self { bounds, edges: RwLock::new(Edges::new(TABLE)) }
    }

    /// Adds a weight to the edge that leads from one item to another. The edge comes in if it is not
    /// there; then the lightest leaves if there is no room.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](Error::InvalidArgument) for a weight that is not above zero and finite, or an
    /// edge from an item to itself; nothing changes then.
    pub fn insert_edge(&self, from: u64, to: u64, weight: f32) -> Result<()> {
        if !weight.is_finite() || weight <= 0.0 {
            return Err(Error::invalid("weight", format!("{weight} is refused")));
        }
        if from == to {
            return Err(Error::invalid("edge", format!("it leads from item {from} to itself")));
        }
        if self.bounds.capacity == 0 {
            return Ok(());
        }
        let term = Weight::of(without_decay().weighted(f64::from(weight)));
        self.edges.read().change(|slab| {
            let from = edges::row_of(slab, EntityId::new(from));
            let to = edges::row_of(slab, EntityId::new(to));
            edges::add(slab, self.bounds, from, to, term);
        });
        Ok(())
    }

    /// How many edges there are.
    pub fn edge_count(&self) -> usize {
        self.edges.read().held().side().edges as usize
    }

    /// The items that the `k` heaviest edges of an item lead to, the heaviest first, ties by item. Each
    /// similarity is the weight.
    pub fn neighbours(&self, item: u64, k: usize) -> Vec<Neighbour> {
        let now = Decay::at(Timestamp::EPOCH, HalfLife::INFINITE);
        let scale = Scale::new(Similarity::CoOccurrence, now, Weight::ZERO);
        let edges = self.edges.read();
        super::HeldEdges::new(edges.held()).nearest(EntityId::new(item), k, scale, 0, |_| true)
    }

    /// Writes everything in one atomic, synced batch.
    ///
    /// # Errors
    ///
    /// What the storage fails with; it then has this checkpoint or the one before.
    pub fn checkpoint(&self, storage: &(impl StorageEngine + ?Sized)) -> Result<()> {
        let mut ops = Vec::new();
        storage.scan(PREFIX, &mut |key, _| {
            ops.push(WriteOp::Delete { key: key.to_vec() });
            Ok(())
        })?;
        let mut root = Hasher::new(Purpose::Root);
        let cut = put_pages(&*self.edges.write().table(), PAGES, &mut root, &mut ops);
        let meta = MetaV1 { payload_hash: root.finish(), rows: cut.rows, pages: cut.pages };
        let payload = codec::to_sealed_bytes(&meta).map_err(|e| e.of("the meta record"))?;
        let (sealed, _) = codec::seal(Kind::Manifest, VERSION, &[META], &payload);
        ops.push(WriteOp::Put { key: META.to_vec(), value: sealed });
        storage.write_batch_synced(ops)
    }

    /// Replaces everything by what the storage has; false, and nothing changes, if it has no
    /// checkpoint. Nothing is believed before its hash. Edges beyond this index's capacity, of a
    /// checkpoint of a larger one, leave at once, the lightest first.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](Error::Corrupt) when anything is damaged or missing;
    /// [`FormatTooNew`](Error::FormatTooNew); what the storage fails with. Nothing changes then.
    pub fn restore(&self, storage: &(impl StorageEngine + ?Sized)) -> Result<bool> {
        let Some(sealed) = storage.get(META)? else { return Ok(false) };
        let what = "the co-engagement index";
        let (_, payload, _) =
            codec::open(Kind::Manifest, VERSION, &[META], &sealed).map_err(|e| e.of(what))?;
        let meta: MetaV1 = codec::from_sealed_bytes(payload).map_err(|e| e.of(what))?;
        let restored = Edges::new(TABLE);
        let shape = TableCut { rows: meta.rows, pages: meta.pages, owed: 0 };
        let mut root = Hasher::new(Purpose::Root);
        restore_pages(&*restored.table(), shape, storage, PAGES, &mut root, what)?;
        if root.finish() != meta.payload_hash {
            return Err(Error::corrupt(what, "a page is stale"));
        }
        restored.change(|slab| edges::shrink(slab, self.bounds));
        *self.edges.write() = restored;
        Ok(true)
    }
}

/// One table, of one index.
const TABLE: TableId = TableId { kind: super::CoEngagements::EDGES, part: 0 };

fn without_decay() -> Factor {
    Factor::at(Timestamp::EPOCH, HalfLife::INFINITE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::InMemoryBackend;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn written() -> (CoEngagementIndex, InMemoryBackend) {
        let index = CoEngagementIndex::with_capacity(150);
        for i in 0..200u64 {
            index.insert_edge(i % 9, 100 + i % 40, 1.0 + i as f32).expect("inserted");
        }
        let storage = InMemoryBackend::new();
        index.checkpoint(&storage).expect("written");
        (index, storage)
    }

    /// Every edge: from, to, weight.
    fn edges_of(index: &CoEngagementIndex) -> Vec<(u64, u64, f64)> {
        let of = |from| {
            let near = index.neighbours(from, usize::MAX);
            near.into_iter().map(move |near| (from, near.item.get(), near.weight))
        };
        (0..200).flat_map(of).collect()
    }

    #[test]
    fn every_flipped_byte_and_every_missing_key_is_an_error_and_changes_nothing() {
        let (index, storage) = written();
        for (key, value) in storage.scan_prefix(b"").expect("scanned") {
            let fresh = CoEngagementIndex::with_capacity(150);
            fresh.insert_edge(1, 2, 3.0).expect("inserted");
            storage.delete(&key).expect("deleted");
            match fresh.restore(&storage) {
                Ok(false) => assert_eq!(key, META),
                other => assert!(other.is_err(), "{key:?} missing: {other:?}"),
            }
            for at in 0..value.len() {
                let mut bad = value.clone();
                bad[at] ^= 1;
                storage.put(&key, &bad).expect("put");
                assert!(fresh.restore(&storage).is_err(), "byte {at} of {key:?}");
            }
            assert_eq!(edges_of(&fresh), [(1, 2, 3.0)]);
            storage.put(&key, &value).expect("put back");
        }
        let fresh = CoEngagementIndex::with_capacity(150);
        assert!(fresh.restore(&storage).expect("restored"));
        assert_eq!(edges_of(&fresh), edges_of(&index));
    }

    #[test]
    fn a_smaller_index_restores_the_heaviest_edges() {
        let (index, storage) = written();
        let small = CoEngagementIndex::with_capacity(10);
        assert!(small.restore(&storage).expect("restored"));
        assert_eq!(small.edge_count(), 10);
        let mut all = edges_of(&index);
        all.sort_by(|left, right| right.2.total_cmp(&left.2));
        let mut left = edges_of(&small);
        left.sort_by(|left, right| right.2.total_cmp(&left.2));
        assert_eq!(left, all[..10]);
    }

    #[test]
    fn neighbours_are_ranked_by_weight_and_then_by_item() {
        let index = CoEngagementIndex::with_capacity(10);
        for (to, weight) in [(5, 1.0), (3, 1.0), (9, 4.0), (7, 2.5), (7, 0.5)] {
            index.insert_edge(1, to, weight).expect("inserted");
        }
        let found = index.neighbours(1, 3);
        let found: Vec<(u64, f64)> = found.iter().map(|n| (n.item.get(), n.similarity)).collect();
        assert_eq!(found, [(9, 4.0), (7, 3.0), (3, 1.0)]);
    }

    #[test]
    fn an_index_without_room_takes_nothing() {
        let index = CoEngagementIndex::with_capacity(0);
        index.insert_edge(1, 2, 1.0).expect("no mistake");
        assert_eq!(index.edge_count(), 0);
        let (_, storage) = written();
        assert!(index.restore(&storage).expect("restored"));
        assert_eq!(index.edge_count(), 0);
    }

    proptest! {
        #[test]
        fn edges_are_those_of_a_map_and_rows_go_with_their_last_edge(
            inserts in prop::collection::vec((0u64..15, 0u64..15, 1u32..50), 1..200),
            capacity in 1usize..40,
        ) {
            let index = CoEngagementIndex::with_capacity(capacity);
            let mut map: BTreeMap<(u64, u64), u32> = BTreeMap::new();
            for (from, to, weight) in inserts.into_iter().filter(|(from, to, _)| from != to) {
                index.insert_edge(from, to, weight as f32).expect("inserted");
                if !map.contains_key(&(from, to)) && map.len() == capacity {
                    let lightest = map.iter().min_by_key(|&(edge, &weight)| (weight, *edge));
                    let lightest = *lightest.expect("it is full").0;
                    map.remove(&lightest);
                }
                *map.entry((from, to)).or_default() += weight;
                prop_assert_eq!(index.edge_count(), map.len());
            }
            let mut expected: Vec<(u64, u64, f64)> =
                map.iter().map(|(&(from, to), &weight)| (from, to, f64::from(weight))).collect();
            let mut found = edges_of(&index);
            expected.sort_by_key(|edge| (edge.0, edge.1));
            found.sort_by_key(|edge| (edge.0, edge.1));
            prop_assert_eq!(found, expected);
            let named: std::collections::BTreeSet<u64> =
                map.keys().flat_map(|&(from, to)| [from, to]).collect();
            prop_assert_eq!(index.edges.read().table().size().rows, named.len() as u64);
            let edges = index.edges.read();
            prop_assert_eq!(edges::check(&edges.held()), Ok(()));
            prop_assert_eq!(edges::check_bounds(&edges.held(), index.bounds), Ok(()));
        }
    }
}

//! The cohort ledger on its own: counters per cohort, checkpointed into any storage engine.
//!
//! Knows: columns, pages, keys of its own. Must not know: the log, users, the database.
//!
//! In a storage engine, everything in an envelope under its key:
//!
//! ```text
//! tidal/cohorts/meta            bincode: times, sequence, root hash, cohort names, columns
//! tidal/cohorts/page/ column u32 BE | page u32 BE
//! ```
//!
//! A checkpoint is one atomic batch: after a crash the storage has the one before, or this one. The
//! root hash is BLAKE3 over the hashes of all pages, in order of column and page.

use std::collections::HashMap;
use std::sync::Arc;

use super::cell::Spec;
use super::is_weight;
use super::ledger::{Column, Ledger, Run};
use super::read::SignalView;
use crate::codec::{self, Decode, Encode, Hash, Hasher, Kind, Purpose};
use crate::error::{Error, Result};
use crate::ids::{CohortId, EntityId, SignalTypeId, Timestamp};
use crate::schema::{Schema, Window};
use crate::storage::{StorageEngine, WriteOp};
use crate::sync::RwLock;
use crate::table::{CheckpointMeta, TableCut, put_pages, restore_pages};

const PREFIX: &[u8] = b"tidal/cohorts/";
const META: &[u8] = b"tidal/cohorts/meta";
const PAGE: &[u8] = b"tidal/cohorts/page/";
const VERSION: u16 = 1;

/// Signals per cohort, without a database around them: the ledger that a
/// [`TidalDb`](crate::TidalDb) keeps for its cohorts, for callers who have a log of their own.
///
/// Counts and scores are as of the newest event recorded. All methods take `&self`.
///
/// ```
/// use std::time::Duration;
/// use tidaldb::cohort::CohortSignalLedger;
/// use tidaldb::schema::{DecaySpec, EntityId, EntityKind, SchemaBuilder, Window};
/// use tidaldb::signals::checkpoint::CheckpointMeta;
/// use tidaldb::storage::InMemoryBackend;
///
/// let mut schema = SchemaBuilder::new();
/// let half_life = Duration::from_secs(7 * 86_400);
/// let _ = schema
///     .signal("view", EntityKind::Item, DecaySpec::Exponential { half_life })
///     .windows(&[Window::AllTime])
///     .add();
/// let schema = schema.build()?;
///
/// let ledger = CohortSignalLedger::new(&schema);
/// let view = ledger.resolve_signal_type("view").expect("declared");
/// ledger.record("us-18-24", EntityId::new(7), view, 1.0, 1_000_000_000_000)?;
///
/// let storage = InMemoryBackend::new();
/// let meta = CheckpointMeta { wal_sequence: 42, ..CheckpointMeta::default() };
/// ledger.checkpoint(&storage, meta)?;
///
/// let restored = CohortSignalLedger::new(&schema);
/// assert_eq!(restored.restore(&storage)?.expect("a checkpoint").wal_sequence, 42);
/// let count = restored.read_windowed_count("us-18-24", EntityId::new(7), "view", Window::AllTime)?;
/// assert_eq!(count, 1);
/// # Ok::<(), tidaldb::Error>(())
/// ```
pub struct CohortSignalLedger {
    schema: Schema,
    /// By signal type.
    specs: Vec<Arc<Spec>>,
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    /// In the order in which they were first recorded; the number of a cohort is its position + 1.
    names: Vec<String>,
    by_name: HashMap<String, CohortId>,
    ledger: Ledger,
    run: Run,
    newest: Timestamp,
}

/// The meta record on disk.
#[derive(Encode, Decode)]
struct MetaV1 {
    checkpoint_time_ns: u64,
    wal_sequence: u64,
    payload_hash: Hash,
    newest_ns: u64,
    names: Vec<String>,
    columns: Vec<ColumnV1>,
}

#[derive(Encode, Decode)]
struct ColumnV1 {
    cohort: u32,
    /// By name: numbers may differ between schemas.
    signal: String,
    rows: u64,
    pages: u32,
}

impl std::fmt::Debug for CohortSignalLedger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CohortSignalLedger").field("entries", &self.entry_count()).finish()
    }
}

impl CohortSignalLedger {
    /// An empty ledger for the signals of a schema. Cohorts need not be declared.
    pub fn new(schema: &Schema) -> Self {
        Self {
            schema: schema.clone(),
            specs: schema.signals().iter().map(|signal| Arc::new(Spec::of(signal))).collect(),
            inner: RwLock::default(),
        }
    }

    /// The number of a signal; `None` if the schema has none of that name.
    pub fn resolve_signal_type(&self, signal: &str) -> Option<SignalTypeId> {
        self.schema.signal_type(signal)
    }

    /// Counts one signal for a cohort, at `ts_ns` nanoseconds since the epoch.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](Error::InvalidArgument) for a signal number that the schema does not have,
    /// an empty cohort name, or a weight that is neither 0 nor 1e-100 to 1e100 in size; nothing is
    /// counted.
    pub fn record(
        &self,
        cohort: &str,
        entity: EntityId,
        signal: SignalTypeId,
        weight: f64,
        ts_ns: u64,
    ) -> Result<()> {
        let spec = self.specs.get(signal.get() as usize).ok_or_else(|| {
            Error::invalid("signal", format!("the schema has no number {signal}"))
        })?;
        if cohort.is_empty() {
            return Err(Error::invalid("cohort", "the name is empty"));
        }
        if !is_weight(weight) {
            return Err(Error::invalid("weight", format!("{weight} is refused")));
        }
        self.inner.write().record(cohort, entity, signal, spec, (weight, ts_ns));
        Ok(())
    }

    /// How many (cohort, item, signal) triples anything was counted for.
    pub fn entry_count(&self) -> usize {
        self.inner.read().ledger.tables().iter().map(|table| table.size().rows as usize).sum()
    }

    /// How many events counted for a cohort, in a window that ends at the newest event. A cohort that
    /// was never recorded has 0.
    ///
    /// # Errors
    ///
    /// [`UnknownName`](Error::UnknownName) for a signal that the schema does not have;
    /// [`InvalidArgument`](Error::InvalidArgument) for a window that the signal does not declare.
    pub fn read_windowed_count(
        &self,
        cohort: &str,
        entity: EntityId,
        signal: &str,
        window: Window,
    ) -> Result<u64> {
        let signal = self.schema.resolve(signal)?;
        let inner = self.inner.read();
        let scope = inner.by_name.get(cohort);
        let view = SignalView {
            column: scope.and_then(|&scope| inner.ledger.column(scope, signal)),
            spec: Arc::clone(&self.specs[signal.get() as usize]),
            now: inner.newest,
        };
        let mut out = [0];
        view.counts(&[entity], window, &mut out)?;
        Ok(out[0])
    }

    /// Writes everything in one atomic, synced batch. The hash in `meta` is computed, whatever it
    /// was.
    ///
    /// # Errors
    ///
    /// What the storage fails with; it then has this checkpoint or the one before.
    /// [`Corrupt`](Error::Corrupt), and nothing is written, when it could not be restored: above some ten
    /// million names and columns.
    pub fn checkpoint(
        &self,
        storage: &(impl StorageEngine + ?Sized),
        meta: CheckpointMeta,
    ) -> Result<()> {
        let mut ops = Vec::new();
        storage.scan(PREFIX, &mut |key, _| {
            ops.push(WriteOp::Delete { key: key.to_vec() });
            Ok(())
        })?;
        let inner = self.inner.write();
        let mut root = Hasher::new(Purpose::Root);
        let mut columns = Vec::new();
        for table in inner.ledger.tables() {
            let (cohort, signal) = Column::of_part(table.id().part).expect("made by this ledger");
            let cut = put_pages(&*table, &pages_of(columns.len() as u32), &mut root, &mut ops);
            let signal = self.schema.signals()[signal.get() as usize].name().to_owned();
            columns.push(ColumnV1 {
                cohort: cohort.get(),
                signal,
                rows: cut.rows,
                pages: cut.pages,
            });
        }
        let meta = MetaV1 {
            checkpoint_time_ns: meta.checkpoint_time_ns,
            wal_sequence: meta.wal_sequence,
            payload_hash: root.finish(),
            newest_ns: inner.newest.as_nanos(),
            names: inner.names.clone(),
            columns,
        };
        let payload = codec::to_sealed_bytes(&meta).map_err(|e| e.of("the meta record"))?;
        let (sealed, _) = codec::seal(Kind::Manifest, VERSION, &[META], &payload);
        ops.push(WriteOp::Put { key: META.to_vec(), value: sealed });
        storage.write_batch_synced(ops)
    }

    /// Replaces everything by what the storage has; `None`, and nothing changes, if it has no
    /// checkpoint. Nothing is believed before its hash.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](Error::Corrupt) when anything is damaged or missing, or of a signal that the schema
    /// does not have; [`FormatTooNew`](Error::FormatTooNew); what the storage fails with. Nothing
    /// changes then.
    pub fn restore(
        &self,
        storage: &(impl StorageEngine + ?Sized),
    ) -> Result<Option<CheckpointMeta>> {
        let Some(sealed) = storage.get(META)? else { return Ok(None) };
        let damaged = |e: codec::DecodeError| e.of("the cohort ledger's meta record");
        let (_, payload, _) =
            codec::open(Kind::Manifest, VERSION, &[META], &sealed).map_err(damaged)?;
        let meta: MetaV1 = codec::from_sealed_bytes(payload).map_err(damaged)?;
        let mut inner = Inner { newest: Timestamp::from_nanos(meta.newest_ns), ..Inner::default() };
        for name in meta.names {
            inner.cohort(&name);
        }
        let mut root = Hasher::new(Purpose::Root);
        for (index, column) in meta.columns.iter().enumerate() {
            self.restore_column(storage, &inner.ledger, index as u32, column, &mut root)?;
        }
        if root.finish() != meta.payload_hash {
            return Err(Error::corrupt("the cohort ledger", "a page is stale"));
        }
        inner.ledger.rebuild_tops(&|_| false);
        *self.inner.write() = inner;
        Ok(Some(CheckpointMeta {
            checkpoint_time_ns: meta.checkpoint_time_ns,
            wal_sequence: meta.wal_sequence,
            payload_hash: meta.payload_hash,
        }))
    }

    fn restore_column(
        &self,
        storage: &(impl StorageEngine + ?Sized),
        ledger: &Ledger,
        index: u32,
        column: &ColumnV1,
        root: &mut Hasher,
    ) -> Result<()> {
        let what = format!("the cohort ledger's column {index}");
        let signal = self.schema.signal_type(&column.signal).ok_or_else(|| {
            Error::corrupt(&*what, format!("the schema has no signal {:?}", column.signal))
        })?;
        let scope = CohortId::new(column.cohort);
        ledger.column_index(scope, signal, &self.specs[signal.get() as usize]);
        let table = ledger.column(scope, signal).expect("it was just made").table();
        let cut = TableCut { rows: column.rows, pages: column.pages, owed: 0 };
        restore_pages(&*table, cut, storage, &pages_of(index), root, &what)
    }
}

impl Inner {
    fn record(
        &mut self,
        cohort: &str,
        entity: EntityId,
        signal: SignalTypeId,
        spec: &Spec,
        (weight, ts_ns): (f64, u64),
    ) {
        let scope = self.cohort(cohort);
        let at = Timestamp::from_nanos(ts_ns);
        self.newest = self.newest.max(at);
        let column = self.ledger.column_index(scope, signal, spec);
        self.run.push(spec, std::iter::once(column), entity, weight, at, self.newest);
        self.run.commit(&self.ledger, &|_| false);
    }

    fn cohort(&mut self, name: &str) -> CohortId {
        if let Some(&cohort) = self.by_name.get(name) {
            return cohort;
        }
        self.names.push(name.to_owned());
        let cohort = CohortId::new(self.names.len() as u32);
        self.by_name.insert(name.to_owned(), cohort);
        cohort
    }
}

fn pages_of(column: u32) -> Vec<u8> {
    [PAGE, &column.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{DecaySpec, EntityKind, SchemaBuilder};
    use crate::storage::InMemoryBackend;
    use std::time::Duration;

    fn schema() -> Schema {
        let mut b = SchemaBuilder::new();
        let half_life = Duration::from_secs(7 * 86_400);
        let _ = b
            .signal("view", EntityKind::Item, DecaySpec::Exponential { half_life })
            .windows(&[Window::OneHour, Window::AllTime])
            .add();
        b.build().expect("sound")
    }

    fn written() -> (CohortSignalLedger, InMemoryBackend) {
        let ledger = CohortSignalLedger::new(&schema());
        let view = ledger.resolve_signal_type("view").expect("declared");
        for i in 0..200u64 {
            let cohort = if i % 3 == 0 { "b" } else { "a" };
            let at = 1_000_000_000_000 + i * 1_000_000_000;
            ledger.record(cohort, EntityId::new(i % 90), view, 1.0, at).expect("recorded");
        }
        let storage = InMemoryBackend::new();
        let meta = CheckpointMeta { wal_sequence: 42, ..CheckpointMeta::default() };
        ledger.checkpoint(&storage, meta).expect("written");
        (ledger, storage)
    }

    #[test]
    fn every_flipped_byte_and_every_missing_key_is_an_error_and_changes_nothing() {
        let (ledger, storage) = written();
        for (key, value) in storage.scan_prefix(b"").expect("scanned") {
            let fresh = CohortSignalLedger::new(&schema());
            storage.delete(&key).expect("deleted");
            match fresh.restore(&storage) {
                Ok(None) => assert_eq!(key, META),
                other => assert!(other.is_err(), "{key:?} missing: {other:?}"),
            }
            for at in 0..value.len() {
                let mut bad = value.clone();
                bad[at] ^= 1;
                storage.put(&key, &bad).expect("put");
                assert!(fresh.restore(&storage).is_err(), "byte {at} of {key:?}");
            }
            assert_eq!(fresh.entry_count(), 0);
            storage.put(&key, &value).expect("put back");
        }
        let fresh = CohortSignalLedger::new(&schema());
        let meta = fresh.restore(&storage).expect("restored").expect("there is one");
        assert_eq!(meta.wal_sequence, 42);
        assert_eq!(fresh.entry_count(), ledger.entry_count());
    }

    #[test]
    fn a_later_checkpoint_replaces_all_of_the_earlier() {
        let (_, storage) = written();
        let small = CohortSignalLedger::new(&schema());
        let view = small.resolve_signal_type("view").expect("declared");
        small.record("c", EntityId::new(1), view, 2.0, 5).expect("recorded");
        small.checkpoint(&storage, CheckpointMeta::default()).expect("written");
        let fresh = CohortSignalLedger::new(&schema());
        fresh.restore(&storage).expect("restored");
        assert_eq!(fresh.entry_count(), 1);
        let count =
            |cohort| fresh.read_windowed_count(cohort, EntityId::new(1), "view", Window::OneHour);
        assert_eq!((count("c").expect("read"), count("a").expect("read")), (1, 0));
    }
}

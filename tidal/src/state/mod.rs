//! The state machine: all tables, and the one order in which they see a record.
//!
//! Knows: which surfaces exist. Must not know: files, clocks, threads, how a record reached it.
//!
//! `apply(state, seq, time, record)` is one deterministic function: everything that a decision or a
//! sum depends on is in the tables, in the record, or in the engine time that the frame carries. A
//! refused record changes nothing but engine time.

mod apply;
mod header;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod malformed;
mod processors;
mod sessions;
mod work;

pub(crate) use apply::{Applier, Frame, Outcome, Reply};
pub(crate) use header::Header;
pub(crate) use sessions::Swept;
pub(crate) use work::Work;

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::co_engagement::CoEngagements;
use crate::codec::{DecodeError, Hash, Hasher, Purpose};
use crate::cohorts::{CohortNames, Users};
use crate::collections::Collections;
use crate::ids::{CohortId, EntityId, SignalTypeId, Timestamp};
use crate::ingest::{EventIds, Sources};
use crate::items::{self, Dictionary, Hidden};
use crate::processors::Processors;
use crate::schema::Schema;
use crate::sessions::{Deliveries, Sessions};
use crate::signals::{Column, Ledger, SignalView, Spec};
use crate::sync::RwLock;
use crate::table::{ColdTable, StateTable, StoreSlot, TableId};

/// The schema, and what follows from it for the cells.
pub(crate) struct Declared {
    pub(crate) schema: Schema,
    /// By signal type.
    pub(crate) specs: Vec<Arc<Spec>>,
    /// By signal type: whether its events are engagements. Empty when none are.
    engaging: Vec<bool>,
}

impl Declared {
    fn of(schema: Schema) -> Self {
        let specs = schema.signals().iter().map(|signal| Arc::new(Spec::of(signal))).collect();
        let engaging = match schema.co_engagement() {
            Some(_) => schema.signals().iter().map(|s| s.engaging().is_some()).collect(),
            None => Vec::new(),
        };
        Self { schema, specs, engaging }
    }

    /// Whether events of a signal are engagements.
    #[inline]
    fn is_engaging(&self, signal: SignalTypeId) -> bool {
        self.engaging.get(signal.get() as usize).is_some_and(|&is_engaging| is_engaging)
    }
}

/// Everything the engine knows. Read by anyone; changed by one thread, through an [`Applier`].
pub(crate) struct State {
    declared: ArcSwap<Declared>,
    header: RwLock<Header>,
    pub(crate) ledger: Ledger,
    pub(crate) cohorts: CohortNames,
    pub(crate) users: Users,
    pub(crate) hidden: Hidden,
    pub(crate) dictionary: Dictionary,
    pub(crate) sources: Sources,
    pub(crate) event_ids: EventIds,
    pub(crate) collections: Collections,
    pub(crate) metadata: Arc<ColdTable>,
    pub(crate) co_engagement: CoEngagements,
    pub(crate) sessions: Sessions,
    pub(crate) deliveries: Deliveries,
    pub(crate) processors: Processors,
}

impl State {
    /// Nothing has been applied yet.
    pub(crate) fn new() -> Self {
        Self::with(Header::default(), empty_schema())
    }

    /// The state a checkpoint's header describes, its tables still to be restored.
    pub(crate) fn from_header(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (header, schema) = Header::decode(bytes)?;
        Ok(Self::with(header, schema))
    }

    /// The header alone of what [`encode_header`](Self::encode_header) wrote.
    pub(crate) fn header_of(bytes: &[u8]) -> Result<Header, DecodeError> {
        Header::decode(bytes).map(|(header, _)| header)
    }

    fn with(header: Header, schema: Schema) -> Self {
        Self {
            declared: ArcSwap::from_pointee(Declared::of(schema)),
            header: RwLock::new(header),
            ledger: Ledger::default(),
            cohorts: CohortNames::new(),
            users: Users::new(),
            hidden: Hidden::new(),
            dictionary: Dictionary::new(),
            sources: Sources::new(),
            event_ids: EventIds::new(),
            collections: Collections::new(),
            metadata: Arc::new(ColdTable::new(items::METADATA)),
            co_engagement: CoEngagements::new(),
            sessions: Sessions::new(),
            deliveries: Deliveries::new(),
            processors: Processors::new(),
        }
    }

    pub(crate) fn header(&self) -> Header {
        *self.header.read()
    }

    pub(crate) fn declared(&self) -> Arc<Declared> {
        self.declared.load_full()
    }

    /// The part of a checkpoint that is in no table.
    pub(crate) fn encode_header(&self) -> Vec<u8> {
        self.header().encode(&self.declared().schema)
    }

    /// Every hot table, columns in the order of scope and signal. The list grows only between groups
    /// of operations.
    pub(crate) fn tables(&self) -> Vec<Arc<dyn StateTable>> {
        let mut tables = vec![
            self.cohorts.table(),
            self.users.table(),
            self.hidden.table(),
            self.dictionary.table(),
            self.sources.table(),
            self.event_ids.table(),
        ];
        tables.extend(self.co_engagement.tables());
        tables.extend(self.ledger.tables());
        tables.extend(self.collections.tables());
        tables.extend(self.sessions.tables());
        tables.push(self.deliveries.table());
        tables.extend(self.processors.tables());
        tables.sort_unstable_by_key(|table| table.id());
        tables
    }

    /// Every cold table.
    pub(crate) fn cold_tables(&self) -> Vec<Arc<ColdTable>> {
        let sessions = [self.sessions.records(), self.sessions.ended(), self.deliveries.events()];
        let tables = [&self.metadata].into_iter().chain(sessions);
        tables.chain([self.processors.outcomes()]).map(Arc::clone).collect()
    }

    /// A store has nothing: it is owed every page and row.
    pub(crate) fn owe_all(&self, store: StoreSlot) {
        self.tables().iter().for_each(|table| table.owe_all(store));
        self.cold_tables().iter().for_each(|table| table.owe_all(store));
    }

    /// The table that a checkpoint names, made if it is a column.
    pub(crate) fn table(&self, id: TableId) -> Result<Arc<dyn StateTable>, DecodeError> {
        let part_0 = |table| if id.part == 0 { Ok(table) } else { Err(UNKNOWN_TABLE) };
        match id.kind {
            CohortNames::KIND => part_0(self.cohorts.table()),
            Users::KIND => part_0(self.users.table()),
            Hidden::KIND => part_0(self.hidden.table()),
            Dictionary::KIND => part_0(self.dictionary.table()),
            Sources::KIND => part_0(self.sources.table()),
            EventIds::KIND => part_0(self.event_ids.table()),
            CoEngagements::EDGES => part_0(self.co_engagement.edges_table()),
            CoEngagements::TRAILS => part_0(self.co_engagement.trails_table()),
            CoEngagements::REVISITS => part_0(self.co_engagement.revisits_table()),
            Collections::ROWS => part_0(self.collections.rows()),
            Collections::CHUNKS => part_0(self.collections.chunks()),
            Sessions::ROWS => part_0(self.sessions.rows()),
            Sessions::RATES => part_0(self.sessions.rates()),
            Deliveries::CURSORS => part_0(self.deliveries.table()),
            Processors::ROWS => part_0(self.processors.rows()),
            Processors::ATTEMPTS => part_0(self.processors.attempts()),
            Processors::JOBS => part_0(self.processors.jobs()),
            Column::KIND => {
                let (scope, signal) = Column::of_part(id.part).ok_or(UNKNOWN_TABLE)?;
                let declared = self.declared();
                let spec = declared.specs.get(signal.get() as usize).ok_or(UNKNOWN_TABLE)?;
                self.ledger.column_index(scope, signal, spec);
                let column = self.ledger.column(scope, signal).expect("it was just made");
                Ok(column.table())
            }
            _ => Err(UNKNOWN_TABLE),
        }
    }

    /// Builds what is derived across tables, after all of them were restored, and refuses tables that
    /// contradict each other.
    pub(crate) fn end_restore(&self) -> Result<(), DecodeError> {
        self.collections.check_restored(self.header().operations)?;
        let last_scope = self.cohorts.last();
        if self.users.last_cohort() > last_scope {
            return Err(DecodeError::Malformed("a user in a cohort that does not exist"));
        }
        let engine_time = self.header().engine_time;
        self.ledger.check_restored(last_scope, engine_time)?;
        let declared = self.declared();
        self.co_engagement.check_restored(declared.schema.co_engagement(), engine_time)?;
        let Header { operations, incarnation, .. } = self.header();
        let counts = (operations, incarnation);
        self.sessions.check_restored(&declared.schema, counts, engine_time)?;
        self.restore_processors()?;
        self.deliveries.check_restored()?;
        let hidden = self.hidden.held();
        self.ledger.rebuild_tops(&|item| hidden.contains(item));
        Ok(())
    }

    /// One signal in one scope at one moment.
    pub(crate) fn signal(
        &self,
        declared: &Declared,
        scope: Option<CohortId>,
        signal: SignalTypeId,
        now: Timestamp,
    ) -> SignalView {
        let column = scope.and_then(|scope| self.ledger.column(scope, signal));
        let spec = Arc::clone(&declared.specs[signal.get() as usize]);
        SignalView { column, spec, now }
    }

    /// Whether an item is kept out of rankings.
    pub(crate) fn is_hidden(&self, item: EntityId) -> bool {
        self.hidden.contains(item)
    }

    /// BLAKE3 over a canonical dump of all that operations made: equal for equal states, whatever
    /// their layout, and however they were reached. Control frames leave no trace in it, but for an open
    /// whose policy ends or prolongs sessions. `cold` has the row count and the sum of row hashes of
    /// each cold table; in that of ended sessions those that are hot are counted in.
    pub(crate) fn digest(&self, cold: &[(u8, u64, Hash)]) -> Hash {
        let header = self.header();
        let now = header.operation_time;
        let mut digest = Hasher::new(Purpose::Digest);
        digest.update(&now.as_nanos().to_le_bytes());
        digest.update(&self.declared().schema.to_bytes());
        for table in self.tables() {
            // A table without rows is no state: a column may be made by a refused batch. In which table
            // a session is depends on who noticed that it is over; who has been told of what, and when
            // somebody ran, is no state either.
            let is_state =
                !matches!(table.id().kind, Sessions::ROWS | Deliveries::CURSORS | Processors::JOBS);
            let TableId { kind, part } = table.id();
            if kind == EventIds::KIND {
                // Which rows are still there of those that count for nothing is no state.
                let head = [&[kind][..], &part.to_le_bytes()].concat();
                self.event_ids.digest((now, header.event_id_horizon_ns), &head, &mut digest);
            } else if table.size().rows > 0 && is_state {
                table.digest(now, digest.update(&[kind]).update(&part.to_le_bytes()));
            }
        }
        let is_state =
            |table, rows| table == items::METADATA || (rows > 0 && table != Deliveries::EVENTS);
        for (table, rows, sum) in cold.iter().filter(|&&(table, rows, _)| is_state(table, rows)) {
            digest.update(&[*table]).update(&rows.to_le_bytes()).update(sum);
        }
        digest.finish()
    }

    /// Checks every invariant of the tables; the sentences say which are broken.
    pub(crate) fn check(&self) -> Vec<String> {
        // The lock is given back before the tables take theirs: it is that of one of them, and a
        // second read behind a waiting writer would wait for ever.
        let derived = {
            let hidden = self.hidden.held();
            self.ledger.check(&|item| hidden.contains(item)).err()
        };
        let rules = self.declared().schema.co_engagement().copied();
        let co_engagement = self.co_engagement.check(rules.as_ref()).err();
        let tables = self.tables();
        let broken = tables.iter().filter_map(|table| {
            table.check().err().map(|broken| format!("{}: {broken}", table.id()))
        });
        let collections = self.collections.check().err();
        let sessions = self.sessions.check(&self.declared().schema).err();
        let deliveries = self.deliveries.check().err();
        let processors = self.check_processors().err();
        let across = [derived, co_engagement, collections, sessions, deliveries, processors];
        let across = across.into_iter().flatten();
        across.chain(broken).collect()
    }
}

const UNKNOWN_TABLE: DecodeError =
    DecodeError::Malformed("a table that this version does not know");

/// The schema before the log's first record, which is the schema.
fn empty_schema() -> Schema {
    crate::schema::SchemaBuilder::new().build().expect("an empty schema contradicts nothing")
}

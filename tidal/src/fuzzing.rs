//! A way in for hostile bytes: one function for each thing that tidal reads from a disk.
//!
//! Knows: which rooms read bytes that may be anything. Must not know: who makes the bytes, be it a
//! fuzzer (`fuzz/`) or a suite (`tests/fuzz_seeds.rs`). Not for use by anyone else.
//!
//! A function returns, whatever it is given; what it finds is asserted inside: that what was read is
//! written and read again as the same, and that a state which was accepted is sound. What lies behind
//! a hash is tried twice, as given and with its hashes made right, because no mutation gets past a
//! hash and a hash is no reason to believe a length.
//!
//! Inputs, integers little-endian, `bytes` with a varint length before them:
//!
//! ```text
//! segment   segment files, one after the other
//! record    kind u8 | body
//! apply     frames: kind u8 | engine time u64 | body bytes
//! page      tables: kind u8 | part u64 | rows varint | page count u8 | page bytes each
//! manifest  pairs of a store: key bytes | payload bytes
//! schema    a schema; and a state header
//! ```

mod disk;
mod seeds;

pub use seeds::seeds;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::checkpoint::StorePair;
use crate::codec::{self, DecodeError, Hash, Kind, Purpose, Put, Reader, truncated};
use crate::fault::Faults;
use crate::ids::{CollectionId, DatabaseId, EntityId, SignalTypeId, Timestamp, UserId};
use crate::record::{
    CollectionEdit, Edit, Record, RecordKind, SignalBatch, SignalBatchWriter, SignalEvent,
};
use crate::recovery::StateLoader;
use crate::schema::{
    CoEngagement, DecaySpec, EntityKind, Lane, Predicate, RateLimit, Schema, SchemaBuilder,
    SessionPolicy, Window,
};
use crate::seq::Seq;
use crate::state::{Applier, Frame, State};
use crate::storage::{InMemoryBackend, StorageEngine};
use crate::table::{DurableTable, PageImage, StoreSlot, TableCut, TableId};
use crate::wal::{LogOptions, Scan};
use disk::MemoryDisk;

/// A function that must return, whatever it is given: whether it was accepted, all the way.
pub type Target = fn(&[u8]) -> bool;

/// Every target by the name of its seeds and of its shim in `fuzz/fuzz_targets`.
pub const TARGETS: [(&str, Target); 6] = [
    ("segment", segment),
    ("record", record),
    ("apply", apply),
    ("page", page),
    ("manifest", manifest),
    ("schema", schema),
];

const DB: DatabaseId = DatabaseId::new(*b"tidal fuzz seeds");
const START: Timestamp = Timestamp::from_secs(1_700_000_000);
const LOG: &str = "log";
const LOG_OPTIONS: LogOptions = LogOptions { segment_size_bytes: 2_048, faults: Faults::NONE };

/// Panics when its input begins with `canary`: a harness that does not notice finds nothing else.
///
/// # Panics
///
/// As it says.
pub fn canary(bytes: &[u8]) -> bool {
    assert!(!bytes.starts_with(b"canary"), "the canary sang");
    true
}

/// The schema that states begin with: each kind of signal, window and cohort, and co-engagement.
fn declared(extended: bool) -> Schema {
    let mut b = plain(extended);
    let buy = b.signal("buy", EntityKind::Item, DecaySpec::None).windows(&BUY_WINDOWS);
    let _ = buy.engaging().add();
    b.co_engagement(co_engagement(extended));
    b.build().expect("a sound schema")
}

/// The same without what version 1 of a stored schema does not know.
fn of_version_1() -> Schema {
    let mut b = plain(true);
    let _ = b.signal("buy", EntityKind::Item, DecaySpec::None).windows(&BUY_WINDOWS).add();
    b.build().expect("a sound schema")
}

/// The same with what only version 3 knows.
fn with_sessions() -> Schema {
    let mut b = plain(true);
    let _ =
        b.signal("buy", EntityKind::Item, DecaySpec::None).windows(&BUY_WINDOWS).engaging().add();
    b.co_engagement(co_engagement(true));
    let mut chat = SessionPolicy::new("chat");
    chat.idle_timeout = Duration::from_secs(300);
    chat.late_grace = Duration::from_secs(3_600);
    chat.signals = Some(vec!["view".to_owned(), "buy".to_owned()]);
    chat.rate_limit = Some(RateLimit { signals: 3, per: Duration::from_secs(1) });
    b.session_policy(chat).session_policy(SessionPolicy::new("agent")).session_lane(Lane::User);
    b.build().expect("a sound schema")
}

const BUY_WINDOWS: [Window; 1] = [Window::TwentyFourHours];

fn plain(extended: bool) -> SchemaBuilder {
    let mut b = SchemaBuilder::new();
    let decay = DecaySpec::Exponential { half_life: Duration::from_secs(3_600) };
    let windows = [Window::OneHour, Window::TwentyFourHours, Window::SevenDays, Window::ThirtyDays];
    let view = b.signal("view", EntityKind::Item, decay).velocity(true).windows(&windows);
    let _ = match extended {
        true => view.half_lives(&[Duration::from_secs(60), Duration::from_secs(86_400)]).add(),
        false => view.half_lives(&[Duration::from_secs(60)]).add(),
    };
    let _ = b.signal("like", EntityKind::User, decay).add();
    b.cohort("young", !Predicate::range("age", 30.0..).or(Predicate::eq("plan", "trial")));
    b.cohort_family("country", 3);
    b.named_cohort("picked");
    b
}

/// Co-engagement within bounds that a few events reach; the extended schema raises them.
fn co_engagement(extended: bool) -> CoEngagement {
    let mut settings = CoEngagement::default();
    (settings.recent_items, settings.trail_items_max, settings.trails_max) = (2, 3, 3);
    (settings.neighbours_max, settings.capacity) = if extended { (4, 20) } else { (2, 6) };
    settings.trail_idle = Duration::from_secs(365 * 86_400);
    settings
}

/// A state that has a schema.
fn begun() -> State {
    let state = State::new();
    let bytes = declared(false).to_bytes();
    let body = Record::Schema(&bytes).encode();
    let frame =
        Frame { seq: Seq::new(1), time: START, kind: RecordKind::Schema as u8, body: &body };
    Applier::default().apply(&state, std::iter::once(frame)).expect("a schema is a record");
    state
}

fn assert_sound(state: &State) -> Hash {
    assert_eq!(state.check(), Vec::<String>::new(), "what was accepted is sound");
    state.digest(&[])
}

/// A log of these segment files: scanned, resolved, replayed into a state, made ready, scanned again.
pub fn segment(bytes: &[u8]) -> bool {
    let segments = split_at_magic(bytes, b"TIDALSEG");
    let as_given = read_log(&segments);
    read_log(&segments.into_iter().map(rehashed).collect::<Vec<_>>()) || as_given
}

fn split_at_magic(bytes: &[u8], magic: &[u8; 8]) -> Vec<Vec<u8>> {
    let starts = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(magic)).skip(1);
    let ends = starts.clone().chain([bytes.len()]);
    [0].into_iter().chain(starts).zip(ends).map(|(start, end)| bytes[start..end].to_vec()).collect()
}

fn read_log(segments: &[Vec<u8>]) -> bool {
    let disk = Arc::new(MemoryDisk::default());
    let mut database = DB;
    for bytes in segments {
        // The header says which database and which sequence: whole files of any log are segments.
        let mut reader = Reader::new(bytes.get(16..).unwrap_or_default());
        let (Ok(id), Ok(first)) = (reader.array(), reader.u64()) else { continue };
        database = DatabaseId::new(id);
        disk.put(Path::new(LOG).join(format!("{first:020}.seg")), bytes.clone());
    }
    let scan = || Scan::run(Arc::clone(&disk) as _, LOG.into(), database);
    if let Ok(scan) = scan() {
        let _ = scan.resolve_as_is();
    }
    let Ok(tail) = scan().and_then(|scan| scan.resolve(&[])) else { return false };
    let (state, mut applier) = (State::new(), Applier::default());
    let mut is_broken = false;
    let before = Seq::new(tail.first().get() - 1);
    let replayed = tail.replay(before, |frame| {
        let frame = Frame { seq: frame.seq, time: frame.time, kind: frame.kind, body: frame.body };
        is_broken |= before > Seq::ZERO
            || (!is_broken && applier.apply(&state, std::iter::once(frame)).is_err());
        Ok(())
    });
    assert!(replayed.is_ok(), "what a scan has seen is replayed: {replayed:?}");
    if !is_broken {
        assert_sound(&state);
    }
    let last = tail.last();
    tail.finish(LOG_OPTIONS).expect("a log that was resolved is made ready");
    let again = scan().and_then(|scan| scan.resolve(&[])).expect("a log that was made ready");
    assert_eq!(again.last(), last, "making a log ready loses no frame");
    !is_broken
}

/// A segment with the hashes that its bytes should have, up to the first thing that is no frame.
fn rehashed(mut bytes: Vec<u8>) -> Vec<u8> {
    const BLOCK: usize = 512;
    for block in bytes.chunks_exact_mut(BLOCK).take(2).filter(|block| block[0] != 0) {
        let (hashed, hash) = block.split_at_mut(BLOCK - 32);
        hash.copy_from_slice(&codec::hash(Purpose::Segment, hashed));
    }
    let (Some(database), Some(predecessor)) = (bytes.get(16..32), bytes.get(40..56)) else {
        return bytes;
    };
    let (database, mut predecessor) = (database.to_vec(), predecessor.to_vec());
    let mut at = 2 * BLOCK;
    while let Some(frame) = bytes.get_mut(at..).filter(|frame| frame.len() >= 88) {
        let body_len = u32::from_le_bytes([frame[4], frame[5], frame[6], frame[7]]) as usize;
        let Some(body) = frame.get(88..).and_then(|rest| rest.get(..body_len)) else { break };
        let body_hash = truncated(&codec::hash(Purpose::Frame, body));
        frame[40..56].copy_from_slice(&predecessor);
        frame[56..72].copy_from_slice(&body_hash);
        let hashed = [&database[..], &frame[..72]].concat();
        predecessor = truncated(&codec::hash(Purpose::Frame, &hashed)).to_vec();
        frame[72..88].copy_from_slice(&predecessor);
        at += 88 + body_len;
    }
    bytes
}

/// A record: decoded with all its events, written again, and read again as the same.
pub fn record(bytes: &[u8]) -> bool {
    let Some((&kind, body)) = bytes.split_first() else { return false };
    match Record::decode(kind, body) {
        Err(_) => false,
        Ok(Record::Signals(batch)) => {
            let Some(written) = rewritten(&batch) else { return false };
            let again = match Record::decode(kind, &written) {
                Ok(Record::Signals(batch)) => rewritten(&batch),
                other => panic!("a batch that was read is no batch when written: {other:?}"),
            };
            assert_eq!(again, Some(written), "a batch is read as it is written");
            true
        }
        Ok(record) => {
            let written = record.encode();
            assert_eq!(Record::decode(kind, &written).as_ref(), Ok(&record));
            true
        }
    }
}

/// The batch as the writer writes it; `None` when one of its events is malformed.
fn rewritten(batch: &SignalBatch<'_>) -> Option<Vec<u8>> {
    let events: Vec<SignalEvent> = batch.events().collect::<Result<_, _>>().ok()?;
    let mut writer =
        SignalBatchWriter::new(batch.source, &batch.cohorts, batch.latest, events.len());
    events.iter().for_each(|event| writer.push(event.signal, event));
    Some(writer.finish())
}

/// A log's frames, applied to a state one by one, and to another in one group that was guessed:
/// refused by both, or accepted by both with the same outcomes and the same digest.
pub fn apply(bytes: &[u8]) -> bool {
    let Ok(frames) = frames_of(bytes) else { return false };
    let (one, grouped) = (begun(), begun());
    let mut applier = Applier::default();
    let singly: Result<Vec<_>, _> = frames
        .iter()
        .map(|&frame| applier.apply(&one, std::iter::once(frame)).map(|mut done| done.pop()))
        .collect();
    let mut applier = Applier::default();
    applier.speculate(&grouped, frames.iter().map(|frame| (frame.time, frame.kind, frame.body)));
    let together = applier.apply(&grouped, frames.iter().copied());
    assert_eq!(singly.is_ok(), together.is_ok(), "{singly:?} and {together:?}");
    let (Ok(singly), Ok(together)) = (singly, together) else { return false };
    let together: Vec<_> = together.into_iter().map(Some).collect();
    assert_eq!(format!("{singly:?}"), format!("{together:?}"), "outcomes");
    assert_eq!(assert_sound(&one), assert_sound(&grouped), "groups change nothing");
    true
}

fn frames_of(bytes: &[u8]) -> Result<Vec<Frame<'_>>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let mut seq = Seq::new(1);
    let mut frames = Vec::new();
    while reader.remaining() > 0 {
        seq = seq.next();
        let (kind, time) = (reader.u8()?, Timestamp::from_nanos(reader.u64()?));
        frames.push(Frame { seq, time, kind, body: reader.bytes()? });
    }
    Ok(frames)
}

/// Tables of a checkpoint, restored into a state. If that is accepted, it is sound, goes on counting,
/// and comes back from a checkpoint of its own.
pub fn page(bytes: &[u8]) -> bool {
    let header = aged().encode_header();
    let state = State::from_header(&header).expect("it was just encoded");
    if restore(&state, bytes).is_err() {
        return false;
    }
    assert_sound(&state);
    let images = images_of(&state);
    let again = State::from_header(&header).expect("it was just encoded");
    restore(&again, &images).expect("what was accepted is accepted again");
    assert_eq!(assert_sound(&state), assert_sound(&again), "a checkpoint is what was there");
    go_on(&state, RecordKind::Signals, &touching(&state)).expect("events that are countable");
    for id in (0..=AGE).map(CollectionId::new) {
        for edit in changes() {
            let edit =
                CollectionEdit { collection: id, expected_version: None, edit, signals: None };
            let body = Record::ChangeCollection(edit).encode();
            go_on(&state, RecordKind::ChangeCollection, &body).expect("a change, or a refusal");
        }
    }
    assert_sound(&state);
    true
}

/// Operations of a state that tables are restored into: no collection is younger.
const AGE: u64 = 30;

/// A state that has seen operations.
fn aged() -> State {
    let state = begun();
    let body = Record::ShowItem(EntityId::new(1)).encode();
    for _ in 1..AGE {
        go_on(&state, RecordKind::ShowItem, &body).expect("it was just encoded");
    }
    state
}

/// Applies one more record.
fn go_on(state: &State, kind: RecordKind, body: &[u8]) -> Result<(), DecodeError> {
    let seq = state.header().applied.next();
    let frame = Frame { seq, time: START, kind: kind as u8, body };
    Applier::default().apply(state, std::iter::once(frame)).map(drop)
}

/// Changes that touch the beginning of a list, and turn all of it round.
fn changes() -> [Edit<'static>; 4] {
    let (first, last) = (EntityId::new(u64::MAX), EntityId::new(u64::MAX - 1));
    [
        Edit::Insert { item: first, at: 0, items_max: u64::MAX },
        Edit::Append { item: last, items_max: u64::MAX },
        Edit::Move { from: 0, count: 1, to: 1 },
        Edit::Remove(first),
    ]
}

fn restore(state: &State, bytes: &[u8]) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    let mut tables: Vec<(Arc<dyn DurableTable>, u64)> = Vec::new();
    let mut seen = BTreeSet::new();
    while reader.remaining() > 0 {
        let id = TableId { kind: reader.u8()?, part: reader.u64()? };
        let (rows, pages) = (reader.varint()?, u32::from(reader.u8()?));
        // A manifest names each table once.
        if !seen.insert(id) {
            return Err(DecodeError::Malformed("a table twice"));
        }
        let table = state.table(id)?;
        table.begin_restore(TableCut { rows, pages, owed: 0 })?;
        for page in 0..pages {
            table.restore_page(page, reader.bytes()?)?;
        }
        tables.push((table, rows));
    }
    tables.iter().try_for_each(|(table, rows)| table.end_restore(*rows, [false; 2]))?;
    state.end_restore()
}

/// All tables of a state that fit an input of [`page`].
fn images_of(state: &State) -> Vec<u8> {
    let mut out = Vec::new();
    for table in state.tables() {
        table.owe_all(StoreSlot::A);
        let shape = table.begin_cut(StoreSlot::A);
        let mut images: Vec<PageImage> = Vec::new();
        while table.take_pages(7, &mut images) {}
        table.end_cut(StoreSlot::A, true);
        images.sort_unstable_by_key(|image| image.page);
        out.put_u8(table.id().kind);
        out.put_u64(table.id().part);
        out.put_varint(shape.rows);
        out.put_u8(u8::try_from(shape.pages).expect("an input has at most 255 pages a table"));
        images.iter().for_each(|image| out.put_bytes(&image.bytes));
    }
    out
}

/// A batch that counts something in every cell there is, and at the edges of what is allowed; users
/// engage with every item, in old trails and in new ones.
fn touching(state: &State) -> Vec<u8> {
    let declared = state.declared();
    let ahead = START.saturating_add(crate::options::FUTURE_SKEW_MAX);
    let mut events = Vec::new();
    for signal in (0..declared.specs.len() as u16).map(SignalTypeId::new) {
        let column = state.ledger.column(crate::ids::CohortId::EVERYONE, signal);
        let cells = column.iter().flat_map(|column| {
            column.cells().iter().map(|(_, cell)| cell.entity).collect::<Vec<_>>()
        });
        for entity in cells.chain([EntityId::new(u64::MAX)]) {
            for at in [Timestamp::EPOCH, START, ahead] {
                let (user, cohorts, id) = (None, Default::default(), None);
                events.push(SignalEvent { signal, entity, weight: -1e100, at, user, cohorts, id });
                let user = Some(UserId::new(entity.get() % 4));
                let cohorts = Default::default();
                events.push(SignalEvent { signal, entity, weight: 1e-100, at, user, cohorts, id });
            }
        }
    }
    let mut writer = SignalBatchWriter::new(None, &[""; 0], ahead, events.len());
    events.iter().for_each(|event| writer.push(event.signal, event));
    writer.finish()
}

/// A checkpoint store of these pairs, verified, and restored if it holds.
pub fn manifest(bytes: &[u8]) -> bool {
    let Ok(pairs) = pairs_of(bytes) else { return false };
    let sealed = |&(key, payload): &Pair<'_>| {
        let kind = match key.first() {
            Some(1) => Kind::Manifest,
            Some(2) => Kind::Page,
            _ => Kind::Row,
        };
        codec::seal(kind, 1, &[DB.as_bytes(), key], payload).0
    };
    let as_given = read_store(pairs.iter().map(|&(key, value)| (key, value.to_vec())));
    read_store(pairs.iter().map(|pair| (pair.0, sealed(pair)))) || as_given
}

/// A key and what lies under it.
type Pair<'a> = (&'a [u8], &'a [u8]);

fn pairs_of(bytes: &[u8]) -> Result<Vec<Pair<'_>>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let mut pairs = Vec::new();
    while reader.remaining() > 0 {
        pairs.push((reader.bytes()?, reader.bytes()?));
    }
    Ok(pairs)
}

fn read_store<'a>(pairs: impl Iterator<Item = (&'a [u8], Vec<u8>)>) -> bool {
    let [engine, empty] = [InMemoryBackend::new(), InMemoryBackend::new()].map(Arc::new);
    for (key, value) in pairs {
        if engine.put(key, &value).is_err() {
            return false;
        }
    }
    let mut loader = StateLoader::default();
    let engines = [Ok(engine as Arc<dyn StorageEngine>), Ok(empty as Arc<dyn StorageEngine>)];
    let opened = StorePair::open(DB, engines, &mut loader);
    let Ok((_, Some(loaded))) = opened else { return false };
    let Ok(state) = loader.finish(&loaded) else { return false };
    assert_sound(&state);
    true
}

/// A schema, and the header of a state, which ends with one.
pub fn schema(bytes: &[u8]) -> bool {
    let (schema, state) = (Schema::from_bytes(bytes), State::from_header(bytes));
    if let Ok(schema) = &schema {
        let written = schema.to_bytes();
        let again = Schema::from_bytes(&written).expect("what was accepted is accepted again");
        assert_eq!(again, *schema, "a schema is read as it is written");
        assert_eq!(again.to_bytes(), written, "equal schemas have equal bytes");
        for text in ["", "0", "31", "trial", "NaN", "-0"] {
            schema.cohorts_of(|_| Some(text));
        }
        let at = crate::schema::ExtendedAt { seq: Seq::new(9), time: START };
        let (declared, with_sessions) = (declared(true), with_sessions());
        let _ = declared.extend(schema, at);
        let _ = schema.extend(&declared, at);
        let _ = with_sessions.extend(&schema.over(&with_sessions), at);
        let _ = schema.extend(&with_sessions.over(schema), at);
    }
    if let Ok(state) = &state {
        let again = State::from_header(&state.encode_header()).expect("it was just encoded");
        assert_eq!(assert_sound(state), assert_sound(&again));
    }
    schema.is_ok() || state.is_ok()
}

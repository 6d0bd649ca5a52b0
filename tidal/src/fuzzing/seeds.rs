//! Real inputs to mutate: what the engine itself writes, of every kind.
//!
//! Knows: how to make a small state, log and store. Must not know: where seeds are kept.
//!
//! Every byte follows from this file and the formats, so a seed that changed is a format that did.

mod processors;
mod sessions;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::disk::MemoryDisk;
use super::{DB, LOG, LOG_OPTIONS, START, begun, declared, images_of, of_version_1, with_sessions};
use crate::checkpoint::{Cut, Position, StorePair};
use crate::codec::Put;
use crate::ids::{CollectionId, EntityId, SignalTypeId, Timestamp, UserId};
use crate::options::OpenPolicy;
use crate::record::{
    Attributes, CollectionEdit, Edit, NewCollection, Opened, Record, RecordKind, SignalBatchWriter,
    SignalEvent, SourceRange, Visibility, encode_attributes,
};
use crate::recovery::StateLoader;
use crate::seq::Seq;
use crate::state::{Applier, Frame, State};
use crate::storage::{Disk, InMemoryBackend, StorageEngine};
use crate::table::{DurableTable, StoreSlot};
use crate::wal::{FrameBody, Log};

/// A frame before it has a position.
struct Step {
    kind: u8,
    time: Timestamp,
    body: Vec<u8>,
}

/// Every seed: the target, a name, and the bytes.
pub fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let history = history();
    let state = state_of(&history);
    let pairs = pairs(&state);
    let mut seeds = vec![
        ("segment", "unsealed", segments(&history[..3]).concat()),
        ("segment", "all", segments(&history).concat()),
        ("apply", "history", frames(&history)),
        ("apply", "signals", frames(&history[3..6])),
        ("page", "all", cells_of(&history[..10])),
        ("page", "cells", cells_of(&history[3..4])),
        ("page", "co_engagement", images_of(&engaged())),
        ("manifest", "payloads", as_pairs(&pairs, opened)),
        ("manifest", "sealed", as_pairs(&pairs, <[u8]>::to_vec)),
        ("schema", "small", declared(false).to_bytes()),
        ("schema", "extended", declared(true).to_bytes()),
        ("schema", "header", state.encode_header()),
        ("schema", "version_1", of_version_1().to_bytes()),
        ("schema", "sessions", with_sessions().to_bytes()),
    ];
    let names = [
        "opened",
        "user",
        "another_user",
        "batch",
        "batch_of_source",
        "batch_with_ids",
        "item",
        "hide",
        "show",
        "intern",
        "schema",
        "delete",
        "reset_clock",
        "late_batch",
        "mark",
    ];
    assert_eq!(names.len(), history.len(), "each record of the history has a name");
    let records = names.into_iter().zip(&history);
    seeds.extend(
        records.map(|(name, step)| ("record", name, [&[step.kind], step.body.as_slice()].concat())),
    );
    let collecting = collecting();
    seeds.push(("apply", "collections", frames(&collecting)));
    seeds.push(("page", "collections", cells_of(&collecting)));
    let names = [
        "create_collection",
        "create_another",
        "append",
        "insert",
        "replace",
        "move",
        "remove",
        "rename",
        "set_visibility",
        "delete_collection",
    ];
    assert_eq!(names.len(), collecting.len(), "each record of collections has a name");
    seeds.extend(
        names
            .into_iter()
            .zip(&collecting)
            .map(|(name, step)| ("record", name, [&[step.kind], step.body.as_slice()].concat())),
    );
    seeds.extend(of_sessions());
    seeds.extend(of_processors());
    seeds
}

/// Those of sessions.
fn of_sessions() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let (visiting, others) = (sessions::history(), sessions::others());
    let all = visiting.iter().chain(&others);
    let mut seeds: Vec<_> = all.map(|(name, step)| ("record", *name, record(step))).collect();
    let visiting: Vec<Step> = visiting.into_iter().map(|(_, step)| step).collect();
    seeds.push(("apply", "sessions", frames(&visiting)));
    // The last of them ends all sessions, which then are in no page.
    seeds.push(("page", "sessions", cells_of(&visiting[..visiting.len() - 1])));
    seeds
}

/// Those of processors.
fn of_processors() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let history = processors::history();
    let mut seeds: Vec<_> =
        history.iter().map(|(name, step)| ("record", *name, record(step))).collect();
    let history: Vec<Step> = history.into_iter().map(|(_, step)| step).collect();
    seeds.push(("apply", "processors", frames(&history)));
    seeds.push(("page", "processors", cells_of(&history[..history.len() - 2])));
    seeds.push(("page", "attempts", cells_of(&history[..12])));
    seeds
}

/// The input of the target that reads one record.
fn record(step: &Step) -> Vec<u8> {
    [&[step.kind], step.body.as_slice()].concat()
}

/// A history with every change of a collection.
fn collecting() -> Vec<Step> {
    // The schema is the first operation.
    let collection = CollectionId::new(2);
    let item = EntityId::new;
    let create = |name, visibility| {
        Record::CreateCollection(NewCollection {
            owner: UserId::new(42),
            name,
            visibility,
            owned_max: 5,
        })
    };
    let signals = events(1, 1, None, true);
    let change = |edit, expected_version, signals| {
        Record::ChangeCollection(CollectionEdit { collection, expected_version, edit, signals })
    };
    let many = (0..150).map(|number| item(number * number)).collect();
    let records = [
        create("watch later", Visibility::Private),
        create("gone soon", Visibility::Unlisted),
        change(Edit::Append { item: item(7), items_max: 200 }, Some(1), Some(&signals[..])),
        change(Edit::Insert { item: item(8), at: 0, items_max: 200 }, None, None),
        change(Edit::Replace { items: many, items_max: 200 }, Some(3), None),
        change(Edit::Move { from: 10, count: 70, to: 3 }, None, None),
        change(Edit::Remove(item(9)), None, Some(&signals[..])),
        change(Edit::Rename("seen"), None, None),
        change(Edit::SetVisibility(Visibility::Public), Some(7), None),
        Record::DeleteCollection(CollectionId::new(3)),
    ];
    let time = START.saturating_add(Duration::from_secs(1));
    records
        .map(|record| Step { kind: record.kind() as u8, time, body: record.encode() })
        .into_iter()
        .collect()
}

/// A history with every kind of record but those of collections and sessions.
fn history() -> Vec<Step> {
    let opened = Opened {
        incarnation: 1,
        event_id_horizon_ns: 60_000_000_000,
        event_time: false,
        sessions: OpenPolicy::default(),
    };
    let user = |pairs: [(&str, &str); 2]| -> Attributes {
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    };
    let metadata = encode_attributes(&user([("title", "Aurora"), ("length", "93")]));
    let schema = declared(true).to_bytes();
    let source = SourceRange { name: "kafka:0", first: 1, last: 9, contiguous: true };
    let step = |passed: u64, record: Record<'_>| Step {
        kind: record.kind() as u8,
        time: START.saturating_add(Duration::from_secs(passed)),
        body: record.encode(),
    };
    let batch = |passed: u64, body: Vec<u8>| Step {
        kind: RecordKind::Signals as u8,
        time: START.saturating_add(Duration::from_secs(passed)),
        body,
    };
    vec![
        step(0, Record::Opened(opened)),
        step(1, Record::WriteUser(UserId::new(1), user([("age", "20"), ("country", "FR")]))),
        step(1, Record::WriteUser(UserId::new(2), user([("age", "44"), ("country", "DE")]))),
        batch(2, events(2, 12, None, false)),
        batch(60, events(60, 9, Some(source), false)),
        batch(70, events(70, 6, None, true)),
        step(71, Record::WriteItem(EntityId::new(3), &metadata)),
        step(72, Record::HideItem(EntityId::new(1))),
        step(73, Record::ShowItem(EntityId::new(1))),
        step(74, Record::Intern(vec!["aurora", "borealis"])),
        step(75, Record::Schema(&schema)),
        step(80, Record::DeleteItem(EntityId::new(2))),
        step(40, Record::ResetClock(START.saturating_add(Duration::from_secs(40)))),
        batch(9_000, events(3_000, 12, None, true)),
        step(9_001, Record::Mark),
    ]
}

/// A batch of events of all shapes, which end `passed` seconds after the start.
fn events(passed: u64, len: u64, source: Option<SourceRange<'_>>, with_ids: bool) -> Vec<u8> {
    let now = START.saturating_add(Duration::from_secs(passed));
    let mut writer = SignalBatchWriter::new(source, &["picked", "country=US"], now, len as usize);
    for i in 0..len {
        let event = SignalEvent {
            signal: SignalTypeId::new((i % 3) as u16),
            entity: EntityId::new(i * i % 5),
            weight: if i % 4 == 0 { 1.0 } else { i as f64 - 2.5 },
            at: now.saturating_sub(Duration::from_secs(i * i * i * 700)),
            user: (i % 2 == 0).then(|| UserId::new(1 + i % 3)),
            cohorts: (0..(i % 3) as u32).collect(),
            id: with_ids.then_some(u128::from(i / 2) << 64),
        };
        writer.push(event.signal, &event);
    }
    writer.finish()
}

fn state_of(history: &[Step]) -> State {
    let state = begun();
    let mut applier = Applier::default();
    let mut seq = Seq::new(1);
    for Step { kind, time, body } in history {
        seq = seq.next();
        let frame = Frame { seq, time: *time, kind: *kind, body };
        let outcomes = applier.apply(&state, std::iter::once(frame)).expect("a record");
        assert!(outcomes.iter().all(Result::is_ok), "the history is accepted: {outcomes:?}");
    }
    state
}

/// A state of trails and edges alone: more of both than is kept.
fn engaged() -> State {
    let mut writer = SignalBatchWriter::new(None, &[""; 0], START, 24);
    for i in 0..24u64 {
        let event = SignalEvent {
            signal: SignalTypeId::new(0),
            entity: EntityId::new(i * i % 7),
            weight: 1.0,
            at: START.saturating_sub(Duration::from_secs(24 - i)),
            user: Some(UserId::new(i / 3 % 5)),
            cohorts: Default::default(),
            id: None,
        };
        writer.push(event.signal, &event);
    }
    state_of(&[Step { kind: RecordKind::Signals as u8, time: START, body: writer.finish() }])
}

/// The history as a log of several segments, each without the zeros that wait for frames.
fn segments(history: &[Step]) -> Vec<Vec<u8>> {
    let disk = Arc::new(MemoryDisk::default());
    let create = || Log::create(Arc::clone(&disk) as _, LOG.into(), DB, LOG_OPTIONS);
    let schema = declared(false).to_bytes();
    let first = Step { kind: RecordKind::Schema as u8, time: START, body: schema };
    let written = create().and_then(|mut log| {
        for Step { kind, time, body } in std::iter::once(&first).chain(history) {
            log.append(*time, &FrameBody::new(*kind, 1, body.clone())?);
            log.write_group()?;
            log.sync()?;
        }
        Ok(())
    });
    written.expect("a disk in memory does not fail");
    let paths = disk.list_dir(Path::new(LOG)).expect("a disk in memory does not fail");
    let trimmed = |path: std::path::PathBuf| {
        let mut bytes = disk.read_file(&path).expect("it was just listed");
        let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        bytes.truncate(used.max(1_024));
        bytes
    };
    paths.into_iter().map(trimmed).collect()
}

fn frames(history: &[Step]) -> Vec<u8> {
    let mut out = Vec::new();
    for step in history {
        out.put_u8(step.kind);
        out.put_u64(step.time.as_nanos());
        out.put_bytes(&step.body);
    }
    out
}

fn cells_of(history: &[Step]) -> Vec<u8> {
    images_of(&state_of(history))
}

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// What a checkpoint of the state leaves in a store.
fn pairs(state: &State) -> Pairs {
    let engines = [InMemoryBackend::new(), InMemoryBackend::new()].map(Arc::new);
    let opened = engines.clone().map(|engine| Ok(engine as Arc<dyn StorageEngine>));
    let (pair, _) = StorePair::open(DB, opened, &mut StateLoader::default())
        .expect("a store in memory does not fail");
    let header = state.header();
    let at = Position { seq: header.applied, frame_hash: [7; 16], time: header.engine_time };
    state.tables().iter().for_each(|table| table.owe_all(StoreSlot::A));
    let tables = state.tables().into_iter().map(|table| table as Arc<dyn DurableTable>);
    let cut = Cut::begin(StoreSlot::A, at, state.encode_header(), tables, state.cold_tables());
    let turn = pair.begin_checkpoint(&mut || {});
    pair.checkpoint(&turn, cut, &mut |_| {}).expect("a store in memory does not fail");
    engines[StoreSlot::A as usize].scan_prefix(&[]).expect("a store in memory does not fail")
}

/// The payload of an envelope: between 12 bytes of header and 32 of hash.
fn opened(sealed: &[u8]) -> Vec<u8> {
    sealed[12..sealed.len() - 32].to_vec()
}

fn as_pairs(pairs: &Pairs, value: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, sealed) in pairs {
        out.put_bytes(key);
        out.put_bytes(&value(sealed));
    }
    out
}

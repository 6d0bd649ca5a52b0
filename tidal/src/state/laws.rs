//! The laws that every table obeys, checked on all of them at once through random histories.

mod processors;
mod sessions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::{Applier, Frame, Outcome, State};
use crate::ids::{CollectionId, EntityId, SignalTypeId, Timestamp, UserId};
use crate::options::OpenPolicy;
use crate::record::{
    Attributes, CollectionEdit, Edit, NewCollection, Opened, Record, SignalBatchWriter,
    SignalEvent, SourceRange, Visibility, encode_attributes,
};
use crate::schema::{
    CoEngagement, DecaySpec, EntityKind, Predicate, Schema, SchemaBuilder, Window,
};
use crate::seq::Seq;
use crate::sessions::Sessions;
use crate::table::{PageImage, StateTable, StoreSlot, TableCut, TableId};

const START: u64 = 1_700_000_000;

fn schema(extended: bool) -> Schema {
    let mut b = SchemaBuilder::new();
    let decay = DecaySpec::Exponential { half_life: Duration::from_secs(3_600) };
    let windows = [Window::OneHour, Window::TwentyFourHours, Window::ThirtyDays];
    let view = b.signal("view", EntityKind::Item, decay).velocity(true);
    let _ = if extended {
        view.windows(&windows).half_lives(&[Duration::from_secs(60)]).add()
    } else {
        view.windows(&windows[..1]).add()
    };
    let buy = b.signal("buy", EntityKind::Item, DecaySpec::None).windows(&windows[1..]);
    let _ = buy.engaging().add();
    b.co_engagement(co_engagement(extended));
    b.cohort("young", Predicate::range("age", ..30.0));
    b.cohort_family("country", 2);
    b.named_cohort("picked");
    sessions::declare(&mut b);
    if extended {
        let _ = b.signal("cart", EntityKind::Item, decay).engaging().add();
        b.cohort("old", Predicate::range("age", 30.0..));
    }
    b.build().expect("sound")
}

/// Bounds that a history reaches; the extended schema raises them.
fn co_engagement(extended: bool) -> CoEngagement {
    let mut settings = CoEngagement::default();
    (settings.recent_items, settings.trail_items_max, settings.trails_max) = (3, 4, 6);
    (settings.neighbours_max, settings.capacity) = if extended { (6, 40) } else { (3, 14) };
    settings.trail_idle = Duration::from_secs(20_000);
    settings.anonymous_trail = extended;
    settings
}

/// A frame before it has a position: kind, body, and how much later than the one before it is.
type Step = (u8, Vec<u8>, u64);

fn batch() -> impl Strategy<Value = Step> {
    let event = (0u64..12, 0u16..2, -5..20i32, 0u64..200_000, prop::option::of(0u64..4));
    let event = (event, prop::option::of(0u32..2), prop::option::of(0u128..30));
    let source = prop::option::of((0u64..40, 0u64..5, any::<bool>()));
    (prop::collection::vec(event, 0..30), source, 0u64..4_000).prop_map(
        |(events, source, passed)| {
            let source = source.map(|(first, len, contiguous)| SourceRange {
                name: "source",
                first,
                last: first + len,
                contiguous,
            });
            let names = ["picked", "country=FR"];
            let latest = Timestamp::from_secs(START);
            let mut writer = SignalBatchWriter::new(source, &names, latest, events.len());
            for ((entity, signal, weight, late, user), cohort, id) in events {
                let event = SignalEvent {
                    signal: SignalTypeId::new(signal),
                    entity: EntityId::new(entity),
                    weight: f64::from(weight) / 2.0,
                    at: Timestamp::from_secs(START - late),
                    user: user.map(UserId::new),
                    cohorts: cohort.into_iter().collect(),
                    id,
                };
                writer.push(event.signal, &event);
            }
            (1, writer.finish(), passed)
        },
    )
}

fn other() -> impl Strategy<Value = Step> {
    let step = |record: Record<'_>, passed| (record.kind() as u8, record.encode(), passed);
    let item = 0u64..12;
    let user = (0u64..4, 10..60u32, prop::sample::select(vec!["FR", "DE", "US"]));
    prop_oneof![
        user.prop_map(move |(user, age, country)| {
            let pairs = [("age", age.to_string()), ("country", country.to_owned())];
            let pairs: Attributes = pairs.map(|(k, v)| (k.to_owned(), v)).into();
            step(Record::WriteUser(UserId::new(user), pairs), 1)
        }),
        (item.clone(), "[a-z]{0,9}").prop_map(move |(item, text)| {
            let metadata = encode_attributes(&[("title".to_owned(), text)].into());
            step(Record::WriteItem(EntityId::new(item), &metadata), 60)
        }),
        item.clone().prop_map(move |item| step(Record::DeleteItem(EntityId::new(item)), 600)),
        item.clone().prop_map(move |item| step(Record::HideItem(EntityId::new(item)), 5)),
        item.prop_map(move |item| step(Record::ShowItem(EntityId::new(item)), 5)),
        prop::collection::vec("[a-c]{1,2}", 1..4).prop_map(move |texts| {
            step(Record::Intern(texts.iter().map(String::as_str).collect()), 0)
        }),
        Just(()).prop_map(move |()| step(Record::Schema(&schema(true).to_bytes()), 3)),
        Just(()).prop_map(move |()| step(Record::Mark, 0)),
        (0u64..7_000).prop_map(move |back| {
            step(Record::ResetClock(Timestamp::from_secs(START - back)), 0)
        }),
    ]
}

/// Three collections that each history begins with.
fn creations() -> [Record<'static>; 3] {
    [Visibility::Private, Visibility::Unlisted, Visibility::Public].map(|visibility| {
        let owner = UserId::new(1);
        Record::CreateCollection(NewCollection { owner, name: "list", visibility, owned_max: 9 })
    })
}

/// A change of one of them, or of one that does not exist; with a signal, or without.
fn collecting() -> impl Strategy<Value = Step> {
    let item = || (0u64..90).prop_map(EntityId::new);
    let at = 0u64..60;
    let edit = prop_oneof![
        3 => item().prop_map(|item| Edit::Append { item, items_max: 80 }),
        2 => (item(), at.clone()).prop_map(|(item, at)| Edit::Insert { item, at, items_max: 80 }),
        2 => item().prop_map(Edit::Remove),
        2 => (at.clone(), 0u64..40, at).prop_map(|(from, count, to)| Edit::Move { from, count, to }),
        1 => prop::collection::hash_set(item(), 0..90).prop_map(|items| {
            let mut items: Vec<EntityId> = items.into_iter().collect();
            items.sort_unstable();
            Edit::Replace { items, items_max: 80 }
        }),
        1 => Just(Edit::Rename("another")),
        1 => Just(Edit::SetVisibility(Visibility::Public)),
    ];
    // The schema was the first operation, the creations are the second to the fourth.
    let collection = (2u64..6).prop_map(CollectionId::new);
    let signal = prop::option::of((0u64..200_000, prop::option::of(0u128..30), 0u32..3));
    let rest = (prop::option::weighted(0.2, 0u64..9), signal, prop::bool::weighted(0.05));
    (collection, edit, rest).prop_map(|(collection, edit, (expected_version, signal, delete))| {
        if delete {
            let record = Record::DeleteCollection(collection);
            return (record.kind() as u8, record.encode(), 1);
        }
        let signals = signal.map(|(late, id, cohorts)| {
            let at = Timestamp::from_secs(START - late);
            // The family has room for two of its three.
            let names = [["country=FR"], ["country=US"], ["country=IT"]][cohorts as usize];
            let mut writer = SignalBatchWriter::new(None, &names, at, 1);
            let (signal, entity) = (SignalTypeId::new(0), EntityId::new(late % 12));
            let user = Some(UserId::new(late % 4));
            let cohorts = std::iter::once(0).collect();
            let event = SignalEvent { signal, entity, weight: 1.0, at, user, cohorts, id };
            writer.push(signal, &event);
            writer.finish()
        });
        let signals = signals.as_deref();
        let edit = CollectionEdit { collection, expected_version, edit, signals };
        let record = Record::ChangeCollection(edit);
        (record.kind() as u8, record.encode(), 7)
    })
}

fn history() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(
        prop_oneof![3 => batch(), 1 => other(), 1 => collecting(), 6 => sessions::step(), 3 => processors::step()],
        1..60,
    )
}

/// A frame: position, time, kind and body.
type Framed = (Seq, Timestamp, u8, Vec<u8>);

/// The frames of a history, the schema first.
fn frames(history: &[Step]) -> Vec<Framed> {
    let opened = Opened {
        incarnation: 1,
        event_id_horizon_ns: 3_600 * 1_000_000_000,
        event_time: false,
        sessions: OpenPolicy::default(),
    };
    let schema = schema(false).to_bytes();
    let first: Vec<Step> = [Record::Opened(opened), Record::Schema(&schema)]
        .iter()
        .chain(&creations())
        .chain(&processors::registrations())
        .map(|record| (record.kind() as u8, record.encode(), 0))
        .collect();
    let mut now = START;
    let mut seq = Seq::ZERO;
    let (mut operation, mut known) = (0, sessions::Known::default());
    first
        .iter()
        .chain(history)
        .map(|(kind, body, passed)| {
            now += passed;
            seq = seq.next();
            if *kind == Record::ResetClock(Timestamp::EPOCH).kind() as u8 {
                let Ok(Record::ResetClock(time)) = Record::decode(*kind, body) else {
                    unreachable!("it was just encoded")
                };
                now = time.as_nanos() / 1_000_000_000;
            }
            operation += u64::from(*kind < 128);
            let body = match *kind {
                26..=30 => processors::fill_in(&mut known, (*kind, body), operation),
                13..=20 | 130 => known.fill_in((*kind, body), (seq.get(), now), operation),
                _ => body.clone(),
            };
            (seq, Timestamp::from_secs(now), *kind, body)
        })
        .collect()
}

fn apply(applier: &mut Applier, state: &State, frames: &[Framed], speculate: bool) -> Vec<Outcome> {
    if speculate {
        applier
            .speculate(state, frames.iter().map(|(_, time, kind, body)| (*time, *kind, &body[..])));
    }
    let group = frames.iter().map(|(seq, time, kind, body)| Frame {
        seq: *seq,
        time: *time,
        kind: *kind,
        body,
    });
    applier.apply(state, group).expect("every body is a record")
}

/// The digest with the cold rows; sessions count wherever they lie.
fn digest(state: &State) -> crate::codec::Hash {
    let mut sums = Vec::new();
    for table in state.cold_tables() {
        let mut rows: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let there = table.pending_rows(None).into_iter();
        rows.extend(there.filter_map(|(key, row)| Some((key, row?.to_vec()))));
        if table.id() == Sessions::ENDED {
            rows.extend(state.sessions.canonical_rows());
        }
        let bytes: Vec<u8> =
            rows.iter().flat_map(|(key, row)| format!("{key}{row:?}").into_bytes()).collect();
        let sum = crate::codec::hash(crate::codec::Purpose::Digest, &bytes);
        sums.push((table.id(), rows.len() as u64, sum));
    }
    state.digest(&sums)
}

/// What a checkpoint of one table holds.
type TableImage = (TableId, TableCut, Vec<PageImage>);

fn begin(state: &State, store: StoreSlot) -> Vec<(Arc<dyn StateTable>, TableCut)> {
    state.tables().into_iter().map(|table| (Arc::clone(&table), table.begin_cut(store))).collect()
}

fn take_some(cut: &[(Arc<dyn StateTable>, TableCut)], images: &mut [Vec<PageImage>]) {
    for ((table, _), pages) in cut.iter().zip(images) {
        table.take_pages(1, pages);
    }
}

fn end(
    cut: Vec<(Arc<dyn StateTable>, TableCut)>,
    mut images: Vec<Vec<PageImage>>,
) -> Vec<TableImage> {
    cut.into_iter()
        .zip(images.drain(..))
        .map(|((table, shape), mut pages)| {
            while table.take_pages(3, &mut pages) {}
            table.end_cut(StoreSlot::A, true);
            pages.sort_unstable_by_key(|image| image.page);
            (table.id(), shape, pages)
        })
        .collect()
}

/// The pages that a store has.
type Pages = BTreeMap<(TableId, u32), PageImage>;

/// Writes a cut to a store; all that the store has of each table then.
fn write(
    cut: Vec<(Arc<dyn StateTable>, TableCut)>,
    store: StoreSlot,
    pages: &mut Pages,
) -> Vec<TableImage> {
    let mut images = Vec::new();
    for (table, shape) in cut {
        let (id, mut owed) = (table.id(), Vec::new());
        while table.take_pages(16, &mut owed) {}
        table.end_cut(store, true);
        pages.extend(owed.into_iter().map(|image| ((id, image.page), image)));
        let all = pages.range((id, 0)..(id, shape.pages)).map(|(_, image)| image.clone());
        images.push((id, shape, all.collect()));
    }
    images
}

fn restore(header: &[u8], images: &[TableImage]) -> State {
    let state = State::from_header(header).expect("a sound header");
    for (id, shape, pages) in images {
        let table = state.table(*id).expect("a known table");
        table.begin_restore(*shape).expect("a sound shape");
        for image in pages {
            table.restore_page(image.page, &image.bytes).expect("a sound page");
        }
        table.end_restore(shape.rows, [false, true]).expect("all rows are there");
    }
    state.end_restore().expect("tables that belong together");
    state
}

/// The state that a checkpoint of this one is restored to, without its cold tables.
pub(super) fn restored(state: &State) -> State {
    let images = write(begin(state, StoreSlot::A), StoreSlot::A, &mut Pages::new());
    restore(&state.encode_header(), &images)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn groups_and_speculation_change_nothing(history in history(), sizes in prop::collection::vec(1usize..6, 40)) {
        let frames = frames(&history);
        let (one, many) = (State::new(), State::new());
        let mut applier = Applier::default();
        let singly: Vec<Outcome> =
            frames.chunks(1).flat_map(|frame| apply(&mut applier, &one, frame, false)).collect();
        let (mut applier, mut rest, mut grouped) = (Applier::default(), &frames[..], Vec::new());
        for size in sizes.into_iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (group, later) = rest.split_at(size.min(rest.len()));
            grouped.extend(apply(&mut applier, &many, group, size % 2 == 0));
            rest = later;
        }
        prop_assert_eq!(format!("{singly:?}"), format!("{grouped:?}"));
        prop_assert_eq!(digest(&one), digest(&many));
        prop_assert_eq!(many.check(), Vec::<String>::new());
    }

    #[test]
    fn a_cut_is_what_was_there_and_replaying_the_rest_gives_the_whole(history in history(), at in 0.0..1.0f64) {
        let frames = frames(&history);
        let at = 2 + ((frames.len() - 2) as f64 * at) as usize;
        let whole = State::new();
        let mut applier = Applier::default();
        apply(&mut applier, &whole, &frames[..at], false);
        let at_cut = digest(&whole);
        let header = whole.encode_header();
        let cold: Vec<_> =
            whole.cold_tables().iter().map(|table| table.begin_cut(StoreSlot::A)).collect();
        let cut = begin(&whole, StoreSlot::A);
        let mut images = vec![Vec::new(); cut.len()];
        // The writer goes on while pages are taken, a few at a time.
        for frame in frames[at..].chunks(1) {
            apply(&mut applier, &whole, frame, true);
            take_some(&cut, &mut images);
        }
        let images = end(cut, images);

        let restored = restore(&header, &images);
        for (cut, table) in cold.iter().zip(restored.cold_tables()) {
            for (key, row) in cut.rows() {
                table.put(key, row.map(|row| row.to_vec()));
            }
        }
        prop_assert_eq!(restored.check(), Vec::<String>::new());
        prop_assert_eq!(digest(&restored), at_cut);
        apply(&mut Applier::default(), &restored, &frames[at..], false);
        prop_assert_eq!(digest(&restored), digest(&whole));
        whole.cold_tables().iter().for_each(|table| table.end_cut(StoreSlot::A, true));
    }

    #[test]
    fn each_of_two_stores_that_take_turns_has_what_was_there_though_cuts_fail(history in history(), fails in prop::collection::vec(any::<bool>(), 40)) {
        let (state, mut applier) = (State::new(), Applier::default());
        let mut stores = [Pages::new(), Pages::new()];
        let mut turn = StoreSlot::A;
        for (group, fails) in frames(&history).chunks(2).zip(fails) {
            apply(&mut applier, &state, group, false);
            let cut = begin(&state, turn);
            if fails {
                for (table, _) in cut {
                    table.take_pages(1, &mut Vec::new());
                    table.end_cut(turn, false);
                }
                continue;
            }
            let images = write(cut, turn, &mut stores[turn as usize]);
            let restored = restore(&state.encode_header(), &images);
            prop_assert_eq!(restored.digest(&[]), state.digest(&[]));
            turn = turn.other();
        }
    }

    #[test]
    fn a_damaged_page_is_an_error_or_other_rows_never_a_panic(history in history(), flip: u64) {
        let frames = frames(&history);
        let state = State::new();
        apply(&mut Applier::default(), &state, &frames, false);
        let header = state.encode_header();
        for (id, shape, pages) in end(begin(&state, StoreSlot::A), vec![Vec::new(); state.tables().len()]) {
            for image in pages {
                let mut bytes = image.bytes.clone();
                let bit = (flip % (bytes.len() as u64 * 8)) as usize;
                bytes[bit / 8] ^= 1 << (bit % 8);
                for damaged in [&bytes[..], &bytes[..bytes.len() - 1]] {
                    let fresh = State::from_header(&header).expect("a sound header");
                    let table = fresh.table(id).expect("a known table");
                    table.begin_restore(shape).expect("a sound shape");
                    if table.restore_page(image.page, damaged).is_ok() {
                        let _ = table.end_restore(shape.rows, [false; 2]);
                    }
                }
            }
        }
    }
}

//! Records and tables that decode and yet say what no writer says: errors, never panics.

mod processors;
mod sessions;

use super::{Applier, Frame, State};
use crate::co_engagement::CoEngagements;
use crate::codec::{DecodeError, Put};
use crate::ids::{EntityId, SignalTypeId, Timestamp};
use crate::options::FUTURE_SKEW_MAX;
use crate::record::{Record, RecordKind, SignalBatchWriter, SignalEvent};
use crate::schema::{CoEngagement, DecaySpec, EntityKind, SchemaBuilder, Window};
use crate::seq::Seq;
use crate::signals::Column;
use crate::table::{TableCut, TableId};

const START: Timestamp = Timestamp::from_secs(1_700_000_000);
const WINDOWS: [Window; 4] =
    [Window::OneHour, Window::TwentyFourHours, Window::SevenDays, Window::ThirtyDays];

fn begun() -> State {
    let mut b = SchemaBuilder::new();
    let _ = b.signal("view", EntityKind::Item, DecaySpec::None).windows(&WINDOWS).engaging().add();
    let mut settings = CoEngagement::default();
    (settings.neighbours_max, settings.capacity, settings.trails_max) = (2, 3, 2);
    b.co_engagement(settings);
    let schema = b.build().expect("sound").to_bytes();
    let state = State::new();
    apply(&state, START, &Record::Schema(&schema)).expect("a schema");
    state
}

fn apply(state: &State, time: Timestamp, record: &Record<'_>) -> Result<(), DecodeError> {
    apply_body(state, time, record.kind(), &record.encode())
}

fn apply_body(
    state: &State,
    time: Timestamp,
    kind: RecordKind,
    body: &[u8],
) -> Result<(), DecodeError> {
    let frame = Frame { seq: state.header().applied.next(), time, kind: kind as u8, body };
    let mut applier = Applier::default();
    applier.speculate(state, std::iter::once((time, frame.kind, body)));
    applier.apply(state, std::iter::once(frame)).map(drop)
}

/// Counts one event of item 1.
fn count(state: &State, weight: f64, at: Timestamp) -> Result<(), DecodeError> {
    let signal = SignalTypeId::new(0);
    let (entity, cohorts) = (EntityId::new(1), Default::default());
    let event = SignalEvent { signal, entity, weight, at, user: None, cohorts, id: None };
    let mut writer = SignalBatchWriter::new(None, &[""; 0], at, 1);
    writer.push(signal, &event);
    apply_body(state, START, RecordKind::Signals, &writer.finish())
}

fn restore(id: TableId, rows: u64, page: &[u8]) -> Result<(), DecodeError> {
    let state = State::from_header(&begun().encode_header())?;
    let table = state.table(id)?;
    table.begin_restore(TableCut { rows, pages: 1, owed: 0 })?;
    table.restore_page(0, page)?;
    table.end_restore(rows, [false; 2])?;
    state.end_restore()
}

/// A page whose first slot has a cell of item 1.
fn page_of_cell(count: u64, exponent: i32, buckets: &[(u64, u64)]) -> Vec<u8> {
    let mut page = Vec::new();
    page.put_u64(1);
    page.put_u64(1);
    page.put_varint(count);
    page.put_u8(1);
    page.put_f64(1.0);
    page.put_i32(exponent);
    page.put_varint(buckets.len() as u64);
    for &(delta, events) in buckets {
        page.put_varint(delta);
        page.put_varint(events);
    }
    page
}

const CELLS: TableId = TableId { kind: Column::KIND, part: 0 };
const START_MINUTE: u64 = START.as_nanos() / 60_000_000_000;

#[test]
fn an_event_that_no_cell_can_count_is_malformed_also_after_a_guess() {
    let ahead = START.saturating_add(FUTURE_SKEW_MAX);
    let too_far = Timestamp::from_nanos(ahead.as_nanos() + 1);
    for is_known in [false, true] {
        let refused = |weight, at| {
            let state = begun();
            if is_known {
                count(&state, 1.0, START).expect("an event");
            }
            assert!(count(&state, weight, at).is_err(), "{weight} at {at:?}");
        };
        for weight in [f64::NAN, f64::INFINITY, -1e101, 1e-101, f64::MIN_POSITIVE / 2.0] {
            refused(weight, START);
        }
        refused(1.0, too_far);
        refused(1.0, Timestamp::from_nanos(u64::MAX));
    }
}

#[test]
fn the_oldest_and_the_farthest_event_share_a_cell() {
    let state = begun();
    for back in 0..45 {
        count(&state, 1.0, Timestamp::from_secs(1_700_000_000 - back * 86_400)).expect("late");
    }
    count(&state, 0.0, START.saturating_add(FUTURE_SKEW_MAX)).expect("as far ahead as any may be");
    count(&state, 1.0, Timestamp::from_secs(1_700_000_000 - 29 * 86_400)).expect("late");
    assert_eq!(state.check(), Vec::<String>::new());
}

#[test]
fn a_time_before_that_of_the_frame_before_is_malformed_unless_the_clock_is_reset() {
    let earlier = Timestamp::from_secs(1_600_000_000);
    let state = begun();
    assert!(apply(&state, earlier, &Record::Mark).is_err());
    let state = begun();
    count(&state, 1.0, START).expect("an event");
    apply(&state, earlier, &Record::ResetClock(earlier)).expect("a reset");
    apply(&state, earlier, &Record::Mark).expect("time goes on from there");
    assert_eq!(state.header().engine_time, earlier);
}

#[test]
fn a_cell_that_has_no_room_to_count_on_is_refused() {
    let at = START_MINUTE;
    assert_eq!(restore(CELLS, 1, &page_of_cell(5, 0, &[(at, 5)])), Ok(()));
    let bad = [
        ("fewer than its windows", page_of_cell(4, 0, &[(at, 5)])),
        ("as many as there are numbers", page_of_cell(u64::MAX, 0, &[])),
        ("a full window", page_of_cell(1 << 48, 0, &[(at, (1 << 48) - 1)])),
        ("an exponent without a successor", page_of_cell(5, i32::MAX, &[])),
        ("events of the far future", page_of_cell(5, 0, &[(at + 2 * 1_440, 5)])),
    ];
    for (what, page) in bad {
        assert!(restore(CELLS, 1, &page).is_err(), "{what}");
    }
}

#[test]
fn tables_that_contradict_each_other_are_refused() {
    let of_cohort_1 = TableId { kind: Column::KIND, part: 1 << 16 };
    assert!(restore(of_cohort_1, 1, &page_of_cell(5, 0, &[])).is_err());
    for cohorts in [&[1][..], &[u32::MAX], &[0]] {
        let mut page = Vec::new();
        page.put_u64(1);
        page.put_u64(7);
        page.put_varint(cohorts.len() as u64);
        cohorts.iter().for_each(|&cohort| page.put_u32(cohort));
        page.put_bytes(&[0]);
        let users = TableId { kind: crate::cohorts::Users::KIND, part: 0 };
        assert!(restore(users, 1, &page).is_err(), "a user in {cohorts:?}");
    }
}

#[test]
fn a_restore_takes_memory_for_what_is_there_not_for_what_is_announced() {
    let state = begun();
    let table = state.table(CELLS).expect("a column");
    let announced = |pages: u32| TableCut { rows: u64::from(pages) * 64, pages, owed: 0 };
    assert!(table.begin_restore(announced(u32::MAX)).is_err(), "more slots than 32 bits number");
    table.begin_restore(announced(u32::MAX / 64)).expect("as large as a table gets");
    table.restore_page(0, &page_of_cell(5, 0, &[])).expect("a page");
    let size_bytes: u64 = state.tables().iter().map(|table| table.size().size_bytes).sum();
    assert!(size_bytes < 1 << 20, "{size_bytes} bytes");
    assert!(table.end_restore(1, [false; 2]).is_err(), "pages are missing");
}

#[test]
fn a_header_at_the_end_of_all_positions_is_refused() {
    let header = begun().encode_header();
    let with = |at: usize, number: u64| {
        let mut bytes = header.clone();
        bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        State::from_header(&bytes).map(drop)
    };
    assert_eq!(with(1, 9), Ok(()));
    assert!(with(1, u64::MAX).is_err(), "the last frame of all");
    assert!(with(25, 2).is_err(), "more operations than frames");
    assert_eq!(begun().header().applied, Seq::new(1));
}

/// One page of rows of co-engagement, in the first slots.
fn page_of(rows: &[Vec<u8>]) -> Vec<u8> {
    let mut page = Vec::new();
    page.put_u64((1 << rows.len()) - 1);
    rows.iter().for_each(|row| page.extend_from_slice(row));
    page
}

/// A weight of 2^`exponent`, as a page has it.
const fn weight(exponent: i64) -> u64 {
    ((exponent + 4096) as u64) << 40
}

/// The weight of a term of the year 2023 under the default half-life is about this.
const OF_START: u64 = weight(655);

/// A row of edges: an item, how many edges it evicted, its edges by slot.
fn edge_row(item: u64, evictions: u64, edges: &[(u64, u64)]) -> Vec<u8> {
    let mut row = Vec::new();
    row.put_u64(item);
    row.put_varint(1);
    row.put_u64(OF_START);
    row.put_varint(evictions);
    row.put_varint(edges.len() as u64);
    for &(slot, weight) in edges {
        row.put_varint(slot);
        row.put_varint(1);
        row.put_u64(weight);
    }
    row
}

#[test]
fn edges_that_no_log_leads_to_are_refused() {
    let restored = |rows: &[Vec<u8>]| {
        let table = TableId { kind: CoEngagements::EDGES, part: 0 };
        restore(table, rows.len() as u64, &page_of(rows))
    };
    let to = |slot| (slot, OF_START);
    assert_eq!(restored(&[edge_row(7, 0, &[to(1)]), edge_row(8, 0, &[to(0)])]), Ok(()));
    assert_eq!(restored(&[edge_row(7, 0, &[to(1)]), edge_row(8, 1, &[])]), Ok(()));
    let bad = [
        ("without its mirror", vec![edge_row(7, 0, &[to(1)]), edge_row(8, 0, &[])]),
        (
            "lighter than its mirror",
            vec![edge_row(7, 0, &[to(1)]), edge_row(8, 0, &[(0, weight(9))])],
        ),
        ("to itself", vec![edge_row(7, 0, &[to(0)])]),
        ("to nowhere", vec![edge_row(7, 0, &[to(1)])]),
        ("beyond the table", vec![edge_row(7, 0, &[to(1 << 31)])]),
        ("twice", vec![edge_row(7, 0, &[to(1), to(1)]), edge_row(8, 1, &[])]),
        ("of no weight", vec![edge_row(7, 0, &[(1, 0)]), edge_row(8, 1, &[])]),
        ("out of normal form", vec![edge_row(7, 0, &[(1, 1)]), edge_row(8, 1, &[])]),
        ("of the far future", vec![edge_row(7, 0, &[(1, weight(720))]), edge_row(8, 1, &[])]),
        (
            "more than its item may have",
            vec![
                edge_row(7, 0, &[to(1), to(2), to(3)]),
                edge_row(8, 1, &[]),
                edge_row(9, 1, &[]),
                edge_row(10, 1, &[]),
            ],
        ),
        (
            "more than there may be",
            vec![
                edge_row(7, 0, &[to(1), to(2)]),
                edge_row(8, 0, &[to(0), to(2)]),
                edge_row(9, 1, &[]),
            ],
        ),
    ];
    for (what, rows) in bad {
        assert!(restored(&rows).is_err(), "an edge {what}");
    }
}

/// A row of a trail of one user.
fn trail_row(id: u64, items: &[u64]) -> Vec<u8> {
    let mut row = Vec::new();
    row.put_u64(id);
    row.put_u8(0);
    row.put_u64(id);
    row.put_u64(START.as_nanos());
    row.put_u64(OF_START);
    row.put_varint(items.len() as u64);
    items.iter().for_each(|&item| row.put_u64(item));
    row
}

/// The same of a session, as far as its user if it has one.
fn session_trail_row(id: u64, user: Option<u64>) -> Vec<u8> {
    let mut row = trail_row(id, &[]);
    row[8] = 2;
    let user = user.map(u64::to_le_bytes);
    row.splice(17..17, user.into_iter().flatten());
    row
}

#[test]
fn trails_that_no_log_leads_to_are_refused() {
    let restored = |rows: &[Vec<u8>]| {
        let table = TableId { kind: CoEngagements::TRAILS, part: 0 };
        restore(table, rows.len() as u64, &page_of(rows))
    };
    assert_eq!(restored(&[trail_row(6, &[]), trail_row(5, &[])]), Ok(()));
    let of_a_session = [session_trail_row(2, Some(7)), trail_row(1, &[])];
    assert_eq!(restored(&of_a_session), Ok(()));
    let [mut owner_of_no_kind, mut numbered_nobody] = [trail_row(1, &[]), trail_row(1, &[])];
    owner_of_no_kind[8] = 3;
    numbered_nobody[8] = 1;
    let mut of_the_far_future = trail_row(1, &[]);
    of_the_far_future[17..25].fill(0xff);
    let bad = [
        ("with a hole before it", vec![trail_row(1, &[]), trail_row(3, &[])]),
        ("before the first", vec![trail_row(0, &[])]),
        ("after the last", vec![trail_row(u64::MAX, &[])]),
        ("of an item that nothing is known of", vec![trail_row(1, &[7])]),
        ("with an item twice", vec![trail_row(1, &[7, 7])]),
        ("of an owner of no kind", vec![owner_of_no_kind]),
        ("of everyone without a name, with a number", vec![numbered_nobody]),
        ("of a session without a user", vec![session_trail_row(1, None)]),
        ("of the far future", vec![of_the_far_future]),
        ("too many", vec![trail_row(1, &[]), trail_row(2, &[]), trail_row(3, &[])]),
    ];
    for (what, rows) in bad {
        assert!(restored(&rows).is_err(), "a trail {what}");
    }
}

#[test]
fn revisits_that_no_log_leads_to_are_refused() {
    let restored = |position: u8, seen: u64, returned: u64| {
        let mut row = Vec::new();
        row.put_u8(position);
        row.put_u64(seen);
        row.put_u64(returned);
        restore(TableId { kind: CoEngagements::REVISITS, part: 0 }, 1, &page_of(&[row]))
    };
    assert_eq!(restored(19, 5, 5), Ok(()));
    assert!(restored(20, 5, 5).is_err(), "a position that is not counted");
    assert!(restored(0, 5, 6).is_err(), "more returns than chances");
    assert!(restored(0, u64::MAX, 0).is_err(), "no room to count on");
}

//! Records and tables that decode and yet say what no writer says: errors, never panics.

use super::{Applier, Frame, State};
use crate::codec::{DecodeError, Put};
use crate::ids::{EntityId, SignalTypeId, Timestamp};
use crate::options::FUTURE_SKEW_MAX;
use crate::record::{Record, RecordKind, SignalBatchWriter, SignalEvent};
use crate::schema::{DecaySpec, EntityKind, SchemaBuilder, Window};
use crate::seq::Seq;
use crate::signals::Column;
use crate::table::{TableCut, TableId};

const START: Timestamp = Timestamp::from_secs(1_700_000_000);
const WINDOWS: [Window; 4] =
    [Window::OneHour, Window::TwentyFourHours, Window::SevenDays, Window::ThirtyDays];

fn begun() -> State {
    let mut b = SchemaBuilder::new();
    let _ = b.signal("view", EntityKind::Item, DecaySpec::None).windows(&WINDOWS).add();
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

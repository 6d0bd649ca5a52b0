//! A way in for hostile files: what `ingest` reads, without an engine behind it.
//!
//! Knows: the parsers of an ingest, and what must hold of whatever they accept. Must not know: who
//! makes the bytes, be it a fuzzer (`fuzz/`) or a suite (`tests/fuzz_seeds.rs`). Not for use by anyone
//! else.
//!
//! An input: format u8 (modulo 3: TSV, CSV, JSON lines) | time unit u8 (modulo 5, in the order of
//! `--time-unit`) | the file. Its columns are those of `COLUMNS`, in this order and without a header.

use std::io::{BufReader, Cursor};

use clap::ValueEnum as _;

use crate::ingest::columns::{CohortFrom, Columns, Row, SignalFrom, Wanted};
use crate::ingest::records::{Fields, Record, Records, Selector};
use crate::ingest::source::Format;
use crate::time::{TimeUnit, format_point, parse_point};

const COLUMNS: [&str; 7] = ["item", "ts", "event", "user", "land", "w", "id"];
const FAMILY: &str = "country";

/// Lines that a record may have; beyond it a quote that was never closed is refused.
const RECORD_LINES_MAX: u64 = 100;

/// A name that is longer is refused by the engine, and may not fit a line when it is written with escapes.
const SIGNAL_SIZE_BYTES_MAX: usize = 1 << 16;

/// Reads a file: every record and the event that it tells of. Whether there are any and all are good.
///
/// # Panics
///
/// When what was read depends on how the bytes come, or on where reading began; when an event is
/// beyond its limits, or is another one after it was written and read again.
pub fn ingest(bytes: &[u8]) -> bool {
    let [format, unit, file @ ..] = bytes else { return false };
    let formats = Format::value_variants();
    let format = formats[usize::from(*format) % formats.len()];
    let units = TimeUnit::value_variants();
    let unit = units[usize::from(*unit) % units.len()];

    let read = read(file, format, unit, 1 << 16, 0);
    assert_eq!(read, self::read(file, format, unit, 2, 0), "the size of a buffer changes nothing");
    if let Some(middle) = read.get(read.len() / 2) {
        let resumed = self::read(file, format, unit, 1 << 16, middle.last_line);
        assert_eq!(resumed, read[read.len() / 2 + 1..], "reading goes on right after a record");
    }
    for seen in &read {
        if let Ok(row) = &seen.row {
            check(row);
            if row.signal.len() <= SIGNAL_SIZE_BYTES_MAX {
                check_again(row);
            }
        }
    }
    !read.is_empty() && read.iter().all(|seen| seen.row.is_ok())
}

/// A record as it was seen.
#[derive(Debug, PartialEq)]
struct Seen {
    first_line: u64,
    last_line: u64,
    row: Result<Row, String>,
}

/// What follows the first `after_line` lines.
fn read(
    file: &[u8],
    format: Format,
    unit: TimeUnit,
    buffer_size_bytes: usize,
    after_line: u64,
) -> Vec<Seen> {
    let reader = BufReader::with_capacity(buffer_size_bytes, Cursor::new(file.to_vec()));
    let mut records = Records::new(Box::new(reader), format);
    assert!(records.skip_to(after_line).expect("memory is read"), "the line was there before");
    let columns = columns(format, unit);
    let mut seen: Vec<Seen> = Vec::new();
    while let Some(record) = records.next().expect("memory is read") {
        let before = seen.last().map_or(after_line, |seen| seen.last_line);
        let lines = before + 1..=record.last_line;
        assert!(lines.contains(&record.first_line), "records stand one after the other");
        assert!(record.last_line - record.first_line < RECORD_LINES_MAX, "a record has an end");
        look_everywhere(&record, file.len());
        let row = columns.row(&record);
        seen.push(Seen { first_line: record.first_line, last_line: record.last_line, row });
    }
    let lines = file.iter().filter(|&&byte| byte == b'\n').count() as u64 + 1;
    assert!(records.line_count() <= lines, "no line is counted twice");
    seen
}

fn columns(format: Format, unit: TimeUnit) -> Columns {
    let name = |at: usize| match format {
        Format::Jsonl => COLUMNS[at].to_owned(),
        Format::Tsv | Format::Csv => at.to_string(),
    };
    let wanted = Wanted {
        item: name(0),
        time: name(1),
        time_unit: unit,
        signal: SignalFrom::Column(name(2)),
        user: Some(name(3)),
        cohort: Some(CohortFrom { column: name(4), family: FAMILY.to_owned() }),
        weight: Some(name(5)),
        event_id: Some(name(6)),
    };
    Columns::find(&wanted, format, None).expect("every column has a name or a number")
}

/// Takes every field of a record, also those that no column asks for, as a text and as a time.
fn look_everywhere(record: &Record<'_>, size_bytes: usize) {
    let Ok(fields) = &record.fields else { return };
    let selectors: Vec<Selector> = match fields {
        Fields::Row(ranges, _) => (0..=ranges.len()).map(Selector::Index).collect(),
        Fields::Object(members) => {
            members.keys().map(|key| Selector::Key(key.clone().into_owned())).collect()
        }
    };
    let mut texts_bytes = 0;
    for text in selectors.iter().filter_map(|selector| fields.get(selector).ok().flatten()) {
        assert!(!text.is_empty(), "an empty field is an absent one");
        texts_bytes += text.len();
        for unit in TimeUnit::value_variants() {
            if let Ok(at_ns) = unit.parse(&text) {
                let shown = format_point(at_ns);
                let to_the_second = at_ns - at_ns % 1_000_000_000;
                assert_eq!(parse_point(&shown), Ok(to_the_second), "{shown}");
            }
        }
    }
    assert!(texts_bytes <= size_bytes, "fields are parts of what was read");
}

/// What the engine is promised of every event.
fn check(row: &Row) {
    let has_size = |text: &str, limit: usize| (1..=limit).contains(&text.len());
    assert!(has_size(&row.item, 1_024), "item {:?}", row.item);
    assert!(!row.signal.is_empty());
    assert!(row.weight.abs() <= 1e12, "weight {}", row.weight);
    assert!(row.user.iter().all(|user| has_size(user, 1_024 - "user:".len())));
    assert!(row.event_id.iter().all(|id| has_size(id, 256)));
    if let Some(cohort) = &row.cohort {
        assert!(cohort.len() <= 256 && !cohort.contains(char::is_control), "cohort {cohort:?}");
        assert!(cohort.strip_prefix("country=").is_some_and(|member| !member.is_empty()));
    }
}

/// Writes an event in every format that can, and reads it again.
fn check_again(row: &Row) {
    let cohort = row.cohort.as_deref().map(|cohort| &cohort[FAMILY.len() + 1..]);
    let fields = [
        row.item.clone(),
        row.at_ns.to_string(),
        row.signal.clone(),
        row.user.clone().unwrap_or_default(),
        cohort.unwrap_or_default().to_owned(),
        row.weight.to_string(),
        row.event_id.clone().unwrap_or_default(),
    ];
    let members: serde_json::Map<_, _> = COLUMNS
        .iter()
        .zip(&fields)
        .map(|(name, field)| ((*name).to_owned(), field.clone().into()))
        .collect();
    let json = serde_json::to_string(&members).expect("texts are JSON");
    expect_same(row, json.as_bytes(), Format::Jsonl);

    let lines = fields.iter().flat_map(|field| field.bytes()).filter(|&b| b == b'\n').count();
    if (lines as u64) < RECORD_LINES_MAX {
        let quoted = fields.each_ref().map(|field| format!("\"{}\"", field.replace('"', "\"\"")));
        expect_same(row, quoted.join(",").as_bytes(), Format::Csv);
    }
    // Tabs and ends of lines cannot be written between tabs, nor a mark of byte order at the start.
    let is_plain = |field: &String| !field.contains(['\t', '\n', '\r', '\u{feff}']);
    if fields.iter().all(is_plain) {
        expect_same(row, fields.join("\t").as_bytes(), Format::Tsv);
    }
}

fn expect_same(row: &Row, file: &[u8], format: Format) {
    let read = read(file, format, TimeUnit::Ns, 1 << 16, 0);
    let [Seen { row: Ok(again), .. }] = &read[..] else {
        panic!("{row:?} was written as {file:?} and read as {read:?}");
    };
    let lines = (again.first_line, again.last_line);
    let again = Row { first_line: row.first_line, last_line: row.last_line, ..again.clone() };
    assert_eq!(again, *row, "an event is read as it is written, at lines {lines:?}");
}

/// Every seed of the target: a name, and the bytes.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let seed = |format: u8, unit: u8, file: &str| [&[format, unit], file.as_bytes()].concat();
    vec![
        (
            "tabs",
            seed(0, 0, "\u{feff}lamp\t1592337718.25\tview\tu7\tFR\t-2.5\te1\r\n\nfan\t7\tbuy\n"),
        ),
        (
            "quotes",
            seed(
                1,
                1,
                "\"a \"\"big\"\"\nlamp\",1592337718001.5,view,7,\"United, Kingdom\",1e3,\n\
                 \"\u{fc}ber\",1592337718002,\"buy\",,,,\"e\r\n2\"",
            ),
        ),
        (
            "objects",
            seed(
                2,
                4,
                "{\"item\":\"la\\u006dp\\n\",\"ts\":\"2020-06-16T22:01:58.25+02:00\",\
                 \"event\":\"view\",\"user\":7,\"w\":null,\"more\":{\"a\":[1]}}\n\
                 {\"ts\":\"1970-01-01 00:00:00z\",\"item\":1.50,\"event\":true,\"land\":\"FR\",\
                 \"w\":1e-3,\"id\":\"x\"}\n",
            ),
        ),
        ("letters", seed(1, 3, "灯り,1592337718,買う,ü,日本,1,é\n\"é\",1592337718,ß,\"ñ\"\n")),
        ("numbers", seed(1, 3, "1,18446744073709551615,2,3,4,-1e12,6\n1,+15e1,2\n1,.5e1,2\n")),
    ]
}

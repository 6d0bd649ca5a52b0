//! Records out of lines, each with the lines it stands on.
//!
//! Knows: tabs, commas, quotes, JSON objects, line numbers. Must not know: what a field means.
//!
//! A record's position is the number of its **last** line: reading can resume right after it, also
//! where a quoted field spans several lines.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, BufRead};
use std::ops::Range;

use serde_json::value::RawValue;

use super::source::Format;

/// Longest line, and longest record of several lines; more than that is no event.
const RECORD_SIZE_BYTES_MAX: usize = 1 << 20;
/// Most lines of one record: a stray quote must not swallow the rest of the file.
const RECORD_LINES_MAX: u64 = 100;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Where in a record a field is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selector {
    /// The field of this number, from 0.
    Index(usize),
    /// The member of this name.
    Key(String),
}

/// One record, or the reason why there is none on these lines.
#[derive(Debug)]
pub(crate) struct Record<'r> {
    /// The first line, from 1.
    pub(crate) first_line: u64,
    /// The last line.
    pub(crate) last_line: u64,
    /// Its fields.
    pub(crate) fields: Result<Fields<'r>, String>,
}

/// The fields of one record.
#[derive(Debug)]
pub(crate) enum Fields<'r> {
    /// Fields in a row.
    Row(&'r [Range<usize>], &'r str),
    /// Fields by name.
    Object(HashMap<Cow<'r, str>, &'r RawValue>),
}

impl<'r> Fields<'r> {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Row(ranges, _) => ranges.len(),
            Self::Object(members) => members.len(),
        }
    }

    /// The text of one field; `None` where it is absent, empty or null.
    ///
    /// # Errors
    ///
    /// A sentence, when the field is not text, number or boolean.
    pub(crate) fn get(&self, selector: &Selector) -> Result<Option<Cow<'r, str>>, String> {
        let text = match (self, selector) {
            (Self::Row(ranges, text), Selector::Index(index)) => {
                ranges.get(*index).map(|range| Cow::Borrowed(&text[range.clone()]))
            }
            (Self::Object(members), Selector::Key(key)) => match members.get(key.as_str()) {
                Some(raw) => scalar(key, raw.get())?,
                None => None,
            },
            // Selectors are resolved for the format at hand.
            (Self::Row(..), Selector::Key(_)) | (Self::Object(_), Selector::Index(_)) => None,
        };
        Ok(text.filter(|text| !text.is_empty()))
    }
}

/// A JSON value as text, with the digits of numbers as they stand.
fn scalar<'r>(key: &str, raw: &'r str) -> Result<Option<Cow<'r, str>>, String> {
    match raw.as_bytes().first() {
        Some(b'"') => serde_json::from_str::<String>(raw)
            .map(|text| Some(Cow::Owned(text)))
            .map_err(|error| format!("member {key:?}: {error}")),
        Some(b'{' | b'[') => Err(format!("member {key:?} is not a text, a number or a boolean")),
        _ if raw == "null" => Ok(None),
        _ => Ok(Some(Cow::Borrowed(raw))),
    }
}

/// Reads records one after the other into buffers of its own.
pub(crate) struct Records {
    lines: Lines,
    format: Format,
    record: Vec<u8>,
    /// The record again, without quotes, and where the fields lie in it.
    unquoted: String,
    ranges: Vec<Range<usize>>,
}

impl Records {
    /// Records of `reader`, which are in `format`.
    pub(crate) fn new(reader: Box<dyn BufRead>, format: Format) -> Self {
        let lines = Lines { reader, count: 0 };
        Self { lines, format, record: Vec::new(), unquoted: String::new(), ranges: Vec::new() }
    }

    /// How many lines were read or passed over.
    pub(crate) fn line_count(&self) -> u64 {
        self.lines.count
    }

    /// Passes over lines until `line_count` of them are behind; `false` when the input ends before.
    ///
    /// # Errors
    ///
    /// When reading fails.
    pub(crate) fn skip_to(&mut self, line_count: u64) -> io::Result<bool> {
        while self.lines.count < line_count {
            self.record.clear();
            if self.lines.read(&mut self.record, 0)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The next record; blank lines are passed over. `None` at the end.
    ///
    /// # Errors
    ///
    /// When reading fails: the lines up to there were delivered.
    pub(crate) fn next(&mut self) -> io::Result<Option<Record<'_>>> {
        let first_line = loop {
            self.record.clear();
            match self.lines.read(&mut self.record, RECORD_SIZE_BYTES_MAX)? {
                None => return Ok(None),
                Some(Length::TooLong) => {
                    return Ok(Some(too_long(self.lines.count, self.lines.count)));
                }
                Some(Length::Whole) if trim_newline(&self.record).is_empty() => {}
                Some(Length::Whole) => break self.lines.count,
            }
        };
        if self.format == Format::Csv && self.complete_quotes(first_line)? == Length::TooLong {
            return Ok(Some(too_long(first_line, self.lines.count)));
        }
        let last_line = self.lines.count;
        let fields = match self.format {
            Format::Tsv => self.split_tabs(),
            Format::Csv => self.split_commas(last_line),
            Format::Jsonl => self.object(),
        };
        Ok(Some(Record { first_line, last_line, fields }))
    }

    /// Reads on while a quoted field is open.
    fn complete_quotes(&mut self, first_line: u64) -> io::Result<Length> {
        while ends_inside_quotes(&self.record)
            && self.lines.count - first_line + 1 < RECORD_LINES_MAX
        {
            match self.lines.read(&mut self.record, RECORD_SIZE_BYTES_MAX)? {
                None => break,
                Some(Length::Whole) => {}
                Some(Length::TooLong) => return Ok(Length::TooLong),
            }
        }
        Ok(Length::Whole)
    }

    fn split_tabs(&mut self) -> Result<Fields<'_>, String> {
        let line = utf8(trim_newline(&self.record))?;
        self.ranges.clear();
        let mut start = 0;
        for field in line.split('\t') {
            self.ranges.push(start..start + field.len());
            start += field.len() + 1;
        }
        Ok(Fields::Row(&self.ranges, line))
    }

    fn split_commas(&mut self, last_line: u64) -> Result<Fields<'_>, String> {
        self.unquoted.clear();
        self.ranges.clear();
        // The whole record is text before it is divided: parts of it that are not could make a
        // character once they stand side by side.
        let mut rest = utf8(trim_newline(&self.record))?;
        loop {
            let start = self.unquoted.len();
            rest = take_field(rest, last_line, &mut self.unquoted)?;
            self.ranges.push(start..self.unquoted.len());
            match rest.strip_prefix(',') {
                Some(after) => rest = after,
                None => break,
            }
        }
        Ok(Fields::Row(&self.ranges, &self.unquoted))
    }

    fn object(&self) -> Result<Fields<'_>, String> {
        let line = utf8(trim_newline(&self.record))?;
        serde_json::from_str(line).map(Fields::Object).map_err(|error| {
            // serde_json counts lines too, but it was given a single one.
            let reason = error.to_string().replace(" at line 1 column ", " at column ");
            format!("not a JSON object: {reason}")
        })
    }
}

fn too_long<'r>(first_line: u64, last_line: u64) -> Record<'r> {
    let reason = format!("longer than {RECORD_SIZE_BYTES_MAX} bytes");
    Record { first_line, last_line, fields: Err(reason) }
}

fn utf8(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to() + 1;
        format!("byte {at} is not UTF-8: convert the file, for example with iconv -t utf-8")
    })
}

fn trim_newline(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Whether a quoted field is still open at the end of `record`.
fn ends_inside_quotes(record: &[u8]) -> bool {
    #[derive(Clone, Copy, PartialEq)]
    enum At {
        FieldStart,
        Plain,
        Quoted,
        ClosingQuote,
    }
    let mut at = At::FieldStart;
    for &byte in record {
        at = match (at, byte) {
            // A quote after a closing one makes a pair, which stands for one quote.
            (At::FieldStart | At::ClosingQuote, b'"') => At::Quoted,
            (At::Quoted, b'"') => At::ClosingQuote,
            (At::Quoted, _) => At::Quoted,
            (_, b',') => At::FieldStart,
            // Text after a closing quote is refused when the fields are taken.
            (_, _) => At::Plain,
        };
    }
    at == At::Quoted
}

/// Appends the first field of `rest` to `unquoted`; returns what follows it, comma included.
fn take_field<'a>(rest: &'a str, last_line: u64, unquoted: &mut String) -> Result<&'a str, String> {
    let Some(mut inside) = rest.strip_prefix('"') else {
        let (field, after) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
        unquoted.push_str(field);
        return Ok(after);
    };
    loop {
        let (text, after) = inside.split_once('"').ok_or_else(|| {
            format!("a quote is opened and not closed; nothing is taken through line {last_line}")
        })?;
        unquoted.push_str(text);
        match after.strip_prefix('"') {
            Some(more) => {
                unquoted.push('"');
                inside = more;
            }
            None if after.is_empty() || after.starts_with(',') => return Ok(after),
            None => return Err("text follows a closing quote".to_owned()),
        }
    }
}

/// Whether a line fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Whole,
    TooLong,
}

struct Lines {
    reader: Box<dyn BufRead>,
    count: u64,
}

impl Lines {
    /// Appends the next line to `buffer`, newline included; of a line that does not fit into
    /// `size_bytes_max` in all only the start. `None` at the end.
    fn read(&mut self, buffer: &mut Vec<u8>, size_bytes_max: usize) -> io::Result<Option<Length>> {
        let mut length = Length::Whole;
        let mut seen = false;
        loop {
            let available = match self.reader.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if available.is_empty() {
                break;
            }
            let newline = available.iter().position(|&byte| byte == b'\n');
            let chunk = &available[..newline.map_or(available.len(), |at| at + 1)];
            let size = chunk.len();
            seen = true;
            let room = size_bytes_max.saturating_sub(buffer.len());
            if chunk.len() > room {
                length = Length::TooLong;
            }
            buffer.extend_from_slice(&chunk[..chunk.len().min(room)]);
            self.reader.consume(size);
            if newline.is_some() {
                break;
            }
        }
        // Not chunk by chunk: the mark may come in pieces.
        if self.count == 0 && buffer.starts_with(BYTE_ORDER_MARK) {
            buffer.drain(..BYTE_ORDER_MARK.len());
        }
        self.count += u64::from(seen);
        Ok(seen.then_some(length))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Cursor};

    use super::*;

    /// Each record as `first-last: field|field` or `first-last! reason`; one line is one number.
    fn read(text: &[u8], format: Format, selectors: &[Selector]) -> Vec<String> {
        // Tiny buffers, so that lines, and what begins the first one, straddle their edges.
        let seen = read_by(2, text, format, selectors);
        assert_eq!(read_by(7, text, format, selectors), seen, "buffers change nothing");
        seen
    }

    fn read_by(
        buffer_size_bytes: usize,
        text: &[u8],
        format: Format,
        selectors: &[Selector],
    ) -> Vec<String> {
        let reader = BufReader::with_capacity(buffer_size_bytes, Cursor::new(text.to_vec()));
        let mut records = Records::new(Box::new(reader), format);
        let mut seen = Vec::new();
        while let Some(record) = records.next().expect("memory") {
            let at = if record.first_line == record.last_line {
                record.last_line.to_string()
            } else {
                format!("{}-{}", record.first_line, record.last_line)
            };
            let fields: Result<Vec<String>, String> = record.fields.and_then(|fields| {
                let get = |selector| Ok(fields.get(selector)?.unwrap_or("~".into()).into_owned());
                selectors.iter().map(get).collect()
            });
            seen.push(match fields {
                Ok(fields) => format!("{at}: {}", fields.join("|")),
                Err(reason) => format!("{at}! {reason}"),
            });
        }
        seen
    }

    fn first_three() -> Vec<Selector> {
        (0..3).map(Selector::Index).collect()
    }

    #[test]
    fn tabs_divide_and_quotes_mean_nothing() {
        let text = b"\xef\xbb\xbfa\tb\tc\r\n\n\"x\t5\"\t\nlast\t1\t2";
        let seen = read(text, Format::Tsv, &first_three());
        assert_eq!(seen, ["1: a|b|c", "3: \"x|5\"|~", "4: last|1|2"]);
    }

    #[test]
    fn quoted_commas_quotes_and_newlines_belong_to_the_field() {
        let text = b"a,\"b,1\",c\n\"say \"\"hi\"\"\",\"two\nlines\",x\r\n5\"\" pipe,,z\n";
        let seen = read(text, Format::Csv, &first_three());
        assert_eq!(seen, ["1: a|b,1|c", "2-3: say \"hi\"|two\nlines|x", "4: 5\"\" pipe|~|z"]);
    }

    #[test]
    fn a_stray_quote_costs_a_bounded_number_of_lines() {
        let text = [b"\"open,1,2\n".to_vec(), b"a,b,c\n".repeat(150)].concat();
        let seen = read(&text, Format::Csv, &first_three());
        let reason = "a quote is opened and not closed; nothing is taken through line 100";
        assert_eq!(seen[0], format!("1-100! {reason}"));
        assert_eq!(seen[1], "101: a|b|c");
        assert_eq!(seen.len(), 1 + 51);
        let seen = read(b"\"a\"b,c,d\nx,y,z\n", Format::Csv, &first_three());
        assert_eq!(seen, ["1! text follows a closing quote", "2: x|y|z"]);
    }

    #[test]
    fn a_record_of_several_lines_is_refused_whole_when_its_last_line_is_too_long() {
        // Cut off where the limit is, the last field would read 12 and be as good as any.
        let rest = RECORD_SIZE_BYTES_MAX - b"\"two\n".len() - b"lines\",,12".len();
        let long = "x".repeat(rest);
        let text = format!("\"two\nlines\",{long},12345\na,b,c\n");
        let seen = read(text.as_bytes(), Format::Csv, &first_three());
        assert_eq!(seen, ["1-2! longer than 1048576 bytes", "3: a|b|c"]);
        let text = format!("\"two\nlines\",{long},1\n");
        let seen = read(text.as_bytes(), Format::Csv, &[Selector::Index(2)]);
        assert_eq!(seen, ["1-2: 1"]);
    }

    #[test]
    fn json_numbers_keep_their_digits_and_null_is_absent() {
        let keys = ["i", "t", "u"].map(|key| Selector::Key(key.to_owned()));
        let text = br#"{"t": 1592337718.123456789, "i": "l\u00e4mp", "u": null, "more": {"a": [1]}}
{"i": 5, "u": true}
{"i": [5]}
[1, 2]
{"i": 5,
"#;
        let seen = read(text, Format::Jsonl, &keys);
        assert_eq!(seen[0], "1: lämp|1592337718.123456789|~");
        assert_eq!(seen[1], "2: 5|~|true");
        assert_eq!(seen[2], "3! member \"i\" is not a text, a number or a boolean");
        assert!(seen[3].starts_with("4! not a JSON object"), "{}", seen[3]);
        assert!(seen[4].starts_with("5! not a JSON object"), "{}", seen[4]);
    }

    #[test]
    fn bytes_that_are_not_utf8_spoil_their_own_line_only() {
        let seen = read(b"a\t\xff\tc\nd\te\tf\n", Format::Tsv, &first_three());
        assert!(seen[0].starts_with("1! byte 3 is not UTF-8"), "{}", seen[0]);
        assert_eq!(seen[1], "2: d|e|f");
    }

    #[test]
    fn halves_of_a_character_on_both_sides_of_a_comma_are_not_a_character() {
        // Side by side, without the comma, these bytes would be a byte order mark, or an e with a mark.
        let seen = read(b"a,\xef,\xbb\xbf\nd,e,f\n", Format::Csv, &first_three());
        assert!(seen[0].starts_with("1! byte 3 is not UTF-8"), "{}", seen[0]);
        assert_eq!(seen[1], "2: d|e|f");
        let seen = read(b"\"a\xc3\",\"\xa9\"\n", Format::Csv, &first_three());
        assert!(seen[0].starts_with("1! byte 3 is not UTF-8"), "{}", seen[0]);
    }

    #[test]
    fn an_endless_line_is_one_bad_line() {
        let text = [vec![b'x'; RECORD_SIZE_BYTES_MAX + 9], b"\na\tb\tc\n".to_vec()].concat();
        let seen = read(&text, Format::Tsv, &first_three());
        assert_eq!(seen, ["1! longer than 1048576 bytes", "2: a|b|c"]);
    }

    #[test]
    fn skipping_counts_lines_as_reading_does() {
        let text = b"h\n\"a\nb\"\nc\n";
        let mut records = Records::new(Box::new(Cursor::new(text.to_vec())), Format::Csv);
        assert!(records.skip_to(3).expect("memory"));
        let record = records.next().expect("memory").expect("one more");
        assert_eq!((record.first_line, record.last_line), (4, 4));
        assert!(!records.skip_to(5).expect("memory"), "there are four lines");
        assert_eq!(records.line_count(), 4);
    }
}

//! From a record's fields to an event.
//!
//! Knows: which column is the item, the time, the signal … Must not know: how records are divided,
//! nor who stores events.

use super::records::{Record, Selector};
use super::source::Format;
use crate::failure::{Failure, nearest};
use crate::time::TimeUnit;

/// The engine's limits, checked here so that one bad line does not spoil its batch.
const TEXT_SIZE_BYTES_MAX: usize = 1 << 10;
pub(super) const NAME_SIZE_BYTES_MAX: usize = 256;
const WEIGHT_MAX: f64 = 1e12;

/// The columns that were asked for, by name or number, as given on the command line.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) item: String,
    pub(crate) time: String,
    pub(crate) time_unit: TimeUnit,
    pub(crate) signal: SignalFrom,
    pub(crate) user: Option<String>,
    pub(crate) cohort: Option<CohortFrom>,
    pub(crate) weight: Option<String>,
    pub(crate) event_id: Option<String>,
}

/// Where an event's signal comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SignalFrom {
    /// A column.
    Column(String),
    /// Every event is this one.
    Fixed(String),
}

/// Where an event's cohort comes from: `family=<text of the column>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CohortFrom {
    pub(crate) column: String,
    pub(crate) family: String,
}

/// One event as the file tells it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// The line it begins on, for people.
    pub(crate) first_line: u64,
    /// The line it ends on: its position in the source.
    pub(crate) last_line: u64,
    pub(crate) signal: String,
    pub(crate) item: String,
    pub(crate) at_ns: u64,
    pub(crate) user: Option<String>,
    pub(crate) cohort: Option<String>,
    pub(crate) weight: f64,
    pub(crate) event_id: Option<String>,
}

/// Wanted columns, found.
#[derive(Debug)]
pub(crate) struct Columns {
    item: Selector,
    time: Selector,
    time_unit: TimeUnit,
    signal: Signal,
    user: Option<Selector>,
    cohort: Option<(Selector, String)>,
    weight: Option<Selector>,
    event_id: Option<Selector>,
    /// Fields of a whole line, where the format and the header say so.
    len: Option<usize>,
}

#[derive(Debug)]
enum Signal {
    Column(Selector),
    Fixed(String),
}

impl Columns {
    /// Finds the wanted columns among those of `header`; without a header they are numbers from 0,
    /// and in JSON they are names of members.
    ///
    /// # Errors
    ///
    /// When the header has no such column, or has it twice, or a number is none.
    pub(crate) fn find(
        wanted: &Wanted,
        format: Format,
        header: Option<&[String]>,
    ) -> Result<Self, Failure> {
        let find = |flag: &str, name: &str| select(flag, name, format, header);
        let maybe = |flag: &str, name: &Option<String>| {
            name.as_deref().map(|name| find(flag, name)).transpose()
        };
        Ok(Self {
            item: find("--item", &wanted.item)?,
            time: find("--time", &wanted.time)?,
            time_unit: wanted.time_unit,
            signal: match &wanted.signal {
                SignalFrom::Column(name) => Signal::Column(find("--signal", name)?),
                SignalFrom::Fixed(name) => Signal::Fixed(name.clone()),
            },
            user: maybe("--user", &wanted.user)?,
            cohort: match &wanted.cohort {
                Some(from) => Some((find("--cohort", &from.column)?, from.family.clone())),
                None => None,
            },
            weight: maybe("--weight", &wanted.weight)?,
            event_id: maybe("--event-id", &wanted.event_id)?,
            len: header.map(<[String]>::len),
        })
    }

    /// The event that the record tells of.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong with it.
    pub(crate) fn row(&self, record: &Record<'_>) -> Result<Row, String> {
        let fields = record.fields.as_ref().map_err(String::clone)?;
        if let Some(expected) = self.len.filter(|&expected| expected != fields.len()) {
            return Err(format!("{} fields, the header has {expected}", fields.len()));
        }
        let required = |what: &str, selector: &Selector| {
            fields.get(selector)?.ok_or_else(|| format!("no {what}"))
        };
        let optional = |selector: &Option<Selector>| match selector {
            Some(selector) => fields.get(selector),
            None => Ok(None),
        };
        let item = required("item", &self.item)?;
        limit("item", &item, TEXT_SIZE_BYTES_MAX)?;
        let at_ns = self.time_unit.parse(&required("time", &self.time)?)?;
        let signal = match &self.signal {
            Signal::Column(selector) => required("signal", selector)?.into_owned(),
            Signal::Fixed(name) => name.clone(),
        };
        let user = optional(&self.user)?;
        if let Some(user) = &user {
            limit("user", user, TEXT_SIZE_BYTES_MAX - USER_PREFIX.len())?;
        }
        let cohort = match &self.cohort {
            Some((selector, family)) => {
                fields.get(selector)?.map(|member| format!("{family}={member}"))
            }
            None => None,
        };
        if let Some(cohort) = &cohort {
            limit("cohort", cohort, NAME_SIZE_BYTES_MAX)?;
            if cohort.contains(char::is_control) {
                return Err(format!("cohort {cohort:?} has a control character"));
            }
        }
        let event_id = optional(&self.event_id)?;
        if let Some(event_id) = &event_id {
            limit("event id", event_id, NAME_SIZE_BYTES_MAX)?;
        }
        let weight = match optional(&self.weight)? {
            Some(text) => parse_weight(&text)?,
            None => 1.0,
        };
        Ok(Row {
            first_line: record.first_line,
            last_line: record.last_line,
            signal,
            item: item.into_owned(),
            at_ns,
            user: user.map(|user| user.into_owned()),
            cohort,
            weight,
            event_id: event_id.map(|event_id| event_id.into_owned()),
        })
    }
}

/// What sets users apart from items in the dictionary.
pub(crate) const USER_PREFIX: &str = "user:";

fn limit(what: &str, text: &str, size_bytes_max: usize) -> Result<(), String> {
    if text.len() > size_bytes_max {
        return Err(format!("{what} has {} bytes, the limit is {size_bytes_max}", text.len()));
    }
    Ok(())
}

fn parse_weight(text: &str) -> Result<f64, String> {
    let weight: f64 =
        text.trim().parse().map_err(|_| format!("weight {text:?} is not a number"))?;
    // NaN is in no range.
    if (-WEIGHT_MAX..=WEIGHT_MAX).contains(&weight) {
        Ok(weight)
    } else {
        Err(format!("weight {text:?} is not between -1e12 and 1e12"))
    }
}

fn select(
    flag: &str,
    name: &str,
    format: Format,
    header: Option<&[String]>,
) -> Result<Selector, Failure> {
    if format == Format::Jsonl {
        return Ok(Selector::Key(name.to_owned()));
    }
    let Some(header) = header else {
        return name.parse().map(Selector::Index).map_err(|_| {
            Failure::usage(format!("{flag} {name}: without a header columns are numbers from 0"))
        });
    };
    let mut places = header.iter().enumerate().filter(|(_, column)| *column == name);
    match (places.next(), places.next()) {
        (Some((index, _)), None) => Ok(Selector::Index(index)),
        (Some(_), Some(_)) => {
            Err(Failure::usage(format!("{flag} {name}: the header has that column twice"))
                .hint("use --no-header with column numbers from 0"))
        }
        (None, _) => {
            let columns: Vec<&str> = header.iter().map(String::as_str).collect();
            let hint = match nearest(name, columns.iter().copied()) {
                Some(near) => format!("did you mean {near}? The columns are "),
                None => "the columns are ".to_owned(),
            };
            Err(Failure::usage(format!("{flag} {name}: the header has no such column"))
                .hint(hint + &columns.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::super::records::Records;
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            item: "item".into(),
            time: "ts".into(),
            time_unit: TimeUnit::S,
            signal: SignalFrom::Column("event".into()),
            user: Some("user".into()),
            cohort: Some(CohortFrom { column: "land".into(), family: "country".into() }),
            weight: Some("w".into()),
            event_id: Some("id".into()),
        }
    }

    const HEADER: [&str; 7] = ["id", "user", "item", "ts", "event", "w", "land"];

    fn header() -> Vec<String> {
        HEADER.map(str::to_owned).to_vec()
    }

    fn row_of(line: &str) -> Result<Row, String> {
        let columns = Columns::find(&wanted(), Format::Csv, Some(&header())).expect("all there");
        let mut records =
            Records::new(Box::new(Cursor::new(line.to_owned().into_bytes())), Format::Csv);
        let record = records.next().expect("memory").expect("one line");
        columns.row(&record)
    }

    #[test]
    fn every_column_lands_where_it_belongs() {
        let row = row_of("e1,u7,lamp,1.5,view,-2.5,United Kingdom").expect("good");
        let expected = Row {
            first_line: 1,
            last_line: 1,
            signal: "view".into(),
            item: "lamp".into(),
            at_ns: 1_500_000_000,
            user: Some("u7".into()),
            cohort: Some("country=United Kingdom".into()),
            weight: -2.5,
            event_id: Some("e1".into()),
        };
        assert_eq!(row, expected);
    }

    #[test]
    fn empty_optional_fields_are_absent_and_weigh_one() {
        let row = row_of(",,lamp,2,view,,").expect("good");
        assert_eq!((row.user, row.cohort, row.event_id), (None, None, None));
        assert_eq!(row.weight, 1.0);
    }

    #[test]
    fn a_bad_line_says_what_is_wrong_with_it() {
        for (line, reason) in [
            ("e,u,,1,view,1,FR", "no item"),
            ("e,u,lamp,,view,1,FR", "no time"),
            ("e,u,lamp,1,,1,FR", "no signal"),
            ("e,u,lamp,noon,view,1,FR", "time \"noon\" is not a number"),
            ("e,u,lamp,1,view,heavy,FR", "weight \"heavy\" is not a number"),
            ("e,u,lamp,1,view,NaN,FR", "weight \"NaN\" is not between -1e12 and 1e12"),
            ("e,u,lamp,1,view,inf,FR", "weight \"inf\" is not between -1e12 and 1e12"),
            ("e,u,lamp,1,view,1e13,FR", "weight \"1e13\" is not between -1e12 and 1e12"),
            ("e,u,lamp,1,view,1,F\tR", "cohort \"country=F\\tR\" has a control character"),
            ("e,u,lamp,1,view,1", "6 fields, the header has 7"),
            ("e,u,lamp,1,view,1,FR,x", "8 fields, the header has 7"),
        ] {
            assert_eq!(row_of(line).expect_err(line), reason);
        }
        let long = "x".repeat(1_025);
        assert_eq!(
            row_of(&format!("e,u,{long},1,view,1,FR")).expect_err("long"),
            "item has 1025 bytes, the limit is 1024"
        );
    }

    fn refused(wanted: &Wanted, header: Option<&[String]>) -> String {
        let failure = Columns::find(wanted, Format::Csv, header).expect_err("refused");
        let (text, exit_code) = crate::failure::describe(&failure.into()).expect("told");
        assert_eq!(exit_code, 2);
        text
    }

    #[test]
    fn a_missing_column_is_told_with_its_nearest_neighbour() {
        let wanted = Wanted { item: "itme".into(), ..wanted() };
        assert_eq!(
            refused(&wanted, Some(&header())),
            "error: --item itme: the header has no such column\n\
             hint: did you mean item? The columns are id, user, item, ts, event, w, land"
        );
    }

    #[test]
    fn a_column_that_stands_twice_is_refused() {
        let mut header = header();
        header.push("item".into());
        assert!(refused(&wanted(), Some(&header)).contains("that column twice"));
    }

    #[test]
    fn without_a_header_columns_are_numbers() {
        assert!(refused(&wanted(), None).contains("numbers from 0"));
        let wanted = Wanted {
            item: "1".into(),
            time: "2".into(),
            time_unit: TimeUnit::Ms,
            signal: SignalFrom::Fixed("click".into()),
            user: None,
            cohort: None,
            weight: None,
            event_id: None,
        };
        let columns = Columns::find(&wanted, Format::Tsv, None).expect("numbers");
        let mut records =
            Records::new(Box::new(Cursor::new(b"s\tlamp\t7\nshort\n".to_vec())), Format::Tsv);
        let record = records.next().expect("memory").expect("one");
        let row = columns.row(&record).expect("good");
        assert_eq!(
            (row.item.as_str(), row.at_ns, row.signal.as_str()),
            ("lamp", 7_000_000, "click")
        );
        let record = records.next().expect("memory").expect("two");
        assert_eq!(columns.row(&record), Err("no item".into()));
    }
}

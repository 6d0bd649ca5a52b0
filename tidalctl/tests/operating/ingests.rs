//! `tidalctl ingest`, of files as other programs write them.

use std::fs::{self, File};
use std::process::Stdio;

use tempfile::TempDir;

use crate::{Said, command, run};

/// What the flags of every ingest here are.
const COLUMNS: &str = "--item item --time ts --signal event --signals view --dir DIR";

/// A directory with one file in it, beside which the database is.
fn file(text: &[u8]) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::write(dir.path().join("e.csv"), text).expect("written");
    dir
}

fn ingest(dir: &TempDir, flags: &str) -> Said {
    run(&format!("ingest e.csv {COLUMNS} --json {flags}"), &dir.path().join("shop.tidal"))
}

#[test]
fn a_file_that_begins_with_a_byte_order_mark_is_read_as_any_other() {
    let dir = file(b"\xef\xbb\xbfitem,ts,event\nlamp,1592337718,view\n");
    assert_eq!(ingest(&dir, "--clock event").json()["accepted"], 1);
}

#[test]
fn a_year_that_is_wrong_is_a_bad_line_where_events_advance_time() {
    let dir =
        file(b"item,ts,event\nlamp,1592337718,view\nfan,18000000000,view\nlamp,1592337719,view\n");
    let said = ingest(&dir, "--clock event");
    let found = said.json();
    assert_eq!((&found["accepted"], &found["bad"]), (&2.into(), &1.into()), "{said:?}");
    let reason = "line 3: time 2540-05-25 08:00:00Z is more than a day ahead of this machine";
    assert!(said.err.contains(reason), "{said:?}");
    let top = run("top --dir DIR --signal view --by hot --json", &dir.path().join("shop.tidal"));
    assert!(top.text().contains("lamp") && !top.text().contains("fan"), "{top:?}");
}

#[test]
fn a_quote_that_is_not_closed_tells_which_lines_it_costs() {
    let dir = file(b"item,ts,event\nlamp,1592337718,view\n\"fan,1592337718,view\nlamp,1,view\n");
    let said = ingest(&dir, "--clock event");
    assert_eq!(said.json()["accepted"], 1);
    let reason = "line 3: a quote is opened and not closed; nothing is taken through line 4";
    assert!(said.err.contains(reason), "{said:?}");
}

#[test]
fn what_cannot_be_told_stops_no_work() {
    let dir = file(b"item,ts,event\nlamp,1592337718,view\nfan,noon,view\nlamp,1592337719,view\n");
    let database = dir.path().join("shop.tidal");
    let quietly = |line: &str| {
        let full = File::options().write(true).open("/dev/full").expect("every machine has one");
        let said = command(line, &database).stderr(full).stdout(Stdio::piped()).output();
        said.expect("the program runs")
    };
    let said = quietly(&format!("ingest e.csv {COLUMNS} --json --clock event"));
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    let found: serde_json::Value = serde_json::from_slice(&said.stdout).expect("JSON");
    assert_eq!((&found["accepted"], &found["bad"]), (&2.into(), &1.into()), "{found}");
    assert_eq!(quietly("status --dir nowhere").status.code(), Some(1));
}

#[test]
fn a_source_without_a_name_or_with_an_endless_one_is_refused_before_anything_is_made() {
    let dir = file(b"item,ts,event\nlamp,1592337718,view\n");
    let said = ingest(&dir, &format!("--source {}", "x".repeat(257)));
    said.refuses(2, "the source's name has 257 bytes, it must have 1 to 256");
    assert!(!dir.path().join("shop.tidal").exists());
}

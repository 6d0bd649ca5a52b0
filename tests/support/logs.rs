//! Real event logs, read from `../shared/data` beside the project.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

use tidaldb::schema::Timestamp;

/// One line of a log.
#[derive(Debug, Clone)]
pub struct Line {
    /// What happened.
    pub signal: &'static str,
    /// The item's text id.
    pub item: String,
    /// When.
    pub at: Timestamp,
    /// What it adds to scores.
    pub weight: f64,
    /// Who did it, if known.
    pub user: Option<u64>,
    /// The cohort that the line itself names.
    pub cohort: Option<String>,
}

/// The file, or `None` when it is absent outside of CI.
///
/// # Panics
///
/// In CI a file that is absent is a failure: nothing passes by skipping.
pub fn find(name: &str) -> Option<PathBuf> {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let beside = manifest.join("../../shared/data");
    let named = std::env::var_os("TIDAL_SHARED").map(PathBuf::from).map(|shared| {
        let data = shared.join("data");
        if data.is_dir() { data } else { shared }
    });
    let path = named.unwrap_or(beside).join(name);
    if path.is_file() {
        return Some(path);
    }
    let message = format!(
        "{} is absent: put the shared data beside the project, or say where with TIDAL_SHARED",
        path.display()
    );
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{message}");
    eprintln!("\n==== SKIPPED, NOTHING WAS TESTED: {message} ====\n");
    None
}

/// Shop clicks: session, item, time. The session stands in for the user, folded to 200 users.
pub fn serenade() -> Option<Vec<Line>> {
    let file = std::fs::File::open(find("serenade/train.txt")?).expect("the log opens");
    Some(lines(file, |fields| {
        let seconds: f64 = fields[2].parse().expect("a time");
        Line {
            signal: "view",
            item: fields[1].to_owned(),
            at: Timestamp::from_nanos((seconds * 1e3).round() as u64 * 1_000_000),
            weight: 1.0,
            user: Some(fields[0].parse::<u64>().expect("a session") % 200),
            cohort: None,
        }
    }))
}

/// Invoices: session, user, item, ts, event, quantity, price, cohort.
pub fn retail() -> Option<Vec<Line>> {
    let file = std::fs::File::open(find("online-retail/events.tsv.gz")?).expect("the log opens");
    Some(lines(flate2::read::GzDecoder::new(file), |fields| {
        let quantity: f64 = fields[5].parse().expect("a quantity");
        let returned = match fields[4] {
            "purchase" => false,
            "return" => true,
            other => panic!("an event {other:?}"),
        };
        Line {
            signal: if returned { "return" } else { "purchase" },
            item: fields[2].to_owned(),
            at: Timestamp::from_secs(fields[3].parse().expect("a time")),
            weight: if returned { -quantity.abs() } else { quantity },
            user: fields[1].parse().ok(),
            cohort: Some(format!("country={}", fields[7])),
        }
    }))
}

fn lines(file: impl Read, parse: impl Fn(&[&str]) -> Line) -> Vec<Line> {
    let lines = BufReader::new(file).lines().skip(1);
    lines
        .map(|line| {
            let line = line.expect("text");
            parse(&line.trim_end().split('\t').collect::<Vec<_>>())
        })
        .collect()
}

//! The table of properties: every test and every breakage that it names is there.
//!
//! Knows: how the table names them. Must not know: what they say.

use std::collections::BTreeSet;

use crate::source::functions;
use crate::tree;

const TABLE: &str = "docs/properties.md";

/// Fewer lines than this are no table of them.
const PROPERTIES_MIN: usize = 45;

/// What the table names and is not there, and lines with one of test and breakage alone.
pub(crate) fn unknown() -> Vec<String> {
    let breakages: BTreeSet<String> = tree::files("tests/breakages", "patch")
        .into_iter()
        .filter_map(|path| Some(path.rsplit_once('/')?.1.split_once('-')?.0.to_owned()))
        .collect();
    let sources = tree::all_sources();
    let is_there = |path: &str, name: &str| {
        let file = sources.iter().find(|file| file.path == path);
        file.is_some_and(|file| functions(&file.tokens).iter().any(|it| it.name == name))
    };
    let (mut problems, mut count) = (Vec::new(), 0);
    for line in tree::text(TABLE).lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", number, _, tests, broken, ""] = cells[..] else { continue };
        if !number.ends_with(|last: char| last.is_ascii_digit()) {
            continue;
        }
        count += 1;
        if tests.is_empty() != broken.is_empty() {
            problems.push(format!("{TABLE}: {number} has a test or a breakage, not both"));
        }
        for test in tests.split(", ").filter(|test| !test.is_empty()) {
            let named = test.trim_matches('`').rsplit_once("::");
            if !named.is_some_and(|(path, name)| is_there(path, name)) {
                problems.push(format!("{TABLE}: {number}: there is no test {test}"));
            }
        }
        for breakage in broken.split(", ").filter(|breakage| !breakage.is_empty()) {
            if !breakages.contains(breakage) {
                problems.push(format!("{TABLE}: {number}: there is no breakage {breakage}"));
            }
        }
    }
    if count < PROPERTIES_MIN {
        problems.push(format!("{TABLE}: {count} properties are found"));
    }
    problems
}

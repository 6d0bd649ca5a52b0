//! What a reviewer would otherwise have to remember, as tests.
//!
//! Each test is a claim about the repository as it lies on disk, and says what to do where it does
//! not hold. Nothing here builds or runs the engine.
//!
//! - `tree`: the files; `source`: Rust as tokens and paths;
//! - `floors`: which room may name which; `suites`: what manifests declare; `links`: the papers;
//! - `breakages`: the patches that the suites must notice; `properties`: the table of what they prove.

mod breakages;
mod floors;
mod links;
mod properties;
mod source;
mod suites;
mod tree;

use std::collections::BTreeMap;
use std::io::Write;

use source::{functions, paths};
use tree::{Source, all_sources, engine_sources};

/// Lines of a file.
const FILE_LINES_MAX: usize = 700;

/// Lines of a function, from `fn` to its last brace.
const FUNCTION_LINES_MAX: usize = 70;

/// The functions that are longer today, and how long they are. A number here may only fall.
const LONGER_FUNCTIONS: &[(&str, &str, usize)] = &[];

fn assert_none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

/// Every place in the engine, outside the files that `may`, where `names` finds a forbidden path.
fn named_outside(may: impl Fn(&str) -> bool, names: impl Fn(&[&str]) -> bool) -> Vec<String> {
    let mut problems = Vec::new();
    for file in engine_sources().iter().filter(|file| !may(&file.path)) {
        for path in paths(&file.tokens) {
            let segments: Vec<&str> = path.segments.iter().map(String::as_str).collect();
            if names(&segments) {
                let named = segments.join("::");
                problems.push(format!("{}:{}: names {named}", file.path, path.line));
            }
        }
    }
    problems
}

/// Every place where these tokens follow each other, test code left out if `shipped_only`.
fn places_of(sources: &[Source], wanted: &[&str], shipped_only: bool) -> Vec<String> {
    let mut places = Vec::new();
    for file in sources {
        for found in file.tokens.windows(wanted.len()) {
            let is_it = found.iter().zip(wanted).all(|(token, wanted)| token.text == *wanted);
            if is_it && !(shipped_only && found[0].in_test) {
                places.push(format!("{}:{}: {}", file.path, found[0].line, wanted.concat()));
            }
        }
    }
    places
}

#[test]
fn imports_point_down_never_up_and_never_sideways() {
    assert_none(&floors::violations());
}

#[test]
fn only_storage_names_the_file_system_and_fjall() {
    let may = |path: &str| path.starts_with("tidal/src/storage/");
    assert_none(&named_outside(may, |path| {
        path.starts_with(&["std", "fs"])
            || (path.starts_with(&["std", "os"]) && path.contains(&"fs"))
            || matches!(path[0], "fjall" | "lsm_tree")
    }));
}

#[test]
fn only_sync_names_what_threads_meet_at() {
    // A lock that shuttle does not know is one whose races `--cfg shuttle` does not look for.
    let may = |path: &str| path.starts_with("tidal/src/sync");
    assert_none(&named_outside(may, |path| {
        matches!(path[0], "parking_lot" | "crossbeam" | "shuttle_parking_lot")
    }));
}

#[test]
fn only_codec_names_bincode() {
    let may = |path: &str| path.starts_with("tidal/src/codec/");
    assert_none(&named_outside(may, |path| path[0] == "bincode"));
}

#[test]
fn only_clock_names_the_clocks_of_the_system() {
    let sources: Vec<Source> =
        engine_sources().into_iter().filter(|file| file.path != "tidal/src/clock.rs").collect();
    let places = ["SystemTime", "Instant", "UNIX_EPOCH"];
    let places = places.iter().flat_map(|name| places_of(&sources, &[name], false));
    assert_none(&places.collect::<Vec<_>>());
}

#[test]
fn the_library_does_not_unwrap() {
    let places = places_of(&engine_sources(), &[".", "unwrap", "(", ")"], true);
    assert_none(&places);
}

#[test]
fn every_crash_point_is_reached_in_exactly_one_place() {
    let points = tree::text("tidal/src/fault.rs");
    let names = points.lines().filter_map(|line| {
        let (name, number) = line.strip_prefix("    ")?.split_once(" = ")?;
        number.strip_suffix(',')?.parse::<u16>().is_ok().then(|| name.to_owned())
    });
    let sources = engine_sources();
    let mut problems = Vec::new();
    let mut count = 0;
    for name in names {
        count += 1;
        let places = places_of(&sources, &["CrashPoint", "::", &name], true);
        if places.len() != 1 {
            problems.push(format!("{name} is reached in {} places: {places:?}", places.len()));
        }
    }
    assert!(count > 40, "the points are not found: {count}");
    assert_none(&problems);
}

#[test]
fn every_suite_and_bench_on_disk_is_declared_and_every_declared_one_is_on_disk() {
    let mut problems = suites::undeclared_or_missing("tests", "test");
    problems.extend(suites::undeclared_or_missing("benches", "bench"));
    problems.extend(suites::undeclared_or_missing("examples", "bin"));
    assert_none(&problems);
}

#[test]
fn every_file_begins_with_its_page() {
    let has_none = |file: &Source| !file.text.starts_with("//! ");
    let without = all_sources().into_iter().filter(has_none);
    let problems: Vec<String> = without
        .map(|file| format!("{}: what does it know? what must it not?", file.path))
        .collect();
    assert_none(&problems);
}

#[test]
fn no_file_has_more_than_700_lines() {
    let long = all_sources().into_iter().filter_map(|file| {
        let lines = file.text.lines().count();
        (lines > FILE_LINES_MAX).then(|| format!("{}: {lines} lines", file.path))
    });
    assert_none(&long.collect::<Vec<_>>());
}

#[test]
fn no_function_has_more_than_70_lines_and_those_that_have_only_shrink() {
    let allowed: BTreeMap<(&str, &str), usize> =
        LONGER_FUNCTIONS.iter().map(|&(path, name, lines)| ((path, name), lines)).collect();
    let mut seen = 0;
    let mut problems = Vec::new();
    for file in &all_sources() {
        for function in functions(&file.tokens) {
            let known = allowed.get(&(file.path.as_str(), function.name.as_str()));
            seen += usize::from(known.is_some());
            if function.lines != known.copied().unwrap_or(function.lines.min(FUNCTION_LINES_MAX)) {
                let limit = known.unwrap_or(&FUNCTION_LINES_MAX);
                problems.push(format!(
                    "{}:{}: {} has {} lines, {limit} are allowed (if it shrank, lower the number)",
                    file.path, function.line, function.name, function.lines
                ));
            }
        }
    }
    if seen != LONGER_FUNCTIONS.len() {
        problems.push("a function of LONGER_FUNCTIONS is gone: take it off the list".to_owned());
    }
    assert_none(&problems);
}

#[test]
fn nothing_is_left_for_later() {
    let sources = all_sources();
    let macros = ["todo", "unimplemented", "dbg"];
    let mut problems: Vec<String> =
        macros.iter().flat_map(|name| places_of(&sources, &[name, "!"], false)).collect();
    // Put together here, so that this file does not contain them.
    let words = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["XX", "X"].concat()];
    let manifests = tree::files("", "toml").into_iter().map(|path| (tree::text(&path), path));
    let texts = sources.into_iter().map(|file| (file.text, file.path)).chain(manifests);
    for (text, path) in texts {
        for (at, line) in text.lines().enumerate() {
            let mut parts = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            if parts.any(|part| words.iter().any(|word| word == part)) {
                problems.push(format!("{path}:{}: {}", at + 1, line.trim()));
            }
        }
    }
    assert_none(&problems);
}

#[test]
fn every_link_and_path_in_the_papers_is_alive() {
    assert_none(&links::dead());
}

#[test]
fn every_suite_and_bench_that_the_papers_name_is_declared() {
    assert_none(&suites::unknown_targets_in_papers());
}

#[test]
fn the_papers_for_contributors_list_every_command_of_ci() {
    let listed = tree::text("CONTRIBUTING.md");
    let commands = suites::ci_commands();
    assert!(commands.len() >= 5, "the steps of .ci/run are not found: {commands:?}");
    let missing =
        commands.iter().filter(|command| !listed.lines().any(|line| line.contains(*command)));
    let problems = missing.map(|command| format!("CONTRIBUTING.md does not list: {command}"));
    assert_none(&problems.collect::<Vec<_>>());
}

#[test]
fn the_readme_begins_with_all_the_set_up_there_is() {
    let readme = tree::text("README.md");
    let block = readme.split("```").nth(1).expect("the README has a block of commands");
    let commands: Vec<&str> =
        block.lines().map(str::trim).filter(|line| line.starts_with("cargo ")).collect();
    let without_comments: Vec<&str> =
        commands.iter().filter_map(|line| line.split('#').next()).map(str::trim).collect();
    assert_eq!(without_comments, ["cargo run --release -p tidalctl -- demo", "cargo test"]);
}

#[test]
fn every_test_and_every_breakage_that_a_property_names_is_there() {
    assert_none(&properties::unknown());
}

#[test]
fn every_deliberate_breakage_says_what_it_breaks_and_who_should_notice() {
    assert_none(&breakages::unclear());
}

#[test]
fn every_deliberate_breakage_still_applies() {
    match breakages::stale() {
        Some(problems) => assert_none(&problems),
        // Past the harness, which keeps to itself what a test prints that passes.
        None => {
            let said = std::io::stderr().write_all(b"SKIPPED: no git, so no breakage was tried\n");
            said.expect("standard error is open");
        }
    }
}

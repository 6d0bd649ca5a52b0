//! Suites, benches and commands: what is declared, what is there, and what the papers say of them.
//!
//! Knows: manifests, folders, commands in papers. Must not know: what a suite tests.

use std::collections::BTreeSet;

use crate::tree;

/// What a manifest declares under `[[kind]]`, and what lies in its folder, must be the same.
pub(crate) fn undeclared_or_missing(package: &str, kind: &str) -> Vec<String> {
    let declared = declared(package, kind);
    let on_disk = on_disk(package);
    let mut problems = Vec::new();
    for path in on_disk.difference(&declared) {
        problems.push(format!("{package}/{path} is no [[{kind}]] of {package}/Cargo.toml"));
    }
    for path in declared.difference(&on_disk) {
        problems.push(format!("{package}/Cargo.toml declares {path}, which is not there"));
    }
    let manifest = tree::text(&format!("{package}/Cargo.toml"));
    let discovery = if kind == "bench" { "autobenches" } else { "autotests" };
    if !manifest.contains(&format!("\n{discovery} = false\n")) {
        problems.push(format!("{package}/Cargo.toml leaves it to cargo what is a {kind}"));
    }
    problems
}

/// The paths of the targets of one kind.
fn declared(package: &str, kind: &str) -> BTreeSet<String> {
    targets(package, kind).into_iter().map(|(_, path)| path).collect()
}

/// The names of all suites: those of the engine, and those that run the command line and the examples.
pub(crate) fn suites() -> BTreeSet<String> {
    ["tests", "tidalctl", "examples"]
        .into_iter()
        .flat_map(|package| names(package, "test"))
        .collect()
}

/// The names of the targets of one kind.
fn names(package: &str, kind: &str) -> BTreeSet<String> {
    targets(package, kind).into_iter().map(|(name, _)| name).collect()
}

fn targets(package: &str, kind: &str) -> Vec<(String, String)> {
    let manifest = tree::text(&format!("{package}/Cargo.toml"));
    let header = format!("[[{kind}]]");
    let sections = manifest.split("\n[").map(|section| format!("[{section}"));
    sections
        .filter(|section| section.starts_with(&header))
        .map(|section| {
            let value = |key: &str| {
                let line = section.lines().find_map(|line| line.strip_prefix(key));
                let quoted = line.and_then(|rest| rest.split('"').nth(1));
                quoted.unwrap_or_else(|| panic!("a {header} of {package} without {key}")).to_owned()
            };
            (value("name"), value("path"))
        })
        .collect()
}

/// `x.rs` and `x/main.rs` of a package whose library lies elsewhere or is called `lib.rs`.
fn on_disk(package: &str) -> BTreeSet<String> {
    let prefix = format!("{package}/");
    tree::files(package, "rs")
        .iter()
        .filter_map(|path| path.strip_prefix(&prefix))
        .filter(|path| match path.split('/').collect::<Vec<_>>()[..] {
            [file] => file != "lib.rs",
            [_, file] => file == "main.rs",
            _ => false,
        })
        .map(str::to_owned)
        .collect()
}

/// The cargo commands that `.ci/run` runs.
pub(crate) fn ci_commands() -> Vec<String> {
    let script = tree::text(".ci/run");
    let step = |line: &str| Some(line.strip_prefix("step ")?.split_once("cargo ")?.1.to_owned());
    script.lines().filter_map(step).map(|rest| format!("cargo {rest}")).collect()
}

/// Every `--test NAME` and `--bench NAME` of the papers whose target is not declared.
pub(crate) fn unknown_targets_in_papers() -> Vec<String> {
    let mut problems = Vec::new();
    for (flag, known) in [("--test", suites()), ("--bench", names("benches", "bench"))] {
        for paper in tree::files("", "md") {
            let text = tree::text(&paper);
            let words: Vec<&str> = text.split_whitespace().collect();
            for pair in words.windows(2).filter(|pair| pair[0].trim_matches('`') == flag) {
                let name = pair[1].trim_end_matches(['`', '.', ',', ':', ')']);
                let is_name =
                    name.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit());
                if is_name && !known.contains(name) {
                    problems.push(format!("{paper}: {flag} {name} is not declared"));
                }
            }
        }
    }
    problems
}

//! The deliberate breakages: each says what it breaks and who should notice, and still applies.
//!
//! Knows: patches and their heads. Must not know: whether they are noticed, which takes long:
//! `tests/breakages/run`.

use std::process::{Command, Stdio};

use crate::{suites, tree};

/// Fewer than this were promised.
const BREAKAGES_MIN: usize = 28;

/// Patches whose head says too little, and suites that nobody has.
pub(crate) fn unclear() -> Vec<String> {
    let patches = tree::files("tests/breakages", "patch");
    let suites = suites::suites();
    let mut problems = Vec::new();
    if patches.len() < BREAKAGES_MIN {
        problems.push(format!("{} breakages, and {BREAKAGES_MIN} were promised", patches.len()));
    }
    for path in patches {
        let text = tree::text(&path);
        let head: Vec<&str> = text.lines().take_while(|line| !line.starts_with("diff ")).collect();
        let says = |key: &str| head.iter().find_map(|line| line.strip_prefix(key));
        if says("What: ").is_none_or(|what| !what.ends_with('.')) {
            problems.push(format!("{path}: does not say in a sentence what it breaks"));
        }
        let commands: Vec<&str> =
            head.iter().filter_map(|line| line.strip_prefix("Red: ")).collect();
        if commands.is_empty() || !commands.iter().all(|of| of.contains("cargo test ")) {
            problems.push(format!("{path}: does not name a command that turns red"));
        }
        for command in commands {
            let suite = command.split_once("--test ").and_then(|(_, rest)| rest.split(' ').next());
            if suite.is_some_and(|suite| !suites.contains(suite)) {
                problems.push(format!("{path}: {command}: no such suite"));
            }
        }
    }
    problems
}

/// Patches that do not apply to the tree as it lies here. `None` where git is not there to ask.
pub(crate) fn stale() -> Option<Vec<String>> {
    let applies = |path: &str| {
        let mut git = Command::new("git");
        git.args(["apply", "--check", path]).current_dir(tree::root());
        // A repository around this one is none of its business.
        git.env("GIT_CEILING_DIRECTORIES", tree::root().parent().unwrap_or(tree::root()));
        git.stdin(Stdio::null()).output()
    };
    let mut problems = Vec::new();
    for path in tree::files("tests/breakages", "patch") {
        let checked = applies(&path).ok()?;
        if !checked.status.success() {
            let said = String::from_utf8_lossy(&checked.stderr).into_owned();
            problems.push(format!("{path} does not apply any more, make it anew: {said}"));
        }
    }
    Some(problems)
}

//! The papers: links and paths in them.
//!
//! Knows: Markdown, as far as links, code and headings go. Must not know: what the papers say.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::tree;

/// Links to files or headings that are not there, and paths in code that name no file.
pub(crate) fn dead() -> Vec<String> {
    let papers = tree::files("", "md");
    papers.iter().flat_map(|paper| dead_in(paper, &tree::text(paper))).collect()
}

fn dead_in(paper: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for (line, content) in prose(text) {
        for link in links(&without_code(content)) {
            if let Some(problem) = check_link(paper, text, link) {
                problems.push(format!("{paper}:{line}: {problem}"));
            }
        }
        for code in code_spans(content).filter(|code| is_path(code)) {
            let folder = Path::new(paper).parent().unwrap_or(Path::new(""));
            let places = [Path::new(""), folder, Path::new("tidal/src")];
            if !places.iter().any(|place| tree::root().join(place).join(code).exists()) {
                problems.push(format!("{paper}:{line}: `{code}` names no file"));
            }
        }
    }
    problems
}

/// The lines outside fenced blocks, numbered from 1.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut in_block = false;
    let mut lines = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            lines.push((at + 1, line));
        }
    }
    assert!(!in_block, "a fenced block does not end");
    lines
}

fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

/// The targets of all `[text](target)`.
fn links(line: &str) -> Vec<&str> {
    line.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)).collect()
}

fn check_link(paper: &str, text: &str, link: &str) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (file, heading) = link.split_once('#').map_or((link, None), |(f, h)| (f, Some(h)));
    let target = normal(&Path::new(paper).parent().unwrap_or(Path::new("")).join(file));
    if !file.is_empty() && !tree::root().join(&target).exists() {
        return Some(format!("link to {link}: there is no {}", target.display()));
    }
    let heading = heading?;
    let headings = match file {
        "" => slugs(text),
        _ => slugs(&tree::text(&target.display().to_string())),
    };
    (!headings.contains(heading)).then(|| format!("link to {link}: there is no such heading"))
}

/// The path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => assert!(parts.pop(), "{} leads out", path.display()),
            Component::CurDir => {}
            other => parts.push(other),
        }
    }
    parts
}

/// The anchors that a reader of Markdown makes of headings.
fn slugs(text: &str) -> BTreeSet<String> {
    let slug = |heading: &str| {
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        heading.trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
    };
    prose(text)
        .into_iter()
        .filter(|(_, line)| line.starts_with('#'))
        .map(|(_, line)| slug(line.trim_start_matches('#')))
        .collect()
}

/// Whether code looks like a file of this repository.
fn is_path(code: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let first = code.split('/').next().unwrap_or_default();
    let in_a_folder_of_ours = code.contains('/')
        && !first.is_empty()
        && !first.starts_with("..")
        && tree::root().join(first).is_dir();
    let has_an_extension_of_ours =
        [".rs", ".md", ".toml"].iter().any(|e| code.len() > e.len() && code.ends_with(e));
    code.chars().all(plain) && (in_a_folder_of_ours || has_an_extension_of_ours)
}

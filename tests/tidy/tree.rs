//! The files of the repository.
//!
//! Knows: where they lie and what is in them. Must not know: what they should say.

use std::fs;
use std::path::{Path, PathBuf};

use crate::source::{self, Token};

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the root")
}

/// The text of a file, by its path from the root.
pub(crate) fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file under `dir` with this extension, by its path from the root, sorted. What builds and
/// tools leave behind is not looked at.
pub(crate) fn files(dir: &str, extension: &str) -> Vec<String> {
    let mut found = Vec::new();
    collect(&root().join(dir), extension, &mut found);
    let mut paths: Vec<String> = found
        .iter()
        .map(|path| path.strip_prefix(root()).expect("it was found there").display().to_string())
        .collect();
    paths.sort_unstable();
    assert!(!paths.is_empty(), "no .{extension} in {dir:?}: tidy looks in the wrong place");
    paths
}

fn collect(dir: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let path = entry.expect("the directory was listed").path();
        let name = path.file_name().expect("an entry has a name").to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            collect(&path, extension, found);
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
}

/// A file of Rust.
pub(crate) struct Source {
    /// From the root of the repository.
    pub(crate) path: String,
    /// The path of its module from the root of the crate, if it is the engine's.
    pub(crate) module: Vec<String>,
    pub(crate) text: String,
    pub(crate) tokens: Vec<Token>,
}

/// All Rust of the repository.
pub(crate) fn all_sources() -> Vec<Source> {
    sources("")
}

/// The engine's own source, with the files that `#[cfg(test)] mod …;` brings in marked as tests.
pub(crate) fn engine_sources() -> Vec<Source> {
    let mut sources = sources("tidal/src");
    let test_modules: Vec<Vec<String>> = sources
        .iter()
        .flat_map(|file| {
            let names = source::test_modules(&file.tokens).into_iter();
            names.map(|name| [file.module.clone(), vec![name]].concat())
        })
        .collect();
    for file in &mut sources {
        if test_modules.iter().any(|module| file.module.starts_with(module)) {
            file.tokens.iter_mut().for_each(|token| token.in_test = true);
        }
    }
    sources
}

fn sources(dir: &str) -> Vec<Source> {
    let read = |path: String| {
        let text = text(&path);
        let tokens = source::tokens(&text);
        let in_crate = Path::new(&path).strip_prefix("tidal/src").unwrap_or(Path::new(&path));
        Source { module: source::module_of(in_crate), text, tokens, path }
    };
    files(dir, "rs").into_iter().map(read).collect()
}

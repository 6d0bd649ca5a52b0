//! What the suites share: a plain model of the engine, operations of every surface, real
//! logs, child processes to kill, faults beneath them.
//!
//! Knows: the public interface of `tidaldb`, and nothing behind it.

pub mod child;
pub mod contract;
pub mod damage;
pub mod logs;
pub mod model;
pub mod operations;
#[cfg(unix)]
pub mod power;
pub mod random;
pub mod sessions;
pub mod shim;
pub mod sim;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Instant;

use tidaldb::{Runtime, SessionConfig};

/// A number that the environment sets, to run more of something; else the default.
///
/// # Panics
///
/// When what it is set to is no number.
pub fn setting<T: FromStr>(variable: &str, default: T) -> T {
    let parse = |text: String| {
        text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}"))
    };
    std::env::var(variable).map_or(default, parse)
}

/// Whether `TIDAL_LIMIT_S` seconds have gone by since this was first asked: a long run then begins no
/// other case.
pub fn is_time_up() -> bool {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    let limit_s = setting("TIDAL_LIMIT_S", u64::MAX);
    BEGUN.get_or_init(Instant::now).elapsed().as_secs() >= limit_s
}

/// Sessions of which nothing falls due unless the test drives.
pub fn manual() -> SessionConfig {
    let mut sessions = SessionConfig::default();
    sessions.runtime = Runtime::Manual;
    sessions
}

/// A map of attributes or metadata.
pub fn pairs(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

/// A digest as text, for lines between processes and for messages.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Copies a directory with all that is in it.
pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("the copy's directory is made");
    for entry in std::fs::read_dir(from).expect("the directory is listed") {
        let entry = entry.expect("an entry is read");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("its type is known").is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a file is copied");
        }
    }
}

/// Every file below a directory with its content, sorted by path. A file may go while it is looked
/// at; anything else that cannot be read is a failure.
pub fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in still_there(std::fs::read_dir(&dir), &dir).into_iter().flatten() {
            let path = entry.expect("an entry is read").path();
            if path.is_dir() {
                todo.push(path);
            } else if let Some(bytes) = still_there(std::fs::read(&path), &path) {
                found.push((path, bytes));
            }
        }
    }
    found.sort_unstable();
    found
}

fn still_there<T>(read: std::io::Result<T>, path: &Path) -> Option<T> {
    match read {
        Ok(read) => Some(read),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

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
pub mod shim;
pub mod sim;

use std::collections::HashMap;
use std::path::Path;

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

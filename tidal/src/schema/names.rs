//! Names: what one may be, and finding things by theirs.
//!
//! Knows: limits and a hash index. Must not know: what is named.

use hashbrown::HashTable;

/// The longest name of a signal, cohort or attribute.
pub(super) const BYTES_MAX: usize = 256;

/// Whether `name` can name anything.
pub(super) fn is_valid(name: &str) -> bool {
    (1..=BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// What is wrong with a name of `what`, as a sentence.
pub(super) fn validate(what: &str, name: &str) -> Result<(), String> {
    if is_valid(name) {
        return Ok(());
    }
    if name.is_empty() {
        return Err(format!("{what} without a name: give it 1 to {BYTES_MAX} bytes"));
    }
    if name.len() > BYTES_MAX {
        return Err(format!(
            "{what} {:?}… has a name of {} bytes: shorten it to {BYTES_MAX}",
            name.chars().take(16).collect::<String>(),
            name.len()
        ));
    }
    Err(format!("{what} {name:?} has a control character in its name: remove it"))
}

/// Finds a position in a list by the name of what stands there.
///
/// The hash needs no secret: only the schema's own names are in the table, so a caller cannot
/// choose names that collide there.
#[derive(Debug, Clone)]
pub(super) struct NameIndex {
    positions: HashTable<usize>,
}

impl NameIndex {
    /// An index of distinct names.
    pub(super) fn new<'a>(names: impl ExactSizeIterator<Item = &'a str> + Clone) -> Self {
        let hashes: Vec<u64> = names.map(hash).collect();
        let mut positions = HashTable::with_capacity(hashes.len());
        for (position, &of_name) in hashes.iter().enumerate() {
            positions.insert_unique(of_name, position, |&at| hashes[at]);
        }
        Self { positions }
    }

    /// The position at which `name_at` gives `name`.
    pub(super) fn find<'a>(&self, name: &str, name_at: impl Fn(usize) -> &'a str) -> Option<usize> {
        self.positions.find(hash(name), |&position| name_at(position) == name).copied()
    }
}

/// FNV-1a, 64 bits.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_no_other() {
        let names: Vec<String> = (0..1000).map(|i| format!("signal-{i}")).collect();
        let index = NameIndex::new(names.iter().map(String::as_str));
        for (position, name) in names.iter().enumerate() {
            assert_eq!(index.find(name, |at| &names[at]), Some(position));
        }
        assert_eq!(index.find("signal-1000", |at| &names[at]), None);
        assert_eq!(index.find("", |at| &names[at]), None);
    }

    #[test]
    fn names_are_one_to_256_bytes_without_control_characters() {
        for good in ["a", "a b", "é", "日本", &"x".repeat(256)] {
            assert!(validate("signal", good).is_ok(), "{good:?}");
        }
        for bad in ["", "a\n", "\0", "\u{85}", &"x".repeat(257)] {
            assert!(validate("signal", bad).is_err(), "{bad:?}");
        }
    }
}

//! A [`StorageEngine`] that lives in memory.
//!
//! Knows: a sorted map. Must not know: files. It keeps every promise of the trait but survival, and
//! refuses exactly what the engine on disk refuses, so that a test against it means something.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::{EachPair, StorageEngine, WriteOp, check_limits};
use crate::error::Result;
use crate::sync::RwLock;

/// A [`StorageEngine`] in memory: for tests, and for state that need not survive.
///
/// ```
/// use tidaldb::storage::{InMemoryBackend, StorageEngine, WriteOp};
///
/// let store = InMemoryBackend::new();
/// store.put(b"fruit/apple", b"red")?;
/// store.write_batch(vec![
///     WriteOp::Put { key: b"fruit/plum".to_vec(), value: b"blue".to_vec() },
///     WriteOp::Delete { key: b"fruit/apple".to_vec() },
/// ])?;
/// assert_eq!(store.get(b"fruit/apple")?, None);
/// assert_eq!(store.scan_prefix(b"fruit/")?, [(b"fruit/plum".to_vec(), b"blue".to_vec())]);
/// # Ok::<(), tidaldb::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct InMemoryBackend {
    /// Shared with running scans: a write while one runs copies the map and leaves the scan its own.
    pairs: RwLock<Arc<BTreeMap<Vec<u8>, Vec<u8>>>>,
}

impl InMemoryBackend {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl StorageEngine for InMemoryBackend {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.pairs.read().get(key).cloned())
    }

    fn scan_from(&self, prefix: &[u8], start: &[u8], each: &mut EachPair<'_>) -> Result<()> {
        let pairs = Arc::clone(&self.pairs.read());
        let from_start = (Bound::Included(prefix.max(start)), Bound::Unbounded);
        for (key, value) in pairs.range::<[u8], _>(from_start) {
            if !key.starts_with(prefix) {
                break;
            }
            each(key, value)?;
        }
        Ok(())
    }

    fn write_batch(&self, ops: Vec<WriteOp>) -> Result<()> {
        check_limits(&ops)?;
        let mut shared = self.pairs.write();
        let pairs = Arc::make_mut(&mut shared);
        for op in ops {
            match op {
                WriteOp::Put { key, value } => pairs.insert(key, value),
                WriteOp::Delete { key } => pairs.remove(&key),
            };
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }
}

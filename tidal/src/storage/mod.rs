//! Bytes at rest.
//!
//! Knows: files, directories and the checkpoint store beneath us; this is the only room that names
//! `std::fs` or `fjall`. Must not know: what any byte means.

mod anchor;
mod disk;
mod fjall;
mod machine;
mod memory;
mod opening;
mod place;
mod stage;

#[cfg(test)]
mod conformance;

use crate::error::{Error, Result};

pub(crate) use self::anchor::{Anchored, DISPLACED};
pub(crate) use self::disk::system_random;
#[doc(hidden)]
pub use self::disk::{Disk, DiskFile, FileId, RealDisk};
pub(crate) use self::fjall::FjallBackend;
#[doc(hidden)]
pub use self::machine::{Machine, OpenFailure, Stores, create_staged, open_marked};
pub use self::memory::InMemoryBackend;
pub(crate) use self::opening::{forget_opens, is_left_alone};
pub(crate) use self::place::{aside_path, copy_tree, expect_free, move_aside};
pub(crate) use self::stage::Stage;

/// One change of a [`StorageEngine`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteOp {
    /// Sets a key.
    Put {
        /// 1 to 65,535 bytes.
        key: Vec<u8>,
        /// Below 4 GiB.
        value: Vec<u8>,
    },
    /// Removes a key; removing one that is not there is no error.
    Delete {
        /// 1 to 65,535 bytes.
        key: Vec<u8>,
    },
}

/// A key-value pair of a [`StorageEngine`].
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// What a [`scan`](StorageEngine::scan) calls with each key and value.
pub type EachPair<'a> = dyn FnMut(&[u8], &[u8]) -> Result<()> + 'a;

/// An ordered key-value store that a checkpoint can be written to.
///
/// Keys are 1 to 65,535 bytes, values below 4 GiB. A [`write_batch`](Self::write_batch) is atomic:
/// after a crash all of it is there or nothing. What was written before a [`sync`](Self::sync) that
/// returned survives a power cut; the rest survives the process.
///
/// A key out of range is never there: reading it is no error and finds nothing.
pub trait StorageEngine: Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    ///
    /// [`Store`](crate::Error::Store) when the store cannot read it.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// Sets one key.
    ///
    /// # Errors
    ///
    /// As [`write_batch`](Self::write_batch).
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.write_batch(vec![WriteOp::Put { key: key.to_vec(), value: value.to_vec() }])
    }

    /// Removes one key.
    ///
    /// # Errors
    ///
    /// As [`write_batch`](Self::write_batch).
    fn delete(&self, key: &[u8]) -> Result<()> {
        self.write_batch(vec![WriteOp::Delete { key: key.to_vec() }])
    }

    /// Calls `each` with every pair whose key starts with `prefix`, in ascending byte order of keys,
    /// until it returns an error.
    ///
    /// All pairs are as of one moment, the start of the scan, whatever is written meanwhile; `each`
    /// itself may write. They are read as they are needed, never gathered first.
    ///
    /// # Errors
    ///
    /// The first error of `each`, or [`Store`](crate::Error::Store).
    fn scan(&self, prefix: &[u8], each: &mut EachPair<'_>) -> Result<()> {
        self.scan_from(prefix, prefix, each)
    }

    /// As [`scan`](Self::scan), of those pairs alone whose key is `start` or later. A `start` before
    /// `prefix` leaves nothing out; one behind all keys of the prefix leaves nothing.
    ///
    /// # Errors
    ///
    /// As [`scan`](Self::scan).
    fn scan_from(&self, prefix: &[u8], start: &[u8], each: &mut EachPair<'_>) -> Result<()>;

    /// Every pair whose key starts with `prefix`, in ascending byte order of keys.
    ///
    /// # Errors
    ///
    /// [`Store`](crate::Error::Store) when the store cannot read them.
    fn scan_prefix(&self, prefix: &[u8]) -> Result<Vec<KeyValue>> {
        let mut pairs = Vec::new();
        self.scan(prefix, &mut |key, value| {
            pairs.push((key.to_vec(), value.to_vec()));
            Ok(())
        })?;
        Ok(pairs)
    }

    /// Applies all changes, in order, or none.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](crate::Error::InvalidArgument) for a key or value out of range (nothing
    /// is written); [`Store`](crate::Error::Store) when the store fails: then the outcome is unknown
    /// until the store is reopened.
    fn write_batch(&self, ops: Vec<WriteOp>) -> Result<()>;

    /// Applies all changes, in order, or none, and makes them and everything written before them
    /// survive a power cut.
    ///
    /// # Errors
    ///
    /// As [`write_batch`](Self::write_batch) and [`sync`](Self::sync).
    fn write_batch_synced(&self, ops: Vec<WriteOp>) -> Result<()> {
        self.write_batch(ops)?;
        self.sync()
    }

    /// Makes everything written so far survive a power cut.
    ///
    /// # Errors
    ///
    /// [`Store`](crate::Error::Store); then nothing since the last sync is promised.
    fn sync(&self) -> Result<()>;
}

/// The smallest and largest key of any engine, in bytes.
const KEY_SIZE_BYTES: std::ops::RangeInclusive<usize> = 1..=65_535;

/// The largest value of any engine, in bytes.
const VALUE_SIZE_BYTES_MAX: usize = u32::MAX as usize;

/// Refuses a batch with a key or value out of range, before any of it reaches an engine.
fn check_limits(ops: &[WriteOp]) -> Result<()> {
    for op in ops {
        let (key, value_size_bytes) = match op {
            WriteOp::Put { key, value } => (key, value.len()),
            WriteOp::Delete { key } => (key, 0),
        };
        if !KEY_SIZE_BYTES.contains(&key.len()) {
            return Err(Error::invalid(
                "key",
                format!(
                    "has {} bytes; keys are {} to {} bytes",
                    key.len(),
                    KEY_SIZE_BYTES.start(),
                    KEY_SIZE_BYTES.end()
                ),
            ));
        }
        if value_size_bytes > VALUE_SIZE_BYTES_MAX {
            return Err(Error::invalid(
                "value",
                format!("has {value_size_bytes} bytes; values are below 4 GiB"),
            ));
        }
    }
    Ok(())
}

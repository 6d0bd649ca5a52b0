//! Bytes at rest.
//!
//! Knows: files, directories and the checkpoint store beneath us; this is the only room that names
//! `std::fs` or `fjall`. Must not know: what any byte means.

mod disk;

pub(crate) use disk::{Disk, DiskFile, RealDisk};

use crate::error::Result;

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

/// An ordered key-value store that a checkpoint can be written to.
///
/// Keys are 1 to 65,535 bytes, values below 4 GiB. A [`write_batch`](Self::write_batch) is atomic:
/// after a crash all of it is there or nothing. What was written before a [`sync`](Self::sync) that
/// returned survives a power cut; the rest survives the process.
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
    /// # Errors
    ///
    /// The first error of `each`, or [`Store`](crate::Error::Store).
    fn scan(&self, prefix: &[u8], each: &mut dyn FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()>;

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

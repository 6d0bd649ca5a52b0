//! A machine in memory: a disk and checkpoint stores that stop at any operation, refuse one, and lose
//! power, so that the engine's own code runs over them.
//!
//! Knows: which bytes and names were synced. Must not know: what they mean.
//!
//! - `disk`: operations, faults, reboots, images of every step;
//! - `nodes`: what a file, a directory and a store are before and after a power cut;
//! - `stores`: the checkpoint stores.
//!
//! The machine is stricter than POSIX asks a file system to be kind: every sector of 512 bytes, size
//! and directory entry that was not synced survives a power cut or not, independently; of a store's
//! batches any prefix does; a failed sync leaves everything readable, some of it on the disk, and
//! nothing left to try again. The unit tests of the log include these files by their path.

mod disk;
mod nodes;
mod stores;

pub use disk::{Fault, Image, Op, SimDisk, Survives};
pub use stores::SimStores;

//! Items: which are hidden, their metadata, and the dictionary of text ids.
//!
//! Knows: what is said of an item apart from signals. Must not know: signals, the log, clocks.

mod dictionary;
mod hidden;

pub(crate) use dictionary::Dictionary;
pub(crate) use hidden::Hidden;

/// The cold table of item metadata: rows are attributes as the record has them.
pub(crate) const METADATA: u8 = 1;

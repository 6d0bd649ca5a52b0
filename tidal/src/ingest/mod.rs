//! Ingest exactly once: how far each source has been applied, and which event ids were seen.
//!
//! Knows: positions and ids. Must not know: events, the log, clocks.

mod event_ids;
mod sources;

pub(crate) use event_ids::EventIds;
pub(crate) use sources::{SourceStep, Sources};

//! `tidalctl demo`: a shop's month, a writer killed half-way, and what is left of its work.
//!
//! Knows: which scene follows which. Must not know: how events are stored.

pub(crate) mod names;
pub(crate) mod popularity;
pub(crate) mod rng;
pub(crate) mod shop;
pub(crate) mod tally;

// Touches the engine:
// join: mod check;
// join: mod run;
// join: mod writer;

// join: pub(crate) use run::run;
// join: pub(crate) use writer::run as run_writer;

//! `tidalctl demo`: a shop's month, a writer killed half-way, and what is left of its work.
//!
//! Knows: which scene follows which. Must not know: how events are stored.

pub(crate) mod names;
pub(crate) mod popularity;
pub(crate) mod rng;
pub(crate) mod shop;
pub(crate) mod tally;

// Touches the engine:
mod check;
mod run;
mod writer;

pub(crate) use run::run;
pub(crate) use writer::run as run_writer;

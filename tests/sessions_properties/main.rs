//! What holds of sessions whatever happens: scripts of starts, writes, time and crashes, drawn at
//! random and lived on a simulated machine under a manual clock.
//!
//! `TIDAL_SEED` repeats a run, `TIDAL_CASES` changes how many scripts each property has.

mod actor;
mod afterwards;
mod clocks;
mod cuts;
mod events;
mod fences;
mod laws;
mod orphans;
mod recovery;
mod script;
mod world;

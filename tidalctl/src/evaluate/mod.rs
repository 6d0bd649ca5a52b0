//! `tidalctl evaluate`: how well recommendations foretell what a log says next.
//!
//! Knows: the order of the steps. Must not know: how lines are divided, nor how items are recommended.

mod log;
mod run;
mod score;

pub(crate) use log::Click;
pub(crate) use run::{Allowed, run};

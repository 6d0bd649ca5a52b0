//! `tidalctl ingest`: a file into a database, exactly once.
//!
//! Knows: the order of the steps. Must not know: how lines are divided, nor how events are stored.

pub(crate) mod columns;
pub(crate) mod records;
pub(crate) mod report;
pub(crate) mod source;

pub(crate) mod plan;

// Touches the engine:
mod load;
mod run;

pub(crate) use columns::USER_PREFIX;
pub(crate) use load::{TEXT_USER_BIT, user_number, user_text};
pub(crate) use run::{find_columns, run};

//! Copies that are opened for whoever only looks: an open of the database itself would write.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;
use tidaldb::schema::Timestamp;
use tidaldb::{Error, Inspection, ManualClock, OpenPolicy, SessionConfig, TidalDb};

use super::{Engine, expect_database, explain};
use crate::cli::OnOpen;

/// An open copy of a database, in a temporary directory that goes with it.
pub(crate) struct Look {
    // Declared, and so dropped, before the directory that it lies in.
    engine: Engine,
    _scratch: TempDir,
}

impl Deref for Look {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

impl Engine {
    /// The database as it was left, read at the time of now: no session has ended by the copy's being
    /// opened but those that were over at the last operation. Ends that nobody has noticed for
    /// `patience` are [overdue](tidaldb::Sessions::overdue).
    ///
    /// # Errors
    ///
    /// When there is none, it is open, or the engine refuses.
    pub(crate) fn look_as_left(dir: &Path, patience: Duration) -> anyhow::Result<Look> {
        as_left(dir, patience, explain)
    }

    /// The database as an open of now would find it.
    ///
    /// # Errors
    ///
    /// As [`look_as_left`](Self::look_as_left).
    pub(crate) fn look_as_opened(dir: &Path) -> anyhow::Result<Look> {
        open_copy(dir, |builder| builder, explain)
    }

    /// The name of the database in a directory, without opening it.
    ///
    /// # Errors
    ///
    /// When there is none, or its identity cannot be read.
    pub(crate) fn identity(dir: &Path) -> anyhow::Result<String> {
        expect_database(dir)?;
        TidalDb::identity(dir).map_err(explain)
    }

    /// Copies a database that is not open, byte by byte.
    ///
    /// # Errors
    ///
    /// When there is none, it is open, or it cannot be copied.
    pub(crate) fn copy(dir: &Path, to: &Path) -> anyhow::Result<()> {
        expect_database(dir)?;
        TidalDb::copy(dir, to).map_err(explain)
    }

    /// Opens a copy, made at `scratch`, at its own time, and checks every byte of it: of the same files the
    /// answer is always the same.
    ///
    /// # Errors
    ///
    /// When it cannot be copied or opened; other damage is in the report.
    pub(crate) fn inspect_as_left(dir: &Path, scratch: &Path) -> anyhow::Result<Inspection> {
        let builder = TidalDb::builder().with_data_dir(dir);
        let builder = builder.with_clock(Arc::new(ManualClock::at(Timestamp::EPOCH)));
        builder.inspect(scratch).map_err(explain)
    }

    /// Opens a copy and checks every byte of it.
    ///
    /// # Errors
    ///
    /// When it cannot be copied or opened; other damage is in the report.
    pub(crate) fn inspect(dir: &Path, on_open: OnOpen) -> anyhow::Result<Inspection> {
        expect_database(dir)?;
        let mut sessions = SessionConfig::default();
        sessions.on_open = match on_open {
            OnOpen::RestoreThenExpire => OpenPolicy::RestoreThenExpire,
            OnOpen::EndAll => OpenPolicy::EndAll,
            OnOpen::RestoreAll => OpenPolicy::RestoreAll,
        };
        let scratch = scratch()?;
        let builder = TidalDb::builder().with_data_dir(dir).with_sessions(sessions);
        builder.inspect(&scratch.path().join("copy")).map_err(explain)
    }
}

/// See [`Engine::look_as_left`]; `explain` says what to do when it is refused.
pub(super) fn as_left(
    dir: &Path,
    patience: Duration,
    explain: impl FnOnce(Error) -> anyhow::Error,
) -> anyhow::Result<Look> {
    let clock = ManualClock::at(Timestamp::EPOCH);
    let mut sessions = SessionConfig::default();
    sessions.sweep_interval = patience / 2;
    let with = |builder: tidaldb::Builder| {
        builder.with_sessions(sessions).with_clock(Arc::new(clock.clone()))
    };
    let look = open_copy(dir, with, explain)?;
    clock.set(Timestamp::now());
    Ok(look)
}

fn open_copy(
    dir: &Path,
    with: impl FnOnce(tidaldb::Builder) -> tidaldb::Builder,
    explain: impl FnOnce(Error) -> anyhow::Error,
) -> anyhow::Result<Look> {
    expect_database(dir)?;
    let scratch = scratch()?;
    let builder = with(TidalDb::builder().with_data_dir(dir));
    let db = builder.open_copy(&scratch.path().join("copy")).map_err(explain)?;
    Ok(Look { engine: Engine { db }, _scratch: scratch })
}

fn scratch() -> anyhow::Result<TempDir> {
    tempfile::Builder::new()
        .prefix("tidalctl-")
        .tempdir()
        .context("no temporary directory for the copy")
}

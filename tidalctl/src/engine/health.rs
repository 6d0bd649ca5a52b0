//! Health and numbers of an open database, and of one that nobody has open.

use std::path::Path;
use std::time::Duration;

use tidaldb::{Error, HealthReport, Metric, MetricDescription, StuckSession, TidalDb};

use super::look::{Look, as_left};
use super::{Engine, explain};
use crate::failure::Failure;

/// How long nobody must have noticed an end: twice what the sweeper sleeps, unless it is told otherwise.
const PATIENCE: Duration = Duration::from_secs(60);

impl Engine {
    /// A copy of the database as it was left, at the time of now, whose health is the original's.
    ///
    /// # Errors
    ///
    /// When there is none, it is open, or the engine refuses.
    pub(crate) fn look_at_health(dir: &Path) -> anyhow::Result<Look> {
        as_left(dir, PATIENCE, |error| {
            match error {
            Error::Locked { .. } => Failure::failed(error.to_string())
                .hint("ask the process that has it: TidalDb::health(), or /health of its tidalctl serve")
                .into(),
            error => explain(error),
        }
        })
    }

    /// Every rule with its finding.
    pub(crate) fn health(&self) -> HealthReport {
        self.db.health()
    }

    /// The sessions that are processed for too long.
    ///
    /// # Errors
    ///
    /// When one cannot be read.
    pub(crate) fn stuck(&self) -> anyhow::Result<Vec<StuckSession>> {
        self.db.sessions().stuck().map_err(explain)
    }

    /// The numbers of this moment, in the order of [`metric_descriptions`].
    pub(crate) fn metrics(&self) -> Vec<Metric> {
        self.db.metrics()
    }
}

/// What there are numbers of.
pub(crate) fn metric_descriptions() -> impl Iterator<Item = &'static MetricDescription> {
    TidalDb::metric_descriptions()
}

/// Databases in memory that are well, and that are not.
#[cfg(test)]
pub(crate) mod made {
    use std::sync::Arc;

    use tidaldb::schema::{DecaySpec, EntityKind, SchemaBuilder, Timestamp};
    use tidaldb::{EventFilter, ManualClock};

    use super::*;

    fn at_noon() -> (Engine, ManualClock) {
        let clock = ManualClock::at(Timestamp::from_secs(1_700_000_000));
        let mut schema = SchemaBuilder::new();
        let _ = schema.signal("view", EntityKind::Item, DecaySpec::None).add();
        let schema = schema.build().expect("a schema");
        let builder = TidalDb::builder().ephemeral().with_schema(schema);
        let db = builder.with_clock(Arc::new(clock.clone())).open().expect("opens");
        (Engine { db }, clock)
    }

    pub(crate) fn healthy() -> Engine {
        let (engine, _) = at_noon();
        engine.db.sessions().cursor("feed", EventFilter::all()).expect("registered");
        engine
    }

    /// Writes are refused, for its clock jumped.
    pub(crate) fn critical() -> Engine {
        let (engine, clock) = at_noon();
        engine.intern_one("lamp");
        clock.set(Timestamp::from_secs(1_700_000_000 + 7 * 86_400));
        assert!(engine.db.intern(&["chair"]).is_err(), "the clock is believed");
        engine
    }

    impl Engine {
        fn intern_one(&self, text: &str) {
            self.db.intern(&[text]).expect("written");
        }
    }
}

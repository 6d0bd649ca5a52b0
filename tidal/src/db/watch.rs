//! Being told when a database falls ill, and when it is well again.
//!
//! Knows: a thread that looks now and then, and what it saw last. Must not know: the rules of health.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::TidalDb;
use super::health::Probe;
use crate::engine::{Job, Rest, spawn};
use crate::error::{Error, Result};
use crate::health::{HealthReport, Severity};
use crate::ids::Timestamp;
use crate::sync::RwLock;

/// How often health may be looked at.
const INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(86_400);

/// Somebody is told of a database's health until this is dropped; from
/// [`TidalDb::watch_health`].
#[must_use = "dropping it ends the watch"]
pub struct HealthWatch {
    rest: Arc<Rest>,
}

impl Drop for HealthWatch {
    fn drop(&mut self) {
        self.rest.stop();
    }
}

impl fmt::Debug for HealthWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthWatch").finish_non_exhaustive()
    }
}

/// A watch, as the database knows it.
pub(super) struct Watch {
    rest: Weak<Rest>,
    pub(super) job: Arc<Job>,
    pub(super) interval: Duration,
}

impl Watch {
    /// Whether nobody has given it up.
    pub(super) fn is_kept(&self) -> bool {
        self.rest.upgrade().is_some_and(|rest| !rest.is_over())
    }
}

/// What of a report is worth calling somebody for: which rules warn, of whom, and how gravely.
type Alarms = Vec<(&'static str, Option<String>, Severity)>;

fn alarms(report: &HealthReport) -> Alarms {
    let grave = report.checks.iter().filter(|check| check.severity >= Severity::Warning);
    grave.map(|check| (check.rule, check.subject.clone(), check.severity)).collect()
}

impl TidalDb {
    /// Looks at [`health`](Self::health) every `interval`, and calls `told` when a check has come to warn
    /// or ceased to, or become graver or less: once for each change, however long it lasts. A database that
    /// is well from the beginning calls nobody.
    ///
    /// The calls come one after the other on a thread of their own, until the watch is dropped or the
    /// database is closed; one that panics is logged, and the next change is told. A call that blocks holds
    /// up nobody but itself. `interval` is 10 ms to 1 day; 5 minutes are usual.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tidaldb::TidalDb;
    /// # use tidaldb::schema::{DecaySpec, EntityKind, SchemaBuilder};
    /// # let mut schema = SchemaBuilder::new();
    /// # let _ = schema.signal("view", EntityKind::Item, DecaySpec::None).add();
    /// # let db = TidalDb::builder().ephemeral().with_schema(schema.build()?).open()?;
    /// let _watch = db.watch_health(Duration::from_secs(300), |report| {
    ///     let gravest = report.findings().first().map(|check| check.detail.clone());
    ///     eprintln!("{}: {}", report.overall, gravest.unwrap_or_default());
    /// })?;
    /// # Ok::<(), tidaldb::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](Error::InvalidArgument): an interval out of bounds; [`Io`](Error::Io) when there can
    /// be no further thread.
    pub fn watch_health(
        &self,
        interval: Duration,
        told: impl Fn(&HealthReport) + Send + 'static,
    ) -> Result<HealthWatch> {
        if !INTERVALS.contains(&interval) {
            return Err(Error::invalid("interval", "it must be 10 ms to 1 day"));
        }
        let rest = Arc::<Rest>::default();
        let (resting, probe) = (Arc::clone(&rest), Arc::clone(&self.probe));
        let job = Arc::<Job>::default();
        let reporting = Arc::clone(&job);
        spawn("tidal-health", move || watch(&probe, (&resting, &reporting), interval, told))?;
        let mut watches = self.watches.lock();
        watches.retain(Watch::is_kept);
        watches.push(Watch { rest: Arc::downgrade(&rest), job, interval });
        Ok(HealthWatch { rest })
    }

    /// Nobody looks at it any more.
    pub(super) fn stop_watches(&self) {
        self.watches
            .lock()
            .drain(..)
            .filter_map(|watch| watch.rest.upgrade())
            .for_each(|it| it.stop());
        // Whoever is looking at this moment is done with it first: then nothing is kept open.
        *self.probe.write() = None;
    }
}

fn watch(
    probe: &RwLock<Option<Probe>>,
    (rest, job): (&Rest, &Job),
    interval: Duration,
    told: impl Fn(&HealthReport),
) {
    let now = || probe.read().as_ref().map(Probe::now);
    let set_due = |now: Option<Timestamp>| job.set_due(now.map(|now| now.saturating_add(interval)));
    let mut last = Alarms::new();
    set_due(now());
    while rest.sleep(interval) {
        let Some(began_at) = now() else { return };
        set_due(Some(began_at));
        let mut look = || {
            let report = probe.read().as_ref().map(Probe::report);
            let Some(report) = report else { return };
            let alarms = alarms(&report);
            if alarms != last {
                last = alarms;
                told(&report);
            }
        };
        let looked = AssertUnwindSafe(|| {
            job.observe(
                || now().unwrap_or(began_at),
                || {
                    look();
                    Ok(())
                },
            )
        });
        if catch_unwind(looked).is_err() {
            tracing::error!("whoever is told of health panicked");
        }
    }
}

//! What happens at crash points: the power goes, or the writer waits until more is queued.
//!
//! Knows: points, and how often one was reached. Must not know: what the steps between them are.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use tidal_support::sim::SimDisk;
use tidaldb::fault::{CrashPoint, Faults};

/// Longer than anything waits here, unless it waits for ever.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct Plan {
    /// The machine stops when this point is reached after so many times.
    stop: Option<(CrashPoint, u32, SimDisk)>,
    has_stopped: bool,
    /// The writer waits before it writes a group, and whether it does so now.
    hold: bool,
    is_held: bool,
    /// How often each point was reached.
    reached: Vec<u64>,
}

/// A plan that changes while the database runs. Clones are the same plan.
#[derive(Debug, Clone, Default)]
pub(crate) struct Director {
    shared: Arc<(Mutex<Plan>, Condvar)>,
}

impl Director {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.shared.0.lock().expect("no plan panics")
    }

    /// The plan, for a database.
    pub(crate) fn faults(&self) -> Faults {
        let director = self.clone();
        Faults::new(move |point| director.reach(point))
    }

    /// The machine stops at a point, after the engine was there so many times.
    pub(crate) fn stop_at(&self, point: CrashPoint, times: u32, disk: &SimDisk) {
        self.plan().stop = Some((point, times, disk.clone()));
    }

    /// Whether it has stopped at a point.
    pub(crate) fn has_stopped(&self) -> bool {
        self.plan().has_stopped
    }

    /// Nothing is planned any more.
    pub(crate) fn clear(&self) {
        let mut plan = self.plan();
        (plan.stop, plan.has_stopped, plan.hold) = (None, false, false);
        self.shared.1.notify_all();
    }

    /// Lets the writer wait before it writes the next group.
    pub(crate) fn hold(&self) {
        let mut plan = self.plan();
        (plan.hold, plan.is_held) = (true, false);
    }

    /// Returns once the writer waits.
    pub(crate) fn wait_until_held(&self) {
        let wait = self.shared.1.wait_timeout_while(self.plan(), PATIENCE, |plan| !plan.is_held);
        let (_plan, waited) = wait.expect("no plan panics");
        assert!(!waited.timed_out(), "the writer does not write what was queued");
    }

    /// Lets the writer go on.
    pub(crate) fn release(&self) {
        self.plan().hold = false;
        self.shared.1.notify_all();
    }

    /// How often each point of [`CrashPoint::OF_THE_ENGINE`] was reached.
    pub(crate) fn reached(&self) -> Vec<u64> {
        self.plan().reached.clone()
    }

    fn reach(&self, point: CrashPoint) {
        let mut plan = self.plan();
        plan.reached.resize(CrashPoint::OF_THE_ENGINE.len(), 0);
        let at =
            CrashPoint::OF_THE_ENGINE.binary_search(&point).expect("points are listed by number");
        plan.reached[at] += 1;
        let due = match &mut plan.stop {
            Some((at, 0, _)) => *at == point,
            Some((at, times, _)) if *at == point => {
                *times -= 1;
                false
            }
            _ => false,
        };
        if due && let Some((_, _, disk)) = plan.stop.take() {
            plan.has_stopped = true;
            disk.stop();
        }
        if point == CrashPoint::GroupAppended && plan.hold {
            plan.is_held = true;
            self.shared.1.notify_all();
            let wait = self.shared.1.wait_timeout_while(plan, PATIENCE, |plan| plan.hold);
            drop(wait.expect("no plan panics"));
        }
    }
}

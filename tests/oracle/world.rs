//! A database on a simulated machine, and all that is known of what it must hold.
//!
//! Knows: what was begun, what was acknowledged against which crash, which store may be damaged. Must
//! not know: what comes next.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tidal_support::contract::{Acknowledged, PLACE};
use tidal_support::hex;
use tidal_support::operations::{quiet_options, survived};
use tidal_support::sim::{Fault, SimDisk, SimStores, Survives};
use tidaldb::fault::CrashPoint;
use tidaldb::schema::Timestamp;
use tidaldb::storage::Machine;
use tidaldb::{Durability, Error, Options, Result, Ticket, TidalDb, TimeSource};

use crate::collections::{ITEMS_MAX, OWNED_MAX};
use crate::crash::{Breaks, Crash, Nested, Stop};
use crate::director::Director;
use crate::operation::{Answer, OS, Operation, Planned, answer_of, refusal, schema};
use crate::reference::Reference;
use crate::sessions::{self, Hands};
use crate::time::{START, Tick, Time};

/// The database under test.
pub(crate) struct World {
    source: TimeSource,
    os_by_default: bool,
    /// A start of a session in a lane that is taken is refused.
    rejects: bool,
    disk: SimDisk,
    db: Option<TidalDb>,
    hands: Hands,
    /// What was given out so far: no number is given twice.
    grants: u64,
    /// When the database was opened, by its own time.
    opened: Timestamp,
    director: Director,
    time: Time,
    reference: Reference,
    acknowledged: Acknowledged,
    /// What follows when the machine stops, or something fails, as was asked for.
    pending: Option<Pending>,
    /// An operation of the machine has failed since it was started.
    has_failed: bool,
    /// The last incarnation that was served.
    incarnation: u64,
    /// Stores that something happened to since their last checkpoint.
    is_suspect: [bool; 2],
    /// Stores that have a checkpoint which nothing happened to: all but the log may be lost with the
    /// other one.
    is_trusted: [bool; 2],
    /// The log may have lost its beginning to truncation.
    is_truncated: bool,
    tally: Tally,
}

/// What was tried.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) stories: u64,
    pub(crate) operations: u64,
    pub(crate) crashes: u64,
    pub(crate) damages: u64,
    /// Recoveries that were interrupted.
    pub(crate) interrupted: u64,
    pub(crate) opens: u64,
    /// Operations that a crash took away.
    pub(crate) lost: u64,
    /// How often each crash point was reached.
    pub(crate) reached: Vec<u64>,
    /// How often each kind of answer was given.
    pub(crate) answers: BTreeMap<String, u64>,
}

impl Tally {
    /// Adds those of another story.
    pub(crate) fn add(&mut self, story: &Self) {
        self.stories += story.stories;
        self.operations += story.operations;
        self.crashes += story.crashes;
        self.damages += story.damages;
        self.interrupted += story.interrupted;
        self.opens += story.opens;
        self.lost += story.lost;
        self.reached.resize(CrashPoint::OF_THE_ENGINE.len(), 0);
        self.reached.iter_mut().zip(&story.reached).for_each(|(sum, count)| *sum += count);
        for (kind, count) in &story.answers {
            *self.answers.entry(kind.clone()).or_default() += count;
        }
    }

    /// The points that were never reached.
    pub(crate) fn never_reached(&self) -> Vec<CrashPoint> {
        let counts = CrashPoint::OF_THE_ENGINE.iter().zip(&self.reached);
        counts.filter(|(_, count)| **count == 0).map(|(point, _)| *point).collect()
    }
}

struct Pending {
    crash: Crash,
    /// The number of the machine's operations after which it stops, if that is when.
    stops_after: Option<usize>,
    /// Whether a checkpoint that fails is survived without a crash.
    goes_on: bool,
}

/// A thread of the engine may end because something failed, and never because it panicked.
fn expect_no_panic(db: &TidalDb, error: &str) {
    let mut reason = error.to_owned();
    // Whoever waited for such a thread hears it before it is known why.
    while reason.contains("ended early") {
        std::thread::yield_now();
        if let Err(error @ Error::Stopped { .. }) = db.health_check() {
            reason = error.to_string();
        }
    }
    assert!(!reason.contains("panicked"), "{reason}");
}

impl Drop for World {
    /// A test that fails while the writer is held must not wait for it.
    fn drop(&mut self) {
        self.director.clear();
    }
}

impl World {
    /// A machine with a new database, whose creation is interrupted as it says.
    pub(crate) fn new(source: TimeSource, os_by_default: bool, creation: Crash) -> Self {
        Self::with_conflicts(source, os_by_default, creation, false)
    }

    /// The same, where starts of sessions may be refused for others.
    pub(crate) fn with_conflicts(
        source: TimeSource,
        os_by_default: bool,
        creation: Crash,
        rejects: bool,
    ) -> Self {
        let disk = SimDisk::new();
        disk.make_dirs(Path::new("/"));
        let mut world = Self {
            source,
            os_by_default,
            rejects,
            disk,
            db: None,
            hands: Hands::default(),
            grants: 0,
            opened: START,
            director: Director::default(),
            time: Time::new(),
            reference: Reference::new(source, rejects),
            acknowledged: Acknowledged::default(),
            pending: None,
            has_failed: false,
            incarnation: 0,
            is_suspect: [false; 2],
            is_trusted: [false; 2],
            is_truncated: false,
            tally: Tally { stories: 1, ..Tally::default() },
        };
        world.crash(creation);
        world
    }

    fn options(&self) -> Options {
        let mut options = quiet_options();
        // Nothing happens by itself, so that a case is the same each time.
        options.mark_after = crate::operation::HOUR * 24 * 365;
        (options.collection_items_max, options.collections_per_owner_max) = (ITEMS_MAX, OWNED_MAX);
        options.durability = if self.os_by_default { OS } else { Durability::Sync };
        options
    }

    fn db(&self) -> &TidalDb {
        self.db.as_ref().expect("it is open between transitions")
    }

    fn begun(&self) -> u64 {
        self.reference.len()
    }

    fn what(&self) -> String {
        let report = self.db.as_ref().map(|db| db.open_report().to_string());
        format!("{:?}, {} begun\n{}", self.acknowledged, self.begun(), report.unwrap_or_default())
    }

    // ---- Operations.

    /// Decides what an operation means now, and has the reference apply it. `None` where the clock is
    /// not believed.
    fn plan(&mut self, operation: Operation) -> (Planned, Answer, bool) {
        let resets = matches!(operation, Operation::ResetClock);
        let stamp = if resets { Some(self.time.wall()) } else { self.time.stamp() };
        let reached = match self.source {
            TimeSource::Clock => stamp.unwrap_or(START),
            TimeSource::Events => match self.reference.plain.time {
                Timestamp::EPOCH => START,
                time => time,
            },
        };
        self.grants += 1;
        let aim = self.reference.plain.aim(&operation, self.grants);
        let planned = Planned { operation, base: reached, stamp: stamp.unwrap_or(START), aim };
        // Texts that are known are only looked up, whatever the clock shows.
        if stamp.is_none()
            && self.source == TimeSource::Clock
            && self.reference.plain.is_logged(&planned.operation, aim)
        {
            return (planned, Answer::ClockJumped, false);
        }
        self.tally.operations += 1;
        let (answer, is_frame) = self.reference.apply(&planned);
        *self.tally.answers.entry(answer.kind()).or_default() += 1;
        if is_frame && resets {
            self.time.reset();
        } else if is_frame {
            self.time.stamped(planned.stamp);
        }
        (planned, answer, is_frame)
    }

    fn acknowledge(&mut self, planned: &Planned, count: u64) {
        self.acknowledged.written = self.acknowledged.written.max(count);
        if planned.asks_for_sync(self.os_by_default) {
            self.acknowledged.synced = self.acknowledged.synced.max(count);
        }
    }

    /// One operation, to its answer.
    pub(crate) fn operation(&mut self, operation: Operation) {
        let (planned, expected, is_frame) = self.plan(operation);
        match planned.perform(self.db(), &self.hands) {
            Ok(answer) => {
                assert_eq!(answer, expected, "the answer to {planned:?}: {}", self.what());
                if is_frame {
                    self.acknowledge(&planned, self.begun());
                }
                self.expect_time();
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Several on their way at once: the first is a group, and the others are the next one.
    pub(crate) fn flight(&mut self, operations: Vec<Operation>) {
        self.director.hold();
        let mut flying: Vec<(Planned, Answer, Option<u64>, Result<Ticket>)> = Vec::new();
        for mut operation in operations {
            if let Operation::Signals(signals) = &mut operation {
                signals.calm();
            }
            let (planned, expected, is_frame) = self.plan(operation);
            let count = is_frame.then(|| self.begun());
            let ticket = planned.submit(self.db());
            if flying.is_empty() && ticket.is_ok() {
                self.director.wait_until_held();
            }
            flying.push((planned, expected, count, ticket));
        }
        self.director.release();
        let mut failure = None;
        for (planned, expected, count, ticket) in flying {
            match answer_of(ticket.and_then(Ticket::wait)) {
                Ok(answer) => {
                    let is_late = failure.is_some() && !answer.is_before_the_log();
                    assert!(!is_late, "{planned:?} was answered after {failure:?}");
                    assert_eq!(answer, expected, "the answer to {planned:?}: {}", self.what());
                    if let Some(count) = count {
                        self.acknowledge(&planned, count);
                    }
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match failure {
            Some(error) => self.failed(&error),
            None => self.expect_time(),
        }
    }

    /// Somebody is given a session.
    pub(crate) fn resume(&mut self, of: usize) {
        self.grants += 1;
        let aim = self.reference.plain.courses.aim_of(of, self.grants);
        let expected = match self.control_stamp() {
            None => Answer::ClockJumped,
            Some(stamp) => {
                let answer = self.reference.resume(aim, stamp);
                self.time.stamped(stamp);
                answer
            }
        };
        match self.hands.resume(self.db(), aim).or_else(refusal) {
            Ok(answer) => {
                assert_eq!(answer, expected, "when {aim:?} was resumed: {}", self.what());
                if matches!(answer, Answer::Started { .. }) {
                    self.acknowledged.sync();
                }
                self.expect_time();
            }
            Err(error) => self.failed(&error),
        }
    }

    /// What time has ended is written down, which nobody can tell afterwards.
    pub(crate) fn sweep(&mut self) {
        let stamp = self.control_stamp();
        let before = self.db().applied();
        match self.db().sessions().sweep() {
            Ok(_) => {
                let swept = self.db().applied();
                match stamp {
                    Some(stamp) if swept > before => self.time.stamped(stamp),
                    _ => assert_eq!(swept, before, "a frame without a time: {}", self.what()),
                }
                self.expect_time();
                self.check();
            }
            Err(Error::ClockJumped { .. }) if stamp.is_none() => {}
            Err(error) => self.failed(&error),
        }
    }

    /// The stamp of a frame that is no operation, if the clock is believed. Where events advance time it
    /// has none of its own.
    fn control_stamp(&self) -> Option<Timestamp> {
        match self.source {
            TimeSource::Clock => self.time.stamp(),
            TimeSource::Events => Some(self.time.stamp().unwrap_or(START)),
        }
    }

    fn expect_time(&self) {
        let expected = match self.source {
            TimeSource::Clock => self.time.last(),
            TimeSource::Events => self.reference.plain.time,
        };
        assert_eq!(self.db().engine_time(), expected, "engine time: {}", self.what());
    }

    pub(crate) fn tick(&mut self, tick: Tick) {
        self.time.tick(tick);
    }

    pub(crate) fn flush(&mut self) {
        match self.db().flush() {
            Ok(_) => self.acknowledged.sync(),
            Err(error) => self.failed(&error),
        }
    }

    pub(crate) fn checkpoint(&mut self) {
        self.note_truncation();
        match self.db().checkpoint() {
            Ok(_) => {
                self.acknowledged.sync();
                self.note_stores();
                // The log is truncated behind the answer: wait for that.
                self.flush();
            }
            Err(error) => self.failed(&error),
        }
    }

    /// A checkpoint came to its end: the newer store is as good as any.
    fn note_stores(&mut self) {
        let stores = self.db().status().stores;
        let newest = usize::from(stores[1].epoch > stores[0].epoch);
        (self.is_trusted[newest], self.is_suspect[newest]) = (true, false);
    }

    /// A checkpoint may truncate the log, if it is the second one.
    fn note_truncation(&mut self) {
        self.is_truncated |= self.db().status().stores.iter().any(|store| store.epoch > 0);
    }

    /// Closes, and opens again.
    pub(crate) fn close(&mut self) {
        self.note_truncation();
        match self.db.take().expect("it is open").close() {
            Ok(()) => {
                self.acknowledged.sync();
                self.reopen();
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Drops, and opens again.
    pub(crate) fn drop_and_reopen(&mut self) {
        self.db = None;
        self.reopen();
    }

    fn reopen(&mut self) {
        let written = self.acknowledged.written;
        let expected = match self.source {
            TimeSource::Clock => self.time.at_reopen(),
            TimeSource::Events => self.reference.plain.time,
        };
        match self.open() {
            Ok(db) => {
                assert_eq!(db.engine_time(), expected, "engine time after a clean end");
                self.settle(db, written, self.begun());
            }
            Err(error) => self.failed(&error),
        }
    }

    // ---- Failures.

    /// From the next transition on the machine stops when it says.
    pub(crate) fn arm(&mut self, stop: Stop, crash: Crash) {
        if self.has_stopped() {
            // Nobody has noticed yet.
            return;
        }
        let stops_after = self.stop(stop);
        self.suspect(crash, stops_after, false);
    }

    fn has_stopped(&self) -> bool {
        let stops_after = self.pending.as_ref().and_then(|pending| pending.stops_after);
        self.director.has_stopped() || stops_after.is_some_and(|n| self.disk.done().len() >= n)
    }

    fn stop(&self, stop: Stop) -> Option<usize> {
        match stop {
            Stop::After(count) => {
                self.disk.stop_after(count);
                Some(self.disk.done().len() + count)
            }
            Stop::At(point, times) => {
                self.director.stop_at(point, times, &self.disk);
                None
            }
        }
    }

    /// From the next transition on an operation of the machine fails.
    pub(crate) fn fail(&mut self, fault: Fault, crash: Crash, goes_on: bool) {
        self.distrust();
        self.disk.fail(fault);
        self.suspect(crash, None, goes_on);
    }

    /// Something will go wrong, and what was to go wrong before may do so as well.
    fn suspect(&mut self, crash: Crash, stops_after: Option<usize>, goes_on: bool) {
        let before = self.pending.as_ref().and_then(|pending| pending.stops_after);
        self.pending = Some(Pending { crash, stops_after: stops_after.or(before), goes_on });
    }

    /// Something failed: as was asked for, or the engine is wrong.
    fn failed(&mut self, error: &dyn std::fmt::Display) {
        self.distrust();
        let has_stopped = self.has_stopped();
        let was_planned = self.has_failed || has_stopped;
        assert!(was_planned, "{error}, though nothing had failed: {}", self.what());
        if let Some(db) = &self.db {
            expect_no_panic(db, &error.to_string());
            // Reads go on, and show what was applied so far.
            let there = survived(db);
            assert!(there >= self.acknowledged.written && there <= self.begun(), "{}", self.what());
            let mut stores = db.status().stores.into_iter();
            let has_rows = stores.any(|store| store.epoch > 0 && store.failure.is_none());
            let goes_on = self.pending.as_ref().is_some_and(|pending| pending.goes_on);
            if goes_on && has_rows && !has_stopped && db.flush().is_ok() {
                // Only a checkpoint failed.
                self.acknowledged.sync();
                return;
            }
            match db.state_digest() {
                Ok(digest) => {
                    let expected = hex(&self.reference.digest_after(there));
                    assert_eq!(hex(&digest), expected, "{there} operations: {}", self.what());
                }
                // Where the only checkpoint is in the store that failed, so may be the last copy of
                // rows.
                Err(error) => assert!(!has_rows, "{error}: {}", self.what()),
            }
        }
        let pending = self.pending.take();
        self.crash(pending.expect("something was to fail").crash);
    }

    // ---- Crashes and recoveries.

    fn open(&mut self) -> Result<TidalDb> {
        self.tally.opens += 1;
        self.time.tried();
        let stores = Arc::new(SimStores::on(self.disk.clone()));
        let faults = self.director.faults();
        let machine = Machine { disk: self.disk.shared(), stores, faults };
        TidalDb::builder()
            .with_schema(schema())
            .with_time_source(self.source)
            .with_clock(Arc::new(self.time.clock().clone()))
            .with_options(self.options())
            .with_sessions(sessions::config(self.rejects))
            .with_data_dir(PLACE)
            .with_machine(machine)
            .open()
    }

    /// The process dies, or the power goes; and then what the crash says.
    pub(crate) fn crash(&mut self, crash: Crash) {
        self.tally.crashes += 1;
        self.pending = None;
        self.distrust();
        self.has_failed = false;
        self.disk.stop();
        self.director.clear();
        self.db = None;
        let Crash { survives, damage, nested } = crash;
        let mut is_kill = survives == Survives::Everything;
        self.disk = self.disk.reboot(survives);
        if let Some(damage) = damage
            && (self.is_trusted[1 - damage.slot] || !self.is_truncated)
        {
            self.tally.damages += u64::from(damage.inflict(&self.disk));
            (self.is_trusted[damage.slot], self.is_suspect[damage.slot]) = (false, true);
        }
        let mut most = self.begun();
        // Without more to lose, all recoveries come to the same end, however often they are begun.
        let is_settled = !is_kill || nested.iter().all(|n| n.survives == Survives::Everything);
        let mut fixed = None;
        if !nested.is_empty() {
            most = self.look_at_a_copy();
            fixed = is_settled.then_some(most);
        }
        for nested in nested {
            fixed = self.interrupted(nested, self.least(is_kill, fixed), most).or(fixed);
            most = fixed.unwrap_or(most);
            is_kill &= nested.survives == Survives::Everything;
        }
        let db = self.open().unwrap_or_else(|error| panic!("{error}: {}", self.what()));
        self.settle(db, self.least(is_kill, fixed), most);
    }

    /// How many operations must be there, by what was acknowledged and by what is known already.
    fn least(&self, is_kill: bool, fixed: Option<u64>) -> u64 {
        let Acknowledged { written, synced } = self.acknowledged;
        fixed.unwrap_or(0).max(if is_kill { written } else { synced })
    }

    /// A recovery that is interrupted, and a reboot. What was served before the interruption stays.
    fn interrupted(&mut self, nested: Nested, least: u64, most: u64) -> Option<u64> {
        if let Some(tick) = nested.tick {
            self.time.tick(tick);
        }
        match nested.breaks {
            Breaks::Stops(stop) => drop(self.stop(stop)),
            Breaks::Fails(fault) => self.disk.fail(fault),
        }
        self.tally.interrupted += 1;
        let served = self.open().ok().map(|db| self.serve(&db));
        if let Some(there) = served {
            assert!(there >= least && there <= most, "{there} were served: {}", self.what());
        }
        self.distrust();
        self.disk.stop();
        self.director.clear();
        self.disk = self.disk.reboot(nested.survives);
        served
    }

    /// Takes note of an incarnation that is served; returns how many operations there are.
    fn serve(&mut self, db: &TidalDb) -> u64 {
        let incarnation = db.status().incarnation;
        let last = std::mem::replace(&mut self.incarnation, incarnation);
        assert!(incarnation > last, "incarnation {incarnation} after {last}: {}", self.what());
        survived(db)
    }

    /// What a store says after a failure may be in the page cache only.
    fn distrust(&mut self) {
        if self.disk.has_failed() {
            (self.has_failed, self.is_suspect, self.is_trusted) = (true, [true; 2], [false; 2]);
        }
    }

    /// How many operations would be there if nothing more happened.
    fn look_at_a_copy(&mut self) -> u64 {
        let copy = self.disk.reboot(Survives::Everything);
        let disk = std::mem::replace(&mut self.disk, copy);
        let db = self.open().unwrap_or_else(|error| panic!("{error}: {}", self.what()));
        let there = survived(&db);
        drop(db);
        self.disk = disk;
        there
    }

    /// A recovered database must hold the first operations, at least and at most so many; the story
    /// goes on from there.
    fn settle(&mut self, db: TidalDb, least: u64, most: u64) {
        let there = self.serve(&db);
        let report = db.open_report().to_string();
        let what =
            format!("{:?}, {there} of {} are there\n{report}", self.acknowledged, self.begun());
        assert!(there >= least, "{least} must be there: {what}");
        assert!(there <= most, "{most} may be there: {what}");
        self.tally.lost += self.begun() - there;
        self.reference.rewind(there);
        let time = db.engine_time();
        if self.source == TimeSource::Clock {
            let earliest = self.reference.last_stamp().max(self.time.wall());
            assert!(time >= earliest && time <= self.time.latest, "engine time {time:?}: {what}");
        }
        self.time.opened(time);
        self.opened = time;
        self.acknowledged = Acknowledged { written: there, synced: there };
        // An open syncs what it finds before it counts on it.
        for (slot, store) in db.status().stores.iter().enumerate() {
            self.is_trusted[slot] = store.epoch > 0 && !self.is_suspect[slot];
        }
        self.db = Some(db);
        self.check();
    }

    /// The state is that of the reference, and everything verifies.
    pub(crate) fn check(&mut self) {
        let what = self.what();
        let db = self.db();
        assert_eq!(survived(db), self.begun(), "{what}");
        let digest = db.state_digest().expect("a digest");
        assert_eq!(hex(&digest), hex(&self.reference.digest()), "the state is another: {what}");
        if self.source == TimeSource::Events {
            assert_eq!(db.engine_time(), self.reference.plain.time, "{what}");
        }
        self.reference.plain.check_rows(db, &what);
        let now = match self.source {
            TimeSource::Clock => self.time.last().max(self.time.wall()),
            TimeSource::Events => self.reference.plain.time,
        };
        self.reference.plain.courses.check(db, (self.opened, now), &what);
        let verified = db.verify().expect("verified");
        if !verified.is_sound() {
            // Stores are synced before they are read: that may be what fails.
            self.failed(&format!("not sound\n{verified}"));
        }
    }

    /// The end of a story: the state is what the maps say.
    pub(crate) fn finish(mut self) -> Tally {
        self.check();
        self.reference.plain.check_signals(self.db());
        self.reference.plain.check_engagements(self.db());
        Tally { reached: self.director.reached(), ..self.tally.clone() }
    }
}

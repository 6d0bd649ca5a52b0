//! Shop clicks of real visitors as sessions: killed on the way and resumed, they are the sessions that
//! a few plain lines make of the file.
//!
//! `TIDAL_CASES` says how many of 10 visitors are taken (3), `TIDAL_SEED` where the process dies.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidal_support::logs::find;
use tidal_support::random::Random;
use tidal_support::sim::{SimDisk, SimStores, Survives};
use tidaldb::fault::Faults;
use tidaldb::schema::{DecaySpec, EntityId, EntityKind, Schema, SchemaBuilder, Timestamp, Window};
use tidaldb::storage::Machine;
use tidaldb::{
    Clock, Durability, Error, ManualClock, Options, SessionFilter, SessionHandle, SessionId,
    SessionState, TidalDb,
};

const IDLE: u64 = 1_800_000_000_000;
const MAX: u64 = 7_200_000_000_000;
const DEATHS: usize = 10;

/// A click: when, by whom, on what.
type Click = (u64, u64, u64);

/// What a session is: whose, from when, until when if it has ended, and its clicks.
type Visit = (u64, u64, Option<u64>, Vec<(u64, u64)>);

/// The clicks of some of the visitors, in the order of their times.
fn clicks(of_ten: u64) -> Option<Vec<Click>> {
    let text = std::fs::read_to_string(find("serenade/train.txt")?).expect("the log is text");
    let parse = |line: &str| {
        let mut fields = line.split('\t');
        let mut next = || fields.next().expect("three fields").trim();
        let (visitor, item) =
            (next().parse().expect("a visitor"), next().parse().expect("an item"));
        let seconds: f64 = next().parse().expect("a time");
        ((seconds * 1e3).round() as u64 * 1_000_000, visitor, item)
    };
    let mut clicks: Vec<Click> =
        text.lines().skip(1).map(parse).filter(|click| click.1 % 10 < of_ten).collect();
    clicks.sort_by_key(|click| click.0);
    Some(clicks)
}

/// The sessions of the clicks, by themselves.
fn plain(clicks: &[Click]) -> Vec<Visit> {
    let mut visits: BTreeMap<u64, Vec<Visit>> = BTreeMap::new();
    let now = clicks.last().expect("there are some").0;
    for &(at, visitor, item) in clicks {
        let of = visits.entry(visitor).or_default();
        let goes_on = of.last().is_some_and(|(_, start, _, clicks)| {
            at <= (clicks[clicks.len() - 1].0 + IDLE).min(start + MAX)
        });
        if !goes_on {
            of.push((visitor, at, None, Vec::new()));
        }
        of.last_mut().expect("there is one").3.push((at, item));
    }
    let mut visits: Vec<Visit> = visits.into_values().flatten().collect();
    for (_, start, end, clicks) in &mut visits {
        let last = clicks[clicks.len() - 1].0;
        *end = (now > (last + IDLE).min(*start + MAX)).then_some(last);
    }
    visits.sort_by_key(|visit| (visit.1, visit.0));
    visits
}

fn schema() -> Schema {
    let mut b = SchemaBuilder::new();
    let half_life = Duration::from_secs(86_400);
    let _ = b
        .signal("view", EntityKind::Item, DecaySpec::Exponential { half_life })
        .windows(&[Window::AllTime])
        .velocity(false)
        .add();
    b.build().expect("a sound schema")
}

/// A shop whose process may die.
struct Shop {
    disk: SimDisk,
    clock: ManualClock,
    db: TidalDb,
    handles: BTreeMap<u64, SessionHandle>,
    left: BTreeMap<u64, SessionId>,
}

fn open(disk: &SimDisk, clock: &ManualClock) -> TidalDb {
    let mut options = Options::default();
    options.durability = Durability::Os { sync_every: Duration::from_millis(50) };
    (options.segment_size_bytes, options.checkpoint_log_bytes) = (512 << 10, 1 << 20);
    let stores = Arc::new(SimStores::on(disk.clone()));
    let machine = Machine { disk: disk.shared(), stores, faults: Faults::NONE };
    TidalDb::builder()
        .with_data_dir("/db")
        .with_schema(schema())
        .with_options(options)
        .with_sessions(tidal_support::manual())
        .with_clock(Arc::new(clock.clone()))
        .with_machine(machine)
        .open()
        .expect("opens")
}

impl Shop {
    fn at(start: u64) -> Self {
        let (disk, clock) = (SimDisk::new(), ManualClock::at(Timestamp::from_nanos(start)));
        disk.make_dirs(Path::new("/"));
        let db = open(&disk, &clock);
        Self { disk, clock, db, handles: BTreeMap::new(), left: BTreeMap::new() }
    }

    fn click(&mut self, (at, visitor, item): Click) {
        self.clock.advance(Duration::from_nanos(at - self.clock.now().as_nanos()));
        let (item, at) = (EntityId::new(item), Timestamp::from_nanos(at));
        // Whoever was in a session when the process died comes back to it, if it is still open.
        let resumed = self.left.remove(&visitor).map(|id| self.db.resume_session(id));
        if let Some(Ok(handle)) = resumed {
            self.handles.insert(visitor, handle);
        }
        if let Some(handle) = self.handles.get(&visitor) {
            match handle.signal("view", item, 1.0, at) {
                Ok(_) => return,
                Err(Error::SessionEnded { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        let handle = self.db.current_or_start(visitor, "shop", "default").expect("a session");
        handle.signal("view", item, 1.0, at).expect("it is open");
        self.handles.insert(visitor, handle);
    }

    /// The process dies, and another goes on.
    fn die(&mut self) {
        self.disk.stop();
        for (visitor, handle) in std::mem::take(&mut self.handles) {
            self.left.insert(visitor, handle.detach());
        }
        self.disk = self.disk.reboot(Survives::Everything);
        self.db = open(&self.disk, &self.clock);
    }

    fn visits(&self) -> Vec<Visit> {
        let sessions = self.db.sessions();
        let visits = sessions.list(&SessionFilter::new().limit(usize::MAX)).expect("listed");
        let visit = |info: &tidaldb::SessionInfo| {
            let records = sessions.records(info.id).expect("read");
            let end = match &info.state {
                SessionState::Ended(end) | SessionState::Settled(end) => Some(end.at.as_nanos()),
                _ => None,
            };
            let clicks = records.iter().map(|found| (found.at.as_nanos(), found.entity.get()));
            (info.user.get(), info.started_at.as_nanos(), end, clicks.collect())
        };
        let mut visits: Vec<Visit> = visits.iter().map(visit).collect();
        visits.sort_by_key(|visit| (visit.1, visit.0));
        visits
    }
}

#[test]
fn visits_of_a_shop_that_dies_ten_times_are_those_of_the_file() {
    let seed = Random::seed_from("TIDAL_SEED");
    let Some(clicks) = clicks(tidal_support::setting("TIDAL_CASES", 3)) else { return };
    let mut random = Random::new(seed);
    let deaths: Vec<u64> = (0..DEATHS).map(|_| random.below(clicks.len() as u64)).collect();
    let expected = plain(&clicks);

    let [mut whole, mut killed] = [(); 2].map(|()| Shop::at(clicks[0].0));
    for (nth, &click) in clicks.iter().enumerate() {
        whole.click(click);
        for _ in deaths.iter().filter(|death| **death == nth as u64) {
            killed.die();
        }
        killed.click(click);
        // Somebody notices now and then that time has passed; that changes nothing.
        if nth % 1_000 == 999 {
            killed.db.drive().expect("driven");
        }
    }
    for (shop, what) in [(&killed, "killed"), (&whole, "uninterrupted")] {
        let found = shop.visits();
        assert_eq!(found.len(), expected.len(), "{what}");
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found, expected, "TIDAL_SEED={seed}, {what}");
        }
        // Whoever lost a handle asks in other words than whoever holds one that has ended, so numbers
        // of operations differ; what counts is the same.
        for item in 0..20_000 {
            let item = EntityId::new(item);
            let count = |db: &TidalDb| db.read_windowed_count(item, "view", Window::AllTime);
            assert_eq!(count(&shop.db).expect("read"), count(&whole.db).expect("read"));
        }
        let report = shop.db.verify().expect("verified");
        assert!(report.is_sound(), "{report}");
    }
    println!("{} clicks in {} visits, {DEATHS} deaths", clicks.len(), expected.len());
}

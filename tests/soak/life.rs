//! What a child does until it dies, all of it following from a seed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidal_support::child::{report, told};
use tidal_support::random::Random;
use tidaldb::fault::{CrashPoint, Faults};
use tidaldb::schema::{EntityId, Timestamp};
use tidaldb::{
    Clock, ErrorKind, EventFilter, ManualClock, Outputs, ProcessError, Processed, ResetFilter,
    Retention, RunError, RunOptions, SessionFilter, SessionHandle, SessionId, SessionInfo,
    SessionProcessor, SessionSignal, SessionStateKind, SessionView, TidalDb,
};

use crate::setup::{self, DAY, HOUR, KINDS, Kind, MEANT, MINUTE, PROCESSING_TIMEOUT};

/// Longer than anything takes that is only waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A call that is to hang.
struct Hang {
    name: &'static str,
    /// After so many that do not: what begins together goes on alone.
    after: u64,
    enter: Sender<SessionId>,
    let_go: Receiver<()>,
}

/// What all processors of a life share.
struct Mood {
    random: Mutex<Random>,
    /// Whether a processor may end the process.
    kills: bool,
    /// Which call hangs.
    hangs: Mutex<Option<Hang>>,
}

impl Mood {
    fn below(&self, end: u64) -> u64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).below(end)
    }

    fn hang(&self, kind: Kind, id: SessionId) {
        let mut hangs = self.hangs.lock().expect("nobody panics with it");
        let Some(hang) = hangs.as_mut().filter(|hang| hang.name == kind.name) else { return };
        if hang.after > 0 {
            hang.after -= 1;
            return;
        }
        let hang = hangs.take().expect("it was found");
        drop(hangs);
        report(&format!("hung {} {id}", kind.name));
        hang.enter.send(id).expect("heard");
        hang.let_go.recv_timeout(PATIENCE).expect("it is let go");
    }
}

/// A processor of a life, whose moods change.
struct Moody {
    kind: Kind,
    version: u32,
    mood: Arc<Mood>,
}

impl SessionProcessor for Moody {
    fn name(&self) -> &str {
        self.kind.name
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn process(
        &self,
        session: &SessionView<'_>,
        out: &mut Outputs<'_>,
    ) -> Result<Processed, ProcessError> {
        let (kind, id) = (self.kind, session.id());
        let name = kind.name;
        report(&format!("call {name} {id} {}", session.attempt()));
        self.mood.hang(kind, id);
        if let Some(curse) = kind.curse(session.info().user.get()) {
            let word = if curse == setup::Curse::Refuses { "refused" } else { "failed" };
            report(&format!("{word} {name} {id}"));
            return curse.strike();
        }
        // What was put down before it went wrong is not there afterwards.
        let done = setup::put(kind, self.version, session, out)?;
        let mood = self.mood.below(60);
        if mood < 12 {
            report(&format!("{} {name} {id}", if mood == 0 { "refused" } else { "failed" }));
        }
        match mood {
            0 => Err(ProcessError::permanent("not ever")),
            1..4 => std::panic::panic_any(MEANT),
            4..8 => {
                let after = Duration::from_secs(self.mood.below(7_200));
                Err(ProcessError::retry_after(after, "not now"))
            }
            8..12 => Err("not this time".into()),
            12..14 if self.mood.kills => std::process::abort(),
            _ => Ok(done),
        }
    }
}

/// A life in the middle of it.
struct Life {
    dir: PathBuf,
    faults: Faults,
    random: Random,
    mood: Arc<Mood>,
    version: u32,
    item: u64,
    db: Option<TidalDb>,
    clock: ManualClock,
    handles: Vec<SessionHandle>,
    /// Sessions that something may be done about.
    ids: Vec<SessionId>,
}

fn number(key: &str) -> u64 {
    told(key).parse().expect("a number")
}

/// Lives.
pub(crate) fn live() {
    setup::silence_what_is_meant();
    let (point, left) = (number("TIDAL_POINT"), AtomicU64::new(number("TIDAL_REACH")));
    let faults = Faults::new(move |reached: CrashPoint| {
        if u64::from(reached.number()) == point && left.fetch_sub(1, Ordering::SeqCst) == 1 {
            std::process::abort();
        }
    });
    let mut random = Random::new(number("TIDAL_LIFE_SEED"));
    let mood = Mood {
        random: Mutex::new(Random::new(random.next_u64())),
        kills: number("TIDAL_KILLS") > 0,
        hangs: Mutex::new(None),
    };
    let mut life = Life {
        dir: PathBuf::from(told("TIDAL_DIR")),
        faults,
        random,
        mood: Arc::new(mood),
        version: u32::try_from(number("TIDAL_VERSION")).expect("small"),
        item: number("TIDAL_ITEM"),
        db: None,
        clock: ManualClock::at(Timestamp::from_nanos(number("TIDAL_AT"))),
        handles: Vec::new(),
        ids: Vec::new(),
    };
    life.open();
    for _ in 0..15 + life.random.below(60) {
        life.step();
        life.say_time();
    }
    if life.random.one_in(2) {
        life.close(true);
    }
}

/// Whether it was done. What the state refuses is part of life.
fn is_done<T>(done: tidaldb::Result<T>) -> bool {
    match done {
        Ok(_) => true,
        Err(error) if matches!(error.kind(), ErrorKind::Refused | ErrorKind::Invalid) => false,
        Err(error) => panic!("{error}"),
    }
}

impl Life {
    fn db(&self) -> &TidalDb {
        self.db.as_ref().expect("it is open between two steps")
    }

    fn say_time(&self) {
        report(&format!("t {}", self.now().as_nanos()));
    }

    /// Engine time, were something written now: it does not go back with the clock.
    fn now(&self) -> Timestamp {
        now(self.db(), &self.clock)
    }

    fn open(&mut self) {
        let (db, clock) = setup::open(&self.dir, self.clock.now(), self.faults.clone());
        for kind in KINDS {
            let mood = Arc::clone(&self.mood);
            let it = Moody { kind, version: kind.version(self.version), mood };
            db.sessions().register(it, kind.options()).expect("registered");
        }
        let _ = db.sessions().cursor("hook", EventFilter::all()).expect("registered");
        let all = db.sessions().list(&SessionFilter::new().limit(1 << 20)).expect("listed");
        let newest = all.iter().rev().take(300).map(|info| info.id);
        self.ids = newest.collect();
        (self.db, self.clock) = (Some(db), clock);
        self.say_time();
    }

    fn close(&mut self, in_order: bool) {
        self.handles.clear();
        let db = self.db.take().expect("it is open");
        match in_order {
            true => {
                db.close().expect("closes");
                report("orderly 1");
            }
            false => {
                report("disorderly 1");
                drop(db);
            }
        }
    }

    fn reopen(&mut self) {
        let in_order = self.random.one_in(2);
        self.close(in_order);
        if self.random.one_in(3) {
            self.version += 1;
            report(&format!("version {}", self.version));
        }
        self.open();
    }

    fn some_id(&mut self) -> Option<SessionId> {
        let count = self.ids.len() as u64;
        (count > 0).then(|| self.ids[self.random.below(count) as usize])
    }

    fn next_item(&mut self) -> u64 {
        self.item += 1;
        report(&format!("item {}", self.item));
        self.item
    }

    fn step(&mut self) {
        match self.random.below(40) {
            0..9 => self.visit(),
            9..13 => self.go_on(),
            13..16 => self.late(),
            16..22 => self.let_time_pass(),
            22..28 => self.drive(),
            28 => drop(self.db().sessions().sweep().expect("swept")),
            29..31 => self.run_one(),
            31 => self.catch_up(),
            32 => self.requeue(),
            33 => self.reprocess(),
            34 => self.prune(),
            35 => drop(self.db().checkpoint().expect("written")),
            36 => self.reopen(),
            37 => self.hang(),
            38 | 39 => self.listen(),
            other => unreachable!("{other} is not below 40"),
        }
    }

    /// A session begins, and grows; it is closed, or left to somebody else.
    fn visit(&mut self) {
        let user = self.random.below(60);
        let policy = ["default", "lenient"][self.random.below(2) as usize];
        report(&format!("start {user}"));
        let session = self.db().start_session(user, "phone", policy).expect("started");
        let id = session.session_id();
        report(&format!("START {id}"));
        self.ids.push(id);
        for _ in 0..self.random.below(5) {
            self.signal(&session);
        }
        match self.random.below(4) {
            0 => self.handles.push(session),
            1 => drop(session.detach()),
            _ => close(session),
        }
    }

    fn signal(&mut self, session: &SessionHandle) {
        let (item, id, at) = (self.next_item(), session.session_id(), self.now());
        report(&format!("record {id} {item}"));
        if is_done(session.signal("view", EntityId::new(item), 1.0, at)) {
            report(&format!("RECORD {id} {item}"));
        }
    }

    /// A session that is held, or was left, goes on.
    fn go_on(&mut self) {
        let held = self.handles.pop();
        let resumed = || self.ids.last().and_then(|&id| self.db().resume_session(id).ok());
        let Some(session) = held.or_else(resumed) else { return };
        match self.random.below(4) {
            0 => drop(is_done(session.extend(self.random.below(90) as u32 * MINUTE))),
            1 => drop(is_done(session.heartbeat())),
            _ => self.signal(&session),
        }
        match self.random.below(3) {
            0 => self.handles.push(session),
            1 => drop(session.detach()),
            _ => close(session),
        }
    }

    fn late(&mut self) {
        for _ in 0..8 {
            let Some(id) = self.some_id() else { return };
            if self.append_late(id) {
                return;
            }
        }
    }

    fn append_late(&mut self, id: SessionId) -> bool {
        let (item, at) = (self.next_item(), self.now());
        report(&format!("record {id} {item}"));
        let signal = SessionSignal::new("view", EntityId::new(item), at);
        let done = is_done(self.db().sessions().append_late(id, signal));
        if done {
            report(&format!("RECORD {id} {item}"));
        }
        done
    }

    fn let_time_pass(&mut self) {
        let by = match self.random.below(20) {
            0..9 => self.random.below(40) as u32 * MINUTE,
            9..14 => self.random.below(12) as u32 * HOUR,
            14..18 => self.random.below(4) as u32 * DAY,
            _ => {
                let back = self.random.below(180) as u32 * MINUTE;
                return self.clock.set(self.clock.now().saturating_sub(back));
            }
        };
        self.clock.advance(by);
    }

    /// When each processor has begun to run last.
    fn last_runs(&self) -> BTreeMap<String, Timestamp> {
        let jobs = self.db().sessions().jobs().into_iter();
        let runs = jobs.filter_map(|job| {
            let name = job.name.strip_prefix("processor:")?.to_owned();
            Some((name, job.last_started?))
        });
        runs.collect()
    }

    fn drive(&self) {
        let before = self.last_runs();
        let driven = self.db().drive().expect("drives");
        let mut runs = 0;
        for (name, at) in self.last_runs() {
            if before.get(&name) != Some(&at) {
                report(&format!("RUN {name} {}", at.as_nanos()));
                runs += 1;
            }
        }
        assert!(driven.runs <= runs, "{} runs, and {runs} have moved on", driven.runs);
    }

    fn some_kind(&mut self) -> Kind {
        KINDS[self.random.below(KINDS.len() as u64) as usize]
    }

    fn say_run(&self, kind: Kind) {
        report(&format!("run {} {}", kind.name, self.now().as_nanos()));
    }

    fn run_one(&mut self) {
        let kind = self.some_kind();
        let mut options = RunOptions::new();
        if self.random.one_in(3) {
            options = options.ignoring_backoff();
        }
        if let Some(id) = self.some_id().filter(|_| self.random.one_in(3)) {
            options = options.only(id);
        }
        self.say_run(kind);
        self.db().sessions().run_processor(kind.name, options).map(drop).expect("it runs");
    }

    fn catch_up(&self) {
        KINDS.into_iter().for_each(|kind| self.say_run(kind));
        self.db().sessions().catch_up().map(drop).expect("it runs");
    }

    fn requeue(&mut self) {
        let limit = 1 + self.random.below(20) as usize;
        let wanted = SessionFilter::new().limit(limit);
        let plan = self.db().sessions().plan_requeue(&wanted).expect("planned");
        plan.items().iter().for_each(|item| report(&format!("requeue {}", item.session)));
        drop(self.db().sessions().apply(plan).expect("applied"));
    }

    fn reprocess(&mut self) {
        let kind = self.some_kind();
        let after = self.some_id();
        let mut wanted = SessionFilter::new().limit(1 + self.random.below(8) as usize);
        if let Some(after) = after {
            wanted = wanted.after(after);
        }
        let plan = self.db().sessions().plan_reprocess(kind.name, &wanted).expect("planned");
        for item in plan.items() {
            report(&format!("anew {} {}", kind.name, item.session));
        }
        drop(self.db().sessions().apply(plan).expect("applied"));
    }

    fn prune(&mut self) {
        let retention = Retention::settled_for(self.random.below(10) as u32 * DAY);
        let plan = self.db().sessions().plan_prune(&retention).expect("planned");
        plan.sessions().for_each(|id| report(&format!("prune {id}")));
        let applied = self.db().sessions().apply(plan).expect("applied");
        applied.done.iter().for_each(|id| report(&format!("PRUNED {id}")));
    }

    fn listen(&self) {
        let mut cursor = self.db().sessions().cursor("hook", EventFilter::all()).expect("there");
        loop {
            let batch = cursor.next_batch(50).expect("read");
            let Some(last) = batch.last() else { return };
            batch.iter().for_each(|it| report(&format!("event {}", it.number)));
            cursor.ack(last.number).expect("acknowledged");
            report(&format!("ACK {}", last.number));
        }
    }

    /// A call hangs until it is let go, while everything else goes on, and the clock too.
    fn hang(&mut self) {
        let kind = self.some_kind();
        let ((enter, entered), (let_go, gone)) = (mpsc::channel(), mpsc::channel());
        let after = self.random.below(8);
        let hang = Hang { name: kind.name, after, enter, let_go: gone };
        *self.mood.hangs.lock().expect("nobody panics with it") = Some(hang);
        self.say_run(kind);
        let db = self.db.take().expect("it is open");
        std::thread::scope(|scope| {
            let running = scope.spawn(|| {
                let done = db.sessions().run_processor(kind.name, RunOptions::new());
                // Nobody is waited for where there was nothing to do.
                self.mood.hangs.lock().expect("nobody panics with it").take();
                done
            });
            if let Ok(id) = entered.recv_timeout(PATIENCE) {
                while_it_hangs(&db, &self.clock, kind, id, self.mood.below(6));
                let_go.send(()).expect("it hangs");
            }
            running.join().expect("no panic").map(drop).expect("it runs");
        });
        self.db = Some(db);
    }
}

fn while_it_hangs(db: &TidalDb, clock: &ManualClock, kind: Kind, id: SessionId, choice: u64) {
    let again = db.sessions().run_processor(kind.name, RunOptions::new());
    assert!(matches!(again, Err(RunError::AlreadyRunning { .. })), "{again:?}");
    let began = now(db, clock);
    clock.advance([10, 29, 31, 45, 120, 31][choice as usize] * MINUTE);
    // Where the clock was set back before, engine time has stood still.
    let took = Duration::from_nanos(now(db, clock).as_nanos() - began.as_nanos());
    let stuck = db.sessions().stuck().expect("listed");
    let is_late = took > PROCESSING_TIMEOUT;
    let find = |info: SessionInfo| info.state.kind() == SessionStateKind::Ended;
    let waits = kind.required && db.sessions().get(id).expect("read").is_some_and(find);
    assert!(!waits || stuck.iter().any(|it| it.id == id) == is_late, "{stuck:?}");
    assert!(
        stuck.iter().all(|it| it.id == id),
        "nobody is busy with what waits behind it: {stuck:?}"
    );
    match choice {
        // An operator is faster than the sweep.
        3 => {
            let plan = db.sessions().plan_reset(&ResetFilter::default()).expect("planned");
            plan.items().iter().for_each(|item| report(&format!("reset {}", item.session)));
            drop(db.sessions().apply(plan).expect("applied"));
        }
        5 => std::process::abort(),
        _ => drop(db.sessions().sweep().expect("swept")),
    }
}

fn now(db: &TidalDb, clock: &ManualClock) -> Timestamp {
    db.engine_time().max(clock.now())
}

fn close(session: SessionHandle) {
    let id = session.session_id();
    match session.close() {
        Ok(_) => report(&format!("END {id}")),
        Err(refused) => drop(is_done::<()>(Err(refused.error))),
    }
}

//! What the parent knows, from what children reported.
//!
//! A child says what it is about to do before it does it, in lower case where that may change something, and
//! what it was answered after that, in upper case. So what is in the book in upper case is so, whatever happened
//! since, and nothing is so that is not in it in lower case.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use tidal_support::random::Random;
use tidaldb::schema::Timestamp;

use crate::setup::{DAY, KINDS, Kind, START};

/// What the closing line says.
#[derive(Debug, Default, Clone)]
pub(crate) struct Totals {
    pub(crate) lives: u64,
    pub(crate) kills: u64,
    pub(crate) calls: u64,
    pub(crate) runs: u64,
    pub(crate) hangs: u64,
    pub(crate) sessions: u64,
    pub(crate) simulated: Duration,
}

impl Totals {
    pub(crate) fn add(&mut self, other: &Self) {
        self.lives += other.lives;
        self.kills += other.kills;
        self.calls += other.calls;
        self.runs += other.runs;
        self.hangs += other.hangs;
        self.sessions += other.sessions;
        self.simulated += other.simulated;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lives, kills, calls, runs, hangs, sessions, simulated } = self;
        let days = simulated.as_secs() / 86_400;
        write!(f, "{lives} lives, {days} simulated days, {kills} kills, {calls} attempts")?;
        write!(f, " ({hangs} that hung) in {runs} runs by the clock, {sessions} sessions")
    }
}

/// What is known of a session.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Records that may be in it, and those that were acknowledged.
    pub(crate) meant: Vec<u64>,
    pub(crate) acknowledged: Vec<u64>,
    pub(crate) is_ended: bool,
    pub(crate) may_be_pruned: bool,
    pub(crate) is_pruned: bool,
    /// Whether an operator may have given it up, or a call has hung with it, since it was requeued.
    pub(crate) may_be_reset: bool,
    pub(crate) has_hung: bool,
}

/// What is known of a processor with a session, since it may have begun anew with it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tried {
    pub(crate) calls: u32,
    pub(crate) failures: u32,
    pub(crate) refused: bool,
    /// How many processes had died by then.
    deaths_before: u64,
    /// How often it may have begun anew.
    pub(crate) begun_anew: u64,
}

/// What is known of the runs of a processor.
#[derive(Debug, Clone, Copy)]
struct Runs {
    last: Option<u64>,
    /// There may be one at once: it is new, or the last one may not be known.
    is_exempt: bool,
    by_the_clock: u64,
    exempt: u64,
}

#[derive(Debug)]
pub(crate) struct Book {
    seed: u64,
    pub(crate) totals: Totals,
    pub(crate) sessions: BTreeMap<u64, Known>,
    /// How many sessions may have begun and were not answered.
    pub(crate) unanswered_starts: u64,
    /// The session of a record that may be written and was not answered.
    unanswered_record: Option<u64>,
    tried: BTreeMap<(&'static str, u64), Tried>,
    runs: BTreeMap<&'static str, Runs>,
    /// The last that was heard is that the database was closed.
    is_in_order: bool,
    events: BTreeSet<u64>,
    acknowledged_event: u64,
    /// The latest engine time that was heard of, and the last one.
    pub(crate) at: u64,
    now: u64,
    /// How much time was lived through again.
    repeated: u64,
    version: u32,
    item: u64,
}

fn number(text: Option<&str>) -> u64 {
    text.expect("a number follows").parse().expect("it is a number")
}

impl Book {
    pub(crate) fn new(seed: u64) -> Self {
        let runs = Runs { last: None, is_exempt: true, by_the_clock: 0, exempt: 0 };
        Self {
            seed,
            totals: Totals::default(),
            sessions: BTreeMap::new(),
            unanswered_starts: 0,
            unanswered_record: None,
            tried: BTreeMap::new(),
            runs: KINDS.map(|kind| (kind.name, runs)).into(),
            is_in_order: false,
            events: BTreeSet::new(),
            acknowledged_event: 0,
            at: START.as_nanos(),
            now: START.as_nanos(),
            repeated: 0,
            version: 1,
            item: 0,
        }
    }

    /// What a failure says first.
    pub(crate) fn what(&self) -> String {
        format!("TIDAL_SEED={}, life {}", self.seed, self.totals.lives)
    }

    /// The clock of the next open: some time has passed, or it was set back.
    pub(crate) fn opens_at(&self, random: &mut Random) -> u64 {
        let by = Duration::from_secs(random.below(7_200)).as_nanos() as u64;
        if random.one_in(5) { (self.at - by).max(START.as_nanos()) } else { self.at + by }
    }

    pub(crate) const fn version(&self) -> u32 {
        self.version
    }

    pub(crate) const fn next_item(&self) -> u64 {
        self.item + 1
    }

    pub(crate) fn life_ended(&mut self, died: bool) {
        if let Some(id) = self.unanswered_record.take() {
            self.has_grown(id);
        }
        self.totals.lives += 1;
        self.totals.kills += u64::from(died);
        if !self.is_in_order {
            // A run with nothing to say is not known.
            self.runs.values_mut().for_each(|runs| runs.is_exempt = true);
        }
        self.totals.simulated = Duration::from_nanos(self.at - START.as_nanos());
        self.totals.sessions = self.sessions.len() as u64;
    }

    /// What is known of a processor with a session.
    pub(crate) fn tried(&self, kind: Kind, id: u64) -> Tried {
        self.tried.get(&(kind.name, id)).copied().unwrap_or_default()
    }

    /// Whether it is known why a processor gave a session up.
    pub(crate) fn may_have_given_up(&self, kind: Kind, id: u64) -> bool {
        let tried = self.tried(kind, id);
        // A process that dies may have taken an attempt of anyone with it.
        let deaths = self.totals.kills - tried.deaths_before;
        tried.refused || u64::from(tried.failures) + deaths >= u64::from(kind.max_attempts)
    }

    fn known(&mut self, id: u64) -> &mut Known {
        self.sessions.entry(id).or_default()
    }

    /// A report of a child.
    pub(crate) fn note(&mut self, report: &str) {
        let (what, rest) = report.split_once(' ').expect("a word, and what of");
        let mut rest = rest.split(' ');
        self.is_in_order = what == "orderly";
        match what {
            "t" => self.now_is(number(rest.next())),
            "item" => self.item = number(rest.next()),
            "version" => self.bump(number(rest.next())),
            "orderly" => {}
            "disorderly" => self.runs.values_mut().for_each(|runs| runs.is_exempt = true),
            "run" | "RUN" => {
                let kind = Kind::of(rest.next().expect("a name"));
                self.run(kind, number(rest.next()), what == "RUN");
            }
            "call" | "failed" | "refused" | "hung" => {
                let kind = Kind::of(rest.next().expect("a name"));
                self.called(what, kind, number(rest.next()), rest.next());
            }
            "anew" => {
                let name = rest.next().expect("a name, or all");
                let id = number(rest.next());
                self.begin_anew(|kind| name == "all" || kind.name == name, id);
            }
            "event" => self.heard(number(rest.next())),
            "ACK" => self.acknowledged_event = number(rest.next()),
            _ => self.note_session(what, number(rest.next()), rest.next()),
        }
    }

    /// Engine time does not go back behind what is written; as far as nothing was, it goes with the clock, and a
    /// run that would be later than now counts as one of now.
    fn now_is(&mut self, now: u64) {
        self.repeated += self.now.saturating_sub(now);
        (self.now, self.at) = (now, self.at.max(now));
        for runs in self.runs.values_mut() {
            runs.last = runs.last.map(|last| last.min(now));
        }
    }

    fn note_session(&mut self, what: &str, id: u64, item: Option<&str>) {
        match what {
            "start" => self.unanswered_starts += 1,
            "START" => {
                self.unanswered_starts -= 1;
                self.known(id);
            }
            "record" => {
                let item = number(item);
                self.known(id).meant.push(item);
                self.unanswered_record = Some(id);
            }
            "RECORD" => {
                let item = number(item);
                self.known(id).acknowledged.push(item);
                self.unanswered_record = None;
                self.has_grown(id);
            }
            "END" => self.known(id).is_ended = true,
            "prune" => self.known(id).may_be_pruned = true,
            "PRUNED" => self.known(id).is_pruned = true,
            "reset" => self.known(id).may_be_reset = true,
            "requeue" => {
                self.begin_anew(|_| true, id);
                let known = self.known(id);
                (known.may_be_reset, known.has_hung) = (false, false);
            }
            _ => panic!("{}: nothing is known of {what:?}", self.what()),
        }
    }

    /// What was given up stays so, and whoever was done with it has attempts as for the first time.
    fn has_grown(&mut self, id: u64) {
        for kind in KINDS {
            let tried = self.tried.entry((kind.name, id)).or_default();
            (tried.calls, tried.begun_anew) = (0, tried.begun_anew + 1);
        }
    }

    fn begin_anew(&mut self, wants: impl Fn(Kind) -> bool, id: u64) {
        let deaths_before = self.totals.kills;
        for kind in KINDS.into_iter().filter(|kind| wants(*kind)) {
            let tried = self.tried.entry((kind.name, id)).or_default();
            let begun_anew = tried.begun_anew + 1;
            *tried = Tried { deaths_before, begun_anew, ..Tried::default() };
        }
    }

    /// Another version sees everything again, and at once.
    fn bump(&mut self, version: u64) {
        self.version = u32::try_from(version).expect("small");
        let tried: Vec<(&'static str, u64)> = self.tried.keys().copied().collect();
        for kind in KINDS.into_iter().filter(|kind| !kind.required) {
            // Also of a session whose start was never answered.
            for (_, id) in tried.iter().filter(|(name, _)| *name == kind.name) {
                self.begin_anew(|of| of.name == kind.name, *id);
            }
            self.runs.get_mut(kind.name).expect("known").is_exempt = true;
        }
    }

    fn called(&mut self, what: &str, kind: Kind, id: u64, attempt: Option<&str>) {
        let says = self.what();
        let tried = self.tried.entry((kind.name, id)).or_default();
        match what {
            "call" => {
                self.totals.calls += 1;
                tried.calls += 1;
                let attempt = number(attempt);
                let most = kind.max_attempts;
                let name = kind.name;
                assert!(attempt <= most.into(), "{says}: {name} tries {id} {attempt} times");
                assert!(tried.calls <= most, "{says}: {name} has tried {id} {} times", tried.calls);
            }
            "failed" => tried.failures += 1,
            "refused" => tried.refused = true,
            _ => {
                tried.failures += 1;
                self.totals.hangs += 1;
                self.known(id).has_hung = true;
            }
        }
    }

    /// A run begins; by the clock no sooner than a cadence after the one before.
    fn run(&mut self, kind: Kind, at: u64, is_by_the_clock: bool) {
        let says = self.what();
        let runs = self.runs.get_mut(kind.name).expect("known");
        if is_by_the_clock {
            self.totals.runs += 1;
            runs.by_the_clock += 1;
            let pause = runs.last.map(|last| at - last.min(at));
            let is_early = pause.is_some_and(|pause| u128::from(pause) < kind.cadence.as_nanos());
            assert!(!is_early || runs.is_exempt, "{says}: {} again after {pause:?} ns", kind.name);
            runs.exempt += u64::from(is_early);
        }
        (runs.last, runs.is_exempt) = (Some(at), false);
    }

    /// Events come in order, and none is left out.
    fn heard(&mut self, event: u64) {
        let says = self.what();
        let last = self.events.last().copied().unwrap_or_default();
        assert!(event <= last + 1, "{says}: event {event} follows {last}");
        let through = self.acknowledged_event;
        assert!(
            event > through,
            "{says}: event {event} was told after an acknowledgement of {through}"
        );
        self.events.insert(event);
    }

    /// Over all opens there are no more runs than cadences, and one for each reason to run at once.
    pub(crate) fn check_runs(&self) {
        for kind in KINDS {
            let runs = self.runs[kind.name];
            let lived = self.at - START.as_nanos() + self.repeated;
            let cadences = u128::from(lived) / kind.cadence.as_nanos();
            let most = cadences as u64 + 1 + runs.exempt;
            assert!(runs.by_the_clock <= most, "{}: {kind:?}: {runs:?}", self.what());
        }
    }

    /// Time goes on.
    pub(crate) fn at(&self) -> Timestamp {
        Timestamp::from_nanos(self.at)
    }

    /// Long enough for all that is open to end, and for all that failed to be tried again.
    pub(crate) const LONG: Duration = DAY;
    /// How often it is driven meanwhile.
    pub(crate) const STEP: Duration = Duration::from_secs(900);
}

//! What operations mean, by plain maps.
//!
//! Knows: sources, event ids, users, cohorts, counts, hidden items, metadata, texts, time; co-engagement
//! by `engagement.rs`; of collections and sessions, when they are asked. Shares no code with the engine, so that a
//! mistake of the engine is not the reference's as well.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use tidal_support::model::{Check, Column};
use tidaldb::schema::{EntityId, Timestamp, Window};
use tidaldb::{TidalDb, TimeSource};

use crate::collections::{self, Collecting, Collections};
use crate::courses::{Courses, Now, Verdict};
use crate::engagement::{Engagements, Owner};
use crate::operation::{
    ADULT, Aim, Answer, COHORTS, COUNTRIES_MAX, HALF_LIVES, HOUR, ITEMS, Operation, Planned,
    SIGNALS, SOURCES, Signal, Signals, TEXTS, attributes, metadata,
};
use crate::sessions::{self, Said, Sessioning};

const SKEW_MAX: Duration = Duration::from_secs(300);
const EVENT_JUMP_MAX: Duration = Duration::from_secs(31 * 86_400);
/// Texts are numbered from here.
const FIRST_TEXT: u64 = 1 << 52;

type Attributes = HashMap<String, String>;

/// The state, as maps.
#[derive(Debug, Clone)]
pub(crate) struct Plain {
    source: TimeSource,
    /// Engine time, as operations move it.
    pub(crate) time: Timestamp,
    /// Whether it was ever set back: then windows are not what the list of events says.
    was_set_back: bool,
    offsets: BTreeMap<usize, u64>,
    /// Those of a session are its own.
    ids: BTreeMap<(Option<u64>, u8), Timestamp>,
    users: BTreeMap<u8, (Attributes, BTreeSet<usize>)>,
    countries: BTreeSet<usize>,
    /// By signal and cohort; no cohort is everyone.
    columns: BTreeMap<(usize, Option<usize>), Column>,
    hidden: HashSet<EntityId>,
    metadata: BTreeMap<u64, Attributes>,
    texts: Vec<usize>,
    engagements: Engagements,
    collections: Collections,
    pub(crate) courses: Courses,
    /// Operations in the log, the schema first.
    operations: u64,
}

fn is_country(cohort: usize) -> bool {
    COHORTS[cohort].starts_with("country=")
}

impl Plain {
    /// Nothing happened yet.
    pub(crate) fn new(source: TimeSource, rejects: bool) -> Self {
        Self {
            source,
            time: Timestamp::EPOCH,
            was_set_back: false,
            offsets: BTreeMap::new(),
            ids: BTreeMap::new(),
            users: BTreeMap::new(),
            countries: BTreeSet::new(),
            columns: BTreeMap::new(),
            hidden: HashSet::new(),
            metadata: BTreeMap::new(),
            texts: Vec::new(),
            engagements: Engagements::default(),
            collections: Collections::default(),
            courses: Courses::new(rejects),
            operations: 1,
        }
    }

    /// What an operation does and answers, and whether it is in the log.
    pub(crate) fn apply(&mut self, planned: &Planned) -> (Answer, bool) {
        let is_logged = self.is_logged(&planned.operation, planned.aim);
        let answer = match &planned.operation {
            Operation::Signals(signals) => self.signals(signals, planned),
            Operation::User { user, country, age } => self.user(*user, *country, *age),
            Operation::Item { item, text, size_bytes } => {
                self.metadata.insert(*item, metadata(*text, *size_bytes));
                Answer::Applied { duplicates: 0 }
            }
            Operation::Delete(item) => {
                self.metadata.remove(item);
                let columns = self.columns.values_mut();
                columns.for_each(|column| drop(column.items.remove(&EntityId::new(*item))));
                self.engagements.forget(*item);
                Answer::Applied { duplicates: 0 }
            }
            Operation::Hide(item) => {
                self.hidden.insert(EntityId::new(*item));
                Answer::Applied { duplicates: 0 }
            }
            Operation::Show(item) => {
                self.hidden.remove(&EntityId::new(*item));
                Answer::Applied { duplicates: 0 }
            }
            Operation::Intern(texts) => {
                Answer::Ids(texts.iter().map(|&text| self.text(text)).collect())
            }
            Operation::ResetClock => self.reset(planned.stamp),
            Operation::Collect(collecting) => {
                self.collect(collecting, planned.aim.collection(), planned)
            }
            Operation::Session(sessioning) => {
                self.session(sessioning, planned.aim.session(), planned)
            }
        };
        let is_frame = is_logged && !answer.is_before_the_log();
        self.operations += u64::from(is_frame);
        if is_frame && self.source == TimeSource::Clock {
            self.time = planned.stamp;
        }
        (answer, is_frame)
    }

    /// What an operation is about; `grant` is what it may give.
    pub(crate) fn aim(&self, operation: &Operation, grant: u64) -> Aim {
        match operation {
            Operation::Collect(collecting) => Aim::Collection(self.collections.aim(collecting)),
            Operation::Session(sessioning) => Aim::Session(self.courses.aim(sessioning, grant)),
            _ => Aim::Nothing,
        }
    }

    /// Whether an operation is one for the log, if it is not refused.
    pub(crate) fn is_logged(&self, operation: &Operation, aim: Aim) -> bool {
        match operation {
            // Texts that are all known are only looked up.
            Operation::Intern(texts) => texts.iter().any(|text| !self.texts.contains(text)),
            Operation::Session(sessioning) => self.courses.is_logged(sessioning, aim.session()),
            _ => true,
        }
    }

    fn text(&mut self, text: usize) -> u64 {
        let at = self.texts.iter().position(|&known| known == text).unwrap_or_else(|| {
            self.texts.push(text);
            self.texts.len() - 1
        });
        FIRST_TEXT + at as u64
    }

    fn reset(&mut self, stamp: Timestamp) -> Answer {
        if self.source == TimeSource::Events {
            return Answer::Invalid;
        }
        if stamp < self.time {
            self.was_set_back = true;
            // What was forgotten by the last operation does not come back with an earlier time.
            self.ids.retain(|_, seen| *seen >= self.time.saturating_sub(HOUR * 24));
            self.ids.values_mut().for_each(|seen| *seen = (*seen).min(stamp));
            self.engagements.set_back(stamp);
            self.courses.set_back(self.time, stamp);
        }
        Answer::Applied { duplicates: 0 }
    }

    /// Whether cohorts can come to be; then they are.
    fn ensure(&mut self, cohorts: &BTreeSet<usize>) -> bool {
        let countries = cohorts.iter().copied().filter(|&cohort| is_country(cohort));
        let all: BTreeSet<usize> = self.countries.iter().copied().chain(countries).collect();
        let has_room = all.len() <= COUNTRIES_MAX as usize;
        if has_room {
            self.countries = all;
        }
        has_room
    }

    fn user(&mut self, user: u8, country: Option<usize>, age: u8) -> Answer {
        let mut cohorts: BTreeSet<usize> = country.into_iter().collect();
        if age >= ADULT {
            cohorts.insert(COHORTS.iter().position(|&name| name == "adults").expect("declared"));
        }
        if !self.ensure(&cohorts) {
            return Answer::FamilyFull;
        }
        self.users.insert(user, (attributes(country, age), cohorts));
        Answer::Applied { duplicates: 0 }
    }

    fn collect(
        &mut self,
        collecting: &Collecting,
        aim: collections::Aim,
        planned: &Planned,
    ) -> Answer {
        match collecting {
            Collecting::Create { owner, visibility } => {
                self.collections.create(self.operations + 1, *owner, *visibility)
            }
            Collecting::Delete(_) => self.collections.delete(aim),
            Collecting::Change { what, signals, .. } => {
                if self.is_too_far(signals.iter(), planned) {
                    return Answer::TooFarAhead;
                }
                let changed = match self.collections.changed(aim, what) {
                    Ok(changed) => changed,
                    Err(refusal) => return refusal,
                };
                let mut duplicates = 0;
                if changed.is_new && !signals.is_empty() {
                    match self.count(&signals.iter().collect::<Vec<_>>(), planned, None) {
                        Some(seen) => duplicates = seen,
                        None => return Answer::FamilyFull,
                    }
                }
                self.collections.carry_out(changed, duplicates)
            }
        }
    }

    /// Whether one of the signals is so far ahead that the writer refuses them.
    fn is_too_far<'a>(&self, signals: impl Iterator<Item = &'a Signal>, planned: &Planned) -> bool {
        let (from, ahead_max) = match self.source {
            TimeSource::Clock => (planned.stamp, SKEW_MAX),
            TimeSource::Events => (self.time, EVENT_JUMP_MAX),
        };
        let is_first = from == Timestamp::EPOCH;
        let latest = signals.map(|event| event.at(planned.base)).max();
        latest.is_some_and(|at| !is_first && at > from.saturating_add(ahead_max))
    }

    fn signals(&mut self, signals: &Signals, planned: &Planned) -> Answer {
        if self.is_too_far(signals.events(), planned) {
            return Answer::TooFarAhead;
        }
        if let Some(source) = signals.source
            && let Some(&stored) = self.offsets.get(&source.name)
        {
            if source.last() <= stored {
                return Answer::AlreadyApplied { stored };
            }
            if source.first <= stored {
                return Answer::Overlap { stored };
            }
            if source.contiguous && source.first > stored + 1 {
                return Answer::Gap { stored };
            }
        }
        let Some(duplicates) = self.count(&signals.events().collect::<Vec<_>>(), planned, None)
        else {
            return Answer::FamilyFull;
        };
        if let Some(source) = signals.source {
            self.offsets.insert(source.name, source.last());
        }
        Answer::Applied { duplicates }
    }

    fn session(
        &mut self,
        sessioning: &Sessioning,
        aim: sessions::Aim,
        planned: &Planned,
    ) -> Answer {
        match sessioning {
            _ if !self.courses.is_logged(sessioning, aim) => match sessioning {
                Sessioning::Late { .. } => Answer::NoSession,
                _ => Answer::Closed,
            },
            Sessioning::Signal { said, .. } => self.said(said, aim, false, planned),
            Sessioning::Late { said, .. } => self.said(said, aim, true, planned),
            other => {
                let time = match self.source {
                    TimeSource::Clock => planned.stamp,
                    TimeSource::Events => self.time,
                };
                self.courses.apply(other, aim, Now { time, number: self.operations + 1 })
            }
        }
    }

    /// A signal of a session.
    fn said(
        &mut self,
        said: &Said,
        aim: sessions::Aim,
        is_late: bool,
        planned: &Planned,
    ) -> Answer {
        if self.is_too_far(std::iter::once(&said.signal), planned) {
            return Answer::TooFarAhead;
        }
        let at = said.signal.at(planned.base);
        let now = match self.source {
            TimeSource::Clock => planned.stamp,
            TimeSource::Events => self.time.max(at),
        };
        let user = match self.courses.hear(aim, is_late, now) {
            Verdict::Heard { user } => user,
            Verdict::Refused(refusal) => return refusal,
            Verdict::Over(refusal) => {
                self.time = now;
                return refusal;
            }
        };
        let since = now.saturating_sub(HOUR * 24);
        let seen = said.signal.id.and_then(|id| self.ids.get(&(Some(aim.session), id)));
        if seen.is_some_and(|&seen| seen >= since) {
            return Answer::Applied { duplicates: 1 };
        }
        if let Err(refusal) = self.courses.permit(aim, said, now) {
            return refusal;
        }
        let counted = self.count(&[&said.signal.of_user(user)], planned, Some(aim.session));
        assert_eq!(counted, Some(0), "a signal of a session names no cohort, and came once");
        let now = Now { time: now, number: self.operations + 1 };
        self.courses.keep_signal(aim, said, is_late, at, now);
        Answer::Applied { duplicates: 0 }
    }

    /// Counts signals that come as one; how many had been seen before. `None`, and nothing counts,
    /// where a cohort has no room to come to be.
    fn count(
        &mut self,
        signals: &[&Signal],
        planned: &Planned,
        session: Option<u64>,
    ) -> Option<u32> {
        if !self.ensure(&signals.iter().filter_map(|event| event.cohort).collect()) {
            return None;
        }
        let latest = signals.iter().map(|event| event.at(planned.base)).max();
        let now = match self.source {
            TimeSource::Clock => planned.stamp,
            TimeSource::Events => self.time.max(latest.unwrap_or(Timestamp::EPOCH)),
        };
        self.time = now;
        self.ids.retain(|_, seen| *seen >= now.saturating_sub(HOUR * 24));
        let mut duplicates = 0;
        for event in signals {
            if event.id.is_some_and(|id| self.ids.contains_key(&(session, id))) {
                duplicates += 1;
                continue;
            }
            self.ids.extend(event.id.map(|id| ((session, id), now)));
            let of_user = event.user.and_then(|user| self.users.get(&user));
            let mut cohorts = of_user.map(|(_, cohorts)| cohorts.clone()).unwrap_or_default();
            cohorts.extend(event.cohort);
            if event.weight() > 0.0 {
                let owner = match (session, event.user) {
                    (Some(session), _) => Owner::Session(session),
                    (None, Some(user)) => Owner::User(user),
                    (None, None) => Owner::Nobody,
                };
                self.engagements.engage(owner, event.item, event.at(planned.base));
            }
            for cohort in std::iter::once(None).chain(cohorts.into_iter().map(Some)) {
                let column = self.columns.entry((event.signal, cohort)).or_default();
                column.push(EntityId::new(event.item), event.at(planned.base), event.weight());
            }
        }
        Some(duplicates)
    }

    /// Compares a database with the maps: rows, offsets, texts, users, hidden items.
    pub(crate) fn check_rows(&self, db: &TidalDb, what: &str) {
        self.collections.check(db, what);
        for item in 0..ITEMS {
            let entity = EntityId::new(item);
            let found = db.get_item_metadata(entity).expect("a row is read");
            assert_eq!(found.as_ref(), self.metadata.get(&item), "metadata of item {item}: {what}");
            assert_eq!(
                db.is_hidden(entity),
                self.hidden.contains(&entity),
                "{item} hidden: {what}"
            );
        }
        for (source, name) in SOURCES.iter().enumerate() {
            assert_eq!(db.source_offset(name), self.offsets.get(&source).copied(), "{what}");
        }
        for (text, name) in TEXTS.iter().enumerate() {
            let at = self.texts.iter().position(|&known| known == text);
            let id = at.map(|at| EntityId::new(FIRST_TEXT + at as u64));
            assert_eq!(db.lookup_text(name), id, "the id of {name:?}: {what}");
        }
        for user in 0..4u8 {
            let expected = self.users.get(&user);
            let found = db.user_attributes(u64::from(user));
            assert_eq!(found.as_ref(), expected.map(|(of, _)| of), "user {user}: {what}");
            let cohorts: BTreeSet<String> = db.user_cohorts(u64::from(user)).into_iter().collect();
            let expected = expected.iter().flat_map(|(_, cohorts)| cohorts.iter());
            let expected = expected.map(|&cohort| COHORTS[cohort].to_owned()).collect();
            assert_eq!(cohorts, expected, "the cohorts of user {user}: {what}");
        }
    }

    /// Compares every trail and edge.
    pub(crate) fn check_engagements(&self, db: &TidalDb) {
        self.engagements.check(db, &self.hidden);
    }

    /// Compares every count, and unless time was set back every window, score and ranking.
    pub(crate) fn check_signals(&self, db: &TidalDb) {
        let items: Vec<EntityId> = (0..ITEMS).map(EntityId::new).collect();
        let bucketed = tidal_support::model::BUCKETED.map(|(window, ..)| window);
        let none = Column::default();
        let cohorts = std::iter::once(None).chain((0..COHORTS.len()).map(Some));
        for (cohort, signal) in cohorts.flat_map(|cohort| [(cohort, 0), (cohort, 1)]) {
            let check = Check {
                db,
                signal: SIGNALS[signal],
                cohort: cohort.map(|cohort| COHORTS[cohort]),
                now: db.engine_time(),
                column: self.columns.get(&(signal, cohort)).unwrap_or(&none),
                hidden: &self.hidden,
            };
            check.counts(&items, &[Window::AllTime]);
            if !self.was_set_back {
                check.counts(&items, &bucketed);
                check.scores(&items, &HALF_LIVES);
                check.hot(&HALF_LIVES, 3);
                check.top(&bucketed, 3);
                check.trending(&bucketed[..3], 3);
            }
        }
    }
}

//! Recommending: from a session, or for a user.

mod options;
mod page;
mod stand_ins;

pub use options::{ExcludeSeeds, Reason, RecommendOptions, Recommendations, Recommended};

use std::collections::HashSet;

use super::{TidalDb, View};
use crate::co_engagement::{Candidate, Request, SEEDS_MAX, Scale};
use crate::decay::Decay;
use crate::error::{Error, Result};
use crate::ids::{EntityId, Timestamp, UserId};
use crate::schema::{CoEngagement, Schema};
use options::Filler;
use page::Page;
use stand_ins::StandIns;

/// With fewer seeds than this, what stands in has places of its own.
const COLD_BELOW: usize = 3;

/// The items of a user's trails that are known to an answer.
const SEEN_MAX: usize = 1_000;
/// The touches that are looked at for them: a user may have a hundred trails with the same items.
const TOUCHES_MAX: usize = 10 * SEEN_MAX;

impl TidalDb {
    /// The `k` items that a session goes on to, best first, ties by item. `session` has its items in
    /// the order in which they were touched, the current one last; repeats are fine. Everything is read
    /// at one position of the log.
    ///
    /// The method's formula, and how well it does on real logs, is in `docs/quality.md`. The answer may
    /// be shorter than `k`, and is empty for items that nothing is known of. The writer waits while it is
    /// made, so no more than `10 k + 200` items are looked at that are ruled out by a group or a cohort;
    /// [`fill_with_hot`](RecommendOptions::fill_with_hot) has something stand in.
    ///
    /// # Errors
    ///
    /// - [`InvalidArgument`](Error::InvalidArgument): the schema has no engaging signal, or an option
    ///   is out of range.
    /// - [`UnknownName`](Error::UnknownName): no such cohort or signal.
    /// - [`NowTooOld`](Error::NowTooOld).
    /// - [`Store`](Error::Store), [`Corrupt`](Error::Corrupt): metadata, for
    ///   [`at_most_per`](RecommendOptions::at_most_per), cannot be read.
    ///
    /// ```
    /// use tidaldb::schema::{DecaySpec, EntityId, EntityKind, SchemaBuilder, Timestamp};
    /// use tidaldb::{Batch, Event, Reason, RecommendOptions, TidalDb};
    ///
    /// let mut schema = SchemaBuilder::new();
    /// let _ = schema.signal("view", EntityKind::Item, DecaySpec::None).engaging().add();
    /// let db = TidalDb::builder().ephemeral().with_schema(schema.build()?).open()?;
    ///
    /// let [tea, mug] = [EntityId::new(1), EntityId::new(2)];
    /// let mut batch = Batch::new();
    /// batch.push(Event::new("view", tea, Timestamp::now()).user(7));
    /// batch.push(Event::new("view", mug, Timestamp::now()).user(7));
    /// db.write(batch)?;
    ///
    /// let answer = db.recommend(&[tea], 20, &RecommendOptions::new())?;
    /// assert_eq!(answer.items[0].item, mug);
    /// assert_eq!(answer.items[0].reason, Reason::Seeds(vec![tea]));
    /// # Ok::<(), tidaldb::Error>(())
    /// ```
    pub fn recommend(
        &self,
        session: &[EntityId],
        k: usize,
        options: &RecommendOptions,
    ) -> Result<Recommendations> {
        let session = Session::of(session.iter().rev().copied());
        self.consistent(|view| view.recommend_from(&session, k, options))
    }

    /// The `k` items for a user, best first. The seeds are the last items of the user's trails; what
    /// these trails have (the last 1,000 different items), and hidden items, are left out.
    ///
    /// With fewer than three seeds some places go to what is hot in the user's cohorts: all without a
    /// seed, each third with one, each fourth with two; and it stands in where seeds lead to too little.
    /// Without [`fill_with_hot`](RecommendOptions::fill_with_hot) or
    /// [`fill_with_trending`](RecommendOptions::fill_with_trending) it is what is hot under the schema's
    /// first engaging signal. Cohorts give an item in turn, everyone last.
    ///
    /// # Errors
    ///
    /// As [`recommend`](Self::recommend).
    pub fn for_user(
        &self,
        user: impl Into<UserId>,
        k: usize,
        options: &RecommendOptions,
    ) -> Result<Recommendations> {
        let user = user.into();
        self.consistent(|view| view.for_user(user, k, options))
    }
}

impl View<'_> {
    /// See [`TidalDb::recommend`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn recommend(
        &self,
        session: &[EntityId],
        k: usize,
        options: &RecommendOptions,
    ) -> Result<Recommendations> {
        self.recommend_from(&Session::of(session.iter().rev().copied()), k, options)
    }

    fn recommend_from(
        &self,
        session: &Session,
        k: usize,
        options: &RecommendOptions,
    ) -> Result<Recommendations> {
        let exclude = options.exclude_seeds.unwrap_or(ExcludeSeeds::Current);
        let stand_ins = StandIns::of(options.filler.clone(), vec![options.cohort.clone()]);
        self.answer(session, exclude, k, options, stand_ins, None)
    }

    /// See [`TidalDb::for_user`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn for_user(
        &self,
        user: impl Into<UserId>,
        k: usize,
        options: &RecommendOptions,
    ) -> Result<Recommendations> {
        let user = user.into();
        let session = Session::of_user(self.database(), user);
        let exclude = options.exclude_seeds.unwrap_or(ExcludeSeeds::All);
        let hot = || Some(Filler::Hot { signal: self.engaging_signals().into_iter().next()? });
        let filler = options.filler.clone().or_else(hot);
        let cohorts = match &options.cohort {
            Some(cohort) => vec![Some(cohort.clone())],
            None => self.user_cohorts(user).into_iter().map(Some).chain([None]).collect(),
        };
        let seeds = session.items.len();
        let cold = (seeds < COLD_BELOW).then_some(if seeds == 0 { 1 } else { seeds + 2 });
        self.answer(&session, exclude, k, options, StandIns::of(filler, cohorts), cold)
    }

    /// The names of the signals that are engaging, in the order of their numbers.
    fn engaging_signals(&self) -> Vec<String> {
        let declared = self.database().state.declared();
        let signals = declared.schema.signals().iter();
        let engaging = signals.filter(|signal| signal.engaging().is_some());
        engaging.map(|signal| signal.name().to_owned()).collect()
    }

    fn answer(
        &self,
        session: &Session,
        exclude: ExcludeSeeds,
        k: usize,
        options: &RecommendOptions,
        stand_ins: StandIns,
        cold: Option<usize>,
    ) -> Result<Recommendations> {
        options.check()?;
        let now = self.database().moment(options.now.or(Some(self.now())))?;
        let declared = self.database().state.declared();
        let rules = rules(&declared.schema)?;
        if let Some(cohort) = &options.cohort {
            self.database().scope(cohort)?;
        }
        stand_ins.check(&declared.schema)?;
        let found = self.database().candidates(session, exclude, k, options, rules, now);
        let mut page = Page::new(*self, session, exclude, k, options, now);
        page.fill(found.into(), stand_ins, cold)?;
        Ok(Recommendations { seq: self.seq(), now, items: page.into_items() })
    }
}

/// How co-engagement is kept, or the advice to keep it.
fn rules(schema: &Schema) -> Result<&CoEngagement> {
    schema.co_engagement().ok_or_else(|| {
        let reason = "no signal of the schema is engaging, so nothing leads from item to item: \
                      declare engaging() for the signals that do";
        Error::invalid("recommend", reason)
    })
}

/// What an answer starts from.
struct Session {
    /// Distinct, the last touched first.
    items: Vec<EntityId>,
    known: HashSet<EntityId>,
}

impl Session {
    /// Of items that were touched, the last first.
    fn of(touched: impl Iterator<Item = EntityId>) -> Self {
        Self::of_at_most(usize::MAX, touched)
    }

    /// Of the first so many different ones.
    fn of_at_most(items_max: usize, touched: impl Iterator<Item = EntityId>) -> Self {
        let mut session = Self { items: Vec::new(), known: HashSet::new() };
        for item in touched {
            if session.items.len() == items_max {
                break;
            }
            if session.known.insert(item) {
                session.items.push(item);
            }
        }
        session
    }

    /// How many items may be kept out.
    fn excluded(&self, exclude: ExcludeSeeds) -> usize {
        if exclude == ExcludeSeeds::All { self.items.len() } else { 1 }
    }

    /// Of a user's trails that are kept, the newest first.
    fn of_user(db: &TidalDb, user: UserId) -> Self {
        let trails = db.state.co_engagement.trails();
        let touched = trails.of(Some(user)).flat_map(|trail| trail.items.iter().rev());
        let touched = touched.take(TOUCHES_MAX).map(|&number| trails.item(number));
        Self::of_at_most(SEEN_MAX, touched)
    }

    fn has(&self, item: EntityId) -> bool {
        self.known.contains(&item)
    }

    /// Whether an item is kept out.
    fn excludes(&self, item: EntityId, exclude: ExcludeSeeds) -> bool {
        match exclude {
            ExcludeSeeds::None => false,
            ExcludeSeeds::Current => self.items.first() == Some(&item),
            ExcludeSeeds::All => self.has(item),
        }
    }

    /// The seeds whose bits are set.
    fn seeds(&self, bits: u32) -> Vec<EntityId> {
        let is_set = |p: &usize| bits & (1 << p) != 0;
        (0..SEEDS_MAX).filter(is_set).filter_map(|p| self.items.get(p).copied()).collect()
    }
}

impl TidalDb {
    /// All that the method finds, best first, ties by item.
    fn candidates(
        &self,
        session: &Session,
        exclude: ExcludeSeeds,
        k: usize,
        options: &RecommendOptions,
        rules: &CoEngagement,
        now: Timestamp,
    ) -> Vec<Candidate> {
        let co_engagement = &self.state.co_engagement;
        let returns = co_engagement.revisits().map(|position| position.share());
        let started = co_engagement.trails().started();
        let decay = Decay::at(now, rules.decay());
        let recent = session.items.len().min(SEEDS_MAX.max(returns.len()));
        let request = Request {
            session: &session.items[..recent],
            method: options.method,
            seeds_max: options.seeds_max,
            scale: Scale::new(options.similarity, decay, started),
            support_min: options.min_support,
            returns: (exclude != ExcludeSeeds::All).then_some(&returns[..]),
            wanted: k,
            half_life: rules.decay(),
            now: decay,
        };
        let mut found = co_engagement.candidates(&request);
        found.sort_unstable_by(|left, right| {
            right.score.total_cmp(&left.score).then(left.item.cmp(&right.item))
        });
        found
    }
}

//! Filling an answer: what may be on it, in which order.

use std::collections::{HashMap, HashSet, VecDeque};

use super::super::{ReadOptions, View};
use super::Session;
use super::options::{ExcludeSeeds, Reason, RecommendOptions, Recommended};
use super::stand_ins::StandIns;
use crate::co_engagement::Candidate;
use crate::error::Result;
use crate::ids::{EntityId, Timestamp};
use crate::schema::Window;

/// So many candidates at a time are looked up in a cohort.
const LOOK_UP: usize = 64;

/// An answer that is being made.
pub(super) struct Page<'a> {
    pub(super) view: View<'a>,
    pub(super) session: &'a Session,
    pub(super) exclude: ExcludeSeeds,
    pub(super) k: usize,
    pub(super) options: &'a RecommendOptions,
    pub(super) now: Timestamp,
    items: Vec<Recommended>,
    taken: HashSet<EntityId>,
    /// How many items there are of each group.
    groups: HashMap<String, usize>,
    /// Items of which it was looked up whether they are of the cohort, or of which group.
    looks: usize,
}

/// Candidates, best first, that are checked some at a time.
pub(super) struct Found {
    all: std::vec::IntoIter<Candidate>,
    checked: VecDeque<Candidate>,
}

impl From<Vec<Candidate>> for Found {
    fn from(candidates: Vec<Candidate>) -> Self {
        Self { all: candidates.into_iter(), checked: VecDeque::new() }
    }
}

impl<'a> Page<'a> {
    pub(super) fn new(
        view: View<'a>,
        session: &'a Session,
        exclude: ExcludeSeeds,
        k: usize,
        options: &'a RecommendOptions,
        now: Timestamp,
    ) -> Self {
        let (items, taken, groups) = (Vec::new(), HashSet::new(), HashMap::new());
        Self { view, session, exclude, k, options, now, items, taken, groups, looks: 0 }
    }

    /// The writer waits while a page is made, so only so many items are looked up for it.
    fn may_look(&self) -> bool {
        self.looks < self.looks_max()
    }

    fn looks_max(&self) -> usize {
        self.k.saturating_mul(10).saturating_add(200)
    }

    /// How far a ranking is read, at most.
    pub(super) fn depth(&self) -> usize {
        self.looks_max().saturating_add(self.session.excluded(self.exclude))
    }

    pub(super) fn into_items(self) -> Vec<Recommended> {
        self.items
    }

    /// Takes the best of what was found and of what stands in. Each `cold`-th place goes to the latter
    /// first, all others to the former.
    pub(super) fn fill(
        &mut self,
        mut found: Found,
        mut stand_ins: StandIns,
        cold: Option<usize>,
    ) -> Result<()> {
        while self.items.len() < self.k {
            let place = self.items.len() + 1;
            let is_cold = cold.is_some_and(|cold| place.is_multiple_of(cold));
            let mut taken = is_cold && self.take_stand_in(&mut stand_ins)?;
            taken = taken || self.take_found(&mut found)?;
            taken = taken || self.take_stand_in(&mut stand_ins)?;
            if !taken {
                break;
            }
        }
        Ok(())
    }

    fn take_found(&mut self, found: &mut Found) -> Result<bool> {
        while self.may_look()
            && let Some(candidate) = self.next_found(found)?
        {
            let Candidate { item, score, seeds } = candidate;
            let reason = match self.session.has(item) {
                true => Reason::Return,
                false => {
                    let mut seeds = self.session.seeds(seeds);
                    seeds.retain(|&seed| !self.view.is_hidden(seed));
                    Reason::Seeds(seeds)
                }
            };
            if self.offer(item, score, reason)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn take_stand_in(&mut self, stand_ins: &mut StandIns) -> Result<bool> {
        while self.may_look()
            && let Some((ranked, reason)) = stand_ins.next(self)?
        {
            if self.offer(ranked.entity, ranked.value, reason)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The next candidate that is of the cohort, if one was asked for.
    fn next_found(&mut self, found: &mut Found) -> Result<Option<Candidate>> {
        let Some(cohort) = &self.options.cohort else { return Ok(found.all.next()) };
        while found.checked.is_empty() && self.may_look() {
            let some: Vec<Candidate> = found.all.by_ref().take(LOOK_UP).collect();
            if some.is_empty() {
                return Ok(None);
            }
            self.looks += some.len();
            let is_of_cohort = self.are_of(&some, cohort)?;
            let checked = some.into_iter().zip(is_of_cohort);
            found
                .checked
                .extend(checked.filter(|(_, is_of)| *is_of).map(|(candidate, _)| candidate));
        }
        Ok(found.checked.pop_front())
    }

    /// Of each candidate whether an engaging signal counted for it in a cohort.
    fn are_of(&self, candidates: &[Candidate], cohort: &str) -> Result<Vec<bool>> {
        let items: Vec<EntityId> = candidates.iter().map(|candidate| candidate.item).collect();
        let options = ReadOptions::new().cohort(cohort).now(self.now);
        let mut is_of = vec![false; items.len()];
        let mut counts = vec![0; items.len()];
        for signal in self.view.engaging_signals() {
            self.view.windowed_counts(&items, &signal, Window::AllTime, &options, &mut counts)?;
            is_of.iter_mut().zip(&counts).for_each(|(is_of, &count)| *is_of |= count > 0);
        }
        Ok(is_of)
    }

    /// Puts an item on the page unless something speaks against it.
    fn offer(&mut self, item: EntityId, score: f64, reason: Reason) -> Result<bool> {
        if self.taken.contains(&item)
            || self.session.excludes(item, self.exclude)
            || self.view.is_hidden(item)
        {
            return Ok(false);
        }
        if let Some((key, items_max)) = &self.options.per_group {
            self.looks += 1;
            let metadata = self.view.get_item_metadata(item)?;
            if let Some(group) = metadata.and_then(|mut metadata| metadata.remove(key)) {
                let items = self.groups.entry(group).or_default();
                if *items >= *items_max {
                    return Ok(false);
                }
                *items += 1;
            }
        }
        self.taken.insert(item);
        self.items.push(Recommended { item, score, reason });
        Ok(true)
    }
}

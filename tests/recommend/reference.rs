//! The formulas of `docs/quality.md`, once more: over lists of events, with nothing bounded, packed or
//! derived. It shares no code with the engine.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use tidal_support::random::Random;
use tidaldb::co_engagement::Method;
use tidaldb::schema::EntityId;
use tidaldb::{Clock, ExcludeSeeds, ManualClock, RecommendOptions, Recommended, TidalDb};

use super::{ephemeral, item, view};

const HALF_LIFE_S: f64 = 30.0 * 86_400.0;
const IDLE_S: f64 = 1_800.0;

/// Something of weight `by` at a time, in seconds.
type Terms = Vec<(f64, f64)>;

/// Whose visit a trail is: a user's, or that of a session of the user.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
struct Owner {
    user: u64,
    session: Option<u64>,
}

#[derive(Default)]
struct Trail {
    owner: Owner,
    last: f64,
    /// In order of touches.
    items: Vec<u64>,
}

#[derive(Default)]
struct Plain {
    trails: Vec<Trail>,
    pairs: HashMap<(u64, u64), Terms>,
    selves: HashMap<u64, Terms>,
    seen: [f64; 20],
    returned: [f64; 20],
}

fn sum(terms: &[(f64, f64)], now: f64) -> f64 {
    terms.iter().map(|(at, by)| by * ((at - now) / HALF_LIFE_S).exp2()).sum()
}

impl Plain {
    fn view(&mut self, owner: Owner, viewed: u64, at: f64) {
        let newest = self.trails.iter().rposition(|trail| trail.owner == owner);
        let trail = match newest.filter(|&n| at - self.trails[n].last <= IDLE_S) {
            Some(n) => n,
            None => {
                self.trails.push(Trail { owner, last: at, items: Vec::new() });
                self.trails.len() - 1
            }
        };
        let trail = &mut self.trails[trail];
        trail.last = at;
        let back = trail.items.iter().rev().position(|&other| other == viewed);
        for j in 0..trail.items.len().min(20) {
            self.seen[j] += 1.0;
            self.returned[j] += f64::from(u8::from(back == Some(j)));
        }
        match back {
            Some(_) => trail.items.retain(|&other| other != viewed),
            None => {
                self.selves.entry(viewed).or_default().push((at, 1.0));
                for (d, &other) in trail.items.iter().rev().take(10).enumerate() {
                    let by = 1.0 / (d + 1) as f64;
                    self.pairs.entry((viewed, other)).or_default().push((at, by));
                    self.pairs.entry((other, viewed)).or_default().push((at, by));
                }
            }
        }
        trail.items.push(viewed);
    }

    /// What a user engaged with, in sessions or not: visit after visit, by their beginnings.
    fn touched(&self, user: u64) -> Vec<u64> {
        let trails = self.trails.iter().filter(|trail| trail.owner.user == user);
        trails.flat_map(|trail| trail.items.iter().copied()).collect()
    }

    fn similarity(&self, x: u64, y: u64, now: f64) -> Option<f64> {
        let pair = self.pairs.get(&(x, y))?;
        let selves = sum(&self.selves[&x], now) * sum(&self.selves[&y], now);
        Some(sum(pair, now) / (selves.sqrt() + 20.0))
    }

    fn neighbours(&self, x: u64, now: f64) -> Vec<(u64, f64)> {
        let all = self.selves.keys();
        all.filter_map(|&y| self.similarity(x, y, now).map(|s| (y, s))).collect()
    }

    fn by_edges(&self, seeds: &[u64], session: &[u64], k: usize, now: f64) -> BTreeMap<u64, f64> {
        let mut found: BTreeMap<u64, f64> = BTreeMap::new();
        for (p, &x) in seeds.iter().enumerate() {
            for (y, s) in self.neighbours(x, now) {
                *found.entry(y).or_default() += s / ((p + 1) * (p + 1)) as f64;
            }
        }
        if found.keys().filter(|y| !session.contains(y)).count() < k {
            let mut best: Vec<(u64, f64)> = found.iter().map(|(&y, &s)| (y, s)).collect();
            best.sort_by(|left, right| right.1.total_cmp(&left.1).then(left.0.cmp(&right.0)));
            let mut fill: BTreeMap<u64, f64> = BTreeMap::new();
            for &(y, s) in best.iter().take(5) {
                for (z, near) in self.neighbours(y, now) {
                    if !found.contains_key(&z) && !session.contains(&z) {
                        *fill.entry(z).or_default() += s * near;
                    }
                }
            }
            let least = best.last().map_or(0.0, |&(_, s)| s);
            let most = fill.values().copied().fold(0.0, f64::max);
            found.extend(fill.into_iter().map(|(z, f)| (z, 0.9 * least * f / most)));
        }
        found
    }

    fn by_sessions(&self, seeds: &[u64], now: f64) -> BTreeMap<u64, f64> {
        let mut alike: BTreeMap<usize, f64> = BTreeMap::new();
        for (p, x) in seeds.iter().enumerate() {
            let with = (0..self.trails.len()).rev().filter(|&t| self.trails[t].items.contains(x));
            with.take(100).for_each(|t| *alike.entry(t).or_default() += 1.0 / (p + 1) as f64);
        }
        let decayed =
            |(t, v): (usize, f64)| (t, v * ((self.trails[t].last - now) / HALF_LIFE_S).exp2());
        let mut nearest: Vec<(usize, f64)> = alike.into_iter().map(decayed).collect();
        nearest.sort_by(|left, right| right.1.total_cmp(&left.1).then(right.0.cmp(&left.0)));
        let mut found: BTreeMap<u64, f64> = BTreeMap::new();
        for (t, v) in nearest.into_iter().take(100) {
            let items = &self.trails[t].items;
            let place = |x: &u64| items.iter().position(|item| item == x);
            let q = seeds.iter().position(|x| items.contains(x)).expect("they are alike");
            let at = place(&seeds[q]).expect("the trail has it");
            for (i, &y) in items.iter().enumerate() {
                let distance = i.abs_diff(at).max(1) as f64;
                *found.entry(y).or_default() += v / ((q + 1) as f64).sqrt() / distance;
            }
        }
        found
    }

    /// Every item's score, unless it has none.
    fn scores(
        &self,
        touched: &[u64],
        k: usize,
        method: Method,
        exclude: ExcludeSeeds,
        now: f64,
    ) -> BTreeMap<u64, f64> {
        let mut session: Vec<u64> = Vec::new();
        touched.iter().rev().for_each(|&x| {
            if !session.contains(&x) {
                session.push(x);
            }
        });
        let seeds = &session[..session.len().min(10)];
        let most = |found: &BTreeMap<u64, f64>| found.values().copied().fold(0.0, f64::max);
        let mut found = self.by_edges(seeds, &session, k, now);
        if method == Method::Sessions {
            let of_sessions = self.by_sessions(seeds, now);
            if !of_sessions.is_empty() {
                let (largest, half) = (most(&of_sessions), 0.5 / most(&found));
                found.values_mut().for_each(|s| *s *= half);
                of_sessions
                    .into_iter()
                    .for_each(|(y, s)| *found.entry(y).or_default() += s / largest);
            }
        }
        let largest = most(&found);
        found.values_mut().for_each(|s| *s /= largest);
        if exclude == ExcludeSeeds::All {
            found.retain(|y, _| !session.contains(y));
            return found;
        }
        let share = |j: usize| self.returned[j] / (self.seen[j] + 20.0);
        let recent = session.len().min(20);
        let left = 0.25 * (1.0 - (0..recent).map(share).sum::<f64>()).max(0.1);
        found.values_mut().for_each(|s| *s *= left);
        found.remove(&session[0]);
        for j in (0..recent).filter(|&j| self.selves.contains_key(&session[j])) {
            if share(j) > 0.0 || found.contains_key(&session[j]) {
                *found.entry(session[j]).or_default() += share(j);
            }
        }
        if exclude == ExcludeSeeds::Current {
            found.remove(&session[0]);
        }
        found
    }
}

/// A user views an item in the session that is open with an agent, or in a new one.
fn view_in_session(
    db: &TidalDb,
    clock: &ManualClock,
    (user, agent): (u64, &str),
    viewed: u64,
) -> u64 {
    clock.advance(Duration::from_secs(1));
    let session = db.current_or_start(user, agent, "default").expect("started");
    session.signal("view", item(viewed), 1.0, clock.now()).expect("written");
    session.detach().as_u64()
}

/// Views of a few users, some of whom go back, some of whom stay away for an hour; some in one of two
/// sessions at a time, some in none.
fn written(random: &mut Random, events: usize) -> (ManualClock, TidalDb, Plain) {
    let (clock, db) = ephemeral();
    let mut plain = Plain::default();
    let mut last: HashMap<u64, u64> = HashMap::new();
    for _ in 0..events {
        let user = random.below(6);
        if random.below(15) == 0 {
            clock.advance(Duration::from_secs(random.below(7_200)));
        }
        let near = last.get(&user).copied().unwrap_or(0) + random.below(7);
        let viewed = if random.below(4) == 0 { random.below(60) } else { near % 60 };
        last.insert(user, viewed);
        let session = match random.below(5) {
            0 => Some(view_in_session(&db, &clock, (user, "phone"), viewed)),
            1 => Some(view_in_session(&db, &clock, (user, "watch"), viewed)),
            _ => {
                view(&db, &clock, user, &[viewed]);
                None
            }
        };
        plain.view(Owner { user, session }, viewed, seconds(&clock));
    }
    (clock, db, plain)
}

fn seconds(clock: &ManualClock) -> f64 {
    clock.now().as_nanos() as f64 / 1e9
}

/// Each item has the score that it should have, and stands where the scores put it.
fn expect_the_best(items: &[Recommended], right: &BTreeMap<u64, f64>, what: &str) {
    let mut best: Vec<f64> = right.values().copied().collect();
    best.sort_by(|left, right| right.total_cmp(left));
    for (answered, best) in items.iter().zip(best) {
        let score = right.get(&answered.item.get()).copied();
        let score = score.unwrap_or_else(|| panic!("{:?} in {what}", answered.item));
        let close = |x: f64| (answered.score - x).abs() <= 1e-8;
        assert!(close(score) && close(best), "{answered:?} is {score}, {best}: {what}");
    }
}

#[test]
fn both_methods_answer_what_the_formulas_say() {
    let mut random = Random::new(Random::seed_from("TIDAL_SEED"));
    for _ in 0..8 {
        let events = 30 + random.below(400) as usize;
        let (clock, db, plain) = written(&mut random, events);
        clock.advance(Duration::from_secs(random.below(100_000)));
        for _ in 0..40 {
            let len = 1 + random.below(30);
            let session: Vec<u64> = (0..len).map(|_| random.below(60)).collect();
            let method = [Method::Edges, Method::Sessions][random.below(2) as usize];
            let excludes = [ExcludeSeeds::None, ExcludeSeeds::Current, ExcludeSeeds::All];
            let exclude = excludes[random.below(3) as usize];
            let k = 1 + random.below(30) as usize;
            let right = plain.scores(&session, k, method, exclude, seconds(&clock));
            let asked: Vec<EntityId> = session.iter().copied().map(item).collect();
            let options = RecommendOptions::new().method(method).exclude_seeds(exclude);
            let answer = db.recommend(&asked, k, &options).expect("an answer");
            let what = format!("{session:?} {method:?} {exclude:?} k {k}: {answer:?}");
            assert_eq!(answer.items.len(), k.min(right.len()), "{what}");
            expect_the_best(&answer.items, &right, &what);
        }
    }
}

#[test]
fn what_a_user_did_in_sessions_and_outside_leads_to_what_the_formulas_say() {
    let mut random = Random::new(Random::seed_from("TIDAL_SEED"));
    for _ in 0..8 {
        let (clock, db, plain) = written(&mut random, 60);
        for (user, method) in
            (0..6).flat_map(|user| [(user, Method::Edges), (user, Method::Sessions)])
        {
            let touched = plain.touched(user);
            if touched.iter().collect::<HashSet<_>>().len() < 3 {
                // Some places go to what is hot.
                continue;
            }
            let right = plain.scores(&touched, 5, method, ExcludeSeeds::All, seconds(&clock));
            let options = RecommendOptions::new().method(method);
            let answer = db.for_user(user, 5, &options).expect("an answer");
            let what = format!("user {user} {method:?}: {answer:?}, {touched:?}");
            expect_the_best(&answer.items, &right, &what);
            assert!(answer.items.len() >= right.len().min(5), "{what}");
        }
    }
}

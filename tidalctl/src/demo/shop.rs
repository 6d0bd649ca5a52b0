//! A month of a shop, made up from a seed.
//!
//! Knows: customers and what they do. Must not know: that anybody stores it.

use super::names::item_name;
use super::popularity::{Popularity, session_views};
use super::rng::Rng;

/// Midnight before the first day, 2026-06-01, in seconds since the epoch.
const START_S: u64 = 1_780_272_000;
const DAY_S: u64 = 86_400;
const DAYS: u64 = 30;
const END_S: u64 = START_S + DAYS * DAY_S;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Where customers live, with percentages.
pub(crate) const COUNTRIES: [(&str, u64); 8] =
    [("GB", 34), ("DE", 18), ("FR", 16), ("NL", 9), ("ES", 8), ("IT", 7), ("US", 5), ("BR", 3)];

/// How busy each hour of the day is, in percent of the busiest.
const HOURS: [u64; 24] =
    [20, 12, 8, 6, 6, 8, 15, 28, 42, 55, 64, 70, 74, 70, 66, 66, 70, 76, 84, 94, 100, 92, 66, 38];

/// Items that take off in the last day.
const TRENDING: usize = 5;
/// The share of the last day's views that go to them.
const TRENDING_SHARE: f64 = 0.06;
/// The share of views that follow the taste of the customer's country.
const LOCAL_SHARE: f64 = 0.25;
/// How far one country's favourites are shifted from the next one's, in ranks.
const LOCAL_SHIFT: usize = 37;
/// The share of events that reach the log late, and by how much at most.
const LATE_SHARE: f64 = 0.1;
const LATE_S_MAX: u64 = 600;

/// What a customer does with an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    View,
    Cart,
    Purchase,
    Return,
}

impl Action {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [Self; 4] = [Self::View, Self::Cart, Self::Purchase, Self::Return];

    /// The signal's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Cart => "cart",
            Self::Purchase => "purchase",
            Self::Return => "return",
        }
    }
}

/// One line of the log. Its position in the log is its index plus 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShopEvent {
    pub(crate) at_ns: u64,
    pub(crate) item: u32,
    pub(crate) user: u32,
    pub(crate) action: Action,
}

/// The whole log and who is in it.
#[derive(Debug)]
pub(crate) struct Shop {
    /// Names of the items.
    pub(crate) items: Vec<String>,
    /// Index into [`COUNTRIES`] for each user.
    pub(crate) users: Vec<u8>,
    /// Items that take off in the last day.
    pub(crate) trending: Vec<u32>,
    /// In the order in which they reach the log.
    pub(crate) events: Vec<ShopEvent>,
}

impl Shop {
    /// The shop of this seed, with exactly `event_count` events.
    pub(crate) fn generate(seed: u64, event_count: usize) -> Self {
        let mut rng = Rng::new(seed);
        let item_count = (event_count / 40).clamp(100, 10_000);
        let user_count = (event_count / 40).clamp(50, 10_000);
        let users = (0..user_count).map(|_| draw_country(&mut rng)).collect();
        // Items of middling popularity: on the last day they leave the crowd behind.
        let middle = (item_count / 10) as u64;
        let first = middle + rng.below(middle);
        let trending =
            (0..TRENDING as u64).map(|nth| (first + nth * (middle - 3)) as u32).collect();
        let shop = Self {
            items: (0..item_count).map(item_name).collect(),
            users,
            trending,
            events: Vec::new(),
        };
        let events = shop.log(&mut rng, event_count);
        Self { events, ..shop }
    }

    /// Sessions until there are `event_count` events, in order of arrival.
    fn log(&self, rng: &mut Rng, event_count: usize) -> Vec<ShopEvent> {
        let popularity = Popularity::new(self.items.len());
        let mut arrivals: Vec<(u64, ShopEvent)> = Vec::with_capacity(event_count + 1_000);
        while arrivals.len() < event_count {
            self.session(rng, &popularity, &mut arrivals);
        }
        // Cut before sorting: the surplus belongs to one session, not to the last hours.
        arrivals.truncate(event_count);
        arrivals.sort_by_key(|(arrival_ns, event)| (*arrival_ns, event.user, event.item));
        arrivals.into_iter().map(|(_, event)| event).collect()
    }

    fn session(
        &self,
        rng: &mut Rng,
        popularity: &Popularity,
        arrivals: &mut Vec<(u64, ShopEvent)>,
    ) {
        let user = rng.below(self.users.len() as u64) as u32;
        let mut at_s = draw_start(rng);
        for _ in 0..session_views(rng) {
            let item = self.draw_item(rng, popularity, user, at_s);
            let mut act = |rng: &mut Rng, at_s: u64, action: Action| {
                if at_s < END_S {
                    arrivals.push(arrive(rng, at_s, ShopEvent { at_ns: 0, item, user, action }));
                }
            };
            act(rng, at_s, Action::View);
            if rng.chance(0.09) {
                at_s += rng.between(5, 60);
                act(rng, at_s, Action::Cart);
                if rng.chance(0.45) {
                    at_s += rng.between(30, 240);
                    act(rng, at_s, Action::Purchase);
                    if rng.chance(0.08) {
                        let days_later = rng.between(2 * DAY_S, 10 * DAY_S);
                        act(rng, at_s + days_later, Action::Return);
                    }
                }
            }
            at_s += rng.between(5, 180);
        }
    }

    fn draw_item(&self, rng: &mut Rng, popularity: &Popularity, user: u32, at_s: u64) -> u32 {
        if at_s >= END_S - DAY_S && rng.chance(TRENDING_SHARE) {
            return self.trending[rng.below(TRENDING as u64) as usize];
        }
        let mut item = popularity.draw(rng);
        if rng.chance(LOCAL_SHARE) {
            let country = usize::from(self.users[user as usize]);
            item = (item + (country + 1) * LOCAL_SHIFT) % self.items.len();
        }
        item as u32
    }
}

/// The event with a time within its second, and when the log learns of it.
fn arrive(rng: &mut Rng, at_s: u64, event: ShopEvent) -> (u64, ShopEvent) {
    let at_ns = at_s * NANOS_PER_SECOND + rng.below(NANOS_PER_SECOND);
    let late_s = if rng.chance(LATE_SHARE) { rng.below(LATE_S_MAX) } else { 0 };
    (at_ns + late_s * NANOS_PER_SECOND, ShopEvent { at_ns, ..event })
}

fn draw_start(rng: &mut Rng) -> u64 {
    loop {
        let at_s = rng.below(DAYS * DAY_S);
        let hour = (at_s % DAY_S / 3_600) as usize;
        if rng.below(100) < HOURS[hour] {
            return START_S + at_s;
        }
    }
}

fn draw_country(rng: &mut Rng) -> u8 {
    let mut at = rng.below(100);
    for (country, (_, percent)) in (0u8..).zip(COUNTRIES) {
        if at < percent {
            return country;
        }
        at -= percent;
    }
    unreachable!("the percentages add up to 100, which a test checks")
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: usize = 200_000;

    /// The share of views that go to the most viewed hundredth and tenth of the items.
    fn skew(shop: &Shop) -> (f64, f64) {
        let mut views = vec![0u64; shop.items.len()];
        for event in shop.events.iter().filter(|event| event.action == Action::View) {
            views[event.item as usize] += 1;
        }
        views.sort_unstable_by(|left, right| right.cmp(left));
        let total: u64 = views.iter().sum();
        let share = |items: usize| views[..items].iter().sum::<u64>() as f64 / total as f64;
        (share(views.len() / 100), share(views.len() / 10))
    }

    #[test]
    fn the_same_seed_makes_the_same_log_and_another_seed_another() {
        let (one, again, other) =
            (Shop::generate(5, 5_000), Shop::generate(5, 5_000), Shop::generate(6, 5_000));
        assert_eq!(one.events, again.events);
        assert_eq!((&one.users, &one.trending), (&again.users, &again.trending));
        assert_ne!(one.events, other.events);
        assert_eq!(one.events.len(), 5_000);
    }

    #[test]
    fn views_are_skewed_as_in_real_shops() {
        for seed in 1..=3 {
            let (hundredth, tenth) = skew(&Shop::generate(seed, EVENTS));
            assert!((0.8 * 0.09..=1.2 * 0.11).contains(&hundredth), "top 1 %: {hundredth}");
            assert!((0.8 * 0.35..=1.2 * 0.50).contains(&tenth), "top 10 %: {tenth}");
        }
    }

    #[test]
    fn the_log_spans_the_month_and_a_tenth_arrives_out_of_order() {
        let shop = Shop::generate(2, EVENTS);
        let mut newest_ns = 0;
        let mut late = 0;
        for event in &shop.events {
            late += usize::from(event.at_ns < newest_ns);
            newest_ns = newest_ns.max(event.at_ns);
            assert!((START_S..END_S).contains(&(event.at_ns / NANOS_PER_SECOND)));
        }
        let late = late as f64 / EVENTS as f64;
        assert!((0.05..0.15).contains(&late), "late: {late}");
        assert!(newest_ns > (END_S - 3_600) * NANOS_PER_SECOND, "ends at {newest_ns}");
        assert!(shop.events[0].at_ns < (START_S + 3_600) * NANOS_PER_SECOND);
    }

    #[test]
    fn each_action_is_rarer_than_the_one_it_follows() {
        let shop = Shop::generate(2, EVENTS);
        let counts = Action::ALL
            .map(|action| shop.events.iter().filter(|event| event.action == action).count());
        assert!(counts[3] > 0, "{counts:?}");
        assert!(counts.is_sorted_by(|before, after| before > after), "{counts:?}");
    }

    #[test]
    fn the_trending_items_are_distinct_and_take_off_on_the_last_day_only() {
        for events in [1_000, EVENTS] {
            let shop = Shop::generate(4, events);
            let mut distinct = shop.trending.clone();
            distinct.dedup();
            assert_eq!(distinct.len(), TRENDING);
            assert!(shop.trending.iter().all(|&item| (item as usize) < shop.items.len()));
        }
        let shop = Shop::generate(4, EVENTS);
        for &item in &shop.trending {
            let views_on = |day: u64| {
                let from_ns = (END_S - (day + 1) * DAY_S) * NANOS_PER_SECOND;
                let day = from_ns..from_ns + DAY_S * NANOS_PER_SECOND;
                shop.events
                    .iter()
                    .filter(|event| event.item == item && event.action == Action::View)
                    .filter(|event| day.contains(&event.at_ns))
                    .count()
            };
            assert!(views_on(0) > 5 * (views_on(1) + 1), "{} {}", views_on(0), views_on(1));
        }
    }

    #[test]
    fn percentages_of_countries_add_up() {
        assert_eq!(COUNTRIES.iter().map(|(_, percent)| percent).sum::<u64>(), 100);
    }
}

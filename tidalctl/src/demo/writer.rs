//! The writer: stores the shop's log and says what was acknowledged. It expects to be killed.
//!
//! Knows: batches of the shop's log. Must not know: when it dies.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use super::shop::{COUNTRIES, Shop};
use crate::cli::{ClockSource, DemoWriterArgs};
use crate::engine::{Engine, EventBatch, NewEvent, Pending};
use crate::ingest::plan::{Layout, SchemaPlan};
use crate::print;
use crate::value::Span;

/// The name under which positions of the shop's log are stored.
pub(crate) const SOURCE: &str = "shop-log";
/// The attribute of users that makes them cohorts.
const ATTRIBUTE: &str = "country";
/// Batches that are written before the first of them is acknowledged.
const IN_FLIGHT: usize = 4;

/// What the writer says, one line each, on its standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acknowledged {
    /// All users, this many.
    Users(u64),
    /// The events through this position.
    Events(u64),
}

impl Acknowledged {
    fn line(self) -> String {
        match self {
            Self::Users(count) => format!("users {count}\n"),
            Self::Events(last) => format!("events {last}\n"),
        }
    }

    /// Reads a line back. `None` for half a line, which the kill may leave.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (what, number) = line.strip_suffix('\n')?.split_once(' ')?;
        let number = number.parse().ok()?;
        match what {
            "users" => Some(Self::Users(number)),
            "events" => Some(Self::Events(number)),
            _ => None,
        }
    }
}

/// The child process: everything, from the start.
///
/// # Errors
///
/// When the engine fails or the parent has gone.
pub(crate) fn run(args: &DemoWriterArgs) -> anyhow::Result<()> {
    let shop = Shop::generate(args.seed, usize::try_from(args.events)?);
    let engine = create(&args.dir)?;
    write_users(&engine, &shop)?;
    print::out(&Acknowledged::Users(shop.users.len() as u64).line())?;
    let names: Vec<&str> = shop.items.iter().map(String::as_str).collect();
    let items = engine.intern(&names)?;
    write_events(&engine, &shop, &items, 0, |last| {
        Ok(print::out(&Acknowledged::Events(last).line())?)
    })?;
    engine.close()
}

fn create(dir: &Path) -> anyhow::Result<Engine> {
    let names = super::shop::Action::ALL.map(|action| action.name().to_owned());
    let layout = Layout {
        signals: names.to_vec(),
        engaging: Vec::new(),
        half_lives: vec![Duration::from_secs(86_400)],
        windows: vec![Span::Hour, Span::Day, Span::Week, Span::Month, Span::All],
        families: vec![(ATTRIBUTE.to_owned(), 256)],
    };
    Engine::open_or_create(dir, &SchemaPlan::Declared(layout), Some(ClockSource::Event))
}

/// Queues all users before it waits for the first: they share syncs.
fn write_users(engine: &Engine, shop: &Shop) -> anyhow::Result<()> {
    let submit = |(user, &country): (u64, &u8)| {
        let (country, _) = COUNTRIES[usize::from(country)];
        engine.submit_user(user, ATTRIBUTE, country)
    };
    let pending: Vec<Pending> = (0u64..).zip(&shop.users).map(submit).collect::<Result<_, _>>()?;
    for user in pending {
        user.wait()?;
    }
    Ok(())
}

/// Writes the events after position `stored`; tells `on_ack` the last position of each batch.
///
/// # Errors
///
/// When the engine fails, or `on_ack` does.
pub(crate) fn write_events(
    engine: &Engine,
    shop: &Shop,
    items: &[u64],
    stored: u64,
    mut on_ack: impl FnMut(u64) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let batch_len = (shop.events.len() / 200).clamp(1, 1_000);
    let mut last = stored;
    let mut in_flight: VecDeque<(u64, Pending)> = VecDeque::with_capacity(IN_FLIGHT);
    let mut settle = |(last, pending): (u64, Pending)| {
        pending.wait()?;
        on_ack(last)
    };
    for events in shop.events[usize::try_from(stored)?..].chunks(batch_len) {
        let first = last + 1;
        last += events.len() as u64;
        let mut batch = EventBatch::from_source(SOURCE, first, last);
        for event in events {
            batch.push(&NewEvent {
                signal: event.action.name(),
                item: items[event.item as usize],
                at_ns: event.at_ns,
                weight: 1.0,
                user: Some(event.user.into()),
                cohort: None,
                event_id: None,
            });
        }
        if in_flight.len() == IN_FLIGHT
            && let Some(oldest) = in_flight.pop_front()
        {
            settle(oldest)?;
        }
        in_flight.push_back((last, engine.submit(batch)?));
    }
    in_flight.into_iter().try_for_each(settle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_read_back_and_half_a_line_says_nothing() {
        for said in [Acknowledged::Users(7), Acknowledged::Events(12_000)] {
            assert_eq!(Acknowledged::parse(&said.line()), Some(said));
        }
        for line in ["", "\n", "events 12", "events \n", "events x\n", "sync 5\n"] {
            assert_eq!(Acknowledged::parse(line), None, "{line:?}");
        }
    }
}

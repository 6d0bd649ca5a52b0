//! What is recommended, seen from outside: formulas against a plain reference, what is kept out, what
//! stands in, reasons, one position for all of an answer.

mod answers;
mod quality;
mod reference;
mod stand_ins;

use std::sync::Arc;
use std::time::Duration;

use tidaldb::schema::{
    CoEngagement, DecaySpec, EntityId, EntityKind, Schema, SchemaBuilder, Timestamp, Window,
};
use tidaldb::{Batch, Clock, Event, ManualClock, RecommendOptions, Recommendations, TidalDb};

const DAY: Duration = Duration::from_secs(86_400);
const START: Timestamp = Timestamp::from_secs(1_700_000_123);

fn schema() -> Schema {
    let mut b = SchemaBuilder::new();
    let decay = DecaySpec::Exponential { half_life: DAY };
    let _ = b
        .signal("view", EntityKind::Item, decay)
        .windows(&[Window::OneHour])
        .velocity(true)
        .engaging()
        .add();
    let _ = b.signal("skip", EntityKind::Item, decay).add();
    b.co_engagement(CoEngagement::default()).cohort_family("country", 10);
    b.build().expect("a sound schema")
}

fn ephemeral() -> (ManualClock, TidalDb) {
    let clock = ManualClock::at(START);
    let builder = TidalDb::builder().ephemeral().with_schema(schema());
    let db = builder.with_clock(Arc::new(clock.clone())).open().expect("opens");
    (clock, db)
}

fn item(n: u64) -> EntityId {
    EntityId::new(n)
}

fn items(answer: &Recommendations) -> Vec<u64> {
    answer.items.iter().map(|recommended| recommended.item.get()).collect()
}

/// A user views items, one after the other.
fn view(db: &TidalDb, clock: &ManualClock, user: u64, viewed: &[u64]) {
    let mut batch = Batch::new();
    for &n in viewed {
        clock.advance(Duration::from_secs(1));
        batch.push(Event::new("view", item(n), clock.now()).user(user));
    }
    db.write(batch).expect("written");
}

fn recommend(db: &TidalDb, session: &[u64], options: &RecommendOptions) -> Vec<u64> {
    let session: Vec<EntityId> = session.iter().copied().map(item).collect();
    items(&db.recommend(&session, 20, options).expect("an answer"))
}

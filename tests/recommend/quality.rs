//! How well the clicks of a real shop are foretold: less than `docs/quality.md` says is a failure.

use std::collections::HashMap;

use tidal_support::logs;
use tidaldb::co_engagement::Method;
use tidaldb::{Options, TimeSource};

use super::*;

struct Click {
    session: u64,
    item: u64,
    at: Timestamp,
}

/// In order of time; those of one moment in the order of their lines.
fn clicks(file: &str) -> Option<Vec<Click>> {
    let text = std::fs::read_to_string(logs::find(file)?).expect("the log is read");
    let mut clicks: Vec<Click> = text
        .lines()
        .skip(1)
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            let seconds: f64 = fields[2].parse().expect("a time");
            Click {
                session: fields[0].parse().expect("a session"),
                item: fields[1].parse().expect("an item"),
                at: Timestamp::from_nanos((seconds * 1e3).round() as u64 * 1_000_000),
            }
        })
        .collect();
    clicks.sort_by_key(|click| click.at);
    Some(clicks)
}

fn learnt(clicks: &[Click]) -> TidalDb {
    let mut settings = CoEngagement::default();
    settings.trail_idle = 365 * DAY;
    let mut b = SchemaBuilder::new();
    let decay = DecaySpec::Exponential { half_life: DAY };
    let _ = b.signal("view", EntityKind::Item, decay).engaging().add();
    b.co_engagement(settings);
    let db = TidalDb::builder()
        .ephemeral()
        .with_options(Options::default())
        .with_time_source(TimeSource::Events)
        .with_schema(b.build().expect("a sound schema"))
        .open()
        .expect("opens");
    for clicks in clicks.chunks(1_000) {
        let mut batch = Batch::new();
        for click in clicks {
            batch.push(Event::new("view", item(click.item), click.at).user(click.session));
        }
        db.write(batch).expect("written");
    }
    db
}

/// Hit rate and mean reciprocal rank at 20, the current item excluded.
fn quality(db: &TidalDb, clicks: &[Click], method: Method) -> (f64, f64) {
    let mut later: HashMap<u64, u64> = HashMap::new();
    let mut next: Vec<Option<u64>> =
        clicks.iter().rev().map(|click| later.insert(click.session, click.item)).collect();
    next.reverse();
    let mut sessions: HashMap<u64, Vec<EntityId>> = HashMap::new();
    let (mut hits, mut ranks, mut predictions) = (0.0, 0.0, 0.0);
    for (click, next) in clicks.iter().zip(next) {
        let session = sessions.entry(click.session).or_default();
        session.push(item(click.item));
        let Some(next) = next else { continue };
        let options = RecommendOptions::new().method(method).now(click.at.max(db.engine_time()));
        let answer = items(&db.recommend(session, 20, &options).expect("an answer"));
        predictions += 1.0;
        if let Some(at) = answer.iter().position(|&answered| answered == next) {
            hits += 1.0;
            ranks += 1.0 / (at + 1) as f64;
        }
    }
    (hits / predictions, ranks / predictions)
}

#[test]
fn the_clicks_of_a_shop_are_foretold_as_well_as_documented() {
    let (Some(train), Some(valid)) = (clicks("serenade/train.txt"), clicks("serenade/valid.txt"))
    else {
        return;
    };
    let db = learnt(&train);
    for method in [Method::Edges, Method::Sessions] {
        let (hit_rate, reciprocal_rank) = quality(&db, &valid, method);
        println!("{method:?}: HR@20 {hit_rate:.4}, MRR@20 {reciprocal_rank:.4}");
        assert!(hit_rate >= 0.730 && reciprocal_rank >= 0.379, "{method:?}");
    }
    assert!(db.verify().expect("verified").is_sound());
}

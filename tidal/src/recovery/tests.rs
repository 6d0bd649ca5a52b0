//! What an open refuses.

use super::*;
use crate::clock::ManualClock;
use crate::schema::{DecaySpec, EntityKind, SchemaBuilder};
use crate::wal::FrameBody;

fn wanted() -> Wanted {
    let mut schema = SchemaBuilder::new();
    let _ = schema.signal("view", EntityKind::Item, DecaySpec::None).add();
    Wanted {
        schema: Some(schema.build().expect("sound")),
        time_source: None,
        clock: Arc::new(ManualClock::at(Timestamp::from_secs(1_700_000_000))),
        options: Options::default(),
        sessions: SessionConfig::default(),
        machine: Machine::default(),
    }
}

#[test]
fn a_record_that_this_version_does_not_know_is_refused_and_not_passed_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let Recovered { mut journal, mut stamper, .. } = open(dir.path(), &wanted()).expect("new");
    let body = FrameBody::new(u8::MAX, 1, b"of a later version".to_vec()).expect("small");
    let seq = journal.append(stamper.stamp_control(), &body);
    journal.write_group().expect("written");
    journal.sync().expect("synced");
    drop(journal);
    for _ in 0..2 {
        let refused = open(dir.path(), &wanted()).map(drop).expect_err("it is not understood");
        assert!(refused.to_string().contains(&format!("frame {seq}")), "{refused}");
    }
}

//! What an open refuses.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::clock::ManualClock;
use crate::schema::{DecaySpec, EntityKind, SchemaBuilder};
use crate::storage::{EachPair, OpenFailure, RealDisk, StorageEngine, Stores, WriteOp};
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

/// Stores that take a while to close, as fjall's do: their threads end first.
#[derive(Debug, Default)]
struct Slow {
    closing: Arc<AtomicBool>,
    closed: Arc<AtomicBool>,
}

struct SlowStore {
    closing: Arc<AtomicBool>,
    closed: Arc<AtomicBool>,
}

impl Drop for SlowStore {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(300));
        self.closed.store(true, Ordering::SeqCst);
    }
}

impl StorageEngine for SlowStore {
    fn get(&self, _: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn scan_from(&self, _: &[u8], _: &[u8], _: &mut EachPair<'_>) -> Result<()> {
        Ok(())
    }

    fn write_batch(&self, _: Vec<WriteOp>) -> Result<()> {
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }
}

impl Stores for Slow {
    fn create(&self, disk: &dyn Disk, path: &Path) -> Result<Arc<dyn StorageEngine>> {
        disk.create_dir(path).map_err(|e| Error::io("create", path, e))?;
        let (closing, closed) = (Arc::clone(&self.closing), Arc::clone(&self.closed));
        Ok(Arc::new(SlowStore { closing, closed }))
    }

    fn open(&self, disk: &dyn Disk, path: &Path) -> Result<Arc<dyn StorageEngine>, OpenFailure> {
        self.create(disk, path).map_err(OpenFailure::Unavailable)
    }
}

#[test]
fn a_store_is_moved_and_opened_again_only_when_it_has_closed() {
    for is_replaced in [true, false] {
        let dir = tempfile::tempdir().expect("a directory");
        let stores = Arc::new(Slow::default());
        let (closing, closed) = (Arc::clone(&stores.closing), Arc::clone(&stores.closed));
        let machine = Machine { stores, disk: Arc::new(RealDisk), ..Machine::default() };
        let place = Place::open(machine, dir.path()).expect("a place");
        let keeper = StoreKeeper::new(&place);
        let engine = keeper.replace(StoreSlot::A).expect("made");
        let closes = std::thread::spawn(move || drop(engine));
        while !closing.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        let _again = match is_replaced {
            true => keeper.replace(StoreSlot::A).expect("replaced"),
            false => keeper.reopen(StoreSlot::A).expect("opened").expect("it opens"),
        };
        assert!(closed.load(Ordering::SeqCst), "replaced: {is_replaced}");
        closes.join().expect("no panic");
    }
}

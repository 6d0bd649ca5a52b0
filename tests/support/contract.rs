//! What must hold after any crash, and databases on simulated machines to hold to it.

use std::path::Path;

use tidaldb::fault::Faults;
use tidaldb::storage::Machine;
use tidaldb::{Options, Result, TidalDb};

use crate::hex;
use crate::operations::{apply, builder, ephemeral, is_synced, survived};
use crate::random::Random;
use crate::sim::{SimDisk, SimStores, Survives};

/// Where the database lies on a simulated disk.
pub const PLACE: &str = "/db";

/// The digest after each number of operations of a seed, by a database that never crashed.
#[derive(Debug)]
pub struct Digests {
    seed: u64,
    after: Vec<[u8; 32]>,
    reference: TidalDb,
}

impl Digests {
    /// The digests of a seed.
    pub fn of(seed: u64) -> Self {
        let reference = ephemeral();
        assert_eq!(survived(&reference), 0, "operations are counted from the first");
        let mut digests = Self { seed, after: Vec::new(), reference };
        digests.look();
        digests
    }

    fn look(&mut self) {
        self.after.push(self.reference.state_digest().expect("the reference has a digest"));
    }

    /// Brings the reference to `count` operations.
    pub fn reach(&mut self, count: u64) {
        while (self.after.len() as u64) <= count {
            let next = self.after.len() as u64 - 1;
            apply(&self.reference, self.seed, next..next + 1, &mut |_| ());
            self.look();
        }
    }

    /// The digest after `count` operations, which were reached.
    pub fn after(&self, count: u64) -> [u8; 32] {
        self.after[usize::try_from(count).expect("few operations")]
    }

    /// How many operations were reached.
    pub fn reached(&self) -> u64 {
        self.after.len() as u64 - 1
    }
}

/// How many operations a caller was told are safe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Acknowledged {
    /// From the death of the process.
    pub written: u64,
    /// From a power cut.
    pub synced: u64,
}

impl Acknowledged {
    /// Operation `i` is acknowledged, and so is all before it.
    pub fn add(&mut self, seed: u64, i: u64) {
        self.written = self.written.max(i + 1);
        if is_synced(seed, i) {
            self.synced = self.synced.max(i + 1);
        }
    }

    /// Everything so far is synced.
    pub const fn sync(&mut self) {
        self.synced = self.written;
    }

    /// How many must be there after a reboot.
    pub const fn after(self, survives: Survives) -> u64 {
        match survives {
            Survives::Everything => self.written,
            Survives::Nothing | Survives::Some(_) => self.synced,
        }
    }

    /// Both in one number, for [`SimDisk::note`].
    pub const fn to_note(self) -> u64 {
        self.written << 32 | self.synced
    }

    /// From [`to_note`](Self::to_note).
    pub const fn from_note(note: u64) -> Self {
        Self { written: note >> 32, synced: note & 0xffff_ffff }
    }
}

/// Opens the database on a simulated disk.
pub fn open_on(disk: &SimDisk, options: Options, faults: Faults) -> Result<TidalDb> {
    let stores = std::sync::Arc::new(SimStores::on(disk.clone()));
    let machine = Machine { disk: disk.shared(), stores, faults };
    builder(options).with_data_dir(PLACE).with_machine(machine).open()
}

/// Where a store lies on a simulated disk.
pub fn store_path(name: &str) -> std::path::PathBuf {
    Path::new(PLACE).join("store").join(name)
}

/// Asserts the promise: the state is that after some number of operations, and all that were
/// acknowledged are among them; everything verifies. Returns the number.
///
/// # Panics
///
/// When the promise is broken.
pub fn assert_prefix(db: &TidalDb, digests: &Digests, least: u64, what: &str) -> u64 {
    let there = survived(db);
    let report = db.open_report();
    assert!(there >= least, "{least} were acknowledged, {there} are there: {what}\n{report}");
    assert!(there <= digests.reached(), "{there} are there, more than ever were: {what}\n{report}");
    let found = hex(&db.state_digest().expect("a digest"));
    assert_eq!(found, hex(&digests.after(there)), "after {there} operations: {what}\n{report}");
    let verified = db.verify().expect("verified");
    assert!(verified.is_sound(), "{what}\n{report}\n{verified}");
    there
}

/// One of the ways in which a reboot may treat what was not synced.
pub fn any_survival(random: &mut Random) -> Survives {
    match random.below(4) {
        0 => Survives::Everything,
        1 => Survives::Nothing,
        _ => Survives::Some(random.next_u64()),
    }
}

//! What operators do, with the program itself on databases that lie on the disk.
//!
//! - `sessions`, `plans`, `exports`, `backups`, `health`, `ingests`: the commands of those names; `opening`: `inspect`;
//! - `serving`: `serve`, over real sockets;
//! - `parquet`: exports of that format, in a build that has it;
//! - `papers`: what the papers tell operators to run;
//! - `surface`: help, completions, and what is wrong on every command line.

mod backups;
mod exports;
mod health;
mod ingests;
mod opening;
mod papers;
#[cfg(feature = "parquet")]
mod parquet;
mod plans;
mod serving;
mod sessions;
mod surface;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tidaldb::schema::{DecaySpec, EntityId, EntityKind, SchemaBuilder, Timestamp};
use tidaldb::{ManualClock, Runtime, SessionConfig, SessionId, TidalDb};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// What the program said.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    /// What it wrote, as JSON.
    fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// What it wrote, after it has succeeded.
    fn text(&self) -> &str {
        assert_eq!(self.code, 0, "{self:?}");
        &self.out
    }

    /// What it complained of: one line of error, with this in it, and no output.
    fn refuses(&self, code: i32, about: &str) {
        assert_eq!((self.code, self.out.as_str()), (code, ""), "{self:?}");
        assert!(self.err.starts_with("error: ") && self.err.contains(about), "{self:?}");
    }
}

/// The program with these words, `DIR` being the directory of the database.
fn command(line: &str, dir: &Path) -> Command {
    let words = line.split_whitespace().map(|word| match word {
        "DIR" => dir.as_os_str().to_owned(),
        word => word.into(),
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidalctl"));
    command.args(words).current_dir(dir.parent().expect("in a temporary directory"));
    command
}

/// Runs it.
fn run(line: &str, dir: &Path) -> Said {
    let output = command(line, dir).output().expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it writes UTF-8");
    Said {
        code: output.status.code().expect("it ends by itself"),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// Every file below a directory, and what is in it.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in dir.read_dir().expect("a directory") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => drop(found.insert(path.clone(), std::fs::read(&path).expect("readable"))),
        }
    }
    found
}

/// One of the papers.
fn paper(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    std::fs::read_to_string(root.join(name)).expect("it is there")
}

fn builder(dir: &Path, clock: &ManualClock) -> tidaldb::Builder {
    let half_life = Duration::from_secs(3_600);
    let mut schema = SchemaBuilder::new();
    let _ = schema
        .signal("view", EntityKind::Item, DecaySpec::Exponential { half_life })
        .engaging()
        .add();
    let mut sessions = SessionConfig::default();
    sessions.runtime = Runtime::Manual;
    TidalDb::builder()
        .with_data_dir(dir)
        .with_schema(schema.build().expect("a schema"))
        .with_sessions(sessions)
        .with_clock(std::sync::Arc::new(clock.clone()))
}

/// A database that was left, with sessions of all sorts.
struct Scene {
    _temporary: TempDir,
    dir: PathBuf,
    clock: ManualClock,
    /// Closed 40 days ago, of users 42 and 43.
    old: [SessionId; 2],
    /// Over 30 minutes ago, before the last operation; nobody has noticed. Of user 44.
    overlooked: SessionId,
    /// Over 2 minutes ago, after the last operation. Of user 45.
    expired: SessionId,
    /// Open; of user 46.
    open: SessionId,
}

impl Scene {
    fn new() -> Self {
        let temporary = tempfile::tempdir().expect("a temporary directory");
        let dir = temporary.path().join("shop.tidal");
        let now = Timestamp::now();
        let clock = ManualClock::at(now.saturating_sub(40 * DAY));
        let db = builder(&dir, &clock).open().expect("opens");
        let old = [42, 43].map(|user| {
            let session = db.start_session(user, "phone", "default").expect("started");
            session.signal("view", EntityId::new(7), 1.0, Timestamp::EPOCH).expect("written");
            session.annotate(EntityId::new(7), "two\nlines").expect("written");
            let id = session.session_id();
            session.close().expect("closed");
            id
        });
        let start = |user: u64, later: Duration| {
            clock.advance(later);
            db.start_session(user, "assistant", "default").expect("started").session_id()
        };
        let overlooked = start(44, 40 * DAY - 60 * MINUTE);
        let expired = start(45, 28 * MINUTE);
        let open = start(46, 27 * MINUTE);
        db.close().expect("closed");
        Self { _temporary: temporary, dir, clock, old, overlooked, expired, open }
    }

    /// As the service has it.
    fn open_it(&self) -> TidalDb {
        builder(&self.dir, &self.clock).open().expect("opens")
    }

    fn run(&self, line: &str) -> Said {
        run(line, &self.dir)
    }

    /// A path beside the database.
    fn beside(&self, name: &str) -> PathBuf {
        self.dir.with_file_name(name)
    }

    /// Runs a command that only looks, and sees to it that it did.
    fn look(&self, line: &str) -> Said {
        let before = files(&self.dir);
        let said = self.run(line);
        assert!(files(&self.dir) == before, "{line} changed the database");
        said
    }

    fn ids(&self) -> [SessionId; 5] {
        let [first, second] = self.old;
        [first, second, self.overlooked, self.expired, self.open]
    }
}

fn ids_of(rows: &Value) -> Vec<String> {
    let rows = rows.as_array().expect("a list");
    rows.iter().map(|row| row["id"].as_str().expect("a number as text").to_owned()).collect()
}

fn texts(ids: &[SessionId]) -> Vec<String> {
    ids.iter().map(SessionId::to_string).collect()
}

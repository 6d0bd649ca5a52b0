//! A small shop whose processors hang when they are told to, so that there is something to be told of.
//!
//! Knows: a database, a clock that moves when it is told to, a processor without mercy. Must not know: who is
//! told, and how.

use std::error::Error;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidaldb::schema::{DecaySpec, EntityId, EntityKind, Schema, SchemaBuilder, Timestamp};
use tidaldb::{
    ManualClock, Outputs, ProcessError, Processed, ProcessorOptions, RunOptions, Runtime,
    SessionConfig, SessionId, SessionProcessor, SessionView, TidalDb,
};

/// What goes wrong in an example, for `main` to say.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// A database, and sessions in it that take too long.
pub(crate) struct Shop {
    pub(crate) db: Arc<TidalDb>,
    clock: ManualClock,
}

/// Longer than a session may be processed by default.
const TOO_LONG: Duration = Duration::from_secs(31 * 60);

/// How long a processor may take to be called.
const PATIENCE: Duration = Duration::from_secs(10);

/// Processors that hang: one for each session that is to be stuck at the same time.
const PROCESSORS: [&str; 3] = ["picky", "pickier", "pickiest"];

/// A processor that waits until it is let go, whatever the time is.
struct Hangs {
    name: &'static str,
    entered: SyncSender<()>,
    let_go: Mutex<Receiver<()>>,
}

impl SessionProcessor for Hangs {
    fn name(&self) -> &str {
        self.name
    }

    fn version(&self) -> u32 {
        1
    }

    fn process(
        &self,
        _: &SessionView<'_>,
        _: &mut Outputs<'_>,
    ) -> std::result::Result<Processed, ProcessError> {
        // When nobody listens any more the demonstration is over.
        let _ = self.entered.send(());
        let _ = self.let_go.lock().unwrap_or_else(PoisonError::into_inner).recv();
        Ok(Processed::default())
    }
}

impl Shop {
    /// Opens the database in the directory that the command line names, or one in memory.
    pub(crate) fn open() -> Result<Self> {
        let clock = ManualClock::at(Timestamp::now());
        let mut sessions = SessionConfig::default();
        // Time passes when the example says so; a real host leaves the threads to the database.
        sessions.runtime = Runtime::Manual;
        let builder = TidalDb::builder().with_schema(schema()?).with_sessions(sessions);
        let builder = builder.with_clock(Arc::new(clock.clone()));
        let db = match std::env::args_os().nth(1) {
            Some(dir) => builder.with_data_dir(PathBuf::from(dir)).open()?,
            None => builder.ephemeral().open()?,
        };
        Ok(Self { db: Arc::new(db), clock })
    }

    /// One session of each user ends, and takes too long to be processed: `meanwhile` is called when it does,
    /// and then a pass of the sweeper gives all of them up at once.
    pub(crate) fn let_time_out(
        &self,
        users: &[u64],
        meanwhile: impl FnOnce(),
    ) -> Result<Vec<SessionId>> {
        let db = &*self.db;
        let mut hanging = Vec::new();
        // They are there before the sessions are over, so these wait for them.
        for (_, name) in users.iter().zip(PROCESSORS) {
            let (let_go, gone) = sync_channel(1);
            let (entered, entries) = sync_channel(1);
            let processor = Hangs { name, entered, let_go: Mutex::new(gone) };
            db.sessions().register(processor, ProcessorOptions::default())?;
            hanging.push((name, entries, let_go));
        }
        let mut ids = Vec::new();
        for &user in users {
            let session = db.start_session(user, "shop", "default")?;
            session.signal("view", EntityId::new(user), 1.0, db.engine_time())?;
            ids.push(session.session_id());
            session.close()?;
        }
        std::thread::scope(|scope| {
            // Moved into the scope: whatever happens in it, nobody hangs for longer.
            let hanging = hanging;
            for (&id, &(name, ref entries, _)) in ids.iter().zip(&hanging) {
                let only = RunOptions::new().only(id);
                scope.spawn(move || db.sessions().run_processor(name, only));
                entries.recv_timeout(PATIENCE)?;
            }
            self.clock.advance(TOO_LONG);
            meanwhile();
            db.drive()?;
            drop(hanging);
            Ok::<(), Box<dyn Error + Send + Sync>>(())
        })?;
        PROCESSORS.iter().take(ids.len()).try_for_each(|name| db.sessions().unregister(name))?;
        Ok(ids)
    }
}

fn schema() -> tidaldb::Result<Schema> {
    let mut schema = SchemaBuilder::new();
    let _ = schema.signal("view", EntityKind::Item, DecaySpec::None).add();
    schema.build()
}

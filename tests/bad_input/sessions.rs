//! The same of sessions. What no state is needed for is refused before it is written; what the state
//! decides is in the log, refused, and changes nothing of the state.

use tidaldb::schema::{Lane, RateLimit, SessionPolicy};
use tidaldb::{
    EndCause, OnConflict, Runtime, SessionConfig, SessionHandle, SessionId, SessionSignal,
};

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn policies() -> [SessionPolicy; 2] {
    let [mut brief, mut chat] = ["brief", "chat"].map(SessionPolicy::new);
    (brief.idle_timeout, brief.empty_fallback) = (MINUTE, MINUTE);
    brief.signals = Some(vec!["view".to_owned()]);
    brief.rate_limit = Some(RateLimit { signals: 1, per: MINUTE });
    chat.late_grace = HOUR;
    [brief, chat]
}

fn with_policies(policies: impl IntoIterator<Item = SessionPolicy>) -> SchemaBuilder {
    let mut b = declared();
    for policy in policies {
        b.session_policy(policy);
    }
    b
}

fn config(on_conflict: OnConflict) -> SessionConfig {
    let mut config = SessionConfig::default();
    // Nothing comes between two looks at a position.
    (config.runtime, config.on_conflict) = (Runtime::Manual, on_conflict);
    config.annotation_size_bytes_max = 20;
    config.agent_size_bytes_max = 10;
    config
}

fn fixture(on_conflict: OnConflict) -> Fixture {
    let (dir, clock) = (tempfile::tempdir().expect("a directory"), ManualClock::at(START));
    let mut options = Options::default();
    options.mark_after = DAY;
    let schema = with_policies(policies()).build().expect("a sound schema");
    let builder = TidalDb::builder().with_data_dir(dir.path()).with_schema(schema);
    let builder = builder.with_options(options).with_sessions(config(on_conflict));
    let db = builder.with_clock(Arc::new(clock.clone())).open().expect("opens");
    Fixture { dir, clock, db }
}

impl Fixture {
    fn start(&self, user: u64, policy: &str) -> SessionHandle {
        self.db.start_session(user, "phone", policy).expect("started")
    }

    /// The error of a call that the state refuses: it is one frame of the log, and nothing else.
    fn refusal_in_log<T>(&self, call: impl FnOnce(&TidalDb) -> Result<T>) -> Error {
        let look = |db: &TidalDb| {
            let ids = (1..=db.status().operations).map(SessionId::new);
            let known = |id| db.sessions().get(id).expect("looked up");
            let known: Vec<_> = ids.filter_map(known).collect();
            (db.state_digest().expect("digest"), known)
        };
        let (before, applied) = (look(&self.db), self.db.applied().next());
        let Err(error) = call(&self.db) else { panic!("it was accepted") };
        assert_eq!(look(&self.db), before, "something was changed in spite of: {error}");
        assert_eq!(self.db.applied(), applied, "in the log it is: {error}");
        self.db.health_check().expect("and the engine goes on");
        error
    }
}

fn view() -> SessionSignal<'static> {
    SessionSignal::new("view", ITEM, START)
}

#[test]
fn what_no_state_decides_is_refused_before_it_is_written() {
    let f = fixture(OnConflict::EndPrevious);
    let refused = |error: Error, words: &[&str]| says(&error, ErrorKind::Invalid, words);
    refused(f.refusal(|db| db.start_session(1, "phone", "breif")), &["breif", "mean brief?"]);
    refused(f.refusal(|db| db.current_or_start(1, "phone", "")), &["session policy"]);
    refused(f.refusal(|db| db.start_session(1, "", "brief")), &["agent", "empty"]);
    let agent = "a".repeat(11);
    refused(f.refusal(|db| db.start_session(1, &agent, "brief")), &["agent", "11", "10"]);

    let held = f.start(1, "default");
    let long = "t".repeat(21);
    refused(f.refusal(|_| held.annotate(ITEM, &long)), &["annotation", "21", "20"]);
    refused(f.refusal(|_| held.signal_with(view().annotation(&long))), &["annotation", "21"]);
    refused(f.refusal(|db| db.sessions().end(held.session_id(), &long)), &["reason", "21"]);
    refused(f.refusal(|_| held.signal("veiw", ITEM, 1.0, START)), &["veiw", "did you mean view"]);
    for weight in [f64::NAN, f64::INFINITY, 1e300] {
        refused(f.refusal(|_| held.signal("view", ITEM, weight, START)), &["weight"]);
    }
    refused(f.refusal(|_| held.signal_with(view().retry_key(b""))), &["retry key", "empty"]);
    let ahead = START.saturating_add(Duration::from_secs(301));
    let error = f.refusal(|_| held.signal("view", ITEM, 1.0, ahead));
    assert!(matches!(error, Error::TooFarAhead { .. }), "{error}");
    let error = f.refusal(|db| db.sessions().append_late(SessionId::new(999), view()));
    assert!(matches!(error, Error::SessionNotFound(id) if id.as_u64() == 999), "{error}");
    says(&error, ErrorKind::Refused, &["999"]);

    held.annotate(ITEM, &long[1..]).expect("the limit is inclusive");
    f.db.start_session(1, &agent[1..], "brief").expect("the limit is inclusive").detach();
    held.close().expect("it is open all the time");
}

#[test]
fn what_a_policy_is_against_is_refused_and_changes_nothing() {
    let f = fixture(OnConflict::EndPrevious);
    let held = f.start(1, "brief");
    let error = f.refusal_in_log(|_| held.signal("purchase", ITEM, 1.0, START));
    says(&error, ErrorKind::Refused, &["brief", "purchase"]);
    held.signal_with(view().retry_key(b"one")).expect("allowed");
    let error = f.refusal_in_log(|_| held.signal("view", ITEM, 1.0, START));
    says(&error, ErrorKind::Refused, &["60000 ms"]);
    // What was there before is no error, and counts for nothing.
    let again = held.signal_with(view().retry_key(b"one")).expect("it is known");
    assert_eq!(again.duplicates, 1);
    let none = ReadOptions::new();
    let count = f.db.windowed_count(ITEM, "view", Window::AllTime, &none).expect("counted");
    assert_eq!(count, 1);
}

#[test]
fn a_handle_that_another_one_has_replaced_changes_nothing() {
    let f = fixture(OnConflict::EndPrevious);
    let old = f.start(1, "default");
    let new = f.db.resume_session(old.session_id()).expect("it is open");
    let fenced = |error: Error| {
        assert!(
            matches!(&error, Error::Fenced { held, current, .. }
                if *held == old.fence() && *current == new.fence()),
            "{error}"
        );
        says(&error, ErrorKind::Refused, &["resume"]);
    };
    fenced(f.refusal_in_log(|_| old.signal("view", ITEM, 1.0, START)));
    fenced(f.refusal_in_log(|_| old.annotate(ITEM, "note")));
    fenced(f.refusal_in_log(|_| old.heartbeat()));
    fenced(f.refusal_in_log(|_| old.extend(HOUR)));
    new.signal("view", ITEM, 1.0, START).expect("its holder writes on");
    let old = {
        let mut kept = None;
        let error = f.refusal_in_log(|_| {
            old.close().map_err(|refused| {
                kept = Some(refused.handle);
                refused.error
            })
        });
        says(&error, ErrorKind::Refused, &["fence"]);
        kept.expect("the handle comes back")
    };
    assert_eq!(old.session_id(), new.session_id());
    new.close().expect("its holder closes it");
}

#[test]
fn a_session_that_has_ended_is_left_as_it_is_whoever_ended_it() {
    let f = fixture(OnConflict::EndPrevious);
    let handles = [1, 2, 3, 4].map(|user| f.start(user, "brief"));
    let ids = handles.each_ref().map(SessionHandle::session_id);
    f.db.resume_session(ids[0]).expect("it is open").close().expect("it is open");
    f.db.sessions().end(ids[1], "enough").expect("it is open");
    let next = f.start(3, "brief");
    f.clock.advance(MINUTE + Duration::from_nanos(1));
    // The others have ended at their times all the same.
    f.db.signal("view", ITEM, 1.0, START).expect("time goes on");
    let causes = ids.map(|id| f.db.sessions().get(id).expect("looked up").expect("known"));
    let causes = causes.map(|info| info.state.end().expect("it has ended").cause.clone());
    assert_eq!(causes[0], EndCause::Closed);
    assert_eq!(causes[1], EndCause::Forced { reason: "enough".to_owned() });
    assert_eq!(causes[2], EndCause::Superseded { by: next.session_id() });
    assert_eq!(causes[3], EndCause::IdleTimeout);
    let ended = |error: Error| {
        assert!(matches!(error, Error::SessionEnded { .. }), "{error}");
        says(&error, ErrorKind::Refused, &["ended"]);
    };
    for handle in &handles {
        ended(f.refusal_in_log(|_| handle.signal("view", ITEM, 1.0, START)));
        ended(f.refusal_in_log(|_| handle.annotate(ITEM, "note")));
        ended(f.refusal_in_log(|_| handle.heartbeat()));
    }
    for id in ids {
        ended(f.refusal_in_log(|db| db.resume_session(id)));
        ended(f.refusal_in_log(|db| db.sessions().end(id, "again")));
        let late = f.refusal_in_log(|db| db.sessions().append_late(id, view()));
        assert!(matches!(late, Error::TooLate { .. }), "{late}");
    }
}

#[test]
fn late_signals_are_for_sessions_that_have_ended_within_their_grace() {
    let f = fixture(OnConflict::EndPrevious);
    let held = f.start(1, "chat");
    let id = held.session_id();
    let error = f.refusal_in_log(|db| db.sessions().append_late(id, view()));
    assert!(matches!(error, Error::SessionOpen(open) if open == id), "{error}");
    let end = held.close().expect("open");
    f.clock.advance(HOUR - Duration::from_nanos(1));
    f.db.sessions().append_late(id, view()).expect("within its grace");
    f.clock.advance(Duration::from_millis(7));
    // Time goes on with an operation, and not with the refusal that follows.
    f.db.hide_item(ITEM).expect("hidden");
    let error = f.refusal_in_log(|db| db.sessions().append_late(id, view()));
    assert!(matches!(error, Error::TooLate { by_ms: 6, .. }), "{error}");
    let found = f.db.sessions().get(id).expect("looked up").expect("known");
    assert_eq!((found.state.end(), found.late), (Some(&end), 1));
}

#[test]
fn a_start_in_a_lane_that_is_taken_can_be_refused() {
    let f = fixture(OnConflict::Reject);
    let held = f.start(1, "brief");
    let error = f.refusal_in_log(|db| db.start_session(1, "phone", "chat"));
    assert!(matches!(error, Error::LaneBusy { by } if by == held.session_id()), "{error}");
    f.db.start_session(1, "tv", "chat").expect("another lane").detach();
    f.db.start_session(2, "phone", "chat").expect("another lane").detach();
    held.heartbeat().expect("it was not ended");
}

#[test]
fn a_session_that_there_never_was_is_not_found() {
    let f = fixture(OnConflict::EndPrevious);
    let never = SessionId::new(u64::MAX);
    for error in [
        f.refusal_in_log(|db| db.resume_session(never)),
        f.refusal_in_log(|db| db.sessions().end(never, "")),
    ] {
        assert!(matches!(error, Error::SessionNotFound(id) if id == never), "{error}");
    }
    assert_eq!(f.db.sessions().get(never).expect("looked up"), None);
    assert!(f.db.sessions().records(never).expect("looked up").is_empty());
}

#[test]
fn policies_that_contradict_themselves_or_what_is_stored_change_nothing() {
    let [mut brief, chat] = policies();
    brief.max_duration = MINUTE / 2;
    brief.signals = Some(vec!["veiw".to_owned()]);
    let error = with_policies([brief, chat.clone()]).build().expect_err("unsound");
    says(&error, ErrorKind::Invalid, &["brief", "max_duration", "idle_timeout", "veiw"]);

    let Fixture { dir, clock, db } = fixture(OnConflict::EndPrevious);
    let held = db.start_session(1, "phone", "brief").expect("started").detach();
    let digest = db.state_digest().expect("digest");
    db.close().expect("closes");
    let reopen = |schema: Option<Schema>| {
        let builder = TidalDb::builder().with_data_dir(dir.path());
        let builder = builder.with_clock(Arc::new(clock.clone()));
        let builder = builder.with_sessions(config(OnConflict::EndPrevious));
        match schema {
            Some(schema) => builder.with_schema(schema).open(),
            None => builder.open(),
        }
    };
    type Other = (&'static str, fn(&mut SchemaBuilder));
    let others: [Other; 4] = [
        ("\"chat\" is stored", |b| {
            b.session_policy(policies()[0].clone());
        }),
        ("lane", |b| {
            let _ = b.session_lane(Lane::User);
        }),
        ("idle_timeout", |b| {
            let mut brief = policies()[0].clone();
            brief.idle_timeout = MINUTE * 2;
            b.session_policy(brief).session_policy(policies()[1].clone());
        }),
        ("max_duration", |b| {
            let mut default = SessionPolicy::new("default");
            default.max_duration = HOUR;
            for policy in policies().into_iter().chain([default]) {
                b.session_policy(policy);
            }
        }),
    ];
    for (word, declare) in others {
        let mut b = declared();
        declare(&mut b);
        let error = reopen(Some(b.build().expect("sound in itself"))).expect_err("it differs");
        assert!(matches!(error, Error::SchemaMismatch(_)), "{error}");
        says(&error, ErrorKind::Invalid, &[word]);
    }
    // What says nothing of sessions keeps what is stored.
    let db = reopen(Some(schema())).expect("opens");
    assert_eq!(db.state_digest().expect("digest"), digest);
    assert_eq!(db.schema().session_policies()[1..], policies());
    assert!(db.sessions().get(held).expect("looked up").expect("known").state.is_open());
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused_by_its_field() {
    for (field, change) in [
        ("sweep_interval", (|of| of.sweep_interval = Duration::ZERO) as fn(&mut SessionConfig)),
        ("background_retry", |of| of.background_retry = DAY * 2),
        ("annotation_size_bytes_max", |of| of.annotation_size_bytes_max = 0),
        ("agent_size_bytes_max", |of| of.agent_size_bytes_max = 1 << 20),
        ("event_queue_len", |of| of.event_queue_len = 0),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let mut config = SessionConfig::default();
        change(&mut config);
        let builder = TidalDb::builder().with_data_dir(dir.path().join("db")).with_schema(schema());
        let error = builder.with_sessions(config).open().expect_err("it makes no sense");
        says(&error, ErrorKind::Invalid, &[field]);
        assert!(contents(dir.path()).is_empty(), "{field}");
    }
}

//! Limits and policies of sessions, and where an operator may set them.
//!
//! Knows: numbers, and the names of environment variables. Must not know: who obeys them.
//!
//! What decides when a session ends (time-outs, lanes, rate limits) is in the schema, since a replay
//! must compute it again; nothing here changes what the log means.

use std::ffi::OsString;
use std::str::FromStr;
use std::time::Duration;

use super::processing::ProcessingTimeout;
use crate::error::{Error, Result};

/// What opening does with the sessions that were open when the database was last used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OpenPolicy {
    /// They are restored, to be resumed until their ordinary deadline; those whose deadline has passed
    /// end where they would have ended.
    #[default]
    RestoreThenExpire,
    /// All of them end, at their last evidence.
    EndAll,
    /// Those that were not over when the database was last written to are restored, and their idle time
    /// begins anew, however long ago that was; those that are older than their maximum duration end.
    RestoreAll,
}

/// What closing does with sessions that are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ClosePolicy {
    /// They stay open: the next open restores them.
    #[default]
    LeaveOpen,
    /// All of them end, at their last evidence. For [`close`](crate::TidalDb::close): a database that is
    /// dropped leaves them open.
    EndAll,
}

/// What a start does where the lane has an open session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnConflict {
    /// The other one ends, in the same frame of the log.
    #[default]
    EndPrevious,
    /// The start is refused.
    Reject,
}

/// Who does what falls due by the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Runtime {
    /// A thread of the database.
    #[default]
    Threads,
    /// The caller, with [`TidalDb::drive`](crate::TidalDb::drive): for tests, simulations, and
    /// programs with a loop of their own.
    Manual,
}

/// How sessions are handled: at open, at close, in between.
///
/// Time-outs, lanes, permitted signals and rate limits are policies of the
/// [`schema`](crate::schema), because a replay must come to the same ends. What belongs to one
/// processor is in its [`ProcessorOptions`](crate::ProcessorOptions).
///
/// ```
/// use std::time::Duration;
/// use tidaldb::{ClosePolicy, SessionConfig};
///
/// let mut sessions = SessionConfig::default();
/// sessions.on_close = ClosePolicy::EndAll;
/// sessions.sweep_interval = Duration::from_secs(5);
/// sessions.validate()?;
/// # Ok::<(), tidaldb::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionConfig {
    /// What opening does with open sessions. Default: [`OpenPolicy::RestoreThenExpire`].
    pub on_open: OpenPolicy,
    /// What closing does with them. Default: [`ClosePolicy::LeaveOpen`].
    pub on_close: ClosePolicy,
    /// What a start does in a lane that is taken. Default: [`OnConflict::EndPrevious`].
    pub on_conflict: OnConflict,
    /// Who writes down ends that are due. Default: [`Runtime::Threads`].
    pub runtime: Runtime,
    /// The longest the sweeper sleeps, deadlines or not; 10 ms to 1 day. A session that is open this
    /// long past its deadline, twice over, counts as overdue. Default: 30 s.
    pub sweep_interval: Duration,
    /// How long the sweeper waits after a failure; 10 ms to 1 day. Default: 60 s.
    pub background_retry: Duration,
    /// Longest annotation, in bytes; 1 to 1 MiB. Default: 8 KiB.
    pub annotation_size_bytes_max: usize,
    /// Longest name of an agent, in bytes; 1 to 4 KiB. Default: 256.
    pub agent_size_bytes_max: usize,
    /// Events that may wait for one subscriber before the oldest are dropped; 1 to 1,048,576.
    /// Default: 1,024.
    pub event_queue_len: usize,
    /// How long processors may work on one session before it counts as stuck. Waiting for a
    /// processor, or for another attempt, is no work. Default: [fixed](ProcessingTimeout::Fixed), 30 min.
    pub processing_timeout: ProcessingTimeout,
    /// The levels of warnings: after how much work on one session it is warned of that, ascending; at most
    /// 8, each 10 ms or more, and less than the smallest
    /// [`processing_timeout`](Self::processing_timeout). The first one is what health calls long. None: nobody
    /// is warned. Default: 15 min; whoever sets a time-out that is no longer than that sets the levels too.
    pub warn_after: Vec<Duration>,
    /// Health warns of more sessions than this that are worked on for long. Default: 3.
    pub long_running_max: usize,
    /// How long a session may wait for a processor while newer ones are processed, before health says that it
    /// is skipped; eight cadences of the processor if `None`. 10 ms to 31 days. Default: `None`.
    pub stuck_grace: Option<Duration>,
    /// Whether the processing of a stuck session is given up without anyone asking; never where
    /// [events advance time](crate::TimeSource::Events). Default: `true`.
    pub auto_timeout: bool,
    /// How long the records of a session are kept after its end, before they are forgotten by themselves, as
    /// [`plan_prune`](crate::Sessions::plan_prune) would; 10 ms at least. What a cursor has yet to
    /// hear of stays, and so does what has not settled, such as a session that failed. It is looked once an hour. Default: `None`, for ever.
    pub prune_after: Option<Duration>,
    /// What one processor may put down of one session, keys and values together, in bytes; 1 to 1 MiB.
    /// Default: 64 KiB.
    pub outputs_size_bytes_max: usize,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            on_open: OpenPolicy::default(),
            on_close: ClosePolicy::default(),
            on_conflict: OnConflict::default(),
            runtime: Runtime::default(),
            sweep_interval: Duration::from_secs(30),
            background_retry: Duration::from_secs(60),
            annotation_size_bytes_max: 8 << 10,
            agent_size_bytes_max: 256,
            event_queue_len: 1_024,
            processing_timeout: ProcessingTimeout::default(),
            warn_after: vec![Duration::from_secs(15 * 60)],
            long_running_max: 3,
            stuck_grace: None,
            auto_timeout: true,
            prune_after: None,
            outputs_size_bytes_max: 64 << 10,
        }
    }
}

/// What the names of the environment's settings begin with.
const PREFIX: &str = "TIDAL_SESSION_";

/// How long the sweeper may be told to wait.
pub(super) const WAITS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(86_400);

/// The longest time that may be said of processing.
pub(super) const LONGEST: Duration = Duration::from_secs(31 * 86_400);

/// There are no more levels of warnings than these.
const LEVELS_MAX: usize = 8;

/// The setting of the levels of warnings.
const LEVELS: &str = "WARN_AFTER_MS";

/// The word for no levels of warnings: an empty value is refused.
const NONE: &str = "none";

/// Where the text of a setting goes; says what would have been right.
type Set = fn(&mut SessionConfig, &str) -> std::result::Result<(), String>;

/// Every setting of the environment, without the prefix.
const VARIABLES: [(&str, Set); 18] = [
    ("ON_OPEN", |config, text| one_of(text, &OPEN_POLICIES, &mut config.on_open)),
    ("ON_CLOSE", |config, text| one_of(text, &CLOSE_POLICIES, &mut config.on_close)),
    ("ON_CONFLICT", |config, text| one_of(text, &CONFLICTS, &mut config.on_conflict)),
    ("RUNTIME", |config, text| one_of(text, &RUNTIMES, &mut config.runtime)),
    ("SWEEP_INTERVAL_MS", |config, text| millis(text, &mut config.sweep_interval)),
    ("BACKGROUND_RETRY_MS", |config, text| millis(text, &mut config.background_retry)),
    ("ANNOTATION_SIZE_BYTES_MAX", |config, text| {
        number(text, &mut config.annotation_size_bytes_max)
    }),
    ("AGENT_SIZE_BYTES_MAX", |config, text| number(text, &mut config.agent_size_bytes_max)),
    ("EVENT_QUEUE_LEN", |config, text| number(text, &mut config.event_queue_len)),
    ("PROCESSING_TIMEOUT_MS", |config, text| millis(text, config.processing_timeout.base_mut())),
    ("PROCESSING_TIMEOUT_PER_1K_RECORDS_MS", |config, text| {
        millis(text, config.processing_timeout.scale_mut().0)
    }),
    ("PROCESSING_TIMEOUT_MAX_MS", |config, text| {
        millis(text, config.processing_timeout.scale_mut().1)
    }),
    (LEVELS, |config, text| levels(text, &mut config.warn_after)),
    ("LONG_RUNNING_MAX", |config, text| number(text, &mut config.long_running_max)),
    ("STUCK_GRACE_MS", |config, text| millis(text, config.stuck_grace.get_or_insert_default())),
    ("AUTO_TIMEOUT", |config, text| one_of(text, &SWITCHES, &mut config.auto_timeout)),
    ("PRUNE_AFTER_MS", |config, text| millis(text, config.prune_after.get_or_insert_default())),
    ("OUTPUTS_SIZE_BYTES_MAX", |config, text| number(text, &mut config.outputs_size_bytes_max)),
];

const OPEN_POLICIES: [(&str, OpenPolicy); 3] = [
    ("restore-then-expire", OpenPolicy::RestoreThenExpire),
    ("end-all", OpenPolicy::EndAll),
    ("restore-all", OpenPolicy::RestoreAll),
];
const CLOSE_POLICIES: [(&str, ClosePolicy); 2] =
    [("leave-open", ClosePolicy::LeaveOpen), ("end-all", ClosePolicy::EndAll)];
const CONFLICTS: [(&str, OnConflict); 2] =
    [("end-previous", OnConflict::EndPrevious), ("reject", OnConflict::Reject)];
const SWITCHES: [(&str, bool); 2] = [("on", true), ("off", false)];
const RUNTIMES: [(&str, Runtime); 2] = [("threads", Runtime::Threads), ("manual", Runtime::Manual)];

impl SessionConfig {
    /// Refuses a configuration that makes no sense, naming the field.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](Error::InvalidArgument), whose `what` is the field.
    pub fn validate(&self) -> Result<()> {
        let wait = "it must be 10 ms to 1 day";
        let rules = [
            ("sweep_interval", WAITS.contains(&self.sweep_interval), wait),
            ("background_retry", WAITS.contains(&self.background_retry), wait),
            (
                "annotation_size_bytes_max",
                (1..=1 << 20).contains(&self.annotation_size_bytes_max),
                "it must be 1 byte to 1 MiB",
            ),
            (
                "agent_size_bytes_max",
                (1..=4 << 10).contains(&self.agent_size_bytes_max),
                "it must be 1 byte to 4 KiB",
            ),
            (
                "event_queue_len",
                (1..=1 << 20).contains(&self.event_queue_len),
                "it must be 1 to 1,048,576 events",
            ),
            (
                "processing_timeout",
                self.processing_timeout.is_sound(),
                "it must be 10 ms to 31 days; if scaled, per_1k_records must be above 0 and base at most max",
            ),
            (
                "warn_after",
                self.warn_after.len() <= LEVELS_MAX
                    && self.warn_after.first().is_none_or(|first| first >= WAITS.start())
                    && self.warn_after.is_sorted_by(|one, next| one < next),
                "it must be at most 8 levels, each 10 ms or more, ascending",
            ),
            (
                "warn_after",
                self.warn_after
                    .last()
                    .is_none_or(|last| *last < self.processing_timeout.smallest()),
                "each must be less than the smallest processing_timeout: lower the levels, or have none",
            ),
            (
                "stuck_grace",
                self.stuck_grace.is_none_or(|it| (*WAITS.start()..=LONGEST).contains(&it)),
                "it must be 10 ms to 31 days",
            ),
            (
                "prune_after",
                self.prune_after.is_none_or(|it| it >= *WAITS.start()),
                "it must be 10 ms at least",
            ),
            (
                "outputs_size_bytes_max",
                (1..=1 << 20).contains(&self.outputs_size_bytes_max),
                "it must be 1 byte to 1 MiB",
            ),
        ];
        match rules.into_iter().find(|(_, sound, _)| !sound) {
            Some((field, _, reason)) => Err(Error::invalid(field, reason)),
            None => Ok(()),
        }
    }

    /// The defaults, with what the environment's `TIDAL_SESSION_…` variables say in their place.
    ///
    /// | variable | value |
    /// |---|---|
    /// | `TIDAL_SESSION_ON_OPEN` | `restore-then-expire`, `end-all` or `restore-all` |
    /// | `TIDAL_SESSION_ON_CLOSE` | `leave-open` or `end-all` |
    /// | `TIDAL_SESSION_ON_CONFLICT` | `end-previous` or `reject` |
    /// | `TIDAL_SESSION_RUNTIME` | `threads` or `manual` |
    /// | `TIDAL_SESSION_SWEEP_INTERVAL_MS` | milliseconds |
    /// | `TIDAL_SESSION_BACKGROUND_RETRY_MS` | milliseconds |
    /// | `TIDAL_SESSION_ANNOTATION_SIZE_BYTES_MAX` | bytes |
    /// | `TIDAL_SESSION_AGENT_SIZE_BYTES_MAX` | bytes |
    /// | `TIDAL_SESSION_EVENT_QUEUE_LEN` | events |
    /// | `TIDAL_SESSION_PROCESSING_TIMEOUT_MS` | milliseconds |
    /// | `TIDAL_SESSION_PROCESSING_TIMEOUT_PER_1K_RECORDS_MS` | milliseconds; scales the one before, without limit unless the next one is set |
    /// | `TIDAL_SESSION_PROCESSING_TIMEOUT_MAX_MS` | milliseconds; needs `TIDAL_SESSION_PROCESSING_TIMEOUT_PER_1K_RECORDS_MS` |
    /// | `TIDAL_SESSION_WARN_AFTER_MS` | milliseconds, one or more, separated by commas; or `none`. Where it is not set, a default level that is not below the smallest time-out is left out |
    /// | `TIDAL_SESSION_LONG_RUNNING_MAX` | sessions |
    /// | `TIDAL_SESSION_STUCK_GRACE_MS` | milliseconds |
    /// | `TIDAL_SESSION_AUTO_TIMEOUT` | `on` or `off` |
    /// | `TIDAL_SESSION_PRUNE_AFTER_MS` | milliseconds |
    /// | `TIDAL_SESSION_OUTPUTS_SIZE_BYTES_MAX` | bytes |
    ///
    /// The engine itself never looks at the environment: pass the result to
    /// [`Builder::with_sessions`](crate::Builder::with_sessions).
    ///
    /// # Errors
    ///
    /// [`UnknownName`](Error::UnknownName) for a variable that begins like these and is none of them,
    /// with the nearest that is one: a misspelt setting is not a default.
    /// [`InvalidArgument`](Error::InvalidArgument) for an empty value, one that cannot be read (it is
    /// named, with what is expected), and what [`validate`](Self::validate) refuses.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(std::env::vars_os())
    }

    /// As [`from_env`](Self::from_env), from any names and values.
    pub(crate) fn from_variables(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self> {
        let mut config = Self::default();
        let mut has_levels = false;
        let ours = variables.into_iter().filter_map(|(name, value)| {
            // A name that is no text may still begin with ours; then it is none that is known.
            let name = name.to_string_lossy().into_owned();
            name.starts_with(PREFIX).then_some((name, value))
        });
        for (name, value) in ours {
            let known =
                VARIABLES.iter().find(|(known, _)| Some(*known) == name.strip_prefix(PREFIX));
            let Some((_, set)) = known else { return Err(unknown(&name)) };
            let text = value.to_string_lossy();
            let refused =
                |reason: String| Error::invalid("environment", format!("{name} {reason}"));
            if text.trim().is_empty() {
                return Err(refused("is empty: give it a value, or unset it".to_owned()));
            }
            set(&mut config, text.trim())
                .map_err(|expected| refused(format!("is {text:?}, which is not {expected}")))?;
            has_levels |= name.strip_prefix(PREFIX) == Some(LEVELS);
        }
        // Nobody has set the default levels, so none of them may stand in the way of a short time-out.
        if !has_levels {
            let smallest = config.processing_timeout.smallest();
            config.warn_after.retain(|level| *level < smallest);
        }
        config.validate()?;
        Ok(config)
    }
}

fn unknown(name: &str) -> Error {
    let known: Vec<String> =
        VARIABLES.iter().map(|(known, _)| format!("{PREFIX}{known}")).collect();
    // Distance is measured on what follows the prefix, which all of them share.
    let own = name.strip_prefix(PREFIX).unwrap_or(name);
    match Error::unknown("environment variable", own, VARIABLES.iter().map(|(known, _)| *known)) {
        Error::UnknownName { what, nearest, .. } => {
            let nearest = nearest.iter().map(|near| format!("{PREFIX}{near}")).collect::<Vec<_>>();
            // One that is near nothing gets the whole list: there is no other place to look.
            let nearest = if nearest.is_empty() { known } else { nearest };
            Error::UnknownName { what, name: name.to_owned(), nearest }
        }
        other => other,
    }
}

fn one_of<T: Copy>(
    text: &str,
    known: &[(&str, T)],
    into: &mut T,
) -> std::result::Result<(), String> {
    match known.iter().find(|(name, _)| *name == text) {
        Some((_, value)) => *into = *value,
        None => {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            return Err(format!("one of {}", names.join(", ")));
        }
    }
    Ok(())
}

fn number<T: FromStr>(text: &str, into: &mut T) -> std::result::Result<(), String> {
    *into = text.parse().map_err(|_| "a whole number".to_owned())?;
    Ok(())
}

fn millis(text: &str, into: &mut Duration) -> std::result::Result<(), String> {
    let ms: u64 = text.parse().map_err(|_| "a whole number of milliseconds".to_owned())?;
    *into = Duration::from_millis(ms);
    Ok(())
}

fn levels(text: &str, into: &mut Vec<Duration>) -> std::result::Result<(), String> {
    into.clear();
    if text == NONE {
        return Ok(());
    }
    for level in text.split(',') {
        let ms = level.trim().parse();
        let ms = ms.map_err(|_| format!("{NONE}, or whole numbers of milliseconds"))?;
        into.push(Duration::from_millis(ms));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const MIN: Duration = Duration::from_secs(60);

    fn scaled(base: u32, per_1k_records: u32, max: u32) -> ProcessingTimeout {
        let [base, per_1k_records, max] = [base, per_1k_records, max].map(|it| it * MIN);
        ProcessingTimeout::Scaled { base, per_1k_records, max }
    }

    fn from(variables: &[(&str, &str)]) -> Result<SessionConfig> {
        let all = variables.iter().map(|(name, value)| (name.into(), value.into()));
        SessionConfig::from_variables(all)
    }

    #[test]
    fn defaults_are_valid_and_an_environment_without_ours_gives_them() {
        SessionConfig::default().validate().unwrap();
        let config = from(&[("PATH", ""), ("TIDAL_SEED", "1"), ("TIDAL_SESSIONS", "x")]).unwrap();
        assert_eq!(config, SessionConfig::default());
    }

    #[test]
    fn every_rule_names_the_field_that_breaks_it() {
        type Break = fn(&mut SessionConfig);
        let broken: [(&str, Break); 25] = [
            ("sweep_interval", |c| c.sweep_interval = Duration::ZERO),
            ("sweep_interval", |c| c.sweep_interval = Duration::from_secs(86_401)),
            ("background_retry", |c| c.background_retry = Duration::from_millis(9)),
            ("background_retry", |c| c.background_retry = Duration::MAX),
            ("annotation_size_bytes_max", |c| c.annotation_size_bytes_max = 0),
            ("annotation_size_bytes_max", |c| c.annotation_size_bytes_max = (1 << 20) + 1),
            ("agent_size_bytes_max", |c| c.agent_size_bytes_max = 0),
            ("agent_size_bytes_max", |c| c.agent_size_bytes_max = (4 << 10) + 1),
            ("event_queue_len", |c| c.event_queue_len = 0),
            ("event_queue_len", |c| c.event_queue_len = (1 << 20) + 1),
            ("processing_timeout", |c| c.processing_timeout = Duration::ZERO.into()),
            ("processing_timeout", |c| c.processing_timeout = Duration::MAX.into()),
            ("processing_timeout", |c| c.processing_timeout = scaled(30, 0, 90)),
            ("processing_timeout", |c| c.processing_timeout = scaled(0, 1, 90)),
            ("processing_timeout", |c| c.processing_timeout = scaled(91, 1, 90)),
            ("processing_timeout", |c| c.processing_timeout = scaled(30, 1, 99_999)),
            ("warn_after", |c| c.warn_after = vec![Duration::ZERO]),
            ("warn_after", |c| c.warn_after = vec![30 * MIN]),
            ("warn_after", |c| c.warn_after = vec![MIN, MIN]),
            ("warn_after", |c| c.warn_after = vec![2 * MIN, MIN]),
            ("warn_after", |c| c.warn_after = (1..10).map(|n| n * MIN).collect()),
            ("stuck_grace", |c| c.stuck_grace = Some(Duration::ZERO)),
            ("prune_after", |c| c.prune_after = Some(Duration::ZERO)),
            ("outputs_size_bytes_max", |c| c.outputs_size_bytes_max = 0),
            ("outputs_size_bytes_max", |c| c.outputs_size_bytes_max = (1 << 20) + 1),
        ];
        for (field, spoil) in broken {
            let mut config = SessionConfig::default();
            spoil(&mut config);
            match config.validate() {
                Err(Error::InvalidArgument { what, .. }) => assert_eq!(what, field),
                other => panic!("{field} is not refused: {other:?}"),
            }
        }
    }

    #[test]
    fn every_variable_sets_its_field() {
        let config = from(&[
            ("TIDAL_SESSION_ON_OPEN", "restore-all"),
            ("TIDAL_SESSION_ON_CLOSE", "end-all"),
            ("TIDAL_SESSION_ON_CONFLICT", "reject"),
            ("TIDAL_SESSION_RUNTIME", "manual"),
            ("TIDAL_SESSION_SWEEP_INTERVAL_MS", "5000"),
            ("TIDAL_SESSION_BACKGROUND_RETRY_MS", " 250 "),
            ("TIDAL_SESSION_ANNOTATION_SIZE_BYTES_MAX", "100"),
            ("TIDAL_SESSION_AGENT_SIZE_BYTES_MAX", "10"),
            ("TIDAL_SESSION_EVENT_QUEUE_LEN", "7"),
            ("TIDAL_SESSION_PROCESSING_TIMEOUT_MS", "60000"),
            ("TIDAL_SESSION_WARN_AFTER_MS", "30000, 45000"),
            ("TIDAL_SESSION_LONG_RUNNING_MAX", "5"),
            ("TIDAL_SESSION_STUCK_GRACE_MS", "60000"),
            ("TIDAL_SESSION_AUTO_TIMEOUT", "off"),
            ("TIDAL_SESSION_PRUNE_AFTER_MS", "90000"),
            ("TIDAL_SESSION_OUTPUTS_SIZE_BYTES_MAX", "1000"),
        ]);
        let expected = SessionConfig {
            on_open: OpenPolicy::RestoreAll,
            on_close: ClosePolicy::EndAll,
            on_conflict: OnConflict::Reject,
            runtime: Runtime::Manual,
            sweep_interval: Duration::from_secs(5),
            background_retry: Duration::from_millis(250),
            annotation_size_bytes_max: 100,
            agent_size_bytes_max: 10,
            event_queue_len: 7,
            processing_timeout: ProcessingTimeout::Fixed(MIN),
            warn_after: vec![Duration::from_secs(30), Duration::from_secs(45)],
            long_running_max: 5,
            stuck_grace: Some(Duration::from_secs(60)),
            auto_timeout: false,
            prune_after: Some(Duration::from_secs(90)),
            outputs_size_bytes_max: 1_000,
        };
        assert_eq!(config.unwrap(), expected);
    }

    #[test]
    fn a_time_out_is_scaled_by_the_environment_in_any_order() {
        let names = ["", "_PER_1K_RECORDS", "_MAX"];
        let variables: Vec<(String, &str)> = names
            .iter()
            .zip(["1200000", "60000", "5400000"])
            .map(|(name, value)| (format!("TIDAL_SESSION_PROCESSING_TIMEOUT{name}_MS"), value))
            .collect();
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let set = order.map(|at| (&*variables[at].0, variables[at].1));
            assert_eq!(from(&set).unwrap().processing_timeout, scaled(20, 1, 90));
        }
        let unlimited = from(&[(&*variables[1].0, "60000")]).unwrap().processing_timeout;
        assert_eq!(unlimited, scaled(30, 1, 31 * 24 * 60));
        let error = from(&[(&*variables[2].0, "5400000")]).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { what: "processing_timeout", .. }));
    }

    #[test]
    fn a_short_time_out_can_be_set_alone() {
        let name = "TIDAL_SESSION_PROCESSING_TIMEOUT_MS";
        for (ms, levels) in [("900001", 1), ("900000", 0), ("300000", 0), ("10", 0)] {
            let config = from(&[(name, ms)]).unwrap();
            assert_eq!(config.warn_after.len(), levels, "{ms}");
        }
        let scale = ("TIDAL_SESSION_PROCESSING_TIMEOUT_PER_1K_RECORDS_MS", "60000");
        assert_eq!(
            from(&[(name, "300000"), scale]).unwrap().warn_after,
            [],
            "that of an empty one counts"
        );
        let error =
            from(&[(name, "300000"), ("TIDAL_SESSION_WARN_AFTER_MS", "300000")]).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { what: "warn_after", .. }), "{error}");
        assert!(error.to_string().contains("lower the levels"), "{error}");
    }

    /// The rows of a table of variables, by cell.
    fn rows<'a>(text: &'a str, prefix: &str) -> Vec<Vec<&'a str>> {
        let rows = text.lines().filter_map(|line| line.strip_prefix(prefix));
        let rows = rows.filter(|row| row.starts_with("`TIDAL_SESSION_"));
        rows.map(|row| row.split('|').map(|cell| cell.trim().trim_matches('`')).collect()).collect()
    }

    #[test]
    fn every_variable_has_a_row_in_the_documentation_and_its_default_is_the_default() {
        let known = VARIABLES.map(|(name, _)| format!("{PREFIX}{name}"));
        let of_rustdoc = rows(include_str!("sessions.rs"), "    /// | ");
        let of_operators = rows(include_str!("../../../docs/operations.md"), "| ");
        for table in [of_rustdoc, of_operators.clone()] {
            assert_eq!(table.iter().map(|row| row[0]).collect::<Vec<_>>(), known);
        }
        for row in of_operators.iter().filter(|row| !row[2].starts_with("not set")) {
            let config = from(&[(row[0], row[2])]);
            assert_eq!(config.unwrap(), SessionConfig::default(), "{row:?}");
        }
    }

    #[test]
    fn levels_of_warnings_may_be_none_and_there_may_be_eight() {
        let levels = |text| from(&[("TIDAL_SESSION_WARN_AFTER_MS", text)]);
        assert_eq!(levels("none").unwrap().warn_after, []);
        assert_eq!(levels("10,20,30,40,50,60,70,80").unwrap().warn_after.len(), 8);
        for (text, expected) in
            [("10,", "whole numbers"), ("10;20", "none, or"), ("20,10", "ascending")]
        {
            let sentence = levels(text).unwrap_err().to_string();
            assert!(sentence.contains(expected), "{sentence}");
        }
    }

    #[test]
    fn an_unknown_variable_is_refused_with_the_nearest_one() {
        match from(&[("TIDAL_SESSION_SWEEP_INTERVAL", "5")]) {
            Err(Error::UnknownName { name, nearest, .. }) => {
                assert_eq!(name, "TIDAL_SESSION_SWEEP_INTERVAL");
                assert_eq!(nearest[0], "TIDAL_SESSION_SWEEP_INTERVAL_MS");
            }
            other => panic!("{other:?}"),
        }
        match from(&[("TIDAL_SESSION_", "5")]) {
            Err(Error::UnknownName { nearest, .. }) => assert_eq!(nearest.len(), VARIABLES.len()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_empty_or_unreadable_value_is_refused_with_what_is_expected() {
        for (name, value, expected) in [
            ("ON_OPEN", "", "is empty"),
            ("EVENT_QUEUE_LEN", "  ", "is empty"),
            (
                "ON_OPEN",
                "endall",
                "is \"endall\", which is not one of restore-then-expire, end-all",
            ),
            ("RUNTIME", "Threads", "one of threads, manual"),
            ("SWEEP_INTERVAL_MS", "30s", "a whole number of milliseconds"),
            ("EVENT_QUEUE_LEN", "-1", "a whole number"),
        ] {
            let name = format!("{PREFIX}{name}");
            let error = from(&[(&name, value)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            let sentence = error.to_string();
            assert!(sentence.contains(&name) && sentence.contains(expected), "{sentence}");
        }
    }

    #[test]
    fn what_the_environment_says_is_validated() {
        let error = from(&[("TIDAL_SESSION_SWEEP_INTERVAL_MS", "0")]).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { what: "sweep_interval", .. }), "{error}");
    }
}

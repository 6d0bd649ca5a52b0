//! The parent's side: hands cases to children, and survives them.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidaldb::TidalDb;

use super::child::rows_of;
use super::edit::Case;
use crate::child::Victim;
use crate::hex;
use crate::operations::survived;

/// How long one case may take.
const CASE_WITHIN: Duration = Duration::from_secs(10);

/// How often a case may kill the process that opens it: the mark of a store's opening has the third
/// open leave the store alone, and a second store may be as bad.
const DEATHS_MAX: usize = 4;

/// The items whose metadata is read.
pub(super) const ITEMS: Range<u64> = 0..400;

/// What a database shows to a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// How many operations are in it.
    pub operations: u64,
    /// The digest, or why there is none.
    pub digest: String,
    /// A hash of all metadata, or why there is none.
    pub rows: String,
    /// What `verify` found broken.
    pub broken: String,
    /// What the open report says was repaired.
    pub repairs: String,
    /// The checkpoint of each store: the sequence, and the failure if there is one.
    pub stores: String,
}

impl State {
    /// What an undamaged database shows.
    pub fn of(db: &TidalDb) -> Self {
        Self {
            operations: survived(db),
            digest: hex(&db.state_digest().expect("digest")),
            rows: rows_of(db),
            broken: String::new(),
            repairs: String::new(),
            stores: stores_of(db),
        }
    }
}

/// Where the stores stand.
pub(super) fn stores_of(db: &TidalDb) -> String {
    let stores = db.status().stores;
    let stands = stores.iter().map(|store| {
        let failed = if store.failure.is_some() { " failed" } else { "" };
        format!("{} at {}{failed}", store.name, store.seq)
    });
    stands.collect::<Vec<_>>().join(", ")
}

/// What came of opening a damaged copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It opened.
    Opened {
        /// What it showed.
        first: State,
        /// What it showed when it was opened again, if that was asked for.
        second: Option<State>,
    },
    /// An error.
    Refused {
        /// Which one: the name of the variant.
        variant: String,
        /// As a sentence.
        message: String,
        /// What was changed in the directory all the same.
        changes: Vec<String>,
    },
    /// Neither, which no open may end in: every one died, or one was silent for too long.
    Lost {
        /// What happened.
        how: String,
    },
}

/// The outcome of a case, and what happened on the way.
#[derive(Debug, Clone)]
pub struct Answer {
    /// What came of it.
    pub outcome: Outcome,
    /// Processes that died of opening it.
    pub deaths: Vec<String>,
    /// Panics, caught or not: where, and what they said.
    pub panics: Vec<String>,
}

/// The answers to all cases, in their order.
#[derive(Debug)]
pub struct Run {
    /// One for each case.
    pub answers: Vec<Answer>,
    /// How long it took.
    pub elapsed: Duration,
}

impl Display for State {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { operations, digest, rows, broken, repairs, stores } = self;
        write!(f, "{operations}\t{digest}\t{rows}\t{broken}\t{repairs}\t{stores}")
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened { first, second: None } => write!(f, "opened\t{first}"),
            Self::Opened { first, second: Some(second) } => write!(f, "opened\t{first}\t{second}"),
            Self::Refused { variant, message, changes } => {
                write!(f, "refused\t{variant}\t{message}\t{}", changes.join(" "))
            }
            Self::Lost { how } => write!(f, "lost\t{how}"),
        }
    }
}

const STATE_FIELDS: usize = 6;

fn parse_state(fields: &[&str]) -> State {
    let [operations, texts @ ..] = fields else { panic!("no state: {fields:?}") };
    let texts: [&str; STATE_FIELDS - 1] = texts.try_into().expect("a state has six fields");
    let [digest, rows, broken, repairs, stores] = texts.map(str::to_owned);
    let operations = operations.parse().expect("a number");
    State { operations, digest, rows, broken, repairs, stores }
}

fn parse_outcome(fields: &[&str]) -> Outcome {
    match fields {
        ["opened", first @ ..] if first.len() == STATE_FIELDS => {
            Outcome::Opened { first: parse_state(first), second: None }
        }
        ["opened", both @ ..] => Outcome::Opened {
            first: parse_state(&both[..STATE_FIELDS]),
            second: Some(parse_state(&both[STATE_FIELDS..])),
        },
        ["refused", variant, message, changes] => Outcome::Refused {
            variant: (*variant).to_owned(),
            message: (*message).to_owned(),
            changes: changes.split_whitespace().map(str::to_owned).collect(),
        },
        _ => panic!("no outcome: {fields:?}"),
    }
}

/// A directory for copies: in memory where there is room.
pub fn work_dir() -> TempDir {
    let shm = Path::new("/dev/shm");
    let in_memory = tempfile::Builder::new().prefix("tidal-damage").tempdir_in(shm);
    in_memory.or_else(|_| tempfile::tempdir()).expect("a directory")
}

/// Opens every case in a child that runs `test`, which calls [`serve`](super::serve).
pub fn run(test: &str, scene: &Path, cases: &[Case]) -> Run {
    let begun = Instant::now();
    let workers = std::thread::available_parallelism().map_or(2, usize::from).min(cases.len());
    let work = work_dir();
    let parts: Vec<Vec<Answer>> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..workers)
            .map(|n| {
                let part: Vec<&Case> = cases.iter().skip(n).step_by(workers).collect();
                let work = work.path().join(n.to_string());
                scope.spawn(move || Worker::new(test, scene, work, &part).run(part.len()))
            })
            .collect();
        running.into_iter().map(|worker| worker.join().expect("a worker ends")).collect()
    });
    let mut parts: Vec<_> = parts.into_iter().map(Vec::into_iter).collect();
    let answers: Vec<Answer> = (0..cases.len())
        .map(|i| parts[i % workers].next().expect("every case has an answer"))
        .collect();
    Run { answers, elapsed: begun.elapsed() }
}

struct Worker<'a> {
    test: &'a str,
    says: Vec<(&'static str, String)>,
    answers: Vec<Answer>,
    deaths: Vec<String>,
    panics: Vec<String>,
    work: PathBuf,
}

impl<'a> Worker<'a> {
    fn new(test: &'a str, scene: &Path, work: PathBuf, cases: &[&Case]) -> Self {
        fs::create_dir(&work).expect("a directory is made");
        let list = work.join("list");
        let lines: String = cases.iter().map(|case| format!("{case}\n")).collect();
        fs::write(&list, lines).expect("the list is written");
        let says = vec![
            ("TIDAL_SCENE", scene.display().to_string()),
            ("TIDAL_WORK", work.display().to_string()),
            ("TIDAL_LIST", list.display().to_string()),
        ];
        Self { test, says, answers: Vec::new(), deaths: Vec::new(), panics: Vec::new(), work }
    }

    fn run(mut self, cases: usize) -> Vec<Answer> {
        while self.answers.len() < cases {
            let mut says = self.says.clone();
            says.push(("TIDAL_FROM", self.answers.len().to_string()));
            says.push(("TIDAL_AGAIN", (!self.deaths.is_empty()).to_string()));
            let mut victim = Victim::spawn(self.test, "damage", &says);
            loop {
                match victim.next_report_within(CASE_WITHIN) {
                    Ok(Some(report)) => self.take(&report),
                    Ok(None) => {
                        let status = victim.finish().1;
                        if self.answers.len() < cases {
                            self.died(status);
                        }
                        break;
                    }
                    Err(_silent) => {
                        victim.kill();
                        self.answer(Outcome::Lost { how: format!("silent for {CASE_WITHIN:?}") });
                        break;
                    }
                }
            }
        }
        fs::remove_dir_all(&self.work).expect("the directory is removed");
        self.answers
    }

    fn take(&mut self, report: &str) {
        let fields: Vec<&str> = report.split('\t').collect();
        let [index, fields @ ..] = &fields[..] else { panic!("no report: {report}") };
        let at: usize = index.parse().expect("an index");
        match fields {
            // A thread may panic when its case has been answered.
            ["panic", what] if at < self.answers.len() => {
                self.answers[at].panics.push((*what).to_owned());
            }
            ["panic", what] => self.panics.push((*what).to_owned()),
            _ => {
                assert_eq!(at, self.answers.len(), "cases are answered in order");
                self.answer(parse_outcome(fields));
            }
        }
    }

    fn died(&mut self, status: ExitStatus) {
        self.deaths.push(status.to_string());
        if self.deaths.len() > DEATHS_MAX {
            self.answer(Outcome::Lost { how: format!("every open died: {status}") });
        }
    }

    fn answer(&mut self, outcome: Outcome) {
        let deaths = std::mem::take(&mut self.deaths);
        let panics = std::mem::take(&mut self.panics);
        self.answers.push(Answer { outcome, deaths, panics });
    }
}

//! Months in the life of sessions and their processors, with everything that goes wrong in them.
//!
//! - `setup`: the database, its processors, and who of them cannot get on with whom;
//! - `life`: what a child process does until it dies, all of it following from a seed;
//! - `book`: what the parent knows of it, from what the child reported;
//! - `end`: what must be true when all that is wrong has gone by.
//!
//! A season is one database on a real disk under a manual clock. A child of this binary leads it through one
//! life after the other: sessions begin, grow, end and are pruned; processors succeed, fail, panic, hang and end
//! the process; the clock jumps and is set back; operators intervene. Each life dies at a crash point, in
//! the code of a processor, by SIGKILL, or not at all. The parent keeps the book, and at the end of a season
//! lets the processors succeed.
//!
//! `TIDAL_SOAK_S=600` says for how long seasons follow each other (5 s); `TIDAL_SEED` is the seed of the first
//! one, the next has the next number, and any of them is repeated by its own.

mod book;
mod end;
mod life;
mod setup;

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use tidal_support::child::{self, Victim};
use tidal_support::random::Random;

use book::Book;

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    /// At the crash point of this number, when it is reached for the n-th time.
    At { point: u16, reach: u64 },
    /// In the code of a processor.
    InProcessor,
    /// By SIGKILL, after so many reports.
    Killed { after: u64 },
    /// It comes to its end.
    None,
}

impl Death {
    fn of(random: &mut Random) -> Self {
        use tidaldb::fault::CrashPoint;
        let points = [CrashPoint::OF_PROCESSORS, CrashPoint::OF_HOSTS, CrashPoint::OF_THE_ENGINE];
        match random.below(10) {
            kind @ 0..5 => {
                let points = points[(kind / 2) as usize];
                let point = points[random.below(points.len() as u64) as usize].number();
                Self::At { point, reach: 1 + random.below(30) }
            }
            5 => Self::InProcessor,
            6 | 7 => Self::Killed { after: 1 + random.below(250) },
            _ => Self::None,
        }
    }
}

/// Not a test by itself: what a child process does.
#[test]
fn child() {
    if child::role().is_some() {
        life::live();
    }
}

/// One life: a child, until it is dead; whether it was killed or killed itself.
fn live(book: &mut Book, says: &[(&str, String)], death: Death) -> bool {
    let mut victim = Victim::spawn("child", "live", says);
    let mut reports = 0;
    loop {
        let report = victim.next_report_within(Duration::from_secs(120));
        let Some(report) = report.expect("it goes on") else { break };
        book.note(&report);
        reports += 1;
        if matches!(death, Death::Killed { after } if after == reports) {
            victim.kill().iter().for_each(|report| book.note(report));
            return true;
        }
    }
    let (_, status) = victim.finish();
    let died = status.signal() == Some(6);
    assert!(died || status.success(), "a life went wrong: {status}");
    died
}

fn season(seed: u64, until: Instant) -> Book {
    let dir = tempfile::tempdir().expect("a directory");
    let mut random = Random::new(seed);
    let mut book = Book::new(seed);
    let lives = 4 + random.below(4) * random.below(12);
    for life in 0..lives {
        if life >= 4 && Instant::now() > until {
            break;
        }
        let death = Death::of(&mut random);
        let (point, reach) = match death {
            Death::At { point, reach } => (point, reach),
            _ => (0, 0),
        };
        let kills = matches!(death, Death::InProcessor);
        let says = [
            ("TIDAL_DIR", dir.path().display().to_string()),
            ("TIDAL_LIFE_SEED", random.next_u64().to_string()),
            ("TIDAL_AT", book.opens_at(&mut random).to_string()),
            ("TIDAL_VERSION", book.version().to_string()),
            ("TIDAL_POINT", point.to_string()),
            ("TIDAL_REACH", reach.to_string()),
            ("TIDAL_KILLS", u64::from(kills).to_string()),
            ("TIDAL_ITEM", book.next_item().to_string()),
        ];
        let died = live(&mut book, &says, death);
        book.life_ended(died);
    }
    end::check(dir.path(), &mut book);
    book
}

#[test]
fn whatever_goes_wrong_for_months_what_is_healthy_is_processed_exactly_once() {
    setup::silence_what_is_meant();
    let began = Instant::now();
    let until = began + Duration::from_secs(tidal_support::setting("TIDAL_SOAK_S", 5));
    let first = Random::seed_from("TIDAL_SEED");
    let mut total = book::Totals::default();
    let mut seed = first;
    while seed == first || Instant::now() < until {
        println!("season TIDAL_SEED={seed}");
        total.add(&season(seed, until).totals);
        seed += 1;
    }
    println!("{total}, {} seasons in {} s", seed - first, began.elapsed().as_secs());
}

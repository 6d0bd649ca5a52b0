//! Measuring: sizes of a run, percentiles, bytes that went to the device.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use criterion::Criterion;

/// Whether the sizes of the docs are asked for (`TIDAL_BENCH_FULL=1`), which takes minutes.
pub fn full() -> bool {
    std::env::var_os("TIDAL_BENCH_FULL").is_some_and(|value| value != "0")
}

/// A size for now: the small one, or the one of the docs.
pub fn sized<T>(quick: T, docs: T) -> T {
    if full() { docs } else { quick }
}

/// Whether this is `cargo bench`, and not a test run that only wants to see that it works. Criterion
/// asks the same question of its own.
pub fn is_measured() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// Criterion with few samples: what is measured is long, and the samples are whole runs.
pub fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(sized(200, 1_000)))
        .measurement_time(Duration::from_millis(sized(600, 5_000)))
        .without_plots()
        .configure_from_args()
}

/// Latencies of single calls, for the percentiles that a mean hides.
#[derive(Debug, Default)]
pub struct Latencies {
    nanos: Vec<u64>,
}

impl Latencies {
    /// Adds one.
    pub fn add(&mut self, latency: Duration) {
        self.nanos.push(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The latency that this share of the calls did not exceed (nearest rank); zero without calls.
    pub fn at(&mut self, share: f64) -> Duration {
        self.nanos.sort_unstable();
        let rank = (share * self.nanos.len() as f64).ceil() as usize;
        Duration::from_nanos(self.nanos.get(rank.max(1) - 1).copied().unwrap_or_default())
    }

    /// A line with the percentiles.
    pub fn line(&mut self, what: &str) -> String {
        let [half, most, nearly, all] = [0.5, 0.99, 0.999, 1.0].map(|share| Micros(self.at(share)));
        let count = self.nanos.len();
        format!("{what:<58} p50 {half} p99 {most} p99.9 {nearly} max {all}  ({count} calls)")
    }
}

struct Micros(Duration);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9.2} us", self.0.as_secs_f64() * 1e6)
    }
}

/// Bytes that this process caused to be written to block devices, as Linux counts them: when memory of
/// the page cache becomes dirty, whoever writes it back later. Zero is zero, but more is an upper
/// bound: where the cache has large folios (ext4 since Linux 6.16) a whole one counts when a block of
/// it is written. `None` where there is no such count.
pub fn process_bytes_written() -> Option<u64> {
    let io = std::fs::read_to_string("/proc/self/io").ok()?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "))?;
    line.trim().parse().ok()
}

/// Bytes written to the device that a path lies on, by everyone: what arrives there, on a machine that
/// does nothing else. `None` where there is no such count.
pub fn device_bytes_written(path: &Path) -> Option<u64> {
    const SECTOR_BYTES: u64 = 512;
    let device = std::fs::metadata(path).ok()?.dev();
    let major = (device >> 8) & 0xfff;
    let minor = (device & 0xff) | ((device >> 12) & 0xfff00);
    let stat = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    let sectors: u64 = stat.split_whitespace().nth(6)?.parse().ok()?;
    Some(sectors * SECTOR_BYTES)
}

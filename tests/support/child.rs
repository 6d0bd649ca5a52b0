//! Processes that die.
//!
//! A child is the test binary itself, asked for one test by name, which does nothing unless the
//! environment says that it is a child. It reports on its standard output, a line at a time.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

/// Marks the lines that a child means for its parent; the test harness prints others.
const MARK: &str = "@@ ";

/// The variable that says that this process is a child, and which.
const ROLE: &str = "TIDAL_CHILD";

/// The role of this process, if it is a child.
pub fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// What the parent told this child under `key`.
pub fn told(key: &str) -> String {
    std::env::var(key).unwrap_or_else(|_| panic!("the parent says {key}"))
}

/// Tells the parent something. Returns once the operating system has it, so it outlives a kill.
pub fn report(line: &str) {
    let mut out = std::io::stdout().lock();
    // The harness may have left the line unfinished.
    let sent = write!(out, "\n{MARK}{line}\n").and_then(|()| out.flush());
    if sent.is_err() {
        // The parent is gone: nobody is left to report to.
        std::process::exit(0);
    }
}

/// A running child.
#[derive(Debug)]
pub struct Victim {
    child: Child,
    reports: Receiver<String>,
}

/// A child said nothing for as long as it was given.
#[derive(Debug)]
pub struct Silent;

impl Victim {
    /// Starts this binary's test `test` in a role.
    pub fn spawn(test: &str, role: &str, says: &[(&str, String)]) -> Self {
        let exe = std::env::current_exe().expect("the test binary knows itself");
        let mut command = Command::new(exe);
        command
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .envs(says.iter().map(|(key, value)| (*key, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut child = command.spawn().expect("the child starts");
        let out = child.stdout.take().expect("its output is a pipe");
        let (sender, reports) = mpsc::channel();
        std::thread::spawn(move || forward(out, &sender));
        Self { child, reports }
    }

    /// Its next report; `None` when it has ended.
    pub fn next_report(&mut self) -> Option<String> {
        self.reports.recv().ok()
    }

    /// Its next report; `None` when it has ended.
    ///
    /// # Errors
    ///
    /// [`Silent`] when it neither reports nor ends within the time.
    pub fn next_report_within(&mut self, limit: Duration) -> Result<Option<String>, Silent> {
        match self.reports.recv_timeout(limit) {
            Ok(report) => Ok(Some(report)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => Err(Silent),
        }
    }

    /// Kills it with SIGKILL and returns the reports that it still got out.
    pub fn kill(mut self) -> Vec<String> {
        self.child.kill().expect("it can be killed");
        let rest = std::iter::from_fn(|| self.next_report()).collect();
        self.child.wait().expect("it has ended");
        rest
    }

    /// Waits for its end.
    pub fn finish(mut self) -> (Vec<String>, ExitStatus) {
        let rest = std::iter::from_fn(|| self.next_report()).collect();
        (rest, self.child.wait().expect("it has ended"))
    }
}

/// Sends on what a child reports, until it has ended or nobody listens.
fn forward(out: ChildStdout, reports: &Sender<String>) {
    let mut out = BufReader::new(out);
    let mut line = String::new();
    while out.read_line(&mut line).expect("its output is text") > 0 {
        // A line without an end was cut by the kill: the child never got to report it.
        if let Some(report) = line.strip_prefix(MARK).and_then(|line| line.strip_suffix('\n'))
            && reports.send(report.to_owned()).is_err()
        {
            return;
        }
        line.clear();
    }
}

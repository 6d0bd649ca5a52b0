//! Faults beneath a child process, by the shim in `tests/shim/faults.c`.
//!
//! Knows: how the shim is compiled and what its environment says. Must not know: what the child does.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

const SOURCE: &str = include_str!("../shim/faults.c");

/// What becomes of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process is killed, the operation is not done.
    KillBefore,
    /// The process is killed, the operation is done.
    KillAfter,
    /// It fails with EIO.
    Io,
    /// It fails with ENOSPC.
    NoSpace,
    /// It fails with EMFILE.
    NoHandles,
    /// It fails with ENOMEM.
    NoMemory,
    /// Half of the bytes of a write are written, and the caller is told so.
    Short,
    /// Half of the bytes of a write are written, and the write fails with EIO.
    Torn,
}

impl Fault {
    const fn name(self) -> &'static str {
        match self {
            Self::KillBefore => "kill-before",
            Self::KillAfter => "kill-after",
            Self::Io => "eio",
            Self::NoSpace => "enospc",
            Self::NoHandles => "emfile",
            Self::NoMemory => "enomem",
            Self::Short => "short",
            Self::Torn => "torn",
        }
    }
}

/// What the shim is to do beneath a child.
#[derive(Debug, Clone)]
pub struct Plan {
    dir: PathBuf,
    kinds: &'static str,
    matching: &'static str,
    at: u64,
    fault: Option<Fault>,
    stays: bool,
    trace: Option<PathBuf>,
    shadow: Option<PathBuf>,
    open_files_max: Option<u64>,
}

/// Every operation that changes something.
pub const CHANGES: &str = "wsdtcmru";
/// Syncs of files and of directories.
pub const SYNCS: &str = "sd";
/// Opens of every sort.
pub const OPENS: &str = "oc";
/// What takes space.
pub const SPENDING: &str = "wtcm";

impl Plan {
    /// Counts the operations of some kinds (letters, see the shim) beneath a directory.
    ///
    /// The directory must exist: its path is taken without symbolic links, and so must the child.
    pub fn counting(dir: &Path, kinds: &'static str) -> Self {
        Self {
            dir: dir.canonicalize().expect("the directory is there"),
            kinds,
            matching: "",
            at: 0,
            fault: None,
            stays: false,
            trace: None,
            shadow: None,
            open_files_max: None,
        }
    }

    /// Counts only operations on paths that contain this.
    #[must_use]
    pub const fn on(mut self, matching: &'static str) -> Self {
        self.matching = matching;
        self
    }

    /// The `at`-th operation, from 1, meets the fault.
    #[must_use]
    pub const fn once(mut self, fault: Fault, at: u64) -> Self {
        (self.fault, self.at) = (Some(fault), at);
        self
    }

    /// The `at`-th operation, from 1, and all after it meet the fault.
    #[must_use]
    pub const fn for_good(mut self, fault: Fault, at: u64) -> Self {
        self.stays = true;
        self.once(fault, at)
    }

    /// Writes down what was counted; see [`trace`].
    #[must_use]
    pub fn traced(mut self, file: &Path) -> Self {
        self.trace = Some(file.to_owned());
        self
    }

    /// Keeps what was synced in a directory that exists; see [`power`](crate::power).
    #[must_use]
    pub fn shadowed(mut self, dir: &Path) -> Self {
        self.shadow = Some(dir.to_owned());
        self
    }

    /// Limits the open files of the whole process.
    #[must_use]
    pub const fn open_files_max(mut self, limit: u64) -> Self {
        self.open_files_max = Some(limit);
        self
    }

    /// The environment of the child, to be passed to [`Victim::spawn`](crate::child::Victim::spawn).
    pub fn environment(&self, shim: &Path) -> Vec<(&'static str, String)> {
        let path = |path: &PathBuf| path.display().to_string();
        let mut says = vec![
            ("LD_PRELOAD", shim.display().to_string()),
            ("TIDAL_SHIM_DIR", path(&self.dir)),
            ("TIDAL_SHIM_KINDS", self.kinds.to_owned()),
            ("TIDAL_SHIM_MATCH", self.matching.to_owned()),
            ("TIDAL_SHIM_AT", self.at.to_string()),
            ("TIDAL_SHIM_STAYS", u8::from(self.stays).to_string()),
        ];
        says.extend(self.fault.map(|fault| ("TIDAL_SHIM_FAULT", fault.name().to_owned())));
        says.extend(self.trace.as_ref().map(|file| ("TIDAL_SHIM_TRACE", path(file))));
        says.extend(self.shadow.as_ref().map(|dir| ("TIDAL_SHIM_SHADOW", path(dir))));
        says.extend(self.open_files_max.map(|limit| ("TIDAL_SHIM_NOFILE", limit.to_string())));
        says
    }
}

/// An operation that the shim counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traced {
    /// The letter of its kind.
    pub kind: char,
    /// What it was on; of a rename, the new name.
    pub path: PathBuf,
    /// Whether it met the fault.
    pub met: bool,
}

/// The operations in a trace, in order; none when there is no trace.
pub fn trace(file: &Path) -> Vec<Traced> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = |line: &str| {
        let (line, met) = line.strip_suffix(" !").map_or((line, false), |line| (line, true));
        let mut words = line.splitn(3, ' ').skip(1);
        let kind = words.next().and_then(|kind| kind.chars().next()).expect("a kind");
        Traced { kind, path: words.next().expect("a path").into(), met }
    };
    text.lines().map(line).collect()
}

/// The compiled shim; or, said aloud, why there is none.
///
/// # Panics
///
/// Where `TIDAL_MUST_FAULT` is set, when there is none: nothing may be left out silently.
pub fn library() -> Option<&'static Path> {
    static COMPILED: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match COMPILED.get_or_init(compile) {
        Ok(library) => Some(library),
        Err(reason) => {
            left_out("faults beneath the process", reason);
            None
        }
    }
}

/// Says aloud that something could not be tested here.
///
/// # Panics
///
/// Where `TIDAL_MUST_FAULT` is set.
pub fn left_out(what: &str, reason: &str) {
    // Straight to the descriptor: the harness keeps what a passing test prints.
    let line = format!("\nNOT TESTED HERE: {what}: {reason}\n");
    let _ = std::io::stdout().write_all(line.as_bytes());
    assert!(std::env::var_os("TIDAL_MUST_FAULT").is_none(), "{what} must be tested: {reason}");
}

/// Compiles the shim beside the test binary, once for each version of its source.
fn compile() -> Result<PathBuf, String> {
    if !cfg!(all(target_os = "linux", target_pointer_width = "64", target_env = "gnu")) {
        return Err("the shim is for 64-bit Linux with glibc".to_owned());
    }
    let mut hasher = DefaultHasher::new();
    SOURCE.hash(&mut hasher);
    let exe = std::env::current_exe().map_err(|e| e.to_string())?;
    let library = exe.with_file_name(format!("tidal_faults-{:016x}.so", hasher.finish()));
    if library.exists() {
        return Ok(library);
    }
    // Under a name of its own first: another process may compile it at the same time.
    let unfinished = library.with_extension(format!("{}.tmp", std::process::id()));
    let mut cc = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-pthread", "-x", "c", "-o"])
        .arg(&unfinished)
        .arg("-")
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cc does not start: {e}"))?;
    let mut input = cc.stdin.take().expect("its input is a pipe");
    let fed = input.write_all(SOURCE.as_bytes());
    drop(input);
    let status = cc.wait().map_err(|e| e.to_string())?;
    fed.map_err(|e| e.to_string())?;
    if !status.success() {
        return Err(format!("cc: {status}"));
    }
    std::fs::rename(&unfinished, &library).map_err(|e| e.to_string())?;
    Ok(library)
}

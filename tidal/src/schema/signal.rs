//! Signal types: what is counted of one kind of event.
//!
//! Knows: what a declaration holds and when it is sound. Must not know: cells, columns, counts.

use super::decay::HalfLife;
use super::names;
use super::window::Window;
use crate::ids::Timestamp;
use crate::seq::Seq;

/// What the entities of a signal are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntityKind {
    /// Items: what is recommended.
    Item,
    /// Users, as the target of a signal (a profile that is viewed).
    User,
    /// Creators of items.
    Creator,
}

/// When a declaration joined the schema: it counts what the log holds after `seq`, and nothing
/// before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExtendedAt {
    /// The frame that holds the extension.
    pub seq: Seq,
    /// Engine time of that frame.
    pub time: Timestamp,
}

impl ExtendedAt {
    /// Declared when the schema was created: nothing came before.
    pub const CREATION: Self = Self { seq: Seq::ZERO, time: Timestamp::EPOCH };
}

/// A window that a signal declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowDef {
    /// The window.
    pub window: Window,
    /// From when on its events are counted.
    pub since: ExtendedAt,
}

/// A half-life that a signal declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HalfLifeDef {
    /// The half-life.
    pub half_life: HalfLife,
    /// From when on weights are added to its score.
    pub since: ExtendedAt,
}

/// A signal type: its name, what it is about, and what is kept of its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalDef {
    pub(super) name: String,
    pub(super) kind: EntityKind,
    /// Never empty. A position never changes its meaning: extensions append.
    pub(super) half_lives: Vec<HalfLifeDef>,
    /// Sorted, the shortest first, without all time.
    pub(super) windows: Vec<WindowDef>,
    pub(super) velocity: Option<ExtendedAt>,
    pub(super) engaging: Option<ExtendedAt>,
}

/// The most half-lives of one signal: each adds a score to every cell of the signal.
pub(super) const HALF_LIVES_MAX: usize = 4;

impl SignalDef {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its entities are.
    pub const fn kind(&self) -> EntityKind {
        self.kind
    }

    /// Its half-lives, the default first. Positions are stable: a later extension appends.
    pub fn half_lives(&self) -> &[HalfLifeDef] {
        &self.half_lives
    }

    /// The half-life of reads that name none.
    pub fn default_half_life(&self) -> HalfLife {
        self.half_lives[0].half_life
    }

    /// The position of a half-life in [`half_lives`](Self::half_lives).
    pub fn half_life_position(&self, half_life: HalfLife) -> Option<usize> {
        self.half_lives.iter().position(|def| def.half_life == half_life)
    }

    /// Its windows, the shortest first. All time is not among them: it is always counted.
    pub fn windows(&self) -> &[WindowDef] {
        &self.windows
    }

    /// Whether a window is counted; all time always is.
    pub fn has_window(&self, window: Window) -> bool {
        window == Window::AllTime || self.window(window).is_some()
    }

    /// From when on velocity is declared; `None` when it is not.
    pub const fn velocity(&self) -> Option<ExtendedAt> {
        self.velocity
    }

    /// From when on its events are engagements; `None` when they are none.
    pub const fn engaging(&self) -> Option<ExtendedAt> {
        self.engaging
    }

    /// The windows over which velocity can be read, each since both it and velocity were declared.
    ///
    /// These are the declared ones of 1 h, 24 h and 7 d: velocity over w needs 2w of history.
    pub fn velocity_windows(&self) -> impl Iterator<Item = WindowDef> {
        self.velocity.into_iter().flat_map(|velocity| {
            self.windows.iter().filter(|def| def.window.has_velocity()).map(move |def| {
                let since = if velocity.seq > def.since.seq { velocity } else { def.since };
                WindowDef { window: def.window, since }
            })
        })
    }

    /// When the signal itself was declared.
    pub fn since(&self) -> ExtendedAt {
        self.half_lives[0].since
    }

    pub(super) fn window(&self, window: Window) -> Option<&WindowDef> {
        self.windows.iter().find(|def| def.window == window)
    }

    /// The same, declared at `at`.
    pub(super) fn declared(mut self, at: ExtendedAt) -> Self {
        self.half_lives.iter_mut().for_each(|def| def.since = at);
        self.windows.iter_mut().for_each(|def| def.since = at);
        self.velocity = self.velocity.map(|_| at);
        self.engaging = self.engaging.map(|_| at);
        self
    }

    /// What is wrong with it, as a sentence.
    pub(super) fn validate(&self) -> Result<(), String> {
        names::validate("signal", &self.name)?;
        let name = &self.name;
        let count = self.half_lives.len();
        if !(1..=HALF_LIVES_MAX).contains(&count) {
            return Err(format!(
                "signal {name:?} has {count} half-lives: give it 1 to {HALF_LIVES_MAX}"
            ));
        }
        for (position, def) in self.half_lives.iter().enumerate() {
            if self.half_life_position(def.half_life) != Some(position) {
                let half_life = def.half_life;
                return Err(format!(
                    "signal {name:?} has the half-life {half_life} twice: remove one"
                ));
            }
        }
        let ascending = self.windows.is_sorted_by(|left, right| left.window < right.window);
        if !ascending || self.window(Window::AllTime).is_some() {
            return Err(format!("signal {name:?} has windows out of order"));
        }
        if self.velocity.is_some() && self.velocity_windows().next().is_none() {
            return Err(format!(
                "signal {name:?} asks for velocity but has no window for it: add one of 1h, 24h, 7d"
            ));
        }
        if self.engaging.is_some() && self.kind != EntityKind::Item {
            return Err(format!(
                "signal {name:?} is engaging but not about items: only items are recommended"
            ));
        }
        Ok(())
    }
}

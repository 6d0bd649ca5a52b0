//! The bucket list of one cell: how many events fell into which minute, for all windows at once.
//!
//! Knows: the list and its three layouts. Must not know: weights, items, clocks.
//!
//! The list is sorted by label, each entry with the count of all events up to and including it
//! (so a window is two look-ups and a subtraction). Layouts, smallest that fits:
//!
//! ```text
//! inline   up to 4 entries in the cell itself   u32: label − base 16 | cumulative count 16
//! narrow   in the arena                         u32: the same
//! wide     in the arena                         2 × u32: label − base 16 | count high 16 | count low 32
//! ```
//!
//! Labels are coarsened, and entries that have left every window dropped, only when the list is out
//! of room: what a reader or a digest sees does not depend on when that was.

use super::arena::{Arena, Class};
use super::grains::{GrainsAt, Minute, Span};
use crate::codec::{DecodeError, Put, Reader};

const INLINE: usize = 4;
const NARROW_COUNT_MAX: u64 = 0xffff;
const WIDE_COUNT_MAX: u64 = 0xffff_ffff_ffff;
/// A list that is read has room to count on.
const RESTORED_COUNT_MAX: u64 = WIDE_COUNT_MAX / 2;
const OFFSET_MAX: u32 = 0xffff;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Inline,
    Narrow(Class),
    Wide(Class),
}

/// A bucket list. It owns a chunk of its column's arena, so it is given back by
/// [`release`](Self::release), never just dropped.
#[derive(Debug)]
pub(crate) struct Buckets {
    base: Minute,
    chunk: u32,
    inline: [u32; INLINE],
    len: u16,
    layout: Layout,
}

impl Buckets {
    pub(crate) const fn new() -> Self {
        Self { base: 0, chunk: 0, inline: [0; INLINE], len: 0, layout: Layout::Inline }
    }

    /// Counts one event of this minute.
    #[inline]
    pub(crate) fn add(&mut self, minute: Minute, grains: &GrainsAt, arena: &mut Arena) {
        let Some(label) = grains.label(minute) else { return };
        if !self.add_in_place(label, arena) {
            self.rebuild(Some(label), grains, arena);
        }
    }

    /// The number of events in a span.
    #[inline]
    pub(crate) fn count(&self, span: Span, arena: &Arena) -> u64 {
        let view = self.view(arena);
        if view.len == 0 {
            return 0;
        }
        let last = view.len - 1;
        let upper = if self.base + view.offset(last) < span.to {
            view.count(last)
        } else {
            view.count_before(span.to.saturating_sub(self.base))
        };
        upper - view.count_before(span.from.saturating_sub(self.base))
    }

    /// The word that the next event most likely changes.
    #[inline]
    pub(crate) fn last_word(&self, arena: &Arena) -> u32 {
        let view = self.view(arena);
        view.words.get(view.len.saturating_sub(1)).copied().unwrap_or(0)
    }

    /// The youngest label, if there is any.
    pub(crate) fn last_label(&self, arena: &Arena) -> Option<Minute> {
        let view = self.view(arena);
        let last = view.len.checked_sub(1)?;
        Some(self.base + view.offset(last))
    }

    /// The number of events in all entries.
    pub(crate) fn total(&self, arena: &Arena) -> u64 {
        let view = self.view(arena);
        view.len.checked_sub(1).map_or(0, |last| view.count(last))
    }

    /// Every entry as (label, events in it), oldest first.
    pub(crate) fn entries<'a>(
        &'a self,
        arena: &'a Arena,
    ) -> impl Iterator<Item = (Minute, u64)> + 'a {
        let view = self.view(arena);
        (0..view.len).map(move |i| {
            let before = if i == 0 { 0 } else { view.count(i - 1) };
            (self.base + view.offset(i), view.count(i) - before)
        })
    }

    /// Every entry as it stands once all that may be coarsened is, and all that may be dropped is.
    pub(crate) fn canonical(&self, grains: &GrainsAt, arena: &Arena) -> Vec<(Minute, u64)> {
        let mut merged: Vec<(Minute, u64)> = Vec::with_capacity(self.len as usize + 1);
        for (label, count) in self.entries(arena) {
            let Some(label) = grains.label(label) else { continue };
            match merged.last_mut() {
                Some((last, sum)) if *last == label => *sum += count,
                _ => merged.push((label, count)),
            }
        }
        merged
    }

    /// Takes out what lies after a minute: time was set back from where `grains` are, and it never
    /// came.
    ///
    /// The list is made canonical first: seen from an earlier time it shows how far it was coarsened,
    /// which must not depend on when it last ran out of room.
    pub(crate) fn drop_after(&mut self, last: Minute, grains: &GrainsAt, arena: &mut Arena) {
        let mut kept = self.canonical(grains, arena);
        kept.retain(|&(label, _)| label <= last);
        std::mem::replace(self, Self::new()).release(arena);
        self.store(&kept, arena);
    }

    /// Gives the arena's chunk back.
    pub(crate) fn release(self, arena: &mut Arena) {
        if let Layout::Narrow(class) | Layout::Wide(class) = self.layout {
            arena.release(class, self.chunk);
        }
    }

    pub(crate) fn encode(&self, arena: &Arena, out: &mut Vec<u8>) {
        out.put_varint(u64::from(self.len));
        let mut previous = 0;
        for (label, count) in self.entries(arena) {
            out.put_varint(u64::from(label - previous));
            out.put_varint(count);
            previous = label;
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>, arena: &mut Arena) -> Result<Self, DecodeError> {
        let count = reader.count(2)?;
        let mut entries = Vec::with_capacity(count);
        let (mut label, mut total) = (0u64, 0u64);
        for i in 0..count {
            let delta = reader.varint()?;
            let events = reader.varint()?;
            label = label
                .checked_add(delta)
                .filter(|&l| l <= u64::from(u32::MAX / 2))
                .ok_or(MALFORMED)?;
            total =
                total.checked_add(events).filter(|&t| t <= RESTORED_COUNT_MAX).ok_or(MALFORMED)?;
            if events == 0 || (i > 0 && delta == 0) {
                return Err(MALFORMED);
            }
            entries.push((label as Minute, events));
        }
        let span = entries.last().map_or(0, |last| last.0 - entries[0].0);
        if span > OFFSET_MAX || count > ENTRIES_MAX {
            return Err(MALFORMED);
        }
        let mut buckets = Self::new();
        buckets.store(&entries, arena);
        Ok(buckets)
    }

    /// Counts the event where that needs no room; false when it does.
    #[inline]
    fn add_in_place(&mut self, label: Minute, arena: &mut Arena) -> bool {
        let offset = label.wrapping_sub(self.base);
        let len = self.len as usize;
        if len == 0 || label < self.base || offset > OFFSET_MAX {
            return false;
        }
        let (words, wide) = match self.layout {
            Layout::Inline => (&mut self.inline[..], false),
            Layout::Narrow(class) => (arena.chunk_mut(class, self.chunk), false),
            Layout::Wide(class) => (arena.chunk_mut(class, self.chunk), true),
        };
        let mut view = ViewMut { words, wide };
        let (last, total) = view.get(len - 1);
        let limit = if wide { WIDE_COUNT_MAX } else { NARROW_COUNT_MAX };
        if total == limit {
            return false;
        }
        if offset == last {
            view.set(len - 1, offset, total + 1);
            return true;
        }
        if offset > last {
            if len >= view.capacity().min(ENTRIES_MAX) {
                return false;
            }
            view.set(len, offset, total + 1);
            self.len += 1;
            return true;
        }
        // A late event: every entry from its own on counts one more.
        let Some(at) = (0..len).rev().find(|&i| view.get(i).0 <= offset) else { return false };
        if view.get(at).0 != offset {
            return false;
        }
        for i in at..len {
            let (offset, count) = view.get(i);
            view.set(i, offset, count + 1);
        }
        true
    }

    /// Writes the list anew, coarsened, with room to grow.
    #[cold]
    fn rebuild(&mut self, label: Option<Minute>, grains: &GrainsAt, arena: &mut Arena) {
        let mut entries = self.canonical(grains, arena);
        if let Some(label) = label {
            let at = entries.partition_point(|&(other, _)| other < label);
            match entries.get_mut(at) {
                Some((other, count)) if *other == label => *count += 1,
                _ => entries.insert(at, (label, 1)),
            }
        }
        std::mem::replace(self, Self::new()).release(arena);
        self.store(&entries, arena);
    }

    /// Fills an empty list. Labels ascend and span at most 2^16 minutes.
    fn store(&mut self, entries: &[(Minute, u64)], arena: &mut Arena) {
        let Some(&(base, _)) = entries.first() else { return };
        let total: u64 = entries.iter().map(|&(_, count)| count).sum();
        assert!(total <= WIDE_COUNT_MAX, "a cell counts at most 2^48 events in its windows");
        assert!(
            entries.len() <= ENTRIES_MAX,
            "a list that is coarsened has room in the largest chunk"
        );
        let room = entries.len() + entries.len() / 4 + 1;
        // Half of the narrow range is left for what comes before the next rebuild.
        self.layout = if total > NARROW_COUNT_MAX / 2 {
            Layout::Wide(Class::for_words(room * 2))
        } else if entries.len() <= INLINE {
            Layout::Inline
        } else {
            Layout::Narrow(Class::for_words(room))
        };
        self.base = base;
        self.len = entries.len() as u16;
        let (words, wide) = match self.layout {
            Layout::Inline => (&mut self.inline[..], false),
            Layout::Narrow(class) => {
                self.chunk = arena.allocate(class);
                (arena.chunk_mut(class, self.chunk), false)
            }
            Layout::Wide(class) => {
                self.chunk = arena.allocate(class);
                (arena.chunk_mut(class, self.chunk), true)
            }
        };
        let mut view = ViewMut { words, wide };
        let mut cumulative = 0;
        for (i, &(label, count)) in entries.iter().enumerate() {
            cumulative += count;
            assert!(label - base <= OFFSET_MAX, "a list spans at most 2^16 minutes");
            view.set(i, label - base, cumulative);
        }
    }

    #[inline]
    fn view<'a>(&'a self, arena: &'a Arena) -> View<'a> {
        let len = self.len as usize;
        match self.layout {
            Layout::Inline => View { words: &self.inline, len, wide: false },
            Layout::Narrow(class) => {
                View { words: arena.chunk(class, self.chunk), len, wide: false }
            }
            Layout::Wide(class) => View { words: arena.chunk(class, self.chunk), len, wide: true },
        }
    }
}

/// The most entries of a list. Coarsened it needs 812 at most: with the windows of an hour and of thirty
/// days, and velocity, minutes are told apart until the whole 8-hour bucket that they lie in has left twice
/// an hour, which takes 604 of them, and 120 more lie ahead where `FUTURE_SKEW_MAX` is allowed; before those
/// there are 88 buckets of 8 hours. Windows in between need fewer. A wide list of this many, with room to
/// grow, fits the largest chunk.
const ENTRIES_MAX: usize = 816;
const MALFORMED: DecodeError = DecodeError::Malformed("a bucket list that no writer makes");

struct View<'a> {
    words: &'a [u32],
    len: usize,
    wide: bool,
}

impl View<'_> {
    #[inline]
    fn offset(&self, i: usize) -> u32 {
        if self.wide { self.words[2 * i] >> 16 } else { self.words[i] >> 16 }
    }

    #[inline]
    fn count(&self, i: usize) -> u64 {
        if self.wide {
            wide_count(self.words[2 * i], self.words[2 * i + 1])
        } else {
            u64::from(self.words[i] & 0xffff)
        }
    }

    /// The number of events in entries whose offset is below `edge`.
    #[inline]
    fn count_before(&self, edge: u32) -> u64 {
        let before = if self.wide {
            let (mut low, mut high) = (0, self.len);
            while low < high {
                let middle = (low + high) / 2;
                if self.offset(middle) < edge { low = middle + 1 } else { high = middle }
            }
            low
        } else {
            self.words[..self.len].partition_point(|&word| (word >> 16) < edge)
        };
        if before == 0 { 0 } else { self.count(before - 1) }
    }
}

struct ViewMut<'a> {
    words: &'a mut [u32],
    wide: bool,
}

impl ViewMut<'_> {
    fn capacity(&self) -> usize {
        if self.wide { self.words.len() / 2 } else { self.words.len() }
    }

    #[inline]
    fn get(&self, i: usize) -> (u32, u64) {
        if self.wide {
            (self.words[2 * i] >> 16, wide_count(self.words[2 * i], self.words[2 * i + 1]))
        } else {
            (self.words[i] >> 16, u64::from(self.words[i] & 0xffff))
        }
    }

    #[inline]
    fn set(&mut self, i: usize, offset: u32, count: u64) {
        if self.wide {
            self.words[2 * i] = (offset << 16) | (count >> 32) as u32;
            self.words[2 * i + 1] = count as u32;
        } else {
            self.words[i] = (offset << 16) | count as u32;
        }
    }
}

const fn wide_count(high: u32, low: u32) -> u64 {
    (((high & 0xffff) as u64) << 32) | low as u64
}

#[cfg(test)]
mod tests {
    use super::super::grains::Grains;
    use super::*;
    use crate::ids::Timestamp;
    use crate::schema::Window;
    use proptest::prelude::*;

    const WINDOWS: [Window; 4] =
        [Window::OneHour, Window::TwentyFourHours, Window::SevenDays, Window::ThirtyDays];
    const BASE: u64 = 28_000_000;

    fn at(minute: u64) -> Timestamp {
        Timestamp::from_secs(minute * 60)
    }

    /// Events as (minutes that pass before it, how late it is), with the windows checked against a
    /// plain list of minutes after each.
    fn check(windows: &[Window], velocity: bool, events: &[(u64, u64)]) {
        let grains = Grains::new(windows, velocity);
        let mut arena = Arena::default();
        let mut buckets = Buckets::new();
        let mut plain: Vec<Minute> = Vec::new();
        let mut now = BASE;
        for &(passed, late) in events {
            now += passed;
            let minute = (now - late.min(now)) as Minute;
            buckets.add(minute, &grains.at(at(now)), &mut arena);
            plain.push(minute);
        }
        for lag in 0..=5 {
            for &window in windows {
                let mut span = Span::of(window, at(now - lag)).expect("a span");
                for _ in 0..if velocity && window.has_velocity() { 2 } else { 1 } {
                    let expected =
                        plain.iter().filter(|&&m| m >= span.from && m < span.to).count() as u64;
                    assert_eq!(buckets.count(span, &arena), expected, "{window:?}, lag {lag}");
                    span = span.before();
                }
            }
        }
        let mut bytes = Vec::new();
        buckets.encode(&arena, &mut bytes);
        let mut restored_arena = Arena::default();
        let restored = Buckets::decode(&mut Reader::new(&bytes), &mut restored_arena)
            .expect("what was encoded is decoded");
        let grains = grains.at(at(now));
        assert_eq!(
            buckets.canonical(&grains, &arena),
            restored.canonical(&grains, &restored_arena)
        );
    }

    fn events() -> impl Strategy<Value = Vec<(u64, u64)>> {
        let passed = prop_oneof![5 => 0u64..3, 3 => 0u64..40, 2 => 0u64..1_000, 1 => 0u64..60_000];
        let late = prop_oneof![6 => Just(0u64), 2 => 0u64..30, 1 => 0u64..3_000, 1 => 0u64..50_000];
        prop::collection::vec((passed, late), 1..400)
    }

    proptest! {
        #[test]
        fn every_window_counts_what_a_plain_list_counts(
            events in events(), chosen in prop::sample::subsequence(&WINDOWS, 1..=4), velocity: bool,
        ) {
            check(&chosen, velocity, &events);
        }

        #[test]
        fn garbage_is_an_error_or_a_list_never_a_panic(bytes: Vec<u8>) {
            let mut arena = Arena::default();
            if let Ok(list) = Buckets::decode(&mut Reader::new(&bytes), &mut arena) {
                list.release(&mut arena);
            }
        }
    }

    /// How many labels are told apart at a time, if there are events in every minute up to so many ahead.
    fn labels_at(now: u64, ahead: u64, grains: &Grains) -> usize {
        let at_now = grains.at(at(now));
        let mut labels = 0;
        let mut minute = (now + ahead) as Minute;
        while let Some(label) = at_now.label(minute) {
            labels += 1;
            minute = label - 1;
        }
        labels
    }

    /// Every choice of windows, with velocity and without.
    fn all_grains() -> impl Iterator<Item = Grains> {
        (1..1 << WINDOWS.len()).flat_map(|chosen: usize| {
            let chosen = WINDOWS.iter().enumerate().filter(move |(i, _)| chosen >> i & 1 == 1);
            let chosen: Vec<Window> = chosen.map(|(_, &window)| window).collect();
            [false, true].map(|velocity| Grains::new(&chosen, velocity))
        })
    }

    const AHEAD_MAX: u64 = crate::options::FUTURE_SKEW_MAX.as_secs() / 60;

    #[test]
    fn no_choice_of_windows_and_skew_needs_more_entries_than_there_is_room_for() {
        // Every grain divides 8 hours, so what is needed repeats with them. More minutes ahead are more
        // labels, never fewer.
        let coarsest = u64::from(WINDOWS[3].grain_minutes().expect("a window with a grain"));
        let needed = |grains: &Grains| {
            let at = |ahead| (BASE..BASE + coarsest).map(move |now| (now, ahead));
            let phases = [0, 1, AHEAD_MAX / 2, AHEAD_MAX].into_iter().flat_map(at);
            phases.map(|(now, ahead)| labels_at(now, ahead, grains)).max().expect("a phase")
        };
        let most = all_grains().map(|grains| needed(&grains)).max().expect("a choice");
        assert!(most <= ENTRIES_MAX, "{most} entries are needed");
        let words = 2 * (ENTRIES_MAX + ENTRIES_MAX / 4 + 1);
        assert!(Class::for_words(words).words() >= words, "a wide list with room to grow fits");
    }

    #[test]
    fn the_longest_list_is_written_and_read_back_with_any_windows() {
        for grains in all_grains() {
            let mut arena = Arena::default();
            let mut buckets = Buckets::new();
            let oldest = BASE - 31 * 1_440;
            for minute in oldest..BASE + AHEAD_MAX {
                buckets.add(minute as Minute, &grains.at(at(BASE)), &mut arena);
            }
            for now in BASE..BASE + 480 {
                buckets.add((now + AHEAD_MAX) as Minute, &grains.at(at(now)), &mut arena);
            }
            let mut bytes = Vec::new();
            buckets.encode(&arena, &mut bytes);
            let restored = Buckets::decode(&mut Reader::new(&bytes), &mut Arena::default());
            restored.expect("a list that a writer makes is read back");
        }
    }

    #[test]
    fn a_cell_with_events_in_every_minute_that_may_lie_ahead_fits_and_comes_back() {
        let grains = Grains::new(&WINDOWS, true);
        let mut arena = Arena::default();
        let mut buckets = Buckets::new();
        for now in BASE..BASE + 50_000 {
            let at_now = grains.at(at(now));
            buckets.add((now + AHEAD_MAX) as Minute, &at_now, &mut arena);
            buckets.add((now + now % AHEAD_MAX) as Minute, &at_now, &mut arena);
        }
        let mut bytes = Vec::new();
        buckets.encode(&arena, &mut bytes);
        let restored = Buckets::decode(&mut Reader::new(&bytes), &mut Arena::default());
        restored.expect("a list that a writer makes is read back");
    }

    #[test]
    fn a_hot_cell_counts_beyond_sixteen_bits() {
        let events: Vec<_> = (0..150_000u64).map(|i| (u64::from(i % 5_000 == 0), 0)).collect();
        check(&WINDOWS, false, &events);
    }

    #[test]
    fn a_dense_cell_fits_the_largest_chunk() {
        let events: Vec<_> = (0..130_000u64).map(|i| (1, i % 7)).collect();
        check(&WINDOWS, true, &events);
        let hot: Vec<_> = (0..400_000u64).map(|i| (u64::from(i % 3 == 0), 0)).collect();
        check(&WINDOWS, true, &hot);
    }
}

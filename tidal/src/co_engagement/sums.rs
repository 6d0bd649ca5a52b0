//! Sums by number: the scratch of an answer.
//!
//! Knows: small numbers and what they gathered. Must not know: what a number stands for.
//!
//! An answer adds some thousand terms to some hundred sums. The sums lie in an array by number, each
//! with the answer that it belongs to, so that beginning anew costs nothing and no term is looked up.

/// What a number has gathered.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Gathered {
    pub(super) sum: f64,
    /// Bit p is set when seed p gave a part.
    pub(super) seeds: u32,
    answer: u32,
}

/// Sums of one answer.
#[derive(Debug, Default)]
pub(super) struct Sums {
    answer: u32,
    by_number: Vec<Gathered>,
    /// The numbers that have a sum, in the order in which they came.
    pub(super) numbers: Vec<u32>,
}

impl Sums {
    /// Forgets all sums, and makes room for numbers below `end`.
    pub(super) fn begin(&mut self, end: usize) {
        self.numbers.clear();
        if self.answer == u32::MAX {
            self.by_number.clear();
            self.answer = 0;
        }
        self.answer += 1;
        if self.by_number.len() < end {
            self.by_number.resize(end, Gathered::default());
        }
    }

    /// Adds a term, of these seeds, to a number's sum.
    #[inline]
    pub(super) fn add(&mut self, number: u32, term: f64, seeds: u32) {
        let gathered = &mut self.by_number[number as usize];
        if gathered.answer == self.answer {
            gathered.sum += term;
            gathered.seeds |= seeds;
        } else {
            *gathered = Gathered { sum: term, seeds, answer: self.answer };
            self.numbers.push(number);
        }
    }

    /// Memory held, in bytes.
    pub(super) fn size_bytes(&self) -> u64 {
        let sums = self.by_number.capacity() * size_of::<Gathered>();
        (sums + self.numbers.capacity() * size_of::<u32>()) as u64
    }

    /// What a number has gathered, if anything.
    #[inline]
    pub(super) fn get(&self, number: u32) -> Option<Gathered> {
        self.by_number.get(number as usize).filter(|g| g.answer == self.answer).copied()
    }

    /// All numbers that gathered something, in the order in which they came.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, Gathered)> {
        self.numbers.iter().map(|&number| (number, self.by_number[number as usize]))
    }

    /// The largest sum; 0 when there is none.
    pub(super) fn largest(&self) -> f64 {
        self.iter().map(|(_, gathered)| gathered.sum).fold(0.0, f64::max)
    }

    /// Multiplies every sum.
    pub(super) fn scale(&mut self, by: f64) {
        for &number in &self.numbers {
            self.by_number[number as usize].sum *= by;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_sees_nothing_of_the_one_before() {
        let mut tally = Sums::default();
        tally.begin(4);
        tally.add(3, 1.5, 1);
        tally.add(3, 1.0, 4);
        tally.add(0, 9.0, 2);
        assert_eq!(tally.get(3).map(|g| (g.sum, g.seeds)), Some((2.5, 5)));
        assert_eq!((tally.numbers.as_slice(), tally.largest()), (&[3, 0][..], 9.0));
        tally.scale(2.0);
        assert_eq!(tally.get(0).map(|g| g.sum), Some(18.0));
        tally.begin(9);
        assert!((0..9).all(|number| tally.get(number).is_none()) && tally.largest() == 0.0);
    }

    #[test]
    fn numbers_of_answers_may_come_round() {
        let mut tally = Sums { answer: u32::MAX - 1, ..Sums::default() };
        for term in [1.0, 2.0, 3.0] {
            tally.begin(1);
            assert!(tally.get(0).is_none());
            tally.add(0, term, 0);
            assert_eq!(tally.largest(), term);
        }
    }
}

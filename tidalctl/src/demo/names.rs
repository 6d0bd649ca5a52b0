//! Names of things one could buy.
//!
//! Knows: words. Must not know: who buys them.

const ADJECTIVES: [&str; 24] = [
    "amber", "birch", "brass", "cedar", "copper", "coral", "cosy", "felt", "folding", "glass",
    "granite", "indigo", "linen", "little", "marble", "olive", "plain", "quiet", "round", "rustic",
    "silver", "tall", "velvet", "woven",
];
const NOUNS: [&str; 25] = [
    "basket", "bench", "blanket", "bowl", "candle", "chair", "clock", "cushion", "desk", "drawer",
    "frame", "jug", "kettle", "lamp", "mirror", "mug", "pan", "plate", "rug", "shelf", "stool",
    "table", "teapot", "tray", "vase",
];

/// The name of item `index`, such as `velvet-kettle-12`; no two items have the same.
pub(crate) fn item_name(index: usize) -> String {
    // 24 and 25 have no common divisor: both words change from one item to the next, and a pair
    // comes back only after all 600.
    let pair = ADJECTIVES.len() * NOUNS.len();
    let adjective = ADJECTIVES[index % ADJECTIVES.len()];
    let noun = NOUNS[index % NOUNS.len()];
    format!("{adjective}-{noun}-{}", index / pair + 1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_items_share_a_name() {
        let names: HashSet<String> = (0..10_000).map(item_name).collect();
        assert_eq!(names.len(), 10_000);
    }
}

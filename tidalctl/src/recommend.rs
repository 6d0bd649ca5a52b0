//! `tidalctl recommend`: what a session goes on to.
//!
//! Knows: the question and how answers are laid out. Must not know: how the engine finds them.

use serde_json::{Value, json};

use crate::cli::{Method, RecommendArgs};
use crate::engine::{Engine, RecommendedItem, Wish};
use crate::failure::Failure;
use crate::print::{self, Lean, Table};

/// Carries out `tidalctl recommend`.
///
/// # Errors
///
/// When an item or the cohort is unknown, no signal is engaging, or the database cannot be opened.
pub(crate) fn run(args: &RecommendArgs) -> anyhow::Result<()> {
    if args.method == Method::Hot {
        return Err(Failure::usage("--method hot asks for no session")
            .hint("tidalctl top --by hot has what is hot")
            .into());
    }
    let engine = Engine::open(&args.dir)?;
    let wish = Wish {
        session: &args.items,
        method: args.method,
        cohort: args.cohort.as_deref(),
        k: args.k as usize,
    };
    let items = engine.recommend(&wish)?;
    engine.close()?;
    if args.json {
        return Ok(print::json(&as_json(&items))?);
    }
    Ok(print::out(&as_text(&items))?)
}

fn as_text(items: &[RecommendedItem]) -> String {
    if items.is_empty() {
        return "nothing: no visit had these items with others\n".to_owned();
    }
    let columns = [
        ("#", Lean::Right),
        ("item", Lean::Left),
        ("score", Lean::Right),
        ("because of", Lean::Left),
    ];
    let mut table = Table::new(&columns);
    for (place, item) in (1u64..).zip(items) {
        let because = item.because.join(", ");
        table.row([place.to_string(), item.name.clone(), print::value(item.score), because]);
    }
    table.render()
}

fn as_json(items: &[RecommendedItem]) -> Value {
    let row = |(rank, item): (u64, &RecommendedItem)| json!({ "rank": rank, "item": item.name, "score": item.score, "because": item.because });
    json!({ "items": (1u64..).zip(items).map(row).collect::<Vec<Value>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_stands_beside_what_leads_to_it() {
        let because = vec!["chair".to_owned(), "lamp".to_owned()];
        let items = [RecommendedItem { name: "desk".to_owned(), score: 0.25, because }];
        let text = as_text(&items);
        assert!(text.ends_with("  1  desk  0.250  chair, lamp\n"), "{text}");
        assert_eq!(as_json(&items)["items"][0]["because"][1], "lamp");
        assert!(as_text(&[]).starts_with("nothing"));
    }
}

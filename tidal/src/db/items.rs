//! Items: metadata, hiding, deleting; and the dictionary of text ids.

use std::collections::HashMap;

use super::write::checked;
use super::{Ack, TidalDb, check_size};
use crate::engine::encoded;
use crate::error::{Error, Result};
use crate::ids::EntityId;
use crate::items::METADATA;
use crate::record::{Record, decode_attributes, encode_attributes};

/// Texts of one record: far below the log's limit for a frame, whatever their lengths.
const TEXTS_MAX: usize = 16_384;

impl TidalDb {
    /// Replaces an item's metadata. Signals on items that were never written are accepted all the
    /// same.
    ///
    /// # Errors
    ///
    /// - [`InvalidArgument`](Error::InvalidArgument), [`TooLarge`](Error::TooLarge): a key without a
    ///   name, or more than the limits.
    /// - Those of [`Ticket::wait`](crate::Ticket::wait).
    pub fn write_item(&self, item: EntityId, metadata: &HashMap<String, String>) -> Result<Ack> {
        let metadata = checked("item metadata", metadata, &self.options)?;
        self.write_record(&Record::WriteItem(item, &encode_attributes(&metadata)))
    }

    /// The same as [`write_item`](Self::write_item).
    ///
    /// # Errors
    ///
    /// As [`write_item`](Self::write_item).
    pub fn write_item_with_metadata(
        &self,
        item: EntityId,
        metadata: &HashMap<String, String>,
    ) -> Result<Ack> {
        self.write_item(item, metadata)
    }

    /// An item's metadata, if it has any.
    ///
    /// # Errors
    ///
    /// [`Store`](Error::Store) or [`Corrupt`](Error::Corrupt) when neither checkpoint store can give
    /// the row.
    pub fn get_item_metadata(&self, item: EntityId) -> Result<Option<HashMap<String, String>>> {
        let row = match &self.stores {
            Some(stores) => stores.row(&self.state.metadata, item.get())?,
            None => self.state.metadata.pending(item.get()).flatten().map(|row| row.to_vec()),
        };
        let Some(row) = row else { return Ok(None) };
        let metadata =
            decode_attributes(&row).map_err(|e| e.of(format!("row {item} of table {METADATA}")))?;
        Ok(Some(metadata.into_iter().collect()))
    }

    /// Removes an item's metadata, its scores and counts under every signal of items and every cohort,
    /// its edges and its place in trails: it is in no answer any more. Collections keep it. Whether it is hidden stays as it is, and so does a user or creator of the same number.
    /// Deleting what is not there is no error. Of an item that was popular all edges may have to be
    /// walked, by the writer: 11 ms for a million.
    ///
    /// # Errors
    ///
    /// Those of [`Ticket::wait`](crate::Ticket::wait).
    pub fn delete_item(&self, item: EntityId) -> Result<Ack> {
        self.write_record(&Record::DeleteItem(item))
    }

    /// Keeps an item out of every ranking by signals of items, and of all neighbours and recommendations.
    /// It counts on, and leads to others. This has nothing to do with a signal that may be called "hide".
    ///
    /// # Errors
    ///
    /// Those of [`Ticket::wait`](crate::Ticket::wait).
    pub fn hide_item(&self, item: EntityId) -> Result<Ack> {
        self.write_record(&Record::HideItem(item))
    }

    /// Lets a hidden item into rankings again.
    ///
    /// # Errors
    ///
    /// Those of [`Ticket::wait`](crate::Ticket::wait).
    pub fn show_item(&self, item: EntityId) -> Result<Ack> {
        self.write_record(&Record::ShowItem(item))
    }

    /// Whether an item is kept out of rankings.
    pub fn is_hidden(&self, item: EntityId) -> bool {
        self.state.is_hidden(item)
    }

    /// The ids of texts, in their order; a text that has none gets one, in the log. The same text
    /// has the same id for ever. Ids start at 2^52, above the numbers that callers choose themselves.
    ///
    /// # Errors
    ///
    /// - [`InvalidArgument`](Error::InvalidArgument) for an empty text,
    ///   [`TooLarge`](Error::TooLarge) for one beyond the limit; nothing was written.
    /// - Those of [`Ticket::wait`](crate::Ticket::wait).
    pub fn intern(&self, texts: &[&str]) -> Result<Vec<EntityId>> {
        for text in texts {
            if text.is_empty() {
                return Err(Error::invalid("text", "it is empty"));
            }
            check_size("a text", text.len(), self.options.text_size_bytes_max)?;
        }
        let known = self.state.dictionary.find_all(texts);
        let missing: Vec<&str> = texts
            .iter()
            .zip(&known)
            .filter(|(_, id)| id.is_none())
            .map(|(text, _)| *text)
            .collect();
        let mut fresh = Vec::with_capacity(missing.len());
        for some in missing.chunks(TEXTS_MAX) {
            let body = encoded(&Record::Intern(some.to_vec()))?;
            fresh.extend(self.send(body, some.len(), None, None, false)?.wait_for_ids()?);
        }
        let mut fresh = fresh.into_iter();
        let ids = known.into_iter().map(|id| id.or_else(|| fresh.next()));
        Ok(ids.map(|id| id.expect("every missing text was given an id")).collect())
    }

    /// The id of a text, if it has one.
    pub fn lookup_text(&self, text: &str) -> Option<EntityId> {
        self.state.dictionary.find(text)
    }

    /// The text of an id that [`intern`](Self::intern) gave.
    pub fn entity_text(&self, id: EntityId) -> Option<String> {
        self.state.dictionary.text(id).map(|text| text.to_string())
    }
}

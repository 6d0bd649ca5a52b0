//! placeholder until the checkpoint branch joins
pub(crate) struct ColdTable { id: u8, rows: parking_lot::Mutex<std::collections::BTreeMap<u64, Option<std::sync::Arc<[u8]>>>> }
impl ColdTable {
    pub(crate) fn new(id: u8) -> Self { Self { id, rows: Default::default() } }
    pub(crate) fn put(&self, key: u64, row: Option<Vec<u8>>) { let _ = self.id; self.rows.lock().insert(key, row.map(Into::into)); }
}

//! Helpers for reading the rows of all tables: text columns, and the checksum of a row.

use rusqlite::Row;

use crate::image::Hasher;

/// The text in a column; `None` if it is not text.
pub(super) fn text<'row>(row: &'row Row<'_>, column: usize) -> Option<&'row str> {
    row.get_ref(column).ok()?.as_str().ok()
}

/// A checksum of these parts in this order, to detect disk errors.
pub(super) fn sum(parts: &[&[u8]]) -> String {
    let mut hasher = Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finish().hex()[..16].to_owned()
}

//! Keeps only one copy of equal texts.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

/// The texts seen so far. The reports of a run with many images contain the same digests again and
/// again, so sharing them saves memory.
#[derive(Default)]
pub struct SharedTexts(Mutex<HashSet<Arc<str>>>);

impl SharedTexts {
    /// The copy that is kept of this text. Keeps `text` itself if it is new.
    pub fn share(&self, text: &Arc<str>) -> Arc<str> {
        let mut all = self.0.lock();
        if let Some(first) = all.get(text) {
            return first.clone();
        }
        all.insert(text.clone());
        text.clone()
    }
}

//! Texts that are kept once, however many values have them.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

/// Texts that were seen. In a run of many images, their reports name the same layers again and again.
#[derive(Default)]
pub struct SharedTexts(Mutex<HashSet<Arc<str>>>);

impl SharedTexts {
    /// The first text that was equal to this one.
    pub fn share(&self, text: &Arc<str>) -> Arc<str> {
        let mut all = self.0.lock();
        if let Some(first) = all.get(text) {
            return first.clone();
        }
        all.insert(text.clone());
        text.clone()
    }
}

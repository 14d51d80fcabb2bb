//! Finds out when a pull is complete, for `--until-pulled`.
//!
//! A client does not say when it is done, and it skips layers that it already has. So a pull counts
//! as complete when a manifest was sent, no request is running, every requested blob was sent to
//! its end, and there were no requests for a while. This time is short if the image's config and
//! all its layers were sent, and longer if some were not.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::image::Digest;

/// How long there must be no requests after a pull of all blobs.
const QUIET_AFTER_ALL: Duration = Duration::from_secs(1);

/// How long there must be no requests after a pull that left out some blobs.
const QUIET_AFTER_SOME: Duration = Duration::from_secs(10);

/// What clients have requested so far.
pub struct Pulls {
    state: Mutex<PullState>,
    changed: Notify,
}

struct PullState {
    running: usize,
    last: Instant,
    /// The blobs of each manifest that was sent.
    manifests: Vec<Vec<Digest>>,
    /// Blobs that were requested, but not sent to their end.
    unfinished: HashSet<Digest>,
    /// For other blobs, the parts that were sent, in order.
    parts: HashMap<Digest, Vec<Range<u64>>>,
    /// Blobs that were sent completely.
    whole: HashSet<Digest>,
}

impl Pulls {
    pub fn new() -> Self {
        Self {
            state: Mutex::new(PullState {
                running: 0,
                last: Instant::now(),
                manifests: Vec::new(),
                unfinished: HashSet::new(),
                parts: HashMap::new(),
                whole: HashSet::new(),
            }),
            changed: Notify::new(),
        }
    }

    fn change(&self, change: impl FnOnce(&mut PullState)) {
        let mut state = self.state.lock();
        change(&mut state);
        state.last = Instant::now();
        drop(state);
        self.changed.notify_one();
    }

    /// A request has arrived.
    pub fn begin(&self) {
        self.change(|state| state.running += 1);
    }

    /// The answer to a request was sent or dropped.
    pub fn end(&self) {
        self.change(|state| state.running = state.running.saturating_sub(1));
    }

    /// The manifest of an image is being sent. `blobs` are the blobs that it lists.
    pub fn manifest(&self, blobs: &[Digest]) {
        let blobs = blobs.to_vec();
        self.change(|state| {
            if !state.manifests.contains(&blobs) {
                state.manifests.push(blobs);
            }
        });
    }

    /// A blob was requested.
    pub fn asked(&self, blob: &Digest) {
        self.change(|state| {
            if !state.whole.contains(blob) {
                state.unfinished.insert(blob.clone());
            }
        });
    }

    /// A part of a blob of `size` bytes was sent. `asked` is the requested part.
    pub fn sent(&self, blob: &Digest, part: Range<u64>, asked: &Range<u64>, size: u64) {
        self.change(|state| {
            if part.end == asked.end {
                state.unfinished.remove(blob);
            }
            let parts = state.parts.entry(blob.clone()).or_default();
            parts.push(part);
            *parts = joined(std::mem::take(parts));
            if matches!(parts.as_slice(), [all] if *all == (0..size)) {
                state.parts.remove(blob);
                state.whole.insert(blob.clone());
            }
        });
    }

    /// Waits until one pull is complete.
    pub async fn complete(&self) {
        loop {
            let until = self.state.lock().complete_at();
            let quiet = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = quiet => return,
                () = self.changed.notified() => {}
            }
        }
    }
}

impl PullState {
    /// When the pull is complete if there are no further requests.
    fn complete_at(&self) -> Option<Instant> {
        if self.manifests.is_empty() || self.running > 0 || !self.unfinished.is_empty() {
            return None;
        }
        let is_whole = |blobs: &Vec<Digest>| blobs.iter().all(|blob| self.whole.contains(blob));
        let quiet = match self.manifests.iter().any(is_whole) {
            true => QUIET_AFTER_ALL,
            false => QUIET_AFTER_SOME,
        };
        Some(self.last + quiet)
    }
}

/// The same parts in order. Parts that touch or overlap are merged.
fn joined(mut parts: Vec<Range<u64>>) -> Vec<Range<u64>> {
    parts.sort_by_key(|part| part.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for part in parts {
        match joined.last_mut() {
            Some(last) if part.start <= last.end => last.end = last.end.max(part.end),
            _ => joined.push(part),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet(pulls: &Pulls) -> Option<Duration> {
        let state = pulls.state.lock();
        state.complete_at().map(|at| at - state.last)
    }

    #[test]
    fn a_pull_is_complete_when_what_was_asked_for_was_sent_and_it_is_quiet() {
        let (config, layer) = (Digest::of(b"config"), Digest::of(b"layer"));
        let pulls = Pulls::new();
        assert_eq!(quiet(&pulls), None, "nothing was asked for");
        pulls.manifest(&[config.clone(), layer.clone()]);
        assert_eq!(quiet(&pulls), Some(QUIET_AFTER_SOME), "the puller may have it all");
        pulls.begin();
        assert_eq!(quiet(&pulls), None, "a request runs");
        pulls.asked(&config);
        pulls.end();
        assert_eq!(quiet(&pulls), None, "the config broke off");
        pulls.sent(&config, 0..9, &(0..9), 9);
        assert_eq!(quiet(&pulls), Some(QUIET_AFTER_SOME), "the puller may have the layer");
        pulls.asked(&layer);
        pulls.sent(&layer, 5..9, &(5..9), 9);
        assert_eq!(quiet(&pulls), Some(QUIET_AFTER_SOME), "the rest may come");
        pulls.asked(&layer);
        pulls.sent(&layer, 0..3, &(0..5), 9);
        assert_eq!(quiet(&pulls), None, "it broke off");
        pulls.asked(&layer);
        pulls.sent(&layer, 3..5, &(3..5), 9);
        assert_eq!(quiet(&pulls), Some(QUIET_AFTER_ALL));
    }
}

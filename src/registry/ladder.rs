//! How a host takes the bytes of blobs, as far as its answers have told.
//!
//! A ladder, climbed down when a registry refuses a rung and never up again: a single PUT, one
//! streamed PATCH, PATCHes of a size. A body that was too long for something on the way (413)
//! limits the length of all that follow.

use std::sync::{Mutex, MutexGuard};

/// The size of chunks where nothing else limits them.
pub const CHUNK: u64 = 64 << 20;
/// The least length that bodies are halved to.
const LEAST_CHUNK: u64 = 512 << 10;

/// How a blob's bytes are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// One PUT with all of it; a streamed PATCH where the length is not known yet.
    Whole,
    /// One PATCH without Content-Range, as docker does it.
    Stream,
    /// Several PATCHes, each with a Content-Range.
    Chunks,
}

/// How uploads to a host are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// How bytes are sent.
    pub rung: Rung,
    /// The longest body of a request.
    pub most: u64,
    /// Its answers about where a session stands have been right so far.
    pub resumes: bool,
}

/// What was learnt about how a host takes uploads, for all uploads to it.
#[derive(Debug, Default)]
pub struct Ladder(Mutex<Manner>);

impl Manner {
    /// The next rung, unless this is the last.
    pub fn next(self) -> Option<Self> {
        let rung = match self.rung {
            Rung::Whole => Rung::Stream,
            Rung::Stream => Rung::Chunks,
            Rung::Chunks => return None,
        };
        Some(Self { rung, ..self })
    }

    /// With bodies half as long as one of `length`, which was too long, but of `least` at least.
    pub fn shorter(self, length: u64, least: u64) -> Option<Self> {
        let most = (length / 2).min(CHUNK);
        (most >= LEAST_CHUNK.max(least) && most < self.most).then_some(Self { most, ..self })
    }

    /// The length of chunks, where a registry wants `least` at least.
    pub fn chunk(self, least: u64) -> u64 {
        CHUNK.max(least).min(self.most)
    }

    /// What both allow.
    pub fn and(self, other: Self) -> Self {
        Self {
            rung: self.rung.max(other.rung),
            most: self.most.min(other.most),
            resumes: self.resumes && other.resumes,
        }
    }
}

impl Default for Manner {
    fn default() -> Self {
        Self { rung: Rung::Whole, most: u64::MAX, resumes: true }
    }
}

impl Ladder {
    /// How the next upload is made.
    pub fn manner(&self) -> Manner {
        *self.lock()
    }

    /// An upload got through in this manner.
    pub fn learn(&self, manner: Manner) {
        let mut known = self.lock();
        *known = known.and(manner);
    }

    /// The host's answers about where a session stands are not to be relied on.
    pub fn distrust(&self) {
        self.lock().resumes = false;
    }

    fn lock(&self) -> MutexGuard<'_, Manner> {
        // It is whole at any time.
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_climbs_down_and_never_up() {
        let ladder = Ladder::default();
        let stream = ladder.manner().next().unwrap();
        assert_eq!(stream.rung, Rung::Stream);
        let chunks = stream.next().unwrap();
        assert_eq!((chunks.rung, chunks.next()), (Rung::Chunks, None));
        ladder.learn(chunks);
        ladder.learn(Manner::default());
        assert_eq!(ladder.manner(), chunks);
    }

    #[test]
    fn bodies_are_halved_to_a_limit() {
        let mut manner = Manner::default();
        let mut lengths = Vec::new();
        let mut length = 300 << 20;
        while let Some(shorter) = manner.shorter(length, 0) {
            manner = shorter;
            length = manner.chunk(0);
            lengths.push(length >> 20);
        }
        assert_eq!(lengths, [64, 32, 16, 8, 4, 2, 1, 0]);
        assert_eq!(Manner::default().shorter(1 << 20, 1 << 20), None);
        assert_eq!(Manner::default().chunk(100 << 20), 100 << 20);
    }
}

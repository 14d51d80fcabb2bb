//! Which upload methods a registry accepts. Its answers show it.
//!
//! There are three methods: one PUT, one streamed PATCH, or several PATCHes of limited length. The
//! choice depends on which methods the registry has rejected, and on whether the blob's length is
//! known yet. If a body was too long for the registry or a proxy (413), all later bodies are
//! shorter.

use parking_lot::Mutex;

/// The length of chunks if nothing else limits it.
const CHUNK: u64 = 64 << 20;
/// The shortest length to which the limit on bodies is halved.
const LEAST_BODY: u64 = 512 << 10;

/// How a blob's bytes are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadMethod {
    /// One PUT with the whole blob.
    Put,
    /// One PATCH without Content-Range, as docker sends it.
    Stream,
    /// Several PATCHes, each with a Content-Range.
    Chunks,
}

/// What a registry accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    put: bool,
    stream: bool,
    chunks: bool,
    /// The longest allowed body of a request.
    pub longest_body: u64,
    /// Whether its answers about the position of a session were correct so far.
    pub resumes: bool,
}

/// What was learnt about a registry, shared by all uploads to it.
#[derive(Debug, Default)]
pub struct UploadMethods(Mutex<Accepted>);

impl Accepted {
    /// The method for a blob of this length, or `None` for a length that is not known yet. Returns
    /// `None` if every method was rejected. A PUT of unknown length is sent when the blob is
    /// complete.
    pub fn method(self, length: Option<u64>) -> Option<UploadMethod> {
        let fits = self.fits(length);
        if self.put && fits && (length.is_some() || !self.stream) {
            Some(UploadMethod::Put)
        } else if self.stream && fits {
            Some(UploadMethod::Stream)
        } else if self.takes_patch() {
            Some(UploadMethod::Chunks)
        } else {
            self.put.then_some(UploadMethod::Put)
        }
    }

    /// Whether a body of this length may be sent. `None`: the length is not known yet.
    fn fits(self, length: Option<u64>) -> bool {
        self.longest_body == u64::MAX || length.is_some_and(|length| length <= self.longest_body)
    }

    /// Whether the registry accepts a part of a blob.
    pub fn takes_patch(self) -> bool {
        self.stream || self.chunks
    }

    /// Without a method that was rejected; `None` if no method is left.
    pub fn without(self, refused: UploadMethod) -> Option<Self> {
        let mut left = self;
        match refused {
            UploadMethod::Put => left.put = false,
            UploadMethod::Stream => left.stream = false,
            UploadMethod::Chunks => (left.stream, left.chunks) = (false, false),
        }
        (left != self && (left.put || left.takes_patch())).then_some(left)
    }

    /// After a body of `length` was too long: with bodies half as long, but not shorter than
    /// `least`. `None` if the limit cannot be lowered.
    pub fn shorter(self, length: u64, least: u64) -> Option<Self> {
        let longest_body = (length / 2).min(CHUNK);
        let is_useful = longest_body >= LEAST_BODY.max(least) && longest_body < self.longest_body;
        is_useful.then_some(Self { longest_body, ..self })
    }

    /// With bodies of this length at most.
    #[must_use]
    pub fn limited_to(self, length: u64) -> Self {
        Self { longest_body: self.longest_body.min(length), ..self }
    }

    /// The length of chunks, if the registry requires at least `least`.
    pub fn chunk(self, least: u64) -> u64 {
        CHUNK.max(least).min(self.longest_body)
    }

    /// How many bytes to send in one request after a resume.
    pub fn rest(self, least: u64) -> u64 {
        if self.stream && least == 0 { self.longest_body } else { self.chunk(least) }
    }

    /// Only what both accept.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            put: self.put && other.put,
            stream: self.stream && other.stream,
            chunks: self.chunks && other.chunks,
            longest_body: self.longest_body.min(other.longest_body),
            resumes: self.resumes && other.resumes,
        }
    }
}

impl Default for Accepted {
    fn default() -> Self {
        Self { put: true, stream: true, chunks: true, longest_body: u64::MAX, resumes: true }
    }
}

impl UploadMethods {
    /// What the registry's answers have shown so far.
    pub fn accepted(&self) -> Accepted {
        *self.0.lock()
    }

    /// Records which methods were left when an upload succeeded.
    pub fn learn(&self, accepted: Accepted) {
        let mut known = self.0.lock();
        *known = known.and(accepted);
    }

    /// Records that the registry's answers about the position of a session are unreliable.
    pub fn distrust_offsets(&self) {
        self.0.lock().resumes = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_not_used_again() {
        let all = Accepted::default();
        assert_eq!(all.method(Some(1)), Some(UploadMethod::Put));
        assert_eq!(all.method(None), Some(UploadMethod::Stream));
        let patches = all.without(UploadMethod::Put).unwrap();
        assert_eq!(patches.method(Some(1)), Some(UploadMethod::Stream));
        let chunks = patches.without(UploadMethod::Stream).unwrap();
        assert_eq!(chunks.method(None), Some(UploadMethod::Chunks));
        assert_eq!(chunks.without(UploadMethod::Chunks), None);
        let methods = UploadMethods::default();
        methods.learn(chunks);
        methods.learn(all);
        assert_eq!(methods.accepted(), chunks);
    }

    #[test]
    fn where_no_patch_is_taken_the_whole_blob_is_put() {
        let no_stream = Accepted::default().without(UploadMethod::Stream).unwrap();
        assert_eq!(no_stream.method(None), Some(UploadMethod::Put));
        let only_put = no_stream.without(UploadMethod::Chunks).unwrap();
        assert_eq!(only_put.method(Some(1)), Some(UploadMethod::Put));
        assert!(!only_put.takes_patch());
        assert_eq!(only_put.without(UploadMethod::Put), None);
    }

    #[test]
    fn no_body_is_longer_than_the_limit() {
        let limited = Accepted::default().limited_to(100);
        assert_eq!(limited.method(Some(100)), Some(UploadMethod::Put));
        assert_eq!(limited.method(Some(101)), Some(UploadMethod::Chunks));
        assert_eq!(limited.method(None), Some(UploadMethod::Chunks));
        assert_eq!((limited.chunk(0), limited.rest(0)), (100, 100));
    }

    #[test]
    fn bodies_are_halved_to_a_limit() {
        let mut accepted = Accepted::default();
        let mut lengths = Vec::new();
        let mut length = 300 << 20;
        while let Some(shorter) = accepted.shorter(length, 0) {
            accepted = shorter;
            length = accepted.chunk(0);
            lengths.push(length >> 20);
        }
        assert_eq!(lengths, [64, 32, 16, 8, 4, 2, 1, 0]);
        assert_eq!(Accepted::default().shorter(1 << 20, 1 << 20), None);
        assert_eq!(Accepted::default().chunk(100 << 20), 100 << 20);
    }
}

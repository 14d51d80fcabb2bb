//! What happens during a push, as data: progress bars, log lines and tests all read these.
//!
//! The library never prints. It calls an [`Events`] sink, from any thread, in the order in which
//! things happen to one layer.

use std::sync::Arc;
use std::time::Duration;

use crate::image::{Digest, LayerId};
use crate::report::LayerReport;

/// Where events go. Called from many threads; must not block for long.
pub type Events = Arc<dyn Fn(Event) + Send + Sync>;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The destination is known: `registry/repository:tag` for the first tag.
    Destination {
        /// For people.
        reference: String,
    },
    /// How many layers the image has, as soon as that is known.
    LayerCount(usize),
    /// Bytes of the image's file read so far, for a source that is read whole.
    Reading {
        /// Bytes so far.
        position: u64,
        /// The file's length; unknown for a pipe.
        total: Option<u64>,
    },
    /// The registry lacks a layer. It will be uploaded as soon as fewer uploads run.
    UploadQueued {
        /// Which.
        layer: LayerId,
        /// Its name for people.
        name: String,
        /// The blob's length.
        total: u64,
    },
    /// A layer begins to be uploaded.
    UploadStarted {
        /// Which.
        layer: LayerId,
        /// Its name for people.
        name: String,
        /// The blob's length, unknown while it is still being compressed.
        total: Option<u64>,
    },
    /// The upload of a layer stands at this position. It goes back when an upload is begun again.
    UploadProgress {
        /// Which.
        layer: LayerId,
        /// Bytes that the network has taken.
        position: u64,
        /// Bytes of the blob that exist; the others are still to be compressed.
        ready: u64,
        /// The blob's length, once known.
        total: Option<u64>,
    },
    /// A layer is done.
    LayerDone {
        /// Which.
        layer: LayerId,
        /// What became of it.
        report: LayerReport,
    },
    /// All blobs are there; the manifest is being put.
    Tagging,
    /// A request failed in a way that may pass and will be sent again.
    Retry {
        /// What was attempted, on what, and what came back.
        why: String,
        /// When it is sent again.
        wait: Duration,
    },
    /// A client pulls a blob.
    BlobAsked {
        /// The repository that it is asked for in.
        repository: String,
        /// Which.
        digest: Digest,
        /// Its name for people.
        name: String,
        /// How many bytes were asked for.
        bytes: u64,
    },
    /// More of a blob went out to a client.
    BlobProgress {
        /// Which.
        digest: Digest,
        /// How many bytes of this answer were given to the network so far.
        position: u64,
    },
    /// A blob, or the part of it that was asked for, went out.
    BlobSent {
        /// The repository that it was asked for in.
        repository: String,
        /// Which.
        digest: Digest,
        /// Its name for people.
        name: String,
        /// Bytes that were given to the network.
        bytes: u64,
        /// Whether these are all that were asked for; if not, it broke off.
        whole: bool,
        /// How long it took.
        took: Duration,
    },
    /// Something the user should know although the push goes on.
    Warning(String),
    /// Something of interest with `-v`.
    Note(String),
    /// A request was answered, or failed (`-v`).
    Request {
        /// One line: method, URL without secrets, status or error, milliseconds.
        line: String,
        /// The headers of both directions, secrets removed (`-vv`).
        headers: Vec<String>,
    },
}

/// A sink for those who want no events.
pub fn ignore() -> Events {
    Arc::new(|_| {})
}

//! What happens during a push, as data. Progress bars, log lines and tests read these events.
//!
//! The library never prints. It calls an [`Events`] sink from any thread. The events of one layer
//! arrive in order.

use std::sync::Arc;
use std::time::Duration;

use crate::image::{Digest, LayerId};
use crate::report::LayerReport;

/// Receives all events. It is called from many threads and must not block for long.
pub type Events = Arc<dyn Fn(Event) + Send + Sync>;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The destination is known: `registry/repository:tag` for the first tag.
    Destination {
        /// The destination's name, to be shown to the user.
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
    /// The registry lacks a layer. The upload starts when fewer uploads are running.
    UploadQueued {
        /// The layer.
        layer: LayerId,
        /// The layer's name, to be shown to the user.
        name: String,
        /// The blob's length.
        total: u64,
    },
    /// The upload of a layer begins.
    UploadStarted {
        /// The layer.
        layer: LayerId,
        /// The layer's name, to be shown to the user.
        name: String,
        /// The blob's length, unknown while it is still being compressed.
        total: Option<u64>,
    },
    /// How far the upload of a layer is. The position goes back if the upload starts again.
    UploadProgress {
        /// The layer.
        layer: LayerId,
        /// Bytes that were handed to the network so far.
        position: u64,
        /// Bytes of the blob that exist so far; the rest is still being compressed.
        ready: u64,
        /// The blob's length, once known.
        total: Option<u64>,
    },
    /// A layer is done.
    LayerDone {
        /// The layer.
        layer: LayerId,
        /// The result for this layer.
        report: LayerReport,
    },
    /// All blobs are in the repository. The manifest is put now.
    Tagging,
    /// A request failed, but it may succeed later. It will be sent again.
    Retry {
        /// What the request was for, and why it failed.
        why: String,
        /// How long to wait before the request is sent again.
        wait: Duration,
    },
    /// A client requests a blob from the server.
    BlobAsked {
        /// The repository that the client named.
        repository: String,
        /// The blob's digest.
        digest: Digest,
        /// The blob's name, to be shown to the user.
        name: String,
        /// The number of bytes that the client requested.
        bytes: u64,
    },
    /// More bytes of a blob were sent to a client.
    BlobProgress {
        /// The blob's digest.
        digest: Digest,
        /// How many bytes of this response were handed to the network so far.
        position: u64,
    },
    /// A blob, or the requested part of it, was sent, or sending it broke off.
    BlobSent {
        /// The repository that the client named.
        repository: String,
        /// The blob's digest.
        digest: Digest,
        /// The blob's name, to be shown to the user.
        name: String,
        /// Bytes that were handed to the network.
        bytes: u64,
        /// Whether all requested bytes were sent. If not, sending broke off.
        whole: bool,
        /// How long it took.
        took: Duration,
    },
    /// Something the user should know although the push goes on.
    Warning(String),
    /// A detail that is shown with `-v`.
    Note(String),
    /// A request was answered, or failed (`-v`).
    Request {
        /// One line: method, URL without secrets, status or error, milliseconds.
        line: String,
        /// The headers of both directions, secrets removed (`-vv`).
        headers: Vec<String>,
    },
}

/// A sink that ignores all events.
pub fn ignore() -> Events {
    Arc::new(|_| {})
}

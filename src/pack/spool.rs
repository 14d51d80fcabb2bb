//! The spool: disk space for a blob that is being made. Several readers can read it, and several
//! times, while the blob still grows.
//!
//! A [`Spool`] is the readers' side, a [`Tail`] the writer's. Either may be dropped first: without
//! readers nothing more is written, and readers of a blob that will not be finished get an error.

use std::io;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task;

use super::error::Error;
use super::packed::Packed;
use super::spool_file::{SpoolFile, SpoolSpace};
use crate::image::{Digest, Hasher};

/// The readers' side of a blob that is being made. Cheap to clone. When the last clone is dropped,
/// the blob's disk space is freed and the blob is not made any further.
#[derive(Clone)]
pub struct Spool(Arc<SpooledBlob>);

/// The writer's side. If it is dropped before it has finished, readers get [`Error::Abandoned`].
pub(super) struct Tail {
    spool: Weak<SpooledBlob>,
    written: Mutex<Written>,
}

#[derive(Default)]
struct Written {
    hasher: Hasher,
    size: u64,
}

struct SpooledBlob {
    file: Arc<SpoolFile>,
    state: watch::Sender<SpoolState>,
}

/// The space is part of the state, so that a failed blob frees its disk space.
enum SpoolState {
    Growing { space: Arc<SpoolSpace>, available: u64 },
    Finished { space: Arc<SpoolSpace>, packed: Packed },
    Failed(Error),
}

impl Spool {
    /// Makes an empty spool in this file.
    pub(super) fn new(file: &Arc<SpoolFile>) -> (Self, Tail) {
        let space = Arc::new(SpoolSpace::new(file));
        let state = watch::Sender::new(SpoolState::Growing { space, available: 0 });
        let shared = Arc::new(SpooledBlob { file: Arc::clone(file), state });
        let tail = Tail { spool: Arc::downgrade(&shared), written: Mutex::default() };
        (Self(shared), tail)
    }

    /// Waits until the blob is whole.
    pub async fn finished(&self) -> Result<Packed, Error> {
        let mut states = self.0.state.subscribe();
        let state = states.wait_for(|state| !matches!(state, SpoolState::Growing { .. })).await;
        match state.as_deref() {
            Ok(SpoolState::Finished { packed, .. }) => Ok(packed.clone()),
            Ok(SpoolState::Failed(error)) => Err(error.clone()),
            // Cannot happen: `wait_for` does not return this state, and `self` keeps the sender
            // alive.
            Ok(SpoolState::Growing { .. }) | Err(_) => Err(Error::Abandoned),
        }
    }

    /// Waits for bytes at `offset`: at most `max` (not 0) and at least one; `None` at the end of the
    /// whole blob. Bytes can be read again.
    pub async fn chunk(&self, offset: u64, max: usize) -> Result<Option<Bytes>, Error> {
        let (space, available) = {
            let mut states = self.0.state.subscribe();
            let state = states
                .wait_for(|state| match state {
                    SpoolState::Growing { available, .. } => offset < *available,
                    SpoolState::Finished { .. } | SpoolState::Failed(_) => true,
                })
                .await;
            match state.as_deref() {
                Ok(SpoolState::Growing { space, available }) => (Arc::clone(space), *available),
                Ok(SpoolState::Finished { space, packed }) => (Arc::clone(space), packed.blob.size),
                Ok(SpoolState::Failed(error)) => return Err(error.clone()),
                // Cannot happen: `self` keeps the sender alive.
                Err(_) => return Err(Error::Abandoned),
            }
        };
        let left = available.saturating_sub(offset);
        if left == 0 {
            return Ok(None);
        }
        let len = usize::try_from(left).map_or(max, |left| left.min(max));
        let read = task::spawn_blocking(move || space.read(offset, len));
        // The task itself fails only if the runtime shuts down.
        let read = read.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        read.map(Some).map_err(|error| self.0.file.error(error))
    }

    /// The blob's length, once it is whole.
    pub fn length(&self) -> Option<u64> {
        match &*self.0.state.borrow() {
            SpoolState::Finished { packed, .. } => Some(packed.blob.size),
            SpoolState::Growing { .. } | SpoolState::Failed(_) => None,
        }
    }

    /// How many bytes of the blob can be read without waiting.
    pub fn available(&self) -> u64 {
        match &*self.0.state.borrow() {
            SpoolState::Growing { available, .. } => *available,
            SpoolState::Finished { packed, .. } => packed.blob.size,
            SpoolState::Failed(_) => 0,
        }
    }
}

impl Tail {
    /// Whether the blob still has readers and has not ended.
    pub(super) fn is_wanted(&self) -> bool {
        self.spool.upgrade().is_some_and(|spool| spool.growing().is_some())
    }

    /// Why the blob failed, if it has.
    pub(super) fn failure(&self) -> Option<Error> {
        match &*self.spool.upgrade()?.state.borrow() {
            SpoolState::Failed(error) => Some(error.clone()),
            SpoolState::Growing { .. } | SpoolState::Finished { .. } => None,
        }
    }

    /// Puts `bytes` at the end of the blob.
    pub(super) fn append(&self, bytes: &[u8]) {
        let Some(spool) = self.spool.upgrade() else {
            return;
        };
        let Some(space) = spool.growing() else {
            return;
        };
        let mut written = self.written.lock();
        written.hasher.update(bytes);
        if let Err(error) = space.write(bytes, written.size) {
            spool.settle(SpoolState::Failed(spool.file.error(error)));
            return;
        }
        written.size += bytes.len() as u64;
        spool.state.send_if_modified(|state| match state {
            SpoolState::Growing { available, .. } => {
                *available = written.size;
                true
            }
            SpoolState::Finished { .. } | SpoolState::Failed(_) => false,
        });
    }

    /// Ends the blob; `packed` makes the result from its digest and size.
    pub(super) fn finish(&self, packed: impl FnOnce((Digest, u64)) -> Packed) {
        let Some(spool) = self.spool.upgrade() else {
            return;
        };
        let Some(space) = spool.growing() else {
            return;
        };
        let written = std::mem::take(&mut *self.written.lock());
        let packed = packed((written.hasher.finish(), written.size));
        spool.settle(SpoolState::Finished { space, packed });
    }

    /// Ends the blob with an error, unless it has ended already.
    pub(super) fn fail(&self, error: Error) {
        if let Some(spool) = self.spool.upgrade() {
            spool.settle(SpoolState::Failed(error));
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.fail(Error::Abandoned);
    }
}

impl SpooledBlob {
    fn growing(&self) -> Option<Arc<SpoolSpace>> {
        match &*self.state.borrow() {
            SpoolState::Growing { space, .. } => Some(Arc::clone(space)),
            SpoolState::Finished { .. } | SpoolState::Failed(_) => None,
        }
    }

    /// Changes to the final state `last`, unless the current state is already final.
    fn settle(&self, mut last: SpoolState) {
        self.state.send_if_modified(|state| {
            let growing = matches!(state, SpoolState::Growing { .. });
            if growing {
                std::mem::swap(state, &mut last);
            }
            growing
        });
        // The old state, which is now in `last`, is dropped only here, after the lock was released.
        // Freeing its disk space may take a while, and readers wait for the lock.
    }
}

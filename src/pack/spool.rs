//! The spool: an unlinked temporary file that a blob grows in, and that may be read, as often as
//! needed and by several readers, while it still grows.
//!
//! A [`Spool`] is the readers' side, the [`Tail`] the writer's. Each may outlive the other: without
//! readers nothing more is written, and readers of a blob that will never be finished are told so.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;
use tokio::task;

use super::{Error, Packed};
use crate::image::{Digest, Hasher};

/// The readers' side of a blob in the making. Cheap to clone; the file goes with the last clone,
/// and so does the work of filling it.
#[derive(Clone)]
pub struct Spool(Arc<Shared>);

/// The writer's side. Dropped before it has finished, it leaves the blob abandoned.
pub(super) struct Tail {
    spool: Weak<Shared>,
    written: Mutex<Written>,
}

#[derive(Default)]
struct Written {
    hasher: Hasher,
    size: u64,
}

struct Shared {
    dir: PathBuf,
    state: watch::Sender<State>,
}

/// The file is in the state, so that a blob that failed takes no more room on the disk.
enum State {
    Growing { file: Arc<File>, available: u64 },
    Finished { file: Arc<File>, packed: Packed },
    Failed(Error),
}

impl Spool {
    /// Makes an empty spool in `dir`.
    pub(super) fn new(dir: &Path) -> Result<(Self, Tail), Error> {
        let file = tempfile::tempfile_in(dir).map_err(|error| Error::spool(dir, error))?;
        Ok(Self::over(file, dir))
    }

    pub(super) fn over(file: File, dir: &Path) -> (Self, Tail) {
        let growing = State::Growing { file: Arc::new(file), available: 0 };
        let shared = Arc::new(Shared { dir: dir.to_owned(), state: watch::Sender::new(growing) });
        let tail = Tail { spool: Arc::downgrade(&shared), written: Mutex::default() };
        (Self(shared), tail)
    }

    /// Waits until the blob is whole.
    pub async fn finished(&self) -> Result<Packed, Error> {
        let mut states = self.0.state.subscribe();
        let state = states.wait_for(|state| !matches!(state, State::Growing { .. })).await;
        match state.as_deref() {
            Ok(State::Finished { packed, .. }) => Ok(packed.clone()),
            Ok(State::Failed(error)) => Err(error.clone()),
            // Not waited for; and the sender cannot go while `self` has it.
            Ok(State::Growing { .. }) | Err(_) => Err(Error::Abandoned),
        }
    }

    /// The bytes at `offset`, at most `max` (not 0) of them and at least one, once there are any;
    /// `None` at the end of the whole blob.
    ///
    /// Bytes that were read before may be read again.
    pub async fn chunk(&self, offset: u64, max: usize) -> Result<Option<Bytes>, Error> {
        let (file, available) = {
            let mut states = self.0.state.subscribe();
            let state = states
                .wait_for(|state| match state {
                    State::Growing { available, .. } => offset < *available,
                    State::Finished { .. } | State::Failed(_) => true,
                })
                .await;
            match state.as_deref() {
                Ok(State::Growing { file, available }) => (Arc::clone(file), *available),
                Ok(State::Finished { file, packed }) => (Arc::clone(file), packed.blob.size),
                Ok(State::Failed(error)) => return Err(error.clone()),
                // The sender cannot go while `self` has it.
                Err(_) => return Err(Error::Abandoned),
            }
        };
        let left = available.saturating_sub(offset);
        if left == 0 {
            return Ok(None);
        }
        let len = usize::try_from(left).map_or(max, |left| left.min(max));
        let read = task::spawn_blocking(move || {
            let mut bytes = BytesMut::zeroed(len);
            file.read_exact_at(&mut bytes, offset)?;
            Ok(bytes.freeze())
        });
        // The task fails by itself only where the runtime is being shut down.
        let read = read.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        read.map(Some).map_err(|error| Error::spool(&self.0.dir, error))
    }

    /// The blob's length, once it is whole.
    pub fn length(&self) -> Option<u64> {
        match &*self.0.state.borrow() {
            State::Finished { packed, .. } => Some(packed.blob.size),
            State::Growing { .. } | State::Failed(_) => None,
        }
    }

    /// How many bytes of the blob can be read without waiting.
    pub fn available(&self) -> u64 {
        match &*self.0.state.borrow() {
            State::Growing { available, .. } => *available,
            State::Finished { packed, .. } => packed.blob.size,
            State::Failed(_) => 0,
        }
    }
}

impl Tail {
    /// Whether anyone would read what is appended.
    pub(super) fn is_wanted(&self) -> bool {
        self.spool.upgrade().is_some_and(|spool| spool.growing_file().is_some())
    }

    /// Why the blob failed, if it has.
    pub(super) fn failure(&self) -> Option<Error> {
        match &*self.spool.upgrade()?.state.borrow() {
            State::Failed(error) => Some(error.clone()),
            State::Growing { .. } | State::Finished { .. } => None,
        }
    }

    /// Puts `bytes` at the end of the blob.
    pub(super) fn append(&self, bytes: &[u8]) {
        let Some(spool) = self.spool.upgrade() else {
            return;
        };
        let Some(file) = spool.growing_file() else {
            return;
        };
        // If a thread panicked in here, its `Tail` is never finished.
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.hasher.update(bytes);
        if let Err(error) = file.write_all_at(bytes, written.size) {
            spool.settle(State::Failed(Error::spool(&spool.dir, error)));
            return;
        }
        written.size += bytes.len() as u64;
        spool.state.send_if_modified(|state| match state {
            State::Growing { available, .. } => {
                *available = written.size;
                true
            }
            State::Finished { .. } | State::Failed(_) => false,
        });
    }

    /// Ends the blob; `packed` makes the result from its digest and size.
    pub(super) fn finish(&self, packed: impl FnOnce((Digest, u64)) -> Packed) {
        let Some(spool) = self.spool.upgrade() else {
            return;
        };
        let Some(file) = spool.growing_file() else {
            return;
        };
        let written =
            std::mem::take(&mut *self.written.lock().unwrap_or_else(PoisonError::into_inner));
        let packed = packed((written.hasher.finish(), written.size));
        spool.settle(State::Finished { file, packed });
    }

    /// Ends the blob with an error, unless it has ended already.
    pub(super) fn fail(&self, error: Error) {
        if let Some(spool) = self.spool.upgrade() {
            spool.settle(State::Failed(error));
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.fail(Error::Abandoned);
    }
}

impl Shared {
    fn growing_file(&self) -> Option<Arc<File>> {
        match &*self.state.borrow() {
            State::Growing { file, .. } => Some(Arc::clone(file)),
            State::Finished { .. } | State::Failed(_) => None,
        }
    }

    /// Goes to a state that is final, if this one is not.
    fn settle(&self, last: State) {
        self.state.send_if_modified(|state| {
            let growing = matches!(state, State::Growing { .. });
            if growing {
                *state = last;
            }
            growing
        });
    }
}

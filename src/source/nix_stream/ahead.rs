//! Looks at the layers on a separate thread: while one layer is looked up at a registry, or read,
//! the files of the next layers are listed.

use std::sync::Arc;
use std::thread;

use crossbeam_channel::Receiver;

use super::layer::{LayerRecipe, StoreLayer};
use crate::source::error::Error;
use crate::source::file::FileError;

/// How many layers are looked at before they are needed. The lists of their files are kept in
/// memory.
const AHEAD: usize = 8;

/// The layers of an image, one after another.
pub struct Ahead {
    file: Arc<str>,
    looked: Receiver<Result<StoreLayer, Error>>,
}

impl Ahead {
    /// Begins to look at the layers that are made of these store paths.
    pub fn start(file: Arc<str>, layers: Vec<Vec<String>>, making: LayerRecipe) -> Self {
        let (looked, receiver) = crossbeam_channel::bounded(AHEAD);
        let look = move || {
            for paths in layers {
                // Fails if the receiver was dropped: then no more layers are needed.
                if looked.send(StoreLayer::look(&paths, &making)).is_err() {
                    return;
                }
            }
        };
        // If the thread cannot be started, the channel is closed, and `next` returns an error.
        let _ = thread::Builder::new().name("walk".to_owned()).spawn(look);
        Self { file, looked: receiver }
    }

    /// The next layer.
    pub fn next(&self) -> Result<StoreLayer, Error> {
        let gone = || FileError::ReaderGone { file: self.file.clone() };
        self.looked.recv().unwrap_or_else(|_| Err(gone().into()))
    }
}

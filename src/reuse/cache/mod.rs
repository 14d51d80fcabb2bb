//! The local cache: what earlier pushes learned, kept in SQLite, only to go faster.
//!
//! It may be deleted, damaged, read-only, full or raced for at any time: what cannot be read is not
//! known, what cannot be written is forgotten, and nothing here returns an error. One thread owns
//! the file; [`Cache`] is a handle to it, so that no caller waits for a disk longer than
//! a bound.
//!
//! - `file`: how the file is found, judged, and made anew where it is damaged.
//! - `store`: what is in it.
//! - `row`: what of it is believed.

mod file;
mod row;
mod store;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use rusqlite::ErrorCode;
use tokio::sync::oneshot;

use self::file::Use;
use self::store::{Limits, Store};
use super::CacheLocation;
use crate::image::{Blob, Compression, Config, DiffId, Digest, LayerKey};

/// How long a question waits for its answer; what comes later is not known.
const READ_PATIENCE: Duration = Duration::from_secs(1);

/// How long closing waits for what was remembered to be written.
const CLOSE_PATIENCE: Duration = Duration::from_millis(200);

/// A handle to the local cache, which exists only to go faster: a cache that is missing, damaged,
/// read-only, full or raced for knows less, and is never an error.
///
/// Questions are asked within a tokio runtime; they wait a second at most. What is to be
/// remembered is handed over without waiting. Dropping the cache waits up to 200 ms for it to be
/// written; [`close`](Self::close) does that off the runtime's threads.
pub struct Cache {
    requests: Option<Sender<Request>>,
    /// Yields nothing; disconnected when the thread has let go of the file.
    finished: Receiver<()>,
    trouble: Arc<OnceLock<String>>,
}

/// One image of an immutable file: enough to push it again if its layers are where they were.
///
/// The layers' diff IDs are the config's.
#[derive(Clone, Debug)]
pub struct CachedImage {
    /// The names that the file gives it, as written.
    pub names: Vec<String>,
    /// The image config.
    pub config: Config,
    /// The place of each layer among those of the file, lowest layer first.
    pub layers: Vec<usize>,
}

/// The recipe of rows that say which diff ID a layer has that was made of something.
const MADE: &str = "made";

fn config_key(digest: &Digest) -> String {
    // No path of a file begins so.
    format!("config {digest}")
}

type Read = Box<dyn FnOnce(&mut Keeper) + Send>;
type Write = Box<dyn FnOnce(&Store) -> rusqlite::Result<()> + Send>;

enum Request {
    Read(Read),
    Write(Write),
}

impl Cache {
    /// Opens the cache there, or makes one. Returns at once: a thread does it.
    pub fn open(location: &CacheLocation) -> Self {
        match folder(location) {
            Some(folder) => Self::open_folder(folder, Limits::default()),
            None => Self::without(Some(
                "no local cache: neither XDG_CACHE_HOME nor a home folder is known".to_owned(),
            )),
        }
    }

    /// A cache that knows nothing and remembers nothing.
    pub fn disabled() -> Self {
        Self::without(None)
    }

    fn open_folder(folder: PathBuf, limits: Limits) -> Self {
        let (requests, requested) = crossbeam_channel::unbounded();
        let (finishing, finished) = crossbeam_channel::bounded(0);
        let trouble = Arc::new(OnceLock::new());
        let keeper_trouble = Arc::clone(&trouble);
        let spawned = thread::Builder::new().name("cache".to_owned()).spawn(move || {
            let _finishing = finishing;
            Keeper::open(folder, keeper_trouble).serve(&requested, &limits);
        });
        match spawned {
            Ok(_) => Self { requests: Some(requests), finished, trouble },
            Err(error) => Self::without(Some(format!("no local cache: {error}"))),
        }
    }

    fn without(trouble: Option<String>) -> Self {
        Self {
            requests: None,
            finished: crossbeam_channel::never(),
            trouble: Arc::new(trouble.map_or_else(OnceLock::new, OnceLock::from)),
        }
    }

    /// What hindered the cache first, for a person to read; complete once a push is over.
    #[cfg(test)]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.get().cloned()
    }

    /// The blobs that this recipe made of each of these layers, the most recently used first; layers
    /// without one are left out. Whether a registry has them is for the registry to say.
    pub async fn blobs_of(&self, recipe: &str, diff_ids: &[DiffId]) -> HashMap<DiffId, Vec<Blob>> {
        let recipe = recipe.to_owned();
        let diff_ids = diff_ids.to_vec();
        self.read(move |store| store.blobs_of(&recipe, &diff_ids)).await
    }

    /// The repositories of `registry` that had each of these blobs, the most recent first (within a
    /// day, in any order): at most eight, to try mounting from.
    pub async fn repositories_of(
        &self,
        registry: &str,
        digests: &[Digest],
    ) -> HashMap<Digest, Vec<String>> {
        let (registry, digests) = (registry.to_owned(), digests.to_vec());
        self.read(move |store| store.repositories_of(&registry, &digests)).await
    }

    /// The images in the file with this identity.
    pub async fn image(&self, key: &str) -> Option<Vec<CachedImage>> {
        let key = key.to_owned();
        self.read(move |store| store.image(&key)).await
    }

    /// Remembers that `recipe` makes `blob` of the layer `diff_id`: to be called only for bytes that
    /// were hashed.
    pub fn remember_layer(&self, recipe: &str, diff_id: DiffId, blob: Blob) {
        let recipe = recipe.to_owned();
        let now = store::now();
        self.write(move |store| store.remember_layer(&recipe, &diff_id, &blob, now));
    }

    /// The diff IDs of the layers that were made of these; others are left out.
    pub async fn made(&self, keys: &[LayerKey]) -> HashMap<LayerKey, DiffId> {
        let keys: Vec<DiffId> = keys.iter().map(|key| key.0.clone().into()).collect();
        let rows = self.blobs_of(MADE, &keys).await;
        let only = |(key, diff_ids): (DiffId, Vec<Blob>)| match diff_ids.as_slice() {
            [one] => Some((LayerKey(key.digest().clone()), one.digest.clone().into())),
            // Nothing is made of the same in two ways: one of them is wrong.
            _ => None,
        };
        rows.into_iter().filter_map(only).collect()
    }

    /// Remembers the diff ID of the layer that was made of this.
    pub fn remember_made(&self, key: LayerKey, diff_id: DiffId) {
        // In a row like that of a layer, which needs no more than this either.
        let digest = diff_id.digest().clone();
        let blob = Blob { digest, size: 0, compression: Compression::None };
        self.remember_layer(MADE, key.0.into(), blob);
    }

    /// Remembers that `repository` of `registry` has these blobs.
    pub fn remember_blobs(&self, registry: &str, repository: &str, digests: &[Digest]) {
        let (registry, repository) = (registry.to_owned(), repository.to_owned());
        let (digests, now) = (digests.to_vec(), store::now());
        self.write(move |store| store.remember_blobs(&registry, &repository, &digests, now));
    }

    /// Forgets that `repository` of `registry` has this blob.
    pub fn forget_blob(&self, registry: &str, repository: &str, digest: &Digest) {
        let (registry, repository) = (registry.to_owned(), repository.to_owned());
        let digest = digest.clone();
        self.write(move |store| store.forget_blob(&registry, &repository, &digest));
    }

    /// Remembers the images in a file that never changes. `key` identifies the file (path, inode,
    /// size, times). Images whose configs exceed 8 MiB together are not kept.
    pub fn remember_image(&self, key: &str, images: Vec<CachedImage>) {
        let (key, now) = (key.to_owned(), store::now());
        self.write(move |store| store.remember_image(&key, &images, now));
    }

    /// The config of an image that was pushed from this machine.
    pub async fn config(&self, digest: &Digest) -> Option<Config> {
        let row = self.image(&config_key(digest)).await?.into_iter().next()?;
        Some(row.config).filter(|config| config.digest() == digest)
    }

    /// Remembers the config of an image that was pushed.
    pub fn remember_config(&self, config: &Config) {
        let row = CachedImage { names: Vec::new(), config: config.clone(), layers: Vec::new() };
        self.remember_image(&config_key(config.digest()), vec![row]);
    }

    /// Writes what is still to be written, for at most 200 ms; and tells what hindered the cache, as
    /// [`Cache::trouble`] does.
    pub async fn close(self) -> Option<String> {
        let trouble = self.trouble.clone();
        // Fails only where the runtime is shutting down, and then the cache is dropped all the same.
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
        trouble.get().cloned()
    }

    async fn read<T: Default + Send + 'static>(
        &self,
        query: impl FnOnce(&mut Store) -> rusqlite::Result<T> + Send + 'static,
    ) -> T {
        let Some(requests) = &self.requests else {
            return T::default();
        };
        let (answer, answered) = oneshot::channel();
        let read: Read = Box::new(move |keeper| {
            // A caller that has stopped waiting needs no answer.
            if !answer.is_closed() {
                let _ = answer.send(keeper.attempt(query));
            }
        });
        if requests.send(Request::Read(read)).is_err() {
            return T::default();
        }
        match tokio::time::timeout(READ_PATIENCE, answered).await {
            Ok(answer) => answer.unwrap_or_default(),
            Err(_) => {
                let _ = self.trouble.set("the local cache took too long to answer".to_owned());
                T::default()
            }
        }
    }

    fn write(&self, write: impl FnOnce(&Store) -> rusqlite::Result<()> + Send + 'static) {
        if let Some(requests) = &self.requests {
            // Fails only where the thread has died, and then there is no cache.
            let _ = requests.send(Request::Write(Box::new(write)));
        }
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        if self.requests.take().is_some() {
            let _ = self.finished.recv_timeout(CLOSE_PATIENCE);
        }
    }
}

/// The thread's state: the file, as long as it is usable.
struct Keeper {
    folder: PathBuf,
    store: Option<Store>,
    made_anew: bool,
    trouble: Arc<OnceLock<String>>,
}

impl Keeper {
    fn open(folder: PathBuf, trouble: Arc<OnceLock<String>>) -> Self {
        let mut keeper = Self { folder, store: None, made_anew: false, trouble };
        keeper.reopen(Use::AsItIs);
        keeper
    }

    fn reopen(&mut self, how: Use) {
        match file::open(&self.folder, how) {
            Ok(opened) => {
                if let Some(note) = &opened.note {
                    self.note(note);
                }
                self.store = Some(Store::new(opened));
            }
            Err(trouble) => self.note(&trouble),
        }
    }

    /// Answers requests until the last handle is gone. Writes that have piled up share a
    /// transaction; a question finds everything that was remembered before it.
    fn serve(mut self, requests: &Receiver<Request>, limits: &Limits) {
        let mut writes = Vec::new();
        while let Ok(first) = requests.recv() {
            for request in std::iter::once(first).chain(requests.try_iter()) {
                match request {
                    Request::Write(write) => writes.push(write),
                    Request::Read(read) => {
                        self.flush(&mut writes);
                        read(&mut self);
                    }
                }
            }
            self.flush(&mut writes);
        }
        self.attempt_write(Store::touch);
        self.attempt_write(|store| store.forget_oldest(limits));
    }

    fn flush(&mut self, writes: &mut Vec<Write>) {
        if !writes.is_empty() {
            let writes = std::mem::take(writes);
            self.attempt_write(|store| store.write_all(writes));
        }
    }

    fn attempt_write(&mut self, write: impl FnOnce(&mut Store) -> rusqlite::Result<()>) {
        if self.store.as_ref().is_some_and(Store::is_writable) {
            self.attempt(write);
        }
    }

    fn attempt<T: Default>(&mut self, query: impl FnOnce(&mut Store) -> rusqlite::Result<T>) -> T {
        let Some(store) = &mut self.store else {
            return T::default();
        };
        query(store).unwrap_or_else(|error| {
            self.settle(&error);
            T::default()
        })
    }

    /// Decides what becomes of the cache after an error.
    fn settle(&mut self, error: &rusqlite::Error) {
        self.note(&format!("local cache {}: {error}", file::database(&self.folder).display()));
        match error.sqlite_error_code() {
            // Somebody else is writing: this once, it is not remembered.
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {}
            Some(ErrorCode::ReadOnly | ErrorCode::DiskFull) => {
                if let Some(store) = &mut self.store {
                    store.stop_writing();
                }
            }
            // The last two are what tables give that are not as they were made.
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown)
            | None => {
                self.store = None;
                if !std::mem::replace(&mut self.made_anew, true) {
                    self.reopen(Use::MadeAnew);
                }
            }
            _ => self.store = None,
        }
    }

    fn note(&self, trouble: &str) {
        // Only the first is kept: the others follow from it.
        let _ = self.trouble.set(trouble.to_owned());
    }
}

fn folder(location: &CacheLocation) -> Option<PathBuf> {
    match location {
        CacheLocation::Folder(folder) => Some(folder.clone()),
        CacheLocation::User => {
            user_folder(std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from), std::env::home_dir())
        }
    }
}

/// XDG Base Directory Specification: a path that is not absolute counts as none.
fn user_folder(cache: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |path: &PathBuf| Path::is_absolute(path);
    cache
        .filter(absolute)
        .or_else(|| home.filter(absolute).map(|home| home.join(".cache")))
        .map(|cache| cache.join("pushimg"))
}

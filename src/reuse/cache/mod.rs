//! The local cache: what earlier pushes learned, stored in SQLite. It only makes pushes faster.
//!
//! The cache may be deleted, damaged, read-only, full or used by other processes at any time. So
//! nothing here returns an error: what cannot be read counts as unknown, and what cannot be written
//! is lost. One thread owns the file. [`Cache`] is a handle to it, so that a caller waits for the
//! disk only for a limited time.
//!
//! - `file`: finds the file, checks it, and replaces it if it is damaged.
//! - `schema`: the tables, and how many rows of each are kept.
//! - `store`: transactions, and the deletion of old rows.
//! - `layers`, `images`: the queries and writes for the tables.
//! - `keeper`: the thread that owns the file.

mod file;
mod images;
mod keeper;
mod layers;
mod row;
mod schema;
mod store;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use tokio::sync::oneshot;

use self::keeper::{CacheRequest, Keeper, Write};
use self::schema::Limits;
use self::store::{CacheStore, now};
use crate::image::{Blob, Config, DiffId, Digest, LayerKey};

/// How long a query waits for its answer. A later answer is ignored.
const READ_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 20 } else { 1 });

/// How long closing waits for the last writes.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(200);

/// Where the local cache is kept.
#[derive(Clone, Debug)]
pub enum CacheLocation {
    /// The user's cache folder (`$XDG_CACHE_HOME/pushimg`, else `~/.cache/pushimg`).
    User,
    /// This folder.
    Folder(PathBuf),
}

/// A handle to the local cache. The cache only makes pushes faster: if it is missing, damaged,
/// read-only, full or busy, fewer things are known, but there is no error.
///
/// Queries need a tokio runtime and wait for at most a second. Writes do not wait. Dropping the
/// cache waits up to 200 ms for the last writes; [`close`](Self::close) does this off the runtime's
/// threads.
pub struct Cache {
    requests: Option<Sender<CacheRequest>>,
    /// No value is ever sent. It is disconnected when the thread has closed the file.
    finished: Receiver<()>,
    problem: Arc<OnceLock<String>>,
}

/// One image of a file that never changes. This is enough to push the image again if the registry
/// still has its layers.
///
/// The config lists the diff IDs of the layers.
#[derive(Clone, Debug)]
pub struct CachedImage {
    /// The names that the file gives the image, as written there.
    pub names: Vec<String>,
    pub config: Config,
    /// For each layer, lowest first, its position among the layers of the file.
    pub layers: Vec<usize>,
}

impl Cache {
    /// Opens or creates the cache at this location. Returns at once, because a thread does the
    /// work.
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
        let problem = Arc::new(OnceLock::new());
        let keeper_problem = Arc::clone(&problem);
        let spawned = thread::Builder::new().name("cache".to_owned()).spawn(move || {
            let _finishing = finishing;
            Keeper::open(folder, keeper_problem).serve(&requested, &limits);
        });
        match spawned {
            Ok(_) => Self { requests: Some(requests), finished, problem },
            Err(error) => Self::without(Some(format!("no local cache: {error}"))),
        }
    }

    fn without(problem: Option<String>) -> Self {
        Self {
            requests: None,
            finished: crossbeam_channel::never(),
            problem: Arc::new(problem.map_or_else(OnceLock::new, OnceLock::from)),
        }
    }

    /// The first problem of the cache, as a message; final when the push is over.
    #[cfg(test)]
    pub fn problem(&self) -> Option<String> {
        self.problem.get().cloned()
    }

    /// The blobs that this recipe made of each of these layers, the most recently used first.
    /// Layers without a known blob are left out. The registry may not have these blobs.
    pub async fn blobs_of(&self, recipe: &str, diff_ids: &[DiffId]) -> HashMap<DiffId, Vec<Blob>> {
        let recipe = recipe.to_owned();
        let diff_ids = diff_ids.to_vec();
        self.read(move |store| store.blobs_of(&recipe, &diff_ids)).await
    }

    /// The repositories of `registry` that had each of these blobs, for mount attempts. At most
    /// eight, the most recent first; within a day the order is arbitrary.
    pub async fn repositories_of(
        &self,
        registry: &str,
        digests: &[Digest],
    ) -> HashMap<Digest, Vec<String>> {
        let (registry, digests) = (registry.to_owned(), digests.to_vec());
        self.read(move |store| store.repositories_of(&registry, &digests)).await
    }

    /// The images in the file with this identity.
    pub async fn image(&self, file: &str) -> Option<Vec<CachedImage>> {
        let file = file.to_owned();
        self.read(move |store| store.image(&file)).await
    }

    /// Remembers that `recipe` packs the layer `diff_id` into `blob`. Call this only if the layer's
    /// bytes were hashed.
    pub fn remember_layer(&self, recipe: &str, diff_id: DiffId, blob: Blob) {
        let recipe = recipe.to_owned();
        let now = now();
        self.write(move |store| store.remember_layer(&recipe, &diff_id, &blob, now));
    }

    /// The diff ID of the layer for each of these keys. Keys that are not known are left out.
    pub async fn made(&self, keys: &[LayerKey]) -> HashMap<LayerKey, DiffId> {
        let keys = keys.to_vec();
        self.read(move |store| store.made(&keys)).await
    }

    /// Remembers the diff ID of the layer with this key.
    pub fn remember_made(&self, key: LayerKey, diff_id: DiffId) {
        let now = now();
        self.write(move |store| store.remember_made(&key, &diff_id, now));
    }

    /// Remembers that `repository` of `registry` has these blobs.
    pub fn remember_blobs(&self, registry: &str, repository: &str, digests: &[Digest]) {
        let (registry, repository) = (registry.to_owned(), repository.to_owned());
        let (digests, now) = (digests.to_vec(), now());
        self.write(move |store| store.remember_blobs(&registry, &repository, &digests, now));
    }

    /// Forgets that `repository` of `registry` has this blob.
    pub fn forget_blob(&self, registry: &str, repository: &str, digest: &Digest) {
        let (registry, repository) = (registry.to_owned(), repository.to_owned());
        let digest = digest.clone();
        self.write(move |store| store.forget_blob(&registry, &repository, &digest));
    }

    /// Remembers the images in a file that never changes. `file` identifies it (path, inode, size,
    /// times). Nothing is kept if the configs together exceed 8 MiB.
    pub fn remember_image(&self, file: &str, images: Vec<CachedImage>) {
        let (file, now) = (file.to_owned(), now());
        self.write(move |store| store.remember_image(&file, &images, now));
    }

    /// The config with this digest, if it was remembered.
    pub async fn config(&self, digest: &Digest) -> Option<Config> {
        let digest = digest.clone();
        self.read(move |store| store.config(&digest)).await
    }

    /// Remembers the config of an image that was pushed.
    pub fn remember_config(&self, config: &Config) {
        let (config, now) = (config.clone(), now());
        self.write(move |store| store.remember_config(&config, now));
    }

    /// Waits at most 200 ms for the last writes. Returns the first problem of the cache as a
    /// message.
    pub async fn close(self) -> Option<String> {
        let problem = self.problem.clone();
        // Fails only while the runtime shuts down, and then the cache is dropped too.
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
        problem.get().cloned()
    }

    async fn read<T: Default + Send + 'static>(
        &self,
        query: impl FnOnce(&mut CacheStore) -> rusqlite::Result<T> + Send + 'static,
    ) -> T {
        let Some(requests) = &self.requests else {
            return T::default();
        };
        let (answer, answered) = oneshot::channel();
        let read = Box::new(move |keeper: &mut Keeper| {
            // The caller may have stopped waiting; then no answer is needed.
            if !answer.is_closed() {
                let _ = answer.send(keeper.attempt(query));
            }
        });
        if requests.send(CacheRequest::Read(read)).is_err() {
            return T::default();
        }
        match tokio::time::timeout(READ_TIMEOUT, answered).await {
            Ok(answer) => answer.unwrap_or_default(),
            Err(_) => {
                let _ = self.problem.set("the local cache took too long to answer".to_owned());
                T::default()
            }
        }
    }

    fn write(&self, write: impl FnOnce(&CacheStore) -> rusqlite::Result<()> + Send + 'static) {
        if let Some(requests) = &self.requests {
            let write: Write = Box::new(write);
            // Fails only if the thread has died; then there is no cache.
            let _ = requests.send(CacheRequest::Write(write));
        }
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        if self.requests.take().is_some() {
            let _ = self.finished.recv_timeout(CLOSE_TIMEOUT);
        }
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

/// XDG Base Directory Specification: a relative path is ignored.
fn user_folder(cache: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |path: &PathBuf| Path::is_absolute(path);
    cache
        .filter(absolute)
        .or_else(|| home.filter(absolute).map(|home| home.join(".cache")))
        .map(|cache| cache.join("pushimg"))
}

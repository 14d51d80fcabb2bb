//! A small registry for development and tests (OCI distribution-spec 1.1) with blobs on disk.
//!
//! It keeps to the specification. Options make it stricter: Basic or token auth, repositories that
//! must exist, no mounts, tags that cannot be overwritten.

pub mod auth;
pub mod error;
pub mod path;
pub mod routes;
pub mod store;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use tempfile::TempDir;

use super::served::{self, Served};
use auth::{Auth, Gate};
use error::Refusal;
use store::Store;

/// How a registry behaves; the default is open to all and takes any repository.
#[derive(Clone, Debug)]
pub struct Options {
    /// Port on 127.0.0.1; 0 is any free one, the default.
    pub port: u16,
    /// Who may do what; anonymous by default.
    pub auth: Auth,
    /// The repositories there are; others are NAME_UNKNOWN. `None`, the default, takes any.
    pub repositories: Option<Vec<String>>,
    /// Whether a mount is done (201) or refused with an upload session (202). Default true.
    pub mounts: bool,
    /// Whether it tracks referrers and announces that with `OCI-Subject`. Default true.
    pub referrers: bool,
    /// Whether a tag that exists may be put again. Default: it may.
    pub tags: Tags,
    /// Where blobs are kept; a temporary folder by default.
    pub storage: Option<PathBuf>,
}

/// How the registry answers a PUT to a tag that exists, even for the same manifest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tags {
    #[default]
    Mutable,
    /// 400 TAG_INVALID, as ECR answers where tags are immutable.
    ImmutableAsEcr,
    /// 412 PRECONDITION, as Harbor answers.
    ImmutableAsHarbor,
}

impl Tags {
    /// Refuses to overwrite a tag, unless tags are mutable.
    fn overwrite(self, name: &str, tag: &str) -> Result<(), Refusal> {
        match self {
            Self::Mutable => Ok(()),
            Self::ImmutableAsEcr => Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "TAG_INVALID",
                format!(
                    "The image tag '{tag}' already exists in the '{name}' repository and cannot \
                     be overwritten because the tag is immutable."
                ),
            )),
            Self::ImmutableAsHarbor => Err(Refusal::new(
                StatusCode::PRECONDITION_FAILED,
                "PRECONDITION",
                format!("Failed to process request due to '{name}:{tag}' configured as immutable."),
            )),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            port: 0,
            auth: Auth::Anonymous,
            repositories: None,
            mounts: true,
            referrers: true,
            tags: Tags::default(),
            storage: None,
        }
    }
}

/// What the registry was asked so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub requests: u64,
    pub blob_heads: u64,
    pub blob_gets: u64,
    /// Upload sessions opened, monolithic POSTs and refused mounts included.
    pub uploads: u64,
    pub mounts: u64,
    pub manifest_gets: u64,
    pub manifest_puts: u64,
    pub tokens: u64,
    /// Bytes of blobs received in POST, PATCH and PUT bodies.
    pub blob_bytes: u64,
}

#[derive(Default)]
struct Tally {
    requests: AtomicU64,
    blob_heads: AtomicU64,
    blob_gets: AtomicU64,
    uploads: AtomicU64,
    mounts: AtomicU64,
    manifest_gets: AtomicU64,
    manifest_puts: AtomicU64,
    tokens: AtomicU64,
    blob_bytes: AtomicU64,
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// What every request handler shares.
struct Shared {
    store: Store,
    gate: Gate,
    repositories: Option<Vec<String>>,
    mounts: bool,
    referrers: bool,
    tags: Tags,
    tally: Tally,
}

/// A running registry; it ends when this is dropped.
pub struct DevRegistry {
    addr: SocketAddr,
    shared: Arc<Shared>,
    served: Served,
    _storage: Option<TempDir>,
}

impl DevRegistry {
    /// Starts a registry on loopback.
    pub fn start(options: Options) -> Self {
        let (root, storage) = match options.storage {
            Some(path) => {
                std::fs::create_dir_all(&path).expect("the registry's folder");
                (path, None)
            }
            None => {
                let dir = TempDir::new().expect("a folder for the registry");
                (dir.path().to_owned(), Some(dir))
            }
        };
        let (listener, addr) = served::bind(options.port);
        let shared = Arc::new(Shared {
            store: Store::open(&root),
            gate: Gate::new(options.auth, addr),
            repositories: options.repositories,
            mounts: options.mounts,
            referrers: options.referrers,
            tags: options.tags,
            tally: Tally::default(),
        });
        let app = routes::router(shared.clone());
        let served = Served::start("dev-registry", move || async move {
            let listener = served::adopt(listener);
            if let Err(error) = axum::serve(listener, app).await {
                eprintln!("registry: {error}");
            }
        });
        Self { addr, shared, served, _storage: storage }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `127.0.0.1:<port>`, as it stands in a reference.
    pub fn host(&self) -> String {
        self.addr.to_string()
    }

    /// Serves until the process ends.
    pub fn wait(self) {
        self.served.wait();
    }

    pub fn counters(&self) -> Counters {
        let tally = &self.shared.tally;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            requests: read(&tally.requests),
            blob_heads: read(&tally.blob_heads),
            blob_gets: read(&tally.blob_gets),
            uploads: read(&tally.uploads),
            mounts: read(&tally.mounts),
            manifest_gets: read(&tally.manifest_gets),
            manifest_puts: read(&tally.manifest_puts),
            tokens: read(&tally.tokens),
            blob_bytes: read(&tally.blob_bytes),
        }
    }

    /// Every manifest PUT that was accepted, in order: repository, tag or digest, digest.
    pub fn manifest_puts(&self) -> Vec<(String, String, String)> {
        self.shared.store.manifest_puts()
    }

    /// The digest a tag points to.
    pub fn tag(&self, repository: &str, tag: &str) -> Option<String> {
        self.shared.store.resolve(repository, tag)
    }

    /// Upload sessions that were opened and neither finished nor cancelled.
    pub fn open_uploads(&self) -> usize {
        self.shared.store.open_uploads()
    }

    /// Removes a blob from a repository, as garbage collection would. Returns whether it was there.
    pub fn remove_blob(&self, repository: &str, digest: &str) -> bool {
        self.shared.store.unlink_blob(repository, digest)
    }

    /// Ends every token issued so far, as if it had expired.
    pub fn expire_tokens(&self) {
        self.shared.gate.expire_tokens();
    }
}

/// Token auth with one user and this lifetime.
pub fn bearer(user: &str, password: &str, lifetime: Duration) -> Auth {
    Auth::Bearer { user: user.to_owned(), password: password.to_owned(), lifetime }
}

/// Basic auth with one user.
pub fn basic(user: &str, password: &str) -> Auth {
    Auth::Basic { user: user.to_owned(), password: password.to_owned() }
}

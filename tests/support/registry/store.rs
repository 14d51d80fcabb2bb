//! The registry's state: blobs are files named by their digest; repositories, manifests, tags and
//! upload sessions are in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// A manifest as it was put.
#[derive(Clone)]
pub struct Manifest {
    pub bytes: Bytes,
    pub media_type: String,
    pub digest: String,
    /// The digest of its `subject`, if it has one.
    pub subject: Option<String>,
}

#[derive(Default)]
struct Repository {
    blobs: BTreeSet<String>,
    manifests: BTreeMap<String, Manifest>,
    tags: BTreeMap<String, String>,
}

/// An upload session: a file that grows, and the hash of what it holds.
pub struct Session {
    file: File,
    path: PathBuf,
    hasher: Sha256,
    size: u64,
}

impl Session {
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends bytes; file, hash and size stay in step.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }
}

/// A session that several requests may name, one of which holds it at a time.
pub type SharedSession = Arc<tokio::sync::Mutex<Session>>;

#[derive(Default)]
struct State {
    repositories: BTreeMap<String, Repository>,
    sessions: HashMap<String, (String, SharedSession)>,
    puts: Vec<(String, String, String)>,
}

pub struct Store {
    root: PathBuf,
    state: Mutex<State>,
}

impl Store {
    pub fn open(root: &Path) -> Self {
        for folder in ["blobs", "uploads"] {
            std::fs::create_dir_all(root.join(folder)).expect("a folder of the registry");
        }
        Self { root: root.to_owned(), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    fn blob_path(&self, digest: &str) -> PathBuf {
        self.root.join("blobs").join(digest.replace(':', "-"))
    }

    /// Opens a blob of a repository, with its size.
    pub fn blob(&self, name: &str, digest: &str) -> Option<(File, u64)> {
        if !self.has_blob(name, digest) {
            return None;
        }
        let file = File::open(self.blob_path(digest)).ok()?;
        let size = file.metadata().ok()?.len();
        Some((file, size))
    }

    pub fn has_blob(&self, name: &str, digest: &str) -> bool {
        self.state()
            .repositories
            .get(name)
            .is_some_and(|repository| repository.blobs.contains(digest))
    }

    /// Adds a blob of the repository `from` to this one. Returns whether `from` has it.
    pub fn mount(&self, name: &str, digest: &str, from: &str) -> bool {
        if !self.has_blob(from, digest) {
            return false;
        }
        self.link_blob(name, digest);
        true
    }

    fn link_blob(&self, name: &str, digest: &str) {
        self.state()
            .repositories
            .entry(name.to_owned())
            .or_default()
            .blobs
            .insert(digest.to_owned());
    }

    pub fn unlink_blob(&self, name: &str, digest: &str) -> bool {
        self.state()
            .repositories
            .get_mut(name)
            .is_some_and(|repository| repository.blobs.remove(digest))
    }

    /// Opens an upload session and returns its id.
    pub fn open_upload(&self, name: &str) -> io::Result<(String, SharedSession)> {
        let id = format!("{:032x}", rand::random::<u128>());
        let path = self.root.join("uploads").join(&id);
        let session = Arc::new(tokio::sync::Mutex::new(Session {
            file: File::create(&path)?,
            path,
            hasher: Sha256::new(),
            size: 0,
        }));
        self.state().sessions.insert(id.clone(), (name.to_owned(), session.clone()));
        Ok((id, session))
    }

    pub fn upload(&self, name: &str, id: &str) -> Option<SharedSession> {
        let state = self.state();
        let (owner, session) = state.sessions.get(id)?;
        (owner == name).then(|| session.clone())
    }

    pub fn open_uploads(&self) -> usize {
        self.state().sessions.len()
    }

    /// Ends a session without a blob. Returns whether the session existed.
    pub fn cancel_upload(&self, name: &str, id: &str) -> bool {
        let Some(_) = self.upload(name, id) else {
            return false;
        };
        self.state().sessions.remove(id);
        // The file may be gone already.
        let _ = std::fs::remove_file(self.root.join("uploads").join(id));
        true
    }

    /// Turns a session into a blob if its bytes have this digest. Otherwise the session is removed,
    /// which the specification permits, and the actual digest is returned.
    pub fn finish_upload(
        &self,
        name: &str,
        id: &str,
        session: &mut Session,
        digest: &str,
    ) -> io::Result<Result<(), String>> {
        let found = digest_text(session.hasher.clone());
        if found != digest {
            self.cancel_upload(name, id);
            return Ok(Err(found));
        }
        std::fs::rename(&session.path, self.blob_path(digest))?;
        self.state().sessions.remove(id);
        self.link_blob(name, digest);
        Ok(Ok(()))
    }

    /// A manifest by tag or digest.
    pub fn manifest(&self, name: &str, reference: &str) -> Option<Manifest> {
        let state = self.state();
        let repository = state.repositories.get(name)?;
        let digest = repository.tags.get(reference).map_or(reference, |digest| digest);
        repository.manifests.get(digest).cloned()
    }

    pub fn put_manifest(&self, name: &str, reference: &str, manifest: Manifest) {
        let mut state = self.state();
        let digest = manifest.digest.clone();
        state.puts.push((name.to_owned(), reference.to_owned(), digest.clone()));
        let repository = state.repositories.entry(name.to_owned()).or_default();
        if reference != digest {
            repository.tags.insert(reference.to_owned(), digest.clone());
        }
        repository.manifests.insert(digest, manifest);
    }

    /// Removes a tag, or a manifest with all its tags. Returns whether it existed.
    pub fn delete_manifest(&self, name: &str, reference: &str) -> bool {
        let mut state = self.state();
        let Some(repository) = state.repositories.get_mut(name) else {
            return false;
        };
        if repository.tags.remove(reference).is_some() {
            return true;
        }
        repository.tags.retain(|_, digest| digest != reference);
        repository.manifests.remove(reference).is_some()
    }

    pub fn manifest_puts(&self) -> Vec<(String, String, String)> {
        self.state().puts.clone()
    }

    pub fn resolve(&self, name: &str, tag: &str) -> Option<String> {
        self.state().repositories.get(name)?.tags.get(tag).cloned()
    }

    /// The tags of a repository in order; `None` where there is no such repository.
    pub fn tags(&self, name: &str) -> Option<Vec<String>> {
        let state = self.state();
        let repository = state.repositories.get(name)?;
        Some(repository.tags.keys().cloned().collect())
    }

    /// The manifests whose subject is this digest.
    pub fn referrers(&self, name: &str, digest: &str) -> Vec<Manifest> {
        let state = self.state();
        let Some(repository) = state.repositories.get(name) else {
            return Vec::new();
        };
        repository
            .manifests
            .values()
            .filter(|manifest| manifest.subject.as_deref() == Some(digest))
            .cloned()
            .collect()
    }
}

/// `sha256:<hex>` of what a hasher has seen.
pub fn digest_text(hasher: Sha256) -> String {
    let mut text = String::from("sha256:");
    for byte in hasher.finalize() {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

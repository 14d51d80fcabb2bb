//! Puts the manifests of a tree: the leaves first, the root last and under its tags. It also
//! decides what a refusal of a manifest means.

use std::collections::HashSet;
use std::sync::Arc;

use futures::future::{join_all, try_join_all};

use super::blobs::Ledger;
use super::destination::Destination;
use super::image_push::{BlobResult, Failure};
use crate::error::Error;
use crate::event::{Event, Events};
use crate::image::{Digest, Manifest};
use crate::registry::{self, Referrer, Repository};
use crate::report::Outcome;
use crate::reuse::{Previous, PreviousImages};
use crate::source::layout::{Node, Tree};

/// Where an image or an index is put: the repository and the tags.
pub struct PutTarget<'a> {
    pub repository: &'a Repository,
    pub destination: &'a Destination,
    previous: &'a PreviousImages,
    events: &'a Events,
}

impl<'a> PutTarget<'a> {
    pub fn new(
        repository: &'a Repository,
        destination: &'a Destination,
        previous: &'a PreviousImages,
        events: &'a Events,
    ) -> Self {
        Self { repository, destination, previous, events }
    }

    /// Whether every tag already points to this manifest.
    pub async fn is_there(&self, manifest: &Digest) -> bool {
        let references = self.destination.references(manifest);
        let now = join_all(references.iter().map(|reference| self.now(reference))).await;
        now.iter().all(|digest| digest.as_ref() == Some(manifest))
    }

    /// The digest that a reference pointed to at the beginning of this run.
    async fn now(&self, reference: &str) -> Option<Digest> {
        self.previous.digest(&Previous::new(self.repository.clone(), reference)).await
    }

    /// Puts the manifests of a tree. If the tags already point to the root, the manifests that it
    /// lists are not put again.
    pub async fn put_tree(&self, tree: &Tree) -> Result<(), Error> {
        let root = &tree.nodes[tree.root];
        self.destination.check(&root.digest)?;
        let there = match self.is_there(&root.digest).await {
            true => reachable(tree),
            false => HashSet::new(),
        };
        for level in levels(tree) {
            let missing = level.into_iter().filter(|place| !there.contains(place));
            try_join_all(missing.map(|place| self.put_node(&tree.nodes[place]))).await?;
        }
        self.put(&root.manifest()).await
    }

    async fn put_node(&self, node: &Node) -> Result<(), registry::Error> {
        let manifest = node.manifest();
        match &node.subject {
            Some(subject) => {
                let (artifact_type, annotations) =
                    (node.artifact_type.as_deref(), &node.annotations);
                let referrer =
                    Referrer { manifest: &manifest, subject, artifact_type, annotations };
                self.repository.put_referrer(&referrer).await
            }
            None => self.repository.put_manifest(manifest.digest.as_str(), &manifest).await,
        }
    }

    /// Puts a manifest under each tag, or under its digest if there are no tags.
    pub async fn put(&self, manifest: &Manifest) -> Result<(), Error> {
        (self.events)(Event::Tagging);
        let references = self.destination.references(&manifest.digest);
        put_under(&references, manifest, self.repository, async |tag| self.now(tag).await).await
    }
}

/// Puts a manifest under each reference that does not already point to it. All requests are
/// finished even if one fails: after a cancelled request it would be unknown whether the tag was
/// set.
///
/// `now` returns what a reference points to, if that is known.
pub async fn put_under(
    references: &[String],
    manifest: &Manifest,
    repository: &Repository,
    now: impl AsyncFn(&str) -> Option<Digest>,
) -> Result<(), Error> {
    let puts = references.iter().map(async |reference| {
        let now = now(reference).await;
        if now.as_ref() == Some(&manifest.digest) {
            return Ok(());
        }
        let Err(error) = repository.put_manifest(reference, manifest).await else {
            return Ok(());
        };
        let now = match now {
            // It is not known what the reference pointed to at the beginning, so ask now.
            None if error.is_refusal() => repository.manifest_digest(reference).await.ok(),
            now => Some(now),
        };
        let now = now.flatten();
        match now.as_ref() == Some(&manifest.digest) {
            true => Ok(()),
            false => Err((reference, now, error)),
        }
    });
    let (mut put, mut failed) = (Vec::new(), None);
    for (reference, result) in references.iter().zip(join_all(puts).await) {
        match result {
            Ok(()) => put.push(reference.clone()),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    let Some((reference, now, error)) = failed else { return Ok(()) };
    let source = Arc::new(error);
    let error = match now {
        Some(digest) if source.is_refusal() => {
            Error::TagKept { tag: reference.clone(), digest, source }
        }
        _ => Error::Registry(source),
    };
    match put.is_empty() {
        true => Err(error),
        false => Err(Error::SomeTags { put, source: Box::new(error) }),
    }
}

/// Decides what the refusal of a manifest means. `blobs` were found or uploaded before.
///
/// If the registry does not have a blob that it confirmed before, the image can be pushed again
/// without relying on that. Otherwise the refusal is final.
pub fn judge_refusal(
    error: Error,
    blobs: &[BlobResult],
    ledger: &Ledger,
    repository: &Repository,
) -> Failure {
    let Some(refused) = error.registry() else { return Failure::Final(error) };
    let named: HashSet<Digest> = refused
        .said()
        .map(registry::ErrorMessage::digests)
        .unwrap_or_default()
        .into_iter()
        .collect();
    let is_unknown =
        ["MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"].iter().any(|code| refused.has_code(code));
    let foreign = |blob: &&BlobResult| blob.is_foreign();
    if let Some(foreign) = blobs
        .iter()
        .filter(foreign)
        .find(|blob| named.contains(blob.digest()) || (is_unknown && named.is_empty()))
    {
        let digest = foreign.digest().clone();
        return Failure::Final(Error::ForeignLayer { digest, source: Box::new(error) });
    }
    let relied_on: HashSet<Digest> = blobs
        .iter()
        .filter(|blob| blob.outcome().is_relied_on())
        .map(|blob| blob.digest().clone())
        .collect();
    // If a registry accepted an upload a moment ago and now denies the blob, it has lost the blob:
    // another process uploaded it at the same time, or not all servers of the registry know it yet.
    let lost = blobs.iter().filter(|blob| *blob.outcome() == Outcome::Uploaded);
    let lost = lost.map(|blob| blob.digest().clone()).filter(|digest| named.contains(digest));
    let relied_on: HashSet<Digest> = relied_on.into_iter().chain(lost).collect();
    let denied: HashSet<Digest> = named.intersection(&relied_on).cloned().collect();
    let is_about_trust = is_unknown || (refused.is_refusal() && !denied.is_empty());
    if !is_about_trust || relied_on.is_empty() {
        return Failure::Final(error);
    }
    // If a registry names one missing blob, it may be only the first of several.
    let denied = if denied.len() > 1 { denied } else { relied_on.clone() };
    ledger.distrust(repository, &relied_on, &denied);
    Failure::Untrue(error)
}

/// Whether the registry refused OCI media types, as old registries do.
pub fn is_format_refused(error: &Error) -> bool {
    matches!(error.registry(), Some(registry::Error::Status(answer)) if answer.is_about_format())
}

/// The places of the nodes that the root lists, directly or not, the root included.
pub fn reachable(tree: &Tree) -> HashSet<usize> {
    let (mut seen, mut waiting) = (HashSet::new(), vec![tree.root]);
    while let Some(place) = waiting.pop() {
        if seen.insert(place) {
            waiting.extend(&tree.nodes[place].children);
        }
    }
    seen
}

/// The places of all nodes except the root, in levels. Nodes that list no other node come first.
/// All nodes of a level can be put at the same time.
fn levels(tree: &Tree) -> Vec<Vec<usize>> {
    let mut heights = vec![0; tree.nodes.len()];
    let mut levels: Vec<Vec<usize>> = Vec::new();
    // Children come before the nodes that list them.
    for (place, node) in tree.nodes.iter().enumerate() {
        let height = node.children.iter().map(|child| heights[*child] + 1).max().unwrap_or(0);
        heights[place] = height;
        if place != tree.root {
            levels.resize_with(levels.len().max(height + 1), Vec::new);
            levels[height].push(place);
        }
    }
    levels
}

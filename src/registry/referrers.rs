//! Puts manifests that refer to others, so that clients can find them from those. Some registries
//! keep the list of referrers themselves; for the others it is put as a tag (OCI distribution-spec
//! 1.1, "Pushing Manifests with Subject" and "Referrers Tag Schema").

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};

use super::error::Error;
use super::repository::Repository;
use crate::image::{Digest, Manifest};

/// With this header a registry confirms that it has recorded the subject.
const SUBJECT: &str = "oci-subject";

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The longest list of referrers that is read. A longer one could not be put again.
const MAX_LIST_BYTES: usize = 4 << 20;

/// A manifest that refers to another one, with what a list of referrers contains about it.
#[derive(Clone, Copy, Debug)]
pub struct Referrer<'a> {
    /// The manifest.
    pub manifest: &'a Manifest,
    /// The manifest that it refers to: its `subject`.
    pub subject: &'a Digest,
    /// Its `artifactType`, or else its config's media type.
    pub artifact_type: Option<&'a str>,
    /// Its annotations.
    pub annotations: &'a BTreeMap<String, String>,
}

impl Repository {
    /// Puts a manifest that refers to another one, under its digest. If the registry does not
    /// confirm that it lists referrers itself, the list is also put, under the tag that the
    /// specification defines.
    ///
    /// The registry must already have every blob that the manifest lists. Another client may change
    /// the list at the same time. If its change has removed this referrer, the referrer is added
    /// again.
    pub async fn put_referrer(&self, referrer: &Referrer<'_>) -> Result<(), Error> {
        let answer = self.put(referrer.manifest.digest.as_str(), referrer.manifest).await?;
        if answer.contains_key(SUBJECT) {
            return Ok(());
        }
        let _alone = self.registry().referrers.lock().await;
        let tag = tag_of(referrer.subject);
        let mut list = self.referrers(&tag).await?;
        for _ in 0..2 {
            if list.has(&referrer.manifest.digest) {
                return Ok(());
            }
            list.add(referrer);
            self.put_manifest(&tag, &list.manifest()).await?;
            list = self.referrers(&tag).await?;
        }
        match list.has(&referrer.manifest.digest) {
            true => Ok(()),
            false => Err(Error::Protocol {
                doing: format!("list {} in {}", referrer.manifest.digest, self.reference(&tag)),
                problem: "others keep changing this list at the same time; push again".to_owned(),
            }),
        }
    }

    /// The list of referrers under a tag; empty if the tag does not exist.
    async fn referrers(&self, tag: &str) -> Result<ReferrerList, Error> {
        let Some(there) = self.manifest(tag).await? else {
            return Ok(ReferrerList(
                json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] }),
            ));
        };
        ReferrerList::parse(&there.bytes).map_err(|problem| Error::Protocol {
            doing: format!("add to the list of referrers in {}", self.reference(tag)),
            problem,
        })
    }
}

/// An index of referrers, including everything that other programs have put into it.
struct ReferrerList(Value);

impl ReferrerList {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > MAX_LIST_BYTES {
            return Err(format!("it has {} bytes, more than registries take", bytes.len()));
        }
        let list: Value =
            serde_json::from_slice(bytes).map_err(|error| format!("it is no index: {error}"))?;
        match &list["manifests"] {
            Value::Array(_) => Ok(Self(list)),
            _ => Err("it is no index; remove that tag, and push again".to_owned()),
        }
    }

    fn has(&self, digest: &Digest) -> bool {
        let mut all = self.0["manifests"].as_array().into_iter().flatten();
        all.any(|descriptor| descriptor["digest"] == digest.as_str())
    }

    fn add(&mut self, referrer: &Referrer<'_>) {
        let mut descriptor = json!({
            "mediaType": referrer.manifest.media_type,
            "digest": referrer.manifest.digest,
            "size": referrer.manifest.bytes.len(),
        });
        if let Some(artifact_type) = referrer.artifact_type {
            descriptor["artifactType"] = json!(artifact_type);
        }
        if !referrer.annotations.is_empty() {
            descriptor["annotations"] = json!(referrer.annotations);
        }
        if let Value::Array(all) = &mut self.0["manifests"] {
            all.push(descriptor);
        }
    }

    fn manifest(&self) -> Manifest {
        let media_type = self.0["mediaType"].as_str().unwrap_or(INDEX);
        Manifest::stored(media_type, Bytes::from(self.0.to_string()))
    }
}

/// The tag for the list of referrers of a manifest. It is shortened, because a SHA-512 digest is
/// longer than a tag may be.
fn tag_of(subject: &Digest) -> String {
    let hex: String = subject.hex().chars().take(64).collect();
    let algorithm = subject.as_str().split(':').next().unwrap_or_default();
    format!("{algorithm}-{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_keeps_what_others_have_put_into_it() {
        let manifest = Manifest::stored("a/b", Bytes::from_static(b"{}"));
        let annotations = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
        let referrer = Referrer {
            manifest: &manifest,
            subject: &manifest.digest,
            artifact_type: Some("c/d"),
            annotations: &annotations,
        };
        let theirs = r#"{"manifests":[{"digest":"x","platform":{"os":"linux"}}],"more":[1]}"#;
        let mut list = ReferrerList::parse(theirs.as_bytes()).unwrap();
        assert!(!list.has(&manifest.digest));
        list.add(&referrer);
        assert!(list.has(&manifest.digest));
        let put = list.manifest();
        assert_eq!(put.media_type, INDEX);
        let put: Value = serde_json::from_slice(&put.bytes).unwrap();
        assert_eq!(
            (&put["more"][0], &put["manifests"][0]["platform"]["os"]),
            (&json!(1), &json!("linux"))
        );
        assert_eq!(
            put["manifests"][1],
            json!({ "mediaType": "a/b", "digest": manifest.digest, "size": 2, "artifactType": "c/d",
                "annotations": { "k": "v" } })
        );
    }

    #[test]
    fn what_is_no_list_is_not_added_to() {
        for bytes in ["", "[]", "{}", r#"{"manifests":{}}"#, r#"{"layers":[]}"#] {
            assert!(ReferrerList::parse(bytes.as_bytes()).is_err(), "{bytes}");
        }
        assert!(ReferrerList::parse(&vec![b' '; MAX_LIST_BYTES + 1]).is_err());
    }

    #[test]
    fn a_tag_is_no_longer_than_tags_may_be() {
        let sha256 = Digest::of(b"x");
        assert_eq!(tag_of(&sha256), format!("sha256-{}", sha256.hex()));
        let sha512: Digest = format!("sha512:{}", "0".repeat(128)).parse().unwrap();
        assert_eq!(tag_of(&sha512), format!("sha512-{}", "0".repeat(64)));
    }
}

//! Manifests that refer to an image are found, with and without the registry's referrers API.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::support::archive::sha256;
use crate::support::proxy::{Answer, Change, Fault, Rule, Step};
use crate::support::registry::{self, DevRegistry};
use crate::support::{DockerRegistry, FaultProxy, put};
use bytes::Bytes;
use pushimg::image::{Digest, Manifest};
use pushimg::registry::{Options, Referrer, Registry, Repository};
use serde_json::{Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// A registry without the referrers API.
fn forgetful() -> DevRegistry {
    DevRegistry::start(registry::Options { referrers: false, ..Default::default() })
}

fn repository(host: &str) -> Repository {
    let settings = Arc::new(Options::default());
    Registry::new(host, settings, pushimg::event::ignore()).repository("app")
}

/// An image that is there, and its descriptor.
fn subject(host: &str) -> Value {
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"diff_ids":[]}}"#;
    put::blob(host, "app", config);
    let config = put::descriptor("application/vnd.oci.image.config.v1+json", config);
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [] });
    put::tag(host, "app", "v1", &manifest);
    put::descriptor(MANIFEST, manifest.to_string().as_bytes())
}

/// An artifact for that image, its blobs being there.
fn artifact(host: &str, subject: &Value, number: usize) -> Manifest {
    put::blob(host, "app", b"{}");
    let empty = put::descriptor(EMPTY, b"{}");
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/vnd.example.sbom",
        "config": empty,
        "layers": [empty],
        "subject": subject,
        "annotations": { "number": number.to_string() },
    });
    Manifest::stored(MANIFEST, Bytes::from(manifest.to_string()))
}

fn annotations(number: usize) -> BTreeMap<String, String> {
    BTreeMap::from([("number".to_owned(), number.to_string())])
}

fn digest_of(descriptor: &Value) -> Digest {
    descriptor["digest"].as_str().expect("a digest").parse().expect("a digest")
}

fn tag_of(subject: &Value) -> String {
    digest_of(subject).as_str().replace(':', "-")
}

/// What a list of referrers says of an artifact.
fn listed(artifact: &Manifest, number: usize) -> Value {
    json!({
        "mediaType": MANIFEST,
        "digest": artifact.digest,
        "size": artifact.bytes.len(),
        "artifactType": "application/vnd.example.sbom",
        "annotations": { "number": number.to_string() },
    })
}

async fn put_referrer(
    repository: &Repository,
    subject: &Value,
    artifact: &Manifest,
    number: usize,
) -> Result<(), pushimg::registry::Error> {
    let (subject, annotations) = (digest_of(subject), annotations(number));
    let referrer = Referrer {
        manifest: artifact,
        subject: &subject,
        artifact_type: Some("application/vnd.example.sbom"),
        annotations: &annotations,
    };
    repository.put_referrer(&referrer).await
}

/// The list under the tag; `None` if the tag does not exist.
async fn list_of(host: &str, subject: &Value) -> Option<Value> {
    let list = repository(host).manifest(&tag_of(subject)).await.expect("an answer")?;
    Some(serde_json::from_slice(&list.bytes).expect("JSON"))
}

#[tokio::test]
async fn a_registry_that_keeps_account_gets_the_manifest_and_nothing_else() {
    let registry = DevRegistry::start(registry::Options::default());
    let host = registry.host();
    let subject = subject(&host);
    let artifact = artifact(&host, &subject, 1);
    let before = registry.manifest_puts().len();
    put_referrer(&repository(&host), &subject, &artifact, 1).await.expect("it is put");
    let puts = registry.manifest_puts().split_off(before);
    let digest = artifact.digest.to_string();
    assert_eq!(puts, [("app".to_owned(), digest.clone(), digest)]);
    assert_eq!(list_of(&host, &subject).await, None);
}

#[tokio::test]
async fn debians_registry_gets_a_list_that_grows_and_has_each_referrer_once() {
    let registry = DockerRegistry::plain();
    let host = registry.host();
    let subject = subject(&host);
    let (one, two) = (artifact(&host, &subject, 1), artifact(&host, &subject, 2));
    for (artifact, number) in [(&one, 1), (&two, 2), (&one, 1)] {
        put_referrer(&repository(&host), &subject, artifact, number).await.expect("it is put");
    }
    let list = list_of(&host, &subject).await.expect("a list");
    assert_eq!(
        list,
        json!({
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [listed(&one, 1), listed(&two, 2)],
        })
    );
    let there = repository(&host).manifest(one.digest.as_str()).await.expect("an answer");
    assert_eq!(there.expect("a manifest").bytes, one.bytes);
}

#[tokio::test]
async fn what_is_listed_already_is_not_put_again() {
    let registry = forgetful();
    let host = registry.host();
    let subject = subject(&host);
    let artifact = artifact(&host, &subject, 1);
    let repository = repository(&host);
    put_referrer(&repository, &subject, &artifact, 1).await.expect("it is put");
    let before = registry.manifest_puts().len();
    put_referrer(&repository, &subject, &artifact, 1).await.expect("it is put");
    // Only the artifact itself is put again.
    assert_eq!(registry.manifest_puts().len(), before + 1);
}

#[tokio::test]
async fn many_at_once_from_one_process_are_all_listed() {
    let registry = forgetful();
    let host = registry.host();
    let subject = subject(&host);
    let repository = repository(&host);
    let artifacts: Vec<_> = (0..12).map(|number| artifact(&host, &subject, number)).collect();
    let puts = artifacts
        .iter()
        .enumerate()
        .map(|(number, artifact)| put_referrer(&repository, &subject, artifact, number));
    for result in futures::future::join_all(puts).await {
        result.expect("it is put");
    }
    let list = list_of(&host, &subject).await.expect("a list");
    assert_eq!(list["manifests"].as_array().expect("a list").len(), 12);
}

#[tokio::test]
async fn a_list_that_somebody_else_overwrites_is_put_once_more() {
    let registry = forgetful();
    let proxy = FaultProxy::before(registry.addr());
    let host = registry.host();
    let subject = subject(&host);
    let artifact = artifact(&host, &subject, 1);
    // As if another had put theirs at the same moment: the first list is stored, and gone.
    let list =
        json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [listed(&artifact, 1)] });
    let stored =
        Answer::status(201).header("docker-content-digest", &sha256(list.to_string().as_bytes()));
    let overwritten = Rule::at(Step::ManifestPut, Fault::Answer(stored)).path("/manifests/sha256-");
    proxy.set_rules(vec![overwritten.clone().first(1)]);
    let through = repository(&proxy.host());
    put_referrer(&through, &subject, &artifact, 1).await.expect("it is put");
    assert_eq!(list_of(&host, &subject).await, Some(list));

    // If every list is overwritten, pushimg reports an error.
    let another = self::artifact(&host, &subject, 2);
    let both = json!({ "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [listed(&artifact, 1), listed(&another, 2)] });
    let stored =
        Answer::status(201).header("docker-content-digest", &sha256(both.to_string().as_bytes()));
    proxy.set_rules(vec![
        Rule::at(Step::ManifestPut, Fault::Answer(stored)).path("/manifests/sha256-"),
    ]);
    let error = put_referrer(&through, &subject, &another, 2).await.expect_err("an error");
    let text = error.to_string();
    assert!(text.contains("others keep changing this list"), "{text}");
    assert!(text.contains(&tag_of(&subject)), "{text}");
    assert_eq!(
        proxy
            .count(|record| record.target.contains("/manifests/sha256-") && record.method == "PUT"),
        4
    );
}

#[tokio::test]
async fn a_tag_that_holds_an_image_is_left_alone() {
    let registry = forgetful();
    let host = registry.host();
    let subject = subject(&host);
    let artifact = artifact(&host, &subject, 1);
    let image = repository(&host).manifest("v1").await.expect("an answer").expect("an image");
    let image: Value = serde_json::from_slice(&image.bytes).expect("JSON");
    put::tag(&host, "app", &tag_of(&subject), &image);
    let error = put_referrer(&repository(&host), &subject, &artifact, 1).await;
    let text = error.expect_err("an error").to_string();
    assert!(text.contains("no index") && text.contains(&tag_of(&subject)), "{text}");
    assert_eq!(list_of(&host, &subject).await, Some(image));
}

#[tokio::test]
async fn where_the_header_is_lost_the_list_is_put_as_well() {
    let registry = DevRegistry::start(registry::Options::default());
    let proxy = FaultProxy::before(registry.addr());
    let host = registry.host();
    let subject = subject(&host);
    let artifact = artifact(&host, &subject, 1);
    let without = Fault::Rewrite(vec![Change::Remove("oci-subject".to_owned())]);
    proxy.set_rules(vec![Rule::at(Step::ManifestPut, without)]);
    put_referrer(&repository(&proxy.host()), &subject, &artifact, 1).await.expect("it is put");
    let list = list_of(&host, &subject).await.expect("a list");
    assert_eq!(list["manifests"], json!([listed(&artifact, 1)]));
}

#[tokio::test]
async fn any_manifest_can_be_put_with_its_own_media_type() {
    let registry = DevRegistry::start(registry::Options::default());
    let host = registry.host();
    let subject = subject(&host);
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [subject] });
    let index = Manifest::stored(INDEX, Bytes::from(index.to_string()));
    repository(&host).put_manifest("all", &index).await.expect("it is put");
    assert_eq!(registry.tag("app", "all"), Some(index.digest.to_string()));
    let no_type = Manifest::stored("a\nb", index.bytes.clone());
    let error = repository(&host).put_manifest("all", &no_type).await.expect_err("an error");
    assert!(error.to_string().contains("is no media type"), "{error}");
}

//! The small registry keeps to the specification, and its options make it strict.

use super::*;

#[test]
fn the_development_registry_takes_an_image_and_gives_it_back() {
    let dir = TempDir::new().expect("a folder");
    let archive = image(&dir);
    let cases = [
        registry::auth::Auth::Anonymous,
        registry::basic("user", "secret"),
        registry::bearer("user", "secret", Duration::from_secs(60)),
    ];
    for auth in cases {
        let name = format!("{auth:?}");
        let registry = DevRegistry::start(registry::Options { auth, ..Default::default() });
        let proxy = FaultProxy::before(registry.addr());
        // A registry without auth ignores a login.
        let through = Remote::new(proxy.addr()).login("user", "secret");
        pull::skopeo_push(&archive, through.clone(), "team/app", "v1");
        let pulled = pull::assert_same_image(&archive, through.clone(), "team/app", "v1");
        pull::skopeo(through.clone(), "team/app", "v1");
        assert_eq!(registry.tag("team/app", "v1"), Some(pulled.digest), "{name}");
        assert_eq!(
            proxy.body_bytes(|r| matches!(r.step, Step::UploadPatch | Step::UploadPut)),
            registry.counters().blob_bytes,
            "{name}\n{}",
            proxy.transcript()
        );
        assert_eq!(registry.counters().manifest_puts, 1, "{name}");
        assert_eq!(registry.open_uploads(), 0, "{name}");
        assert_eq!(proxy.count(|r| r.trouble.is_some()), 0, "{}", proxy.transcript());
    }
}

#[test]
fn the_development_registry_refuses_to_overwrite_an_immutable_tag() {
    let dir = TempDir::new().expect("a folder");
    let archive = image(&dir);
    let cases = [(registry::Tags::ImmutableAsEcr, 400), (registry::Tags::ImmutableAsHarbor, 412)];
    for (tags, status) in cases {
        let registry = DevRegistry::start(registry::Options { tags, ..Default::default() });
        pull::skopeo_push(&archive, registry.addr(), "team/app", "v1");
        let first = registry.tag("team/app", "v1").expect("the tag");
        pull::on_runtime(async {
            let (client, base) = (client(), format!("http://{}/v2/team/app", registry.addr()));
            let found = client.get(format!("{base}/manifests/v1")).send().await.expect("an answer");
            let media_type = header(&found, "content-type").expect("a media type");
            let manifest = found.bytes().await.expect("the manifest");
            for (tag, expected) in [("v1", status), ("v2", 201)] {
                let put = client
                    .put(format!("{base}/manifests/{tag}"))
                    .header("content-type", &media_type)
                    .body(manifest.clone())
                    .send()
                    .await
                    .expect("an answer to PUT");
                assert_eq!(put.status().as_u16(), expected, "{tags:?} {tag}");
            }
        });
        assert_eq!(registry.tag("team/app", "v1"), Some(first.clone()));
        assert_eq!(registry.tag("team/app", "v2"), Some(first));
    }
}

#[test]
fn podman_pulls_from_both_kinds_of_registry() {
    let dir = TempDir::new().expect("a folder");
    let archive = image(&dir);
    let dev = DevRegistry::start(registry::Options::default());
    let docker = DockerRegistry::plain();
    for host in [dev.host(), docker.host()] {
        pull::skopeo_push(&archive, &host, "app", "v1");
        let id = pull::podman(&host, "app", "v1");
        assert_eq!(format!("sha256:{id}"), sha256(&pull::expected(&archive, 0).config));
    }
}

#[tokio::test]
async fn the_development_registry_keeps_to_the_upload_protocol() {
    let registry = DevRegistry::start(registry::Options::default());
    let base = format!("http://{}", registry.addr());
    let client = client();
    let blob = random_bytes(7, 100_000);
    let digest = sha256(&blob);

    // In chunks, with and without Content-Range.
    let mut session = open(&client, &base).await;
    let request = client.patch(&session).header("content-range", "0-59999");
    let response = request.body(blob[..60_000].to_vec()).send().await.expect("PATCH");
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(header(&response, "range").as_deref(), Some("0-59999"));
    session = location(&response, &base);
    let status = client.get(&session).send().await.expect("GET");
    assert_eq!(status.status(), StatusCode::NO_CONTENT);
    assert_eq!(header(&status, "range").as_deref(), Some("0-59999"));
    let request = client.patch(&session).header("content-range", "0-9");
    let wrong = request.body("0123456789").send().await.expect("PATCH");
    assert_eq!(wrong.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    let request = client.patch(&session).body(blob[60_000..90_000].to_vec());
    assert_eq!(request.send().await.expect("PATCH").status(), StatusCode::ACCEPTED);
    let request = client.put(with_digest(&session, &digest));
    let response = request.body(blob[90_000..].to_vec()).send().await.expect("PUT");
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(header(&response, "docker-content-digest"), Some(digest.clone()));

    // The blob exists in this repository only, until it is mounted into another one.
    let head = client.head(format!("{base}/v2/lab/blobs/{digest}"));
    let head = head.send().await.expect("HEAD");
    assert_eq!(header(&head, "content-length").as_deref(), Some("100000"));
    let head = client.head(format!("{base}/v2/other/blobs/{digest}"));
    assert_eq!(head.send().await.expect("HEAD").status(), StatusCode::NOT_FOUND);
    let mount = format!("{base}/v2/other/blobs/uploads/?mount={digest}&from=lab");
    let mount = client.post(mount).send().await.expect("POST");
    assert_eq!(mount.status(), StatusCode::CREATED);
    let got = client.get(format!("{base}/v2/other/blobs/{digest}"));
    let got = got.send().await.expect("GET").bytes().await.expect("a blob");
    assert_eq!(sha256(&got), digest);

    // In one POST; under a wrong digest; cancelled.
    let small = sha256(b"small");
    let post = client.post(format!("{base}/v2/lab/blobs/uploads/?digest={small}"));
    let post = post.body("small").send().await.expect("POST");
    assert_eq!(post.status(), StatusCode::CREATED);
    let session = open(&client, &base).await;
    let put = client.put(with_digest(&session, &digest)).body("other bytes");
    let put = put.send().await.expect("PUT");
    assert_eq!(put.status(), StatusCode::BAD_REQUEST);
    assert!(put.text().await.expect("a body").contains("DIGEST_INVALID"));
    let session = open(&client, &base).await;
    let delete = client.delete(&session).send().await.expect("DELETE");
    assert_eq!(delete.status(), StatusCode::NO_CONTENT);
    let gone = client.get(&session).send().await.expect("GET");
    assert_eq!(gone.status(), StatusCode::NOT_FOUND);
    assert_eq!(registry.open_uploads(), 0);

    // A manifest needs its blobs.
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = |config: &str, size: usize| {
        serde_json::json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                       "digest": config, "size": size},
            "layers": [],
        })
        .to_string()
    };
    let put = |body: String| {
        client
            .put(format!("{base}/v2/lab/manifests/v1"))
            .header("content-type", media_type)
            .body(body)
            .send()
    };
    let missing = put(manifest(&sha256(b"nowhere"), 7)).await.expect("PUT");
    assert_eq!(missing.status(), StatusCode::BAD_REQUEST);
    assert!(missing.text().await.expect("a body").contains("MANIFEST_BLOB_UNKNOWN"));
    assert_eq!(registry.tag("lab", "v1"), None);
    let whole = put(manifest(&small, 5)).await.expect("PUT");
    assert_eq!(whole.status(), StatusCode::CREATED);
    let tags = client.get(format!("{base}/v2/lab/tags/list")).send().await.expect("GET");
    assert_eq!(
        tags.json::<serde_json::Value>().await.expect("JSON")["tags"],
        serde_json::json!(["v1"])
    );
    let counters = registry.counters();
    assert_eq!((counters.mounts, counters.uploads, counters.blob_heads), (1, 4, 2));
}

#[tokio::test]
async fn the_development_registry_can_be_strict() {
    let registry = DevRegistry::start(registry::Options {
        repositories: Some(vec!["lab".to_owned(), "other".to_owned()]),
        mounts: false,
        ..Default::default()
    });
    let base = format!("http://{}", registry.addr());
    let client = client();
    let unknown = client.post(format!("{base}/v2/new/blobs/uploads/"));
    let unknown = unknown.send().await.expect("POST");
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    assert!(unknown.text().await.expect("a body").contains("NAME_UNKNOWN"));
    let digest = sha256(b"small");
    let post = client.post(format!("{base}/v2/lab/blobs/uploads/?digest={digest}"));
    assert_eq!(post.body("small").send().await.expect("POST").status(), StatusCode::CREATED);
    let mount = format!("{base}/v2/other/blobs/uploads/?mount={digest}&from=lab");
    let mount = client.post(mount).send().await.expect("POST");
    assert_eq!(mount.status(), StatusCode::ACCEPTED);
    let session = location(&mount, &base);
    let put = client.put(with_digest(&session, &digest)).body("small");
    assert_eq!(put.send().await.expect("PUT").status(), StatusCode::CREATED);
}

#[tokio::test]
async fn tokens_of_the_development_registry_have_scopes_and_an_end() {
    let registry = DevRegistry::start(registry::Options {
        auth: registry::bearer("user", "secret", Duration::from_secs(60)),
        ..Default::default()
    });
    let base = format!("http://{}", registry.addr());
    let client = client();
    let uploads = format!("{base}/v2/lab/blobs/uploads/");
    let bare = client.post(&uploads).send().await.expect("POST");
    assert_eq!(bare.status(), StatusCode::UNAUTHORIZED);
    let challenge = header(&bare, "www-authenticate").expect("a challenge");
    assert!(challenge.contains("scope=\"repository:lab:pull,push\""), "{challenge}");
    let token = async |scope: &str| {
        let response = client
            .get(format!("{base}/token?service=x&scope={scope}"))
            .basic_auth("user", Some("secret"))
            .send()
            .await
            .expect("a token");
        let json: serde_json::Value = response.json().await.expect("JSON");
        json["token"].as_str().expect("a token").to_owned()
    };
    let try_post = async |token: &str| {
        let request = client.post(&uploads).bearer_auth(token);
        request.send().await.expect("POST").status()
    };
    let narrow = token("repository:lab:pull").await;
    assert_eq!(try_post(&narrow).await, StatusCode::UNAUTHORIZED);
    let elsewhere = token("repository:other:pull,push").await;
    assert_eq!(try_post(&elsewhere).await, StatusCode::UNAUTHORIZED);
    let wide = token("repository:lab:pull,push").await;
    assert_eq!(try_post(&wide).await, StatusCode::ACCEPTED);
    registry.expire_tokens();
    assert_eq!(try_post(&wide).await, StatusCode::UNAUTHORIZED);
}

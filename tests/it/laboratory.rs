//! The laboratory itself: its registries are registries, its faults arrive, its counts are right.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::archive::{ImageBuilder, Layer, random_bytes, sha256};
use crate::support::docker_registry::{BASIC_PASSWORD, BASIC_USER};
use crate::support::proxy::*;
use crate::support::pull::{self, Remote};
use crate::support::registry::{self, DevRegistry};
use crate::support::tls::{Authority, http_client as client};
use crate::support::token_server::{ExpiresIn, TokenForm};
use crate::support::*;
use reqwest::{Client, Method, StatusCode};
use tempfile::TempDir;

fn image(dir: &TempDir) -> PathBuf {
    ImageBuilder::new(vec![
        Layer::text("glibc-2.38", 1, 200_000),
        Layer::random("openssl-3.0", 2, 100_000),
        Layer::file("app-1.0", b"one"),
    ])
    .write(dir.path(), "image.tar")
}

/// Opens an upload session and returns its absolute location.
async fn open(client: &Client, base: &str) -> String {
    let response = client
        .post(format!("{base}/v2/lab/blobs/uploads/"))
        .send()
        .await
        .expect("an answer to POST");
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    location(&response, base)
}

fn header(response: &reqwest::Response, name: &str) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
}

fn location(response: &reqwest::Response, base: &str) -> String {
    let location = header(response, "location").expect("a location");
    match location.starts_with('/') {
        true => format!("{base}{location}"),
        false => location,
    }
}

fn with_digest(location: &str, digest: &str) -> String {
    let sign = if location.contains('?') { '&' } else { '?' };
    format!("{location}{sign}digest={digest}")
}

fn stream(bytes: Vec<u8>) -> reqwest::Body {
    let chunks: Vec<_> = bytes
        .chunks(16 * 1024)
        .map(|chunk| Ok::<_, std::io::Error>(bytes::Bytes::copy_from_slice(chunk)))
        .collect();
    reqwest::Body::wrap_stream(futures::stream::iter(chunks))
}

// Registries

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
        // Where nobody asks, a login does no harm.
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
fn docker_registry_takes_the_logins_that_a_test_gives_it() {
    let dir = TempDir::new().expect("a folder");
    let archive = image(&dir);
    let lines = "{\n  \"type\": \"service_account\"\n}\n";
    let logins = [("ci", "a:b c"), ("_json_key", lines)];
    let registry =
        DockerRegistry::start(&DockerRegistryOptions { logins: &logins, ..Default::default() });
    pull::skopeo_push(&archive, Remote::new(registry.addr()).login("ci", "a:b c"), "app", "v1");
    pull::on_runtime(async {
        let status = async |password| {
            let request = client().get(format!("http://{}/v2/", registry.addr()));
            let answer = request.basic_auth("_json_key", Some(password)).send().await;
            answer.expect("an answer").status()
        };
        assert_eq!(status(lines).await, StatusCode::OK);
        assert_eq!(status("{").await, StatusCode::UNAUTHORIZED);
    });
}

#[test]
fn gateways_do_what_their_options_say() {
    let authority = Authority::new();
    let registry = DockerRegistry::plain();
    let options = |tls| GatewayOptions {
        tls,
        body_limit: Some(1 << 20),
        refused_method: Some("PATCH"),
        ..Default::default()
    };
    let root = std::fs::read(authority.ca_file()).expect("ca.crt");
    let root = reqwest::Certificate::from_pem(&root).expect("a certificate");
    for (scheme, tls) in [("http", None), ("https", Some(&authority))] {
        let nginx = Nginx::before(registry.addr(), &options(tls));
        let haproxy = HaProxy::before(registry.addr(), &options(tls));
        for (host, name) in [(nginx.host(), "nginx"), (haproxy.host(), "haproxy")] {
            pull::on_runtime(async {
                tls::install_provider();
                let client = Client::builder().no_proxy().tls_certs_only([root.clone()]);
                let client = client.build().expect("an HTTP client");
                let answer = client.post(format!("{scheme}://{host}/v2/lab/blobs/uploads/"));
                let answer = answer.send().await.expect("an answer to POST");
                assert_eq!(answer.status(), StatusCode::ACCEPTED, "{name}");
                // The registry knows the host, but not that the client spoke TLS.
                let location = header(&answer, "location").expect("a location");
                assert!(location.starts_with(&format!("http://{host}/")), "{name}: {location}");
                let location = location.replace("http://", &format!("{scheme}://"));
                let status = async |method: Method, length: usize| {
                    let request = client.request(method, with_digest(&location, "sha256:0"));
                    request.body(vec![0; length]).send().await.expect("an answer").status()
                };
                assert_eq!(status(Method::PATCH, 10).await, StatusCode::METHOD_NOT_ALLOWED);
                let long = status(Method::PUT, (1 << 20) + 1).await;
                assert_eq!(long, StatusCode::PAYLOAD_TOO_LARGE, "{name}");
                let passed = status(Method::PUT, 1 << 20).await;
                assert_eq!(passed, StatusCode::BAD_REQUEST, "{name}: sha256:0 is no digest");
            });
        }
        for requests in [nginx.requests(), haproxy.requests()] {
            let first = requests.first().expect("a request");
            assert_eq!(first, "POST /v2/lab/blobs/uploads/ 202", "{requests:#?}");
            assert_eq!(requests.len(), 4, "{requests:#?}");
        }
    }
}

#[test]
fn gateways_refuse_more_requests_than_they_allow() {
    let registry = DockerRegistry::plain();
    let options = GatewayOptions { requests_per_second: Some(5), ..Default::default() };
    let nginx = Nginx::before(registry.addr(), &options);
    let haproxy = HaProxy::before(registry.addr(), &options);
    pull::on_runtime(async {
        for host in [nginx.host(), haproxy.host()] {
            let mut refused = 0;
            for _ in 0..20 {
                let answer = client().get(format!("http://{host}/v2/")).send().await;
                let answer = answer.expect("an answer");
                if answer.status() == StatusCode::TOO_MANY_REQUESTS {
                    assert_eq!(header(&answer, "retry-after").as_deref(), Some("1"));
                    refused += 1;
                }
            }
            assert!(refused > 0, "{host}");
        }
    });
}

#[test]
fn the_socks_proxy_connects_and_says_where_to() {
    let registry = DockerRegistry::plain();
    for proxy in [SocksProxy::open(), SocksProxy::with_login("user", "secret")] {
        let url = format!("http://{}/v2/", registry.addr());
        let answer = run::program("curl", ["-sS", "--proxy", &proxy.url(), &url]);
        assert_eq!(answer, "{}");
        assert_eq!(proxy.connections(), [registry.host()]);
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

    // There now, in this repository only; mounted into another.
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

#[test]
fn docker_registry_runs_plain_and_with_basic_auth() {
    let dir = TempDir::new().expect("a folder");
    let archive = image(&dir);
    let plain = DockerRegistry::plain();
    let basic = DockerRegistry::basic();
    for registry in [&plain, &basic] {
        let proxy = FaultProxy::before(registry.addr());
        let place = Remote::new(proxy.addr()).login(BASIC_USER, BASIC_PASSWORD);
        pull::skopeo_push(&archive, place.clone(), "team/app", "v1");
        let pulled = pull::assert_same_image(&archive, place.clone(), "team/app", "v1");
        pull::skopeo(place, "team/app", "v1");
        assert_eq!(registry.tag("team/app", "v1"), Some(pulled.digest));
        assert_eq!(registry.open_uploads("team/app"), 0);
        assert_eq!(proxy.count_step(Step::ManifestPut), 1);
        let sent: u64 = pulled.layers.iter().map(|layer| layer.size).sum();
        assert_eq!(
            proxy.body_bytes(|r| matches!(r.step, Step::UploadPatch | Step::UploadPut)),
            sent + pulled.config.len() as u64,
            "{}",
            proxy.transcript()
        );
        assert_eq!(proxy.count(|r| r.trouble.is_some()), 0, "{}", proxy.transcript());
    }
    assert!(pull::try_oci(&Remote::new(basic.addr()), "team/app", "v1").is_err());
}

#[test]
fn docker_registry_takes_the_token_servers_tokens() {
    let dir = TempDir::new().expect("a folder");
    let archive = image(&dir);
    let tokens = TokenServer::start(TokenOptions::default());
    let registry = DockerRegistry::token(&tokens);
    let proxy = FaultProxy::start(
        registry.addr(),
        &ProxyOptions { token_upstream: Some(tokens.addr()), ..Default::default() },
    );
    let place = Remote::new(proxy.addr()).login("pushimg", "correct horse");
    pull::skopeo_push(&archive, place.clone(), "team/app", "v1");
    pull::assert_same_image(&archive, place, "team/app", "v1");
    // Pulling needs no login, by this token server's rules.
    pull::skopeo(Remote::new(proxy.addr()), "team/app", "v1");
    let requests = tokens.requests();
    let push = requests
        .iter()
        .find(|request| request.scopes.iter().any(|scope| scope.ends_with("push")))
        .expect("a request for push");
    assert_eq!(push.login, Some(("pushimg".to_owned(), "correct horse".to_owned())));
    assert_eq!(push.service.as_deref(), Some(tokens.service()));
    // Every one of them came through the proxy.
    let through = proxy.count(|r| r.origin == Origin::Token);
    assert_eq!(through, requests.len(), "{}", proxy.transcript());
}

#[tokio::test]
async fn the_token_server_speaks_every_dialect() {
    let tokens =
        TokenServer::start(TokenOptions { lifetime: Duration::from_secs(2), ..Default::default() });
    let registry = DockerRegistry::token(&tokens);
    let client = client();
    let scope = "repository:lab:pull,push";
    let uploads = format!("http://{}/v2/lab/blobs/uploads/", registry.addr());
    let try_post = async |token: &str| {
        let request = client.post(&uploads).bearer_auth(token);
        request.send().await.expect("POST").status()
    };
    let get = async || {
        let request = client.get(tokens.realm()).query(&[("scope", scope)]);
        let request = request.basic_auth("pushimg", Some("correct horse"));
        let response = request.send().await.expect("a token");
        response.json::<serde_json::Value>().await.expect("JSON")
    };

    let answer = get().await;
    assert_eq!(answer["expires_in"], 2);
    let token = answer["token"].as_str().expect("token").to_owned();
    assert_eq!(try_post(&token).await, StatusCode::ACCEPTED);
    tokio::time::sleep(Duration::from_millis(3100)).await;
    assert_eq!(try_post(&token).await, StatusCode::UNAUTHORIZED, "a token ends");

    tokens.configure(|options| {
        options.form = TokenForm::AccessToken;
        options.expires_in = ExpiresIn::Missing;
        options.lifetime = Duration::from_secs(60);
    });
    let answer = get().await;
    assert!(answer.get("token").is_none() && answer.get("expires_in").is_none());
    let token = answer["access_token"].as_str().expect("access_token");
    assert_eq!(try_post(token).await, StatusCode::ACCEPTED);

    let post = async |refresh: &str| {
        let form =
            format!("grant_type=refresh_token&refresh_token={refresh}&service=x&scope={scope}");
        let request = client.post(tokens.realm()).body(form);
        request.send().await.expect("an answer")
    };
    let answer = post("battery-staple").await;
    let answer: serde_json::Value = answer.json().await.expect("JSON");
    let token = answer["access_token"].as_str().expect("access_token");
    assert_eq!(try_post(token).await, StatusCode::ACCEPTED);
    assert_eq!(post("wrong").await.status(), StatusCode::UNAUTHORIZED);

    // Without credentials only pull is granted.
    let request = client.get(tokens.realm()).query(&[("scope", scope)]);
    let answer: serde_json::Value = request.send().await.expect("GET").json().await.expect("JSON");
    let token = answer["access_token"].as_str().expect("access_token");
    assert_eq!(try_post(token).await, StatusCode::UNAUTHORIZED);

    let last = tokens.requests().pop().expect("recorded");
    assert_eq!((last.method.as_str(), last.login), ("GET", None));
    assert_eq!(last.scopes, [scope]);
}

#[tokio::test]
async fn docker_registry_serves_tls_with_and_without_client_certificates() {
    let authority = Authority::new();
    let root = reqwest::Certificate::from_pem(&std::fs::read(authority.ca_file()).expect("ca.crt"))
        .expect("a certificate");
    let identity = authority.client();
    let mut pem = std::fs::read(identity.cert).expect("client.cert");
    pem.extend(std::fs::read(identity.key).expect("client.key"));
    let identity = reqwest::Identity::from_pem(&pem).expect("an identity");
    tls::install_provider();
    let plain =
        Client::builder().no_proxy().tls_certs_only([root.clone()]).build().expect("a client");
    let known = Client::builder()
        .no_proxy()
        .tls_certs_only([root])
        .identity(identity)
        .build()
        .expect("a client");

    let open = DockerRegistry::tls(&authority);
    assert_eq!(open.ca_file(), Some(authority.ca_file().as_path()));
    let url = format!("https://{}/v2/", open.addr());
    let response = plain.get(&url).send().await.expect("GET");
    assert_eq!(response.status(), StatusCode::OK);
    assert!(client().get(&url).send().await.is_err(), "not the system's root");

    let closed = DockerRegistry::start(&DockerRegistryOptions {
        tls: Some(&authority),
        client_certificates: true,
        ..Default::default()
    });
    let url = format!("https://{}/v2/", closed.addr());
    assert!(plain.get(&url).send().await.is_err());
    assert_eq!(known.get(&url).send().await.expect("GET").status(), StatusCode::OK);

    // The proxy's own TLS, with HTTP/2, before a registry without.
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::start(
        registry.addr(),
        &ProxyOptions { tls: Some(&authority), client_certificates: true, ..Default::default() },
    );
    let url = format!("https://{}/v2/lab/blobs/uploads/", proxy.addr());
    assert!(plain.post(&url).send().await.is_err());
    let response = known.post(&url).send().await.expect("POST");
    assert_eq!(response.version(), reqwest::Version::HTTP_2);
    let session = header(&response, "location").expect("a location");
    assert!(session.starts_with(&format!("https://{}/v2/lab/", proxy.addr())), "{session}");
    let blob = random_bytes(1, 300_000);
    let put = known.put(with_digest(&session, &sha256(&blob))).body(stream(blob));
    assert_eq!(put.send().await.expect("PUT").status(), StatusCode::CREATED);
    assert_eq!(proxy.body_bytes(|r| r.is(Step::UploadPut)), 300_000);
    assert!(proxy.records().iter().all(|r| r.version == "HTTP/2.0"));
}

#[tokio::test]
async fn docker_registry_forgets_a_session_whose_patch_broke_off() {
    // The state in its locations holds an offset, which must be the upload's size: a broken PATCH
    // makes every location it ever gave invalid. Resuming can be tested at the development
    // registry only.
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let base = format!("http://{}", proxy.addr());
    let client = client();
    let at = At::Bytes(100_000);
    for (delivered, status) in [(true, 404), (false, 204)] {
        let session = open(&client, &base).await;
        let cut = Fault::CutRequest { at, delivered };
        proxy.set_rules(vec![Rule::at(Step::UploadPatch, cut)]);
        let patch = client.patch(&session).body(random_bytes(1, 300_000));
        patch.send().await.expect_err("a reset");
        let asked = client.get(&session).send().await.expect("GET");
        assert_eq!(asked.status().as_u16(), status);
    }
}

// The proxy

#[tokio::test]
async fn steps_are_told_apart() {
    let of = |method, target| Step::of(Origin::Registry, method, target);
    assert_eq!(of("GET", "/v2/"), Step::Ping);
    assert_eq!(of("GET", "/v2/a/b/manifests/v1"), Step::ManifestGet);
    assert_eq!(of("PUT", "/v2/a/manifests/sha256:00"), Step::ManifestPut);
    assert_eq!(of("HEAD", "/v2/a/blobs/sha256:00"), Step::BlobHead);
    assert_eq!(of("GET", "/v2/a/blobs/sha256:00"), Step::ConfigGet);
    assert_eq!(of("POST", "/v2/a/blobs/uploads/"), Step::UploadPost);
    assert_eq!(of("POST", "/v2/a/blobs/uploads/?from=b&mount=sha256:00"), Step::MountPost);
    assert_eq!(of("PATCH", "/v2/a/blobs/uploads/1?_state=x"), Step::UploadPatch);
    assert_eq!(of("PUT", "/v2/a/blobs/uploads/1?digest=x"), Step::UploadPut);
    assert_eq!(of("GET", "/v2/a/blobs/uploads/1"), Step::UploadStatus);
    assert_eq!(of("DELETE", "/v2/a/blobs/uploads/1"), Step::UploadDelete);
    assert_eq!(Step::of(Origin::Token, "POST", "/anything"), Step::TokenPost);
    assert_eq!(of("GET", "/token?scope=x"), Step::TokenGet);
}

#[tokio::test]
async fn rules_strike_when_they_say() {
    let registry = DevRegistry::start(registry::Options::default());
    let proxy = FaultProxy::before(registry.addr());
    let client = client();
    let get = async |path: &str| {
        let url = format!("http://{}{path}", proxy.addr());
        client.get(url).send().await.map(|r| r.status().as_u16()).unwrap_or(0)
    };
    proxy.set_rules(vec![
        Rule::at(Step::Ping, Fault::status(503)).first(2),
        Rule::at(Step::Ping, Fault::Reset).nth(2),
        Rule::at(Step::ManifestGet, Fault::status(500)).path("/manifests/v1").method("GET"),
    ]);
    let mut pings = Vec::new();
    for _ in 0..5 {
        pings.push(get("/v2/").await);
    }
    assert_eq!(pings, [503, 503, 200, 0, 200]);
    assert_eq!(get("/v2/lab/manifests/v1").await, 500);
    assert_eq!(get("/v2/lab/manifests/v2").await, 404);
    assert_eq!(proxy.struck(), 4);
    proxy.heal();
    assert_eq!(get("/v2/lab/manifests/v1").await, 404);
}

#[tokio::test]
async fn answers_and_rewrites_arrive() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let base = format!("http://{}", proxy.addr());
    let client = client();

    proxy.set_rules(vec![
        Rule::at(
            Step::Ping,
            Fault::Answer(Answer::status(429).retry_after(7).error("TOOMANYREQUESTS", "slow")),
        )
        .first(1),
        Rule::at(
            Step::Ping,
            Fault::Answer(Answer::status(503).retry_after_date(Duration::from_secs(5)).html()),
        )
        .first(1),
    ]);
    let first = client.get(format!("{base}/v2/")).send().await.expect("GET");
    assert_eq!(header(&first, "retry-after").as_deref(), Some("7"));
    assert!(first.text().await.expect("a body").contains("TOOMANYREQUESTS"));
    let second = client.get(format!("{base}/v2/")).send().await.expect("GET");
    let date = header(&second, "retry-after").expect("a date");
    let date = httpdate::parse_http_date(&date).expect("an HTTP date");
    let wait = date.duration_since(std::time::SystemTime::now()).expect("in the future");
    assert!((4..=6).contains(&wait.as_secs()), "{wait:?}");
    assert!(second.text().await.expect("a body").contains("<html>"));

    let post = async |fault: Fault| {
        proxy.set_rules(vec![Rule::at(Step::UploadPost, fault)]);
        let url = format!("{base}/v2/lab/blobs/uploads/");
        client.post(url).send().await.expect("POST")
    };
    let located = async |form: LocationForm| {
        let response = post(Fault::Rewrite(vec![Change::Location(form)])).await;
        header(&response, "location").expect("a location")
    };
    let foreign = format!("http://{}/v2/lab/", proxy.addr_of(Origin::Foreign));
    assert!(located(LocationForm::Absolute).await.starts_with(&format!("{base}/v2/lab/")));
    assert!(located(LocationForm::Relative).await.starts_with("/v2/lab/"));
    assert!(located(LocationForm::Foreign).await.starts_with(&foreign));
    assert!(located(LocationForm::Portless).await.starts_with("http://127.0.0.1/v2/lab/"));
    let response = post(Fault::Rewrite(vec![
        Change::Remove("location".to_owned()),
        Change::Set("oci-chunk-min-length".to_owned(), "65536".to_owned()),
        Change::Status(201),
    ]))
    .await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(header(&response, "location"), None);
    assert_eq!(header(&response, "oci-chunk-min-length").as_deref(), Some("65536"));

    // A PATCH that answers 204 with a Range that lies; the bytes are there all the same.
    proxy.heal();
    let session = open(&client, &base).await;
    proxy.set_rules(vec![Rule::at(
        Step::UploadPatch,
        Fault::Rewrite(vec![Change::Status(204), Change::Range(RangeLie::Fewer(1000))]),
    )]);
    let patch = client.patch(&session).body(random_bytes(3, 5000));
    let patch = patch.send().await.expect("PATCH");
    assert_eq!(patch.status(), StatusCode::NO_CONTENT);
    assert_eq!(header(&patch, "range").as_deref(), Some("0-3999"));
    let put = with_digest(&location(&patch, &base), &sha256(&random_bytes(3, 5000)));
    let put = client.put(put).send().await.expect("PUT");
    assert_eq!(put.status(), StatusCode::CREATED);

    // A mount becomes a session.
    let mount =
        format!("{base}/v2/other/blobs/uploads/?mount={}&from=lab", sha256(&random_bytes(3, 5000)));
    assert_eq!(client.post(&mount).send().await.expect("POST").status(), StatusCode::CREATED);
    proxy.set_rules(vec![Rule::at(Step::MountPost, Fault::RefuseMount)]);
    let refused = client.post(&mount).send().await.expect("POST");
    assert_eq!(refused.status(), StatusCode::ACCEPTED);
    assert!(header(&refused, "location").is_some());
}

#[tokio::test]
async fn a_cut_request_leaves_the_registry_with_what_it_got() {
    let registry = DevRegistry::start(registry::Options::default());
    let proxy = FaultProxy::before(registry.addr());
    let base = format!("http://{}", proxy.addr());
    let client = client();
    let blob = random_bytes(9, 400_000);
    for (delivered, has) in [(true, "0-99999"), (false, "0-0")] {
        for streamed in [true, false] {
            let session = open(&client, &base).await;
            let at = At::Bytes(100_000);
            let cut = Fault::CutRequest { at, delivered };
            proxy.set_rules(vec![Rule::at(Step::UploadPatch, cut)]);
            let body = match streamed {
                true => stream(blob.clone()),
                false => blob.clone().into(),
            };
            let patch = client.patch(&session).body(body).send().await;
            assert!(patch.is_err(), "{patch:?}");
            let status = client.get(&session).send().await.expect("GET");
            assert_eq!(header(&status, "range").as_deref(), Some(has));
            let record = proxy.records().into_iter().rfind(|r| r.is(Step::UploadPatch));
            let record = record.expect("recorded");
            assert_eq!((record.request_body, record.status), (100_000, None));
            proxy.heal();
        }
    }
}

#[test]
fn a_reset_is_a_reset_and_not_an_end() {
    let registry = DevRegistry::start(registry::Options::default());
    for line in [Line::default(), Line::new(4, 1000)] {
        let options = ProxyOptions { line, ..Default::default() };
        let proxy = FaultProxy::start(registry.addr(), &options);
        proxy.set_rules(vec![Rule::any(Fault::Reset)]);
        let mut tcp = TcpStream::connect(proxy.addr()).expect("connect");
        tcp.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n").expect("write");
        let error = tcp.read(&mut [0; 100]).expect_err("no answer and no end");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{line:?}");
        assert_eq!(registry.counters().requests, 0);
    }
}

#[tokio::test]
async fn responses_are_cut_and_held() {
    let registry = DevRegistry::start(registry::Options::default());
    let proxy = FaultProxy::before(registry.addr());
    let base = format!("http://{}", proxy.addr());
    let client = client();
    let blob = random_bytes(4, 200_000);
    let digest = sha256(&blob);
    let post = client.post(format!("{base}/v2/lab/blobs/uploads/?digest={digest}"));
    assert_eq!(post.body(blob).send().await.expect("POST").status(), StatusCode::CREATED);

    let url = format!("{base}/v2/lab/blobs/{digest}");
    let half = At::Percent(50);
    for reset in [false, true] {
        proxy.clear();
        proxy.set_rules(vec![Rule::at(Step::ConfigGet, Fault::CutResponse { at: half, reset })]);
        let response = client.get(&url).send().await.expect("the head");
        assert_eq!(response.content_length(), Some(200_000));
        assert!(response.bytes().await.is_err());
        assert_eq!(proxy.records()[0].response_body, 100_000);
    }
    let hold = Hold::For(Duration::from_millis(300));
    for place in [Place::BeforeResponse, Place::ResponseBody(half)] {
        proxy.set_rules(vec![Rule::at(Step::ConfigGet, Fault::Stall { place, hold })]);
        let began = Instant::now();
        let response = client.get(&url).send().await.expect("the head");
        let early = began.elapsed() < Duration::from_millis(250);
        assert_eq!(early, place != Place::BeforeResponse);
        let bytes = response.bytes().await.expect("the body, late");
        assert_eq!(sha256(&bytes), digest);
        assert!(began.elapsed() >= Duration::from_millis(300));
    }
    for place in [Place::BeforeResponse, Place::ResponseBody(half)] {
        proxy.set_rules(vec![Rule::at(Step::ConfigGet, Fault::stall(place))]);
        let request = client.get(&url).timeout(Duration::from_millis(400)).send();
        let whole = async { request.await?.bytes().await };
        assert!(whole.await.expect_err("silence").is_timeout());
    }
    // A request's body is held, and then goes on.
    proxy.heal();
    let session = open(&client, &base).await;
    let place = Place::RequestBody(At::Bytes(1000));
    proxy.set_rules(vec![Rule::at(Step::UploadPatch, Fault::Stall { place, hold })]);
    let began = Instant::now();
    let patch = client.patch(&session).body(random_bytes(4, 50_000));
    let patch = patch.send().await.expect("PATCH");
    assert_eq!(header(&patch, "range").as_deref(), Some("0-49999"));
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn a_lost_response_is_one_the_registry_gave() {
    let registry = DevRegistry::start(registry::Options::default());
    let proxy = FaultProxy::before(registry.addr());
    let base = format!("http://{}", proxy.addr());
    let client = client();
    for (instead, text) in [(None, "one"), (Some(Answer::status(502).html()), "two")] {
        let session = open(&client, &base).await;
        proxy.set_rules(vec![Rule::at(Step::UploadPut, Fault::LostResponse(instead.clone()))]);
        let put = client.put(with_digest(&session, &sha256(text.as_bytes()))).body(text);
        match put.send().await {
            Ok(response) => assert_eq!(response.status(), StatusCode::BAD_GATEWAY),
            Err(_) => assert!(instead.is_none()),
        }
        let record = proxy.records().pop().expect("recorded");
        assert_eq!(record.upstream_status, Some(201));
        let head = client.head(format!("{base}/v2/lab/blobs/{}", sha256(text.as_bytes())));
        assert_eq!(head.send().await.expect("HEAD").status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn sessions_are_lost_and_bodies_capped() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let base = format!("http://{}", proxy.addr());
    let client = client();
    let session = open(&client, &base).await;
    assert_eq!(registry.open_uploads("lab"), 1);
    proxy.set_rules(vec![Rule::at(Step::UploadPatch, Fault::LostSession).first(1)]);
    let patch = client.patch(&session).body("abc").send().await.expect("PATCH");
    assert_eq!(patch.status(), StatusCode::NOT_FOUND);
    assert!(patch.text().await.expect("a body").contains("BLOB_UPLOAD_UNKNOWN"));
    assert_eq!(registry.open_uploads("lab"), 0);
    let again = client.patch(&session).body("abc").send().await.expect("PATCH");
    assert_eq!(again.status(), StatusCode::NOT_FOUND, "it is really gone");

    let unread = Unread::KeepReading;
    proxy.set_rules(vec![Rule::any(Fault::BodyCap { bytes: 10_000, unread })]);
    for (size, streamed, expected) in [
        (10_000, false, StatusCode::ACCEPTED),
        (10_001, false, StatusCode::PAYLOAD_TOO_LARGE),
        (10_000, true, StatusCode::ACCEPTED),
        (300_000, true, StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let session = open(&client, &base).await;
        let blob = random_bytes(1, size);
        let body = if streamed { stream(blob) } else { blob.into() };
        let patch = client.patch(&session).body(body).send().await.expect("PATCH");
        assert_eq!(patch.status(), expected, "{size} {streamed}");
    }
}

#[tokio::test]
async fn an_expired_token_comes_with_the_registrys_own_challenge() {
    let tokens = TokenServer::start(TokenOptions::default());
    let registry = DockerRegistry::token(&tokens);
    let signer = tokens.signer();
    let proxy = FaultProxy::start(
        registry.addr(),
        &ProxyOptions {
            token_upstream: Some(tokens.addr()),
            foreign_authorization: Some(Arc::new(move |_| {
                format!("Bearer {}", signer("repository:lab:pull,push"))
            })),
            ..Default::default()
        },
    );
    let base = format!("http://{}", proxy.addr());
    let client = client();
    proxy.set_rules(vec![Rule::at(Step::UploadPost, Fault::ExpiredToken).first(1)]);
    let url = format!("{base}/v2/lab/blobs/uploads/");
    let token = tokens.sign("repository:lab:pull,push");
    let expired = client.post(&url).bearer_auth(&token).send().await.expect("POST");
    assert_eq!(expired.status(), StatusCode::UNAUTHORIZED);
    let challenge = header(&expired, "www-authenticate").expect("a challenge");
    let realm = format!("realm=\"http://{}/token\"", proxy.addr_of(Origin::Token));
    for part in [&realm, "scope=\"repository:lab:", "error=\"invalid_token\""] {
        assert!(challenge.contains(part), "{part} in {challenge}");
    }
    assert_eq!(registry.open_uploads("lab"), 0);

    // A redirect of a PUT to the foreign origin, which goes on by its own token.
    proxy.clear();
    let post = client.post(&url).bearer_auth(&token).send().await.expect("POST");
    let session = header(&post, "location").expect("a location");
    proxy.set_rules(vec![Rule::at(Step::UploadPut, Fault::redirect())]);
    let put = with_digest(&session, &sha256(b"blob"));
    let put = client.put(put).bearer_auth(&token).body("blob").send().await.expect("PUT");
    assert_eq!(put.status(), StatusCode::TEMPORARY_REDIRECT);
    let next = header(&put, "location").expect("a location");
    let foreign = format!("http://{}/", proxy.addr_of(Origin::Foreign));
    assert!(next.starts_with(&foreign), "{next}");
    let done = client.put(next).body("blob").send().await.expect("PUT");
    assert_eq!(done.status(), StatusCode::CREATED, "{}", proxy.transcript());
    let leaked = |r: &Record| r.origin == Origin::Foreign && r.header("authorization").is_some();
    assert_eq!(proxy.count(leaked), 0);
    assert_eq!(proxy.count(|r| r.origin == Origin::Foreign), 1);
    let head = client.head(format!("{foreign}v2/lab/blobs/{}", sha256(b"blob")));
    head.bearer_auth(&token).send().await.expect("HEAD");
    assert_eq!(proxy.count(leaked), 1, "a leak is seen");
}

#[tokio::test]
async fn chance_from_one_seed_strikes_the_same_requests() {
    let registry = DevRegistry::start(registry::Options::default());
    let client = client();
    let run = async |seed: u64| {
        let proxy = FaultProxy::before(registry.addr());
        proxy.set_random(Some(Random {
            faults: vec![Fault::status(503), Fault::status(429), Fault::Reset],
            ..Random::transient(seed, 300)
        }));
        for n in 0..100 {
            let url = format!("http://{}/v2/lab/manifests/{}", proxy.addr(), n % 7);
            // Some of these fail, by design.
            let _ = client.get(url).send().await;
        }
        let faults: Vec<_> = proxy.records().into_iter().map(|r| r.fault).collect();
        (proxy.struck(), faults)
    };
    let (struck, first) = run(1).await;
    assert!((10..60).contains(&struck), "{struck} of 100 at 30 %");
    assert_eq!(run(1).await.1, first);
    assert_ne!(run(2).await.1, first);
}

#[tokio::test]
async fn a_slow_line_is_as_slow_as_it_says() {
    let registry = DevRegistry::start(registry::Options::default());
    let proxy = FaultProxy::start(
        registry.addr(),
        &ProxyOptions { line: Line::new(50, 80), ..Default::default() },
    );
    let base = format!("http://{}", proxy.addr());
    let client = client();
    let timed = async |request: reqwest::RequestBuilder| {
        let began = Instant::now();
        let status = request.send().await.expect("an answer").status();
        (status.as_u16(), began.elapsed().as_millis())
    };
    // The first request opens the connection: two round trips; then it is one.
    let (status, first) = timed(client.get(format!("{base}/v2/"))).await;
    assert!(status == 200 && (100..180).contains(&first), "{first} ms");
    let (_, second) = timed(client.get(format!("{base}/v2/"))).await;
    assert!((50..110).contains(&second), "{second} ms");
    // 2 MB at 80 Mbit/s are 200 ms; alone, or as two at once.
    let blob = random_bytes(5, 1_000_000);
    let post = |n: u8| {
        let mut blob = blob.clone();
        blob[0] = n;
        let digest = sha256(&blob);
        timed(
            client
                .request(Method::POST, format!("{base}/v2/lab/blobs/uploads/?digest={digest}"))
                .body(blob),
        )
    };
    let began = Instant::now();
    let ((one, _), (two, _)) = tokio::join!(post(1), post(2));
    let both = began.elapsed().as_millis();
    assert_eq!((one, two), (201, 201));
    assert!((250..450).contains(&both), "{both} ms");
}

#[tokio::test]
async fn a_fast_line_is_as_fast_as_it_says() {
    let registry = DevRegistry::start(registry::Options::default());
    let proxy = FaultProxy::start(
        registry.addr(),
        &ProxyOptions { line: Line::new(50, 400), ..Default::default() },
    );
    let blob = random_bytes(6, 20_000_000);
    let url = format!("http://{}/v2/lab/blobs/uploads/?digest={}", proxy.addr(), sha256(&blob));
    let began = Instant::now();
    let response = client().post(url).body(blob).send().await.expect("POST");
    let took = began.elapsed().as_millis();
    assert_eq!(response.status(), StatusCode::CREATED);
    // 400 ms for the bytes, two round trips.
    assert!((500..700).contains(&took), "{took} ms");
}

#[test]
fn every_fault_of_the_catalogue_strikes_without_harm_to_the_proxy() {
    let registry = DevRegistry::start(registry::Options::default());
    let proxy = FaultProxy::before(registry.addr());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let client = client();
    let base = format!("http://{}", proxy.addr());
    for (name, fault) in Fault::catalogue() {
        runtime.block_on(async {
            proxy.heal();
            let session = open(&client, &base).await;
            proxy.clear();
            proxy.set_rules(vec![Rule::at(Step::UploadPatch, fault).first(1)]);
            let request = client.patch(&session).body(random_bytes(1, 100_000));
            // What comes of it is the fault's business.
            let _ = request.timeout(Duration::from_millis(300)).send().await;
            assert_eq!(proxy.struck(), 1, "{name}");
            let ping = client.get(format!("{base}/v2/")).send().await;
            assert_eq!(ping.expect("GET").status(), StatusCode::OK, "{name}");
            let troubled = proxy.count(|r| r.trouble.is_some());
            assert_eq!(troubled, 0, "{name}\n{}", proxy.transcript());
        });
    }
}

// Archives

#[test]
fn archives_are_the_same_plain_and_compressed_and_differ_where_told() {
    let dir = TempDir::new().expect("a folder");
    let one = ImageBuilder::new(vec![Layer::text("a", 1, 1000), Layer::random("b", 2, 1000)])
        .repo_tags(&["registry.example/app:v1"]);
    let two = one.clone().with_layer(1, Layer::random("b", 3, 1000));
    let plain = pull::expected(&one.write(dir.path(), "one.tar"), 0);
    let gzip = pull::expected(&one.write_gz(dir.path(), "one.tar.gz"), 0);
    let next = pull::expected(&two.write_gz(dir.path(), "two.tar.gz"), 0);
    assert_eq!(plain.config, gzip.config);
    assert_eq!(plain.diff_ids, gzip.diff_ids);
    assert_eq!(plain.repo_tags, ["registry.example/app:v1"]);
    assert_eq!(plain.diff_ids[0], next.diff_ids[0]);
    assert_ne!(plain.diff_ids[1], next.diff_ids[1]);
}

#[test]
fn a_program_past_its_time_limit_is_killed() {
    let mut command = std::process::Command::new("sleep");
    command.arg("30");
    let output = run::finish(command, None, Duration::from_millis(100));
    assert!(output.timed_out && output.code().is_none());
    assert!(output.took < Duration::from_secs(5));
}

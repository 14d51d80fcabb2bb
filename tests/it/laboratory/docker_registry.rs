//! docker-registry in its variants, and the token server that it trusts.

use super::*;

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

    // The proxy speaks TLS and HTTP/2; the registry behind it has no TLS.
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
    // docker-registry writes an offset into its upload locations, which must equal the upload's
    // size. A broken PATCH changes the size, so all earlier locations become invalid. Only the
    // development registry can be used to test resuming.
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

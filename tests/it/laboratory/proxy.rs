//! The proxy: its faults arrive, its counts are right, its line is as slow as it says.

use super::*;

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

    // The proxy redirects a PUT to the foreign origin, which uses a token of its own.
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

/// Asserts that an operation takes this number of milliseconds. Other processes can make a line
/// slower, never faster, so the upper limit must hold in only one of five measurements.
async fn takes(range: std::ops::Range<u128>, measure: impl AsyncFn() -> Duration) {
    let mut all = Vec::new();
    for _ in 0..5 {
        let took = measure().await.as_millis();
        all.push(took);
        assert!(took >= range.start, "{all:?} ms, not {range:?}");
        if took < range.end {
            return;
        }
    }
    panic!("{all:?} ms, not {range:?}");
}

#[tokio::test]
async fn a_slow_line_is_as_slow_as_it_says() {
    let registry = DevRegistry::start(registry::Options::default());
    let proxy = FaultProxy::start(
        registry.addr(),
        &ProxyOptions { line: Line::new(50, 80), ..Default::default() },
    );
    let base = format!("http://{}", proxy.addr());
    let ping = async |client: &Client| {
        let began = Instant::now();
        let answer = client.get(format!("{base}/v2/")).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        began.elapsed()
    };
    // The first request opens the connection: two round trips; then it is one.
    takes(100..180, async || ping(&client()).await).await;
    let client = client();
    ping(&client).await;
    takes(50..110, async || ping(&client).await).await;
    // Two parallel uploads of 1 MB share the line, so they take 200 ms at 80 Mbit/s.
    let blob = random_bytes(5, 1_000_000);
    let post = async |n: u8| {
        let mut blob = blob.clone();
        blob[0] = n;
        let url = format!("{base}/v2/lab/blobs/uploads/?digest={}", sha256(&blob));
        let answer = client.post(url).body(blob).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::CREATED);
    };
    takes(250..450, async || {
        let began = Instant::now();
        tokio::join!(post(1), post(2));
        began.elapsed()
    })
    .await;
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
    // 400 ms for the bytes, two round trips.
    takes(500..700, async || {
        let began = Instant::now();
        let response = client().post(&url).body(blob.clone()).send().await.expect("POST");
        let took = began.elapsed();
        assert_eq!(response.status(), StatusCode::CREATED);
        took
    })
    .await;
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

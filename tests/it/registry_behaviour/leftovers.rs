//! A push that ends early leaves no upload session open, and no output shows a secret.

use super::*;

#[test]
fn a_push_that_fails_leaves_no_upload_session_open() {
    for (step, fault) in [
        (Step::UploadPut, answer(403)),
        (Step::UploadPut, answer(503)),
        (Step::UploadPut, Fault::Reset),
        (Step::ManifestPut, answer(403)),
    ] {
        let bench = Bench::new();
        let image = bench.image(2 * MIB);
        bench.proxy.set_rules(vec![Rule::at(step, fault)]);
        let output = bench.push(&image, &["--retry-for=1s"]);
        assert!(matches!(output.code(), Some(4 | 5)), "{output}");
        assert_eq!(bench.registry.open_uploads(), 0, "{}", bench.proxy.transcript());
    }
}

#[test]
fn a_push_that_is_interrupted_leaves_no_upload_session_open() {
    let bench = Bench::new();
    let image = bench.image(8 * MIB);
    bench.proxy.set_rules(vec![Rule::at(
        Step::UploadPut,
        Fault::stall(Place::RequestBody(At::Percent(50))),
    )]);
    let child = bench.machine.spawn([image.display().to_string(), bench.name()]);
    let began = std::time::Instant::now();
    while bench.proxy.count_step(Step::UploadPut) == 0 {
        assert!(began.elapsed() < Duration::from_secs(30), "no upload began");
        std::thread::sleep(Duration::from_millis(20));
    }
    let killed = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .expect("the program kill");
    assert!(killed.success());
    let output = child.wait_with_output().expect("its end");
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(bench.registry.open_uploads(), 0, "{}", bench.proxy.transcript());
    assert_eq!(bench.registry.tag("app", "v1"), None);
}

#[test]
fn nothing_secret_is_ever_shown() {
    let dir = TempDir::new().expect("a folder");
    let image =
        ImageBuilder::new(vec![Layer::random("a", 1, 2 * MIB)]).write(dir.path(), "image.tar");
    let basic = "cHVzaGltZzpjb3JyZWN0IGhvcnNl";
    // Registries and gateways may repeat in an error what they received.
    let echo = |status, secret: &str| {
        let message =
            format!("refused {secret} at http://h/b?X-Amz-Signature=51gn4tur3&_state=51gn4tur3");
        Fault::Answer(Answer::status(status).error("DENIED", &message))
    };
    let tokens = TokenServer::start(TokenOptions::default());
    let (with_tokens, with_basic) = (DockerRegistry::token(&tokens), DockerRegistry::basic());
    let foreign = {
        let set = "http://127.0.0.1:1/up?_state=51gn4tur3&X-Amz-Signature=51gn4tur3".to_owned();
        rewrite(Change::Set("location".to_owned(), set))
    };
    for (registry, token) in [(&with_tokens, Some(tokens.addr())), (&with_basic, None)] {
        let proxy = FaultProxy::start(
            registry.addr(),
            &ProxyOptions { token_upstream: token, ..Default::default() },
        );
        let machine = Pushimg::new().login(&proxy.host(), BASIC_USER, BASIC_PASSWORD);
        // The registry receives the password only with Basic auth, so only then can it repeat the
        // password.
        let ours = if token.is_some() { "it" } else { basic };
        let faults = [
            vec![],
            vec![Rule::at(Step::UploadPut, echo(403, ours))],
            vec![Rule::at(Step::ManifestPut, echo(500, ours))],
            vec![Rule::at(Step::UploadPut, Fault::Reset)],
            vec![Rule::at(Step::UploadPut, Fault::ExpiredToken)],
            vec![Rule::at(Step::UploadPost, foreign.clone())],
            vec![Rule::at(Step::TokenGet, echo(403, basic))],
            vec![Rule::at(Step::TokenGet, echo(500, basic))],
        ];
        for (number, rules) in faults.iter().enumerate() {
            proxy.clear();
            proxy.set_rules(rules.clone());
            let output = machine.run([
                image.display().to_string(),
                format!("{}/app{number}:v1", proxy.host()),
                "-vvv".to_owned(),
                "--json".to_owned(),
                "--retry-for=1s".to_owned(),
            ]);
            assert!(output.stderr.contains("> "), "headers are shown\n{output}");
            let records = proxy.records();
            let sent = records.iter().filter_map(|r| r.header("authorization"));
            let mut secrets: Vec<String> =
                sent.filter_map(|v| Some(v.split_once(' ')?.1.to_owned())).collect();
            secrets.extend(records.iter().filter_map(|r| {
                let (_, state) = r.target.split_once("_state=")?;
                Some(state.split('&').next()?.to_owned())
            }));
            assert!(!secrets.is_empty());
            secrets.extend([BASIC_PASSWORD, basic, "51gn4tur3"].map(str::to_owned));
            let mut output = output;
            for secret in &secrets {
                output = output.never_says(secret);
            }
        }
    }
}

//! PUT, PATCH and chunks: pushimg finds the upload method that a registry accepts and remembers it.

use super::*;

#[test]
fn where_a_put_with_a_body_is_refused_the_bytes_go_by_patch_and_the_host_is_remembered() {
    for status in [400, 405, 411, 415, 501] {
        let bench = Bench::new();
        let image = bench.image(2 * MIB);
        bench.proxy.set_rules(vec![Rule::at(Step::UploadPut, answer(status)).first(1)]);
        bench.pushed(&image, &["-j1"]);
        let full_puts = bench
            .proxy
            .count(|r| r.step == Step::UploadPut && r.header("content-length") != Some("0"));
        // Config and first layer may begin together.
        assert!(full_puts <= 3, "{status}\n{}", bench.proxy.transcript());
        assert!(bench.proxy.count_step(Step::UploadPatch) >= 2, "{}", bench.proxy.transcript());
    }
}

#[test]
fn where_a_streamed_patch_is_refused_too_there_are_chunks() {
    let bench = Bench::new();
    let image = bench.image(2 * MIB);
    bench.proxy.set_rules(vec![
        Rule::at(Step::UploadPut, Fault::refused_method()).first(1),
        Rule::at(Step::UploadPatch, answer(411)).first(1),
    ]);
    bench.pushed(&image, &["-j1"]);
    let ranged = |r: &Record| r.step == Step::UploadPatch && r.header("content-range").is_some();
    assert!(bench.proxy.count(ranged) >= 1, "{}", bench.proxy.transcript());
}

#[test]
fn bodies_are_cut_to_the_length_that_a_gateway_lets_through() {
    for unread in [Unread::KeepReading, Unread::ReadFirst] {
        let bench = Bench::new();
        let image =
            ImageBuilder::new(vec![Layer::random("a", 1, 5 * MIB), Layer::random("b", 2, 5 * MIB)])
                .write(bench.dir.path(), "image.tar");
        let cap = Fault::BodyCap { bytes: 2 * MIB as u64, unread };
        bench.proxy.set_rules(vec![
            Rule::at(Step::UploadPut, cap.clone()),
            Rule::at(Step::UploadPatch, cap),
        ]);
        bench.pushed(&image, &["-j1"]);
        let too_long = bench.proxy.count(|r| r.status == Some(413));
        // pushimg halves the length twice, to 2.5 and 1.25 MiB. The second layer uses that length
        // at once.
        assert!(too_long <= 3, "{}", bench.proxy.transcript());
    }
    // A cap below which nothing useful is left.
    let bench = Bench::new();
    let image = bench.image(2 * MIB);
    let cap = Fault::BodyCap { bytes: 1000, unread: Unread::KeepReading };
    bench.proxy.set_rules(vec![Rule::any(cap)]);
    bench.push(&image, &["-j1"]).exits(4).says("limits the size of a request");
}

#[test]
fn chunks_have_the_least_length_that_the_registry_wants() {
    let bench = Bench::new();
    let image = bench.image(9 * MIB);
    let least = 2 * MIB;
    let cap = Fault::BodyCap { bytes: 5 * MIB as u64, unread: Unread::KeepReading };
    let set = Change::Set("oci-chunk-min-length".to_owned(), least.to_string());
    bench.proxy.set_rules(vec![
        Rule::at(Step::UploadPost, rewrite(set)),
        Rule::at(Step::UploadPut, cap.clone()),
        Rule::at(Step::UploadPatch, cap),
    ]);
    bench.pushed(&image, &["-j1"]);
    let records = bench.proxy.records();
    let chunks: Vec<_> = records
        .iter()
        .filter(|r| r.step == Step::UploadPatch && r.status == Some(202))
        .map(|r| r.request_body as usize)
        .collect();
    let (_, all_but_last) = chunks.split_last().expect("chunks");
    assert!(!all_but_last.is_empty() && all_but_last.iter().all(|len| *len >= least), "{chunks:?}");
}

#[test]
fn a_chunk_that_does_not_fit_is_asked_after() {
    let bench = Bench::new();
    let image = bench.image(2 * MIB);
    bench.proxy.set_rules(vec![
        Rule::at(Step::UploadPut, Fault::refused_method()).first(1),
        Rule::at(Step::UploadPatch, answer(416)).first(1),
    ]);
    bench.pushed(&image, &["-j1"]);
}

#[test]
fn unusual_answers_to_an_upload_are_answers() {
    let changes = [
        vec![Change::Status(204)],
        vec![Change::Status(201)],
        vec![Change::Status(204), Change::Remove("location".to_owned())],
        vec![Change::Remove("docker-content-digest".to_owned())],
        vec![Change::Remove("content-type".to_owned())],
    ];
    for changes in changes {
        let bench = Bench::new();
        let image = bench.image(2 * MIB);
        let fault = Fault::Rewrite(changes);
        bench.proxy.set_rules(vec![
            Rule::at(Step::UploadPut, Fault::refused_method()).first(1),
            Rule::at(Step::UploadPut, fault.clone()),
            Rule::at(Step::UploadPatch, fault.clone()),
            Rule::at(Step::ManifestPut, fault),
        ]);
        bench.pushed(&image, &[]);
    }
}

#[test]
fn a_hasty_answer_ends_the_sending_and_is_heard() {
    // A refusal while the body is still under way.
    let bench = Bench::new();
    let image = bench.image(48 * MIB);
    let refusal = Answer::status(403).error("DENIED", "quota exceeded");
    bench.proxy.set_rules(vec![Rule::at(Step::UploadPut, Fault::Answer(refusal))]);
    bench.push(&image, &["-j1"]).exits(4).says("quota exceeded");
    // What the kernel holds already cannot be called back.
    bench.sent_at_most(0.7, 48 * MIB);

    // The connection is also closed after the answer. pushimg either reads the answer or sees a
    // broken connection.
    for status in [401, 413, 503] {
        let bench = Bench::new();
        let image = bench.image(6 * MIB);
        let answer = Answer::status(status)
            .header("www-authenticate", "Bearer realm=\"http://127.0.0.1:1/token\"")
            .unread(Unread::Close);
        let fault = Fault::Answer(answer);
        bench.proxy.set_rules(vec![big(fault).first(1)]);
        let output = bench.push(&image, &["-j1", "--retry-for=3s"]);
        match output.code() {
            Some(0) => drop(pull::assert_same_image(&image, bench.registry.addr(), "app", "v1")),
            Some(4 | 5) => assert_eq!(bench.registry.tag("app", "v1"), None, "{output}"),
            _ => panic!("{output}"),
        }
        assert_ne!((status, output.code()), (503, Some(5)), "{output}");
    }
}

#[test]
fn a_registry_without_head_is_asked_otherwise() {
    let (dir, registry) = (TempDir::new().expect("a folder"), DockerRegistry::plain());
    let proxy = FaultProxy::before(registry.addr());
    proxy.set_rules(vec![Rule::any(Fault::refused_method()).method("HEAD")]);
    let image = ImageBuilder::new(vec![Layer::random("a", 1, MIB), Layer::file("b", b"b")])
        .write(dir.path(), "image.tar");
    let push = |tag| {
        let name = format!("{}/app:{tag}", proxy.host());
        Pushimg::new().run([image.display().to_string(), name]).success();
    };
    push("latest");
    proxy.clear();
    push("v1");
    let sent = proxy.body_bytes(|r| matches!(r.step, Step::UploadPatch | Step::UploadPut));
    assert_eq!(sent, 0, "{}", proxy.transcript());
    let asked = |r: &Record| r.step == Step::ConfigGet && r.header("range").is_some();
    let records = proxy.records();
    let read: u64 = records.iter().filter(|r| asked(r)).map(|r| r.response_body).sum();
    assert!(records.iter().any(asked), "{}", proxy.transcript());
    assert!(read < 100, "a question is no download: {read}");
    pull::assert_same_image(&image, registry.addr(), "app", "v1");
}

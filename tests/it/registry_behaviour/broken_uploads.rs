//! Uploads that break are resumed, or sent anew where the registry cannot resume.

use super::*;

#[test]
fn an_upload_that_breaks_goes_on_where_the_registry_stands() {
    for fault in [cut(50), cut(90)] {
        let bench = Bench::new();
        let image = bench.image(8 * MIB);
        bench.proxy.set_rules(vec![big(fault).first(1)]);
        bench.pushed(&image, &["-j1"]).says("retry: ");
        assert_eq!(bench.proxy.count_step(Step::UploadStatus), 1, "{}", bench.proxy.transcript());
        bench.sent_at_most(1.02, 8 * MIB);
    }
}

/// A layer so big that it is sent while it is being made, over a line that breaks again and again.
#[test]
fn a_big_layer_arrives_over_a_line_that_breaks_every_few_megabytes() {
    let full = std::env::var_os("PUSHIMG_TEST_FULL").is_some();
    let (size, stretch) = if full { (1024 * MIB, 20 * MIB) } else { (128 * MIB, 6 * MIB) };
    let bench = Bench::new();
    let image = ImageBuilder::new(vec![Layer::random("model-1.0", 7, size)])
        .write(bench.dir.path(), "image.tar");
    let breaks = Fault::CutRequest { at: At::Bytes(stretch as u64), delivered: true };
    bench.proxy.set_rules(vec![
        Rule::at(Step::UploadPatch, breaks.clone()),
        Rule::at(Step::UploadPut, breaks),
    ]);
    let machine = Pushimg::new().limit(Duration::from_secs(600));
    let output = machine
        .run([
            image.display().to_string(),
            bench.name(),
            "--compression=none".to_owned(),
            "--retry-for=10s".to_owned(),
        ])
        .success();
    pull::assert_same_image(&image, bench.registry.addr(), "app", "v1");
    let broken = bench.proxy.count(|r| r.fault.is_some());
    assert!(broken >= size / stretch, "{broken} breaks\n{output}");
    bench.sent_at_most(1.05, size);
    let sent = bench.blob_bytes();
    println!("{size} bytes over {broken} breaks: {sent} sent, {:?}", output.took);
}

#[test]
fn a_registry_that_cannot_resume_gets_the_blob_anew() {
    let registry = DockerRegistry::plain();
    let proxy = FaultProxy::before(registry.addr());
    let dir = TempDir::new().expect("a folder");
    let image =
        ImageBuilder::new(vec![Layer::random("a", 1, 4 * MIB)]).write(dir.path(), "image.tar");
    for step in [Step::UploadPut, Step::UploadPatch] {
        proxy.set_rules(vec![Rule::at(step, cut(50)).first(2)]);
        if step == Step::UploadPatch {
            proxy.add_rule(Rule::at(Step::UploadPut, Fault::refused_method()).first(2));
        }
        let name = format!("{}/{step:?}:v1", proxy.host()).to_lowercase();
        let repository = format!("{step:?}").to_lowercase();
        Pushimg::new().run([image.display().to_string(), name]).success();
        pull::assert_same_image(&image, registry.addr(), &repository, "v1");
    }
}

#[test]
fn a_session_that_the_registry_forgot_is_opened_anew() {
    for (code, status) in [
        ("BLOB_UPLOAD_UNKNOWN", 404),
        ("BLOB_UPLOAD_INVALID", 404),
        ("BLOB_UPLOAD_INVALID", 400),
        ("UNKNOWN", 404),
    ] {
        let bench = Bench::new();
        let image = bench.image(2 * MIB);
        let gone = Fault::Answer(Answer::status(status).error(code, "no such upload"));
        bench.proxy.set_rules(vec![Rule::at(Step::UploadPut, gone).first(1)]);
        bench.push(&image, &["-j1"]).success();
        pull::assert_same_image(&image, bench.registry.addr(), "app", "v1");
    }
    let bench = Bench::new();
    let image = bench.image(2 * MIB);
    bench.proxy.set_rules(vec![Rule::at(Step::UploadPut, Fault::LostSession).first(1)]);
    bench.pushed(&image, &[]);
    // If the registry loses every session, pushimg gives up.
    let bench = Bench::new();
    bench.proxy.set_rules(vec![Rule::at(Step::UploadPut, Fault::LostSession)]);
    bench.push(&image, &["-j1"]).exits(4).says("BLOB_UPLOAD_UNKNOWN");
    let opened = bench.proxy.count_step(Step::UploadPost);
    assert!(opened <= 20, "{opened} sessions");
}

#[test]
fn a_range_that_says_nothing_or_lies_is_not_relied_on() {
    let ranges = [
        rewrite(Change::Range(RangeLie::Last(0))),
        rewrite(Change::Range(RangeLie::Fewer(100_000))),
        rewrite(Change::Range(RangeLie::More(100_000_000))),
        rewrite(Change::Remove("range".to_owned())),
        answer(405),
        answer(400),
    ];
    for fault in ranges {
        let bench = Bench::new();
        let image = bench.image(4 * MIB);
        bench
            .proxy
            .set_rules(vec![Rule::at(Step::UploadStatus, fault.clone()), big(cut(50)).first(1)]);
        bench.pushed(&image, &["-j1"]);
        bench.sent_at_most(2.6, 4 * MIB);
        let asked = bench.proxy.count_step(Step::UploadStatus);
        assert!((1..=2).contains(&asked), "{fault:?}\n{}", bench.proxy.transcript());
    }
}

#[test]
fn a_wrong_digest_after_a_resume_means_from_zero_once_and_no_more_resumes() {
    let bench = Bench::new();
    let image =
        ImageBuilder::new(vec![Layer::random("a", 1, 4 * MIB), Layer::random("b", 2, 4 * MIB)])
            .write(bench.dir.path(), "image.tar");
    let wrong =
        Fault::Answer(Answer::status(400).error("DIGEST_INVALID", "not what you said it is"));
    bench.proxy.set_rules(vec![
        big(cut(50)).first(1),
        // The PUT that ends the resumed upload.
        Rule::at(Step::UploadPut, wrong).of_length(0..=0).first(1),
        big(cut(50)).first(1),
    ]);
    bench.pushed(&image, &["-j1"]);
    assert_eq!(bench.proxy.count_step(Step::UploadStatus), 1, "{}", bench.proxy.transcript());
}

#[test]
fn a_digest_that_is_wrong_twice_is_the_registrys_last_word() {
    let bench = Bench::new();
    let image = bench.image(1000);
    let wrong = Answer::status(400).error("DIGEST_INVALID", "not what you said it is");
    bench.proxy.set_rules(vec![Rule::at(Step::UploadPut, Fault::Answer(wrong))]);
    bench.push(&image, &["-j1"]).exits(4).says("DIGEST_INVALID");
    assert!(bench.proxy.count_step(Step::UploadPut) <= 8, "{}", bench.proxy.transcript());
}

#[test]
fn an_answer_that_was_lost_costs_a_question_and_no_second_upload() {
    let lost = [Fault::LostResponse(None), Fault::LostResponse(Some(Answer::status(502).html()))];
    for fault in lost {
        let bench = Bench::new();
        let image = bench.image(4 * MIB);
        bench.proxy.set_rules(vec![Rule::at(Step::UploadPut, fault.clone())]);
        bench.pushed(&image, &[]);
        bench.sent_at_most(1.0, 4 * MIB);

        // The fault strikes every manifest PUT, so pushimg checks the tag instead.
        bench.proxy.set_rules(vec![Rule::at(Step::ManifestPut, fault)]);
        let next = ImageBuilder::new(vec![Layer::file("next", b"two")])
            .write(bench.dir.path(), "next.tar");
        bench.pushed(&next, &["--retry-for=1s"]);
    }
}

#[test]
fn a_page_of_something_in_between_is_not_taken_for_success() {
    let bench = Bench::new();
    let image = bench.image(1000);
    let portal = Fault::Answer(Answer::status(200).html());
    bench.proxy.set_rules(vec![Rule::at(Step::ManifestPut, portal.clone())]);
    bench.push(&image, &[]).exits(5).says("does not have the manifest");
    assert_eq!(bench.registry.tag("app", "v1"), None);
    bench.proxy.set_rules(vec![Rule::at(Step::UploadPut, portal.clone()).first(2)]);
    let other =
        ImageBuilder::new(vec![Layer::random("b", 5, MIB)]).write(bench.dir.path(), "other.tar");
    bench.pushed(&other, &[]).says("does not have the blob");
}

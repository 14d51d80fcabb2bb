//! What is retried and for how long, and when a silent connection is given up.

use super::*;

#[test]
fn a_pause_that_the_registry_asks_for_holds_all_requests_back() {
    for by_date in [false, true] {
        let bench = Bench::new();
        let image = bench.image(1000);
        let pause = match by_date {
            false => Answer::status(503).retry_after(2),
            true => Answer::status(429).retry_after_date(Duration::from_secs(3)),
        };
        bench.proxy.set_rules(vec![Rule::at(Step::UploadPost, Fault::Answer(pause)).first(1)]);
        let output = bench.pushed(&image, &[]);
        assert_eq!(output.stderr.matches("retry: ").count(), 1, "{output}");
        let records = bench.proxy.records();
        let struck = records.iter().find(|r| r.fault.is_some()).expect("a fault");
        let told = struck.answered.expect("an answer");
        // What was under way when the answer came may still arrive.
        let (from, to) = (told + Duration::from_millis(100), told + Duration::from_millis(1900));
        let early = records.iter().filter(|r| from < r.arrived && r.arrived < to).count();
        assert_eq!(early, 0, "{}", bench.proxy.transcript());
    }
}

#[test]
fn a_pause_longer_than_the_users_patience_fails_at_once_and_says_so() {
    let bench = Bench::new();
    let image = bench.image(1000);
    let pause = Answer::status(429).retry_after(3600).error("TOOMANYREQUESTS", "slow down");
    bench.proxy.set_rules(vec![Rule::at(Step::UploadPost, Fault::Answer(pause))]);
    let output = bench.push(&image, &[]).exits(5);
    assert!(output.took < Duration::from_secs(5), "{output}");
    output.says("pause of 1h").says("--retry-for 2m").says("slow down");
    assert_eq!(bench.registry.tag("app", "v1"), None);
}

#[test]
fn what_may_pass_is_tried_again_within_the_limit_and_no_longer() {
    for status in [408, 425, 429, 500, 502, 503, 504] {
        let bench = Bench::new();
        let image = bench.image(1000);
        bench.proxy.set_rules(vec![Rule::at(Step::ManifestPut, answer(status)).first(2)]);
        let output = bench.pushed(&image, &[]);
        assert_eq!(output.stderr.matches("retry: ").count(), 2, "{output}");
    }
    let bench = Bench::new();
    let image = bench.image(1000);
    bench.proxy.set_rules(vec![Rule::at(Step::ManifestPut, answer(503))]);
    let output = bench.push(&image, &["--retry-for=3s"]).exits(5).says("--retry-for DURATION");
    assert!(output.took < Duration::from_secs(6), "{output}");
    let tries = bench.proxy.count_step(Step::ManifestPut);
    assert!((3..=6).contains(&tries), "{tries} tries\n{output}");
    assert_eq!(output.stderr.matches("retry: ").count(), tries - 1, "{output}");

    bench.proxy.clear();
    bench.push(&image, &["--retry-for=0"]).exits(5);
    assert_eq!(bench.proxy.count_step(Step::ManifestPut), 1);
}

#[test]
fn what_cannot_succeed_is_not_tried_again() {
    for status in [400, 403, 404, 405] {
        for step in [Step::UploadPost, Step::ManifestPut] {
            let bench = Bench::new();
            let image = bench.image(1000);
            let refusal = Answer::status(status).error("DENIED", "not for you");
            bench.proxy.set_rules(vec![Rule::at(step, Fault::Answer(refusal))]);
            let output = bench.push(&image, &["-j1"]).exits(4).says("not for you");
            assert!(!output.stderr.contains("retry: "), "{output}");
            let puts = bench.proxy.count_step(Step::ManifestPut);
            assert!(puts <= 1, "{}", bench.proxy.transcript());
            assert_eq!(bench.registry.tag("app", "v1"), None);
            assert_eq!(bench.registry.open_uploads(), 0, "{}", bench.proxy.transcript());
        }
    }
}

#[test]
fn a_host_that_nobody_ever_heard_of_is_given_up_soon() {
    let dir = TempDir::new().expect("a folder");
    let image = ImageBuilder::new(vec![Layer::file("a", b"a")]);
    // No server listens at a port that was just freed.
    let (_, addr) = crate::support::served::bind(0);
    for archive in [image.write(dir.path(), "a.tar"), image.write_gz(dir.path(), "a.tar.gz")] {
        let output =
            Pushimg::new().run([archive.display().to_string(), format!("{addr}/app:v1")]).exits(5);
        assert!(output.took < Duration::from_secs(14), "{output}");
        output.says(&addr.to_string()).says("is a registry running there?");
    }
}

#[test]
fn a_connection_that_stands_still_is_given_up_in_both_directions() {
    let stalls = [
        (Step::UploadPut, Fault::stall(Place::RequestBody(At::Percent(50)))),
        (Step::ManifestPut, Fault::stall(Place::BeforeResponse)),
        (Step::BlobHead, Fault::stall(Place::BeforeResponse)),
        (Step::UploadPost, Fault::stall(Place::BeforeResponse)),
    ];
    for (step, fault) in stalls {
        let bench = Bench::new();
        let image = bench.image(16 * MIB);
        bench.proxy.set_rules(vec![Rule::at(step, fault).nth(1)]);
        let output = bench.push(&image, &["--idle-timeout=1s"]).success();
        output.says("nothing moved on the connection");
        pull::assert_same_image(&image, bench.registry.addr(), "app", "v1");
    }
}

#[test]
fn a_registry_may_take_its_time_to_store_a_blob() {
    let bench = Bench::new();
    let image = bench.image(1000);
    let slow =
        Fault::Stall { place: Place::BeforeResponse, hold: Hold::For(Duration::from_millis(2500)) };
    bench.proxy.set_rules(vec![Rule::at(Step::UploadPut, slow).first(1)]);
    let output = bench.pushed(&image, &["--idle-timeout=1s"]);
    assert!(!output.stderr.contains("retry: "), "{output}");
}
